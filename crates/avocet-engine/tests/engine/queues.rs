//! Queues of which the store has the most: what comes back from it, when, and what cannot be read.

use avocet_codec::{AckType, Packet, PacketId, Version};
use avocet_engine::{DropReason, EngineConfig, Event, Record};

use crate::cluster::{Cluster, ack, each_with, persistent};
use crate::durability::resident;

/// Of a long queue only the head is in memory; the rest is fetched when its turn comes.
#[test]
fn long_queues_come_back_from_the_store() {
    each_with(resident::<4>, |mut cluster| {
        let (client, _) = cluster.persistent("sleeper");
        cluster.subscribe(client, "t", 1);
        cluster.disconnect(client);
        let publisher = cluster.client("publisher");
        for n in 0..50 {
            cluster.publish(publisher, "t", &n.to_string(), 1);
        }
        cluster.run();
        let (client, _) = cluster.persistent("sleeper");
        cluster.serve_fetches();
        let expected: Vec<_> = (0..50).map(|n| format!("t={n} q1")).collect();
        assert_eq!(cluster.messages(client), expected);
        let finished = |record: &&Record| matches!(record, Record::Finished { .. });
        assert_eq!(cluster.records.iter().filter(finished).count(), 50);
    });
}

/// The group learns of the end of each message, wherever the member's session had it.
#[test]
fn a_group_is_told_of_messages_that_only_the_store_had() {
    let configure = |config: &mut EngineConfig| {
        resident::<4>(config);
        config.limits.group_window = 10;
    };
    each_with(configure, |mut cluster| {
        let (member, _) = cluster.persistent("member");
        cluster.subscribe(member, "$share/s/t", 1);
        cluster.set_reads(member, false);
        let publisher = cluster.client("publisher");
        for n in 0..30 {
            cluster.publish(publisher, "t", &n.to_string(), 1);
        }
        cluster.run();
        cluster.set_reads(member, true);
        cluster.serve_fetches();
        let expected: Vec<_> = (0..30).map(|n| format!("t={n} q1")).collect();
        assert_eq!(cluster.messages(member), expected);
        let finished = |record: &&Record| matches!(record, Record::GroupFinished { .. });
        assert_eq!(cluster.records.iter().filter(finished).count(), 30);
    });
}

/// What only the store has for a member goes back with the rest, and the group has it when the
/// member's session ends [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
#[test]
fn what_only_the_store_has_for_a_lost_member_goes_to_others() {
    each_with(resident::<2>, |mut cluster| {
        let mut connect = persistent("slow");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
        let slow = cluster.connect(&connect);
        cluster.subscribe(slow, "$share/s/t", 2);
        cluster.set_acks(slow, false);
        let publisher = cluster.client("publisher");
        for n in 0..10 {
            cluster.publish(publisher, "t", &n.to_string(), 1 + n % 2);
        }
        assert_eq!(cluster.messages(slow), ["t=0 q1", "t=1 q2"]);
        let (other, _) = cluster.persistent("other");
        cluster.subscribe(other, "$share/s/t", 2);
        cluster.cut(slow);
        // A clean start ends the session of the one that was lost.
        connect.clean_start = true;
        let slow = cluster.connect(&connect);
        cluster.serve_fetches();
        let expected = [0, 2, 3, 4, 5, 6, 7, 8, 9].map(|n| format!("t={n} q{}", 1 + n % 2));
        assert_eq!(cluster.messages(other), expected);
        assert!(cluster.messages(slow).is_empty());
        assert_eq!(cluster.counters().queued_messages, 0);
    });
}

/// A page of the store that was on its way when its messages went back to their group is not
/// delivered.
#[test]
fn a_page_that_comes_late_has_nothing_that_went_back_to_a_group() {
    each_with(resident::<1>, |mut cluster| {
        let (slow, _) = cluster.persistent("slow");
        cluster.subscribe(slow, "$share/s/t", 2);
        cluster.subscribe(slow, "own", 2);
        let publisher = cluster.client("publisher");
        cluster.set_reads(slow, false);
        for n in 0..4 {
            cluster.publish(publisher, "t", &n.to_string(), 2);
            cluster.publish(publisher, "own", &n.to_string(), 2);
        }
        cluster.set_reads(slow, true);
        // The first page is asked for, and not here.
        cluster.run();
        let first = cluster.messages(slow);
        cluster.cut(slow);
        let (other, _) = cluster.persistent("other");
        cluster.subscribe(other, "$share/s/t", 2);
        let (slow, present) = cluster.persistent("slow");
        assert!(present);
        cluster.serve_fetches();
        let all: Vec<String> = [cluster.messages(slow), cluster.messages(other), first].concat();
        let count = |payload: String| all.iter().filter(|it| it.starts_with(&payload)).count();
        for n in 0..4 {
            assert_eq!(count(format!("t={n}")), 1, "{all:?}");
            assert_eq!(count(format!("own={n}")), 1, "{all:?}");
        }
    });
}

