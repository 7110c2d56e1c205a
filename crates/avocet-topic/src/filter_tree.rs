//! Many Topic Filters, asked with one Topic Name: the subscriptions of a server.
//!
//! Filters without a wildcard lie in one hash table of whole names. Filters with wildcards lie in
//! one hash table per [`Shape`], keyed by the levels that are no wildcard. A name hashes its levels
//! once and then probes each table whose shape can apply (tuple space search).

mod arena;
mod hashing;
mod ids;
mod index;
mod levels;
mod search;
mod tables;

use alloc::vec::Vec;
use core::fmt;
use core::mem;

use self::arena::Arena;
use self::hashing::{Hashes, finish};
use self::ids::Ids;
use self::index::{Key, Slot};
use self::tables::Tables;
use crate::TopicFilter;
use crate::shape::{Shape, shape};

/// Why a filter was not added to a [`FilterTree`]; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TreeFull {
    /// Its shape is a new one, [`FilterTreeLimits::shapes_max`] shapes are in use, and
    /// [`FilterTreeLimits::overflow_max`] filters lie outside of them.
    #[error("too many shapes of wildcard filters")]
    Shapes,
    /// All filters together would take 4 GiB of text.
    #[error("too many bytes of filters")]
    Bytes,
}

/// What bounds the cost of one match, however the filters were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FilterTreeLimits {
    /// Shapes of wildcard filters with a hash table of their own; 1,024 by default.
    pub shapes_max: u16,
    /// Filters of further shapes, or with wildcards and more than 128 levels; each of them is
    /// compared with every name. 1,024 by default.
    pub overflow_max: u16,
}

impl Default for FilterTreeLimits {
    fn default() -> Self {
        Self {
            shapes_max: 1_024,
            overflow_max: 1_024,
        }
    }
}

impl FilterTreeLimits {
    /// The most probes and comparisons that one match may take: one for all filters without a
    /// wildcard, one per shape, one per overflowing filter.
    #[must_use]
    pub fn match_cost_max(&self) -> usize {
        1 + usize::from(self.shapes_max) + usize::from(self.overflow_max)
    }
}

/// A set of Topic Filters with a value for each, that finds all filters matching a Topic Name.
///
/// A match takes at most [`FilterTreeLimits::match_cost_max`] steps, each of which looks at no
/// more bytes than the name has. A step is one probe of a hash table, seeded against chosen
/// collisions ([`with_seed`](Self::with_seed)). Filters beyond the limits are refused with
/// [`TreeFull`]; filters of shapes in use are not.
///
/// Adding and removing a filter takes constant time on average; now and then a table grows or
/// shrinks, or the texts are compacted, which takes time linear in the number of filters.
#[derive(Clone)]
pub struct FilterTree<V> {
    limits: FilterTreeLimits,
    hashes: Hashes,
    texts: Arena,
    ids: Ids,
    tables: Tables<V>,
    /// In the order they were added. While one of them has a complete shape, no shape is free.
    overflow: Vec<Slot<V>>,
    len: usize,
    generation: u64,
}

/// Names a filter of a [`FilterTree`] in four bytes, from when it is added until it is removed.
/// Then the number goes to another filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(u32);

