//! The store that keeps everything in memory: what other stores are compared with.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::{Bound, Range};

use bytes::Bytes;

use crate::{
    Batch, BlobId, CommitError, Entry, KeyValue, Operation, PageLimit, Position, QueueId,
    ReadError, Store, SyncError,
};

/// A [`Store`] without a disk. Nothing in it survives the process.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    last: Position,
    blobs: HashMap<BlobId, Blob>,
    queues: HashMap<QueueId, Queue>,
    keys: BTreeMap<Bytes, (Bytes, Option<BlobId>)>,
}

#[derive(Clone, Debug)]
struct Blob {
    bytes: Bytes,
    held: bool,
    references: u64,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    first: u64,
    entries: VecDeque<(Bytes, Option<BlobId>)>,
}

impl Queue {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

/// What the operations looked at so far change, as far as later ones of the batch may depend on it.
#[derive(Default)]
struct Check {
    /// Whether a blob is there and held, and by how much its references have changed.
    blobs: HashMap<BlobId, BlobCheck>,
    queues: HashMap<QueueId, Option<QueueCheck>>,
    keys: HashMap<Bytes, Option<BlobId>>,
}

#[derive(Clone, Copy)]
struct BlobCheck {
    held: bool,
    references: u64,
}

#[derive(Clone)]
struct QueueCheck {
    first: u64,
    end: u64,
    /// Blobs of the entries this batch appends, with their sequences.
    appended: Vec<(u64, BlobId)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many blobs are alive.
    pub fn blobs(&self) -> usize {
        self.blobs.len()
    }

    fn check(&self, operations: &[Operation]) -> Result<(), CommitError> {
        let mut check = Check::default();
        for operation in operations {
            check.apply(self, operation)?;
        }
        Ok(())
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::PutBlob { id, bytes } => {
                let blob = Blob {
                    bytes,
                    held: true,
                    references: 0,
                };
                self.blobs.insert(id, blob);
            }
            Operation::ReleaseBlob { id } => {
                if let Some(blob) = self.blobs.get_mut(&id) {
                    blob.held = false;
                }
                self.collect(id);
            }
            Operation::Append { queue, value, blob } => {
                self.refer(blob);
                self.queues
                    .entry(queue)
                    .or_default()
                    .entries
                    .push_back((value, blob));
            }
            Operation::Advance { queue, to } => {
                let Some(queue) = self.queues.get_mut(&queue) else {
                    return;
                };
                let gone = to.saturating_sub(queue.first);
                let gone = usize::try_from(gone)
                    .unwrap_or(usize::MAX)
                    .min(queue.entries.len());
                queue.first += gone as u64;
                let blobs: Vec<_> = queue.entries.drain(..gone).map(|(_, blob)| blob).collect();
                for blob in blobs {
                    self.forget(blob);
                }
            }
            Operation::DropQueue { queue } => {
                for (_, blob) in self.queues.remove(&queue).unwrap_or_default().entries {
                    self.forget(blob);
                }
            }
            Operation::PutKey { key, value, blob } => {
                self.refer(blob);
                if let Some((_, old)) = self.keys.insert(key, (value, blob)) {
                    self.forget(old);
                }
            }
            Operation::DeleteKey { key } => {
                if let Some((_, old)) = self.keys.remove(&key) {
                    self.forget(old);
                }
            }
        }
    }

    fn refer(&mut self, id: Option<BlobId>) {
        if let Some(blob) = id.and_then(|id| self.blobs.get_mut(&id)) {
            blob.references += 1;
        }
    }

    fn forget(&mut self, id: Option<BlobId>) {
        let Some(id) = id else { return };
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.references -= 1;
        }
        self.collect(id);
    }

    fn collect(&mut self, id: BlobId) {
        if self
            .blobs
            .get(&id)
            .is_some_and(|blob| !blob.held && blob.references == 0)
        {
            self.blobs.remove(&id);
        }
    }
}

impl Check {
    fn blob(&mut self, store: &MemoryStore, id: BlobId) -> BlobCheck {
        *self
            .blobs
            .entry(id)
            .or_insert_with(|| match store.blobs.get(&id) {
                Some(blob) => BlobCheck {
                    held: blob.held,
                    references: blob.references,
                },
                None => BlobCheck {
                    held: false,
                    references: 0,
                },
            })
    }

    fn queue(&mut self, store: &MemoryStore, id: QueueId) -> &mut Option<QueueCheck> {
        self.queues.entry(id).or_insert_with(|| {
            let queue = store.queues.get(&id)?;
            Some(QueueCheck {
                first: queue.first,
                end: queue.end(),
                appended: Vec::new(),
            })
        })
    }

    fn refer(&mut self, store: &MemoryStore, id: Option<BlobId>) -> Result<(), CommitError> {
        let Some(id) = id else { return Ok(()) };
        let blob = self.blob(store, id);
        if !blob.held && blob.references == 0 {
            return Err(CommitError::UnknownBlob(id));
        }
        self.blobs.insert(
            id,
            BlobCheck {
                references: blob.references + 1,
                ..blob
            },
        );
        Ok(())
    }

    fn forget(&mut self, store: &MemoryStore, id: Option<BlobId>) {
        let Some(id) = id else { return };
        let blob = self.blob(store, id);
        self.blobs.insert(
            id,
            BlobCheck {
                references: blob.references.saturating_sub(1),
                ..blob
            },
        );
    }

