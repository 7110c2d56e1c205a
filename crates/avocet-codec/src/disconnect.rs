use crate::error::DecodeError;
use crate::list::List;
use crate::packet::PacketType;
use crate::property::{Properties, Property, UserProperty, user_properties, write_user_properties};
use crate::reader::Reader;
use crate::reason_code::ReasonCode;
use crate::sink::{Encode, Section, Sink, encode_methods};
use crate::version::Version;

/// The last packet of a connection [MQTT5-3.14]. In 3.x it is the client's alone, and empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Disconnect<'a> {
    /// Reason Code, left out in 3.x.
    pub reason_code: ReasonCode,
    /// Session Expiry Interval, in seconds, left out in 3.x.
    pub session_expiry_interval: Option<u32>,
    /// Reason String for people, left out in 3.x.
    pub reason_string: Option<&'a str>,
    /// User Properties, left out in 3.x.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// Server Reference, left out in 3.x.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// A packet without properties.
    pub const fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            session_expiry_interval: None,
            reason_string: None,
            user_properties: List::EMPTY,
            server_reference: None,
        }
    }

    pub(crate) fn decode_body(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::NORMAL_DISCONNECTION);
        // Both the Reason Code and the Property Length may be left out.
        if version.has_properties() && !body.is_empty() {
            disconnect.reason_code = body.reason_code(PacketType::Disconnect)?;
            if !body.is_empty() {
                disconnect.decode_properties(body.properties()?)?;
            }
        }
        body.finish()?;
        Ok(disconnect)
    }

    fn decode_properties(&mut self, section: &'a [u8]) -> Result<(), DecodeError> {
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            if let Property::SessionExpiryInterval(value) = property {
                self.session_expiry_interval = Some(value);
            } else if let Property::ReasonString(value) = property {
                self.reason_string = Some(value);
            } else if let Property::UserProperty(_) = property {
                self.user_properties = user_properties(section);
            } else if let Property::ServerReference(value) = property {
                self.server_reference = Some(value);
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(())
    }

    fn has_properties(&self) -> bool {
        self.session_expiry_interval.is_some()
            || self.reason_string.is_some()
            || self.server_reference.is_some()
            || !self.user_properties.is_empty()
    }
}

impl Encode for Disconnect<'_> {
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Disconnect as u8) << 4
    }

    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        if !version.has_properties() {
            return;
        }
        let has_properties = self.has_properties();
        if self.reason_code != ReasonCode::NORMAL_DISCONNECTION || has_properties {
            sink.reason_code(self.reason_code, PacketType::Disconnect);
        }
        if has_properties {
            sink.section(self);
        }
    }
}

impl Section for Disconnect<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        false
    }

    fn write_properties(&self, sink: &mut impl Sink) {
        if let Some(value) = self.session_expiry_interval {
            sink.property(Property::SessionExpiryInterval(value));
        }
        if let Some(value) = self.reason_string {
            sink.property(Property::ReasonString(value));
        }
        write_user_properties(self.user_properties, sink);
        if let Some(value) = self.server_reference {
            sink.property(Property::ServerReference(value));
        }
    }
}

encode_methods!(Disconnect);
