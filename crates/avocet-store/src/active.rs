//! The segment that is written to: groups go out, and it ends when it is full or its file failed.

use std::collections::VecDeque;
use std::io;
use std::mem;

use bytes::Bytes;

use crate::blobs::{ActiveBlob, HELD};
use crate::flight::Flight;
use crate::log::{LogStore, Segment, Tables, file_name};
use crate::queue::Item;
use crate::record::{
    GROUP_LEN, Group, HEADER_LEN, Header, Record, VERSION, finish, own, records, reframe,
};
use crate::summary::{Footer, ITEM_LEN, Place, QueueSummary, encode_item};
use crate::vfs::{Vfs, VfsFile};
use crate::{Map, Position, Set, SyncError};

/// More than this is not kept in memory for want of a sync.
const UNSYNCED_MAX: usize = 16 << 20;
const BUFFER_KEPT: usize = 4 << 20;

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Active<F> {
    pub(crate) id: u32,
    /// `None` until the first write.
    pub(crate) file: Option<F>,
    /// The end of what is durable: 0, or the end of the header or of a group.
    pub(crate) durable: u32,
    /// What follows, from the header on if even that is not durable: written groups, then one that is
    /// open.
    pub(crate) buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// Where the open group begins in the buffer.
    open: Option<usize>,
    /// Where the records of the open batch begin in the buffer.
    starts: Vec<usize>,
    /// How many blobs, entries and keys were put here.
    pub(crate) puts: u64,
    /// How many of them, and of places where queues begin, live.
    pub(crate) live: u64,
    /// Queues of which something is said here, some of them more than once.
    pub(crate) touched: Vec<u64>,
    /// Queues that were dropped here.
    pub(crate) dropped: Set<u64>,
    /// Blobs that were released here and put in an earlier segment.
    pub(crate) released: Vec<u64>,
    /// Keys that were put or deleted here.
    pub(crate) keys: Set<Bytes>,
    pub(crate) trim: u32,
    pub(crate) previous: u32,
    pub(crate) previous_end: u32,
    /// The last position before the segment.
    pub(crate) position: Position,
    /// The file, open for those who sync it for the store, and whether it was opened for them.
    pub(crate) others: Vec<F>,
    pub(crate) opened: bool,
    /// What they do, in the order in which they began.
    pub(crate) flights: VecDeque<Flight>,
}

impl<F> Active<F> {
    pub(crate) fn new(
        id: u32,
        salt: u64,
        previous: u32,
        previous_end: u32,
        position: Position,
    ) -> Self {
        let header = Header {
            version: VERSION,
            segment: id,
            salt,
            previous,
            previous_end,
            position: position.0,
        };
        Self {
            id,
            file: None,
            durable: 0,
            buffer: header.encode(),
            written: 0,
            open: None,
            starts: Vec::new(),
            puts: 0,
            live: 0,
            touched: Vec::new(),
            dropped: Set::default(),
            released: Vec::new(),
            keys: Set::default(),
            trim: 0,
            previous,
            previous_end,
            position,
            others: Vec::new(),
            opened: false,
            flights: VecDeque::new(),
        }
    }

    /// Where the next record will be.
    pub(crate) fn next_offset(&self) -> u32 {
        self.durable + self.buffer.len() as u32
    }

    /// Whether anything of this segment is durable.
    pub(crate) fn begun(&self) -> bool {
        self.durable > 0
    }

    /// Whether something waits for a sync.
    pub(crate) fn waits(&self) -> bool {
        self.open.is_some() || self.unsynced()
    }

    /// Whether something is written and waits for a sync.
    pub(crate) fn unsynced(&self) -> bool {
        self.written > 0
    }

    /// Where what is written ends.
    pub(crate) fn written_end(&self) -> u32 {
        self.durable + self.written as u32
    }

    /// Notes that what is written is durable up to here.
    pub(crate) fn synced(&mut self, end: u32) {
        let len = end.saturating_sub(self.durable);
        if len == 0 {
            return;
        }
        self.durable = end;
        let len = len as usize;
        self.buffer.drain(..len);
        self.buffer.shrink_to(BUFFER_KEPT);
        self.written -= len;
        self.open = self.open.map(|open| open - len);
    }

