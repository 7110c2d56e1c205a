//! Crashes at every commit of small histories: what the log holds up to there, another broker takes
//! over, with any number of shards, and clients go on where they were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{AckType, Connect, QoS, RetainHandling, Version};
use avocet_engine::EngineConfig;
use avocet_session::{Now, UnixTime};

use crate::cluster::Rng;
use crate::durability::{resident, stored};
use crate::run::{Run, World, assert_nothing_is_left, crash_everywhere, reconnect_all};

const NAMES: [&str; 4] = ["s0", "s1", "s2", "s3"];

/// [MQTT5-4.3.2] [MQTT5-4.3.3] A QoS 1 message comes at least once, a QoS 2 message exactly once,
/// whenever the broker crashes, in one shard and between several.
#[test]
fn a_crash_at_any_commit_neither_loses_nor_doubles_messages() {
    let story = |run: &mut Run| {
        for name in NAMES {
            run.connect(name, u32::MAX);
            run.subscribe(name, "t/#", 2);
        }
        run.connect("publisher", u32::MAX);
        run.publish("publisher", "t/a", "one", 2);
        run.publish("publisher", "t/a", "two", 1);
        run.publish("publisher", "t/b", "three", 2);
    };
    crash_everywhere(stored, story, |run| {
        let subscribed: Vec<_> = NAMES
            .into_iter()
            .filter(|name| run.peers[name].subscribed)
            .collect();
        reconnect_all(run);
        for name in subscribed {
            assert_eq!(run.got(name, "one"), 1, "{name}");
            assert!(run.got(name, "two") >= 1, "{name}");
            assert_eq!(run.got(name, "three"), 1, "{name}");
        }
        assert!(run.peers["publisher"].publications.iter().all(|it| it.done));
        assert_nothing_is_left(run);
    });
}

/// [MQTT5-4.3.3-5] [MQTT5-4.4.0-1] What a client had in hand comes again with the same Packet
/// Identifier and DUP 1, or as PUBREL.
#[test]
fn a_crash_at_any_commit_goes_on_with_what_was_in_flight() {
    let story = |run: &mut Run| {
        for name in ["s0", "s1"] {
            run.connect(name, u32::MAX);
            run.subscribe(name, "t", 2);
            run.set_acks(name, false);
        }
        run.connect("publisher", u32::MAX);
        for payload in ["one", "two", "three"] {
            run.publish("publisher", "t", payload, 2);
        }
        for packet_id in [1, 2] {
            run.send_ack("s1", AckType::Pubrec, packet_id);
        }
        run.send_ack("s1", AckType::Pubcomp, 1);
    };
    crash_everywhere(stored, story, |run| {
        let subscribed = ["s0", "s1"].map(|name| run.peers[name].subscribed);
        reconnect_all(run);
        for (name, subscribed) in ["s0", "s1"].into_iter().zip(subscribed) {
            for payload in ["one", "two", "three"] {
                assert!(
                    !subscribed || run.got(name, payload) == 1,
                    "{name} {payload}"
                );
            }
        }
        assert_nothing_is_left(run);
    });
}

/// [MQTT5-4.6.0-5] What one client published to a topic keeps its order, retained or not, also when
/// its session does not survive.
#[test]
fn a_crash_at_any_commit_keeps_the_order_of_a_topic() {
    const TOPICS: [&str; 4] = ["t/a", "t/b", "t/c", "t/d"];
    let world = |shards| World {
        shards,
        seed: None,
        configure: stored,
    };
    let story = |run: &mut Run| {
        for name in NAMES {
            run.connect(name, u32::MAX);
            run.subscribe(name, "t/#", 1);
        }
        run.connect("publisher", 0);
        // All at once, so that several are on their way in one commit.
        let publisher = run.client("publisher");
        for (n, retain) in [(1, false), (2, true), (3, false), (4, true)] {
            for topic in TOPICS {
                let payload = format!("{topic} {n}");
                run.cluster
                    .publish_with(publisher, topic, &payload, 1, |publish| {
                        publish.retain = retain;
                    });
            }
        }
        run.cluster.run();
    };
    for (shards, then) in [(1, 2), (1, 3), (2, 3), (3, 2), (3, 4)] {
        let mut whole = Run::new(world(shards), usize::MAX);
        story(&mut whole);
        let commits = whole.cluster.log.len();
        for stored in 0..=commits {
            eprintln!("{shards} shards, {stored} of {commits} commits stored, then {then} shards");
            let mut run = Run::new(world(shards), stored);
            story(&mut run);
            let now = run.cluster.now;
            run.restart(world(then), stored, usize::MAX, now);
            for name in NAMES {
                run.peers.get_mut(name).unwrap().got.clear();
                run.reconnect(name);
            }
            run.cluster.run();
            run.look();
            for (name, topic) in NAMES.iter().flat_map(|name| TOPICS.map(|it| (name, it))) {
                let got = run.peers[name].got.iter().map(|(payload, _)| payload);
                let mut first: Vec<&String> = Vec::new();
                for payload in got.filter(|payload| payload.starts_with(topic)) {
                    if !first.contains(&payload) {
                        first.push(payload);
                    }
                }
                assert!(first.is_sorted(), "{name} {first:?}");
            }
        }
    }
}

