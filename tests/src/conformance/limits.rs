//! Section 3.2.2.3: a server that does not offer everything. Each case needs a server that limits
//! what the case is about.

use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Result, ensure};
use avocet_codec::{
    Delivery, Packet, Publish, QoS, ReasonCode, SubscriptionOptions, TopicName, Will,
};

use super::peer::clock;
use super::{Group, Server, cases};
use ReasonCode::{
    KeepAliveTimeout, QoSNotSupported, RetainNotSupported, SharedSubscriptionsNotSupported,
    SubscriptionIdentifiersNotSupported, TopicAliasInvalid, WildcardSubscriptionsNotSupported,
};

pub(super) const GROUP: Group = Group {
    name: "limits",
    cases: cases![
        /// [MQTT5-3.2.2-9] [MQTT5-3.2.2-10]
        maximum_qos_is_told_and_subscriptions_are_taken,
        /// [MQTT5-3.2.2-11]
        maximum_qos_ends_the_connection_of_who_exceeds_it,
        /// [MQTT5-3.2.2-12]
        maximum_qos_refuses_a_will_above_it,
        /// [MQTT5-3.2.2-14]
        retain_not_available_ends_the_connection_of_who_retains,
        /// [MQTT5-3.2.2-13]
        retain_not_available_refuses_a_will_that_is_retained,
        /// [MQTT311-3.8.3-2] [MQTT5-3.8.4-7]
        wildcards_not_available_fails_their_subscriptions,
        /// [MQTT5-3.8.4-7]
        shared_subscriptions_not_available_fails_them,
        /// [MQTT5-4.13.1-1]
        subscription_ids_not_available_ends_the_connection_of_who_uses_them,
        /// [MQTT5-3.1.2-27] [MQTT5-3.2.2-18]
        topic_aliases_not_allowed_ends_the_connection_of_who_uses_them,
        /// [MQTT5-3.1.2-22] [MQTT5-3.2.2-21]
        server_keep_alive_is_told_and_kept,
    ],
};

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn maximum_qos(server: &Server) -> Result<QoS> {
    let maximum = server.client("m")?.connack()?.properties.maximum_qos;
    ensure!(maximum < QoS::ExactlyOnce, "this server has no Maximum QoS");
    Ok(maximum)
}

fn maximum_qos_is_told_and_subscriptions_are_taken(server: &Server) -> Result<()> {
    let maximum = maximum_qos(server)?;
    let mut peer = server.client("a")?;
    for qos in LEVELS {
        let options = SubscriptionOptions::new(qos);
        let code = peer.try_subscribe(&server.topic("t"), options, None)?;
        ensure!(code as u8 <= maximum as u8, "SUBACK 0x{:02x}", code as u8);
    }
    peer.publish(&server.topic("t"), "x", maximum)
}

fn maximum_qos_ends_the_connection_of_who_exceeds_it(server: &Server) -> Result<()> {
    let maximum = maximum_qos(server)?;
    let topic = server.topic("t");
    for qos in LEVELS.into_iter().filter(|qos| *qos > maximum) {
        let mut peer = server.client("a")?;
        let id = peer.new_id()?;
        let delivery = if qos == QoS::AtLeastOnce {
            Delivery::AtLeastOnce(id)
        } else {
            Delivery::ExactlyOnce(id)
        };
        let publish = Publish::new(TopicName::new(&topic)?, delivery, b"x");
        peer.send(&Packet::Publish(publish))?;
        peer.is_ended(&[QoSNotSupported])?;
    }
    Ok(())
}

