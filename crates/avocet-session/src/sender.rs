//! The sending half of QoS 1 and 2, and the queue in front of it.
//!
//! ```text
//!            enqueue            poll_transmit                PUBACK, PUBCOMP, PUBREC >= 0x80
//!   stored ──> queued ──> in flight: Publish ──────────────────────────────────> finished
//!                                    │ PUBREC                                       ▲
//!                                    └──> Pubrel (leaves after its gate) ── PUBCOMP ┘
//! ```
//!
//! A message of QoS 1 or 2 has its own sequence number from the moment it is queued, and its
//! Packet Identifier is `sequence % 65,535 + 1`. As the sequences in flight span less than 65,535,
//! no identifier is in use twice, and a store that knows the sequence knows the identifier.

mod again;
mod frames;
mod room;
mod stale;
mod taken;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use avocet_codec::{PacketId, QoS, ReasonCode};
use core::num::NonZeroU16;
use core::ops::Range;

pub use self::again::RestoredMessage;
use self::frames::Frames;
pub use self::frames::{PublishFrame, PublishFrames};
use crate::receiver::KEPT_CAPACITY;
use crate::{
    AckError, CommitId, ConnectionEvent, DropReason, Dropped, Enqueued, Expiry, Limits, Now,
    Outgoing, Owed, UnixTime, Violation,
};

/// With more messages in flight, more is owed than one acknowledgement.
const OWED_MAX: usize = 2;

/// How many Packet Identifiers there are.
const PACKET_IDS: u64 = 65_535;

/// The Packet Identifier of the message with this sequence.
fn packet_id(sequence: u64) -> PacketId {
    let id = u16::try_from(sequence % PACKET_IDS + 1)
        .ok()
        .and_then(NonZeroU16::new);
    PacketId::from(id.unwrap_or(NonZeroU16::MIN))
}

#[derive(Debug)]
struct Queued {
    sequence: u64,
    outgoing: Outgoing,
}

impl Queued {
    fn dropped(&self, reason: DropReason) -> Dropped {
        let Outgoing { qos, tag, .. } = self.outgoing;
        Dropped {
            sequence: self.sequence,
            qos,
            tag,
            stored: false,
            reason,
        }
    }
}

#[derive(Debug)]
struct InFlight {
    sequence: u64,
    /// Whether it takes a place of this connection's window.
    counted: bool,
    state: State,
}

impl InFlight {
    fn ends_with_puback(&self) -> bool {
        match &self.state {
            State::Publish(outgoing) => outgoing.qos == QoS::AtLeastOnce,
            State::Sent | State::Finished => true,
            State::Pubrel { .. } => false,
        }
    }
}

#[derive(Debug)]
enum State {
    /// PUBLISH was sent at least once; PUBACK or PUBREC is due.
    Publish(Outgoing),
    /// PUBREC came.
    Pubrel {
        tag: u64,
        stored: bool,
        release: Release,
    },
    /// PUBLISH was sent and not kept, as the Session ends with its connection; PUBACK is due.
    Sent,
    /// A tombstone among messages that are not.
    Finished,
}

#[derive(Clone, Copy, Debug)]
enum Release {
    /// The owner has not yet named the commit that stores PUBREC.
    Unanswered,
    /// PUBREL leaves once this is committed.
    After(CommitId),
    /// PUBREL was sent on this connection.
    Sent,
}

/// What leaves next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Publish {
        outgoing: &'a Outgoing,
        packet_id: Option<PacketId>,
        dup: bool,
    },
    Pubrel {
        packet_id: PacketId,
        reason_code: ReasonCode,
    },
    /// As many of these as there is room for.
    Frames(&'a mut Frames),
}

/// A page of messages that the store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The sequence of the first message.
    pub sequence: u64,
    /// How many messages at most.
    pub max_messages: usize,
    /// How many bytes of messages at most; the first one comes in any case.
    pub max_bytes: u64,
}

/// A message that the store gives back.
#[derive(Clone, Debug)]
pub struct FetchedMessage {
    /// Its place in the queue.
    pub sequence: u64,
    /// What it was when it was queued.
    pub outgoing: Outgoing,
    /// Whether PUBREC came for it: PUBREL follows, not PUBLISH [MQTT5-4.3.3-6].
    pub pubrec_received: bool,
}

