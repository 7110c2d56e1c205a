//! PUBLISH packets that wait in the form in which they came and leave.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use avocet_codec::{Delivery, Publish, QoS, Version, frame_len};
use avocet_topic::TopicName;
use bytes::{Buf, Bytes};
use core::mem;
use core::ops::Range;

use super::{InFlight, Next, PACKET_IDS, Queued, Sender, State, message_bytes, packet_id};
use crate::transmit::SHARED_MIN;
use crate::{
    DropReason, Dropped, IncomingPublish, Limits, Message, Outgoing, TransmitBuf, UnixTime,
};

/// A PUBLISH as it came, with nothing in it that is for its own connection only, but for the Packet
/// Identifier of one of QoS 1: whoever subscribes in the same form of PUBLISH may get these bytes. Or
/// some in a row, to the same topic.
#[derive(Clone, Copy, Debug)]
pub struct PublishFrame<'a> {
    bytes: &'a [u8],
    packets: usize,
    version: Version,
    qos: QoS,
    tag: u64,
}

/// The first byte of a PUBLISH of QoS 0, and of QoS 1, without DUP and RETAIN.
const PLAIN: u8 = 0x30;
const ACKNOWLEDGED: u8 = 0x32;

const DUP: u8 = 0x08;

/// Bytes of a Packet Identifier, and of the length of a Topic Name.
const NUMBER_LEN: usize = 2;

/// Whether the Remaining Length of a packet ends with a byte that says something. 3.x lets a client write it
/// with more, which another one may not expect.
fn is_shortest(packet: &[u8]) -> bool {
    let length = packet.get(1..).unwrap_or_default();
    match length.iter().position(|byte| byte & 0x80 == 0) {
        None | Some(0) => true,
        Some(last) => length.get(last) != Some(&0),
    }
}

impl<'a> PublishFrame<'a> {
    /// `None` if the packet has QoS 2, RETAIN, a Topic Alias, a Message Expiry Interval or more bytes in its
    /// Remaining Length than that needs, or if it has QoS 1 and is so large that its memory is shared.
    pub(crate) fn new(bytes: &'a [u8], publish: &Publish<'_>, version: Version) -> Option<Self> {
        let qos = match bytes.first()? {
            &PLAIN => QoS::AtMostOnce,
            first if first & !DUP == ACKNOWLEDGED && bytes.len() < SHARED_MIN => QoS::AtLeastOnce,
            _ => return None,
        };
        let plain = publish.topic_alias.is_none()
            && publish.message_expiry_interval.is_none()
            && publish.subscription_ids.is_empty()
            && is_shortest(bytes);
        plain.then_some(Self {
            bytes,
            packets: 1,
            version,
            qos,
            tag: 0,
        })
    }

    /// The same packet with the mark that its [`Outgoing`] is to have, if it is made a message again.
    #[must_use]
    pub const fn with_tag(self, tag: u64) -> Self {
        Self { tag, ..self }
    }

    /// Whether it is so large that a message which is shared costs less than a copy for each of some
    /// subscribers.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.bytes.len() >= SHARED_MIN
    }

    /// 0 or 1.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Bytes of the packet, or of all of them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many packets.
    #[must_use]
    pub const fn packets(&self) -> usize {
        self.packets
    }

    /// Each packet.
    pub fn each(&self) -> impl Iterator<Item = Self> + use<'a> {
        let (mut rest, all) = (self.bytes, *self);
        core::iter::from_fn(move || {
            let (bytes, behind) = rest.split_at_checked(first_len(rest))?;
            rest = behind;
            (!bytes.is_empty()).then_some(Self {
                bytes,
                packets: 1,
                ..all
            })
        })
    }

    /// The version of the connection from which it came.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The bytes of the Topic Name.
    #[must_use]
    pub fn topic_bytes(&self) -> &'a [u8] {
        self.bytes.get(topic_range(self.bytes)).unwrap_or_default()
    }

    /// The Topic Name.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'a> {
        let text = core::str::from_utf8(self.topic_bytes()).ok();
        let name = text.and_then(|text| TopicName::new(text).ok());
        name.expect("only `new` sets the bytes, from a PUBLISH with a Topic Name")
    }

    /// What is published, with the first packet.
    #[must_use]
    pub fn message(&self) -> Message {
        let first = self.bytes.get(..first_len(self.bytes));
        let publish = Publish::decode(first.unwrap_or_default(), self.version);
        let publish = publish.expect("only `new` sets the bytes, from a PUBLISH");
        // Without a Message Expiry Interval the time says nothing.
        Message::from_publish(&publish, self.topic_name(), UnixTime::default())
    }

    /// Whether a PUBLISH of this version has the same form: 3.x knows no properties.
    pub(crate) fn suits(&self, version: Version) -> bool {
        (self.version == Version::V5) == (version == Version::V5)
    }
}

