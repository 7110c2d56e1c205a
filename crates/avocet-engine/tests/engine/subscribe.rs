use avocet_codec::{Connect, QoS, Version};
use avocet_engine::EngineConfig;
use avocet_topic::FilterTreeLimits;

use crate::cluster::{Cluster, each, each_with};

/// [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT311-3.3.5-1]
#[test]
fn overlapping_subscriptions_give_one_copy() {
    each(|mut cluster| {
        let client = cluster.client("client");
        let publisher = cluster.client("publisher");
        cluster.subscribe_with(client, "a/#", 0, Some(7), |_| {});
        cluster.subscribe_with(client, "a/+", 2, Some(8), |_| {});
        cluster.subscribe_with(client, "a/b", 1, None, |_| {});
        cluster.publish(publisher, "a/b", "x", 2);
        assert_eq!(cluster.messages(client), ["a/b=x q2 ids [7, 8]"]);
        cluster.publish(publisher, "a/b/c", "x", 2);
        assert_eq!(cluster.messages(client), ["a/b/c=x q0 ids [7]"]);
    });
}

/// [MQTT5-3.8.4-3] [MQTT311-3.8.4-3]
#[test]
fn a_repeated_subscription_replaces_the_former() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.subscribe_with(client, "a/+", 2, Some(7), |_| {});
        cluster.subscribe_with(client, "a/+", 1, Some(9), |_| {});
        cluster.publish(client, "a/b", "x", 2);
        assert_eq!(cluster.messages(client), ["a/b=x q1 ids [9]"]);
        assert_eq!(cluster.counters().subscriptions, 1);
    });
}

/// [MQTT5-3.8.3-3]
#[test]
fn no_local_keeps_own_messages_away() {
    each(|mut cluster| {
        let client = cluster.client("client");
        let other = cluster.client("other");
        cluster.subscribe_with(client, "a/b", 1, None, |options| options.no_local = true);
        for retain in [false, true] {
            cluster.publish_with(client, "a/b", "mine", 1, |publish| publish.retain = retain);
            cluster.publish_with(other, "a/b", "other's", 1, |publish| {
                publish.retain = retain
            });
        }
        assert_eq!(cluster.messages(client), ["a/b=other's q1"; 2]);
        // It is judged for each subscription.
        cluster.subscribe_with(client, "a/+", 0, Some(1), |options| {
            options.retain_handling = avocet_codec::RetainHandling::DoNotSend;
        });
        cluster.publish(client, "a/b", "mine", 1);
        assert_eq!(cluster.messages(client), ["a/b=mine q0 ids [1]"]);
    });
}

/// [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT311-3.3.1-9]
#[test]
fn retain_flag_of_live_messages_is_kept_only_on_request() {
    each(|mut cluster| {
        let plain = cluster.client("plain");
        let keeping = cluster.client("keeping");
        cluster.subscribe(plain, "a", 0);
        cluster.subscribe_with(keeping, "a", 0, None, |options| {
            options.retain_as_published = true;
        });
        cluster.publish_retained(plain, "a", "x", 0);
        cluster.publish(plain, "a", "y", 0);
        assert_eq!(cluster.messages(plain), ["a=x q0", "a=y q0"]);
        assert_eq!(cluster.messages(keeping), ["a=x q0 retain", "a=y q0"]);
    });
}

/// [MQTT5-3.10.4-1] [MQTT5-3.10.4-4] [MQTT5-3.11.3-2]
#[test]
fn unsubscribe_is_exact_at_once() {
    each(|mut cluster| {
        let client = cluster.client("client");
        let publisher = cluster.client("publisher");
        cluster.subscribe(client, "a/+", 1);
        cluster.subscribe(client, "a/#", 1);
        assert_eq!(cluster.unsubscribe(client, "a/+"), "unsuback 0x00");
        assert_eq!(cluster.unsubscribe(client, "a/+"), "unsuback 0x11");
        cluster.publish(publisher, "a/b", "x", 0);
        assert_eq!(cluster.messages(client), ["a/b=x q0"]);
        assert_eq!(cluster.unsubscribe(client, "a/#"), "unsuback 0x00");
        cluster.publish(publisher, "a/b", "x", 0);
        assert!(cluster.messages(client).is_empty());
        assert_eq!(cluster.counters().subscriptions, 0);
    });
}

