use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{Connect, MessagePropertiesParts, PayloadFormat, UserProperty, Version, Will};
use avocet_engine::{
    Accepted, Authentication, ClientIds, DropReason, EngineConfig, Event, Flapping, Overrun, Rate,
    RefuseReason, Verdict,
};
use avocet_topic::{FilterTreeLimits, TopicLimits, TopicName};

use crate::cluster::{Cluster, each, each_with};

#[test]
fn connections_beyond_the_limit_are_refused() {
    let configure = |config: &mut EngineConfig| config.limits.connections_max = 2;
    // The limit is one of each shard.
    let mut cluster = Cluster::new(1, None, configure);
    let first = cluster.client("first");
    let _second = cluster.client("second");
    let third = cluster.connect(&Connect::new(Version::V5, "third"));
    assert_eq!(cluster.packets(third), ["connack 0x97"]);
    let fourth = cluster.connect(&Connect::new(Version::V3_1_1, "fourth"));
    assert!(cluster.is_closed(fourth));
    cluster.disconnect(first);
    cluster.client("fifth");
    assert_eq!(cluster.counters().connects_refused, 2);
}

#[test]
fn sessions_beyond_the_limit_are_refused() {
    let mut cluster = Cluster::new(1, None, |config| config.limits.sessions_max = 1);
    let (client, _) = cluster.persistent("first");
    cluster.disconnect(client);
    let second = cluster.connect(&Connect::new(Version::V5, "second"));
    assert_eq!(cluster.packets(second), ["connack 0x97"]);
    let (_, present) = cluster.persistent("first");
    assert!(present);
}

#[test]
fn subscriptions_beyond_the_limits_are_refused() {
    let configure = |config: &mut EngineConfig| {
        config.limits.subscriptions_per_session_max = 2;
        config.limits.topics = TopicLimits {
            levels_max: 3,
            ..TopicLimits::default()
        };
    };
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        assert_eq!(cluster.subscribe(client, "a/b/c/d", 0), "suback 0x8f");
        assert_eq!(cluster.subscribe(client, "a", 0), "suback 0x00");
        assert_eq!(cluster.subscribe(client, "b", 0), "suback 0x00");
        assert_eq!(cluster.subscribe(client, "c", 0), "suback 0x97");
        assert_eq!(cluster.subscribe(client, "b", 1), "suback 0x01");
        cluster.publish(client, "a/b/c/d", "x", 1);
        assert_eq!(cluster.packets(client), ["puback 6 0x90"]);
        cluster.publish(client, "a/b/c/d", "x", 2);
        assert_eq!(cluster.packets(client), ["pubrec 7 0x90"]);
        assert_eq!(cluster.dropped(DropReason::NotAuthorized), 2);
    });
}

/// No client uses up the shapes that others need.
#[test]
fn filters_of_further_shapes_are_refused() {
    let configure = |config: &mut EngineConfig| config.limits.shapes_per_session_max = 2;
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        for filter in ["a", "+/a", "b", "+/b", "$share/s/a/#", "a/#", "c/d"] {
            assert_eq!(cluster.subscribe(client, filter, 0), "suback 0x00");
        }
        for filter in ["#", "+/+", "$share/s/a/+"] {
            assert_eq!(cluster.subscribe(client, filter, 0), "suback 0x97");
        }
        assert_eq!(cluster.counters().subscriptions, 7);
        assert_eq!(cluster.subscribe(client, "+/a", 1), "suback 0x01");
        let other = cluster.client("other");
        assert_eq!(cluster.subscribe(other, "#", 0), "suback 0x00");
        // A shape is free with the last of its filters.
        assert_eq!(cluster.unsubscribe(client, "a/#"), "unsuback 0x00");
        assert_eq!(cluster.subscribe(client, "#", 0), "suback 0x97");
        let shared = "$share/s/a/#";
        assert_eq!(cluster.unsubscribe(client, shared), "unsuback 0x00");
        assert_eq!(cluster.subscribe(client, "#", 0), "suback 0x00");
        assert_eq!(cluster.subscribe(client, "b/#", 0), "suback 0x97");
    });
}

