//! Application Messages as a broker or a client keeps them.

use alloc::boxed::Box;
use alloc::sync::Arc;
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
    /// Topic Name, properties in their 5.0 wire form, payload, and when it expires if it does:
    /// one allocation.
    bytes: Box<[u8]>,
    /// Where the payload begins.
    payload_start: u32,
    topic_len: u16,
    qos: QoS,
    flags: u8,
}

const RETAIN: u8 = 1;

/// Milliseconds since 1970 follow the payload. Few messages expire, and many are kept.
const EXPIRES: u8 = 2;

const EXPIRES_AT_LEN: usize = size_of::<u64>();

impl Message {
    /// What a PUBLISH to `topic_name` carries, copied exactly sized in one allocation. The name is
    /// an argument because the packet may hold only its Topic Alias.
    #[must_use]
    pub fn from_publish(publish: &Publish<'_>, topic_name: TopicName<'_>, now: UnixTime) -> Self {
        let expires_at = expires_at(publish.message_expiry_interval, now);
        Self::decoded(topic_name, &publish.properties, publish.payload, expires_at)
            .with_qos(publish.delivery.qos())
            .with_retain(publish.retain)
    }

    /// The Will Message of a CONNECT; its Message Expiry Interval runs from `now`, the time of
    /// its publication.
    #[must_use]
    pub fn from_will(will: &Will<'_>, now: UnixTime) -> Self {
        let expires_at = expires_at(will.message_expiry_interval, now);
        Self::decoded(will.topic_name, &will.properties, will.payload, expires_at)
            .with_qos(will.qos)
            .with_retain(will.retain)
    }

    /// A message of QoS 0 without properties, to be changed with the `with_*` methods.
    #[must_use]
    pub fn new(topic_name: TopicName<'_>, payload: &[u8]) -> Self {
        Self::build(topic_name, &[], payload, None)
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
        Ok(Self::build(topic_name, &wire, payload, None))
    }

    #[inline]
    fn decoded(
        topic_name: TopicName<'_>,
        properties: &MessageProperties<'_>,
        payload: &[u8],
        expires_at: Option<UnixTime>,
    ) -> Self {
        if properties.is_empty() {
            return Self::build(topic_name, &[], payload, expires_at);
        }
        let topic = topic_name.as_str().as_bytes();
        let payload_start = topic.len() + properties.encoded_len();
        let mut bytes = Vec::with_capacity(payload_start + room(payload, expires_at));
        bytes.extend_from_slice(topic);
        if properties.encode(&mut bytes).is_err() {
            debug_assert!(false, "properties that were decoded can be encoded");
            bytes.truncate(topic.len());
        }
        let payload_start = bytes.len();
        bytes.extend_from_slice(payload);
        Self::from_parts(bytes, topic.len(), payload_start, expires_at)
    }

    fn build(
        topic_name: TopicName<'_>,
        properties: &[u8],
        payload: &[u8],
        expires_at: Option<UnixTime>,
    ) -> Self {
        let topic = topic_name.as_str().as_bytes();
        Self::joined(topic, properties, payload, expires_at)
    }

    #[inline]
    fn joined(
        topic: &[u8],
        properties: &[u8],
        payload: &[u8],
        expires_at: Option<UnixTime>,
    ) -> Self {
        let payload_start = topic.len() + properties.len();
        let mut bytes = Vec::with_capacity(payload_start + room(payload, expires_at));
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(payload);
        Self::from_parts(bytes, topic.len(), payload_start, expires_at)
    }

    #[inline]
    fn from_parts(
        mut bytes: Vec<u8>,
        topic_len: usize,
        payload_start: usize,
        expires_at: Option<UnixTime>,
    ) -> Self {
        if let Some(time) = expires_at {
            bytes.extend_from_slice(&time.as_millis().to_le_bytes());
        }
        Self {
            bytes: bytes.into_boxed_slice(),
            payload_start: u32::try_from(payload_start).unwrap_or(u32::MAX),
            // A Topic Name takes at most 65,535 bytes.
            topic_len: u16::try_from(topic_len).unwrap_or(u16::MAX),
            qos: QoS::AtMostOnce,
            flags: expires_at.map_or(0, |_| EXPIRES),
        }
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
        self.flags = self.flags & !RETAIN | if retain { RETAIN } else { 0 };
        self
    }

