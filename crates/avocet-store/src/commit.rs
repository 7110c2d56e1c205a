//! Commits: operations change the index one by one, and back again if one of them is refused.

use bytes::Bytes;

use crate::blobs::{ActiveBlob, BlobPlace, HELD};
use crate::index::Key;
use crate::log::LogStore;
use crate::queue::{Item, Queue, Run};
use crate::record::{Record, unhold};
use crate::vfs::Vfs;
use crate::{Batch, BlobId, CommitError, Operation, Position, QueueId, ReadError};

/// Batches end below this, so that offsets fit with room for a footer.
const END_MAX: usize = 3 << 30;

/// How to take back what the open batch did, and room to work in.
#[derive(Debug, Default)]
pub(crate) struct Change {
    undo: Vec<Undo>,
    /// Queues that were dropped.
    dropped: Vec<Queue>,
    /// Keys, and what was stored under them.
    keys: Vec<(Bytes, Option<Key>)>,
    /// Runs that were cut off queues.
    cut: Vec<Run>,
    /// Blobs that are referred to once less.
    blobs: Vec<u64>,
    /// What is forgotten after the batch.
    forgotten: Vec<Forgotten>,
}

#[derive(Clone, Copy, Debug)]
enum Undo {
    /// What was known of a blob.
    Blob(u64, Option<(BlobPlace, u32)>),
    /// As many lived in a segment that is sealed, beside those that do.
    Lived(u32, u64),
    /// There was no such queue.
    Made(u64),
    /// The queue had an entry less.
    Appended(u64),
    /// Where a queue began was said elsewhere, and so many runs were cut off.
    Advanced { queue: u64, begun: u32, cut: usize },
    /// There was the last of the dropped queues; whether the active segment drops it for the first
    /// time.
    Dropped(u64, bool),
    /// The last of the keys was different.
    Key,
}

/// Entries that are gone but for the references to blobs that they count.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    /// Those in sealed segments.
    pub(crate) runs: Vec<Run>,
    /// What others refer to.
    pub(crate) blobs: Vec<u64>,
}

impl<V: Vfs> LogStore<V> {
    pub(crate) fn commit_batch(&mut self, batch: &Batch) -> Result<Position, CommitError> {
        self.seal_if_full();
        let (live, puts) = (self.active.live, self.active.puts);
        let released = self.active.released.len();
        let len = self.active.open_group();
        let start = self.active.next_offset();
        for operation in batch.operations() {
            if let Err(error) = self.apply(operation, start) {
                self.undo();
                self.active.cancel(len);
                (self.active.live, self.active.puts) = (live, puts);
                self.active.released.truncate(released);
                return Err(error);
            }
        }
        self.active.finish(true);
        self.change.undo.clear();
        self.change.dropped.clear();
        self.change.keys.clear();
        self.change.cut.clear();
        self.forgotten.extend(self.change.forgotten.drain(..));
        self.last.0 += 1;
        Ok(self.last)
    }

    /// Does one operation of the batch that begins at `start`.
    fn apply(&mut self, operation: &Operation, start: u32) -> Result<(), CommitError> {
        let size = match operation {
            Operation::PutBlob { bytes, .. } => bytes.len(),
            Operation::Append { value, .. } => value.len(),
            Operation::PutKey { key, value, .. } => key.len() + value.len(),
            Operation::DeleteKey { key } => key.len(),
            Operation::ReleaseBlob { .. }
            | Operation::Advance { .. }
            | Operation::DropQueue { .. } => 0,
        };
        if (self.active.next_offset() as usize).saturating_add(size) > END_MAX {
            return Err(CommitError::TooLarge);
        }
        match operation {
            Operation::PutBlob { id, bytes } => self.put_blob(*id, bytes),
            Operation::ReleaseBlob { id } => self.release_blob(*id, start),
            Operation::Append { queue, value, blob } => self.append(*queue, value, *blob),
            Operation::Advance { queue, to } => self.advance(*queue, *to),
            Operation::DropQueue { queue } => self.drop_queue(*queue),
            Operation::PutKey { key, value, blob } => self.put_key(key, value, *blob),
            Operation::DeleteKey { key } => {
                self.delete_key(key);
                Ok(())
            }
        }
    }

    fn put_blob(&mut self, id: BlobId, bytes: &Bytes) -> Result<(), CommitError> {
        if self.index.blobs.find(id.0).is_some() {
            return Err(CommitError::BlobExists(id));
        }
        let blob = ActiveBlob::new(self.active.next_offset(), HELD, false);
        self.change.undo.push(Undo::Blob(id.0, None));
        self.index.blobs.active.insert(id.0, blob);
        self.active.live += 1;
        self.active.puts += 1;
        self.active.push(&Record::Blob {
            id: id.0,
            held: true,
            copied: false,
            bytes,
        });
        Ok(())
    }

