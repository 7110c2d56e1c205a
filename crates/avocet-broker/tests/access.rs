//! Users, passwords and rules, through the binary and over sockets, with one shard and with three.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use avocet_access::{PasswordHash, SCRAM_SHA_256, ScramClient};
use avocet_codec::{
    Auth, Connect, Delivery, Packet, QoS, ReasonCode, Subscribe, SubscribeFilter, TopicFilter,
    TopicName, Version, Will,
};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use common::{Client, Server, command, connect_with, id};

/// The password `pencil ☃`, written by mosquitto_passwd 2.0.11.
const PBKDF2: &str = "$7$101$+/oXCXIFu9tWauw1$8UY1YgcfHMW5+iRUCzNGUq1Ew7t7q//Kd3NizIjAEvFDkd+Hgg7Gf0JFflnWIU0CXfVuYq9BC4DmimsTWcm6Eg==";
const PENCIL: &[u8] = "pencil ☃".as_bytes();
/// The password `password`.
const ARGON2ID: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

const RULES: &str = r#"
[[rule]]
name = "secrets stay"
deny = "deliver"
topic = "plant/secret/#"

[[rule]]
name = "own topics"
allow = "publish"
topic = "plant/{client_id}/#"
qos = [0, 1]

[[rule]]
user = "ann"
allow = ["subscribe", "deliver"]
topic = "plant/#"

[[rule]]
user = "bob"
allow = "publish"
topic = ["plant/secret/#", "status/{user}"]
"#;

/// The files of a test, which go with it.
struct Files {
    folder: PathBuf,
    users: String,
    rules: String,
}

impl Files {
    fn new(name: &str) -> Self {
        let name = format!("access-{name}-{}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let files = Self {
            users: file("users"),
            rules: file("rules.toml"),
            folder,
        };
        files.write(&format!("ann:{ARGON2ID}\nbob:{PBKDF2}\n"), RULES);
        files
    }

    fn write(&self, users: &str, rules: &str) {
        fs::write(&self.users, users).unwrap();
        fs::write(&self.rules, rules).unwrap();
    }

    fn settings(&self) -> [String; 2] {
        [
            format!("access.password_file={}", self.users),
            format!("access.rules={}", self.rules),
        ]
    }

    fn start(&self, arguments: &[&str]) -> Server {
        let [users, rules] = self.settings();
        Server::start(&[&["--set", &users, "--set", &rules], arguments].concat())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn with<'a>(
    version: Version,
    client_id: &'a str,
    user: &'a str,
    password: &'a [u8],
) -> Connect<'a> {
    let mut connect = Connect::new(version, client_id);
    connect.user_name = Some(user);
    connect.password = Some(password);
    connect
}

/// What CONNACK says; a client that is not let in is disconnected, without a session.
fn answer(server: &Server, connect: &Connect<'_>) -> ReasonCode {
    let mut client = Client::open(server.address, connect.version);
    client.send(&Packet::Connect(*connect));
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    if connack.reason_code.is_error() {
        assert!(!connack.session_present);
        assert_eq!(client.try_receive(), None);
    }
    connack.reason_code
}

fn subscribe(client: &mut Client, filters: &[&str], qos: QoS) -> Vec<ReasonCode> {
    let filters: Vec<_> = filters
        .iter()
        .map(|text| SubscribeFilter::new(TopicFilter::new(text).unwrap(), qos))
        .collect();
    client.send(&Packet::Subscribe(Subscribe::new(id(1), &filters)));
    let frame = client.receive();
    let Packet::Suback(suback) = frame.packet() else {
        panic!("no SUBACK: {frame:?}")
    };
    suback.reason_codes.iter().collect()
}

/// What PUBACK says.
fn publish(client: &mut Client, topic: &str, payload: &[u8]) -> ReasonCode {
    client.publish(topic, Delivery::AtLeastOnce(id(9)), payload);
    let frame = client.receive();
    let Packet::Puback(puback) = frame.packet() else {
        panic!("no PUBACK: {frame:?}")
    };
    puback.reason_code
}

fn hang_up(server: &Server) {
    let kill = Command::new("sh")
        .args(["-c", "kill -HUP \"$@\"", "kill"])
        .arg(server.id().to_string())
        .status()
        .unwrap();
    assert!(kill.success());
}

