use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{AckType, Connect, Disconnect, Packet, PacketId, ReasonCode, Version};
use avocet_engine::{DropReason, EngineConfig};
use avocet_session::{Limits, Overflow};

use crate::cluster::{Client, Cluster, ack, each, each_with, persistent};

fn sleeper(cluster: &mut Cluster) -> Client {
    let (client, _) = cluster.persistent("sleeper");
    cluster.subscribe(client, "news/#", 2);
    cluster.cut(client);
    cluster.client("publisher")
}

/// [MQTT5-4.5.0-1] [MQTT311-3.1.2-5]
#[test]
fn messages_wait_for_a_client_that_is_away() {
    each(|mut cluster| {
        let publisher = sleeper(&mut cluster);
        for (n, qos) in [(1, 1), (2, 0), (3, 2), (4, 1)] {
            cluster.publish(publisher, "news/x", &n.to_string(), qos);
        }
        cluster.run();
        let (client, present) = cluster.persistent("sleeper");
        assert!(present);
        assert_eq!(
            cluster.messages(client),
            ["news/x=1 q1", "news/x=3 q2", "news/x=4 q1"]
        );
        assert_eq!(cluster.dropped(DropReason::OfflineQoS0), 1);
        assert_eq!(cluster.counters().queued_messages, 0);
        assert_eq!(cluster.counters().queued_bytes, 0);
    });
}

#[test]
fn qos_0_waits_too_by_setting() {
    let queue = |config: &mut EngineConfig| limits(config).queue_qos0 = true;
    each_with(queue, |mut cluster| {
        let publisher = sleeper(&mut cluster);
        for (n, qos) in [(1, 1), (2, 0), (3, 2)] {
            cluster.publish(publisher, "news/x", &n.to_string(), qos);
        }
        cluster.run();
        let (client, _) = cluster.persistent("sleeper");
        assert_eq!(
            cluster.messages(client),
            ["news/x=1 q1", "news/x=2 q0", "news/x=3 q2"]
        );
    });
}

fn limits(config: &mut EngineConfig) -> &mut Limits {
    &mut Arc::make_mut(&mut config.connection).limits
}

#[test]
fn a_full_queue_drops_by_policy_and_counts() {
    for (overflow, kept) in [
        (
            Overflow::DropNewest,
            ["news/x=0 q1", "news/x=1 q1", "news/x=2 q1"],
        ),
        (
            Overflow::DropOldest,
            ["news/x=7 q1", "news/x=8 q1", "news/x=9 q1"],
        ),
    ] {
        let configure = |config: &mut EngineConfig| {
            limits(config).queued_messages_max = 3;
            limits(config).overflow = overflow;
        };
        each_with(configure, |mut cluster| {
            let publisher = sleeper(&mut cluster);
            for n in 0..10 {
                cluster.publish(publisher, "news/x", &n.to_string(), 1);
            }
            cluster.run();
            assert_eq!(cluster.dropped(DropReason::QueueFull), 7);
            assert_eq!(cluster.counters().queued_messages, 3);
            let (client, _) = cluster.persistent("sleeper");
            assert_eq!(cluster.messages(client), kept);
        });
    }
}

#[test]
fn all_queues_together_have_a_limit() {
    let configure = |config: &mut EngineConfig| config.limits.queued_messages_max = 2;
    each_with(configure, |mut cluster| {
        let publisher = sleeper(&mut cluster);
        for _ in 0..10 {
            cluster.publish(publisher, "news/x", "x", 1);
        }
        cluster.run();
        assert_eq!(cluster.dropped(DropReason::TotalFull), 8);
        let (client, _) = cluster.persistent("sleeper");
        assert_eq!(cluster.messages(client).len(), 2);
    });
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn messages_expire_while_they_wait() {
    each(|mut cluster| {
        let publisher = sleeper(&mut cluster);
        for (payload, seconds) in [("short", 10), ("long", 100)] {
            cluster.publish_with(publisher, "news/x", payload, 1, |publish| {
                publish.message_expiry_interval = Some(seconds);
            });
        }
        cluster.advance(Duration::from_secs(30));
        let (client, _) = cluster.persistent("sleeper");
        assert_eq!(cluster.messages(client), ["news/x=long q1 expires in 70"]);
        assert_eq!(cluster.dropped(DropReason::Expired), 1);
    });
}

/// [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn unacknowledged_messages_are_sent_again() {
    each(|mut cluster| {
        let (client, _) = cluster.persistent("forgetful");
        cluster.subscribe(client, "t", 2);
        cluster.set_acks(client, false);
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "t", "one", 1);
        cluster.publish(publisher, "t", "two", 2);
        cluster.publish(publisher, "t", "three", 2);
        assert_eq!(
            cluster.messages(client),
            ["t=one q1", "t=two q2", "t=three q2"]
        );
        // Packet Identifiers are given in order.
        cluster.send(client, &ack(AckType::Pubrec, PacketId::new(2).unwrap()));
        assert_eq!(cluster.packets(client), ["pubrel 2 0x00"]);
        cluster.cut(client);
        let (client, present) = cluster.persistent("forgetful");
        assert!(present);
        assert_eq!(
            cluster.packets(client),
            [
                "t=one q1 dup",
                "pubrel 2 0x00",
                "t=three q2 dup",
                "pubrel 3 0x00"
            ]
        );
        cluster.cut(client);
        let (client, _) = cluster.persistent("forgetful");
        assert!(cluster.packets(client).is_empty());
    });
}

