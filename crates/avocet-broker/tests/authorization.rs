//! What clients may do, where an HTTP server is asked.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a failing helper fails its test, and deadlines are measured"
)]

#[path = "common/certificates.rs"]
mod certificates;
mod common;
#[path = "common/http.rs"]
mod http;

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use avocet_codec::{
    Connect, Delivery, Packet, QoS, ReasonCode, Subscribe, SubscribeFilter, TopicFilter, TopicName,
    Version, Will,
};
use serde_json::{Value, json};

use certificates::Authority;
use common::{Client, DEADLINE, DataDir, Server, id};
use http::{Answer, Http, say, tls};

/// A broker whose clients have no User Names, with more in section `[access]`.
fn start(dir: &DataDir, access: &str) -> Server {
    fs::create_dir_all(&dir.0).unwrap();
    let config = dir.0.join("avocet.toml");
    fs::write(
        &config,
        format!("listen = '127.0.0.1:0'\n[access]\n{access}\n"),
    )
    .unwrap();
    let mut command = common::command();
    command.arg("--config").arg(&config);
    Server::spawn(command)
}

/// The code of the PUBACK for a message.
fn publish(client: &mut Client, topic: &str) -> ReasonCode {
    client.publish(topic, Delivery::AtLeastOnce(id(1)), b"x");
    puback(client)
}

fn puback(client: &mut Client) -> ReasonCode {
    let frame = client.receive();
    let Packet::Puback(ack) = frame.packet() else {
        panic!("no PUBACK: {frame:?}")
    };
    ack.reason_code
}

fn subscribe(client: &mut Client, filters: &[&str]) -> Vec<ReasonCode> {
    let filters = filters
        .iter()
        .map(|filter| TopicFilter::new(filter).unwrap());
    let filters: Vec<_> = filters
        .map(|filter| SubscribeFilter::new(filter, QoS::ExactlyOnce))
        .collect();
    client.send(&Packet::Subscribe(Subscribe::new(id(1), &filters)));
    let frame = client.receive();
    let Packet::Suback(suback) = frame.packet() else {
        panic!("no SUBACK: {frame:?}")
    };
    suback.reason_codes.iter().collect()
}

fn asked_about(http: &Http) -> Vec<String> {
    let asked = http.asked();
    let asked = asked
        .iter()
        .map(|it| serde_json::from_str(&it.body).unwrap());
    asked
        .map(|it: Value| it["topic"].as_str().unwrap().to_owned())
        .collect()
}

const OK: ReasonCode = ReasonCode::NoMatchingSubscribers;

#[test]
fn a_server_decides_about_what_no_rule_is_about() {
    let dir = DataDir::new();
    let http = Http::start(Answer::Judge(|wish| {
        match wish["topic"].as_str().unwrap() {
            "yes" | "yes/#" | "shared" => json!({"allow": true}),
            "low" => json!({"allow": true, "qos": 1}),
            "nobody" => json!({"ignore": true}),
            _ => json!({"allow": false}),
        }
    }));
    fs::create_dir_all(&dir.0).unwrap();
    let rules = dir.0.join("rules.toml");
    let text = "# Of three.\n[[rule]]\nallow = 'all'\ntopic = 'free/#'\n\n[[rule]]\nname = 'no secrets'\n\
                deny = 'all'\ntopic = 'secret/#'\n";
    fs::write(&rules, text).unwrap();
    fs::write(dir.0.join("secret"), "opener").unwrap();
    let access = format!(
        "authorize_url = '{}'\nauthorize_secret_file = '{}'\nrules = '{}'",
        http.url(),
        dir.0.join("secret").display(),
        rules.display()
    );
    let mut server = start(&dir, &access);
    let mut client = server.connect(Version::V5, "pump");
    for (topic, expected) in [
        ("free/a", OK),
        ("secret/a", ReasonCode::NotAuthorized),
        ("yes", OK),
        ("no", ReasonCode::NotAuthorized),
        ("nobody", ReasonCode::NotAuthorized),
        ("yes", OK),
        ("no", ReasonCode::NotAuthorized),
    ] {
        assert_eq!(publish(&mut client, topic), expected, "{topic}");
    }
    assert_eq!(asked_about(&http), ["yes", "no", "nobody"]);
    let question = &http.asked()[0];
    let head = question.head.to_lowercase();
    assert!(head.starts_with("post /ask?x=1 "), "{head}");
    assert!(head.contains("authorization: bearer opener\r\n"), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(&question.body).unwrap(),
        json!({"action": "publish", "topic": "yes", "share": null, "qos": 1, "retain": false, "will": false,
               "client_id": "pump", "user_name": null, "tenant": null, "address": "127.0.0.1",
               "listener": 0, "cert_cn": null, "cert_san": [], "claims": {}})
    );
    let all = [
        "free/+",
        "secret/a",
        "yes/#",
        "low",
        "other",
        "$share/g/shared",
    ];
    let granted = subscribe(&mut client, &all);
    assert_eq!(
        granted,
        [
            ReasonCode::GrantedQoS2,
            ReasonCode::NotAuthorized,
            ReasonCode::GrantedQoS2,
            ReasonCode::GrantedQoS1,
            ReasonCode::NotAuthorized,
            ReasonCode::GrantedQoS2,
        ]
    );
    assert_eq!(asked_about(&http)[3..], ["yes/#", "low", "other", "shared"]);
    let shared: Value = serde_json::from_str(&http.asked()[6].body).unwrap();
    assert_eq!(
        (&shared["action"], &shared["share"]),
        (&json!("subscribe"), &json!("g"))
    );
    // Who was refused, what, and by whom.
    let told = server.wait_for_log("not allowed");
    for text in [
        "client_id=\"pump\"",
        "action=\"publish\"",
        "topic=\"secret/a\"",
        r#"rule 2 \"no secrets\" (line 6)"#,
    ] {
        assert!(told.contains(text), "{told}");
    }
    let told = server.wait_for_log("not allowed");
    assert!(
        told.contains("topic=\"no\"") && told.contains("refused_by=\"callout\""),
        "{told}"
    );
}

