use std::time::Duration;

use avocet_codec::{Packet, RetainHandling, TopicFilter, Unsubscribe};
use avocet_engine::{DropReason, EngineConfig};

use crate::cluster::{Cluster, each, each_with};

/// [MQTT5-3.3.1-5] [MQTT5-3.3.1-9] [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8]
#[test]
fn new_subscribers_get_the_last_retained_message() {
    each(|mut cluster| {
        let publisher = cluster.client("publisher");
        for topic in ["home/kitchen", "home/hall", "home/hall/lamp", "garden"] {
            cluster.publish_retained(publisher, topic, "old", 1);
            cluster.publish_retained(publisher, topic, "new", 1);
        }
        cluster.run();
        let client = cluster.client("client");
        cluster.subscribe(client, "garden", 2);
        assert_eq!(cluster.messages(client), ["garden=new q1 retain"]);
        cluster.subscribe(client, "home/+", 0);
        let mut messages = cluster.messages(client);
        messages.sort();
        assert_eq!(
            messages,
            ["home/hall=new q0 retain", "home/kitchen=new q0 retain"]
        );
        cluster.subscribe_with(client, "#", 2, Some(5), |_| {});
        let mut messages = cluster.messages(client);
        messages.sort();
        assert_eq!(
            messages,
            [
                "garden=new q1 retain ids [5]",
                "home/hall/lamp=new q1 retain ids [5]",
                "home/hall=new q1 retain ids [5]",
                "home/kitchen=new q1 retain ids [5]",
            ]
        );
        assert_eq!(cluster.counters().retained_messages, 4);
    });
}

/// [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[test]
fn an_empty_payload_clears() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.publish_retained(client, "a", "x", 1);
        cluster.subscribe(client, "a", 1);
        assert_eq!(cluster.messages(client), ["a=x q1 retain"]);
        cluster.publish_retained(client, "a", "", 1);
        assert_eq!(cluster.messages(client), ["a= q1"]);
        cluster.subscribe(client, "a", 1);
        assert!(cluster.messages(client).is_empty());
        assert_eq!(cluster.counters().retained_messages, 0);
        assert_eq!(cluster.counters().retained_bytes, 0);
    });
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
#[test]
fn retain_handling_decides_who_gets_them() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.publish_retained(client, "a", "x", 0);
        for (handling, first, again) in [
            (RetainHandling::SendAtSubscribe, 1, 1),
            (RetainHandling::SendIfNew, 1, 0),
            (RetainHandling::DoNotSend, 0, 0),
        ] {
            for expected in [first, again] {
                cluster.subscribe_with(client, "a", 0, None, |options| {
                    options.retain_handling = handling;
                });
                assert_eq!(cluster.messages(client).len(), expected, "{handling:?}");
            }
            cluster.unsubscribe(client, "a");
        }
    });
}

#[test]
fn shared_subscriptions_get_none() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.publish_retained(client, "a", "x", 0);
        cluster.subscribe(client, "$share/s/a", 0);
        assert!(cluster.messages(client).is_empty());
    });
}

