//! Random conversations against a model that is simple enough to be believed: while subscriptions
//! stay as they are, every session gets each matching message once, in its publisher's order.

use std::collections::BTreeMap;

use avocet_codec::{Connect, RetainHandling, Version};
use avocet_engine::Durability;
use avocet_topic::{TopicFilter, TopicName, matches};

use crate::cluster::{Client, Cluster, Rng, persistent};

const FILTERS: [&str; 8] = ["#", "a/#", "a/+", "a/b", "+/b", "a/b/#", "b", "+"];
const TOPICS: [&str; 5] = ["a", "b", "a/b", "a/c", "a/b/c"];

#[derive(Clone, Copy)]
struct Subscription {
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    id: Option<u32>,
}

#[derive(Default)]
struct Session {
    client: Option<Client>,
    subscriptions: BTreeMap<&'static str, Subscription>,
    /// What it has yet to receive, in no order.
    expected: Vec<String>,
    /// QoS 1 and 2 messages it published and has no acknowledgement of.
    unacknowledged: usize,
}

struct Model {
    sessions: BTreeMap<String, Session>,
    /// The group of the one shared subscription: what it has yet to receive.
    shared: Vec<String>,
}

impl Model {
    fn publish(&mut self, from: &str, topic: &str, payload: &str, qos: u8, retain: bool) {
        let name = TopicName::new(topic).unwrap();
        for (id, session) in &mut self.sessions {
            let mut found: Option<(u8, bool, Vec<u32>)> = None;
            for (filter, subscription) in &session.subscriptions {
                if !matches(TopicFilter::new(filter).unwrap(), name)
                    || subscription.no_local && from == id
                {
                    continue;
                }
                let (highest, keep, ids) = found.get_or_insert((0, false, Vec::new()));
                *highest = (*highest).max(subscription.qos);
                *keep |= subscription.retain_as_published;
                ids.extend(subscription.id);
            }
            let Some((highest, keep, ids)) = found else {
                continue;
            };
            let granted = highest.min(qos);
            if granted > 0 || session.client.is_some() {
                session
                    .expected
                    .push(describe(topic, payload, granted, retain && keep, ids));
            }
        }
        if matches(TopicFilter::new("a/#").unwrap(), name) {
            self.shared
                .push(describe(topic, payload, qos.min(1), false, Vec::new()));
        }
    }
}

fn describe(topic: &str, payload: &str, qos: u8, retain: bool, mut ids: Vec<u32>) -> String {
    ids.sort_unstable();
    let retain = if retain { " retain" } else { "" };
    let ids = if ids.is_empty() {
        String::new()
    } else {
        format!(" ids {ids:?}")
    };
    format!("{topic}={payload} q{qos}{retain}{ids}")
}

/// Messages of each publisher and topic are in their order. QoS 0 may pass the others, which wait
/// for a commit or for the send quota [MQTT5-4.6.0-5].
fn assert_ordered(messages: &[String], context: &str) {
    let mut last: BTreeMap<(&str, &str, bool), u32> = BTreeMap::new();
    for message in messages {
        let (topic, rest) = message.split_once('=').unwrap();
        let (payload, rest) = rest.split_once(' ').unwrap();
        let Some((publisher, number)) = payload.split_once(':') else {
            continue;
        };
        let number = number.parse().unwrap();
        let before = last.insert((topic, publisher, rest.starts_with("q0")), number);
        assert!(
            before.is_none_or(|before| before < number),
            "{context}: {messages:?}"
        );
    }
}

fn sorted(mut messages: Vec<String>) -> Vec<String> {
    messages.sort();
    messages
}