/// The sending half of a Session.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    /// The sequence the next message of QoS 1 or 2 gets.
    next_sequence: u64,
    /// In the order of transmission, so sequences rise; the front is never a tombstone.
    inflight: VecDeque<InFlight>,
    /// Messages in flight, tombstones not counted.
    live: usize,
    /// QoS 1 and 2, resident, not yet sent.
    queued: VecDeque<Queued>,
    /// QoS 0; each goes before the message with its sequence.
    qos0: VecDeque<Queued>,
    /// QoS 0 and 1, ready to leave on the connection that is there; all go before `qos0` and `queued`.
    frames: Frames,
    /// How many messages behind `queued` only the store has.
    stored: u64,
    /// Sequences among these whose messages are another Session's.
    taken: BTreeSet<u64>,
    /// Bytes of `queued`, `qos0` and `frames`.
    resident_bytes: u64,
    stored_bytes: u64,
    /// Of these, what comes before this sequence may have been sent before a restart.
    sent: u64,
    /// The sequence that `poll_fetch` asked for, until the answer comes.
    fetching: Option<u64>,

    // What follows belongs to the connection.
    /// The receiver's Receive Maximum, or the window of a 3.x connection.
    window: u16,
    /// Messages that take a place in the window.
    outstanding: u16,
    /// Index into `inflight`: from here on nothing was sent on this connection.
    resend: usize,
    /// PUBREL packets to send, in the order in which PUBREC came
    /// [MQTT5-4.6.0-4] [MQTT311-4.6.0-4].
    pubrels: VecDeque<Pubrel>,
    /// Packet Identifiers of SUBSCRIBE and UNSUBSCRIBE packets without an answer.
    requests: Vec<PacketId>,
}

#[derive(Clone, Copy, Debug)]
enum Pubrel {
    Known(u64),
    Unknown(PacketId),
}

impl Sender {
    /// A new Network Connection begins: everything in flight is to be sent again, in its order
    /// [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-4.6.0-1].
    pub(crate) fn attach(&mut self, window: NonZeroU16) {
        self.detach();
        self.unpack_frames();
        self.window = window.get();
        if planted!(ReceiveMaximumOffByOne) {
            self.window = self.window.saturating_add(1);
        }
    }

    /// The Network Connection ended.
    pub(crate) fn detach(&mut self) {
        self.window = 0;
        self.outstanding = 0;
        self.resend = 0;
        self.pubrels = VecDeque::new();
        self.requests = Vec::new();
        self.forget_sent();
        for entry in &mut self.inflight {
            entry.counted = false;
            if let State::Pubrel {
                release: release @ Release::Sent,
                ..
            } = &mut entry.state
            {
                *release = Release::After(CommitId::ZERO);
            }
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.window > 0
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.live
    }

    /// See [`Session::owed`](crate::Session::owed).
    pub(crate) fn owed(&self) -> Owed {
        let Some(oldest) = self.inflight.front() else {
            return if self.queued() == 0 {
                Owed::Nothing
            } else {
                Owed::More
            };
        };
        let is_awaited =
            self.queued() > 0 || self.outstanding >= self.window || self.is_resending();
        if is_awaited || self.live > OWED_MAX {
            return Owed::More;
        }
        match &oldest.state {
            State::Pubrel { .. } => Owed::Pubcomp,
            _ if self.inflight.iter().all(InFlight::ends_with_puback) => Owed::Puback,
            State::Publish(_) | State::Sent | State::Finished => Owed::More,
        }
    }

    /// Messages not yet sent.
    pub(crate) fn queued(&self) -> usize {
        let stored = usize::try_from(self.stored).unwrap_or(usize::MAX);
        let stored = stored.saturating_sub(self.taken.len());
        (self.queued.len() + self.qos0.len() + self.frames.len()).saturating_add(stored)
    }

    /// Bytes of the messages not yet sent.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.resident_bytes.saturating_add(self.stored_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0 && self.queued() == 0
    }