/// [MQTT5-3.1.4-2] [MQTT311-3.2.2-4] [MQTT311-3.2.2-5]
#[test]
fn only_users_with_their_passwords_are_let_in() {
    let files = Files::new("users");
    for shards in ["1", "3"] {
        let server = files.start(&["--shards", shards]);
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            let code = |user, password| answer(&server, &with(version, "c", user, password));
            // The second time it is known.
            for _ in 0..2 {
                assert_eq!(code("ann", b"password"), ReasonCode::Success);
                assert_eq!(code("bob", PENCIL), ReasonCode::Success);
                assert_eq!(code("ann", PENCIL), ReasonCode::BadUserNameOrPassword);
            }
            assert_eq!(code("eve", b"password"), ReasonCode::BadUserNameOrPassword);
            assert_eq!(code("ann", b""), ReasonCode::BadUserNameOrPassword);
            let nobody = answer(&server, &Connect::new(version, "c"));
            assert_eq!(nobody, ReasonCode::NotAuthorized);
        }
    }
}

#[test]
fn anonymous_clients_are_let_in_beside_users_if_that_is_allowed() {
    let files = Files::new("anonymous");
    let server = files.start(&["--anonymous"]);
    let nobody = answer(&server, &Connect::new(Version::V5, "c"));
    assert_eq!(nobody, ReasonCode::Success);
    let wrong = answer(&server, &with(Version::V5, "c", "ann", b"x"));
    assert_eq!(wrong, ReasonCode::BadUserNameOrPassword);
    // What is presented is not passed over.
    let mut connect = Connect::new(Version::V5, "c");
    connect.password = Some(b"x");
    assert_eq!(answer(&server, &connect), ReasonCode::NotAuthorized);
}

#[test]
fn an_unknown_authentication_method_is_refused_by_its_code() {
    let files = Files::new("method");
    let server = files.start(&[]);
    let mut connect = with(Version::V5, "c", "ann", b"password");
    connect.properties.authentication_method = Some("GS2-KRB5");
    assert_eq!(
        answer(&server, &connect),
        ReasonCode::BadAuthenticationMethod
    );
}

/// [MQTT5-3.9.3-1]
#[test]
fn rules_decide_what_is_published_subscribed_and_delivered() {
    let files = Files::new("rules");
    for shards in ["1", "3"] {
        let server = files.start(&["--shards", shards]);
        for version in [Version::V3_1_1, Version::V5] {
            let mut ann =
                Client::connect(server.address, &with(version, "ann-1", "ann", b"password"));
            let codes = subscribe(
                &mut ann,
                &["plant/#", "#", "$share/g/status/+"],
                QoS::AtMostOnce,
            );
            let refused = match version {
                Version::V5 => ReasonCode::NotAuthorized,
                Version::V3_1 | Version::V3_1_1 => ReasonCode::UnspecifiedError,
            };
            assert_eq!(codes, [ReasonCode::Success, refused, refused]);

            let mut bob =
                Client::connect(server.address, &with(Version::V5, "pump", "bob", PENCIL));
            let other = publish(&mut bob, "plant/valve/state", b"other");
            assert_eq!(other, ReasonCode::NotAuthorized);
            // Published, and delivered to nobody.
            assert!(!publish(&mut bob, "plant/secret/key", b"secret").is_error());
            assert_eq!(
                publish(&mut bob, "plant/pump/state", b"own"),
                ReasonCode::Success
            );
            assert_eq!(ann.receive_publish().0, b"own");

            for (topic, payload) in [
                ("plant/valve/state", b"other"),
                ("plant/secret/key", b"hides"),
                ("plant/pump/state", b"quick"),
            ] {
                bob.publish(topic, Delivery::AtMostOnce, payload);
            }
            assert_eq!(ann.receive_publish().0, b"quick");

            // A client of 3.x is told nothing, and its message goes nowhere.
            let mut old =
                Client::connect(server.address, &with(Version::V3_1_1, "old", "bob", PENCIL));
            assert_eq!(
                publish(&mut old, "plant/pump/state", b"lost"),
                ReasonCode::Success
            );
            assert_eq!(
                publish(&mut old, "plant/old/state", b"kept"),
                ReasonCode::Success
            );
            assert_eq!(ann.receive_publish().0, b"kept");
        }
    }
}