/// [MQTT5-4.6.0-5] A message is on its way to a subscriber while another subscribes, and gets the next
/// one: a crash does not bring the first one to it, behind the next.
#[test]
fn a_crash_brings_nothing_to_a_later_subscription_out_of_order() {
    let world = |shards| World {
        shards,
        seed: None,
        configure: stored,
    };
    let mut run = Run::new(world(3), usize::MAX);
    run.connect("publisher", u32::MAX);
    let publisher = run.client("publisher");
    let home = run.cluster.shard(publisher);
    let mut others = BTreeMap::new();
    for name in ["s0", "s1", "s2", "s3", "s4", "s5"] {
        run.connect(name, u32::MAX);
        others.insert(run.cluster.shard(run.client(name)), name);
    }
    others.remove(&home);
    let [first, late_name] = others.values().copied().collect::<Vec<_>>()[..] else {
        panic!("{others:?}");
    };
    let late_client = run.client(late_name);
    let late = run.cluster.shard(late_client);
    run.subscribe(first, "t", 1);
    // All but the shard of the first subscriber have their turns.
    let go_on = |run: &mut Run| {
        for shard in [home, late].repeat(3) {
            run.cluster.turn(shard);
        }
    };
    run.cluster.publish(publisher, "t", "one", 2);
    go_on(&mut run);
    run.cluster
        .send_subscribe(late_client, "t", 1, None, |_| {});
    go_on(&mut run);
    run.cluster.publish(publisher, "t", "two", 2);
    go_on(&mut run);
    let (stored, now) = (run.cluster.log.len(), run.cluster.now);
    run.restart(world(1), stored, usize::MAX, now);
    assert_eq!(run.got(late_name, "two"), 1);
    for name in [first, late_name] {
        run.peers.get_mut(name).unwrap().got.clear();
        assert!(run.reconnect(name));
    }
    run.look();
    assert_eq!(run.peers[late_name].got, []);
    let both = ["one", "two"].map(|payload| (payload.to_owned(), 1));
    assert_eq!(run.peers[first].got, both);
}

/// [MQTT5-3.3.1-5] The last value of a topic is retained, or none, whatever came before it.
#[test]
fn a_crash_at_any_commit_keeps_what_is_retained() {
    let story = |run: &mut Run| {
        run.connect("s0", u32::MAX);
        run.subscribe("s0", "r/#", 2);
        run.connect("p0", u32::MAX);
        run.connect("p1", u32::MAX);
        run.publish_with("p0", "r/gone", "first", 2, true);
        run.publish_with("p1", "r/gone", "second", 2, true);
        run.publish_with("p0", "r/kept", "first", 1, true);
        run.publish_with("p1", "r/kept", "last", 2, true);
        run.publish_with("p1", "r/gone", "", 2, true);
    };
    crash_everywhere(stored, story, |run| {
        let over = |name: &str| run.peers[name].publications.iter().all(|it| it.done);
        let acknowledged = over("p0") && over("p1");
        // What was on its way is where it belongs before anybody comes.
        let store = run.cluster.store.as_ref().unwrap();
        if acknowledged {
            assert_eq!(store.retained("r/gone"), None);
            assert_eq!(store.retained("r/kept").as_deref(), Some("last"));
        }
        for name in ["s0", "p0", "p1"] {
            run.reconnect(name);
        }
        assert!(run.got("s0", "last") >= 1);
        let store = run.cluster.store.as_ref().unwrap();
        assert_eq!(store.retained("r/gone"), None);
    });
}

const RETAINED: [(&str, &str); 9] = [
    ("r/a", "a"),
    ("r/b", "b"),
    ("r/b/c", "c"),
    ("r/d", "d"),
    ("r/e", "e"),
    ("r/f", "f"),
    ("r/g", "g"),
    ("r/h", "h"),
    ("r/i", "i"),
];

fn small_pages(config: &mut EngineConfig) {
    stored(config);
    config.limits.retained_page_messages = 2;
}

fn retained_story(run: &mut Run) {
    run.connect("p0", u32::MAX);
    for (topic, payload) in RETAINED {
        run.publish_with("p0", topic, payload, 2, true);
    }
    run.connect("s0", u32::MAX);
    run.subscribe("s0", "r/#", 2);
}