    fn release_blob(&mut self, id: BlobId, start: u32) -> Result<(), CommitError> {
        let released = |state| (state & HELD != 0).then_some(state & !HELD);
        let changed = self.index.blobs.change(id.0, released);
        let Some((place, state)) = changed else {
            return Err(CommitError::UnknownBlob(id));
        };
        self.note_blob(id.0, place, state, state & !HELD);
        if let BlobPlace::Active(blob) = place {
            if blob.offset >= start {
                let at = blob.offset - self.active.durable;
                unhold(&mut self.active.buffer, at as usize);
                return Ok(());
            }
            if blob.copied() {
                self.active.released.push(id.0);
            }
        } else {
            self.active.released.push(id.0);
        }
        self.active.push(&Record::Release { id: id.0 });
        Ok(())
    }

    fn append(
        &mut self,
        id: QueueId,
        value: &Bytes,
        blob: Option<BlobId>,
    ) -> Result<(), CommitError> {
        use std::collections::hash_map::Entry;
        self.refer(blob)?;
        let (id, blob) = (id.0, blob.map(|blob| blob.0));
        let queue = match self.index.queues.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.change.undo.push(Undo::Made(id));
                entry.insert(Queue::default())
            }
        };
        // Of a queue that this batch drained the items may be wanted back.
        if queue.runs.is_empty() && self.change.cut.is_empty() {
            queue.items.clear();
        }
        let sequence = queue.end;
        let item = Item::new(self.active.next_offset(), blob);
        queue.append(self.active.id, item);
        self.active.touch(id, &mut queue.touched);
        self.active.live += 1;
        self.active.puts += 1;
        self.change.undo.push(Undo::Appended(id));
        self.active.push(&Record::Entry {
            queue: id,
            sequence,
            blob,
            value,
        });
        Ok(())
    }

    fn advance(&mut self, id: QueueId, to: u64) -> Result<(), CommitError> {
        let Some(queue) = self.index.queues.get_mut(&id.0) else {
            return Err(CommitError::UnknownQueue(id));
        };
        if to > queue.end {
            return Err(CommitError::BeyondEnd { queue: id, to });
        }
        if to <= queue.first {
            return Ok(());
        }
        let (begun, first) = (queue.begun, queue.first);
        let cut = self.change.cut.len();
        queue.cut(to, |run| self.change.cut.push(run));
        let active = self.active.id;
        queue.begun = active;
        self.active.touch(id.0, &mut queue.touched);
        self.change.blobs.clear();
        for run in self.change.cut.get(cut..).unwrap_or_default() {
            if run.segment == active {
                let range = run.index as usize..(run.index + run.count) as usize;
                let items = queue.items.get(range).unwrap_or_default();
                self.change
                    .blobs
                    .extend(items.iter().filter_map(Item::blob));
                self.active.live -= u64::from(run.count);
            }
        }
        let cut_off = self.change.cut.len() - cut;
        self.change.undo.push(Undo::Advanced {
            queue: id.0,
            begun,
            cut: cut_off,
        });
        if begun != active || first == 0 {
            self.active.live += 1;
            if first > 0 {
                self.lose(begun, 1);
            }
        }
        self.forget_cut(cut, to - first)?;
        self.active.push(&Record::Advance { queue: id.0, to });
        Ok(())
    }

    fn drop_queue(&mut self, id: QueueId) -> Result<(), CommitError> {
        let Some(queue) = self.index.queues.remove(&id.0) else {
            return Err(CommitError::UnknownQueue(id));
        };
        let active = self.active.id;
        let cut = self.change.cut.len();
        self.change.blobs.clear();
        for run in &queue.runs {
            if run.segment == active {
                let range = run.index as usize..(run.index + run.count) as usize;
                let items = queue.items.get(range).unwrap_or_default();
                self.change
                    .blobs
                    .extend(items.iter().filter_map(Item::blob));
                self.active.live -= u64::from(run.count);
            }
            self.change.cut.push(*run);
        }
        let (first, count, begun) = (queue.first, queue.end - queue.first, queue.begun);
        let new = self.active.dropped.insert(id.0);
        self.change.dropped.push(queue);
        self.change.undo.push(Undo::Dropped(id.0, new));
        if begun == active && first > 0 {
            self.active.live -= 1;
        } else if first > 0 {
            self.lose(begun, 1);
        }
        self.forget_cut(cut, count)?;
        self.active.push(&Record::DropQueue { queue: id.0 });
        Ok(())
    }

    /// Forgets what `count` entries refer to: blobs that were gathered, and runs cut off from `from` on.
    fn forget_cut(&mut self, from: usize, count: u64) -> Result<(), ReadError> {
        let active = self.active.id;
        if count > self.options.removed_at_once.into() {
            let runs = self.change.cut.get(from..).unwrap_or_default();
            let runs = runs.iter().filter(|run| run.segment != active);
            self.change.forgotten.push(Forgotten {
                runs: runs.copied().collect(),
                blobs: self.change.blobs.clone(),
            });
            return Ok(());
        }
        for at in from..self.change.cut.len() {
            let Some(run) = self.change.cut.get(at).copied() else {
                break;
            };
            if run.segment != active {
                let items = self.items(run)?;
                self.change
                    .blobs
                    .extend(items.iter().filter_map(Item::blob));
                self.lose(run.segment, run.count.into());
            }
        }
        let blobs = std::mem::take(&mut self.change.blobs);
        for id in &blobs {
            self.forget(*id);
        }
        self.change.blobs = blobs;
        Ok(())
    }

    fn put_key(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        blob: Option<BlobId>,
    ) -> Result<(), CommitError> {
        self.refer(blob)?;
        let blob = blob.map(|blob| blob.0);
        let small = value.len() <= self.options.resident_value_bytes;
        let new = Key {
            value: small.then(|| value.clone()),
            blob,
            segment: self.active.id,
            offset: self.active.next_offset(),
        };
        self.active.live += 1;
        self.active.puts += 1;
        self.active.touch_key(key);
        let old = self.index.keys.insert(key.clone(), new);
        self.replaced(key, old);
        self.active.push(&Record::PutKey { key, blob, value });
        Ok(())
    }

    fn delete_key(&mut self, key: &Bytes) {
        if let Some(old) = self.index.keys.remove(key) {
            self.active.touch_key(key);
            self.replaced(key, Some(old));
            self.active.push(&Record::DeleteKey { key });
        }
    }

    fn replaced(&mut self, key: &Bytes, old: Option<Key>) {
        self.change.keys.push((key.clone(), old.clone()));
        self.change.undo.push(Undo::Key);
        let Some(old) = old else { return };
        if old.segment == self.active.id {
            self.active.live -= 1;
        } else {
            self.lose(old.segment, 1);
        }
        if let Some(blob) = old.blob {
            self.forget(blob);
        }
    }

    fn refer(&mut self, id: Option<BlobId>) -> Result<(), CommitError> {
        let Some(id) = id else { return Ok(()) };
        let changed = self.index.blobs.change(id.0, |state| Some(state + 1));
        let Some((place, state)) = changed else {
            return Err(CommitError::UnknownBlob(id));
        };
        let undo = Undo::Blob(id.0, Some((place, state)));
        self.change.undo.push(undo);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        let referred = |state: u32| (state & !HELD > 0).then(|| state - 1);
        if let Some((place, state)) = self.index.blobs.change(id, referred) {
            self.note_blob(id, place, state, state - 1);
        } else {
            debug_assert!(false, "a reference was counted");
        }
    }

    /// Notes that a blob has another state.
    fn note_blob(&mut self, id: u64, place: BlobPlace, old: u32, new: u32) {
        let undo = Undo::Blob(id, Some((place, old)));
        self.change.undo.push(undo);
        if new == 0 {
            match place {
                BlobPlace::Active(_) => self.active.live -= 1,
                BlobPlace::Sealed { segment, .. } => self.lose(segment, 1),
            }
        }
    }

    /// Notes that less lives in a sealed segment.
    fn lose(&mut self, segment: u32, count: u64) {
        self.change.undo.push(Undo::Lived(segment, count));
        self.count(segment, -(count as i64));
    }

    fn undo(&mut self) {
        self.change.forgotten.clear();
        while let Some(undo) = self.change.undo.pop() {
            match undo {
                Undo::Blob(id, old) => self.index.blobs.restore(id, old),
                Undo::Lived(segment, count) => self.count(segment, count as i64),
                Undo::Made(id) => {
                    self.index.queues.remove(&id);
                }
                Undo::Appended(id) => {
                    if let Some(queue) = self.index.queues.get_mut(&id) {
                        queue.unappend();
                    }
                }
                Undo::Advanced { queue, begun, cut } => {
                    let runs = self.change.cut.split_off(self.change.cut.len() - cut);
                    if let Some(queue) = self.index.queues.get_mut(&queue) {
                        queue.begun = begun;
                        for run in runs.into_iter().rev() {
                            queue.uncut(run);
                        }
                    }
                }
                Undo::Dropped(id, new) => {
                    if let Some(queue) = self.change.dropped.pop() {
                        let cut = self.change.cut.len() - queue.runs.len();
                        self.change.cut.truncate(cut);
                        self.index.queues.insert(id, queue);
                    }
                    if new {
                        self.active.dropped.remove(&id);
                    }
                }
                Undo::Key => {
                    if let Some((name, old)) = self.change.keys.pop() {
                        match old {
                            Some(old) => self.index.keys.insert(name, old),
                            None => self.index.keys.remove(&name),
                        };
                    }
                }
            }
        }
        self.change.cut.clear();
    }
}
