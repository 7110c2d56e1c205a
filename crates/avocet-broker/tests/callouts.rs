//! Clients whom other servers know: introspection, HTTP callouts, and keys of tokens from a URL.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a failing helper fails its test, and tokens say what time it is"
)]

#[path = "common/certificates.rs"]
mod certificates;
mod common;

#[path = "common/http.rs"]
mod http;

use std::fs;
use std::sync::{Arc, Barrier};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use avocet_codec::{Connect, Delivery, Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};

use certificates::Authority;
use common::{Client, DEADLINE, DataDir, Server, id};
use http::{Answer, Http, say, tls};

/// A broker with this section `[access]`.
fn start(dir: &DataDir, access: &str) -> Server {
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

fn folder() -> DataDir {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    dir
}

fn try_with(
    server: &Server,
    client_id: &str,
    user: Option<&str>,
    password: &[u8],
) -> (Client, ReasonCode) {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.user_name = user;
    connect.password = Some(password);
    let mut client = Client::open(server.address, Version::V5);
    client.send(&Packet::Connect(connect));
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    let reason_code = connack.reason_code;
    (client, reason_code)
}

fn reason(server: &Server, user: Option<&str>, password: &[u8]) -> ReasonCode {
    try_with(server, "c", user, password).1
}

fn publish(client: &mut Client, topic: &str) -> ReasonCode {
    client.publish(topic, Delivery::AtLeastOnce(id(1)), b"x");
    let frame = client.receive();
    let Packet::Puback(ack) = frame.packet() else {
        panic!("no PUBACK: {frame:?}")
    };
    ack.reason_code
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

const SITE_RULES: &str = "[[rule]]\nallow = 'publish'\ntopic = 'plant/{claim.site}/{user}'\n";

#[test]
fn a_token_is_introspected() {
    let dir = folder();
    let http = Http::start(say(&json!({"active": false})));
    fs::write(dir.0.join("rules.toml"), SITE_RULES).unwrap();
    fs::write(dir.0.join("secret"), "s e:cret\n").unwrap();
    let path = |name: &str| dir.0.join(name).display().to_string();
    let access = format!(
        "introspection_url = '{}'\nintrospection_client = 'broker'\nintrospection_secret_file = '{}'\n\
         rules = '{}'\ntoken_audience = 'mqtt'\ntoken_issuer = 'them'\nhttp_cache = '0s'",
        http.url(),
        path("secret"),
        path("rules.toml")
    );
    let server = start(&dir, &access);
    assert_eq!(
        reason(&server, None, b"opaque token/="),
        ReasonCode::BadUserNameOrPassword
    );
    let asked = http.asked();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].head.starts_with("POST /ask?x=1 HTTP/1.1\r\n"),
        "{asked:?}"
    );
    // broker:s%20e%3Acret
    let basic = "authorization: Basic YnJva2VyOnMlMjBlJTNBY3JldA==\r\n";
    assert!(asked[0].head.contains(basic), "{asked:?}");
    assert_eq!(
        asked[0].body,
        "token=opaque%20token%2F%3D&token_type_hint=access_token"
    );

    let good = json!({"active": true, "sub": "pump", "site": "north", "iss": "them", "aud": ["a", "mqtt"],
                      "exp": seconds() + 4});
    let with = |change: fn(&mut Value)| {
        let mut said = good.clone();
        change(&mut said);
        http.set(say(&said));
        reason(&server, Some("ignored"), b"t")
    };
    for change in [
        (|it| it["aud"] = json!("other")) as fn(&mut Value),
        |it| it["iss"] = Value::Null,
        |it| it["sub"] = json!(""),
        |it| it["exp"] = json!(seconds()),
    ] {
        assert_eq!(with(change), ReasonCode::BadUserNameOrPassword);
    }
    for change in [
        (|it| it["active"] = json!("true")) as fn(&mut Value),
        |it| *it = json!([]),
    ] {
        assert_eq!(with(change), ReasonCode::ServerUnavailable);
    }
    http.set(Answer::Say(401, String::new()));
    assert_eq!(reason(&server, None, b"t"), ReasonCode::ServerUnavailable);
    http.set(say(&good));
    let (mut client, reason_code) = try_with(&server, "p", None, b"t");
    assert_eq!(reason_code, ReasonCode::Success);
    assert_eq!(
        publish(&mut client, "plant/north/pump"),
        ReasonCode::NoMatchingSubscribers
    );
    assert_eq!(
        publish(&mut client, "plant/south/pump"),
        ReasonCode::NotAuthorized
    );
    let frame = client.receive();
    let Packet::Disconnect(disconnect) = frame.packet() else {
        panic!("no DISCONNECT: {frame:?}")
    };
    assert_eq!(
        disconnect.reason_code,
        ReasonCode::NotAuthorized,
        "the token is over"
    );
}

