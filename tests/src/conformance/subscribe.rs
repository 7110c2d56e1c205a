//! Sections 3.8 to 3.11: SUBSCRIBE and UNSUBSCRIBE; 3.3.4: overlapping subscriptions.

use anyhow::{Result, ensure};
use avocet_codec::{
    AckType, Packet, PacketId, PacketType, QoS, ReasonCode, Subscribe, SubscribeFilter,
    SubscriptionOptions, TopicFilter,
};

use super::peer::{packet, string};
use super::{Group, Server, cases};
use ReasonCode::{MalformedPacket, NoSubscriptionExisted, ProtocolError, Success};

pub(super) const GROUP: Group = Group {
    name: "subscribe",
    cases: cases![
        /// [MQTT5-2.2.1-6] [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6]
        /// [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2]
        /// [MQTT311-2.3.1-7] [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-3.8.4-4]
        /// [MQTT311-3.8.4-5] [MQTT311-3.9.3-1] [MQTT311-3.9.3-2]
        suback_answers_each_filter_in_order,
        /// [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-2.1.3-1]
        /// [MQTT311-3.8.1-1] [MQTT311-3.10.1-1] [MQTT311-2.2.2-1] [MQTT311-2.2.2-2]
        other_flags_end_the_connection,
        /// [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT311-3.8.3-3] [MQTT311-3.10.3-2]
        no_filter_ends_the_connection,
        /// [MQTT5-3.8.3-5] [MQTT311-3.8.3-4]
        reserved_options_end_the_connection,
        /// [MQTT5-2.2.1-3] [MQTT311-2.3.1-1]
        a_packet_identifier_of_0_ends_the_connection,
        /// [MQTT5-3.8.4-8] [MQTT311-3.8.4-6]
        messages_come_with_the_lower_qos,
        /// [MQTT5-3.8.4-3] [MQTT311-3.8.4-3]
        the_same_filter_replaces_the_subscription,
        /// [MQTT5-3.8.4-4] [MQTT311-3.8.4-3]
        replacing_a_subscription_loses_nothing,
        /// [MQTT5-3.8.3-3]
        no_local_keeps_own_messages_away,
        /// [MQTT5-3.3.4-2] [MQTT311-3.3.5-1]
        overlapping_subscriptions_respect_the_highest_qos,
        /// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT5-3.3.4-5]
        overlapping_subscriptions_give_their_identifiers,
        /// [MQTT5-3.10.4-4] [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT5-3.11.3-2]
        /// [MQTT5-2.2.1-6]
        /// [MQTT311-3.10.4-4] [MQTT311-3.10.4-5] [MQTT311-3.10.4-6] [MQTT311-2.3.1-7]
        unsuback_answers_each_filter_in_order,
        /// [MQTT5-3.10.4-1] [MQTT5-3.10.4-2] [MQTT311-3.10.4-1] [MQTT311-3.10.4-2]
        unsubscribe_ends_exactly_the_subscription_it_names,
        /// [MQTT5-3.10.4-3] [MQTT311-3.10.4-3]
        unsubscribe_lets_deliveries_finish,
    ],
};

fn suback_answers_each_filter_in_order(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let levels = [
        QoS::ExactlyOnce,
        QoS::AtMostOnce,
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::AtMostOnce,
    ];
    let topics: Vec<String> = (0..levels.len())
        .map(|n| server.topic(&n.to_string()))
        .collect();
    let mut filters = Vec::new();
    for (topic, qos) in topics.iter().zip(levels) {
        filters.push(SubscribeFilter::new(TopicFilter::new(topic)?, qos));
    }
    for id in [1, 65_535, 77] {
        let Some(packet_id) = PacketId::new(id) else {
            continue;
        };
        peer.send(&Packet::Subscribe(Subscribe::new(packet_id, &filters)))?;
        let codes = peer.suback(packet_id)?;
        let wanted = levels.map(|qos| qos as u8);
        let codes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
        ensure!(codes == wanted, "{codes:?} instead of {wanted:?}");
    }
    peer.is_quiet()?;
    // As if each had come alone.
    let mut publisher = server.client("p")?;
    for (topic, qos) in topics.iter().zip(levels) {
        publisher.publish(topic, "x", QoS::ExactlyOnce)?;
        peer.takes(&format!("{topic}=x q{}", qos as u8))?;
    }
    Ok(())
}

