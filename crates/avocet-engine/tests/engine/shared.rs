use std::time::Duration;

use avocet_codec::{AckType, Connect, PacketId, Version};
use avocet_engine::{
    DropReason, EngineConfig, GroupName, SessionKey, ShardId, SharedStrategy, Tenant,
};
use avocet_topic::TopicFilterBuf;

use crate::cluster::{Client, Cluster, ack, each, each_with};

const FILTER: &str = "$share/workers/jobs/#";

fn strategy(strategy: SharedStrategy) -> impl Fn(&mut EngineConfig) {
    move |config| config.shared_strategy = strategy
}

fn workers(cluster: &mut Cluster, qos: u8) -> Vec<Client> {
    ["one", "two", "three"]
        .map(|id| {
            let client = cluster.client(id);
            let suback = format!("suback {qos:#04x}");
            assert_eq!(cluster.subscribe(client, FILTER, qos), suback);
            client
        })
        .into()
}

fn payloads(cluster: &mut Cluster, client: Client) -> Vec<u32> {
    cluster
        .messages(client)
        .iter()
        .map(|message| {
            let payload = message.split('=').nth(1).unwrap();
            payload.split(' ').next().unwrap().parse().unwrap()
        })
        .collect()
}

/// What a member of another shard is done with goes to its group as one value.
#[test]
fn a_group_hears_at_once_of_all_that_a_member_is_done_with() {
    for window in [10, 2] {
        let configure = |config: &mut EngineConfig| config.limits.group_window = window;
        let mut cluster = Cluster::new(2, None, configure);
        let filter = TopicFilterBuf::new(FILTER).unwrap();
        let group = ShardId::of_group(&GroupName::new(Tenant::NONE, filter), 2);
        let [publisher, member] = [true, false].map(|is_there| {
            let mut ids = (0..).map(|n| format!("client {n}"));
            let shard = |id: &str| ShardId::of_session(&SessionKey::new("", id), 2);
            let id = ids.find(|id| (shard(id) == group) == is_there);
            cluster.client(&id.unwrap())
        });
        cluster.subscribe(member, FILTER, 1);
        for n in 0..5 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        let (here, there) = (cluster.shard(publisher), cluster.shard(member));
        cluster.turn(here);
        // The member is sent what it may have, and then acknowledges it.
        cluster.turn(there);
        assert_eq!(cluster.mail(here).len(), 0);
        cluster.turn(there);
        assert_eq!(cluster.mail(here).len(), 1);
        assert_eq!(payloads(&mut cluster, member), [0, 1, 2, 3, 4]);
    }
}

/// [MQTT5-4.8.2]
#[test]
fn one_member_gets_each_message_in_turn() {
    each(|mut cluster| {
        let workers = workers(&mut cluster, 1);
        let publisher = cluster.client("publisher");
        for n in 0..9 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        let got: Vec<_> = workers
            .iter()
            .map(|&client| payloads(&mut cluster, client))
            .collect();
        let mut all: Vec<u32> = got.concat();
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>());
        for of_one in got {
            assert_eq!(of_one.len(), 3, "{of_one:?}");
            assert!(of_one.is_sorted());
        }
    });
}

#[test]
fn old_clients_share_too_and_beside_their_own() {
    each(|mut cluster| {
        let old = cluster.client_with(&Connect::new(Version::V3_1_1, "old"));
        cluster.subscribe(old, FILTER, 1);
        cluster.subscribe(old, "jobs/+", 0);
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "jobs/x", "1", 1);
        let mut messages = cluster.messages(old);
        messages.sort();
        assert_eq!(messages, ["jobs/x=1 q0", "jobs/x=1 q1"]);
    });
}

/// [MQTT5-4.8.2-3] The QoS granted to the member that gets the message counts.
#[test]
fn each_member_has_its_own_options() {
    each(|mut cluster| {
        let low = cluster.client("low");
        cluster.subscribe_with(low, FILTER, 0, Some(1), |_| {});
        let high = cluster.client("high");
        cluster.subscribe_with(high, FILTER, 2, Some(2), |options| {
            options.retain_as_published = true;
        });
        for _ in 0..2 {
            cluster.publish_retained(low, "jobs/x", "1", 2);
        }
        assert_eq!(cluster.messages(low), ["jobs/x=1 q0 ids [1]"]);
        assert_eq!(cluster.messages(high), ["jobs/x=1 q2 retain ids [2]"]);
    });
}

