use avocet_topic::TopicFilter;

use crate::error::{DecodeError, EncodeError, Field};
use crate::list::{List, ListItem};
use crate::packet::PacketType;
use crate::packet_id::PacketId;
use crate::property::{Properties, Property, UserProperty, user_properties, write_user_properties};
use crate::qos::QoS;
use crate::reader::Reader;
use crate::sink::{Encode, Section, Sink, encode_methods};
use crate::subscription_id::SubscriptionId;
use crate::version::Version;

/// The client subscribes [MQTT5-3.8].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Subscribe<'a> {
    /// True when this is sent for the second time; 3.1 only, left out in the others.
    pub dup: bool,
    /// The Packet Identifier that the SUBACK will carry.
    pub packet_id: PacketId,
    /// Subscription Identifier, left out in 3.x.
    pub subscription_id: Option<SubscriptionId>,
    /// User Properties, left out in 3.x.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// What to subscribe to; at least one [MQTT5-3.8.3-2] [MQTT311-3.8.3-3].
    pub filters: List<'a, SubscribeFilter<'a>>,
}

/// A Topic Filter with its Subscription Options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SubscribeFilter<'a> {
    /// The Topic Filter.
    pub topic_filter: TopicFilter<'a>,
    /// The Subscription Options.
    pub options: SubscriptionOptions,
}

/// How the server is to treat a subscription [MQTT5-3.8.3.1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SubscriptionOptions {
    /// The highest QoS at which the server may send messages.
    pub maximum_qos: QoS,
    /// True when messages of this client are not to come back; left out in 3.x.
    pub no_local: bool,
    /// True when messages are to keep the RETAIN flag they were published with; left out in 3.x.
    pub retain_as_published: bool,
    /// Whether retained messages are sent; left out in 3.x.
    pub retain_handling: RetainHandling,
}

/// Whether the retained messages are sent when a subscription is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum RetainHandling {
    /// Whenever the client subscribes.
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED: u8 = 0b1100_0000;

impl SubscriptionOptions {
    /// The default options with this QoS.
    pub const fn new(maximum_qos: QoS) -> Self {
        Self {
            maximum_qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// Reads the byte behind a Topic Filter [MQTT5-3.8.3-5] [MQTT311-3.8.3-4].
    #[inline(always)]
    pub fn from_u8(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let Some(maximum_qos) = QoS::from_u8(byte & 0b11) else {
            return Err(DecodeError::MaximumQoS3);
        };
        let mut options = Self::new(maximum_qos);
        match version {
            // 3.1 gives the other bits no meaning.
            Version::V3_1 => {}
            Version::V3_1_1 => {
                if byte & !0b11 != 0 {
                    return Err(DecodeError::SubscriptionOptions);
                }
            }
            Version::V5 => {
                if byte & RESERVED != 0 {
                    return Err(DecodeError::SubscriptionOptions);
                }
                options.no_local = byte & NO_LOCAL != 0;
                options.retain_as_published = byte & RETAIN_AS_PUBLISHED != 0;
                options.retain_handling = match byte >> RETAIN_HANDLING_SHIFT {
                    0 => RetainHandling::SendAtSubscribe,
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    _ => return Err(DecodeError::RetainHandling),
                };
            }
        }
        Ok(options)
    }

    /// The byte behind a Topic Filter.
    #[inline]
    pub const fn to_u8(self, version: Version) -> u8 {
        let mut byte = self.maximum_qos as u8;
        if version.has_properties() {
            if self.no_local {
                byte |= NO_LOCAL;
            }
            if self.retain_as_published {
                byte |= RETAIN_AS_PUBLISHED;
            }
            byte |= (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        }
        byte
    }
}

impl<'a> SubscribeFilter<'a> {
    /// A Topic Filter with the default options and this QoS.
    pub const fn new(topic_filter: TopicFilter<'a>, maximum_qos: QoS) -> Self {
        Self {
            topic_filter,
            options: SubscriptionOptions::new(maximum_qos),
        }
    }

    #[inline(always)]
    fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let filter = Self {
            topic_filter: body.topic_filter()?,
            options: SubscriptionOptions::from_u8(body.u8(Field::SubscriptionOptions)?, version)?,
        };
        if filter.is_shared_no_local() {
            return Err(DecodeError::NoLocalOnSharedSubscription);
        }
        Ok(filter)
    }

    /// [MQTT5-3.8.3-4]
    #[inline]
    fn is_shared_no_local(&self) -> bool {
        self.options.no_local && self.topic_filter.as_str().starts_with("$share/")
    }
}

impl<'a> ListItem<'a> for SubscribeFilter<'a> {
    #[inline]
    fn read(section: &mut &'a [u8], version: Version) -> Option<Self> {
        let mut reader = Reader::new(section);
        let filter = Self::decode(&mut reader, version).ok();
        *section = reader.rest();
        filter
    }
}

impl<'a> Subscribe<'a> {
    /// A request without properties.
    pub const fn new(packet_id: PacketId, filters: &'a [SubscribeFilter<'a>]) -> Self {
        Self {
            dup: false,
            packet_id,
            subscription_id: None,
            user_properties: List::EMPTY,
            filters: List::from_slice(filters),
        }
    }

    pub(crate) fn decode_body(
        flags: u8,
        mut body: Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut subscribe = Self {
            dup: flags & 0b1000 != 0,
            ..Self::new(body.packet_id()?, &[])
        };
        if version.has_properties() {
            subscribe.decode_properties(body.properties()?)?;
        }
        if body.is_empty() {
            return Err(DecodeError::NoTopicFilters);
        }
        subscribe.filters = List::from_wire(body.rest(), version);
        while !body.is_empty() {
            SubscribeFilter::decode(&mut body, version)?;
        }
        Ok(subscribe)
    }

    fn decode_properties(&mut self, section: &'a [u8]) -> Result<(), DecodeError> {
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            if let Property::SubscriptionIdentifier(value) = property {
                self.subscription_id = Some(value);
            } else if let Property::UserProperty(_) = property {
                self.user_properties = user_properties(section);
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(())
    }
}

impl Encode for Subscribe<'_> {
    fn first_byte(&self, version: Version) -> u8 {
        let dup = self.dup && version == Version::V3_1;
        (PacketType::Subscribe as u8) << 4 | u8::from(dup) << 3 | 0b0010
    }

    #[inline(always)]
    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            sink.section(self);
        }
        let has_filters = !self.filters.is_plainly_empty();
        sink.require(has_filters, EncodeError::NoTopicFilters);
        // A loop for each, so that what matters in 5.0 alone is asked there alone.
        if version.has_properties() {
            self.filters.each(|filter| {
                let well = !filter.is_shared_no_local();
                sink.require(well, EncodeError::NoLocalOnSharedSubscription);
                filter.write(Version::V5, sink);
            });
        } else {
            self.filters
                .each(|filter| filter.write(Version::V3_1_1, sink));
        }
    }
}

impl SubscribeFilter<'_> {
    #[inline(always)]
    fn write(&self, version: Version, sink: &mut impl Sink) {
        sink.text(self.topic_filter.as_str());
        sink.u8(self.options.to_u8(version));
    }
}

impl Section for Subscribe<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        self.subscription_id.is_none() && self.user_properties.is_plainly_empty()
    }

    #[inline(always)]
    fn write_properties(&self, sink: &mut impl Sink) {
        if let Some(value) = self.subscription_id {
            sink.property(Property::SubscriptionIdentifier(value));
        }
        write_user_properties(self.user_properties, sink);
    }
}

encode_methods!(Subscribe);
