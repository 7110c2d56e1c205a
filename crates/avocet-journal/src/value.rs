//! Keys and values as bytes. Nothing here trusts what it reads.

use avocet_codec::{
    MessageProperties, PacketId, QoS, SubscriptionId, SubscriptionOptions, Version,
};
use avocet_engine::{GroupName, Part, RetainedPlace, SessionKey, ShardId, Tenant};
use avocet_session::{Message, UnixTime};
use avocet_topic::{TopicFilterBuf, TopicName, TopicNameBuf};
use bytes::Bytes;

/// The version of what the journal writes, under the key of [`Kind::Format`].
pub(crate) const FORMAT: u64 = 1;

/// What is stored under a key, by the first byte of the key; or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The version of the format.
    Format,
    /// What no message's count is above.
    MessageCount,
    /// A time that had come.
    Time,
    /// A session.
    Session,
    /// What the sequences of a session differ by from those of its queue.
    Base,
    /// A subscription.
    Subscription,
    /// That a subscription waits for retained messages.
    Awaited,
    /// A Will Message.
    Will,
    /// The Packet Identifier of a QoS 2 PUBLISH that came.
    Received,
    /// Messages finished before others in front of them.
    Finished,
    /// A message whose PUBREC came.
    Pubrec,
    /// A message in front of many that are finished.
    Lifted,
    /// A retained message.
    Retained,
    /// A shared subscription.
    Group,
    /// A message of a shared subscription.
    GroupMessage,
    /// The place in a shared subscription of a message in a session's queue.
    OfGroup,
    /// A message on its way to queues it belongs to.
    Unrouted,
    /// A part of the broker that such a message has reached.
    Arrived,
    /// An entry of a session's queue.
    Entry,
    /// A message in a blob.
    Message,
}

impl Kind {
    const KEYS: [(u8, Self); 18] = [
        (0, Self::Format),
        (1, Self::MessageCount),
        (2, Self::Time),
        (b's', Self::Session),
        (b'q', Self::Base),
        (b'b', Self::Subscription),
        (b'k', Self::Awaited),
        (b'w', Self::Will),
        (b'i', Self::Received),
        (b'f', Self::Finished),
        (b'p', Self::Pubrec),
        (b'm', Self::Lifted),
        (b'r', Self::Retained),
        (b'G', Self::Group),
        (b'g', Self::GroupMessage),
        (b'o', Self::OfGroup),
        (b'u', Self::Unrouted),
        (b'a', Self::Arrived),
    ];

    fn byte(self) -> u8 {
        let known = Self::KEYS.iter().find(|(_, kind)| *kind == self);
        known.map_or(u8::MAX, |(byte, _)| *byte)
    }

    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        let first = key.first()?;
        let known = Self::KEYS.iter().find(|(byte, _)| byte == first);
        known.map(|(_, kind)| *kind)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::MessageCount => "count of messages",
            Self::Time => "time",
            Self::Session => "session",
            Self::Base => "base of a queue",
            Self::Subscription => "subscription",
            Self::Awaited => "way through retained messages",
            Self::Will => "will",
            Self::Received => "received packet identifier",
            Self::Finished => "finished messages",
            Self::Pubrec => "PUBREC",
            Self::Lifted => "lifted message",
            Self::Retained => "retained message",
            Self::Group => "shared subscription",
            Self::GroupMessage => "message of a shared subscription",
            Self::OfGroup => "place in a shared subscription",
            Self::Unrouted => "message to be routed",
            Self::Arrived => "arrival of a message",
            Self::Entry => "queued message",
            Self::Message => "message",
        }
    }
}

/// What is stored cannot be understood, although its checksum is right: it was written by another
/// program or by a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored {} is not understood", .0.name())]
pub struct ValueError(pub Kind);

// Writing.

pub(crate) fn put_int(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_int(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_optional(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put_int(out, value);
        }
    }
}

fn put_session_key(out: &mut Vec<u8>, session: &SessionKey) {
    put_text(out, session.realm().as_bytes());
    put_text(out, session.client_id().as_bytes());
}

pub(crate) fn int(value: u64) -> Bytes {
    let mut out = Vec::with_capacity(10);
    put_int(&mut out, value);
    out.into()
}

/// A key of a kind of which there is one.
pub(crate) fn key(kind: Kind) -> Bytes {
    Bytes::copy_from_slice(&[kind.byte()])
}

