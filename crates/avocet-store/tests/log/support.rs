//! Histories, and the comparison with the store in memory.

use avocet_store::{
    Batch, BlobId, Entry, GroupSync, GroupSynced, KeyValue, LogOptions, LogStore, MemoryStore,
    Operation, PageLimit, Position, QueueId, SimFile, SimVfs, Store, SyncError,
};
use bytes::Bytes;
use proptest::prelude::*;

pub(crate) const EVERYTHING: PageLimit = PageLimit {
    items: usize::MAX,
    bytes: usize::MAX,
};

/// Segments of a few batches, and no patience with garbage.
pub(crate) fn small() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 400;
    options.resident_value_bytes = 2;
    options.cache_bytes = 0;
    options.garbage_bytes = 0;
    options
}

pub(crate) fn open(vfs: &SimVfs) -> LogStore<SimVfs> {
    LogStore::open(vfs.clone(), small()).unwrap()
}

/// Everything that a store says about blobs, queues and keys with small names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contents {
    blobs: Vec<Option<Bytes>>,
    queues: Vec<(Option<std::ops::Range<u64>>, Vec<Entry>)>,
    keys: Vec<KeyValue>,
}

pub(crate) fn contents(store: &impl Store) -> Contents {
    let queue = |id| {
        let entries = store.read_queue(id, 0, EVERYTHING).unwrap();
        (store.queue(id), entries)
    };
    let blob = |id| store.blob(BlobId(id)).unwrap();
    Contents {
        blobs: (0..8).chain(BLOBS).map(blob).collect(),
        queues: (0..6).map(QueueId).map(queue).collect(),
        keys: store.scan(b"", None, EVERYTHING).unwrap(),
    }
}

/// The contents after each batch that is accepted, the first of them before all.
pub(crate) fn states(batches: &[Batch]) -> Vec<Contents> {
    let mut store = MemoryStore::new();
    let mut states = vec![contents(&store)];
    for batch in batches {
        if store.commit(batch.clone()).is_ok() {
            states.push(contents(&store));
        }
    }
    states
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(0u8..3, 0..5).prop_map(Bytes::from)
}

/// Names of blobs: neighbours, around the ends of what is kept together, and far away.
const BLOBS: [u64; 6] = [0, 1, 63, 64, 7 << 48, u64::MAX];

fn operation() -> impl Strategy<Value = Operation> {
    let blob = || proptest::sample::select(&BLOBS[..]).prop_map(BlobId);
    let queue = || (0u64..3).prop_map(QueueId);
    let reference = || proptest::option::of(blob());
    prop_oneof![
        3 => (blob(), bytes()).prop_map(|(id, bytes)| Operation::PutBlob { id, bytes }),
        2 => blob().prop_map(|id| Operation::ReleaseBlob { id }),
        4 => (queue(), bytes(), reference())
            .prop_map(|(queue, value, blob)| Operation::Append { queue, value, blob }),
        2 => (queue(), 0u64..8).prop_map(|(queue, to)| Operation::Advance { queue, to }),
        1 => queue().prop_map(|queue| Operation::DropQueue { queue }),
        2 => (bytes(), bytes(), reference())
            .prop_map(|(key, value, blob)| Operation::PutKey { key, value, blob }),
        1 => bytes().prop_map(|key| Operation::DeleteKey { key }),
    ]
}

pub(crate) fn batch() -> impl Strategy<Value = Batch> {
    proptest::collection::vec(operation(), 0..4).prop_map(|operations| {
        let mut batch = Batch::new();
        for operation in operations {
            batch.push(operation);
        }
        batch
    })
}

/// Puts a message and refers to it from some queues.
pub(crate) fn message(id: u64, queues: &[u64], payload: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put_blob(BlobId(id), Bytes::copy_from_slice(payload));
    for queue in queues {
        batch.append(QueueId(*queue), Bytes::new(), Some(BlobId(id)));
    }
    batch.release_blob(BlobId(id));
    batch
}

/// Syncs that others do, numbered as they began.
#[derive(Default)]
pub(crate) struct Flying {
    count: u64,
    begun: Vec<(u64, GroupSync<SimFile>)>,
    done: Vec<(u64, GroupSynced<SimFile>)>,
}

impl Flying {
    pub(crate) fn begin(&mut self, store: &mut LogStore<SimVfs>) -> Result<(), SyncError> {
        self.count += 1;
        let sync = store.begin_sync()?;
        self.begun.extend(sync.map(|sync| (self.count, sync)));
        Ok(())
    }

    /// One of them is done, but the store does not know.
    pub(crate) fn run(&mut self, which: usize) {
        if !self.begun.is_empty() {
            let (number, sync) = self.begun.remove(which % self.begun.len());
            self.done.push((number, sync.run()));
        }
    }

    /// The store is told of one, which may have to be done before: of the one that was done first, or sooner than of those
    /// that began before it.
    pub(crate) fn end(
        &mut self,
        store: &mut LogStore<SimVfs>,
        which: usize,
    ) -> Option<Result<Position, SyncError>> {
        if self.done.is_empty() {
            self.run(which);
        }
        let first = |at: &usize| {
            let (number, _) = self.done[*at];
            self.done[..*at].iter().all(|(done, _)| *done < number)
        };
        let choice: Vec<usize> = (0..self.done.len()).filter(first).collect();
        if choice.is_empty() {
            return None;
        }
        let (_, done) = self.done.remove(choice[which % choice.len()]);
        Some(store.end_sync(done))
    }

    /// The store is told of all.
    pub(crate) fn end_all(&mut self, store: &mut LogStore<SimVfs>) {
        while let Some(ended) = self.end(store, 0) {
            // What failed is synced again.
            let _ = ended;
        }
    }
}
