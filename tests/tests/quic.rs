//! QUIC: our client and our command line at our broker, over a network that loses datagrams and on
//! which clients move.

mod requests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use avocet_client::{
    Client, ClientTls, Config, ConnectError, Endpoint, Message, QoS, Roots, TlsConnector,
    TopicFilter, TopicName,
};
use avocet_tests::broker::Broker;
use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A broker with a QUIC listener that knows clients by their certificates, if they have one, and one of
/// TCP.
struct Door {
    broker: Broker,
    scratch: Scratch,
    quic: SocketAddr,
    tcp: SocketAddr,
}

impl Door {
    async fn open(required: bool) -> Self {
        Self::open_with(required, "").await
    }

    /// The same with a setting more.
    async fn open_with(required: bool, setting: &str) -> Self {
        let scratch = Scratch::new();
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        scratch.write("ca.pem", certificate.pem());
        let authority = Issuer::new(params, key);
        issue(&scratch, &authority, "broker", &["localhost", "127.0.0.1"]);
        issue(&scratch, &authority, "pump-7", &["pump-7"]);
        let default = if required { "deny" } else { "allow" };
        let rules = format!(
            "default = '{default}'\n[[rule]]\nallow = 'all'\ntopic = 'devices/{{user}}/#'\n[[rule]]\n\
             allow = 'all'\ntopic = 'all/#'\n"
        );
        scratch.write("rules.toml", rules);
        let path = |name: &str| scratch.path().join(name).display().to_string();
        let of_clients = if required {
            format!("client_ca = '{}'\nuser = 'cn'\n", path("ca.pem"))
        } else {
            String::new()
        };
        let text = format!(
            "shards = 2\n{setting}\naccess.rules = '{}'\n[[listen]]\naddress = '127.0.0.1:0'\nquic = true\n\
             [listen.tls]\ncertificate = '{}'\nkey = '{}'\n{of_clients}[[listen]]\naddress = '127.0.0.1:0'\n",
            path("rules.toml"),
            path("broker.pem"),
            path("broker.key"),
        );
        let config = scratch.write("avocet.toml", text);
        let (broker, addresses) = Broker::start_config(&config, 2).await;
        let [quic, tcp] = addresses[..] else {
            panic!("two addresses: {addresses:?}")
        };
        Self {
            broker,
            scratch,
            quic,
            tcp,
        }
    }

