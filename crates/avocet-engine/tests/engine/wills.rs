use std::num::NonZeroU32;
use std::time::Duration;

use avocet_codec::{Connect, Disconnect, Packet, QoS, ReasonCode, Version, Will};

use crate::cluster::{Client, Cluster, each, persistent};
use crate::publish::will;

fn mortal<'a>(will: Will<'a>) -> Connect<'a> {
    let mut connect = persistent("mortal");
    connect.will = Some(will);
    connect
}

fn watcher(cluster: &mut Cluster) -> Client {
    let watcher = cluster.client("watcher");
    cluster.subscribe(watcher, "wills/#", 2);
    watcher
}

/// [MQTT5-3.1.2-8] [MQTT311-3.1.2-8]
#[test]
fn published_when_the_connection_is_lost() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            let mut connect = Connect::new(version, "mortal");
            connect.will = Some(Will {
                qos: QoS::AtLeastOnce,
                ..will("wills/mortal", "gone")
            });
            let client = cluster.client_with(&connect);
            cluster.cut(client);
            assert_eq!(
                cluster.messages(watcher),
                ["wills/mortal=gone q1"],
                "{version}"
            );
        }
        assert_eq!(cluster.counters().wills_published, 3);
    });
}

/// [MQTT5-3.14.4-3] [MQTT311-3.14.4-3] [MQTT5-3.1.2-10]
#[test]
fn discarded_by_disconnect_unless_asked_for() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        let client = cluster.client_with(&mortal(will("wills/mortal", "gone")));
        cluster.disconnect(client);
        assert!(cluster.messages(watcher).is_empty());
        let client = cluster.client_with(&mortal(will("wills/mortal", "gone")));
        let disconnect = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
        cluster.send(client, &Packet::Disconnect(disconnect));
        assert_eq!(cluster.messages(watcher), ["wills/mortal=gone q0"]);
    });
}

#[test]
fn published_after_keep_alive_and_protocol_errors() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        let mut connect = mortal(will("wills/mortal", "silent"));
        connect.keep_alive = 10;
        let client = cluster.client_with(&connect);
        cluster.advance(Duration::from_secs(14));
        assert!(!cluster.is_closed(client));
        cluster.advance(Duration::from_secs(2));
        assert_eq!(cluster.packets(client), ["disconnect 0x8d"]);
        assert_eq!(cluster.messages(watcher), ["wills/mortal=silent q0"]);
        let client = cluster.client_with(&mortal(will("wills/mortal", "rude")));
        cluster.send_bytes(client, &[0xf3, 0]);
        assert_eq!(cluster.packets(client), ["disconnect 0x81"]);
        assert_eq!(cluster.messages(watcher), ["wills/mortal=rude q0"]);
    });
}

/// [MQTT5-3.1.3-9]
#[test]
fn delayed_and_cancelled_by_return() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        let delayed = Will {
            will_delay_interval: 30,
            ..will("wills/mortal", "gone")
        };
        let client = cluster.client_with(&mortal(delayed));
        cluster.cut(client);
        cluster.advance(Duration::from_secs(29));
        assert!(cluster.messages(watcher).is_empty());
        let client = cluster.connect(&mortal(delayed));
        assert_eq!(cluster.packet(client), "connack 0x00 present");
        cluster.advance(Duration::from_secs(60));
        assert!(cluster.messages(watcher).is_empty());
        cluster.cut(client);
        cluster.advance(Duration::from_secs(31));
        assert_eq!(cluster.messages(watcher), ["wills/mortal=gone q0"]);
        cluster.advance(Duration::from_secs(100));
        assert!(cluster.messages(watcher).is_empty(), "once only");
    });
}

