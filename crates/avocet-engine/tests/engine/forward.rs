//! Messages that travel together to another shard.

use core::num::NonZeroU16;

use avocet_codec::{Connect, Delivery, Packet, PacketId, Version};
use avocet_engine::{Durability, EngineConfig, SessionKey, ShardId};

use crate::cluster::{Client, Cluster, each_with, persistent};

/// Two shards, with a publisher in one of them.
fn two_shards(configure: impl Fn(&mut EngineConfig)) -> (Cluster, Client) {
    let mut cluster = Cluster::new(2, None, configure);
    let (publisher, _) = cluster.persistent("publisher");
    (cluster, publisher)
}

/// A Client Identifier of the other shard.
fn elsewhere(cluster: &Cluster, client: Client, name: &str) -> String {
    let mut ids = (0..).map(|n| format!("{name} {n}"));
    ids.find(|id| {
        let shard = ShardId::of_session(&SessionKey::new("", id), 2);
        shard.index() != cluster.shard(client)
    })
    .unwrap()
}

/// A client of the other shard.
fn client_elsewhere(cluster: &mut Cluster, client: Client, name: &str) -> Client {
    let id = elsewhere(cluster, client, name);
    cluster.client(&id)
}

#[test]
fn messages_that_travel_together_are_one_value_and_have_one_answer() {
    for qos in 0..3 {
        let (mut cluster, publisher) = two_shards(|_| {});
        let subscriber = client_elsewhere(&mut cluster, publisher, "subscriber");
        cluster.subscribe(subscriber, "+", 2);
        let (here, there) = (cluster.shard(publisher), cluster.shard(subscriber));
        for n in 0..20 {
            cluster.publish(publisher, ["a", "b"][n / 2 % 2], &n.to_string(), qos);
        }
        cluster.turn(here);
        assert_eq!(cluster.mail(there).len(), 1, "QoS {qos}");
        cluster.turn(there);
        // Nobody waits for the answer to QoS 0.
        assert_eq!(cluster.mail(here), [qos == 0], "QoS {qos}");
        cluster.turn(here);
        let packets = cluster.packets(publisher);
        let acks = packets.iter().filter(|it| it.ends_with(" 0x00"));
        // PUBACK; or PUBREC, and PUBCOMP.
        assert_eq!(acks.count(), 20 * usize::from(qos));
        let expected: Vec<_> = (0..20)
            .map(|n| format!("{}={n} q{qos}", ["a", "b"][n / 2 % 2]))
            .collect();
        cluster.run();
        assert_eq!(cluster.messages(subscriber), expected);
    }
}

/// One that changes its mind is not told of messages that were on their way.
#[test]
fn messages_that_travel_together_are_answered_each_for_itself() {
    for qos in 1..3 {
        let (mut cluster, publisher) = two_shards(|_| {});
        let stays = client_elsewhere(&mut cluster, publisher, "stays");
        let goes = client_elsewhere(&mut cluster, publisher, "goes");
        cluster.subscribe(stays, "a", 2);
        cluster.subscribe(goes, "b", 2);
        for topic in ["a", "b", "b", "a", "b", "a"] {
            cluster.publish(publisher, topic, "x", qos);
        }
        let here = cluster.shard(publisher);
        cluster.turn(here);
        cluster.cut(goes);
        let mut packets = cluster.packets(publisher);
        packets.retain(|packet| packet.starts_with("pub") && !packet.starts_with("pubcomp"));
        let name = ["puback", "pubrec"][usize::from(qos) - 1];
        let codes = ["0x00", "0x10", "0x10", "0x00", "0x10", "0x00"];
        let expected = (1..)
            .zip(codes)
            .map(|(n, code)| format!("{name} {n} {code}"));
        assert_eq!(packets, expected.collect::<Vec<_>>());
        assert_eq!(cluster.messages(stays).len(), 3);
    }
}