/// [MQTT5-3.3.1-9] Retained messages that a subscription asked for come once, however far they were
/// when the broker crashed.
#[test]
fn a_crash_at_any_commit_goes_on_with_the_retained_messages_of_a_subscription() {
    crash_everywhere(small_pages, retained_story, |run| {
        let retained = run.peers["p0"].publications.iter().all(|it| it.done);
        let confirmed = run.peers.get("s0").is_some_and(|it| it.subscribed);
        reconnect_all(run);
        for (_, payload) in RETAINED {
            let got = run.got("s0", payload);
            assert!(got == 1 || !(retained && confirmed), "{payload}: {got}");
        }
        assert_nothing_is_left(run);
    });
}

/// The same when it crashes again, with another number of shards each time.
#[test]
fn a_second_crash_goes_on_with_the_retained_messages_of_a_subscription() {
    let world = |shards| World {
        shards,
        seed: None,
        configure: small_pages,
    };
    let mut whole = Run::new(world(2), usize::MAX);
    retained_story(&mut whole);
    let commits = whole.cluster.log.len();
    for (first, then) in (commits - 12..=commits).zip([1, 2, 3].into_iter().cycle()) {
        let second = |stored: Option<usize>| {
            let mut run = Run::new(world(2), first);
            retained_story(&mut run);
            let now = run.cluster.now;
            let confirmed = run.peers["s0"].subscribed;
            run.restart(world(then), first, stored.unwrap_or(usize::MAX), now);
            reconnect_all(&mut run);
            (run, confirmed)
        };
        let end = second(None).0.cluster.log.len();
        for stored in first..=end {
            eprintln!("{first} of {commits} commits, {then} shards, {stored} of {end}");
            let (mut run, confirmed) = second(Some(stored));
            let now = run.cluster.now;
            run.restart(world(3), stored, usize::MAX, now);
            reconnect_all(&mut run);
            for (_, payload) in RETAINED {
                let got = run.got("s0", payload);
                assert!(got == 1 || !confirmed && got < 2, "{payload}: {got}");
            }
        }
    }
}

/// [MQTT5-3.3.1-11] The connection ends before SUBACK, and the client subscribes again without retained
/// messages: a crash does not bring what the first SUBSCRIBE asked for.
#[test]
fn a_crash_brings_no_retained_messages_that_a_lost_suback_left_behind() {
    let world = World {
        shards: 3,
        seed: None,
        configure: small_pages,
    };
    let mut lost = 0;
    for turns in 1..12 {
        let mut run = Run::new(world, usize::MAX);
        run.connect("p0", u32::MAX);
        for (topic, payload) in RETAINED {
            run.publish_with("p0", topic, payload, 2, true);
        }
        run.connect("s0", u32::MAX);
        let client = run.peers["s0"].client.unwrap();
        run.cluster.send_subscribe(client, "r/#", 2, None, |_| {});
        (0..turns).for_each(|turn| run.cluster.turn(turn % 3));
        run.cluster.cut(client);
        run.reconnect("s0");
        let client = run.peers["s0"].client.unwrap();
        run.cluster
            .send_subscribe(client, "r/#", 2, None, |options| {
                options.retain_handling = RetainHandling::DoNotSend;
            });
        run.cluster.run();
        run.look();
        let got = run.peers["s0"].got.len();
        lost += usize::from(got == 0);
        run.restart_at_once(world);
        reconnect_all(&mut run);
        assert_eq!(run.peers["s0"].got.len(), got, "{turns} turns");
    }
    assert!(lost > 0);
}

/// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5] Messages of a shared subscription come to one member each, and
/// one of QoS 2 that a member may have stays with it.
#[test]
fn a_crash_at_any_commit_neither_loses_nor_doubles_messages_of_a_group() {
    let story = |run: &mut Run| {
        for name in ["m0", "m1"] {
            run.connect(name, u32::MAX);
            run.subscribe(name, "$share/g/t", 2);
        }
        run.set_acks("m1", false);
        run.connect("publisher", u32::MAX);
        for (payload, qos) in [
            ("one", 2),
            ("two", 1),
            ("three", 2),
            ("four", 1),
            ("five", 2),
        ] {
            run.publish("publisher", "t", payload, qos);
        }
    };
    crash_everywhere(stored, story, |run| {
        let subscribed = ["m0", "m1"]
            .into_iter()
            .all(|name| run.peers[name].subscribed);
        reconnect_all(run);
        reconnect_all(run);
        if !subscribed {
            return;
        }
        for payload in ["one", "two", "three", "four", "five"] {
            let got = run.got("m0", payload) + run.got("m1", payload);
            let once = ["one", "three", "five"].contains(&payload);
            assert!(got == 1 || got > 1 && !once, "{payload}: {got}");
        }
        assert_nothing_is_left(run);
    });
}

