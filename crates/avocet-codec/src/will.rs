use avocet_topic::TopicName;

use crate::error::{DecodeError, Field};
use crate::message_properties::{Forwardable, MessageProperties};
use crate::property::{Properties, Property};
use crate::qos::QoS;
use crate::reader::Reader;
use crate::sink::{Section, Sink};
use crate::version::Version;

/// The message that the server publishes for a client whose connection ended without a DISCONNECT
/// that says otherwise [MQTT5-3.1.2-7] [MQTT311-3.1.2-8].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Will<'a> {
    /// Will Topic.
    pub topic_name: TopicName<'a>,
    /// Will Payload, up to 65,535 bytes.
    pub payload: &'a [u8],
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval, in seconds, left out in 3.x.
    pub will_delay_interval: u32,
    /// Message Expiry Interval, in seconds, left out in 3.x.
    pub message_expiry_interval: Option<u32>,
    /// The properties that belong to the message, left out in 3.x.
    pub properties: MessageProperties<'a>,
}

impl<'a> Will<'a> {
    /// A will without delay, flags and properties.
    pub const fn new(topic_name: TopicName<'a>, payload: &'a [u8]) -> Self {
        Self {
            topic_name,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            will_delay_interval: 0,
            message_expiry_interval: None,
            properties: MessageProperties::EMPTY,
        }
    }

    #[inline(always)]
    pub(crate) fn decode<const PROPERTIES: bool>(
        body: &mut Reader<'a>,
        qos: QoS,
        retain: bool,
    ) -> Result<Self, DecodeError> {
        let section = if PROPERTIES { body.properties()? } else { &[] };
        let properties = WillProperties::decode(section)?;
        Ok(Self {
            topic_name: body.topic_name(Field::WillTopic)?,
            payload: body.binary(Field::WillPayload)?,
            qos,
            retain,
            will_delay_interval: properties.will_delay_interval,
            message_expiry_interval: properties.message_expiry_interval,
            properties: MessageProperties::from_section(section, properties.forwardable),
        })
    }

    #[inline(always)]
    pub(crate) fn write(&self, version: Version, sink: &mut impl Sink) {
        if version.has_properties() {
            sink.section(self);
        }
        sink.text(self.topic_name.as_str());
        sink.binary(Field::WillPayload, self.payload);
    }
}

/// What the properties of a will say.
#[derive(Default)]
struct WillProperties {
    will_delay_interval: u32,
    message_expiry_interval: Option<u32>,
    forwardable: Forwardable,
}

impl WillProperties {
    // Always inlined, so that it stays in registers.
    #[inline(always)]
    fn decode(section: &[u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self::default();
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            if decoded.forwardable.count(&property, properties.last_len()) {
                continue;
            }
            if let Property::WillDelayInterval(value) = property {
                decoded.will_delay_interval = value;
            } else if let Property::MessageExpiryInterval(value) = property {
                decoded.message_expiry_interval = Some(value);
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(decoded)
    }
}

impl Section for Will<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        self.will_delay_interval == 0
            && self.message_expiry_interval.is_none()
            && self.properties.is_plainly_empty()
    }

    #[inline(always)]
    fn write_properties(&self, sink: &mut impl Sink) {
        if self.will_delay_interval != 0 {
            sink.property(Property::WillDelayInterval(self.will_delay_interval));
        }
        if let Some(value) = self.message_expiry_interval {
            sink.property(Property::MessageExpiryInterval(value));
        }
        self.properties.write(sink);
    }
}
