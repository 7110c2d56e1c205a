//! The store on disk: one log in segments.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::active::{Active, Pending};
use crate::blobs::BlobPlace;
use crate::cache::{CHUNK, Cache};
use crate::chore::{Chores, Dead, SPARE};
use crate::commit::{Change, Forgotten};
use crate::index::{Index, Key};
use crate::memory::page;
use crate::queue::{Item, Run};
use crate::reclaim::Cleaning;
use crate::record::{Record, own, record_len};
use crate::summary::{ITEM_LEN, decode_item};
use crate::vfs::{Vfs, VfsFile};
use crate::{
    Batch, BlobId, CommitError, DirVfs, Entry, KeyValue, PageLimit, Position, QueueId, ReadError,
    Store, SyncError,
};

/// How a [`LogStore`] uses its directory and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// A segment that has this many bytes is followed by another one. The last group of a segment
    /// may make it longer.
    pub segment_bytes: u32,
    /// So does one that was given this many blobs, entries and keys: those of the last segment are kept
    /// track of in memory.
    pub segment_puts: u32,
    /// Values of keys up to this length are kept in memory.
    pub resident_value_bytes: usize,
    /// Bytes of segments kept in memory because they were read.
    pub cache_bytes: usize,
    /// This many bytes of garbage are not worth any work, beside as much as lives.
    pub garbage_bytes: u64,
    /// A batch that removes more entries than this at once leaves it to [`Store::maintain`] to find out
    /// which blobs only they referred to; until then these are there.
    pub removed_at_once: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_puts: 256 << 10,
            resident_value_bytes: 1024,
            cache_bytes: 8 << 20,
            garbage_bytes: 256 << 20,
            removed_at_once: 1024,
        }
    }
}

/// A [`Store`] in the files of one directory.
///
/// [`Store::commit`] buffers, [`Store::write`] writes the buffer with one write, [`Store::sync`] makes
/// it durable with one sync. [`Store::maintain`] has to be called now and then for space to be given back.
#[derive(Debug)]
pub struct LogStore<V: Vfs = DirVfs> {
    pub(crate) vfs: V,
    /// Nothing is written without it.
    pub(crate) _lock: Option<V::Lock>,
    pub(crate) options: LogOptions,
    pub(crate) salt: u64,
    pub(crate) last: Position,
    pub(crate) written: Position,
    pub(crate) durable: Position,
    pub(crate) index: Index,
    /// Segments that are no longer written to.
    pub(crate) segments: BTreeMap<u32, Segment<V::File>>,
    pub(crate) active: Active<V::File>,
    /// A file whose sync failed, and nothing of which is durable: it goes when the active segment's is written.
    pub(crate) left: Option<u32>,
    /// Whether the name of the active segment's file is durable.
    pub(crate) named: bool,
    /// How many syncs others have begun.
    pub(crate) syncs_begun: u64,
    /// Footers that are not written yet.
    pub(crate) footers: VecDeque<Pending>,
    pub(crate) change: Change,
    pub(crate) forgotten: VecDeque<Forgotten>,
    pub(crate) cache: RefCell<Cache>,
    pub(crate) cleaning: Option<Cleaning>,
    /// Segments whose files go once that they are dead is durable.
    pub(crate) dead: Vec<Dead>,
    /// Those of which it is.
    pub(crate) removable: VecDeque<Dead>,
    pub(crate) chores: Chores,
    /// The file of the next segment, if there is one already: none has its header.
    pub(crate) spare: Option<V::File>,
    /// Snapshots have clones of it.
    pub(crate) read: Arc<()>,
}

/// A segment that is complete.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) file: F,
    /// A sync of the file failed.
    pub(crate) failed: bool,
    /// Where its data ends.
    pub(crate) end: u32,
    pub(crate) tables: Tables,
    /// How many bytes of the tables are items.
    pub(crate) items: u32,
    /// How many blobs, entries, keys and places of queues were put here, and how many of them live.
    pub(crate) puts: u64,
    pub(crate) live: u64,
}

/// The items and the offsets of blobs of a segment.
#[derive(Debug)]
pub(crate) enum Tables {
    /// As long as no footer holds them.
    Memory(Bytes),
    /// At this place in the file.
    File(u32),
}

