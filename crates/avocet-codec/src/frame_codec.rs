extern crate std;

use std::io;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::error::{DecodeError, EncodeError};
use crate::frame::{Frame, version_of};
use crate::packet::{Packet, PacketType};
use crate::version::Version;

/// Frames for `tokio_util::codec::Framed`, in either role.
///
/// The version is learnt from the CONNECT, whether this comes in or goes out, unless it is given.
/// The rules of a connection, such as that CONNECT comes first and only once, are not looked at.
#[derive(Clone, Copy, Debug)]
pub struct FrameCodec {
    version: Option<Version>,
    packet_size_max: u32,
}

/// Why a stream of frames ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameCodecError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer sent what is no packet.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The packet cannot be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A packet before the CONNECT that says the version.
    #[error("{0} before CONNECT [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]")]
    VersionUnknown(PacketType),
}

impl FrameCodec {
    /// Learns the version from the CONNECT; refuses packets larger than `packet_size_max` bytes
    /// when they come in.
    pub const fn new(packet_size_max: u32) -> Self {
        Self {
            version: None,
            packet_size_max,
        }
    }

    /// The same with a version that is known.
    pub const fn with_version(version: Version, packet_size_max: u32) -> Self {
        Self {
            version: Some(version),
            packet_size_max,
        }
    }

    /// The version, once known.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version to use for a packet; a CONNECT needs none.
    fn version_for(&self, packet_type: Option<PacketType>) -> Result<Version, FrameCodecError> {
        match (self.version, packet_type) {
            (Some(version), _) => Ok(version),
            (None, None | Some(PacketType::Connect)) => Ok(Version::V5),
            (None, Some(packet_type)) => Err(FrameCodecError::VersionUnknown(packet_type)),
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameCodecError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameCodecError> {
        let packet_type = source
            .first()
            .and_then(|byte| PacketType::from_u8(byte >> 4));
        let version = self.version_for(packet_type)?;
        let mut rest = source.as_ref();
        let Some(packet) = &Packet::decode_next(&mut rest, version, self.packet_size_max)? else {
            return Ok(None);
        };
        let version = version_of(packet, version);
        let len = source.len() - rest.len();
        self.version.get_or_insert(version);
        Ok(Some(Frame::of_checked(
            source.split_to(len).freeze(),
            version,
        )))
    }
}

impl Encoder<Packet<'_>> for FrameCodec {
    type Error = FrameCodecError;

    fn encode(&mut self, packet: Packet<'_>, out: &mut BytesMut) -> Result<(), FrameCodecError> {
        let version = self.version_for(Some(packet.packet_type()))?;
        packet.encode(version, out)?;
        if let Packet::Connect(connect) = packet {
            self.version = Some(connect.version);
        }
        Ok(())
    }
}

/// The frame goes out as it is: its version must be the connection's.
impl Encoder<Frame> for FrameCodec {
    type Error = FrameCodecError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameCodecError> {
        self.version.get_or_insert_with(|| frame.version());
        out.extend_from_slice(frame.bytes());
        Ok(())
    }
}
