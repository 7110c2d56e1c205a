//! The exchange of messages on one Network Connection, the same for both roles: the halves of
//! QoS 1 and 2 with what belongs to the connection, Topic Aliases and Maximum Packet Size.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use avocet_codec::{
    Ack, AckType, Delivery, MessageProperties, PacketId, Publish, ReasonCode, Version,
};
use avocet_topic::{TopicName, TopicNameBuf};
use bytes::BufMut;
use core::num::NonZeroU16;

use crate::aliases::{AliasUse, IncomingAliases, OutgoingAliases};
use crate::receiver::{Released, free_spare};
use crate::sender::{Next, PublishFrame};
use crate::transmit::SHARED_MIN;
use crate::{
    AckToken, ConnectionEvent, Expiry, Limits, Now, Outgoing, Session, TransmitBuf, Violation,
};

/// Bytes of an acknowledgement in its shortest form.
pub(crate) const ACK_LEN: usize = 4;

/// Acknowledgements that are taken in a row before their owner hears of them.
const ACKS_AT_ONCE: usize = 64;

/// A PUBLISH that came, with its Topic Alias resolved.
#[derive(Clone, Debug)]
pub struct IncomingPublish<'a> {
    pub(crate) publish: Publish<'a>,
    pub(crate) topic: Topic<'a>,
    /// The packet, if others may get it as it is.
    pub(crate) frame: Option<PublishFrame<'a>>,
}

/// How the Topic Name of a PUBLISH came.
#[derive(Clone, Debug)]
pub(crate) enum Topic<'a> {
    Name(TopicName<'a>),
    Alias(TopicNameBuf),
}

impl<'a> IncomingPublish<'a> {
    /// The Topic Name, from the packet or from its Topic Alias.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        match &self.topic {
            Topic::Name(name) => *name,
            Topic::Alias(name) => name.as_name(),
        }
    }

    /// The properties that belong to the message.
    #[must_use]
    pub const fn properties(&self) -> &MessageProperties<'a> {
        &self.publish.properties
    }

    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.publish.payload
    }

    /// The packet as it came: [`topic_name`](Self::topic_name) says what its alias stands for.
    #[must_use]
    pub const fn received(&self) -> &Publish<'a> {
        &self.publish
    }

    /// The packet with its Topic Name, and without an alias.
    #[must_use]
    pub fn packet(&self) -> Publish<'_> {
        Publish {
            topic_name: Some(self.topic_name()),
            topic_alias: None,
            ..self.publish
        }
    }

    /// The bytes of the packet, if subscribers may get it as it is; none on a client's connection.
    #[must_use]
    pub const fn frame(&self) -> Option<PublishFrame<'a>> {
        self.frame
    }

    /// Whether it is nothing but a message, and a small one: one without RETAIN, Message Expiry Interval
    /// and Subscription Identifiers.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.publish.retain
            && self.publish.message_expiry_interval.is_none()
            && self.publish.subscription_ids.is_empty()
            && self.message_len() < SHARED_MIN
    }

    /// Bytes of Topic Name, properties and payload.
    fn message_len(&self) -> usize {
        let Publish {
            properties,
            payload,
            ..
        } = &self.publish;
        self.topic_name().as_str().len() + properties.encoded_len() + payload.len()
    }
}

/// What this side allows its peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    /// Unlimited in 3.x.
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) topic_alias_maximum: u16,
    /// Whether every QoS 2 message is answered, even if its connection has ended.
    pub(crate) answers_late: bool,
}

/// What the peer allows this side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// The Receive Maximum, or the window of a 3.x connection.
    pub(crate) window: NonZeroU16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) session: Box<Session>,
    /// Whether the Session was moved out; an empty one stands in its place.
    pub(crate) taken: bool,
    version: Version,
    own: Own,
    maximum_packet_size: u32,
    incoming_aliases: IncomingAliases,
    outgoing_aliases: OutgoingAliases,
    pub(crate) events: VecDeque<ConnectionEvent>,
    /// PUBLISH packets written on this connection.
    pub(crate) publishes_sent: u64,
}

impl Exchange {
    pub(crate) fn new(mut session: Box<Session>, version: Version, own: Own, peer: Peer) -> Self {
        session.sender.attach(peer.window);
        session.receiver.detach();
        Self {
            session,
            taken: false,
            version,
            own,
            maximum_packet_size: peer.maximum_packet_size,
            incoming_aliases: IncomingAliases::default(),
            outgoing_aliases: OutgoingAliases::new(peer.topic_alias_maximum),
            events: VecDeque::new(),
            publishes_sent: 0,
        }
    }

