use core::num::{NonZeroU16, NonZeroU32};

use avocet_topic::TopicName;

use crate::error::{DecodeError, Field};
use crate::list::{List, ListItem};
use crate::message_properties::PayloadFormat;
use crate::property_id::PropertyId;
use crate::qos::QoS;
use crate::reader::Reader;
use crate::sink::{Section, Sink};
use crate::subscription_id::SubscriptionId;
use crate::version::Version;

/// A User Property: a pair of strings that means what the applications agreed on. The same name
/// may come again, and the order is kept [MQTT5-3.3.2-18].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct UserProperty<'a> {
    /// The name.
    pub name: &'a str,
    /// The value.
    pub value: &'a str,
}

/// A property with its value: the one place that knows which type each has [MQTT5-2.2.2.2].
#[derive(Clone, Copy)]
pub(crate) enum Property<'a> {
    PayloadFormatIndicator(PayloadFormat),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(TopicName<'a>),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(SubscriptionId),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    UserProperty(UserProperty<'a>),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    #[inline]
    pub(crate) const fn id(&self) -> PropertyId {
        match self {
            Self::PayloadFormatIndicator(_) => PropertyId::PayloadFormatIndicator,
            Self::MessageExpiryInterval(_) => PropertyId::MessageExpiryInterval,
            Self::ContentType(_) => PropertyId::ContentType,
            Self::ResponseTopic(_) => PropertyId::ResponseTopic,
            Self::CorrelationData(_) => PropertyId::CorrelationData,
            Self::SubscriptionIdentifier(_) => PropertyId::SubscriptionIdentifier,
            Self::SessionExpiryInterval(_) => PropertyId::SessionExpiryInterval,
            Self::AssignedClientIdentifier(_) => PropertyId::AssignedClientIdentifier,
            Self::ServerKeepAlive(_) => PropertyId::ServerKeepAlive,
            Self::AuthenticationMethod(_) => PropertyId::AuthenticationMethod,
            Self::AuthenticationData(_) => PropertyId::AuthenticationData,
            Self::RequestProblemInformation(_) => PropertyId::RequestProblemInformation,
            Self::WillDelayInterval(_) => PropertyId::WillDelayInterval,
            Self::RequestResponseInformation(_) => PropertyId::RequestResponseInformation,
            Self::ResponseInformation(_) => PropertyId::ResponseInformation,
            Self::ServerReference(_) => PropertyId::ServerReference,
            Self::ReasonString(_) => PropertyId::ReasonString,
            Self::ReceiveMaximum(_) => PropertyId::ReceiveMaximum,
            Self::TopicAliasMaximum(_) => PropertyId::TopicAliasMaximum,
            Self::TopicAlias(_) => PropertyId::TopicAlias,
            Self::MaximumQoS(_) => PropertyId::MaximumQoS,
            Self::RetainAvailable(_) => PropertyId::RetainAvailable,
            Self::UserProperty(_) => PropertyId::UserProperty,
            Self::MaximumPacketSize(_) => PropertyId::MaximumPacketSize,
            Self::WildcardSubscriptionAvailable(_) => PropertyId::WildcardSubscriptionAvailable,
            Self::SubscriptionIdentifierAvailable(_) => PropertyId::SubscriptionIdentifierAvailable,
            Self::SharedSubscriptionAvailable(_) => PropertyId::SharedSubscriptionAvailable,
        }
    }

    /// Takes one property off the front.
    // Always inlined, so that no property is built that the caller takes apart again.
    #[inline(always)]
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        use PropertyId as Id;
        // Every identifier is a Variable Byte Integer of one byte.
        let number = reader.u8(Field::PropertyLength)?;
        let Some(id) = PropertyId::from_u8(number) else {
            return Err(DecodeError::UnknownProperty(number));
        };
        let field = Field::Property(id);
        let out_of_range = DecodeError::PropertyValue(id);
        Ok(match id {
            Id::PayloadFormatIndicator => Self::PayloadFormatIndicator(
                PayloadFormat::from_u8(reader.u8(field)?).ok_or(out_of_range)?,
            ),
            Id::MessageExpiryInterval => Self::MessageExpiryInterval(reader.u32(field)?),
            Id::ContentType => Self::ContentType(reader.string(field)?),
            Id::ResponseTopic => Self::ResponseTopic(reader.topic_name(field)?),
            Id::CorrelationData => Self::CorrelationData(reader.binary(field)?),
            Id::SubscriptionIdentifier => Self::SubscriptionIdentifier(
                SubscriptionId::new(reader.variable_byte_integer(field)?).ok_or(out_of_range)?,
            ),
            Id::SessionExpiryInterval => Self::SessionExpiryInterval(reader.u32(field)?),
            Id::AssignedClientIdentifier => Self::AssignedClientIdentifier(reader.string(field)?),
            Id::ServerKeepAlive => Self::ServerKeepAlive(reader.u16(field)?),
            Id::AuthenticationMethod => Self::AuthenticationMethod(reader.string(field)?),
            Id::AuthenticationData => Self::AuthenticationData(reader.binary(field)?),
            Id::RequestProblemInformation => Self::RequestProblemInformation(flag(reader, id)?),
            Id::WillDelayInterval => Self::WillDelayInterval(reader.u32(field)?),
            Id::RequestResponseInformation => Self::RequestResponseInformation(flag(reader, id)?),
            Id::ResponseInformation => Self::ResponseInformation(reader.string(field)?),
            Id::ServerReference => Self::ServerReference(reader.string(field)?),
            Id::ReasonString => Self::ReasonString(reader.string(field)?),
            Id::ReceiveMaximum => {
                Self::ReceiveMaximum(NonZeroU16::new(reader.u16(field)?).ok_or(out_of_range)?)
            }
            Id::TopicAliasMaximum => Self::TopicAliasMaximum(reader.u16(field)?),
            Id::TopicAlias => {
                Self::TopicAlias(NonZeroU16::new(reader.u16(field)?).ok_or(out_of_range)?)
            }
            Id::MaximumQoS => Self::MaximumQoS(match reader.u8(field)? {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => return Err(out_of_range),
            }),
            Id::RetainAvailable => Self::RetainAvailable(flag(reader, id)?),
            Id::UserProperty => Self::UserProperty(UserProperty {
                name: reader.string(field)?,
                value: reader.string(field)?,
            }),
            Id::MaximumPacketSize => {
                Self::MaximumPacketSize(NonZeroU32::new(reader.u32(field)?).ok_or(out_of_range)?)
            }
            Id::WildcardSubscriptionAvailable => {
                Self::WildcardSubscriptionAvailable(flag(reader, id)?)
            }
            Id::SubscriptionIdentifierAvailable => {
                Self::SubscriptionIdentifierAvailable(flag(reader, id)?)
            }
            Id::SharedSubscriptionAvailable => Self::SharedSubscriptionAvailable(flag(reader, id)?),
        })
    }

    // Always inlined, so that only one arm is left where the property is known; what has one length
    // is put in one piece.
    #[inline(always)]
    pub(crate) fn write(self, sink: &mut impl Sink) {
        let id = self.id() as u8;
        let field = Field::Property(self.id());
        let mut put_u8 = |value: u8| sink.array([id, value]);
        match self {
            Self::PayloadFormatIndicator(value) => put_u8(value as u8),
            Self::MaximumQoS(value) => put_u8(value as u8),
            Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => put_u8(value.into()),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => {
                put_u16(id, value, sink);
            }
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => put_u16(id, value.get(), sink),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => put_u32(id, value, sink),
            Self::MaximumPacketSize(value) => put_u32(id, value.get(), sink),
            Self::SubscriptionIdentifier(value) => {
                sink.u8(id);
                sink.variable_byte_integer(value.get());
            }
            Self::ContentType(value)
            | Self::AssignedClientIdentifier(value)
            | Self::AuthenticationMethod(value)
            | Self::ResponseInformation(value)
            | Self::ServerReference(value)
            | Self::ReasonString(value) => {
                sink.u8(id);
                sink.string(field, value);
            }
            Self::ResponseTopic(value) => {
                sink.u8(id);
                sink.text(value.as_str());
            }
            Self::CorrelationData(value) | Self::AuthenticationData(value) => {
                sink.u8(id);
                sink.binary(field, value);
            }
            Self::UserProperty(value) => {
                sink.u8(id);
                sink.string(field, value.name);
                sink.string(field, value.value);
            }
        }
    }
}