#[test]
fn sticky_keeps_its_member_until_it_goes() {
    each_with(strategy(SharedStrategy::Sticky), |mut cluster| {
        let workers = workers(&mut cluster, 1);
        let publisher = cluster.client("publisher");
        for n in 0..5 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        let chosen: Vec<_> = workers
            .iter()
            .copied()
            .filter(|&client| payloads(&mut cluster, client).len() == 5)
            .collect();
        assert_eq!(chosen.len(), 1);
        cluster.disconnect(chosen[0]);
        for n in 5..10 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        cluster.run();
        let others = workers.iter().filter(|&&client| client != chosen[0]);
        let counts: Vec<_> = others
            .map(|&client| payloads(&mut cluster, client).len())
            .collect();
        assert!(counts == [5, 0] || counts == [0, 5], "{counts:?}");
    });
}

#[test]
fn least_in_flight_spares_the_slow_one() {
    each_with(strategy(SharedStrategy::LeastInFlight), |mut cluster| {
        let workers = workers(&mut cluster, 1);
        cluster.set_acks(workers[1], false);
        let publisher = cluster.client("publisher");
        for n in 0..30 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
            cluster.run();
        }
        assert_eq!(payloads(&mut cluster, workers[1]).len(), 1);
    });
}

#[test]
fn by_topic_and_by_publisher_keep_an_order() {
    for strategy_of in [SharedStrategy::ByTopic, SharedStrategy::ByPublisher] {
        each_with(strategy(strategy_of), |mut cluster| {
            let workers = workers(&mut cluster, 1);
            let publishers = ["p", "q", "r", "s"].map(|id| cluster.client(id));
            for n in 0..10 {
                for (at, publisher) in publishers.iter().enumerate() {
                    let value = at * 100 + n;
                    cluster.publish(*publisher, &format!("jobs/{at}"), &value.to_string(), 1);
                }
            }
            for worker in workers {
                let got = payloads(&mut cluster, worker);
                for at in 0..4 {
                    let of_one: Vec<_> = got.iter().filter(|&&value| value / 100 == at).collect();
                    assert!(
                        of_one.is_empty() || of_one.len() == 10,
                        "{strategy_of:?} {got:?}"
                    );
                    assert!(of_one.is_sorted());
                }
            }
        });
    }
}

/// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5] What a lost member had not acknowledged goes to others; a QoS
/// 2 message that was sent stays with its session.
#[test]
fn messages_of_a_lost_member_go_to_others() {
    each(|mut cluster| {
        let slow = cluster.connect(&{
            let mut connect = crate::cluster::persistent("slow");
            connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
            connect
        });
        cluster.subscribe(slow, FILTER, 2);
        cluster.set_acks(slow, false);
        let publisher = cluster.client("publisher");
        for (n, qos) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)] {
            cluster.publish(publisher, "jobs/x", &n.to_string(), qos);
        }
        assert_eq!(cluster.messages(slow), ["jobs/x=1 q1", "jobs/x=2 q2"]);
        let other = cluster.client("other");
        cluster.subscribe(other, FILTER, 2);
        assert!(cluster.messages(other).is_empty());
        cluster.cut(slow);
        assert_eq!(
            cluster.messages(other),
            ["jobs/x=1 q1", "jobs/x=3 q1", "jobs/x=4 q2", "jobs/x=5 q1"]
        );
        let (slow, present) = cluster.persistent("slow");
        assert!(present);
        assert_eq!(cluster.messages(slow), ["jobs/x=2 q2 dup"]);
    });
}