impl<V> Default for FilterTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> FilterTree<V> {
    /// An empty tree with the default limits and a fixed seed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(FilterTreeLimits::default())
    }

    /// An empty tree with other limits and a fixed seed.
    #[must_use]
    pub fn with_limits(limits: FilterTreeLimits) -> Self {
        Self {
            limits,
            hashes: Hashes::new(0),
            texts: Arena::default(),
            ids: Ids::default(),
            tables: Tables::new(),
            overflow: Vec::new(),
            len: 0,
            generation: 0,
        }
    }

    /// The same tree, empty, with another seed: a server takes one that its clients cannot know.
    ///
    /// Results and their order do not depend on it.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self {
            hashes: Hashes::new(seed),
            ..Self::with_limits(self.limits)
        }
    }

    /// Filters in the tree.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Shapes of wildcard filters in use, at most [`FilterTreeLimits::shapes_max`].
    #[must_use]
    pub fn shapes_len(&self) -> usize {
        self.tables.shapes_len()
    }

    /// Filters outside of the shapes, at most [`FilterTreeLimits::overflow_max`].
    #[must_use]
    pub fn overflow_len(&self) -> usize {
        self.overflow.len()
    }

    /// Bytes on the heap, texts included, without what the values themselves hold there.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let overflow = self.overflow.capacity() * size_of::<Slot<V>>();
        let tables = self.tables.allocated_bytes() + overflow;
        self.texts.allocated_bytes() + self.ids.allocated_bytes() + tables
    }

    /// A number that differs after anything that can change what a match yields: adding, removing,
    /// and borrowing a value mutably. Caches of matches compare it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value of a filter.
    #[must_use]
    pub fn get(&self, filter: TopicFilter<'_>) -> Option<&V> {
        self.slot(filter)?.value.as_ref()
    }

    /// The value of a filter, to change it.
    #[must_use]
    pub fn get_mut(&mut self, filter: TopicFilter<'_>) -> Option<&mut V> {
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let is = is(&self.texts, filter);
        let slot = match self.tables.get_mut(shape) {
            Some(table) => table.get_mut(table.position(hash, is)?)?,
            None => self.overflow.iter_mut().find(|slot| is(slot.key))?,
        };
        self.generation += 1;
        slot.value.as_mut()
    }

    /// What a filter is called while it is in the tree.
    #[must_use]
    pub fn id(&self, filter: TopicFilter<'_>) -> Option<FilterId> {
        Some(FilterId(self.slot(filter)?.id))
    }

    /// The filter that is called so.
    #[must_use]
    pub fn filter(&self, id: FilterId) -> Option<TopicFilter<'_>> {
        let text = self.texts.text(self.ids.text(id.0)?);
        Some(TopicFilter::trusted(text))
    }

    fn slot(&self, filter: TopicFilter<'_>) -> Option<&Slot<V>> {
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let is = is(&self.texts, filter);
        match self.tables.get(shape) {
            Some(table) => table.get(table.position(hash, is)?),
            None => self.overflow.iter().find(|slot| is(slot.key)),
        }
    }

    /// Adds a filter, or replaces and returns its value.
    pub fn insert(&mut self, filter: TopicFilter<'_>, value: V) -> Result<Option<V>, TreeFull> {
        let mut value = Some(value);
        let found = self.get_or_insert_with(filter, || value.take().expect("asked once"))?;
        Ok(value.map(|value| mem::replace(found, value)))
    }

    /// The value of a filter, which is added if it is not there.
    pub fn get_or_insert_with(
        &mut self,
        filter: TopicFilter<'_>,
        make: impl FnOnce() -> V,
    ) -> Result<&mut V, TreeFull> {
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let room = self.texts.has_room(filter.as_str());
        let is = is(&self.texts, filter);
        if self.tables.get(shape).is_none()
            && (!shape.is_complete() || self.shapes_len() >= usize::from(self.limits.shapes_max))
        {
            let found = self.overflow.iter().position(|slot| is(slot.key));
            if found.is_none() && self.overflow.len() >= usize::from(self.limits.overflow_max) {
                return Err(TreeFull::Shapes);
            }
            if found.is_none() && !room {
                return Err(TreeFull::Bytes);
            }
            let at = found.unwrap_or(self.overflow.len());
            if found.is_none() {
                let slot = self.new_slot(filter, hash, make());
                self.overflow.push(slot);
            }
            self.generation += 1;
            let slot = self.overflow.get_mut(at);
            return slot
                .and_then(|slot| slot.value.as_mut())
                .ok_or(TreeFull::Shapes);
        }
        let table = self.tables.get(shape);
        let found = table.and_then(|table| table.position(hash, is));
        if found.is_none() && !room {
            return Err(TreeFull::Bytes);
        }
        let at = found.unwrap_or_else(|| {
            let slot = self.new_slot(filter, hash, make());
            self.tables.get_or_add(shape).insert(slot)
        });
        self.generation += 1;
        let slot = self.tables.get_or_add(shape).get_mut(at);
        slot.and_then(|slot| slot.value.as_mut())
            .ok_or(TreeFull::Bytes)
    }

    /// What is put into a table for a filter that is in none.
    fn new_slot(&mut self, filter: TopicFilter<'_>, hash: u32, value: V) -> Slot<V> {
        let text = self.texts.push(filter.as_str());
        self.len += 1;
        Slot {
            key: Key { hash, text },
            id: self.ids.insert(text),
            value: Some(value),
        }
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: TopicFilter<'_>) -> Option<V> {
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let is = is(&self.texts, filter);
        let slot = match self.tables.get_mut(shape) {
            Some(table) => table.remove(table.position(hash, is)?)?,
            None => {
                let position = self.overflow.iter().position(|slot| is(slot.key))?;
                self.overflow.remove(position)
            }
        };
        if self.tables.remove_empty(shape) {
            self.promote_overflow();
        }
        self.generation += 1;
        self.len -= 1;
        self.ids.remove(slot.id);
        if self.texts.forget(filter.as_str()) {
            self.compact_texts();
        }
        slot.value
    }

    /// Gives a shape that has become free to the first overflowing filter that can use it, and to
    /// all filters of its shape.
    fn promote_overflow(&mut self) {
        let texts = &self.texts;
        let shape_of = |slot: &Slot<V>| shape(TopicFilter::trusted(texts.text(slot.key.text)));
        let mut shapes = self.overflow.iter().map(shape_of);
        let Some(freed) = shapes.find(|shape| shape.is_complete()) else {
            return;
        };
        let table = self.tables.get_or_add(freed);
        for slot in self.overflow.extract_if(.., |slot| shape_of(slot) == freed) {
            table.insert(slot);
        }
    }

    fn compact_texts(&mut self) {
        let mut compacted = self.texts.successor();
        for text in self.ids.texts_mut() {
            *text = compacted.push(self.texts.text(*text));
        }
        self.texts = compacted;
        for slot in self.tables.slots_mut().chain(&mut self.overflow) {
            slot.key.text = self.ids.text(slot.id).unwrap_or_default();
        }
    }

    /// All filters in the order of their bytes; takes a sort.
    pub fn iter(&self) -> impl Iterator<Item = (TopicFilter<'_>, &V)> {
        let filter = |slot: &Slot<V>| TopicFilter::trusted(self.texts.text(slot.key.text));
        let slots = self.tables.slots().chain(&self.overflow);
        let mut all: Vec<_> = slots
            .filter_map(|slot| Some((filter(slot), slot.value.as_ref()?)))
            .collect();
        all.sort_unstable_by_key(|&(filter, _)| filter);
        all.into_iter()
    }

    fn hash(&self, filter: TopicFilter<'_>, shape: Shape) -> u32 {
        if shape.is_exact() {
            return self.hashes.whole(filter.as_str());
        }
        let levels = filter
            .as_str()
            .as_bytes()
            .split(|&byte| byte == b'/')
            .enumerate();
        let sum = levels
            .filter(|&(_, level)| level != b"+" && level != b"#")
            .map(|(index, level)| self.hashes.level(index, level))
            .fold(0, u64::wrapping_add);
        finish(sum)
    }
}

/// Whether a key is that of a filter, if their hashes are the same.
fn is<'a>(texts: &'a Arena, filter: TopicFilter<'a>) -> impl Fn(Key) -> bool + Copy + 'a {
    move |key| texts.is(key.text, filter.as_str())
}

impl<V: fmt::Debug> fmt::Debug for FilterTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
