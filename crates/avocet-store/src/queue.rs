//! Where the entries of a queue are.

use std::collections::VecDeque;

/// Where an entry of a queue is in its segment, and what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// 0 unless it refers to one.
    pub(crate) blob: u64,
    pub(crate) offset: u32,
    pub(crate) refers: bool,
}

impl Item {
    pub(crate) fn new(offset: u32, blob: Option<u64>) -> Self {
        Self {
            blob: blob.unwrap_or_default(),
            offset,
            refers: blob.is_some(),
        }
    }

    pub(crate) fn blob(&self) -> Option<u64> {
        self.refers.then_some(self.blob)
    }
}

/// Neighbouring entries of a queue whose items are neighbours in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) segment: u32,
    /// The place of the first item: among all items of a sealed segment, among those of the queue
    /// in the active one.
    pub(crate) index: u32,
    pub(crate) count: u32,
}

impl Run {
    fn continues(&self, before: &Self) -> bool {
        self.segment == before.segment && before.index.checked_add(before.count) == Some(self.index)
    }

    /// The run without its first entries.
    pub(crate) fn skip(self, count: u32) -> Self {
        let skip = count.min(self.count);
        Self {
            index: self.index + skip,
            count: self.count - skip,
            ..self
        }
    }

    /// The first entries of the run.
    pub(crate) fn take(self, count: u32) -> Self {
        Self {
            count: self.count.min(count),
            ..self
        }
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
    /// The last segment that says anything of it.
    pub(crate) touched: u32,
    /// The entries from the first to the last.
    pub(crate) runs: VecDeque<Run>,
    /// Those of the active segment, in the order of the log.
    pub(crate) items: Vec<Item>,
}

impl Queue {
    /// Puts an entry behind the others.
    pub(crate) fn append(&mut self, segment: u32, item: Item) {
        let run = Run {
            segment,
            index: self.items.len() as u32,
            count: 1,
        };
        self.items.push(item);
        self.end += 1;
        match self.runs.back_mut() {
            Some(last) if run.continues(last) => last.count += 1,
            _ => self.runs.push_back(run),
        }
    }

    /// Takes the last entry away again.
    pub(crate) fn unappend(&mut self) {
        self.items.pop();
        self.end -= 1;
        if let Some(last) = self.runs.back_mut() {
            last.count -= 1;
            if last.count == 0 {
                self.runs.pop_back();
            }
        }
    }

    /// Cuts the entries below `to` off, which is not beyond the end, and gives their runs to `cut`.
    pub(crate) fn cut(&mut self, to: u64, mut cut: impl FnMut(Run)) {
        let mut left = to.saturating_sub(self.first);
        self.first = self.first.max(to);
        while left > 0
            && let Some(run) = self.runs.front_mut()
        {
            if u64::from(run.count) > left {
                cut(run.take(left as u32));
                *run = run.skip(left as u32);
                return;
            }
            left -= u64::from(run.count);
            cut(*run);
            self.runs.pop_front();
        }
    }

    /// Puts a run that was cut off back.
    pub(crate) fn uncut(&mut self, run: Run) {
        match self.runs.front_mut() {
            Some(first) if first.continues(&run) => {
                first.index = run.index;
                first.count += run.count;
            }
            _ => self.runs.push_front(run),
        }
        self.first -= u64::from(run.count);
    }

    /// The runs from `from` on with the sequences they begin with.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = (u64, Run)> {
        let mut next = self.first;
        self.runs.iter().filter_map(move |run| {
            let first = next;
            next += u64::from(run.count);
            let skip = from.saturating_sub(first).min(run.count.into()) as u32;
            (skip < run.count).then(|| (first + u64::from(skip), run.skip(skip)))
        })
    }

    /// The first run in a segment, with the sequence it begins with.
    pub(crate) fn find(&self, segment: u32) -> Option<(u64, Run)> {
        self.from(self.first)
            .find(|(_, run)| run.segment == segment)
    }

    /// Notes that the first entry of the first run in segment `from` is in `segment` now.
    pub(crate) fn relocate(&mut self, from: u32, segment: u32, item: Item) {
        let Some(at) = self.runs.iter().position(|run| run.segment == from) else {
            return;
        };
        let moved = Run {
            segment,
            index: self.items.len() as u32,
            count: 1,
        };
        self.items.push(item);
        if let Some(run) = self.runs.get_mut(at) {
            *run = run.skip(1);
            if run.count == 0 {
                self.runs.remove(at);
            }
        }
        let before = at.checked_sub(1).and_then(|at| self.runs.get_mut(at));
        match before {
            Some(before) if moved.continues(before) => before.count += 1,
            _ => self.runs.insert(at, moved),
        }
    }

    /// Ends segment `old` in front of `durable`: what is behind it is in segment `new`. Returns the
    /// items that stay.
    pub(crate) fn split(&mut self, old: u32, durable: u32, new: u32) -> Vec<Item> {
        let split = self.items.partition_point(|item| item.offset < durable);
        let moved = self.items.split_off(split);
        let split = split as u32;
        let mut runs = VecDeque::with_capacity(self.runs.len() + 1);
        for run in self.runs.drain(..) {
            if run.segment != old {
                runs.push_back(run);
                continue;
            }
            let stays = run.take(split.saturating_sub(run.index));
            let moves = run.skip(stays.count);
            if stays.count > 0 {
                runs.push_back(stays);
            }
            if moves.count > 0 {
                let index = moves.index - split;
                runs.push_back(Run {
                    segment: new,
                    index,
                    ..moves
                });
            }
        }
        self.runs = runs;
        std::mem::replace(&mut self.items, moved)
    }
}