#[test]
fn an_http_server_says_who_may_connect_and_nobody_may_when_it_does_not() {
    let dir = folder();
    let http = Http::start(say(&json!({"allow": false})));
    fs::write(dir.0.join("rules.toml"), SITE_RULES).unwrap();
    fs::write(dir.0.join("secret"), "opener").unwrap();
    let path = |name: &str| dir.0.join(name).display().to_string();
    let access = format!(
        "authenticate_url = '{}'\nauthenticate_secret_file = '{}'\nrules = '{}'\nhttp_cache = '0s'\n\
         http_timeout = '500ms'",
        http.url(),
        path("secret"),
        path("rules.toml")
    );
    let mut server = start(&dir, &access);
    assert_eq!(
        reason(&server, Some("ann"), b"pa\xffss"),
        ReasonCode::BadUserNameOrPassword
    );
    let asked = http.asked();
    let head = asked[0].head.to_lowercase();
    assert!(head.contains("authorization: bearer opener\r\n"), "{head}");
    let said: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(
        said,
        json!({"client_id": "c", "user_name": "ann", "password": null, "password_base64": "cGH/c3M=",
               "address": "127.0.0.1", "listener": 0, "tenant": null, "cert_cn": null,
               "cert_san": []})
    );
    http.set(say(&json!({"allow": true, "claims": {"site": "north"}})));
    let (mut client, reason_code) = try_with(&server, "p", Some("ann"), b"x");
    assert_eq!(reason_code, ReasonCode::Success);
    assert_eq!(
        publish(&mut client, "plant/north/ann"),
        ReasonCode::NoMatchingSubscribers
    );
    http.set(say(
        &json!({"allow": true, "user": "bob", "claims": {"site": ["north"]}}),
    ));
    let (mut client, _) = try_with(&server, "p", Some("ann"), b"x");
    assert_eq!(
        publish(&mut client, "plant/north/bob"),
        ReasonCode::NoMatchingSubscribers
    );
    assert_eq!(
        publish(&mut client, "plant/north/ann"),
        ReasonCode::NotAuthorized
    );
    http.set(Answer::Say(403, String::new()));
    assert_eq!(
        reason(&server, Some("ann"), b"x"),
        ReasonCode::BadUserNameOrPassword
    );
    let long = json!({"allow": true, "x": "x".repeat(300_000)}).to_string();
    for answer in [
        Answer::Say(500, "{\"allow\": true}".to_owned()),
        Answer::Say(200, "yes".to_owned()),
        Answer::Say(200, "{}".to_owned()),
        Answer::Say(200, long),
        Answer::Wait,
    ] {
        http.set(answer);
        assert_eq!(
            reason(&server, Some("ann"), b"x"),
            ReasonCode::ServerUnavailable
        );
    }
    let told = server.wait_for_log("was asked in vain");
    assert!(told.contains("500"), "{told}");
    http.set(say(&json!({"allow": true})));
    assert_eq!(reason(&server, Some("ann"), b"x"), ReasonCode::Success);
    server.wait_for_log("answers again");
}

#[test]
fn a_question_whose_connection_ends_is_asked_once_more() {
    let dir = folder();
    let yes = json!({"allow": true}).to_string();
    let http = Http::start(Answer::Close(1, yes.clone()));
    let access = format!("authenticate_url = '{}'\nhttp_cache = '0s'", http.url());
    let server = start(&dir, &access);
    assert_eq!(reason(&server, Some("ann"), b"x"), ReasonCode::Success);
    let asked = http.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, asked[1].body);
    // Over the connection that is kept, and then over new ones: not for ever.
    http.set(Answer::Close(3, yes));
    assert_eq!(
        reason(&server, Some("ann"), b"x"),
        ReasonCode::ServerUnavailable
    );
    assert_eq!(http.asked().len(), 5);
    assert_eq!(reason(&server, Some("ann"), b"x"), ReasonCode::Success);
}