#[test]
fn a_qos_that_is_not_allowed_is_refused() {
    let files = Files::new("qos");
    let server = files.start(&[]);
    let mut pump = Client::connect(server.address, &with(Version::V5, "pump", "bob", PENCIL));
    pump.publish("plant/pump/a", Delivery::ExactlyOnce(id(3)), b"x");
    let frame = pump.receive();
    let Packet::Pubrec(pubrec) = frame.packet() else {
        panic!("{frame:?}")
    };
    assert_eq!(pubrec.reason_code, ReasonCode::NotAuthorized);
}

#[test]
fn a_will_needs_the_right_to_publish_it() {
    let files = Files::new("will");
    for shards in ["1", "3"] {
        let server = files.start(&["--shards", shards]);
        let mut connect = with(Version::V5, "pump", "bob", PENCIL);
        connect.will = Some(Will::new(TopicName::new("plant/valve/gone").unwrap(), b"x"));
        assert_eq!(answer(&server, &connect), ReasonCode::NotAuthorized);
        let mut ann = Client::connect(server.address, &with(Version::V5, "a", "ann", b"password"));
        assert_eq!(
            subscribe(&mut ann, &["plant/#"], QoS::AtMostOnce),
            [ReasonCode::Success]
        );
        connect.will = Some(Will::new(TopicName::new("plant/pump/gone").unwrap(), b"x"));
        drop(Client::connect(server.address, &connect));
        assert_eq!(ann.receive_publish().0, b"x");
    }
}

#[test]
fn retained_and_shared_messages_are_judged_too() {
    let files = Files::new("retained");
    let server = files.start(&["--shards", "3"]);
    let mut bob = Client::connect(server.address, &with(Version::V5, "pump", "bob", PENCIL));
    for (topic, payload) in [("plant/secret/a", b"s"), ("plant/pump/a", b"o")] {
        let mut retained = avocet_codec::Publish::new(
            TopicName::new(topic).unwrap(),
            Delivery::AtLeastOnce(id(4)),
            payload,
        );
        retained.retain = true;
        bob.send(&Packet::Publish(retained));
        assert!(matches!(bob.receive().packet(), Packet::Puback(it) if !it.reason_code.is_error()));
    }
    let mut ann = Client::connect(server.address, &with(Version::V5, "a", "ann", b"password"));
    assert_eq!(
        subscribe(&mut ann, &["plant/#"], QoS::AtMostOnce),
        [ReasonCode::Success]
    );
    assert_eq!(ann.receive_publish().0, b"o");
    let mut group = Client::connect(server.address, &with(Version::V5, "g", "ann", b"password"));
    let codes = subscribe(&mut group, &["$share/g/plant/#"], QoS::AtLeastOnce);
    assert_eq!(codes, [ReasonCode::GrantedQoS1]);
    assert!(!publish(&mut bob, "plant/secret/b", b"s").is_error());
    assert_eq!(publish(&mut bob, "plant/pump/b", b"p"), ReasonCode::Success);
    assert_eq!(ann.receive_publish().0, b"p");
    assert_eq!(group.receive_publish().0, b"p");
}

#[test]
fn sighup_reads_users_and_rules_again_and_disconnects_nobody() {
    let files = Files::new("reload");
    for shards in ["1", "3"] {
        files.write(&format!("ann:{ARGON2ID}\nbob:{PBKDF2}\n"), RULES);
        let mut server = files.start(&["--shards", shards]);
        let mut ann = Client::connect(server.address, &with(Version::V5, "a", "ann", b"password"));
        assert_eq!(
            subscribe(&mut ann, &["plant/#"], QoS::AtMostOnce),
            [ReasonCode::Success]
        );
        let mut bob = Client::connect(server.address, &with(Version::V5, "pump", "bob", PENCIL));
        assert_eq!(publish(&mut bob, "plant/pump/a", b"1"), ReasonCode::Success);
        assert_eq!(ann.receive_publish().0, b"1");

        // What is wrong in one file keeps both as they were.
        files.write("eve:secret\n", "default = \"allow\"");
        hang_up(&server);
        let line = server.wait_for_log("users and rules stay as they were");
        assert!(
            line.contains("users, line 1: not a password hash") && !line.contains("secret"),
            "{line}"
        );
        assert_eq!(
            answer(&server, &with(Version::V5, "x", "bob", PENCIL)),
            ReasonCode::Success
        );
        assert_eq!(
            publish(&mut bob, "elsewhere", b"x"),
            ReasonCode::NotAuthorized
        );

        // Ann is no user any more, and reads nothing but what is under `open`.
        let rules = "[[rule]]\nallow = \"publish\"\n[[rule]]\nallow = \"deliver\"\ntopic = \"plant/open/#\"";
        files.write(&format!("bob:{PBKDF2}\n"), rules);
        hang_up(&server);
        server.wait_for_log("were read again");
        let gone = answer(&server, &with(Version::V5, "x", "ann", b"password"));
        assert_eq!(gone, ReasonCode::BadUserNameOrPassword);
        assert_eq!(publish(&mut bob, "plant/pump/a", b"2"), ReasonCode::Success);
        assert_eq!(publish(&mut bob, "plant/open/a", b"3"), ReasonCode::Success);
        assert_eq!(ann.receive_publish().0, b"3");
        assert_eq!(
            subscribe(&mut ann, &["plant/#"], QoS::AtMostOnce),
            [ReasonCode::NotAuthorized]
        );
    }
}

