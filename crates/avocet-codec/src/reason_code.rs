use core::fmt;

use crate::packet::PacketType;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// A Reason Code of MQTT 5.0 [MQTT5-2.4].
        ///
        /// Codes below 0x80 are success, the others are errors. The return codes of 3.x are
        /// mapped to these when a packet is decoded, and back when it is encoded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* #[doc = concat!("`", stringify!($value), "` ", $text, ".")] $name = $value,)*
        }

        impl ReasonCode {
            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code of a byte, none if the standard gives it no meaning.
            #[inline]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The standard's name in lower case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reason_codes! {
    Success = 0x00, "success";
    GrantedQoS1 = 0x01, "granted QoS 1";
    GrantedQoS2 = 0x02, "granted QoS 2";
    DisconnectWithWillMessage = 0x04, "disconnect with will message";
    NoMatchingSubscribers = 0x10, "no matching subscribers";
    NoSubscriptionExisted = 0x11, "no subscription existed";
    ContinueAuthentication = 0x18, "continue authentication";
    ReAuthenticate = 0x19, "re-authenticate";
    UnspecifiedError = 0x80, "unspecified error";
    MalformedPacket = 0x81, "malformed packet";
    ProtocolError = 0x82, "protocol error";
    ImplementationSpecificError = 0x83, "implementation specific error";
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version";
    ClientIdentifierNotValid = 0x85, "client identifier not valid";
    BadUserNameOrPassword = 0x86, "bad user name or password";
    NotAuthorized = 0x87, "not authorized";
    ServerUnavailable = 0x88, "server unavailable";
    ServerBusy = 0x89, "server busy";
    Banned = 0x8A, "banned";
    ServerShuttingDown = 0x8B, "server shutting down";
    BadAuthenticationMethod = 0x8C, "bad authentication method";
    KeepAliveTimeout = 0x8D, "keep alive timeout";
    SessionTakenOver = 0x8E, "session taken over";
    TopicFilterInvalid = 0x8F, "topic filter invalid";
    TopicNameInvalid = 0x90, "topic name invalid";
    PacketIdentifierInUse = 0x91, "packet identifier in use";
    PacketIdentifierNotFound = 0x92, "packet identifier not found";
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded";
    TopicAliasInvalid = 0x94, "topic alias invalid";
    PacketTooLarge = 0x95, "packet too large";
    MessageRateTooHigh = 0x96, "message rate too high";
    QuotaExceeded = 0x97, "quota exceeded";
    AdministrativeAction = 0x98, "administrative action";
    PayloadFormatInvalid = 0x99, "payload format invalid";
    RetainNotSupported = 0x9A, "retain not supported";
    QoSNotSupported = 0x9B, "QoS not supported";
    UseAnotherServer = 0x9C, "use another server";
    ServerMoved = 0x9D, "server moved";
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported";
    ConnectionRateExceeded = 0x9F, "connection rate exceeded";
    MaximumConnectTime = 0xA0, "maximum connect time";
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription identifiers not supported";
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// What a DISCONNECT calls 0x00.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;
    /// What a SUBACK calls 0x00.
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// True for 0x80 and above.
    #[inline]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// True when the standard lists this code for packets of this type.
    ///
    /// Packets without a Reason Code allow none.
    pub const fn is_allowed_in(self, packet_type: PacketType) -> bool {
        match packet_type {
            PacketType::Connack => matches!(
                self,
                Self::Success
                    | Self::UnspecifiedError
                    | Self::MalformedPacket
                    | Self::ProtocolError
                    | Self::ImplementationSpecificError
                    | Self::UnsupportedProtocolVersion
                    | Self::ClientIdentifierNotValid
                    | Self::BadUserNameOrPassword
                    | Self::NotAuthorized
                    | Self::ServerUnavailable
                    | Self::ServerBusy
                    | Self::Banned
                    | Self::BadAuthenticationMethod
                    | Self::TopicNameInvalid
                    | Self::PacketTooLarge
                    | Self::QuotaExceeded
                    | Self::PayloadFormatInvalid
                    | Self::RetainNotSupported
                    | Self::QoSNotSupported
                    | Self::UseAnotherServer
                    | Self::ServerMoved
                    | Self::ConnectionRateExceeded
            ),
            PacketType::Puback | PacketType::Pubrec => matches!(
                self,
                Self::Success
                    | Self::NoMatchingSubscribers
                    | Self::UnspecifiedError
                    | Self::ImplementationSpecificError
                    | Self::NotAuthorized
                    | Self::TopicNameInvalid
                    | Self::PacketIdentifierInUse
                    | Self::QuotaExceeded
                    | Self::PayloadFormatInvalid
            ),
            PacketType::Pubrel | PacketType::Pubcomp => {
                matches!(self, Self::Success | Self::PacketIdentifierNotFound)
            }
            PacketType::Suback => matches!(
                self,
                Self::Success
                    | Self::GrantedQoS1
                    | Self::GrantedQoS2
                    | Self::UnspecifiedError
                    | Self::ImplementationSpecificError
                    | Self::NotAuthorized
                    | Self::TopicFilterInvalid
                    | Self::PacketIdentifierInUse
                    | Self::QuotaExceeded
                    | Self::SharedSubscriptionsNotSupported
                    | Self::SubscriptionIdentifiersNotSupported
                    | Self::WildcardSubscriptionsNotSupported
            ),
            PacketType::Unsuback => matches!(
                self,
                Self::Success
                    | Self::NoSubscriptionExisted
                    | Self::UnspecifiedError
                    | Self::ImplementationSpecificError
                    | Self::NotAuthorized
                    | Self::TopicFilterInvalid
                    | Self::PacketIdentifierInUse
            ),
            PacketType::Disconnect => matches!(
                self,
                Self::Success
                    | Self::DisconnectWithWillMessage
                    | Self::UnspecifiedError
                    | Self::MalformedPacket
                    | Self::ProtocolError
                    | Self::ImplementationSpecificError
                    | Self::NotAuthorized
                    | Self::ServerBusy
                    | Self::ServerShuttingDown
                    | Self::BadAuthenticationMethod
                    | Self::KeepAliveTimeout
                    | Self::SessionTakenOver
                    | Self::TopicFilterInvalid
                    | Self::TopicNameInvalid
                    | Self::ReceiveMaximumExceeded
                    | Self::TopicAliasInvalid
                    | Self::PacketTooLarge
                    | Self::MessageRateTooHigh
                    | Self::QuotaExceeded
                    | Self::AdministrativeAction
                    | Self::PayloadFormatInvalid
                    | Self::RetainNotSupported
                    | Self::QoSNotSupported
                    | Self::UseAnotherServer
                    | Self::ServerMoved
                    | Self::SharedSubscriptionsNotSupported
                    | Self::ConnectionRateExceeded
                    | Self::MaximumConnectTime
                    | Self::SubscriptionIdentifiersNotSupported
                    | Self::WildcardSubscriptionsNotSupported
            ),
            PacketType::Auth => {
                matches!(
                    self,
                    Self::Success | Self::ContinueAuthentication | Self::ReAuthenticate
                )
            }
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::Pingreq
            | PacketType::Pingresp => false,
        }
    }

    /// The return code of a 3.x CONNACK that says the same, or the nearest to it.
    ///
    /// | return code | for |
    /// |---|---|
    /// | 0 accepted | every success |
    /// | 1 unacceptable protocol version | 0x84 |
    /// | 2 identifier rejected | 0x85 |
    /// | 4 bad user name or password | 0x86, 0x8C |
    /// | 5 not authorized | 0x87, 0x8A and what the server does not allow: 0x90, 0x97, 0x99, 0x9A, 0x9B |
    /// | 3 server unavailable | all others |
    pub const fn connect_return_code(self) -> u8 {
        match self as u8 {
            0x00..0x80 => 0,
            0x84 => 1,
            0x85 => 2,
            0x86 | 0x8C => 4,
            0x87 | 0x8A | 0x90 | 0x97 | 0x99 | 0x9A | 0x9B => 5,
            _ => 3,
        }
    }

    /// The meaning of the return code of a 3.x CONNACK, none above 5.
    pub const fn from_connect_return_code(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// The return code of a 3.x SUBACK: every error is 0x80.
    pub const fn suback_return_code(self) -> u8 {
        if self.is_error() { 0x80 } else { self as u8 }
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> Self {
        code as Self
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// As its number.
#[cfg(feature = "serde")]
impl serde::Serialize for ReasonCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ReasonCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u8::deserialize(deserializer)?;
        Self::from_u8(value).ok_or_else(|| {
            serde::de::Error::invalid_value(
                serde::de::Unexpected::Unsigned(value.into()),
                &"a reason code of MQTT 5.0",
            )
        })
    }
}
