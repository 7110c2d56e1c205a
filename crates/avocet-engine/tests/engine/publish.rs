use avocet_codec::{Connect, TopicName, Version, Will};

use crate::cluster::each;

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