#[test]
fn the_group_holds_messages_while_no_member_is_connected() {
    each(|mut cluster| {
        let (member, _) = cluster.persistent("member");
        cluster.subscribe(member, FILTER, 1);
        cluster.disconnect(member);
        let publisher = cluster.client("publisher");
        for (n, qos) in [(1, 1), (2, 0), (3, 1)] {
            cluster.publish(publisher, "jobs/x", &n.to_string(), qos);
        }
        assert_eq!(
            cluster.packets(publisher),
            ["puback 1 0x00", "puback 2 0x00"]
        );
        let newcomer = cluster.client("newcomer");
        cluster.subscribe(newcomer, FILTER, 1);
        assert_eq!(cluster.messages(newcomer), ["jobs/x=1 q1", "jobs/x=3 q1"]);
        assert_eq!(cluster.dropped(DropReason::OfflineQoS0), 1);
        cluster.disconnect(newcomer);
        cluster.publish(publisher, "jobs/x", "4", 1);
        cluster.run();
        let (member, _) = cluster.persistent("member");
        assert_eq!(cluster.messages(member), ["jobs/x=4 q1"]);
    });
}

#[test]
fn the_queue_of_a_group_has_a_limit() {
    let configure = |config: &mut EngineConfig| config.limits.group_messages_max = 3;
    each_with(configure, |mut cluster| {
        let (member, _) = cluster.persistent("member");
        cluster.subscribe(member, FILTER, 1);
        cluster.disconnect(member);
        let publisher = cluster.client("publisher");
        for n in 0..5 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        cluster.run();
        assert_eq!(cluster.dropped(DropReason::GroupFull), 2);
        let (member, _) = cluster.persistent("member");
        assert_eq!(
            cluster.messages(member),
            ["jobs/x=0 q1", "jobs/x=1 q1", "jobs/x=2 q1"]
        );
    });
}

#[test]
fn a_member_gets_no_more_than_its_window() {
    let configure = |config: &mut EngineConfig| config.limits.group_window = 2;
    each_with(configure, |mut cluster| {
        let member = cluster.client("member");
        cluster.subscribe(member, FILTER, 1);
        cluster.set_acks(member, false);
        let publisher = cluster.client("publisher");
        for n in 0..5 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        assert_eq!(payloads(&mut cluster, member), [0, 1]);
        cluster.send(member, &ack(AckType::Puback, PacketId::new(1).unwrap()));
        assert_eq!(payloads(&mut cluster, member), [2]);
        // Others go on meanwhile.
        let other = cluster.client("other");
        cluster.subscribe(other, FILTER, 1);
        assert_eq!(payloads(&mut cluster, other), [3, 4]);
    });
}

/// A member whose queue is small gets no more than that; the rest waits in the group.
#[test]
fn a_small_queue_is_not_overrun() {
    let configure = |config: &mut EngineConfig| {
        std::sync::Arc::make_mut(&mut config.connection)
            .limits
            .queued_messages_max = 3;
    };
    each_with(configure, |mut cluster| {
        let mut connect = Connect::new(Version::V5, "member");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        let member = cluster.client_with(&connect);
        cluster.subscribe(member, FILTER, 1);
        let publisher = cluster.client("publisher");
        for n in 0..50 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        assert_eq!(payloads(&mut cluster, member), (0..50).collect::<Vec<_>>());
        assert_eq!(cluster.counters().dropped_total(), 0);
    });
}

/// QoS 0 on its way to members of other shards is bounded, and nothing of it stays behind.
#[test]
fn qos_0_is_shared_too() {
    let configure = |config: &mut EngineConfig| config.limits.group_window = 2;
    each_with(configure, |mut cluster| {
        let workers = workers(&mut cluster, 1);
        let publisher = cluster.client("publisher");
        for n in 0..60 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 0);
        }
        let mut all: Vec<u32> = workers
            .iter()
            .flat_map(|&client| payloads(&mut cluster, client))
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..60).collect::<Vec<_>>());
    });
}

/// [MQTT5-4.8.2] What a member has not been sent goes to others, in whatever form it waits.
#[test]
fn unsent_qos_0_of_a_lost_member_goes_to_others() {
    each(|mut cluster| {
        let slow = cluster.client("slow");
        cluster.subscribe(slow, FILTER, 0);
        cluster.subscribe(slow, "own", 0);
        cluster.set_reads(slow, false);
        let publisher = cluster.client("publisher");
        for n in [1, 2] {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 0);
        }
        cluster.publish(publisher, "own", "3", 0);
        for n in [4, 5] {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 0);
        }
        cluster.run();
        let other = cluster.client("other");
        cluster.subscribe(other, FILTER, 0);
        cluster.cut(slow);
        let got = payloads(&mut cluster, other);
        let read = payloads(&mut cluster, slow);
        let all = [read, got].concat();
        let jobs: Vec<_> = all.into_iter().filter(|n| *n != 3).collect();
        assert_eq!(jobs, [1, 2, 4, 5]);
    });
}

