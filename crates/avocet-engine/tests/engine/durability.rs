use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{AckType, Connect, Packet, PacketId, Version};
use avocet_engine::{DropReason, Durability, EngineConfig, Level, Record, SessionKey, ShardId};
use avocet_topic::TopicName;

use crate::cluster::{Cluster, ack, each, each_with, persistent};

pub(crate) fn stored(config: &mut EngineConfig) {
    config.durability = Durability::Stored;
}

/// Of each queue only so many messages are in memory.
pub(crate) fn resident<const MESSAGES: usize>(config: &mut EngineConfig) {
    stored(config);
    Arc::make_mut(&mut config.connection)
        .limits
        .resident_messages = MESSAGES;
}

/// A durable session with a subscription, and a publisher without one; nothing is committed by
/// itself from here on.
fn prepared(cluster: &mut Cluster) -> (crate::cluster::Client, crate::cluster::Client) {
    let (subscriber, _) = cluster.persistent("durable");
    cluster.subscribe(subscriber, "t/#", 2);
    let publisher = cluster.client("publisher");
    cluster.auto_commit = false;
    cluster.records.clear();
    (subscriber, publisher)
}

#[test]
fn in_memory_nothing_is_recorded_and_nothing_waits() {
    each(|mut cluster| {
        let (_, publisher) = prepared(&mut cluster);
        cluster.publish_retained(publisher, "t/x", "x", 1);
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
        cluster.publish(publisher, "t/x", "x", 2);
        assert_eq!(
            cluster.packets(publisher),
            ["pubrec 2 0x00", "pubcomp 2 0x00"]
        );
        assert!(cluster.records.is_empty());
    });
}

#[test]
fn puback_and_pubrec_wait_for_the_commit() {
    each_with(stored, |mut cluster| {
        let (subscriber, publisher) = prepared(&mut cluster);
        cluster.publish(publisher, "t/x", "one", 1);
        cluster.publish(publisher, "t/x", "two", 2);
        assert!(cluster.packets(publisher).is_empty());
        // QoS 1 goes out at once; a Packet Identifier of QoS 2 is stored before it is seen.
        assert_eq!(cluster.messages(subscriber), ["t/x=one q1"]);
        cluster.commit();
        assert_eq!(cluster.messages(subscriber), ["t/x=two q2"]);
        assert_eq!(
            cluster.packets(publisher),
            ["puback 1 0x00", "pubrec 2 0x00", "pubcomp 2 0x00"]
        );
        let stored = cluster
            .records
            .iter()
            .filter(|record| matches!(record, Record::MessageStored { .. }));
        assert_eq!(stored.count(), 2);
        let finished = cluster
            .records
            .iter()
            .filter(|record| matches!(record, Record::Finished { .. }));
        assert_eq!(finished.count(), 2);
    });
}

/// [MQTT5-4.3.3-10] The end of a QoS 2 message is recorded as its beginning was, though the
/// connection on which it came has ended before it was where it belongs.
#[test]
fn the_release_of_a_message_of_an_earlier_connection_is_recorded() {
    each_with(stored, |mut cluster| {
        for id in ["one", "two", "three", "four"] {
            let (subscriber, _) = cluster.persistent(id);
            cluster.subscribe(subscriber, "t", 1);
        }
        let (old, _) = cluster.persistent("publisher");
        cluster.auto_commit = false;
        cluster.publish(old, "t", "x", 2);
        cluster.run();
        cluster.cut(old);
        cluster.commit();
        cluster.auto_commit = true;
        let (new, _) = cluster.persistent("publisher");
        cluster.publish_with(new, "t", "x", 2, |publish| publish.dup = true);
        assert_eq!(cluster.packets(new), ["pubrec 1 0x00", "pubcomp 1 0x00"]);
        let released = |record: &&Record| matches!(record, Record::PublishReleased { .. });
        assert_eq!(cluster.records.iter().filter(released).count(), 1);
    });
}

#[test]
fn only_what_must_survive_waits() {
    each_with(stored, |mut cluster| {
        let (_, publisher) = prepared(&mut cluster);
        let guest = cluster.client("guest");
        cluster.subscribe(guest, "u", 2);
        cluster.publish(publisher, "u", "x", 1);
        assert_eq!(
            cluster.packets(publisher),
            ["puback 1 0x00"],
            "no durable session wants it"
        );
        cluster.publish(publisher, "t/x", "x", 0);
        assert!(
            !cluster
                .records
                .iter()
                .any(|record| matches!(record, Record::Enqueued { .. }))
        );
    });
}

