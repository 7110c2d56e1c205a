//! The one thread that owns the store, and how shards speak with it.
//!
//! Commits are applied in groups and reported when they are as safe as each asks to be: in the
//! operating system (a write) or on the disk (a sync). A group in which nothing asks for a sync goes
//! without one, and is synced with the next that does, or a second later. A group may [wait](Pace) for those
//! whom a long sync has just released. What nothing waits for is
//! reported at once, and written when nothing else is to do. What takes long and nobody waits for is done to files on
//! a thread beside it.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use avocet_engine::{Level, Record, SessionKey, ShardId, StoreState};
use avocet_journal::{Journal, JournalError};
use avocet_session::{CommitId, FetchFrom, Instant};
use avocet_store::{
    Chore, ChoreDone, CommitError, DirVfs, ExportError, LogStore, Snapshot, Store as _, SyncError,
};
use tracing::{error, info, warn};

#[cfg(unix)]
use crate::backup::Backups;
use crate::clock::Clock;
use crate::inbox::{Inbox, Mail};
use crate::pace::Pace;

/// Bytes that may wait for the store beside the messages whose publishers the engines stop. Beyond,
/// shards do not read.
const WAITING_MORE: usize = 32 << 20;

/// What a record takes beside its message, about.
const RECORD_BYTES: usize = 128;

/// Bytes that giving space back reads and writes between two groups, and while nothing waits.
const MAINTAIN_BUSY: usize = 256 << 10;
const MAINTAIN_IDLE: usize = 1 << 20;

/// How long to wait before trying again after the disk failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The longest that what was written without a sync goes on without one.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// One thing for the store to do.
pub(crate) enum Request {
    Commit {
        shard: ShardId,
        id: CommitId,
        records: Vec<Record>,
        /// When to report it.
        level: Level,
    },
    Fetch {
        shard: ShardId,
        session: Arc<SessionKey>,
        from: FetchFrom,
    },
    #[cfg_attr(not(unix), allow(dead_code, reason = "nobody asks"))]
    Snapshot(SyncSender<Result<Snapshot, ExportError>>),
    /// A chore is done.
    Chore(ChoreDone<File>),
}

impl Request {
    /// Whether a group with it does not wait for more: what is read, and what needs no sync.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Commit { level, .. } => *level == Level::Os,
            Self::Fetch { .. } | Self::Snapshot(_) | Self::Chore(_) => true,
        }
    }
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// Shards that do not read until there is room.
    waiting: Vec<ShardId>,
    /// Shards that may still send something.
    senders: usize,
    /// Nobody takes requests any more.
    closed: bool,
    /// Bytes of the requests, about.
    bytes: usize,
    /// Messages among them that wait for a sync, or what else does.
    messages: usize,
    /// For how many of them the store waits; 0 if it does not.
    wanted: usize,
    urgent: bool,
}

/// What waits for the store: one queue for all shards, first in first out.
pub(crate) struct StoreInbox {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// What the queue says of its bytes.
    bytes: AtomicUsize,
    /// Bytes that may wait.
    bytes_max: usize,
}

impl StoreInbox {
    /// `uncommitted_bytes_max`: what the engines of all shards together may wait for.
    pub(crate) fn new(uncommitted_bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Condvar::new(),
            bytes: AtomicUsize::new(0),
            bytes_max: uncommitted_bytes_max.saturating_add(WAITING_MORE),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock leaves the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, request: Request, bytes: usize) {
        self.push_messages(request, bytes, 0);
    }