    /// How many bytes wait for a sync.
    pub(crate) fn waiting_bytes(&self) -> usize {
        if self.waits() { self.buffer.len() } else { 0 }
    }

    /// Begins a group unless one is open, and returns the length of the buffer before it did.
    pub(crate) fn open_group(&mut self) -> usize {
        let len = self.buffer.len();
        if self.open.is_none() {
            self.open = Some(len);
            self.buffer.resize(len + GROUP_LEN, 0);
        }
        len
    }

    /// Takes a batch out of the buffer that was `len` bytes long before it.
    pub(crate) fn cancel(&mut self, len: usize) {
        self.buffer.truncate(len);
        self.starts.clear();
        if self.open == Some(len) {
            self.open = None;
        }
    }

    /// Puts a record into the buffer, which has a group open.
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        self.starts.push(self.buffer.len());
        record.encode(&mut self.buffer);
    }

    /// Completes the records that were pushed; they are a batch if `batch` is set.
    pub(crate) fn finish(&mut self, batch: bool) {
        if self.starts.is_empty() || !batch {
            self.push(&Record::End);
        }
        finish(&mut self.buffer, &self.starts, batch);
        self.starts.clear();
    }

    /// Completes the records that were copied, if there are any.
    pub(crate) fn finish_copies(&mut self) {
        if !self.starts.is_empty() {
            self.finish(false);
        }
    }

    /// The part of the buffer that begins at an offset of the segment, unless that is durable.
    pub(crate) fn buffered(&self, offset: u32) -> Option<&[u8]> {
        let at = offset.checked_sub(self.durable)?;
        self.buffer.get(at as usize..)
    }

    /// Notes that something is said of a queue.
    pub(crate) fn touch(&mut self, id: u64, touched: &mut u32) {
        if *touched != self.id {
            *touched = self.id;
            self.touched.push(id);
        }
    }

    /// Notes that something is said of a key.
    pub(crate) fn touch_key(&mut self, key: &Bytes) {
        if !self.keys.contains(key) {
            self.keys.insert(own(key));
        }
    }

    fn queues(&mut self) -> Vec<u64> {
        let mut queues = mem::take(&mut self.touched);
        queues.extend(&self.dropped);
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

/// A footer on its way to the end of its file.
#[derive(Debug)]
pub(crate) struct Pending {
    segment: u32,
    bytes: Bytes,
    written: usize,
}

impl Pending {
    /// A footer of which nothing is written.
    pub(crate) fn new(segment: u32, bytes: Bytes) -> Self {
        Self {
            segment,
            bytes,
            written: 0,
        }
    }
}

/// Whether there is no room for what was to be written.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn write_error(error: &io::Error) -> SyncError {
    if is_full(error) {
        SyncError::Full
    } else {
        SyncError::Write(error.kind())
    }
}

pub(crate) fn sync_error(error: &io::Error) -> SyncError {
    SyncError::Sync(error.kind())
}