/// Packets of one QoS from one Network Connection on their way to another shard, oldest first. Those of
/// QoS 2 have the form of QoS 0, as their Packet Identifiers say nothing there.
#[derive(Clone, Debug)]
pub struct PublishFrames {
    bytes: Vec<u8>,
    packets: usize,
    version: Version,
    qos: QoS,
}

impl PublishFrames {
    /// Room for packets of a connection of this version, in this memory, of which the contents are
    /// forgotten.
    #[must_use]
    pub fn new(version: Version, qos: QoS, mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self {
            bytes: memory,
            packets: 0,
            version,
            qos,
        }
    }

    /// With which they were published.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// The memory that they took.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds a packet of that connection and QoS; how many bytes that are.
    pub fn push(&mut self, frame: PublishFrame<'_>) -> usize {
        debug_assert!(frame.version == self.version, "of another connection");
        debug_assert!(frame.qos == self.qos, "of another QoS");
        self.bytes.extend_from_slice(frame.bytes);
        self.packets += frame.packets;
        frame.bytes.len()
    }

    /// Adds what [is plain](IncomingPublish::is_plain) and of that connection and QoS; how many bytes
    /// that are.
    pub fn push_publish(&mut self, publish: &IncomingPublish<'_>) -> usize {
        debug_assert!(publish.is_plain(), "that would be lost");
        if let Some(frame) = publish.frame() {
            return self.push(frame);
        }
        let packet = publish.packet();
        let delivery = match packet.delivery {
            Delivery::AtMostOnce | Delivery::ExactlyOnce(_) => Delivery::AtMostOnce,
            acknowledged @ Delivery::AtLeastOnce(_) => acknowledged,
        };
        let plain = Publish {
            dup: false,
            delivery,
            ..packet
        };
        let before = self.bytes.len();
        match plain.encode(self.version, &mut self.bytes) {
            Ok(()) => self.packets += 1,
            Err(error) => debug_assert!(false, "what was decoded cannot be encoded: {error}"),
        }
        self.bytes.len() - before
    }

    /// How many packets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.packets
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Bytes of all packets.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The packets, those to one topic that follow each other together.
    pub fn iter(&self) -> impl Iterator<Item = PublishFrame<'_>> {
        let mut rest = self.bytes.as_slice();
        let qos = match self.qos {
            QoS::AtMostOnce | QoS::ExactlyOnce => QoS::AtMostOnce,
            QoS::AtLeastOnce => QoS::AtLeastOnce,
        };
        let at = move |bytes| PublishFrame {
            bytes,
            packets: 1,
            version: self.version,
            qos,
            tag: 0,
        };
        let next = move || {
            let mut run = at(rest.get(..first_len(rest))?);
            if run.bytes.is_empty() {
                return None;
            }
            let topic = run.topic_bytes();
            loop {
                let behind = rest.get(run.bytes.len()..)?;
                let next = at(behind.get(..first_len(behind))?);
                if next.bytes.is_empty() || next.topic_bytes() != topic {
                    rest = behind;
                    return Some(run);
                }
                run.bytes = rest.get(..run.bytes.len() + next.bytes.len())?;
                run.packets += 1;
            }
        };
        core::iter::from_fn(next)
    }
}

