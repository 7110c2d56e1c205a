//! Giving space back: what lives in the oldest segment is copied to the end of the log.
//!
//! Only the oldest segment is ever dropped, so what says that something is gone is never dropped
//! before what it speaks of.

use crate::ReadError;
use crate::index::{ActiveBlob, BlobPlace, HELD, Run};
use crate::log::{LogStore, Segment};
use crate::record::{GROUP_LEN, HEADER_LEN, Record};
use crate::vfs::{Vfs, VfsFile};

/// How far the copying of a segment has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cleaning {
    segment: u32,
    at: u32,
    group_end: u32,
}

/// What a record costs that needs no copy, beside its bytes.
const RECORD_COST: usize = 16;

impl<V: Vfs> LogStore<V> {
    pub(crate) fn reclaim(&mut self, budget: usize) -> Result<bool, ReadError> {
        let start = self.active.next_offset();
        let done = self.clean(budget);
        if self.active.next_offset() > start {
            let position = self.last.0;
            self.note(Record::End { position });
        }
        done.map(|()| self.cleaning.is_some() || self.worth_cleaning())
    }

    fn clean(&mut self, budget: usize) -> Result<(), ReadError> {
        let mut left = budget;
        while left > 0 {
            let Some(mut cleaning) = self.cleaning else {
                let oldest = self.segments.keys().next().copied();
                let Some(segment) = oldest.filter(|_| self.worth_cleaning()) else {
                    return Ok(());
                };
                self.cleaning = Some(Cleaning {
                    segment,
                    at: HEADER_LEN,
                    group_end: HEADER_LEN,
                });
                continue;
            };
            let Some(segment) = self.segments.get(&cleaning.segment) else {
                self.cleaning = None;
                continue;
            };
            if segment.live == 0 || cleaning.at >= segment.end {
                self.drop_segment(cleaning.segment);
                self.cleaning = None;
                left = left.saturating_sub(RECORD_COST);
                continue;
            }
            let cost = self.step(&mut cleaning)?;
            self.cleaning = Some(cleaning);
            left = left.saturating_sub(cost);
        }
        Ok(())
    }

    /// Whether dropping the oldest segment costs nothing, or there is too much garbage.
    fn worth_cleaning(&self) -> bool {
        let Some(oldest) = self.segments.values().next() else {
            return false;
        };
        if oldest.live == 0 {
            return true;
        }
        let (mut total, mut living) = (0, 0);
        for segment in self.segments.values() {
            let size = u64::from(segment.end);
            total += size;
            living += (u128::from(size) * u128::from(segment.live)
                / u128::from(segment.puts.max(1))) as u64;
        }
        total > living.saturating_mul(2) + self.options.garbage_bytes
    }

    /// Copies the next record if it lives, and says what it cost.
    fn step(&mut self, cleaning: &mut Cleaning) -> Result<usize, ReadError> {
        if cleaning.at == cleaning.group_end {
            let len = self.read_group_len(cleaning.segment, cleaning.at)?;
            cleaning.at += GROUP_LEN as u32;
            cleaning.group_end = cleaning.at + len;
        }
        let frame = self.read_frame(cleaning.segment, cleaning.at)?;
        let (record, len) = Record::decode(&frame).ok_or(ReadError::Corrupt)?;
        let copied = self.copy(cleaning.segment, cleaning.at, record)?;
        cleaning.at += len as u32;
        Ok(RECORD_COST + len + if copied { len } else { 0 })
    }

    fn read_group_len(&self, segment: u32, at: u32) -> Result<u32, ReadError> {
        let known = self.segments.get(&segment).ok_or(ReadError::Corrupt)?;
        let mut head = [0; GROUP_LEN];
        known
            .file
            .read_at(at.into(), &mut head)
            .map_err(|error| crate::log::read_error(&error))?;
        let len = crate::record::read_group(&head, self.salt, segment, at);
        Ok(len.ok_or(ReadError::Corrupt)? as u32)
    }

