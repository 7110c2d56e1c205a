//! The receiving half of QoS 1 and 2: which messages came, and what is answered when.

use alloc::collections::VecDeque;
use avocet_codec::{AckType, PacketId, PacketType, QoS, ReasonCode};

use crate::{AckError, CommitId, Violation};

/// Names one QoS 1 or 2 PUBLISH of one Network Connection to whoever acknowledges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AckToken {
    connection: u32,
    /// The place in the queue of its kind.
    serial: u32,
    /// Which QoS 2 message of the Session it is.
    message: u32,
    packet_id: PacketId,
    exactly_once: bool,
}

impl AckToken {
    /// The Packet Identifier the sender gave.
    #[must_use]
    pub const fn packet_id(self) -> PacketId {
        self.packet_id
    }

    /// The QoS of the PUBLISH.
    #[must_use]
    pub const fn qos(self) -> QoS {
        if self.exactly_once {
            QoS::ExactlyOnce
        } else {
            QoS::AtLeastOnce
        }
    }
}

/// Acknowledgements of one kind: they leave in the order in which their packets came
/// [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT311-4.6.0-2] [MQTT311-4.6.0-3].
#[derive(Debug, Default)]
struct AckQueue {
    /// The serial of the front entry; it goes on counting while the connection lasts.
    first: u32,
    entries: VecDeque<AckEntry>,
}

#[derive(Debug)]
struct AckEntry {
    packet_id: PacketId,
    /// Whether its PUBLISH takes a place of this connection's Receive Maximum.
    counted: bool,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    reason_code: ReasonCode,
    gate: CommitId,
}

impl AckQueue {
    fn push(&mut self, packet_id: PacketId, counted: bool, answer: Option<Answer>) -> u32 {
        let serial = self
            .first
            .wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push_back(AckEntry {
            packet_id,
            counted,
            answer,
        });
        serial
    }

    fn entry(&mut self, serial: u32) -> Option<&mut AckEntry> {
        let index = usize::try_from(serial.wrapping_sub(self.first)).ok()?;
        self.entries.get_mut(index)
    }

    fn pop(&mut self, committed: CommitId) -> Option<(AckEntry, ReasonCode)> {
        let answer = self
            .entries
            .front()?
            .answer
            .filter(|answer| answer.gate <= committed)?;
        let entry = self.entries.pop_front()?;
        self.first = self.first.wrapping_add(1);
        if self.entries.is_empty() && self.entries.capacity() > KEPT_CAPACITY {
            self.entries = VecDeque::new();
        }
        Some((entry, answer.reason_code))
    }

    /// Whether the front waits for this side: its application or its store.
    fn waits(&self, committed: CommitId) -> bool {
        let front = self.entries.front();
        front.is_some_and(|entry| entry.answer.is_none_or(|answer| answer.gate > committed))
    }

    fn gate(&self) -> Option<CommitId> {
        Some(self.entries.front()?.answer?.gate)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Capacity that an empty queue may keep while there is traffic; more is given back.
pub(crate) const KEPT_CAPACITY: usize = 64;

/// Frees what an empty queue keeps.
pub(crate) fn free_spare<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

/// A QoS 2 message that came, and whose PUBREL has not.
#[derive(Clone, Copy, Debug)]
struct Received {
    packet_id: PacketId,
    /// Tells it from others of this Session with the same Packet Identifier.
    message: u32,
    /// Whether the store knows it, so that its end is stored too.
    stored: bool,
    /// Whether it takes a place of this connection's Receive Maximum.
    counted: bool,
    /// Whether its PUBREC waits to leave.
    answering: bool,
    /// The commit that its PUBREC waits for, once the owner has answered.
    answered: Option<CommitId>,
}

/// An acknowledgement that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) kind: AckType,
    pub(crate) packet_id: PacketId,
    pub(crate) reason_code: ReasonCode,
}

/// What a PUBREL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// PUBCOMP is on its way.
    Answered,
    /// The store knows the message: the owner answers with `complete`.
    Stored,
}

