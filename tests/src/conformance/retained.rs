//! Section 3.3.1.3: RETAIN.

use std::time::Duration;

use anyhow::{Result, ensure};
use avocet_codec::{
    Delivery, MessageProperties, MessagePropertiesParts, Packet, PayloadFormat, Publish, QoS,
    RetainHandling, SubscriptionOptions, TopicName, UserProperty,
};

use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "retained",
    cases: cases![
        /// [MQTT5-3.3.1-5] [MQTT5-3.3.1-9]
        /// [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8]
        new_subscribers_get_the_last_retained_message,
        /// [MQTT5-3.3.1-5] [MQTT311-3.3.1-7]
        a_message_of_qos_0_replaces_the_retained_one,
        /// [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
        an_empty_payload_is_delivered_and_clears,
        /// [MQTT5-3.3.1-8] [MQTT311-3.3.1-12]
        other_messages_leave_the_retained_one_alone,
        /// [MQTT5-3.3.1-12] [MQTT311-3.3.1-9]
        established_subscriptions_get_retain_0,
        /// [MQTT5-3.3.1-13]
        retain_as_published_keeps_the_flag,
        /// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
        retain_handling_decides_what_a_subscription_gets,
        /// [MQTT5-3.8.4-4] [MQTT311-3.8.4-3]
        a_subscription_made_again_gets_them_again,
        /// [MQTT5-3.8.4-8] [MQTT311-3.8.4-6]
        they_come_with_the_lower_qos,
        /// [MQTT311-3.1.2-7]
        they_outlive_the_session_of_their_publisher,
        /// [MQTT5-3.3.1-9] [MQTT311-3.3.1-6]
        wildcards_find_all_of_them,
        /// [MQTT5-3.3.2-5]
        they_expire,
        /// [MQTT5-3.3.2-4] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
        they_keep_their_properties,
        /// [MQTT5-3.3.4-3] [MQTT5-3.8.4-3]
        they_come_with_the_subscription_identifier,
    ],
};