    /// PUBLISH: its Topic Name and token; nothing to deliver when a QoS 2 message came before.
    pub(crate) fn receive<'a>(
        &mut self,
        publish: &Publish<'a>,
    ) -> Result<Option<(Topic<'a>, Option<AckToken>)>, Violation> {
        let maximum = self.own.topic_alias_maximum;
        let topic = match (publish.topic_name, publish.topic_alias) {
            (Some(name), Some(alias)) => {
                self.incoming_aliases.set(alias, name, maximum)?;
                Topic::Name(name)
            }
            (Some(name), None) => Topic::Name(name),
            (None, Some(alias)) => Topic::Alias(self.incoming_aliases.resolve(alias, maximum)?),
            (None, None) => return Err(Violation::TopicAliasUnknown),
        };
        let receiver = &mut self.session.receiver;
        let token = match publish.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce(packet_id) => {
                Some(receiver.at_least_once(packet_id, self.own.receive_maximum)?)
            }
            Delivery::ExactlyOnce(packet_id) => {
                match receiver.exactly_once(
                    packet_id,
                    self.own.receive_maximum,
                    self.own.answers_late,
                )? {
                    Some(token) => Some(token),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some((topic, token)))
    }

    /// Queues a PUBLISH as the packet in which it came, if it may leave like that.
    pub(crate) fn enqueue_frame(&mut self, frame: PublishFrame<'_>, limits: &Limits) -> bool {
        frame.suits(self.version)
            && !self.outgoing_aliases.are_allowed()
            && u32::try_from(frame.bytes()).is_ok_and(|len| len <= self.maximum_packet_size)
            && self.session.sender.enqueue_frame(frame, limits)
    }

    /// Takes acknowledgements in their shortest form from the front of `input`; how many. It stops
    /// before a violation, behind one that the owner has to answer, and when `pending_max` wait.
    pub(crate) fn handle_acks(&mut self, input: &[u8], pending_max: usize) -> usize {
        let mut acks = 0;
        let mut rest = input;
        while acks < ACKS_AT_ONCE
            && let Some((packet, behind)) = rest.split_first_chunk::<ACK_LEN>()
            && let Some((ack_type, packet_id)) = AckType::from_success(packet)
        {
            if self.handle_ack(ack_type, Ack::new(packet_id)).is_err() {
                break;
            }
            acks += 1;
            rest = behind;
            let is_answered = matches!(ack_type, AckType::Pubrec | AckType::Pubrel);
            if is_answered && (!self.events.is_empty() || self.pending() >= pending_max) {
                break;
            }
        }
        acks
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    #[inline]
    pub(crate) fn handle_ack(&mut self, ack_type: AckType, ack: Ack<'_>) -> Result<(), Violation> {
        let Ack {
            packet_id,
            reason_code,
            ..
        } = ack;
        let Session {
            sender, receiver, ..
        } = &mut *self.session;
        match ack_type {
            AckType::Puback => sender.puback(packet_id, reason_code, &mut self.events),
            AckType::Pubrec => sender.pubrec(packet_id, reason_code, &mut self.events),
            AckType::Pubcomp => sender.pubcomp(packet_id, reason_code, &mut self.events),
            AckType::Pubrel => {
                if receiver.release(packet_id) == Released::Stored {
                    self.events.push_back(ConnectionEvent::Pubrel { packet_id });
                }
                Ok(())
            }
        }
    }

    /// Acknowledgements that have not left; the peer's doing is bounded by pausing on them.
    pub(crate) fn pending(&self) -> usize {
        self.session.receiver.pending() + self.session.sender.pending()
    }

    /// Frees what empty queues keep for the next messages.
    pub(crate) fn free_spare(&mut self) {
        self.session.sender.free_spare();
        self.session.receiver.free_spare();
        free_spare(&mut self.events);
    }

    /// Whether there is something that may leave.
    pub(crate) fn has_output(&self) -> bool {
        self.pending() > 0 || self.session.has_messages_to_send()
    }

    /// Whether an acknowledgement waits for this side rather than for the peer to read.
    pub(crate) fn waits(&self) -> bool {
        self.session.receiver.waits(self.session.committed())
    }

    /// Writes what may leave until `out` is full: acknowledgements first. How many packets.
    pub(crate) fn transmit(
        &mut self,
        now: Now,
        out: &mut TransmitBuf,
        messages_left: &mut u16,
    ) -> usize {
        let version = self.version;
        let maximum = self.maximum_packet_size;
        let committed = self.session.committed();
        let Session {
            sender, receiver, ..
        } = &mut *self.session;
        let mut packets = 0;
        while !out.is_full()
            && let Some(ack) = receiver.poll(committed)
        {
            write_ack(ack.kind, ack.packet_id, ack.reason_code, version, out);
            packets += 1;
        }
        while !out.is_full() {
            let mut written = 0;
            let messages = *messages_left > 0;
            let polled = sender.poll(now, committed, messages, &mut self.events, |next| {
                let publishes = match next {
                    Next::Publish {
                        outgoing,
                        packet_id,
                        dup,
                    } => {
                        let writer = PublishWriter {
                            version,
                            outgoing,
                            packet_id: packet_id.map(|id| id.get()),
                            flags: flags(outgoing, dup),
                            now,
                        };
                        usize::from(writer.write(maximum, &mut self.outgoing_aliases, out))
                    }
                    Next::Pubrel {
                        packet_id,
                        reason_code,
                    } => {
                        write_ack(AckType::Pubrel, packet_id, reason_code, version, out);
                        written += 1;
                        return true;
                    }
                    Next::Frames(frames) => frames.write(out),
                };
                self.publishes_sent += publishes as u64;
                written += publishes;
                publishes > 0
            });
            if !polled {
                break;
            }
            packets += written;
            if *messages_left < u16::MAX {
                let written = u16::try_from(written).unwrap_or(u16::MAX);
                *messages_left = messages_left.saturating_sub(written);
            }
        }
        packets
    }
}

#[inline]
fn write_ack(
    ack_type: AckType,
    packet_id: PacketId,
    reason_code: ReasonCode,
    version: Version,
    out: &mut TransmitBuf,
) {
    if reason_code == ReasonCode::Success || version != Version::V5 {
        out.put_slice(&ack_type.success(packet_id));
    } else {
        let ack = Ack::with_reason(packet_id, reason_code);
        let written = ack.encode(ack_type, version, &mut out.frame());
        debug_assert!(
            written.is_ok(),
            "an acknowledgement that cannot be written: {written:?}"
        );
    }
}

fn flags(outgoing: &Outgoing, dup: bool) -> u8 {
    u8::from(dup) << 3 | (outgoing.qos as u8) << 1 | u8::from(outgoing.retain)
}

/// Writes a PUBLISH straight from the message's memory, whose properties are in wire form.
struct PublishWriter<'a> {
    version: Version,
    outgoing: &'a Outgoing,
    packet_id: Option<u16>,
    flags: u8,
    now: Now,
}