#[test]
fn many_come_as_fast_as_the_client_takes_them() {
    let small = |config: &mut EngineConfig| {
        let connection = std::sync::Arc::make_mut(&mut config.connection);
        connection.limits.queued_messages_max = 20;
        config.limits.retained_page_messages = 7;
    };
    each_with(small, |mut cluster| {
        let publisher = cluster.client("publisher");
        for n in 0..200 {
            cluster.publish_retained(publisher, &format!("many/{n}"), "x", 1);
        }
        cluster.run();
        let client = cluster.client("client");
        cluster.set_acks(client, false);
        cluster.subscribe(client, "many/#", 0);
        assert_eq!(cluster.messages(client).len(), 200);
        cluster.set_acks(client, true);
        cluster.set_reads(client, false);
        cluster.send_subscribe(client, "many/+", 1, None, |_| {});
        cluster.run();
        assert!(cluster.counters().queued_messages <= 20);
        cluster.set_reads(client, true);
        assert_eq!(cluster.messages(client).len(), 200);
        assert_eq!(cluster.dropped(DropReason::QueueFull), 0);
    });
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn retained_messages_expire() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.publish_with(client, "a", "x", 0, |publish| {
            publish.retain = true;
            publish.message_expiry_interval = Some(60);
        });
        cluster.advance(Duration::from_secs(20));
        cluster.subscribe(client, "a", 0);
        assert_eq!(cluster.messages(client), ["a=x q0 retain expires in 40"]);
        cluster.advance(Duration::from_secs(41));
        assert_eq!(cluster.counters().retained_messages, 0);
        cluster.subscribe(client, "a", 0);
        assert!(cluster.messages(client).is_empty());
    });
}

/// A search that finds little is cut into turns, and finds it all the same.
#[test]
fn wildcards_that_match_little_leave_turns_to_others() {
    each(|mut cluster| {
        let publisher = cluster.client("publisher");
        for n in 0..6_000 {
            cluster.publish_retained(publisher, &format!("many/{n}/x"), "x", 0);
            if n % 3_000 == 0 {
                cluster.publish_retained(publisher, &format!("many/{n}/wanted"), "y", 0);
            }
        }
        cluster.run();
        let client = cluster.client("client");
        cluster.subscribe(client, "many/+/wanted", 0);
        let mut messages = cluster.messages(client);
        messages.sort();
        assert_eq!(
            messages,
            ["many/0/wanted=y q0 retain", "many/3000/wanted=y q0 retain"]
        );
    });
}

/// The snapshot for a new subscription is never older than what came live before.
#[test]
fn a_snapshot_is_never_older_than_what_came_live() {
    for seed in 0..200 {
        let mut cluster = Cluster::new(3, Some(seed), |config| {
            config.limits.retained_page_messages = 1;
        });
        let mut rng = crate::cluster::Rng::new(seed + 5);
        let publisher = cluster.client("publisher");
        let client = cluster.client("client");
        let mut number = 0;
        let mut publish = |cluster: &mut Cluster, rng: &mut crate::cluster::Rng| {
            number += 1;
            let topic = format!("t/{}", rng.below(4));
            cluster.publish_retained(publisher, &topic, &format!("{number:03}"), 0);
        };
        for _ in 0..10 {
            publish(&mut cluster, &mut rng);
        }
        cluster.run();
        cluster.send_subscribe(client, "t/+", 0, None, |_| {});
        for _ in 0..20 {
            publish(&mut cluster, &mut rng);
            for _ in 0..rng.below(4) {
                cluster.step();
            }
        }
        let messages = cluster.messages(client);
        for topic in ["t/0=", "t/1=", "t/2=", "t/3="] {
            let of_topic = messages.iter().filter(|message| message.starts_with(topic));
            let values: Vec<_> = of_topic.map(|message| message[4..7].to_owned()).collect();
            assert!(values.is_sorted(), "seed {seed}: {messages:?}");
        }
    }
}

/// All subscribers see the RETAIN messages of a topic in one order, and the last of them is the one
/// retained, whoever published it.
#[test]
fn last_delivered_is_the_one_retained() {
    for seed in 0..150 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let mut rng = crate::cluster::Rng::new(seed + 1);
        let subscribers = ["one", "two", "three"].map(|id| {
            let client = cluster.client(id);
            cluster.subscribe(client, "t/#", 1);
            client
        });
        let publishers = ["p", "q", "r"].map(|id| cluster.client(id));
        for n in 0..20 {
            let publisher = publishers[rng.below(3)];
            let topic = format!("t/{}", rng.below(2));
            cluster.publish_retained(publisher, &topic, &n.to_string(), 1);
            for _ in 0..rng.below(6) {
                cluster.step();
            }
        }
        cluster.run();
        let late = cluster.client("late");
        cluster.subscribe(late, "t/#", 1);
        let retained = cluster.messages(late);
        let seen = subscribers.map(|client| cluster.messages(client));
        for topic in ["t/0=", "t/1="] {
            let of_topic = |messages: &[String]| -> Vec<String> {
                let of_topic = messages.iter().filter(|message| message.starts_with(topic));
                of_topic
                    .map(|message| message.replace(" retain", ""))
                    .collect()
            };
            let order = of_topic(&seen[0]);
            for seen in &seen {
                assert_eq!(of_topic(seen), order, "seed {seed}");
            }
            assert_eq!(of_topic(&retained).last(), order.last(), "seed {seed}");
        }
    }
}