#[test]
fn an_answer_holds_for_a_while_for_the_same_client() {
    let dir = folder();
    let http = Http::start(say(&json!({"allow": true})));
    let access = format!("authenticate_url = '{}'\nhttp_cache = '1h'", http.url());
    let server = start(&dir, &access);
    for _ in 0..3 {
        assert_eq!(reason(&server, Some("ann"), b"x"), ReasonCode::Success);
    }
    assert_eq!(http.asked().len(), 1);
    http.set(say(&json!({"allow": false})));
    for _ in 0..2 {
        assert_eq!(
            reason(&server, Some("ann"), b"y"),
            ReasonCode::BadUserNameOrPassword
        );
    }
    assert_eq!(reason(&server, Some("ann"), b"x"), ReasonCode::Success);
    assert_eq!(http.asked().len(), 2);
    // Another client is another question.
    let other = try_with(&server, "d", Some("ann"), b"x").1;
    assert_eq!(other, ReasonCode::BadUserNameOrPassword);
}

#[test]
fn what_was_asked_before_a_reload_is_not_kept_after_it() {
    let dir = folder();
    let barrier = Arc::new(Barrier::new(2));
    let yes = json!({"allow": true}).to_string();
    let http = Http::start(Answer::Hold(Arc::clone(&barrier), yes));
    let access = format!(
        "authenticate_url = '{}'\nhttp_cache = '1h'\nhttp_timeout = '30s'",
        http.url()
    );
    let mut server = start(&dir, &access);
    let mut connect = Connect::new(Version::V5, "c");
    connect.user_name = Some("ann");
    connect.password = Some(b"x");
    let mut client = Client::open(server.address, Version::V5);
    client.send(&Packet::Connect(connect));
    http.wait_for(1);
    server.hang_up();
    server.wait_for_log("read again");
    barrier.wait();
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    assert_eq!(connack.reason_code, ReasonCode::Success);
    http.set(say(&json!({"allow": false})));
    assert_eq!(
        reason(&server, Some("ann"), b"x"),
        ReasonCode::BadUserNameOrPassword
    );
}

#[test]
fn while_the_server_is_dead_those_who_are_known_here_get_in_and_all_others_are_answered() {
    let dir = folder();
    let http = Http::start(Answer::Wait);
    let users = dir.0.join("passwd");
    fs::write(&users, format!("ann:{PASSWORD}\n")).unwrap();
    let access = format!(
        "authenticate_url = '{}'\nhttp_timeout = '1s'\npassword_file = '{}'",
        http.url(),
        users.display()
    );
    let server = start(&dir, &access);
    let begun = Instant::now();
    let mut waiting: Vec<Client> = (0..300)
        .map(|n| {
            let client_id = format!("c{n}");
            let mut connect = Connect::new(Version::V5, &client_id);
            connect.user_name = Some("eve");
            let mut client = Client::open(server.address, Version::V5);
            client.send(&Packet::Connect(connect));
            client
        })
        .collect();
    assert_eq!(
        reason(&server, Some("ann"), b"pencil \xe2\x98\x83"),
        ReasonCode::Success
    );
    for client in &mut waiting {
        let frame = client.receive();
        let Packet::Connack(connack) = frame.packet() else {
            panic!("no CONNACK: {frame:?}")
        };
        // Also those who were not asked about in time.
        assert_eq!(connack.reason_code, ReasonCode::ServerUnavailable);
    }
    assert!(begun.elapsed() < DEADLINE);
}

/// Of "pencil ☃", as mosquitto wrote it.
const PASSWORD: &str = "$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==";

#[test]
fn servers_are_asked_over_tls_by_authorities_that_are_named() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let issued = authority.issue("localhost");
    let http = Http::start_with(say(&json!({"allow": true})), Some(tls(&issued)));
    let port = http.address.port();
    let url = format!("authenticate_url = 'https://localhost:{port}/'");
    let server = start(
        &dir,
        &format!("{url}\nhttp_ca = '{}'", authority.file().display()),
    );
    assert_eq!(reason(&server, Some("ann"), b"x"), ReasonCode::Success);
    let other = Authority::new(&dir.0, "other");
    let server = start(
        &dir,
        &format!("{url}\nhttp_ca = '{}'", other.file().display()),
    );
    assert_eq!(
        reason(&server, Some("ann"), b"x"),
        ReasonCode::ServerUnavailable
    );
}

const SECRETS: [&[u8]; 2] = [
    b"thirty-two bytes or more of it..",
    b"as many bytes of another secret.",
];

