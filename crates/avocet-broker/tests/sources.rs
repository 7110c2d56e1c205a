//! Which source decides who a client is, where there are several.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing helper fails its test, and tokens say what time it is"
)]

#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use avocet_access::{PasswordHash, SCRAM_SHA_256, ScramClient};
use avocet_codec::{Auth, Connect, Delivery, Packet, ReasonCode, Version};
use avocet_transport::{ClientTls, Roots, TlsConnector};
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

use certificates::{Authority, Issued};
use common::{Client, DataDir, Server, id};

type Stream = StreamOwned<ClientConnection, TcpStream>;

const SECRET: &[u8] = b"thirty-two bytes or more of it..";

/// Who may publish to what says who a client is.
const RULES: &str = "[[rule]]\nallow = 'publish'\ntopic = 'is/{user}'\n\
                     [[rule]]\nanonymous = true\nallow = 'publish'\ntopic = 'nobody'\n";

/// A server that lets everybody in, and counts how often it is asked.
fn everybody() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            thread::spawn(move || say_yes(socket, &count));
        }
    });
    (url, asked)
}

fn say_yes(socket: TcpStream, count: &AtomicUsize) -> Option<()> {
    let mut stream = BufReader::new(socket);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? <= 2 {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        if length == 0 {
            return None;
        }
        stream.read_exact(&mut vec![0; length]).ok()?;
        count.fetch_add(1, Ordering::SeqCst);
        let yes = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"allow\": true}";
        stream.get_mut().write_all(yes).ok()?;
    }
}

/// What a client presents in CONNECT.
#[derive(Clone, Copy, Debug)]
enum Presents<'a> {
    Nothing,
    Password(Option<&'a str>, &'a [u8]),
    Scram(&'a str),
    UnknownMethod,
}

use Presents::{Nothing, Password, Scram, UnknownMethod};

fn connect(stream: Stream, presents: Presents<'_>) -> (Client<Stream>, ReasonCode) {
    let mut client = Client::over(stream, Version::V5);
    let mut connect = Connect::new(Version::V5, "c");
    let mut scram = None;
    let mut hello = String::new();
    match presents {
        Nothing => {}
        Password(user, password) => {
            connect.user_name = user;
            connect.password = Some(password);
        }
        Scram(user) => {
            let client = scram.insert(ScramClient::new(user, b"pencil", [1; 18]));
            hello = client.first_message();
            connect.properties.authentication_method = Some(SCRAM_SHA_256);
        }
        UnknownMethod => connect.properties.authentication_method = Some("GS2-KRB5"),
    }
    if scram.is_some() {
        connect.properties.authentication_data = Some(hello.as_bytes());
    }
    client.send(&Packet::Connect(connect));
    let mut frame = client.receive();
    if let (Packet::Auth(challenge), Some(scram)) = (frame.packet(), &mut scram) {
        let challenge = challenge.authentication_data.unwrap();
        let proof = scram.prove(challenge).unwrap();
        let mut auth = Auth::new(ReasonCode::ContinueAuthentication, SCRAM_SHA_256);
        auth.authentication_data = Some(proof.as_bytes());
        client.send(&Packet::Auth(auth));
        frame = client.receive();
    }
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    let reason_code = connack.reason_code;
    (client, reason_code)
}

fn may_publish(client: &mut Client<Stream>, topic: &str) -> bool {
    client.publish(topic, Delivery::AtLeastOnce(id(1)), b"x");
    let frame = client.receive();
    let Packet::Puback(ack) = frame.packet() else {
        panic!("no PUBACK: {frame:?}")
    };
    !ack.reason_code.is_error()
}

fn token(user: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let exp = i64::try_from(now.as_secs()).unwrap() + seconds;
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let claims = json!({"sub": user, "exp": exp});
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A broker that knows clients from everywhere.
fn start(dir: &DataDir, issued: &Issued, tls: &str, access: &str) -> Server {
    let file = |name: &str, text: &str| {
        let path = dir.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ann = PasswordHash::scram(b"pencil", [3; 16]).unwrap();
    let users = file("users", &format!("ann:{ann}\n"));
    let keys = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"dGhpcnR5LXR3byBieXRlcyBvciBtb3JlIG9mIGl0Li4"}]}"#;
    let (keys, rules) = (file("keys.json", keys), file("rules.toml", RULES));
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    let text = format!(
        "[access]\npassword_file = '{users}'\ntoken_keys = '{keys}'\nrules = '{rules}'\nhttp_cache = '0s'\n\
         {access}\n[[listen]]\naddress = '127.0.0.1:0'\n[listen.tls]\ncertificate = '{certificate}'\n\
         key = '{key}'\n{tls}\n"
    );
    let mut command = common::command();
    command.arg("--config").arg(file("avocet.toml", &text));
    Server::spawn(command)
}

