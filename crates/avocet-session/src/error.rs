//! Whose fault it is: the peer's here; the caller's beside each command.

use avocet_codec::{DecodeError, ReasonCode};

/// Why the peer's behaviour ends a Network Connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// A packet that is not valid in itself.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A valid packet that must not come here, or not in this state.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl ConnectionError {
    /// What DISCONNECT says about it.
    #[must_use]
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::Decode(error) => error.reason_code(),
            Self::Violation(violation) => violation.reason_code(),
        }
    }
}

/// A valid packet that must not come here, or not in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The first packet is not CONNECT.
    #[error("[MQTT5-3.1.0-1] first packet is not CONNECT")]
    NotConnect,
    /// CONNECT came again.
    #[error("[MQTT5-3.1.0-2] second CONNECT")]
    SecondConnect,
    /// A packet that only the other role sends.
    #[error("packet that this side must not receive")]
    WrongDirection,
    /// A packet other than AUTH or DISCONNECT during enhanced authentication.
    #[error("[MQTT5-3.1.2-30] packet other than AUTH or DISCONNECT before CONNACK")]
    BeforeConnack,
    /// AUTH without an Authentication Method in CONNECT, with another one, or out of turn.
    #[error("[MQTT5-4.12.0-5] [MQTT5-4.12.0-7] AUTH that the exchange does not allow")]
    UnexpectedAuth,
    /// More QoS 1 and 2 PUBLISH packets than the Receive Maximum.
    #[error("[MQTT5-3.3.4-7] [MQTT5-3.3.4-9] receive maximum exceeded")]
    ReceiveMaximumExceeded,
    /// A Topic Alias greater than the maximum.
    #[error("[MQTT5-3.3.2-9] topic alias greater than the maximum")]
    TopicAliasInvalid,
    /// A Topic Alias that was not set on this Network Connection.
    #[error("[MQTT5-3.3.2.3.4] topic alias that was not set on this connection")]
    TopicAliasUnknown,
    /// A QoS greater than the Maximum QoS.
    #[error("[MQTT5-3.2.2-11] qos greater than the maximum")]
    QosNotSupported,
    /// RETAIN 1 where the server has no retained messages.
    #[error("[MQTT5-3.2.2-14] retain is not available")]
    RetainNotSupported,
    /// A Subscription Identifier where the server has none.
    #[error("[MQTT5-3.2.2.3.12] subscription identifiers are not available")]
    SubscriptionIdsNotSupported,
    /// A Subscription Identifier in a PUBLISH to a server.
    #[error("[MQTT5-3.3.4-6] subscription identifier in a PUBLISH to a server")]
    SubscriptionIdFromClient,
    /// An acknowledgement of another kind than the state of its Packet Identifier allows.
    #[error("[MQTT5-4.3.3] acknowledgement of the wrong kind for its packet identifier")]
    WrongAcknowledgement,
    /// A Session Expiry Interval in DISCONNECT that CONNECT had set to 0, or sent by a server.
    #[error("[MQTT5-3.14.2.2.2] session expiry interval must not be set in this DISCONNECT")]
    SessionExpiryInterval,
    /// An empty Client Identifier without Clean Session, or one that 3.1 does not allow.
    #[error("[MQTT311-3.1.3-8] client identifier not valid")]
    ClientIdNotValid,
    /// CONNACK says that a session is present where there is none.
    #[error("[MQTT5-3.2.2-4] session present without a session")]
    SessionPresent,
}

impl Violation {
    /// What DISCONNECT or CONNACK says about it.
    #[must_use]
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::QosNotSupported => ReasonCode::QoSNotSupported,
            Self::RetainNotSupported => ReasonCode::RetainNotSupported,
            Self::SubscriptionIdsNotSupported => ReasonCode::SubscriptionIdentifiersNotSupported,
            Self::ClientIdNotValid => ReasonCode::ClientIdentifierNotValid,
            Self::NotConnect
            | Self::SecondConnect
            | Self::WrongDirection
            | Self::BeforeConnack
            | Self::UnexpectedAuth
            | Self::TopicAliasUnknown
            | Self::SubscriptionIdFromClient
            | Self::WrongAcknowledgement
            | Self::SessionExpiryInterval
            | Self::SessionPresent => ReasonCode::ProtocolError,
        }
    }
}

/// Who ended a Network Connection, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent DISCONNECT.
    #[error("disconnected by the peer: {}", disconnection(*.0))]
    PeerDisconnected(ReasonCode),
    /// The network ended without DISCONNECT.
    #[error("connection lost")]
    ConnectionLost,
    /// CONNECT, or its CONNACK, did not come in time.
    #[error("no connect in time")]
    ConnectTimeout,
    /// Server: nothing came for one and a half Keep Alive. Client: no PINGRESP.
    #[error("keep alive timeout")]
    KeepAliveTimeout,
    /// The peer broke the protocol.
    #[error("{0}")]
    PeerError(ConnectionError),
    /// The server answered CONNECT with this: this side if it is the server.
    #[error("refused: {0}")]
    Refused(ReasonCode),
    /// This side disconnected: takeover, shutdown, an administrator, the application.
    #[error("disconnected: {}", disconnection(*.0))]
    Disconnected(ReasonCode),
}

/// What a DISCONNECT calls its Reason Code: 0x00 has a name of its own there [MQTT5-3.14.2.1].
const fn disconnection(reason_code: ReasonCode) -> &'static str {
    if matches!(reason_code, ReasonCode::NORMAL_DISCONNECTION) {
        "normal disconnection"
    } else {
        reason_code.name()
    }
}

impl CloseReason {
    /// Whether the Will Message is to be published: after every end but the client's DISCONNECT
    /// with 0x00 [MQTT5-3.1.2-8] [MQTT5-3.14.4-3] [MQTT311-3.14.4-3].
    #[must_use]
    pub fn publishes_will(self) -> bool {
        self != Self::PeerDisconnected(ReasonCode::NORMAL_DISCONNECTION)
    }

    /// Whether the peer, or the network, ended it.
    #[must_use]
    pub fn is_by_peer(self) -> bool {
        matches!(self, Self::PeerDisconnected(_) | Self::ConnectionLost)
    }
}

/// Why `acknowledge` and its like did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The packet came on an earlier Network Connection, or on none of this Session.
    #[error("the connection on which the packet came has ended")]
    Stale,
    /// It is acknowledged already.
    #[error("acknowledged already")]
    Repeated,
    /// Nothing waits under this Packet Identifier or sequence.
    #[error("nothing waits for this acknowledgement")]
    Unknown,
    /// The packet that answers cannot carry this Reason Code.
    #[error("not a reason code of this packet")]
    ReasonCode,
    /// The connection is not in the state in which this answer is given.
    #[error("not the state for this answer")]
    WrongState,
}
