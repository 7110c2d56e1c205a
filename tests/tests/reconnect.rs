//! Avocet's client through a proxy that cuts its connection, against brokers of several makers: the
//! conversation is repeated, and each time the cut is a byte later. `avocet-testing` does the same
//! without sockets.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use avocet_client::{
    Backoff, Client, ClientConfig, Config, Message, Messages, QoS, Reconnection, TopicFilter,
    TopicName, Version,
};
use avocet_tests::broker::Broker;
use avocet_tests::cutter::Cutter;
use avocet_tests::mosquitto::Mosquitto;
use avocet_tests::rumqttd::Rumqttd;
use avocet_tests::within;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

/// Whose connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Publisher,
    Subscriber,
}

const SIDES: [Side; 2] = [Side::Publisher, Side::Subscriber];

#[derive(Clone, Copy, Debug)]
struct Case {
    server: SocketAddr,
    version: Version,
    qos: QoS,
    cut: Side,
}

const MESSAGES: usize = 3;

/// Conversations at the same time: most of one is waiting.
const AT_ONCE: usize = 8;

/// So many conversations that ended before their cut say that it lies behind the end of each: a server
/// may end a connection of its own accord, as rumqttd now and then does.
const ENOUGH: usize = 8;

/// How long a client has for a clean end.
const END: Duration = Duration::from_secs(5);

fn config(server: SocketAddr, client_id: String, version: Version) -> Config {
    let mut connection = ClientConfig::new(version, client_id);
    // The Session is for all connections of this client, the first one included.
    connection.clean_start = false;
    connection.session_known = true;
    connection.limits.queue_qos0 = true;
    Config {
        host: server.ip().to_string(),
        port: server.port(),
        reconnect: Some(Reconnection {
            backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(50)),
            ..Reconnection::default()
        }),
        ..Config::with_connection(connection)
    }
}

/// The payloads that arrived although the connection was cut after so many bytes, and how many
/// were left at the end.
async fn conversation(case: Case, bytes: usize) -> (Vec<String>, usize) {
    let Case { version, qos, .. } = case;
    let cutter = Cutter::start(case.server, bytes).await;
    let of = |side| match side == case.cut {
        true => cutter.address(),
        false => case.server,
    };
    let name = format!("{version:?}-{}-{:?}-{bytes}", qos as u8, case.cut);
    let subscriber = config(of(Side::Subscriber), format!("s-{name}"), version);
    let (subscriber, mut messages) = Client::start(subscriber).expect("a valid configuration");
    let filter = format!("cut/{name}/+");
    let filter = TopicFilter::new(&filter).expect("a filter");
    // Ends arrive for certain.
    let of_end = qos.max(QoS::AtLeastOnce);
    let subscribed = subscriber.subscribe(filter, of_end).await;
    subscribed.expect("it is granted");

    let publisher = config(of(Side::Publisher), format!("p-{name}"), version);
    let (publisher, _nothing) = Client::start(publisher).expect("a valid configuration");
    let topic_name = format!("cut/{name}/t");
    let topic_name = TopicName::new(&topic_name).expect("a name");
    let message = |payload: &str, qos| Message::new(topic_name, payload.as_bytes()).with_qos(qos);
    let mut pending = Vec::new();
    for count in 0..MESSAGES {
        let message = message(&count.to_string(), qos);
        let started = publisher.start_publish(message).await;
        pending.push(started.expect("there is room"));
    }
    for pending in pending {
        pending.await.expect("it is acknowledged");
    }
    // What comes twice comes before the second end: each is published when what was before it has
    // been acknowledged, the second one when the first one has arrived too.
    let mut received = Vec::new();
    for end in ["end", "the very end"] {
        let published = publisher.publish(message(end, of_end)).await;
        published.expect("it is acknowledged");
        received.extend(until(end, &mut messages).await);
    }
    publisher.disconnect(END).await;
    subscriber.disconnect(END).await;
    (received, cutter.left())
}

/// What comes before this message, without ends.
async fn until(end: &str, messages: &mut Messages) -> Vec<String> {
    let mut received = Vec::new();
    loop {
        let message = messages.receive().await.expect("the client goes on");
        match String::from_utf8_lossy(message.payload()).into_owned() {
            payload if payload == end => return received,
            // At QoS 1 an end may come again.
            payload if payload == "end" => {}
            payload => received.push(payload),
        }
    }
}

/// [MQTT5-4.3.2-1] [MQTT5-4.3.3-1]: what each QoS promises.
fn check(case: Case, bytes: usize, received: &[String]) {
    let sent: Vec<_> = (0..MESSAGES).map(|count| count.to_string()).collect();
    let mut seen = HashSet::new();
    let distinct: Vec<_> = received.iter().filter(|it| seen.insert(*it)).collect();
    let context = || format!("{case:?} cut after {bytes} bytes: {received:?}");
    match case.qos {
        QoS::AtMostOnce => assert_eq!(distinct.len(), received.len(), "{}", context()),
        QoS::AtLeastOnce => assert_eq!(distinct, sent.iter().collect::<Vec<_>>(), "{}", context()),
        QoS::ExactlyOnce => assert_eq!(received, sent, "{}", context()),
    }
}

