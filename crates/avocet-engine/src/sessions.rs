//! The life of a session: what it is given, and how it ends.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use avocet_codec::QoS;
use avocet_session::{CommitId, Now, Session};

use crate::counters::DropReason;
use crate::record::Record;
use crate::session_table::{SessionHandle, SessionKey, Slot};
use crate::tenant::SpaceId;
use crate::timer::{DUE_MAX, Deadline};
use crate::{Durability, Engine};

impl Engine {
    /// Whether a session's changes are recorded.
    pub(crate) fn is_recorded(&self, handle: SessionHandle) -> bool {
        self.config.durability == Durability::Stored
            && self.sessions.get(handle).is_some_and(Slot::is_durable)
    }

    /// Adds a session; none with this key may be there.
    pub(crate) fn begin_session(&mut self, key: Arc<SessionKey>, space: SpaceId) -> SessionHandle {
        self.counters.sessions_disconnected += 1;
        self.spaces.count(space, |it| it.sessions += 1);
        let mut slot = Slot::new(key, space);
        slot.session = Some(Box::default());
        self.sessions.insert(slot)
    }

    /// Sets what a connection asks of its session's end; recorded when that is one which survives.
    /// While it is `connected`, all of its queue may be sent at any time.
    pub(crate) fn set_expiry_interval(
        &mut self,
        handle: SessionHandle,
        seconds: u32,
        connected: bool,
    ) {
        let stored = self.config.durability == Durability::Stored;
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        slot.expiry_interval = seconds;
        slot.durable |= seconds > 0;
        let recorded = stored && slot.durable;
        let (session, expires_at) = (Arc::clone(&slot.key), slot.expires_at);
        let sent = slot.session.as_deref().map_or(0, Session::sent);
        if recorded {
            self.record(Record::SessionPut {
                session,
                expiry_interval: seconds,
                expires_at,
                sent,
                window: if connected { u32::MAX } else { 0 },
            });
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
        session: Option<Box<Session>>,
        publishes_will: bool,
        now: Now,
    ) {
        self.counters.sessions_connected -= 1;
        self.counters.sessions_disconnected += 1;
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        slot.connection = None;
        self.spaces.count(slot.space, |it| it.connections -= 1);
        if let Some(access) = &mut slot.access {
            access.answers.clear();
        }
        let mut session = session.unwrap_or_default();
        let expiry_max = self.config.limits.session_expiry_interval_max;
        let expiry_interval = session.expiry_interval().min(expiry_max);
        let queue_qos0 = self.config.connection.limits.queue_qos0;
        if !queue_qos0 {
            let dropped = session.drop_frames() as u64;
            self.counters
                .count_dropped(DropReason::OfflineQoS0, dropped);
        }
        self.members_offline(handle, &mut session);
        if !queue_qos0 {
            let dropped = session.take_where(|outgoing| outgoing.qos == QoS::AtMostOnce);
            let dropped = dropped.len() as u64;
            self.counters
                .count_dropped(DropReason::OfflineQoS0, dropped);
        }
        let counted = (session.queued(), session.queued_bytes());
        if let Some(slot) = self.sessions.get_mut(handle) {
            slot.session = Some(session);
            if expiry_interval > 0 && expiry_interval < u32::MAX {
                let at = self.clock.unix() + Duration::from_secs(expiry_interval.into());
                slot.expires_at = Some(at);
                self.timers.set_session(handle, Deadline::Expiry, at);
            }
        }
        self.count_queue(handle, counted);
        if !publishes_will {
            self.set_will(handle, None);
        }
        if expiry_interval == 0 {
            self.end_session(handle, now);
        } else {
            self.set_expiry_interval(handle, expiry_interval, false);
            self.begin_will(handle, now);
            self.tell_of_sessions(handle);
        }
    }

    /// The broker stops: the session stays as it is, and its will is left to the restart.
    pub(crate) fn park(&mut self, handle: SessionHandle, session: Option<Box<Session>>) {
        self.counters.sessions_connected -= 1;
        self.counters.sessions_disconnected += 1;
        if let Some(slot) = self.sessions.get_mut(handle) {
            slot.connection = None;
            slot.session = session;
            self.spaces.count(slot.space, |it| it.connections -= 1);
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
        let waiting = slot.session.as_deref().map_or(0, Session::queued);
        // What it held is deleted with it, not piece by piece.
        slot.durable = false;
        let routes = self.spaces.routes(slot.space);
        let filters: Vec<_> = slot.subscriptions.filters(routes).collect();
        for filter in filters {
            self.remove_subscription(handle, &filter);
        }
        self.count_queue(handle, (0, 0));
        let ended = DropReason::SessionEnded;
        self.counters.count_dropped(ended, waiting as u64);
        self.counters.sessions_disconnected -= 1;
        let slot: Option<Box<Slot>> = self.sessions.remove(handle);
        if let Some(slot) = &slot {
            self.spaces.count(slot.space, |it| it.sessions -= 1);
        }
        if let Some(slot) = slot.filter(|_| recorded) {
            let session = slot.key;
            let gate = self.commit_at(self.config.levels.default);
            self.ended.insert(Arc::clone(&session), gate);
            self.record(Record::SessionDeleted { session });
        }
    }

    /// The commit without which the session that had this one's name comes back.
    pub(crate) fn ended(&self, handle: SessionHandle) -> Option<CommitId> {
        let key = &self.sessions.get(handle)?.key;
        self.ended.get(key).copied()
    }

    /// Ends the sessions, and publishes the wills, whose time has come.
    pub(crate) fn expire_sessions(&mut self, now: Now) {
        for _ in 0..DUE_MAX {
            let Some((deadline, handle)) = self.timers.pop_session(self.clock.unix()) else {
                return;
            };
            match deadline {
                Deadline::Will => self.publish_will(handle, now),
                Deadline::Expiry if planted!(SessionNeverExpires) => {}
                Deadline::Expiry => {
                    self.counters.sessions_expired += 1;
                    self.end_session(handle, now);
                }
            }
            self.settle(now);
        }
    }
}
