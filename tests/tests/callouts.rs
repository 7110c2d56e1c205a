//! Clients whom a server of Python's knows, which curl (Debian) asks as the broker does; and tokens that
//! Python signs.

use avocet_tests::broker::Broker;
use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use serde_json::Value;
use tokio::process::Command;

const DOCUMENTATION: &str = include_str!("../../docs/access.md");

/// The exit code of `avocet pub`, which a reason of CONNACK or PUBACK decides.
async fn publish(broker: &Broker, arguments: &[&str], topic: &str) -> Option<i32> {
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(avocet);
    command
        .arg("pub")
        .args(broker.arguments())
        .args(arguments)
        .args(["-q", "1", "-t", topic, "-m", "x"]);
    command.output().await.expect("avocet starts").status.code()
}

/// What the documentation says a server is asked, and answers.
fn documented() -> (&'static str, &'static str) {
    let mut lines = DOCUMENTATION.lines();
    let question = lines.find_map(|line| line.strip_prefix("$ curl "));
    (
        question.expect("a command"),
        lines.next().expect("what it prints"),
    )
}

#[tokio::test]
async fn curl_and_the_broker_ask_the_same_and_hear_the_same() {
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let mut serve = Command::new(&tools.python);
    let program = provision::client_file("callout/server.py");
    serve.arg(program).arg("opener");
    let mut server = Process::spawn("a server that knows clients", serve);
    let port = |line: &str| line.strip_prefix("port ")?.parse::<u16>().ok();
    let url = format!(
        "http://127.0.0.1:{}/mqtt",
        server.line("its port", port).await
    );
    let question = |line: &str| serde_json::from_str::<Value>(line).ok();

    let (arguments, answer) = documented();
    let mut curl = Command::new("sh");
    let arguments = arguments.replace("https://auth.example.org/mqtt", &url);
    curl.args(["-c", &format!("curl {arguments}")]);
    let said = String::from_utf8(output(curl).await).expect("it is text");
    let (said, answer): (Value, Value) = (
        serde_json::from_str(&said).expect("it is JSON"),
        serde_json::from_str(answer).expect("it is JSON"),
    );
    assert_eq!(said, answer);
    let asked_by_curl = server.line("a question", question).await;

    let scratch = Scratch::new();
    let secret = scratch.write("secret", "opener\n").display().to_string();
    let rules = "[[rule]]\nallow = 'publish'\ntopic = 'plant/{claim.site}/{user}'\n";
    let rules = scratch.write("rules.toml", rules).display().to_string();
    let settings = [
        ("AVOCET_ACCESS_AUTHENTICATE_URL", url.as_str()),
        ("AVOCET_ACCESS_AUTHENTICATE_SECRET_FILE", &secret),
        ("AVOCET_ACCESS_RULES", &rules),
        ("AVOCET_ACCESS_HTTP_CACHE", "0s"),
    ];
    let broker = Broker::start_with(&settings).await;
    let right = ["-i", "pump-7", "-u", "ann", "-P", "right"];
    assert_eq!(publish(&broker, &right, "plant/north/pump").await, Some(0));
    assert_eq!(server.line("a question", question).await, asked_by_curl);
    assert_eq!(publish(&broker, &right, "plant/north/ann").await, Some(1));
    let wrong = ["-i", "pump-7", "-u", "ann", "-P", "wrong"];
    // Bad User Name or Password.
    assert_eq!(
        publish(&broker, &wrong, "plant/north/pump").await,
        Some(0x86)
    );
}

#[tokio::test]
async fn a_token_in_a_file_lets_the_command_line_in() {
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let scratch = Scratch::new();
    let token = async |secret: &str, seconds: &str| {
        let mut command = Command::new(&tools.python);
        command.arg(provision::client_file("callout/token.py"));
        command.args([secret, "pump", seconds]);
        let name = format!("{secret}{seconds}.jwt");
        scratch
            .write(&name, output(command).await)
            .display()
            .to_string()
    };
    let secret = "thirty-two bytes or more of it..";
    let keys = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"dGhpcnR5LXR3byBieXRlcyBvciBtb3JlIG9mIGl0Li4"}]}"#;
    let keys = scratch.write("keys.json", keys).display().to_string();
    let rules = "[[rule]]\nallow = 'publish'\ntopic = 'plant/{user}'\n";
    let rules = scratch.write("rules.toml", rules).display().to_string();
    let settings = [
        ("AVOCET_ACCESS_TOKEN_KEYS", keys.as_str()),
        ("AVOCET_ACCESS_RULES", &rules),
    ];
    let broker = Broker::start_with(&settings).await;
    let other = "another secret of thirty-two bytes";
    for (path, topic, code) in [
        (token(secret, "600").await, "plant/pump", 0),
        (token(secret, "600").await, "plant/valve", 1),
        (token(secret, "-1").await, "plant/pump", 0x86),
        (token(other, "600").await, "plant/pump", 0x86),
    ] {
        let arguments = ["--pw-file", &path];
        assert_eq!(
            publish(&broker, &arguments, topic).await,
            Some(code),
            "{path}"
        );
    }
    let mut bench = Command::new(provision::avocet().unwrap_or_else(|error| panic!("{error:#}")));
    let path = token(secret, "600").await;
    bench.args(["bench", "connect"]).args(broker.arguments());
    bench.args([
        "--clients",
        "5",
        "--hold",
        "0",
        "--quiet",
        "--pw-file",
        &path,
    ]);
    output(bench).await;
}
