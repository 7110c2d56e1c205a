//! The engine without sockets: what one message costs between the bytes of its publisher and the
//! bytes for its subscribers. The rows are those of the comparison of brokers, as far as one shard
//! can play them.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use avocet_codec::{
    Ack, Connect, Delivery, Packet, PacketId, Publish, QoS, Subscribe, SubscribeFilter,
    TopicFilter, TopicName, Version,
};
use avocet_engine::{Command, ConnectionId, Engine, EngineConfig, Opened, ShardId};
use avocet_session::{Now, TransmitBuf};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const PAYLOAD: [u8; 64] = [b'x'; 64];

/// Messages that arrive in one read.
const BATCH: u16 = 64;

struct Broker {
    engine: Engine,
    now: Now,
    connections: u64,
    out: TransmitBuf,
    flushes: VecDeque<ConnectionId>,
}

impl Broker {
    fn new() -> Self {
        let mut config = EngineConfig::default();
        config.sys_interval = None;
        let now = Now::default();
        Self {
            engine: Engine::new(Arc::new(config), ShardId::new(0), 1, 1, now),
            now,
            connections: 0,
            out: TransmitBuf::new(1 << 20),
            flushes: VecDeque::new(),
        }
    }

    fn connect(&mut self, version: Version) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId::new(ShardId::new(0), self.connections);
        self.engine.handle_opened(id, Opened::default(), self.now);
        let client_id = format!("client {}", self.connections);
        self.feed(
            id,
            &bytes(version, &Packet::Connect(Connect::new(version, &client_id))),
        );
        self.turn();
        id
    }

    fn subscriber(&mut self, version: Version, filter: &str, qos: QoS) -> ConnectionId {
        let id = self.connect(version);
        let filters = [SubscribeFilter::new(
            TopicFilter::new(filter).expect("a filter"),
            qos,
        )];
        let subscribe = Subscribe::new(packet_id(1), &filters);
        self.feed(id, &bytes(version, &Packet::Subscribe(subscribe)));
        self.turn();
        id
    }

    fn feed(&mut self, id: ConnectionId, mut input: &[u8]) {
        while !input.is_empty() {
            let (consumed, _) = self.engine.handle_input(id, input, self.now);
            assert!(consumed > 0, "the engine stopped reading");
            input = input.get(consumed..).expect("no more than there is");
        }
    }

    /// Carries out all commands; the bytes written.
    fn turn(&mut self) -> usize {
        let mut written = 0;
        while let Some(command) = self.engine.poll_command() {
            if let Command::Flush(id) = command {
                self.flushes.push_back(id);
            }
            if let Some(id) = self.flushes.pop_front() {
                while self.engine.poll_transmit(id, self.now, &mut self.out) {
                    written += self.out.len();
                    self.out.clear();
                }
                written += black_box(&self.out).len();
                self.out.clear();
            }
        }
        written
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

fn bytes(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet
        .encode(version, &mut bytes)
        .expect("a packet of this version");
    bytes
}

/// A read of many PUBLISHes.
fn publishes(version: Version, topic: &str, qos: QoS) -> Vec<u8> {
    let topic = TopicName::new(topic).expect("a topic");
    let publish = |id| {
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id(id)),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id(id)),
        };
        bytes(
            version,
            &Packet::Publish(Publish::new(topic, delivery, &PAYLOAD)),
        )
    };
    (1..=BATCH).flat_map(publish).collect()
}

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("pairs");
    group.throughput(Throughput::Elements(BATCH.into()));
    for version in [Version::V3_1_1, Version::V5] {
        let mut broker = Broker::new();
        let topic = "site/1/line/2/dev/3/metric";
        broker.subscriber(version, topic, QoS::AtMostOnce);
        let publisher = broker.connect(version);
        let input = publishes(version, topic, QoS::AtMostOnce);
        group.bench_function(format!("qos 0, {version}"), |b| {
            b.iter(|| {
                broker.feed(publisher, &input);
                broker.turn()
            });
        });

        let mut broker = Broker::new();
        let subscriber = broker.subscriber(version, topic, QoS::AtLeastOnce);
        let publisher = broker.connect(version);
        let input = publishes(version, topic, QoS::AtLeastOnce);
        // Packet Identifiers follow each other.
        let mut next = 1_u16;
        group.bench_function(format!("qos 1, {version}"), |b| {
            b.iter_batched(
                || {
                    let ids = (0..BATCH).map(|_| {
                        let id = next;
                        next = if next == u16::MAX { 1 } else { next + 1 };
                        bytes(version, &Packet::Puback(Ack::new(packet_id(id))))
                    });
                    ids.flatten().collect::<Vec<u8>>()
                },
                |pubacks| {
                    broker.feed(publisher, &input);
                    let mut written = broker.turn();
                    broker.feed(subscriber, &pubacks);
                    written += broker.turn();
                    written
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    let subscribers = 1_000;
    group.throughput(Throughput::Elements(u64::from(BATCH) * subscribers));
    let mut broker = Broker::new();
    for _ in 0..subscribers {
        broker.subscriber(Version::V3_1_1, "fan/out", QoS::AtMostOnce);
    }
    let publisher = broker.connect(Version::V3_1_1);
    let input = publishes(Version::V3_1_1, "fan/out", QoS::AtMostOnce);
    group.bench_function("1 to 1,000, qos 0", |b| {
        b.iter(|| {
            broker.feed(publisher, &input);
            broker.turn()
        });
    });
    group.finish();
}

fn many_subscriptions(c: &mut Criterion) {
    let mut group = c.benchmark_group("many subscriptions");
    group.throughput(Throughput::Elements(BATCH.into()));
    let mut broker = Broker::new();
    let client = broker.connect(Version::V5);
    for n in 0..10_000_u16 {
        let filter = format!("site/{}/line/{}/+", n / 100, n % 100);
        let filters = [SubscribeFilter::new(
            TopicFilter::new(&filter).expect("a filter"),
            QoS::AtMostOnce,
        )];
        let subscribe = Subscribe::new(packet_id(n + 1), &filters);
        broker.feed(client, &bytes(Version::V5, &Packet::Subscribe(subscribe)));
        broker.turn();
    }
    let publisher = broker.connect(Version::V5);
    let input = publishes(Version::V5, "site/17/line/42/temperature", QoS::AtMostOnce);
    group.bench_function("10,000 filters of one client, qos 0", |b| {
        b.iter(|| {
            broker.feed(publisher, &input);
            broker.turn()
        });
    });
    group.finish();
}

criterion_group!(benches, pairs, fan_out, many_subscriptions);
criterion_main!(benches);
