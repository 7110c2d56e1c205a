//! Messages of which each is for one client without a session: they take a way of their own.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use avocet_codec::{AckType, Connect, Delivery, Packet, PacketId, Version};
use avocet_engine::DropReason;
use avocet_session::Overflow;

use crate::cluster::{Client, Cluster, Rng, ack};

/// Most can pass on the packets of most others.
const VERSIONS: [Version; 4] = [Version::V5, Version::V5, Version::V3_1_1, Version::V3_1];

/// A client that acknowledges when it likes, in any order, twice, and what it never got.
struct Subscriber {
    at: usize,
    client: Client,
    window: usize,
    reads: bool,
    /// What it owes for a Packet Identifier, or PUBREL for which it waits.
    due: BTreeMap<PacketId, AckType>,
    /// What it has yet to receive of each publisher and topic, and of QoS 0 or not.
    expected: BTreeMap<(usize, String, bool), Vec<String>>,
}

impl Subscriber {
    fn new(cluster: &mut Cluster, rng: &mut Rng, at: usize) -> Self {
        let mut this = Self {
            at,
            client: cluster.open(Version::V5),
            window: 0,
            reads: true,
            due: BTreeMap::new(),
            expected: BTreeMap::new(),
        };
        this.connect(cluster, rng);
        this
    }

    fn connect(&mut self, cluster: &mut Cluster, rng: &mut Rng) {
        let id = format!("subscriber {}", self.at);
        let mut connect = Connect::new(VERSIONS[rng.below(4)], &id);
        self.window = usize::from(u16::MAX);
        if connect.version == Version::V5 && rng.below(4) > 0 {
            self.window = 1 + rng.below(4);
            connect.properties.receive_maximum = NonZeroU16::new(self.window as u16);
        }
        self.client = cluster.client_with(&connect);
        cluster.set_acks(self.client, false);
        cluster.subscribe(self.client, &format!("{}/#", self.at), 2);
        self.reads = true;
        self.due.clear();
        self.expected.clear();
    }

    /// How many messages were not received before those that were.
    fn receive(&mut self, cluster: &mut Cluster, may_lose: bool, context: &str) -> usize {
        let mut lost = 0;
        for frame in cluster.received(self.client) {
            match frame.packet() {
                Packet::Publish(publish) => {
                    assert!(!publish.dup && !publish.retain, "{context}");
                    let owed = match publish.delivery {
                        Delivery::AtMostOnce => None,
                        Delivery::AtLeastOnce(id) => Some((id, AckType::Puback)),
                        Delivery::ExactlyOnce(id) => Some((id, AckType::Pubrec)),
                    };
                    if let Some((id, ack_type)) = owed {
                        let before = self.due.insert(id, ack_type);
                        assert_eq!(before, None, "{context}: {id:?} is in use");
                        assert!(self.due.len() <= self.window, "{context}");
                    }
                    let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                    let publisher = text.split_once(':').unwrap().0.parse().unwrap();
                    let topic = publish.topic_name.unwrap().as_str().to_owned();
                    let stream = (publisher, topic, owed.is_none());
                    let expected = self.expected.entry(stream).or_default();
                    let at = expected.iter().position(|it| it == text.trim_end());
                    let at = at.filter(|at| may_lose || *at == 0);
                    let at = at.unwrap_or_else(|| panic!("{context}: {text}, not {expected:?}"));
                    expected.drain(..=at);
                    lost += at;
                }
                Packet::Pubrel(ack) => {
                    let before = self.due.insert(ack.packet_id, AckType::Pubcomp);
                    assert_eq!(before, Some(AckType::Pubrel), "{context}");
                }
                other => panic!("{context}: {other:?}"),
            }
        }
        lost
    }

    fn acknowledge(&mut self, cluster: &mut Cluster, rng: &mut Rng) {
        let owed: Vec<_> = self.due.iter().map(|(id, due)| (*id, *due)).collect();
        let owed: Vec<_> = owed.iter().filter(|it| it.1 != AckType::Pubrel).collect();
        let Some(&&(id, due)) = owed.get(rng.below(owed.len())) else {
            return;
        };
        cluster.send(self.client, &ack(due, id));
        if due == AckType::Pubrec {
            self.due.insert(id, AckType::Pubrel);
            return;
        }
        self.due.remove(&id);
        if rng.one_in(8) {
            // Nothing is to go wrong because it does so twice, and nobody else has it by then.
            cluster.send(self.client, &ack(due, id));
        }
    }
}