/// Packets for one Network Connection, oldest first: a message among them takes no allocation of its own
/// and is not encoded again.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Bytes that have left.
    start: usize,
    packets: usize,
    /// Packets of QoS 1 among them, and the sequence of the first one; those of the others follow it.
    acknowledged: usize,
    sequence: u64,
    /// How many of these may leave.
    window: usize,
    /// Whether they have the form of 5.0.
    with_properties: bool,
    /// The mark of each of them.
    tag: u64,
    /// Bytes that left last: as many are likely to come again.
    usual: usize,
}

/// Capacity in bytes that an empty queue may keep; more is given back.
const KEPT_BYTES: usize = 4096;

/// Bytes for which room is made at once when so many left last time.
const USUAL_MAX: usize = 64 << 10;

/// Bytes of packets that wait in this form; those behind wait as messages, which do not grow in one
/// piece.
const WAITING_MAX: u64 = 1 << 20;

impl Frames {
    /// How many packets wait.
    pub(crate) const fn len(&self) -> usize {
        self.packets
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        (self.bytes.len() - self.start) as u64
    }

    pub(crate) fn push(&mut self, frame: PublishFrame<'_>) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(self.usual);
        }
        self.with_properties = frame.version == Version::V5;
        self.tag = frame.tag;
        self.bytes.extend_from_slice(frame.bytes);
        self.packets += frame.packets;
    }

    /// Adds a packet of QoS 1, with the Packet Identifier of this sequence.
    fn push_acknowledged(&mut self, frame: PublishFrame<'_>, sequence: u64) {
        if self.acknowledged == 0 {
            self.sequence = sequence;
        }
        self.acknowledged += 1;
        self.push(frame);
        let start = self.bytes.len() - frame.bytes.len();
        let Some(packet) = self.bytes.get_mut(start..) else {
            return;
        };
        if let Some(first) = packet.first_mut() {
            // DUP is the publisher's [MQTT5-3.3.1-3] [MQTT311-3.3.1-3].
            *first = ACKNOWLEDGED;
        }
        let behind = topic_range(packet).end;
        if let Some(id) = packet.get_mut(behind..behind + NUMBER_LEN) {
            id.copy_from_slice(&packet_id(sequence).get().to_be_bytes());
        }
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn forget(&mut self, packets: usize, acknowledged: usize, bytes: usize) {
        self.packets -= packets;
        self.acknowledged -= acknowledged;
        self.sequence += acknowledged as u64;
        self.start += bytes;
        if self.packets == 0 {
            self.start = 0;
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        }
    }

    /// Frees what an empty queue keeps.
    pub(super) fn free_spare(&mut self) {
        if self.packets == 0 {
            self.bytes = Vec::new();
        }
    }

    /// The bytes of all packets; none are left.
    fn take(&mut self) -> Bytes {
        let mut bytes = Bytes::from(mem::take(&mut self.bytes));
        bytes.advance(mem::take(&mut self.start));
        self.packets = 0;
        self.sequence += mem::take(&mut self.acknowledged) as u64;
        bytes
    }

    /// Puts packets into `out` until it is full, or the window is; how many.
    pub(crate) fn write(&mut self, out: &mut TransmitBuf) -> usize {
        let waiting = self.waiting();
        let (mut packets, mut bytes) = (self.packets, waiting.len());
        let mut acknowledged = self.acknowledged;
        if bytes > out.room() || acknowledged > self.window {
            (packets, acknowledged, bytes) = (0, 0, 0);
            while bytes < out.room() && packets < self.packets {
                let rest = waiting.get(bytes..).unwrap_or_default();
                let one = usize::from(is_acknowledged(rest));
                if acknowledged + one > self.window {
                    break;
                }
                packets += 1;
                acknowledged += one;
                bytes += first_len(rest);
            }
        }
        if packets == self.packets && bytes >= SHARED_MIN {
            out.put_shared(self.take());
        } else {
            out.put_slice(waiting.get(..bytes).unwrap_or_default());
            self.forget(packets, acknowledged, bytes);
        }
        self.usual = bytes.min(USUAL_MAX);
        packets
    }

    /// Drops the oldest packet; its QoS, none if there is none.
    pub(crate) fn pop(&mut self) -> Option<QoS> {
        if self.packets == 0 {
            return None;
        }
        let (bytes, acknowledged) = (first_len(self.waiting()), is_acknowledged(self.waiting()));
        self.forget(1, acknowledged.into(), bytes);
        Some(if acknowledged {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        })
    }

    /// The messages in these packets, oldest first, of which those of QoS 0 go before one with this
    /// sequence if none of QoS 1 follows; none are left.
    pub(super) fn unpack(&mut self, before: u64) -> VecDeque<Queued> {
        let version = if self.with_properties {
            Version::V5
        } else {
            Version::V3_1_1
        };
        let mut messages = VecDeque::with_capacity(self.packets);
        let mut sequence = if self.acknowledged > 0 {
            self.sequence
        } else {
            before
        };
        let mut rest = self.waiting();
        while let Some((frame, behind)) = rest.split_at_checked(first_len(rest))
            && let Ok(publish) = Publish::decode(frame, version)
            && let Some(topic_name) = publish.topic_name
        {
            // Without a Message Expiry Interval the time says nothing.
            let message = Message::from_publish(&publish, topic_name, UnixTime::default());
            let outgoing = Outgoing {
                tag: self.tag,
                ..Outgoing::new(message)
            };
            messages.push_back(Queued { sequence, outgoing });
            sequence += u64::from(is_acknowledged(frame));
            rest = behind;
        }
        debug_assert!(rest.is_empty(), "what came as a packet is one");
        *self = Self::default();
        messages
    }
}

