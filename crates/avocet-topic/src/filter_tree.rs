//! Many Topic Filters, asked with one Topic Name: the subscriptions of a server.
//!
//! Filters without a wildcard lie in one hash table of whole names. Filters with wildcards lie in
//! one hash table per [`Shape`], keyed by the levels that are no wildcard. A name hashes its levels
//! once and then probes each table whose shape can apply (tuple space search).

mod hashing;
mod index;
mod levels;
mod records;
mod search;
mod tables;

use alloc::vec::Vec;
use core::fmt;
use core::mem;

use self::hashing::{Hash, Hashes, NO_ROOM, Text};
use self::index::{Entry, Place};
use self::levels::Levels;
use self::records::Records;
use self::tables::{Table, Tables};
use crate::shape::{SHAPE_LEVELS_MAX, Shape, shape};
use crate::{Seed, TopicFilter};

/// Why a filter was not added to a [`FilterTree`]; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TreeFull {
    /// Its shape is a new one, [`FilterTreeLimits::shapes_max`] shapes are in use, and
    /// [`FilterTreeLimits::overflow_max`] filters lie outside of them.
    #[error("too many shapes of wildcard filters")]
    Shapes,
    /// There are numbers for about four billion filters, and none is left.
    #[error("too many filters")]
    Filters,
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
/// more bytes than the name has. A step is one probe of a hash table. Filters beyond the limits are refused with
/// [`TreeFull`]; filters of shapes in use are not.
///
/// A match knows a filter by 104 bits of a keyed hash, not by its text: a filter that does not match a name
/// is found all the same for less than one in 2^103 of the keys, if keys are drawn evenly. They are made of the
/// seed given to [`new`](Self::new): nobody who does not know it can do better than by trying seeds. Whatever changes
/// the tree or asks for one filter compares texts.
///
/// Adding and removing a filter takes constant time on average; now and then a few thousand
/// filters are moved, however many there are. The memory of a filter that was removed is used for
/// others of its shape and length, and given back with that of its neighbours.
#[derive(Clone)]
pub struct FilterTree<V> {
    limits: FilterTreeLimits,
    hashes: Hashes,
    records: Records,
    tables: Tables<V>,
    /// In the order they were added. While one of them has a complete shape, no shape is free.
    overflow: Vec<(u32, V)>,
    len: usize,
    generation: u64,
}

/// Names a filter of a [`FilterTree`] in four bytes, from when it is added until it is removed.
/// Then the number goes to another filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(u32);

/// Where a filter of a known shape is, until one is added or removed.
#[derive(Clone, Copy)]
enum Where {
    Table(Place),
    Overflow(usize),
}