/// Behind one with another QoS, with RETAIN, or for others too, the next ones travel apart from those
/// before it, so that none overtakes another.
#[test]
fn messages_that_do_not_travel_together_keep_their_order() {
    let (mut cluster, publisher) = two_shards(|_| {});
    let there = client_elsewhere(&mut cluster, publisher, "there");
    let here = cluster.client("publisher's neighbour");
    cluster.subscribe(there, "t/#", 0);
    cluster.subscribe(here, "t/both", 0);
    for (n, (qos, topic)) in [
        (1, "t/one"),
        (1, "t/both"),
        (1, "t/one"),
        (2, "t/one"),
        (0, "t/one"),
        (1, "t/one"),
        (0, "t/both"),
        (2, "t/one"),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.publish(publisher, topic, &n.to_string(), qos);
    }
    cluster.run();
    let messages = cluster.messages(there);
    let numbers: Vec<_> = messages
        .iter()
        .filter_map(|it| it.split(['=', ' ']).nth(1))
        .collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

/// The answer to QoS 2 that comes when the connection is gone is that of the next one.
#[test]
fn a_message_of_qos_2_that_travelled_is_not_taken_again() {
    for durability in [Durability::Memory, Durability::Stored] {
        let (mut cluster, publisher) = two_shards(|config| config.durability = durability);
        let subscriber = client_elsewhere(&mut cluster, publisher, "subscriber");
        cluster.subscribe(subscriber, "t", 2);
        cluster.publish(publisher, "t", "x", 2);
        let here = cluster.shard(publisher);
        cluster.turn(here);
        cluster.cut(publisher);
        let (again, present) = cluster.persistent("publisher");
        assert!(present);
        cluster.publish_with(again, "t", "x", 2, |publish| {
            publish.dup = true;
            publish.delivery = Delivery::ExactlyOnce(PacketId::new(1).unwrap());
        });
        cluster.run();
        assert_eq!(cluster.packets(again)[0], "pubrec 1 0x00");
        assert_eq!(cluster.messages(subscriber), ["t=x q2"]);
    }
}

/// A packet of QoS 1 that travelled has a Packet Identifier of its receiver, and neither DUP nor Topic
/// Alias of its publisher, in which form ever it is kept [MQTT5-3.3.1-3] [MQTT5-2.2.1-4].
#[test]
fn packets_that_travelled_are_their_receivers() {
    let (mut cluster, publisher) = two_shards(|_| {});
    let id = elsewhere(&cluster, publisher, "subscriber");
    for (subscriber, qos) in [
        (Connect::new(Version::V5, &id), 1),
        (Connect::new(Version::V5, &id), 0),
        (persistent(&id), 1),
    ] {
        let subscriber = cluster.connect(&subscriber);
        cluster.set_acks(subscriber, false);
        cluster.subscribe(subscriber, "t", qos);
        cluster.packets(subscriber);
        for n in 0..6_u16 {
            cluster.publish_with(publisher, "t", &n.to_string(), 1, |publish| {
                publish.dup = n % 2 == 1;
                publish.topic_alias = (n == 2).then(|| NonZeroU16::new(1).unwrap());
                publish.delivery = Delivery::AtLeastOnce(PacketId::new(100 + n).unwrap());
            });
        }
        cluster.run();
        let codes = cluster.packets(publisher);
        let expected = (100..106).map(|id| format!("puback {id} 0x00"));
        assert_eq!(codes, expected.collect::<Vec<_>>());
        let frames = cluster.frames(subscriber);
        let came = frames.iter().map(|frame| match frame.packet() {
            Packet::Publish(publish) => {
                let id = publish.packet_id().map(PacketId::get);
                (
                    id,
                    publish.dup,
                    publish.topic_alias,
                    publish.payload.to_vec(),
                )
            }
            other => panic!("{other:?}"),
        });
        let expected = (0..6).map(|n: u16| {
            let id = (qos > 0).then_some(n + 1);
            (id, false, None, n.to_string().into_bytes())
        });
        assert_eq!(came.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        cluster.cut(subscriber);
    }
}

/// The other shard stores what travels to it, and the acknowledgement waits for that.
#[test]
fn messages_that_travel_together_are_acknowledged_when_they_are_stored() {
    let stored = |config: &mut EngineConfig| config.durability = Durability::Stored;
    let (mut cluster, publisher) = two_shards(stored);
    let id = elsewhere(&cluster, publisher, "subscriber");
    let (subscriber, _) = cluster.persistent(&id);
    cluster.subscribe(subscriber, "t", 1);
    cluster.set_acks(subscriber, false);
    cluster.auto_commit = false;
    for n in 0..5 {
        cluster.publish(publisher, "t", &n.to_string(), 1);
    }
    cluster.run();
    let (here, there) = (cluster.shard(publisher), cluster.shard(subscriber));
    assert_eq!(cluster.commits[here].len(), 0);
    assert_eq!(cluster.commits[there].len(), 1);
    assert_eq!(cluster.packets(publisher), [""; 0]);
    cluster.commit();
    assert_eq!(cluster.packets(publisher).len(), 5);
}

/// Packets of QoS 0 to one topic are queued all at once, and no more of them than there is room for.
#[test]
fn packets_that_travel_together_keep_to_the_limits() {
    let limit_of_one = |config: &mut EngineConfig| {
        std::sync::Arc::make_mut(&mut config.connection)
            .limits
            .queued_messages_max = 7;
    };
    let limit_of_all = |config: &mut EngineConfig| config.limits.queued_messages_max = 7;
    for configure in [
        &limit_of_one as &dyn Fn(&mut EngineConfig),
        &limit_of_all as &dyn Fn(&mut EngineConfig),
    ] {
        each_with(configure, |mut cluster| {
            let subscriber = cluster.client_with(&Connect::new(Version::V3_1_1, "subscriber"));
            cluster.subscribe(subscriber, "t", 0);
            let publisher = cluster.client_with(&Connect::new(Version::V3_1_1, "publisher"));
            cluster.set_reads(subscriber, false);
            for n in 0..20 {
                cluster.publish(publisher, "t", &n.to_string(), 0);
            }
            cluster.run();
            assert_eq!(cluster.counters().queued_messages, 7);
            cluster.set_reads(subscriber, true);
            cluster.run();
            let expected: Vec<_> = (0..7).map(|n| format!("t={n} q0")).collect();
            assert_eq!(cluster.messages(subscriber), expected);
        });
    }
}

#[test]
fn a_shard_wants_credit_while_a_connection_waits_for_it() {
    let (mut cluster, publisher) = two_shards(|config| config.limits.forwards_max = 4);
    let subscriber = client_elsewhere(&mut cluster, publisher, "subscriber");
    cluster.subscribe(subscriber, "t", 0);
    let (here, there) = (cluster.shard(publisher), cluster.shard(subscriber));
    for gone in [false, true] {
        for n in 0..6 {
            cluster.publish(publisher, "t", &n.to_string(), 0);
        }
        assert!(!cluster.engines[here].wants_credit());
        cluster.turn(here);
        assert!(cluster.engines[here].wants_credit() && cluster.is_paused(publisher));
        if gone {
            cluster.cut(publisher);
        } else {
            cluster.turn(there);
            cluster.turn(here);
            cluster.run();
        }
        assert!(!cluster.engines[here].wants_credit());
    }
}