/// A message wanted by a durable session of another shard is written by the publisher's shard
/// first.
#[test]
fn a_message_is_stored_before_it_is_referred_to() {
    each_with(stored, |mut cluster| {
        let subscribers = ["a", "b", "c", "d", "e"].map(|id| {
            let (client, _) = cluster.persistent(id);
            cluster.subscribe(client, "t/#", 1);
            client
        });
        let publishers = ["p", "q", "r"].map(|id| cluster.client(id));
        for publisher in publishers {
            for n in 0..5 {
                cluster.publish_retained(publisher, "t/x", &n.to_string(), 1);
                cluster.publish(publisher, "t/x", &n.to_string(), 1);
            }
        }
        cluster.run();
        let mut known = Vec::new();
        let mut enqueued = 0;
        for record in &cluster.records {
            match record {
                Record::MessageStored { id, .. } => {
                    assert!(!known.contains(id), "stored once");
                    known.push(*id);
                }
                Record::Enqueued { id, .. } => {
                    assert!(known.contains(id));
                    enqueued += 1;
                }
                _ => {}
            }
        }
        assert_eq!(known.len(), 30);
        assert_eq!(enqueued, 30 * subscribers.len());
    });
}

#[test]
fn retained_state_is_committed_before_the_acknowledgement() {
    each_with(stored, |mut cluster| {
        let publisher = cluster.client("publisher");
        cluster.auto_commit = false;
        cluster.publish_retained(publisher, "kept", "x", 1);
        assert!(cluster.packets(publisher).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(publisher), ["puback 1 0x10"]);
        cluster.publish_retained(publisher, "kept", "", 1);
        assert!(cluster.packets(publisher).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(publisher), ["puback 2 0x10"]);
        let retained: Vec<_> = cluster
            .records
            .iter()
            .filter_map(|record| match record {
                Record::RetainedPut { message, .. } => Some(message.topic_name().as_str().into()),
                Record::RetainedDeleted { topic_name, .. } => {
                    Some(format!("-{}", topic_name.as_str()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(retained, ["kept", "-kept"]);
    });
}

#[test]
fn suback_unsuback_and_connack_wait_for_the_commit() {
    each_with(stored, |mut cluster| {
        let (client, _) = cluster.persistent("durable");
        cluster.auto_commit = false;
        cluster.send_subscribe(client, "t", 1, None, |_| {});
        assert!(cluster.packets(client).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(client), ["suback 0x01"]);
        assert_eq!(cluster.unsubscribe(client, "t"), "no unsuback");
        cluster.commit();
        assert_eq!(cluster.packets(client), ["unsuback 0x00"]);
        cluster.disconnect(client);
        let client = cluster.connect(&Connect::new(Version::V5, "durable"));
        assert_eq!(
            cluster.packet(client),
            "nothing",
            "the discarded session is still stored"
        );
        cluster.commit();
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        let deleted = |record: &Record| matches!(record, Record::SessionDeleted { .. });
        assert!(cluster.records.iter().any(deleted));
    });
}

/// [MQTT5-4.3.3-8] PUBREL waits for the commit of PUBREC, PUBCOMP for that of PUBREL.
#[test]
fn both_halves_of_qos_2_wait() {
    each_with(stored, |mut cluster| {
        let (subscriber, _) = cluster.persistent("subscriber");
        cluster.subscribe(subscriber, "t", 2);
        let (publisher, _) = cluster.persistent("publisher");
        cluster.set_acks(publisher, false);
        cluster.set_acks(subscriber, false);
        cluster.auto_commit = false;
        cluster.publish(publisher, "t", "x", 2);
        assert!(cluster.packets(publisher).is_empty());
        assert!(cluster.packets(subscriber).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(publisher), ["pubrec 1 0x00"]);
        assert_eq!(cluster.packets(subscriber), ["t=x q2"]);
        let id = PacketId::new(1).unwrap();
        cluster.send(publisher, &ack(AckType::Pubrel, id));
        cluster.send(subscriber, &ack(AckType::Pubrec, id));
        assert!(cluster.packets(publisher).is_empty());
        assert!(cluster.packets(subscriber).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(publisher), ["pubcomp 1 0x00"]);
        assert_eq!(cluster.packets(subscriber), ["pubrel 1 0x00"]);
        let received = |record: &&Record| {
            matches!(
                record,
                Record::PublishReceived { .. }
                    | Record::PublishReleased { .. }
                    | Record::PubrecReceived { .. }
            )
        };
        assert_eq!(cluster.records.iter().filter(received).count(), 3);
    });
}

/// Acknowledgements that wait for a commit die with their connection.
#[test]
fn a_lost_connection_takes_its_waiting_acknowledgements_along() {
    each_with(stored, |mut cluster| {
        let (_, publisher) = prepared(&mut cluster);
        cluster.publish(publisher, "t/x", "x", 1);
        cluster.run();
        cluster.cut(publisher);
        let publisher = cluster.client("publisher");
        cluster.commit();
        assert!(cluster.packets(publisher).is_empty());
    });
}

#[test]
fn wills_are_recorded_and_removed_in_one_batch() {
    each_with(stored, |mut cluster| {
        let mut connect = persistent("mortal");
        connect.will = Some(crate::publish::will("wills", "gone"));
        let client = cluster.client_with(&connect);
        let put = |record: &Record| matches!(record, Record::WillPut { .. });
        assert!(cluster.records.iter().any(put));
        cluster.records.clear();
        cluster.cut(client);
        let deleted = |record: &Record| matches!(record, Record::WillDeleted { .. });
        assert!(cluster.records.iter().any(deleted));
    });
}

/// Messages of a shared subscription are the group's until a member has acknowledged them.
#[test]
fn groups_record_what_they_hold() {
    each_with(stored, |mut cluster| {
        let (member, _) = cluster.persistent("member");
        cluster.subscribe(member, "$share/s/t", 1);
        cluster.disconnect(member);
        let publisher = cluster.client("publisher");
        cluster.auto_commit = false;
        cluster.publish(publisher, "t", "x", 1);
        assert!(cluster.packets(publisher).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
        cluster.auto_commit = true;
        let (member, _) = cluster.persistent("member");
        assert_eq!(cluster.messages(member), ["t=x q1"]);
        let kinds: Vec<_> = cluster
            .records
            .iter()
            .filter_map(|record| match record {
                Record::GroupEnqueued { .. } => Some("group enqueued"),
                Record::Enqueued { .. } => Some("enqueued"),
                Record::Finished { .. } => Some("finished"),
                Record::GroupFinished { .. } => Some("group finished"),
                _ => None,
            })
            .collect();
        assert_eq!(
            kinds,
            ["group enqueued", "enqueued", "finished", "group finished"]
        );
    });
}

/// A stop leaves wills and sessions to the restart.
#[test]
fn shutdown_deletes_nothing() {
    each_with(stored, |mut cluster| {
        let mut connect = persistent("mortal");
        connect.will = Some(crate::publish::will("wills", "gone"));
        let _client = cluster.client_with(&connect);
        connect.client_id = "guest";
        connect.properties.session_expiry_interval = 0;
        let _guest = cluster.client_with(&connect);
        cluster.records.clear();
        for shard in 0..cluster.shards() {
            let now = cluster.now;
            cluster.engines[shard].handle_shutdown(now);
        }
        cluster.run();
        assert!(cluster.records.is_empty(), "{:?}", cluster.records);
        assert_eq!(cluster.counters().connections, 0);
    });
}

/// The message is stored where it was published, also if a session there had no room for it.
#[test]
fn acknowledgements_wait_for_the_message_itself() {
    let configure = |config: &mut EngineConfig| {
        stored(config);
        let connection = Arc::make_mut(&mut config.connection);
        connection.limits.queued_messages_max = 1;
    };
    let names = ["s0", "s1", "s2", "s3", "s4", "s5"];
    for (backwards, awake) in [false, true]
        .into_iter()
        .flat_map(|it| names.map(|name| (it, name)))
    {
        each_with(configure, |mut cluster| {
            for name in names {
                let (client, _) = cluster.persistent(name);
                cluster.subscribe(client, "t", 1);
                cluster.disconnect(client);
            }
            let (publisher, _) = cluster.persistent("publisher");
            cluster.publish(publisher, "t", "0", 1);
            assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
            // One of them has room for another one.
            let (client, _) = cluster.persistent(awake);
            cluster.run();
            cluster.set_acks(client, false);
            cluster.auto_commit = false;
            cluster.publish(publisher, "t", "1", 1);
            cluster.run();
            let mut order: Vec<usize> = (0..cluster.shards()).collect();
            if backwards {
                order.reverse();
            }
            // That the message is routed is recorded later, and nothing waits for it.
            let commits = cluster.commits.clone();
            for shard in order {
                for commit in commits[shard].clone() {
                    assert_eq!(cluster.packets(publisher), [""; 0]);
                    cluster.engines[shard].handle_committed(commit, cluster.now);
                    cluster.run();
                }
            }
            assert_eq!(cluster.packets(publisher), ["puback 2 0x00"]);
        });
    }
}

/// A publisher whose session survives does not send a message of QoS 2 again that the server has seen, so it is
/// stored before it leaves its shard. One of QoS 1 it sends until the only shard that wants it has stored
/// it. One with RETAIN goes by way of the owner of its topic, and is stored there before it goes on:
/// a publisher that does not come back would leave it retained, and unknown to a subscriber.
#[test]
fn a_message_is_stored_before_it_leaves_its_shard_unless_its_publisher_repeats_it() {
    let sessions = ["s0", "s1", "s2", "s3"];
    for (durable, retain, qos) in sessions
        .into_iter()
        .flat_map(|session| [(session, false), (session, true)])
        .flat_map(|(session, retain)| [(session, retain, 1), (session, retain, 2)])
    {
        each_with(stored, |mut cluster| {
            // Every shard wants the message for somebody whose session does not survive.
            for passing in ["c0", "c1", "c2", "c3", "c4", "c5"] {
                let client = cluster.client(passing);
                for filter in ["+", "a", "b", "c"] {
                    cluster.subscribe(client, filter, 1);
                }
            }
            let (publisher, _) = cluster.persistent("publisher");
            let (subscriber, _) = cluster.persistent(durable);
            let shards = cluster.shards() as u16;
            let shard_of = |id| ShardId::of_session(&SessionKey::new("", id), shards);
            for topic in ["a", "b", "c", "d", "e", "f"] {
                cluster.subscribe(subscriber, topic, 1);
                cluster.records.clear();
                cluster.publish_with(publisher, topic, "x", qos, |it| it.retain = retain);
                cluster.run();
                let accepted = cluster
                    .records
                    .iter()
                    .filter(|record| matches!(record, Record::MessageAccepted { .. }));
                let owner = ShardId::of_topic("", TopicName::new(topic).unwrap(), shards);
                let here = shard_of("publisher");
                let leaves = shard_of(durable) != here || retain && owner != here;
                let stored = match qos {
                    1 => retain && shard_of(durable) != owner,
                    _ => leaves,
                };
                let stored = usize::from(stored);
                assert_eq!(accepted.count(), stored, "{durable} {topic} {qos}");
            }
        });
    }
}

#[test]
fn a_message_that_more_than_one_shard_wants_is_stored_once() {
    each_with(stored, |mut cluster| {
        let mut shards = Vec::new();
        for session in ["s0", "s1", "s2", "s3", "s4"] {
            let (client, _) = cluster.persistent(session);
            cluster.subscribe(client, "t", 1);
            let key = SessionKey::new("", session);
            shards.push(ShardId::of_session(&key, cluster.shards() as u16));
        }
        shards.sort_unstable();
        shards.dedup();
        let (publisher, _) = cluster.persistent("publisher");
        cluster.records.clear();
        cluster.publish(publisher, "t", "x", 1);
        cluster.run();
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
        let count = |wanted: fn(&Record) -> bool| {
            let records = cluster.records.iter();
            records.filter(|record| wanted(record)).count()
        };
        assert_eq!(count(|it| matches!(it, Record::MessageStored { .. })), 1);
        let accepted = count(|it| matches!(it, Record::MessageAccepted { .. }));
        assert_eq!(accepted, usize::from(shards.len() > 1));
    });
}

/// CONNACK promises that a session present and a will survive; of a new session it promises that
/// none before it comes back.
#[test]
fn connack_waits_only_for_what_it_promises() {
    each_with(stored, |mut cluster| {
        cluster.auto_commit = false;
        let connect = persistent("durable");
        let client = cluster.connect(&connect);
        assert_eq!(cluster.packet(client), "connack 0x00");
        cluster.cut(client);
        let client = cluster.connect(&connect);
        assert_eq!(cluster.packet(client), "nothing");
        cluster.commit();
        assert_eq!(cluster.packet(client), "connack 0x00 present");

        // A restart publishes the will also where the session does not survive.
        let ends = Connect::new(Version::V5, "ends");
        for mut with_will in [persistent("mortal"), ends] {
            with_will.will = Some(crate::publish::will("wills", "gone"));
            let mortal = cluster.connect(&with_will);
            assert_eq!(cluster.packet(mortal), "nothing");
            cluster.commit();
            assert_eq!(cluster.packet(mortal), "connack 0x00");
        }

        // Its end is not stored when its client is back.
        let mut disconnect =
            avocet_codec::Disconnect::new(avocet_codec::ReasonCode::NORMAL_DISCONNECTION);
        disconnect.session_expiry_interval = Some(0);
        cluster.send(client, &Packet::Disconnect(disconnect));
        cluster.run();
        let fresh = Connect::new(Version::V5, "durable");
        let client = cluster.connect(&fresh);
        assert_eq!(cluster.packet(client), "nothing");
        cluster.commit();
        assert_eq!(cluster.packet(client), "connack 0x00");
        cluster.disconnect(client);
        let client = cluster.connect(&fresh);
        assert_eq!(cluster.packet(client), "connack 0x00");
    });
}

/// A deletion is acknowledged when it is stored, whoever asked for it first.
#[test]
fn a_retained_message_is_not_deleted_before_that_is_stored() {
    each_with(stored, |mut cluster| {
        let [first, second] = ["first", "second"].map(|id| cluster.client(id));
        cluster.publish_retained(first, "kept", "x", 1);
        assert_eq!(cluster.packets(first), ["puback 1 0x10"]);
        cluster.auto_commit = false;
        cluster.publish_retained(first, "kept", "", 1);
        cluster.run();
        cluster.publish_retained(second, "kept", "", 1);
        assert!(cluster.packets(second).is_empty());
        cluster.commit();
        assert_eq!(cluster.packets(second), ["puback 1 0x10"]);
    });
}

/// The same for one that nobody asked for, which is reported before it is as safe.
#[test]
fn a_retained_message_that_expired_is_not_deleted_before_that_is_safe() {
    each_with(stored, |mut cluster| {
        let [first, second] = ["first", "second"].map(|id| cluster.client(id));
        cluster.publish_with(first, "kept", "x", 1, |publish| {
            publish.retain = true;
            publish.message_expiry_interval = Some(60);
        });
        assert_eq!(cluster.packets(first), ["puback 1 0x10"]);
        cluster.levels.clear();
        cluster.advance(Duration::from_secs(61));
        assert_eq!(cluster.levels, [Level::Memory]);
        cluster.auto_commit = false;
        cluster.publish_retained(second, "kept", "", 1);
        assert!(cluster.packets(second).is_empty());
        assert_eq!(cluster.levels.iter().max(), Some(&Level::Fsync));
        cluster.commit();
        assert_eq!(cluster.packets(second), ["puback 1 0x10"]);
    });
}

/// While the store takes nothing, clients of 5.0 are told so, those of 3.1.1 get no
/// acknowledgement, and what need not be stored goes on.
#[test]
fn a_store_that_takes_nothing_stops_only_what_needs_it() {
    let states = [
        (avocet_engine::StoreState::Full, "0x97"),
        (avocet_engine::StoreState::Failed, "0x83"),
    ];
    for (state, code) in states {
        each_with(stored, |mut cluster| {
            let (subscriber, publisher) = prepared(&mut cluster);
            let guest = cluster.client("guest");
            cluster.subscribe(guest, "u", 2);
            let mut old = persistent("old");
            old.version = Version::V3_1_1;
            let old = cluster.client_with(&old);
            for engine in &mut cluster.engines {
                engine.set_store(state);
            }
            cluster.auto_commit = false;
            cluster.publish(publisher, "t/x", "q0", 0);
            cluster.publish(publisher, "t/x", "q1", 1);
            cluster.publish(publisher, "t/x", "q2", 2);
            cluster.publish(publisher, "u", "q1", 1);
            cluster.publish_retained(publisher, "kept", "q1", 1);
            let expected = [
                format!("puback 1 {code}"),
                "puback 3 0x00".into(),
                format!("puback 4 {code}"),
                format!("pubrec 2 {code}"),
            ];
            let mut packets = cluster.packets(publisher);
            packets.sort();
            assert_eq!(packets, expected);
            cluster.publish(old, "t/x", "old", 1);
            assert!(cluster.packets(old).is_empty());
            assert_eq!(cluster.dropped(DropReason::NotStored), 3);

            for engine in &mut cluster.engines {
                engine.set_store(avocet_engine::StoreState::Working);
            }
            cluster.commit();
            assert_eq!(cluster.packets(old), ["puback 1 0x00"]);
            assert_eq!(cluster.messages(subscriber), ["t/x=q0 q0", "t/x=old q1"]);
            assert_eq!(cluster.messages(guest), ["u=q1 q1"]);
            cluster.auto_commit = true;
            cluster.publish(publisher, "t/x", "q1", 1);
            assert_eq!(cluster.packets(publisher), ["puback 5 0x00"]);
        });
    }
}

/// What is recorded and not stored is bounded: who makes more of it waits, and nobody else.
#[test]
fn a_store_that_is_slow_pauses_who_needs_it() {
    let configure = |config: &mut EngineConfig| {
        stored(config);
        config.limits.uncommitted_bytes_max = 5_000;
        let connection = Arc::make_mut(&mut config.connection);
        connection.receive_maximum = std::num::NonZeroU16::new(1_000).unwrap();
    };
    each_with(configure, |mut cluster| {
        let (_, publisher) = prepared(&mut cluster);
        let guest = cluster.client("guest");
        cluster.subscribe(guest, "u", 0);
        cluster.auto_commit = false;
        let payload = "x".repeat(1_000);
        for _ in 0..30 {
            cluster.publish(publisher, "t/x", &payload, 1);
            cluster.run();
        }
        assert!(cluster.is_paused(publisher));
        let other = cluster.client("other");
        for _ in 0..30 {
            cluster.publish(other, "u", "x", 0);
        }
        assert_eq!(cluster.messages(guest).len(), 30);
        cluster.auto_commit = true;
        cluster.commit();
        assert_eq!(cluster.packets(publisher).len(), 30);
        assert!(!cluster.is_paused(publisher));
    });
}

/// A message waits for what its topic and its listener ask for, whichever is stricter.
#[test]
fn acknowledgements_wait_for_the_level_of_their_message() {
    fn configure(config: &mut EngineConfig) {
        stored(config);
        config.levels.topics = vec![
            ("mem/".into(), Level::Memory),
            ("os/".into(), Level::Os),
            ("os/safe/".into(), Level::Fsync),
        ];
    }
    each_with(configure, |mut cluster| {
        let (subscriber, _) = cluster.persistent("durable");
        cluster.subscribe(subscriber, "#", 2);
        let (publisher, _) = cluster.persistent("publisher");
        cluster.run();
        cluster.auto_commit = false;
        cluster.levels.clear();
        cluster.publish(publisher, "mem/x", "x", 1);
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
        assert_eq!(cluster.messages(subscriber), ["mem/x=x q1"]);
        cluster.publish(publisher, "mem/x", "y", 2);
        cluster.run();
        assert_eq!(cluster.packet_of(publisher, "pubrec"), "pubrec 2 0x00");
        assert_eq!(cluster.messages(subscriber), ["mem/x=y q2"]);
        cluster.commit();
        assert_eq!(cluster.packets(publisher), ["pubcomp 2 0x00"]);
        for (topic, level) in [
            ("os/x", Level::Os),
            ("os/safe/x", Level::Fsync),
            ("x", Level::Fsync),
        ] {
            cluster.levels.clear();
            cluster.publish(publisher, topic, "x", 1);
            assert!(cluster.packets(publisher).is_empty());
            assert!(cluster.levels.contains(&level));
            assert!(cluster.levels.iter().all(|it| *it <= level), "{topic}");
            cluster.commit();
            assert_eq!(cluster.packets(publisher).len(), 1);
        }
    });
    let strict = |config: &mut EngineConfig| {
        configure(config);
        config.levels.listeners = vec![(0, Level::Os), (1, Level::Fsync)];
    };
    each_with(strict, |mut cluster| {
        let (_, publisher) = prepared(&mut cluster);
        cluster.levels.clear();
        cluster.publish_retained(publisher, "mem/x", "x", 1);
        assert!(cluster.packets(publisher).is_empty());
        assert_eq!(cluster.levels.iter().max(), Some(&Level::Os));
    });
}
