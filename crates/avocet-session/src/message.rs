//! Application Messages as a broker or a client keeps them.

use alloc::vec::Vec;
use avocet_bytes::SharedBytes;
use avocet_codec::{EncodeError, MessageProperties, Publish, QoS, Will};
use avocet_topic::TopicName;
use bytes::{BufMut, Bytes};
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

/// The owned form of an Application Message, shared by every Session that wants it: a clone is the
/// same memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name, properties in their 5.0 wire form, payload, and when it expires if it does.
    shared: SharedBytes<Header>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
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

impl Header {
    fn new(
        topic_len: usize,
        payload_start: usize,
        marks: Marks,
        expires_at: Option<UnixTime>,
    ) -> Self {
        Self {
            payload_start: u32::try_from(payload_start).unwrap_or(u32::MAX),
            // A Topic Name takes at most 65,535 bytes.
            topic_len: u16::try_from(topic_len).unwrap_or(u16::MAX),
            qos: marks.qos,
            flags: marks.flags | expires_at.map_or(0, |_| EXPIRES),
        }
    }
}

impl Message {
    /// What a PUBLISH to `topic_name` carries, copied exactly sized in one allocation. The name is
    /// an argument because the packet may hold only its Topic Alias.
    #[must_use]
    pub fn from_publish(publish: &Publish<'_>, topic_name: TopicName<'_>, now: UnixTime) -> Self {
        let expires_at = expires_at(publish.message_expiry_interval, now);
        let marks = Marks::new(publish.delivery.qos(), publish.retain);
        Self::decoded(
            topic_name,
            &publish.properties,
            publish.payload,
            marks,
            expires_at,
        )
    }

    /// The Will Message of a CONNECT; its Message Expiry Interval runs from `now`, the time of
    /// its publication.
    #[must_use]
    pub fn from_will(will: &Will<'_>, now: UnixTime) -> Self {
        let expires_at = expires_at(will.message_expiry_interval, now);
        let marks = Marks::new(will.qos, will.retain);
        Self::decoded(
            will.topic_name,
            &will.properties,
            will.payload,
            marks,
            expires_at,
        )
    }

    /// A message of QoS 0 without properties, to be changed with the `with_*` methods.
    ///
    /// # Panics
    ///
    /// If it has 4 GiB or more, 16 times what a packet can carry.
    #[must_use]
    pub fn new(topic_name: TopicName<'_>, payload: &[u8]) -> Self {
        let topic = topic_name.as_str().as_bytes();
        Self::joined(topic, &[], payload, Marks::default(), None)
    }

    /// A message of QoS 0, to be changed with the `with_*` methods; an error if a string of the
    /// properties cannot be written.
    ///
    /// # Panics
    ///
    /// If it has 4 GiB or more, 16 times what a packet can carry.
    pub fn with_properties(
        topic_name: TopicName<'_>,
        properties: &MessageProperties<'_>,
        payload: &[u8],
    ) -> Result<Self, EncodeError> {
        let mut wire = Vec::with_capacity(properties.encoded_len());
        properties.encode(&mut wire)?;
        let topic = topic_name.as_str().as_bytes();
        Ok(Self::joined(topic, &wire, payload, Marks::default(), None))
    }

    #[inline]
    fn decoded(
        topic_name: TopicName<'_>,
        properties: &MessageProperties<'_>,
        payload: &[u8],
        marks: Marks,
        expires_at: Option<UnixTime>,
    ) -> Self {
        let topic = topic_name.as_str().as_bytes();
        if properties.is_empty() {
            return Self::joined(topic, &[], payload, marks, expires_at);
        }
        let payload_start = topic.len() + properties.encoded_len();
        let header = Header::new(topic.len(), payload_start, marks, expires_at);
        let len = payload_start + payload.len() + expires_at.map_or(0, |_| EXPIRES_AT_LEN);
        let mut encoded = true;
        let shared = SharedBytes::filled(header, len, |mut bytes| {
            bytes.put_slice(topic);
            encoded = properties.encode(&mut bytes).is_ok();
            if encoded {
                bytes.put_slice(payload);
                if let Some(time) = expires_at {
                    bytes.put_u64_le(time.as_millis());
                }
            }
        });
        if !encoded {
            debug_assert!(false, "properties that were decoded can be encoded");
            return Self::joined(topic, &[], payload, marks, expires_at);
        }
        Self { shared }
    }

