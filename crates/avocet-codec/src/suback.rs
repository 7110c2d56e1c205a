use crate::error::{DecodeError, EncodeError};
use crate::list::{List, ListItem};
use crate::packet::PacketType;
use crate::packet_id::PacketId;
use crate::property::{ReasonProperties, UserProperty};
use crate::reader::Reader;
use crate::reason_code::ReasonCode;
use crate::sink::{Encode, Sink, encode_methods};
use crate::version::Version;

/// The server answers a SUBSCRIBE [MQTT5-3.9].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Suback<'a> {
    /// The Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason String for people, left out in 3.x.
    pub reason_string: Option<&'a str>,
    /// User Properties, left out in 3.x.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// One for each Topic Filter, in order; in 3.x every error is sent as 0x80
    /// [MQTT5-3.9.3-1] [MQTT311-3.9.3-1].
    pub reason_codes: List<'a, ReasonCode>,
}

impl<'a> Suback<'a> {
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
        let mut suback = Self::new(body.packet_id()?, &[]);
        if version.has_properties() {
            let properties = ReasonProperties::decode(body.properties()?)?;
            suback.reason_string = properties.reason_string;
            suback.user_properties = properties.user_properties;
        }
        suback.reason_codes = reason_codes(body, PacketType::Suback, version)?;
        Ok(suback)
    }
}

/// The rest of a SUBACK or UNSUBACK.
pub(crate) fn reason_codes(
    mut body: Reader<'_>,
    packet_type: PacketType,
    version: Version,
) -> Result<List<'_, ReasonCode>, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::NoReasonCodes);
    }
    let codes = List::from_wire(body.rest(), version);
    while !body.is_empty() {
        let code = body.reason_code(packet_type)?;
        if !version.has_properties() && code.suback_return_code() != code as u8 {
            return Err(DecodeError::ReasonCode(code as u8));
        }
    }
    Ok(codes)
}

impl<'a> ListItem<'a> for ReasonCode {
    #[inline]
    fn read(section: &mut &'a [u8], _version: Version) -> Option<Self> {
        section.split_off_first().copied().and_then(Self::from_u8)
    }
}

impl Encode for Suback<'_> {
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Suback as u8) << 4
    }

    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            sink.section(&ReasonProperties {
                reason_string: self.reason_string,
                user_properties: self.user_properties,
            });
        }
        sink.require(!self.reason_codes.is_empty(), EncodeError::NoReasonCodes);
        for code in self.reason_codes {
            if version.has_properties() {
                sink.reason_code(code, PacketType::Suback);
            } else {
                sink.require(
                    code.is_allowed_in(PacketType::Suback),
                    EncodeError::ReasonCode(code),
                );
                sink.u8(code.suback_return_code());
            }
        }
    }
}

encode_methods!(Suback);
