//! Section 3.3: what a PUBLISH may hold, and what of it reaches the subscribers.

use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use avocet_codec::{
    Delivery, MessageProperties, MessagePropertiesParts, Packet, PayloadFormat, Publish, QoS,
    ReasonCode, TopicName, UserProperty,
};

use super::peer::{Peer, packet, string};
use super::{Group, Server, cases};
use ReasonCode::{MalformedPacket, ProtocolError, TopicAliasInvalid, TopicNameInvalid};

pub(super) const GROUP: Group = Group {
    name: "publish",
    cases: cases![
        /// [MQTT5-3.3.2-3] [MQTT5-3.3.1-2] [MQTT5-3.3.1-12]
        /// [MQTT5-4.2.0-1]
        /// [MQTT311-3.3.2-3] [MQTT311-3.3.1-2] [MQTT311-3.3.1-9] [MQTT311-7.0.0-2]
        /// [MQTT311-7.1.1-1]
        a_message_arrives_as_it_was_published,
        /// [MQTT5-3.3.1-3] [MQTT311-3.3.1-3]
        dup_is_not_passed_on,
        /// [MQTT5-3.3.1-4] [MQTT311-3.3.1-4]
        a_qos_of_3_ends_the_connection,
        /// [MQTT5-3.3.1-2] [MQTT311-3.3.1-2]
        dup_with_qos_0_is_not_passed_on,
        /// [MQTT5-2.2.1-3] [MQTT311-2.3.1-1]
        a_packet_identifier_of_0_ends_the_connection,
        /// [MQTT5-3.3.2-2] [MQTT5-4.7.0-1] [MQTT311-3.3.2-2] [MQTT311-4.7.1-1]
        wildcards_in_a_topic_name_end_the_connection,
        /// [MQTT5-3.3.2-1] [MQTT5-4.7.3-1] [MQTT311-3.3.2-1] [MQTT311-4.7.3-1]
        an_empty_topic_name_ends_the_connection,
        /// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
        /// [MQTT5-3.3.2-20]
        properties_are_passed_on_unaltered_and_in_order,
        /// [MQTT5-3.3.2-14]
        wildcards_in_a_response_topic_end_the_connection,
        /// [MQTT5-3.3.2-13] [MQTT5-3.3.2-19] [MQTT5-1.5.4-1] [MQTT5-1.5.7-1]
        properties_that_are_not_utf_8_end_the_connection,
        /// [MQTT5-3.3.2-5]
        a_message_that_expired_is_not_delivered,
        /// [MQTT5-3.3.2-6]
        the_message_expiry_interval_counts_down,
        /// [MQTT5-3.3.2-12]
        every_topic_alias_up_to_the_maximum_is_accepted,
        /// [MQTT5-3.3.2-7]
        topic_aliases_end_with_their_connection,
        /// [MQTT5-3.3.2-8]
        a_topic_alias_of_0_ends_the_connection,
        /// [MQTT5-3.3.2-9]
        a_topic_alias_above_the_maximum_ends_the_connection,
        /// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
        the_server_keeps_to_the_clients_topic_alias_maximum,
        /// [MQTT5-3.3.4-6]
        a_subscription_identifier_from_a_client_ends_the_connection,
    ],
};

fn pair(server: &Server) -> Result<(Peer, Peer, String)> {
    let topic = server.topic("t");
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::ExactlyOnce)?;
    Ok((server.client("p")?, subscriber, topic))
}

fn a_message_arrives_as_it_was_published(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for payload in ["", "hello", "\0\u{feff}\u{10ffff}"] {
            publisher.publish(&topic, payload, qos)?;
            subscriber.takes(&format!("{topic}={payload} q{}", qos as u8))?;
        }
    }
    let large = "x".repeat(100_000);
    publisher.publish(&topic, &large, QoS::AtLeastOnce)?;
    let message = subscriber.take()?;
    ensure!(message.payload == large, "100,000 bytes arrive changed");
    Ok(())
}

fn dup_is_not_passed_on(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publisher.publish_with(&topic, "x", qos, |publish| publish.dup = true)?;
        subscriber.takes(&format!("{topic}=x q{}", qos as u8))?;
    }
    Ok(())
}

fn dup_with_qos_0_is_not_passed_on(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let body: [&[u8]; 3] = [&string(&topic), server.no_properties(), b"x"];
    publisher.send_bytes(&packet(0x38, &body))?;
    // The server may take it for a violation, or deliver it without DUP.
    let _ = publisher.is_quiet();
    subscriber.subscribe(&server.topic("marker"), QoS::AtMostOnce)?;
    server
        .client("q")?
        .publish(&server.topic("marker"), "end", QoS::AtMostOnce)?;
    let first = subscriber.take()?;
    ensure!(!first.dup, "\"{first}\"");
    Ok(())
}

