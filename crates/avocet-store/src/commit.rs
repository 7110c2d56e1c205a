//! Commits: a batch is checked and encoded in one pass, and changes the index only as a whole.

use bytes::Bytes;

use crate::index::{ActiveBlob, BlobPlace, HELD, Key, Run};
use crate::log::{Active, LogStore};
use crate::record::{Record, records_of_group};
use crate::vfs::Vfs;
use crate::{Batch, BlobId, CommitError, Map, Operation, Position, QueueId, ReadError};

/// What the operations looked at so far amount to.
#[derive(Debug, Default)]
pub(crate) struct Change {
    blobs: Map<u64, BlobChange>,
    queues: Map<u64, QueueChange>,
    keys: Map<Bytes, Option<NewKey>>,
}

#[derive(Clone, Copy, Debug)]
struct BlobChange {
    state: u32,
    /// Where it is, if this batch puts it.
    offset: Option<u32>,
}

#[derive(Debug)]
struct QueueChange {
    exists: bool,
    /// Whether a record of this batch says something about it.
    changed: bool,
    /// Whether entries of earlier batches belong to it.
    continued: bool,
    first: u64,
    end: u64,
    /// The sequence of the first of the blobs that follow, one for every entry this batch appends.
    appended_from: u64,
    appended: Vec<Option<u64>>,
}

#[derive(Debug)]
struct NewKey {
    value: Bytes,
    blob: Option<u64>,
    offset: u32,
}

impl Change {
    fn clear(&mut self) {
        self.blobs.clear();
        self.queues.clear();
        self.keys.clear();
    }
}

/// Batches end below this, so that offsets fit with room for a footer.
const END_MAX: usize = 3 << 30;

impl<V: Vfs> LogStore<V> {
    pub(crate) fn commit_batch(&mut self, batch: &Batch) -> Result<Position, CommitError> {
        let start = self.active.buffer.len();
        self.active.open_group();
        let records_start = self.active.buffer.len();
        let mut change = std::mem::take(&mut self.change);
        change.clear();
        let result = self.encode(batch, &mut change);
        if result.is_ok() {
            self.last = Position(self.last.0 + 1);
            let position = self.last.0;
            Record::End { position }.encode(&mut self.active.buffer);
            self.summarize(records_start);
            self.install(&mut change);
        } else {
            self.active.buffer.truncate(start);
        }
        self.change = change;
        result.map(|()| self.last)
    }

    fn encode(&mut self, batch: &Batch, change: &mut Change) -> Result<(), CommitError> {
        for operation in batch.operations() {
            let offset = self.active.next_offset();
            let size = match operation {
                Operation::PutBlob { bytes, .. } => bytes.len(),
                Operation::Append { value, .. } => value.len(),
                Operation::PutKey { key, value, .. } => key.len() + value.len(),
                Operation::DeleteKey { key } => key.len(),
                Operation::ReleaseBlob { .. }
                | Operation::Advance { .. }
                | Operation::DropQueue { .. } => 0,
            };
            if (offset as usize).saturating_add(size) > END_MAX {
                return Err(CommitError::TooLarge);
            }
            if let Some(record) = self.apply(operation, offset, change)? {
                record.encode(&mut self.active.buffer);
            }
        }
        Ok(())
    }

