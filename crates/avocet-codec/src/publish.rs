use core::num::NonZeroU16;

use avocet_bytes::{Fill, Room, append};
use avocet_topic::TopicName;
use bytes::BufMut;

use crate::error::{DecodeError, EncodeError, Field};
use crate::list::List;
use crate::message_properties::{Forwardable, MessageProperties};
use crate::packet::{Front, PacketType};
use crate::packet_id::PacketId;
use crate::property::{Properties, Property};
use crate::qos::QoS;
use crate::reader::{Reader, topic_name};
use crate::sink::{Encode, Filler, Measure, Section, Sink, Writer, write_fixed_header};
use crate::subscription_id::SubscriptionId;
use crate::version::Version;

/// Flags of the fixed header [MQTT5-3.3.1].
const DUP: u8 = 0b1000;
const QOS: u8 = 0b0110;
const QOS_1: u8 = 0b0010;
const RETAIN: u8 = 0b0001;

/// An application message on its way over one Network Connection [MQTT5-3.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Publish<'a> {
    /// True when this may be sent for the second time; never with QoS 0.
    pub dup: bool,
    /// The QoS, and the Packet Identifier that comes with it.
    pub delivery: Delivery,
    /// The RETAIN flag.
    pub retain: bool,
    /// None when empty on the wire, which only 5.0 allows and only with a Topic Alias.
    pub topic_name: Option<TopicName<'a>>,
    /// Topic Alias, left out in 3.x.
    pub topic_alias: Option<NonZeroU16>,
    /// Message Expiry Interval, in seconds, left out in 3.x.
    pub message_expiry_interval: Option<u32>,
    /// Subscription Identifiers of the subscriptions that match, left out in 3.x.
    pub subscription_ids: List<'a, SubscriptionId>,
    /// The properties that belong to the message, left out in 3.x.
    pub properties: MessageProperties<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

/// The QoS of a PUBLISH, and the Packet Identifier that comes with all but QoS 0
/// [MQTT5-2.2.1-2] [MQTT311-2.3.1-5].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Delivery {
    /// QoS 0.
    #[default]
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// The Quality of Service.
    #[inline]
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// The Packet Identifier, none for QoS 0.
    #[inline]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(packet_id) | Self::ExactlyOnce(packet_id) => Some(packet_id),
        }
    }
}

impl<'a> Publish<'a> {
    /// A message without flags and properties.
    #[inline]
    pub const fn new(topic_name: TopicName<'a>, delivery: Delivery, payload: &'a [u8]) -> Self {
        Self {
            dup: false,
            delivery,
            retain: false,
            topic_name: Some(topic_name),
            topic_alias: None,
            message_expiry_interval: None,
            subscription_ids: List::EMPTY,
            properties: MessageProperties::EMPTY,
            payload,
        }
    }

    /// The Quality of Service.
    #[inline]
    pub const fn qos(&self) -> QoS {
        self.delivery.qos()
    }

    /// The Packet Identifier, none for QoS 0.
    #[inline]
    pub const fn packet_id(&self) -> Option<PacketId> {
        self.delivery.packet_id()
    }

    /// Reads one whole packet, which must be a PUBLISH.
    #[inline]
    pub fn decode(frame: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let front = Front::whole(frame, version)?.expect(PacketType::Publish)?;
        Self::decode_as(front.first_byte, front.body, version, |publish| publish)
    }

    /// Makes a packet of what is read, at once, so that it is built where it is returned. What most
    /// packets are takes no call from here.
    #[inline(always)]
    pub(crate) fn decode_as<T>(
        first_byte: u8,
        body: Reader<'a>,
        version: Version,
        packet: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        Self::decode_body::<true, T>(first_byte & 0xf, body, version, packet)
    }

    /// For a Topic Name that is not ASCII, or none.
    #[cold]
    #[inline(never)]
    fn decode_other<T>(
        flags: u8,
        body: Reader<'a>,
        version: Version,
        packet: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        Self::decode_body::<false, T>(flags, body, version, packet)
    }

    #[inline(always)]
    fn decode_body<const ASCII: bool, T>(
        flags: u8,
        mut body: Reader<'a>,
        version: Version,
        packet: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        let whole = body;
        check_flags(flags, version)?;
        let name = body.binary(Field::TopicName)?;
        let topic_name = if name.is_empty() && version == Version::V5 {
            None
        } else if ASCII {
            let Some(topic_name) = TopicName::from_ascii(name) else {
                return Self::decode_other(flags, whole, version, packet);
            };
            Some(topic_name)
        } else {
            Some(topic_name(name, Field::TopicName)?)
        };
        let delivery = match flags & QOS {
            0 => Delivery::AtMostOnce,
            QOS_1 => Delivery::AtLeastOnce(body.packet_id()?),
            _ => Delivery::ExactlyOnce(body.packet_id()?),
        };
        let dup = flags & DUP != 0 && flags & QOS != 0;
        let retain = flags & RETAIN != 0;
        if version == Version::V5 {
            // Most messages have no properties; those that have take a way of their own.
            match body.rest() {
                [0, payload @ ..] if topic_name.is_some() => body = Reader::new(payload),
                _ => {
                    return Self::decode_rest(dup, delivery, retain, topic_name, body, packet);
                }
            }
        }
        Ok(packet(Self {
            dup,
            delivery,
            retain,
            topic_name,
            topic_alias: None,
            message_expiry_interval: None,
            // Made here field by field, where a constant would be copied, twice.
            subscription_ids: List::from_slice(&[]),
            properties: MessageProperties::from_encoded(&[]),
            payload: body.rest(),
        }))
    }

