use std::time::Duration;

use avocet_codec::{Connect, Packet, ReasonCode, Version};

use crate::cluster::{Client, Cluster, Rng, each, persistent};

/// [MQTT5-3.1.4-5] [MQTT311-3.2.0-1]
#[test]
fn accepts_clients_of_every_version() {
    each(|mut cluster| {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            let client = cluster.connect(&Connect::new(version, "client"));
            assert_eq!(cluster.packets(client), ["connack 0x00"], "{version}");
        }
    });
}

/// [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]
#[test]
fn assigns_client_identifiers_that_differ() {
    each(|mut cluster| {
        let mut assigned = Vec::new();
        for _ in 0..10 {
            let client = cluster.connect(&Connect::new(Version::V5, ""));
            let frames = cluster.frames(client);
            let Packet::Connack(connack) = frames[0].packet() else {
                panic!("{frames:?}");
            };
            let id = connack.properties.assigned_client_id.unwrap().to_owned();
            assert!(!assigned.contains(&id));
            assigned.push(id);
        }
    });
}

/// [MQTT5-3.1.4-3] [MQTT311-3.1.4-2]
#[test]
fn takes_over_the_connection_of_the_same_client() {
    each(|mut cluster| {
        let old = cluster.client("twin");
        let new = cluster.client("twin");
        assert_eq!(cluster.packets(old), ["disconnect 0x8e"]);
        assert!(cluster.is_closed(old));
        assert!(!cluster.is_closed(new));
        assert_eq!(cluster.counters().takeovers, 1);

        let old = cluster.client_with(&Connect::new(Version::V3_1_1, "third"));
        let _new = cluster.client_with(&Connect::new(Version::V3_1_1, "third"));
        assert!(cluster.packets(old).is_empty());
        assert!(cluster.is_closed(old));
    });
}

/// [MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT5-3.1.2-4] [MQTT311-3.2.2-2]
#[test]
fn session_present_says_whether_state_was_kept() {
    each(|mut cluster| {
        let (client, present) = cluster.persistent("keeper");
        assert!(!present);
        cluster.cut(client);
        let (client, present) = cluster.persistent("keeper");
        assert!(present);
        cluster.disconnect(client);
        let client = cluster.connect(&Connect::new(Version::V5, "keeper"));
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        cluster.disconnect(client);
        let (_, present) = cluster.persistent("keeper");
        assert!(!present, "the last one had no expiry interval");
    });
}

#[test]
fn subscriptions_and_messages_survive_takeover() {
    each(|mut cluster| {
        let (old, _) = cluster.persistent("roamer");
        cluster.subscribe(old, "news/#", 1);
        let (new, present) = cluster.persistent("roamer");
        assert!(present);
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "news/today", "hello", 1);
        assert_eq!(cluster.messages(new), ["news/today=hello q1"]);
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
    });
}

/// [MQTT5-4.13.2-1]
#[test]
fn shutdown_tells_clients_and_keeps_wills() {
    each(|mut cluster| {
        let watcher = cluster.client("watcher");
        cluster.subscribe(watcher, "wills", 0);
        let mut connect = persistent("mortal");
        connect.will = Some(crate::publish::will("wills", "gone"));
        let client = cluster.client_with(&connect);
        for shard in 0..cluster.shards() {
            let now = cluster.now;
            cluster.engines[shard].handle_shutdown(now);
        }
        assert_eq!(cluster.packets(client), ["disconnect 0x8b"]);
        assert_eq!(cluster.packets(watcher), ["disconnect 0x8b"]);
        assert!(cluster.is_closed(client));
        assert_eq!(cluster.counters().wills_published, 0);
        let late = cluster.connect(&Connect::new(Version::V5, "late"));
        let refused = ReasonCode::ServerUnavailable as u8;
        assert_eq!(cluster.packet(late), format!("connack {refused:#04x}"));
    });
}

