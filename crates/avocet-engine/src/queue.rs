//! The queue of a session: what is put into it, what it asks back from the store, and what it is
//! done with.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use avocet_codec::{QoS, ReasonCode};
use avocet_session::{
    AckToken, CommitId, Enqueued, FetchedMessage, Limits, Message, Now, Outgoing, PublishFrame,
    Session,
};
use avocet_topic::TopicName;

use crate::config::EngineConfig;
use crate::connection::Connections;
use crate::counters::DropReason;
use crate::hooks::Passed;
use crate::member::{SharedMark, SharedPlace};
use crate::record::{GroupPlace, MessageId, Record};
use crate::session_table::{SessionHandle, SessionKey, Slot};
use crate::shard::{MemberId, MembershipId, Published};
use crate::{Command, Durability, Engine, Event, Fetched};

/// What a delivery is beyond its message: the mark that a session gives back with it. Zero is a
/// message that nobody asks about again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// A QoS 0 message of a membership, whose number fills the other bits.
    const QOS0_OF_MEMBERSHIP: u64 = 1 << 63;
    /// A record says that the session has the message.
    const RECORDED: u64 = 1 << 62;

    /// A message of no group.
    const fn plain(recorded: bool) -> Self {
        Self(if recorded { Self::RECORDED } else { 0 })
    }

    /// A message of a group, with the number of its mark.
    const fn shared(mark: u64, recorded: bool) -> Self {
        Self(mark | Self::plain(recorded).0)
    }

    pub(crate) const fn qos0_of(membership: MembershipId) -> Self {
        Self(Self::QOS0_OF_MEMBERSHIP | membership.0)
    }

    pub(crate) const fn from_u64(tag: u64) -> Self {
        Self(tag)
    }

    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }

    pub(crate) const fn is_recorded(self) -> bool {
        self.qos0_membership().is_none() && self.0 & Self::RECORDED != 0
    }

    pub(crate) const fn qos0_membership(self) -> Option<MembershipId> {
        if self.0 & Self::QOS0_OF_MEMBERSHIP == 0 {
            return None;
        }
        Some(MembershipId(self.0 & !Self::QOS0_OF_MEMBERSHIP))
    }

    /// The number of the mark of a group's message.
    pub(crate) const fn mark(self) -> Option<u64> {
        match (self.qos0_membership(), self.0 & !Self::RECORDED) {
            (Some(_), _) | (None, 0) => None,
            (None, mark) => Some(mark),
        }
    }
}

/// Half of a queue's room, as [`fill`] counts it.
const HALF: u32 = 1 << 10;

/// How much of its room a queue takes.
fn fill((messages, bytes): (usize, u64), limits: &Limits) -> u32 {
    let part = |held: u64, max: u64| (held.saturating_mul(2 * u64::from(HALF))) / max.max(1);
    let messages = part(messages as u64, limits.queued_messages_max as u64);
    let fill = messages.max(part(bytes, limits.queued_bytes_max));
    u32::try_from(fill).unwrap_or(2 * HALF).min(2 * HALF)
}

/// The Session State, wherever it is.
pub(crate) fn state<'a>(
    slot: &'a mut Slot,
    connections: &'a mut Connections,
) -> Option<&'a mut Session> {
    match slot.connection.and_then(|id| connections.get_mut(&id)) {
        Some(entry) => entry.server.session_mut(),
        None => slot.session.as_deref_mut(),
    }
}

/// How long a publisher waits that has just put a message into the queue of a session, where
/// publishers are slowed.
fn slows(slot: &mut Slot, config: &EngineConfig, now: Now) -> Duration {
    if slot.connection.is_none() {
        return Duration::ZERO;
    }
    let patience = config.limits.slow_publishers;
    let fill = fill(slot.counted, &config.connection.limits);
    let since = *slot.slows_since.get_or_insert(now.instant);
    if fill <= HALF {
        slot.slows_since = None;
    } else if now.instant < since + patience {
        return patience / 100 * (fill - HALF) / HALF;
    }
    Duration::ZERO
}