/// The bytes of a packet that no client may send end the connection.
fn ends(server: &Server, bytes: &[u8], codes: &[ReasonCode]) -> Result<()> {
    let mut peer = server.client("bad")?;
    peer.send_bytes(bytes)?;
    peer.is_ended(codes)
        .with_context(|| format!("after {bytes:02x?}"))
}

fn a_qos_of_3_ends_the_connection(server: &Server) -> Result<()> {
    let topic = string(server.topic("t"));
    let body: [&[u8]; 4] = [&topic, &[0, 1], server.no_properties(), b"x"];
    ends(server, &packet(0x36, &body), &[MalformedPacket])
}

fn a_packet_identifier_of_0_ends_the_connection(server: &Server) -> Result<()> {
    let topic = string(server.topic("t"));
    for first_byte in [0x32, 0x34] {
        let body: [&[u8]; 4] = [&topic, &[0, 0], server.no_properties(), b"x"];
        ends(
            server,
            &packet(first_byte, &body),
            &[MalformedPacket, ProtocolError],
        )?;
    }
    Ok(())
}

fn wildcards_in_a_topic_name_end_the_connection(server: &Server) -> Result<()> {
    for name in ["#", "+", "a/#", "a/+/b", "a#", "a+"] {
        let topic = string(server.topic(name));
        let body: [&[u8]; 3] = [&topic, server.no_properties(), b"x"];
        let codes = [MalformedPacket, ProtocolError, TopicNameInvalid];
        ends(server, &packet(0x30, &body), &codes)?;
    }
    Ok(())
}

fn an_empty_topic_name_ends_the_connection(server: &Server) -> Result<()> {
    let body: [&[u8]; 3] = [&string(""), server.no_properties(), b"x"];
    let codes = [MalformedPacket, ProtocolError, TopicNameInvalid];
    ends(server, &packet(0x30, &body), &codes)
}

fn properties_are_passed_on_unaltered_and_in_order(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let reply = server.topic("reply");
    let pairs = [
        ("b", "1"),
        ("a", "2"),
        ("b", "1"),
        ("", ""),
        ("a", "\u{e9}"),
    ];
    let user_properties = pairs.map(|(name, value)| UserProperty { name, value });
    for (payload_format, correlation_data) in [
        (PayloadFormat::Utf8, &b"\0\xff"[..]),
        (PayloadFormat::UnspecifiedBytes, b""),
    ] {
        let parts = MessagePropertiesParts {
            payload_format: Some(payload_format),
            content_type: Some("text/plain; \u{1f984}"),
            response_topic: Some(TopicName::new(&reply)?),
            correlation_data: Some(correlation_data),
            user_properties: &user_properties,
        };
        let properties = MessageProperties::new(parts);
        let publish = Publish {
            properties,
            ..Publish::new(TopicName::new(&topic)?, Delivery::AtMostOnce, b"x")
        };
        publisher.send(&Packet::Publish(publish))?;
        let message = subscriber.takes(&format!("{topic}=x q0"))?;
        let found = message.publish().properties;
        ensure!(found == properties, "{found:?} instead of {properties:?}");
    }
    Ok(())
}

/// A PUBLISH of QoS 0 with these bytes as properties.
fn with_properties(server: &Server, properties: &[u8]) -> Vec<u8> {
    let length = [properties.len() as u8];
    packet(
        0x30,
        &[&string(server.topic("t")), &length, properties, b"x"],
    )
}

fn wildcards_in_a_response_topic_end_the_connection(server: &Server) -> Result<()> {
    for topic in ["a/#", "+"] {
        let bytes = with_properties(server, &[&[0x08], string(topic).as_slice()].concat());
        let codes = [MalformedPacket, ProtocolError, TopicNameInvalid];
        ends(server, &bytes, &codes)?;
    }
    Ok(())
}

fn properties_that_are_not_utf_8_end_the_connection(server: &Server) -> Result<()> {
    for bad in [&b"\xff"[..], b"a\0", b"\xed\xa0\x80"].map(string) {
        for properties in [
            [&[0x03][..], &bad].concat(),
            [&[0x08][..], &bad].concat(),
            [&[0x26][..], &bad, &string("v")].concat(),
            [&[0x26][..], &string("n"), &bad].concat(),
        ] {
            let bytes = with_properties(server, &properties);
            ends(
                server,
                &bytes,
                &[MalformedPacket, ProtocolError, TopicNameInvalid],
            )?;
        }
    }
    Ok(())
}

fn a_message_that_expired_is_not_delivered(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.subscribe(&topic, QoS::AtLeastOnce)?;
    peer.disconnect()?;
    let mut publisher = server.client("p")?;
    publisher.publish_with(&topic, "short", QoS::AtLeastOnce, |publish| {
        publish.message_expiry_interval = Some(1);
    })?;
    publisher.publish(&topic, "long", QoS::AtLeastOnce)?;
    publisher.is_quiet_for(Duration::from_secs(3))?;
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.takes(&format!("{topic}=long q1"))?;
    peer.is_quiet()
}

