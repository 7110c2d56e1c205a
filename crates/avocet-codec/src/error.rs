use core::fmt;

use crate::packet::PacketType;
use crate::property_id::PropertyId;
use crate::reason_code::ReasonCode;
use crate::version::Version;

/// The part of a packet that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The fixed header.
    FixedHeader,
    /// The Protocol Name of a CONNECT.
    ProtocolName,
    /// The Protocol Version of a CONNECT.
    ProtocolVersion,
    /// The Connect Flags of a CONNECT.
    ConnectFlags,
    /// The Keep Alive of a CONNECT.
    KeepAlive,
    /// The Client Identifier of a CONNECT.
    ClientId,
    /// The Will Topic of a CONNECT.
    WillTopic,
    /// The Will Payload of a CONNECT.
    WillPayload,
    /// The User Name of a CONNECT.
    UserName,
    /// The Password of a CONNECT.
    Password,
    /// The Connect Acknowledge Flags of a CONNACK.
    ConnectAcknowledgeFlags,
    /// The Reason Code (3.x: return code) of an acknowledgement, a DISCONNECT or an AUTH.
    ReasonCode,
    /// The Packet Identifier.
    PacketId,
    /// The Topic Name of a PUBLISH.
    TopicName,
    /// A Topic Filter of a SUBSCRIBE or UNSUBSCRIBE.
    TopicFilter,
    /// The Subscription Options (3.x: requested QoS) behind a Topic Filter.
    SubscriptionOptions,
    /// The Property Length.
    PropertyLength,
    /// A property.
    Property(PropertyId),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FixedHeader => "fixed header",
            Self::ProtocolName => "protocol name",
            Self::ProtocolVersion => "protocol version",
            Self::ConnectFlags => "connect flags",
            Self::KeepAlive => "keep alive",
            Self::ClientId => "client identifier",
            Self::WillTopic => "will topic",
            Self::WillPayload => "will payload",
            Self::UserName => "user name",
            Self::Password => "password",
            Self::ConnectAcknowledgeFlags => "connect acknowledge flags",
            Self::ReasonCode => "reason code",
            Self::PacketId => "packet identifier",
            Self::TopicName => "topic name",
            Self::TopicFilter => "topic filter",
            Self::SubscriptionOptions => "subscription options",
            Self::PropertyLength => "property length",
            Self::Property(id) => id.name(),
        })
    }
}