/// A filter that another shard has no room for is refused, and leaves nothing behind.
#[test]
fn filters_beyond_the_limit_are_refused() {
    let configure = |config: &mut EngineConfig| {
        config.limits.filters = FilterTreeLimits {
            shapes_max: 2,
            overflow_max: 0,
        };
    };
    each_with(configure, |mut cluster| {
        let clients = ["one", "two", "three", "four"].map(|id| cluster.client(id));
        assert_eq!(cluster.subscribe(clients[0], "+/a", 0), "suback 0x00");
        assert_eq!(cluster.subscribe(clients[1], "a/+", 0), "suback 0x00");
        assert_eq!(cluster.subscribe(clients[2], "#", 0), "suback 0x97");
        assert_eq!(
            cluster.subscribe(clients[3], "$share/s/#", 0),
            "suback 0x97"
        );
        assert_eq!(cluster.counters().subscriptions, 2);
        cluster.publish(clients[0], "b", "x", 1);
        assert_eq!(cluster.packets(clients[0]), ["puback 2 0x10"]);
        assert_eq!(cluster.unsubscribe(clients[1], "a/+"), "unsuback 0x00");
        assert_eq!(cluster.subscribe(clients[2], "#", 0), "suback 0x00");
    });
}

#[test]
fn retained_messages_beyond_the_limit_are_only_delivered() {
    let mut cluster = Cluster::new(1, None, |config| config.limits.retained_messages_max = 2);
    let client = cluster.client("client");
    cluster.subscribe(client, "#", 0);
    for topic in ["a", "b", "c"] {
        cluster.publish_retained(client, topic, "x", 0);
    }
    cluster.publish_retained(client, "a", "y", 0);
    assert_eq!(
        cluster.messages(client),
        ["a=x q0", "b=x q0", "c=x q0", "a=y q0"]
    );
    assert_eq!(cluster.dropped(DropReason::RetainedFull), 1);
    cluster.subscribe(client, "#", 0);
    assert_eq!(cluster.messages(client), ["a=y q0 retain", "b=x q0 retain"]);
}

/// [MQTT5-3.3.2.3.2]
#[test]
fn payloads_are_checked_by_setting() {
    let configure = |config: &mut EngineConfig| config.check_payload_format = true;
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        cluster.subscribe(client, "t", 0);
        for (payload, qos) in [(&b"\xff"[..], 0), (b"\xff", 1), (b"\xff", 2), (b"fine", 1)] {
            cluster.publish_with(client, "t", "", qos, |publish| {
                publish.payload = payload;
                publish.properties = MessagePropertiesParts {
                    payload_format: Some(PayloadFormat::Utf8),
                    ..Default::default()
                }
                .into();
            });
        }
        let mut packets = cluster.packets(client);
        packets.sort();
        assert_eq!(
            packets,
            [
                "puback 2 0x99",
                "puback 4 0x00",
                "pubrec 3 0x99",
                "t=fine q0"
            ]
        );
        assert_eq!(cluster.dropped(DropReason::PayloadFormat), 3);
        let mut connect = Connect::new(Version::V5, "mortal");
        let mut will = crate::publish::will("t", "");
        will.payload = b"\xff";
        will.properties = MessagePropertiesParts {
            payload_format: Some(PayloadFormat::Utf8),
            ..Default::default()
        }
        .into();
        connect.will = Some(will);
        let mortal = cluster.connect(&connect);
        assert_eq!(cluster.packets(mortal), ["connack 0x99"]);
    });
}

#[test]
fn clients_may_not_publish_what_is_the_servers() {
    each_with(
        |_| {},
        |mut cluster| {
            let client = cluster.client("client");
            let old = cluster.client_with(&Connect::new(Version::V3_1_1, "old"));
            cluster.subscribe(client, "$SYS/#", 0);
            cluster.publish(client, "$SYS/broker/version", "mine", 1);
            cluster.publish(client, "$share/x/y", "x", 1);
            assert_eq!(cluster.packets(client), ["puback 2 0x87", "puback 3 0x90"]);
            cluster.publish(old, "$SYS/broker/version", "mine", 1);
            assert_eq!(
                cluster.packets(old),
                ["puback 1 0x00"],
                "3.1.1 has no code for it"
            );
            let mut connect = Connect::new(Version::V5, "third");
            connect.will = Some(crate::publish::will("$SYS/broker/version", "mine"));
            let third = cluster.connect(&connect);
            assert_eq!(cluster.packets(third), ["connack 0x87"]);
        },
    );
}

