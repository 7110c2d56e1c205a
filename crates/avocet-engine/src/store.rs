//! A store that is slow, or takes nothing: what is not stored stays within bounds.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use avocet_codec::{QoS, ReasonCode, Version};
use avocet_session::{CommitId, Message, Now};

use crate::counters::DropReason;
use crate::record::Record;
use crate::{ConnectionId, Durability, Engine};

/// What a store does with what is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreState {
    /// It stores it.
    #[default]
    Working,
    /// It has no room for it.
    Full,
    /// It cannot.
    Failed,
}

/// What was recorded and is not stored.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted {
    /// Commits with their bytes, oldest first.
    commits: VecDeque<(CommitId, usize)>,
    bytes: usize,
    /// Bytes of messages that other shards are to store.
    elsewhere: usize,
    /// Connections whose input waits.
    paused: Vec<ConnectionId>,
}

/// What a record without a message takes, about.
const RECORD_BYTES: usize = 64;

impl Uncommitted {
    pub(crate) fn push(&mut self, id: CommitId, records: &[Record]) {
        let bytes = |record: &Record| {
            let (Record::MessageStored { message, .. }
            | Record::RetainedPut { message, .. }
            | Record::WillPut { message, .. }) = record
            else {
                return RECORD_BYTES;
            };
            RECORD_BYTES + message.len()
        };
        let bytes = records.iter().map(bytes).sum();
        self.commits.push_back((id, bytes));
        self.bytes += bytes;
    }

    /// Another shard is to store a message.
    pub(crate) fn leave(&mut self, bytes: usize) {
        self.elsewhere += bytes;
    }

    /// It has.
    pub(crate) fn arrive(&mut self, bytes: usize) {
        self.elsewhere = self.elsewhere.saturating_sub(bytes);
    }

    pub(crate) const fn elsewhere(&self) -> usize {
        self.elsewhere
    }

    const fn bytes(&self) -> usize {
        self.bytes + self.elsewhere
    }

    pub(crate) fn commit(&mut self, committed: CommitId) {
        while let Some((_, bytes)) = self.commits.pop_front_if(|(id, _)| *id <= committed) {
            self.bytes -= bytes;
        }
    }
}

impl Engine {
    /// Why a client may not publish a message now: it would have to be stored, and that can be told.
    pub(crate) fn refuse_for_store(
        &self,
        id: ConnectionId,
        message: &Message,
    ) -> Option<(ReasonCode, DropReason)> {
        let reason_code = match self.store {
            StoreState::Working => return None,
            StoreState::Full => ReasonCode::QuotaExceeded,
            StoreState::Failed => ReasonCode::ImplementationSpecificError,
        };
        let entry = self.connections.get(&id)?;
        if self.config.durability == Durability::Memory
            || message.qos() == QoS::AtMostOnce
            || entry.server.version() != Version::V5
        {
            return None;
        }
        let received = message.qos() == QoS::ExactlyOnce
            && entry
                .session
                .is_some_and(|session| self.is_recorded(session));
        let stored =
            message.retain() || received || self.matches_durably(entry.space, message.topic_name());
        stored.then_some((reason_code, DropReason::NotStored))
    }

    /// The input of a connection waits if it made too much that is not stored.
    pub(crate) fn pause_for_store(&mut self, id: ConnectionId) {
        if self.uncommitted.bytes() < self.config.limits.uncommitted_bytes_max {
            return;
        }
        if let Some(entry) = self.connections.get_mut(&id)
            && !mem::replace(&mut entry.waits_for_store, true)
        {
            entry.server.pause();
            self.uncommitted.paused.push(id);
        }
    }

    /// Lets connections read on when enough is stored.
    pub(crate) fn resume_for_store(&mut self, now: Now) {
        if self.uncommitted.bytes() > self.config.limits.uncommitted_bytes_max / 2 {
            return;
        }
        for id in mem::take(&mut self.uncommitted.paused) {
            if let Some(entry) = self.connections.get_mut(&id) {
                entry.waits_for_store = false;
                self.unpause(id, now);
                self.update_timer(id);
            }
        }
    }
}
