//! What a client costs: CPU time of its thread for each message, against a server that does as
//! little as a server can, on another thread. With rumqttc in the same run.
//!
//! ```text
//! cargo bench -p avocet-benches --bench client [-- MESSAGES]
//! ```
//!
//! Both speak 3.1.1 over loopback, on a current-thread runtime of tokio, with payloads of 16 bytes.
//! `window` is how many messages of QoS 1 are published ahead of their acknowledgement. As a test of
//! itself (`--test`) each case runs with few messages.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is to fail the run"
)]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use avocet_client::{Client, ClientConfig, Config, Message, QoS, TopicName, Version, WhenSlow};
use avocet_codec::{AckType, Connack, Packet, ReasonCode, frame_len};
use rumqttc::{AsyncClient, MqttOptions};
use rustix::time::{ClockId, clock_gettime};

const TOPIC: &str = "bench/client";
const PAYLOAD: [u8; 16] = [b'x'; 16];
const REPEATS: usize = 5;
const FOREVER: Duration = Duration::from_secs(600);

/// One client and what it does.
type Case = (&'static str, fn(SocketAddr, usize) -> f64, usize);

/// CPU time of this thread, in nanoseconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_test = arguments.iter().any(|it| it == "--test");
    let given = arguments.iter().find_map(|it| it.parse().ok());
    let messages = given.unwrap_or(if is_test { 1000 } else { 300_000 });
    let repeats = if is_test { 1 } else { REPEATS };
    let cases: [Case; 10] = [
        (
            "avocet-client  qos 0",
            |to, count| avocet_qos0(to, count),
            1,
        ),
        (
            "rumqttc        qos 0",
            |to, count| rumqttc_qos0(to, count),
            1,
        ),
        (
            "avocet-client  qos 1, window 20",
            |to, count| avocet_qos1(to, count, 20),
            2,
        ),
        (
            "rumqttc        qos 1, window 20",
            |to, count| rumqttc_qos1(to, count, 20),
            2,
        ),
        (
            "avocet-client  qos 1, window 100",
            |to, count| avocet_qos1(to, count, 100),
            2,
        ),
        (
            "rumqttc        qos 1, window 100",
            |to, count| rumqttc_qos1(to, count, 100),
            2,
        ),
        (
            "avocet-client  qos 1, window 1000",
            |to, count| avocet_qos1(to, count, 1000),
            2,
        ),
        (
            "rumqttc        qos 1, window 1000",
            |to, count| rumqttc_qos1(to, count, 1000),
            2,
        ),
        (
            "avocet-client  receive qos 0",
            |to, count| avocet_receive(to, count),
            1,
        ),
        (
            "rumqttc        receive qos 0",
            |to, count| rumqttc_receive(to, count),
            1,
        ),
    ];
    let mut results = vec![Vec::new(); cases.len()];
    // Interleaved, so that what else the machine does meets all alike.
    for _ in 0..repeats {
        for ((name, run, less), results) in cases.iter().zip(&mut results) {
            let count = messages / less;
            let address = serve(if name.contains("receive") { count } else { 0 });
            results.push(run(address, count) / count as f64);
        }
    }
    println!("CPU ns per message of the client's thread: median, lowest, highest of {repeats}");
    for ((name, _, _), mut results) in cases.iter().zip(results) {
        results.sort_by(f64::total_cmp);
        let median = results.get(results.len() / 2).copied().unwrap_or_default();
        let lowest = results.first().copied().unwrap_or_default();
        let highest = results.last().copied().unwrap_or_default();
        println!("{name:36} {median:7.0} {lowest:7.0} {highest:7.0}");
    }
}

/// A server for one client: it acknowledges at once, and sends so many messages after CONNACK.
fn serve(sends: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        // A client that is done may close as it likes.
        let _ = answer(&mut stream, sends);
    });
    address
}

fn answer(stream: &mut TcpStream, sends: usize) -> std::io::Result<()> {
    let mut input = vec![0; 1 << 18];
    let (mut end, mut connected) = (0, false);
    loop {
        let read = stream.read(&mut input[end..])?;
        if read == 0 {
            return Ok(());
        }
        end += read;
        let (mut start, mut output) = (0, Vec::new());
        while let Ok(Some(len)) = frame_len(&input[start..end], u32::MAX) {
            if start + len > end {
                break;
            }
            let frame = &input[start..start + len];
            start += len;
            if !connected {
                connected = true;
                let connack = Packet::Connack(Connack::new(ReasonCode::Success));
                connack.encode(Version::V3_1_1, &mut output).unwrap();
            } else if frame[0] & 0xf6 == 0x32 {
                let Ok(Packet::Publish(publish)) = Packet::decode(frame, Version::V3_1_1) else {
                    continue;
                };
                let id = publish.packet_id().unwrap();
                output.extend_from_slice(&AckType::Puback.success(id));
            }
        }
        input.copy_within(start..end, 0);
        end -= start;
        stream.write_all(&output)?;
        if connected && sends > 0 {
            return flood(stream, sends);
        }
    }
}

