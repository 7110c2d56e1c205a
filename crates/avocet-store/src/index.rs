//! What is kept in memory of everything that is stored.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::Map;

/// The bit of a blob's state that says it is held; the others count references.
pub(crate) const HELD: u32 = 1 << 31;

/// Neighbouring entries of a queue whose items are neighbours in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) segment: u32,
    /// The place of the first item: among all items of a sealed segment, among those of the queue
    /// in the active one.
    pub(crate) index: u32,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    fn continues(&self, before: &Self) -> bool {
        self.segment == before.segment
            && before.end() == self.first
            && before.index.checked_add(before.count) == Some(self.index)
    }

    /// The part of the run that begins with `first`.
    pub(crate) fn from(self, first: u64) -> Self {
        let skip = first.saturating_sub(self.first).min(self.count.into()) as u32;
        Self {
            first: self.first + u64::from(skip),
            count: self.count - skip,
            index: self.index + skip,
            ..self
        }
    }

    /// The part of the run that ends before `end`.
    pub(crate) fn until(self, end: u64) -> Self {
        let count = end.saturating_sub(self.first).min(self.count.into()) as u32;
        Self { count, ..self }
    }
}

/// A queue: where its entries are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// The last segment that says where the queue begins; none has to when it begins with 0. Where
    /// it ends is said by its last entry, or is where it begins.
    pub(crate) begun: u32,
    /// In the order of their sequences, without overlap.
    pub(crate) runs: VecDeque<Run>,
}

impl Queue {
    /// Puts a run in place of what was known of its sequences.
    pub(crate) fn place(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        let at = self.runs.partition_point(|old| old.end() <= run.first);
        let mut pieces = Vec::new();
        while let Some(old) = self.runs.get(at).copied()
            && old.first < run.end()
        {
            self.runs.remove(at);
            pieces.push(old.until(run.first));
            pieces.push(old.from(run.end()));
        }
        pieces.retain(|piece| piece.count > 0);
        let mut at = at;
        for piece in pieces {
            if piece.first < run.first {
                self.runs.insert(at, piece);
                at += 1;
            } else {
                self.runs.insert(at, piece);
            }
        }
        match at.checked_sub(1).and_then(|at| self.runs.get_mut(at)) {
            Some(before) if run.continues(before) => before.count += run.count,
            _ => self.runs.insert(at, run),
        }
    }

    /// Forgets entries below `first`.
    pub(crate) fn advance(&mut self, first: u64) {
        self.first = self.first.max(first);
        while let Some(run) = self.runs.front_mut() {
            if run.end() > first {
                *run = run.from(first);
                break;
            }
            self.runs.pop_front();
        }
    }

    /// The runs that hold sequences between `from` and `to`, cut to those.
    pub(crate) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = Run> {
        let at = self.runs.partition_point(|run| run.end() <= from);
        let runs = self.runs.range(at..).copied();
        runs.take_while(move |run| run.first < to)
            .map(move |run| run.from(from).until(to))
    }

    /// The run that holds a sequence, beginning with it.
    pub(crate) fn find(&self, sequence: u64) -> Option<Run> {
        self.between(sequence, sequence + 1)
            .find(|run| run.first == sequence)
    }
}

/// A key and what is stored under it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// `None` when it is read from the disk.
    pub(crate) value: Option<Bytes>,
    pub(crate) blob: Option<u64>,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// A blob of the active segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveBlob {
    pub(crate) offset: u32,
    pub(crate) state: u32,
}

/// Neighbouring ids whose blobs have neighbouring ordinals in one segment.
#[derive(Clone, Copy, Debug)]
struct IdRun {
    len: u32,
    segment: u32,
    ordinal: u32,
}

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobPlace {
    Active { offset: u32 },
    Sealed { segment: u32, ordinal: u32 },
}

/// The blobs: four bytes each once their segment is sealed, as far as their ids are neighbours.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    pub(crate) active: Map<u64, ActiveBlob>,
    runs: BTreeMap<u64, IdRun>,
    /// References and hold by segment and ordinal; 0 is dead.
    states: BTreeMap<u32, Vec<u32>>,
}