/// [MQTT5-4.3.3-10] [MQTT311-4.3.3-2]
#[test]
fn qos_2_is_delivered_once_when_the_publisher_repeats_it() {
    each(|mut cluster| {
        let subscriber = cluster.client("subscriber");
        cluster.subscribe(subscriber, "t", 2);
        let (publisher, _) = cluster.persistent("publisher");
        cluster.set_acks(publisher, false);
        cluster.publish(publisher, "t", "once", 2);
        assert_eq!(cluster.packets(publisher), ["pubrec 1 0x00"]);
        cluster.cut(publisher);
        let (publisher, _) = cluster.persistent("publisher");
        cluster.publish_with(publisher, "t", "once", 2, |publish| publish.dup = true);
        assert_eq!(
            cluster.packets(publisher),
            ["pubrec 1 0x00", "pubcomp 1 0x00"]
        );
        assert_eq!(cluster.messages(subscriber), ["t=once q2"]);
        cluster.publish_with(publisher, "t", "twice", 2, |publish| {
            let id = PacketId::new(1).unwrap();
            publish.delivery = avocet_codec::Delivery::ExactlyOnce(id);
        });
        assert_eq!(cluster.messages(subscriber), ["t=twice q2"]);
    });
}

/// [MQTT5-3.1.2-23] [MQTT5-3.1.2.11.2]
#[test]
fn sessions_end_when_their_time_has_passed() {
    each(|mut cluster| {
        let mut connect = persistent("mayfly");
        connect.properties.session_expiry_interval = 60;
        let client = cluster.client_with(&connect);
        cluster.subscribe(client, "a/#", 1);
        cluster.cut(client);
        cluster.advance(Duration::from_secs(59));
        let client = cluster.connect(&connect);
        assert_eq!(cluster.packet(client), "connack 0x00 present");
        cluster.advance(Duration::from_secs(1000));
        cluster.cut(client);
        cluster.advance(Duration::from_secs(61));
        assert_eq!(cluster.counters().sessions_disconnected, 0);
        assert_eq!(cluster.counters().sessions_expired, 1);
        assert_eq!(cluster.counters().subscriptions, 0);
        let client = cluster.connect(&connect);
        assert_eq!(cluster.packet(client), "connack 0x00");
    });
}

/// [MQTT5-3.14.2.2.2]
#[test]
fn disconnect_may_change_the_expiry() {
    each(|mut cluster| {
        let leave = |cluster: &mut Cluster, client, seconds| {
            let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            disconnect.session_expiry_interval = Some(seconds);
            cluster.send(client, &Packet::Disconnect(disconnect));
            cluster.run();
        };
        let (client, _) = cluster.persistent("guest");
        leave(&mut cluster, client, 10);
        cluster.advance(Duration::from_secs(9));
        let (client, present) = cluster.persistent("guest");
        assert!(present);
        leave(&mut cluster, client, 0);
        let (client, present) = cluster.persistent("guest");
        assert!(!present);
        cluster.disconnect(client);
        let client = cluster.client("guest");
        leave(&mut cluster, client, 10);
        assert_eq!(cluster.packets(client), ["disconnect 0x82"]);
    });
}

