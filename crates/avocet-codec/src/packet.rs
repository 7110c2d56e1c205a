use core::fmt;

use bytes::BufMut;

use crate::ack::{Ack, AckType};
use crate::auth::Auth;
use crate::connack::Connack;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::{DecodeError, EncodeError, Field};
use crate::frame::frame_len;
use crate::packet_id::PacketId;
use crate::publish::Publish;
use crate::reader::{Reader, VariableByteInteger};
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
    /// Takes the packet at the front of `input` off it, as bytes come in: none while it is not
    /// there as a whole, and [`frame_len`](crate::frame_len) says how long it is going to be.
    /// After an error there is nothing to go on with, and `input` may have changed.
    ///
    /// `limit` is the Maximum Packet Size in bytes, fixed header included; a larger packet is
    /// refused before its body is there [MQTT5-3.1.2-24]. A CONNECT carries its own version;
    /// `version` does not matter for it.
    #[inline]
    pub fn decode_next(
        input: &mut &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, DecodeError> {
        // What most acknowledgements are, in all versions.
        if let Some((packet, rest)) = input.split_first_chunk::<ACK_LEN>()
            && limit as usize >= ACK_LEN
            && let Some((ack_type, packet_id)) = AckType::from_success(packet)
        {
            *input = rest;
            return Ok(Some(Self::success(ack_type, packet_id)));
        }
        Self::decode_next_long(input, version, limit)
    }

    fn decode_next_long(
        input: &mut &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, DecodeError> {
        // What most packets are takes no call from here that is not the last thing.
        match Front::common(input, limit) {
            Some(front) => {
                *input = front.rest;
                Self::decode_front(front, version, Some)
            }
            None => Self::decode_next_other(input, version, limit),
        }
    }

    /// An acknowledgement that says success and nothing else.
    #[inline(always)]
    const fn success(ack_type: AckType, packet_id: PacketId) -> Self {
        let ack = Ack::new(packet_id);
        match ack_type {
            AckType::Puback => Self::Puback(ack),
            AckType::Pubrec => Self::Pubrec(ack),
            AckType::Pubrel => Self::Pubrel(ack),
            AckType::Pubcomp => Self::Pubcomp(ack),
        }
    }

    #[cold]
    #[inline(never)]
    fn decode_next_other(
        input: &mut &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(front) = Front::other(input, version, limit)? else {
            return Ok(None);
        };
        *input = front.rest;
        Self::decode_front(front, version, Some)
    }

    /// Reads one whole packet, and nothing else.
    ///
    /// A CONNECT carries its own version; `version` does not matter for it.
    pub fn decode(frame: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        if let Some((ack_type, packet_id)) = AckType::from_success(frame) {
            return Ok(Self::success(ack_type, packet_id));
        }
        Self::decode_front(Front::whole(frame, version)?, version, |packet| packet)
    }

    /// Makes something of the packet, at once, so that it is built where it is returned.
    #[inline(always)]
    fn decode_front<T>(
        front: Front<'a>,
        version: Version,
        make: impl Fn(Self) -> T + Copy,
    ) -> Result<T, DecodeError> {
        let Front {
            first_byte, body, ..
        } = front;
        if first_byte >> 4 == PacketType::Publish as u8 {
            return Publish::decode_as(first_byte, body, version, |it| make(Self::Publish(it)));
        }
        if first_byte >> 4 == PacketType::Connect as u8 {
            return Connect::decode_as(front.minimal, first_byte, body, |it| {
                make(Self::Connect(it))
            });
        }
        Self::decode_other(first_byte, body, version, make)
    }

    /// Apart from the packets that are many, for which this would take space on the stack.
    #[inline(never)]
    fn decode_other<T>(
        first_byte: u8,
        body: Reader<'a>,
        version: Version,
        make: impl Fn(Self) -> T + Copy,
    ) -> Result<T, DecodeError> {
        let packet_type = check(first_byte, version)?;
        let flags = first_byte & 0x0f;
        let ack = |ack_type| Ack::decode_body(ack_type, body, version);
        // Each arm makes the whole result.
        match packet_type {
            PacketType::Connect => {
                Connect::decode_as(true, first_byte, body, |it| make(Self::Connect(it)))
            }
            PacketType::Connack => {
                Connack::decode_body(body, version).map(|it| make(Self::Connack(it)))
            }
            PacketType::Publish => {
                Publish::decode_as(first_byte, body, version, |it| make(Self::Publish(it)))
            }
            PacketType::Puback => ack(AckType::Puback).map(|it| make(Self::Puback(it))),
            PacketType::Pubrec => ack(AckType::Pubrec).map(|it| make(Self::Pubrec(it))),
            PacketType::Pubrel => ack(AckType::Pubrel).map(|it| make(Self::Pubrel(it))),
            PacketType::Pubcomp => ack(AckType::Pubcomp).map(|it| make(Self::Pubcomp(it))),
            PacketType::Subscribe => {
                Subscribe::decode_body(flags, body, version).map(|it| make(Self::Subscribe(it)))
            }
            PacketType::Suback => {
                Suback::decode_body(body, version).map(|it| make(Self::Suback(it)))
            }
            PacketType::Unsubscribe => {
                Unsubscribe::decode_body(flags, body, version).map(|it| make(Self::Unsubscribe(it)))
            }
            PacketType::Unsuback => {
                Unsuback::decode_body(body, version).map(|it| make(Self::Unsuback(it)))
            }
            PacketType::Pingreq => body.finish().map(|()| make(Self::Pingreq)),
            PacketType::Pingresp => body.finish().map(|()| make(Self::Pingresp)),
            PacketType::Disconnect => {
                Disconnect::decode_body(body, version).map(|it| make(Self::Disconnect(it)))
            }
            PacketType::Auth => Auth::decode_body(body).map(|it| make(Self::Auth(it))),
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

/// Bytes of an acknowledgement that says success and nothing else.
const ACK_LEN: usize = 4;

/// The packet at the front of some bytes, which is there as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Front<'a> {
    pub(crate) first_byte: u8,
    /// True when the Remaining Length has its shortest form.
    pub(crate) minimal: bool,
    /// As many bytes as the Remaining Length says.
    pub(crate) body: Reader<'a>,
    /// What is behind the packet.
    rest: &'a [u8],
}

impl<'a> Front<'a> {
    /// None while the packet is not there as a whole.
    #[inline(always)]
    fn of(input: &'a [u8], version: Version, limit: u32) -> Result<Option<Self>, DecodeError> {
        match Self::common(input, limit) {
            Some(front) => Ok(Some(front)),
            None => Self::other(input, version, limit),
        }
    }

    /// Of bytes that are one packet.
    #[inline(always)]
    pub(crate) fn whole(frame: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        match Self::of(frame, version, u32::MAX)? {
            Some(front) if front.rest.is_empty() => Ok(front),
            _ => Err(DecodeError::RemainingLength),
        }
    }

    /// With a Remaining Length of up to three bytes in its shortest form, which all versions allow,
    /// and four bytes or more behind the packet's beginning.
    #[inline(always)]
    fn common(input: &'a [u8], limit: u32) -> Option<Self> {
        let [first_byte, a, b, c, ..] = *input else {
            return None;
        };
        let [low, middle, high] = [a, b, c].map(usize::from);
        // Where a byte says that another one follows, its highest bit is taken off again.
        let (header_len, len) = match (a, b, c) {
            (..0x80, _, _) => (2, low),
            (_, 1..0x80, _) => (3, low + (middle << 7) - 0x80),
            (_, 0x80.., 1..0x80) => (4, low + (middle << 7) + (high << 14) - 0x4080),
            _ => return None,
        };
        let (packet, rest) = input.split_at_checked(header_len + len)?;
        let body = packet.get(header_len..)?;
        (packet.len() <= limit as usize).then_some(Self {
            first_byte,
            minimal: true,
            body: Reader::new(body),
            rest,
        })
    }

    /// Of any bytes, with the rules of the fixed header in their order.
    #[cold]
    #[inline(never)]
    fn other(input: &'a [u8], version: Version, limit: u32) -> Result<Option<Self>, DecodeError> {
        let Some((frame, rest)) =
            frame_len(input, limit)?.and_then(|len| input.split_at_checked(len))
        else {
            return Ok(None);
        };
        let Some((&first_byte, behind)) = frame.split_first() else {
            return Ok(None);
        };
        let Ok(Some(integer)) = VariableByteInteger::read(behind) else {
            return Ok(None);
        };
        let minimal = integer.minimal();
        // A CONNECT tells its version itself.
        if first_byte >> 4 != PacketType::Connect as u8 {
            check(first_byte, version)?;
            check_minimal(minimal, version)?;
        }
        Ok(Some(Self {
            first_byte,
            minimal,
            body: Reader::new(behind.get(integer.len..).unwrap_or_default()),
            rest,
        }))
    }

    pub(crate) fn expect(self, packet_type: PacketType) -> Result<Self, DecodeError> {
        match self.first_byte >> 4 {
            number if number == packet_type as u8 => Ok(self),
            number => Err(DecodeError::PacketType(number)),
        }
    }
}

/// The packet type, if the version has packets that begin so.
#[inline]
pub(crate) fn check(first_byte: u8, version: Version) -> Result<PacketType, DecodeError> {
    match PacketType::from_u8(first_byte >> 4) {
        Some(packet_type) if FirstBytes::of(version).contains(first_byte) => Ok(packet_type),
        _ => Err(refuse_first_byte(first_byte)),
    }
}

/// 3.x does not ask for the shortest form of a Remaining Length.
#[inline]
pub(crate) fn check_minimal(minimal: bool, version: Version) -> Result<(), DecodeError> {
    if version == Version::V5 && !minimal {
        return Err(DecodeError::VariableByteIntegerNotMinimal(
            Field::FixedHeader,
        ));
    }
    Ok(())
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