    /// Forgets the blobs of the entries of a queue between its first one and `to`.
    fn advance(&mut self, store: &MemoryStore, id: QueueId, queue: &mut QueueCheck, to: u64) {
        if let Some(stored) = store.queues.get(&id) {
            for (sequence, (_, blob)) in (stored.first..).zip(&stored.entries) {
                if (queue.first..to).contains(&sequence) {
                    self.forget(store, *blob);
                }
            }
        }
        queue.appended.retain(|(sequence, blob)| {
            let gone = *sequence < to;
            if gone {
                self.forget(store, Some(*blob));
            }
            !gone
        });
        queue.first = queue.first.max(to);
    }

    fn apply(&mut self, store: &MemoryStore, operation: &Operation) -> Result<(), CommitError> {
        match operation {
            Operation::PutBlob { id, .. } => {
                let blob = self.blob(store, *id);
                if blob.held || blob.references > 0 {
                    return Err(CommitError::BlobExists(*id));
                }
                self.blobs.insert(
                    *id,
                    BlobCheck {
                        held: true,
                        references: 0,
                    },
                );
            }
            Operation::ReleaseBlob { id } => {
                let blob = self.blob(store, *id);
                if !blob.held {
                    return Err(CommitError::UnknownBlob(*id));
                }
                self.blobs.insert(
                    *id,
                    BlobCheck {
                        held: false,
                        ..blob
                    },
                );
            }
            Operation::Append { queue, blob, .. } => {
                self.refer(store, *blob)?;
                let queue = self.queue(store, *queue).get_or_insert(QueueCheck {
                    first: 0,
                    end: 0,
                    appended: Vec::new(),
                });
                if let Some(blob) = blob {
                    queue.appended.push((queue.end, *blob));
                }
                queue.end += 1;
            }
            Operation::Advance { queue: id, to } => {
                let Some(mut queue) = self.queue(store, *id).take() else {
                    return Err(CommitError::UnknownQueue(*id));
                };
                if *to > queue.end {
                    return Err(CommitError::BeyondEnd {
                        queue: *id,
                        to: *to,
                    });
                }
                self.advance(store, *id, &mut queue, *to);
                self.queues.insert(*id, Some(queue));
            }
            Operation::DropQueue { queue: id } => {
                let Some(mut queue) = self.queue(store, *id).take() else {
                    return Err(CommitError::UnknownQueue(*id));
                };
                let end = queue.end;
                self.advance(store, *id, &mut queue, end);
                self.queues.insert(*id, None);
            }
            Operation::PutKey { key, blob, .. } => {
                self.refer(store, *blob)?;
                self.replace_key(store, key, *blob);
            }
            Operation::DeleteKey { key } => self.replace_key(store, key, None),
        }
        Ok(())
    }

    fn replace_key(&mut self, store: &MemoryStore, key: &Bytes, blob: Option<BlobId>) {
        let stored = || store.keys.get(key).and_then(|(_, blob)| *blob);
        let old = self.keys.insert(key.clone(), blob).unwrap_or_else(stored);
        self.forget(store, old);
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, batch: Batch) -> Result<Position, CommitError> {
        self.check(batch.operations())?;
        for operation in batch.into_operations() {
            self.apply(operation);
        }
        self.last = Position(self.last.0 + 1);
        Ok(self.last)
    }

    fn write(&mut self) -> Result<Position, SyncError> {
        Ok(self.last)
    }

    fn sync(&mut self) -> Result<Position, SyncError> {
        Ok(self.last)
    }

    fn written(&self) -> Position {
        self.last
    }

    fn durable(&self) -> Position {
        self.last
    }

    fn buffered_bytes(&self) -> usize {
        0
    }

    fn maintain(&mut self, _budget: usize) -> Result<bool, ReadError> {
        Ok(false)
    }

    fn blob(&self, id: BlobId) -> Result<Option<Bytes>, ReadError> {
        Ok(self.blobs.get(&id).map(|blob| blob.bytes.clone()))
    }

    fn queue(&self, id: QueueId) -> Option<Range<u64>> {
        self.queues.get(&id).map(|queue| queue.first..queue.end())
    }

    fn read_queue(
        &self,
        id: QueueId,
        from: u64,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        let Some(queue) = self.queues.get(&id) else {
            return Ok(Vec::new());
        };
        let skip = usize::try_from(from.saturating_sub(queue.first)).unwrap_or(usize::MAX);
        let entries = queue.entries.iter().enumerate().skip(skip);
        let entries = entries.map(|(index, (value, blob))| Entry {
            sequence: queue.first + index as u64,
            value: value.clone(),
            blob: *blob,
        });
        Ok(page(entries, limit, |entry| entry.value.len()))
    }

    fn key(&self, key: &[u8]) -> Result<Option<KeyValue>, ReadError> {
        Ok(self.keys.get_key_value(key).map(key_value))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: PageLimit,
    ) -> Result<Vec<KeyValue>, ReadError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let keys = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        let keys = keys
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(key_value);
        Ok(page(keys, limit, |item| item.key.len() + item.value.len()))
    }
}

fn key_value((key, (value, blob)): (&Bytes, &(Bytes, Option<BlobId>))) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: value.clone(),
        blob: *blob,
    }
}

pub(crate) fn page<T>(
    items: impl Iterator<Item = T>,
    limit: PageLimit,
    size: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut left = limit.bytes;
    let mut page = Vec::new();
    for item in items.take(limit.items.max(1)) {
        let size = size(&item);
        if size > left && !page.is_empty() {
            break;
        }
        left = left.saturating_sub(size);
        page.push(item);
    }
    page
}