/// A message that comes back from the store waits for no commit of others.
#[test]
fn fetched_messages_of_qos_2_leave_whatever_was_committed_meanwhile() {
    each_with(resident::<1>, |mut cluster| {
        let (sleeper, _) = cluster.persistent("sleeper");
        cluster.subscribe(sleeper, "t", 2);
        cluster.disconnect(sleeper);
        let (other, _) = cluster.persistent("other");
        cluster.subscribe(other, "t", 1);
        for payload in ["0", "1", "2", "3"] {
            cluster.publish(other, "t", payload, 2);
        }
        cluster.run();
        let (sleeper, _) = cluster.persistent("sleeper");
        cluster.run();
        cluster.publish(other, "t", "4", 2);
        cluster.serve_fetches();
        let expected = ["0", "1", "2", "3", "4"].map(|payload| format!("t={payload} q2"));
        assert_eq!(cluster.messages(sleeper), expected);
    });
}

/// What the store cannot read is lost alone, counted and told.
#[test]
fn a_queue_goes_on_without_messages_that_cannot_be_read() {
    for qos in [1, 2] {
        each_with(resident::<2>, |mut cluster| {
            let mut store = crate::store::Store::default();
            store.unreadable = vec!["4", "5", "9"];
            cluster.store = Some(store);
            let (away, _) = cluster.persistent("durable");
            cluster.subscribe(away, "t", qos);
            cluster.cut(away);
            let publisher = cluster.client("publisher");
            for n in 0..10 {
                cluster.publish(publisher, "t", &n.to_string(), qos);
                cluster.run();
            }
            let (subscriber, _) = cluster.persistent("durable");
            let expected = [0, 1, 2, 3, 6, 7, 8].map(|n| format!("t={n} q{qos}"));
            assert_eq!(cluster.messages(subscriber), expected);
            assert_eq!(cluster.dropped(DropReason::Unreadable), 3);
            let told = cluster.events.iter().map(|event| match event {
                Event::Unreadable { session, messages } => {
                    assert_eq!(session.client_id(), "durable");
                    *messages
                }
                _ => 0,
            });
            assert_eq!(told.sum::<u64>(), 3);
            assert_eq!(cluster.counters().queued_messages, 0);
            assert_eq!(cluster.store.unwrap().holds().0, 0);
        });
    }
}

/// [MQTT5-4.3.3-6] For a message whose PUBREC came, the store need not read anything.
#[test]
fn pubrel_follows_pubrec_though_the_message_cannot_be_read() {
    let mut cluster = Cluster::new(1, None, resident::<2>);
    cluster.store = Some(crate::store::Store::default());
    let (subscriber, _) = cluster.persistent("durable");
    cluster.subscribe(subscriber, "t", 2);
    cluster.set_acks(subscriber, false);
    let publisher = cluster.client("publisher");
    cluster.publish(publisher, "t", "x", 2);
    cluster.run();
    cluster.send(subscriber, &ack(AckType::Pubrec, PacketId::new(1).unwrap()));
    cluster.run();
    let log = std::mem::take(&mut cluster.log);
    let now = cluster.now;
    let mut cluster = Cluster::restored(1, resident::<2>, log, usize::MAX, now);
    cluster.store.as_mut().unwrap().unreadable = vec!["x"];
    let (subscriber, _) = cluster.persistent("durable");
    assert_eq!(cluster.packets(subscriber), ["pubrel 1 0x00"]);
    assert_eq!(cluster.dropped(DropReason::Unreadable), 0);
    assert_eq!(cluster.store.unwrap().holds().0, 0);
}

/// A store that can read nothing of a session keeps it, and the session goes on with what comes.
#[test]
fn a_session_goes_on_without_a_queue_that_cannot_be_read() {
    each_with(resident::<2>, |mut cluster| {
        let (away, _) = cluster.persistent("durable");
        cluster.subscribe(away, "t", 1);
        cluster.cut(away);
        let publisher = cluster.client("publisher");
        for n in 0..5 {
            cluster.publish(publisher, "t", &n.to_string(), 1);
        }
        cluster.run();
        let (subscriber, _) = cluster.persistent("durable");
        assert_eq!(cluster.messages(subscriber), ["t=0 q1", "t=1 q1"]);
        let (session, from) = cluster.fetches.pop().unwrap();
        let now = cluster.now;
        for engine in &mut cluster.engines {
            engine.handle_fetched(&session, from.sequence, Vec::new(), now);
        }
        cluster.publish(publisher, "t", "5", 1);
        assert_eq!(cluster.messages(subscriber), ["t=5 q1"]);
        assert_eq!(cluster.dropped(DropReason::Unreadable), 3);
    });
}