/// [MQTT5-4.8.2-5] What a member may have whose session ends with its connection comes to no other
/// one, and what has not left to it does.
#[test]
fn a_crash_at_any_commit_gives_no_message_of_a_group_to_a_second_member() {
    let story = |run: &mut Run| {
        run.connect("m0", u32::MAX);
        run.subscribe("m0", "$share/g/t", 2);
        run.connect_with("m1", 0, |connect| {
            connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        });
        run.subscribe("m1", "$share/g/t", 2);
        run.set_acks("m1", false);
        run.connect("publisher", u32::MAX);
        for payload in ["one", "two", "three", "four", "five", "six"] {
            run.publish("publisher", "t", payload, 2);
        }
        run.send_ack("m1", AckType::Pubrec, 1);
        run.send_ack("m1", AckType::Pubcomp, 1);
    };
    crash_everywhere(stored, story, |run| {
        let subscribed = run.peers["m0"].subscribed;
        reconnect_all(run);
        reconnect_all(run);
        let mut lost = 0;
        for payload in ["one", "two", "three", "four", "five", "six"] {
            let got = run.got("m0", payload) + run.got("m1", payload);
            assert!(got <= 1, "{payload}: {got}");
            lost += 1 - got;
        }
        // Of the next one to leave, nobody knows that it has not.
        assert!(lost <= 1 || !subscribed, "{lost} lost");
        assert_nothing_is_left(run);
    });
}

/// What did not leave to such a member goes back to the group, and is stored for it again.
#[test]
fn what_a_lost_member_was_not_sent_is_stored_for_its_group_again() {
    for (before, after) in [(1, 1), (3, 2)] {
        let world = |shards| World {
            shards,
            seed: None,
            configure: stored,
        };
        let mut run = Run::new(world(before), usize::MAX);
        run.connect("m0", u32::MAX);
        run.subscribe("m0", "$share/g/t", 2);
        run.cut("m0");
        run.connect("m1", 0);
        run.subscribe("m1", "$share/g/t", 2);
        run.connect("publisher", u32::MAX);
        // Commits come, and m1 reads nothing.
        let client = run.client("m1");
        run.cluster.set_reads(client, false);
        for payload in ["one", "two", "three"] {
            run.publish("publisher", "t", payload, 2);
        }
        run.cut("m1");
        run.restart_at_once(world(after));
        run.reconnect("m0");
        run.look();
        let got: Vec<_> = run.peers["m0"].got.iter().map(|it| it.0.clone()).collect();
        assert_eq!(got, ["one", "two", "three"]);
        run.reconnect("publisher");
        assert_nothing_is_left(&run);
    }
}

/// [MQTT5-4.8.2-5] What is on its way to a member that leaves goes back to the group, which has had
/// it all the time, whenever the broker crashes.
#[test]
fn what_is_on_its_way_to_a_member_that_leaves_stays_with_its_group() {
    let story = |name, seed, steps, reported| {
        let world = World {
            shards: 3,
            seed: Some(seed),
            configure: stored,
        };
        let mut run = Run::new(world, reported);
        run.connect("m0", u32::MAX);
        run.subscribe("m0", "$share/g/t", 2);
        run.cut("m0");
        run.connect(name, 0);
        run.subscribe(name, "$share/g/t", 1);
        run.connect("publisher", u32::MAX);
        let (publisher, leaves) = (run.client("publisher"), run.client(name));
        run.cluster.publish(publisher, "t", "one", 1);
        for _ in 0..steps {
            run.cluster.step();
        }
        run.cluster.send_unsubscribe(leaves, "$share/g/t");
        run.cluster.run();
        run
    };
    for (name, case) in ["m1", "m2", "m3"]
        .into_iter()
        .flat_map(|name| (0..40).map(move |case| (name, case)))
    {
        let (seed, steps) = (case / 8, case % 8);
        let commits = story(name, seed, steps, usize::MAX).cluster.log.len();
        for at in 0..=commits {
            let mut run = story(name, seed, steps, at);
            let now = run.cluster.now;
            let packets = run.packets("publisher");
            let acknowledged = packets.iter().any(|packet| packet.starts_with("puback"));
            let world = World {
                shards: 2,
                seed: None,
                configure: stored,
            };
            run.restart(world, at, usize::MAX, now);
            run.reconnect("m0");
            run.look();
            let got = run.got("m0", "one") + run.got(name, "one");
            assert!(
                got > 0 || !acknowledged,
                "{name}, order {seed}, {steps} steps, {at} of {commits} commits"
            );
        }
    }
}