/// The receiving half of a Session.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// Sorted by Packet Identifier; it outlives the connection, the rest does not.
    received: VecDeque<Received>,
    /// Counts the connections of this Session that have ended.
    connection: u32,
    /// Counts its QoS 2 messages.
    messages: u32,
    /// QoS 1 and 2 messages of this connection that are not completely acknowledged.
    outstanding: u16,
    pubacks: AckQueue,
    pubrecs: AckQueue,
    pubcomps: AckQueue,
    /// The commit that stores the latest release; it outlives the connection.
    released: CommitId,
}

impl Receiver {
    /// The Network Connection ended, and its acknowledgements and tokens with it.
    pub(crate) fn detach(&mut self) {
        self.connection = self.connection.wrapping_add(1);
        self.outstanding = 0;
        if !planted!(AckOfDeadConnection) {
            self.pubacks.clear();
        }
        self.pubrecs.clear();
        self.pubcomps.clear();
        for received in &mut self.received {
            received.counted = false;
            received.answering = false;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Frees what empty queues keep.
    pub(crate) fn free_spare(&mut self) {
        free_spare(&mut self.received);
        for acks in [&mut self.pubacks, &mut self.pubrecs, &mut self.pubcomps] {
            free_spare(&mut acks.entries);
        }
    }

    /// The Packet Identifiers of QoS 2 messages that came and are not released.
    pub(crate) fn received(&self) -> impl Iterator<Item = PacketId> + '_ {
        self.received.iter().map(|received| received.packet_id)
    }

    /// Puts back what a store kept.
    pub(crate) fn restore(&mut self, packet_id: PacketId) {
        if let Err(index) = self.find(packet_id) {
            let message = self.next_message();
            let received = Received {
                packet_id,
                message,
                stored: true,
                counted: false,
                answering: false,
                answered: Some(CommitId::ZERO),
            };
            self.received.insert(index, received);
        }
    }

    /// Whether the QoS 2 message with this token came and is not released.
    pub(crate) fn knows(&self, token: AckToken) -> bool {
        let found = self.find(token.packet_id).ok();
        let received = found.and_then(|index| self.received.get(index));
        token.exactly_once && received.is_some_and(|it| it.message == token.message)
    }

    /// Forgets a QoS 2 message that was not taken after all.
    pub(crate) fn forget(&mut self, packet_id: PacketId) -> bool {
        self.find(packet_id)
            .is_ok_and(|index| self.received.remove(index).is_some())
    }

    fn next_message(&mut self) -> u32 {
        self.messages = self.messages.wrapping_add(1);
        self.messages
    }

    fn find(&self, packet_id: PacketId) -> Result<usize, usize> {
        // Identifiers mostly grow, so a new one belongs at the end.
        let (Some(first), Some(last)) = (self.received.front(), self.received.back()) else {
            return Err(0);
        };
        if last.packet_id < packet_id {
            return Err(self.received.len());
        }
        // Mostly one by one.
        let guess = usize::from(packet_id.get().wrapping_sub(first.packet_id.get()));
        match self.received.get(guess) {
            Some(entry) if entry.packet_id == packet_id => Ok(guess),
            Some(_) | None => self
                .received
                .binary_search_by_key(&packet_id, |entry| entry.packet_id),
        }
    }

    /// A QoS 1 PUBLISH.
    pub(crate) fn at_least_once(
        &mut self,
        packet_id: PacketId,
        receive_maximum: Option<u16>,
    ) -> Result<AckToken, Violation> {
        self.count(receive_maximum)?;
        let serial = self.pubacks.push(packet_id, true, None);
        let connection = self.connection;
        Ok(AckToken {
            connection,
            serial,
            message: 0,
            packet_id,
            exactly_once: false,
        })
    }

    /// A QoS 2 PUBLISH; no token for one that came before: its PUBREC is on its way
    /// [MQTT5-4.3.3-10] [MQTT311-4.3.3-2]. Where answers come in any case, it `waits` for one that
    /// is still due from an earlier connection.
    pub(crate) fn exactly_once(
        &mut self,
        packet_id: PacketId,
        receive_maximum: Option<u16>,
        waits: bool,
    ) -> Result<Option<AckToken>, Violation> {
        let found = self.find(packet_id);
        let known = found
            .ok()
            .and_then(|index| self.received.get(index))
            .copied();
        if known.is_none_or(|known| !known.counted) {
            self.count(receive_maximum)?;
        }
        match known {
            None => {
                let message = self.next_message();
                let received = Received {
                    packet_id,
                    message,
                    stored: false,
                    counted: true,
                    answering: true,
                    answered: None,
                };
                self.received
                    .insert(found.unwrap_or_else(|index| index), received);
                let serial = self.pubrecs.push(packet_id, true, None);
                let connection = self.connection;
                Ok(Some(AckToken {
                    connection,
                    serial,
                    message,
                    packet_id,
                    exactly_once: true,
                }))
            }
            Some(known) => {
                if let Ok(index) = found
                    && let Some(received) = self.received.get_mut(index)
                {
                    received.counted = true;
                    received.answering = true;
                }
                if !known.answering {
                    let gate = known
                        .answered
                        .or_else(|| (!waits).then_some(CommitId::ZERO));
                    let answer = gate.map(|gate| Answer {
                        reason_code: ReasonCode::Success,
                        gate,
                    });
                    self.pubrecs.push(packet_id, false, answer);
                }
                Ok(None)
            }
        }
    }

    fn count(&mut self, receive_maximum: Option<u16>) -> Result<(), Violation> {
        if receive_maximum.is_some_and(|maximum| self.outstanding >= maximum) {
            return Err(Violation::ReceiveMaximumExceeded);
        }
        self.outstanding = self.outstanding.saturating_add(1);
        Ok(())
    }

    /// The application's answer to a PUBLISH [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]. A code of 0x80 or greater to a QoS 2 message frees
    /// its Packet Identifier [MQTT5-4.3.3-9].
    ///
    /// For a message of an earlier connection nothing leaves, but what the answer says about a
    /// QoS 2 message is remembered.
    pub(crate) fn acknowledge(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) -> Result<(), AckError> {
        let answer = if token.exactly_once {
            PacketType::Pubrec
        } else {
            PacketType::Puback
        };
        if !reason_code.is_allowed_in(answer) {
            return Err(AckError::ReasonCode);
        }
        let outcome = self.answer(token, reason_code, gate);
        match outcome {
            Ok(()) => {
                self.remember(token, reason_code, gate);
            }
            Err(AckError::Repeated) => {}
            Err(_) => self.answer_late(token, reason_code, gate),
        }
        outcome
    }

    /// The answer to a PUBLISH of an earlier connection, which may have come again on this one.
    pub(crate) fn answer_late(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) {
        let Some(received) = self.remember(token, reason_code, gate) else {
            return;
        };
        let mut entries = self.pubrecs.entries.iter_mut();
        let due =
            |entry: &&mut AckEntry| entry.packet_id == token.packet_id && entry.answer.is_none();
        if let Some(entry) = entries.find(due) {
            let gate = gate.unwrap_or(CommitId::ZERO);
            entry.counted = received.counted;
            entry.answer = Some(Answer { reason_code, gate });
        }
    }

    /// What an answer says about a QoS 2 message beyond what leaves; the message, if it is known.
    #[inline]
    fn remember(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) -> Option<Received> {
        if !token.exactly_once {
            return None;
        }
        let index = self.find(token.packet_id).ok()?;
        let received = self.received.get_mut(index)?;
        if received.message != token.message {
            return None;
        }
        received.stored = gate.is_some();
        received.answered = Some(gate.unwrap_or(CommitId::ZERO));
        let received = *received;
        if reason_code.is_error() {
            self.received.remove(index);
        }
        Some(received)
    }

    #[inline]
    fn answer(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) -> Result<(), AckError> {
        if token.connection != self.connection {
            return Err(AckError::Stale);
        }
        let queue = if token.exactly_once {
            &mut self.pubrecs
        } else {
            &mut self.pubacks
        };
        let entry = queue.entry(token.serial).ok_or(AckError::Repeated)?;
        if entry.answer.is_some() || entry.packet_id != token.packet_id {
            return Err(AckError::Repeated);
        }
        entry.answer = Some(Answer {
            reason_code,
            gate: gate.unwrap_or(CommitId::ZERO),
        });
        Ok(())
    }

    /// PUBREL: the Packet Identifier is free again. One that is not known is answered too, in 5.0
    /// with 0x92 [MQTT5-4.3.3-11] [MQTT311-4.3.3-2]. It may have been released on an earlier
    /// connection: PUBCOMP, which lets the sender use the identifier again, waits until no store
    /// can still have it.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> Released {
        let received = match self.find(packet_id) {
            // Most are released in the order in which they came.
            Ok(0) => self.received.pop_front(),
            Ok(index) => self.received.remove(index),
            Err(_) => None,
        };
        let answer = |reason_code, gate| Some(Answer { reason_code, gate });
        match received {
            None => {
                let answer = answer(ReasonCode::PacketIdentifierNotFound, self.released);
                self.pubcomps.push(packet_id, false, answer);
                Released::Answered
            }
            Some(Received {
                stored: true,
                counted,
                ..
            }) => {
                self.pubcomps.push(packet_id, counted, None);
                Released::Stored
            }
            Some(Received { counted, .. }) => {
                let answer = answer(ReasonCode::Success, CommitId::ZERO);
                self.pubcomps.push(packet_id, counted, answer);
                Released::Answered
            }
        }
    }

