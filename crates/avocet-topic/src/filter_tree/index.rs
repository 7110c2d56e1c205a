//! A hash table of filters: lines of memory that hold hashes, numbers and values of filters.
//!
//! A hash says in which line to begin, in proportion to the number of lines; what has no room
//! there lies in the lines behind it, in the order of their hashes. So a probe mostly reads one
//! line, also when it finds nothing. Tables are made of segments that grow and split one by
//! one, so that no filter waits for all of them to be moved (linear hashing).

use alloc::vec::Vec;
use core::hint::black_box;
use core::mem;
use core::num::NonZeroU32;

use super::hashing::{Check, Hash, ORDER_MAX};

/// Filters in a line.
const LINE: usize = 6;

/// Filters for which a table has one segment, on average.
const SEGMENT: usize = 4_096;

/// The place in the order of no filter, behind all others.
const VACANT: u64 = ORDER_MAX + 1;

/// A filter in a table.
pub(super) struct Entry<V> {
    pub(super) hash: Hash,
    pub(super) id: u32,
    pub(super) value: V,
}

/// All that a match looks at of six filters: two lines of the cache next to each other, if values
/// take four bytes.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
pub(super) struct Line<V> {
    /// Ascending; vacant ones come last.
    orders: [u64; LINE],
    rests: [u8; LINE],
    ids: [u32; LINE],
    values: [Option<(NonZeroU32, V)>; LINE],
}

/// What a line says about a hash.
pub(super) enum Answer<'t, V> {
    /// The first filter with this hash.
    Found(&'t V),
    /// It may lie behind this line, or behind another filter that begins as it does.
    Perhaps,
    Missing,
}

impl<V> Line<V> {
    const EMPTY: Self = Self {
        orders: [VACANT; LINE],
        rests: [0; LINE],
        ids: [0; LINE],
        values: [const { None }; LINE],
    };