/// A group keeps its messages while none of its members is connected.
#[test]
fn queues_of_groups_survive() {
    for (before, after) in [(1, 1), (1, 3), (3, 2)] {
        let world = |shards| World {
            shards,
            seed: None,
            configure: stored,
        };
        let mut run = Run::new(world(before), usize::MAX);
        run.connect("m0", u32::MAX);
        run.subscribe("m0", "$share/g/t", 2);
        run.cut("m0");
        run.connect("publisher", u32::MAX);
        for payload in ["one", "two", "three"] {
            run.publish("publisher", "t", payload, 2);
        }
        run.restart_at_once(world(after));
        run.reconnect("publisher");
        run.publish("publisher", "t", "four", 2);
        run.reconnect("m0");
        run.look();
        let got: Vec<_> = run.peers["m0"].got.iter().map(|it| it.0.clone()).collect();
        assert_eq!(got, ["one", "two", "three", "four"]);
        assert_nothing_is_left(&run);
    }
}

/// [MQTT5-3.1.2-8] A will is published once, whatever ended first: its connection or the broker.
#[test]
fn a_crash_at_any_commit_publishes_a_will_once() {
    let story = |run: &mut Run| {
        run.connect("s0", u32::MAX);
        run.subscribe("s0", "wills/#", 2);
        run.connect_with("durable", u32::MAX, |connect| {
            connect.will = Some(with_qos_2(crate::publish::will("wills/a", "gone")));
        });
        run.connect_with("fleeting", 0, |connect| {
            connect.will = Some(with_qos_2(crate::publish::will("wills/b", "gone too")));
        });
        run.connect_with("polite", u32::MAX, |connect| {
            connect.will = Some(with_qos_2(crate::publish::will("wills/c", "never")));
        });
        let polite = run.client("polite");
        run.cluster.disconnect(polite);
        run.cluster.run();
        run.cut("durable");
    };
    crash_everywhere(stored, story, |run| {
        let subscribed = run.peers["s0"].subscribed;
        // Who has seen its CONNACK has left its will.
        let stored = run.peers["durable"].connected;
        run.reconnect("s0");
        if subscribed {
            assert!(run.got("s0", "gone") <= 1);
            assert!(run.got("s0", "gone") == 1 || !stored);
            assert!(run.got("s0", "gone too") <= 1);
        }
        assert_eq!(run.cluster.store.as_ref().unwrap().wills(), 0);
        assert_nothing_is_left(run);
    });
}

/// [MQTT5-3.1.2-17] A will that is to be retained is, whichever shard owns its topic and whatever its QoS.
#[test]
fn a_crash_at_any_commit_retains_a_will() {
    const WILLS: [(&str, &str, QoS); 4] = [
        ("w0", "wills/a", QoS::AtMostOnce),
        ("w1", "wills/b", QoS::AtMostOnce),
        ("w2", "wills/c", QoS::AtMostOnce),
        ("w3", "wills/d", QoS::ExactlyOnce),
    ];
    let story = |run: &mut Run| {
        run.connect("s0", u32::MAX);
        run.subscribe("s0", "wills/#", 2);
        for (name, topic, qos) in WILLS {
            run.connect_with(name, 0, |connect| {
                let will = crate::publish::will(topic, name);
                let retain = true;
                connect.will = Some(avocet_codec::Will {
                    qos,
                    retain,
                    ..will
                });
            });
        }
        for (name, ..) in WILLS {
            run.cut(name);
        }
    };
    crash_everywhere(stored, story, |run| {
        let subscribed = run.peers["s0"].subscribed;
        run.reconnect("s0");
        let store = run.cluster.store.as_ref().unwrap();
        assert_eq!(store.wills(), 0);
        for (name, topic, _) in WILLS {
            let retained = store.retained(topic);
            // Who has seen its CONNACK has left its will.
            let left = run.peers[name].connected;
            assert!(!left || retained.as_deref() == Some(name), "{topic}");
        }
        if run.peers["w3"].connected && subscribed {
            assert_eq!(run.got("s0", "w3"), 1);
        }
        assert_nothing_is_left(run);
    });
}