impl Sender {
    /// Queues a packet, or some of QoS 0, as they are. False, and nothing queued, if they are to be
    /// messages: they stand behind one or behind packets with another mark, or a limit is reached.
    ///
    /// One of QoS 1 is not kept once it has left, so this is for a Session that ends with its Network
    /// Connection.
    pub(crate) fn enqueue_frame(&mut self, frame: PublishFrame<'_>, limits: &Limits) -> bool {
        let bytes = frame.bytes() as u64;
        let acknowledged = frame.qos != QoS::AtMostOnce;
        let behind = !self.queued.is_empty()
            || !self.qos0.is_empty()
            || self.stored > 0
            || self.frames.len() > 0 && self.frames.tag != frame.tag;
        if behind
            || !self.is_connected()
            || self.frames.len() + frame.packets > limits.queued_messages_max
            || self.frames.bytes() + bytes > limits.queued_bytes_max.min(WAITING_MAX)
            || if acknowledged {
                frame.packets > 1 || !self.follows_frames()
            } else {
                // It would wait for PUBACKs.
                self.frames.acknowledged > self.room_in_window()
            }
        {
            return false;
        }
        self.resident_bytes += bytes;
        if acknowledged {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.frames.push_acknowledged(frame, sequence);
        } else {
            self.frames.push(frame);
        }
        true
    }

    /// Whether the next message of QoS 1 may be a packet behind those that are ready.
    fn follows_frames(&self) -> bool {
        let waiting = self.frames.acknowledged;
        let first = match self.inflight.front() {
            Some(first) => first.sequence,
            None if waiting > 0 => self.frames.sequence,
            None => self.next_sequence,
        };
        (waiting == 0 || self.frames.sequence + waiting as u64 == self.next_sequence)
            && !self.is_resending()
            && self.next_sequence - first < PACKET_IDS
            && self.requests.is_empty()
    }

    /// How many messages of QoS 1 and 2 may leave [MQTT5-3.3.4-7] [MQTT5-3.3.4-9] [MQTT5-4.9.0-2].
    fn room_in_window(&self) -> usize {
        self.window.saturating_sub(self.outstanding).into()
    }

    /// Makes messages of the packets that are ready to leave.
    pub(super) fn unpack_frames(&mut self) {
        if self.frames.len() == 0 {
            return;
        }
        self.resident_bytes -= self.frames.bytes();
        let before = self.frames_sequence();
        for queued in self.frames.unpack(before).into_iter().rev() {
            self.resident_bytes += message_bytes(&queued.outgoing);
            let queue = if queued.outgoing.qos == QoS::AtMostOnce {
                &mut self.qos0
            } else {
                &mut self.queued
            };
            queue.push_front(queued);
        }
    }

