//! The store on disk: one log in segments.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::{Bound, Range};

use bytes::Bytes;

use crate::commit::Change;
use crate::index::{ActiveBlob, BlobPlace, HELD, Index, Key, Queue, Run};
use crate::memory::page;
use crate::reclaim::Cleaning;
use crate::record::{
    GROUP_LEN, HEADER_LEN, Header, Record, VERSION, own, record_len, records_of_group, write_group,
};
use crate::summary::{Footer, ITEM_LEN, Item, Summary};
use crate::vfs::{Vfs, VfsFile};
use crate::{
    Batch, BlobId, CommitError, DirVfs, Entry, KeyValue, Map, PageLimit, Position, QueueId,
    ReadError, Store, SyncError,
};

/// How a [`LogStore`] uses its directory and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// A segment that has this many bytes is followed by another one. The last group of a segment
    /// may make it longer.
    pub segment_bytes: u32,
    /// Values of keys up to this length are kept in memory.
    pub resident_value_bytes: usize,
    /// Bytes of segments kept in memory because they were read.
    pub cache_bytes: usize,
    /// This many bytes of garbage are not worth any work, beside as much as lives.
    pub garbage_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            resident_value_bytes: 1024,
            cache_bytes: 8 << 20,
            garbage_bytes: 256 << 20,
        }
    }
}

/// A [`Store`] in the files of one directory.
///
/// [`Store::commit`] buffers, [`Store::sync`] writes the buffer with one write and makes it durable
/// with one sync. [`Store::maintain`] has to be called now and then for space to be given back.
#[derive(Debug)]
pub struct LogStore<V: Vfs = DirVfs> {
    pub(crate) vfs: V,
    pub(crate) _lock: V::Lock,
    pub(crate) options: LogOptions,
    pub(crate) salt: u64,
    pub(crate) last: Position,
    pub(crate) durable: Position,
    pub(crate) index: Index,
    /// Segments that are no longer written to.
    pub(crate) segments: BTreeMap<u32, Segment<V::File>>,
    pub(crate) active: Active<V::File>,
    pub(crate) change: Change,
    pub(crate) cache: RefCell<Cache>,
    pub(crate) cleaning: Option<Cleaning>,
    /// Segments whose files go once that they are dead is durable.
    pub(crate) dead: Vec<u32>,
}

/// A segment that is complete.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) file: F,
    /// Where its data ends.
    pub(crate) end: u32,
    pub(crate) items: Table,
    pub(crate) offsets: Table,
    /// How many blobs, entries, keys and places of queues were put here, and how many of them live.
    pub(crate) puts: u64,
    pub(crate) live: u64,
}

/// Fixed-size values, in memory as long as no footer holds them.
#[derive(Debug)]
pub(crate) enum Table {
    Memory(Bytes),
    File(u64),
}

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Active<F> {
    pub(crate) id: u32,
    /// `None` until the first sync.
    pub(crate) file: Option<F>,
    /// The end of what is durable.
    pub(crate) end: u32,
    /// The next group: room for its header, and records.
    pub(crate) buffer: Vec<u8>,
    pub(crate) summary: Summary,
    pub(crate) live: u64,
    pub(crate) previous: u32,
    pub(crate) previous_end: u32,
    /// The last position before the segment.
    pub(crate) position: Position,
}

impl<F> Active<F> {
    pub(crate) fn new(id: u32, previous: u32, previous_end: u32, position: Position) -> Self {
        Self {
            id,
            file: None,
            end: HEADER_LEN,
            buffer: Vec::new(),
            summary: Summary::default(),
            live: 0,
            previous,
            previous_end,
            position,
        }
    }

    /// Where the next record will be.
    pub(crate) fn next_offset(&self) -> u32 {
        self.end + self.buffer.len() as u32
    }

    /// Begins a group unless one is open.
    pub(crate) fn open_group(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.resize(GROUP_LEN, 0);
        }
    }
}

/// Large enough for neighbouring records, small enough that one record of a queue whose entries are far
/// apart costs little more than its own read.
const CHUNK: usize = 8 << 10;
const BUFFER_KEPT: usize = 4 << 20;