fn with_qos_2(will: avocet_codec::Will<'_>) -> avocet_codec::Will<'_> {
    avocet_codec::Will {
        qos: QoS::ExactlyOnce,
        ..will
    }
}

/// [MQTT5-3.1.3-9] A delay goes on while the broker is away; that of a connection which the
/// crash cut begins with the restart.
#[test]
fn will_delays_run_through_downtime() {
    for (before, after) in [(1, 1), (1, 2), (3, 2)] {
        let world = |shards| World {
            shards,
            seed: None,
            configure: stored,
        };
        let mut run = Run::new(world(before), usize::MAX);
        run.connect("s0", u32::MAX);
        run.subscribe("s0", "wills/#", 1);
        for (name, topic) in [
            ("cut", "wills/cut"),
            ("open", "wills/open"),
            ("back", "wills/back"),
        ] {
            run.connect_with(name, u32::MAX, |connect| {
                let mut will = crate::publish::will(topic, name);
                will.will_delay_interval = 100;
                connect.will = Some(will);
            });
        }
        run.cut("cut");
        run.cut("back");
        run.advance(10);
        let now = run.cluster.now + Duration::from_secs(80);
        run.restart(world(after), usize::MAX, usize::MAX, now);
        run.reconnect("s0");
        run.reconnect("back");
        assert!(run.peers["s0"].got.is_empty());
        run.advance(9);
        assert!(run.peers["s0"].got.is_empty());
        run.advance(2);
        assert_eq!(run.got("s0", "cut"), 1);
        run.advance(88);
        assert_eq!(run.got("s0", "open"), 0);
        run.advance(2);
        assert_eq!(run.got("s0", "open"), 1);
        assert_eq!(run.got("s0", "back"), 0);
    }
}

/// [MQTT5-3.1.2-23] Deadlines are of the wall clock; a session whose connection the crash cut
/// has its whole interval from the restart on, once.
#[test]
fn sessions_expire_through_downtime() {
    let world = |shards| World {
        shards,
        seed: None,
        configure: stored,
    };
    let begin = || {
        let mut run = Run::new(world(2), usize::MAX);
        for name in ["away", "open"] {
            run.connect(name, 60);
            run.subscribe(name, "t", 1);
        }
        run.cut("away");
        run
    };
    let present = |run: &mut Run, name| {
        let sessions = |run: &Run| {
            let counters = run.cluster.counters();
            counters.sessions_connected + counters.sessions_disconnected
        };
        run.peers.get_mut(name).unwrap().confirmed = false;
        assert!(sessions(run) <= 2);
        run.reconnect(name)
    };
    let later = |run: &Run, seconds| run.cluster.now + Duration::from_secs(seconds);

    let mut run = begin();
    let now = later(&run, 59);
    run.restart(world(3), usize::MAX, usize::MAX, now);
    assert!(present(&mut run, "away") && present(&mut run, "open"));

    let mut run = begin();
    let now = later(&run, 61);
    run.restart(world(1), usize::MAX, usize::MAX, now);
    run.advance(0);
    assert!(!present(&mut run, "away") && present(&mut run, "open"));

    let mut run = begin();
    let now = later(&run, 40);
    run.restart(world(3), usize::MAX, usize::MAX, now);
    let now = later(&run, 40);
    run.restart(world(2), usize::MAX, usize::MAX, now);
    run.advance(19);
    assert_eq!(run.cluster.counters().sessions_expired, 1);
    run.advance(2);
    assert_eq!(run.cluster.counters().sessions_expired, 2);
}

/// Gateways boot in 1970: no session expires before the clock is right.
#[test]
fn no_session_expires_while_the_clock_is_behind() {
    let world = World {
        shards: 2,
        seed: None,
        configure: stored,
    };
    let mut run = Run::new(world, usize::MAX);
    run.connect("away", 60);
    run.subscribe("away", "t", 1);
    run.cut("away");
    let now = Now::new(run.cluster.now.instant, UnixTime::from_millis(1_000));
    run.restart(world, usize::MAX, usize::MAX, now);
    run.advance(3_600);
    assert!(run.reconnect("away"));
}

/// [MQTT5-3.1.2-4] What a Clean Start discarded never comes back, and what an UNSUBACK ended
/// neither.
#[test]
fn a_crash_at_any_commit_brings_nothing_back() {
    let story = |run: &mut Run| {
        for name in ["s0", "s1"] {
            run.connect(name, u32::MAX);
            run.subscribe(name, "t", 2);
            run.cut(name);
        }
        run.connect("publisher", u32::MAX);
        run.publish("publisher", "t", "old", 2);
        run.connect_with("s0", 0, |connect| connect.clean_start = true);
        run.reconnect("s1");
        let client = run.client("s1");
        run.cluster.send_unsubscribe(client, "t");
        run.cluster.run();
        let packets = run.packets("s1");
        let confirmed = packets.iter().any(|packet| packet == "unsuback 0x00");
        run.peers.get_mut("s1").unwrap().unsubscribed = confirmed;
    };
    crash_everywhere(stored, story, |run| {
        let discarded = run.peers["s0"].expiry_interval == 0 && run.peers["s0"].connected;
        let unsubscribed = run.peers["s1"].unsubscribed;
        let present = run.reconnect("s0");
        assert!(!(discarded && present));
        run.reconnect("s1");
        let connect = Connect::new(Version::V5, "other");
        let other = run.cluster.client_with(&connect);
        run.cluster.publish(other, "t", "new", 1);
        run.cluster.run();
        run.look();
        if discarded {
            assert_eq!(run.got("s0", "old") + run.got("s0", "new"), 0);
        }
        if unsubscribed {
            assert_eq!(run.got("s1", "new"), 0);
        }
    });
}

/// [MQTT5-3.3.1-1] What was never sent to a client that has gone comes with DUP 0 after a restart,
/// and what may have been sent with DUP 1.
#[test]
fn dup_tells_what_may_have_been_sent() {
    for (shards, qos) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        let world = World {
            shards,
            seed: None,
            configure: resident::<2>,
        };
        for cut in [false, true] {
            let mut run = Run::new(world, usize::MAX);
            run.connect_with("s0", u32::MAX, |connect| {
                connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
            });
            run.subscribe("s0", "t", qos);
            run.set_acks("s0", false);
            run.connect("publisher", u32::MAX);
            for payload in ["1", "2", "3", "4", "5", "6"] {
                run.publish("publisher", "t", payload, 1.max(qos));
            }
            if cut {
                run.cut("s0");
            }
            for payload in ["7", "8"] {
                run.publish("publisher", "t", payload, 1.max(qos));
            }
            run.restart_at_once(world);
            let client = run.cluster.connect(&crate::cluster::persistent("s0"));
            let messages = run.cluster.messages(client);
            let expected = (1..=8).map(|n| {
                let dup = if n <= 2 || !cut { " dup" } else { "" };
                format!("t={n} q{qos}{dup}")
            });
            assert_eq!(messages, expected.collect::<Vec<_>>());
        }
    }
}