    fn copy(&mut self, segment: u32, offset: u32, record: Record<'_>) -> Result<bool, ReadError> {
        match record {
            Record::Blob { id, bytes, .. } => {
                let Some((place, state)) = self.index.blobs.find(id) else {
                    return Ok(false);
                };
                let lives = matches!(place, BlobPlace::Sealed { segment: of, .. } if of == segment)
                    && self.blob_offset(place)? == (segment, offset);
                if lives {
                    self.copy_blob(segment, id, bytes, state);
                }
                Ok(lives)
            }
            Record::Entry {
                queue, sequence, ..
            } => {
                let run = self.queue_of(queue).and_then(|known| known.find(sequence));
                let run = run.filter(|run| run.segment == segment);
                let item = match run {
                    Some(run) => self.items(queue, run.until(sequence + 1))?.pop(),
                    None => None,
                };
                let lives = item.is_some_and(|item| item.offset == offset);
                if lives {
                    self.copy_entry(segment, queue, sequence, record);
                }
                self.copy_queue(segment, queue);
                Ok(lives)
            }
            Record::Advance { queue, .. } | Record::Queue { queue, .. } => {
                self.copy_queue(segment, queue);
                Ok(false)
            }
            Record::PutKey { key, .. } => {
                self.active.open_group();
                let place = (self.active.id, self.active.next_offset());
                let known = self.index.keys.get_mut(key);
                let lives =
                    known.filter(|known| (known.segment, known.offset) == (segment, offset));
                let Some(known) = lives else { return Ok(false) };
                (known.segment, known.offset) = place;
                self.count(segment, -1);
                self.active.live += 1;
                self.note(record);
                Ok(true)
            }
            Record::Release { .. }
            | Record::DropQueue { .. }
            | Record::DeleteKey { .. }
            | Record::End { .. }
            | Record::Trim { .. } => Ok(false),
        }
    }

    fn copy_blob(&mut self, segment: u32, id: u64, bytes: &[u8], state: u32) {
        self.active.open_group();
        let offset = self.active.next_offset();
        let held = state & HELD != 0;
        self.note(Record::Blob {
            id,
            held,
            copied: true,
            bytes,
        });
        if let Some((_, old)) = self.index.blobs.sealed_state(id) {
            *old = 0;
        }
        let blob = ActiveBlob { offset, state };
        self.index.blobs.active.insert(id, blob);
        self.count(segment, -1);
        self.active.live += 1;
    }

    fn copy_entry(&mut self, segment: u32, queue: u64, sequence: u64, record: Record<'_>) {
        self.note(record);
        let items = self.active.summary.items.get(&queue).map_or(1, Vec::len);
        let run = Run {
            first: sequence,
            count: 1,
            segment: self.active.id,
            index: (items - 1) as u32,
        };
        if let Some(queue) = self.index.queues.get_mut(&queue) {
            queue.place(run);
        }
        self.count(segment, -1);
        self.active.live += 1;
    }

    /// Says again where a queue begins, if the segment is the last one to know.
    fn copy_queue(&mut self, segment: u32, id: u64) {
        let active = self.active.id;
        let Some(queue) = self.index.queues.get_mut(&id) else {
            return;
        };
        if queue.begun != segment {
            return;
        }
        queue.begun = active;
        let (first, end) = (queue.first, queue.end);
        self.count(segment, -1);
        self.active.live += 1;
        self.note(Record::Queue {
            queue: id,
            first,
            end,
        });
    }

    fn drop_segment(&mut self, segment: u32) {
        let next = self.segments.keys().find(|id| **id > segment).copied();
        let next = next.unwrap_or(self.active.id);
        self.note(Record::Trim { segment: next });
        let dropped: Option<Segment<_>> = self.segments.remove(&segment);
        debug_assert!(dropped.is_some_and(|dropped| dropped.live == 0));
        self.index.blobs.forget(segment);
        self.cache.borrow_mut().forget(segment);
        self.dead.push(segment);
    }

    /// Puts a record into the buffer.
    fn note(&mut self, record: Record<'_>) {
        self.active.open_group();
        let start = self.active.buffer.len();
        record.encode(&mut self.active.buffer);
        self.summarize(start);
    }
}
