//! Messages that came.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use avocet_codec::{
    MessageProperties, PacketId, Publish, QoS, ReasonCode, SubscriptionId, TopicName,
};
use avocet_session::{AckError, AckToken, Message, SubscriptionIds, UnixTime};
use bytes::Bytes;
use tracing::warn;

use crate::state::Shared;
use crate::storage::StoredMessage;

/// A message that waits for the application.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    message: Message,
    dup: bool,
    packet_id: Option<PacketId>,
    message_expiry_interval: Option<u32>,
    subscription_ids: SubscriptionIds,
    pub(crate) due: Due,
}

/// What is to be acknowledged for a message.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// Nothing: QoS 0.
    Nothing,
    /// This.
    Owed(Owed),
    /// This, once all streams that have the message are done.
    Shared(Owed, Arc<AtomicUsize>),
}

/// To whom a message is to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owed {
    /// To the server.
    Token(AckToken),
    /// To the storage, which has it at this place.
    Place(u64),
}

impl Due {
    /// For this many streams.
    pub(crate) fn new(owed: Option<Owed>, streams: usize) -> Self {
        match owed {
            None => Self::Nothing,
            Some(owed) if streams > 1 => Self::Shared(owed, Arc::new(AtomicUsize::new(streams))),
            Some(owed) => Self::Owed(owed),
        }
    }

    /// One stream is done with it: what to acknowledge, if it was the last.
    pub(crate) fn done(self) -> Option<Owed> {
        match self {
            Self::Nothing => None,
            Self::Owed(owed) => Some(owed),
            Self::Shared(owed, left) => (left.fetch_sub(1, Ordering::AcqRel) == 1).then_some(owed),
        }
    }
}

impl Delivery {
    pub(crate) fn new(publish: &Publish<'_>, topic_name: TopicName<'_>, now: UnixTime) -> Self {
        Self {
            message: Message::from_publish(publish, topic_name, now),
            dup: publish.dup,
            packet_id: publish.packet_id(),
            message_expiry_interval: publish.message_expiry_interval,
            subscription_ids: publish.subscription_ids.iter().collect(),
            due: Due::Nothing,
        }
    }

    /// A message of an earlier process, which the application had not acknowledged.
    pub(crate) fn restored(stored: StoredMessage) -> Self {
        Self {
            message: stored.message,
            dup: true,
            packet_id: None,
            message_expiry_interval: None,
            subscription_ids: stored.subscription_ids.into_iter().collect(),
            due: Due::Owed(Owed::Place(stored.place)),
        }
    }

    pub(crate) fn to_stored(&self, place: u64) -> StoredMessage {
        StoredMessage {
            place,
            message: self.message.clone(),
            subscription_ids: self.subscription_ids.as_slice().to_vec(),
        }
    }

    pub(crate) fn qos(&self) -> QoS {
        self.message.qos()
    }
}

/// A message the server sent.
#[derive(Debug)]
pub struct Received {
    delivery: Delivery,
    acknowledgement: Option<Acknowledgement>,
}

/// The right to acknowledge one message of QoS 1 or 2, once, on the connection on which it came.
///
/// Acknowledgements leave in the order of the messages [MQTT5-4.6.0-2], whatever the order in
/// which they are given: one that is missing holds back those of later messages, and with
/// Receive Maximum of them the server sends no more.
///
/// **Dropping it acknowledges nothing.** The server keeps the message, and sends it again on the
/// next connection; of QoS 2, only to the next process.
#[derive(Debug)]
#[must_use = "dropping it acknowledges nothing"]
pub struct Acknowledgement {
    due: Option<Due>,
    shared: Arc<Shared>,
}

impl Acknowledgement {
    /// The message is the application's.
    ///
    /// # Errors
    ///
    /// [`AckError::Stale`]: the connection on which it came has ended. A message of QoS 1 comes
    /// again, one of QoS 2 is remembered as acknowledged.
    pub fn acknowledge(self) -> Result<(), AckError> {
        self.answer(ReasonCode::Success)
    }

