//! Section 4.8.2: Shared Subscriptions.

use anyhow::{Context as _, Result, ensure};
use avocet_codec::{AckType, PacketType, QoS, ReasonCode, SubscriptionOptions};

use super::peer::{Peer, packet, string};
use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "shared",
    cases: cases![
        /// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
        malformed_shared_filters_are_refused,
        /// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
        each_message_goes_to_one_member_of_each_group,
        /// [MQTT5-3.3.1-9]
        shared_subscriptions_get_no_retained_messages,
        /// [MQTT5-3.8.3-4]
        no_local_on_a_shared_subscription_ends_the_connection,
        /// [MQTT5-4.8.2-3]
        the_granted_qos_is_respected,
        /// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]
        a_qos_2_message_stays_with_the_member_it_was_sent_to,
        /// [MQTT5-4.8.2-5]
        a_qos_2_message_of_an_ended_session_goes_to_nobody_else,
        /// [MQTT5-4.8.2-6]
        a_message_a_member_refuses_goes_to_nobody_else,
        /// [MQTT5-3.10.4-1] [MQTT5-3.10.4-2]
        unsubscribe_leaves_the_group,
    ],
};

fn malformed_shared_filters_are_refused(server: &Server) -> Result<()> {
    for filter in [
        "$share//t",
        "$share/a",
        "$share/a/",
        "$share/a+/t",
        "$share/+/t",
        "$share/a#/t",
    ] {
        let mut peer = server.client("bad")?;
        peer.send_bytes(&packet(0x82, &[&[0, 1, 0], &string(filter), &[0]]))?;
        peer.refuses_a_filter()
            .with_context(|| format!("the answer to {filter:?}"))?;
    }
    Ok(())
}

fn share(server: &Server, group: &str) -> String {
    format!("$share/{group}/{}", server.topic("t"))
}

fn members(server: &Server, names: &[(&str, &str)]) -> Result<Vec<Peer>> {
    names
        .iter()
        .map(|(name, group)| {
            let mut member = server.client(name)?;
            member.subscribe(&share(server, group), QoS::ExactlyOnce)?;
            Ok(member)
        })
        .collect()
}

/// The payloads that came to a client before it got a message of its own.
fn payloads(server: &Server, peer: &mut Peer) -> Result<Vec<String>> {
    let end = server.topic("end");
    peer.subscribe(&end, QoS::AtLeastOnce)?;
    peer.publish(&end, "", QoS::AtLeastOnce)?;
    let mut payloads = Vec::new();
    loop {
        let message = peer.take()?;
        if message.topic == end {
            break;
        }
        payloads.push(message.payload);
    }
    peer.unsubscribe(&[&end])?;
    Ok(payloads)
}

fn each_message_goes_to_one_member_of_each_group(server: &Server) -> Result<()> {
    const COUNT: usize = 30;
    let topic = server.topic("t");
    let names = [
        ("a", "one"),
        ("b", "one"),
        ("c", "one"),
        ("d", "two"),
        ("e", "two"),
    ];
    let mut members = members(server, &names)?;
    let mut publisher = server.client("p")?;
    for n in 0..COUNT {
        publisher.publish(&topic, &format!("{n:03}"), QoS::ExactlyOnce)?;
    }
    let wanted: Vec<_> = (0..COUNT).map(|n| format!("{n:03}")).collect();
    for group in ["one", "two"] {
        let mut found = Vec::new();
        for (member, (_, of)) in members.iter_mut().zip(names) {
            if of == group {
                found.extend(payloads(server, member)?);
            }
        }
        found.sort();
        ensure!(found == wanted, "group {group} gets {found:?}");
    }
    Ok(())
}

/// Section 3.8.4: neither the first member gets them, nor one that joins.
fn shared_subscriptions_get_no_retained_messages(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    publisher.retain(&topic, "x", QoS::AtLeastOnce)?;
    for name in ["a", "b"] {
        let mut member = server.client(name)?;
        member.subscribe(&share(server, "g"), QoS::AtLeastOnce)?;
        member.is_passed_over(&mut publisher, &server.topic("marker"))?;
    }
    publisher.retain(&topic, "", QoS::AtLeastOnce)
}