/// [MQTT5-3.10.4-2]
#[test]
fn a_subscription_that_ended_before_its_suback_gets_nothing_retained() {
    each(|mut cluster| {
        let client = cluster.client("client");
        cluster.send_subscribe(client, "#", 1, None, |_| {});
        let filters = [TopicFilter::new("#").unwrap()];
        let unsubscribe = Unsubscribe::new(cluster.packet_id(client), &filters);
        cluster.send(client, &Packet::Unsubscribe(unsubscribe));
        for topic in ["a", "b", "c", "d"] {
            cluster.publish_retained(client, topic, "later", 1);
        }
        assert_eq!(cluster.messages(client), [""; 0]);
    });
}

/// [MQTT5-3.8.4-3] [MQTT5-3.8.4-8]
#[test]
fn retained_messages_to_come_follow_the_options_of_the_last_subscribe() {
    let one_at_a_time = |config: &mut EngineConfig| config.limits.retained_page_messages = 1;
    each_with(one_at_a_time, |mut cluster| {
        let client = cluster.client("client");
        for topic in ["a", "b", "c", "d"] {
            cluster.publish_retained(client, topic, "x", 1);
        }
        cluster.run();
        cluster.set_reads(client, false);
        cluster.send_subscribe(client, "#", 1, None, |_| {});
        cluster.run();
        cluster.send_subscribe(client, "#", 0, Some(7), |options| {
            options.retain_handling = RetainHandling::SendIfNew;
        });
        cluster.run();
        cluster.set_reads(client, true);
        let messages = cluster.messages(client);
        assert_eq!(messages.len(), 4);
        let old = messages.iter().filter(|it| it.ends_with("=x q1 retain"));
        let new = messages
            .iter()
            .filter(|it| it.ends_with("=x q0 retain ids [7]"));
        assert_eq!((old.count(), new.count()), (1, 3), "{messages:?}");
    });
}

/// A page that was asked for before No Local was set may hold the session's own messages [MQTT5-3.8.3-3].
#[test]
fn no_local_keeps_own_messages_from_a_page_on_its_way() {
    each(|mut cluster| {
        let client = cluster.client("client");
        let other = cluster.client("other");
        for topic in ["a", "b", "c", "d"] {
            cluster.publish_retained(client, topic, "own", 1);
        }
        cluster.publish_retained(other, "e", "other", 1);
        cluster.run();
        for turns in 0..24 {
            cluster.send_subscribe(client, "#", 1, None, |_| {});
            let shards = cluster.shards();
            (0..turns).for_each(|turn| cluster.turn(turn % shards));
            cluster.send_subscribe(client, "#", 1, Some(7), |options| {
                options.no_local = true;
                options.retain_handling = RetainHandling::SendIfNew;
            });
            let messages = cluster.messages(client);
            let outdated = |it: &&String| it.contains("=own") && it.ends_with("ids [7]");
            assert_eq!(messages.iter().find(outdated), None, "{turns} turns");
            let others = messages.iter().filter(|it| it.starts_with("e=other"));
            assert_eq!(others.count(), 1, "{turns} turns: {messages:?}");
        }
    });
}