fn jwk(number: usize) -> Value {
    use base64ct::{Base64UrlUnpadded, Encoding as _};
    let secret = Base64UrlUnpadded::encode_string(SECRETS[number]);
    json!({"kty": "oct", "kid": number.to_string(), "alg": "HS256", "k": secret})
}

fn token(number: usize) -> String {
    let claims = json!({"sub": "pump", "exp": seconds() + 600});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRETS[number]);
    let header = jsonwebtoken::Header {
        kid: Some(number.to_string()),
        ..Default::default()
    };
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

#[test]
fn keys_of_tokens_come_from_a_url_and_change_there() {
    let dir = folder();
    let http = Http::start(say(&json!({"keys": [jwk(0)]})));
    let access = format!(
        "token_keys_url = '{}'\ntoken_keys_refresh = '1s'",
        http.url()
    );
    let mut server = start(&dir, &access);
    let with = |server: &Server, number| reason(server, None, token(number).as_bytes());
    // Whoever comes before the first keys waits for them.
    assert_eq!(with(&server, 0), ReasonCode::Success);
    assert!(http.asked()[0].head.starts_with("GET /ask?x=1 "));
    assert_eq!(with(&server, 1), ReasonCode::BadUserNameOrPassword);
    http.set(say(&json!({"keys": [jwk(0), jwk(1)]})));
    let until = Instant::now() + DEADLINE;
    while with(&server, 1) != ReasonCode::Success {
        assert!(Instant::now() < until, "the new key does not come");
    }
    http.set(Answer::Say(503, String::new()));
    let told = server.wait_for_log("no keys of tokens");
    assert!(told.contains("503") && told.contains("stay"), "{told}");
    assert_eq!(with(&server, 0), ReasonCode::Success);
    assert_eq!(with(&server, 1), ReasonCode::Success);
    http.set(say(&json!({"keys": [jwk(1)]})));
    server.wait_for_log("answers again");
    while with(&server, 0) == ReasonCode::Success {
        assert!(Instant::now() < until, "the old key stays");
    }
    assert_eq!(with(&server, 1), ReasonCode::Success);
}

/// The authority of the server that has the keys is another one from SIGHUP on.
#[test]
fn keys_are_asked_for_by_the_authorities_that_were_read_again() {
    let dir = folder();
    let (before, after) = (Authority::new(&dir.0, "a"), Authority::new(&dir.0, "b"));
    let issued = after.issue("localhost");
    let http = Http::start_with(say(&json!({"keys": [jwk(0)]})), Some(tls(&issued)));
    let ca = dir.0.join("ca.pem");
    fs::copy(before.file(), &ca).unwrap();
    let port = http.address.port();
    let access = format!(
        "token_keys_url = 'https://localhost:{port}/'\nhttp_ca = '{}'",
        ca.display()
    );
    let mut server = start(&dir, &access);
    server.wait_for_log("no keys of tokens");
    fs::copy(after.file(), &ca).unwrap();
    server.hang_up();
    server.wait_for_log("answers again");
    assert_eq!(
        reason(&server, None, token(0).as_bytes()),
        ReasonCode::Success
    );
}

#[test]
fn unknown_keys_are_asked_for_once_in_a_while() {
    let dir = folder();
    let http = Http::start(say(&json!({"keys": [jwk(0)]})));
    let server = start(&dir, &format!("token_keys_url = '{}'", http.url()));
    for _ in 0..20 {
        let reason_code = reason(&server, None, token(1).as_bytes());
        assert_eq!(reason_code, ReasonCode::BadUserNameOrPassword);
    }
    assert_eq!(http.asked().len(), 1);
    // A token without a signature that could be right is none of its business.
    assert_eq!(
        reason(&server, None, b"ey.e.y"),
        ReasonCode::BadUserNameOrPassword
    );
    let mut client = try_with(&server, "p", None, token(0).as_bytes()).0;
    client.subscribe("a", QoS::AtMostOnce);
}

#[test]
fn what_does_not_go_together_is_told() {
    let dir = folder();
    for (access, expected) in [
        (
            "authenticate_url = 'http://auth.example/'",
            "a URL that begins with https://",
        ),
        (
            "authenticate_url = 'https://a/'\nintrospection_url = 'https://b/'",
            "one of them decides",
        ),
        (
            "token_keys = 'a.json'\ntoken_keys_url = 'https://b/'",
            "there is one place for them",
        ),
        (
            "introspection_url = 'https://b/'\nintrospection_secret_file = '/does/not/exist'",
            "cannot read access.introspection_secret_file",
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