fn flood(stream: &mut TcpStream, sends: usize) -> std::io::Result<()> {
    let topic_name = TopicName::new(TOPIC).unwrap();
    let delivery = avocet_codec::Delivery::AtMostOnce;
    let publish = avocet_codec::Publish::new(topic_name, delivery, &PAYLOAD);
    let mut one = Vec::new();
    Packet::Publish(publish)
        .encode(Version::V3_1_1, &mut one)
        .unwrap();
    let many = one.repeat(1000);
    for _ in 0..sends / 1000 {
        stream.write_all(&many)?;
    }
    // Until the client closes.
    stream.read(&mut [0; 16]).map(drop)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn avocet(to: SocketAddr) -> Config {
    let mut connection = ClientConfig::new(Version::V3_1_1, "bench");
    connection.limits.inflight = 1000;
    let mut config = Config::with_connection(connection);
    config.host = to.ip().to_string();
    config.port = to.port();
    config.reconnect = None;
    config.when_slow = WhenSlow::StopReading;
    config.publish_max = 1000;
    config
}

fn message() -> Message {
    Message::new(TopicName::new(TOPIC).unwrap(), &PAYLOAD)
}

fn avocet_qos0(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (client, _messages) = Client::connect(avocet(to)).await.unwrap();
        let before = cpu();
        for _ in 0..count {
            client.publish(message()).await.unwrap();
        }
        client.disconnect(FOREVER).await;
        cpu() - before
    })
}

fn avocet_qos1(to: SocketAddr, count: usize, window: usize) -> f64 {
    block_on(async {
        let (client, _messages) = Client::connect(avocet(to)).await.unwrap();
        let before = cpu();
        let mut pending = VecDeque::with_capacity(window);
        for _ in 0..count {
            if pending.len() == window {
                let oldest: avocet_client::Pending = pending.pop_front().unwrap();
                oldest.await.unwrap();
            }
            let message = message().with_qos(QoS::AtLeastOnce);
            pending.push_back(client.start_publish(message).await.unwrap());
        }
        for pending in pending {
            pending.await.unwrap();
        }
        cpu() - before
    })
}

fn avocet_receive(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (_client, mut messages) = Client::connect(avocet(to)).await.unwrap();
        let before = cpu();
        for _ in 0..count / 1000 * 1000 {
            assert_eq!(
                messages.receive().await.unwrap().payload().len(),
                PAYLOAD.len()
            );
        }
        cpu() - before
    })
}

fn rumqttc(to: SocketAddr, window: u16) -> (AsyncClient, rumqttc::EventLoop) {
    let mut options = MqttOptions::new("bench", to.ip().to_string(), to.port());
    options.set_inflight(window);
    AsyncClient::new(options, 1000)
}

fn rumqttc_qos0(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (client, mut eventloop) = rumqttc(to, 100);
        eventloop.poll().await.unwrap();
        let before = cpu();
        let publishing = tokio::spawn(async move {
            for _ in 0..count {
                let payload = PAYLOAD.to_vec();
                let qos = rumqttc::QoS::AtMostOnce;
                client.publish(TOPIC, qos, false, payload).await.unwrap();
            }
            client.disconnect().await.unwrap();
        });
        while let Ok(event) = eventloop.poll().await {
            if let rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) = event {
                break;
            }
        }
        publishing.await.unwrap();
        cpu() - before
    })
}

fn rumqttc_qos1(to: SocketAddr, count: usize, window: u16) -> f64 {
    block_on(async {
        let (client, mut eventloop) = rumqttc(to, window);
        eventloop.poll().await.unwrap();
        let before = cpu();
        let publishing = tokio::spawn(async move {
            for _ in 0..count {
                let payload = PAYLOAD.to_vec();
                let qos = rumqttc::QoS::AtLeastOnce;
                client.publish(TOPIC, qos, false, payload).await.unwrap();
            }
            client
        });
        let mut acknowledged = 0;
        while acknowledged < count {
            let event = eventloop.poll().await.unwrap();
            if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event {
                acknowledged += 1;
            }
        }
        publishing.await.unwrap();
        cpu() - before
    })
}

fn rumqttc_receive(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (_client, mut eventloop) = rumqttc(to, 100);
        eventloop.poll().await.unwrap();
        let before = cpu();
        let mut received = 0;
        while received < count / 1000 * 1000 {
            let event = eventloop.poll().await.unwrap();
            if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = event {
                assert_eq!(publish.payload.len(), PAYLOAD.len());
                received += 1;
            }
        }
        cpu() - before
    })
}
