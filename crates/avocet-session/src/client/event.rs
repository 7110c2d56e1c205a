//! What a client learns.

use avocet_codec::{Ack, Auth, Connack, Disconnect, PacketId, Suback, Unsuback};

use crate::{AckToken, CloseReason, Demand, DropReason, IncomingPublish};

/// What `handle_input` made of the bytes.
#[derive(Debug)]
#[must_use]
pub struct ClientInput<'a> {
    /// Bytes at the front that are done with.
    pub consumed: usize,
    /// How to go on.
    pub demand: Demand,
    /// What the packet means to the application.
    pub event: Option<ClientEvent<'a>>,
}

/// What a packet means to the application; it borrows from the bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent<'a> {
    /// The server accepted the connection.
    Connected(Connack<'a>),
    /// The server refused the connection, which is closed then.
    Refused(Connack<'a>),
    /// The server goes on with enhanced authentication: `authenticate` answers a Reason Code of
    /// `ContinueAuthentication`; `Success` ends a re-authentication.
    Auth(Auth<'a>),
    /// A message came.
    Publish {
        /// The packet, its Topic Alias resolved.
        publish: IncomingPublish<'a>,
        /// What `acknowledge` is called with; none at QoS 0.
        token: Option<AckToken>,
    },
    /// The server answered a message of QoS 1 or 2; an error means that it was refused.
    Published {
        /// What `publish` returned.
        id: PublishId,
        /// The PUBACK, the PUBCOMP, or the PUBREC that refuses.
        ack: Ack<'a>,
    },
    /// The server answered a SUBSCRIBE.
    Subscribed {
        /// What `subscribe` returned.
        id: RequestId,
        /// One Reason Code for each Topic Filter.
        suback: Suback<'a>,
    },
    /// The server answered an UNSUBSCRIBE.
    Unsubscribed {
        /// What `unsubscribe` returned.
        id: RequestId,
        /// One Reason Code for each Topic Filter; none in 3.x.
        unsuback: Unsuback<'a>,
    },
    /// The server disconnected; the connection is closed then.
    Disconnected(Disconnect<'a>),
}

/// What became of the connection and its messages without a packet of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientNotice {
    /// A message was not published, or is not known to have been.
    NotPublished {
        /// What `publish` returned; none at QoS 0.
        id: Option<PublishId>,
        /// Why.
        reason: NotPublished,
    },
    /// PUBREC came for a message of a Session that a store keeps: [`Session::release`] names the
    /// commit that stores that.
    ///
    /// [`Session::release`]: crate::Session::release
    Pubrec {
        /// What `publish` returned.
        id: PublishId,
    },
    /// PUBREL came for a message whose acknowledgement a store keeps: [`Session::complete`] names
    /// the commit that stores its end.
    ///
    /// [`Session::complete`]: crate::Session::complete
    Pubrel {
        /// That of the message.
        packet_id: PacketId,
    },
    /// The connection ended; nothing follows.
    Closed(CloseReason),
}

/// Why a message was not published, or is not known to have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPublished {
    /// It waited too long, or gave way to others.
    #[error("dropped from the queue: {0:?}")]
    Dropped(DropReason),
    /// It waited longer than the client lets messages wait, and was not sent.
    #[error("not sent for too long")]
    TooOld,
    /// The server, as its CONNACK says, takes no messages of this QoS or no retained ones.
    #[error("[MQTT5-3.2.2-11] [MQTT5-3.2.2-14] the server takes no such messages")]
    NotSupported,
    /// It was sent, and may have arrived, but the server has lost the Session.
    #[error("[MQTT5-3.2.2-5] sent, but the server has lost the session")]
    SessionLost,
}

/// Names a QoS 1 or 2 message of a Session, also on later connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub(crate) u64);

impl PublishId {
    /// The message's place among those of QoS 1 and 2 of its Session: a later message has a
    /// greater one.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.0
    }
}

/// Names a SUBSCRIBE or UNSUBSCRIBE until its answer comes or the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) PacketId);

/// Why `publish` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The connection has ended, or is about to.
    #[error("the connection has ended")]
    Closed,
    /// The queue takes no more.
    #[error("too many messages wait to be sent")]
    QueueFull,
    /// Its Message Expiry Interval has passed.
    #[error("the message has expired")]
    Expired,
    /// QoS 0 messages are not kept while there is no connection.
    #[error("not connected, and a message of qos 0 is not kept")]
    NotConnected,
    /// The packet would exceed the server's Maximum Packet Size.
    #[error("[MQTT5-3.2.2-15] the packet takes {size} bytes, the server allows {maximum}")]
    PacketTooLarge {
        /// What it would take, in bytes.
        size: usize,
        /// What the server allows, in bytes.
        maximum: usize,
    },
    /// The server's Maximum QoS is lower.
    #[error("[MQTT5-3.2.2-11] the server does not support this qos")]
    QosNotSupported,
    /// The server keeps no retained messages.
    #[error("[MQTT5-3.2.2-14] the server does not support retained messages")]
    RetainNotSupported,
    /// Only MQTT 5.0 has properties and Message Expiry.
    #[error("properties need 5.0")]
    PropertiesNotInVersion,
}

/// Why `subscribe` or `unsubscribe` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// There is no connection, or it is about to end.
    #[error("not connected")]
    NotConnected,
    /// A packet needs at least one Topic Filter.
    #[error("[MQTT5-3.8.3-2] [MQTT311-3.8.3-3] no topic filter")]
    NoTopicFilters,
    /// All Packet Identifiers are in use.
    #[error("too many requests wait for their answer")]
    TooManyRequests,
    /// The packet would exceed the server's Maximum Packet Size.
    #[error("[MQTT5-3.2.2-15] the packet takes {size} bytes, the server allows {maximum}")]
    PacketTooLarge {
        /// What it would take, in bytes.
        size: usize,
        /// What the server allows, in bytes.
        maximum: usize,
    },
    /// The server does not support wildcards.
    #[error("the server does not support wildcard subscriptions")]
    WildcardNotSupported,
    /// The server does not support shared subscriptions.
    #[error("the server does not support shared subscriptions")]
    SharedNotSupported,
    /// The server does not support subscription identifiers.
    #[error("the server does not support subscription identifiers")]
    SubscriptionIdsNotSupported,
    /// Only MQTT 5.0 has properties, and subscription options other than the QoS.
    #[error("properties and subscription options other than the qos need 5.0")]
    OptionsNotInVersion,
    /// A value that no packet can carry.
    #[error(transparent)]
    Encode(#[from] avocet_codec::EncodeError),
}

/// Why `disconnect`, `authenticate` or `reauthenticate` did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The connection is not in the state in which this is sent.
    #[error("not the state for this packet")]
    WrongState,
    /// CONNECT had no Authentication Method [MQTT5-4.12.0-6].
    #[error("[MQTT5-4.12.0-6] the connection has no authentication method")]
    NoAuthenticationMethod,
    /// CONNECT had set the Session Expiry Interval to 0 [MQTT5-3.1.2-23].
    #[error("the session expiry interval was 0, and cannot become another")]
    SessionExpiryInterval,
    /// The packet would exceed the server's Maximum Packet Size.
    #[error("[MQTT5-3.2.2-15] the packet takes {size} bytes, the server allows {maximum}")]
    PacketTooLarge {
        /// What it would take, in bytes.
        size: usize,
        /// What the server allows, in bytes.
        maximum: usize,
    },
    /// A value that no packet can carry.
    #[error(transparent)]
    Encode(#[from] avocet_codec::EncodeError),
}