/// A SUBACK says that every shard knows of the subscription: what is published then arrives.
#[test]
fn no_message_is_lost_after_suback() {
    for seed in 0..200 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let publishers = ["p", "q", "r", "s"].map(|id| cluster.client(id));
        for round in 0..3 {
            let subscriber = cluster.client(&format!("subscriber {round}"));
            cluster.send_subscribe(subscriber, "t/+", 1, None, |_| {});
            while cluster.packet_of(subscriber, "suback") != "suback 0x01" {
                assert!(cluster.step(), "the suback does not come");
            }
            for publisher in publishers {
                cluster.publish(publisher, "t/x", "after", 0);
            }
            assert_eq!(
                cluster.messages(subscriber),
                ["t/x=after q0"; 4],
                "seed {seed}"
            );
            cluster.disconnect(subscriber);
        }
    }
}

/// Removing and adding the same filter again and again leaves all shards of one mind.
#[test]
fn interest_survives_quick_changes() {
    for seed in 0..100 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let subscriber = cluster.client("subscriber");
        let publishers = ["p", "q", "r", "s"].map(|id| cluster.client(id));
        for _ in 0..5 {
            cluster.send_subscribe(subscriber, "t", 0, None, |_| {});
            cluster.send_unsubscribe(subscriber, "t");
        }
        cluster.run();
        for publisher in publishers {
            cluster.publish(publisher, "t", "x", 1);
            assert!(
                cluster.packets(publisher)[0].ends_with("0x10"),
                "seed {seed}"
            );
        }
        cluster.subscribe(subscriber, "t", 0);
        for publisher in publishers {
            cluster.publish(publisher, "t", "x", 0);
        }
        assert_eq!(cluster.messages(subscriber).len(), 4, "seed {seed}");
    }
}

/// What a SUBACK says holds, though an earlier SUBSCRIBE for the same filter is refused late.
#[test]
fn a_late_refusal_leaves_a_newer_subscription() {
    let configure = |config: &mut EngineConfig| {
        config.limits.filters = FilterTreeLimits {
            shapes_max: 1,
            overflow_max: 0,
        };
    };
    for (seed, filter) in (0..200).flat_map(|seed| [(seed, "+/a"), (seed, "$share/s/+/a")]) {
        let mut cluster = Cluster::new(3, Some(seed), configure);
        let client = cluster.client("client");
        let rivals = ["p", "q", "r", "s"].map(|id| cluster.client(id));
        for _ in 0..3 {
            cluster.send_subscribe(client, filter, 0, None, |_| {});
            cluster.send_unsubscribe(client, filter);
        }
        cluster.send_subscribe(client, filter, 0, None, |_| {});
        for rival in rivals {
            cluster.send_subscribe(rival, "b/+", 0, None, |_| {});
            cluster.send_unsubscribe(rival, "b/+");
        }
        let packets = cluster.packets(client);
        let granted = packets.last().unwrap() == "suback 0x00";
        for rival in rivals {
            cluster.publish(rival, "x/a", "x", 0);
        }
        let expected = if granted { rivals.len() } else { 0 };
        assert_eq!(
            cluster.messages(client).len(),
            expected,
            "seed {seed}, {filter}: {packets:?}"
        );
        assert_eq!(
            cluster.unsubscribe(client, filter) == "unsuback 0x00",
            granted,
            "seed {seed}, {filter}: {packets:?}"
        );
        assert_eq!(cluster.counters().subscriptions, 0);
    }
}

