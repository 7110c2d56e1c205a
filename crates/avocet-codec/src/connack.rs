use core::num::{NonZeroU16, NonZeroU32};

use crate::error::{DecodeError, EncodeError, Field};
use crate::list::List;
use crate::packet::PacketType;
use crate::property::{Properties, Property, UserProperty, user_properties, write_user_properties};
use crate::qos::QoS;
use crate::reader::Reader;
use crate::reason_code::ReasonCode;
use crate::sink::{Encode, Section, Sink, encode_methods};
use crate::version::Version;

/// The server answers a CONNECT [MQTT5-3.2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Connack<'a> {
    /// Session Present; never with an error, left out in 3.1.
    pub session_present: bool,
    /// Reason Code; in 3.x the nearest return code is sent.
    pub reason_code: ReasonCode,
    /// Properties, left out in 3.x.
    pub properties: ConnackProperties<'a>,
}

/// The properties of a CONNACK [MQTT5-3.2.2.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ConnackProperties<'a> {
    /// Session Expiry Interval, in seconds; as the client asked when absent.
    pub session_expiry_interval: Option<u32>,
    /// Receive Maximum; 65,535 when absent.
    pub receive_maximum: Option<NonZeroU16>,
    /// Maximum QoS; QoS 2, which is never sent, when absent.
    pub maximum_qos: QoS,
    /// Retain Available, true when absent.
    pub retain_available: bool,
    /// Maximum Packet Size, in bytes; no limit when absent.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<&'a str>,
    /// Topic Alias Maximum; 0 allows no aliases.
    pub topic_alias_maximum: u16,
    /// Reason String for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// Wildcard Subscription Available, true when absent.
    pub wildcard_subscription_available: bool,
    /// Subscription Identifiers Available, true when absent.
    pub subscription_ids_available: bool,
    /// Shared Subscription Available, true when absent.
    pub shared_subscription_available: bool,
    /// Server Keep Alive, in seconds; as the client asked when absent.
    pub server_keep_alive: Option<u16>,
    /// Response Information.
    pub response_information: Option<&'a str>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
}

impl ConnackProperties<'_> {
    /// What a CONNACK without properties means.
    pub const DEFAULT: Self = Self {
        session_expiry_interval: None,
        receive_maximum: None,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: true,
        maximum_packet_size: None,
        assigned_client_id: None,
        topic_alias_maximum: 0,
        reason_string: None,
        user_properties: List::EMPTY,
        wildcard_subscription_available: true,
        subscription_ids_available: true,
        shared_subscription_available: true,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
}

impl Default for ConnackProperties<'_> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'a> Connack<'a> {
    /// An answer without Session Present and properties.
    pub const fn new(reason_code: ReasonCode) -> Self {
        Self {
            session_present: false,
            reason_code,
            properties: ConnackProperties::DEFAULT,
        }
    }

    pub(crate) fn decode_body(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let flags = body.u8(Field::ConnectAcknowledgeFlags)?;
        // 3.1 gives the byte no meaning.
        let session_present = version > Version::V3_1 && flags & 1 != 0;
        if version > Version::V3_1 && flags & !1 != 0 {
            return Err(DecodeError::ConnectAcknowledgeFlags);
        }
        let mut connack = Self {
            session_present,
            ..Self::new(ReasonCode::Success)
        };
        if version.has_properties() {
            connack.reason_code = body.reason_code(PacketType::Connack)?;
            connack.properties = ConnackProperties::decode(body.properties()?)?;
        } else {
            let code = body.u8(Field::ReasonCode)?;
            connack.reason_code =
                ReasonCode::from_connect_return_code(code).ok_or(DecodeError::ReasonCode(code))?;
        }
        body.finish()?;
        if session_present && connack.reason_code != ReasonCode::Success {
            return Err(DecodeError::SessionPresentWithError);
        }
        Ok(connack)
    }
}

