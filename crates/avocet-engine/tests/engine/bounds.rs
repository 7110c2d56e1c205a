//! Full queues, in memory and with a store: what goes, and that it is counted.

use std::sync::Arc;
use std::time::Duration;

use avocet_codec::Packet;
use avocet_engine::{DropReason, EngineConfig};
use avocet_session::Overflow;

use crate::cluster::{Client, Cluster, each_with};
use crate::durability::resident;
use crate::store::Store;

/// Runs a test in memory and with a store that has most of each queue, by several shards.
fn in_memory_and_stored(configure: impl Fn(&mut EngineConfig), test: impl Fn(&mut Cluster)) {
    each_with(&configure, |mut cluster| {
        test(&mut cluster);
        assert_is_empty(&cluster);
    });
    let on_disk = |config: &mut EngineConfig| {
        resident::<2>(config);
        configure(config);
    };
    each_with(on_disk, |mut cluster| {
        cluster.store = Some(Store::default());
        test(&mut cluster);
        assert_is_empty(&cluster);
        let (messages, _, of_groups) = cluster.store.as_ref().unwrap().holds();
        assert_eq!((messages, of_groups), (0, 0));
    });
}

fn assert_is_empty(cluster: &Cluster) {
    let counters = cluster.counters();
    assert_eq!((counters.queued_messages, counters.queued_bytes), (0, 0));
}

/// A session that is not connected, with a subscription.
fn away(cluster: &mut Cluster, client_id: &str, filter: &str) {
    let (client, _) = cluster.persistent(client_id);
    cluster.subscribe(client, filter, 1);
    cluster.cut(client);
}

/// Publishes as many messages of one byte to `t`, one at a time; all are acknowledged.
fn publish(cluster: &mut Cluster, publisher: Client, numbers: std::ops::Range<u8>) {
    for number in numbers {
        let payload = char::from(b'a' + number).to_string();
        cluster.publish(publisher, "t", &payload, 1 + number % 2);
        let packets = cluster.packets(publisher);
        let last = packets.last().unwrap();
        assert!(last.starts_with("pub") && last.ends_with("0x00"), "{last}");
    }
}

/// What a session has, as one text.
fn drain(cluster: &mut Cluster, client_id: &str) -> String {
    let (client, present) = cluster.persistent(client_id);
    assert!(present);
    let messages = cluster.messages(client);
    let payloads = messages.iter().map(|it| it.trim_start_matches("t="));
    payloads.filter_map(|it| it.chars().next()).collect()
}

fn limits(config: &mut EngineConfig) -> &mut avocet_session::Limits {
    &mut Arc::make_mut(&mut config.connection).limits
}

/// Five messages, or the bytes of five: each has one in its topic and one in its payload.
fn five(config: &mut EngineConfig, bytes: bool, overflow: Overflow) {
    let limits = limits(config);
    limits.overflow = overflow;
    if bytes {
        limits.queued_bytes_max = 11;
    } else {
        limits.queued_messages_max = 5;
    }
}

#[test]
fn a_full_queue_drops_what_comes_or_what_has_waited_longest() {
    for (bytes, overflow, kept) in [
        (false, Overflow::DropNewest, "abcde"),
        (false, Overflow::DropOldest, "pqrst"),
        (true, Overflow::DropNewest, "abcde"),
        (true, Overflow::DropOldest, "pqrst"),
    ] {
        eprintln!("{overflow:?}, bytes: {bytes}");
        let configure = |config: &mut EngineConfig| five(config, bytes, overflow);
        in_memory_and_stored(configure, |cluster| {
            away(cluster, "full", "t");
            away(cluster, "other", "other");
            let publisher = cluster.client("publisher");
            publish(cluster, publisher, 0..20);
            assert_eq!(cluster.dropped(DropReason::QueueFull), 15);
            // Each session has its own room.
            cluster.publish(publisher, "other", "x", 1);
            assert_eq!(drain(cluster, "other"), "o");
            assert_eq!(drain(cluster, "full"), kept);
            assert_eq!(cluster.counters().dropped_total(), 15);
        });
    }
}

/// All queues of a shard together have a limit of their own: what comes beyond it is dropped,
/// whatever goes from a queue that is full itself.
#[test]
fn full_queues_together_drop_what_comes() {
    for (bytes, overflow) in [
        (false, Overflow::DropNewest),
        (false, Overflow::DropOldest),
        (true, Overflow::DropNewest),
        (true, Overflow::DropOldest),
    ] {
        let configure = |config: &mut EngineConfig| {
            limits(config).overflow = overflow;
            if bytes {
                config.limits.queued_bytes_max = 11;
            } else {
                config.limits.queued_messages_max = 6;
            }
        };
        in_memory_and_stored(configure, |cluster| {
            away(cluster, "one", "t");
            let publisher = cluster.client("publisher");
            publish(cluster, publisher, 0..20);
            assert_eq!(cluster.dropped(DropReason::TotalFull), 14);
            assert_eq!(drain(cluster, "one"), "abcdef");
            // There is room again.
            cluster.publish(publisher, "t", "x", 1);
            assert_eq!(drain(cluster, "one"), "x");
            assert_eq!(cluster.counters().dropped_total(), 14);
        });
    }
}