fn converse(shards: u16, seed: u64, durability: Durability) {
    let context = format!("{shards} shards, seed {seed}, {durability:?}");
    let mut cluster = Cluster::new(shards, Some(seed), |config| {
        config.durability = durability;
        // Small enough to be in the way.
        config.limits.forwards_max = 8;
        config.limits.retained_page_messages = 2;
        config.limits.slice_packets = 3;
    });
    cluster.auto_commit = false;
    cluster.late_commits = true;
    let mut rng = Rng::new(seed + 1_000);
    let mut model = Model {
        sessions: BTreeMap::new(),
        shared: Vec::new(),
    };
    let ids: Vec<String> = (0..5).map(|n| format!("session {n}")).collect();
    for id in &ids {
        let (client, _) = cluster.persistent(id);
        model.sessions.insert(
            id.clone(),
            Session {
                client: Some(client),
                ..Session::default()
            },
        );
    }
    // It sees every message, and so knows what is retained.
    let witness = cluster.client("witness");
    cluster.subscribe_with(witness, "#", 2, None, |options| {
        options.retain_as_published = true
    });
    let workers = ["worker 1", "worker 2", "worker 3"].map(|id| {
        let client = cluster.client_with(&Connect::new(Version::V3_1_1, id));
        cluster.subscribe(client, "$share/workers/a/#", 1);
        client
    });
    let mut retained: BTreeMap<String, (String, u8)> = BTreeMap::new();
    let mut number = 0;

    for round in 0..6 {
        let context = format!("{context}, round {round}");
        // Everyone publishes at once.
        for _ in 0..30 {
            let at = rng.below(ids.len());
            let Some(client) = model.sessions[&ids[at]].client else {
                continue;
            };
            let topic = TOPICS[rng.below(TOPICS.len())];
            let (qos, retain) = (rng.below(3) as u8, rng.one_in(3));
            number += 1;
            let payload = if retain && rng.one_in(4) {
                String::new()
            } else {
                format!("{at}:{number}")
            };
            cluster.publish_with(client, topic, &payload, qos, |publish| {
                publish.retain = retain
            });
            model.publish(&ids[at], topic, &payload, qos, retain);
            let session = model.sessions.get_mut(&ids[at]).unwrap();
            session.unacknowledged += usize::from(qos > 0);
            for _ in 0..rng.below(8) {
                cluster.step();
            }
        }
        cluster.run();
        let shared: Vec<String> = workers
            .iter()
            .flat_map(|&worker| cluster.messages(worker))
            .collect();
        assert_eq!(
            sorted(shared),
            sorted(std::mem::take(&mut model.shared)),
            "{context}"
        );
        for session in model.sessions.values_mut() {
            let Some(client) = session.client else {
                continue;
            };
            let packets = cluster.packets(client);
            let is_ack =
                |packet: &&String| packet.starts_with("puback") || packet.starts_with("pubrec");
            let acks: Vec<_> = packets.iter().filter(is_ack).collect();
            assert!(
                acks.iter().all(|ack| ack.ends_with("0x00")),
                "{context}: {acks:?}"
            );
            assert_eq!(
                acks.len(),
                std::mem::take(&mut session.unacknowledged),
                "{context}"
            );
            let messages: Vec<_> = packets
                .into_iter()
                .filter(|packet| packet.contains('='))
                .collect();
            assert_ordered(&messages, &context);
            let expected = sorted(std::mem::take(&mut session.expected));
            assert_eq!(sorted(messages), expected, "{context}");
        }
        for message in cluster.messages(witness) {
            if let Some(message) = message.strip_suffix(" retain") {
                let (topic, rest) = message.split_once('=').unwrap();
                let (payload, qos) = rest.split_once(" q").unwrap();
                if payload.is_empty() {
                    retained.remove(topic);
                } else {
                    let value = (payload.to_owned(), qos.parse().unwrap());
                    retained.insert(topic.to_owned(), value);
                }
            }
        }
        // Then something changes.
        for _ in 0..4 {
            change(
                &mut cluster,
                &mut model,
                &mut rng,
                &ids,
                &retained,
                &context,
            );
        }
    }
    let counters = cluster.counters();
    assert_eq!(
        counters.dropped_total(),
        counters.dropped(avocet_engine::DropReason::OfflineQoS0)
    );
    assert_eq!(counters.retained_messages as usize, retained.len());
}