    fn push_messages(&self, request: Request, bytes: usize, messages: usize) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.urgent |= request.is_urgent();
        queue.requests.push_back(request);
        queue.bytes += bytes;
        queue.messages += messages;
        self.bytes.store(queue.bytes, Ordering::Relaxed);
        let enough = queue.wanted > 0 && (queue.urgent || queue.messages >= queue.wanted);
        let wake = queue.requests.len() == 1 || enough;
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Drops all requests, also later ones.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let requests = mem::take(&mut queue.requests);
        drop(queue);
        drop(requests);
    }

    /// All requests, once there are some, and as many as the pace asks for; at once if `wait` is zero and there
    /// are none. None when there are none and no shard is left.
    fn take(
        &self,
        wait: Option<Duration>,
        pace: &mut Pace,
        clock: Clock,
        inboxes: &[Arc<Inbox>],
    ) -> Option<VecDeque<Request>> {
        let mut queue = self.lock();
        let idle = |queue: &mut Queue| queue.requests.is_empty() && queue.senders > 0;
        queue = match wait {
            None => self.filled.wait_while(queue, idle),
            Some(wait) => match self.filled.wait_timeout_while(queue, wait, idle) {
                Ok((queue, _)) => Ok(queue),
                Err(poisoned) => Ok(poisoned.into_inner().0),
            },
        }
        .unwrap_or_else(PoisonError::into_inner);
        if queue.requests.is_empty() && queue.senders == 0 {
            return None;
        }
        if !queue.urgent
            && let Some((wait, wanted)) = pace.wait(queue.messages, clock.now().instant)
        {
            queue.wanted = wanted;
            let few = |queue: &mut Queue| {
                queue.messages < queue.wanted && !queue.urgent && queue.senders > 0
            };
            queue = match self.filled.wait_timeout_while(queue, wait, few) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
            if few(&mut queue) {
                pace.missed();
            }
            queue.wanted = 0;
        }
        pace.taken(mem::take(&mut queue.messages));
        queue.urgent = false;
        let requests = mem::take(&mut queue.requests);
        let waiting = mem::take(&mut queue.waiting);
        queue.bytes = 0;
        self.bytes.store(0, Ordering::Relaxed);
        drop(queue);
        for shard in waiting {
            if let Some(inbox) = inboxes.get(shard.index()) {
                inbox.wake();
            }
        }
        Some(requests)
    }
}

/// How a shard speaks with the store. The store ends with the last one.
pub(crate) struct StoreHandle {
    shard: ShardId,
    inbox: Arc<StoreInbox>,
}

impl StoreHandle {
    pub(crate) fn new(shard: ShardId, inbox: &Arc<StoreInbox>) -> Self {
        inbox.lock().senders += 1;
        let inbox = Arc::clone(inbox);
        Self { shard, inbox }
    }

    /// Stores the changes behind all others; [`Mail::Committed`] says when they are as safe as
    /// `level` asks.
    pub(crate) fn commit(&self, id: CommitId, records: Vec<Record>, level: Level) {
        let bytes: usize = records.iter().map(record_bytes).sum();
        let messages = match level {
            Level::Fsync => records
                .iter()
                .filter(|record| is_message(record))
                .count()
                .max(1),
            Level::Os | Level::Memory => 0,
        };
        let commit = Request::Commit {
            shard: self.shard,
            id,
            records,
            level,
        };
        self.inbox.push_messages(commit, bytes, messages);
    }

    /// Reads messages back; they come as [`Mail::Fetched`].
    pub(crate) fn fetch(&self, session: Arc<SessionKey>, from: FetchFrom) {
        let shard = self.shard;
        let fetch = Request::Fetch {
            shard,
            session,
            from,
        };
        self.inbox.push(fetch, RECORD_BYTES);
    }

    /// Whether so much waits that the shard should not read. It is woken when there is room.
    pub(crate) fn is_full(&self) -> bool {
        if self.inbox.bytes.load(Ordering::Relaxed) < self.inbox.bytes_max {
            return false;
        }
        let mut queue = self.inbox.lock();
        if queue.requests.is_empty() {
            return false;
        }
        if !queue.waiting.contains(&self.shard) {
            queue.waiting.push(self.shard);
        }
        true
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        let mut queue = self.inbox.lock();
        queue.senders -= 1;
        drop(queue);
        self.inbox.filled.notify_one();
    }
}

fn is_message(record: &Record) -> bool {
    matches!(
        record,
        Record::MessageStored { .. } | Record::RetainedPut { .. }
    )
}

