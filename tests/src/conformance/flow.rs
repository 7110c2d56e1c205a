//! Section 4.9: flow control; 3.1.2.11: what a client asks of the server.

use std::num::{NonZeroU16, NonZeroU32};

use anyhow::{Result, ensure};
use avocet_codec::{AckType, Packet, PacketType, QoS, ReasonCode, TopicFilter};
use avocet_codec::{SubscriptionOptions, Unsubscribe};

use super::peer::Peer;
use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "flow",
    cases: cases![
        /// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
        no_more_than_receive_maximum_is_in_flight,
        /// [MQTT5-3.3.4-10] [MQTT5-4.9.0-3]
        other_packets_do_not_wait_for_the_quota,
        /// [MQTT5-4.9.0-2]
        a_refusal_gives_the_quota_back,
        /// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
        receive_maximum_holds_for_what_is_sent_again,
        /// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
        messages_too_large_for_the_client_count_as_delivered,
        /// [MQTT5-3.1.2-24]
        the_fixed_header_counts_towards_the_maximum_packet_size,
        /// [MQTT5-3.1.2-24] [MQTT5-3.2.2-19] [MQTT5-3.2.2-20] [MQTT5-3.4.2-2] [MQTT5-3.4.2-3]
        /// [MQTT5-3.5.2-2] [MQTT5-3.5.2-3] [MQTT5-3.6.2-2] [MQTT5-3.6.2-3] [MQTT5-3.7.2-2]
        /// [MQTT5-3.7.2-3] [MQTT5-3.9.2-1] [MQTT5-3.9.2-2] [MQTT5-3.11.2-1] [MQTT5-3.11.2-2] [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]
        answers_fit_into_a_small_maximum_packet_size,
        /// [MQTT5-3.1.2-29]
        reasons_stay_away_from_a_client_that_does_not_want_them,
    ],
};

fn limited(server: &Server, receive_maximum: u16) -> Result<Peer> {
    let id = server.id("s");
    let mut connect = server.hello(&id);
    connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
    let mut peer = server.connect(&connect)?;
    peer.subscribe(&server.topic("t"), QoS::ExactlyOnce)?;
    Ok(peer)
}

fn no_more_than_receive_maximum_is_in_flight(server: &Server) -> Result<()> {
    for maximum in [1, 3] {
        let mut subscriber = limited(server, maximum)?;
        let mut publisher = server.client("p")?;
        for n in 0..6 {
            let qos = if n % 2 == 0 {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            };
            publisher.publish(&server.topic("t"), &n.to_string(), qos)?;
        }
        let mut in_flight = Vec::new();
        for _ in 0..maximum {
            in_flight.push(subscriber.message()?);
        }
        subscriber.is_quiet()?;
        // One ends, one more comes; of a QoS 2 message PUBREC is not the end.
        for _ in maximum..6 {
            let done = in_flight.remove(0);
            if let (QoS::ExactlyOnce, Some(id)) = (done.qos, done.packet_id) {
                subscriber.ack(AckType::Pubrec, id)?;
                subscriber.acked(PacketType::Pubrel, id)?;
                subscriber.is_quiet()?;
                subscriber.ack(AckType::Pubcomp, id)?;
            } else {
                subscriber.acknowledge(&done)?;
            }
            in_flight.push(subscriber.message()?);
            subscriber.is_quiet()?;
        }
    }
    Ok(())
}

fn other_packets_do_not_wait_for_the_quota(server: &Server) -> Result<()> {
    let mut subscriber = limited(server, 1)?;
    let mut publisher = server.client("p")?;
    for payload in ["1", "2"] {
        publisher.publish(&server.topic("t"), payload, QoS::AtLeastOnce)?;
    }
    let first = subscriber.message()?;
    subscriber.is_quiet()?;
    subscriber.subscribe(&server.topic("u"), QoS::AtMostOnce)?;
    subscriber.unsubscribe(&[&server.topic("u")])?;
    subscriber.publish(&server.topic("v"), "x", QoS::AtLeastOnce)?;
    subscriber.publish(&server.topic("v"), "x", QoS::ExactlyOnce)?;
    subscriber.is_quiet()?;
    subscriber.acknowledge(&first)?;
    let topic = server.topic("t");
    subscriber.takes(&format!("{topic}=2 q1"))?;
    Ok(())
}

fn a_refusal_gives_the_quota_back(server: &Server) -> Result<()> {
    let mut subscriber = limited(server, 1)?;
    let mut publisher = server.client("p")?;
    for n in 0..3 {
        publisher.publish(&server.topic("t"), &n.to_string(), QoS::ExactlyOnce)?;
    }
    for n in 0..3 {
        let message = subscriber.message()?;
        ensure!(message.payload == n.to_string(), "\"{message}\"");
        let id = message.packet_id.unwrap_or(subscriber.new_id()?);
        subscriber.ack_with(AckType::Pubrec, id, ReasonCode::QuotaExceeded)?;
    }
    subscriber.is_quiet()
}

/// A client that takes packets of that size.
fn small(server: &Server, id: &str, maximum_packet_size: u32) -> Result<Peer> {
    let mut connect = server.hello(id);
    connect.properties.maximum_packet_size = NonZeroU32::new(maximum_packet_size);
    let mut peer = server.dial()?;
    peer.limit(maximum_packet_size as usize);
    peer.connect(&connect)?;
    Ok(peer)
}