/// The key of a session or its will.
pub(crate) fn session_key(kind: Kind, session: &SessionKey) -> Bytes {
    let mut out = Vec::with_capacity(4 + session.realm().len() + session.client_id().len());
    out.push(kind.byte());
    put_session_key(&mut out, session);
    out.into()
}

/// What stands before the name of a tenant; no topic begins with it.
const TENANT: u8 = 0;

/// The key of a tenant's topic or filter.
pub(crate) fn text_key(kind: Kind, tenant: &str, text: &str) -> Bytes {
    let mut out = Vec::with_capacity(4 + tenant.len() + text.len());
    out.push(kind.byte());
    if !tenant.is_empty() {
        out.push(TENANT);
        put_text(&mut out, tenant.as_bytes());
    }
    out.extend_from_slice(text.as_bytes());
    out.into()
}

/// The key of a shared subscription.
pub(crate) fn group_key(group: &GroupName) -> Bytes {
    text_key(Kind::Group, group.tenant.as_str(), group.filter.as_str())
}

/// The key of something that belongs to a session or group: its number, and what tells it from
/// others of the kind and owner.
pub(crate) fn part_key(kind: Kind, owner: u64, part: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(11 + part.len());
    out.push(kind.byte());
    put_int(&mut out, owner);
    out.extend_from_slice(part);
    out.into()
}

/// The key of a message of a session or group.
pub(crate) fn sequence_key(kind: Kind, owner: u64, sequence: u64) -> Bytes {
    part_key(kind, owner, &sequence.to_be_bytes())
}

/// The key of a message to be routed, or what its arrivals' keys begin with.
pub(crate) fn id_key(kind: Kind, id: u64) -> Bytes {
    let mut out = Vec::with_capacity(9);
    out.push(kind.byte());
    out.extend_from_slice(&id.to_be_bytes());
    out.into()
}

/// The key of the arrival of a message.
pub(crate) fn arrived_key(id: u64, shard: u16, shards: u16) -> Bytes {
    let mut out = Vec::with_capacity(13);
    out.push(Kind::Arrived.byte());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&shard.to_be_bytes());
    out.extend_from_slice(&shards.to_be_bytes());
    out.into()
}

/// Who published a message, none for the server itself.
pub(crate) fn publisher(publisher: Option<&SessionKey>) -> Bytes {
    let Some(publisher) = publisher else {
        return Bytes::new();
    };
    let mut out = Vec::with_capacity(4 + publisher.realm().len() + publisher.client_id().len());
    put_session_key(&mut out, publisher);
    out.into()
}

pub(crate) fn decode_publisher(kind: Kind, bytes: &[u8]) -> Result<Option<SessionKey>, ValueError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(kind, bytes);
    let session = reader.session_key()?;
    reader.end(Some(session))
}

/// Shards behind those of a value.
pub(crate) fn shards(before: Bytes, shards: &[ShardId]) -> Bytes {
    if shards.is_empty() {
        return before;
    }
    let bytes = shards.iter().flat_map(|shard| shard.get().to_be_bytes());
    before.into_iter().chain(bytes).collect()
}

pub(crate) fn decode_shards(kind: Kind, bytes: &[u8]) -> Result<Vec<ShardId>, ValueError> {
    let (shards, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(ValueError(kind));
    }
    let shard = |bytes: &[u8; 2]| ShardId::new(u16::from_be_bytes(*bytes));
    Ok(shards.iter().map(shard).collect())
}

/// What a queued message is to a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfGroupValue {
    pub(crate) qos: QoS,
    pub(crate) id: u64,
    /// The number of the group.
    pub(crate) group: u64,
    pub(crate) sequence: u64,
}

impl OfGroupValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(24);
        out.push(self.qos as u8);
        put_int(&mut out, self.id);
        put_int(&mut out, self.group);
        put_int(&mut out, self.sequence);
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(Kind::OfGroup, bytes);
        let (qos, _) = reader.flags(0)?;
        let value = Self {
            qos,
            id: reader.int()?,
            group: reader.int()?,
            sequence: reader.int()?,
        };
        reader.end(value)
    }
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionValue {
    /// Names it in other keys, and its queue.
    pub(crate) number: u64,
    pub(crate) expiry_interval: u32,
    pub(crate) expires_at: Option<UnixTime>,
    /// The engine's own.
    pub(crate) sent: u64,
    /// The engine's own.
    pub(crate) window: u32,
}