fn record_bytes(record: &Record) -> usize {
    let mut bytes = RECORD_BYTES;
    if let Record::MessageStored { message, .. }
    | Record::RetainedPut { message, .. }
    | Record::WillPut { message, .. } = record
    {
        bytes += message.len();
    }
    bytes
}

/// The thread that does the store's chores.
struct Chores {
    sender: SyncSender<Chore<DirVfs>>,
    thread: JoinHandle<()>,
}

impl Chores {
    fn start(inbox: Arc<StoreInbox>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel::<Chore<DirVfs>>(1);
        let thread = thread::Builder::new().name("store-files".to_owned());
        let thread = thread.spawn(move || {
            for chore in receiver {
                inbox.push(Request::Chore(chore.run()), 0);
            }
        })?;
        Ok(Self { sender, thread })
    }

    /// Waits until the last one is done.
    fn end(self) {
        drop(self.sender);
        // One that has panicked does no harm any more.
        let _ = self.thread.join();
    }
}

/// The store's thread.
pub(crate) struct StoreThread {
    /// None where they cannot be had.
    #[cfg(unix)]
    pub(crate) backups: Option<Backups>,
    pub(crate) journal: Journal<LogStore>,
    pub(crate) inbox: Arc<StoreInbox>,
    /// Of the shards.
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    pub(crate) clock: Clock,
    pub(crate) pace: Pace,
}

/// Commits of one shard that are applied and not reported. Reporting one reports all before it.
#[derive(Clone, Copy, Debug, Default)]
struct Applied {
    last: Option<CommitId>,
    /// The last one that waits for a write, before the first one that waits for a sync.
    os: Option<CommitId>,
    /// One waits for a sync.
    fsync: bool,
}

impl Applied {
    fn push(&mut self, id: CommitId, level: Level) {
        self.last = Some(id);
        self.fsync |= level == Level::Fsync;
        if level == Level::Os && !self.fsync {
            self.os = Some(id);
        }
    }

    /// What to report after a write.
    fn written(&mut self) -> Option<CommitId> {
        if self.fsync {
            self.os.take()
        } else {
            self.synced()
        }
    }

    /// What to report after a sync.
    fn synced(&mut self) -> Option<CommitId> {
        mem::take(self).last
    }
}

#[derive(Debug, thiserror::Error)]
enum GroupError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl GroupError {
    fn state(&self) -> StoreState {
        match self {
            Self::Sync(SyncError::Full) => StoreState::Full,
            Self::Sync(_) | Self::Journal(_) => StoreState::Failed,
        }
    }
}

/// What the operator and the shards know of the disk.
#[derive(Default)]
struct Health {
    state: StoreState,
    failures: u64,
}

impl StoreThread {
    /// Serves the shards until the last one has ended, then makes everything durable.
    pub(crate) fn run(mut self) {
        let mut applied = vec![Applied::default(); self.inboxes.len()];
        // When to sync what was written without.
        let mut sync_at: Option<Instant> = None;
        let mut health = Health::default();
        let mut todo = VecDeque::new();
        let mut more = true;
        let chores = Chores::start(Arc::clone(&self.inbox));
        // Without such a thread they are a part of giving space back.
        let chores = chores.inspect_err(|error| warn!("there is no thread for files: {error}"));
        loop {
            let working = health.state == StoreState::Working;
            if working {
                let until = |at: Instant| at.duration_since(self.clock.now().instant);
                let wait = if more {
                    Some(Duration::ZERO)
                } else {
                    sync_at.map(until)
                };
                let (pace, clock) = (&mut self.pace, self.clock);
                match self.inbox.take(wait, pace, clock, &self.inboxes) {
                    Some(requests) => todo.extend(requests),
                    None => break,
                }
            } else if !self.pause(RETRY_PAUSE) {
                // What waited stayed in the inbox, which is bounded.
                break;
            }
            let idle = todo.is_empty();
            let now = self.clock.now().instant;
            let sync = !working || sync_at.is_some_and(|at| at <= now);
            match self.group(&mut todo, &mut applied, sync) {
                Ok(level) => {
                    self.worked(&mut health);
                    if level == Level::Fsync {
                        sync_at = None;
                    } else if !idle {
                        sync_at = sync_at.or(Some(now + SYNC_INTERVAL));
                    }
                    let budget = if idle { MAINTAIN_IDLE } else { MAINTAIN_BUSY };
                    more = self.maintain(budget) || level == Level::Memory;
                    if let Ok(chores) = &chores
                        && let Some(chore) = self.journal.store_mut().chore()
                    {
                        // There is room: the one before is done.
                        let _ = chores.sender.try_send(chore);
                    }
                }
                Err(error) => self.failed(&mut health, &error),
            }
        }
        // The next broker that uses the directory makes a socket of the same name.
        #[cfg(unix)]
        drop(self.backups);
        if let Ok(chores) = chores {
            chores.end();
        }
        let store = self.journal.into_store();
        match store.close() {
            Ok(_) => info!("the store is closed; everything is on disk"),
            Err(error) => error!("the store could not be closed: {error}"),
        }
    }

