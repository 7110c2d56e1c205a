use std::time::Duration;

use avocet_engine::EngineConfig;

use crate::cluster::{Cluster, each_with};

fn sys(config: &mut EngineConfig) {
    config.sys_interval = Some(Duration::from_secs(10));
}

fn value(cluster: &mut Cluster, topic: &str) -> String {
    let monitor = cluster.client("monitor");
    cluster.subscribe(monitor, topic, 0);
    let messages = cluster.messages(monitor);
    cluster.disconnect(monitor);
    assert_eq!(messages.len(), 1, "{topic}: {messages:?}");
    assert!(messages[0].ends_with(" q0 retain"), "{messages:?}");
    messages[0][topic.len() + 1..].replace(" q0 retain", "")
}

#[test]
fn counters_of_all_shards_are_summed() {
    each_with(sys, |mut cluster| {
        for id in ["a", "b", "c", "d", "e", "f"] {
            let client = cluster.client(id);
            cluster.subscribe(client, "t/#", 0);
        }
        let (client, _) = cluster.persistent("away");
        cluster.publish_retained(client, "kept", "x", 1);
        cluster.disconnect(client);
        cluster.advance(Duration::from_secs(25));
        assert_eq!(value(&mut cluster, "$SYS/broker/clients/total"), "7");
        assert_eq!(value(&mut cluster, "$SYS/broker/clients/connected"), "6");
        assert_eq!(value(&mut cluster, "$SYS/broker/clients/disconnected"), "1");
        assert_eq!(value(&mut cluster, "$SYS/broker/subscriptions/count"), "6");
        assert_eq!(
            value(&mut cluster, "$SYS/broker/publish/messages/received"),
            "1"
        );
        assert_eq!(value(&mut cluster, "$SYS/broker/uptime"), "20 seconds");
        assert!(value(&mut cluster, "$SYS/broker/version").starts_with("avocet version"));
    });
}

#[test]
fn changes_are_published_to_subscribers() {
    each_with(sys, |mut cluster| {
        let monitor = cluster.client("monitor");
        cluster.subscribe(monitor, "$SYS/broker/clients/connected", 2);
        cluster.subscribe(monitor, "#", 2);
        cluster.advance(Duration::from_secs(25));
        let before = cluster.messages(monitor);
        assert_eq!(before.last().unwrap(), "$SYS/broker/clients/connected=1 q0");
        let _another = cluster.client("another");
        cluster.advance(Duration::from_secs(20));
        assert_eq!(
            cluster.messages(monitor),
            ["$SYS/broker/clients/connected=2 q0"]
        );
        cluster.advance(Duration::from_secs(100));
        assert!(cluster.messages(monitor).is_empty(), "only changes");
    });
}

#[test]
fn no_interval_means_no_topics() {
    each_with(
        |_| {},
        |mut cluster| {
            let monitor = cluster.client("monitor");
            cluster.subscribe(monitor, "$SYS/#", 0);
            cluster.advance(Duration::from_secs(100));
            assert!(cluster.messages(monitor).is_empty());
        },
    );
}