    // As values that fit into registers.
    #[inline(never)]
    fn decode_rest<T>(
        dup: bool,
        delivery: Delivery,
        retain: bool,
        topic_name: Option<TopicName<'a>>,
        mut body: Reader<'a>,
        packet: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        let properties = PublishProperties::decode(body.properties()?)?;
        if topic_name.is_none() && properties.topic_alias.is_none() {
            return Err(DecodeError::MissingTopicName);
        }
        Ok(packet(Self {
            dup,
            delivery,
            retain,
            topic_name,
            topic_alias: properties.topic_alias,
            message_expiry_interval: properties.message_expiry_interval,
            subscription_ids: List::from_wire(properties.subscription_ids, Version::V5),
            properties: MessageProperties::from_section(properties.section, properties.forwardable),
            payload: body.rest(),
        }))
    }

    /// How many bytes [`encode_header`](Self::encode_header) writes.
    #[inline]
    pub fn encoded_header_len(&self, version: Version) -> usize {
        self.frame_len(version).saturating_sub(self.payload.len())
    }

    /// How many bytes [`encode`](Self::encode) writes, fixed header included.
    #[inline]
    pub fn encoded_len(&self, version: Version) -> usize {
        self.frame_len(version)
    }

    /// Writes the whole packet; on an error, nothing.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
        self.encode_with(version, self.payload, out)
    }

    /// Writes everything but the payload, so that this can go out from where it lies; on an error,
    /// nothing.
    #[inline]
    pub fn encode_header(
        &self,
        version: Version,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        self.encode_with(version, &[], out)
    }

    #[inline(always)]
    fn encode_with(
        &self,
        version: Version,
        payload: &[u8],
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        if version.has_properties() && !self.is_without_properties() {
            return self.encode_with_properties(payload, out);
        }
        self.encode_plain(version, payload, out)
    }

    /// With the whole payload, or none of it. Not inlined, as most packets are without.
    #[inline(never)]
    fn encode_with_properties(
        &self,
        payload: &[u8],
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        if !self.is_well(Version::V5) {
            return self.encode_apart(Version::V5, payload, out);
        }
        let mut measure = Measure::default();
        self.write_variable_header(&mut measure);
        measure.add(self.payload.len());
        let len = measure.frame_len() - self.payload.len() + payload.len();
        let parts = WithProperties {
            publish: self,
            measure,
            payload,
        };
        if append(out, len, parts) {
            Ok(())
        } else {
            self.encode_apart(Version::V5, payload, out)
        }
    }

    /// For packets that cannot be written, and for buffers of many pieces.
    #[cold]
    #[inline(never)]
    fn encode_apart(
        &self,
        version: Version,
        payload: &[u8],
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let measure = self.measure::<true>(version);
        let room = measure.frame_len() - self.payload.len() + payload.len();
        write_fixed_header(self.first_byte(version), measure, room, out)?;
        self.write_header(version, &mut Writer::new(measure, out));
        out.put_slice(payload);
        Ok(())
    }

    /// A packet without properties, which needs no measuring.
    #[inline(always)]
    fn encode_plain(
        &self,
        version: Version,
        payload: &[u8],
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (Some(topic_name), true) = (self.topic_name, self.is_well(version)) else {
            return self.encode_apart(version, payload, out);
        };
        let topic_name = topic_name.as_str();
        let packet_id_len = if self.packet_id().is_some() { 2 } else { 0 };
        let header_len =
            2 + topic_name.len() + packet_id_len + usize::from(version.has_properties());
        let measure = Measure::<false>::of(header_len + self.payload.len());
        let len = measure.frame_len() - self.payload.len() + payload.len();
        let plain = Plain {
            first_byte: self.first_byte(version),
            measure,
            topic_name,
            packet_id: self.packet_id(),
            has_properties: version.has_properties(),
            payload,
        };
        if append(out, len, plain) {
            Ok(())
        } else {
            self.encode_apart(version, payload, out)
        }
    }

    /// All but the payload.
    #[inline(always)]
    fn write_header(&self, version: Version, sink: &mut impl Sink) {
        self.write_names(sink);
        if version.has_properties() {
            sink.section(self);
        }
    }

    /// The same if there are properties.
    #[inline(always)]
    fn write_variable_header(&self, sink: &mut impl Sink) {
        self.write_names(sink);
        sink.long_section(self);
    }

    /// Topic Name and Packet Identifier.
    #[inline(always)]
    fn write_names(&self, sink: &mut impl Sink) {
        sink.text(self.topic_name.map_or("", TopicName::as_str));
        if let Some(packet_id) = self.packet_id() {
            sink.u16(packet_id.get());
        }
    }

    /// What can be seen without reading through properties; false says nothing.
    #[inline]
    const fn is_without_properties(&self) -> bool {
        self.topic_alias.is_none()
            && self.message_expiry_interval.is_none()
            && self.subscription_ids.is_plainly_empty()
            && self.properties.is_plainly_empty()
    }
}

