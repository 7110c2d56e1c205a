//! The changes that must survive the process, as plain values. None names a shard.

use alloc::sync::Arc;
use alloc::vec::Vec;

use avocet_codec::{PacketId, QoS, SubscriptionId, SubscriptionOptions};
use avocet_session::{Message, UnixTime};
use avocet_topic::{TopicFilterBuf, TopicNameBuf};

use crate::session_table::SessionKey;

/// Names a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub(crate) u64);

impl MessageId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// One change. Records of a commit count together or not at all, in order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// A session with a Session Expiry Interval above 0 began or changed.
    SessionPut {
        /// The session.
        session: Arc<SessionKey>,
        /// Seconds.
        expiry_interval: u32,
        /// When it ends unless its client comes back; none while it is connected or when it
        /// never ends.
        expires_at: Option<UnixTime>,
    },
    /// A session ended, with everything it held.
    SessionDeleted {
        /// The session.
        session: Arc<SessionKey>,
    },
    /// A subscription began or changed.
    SubscriptionPut {
        /// The session.
        session: Arc<SessionKey>,
        /// The filter as it stood in the packet, with `$share/`.
        filter: TopicFilterBuf,
        /// With the granted QoS as maximum.
        options: SubscriptionOptions,
        /// The Subscription Identifier.
        subscription_id: Option<SubscriptionId>,
    },
    /// A subscription ended.
    SubscriptionDeleted {
        /// The session.
        session: Arc<SessionKey>,
        /// The filter as it stood in the packet.
        filter: TopicFilterBuf,
    },
    /// A message that sessions refer to.
    MessageStored {
        /// How they refer to it.
        id: MessageId,
        /// The message.
        message: Arc<Message>,
    },
    /// A message was put behind the others of a session. A second one with the same ids says
    /// nothing new.
    Enqueued {
        /// The session.
        session: Arc<SessionKey>,
        /// Its place in the queue, from which its Packet Identifier is derived.
        sequence: u64,
        /// The message.
        id: MessageId,
        /// The QoS of the delivery.
        qos: QoS,
        /// The RETAIN flag of the delivery.
        retain: bool,
        /// The Subscription Identifiers of the delivery.
        subscription_ids: Vec<SubscriptionId>,
    },
    /// A session is done with a message: acknowledged, dropped, or returned to its group.
    Finished {
        /// The session.
        session: Arc<SessionKey>,
        /// The place of the message in the queue.
        sequence: u64,
    },
    /// A message was put behind the others of a shared subscription.
    GroupEnqueued {
        /// The filter with its `$share/` and Share Name.
        group: TopicFilterBuf,
        /// The message.
        id: MessageId,
    },
    /// PUBREC came for a QoS 2 message of a session: it is not sent again, PUBREL is
    /// [MQTT5-4.3.3-6].
    PubrecReceived {
        /// The session.
        session: Arc<SessionKey>,
        /// The place of the message in the queue.
        sequence: u64,
    },
    /// A shared subscription is done with a message.
    GroupFinished {
        /// The filter with its `$share/` and Share Name.
        group: TopicFilterBuf,
        /// The message.
        id: MessageId,
    },
    /// A QoS 2 PUBLISH came from the client of a session [MQTT5-4.3.3-10].
    PublishReceived {
        /// The session.
        session: Arc<SessionKey>,
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// Its PUBREL came, so the identifier is free.
    PublishReleased {
        /// The session.
        session: Arc<SessionKey>,
        /// The Packet Identifier.
        packet_id: PacketId,
    },
    /// The retained message of its topic.
    RetainedPut {
        /// The message.
        message: Arc<Message>,
        /// Who published it, for No Local.
        publisher: Option<Arc<SessionKey>>,
    },
    /// A topic has no retained message any more.
    RetainedDeleted {
        /// The topic.
        topic_name: TopicNameBuf,
    },
    /// The Will Message of a session.
    WillPut {
        /// The session.
        session: Arc<SessionKey>,
        /// The message; its Message Expiry Interval runs from its publication.
        message: Arc<Message>,
        /// Seconds, none for no expiry.
        message_expiry_interval: Option<u32>,
        /// Seconds between the end of the connection and the publication.
        delay_interval: u32,
        /// When it is published, none while its connection lasts.
        publish_at: Option<UnixTime>,
    },
    /// The Will Message was published or is void.
    WillDeleted {
        /// The session.
        session: Arc<SessionKey>,
    },
}

/// A message that a session had queued, read back from the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// Its place in the queue.
    pub sequence: u64,
    /// What it is in the store.
    pub id: MessageId,
    /// The message.
    pub message: Arc<Message>,
    /// The QoS of the delivery.
    pub qos: QoS,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// The Subscription Identifiers of the delivery.
    pub subscription_ids: Vec<SubscriptionId>,
}
