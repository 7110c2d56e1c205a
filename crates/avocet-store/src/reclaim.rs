//! Giving space back: what lives in the oldest segment is copied to the end of the log.
//!
//! Only the oldest segment is ever dropped, so what says that something is gone is never dropped
//! before what it speaks of.

use bytes::Bytes;

use crate::ReadError;
use crate::blobs::{ActiveBlob, BlobPlace, HELD};
use crate::chore::Dead;
use crate::log::LogStore;
use crate::queue::Item;
use crate::record::Record;
use crate::recovery::read_footer;
use crate::summary::Place;
use crate::vfs::Vfs;

/// What is left to copy of a segment, the last first.
#[derive(Debug)]
pub(crate) struct Cleaning {
    segment: u32,
    blobs: Vec<u64>,
    queues: Vec<u64>,
    keys: Vec<Bytes>,
}

/// What a thing costs that needs no copy, in bytes.
const COST: usize = 16;
/// So many segments are not worth any work, however short they are.
const FEW: u64 = 16;
/// What is read at once.
const ITEMS: u32 = 64;

impl<V: Vfs> LogStore<V> {
    pub(crate) fn reclaim(&mut self, budget: usize) -> Result<bool, ReadError> {
        self.do_chore();
        self.seal_if_full();
        let mut left = budget.saturating_sub(self.write_footers(budget));
        let done = self.forget_some(&mut left).and_then(|()| self.clean(left));
        self.active.finish_copies();
        done.map(|()| {
            let works = self.cleaning.is_some() || self.worth_cleaning();
            let waits = !self.forgotten.is_empty() || !self.footers.is_empty();
            works || waits || self.has_chore()
        })
    }

    /// Forgets what entries referred to that are gone.
    fn forget_some(&mut self, left: &mut usize) -> Result<(), ReadError> {
        while *left > 0
            && let Some(mut forgotten) = self.forgotten.pop_front()
        {
            if forgotten.blobs.is_empty()
                && let Some(run) = forgotten.runs.last_mut()
            {
                let part = run.skip(run.count.saturating_sub(ITEMS));
                match self.items(part) {
                    Ok(items) => forgotten.blobs.extend(items.iter().filter_map(Item::blob)),
                    Err(error) => {
                        self.forgotten.push_front(forgotten);
                        return Err(error);
                    }
                }
                self.count(part.segment, -i64::from(part.count));
                *left = left.saturating_sub(part.count as usize * COST);
                run.count -= part.count;
                if run.count == 0 {
                    forgotten.runs.pop();
                }
            }
            for _ in 0..ITEMS {
                if let Some(id) = forgotten.blobs.pop() {
                    self.forget_blob(id);
                    *left = left.saturating_sub(COST);
                }
            }
            if !forgotten.blobs.is_empty() || !forgotten.runs.is_empty() {
                self.forgotten.push_front(forgotten);
            }
        }
        Ok(())
    }

    fn forget_blob(&mut self, id: u64) {
        let referred = |state: u32| (state & !HELD > 0).then(|| state - 1);
        if let Some((place, 1)) = self.index.blobs.change(id, referred) {
            match place {
                BlobPlace::Active(_) => self.active.live -= 1,
                BlobPlace::Sealed { segment, .. } => self.count(segment, -1),
            }
        }
    }

    fn clean(&mut self, mut left: usize) -> Result<(), ReadError> {
        while left > 0 {
            let Some(mut cleaning) = self.cleaning.take() else {
                if !self.worth_cleaning() {
                    return Ok(());
                }
                let Some(oldest) = self.segments.keys().next().copied() else {
                    return Ok(());
                };
                self.cleaning = Some(self.begin(oldest));
                continue;
            };
            let lives = self.segments.get(&cleaning.segment).map(|s| s.live);
            if lives == Some(0) {
                self.drop_segment(cleaning.segment);
                left = left.saturating_sub(COST);
                continue;
            }
            let cost = self.step(&mut cleaning);
            let Ok(Some(cost)) = cost else {
                debug_assert!(cost.is_err(), "what is counted is known");
                if cost.is_err() {
                    self.cleaning = Some(cleaning);
                }
                return cost.map(|_| ());
            };
            self.cleaning = Some(cleaning);
            left = left.saturating_sub(cost);
        }
        Ok(())
    }