/// [MQTT5-4.8.2] A group without a connected member keeps as much as its limits say.
#[test]
fn a_full_group_drops_what_comes_or_what_has_waited_longest() {
    for (bytes, overflow, kept) in [
        (false, Overflow::DropNewest, "abcde"),
        (false, Overflow::DropOldest, "pqrst"),
        (true, Overflow::DropNewest, "abcde"),
        (true, Overflow::DropOldest, "pqrst"),
    ] {
        let configure = |config: &mut EngineConfig| {
            five(config, bytes, overflow);
            if !bytes {
                config.limits.group_messages_max = 5;
                limits(config).queued_messages_max = 100;
            }
        };
        in_memory_and_stored(configure, |cluster| {
            away(cluster, "member", "$share/g/t");
            let publisher = cluster.client("publisher");
            publish(cluster, publisher, 0..20);
            assert_eq!(cluster.dropped(DropReason::GroupFull), 15);
            assert_eq!(drain(cluster, "member"), kept);
            assert_eq!(cluster.counters().dropped_total(), 15);
        });
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

fn slow(config: &mut EngineConfig) {
    limits(config).queued_messages_max = 10;
    config.limits.slow_publishers = PATIENCE;
}

/// Publishes one message; whether that slows its publisher.
fn slows(cluster: &mut Cluster, publisher: Client, qos: u8, retain: bool) -> bool {
    cluster.publish_with(publisher, "t", "x", qos, |publish| publish.retain = retain);
    cluster.run();
    // The next packet waits.
    cluster.send(publisher, &Packet::Pingreq);
    cluster.run();
    let slowed = cluster.is_paused(publisher);
    while cluster.is_paused(publisher) {
        cluster.advance(Duration::from_millis(5));
    }
    slowed
}

/// Before messages are dropped, their publishers wait, the longer the fuller the queue is.
#[test]
fn the_queue_of_a_connected_client_slows_its_publishers() {
    for (qos, retain) in [(0, false), (1, false), (2, false), (0, true), (1, true)] {
        in_memory_and_stored(slow, |cluster| {
            let (subscriber, _) = cluster.persistent("slow");
            cluster.subscribe(subscriber, "t", 1);
            let publisher = cluster.client("publisher");
            let other = cluster.client("other");
            cluster.set_reads(subscriber, false);
            for message in 1..=10 {
                assert_eq!(
                    slows(cluster, publisher, qos, retain),
                    message > 5,
                    "{message} q{qos} {retain}"
                );
            }
            assert_eq!(cluster.counters().dropped_total(), 0);
            cluster.publish(other, "another", "x", 0);
            cluster.run();
            assert!(!cluster.is_paused(other));
            cluster.set_reads(subscriber, true);
            assert_eq!(cluster.messages(subscriber).len(), 10);
            assert!(!slows(cluster, publisher, qos, retain));
            assert_eq!(cluster.messages(subscriber).len(), 1);
        });
    }
}

/// Nobody waits for ever: after a while what has no room is dropped, at full speed.
#[test]
fn a_queue_slows_its_publishers_only_for_a_while() {
    in_memory_and_stored(slow, |cluster| {
        let (subscriber, _) = cluster.persistent("stuck");
        cluster.subscribe(subscriber, "t", 1);
        let publisher = cluster.client("publisher");
        cluster.set_reads(subscriber, false);
        let begin = cluster.now.instant;
        let mut slowed = 0;
        for _ in 0..200 {
            slowed += u32::from(slows(cluster, publisher, 1, false));
        }
        let waited = cluster.now.instant.duration_since(begin);
        assert!(waited <= PATIENCE + PATIENCE / 50, "{waited:?}");
        assert!((90..=130).contains(&slowed), "{slowed}");
        assert_eq!(cluster.dropped(DropReason::QueueFull), 190);
        // Once it has been half empty, it slows them again.
        cluster.set_reads(subscriber, true);
        assert_eq!(cluster.messages(subscriber).len(), 10);
        cluster.set_reads(subscriber, false);
        let slowed = (0..10).filter(|_| slows(cluster, publisher, 1, false));
        assert_eq!(slowed.count(), 5);
        cluster.set_reads(subscriber, true);
        cluster.run();
    });
}

/// A client that is not connected slows nobody, and nobody waits whose own acknowledgements would
/// empty a queue.
#[test]
fn only_those_are_slowed_for_whom_it_helps() {
    in_memory_and_stored(slow, |cluster| {
        away(cluster, "away", "t");
        let publisher = cluster.client("publisher");
        for _ in 0..20 {
            assert!(!slows(cluster, publisher, 1, false));
        }
        assert_eq!(drain(cluster, "away").len(), 10);
        let (subscriber, _) = cluster.persistent("away");
        let both = cluster.client("both");
        cluster.subscribe(both, "own", 1);
        cluster.set_acks(both, false);
        cluster.publish(publisher, "own", "x", 1);
        cluster.run();
        cluster.set_reads(subscriber, false);
        for _ in 0..8 {
            assert!(!slows(cluster, both, 1, false));
        }
        assert!(slows(cluster, publisher, 1, false));
        cluster.set_reads(subscriber, true);
        cluster.set_acks(both, true);
        cluster.run();
    });
}