fn ends(server: &Server, bytes: &[u8], codes: &[ReasonCode]) -> Result<()> {
    let mut peer = server.client("bad")?;
    peer.send_bytes(bytes)?;
    peer.is_ended(codes)
}

fn other_flags_end_the_connection(server: &Server) -> Result<()> {
    let filter = string(server.topic("t"));
    let subscribe: [&[u8]; 4] = [&[0, 1], server.no_properties(), &filter, &[0]];
    let unsubscribe: [&[u8]; 3] = [&[0, 1], server.no_properties(), &filter];
    for flags in [0, 1, 3, 6, 10] {
        ends(
            server,
            &packet(0x80 | flags, &subscribe),
            &[MalformedPacket],
        )?;
        ends(
            server,
            &packet(0xa0 | flags, &unsubscribe),
            &[MalformedPacket],
        )?;
    }
    Ok(())
}

fn no_filter_ends_the_connection(server: &Server) -> Result<()> {
    let body: [&[u8]; 2] = [&[0, 1], server.no_properties()];
    for first_byte in [0x82, 0xa2] {
        ends(
            server,
            &packet(first_byte, &body),
            &[MalformedPacket, ProtocolError],
        )?;
    }
    Ok(())
}

fn reserved_options_end_the_connection(server: &Server) -> Result<()> {
    let filter = string(server.topic("t"));
    let bad: &[u8] = if server.is_v5() {
        // QoS 3, Retain Handling 3, reserved bits.
        &[0x03, 0x30, 0x40, 0x80, 0xc1]
    } else {
        &[0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80]
    };
    for options in bad {
        let body: [&[u8]; 4] = [&[0, 1], server.no_properties(), &filter, &[*options]];
        ends(
            server,
            &packet(0x82, &body),
            &[MalformedPacket, ProtocolError],
        )?;
    }
    Ok(())
}

fn a_packet_identifier_of_0_ends_the_connection(server: &Server) -> Result<()> {
    let filter = string(server.topic("t"));
    let codes = [MalformedPacket, ProtocolError];
    let subscribe: [&[u8]; 4] = [&[0, 0], server.no_properties(), &filter, &[0]];
    ends(server, &packet(0x82, &subscribe), &codes)?;
    let unsubscribe: [&[u8]; 3] = [&[0, 0], server.no_properties(), &filter];
    ends(server, &packet(0xa2, &unsubscribe), &codes)
}

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn messages_come_with_the_lower_qos(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    for granted in LEVELS {
        subscriber.subscribe(&topic, granted)?;
        for published in LEVELS {
            publisher.publish(&topic, "x", published)?;
            let qos = (granted as u8).min(published as u8);
            subscriber.takes(&format!("{topic}=x q{qos}"))?;
        }
    }
    Ok(())
}