/// SUBACKs leave in the order of their SUBSCRIBEs, whatever each has to wait for.
#[test]
fn subacks_leave_in_order() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.subscribe(client, "known", 0);
        cluster.send_subscribe(client, "new/1", 0, None, |_| {});
        cluster.send_subscribe(client, "known", 1, None, |_| {});
        cluster.send_subscribe(client, "new/2", 2, None, |_| {});
        assert_eq!(
            cluster.packets(client),
            ["suback 0x00", "suback 0x01", "suback 0x02"]
        );
    });
}

/// Bridges of other brokers get nothing back, and RETAIN as it was published.
#[test]
fn bridges_hear_no_echo_and_keep_retain() {
    each(|mut cluster| {
        for version in [Version::V3_1, Version::V3_1_1] {
            let mut connect = Connect::new(version, "bridge");
            connect.bridge = true;
            let bridge = cluster.client_with(&connect);
            let client = cluster.client("client");
            cluster.subscribe(bridge, "#", 1);
            cluster.subscribe(client, "#", 1);
            cluster.publish_retained(bridge, "t", "over the bridge", 1);
            assert_eq!(cluster.messages(client), ["t=over the bridge q1"]);
            assert!(cluster.messages(bridge).is_empty());
            cluster.publish_retained(client, "t", "back", 1);
            assert_eq!(cluster.messages(bridge), ["t=back q1 retain"]);
            cluster.publish_retained(client, "t", "", 1);
            cluster.disconnect(bridge);
            cluster.disconnect(client);
        }
    });
}

/// [MQTT5-3.2.2-9] [MQTT5-3.2.2-10] [MQTT5-3.8.4-6]
#[test]
fn grants_no_more_than_the_maximum_qos() {
    let maximum = |config: &mut EngineConfig| {
        std::sync::Arc::make_mut(&mut config.connection).maximum_qos = QoS::AtLeastOnce;
    };
    each_with(maximum, |mut cluster| {
        let client = cluster.client("client");
        assert_eq!(cluster.subscribe(client, "a", 2), "suback 0x01");
        assert_eq!(cluster.subscribe(client, "a", 0), "suback 0x00");
        cluster.publish(client, "a", "x", 2);
        assert_eq!(cluster.packets(client), ["disconnect 0x9b"]);
        assert!(cluster.is_closed(client));
    });
}

/// [MQTT5-3.2.2.3]
#[test]
fn refuses_what_is_not_available() {
    let configure = |config: &mut EngineConfig| {
        let connection = std::sync::Arc::make_mut(&mut config.connection);
        connection.wildcard_subscription_available = false;
        connection.shared_subscription_available = false;
        connection.subscription_ids_available = false;
        connection.retain_available = false;
    };
    each_with(configure, |mut cluster| {
        let client = cluster.connect(&Connect::new(Version::V5, "client"));
        let frames = cluster.frames(client);
        let avocet_codec::Packet::Connack(connack) = frames[0].packet() else {
            panic!("{frames:?}");
        };
        assert!(!connack.properties.wildcard_subscription_available);
        assert!(!connack.properties.shared_subscription_available);
        assert!(!connack.properties.subscription_ids_available);
        assert!(!connack.properties.retain_available);
        assert_eq!(cluster.subscribe(client, "a/+", 0), "suback 0xa2");
        assert_eq!(cluster.subscribe(client, "$share/s/a", 0), "suback 0x9e");
        assert_eq!(cluster.subscribe(client, "a/b", 0), "suback 0x00");
        cluster.publish_retained(client, "a/b", "x", 0);
        assert_eq!(cluster.packets(client), ["disconnect 0x9a"]);
        let client = cluster.client("client");
        cluster.send_subscribe(client, "a", 0, Some(1), |_| {});
        assert_eq!(cluster.packets(client), ["disconnect 0xa1"]);
    });
}