    #[inline]
    pub(crate) fn enqueue(&mut self, outgoing: Outgoing, limits: &Limits, now: Now) -> Enqueued {
        let bytes = message_bytes(&outgoing);
        if outgoing.qos == QoS::AtMostOnce && !self.is_connected() && !limits.queue_qos0 {
            return Enqueued::Refused(DropReason::Offline);
        }
        if is_expired(&outgoing, now.unix) {
            return Enqueued::Refused(DropReason::Expired);
        }
        if bytes > limits.queued_bytes_max {
            return Enqueued::Refused(DropReason::QueueFull);
        }
        if !self.has_room(bytes, limits) {
            return self.displace(outgoing, limits);
        }
        match self.put(outgoing, limits) {
            (sequence, true) => Enqueued::Stored { sequence },
            (sequence, false) => Enqueued::Queued { sequence },
        }
    }

    /// Its place, and whether only the store has it.
    #[inline]
    fn put(&mut self, outgoing: Outgoing, limits: &Limits) -> (u64, bool) {
        let bytes = message_bytes(&outgoing);
        let sequence = self.next_sequence;
        let qos0 = outgoing.qos == QoS::AtMostOnce;
        self.next_sequence += u64::from(!qos0);
        if !qos0 && (self.stored > 0 || self.queued.len() >= limits.resident_messages) {
            self.stored += 1;
            self.stored_bytes += bytes;
            return (sequence, true);
        }
        self.resident_bytes += bytes;
        let queue = if qos0 {
            &mut self.qos0
        } else {
            &mut self.queued
        };
        queue.push_back(Queued { sequence, outgoing });
        (sequence, false)
    }

    /// A message that only the store has goes; its size is not known.
    fn forget_stored_bytes(&mut self) {
        let messages = self.stored.saturating_sub(self.taken.len() as u64);
        self.stored_bytes -= self.stored_bytes.checked_div(messages).unwrap_or_default();
    }

    /// Takes messages away that only the store has, unless they may have been sent; which ones.
    pub(crate) fn take_stored(&mut self, sequences: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let first = self.sent.max(self.next_sequence - self.stored);
        let mut taken = Vec::new();
        for sequence in sequences {
            if (first..self.next_sequence).contains(&sequence) && !self.taken.contains(&sequence) {
                self.forget_stored_bytes();
                self.taken.insert(sequence);
                taken.push(sequence);
            }
        }
        taken
    }