fn messages_too_large_for_the_client_count_as_delivered(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let id = server.id("s");
    let mut subscriber = small(server, &id, 200)?;
    subscriber.subscribe(&topic, QoS::ExactlyOnce)?;
    let mut other = server.client("o")?;
    other.subscribe(&topic, QoS::ExactlyOnce)?;
    let mut publisher = server.client("p")?;
    let large = "x".repeat(300);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publisher.publish(&topic, &large, qos)?;
        publisher.publish(&topic, "small", qos)?;
        subscriber.takes(&format!("{topic}=small q{}", qos as u8))?;
        other.takes(&format!("{topic}={large} q{}", qos as u8))?;
        other.takes(&format!("{topic}=small q{}", qos as u8))?;
    }
    Ok(())
}

fn the_fixed_header_counts_towards_the_maximum_packet_size(server: &Server) -> Result<()> {
    let maximum = 100;
    let topic = server.topic("t");
    let mut subscriber = small(server, &server.id("s"), maximum)?;
    subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
    let mut publisher = server.client("p")?;
    for (qos, packet_id_length) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 2)] {
        // Beside the payload: two bytes of fixed header, the topic, no properties.
        let rest = 2 + (2 + topic.len()) + packet_id_length + 1;
        let payload = |length: usize| "x".repeat(length - rest);
        let maximum = maximum as usize;
        for length in [maximum + 2, maximum + 1, maximum] {
            publisher.publish(&topic, &payload(length), qos)?;
        }
        let fits = payload(maximum);
        subscriber.takes(&format!("{topic}={fits} q{}", qos as u8))?;
    }
    subscriber.is_quiet()
}

fn answers_fit_into_a_small_maximum_packet_size(server: &Server) -> Result<()> {
    let id = server.id("s");
    // Room for what CONNACK has to say, and none to spare.
    let mut peer = small(server, &id, 64)?;
    let filter = server.topic("t");
    let options = SubscriptionOptions::new(QoS::AtLeastOnce);
    peer.try_subscribe(&filter, options, None)?;
    peer.unsubscribe(&[&filter])?;
    peer.unsubscribe(&[&filter])?;
    peer.publish(&filter, "x", QoS::AtLeastOnce)?;
    peer.publish(&filter, "x", QoS::ExactlyOnce)?;
    let packet_id = peer.new_id()?;
    peer.ack(AckType::Pubrel, packet_id)?;
    peer.acked(PacketType::Pubcomp, packet_id)?;
    peer.ack(AckType::Pubrec, packet_id)?;
    peer.acked(PacketType::Pubrel, packet_id)?;
    // SUBSCRIBE with wrong flags.
    peer.send_bytes(&[0x80, 0])?;
    peer.is_ended(&[ReasonCode::MalformedPacket, ReasonCode::ProtocolError])
}

fn reasons_stay_away_from_a_client_that_does_not_want_them(server: &Server) -> Result<()> {
    let id = server.id("s");
    let mut connect = server.hello(&id);
    connect.properties.request_problem_information = false;
    let mut peer = server.connect(&connect)?;
    let topic = server.topic("t");
    let filters = [TopicFilter::new(&topic)?];
    let packet_id = peer.new_id()?;
    peer.send(&Packet::Unsubscribe(Unsubscribe::new(packet_id, &filters)))?;
    let frame = peer.packet("UNSUBACK")?;
    if let Packet::Unsuback(unsuback) = frame.packet() {
        ensure!(
            unsuback.reason_string.is_none(),
            "a Reason String in UNSUBACK"
        );
        ensure!(
            unsuback.user_properties.is_empty(),
            "User Properties in UNSUBACK"
        );
    }
    // Nobody is subscribed.
    peer.publish(&topic, "x", QoS::AtLeastOnce)?;
    let packet_id = peer.new_id()?;
    peer.ack(AckType::Pubrel, packet_id)?;
    let frame = peer.packet("PUBCOMP")?;
    if let Packet::Pubcomp(ack) = frame.packet() {
        ensure!(ack.reason_string.is_none(), "a Reason String in PUBCOMP");
        ensure!(ack.user_properties.is_empty(), "User Properties in PUBCOMP");
    }
    Ok(())
}

fn receive_maximum_holds_for_what_is_sent_again(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut connect = server.persistent(&id);
    let mut subscriber = server.connect(&connect)?;
    subscriber.subscribe(&topic, QoS::ExactlyOnce)?;
    let mut publisher = server.client("p")?;
    for n in 0..4 {
        publisher.publish(&topic, &n.to_string(), QoS::ExactlyOnce)?;
        subscriber.message()?;
    }
    subscriber.cut()?;
    connect.properties.receive_maximum = NonZeroU16::new(1);
    let mut subscriber = server.connect(&connect)?;
    for n in 0..4 {
        let message = subscriber.message()?;
        ensure!(
            message.to_string() == format!("{topic}={n} q2 dup"),
            "\"{message}\""
        );
        subscriber.is_quiet()?;
        subscriber.acknowledge(&message)?;
    }
    subscriber.is_quiet()
}
