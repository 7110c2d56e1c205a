//! What a server connection costs per message, without a socket: decode, the halves of QoS 1 and
//! 2, and the bytes of the answers. Turns of 64 messages of 64 bytes, as a busy socket brings them.

#![allow(missing_docs, reason = "criterion's macros define public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use avocet_codec::{Ack, Connect, Delivery, Packet, PacketId, Publish, QoS, ReasonCode, Version};
use avocet_session::{
    Accept, Message, Now, Outgoing, ServerConfig, ServerConnection, ServerEvent, Session,
    TransmitBuf,
};
use avocet_topic::TopicName;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MESSAGES: u16 = 64;
const PAYLOAD: [u8; 64] = [b'x'; 64];
const TOPIC: &str = "site/17/line/4/device/1234/metric";

fn connected(version: Version) -> ServerConnection {
    let now = Now::default();
    let mut server = ServerConnection::new(Arc::new(ServerConfig::default()), now);
    let mut connect = Vec::new();
    Packet::Connect(Connect::new(version, "client"))
        .encode(version, &mut connect)
        .unwrap();
    server.handle_input(&connect, now);
    server.accept(Box::new(Session::new()), Accept::default(), now);
    server.poll_transmit(now, &mut TransmitBuf::new(1_000));
    server
}

fn read(server: &mut ServerConnection, mut input: &[u8]) {
    let now = Now::default();
    while !input.is_empty() {
        let read = server.handle_input(input, now);
        input = input.get(read.consumed..).unwrap();
        if let Some(ServerEvent::Publish { publish, token }) = read.event {
            black_box(publish.topic_name());
            if let Some(token) = token {
                server
                    .acknowledge(token, ReasonCode::Success, None)
                    .unwrap();
            }
        }
    }
}

/// PUBLISH packets with Packet Identifiers from 1, and what completes them.
fn incoming(version: Version, qos: QoS) -> (Vec<u8>, Vec<u8>) {
    let (mut publishes, mut pubrels) = (Vec::new(), Vec::new());
    for id in 1..=MESSAGES {
        let id = PacketId::new(id).unwrap();
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        let publish = Publish::new(TopicName::new(TOPIC).unwrap(), delivery, &PAYLOAD);
        publish.encode(version, &mut publishes).unwrap();
        if qos == QoS::ExactlyOnce {
            Packet::Pubrel(Ack::new(id))
                .encode(version, &mut pubrels)
                .unwrap();
        }
    }
    (publishes, pubrels)
}

fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    for version in [Version::V3_1_1, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (publishes, pubrels) = incoming(version, qos);
            let mut server = connected(version);
            let mut out = TransmitBuf::new(usize::MAX);
            group.bench_function(format!("{version} qos{qos}"), |bencher| {
                bencher.iter(|| {
                    read(&mut server, &publishes);
                    read(&mut server, &pubrels);
                    server.poll_transmit(Now::default(), &mut out);
                    black_box(out.len());
                    out.clear();
                });
            });
        }
    }
    group.finish();
}

fn send(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("send");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    let now = Now::default();
    let limits = ServerConfig::default().limits;
    for version in [Version::V3_1_1, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let message = Message::new(TopicName::new(TOPIC).unwrap(), &PAYLOAD).with_qos(qos);
            let mut server = connected(version);
            let mut out = TransmitBuf::new(usize::MAX);
            let mut id = 0u16;
            group.bench_function(format!("{version} qos{qos}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..MESSAGES {
                        let session = server.session_mut().unwrap();
                        let _ = session.enqueue(Outgoing::new(message.clone()), &limits, now);
                    }
                    // 3.x has a window of 32, so a turn takes two rounds.
                    for _ in 0..2 {
                        server.poll_transmit(now, &mut out);
                        while server.session().unwrap().in_flight() > 0 {
                            id = id % u16::MAX + 1;
                            let [high, low] = id.to_be_bytes();
                            server.handle_input(&[0x40, 2, high, low], now);
                        }
                    }
                    black_box(out.len());
                    out.clear();
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, receive, send);
criterion_main!(benches);
