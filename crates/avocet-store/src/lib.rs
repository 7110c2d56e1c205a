#![doc = include_str!("../README.md")]

mod active;
mod batch;
mod blobs;
mod cache;
mod check;
mod chore;
mod commit;
mod export;
mod flight;
mod index;
mod log;
mod lost;
mod memory;
mod queue;
mod reclaim;
mod record;
mod recovery;
#[cfg(feature = "sim")]
mod sim;
mod summary;
mod tail;
mod vfs;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;

use bytes::Bytes;

pub use batch::{Batch, Operation};
pub use check::{Problem, Report, SegmentReport, check};
pub use chore::{Chore, ChoreDone};
pub use export::{ExportError, Exported, ImportError, Snapshot};
pub use flight::{GroupSync, GroupSynced, SYNCS_MAX};
pub use log::{LogOptions, LogStore};
pub use lost::Lost;
pub use memory::MemoryStore;
pub use recovery::OpenError;
#[cfg(feature = "sim")]
pub use sim::{SimFile, SimLock, SimVfs};
pub use vfs::{DirVfs, Vfs, VfsFile};

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
type Set<T> = HashSet<T, foldhash::fast::FixedState>;

/// The name of a blob, chosen by the caller. It may be used again once the blob is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub u64);

/// The name of a queue, chosen by the caller. A queue exists from its first append until it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// The place of a batch in the order of all batches. What is at or before a durable position
/// survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// One entry of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts up by one from 0 over the life of the queue.
    pub sequence: u64,
    /// What the caller appended.
    pub value: Bytes,
    /// The blob the entry refers to and so keeps alive.
    pub blob: Option<BlobId>,
}

/// One key and what is stored under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The blob the key refers to and so keeps alive.
    pub blob: Option<BlobId>,
}

/// How much one read may return. The first item is returned whatever its size, so that every read
/// makes progress; an `items` of 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// At most this many items.
    pub items: usize,
    /// At most this many bytes of keys and values.
    pub bytes: usize,
}

/// Why a batch was refused. Nothing of it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A blob with this id is alive.
    #[error("blob {} exists already", .0.0)]
    BlobExists(BlobId),
    /// An operation refers to a blob that is not there, or releases it for the second time.
    #[error("there is no blob {}", .0.0)]
    UnknownBlob(BlobId),
    /// An advance or a drop of a queue that does not exist.
    #[error("there is no queue {}", .0.0)]
    UnknownQueue(QueueId),
    /// An advance beyond the end of a queue.
    #[error("queue {} ends before sequence {to}", queue.0)]
    BeyondEnd {
        /// The queue.
        queue: QueueId,
        /// Where the advance wanted to go.
        to: u64,
    },
    /// More is buffered than fits behind what is stored: sync first, or make the batch smaller.
    #[error("batch is too large")]
    TooLarge,
    /// What the batch removes could not be read.
    #[error("cannot read what is removed: {0}")]
    Read(#[from] ReadError),
}

/// Why a read failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What is stored does not match its checksum.
    #[error("stored data is corrupt")]
    Corrupt,
    /// The file system failed.
    #[error("cannot read: {0}")]
    Io(io::ErrorKind),
}

/// Why nothing more became durable: the world's fault, never the caller's. What was committed is
/// kept, and the next sync tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// A file could not be made or written.
    #[error("cannot write: {0}")]
    Write(io::ErrorKind),
    /// A sync failed. Nothing more is written to that file; the next sync writes what was not
    /// durable to another one.
    #[error("cannot sync: {0}")]
    Sync(io::ErrorKind),
    /// Syncs that others do have not ended: see [`LogStore::begin_sync`].
    #[error("other syncs have not ended")]
    Begun,
}

/// Atomic batches in, pages out. Synchronous, for one thread.
pub trait Store {
    /// Applies all operations of the batch in their order, or none of them. The batch is buffered:
    /// nothing is written, and reads see it at once.
    fn commit(&mut self, batch: Batch) -> Result<Position, CommitError>;

    /// Writes every batch committed so far, and returns the position of the last one: it survives the
    /// end of the program from here on, but not that of the power. A store may sync, if it would have
    /// to keep too much in memory otherwise.
    fn write(&mut self) -> Result<Position, SyncError>;

    /// Makes every batch committed so far durable, and returns the position of the last one. May
    /// take as long as the disk does.
    fn sync(&mut self) -> Result<Position, SyncError>;

    /// The position up to which everything survives the end of the program. After a failed sync it is
    /// that of [`Store::durable`] again, until the next write or sync succeeds.
    fn written(&self) -> Position;

    /// The position up to which everything survives.
    fn durable(&self) -> Position;

    /// How many bytes wait for the next sync.
    fn buffered_bytes(&self) -> usize;

    /// Works on giving space back, reading and writing about `budget` bytes. Says whether there is
    /// more to do. What it copies waits for the next sync.
    fn maintain(&mut self, budget: usize) -> Result<bool, ReadError>;

    /// The bytes of a blob.
    fn blob(&self, id: BlobId) -> Result<Option<Bytes>, ReadError>;

    /// The sequences a queue holds, `None` when it does not exist. Its end is the sequence of the
    /// next append.
    fn queue(&self, id: QueueId) -> Option<Range<u64>>;

    /// Entries of a queue in order, the first one with the lowest sequence that is at least `from`.
    fn read_queue(&self, id: QueueId, from: u64, limit: PageLimit)
    -> Result<Vec<Entry>, ReadError>;

    /// What is stored under a key.
    fn key(&self, key: &[u8]) -> Result<Option<KeyValue>, ReadError>;

    /// The keys that begin with `prefix`, in order, those after `after` when it is given.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: PageLimit,
    ) -> Result<Vec<KeyValue>, ReadError>;
}