impl Engine {
    /// The answer to a PUBLISH came when its connection had ended.
    pub(crate) fn remember_answer(
        &mut self,
        session: Option<SessionHandle>,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) {
        if let Some(slot) = session.and_then(|session| self.sessions.get_mut(session))
            && let Some(state) = state(slot, &mut self.connections)
        {
            state.answer(token, reason_code, gate);
            // Its PUBLISH may have come again on another connection.
            if let Some(connection) = slot.connection {
                self.wait_for_commit(connection, gate);
                self.need_flush(connection);
            }
        }
    }

    /// Puts a message into a session's queue. True if that must survive.
    pub(crate) fn deliver(
        &mut self,
        handle: SessionHandle,
        mut outgoing: Outgoing,
        published: &mut Published,
        shared: Option<SharedPlace>,
        now: Now,
    ) -> bool {
        if self.is_full()
            && let Some(reason) = self.full_for(handle)
        {
            self.count_dropped(reason);
            if let Some(place) = shared {
                self.finish_shared(place);
            }
            return false;
        }
        let mut changed = None;
        if self.config.publish_out.is_some() {
            match self.pass_out(handle, &mut outgoing, published) {
                Passed::AsItCame => {}
                Passed::Changed(by) => changed = Some(by),
                Passed::Nothing => {
                    self.count_dropped(DropReason::RefusedByHook);
                    if let Some(place) = shared {
                        self.finish_shared(place);
                    }
                    return false;
                }
            }
        }
        let Some(slot) = self.sessions.get_mut(handle) else {
            return false;
        };
        if let Some(access) = &mut slot.access
            && !access.may_receive(
                &self.rules,
                outgoing.message.topic_name(),
                outgoing.qos,
                outgoing.retain,
            )
        {
            self.counters.deliveries_not_authorized += 1;
            self.count_dropped(DropReason::NotAuthorized);
            if let Some(place) = shared {
                self.finish_shared(place);
            }
            return false;
        }
        let (is_changed, was_stored) = (changed.is_some(), published.stored);
        let published = changed.as_deref_mut().unwrap_or(published);
        let qos0 = outgoing.qos == QoS::AtMostOnce;
        let recorded = published.id.filter(|_| slot.is_durable() && !qos0);
        let tag = match shared {
            None => Tag::plain(recorded.is_some()),
            // It is for nobody else, and its group has forgotten the one that came.
            Some(_) if qos0 && is_changed => Tag::plain(false),
            Some(place) if qos0 => Tag::qos0_of(place.membership),
            Some(place) => {
                let mark = slot.marks.insert(SharedMark {
                    place,
                    // Nobody else asks what was given to one member.
                    publisher: published.publisher.take(),
                    gone: false,
                });
                Tag::shared(mark, recorded.is_some())
            }
        };
        outgoing.tag = tag.0;
        if recorded.is_some() {
            self.store_message(published);
            // A Packet Identifier of QoS 2 is stored before it is seen.
            let exactly_once = outgoing.qos == QoS::ExactlyOnce && !planted!(PublishBeforeStored);
            outgoing.gate = exactly_once.then(|| self.commit_at(published.level));
        } else if shared.is_some() && was_stored && outgoing.qos == QoS::ExactlyOnce {
            slot.names_gates = true;
            outgoing.gate = Some(CommitId::UNNAMED);
        }
        let names_gates = outgoing.gate == Some(CommitId::UNNAMED);
        let durable = self.enqueue(handle, outgoing, recorded, now);
        if names_gates {
            self.name_gates(handle);
        }
        durable
    }