    /// What begins here of the filters with a hash.
    #[inline(always)]
    pub(super) fn answer(&self, hash: &Hash) -> Answer<'_, V> {
        let place = self.first(hash.order());
        match self.orders.get(place) {
            Some(order) if *order != hash.order() => Answer::Missing,
            Some(_) => match self.value(place, hash.check()) {
                Some(value) => Answer::Found(value),
                None => Answer::Perhaps,
            },
            None => Answer::Perhaps,
        }
    }

    /// How many filters come before those of a place in the order.
    #[inline(always)]
    fn first(&self, order: u64) -> usize {
        let before = self.orders.iter().map(|&it| usize::from(it < order));
        before.sum()
    }

    /// The value at a place if the filter there has this hash; its place in the order is known
    /// to be the same.
    #[inline(always)]
    fn value(&self, place: usize, check: Check) -> Option<&V> {
        let rest = *self.rests.get(place)?;
        let (seal, value) = self.values.get(place)?.as_ref()?;
        let is_same = (rest == check.rest()) & (*seal == check.seal());
        is_same.then_some(value)
    }

    /// Reads the line, so that it is on its way when it is looked at.
    #[inline(always)]
    pub(super) fn fetch(&self) {
        black_box(self.orders[0]);
    }

    /// Reads the values too: at once, and not when it is known which one is asked for.
    #[inline(always)]
    pub(super) fn fetch_values(&self) {
        black_box(self.values[LINE - 1].is_some());
    }

    fn len(&self) -> usize {
        self.orders.iter().filter(|&&it| it != VACANT).count()
    }

    /// Where a filter of a place in the order goes: behind those of the same place.
    fn place(&self, order: u64) -> usize {
        self.orders.iter().filter(|&&it| it <= order).count()
    }

    /// Puts a filter where there is none.
    #[inline(always)]
    fn put(&mut self, place: usize, Entry { hash, id, value }: Entry<V>) -> Option<()> {
        *self.orders.get_mut(place)? = hash.order();
        *self.rests.get_mut(place)? = hash.check().rest();
        *self.ids.get_mut(place)? = id;
        *self.values.get_mut(place)? = Some((hash.check().seal(), value));
        Some(())
    }

    /// Takes a filter from where it lies; the line has a hole there then.
    #[inline(always)]
    fn take(&mut self, place: usize) -> Option<Entry<V>> {
        let order = mem::replace(self.orders.get_mut(place)?, VACANT);
        let (seal, value) = self.values.get_mut(place)?.take()?;
        Some(Entry {
            hash: Hash::new(order, Check::new(*self.rests.get(place)?, seal)),
            id: *self.ids.get(place)?,
            value,
        })
    }

    /// Puts a filter at a place, those from there on one place further, and returns the last one if
    /// there are too many.
    fn insert(&mut self, place: usize, entry: Entry<V>) -> Option<Entry<V>> {
        let last = self.take(LINE - 1);
        let mut at = LINE - 1;
        while at > place {
            if let Some(moved) = self.take(at - 1) {
                self.put(at, moved);
            }
            at -= 1;
        }
        self.put(place, entry);
        last
    }

    fn remove(&mut self, place: usize) -> Option<Entry<V>> {
        let removed = self.take(place);
        for at in place + 1..LINE {
            let Some(moved) = self.take(at) else {
                break;
            };
            self.put(at - 1, moved);
        }
        removed
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

/// The place behind a filter.
#[derive(Default)]
struct End {
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
        let homes = len * 10 / 33 + 1;
        let mut lines = Vec::with_capacity(homes + 1);
        lines.resize_with(homes, || Line::EMPTY);
        Self {
            lines,
            homes: homes as u32,
            len: 0,
        }
    }

    /// Adds a filter behind all others, of which the last one lies before `end`.
    #[inline(always)]
    fn push(&mut self, end: &mut End, entry: Entry<V>) {
        let home = self.home(entry.hash.order());
        if home > end.line {
            *end = End { line: home, at: 0 };
        } else if end.at == LINE {
            *end = End {
                line: end.line + 1,
                at: 0,
            };
        }
        self.len += 1;
        if let Some(line) = self.line_or_add(end.line) {
            line.put(end.at, entry);
        }
        end.at += 1;
    }

    fn line_or_add(&mut self, line: usize) -> Option<&mut Line<V>> {
        if line == self.lines.len() {
            self.lines.reserve_exact(1);
            self.lines.push(Line::EMPTY);
        }
        self.lines.get_mut(line)
    }

    /// Takes all filters out, in order.
    #[inline(always)]
    fn drain(mut self, mut f: impl FnMut(Entry<V>)) {
        for line in &mut self.lines {
            for at in 0..LINE {
                let Some(entry) = line.take(at) else {
                    break;
                };
                f(entry);
            }
        }
    }

    fn resize(&mut self, len: usize) {
        let old = mem::replace(self, Self::with_room(len));
        let mut end = End::default();
        old.drain(|entry| self.push(&mut end, entry));
    }

    /// The line in which filters of a place in the order begin.
    #[inline(always)]
    fn home(&self, order: u64) -> usize {
        ((u128::from(order) * u128::from(self.homes)) >> 64) as usize
    }

    /// Line and place in it of the filter with this hash for whose number `is` says so.
    fn find(&self, hash: &Hash, mut is: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let order = hash.order();
        let mut at = self.home(order);
        while let Some(line) = self.lines.get(at) {
            let mut place = line.first(order);
            while line.orders.get(place) == Some(&order) {
                if line.value(place, hash.check()).is_some() && is(*line.ids.get(place)?) {
                    return Some((at, place));
                }
                place += 1;
            }
            if place < LINE {
                break;
            }
            at += 1;
        }
        None
    }

    /// Adds a filter; in which line and at which place.
    fn insert(&mut self, entry: Entry<V>) -> (usize, usize) {
        if self.len as usize >= self.homes as usize * LINE * 7 / 10 {
            self.resize(self.len as usize);
        }
        let mut at = self.home(entry.hash.order());
        let mut found = (at, LINE);
        let mut moved = Some(entry);
        while let Some(entry) = moved {
            let Some(line) = self.line_or_add(at) else {
                break;
            };
            let place = line.place(entry.hash.order());
            if place < LINE {
                if found.1 == LINE {
                    found = (at, place);
                }
                moved = line.insert(place, entry);
            } else {
                moved = Some(entry);
            }
            at += 1;
        }
        self.len += 1;
        found
    }

    fn remove(&mut self, line: usize, at: usize) -> Option<Entry<V>> {
        let mut hole = line;
        let line = self.lines.get_mut(hole)?;
        let was_full = line.len() == LINE;
        let removed = line.remove(at)?;
        // What is at home stays there.
        while was_full
            && let Some(next) = self.lines.get(hole + 1).map(|line| line.orders[0])
            && next != VACANT
            && self.home(next) <= hole
            && let Some([line, behind]) = self.lines.get_mut(hole..hole + 2)
            && let Some(next) = behind.remove(0)
        {
            line.put(LINE - 1, next);
            hole += 1;
        }
        self.len -= 1;
        if self.len < self.homes {
            self.resize(self.len as usize);
        }
        Some(removed)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Index<V> {
    /// The last of the [`bits`] of a place in the order name its segment: as many as `mask` has if there is one that is
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
        entries.filter_map(|(id, value)| Some((*id, &value.as_ref()?.1)))
    }

    /// The line in which filters with a hash begin.
    #[inline(always)]
    pub(super) fn line(&self, hash: &Hash) -> Option<&Line<V>> {
        let order = hash.order();
        let segment = self.segments.get(self.segment(order))?;
        segment.lines.get(segment.home(order))
    }

    /// The number and the value of the filter with this hash for whose number `is` says so.
    pub(super) fn find(&self, hash: &Hash, is: impl FnMut(u32) -> bool) -> Option<(u32, &V)> {
        let segment = self.segments.get(self.segment(hash.order()))?;
        let (line, at) = segment.find(hash, is)?;
        let line = segment.lines.get(line)?;
        let (_, value) = line.values.get(at)?.as_ref()?;
        Some((*line.ids.get(at)?, value))
    }

    /// Where the filter with this hash lies for whose number `is` says so.
    pub(super) fn place(&self, hash: &Hash, is: impl FnMut(u32) -> bool) -> Option<Place> {
        let segment = self.segment(hash.order());
        let (line, at) = self.segments.get(segment)?.find(hash, is)?;
        Some(Place { segment, line, at })
    }

    /// The value of the filter at a place, to change it.
    pub(super) fn value_mut(&mut self, place: Place) -> Option<&mut V> {
        let segment = self.segments.get_mut(place.segment)?;
        let line = segment.lines.get_mut(place.line)?;
        let (_, value) = line.values.get_mut(place.at)?.as_mut()?;
        Some(value)
    }

    /// Adds a filter that is not there, and says where it lies.
    pub(super) fn insert(&mut self, entry: Entry<V>) -> Place {
        if self.len >= self.segments.len() * SEGMENT {
            self.split();
        }
        let segment = self.segment(entry.hash.order());
        let added = self.segments.get_mut(segment).map(|it| it.insert(entry));
        self.len += usize::from(added.is_some());
        let (line, at) = added.unwrap_or_default();
        Place { segment, line, at }
    }

    /// Takes out the filter at a place: its number and its value.
    pub(super) fn remove(&mut self, place: Place) -> Option<(u32, V)> {
        let segment = self.segments.get_mut(place.segment)?;
        let removed = segment.remove(place.line, place.at)?;
        self.len -= 1;
        if self.segments.len() > 1 && self.len < self.segments.len() * SEGMENT / 4 {
            self.join();
        }
        Some((removed.id, removed.value))
    }

    #[inline(always)]
    fn segment(&self, order: u64) -> usize {
        let at = (bits(order) & self.mask) as usize;
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
            let (mut end, mut end_added) = (End::default(), End::default());
            old.drain(|entry| {
                if bits(entry.hash.order()) & self.mask == new {
                    added.push(&mut end_added, entry);
                } else {
                    divided.push(&mut end, entry);
                }
            });
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
            last.drain(|entry| {
                segment.insert(entry);
            });
        }
    }
}