    fn file(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    /// A client that reaches the broker there, with a certificate of its own.
    fn config(&self, at: SocketAddr, client_id: &str, certificate: Option<&str>) -> Config {
        let path = |name: &str| self.scratch.path().join(name);
        let tls = ClientTls {
            roots: Roots::File(path("ca.pem")),
            certificate: certificate.map(|name| {
                let [pem, key] = ["pem", "key"].map(|kind| path(&format!("{name}.{kind}")));
                (pem, key)
            }),
            ..ClientTls::default()
        };
        let tls = TlsConnector::new(&tls).expect("the files are fine");
        let host = at.ip().to_string();
        let mut config = Config::new(host.clone(), at.port());
        config.connection.client_id = client_id.to_owned();
        config.endpoint = Some(Endpoint::quic(host, at.port(), tls));
        config
    }
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

/// Carries the datagrams of one client, and loses some.
struct Path {
    address: SocketAddr,
    /// One of so many is lost; 0: none.
    loss: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    /// The client is to be seen at another address from here on.
    moves: Arc<AtomicBool>,
    task: JoinHandle<io::Result<()>>,
}

impl Path {
    async fn to(server: SocketAddr) -> io::Result<Self> {
        let inner = UdpSocket::bind("127.0.0.1:0").await?;
        let address = inner.local_addr()?;
        let (loss, lost) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let moves = Arc::<AtomicBool>::default();
        let carried = (Arc::clone(&loss), Arc::clone(&lost), Arc::clone(&moves));
        let task = tokio::spawn(async move {
            let (loss, lost, moves) = carried;
            let mut outer = UdpSocket::bind("127.0.0.1:0").await?;
            let mut client = None;
            let mut random = 1_u64;
            let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            loop {
                let (from_client, len) = tokio::select! {
                    read = inner.recv_from(&mut out) => {
                        let (len, from) = read?;
                        client = Some(from);
                        (true, len)
                    }
                    read = outer.recv_from(&mut back) => (false, read?.0),
                };
                if moves.swap(false, Ordering::Relaxed) {
                    outer = UdpSocket::bind("127.0.0.1:0").await?;
                }
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let one_of = loss.load(Ordering::Relaxed);
                if one_of > 0 && (random >> 33).is_multiple_of(one_of) {
                    lost.fetch_add(1, Ordering::Relaxed);
                } else if from_client {
                    outer
                        .send_to(out.get(..len).unwrap_or_default(), server)
                        .await?;
                } else if let Some(client) = client {
                    inner
                        .send_to(back.get(..len).unwrap_or_default(), client)
                        .await?;
                }
            }
        });
        Ok(Self {
            address,
            loss,
            lost,
            moves,
            task,
        })
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn message(n: u32) -> Message {
    let topic_name = TopicName::new("all/numbers").expect("a Topic Name");
    let payload = [n.to_string().into_bytes(), vec![b' '; 3_000]].concat();
    Message::new(topic_name, &payload).with_qos(QoS::ExactlyOnce)
}

/// [MQTT5-4.3.3-1]
#[tokio::test]
async fn messages_of_qos_2_arrive_once_over_a_path_that_loses_one_datagram_of_ten() {
    let door = Door::open(false).await;
    let paths = [
        Path::to(door.quic).await.expect("a path"),
        Path::to(door.quic).await.expect("a path"),
    ];
    let config = |path: &Path, id| door.config(path.address, id, None);
    let (subscriber, _others) = Client::connect(config(&paths[0], "subscriber"))
        .await
        .expect("it connects");
    let filter = TopicFilter::new("all/#").expect("a Topic Filter");
    let mut stream = subscriber
        .stream((filter, QoS::ExactlyOnce))
        .await
        .expect("it subscribes");
    let (publisher, _others) = Client::connect(config(&paths[1], "publisher"))
        .await
        .expect("it connects");
    for path in &paths {
        path.loss.store(10, Ordering::Relaxed);
    }
    let publishing = tokio::spawn(async move {
        let mut pending = Vec::new();
        for n in 0..500 {
            pending.push(
                publisher
                    .start_publish(message(n))
                    .await
                    .expect("it is taken"),
            );
        }
        for one in pending {
            one.await.expect("it is acknowledged");
        }
        publisher
    });
    for n in 0..500 {
        let received = stream.next().await.expect("the client goes on");
        let text = String::from_utf8_lossy(received.payload());
        assert_eq!(text.trim_end(), n.to_string());
    }
    let publisher = publishing.await.expect("it publishes");
    let lost = paths.iter().map(|path| path.lost.load(Ordering::Relaxed));
    assert!(
        lost.clone().all(|lost| lost > 10),
        "{:?}",
        lost.collect::<Vec<_>>()
    );
    for client in [publisher, subscriber] {
        client.disconnect(Duration::from_secs(60)).await;
    }
    assert!(door.broker.stop().await.success());
}

#[tokio::test]
async fn a_client_that_moves_keeps_its_connection() {
    let door = Door::open(true).await;
    let path = Path::to(door.quic).await.expect("a path");
    let mut config = door.config(path.address, "pump-7", Some("pump-7"));
    // A connection that is lost would end the client.
    config.reconnect = None;
    let (client, _others) = Client::connect(config).await.expect("it connects");
    let filter = TopicFilter::new("devices/pump-7/#").expect("a Topic Filter");
    let mut stream = client
        .stream((filter, QoS::AtLeastOnce))
        .await
        .expect("it subscribes");
    let topic_name = TopicName::new("devices/pump-7/up").expect("a Topic Name");
    for n in 0..4_u8 {
        path.moves.store(n > 0, Ordering::Relaxed);
        let message = Message::new(topic_name, &[n]).with_qos(QoS::AtLeastOnce);
        client.publish(message).await.expect("it is acknowledged");
        let received = stream.next().await.expect("the client goes on");
        assert_eq!(received.payload(), [n]);
    }
    client.disconnect(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn who_has_no_certificate_or_speaks_no_mqtt_gets_no_connection() {
    let door = Door::open(true).await;
    let mut nameless = door.config(door.quic, "c", None);
    nameless.reconnect = None;
    let error = Client::connect(nameless).await.expect_err("it is refused");
    assert!(!matches!(error, ConnectError::Refused { .. }), "{error}");

    let tls = ClientTls {
        roots: Roots::File(door.scratch.path().join("ca.pem")),
        alpn: vec![b"h3".to_vec()],
        ..ClientTls::default()
    };
    let tls = TlsConnector::new(&tls).expect("the files are fine");
    let mut other = Config::new("127.0.0.1", door.quic.port());
    other.endpoint = Some(Endpoint::quic("127.0.0.1", door.quic.port(), tls));
    other.reconnect = None;
    let error = Client::connect(other).await.expect_err("it is refused");
    let text = error.to_string();
    assert!(text.contains("no TLS connection to 127.0.0.1:"), "{text}");
}

#[tokio::test]
async fn connections_that_say_nothing_are_few() {
    let door = Door::open_with(false, "limits.handshakes_max = 4").await;
    let endpoint = door.config(door.quic, "c", None).endpoint;
    let endpoint = endpoint.expect("it is one of QUIC");
    let deadline = Duration::from_secs(60);
    let mut silent = Vec::new();
    loop {
        match endpoint.connect(deadline).await {
            Ok(mut stream) => {
                // The stream begins with its first byte, and this is not a whole packet.
                stream.write_all(b"\x10").await.expect("it is taken");
                silent.push(stream);
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with("cannot connect to"), "{error}");
                break;
            }
        }
    }
    assert_eq!(silent.len(), 4);
    drop(silent);
    // Those who are gone make room, as soon as the broker has heard of it.
    let client = loop {
        let mut config = door.config(door.quic, "c", None);
        config.reconnect = None;
        if let Ok((client, _others)) = Client::connect(config).await {
            break client;
        }
    };
    client.disconnect(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn the_command_line_speaks_quic() {
    let door = Door::open(true).await;
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let url = format!("quic://{}", door.quic);
    let [ca, pem, key] = ["ca.pem", "pump-7.pem", "pump-7.key"].map(|name| door.file(name));
    let own = ["-L", &url, "--cafile", &ca, "--cert", &pem, "--key", &key];
    let port = door.tcp.port().to_string();
    let tcp = ["-h", "127.0.0.1", "-p", &port];
    for (from, to) in [(&own[..], &tcp[..]), (&tcp[..], &own[..])] {
        let mut sub = Command::new(&avocet);
        sub.arg("sub").args(to).args([
            "-V", "5", "-d", "-t", "all/#", "-q", "2", "-C", "1", "-W", "120",
        ]);
        let mut subscriber = Process::spawn("subscriber", sub);
        subscriber.line_with("SUBACK").await;
        let mut publish = Command::new(&avocet);
        let payload = "x".repeat(100_000);
        publish
            .arg("pub")
            .args(from)
            .args(["-V", "5", "-t", "all/a", "-q", "2", "-m", &payload]);
        output(publish).await;
        let is_it = |line: &str| (line == payload).then_some(());
        subscriber.line("the payload", is_it).await;
        assert!(subscriber.exit().await.success());
    }
}

#[tokio::test]
async fn a_request_is_answered_over_quic() {
    let door = Door::open(true).await;
    let url = format!("quic://{}", door.quic);
    let [ca, pem, key] = ["ca.pem", "pump-7.pem", "pump-7.key"].map(|name| door.file(name));
    let own = ["-L", &url, "--cafile", &ca, "--cert", &pem, "--key", &key];
    requests::are_answered(&own, &own, "all/ask").await;
}

/// MQTT over a QUIC that is not ours.
#[tokio::test]
async fn a_client_of_aioquic_echoes() {
    let door = Door::open(false).await;
    let python = provision::aioquic().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(python);
    command
        .arg(provision::client_file("aioquic/echo.py"))
        .args(["localhost", &door.quic.port().to_string()])
        .arg(door.file("ca.pem"));
    assert_eq!(output(command).await, b"echoed\n");
}

#[tokio::test]
async fn a_load_crosses_quic_without_loss() {
    let door = Door::open(false).await;
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(&avocet);
    let url = format!("quic://{}", door.quic);
    command
        .args([
            "bench", "pairs", "--pairs", "5", "--count", "2000", "-q", "1",
        ])
        .args(["-L", &url, "--cafile", &door.file("ca.pem")])
        .args(["--json", "-", "--quiet"]);
    // It ends with an error when a message is lost, doubled or out of order.
    output(command).await;
}
