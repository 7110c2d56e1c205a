//! Users and an ACL file of mosquitto, in mosquitto and here: its clients see no difference.

use std::net::SocketAddr;

use avocet_tests::broker::Broker;
use avocet_tests::mosquitto::{Mosquitto, Subscriber, mosquitto_pub};
use avocet_tests::process::output;
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use tokio::process::Command;

const PASSWORD: &str = "pencil ☃";

/// Written by mosquitto_passwd 2.0.11, one in each of its two ways.
const USERS: &str = "\
ann:$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==
bob:$7$101$+/oXCXIFu9tWauw1$8UY1YgcfHMW5+iRUCzNGUq1Ew7t7q//Kd3NizIjAEvFDkd+Hgg7Gf0JFflnWIU0CXfVuYq9BC4DmimsTWcm6Eg==
";

const ACL: &str = "\
topic write guests/#

user ann
topic read #
topic deny secret

user bob
topic write plant/#
topic write secret
topic deny plant/forbidden

pattern write devices/%c/up
pattern write people/%u
";

/// By whom, to which topic, and whether it reaches `ann`, who has subscribed to everything.
const PUBLISHED: [(Option<&str>, &str, bool); 13] = [
    (Some("bob"), "plant/a", true),
    (Some("bob"), "plant/forbidden", false),
    (Some("bob"), "secret", false),
    (Some("bob"), "other", false),
    (Some("bob"), "devices/pump/up", true),
    (Some("bob"), "devices/valve/up", false),
    (Some("bob"), "people/bob", true),
    (Some("bob"), "people/ann", false),
    (Some("bob"), "guests/a", false),
    (None, "guests/a", true),
    (None, "plant/a", false),
    (None, "people/", false),
    (Some("bob"), "plant/last", true),
];

async fn publish(address: SocketAddr, user: Option<&str>, password: &str, topic: &str) -> bool {
    let mut command = mosquitto_pub(address);
    command.args(["-i", "pump", "-q", "1", "-t", topic, "-m", "x"]);
    if let Some(user) = user {
        command.args(["-u", user, "-P", password]);
    }
    let ended = command.output().await.expect("mosquitto_pub starts");
    ended.status.success()
}

async fn check(address: SocketAddr) {
    for version in ["mqttv311", "mqttv5"] {
        let credentials = ["-V", version, "-t", "#", "-u", "ann", "-P", PASSWORD];
        let mut ann = Subscriber::start(address, credentials).await;
        for (user, topic, _) in PUBLISHED {
            assert!(publish(address, user, PASSWORD, topic).await, "{topic}");
        }
        for (user, topic, _) in PUBLISHED.iter().filter(|(_, _, arrives)| *arrives) {
            assert_eq!(ann.next().await.topic, *topic, "of {user:?}");
        }
    }
    assert!(!publish(address, Some("bob"), "pencil", "plant/a").await);
    assert!(!publish(address, Some("eve"), PASSWORD, "plant/a").await);
}

#[tokio::test]
async fn files_of_mosquitto_mean_the_same_here() {
    let scratch = Scratch::new();
    let users = scratch.write("users", USERS);
    let acl = scratch.write("acl", ACL);
    let (users, acl) = (users.display().to_string(), acl.display().to_string());

    let configuration = format!("password_file {users}\nacl_file {acl}");
    check(Mosquitto::start(&configuration).await.address()).await;

    let program = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let mut import = Command::new(program);
    import.args(["acl", "import", &acl]);
    let rules = scratch.write("rules.toml", output(import).await);
    let rules = rules.display().to_string();
    let settings = [
        ("AVOCET_ACCESS_PASSWORD_FILE", users.as_str()),
        ("AVOCET_ACCESS_RULES", rules.as_str()),
        ("AVOCET_ACCESS_ANONYMOUS", "true"),
    ];
    check(Broker::start_with(&settings).await.address()).await;
}