/// Too much on its way to other shards stops the reading from a connection, and nothing is lost.
#[test]
fn forwards_are_paced() {
    let configure = |config: &mut EngineConfig| config.limits.forwards_max = 4;
    each_with(configure, |mut cluster| {
        let subscribers = ["one", "two", "three", "four"].map(|id| {
            let client = cluster.client(id);
            cluster.subscribe(client, "t", 0);
            client
        });
        let publisher = cluster.client("publisher");
        for n in 0..300_u16 {
            let retain = n % 7 == 0;
            cluster.publish_with(publisher, "t", &n.to_string(), (n % 3) as u8, |publish| {
                publish.retain = retain;
            });
        }
        let expected: Vec<_> = (0..300).map(|n| format!("t={n} q0")).collect();
        for subscriber in subscribers {
            assert_eq!(cluster.messages(subscriber), expected);
        }
        assert!(!cluster.is_paused(publisher));
    });
}

/// Half of what stopped it has to be where it belongs, so that it does not stop for each message.
#[test]
fn reading_goes_on_when_half_of_the_forwards_are_done() {
    let configure = |config: &mut EngineConfig| {
        config.sys_interval = None;
        config.limits.forwards_max = 3;
    };
    let mut cluster = Cluster::new(4, None, configure);
    for id in 0..20 {
        let client = cluster.client(&format!("c{id}"));
        cluster.subscribe(client, "t", 0);
    }
    let publisher = cluster.client("publisher");
    let here = cluster.shard(publisher);
    // One message is three forwards; the other one waits.
    cluster.publish(publisher, "t", "x", 0);
    cluster.publish(publisher, "t", "y", 0);
    cluster.turn(here);
    assert!(cluster.is_paused(publisher));
    let mut others = (0..4).filter(|shard| *shard != here);
    for paused in [true, false] {
        cluster.turn(others.next().unwrap());
        cluster.turn(here);
        assert_eq!(cluster.is_paused(publisher), paused);
    }
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn messages_too_large_for_a_client_are_dropped_and_counted() {
    each_with(
        |_| {},
        |mut cluster| {
            let mut connect = Connect::new(Version::V5, "small");
            connect.properties.maximum_packet_size = NonZeroU32::new(50);
            let small = cluster.client_with(&connect);
            cluster.subscribe(small, "t", 1);
            let publisher = cluster.client("publisher");
            cluster.publish(publisher, "t", &"x".repeat(100), 1);
            cluster.publish(publisher, "t", "fits", 1);
            assert_eq!(cluster.messages(small), ["t=fits q1"]);
            assert_eq!(cluster.dropped(DropReason::TooLargeForClient), 1);
        },
    );
}

/// A connection that floods does not hold a shard longer than its slice.
#[test]
fn input_is_read_in_slices() {
    let mut cluster = Cluster::new(1, None, |config| config.limits.slice_packets = 10);
    let client = cluster.client("client");
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.extend_from_slice(&[0xc0, 0]);
    }
    let now = cluster.now;
    let (consumed, demand) = cluster.engines[0].handle_input(client, &flood, now);
    assert_eq!((consumed, demand), (20, avocet_session::Demand::Again));
}

/// Filters that make each match costly do not make slices longer.
#[test]
fn a_slice_has_fewer_messages_when_matches_cost_more() {
    let mut cluster = Cluster::new(1, None, |config| config.limits.slice_packets = 10);
    let client = cluster.client("client");
    for shape in 1..=64 {
        let level = |n: u32| if shape >> n & 1 == 1 { "+" } else { "a" };
        let filter: Vec<_> = (0..7).map(level).collect();
        cluster.subscribe(client, &filter.join("/"), 0);
    }
    let flood = [0x30, 4, 0, 1, b't', 0].repeat(20);
    let now = cluster.now;
    let (consumed, demand) = cluster.engines[0].handle_input(client, &flood, now);
    assert_eq!((consumed, demand), (5 * 6, avocet_session::Demand::Again));
}