fn the_message_expiry_interval_counts_down(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.subscribe(&topic, QoS::AtLeastOnce)?;
    let mut publisher = server.client("p")?;
    publisher.publish_with(&topic, "x", QoS::AtLeastOnce, |publish| {
        publish.message_expiry_interval = Some(100);
    })?;
    let message = peer.takes(&format!("{topic}=x q1"))?;
    let left = message.publish().message_expiry_interval;
    ensure!(matches!(left, Some(90..=100)), "{left:?} of 100 s at once");
    peer.disconnect()?;
    publisher.publish_with(&topic, "y", QoS::AtLeastOnce, |publish| {
        publish.message_expiry_interval = Some(100);
    })?;
    publisher.is_quiet_for(Duration::from_millis(2_500))?;
    let mut peer = server.connect(&server.persistent(&id))?;
    let message = peer.takes(&format!("{topic}=y q1"))?;
    let left = message.publish().message_expiry_interval;
    ensure!(
        matches!(left, Some(80..=98)),
        "{left:?} of 100 s after 2.5 s"
    );
    Ok(())
}

/// A PUBLISH of QoS 0 with a Topic Alias, and a Topic Name or none.
fn aliased<'a>(name: Option<&'a str>, alias: u16) -> Result<Packet<'a>> {
    let publish = Publish::new(TopicName::new("unused")?, Delivery::AtMostOnce, b"x");
    Ok(Packet::Publish(Publish {
        topic_name: name.map(TopicName::new).transpose()?,
        topic_alias: NonZeroU16::new(alias),
        ..publish
    }))
}

fn every_topic_alias_up_to_the_maximum_is_accepted(server: &Server) -> Result<()> {
    let filter = server.topic("#");
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&filter, QoS::AtMostOnce)?;
    let mut publisher = server.client("p")?;
    let maximum = publisher.connack()?.properties.topic_alias_maximum;
    for alias in [1, maximum / 2, maximum] {
        if alias == 0 {
            continue;
        }
        for name in ["first", "second"] {
            let topic = server.topic(&format!("{name}/{alias}"));
            publisher.send(&aliased(Some(&topic), alias)?)?;
            publisher.send(&aliased(None, alias)?)?;
            for _ in 0..2 {
                subscriber.takes(&format!("{topic}=x q0"))?;
            }
        }
    }
    Ok(())
}

fn topic_aliases_end_with_their_connection(server: &Server) -> Result<()> {
    let id = server.id("p");
    let mut publisher = server.connect(&server.persistent(&id))?;
    if publisher.connack()?.properties.topic_alias_maximum == 0 {
        return Ok(());
    }
    publisher.send(&aliased(Some(&server.topic("t")), 1)?)?;
    publisher.is_quiet()?;
    publisher.disconnect()?;
    let mut publisher = server.connect(&server.persistent(&id))?;
    publisher.send(&aliased(None, 1)?)?;
    publisher.is_ended(&[ProtocolError, TopicAliasInvalid, MalformedPacket])
}

fn a_topic_alias_of_0_ends_the_connection(server: &Server) -> Result<()> {
    let codes = [TopicAliasInvalid, ProtocolError, MalformedPacket];
    ends(server, &with_properties(server, &[0x23, 0, 0]), &codes)
}

fn a_topic_alias_above_the_maximum_ends_the_connection(server: &Server) -> Result<()> {
    let mut publisher = server.client("p")?;
    let maximum = publisher.connack()?.properties.topic_alias_maximum;
    let Some(above) = maximum.checked_add(1) else {
        return Ok(());
    };
    publisher.send(&aliased(Some(&server.topic("t")), above)?)?;
    publisher.is_ended(&[TopicAliasInvalid, ProtocolError])
}

fn the_server_keeps_to_the_clients_topic_alias_maximum(server: &Server) -> Result<()> {
    let id = server.id("s");
    for maximum in [0, 2] {
        let mut connect = server.hello(&id);
        connect.properties.topic_alias_maximum = maximum;
        let mut subscriber = server.connect(&connect)?;
        subscriber.subscribe(&server.topic("+"), QoS::AtMostOnce)?;
        let mut publisher = server.client("p")?;
        for round in 0..3 {
            for name in ["a", "b", "c", "d"] {
                let topic = server.topic(name);
                publisher.publish(&topic, &format!("{round}"), QoS::AtMostOnce)?;
                let alias = subscriber.aliased(&topic)?;
                ensure!(
                    alias <= maximum,
                    "Topic Alias {alias}, the maximum is {maximum}"
                );
            }
        }
    }
    Ok(())
}

fn a_subscription_identifier_from_a_client_ends_the_connection(server: &Server) -> Result<()> {
    let bytes = with_properties(server, &[0x0b, 1]);
    ends(server, &bytes, &[ProtocolError, MalformedPacket])
}
