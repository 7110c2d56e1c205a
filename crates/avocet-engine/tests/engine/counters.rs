//! The counters tell what happened.

use std::time::Duration;

use avocet_engine::DropReason;

use crate::cluster::each;

#[test]
fn connections_and_sessions_are_counted() {
    each(|mut cluster| {
        let one = cluster.client("one");
        cluster.persistent("two");
        let (two, _) = cluster.persistent("two");
        let (three, _) = cluster.persistent("three");
        cluster.cut(three);
        let counters = cluster.counters();
        assert_eq!(counters.connections_opened, 4);
        assert_eq!(counters.connects_accepted, 4);
        assert_eq!(counters.takeovers, 1);
        assert_eq!(counters.connections, 2);
        assert_eq!(counters.sessions_connected, 2);
        assert_eq!(counters.sessions_disconnected, 1);
        // Four CONNECTs; as many CONNACKs, and DISCONNECT to the one taken over.
        assert_eq!((counters.packets_received, counters.packets_sent), (4, 5));

        cluster.disconnect(one);
        cluster.disconnect(two);
        cluster.advance(Duration::from_secs(1));
        let counters = cluster.counters();
        assert_eq!(counters.connections, 0);
        assert_eq!(counters.sessions_connected, 0);
        assert_eq!(counters.sessions_disconnected, 2);
        assert_eq!(counters.packets_received, 6);
    });
}

#[test]
fn subscriptions_are_counted_while_they_last() {
    each(|mut cluster| {
        let one = cluster.client("one");
        let two = cluster.client("two");
        for client in [one, two] {
            for filter in ["a", "b/+", "$share/g/a"] {
                cluster.subscribe(client, filter, 1);
            }
            // The same again is no other one.
            cluster.subscribe(client, "a", 2);
        }
        let counters = cluster.counters();
        assert_eq!(counters.subscriptions, 6);
        assert_eq!(counters.shared_subscriptions, 2);
        cluster.unsubscribe(one, "a");
        cluster.unsubscribe(one, "$share/g/a");
        cluster.unsubscribe(one, "unknown");
        let counters = cluster.counters();
        assert_eq!(counters.subscriptions, 4);
        assert_eq!(counters.shared_subscriptions, 1);
        cluster.disconnect(two);
        let counters = cluster.counters();
        assert_eq!(counters.subscriptions, 1);
        assert_eq!(counters.shared_subscriptions, 0);
    });
}

#[test]
fn messages_are_counted_where_they_are_and_when_they_are_dropped() {
    each(|mut cluster| {
        let client = cluster.client("publisher");
        cluster.publish_retained(client, "kept/1", "x", 1);
        cluster.publish_retained(client, "kept/2", "yz", 1);
        cluster.run();
        let counters = cluster.counters();
        assert_eq!(
            (counters.retained_messages, counters.retained_bytes),
            (2, 15)
        );
        cluster.publish_retained(client, "kept/1", "longer", 1);
        cluster.run();
        let counters = cluster.counters();
        assert_eq!(
            (counters.retained_messages, counters.retained_bytes),
            (2, 20)
        );

        let (away, _) = cluster.persistent("away");
        cluster.subscribe(away, "a", 1);
        cluster.cut(away);
        for qos in [0, 0, 1, 1, 1] {
            cluster.publish(client, "a", "x", qos);
        }
        cluster.publish(client, "$SYS/mine", "x", 1);
        cluster.run();
        let counters = cluster.counters();
        assert_eq!((counters.queued_messages, counters.queued_bytes), (3, 6));
        assert_eq!(counters.publishes_received, 9);
        assert_eq!(counters.publishes_sent, 0);
        assert_eq!(counters.dropped(DropReason::OfflineQoS0), 2);
        assert_eq!(counters.dropped(DropReason::NotAuthorized), 1);
        assert_eq!(counters.dropped_total(), 3);

        cluster.persistent("away");
        cluster.run();
        let counters = cluster.counters();
        assert_eq!((counters.queued_messages, counters.queued_bytes), (0, 0));
        assert_eq!(counters.publishes_sent, 3);
    });
}
