//! TLS, WebSocket and Unix sockets of the broker, with the tools of mosquitto, paho (PyPI), MQTT.js
//! (npm) and our own.

mod requests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use avocet_tests::broker::Broker;
use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tokio::process::Command;

/// A broker with a listener of each kind, and the certificates for it.
struct Doors {
    _broker: Broker,
    scratch: Scratch,
    tls: SocketAddr,
    /// Requires a certificate of clients, whose Common Name is the User Name.
    known: SocketAddr,
    websocket: SocketAddr,
    secure_websocket: SocketAddr,
}

impl Doors {
    async fn open() -> Self {
        let scratch = Scratch::new();
        let authority = authority(&scratch, "ca");
        issue(&scratch, &authority, "broker", &["localhost", "127.0.0.1"]);
        issue(&scratch, &authority, "pump-7", &["pump-7"]);
        let stranger = self::authority(&scratch, "other");
        issue(&scratch, &stranger, "stranger", &["pump-7"]);
        let rules = "default = 'allow'\n[[rule]]\nallow = 'all'\ntopic = 'devices/{user}/#'\n\
                     [[rule]]\ndeny = 'all'\ntopic = 'devices/#'\n";
        scratch.write("rules.toml", rules);
        let path = |name: &str| scratch.path().join(name).display().to_string();
        let tls = format!(
            "[listen.tls]\ncertificate = '{}'\nkey = '{}'\n",
            path("broker.pem"),
            path("broker.key")
        );
        let listen = "[[listen]]\naddress = '127.0.0.1:0'\n";
        let text = format!(
            "access.rules = '{}'\n{listen}{tls}{listen}{tls}client_ca = '{}'\nuser = 'cn'\n{listen}\
             websocket = true\n{listen}websocket = true\n{tls}[[listen]]\naddress = 'unix:{}'\n",
            path("rules.toml"),
            path("ca.pem"),
            path("socket"),
        );
        let config = scratch.write("avocet.toml", text);
        let (broker, addresses) = Broker::start_config(&config, 4).await;
        let [tls, known, websocket, secure_websocket] = addresses[..] else {
            panic!("four addresses: {addresses:?}")
        };
        Self {
            _broker: broker,
            scratch,
            tls,
            known,
            websocket,
            secure_websocket,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

fn authority(scratch: &Scratch, name: &str) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    scratch.write(&format!("{name}.pem"), certificate.pem());
    Issuer::new(params, key)
}

fn issue(scratch: &Scratch, by: &Issuer<'_, KeyPair>, name: &str, hosts: &[&str]) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("a certificate");
    scratch.write(&format!("{name}.pem"), certificate.pem());
    scratch.write(&format!("{name}.key"), key.serialize_pem());
}

/// Arguments that lead a tool to a listener.
fn at(address: SocketAddr, more: &[&Path]) -> Vec<String> {
    let mut arguments = vec![
        "-h".to_owned(),
        address.ip().to_string(),
        "-p".to_owned(),
        address.port().to_string(),
    ];
    let options = ["--cafile", "--cert", "--key"];
    for (option, path) in options.iter().zip(more) {
        arguments.extend([(*option).to_owned(), path.display().to_string()]);
    }
    arguments
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A message goes out by one tool and comes in by another.
async fn cross(from: (&str, &[String]), to: (&str, &[String]), topic: &str) {
    provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let command = |tool: &str, mosquitto: &str, ours: &str| match tool {
        "avocet" => {
            let mut command = Command::new(&avocet);
            command.arg(ours);
            command
        }
        _ => {
            let mut command = Command::new("stdbuf");
            command.args(["-oL", mosquitto]);
            command
        }
    };
    let payload = format!("from {} to {} {}", from.0, to.0, "x".repeat(20_000));
    let mut sub = command(to.0, "mosquitto_sub", "sub");
    sub.args(to.1).args([
        "-V", "5", "-d", "-t", topic, "-q", "1", "-C", "1", "-W", "120",
    ]);
    let mut subscriber = Process::spawn("subscriber", sub);
    subscriber.line_with("SUBACK").await;
    let mut publish = command(from.0, "mosquitto_pub", "pub");
    publish
        .args(from.1)
        .args(["-V", "5", "-t", topic, "-q", "1", "-m", &payload]);
    output(publish).await;
    let is_it = |line: &str| (line == payload).then_some(());
    subscriber.line("the payload", is_it).await;
    assert!(subscriber.exit().await.success());
}

#[tokio::test]
async fn tools_meet_through_every_door() {
    let doors = Doors::open().await;
    let (ca, socket) = (doors.path("ca.pem"), doors.path("socket"));
    let plain = at(doors.tls, &[&ca]);
    let web = words(&format!("-L ws://{}/mqtt", doors.websocket));
    let secure = format!(
        "-L wss://{}/mqtt --cafile {}",
        doors.secure_websocket,
        ca.display()
    );
    let secure = words(&secure);
    let unix = words(&format!("--unix {}", socket.display()));
    for (mine, theirs) in [
        (&plain, &plain),
        (&web, &unix),
        (&secure, &plain),
        (&unix, &plain),
    ] {
        cross(("avocet", mine), ("mosquitto", theirs), "doors").await;
        cross(("mosquitto", theirs), ("avocet", mine), "doors").await;
    }
    let mut with_url = words(&format!("-L mqtts://{}", doors.tls));
    with_url.push("--insecure".to_owned());
    let unix_url = words(&format!("-L unix:{}", socket.display()));
    cross(("avocet", &with_url), ("avocet", &unix_url), "doors").await;
}

#[tokio::test]
async fn a_certificate_is_a_user() {
    let doors = Doors::open().await;
    let [ca, pem, key] = ["ca.pem", "pump-7.pem", "pump-7.key"].map(|name| doors.path(name));
    let pump = at(doors.known, &[&ca, &pem, &key]);
    for (from, to) in [("mosquitto", "avocet"), ("avocet", "mosquitto")] {
        cross((from, &pump), (to, &pump), "devices/pump-7/up").await;
    }
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let [other, other_key] = ["stranger.pem", "stranger.key"].map(|name| doors.path(name));
    for (arguments, topic) in [
        (at(doors.known, &[&ca]), "devices/pump-7/up"),
        (
            at(doors.known, &[&ca, &other, &other_key]),
            "devices/pump-7/up",
        ),
        (pump, "devices/pump-8/up"),
        // The system does not know the authority.
        ([at(doors.tls, &[]), words("--tls")].concat(), "doors"),
    ] {
        for program in [avocet.as_path(), Path::new("mosquitto_pub")] {
            let mut command = Command::new(program);
            if program == avocet {
                command.arg("pub");
            } else if arguments.iter().any(|it| it == "--tls") {
                continue;
            }
            command
                .args(&arguments)
                .args(["-V", "5", "-q", "1", "-t", topic, "-m", "x"]);
            let ended = command.output().await.expect("it starts");
            // mosquitto_pub says what a PUBACK refuses, and ends well.
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(
                !ended.status.success() || said.contains("Publish"),
                "{arguments:?} {said}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_is_answered_through_every_door() {
    let doors = Doors::open().await;
    let files = ["ca.pem", "pump-7.pem", "pump-7.key"].map(|name| doors.path(name));
    let ca = files[0].display().to_string();
    let pump = at(doors.known, &files.each_ref().map(PathBuf::as_path));
    let web = words(&format!("-L ws://{}/mqtt", doors.websocket));
    let secure = words(&format!(
        "-L wss://{}/mqtt --cafile {ca}",
        doors.secure_websocket
    ));
    let unix = words(&format!("--unix {}", doors.path("socket").display()));
    for (asks, answers) in [
        (&secure, &web),
        (&web, &pump),
        (&pump, &unix),
        (&unix, &secure),
    ] {
        let (asks, answers) = (strs(asks), strs(answers));
        requests::are_answered(&asks, &answers, "ask").await;
    }
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The configuration of a plant, as it is shipped, with certificates that one command makes.
#[tokio::test]
async fn machines_of_the_factory_log_in_with_the_certificates_of_a_command() {
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let scratch = Scratch::new();
    let tls = scratch.path().join("tls");
    for made in [["--server", "127.0.0.1"], ["--client", "pump-7"]] {
        let mut command = Command::new(&avocet);
        command.arg("certificates").arg(&tls).args(made);
        output(command).await;
    }
    let rules = "[[rule]]\nallow = 'all'\ntopic = 'devices/{user}/#'\n";
    scratch.write("rules.toml", rules);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config/factory.toml");
    let text = std::fs::read_to_string(shipped).expect("it is there");
    let here = scratch.path().display().to_string();
    let text = ["/etc/avocet", "/var/lib/avocet", "/run/avocet"]
        .iter()
        .fold(text, |text, place| text.replace(place, &here));
    let config = scratch.write("avocet.toml", &text);
    let broker = provision::avocet_broker().unwrap_or_else(|error| panic!("{error:#}"));
    let mut check = Command::new(broker);
    check.arg("check").arg("--config").arg(&config);
    assert_eq!(output(check).await, b"the configuration is fine\n");

    let text = text.replace("0.0.0.0:8883", "127.0.0.1:0");
    let config = scratch.write("avocet.toml", text);
    let (_broker, addresses) = Broker::start_config(&config, 1).await;
    let [ca, pem, key] = ["ca.pem", "pump-7.pem", "pump-7.key"].map(|name| tls.join(name));
    let pump = at(addresses[0], &[&ca, &pem, &key]);
    for (from, to) in [("avocet", "avocet"), ("mosquitto", "avocet")] {
        cross((from, &pump), (to, &pump), "devices/pump-7/up").await;
    }
    for (arguments, topic) in [
        (&pump, "devices/pump-8/up"),
        (&at(addresses[0], &[&ca]), "devices/pump-7/up"),
    ] {
        let mut command = Command::new(&avocet);
        command.arg("pub").args(arguments);
        command.args(["-q", "1", "-t", topic, "-m", "x"]);
        let ended = command.output().await.expect("it starts");
        assert!(!ended.status.success(), "{topic}");
    }
}

#[tokio::test]
async fn paho_and_mqttjs_echo_over_tls_and_websocket() {
    let doors = Doors::open().await;
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let ca = doors.path("ca.pem").display().to_string();
    for (address, transport, is_tls) in [
        (doors.tls, "tcp", true),
        (doors.websocket, "websockets", false),
        (doors.secure_websocket, "websockets", true),
    ] {
        let mut command = Command::new(&tools.python);
        command.arg(provision::client_file("paho/echo.py"));
        let port = address.port().to_string();
        command.args(["localhost", &port, transport]);
        command.args(is_tls.then_some(&ca));
        assert_eq!(output(command).await, b"echoed\n");

        let scheme = match (transport, is_tls) {
            ("tcp", _) => "mqtts",
            (_, false) => "ws",
            (_, true) => "wss",
        };
        let mut command = Command::new("node");
        command.env("NODE_PATH", &tools.node_modules);
        command.arg(provision::client_file("mqttjs/echo.js"));
        command.arg(format!("{scheme}://localhost:{port}/mqtt"));
        command.args(is_tls.then_some(&ca));
        assert_eq!(output(command).await, b"echoed\n");
    }
}

#[tokio::test]
async fn a_load_crosses_every_door_without_loss() {
    let doors = Doors::open().await;
    let ca = doors.path("ca.pem").display().to_string();
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let [pem, key] = ["pump-7.pem", "pump-7.key"].map(|name| doors.path(name));
    let known = format!("mqtts://{}", doors.known);
    for url in [
        known.clone(),
        format!("mqtts://{}", doors.tls),
        format!("ws://{}/mqtt", doors.websocket),
        format!("wss://{}/mqtt", doors.secure_websocket),
        format!("unix:{}", doors.path("socket").display()),
    ] {
        let mut command = Command::new(&avocet);
        command.args([
            "bench", "pairs", "--pairs", "5", "--count", "2000", "-q", "1",
        ]);
        command.args(["-L", &url, "--json", "-", "--quiet"]);
        if url.starts_with("mqtts://") || url.starts_with("wss://") {
            command.args(["--cafile", &ca]);
        }
        if url == known {
            command.arg("--cert").arg(&pem).arg("--key").arg(&key);
        }
        // It ends with an error when a message is lost, doubled or out of order.
        output(command).await;
    }
}
