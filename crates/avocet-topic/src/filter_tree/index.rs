//! A hash table of filters: one array of slots in the order of their hashes.
//!
//! A hash says where to begin, in proportion to the length of the array; what has no room there
//! lies behind it (linear probing). So a probe mostly reads one line of memory, also when it finds
//! nothing, and growing reads and writes memory in order.

use alloc::vec::Vec;
use core::mem;

/// One filter in a table, or none.
#[derive(Clone, Debug)]
pub(super) struct Slot<V> {
    pub(super) key: Key,
    /// The number that names it.
    pub(super) id: u32,
    /// Set if there is a filter.
    pub(super) value: Option<V>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) hash: u32,
    /// Where the text lies in the arena.
    pub(super) text: u32,
}

/// The key of no filter: its hash is greater than all others.
const VACANT: Key = Key {
    hash: u32::MAX,
    text: 0,
};

/// Room for slots that come to lie behind the last home.
const BEHIND: usize = 4;

impl<V> Slot<V> {
    const EMPTY: Self = Self {
        key: VACANT,
        id: 0,
        value: None,
    };

    fn is_vacant(&self) -> bool {
        self.value.is_none()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Index<V> {
    /// Ascending by hash, but for vacant slots; no vacant slot lies between a filter and its home.
    slots: Vec<Slot<V>>,
    /// Slots that are the home of some hash; those behind them have the rest of the last ones.
    homes: u32,
    len: u32,
}

impl<V> Index<V> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            homes: 0,
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<V>>()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot<V>> {
        self.slots.iter().filter(|slot| !slot.is_vacant())
    }

    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot<V>> {
        self.slots.iter_mut().filter(|slot| !slot.is_vacant())
    }

    /// Where a hash belongs.
    pub(super) fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * u64::from(self.homes)) >> 32) as usize
    }

    /// The key at a position, that of no filter behind the last one.
    pub(super) fn key(&self, position: usize) -> Key {
        self.slots.get(position).map_or(VACANT, |slot| slot.key)
    }

    pub(super) fn get(&self, position: usize) -> Option<&Slot<V>> {
        self.slots.get(position)
    }

    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut Slot<V>> {
        self.slots.get_mut(position)
    }

    /// The first position from this one on, which is not behind it, whose hash is no less.
    pub(super) fn seek(&self, hash: u32, mut position: usize, mut key: Key) -> (usize, Key) {
        while key.hash < hash {
            position += 1;
            key = self.key(position);
        }
        (position, key)
    }

    /// The position of the filter with a hash for which `is` says so.
    pub(super) fn position(&self, hash: u32, mut is: impl FnMut(Key) -> bool) -> Option<usize> {
        let home = self.home(hash);
        let (mut position, mut key) = self.seek(hash, home, self.key(home));
        while key.hash == hash {
            if is(key) {
                return Some(position);
            }
            position += 1;
            key = self.key(position);
        }
        None
    }

    /// Adds a filter that is not there, and returns its position.
    pub(super) fn insert(&mut self, slot: Slot<V>) -> usize {
        if self.len + 1 > self.homes / 5 * 4 {
            self.resize(self.homes + self.homes / 4 + 5);
        }
        let home = self.home(slot.key.hash);
        let (position, _) = self.seek(slot.key.hash, home, self.key(home));
        self.len += 1;
        let mut moved = slot;
        for place in self.slots.iter_mut().skip(position) {
            moved = mem::replace(place, moved);
            if moved.is_vacant() {
                return position;
            }
        }
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(BEHIND);
        }
        self.slots.push(moved);
        position
    }

    /// Takes out the filter at a position.
    pub(super) fn remove(&mut self, position: usize) -> Option<Slot<V>> {
        let removed = mem::replace(self.slots.get_mut(position)?, Slot::EMPTY);
        let mut hole = position;
        // What is at home stays there.
        while let Some(next) = self.slots.get(hole + 1)
            && !next.is_vacant()
            && self.home(next.key.hash) <= hole
        {
            self.slots.swap(hole, hole + 1);
            hole += 1;
        }
        self.len -= 1;
        if self.len < self.homes / 8 {
            self.resize(self.len * 2 + 5);
        }
        Some(removed)
    }

    fn resize(&mut self, homes: u32) {
        let old = mem::take(&mut self.slots);
        self.homes = homes;
        let mut slots = Vec::with_capacity(homes as usize + BEHIND);
        for slot in old.into_iter().filter(|slot| !slot.is_vacant()) {
            let home = self.home(slot.key.hash);
            if slots.len() < home {
                slots.resize_with(home, || Slot::EMPTY);
            }
            slots.push(slot);
        }
        if slots.len() < homes as usize {
            slots.resize_with(homes as usize, || Slot::EMPTY);
        }
        self.slots = slots;
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
            for n in 0..20_000_u32 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let bits = (random >> 32) as u32;
                // Phases of growing and of shrinking; the last homes are used most.
                let grows = (n / 2_000) % 2 == 0;
                if grows != bits.is_multiple_of(4) {
                    let hash = u32::MAX - 1 - (bits / 8) % spread;
                    let key = Key { hash, text: n };
                    let (id, value) = (n, Some(()));
                    index.insert(Slot { key, id, value });
                    model.insert(n, hash);
                } else if let Some((&text, &hash)) = model.range(bits % (n + 1)..).next() {
                    let at = index.position(hash, |key| key.text == text).unwrap();
                    assert_eq!(index.remove(at).unwrap().id, text);
                    model.remove(&text);
                }
                if n % 500 == 0 {
                    assert_eq!(index.slots().count(), model.len());
                    for (&text, &hash) in &model {
                        assert!(index.position(hash, |key| key.text == text).is_some());
                    }
                }
            }
        }
    }
}