#[inline(always)]
fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if flags & (DUP | QOS) == 0 {
        return Ok(());
    }
    if flags & QOS == QOS {
        return Err(DecodeError::QoS3);
    }
    // 3.1 gives the flag no meaning with QoS 0.
    if flags & QOS == 0 && version > Version::V3_1 {
        return Err(DecodeError::DupWithQoS0);
    }
    Ok(())
}

/// A PUBLISH and as much of its payload as is written here: all or nothing.
struct WithProperties<'p, 'a> {
    publish: &'p Publish<'a>,
    measure: Measure<false>,
    payload: &'p [u8],
}

impl Fill for WithProperties<'_, '_> {
    #[inline(always)]
    fn fill(self, room: &mut Room<'_>) {
        let mut filler = Filler::new(self.measure, room);
        let first_byte = self.publish.first_byte(Version::V5);
        filler.fixed_header(first_byte, self.measure.len());
        self.publish.write_variable_header(&mut filler);
        filler.put(self.payload);
    }
}

/// The same of one without properties.
struct Plain<'p> {
    first_byte: u8,
    measure: Measure<false>,
    topic_name: &'p str,
    packet_id: Option<PacketId>,
    has_properties: bool,
    payload: &'p [u8],
}

impl Fill for Plain<'_> {
    #[inline(always)]
    fn fill(self, room: &mut Room<'_>) {
        let mut filler = Filler::new(self.measure, room);
        let [high, low] = (self.topic_name.len() as u16).to_be_bytes();
        match self.measure.len() {
            len @ 0..0x80 => filler.array([self.first_byte, len as u8, high, low]),
            len => {
                filler.fixed_header(self.first_byte, len);
                filler.array([high, low]);
            }
        }
        filler.put(self.topic_name.as_bytes());
        match (self.packet_id, self.has_properties) {
            (None, false) => {}
            (None, true) => filler.u8(0),
            (Some(packet_id), false) => filler.u16(packet_id.get()),
            (Some(packet_id), true) => {
                let [high, low] = packet_id.get().to_be_bytes();
                filler.array([high, low, 0]);
            }
        }
        filler.put(self.payload);
    }
}

/// What the properties of a PUBLISH say. Made of plain slices, which stay in registers.
#[derive(Default)]
struct PublishProperties<'a> {
    topic_alias: Option<NonZeroU16>,
    message_expiry_interval: Option<u32>,
    /// The section again, if there are any in it.
    subscription_ids: &'a [u8],
    section: &'a [u8],
    forwardable: Forwardable,
}

impl<'a> PublishProperties<'a> {
    #[inline(always)]
    fn decode(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self {
            section,
            ..Self::default()
        };
        let mut properties = Properties::of_publish(section);
        while let Some(property) = properties.next_inlined()? {
            if decoded.forwardable.count(&property, properties.last_len()) {
                continue;
            }
            if let Property::TopicAlias(value) = property {
                decoded.topic_alias = Some(value);
            } else if let Property::MessageExpiryInterval(value) = property {
                decoded.message_expiry_interval = Some(value);
            } else if let Property::SubscriptionIdentifier(_) = property {
                decoded.subscription_ids = section;
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(decoded)
    }
}

impl Encode for Publish<'_> {
    #[inline]
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Publish as u8) << 4
            | u8::from(self.dup) << 3
            | (self.qos() as u8) << 1
            | u8::from(self.retain)
    }

    #[inline(always)]
    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        self.check(version, sink);
        self.write_header(version, sink);
        sink.put(self.payload);
    }
}

impl Publish<'_> {
    #[inline(always)]
    fn is_well(&self, version: Version) -> bool {
        self.has_topic(version) && (!self.dup || self.packet_id().is_some())
    }

    #[inline(always)]
    fn has_topic(&self, version: Version) -> bool {
        self.topic_name.is_some() || (version.has_properties() && self.topic_alias.is_some())
    }

    #[inline(always)]
    fn check(&self, version: Version, sink: &mut impl Sink) {
        sink.require(self.has_topic(version), EncodeError::MissingTopicName);
        sink.require(self.is_well(version), EncodeError::DupWithQoS0);
    }
}

impl Section for Publish<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        self.is_without_properties()
    }

    #[inline(always)]
    fn write_properties(&self, sink: &mut impl Sink) {
        if let Some(value) = self.topic_alias {
            sink.property(Property::TopicAlias(value));
        }
        if let Some(value) = self.message_expiry_interval {
            sink.property(Property::MessageExpiryInterval(value));
        }
        if !self.subscription_ids.is_plainly_empty() {
            for id in self.subscription_ids {
                sink.property(Property::SubscriptionIdentifier(id));
            }
        }
        self.properties.write(sink);
    }
}