/// Retained messages that nobody takes do not hold a shard: each page waits for another turn.
#[test]
fn retained_messages_are_searched_in_slices() {
    let mut cluster = Cluster::new(1, None, |config| {
        config.limits.retained_page_messages = 10;
        config.limits.queued_messages_max = 0;
    });
    let client = cluster.client("client");
    for n in 0..100 {
        cluster.publish_retained(client, &format!("t/{n}"), "x", 0);
    }
    cluster.run();
    let filter = avocet_codec::TopicFilter::new("t/#").unwrap();
    let filters = [avocet_codec::SubscribeFilter::new(
        filter,
        avocet_codec::QoS::AtMostOnce,
    )];
    let subscribe = avocet_codec::Subscribe::new(cluster.packet_id(client), &filters);
    let mut bytes = Vec::new();
    avocet_codec::Packet::Subscribe(subscribe)
        .encode(Version::V5, &mut bytes)
        .unwrap();
    let now = cluster.now;
    cluster.engines[0].handle_input(client, &bytes, now);
    assert_eq!(cluster.dropped(DropReason::TotalFull), 10);
    cluster.run();
    assert_eq!(cluster.dropped(DropReason::TotalFull), 100);
}

/// Many sessions that end at once leave turns to others.
#[test]
fn sessions_end_in_slices() {
    let mut cluster = Cluster::new(1, None, |_| {});
    for n in 0..300 {
        let id = n.to_string();
        let mut connect = crate::cluster::persistent(&id);
        connect.properties.session_expiry_interval = 1;
        let client = cluster.client_with(&connect);
        cluster.disconnect(client);
    }
    cluster.now = cluster.now + Duration::from_secs(2);
    let now = cluster.now;
    cluster.engines[0].handle_timeout(now);
    assert_eq!(cluster.counters().sessions_expired, 256);
    assert!(cluster.engines[0].poll_timeout().unwrap() <= now.instant);
    cluster.engines[0].handle_timeout(now);
    assert_eq!(cluster.counters().sessions_expired, 300);
}

const TEN: Rate = Rate {
    messages_per_second: 10,
    bytes_per_second: 0,
};

#[test]
fn who_publishes_too_fast_is_not_read_for_a_while() {
    let configure = |config: &mut EngineConfig| config.limits.publish_rate = TEN;
    each_with(configure, |mut cluster| {
        let (fast, other) = (cluster.client("fast"), cluster.client("other"));
        for _ in 0..30 {
            cluster.publish(fast, "t", "x", 1);
        }
        cluster.run();
        // One more than may come at once, which is what it waits for.
        assert_eq!(cluster.packets(fast).len(), 11);
        cluster.publish(other, "t", "x", 1);
        assert_eq!(cluster.packets(other).len(), 1);
        cluster.advance(Duration::from_millis(99));
        assert_eq!(cluster.packets(fast).len(), 0);
        cluster.advance(Duration::from_millis(1));
        assert_eq!(cluster.packets(fast).len(), 1);
        cluster.advance(Duration::from_millis(1_800));
        assert_eq!(cluster.packets(fast).len(), 18);
        assert!(cluster.counters().publishers_paused > 0);
        assert_eq!(cluster.dropped(DropReason::TooFast), 0);
    });
}

#[test]
fn bytes_count_too() {
    let configure = |config: &mut EngineConfig| config.limits.publish_rate.bytes_per_second = 1_000;
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        let payload = "x".repeat(500);
        for _ in 0..4 {
            cluster.publish(client, "t", &payload, 1);
        }
        cluster.run();
        assert_eq!(cluster.packets(client).len(), 2);
        cluster.advance(Duration::from_secs(2));
        assert_eq!(cluster.packets(client).len(), 2);
    });
}

