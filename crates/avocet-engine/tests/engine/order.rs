use avocet_engine::EngineConfig;

use crate::cluster::{Cluster, Rng, each};

/// [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT311-4.6.0-6] Messages of one publisher to one topic keep
/// their order, with and without RETAIN, whatever QoS and whatever way they take.
#[test]
fn order_of_a_topic_is_kept() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(3, Some(seed), |_| {});
        let mut rng = Rng::new(seed + 17);
        let subscribers = ["one", "two", "three", "four"].map(|id| {
            let client = cluster.client(id);
            cluster.subscribe(client, "t/#", 2);
            client
        });
        let publishers = ["p", "q", "r"].map(|id| cluster.client(id));
        for n in 0..40 {
            for (at, publisher) in publishers.iter().enumerate() {
                let topic = format!("t/{}", rng.below(3));
                let retain = rng.one_in(3);
                let qos = rng.below(3) as u8;
                let payload = format!("{at}:{n:02}");
                cluster.publish_with(*publisher, &topic, &payload, qos, |publish| {
                    publish.retain = retain;
                });
            }
            for _ in 0..rng.below(4) {
                cluster.step();
            }
        }
        for subscriber in subscribers {
            let messages = cluster.messages(subscriber);
            assert_eq!(messages.len(), 120, "seed {seed}");
            for topic in 0..3 {
                for publisher in 0..3 {
                    let prefix = format!("t/{topic}={publisher}:");
                    let of_one: Vec<_> = messages
                        .iter()
                        .filter(|message| message.starts_with(&prefix))
                        .collect();
                    assert!(of_one.is_sorted(), "seed {seed}: {of_one:?}");
                }
            }
        }
    }
}

/// PUBACKs leave in the order of their PUBLISHes, even when a later one waits for nothing.
#[test]
fn acknowledgements_keep_their_order() {
    each(|mut cluster| {
        for id in ["one", "two", "three", "four"] {
            let client = cluster.client(id);
            cluster.subscribe(client, "wanted", 0);
        }
        let publisher = cluster.client("publisher");
        for n in 0..10 {
            let topic = if n % 2 == 0 { "wanted" } else { "unwanted" };
            cluster.publish(publisher, topic, "x", 1);
        }
        let expected: Vec<_> = (0..10)
            .map(|n| {
                format!(
                    "puback {} {}",
                    n + 1,
                    if n % 2 == 0 { "0x00" } else { "0x10" }
                )
            })
            .collect();
        assert_eq!(cluster.packets(publisher), expected);
    });
}

/// The same inputs give the same outputs, byte for byte.
#[test]
fn the_same_inputs_give_the_same_bytes() {
    fn play(shards: u16, seed: u64) -> (Vec<u8>, String) {
        let mut cluster = Cluster::new(shards, Some(seed), |config: &mut EngineConfig| {
            config.sys_interval = Some(std::time::Duration::from_secs(1));
        });
        let mut rng = Rng::new(seed);
        let mut clients = Vec::new();
        for n in 0..10 {
            let client = match n % 3 {
                0 => cluster.client(&format!("client {n}")),
                1 => cluster.persistent(&format!("client {n}")).0,
                _ => cluster.connect(&avocet_codec::Connect::new(avocet_codec::Version::V5, "")),
            };
            cluster.subscribe(client, ["a/#", "a/+", "$share/s/a/#", "$SYS/#"][n % 4], 2);
            clients.push(client);
        }
        for n in 0..100 {
            let client = clients[rng.below(clients.len())];
            if !cluster.is_closed(client) {
                let topic = format!("a/{}", rng.below(4));
                let (qos, retain) = (rng.below(3) as u8, rng.one_in(4));
                cluster.publish_with(client, &topic, &n.to_string(), qos, |publish| {
                    publish.retain = retain;
                });
            }
            if rng.one_in(20) {
                cluster.cut(client);
            }
            cluster.advance(std::time::Duration::from_millis(100));
        }
        (
            cluster.output.clone(),
            format!("{:?} {:?}", cluster.events, cluster.counters()),
        )
    }
    for (shards, seed) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        assert!(
            play(shards, seed) == play(shards, seed),
            "{shards} shards, seed {seed}"
        );
    }
}