    /// Whether the message that came first is of QoS 0.
    fn qos0_is_next(&self) -> bool {
        match (self.qos0.front(), self.queued.front()) {
            (Some(qos0), Some(queued)) => qos0.sequence <= queued.sequence,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn pop_qos0(&mut self) -> Option<Queued> {
        let queued = self.qos0.pop_front()?;
        self.resident_bytes -= message_bytes(&queued.outgoing);
        give_back(&mut self.qos0);
        Some(queued)
    }

    fn pop_queued(&mut self) -> Option<Queued> {
        let queued = self.queued.pop_front()?;
        self.resident_bytes -= message_bytes(&queued.outgoing);
        give_back(&mut self.queued);
        Some(queued)
    }

    /// Sends at most one packet through `write`, which says whether it fits the peer's Maximum
    /// Packet Size: an acknowledgement, or what comes behind them if `messages` is set. False when nothing may
    /// leave now.
    pub(crate) fn poll(
        &mut self,
        now: Now,
        committed: CommitId,
        messages: bool,
        events: &mut VecDeque<ConnectionEvent>,
        mut write: impl FnMut(Next<'_>) -> bool,
    ) -> bool {
        self.poll_pubrel(committed, &mut write)
            || messages
                && (self.poll_resend(committed, events, &mut write)
                    || self.poll_frames(&mut write)
                    || self.poll_queue(now, committed, events, &mut write))
    }

    fn poll_pubrel(
        &mut self,
        committed: CommitId,
        write: &mut impl FnMut(Next<'_>) -> bool,
    ) -> bool {
        match self.pubrels.front() {
            None => return false,
            Some(Pubrel::Unknown(packet_id)) => {
                let reason_code = ReasonCode::PacketIdentifierNotFound;
                write(Next::Pubrel {
                    packet_id: *packet_id,
                    reason_code,
                });
            }
            Some(Pubrel::Known(sequence)) => {
                let sequence = *sequence;
                let entry = self
                    .index(sequence)
                    .and_then(|index| self.inflight.get_mut(index));
                if let Some(InFlight {
                    state: State::Pubrel { release, .. },
                    ..
                }) = entry
                {
                    match release {
                        Release::After(gate) if *gate <= committed => *release = Release::Sent,
                        Release::After(_) | Release::Unanswered => return false,
                        Release::Sent => {}
                    }
                    let packet_id = packet_id(sequence);
                    write(Next::Pubrel {
                        packet_id,
                        reason_code: ReasonCode::Success,
                    });
                }
            }
        }
        self.pubrels.pop_front();
        true
    }

    fn poll_resend(
        &mut self,
        committed: CommitId,
        events: &mut VecDeque<ConnectionEvent>,
        write: &mut impl FnMut(Next<'_>) -> bool,
    ) -> bool {
        while let Some(entry) = self.inflight.get_mut(self.resend) {
            let packet_id = packet_id(entry.sequence);
            match &mut entry.state {
                State::Sent | State::Finished => {
                    self.resend += 1;
                    continue;
                }
                State::Publish(outgoing) => {
                    if self.outstanding >= self.window {
                        return false;
                    }
                    let mut packet_id = packet_id;
                    if planted!(ResentWithAnotherPacketId) && outgoing.qos == QoS::ExactlyOnce {
                        packet_id = self::packet_id(entry.sequence + 1_000);
                    }
                    if write(Next::Publish {
                        outgoing,
                        packet_id: Some(packet_id),
                        dup: !planted!(DupMissing),
                    }) {
                        entry.counted = true;
                        self.outstanding += 1;
                        self.resend += 1;
                    } else {
                        let Outgoing { qos, tag, .. } = *outgoing;
                        let sequence = entry.sequence;
                        let reason = DropReason::TooLarge;
                        events.push_back(ConnectionEvent::Dropped(Dropped {
                            sequence,
                            qos,
                            tag,
                            stored: false,
                            reason,
                        }));
                        self.bury(self.resend);
                    }
                }
                State::Pubrel { release, .. } => {
                    match release {
                        Release::After(gate) if *gate <= committed => *release = Release::Sent,
                        Release::After(_) | Release::Unanswered => return false,
                        Release::Sent => {}
                    }
                    write(Next::Pubrel {
                        packet_id,
                        reason_code: ReasonCode::Success,
                    });
                    self.resend += 1;
                }
            }
            return true;
        }
        false
    }

    fn poll_queue(
        &mut self,
        now: Now,
        committed: CommitId,
        events: &mut VecDeque<ConnectionEvent>,
        write: &mut impl FnMut(Next<'_>) -> bool,
    ) -> bool {
        let blocked = self
            .queued
            .front()
            .is_none_or(|next| !self.may_send(next, committed));
        if blocked || self.qos0_is_next() {
            let may_send = |next: &Queued| next.outgoing.gate.is_none_or(|gate| gate <= committed);
            if !self.qos0.front().is_some_and(may_send) {
                return false;
            }
            let Some(next) = self.pop_qos0() else {
                return false;
            };
            if is_expired(&next.outgoing, now.unix) {
                events.push_back(ConnectionEvent::Dropped(next.dropped(DropReason::Expired)));
            } else if !write(Next::Publish {
                outgoing: &next.outgoing,
                packet_id: None,
                dup: false,
            }) {
                events.push_back(ConnectionEvent::Dropped(next.dropped(DropReason::TooLarge)));
            }
            return true;
        }
        let Some(next) = self.pop_queued() else {
            return false;
        };
        if is_expired(&next.outgoing, now.unix) && !planted!(ExpiryFromDelivery) {
            events.push_back(ConnectionEvent::Dropped(next.dropped(DropReason::Expired)));
            return true;
        }
        let Queued { sequence, outgoing } = &next;
        let packet_id = Some(packet_id(*sequence));
        if write(Next::Publish {
            outgoing,
            packet_id,
            dup: planted!(DupAtFirst),
        }) {
            let Queued { sequence, outgoing } = next;
            let state = State::Publish(outgoing);
            self.inflight.push_back(InFlight {
                sequence,
                counted: true,
                state,
            });
            self.live += 1;
            self.outstanding += 1;
            self.resend = self.inflight.len();
        } else {
            events.push_back(ConnectionEvent::Dropped(next.dropped(DropReason::TooLarge)));
        }
        true
    }

    /// Whether the first message of QoS 1 or 2 may leave
    /// [MQTT5-3.3.4-7] [MQTT5-3.3.4-9] [MQTT5-4.9.0-2].
    fn may_send(&self, next: &Queued, committed: CommitId) -> bool {
        let first = self
            .inflight
            .front()
            .map_or(next.sequence, |entry| entry.sequence);
        self.resend == self.inflight.len()
            && self.outstanding < self.window
            && next.sequence - first < PACKET_IDS
            && next.outgoing.gate.is_none_or(|gate| gate <= committed)
            && (self.requests.is_empty() || !self.requests.contains(&packet_id(next.sequence)))
    }

    /// Whether something that was in flight before is to be sent again.
    pub(crate) fn is_resending(&self) -> bool {
        self.resend < self.inflight.len()
    }

    /// Where the message with this sequence is in flight.
    fn index(&self, sequence: u64) -> Option<usize> {
        let first = self.inflight.front()?.sequence;
        // Sequences have gaps only where messages were dropped from the queue.
        let guess = usize::try_from(sequence.checked_sub(first)?).ok()?;
        if self
            .inflight
            .get(guess)
            .is_some_and(|entry| entry.sequence == sequence)
        {
            return Some(guess);
        }
        self.inflight
            .binary_search_by_key(&sequence, |entry| entry.sequence)
            .ok()
    }

    fn find(&self, id: PacketId) -> Option<usize> {
        let first = self.inflight.front()?.sequence;
        let (id, first_id) = (u64::from(id.get()) - 1, first % PACKET_IDS);
        let ahead = if id < first_id { PACKET_IDS } else { 0 } + id - first_id;
        self.index(first + ahead)
    }

    /// PUBACK. An unknown Packet Identifier is left alone: its message may have ended before a
    /// resend was acknowledged.
    pub(crate) fn puback(
        &mut self,
        packet_id: PacketId,
        reason_code: ReasonCode,
        events: &mut VecDeque<ConnectionEvent>,
    ) -> Result<(), Violation> {
        // Most come in the order of their messages.
        let is_due = |state: &State| match state {
            State::Publish(outgoing) => outgoing.qos == QoS::AtLeastOnce,
            State::Sent => true,
            State::Pubrel { .. } | State::Finished => false,
        };
        if self.finish_first(packet_id, is_due, reason_code, events) {
            return Ok(());
        }
        let Some(index) = self.find(packet_id) else {
            return Ok(());
        };
        match self.inflight.get(index).map(|entry| &entry.state) {
            Some(state) if is_due(state) => {
                self.finish(index, reason_code, events);
                Ok(())
            }
            Some(State::Publish(_) | State::Sent | State::Pubrel { .. }) => {
                Err(Violation::WrongAcknowledgement)
            }
            Some(State::Finished) | None => Ok(()),
        }
    }

    /// PUBREC: the message is the receiver's, and PUBREL follows; or it is refused
    /// [MQTT5-4.3.3-3] [MQTT5-4.3.3-4] [MQTT311-4.3.3-1].
    pub(crate) fn pubrec(
        &mut self,
        packet_id: PacketId,
        reason_code: ReasonCode,
        events: &mut VecDeque<ConnectionEvent>,
    ) -> Result<(), Violation> {
        let index = self.find(packet_id);
        let entry = index.and_then(|index| Some((index, self.inflight.get_mut(index)?)));
        match entry.map(|(index, entry)| (index, entry.sequence, &mut entry.state)) {
            Some((index, sequence, State::Publish(outgoing))) => {
                if outgoing.qos != QoS::ExactlyOnce {
                    return Err(Violation::WrongAcknowledgement);
                }
                if reason_code.is_error() {
                    self.finish(index, reason_code, events);
                    return Ok(());
                }
                let (tag, mut stored) = (outgoing.tag, outgoing.gate.is_some());
                if planted!(FreedAtPubrec) {
                    self.finish(index, reason_code, events);
                    self.pubrels.push_back(Pubrel::Unknown(packet_id));
                    return Ok(());
                }
                stored &= !planted!(PubrelBeforeStored);
                let release = if stored {
                    events.push_back(ConnectionEvent::Pubrec { sequence, tag });
                    Release::Unanswered
                } else {
                    Release::After(CommitId::ZERO)
                };
                if let Some(entry) = self.inflight.get_mut(index) {
                    entry.state = State::Pubrel {
                        tag,
                        stored,
                        release,
                    };
                }
                if index < self.resend {
                    self.pubrels.push_back(Pubrel::Known(sequence));
                }
            }
            Some((_, sequence, State::Pubrel { release, .. })) => {
                // A receiver that asks again has not seen PUBREL.
                if let Release::Sent = release
                    && !reason_code.is_error()
                {
                    *release = Release::After(CommitId::ZERO);
                    self.pubrels.push_back(Pubrel::Known(sequence));
                }
            }
            Some((_, _, State::Sent)) => return Err(Violation::WrongAcknowledgement),
            Some((_, _, State::Finished)) | None => {
                if !reason_code.is_error() {
                    self.pubrels.push_back(Pubrel::Unknown(packet_id));
                }
            }
        }
        Ok(())
    }

    /// The owner stored PUBREC: PUBREL leaves after the gate.
    pub(crate) fn release(
        &mut self,
        sequence: u64,
        gate: Option<CommitId>,
    ) -> Result<(), AckError> {
        let entry = self
            .index(sequence)
            .and_then(|index| self.inflight.get_mut(index));
        match entry.map(|entry| &mut entry.state) {
            Some(State::Pubrel {
                release: release @ Release::Unanswered,
                ..
            }) => {
                *release = Release::After(gate.unwrap_or(CommitId::ZERO));
                Ok(())
            }
            Some(State::Pubrel { .. }) => Err(AckError::Repeated),
            Some(State::Publish(_) | State::Sent | State::Finished) | None => {
                Err(AckError::Unknown)
            }
        }
    }

    /// PUBCOMP; an unknown Packet Identifier is left alone.
    pub(crate) fn pubcomp(
        &mut self,
        packet_id: PacketId,
        reason_code: ReasonCode,
        events: &mut VecDeque<ConnectionEvent>,
    ) -> Result<(), Violation> {
        let is_due = |state: &State| {
            matches!(
                state,
                State::Pubrel {
                    release: Release::Sent,
                    ..
                }
            )
        };
        if self.finish_first(packet_id, is_due, reason_code, events) {
            return Ok(());
        }
        let Some(index) = self.find(packet_id) else {
            return Ok(());
        };
        match self.inflight.get(index).map(|entry| &entry.state) {
            Some(state) if is_due(state) => {
                self.finish(index, reason_code, events);
                Ok(())
            }
            Some(State::Publish(_) | State::Sent | State::Pubrel { .. }) => {
                Err(Violation::WrongAcknowledgement)
            }
            Some(State::Finished) | None => Ok(()),
        }
    }

    /// Finishes the first message in flight if it has this Packet Identifier and waits for this.
    #[inline]
    fn finish_first(
        &mut self,
        id: PacketId,
        is_due: impl Fn(&State) -> bool,
        reason_code: ReasonCode,
        events: &mut VecDeque<ConnectionEvent>,
    ) -> bool {
        let is_first =
            |entry: &mut InFlight| packet_id(entry.sequence) == id && is_due(&entry.state);
        let Some(first) = self.inflight.pop_front_if(is_first) else {
            return false;
        };
        if let Some(finished) = first.finished(reason_code) {
            events.push_back(finished);
        }
        self.resend = self.resend.saturating_sub(1);
        self.forget_one(first.counted);
        let next = self.inflight.front();
        if next.is_none_or(|next| matches!(next.state, State::Finished)) {
            self.remove_tombstones();
        }
        true
    }

    fn finish(
        &mut self,
        index: usize,
        reason_code: ReasonCode,
        events: &mut VecDeque<ConnectionEvent>,
    ) {
        if let Some(entry) = self.inflight.get(index) {
            if let Some(finished) = entry.finished(reason_code) {
                events.push_back(finished);
            }
            self.bury(index);
        }
    }

    /// Makes a message a tombstone, and removes those at the front.
    fn bury(&mut self, index: usize) {
        let Some(entry) = self.inflight.get_mut(index) else {
            return;
        };
        entry.state = State::Finished;
        let counted = entry.counted;
        self.forget_one(counted);
        if index == 0 {
            self.remove_tombstones();
        }
    }

    /// Forgets what has left and was not kept.
    fn forget_sent(&mut self) {
        let before = self.inflight.len();
        self.inflight
            .retain(|entry| !matches!(entry.state, State::Sent));
        self.live -= before - self.inflight.len();
        self.remove_tombstones();
    }

    /// A message is not in flight any more.
    fn forget_one(&mut self, counted: bool) {
        self.outstanding = self.outstanding.saturating_sub(counted.into());
        self.live -= 1;
    }

    fn remove_tombstones(&mut self) {
        let is_tombstone = |entry: &mut InFlight| matches!(entry.state, State::Finished);
        while self.inflight.pop_front_if(is_tombstone).is_some() {
            self.resend = self.resend.saturating_sub(1);
        }
        give_back(&mut self.inflight);
    }

    /// A Packet Identifier for SUBSCRIBE or UNSUBSCRIBE, from the same space: the one whose turn
    /// for a message is farthest off. `None` when all are in use.
    pub(crate) fn take_request_id(&mut self) -> Option<PacketId> {
        let first = self.inflight.front().map(|entry| entry.sequence);
        let first = first.or_else(|| Some(self.queued.front()?.sequence));
        let first = first.unwrap_or(self.next_sequence - self.stored);
        let last = self
            .inflight
            .back()
            .map_or(first, |entry| entry.sequence + 1);
        let candidates = (last..first + PACKET_IDS).rev().map(packet_id);
        let id = candidates
            .take(self.requests.len() + 1)
            .find(|id| !self.requests.contains(id))?;
        self.requests.push(id);
        Some(id)
    }

    /// SUBACK or UNSUBACK came; whether one was due under this Packet Identifier.
    pub(crate) fn return_request_id(&mut self, packet_id: PacketId) -> bool {
        let position = self.requests.iter().position(|id| *id == packet_id);
        position
            .map(|position| self.requests.swap_remove(position))
            .is_some()
    }

    /// PUBREL packets that have not left.
    pub(crate) fn pending(&self) -> usize {
        self.pubrels.len()
    }

    pub(crate) fn poll_fetch(&mut self, limits: &Limits) -> Option<FetchFrom> {
        let resident = self.queued.len() + self.inflight.len().saturating_sub(self.resend);
        let low = resident <= limits.resident_messages / 2;
        if self.stored == 0 || self.fetching.is_some() || !low || !self.is_connected() {
            return None;
        }
        let sequence = self.next_sequence - self.stored;
        self.fetching = Some(sequence);
        Some(FetchFrom {
            sequence,
            max_messages: limits.resident_messages.saturating_sub(resident).max(1),
            max_bytes: FETCH_BYTES_MAX,
        })
    }

    /// Whether the page that was asked for may have this message.
    pub(crate) fn awaits(&self, sequence: u64) -> bool {
        let stored = self.next_sequence - self.stored..self.next_sequence;
        self.fetching.is_some() && stored.contains(&sequence) && !self.taken.contains(&sequence)
    }

    pub(crate) fn handle_fetched(
        &mut self,
        next: u64,
        messages: impl IntoIterator<Item = FetchedMessage>,
    ) -> Range<u64> {
        let end = self.next_sequence;
        let Some(asked) = self.fetching.take() else {
            return end..end;
        };
        if next <= asked {
            // The store has none of them.
            let given_up = end - self.stored..end;
            self.stored = 0;
            self.stored_bytes = 0;
            self.taken.clear();
            return given_up;
        }
        for fetched in messages {
            let FetchedMessage {
                sequence,
                outgoing,
                pubrec_received,
            } = fetched;
            if sequence < self.next_sequence - self.stored || self.taken.contains(&sequence) {
                // It was dropped or taken meanwhile.
                continue;
            }
            let bytes = message_bytes(&outgoing);
            self.stored_bytes = self.stored_bytes.saturating_sub(bytes);
            if sequence >= self.sent && !pubrec_received {
                self.resident_bytes += bytes;
                self.queued.push_back(Queued { sequence, outgoing });
                continue;
            }
            self.go_on(sequence, outgoing, pubrec_received);
        }
        self.stored = self.next_sequence.saturating_sub(next).min(self.stored);
        self.taken = self.taken.split_off(&(self.next_sequence - self.stored));
        if self.stored == 0 {
            self.stored_bytes = 0;
        }
        end..end
    }

    /// How many messages may have a gate that is named late.
    fn named_max(&self) -> usize {
        usize::from(self.window.saturating_sub(self.outstanding)).min(NAMED_MAX)
    }

    pub(crate) fn unnamed_gates(&self) -> impl Iterator<Item = u64> + '_ {
        let next = self.queued.iter().take(self.named_max());
        let unnamed = next.filter(|next| next.outgoing.gate == Some(CommitId::UNNAMED));
        unnamed.map(|next| next.outgoing.tag)
    }

    pub(crate) fn name_gates(&mut self, gate: CommitId) {
        let named_max = self.named_max();
        for next in self.queued.iter_mut().take(named_max) {
            if next.outgoing.gate == Some(CommitId::UNNAMED) {
                next.outgoing.gate = Some(gate);
            }
        }
    }

    /// Puts back a queue that only the store has.
    pub(crate) fn restore(&mut self, queue: Range<u64>, bytes: u64, sent: u64) {
        self.next_sequence = queue.end;
        self.stored = queue.end.saturating_sub(queue.start);
        self.stored_bytes = bytes;
        // What comes behind it is not sent before its gate.
        self.sent = sent.min(queue.end);
    }

    /// Before which sequence messages may have been sent.
    pub(crate) fn sent(&self) -> u64 {
        let first = self.queued.front().map(|queued| queued.sequence);
        let stored = self.next_sequence - self.stored;
        first.unwrap_or_else(|| stored.max(self.sent))
    }

    /// The earliest commit that holds the next packet back.
    pub(crate) fn gate(&self, committed: CommitId) -> Option<CommitId> {
        let resend = self.inflight.get(self.resend).and_then(InFlight::gate);
        let pubrel = match self.pubrels.front() {
            Some(Pubrel::Known(sequence)) => self
                .index(*sequence)
                .and_then(|index| self.inflight.get(index)?.gate()),
            Some(Pubrel::Unknown(_)) | None => None,
        };
        let queued = self.queued.front().and_then(|next| next.outgoing.gate);
        let qos0 = self.qos0.front().and_then(|next| next.outgoing.gate);
        let gates = [resend, pubrel, queued, qos0].into_iter().flatten();
        let named = gates.filter(|gate| *gate != CommitId::UNNAMED);
        named.filter(|gate| *gate > committed).min()
    }
}

/// How many messages that have not left have a gate that was named late: what may be lost with the
/// process, as nobody knows then that they have not.
const NAMED_MAX: usize = 32;

/// Bytes that a fetched page may have.
const FETCH_BYTES_MAX: u64 = 1 << 20;

impl InFlight {
    /// What the owner hears of its end, if it asked for that.
    #[inline]
    fn finished(&self, reason_code: ReasonCode) -> Option<ConnectionEvent> {
        let (tag, stored) = match &self.state {
            State::Publish(outgoing) => (outgoing.tag, outgoing.gate.is_some()),
            State::Pubrel { tag, stored, .. } => (*tag, *stored),
            State::Sent | State::Finished => return None,
        };
        (tag != 0 || stored).then_some(ConnectionEvent::Finished {
            sequence: self.sequence,
            tag,
            reason_code,
        })
    }

    fn gate(&self) -> Option<CommitId> {
        match self.state {
            State::Pubrel {
                release: Release::After(gate),
                ..
            } => Some(gate),
            State::Pubrel { .. } | State::Publish(_) | State::Sent | State::Finished => None,
        }
    }
}

fn message_bytes(outgoing: &Outgoing) -> u64 {
    u64::try_from(outgoing.message.len()).unwrap_or(u64::MAX)
}

fn is_expired(outgoing: &Outgoing, now: UnixTime) -> bool {
    outgoing.message.remaining_expiry(now) == Expiry::Expired
}

/// An empty queue gives its memory back, if it is worth it.
fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_CAPACITY {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests;