impl SessionValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(24);
        put_int(&mut out, self.number);
        put_int(&mut out, self.expiry_interval.into());
        put_optional(&mut out, self.expires_at.map(UnixTime::as_millis));
        put_int(&mut out, self.sent);
        put_int(&mut out, self.window.into());
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(Kind::Session, bytes);
        let value = Self {
            number: reader.int()?,
            expiry_interval: reader.u32()?,
            expires_at: reader.optional()?.map(UnixTime::from_millis),
            sent: reader.int()?,
            window: reader.u32()?,
        };
        reader.end(value)
    }
}

/// A subscription, whose filter is in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionValue {
    pub(crate) options: SubscriptionOptions,
    pub(crate) subscription_id: Option<SubscriptionId>,
}

impl SubscriptionValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(5);
        out.push(self.options.to_u8(Version::V5));
        let id = self.subscription_id.map_or(0, SubscriptionId::get);
        put_int(&mut out, id.into());
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(Kind::Subscription, bytes);
        let options = SubscriptionOptions::from_u8(reader.byte()?, Version::V5);
        let value = Self {
            options: options.map_err(|_| reader.error())?,
            subscription_id: match reader.u32()? {
                0 => None,
                id => Some(SubscriptionId::new(id).ok_or_else(|| reader.error())?),
            },
        };
        reader.end(value)
    }
}

/// How far a subscription came through the retained messages.
pub(crate) fn awaited(queued: &[RetainedPlace]) -> Bytes {
    let mut out = Vec::new();
    put_int(&mut out, queued.len() as u64);
    for RetainedPlace { part, topic_name } in queued {
        put_int(&mut out, part.shard.get().into());
        put_int(&mut out, part.shards.into());
        put_text(&mut out, topic_name.as_str().as_bytes());
    }
    out.into()
}

pub(crate) fn decode_awaited(bytes: &[u8]) -> Result<Vec<RetainedPlace>, ValueError> {
    let mut reader = Reader::new(Kind::Awaited, bytes);
    let count = reader.int()?;
    let mut queued = Vec::new();
    for _ in 0..count {
        let shard = ShardId::new(reader.small()?);
        let shards = reader.small()?;
        let topic_name = TopicNameBuf::new(reader.text()?).map_err(|_| reader.error())?;
        let part = Part { shard, shards };
        queued.push(RetainedPlace { part, topic_name });
    }
    reader.end(queued)
}

/// A Will Message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WillValue {
    pub(crate) message_expiry_interval: Option<u32>,
    pub(crate) delay_interval: u32,
    pub(crate) publish_at: Option<UnixTime>,
    pub(crate) message: Message,
}

impl WillValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(32 + self.message.len());
        put_optional(&mut out, self.message_expiry_interval.map(u64::from));
        put_int(&mut out, self.delay_interval.into());
        put_optional(&mut out, self.publish_at.map(UnixTime::as_millis));
        put_message(&mut out, &self.message, None, true);
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(Kind::Will, bytes);
        let interval = reader.optional()?.map(u32::try_from).transpose();
        Ok(Self {
            message_expiry_interval: interval.map_err(|_| reader.error())?,
            delay_interval: reader.u32()?,
            publish_at: reader.optional()?.map(UnixTime::from_millis),
            message: reader.message(None)?.message,
        })
    }
}

/// An entry of a queue beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryValue {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Bytes of the message.
    pub(crate) len: u32,
    /// Bytes of all messages put into the queue before, counted from when it was last empty.
    pub(crate) before: u64,
    pub(crate) subscription_ids: Vec<SubscriptionId>,
}

/// What a stored message takes beside its own length and the name of its publisher, at most.
pub(crate) const BESIDE_MESSAGE: usize = 64;

const RETAIN: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const PUBLISHER: u8 = 1 << 4;

impl EntryValue {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.qos as u8 | if self.retain { RETAIN } else { 0 });
        put_int(out, self.len.into());
        put_int(out, self.before);
        for id in &self.subscription_ids {
            put_int(out, id.get().into());
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(Kind::Entry, bytes);
        let (qos, flags) = reader.flags(RETAIN)?;
        let (len, before) = (reader.u32()?, reader.int()?);
        let mut subscription_ids = Vec::new();
        while !reader.rest.is_empty() {
            let id = SubscriptionId::new(reader.u32()?);
            subscription_ids.push(id.ok_or_else(|| reader.error())?);
        }
        Ok(Self {
            qos,
            retain: flags & RETAIN != 0,
            len,
            before,
            subscription_ids,
        })
    }
}

/// A message and who published it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredMessage {
    pub(crate) message: Message,
    pub(crate) publisher: Option<SessionKey>,
}

