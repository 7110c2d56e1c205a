//! Messages that came.

use avocet_codec::{MessageProperties, PacketId, Publish, QoS, SubscriptionId, TopicName};
use avocet_session::{AckToken, Message, SubscriptionIds, UnixTime};
use bytes::Bytes;

/// A message the server sent.
#[derive(Debug)]
pub struct Received {
    message: Message,
    dup: bool,
    packet_id: Option<PacketId>,
    message_expiry_interval: Option<u32>,
    subscription_ids: SubscriptionIds,
    pub(crate) token: Option<AckToken>,
}

impl Received {
    pub(crate) fn new(
        publish: &Publish<'_>,
        topic_name: TopicName<'_>,
        token: Option<AckToken>,
        now: UnixTime,
    ) -> Self {
        Self {
            message: Message::from_publish(publish, topic_name, now),
            dup: publish.dup,
            packet_id: publish.packet_id(),
            message_expiry_interval: publish.message_expiry_interval,
            subscription_ids: publish.subscription_ids.iter().collect(),
            token,
        }
    }

    /// The Topic Name it was published to.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        self.message.topic_name()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// The payload, sharing this message's memory.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.message.payload_bytes()
    }

    /// The QoS of this delivery.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.message.qos()
    }

    /// Whether it was sent because it was retained when the subscription began (or, with Retain As
    /// Published, whether it was published with RETAIN).
    #[must_use]
    pub fn retain(&self) -> bool {
        self.message.retain()
    }

    /// Whether it may have come before.
    #[must_use]
    pub fn dup(&self) -> bool {
        self.dup
    }

    /// The Packet Identifier of this delivery; none at QoS 0.
    #[must_use]
    pub fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }

    /// What was left of the Message Expiry Interval when it came, in seconds.
    #[must_use]
    pub fn message_expiry_interval(&self) -> Option<u32> {
        self.message_expiry_interval
    }

    /// The identifiers of the subscriptions it matched.
    #[must_use]
    pub fn subscription_ids(&self) -> &[SubscriptionId] {
        self.subscription_ids.as_slice()
    }

    /// The properties its publisher gave it.
    #[must_use]
    pub fn properties(&self) -> MessageProperties<'_> {
        self.message.properties()
    }

    /// The message itself, for instance to publish it elsewhere.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}