#[test]
fn the_group_ends_with_its_last_member() {
    each(|mut cluster| {
        let member = cluster.client("member");
        cluster.subscribe(member, FILTER, 1);
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "jobs/x", "1", 1);
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
        assert_eq!(cluster.unsubscribe(member, FILTER), "unsuback 0x00");
        cluster.publish(publisher, "jobs/x", "2", 1);
        assert_eq!(cluster.packets(publisher), ["puback 2 0x10"]);
        cluster.subscribe(member, FILTER, 1);
        cluster.disconnect(member);
        cluster.publish(publisher, "jobs/x", "3", 1);
        assert_eq!(cluster.packets(publisher), ["puback 3 0x10"]);
        assert_eq!(cluster.counters().shared_subscriptions, 0);
    });
}

/// [MQTT5-4.8.2]
#[test]
fn members_keep_their_turn_while_others_leave_and_join() {
    each(|mut cluster| {
        let ids: Vec<String> = (0..8).map(|n| format!("member {n}")).collect();
        let members: Vec<Client> = ids.iter().map(|id| cluster.client(id)).collect();
        for &member in &members {
            assert_eq!(cluster.subscribe(member, FILTER, 0), "suback 0x00");
        }
        let publisher = cluster.client("publisher");
        let mut sent = 0;
        let mut receivers = |cluster: &mut Cluster, messages: usize| -> Vec<usize> {
            let mut receivers = Vec::new();
            for _ in 0..messages {
                cluster.publish(publisher, "jobs/x", &sent.to_string(), 0);
                sent += 1;
                let got = |&at: &usize| !cluster.messages(members[at]).is_empty();
                receivers.extend((0..members.len()).filter(got));
            }
            receivers
        };
        assert_eq!(receivers(&mut cluster, 5), [0, 1, 2, 3, 4]);
        for left in [0, 2, 3, 5, 7] {
            cluster.unsubscribe(members[left], FILTER);
        }
        assert_eq!(receivers(&mut cluster, 4), [6, 1, 4, 6]);
        cluster.cut(members[1]);
        cluster.subscribe(members[2], FILTER, 0);
        assert_eq!(receivers(&mut cluster, 4), [2, 4, 6, 2]);
    });
}

/// [MQTT5-4.7.2-1] The rule for `$` topics looks at the filter behind the Share Name.
#[test]
fn hidden_topics_are_hidden_from_shared_wildcards() {
    each(|mut cluster| {
        let member = cluster.client("member");
        cluster.subscribe(member, "$share/workers/#", 1);
        cluster.publish(member, "$hidden/x", "1", 1);
        cluster.publish(member, "open", "2", 1);
        assert_eq!(cluster.messages(member), ["open=2 q1"]);
        assert_eq!(
            cluster.subscribe(member, "$share/workers/$hidden/#", 0),
            "suback 0x00"
        );
        cluster.publish(member, "$hidden/x", "3", 1);
        assert_eq!(cluster.messages(member), ["$hidden/x=3 q0"]);
    });
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] [MQTT5-3.8.3-4]
#[test]
fn refuses_malformed_shared_filters() {
    each(|mut cluster| {
        let client = cluster.client("client");
        for filter in [
            "$share/",
            "$share/name",
            "$share/name/",
            "$share//x",
            "$share/+/x",
        ] {
            assert_eq!(
                cluster.subscribe(client, filter, 0),
                "suback 0x8f",
                "{filter}"
            );
        }
        assert_eq!(cluster.subscribe(client, "$share/name//", 0), "suback 0x00");
    });
}