/// The bits of a place in the order that name segments.
#[inline(always)]
const fn bits(order: u64) -> u32 {
    (order >> 32) as u32
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    /// The hash of everything at one place in the order.
    fn hash(order: u64) -> Hash {
        Hash::new(order, Check::new(2, NonZeroU32::MIN))
    }

    fn insert(index: &mut Index<u32>, order: u64, id: u32) -> Place {
        index.insert(Entry {
            hash: hash(order),
            id,
            value: id,
        })
    }

    fn remove(index: &mut Index<u32>, order: u64, id: u32) {
        let place = index.place(&hash(order), |it| it == id).unwrap();
        assert_eq!(index.remove(place), Some((id, id)));
    }

    /// What differs from a filter in any part of its hash is another one.
    #[test]
    fn all_of_a_hash_tells_filters_apart() {
        let one = hash(7);
        let mut index = Index::new();
        insert(&mut index, 7, 1);
        let others = [
            Hash::new(8, Check::new(2, NonZeroU32::MIN)),
            Hash::new(7, Check::new(3, NonZeroU32::MIN)),
            Hash::new(7, Check::new(2, NonZeroU32::MAX)),
        ];
        for other in others {
            assert_eq!(index.find(&other, |_| true), None);
            let line = index.line(&other).unwrap();
            assert!(!matches!(line.answer(&other), Answer::Found(_)));
        }
        assert_eq!(index.find(&one, |_| true), Some((1, &1)));
        let line = index.line(&one).unwrap();
        assert!(matches!(line.answer(&one), Answer::Found(1)));
    }

    /// Filters come and go like entries of a map, also with few hashes for many of them.
    #[test]
    fn an_index_is_a_map_of_hashes() {
        for spread in [u64::MAX, 1 << 63, 7, 1] {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            let mut random = 1_u64;
            let ops = if spread > 7 { 60_000 } else { 2_000_u32 };
            for n in 0..ops {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let bits = (random >> 32) as u32;
                let more = u64::from(bits) << 32 | random & 0xffff_ffff;
                // Phases of growing and of shrinking; the last homes are used most.
                let grows = (n / (ops / 10)) % 2 == 0;
                if grows != bits.is_multiple_of(4) {
                    let order = ORDER_MAX - (more / 8) % spread;
                    let place = insert(&mut index, order, n);
                    assert_eq!(index.value_mut(place), Some(&mut n.clone()));
                    model.insert(n, order);
                } else if let Some((&id, &order)) = model.range(bits % (n + 1)..).next() {
                    remove(&mut index, order, id);
                    assert_eq!(index.find(&hash(order), |it| it == id), None);
                    model.remove(&id);
                }
                if n % (ops / 20) == 0 {
                    assert_eq!(index.iter().count(), model.len());
                    for (&id, &order) in &model {
                        assert_eq!(index.find(&hash(order), |it| it == id), Some((id, &id)));
                    }
                }
            }
        }
    }

    /// One segment at a time is moved, whatever the number of filters.
    #[test]
    fn segments_stay_small() {
        let mut index = Index::new();
        let order = |n: u32| u64::from(n.wrapping_mul(0x9e37_79b9) ^ (n << 7)) << 32;
        for n in 0..100_000 {
            insert(&mut index, order(n), n);
        }
        assert!(index.segments.len() >= 24);
        let lens = || index.segments.iter().map(|segment| segment.len as usize);
        assert!(lens().all(|len| len < 3 * SEGMENT), "{:?}", lens().max());
        for n in 0..100_000 {
            remove(&mut index, order(n), n);
        }
        assert!(index.is_empty());
        assert!(
            index.allocated_bytes() < 10_000,
            "{}",
            index.allocated_bytes()
        );
    }
}