    /// The same message with a Message Expiry Interval of this many seconds from `now`, or none.
    #[must_use]
    pub fn with_expiry(self, interval: Option<u32>, now: UnixTime) -> Self {
        self.with_expires_at(expires_at(interval, now))
    }

    /// The same message with this deadline, or none: for state that was stored.
    #[must_use]
    pub fn with_expires_at(self, expires_at: Option<UnixTime>) -> Self {
        if expires_at == self.expires_at() {
            return self;
        }
        let len = self.len();
        let mut bytes = self.bytes.into_vec();
        bytes.truncate(len);
        bytes.reserve_exact(room(&[], expires_at));
        let (topic_len, payload_start) = (self.topic_len.into(), self.payload_start as usize);
        let message = Self::from_parts(bytes, topic_len, payload_start, expires_at);
        message
            .with_qos(self.qos)
            .with_retain(self.flags & RETAIN != 0)
    }

    /// The same message with another payload.
    #[must_use]
    pub fn with_payload(&self, payload: &[u8]) -> Self {
        self.rebuilt(self.topic_bytes(), self.properties_bytes(), payload)
    }

    /// The same message to another topic.
    #[must_use]
    pub fn with_topic_name(&self, topic_name: TopicName<'_>) -> Self {
        let topic = topic_name.as_str().as_bytes();
        self.rebuilt(topic, self.properties_bytes(), self.payload())
    }

    /// The same message with other properties; an error if a string of them cannot be written.
    pub fn with_other_properties(
        &self,
        properties: &MessageProperties<'_>,
    ) -> Result<Self, EncodeError> {
        let mut wire = Vec::with_capacity(properties.encoded_len());
        properties.encode(&mut wire)?;
        Ok(self.rebuilt(self.topic_bytes(), &wire, self.payload()))
    }

    fn rebuilt(&self, topic: &[u8], properties: &[u8], payload: &[u8]) -> Self {
        Self::joined(topic, properties, payload, self.expires_at())
            .with_qos(self.qos)
            .with_retain(self.retain())
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
        let payload = self.payload_at()..self.len();
        self.bytes.get(payload).unwrap_or_default()
    }

    /// The payload, sharing this message's memory.
    #[must_use]
    pub fn payload_bytes(self: &Arc<Self>) -> Bytes {
        Bytes::from_owner(Payload(Arc::clone(self)))
    }

    /// The QoS with which it was published.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// The RETAIN flag with which it was published.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.flags & RETAIN != 0
    }

    /// When its Message Expiry Interval ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        if self.flags & EXPIRES == 0 {
            return None;
        }
        let millis = self.bytes.last_chunk().copied();
        millis.map(|millis| UnixTime::from_millis(u64::from_le_bytes(millis)))
    }

    /// How much of its Message Expiry Interval is left, in seconds begun; of the last millisecond
    /// nothing, so that an interval of 0 stays one [MQTT5-3.3.2-6].
    #[must_use]
    pub fn remaining_expiry(&self, now: UnixTime) -> Expiry {
        let Some(expires_at) = self.expires_at() else {
            return Expiry::Never;
        };
        match expires_at.as_millis().saturating_sub(now.as_millis()) {
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
        let behind = if self.flags & EXPIRES == 0 {
            0
        } else {
            EXPIRES_AT_LEN
        };
        self.bytes.len() - behind
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
            .field("retain", &self.retain())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// When a message with this Message Expiry Interval expires.
fn expires_at(interval: Option<u32>, now: UnixTime) -> Option<UnixTime> {
    // An interval of 0 lasts for the instant of its arrival, in which delivery can begin.
    interval.map(|seconds| now + Duration::from_secs(seconds.into()).max(Duration::from_millis(1)))
}

/// Bytes that a payload and what follows it take.
const fn room(payload: &[u8], expires_at: Option<UnixTime>) -> usize {
    match expires_at {
        None => payload.len(),
        Some(_) => payload.len() + EXPIRES_AT_LEN,
    }
}

/// Keeps a message as long as its payload is on its way.
struct Payload(Arc<Message>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

#[cfg(test)]
mod tests;