/// The server refuses a client with this will.
fn will_is_refused(
    server: &Server,
    code: ReasonCode,
    change: impl FnOnce(&mut Will<'_>),
) -> Result<()> {
    let (id, topic) = (server.id("w"), server.topic("will"));
    let mut will = Will::new(TopicName::new(&topic)?, b"gone");
    change(&mut will);
    let mut connect = server.hello(&id);
    connect.will = Some(will);
    let mut peer = server.dial()?;
    peer.send(&Packet::Connect(connect))?;
    peer.is_refused(&[code])
}

fn maximum_qos_refuses_a_will_above_it(server: &Server) -> Result<()> {
    let maximum = maximum_qos(server)?;
    for qos in LEVELS.into_iter().filter(|qos| *qos > maximum) {
        will_is_refused(server, QoSNotSupported, |will| will.qos = qos)?;
    }
    Ok(())
}

fn no_retain(server: &Server) -> Result<()> {
    let peer = server.client("m")?;
    let available = peer.connack()?.properties.retain_available;
    ensure!(!available, "this server retains messages");
    Ok(())
}

fn retain_not_available_ends_the_connection_of_who_retains(server: &Server) -> Result<()> {
    no_retain(server)?;
    let topic = server.topic("t");
    let mut publish = Publish::new(TopicName::new(&topic)?, Delivery::AtMostOnce, b"x");
    publish.retain = true;
    let mut peer = server.client("a")?;
    peer.send(&Packet::Publish(publish))?;
    peer.is_ended(&[RetainNotSupported])
}

fn retain_not_available_refuses_a_will_that_is_retained(server: &Server) -> Result<()> {
    no_retain(server)?;
    will_is_refused(server, RetainNotSupported, |will| will.retain = true)
}

fn wildcards_not_available_fails_their_subscriptions(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let properties = peer.connack()?.properties;
    ensure!(
        !server.is_v5() || !properties.wildcard_subscription_available,
        "this server takes wildcards"
    );
    for filter in ["#", "a/#", "+", "a/+/b"] {
        let options = SubscriptionOptions::new(QoS::AtMostOnce);
        let code = peer.try_subscribe(&server.topic(filter), options, None)?;
        let expected = if server.is_v5() {
            WildcardSubscriptionsNotSupported
        } else {
            ReasonCode::UnspecifiedError
        };
        ensure!(code == expected, "SUBACK 0x{:02x}", code as u8);
    }
    peer.subscribe(&server.topic("a"), QoS::AtMostOnce)
}

fn shared_subscriptions_not_available_fails_them(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let available = peer.connack()?.properties.shared_subscription_available;
    ensure!(!available, "this server takes Shared Subscriptions");
    let filter = format!("$share/g/{}", server.topic("t"));
    let options = SubscriptionOptions::new(QoS::AtMostOnce);
    let code = peer.try_subscribe(&filter, options, None)?;
    let expected = SharedSubscriptionsNotSupported;
    ensure!(code == expected, "SUBACK 0x{:02x}", code as u8);
    Ok(())
}

fn subscription_ids_not_available_ends_the_connection_of_who_uses_them(
    server: &Server,
) -> Result<()> {
    let mut peer = server.client("a")?;
    let available = peer.connack()?.properties.subscription_ids_available;
    ensure!(!available, "this server takes Subscription Identifiers");
    let filter = super::peer::string(server.topic("t"));
    let body: [&[u8]; 3] = [&[0, 1, 2, 0x0b, 1], &filter, &[0]];
    peer.send_bytes(&super::peer::packet(0x82, &body))?;
    peer.is_ended(&[SubscriptionIdentifiersNotSupported])
}

fn topic_aliases_not_allowed_ends_the_connection_of_who_uses_them(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let maximum = peer.connack()?.properties.topic_alias_maximum;
    ensure!(maximum == 0, "this server allows {maximum} Topic Aliases");
    let topic = server.topic("t");
    let mut publish = Publish::new(TopicName::new(&topic)?, Delivery::AtMostOnce, b"x");
    publish.topic_alias = Some(NonZeroU16::MIN);
    peer.send(&Packet::Publish(publish))?;
    peer.is_ended(&[TopicAliasInvalid])
}

fn server_keep_alive_is_told_and_kept(server: &Server) -> Result<()> {
    let id = server.id("a");
    for asked in [0, 60] {
        let mut connect = server.hello(&id);
        connect.keep_alive = asked;
        let mut peer = server.connect(&connect)?;
        let told = peer.connack()?.properties.server_keep_alive;
        ensure!(
            told == Some(1),
            "Server Keep Alive {told:?}, not of one second"
        );
        let start = clock();
        peer.is_ended(&[KeepAliveTimeout])?;
        let took = clock() - start;
        ensure!(took > Duration::from_millis(1_400), "closed after {took:?}");
    }
    Ok(())
}