fn new_subscribers_get_the_last_retained_message(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "old", QoS::AtLeastOnce)?;
    publisher.retain(&topic, "new", QoS::AtLeastOnce)?;
    for name in ["a", "b"] {
        let mut subscriber = server.client(name)?;
        subscriber.subscribe(&topic, QoS::ExactlyOnce)?;
        subscriber.takes(&format!("{topic}=new q1 retain"))?;
        subscriber.is_quiet()?;
    }
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn a_message_of_qos_0_replaces_the_retained_one(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "old", QoS::AtLeastOnce)?;
    publisher.retain(&topic, "new", QoS::AtMostOnce)?;
    publisher.is_quiet()?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtMostOnce)?;
    // Before 5.0 the server need not keep a message of QoS 0, but the old one is gone.
    let marker = server.topic("marker");
    subscriber.subscribe(&marker, QoS::AtMostOnce)?;
    publisher.publish(&marker, "end", QoS::AtMostOnce)?;
    let first = subscriber.take()?;
    ensure!(
        first.payload == "new" || (!server.is_v5() && first.payload == "end"),
        "\"{first}\""
    );
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn an_empty_payload_is_delivered_and_clears(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    let mut before = server.client("a")?;
    before.subscribe(&topic, QoS::AtMostOnce)?;
    before.takes(&format!("{topic}=x q0 retain"))?;
    publisher.retain(&topic, "", QoS::AtLeastOnce)?;
    before.takes(&format!("{topic}= q0"))?;
    let mut after = server.client("b")?;
    after.subscribe(&topic, QoS::AtMostOnce)?;
    after.is_quiet()?;
    after.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn other_messages_leave_the_retained_one_alone(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let other = server.topic("other");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "kept", QoS::AtLeastOnce)?;
    publisher.publish(&topic, "plain", QoS::AtLeastOnce)?;
    publisher.publish(&topic, "", QoS::AtLeastOnce)?;
    publisher.publish(&other, "plain", QoS::AtLeastOnce)?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtMostOnce)?;
    subscriber.takes(&format!("{topic}=kept q0 retain"))?;
    subscriber.subscribe(&other, QoS::AtMostOnce)?;
    subscriber.is_quiet()?;
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn established_subscriptions_get_retain_0(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    subscriber.takes(&format!("{topic}=x q1"))?;
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn retain_as_published_keeps_the_flag(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut subscriber = server.client("s")?;
    let mut options = SubscriptionOptions::new(QoS::AtLeastOnce);
    options.retain_as_published = true;
    subscriber.subscribe_with(&topic, options, None)?;
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    subscriber.takes(&format!("{topic}=x q1 retain"))?;
    publisher.publish(&topic, "y", QoS::AtLeastOnce)?;
    subscriber.takes(&format!("{topic}=y q1"))?;
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn retain_handling_decides_what_a_subscription_gets(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    let mut subscriber = server.client("s")?;
    for (retain_handling, comes) in [
        (RetainHandling::DoNotSend, false),
        (RetainHandling::SendIfNew, false),
        (RetainHandling::SendAtSubscribe, true),
        (RetainHandling::SendAtSubscribe, true),
        (RetainHandling::DoNotSend, false),
    ] {
        let mut options = SubscriptionOptions::new(QoS::AtMostOnce);
        options.retain_handling = retain_handling;
        subscriber.subscribe_with(&topic, options, None)?;
        if comes {
            subscriber.takes(&format!("{topic}=x q0 retain"))?;
        }
        subscriber.is_quiet()?;
    }
    subscriber.unsubscribe(&[&topic])?;
    let mut options = SubscriptionOptions::new(QoS::AtMostOnce);
    options.retain_handling = RetainHandling::SendIfNew;
    subscriber.subscribe_with(&topic, options, None)?;
    subscriber.takes(&format!("{topic}=x q0 retain"))?;
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn a_subscription_made_again_gets_them_again(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    let mut subscriber = server.client("s")?;
    for _ in 0..2 {
        subscriber.subscribe(&topic, QoS::AtMostOnce)?;
        subscriber.takes(&format!("{topic}=x q0 retain"))?;
        subscriber.is_quiet()?;
    }
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn they_come_with_the_lower_qos(server: &Server) -> Result<()> {
    let mut publisher = server.client("p")?;
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for published in levels {
        let topic = server.topic(&format!("{}", published as u8));
        publisher.retain(&topic, "x", published)?;
        publisher.is_quiet()?;
        for granted in levels {
            let mut subscriber = server.client("s")?;
            subscriber.subscribe(&topic, granted)?;
            let qos = (published as u8).min(granted as u8);
            subscriber.takes(&format!("{topic}=x q{qos} retain"))?;
        }
        publisher.retain(&topic, "", QoS::AtLeastOnce)?;
    }
    Ok(())
}

fn they_outlive_the_session_of_their_publisher(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    publisher.disconnect()?;
    let mut subscriber = server.client("p")?;
    subscriber.subscribe(&topic, QoS::AtMostOnce)?;
    subscriber.takes(&format!("{topic}=x q0 retain"))?;
    subscriber.unsubscribe(&[&topic])?;
    subscriber.retain(&topic, "", QoS::AtLeastOnce)
}

fn wildcards_find_all_of_them(server: &Server) -> Result<()> {
    let topics = ["a", "a/b", "a/b/c", "d"].map(|name| server.topic(name));
    let mut publisher = server.client("p")?;
    for topic in &topics {
        publisher.retain(topic, "x", QoS::AtLeastOnce)?;
    }
    for (filter, wanted) in [("#", 4), ("a/#", 3), ("+", 2), ("+/b", 1), ("a/+/c", 1)] {
        let mut subscriber = server.client("s")?;
        subscriber.subscribe(&server.topic(filter), QoS::AtMostOnce)?;
        for _ in 0..wanted {
            let message = subscriber.take()?;
            ensure!(message.retain, "\"{message}\" for {filter:?}");
        }
        subscriber.is_quiet()?;
    }
    topics
        .iter()
        .try_for_each(|topic| publisher.retain(topic, "", QoS::AtLeastOnce))
}

fn they_expire(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.publish_with(&topic, "x", QoS::AtLeastOnce, |publish| {
        publish.retain = true;
        publish.message_expiry_interval = Some(1);
    })?;
    publisher.is_quiet_for(Duration::from_secs(3))?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtMostOnce)?;
    subscriber.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn they_keep_their_properties(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let pairs = [("b", "1"), ("a", "2"), ("b", "3")];
    let user_properties = pairs.map(|(name, value)| UserProperty { name, value });
    let properties = MessageProperties::new(MessagePropertiesParts {
        payload_format: Some(PayloadFormat::Utf8),
        content_type: Some("text/plain"),
        response_topic: None,
        correlation_data: Some(b"\x01\x02"),
        user_properties: &user_properties,
    });
    let mut publisher = server.client("p")?;
    let publish = Publish {
        retain: true,
        properties,
        ..Publish::new(TopicName::new(&topic)?, Delivery::AtMostOnce, b"x")
    };
    publisher.send(&Packet::Publish(publish))?;
    publisher.is_quiet()?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtMostOnce)?;
    let message = subscriber.takes(&format!("{topic}=x q0 retain"))?;
    let found = message.publish().properties;
    ensure!(found == properties, "{found:?} instead of {properties:?}");
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn they_come_with_the_subscription_identifier(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    let mut subscriber = server.client("s")?;
    // The identifier is replaced with the subscription.
    for id in [Some(7), Some(70_000), None] {
        let options = SubscriptionOptions::new(QoS::AtMostOnce);
        subscriber.subscribe_with(&topic, options, id)?;
        let wanted: Vec<u32> = id.into_iter().collect();
        let retained = subscriber.takes(&format!("{topic}=x q0 retain"))?;
        ensure!(
            retained.subscription_ids == wanted,
            "{:?}",
            retained.subscription_ids
        );
        publisher.publish(&topic, "live", QoS::AtLeastOnce)?;
        let live = subscriber.takes(&format!("{topic}=live q0"))?;
        ensure!(
            live.subscription_ids == wanted,
            "{:?}",
            live.subscription_ids
        );
    }
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}
