//! The changes that must survive the process, as plain values. Where one names a shard, it says of
//! how many, so that it holds for any other number.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use avocet_codec::{PacketId, QoS, SubscriptionId, SubscriptionOptions};
use avocet_session::{Message, UnixTime};
use avocet_topic::{TopicFilterBuf, TopicName, TopicNameBuf};

use crate::session_table::SessionKey;
use crate::shard::{Part, ShardId};
use crate::tenant::{GroupName, Tenant};

/// Names a stored message: no other one ever has the same, whatever the number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

impl MessageId {
    /// The message with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The message with this count among those of a shard.
    pub(crate) const fn of_shard(shard: ShardId, count: u64) -> Self {
        Self((shard.get() as u64) << COUNT_BITS | count & ((1 << COUNT_BITS) - 1))
    }

    /// The part of the number that counts the messages of a shard. A restart counts on above the
    /// highest one of all shards, and a shard above that of a message which comes from another one:
    /// the counts of what a client publishes to a topic rise.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0 & ((1 << COUNT_BITS) - 1)
    }
}

const COUNT_BITS: u32 = 48;

/// The place of a message in the order of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlace {
    /// The shared subscription.
    pub group: GroupName,
    /// Rises with each message of the group, with gaps.
    pub sequence: u64,
}

/// How far a new subscription came on its way through the retained messages: those of the topics that
/// belong to the shards before this one are queued, and of its own those up to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedPlace {
    /// One of so many shards.
    pub part: Part,
    /// The topic, in the order of [`TopicName::cmp_by_level`].
    pub topic_name: TopicNameBuf,
}

impl RetainedPlace {
    /// Whether the retained message of a tenant's topic is queued.
    pub(crate) fn includes(&self, tenant: &Tenant, topic_name: TopicName<'_>) -> bool {
        let Part { shard, shards } = self.part;
        match ShardId::of_topic(tenant.as_str(), topic_name, shards).cmp(&shard) {
            Ordering::Less => true,
            Ordering::Equal => topic_name.cmp_by_level(self.topic_name.as_name()).is_le(),
            Ordering::Greater => false,
        }
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
        /// Everything in its queue before this sequence may have been sent.
        sent: u64,
        /// And so may so many messages from there on: all of them, `u32::MAX`, while it is connected,
        /// and otherwise 0.
        window: u32,
    },
    /// A session ended, with everything it held but its will. Messages of groups that it held end
    /// in their groups too [MQTT5-4.8.2-5].
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
    /// A subscription waits for the retained messages of its filter, but those that one of these
    /// places includes: one place for each number of shards that there was since it began.
    RetainedAwaited {
        /// The session.
        session: Arc<SessionKey>,
        /// The filter as it stood in the packet.
        filter: TopicFilterBuf,
        /// What is queued.
        queued: Vec<RetainedPlace>,
    },
    /// It waits for no more of them. Nor does a subscription that ended.
    RetainedQueued {
        /// The session.
        session: Arc<SessionKey>,
        /// The filter as it stood in the packet.
        filter: TopicFilterBuf,
    },
    /// A message that others refer to in this commit: sessions, groups, or
    /// [`Record::MessageAccepted`]. It goes with the last of these.
    MessageStored {
        /// How they refer to it.
        id: MessageId,
        /// The message.
        message: Message,
    },
    /// The message is on its way to other shards. Until [`Record::MessageRouted`] it stays, and a
    /// restart sends it again to whom it has not reached.
    MessageAccepted {
        /// The message.
        id: MessageId,
        /// Who published it, for No Local.
        publisher: Option<Arc<SessionKey>>,
    },
    /// The sessions, groups and topics that belong to this part of a broker have had the message,
    /// as far as it is theirs. Nothing, if it is not on its way.
    MessageArrived {
        /// The message.
        id: MessageId,
        /// One of so many shards.
        part: Part,
        /// Others of as many where nobody wanted it: who subscribes there later has no part in it.
        unwanted: Vec<ShardId>,
    },
    /// The message is with all who want it.
    MessageRouted {
        /// The message.
        id: MessageId,
    },
    /// A message of QoS 1 or 2 was put behind the others of a session.
    Enqueued {
        /// The session.
        session: Arc<SessionKey>,
        /// Its place in the queue, from which its Packet Identifier is derived: one more than that
        /// of the message before; 0 for the first one of the session.
        sequence: u64,
        /// The message.
        id: MessageId,
        /// The QoS of the delivery.
        qos: QoS,
        /// The RETAIN flag of the delivery.
        retain: bool,
        /// The Subscription Identifiers of the delivery.
        subscription_ids: Vec<SubscriptionId>,
        /// What it is to the shared subscription that gave it to the session.
        group: Option<Box<GroupPlace>>,
    },
    /// A session is done with a message: acknowledged or dropped. So is the group that gave it.
    Finished {
        /// The session.
        session: Arc<SessionKey>,
        /// The place of the message in the queue.
        sequence: u64,
    },
    /// A session does not have a message any more; the group that gave it does.
    Returned {
        /// The session.
        session: Arc<SessionKey>,
        /// The place of the message in the queue.
        sequence: u64,
    },
    /// A message was put behind the others of a shared subscription.
    GroupEnqueued {
        /// Its place; sequences rise.
        place: GroupPlace,
        /// The message.
        id: MessageId,
        /// Who published it.
        publisher: Option<Arc<SessionKey>>,
    },
    /// PUBREC came for a QoS 2 message of a session: it is not sent again, PUBREL is
    /// [MQTT5-4.3.3-6].
    PubrecReceived {
        /// The session.
        session: Arc<SessionKey>,
        /// The place of the message in the queue.
        sequence: u64,
    },
    /// A shared subscription is done with a message, which it may have been before.
    GroupFinished {
        /// The place of the message.
        place: GroupPlace,
    },
    /// No session that survives is left in a shared subscription, nor does what it held.
    GroupDeleted {
        /// The shared subscription.
        group: GroupName,
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
    /// The retained message of its topic, with the tenant who published it.
    RetainedPut {
        /// The message.
        message: Message,
        /// Who published it, for No Local and for the tenant.
        publisher: Option<Arc<SessionKey>>,
    },
    /// A topic has no retained message any more.
    RetainedDeleted {
        /// Whose topic it is.
        tenant: Tenant,
        /// The topic.
        topic_name: TopicNameBuf,
    },
    /// The Will Message of a session, which need not survive itself.
    WillPut {
        /// The session.
        session: Arc<SessionKey>,
        /// The message; its Message Expiry Interval runs from its publication.
        message: Message,
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
    /// The wall clock has come this far. Now and then.
    Time {
        /// The time.
        at: UnixTime,
    },
}

/// A message that a session had queued, read back from the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// Its place in the queue.
    pub sequence: u64,
    /// What it is in the store.
    pub id: MessageId,
    /// The message; none if the store cannot read it, nor what is said here but its place and
    /// PUBREC.
    pub message: Option<Message>,
    /// The QoS of the delivery.
    pub qos: QoS,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// The Subscription Identifiers of the delivery.
    pub subscription_ids: Vec<SubscriptionId>,
    /// Whether PUBREC came for it.
    pub pubrec_received: bool,
}