    /// The message is refused (5.0), with a Reason Code of 0x80 or more: the server does not send
    /// it again. In 3.x there is no way to say so, and it is acknowledged.
    ///
    /// # Errors
    ///
    /// As [`Acknowledgement::acknowledge`], and [`AckError::ReasonCode`].
    pub fn refuse(self, reason_code: ReasonCode) -> Result<(), AckError> {
        self.answer(reason_code)
    }

    fn answer(mut self, reason_code: ReasonCode) -> Result<(), AckError> {
        match self.due.take().and_then(Due::done) {
            Some(owed) => self.shared.acknowledge(owed, reason_code),
            // Another stream has the message too.
            None => Ok(()),
        }
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        if self.due.is_some() {
            warn!("a message was dropped without an acknowledgement");
            self.shared.token_dropped();
        }
    }
}

impl Received {
    /// A delivery that the application takes, and acknowledges itself if there is anyone to tell.
    pub(crate) fn new(mut delivery: Delivery, shared: Option<&Arc<Shared>>) -> Self {
        let due = std::mem::replace(&mut delivery.due, Due::Nothing);
        let acknowledgement = match (due, shared) {
            (Due::Nothing, _) | (_, None) => None,
            (due, Some(shared)) => Some(Acknowledgement {
                due: Some(due),
                shared: Arc::clone(shared),
            }),
        };
        Self {
            delivery,
            acknowledgement,
        }
    }

    /// Acknowledges it, where [`Config::manual_acknowledge`](crate::Config::manual_acknowledge)
    /// leaves that to the application; at QoS 0, and for a second time, it does nothing.
    ///
    /// # Errors
    ///
    /// As [`Acknowledgement::acknowledge`].
    pub fn acknowledge(&mut self) -> Result<(), AckError> {
        self.acknowledgement
            .take()
            .map_or(Ok(()), Acknowledgement::acknowledge)
    }

    /// Refuses it, as [`Acknowledgement::refuse`] does.
    ///
    /// # Errors
    ///
    /// As [`Acknowledgement::refuse`].
    pub fn refuse(&mut self, reason_code: ReasonCode) -> Result<(), AckError> {
        self.acknowledgement
            .take()
            .map_or(Ok(()), |token| token.refuse(reason_code))
    }

    /// The right to acknowledge it, to be used elsewhere; none at QoS 0, if it was taken before, and
    /// where the client acknowledges by itself.
    pub fn take_acknowledgement(&mut self) -> Option<Acknowledgement> {
        self.acknowledgement.take()
    }

    /// The Topic Name it was published to.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        self.delivery.message.topic_name()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.delivery.message.payload()
    }

    /// The payload, copied once into memory that can be shared.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload())
    }

    /// The QoS of this delivery.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.delivery.message.qos()
    }

    /// Whether it was sent because it was retained when the subscription began (or, with Retain As
    /// Published, whether it was published with RETAIN).
    #[must_use]
    pub fn retain(&self) -> bool {
        self.delivery.message.retain()
    }

    /// Whether it may have come before.
    #[must_use]
    pub fn dup(&self) -> bool {
        self.delivery.dup
    }

    /// The Packet Identifier of this delivery; none at QoS 0.
    #[must_use]
    pub fn packet_id(&self) -> Option<PacketId> {
        self.delivery.packet_id
    }

    /// What was left of the Message Expiry Interval when it came, in seconds.
    #[must_use]
    pub fn message_expiry_interval(&self) -> Option<u32> {
        self.delivery.message_expiry_interval
    }

    /// The identifiers of the subscriptions it matched.
    #[must_use]
    pub fn subscription_ids(&self) -> &[SubscriptionId] {
        self.delivery.subscription_ids.as_slice()
    }

    /// The properties its publisher gave it.
    #[must_use]
    pub fn properties(&self) -> MessageProperties<'_> {
        self.delivery.message.properties()
    }

    /// The message itself, for instance to publish it elsewhere. It should be acknowledged before.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.delivery.message
    }
}