impl<'a> ConnackProperties<'a> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not listed here is not allowed in this packet"
    )]
    fn decode(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self::DEFAULT;
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(value) => {
                    decoded.session_expiry_interval = Some(value);
                }
                Property::ReceiveMaximum(value) => decoded.receive_maximum = Some(value),
                Property::MaximumQoS(value) => decoded.maximum_qos = value,
                Property::RetainAvailable(value) => decoded.retain_available = value,
                Property::MaximumPacketSize(value) => decoded.maximum_packet_size = Some(value),
                Property::AssignedClientIdentifier(value) => {
                    decoded.assigned_client_id = Some(value);
                }
                Property::TopicAliasMaximum(value) => decoded.topic_alias_maximum = value,
                Property::ReasonString(value) => decoded.reason_string = Some(value),
                Property::UserProperty(_) => decoded.user_properties = user_properties(section),
                Property::WildcardSubscriptionAvailable(value) => {
                    decoded.wildcard_subscription_available = value;
                }
                Property::SubscriptionIdentifierAvailable(value) => {
                    decoded.subscription_ids_available = value;
                }
                Property::SharedSubscriptionAvailable(value) => {
                    decoded.shared_subscription_available = value;
                }
                Property::ServerKeepAlive(value) => decoded.server_keep_alive = Some(value),
                Property::ResponseInformation(value) => {
                    decoded.response_information = Some(value);
                }
                Property::ServerReference(value) => decoded.server_reference = Some(value),
                Property::AuthenticationMethod(value) => {
                    decoded.authentication_method = Some(value);
                }
                Property::AuthenticationData(value) => decoded.authentication_data = Some(value),
                other => return Err(DecodeError::MisplacedProperty(other.id())),
            }
        }
        if decoded.authentication_data.is_some() && decoded.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        Ok(decoded)
    }
}

impl Encode for Connack<'_> {
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Connack as u8) << 4
    }

    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        sink.require(
            !self.session_present || self.reason_code == ReasonCode::Success,
            EncodeError::SessionPresentWithError,
        );
        sink.u8((version > Version::V3_1 && self.session_present).into());
        if version.has_properties() {
            sink.reason_code(self.reason_code, PacketType::Connack);
            sink.section(&self.properties);
        } else {
            sink.u8(self.reason_code.connect_return_code());
        }
    }
}

impl Section for ConnackProperties<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        false
    }

    fn write_properties(&self, sink: &mut impl Sink) {
        if let Some(value) = self.session_expiry_interval {
            sink.property(Property::SessionExpiryInterval(value));
        }
        if let Some(value) = self.receive_maximum {
            sink.property(Property::ReceiveMaximum(value));
        }
        if self.maximum_qos != QoS::ExactlyOnce {
            sink.property(Property::MaximumQoS(self.maximum_qos));
        }
        if !self.retain_available {
            sink.property(Property::RetainAvailable(false));
        }
        if let Some(value) = self.maximum_packet_size {
            sink.property(Property::MaximumPacketSize(value));
        }
        if let Some(value) = self.assigned_client_id {
            sink.property(Property::AssignedClientIdentifier(value));
        }
        if self.topic_alias_maximum != 0 {
            sink.property(Property::TopicAliasMaximum(self.topic_alias_maximum));
        }
        if let Some(value) = self.reason_string {
            sink.property(Property::ReasonString(value));
        }
        write_user_properties(self.user_properties, sink);
        if !self.wildcard_subscription_available {
            sink.property(Property::WildcardSubscriptionAvailable(false));
        }
        if !self.subscription_ids_available {
            sink.property(Property::SubscriptionIdentifierAvailable(false));
        }
        if !self.shared_subscription_available {
            sink.property(Property::SharedSubscriptionAvailable(false));
        }
        if let Some(value) = self.server_keep_alive {
            sink.property(Property::ServerKeepAlive(value));
        }
        if let Some(value) = self.response_information {
            sink.property(Property::ResponseInformation(value));
        }
        if let Some(value) = self.server_reference {
            sink.property(Property::ServerReference(value));
        }
        if let Some(value) = self.authentication_method {
            sink.property(Property::AuthenticationMethod(value));
        }
        if let Some(value) = self.authentication_data {
            sink.require(
                self.authentication_method.is_some(),
                EncodeError::MissingAuthenticationMethod,
            );
            sink.property(Property::AuthenticationData(value));
        }
    }
}

encode_methods!(Connack);
