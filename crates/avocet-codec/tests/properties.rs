//! Laws that hold for all packets and all bytes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod generators;

use std::num::NonZeroU16;

use avocet_codec::{
    DecodeError, Delivery, EncodeError, Frame, MessageProperties, PACKET_SIZE_MAX, Packet, Publish,
    Version, frame_len,
};
use bytes::{BufMut, Bytes};
use proptest::prelude::*;

use generators::{frame, version};

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    out
}

/// The first packet and what is behind it, by its length and what is cut off.
fn first_packet(
    input: &[u8],
    version: Version,
    limit: u32,
) -> Result<Option<(Packet<'_>, &[u8])>, DecodeError> {
    let Some(len) = frame_len(input, limit)? else {
        return Ok(None);
    };
    let Some((frame, rest)) = input.split_at_checked(len) else {
        return Ok(None);
    };
    Ok(Some((Packet::decode(frame, version)?, rest)))
}

/// Cuts a stream into packets, as bytes come in.
#[derive(Default)]
struct Receiver {
    buffer: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

impl Receiver {
    fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(len) = frame_len(&self.buffer, PACKET_SIZE_MAX).unwrap() {
            if self.buffer.len() < len {
                break;
            }
            let rest = self.buffer.split_off(len);
            self.frames.push(std::mem::replace(&mut self.buffer, rest));
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(frame in frame()) {
        let version = frame.version;
        frame.with_packet(|packet| {
            let bytes = encoded(&packet, version);
            prop_assert_eq!(bytes.len(), packet.encoded_len(version));
            let decoded = Packet::decode(&bytes, version);
            prop_assert_eq!(decoded, Ok(packet));
            // A packet that borrows from the wire is as good as one that borrows from values.
            let again = encoded(&decoded.unwrap(), version);
            prop_assert_eq!(Packet::decode(&again, version), Ok(packet));
            prop_assert_eq!(again, bytes);
            Ok(())
        })?;
    }

    #[test]
    fn all_buffers_get_the_same_bytes(frame in frame(), cut in any::<prop::sample::Index>()) {
        let version = frame.version;
        frame.with_packet(|packet| {
            let bytes = encoded(&packet, version);
            let mut exact = Vec::with_capacity(bytes.len());
            packet.encode(version, &mut exact).unwrap();
            prop_assert_eq!(&exact, &bytes);
            let mut array = vec![0; bytes.len()];
            let (front, behind) = array.split_at_mut(cut.index(bytes.len()));
            let mut pieces = front.chain_mut(behind);
            packet.encode(version, &mut pieces).unwrap();
            prop_assert_eq!(pieces.remaining_mut(), 0);
            prop_assert_eq!(&array, &bytes);
            // Not even the last byte is missing where there is no error.
            let mut short = &mut array[1..];
            let full = packet.encode(version, &mut short);
            prop_assert_eq!(full, Err(EncodeError::OutputFull));
            prop_assert_eq!(short.len(), bytes.len() - 1);
            Ok(())
        })?;
    }

    #[test]
    fn frames_own_what_packets_borrow(frame in frame()) {
        let version = frame.version;
        frame.with_packet(|packet| {
            let owned = Frame::encode(&packet, version).unwrap();
            prop_assert_eq!(owned.packet(), packet);
            let copy = Frame::new(Bytes::copy_from_slice(owned.bytes()), version);
            prop_assert_eq!(copy, Ok(owned));
            Ok(())
        })?;
    }

    #[test]
    fn every_split_point_gives_the_same_packets(frames in prop::collection::vec(frame(), 1..4)) {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| frame.with_packet(|packet| encoded(&packet, frame.version)))
            .collect();
        let stream = frames.concat();
        for cut in 0..=stream.len() {
            let mut receiver = Receiver::default();
            receiver.receive(&stream[..cut]);
            receiver.receive(&stream[cut..]);
            prop_assert_eq!(&receiver.frames, &frames);
            prop_assert!(receiver.buffer.is_empty());
        }
    }

    #[test]
    fn a_truncated_packet_is_incomplete_and_never_a_packet(frame in frame()) {
        let bytes = frame.with_packet(|packet| encoded(&packet, frame.version));
        for cut in 0..bytes.len() {
            let len = frame_len(&bytes[..cut], PACKET_SIZE_MAX).unwrap();
            prop_assert!(len.is_none() || len == Some(bytes.len()));
            prop_assert!(Packet::decode(&bytes[..cut], frame.version).is_err());
        }
    }

