//! Nothing that lets somebody in is ever in the log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use avocet_access::{PasswordHash, ScramClient};
use avocet_codec::{Auth, Connect, Delivery, Packet, ReasonCode, Version};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use common::{Client, DataDir, Server, command, id};

const PASSWORD: &str = "correct-horse-battery";
const WRONG: &str = "wrong-horse-battery";
const KEY: &str = "a-key-that-is-known-to-nobody-else";

/// Whatever of a token, hash or key would help somebody, in the forms that programs print.
fn assert_without_secrets(text: &str, secrets: &[String]) {
    for secret in secrets {
        let forms = [
            secret.clone(),
            format!("{:?}", secret.as_bytes()),
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
            Base64UrlUnpadded::encode_string(secret.as_bytes()),
        ];
        for form in forms {
            let inner = form.trim_matches(['[', ']']);
            assert!(!text.contains(inner), "{inner} in\n{text}");
        }
    }
}

fn token(claims: &str, key: &str) -> String {
    use jsonwebtoken::{EncodingKey, Header, encode};
    let claims: serde_json::Value = serde_json::from_str(claims).unwrap();
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(key.as_bytes()),
    )
    .unwrap()
}

fn login(server: &Server, user: Option<&str>, password: &[u8], expected: ReasonCode) {
    let mut connect = Connect::new(Version::V5, "c");
    connect.user_name = user;
    connect.password = Some(password);
    let mut client = Client::open(server.address, Version::V5);
    client.send(&Packet::Connect(connect));
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("{frame:?}")
    };
    assert_eq!(connack.reason_code, expected);
}

/// Both messages of a client, of which the second one proves that it knows the password.
fn login_by_scram(server: &Server, password: &str, secrets: &mut Vec<String>) {
    let mut scram = ScramClient::new("tap", password.as_bytes(), [1; 18]);
    let first = scram.first_message();
    let mut connect = Connect::new(Version::V5, "s");
    connect.properties.authentication_method = Some("SCRAM-SHA-256");
    connect.properties.authentication_data = Some(first.as_bytes());
    let mut client = Client::open(server.address, Version::V5);
    client.send(&Packet::Connect(connect));
    let frame = client.receive();
    let Packet::Auth(auth) = frame.packet() else {
        panic!("{frame:?}")
    };
    let proof = scram.prove(auth.authentication_data.unwrap()).unwrap();
    let mut auth = Auth::new(ReasonCode::ContinueAuthentication, "SCRAM-SHA-256");
    auth.authentication_data = Some(proof.as_bytes());
    client.send(&Packet::Auth(auth));
    assert!(matches!(client.receive().packet(), Packet::Connack(_)));
    let (_, proof) = proof.split_once("p=").unwrap();
    secrets.push(proof.to_owned());
}

fn keys(key: &str) -> String {
    let key = Base64UrlUnpadded::encode_string(key.as_bytes());
    format!(r#"{{"keys": [{{"kty": "oct", "alg": "HS256", "k": "{key}"}}]}}"#)
}

#[test]
fn logins_of_all_kinds_leave_no_secret_in_the_log() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let hash = PasswordHash::scram(PASSWORD.as_bytes(), [3; 16]).unwrap();
    let users = dir.0.join("users");
    fs::write(&users, format!("ann:{hash}\ntap:{hash}\n")).unwrap();
    let jwks = dir.0.join("keys.json");
    fs::write(&jwks, keys(KEY)).unwrap();
    let mut server = Server::start(&[
        "--log",
        "trace",
        "--set",
        &format!("access.password_file={}", users.display()),
        "--set",
        &format!("access.token_keys={}", jwks.display()),
    ]);
    let right = token(r#"{"sub": "pump", "exp": 4000000000}"#, KEY);
    let wrong = token(r#"{"sub": "pump", "exp": 4000000000}"#, WRONG);
    login(
        &server,
        Some("ann"),
        PASSWORD.as_bytes(),
        ReasonCode::Success,
    );
    let bad = ReasonCode::BadUserNameOrPassword;
    login(&server, Some("ann"), WRONG.as_bytes(), bad);
    login(&server, Some("nobody"), WRONG.as_bytes(), bad);
    login(&server, None, right.as_bytes(), ReasonCode::Success);
    login(&server, None, wrong.as_bytes(), bad);
    let mut secrets = vec![
        PASSWORD.to_owned(),
        WRONG.to_owned(),
        KEY.to_owned(),
        hash.to_string()
            .rsplit(['$', ':'])
            .next()
            .unwrap()
            .to_owned(),
        right.rsplit('.').next().unwrap().to_owned(),
        wrong.rsplit('.').next().unwrap().to_owned(),
    ];
    login_by_scram(&server, PASSWORD, &mut secrets);
    login_by_scram(&server, WRONG, &mut secrets);
    server.hang_up();
    let mut log = server.wait_for_all_up_to("were read again");
    server.terminate();
    log += &server.wait_for_all_up_to("stopped");
    assert!(
        log.contains("connected") && log.contains("refused"),
        "{log}"
    );
    assert_without_secrets(&log, &secrets);
}

/// A server that answers whatever it is asked with what it was asked: as it came, or in a place where
/// something else belongs.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            answer(socket);
        }
    });
    address
}