    /// Drops the packets that are ready to leave, unless they have a mark or some are of QoS 1; how
    /// many.
    pub(crate) fn drop_frames(&mut self) -> usize {
        if self.frames.tag != 0 || self.frames.acknowledged > 0 {
            return 0;
        }
        self.resident_bytes -= self.frames.bytes();
        mem::take(&mut self.frames).len()
    }

    /// The sequence of the first message of QoS 1 that is ready, or the one before which the packets
    /// leave that are.
    fn frames_sequence(&self) -> u64 {
        if self.frames.acknowledged > 0 {
            return self.frames.sequence;
        }
        let next = self.queued.front().map(|next| next.sequence);
        next.unwrap_or(self.next_sequence - self.stored)
    }

    pub(super) fn drop_oldest_frame(&mut self) -> Option<Dropped> {
        let (before, tag) = (self.frames.bytes(), self.frames.tag);
        let sequence = self.frames_sequence();
        let qos = self.frames.pop()?;
        self.resident_bytes -= before - self.frames.bytes();
        Some(Dropped {
            sequence,
            qos,
            tag,
            stored: false,
            reason: DropReason::QueueFull,
        })
    }

    pub(super) fn poll_frames(&mut self, write: &mut impl FnMut(Next<'_>) -> bool) -> bool {
        if self.frames.len() == 0 {
            return false;
        }
        let (before, first) = (self.frames.bytes(), self.frames.sequence);
        let acknowledged = self.frames.acknowledged;
        if acknowledged > 0 {
            self.frames.window = self.room_in_window();
            if self.frames.window == 0 && is_acknowledged(self.frames.waiting()) {
                return false;
            }
        }
        let written = write(Next::Frames(&mut self.frames));
        self.resident_bytes -= before - self.frames.bytes();
        let sent = acknowledged - self.frames.acknowledged;
        if sent > 0 {
            self.wait_for_pubacks(first, sent);
        }
        written
    }

    /// So many messages have left as packets, from this sequence on.
    fn wait_for_pubacks(&mut self, first: u64, sent: usize) {
        debug_assert!(!self.is_resending(), "they would be sent out of turn");
        let sequences = first..first + sent as u64;
        self.inflight.extend(sequences.map(|sequence| InFlight {
            sequence,
            counted: true,
            state: State::Sent,
        }));
        self.live += sent;
        self.outstanding = self
            .outstanding
            .saturating_add(u16::try_from(sent).unwrap_or(u16::MAX));
        self.resend = self.inflight.len();
    }
}

/// Where the Topic Name of a PUBLISH is.
fn topic_range(packet: &[u8]) -> Range<usize> {
    let last = packet.iter().skip(1).position(|byte| *byte < 0x80);
    let start = last.map_or(0, |last| last + 2);
    let len = packet.get(start..).and_then(<[u8]>::first_chunk);
    let len = len.map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
    start + NUMBER_LEN..start + NUMBER_LEN + len
}

/// Whether the first packet has QoS 1.
fn is_acknowledged(packets: &[u8]) -> bool {
    packets.first() == Some(&ACKNOWLEDGED)
}

/// The length of the first packet; 0 if there is none.
fn first_len(packets: &[u8]) -> usize {
    let len = frame_len(packets, u32::MAX).ok().flatten();
    len.unwrap_or(packets.len()).min(packets.len())
}

#[cfg(test)]
mod tests {
    use avocet_topic::TopicName;

    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let topic_name = TopicName::new("a").unwrap();
        let publish = Publish::new(topic_name, Delivery::AtMostOnce, payload);
        let mut bytes = Vec::new();
        publish.encode(Version::V3_1_1, &mut bytes).unwrap();
        bytes
    }

    fn push(frames: &mut Frames, bytes: &[u8]) {
        let publish = Publish::decode(bytes, Version::V3_1_1).unwrap();
        frames.push(PublishFrame::new(bytes, &publish, Version::V3_1_1).unwrap());
    }