    /// Queues a packet, or some to one topic, for the client of a session as they are; false if messages
    /// are to be delivered.
    pub(crate) fn deliver_frame(
        &mut self,
        handle: SessionHandle,
        frame: PublishFrame<'_>,
        now: Now,
    ) -> bool {
        if self.config.publish_out.is_some() {
            return false;
        }
        let full = self.is_full_for(frame);
        let Some(slot) = self.sessions.get_mut(handle) else {
            return false;
        };
        if let Some(access) = &mut slot.access
            && !access.may_receive(&self.rules, frame.topic_name(), frame.qos(), false)
        {
            let packets = frame.packets() as u64;
            self.counters.deliveries_not_authorized += packets;
            let reason = DropReason::NotAuthorized;
            self.counters.count_dropped(reason, packets);
            return true;
        }
        let Some(id) = slot.connection.filter(|_| !full) else {
            return false;
        };
        let Some(entry) = self.connections.get_mut(&id) else {
            return false;
        };
        if !entry.server.enqueue_frame(frame, &self.resident_limits) {
            return false;
        }
        self.outbox.need_flush(id, entry);
        if let Some(state) = entry.server.session() {
            let counted = (state.queued(), state.queued_bytes());
            self.counters.count_queue(&mut slot.counted, counted);
            if !self.config.limits.slow_publishers.is_zero() {
                self.wait = self.wait.max(slows(slot, &self.config, now));
            }
        }
        true
    }

