//! Sections 4.3 to 4.6: the exchanges of QoS 1 and 2, in both roles, and their order.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use avocet_codec::{
    AckType, Delivery, Packet, PacketId, PacketType, Publish, QoS, ReasonCode, TopicName,
};

use super::peer::{Message, Peer};
use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "qos",
    cases: cases![
        /// [MQTT5-2.2.1-5] [MQTT5-3.3.4-1] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.7.2-1]
        /// [MQTT5-4.3.2-4] [MQTT5-4.3.3-8] [MQTT5-4.3.3-11]
        /// [MQTT311-2.3.1-6] [MQTT311-3.3.4-1] [MQTT311-4.3.2-2] [MQTT311-4.3.3-2]
        a_message_is_acknowledged_as_its_qos_says,
        /// [MQTT5-4.3.3-10] [MQTT311-4.3.3-2]
        a_qos_2_message_sent_again_is_delivered_once,
        /// [MQTT5-4.3.3-10] [MQTT5-4.1.0-1] [MQTT311-4.3.3-2] [MQTT311-4.1.0-1]
        a_qos_2_message_sent_again_after_a_reconnect_is_delivered_once,
        /// [MQTT5-4.3.2-5] [MQTT311-4.3.2-2]
        an_identifier_is_free_after_puback,
        /// [MQTT5-4.3.3-12] [MQTT311-4.3.3-2]
        an_identifier_is_free_after_pubcomp,
        /// [MQTT5-4.3.3-11] [MQTT5-3.7.2-1] [MQTT311-4.3.3-2]
        an_unknown_pubrel_is_answered,
        /// [MQTT5-3.6.1-1] [MQTT311-3.6.1-1]
        pubrel_with_other_flags_ends_the_connection,
        /// [MQTT5-2.2.1-2] [MQTT5-2.2.1-4] [MQTT5-4.3.1-1] [MQTT5-4.3.2-1] [MQTT5-4.3.2-2]
        /// [MQTT5-4.3.3-1] [MQTT5-4.3.3-2]
        /// [MQTT311-2.3.1-1] [MQTT311-2.3.1-4] [MQTT311-2.3.1-5] [MQTT311-4.3.1-1]
        /// [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
        messages_in_flight_have_identifiers_of_their_own,
        /// [MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.4.0-1] [MQTT5-4.6.0-5]
        /// [MQTT311-3.3.1-1] [MQTT311-2.3.1-4] [MQTT311-4.4.0-1] [MQTT311-4.6.0-6]
        unacknowledged_messages_are_sent_again_after_a_reconnect,
        /// [MQTT5-2.2.1-5] [MQTT5-3.6.2-1] [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6]
        /// [MQTT5-4.4.0-1] [MQTT311-4.3.3-1] [MQTT311-4.4.0-1]
        pubrel_is_sent_again_and_publish_is_not,
        /// [MQTT5-4.4.0-1]
        nothing_is_sent_again_without_a_reconnect,
        /// [MQTT5-4.4.0-2]
        a_refused_message_is_not_sent_again,
        /// [MQTT5-4.3.3-7] [MQTT5-4.3.3-13]
        a_message_does_not_expire_once_it_was_sent,
        /// [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT311-4.6.0-5] [MQTT311-4.6.0-6]
        messages_arrive_in_order,
        /// [MQTT5-4.5.0-1] [MQTT311-4.5.0-1]
        every_subscriber_gets_the_message,
    ],
};

/// A publisher, and a subscriber of QoS 2 that answers to nothing by itself.
fn pair(server: &Server) -> Result<(Peer, Peer, String)> {
    let (id, topic) = (server.id("s"), server.topic("t"));
    let mut subscriber = server.connect(&server.persistent(&id))?;
    subscriber.subscribe(&topic, QoS::ExactlyOnce)?;
    Ok((server.client("p")?, subscriber, topic))
}