pub(crate) fn put_message(
    out: &mut Vec<u8>,
    message: &Message,
    publisher: Option<&SessionKey>,
    with_topic: bool,
) {
    let mut flags = message.qos() as u8;
    for (flag, set) in [
        (RETAIN, message.retain()),
        (EXPIRES, message.expires_at().is_some()),
        (PUBLISHER, publisher.is_some()),
    ] {
        if set {
            flags |= flag;
        }
    }
    out.push(flags);
    if let Some(at) = message.expires_at() {
        put_int(out, at.as_millis());
    }
    if let Some(publisher) = publisher {
        put_session_key(out, publisher);
    }
    put_text(
        out,
        if with_topic {
            message.topic_bytes()
        } else {
            &[]
        },
    );
    put_text(out, message.properties_bytes());
    out.extend_from_slice(message.payload());
}

/// A retained message, which has its topic in the key.
pub(crate) fn retained(message: &Message, publisher: Option<&SessionKey>) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + BESIDE_MESSAGE);
    put_message(&mut out, message, publisher, false);
    out.into()
}

pub(crate) fn decode_message(
    kind: Kind,
    bytes: &[u8],
    topic: Option<&str>,
) -> Result<StoredMessage, ValueError> {
    Reader::new(kind, bytes).message(topic)
}

// Reading.

pub(crate) struct Reader<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(kind: Kind, bytes: &'a [u8]) -> Self {
        Self { kind, rest: bytes }
    }

    /// Behind the first byte of a key.
    pub(crate) fn of_key(kind: Kind, key: &'a [u8]) -> Self {
        Self::new(kind, key.get(1..).unwrap_or_default())
    }

    pub(crate) const fn error(&self) -> ValueError {
        ValueError(self.kind)
    }

    pub(crate) fn end<T>(self, value: T) -> Result<T, ValueError> {
        if self.rest.is_empty() {
            Ok(value)
        } else {
            Err(self.error())
        }
    }

    fn byte(&mut self) -> Result<u8, ValueError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.error())?;
        self.rest = rest;
        Ok(*first)
    }

    /// An integer in the fewest bytes that hold it.
    pub(crate) fn int(&mut self) -> Result<u64, ValueError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error())
    }

    fn u32(&mut self) -> Result<u32, ValueError> {
        u32::try_from(self.int()?).map_err(|_| self.error())
    }

    fn small(&mut self) -> Result<u16, ValueError> {
        u16::try_from(self.int()?).map_err(|_| self.error())
    }

    fn optional(&mut self) -> Result<Option<u64>, ValueError> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.int().map(Some),
            _ => Err(self.error()),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], ValueError> {
        let len = usize::try_from(self.int()?).map_err(|_| self.error())?;
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.error())?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<&'a str, ValueError> {
        let bytes = self.bytes()?;
        str::from_utf8(bytes).map_err(|_| self.error())
    }

    /// All that is left, as text.
    pub(crate) fn rest(self) -> Result<&'a str, ValueError> {
        str::from_utf8(self.rest).map_err(|_| self.error())
    }

    pub(crate) fn filter(self) -> Result<TopicFilterBuf, ValueError> {
        let error = self.error();
        TopicFilterBuf::new(self.rest()?).map_err(|_| error)
    }

    /// Whose topic or filter follows.
    pub(crate) fn tenant(&mut self) -> Result<Tenant, ValueError> {
        match self.rest.split_first() {
            Some((&TENANT, rest)) => {
                self.rest = rest;
                Tenant::new(self.text()?).map_err(|_| self.error())
            }
            _ => Ok(Tenant::NONE),
        }
    }

    pub(crate) fn group(mut self) -> Result<GroupName, ValueError> {
        Ok(GroupName::new(self.tenant()?, self.filter()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ValueError> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(|| self.error())?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*number))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ValueError> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(|| self.error())?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*number))
    }

    pub(crate) fn packet_id(&mut self) -> Result<PacketId, ValueError> {
        PacketId::new(self.u16()?).ok_or_else(|| self.error())
    }

    pub(crate) fn session_key(&mut self) -> Result<SessionKey, ValueError> {
        let realm = self.text()?;
        Ok(SessionKey::in_realm(realm, self.text()?))
    }

    /// A QoS, and the flags beside it of those allowed.
    fn flags(&mut self, allowed: u8) -> Result<(QoS, u8), ValueError> {
        let byte = self.byte()?;
        let flags = byte & !0b11;
        let qos = QoS::from_u8(byte & 0b11).ok_or_else(|| self.error())?;
        if flags & !allowed == 0 {
            Ok((qos, flags))
        } else {
            Err(self.error())
        }
    }

    fn message(mut self, topic: Option<&str>) -> Result<StoredMessage, ValueError> {
        let error = self.error();
        let (qos, flags) = self.flags(RETAIN | EXPIRES | PUBLISHER)?;
        let expires_at = if flags & EXPIRES == 0 {
            None
        } else {
            Some(UnixTime::from_millis(self.int()?))
        };
        let publisher = if flags & PUBLISHER == 0 {
            None
        } else {
            Some(self.session_key()?)
        };
        let topic = match (self.text()?, topic) {
            ("", Some(topic)) => topic,
            (own, None) => own,
            (_, Some(_)) => return Err(error),
        };
        let topic_name = TopicName::new(topic).map_err(|_| error)?;
        let properties = MessageProperties::from_wire(self.bytes()?).map_err(|_| error)?;
        let message = Message::with_properties(topic_name, &properties, self.rest);
        let message = message.map_err(|_| error)?;
        let message = message
            .with_qos(qos)
            .with_retain(flags & RETAIN != 0)
            .with_expires_at(expires_at);
        Ok(StoredMessage { message, publisher })
    }
}

