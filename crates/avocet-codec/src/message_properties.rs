use core::fmt;

use avocet_topic::TopicName;
use bytes::BufMut;

use crate::error::{DecodeError, EncodeError};
use crate::list::List;
use crate::property::{Properties, Property, UserProperty, find_property, user_properties};
use crate::sink::{Measure, Sink, Writer};

/// The Payload Format Indicator: what the payload is said to be [MQTT5-3.3.2.3.2].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum PayloadFormat {
    /// Unspecified bytes, which is also what a message without the indicator has.
    #[default]
    UnspecifiedBytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
}

impl PayloadFormat {
    /// The format of a number, none for 2 and above.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::UnspecifiedBytes),
            1 => Some(Self::Utf8),
            _ => None,
        }
    }
}

/// The properties of a message that travel unaltered from publisher to subscriber, in order
/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-20].
///
/// Either the bytes of a decoded packet, from which they are forwarded without being looked at
/// again, or the values an application gave.
#[derive(Clone, Copy)]
pub struct MessageProperties<'a> {
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Parts {
        parts: MessagePropertiesParts<'a>,
        /// How many bytes they take encoded; what does not fit is too large anyway.
        len: u32,
    },
    Wire {
        /// All properties of the packet; those that concern one Network Connection are skipped.
        section: &'a [u8],
        /// How many bytes of the section are properties of the message.
        len: usize,
    },
}

/// The values of [`MessageProperties`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePropertiesParts<'a> {
    /// Payload Format Indicator.
    pub payload_format: Option<PayloadFormat>,
    /// Content Type, often a MIME type; up to 65,535 bytes.
    pub content_type: Option<&'a str>,
    /// Response Topic: where an answer is expected.
    pub response_topic: Option<TopicName<'a>>,
    /// Correlation Data: what the answer carries to be recognised; up to 65,535 bytes.
    pub correlation_data: Option<&'a [u8]>,
    /// User Properties, in order.
    pub user_properties: &'a [UserProperty<'a>],
}

impl<'a> MessageProperties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self::from_encoded(&[]);

    /// The values of an application; whether they fit is known when they are encoded.
    pub const fn new(parts: MessagePropertiesParts<'a>) -> Self {
        Self {
            source: Source::Parts {
                len: parts.encoded_len(),
                parts,
            },
        }
    }

    /// Checks a section of properties in their 5.0 form, without its length. It may hold all that
    /// a PUBLISH or a will may; what is not the message's own is skipped.
    pub fn from_wire(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut forwardable = Forwardable::default();
        let mut properties = Properties::of_publish(section);
        while let Some(property) = properties.next()? {
            let hop_by_hop = matches!(
                property,
                Property::TopicAlias(_)
                    | Property::MessageExpiryInterval(_)
                    | Property::SubscriptionIdentifier(_)
                    | Property::WillDelayInterval(_)
            );
            if !forwardable.count(&property, properties.last_len()) && !hop_by_hop {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(Self::from_section(section, forwardable))
    }

    /// Takes the bytes that [`encode`](Self::encode) wrote, without checking them again.
    ///
    /// Other bytes do no harm to memory, but the properties and the packets made of them are
    /// wrong.
    #[inline]
    pub const fn from_encoded(bytes: &'a [u8]) -> Self {
        Self {
            source: Source::Wire {
                section: bytes,
                len: bytes.len(),
            },
        }
    }

    #[inline]
    pub(crate) const fn from_section(section: &'a [u8], forwardable: Forwardable) -> Self {
        Self {
            source: Source::Wire {
                section,
                len: forwardable.len,
            },
        }
    }

    /// Payload Format Indicator.
    pub fn payload_format(&self) -> Option<PayloadFormat> {
        match self.source {
            Source::Parts { parts, .. } => parts.payload_format,
            Source::Wire { section, .. } => find_property(section, |property| {
                if let Property::PayloadFormatIndicator(value) = property {
                    Some(value)
                } else {
                    None
                }
            }),
        }
    }

    /// Content Type.
    pub fn content_type(&self) -> Option<&'a str> {
        match self.source {
            Source::Parts { parts, .. } => parts.content_type,
            Source::Wire { section, .. } => find_property(section, |property| {
                if let Property::ContentType(value) = property {
                    Some(value)
                } else {
                    None
                }
            }),
        }
    }

    /// Response Topic.
    pub fn response_topic(&self) -> Option<TopicName<'a>> {
        match self.source {
            Source::Parts { parts, .. } => parts.response_topic,
            Source::Wire { section, .. } => find_property(section, |property| {
                if let Property::ResponseTopic(value) = property {
                    Some(value)
                } else {
                    None
                }
            }),
        }
    }

    /// Correlation Data.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        match self.source {
            Source::Parts { parts, .. } => parts.correlation_data,
            Source::Wire { section, .. } => find_property(section, |property| {
                if let Property::CorrelationData(value) = property {
                    Some(value)
                } else {
                    None
                }
            }),
        }
    }

    /// User Properties, in order.
    #[inline]
    pub fn user_properties(&self) -> List<'a, UserProperty<'a>> {
        match self.source {
            Source::Parts { parts, .. } => List::from_slice(parts.user_properties),
            Source::Wire { section, .. } => user_properties(section),
        }
    }

    /// True when there is none of them in a packet that was decoded; false says nothing.
    #[inline]
    pub(crate) const fn is_plainly_empty(&self) -> bool {
        matches!(self.source, Source::Wire { len: 0, .. })
    }

    /// True when there is none of them.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.encoded_len() == 0
    }

    /// How many bytes [`encode`](Self::encode) writes.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        match &self.source {
            Source::Parts { len, .. } => *len as usize,
            Source::Wire { len, .. } => *len,
        }
    }

    /// Writes the properties in their 5.0 form, without a length in front; on an error, nothing.
    pub fn encode(&self, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let mut measure = Measure::<true>::default();
        self.write(&mut measure);
        measure.finish()?;
        if out.remaining_mut() < measure.len() {
            return Err(EncodeError::OutputFull);
        }
        self.write(&mut Writer::new(measure, out));
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn write(&self, sink: &mut impl Sink) {
        if sink.take_len(self.encoded_len()) {
            return;
        }
        match &self.source {
            Source::Wire { len: 0, .. } => {}
            Source::Wire { section, len } if *len == section.len() => sink.put(section),
            Source::Wire { section, .. } => write_forwardable(section, sink),
            Source::Parts { parts, .. } => write_parts(parts, sink),
        }
    }
}

