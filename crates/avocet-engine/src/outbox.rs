//! What leaves a shard: commands, values for other shards, records, and in which order.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use avocet_session::{CommitId, Now};

use crate::config::Level;
use crate::connection::Connection;
use crate::record::Record;
use crate::shard::{GroupChange, Lane, MembershipId, ShardId, ShardMessage, Value};
use crate::{Command, ConnectionId, Engine};

/// What waits to be polled.
pub(crate) struct Outbox {
    /// Values for other shards, by lane.
    lanes: [VecDeque<(ShardId, Value)>; 3],
    /// Values that this shard sends to itself: the same code runs with one shard and with many.
    pub(crate) to_self: VecDeque<Value>,
    records: Vec<Record>,
    /// The strictest level of what waits for them.
    level: Level,
    pub(crate) commands: VecDeque<Command>,
    flushes: VecDeque<ConnectionId>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            lanes: Default::default(),
            to_self: VecDeque::new(),
            records: Vec::new(),
            level: Level::Memory,
            commands: VecDeque::new(),
            flushes: VecDeque::new(),
        }
    }
}

impl Outbox {
    pub(crate) fn record(&mut self, record: Record) {
        self.records.push(record);
    }

    /// The last value for subscribers, if it is for this shard.
    pub(crate) fn last_for_subscribers(&mut self, to: ShardId) -> Option<&mut Value> {
        let [subscribers, ..] = &mut self.lanes;
        let (last_to, value) = subscribers.back_mut()?;
        (*last_to == to).then_some(value)
    }

    /// What a member is done with, if its group hears of nothing else behind that.
    pub(crate) fn last_finished(&mut self, member: MembershipId) -> Option<&mut Vec<u64>> {
        let [_, owners, _] = &mut self.lanes;
        match owners.back_mut() {
            Some((
                _,
                Value::Group {
                    membership,
                    change: GroupChange::Finished { sequences },
                    ..
                },
            )) if *membership == member => Some(sequences),
            _ => None,
        }
    }

    /// The connection has output, or may have.
    pub(crate) fn need_flush(&mut self, id: ConnectionId, entry: &mut Connection) {
        if !mem::replace(&mut entry.flush, true) {
            self.flushes.push_back(id);
        }
    }
}

/// How often the time is recorded.
const TIME_INTERVAL: Duration = Duration::from_secs(60);

impl Engine {
    pub(crate) fn owner_of_topic(
        &self,
        tenant: &str,
        topic_name: avocet_topic::TopicName<'_>,
    ) -> ShardId {
        self.owner(|| ShardId::of_topic(tenant, topic_name, self.shards))
    }

    pub(crate) fn owner_of_group(&self, group: &crate::GroupName) -> ShardId {
        self.owner(|| ShardId::of_group(group, self.shards))
    }

    pub(crate) fn owner_of_session(&self, key: &crate::SessionKey) -> ShardId {
        self.owner(|| ShardId::of_session(key, self.shards))
    }

    fn owner(&self, owner: impl FnOnce() -> ShardId) -> ShardId {
        if self.shards == 1 {
            return self.shard;
        }
        owner()
    }

    /// The other shards, ascending.
    pub(crate) fn other_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        let this = self.shard;
        (0..self.shards)
            .map(ShardId::new)
            .filter(move |shard| *shard != this)
    }

    pub(crate) fn send(&mut self, to: ShardId, lane: Lane, value: Value) {
        if to == self.shard {
            self.outbox.to_self.push_back(value);
            return;
        }
        let [subscribers, owners, confirmations] = &mut self.outbox.lanes;
        let lane = match lane {
            Lane::Subscribers => subscribers,
            Lane::Owners => owners,
            Lane::Confirmations => confirmations,
        };
        lane.push_back((to, value));
    }

    /// Handles what the shard sent to itself; after each packet and each value.
    pub(crate) fn settle(&mut self, now: Now) {
        while let Some(value) = self.outbox.to_self.pop_front() {
            self.on_value(self.shard, value, now);
        }
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.outbox.record(record);
    }

    /// The commit that this turn's records belong to.
    pub(crate) fn commit_id(&self) -> CommitId {
        CommitId::new(self.next_commit)
    }

    /// How much was recorded in this turn.
    pub(crate) fn records(&self) -> usize {
        self.outbox.records.len()
    }

    /// Whether something was recorded in this turn.
    pub(crate) fn has_records(&self) -> bool {
        self.records() > 0
    }

    /// Whether something that was recorded may not be as safe as the default level asks.
    pub(crate) fn is_behind(&self) -> bool {
        let safe = self.committed.min(self.strict);
        self.has_records() || safe.get() + 1 < self.next_commit
    }

    /// The commit to wait for if state changed that must survive.
    pub(crate) fn gate_if(&mut self, durable: bool) -> Option<CommitId> {
        self.gate_at(self.config.levels.default, durable)
    }

    /// The commit to wait for at this level if state changed that must survive.
    pub(crate) fn gate_at(&mut self, level: Level, durable: bool) -> Option<CommitId> {
        let durable = durable && !planted!(AckBeforeStored);
        (durable && self.has_records()).then(|| self.commit_at(level))
    }

    /// The commit of this turn, which is to be as safe as this; none to wait for in memory.
    pub(crate) fn commit_at(&mut self, level: Level) -> CommitId {
        if level == Level::Memory {
            return CommitId::ZERO;
        }
        self.outbox.level = self.outbox.level.max(level);
        self.commit_id()
    }

    /// The commit to wait for if all that was recorded so far must survive.
    pub(crate) fn gate_all(&mut self) -> CommitId {
        let last = CommitId::new(self.next_commit - 1);
        if !self.has_records() && self.strict == last {
            return last;
        }
        if !self.has_records() {
            // The report of the last one does not say it: one more does.
            let at = self.clock.unix();
            self.record(Record::Time { at });
        }
        self.commit_at(self.config.levels.default)
    }

    /// The connection has output, or may have.
    pub(crate) fn need_flush(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(&id) {
            self.outbox.need_flush(id, entry);
        }
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.outbox.commands.push_back(command);
    }

    /// Connections that have got output since [`Command::Flush`] last named them.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.outbox.flushes.len()
    }

    /// What the driver must do next; to be called until there is nothing.
    ///
    /// A commit comes before the values that depend on it, messages for subscribers before
    /// requests to owners, these before confirmations, and output last.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.accept_forwards();
        self.tell_usage();
        if self.has_records() {
            let id = self.commit_id();
            self.next_commit += 1;
            let mut records = mem::take(&mut self.outbox.records);
            let at = self.clock.unix();
            if at >= self.recorded_time + TIME_INTERVAL {
                self.recorded_time = at;
                records.push(Record::Time { at });
            }
            self.uncommitted.push(id, &records);
            let level = mem::replace(&mut self.outbox.level, Level::Memory);
            if level >= self.config.levels.default {
                self.strict = id;
            }
            return Some(Command::Commit { id, records, level });
        }
        for lane in &mut self.outbox.lanes {
            if let Some((to, value)) = lane.pop_front() {
                let value = ShardMessage(value);
                return Some(Command::ToShard { to, value });
            }
        }
        if let Some(command) = self.outbox.commands.pop_front() {
            return Some(command);
        }
        while let Some(id) = self.outbox.flushes.pop_front() {
            if let Some(entry) = self.connections.get_mut(&id) {
                entry.flush = false;
                return Some(Command::Flush(id));
            }
        }
        None
    }
}