/// Answers one request, if it comes.
fn answer(socket: TcpStream) {
    let mut reader = BufReader::new(socket);
    let (mut head, mut len) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let before = head.len();
        if reader.read_line(&mut head).is_ok_and(|read| read == 0) {
            return;
        }
        let line = head[before..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    let asked = format!("{head}{}", String::from_utf8(body).unwrap());
    let told = if head.contains("/json") {
        serde_json::json!({"allow": asked, "active": asked, "exp": asked}).to_string()
    } else {
        asked
    };
    let len = told.len();
    let fields = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
    let mut socket = reader.into_inner();
    let _ = socket.write_all(format!("{fields}{told}").as_bytes());
}

#[test]
fn servers_that_are_asked_cannot_bring_secrets_into_the_log() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let secret = dir.0.join("secret");
    fs::write(&secret, KEY).unwrap();
    let address = echo();
    for which in ["authenticate", "introspection"] {
        for kind in ["json", "text"] {
            let mut server = Server::start(&[
                "--log",
                "trace",
                "--set",
                &format!("access.{which}_url=http://{address}/{kind}"),
                "--set",
                &format!("access.{which}_secret_file={}", secret.display()),
            ]);
            let unavailable = ReasonCode::ServerUnavailable;
            login(&server, Some("ann"), PASSWORD.as_bytes(), unavailable);
            server.terminate();
            let log = server.wait_for_all_up_to("stopped");
            assert!(log.contains("was asked in vain"), "{log}");
            assert_without_secrets(&log, &[PASSWORD.to_owned(), KEY.to_owned()]);
        }
    }
}

#[test]
fn the_server_that_decides_what_clients_may_do_cannot_either() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let secret = dir.0.join("secret");
    fs::write(&secret, KEY).unwrap();
    let address = echo();
    for kind in ["json", "text"] {
        let mut server = Server::start(&[
            "--log",
            "trace",
            "--set",
            &format!("access.authorize_url=http://{address}/{kind}"),
            "--set",
            &format!("access.authorize_secret_file={}", secret.display()),
        ]);
        let mut client = server.connect(Version::V5, "c");
        client.publish("t", Delivery::AtLeastOnce(id(1)), PASSWORD.as_bytes());
        let frame = client.receive();
        let Packet::Puback(ack) = frame.packet() else {
            panic!("no PUBACK: {frame:?}")
        };
        assert_eq!(ack.reason_code, ReasonCode::ImplementationSpecificError);
        server.terminate();
        let log = server.wait_for_all_up_to("stopped");
        assert!(log.contains("was asked in vain"), "{log}");
        assert_without_secrets(&log, &[PASSWORD.to_owned(), KEY.to_owned()]);
    }
}

fn said_of(dir: &Path, setting: &str, text: &str) -> String {
    let file = dir.join("wrong");
    fs::write(&file, text).unwrap();
    let mut check: Command = command();
    let output = check
        .args(["check", "--set", &format!("{setting}={}", file.display())])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{setting}: {text}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn files_that_are_wrong_are_named_without_what_they_hold() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let encoded = Base64UrlUnpadded::encode_string(KEY.as_bytes());
    let secrets = [PASSWORD, KEY, &encoded].map(str::to_owned);
    for (setting, text) in [
        ("access.password_file", format!("ann:{PASSWORD}\n")),
        ("access.password_file", format!("{PASSWORD}\n")),
        ("access.password_file", format!("ann:$7$101${PASSWORD}$\n")),
        ("access.token_keys", KEY.to_owned()),
        ("access.token_keys", format!("{KEY:?}")),
        ("access.token_keys", format!(r#"{{"keys": {KEY:?}}}"#)),
        ("access.token_keys", format!(r#"{{"keys": [{KEY:?}]}}"#)),
        (
            "access.token_keys",
            format!(r#"{{"keys": [{{"kty": {KEY:?}}}]}}"#),
        ),
        ("access.token_keys", keys(KEY).replace("HS256", KEY)),
        ("access.token_keys", keys(KEY).replace("oct", "EC")),
        ("access.token_keys", keys(KEY).replace("\"k\"", "k")),
    ] {
        let said = said_of(&dir.0, setting, &text);
        assert!(said.contains("wrong, line "), "{said}");
        assert_without_secrets(&said, &secrets);
    }
}