#[test]
fn who_publishes_too_fast_is_refused_by_setting() {
    let configure = |config: &mut EngineConfig| {
        config.limits.publish_rate = TEN;
        config.limits.publish_overrun = Overrun::Refuse;
    };
    each_with(configure, |mut cluster| {
        for (version, refused) in [(Version::V5, 2), (Version::V3_1_1, 0)] {
            let client = cluster.client_with(&Connect::new(version, "client"));
            cluster.subscribe(client, "t", 0);
            for _ in 0..12 {
                cluster.publish(client, "t", "x", 1);
            }
            let packets = cluster.packets(client);
            let code = |packet: &&String| packet.ends_with("0x97");
            assert_eq!(packets.iter().filter(code).count(), refused, "{packets:?}");
            let acks = packets.iter().filter(|packet| packet.starts_with("puback"));
            assert_eq!(acks.count(), 12);
            assert_eq!(packets.len(), 12 + 10);
            cluster.disconnect(client);
        }
        assert_eq!(cluster.dropped(DropReason::TooFast), 4);
        assert_eq!(cluster.counters().publishers_paused, 0);
    });
}

#[test]
fn messages_are_sent_as_fast_as_allowed_and_answers_at_once() {
    let configure = |config: &mut EngineConfig| config.limits.delivery_rate = TEN;
    for qos in 0..=2 {
        each_with(configure, |mut cluster| {
            let subscriber = cluster.client("subscriber");
            cluster.subscribe(subscriber, "t", qos);
            let publisher = cluster.client("publisher");
            for number in 0..25 {
                cluster.publish(publisher, "t", &format!("{number}"), qos);
            }
            let mut messages = cluster.messages(subscriber);
            assert!((5..=10).contains(&messages.len()), "{messages:?}");
            cluster.publish(subscriber, "other", "x", 1);
            assert!(cluster.packets(subscriber)[0].starts_with("puback"));
            let before = messages.len();
            cluster.advance(Duration::from_millis(100));
            messages.extend(cluster.messages(subscriber));
            assert!(messages.len() <= before + 1, "{messages:?}");
            for _ in 0..100 {
                cluster.advance(Duration::from_millis(100));
                messages.extend(cluster.messages(subscriber));
            }
            let all: Vec<_> = (0..25).map(|number| format!("t={number} q{qos}")).collect();
            assert_eq!(messages, all);
            assert!(cluster.counters().deliveries_held > 0);
        });
    }
}

#[test]
fn connects_beyond_the_limits_are_refused() {
    let configure = |config: &mut EngineConfig| {
        config.limits.client_id_bytes_max = 4;
        config.limits.user_properties.count_max = 1;
        config.limits.keep_alive_refused = true;
        let connection = Arc::make_mut(&mut config.connection);
        connection.keep_alive_max = NonZeroU16::new(60);
        connection.keep_alive_min = NonZeroU16::new(10);
    };
    each_with(configure, |mut cluster| {
        let two = [UserProperty {
            name: "a",
            value: "b",
        }; 2];
        let answer = |cluster: &mut Cluster, connect: &Connect<'_>| {
            let client = cluster.connect(connect);
            cluster.packet(client)
        };
        for (version, id, keep_alive, expected) in [
            (Version::V5, "long!", 30, "connack 0x85"),
            (Version::V5, "id", 30, "connack 0x00"),
            (Version::V3_1_1, "id", 30, "connack 0x00"),
            (Version::V3_1_1, "id", 61, "connack 0x85"),
            (Version::V3_1_1, "id", 0, "connack 0x85"),
            (Version::V3_1_1, "id", 1, "connack 0x00"),
        ] {
            let mut connect = Connect::new(version, id);
            connect.keep_alive = keep_alive;
            assert_eq!(answer(&mut cluster, &connect), expected);
        }
        for (keep_alive, told) in [(0, 60), (61, 60), (60, 60), (10, 10), (9, 10)] {
            let mut connect = Connect::new(Version::V5, "id");
            connect.keep_alive = keep_alive;
            answer(&mut cluster, &connect);
            let connected = cluster.events.iter().rev().find_map(|event| match event {
                Event::Connected { keep_alive, .. } => Some(*keep_alive),
                _ => None,
            });
            assert_eq!(connected, Some(told));
        }
        let mut connect = Connect::new(Version::V5, "id");
        connect.properties.user_properties = two.as_slice().into();
        assert_eq!(answer(&mut cluster, &connect), "connack 0x97");
        let mut connect = Connect::new(Version::V5, "id");
        let mut will = Will::new(TopicName::new("t").unwrap(), b"");
        will.properties = MessagePropertiesParts {
            user_properties: &two,
            ..Default::default()
        }
        .into();
        connect.will = Some(will);
        assert_eq!(answer(&mut cluster, &connect), "connack 0x97");
    });
}