/// Every QoS 1 message reaches somebody, whatever members come and go.
#[test]
fn nothing_is_lost_while_members_come_and_go() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let mut rng = crate::cluster::Rng::new(seed + 99);
        let (anchor, _) = cluster.persistent("anchor");
        cluster.subscribe(anchor, FILTER, 1);
        cluster.disconnect(anchor);
        let publisher = cluster.client("publisher");
        let mut members: Vec<Client> = Vec::new();
        let mut seen = Vec::new();
        for n in 0..60 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
            for _ in 0..rng.below(5) {
                cluster.step();
            }
            match rng.below(6) {
                0 if !members.is_empty() => {
                    let member = members.swap_remove(rng.below(members.len()));
                    seen.extend(payloads(&mut cluster, member));
                    cluster.cut(member);
                }
                1 => {
                    let (member, _) = cluster.persistent(&format!("member {}", n % 4));
                    cluster.send_subscribe(member, FILTER, 1, None, |_| {});
                    members.retain(|&other| !cluster.is_closed(other));
                    members.push(member);
                }
                _ => {}
            }
        }
        let (anchor, _) = cluster.persistent("anchor");
        cluster.advance(Duration::from_secs(1));
        members.push(anchor);
        for id in 0..4 {
            members.push(cluster.persistent(&format!("member {id}")).0);
        }
        let all: Vec<Client> = cluster.clients();
        for member in all {
            seen.extend(payloads(&mut cluster, member));
        }
        for n in 0..60 {
            assert!(seen.contains(&n), "seed {seed}: {n} is lost");
        }
    }
}

/// They acknowledge nothing, so nothing holds them up.
#[test]
fn members_of_qos_0_take_more_messages_than_the_window() {
    let configure = |config: &mut EngineConfig| config.limits.group_window = 2;
    for member in ["m0", "m1", "m2", "m3"] {
        each_with(configure, |mut cluster| {
            let member = cluster.client(member);
            cluster.subscribe(member, FILTER, 0);
            let publisher = cluster.client("publisher");
            for n in 0..8 {
                cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
            }
            assert_eq!(payloads(&mut cluster, member), (0..8).collect::<Vec<_>>());
        });
    }
}

/// What a member of QoS 0 did not get is given to another one, of which each acknowledgement counts.
#[test]
fn messages_of_a_qos_0_member_do_not_use_up_the_window_of_another() {
    let configure = |config: &mut EngineConfig| config.limits.group_window = 2;
    each_with(configure, |mut cluster| {
        let low = cluster.client("low");
        cluster.subscribe(low, FILTER, 0);
        cluster.set_reads(low, false);
        let publisher = cluster.client("publisher");
        for n in 0..8 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        cluster.run();
        let high = cluster.client("high");
        cluster.subscribe(high, FILTER, 1);
        cluster.cut(low);
        assert_eq!(payloads(&mut cluster, high), (0..8).collect::<Vec<_>>());
        cluster.set_acks(high, false);
        for n in 8..11 {
            cluster.publish(publisher, "jobs/x", &n.to_string(), 1);
        }
        assert_eq!(payloads(&mut cluster, high), [8, 9]);
    });
}

/// What waits for members that are away is bounded in bytes as a session's queue is, and counted.
#[test]
fn a_group_holds_no_more_bytes_than_a_session() {
    let configure = |config: &mut EngineConfig| {
        std::sync::Arc::make_mut(&mut config.connection)
            .limits
            .queued_bytes_max = 1_000;
    };
    each_with(configure, |mut cluster| {
        let (member, _) = cluster.persistent("member");
        cluster.subscribe(member, FILTER, 1);
        cluster.cut(member);
        let publisher = cluster.client("publisher");
        for _ in 0..10 {
            cluster.publish(publisher, "jobs/x", &"x".repeat(294), 1);
        }
        cluster.run();
        assert_eq!(cluster.dropped(DropReason::GroupFull), 7);
        let counters = cluster.counters();
        assert_eq!((counters.queued_messages, counters.queued_bytes), (3, 900));
        let (member, _) = cluster.persistent("member");
        assert_eq!(cluster.messages(member).len(), 3);
        let counters = cluster.counters();
        assert_eq!((counters.queued_messages, counters.queued_bytes), (0, 0));
    });
}