impl MessagePropertiesParts<'_> {
    /// How many bytes the properties take, identifiers included.
    const fn encoded_len(&self) -> u32 {
        // An identifier, and the length of what follows.
        const STRING: usize = 3;
        let mut len = 0;
        if self.payload_format.is_some() {
            len += 2;
        }
        if let Some(value) = self.content_type {
            len += STRING + value.len();
        }
        if let Some(value) = self.response_topic {
            len += STRING + value.as_str().len();
        }
        if let Some(value) = self.correlation_data {
            len += STRING + value.len();
        }
        let mut rest = self.user_properties;
        while let [UserProperty { name, value }, behind @ ..] = rest {
            len = len.saturating_add(STRING + name.len() + 2 + value.len());
            rest = behind;
        }
        if len > u32::MAX as usize {
            return u32::MAX;
        }
        len as u32
    }
}

#[inline(always)]
fn write_parts(parts: &MessagePropertiesParts<'_>, sink: &mut impl Sink) {
    if let Some(value) = parts.payload_format {
        sink.property(Property::PayloadFormatIndicator(value));
    }
    if let Some(value) = parts.content_type {
        sink.property(Property::ContentType(value));
    }
    if let Some(value) = parts.response_topic {
        sink.property(Property::ResponseTopic(value));
    }
    if let Some(value) = parts.correlation_data {
        sink.property(Property::CorrelationData(value));
    }
    for user_property in parts.user_properties {
        sink.property(Property::UserProperty(*user_property));
    }
}

#[inline(always)]
fn write_forwardable(section: &[u8], sink: &mut impl Sink) {
    let mut properties = Properties::of_publish(section);
    let mut rest = section;
    while let Ok(Some(property)) = properties.next() {
        let (bytes, behind) = rest
            .split_at_checked(properties.last_len())
            .unwrap_or_default();
        if Forwardable::default().count(&property, bytes.len()) {
            sink.put(bytes);
        }
        rest = behind;
    }
}

/// Counts the bytes of a section that are the message's own.
#[derive(Clone, Copy, Default)]
pub(crate) struct Forwardable {
    len: usize,
}

impl Forwardable {
    /// Whether the property, which took `len` bytes, is one of the message's.
    #[inline]
    pub(crate) const fn count(&mut self, property: &Property<'_>, len: usize) -> bool {
        let forwardable = matches!(
            property,
            Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_)
        );
        if forwardable {
            self.len += len;
        }
        forwardable
    }
}

impl Default for MessageProperties<'_> {
    #[inline]
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a> From<MessagePropertiesParts<'a>> for MessageProperties<'a> {
    fn from(parts: MessagePropertiesParts<'a>) -> Self {
        Self::new(parts)
    }
}

/// Properties are equal when their values are, wherever these come from.
impl<'b> PartialEq<MessageProperties<'b>> for MessageProperties<'_> {
    fn eq(&self, other: &MessageProperties<'b>) -> bool {
        self.payload_format() == other.payload_format()
            && self.content_type() == other.content_type()
            && self.response_topic().map(TopicName::as_str)
                == other.response_topic().map(TopicName::as_str)
            && self.correlation_data() == other.correlation_data()
            && self
                .user_properties()
                .iter()
                .eq(other.user_properties().iter())
    }
}

impl Eq for MessageProperties<'_> {}

impl fmt::Debug for MessageProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageProperties")
            .field("payload_format", &self.payload_format())
            .field("content_type", &self.content_type())
            .field("response_topic", &self.response_topic())
            .field("correlation_data", &self.correlation_data())
            .field("user_properties", &self.user_properties())
            .finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for MessageProperties<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut properties = serializer.serialize_struct("MessageProperties", 5)?;
        properties.serialize_field("payload_format", &self.payload_format())?;
        properties.serialize_field("content_type", &self.content_type())?;
        properties.serialize_field("response_topic", &self.response_topic())?;
        properties.serialize_field("correlation_data", &self.correlation_data())?;
        properties.serialize_field("user_properties", &self.user_properties())?;
        properties.end()
    }
}