    #[inline]
    fn joined(
        topic: &[u8],
        properties: &[u8],
        payload: &[u8],
        marks: Marks,
        expires_at: Option<UnixTime>,
    ) -> Self {
        let payload_start = topic.len() + properties.len();
        let header = Header::new(topic.len(), payload_start, marks, expires_at);
        let shared = match expires_at {
            None if properties.is_empty() => SharedBytes::new(header, [topic, payload]),
            None => SharedBytes::new(header, [topic, properties, payload]),
            Some(time) => {
                let millis = time.as_millis().to_le_bytes();
                SharedBytes::new(header, [topic, properties, payload, &millis])
            }
        };
        Self { shared }
    }

    /// The same message with another QoS.
    #[must_use]
    pub fn with_qos(self, qos: QoS) -> Self {
        let header = *self.shared.header();
        self.with_header(Header { qos, ..header })
    }

    /// The same message with another RETAIN flag.
    #[must_use]
    pub fn with_retain(self, retain: bool) -> Self {
        let header = *self.shared.header();
        let flags = header.flags & !RETAIN | if retain { RETAIN } else { 0 };
        self.with_header(Header { flags, ..header })
    }

    /// Others that share the memory keep what they have.
    fn with_header(mut self, header: Header) -> Self {
        if *self.shared.header() == header {
            return self;
        }
        match self.shared.header_mut() {
            Some(own) => *own = header,
            None => self.shared = SharedBytes::new(header, [self.shared.bytes()]),
        }
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
        let (topic, properties) = (self.topic_bytes(), self.properties_bytes());
        Self::joined(topic, properties, self.payload(), self.marks(), expires_at)
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
        Self::joined(topic, properties, payload, self.marks(), self.expires_at())
    }

    fn marks(&self) -> Marks {
        Marks::new(self.qos(), self.retain())
    }

    /// The Topic Name.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        let text = core::str::from_utf8(self.topic_bytes()).ok();
        let name = text.and_then(|text| TopicName::new(text).ok());
        name.expect("the bytes are set once, from a Topic Name")
    }

    /// The bytes of the Topic Name.
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        let topic_len = self.shared.header().topic_len;
        self.shared
            .bytes()
            .get(..usize::from(topic_len))
            .unwrap_or_default()
    }

    /// The properties that travel unaltered from publisher to subscriber.
    #[must_use]
    pub fn properties(&self) -> MessageProperties<'_> {
        let properties = MessageProperties::from_wire(self.properties_bytes());
        properties.expect("the bytes are set once, from what was decoded or encoded")
    }

    /// The bytes of [`Message::properties`] in their 5.0 wire form.
    #[must_use]
    pub fn properties_bytes(&self) -> &[u8] {
        let topic_len = self.shared.header().topic_len;
        self.shared
            .bytes()
            .get(usize::from(topic_len)..self.payload_at())
            .unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let payload = self.payload_at()..self.len();
        self.shared.bytes().get(payload).unwrap_or_default()
    }

    /// The payload, sharing this message's memory.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        Bytes::from_owner(Payload(self.clone()))
    }

    /// The QoS with which it was published.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.shared.header().qos
    }

    /// The RETAIN flag with which it was published.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.shared.header().flags & RETAIN != 0
    }

    /// When its Message Expiry Interval ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        if self.shared.header().flags & EXPIRES == 0 {
            return None;
        }
        let millis = self.shared.bytes().last_chunk().copied();
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
        let behind = if self.shared.header().flags & EXPIRES == 0 {
            0
        } else {
            EXPIRES_AT_LEN
        };
        self.shared.len() - behind
    }

    /// Always false, as a Topic Name has at least one character.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty()
    }

    fn payload_at(&self) -> usize {
        self.shared.header().payload_start as usize
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic_name", &self.topic_name().as_str())
            .field("payload_len", &self.payload().len())
            .field("qos", &self.qos())
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

/// QoS and flags with which a message was published.
#[derive(Clone, Copy)]
struct Marks {
    qos: QoS,
    flags: u8,
}

impl Marks {
    fn new(qos: QoS, retain: bool) -> Self {
        let flags = if retain { RETAIN } else { 0 };
        Self { qos, flags }
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new(QoS::AtMostOnce, false)
    }
}

/// Keeps a message as long as its payload is on its way.
struct Payload(Message);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

#[cfg(test)]
mod tests;