fn no_local_on_a_shared_subscription_ends_the_connection(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    let filter = string(share(server, "g"));
    peer.send_bytes(&packet(0x82, &[&[0, 1, 0], &filter, &[0x04]]))?;
    peer.is_ended(&[ReasonCode::ProtocolError])
}

fn the_granted_qos_is_respected(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut member = server.client("m")?;
        member.subscribe(&share(server, "g"), qos)?;
        publisher.publish(&topic, "x", QoS::ExactlyOnce)?;
        member.takes(&format!("{topic}=x q{}", qos as u8))?;
        member.disconnect()?;
    }
    Ok(())
}

/// A member in a session that is kept, and one that joins after it got a message of QoS 2.
fn with_a_message(server: &Server, id: &str) -> Result<(Peer, Peer)> {
    let mut first = server.connect(&server.persistent(id))?;
    first.subscribe(&share(server, "g"), QoS::ExactlyOnce)?;
    let mut publisher = server.client("p")?;
    publisher.publish(&server.topic("t"), "x", QoS::ExactlyOnce)?;
    let mut second = server.client("b")?;
    second.subscribe(&share(server, "g"), QoS::ExactlyOnce)?;
    Ok((first, second))
}

fn a_qos_2_message_stays_with_the_member_it_was_sent_to(server: &Server) -> Result<()> {
    let id = server.id("a");
    let (mut first, mut second) = with_a_message(server, &id)?;
    first.message()?;
    first.cut()?;
    let found = payloads(server, &mut second)?;
    ensure!(found.is_empty(), "another member gets {found:?}");
    let mut first = server.connect(&server.persistent(&id))?;
    let topic = server.topic("t");
    first.takes(&format!("{topic}=x q2 dup"))?;
    Ok(())
}

fn a_qos_2_message_of_an_ended_session_goes_to_nobody_else(server: &Server) -> Result<()> {
    let id = server.id("a");
    let (mut first, mut second) = with_a_message(server, &id)?;
    first.message()?;
    first.cut()?;
    // A clean start ends the session.
    server.client("a")?.is_quiet()?;
    let found = payloads(server, &mut second)?;
    ensure!(found.is_empty(), "another member gets {found:?}");
    Ok(())
}

fn a_message_a_member_refuses_goes_to_nobody_else(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut publisher = server.client("p")?;
    for (qos, ack_type) in [
        (QoS::AtLeastOnce, AckType::Puback),
        (QoS::ExactlyOnce, AckType::Pubrec),
    ] {
        let mut first = server.client("a")?;
        let options = SubscriptionOptions::new(QoS::ExactlyOnce);
        first.subscribe_with(&share(server, "g"), options, None)?;
        publisher.publish(&topic, "x", qos)?;
        let message = first.message()?;
        let mut second = server.client("b")?;
        second.subscribe(&share(server, "g"), QoS::ExactlyOnce)?;
        let id = message.packet_id.context("no Packet Identifier")?;
        first.ack_with(ack_type, id, ReasonCode::NotAuthorized)?;
        first.is_quiet()?;
        first.cut()?;
        let found = payloads(server, &mut second)?;
        ensure!(found.is_empty(), "another member gets {found:?}");
        second.disconnect()?;
    }
    Ok(())
}

fn unsubscribe_leaves_the_group(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut members = members(server, &[("a", "g"), ("b", "g")])?;
    let mut publisher = server.client("p")?;
    let [first, second] = members.as_mut_slice() else {
        anyhow::bail!("two members");
    };
    first.unsubscribe(&[&share(server, "g")])?;
    for n in 0..6 {
        publisher.publish(&topic, &n.to_string(), QoS::AtLeastOnce)?;
        second.takes(&format!("{topic}={n} q1"))?;
    }
    // The last PUBREL and this have the same connection.
    first.send(&avocet_codec::Packet::Pingreq)?;
    first.packet_of(PacketType::Pingresp)?;
    let found = payloads(server, first)?;
    ensure!(found.is_empty(), "who left gets {found:?}");
    Ok(())
}
