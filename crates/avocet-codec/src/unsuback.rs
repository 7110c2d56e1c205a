use crate::error::{DecodeError, EncodeError};
use crate::list::List;
use crate::packet::PacketType;
use crate::packet_id::PacketId;
use crate::property::{ReasonProperties, UserProperty};
use crate::reader::Reader;
use crate::reason_code::ReasonCode;
use crate::sink::{Encode, Sink, encode_methods};
use crate::suback::reason_codes;
use crate::version::Version;

/// The server answers an UNSUBSCRIBE [MQTT5-3.11].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Unsuback<'a> {
    /// The Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason String for people, left out in 3.x.
    pub reason_string: Option<&'a str>,
    /// User Properties, left out in 3.x.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// One for each Topic Filter, in order, left out in 3.x [MQTT5-3.11.3-1].
    pub reason_codes: List<'a, ReasonCode>,
}

impl<'a> Unsuback<'a> {
    /// An answer without properties.
    pub const fn new(packet_id: PacketId, reason_codes: &'a [ReasonCode]) -> Self {
        Self {
            packet_id,
            reason_string: None,
            user_properties: List::EMPTY,
            reason_codes: List::from_slice(reason_codes),
        }
    }

    pub(crate) fn decode_body(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut unsuback = Self::new(body.packet_id()?, &[]);
        if version.has_properties() {
            let properties = ReasonProperties::decode(body.properties()?)?;
            unsuback.reason_string = properties.reason_string;
            unsuback.user_properties = properties.user_properties;
            unsuback.reason_codes = reason_codes(body, PacketType::Unsuback, version)?;
        } else {
            body.finish()?;
        }
        Ok(unsuback)
    }
}

impl Encode for Unsuback<'_> {
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Unsuback as u8) << 4
    }

    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            sink.section(&ReasonProperties {
                reason_string: self.reason_string,
                user_properties: self.user_properties,
            });
            sink.require(!self.reason_codes.is_empty(), EncodeError::NoReasonCodes);
            for code in self.reason_codes {
                sink.reason_code(code, PacketType::Unsuback);
            }
        }
    }
}

encode_methods!(Unsuback);