/// [MQTT5-3.1.2-24] A client that cannot be told that it is accepted changes nothing.
#[test]
fn not_that_of_a_connection_whose_connack_is_too_large() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        for (size, answer) in [(8, "connack 0x95"), (4, "closed")] {
            let mut connect = mortal(will("wills/mortal", "never accepted"));
            connect.clean_start = true;
            connect.properties.maximum_packet_size = NonZeroU32::new(size);
            let stranger = cluster.connect(&connect);
            assert_eq!(cluster.packet(stranger), answer);
            let client = cluster.client_with(&mortal(will("wills/mortal", "accepted")));
            let twin = cluster.connect(&connect);
            assert_eq!(cluster.packet(twin), answer);
            assert!(cluster.is_closed(twin));
            assert!(!cluster.is_closed(client));
            assert!(cluster.messages(watcher).is_empty());
            cluster.cut(client);
            assert_eq!(cluster.messages(watcher), ["wills/mortal=accepted q0"]);
            let client = cluster.connect(&mortal(will("wills/mortal", "")));
            assert_eq!(cluster.packet(client), "connack 0x00 present");
            cluster.client("mortal");
            assert_eq!(cluster.messages(watcher), ["wills/mortal= q0"]);
        }
        assert_eq!(cluster.counters().connects_refused, 4);
    });
}

/// [MQTT5-3.1.2-8] The end of the session comes first.
#[test]
fn published_early_by_the_end_of_the_session() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        let delayed = Will {
            will_delay_interval: 300,
            ..will("wills/mortal", "gone")
        };
        let mut connect = mortal(delayed);
        connect.properties.session_expiry_interval = 10;
        let client = cluster.client_with(&connect);
        cluster.cut(client);
        cluster.advance(Duration::from_secs(11));
        assert_eq!(cluster.messages(watcher), ["wills/mortal=gone q0"]);
        // A Clean Start ends the former session too.
        connect.properties.session_expiry_interval = 1000;
        let client = cluster.client_with(&connect);
        cluster.cut(client);
        assert!(cluster.messages(watcher).is_empty());
        let _client = cluster.client("mortal");
        assert_eq!(cluster.messages(watcher), ["wills/mortal=gone q0"]);
    });
}

/// A takeover cancels only a will with a delay, and only if the session goes on.
#[test]
fn takeover_publishes_wills_without_delay() {
    each(|mut cluster| {
        let watcher = watcher(&mut cluster);
        let _old = cluster.client_with(&mortal(will("wills/mortal", "first")));
        let delayed = Will {
            will_delay_interval: 30,
            ..will("wills/mortal", "second")
        };
        let _second = cluster.connect(&mortal(delayed));
        assert_eq!(cluster.messages(watcher), ["wills/mortal=first q0"]);
        let _third = cluster.connect(&mortal(delayed));
        cluster.advance(Duration::from_secs(100));
        assert!(cluster.messages(watcher).is_empty());
        let _fourth = cluster.client("mortal");
        assert_eq!(cluster.messages(watcher), ["wills/mortal=second q0"]);
    });
}

/// [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT5-3.1.3-10]
#[test]
fn retained_with_expiry_from_its_publication() {
    each(|mut cluster| {
        let retained = Will {
            retain: true,
            will_delay_interval: 50,
            message_expiry_interval: Some(20),
            ..will("wills/mortal", "gone")
        };
        let client = cluster.client_with(&mortal(retained));
        cluster.cut(client);
        cluster.advance(Duration::from_secs(60));
        let watcher = cluster.client("late watcher");
        cluster.subscribe(watcher, "wills/#", 0);
        assert_eq!(
            cluster.messages(watcher),
            ["wills/mortal=gone q0 retain expires in 10"]
        );
    });
}

/// A will follows what its client published before.
#[test]
fn ordered_behind_the_clients_own_messages() {
    for seed in 0..100 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let watcher = watcher(&mut cluster);
        let client = cluster.client_with(&mortal(will("wills/mortal", "last")));
        cluster.publish_retained(client, "wills/mortal", "first", 0);
        cluster.publish(client, "wills/mortal", "second", 0);
        cluster.send(
            client,
            &Packet::Disconnect(Disconnect::new(ReasonCode::UnspecifiedError)),
        );
        assert_eq!(
            cluster.messages(watcher),
            [
                "wills/mortal=first q0",
                "wills/mortal=second q0",
                "wills/mortal=last q0"
            ],
            "seed {seed}"
        );
    }
}