/// [MQTT5-2.2.1-4] [MQTT5-3.3.4-7] [MQTT5-4.6.0-6] [MQTT311-4.6.0-6]
#[test]
fn each_message_comes_once_and_in_order_whatever_its_one_taker_does() {
    for seed in 0..30 {
        for shards in [1, 2] {
            converse(shards, seed, None);
        }
    }
}

/// What has no room is counted, and nothing else is lost.
#[test]
fn each_message_comes_in_order_or_is_dropped_where_there_is_no_room() {
    for seed in 0..30 {
        for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
            converse(1, seed, Some(overflow));
        }
    }
}

fn converse(shards: u16, seed: u64, overflow: Option<Overflow>) {
    let mut cluster = Cluster::new(shards, Some(seed), |config| {
        if let Some(overflow) = overflow {
            let mut connection = (*config.connection).clone();
            connection.limits.queued_messages_max = 4;
            connection.limits.overflow = overflow;
            config.connection = Arc::new(connection);
        }
    });
    let mut dropped = 0;
    let mut rng = Rng::new(seed + 1_000);
    let mut subscribers: Vec<_> = (0..3)
        .map(|at| Subscriber::new(&mut cluster, &mut rng, at))
        .collect();
    let publishers: Vec<_> = (0..3)
        .map(|n| {
            let id = format!("publisher {n}");
            cluster.client_with(&Connect::new(VERSIONS[n], &id))
        })
        .collect();
    let mut acknowledgements = [0; 3];
    for n in 0..300 {
        let context = format!("{shards} shards, seed {seed}, step {n}");
        let to = &mut subscribers[rng.below(3)];
        match rng.below(100) {
            0..55 => {
                let (from, qos) = (
                    [0, 0, 1, 1, 1, 2][rng.below(6)],
                    [0, 0, 0, 1, 1, 1, 1, 1, 1, 2][rng.below(10)],
                );
                let topic = format!("{}/{}", to.at, rng.below(2));
                let len = [1, 1, 10, 10, 200, 200, 5_000][rng.below(7)];
                let payload = format!("{from}:{n:<len$}");
                let stream = (from, topic.clone(), qos == 0);
                let expected = to.expected.entry(stream).or_default();
                expected.push(payload.trim_end().to_owned());
                let dup = qos == 1 && rng.one_in(4);
                cluster.publish_with(publishers[from], &topic, &payload, qos, |publish| {
                    publish.dup = dup;
                });
                acknowledgements[from] += usize::from(qos > 0);
            }
            55..85 => {
                dropped += to.receive(&mut cluster, overflow.is_some(), &context);
                to.acknowledge(&mut cluster, &mut rng);
            }
            85..93 => {
                to.reads = !to.reads;
                cluster.set_reads(to.client, to.reads);
            }
            93 if overflow.is_none() => {
                cluster.cut(to.client);
                to.connect(&mut cluster, &mut rng);
            }
            94 if overflow.is_none() => {
                // What is on its way goes with the connection that is taken over.
                cluster.run();
                let before = to.client;
                to.connect(&mut cluster, &mut rng);
                cluster.set_reads(before, true);
                cluster.run();
                assert!(cluster.is_closed(before), "{context}");
            }
            _ => cluster.run(),
        }
        for _ in 0..rng.below(4) {
            cluster.step();
        }
    }
    let context = format!("{shards} shards, seed {seed}");
    for to in &mut subscribers {
        cluster.set_reads(to.client, true);
        loop {
            cluster.run();
            dropped += to.receive(&mut cluster, overflow.is_some(), &context);
            if to.due.is_empty() {
                break;
            }
            to.acknowledge(&mut cluster, &mut rng);
        }
        assert!(!cluster.is_closed(to.client), "{context}");
        let missing: Vec<_> = to.expected.values().flatten().collect();
        assert!(
            overflow.is_some() || missing.is_empty(),
            "{context}: {missing:?}"
        );
        dropped += missing.len();
    }
    for (publisher, expected) in publishers.into_iter().zip(acknowledgements) {
        let packets = cluster.packets(publisher);
        let first = |it: &&String| it.starts_with("puback") || it.starts_with("pubrec");
        let came = packets.iter().filter(first).count();
        assert_eq!(came, expected, "{context}: {packets:?}");
    }
    let counters = cluster.counters();
    let queued = (counters.queued_messages, counters.queued_bytes);
    assert_eq!(queued, (0, 0), "{context}");
    if overflow.is_some() {
        let full = counters.dropped(DropReason::QueueFull);
        assert_eq!(
            (full, full),
            (counters.dropped_total(), dropped as u64),
            "{context}"
        );
        assert!(dropped > 0, "{context}");
    }
}
