//! Sections 2 and 4.13: packets that break the rules of their format end the connection, and no
//! other.

use anyhow::{Context as _, Result};
use avocet_codec::{QoS, ReasonCode};

use super::peer::{packet, string};
use super::{Group, Server, cases};
use ReasonCode::{MalformedPacket, PacketTooLarge, ProtocolError};

pub(super) const GROUP: Group = Group {
    name: "malformed",
    cases: cases![
        /// [MQTT5-2.1.3-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1] [MQTT5-4.13.1-1] [MQTT5-4.13.2-1]
        /// [MQTT311-2.2.2-1] [MQTT311-2.2.2-2] [MQTT311-3.14.1-1]
        reserved_flags_end_the_connection,
        /// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
        packets_of_a_server_end_the_connection,
        /// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
        packets_of_no_type_end_the_connection,
        /// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
        a_length_of_five_bytes_ends_the_connection,
        /// [MQTT5-1.5.5-1]
        a_length_that_could_be_shorter_ends_the_connection,
        /// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
        packets_that_end_early_or_late_end_the_connection,
        /// [MQTT5-2.2.2-1] [MQTT5-4.13.1-1]
        properties_out_of_place_end_the_connection,
        /// [MQTT5-4.13.1-1]
        property_values_out_of_range_end_the_connection,
        /// [MQTT5-3.14.2-1] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1]
        reason_codes_of_other_packets_end_the_connection,
        /// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
        others_do_not_notice,
    ],
};

fn end(server: &Server, packets: &[Vec<u8>], codes: &[ReasonCode]) -> Result<()> {
    for bytes in packets {
        let mut peer = server.client("bad")?;
        peer.send_bytes(bytes)?;
        peer.is_ended(codes)
            .with_context(|| format!("after {bytes:02x?}"))?;
    }
    Ok(())
}

fn reserved_flags_end_the_connection(server: &Server) -> Result<()> {
    let mut packets = vec![vec![0xc1, 0], vec![0xc8, 0], vec![0xe1, 0], vec![0xe2, 0]];
    packets.extend([0x41, 0x52, 0x74].map(|first_byte| vec![first_byte, 2, 0, 1]));
    if server.is_v5() {
        packets.push(vec![0xf1, 0]);
    }
    end(server, &packets, &[MalformedPacket])
}

fn packets_of_a_server_end_the_connection(server: &Server) -> Result<()> {
    let none = server.no_properties();
    let packets = [
        packet(0x20, &[&[0, 0], none]),
        packet(0x90, &[&[0, 1], none, &[0]]),
        packet(
            0xb0,
            &[&[0, 1], none, if server.is_v5() { &[0] } else { &[] }],
        ),
        vec![0xd0, 0],
    ];
    end(server, &packets, &[MalformedPacket, ProtocolError])
}

fn packets_of_no_type_end_the_connection(server: &Server) -> Result<()> {
    let mut packets = vec![vec![0x00, 0]];
    if !server.is_v5() {
        packets.push(vec![0xf0, 0]);
    }
    end(server, &packets, &[MalformedPacket, ProtocolError])
}

fn a_length_of_five_bytes_ends_the_connection(server: &Server) -> Result<()> {
    let packets = [
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0xc0, 0x80, 0x80, 0x80, 0x80, 0],
    ];
    end(server, &packets, &[MalformedPacket, PacketTooLarge])
}

fn a_length_that_could_be_shorter_ends_the_connection(server: &Server) -> Result<()> {
    let topic = string(server.topic("t"));
    let packets = [
        vec![0xc0, 0x80, 0x00],
        packet(0x30, &[&topic, &[0x80, 0x00]]),
    ];
    end(server, &packets, &[MalformedPacket])
}

