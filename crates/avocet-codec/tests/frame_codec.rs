//! Frames over `tokio_util::codec`.
#![cfg(feature = "tokio-util")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_codec::{
    Ack, Connack, Connect, DecodeError, EncodeError, Frame, FrameCodec, FrameCodecError, Packet,
    PacketId, PacketType, ReasonCode, Version,
};
use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

const PUBACK: Packet<'static> = Packet::Puback(Ack::new(PacketId::new(1).unwrap()));

#[test]
fn a_server_learns_the_version_from_the_connect_it_receives() {
    let connect = Packet::Connect(Connect::new(Version::V3_1_1, "a"));
    let mut wire = Vec::new();
    connect.encode(Version::V3_1_1, &mut wire).unwrap();
    Packet::Pingreq.encode(Version::V3_1_1, &mut wire).unwrap();

    let mut codec = FrameCodec::new(1000);
    let mut source = BytesMut::new();
    let mut frames = Vec::new();
    for byte in wire {
        source.extend_from_slice(&[byte]);
        frames.extend(codec.decode(&mut source).unwrap());
    }
    assert_eq!(frames.len(), 2);
    assert_eq!(frames.first().unwrap().packet(), connect);
    assert_eq!(frames.last().unwrap().packet(), Packet::Pingreq);
    assert_eq!(frames.last().unwrap().version(), Version::V3_1_1);
    assert_eq!(codec.version(), Some(Version::V3_1_1));
    assert!(source.is_empty());
}

#[test]
fn a_client_learns_the_version_from_the_connect_it_sends() {
    let mut codec = FrameCodec::new(1000);
    let mut wire = BytesMut::new();
    let connect = Packet::Connect(Connect::new(Version::V3_1_1, "a"));
    codec.encode(connect, &mut wire).unwrap();
    assert_eq!(codec.version(), Some(Version::V3_1_1));

    let mut source = BytesMut::from(&[0x20, 2, 0, 5][..]);
    let frame = codec.decode(&mut source).unwrap().unwrap();
    let refused = Packet::Connack(Connack::new(ReasonCode::NotAuthorized));
    assert_eq!(frame.packet(), refused);
}

#[test]
fn nothing_comes_before_the_version_is_known() {
    let mut codec = FrameCodec::new(1000);
    let mut wire = BytesMut::new();
    assert!(matches!(
        codec.encode(PUBACK, &mut wire),
        Err(FrameCodecError::VersionUnknown(PacketType::Puback))
    ));
    let mut source = BytesMut::from(&[0xc0, 0][..]);
    assert!(matches!(
        codec.decode(&mut source),
        Err(FrameCodecError::VersionUnknown(PacketType::Pingreq))
    ));
    let mut codec = FrameCodec::with_version(Version::V5, 1000);
    assert!(codec.decode(&mut source).unwrap().is_some());
}

#[test]
fn errors_of_either_side_come_through() {
    let mut codec = FrameCodec::with_version(Version::V3_1_1, 10);
    let mut source = BytesMut::from(&[0x30, 9][..]);
    assert!(matches!(
        codec.decode(&mut source),
        Err(FrameCodecError::Decode(DecodeError::PacketTooLarge))
    ));
    let mut wire = BytesMut::new();
    let long = "x".repeat(70_000);
    let connect = Packet::Connect(Connect::new(Version::V5, &long));
    assert!(matches!(
        codec.encode(connect, &mut wire),
        Err(FrameCodecError::Encode(EncodeError::FieldTooLong(_)))
    ));
    assert!(wire.is_empty());
}

#[test]
fn a_frame_goes_out_as_it_is() {
    let mut codec = FrameCodec::with_version(Version::V5, 1000);
    let frame = Frame::encode(&PUBACK, Version::V5).unwrap();
    let mut wire = BytesMut::new();
    codec.encode(frame, &mut wire).unwrap();
    assert_eq!(wire.as_ref(), [0x40, 2, 0, 1]);
}