#[test]
fn files_that_are_wrong_keep_the_broker_from_starting() {
    let files = Files::new("wrong");
    let [users, rules] = files.settings();
    let run = |arguments: &[&str]| {
        let output = command().args(arguments).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(run(&["check", "--set", &users, "--set", &rules]).0, 0);
    files.write(
        "# users\nann:secret\n",
        "[[rule]]\nallow = \"everything\"\n",
    );
    let (code, said) = run(&["check", "--set", &users]);
    assert_eq!(code, 2);
    assert!(
        said.contains("users, line 2: not a password hash"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
    let (code, said) = run(&["check", "--set", &rules]);
    assert_eq!(code, 2);
    assert!(
        said.contains("rules.toml, line 2: ") && said.contains("\"deliver\""),
        "{said}"
    );
    let (code, said) = run(&[
        "--listen",
        "127.0.0.1:0",
        "--set",
        "access.rules=/no/such/file",
    ]);
    assert_eq!(code, 1);
    assert!(
        said.contains("cannot read access.rules /no/such/file"),
        "{said}"
    );
}

#[test]
fn a_public_listener_may_be_opened_with_users() {
    let files = Files::new("public");
    let [users, _] = files.settings();
    let arguments = ["check", "--listen", "0.0.0.0:0", "--set", &users];
    assert!(command().args(arguments).output().unwrap().status.success());
}

/// What the server says to Authentication Data, in CONNECT or AUTH: the reason, and its own data.
fn exchange(client: &mut Client, packet: &Packet<'_>) -> (ReasonCode, Vec<u8>) {
    client.send(packet);
    let frame = client.receive();
    let packet = frame.packet();
    let (reason, method, data) = if let Packet::Connack(it) = packet {
        let properties = it.properties;
        let method = properties.authentication_method;
        (it.reason_code, method, properties.authentication_data)
    } else if let Packet::Auth(it) = packet {
        let method = it.authentication_method;
        (it.reason_code, method, it.authentication_data)
    } else if let Packet::Disconnect(it) = packet {
        return (it.reason_code, Vec::new());
    } else {
        panic!("{packet:?}")
    };
    if !reason.is_error() {
        assert_eq!(method, Some(SCRAM_SHA_256));
    }
    (reason, data.unwrap_or_default().to_vec())
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5] [MQTT5-4.12.1-1] [MQTT5-4.12.1-2]
#[test]
fn scram_authenticates_a_client_and_authenticates_it_again() {
    use ReasonCode::{BadUserNameOrPassword, ContinueAuthentication, NotAuthorized, Success};
    let files = Files::new("scram");
    let hash = |user: &str, password: &[u8]| {
        let hash = PasswordHash::scram(password, [3; 16]).unwrap();
        format!("{user}:{hash}\n")
    };
    let users = [hash("ann", b"pencil"), hash("bob", b"pen")].concat();
    files.write(&users, RULES);
    for shards in ["1", "3"] {
        let server = files.start(&["--shards", shards]);
        let first =
            |user: &str, password: &str| ScramClient::new(user, password.as_bytes(), [1; 18]);
        let connect = |scram: &mut ScramClient| {
            let mut client = Client::open(server.address, Version::V5);
            let (hello, mut connect) = (scram.first_message(), Connect::new(Version::V5, "pump"));
            connect.properties.authentication_method = Some(SCRAM_SHA_256);
            connect.properties.authentication_data = Some(hello.as_bytes());
            let (reason, challenge) = exchange(&mut client, &Packet::Connect(connect));
            assert_eq!(reason, ContinueAuthentication);
            (client, challenge)
        };
        let auth = |reason, data: &str, client: &mut Client| {
            let mut auth = Auth::new(reason, SCRAM_SHA_256);
            auth.authentication_data = Some(data.as_bytes());
            exchange(client, &Packet::Auth(auth))
        };
        for (user, password) in [("ann", "pen"), ("eve", "pencil")] {
            let mut scram = first(user, password);
            let (mut client, challenge) = connect(&mut scram);
            let proof = scram.prove(&challenge).unwrap();
            let (reason, _) = auth(ContinueAuthentication, &proof, &mut client);
            assert_eq!(reason, BadUserNameOrPassword, "{user}");
            assert_eq!(client.try_receive(), None);
        }
        let mut scram = first("ann", "pencil");
        let (mut client, challenge) = connect(&mut scram);
        let proof = scram.prove(&challenge).unwrap();
        let (reason, signature) = auth(ContinueAuthentication, &proof, &mut client);
        assert_eq!(reason, Success);
        scram.verify(&signature).unwrap();
        // The rules know who it is.
        let granted = subscribe(&mut client, &["plant/#"], QoS::AtLeastOnce);
        assert_eq!(granted, [ReasonCode::GrantedQoS1]);

        for (user, password, expected) in
            [("ann", "pencil", Success), ("bob", "pen", NotAuthorized)]
        {
            let mut scram = first(user, password);
            let hello = scram.first_message();
            let (reason, challenge) = auth(ReasonCode::ReAuthenticate, &hello, &mut client);
            assert_eq!(reason, ContinueAuthentication);
            let proof = scram.prove(&challenge).unwrap();
            let (reason, _) = auth(ContinueAuthentication, &proof, &mut client);
            assert_eq!(reason, expected, "{user}");
        }
        assert_eq!(client.try_receive(), None, "nobody becomes another one");
        // The same hash is for a plain password.
        let plain = answer(&server, &with(Version::V3_1_1, "pump", "ann", b"pencil"));
        assert_eq!(plain, Success);
        drop(server);
    }
}

/// A token is presented as the Password; at its end the connection is closed, and the Session State stays.
#[test]
fn a_token_lets_a_client_in_until_it_is_over() {
    let files = Files::new("token");
    let keys = files.folder.join("keys.json");
    let secret = b"thirty-two bytes or more of it..";
    fs::write(&keys, r#"{"keys":[{"kty":"oct","alg":"HS256","k":"dGhpcnR5LXR3byBieXRlcyBvciBtb3JlIG9mIGl0Li4"}]}"#).unwrap();
    let rules = r#"
[[rule]]
allow = "publish"
topic = "plant/{claim.site}/{user}"
"#;
    files.write(&format!("ann:{ARGON2ID}\n"), rules);
    let keys = format!("access.token_keys={}", keys.display());
    for shards in ["1", "3"] {
        let server = files.start(&["--shards", shards, "--set", &keys]);
        let forged = signed(secret, 60).replace('.', ".e");
        let connect = with(Version::V5, "p", "ignored", forged.as_bytes());
        assert_eq!(answer(&server, &connect), ReasonCode::BadUserNameOrPassword);
        let beside = with(Version::V5, "a", "ann", b"password");
        assert_eq!(answer(&server, &beside), ReasonCode::Success, "a password");
        let token = signed(secret, 3);
        let mut connect = with(Version::V5, "p", "ignored", token.as_bytes());
        connect.properties.session_expiry_interval = 600;
        let mut client = Client::open(server.address, Version::V5);
        client.send(&Packet::Connect(connect));
        let frame = client.receive();
        let Packet::Connack(connack) = frame.packet() else {
            panic!("no CONNACK: {frame:?}")
        };
        assert_eq!(connack.reason_code, ReasonCode::Success);
        let allowed = publish(&mut client, "plant/north/pump", b"x");
        assert_eq!(allowed, ReasonCode::NoMatchingSubscribers);
        let denied = publish(&mut client, "plant/south/pump", b"x");
        assert_eq!(denied, ReasonCode::NotAuthorized);
        let frame = client.receive();
        let Packet::Disconnect(disconnect) = frame.packet() else {
            panic!("no DISCONNECT: {frame:?}")
        };
        assert_eq!(disconnect.reason_code, ReasonCode::NotAuthorized);
        assert_eq!(answer(&server, &connect), ReasonCode::BadUserNameOrPassword);
        let next = signed(secret, 600);
        connect.password = Some(next.as_bytes());
        connect.clean_start = false;
        let (_, session_present) = connect_with(&server, &connect);
        assert!(session_present);
    }
}

/// [MQTT5-3.1.4-2]
#[test]
fn keys_of_tokens_are_read_again() {
    let files = Files::new("keys");
    let path = files.folder.join("keys.json");
    let secrets: [[u8; 32]; 2] = [[1; 32], [2; 32]];
    let [old, new] = secrets.map(|secret| {
        let secret = Base64UrlUnpadded::encode_string(&secret);
        format!(r#"{{"keys":[{{"kty":"oct","alg":"HS256","k":"{secret}"}}]}}"#)
    });
    let [by_old, by_new] = secrets.map(|secret| signed(&secret, 600));
    let keys = format!("access.token_keys={}", path.display());
    fs::write(&path, &old).unwrap();
    let mut server = files.start(&["--set", &keys]);
    let code = |server: &Server, token: &str| {
        answer(server, &with(Version::V5, "p", "ignored", token.as_bytes()))
    };
    let (good, bad) = (ReasonCode::Success, ReasonCode::BadUserNameOrPassword);
    assert_eq!(
        [code(&server, &by_old), code(&server, &by_new)],
        [good, bad]
    );
    for text in ["nonsense", r#"{"keys":[]}"#] {
        fs::write(&path, text).unwrap();
        hang_up(&server);
        let line = server.wait_for_log("stay as they were");
        assert!(line.contains("keys.json, line 1: "), "{line}");
        assert_eq!(
            [code(&server, &by_old), code(&server, &by_new)],
            [good, bad]
        );
    }
    fs::write(&path, &new).unwrap();
    hang_up(&server);
    server.wait_for_log("were read again");
    assert_eq!(
        [code(&server, &by_old), code(&server, &by_new)],
        [bad, good]
    );
}

/// A token for a client that ends after some seconds.
#[allow(clippy::disallowed_methods, reason = "tokens say what time it is")]
fn signed(secret: &[u8], seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let exp = now.unwrap().as_secs() + seconds;
    let claims = serde_json::json!({"sub": "pump", "site": "north", "exp": exp});
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[test]
fn who_lost_a_subscription_is_disconnected_by_setting() {
    let files = Files::new("lost");
    let lost = ["--set", "access.lost_subscriptions=disconnect"];
    let mut server = files.start(&[&lost[..], &["--shards", "3"]].concat());
    let connect = |id| Client::connect(server.address, &with(Version::V5, id, "ann", b"password"));
    let mut loses = connect("loses");
    let granted = [ReasonCode::Success];
    let plant = ["plant/#"];
    assert_eq!(subscribe(&mut loses, &plant, QoS::AtMostOnce), granted);
    let mut keeps = connect("keeps");
    let open = ["plant/open/+"];
    assert_eq!(subscribe(&mut keeps, &open, QoS::AtMostOnce), granted);
    let old = Connect {
        version: Version::V3_1_1,
        ..with(Version::V5, "old", "ann", b"password")
    };
    let mut old = Client::connect(server.address, &old);
    assert_eq!(subscribe(&mut old, &plant, QoS::AtMostOnce), granted);

    let users = format!("ann:{ARGON2ID}\n");
    files.write(
        &users,
        "[[rule]]\nallow = \"all\"\ntopic = \"plant/open/#\"",
    );
    hang_up(&server);
    server.wait_for_log("were read again");
    let frame = loses.receive();
    let Packet::Disconnect(disconnect) = frame.packet() else {
        panic!("no DISCONNECT: {frame:?}")
    };
    assert_eq!(disconnect.reason_code, ReasonCode::AdministrativeAction);
    assert_eq!(old.try_receive(), None);
    keeps.send(&Packet::Pingreq);
    assert_eq!(keeps.receive().packet(), Packet::Pingresp);
}
