//! A hash table of filters: lines of memory that hold hashes, numbers and values of filters.
//!
//! A hash says in which line to begin, in proportion to the number of lines; what has no room
//! there lies in the lines behind it, in the order of their hashes. So a probe mostly reads one
//! line, also when it finds nothing. Tables are made of segments that grow and split one by
//! one, so that no filter waits for all of them to be moved (linear hashing).

use alloc::vec::Vec;
use core::hint::black_box;
use core::mem;

use super::hashing::HASH_MAX;

/// Filters of which a line holds hash and number.
const LINE: usize = 8;

/// Filters for which a table has one segment, on average.
const SEGMENT: usize = 4_096;

/// The hash of no filter, greater than all others.
const VACANT: u32 = HASH_MAX + 1;

/// A filter in a table.
pub(super) struct Entry<V> {
    pub(super) hash: u32,
    pub(super) id: u32,
    pub(super) value: V,
}

/// Hashes and numbers take one line of the cache; the values lie next to it.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Line<V> {
    /// Ascending; vacant ones come last.
    hashes: [u32; LINE],
    ids: [u32; LINE],
    values: [Option<V>; LINE],
}

impl<V> Line<V> {
    const EMPTY: Self = Self {
        hashes: [VACANT; LINE],
        ids: [0; LINE],
        values: [const { None }; LINE],
    };

    /// Whether a filter with a hash is here, and where the first one is.
    pub(super) fn first(&self, hash: u32) -> (bool, usize) {
        let less = self.hashes.iter().map(|&it| u32::from(it < hash));
        let place = less.sum::<u32>() as usize % LINE;
        (self.hashes.get(place) == Some(&hash), place)
    }

    /// Whether filters with a hash may lie behind this line, if it is not behind them.
    pub(super) const fn goes_on(&self, hash: u32) -> bool {
        self.hashes[LINE - 1] <= hash
    }

    /// The number of the filter at a place of this line.
    pub(super) fn id(&self, place: usize) -> u32 {
        self.ids.get(place).copied().unwrap_or_default()
    }

    pub(super) fn value(&self, place: usize) -> &Option<V> {
        self.values.get(place).unwrap_or(&None)
    }

    /// Reads the line, so that it is on its way when it is looked at.
    pub(super) fn fetch(&self) {
        black_box(self.hashes[0]);
    }

    fn len(&self) -> usize {
        self.hashes.iter().filter(|&&hash| hash != VACANT).count()
    }

    fn into_entries(self) -> impl Iterator<Item = Entry<V>> {
        let entries = self.hashes.into_iter().zip(self.ids).zip(self.values);
        entries.filter_map(|((hash, id), value)| {
            let value = value?;
            Some(Entry { hash, id, value })
        })
    }

    /// Where a filter with a hash goes: behind those of the same hash.
    fn place(&self, hash: u32) -> usize {
        self.hashes.iter().filter(|&&it| it <= hash).count()
    }

    /// Puts a filter in its place, and returns the greatest one if there are too many.
    fn insert(&mut self, entry: Entry<V>) -> Option<Entry<V>> {
        let place = self.place(entry.hash);
        let mut moved = (entry.hash, entry.id, Some(entry.value));
        for (hash, id, value) in self.places_mut().skip(place) {
            mem::swap(hash, &mut moved.0);
            mem::swap(id, &mut moved.1);
            mem::swap(value, &mut moved.2);
            if moved.0 == VACANT {
                break;
            }
        }
        let (hash, id, value) = (moved.0, moved.1, moved.2?);
        Some(Entry { hash, id, value })
    }

    fn remove(&mut self, place: usize) -> Option<Entry<V>> {
        let mut moved = (VACANT, 0, None);
        for (hash, id, value) in self.places_mut().skip(place).rev() {
            mem::swap(hash, &mut moved.0);
            mem::swap(id, &mut moved.1);
            mem::swap(value, &mut moved.2);
        }
        let (hash, id, value) = (moved.0, moved.1, moved.2?);
        Some(Entry { hash, id, value })
    }

    fn places_mut(
        &mut self,
    ) -> impl DoubleEndedIterator<Item = (&mut u32, &mut u32, &mut Option<V>)> + ExactSizeIterator
    {
        let places = self.hashes.iter_mut().zip(&mut self.ids);
        let places = places.zip(&mut self.values);
        places.map(|((hash, id), value)| (hash, id, value))
    }
}

/// Where a filter lies, until one is added or removed.
#[derive(Clone, Copy)]
pub(super) struct Place {
    segment: usize,
    line: usize,
    /// In the line.
    at: usize,
}

#[derive(Clone, Debug)]
struct Segment<V> {
    /// Lines behind the last home have what found no room before. All lines between a filter and
    /// its home are full.
    lines: Vec<Line<V>>,
    /// Lines that are the home of some hash.
    homes: u32,
    len: u32,
}