fn packets_that_end_early_or_late_end_the_connection(server: &Server) -> Result<()> {
    let topic = string(server.topic("t"));
    let none = server.no_properties();
    let short = topic.get(..topic.len() - 1).unwrap_or_default();
    let packets = [
        vec![0x30, 0],
        packet(0x30, &[short]),
        packet(0x32, &[&topic, &[0]]),
        packet(0x82, &[&[0]]),
        packet(0x82, &[&[0, 1], none, &topic]),
        packet(0x82, &[&[0, 1], none, short]),
        packet(0x82, &[&[0, 1], none, &topic, &[0], &[0]]),
        packet(0xa2, &[&[0, 1], none, short]),
        packet(0xa2, &[&[0, 1], none, &topic, &[0]]),
        packet(0x62, &[&[0]]),
        packet(0xc0, &[&[0]]),
    ];
    end(server, &packets, &[MalformedPacket, ProtocolError])
}

/// A PUBLISH of QoS 0 and a SUBSCRIBE with these properties.
fn with_properties(server: &Server, properties: &[u8]) -> [Vec<u8>; 2] {
    let topic = string(server.topic("t"));
    let length = [properties.len() as u8];
    [
        packet(0x30, &[&topic, &length, properties, b"x"]),
        packet(0x82, &[&[0, 1], &length, properties, &topic, &[0]]),
    ]
}

fn properties_out_of_place_end_the_connection(server: &Server) -> Result<()> {
    let codes = [MalformedPacket, ProtocolError];
    // Unknown, of CONNECT, cut short, and twice where once is allowed.
    for properties in [&[0x7f, 0][..], &[0x21, 0, 5], &[0x26, 0, 1, b'a', 0]] {
        end(server, &with_properties(server, properties), &codes)?;
    }
    let [publish, _] = with_properties(server, &[0x01, 1, 0x01, 1]);
    let [_, subscribe] = with_properties(server, &[0x0b, 1, 0x0b, 1]);
    end(server, &[publish, subscribe], &codes)?;
    // No Property Length, and one beyond the packet.
    let topic = string(server.topic("t"));
    let packets = [packet(0x30, &[&topic]), packet(0x30, &[&topic, &[5, 1, 0]])];
    end(server, &packets, &codes)
}

fn property_values_out_of_range_end_the_connection(server: &Server) -> Result<()> {
    // Subscription Identifier 0.
    let [_, subscribe] = with_properties(server, &[0x0b, 0]);
    end(server, &[subscribe], &[MalformedPacket, ProtocolError])?;
    // Receive Maximum 0, Maximum Packet Size 0, a third value where 0 and 1 are all there is, and
    // Authentication Data without a method.
    for properties in [
        &[0x21, 0, 0][..],
        &[0x27, 0, 0, 0, 0],
        &[0x19, 2],
        &[0x17, 2],
        &[0x16, 0, 1, 0],
    ] {
        let header = [&string("MQTT"), &[5, 2, 0, 60, properties.len() as u8][..]].concat();
        let mut peer = server.dial()?;
        let id = string(server.id("bad"));
        peer.send_bytes(&packet(0x10, &[&header, properties, &id]))?;
        peer.is_refused(&[MalformedPacket, ProtocolError])
            .with_context(|| format!("CONNECT with {properties:02x?}"))?;
    }
    Ok(())
}

fn reason_codes_of_other_packets_end_the_connection(server: &Server) -> Result<()> {
    let mut packets = vec![packet(0xe0, &[&[0x10]]), packet(0xe0, &[&[0x7f]])];
    packets.extend([0x40, 0x50, 0x62, 0x70].map(|first| packet(first, &[&[0, 1, 0x8e]])));
    end(server, &packets, &[MalformedPacket, ProtocolError])
}

fn others_do_not_notice(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtLeastOnce)?;
    end(
        server,
        &[vec![0x00, 0], vec![0x36, 0]],
        &[MalformedPacket, ProtocolError],
    )?;
    server.client("p")?.publish(&topic, "x", QoS::AtLeastOnce)?;
    subscriber.takes(&format!("{topic}=x q1"))?;
    Ok(())
}