/// A page that was asked for a session is not for a later one of the same name.
#[test]
fn a_page_that_comes_late_is_not_for_another_session() {
    each_with(resident::<2>, |mut cluster| {
        let fill = |cluster: &mut Cluster, payload: &str| {
            let (away, _) = cluster.persistent("durable");
            cluster.subscribe(away, "t", 1);
            cluster.cut(away);
            let publisher = cluster.client("publisher");
            for n in 0..4 {
                cluster.publish(publisher, "t", &format!("{payload}{n}"), 1);
            }
            cluster.run();
            cluster.persistent("durable").0
        };
        let old = fill(&mut cluster, "old");
        let (late, from) = cluster.fetches.pop().unwrap();
        assert_eq!(from.sequence, 2);
        cluster.cut(old);
        let mut fresh = persistent("durable");
        fresh.clean_start = true;
        let fresh = cluster.client_with(&fresh);
        cluster.cut(fresh);
        let subscriber = fill(&mut cluster, "new");
        assert_eq!(cluster.fetches.len(), 1);
        let now = cluster.now;
        for engine in &mut cluster.engines {
            engine.handle_fetched(&late, from.sequence + 2, Vec::new(), now);
        }
        cluster.run();
        // What came meanwhile is asked for still.
        cluster.records.retain(|record| match record {
            Record::MessageStored { message, .. } => !message.payload().starts_with(b"old"),
            _ => true,
        });
        assert_eq!(cluster.messages(subscriber), ["t=new0 q1", "t=new1 q1"]);
        assert_eq!(cluster.counters().queued_messages, 2);
    });
}

/// Behind what a restart gave back, the store has new messages too, and gives them back before they
/// are stored: after another crash a Packet Identifier that was seen would be that of another
/// message, which the client would take for the first one [MQTT5-4.3.3-2].
#[test]
fn behind_a_restored_queue_a_message_of_qos_2_is_stored_before_it_leaves() {
    let old = ["0", "1", "2", "3", "4"];
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, None, resident::<2>);
        cluster.store = Some(crate::store::Store::default());
        let mut connect = persistent("durable");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        let subscriber = cluster.client_with(&connect);
        cluster.subscribe(subscriber, "t", 2);
        cluster.set_acks(subscriber, false);
        let publisher = cluster.client("publisher");
        for payload in old {
            cluster.publish(publisher, "t", payload, 1);
        }
        cluster.run();
        let log = std::mem::take(&mut cluster.log);
        let now = cluster.now;
        let mut cluster = Cluster::restored(shards, resident::<2>, log, usize::MAX, now);
        let subscriber = cluster.open(Version::V5);
        cluster.set_acks(subscriber, false);
        cluster.send(subscriber, &Packet::Connect(connect));
        let publisher = cluster.client("publisher");
        cluster.auto_commit = false;
        cluster.publish(publisher, "t", "new", 2);
        assert_eq!(cluster.messages(subscriber), ["t=0 q1 dup"]);
        cluster.set_acks(subscriber, true);
        cluster.send(subscriber, &ack(AckType::Puback, PacketId::new(1).unwrap()));
        cluster.run();
        let dup = |payload: &&str| format!("t={payload} q1 dup");
        let rest: Vec<_> = old.iter().skip(1).map(dup).collect();
        assert_eq!(cluster.messages(subscriber), rest);
        cluster.commit();
        assert_eq!(cluster.messages(subscriber), ["t=new q2"]);
    }
}

/// A group learns what became of a message that was in the store only, whatever a QoS 0 message
/// before it came to.
#[test]
fn a_dropped_qos_0_message_leaves_the_marks_of_others() {
    let configure = |config: &mut EngineConfig| {
        resident::<1>(config);
        config.limits.group_window = 2;
    };
    each_with(configure, |mut cluster| {
        let mut connect = persistent("member");
        connect.properties.maximum_packet_size = std::num::NonZeroU32::new(100);
        let member = cluster.client_with(&connect);
        cluster.subscribe(member, "$share/s/t/#", 1);
        cluster.subscribe(member, "t/#", 1);
        let publisher = cluster.client("publisher");
        let large = "x".repeat(200);
        for n in 0..10 {
            cluster.publish(publisher, "t/1", &n.to_string(), 1);
            cluster.publish(publisher, "t/0", &large, 0);
        }
        cluster.run();
        while !cluster.fetches.is_empty() {
            cluster.serve_fetches();
            cluster.run();
        }
        assert_eq!(cluster.messages(member).len(), 20);
        assert_eq!(cluster.counters().queued_messages, 0);
    });
}
