use core::fmt;

use bytes::BufMut;

use crate::ack::{Ack, AckType};
use crate::auth::Auth;
use crate::connack::Connack;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::{DecodeError, EncodeError, Field};
use crate::publish::Publish;
use crate::reader::{Reader, TooLong, VariableByteInteger};
use crate::sink::write_packet;
use crate::suback::Suback;
use crate::subscribe::Subscribe;
use crate::unsuback::Unsuback;
use crate::unsubscribe::Unsubscribe;
use crate::version::Version;

/// A Control Packet of any version, borrowed from the bytes it was decoded from or from the values
/// it is encoded from.
///
/// What a version has no place for is left out when encoding: in 3.x all properties, the Reason
/// Codes of all packets but CONNACK and SUBACK, and the Subscription Options other than QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Packet<'a> {
    /// Client requests a connection.
    Connect(Connect<'a>),
    /// Server answers a CONNECT.
    Connack(Connack<'a>),
    /// Carries a message.
    Publish(Publish<'a>),
    /// Acknowledges a PUBLISH of QoS 1.
    Puback(Ack<'a>),
    /// Acknowledges a PUBLISH of QoS 2.
    Pubrec(Ack<'a>),
    /// Answers a PUBREC.
    Pubrel(Ack<'a>),
    /// Answers a PUBREL.
    Pubcomp(Ack<'a>),
    /// Client subscribes.
    Subscribe(Subscribe<'a>),
    /// Server answers a SUBSCRIBE.
    Suback(Suback<'a>),
    /// Client unsubscribes.
    Unsubscribe(Unsubscribe<'a>),
    /// Server answers an UNSUBSCRIBE.
    Unsuback(Unsuback<'a>),
    /// Client asks whether the server is there.
    Pingreq,
    /// Server answers a PINGREQ.
    Pingresp,
    /// The last packet of a connection.
    Disconnect(Disconnect<'a>),
    /// A step of an authentication exchange; 5.0 only.
    Auth(Auth<'a>),
}

/// The type of a Control Packet [MQTT5-2.1.2] [MQTT311-2.2.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum PacketType {
    /// Client requests a connection.
    Connect = 1,
    /// Server answers a CONNECT.
    Connack = 2,
    /// Carries a message.
    Publish = 3,
    /// Acknowledges a PUBLISH of QoS 1.
    Puback = 4,
    /// Acknowledges a PUBLISH of QoS 2.
    Pubrec = 5,
    /// Answers a PUBREC.
    Pubrel = 6,
    /// Answers a PUBREL.
    Pubcomp = 7,
    /// Client subscribes.
    Subscribe = 8,
    /// Server answers a SUBSCRIBE.
    Suback = 9,
    /// Client unsubscribes.
    Unsubscribe = 10,
    /// Server answers an UNSUBSCRIBE.
    Unsuback = 11,
    /// Client asks whether the server is there.
    Pingreq = 12,
    /// Server answers a PINGREQ.
    Pingresp = 13,
    /// The last packet of a connection.
    Disconnect = 14,
    /// A step of an authentication exchange; 5.0 only.
    Auth = 15,
}

impl PacketType {
    /// The type of a number, none for 0 and above 15.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The name as the standard prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Packet<'a> {
    /// Reads one whole packet, as [`frame_len`](crate::frame_len) delimits it.
    ///
    /// A CONNECT carries its own version; `version` does not matter for it.
    #[inline]
    pub fn decode(frame: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        if let Some(&first_byte) = frame.first()
            && first_byte >> 4 == PacketType::Publish as u8
        {
            return Publish::decode_as(frame, version, Self::Publish);
        }
        // What most acknowledgements are, in all versions.
        if let Some((ack_type, packet_id)) = AckType::from_success(frame) {
            let ack = Ack::new(packet_id);
            return Ok(match ack_type {
                AckType::Puback => Self::Puback(ack),
                AckType::Pubrec => Self::Pubrec(ack),
                AckType::Pubrel => Self::Pubrel(ack),
                AckType::Pubcomp => Self::Pubcomp(ack),
            });
        }
        if frame.first().map(|first_byte| first_byte >> 4) == Some(PacketType::Connect as u8) {
            return Connect::decode_as(frame, Self::Connect);
        }
        Self::decode_other(frame, version)
    }

    /// Apart from the packets that are many, for which this would take space on the stack.
    #[inline(never)]
    fn decode_other(frame: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let (header, body) = FixedHeader::read(frame, version)?;
        let flags = header.flags;
        // Each arm makes the whole result, so that it is built where it is returned.
        match header.packet_type {
            PacketType::Connect => Connect::decode_as(frame, Self::Connect),
            PacketType::Connack => Connack::decode_body(body, version).map(Self::Connack),
            PacketType::Publish => Publish::decode_as(frame, version, Self::Publish),
            PacketType::Puback => {
                Ack::decode_body(AckType::Puback, body, version).map(Self::Puback)
            }
            PacketType::Pubrec => {
                Ack::decode_body(AckType::Pubrec, body, version).map(Self::Pubrec)
            }
            PacketType::Pubrel => {
                Ack::decode_body(AckType::Pubrel, body, version).map(Self::Pubrel)
            }
            PacketType::Pubcomp => {
                Ack::decode_body(AckType::Pubcomp, body, version).map(Self::Pubcomp)
            }
            PacketType::Subscribe => {
                Subscribe::decode_body(flags, body, version).map(Self::Subscribe)
            }
            PacketType::Suback => Suback::decode_body(body, version).map(Self::Suback),
            PacketType::Unsubscribe => {
                Unsubscribe::decode_body(flags, body, version).map(Self::Unsubscribe)
            }
            PacketType::Unsuback => Unsuback::decode_body(body, version).map(Self::Unsuback),
            PacketType::Pingreq => body.finish().map(|()| Self::Pingreq),
            PacketType::Pingresp => body.finish().map(|()| Self::Pingresp),
            PacketType::Disconnect => Disconnect::decode_body(body, version).map(Self::Disconnect),
            PacketType::Auth => Auth::decode_body(body).map(Self::Auth),
        }
    }

    /// Which packet it is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// How many bytes [`encode`](Self::encode) writes, fixed header included. A CONNECT is encoded
    /// in its own version.
    pub fn encoded_len(&self, version: Version) -> usize {
        match self {
            Self::Connect(packet) => packet.encoded_len(),
            Self::Connack(packet) => packet.encoded_len(version),
            Self::Publish(packet) => packet.encoded_len(version),
            Self::Puback(packet) => packet.encoded_len(AckType::Puback, version),
            Self::Pubrec(packet) => packet.encoded_len(AckType::Pubrec, version),
            Self::Pubrel(packet) => packet.encoded_len(AckType::Pubrel, version),
            Self::Pubcomp(packet) => packet.encoded_len(AckType::Pubcomp, version),
            Self::Subscribe(packet) => packet.encoded_len(version),
            Self::Suback(packet) => packet.encoded_len(version),
            Self::Unsubscribe(packet) => packet.encoded_len(version),
            Self::Unsuback(packet) => packet.encoded_len(version),
            Self::Pingreq | Self::Pingresp => 2,
            Self::Disconnect(packet) => packet.encoded_len(version),
            Self::Auth(packet) => packet.encoded_len(version),
        }
    }

    /// Writes the whole packet; on an error, nothing. A CONNECT is encoded in its own version.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        if let Self::Publish(packet) = self {
            return packet.encode(version, out);
        }
        if let Self::Puback(packet) = self {
            return packet.encode(AckType::Puback, version, out);
        }
        self.encode_other(version, out)
    }

    #[inline(never)]
    fn encode_other(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::Connack(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Puback(packet) => packet.encode(AckType::Puback, version, out),
            Self::Pubrec(packet) => packet.encode(AckType::Pubrec, version, out),
            Self::Pubrel(packet) => packet.encode(AckType::Pubrel, version, out),
            Self::Pubcomp(packet) => packet.encode(AckType::Pubcomp, version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::Suback(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::Unsuback(packet) => packet.encode(version, out),
            Self::Pingreq => write_packet(&[0xc0, 0], out),
            Self::Pingresp => write_packet(&[0xd0, 0], out),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }
}

/// Packet type and flags of a packet whose length has been checked.
#[derive(Clone, Copy)]
pub(crate) struct FixedHeader {
    pub(crate) packet_type: PacketType,
    pub(crate) flags: u8,
    /// True when the Remaining Length has its shortest form.
    pub(crate) minimal: bool,
}

impl FixedHeader {
    #[inline(always)]
    pub(crate) fn read(frame: &[u8], version: Version) -> Result<(Self, Reader<'_>), DecodeError> {
        let Some((&first_byte, rest)) = frame.split_first() else {
            return Err(DecodeError::RemainingLength);
        };
        let Some(packet_type) = PacketType::from_u8(first_byte >> 4) else {
            return Err(DecodeError::PacketType(0));
        };
        let integer = match VariableByteInteger::read(rest) {
            Ok(Some(integer)) => integer,
            Ok(None) => return Err(DecodeError::RemainingLength),
            Err(TooLong) => {
                return Err(DecodeError::VariableByteIntegerTooLong(Field::FixedHeader));
            }
        };
        let body = rest.get(integer.len..).unwrap_or_default();
        if body.len() != integer.value as usize {
            return Err(DecodeError::RemainingLength);
        }
        let header = Self {
            packet_type,
            flags: first_byte & 0x0f,
            minimal: integer.minimal(),
        };
        // A CONNECT tells its version itself.
        if packet_type != PacketType::Connect {
            header.check(version)?;
        }
        Ok((header, Reader::new(body)))
    }

    /// What depends on the version.
    #[inline]
    pub(crate) fn check(self, version: Version) -> Result<(), DecodeError> {
        let first_byte = (self.packet_type as u8) << 4 | self.flags;
        if !FirstBytes::of(version).contains(first_byte) {
            return Err(refuse_first_byte(first_byte));
        }
        if version == Version::V5 && !self.minimal {
            return Err(DecodeError::VariableByteIntegerNotMinimal(
                Field::FixedHeader,
            ));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn expect(self, packet_type: PacketType) -> Result<(), DecodeError> {
        if self.packet_type == packet_type {
            Ok(())
        } else {
            Err(DecodeError::PacketType(self.packet_type as u8))
        }
    }
}

/// The first byte and the body of a packet whose Remaining Length takes one byte, which all versions
/// allow.
#[inline(always)]
pub(crate) fn short_frame(frame: &[u8]) -> Option<(u8, Reader<'_>)> {
    match frame {
        [first_byte, len @ ..0x80, body @ ..] if body.len() == usize::from(*len) => {
            Some((*first_byte, Reader::new(body)))
        }
        _ => None,
    }
}

/// The same for up to three bytes, in their shortest form.
#[inline(always)]
pub(crate) fn common_frame(frame: &[u8]) -> Option<(u8, Reader<'_>)> {
    let (first_byte, len, body) = match frame {
        [first_byte, len @ ..0x80, body @ ..] => (first_byte, usize::from(*len), body),
        [first_byte, a, b @ 1..0x80, body @ ..] => (
            first_byte,
            usize::from(a & 0x7f) | usize::from(*b) << 7,
            body,
        ),
        [first_byte, a, b @ 0x80..=0xff, c @ 1..0x80, body @ ..] => {
            let low = usize::from(a & 0x7f) | usize::from(b & 0x7f) << 7;
            (first_byte, low | usize::from(*c) << 14, body)
        }
        _ => return None,
    };
    (body.len() == len).then(|| (*first_byte, Reader::new(body)))
}

/// What the first byte must be in all versions.
#[inline]
pub(crate) fn check_first_byte(first_byte: u8) -> Result<(), DecodeError> {
    if FirstBytes::ANY.contains(first_byte) {
        Ok(())
    } else {
        Err(refuse_first_byte(first_byte))
    }
}

/// Says what is wrong with a first byte that some or all versions refuse.
#[cold]
const fn refuse_first_byte(first_byte: u8) -> DecodeError {
    match PacketType::from_u8(first_byte >> 4) {
        None => DecodeError::PacketType(0),
        Some(PacketType::Publish) => DecodeError::QoS3,
        Some(PacketType::Auth) if first_byte & 0x0f == 0 => {
            DecodeError::PacketType(PacketType::Auth as u8)
        }
        Some(_) => DecodeError::FixedHeaderFlags,
    }
}

/// For each packet type the flags that it may have, one bit for each value
/// [MQTT5-2.1.3-1] [MQTT311-2.2.2-2].
struct FirstBytes([u16; 16]);

impl FirstBytes {
    const ANY: Self = Self::new(None);
    const V3_1: Self = Self::new(Some(Version::V3_1));
    const V3_1_1: Self = Self::new(Some(Version::V3_1_1));
    const V5: Self = Self::new(Some(Version::V5));

    #[inline]
    const fn of(version: Version) -> &'static Self {
        match version {
            Version::V3_1 => &Self::V3_1,
            Version::V3_1_1 => &Self::V3_1_1,
            Version::V5 => &Self::V5,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a table made by the compiler")]
    const fn new(version: Option<Version>) -> Self {
        let mut allowed = [0; 16];
        let mut first_byte = 0;
        while first_byte <= u8::MAX as usize {
            if is_allowed(first_byte as u8, version) {
                allowed[first_byte >> 4] |= 1 << (first_byte & 0x0f);
            }
            first_byte += 1;
        }
        Self(allowed)
    }

    #[inline]
    fn contains(&self, first_byte: u8) -> bool {
        let allowed = self.0.get(usize::from(first_byte >> 4)).copied();
        allowed.unwrap_or_default() >> (first_byte & 0x0f) & 1 != 0
    }
}

/// Whether a version, or any of them, has packets that begin so.
const fn is_allowed(first_byte: u8, version: Option<Version>) -> bool {
    let flags = first_byte & 0x0f;
    let qos = flags >> 1 & 0b11;
    // 3.1 gives flags that a packet type does not use no meaning.
    let lenient = matches!(version, None | Some(Version::V3_1));
    match PacketType::from_u8(first_byte >> 4) {
        None => false,
        Some(PacketType::Publish) => qos != 3,
        // 3.1 reads the flags of these as QoS 1, so that they are 0b0010 in all versions.
        Some(PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe) => {
            qos == 1 && (lenient || flags == 0b0010)
        }
        Some(PacketType::Auth) => match version {
            None => true,
            Some(version) => version.has_properties() && flags == 0,
        },
        Some(_) => lenient || flags == 0,
    }
}
