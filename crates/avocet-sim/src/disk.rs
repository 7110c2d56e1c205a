//! What is under the journal: a store in memory, one that remembers what a crash may take back, or the log on a
//! simulated disk.

use std::collections::VecDeque;
use std::ops::Range;

use avocet_engine::{Level, StoreState};
use avocet_store::{
    Batch, BlobId, Chore, CommitError, Entry, KeyValue, LogOptions, LogStore, MemoryStore,
    PageLimit, Position, QueueId, ReadError, SimVfs, Store, SyncError,
};
use bytes::Bytes;

use crate::rng::Rng;

#[derive(Debug)]
pub(crate) enum Disk {
    /// Never crashes.
    Memory(MemoryStore),
    Kept(Box<Kept>),
    Log(Box<Log>),
}

/// A store in memory that a crash takes back to some batch at or behind the last one said to be stored.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    now: MemoryStore,
    stored: MemoryStore,
    /// What is not stored.
    waiting: VecDeque<Batch>,
    fails: StoreState,
}

#[derive(Debug)]
pub(crate) struct Log {
    vfs: SimVfs,
    store: LogStore<SimVfs>,
    options: LogOptions,
    /// What another thread is about to do.
    chore: Option<Chore<SimVfs>>,
}

impl Disk {
    pub(crate) fn kept() -> Self {
        Self::Kept(Box::default())
    }

    /// A log of small segments, so that little is enough to fill, merge and remove them.
    pub(crate) fn log(rng: &mut Rng) -> Result<Self, String> {
        let mut options = LogOptions::default();
        options.segment_bytes = *rng.pick(&[512, 4 << 10, 64 << 10]);
        options.resident_value_bytes = *rng.pick(&[0, 1_024]);
        options.cache_bytes = *rng.pick(&[0, 64 << 10]);
        options.garbage_bytes = *rng.pick(&[0, 4 << 10]);
        options.removed_at_once = *rng.pick(&[2, 1_024]);
        Self::open(SimVfs::new(), options)
    }

    fn open(vfs: SimVfs, options: LogOptions) -> Result<Self, String> {
        let store = LogStore::open(vfs.clone(), options);
        let store = store.map_err(|error| format!("the log does not open: {error}"))?;
        Ok(Self::Log(Box::new(Log {
            vfs,
            store,
            options,
            chore: None,
        })))
    }

    /// From now on the disk takes so many steps until the power is lost.
    pub(crate) fn end_power_after(&self, steps: u64) {
        if let Self::Log(log) = self {
            log.vfs.end_power_after(log.vfs.steps() + steps);
        }
    }