fn change(
    cluster: &mut Cluster,
    model: &mut Model,
    rng: &mut Rng,
    ids: &[String],
    retained: &BTreeMap<String, (String, u8)>,
    context: &str,
) {
    let id = &ids[rng.below(ids.len())];
    let session = model.sessions.get_mut(id).unwrap();
    let Some(client) = session.client else {
        let client = cluster.connect(&persistent(id));
        let mut packets = cluster.packets(client);
        assert_eq!(packets.remove(0), "connack 0x00 present", "{context}");
        packets.retain(|packet| packet.contains('='));
        assert_ordered(&packets, context);
        let expected = sorted(std::mem::take(&mut session.expected));
        assert_eq!(sorted(packets), expected, "{context}");
        session.client = Some(client);
        return;
    };
    let filter = FILTERS[rng.below(FILTERS.len())];
    match rng.below(8) {
        0 => {
            cluster.disconnect(client);
            session.client = None;
        }
        1 => {
            cluster.cut(client);
            session.client = None;
        }
        2 => {
            session.client = Some(cluster.persistent(id).0);
            assert!(cluster.is_closed(client), "{context}");
        }
        3 => {
            let code = if session.subscriptions.remove(filter).is_some() {
                "0x00"
            } else {
                "0x11"
            };
            assert_eq!(
                cluster.unsubscribe(client, filter),
                format!("unsuback {code}")
            );
        }
        _ => {
            let subscription = Subscription {
                qos: rng.below(3) as u8,
                no_local: rng.one_in(3),
                retain_as_published: rng.one_in(3),
                id: rng.one_in(2).then(|| rng.below(100) as u32 + 1),
            };
            let new = session.subscriptions.insert(filter, subscription).is_none();
            let handling = [
                RetainHandling::SendAtSubscribe,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ][rng.below(3)];
            let qos = subscription.qos;
            let suback = cluster.subscribe_with(client, filter, qos, subscription.id, |options| {
                options.no_local = subscription.no_local;
                options.retain_as_published = subscription.retain_as_published;
                options.retain_handling = handling;
            });
            assert_eq!(suback, format!("suback 0x0{qos}"), "{context}");
            let wanted = match handling {
                RetainHandling::SendAtSubscribe => true,
                RetainHandling::SendIfNew => new,
                RetainHandling::DoNotSend => false,
            };
            let mut expected = Vec::new();
            for (topic, (payload, published)) in retained {
                let own = ids.iter().position(|other| other == id).unwrap();
                let hidden = subscription.no_local && payload.starts_with(&format!("{own}:"));
                let name = TopicName::new(topic).unwrap();
                if wanted && !hidden && matches(TopicFilter::new(filter).unwrap(), name) {
                    let ids = subscription.id.into_iter().collect();
                    expected.push(describe(topic, payload, qos.min(*published), true, ids));
                }
            }
            assert_eq!(
                sorted(cluster.messages(client)),
                sorted(expected),
                "{context}"
            );
        }
    }
}

#[test]
fn one_shard_does_as_the_model_says() {
    for seed in 0..30 {
        converse(1, seed, Durability::Memory);
    }
}

#[test]
fn two_shards_do_as_the_model_says() {
    for seed in 100..140 {
        converse(2, seed, Durability::Memory);
    }
}

#[test]
fn three_shards_do_as_the_model_says() {
    for seed in 200..250 {
        converse(3, seed, Durability::Memory);
    }
}

/// Whenever commits come, nothing is lost, doubled, or left without its acknowledgement.
#[test]
fn stored_messages_do_as_the_model_says() {
    for seed in 300..330 {
        converse(1, seed, Durability::Stored);
        converse(3, seed, Durability::Stored);
    }
}
