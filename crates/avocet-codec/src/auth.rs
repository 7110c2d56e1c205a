use crate::error::{DecodeError, EncodeError};
use crate::list::List;
use crate::packet::PacketType;
use crate::property::{Properties, Property, UserProperty, user_properties, write_user_properties};
use crate::reader::Reader;
use crate::reason_code::ReasonCode;
use crate::sink::{Encode, Section, Sink, encode_methods};
use crate::version::Version;

/// A step of an authentication exchange [MQTT5-3.15]; 5.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Auth<'a> {
    /// Reason Code.
    pub reason_code: ReasonCode,
    /// Authentication Method; absent only with success and no other property.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
    /// Reason String for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: List<'a, UserProperty<'a>>,
}

impl<'a> Auth<'a> {
    /// A step with a method and without data.
    pub const fn new(reason_code: ReasonCode, authentication_method: &'a str) -> Self {
        Self {
            authentication_method: Some(authentication_method),
            ..Self::without_properties(reason_code)
        }
    }

    const fn without_properties(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: List::EMPTY,
        }
    }

    pub(crate) fn decode_body(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let mut auth = Self::without_properties(ReasonCode::Success);
        // Success without properties may be left out as a whole.
        if body.is_empty() {
            return Ok(auth);
        }
        auth.reason_code = body.reason_code(PacketType::Auth)?;
        auth.decode_properties(body.properties()?)?;
        body.finish()?;
        Ok(auth)
    }

    fn decode_properties(&mut self, section: &'a [u8]) -> Result<(), DecodeError> {
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            if let Property::AuthenticationMethod(value) = property {
                self.authentication_method = Some(value);
            } else if let Property::AuthenticationData(value) = property {
                self.authentication_data = Some(value);
            } else if let Property::ReasonString(value) = property {
                self.reason_string = Some(value);
            } else if let Property::UserProperty(_) = property {
                self.user_properties = user_properties(section);
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        if self.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        *self == Self::without_properties(ReasonCode::Success)
    }
}

impl Encode for Auth<'_> {
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Auth as u8) << 4
    }

    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        sink.require(
            version.has_properties(),
            EncodeError::NotInVersion {
                packet_type: PacketType::Auth,
                version,
            },
        );
        if self.is_empty() {
            return;
        }
        sink.reason_code(self.reason_code, PacketType::Auth);
        sink.require(
            self.authentication_method.is_some(),
            EncodeError::MissingAuthenticationMethod,
        );
        sink.section(self);
    }
}

impl Section for Auth<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        false
    }

    fn write_properties(&self, sink: &mut impl Sink) {
        if let Some(value) = self.authentication_method {
            sink.property(Property::AuthenticationMethod(value));
        }
        if let Some(value) = self.authentication_data {
            sink.property(Property::AuthenticationData(value));
        }
        if let Some(value) = self.reason_string {
            sink.property(Property::ReasonString(value));
        }
        write_user_properties(self.user_properties, sink);
    }
}

encode_methods!(Auth);
