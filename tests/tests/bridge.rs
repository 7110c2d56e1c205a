//! Debian's mosquitto, bridged to the broker in both directions.

use std::net::SocketAddr;

use avocet_tests::broker::Broker;
use avocet_tests::mosquitto::{Mosquitto, Received, Subscriber, mosquitto_pub};
use avocet_tests::process::output;

/// A mosquitto whose bridge to `broker` carries `topics` and is up.
async fn bridged(broker: &Broker, protocol: &str, topics: &[&str]) -> Mosquitto {
    let topics: String = topics
        .iter()
        .map(|topic| format!("topic {topic}\n"))
        .collect();
    let mut mosquitto = Mosquitto::start(&format!(
        "connection bridge\naddress {}\nremote_clientid bridge\nbridge_protocol_version {protocol}\n\
         try_private true\ncleansession false\nrestart_timeout 1\n{topics}",
        broker.address(),
    ))
    .await;
    mosquitto.logs("Received SUBACK from local.").await;
    mosquitto
}

async fn publish(address: SocketAddr, topic: &str, payload: &str, options: &[&str]) {
    let mut command = mosquitto_pub(address);
    command.args(["-t", topic, "-m", payload]).args(options);
    output(command).await;
}

/// A message published at one end arrives once at each end, in every QoS; with RETAIN it is
/// retained at both.
async fn carries_both_ways_without_echo(protocol: &str) {
    let broker = Broker::start().await;
    let mosquitto = bridged(&broker, protocol, &["# both 2"]).await;
    let (ours, theirs) = (broker.address(), mosquitto.address());
    let everything = ["-t", "#", "-q", "2"];
    let mut at_ours = Subscriber::start(ours, everything).await;
    let mut at_theirs = Subscriber::start(theirs, everything).await;

    for (from, name) in [(ours, "ours"), (theirs, "theirs")] {
        for qos in 0..=2 {
            let topic = format!("live/{name}/{qos}");
            publish(from, &topic, "live", &["-q", &qos.to_string()]).await;
            // An echo would come before the next message.
            assert_eq!(at_ours.next().await, Received::live(&topic, "live", qos));
            assert_eq!(at_theirs.next().await, Received::live(&topic, "live", qos));
        }
        for qos in 0..=2 {
            let topic = format!("kept/{name}/{qos}");
            publish(from, &topic, "kept", &["-r", "-q", &qos.to_string()]).await;
            assert_eq!(at_ours.next().await, Received::live(&topic, "kept", qos));
            assert_eq!(at_theirs.next().await, Received::live(&topic, "kept", qos));
            for end in [ours, theirs] {
                let mut late = Subscriber::start(end, ["-t", "kept/#", "-q", "2"]).await;
                assert_eq!(late.next().await, Received::retained(&topic, "kept", qos));
            }
            publish(from, &topic, "", &["-r", "-q", &qos.to_string()]).await;
            assert_eq!(at_ours.next().await, Received::live(&topic, "", qos));
            assert_eq!(at_theirs.next().await, Received::live(&topic, "", qos));
        }
        // Cleared at both ends: a late subscriber sees the next live message first.
        for end in [ours, theirs] {
            let mut late = Subscriber::start(end, ["-t", "kept/#", "-q", "2"]).await;
            publish(end, "kept/last", name, &["-q", "2"]).await;
            assert_eq!(late.next().await, Received::live("kept/last", name, 2));
            assert_eq!(at_ours.next().await, Received::live("kept/last", name, 2));
            assert_eq!(at_theirs.next().await, Received::live("kept/last", name, 2));
        }
    }
}

#[tokio::test]
async fn v31_bridge_carries_both_ways_without_echo() {
    carries_both_ways_without_echo("mqttv31").await;
}

#[tokio::test]
async fn v311_bridge_carries_both_ways_without_echo() {
    carries_both_ways_without_echo("mqttv311").await;
}

#[tokio::test]
async fn v5_bridge_carries_both_ways_without_echo() {
    carries_both_ways_without_echo("mqttv50").await;
}

#[tokio::test]
async fn bridge_carries_each_topic_its_way_with_prefixes() {
    let broker = Broker::start().await;
    let topics = ["+/up out 1 site/ plant/", "+/down in 1 site/ plant/"];
    let mosquitto = bridged(&broker, "mqttv311", &topics).await;
    let (ours, theirs) = (broker.address(), mosquitto.address());
    let mut at_ours = Subscriber::start(ours, ["-t", "#", "-q", "1"]).await;
    let mut at_theirs = Subscriber::start(theirs, ["-t", "#", "-q", "1"]).await;

    publish(theirs, "site/pump/up", "on its way", &["-q", "1"]).await;
    assert_eq!(
        at_theirs.next().await,
        Received::live("site/pump/up", "on its way", 1)
    );
    assert_eq!(
        at_ours.next().await,
        Received::live("plant/pump/up", "on its way", 1)
    );

    publish(ours, "plant/pump/up", "stays", &["-q", "1"]).await;
    publish(theirs, "site/pump/down", "stays", &["-q", "1"]).await;
    assert_eq!(
        at_ours.next().await,
        Received::live("plant/pump/up", "stays", 1)
    );
    assert_eq!(
        at_theirs.next().await,
        Received::live("site/pump/down", "stays", 1)
    );

    publish(ours, "plant/pump/down", "on its way", &["-q", "1"]).await;
    assert_eq!(
        at_ours.next().await,
        Received::live("plant/pump/down", "on its way", 1)
    );
    assert_eq!(
        at_theirs.next().await,
        Received::live("site/pump/down", "on its way", 1)
    );
}

#[tokio::test]
async fn bridge_receives_what_was_published_while_it_was_away() {
    let broker = Broker::start().await;
    let mosquitto = bridged(&broker, "mqttv311", &["# in 1"]).await;
    mosquitto.kill().await;
    for payload in ["one", "two", "three"] {
        publish(broker.address(), "missed", payload, &["-q", "1"]).await;
    }
    let mut mosquitto = bridged(&broker, "mqttv311", &["# in 1"]).await;
    for payload in ["one", "two", "three"] {
        let length = mosquitto.log("a missed message", length_of_missed).await;
        assert_eq!(length, format!("{} bytes", payload.len()));
    }
}

/// The end of `Received PUBLISH from local.bridge (d0, q1, r0, m1, 'missed', ... (3 bytes))`.
fn length_of_missed(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Received PUBLISH from local.")?;
    let (_, rest) = rest.split_once("'missed', ... (")?;
    Some(rest.trim_end_matches(')').to_owned())
}