impl<V> Segment<V> {
    /// An empty segment with lines for so many filters and some more.
    fn with_room(len: usize) -> Self {
        let homes = len / 5 + 1;
        let mut lines = Vec::with_capacity(homes + 1);
        lines.resize_with(homes, || Line::EMPTY);
        Self {
            lines,
            homes: homes as u32,
            len: 0,
        }
    }

    /// Adds a filter behind all others; the last one came to lie in line `last`.
    fn push(&mut self, last: &mut usize, entry: Entry<V>) {
        *last = self.home(entry.hash).max(*last);
        self.len += 1;
        let mut moved = Some(entry);
        while let Some(entry) = moved {
            let line = self.line_or_add(*last);
            moved = line.and_then(|line| line.insert(entry));
            *last += usize::from(moved.is_some());
        }
    }

    fn line_or_add(&mut self, line: usize) -> Option<&mut Line<V>> {
        if line == self.lines.len() {
            self.lines.reserve_exact(1);
            self.lines.push(Line::EMPTY);
        }
        self.lines.get_mut(line)
    }

    fn into_entries(self) -> impl Iterator<Item = Entry<V>> {
        self.lines.into_iter().flat_map(Line::into_entries)
    }

    fn resize(&mut self, len: usize) {
        let old = mem::replace(self, Self::with_room(len));
        let mut last = 0;
        for entry in old.into_entries() {
            self.push(&mut last, entry);
        }
    }