fn the_same_filter_replaces_the_subscription(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    for qos in [QoS::ExactlyOnce, QoS::AtMostOnce, QoS::AtLeastOnce] {
        subscriber.subscribe(&topic, qos)?;
    }
    publisher.publish(&topic, "x", QoS::ExactlyOnce)?;
    subscriber.takes(&format!("{topic}=x q1"))?;
    subscriber.is_passed_over(&mut publisher, &server.topic("marker"))?;
    subscriber.unsubscribe(&[&topic])?;
    publisher.publish(&topic, "y", QoS::ExactlyOnce)?;
    subscriber.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn replacing_a_subscription_loses_nothing(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
    for n in 0..20 {
        publisher.publish(&topic, &n.to_string(), QoS::AtLeastOnce)?;
        subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
    }
    for n in 0..20 {
        subscriber.takes(&format!("{topic}={n} q1"))?;
    }
    Ok(())
}

fn no_local_keeps_own_messages_away(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut own = server.client("a")?;
    let mut options = SubscriptionOptions::new(QoS::AtLeastOnce);
    options.no_local = true;
    own.subscribe_with(&topic, options, None)?;
    own.publish(&topic, "own", QoS::AtLeastOnce)?;
    let mut other = server.client("b")?;
    other.publish(&topic, "other", QoS::AtLeastOnce)?;
    own.takes(&format!("{topic}=other q1"))?;
    own.is_passed_over(&mut other, &server.topic("marker"))
}

fn overlapping_subscriptions_respect_the_highest_qos(server: &Server) -> Result<()> {
    let mut publisher = server.client("p")?;
    let levels = [QoS::AtMostOnce, QoS::ExactlyOnce, QoS::AtLeastOnce];
    // Whichever filter a server finds first, in some round another one has the highest QoS.
    for round in 0..3 {
        let mut subscriber = server.client("s")?;
        for (filter, qos) in ["a/+", "a/b", "a/#"]
            .iter()
            .zip(levels.iter().cycle().skip(round))
        {
            subscriber.subscribe(&server.topic(filter), *qos)?;
        }
        publisher.publish(&server.topic("a/b"), "x", QoS::ExactlyOnce)?;
        // One message of QoS 2, or one for each subscription.
        let mut found = Vec::new();
        let marker = server.topic("a/marker");
        publisher.publish(&marker, "", QoS::ExactlyOnce)?;
        loop {
            let message = subscriber.take()?;
            if message.topic == marker {
                break;
            }
            found.push(message.qos as u8);
        }
        ensure!(found.contains(&2), "delivered with {found:?}");
    }
    Ok(())
}

fn overlapping_subscriptions_give_their_identifiers(server: &Server) -> Result<()> {
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    for (filter, id) in [
        ("a/+", Some(1)),
        ("a/b", None),
        ("a/#", Some(268_435_455)),
        ("#", Some(1)),
    ] {
        let options = SubscriptionOptions::new(QoS::AtLeastOnce);
        subscriber.subscribe_with(&server.topic(filter), options, id)?;
    }
    publisher.publish(&server.topic("a/b"), "x", QoS::AtLeastOnce)?;
    publisher.publish(&server.topic("end"), "x", QoS::AtLeastOnce)?;
    let (mut ids, mut copies) = (Vec::new(), 0);
    loop {
        let message = subscriber.take()?;
        if message.topic == server.topic("end") {
            ensure!(
                message.subscription_ids == [1],
                "{:?}",
                message.subscription_ids
            );
            break;
        }
        copies += 1;
        ids.extend(message.subscription_ids);
    }
    ids.sort_unstable();
    // A single copy may name an identifier once that two subscriptions have.
    ensure!(
        ids == [1, 1, 268_435_455] || (copies == 1 && ids == [1, 268_435_455]),
        "{ids:?} in {copies} copies"
    );
    Ok(())
}

fn unsuback_answers_each_filter_in_order(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let filters = ["a", "b", "c"].map(|name| server.topic(name));
    let [a, b, c] = &filters;
    peer.subscribe(a, QoS::AtMostOnce)?;
    peer.subscribe(c, QoS::AtMostOnce)?;
    let wanted: &[ReasonCode] = if server.is_v5() {
        &[Success, NoSubscriptionExisted, Success]
    } else {
        &[]
    };
    let codes = peer.unsubscribe(&[a, b, c])?;
    ensure!(codes == wanted, "{codes:?}");
    let codes = peer.unsubscribe(&[b])?;
    ensure!(
        codes.iter().all(|code| *code == NoSubscriptionExisted),
        "{codes:?}"
    );
    peer.is_quiet()
}

fn unsubscribe_ends_exactly_the_subscription_it_names(server: &Server) -> Result<()> {
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    let topic = server.topic("a/b");
    subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
    for other in ["a/+", "a/#", "#", "A/b", "a/b/", "a"] {
        subscriber.unsubscribe(&[&server.topic(other)])?;
    }
    publisher.publish(&topic, "x", QoS::AtLeastOnce)?;
    subscriber.takes(&format!("{topic}=x q1"))?;
    subscriber.subscribe(&server.topic("a/+"), QoS::AtLeastOnce)?;
    subscriber.unsubscribe(&[&server.topic("a/+")])?;
    publisher.publish(&topic, "y", QoS::AtLeastOnce)?;
    subscriber.takes(&format!("{topic}=y q1"))?;
    subscriber.unsubscribe(&[&topic])?;
    publisher.publish(&topic, "z", QoS::AtLeastOnce)?;
    subscriber.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn unsubscribe_lets_deliveries_finish(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::ExactlyOnce)?;
    publisher.publish(&topic, "x", QoS::ExactlyOnce)?;
    let message = subscriber.message()?;
    subscriber.unsubscribe(&[&topic])?;
    let Some(id) = message.packet_id else {
        anyhow::bail!("\"{message}\"");
    };
    subscriber.ack(AckType::Pubrec, id)?;
    subscriber.acked(PacketType::Pubrel, id)?;
    subscriber.ack(AckType::Pubcomp, id)?;
    subscriber.is_quiet()
}