#[test]
fn a_will_is_asked_about_before_its_client_is_let_in() {
    let dir = DataDir::new();
    let http = Http::start(say(&json!({"allow": false})));
    let access = format!("authorize_url = '{}'\nhttp_cache = '0s'", http.url());
    let server = start(&dir, &access);
    let mut connect = Connect::new(Version::V5, "c");
    let will = TopicName::new("will").unwrap();
    connect.will = Some(Will::new(will, b"gone"));
    for (answer, expected) in [
        (say(&json!({"allow": false})), ReasonCode::NotAuthorized),
        (
            Answer::Say(500, String::new()),
            ReasonCode::ImplementationSpecificError,
        ),
        (say(&json!({"allow": true})), ReasonCode::Success),
    ] {
        http.set(answer);
        let mut client = Client::open(server.address, Version::V5);
        client.send(&Packet::Connect(connect));
        let frame = client.receive();
        let Packet::Connack(connack) = frame.packet() else {
            panic!("no CONNACK: {frame:?}")
        };
        assert_eq!(connack.reason_code, expected);
    }
    let asked: Value = serde_json::from_str(&http.asked()[0].body).unwrap();
    assert_eq!(
        (&asked["action"], &asked["will"]),
        (&json!("publish"), &json!(true))
    );
}

/// A server that stalls, lies, answers garbage or too much, or goes away, lets nobody do anything, and
/// what nobody has to be asked about goes on.
#[test]
fn nobody_may_do_anything_because_nobody_said_no() {
    let dir = DataDir::new();
    let http = Http::start(Answer::Wait);
    fs::create_dir_all(&dir.0).unwrap();
    let rules = dir.0.join("rules.toml");
    fs::write(&rules, "[[rule]]\nallow = 'all'\ntopic = 'free/#'\n").unwrap();
    let access = format!(
        "authorize_url = '{}'\nhttp_timeout = '3s'\nhttp_cache = '0s'\nrules = '{}'",
        http.url(),
        rules.display()
    );
    let mut server = start(&dir, &access);
    let mut client = server.connect(Version::V5, "c");
    let mut other = server.connect(Version::V5, "d");
    let long = json!({"allow": true, "x": "x".repeat(300_000)}).to_string();
    let answers = [
        Answer::Wait,
        Answer::Say(200, "yes".to_owned()),
        Answer::Say(200, "{}".to_owned()),
        Answer::Say(302, json!({"allow": true}).to_string()),
        Answer::Say(500, json!({"allow": true}).to_string()),
        Answer::Say(200, long),
        Answer::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"allow\": true}"),
        Answer::Raw(b""),
        Answer::Raw(b"\0\xffSMTP ready\r\n\r\n"),
        Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"allow\": true}"),
        Answer::Raw(
            b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\ncontent-length: 2\r\n\r\n{\"allow\": true}",
        ),
    ];
    for answer in answers {
        // A server that was well is asked.
        http.set(say(&json!({"allow": false})));
        assert_eq!(publish(&mut client, "t"), ReasonCode::NotAuthorized);
        http.set(answer);
        client.publish("t", Delivery::AtLeastOnce(id(1)), b"x");
        // What no rule is about waits; the others do not, nor do other clients.
        assert_eq!(publish(&mut other, "free/a"), OK);
        assert_eq!(puback(&mut client), ReasonCode::ImplementationSpecificError);
        let refused = subscribe(&mut client, &["free/b", "t/#"]);
        let unknown = ReasonCode::ImplementationSpecificError;
        assert_eq!(refused, [ReasonCode::GrantedQoS2, unknown]);
    }
    server.wait_for_log("was asked in vain");
    let told = server.wait_for_log("not allowed");
    assert!(told.contains("callout, which did not answer"), "{told}");
    // It is asked again.
    http.set(say(&json!({"allow": true})));
    let until = Instant::now() + DEADLINE;
    while publish(&mut client, "t") != OK {
        assert!(Instant::now() < until, "it is not asked again");
    }
    server.wait_for_log("answers again");
}