/// Why bytes are not a packet: always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The packet is larger than the limit given to
    /// [`Packet::decode_next`](crate::Packet::decode_next).
    #[error("packet larger than the maximum packet size [MQTT5-3.1.2-24]")]
    PacketTooLarge,
    /// The slice is not exactly one packet: shorter or longer than its Remaining Length says.
    #[error("remaining length is not the length of the packet")]
    RemainingLength,
    /// Packet type 0, or a type that the version does not have.
    #[error("reserved packet type {0} [MQTT5-2.1.2]")]
    PacketType(u8),
    /// Flags of the fixed header that must have another value.
    #[error("reserved flags of the fixed header [MQTT5-2.1.3-1] [MQTT311-2.2.2-2]")]
    FixedHeaderFlags,
    /// A Variable Byte Integer of more than four bytes.
    #[error("{0}: variable byte integer of more than four bytes [MQTT5-1.5.5]")]
    VariableByteIntegerTooLong(Field),
    /// A Variable Byte Integer with more bytes than its value needs.
    #[error("{0}: variable byte integer not in its shortest form [MQTT5-1.5.5-1]")]
    VariableByteIntegerNotMinimal(Field),
    /// The packet ends before this field does.
    #[error("packet ends within the {0}")]
    Truncated(Field),
    /// The packet goes on behind its last field.
    #[error("bytes behind the last field")]
    TrailingBytes,
    /// A string that is not well-formed UTF-8.
    #[error("{0}: ill-formed UTF-8 [MQTT5-1.5.4-1] [MQTT311-1.5.3-1]")]
    IllFormedUtf8(Field),
    /// A string with the null character.
    #[error("{0}: null character U+0000 [MQTT5-1.5.4-2] [MQTT311-1.5.3-2]")]
    NullCharacter(Field),
    /// A PUBLISH or a will with both bits of the QoS set.
    #[error("QoS 3 [MQTT5-3.3.1-4] [MQTT311-3.3.1-4]")]
    QoS3,
    /// A PUBLISH of QoS 0 with the DUP flag.
    #[error("DUP flag with QoS 0 [MQTT5-3.3.1-2] [MQTT311-3.3.1-2]")]
    DupWithQoS0,
    /// A Packet Identifier of zero.
    #[error("packet identifier 0 [MQTT5-2.2.1-3] [MQTT311-2.3.1-1]")]
    PacketIdZero,
    /// A Topic Name that is empty or has a wildcard.
    #[error("{0}: not a topic name [MQTT5-3.3.2-2] [MQTT311-3.3.2-2]")]
    TopicName(Field),
    /// A PUBLISH with neither Topic Name nor Topic Alias.
    #[error("empty topic name without a topic alias [MQTT5-3.3.2-1]")]
    MissingTopicName,
    /// A Topic Filter that is empty or has a wildcard where none may be.
    #[error("not a topic filter [MQTT5-4.7.1] [MQTT311-4.7.1]")]
    TopicFilter,
    /// A Protocol Name that is not MQTT's.
    #[error("unknown protocol name [MQTT5-3.1.2-1] [MQTT311-3.1.2-1]")]
    ProtocolName,
    /// A level of the protocol that is none of ours.
    #[error("unsupported protocol version {0} [MQTT5-3.1.2-2] [MQTT311-3.1.2-2]")]
    UnsupportedProtocolVersion(u8),
    /// Connect Flags that contradict each other, or the reserved one.
    #[error("connect flags not allowed [MQTT5-3.1.2-3] [MQTT311-3.1.2-3]")]
    ConnectFlags,
    /// A password without a user name in 3.x.
    #[error("password without a user name [MQTT311-3.1.2-22]")]
    PasswordWithoutUserName,
    /// The reserved Connect Acknowledge Flags.
    #[error("reserved connect acknowledge flags [MQTT5-3.2.2-1] [MQTT311-3.2.2.1]")]
    ConnectAcknowledgeFlags,
    /// Session Present in a CONNACK that refuses.
    #[error("session present with an error code [MQTT5-3.2.2-6] [MQTT311-3.2.2-4]")]
    SessionPresentWithError,
    /// A Reason Code that the packet type does not have.
    #[error("reason code 0x{0:02x} not allowed here [MQTT5-2.4]")]
    ReasonCode(u8),
    /// An identifier that is no property's.
    #[error("unknown property 0x{0:02x} [MQTT5-2.2.2.2]")]
    UnknownProperty(u8),
    /// A property that the packet type does not have.
    #[error("{0} not allowed in this packet [MQTT5-2.2.2.2]")]
    MisplacedProperty(PropertyId),
    /// A property for the second time.
    #[error("{0} repeated [MQTT5-2.2.2.2]")]
    RepeatedProperty(PropertyId),
    /// A property with a value that is out of its range.
    #[error("{0}: value out of range [MQTT5-2.2.2.2]")]
    PropertyValue(PropertyId),
    /// Authentication Data without an Authentication Method, or an AUTH without one.
    #[error("authentication method missing [MQTT5-3.1.2.11.10] [MQTT5-3.15.2.2.2]")]
    MissingAuthenticationMethod,
    /// A SUBSCRIBE or UNSUBSCRIBE without a Topic Filter.
    #[error("no topic filter [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT311-3.8.3-3]")]
    NoTopicFilters,
    /// A SUBACK or UNSUBACK without a Reason Code.
    #[error("no reason code [MQTT5-3.8.4-6] [MQTT5-3.11.3-1]")]
    NoReasonCodes,
    /// A Maximum QoS of 3 in the Subscription Options.
    #[error("maximum QoS 3 [MQTT5-3.8.3.1] [MQTT311-3.8.3-4]")]
    MaximumQoS3,
    /// Reserved bits in the Subscription Options.
    #[error("reserved subscription options [MQTT5-3.8.3-5] [MQTT311-3.8.3-4]")]
    SubscriptionOptions,
    /// A Retain Handling of 3.
    #[error("retain handling 3 [MQTT5-3.8.3.1]")]
    RetainHandling,
    /// No Local on a Shared Subscription.
    #[error("no local on a shared subscription [MQTT5-3.8.3-4]")]
    NoLocalOnSharedSubscription,
}