fn again(server: &Server) -> Result<Peer> {
    let peer = server.connect(&server.persistent(&server.id("s")))?;
    ensure!(peer.session_present()?, "no Session Present");
    Ok(peer)
}

fn packet_id(value: u16) -> Result<PacketId> {
    PacketId::new(value).context("0 is no Packet Identifier")
}

fn id_of(message: &Message) -> Result<PacketId> {
    message
        .packet_id
        .with_context(|| format!("no Packet Identifier: \"{message}\""))
}

/// Sends a PUBLISH and no more.
fn send(peer: &mut Peer, topic: &str, payload: &str, delivery: Delivery, dup: bool) -> Result<()> {
    let mut publish = Publish::new(TopicName::new(topic)?, delivery, payload.as_bytes());
    publish.dup = dup;
    peer.send(&Packet::Publish(publish))
}

fn a_message_is_acknowledged_as_its_qos_says(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    send(&mut publisher, &topic, "zero", Delivery::AtMostOnce, false)?;
    publisher.is_quiet()?;
    for value in [1, 0x1234, 65_535] {
        let id = packet_id(value)?;
        send(
            &mut publisher,
            &topic,
            "one",
            Delivery::AtLeastOnce(id),
            false,
        )?;
        publisher.is_published(Delivery::AtLeastOnce(id))?;
        publisher.is_quiet()?;
        send(
            &mut publisher,
            &topic,
            "two",
            Delivery::ExactlyOnce(id),
            false,
        )?;
        publisher.is_published(Delivery::ExactlyOnce(id))?;
        publisher.is_quiet()?;
    }
    for _ in 0..7 {
        subscriber.take()?;
    }
    subscriber.is_quiet()
}

