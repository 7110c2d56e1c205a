//! The life of a session: what it is given, and how it ends.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use avocet_codec::QoS;
use avocet_session::{Enqueued, Now, Outgoing, Session};

use crate::counters::DropReason;
use crate::member::{Mark, qos0_tag};
use crate::record::{MessageId, Record};
use crate::session_table::{SessionHandle, SessionKey, Slot};
use crate::shard::{MembershipId, Published};
use crate::timer::Deadline;
use crate::{Command, Durability, Engine, Fetched};

impl Engine {
    /// Puts a message into a session's queue. True if that must survive.
    pub(crate) fn deliver(
        &mut self,
        handle: SessionHandle,
        mut outgoing: Outgoing,
        published: &mut Published,
        shared: Option<(MembershipId, u64)>,
        now: Now,
    ) -> bool {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return false;
        };
        let limits = &self.config.limits;
        if self.counters.queued_messages >= limits.queued_messages_max as u64
            || self.counters.queued_bytes >= limits.queued_bytes_max as u64
        {
            self.counters.count_dropped(DropReason::TotalFull, 1);
            self.finish_shared(shared);
            return false;
        }
        let qos = outgoing.qos;
        let recorded = slot.is_durable() && published.id.is_some() && qos != QoS::AtMostOnce;
        outgoing.tag = match shared {
            None if !recorded => 0,
            Some((membership, _)) if qos == QoS::AtMostOnce => qos0_tag(membership),
            _ => slot.marks.insert(Mark {
                id: published.id,
                recorded,
                shared,
                publisher: shared.and_then(|_| published.publisher.clone()),
            }),
        };
        if recorded {
            self.store_message(published);
            // A Packet Identifier of QoS 2 is stored before it is seen.
            outgoing.gate = (qos == QoS::ExactlyOnce).then(|| self.commit_id());
        }
        let id = published.id.filter(|_| recorded);
        self.enqueue(handle, outgoing, id, now)
    }

    /// True if a record says so.
    fn enqueue(
        &mut self,
        handle: SessionHandle,
        outgoing: Outgoing,
        id: Option<MessageId>,
        now: Now,
    ) -> bool {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return false;
        };
        let key = Arc::clone(&slot.key);
        let connection = slot.connection;
        let entry = connection.and_then(|id| self.connections.get_mut(&id));
        let session = match entry {
            Some(entry) => entry.server.session_mut(),
            None => slot.session.as_mut(),
        };
        let Some(session) = session else {
            return false;
        };
        let (tag, gate, qos, retain) = (outgoing.tag, outgoing.gate, outgoing.qos, outgoing.retain);
        let subscription_ids = match id {
            Some(_) => outgoing.subscription_ids.as_slice().to_vec(),
            None => Vec::new(),
        };
        // Only what is recorded can be fetched back.
        let limits = match id {
            Some(_) => &self.config.connection.limits,
            None => &self.resident_limits,
        };
        let enqueued = session.enqueue(outgoing, limits, now);
        let counted = (session.queued(), session.queued_bytes());
        self.count_queue(handle, counted);
        let sequence = match enqueued {
            Enqueued::Queued { sequence } => sequence,
            Enqueued::Stored { sequence } => {
                // It gets another mark when it is fetched.
                if let Some(slot) = self.sessions.get_mut(handle) {
                    slot.marks.remove(tag);
                }
                sequence
            }
            Enqueued::Displaced { sequence, oldest } => {
                for dropped in oldest {
                    self.on_dropped(handle, dropped.tag, dropped.reason);
                }
                sequence
            }
            Enqueued::Refused(reason) => {
                if let Some(slot) = self.sessions.get_mut(handle) {
                    slot.marks.forget_record(tag);
                }
                self.on_dropped(handle, tag, reason);
                return false;
            }
        };
        if let Some(id) = id {
            self.record(Record::Enqueued {
                session: key,
                sequence,
                id,
                qos,
                retain,
                subscription_ids,
            });
        }
        self.poll_fetch(handle);
        if let Some(connection) = connection {
            self.wait_for_commit(connection, gate);
            self.need_flush(connection);
        }
        id.is_some()
    }

    /// Asks for queued messages that only the store has, when a session needs them.
    pub(crate) fn poll_fetch(&mut self, handle: SessionHandle) {
        if self.config.durability == Durability::Memory {
            return;
        }
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let entry = slot.connection.and_then(|id| self.connections.get_mut(&id));
        let session = match entry {
            Some(entry) => entry.server.session_mut(),
            None => slot.session.as_mut(),
        };
        let limits = &self.config.connection.limits;
        if let Some(from) = session.and_then(|session| session.poll_fetch(limits)) {
            let session = Arc::clone(&slot.key);
            self.command(Command::Fetch { session, from });
        }
    }

    /// The answer to [`Command::Fetch`]: messages of a session in the order of their sequences.
    /// `next` is the first sequence not looked at; those before it that are missing have expired.
    pub fn handle_fetched(
        &mut self,
        session: &SessionKey,
        next: u64,
        messages: Vec<Fetched>,
        now: Now,
    ) {
        let now = self.clock.read(now);
        let Some(handle) = self.sessions.find(session) else {
            return;
        };
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let marks = &mut slot.marks;
        let messages: Vec<(u64, Outgoing)> = messages
            .into_iter()
            .map(|fetched| {
                let tag = marks.insert(Mark {
                    id: Some(fetched.id),
                    recorded: true,
                    shared: None,
                    publisher: None,
                });
                let outgoing = Outgoing {
                    message: fetched.message,
                    qos: fetched.qos,
                    retain: fetched.retain,
                    subscription_ids: fetched.subscription_ids.into_iter().collect(),
                    tag,
                    gate: None,
                };
                (fetched.sequence, outgoing)
            })
            .collect();
        let connection = slot.connection;
        let entry = connection.and_then(|id| self.connections.get_mut(&id));
        let state = match entry {
            Some(entry) => entry.server.session_mut(),
            None => slot.session.as_mut(),
        };
        if let Some(state) = state {
            state.handle_fetched(next, messages);
            let counted = (state.queued(), state.queued_bytes());
            self.count_queue(handle, counted);
        }
        if let Some(connection) = connection {
            self.need_flush(connection);
        }
        self.poll_fetch(handle);
        self.settle(now);
    }

    /// A session drops a message.
    pub(crate) fn on_dropped(
        &mut self,
        handle: SessionHandle,
        tag: u64,
        reason: avocet_session::DropReason,
    ) {
        self.count_dropped(reason.into());
        self.finish_mark(handle, tag);
    }

    /// Keeps the totals of the shard in step with a session's queue.
    pub(crate) fn count_queue(&mut self, handle: SessionHandle, counted: (usize, u64)) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let (messages, bytes) = core::mem::replace(&mut slot.counted, counted);
        let counters = &mut self.counters;
        counters.queued_messages = counters.queued_messages + counted.0 as u64 - messages as u64;
        counters.queued_bytes = counters.queued_bytes + counted.1 - bytes;
    }

    pub(crate) fn record_finished(&mut self, handle: SessionHandle, mark: &Mark) {
        let slot = self.sessions.get(handle);
        if let (Some(id), Some(slot)) = (mark.recorded_id(), slot) {
            let session = Arc::clone(&slot.key);
            self.record(Record::Finished { session, id });
        }
    }

    /// Whether a session's changes are recorded.
    pub(crate) fn is_recorded(&self, handle: SessionHandle) -> bool {
        self.config.durability == Durability::Stored
            && self.sessions.get(handle).is_some_and(Slot::is_durable)
    }

    /// Adds a session; none with this key may be there.
    pub(crate) fn begin_session(&mut self, key: Arc<SessionKey>) -> SessionHandle {
        self.counters.sessions_disconnected += 1;
        let mut slot = Slot::new(key);
        slot.session = Some(Session::new());
        self.sessions.insert(slot)
    }

    /// Sets what a connection asks of its session's end; recorded when it changes.
    pub(crate) fn set_expiry_interval(&mut self, handle: SessionHandle, seconds: u32) {
        let stored = self.config.durability == Durability::Stored;
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let was_durable = slot.is_durable();
        slot.expiry_interval = seconds;
        let (session, expires_at) = (Arc::clone(&slot.key), slot.expires_at);
        if stored && seconds > 0 {
            self.record(Record::SessionPut {
                session,
                expiry_interval: seconds,
                expires_at,
            });
        } else if stored && was_durable {
            self.record(Record::SessionDeleted { session });
        }
    }

    /// The session has a connection: nothing ends it until that ends.
    pub(crate) fn keep_session(&mut self, handle: SessionHandle) {
        if let Some(slot) = self.sessions.get_mut(handle)
            && let Some(at) = slot.expires_at.take()
        {
            self.timers.clear_session(handle, Deadline::Expiry, at);
        }
    }

    /// The connection of a session ended: the session waits for another one, or ends
    /// [MQTT5-3.1.2-23] [MQTT5-3.14.4-3].
    pub(crate) fn detach(
        &mut self,
        handle: SessionHandle,
        session: Option<Session>,
        publishes_will: bool,
        now: Now,
    ) {
        self.counters.sessions_connected -= 1;
        self.counters.sessions_disconnected += 1;
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        slot.connection = None;
        let mut session = session.unwrap_or_default();
        let expiry_max = self.config.limits.session_expiry_interval_max;
        let expiry_interval = session.expiry_interval().min(expiry_max);
        self.members_offline(handle, &mut session);
        let counted = (session.queued(), session.queued_bytes());
        if let Some(slot) = self.sessions.get_mut(handle) {
            slot.session = Some(session);
            if expiry_interval > 0 && expiry_interval < u32::MAX {
                let at = now.unix + Duration::from_secs(expiry_interval.into());
                slot.expires_at = Some(at);
                self.timers.set_session(handle, Deadline::Expiry, at);
            }
        }
        self.count_queue(handle, counted);
        if !publishes_will {
            self.set_will(handle, None);
        }
        self.set_expiry_interval(handle, expiry_interval);
        if expiry_interval == 0 {
            self.end_session(handle, now);
        } else {
            self.begin_will(handle, now);
        }
    }

    /// Ends a session without a connection, and everything it held [MQTT5-3.1.2-4]
    /// [MQTT311-3.1.2-6]. Its will is published early [MQTT5-3.1.2-8].
    pub(crate) fn end_session(&mut self, handle: SessionHandle, now: Now) {
        self.publish_will(handle, now);
        self.keep_session(handle);
        let recorded = self.is_recorded(handle);
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let waiting = slot.session.as_ref().map_or(0, Session::queued);
        // What it held is deleted with it, not piece by piece.
        slot.expiry_interval = 0;
        let filters: Vec<_> = slot.subscriptions.keys().cloned().collect();
        for filter in filters {
            self.remove_subscription(handle, &filter);
        }
        self.count_queue(handle, (0, 0));
        let ended = DropReason::SessionEnded;
        self.counters.count_dropped(ended, waiting as u64);
        self.counters.sessions_disconnected -= 1;
        let slot: Option<Box<Slot>> = self.sessions.remove(handle);
        if let Some(slot) = slot.filter(|_| recorded) {
            let session = slot.key;
            self.record(Record::SessionDeleted { session });
        }
    }

    /// Ends the sessions, and publishes the wills, whose time has come.
    pub(crate) fn expire_sessions(&mut self, now: Now) {
        while let Some((deadline, handle)) = self.timers.pop_session(now.unix) {
            match deadline {
                Deadline::Will => self.publish_will(handle, now),
                Deadline::Expiry => {
                    self.counters.sessions_expired += 1;
                    self.end_session(handle, now);
                }
            }
            self.settle(now);
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