    #[test]
    fn a_longer_remaining_length_than_needed_is_not_passed_on() {
        for len in [1, 200, 20_000] {
            let packet = packet(&[7].repeat(len));
            let publish = Publish::decode(&packet, Version::V3_1_1).unwrap();
            assert!(PublishFrame::new(&packet, &publish, Version::V3_1_1).is_some());
            let last = 1 + packet[1..]
                .iter()
                .position(|byte| byte & 0x80 == 0)
                .unwrap();
            let mut longer = packet.clone();
            longer[last] |= 0x80;
            longer.insert(last + 1, 0);
            let publish = Publish::decode(&longer, Version::V3_1_1).unwrap();
            assert_eq!(publish.payload.len(), len);
            assert!(PublishFrame::new(&longer, &publish, Version::V3_1_1).is_none());
        }
    }

    /// A packet begun below the limit is taken whole, and none behind it.
    #[test]
    fn packets_leave_whole_while_there_is_room() {
        let packets: Vec<_> = (0..100_u8).map(|n| packet(&[n].repeat(n.into()))).collect();
        let mut frames = Frames::default();
        let mut out = TransmitBuf::new(1_000);
        let mut written = Vec::new();
        for pair in packets.chunks(2) {
            pair.iter().for_each(|bytes| push(&mut frames, bytes));
            // Slower than they come.
            if frames.len() % 3 == 0 {
                frames.write(&mut out);
                assert!(out.len() < 1_000 + packets[99].len());
                out.slices()
                    .for_each(|slice| written.extend_from_slice(slice));
                out.clear();
            }
        }
        while frames.write(&mut out) > 0 {
            out.slices()
                .for_each(|slice| written.extend_from_slice(slice));
            out.clear();
        }
        assert_eq!(written, packets.concat());
        assert_eq!((frames.len(), frames.bytes()), (0, 0));
    }

    fn packet_to(topic: &str, payload: &[u8]) -> Vec<u8> {
        let publish = Publish::new(
            TopicName::new(topic).unwrap(),
            Delivery::AtMostOnce,
            payload,
        );
        let mut bytes = Vec::new();
        publish.encode(Version::V3_1_1, &mut bytes).unwrap();
        bytes
    }