    fn failed(&self, health: &mut Health, error: &GroupError) {
        health.failures += 1;
        let state = error.state();
        if health.state == state {
            return;
        }
        health.state = state;
        error!("{error}; nothing durable is acknowledged until the disk works again; retrying");
        self.tell(state);
    }

    fn worked(&self, health: &mut Health) {
        if health.state == StoreState::Working {
            return;
        }
        let failures = mem::take(health).failures;
        warn!("the disk works again after {failures} failures; nothing was lost");
        self.tell(StoreState::Working);
    }

    fn tell(&self, state: StoreState) {
        for inbox in &*self.inboxes {
            inbox.send(Mail::Store(state));
        }
    }

    /// Waits; false when no shard is left.
    fn pause(&self, pause: Duration) -> bool {
        let queue = self.inbox.lock();
        let waited = self
            .inbox
            .filled
            .wait_timeout_while(queue, pause, |queue| queue.senders > 0);
        match waited {
            Ok((queue, _)) => queue.senders > 0,
            Err(poisoned) => poisoned.into_inner().0.senders > 0,
        }
    }

    /// Applies what there is, makes it as safe as it must be, and says so; says how safe that is.
    /// Syncs once, if `sync` or a commit asks for it.
    fn group(
        &mut self,
        todo: &mut VecDeque<Request>,
        applied: &mut [Applied],
        sync: bool,
    ) -> Result<Level, GroupError> {
        // What nobody waits for is not written while there is more to do.
        let idle = todo.is_empty();
        loop {
            let result = self.apply(todo, applied);
            let sync = sync || applied.iter().any(|shard| shard.fsync);
            let os = applied.iter().any(|shard| shard.os.is_some());
            let write = os || (idle || result.is_err()) && !sync;
            if write {
                self.journal.write()?;
            }
            if write || !sync {
                self.report(applied, Applied::written);
            }
            if sync {
                let begin = self.clock.now().instant;
                self.journal.sync()?;
                let (end, waiting) = (self.clock.now().instant, self.inbox.lock().messages);
                self.pace.synced(begin, end, waiting);
                self.report(applied, Applied::synced);
            }
            match result {
                Ok(()) if sync => return Ok(Level::Fsync),
                Ok(()) if write => return Ok(Level::Os),
                Ok(()) => return Ok(Level::Memory),
                // There is room again, unless it is one commit that is too large.
                Err((JournalError::Commit(CommitError::TooLarge), true)) => {}
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    fn report(&self, applied: &mut [Applied], take: fn(&mut Applied) -> Option<CommitId>) {
        for (inbox, shard) in self.inboxes.iter().zip(applied) {
            if let Some(id) = take(shard) {
                inbox.send(Mail::Committed(id));
            }
        }
    }

    /// Applies requests until one fails, which stays the first; an error says too whether one
    /// succeeded.
    fn apply(
        &mut self,
        todo: &mut VecDeque<Request>,
        applied: &mut [Applied],
    ) -> Result<(), (JournalError, bool)> {
        let mut some = false;
        while let Some(request) = todo.pop_front() {
            match request {
                Request::Commit {
                    shard,
                    id,
                    records,
                    level,
                } => {
                    if let Err(error) = self.journal.apply(&records) {
                        todo.push_front(Request::Commit {
                            shard,
                            id,
                            records,
                            level,
                        });
                        return Err((error, some));
                    }
                    some = true;
                    if let Some(applied) = applied.get_mut(shard.index()) {
                        applied.push(id, level);
                    }
                }
                Request::Fetch {
                    shard,
                    session,
                    from,
                } => self.fetch(shard, session, from),
                Request::Snapshot(reply) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(self.journal.store_mut().snapshot());
                }
                Request::Chore(done) => self.journal.store_mut().end_chore(done),
            }
        }
        Ok(())
    }

    /// Reads messages of a session back, also such as are not durable.
    fn fetch(&self, shard: ShardId, session: Arc<SessionKey>, from: FetchFrom) {
        let (next, messages) = self.journal.fetch(&session, from).unwrap_or_else(|error| {
            error!(
                client_id = session.client_id(),
                "the queue cannot be read: {error}"
            );
            // The session goes on without it.
            (from.sequence, Vec::new())
        });
        if let Some(inbox) = self.inboxes.get(shard.index()) {
            inbox.send(Mail::Fetched {
                session,
                next,
                messages,
            });
        }
    }

    /// Works on giving space back. Says whether there is more to do.
    fn maintain(&mut self, budget: usize) -> bool {
        match self.journal.store_mut().maintain(budget) {
            Ok(more) => more,
            Err(error) => {
                error!("space cannot be given back: {error}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(levels: &[Level]) -> Applied {
        let mut applied = Applied::default();
        for (number, level) in (1..).zip(levels) {
            applied.push(CommitId::new(number), *level);
        }
        applied
    }

    /// The test would not end if the store waited for as long as it may.
    #[test]
    fn a_group_that_waits_begins_when_as_many_are_there_or_something_else_is_asked() {
        let inbox = Arc::new(StoreInbox::new(0));
        let handle = StoreHandle::new(ShardId::new(0), &inbox);
        let clock = Clock::start();
        let hour = Duration::from_secs(3_600);
        let mut pace = Pace::waiting(clock.now().instant + hour, 3);
        let commit = || handle.commit(CommitId::new(1), Vec::new(), Level::Fsync);
        let mut take = || {
            inbox
                .take(None, &mut pace, clock, &[])
                .map_or(0, |all| all.len())
        };
        thread::scope(|scope| {
            let taken = scope.spawn(|| [take(), take()]);
            for _ in 0..3 {
                commit();
            }
            while !inbox.lock().requests.is_empty() {
                thread::yield_now();
            }
            commit();
            let session = Arc::new(SessionKey::new("", "a"));
            let from = FetchFrom {
                sequence: 0,
                max_messages: 1,
                max_bytes: 1,
            };
            handle.fetch(session, from);
            assert_eq!(taken.join().unwrap(), [3, 2]);
        });
    }

    #[test]
    fn a_write_reports_what_needs_no_sync_and_is_not_behind_one_that_does() {
        use Level::{Fsync, Memory, Os};
        for (levels, written) in [
            (&[][..], None),
            (&[Memory], Some(1)),
            (&[Memory, Os, Memory], Some(3)),
            (&[Os, Memory, Fsync, Os], Some(1)),
            (&[Memory, Fsync], None),
            (&[Fsync, Os], None),
        ] {
            let mut applied = applied(levels);
            assert_eq!(applied.written(), written.map(CommitId::new), "{levels:?}");
            let rest = levels.contains(&Fsync).then_some(levels.len() as u64);
            assert_eq!(applied.written(), None, "twice: {levels:?}");
            assert_eq!(applied.synced(), rest.map(CommitId::new), "{levels:?}");
            assert_eq!(applied.synced(), None);
        }
    }
}