    /// Finds out what may live in a segment.
    fn begin(&self, segment: u32) -> Cleaning {
        let known = self.segments.get(&segment).filter(|known| known.live > 0);
        let Some(known) = known else {
            return Cleaning {
                segment,
                blobs: Vec::new(),
                queues: Vec::new(),
                keys: Vec::new(),
            };
        };
        let mut blobs: Vec<_> = self.index.blobs.of(segment).collect();
        blobs.reverse();
        let salt = self.salt;
        let footer = read_footer(&known.file, Place { salt, segment });
        let footer = footer.ok().flatten();
        let footer = footer.filter(|(trailer, _)| trailer.data_end == known.end);
        let (queues, keys) = match footer {
            Some((_, footer)) => {
                let queues = footer.queues.iter().map(|(id, _)| *id).collect();
                let keys = footer.keys.into_iter();
                (queues, keys.map(|(name, _)| name).collect())
            }
            None => {
                let queues = self.index.queues.iter();
                let queues = queues
                    .filter(|(_, queue)| queue.begun == segment || queue.find(segment).is_some());
                let keys = self.index.keys.iter();
                let keys = keys.filter(|(_, key)| key.segment == segment);
                (
                    queues.map(|(id, _)| *id).collect(),
                    keys.map(|(name, _)| name.clone()).collect(),
                )
            }
        };
        Cleaning {
            segment,
            blobs,
            queues,
            keys,
        }
    }