#[inline(always)]
fn put_u16(id: u8, value: u16, sink: &mut impl Sink) {
    let [high, low] = value.to_be_bytes();
    sink.array([id, high, low]);
}

#[inline(always)]
fn put_u32(id: u8, value: u32, sink: &mut impl Sink) {
    let [a, b, c, d] = value.to_be_bytes();
    sink.array([id, a, b, c, d]);
}

#[inline]
fn flag(reader: &mut Reader<'_>, id: PropertyId) -> Result<bool, DecodeError> {
    match reader.u8(Field::Property(id))? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

/// Reads a section, refusing what comes twice.
pub(crate) struct Properties<'a> {
    reader: Reader<'a>,
    /// One bit for each identifier that came, unless it may come again.
    seen: u64,
    repeatable: u64,
    last_len: usize,
}

impl<'a> Properties<'a> {
    #[inline]
    pub(crate) const fn new(section: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(section),
            seen: 0,
            repeatable: 1 << PropertyId::UserProperty as u8,
            last_len: 0,
        }
    }

    /// A PUBLISH may have several Subscription Identifiers.
    #[inline]
    pub(crate) const fn of_publish(section: &'a [u8]) -> Self {
        let mut properties = Self::new(section);
        properties.repeatable |= 1 << PropertyId::SubscriptionIdentifier as u8;
        properties
    }

    /// How many bytes the last property took.
    #[inline]
    pub(crate) const fn last_len(&self) -> usize {
        self.last_len
    }

    /// The next property, for packets that are rare.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.next_apart()
    }

    #[inline(never)]
    fn next_apart(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        self.next_inlined()
    }

    /// The next property, for packets that are many.
    #[inline(always)]
    pub(crate) fn next_inlined(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let before = self.reader.len();
        let property = Property::read(&mut self.reader)?;
        self.last_len = before - self.reader.len();
        let bit = 1 << property.id() as u8;
        if self.seen & bit != 0 {
            return Err(DecodeError::RepeatedProperty(property.id()));
        }
        self.seen |= bit & !self.repeatable;
        Ok(Some(property))
    }
}

