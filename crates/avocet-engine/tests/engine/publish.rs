use avocet_codec::{
    Connect, MessageProperties, MessagePropertiesParts, Packet, PayloadFormat, TopicName,
    UserProperty, Version, Will,
};
use avocet_engine::DropReason;

use crate::cluster::{each, each_with};

pub(crate) fn will<'a>(topic: &'a str, payload: &'a str) -> Will<'a> {
    Will::new(TopicName::new(topic).unwrap(), payload.as_bytes())
}

/// [MQTT5-3.8.4-8] [MQTT5-4.3.1-1] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2] [MQTT311-3.8.4-6]
#[test]
fn delivers_with_the_lower_qos_of_publish_and_subscription() {
    each(|mut cluster| {
        let publisher = cluster.client("publisher");
        for granted in 0..=2 {
            let subscriber = cluster.client(&format!("subscriber {granted}"));
            assert_eq!(
                cluster.subscribe(subscriber, "a/b", granted),
                format!("suback {granted:#04x}")
            );
            for qos in 0..=2 {
                cluster.publish(publisher, "a/b", &format!("{qos}"), qos);
            }
            let expected: Vec<_> = (0..=2)
                .map(|qos: u8| format!("a/b={qos} q{}", qos.min(granted)))
                .collect();
            assert_eq!(cluster.messages(subscriber), expected);
        }
    });
}

#[test]
fn versions_talk_to_each_other() {
    each(|mut cluster| {
        let versions = [Version::V3_1, Version::V3_1_1, Version::V5];
        let clients: Vec<_> = versions
            .iter()
            .map(|version| {
                let id = format!("client {version}");
                let client = cluster.client_with(&Connect::new(*version, &id));
                cluster.subscribe(client, "room/+", 2);
                client
            })
            .collect();
        for client in &clients {
            cluster.publish(*client, "room/1", "hello", 2);
        }
        for client in &clients {
            assert_eq!(cluster.messages(*client), ["room/1=hello q2"; 3]);
        }
    });
}

#[test]
fn qos_0_arrives_in_order_in_every_version() {
    each(|mut cluster| {
        let versions = [Version::V3_1, Version::V3_1_1, Version::V5];
        let clients: Vec<_> = versions
            .iter()
            .map(|version| {
                let id = format!("client {version}");
                let client = cluster.client_with(&Connect::new(*version, &id));
                cluster.subscribe(client, "room/+", 1);
                client
            })
            .collect();
        for publisher in &clients {
            for (payload, qos) in [("1", 0), ("2", 0), ("3", 1), ("4", 0)] {
                cluster.publish(*publisher, "room/1", payload, qos);
            }
            let expected = ["room/1=1 q0", "room/1=2 q0", "room/1=3 q1", "room/1=4 q0"];
            for client in &clients {
                assert_eq!(cluster.messages(*client), expected);
            }
        }
    });
}

/// What a topic matched is remembered, but not for longer than it is true.
#[test]
fn a_change_of_subscriptions_counts_at_once_for_a_topic_that_repeats() {
    each(|mut cluster| {
        let publisher = cluster.client("publisher");
        let subscribers: Vec<_> = (0..6)
            .map(|n| cluster.client(&format!("subscriber {n}")))
            .collect();
        let repeat = |cluster: &mut crate::cluster::Cluster, served: &[_]| {
            for _ in 0..3 {
                cluster.publish(publisher, "a/b", "x", 0);
            }
            for subscriber in &subscribers {
                let copies = if served.contains(subscriber) { 3 } else { 0 };
                assert_eq!(cluster.messages(*subscriber).len(), copies);
            }
        };
        repeat(&mut cluster, &[]);
        for (n, subscriber) in subscribers.iter().enumerate() {
            let filter = if n % 2 == 0 { "a/b" } else { "a/+" };
            cluster.subscribe(*subscriber, filter, 0);
            repeat(&mut cluster, &subscribers[..=n]);
        }
        for (n, subscriber) in subscribers.iter().enumerate() {
            let filter = if n % 2 == 0 { "a/b" } else { "a/+" };
            cluster.unsubscribe(*subscriber, filter);
            repeat(&mut cluster, &subscribers[n + 1..]);
        }
    });
}