#[test]
fn messages_with_too_many_user_properties_are_refused() {
    let configure = |config: &mut EngineConfig| {
        config.limits.user_properties.count_max = 2;
        config.limits.user_properties.bytes_max = 10;
    };
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        let short = UserProperty {
            name: "a",
            value: "b",
        };
        let long = UserProperty {
            name: "a",
            value: "0123456789",
        };
        for properties in [&[short, short][..], &[short; 3], &[long]] {
            cluster.publish_with(client, "t", "x", 1, |publish| {
                publish.properties = MessagePropertiesParts {
                    user_properties: properties,
                    ..Default::default()
                }
                .into();
            });
        }
        let packets = cluster.packets(client);
        let refused = |packet: &&String| packet.ends_with("0x97");
        assert_eq!(packets.iter().filter(refused).count(), 2, "{packets:?}");
        assert_eq!(cluster.dropped(DropReason::UserProperties), 2);
    });
}

#[test]
fn filters_have_so_many_levels_before_their_wildcards() {
    let configure = |config: &mut EngineConfig| config.limits.wildcard_level_min = 1;
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        for filter in ["#", "+", "+/a", "$share/g/#", "$share/g/+/a"] {
            assert_eq!(
                cluster.subscribe(client, filter, 0),
                "suback 0x8f",
                "{filter}"
            );
        }
        for filter in ["a", "a/#", "a/+/b", "$share/g/a/#", "/#"] {
            assert_eq!(
                cluster.subscribe(client, filter, 0),
                "suback 0x00",
                "{filter}"
            );
        }
    });
}

#[test]
fn retained_messages_are_forgotten_at_their_greatest_age() {
    let configure = |config: &mut EngineConfig| {
        config.limits.retained_age_max = Duration::from_secs(10);
    };
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        cluster.publish_retained(client, "old", "x", 0);
        cluster.advance(Duration::from_secs(9));
        cluster.publish_retained(client, "new", "x", 0);
        cluster.subscribe(client, "#", 0);
        let mut messages = cluster.messages(client);
        messages.sort();
        assert_eq!(messages, ["new=x q0 retain", "old=x q0 retain"]);
        cluster.advance(Duration::from_secs(1));
        cluster.subscribe(client, "#", 0);
        assert_eq!(cluster.messages(client), ["new=x q0 retain"]);
        assert_eq!(cluster.counters().retained_messages, 1);
        // One that is replaced begins anew.
        cluster.publish_retained(client, "new", "y", 0);
        cluster.advance(Duration::from_secs(9));
        assert_eq!(cluster.counters().retained_messages, 1);
        cluster.advance(Duration::from_secs(1));
        assert_eq!(cluster.counters().retained_messages, 0);
    });
}

#[test]
fn a_client_that_connects_too_often_is_banned_for_a_while() {
    let configure = |config: &mut EngineConfig| {
        config.limits.flapping = Some(Flapping {
            connects_max: 2,
            window: Duration::from_secs(10),
            ban: Duration::from_secs(60),
        });
    };
    each_with(configure, |mut cluster| {
        let answer = |cluster: &mut Cluster| {
            let client = cluster.connect(&Connect::new(Version::V5, "client"));
            let packet = cluster.packet(client);
            cluster.disconnect(client);
            packet
        };
        assert_eq!(answer(&mut cluster), "connack 0x00");
        assert_eq!(answer(&mut cluster), "connack 0x00");
        cluster.advance(Duration::from_secs(10));
        assert_eq!(answer(&mut cluster), "connack 0x00");
        assert_eq!(answer(&mut cluster), "connack 0x00");
        assert_eq!(answer(&mut cluster), "connack 0x8a");
        let flapping = |event: &&Event| matches!(event, Event::Flapping { .. });
        assert_eq!(cluster.events.iter().filter(flapping).count(), 1);
        cluster.client("other");
        // Those who are given a Client Identifier are different clients.
        for _ in 0..5 {
            let nameless = cluster.connect(&Connect::new(Version::V5, ""));
            assert!(cluster.packet(nameless).starts_with("connack 0x00"));
        }
        cluster.advance(Duration::from_secs(59));
        assert_eq!(answer(&mut cluster), "connack 0x8a");
        cluster.advance(Duration::from_secs(1));
        assert_eq!(answer(&mut cluster), "connack 0x00");
        assert_eq!(cluster.counters().connects_banned, 2);
    });
}