/// The conversation with a cut after each byte in turn, until it ends before the cut.
async fn cut_after_every_byte(case: Case) {
    let mut running = JoinSet::new();
    let (mut next, mut cuts, mut whole) = (0, 0, 0);
    while whole < ENOUGH || !running.is_empty() {
        while whole < ENOUGH && running.len() < AT_ONCE {
            let bytes = next;
            next += 1;
            running.spawn(async move {
                let awaited = format!("{case:?} cut after {bytes} bytes");
                let (received, left) =
                    within(&awaited, conversation(case, bytes), String::new).await;
                check(case, bytes, &received);
                left
            });
        }
        let Some(left) = running.join_next().await else {
            continue;
        };
        match left {
            Ok(0) => cuts += 1,
            Ok(1..) => whole += 1,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
    assert!(cuts > 60, "a conversation has more bytes than {cuts}");
}

async fn every_cut(server: SocketAddr, version: Version, qos: QoS, sides: &[Side]) {
    for cut in sides {
        cut_after_every_byte(Case {
            server,
            version,
            qos,
            cut: *cut,
        })
        .await;
    }
}

async fn against_avocet(qos: QoS) {
    let broker = Broker::start_with(&[]).await;
    for version in VERSIONS {
        every_cut(broker.address(), version, qos, &SIDES).await;
    }
}

async fn against_mosquitto(qos: QoS) {
    let mosquitto = Mosquitto::start("").await;
    for version in VERSIONS {
        every_cut(mosquitto.address(), version, qos, &SIDES).await;
    }
}

async fn against_rumqttd(qos: QoS, sides: &[Side]) {
    let rumqttd = Rumqttd::start().await;
    for (version, server) in VERSIONS.into_iter().zip(rumqttd.addresses()) {
        every_cut(server, version, qos, sides).await;
    }
}

#[tokio::test]
async fn avocet_doubles_nothing_of_qos_0() {
    against_avocet(QoS::AtMostOnce).await;
}

/// [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-4.6.0-1]
#[tokio::test]
async fn avocet_loses_nothing_of_qos_1() {
    against_avocet(QoS::AtLeastOnce).await;
}

/// [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[tokio::test]
async fn avocet_loses_and_doubles_nothing_of_qos_2() {
    against_avocet(QoS::ExactlyOnce).await;
}

#[tokio::test]
async fn mosquitto_doubles_nothing_of_qos_0() {
    against_mosquitto(QoS::AtMostOnce).await;
}

/// [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-4.6.0-1]
#[tokio::test]
async fn mosquitto_loses_nothing_of_qos_1() {
    against_mosquitto(QoS::AtLeastOnce).await;
}

/// [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[tokio::test]
async fn mosquitto_loses_and_doubles_nothing_of_qos_2() {
    against_mosquitto(QoS::ExactlyOnce).await;
}

/// Of a subscriber this cannot be said: rumqttd sends every message with the QoS of the subscription,
/// so that one of QoS 0 comes again like one of QoS 1.
#[tokio::test]
async fn rumqttd_doubles_nothing_of_qos_0_that_is_published() {
    against_rumqttd(QoS::AtMostOnce, &[Side::Publisher]).await;
}

/// [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-4.6.0-1]
#[tokio::test]
async fn rumqttd_loses_nothing_of_qos_1() {
    against_rumqttd(QoS::AtLeastOnce, &SIDES).await;
}

/// Why QoS 2 is not tried with rumqttd: what it has answered with PUBREC is gone with the connection,
/// and it ends the next one at PUBREL: the message is lost, and the Session cannot be gone on with.
#[tokio::test]
async fn rumqttd_forgets_a_message_of_qos_2_with_its_connection() {
    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01p";
    const PUBLISH: &[u8] = b"\x34\x06\x00\x01t\x00\x01x";
    const PUBREC: &[u8] = b"\x50\x02\x00\x01";
    const PUBREL: &[u8] = b"\x62\x02\x00\x01";
    let rumqttd = Rumqttd::start().await;
    let [server, _] = rumqttd.addresses();
    let exchange = async |stream: &mut TcpStream, sent: &[u8], expected: &[u8]| {
        stream.write_all(sent).await.expect("it is there");
        let mut answer = vec![0; expected.len()];
        let read = stream.read_exact(&mut answer);
        let read = within("an answer", read, String::new).await;
        read.expect("rumqttd answers");
        assert_eq!(answer, expected);
    };
    let mut stream = TcpStream::connect(server).await.expect("it listens");
    exchange(&mut stream, CONNECT, b"\x20\x02\x00\x00").await;
    exchange(&mut stream, PUBLISH, PUBREC).await;
    drop(stream);
    let mut stream = TcpStream::connect(server).await.expect("it listens");
    // It says that it has kept the Session.
    exchange(&mut stream, CONNECT, b"\x20\x02\x01\x00").await;
    stream.write_all(PUBREL).await.expect("it is there");
    let mut byte = [0];
    let end = stream.read(&mut byte);
    let end = within("the end of the connection", end, String::new).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