    /// The line in which a hash begins.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * u64::from(self.homes)) >> 32) as usize
    }

    /// Line and place in it of the filter with this hash for which `is` says so.
    fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(hash);
        while let Some(line) = self.lines.get(at) {
            let (is_there, mut place) = line.first(hash);
            while is_there && line.hashes.get(place) == Some(&hash) {
                if is(line.id(place)) {
                    return Some((at, place));
                }
                place += 1;
            }
            if !line.goes_on(hash) {
                break;
            }
            at += 1;
        }
        None
    }

    /// Adds a filter; in which line and at which place.
    fn insert(&mut self, entry: Entry<V>) -> (usize, usize) {
        if self.len as usize >= self.homes as usize * LINE * 4 / 5 {
            self.resize(self.len as usize);
        }
        let mut at = self.home(entry.hash);
        let mut found = (at, LINE);
        let mut moved = Some(entry);
        while let Some(entry) = moved {
            if let Some(line) = self.line_or_add(at) {
                if found.1 == LINE {
                    found = (at, line.place(entry.hash));
                }
                moved = line.insert(entry);
            } else {
                moved = None;
            }
            at += 1;
        }
        self.len += 1;
        found
    }

    fn remove(&mut self, line: usize, at: usize) -> Option<V> {
        let mut hole = line;
        let line = self.lines.get_mut(hole)?;
        let was_full = line.len() == LINE;
        let removed = line.remove(at)?;
        // What is at home stays there.
        while was_full
            && let Some(next) = self.lines.get(hole + 1).map(|line| line.hashes[0])
            && next != VACANT
            && self.home(next) <= hole
            && let Some([line, behind]) = self.lines.get_mut(hole..hole + 2)
            && let Some(next) = behind.remove(0)
        {
            line.insert(next);
            hole += 1;
        }
        self.len -= 1;
        if self.len < self.homes {
            self.resize(self.len as usize);
        }
        Some(removed.value)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Index<V> {
    /// The last bits of a hash name its segment: as many as `mask` has if there is one that is
    /// called so, or one bit less.
    segments: Vec<Segment<V>>,
    mask: u32,
    len: usize,
}

impl<V> Index<V> {
    pub(super) const fn new() -> Self {
        Self {
            segments: Vec::new(),
            mask: 0,
            len: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let lines: usize = self.segments.iter().map(|it| it.lines.capacity()).sum();
        lines * size_of::<Line<V>>() + self.segments.capacity() * size_of::<Segment<V>>()
    }

    /// The numbers and values of all filters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        let lines = self.segments.iter().flat_map(|segment| &segment.lines);
        let entries = lines.flat_map(|line| line.ids.iter().zip(&line.values));
        entries.filter_map(|(id, value)| Some((*id, value.as_ref()?)))
    }

    /// The line in which filters with a hash begin.
    pub(super) fn line(&self, hash: u32) -> Option<&Line<V>> {
        let segment = self.segments.get(self.segment(hash))?;
        segment.lines.get(segment.home(hash))
    }

    /// The number and the value of the filter with this hash for which `is` says so.
    pub(super) fn find(&self, hash: u32, is: impl FnMut(u32) -> bool) -> Option<(u32, &V)> {
        let segment = self.segments.get(self.segment(hash))?;
        let (line, at) = segment.find(hash, is)?;
        let line = segment.lines.get(line)?;
        Some((line.id(at), line.value(at).as_ref()?))
    }

    /// Where the filter with this hash lies for which `is` says so.
    pub(super) fn place(&self, hash: u32, is: impl FnMut(u32) -> bool) -> Option<Place> {
        let segment = self.segment(hash);
        let (line, at) = self.segments.get(segment)?.find(hash, is)?;
        Some(Place { segment, line, at })
    }

    /// The value of the filter at a place, to change it.
    pub(super) fn value_mut(&mut self, place: Place) -> Option<&mut V> {
        let segment = self.segments.get_mut(place.segment)?;
        let line = segment.lines.get_mut(place.line)?;
        line.values.get_mut(place.at)?.as_mut()
    }

    /// Adds a filter that is not there, and says where it lies.
    pub(super) fn insert(&mut self, entry: Entry<V>) -> Place {
        if self.len >= self.segments.len() * SEGMENT {
            self.split();
        }
        let segment = self.segment(entry.hash);
        let added = self.segments.get_mut(segment).map(|it| it.insert(entry));
        self.len += usize::from(added.is_some());
        let (line, at) = added.unwrap_or_default();
        Place { segment, line, at }
    }

    /// Takes out the filter with this hash and number.
    pub(super) fn remove(&mut self, hash: u32, id: u32) -> Option<V> {
        let at = self.segment(hash);
        let segment = self.segments.get_mut(at)?;
        let (line, at) = segment.find(hash, |it| it == id)?;
        let removed = segment.remove(line, at);
        self.len -= 1;
        if self.segments.len() > 1 && self.len < self.segments.len() * SEGMENT / 4 {
            self.join();
        }
        removed
    }

    fn segment(&self, hash: u32) -> usize {
        let at = (hash & self.mask) as usize;
        if at < self.segments.len() {
            at
        } else {
            at & (self.mask as usize >> 1)
        }
    }

    /// Adds a segment: half of the one whose turn it is goes there.
    fn split(&mut self) {
        let new = self.segments.len() as u32;
        self.mask = (new + 1).next_power_of_two() - 1;
        let mut added = Segment::with_room(0);
        let divided = self.segments.get_mut((new & (self.mask >> 1)) as usize);
        if let Some(divided) = divided {
            let half = divided.len as usize / 2;
            added = Segment::with_room(half);
            let old = mem::replace(divided, Segment::with_room(half));
            let (mut last, mut last_added) = (0, 0);
            for entry in old.into_entries() {
                if entry.hash & self.mask == new {
                    added.push(&mut last_added, entry);
                } else {
                    divided.push(&mut last, entry);
                }
            }
        }
        self.segments.push(added);
    }

    /// Takes the last segment back.
    fn join(&mut self) {
        let Some(last) = self.segments.pop() else {
            return;
        };
        let into = self.segments.len() & (self.mask as usize >> 1);
        self.mask = (self.segments.len() as u32).next_power_of_two() - 1;
        if let Some(segment) = self.segments.get_mut(into) {
            segment.resize(segment.len as usize + last.len as usize);
            for entry in last.into_entries() {
                segment.insert(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    /// Filters come and go like entries of a map, also with few hashes for many of them.
    #[test]
    fn an_index_is_a_map_of_hashes() {
        for spread in [u32::MAX, 1 << 31, 7, 1] {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            let mut random = 1_u64;
            let ops = if spread > 7 { 60_000 } else { 2_000_u32 };
            for n in 0..ops {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let bits = (random >> 32) as u32;
                // Phases of growing and of shrinking; the last homes are used most.
                let grows = (n / (ops / 10)) % 2 == 0;
                if grows != bits.is_multiple_of(4) {
                    let hash = HASH_MAX - (bits / 8) % spread;
                    let place = index.insert(Entry {
                        hash,
                        id: n,
                        value: n,
                    });
                    assert_eq!(index.value_mut(place), Some(&mut n.clone()));
                    model.insert(n, hash);
                } else if let Some((&id, &hash)) = model.range(bits % (n + 1)..).next() {
                    assert_eq!(index.find(hash, |it| it == id), Some((id, &id)));
                    index.remove(hash, id);
                    assert_eq!(index.find(hash, |it| it == id), None);
                    model.remove(&id);
                }
                if n % (ops / 20) == 0 {
                    assert_eq!(index.iter().count(), model.len());
                    for (&id, &hash) in &model {
                        assert_eq!(index.find(hash, |it| it == id), Some((id, &id)));
                    }
                }
            }
        }
    }

    /// One segment at a time is moved, whatever the number of filters.
    #[test]
    fn segments_stay_small() {
        let mut index = Index::new();
        let hash = |n: u32| (n.wrapping_mul(0x9e37_79b9) ^ (n << 7)).min(HASH_MAX);
        for n in 0..100_000 {
            let (hash, id) = (hash(n), n);
            index.insert(Entry {
                hash,
                id,
                value: (),
            });
        }
        assert!(index.segments.len() >= 24);
        let lens = || index.segments.iter().map(|segment| segment.len as usize);
        assert!(lens().all(|len| len < 3 * SEGMENT), "{:?}", lens().max());
        for n in 0..100_000 {
            index.remove(hash(n), n);
        }
        assert!(index.is_empty());
        assert!(
            index.allocated_bytes() < 10_000,
            "{}",
            index.allocated_bytes()
        );
    }
}