/// Whether users share Client Identifiers or not.
#[test]
fn nobody_has_the_client_of_another_user_banned() {
    for client_ids in [ClientIds::Shared, ClientIds::OfEachUser] {
        let configure = |config: &mut EngineConfig| {
            config.authentication = Authentication::Asked;
            config.client_ids = client_ids;
            config.limits.flapping = Some(Flapping {
                connects_max: 2,
                window: Duration::from_secs(10),
                ban: Duration::from_secs(60),
            });
        };
        each_with(configure, |mut cluster| {
            let answer = |cluster: &mut Cluster, user: &str| {
                let client = cluster.connect(&Connect::new(Version::V5, "pump"));
                let mut accepted = Accepted::default();
                accepted.identity.user = Some(user.into());
                cluster.verdict(client, Verdict::Accept(accepted));
                let packet = cluster.packet(client);
                cluster.disconnect(client);
                packet
            };
            for expected in ["connack 0x00", "connack 0x00", "connack 0x8a"] {
                assert_eq!(answer(&mut cluster, "mallory"), expected);
            }
            assert_eq!(answer(&mut cluster, "ann"), "connack 0x00");
            assert_eq!(answer(&mut cluster, "mallory"), "connack 0x8a");
        });
    }
}

#[test]
fn an_overloaded_broker_takes_no_new_load_and_serves_what_is_there() {
    each_with(
        |_| {},
        |mut cluster| {
            let (asleep, _) = cluster.persistent("asleep");
            cluster.subscribe(asleep, "t", 1);
            cluster.disconnect(asleep);
            let awake = cluster.client("awake");
            cluster.subscribe(awake, "t", 1);
            let old = cluster.client_with(&Connect::new(Version::V3_1_1, "old"));
            cluster.publish_retained(awake, "kept", "x", 0);
            cluster.run();
            for engine in &mut cluster.engines {
                engine.set_overloaded(true);
            }
            for (version, expected) in [
                (Version::V5, "connack 0x89"),
                (Version::V3_1_1, "connack 0x88"),
            ] {
                let client = cluster.connect(&Connect::new(version, "new"));
                assert_eq!(cluster.packet(client), expected);
            }
            cluster.publish(awake, "t", "one", 1);
            cluster.publish(awake, "t", "two", 2);
            cluster.publish(awake, "t", "three", 0);
            cluster.publish_retained(awake, "other", "x", 0);
            cluster.publish_retained(awake, "kept", "y", 0);
            let packets = cluster.packets(awake);
            let refused = |packet: &&String| packet.ends_with("0x97");
            assert_eq!(packets.iter().filter(refused).count(), 2, "{packets:?}");
            assert!(packets.contains(&"t=three q0".to_owned()), "{packets:?}");
            // 3.x cannot be told: who is connected gets it, who is not does not.
            cluster.publish(old, "t", "four", 1);
            assert_eq!(cluster.messages(awake), ["t=four q1"]);
            assert_eq!(cluster.counters().queued_messages, 0);
            assert_eq!(cluster.counters().retained_messages, 1);
            assert!(cluster.dropped(DropReason::Overloaded) >= 3);
            let (_, present) = cluster.persistent("asleep");
            assert!(present);
            for engine in &mut cluster.engines {
                engine.set_overloaded(false);
            }
            cluster.client("new");
            assert_eq!(cluster.counters().connects_overloaded, 2);
        },
    );
}

#[test]
fn the_operator_is_told_whose_sessions_pile_up() {
    let configure = |config: &mut EngineConfig| config.limits.sessions_disconnected_told = 4;
    let mut cluster = Cluster::new(1, None, configure);
    for number in 0..9 {
        let (client, _) = cluster.persistent(&format!("zombie-{number}"));
        cluster.disconnect(client);
    }
    let told = |event: &Event| match event {
        Event::ManySessions {
            disconnected,
            most,
            example,
        } => Some((*disconnected, most.1, example.client_id().to_owned())),
        _ => None,
    };
    let told: Vec<_> = cluster.events.iter().filter_map(told).collect();
    let expected = [(4, 4, "zombie-3".to_owned()), (8, 8, "zombie-7".to_owned())];
    assert_eq!(told, expected);
}

