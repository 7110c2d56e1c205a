//! Client and server together.

use std::num::NonZeroU16;
use std::time::Duration;

use avocet_codec::{QoS, ReasonCode, SubscribeFilter, TopicFilter, Version};
use avocet_session::client::{ClientConfig, ClientNotice};
use avocet_session::{CloseReason, ServerConfig};

use crate::pair::{Pair, message};

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_day_in_the_life() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        let filter = SubscribeFilter::new(TopicFilter::new("a/#").unwrap(), QoS::AtLeastOnce);
        pair.client.subscribe(&[filter], None, &[]).unwrap();
        for (payload, qos) in [
            ("0", QoS::AtMostOnce),
            ("1", QoS::AtLeastOnce),
            ("2", QoS::ExactlyOnce),
        ] {
            pair.publish(message("a/b", payload, qos));
        }
        pair.run();
        pair.client
            .unsubscribe(&[filter.topic_filter], &[])
            .unwrap();
        pair.run();
        assert_eq!(pair.server_received, ["0", "1", "2"]);
        assert_eq!(pair.client_finished, 2);
        let events = [
            "connected false",
            "subscribed [GrantedQoS1]",
            "unsubscribed",
        ];
        assert_eq!(pair.events, events, "{version}");
        let bye = avocet_codec::Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        pair.client.disconnect(&bye, pair.now).unwrap();
        pair.run();
        assert!(pair.server.is_closed());
    }
}

/// [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn messages_published_while_the_link_is_down_follow_those_in_flight() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.publish(message("a", "1", QoS::ExactlyOnce));
        pair.run_bytes(0);
        pair.cut();
        pair.reconnect();
        pair.publish(message("a", "2", QoS::AtLeastOnce));
        pair.run();
        assert_eq!(pair.server_received, ["1", "2"]);
        assert_eq!(
            pair.events.last().unwrap() == "connected true",
            version != Version::V3_1
        );
    }
}

/// [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
#[test]
fn a_small_window_of_the_server_is_kept_and_nothing_is_lost() {
    let receive_maximum = NonZeroU16::new(2).unwrap();
    let server = ServerConfig {
        receive_maximum,
        ..ServerConfig::default()
    };
    let mut pair = Pair::with_server(ClientConfig::new(Version::V5, "c"), server);
    pair.run();
    let payloads: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for payload in &payloads {
        pair.publish(message("a", payload, QoS::ExactlyOnce));
    }
    pair.run();
    assert_eq!(pair.server_received, payloads);
    assert_eq!(pair.client_finished, 100);
}

/// [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]
#[test]
fn pings_keep_an_idle_connection_and_their_absence_ends_it() {
    for version in VERSIONS {
        let config = ClientConfig {
            keep_alive: 10,
            ..ClientConfig::new(version, "c")
        };
        let mut pair = Pair::new(config);
        pair.run();
        for _ in 0..20 {
            pair.pass(5 * SECOND);
            pair.run();
            assert!(pair.client.is_connected() && pair.server.is_connected());
        }
        // The link is dead, and neither side knows.
        for _ in 0..7 {
            pair.pass(5 * SECOND);
            pair.drop_bytes();
        }
        assert_eq!(
            pair.notices,
            [ClientNotice::Closed(CloseReason::KeepAliveTimeout)]
        );
        assert!(pair.server.is_closed());
    }
}

/// [MQTT5-3.3.2-7]: aliases end with the connection.
#[test]
fn topic_aliases_do_not_outlive_their_connection() {
    let config = ClientConfig {
        topic_alias_maximum: 10,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut pair = Pair::new(config);
    pair.run();
    let send = |pair: &mut Pair, count| {
        for _ in 0..count {
            pair.publish(message("some/long/topic", "x", QoS::AtLeastOnce));
        }
        pair.run();
    };
    send(&mut pair, 5);
    pair.cut();
    pair.reconnect();
    pair.run();
    send(&mut pair, 5);
    assert_eq!(pair.server_received.len(), 10);
}