impl DecodeError {
    /// The Reason Code that a 5.0 peer is told.
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::UnsupportedProtocolVersion(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::PropertyValue(PropertyId::TopicAlias) => ReasonCode::TopicAliasInvalid,
            Self::MissingTopicName
            | Self::SessionPresentWithError
            | Self::RepeatedProperty(_)
            | Self::PropertyValue(_)
            | Self::MissingAuthenticationMethod
            | Self::NoTopicFilters
            | Self::NoReasonCodes
            | Self::MaximumQoS3
            | Self::RetainHandling
            | Self::NoLocalOnSharedSubscription => ReasonCode::ProtocolError,
            Self::RemainingLength
            | Self::PacketType(_)
            | Self::FixedHeaderFlags
            | Self::VariableByteIntegerTooLong(_)
            | Self::VariableByteIntegerNotMinimal(_)
            | Self::Truncated(_)
            | Self::TrailingBytes
            | Self::IllFormedUtf8(_)
            | Self::NullCharacter(_)
            | Self::QoS3
            | Self::DupWithQoS0
            | Self::PacketIdZero
            | Self::TopicName(_)
            | Self::TopicFilter
            | Self::ProtocolName
            | Self::ConnectFlags
            | Self::PasswordWithoutUserName
            | Self::ConnectAcknowledgeFlags
            | Self::ReasonCode(_)
            | Self::UnknownProperty(_)
            | Self::MisplacedProperty(_)
            | Self::SubscriptionOptions => ReasonCode::MalformedPacket,
        }
    }
}

/// Why a packet cannot be put on the wire: always the caller's fault, and known before the first
/// byte is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A Remaining Length of more than 268,435,455 bytes.
    #[error("packet larger than 268,435,455 bytes")]
    TooLarge,
    /// The output has less room than the packet needs.
    #[error("output has too little room")]
    OutputFull,
    /// The version has no such packet, or no way to say this.
    #[error("{packet_type} cannot say this in version {version}")]
    NotInVersion {
        /// The packet.
        packet_type: PacketType,
        /// The version it was to be encoded for.
        version: Version,
    },
    /// A string or binary field of more than 65,535 bytes.
    #[error("{0}: longer than 65,535 bytes")]
    FieldTooLong(Field),
    /// A string with the null character.
    #[error("{0}: null character U+0000 [MQTT5-1.5.4-2] [MQTT311-1.5.3-2]")]
    NullCharacter(Field),
    /// A PUBLISH with neither Topic Name nor Topic Alias, or, in 3.x, without Topic Name.
    #[error("topic name missing [MQTT5-3.3.2-1]")]
    MissingTopicName,
    /// A PUBLISH of QoS 0 with the DUP flag.
    #[error("DUP flag with QoS 0 [MQTT5-3.3.1-2] [MQTT311-3.3.1-2]")]
    DupWithQoS0,
    /// A password without a user name in 3.x.
    #[error("password without a user name [MQTT311-3.1.2-22]")]
    PasswordWithoutUserName,
    /// Session Present in a CONNACK that refuses.
    #[error("session present with an error code [MQTT5-3.2.2-6] [MQTT311-3.2.2-4]")]
    SessionPresentWithError,
    /// A Reason Code that the packet type does not have.
    #[error("{0} is no reason code of this packet [MQTT5-2.4]")]
    ReasonCode(ReasonCode),
    /// Authentication Data without an Authentication Method, or an AUTH without one.
    #[error("authentication method missing [MQTT5-3.1.2.11.10] [MQTT5-3.15.2.2.2]")]
    MissingAuthenticationMethod,
    /// A SUBSCRIBE or UNSUBSCRIBE without a Topic Filter.
    #[error("no topic filter [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT311-3.8.3-3]")]
    NoTopicFilters,
    /// A SUBACK or UNSUBACK without a Reason Code.
    #[error("no reason code [MQTT5-3.8.4-6] [MQTT5-3.11.3-1]")]
    NoReasonCodes,
    /// No Local on a Shared Subscription.
    #[error("no local on a shared subscription [MQTT5-3.8.3-4]")]
    NoLocalOnSharedSubscription,
}