/// [MQTT5-3.4.2-1]
#[test]
fn tells_5_0_publishers_that_nobody_subscribed() {
    each(|mut cluster| {
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "void", "x", 1);
        assert_eq!(cluster.packets(publisher), ["puback 1 0x10"]);
        cluster.publish(publisher, "void", "x", 2);
        assert_eq!(
            cluster.packets(publisher),
            ["pubrec 2 0x10", "pubcomp 2 0x00"]
        );
        let subscriber = cluster.client("subscriber");
        cluster.subscribe(subscriber, "void", 0);
        cluster.publish(publisher, "void", "x", 1);
        assert_eq!(cluster.packets(publisher), ["puback 3 0x00"]);
        cluster.unsubscribe(subscriber, "void");
        cluster.publish(publisher, "void", "x", 1);
        assert_eq!(cluster.packets(publisher), ["puback 4 0x10"]);
    });
}

/// [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn properties_of_a_message_pass_unaltered_and_in_order() {
    each(|mut cluster| {
        let subscriber = cluster.client("subscriber");
        cluster.subscribe(subscriber, "#", 2);
        let publisher = cluster.client("publisher");
        let pairs = [("b", "2"), ("a", "1"), ("b", "3")];
        let user_properties = pairs.map(|(name, value)| UserProperty { name, value });
        let parts = MessagePropertiesParts {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some("text/plain"),
            response_topic: Some(TopicName::new("answers/publisher").unwrap()),
            correlation_data: Some(b"\x00\x01"),
            user_properties: &user_properties,
        };
        for retain in [false, true] {
            cluster.publish_with(publisher, "t", "x", 1, |publish| {
                publish.properties = parts.into();
                publish.retain = retain;
            });
        }
        let late = cluster.client("late");
        cluster.run();
        cluster.subscribe(late, "#", 2);
        for (client, expected) in [(subscriber, 2), (late, 1)] {
            let frames = cluster.frames(client);
            assert_eq!(frames.len(), expected);
            for frame in frames {
                let Packet::Publish(publish) = frame.packet() else {
                    panic!("{frame:?}");
                };
                assert_eq!(publish.properties, MessageProperties::new(parts));
            }
        }
    });
}

/// A client that does not read costs its own queue, and others nothing.
#[test]
fn a_slow_subscriber_loses_only_its_own_messages() {
    let configure = |config: &mut avocet_engine::EngineConfig| {
        std::sync::Arc::make_mut(&mut config.connection)
            .limits
            .queued_messages_max = 10;
    };
    each_with(configure, |mut cluster| {
        let slow = cluster.client("slow");
        let quick = cluster.client("quick");
        let publisher = cluster.client("publisher");
        for client in [slow, quick] {
            cluster.subscribe(client, "t", 1);
        }
        cluster.set_reads(slow, false);
        for n in 0..50 {
            cluster.publish(publisher, "t", &n.to_string(), n % 2);
            cluster.run();
        }
        assert_eq!(cluster.messages(quick).len(), 50);
        assert_eq!(cluster.dropped(DropReason::QueueFull), 40);
        assert_eq!(cluster.counters().queued_messages, 10);
        cluster.set_reads(slow, true);
        assert_eq!(cluster.messages(slow).len(), 10);
        assert_eq!(cluster.counters().queued_messages, 0);
        assert_eq!(cluster.counters().queued_bytes, 0);
    });
}

#[test]
fn large_payloads_arrive_whole() {
    each(|mut cluster| {
        let subscriber = cluster.client("subscriber");
        cluster.subscribe(subscriber, "t", 2);
        let publisher = cluster.client("publisher");
        let payload = "0123456789abcdef".repeat(60_000);
        for qos in 0..3 {
            cluster.publish(publisher, "t", &payload, qos);
        }
        let expected: Vec<_> = (0..3).map(|qos| format!("t={payload} q{qos}")).collect();
        assert!(cluster.messages(subscriber) == expected);
    });
}
