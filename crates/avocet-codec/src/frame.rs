use alloc::vec::Vec;

use bytes::Bytes;

use crate::PACKET_SIZE_MAX;
use crate::error::{DecodeError, EncodeError, Field};
use crate::packet::{Packet, check_first_byte};
use crate::reader::{TooLong, VariableByteInteger};
use crate::version::Version;

/// How many bytes the packet at the front of `input` takes, as soon as that is known: none while
/// its fixed header is incomplete. For those who make room for a packet, or hand it on as it is;
/// [`Packet::decode_next`] needs none of it.
///
/// `limit` is the Maximum Packet Size in bytes, fixed header included; a larger packet is refused
/// before its body is there [MQTT5-3.1.2-24]. What the first byte must be in all versions is
/// checked too.
#[inline]
pub fn frame_len(input: &[u8], limit: u32) -> Result<Option<usize>, DecodeError> {
    let Some((&first_byte, rest)) = input.split_first() else {
        return Ok(None);
    };
    check_first_byte(first_byte)?;
    match VariableByteInteger::read(rest) {
        Ok(Some(integer)) => {
            let len = 1 + integer.len + integer.value as usize;
            if len > limit as usize {
                return Err(DecodeError::PacketTooLarge);
            }
            Ok(Some(len))
        }
        Ok(None) => Ok(None),
        Err(TooLong) => Err(DecodeError::VariableByteIntegerTooLong(Field::FixedHeader)),
    }
}

/// A packet in its owned form: its bytes and their version, checked once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "SerializedFrame"))]
pub struct Frame {
    bytes: Bytes,
    version: Version,
}

impl Frame {
    /// Checks the bytes of one whole packet. A CONNECT carries its own version, which becomes the
    /// frame's.
    pub fn new(bytes: Bytes, version: Version) -> Result<Self, DecodeError> {
        let version = version_of(&Packet::decode(&bytes, version)?, version);
        Ok(Self { bytes, version })
    }

    /// Of bytes that are one packet of this version.
    #[cfg(feature = "tokio-util")]
    pub(crate) const fn of_checked(bytes: Bytes, version: Version) -> Self {
        Self { bytes, version }
    }

    /// Encodes a packet. A CONNECT is encoded in its own version.
    pub fn encode(packet: &Packet<'_>, version: Version) -> Result<Self, EncodeError> {
        let len = packet.encoded_len(version).min(PACKET_SIZE_MAX as usize);
        let mut bytes = Vec::with_capacity(len);
        packet.encode(version, &mut bytes)?;
        Ok(Self {
            bytes: bytes.into(),
            version: version_of(packet, version),
        })
    }

    /// The packet, borrowed.
    pub fn packet(&self) -> Packet<'_> {
        Packet::decode(&self.bytes, self.version)
            .expect("what was checked or encoded before decodes")
    }

    /// The bytes of the whole packet.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Takes the bytes of the whole packet.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The version the packet is encoded in.
    pub const fn version(&self) -> Version {
        self.version
    }
}

pub(crate) const fn version_of(packet: &Packet<'_>, version: Version) -> Version {
    if let Packet::Connect(connect) = packet {
        connect.version
    } else {
        version
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Frame {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut frame = serializer.serialize_struct("Frame", 2)?;
        frame.serialize_field("version", &self.version)?;
        frame.serialize_field("bytes", self.bytes.as_ref())?;
        frame.end()
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct SerializedFrame {
    version: Version,
    bytes: Vec<u8>,
}

#[cfg(feature = "serde")]
impl TryFrom<SerializedFrame> for Frame {
    type Error = DecodeError;

    fn try_from(frame: SerializedFrame) -> Result<Self, DecodeError> {
        Self::new(frame.bytes.into(), frame.version)
    }
}