impl Blobs {
    fn sealed(&self, id: u64) -> Option<(u32, u32)> {
        let (first, run) = self.runs.range(..=id).next_back()?;
        let skip = id - first;
        (skip < u64::from(run.len)).then(|| (run.segment, run.ordinal + skip as u32))
    }

    /// Where a blob is, and its state; 0 if it is not there.
    pub(crate) fn find(&self, id: u64) -> Option<(BlobPlace, u32)> {
        if let Some(blob) = self.active.get(&id) {
            let place = BlobPlace::Active {
                offset: blob.offset,
            };
            return Some((place, blob.state));
        }
        let (segment, ordinal) = self.sealed(id)?;
        let state = *self.states.get(&segment)?.get(ordinal as usize)?;
        (state > 0).then_some((BlobPlace::Sealed { segment, ordinal }, state))
    }

    pub(crate) fn state(&self, id: u64) -> u32 {
        self.find(id).map_or(0, |(_, state)| state)
    }

    /// Changes the state of a sealed blob, alive or not.
    pub(crate) fn sealed_state(&mut self, id: u64) -> Option<(u32, &mut u32)> {
        let (segment, ordinal) = self.sealed(id)?;
        let state = self.states.get_mut(&segment)?.get_mut(ordinal as usize)?;
        Some((segment, state))
    }

    /// Makes the blobs of a segment known, in the order of their ids.
    pub(crate) fn seal(&mut self, segment: u32, blobs: impl Iterator<Item = (u64, u32)>) {
        let mut states = Vec::new();
        let mut open: Option<(u64, IdRun)> = None;
        for (id, state) in blobs {
            let ordinal = states.len() as u32;
            states.push(state);
            match &mut open {
                Some((first, run)) if first.checked_add(run.len.into()) == Some(id) => run.len += 1,
                _ => {
                    let run = IdRun {
                        len: 1,
                        segment,
                        ordinal,
                    };
                    if let Some((first, run)) = open.replace((id, run)) {
                        self.place(first, run);
                    }
                }
            }
        }
        if let Some((first, run)) = open {
            self.place(first, run);
        }
        states.shrink_to_fit();
        self.states.insert(segment, states);
    }

    fn place(&mut self, first: u64, run: IdRun) {
        // Ids are counted in 128 bits where the end of a run may be beyond the last of them.
        let end = u128::from(first) + u128::from(run.len);
        while let Some((old_first, old)) = self
            .runs
            .range(..=first + u64::from(run.len - 1))
            .next_back()
            .map(|(first, run)| (*first, *run))
            && u128::from(old_first) + u128::from(old.len) > u128::from(first)
        {
            self.runs.remove(&old_first);
            let old_end = u128::from(old_first) + u128::from(old.len);
            if old_first < first {
                let len = (first - old_first) as u32;
                self.runs.insert(old_first, IdRun { len, ..old });
            }
            if old_end > end {
                let skip = (end - u128::from(old_first)) as u32;
                let rest = IdRun {
                    len: old.len - skip,
                    ordinal: old.ordinal + skip,
                    ..old
                };
                self.runs.insert(end as u64, rest);
            }
        }
        self.runs.insert(first, run);
    }

    /// Forgets a segment that holds nothing that lives.
    pub(crate) fn forget(&mut self, segment: u32) {
        self.runs.retain(|_, run| run.segment != segment);
        self.states.remove(&segment);
    }

    /// Forgets the dead after a recovery, and counts the living by segment.
    pub(crate) fn living(&self) -> BTreeMap<u32, u64> {
        let mut living = BTreeMap::new();
        for run in self.runs.values() {
            let states = self.states.get(&run.segment);
            let states = states.and_then(|states| {
                states.get(run.ordinal as usize..(run.ordinal + run.len) as usize)
            });
            let alive = states.into_iter().flatten().filter(|state| **state > 0);
            *living.entry(run.segment).or_default() += alive.count() as u64;
        }
        living
    }

    pub(crate) fn len(&self) -> u64 {
        self.active.len() as u64 + self.living().values().sum::<u64>()
    }
}

/// Everything that is known without reading.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) blobs: Blobs,
    pub(crate) queues: Map<u64, Queue>,
    pub(crate) keys: BTreeMap<Bytes, Key>,
}
