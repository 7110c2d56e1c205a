//! The one thread that owns the store, and how shards speak with it.
//!
//! Commits are applied in groups and reported when they are as safe as each asks to be: in the
//! operating system (a write) or on the disk (a sync). A group in which nothing asks for a sync goes
//! without one, and is synced with the next that does, or a second later. Where a sync takes long, threads beside
//! this one do several at once, some time [apart](Pace). What nothing waits for is
//! reported at once, and written when nothing else is to do. What takes long and nobody waits for is done to files on
//! another thread.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use avocet_engine::{Level, Record, SessionKey, ShardId, StoreState};
use avocet_journal::{Journal, JournalError};
use avocet_session::{CommitId, FetchFrom, Instant};
use avocet_store::{
    Chore, ChoreDone, CommitError, DirVfs, ExportError, GroupSync, GroupSynced, LogStore, Position,
    SYNCS_MAX, Snapshot, Store as _, SyncError,
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
    /// A sync that others do is done.
    Synced,
}

impl Request {
    /// Whether it is not kept until the next sync begins.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Commit { level, .. } => *level == Level::Os,
            Self::Fetch { .. } | Self::Snapshot(_) | Self::Chore(_) | Self::Synced => true,
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
    /// One of them is.
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
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        let urgent = request.is_urgent() && !mem::replace(&mut queue.urgent, true);
        queue.requests.push_back(request);
        queue.bytes += bytes;
        self.bytes.store(queue.bytes, Ordering::Relaxed);
        let first = queue.requests.len() == 1;
        drop(queue);
        if first || urgent {
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

    /// All requests, once there are some and, if none is urgent, the time is `from`; or when `wait` has passed
    /// without any. None when there are none and no shard is left.
    fn take(
        &self,
        wait: Option<Duration>,
        from: Option<Instant>,
        clock: Clock,
        inboxes: &[Arc<Inbox>],
    ) -> Option<VecDeque<Request>> {
        let queue = self.lock();
        let idle = |queue: &mut Queue| queue.requests.is_empty() && queue.senders > 0;
        let mut queue = match wait {
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
        let until = from.map(|from| from.duration_since(clock.now().instant));
        if let Some(until) = until.filter(|_| !queue.requests.is_empty()) {
            let rests = |queue: &mut Queue| !queue.urgent && queue.senders > 0;
            queue = match self.filled.wait_timeout_while(queue, until, rests) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
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
        let commit = Request::Commit {
            shard: self.shard,
            id,
            records,
            level,
        };
        self.inbox.push(commit, bytes);
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

/// What came of a sync, and how long it took.
type Done = (GroupSynced<File>, Duration);

/// The threads that sync for the store, started when they are first needed.
struct Syncers {
    inbox: Arc<StoreInbox>,
    clock: Clock,
    todo: Sender<GroupSync<File>>,
    next: Arc<Mutex<Receiver<GroupSync<File>>>>,
    threads: Vec<JoinHandle<()>>,
    done: (Sender<Done>, Receiver<Done>),
    /// How many have something to do.
    busy: usize,
}

impl Syncers {
    fn new(inbox: Arc<StoreInbox>, clock: Clock) -> Self {
        let (todo, next) = mpsc::channel();
        Self {
            inbox,
            clock,
            todo,
            next: Arc::new(Mutex::new(next)),
            threads: Vec::new(),
            done: mpsc::channel(),
            busy: 0,
        }
    }

    /// Whether one more may begin.
    const fn are_free(&self) -> bool {
        self.busy < SYNCS_MAX
    }

    /// Lets one of them sync; [`Request::Synced`] says that it is done.
    fn begin(&mut self, sync: GroupSync<File>) {
        self.busy += 1;
        if self.busy > self.threads.len() {
            let (inbox, clock) = (Arc::clone(&self.inbox), self.clock);
            let (next, done) = (Arc::clone(&self.next), self.done.0.clone());
            let next = move || {
                // Whoever panicked with the lock had taken nothing.
                let next = next.lock().unwrap_or_else(PoisonError::into_inner);
                next.recv().ok()
            };
            let thread = thread::Builder::new().name("store-sync".to_owned());
            let thread = thread.spawn(move || {
                while let Some(sync) = next() {
                    run(sync, clock, &done);
                    inbox.push(Request::Synced, 0);
                }
            });
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(error) => warn!("there is no thread to sync: {error}"),
            }
        }
        if self.threads.is_empty() {
            run(sync, self.clock, &self.done.0);
            self.inbox.push(Request::Synced, 0);
        } else {
            // The receiver is here too.
            let _ = self.todo.send(sync);
        }
    }

    /// What came of one; waits for it if `wait` is set and one has something to do.
    fn end_one(&mut self, wait: bool) -> Option<Done> {
        if self.busy == 0 {
            return None;
        }
        let done = if wait {
            self.done.1.recv().ok()
        } else {
            self.done.1.try_recv().ok()
        };
        self.busy -= usize::from(done.is_some());
        done
    }

    /// Waits until all threads have ended.
    fn end(self) {
        drop(self.todo);
        for thread in self.threads {
            // One that has panicked does no harm any more.
            let _ = thread.join();
        }
    }
}

fn run(sync: GroupSync<File>, clock: Clock, done: &Sender<Done>) {
    let begin = clock.now().instant;
    let synced = sync.run();
    let took = clock.now().instant.duration_since(begin);
    // Who asked may be gone.
    let _ = done.send((synced, took));
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
    /// One waits for a sync that has not begun.
    fsync: bool,
    /// How many syncs have begun for others, which are reported before.
    syncs: usize,
}

impl Applied {
    fn push(&mut self, id: CommitId, level: Level) {
        self.last = Some(id);
        // Behind what waits for a sync it is reported with the next.
        self.fsync |= level == Level::Fsync || level == Level::Os && self.syncs > 0;
        if level == Level::Os && !self.fsync {
            self.os = Some(id);
        }
    }

    /// What to report after a write.
    fn written(&mut self) -> Option<CommitId> {
        if self.fsync || self.syncs > 0 {
            self.os.take()
        } else {
            self.synced()
        }
    }

    /// What to report after a sync of everything.
    fn synced(&mut self) -> Option<CommitId> {
        mem::take(self).last
    }

    /// A sync begins: what is reported when it has ended.
    fn begin(&mut self) -> Option<CommitId> {
        let last = self.last;
        let syncs = self.syncs + usize::from(last.is_some());
        *self = Self {
            syncs,
            ..Self::default()
        };
        last
    }
}

/// A sync that others do.
#[derive(Debug)]
struct Begun {
    position: Position,
    /// What it allows each shard to be told.
    commits: Vec<Option<CommitId>>,
}

/// What is applied and not reported.
#[derive(Debug)]
struct Unreported {
    /// By the numbers of shards.
    applied: Vec<Applied>,
    /// Before that, in the order in which they began.
    begun: VecDeque<Begun>,
}

impl Unreported {
    fn new(shards: usize) -> Self {
        Self {
            applied: vec![Applied::default(); shards],
            begun: VecDeque::new(),
        }
    }

    fn push(&mut self, shard: ShardId, id: CommitId, level: Level) {
        if let Some(applied) = self.applied.get_mut(shard.index()) {
            applied.push(id, level);
        }
    }

    /// Whether something waits for a sync that has not begun.
    fn wants_sync(&self) -> bool {
        self.applied.iter().any(|shard| shard.fsync)
    }

    fn wants_write(&self) -> bool {
        self.applied.iter().any(|shard| shard.os.is_some())
    }

    /// A sync up to this position begins.
    fn begin(&mut self, position: Position) {
        let commits = self.applied.iter_mut().map(Applied::begin).collect();
        self.begun.push_back(Begun { position, commits });
    }

    /// What to report when everything up to this position is durable.
    fn durable(&mut self, position: Position) -> Vec<Option<CommitId>> {
        let mut all = vec![None; self.applied.len()];
        while let Some(begun) = self.begun.pop_front_if(|begun| begun.position <= position) {
            for ((all, last), applied) in all.iter_mut().zip(begun.commits).zip(&mut self.applied) {
                if last.is_some() {
                    applied.syncs = applied.syncs.saturating_sub(1);
                    *all = last;
                }
            }
        }
        all
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
        let mut unreported = Unreported::new(self.inboxes.len());
        let mut syncers = Syncers::new(Arc::clone(&self.inbox), self.clock);
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
                // What is applied sooner waits there, and costs more each time.
                let next = self.pace.next();
                let wait = if more {
                    Some(Duration::ZERO)
                } else if !unreported.wants_sync() {
                    sync_at.map(until)
                } else if syncers.are_free() {
                    Some(next.map_or(Duration::ZERO, until))
                } else {
                    // One of them is done some time.
                    None
                };
                match self.inbox.take(wait, next, self.clock, &self.inboxes) {
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
            match self.group(&mut todo, &mut unreported, &mut syncers, sync) {
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
        if let Err(error) = self.end_syncs(true, &mut unreported, &mut syncers) {
            // What it was about is synced again.
            error!("{error}");
        }
        // The next broker that uses the directory makes a socket of the same name.
        #[cfg(unix)]
        drop(self.backups);
        if let Ok(chores) = chores {
            chores.end();
        }
        syncers.end();
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

    /// Applies what there is, makes it as safe as it must be, and says so; says how safe that is, or will be with
    /// the syncs that have begun. Syncs before it returns if `force` is set.
    fn group(
        &mut self,
        todo: &mut VecDeque<Request>,
        unreported: &mut Unreported,
        syncers: &mut Syncers,
        force: bool,
    ) -> Result<Level, GroupError> {
        // What nobody waits for is not written while there is more to do.
        let idle = todo.is_empty();
        loop {
            let result = match self.apply(todo, unreported, syncers) {
                Err((GroupError::Sync(error), _)) => return Err(error.into()),
                result => result,
            };
            let sync = force || unreported.wants_sync();
            let write = unreported.wants_write() || (idle || result.is_err()) && !sync;
            if write {
                self.journal.write()?;
            }
            self.report(unreported.applied.iter_mut().map(Applied::written));
            let mut level = if write { Level::Os } else { Level::Memory };
            if sync {
                let now = force || result.is_err();
                level = self.sync(unreported, syncers, now)?;
            }
            match result {
                Ok(()) => return Ok(level),
                // There is room again, unless it is one commit that is too large.
                Err((GroupError::Journal(JournalError::Commit(CommitError::TooLarge)), true)) => {}
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Makes what is applied durable: at once, or lets others do it if that takes long, or later if others have
    /// enough to do.
    fn sync(
        &mut self,
        unreported: &mut Unreported,
        syncers: &mut Syncers,
        at_once: bool,
    ) -> Result<Level, GroupError> {
        let at_once = at_once || !self.pace.is_slow() && syncers.busy == 0;
        if at_once || self.journal.store().wants_sync_alone() {
            self.end_syncs(true, unreported, syncers)?;
        }
        let begin = self.clock.now().instant;
        let position = if at_once {
            let position = self.journal.sync()?;
            let end = self.clock.now().instant;
            self.pace.ended(end.duration_since(begin));
            position
        } else if !syncers.are_free() || self.pace.next().is_some_and(|next| begin < next) {
            return Ok(Level::Os);
        } else if let Some(sync) = self.journal.store_mut().begin_sync()? {
            self.pace.begun(begin);
            unreported.begin(sync.position());
            syncers.begin(sync);
            return Ok(Level::Fsync);
        } else {
            self.journal.store().durable()
        };
        self.durable(unreported, position);
        self.report(unreported.applied.iter_mut().map(Applied::synced));
        Ok(Level::Fsync)
    }

    /// Takes what came of syncs that others did; of all, if `all` is set.
    fn end_syncs(
        &mut self,
        all: bool,
        unreported: &mut Unreported,
        syncers: &mut Syncers,
    ) -> Result<(), SyncError> {
        let mut result = Ok(());
        while let Some((done, took)) = syncers.end_one(all) {
            self.pace.ended(took);
            match self.journal.store_mut().end_sync(done) {
                Ok(position) => self.durable(unreported, position),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    fn durable(&self, unreported: &mut Unreported, position: Position) {
        self.report(unreported.durable(position));
    }

    /// Tells each shard of its last commit.
    fn report(&self, commits: impl IntoIterator<Item = Option<CommitId>>) {
        for (inbox, id) in self.inboxes.iter().zip(commits) {
            if let Some(id) = id {
                inbox.send(Mail::Committed(id));
            }
        }
    }

    /// Applies requests until one fails; an error says too whether one succeeded. A commit that fails stays the first.
    fn apply(
        &mut self,
        todo: &mut VecDeque<Request>,
        unreported: &mut Unreported,
        syncers: &mut Syncers,
    ) -> Result<(), (GroupError, bool)> {
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
                        return Err((error.into(), some));
                    }
                    some = true;
                    unreported.push(shard, id, level);
                }
                Request::Fetch {
                    shard,
                    session,
                    from,
                } => self.fetch(shard, session, from),
                Request::Snapshot(reply) => {
                    let ended = self.end_syncs(true, unreported, syncers);
                    // Whoever asked may be gone.
                    let _ = reply.send(self.journal.store_mut().snapshot());
                    ended.map_err(|error| (error.into(), some))?;
                }
                Request::Chore(done) => self.journal.store_mut().end_chore(done),
                Request::Synced => self
                    .end_syncs(false, unreported, syncers)
                    .map_err(|error| (error.into(), some))?,
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

    use Level::{Fsync, Memory, Os};

    /// The test would not end if what is urgent waited.
    #[test]
    fn what_is_urgent_takes_along_what_waits() {
        let inbox = Arc::new(StoreInbox::new(0));
        let handle = StoreHandle::new(SHARD, &inbox);
        let clock = Clock::start();
        let hour = Some(clock.now().instant + Duration::from_secs(3_600));
        let take = || {
            inbox
                .take(None, hour, clock, &[])
                .map_or(0, |all| all.len())
        };
        thread::scope(|scope| {
            let taken = scope.spawn(|| [take(), take()]);
            for (count, level) in [(1, Os), (2, Os)] {
                for _ in 0..count {
                    handle.commit(CommitId::new(1), Vec::new(), Fsync);
                }
                handle.commit(CommitId::new(1), Vec::new(), level);
                while !inbox.lock().requests.is_empty() {
                    thread::yield_now();
                }
            }
            assert_eq!(taken.join().unwrap(), [2, 3]);
        });
    }

    const SHARD: ShardId = ShardId::new(0);

    fn push(unreported: &mut Unreported, ids: std::ops::RangeInclusive<u64>, levels: &[Level]) {
        for (number, level) in ids.zip(levels) {
            unreported.push(SHARD, CommitId::new(number), *level);
        }
    }

    fn written(unreported: &mut Unreported) -> Option<u64> {
        unreported.applied[0].written().map(CommitId::get)
    }

    fn durable(unreported: &mut Unreported, position: u64) -> Option<u64> {
        unreported.durable(Position(position))[0].map(CommitId::get)
    }

    #[test]
    fn a_write_reports_what_needs_no_sync_and_is_not_behind_one_that_does() {
        for (levels, expected) in [
            (&[][..], None),
            (&[Memory], Some(1)),
            (&[Memory, Os, Memory], Some(3)),
            (&[Os, Memory, Fsync, Os], Some(1)),
            (&[Memory, Fsync], None),
            (&[Fsync, Os], None),
        ] {
            let mut unreported = Unreported::new(1);
            push(&mut unreported, 1..=4, levels);
            assert_eq!(written(&mut unreported), expected, "{levels:?}");
            let rest = levels.contains(&Fsync).then_some(levels.len() as u64);
            assert_eq!(written(&mut unreported), None, "twice: {levels:?}");
            let synced = unreported.applied[0].synced().map(CommitId::get);
            assert_eq!(synced, rest, "{levels:?}");
            assert_eq!(unreported.applied[0].synced(), None);
        }
    }

    #[test]
    fn nothing_is_reported_before_the_syncs_that_began_for_what_is_before_it() {
        let mut unreported = Unreported::new(1);
        push(&mut unreported, 1..=2, &[Fsync, Memory]);
        unreported.begin(Position(10));
        assert!(!unreported.wants_sync());
        push(&mut unreported, 3..=3, &[Memory]);
        assert_eq!(written(&mut unreported), None);
        assert!(!unreported.wants_sync());
        push(&mut unreported, 4..=4, &[Os]);
        assert!(unreported.wants_sync() && !unreported.wants_write());
        assert_eq!(written(&mut unreported), None);
        assert_eq!(durable(&mut unreported, 9), None);
        assert_eq!(durable(&mut unreported, 10), Some(2));
        assert_eq!(written(&mut unreported), None, "it asked for a sync");
        unreported.begin(Position(20));
        push(&mut unreported, 5..=5, &[Memory]);
        assert_eq!(durable(&mut unreported, 20), Some(4));
        assert_eq!(written(&mut unreported), Some(5));
    }

    #[test]
    fn a_sync_reports_all_that_began_before_it() {
        let mut unreported = Unreported::new(2);
        push(&mut unreported, 1..=1, &[Fsync]);
        unreported.begin(Position(1));
        unreported.push(ShardId::new(1), CommitId::new(7), Fsync);
        unreported.begin(Position(2));
        push(&mut unreported, 2..=2, &[Fsync]);
        unreported.begin(Position(3));
        let all = unreported.durable(Position(3));
        assert_eq!(all, [Some(CommitId::new(2)), Some(CommitId::new(7))]);
        assert_eq!(durable(&mut unreported, 3), None);
        push(&mut unreported, 3..=3, &[Os]);
        assert!(unreported.wants_write());
        assert_eq!(written(&mut unreported), Some(3));
    }
}