/// [MQTT311-3.1.2-4] [MQTT311-3.1.2-6]
#[test]
fn clean_session_decides_in_3_1_1() {
    each(|mut cluster| {
        for version in [Version::V3_1, Version::V3_1_1] {
            let id = format!("old {version}");
            let mut connect = Connect::new(version, &id);
            connect.clean_start = false;
            let client = cluster.client_with(&connect);
            cluster.subscribe(client, "t", 1);
            cluster.disconnect(client);
            let publisher = cluster.client("publisher");
            cluster.publish(publisher, "t", "kept", 1);
            cluster.run();
            let client = cluster.client_with(&connect);
            assert_eq!(cluster.messages(client), ["t=kept q1"]);
            cluster.disconnect(client);
            connect.clean_start = true;
            let client = cluster.client_with(&connect);
            cluster.disconnect(client);
            assert_eq!(cluster.counters().subscriptions, 0);
        }
    });
}

#[test]
fn the_expiry_interval_has_a_limit() {
    let configure = |config: &mut EngineConfig| config.limits.session_expiry_interval_max = 100;
    each_with(configure, |mut cluster| {
        let client = cluster.connect(&persistent("eternal"));
        let frames = cluster.frames(client);
        let Packet::Connack(connack) = frames[0].packet() else {
            panic!("{frames:?}");
        };
        assert_eq!(connack.properties.session_expiry_interval, Some(100));
        cluster.cut(client);
        cluster.advance(Duration::from_secs(101));
        assert_eq!(cluster.counters().sessions_expired, 1);
    });
}

/// No session expires while the wall clock is behind the last time seen.
#[test]
fn no_session_expires_while_the_clock_is_behind() {
    each(|mut cluster| {
        let mut connect = persistent("mayfly");
        connect.properties.session_expiry_interval = 60;
        let client = cluster.client_with(&connect);
        cluster.cut(client);
        let unix = cluster.now.unix;
        cluster.now.unix = avocet_session::UnixTime::from_millis(1_000);
        cluster.advance(Duration::from_secs(1_000));
        assert_eq!(cluster.counters().sessions_expired, 0);
        cluster.now.unix = unix + Duration::from_secs(30);
        cluster.advance(Duration::from_secs(120));
        assert_eq!(cluster.counters().sessions_expired, 1);
    });
}

/// [MQTT5-3.3.2-5] The clock is set back while some shards have read it lately and others have not: no
/// message expires on its way between them, and each does when its time has passed.
#[test]
fn messages_expire_in_their_time_while_the_clock_is_behind() {
    each(|mut cluster| {
        let clients: Vec<_> = (0..6).map(|n| cluster.client(&format!("c{n}"))).collect();
        for client in &clients {
            cluster.subscribe(*client, "#", 1);
            cluster.messages(*client);
        }
        for (n, busy) in clients.iter().enumerate() {
            cluster.now = cluster.now + Duration::from_secs(40);
            cluster.unsubscribe(*busy, "no such filter");
            cluster.now.unix = avocet_session::UnixTime::from_millis(1_000);
            for publisher in &clients {
                cluster.publish_with(*publisher, &format!("{n}"), "x", 1, |publish| {
                    publish.retain = true;
                    publish.message_expiry_interval = Some(20);
                });
                cluster.run();
                for client in &clients {
                    assert_eq!(
                        cluster.messages(*client),
                        [format!("{n}=x q1 expires in 20")]
                    );
                }
            }
            assert_eq!(cluster.counters().retained_messages, 1);
            cluster.advance(Duration::from_secs(21));
            assert_eq!(cluster.counters().retained_messages, 0);
        }
    });
}

/// What a client had not read of QoS 0 does not wait for its return, unless queues keep it.
#[test]
fn qos_0_does_not_outlive_the_connection() {
    for queue_qos0 in [false, true] {
        let configure = |config: &mut EngineConfig| limits(config).queue_qos0 = queue_qos0;
        each_with(configure, |mut cluster| {
            let (client, _) = cluster.persistent("reader");
            cluster.subscribe(client, "t", 1);
            cluster.set_reads(client, false);
            let publisher = cluster.client("publisher");
            for qos in [0, 1, 0] {
                cluster.publish(publisher, "t", "x", qos);
            }
            cluster.run();
            cluster.cut(client);
            let (client, _) = cluster.persistent("reader");
            let (received, dropped) = if queue_qos0 { (3, 0) } else { (1, 2) };
            assert_eq!(cluster.messages(client).len(), received);
            assert_eq!(cluster.dropped(DropReason::OfflineQoS0), dropped);
        });
    }
}