/// [MQTT5-3.8.4-3] Subscriptions come back with their options and identifiers.
#[test]
fn subscriptions_survive_with_their_options() {
    for (before, after) in [(1, 3), (3, 1), (2, 3)] {
        let world = |shards| World {
            shards,
            seed: None,
            configure: stored,
        };
        let mut run = Run::new(world(before), usize::MAX);
        run.connect("s0", u32::MAX);
        let client = run.client("s0");
        run.cluster
            .subscribe_with(client, "t/+", 1, Some(7), |options| {
                options.no_local = true;
                options.retain_as_published = true;
            });
        run.cluster
            .subscribe_with(client, "+/b", 2, Some(9), |_| {});
        run.restart_at_once(world(after));
        let (client, present) = run.cluster.persistent("s0");
        assert!(present);
        let other = run.cluster.client("other");
        run.cluster.publish_retained(other, "t/a", "x", 2);
        run.cluster.publish(other, "t/b", "x", 2);
        run.cluster.publish(client, "t/a", "own", 1);
        let mut messages = run.cluster.messages(client);
        messages.sort();
        assert_eq!(messages, ["t/a=x q1 retain ids [7]", "t/b=x q2 ids [7, 9]"]);
    }
}

/// A crash while a restart is at work, or just after it, is like any other.
#[test]
fn a_crash_at_any_commit_of_a_restart_neither_loses_nor_doubles_messages() {
    let world = |shards| World {
        shards,
        seed: None,
        configure: stored,
    };
    let story = |run: &mut Run| {
        for name in ["s0", "s1", "s2", "s3"] {
            run.connect(name, u32::MAX);
            run.subscribe(name, "t", 2);
        }
        run.subscribe("s2", "$share/g/t", 2);
        run.connect("publisher", u32::MAX);
        run.publish("publisher", "t", "one", 2);
        run.publish_with("publisher", "t", "two", 2, true);
    };
    let mut whole = Run::new(world(3), usize::MAX);
    story(&mut whole);
    let commits = whole.cluster.log.len();
    let subscribed = commits / 2;
    for first in subscribed..=commits {
        let second = |stored: Option<usize>| {
            let mut run = Run::new(world(3), first);
            story(&mut run);
            let now = run.cluster.now;
            run.restart(world(2), first, stored.unwrap_or(usize::MAX), now);
            reconnect_all(&mut run);
            run
        };
        let end = second(None).cluster.log.len();
        for stored in first..=end {
            eprintln!("{first} of {commits} commits, then {stored} of {end}");
            let mut run = second(Some(stored));
            let now = run.cluster.now;
            run.restart(world(3), stored, usize::MAX, now);
            reconnect_all(&mut run);
            for name in ["s0", "s1", "s3"] {
                assert_eq!(run.got(name, "one"), 1, "{name}");
                assert_eq!(run.got(name, "two"), 1, "{name}");
            }
            // One by its own subscription, one by the group, whose only member it is.
            assert_eq!(run.got("s2", "one"), 2);
            assert_eq!(run.got("s2", "two"), 2);
            assert_nothing_is_left_but_retained(&run);
        }
    }
}