    /// True if a record says so.
    #[inline(always)]
    fn enqueue(
        &mut self,
        handle: SessionHandle,
        outgoing: Outgoing,
        recorded: Option<MessageId>,
        now: Now,
    ) -> bool {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return false;
        };
        let connection = slot.connection;
        let tag = Tag(outgoing.tag);
        let (gate, qos, retain) = (outgoing.gate, outgoing.qos, outgoing.retain);
        // Only what is recorded can be fetched back.
        let limits = match recorded {
            Some(_) => &self.config.connection.limits,
            None => &self.resident_limits,
        };
        let subscription_ids = recorded.map(|_| outgoing.subscription_ids().collect());
        let entry = connection.and_then(|id| Some((id, self.connections.get_mut(&id)?)));
        let state = match entry {
            Some((id, entry)) => {
                self.outbox.need_flush(id, entry);
                entry.server.session_mut()
            }
            None => slot.session.as_deref_mut(),
        };
        let Some(state) = state else {
            return false;
        };
        let enqueued = state.enqueue(outgoing, limits, now);
        let counted = (state.queued(), state.queued_bytes());
        self.counters.count_queue(&mut slot.counted, counted);
        if !self.config.limits.slow_publishers.is_zero() {
            self.wait = self.wait.max(slows(slot, &self.config, now));
        }
        let sequence = match enqueued {
            Enqueued::Queued { sequence } => sequence,
            Enqueued::Stored { sequence } => {
                self.mark_stored(handle, sequence, tag);
                sequence
            }
            Enqueued::Displaced { sequence, oldest } => {
                self.mark_stored(handle, sequence, tag);
                for dropped in oldest {
                    self.on_dropped(handle, dropped);
                }
                sequence
            }
            Enqueued::Refused(reason) => {
                self.count_dropped(reason.into());
                self.finish_mark(handle, tag);
                return false;
            }
        };
        if let (Some(id), Some(subscription_ids)) = (recorded, subscription_ids)
            && let Some(slot) = self.sessions.get(handle)
        {
            let session = Arc::clone(&slot.key);
            let group = self.group_place(handle, tag).map(Box::new);
            self.record(Record::Enqueued {
                session,
                sequence,
                id,
                qos,
                retain,
                subscription_ids,
                group,
            });
            self.poll_fetch(handle);
        }
        if let (Some(connection), Some(_)) = (connection, recorded) {
            self.wait_for_commit(connection, gate);
        }
        recorded.is_some()
    }

    /// What a message of a group is to it.
    fn group_place(&self, handle: SessionHandle, tag: Tag) -> Option<GroupPlace> {
        let mark = self.sessions.get(handle)?.marks.get(tag.mark()?)?;
        Some(GroupPlace {
            group: self.memberships.group(mark.place.membership)?.clone(),
            sequence: mark.place.sequence,
        })
    }

    /// A group's message may be in the store only: its mark is found by its sequence then.
    fn mark_stored(&mut self, handle: SessionHandle, sequence: u64, tag: Tag) {
        if let (Some(mark), Some(slot)) = (tag.mark(), self.sessions.get_mut(handle)) {
            slot.stored_marks.insert(sequence, mark);
        }
    }

    /// Asks for queued messages that only the store has, when a session needs them.
    pub(crate) fn poll_fetch(&mut self, handle: SessionHandle) {
        if self.config.durability == Durability::Memory {
            return;
        }
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let session = Arc::clone(&slot.key);
        let limits = &self.config.connection.limits;
        let from = state(slot, &mut self.connections).and_then(|state| state.poll_fetch(limits));
        if let Some(from) = from {
            self.command(Command::Fetch { session, from });
        }
    }

    /// The answer to [`Command::Fetch`]: messages of a session in the order of their sequences.
    /// `next` is the first sequence not looked at; those before it that are missing are finished. One
    /// that is no greater than what was asked for says that nothing can be read.
    ///
    /// `session` is the value that came with the command, not only an equal one: what was asked for an
    /// earlier session of the same name is not for a later one.
    pub fn handle_fetched(
        &mut self,
        session: &Arc<SessionKey>,
        next: u64,
        messages: Vec<Fetched>,
        now: Now,
    ) {
        let now = self.clock.read(now);
        let Some(handle) = self.sessions.find(session) else {
            return;
        };
        // The store may give back what it has not made durable.
        let gate = if planted!(PublishBeforeStored) {
            CommitId::ZERO
        } else {
            CommitId::new(self.next_commit - 1)
        };
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        if !Arc::ptr_eq(session, &slot.key) {
            return;
        }
        let connection = slot.connection;
        let mut lost: Vec<u64> = Vec::new();
        let mut page: Vec<FetchedMessage> = Vec::new();
        for fetched in messages {
            let anything = || {
                // PUBREL is all that is still to be sent.
                let topic_name = TopicName::new("-").ok()?;
                fetched
                    .pubrec_received
                    .then(|| Message::new(topic_name, &[]))
            };
            let Some(message) = fetched.message.or_else(anything) else {
                lost.push(fetched.sequence);
                continue;
            };
            let mark = slot.stored_marks.get(&fetched.sequence).copied();
            let outgoing = Outgoing {
                qos: fetched.qos,
                retain: fetched.retain,
                tag: Tag::shared(mark.unwrap_or_default(), true).0,
                gate: (fetched.qos == QoS::ExactlyOnce).then_some(gate),
                ..Outgoing::new(message).with_subscription_ids(fetched.subscription_ids)
            };
            page.push(FetchedMessage {
                sequence: fetched.sequence,
                outgoing,
                pubrec_received: fetched.pubrec_received,
            });
        }
        if let Some(state) = state(slot, &mut self.connections) {
            lost.retain(|sequence| state.awaits(*sequence));
            let given_up = state.handle_fetched(next, page);
            let counted = (state.queued(), state.queued_bytes());
            self.count_queue(handle, counted);
            self.lose_unreadable(handle, &lost, given_up);
        }
        self.drop_forbidden(handle);
        if let Some(connection) = connection {
            self.wait_for_commit(connection, Some(gate));
            self.need_flush(connection);
        }
        self.poll_fetch(handle);
        self.settle(now);
    }

    /// A session goes on without messages that the store cannot read, and without those of a range
    /// of which it can read nothing. These stay there: another start may find them.
    fn lose_unreadable(&mut self, handle: SessionHandle, lost: &[u64], given_up: Range<u64>) {
        let messages = lost.len() as u64 + (given_up.end - given_up.start);
        let Some(slot) = self.sessions.get(handle).filter(|_| messages > 0) else {
            return;
        };
        let session = Arc::clone(&slot.key);
        let marks = slot.stored_marks.clone();
        let mark = |sequence| marks.get(&sequence).copied().unwrap_or_default();
        for sequence in lost {
            self.on_finished(handle, *sequence, Tag::shared(mark(*sequence), true));
        }
        for sequence in given_up {
            self.finish_mark(handle, Tag::shared(mark(sequence), true));
        }
        let reason = DropReason::Unreadable;
        self.counters.count_dropped(reason, messages);
        self.command(Command::Log(Event::Unreadable { session, messages }));
    }

    /// A session drops a message that it had queued.
    pub(crate) fn on_dropped(&mut self, handle: SessionHandle, dropped: avocet_session::Dropped) {
        self.count_dropped(dropped.reason.into());
        let mut tag = Tag(dropped.tag);
        if dropped.stored {
            let slot = self.sessions.get(handle);
            let mark = slot.and_then(|slot| slot.stored_marks.get(&dropped.sequence));
            tag = Tag::shared(mark.copied().unwrap_or_default(), true);
        }
        self.on_finished(handle, dropped.sequence, tag);
    }

    /// A session is done with a message.
    pub(crate) fn on_finished(&mut self, handle: SessionHandle, sequence: u64, tag: Tag) {
        self.forget_recorded(handle, sequence, tag);
        self.finish_mark(handle, tag);
    }

    /// The client of a session has acknowledged a message: no call of its group's is at work.
    pub(crate) fn on_acknowledged(
        &mut self,
        handle: SessionHandle,
        sequence: u64,
        tag: Tag,
        now: Now,
    ) {
        self.forget_recorded(handle, sequence, tag);
        let Some(SharedMark { place, .. }) = self.remove_mark(handle, tag) else {
            return;
        };
        match place.group {
            // What the group was told before comes first.
            Some(group) if self.outbox.to_self.is_empty() => {
                let member = MemberId {
                    shard: self.shard,
                    membership: place.membership,
                };
                self.on_member_finished(group, member, place.sequence, now);
            }
            Some(_) | None => self.finish_shared(place),
        }
    }

    /// Records the end of a message, if a record says that the session has it.
    fn forget_recorded(&mut self, handle: SessionHandle, sequence: u64, tag: Tag) {
        // A QoS 0 message has the sequence of the one behind it.
        if tag.is_recorded()
            && let Some(slot) = self.sessions.get_mut(handle)
        {
            slot.stored_marks.remove(&sequence);
            let session = Arc::clone(&slot.key);
            self.record(Record::Finished { session, sequence });
        }
    }

    fn finish_mark(&mut self, handle: SessionHandle, tag: Tag) {
        if let Some(mark) = self.remove_mark(handle, tag) {
            self.finish_shared(mark.place);
        }
    }

    fn remove_mark(&mut self, handle: SessionHandle, tag: Tag) -> Option<SharedMark> {
        let slot = self.sessions.get_mut(handle)?;
        slot.marks.remove(tag.mark()?)
    }

    /// Keeps the totals of the shard in step with a session's queue.
    pub(crate) fn count_queue(&mut self, handle: SessionHandle, counted: (usize, u64)) {
        if let Some(slot) = self.sessions.get_mut(handle) {
            self.counters.count_queue(&mut slot.counted, counted);
        }
    }
}

impl From<avocet_session::DropReason> for DropReason {
    fn from(reason: avocet_session::DropReason) -> Self {
        match reason {
            avocet_session::DropReason::Offline => Self::OfflineQoS0,
            avocet_session::DropReason::Expired => Self::Expired,
            avocet_session::DropReason::TooLarge => Self::TooLargeForClient,
            // What else a session may lack is room.
            avocet_session::DropReason::QueueFull | _ => Self::QueueFull,
        }
    }
}