fn a_qos_2_message_sent_again_is_delivered_once(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let id = packet_id(5)?;
    for dup in [false, true, true] {
        send(&mut publisher, &topic, "x", Delivery::ExactlyOnce(id), dup)?;
        publisher.acked(PacketType::Pubrec, id)?;
    }
    for _ in 0..2 {
        publisher.ack(AckType::Pubrel, id)?;
        publisher.acked(PacketType::Pubcomp, id)?;
    }
    subscriber.takes(&format!("{topic}=x q2"))?;
    subscriber.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn a_qos_2_message_sent_again_after_a_reconnect_is_delivered_once(server: &Server) -> Result<()> {
    let (mut marker, mut subscriber, topic) = pair(server)?;
    let publisher_id = server.id("pub");
    let connect = server.persistent(&publisher_id);
    let mut publisher = server.connect(&connect)?;
    let id = packet_id(5)?;
    send(
        &mut publisher,
        &topic,
        "x",
        Delivery::ExactlyOnce(id),
        false,
    )?;
    publisher.acked(PacketType::Pubrec, id)?;
    publisher.cut()?;
    let mut publisher = server.connect(&connect)?;
    send(&mut publisher, &topic, "x", Delivery::ExactlyOnce(id), true)?;
    publisher.acked(PacketType::Pubrec, id)?;
    publisher.cut()?;
    let mut publisher = server.connect(&connect)?;
    publisher.ack(AckType::Pubrel, id)?;
    publisher.acked(PacketType::Pubcomp, id)?;
    subscriber.takes(&format!("{topic}=x q2"))?;
    subscriber.is_passed_over(&mut marker, &server.topic("marker"))
}

fn an_identifier_is_free_after_puback(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let delivery = Delivery::AtLeastOnce(packet_id(5)?);
    for dup in [false, true, false] {
        send(&mut publisher, &topic, "x", delivery, dup)?;
        publisher.is_published(delivery)?;
        subscriber.takes(&format!("{topic}=x q1"))?;
    }
    Ok(())
}

fn an_identifier_is_free_after_pubcomp(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let delivery = Delivery::ExactlyOnce(packet_id(5)?);
    for dup in [false, true, false] {
        send(&mut publisher, &topic, "x", delivery, dup)?;
        publisher.is_published(delivery)?;
        subscriber.takes(&format!("{topic}=x q2"))?;
    }
    Ok(())
}

fn an_unknown_pubrel_is_answered(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let id = packet_id(9)?;
    peer.ack(AckType::Pubrel, id)?;
    let code = peer.acked(PacketType::Pubcomp, id)?;
    let known = [ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];
    ensure!(known.contains(&code), "PUBCOMP 0x{:02x}", code as u8);
    peer.is_quiet()
}

fn pubrel_with_other_flags_ends_the_connection(server: &Server) -> Result<()> {
    for first_byte in [0x60, 0x61, 0x63, 0x66, 0x6a] {
        let mut peer = server.client("a")?;
        let id = packet_id(1)?;
        send(
            &mut peer,
            &server.topic("t"),
            "x",
            Delivery::ExactlyOnce(id),
            false,
        )?;
        peer.acked(PacketType::Pubrec, id)?;
        peer.send_bytes(&[first_byte, 2, 0, 1])?;
        peer.is_ended(&[ReasonCode::MalformedPacket])?;
    }
    Ok(())
}

fn messages_in_flight_have_identifiers_of_their_own(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let mut in_flight = Vec::new();
    for n in 0..12 {
        let qos = match n % 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        publisher.publish(&topic, &n.to_string(), qos)?;
        let message = subscriber.message()?;
        let wanted = format!("{topic}={n} q{}", qos as u8);
        ensure!(message.to_string() == wanted, "\"{message}\"");
        if qos == QoS::AtMostOnce {
            ensure!(
                message.packet_id.is_none(),
                "\"{message}\" has an identifier"
            );
            continue;
        }
        let id = id_of(&message)?;
        ensure!(!in_flight.contains(&id), "{id} is in use twice");
        in_flight.push(id);
        // Half of them end, in another order than they came.
        if n % 6 == 5 {
            subscriber.acknowledge(&message)?;
            in_flight.pop();
        }
    }
    Ok(())
}

fn unacknowledged_messages_are_sent_again_after_a_reconnect(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    let mut first = Vec::new();
    for (payload, qos) in [
        ("a", QoS::AtLeastOnce),
        ("b", QoS::ExactlyOnce),
        ("c", QoS::AtLeastOnce),
        ("d", QoS::ExactlyOnce),
    ] {
        publisher.publish(&topic, payload, qos)?;
        let message = subscriber.message()?;
        ensure!(!message.dup, "\"{message}\" comes for the first time");
        first.push((message.payload.clone(), id_of(&message)?));
    }
    for _ in 0..2 {
        subscriber.cut()?;
        subscriber = again(server)?;
        for (payload, id) in &first {
            let message = subscriber.message()?;
            ensure!(message.dup, "\"{message}\" comes again");
            let found = (&message.payload, id_of(&message)?);
            ensure!(
                found == (payload, *id),
                "{found:?} instead of {payload} {id}"
            );
        }
        subscriber.is_quiet()?;
    }
    subscriber.cut()?;
    let mut subscriber = again(server)?;
    for (payload, _) in &first {
        let message = subscriber.take()?;
        ensure!(message.payload == *payload, "\"{message}\"");
    }
    subscriber.is_quiet()?;
    subscriber.cut()?;
    again(server)?.is_quiet()
}

fn pubrel_is_sent_again_and_publish_is_not(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    publisher.publish(&topic, "x", QoS::ExactlyOnce)?;
    let id = id_of(&subscriber.message()?)?;
    subscriber.ack(AckType::Pubrec, id)?;
    let code = subscriber.acked(PacketType::Pubrel, id)?;
    ensure!(code == ReasonCode::Success, "PUBREL 0x{:02x}", code as u8);
    for _ in 0..2 {
        subscriber.cut()?;
        subscriber = again(server)?;
        subscriber.acked(PacketType::Pubrel, id)?;
        subscriber.is_quiet()?;
    }
    subscriber.ack(AckType::Pubcomp, id)?;
    subscriber.is_quiet()?;
    subscriber.cut()?;
    again(server)?.is_quiet()
}

fn nothing_is_sent_again_without_a_reconnect(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    publisher.publish(&topic, "x", QoS::AtLeastOnce)?;
    publisher.publish(&topic, "y", QoS::ExactlyOnce)?;
    subscriber.message()?;
    subscriber.message()?;
    subscriber.is_quiet_for(Duration::from_secs(3))
}

fn a_refused_message_is_not_sent_again(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    for (qos, ack_type) in [
        (QoS::AtLeastOnce, AckType::Puback),
        (QoS::ExactlyOnce, AckType::Pubrec),
    ] {
        publisher.publish(&topic, "x", qos)?;
        let id = id_of(&subscriber.message()?)?;
        subscriber.ack_with(ack_type, id, ReasonCode::NotAuthorized)?;
        subscriber.is_quiet()?;
    }
    subscriber.cut()?;
    again(server)?.is_quiet()
}

fn a_message_does_not_expire_once_it_was_sent(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    for payload in ["sent", "received"] {
        publisher.publish_with(&topic, payload, QoS::ExactlyOnce, |publish| {
            publish.message_expiry_interval = Some(3);
        })?;
    }
    let sent = id_of(&subscriber.message()?)?;
    let received = id_of(&subscriber.message()?)?;
    subscriber.ack(AckType::Pubrec, received)?;
    subscriber.acked(PacketType::Pubrel, received)?;
    subscriber.cut()?;
    publisher.is_quiet_for(Duration::from_secs(5))?;
    let mut subscriber = again(server)?;
    subscriber.acked(PacketType::Pubrel, received)?;
    subscriber.ack(AckType::Pubcomp, received)?;
    let message = subscriber.message()?;
    ensure!(message.payload == "sent", "\"{message}\"");
    ensure!(id_of(&message)? == sent, "with another Packet Identifier");
    subscriber.acknowledge(&message)?;
    subscriber.is_quiet()
}

fn messages_arrive_in_order(server: &Server) -> Result<()> {
    let (mut publisher, mut subscriber, topic) = pair(server)?;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        // Ten at a time are on their way, which every Receive Maximum allows.
        for batch in 0..20 {
            let numbers = batch * 10..(batch + 1) * 10;
            let mut ids = Vec::new();
            for n in numbers.clone() {
                let id = packet_id(n + 1)?;
                let delivery = match qos {
                    QoS::AtMostOnce => Delivery::AtMostOnce,
                    QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
                    QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
                };
                send(&mut publisher, &topic, &n.to_string(), delivery, false)?;
                ids.push(id);
            }
            if qos == QoS::AtLeastOnce {
                for id in &ids {
                    publisher.acked(PacketType::Puback, *id)?;
                }
            } else if qos == QoS::ExactlyOnce {
                for id in &ids {
                    publisher.acked(PacketType::Pubrec, *id)?;
                }
                for id in &ids {
                    publisher.ack(AckType::Pubrel, *id)?;
                }
                for id in &ids {
                    publisher.acked(PacketType::Pubcomp, *id)?;
                }
            }
            for n in numbers {
                subscriber.takes(&format!("{topic}={n} q{}", qos as u8))?;
            }
        }
    }
    Ok(())
}

fn every_subscriber_gets_the_message(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut subscribers = Vec::new();
    for name in 0..8 {
        let mut subscriber = server.client(&format!("s{name}"))?;
        subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
        subscribers.push(subscriber);
    }
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "x", QoS::AtLeastOnce)?;
    for subscriber in &mut subscribers {
        subscriber.takes(&format!("{topic}=x q1"))?;
    }
    Ok(())
}