    /// Checks one operation and notes what it does. What changes nothing needs no record.
    fn apply<'a>(
        &self,
        operation: &'a Operation,
        offset: u32,
        change: &mut Change,
    ) -> Result<Option<Record<'a>>, CommitError> {
        let record = match operation {
            Operation::PutBlob { id, bytes } => {
                let blob = self.blob_change(change, id.0);
                if blob.state > 0 {
                    return Err(CommitError::BlobExists(*id));
                }
                *blob = BlobChange {
                    state: HELD,
                    offset: Some(offset),
                };
                Record::Blob {
                    id: id.0,
                    held: true,
                    copied: false,
                    bytes,
                }
            }
            Operation::ReleaseBlob { id } => {
                let blob = self.blob_change(change, id.0);
                if blob.state & HELD == 0 {
                    return Err(CommitError::UnknownBlob(*id));
                }
                blob.state &= !HELD;
                Record::Release { id: id.0 }
            }
            Operation::Append { queue, value, blob } => {
                self.refer(change, *blob)?;
                let (id, blob) = (queue.0, blob.map(|blob| blob.0));
                let queue = self.queue_change(change, id);
                if !queue.exists {
                    queue.exists = true;
                    queue.continued = false;
                }
                let sequence = queue.end;
                queue.end += 1;
                queue.changed = true;
                queue.appended.push(blob);
                Record::Entry {
                    queue: id,
                    sequence,
                    blob,
                    value,
                }
            }
            Operation::Advance { queue: id, to } => {
                let queue = self.queue_change(change, id.0);
                if !queue.exists {
                    return Err(CommitError::UnknownQueue(*id));
                }
                if *to > queue.end {
                    let (queue, to) = (*id, *to);
                    return Err(CommitError::BeyondEnd { queue, to });
                }
                if *to <= queue.first {
                    return Ok(None);
                }
                self.advance(change, *id, *to)?;
                Record::Advance {
                    queue: id.0,
                    to: *to,
                }
            }
            Operation::DropQueue { queue: id } => {
                let queue = self.queue_change(change, id.0);
                if !queue.exists {
                    return Err(CommitError::UnknownQueue(*id));
                }
                let end = queue.end;
                self.advance(change, *id, end)?;
                let queue = self.queue_change(change, id.0);
                *queue = QueueChange {
                    exists: false,
                    changed: true,
                    continued: false,
                    first: 0,
                    end: 0,
                    appended_from: 0,
                    appended: Vec::new(),
                };
                Record::DropQueue { queue: id.0 }
            }
            Operation::PutKey { key, value, blob } => {
                self.refer(change, *blob)?;
                let blob = blob.map(|blob| blob.0);
                let new = NewKey {
                    value: value.clone(),
                    blob,
                    offset,
                };
                self.replace_key(change, key, Some(new));
                Record::PutKey { key, blob, value }
            }
            Operation::DeleteKey { key } => {
                if !self.replace_key(change, key, None) {
                    return Ok(None);
                }
                Record::DeleteKey { key }
            }
        };
        Ok(Some(record))
    }

    fn blob_change<'a>(&self, change: &'a mut Change, id: u64) -> &'a mut BlobChange {
        let known = || BlobChange {
            state: self.index.blobs.state(id),
            offset: None,
        };
        change.blobs.entry(id).or_insert_with(known)
    }

    fn queue_change<'a>(&self, change: &'a mut Change, id: u64) -> &'a mut QueueChange {
        change.queues.entry(id).or_insert_with(|| {
            let known = self.queue_of(id);
            let (first, end) = known.map_or((0, 0), |queue| (queue.first, queue.end));
            QueueChange {
                exists: known.is_some(),
                changed: false,
                continued: known.is_some(),
                first,
                end,
                appended_from: end,
                appended: Vec::new(),
            }
        })
    }

    fn refer(&self, change: &mut Change, id: Option<BlobId>) -> Result<(), CommitError> {
        let Some(id) = id else { return Ok(()) };
        let blob = self.blob_change(change, id.0);
        if blob.state == 0 {
            return Err(CommitError::UnknownBlob(id));
        }
        blob.state += 1;
        Ok(())
    }

    fn forget(&self, change: &mut Change, id: Option<u64>) {
        let Some(id) = id else { return };
        let blob = self.blob_change(change, id);
        debug_assert!(blob.state & !HELD > 0, "a reference was counted");
        if blob.state & !HELD > 0 {
            blob.state -= 1;
        }
    }

    /// Forgets the blobs of the entries below `to`, which is not beyond the end.
    fn advance(&self, change: &mut Change, id: QueueId, to: u64) -> Result<(), ReadError> {
        let queue = self.queue_change(change, id.0);
        let (from, appended_from) = (queue.first, queue.appended_from);
        let skip = (from.max(appended_from) - appended_from) as usize;
        let count = (to.max(appended_from) - appended_from) as usize;
        let appended = queue.appended.get(skip..count).unwrap_or_default().to_vec();
        queue.first = to;
        queue.changed = true;
        let stored = queue.continued.then(|| self.queue_of(id.0)).flatten();
        for run in stored.into_iter().flat_map(|queue| queue.between(from, to)) {
            for item in self.items(id.0, run)? {
                self.forget(change, item.blob);
            }
        }
        for blob in appended {
            self.forget(change, blob);
        }
        Ok(())
    }

    /// Says whether there was anything to replace.
    fn replace_key(&self, change: &mut Change, key: &Bytes, new: Option<NewKey>) -> bool {
        let old = match change.keys.insert(key.clone(), new) {
            Some(old) => old.map(|old| old.blob),
            None => self.index.keys.get(key).map(|old| old.blob),
        };
        self.forget(change, old.flatten());
        old.is_some()
    }

    /// Takes the records of the buffer from `start` on into the summary of the active segment.
    pub(crate) fn summarize(&mut self, start: usize) {
        let Active {
            buffer,
            summary,
            end,
            ..
        } = &mut self.active;
        records_of_group(buffer, start, |record, at| {
            summary.record(record, *end + at);
        });
    }

    fn install(&mut self, change: &mut Change) {
        for (id, blob) in change.blobs.drain() {
            self.install_blob(id, blob);
        }
        for (id, queue) in change.queues.drain() {
            if queue.changed {
                self.install_queue(id, &queue);
            }
        }
        for (name, key) in change.keys.drain() {
            let old = match key {
                Some(key) => {
                    let small = key.value.len() <= self.options.resident_value_bytes;
                    let key = Key {
                        value: small.then_some(key.value),
                        blob: key.blob,
                        segment: self.active.id,
                        offset: key.offset,
                    };
                    self.active.live += 1;
                    self.index.keys.insert(name, key)
                }
                None => self.index.keys.remove(&name),
            };
            if let Some(old) = old {
                self.count(old.segment, -1);
            }
        }
    }

    fn install_blob(&mut self, id: u64, blob: BlobChange) {
        let state = if blob.offset.is_some() { 0 } else { blob.state };
        match self.index.blobs.find(id) {
            Some((BlobPlace::Active { .. }, _)) if state == 0 => {
                self.index.blobs.active.remove(&id);
                self.active.live -= 1;
            }
            Some((BlobPlace::Active { .. }, _)) => {
                if let Some(known) = self.index.blobs.active.get_mut(&id) {
                    known.state = state;
                }
            }
            Some((BlobPlace::Sealed { segment, .. }, _)) => {
                if let Some((_, known)) = self.index.blobs.sealed_state(id) {
                    *known = state;
                }
                if state == 0 {
                    self.count(segment, -1);
                }
            }
            None => {}
        }
        if let Some(offset) = blob.offset
            && blob.state > 0
        {
            let state = blob.state;
            let new = ActiveBlob { offset, state };
            self.index.blobs.active.insert(id, new);
            self.active.live += 1;
        }
    }

    fn install_queue(&mut self, id: u64, change: &QueueChange) {
        let segment = self.active.id;
        let old = self.index.queues.remove(&id);
        let mut queue = match old {
            Some(mut queue) => {
                let kept = if change.continued && change.exists {
                    change.first
                } else {
                    u64::MAX
                };
                for run in queue.between(0, kept) {
                    self.count(run.segment, -i64::from(run.count));
                }
                if kept == u64::MAX {
                    self.count(queue.begun, -1);
                    queue = Default::default();
                }
                queue
            }
            None => Default::default(),
        };
        if !change.exists {
            return;
        }
        if change.first > queue.first {
            self.count(queue.begun, -1);
            queue.begun = segment;
            self.active.live += 1;
        }
        queue.advance(change.first);
        queue.end = change.end;
        let items = self.active.summary.items.get(&id).map_or(0, Vec::len);
        let run = Run {
            first: change.appended_from,
            count: change.appended.len() as u32,
            segment,
            index: (items - change.appended.len()) as u32,
        };
        let run = run.from(change.first);
        self.active.live += u64::from(run.count);
        queue.place(run);
        self.index.queues.insert(id, queue);
    }
}
