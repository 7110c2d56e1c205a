//! A broker that has no memory left for more, and sessions that nobody comes back to.

use alloc::collections::BTreeMap;

use avocet_codec::{ReasonCode, Version};
use avocet_session::PublishFrame;

use crate::counters::DropReason;
use crate::session_table::SessionHandle;
use crate::{Command, ConnectionId, Engine, Event};

/// Messages that may wait for a connected client of an overloaded broker.
const WAITING_MAX: usize = 100;

impl Engine {
    /// The driver has no memory for more load, or has it again. While it has not, clients without a
    /// session are refused with 0x89 (server busy); 5.0 clients are told 0x97 (quota exceeded) when they
    /// publish with QoS 1 or 2, and of other messages only those are kept that clients who are connected take
    /// at once.
    pub fn set_overloaded(&mut self, overloaded: bool) {
        self.overloaded = overloaded;
        let limits = &self.config.limits;
        self.queued_max = if overloaded {
            (0, 0)
        } else {
            (
                limits.queued_messages_max as u64,
                limits.queued_bytes_max as u64,
            )
        };
    }

    /// Whether all queues together have no room for another message.
    pub(crate) const fn is_full(&self) -> bool {
        let (messages, bytes) = self.queued_max;
        self.counters.queued_messages >= messages || self.counters.queued_bytes >= bytes
    }

    /// Whether they have no room for a packet, or for the last of some.
    pub(crate) const fn is_full_for(&self, frame: PublishFrame<'_>) -> bool {
        let (messages, bytes) = self.queued_max;
        let before = frame.packets() as u64 - 1;
        self.is_full()
            || before > 0
                && (self.counters.queued_messages + before >= messages
                    || self.counters.queued_bytes + frame.bytes() as u64 >= bytes)
    }

    /// Why a session gets no message although it may; none if it does in spite of all.
    pub(crate) fn full_for(&self, handle: SessionHandle) -> Option<DropReason> {
        if !self.overloaded {
            return Some(DropReason::TotalFull);
        }
        let slot = self.sessions.get(handle);
        let takes = |slot: &crate::session_table::Slot| {
            slot.connection.is_some() && slot.counted.0 < WAITING_MAX
        };
        let limits = &self.config.limits;
        let really = self.counters.is_full(limits);
        (really || !slot.is_some_and(takes)).then_some(DropReason::Overloaded)
    }

    /// Why a client may not publish a message of QoS 1 or 2 now, if that can be told.
    pub(crate) fn refuse_for_overload(&self, id: ConnectionId) -> Option<(ReasonCode, DropReason)> {
        if !self.overloaded {
            return None;
        }
        let entry = self.connections.get(&id)?;
        let told = entry.server.version() == Version::V5;
        told.then_some((ReasonCode::QuotaExceeded, DropReason::Overloaded))
    }

    /// A session has no connection any more: if there are very many of these, the operator is told whose
    /// they are.
    pub(crate) fn tell_of_sessions(&mut self, handle: SessionHandle) {
        let told = self.config.limits.sessions_disconnected_told as u64;
        let disconnected = self.counters.sessions_disconnected;
        if told == 0 || disconnected < told || disconnected < self.sessions_told {
            return;
        }
        self.sessions_told = disconnected.saturating_mul(2);
        let Some(example) = self.sessions.get(handle).map(|slot| slot.key.clone()) else {
            return;
        };
        let mut realms = BTreeMap::<&str, u64>::new();
        for slot in self
            .sessions
            .iter()
            .filter(|slot| slot.connection.is_none())
        {
            *realms.entry(slot.key.realm()).or_default() += 1;
        }
        let most = realms.into_iter().max_by_key(|(_, count)| *count);
        let (realm, count) = most.unwrap_or_default();
        let most = (crate::SessionKey::in_realm(realm, "").into(), count);
        self.command(Command::Log(Event::ManySessions {
            disconnected,
            most,
            example,
        }));
    }
}
