//! What shards want stored, and when they learn that it is.

use std::collections::{BTreeMap, BTreeSet};

use avocet_engine::{GroupName, Level, MessageId, Record, StoreState};
use avocet_journal::Journal;
use avocet_session::CommitId;
use avocet_store::{MemoryStore, Position};

use crate::coverage::Kind;
use crate::disk::Disk;
use crate::history::What;
use crate::plan::{Crash, MILLI, System};
use crate::rng::Rng;
use crate::wire::{Uid, uid_of};
use crate::world::{Task, World};

/// What is stored.
pub(crate) struct Store {
    pub(crate) journal: Journal<Disk>,
    pub(crate) level: Level,
    pub(crate) rng: Rng,
    /// Which messages of the run those in the store are.
    uids: BTreeMap<MessageId, Uid>,
    /// Which messages came to which shared subscriptions, and where they are in their orders.
    grouped: BTreeSet<(GroupName, u64, Uid)>,
    /// How the disk is, and what the broker has told its shards.
    state: StoreState,
    told: StoreState,
}

impl Store {
    pub(crate) fn new(system: &System, seed: u64) -> Self {
        let mut rng = Rng::new(seed, "disk", 0);
        let disk = match (system.crashes, system.log) {
            (false, _) => Disk::Memory(MemoryStore::new()),
            (true, false) => Disk::kept(),
            (true, true) => Disk::log(&mut rng).expect("an empty disk"),
        };
        Self {
            journal: Journal::open(disk).expect("an empty store"),
            level: system.level,
            rng,
            uids: BTreeMap::new(),
            grouped: BTreeSet::new(),
            state: StoreState::Working,
            told: StoreState::Working,
        }
    }

    /// The process ends, or the power: what is left is opened again.
    pub(crate) fn crash(&mut self, power: bool) -> Result<(), String> {
        let none = Journal::open(Disk::Memory(MemoryStore::new()));
        let none = none.map_err(|error| error.to_string())?;
        let journal = std::mem::replace(&mut self.journal, none);
        let disk = journal.into_store().crash(power, &mut self.rng)?;
        self.journal = Journal::open(disk).map_err(|error| error.to_string())?;
        self.state = StoreState::Working;
        self.told = StoreState::Working;
        Ok(())
    }

    fn uid(&self, id: MessageId) -> Option<Uid> {
        self.uids.get(&id).copied()
    }
}

impl World {
    /// Applies what a shard wants stored; the position of it.
    pub(crate) fn apply(&mut self, shard: usize, id: CommitId, records: &[Record]) -> Position {
        let applied = self.store.journal.apply(records);
        applied.expect("nothing of the store is damaged");
        let mut stored = Vec::new();
        let mut enqueued = Vec::new();
        let mut queued = Vec::new();
        let mut pubrecs = Vec::new();
        let packet_id = |sequence: &u64| (sequence % 65_535 + 1) as u16;
        for record in records {
            if let Record::MessageStored { id, message, .. } = record
                && let Some(uid) = uid_of(message.payload())
            {
                self.store.uids.insert(*id, uid);
            }
            if let Record::Enqueued { session, id, .. } = record
                && let Some(uid) = self.store.uid(*id)
            {
                queued.push((session.to_string(), uid));
            }
            match record {
                Record::MessageStored { message, .. } => stored.extend(uid_of(message.payload())),
                // A member is given what its group has, and a new subscription what is retained:
                // neither is what the publisher waits for.
                Record::Enqueued {
                    session,
                    retain: false,
                    id,
                    ..
                } if !session.client_id().starts_with("member") => {
                    enqueued.extend(self.store.uid(*id));
                }
                // What comes back to its group has its place again: it was acknowledged, or is not
                // waited for.
                Record::GroupEnqueued { place, id, .. } => {
                    let uid = self.store.uid(*id);
                    let grouped = &mut self.store.grouped;
                    let place = |uid| (place.group.clone(), place.sequence, uid);
                    enqueued.extend(uid.filter(|uid| grouped.insert(place(*uid))));
                }
                Record::PubrecReceived { session, sequence } => {
                    pubrecs.push((session.to_string(), packet_id(sequence)));
                }
                _ => {}
            }
        }
        let commit = id.get();
        self.record(What::Commit {
            shard,
            commit,
            stored,
            enqueued,
            queued,
            pubrecs,
        });
        self.store.journal.store().last()
    }

    /// A shard wants something stored: that takes a while.
    pub(crate) fn commit(&mut self, shard: usize, id: CommitId, records: &[Record]) {
        let position = self.apply(shard, id, records);
        let wait = if self.calm {
            100
        } else {
            self.plan.system.commit_max
        };
        let state = &mut self.shards[shard];
        let at = (self.at + state.rng.below(wait)).max(state.last_stored + 1);
        let at = at.max(self.stalled_until);
        state.last_stored = at;
        self.schedule(at, Task::Stored(shard, id.get(), position));
    }

    /// A commit is due. If the disk does not work, all wait until it does.
    pub(crate) fn stored(&mut self, shard: usize, commit: u64, position: Position) {
        let Store {
            journal,
            level,
            rng,
            ..
        } = &mut self.store;
        let reached = journal.store_mut().reach(position, *level, rng);
        if reached.is_err() {
            if self.plan.system.power_ends.is_some() {
                self.crash_now = Some(Crash::power(self.plan.system.shards));
                return;
            }
            self.tell_store_state(self.store.state);
            let retry = self.at + 100 * MILLI;
            let state = &mut self.shards[shard];
            state.last_stored = state.last_stored.max(retry);
            self.schedule(retry, Task::Stored(shard, commit, position));
            return;
        }
        self.tell_store_state(StoreState::Working);
        self.shards[shard].committed.push_back(commit);
        self.record(What::Committed { shard, commit });
        self.wake_shard(shard);
    }

    /// From now on the disk works, is full, or fails.
    pub(crate) fn set_disk(&mut self, state: StoreState) {
        self.store.state = state;
        self.store.journal.store_mut().set_state(state);
    }

    /// Shards learn how the disk is some time soon.
    fn tell_store_state(&mut self, state: StoreState) {
        if self.store.told == state {
            return;
        }
        self.store.told = state;
        self.seen(match state {
            StoreState::Working => Kind::DiskWorksAgain,
            StoreState::Full => Kind::DiskFull,
            StoreState::Failed => Kind::DiskFailed,
        });
        for shard in 0..self.shards.len() {
            self.shards[shard].store_state = Some(state);
            self.wake_shard(shard);
        }
    }

    pub(crate) fn fetch(&mut self, shard: usize, number: u64) {
        let now = self.now();
        let Some((session, from)) = self.fetches.remove(&number) else {
            return;
        };
        let fetched = self.store.journal.fetch(&session, from);
        let (next, messages) = fetched.expect("nothing of the store is damaged");
        if !messages.is_empty() {
            self.seen(Kind::Fetched);
        }
        self.engines[shard].handle_fetched(&session, next, messages, now);
    }

    pub(crate) fn seq_of_fetch(&mut self) -> u64 {
        self.fetches
            .last_key_value()
            .map_or(1, |(last, _)| last + 1)
    }
}