/// Checks that a key and its value are understood, for tools that read a store from outside.
pub fn check_key(key: &[u8], value: &[u8]) -> Result<Kind, ValueError> {
    let kind = Kind::of(key).ok_or(ValueError(Kind::Format))?;
    let mut name = Reader::of_key(kind, key);
    let empty = |reader: Reader<'_>| reader.end(());
    match kind {
        Kind::Format | Kind::MessageCount | Kind::Time => {
            name.end(())?;
            let mut value = Reader::new(kind, value);
            value.int()?;
            value.end(())?;
        }
        Kind::Session => {
            name.session_key()?;
            name.end(())?;
            SessionValue::decode(value)?;
        }
        Kind::Will => {
            name.session_key()?;
            name.end(())?;
            WillValue::decode(value)?;
        }
        Kind::Subscription => {
            name.int()?;
            name.filter()?;
            SubscriptionValue::decode(value)?;
        }
        Kind::Awaited => {
            name.int()?;
            name.filter()?;
            decode_awaited(value)?;
        }
        Kind::Received => {
            name.int()?;
            name.packet_id()?;
            name.end(())?;
            empty(Reader::new(kind, value))?;
        }
        Kind::Pubrec => {
            name.int()?;
            name.u64()?;
            name.end(())?;
            empty(Reader::new(kind, value))?;
        }
        Kind::Lifted => {
            name.int()?;
            name.u64()?;
            name.end(())?;
            EntryValue::decode(value)?;
        }
        Kind::Retained => {
            name.tenant()?;
            decode_message(kind, value, Some(name.rest()?))?;
        }
        Kind::Group => {
            name.group()?;
            let mut value = Reader::new(kind, value);
            value.int()?;
            value.end(())?;
        }
        Kind::Base => {
            name.int()?;
            name.end(())?;
            let mut value = Reader::new(kind, value);
            value.int()?;
            value.end(())?;
        }
        Kind::Finished => {
            name.int()?;
            name.u64()?;
            name.end(())?;
            let mut value = Reader::new(kind, value);
            value.int()?;
            value.end(())?;
        }
        Kind::GroupMessage => {
            name.int()?;
            name.u64()?;
            name.end(())?;
            decode_publisher(kind, value)?;
        }
        Kind::OfGroup => {
            name.int()?;
            name.u64()?;
            name.end(())?;
            OfGroupValue::decode(value)?;
        }
        Kind::Unrouted => {
            name.u64()?;
            name.end(())?;
            decode_publisher(kind, value)?;
        }
        Kind::Arrived => {
            name.u64()?;
            name.u16()?;
            name.u16()?;
            name.end(())?;
            decode_shards(kind, value)?;
        }
        // No key has these.
        Kind::Entry | Kind::Message => return Err(ValueError(kind)),
    }
    Ok(kind)
}

/// Checks that an entry of a session's queue is understood.
pub fn check_entry(value: &[u8]) -> Result<(), ValueError> {
    EntryValue::decode(value).map(drop)
}

/// Checks that a blob is understood.
pub fn check_message(blob: &[u8]) -> Result<(), ValueError> {
    decode_message(Kind::Message, blob, None).map(drop)
}
