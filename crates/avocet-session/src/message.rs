//! Application Messages as a broker or a client keeps them.

use alloc::vec::Vec;
use avocet_codec::{EncodeError, MessageProperties, Publish, QoS, Will};
use avocet_topic::TopicName;
use bytes::Bytes;
use core::fmt;
use core::time::Duration;

use crate::UnixTime;

/// How long a message may still wait for its first transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It has no Message Expiry Interval.
    Never,
    /// What to write as Message Expiry Interval [MQTT5-3.3.2-6].
    Seconds(u32),
    /// Its time has passed: it is not sent any more [MQTT5-3.3.2-5].
    Expired,
}

/// The owned form of an Application Message, shared by every Session that wants it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name, properties in their 5.0 wire form, payload: one allocation.
    bytes: Bytes,
    /// Where the payload begins.
    payload_start: u32,
    topic_len: u16,
    qos: QoS,
    retain: bool,
    /// Milliseconds since 1970; [`NEVER`] without a Message Expiry Interval.
    expires_at: u64,
}

const NEVER: u64 = u64::MAX;

impl Message {
    /// What a PUBLISH to `topic_name` carries, copied exactly sized in one allocation. The name is
    /// an argument because the packet may hold only its Topic Alias.
    #[must_use]
    pub fn from_publish(publish: &Publish<'_>, topic_name: TopicName<'_>, now: UnixTime) -> Self {
        let mut message = Self::decoded(topic_name, &publish.properties, publish.payload);
        message.qos = publish.delivery.qos();
        message.retain = publish.retain;
        message.expires_after(publish.message_expiry_interval, now);
        message
    }

    /// The Will Message of a CONNECT; its Message Expiry Interval runs from `now`, the time of
    /// its publication.
    #[must_use]
    pub fn from_will(will: &Will<'_>, now: UnixTime) -> Self {
        let mut message = Self::decoded(will.topic_name, &will.properties, will.payload);
        message.qos = will.qos;
        message.retain = will.retain;
        message.expires_after(will.message_expiry_interval, now);
        message
    }

    /// A message of QoS 0 without properties, to be changed with the `with_*` methods.
    #[must_use]
    pub fn new(topic_name: TopicName<'_>, payload: &[u8]) -> Self {
        Self::build(topic_name, &[], payload)
    }

    /// A message of QoS 0, to be changed with the `with_*` methods; an error if a string of the
    /// properties cannot be written.
    pub fn with_properties(
        topic_name: TopicName<'_>,
        properties: &MessageProperties<'_>,
        payload: &[u8],
    ) -> Result<Self, EncodeError> {
        let mut wire = Vec::with_capacity(properties.encoded_len());
        properties.encode(&mut wire)?;
        Ok(Self::build(topic_name, &wire, payload))
    }

    fn decoded(
        topic_name: TopicName<'_>,
        properties: &MessageProperties<'_>,
        payload: &[u8],
    ) -> Self {
        if properties.is_empty() {
            return Self::build(topic_name, &[], payload);
        }
        let topic = topic_name.as_str().as_bytes();
        let payload_start = topic.len() + properties.encoded_len();
        let mut bytes = Vec::with_capacity(payload_start + payload.len());
        bytes.extend_from_slice(topic);
        if properties.encode(&mut bytes).is_err() {
            debug_assert!(false, "properties that were decoded can be encoded");
            bytes.truncate(topic.len());
        }
        let payload_start = bytes.len();
        bytes.extend_from_slice(payload);
        Self::from_parts(bytes, topic.len(), payload_start)
    }

    fn build(topic_name: TopicName<'_>, properties: &[u8], payload: &[u8]) -> Self {
        let topic = topic_name.as_str().as_bytes();
        let payload_start = topic.len() + properties.len();
        let mut bytes = Vec::with_capacity(payload_start + payload.len());
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(payload);
        Self::from_parts(bytes, topic.len(), payload_start)
    }

    fn from_parts(bytes: Vec<u8>, topic_len: usize, payload_start: usize) -> Self {
        Self {
            bytes: Bytes::from(bytes),
            payload_start: u32::try_from(payload_start).unwrap_or(u32::MAX),
            // A Topic Name takes at most 65,535 bytes.
            topic_len: u16::try_from(topic_len).unwrap_or(u16::MAX),
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: NEVER,
        }
    }

    fn expires_after(&mut self, interval: Option<u32>, now: UnixTime) {
        // An interval of 0 lasts for the instant of its arrival, in which delivery can begin.
        self.expires_at = interval.map_or(NEVER, |seconds| {
            let lifetime = Duration::from_secs(seconds.into()).max(Duration::from_millis(1));
            (now + lifetime).as_millis()
        });
    }

    /// The same message with another QoS.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The same message with another RETAIN flag.
    #[must_use]
    pub fn with_retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// The same message with a Message Expiry Interval of this many seconds from `now`, or none.
    #[must_use]
    pub fn with_expiry(mut self, interval: Option<u32>, now: UnixTime) -> Self {
        self.expires_after(interval, now);
        self
    }

    /// The same message with this deadline, or none: for state that was stored.
    #[must_use]
    pub fn with_expires_at(mut self, expires_at: Option<UnixTime>) -> Self {
        self.expires_at = expires_at.map_or(NEVER, UnixTime::as_millis);
        self
    }

    /// The Topic Name.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        let text = core::str::from_utf8(self.topic_bytes()).ok();
        let name = text.and_then(|text| TopicName::new(text).ok());
        name.expect("only `build` sets the bytes, from a Topic Name")
    }

    /// The bytes of the Topic Name.
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.topic_len))
            .unwrap_or_default()
    }

    /// The properties that travel unaltered from publisher to subscriber.
    #[must_use]
    pub fn properties(&self) -> MessageProperties<'_> {
        let properties = MessageProperties::from_wire(self.properties_bytes());
        properties.expect("only `build` sets the bytes, from valid properties")
    }

    /// The bytes of [`Message::properties`] in their 5.0 wire form.
    #[must_use]
    pub fn properties_bytes(&self) -> &[u8] {
        self.bytes
            .get(usize::from(self.topic_len)..self.payload_at())
            .unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload_at()..).unwrap_or_default()
    }

    /// The payload, sharing this message's memory.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice(self.payload_at()..)
    }

    /// The QoS with which it was published.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// The RETAIN flag with which it was published.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.retain
    }

    /// When its Message Expiry Interval ends.
    #[must_use]
    pub const fn expires_at(&self) -> Option<UnixTime> {
        if self.expires_at == NEVER {
            None
        } else {
            Some(UnixTime::from_millis(self.expires_at))
        }
    }

    /// How much of its Message Expiry Interval is left, in seconds begun; of the last millisecond
    /// nothing, so that an interval of 0 stays one [MQTT5-3.3.2-6].
    #[must_use]
    pub fn remaining_expiry(&self, now: UnixTime) -> Expiry {
        if self.expires_at == NEVER {
            return Expiry::Never;
        }
        match self.expires_at.saturating_sub(now.as_millis()) {
            0 => Expiry::Expired,
            millis => {
                let seconds = (millis - 1).div_ceil(1000);
                Expiry::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX))
            }
        }
    }

    /// Bytes of topic, properties and payload: what it counts in a queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Always false, as a Topic Name has at least one character.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn payload_at(&self) -> usize {
        self.payload_start as usize
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic_name", &self.topic_name().as_str())
            .field("payload_len", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