    /// Whether dropping the oldest segment costs nothing, there is too much garbage, or the segments are
    /// many for what they hold: each opening begins one or two.
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
        let many = FEW + 2 * total / u64::from(self.options.segment_bytes.max(1));
        self.segments.len() as u64 > many
            || total
                > living
                    .saturating_mul(2)
                    .saturating_add(self.options.garbage_bytes)
    }

    /// Copies something that lives, and says what it cost; `None` when there is nothing left.
    fn step(&mut self, cleaning: &mut Cleaning) -> Result<Option<usize>, ReadError> {
        let segment = cleaning.segment;
        if let Some(id) = cleaning.blobs.last().copied() {
            let cost = self.copy_blob(segment, id)?;
            cleaning.blobs.pop();
            return Ok(Some(cost));
        }
        if let Some(id) = cleaning.queues.last().copied() {
            let cost = self.copy_entries(segment, id)?;
            if cost == 0 {
                self.copy_queue(segment, id);
                cleaning.queues.pop();
            }
            return Ok(Some(cost + COST));
        }
        if let Some(name) = cleaning.keys.last() {
            let cost = self.copy_key(segment, name)?;
            cleaning.keys.pop();
            return Ok(Some(cost));
        }
        Ok(None)
    }

    fn copy_blob(&mut self, segment: u32, id: u64) -> Result<usize, ReadError> {
        let known = self.index.blobs.find(id);
        let Some((
            BlobPlace::Sealed {
                segment: of,
                ordinal,
            },
            state,
        )) = known
        else {
            return Ok(COST);
        };
        if of != segment {
            return Ok(COST);
        }
        let frame = self.read_frame(segment, self.offset_of(segment, ordinal)?)?;
        let decoded = Record::decode(&frame).ok_or(ReadError::Corrupt)?;
        let Record::Blob {
            id: read, bytes, ..
        } = decoded.record
        else {
            return Err(ReadError::Corrupt);
        };
        if read != id {
            return Err(ReadError::Corrupt);
        }
        self.active.open_group();
        let blob = ActiveBlob::new(self.active.next_offset(), state, true);
        self.active.push(&Record::Blob {
            id,
            held: state & HELD != 0,
            copied: true,
            bytes,
        });
        self.index.blobs.change(id, |_| Some(0));
        self.index.blobs.active.insert(id, blob);
        self.count(segment, -1);
        self.active.live += 1;
        self.active.puts += 1;
        Ok(COST + frame.len() * 2)
    }

    /// Copies some entries of a queue, and says what it cost; 0 if there are none.
    fn copy_entries(&mut self, segment: u32, id: u64) -> Result<usize, ReadError> {
        let run = self
            .index
            .queues
            .get(&id)
            .and_then(|queue| queue.find(segment));
        let Some((first, run)) = run else {
            return Ok(0);
        };
        let mut cost = 0;
        for (expected, item) in (first..).zip(self.items(run.take(ITEMS))?) {
            let frame = self.read_frame(segment, item.offset)?;
            let decoded = Record::decode(&frame).ok_or(ReadError::Corrupt)?;
            if !matches!(decoded.record, Record::Entry { queue, sequence, .. }
                if (queue, sequence) == (id, expected))
            {
                return Err(ReadError::Corrupt);
            }
            self.active.open_group();
            let copied = Item::new(self.active.next_offset(), item.blob());
            self.active.push(&decoded.record);
            if let Some(queue) = self.index.queues.get_mut(&id) {
                queue.relocate(segment, self.active.id, copied);
                self.active.touch(id, &mut queue.touched);
            }
            self.count(segment, -1);
            self.active.live += 1;
            self.active.puts += 1;
            cost += frame.len() * 2;
        }
        Ok(cost)
    }

    /// Says again where a queue begins, if the segment is the last one to know.
    fn copy_queue(&mut self, segment: u32, id: u64) {
        let Some(queue) = self.index.queues.get_mut(&id) else {
            return;
        };
        if queue.begun != segment || queue.first == 0 {
            return;
        }
        queue.begun = self.active.id;
        self.active.touch(id, &mut queue.touched);
        let (first, end) = (queue.first, queue.end);
        self.count(segment, -1);
        self.active.live += 1;
        self.active.open_group();
        self.active.push(&Record::Queue {
            queue: id,
            first,
            end,
        });
    }

    fn copy_key(&mut self, segment: u32, name: &Bytes) -> Result<usize, ReadError> {
        let known = self.index.keys.get(name);
        let Some(known) = known.filter(|known| known.segment == segment) else {
            return Ok(COST);
        };
        let frame = self.read_frame(segment, known.offset)?;
        let decoded = Record::decode(&frame).ok_or(ReadError::Corrupt)?;
        if !matches!(decoded.record, Record::PutKey { key, .. } if key == name) {
            return Err(ReadError::Corrupt);
        }
        self.active.open_group();
        let place = (self.active.id, self.active.next_offset());
        self.active.push(&decoded.record);
        self.active.touch_key(name);
        if let Some(known) = self.index.keys.get_mut(name) {
            (known.segment, known.offset) = place;
        }
        self.count(segment, -1);
        self.active.live += 1;
        self.active.puts += 1;
        Ok(COST + frame.len() * 2)
    }

    fn drop_segment(&mut self, segment: u32) {
        let next = self.segments.keys().find(|id| **id > segment).copied();
        let next = next.unwrap_or(self.active.id);
        self.active.open_group();
        self.active.push(&Record::Trim { segment: next });
        self.active.trim = self.active.trim.max(next);
        let file = self.segments.remove(&segment);
        let useful = file.is_some_and(|known| {
            !known.failed && u64::from(known.end) * 2 >= self.options.segment_bytes.into()
        });
        self.index.blobs.forget(segment);
        self.cache.borrow_mut().forget(segment);
        self.dead.push(Dead { segment, useful });
    }
}