    /// The owner stored the release of a message: its PUBCOMP leaves after the gate.
    pub(crate) fn complete(
        &mut self,
        packet_id: PacketId,
        gate: Option<CommitId>,
    ) -> Result<(), AckError> {
        let gate = gate.unwrap_or(CommitId::ZERO);
        self.released = self.released.max(gate);
        // The owner answers at once, so it is one of the last.
        let mut entries = self.pubcomps.entries.iter_mut().rev();
        let entry = entries.find(|entry| entry.answer.is_none() && entry.packet_id == packet_id);
        let entry = entry.ok_or(AckError::Unknown)?;
        entry.answer = Some(Answer {
            reason_code: ReasonCode::Success,
            gate,
        });
        Ok(())
    }

    /// The next acknowledgement that may leave.
    pub(crate) fn poll(&mut self, committed: CommitId) -> Option<Acknowledgement> {
        if let Some((entry, reason_code)) = self.pubacks.pop(committed) {
            self.uncount(entry.counted);
            return Some(acknowledgement(AckType::Puback, &entry, reason_code));
        }
        if let Some((entry, reason_code)) = self.pubrecs.pop(committed) {
            if reason_code.is_error() {
                self.uncount(entry.counted);
            } else if let Ok(index) = self.find(entry.packet_id)
                && let Some(received) = self.received.get_mut(index)
            {
                received.answering = false;
            }
            return Some(acknowledgement(AckType::Pubrec, &entry, reason_code));
        }
        let (entry, reason_code) = self.pubcomps.pop(committed)?;
        self.uncount(entry.counted);
        Some(acknowledgement(AckType::Pubcomp, &entry, reason_code))
    }

    fn uncount(&mut self, counted: bool) {
        self.outstanding = self.outstanding.saturating_sub(counted.into());
    }

    /// Acknowledgements that have not left; PUBREC that wait for PUBREL are not among them.
    pub(crate) fn pending(&self) -> usize {
        self.pubacks.entries.len() + self.pubrecs.entries.len() + self.pubcomps.entries.len()
    }

    /// Whether an acknowledgement waits for this side: its application or its store.
    pub(crate) fn waits(&self, committed: CommitId) -> bool {
        self.pubacks.waits(committed)
            || self.pubrecs.waits(committed)
            || self.pubcomps.waits(committed)
    }

    /// The earliest commit that holds an acknowledgement back.
    pub(crate) fn gate(&self, committed: CommitId) -> Option<CommitId> {
        let gates = [
            self.pubacks.gate(),
            self.pubrecs.gate(),
            self.pubcomps.gate(),
        ];
        gates
            .into_iter()
            .flatten()
            .filter(|gate| *gate > committed)
            .min()
    }
}

fn acknowledgement(kind: AckType, entry: &AckEntry, reason_code: ReasonCode) -> Acknowledgement {
    Acknowledgement {
        kind,
        packet_id: entry.packet_id,
        reason_code,
    }
}