    /// Whatever the form of its length, and whatever is behind it.
    #[test]
    fn the_next_packet_is_the_one_that_its_length_delimits(
        frame in frame(),
        more_length in 0..4_usize,
        change in any::<Option<(prop::sample::Index, u8)>>(),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        behind in prop::collection::vec(any::<u8>(), 0..8),
        limit in -1..3_i64,
        version in version(),
    ) {
        let mut bytes = frame.with_packet(|packet| encoded(&packet, frame.version));
        let len = bytes.len() as i64;
        let limit = if limit < 0 { u32::MAX } else { (len + limit - 1) as u32 };
        let last = bytes[1..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
        for at in 0..more_length {
            bytes[last + at] |= 0x80;
            bytes.insert(last + at + 1, 0);
        }
        if let Some((index, byte)) = change {
            let index = index.index(bytes.len().min(12));
            bytes[index] = byte;
        }
        bytes.extend(behind);
        bytes.truncate(cut.map_or(usize::MAX, |cut| cut.index(bytes.len())));

        let mut rest = &bytes[..];
        let next = Packet::decode_next(&mut rest, version, limit);
        if let Ok(next) = next {
            prop_assert_eq!(next.is_some(), rest.len() < bytes.len());
        }
        let next = next.map(|next| next.map(|packet| (packet, rest)));
        prop_assert_eq!(next, first_packet(&bytes, version, limit));
    }

    /// A body that ends early under a Remaining Length that fits.
    #[test]
    fn a_shortened_body_is_refused_or_another_packet(frame in frame()) {
        let bytes = frame.with_packet(|packet| encoded(&packet, frame.version));
        let header = bytes[1..].iter().position(|byte| *byte < 0x80).unwrap() + 2;
        for len in 0..(bytes.len() - header).min(127) {
            let short = [&[bytes[0], len as u8], &bytes[header..header + len]].concat();
            if let Ok(packet) = Packet::decode(&short, frame.version) {
                let again = encoded(&packet, frame.version);
                prop_assert_eq!(Packet::decode(&again, frame.version), Ok(packet));
            }
        }
    }

    #[test]
    fn changed_bytes_are_refused_or_another_packet(
        frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        version in version(),
    ) {
        let mut bytes = frame.with_packet(|packet| encoded(&packet, frame.version));
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = frame_len(&bytes, PACKET_SIZE_MAX);
        if let Ok(packet) = Packet::decode(&bytes, version) {
            let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
            let again = encoded(&packet, version);
            prop_assert_eq!(Packet::decode(&again, version), Ok(packet));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        first_byte in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..100),
        version in version(),
    ) {
        let bytes = [&[first_byte, body.len() as u8], &body[..]].concat();
        let _ = frame_len(&body, PACKET_SIZE_MAX);
        let _ = Packet::decode(&body, version);
        if let Ok(packet) = Packet::decode(&bytes, version) {
            let _ = format!("{packet:?}");
        }
    }

    #[test]
    fn a_header_and_its_payload_are_the_packet(frame in frame()) {
        let version = frame.version;
        frame.with_packet(|packet| {
            if let Packet::Publish(publish) = packet {
                let mut bytes = Vec::new();
                publish.encode_header(version, &mut bytes).unwrap();
                prop_assert_eq!(bytes.len(), publish.encoded_header_len(version));
                bytes.extend_from_slice(publish.payload);
                prop_assert_eq!(bytes, encoded(&packet, version));
            }
            Ok(())
        })?;
    }

    /// [MQTT5-3.3.2-18]
    #[test]
    fn message_properties_are_forwarded_as_they_came(
        frame in frame(),
        alias in any::<Option<NonZeroU16>>(),
        expiry in any::<Option<u32>>(),
    ) {
        frame.with_packet(|packet| {
            let Packet::Publish(publish) = packet else { return Ok(()) };
            let bytes = encoded(&packet, Version::V5);
            let received = Publish::decode(&bytes, Version::V5).unwrap();
            let mut kept = Vec::new();
            received.properties.encode(&mut kept).unwrap();
            prop_assert_eq!(kept.len(), received.properties.encoded_len());
            let properties = MessageProperties::from_wire(&kept);
            prop_assert_eq!(properties, Ok(publish.properties));
            let Some(topic_name) = publish.topic_name else { return Ok(()) };
            let forwarded = Publish {
                topic_alias: alias,
                message_expiry_interval: expiry,
                properties: MessageProperties::from_encoded(&kept),
                ..Publish::new(topic_name, Delivery::AtMostOnce, publish.payload)
            };
            let bytes = encoded(&Packet::Publish(forwarded), Version::V5);
            prop_assert_eq!(Publish::decode(&bytes, Version::V5), Ok(forwarded));
            Ok(())
        })?;
    }
}
