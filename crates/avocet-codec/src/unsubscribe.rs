use avocet_topic::TopicFilter;

use crate::error::{DecodeError, EncodeError};
use crate::list::{List, ListItem};
use crate::packet::PacketType;
use crate::packet_id::PacketId;
use crate::property::{Properties, Property, UserProperty, user_properties, write_user_properties};
use crate::reader::Reader;
use crate::sink::{Encode, Section, Sink, encode_methods};
use crate::version::Version;

/// The client unsubscribes [MQTT5-3.10].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Unsubscribe<'a> {
    /// True when this is sent for the second time; 3.1 only, left out in the others.
    pub dup: bool,
    /// The Packet Identifier that the UNSUBACK will carry.
    pub packet_id: PacketId,
    /// User Properties, left out in 3.x.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// What to unsubscribe from; at least one [MQTT5-3.10.3-2] [MQTT311-3.10.3-2].
    pub filters: List<'a, TopicFilter<'a>>,
}

impl<'a> Unsubscribe<'a> {
    /// A request without properties.
    pub const fn new(packet_id: PacketId, filters: &'a [TopicFilter<'a>]) -> Self {
        Self {
            dup: false,
            packet_id,
            user_properties: List::EMPTY,
            filters: List::from_slice(filters),
        }
    }

    pub(crate) fn decode_body(
        flags: u8,
        mut body: Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut unsubscribe = Self {
            dup: flags & 0b1000 != 0,
            ..Self::new(body.packet_id()?, &[])
        };
        if version.has_properties() {
            unsubscribe.decode_properties(body.properties()?)?;
        }
        if body.is_empty() {
            return Err(DecodeError::NoTopicFilters);
        }
        unsubscribe.filters = List::from_wire(body.rest(), version);
        while !body.is_empty() {
            body.topic_filter()?;
        }
        Ok(unsubscribe)
    }

    fn decode_properties(&mut self, section: &'a [u8]) -> Result<(), DecodeError> {
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            if let Property::UserProperty(_) = property {
                self.user_properties = user_properties(section);
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(())
    }
}

impl<'a> ListItem<'a> for TopicFilter<'a> {
    #[inline]
    fn read(section: &mut &'a [u8], _version: Version) -> Option<Self> {
        let mut reader = Reader::new(section);
        let filter = reader.topic_filter().ok();
        *section = reader.rest();
        filter
    }
}

impl Encode for Unsubscribe<'_> {
    fn first_byte(&self, version: Version) -> u8 {
        let dup = self.dup && version == Version::V3_1;
        (PacketType::Unsubscribe as u8) << 4 | u8::from(dup) << 3 | 0b0010
    }

    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        sink.u16(self.packet_id.get());
        if version.has_properties() {
            sink.section(self);
        }
        sink.require(
            !self.filters.is_plainly_empty(),
            EncodeError::NoTopicFilters,
        );
        for filter in self.filters {
            sink.text(filter.as_str());
        }
    }
}

impl Section for Unsubscribe<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        self.user_properties.is_plainly_empty()
    }

    fn write_properties(&self, sink: &mut impl Sink) {
        write_user_properties(self.user_properties, sink);
    }
}

encode_methods!(Unsubscribe);