/// The lengths that a PUBLISH carries.
#[derive(Clone, Copy)]
struct Lengths {
    properties: u32,
    remaining: u32,
    packet: u32,
}

/// The greatest value of a Variable Byte Integer.
const VARIABLE_MAX: usize = 268_435_455;

impl PublishWriter<'_> {
    /// False, and nothing written, if it takes more than `maximum` bytes.
    #[inline]
    fn write(&self, maximum: u32, aliases: &mut OutgoingAliases, out: &mut TransmitBuf) -> bool {
        if self.version == Version::V5 && aliases.are_allowed() {
            return self.write_aliased(maximum, aliases, out);
        }
        let topic = self.outgoing.message.topic_bytes();
        match self.lengths(topic.len(), false) {
            Some(lengths) if lengths.packet <= maximum => {
                self.write_packet(lengths, topic, None, out);
                true
            }
            Some(_) | None => false,
        }
    }

    #[inline(never)]
    fn write_aliased(
        &self,
        maximum: u32,
        aliases: &mut OutgoingAliases,
        out: &mut TransmitBuf,
    ) -> bool {
        let topic = self.outgoing.message.topic_bytes();
        let fits = |lengths: &Lengths| lengths.packet <= maximum;
        let plain = self.lengths(topic.len(), false).filter(fits);
        let with_alias = self.lengths(topic.len(), true);
        let alias = aliases.choose(topic, with_alias.is_some_and(|lengths| fits(&lengths)));
        let alias = match alias {
            AliasUse::Set(alias) if planted!(AliasSurvives) && self.flags & 0x08 != 0 => {
                AliasUse::Known(alias)
            }
            AliasUse::None | AliasUse::Set(_) | AliasUse::Known(_) => alias,
        };
        let (topic, lengths, alias) = match alias {
            AliasUse::None => (topic, plain, None),
            AliasUse::Set(alias) => (topic, with_alias, Some(alias)),
            AliasUse::Known(alias) => (&[][..], self.lengths(0, true).filter(fits), Some(alias)),
        };
        let Some(lengths) = lengths else { return false };
        self.write_packet(lengths, topic, alias, out);
        true
    }

    #[inline(always)]
    fn write_packet(
        &self,
        lengths: Lengths,
        topic: &[u8],
        alias: Option<NonZeroU16>,
        out: &mut TransmitBuf,
    ) {
        let message = &self.outgoing.message;
        self.write_header(lengths, topic, alias, out);
        let payload = message.payload();
        if payload.len() < SHARED_MIN {
            out.put_slice(payload);
        } else {
            out.put_shared(message.payload_bytes());
        }
    }

    fn expiry(&self) -> Option<u32> {
        match self.outgoing.message.remaining_expiry(self.now.unix) {
            Expiry::Never => None,
            Expiry::Seconds(seconds) => Some(seconds),
            // Sent before, so it is sent again.
            Expiry::Expired => Some(0),
        }
    }

    /// `None` for more than any packet may have.
    #[inline(always)]
    fn lengths(&self, topic_len: usize, alias: bool) -> Option<Lengths> {
        let message = &self.outgoing.message;
        let mut remaining = 2 + topic_len + message.payload().len();
        if self.packet_id.is_some() {
            remaining += 2;
        }
        let mut properties = 0;
        if self.version == Version::V5 {
            properties = message.properties_bytes().len();
            if alias {
                properties += 3;
            }
            if message.expires_at().is_some() {
                properties += 5;
            }
            for id in self.outgoing.subscription_ids() {
                properties += 1 + variable_len(id.get());
            }
            remaining += properties;
            remaining += variable_len(u32::try_from(properties).ok()?);
        }
        if remaining > VARIABLE_MAX {
            return None;
        }
        let remaining = u32::try_from(remaining).ok()?;
        let fixed_header = u32::try_from(1 + variable_len(remaining)).ok()?;
        Some(Lengths {
            properties: u32::try_from(properties).ok()?,
            remaining,
            packet: fixed_header + remaining,
        })
    }

    #[inline(always)]
    fn write_header(
        &self,
        lengths: Lengths,
        topic: &[u8],
        alias: Option<NonZeroU16>,
        out: &mut TransmitBuf,
    ) {
        const PUBLISH: u8 = 0x30;
        const TOPIC_ALIAS: u8 = 0x23;
        const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
        const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;

        let mut out = out.frame();
        let first_byte = PUBLISH | self.flags;
        let [high, low] = u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes();
        if lengths.remaining < 0x80 {
            out.put_slice(&[first_byte, lengths.remaining as u8, high, low]);
        } else {
            out.put_u8(first_byte);
            put_variable(&mut out, lengths.remaining);
            out.put_slice(&[high, low]);
        }
        out.put_slice(topic);
        let without_properties = self.version == Version::V5 && lengths.properties == 0;
        match self.packet_id.map(u16::to_be_bytes) {
            Some([high, low]) if without_properties => out.put_slice(&[high, low, 0]),
            Some(packet_id) => out.put_slice(&packet_id),
            None if without_properties => out.put_slice(&[0]),
            None => {}
        }
        if self.version == Version::V5 && !without_properties {
            put_variable(&mut out, lengths.properties);
            if let Some(alias) = alias {
                out.put_u8(TOPIC_ALIAS);
                out.put_u16(alias.get());
            }
            if let Some(seconds) = self.expiry() {
                out.put_u8(MESSAGE_EXPIRY_INTERVAL);
                out.put_u32(seconds);
            }
            for id in self.outgoing.subscription_ids() {
                out.put_u8(SUBSCRIPTION_IDENTIFIER);
                put_variable(&mut out, id.get());
            }
            out.put_slice(self.outgoing.message.properties_bytes());
        }
    }
}

fn variable_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put_variable(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