/// So that a page that is soon full reads few.
const ITEMS_AT_ONCE: u32 = 64;
/// Footers of the last segments are made durable when a store is closed.
const FOOTERS_SYNCED: usize = 4;

pub(crate) fn file_name(segment: u32) -> String {
    format!("{segment:010}.log")
}

pub(crate) fn read_error(error: &io::Error) -> ReadError {
    ReadError::Io(error.kind())
}

impl LogStore<DirVfs> {
    /// Opens the store in a directory, which is made when it is missing.
    pub fn open_dir(
        dir: impl Into<std::path::PathBuf>,
        options: LogOptions,
    ) -> Result<Self, crate::OpenError> {
        let dir = dir.into();
        let vfs = DirVfs::new(dir.clone()).map_err(|error| crate::OpenError::Io {
            file: dir.display().to_string(),
            kind: error.kind(),
        })?;
        Self::open(vfs, options)
    }
}

impl<V: Vfs> LogStore<V> {
    /// Makes everything durable and ends the log with a footer, so that the next opening is quick.
    pub fn close(mut self) -> Result<Position, SyncError> {
        let position = self.sync()?;
        if self.active.begun() {
            self.seal();
        }
        while self.write_footers(usize::MAX) > 0 {}
        for segment in self.segments.values().rev().take(FOOTERS_SYNCED) {
            // One that is not durable is made again when the store is opened.
            let _ = segment.file.sync_data();
        }
        if self.spare.take().is_some() {
            let _ = self.vfs.remove(SPARE);
        }
        Ok(position)
    }

    /// How many blobs are alive.
    pub fn blobs(&self) -> u64 {
        self.index.blobs.len()
    }

    /// The file system the store uses.
    pub fn vfs(&self) -> &V {
        &self.vfs
    }

    /// How many bytes the files of the log have together.
    pub fn disk_bytes(&self) -> u64 {
        let sealed = self.segments.values().map(|segment| &segment.file);
        let files = sealed.chain(&self.active.file);
        files.map(|file| file.size().unwrap_or(0)).sum()
    }

    /// About how many bytes of memory are taken by what is known of blobs and entries.
    pub fn index_bytes(&self) -> usize {
        let memory = |segment: &Segment<_>| match &segment.tables {
            Tables::Memory(tables) => tables.len(),
            Tables::File(_) => 0,
        };
        let tables: usize = self.segments.values().map(memory).sum();
        self.index.memory() + tables
    }

    pub(crate) fn live(&mut self, segment: u32) -> Option<&mut u64> {
        if segment == self.active.id {
            return Some(&mut self.active.live);
        }
        self.segments.get_mut(&segment).map(|s| &mut s.live)
    }

    pub(crate) fn count(&mut self, segment: u32, difference: i64) {
        if let Some(live) = self.live(segment) {
            debug_assert!(live.checked_add_signed(difference).is_some());
            *live = live.saturating_add_signed(difference);
        }
    }

