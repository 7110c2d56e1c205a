use bytes::BufMut;

use crate::error::{DecodeError, EncodeError};
use crate::list::List;
use crate::packet::PacketType;
use crate::packet_id::PacketId;
use crate::property::{ReasonProperties, UserProperty};
use crate::reader::Reader;
use crate::reason_code::ReasonCode;
use crate::sink::{Encode, Sink, write_packet};
use crate::version::Version;

/// What PUBACK, PUBREC, PUBREL and PUBCOMP carry [MQTT5-3.4] [MQTT5-3.5] [MQTT5-3.6] [MQTT5-3.7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Ack<'a> {
    /// The Packet Identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// Reason Code, left out in 3.x, where every acknowledgement is a success.
    pub reason_code: ReasonCode,
    /// Reason String for people, left out in 3.x.
    pub reason_string: Option<&'a str>,
    /// User Properties, left out in 3.x.
    pub user_properties: List<'a, UserProperty<'a>>,
}

/// Which of the four packets an [`Ack`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckType {
    /// Acknowledges a PUBLISH of QoS 1.
    Puback,
    /// Acknowledges a PUBLISH of QoS 2.
    Pubrec,
    /// Answers a PUBREC.
    Pubrel,
    /// Answers a PUBREL.
    Pubcomp,
}

impl AckType {
    /// The same as a packet type.
    #[inline]
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::Puback => PacketType::Puback,
            Self::Pubrec => PacketType::Pubrec,
            Self::Pubrel => PacketType::Pubrel,
            Self::Pubcomp => PacketType::Pubcomp,
        }
    }

    /// Packet type and flags [MQTT5-3.6.1-1] [MQTT311-3.6.1-1].
    #[inline]
    const fn first_byte(self) -> u8 {
        match self {
            Self::Puback => 0x40,
            Self::Pubrec => 0x50,
            Self::Pubrel => 0x62,
            Self::Pubcomp => 0x70,
        }
    }

    /// The whole packet that says success and nothing else, which is the same in all versions.
    #[inline]
    pub const fn success(self, packet_id: PacketId) -> [u8; 4] {
        let [high, low] = packet_id.get().to_be_bytes();
        [self.first_byte(), 2, high, low]
    }

    /// Reads what [`success`](Self::success) writes; none if the packet is anything else.
    #[inline]
    pub const fn from_success(packet: &[u8]) -> Option<(Self, PacketId)> {
        let [first_byte, 2, high, low] = packet else {
            return None;
        };
        let ack_type = match first_byte {
            0x40 => Self::Puback,
            0x50 => Self::Pubrec,
            0x62 => Self::Pubrel,
            0x70 => Self::Pubcomp,
            _ => return None,
        };
        match PacketId::new(u16::from_be_bytes([*high, *low])) {
            Some(packet_id) => Some((ack_type, packet_id)),
            None => None,
        }
    }
}

impl<'a> Ack<'a> {
    /// An acknowledgement that says success and nothing else.
    #[inline]
    pub const fn new(packet_id: PacketId) -> Self {
        Self::with_reason(packet_id, ReasonCode::Success)
    }

    /// An acknowledgement with a Reason Code and without properties.
    #[inline]
    pub const fn with_reason(packet_id: PacketId, reason_code: ReasonCode) -> Self {
        Self {
            packet_id,
            reason_code,
            reason_string: None,
            user_properties: List::EMPTY,
        }
    }

    /// Both the Reason Code and the Property Length may be left out.
    #[inline(never)]
    pub(crate) fn decode_body(
        ack_type: AckType,
        mut body: Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut ack = Self::new(body.packet_id()?);
        if version.has_properties() && !body.is_empty() {
            ack.reason_code = body.reason_code(ack_type.packet_type())?;
            if !body.is_empty() {
                let properties = ReasonProperties::decode(body.properties()?)?;
                ack.reason_string = properties.reason_string;
                ack.user_properties = properties.user_properties;
            }
        }
        body.finish()?;
        Ok(ack)
    }

    /// How many bytes [`encode`](Self::encode) writes, fixed header included.
    #[inline]
    pub fn encoded_len(&self, ack_type: AckType, version: Version) -> usize {
        TypedAck(ack_type, self).frame_len(version)
    }

    /// Writes the whole packet, in its shortest form; on an error, nothing.
    #[inline]
    pub fn encode(
        &self,
        ack_type: AckType,
        version: Version,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        if version < Version::V5 || self.is_plainly_success() {
            let packet = ack_type.success(self.packet_id);
            return write_packet(&packet, out);
        }
        self.encode_long(ack_type, version, out)
    }

    #[inline(never)]
    fn encode_long(
        &self,
        ack_type: AckType,
        version: Version,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        TypedAck(ack_type, self).write(version, out)
    }

    /// What can be seen without reading through properties; false says nothing.
    #[inline]
    fn is_plainly_success(&self) -> bool {
        self.reason_code == ReasonCode::Success
            && self.reason_string.is_none()
            && self.user_properties.is_plainly_empty()
    }

    #[inline]
    fn has_properties(&self) -> bool {
        self.reason_string.is_some() || !self.user_properties.is_empty()
    }
}

struct TypedAck<'p, 'a>(AckType, &'p Ack<'a>);

impl Encode for TypedAck<'_, '_> {
    #[inline]
    fn first_byte(&self, _version: Version) -> u8 {
        self.0.first_byte()
    }

    #[inline]
    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        let Self(ack_type, ack) = self;
        sink.u16(ack.packet_id.get());
        if !version.has_properties() {
            return;
        }
        let has_properties = ack.has_properties();
        if ack.reason_code != ReasonCode::Success || has_properties {
            sink.reason_code(ack.reason_code, ack_type.packet_type());
        }
        if has_properties {
            sink.section(&ReasonProperties {
                reason_string: ack.reason_string,
                user_properties: ack.user_properties,
            });
        }
    }
}