/// What became of connections that never were accepted.
#[test]
fn refusals_are_counted_by_reason() {
    each(|mut cluster| {
        let late = cluster.open(Version::V5);
        let wrong = cluster.open(Version::V5);
        cluster.send_bytes(wrong, b"\xc0\0");
        cluster.run();
        assert!(cluster.is_closed(wrong));
        cluster.advance(Duration::from_secs(10));
        assert!(cluster.is_closed(late));
        let gone = cluster.open(Version::V5);
        cluster.cut(gone);
        let told = |event: &Event| match event {
            Event::Disconnected { reason, .. } => RefuseReason::of(*reason),
            _ => None,
        };
        let told: Vec<_> = cluster.events.iter().filter_map(told).collect();
        assert_eq!(
            told,
            [RefuseReason::Malformed, RefuseReason::ConnectTimeout]
        );
        let counters = cluster.counters();
        assert_eq!(
            (counters.connects_malformed, counters.connects_timed_out),
            (1, 1)
        );
        assert_eq!(counters.connects_refused, 2);
    });
}

/// The driver counts what it refuses, by the reason that it knows, and the engine all the rest.
#[test]
fn every_reason_for_a_refusal_has_a_counter() {
    let mut cluster = Cluster::new(1, None, |_| {});
    for reason in RefuseReason::ALL {
        cluster.engines[0].count_refused(reason, 10 + reason as u64);
    }
    let counters = cluster.counters();
    let by_reason = [
        counters.connects_banned,
        counters.connects_over_quota,
        counters.connects_over_rate,
        counters.connects_overloaded,
        counters.connects_not_authorized,
        counters.connects_malformed,
        counters.connects_timed_out,
        counters.handshakes_failed,
        counters.handshakes_timed_out,
        counters.handshakes_over_limit,
    ];
    assert_eq!(by_reason, [10, 11, 12, 13, 14, 16, 17, 18, 19, 20]);
    assert_eq!(
        counters.connects_refused,
        by_reason.iter().sum::<u64>() + 15
    );
}

/// What clients get less of than they ask for.
#[test]
fn what_is_refused_or_changed_is_counted() {
    let configure = |config: &mut EngineConfig| {
        config.limits.subscriptions_per_session_max = 1;
        config.limits.wildcard_level_min = 1;
        config.limits.session_expiry_interval_max = 60;
        let connection = Arc::make_mut(&mut config.connection);
        connection.keep_alive_max = NonZeroU16::new(30);
        connection.maximum_packet_size = NonZeroU32::new(100).unwrap();
        connection.receive_maximum = NonZeroU16::new(1).unwrap();
    };
    each_with(configure, |mut cluster| {
        let mut connect = Connect::new(Version::V5, "client");
        connect.keep_alive = 60;
        connect.properties.session_expiry_interval = 3_600;
        let client = cluster.client_with(&connect);
        assert_eq!(cluster.subscribe(client, "#", 0), "suback 0x8f");
        assert_eq!(cluster.subscribe(client, "a", 0), "suback 0x00");
        assert_eq!(cluster.subscribe(client, "b", 0), "suback 0x97");
        connect.keep_alive = 20;
        connect.properties.session_expiry_interval = 60;
        let other = cluster.client_with(&Connect {
            client_id: "other",
            ..connect
        });
        cluster.publish(client, "a", &"x".repeat(200), 0);
        cluster.run();
        assert!(cluster.is_closed(client));
        cluster.publish(other, "a", "x", 2);
        cluster.publish(other, "a", "x", 2);
        cluster.run();
        assert!(cluster.is_closed(other));
        let counters = cluster.counters();
        let counted = [
            counters.subscriptions_not_valid,
            counters.subscriptions_over_quota,
            counters.keep_alives_changed,
            counters.session_expiries_cut,
            counters.packets_too_large,
            counters.receive_maximum_exceeded,
        ];
        assert_eq!(counted, [1; 6]);
    });
}
