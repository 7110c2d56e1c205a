//! Every position at which the link can break during an exchange, twice in a row.

use avocet_codec::{QoS, Version};
use avocet_session::client::ClientConfig;

use crate::pair::{Pair, message};

/// Cuts the conversation after each number of bytes, and the one after it after each again, until
/// the cuts come too late to cut anything.
fn every_pair_of_cuts(version: Version, begin: impl Fn(&mut Pair), check: impl Fn(&Pair)) {
    for first in 0.. {
        let run_first = || {
            let mut config = ClientConfig::new(version, "c");
            config.clean_start = false;
            let mut pair = Pair::new(config);
            begin(&mut pair);
            let left = pair.run_bytes(first);
            pair.cut();
            pair.reconnect();
            (pair, left)
        };
        for second in 0.. {
            let (mut pair, _) = run_first();
            let left = pair.run_bytes(second);
            pair.cut();
            pair.reconnect();
            pair.run();
            assert!(
                pair.client.is_connected(),
                "{first} {second}: {:?}",
                pair.notices
            );
            check(&pair);
            if left > 0 {
                break;
            }
        }
        if run_first().1 > 0 {
            break;
        }
    }
}

fn in_order_at_least_once(received: &[String], sent: &[&str]) {
    let mut first_of_each: Vec<&str> = Vec::new();
    for payload in received {
        if !first_of_each.contains(&payload.as_str()) {
            first_of_each.push(payload);
        }
    }
    assert_eq!(first_of_each, sent, "{received:?}");
}

const SENT: [&str; 2] = ["1", "2"];

fn client_sends(version: Version, qos: QoS, check: impl Fn(&[String])) {
    let begin = |pair: &mut Pair| {
        SENT.iter()
            .for_each(|it| pair.publish(message("a/b", it, qos)))
    };
    every_pair_of_cuts(version, begin, |pair| {
        check(&pair.server_received);
        assert_eq!(pair.client_finished, SENT.len());
        assert!(pair.client.session().is_empty());
    });
}

fn server_sends(version: Version, qos: QoS, check: impl Fn(&[String])) {
    let begin = |pair: &mut Pair| {
        pair.server_sends = SENT.iter().map(|it| message("a/b", it, qos)).collect();
    };
    every_pair_of_cuts(version, begin, |pair| {
        check(&pair.client_received);
        assert_eq!(pair.server_finished, SENT.len());
        assert!(pair.client.session().is_empty());
    });
}

/// [MQTT5-4.3.2-2] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.3.2-1] [MQTT311-4.4.0-1]
#[test]
fn qos_1_from_the_client_arrives_at_least_once_in_order_whatever_is_cut() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        client_sends(version, QoS::AtLeastOnce, |it| {
            in_order_at_least_once(it, &SENT)
        });
    }
}

/// [MQTT5-4.3.3-1] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.3.3-1] [MQTT311-4.4.0-1]
#[test]
fn qos_2_from_the_client_arrives_exactly_once_in_order_whatever_is_cut() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        client_sends(version, QoS::ExactlyOnce, |received| {
            assert_eq!(received, SENT)
        });
    }
}

/// [MQTT5-4.3.2-4] [MQTT5-4.6.0-2] [MQTT311-4.3.2-2] [MQTT311-4.6.0-2]
#[test]
fn qos_1_to_the_client_arrives_at_least_once_in_order_whatever_is_cut() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        server_sends(version, QoS::AtLeastOnce, |it| {
            in_order_at_least_once(it, &SENT)
        });
    }
}

/// [MQTT5-4.3.3-8] [MQTT5-4.3.3-10] [MQTT5-4.6.0-3] [MQTT311-4.3.3-2] [MQTT311-4.6.0-3]
#[test]
fn qos_2_to_the_client_arrives_exactly_once_in_order_whatever_is_cut() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        server_sends(version, QoS::ExactlyOnce, |received| {
            assert_eq!(received, SENT)
        });
    }
}