/// The properties that every acknowledgement has, and most others too.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReasonProperties<'a> {
    pub(crate) reason_string: Option<&'a str>,
    pub(crate) user_properties: List<'a, UserProperty<'a>>,
}

impl<'a> ReasonProperties<'a> {
    pub(crate) fn decode(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self::default();
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            if let Property::ReasonString(value) = property {
                decoded.reason_string = Some(value);
            } else if let Property::UserProperty(_) = property {
                decoded.user_properties = user_properties(section);
            } else {
                return Err(DecodeError::MisplacedProperty(property.id()));
            }
        }
        Ok(decoded)
    }
}

impl Section for ReasonProperties<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_plainly_empty()
    }

    fn write_properties(&self, sink: &mut impl Sink) {
        if let Some(value) = self.reason_string {
            sink.property(Property::ReasonString(value));
        }
        write_user_properties(self.user_properties, sink);
    }
}

#[inline]
pub(crate) const fn user_properties(section: &[u8]) -> List<'_, UserProperty<'_>> {
    List::from_wire(section, Version::V5)
}

#[inline(always)]
pub(crate) fn write_user_properties(
    user_properties: List<'_, UserProperty<'_>>,
    sink: &mut impl Sink,
) {
    user_properties.each(|user_property| sink.property(Property::UserProperty(user_property)));
}

/// The next property of a validated section for which `select` has an answer.
#[inline]
fn find<'a, T>(section: &mut &'a [u8], select: impl Fn(Property<'a>) -> Option<T>) -> Option<T> {
    let mut reader = Reader::new(section);
    while let Ok(property) = Property::read(&mut reader) {
        if let Some(found) = select(property) {
            *section = reader.rest();
            return Some(found);
        }
    }
    *section = &[];
    None
}

/// The first property of a validated section for which `select` has an answer.
#[inline]
pub(crate) fn find_property<'a, T>(
    mut section: &'a [u8],
    select: impl Fn(Property<'a>) -> Option<T>,
) -> Option<T> {
    find(&mut section, select)
}

impl<'a> ListItem<'a> for UserProperty<'a> {
    #[inline]
    fn read(section: &mut &'a [u8], _version: Version) -> Option<Self> {
        find(section, |property| {
            if let Property::UserProperty(value) = property {
                Some(value)
            } else {
                None
            }
        })
    }
}

impl<'a> ListItem<'a> for SubscriptionId {
    #[inline]
    fn read(section: &mut &'a [u8], _version: Version) -> Option<Self> {
        find(section, |property| {
            if let Property::SubscriptionIdentifier(id) = property {
                Some(id)
            } else {
                None
            }
        })
    }
}