/// However many connections of one client race, one remains, and the session with it.
#[test]
fn one_of_many_connections_remains() {
    for seed in 0..100 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let (first, _) = cluster.persistent("racer");
        cluster.subscribe(first, "t", 1);
        let racers: Vec<Client> = (0..6)
            .map(|_| {
                let client = cluster.open(Version::V5);
                cluster.send(client, &Packet::Connect(persistent("racer")));
                cluster.step();
                client
            })
            .collect();
        cluster.run();
        let left: Vec<_> = racers
            .iter()
            .copied()
            .filter(|&client| !cluster.is_closed(client))
            .collect();
        assert_eq!(left.len(), 1, "seed {seed}");
        assert!(cluster.is_closed(first));
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "t", "x", 1);
        assert_eq!(cluster.packets(left[0]), ["connack 0x00 present", "t=x q1"]);
        for client in racers {
            if client != left[0] {
                let packets = cluster.packets(client);
                // One may be taken over before its CONNACK has left.
                let expected = ["connack 0x00 present", "disconnect 0x8e"];
                assert!(packets.is_empty() || packets == expected, "{packets:?}");
            }
        }
    }
}

/// It ends before the time that a CONNECT may take.
#[test]
fn keep_alive_counts_from_the_connect_however_long_that_might_have_taken() {
    each(|mut cluster| {
        let mut connect = Connect::new(Version::V3_1_1, "quiet");
        connect.keep_alive = 1;
        let client = cluster.client_with(&connect);
        cluster.advance(Duration::from_millis(1_499));
        cluster.run();
        assert!(!cluster.is_closed(client));
        cluster.advance(Duration::from_millis(2));
        cluster.run();
        assert!(cluster.is_closed(client));
    });
}

/// [MQTT5-3.1.2-22] [MQTT311-3.1.2-24] Packets move the end of Keep Alive, whatever they are and
/// whatever they make due beside it.
#[test]
fn keep_alive_ends_one_and_a_half_times_after_the_last_packet() {
    for seed in 0..100 {
        for (shards, paced) in [(1, false), (3, false), (1, true)] {
            let context = format!("{shards} shards, seed {seed}, paced {paced}");
            let mut rng = Rng::new(seed + 7);
            let mut cluster = Cluster::new(shards, Some(seed), |config| {
                if paced {
                    config.limits.publish_rate.messages_per_second = 2;
                    config.limits.delivery_rate.messages_per_second = 2;
                }
            });
            let other = cluster.client("other");
            let mut connect = Connect::new([Version::V3_1_1, Version::V5][rng.below(2)], "client");
            connect.keep_alive = 1 + rng.below(4) as u16;
            let end = Duration::from_millis(u64::from(connect.keep_alive) * 1_500);
            let client = cluster.client_with(&connect);
            let mut last = cluster.now.instant;
            let filter = ["client", "other"][rng.below(2)];
            if rng.one_in(2) {
                cluster.subscribe(client, filter, 2);
            }
            for n in 0..rng.below(12) {
                let millis = rng.below(end.as_millis() as usize - 10) as u64;
                let since = cluster.now.instant.duration_since(last);
                let wait =
                    Duration::from_millis(millis).min(end - since - Duration::from_millis(2));
                cluster.advance(wait);
                assert!(!cluster.is_closed(client), "{context}, step {n}");
                cluster.set_reads(client, !rng.one_in(3));
                match rng.below(4) {
                    0 => cluster.send(client, &Packet::Pingreq),
                    1 => cluster.publish(other, filter, "x", rng.below(3) as u8),
                    _ => cluster.publish(client, filter, "x", rng.below(3) as u8),
                }
                // Whether something comes of the other's or not, this counts.
                cluster.send(client, &Packet::Pingreq);
                cluster.run();
                last = cluster.now.instant;
            }
            let acks = rng.one_in(2);
            cluster.set_acks(client, acks);
            let since = cluster.now.instant.duration_since(last);
            cluster.advance(end - since - Duration::from_millis(1));
            assert!(!cluster.is_closed(client), "{context}");
            let late = if paced { 60_000 } else { 2 };
            cluster.set_reads(client, true);
            cluster.set_acks(client, false);
            cluster.advance(Duration::from_millis(late));
            assert!(cluster.is_closed(client), "{context}");
        }
    }
}