    /// Appends `len` bytes of a complete segment to `out`.
    fn read_cached(
        &self,
        segment: u32,
        mut offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let file = &self.segments.get(&segment).ok_or(ReadError::Corrupt)?.file;
        let mut left = len;
        let mut cache = self.cache.borrow_mut();
        while left > 0 {
            let rest = cache.read(segment, file, offset, self.options.cache_bytes)?;
            let piece = rest.get(..left).unwrap_or(rest);
            out.extend_from_slice(piece);
            left -= piece.len();
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// The bytes of the record at a place of a complete segment.
    fn read_sealed(&self, id: u32, offset: u32) -> Result<Vec<u8>, ReadError> {
        let segment = self.segments.get(&id).ok_or(ReadError::Corrupt)?;
        let left = segment.end.checked_sub(offset).ok_or(ReadError::Corrupt)? as usize;
        let mut frame = Vec::new();
        {
            let mut cache = self.cache.borrow_mut();
            let max = self.options.cache_bytes;
            let rest = cache.read(id, &segment.file, offset.into(), max)?;
            if let Some(whole) = record_len(rest).and_then(|len| rest.get(..len)) {
                return Ok(whole.to_vec());
            }
        }
        self.read_cached(id, offset.into(), left.min(16), &mut frame)?;
        let len = record_len(&frame).filter(|len| *len <= left);
        let len = len.ok_or(ReadError::Corrupt)?;
        if len > 4 * CHUNK {
            // It would leave nothing of what else is kept.
            frame.resize(len, 0);
            return match segment.file.read_at(offset.into(), &mut frame) {
                Ok(read) if read == len => Ok(frame),
                Ok(_) => Err(ReadError::Corrupt),
                Err(error) => Err(read_error(&error)),
            };
        }
        frame.clear();
        frame.reserve_exact(len);
        self.read_cached(id, offset.into(), len, &mut frame)?;
        Ok(frame)
    }

    /// The bytes of the record at a place.
    pub(crate) fn read_frame(&self, segment: u32, offset: u32) -> Result<Vec<u8>, ReadError> {
        /// Enough for most records, so that one read does.
        const FIRST: usize = 512;
        if segment != self.active.id {
            return self.read_sealed(segment, offset);
        }
        if let Some(rest) = self.active.buffered(offset) {
            let len = record_len(rest).ok_or(ReadError::Corrupt)?;
            return Ok(rest.get(..len).ok_or(ReadError::Corrupt)?.to_vec());
        }
        let file = self.active.file.as_ref().ok_or(ReadError::Corrupt)?;
        let left = (self.active.durable - offset) as usize;
        let mut frame = vec![0; left.min(FIRST)];
        let read = |offset: u64, buffer: &mut [u8]| match file.read_at(offset, buffer) {
            Ok(read) if read == buffer.len() => Ok(()),
            Ok(_) => Err(ReadError::Corrupt),
            Err(error) => Err(read_error(&error)),
        };
        read(offset.into(), &mut frame)?;
        let len = record_len(&frame).filter(|len| *len <= left);
        let len = len.ok_or(ReadError::Corrupt)?;
        let have = frame.len();
        frame.resize(len, 0);
        if let Some(rest) = frame.get_mut(have..).filter(|rest| !rest.is_empty()) {
            read(u64::from(offset) + have as u64, rest)?;
        }
        Ok(frame)
    }

    /// Reads from the tables of a sealed segment.
    fn read_table(&self, id: u32, start: usize, len: usize) -> Result<Vec<u8>, ReadError> {
        let segment = self.segments.get(&id).ok_or(ReadError::Corrupt)?;
        let mut read = Vec::with_capacity(len);
        match &segment.tables {
            Tables::Memory(tables) => {
                let piece = tables.get(start..start + len).ok_or(ReadError::Corrupt)?;
                read.extend_from_slice(piece);
            }
            Tables::File(offset) => {
                self.read_cached(id, u64::from(*offset) + start as u64, len, &mut read)?;
            }
        }
        Ok(read)
    }

    /// The items of a run in a sealed segment.
    pub(crate) fn items(&self, run: Run) -> Result<Vec<Item>, ReadError> {
        let (start, len) = (run.index as usize * ITEM_LEN, run.count as usize * ITEM_LEN);
        let bytes = self.read_table(run.segment, start, len)?;
        let items = bytes.chunks_exact(ITEM_LEN).map(decode_item);
        items.collect::<Option<_>>().ok_or(ReadError::Corrupt)
    }

    /// Where the blob of a sealed segment with this ordinal is.
    pub(crate) fn offset_of(&self, id: u32, ordinal: u32) -> Result<u32, ReadError> {
        let segment = self.segments.get(&id).ok_or(ReadError::Corrupt)?;
        let start = segment.items as usize + ordinal as usize * 4;
        let bytes = self.read_table(id, start, 4)?;
        let offset = bytes.first_chunk().ok_or(ReadError::Corrupt)?;
        Ok(u32::from_le_bytes(*offset))
    }

    fn key_value(&self, key: &Bytes, stored: &Key) -> Result<KeyValue, ReadError> {
        let value = match &stored.value {
            Some(value) => value.clone(),
            None => {
                let frame = self.read_frame(stored.segment, stored.offset)?;
                match Record::decode(&frame).map(|decoded| decoded.record) {
                    Some(Record::PutKey { key: of, value, .. }) if of == key => own(value),
                    _ => return Err(ReadError::Corrupt),
                }
            }
        };
        Ok(KeyValue {
            key: key.clone(),
            value,
            blob: stored.blob.map(BlobId),
        })
    }
}

impl<V: Vfs> Store for LogStore<V> {
    fn commit(&mut self, batch: Batch) -> Result<Position, CommitError> {
        self.commit_batch(&batch)
    }

    fn write(&mut self) -> Result<Position, SyncError> {
        self.write_group()?;
        if self.must_sync() && self.active.flights.is_empty() {
            self.sync_groups()?;
        }
        Ok(self.written)
    }

    fn sync(&mut self) -> Result<Position, SyncError> {
        self.write_group()?;
        self.sync_groups()?;
        Ok(self.durable)
    }

    fn written(&self) -> Position {
        self.written
    }

    fn durable(&self) -> Position {
        self.durable
    }

    fn buffered_bytes(&self) -> usize {
        self.active.waiting_bytes()
    }

    fn maintain(&mut self, budget: usize) -> Result<bool, ReadError> {
        self.reclaim(budget)
    }

    fn blob(&self, id: BlobId) -> Result<Option<Bytes>, ReadError> {
        let Some((place, _)) = self.index.blobs.find(id.0) else {
            return Ok(None);
        };
        let (segment, offset) = match place {
            BlobPlace::Active(blob) => (self.active.id, blob.offset),
            BlobPlace::Sealed { segment, ordinal } => (segment, self.offset_of(segment, ordinal)?),
        };
        let frame = Bytes::from(self.read_frame(segment, offset)?);
        match Record::decode(&frame).map(|decoded| decoded.record) {
            Some(Record::Blob { id: of, bytes, .. }) if of == id.0 => {
                Ok(Some(frame.slice_ref(bytes)))
            }
            _ => Err(ReadError::Corrupt),
        }
    }

    fn queue(&self, id: QueueId) -> Option<Range<u64>> {
        let queue = self.index.queues.get(&id.0)?;
        Some(queue.first..queue.end)
    }

    fn read_queue(
        &self,
        id: QueueId,
        from: u64,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        let Some(queue) = self.index.queues.get(&id.0) else {
            return Ok(Vec::new());
        };
        let mut left = limit;
        left.items = left.items.max(1);
        let mut entries = Vec::new();
        for (first, run) in queue.from(from) {
            let mut first = first;
            let mut run = run.take(u32::try_from(left.items).unwrap_or(u32::MAX));
            while run.count > 0 {
                let part = run.take(ITEMS_AT_ONCE);
                let read;
                let items = if run.segment == self.active.id {
                    let range = part.index as usize..(part.index + part.count) as usize;
                    queue.items.get(range).ok_or(ReadError::Corrupt)?
                } else {
                    read = self.items(part)?;
                    &read
                };
                for (sequence, item) in (first..).zip(items) {
                    let entry = self.entry(id.0, sequence, run.segment, *item)?;
                    let size = entry.value.len();
                    if size > left.bytes && !entries.is_empty() {
                        return Ok(entries);
                    }
                    left.bytes = left.bytes.saturating_sub(size);
                    left.items -= 1;
                    entries.push(entry);
                }
                first += u64::from(part.count);
                run = run.skip(part.count);
            }
            if left.items == 0 {
                break;
            }
        }
        Ok(entries)
    }

    fn key(&self, key: &[u8]) -> Result<Option<KeyValue>, ReadError> {
        let stored = self.index.keys.get_key_value(key);
        stored
            .map(|(key, stored)| self.key_value(key, stored))
            .transpose()
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
        let keys = self.index.keys.range::<[u8], _>((start, Bound::Unbounded));
        let keys = keys.take_while(|(key, _)| key.starts_with(prefix));
        let read = keys.map(|(key, stored)| self.key_value(key, stored));
        let items = page(read, limit, |item| {
            let item = item.as_ref();
            item.map_or(0, |item| item.key.len() + item.value.len())
        });
        items.into_iter().collect()
    }
}

impl<V: Vfs> LogStore<V> {
    fn entry(
        &self,
        queue: u64,
        sequence: u64,
        segment: u32,
        item: Item,
    ) -> Result<Entry, ReadError> {
        let frame = Bytes::from(self.read_frame(segment, item.offset)?);
        match Record::decode(&frame).map(|decoded| decoded.record) {
            Some(Record::Entry {
                queue: of,
                sequence: at,
                blob,
                value,
            }) if (of, at, blob) == (queue, sequence, item.blob()) => Ok(Entry {
                sequence,
                value: frame.slice_ref(value),
                blob: blob.map(BlobId),
            }),
            _ => Err(ReadError::Corrupt),
        }
    }
}