    /// How many steps the disk has taken.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        match self {
            Self::Log(log) => log.vfs.steps(),
            Self::Memory(_) | Self::Kept(_) => 0,
        }
    }

    /// Makes what was committed up to a position as safe as a level asks for.
    pub(crate) fn reach(
        &mut self,
        position: Position,
        level: Level,
        rng: &mut Rng,
    ) -> Result<(), SyncError> {
        match self {
            Self::Memory(_) => {}
            Self::Kept(kept) => kept.reach(position)?,
            Self::Log(log) => {
                if level == Level::Fsync || rng.one_in(10) {
                    log.store.sync()?;
                } else {
                    log.store.write()?;
                }
                // Damage would be found by reading anyway.
                let _more = log.store.maintain(4 << 10);
                log.do_chore(rng);
            }
        }
        Ok(())
    }

    /// From now on it works, is full, or fails.
    pub(crate) fn set_state(&mut self, state: StoreState) {
        match self {
            Self::Memory(_) => {}
            Self::Kept(kept) => kept.fails = state,
            Self::Log(log) => {
                let full = state == StoreState::Full;
                log.vfs.set_capacity(full.then(|| log.vfs.used_bytes()));
                let fails = state == StoreState::Failed;
                log.vfs.fail_syncs(if fails { u32::MAX } else { 0 });
            }
        }
    }

    /// What is left behind the end of the process, or of the power.
    pub(crate) fn crash(self, power: bool, rng: &mut Rng) -> Result<Self, String> {
        match self {
            Self::Memory(_) => Ok(Self::Memory(MemoryStore::new())),
            Self::Kept(mut kept) => {
                let survive = rng.index(kept.waiting.len() + 1);
                for batch in kept.waiting.drain(..survive) {
                    kept.stored.commit(batch).map_err(|it| it.to_string())?;
                }
                Ok(Self::Kept(Box::new(Kept {
                    now: kept.stored.clone(),
                    stored: kept.stored,
                    ..Kept::default()
                })))
            }
            Self::Log(log) => {
                let Log {
                    vfs,
                    store,
                    options,
                    chore: _,
                } = *log;
                drop(store);
                let vfs = if power {
                    vfs.cut(|choices| rng.index(choices))
                } else {
                    vfs
                };
                vfs.set_capacity(None);
                vfs.fail_syncs(0);
                Self::open(vfs, options)
            }
        }
    }

    fn store(&self) -> &dyn Store {
        match self {
            Self::Memory(store) => store,
            Self::Kept(kept) => &kept.now,
            Self::Log(log) => &log.store,
        }
    }

    fn store_mut(&mut self) -> &mut dyn Store {
        match self {
            Self::Memory(store) => store,
            Self::Kept(kept) => &mut kept.now,
            Self::Log(log) => &mut log.store,
        }
    }

    /// The position of the last batch, where that is told.
    pub(crate) fn last(&self) -> Position {
        match self {
            Self::Memory(store) => store.written(),
            Self::Kept(kept) => kept.now.written(),
            Self::Log(_) => Position(0),
        }
    }
}

impl Log {
    /// Another thread takes what there is to do, and is done with it some time.
    fn do_chore(&mut self, rng: &mut Rng) {
        if self.chore.is_none() && rng.one_in(2) {
            self.chore = self.store.chore();
        }
        if rng.one_in(2)
            && let Some(chore) = self.chore.take()
        {
            self.store.end_chore(chore.run());
        }
    }
}

impl Kept {
    fn reach(&mut self, position: Position) -> Result<(), SyncError> {
        match self.fails {
            StoreState::Working => {}
            StoreState::Full => return Err(SyncError::Full),
            StoreState::Failed => return Err(SyncError::Sync(std::io::ErrorKind::Other)),
        }
        while self.stored.durable() < position
            && let Some(batch) = self.waiting.pop_front()
        {
            self.stored.commit(batch).expect("it was taken once");
        }
        Ok(())
    }
}

impl Store for Disk {
    fn commit(&mut self, batch: Batch) -> Result<Position, CommitError> {
        if let Self::Kept(kept) = self {
            kept.waiting.push_back(batch.clone());
        }
        self.store_mut().commit(batch)
    }

    fn write(&mut self) -> Result<Position, SyncError> {
        self.store_mut().write()
    }

    fn sync(&mut self) -> Result<Position, SyncError> {
        if let Self::Kept(kept) = self {
            kept.reach(kept.now.written())?;
        }
        self.store_mut().sync()
    }

    fn written(&self) -> Position {
        self.store().written()
    }

    fn durable(&self) -> Position {
        self.store().durable()
    }

    fn buffered_bytes(&self) -> usize {
        self.store().buffered_bytes()
    }

    fn maintain(&mut self, budget: usize) -> Result<bool, ReadError> {
        self.store_mut().maintain(budget)
    }

    fn blob(&self, id: BlobId) -> Result<Option<Bytes>, ReadError> {
        self.store().blob(id)
    }

    fn queue(&self, id: QueueId) -> Option<Range<u64>> {
        self.store().queue(id)
    }

    fn read_queue(
        &self,
        id: QueueId,
        from: u64,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        self.store().read_queue(id, from, limit)
    }

    fn key(&self, key: &[u8]) -> Result<Option<KeyValue>, ReadError> {
        self.store().key(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: PageLimit,
    ) -> Result<Vec<KeyValue>, ReadError> {
        self.store().scan(prefix, after, limit)
    }
}
