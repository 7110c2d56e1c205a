//! Session State: what outlives a Network Connection.

use alloc::vec::Vec;
use avocet_codec::{PacketId, PacketType, ReasonCode};
use core::ops::Range;

use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::{
    AckError, AckToken, CommitId, Enqueued, FetchFrom, FetchedMessage, Limits, Now, Outgoing, Owed,
};

/// The state of the message exchange with one peer, as a value that moves from one Network
/// Connection to the next [MQTT5-4.1.0-1] [MQTT311-4.1.0-1].
///
/// It holds both halves of QoS 1 and 2 and the queue of messages. Subscriptions are their owner's.
#[derive(Debug, Default)]
pub struct Session {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    committed: CommitId,
    expiry_interval: u32,
    /// Of a client: it lasted as long as its Network Connection, so what it has in flight is not
    /// for another one [MQTT311-3.1.2-6].
    pub(crate) ended: bool,
}

impl Session {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a message behind the others for this peer.
    #[inline]
    pub fn enqueue(&mut self, outgoing: Outgoing, limits: &Limits, now: Now) -> Enqueued {
        self.sender.enqueue(outgoing, limits, now)
    }

    /// Whether nothing is queued, in flight or received and not released.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sender.is_empty() && self.receiver.is_empty()
    }

    /// Whether a Network Connection holds it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.sender.is_connected()
    }

    /// Messages not yet sent, those included that only the store has.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.sender.queued()
    }

    /// Whether messages wait to be sent, for the first time or again.
    #[must_use]
    pub fn has_messages_to_send(&self) -> bool {
        self.sender.queued() > 0 || self.sender.is_resending()
    }

    /// Bytes of the messages not yet sent: topics, properties and payloads.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.sender.queued_bytes()
    }

    /// QoS 1 and 2 messages sent and not completely acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sender.in_flight()
    }

    /// What the peer is to send next, of what it owes for messages in flight.
    #[must_use]
    pub fn owed(&self) -> Owed {
        if self.receiver.is_empty() {
            self.sender.owed()
        } else {
            Owed::More
        }
    }

    /// The Packet Identifiers of QoS 2 messages that came and are not released, in ascending order.
    pub fn received(&self) -> impl Iterator<Item = PacketId> + '_ {
        self.receiver.received()
    }

    /// Seconds for which the Session outlives its Network Connection; `u32::MAX` is for ever
    /// [MQTT5-3.1.2-23].
    #[must_use]
    pub const fn expiry_interval(&self) -> u32 {
        self.expiry_interval
    }

    /// Sets [`Session::expiry_interval`].
    pub const fn set_expiry_interval(&mut self, seconds: u32) {
        self.expiry_interval = seconds;
    }

    /// The store has committed everything up to this position: what waited for it may leave.
    pub fn handle_committed(&mut self, committed: CommitId) {
        self.committed = self.committed.max(committed);
    }

    /// The greatest position given to [`Session::handle_committed`].
    #[must_use]
    pub const fn committed(&self) -> CommitId {
        self.committed
    }

    /// The earliest commit that holds something back that could leave otherwise.
    #[must_use]
    pub fn waits_for(&self) -> Option<CommitId> {
        let gates = [
            self.sender.gate(self.committed),
            self.receiver.gate(self.committed),
        ];
        gates.into_iter().flatten().min()
    }

    /// Answers [`ConnectionEvent::Pubrec`](crate::ConnectionEvent::Pubrec): PUBREL leaves once
    /// this is committed, whether on this Network Connection or a later one.
    pub fn release(&mut self, sequence: u64, gate: Option<CommitId>) -> Result<(), AckError> {
        self.sender.release(sequence, gate)
    }

    /// Answers [`ConnectionEvent::Pubrel`](crate::ConnectionEvent::Pubrel): PUBCOMP leaves once
    /// this is committed.
    pub fn complete(
        &mut self,
        packet_id: PacketId,
        gate: Option<CommitId>,
    ) -> Result<(), AckError> {
        self.receiver.complete(packet_id, gate)
    }

    /// Remembers the answer to a QoS 2 PUBLISH whose connection has ended: whether PUBREL raises an
    /// event, or, with a code of 0x80 or greater, that the message was not taken. Nothing
    /// leaves unless its PUBLISH came again on a later connection. A code that PUBREC cannot carry
    /// becomes 0x80.
    pub fn answer(&mut self, token: AckToken, reason_code: ReasonCode, gate: Option<CommitId>) {
        let reason_code = if reason_code.is_allowed_in(PacketType::Pubrec) {
            reason_code
        } else {
            ReasonCode::UnspecifiedError
        };
        self.receiver.answer_late(token, reason_code, gate);
    }

    /// Forgets a received QoS 2 message that its owner did not take, because the connection ended
    /// before it was judged: sent again, it comes as a new one. Whether it was known.
    pub fn forget(&mut self, packet_id: PacketId) -> bool {
        self.receiver.forget(packet_id)
    }

    /// Asks the store for the next page of a queue of which it keeps the tail.
    pub fn poll_fetch(&mut self, limits: &Limits) -> Option<FetchFrom> {
        self.sender.poll_fetch(limits)
    }

    /// The answer to [`Session::poll_fetch`]: messages with their sequences, in order. `next` is
    /// the first sequence not yet looked at; those before it that are missing are finished.
    ///
    /// What may have been sent before a restart is sent again with DUP 1
    /// [MQTT5-3.3.1-1] [MQTT311-3.3.1-1].
    ///
    /// If `next` is no greater than what was asked for, the Session goes on without the messages that
    /// only the store has; their sequences.
    pub fn handle_fetched(
        &mut self,
        next: u64,
        messages: impl IntoIterator<Item = FetchedMessage>,
    ) -> Range<u64> {
        self.sender.handle_fetched(next, messages)
    }

    /// Whether the page that was asked for may have the message with this sequence: it was neither
    /// dropped nor taken meanwhile.
    #[must_use]
    pub fn awaits(&self, sequence: u64) -> bool {
        self.sender.awaits(sequence)
    }

    /// Takes messages away that other Sessions are to deliver: those not yet sent, and QoS 1
    /// messages without PUBACK, with their sequences. A QoS 2 message in flight stays
    /// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
    pub fn take_where(&mut self, wanted: impl FnMut(&Outgoing) -> bool) -> Vec<(u64, Outgoing)> {
        self.sender.take_where(wanted)
    }

    /// Takes messages away that have not been sent, with their sequences: their client may not have
    /// them any more. Those that only the store has are not among them.
    pub fn take_unsent(&mut self, wanted: impl FnMut(&Outgoing) -> bool) -> Vec<(u64, Outgoing)> {
        self.sender.take_unsent(wanted)
    }

    /// Drops the packets given to [`ServerConnection::enqueue_frame`](crate::ServerConnection::enqueue_frame)
    /// that have not left, unless they have a mark or one is of QoS 1; how many.
    pub fn drop_frames(&mut self) -> usize {
        self.sender.drop_frames()
    }

    /// Takes messages away that only the store has and that other Sessions are to deliver, unless
    /// they may have been sent; the sequences of those it took. A page that was asked for may still
    /// have them.
    pub fn take_stored(&mut self, sequences: impl IntoIterator<Item = u64>) -> Vec<u64> {
        self.sender.take_stored(sequences)
    }

    /// The marks of the next messages to leave whose gate is [`CommitId::UNNAMED`].
    pub fn unnamed_gates(&self) -> impl Iterator<Item = u64> + '_ {
        self.sender.unnamed_gates()
    }

    /// Names the gate of the messages of [`Session::unnamed_gates`], which have not left by that.
    pub fn name_gates(&mut self, gate: CommitId) {
        self.sender.name_gates(gate);
    }

    /// Puts back the queue of an empty Session whose messages only a store has: the sequences from
    /// the first one that is not finished, bytes of their messages, and the sequence before which
    /// they may have been sent.
    pub fn restore_queue(&mut self, queue: Range<u64>, bytes: u64, sent: u64) {
        self.sender.restore(queue, bytes, sent);
    }

    /// The sequence before which messages of QoS 1 and 2 may have been sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sender.sent()
    }

    /// Puts back a received QoS 2 message that a store kept.
    pub fn restore_received(&mut self, packet_id: PacketId) {
        self.receiver.restore(packet_id);
    }

    /// The Network Connection ended: what was its own is forgotten.
    pub(crate) fn detach(&mut self) {
        self.sender.detach();
        self.receiver.detach();
    }
}