    fn frame(bytes: &[u8]) -> PublishFrame<'_> {
        let publish = Publish::decode(bytes, Version::V3_1_1).unwrap();
        PublishFrame::new(bytes, &publish, Version::V3_1_1).unwrap()
    }

    #[test]
    fn packets_on_their_way_to_another_shard_say_what_they_are() {
        let topics = ["a", "a", "b", "a", "aa", "aa", "aa"];
        let packets: Vec<_> = (0..)
            .zip(topics)
            .map(|(n, topic)| packet_to(topic, &[n].repeat(100 * usize::from(n))))
            .collect();
        let mut forwarded = PublishFrames::new(Version::V3_1_1, QoS::AtMostOnce, Vec::from([7]));
        assert!(forwarded.is_empty());
        let pushed: usize = packets.iter().map(|it| forwarded.push(frame(it))).sum();
        assert_eq!(packets.concat().len(), pushed);
        assert_eq!((forwarded.bytes(), forwarded.len()), (pushed, topics.len()));
        let runs: Vec<_> = forwarded.iter().collect();
        let described: Vec<_> = runs
            .iter()
            .map(|run| (run.topic_name().as_str(), run.packets()))
            .collect();
        assert_eq!(described, [("a", 2), ("b", 1), ("a", 1), ("aa", 3)]);
        let bytes = runs.iter().map(PublishFrame::bytes);
        assert_eq!(bytes.sum::<usize>(), pushed);
        let each: Vec<_> = runs.iter().flat_map(PublishFrame::each).collect();
        assert_eq!(each.len(), packets.len());
        for (came, packet) in each.iter().zip(&packets) {
            assert_eq!((came.bytes(), came.packets()), (packet.len(), 1));
            let publish = Publish::decode(packet, Version::V3_1_1).unwrap();
            assert_eq!(Some(came.topic_name()), publish.topic_name);
            assert_eq!(came.message().payload(), publish.payload);
        }
        assert_eq!(runs[3].message().payload(), [4].repeat(400));
    }

    /// Packets that are queued all at once are those that would be queued one by one.
    #[test]
    fn packets_that_come_together_leave_one_by_one() {
        let packets = [packet(b"1"), packet(b"22"), packet(b"333")].concat();
        let mut forwarded = PublishFrames::new(Version::V3_1_1, QoS::AtMostOnce, Vec::from([7]));
        for run in [
            frame(&packet(b"1")),
            frame(&packet(b"22")),
            frame(&packet(b"333")),
        ] {
            forwarded.push(run);
        }
        let run = forwarded.iter().next().unwrap();
        let mut frames = Frames::default();
        frames.push(run);
        assert_eq!((frames.len(), frames.bytes()), (3, packets.len() as u64));
        assert_eq!(frames.pop(), Some(QoS::AtMostOnce));
        assert_eq!(frames.len(), 2);
        let payloads = frames.unpack(1);
        let payloads: Vec<_> = payloads
            .iter()
            .map(|it| it.outgoing.message.payload())
            .collect();
        assert_eq!(payloads, [&b"22"[..], b"333"]);
    }

    /// DUP and a Topic Alias are for one connection, and so is the Packet Identifier, which only QoS 1
    /// has room for; Subscription Identifiers, RETAIN and what expires go another way.
    #[test]
    fn what_is_published_with_qos_1_and_2_travels_as_qos_1_and_0() {
        let id = avocet_codec::PacketId::new(7).unwrap();
        let name = TopicName::new("a/b").unwrap();
        let came = |publish| IncomingPublish {
            publish,
            topic: crate::exchange::Topic::Alias(name.to_buf()),
            frame: None,
        };
        let of = |delivery| Publish {
            dup: true,
            topic_name: None,
            topic_alias: core::num::NonZeroU16::new(3),
            ..Publish::new(name, delivery, b"payload")
        };
        for (delivery, form) in [
            (Delivery::AtLeastOnce(id), QoS::AtLeastOnce),
            (Delivery::ExactlyOnce(id), QoS::AtMostOnce),
        ] {
            let mut forwarded = PublishFrames::new(Version::V5, delivery.qos(), Vec::new());
            let bytes = forwarded.push_publish(&came(of(delivery)));
            assert_eq!((forwarded.bytes(), forwarded.len()), (bytes, 1));
            assert_eq!(forwarded.qos(), delivery.qos());
            let frame = forwarded.iter().next().unwrap();
            let expected = Message::new(name, b"payload").with_qos(form);
            assert_eq!((frame.message(), frame.topic_name()), (expected, name));
            assert_eq!(frame.qos(), form);
        }
        let publish = of(Delivery::ExactlyOnce(id));
        let plain = |publish| came(publish).is_plain();
        assert!(plain(publish));
        let retain = true;
        assert!(!plain(Publish { retain, ..publish }));
        let message_expiry_interval = Some(1);
        assert!(!plain(Publish {
            message_expiry_interval,
            ..publish
        }));
        let payload = &[0; SHARED_MIN];
        assert!(!plain(Publish { payload, ..publish }));
    }

    /// DUP, QoS, RETAIN, Topic Alias and Message Expiry Interval are for one connection.
    #[test]
    fn only_packets_without_anything_of_their_connection_leave_as_they_came() {
        let plain = Publish::new(TopicName::new("a").unwrap(), Delivery::AtMostOnce, b"");
        let is_frame = |publish: Publish<'_>, version| {
            let mut bytes = Vec::new();
            publish.encode(version, &mut bytes).unwrap();
            PublishFrame::new(&bytes, &publish, version).is_some()
        };
        assert!(is_frame(plain, Version::V5));
        assert!(is_frame(plain, Version::V3_1));
        let retain = true;
        assert!(!is_frame(Publish { retain, ..plain }, Version::V5));
        let topic_alias = core::num::NonZeroU16::new(1);
        assert!(!is_frame(
            Publish {
                topic_alias,
                ..plain
            },
            Version::V5
        ));
        let message_expiry_interval = Some(1);
        assert!(!is_frame(
            Publish {
                message_expiry_interval,
                ..plain
            },
            Version::V5
        ));
        // 3.1 gives DUP no meaning here.
        let mut bytes = packet(b"x");
        bytes[0] |= 0x08;
        let publish = Publish::decode(&bytes, Version::V3_1).unwrap();
        assert!(PublishFrame::new(&bytes, &publish, Version::V3_1).is_none());
    }
}
