//! Each packet, byte for byte, and each way it can be wrong.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod fixed_header;
mod lengths;
mod property;
mod publish;
mod subscribe;
mod unsubscribe;

use avocet_codec::{DecodeError, EncodeError, Packet, PacketId, ReasonCode, Version};

pub(crate) use Version::{V3_1, V3_1_1, V5};

/// Two digits are a byte, text between quotes is itself, blanks part.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            for byte in part.split_whitespace() {
                bytes.push(u8::from_str_radix(byte, 16).unwrap());
            }
        }
    }
    bytes
}

/// The bytes decode to the packet, and the packet encodes to the bytes.
#[track_caller]
pub(crate) fn same(version: Version, text: &str, packet: Packet<'_>) {
    decodes(version, text, packet);
    let mut encoded = Vec::new();
    packet.encode(version, &mut encoded).unwrap();
    assert_eq!(encoded, bytes(text), "encoded");
    assert_eq!(packet.encoded_len(version), encoded.len());
}

/// The bytes decode to the packet, which has a form that we prefer.
#[track_caller]
pub(crate) fn decodes(version: Version, text: &str, packet: Packet<'_>) {
    assert_eq!(Packet::decode(&bytes(text), version), Ok(packet), "decoded");
}

#[track_caller]
pub(crate) fn accepts(version: Version, text: &str) {
    assert!(Packet::decode(&bytes(text), version).is_ok());
}

#[track_caller]
pub(crate) fn refuses(version: Version, text: &str, error: DecodeError) {
    assert_eq!(Packet::decode(&bytes(text), version), Err(error));
}

/// The error is found before the first byte is written.
#[track_caller]
pub(crate) fn unencodable(version: Version, packet: Packet<'_>, error: EncodeError) {
    let room = packet.encoded_len(version).min(1 << 20);
    for mut out in [Vec::new(), Vec::with_capacity(room)] {
        assert_eq!(packet.encode(version, &mut out), Err(error));
        assert!(out.is_empty());
    }
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

#[test]
fn reason_codes_are_told_apart_in_one_place() {
    assert_eq!(
        DecodeError::TrailingBytes.reason_code(),
        ReasonCode::MalformedPacket
    );
    assert_eq!(
        DecodeError::NoTopicFilters.reason_code(),
        ReasonCode::ProtocolError
    );
    assert_eq!(
        DecodeError::PacketTooLarge.reason_code(),
        ReasonCode::PacketTooLarge
    );
    assert_eq!(
        DecodeError::UnsupportedProtocolVersion(6).reason_code(),
        ReasonCode::UnsupportedProtocolVersion
    );
}

#[test]
fn reason_codes_return_from_their_numbers() {
    for value in 0..=u8::MAX {
        if let Some(code) = ReasonCode::from_u8(value) {
            assert_eq!(code as u8, value);
            assert_eq!(code.is_error(), value >= 0x80);
            assert!(ReasonCode::ALL.contains(&code));
        }
    }
    assert_eq!(ReasonCode::ALL.len(), 43);
}

#[test]
fn return_codes_of_3_x_survive_the_way_through_reason_codes() {
    for value in 0..=5 {
        let code = ReasonCode::from_connect_return_code(value).unwrap();
        assert_eq!(code.connect_return_code(), value);
    }
    assert_eq!(ReasonCode::from_connect_return_code(6), None);
    assert_eq!(ReasonCode::ServerBusy.connect_return_code(), 3);
    assert_eq!(ReasonCode::Banned.connect_return_code(), 5);
    assert_eq!(ReasonCode::TopicFilterInvalid.suback_return_code(), 0x80);
}