fn assert_nothing_is_left_but_retained(run: &Run) {
    assert_nothing_is_left(run);
    assert_eq!(
        run.cluster.store.as_ref().unwrap().retained("t").as_deref(),
        Some("two")
    );
}

/// Of a long queue whose limit drops the oldest, these go also where only the store has them.
#[test]
fn the_oldest_messages_go_from_the_store_too() {
    fn configure(config: &mut EngineConfig) {
        resident::<2>(config);
        let limits = &mut Arc::make_mut(&mut config.connection).limits;
        limits.queued_messages_max = 5;
        limits.overflow = avocet_session::Overflow::DropOldest;
    }
    for (shards, restarts) in [(1, false), (1, true), (3, false), (3, true)] {
        let world = World {
            shards,
            seed: None,
            configure,
        };
        let mut run = Run::new(world, usize::MAX);
        run.connect("s0", u32::MAX);
        run.subscribe("s0", "t", 1);
        run.cut("s0");
        run.connect("publisher", u32::MAX);
        for n in 0..20 {
            if restarts && n == 8 {
                run.restart_at_once(world);
                run.reconnect("publisher");
            }
            run.publish("publisher", "t", &n.to_string(), 1);
        }
        run.reconnect("s0");
        run.look();
        let got: Vec<_> = run.peers["s0"].got.iter().map(|it| it.0.clone()).collect();
        assert_eq!(got, ["15", "16", "17", "18", "19"]);
        assert_nothing_is_left(&run);
    }
}

/// Histories by seed: clients come and go, commits come late, and the broker crashes now and then.
#[test]
fn crashes_at_random_neither_lose_nor_double_messages() {
    const SUBSCRIBERS: [&str; 2] = ["s0", "s1"];
    const MEMBERS: [&str; 2] = ["m0", "m1"];
    const ALL: [&str; 5] = ["s0", "s1", "m0", "m1", "publisher"];
    for seed in 0..60 {
        eprintln!("seed {seed}");
        let mut rng = Rng::new(seed);
        let world = |rng: &mut Rng| World {
            shards: 1 + rng.below(3) as u16,
            seed: Some(seed),
            configure: if seed % 2 == 0 { stored } else { resident::<3> },
        };
        let mut run = Run::new(world(&mut rng), usize::MAX);
        for name in SUBSCRIBERS {
            run.connect(name, u32::MAX);
            run.subscribe(name, "t/#", 2);
        }
        for name in MEMBERS {
            run.connect(name, u32::MAX);
            run.subscribe(name, "$share/g/t/#", 2);
        }
        run.connect("publisher", u32::MAX);
        let mut published: Vec<(String, u8)> = Vec::new();
        for step in 0..80 {
            let name = ALL[rng.below(ALL.len())];
            let connected = run.peers[name].client.is_some();
            match rng.below(12) {
                0..=4 => {
                    let (payload, qos) = (format!("{step}"), 1 + rng.below(2) as u8);
                    let topic = ["t/a", "t/b", "t/c"][rng.below(3)];
                    run.publish_with("publisher", topic, &payload, qos, rng.one_in(4));
                    published.push((payload, qos));
                }
                5 => run.cut(name),
                6 | 7 => drop(run.reconnect(name)),
                8 if connected => run.set_acks(name, rng.one_in(2)),
                9 => run.cluster.reported_max = run.cluster.log.len(),
                10 => {
                    let all = run.cluster.log.len();
                    let reported = all.min(run.cluster.reported_max);
                    let stored = reported + rng.below(all - reported + 1);
                    let now = run.cluster.now;
                    run.restart(world(&mut rng), stored, usize::MAX, now);
                }
                _ => {}
            }
        }
        run.restart_at_once(world(&mut rng));
        reconnect_all(&mut run);
        reconnect_all(&mut run);
        for (payload, qos) in published {
            let of_group: usize = MEMBERS.iter().map(|name| run.got(name, &payload)).sum();
            let mut counts = vec![of_group];
            counts.extend(SUBSCRIBERS.map(|name| run.got(name, &payload)));
            let right = |count: &usize| *count == 1 || *count > 1 && qos == 1;
            assert!(counts.iter().all(right), "{payload} q{qos}: {counts:?}");
        }
        assert_nothing_is_left(&run);
    }
}