#[test]
fn while_nobody_answers_nobody_waits_long() {
    let dir = DataDir::new();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = start(&dir, &format!("authorize_url = 'http://{gone}/'"));
    let mut clients: Vec<_> = (0..50)
        .map(|n| server.connect(Version::V5, &format!("c{n}")))
        .collect();
    let begun = Instant::now();
    for round in 0..4 {
        for client in &mut clients {
            client.publish(&format!("t/{round}"), Delivery::AtLeastOnce(id(1)), b"x");
        }
        for client in &mut clients {
            assert_eq!(puback(client), ReasonCode::ImplementationSpecificError);
        }
    }
    assert!(begun.elapsed() < DEADLINE);
}

#[test]
fn answers_hold_for_a_while_and_none_beyond_a_reload() {
    let dir = DataDir::new();
    let barrier = Arc::new(Barrier::new(2));
    let yes = json!({"allow": true}).to_string();
    let http = Http::start(say(&json!({"allow": true})));
    let access = format!(
        "authorize_url = '{}'\nhttp_cache = '1h'\nhttp_timeout = '30s'\nauthorize_topics = 2",
        http.url()
    );
    let mut server = start(&dir, &access);
    let mut client = server.connect(Version::V5, "c");
    for _ in 0..20 {
        assert_eq!(publish(&mut client, "a"), OK);
        assert_eq!(publish(&mut client, "b"), OK);
    }
    assert_eq!(asked_about(&http), ["a", "b"]);
    assert_eq!(publish(&mut client, "c"), OK);
    assert_eq!(publish(&mut client, "a"), OK);
    assert_eq!(asked_about(&http), ["a", "b", "c", "a"]);
    // One is on its way while the files are read again.
    http.set(Answer::Hold(Arc::clone(&barrier), yes));
    client.publish("d", Delivery::AtLeastOnce(id(1)), b"x");
    http.wait_for(5);
    server.hang_up();
    server.wait_for_log("read again");
    barrier.wait();
    assert_eq!(puback(&mut client), OK);
    http.set(say(&json!({"allow": false})));
    for topic in ["a", "d"] {
        assert_eq!(publish(&mut client, topic), ReasonCode::NotAuthorized);
    }
}

#[test]
fn the_server_is_asked_over_tls_by_authorities_that_are_named() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let authority = Authority::new(&dir.0, "ca");
    let issued = authority.issue("localhost");
    let http = Http::start_with(say(&json!({"allow": true})), Some(tls(&issued)));
    let url = format!(
        "authorize_url = 'https://localhost:{}/'",
        http.address.port()
    );
    for (name, expected) in [
        ("ca", OK),
        ("other", ReasonCode::ImplementationSpecificError),
    ] {
        let file = if name == "ca" {
            authority.file()
        } else {
            Authority::new(&dir.0, name).file()
        };
        let server = start(&dir, &format!("{url}\nhttp_ca = '{}'", file.display()));
        let mut client = server.connect(Version::V5, "c");
        assert_eq!(publish(&mut client, "t"), expected);
    }
}

#[test]
fn what_cannot_be_asked_is_told() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    for (access, expected) in [
        (
            "authorize_url = 'http://auth.example/'",
            "access.authorize_url",
        ),
        (
            "authorize_url = 'https://b/'\nauthorize_topics = 70000",
            "access.authorize_topics",
        ),
        (
            "authorize_url = 'https://b/'\nauthorize_secret_file = '/does/not/exist'",
            "cannot read access.authorize_secret_file",
        ),
    ] {
        let config = dir.0.join("avocet.toml");
        fs::write(&config, format!("[access]\n{access}\n")).unwrap();
        let mut command = common::command();
        let ended = command.arg("check").arg("--config").arg(&config).output();
        let ended = ended.unwrap();
        assert!(!ended.status.success());
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
    }
}