#[test]
fn each_pair_of_sources_has_one_that_decides() {
    use ReasonCode::{BadAuthenticationMethod, BadUserNameOrPassword, NotAuthorized, Success};
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let authority = Authority::new(&dir.0, "ca");
    let issued = authority.issue("localhost");
    let pump = authority.issue("pump-7");
    let connector = |own: Option<&Issued>| {
        let settings = ClientTls {
            roots: Roots::File(authority.file()),
            certificate: own.map(|it| (it.certificate.clone(), it.key.clone())),
            ..ClientTls::default()
        };
        TlsConnector::new(&settings).unwrap()
    };
    let (with, without) = (connector(Some(&pump)), connector(None));
    let ca = authority.file();
    let ask = format!(
        "client_ca = '{}'\nclient_certificate = 'optional'\n",
        ca.display()
    );
    let (good, over) = (token("tap", 600), token("tap", -600));
    let (good, over) = (good.as_bytes(), over.as_bytes());
    let right = Password(Some("ann"), b"pencil");
    let wrong = Password(Some("ann"), b"pen");
    // What is presented beside a certificate, and what becomes of it without one: who the client is
    // (nobody: ""), or the code of the refusal; and how often the other server is asked.
    type Expected<'a> = (Presents<'a>, Result<&'a str, ReasonCode>, usize);
    let elsewhere: [Expected<'_>; 8] = [
        (right, Ok("ann"), 0),
        (wrong, Err(BadUserNameOrPassword), 0),
        (Password(Some("ann"), good), Ok("tap"), 0),
        (Password(Some("ann"), over), Err(BadUserNameOrPassword), 0),
        (Password(Some("eve"), b"x"), Ok("eve"), 1),
        (Scram("ann"), Ok("ann"), 0),
        (Scram("eve"), Err(BadUserNameOrPassword), 0),
        (UnknownMethod, Err(BadAuthenticationMethod), 0),
    ];
    let check = |server: &Server,
                 asked: &AtomicUsize,
                 connector: &TlsConnector,
                 expected: &Expected<'_>| {
        let (presents, expected, questions) = *expected;
        let before = asked.load(Ordering::SeqCst);
        let connection = connector.connect("localhost").unwrap();
        let stream = StreamOwned::new(connection, common::open(server.address));
        let (mut client, reason) = connect(stream, presents);
        match expected {
            Err(code) => assert_eq!(reason, code, "{presents:?}"),
            Ok(user) => {
                assert_eq!(reason, Success, "{presents:?}");
                let names = ["pump-7", "ann", "tap", "eve"];
                for name in names {
                    let is_it = may_publish(&mut client, &format!("is/{name}"));
                    assert_eq!(is_it, user == name, "{presents:?} {name}");
                }
                assert_eq!(
                    may_publish(&mut client, "nobody"),
                    user.is_empty(),
                    "{presents:?}"
                );
            }
        }
        let asked = asked.load(Ordering::SeqCst) - before;
        assert_eq!(asked, questions, "{presents:?}");
    };
    for anonymous in [true, false] {
        let (url, asked) = everybody();
        let access = format!("authenticate_url = '{url}'\nanonymous = {anonymous}");
        // A client that presents nothing is asked about where nobody may be nobody.
        let nothing = (Nothing, Ok(""), usize::from(!anonymous));
        let user = format!("{ask}user = 'cn'");
        let server = start(&dir, &issued, &user, &access);
        for expected in elsewhere.iter().chain([&nothing]) {
            let pump = match expected.0 {
                Scram(_) | UnknownMethod => Err(BadAuthenticationMethod),
                Nothing | Password(..) => Ok("pump-7"),
            };
            check(&server, &asked, &with, &(expected.0, pump, 0));
            check(&server, &asked, &without, expected);
        }
        drop(server);
        // A certificate that gives no User Name is no source.
        let server = start(&dir, &issued, &ask, &access);
        for expected in elsewhere.iter().chain([&nothing]) {
            check(&server, &asked, &with, expected);
        }
    }
    // With no other server to ask, who presents nothing or a name that nobody knows is refused.
    let server = start(&dir, &issued, &format!("{ask}user = 'cn'"), "");
    let asked = AtomicUsize::new(0);
    for expected in [
        (Nothing, Err(NotAuthorized), 0),
        (Password(Some("eve"), b"x"), Err(BadUserNameOrPassword), 0),
        (Password(None, b"x"), Err(NotAuthorized), 0),
    ] {
        check(&server, &asked, &without, &expected);
        check(&server, &asked, &with, &(expected.0, Ok("pump-7"), 0));
    }
}