/// Pieces of segments that were read lately.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    chunks: Map<(u32, u64), Vec<u8>>,
    order: VecDeque<(u32, u64)>,
}

impl Cache {
    pub(crate) fn forget(&mut self, segment: u32) {
        self.chunks.retain(|(of, _), _| *of != segment);
        self.order.retain(|(of, _)| *of != segment);
    }
}

pub(crate) fn file_name(segment: u32) -> String {
    format!("{segment:010}.log")
}

pub(crate) fn read_error(error: &io::Error) -> ReadError {
    ReadError::Io(error.kind())
}

fn write_error(error: &io::Error) -> SyncError {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        SyncError::Full
    } else {
        SyncError::Write(error.kind())
    }
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
        if self.active.end > HEADER_LEN {
            self.seal();
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
        let segments = self.segments.values();
        let sealed: u64 = segments.map(|s| s.file.size().unwrap_or(0)).sum();
        let active = self.active.file.as_ref();
        sealed + active.and_then(|file| file.size().ok()).unwrap_or(0)
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
        let Cache { chunks, order } = &mut *cache;
        while left > 0 {
            let number = offset / CHUNK as u64;
            let chunk = match chunks.entry((segment, number)) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    let mut chunk = vec![0; CHUNK];
                    let read = file
                        .read_at(number * CHUNK as u64, &mut chunk)
                        .map_err(|error| read_error(&error))?;
                    chunk.truncate(read);
                    order.push_back((segment, number));
                    entry.insert(chunk)
                }
            };
            let start = (offset % CHUNK as u64) as usize;
            let end = chunk.len().min(start + left);
            let piece = chunk.get(start..end).filter(|piece| !piece.is_empty());
            let piece = piece.ok_or(ReadError::Corrupt)?;
            out.extend_from_slice(piece);
            left -= piece.len();
            offset += piece.len() as u64;
            while order.len() > (self.options.cache_bytes / CHUNK).max(2) {
                if let Some(old) = order.pop_front() {
                    chunks.remove(&old);
                }
            }
        }
        Ok(())
    }

    /// The bytes of the record at a place.
    pub(crate) fn read_frame(&self, segment: u32, offset: u32) -> Result<Vec<u8>, ReadError> {
        /// Enough for most records, so that one read does.
        const FIRST: usize = 512;
        if segment != self.active.id {
            let end = self.segments.get(&segment).ok_or(ReadError::Corrupt)?.end;
            let left = end.checked_sub(offset).ok_or(ReadError::Corrupt)? as usize;
            let mut frame = Vec::new();
            self.read_cached(segment, offset.into(), left.min(16), &mut frame)?;
            let len = record_len(&frame).filter(|len| *len <= left);
            let len = len.ok_or(ReadError::Corrupt)?;
            frame.clear();
            frame.reserve_exact(len);
            self.read_cached(segment, offset.into(), len, &mut frame)?;
            return Ok(frame);
        }
        if let Some(at) = offset.checked_sub(self.active.end) {
            let rest = self.active.buffer.get(at as usize..).unwrap_or_default();
            let len = record_len(rest).ok_or(ReadError::Corrupt)?;
            return Ok(rest.get(..len).ok_or(ReadError::Corrupt)?.to_vec());
        }
        let file = self.active.file.as_ref().ok_or(ReadError::Corrupt)?;
        let left = (self.active.end - offset) as usize;
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

    /// The items of a run of a queue.
    pub(crate) fn items(&self, queue: u64, run: Run) -> Result<Vec<Item>, ReadError> {
        let (start, count) = (run.index as usize, run.count as usize);
        if run.segment == self.active.id {
            let items = self.active.summary.items.get(&queue);
            let items = items.and_then(|items| items.get(start..start + count));
            return Ok(items.ok_or(ReadError::Corrupt)?.to_vec());
        }
        let segment = self.segments.get(&run.segment).ok_or(ReadError::Corrupt)?;
        let (start, len) = (start * ITEM_LEN, count * ITEM_LEN);
        let mut read = Vec::new();
        let bytes = match &segment.items {
            Table::Memory(items) => items.get(start..start + len).ok_or(ReadError::Corrupt)?,
            Table::File(offset) => {
                self.read_cached(run.segment, offset + start as u64, len, &mut read)?;
                &read
            }
        };
        let items = bytes.chunks_exact(ITEM_LEN).map(Item::decode);
        items.collect::<Option<_>>().ok_or(ReadError::Corrupt)
    }

    pub(crate) fn blob_offset(&self, place: BlobPlace) -> Result<(u32, u32), ReadError> {
        let (id, ordinal) = match place {
            BlobPlace::Active { offset } => return Ok((self.active.id, offset)),
            BlobPlace::Sealed { segment, ordinal } => (segment, ordinal as usize * 4),
        };
        let segment = self.segments.get(&id).ok_or(ReadError::Corrupt)?;
        let mut read = Vec::new();
        let bytes = match &segment.offsets {
            Table::Memory(offsets) => offsets.get(ordinal..).unwrap_or_default(),
            Table::File(offset) => {
                self.read_cached(id, offset + ordinal as u64, 4, &mut read)?;
                &read
            }
        };
        let offset = bytes.first_chunk().ok_or(ReadError::Corrupt)?;
        Ok((id, u32::from_le_bytes(*offset)))
    }

    fn key_value(&self, key: &Bytes, stored: &Key) -> Result<KeyValue, ReadError> {
        let value = match &stored.value {
            Some(value) => value.clone(),
            None => {
                let frame = self.read_frame(stored.segment, stored.offset)?;
                match Record::decode(&frame) {
                    Some((Record::PutKey { key: of, value, .. }, _)) if of == key => own(value),
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

    /// Makes the file of the active segment and its header durable.
    fn create_file(&mut self) -> Result<(), SyncError> {
        if self.active.file.is_some() {
            return Ok(());
        }
        let header = Header {
            version: VERSION,
            segment: self.active.id,
            salt: self.salt,
            previous: self.active.previous,
            previous_end: self.active.previous_end,
            position: self.active.position.0,
        };
        let name = file_name(self.active.id);
        let file = self.vfs.create(&name).map_err(|e| write_error(&e))?;
        // A sync that fails here is retried with a file made anew: `create` empties it.
        file.preallocate(self.options.segment_bytes.into())
            .map_err(|e| write_error(&e))?;
        file.write_at(0, &header.encode())
            .map_err(|e| write_error(&e))?;
        let synced = file.sync_data().and_then(|()| self.vfs.sync_dir());
        if let Err(error) = synced {
            self.skip_file(&name);
            return Err(SyncError::Sync(error.kind()));
        }
        self.active.file = Some(file);
        Ok(())
    }

    /// Gives up the file of the active segment, which holds nothing durable, for another one.
    fn skip_file(&mut self, name: &str) {
        // One that stays is no part of the log and is removed when the store is opened.
        let _ = self.vfs.remove(name);
        self.retire();
    }

    /// Ends the active segment before what is not durable, which goes to a new segment.
    fn retire(&mut self) {
        let (old, durable) = (self.active.id, self.active.end);
        let keeps = durable > HEADER_LEN;
        let (previous, previous_end) = if keeps {
            (old, durable)
        } else {
            (self.active.previous, self.active.previous_end)
        };
        let position = if keeps {
            self.durable
        } else {
            self.active.position
        };
        let mut next = Active::new(old + 1, previous, previous_end, position);
        next.buffer = std::mem::take(&mut self.active.buffer);
        let summary = &mut next.summary;
        records_of_group(&next.buffer, GROUP_LEN, |record, at| {
            summary.record(record, HEADER_LEN + at);
        });
        for (id, items) in &next.summary.items {
            let Some(kept) = self.active.summary.items.get_mut(id) else {
                continue;
            };
            kept.truncate(kept.len().saturating_sub(items.len()));
            let split = kept.len() as u32;
            let Some(queue) = self.index.queues.get_mut(id) else {
                continue;
            };
            let moved: Vec<_> = queue
                .runs
                .iter()
                .filter(|run| run.segment == old && run.index + run.count > split)
                .map(|run| run.from(run.first + u64::from(split.saturating_sub(run.index))))
                .collect();
            for run in moved {
                next.live += u64::from(run.count);
                queue.place(Run {
                    segment: next.id,
                    index: run.index - split,
                    ..run
                });
            }
        }
        let queues = next.summary.queues.iter();
        for (id, _) in queues.filter(|(_, summary)| summary.first > 0) {
            if let Some(queue) = self.index.queues.get_mut(id) {
                queue.begun = next.id;
                next.live += 1;
            }
        }
        for (name, offset) in &next.summary.keys {
            if let (Some(key), Some(offset)) = (self.index.keys.get_mut(name), offset) {
                key.segment = next.id;
                key.offset = *offset;
                next.live += 1;
            }
        }
        let mut moved = Vec::new();
        self.index.blobs.active.retain(|id, blob| {
            let stays = blob.offset < durable;
            if !stays {
                let offset = blob.offset - durable + HEADER_LEN;
                moved.push((*id, ActiveBlob { offset, ..*blob }));
            }
            stays
        });
        next.live += moved.len() as u64;
        let active = std::mem::replace(&mut self.active, next);
        let live = active.live.saturating_sub(self.active.live);
        if keeps && let Some(segment) = self.seal_segment(active, live, false) {
            self.segments.insert(old, segment);
        }
        self.index.blobs.active.extend(moved);
    }

    /// Completes the active segment, all of which is durable, and begins another one.
    pub(crate) fn seal(&mut self) {
        let next = Active::new(
            self.active.id + 1,
            self.active.id,
            self.active.end,
            self.durable,
        );
        let active = std::mem::replace(&mut self.active, next);
        let (id, live) = (active.id, active.live);
        if let Some(segment) = self.seal_segment(active, live, true) {
            self.segments.insert(id, segment);
        }
    }

    /// Gathers what lives in a segment, and writes the footer where `store` is set.
    fn seal_segment(
        &mut self,
        active: Active<V::File>,
        live: u64,
        store: bool,
    ) -> Option<Segment<V::File>> {
        let (id, summary) = (active.id, active.summary);
        let mut footer = Footer {
            released: summary.released,
            trim: summary.trim,
            position: summary.position,
            records: summary.puts,
            ..Footer::default()
        };
        let mut items = Vec::new();
        footer.queues = summary.queues.into_iter().collect();
        for (name, queue) in &mut footer.queues {
            queue.runs.clear();
            let known = self.index.queues.get_mut(name);
            let runs = known.map(|queue| queue.runs.iter_mut());
            let stored = summary.items.get(name);
            for run in runs.into_iter().flatten().filter(|run| run.segment == id) {
                let range = run.index as usize..(run.index + run.count) as usize;
                run.index = (items.len() / ITEM_LEN) as u32;
                for item in stored
                    .and_then(|items| items.get(range))
                    .into_iter()
                    .flatten()
                {
                    Footer::push_item(&mut items, *item);
                }
                queue.runs.push((run.first, run.count));
            }
        }
        footer.items = items.into();
        let keys = &self.index.keys;
        let lives = |name: &Bytes, offset: u32| {
            keys.get(name)
                .is_some_and(|key| key.segment == id && key.offset == offset)
        };
        footer.keys = summary
            .keys
            .into_iter()
            .map(|(name, offset)| {
                let offset = offset.filter(|offset| lives(&name, *offset));
                (name, offset)
            })
            .collect();
        let mut blobs: Vec<_> = self.index.blobs.active.drain().collect();
        blobs.sort_unstable_by_key(|(id, _)| *id);
        let summaries: Vec<_> = blobs
            .iter()
            .map(|(id, blob)| (*id, blob.offset, blob.state & HELD != 0))
            .collect();
        footer.set_blobs(&summaries);
        let states = blobs.into_iter().map(|(id, blob)| (id, blob.state));
        self.index.blobs.seal(id, states);
        let puts = footer.puts();
        let file = active.file?;
        let stored = store && write_footer(&file, active.end, &footer).is_ok();
        let (items, offsets) = tables(&footer, active.end, stored);
        Some(Segment {
            file,
            end: active.end,
            items,
            offsets,
            puts,
            live,
        })
    }

    /// Removes the files of segments that hold nothing that lives.
    fn remove_dead(&mut self) {
        for segment in self.dead.drain(..) {
            // What stays is removed when the store is opened.
            let _ = self.vfs.remove(&file_name(segment));
        }
    }
}

/// Where the tables of a footer are read from.
pub(crate) fn tables(footer: &Footer, end: u32, stored: bool) -> (Table, Table) {
    if stored {
        let end = u64::from(end);
        return (
            Table::File(end),
            Table::File(end + footer.items.len() as u64),
        );
    }
    (
        Table::Memory(footer.items.clone()),
        Table::Memory(footer.offsets.clone()),
    )
}

/// Ends a file with a footer. Without one the segment is read through when the store is opened.
pub(crate) fn write_footer(file: &impl VfsFile, end: u32, footer: &Footer) -> io::Result<()> {
    // Its trailer counts in 32 bits.
    if footer.items.len().max(footer.offsets.len()) > i32::MAX as usize {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let bytes = footer.encode(end);
    file.write_at(end.into(), &bytes)?;
    file.set_size(u64::from(end) + bytes.len() as u64)?;
    file.sync_data()
}

impl<V: Vfs> Store for LogStore<V> {
    fn commit(&mut self, batch: Batch) -> Result<Position, CommitError> {
        self.commit_batch(&batch)
    }

    fn sync(&mut self) -> Result<Position, SyncError> {
        if self.active.buffer.is_empty() {
            return Ok(self.durable);
        }
        self.create_file()?;
        let Active {
            id,
            end,
            buffer,
            file: Some(file),
            ..
        } = &mut self.active
        else {
            return Err(SyncError::Write(io::ErrorKind::NotFound));
        };
        write_group(buffer, self.salt, *id, *end);
        // A write that failed may have written a part. The next one begins at the same place with
        // the same records, so what is found there is always a part of the log.
        file.write_at((*end).into(), buffer)
            .map_err(|e| write_error(&e))?;
        if let Err(error) = file.sync_data() {
            if *end == HEADER_LEN {
                let name = file_name(*id);
                self.skip_file(&name);
            } else {
                self.retire();
            }
            return Err(SyncError::Sync(error.kind()));
        }
        *end += buffer.len() as u32;
        buffer.clear();
        buffer.shrink_to(BUFFER_KEPT);
        self.durable = self.last;
        let full = *end >= self.options.segment_bytes;
        self.remove_dead();
        if full {
            self.seal();
        }
        Ok(self.durable)
    }

    fn durable(&self) -> Position {
        self.durable
    }

    fn buffered_bytes(&self) -> usize {
        self.active.buffer.len()
    }

    fn maintain(&mut self, budget: usize) -> Result<bool, ReadError> {
        self.reclaim(budget)
    }

    fn blob(&self, id: BlobId) -> Result<Option<Bytes>, ReadError> {
        let Some((place, _)) = self.index.blobs.find(id.0) else {
            return Ok(None);
        };
        let (segment, offset) = self.blob_offset(place)?;
        let frame = Bytes::from(self.read_frame(segment, offset)?);
        match Record::decode(&frame) {
            Some((Record::Blob { id: of, bytes, .. }, _)) if of == id.0 => {
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
        let from = from.max(queue.first);
        let count = limit.items.max(1) as u64;
        let to = queue.end.min(from.saturating_add(count));
        let mut left = limit.bytes;
        let mut entries = Vec::new();
        for run in queue.between(from, to) {
            for (sequence, item) in (run.first..).zip(self.items(id.0, run)?) {
                let entry = self.entry(id.0, sequence, run.segment, item)?;
                let size = entry.value.len();
                if size > left && !entries.is_empty() {
                    return Ok(entries);
                }
                left = left.saturating_sub(size);
                entries.push(entry);
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
        match Record::decode(&frame) {
            Some((
                Record::Entry {
                    queue: of,
                    sequence: at,
                    blob,
                    value,
                },
                _,
            )) if (of, at, blob) == (queue, sequence, item.blob) => Ok(Entry {
                sequence,
                value: frame.slice_ref(value),
                blob: blob.map(BlobId),
            }),
            _ => Err(ReadError::Corrupt),
        }
    }

    pub(crate) fn queue_of(&self, id: u64) -> Option<&Queue> {
        self.index.queues.get(&id)
    }
}