impl<V: Vfs> LogStore<V> {
    /// Writes the open group, without making it durable.
    pub(crate) fn write_group(&mut self) -> Result<(), SyncError> {
        if self.active.open.is_none() {
            return Ok(());
        }
        self.create_file()?;
        let active = &mut self.active;
        let (Some(file), Some(open)) = (&active.file, active.open) else {
            return Err(SyncError::Write(io::ErrorKind::NotFound));
        };
        let (durable, offset) = (active.durable, active.durable + open as u32);
        Group::close(
            &mut active.buffer,
            open,
            durable,
            self.salt,
            active.id,
            offset,
        );
        // A write that failed may have written a part. The next one begins at the same place with
        // the same records, so what is found there is always a part of the log.
        let write = |start: usize, end: usize| {
            let bytes = active.buffer.get(start..end).unwrap_or_default();
            file.write_at(u64::from(active.durable) + start as u64, bytes)
                .map_err(|error| write_error(&error))
        };
        let end = active.buffer.len();
        if active.durable == 0 && active.written == 0 {
            // With its header the file counts, in place of what was written to another one.
            write(HEADER_LEN as usize, end)?;
            write(0, HEADER_LEN as usize)?;
        } else {
            write(active.written, end)?;
        }
        active.written = end;
        active.open = None;
        self.written = self.last;
        if let Some(left) = self.left.take() {
            // What stays is no part of the log and is removed when the store is opened.
            let _ = self.vfs.remove(&file_name(left));
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(crate) fn sync_groups(&mut self) -> Result<(), SyncError> {
        if !self.active.flights.is_empty() {
            return Err(SyncError::Begun);
        }
        if !self.active.unsynced() {
            return Ok(());
        }
        let Some(file) = &self.active.file else {
            return Err(SyncError::Sync(io::ErrorKind::NotFound));
        };
        let synced = file.sync_data().and_then(|()| {
            if self.named {
                Ok(())
            } else {
                self.vfs.sync_dir()
            }
        });
        if let Err(error) = synced {
            self.give_up();
            return Err(sync_error(&error));
        }
        self.named = true;
        self.active.synced(self.active.written_end());
        self.durable = self.written;
        self.removable.extend(self.dead.drain(..));
        self.do_chore();
        Ok(())
    }

    /// Ends a segment that is full. That takes a while, so it comes before the next batch and not behind
    /// the sync that somebody waits for.
    pub(crate) fn seal_if_full(&mut self) {
        let full = self.active.durable >= self.options.segment_bytes
            || self.active.puts >= u64::from(self.options.segment_puts);
        if full && !self.active.waits() {
            self.seal();
        }
    }

    /// Whether the next segment will soon be needed.
    pub(crate) fn is_half_full(&self) -> bool {
        self.active.durable >= self.options.segment_bytes / 2
            || self.active.puts >= u64::from(self.options.segment_puts / 2)
    }

    /// Whether so much is written that it has to be synced.
    pub(crate) fn must_sync(&self) -> bool {
        self.active.written >= UNSYNCED_MAX
            || self.active.next_offset() >= self.options.segment_bytes
            || self.active.puts >= u64::from(self.options.segment_puts)
    }

    fn create_file(&mut self) -> Result<(), SyncError> {
        if self.active.file.is_some() {
            return Ok(());
        }
        let file = self.make_file(self.active.id)?;
        self.named = false;
        if self.active.previous == 0 {
            // Nothing else knows the salt, without which a torn beginning cannot be told from a
            // damaged one.
            let header = self.active.buffer.get(..HEADER_LEN as usize);
            file.write_at(0, header.unwrap_or_default())
                .map_err(|error| write_error(&error))?;
            if let Err(error) = file.sync_data().and_then(|()| self.vfs.sync_dir()) {
                self.active.file = Some(file);
                self.give_up();
                return Err(sync_error(&error));
            }
            self.named = true;
            let active = &mut self.active;
            active.durable = HEADER_LEN;
            active.buffer.drain(..HEADER_LEN as usize);
            active.open = active.open.map(|open| open - HEADER_LEN as usize);
        }
        self.active.file = Some(file);
        Ok(())
    }

    fn make_file(&mut self, id: u32) -> Result<V::File, SyncError> {
        let name = file_name(id);
        // Nothing but zeros may stand in the first file of all.
        if self.active.previous > 0
            && let Some(file) = self.take_spare(&name)
        {
            return Ok(file);
        }
        let file = self.vfs.create(&name);
        let made = file.and_then(|file| {
            file.preallocate(self.options.segment_bytes.into())?;
            Ok(file)
        });
        made.map_err(|error| {
            // What stays is made anew by the next try, or removed when the store is opened.
            let _ = self.vfs.remove(&name);
            write_error(&error)
        })
    }

    /// Leaves a file whose sync failed. What it made durable stays, the rest goes to another one; until
    /// that is written, the file holds it for those who come after a crash of the program.
    pub(crate) fn give_up(&mut self) {
        let old = self.active.id;
        for flight in mem::take(&mut self.active.flights) {
            // What says that they may go is written again.
            self.dead.extend(flight.dead);
        }
        let keeps = self.active.begun();
        if !keeps {
            self.left = Some(old);
        }
        let durable = self.active.durable;
        let (previous, previous_end, position) = if keeps {
            (old, durable, self.durable)
        } else {
            let active = &self.active;
            (active.previous, active.previous_end, active.position)
        };
        let mut next = Active::new(old + 1, self.salt, previous, previous_end, position);
        let skip = if keeps { 0 } else { HEADER_LEN as usize };
        let groups = self.active.buffer.get(skip..).unwrap_or_default();
        next.buffer.extend_from_slice(groups);
        let shift = HEADER_LEN - skip as u32;
        let moved = |offset: u32| offset - durable + shift;
        let open = self.active.open.map(|open| open + shift as usize);
        next.open = reframe(&mut next.buffer, self.salt, next.id, open);
        self.written = self.durable;
        self.reread(&mut next);

        let queues = next.touched.clone();
        let mut stayed: Map<u64, Vec<Item>> = Map::default();
        for id in self.active.queues() {
            let Some(queue) = self.index.queues.get_mut(&id) else {
                continue;
            };
            stayed.insert(id, queue.split(old, durable, next.id));
            for item in &mut queue.items {
                item.offset = moved(item.offset);
            }
            let runs = queue.runs.iter().filter(|run| run.segment == next.id);
            next.live += runs.map(|run| u64::from(run.count)).sum::<u64>();
        }
        for id in queues {
            if let Some(queue) = self.index.queues.get_mut(&id) {
                queue.touched = next.id;
            }
        }
        for name in &next.keys {
            if let Some(key) = self.index.keys.get_mut(name)
                && key.segment == old
                && key.offset >= durable
            {
                key.segment = next.id;
                key.offset = moved(key.offset);
                next.live += 1;
            }
        }
        let mut blobs = Map::default();
        self.index.blobs.active.retain(|id, blob| {
            let stays = blob.offset < durable;
            if !stays {
                let offset = moved(blob.offset);
                blobs.insert(*id, ActiveBlob::new(offset, blob.state(), blob.copied()));
            }
            stays
        });
        next.live += blobs.len() as u64;
        let mut active = mem::replace(&mut self.active, next);
        active.live = active.live.saturating_sub(self.active.live);
        active.touched = stayed.keys().copied().collect();
        if keeps {
            self.gather(active, &stayed, false);
        }
        self.index.blobs.active = blobs;
    }

    /// Takes what the records of the buffer say into what is known of the segment.
    fn reread(&mut self, next: &mut Active<V::File>) {
        let (old, buffer) = (self.active.id, mem::take(&mut next.buffer));
        let end = buffer.len() as u32;
        records(&buffer, HEADER_LEN, end, |decoded, _| {
            match decoded.record {
                Record::Blob { .. } => next.puts += 1,
                Record::Release { id } => next.released.push(id),
                Record::Entry { queue, .. } => {
                    next.puts += 1;
                    next.touched.push(queue);
                }
                Record::Advance { queue, .. } | Record::Queue { queue, .. } => {
                    next.touched.push(queue);
                    if let Some(queue) = self.index.queues.get_mut(&queue)
                        && queue.begun == old
                        && queue.first > 0
                    {
                        queue.begun = next.id;
                        next.live += 1;
                    }
                }
                Record::DropQueue { queue } => {
                    next.dropped.insert(queue);
                }
                Record::PutKey { key, .. } => {
                    next.puts += 1;
                    next.keys.insert(own(key));
                }
                Record::DeleteKey { key } => {
                    next.keys.insert(own(key));
                }
                Record::End => {}
                Record::Trim { segment } => next.trim = next.trim.max(segment),
            }
        });
        next.buffer = buffer;
    }

    /// Completes the active segment, all of which is durable, and begins another one.
    pub(crate) fn seal(&mut self) {
        let (id, end) = (self.active.id, self.active.durable);
        let next = Active::new(id + 1, self.salt, id, end, self.durable);
        let active = mem::replace(&mut self.active, next);
        self.named = false;
        self.gather(active, &Map::default(), true);
    }

    /// Keeps what lives in a segment, for a footer where `store` is set. The items of queues are
    /// those of `stayed`, or those of the queues themselves.
    fn gather(&mut self, mut active: Active<V::File>, stayed: &Map<u64, Vec<Item>>, store: bool) {
        let id = active.id;
        let queues = active.queues();
        let mut footer = Footer {
            released: mem::take(&mut active.released),
            trim: active.trim,
            position: self.durable.0,
            records: active.puts,
            ..Footer::default()
        };
        let mut items = Vec::new();
        for name in queues {
            let reset = active.dropped.contains(&name);
            let mut said = QueueSummary {
                reset,
                ..QueueSummary::default()
            };
            if let Some(queue) = self.index.queues.get_mut(&name) {
                said.exists = true;
                said.first = if queue.begun == id { queue.first } else { 0 };
                said.end = queue.end;
                let own = mem::take(&mut queue.items);
                let all = stayed.get(&name).unwrap_or(&own);
                let mut first = queue.first;
                for run in &mut queue.runs {
                    if run.segment == id {
                        let range = run.index as usize..(run.index + run.count) as usize;
                        run.index = (items.len() / ITEM_LEN) as u32;
                        said.place(first, run.count);
                        for item in all.get(range).into_iter().flatten() {
                            encode_item(*item, &mut items);
                        }
                    }
                    first += u64::from(run.count);
                }
                if stayed.contains_key(&name) {
                    queue.items = own;
                }
            } else if !reset {
                continue;
            }
            footer.queues.push((name, said));
        }
        for name in mem::take(&mut active.keys) {
            match self.index.keys.get(&name) {
                None => footer.keys.push((name, None)),
                Some(key) if key.segment == id => footer.keys.push((name, Some(key.offset))),
                Some(_) => {}
            }
        }
        footer.keys.sort_unstable();
        let mut blobs: Vec<_> = mem::take(&mut self.index.blobs.active)
            .into_iter()
            .collect();
        blobs.sort_unstable_by_key(|(id, _)| *id);
        let offsets = blobs.iter().flat_map(|(_, blob)| blob.offset.to_le_bytes());
        let offsets: Vec<u8> = offsets.collect();
        footer.blobs = blobs
            .iter()
            .map(|(id, blob)| (*id, blob.state() & HELD != 0))
            .collect();
        let states = blobs.iter().map(|(id, blob)| (*id, blob.state()));
        self.index.blobs.seal(id, states);
        let puts = footer.puts();
        let place = Place {
            salt: self.salt,
            segment: id,
        };
        let bytes = footer.encode(place, active.durable, &items, &offsets);
        let Some(file) = active.file else { return };
        let segment = Segment {
            file,
            failed: !store,
            end: active.durable,
            tables: Tables::Memory(bytes.slice(..items.len() + offsets.len())),
            items: items.len() as u32,
            puts,
            live: active.live,
        };
        self.segments.insert(id, segment);
        if store {
            self.footers.push_back(Pending::new(id, bytes));
        }
    }

    /// Writes about `budget` bytes of footers, and says how many it did write. Without its footer a segment
    /// is read through when the store is opened.
    pub(crate) fn write_footers(&mut self, budget: usize) -> usize {
        let mut left = budget;
        while left > 0
            && let Some(pending) = self.footers.front_mut()
        {
            let rest = pending.bytes.get(pending.written..).unwrap_or_default();
            let piece = rest.get(..left.min(rest.len())).unwrap_or_default();
            let Some(segment) = self.segments.get_mut(&pending.segment) else {
                self.footers.pop_front();
                continue;
            };
            let start = u64::from(segment.end) + pending.written as u64;
            let mut result = segment.file.write_at(start, piece);
            left -= piece.len();
            pending.written += piece.len();
            let ended = pending.written == pending.bytes.len();
            if ended && result.is_ok() {
                let size = u64::from(segment.end) + pending.bytes.len() as u64;
                result = segment.file.set_size(size);
                if result.is_ok() {
                    // What was read around the end of the data was not the footer.
                    self.cache.borrow_mut().forget(pending.segment);
                    segment.tables = Tables::File(segment.end);
                }
            }
            if ended || result.is_err() {
                self.footers.pop_front();
            }
        }
        budget - left
    }
}