impl<V> FilterTree<V> {
    /// An empty tree with the default limits.
    ///
    /// The seed makes the key of the hashes. It is drawn from the system's entropy, once, and told
    /// nobody: who knows it can choose filters that match names which they should not. Only where nobody
    /// but the program itself chooses filters any number will do. Results and their order do not
    /// depend on it.
    #[must_use]
    pub fn new(seed: impl Into<Seed>) -> Self {
        Self::with_limits(FilterTreeLimits::default(), seed)
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(limits: FilterTreeLimits, seed: impl Into<Seed>) -> Self {
        Self {
            limits,
            hashes: Hashes::new(seed.into()),
            records: Records::new(),
            tables: Tables::new(),
            overflow: Vec::new(),
            len: 0,
            generation: 0,
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
        let overflow = self.overflow.capacity() * size_of::<(u32, V)>();
        let own = Hashes::allocated_bytes() + overflow;
        self.records.allocated_bytes() + self.tables.allocated_bytes() + own
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
        let shape = shape(filter);
        Some(self.find(filter, shape, self.hash(filter, shape))?.1)
    }

    /// The value of a filter, to change it.
    #[must_use]
    pub fn get_mut(&mut self, filter: TopicFilter<'_>) -> Option<&mut V> {
        let shape = shape(filter);
        let place = self.place(filter, shape, self.hash(filter, shape))?;
        self.generation += 1;
        self.value_mut(shape, place)
    }

    /// What a filter is called while it is in the tree.
    #[must_use]
    pub fn id(&self, filter: TopicFilter<'_>) -> Option<FilterId> {
        let shape = shape(filter);
        let (id, _) = self.find(filter, shape, self.hash(filter, shape))?;
        Some(FilterId(id))
    }

    /// The filter that is called so.
    #[must_use]
    pub fn filter(&self, id: FilterId) -> Option<TopicFilter<'_>> {
        self.records.text(id.0).map(TopicFilter::trusted)
    }

    /// The number and the value of a filter.
    fn find(&self, filter: TopicFilter<'_>, shape: Shape, hash: Hash) -> Option<(u32, &V)> {
        let is = |id| self.records.is(id, filter.as_str());
        match self.tables.get(shape) {
            Some(table) => table.index.find(&hash, is),
            None => {
                let found = self.overflow.iter().find(|(id, _)| is(*id))?;
                Some((found.0, &found.1))
            }
        }
    }

    /// Where a filter is.
    fn place(&self, filter: TopicFilter<'_>, shape: Shape, hash: Hash) -> Option<Where> {
        let is = |id| self.records.is(id, filter.as_str());
        match self.tables.get(shape) {
            Some(table) => table.index.place(&hash, is).map(Where::Table),
            None => {
                let at = self.overflow.iter().position(|(id, _)| is(*id))?;
                Some(Where::Overflow(at))
            }
        }
    }

    fn value_mut(&mut self, shape: Shape, place: Where) -> Option<&mut V> {
        match place {
            Where::Table(place) => self.tables.get_mut(shape)?.index.value_mut(place),
            Where::Overflow(at) => self.overflow.get_mut(at).map(|(_, value)| value),
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
        let place = match self.place(filter, shape, hash) {
            Some(place) => place,
            None => self.add(filter, shape, hash, make)?,
        };
        self.generation += 1;
        self.value_mut(shape, place).ok_or(TreeFull::Filters)
    }

    /// Adds a filter that is not there.
    fn add(
        &mut self,
        filter: TopicFilter<'_>,
        shape: Shape,
        hash: Hash,
        make: impl FnOnce() -> V,
    ) -> Result<Where, TreeFull> {
        let has_table = self.tables.get(shape).is_some();
        let shape_is_free = self.shapes_len() < usize::from(self.limits.shapes_max);
        let has_place = has_table || (shape.is_complete() && shape_is_free);
        if !has_place && self.overflow.len() >= usize::from(self.limits.overflow_max) {
            return Err(TreeFull::Shapes);
        }
        if !self.records.has_room() {
            return Err(TreeFull::Filters);
        }
        let place = if has_place {
            let Table { index, shelf, .. } = self.tables.get_or_add(shape);
            let id = self.records.insert(shelf, filter.as_str());
            let value = make();
            Where::Table(index.insert(Entry { hash, id, value }))
        } else {
            let id = self.records.insert_alone(filter.as_str());
            self.overflow.push((id, make()));
            Where::Overflow(self.overflow.len() - 1)
        };
        self.len += 1;
        Ok(place)
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: TopicFilter<'_>) -> Option<V> {
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let value = match self.place(filter, shape, hash)? {
            Where::Table(place) => {
                let Table { index, shelf, .. } = self.tables.get_mut(shape)?;
                let (id, value) = index.remove(place)?;
                self.records.remove(Some(shelf), id);
                value
            }
            Where::Overflow(at) => {
                let (id, value) = self.overflow.remove(at);
                self.records.remove(None, id);
                value
            }
        };
        if self.tables.remove_empty(shape) {
            self.promote_overflow();
        }
        self.generation += 1;
        self.len -= 1;
        Some(value)
    }

    /// Gives a shape that has become free to the first overflowing filter that can use it, and to
    /// all filters of its shape.
    fn promote_overflow(&mut self) {
        let shape_of = |id| Some(shape(TopicFilter::trusted(self.records.text(id)?)));
        let mut shapes = self.overflow.iter().filter_map(|(id, _)| shape_of(*id));
        let Some(freed) = shapes.find(|shape| shape.is_complete()) else {
            return;
        };
        for (id, value) in mem::take(&mut self.overflow) {
            let text = self.records.text(id).map(TopicFilter::trusted);
            match text.filter(|filter| shape(*filter) == freed) {
                Some(filter) => {
                    let hash = self.hash(filter, freed);
                    let Table { index, shelf, .. } = self.tables.get_or_add(freed);
                    self.records.adopt(shelf, id);
                    index.insert(Entry { hash, id, value });
                }
                None => self.overflow.push((id, value)),
            }
        }
    }

    /// All filters in the order of their bytes; takes a sort.
    pub fn iter(&self) -> impl Iterator<Item = (TopicFilter<'_>, &V)> {
        let overflow = self.overflow.iter().map(|(id, value)| (*id, value));
        let filter = |id| self.records.text(id).map(TopicFilter::trusted);
        let mut all: Vec<_> = self
            .tables
            .iter()
            .chain(overflow)
            .filter_map(|(id, value)| Some((filter(id)?, value)))
            .collect();
        all.sort_unstable_by_key(|&(filter, _)| filter);
        all.into_iter()
    }

    /// What a filter is known by in the table of its shape: the hash of the names that it matches.
    fn hash(&self, filter: TopicFilter<'_>, shape: Shape) -> Hash {
        let mut room = NO_ROOM;
        let text = Text::new(filter.as_str(), &mut room);
        if shape.is_exact() {
            return self.hashes.whole(&text);
        }
        if shape.levels() <= 16 {
            return self.hash_levels::<16>(&text, shape);
        }
        self.hash_levels::<SHAPE_LEVELS_MAX>(&text, shape)
    }

    #[inline(never)]
    fn hash_levels<const LEVELS: usize>(&self, text: &Text<'_>, shape: Shape) -> Hash {
        let mut levels = Levels::<LEVELS>::new();
        levels.fill(&self.hashes, text);
        levels.hash(&shape)
    }
}

impl<V: fmt::Debug> fmt::Debug for FilterTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
