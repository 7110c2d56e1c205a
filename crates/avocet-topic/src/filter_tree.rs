//! Many Topic Filters, asked with one Topic Name: the subscriptions of a server.
//!
//! Filters without a wildcard lie in one hash table of whole names. Filters with wildcards lie in
//! one hash table per [`Shape`], keyed by the levels that are no wildcard. A name hashes its levels
//! once and then probes each table whose shape can apply (tuple space search).

mod arena;
mod hashing;
mod levels;
mod tables;

use alloc::vec::Vec;
use core::fmt;
use core::mem;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use self::arena::Arena;
use self::hashing::{Hashes, finish, widen};
use self::levels::{Levels, covers};
use self::tables::{Item, ShapeTable, Tables, remove_from};
use crate::shape::{SHAPE_LEVELS_MAX, Shape, shape};
use crate::{TopicFilter, TopicName};

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
    tables: Tables<V>,
    /// In the order they were added. While one of them has a complete shape, no shape is free.
    overflow: Vec<Item<V>>,
    len: usize,
    generation: u64,
}

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
        let overflow = self.overflow.capacity() * size_of::<Item<V>>();
        self.tables.allocated_bytes() + self.texts.allocated_bytes() + overflow
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
        let text = filter.as_str();
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let item = match self.tables.get(shape) {
            Some(table) => table.find(widen(hash), |item| item.is(hash, text, &self.texts)),
            None => self
                .overflow
                .iter()
                .find(|item| item.is(hash, text, &self.texts)),
        };
        item.map(|item| &item.value)
    }

    /// The value of a filter, to change it.
    #[must_use]
    pub fn get_mut(&mut self, filter: TopicFilter<'_>) -> Option<&mut V> {
        let text = filter.as_str();
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let texts = &self.texts;
        let is = |item: &Item<V>| item.is(hash, text, texts);
        let item = match self.tables.get_mut(shape) {
            Some(table) => table.find_mut(widen(hash), is),
            None => self.overflow.iter_mut().find(|item| is(item)),
        };
        if item.is_some() {
            self.generation += 1;
        }
        item.map(|item| &mut item.value)
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
        let text = filter.as_str();
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        if !self.tables.contains(shape) {
            if !shape.is_complete() || self.shapes_len() >= usize::from(self.limits.shapes_max) {
                return self.get_or_overflow_with(filter, hash, make);
            }
            if !self.texts.has_room(text) {
                return Err(TreeFull::Bytes);
            }
            self.tables.add(shape, HashTable::new());
        }
        let Some(table) = self.tables.get_mut(shape) else {
            return Err(TreeFull::Shapes);
        };
        let texts = &mut self.texts;
        let is = |item: &Item<V>| item.is(hash, text, texts);
        match table.entry(widen(hash), is, |item| widen(item.hash)) {
            Entry::Occupied(found) => {
                self.generation += 1;
                Ok(&mut found.into_mut().value)
            }
            Entry::Vacant(_) if !texts.has_room(text) => Err(TreeFull::Bytes),
            Entry::Vacant(vacant) => {
                let item = Item {
                    hash,
                    text: texts.push(text),
                    value: make(),
                };
                self.generation += 1;
                self.len += 1;
                Ok(&mut vacant.insert(item).into_mut().value)
            }
        }
    }

    fn get_or_overflow_with(
        &mut self,
        filter: TopicFilter<'_>,
        hash: u32,
        make: impl FnOnce() -> V,
    ) -> Result<&mut V, TreeFull> {
        let text = filter.as_str();
        let found = self
            .overflow
            .iter()
            .position(|item| item.is(hash, text, &self.texts));
        let index = match found {
            Some(index) => index,
            None if self.overflow.len() >= usize::from(self.limits.overflow_max) => {
                return Err(TreeFull::Shapes);
            }
            None if !self.texts.has_room(text) => return Err(TreeFull::Bytes),
            None => {
                let item = Item {
                    hash,
                    text: self.texts.push(text),
                    value: make(),
                };
                self.len += 1;
                self.overflow.push(item);
                self.overflow.len() - 1
            }
        };
        self.generation += 1;
        self.overflow
            .get_mut(index)
            .map(|item| &mut item.value)
            .ok_or(TreeFull::Shapes)
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: TopicFilter<'_>) -> Option<V> {
        let text = filter.as_str();
        let shape = shape(filter);
        let hash = self.hash(filter, shape);
        let texts = &self.texts;
        let is = |item: &Item<V>| item.is(hash, text, texts);
        let item = match self.tables.get_mut(shape) {
            Some(table) => remove_from(table, hash, is)?,
            None => {
                let index = self.overflow.iter().position(is)?;
                self.overflow.remove(index)
            }
        };
        if self.tables.remove_empty(shape) {
            self.promote_overflow();
        }
        self.generation += 1;
        self.len -= 1;
        if self.texts.forget(text) {
            self.compact_texts();
        }
        Some(item.value)
    }

    /// Gives a shape that has become free to the first overflowing filter that can use it, and to
    /// all filters of its shape.
    fn promote_overflow(&mut self) {
        let texts = &self.texts;
        let shape_of = |item: &Item<V>| shape(TopicFilter::trusted(texts.text(item.text)));
        let Some(freed) = self
            .overflow
            .iter()
            .map(shape_of)
            .find(|shape| shape.is_complete())
        else {
            return;
        };
        let mut table = HashTable::new();
        for item in self.overflow.extract_if(.., |item| shape_of(item) == freed) {
            table.insert_unique(widen(item.hash), item, |item| widen(item.hash));
        }
        self.tables.add(freed, table);
    }

    fn compact_texts(&mut self) {
        let mut compacted = self.texts.successor();
        for item in self.tables.items_mut().chain(&mut self.overflow) {
            item.text = compacted.push(self.texts.text(item.text));
        }
        self.texts = compacted;
    }

    /// Calls `f` with the value of each filter that matches a name, each once.
    ///
    /// The order is that of the shapes: filters without a wildcard, then those without `#`, then
    /// those with `#`, fewer levels first. It depends on nothing but the filters in the tree, as
    /// long as none overflows.
    pub fn for_each_match<'s>(&'s self, name: TopicName<'_>, f: impl FnMut(&'s V)) {
        self.search(name, f);
    }

    /// Probes and comparisons that one match with this name takes, at most
    /// [`FilterTreeLimits::match_cost_max`].
    #[must_use]
    pub fn match_cost(&self, name: TopicName<'_>) -> usize {
        self.search(name, |_| {})
    }

    /// Calls `f` with the values of all filters that match, and counts the probes.
    fn search<'s>(&'s self, name: TopicName<'_>, mut f: impl FnMut(&'s V)) -> usize {
        let text = name.as_str();
        let hash = self.hashes.whole(text);
        let found = self
            .tables
            .exact
            .find(widen(hash), |item| item.is(hash, text, &self.texts));
        if let Some(item) = found {
            f(&item.value);
        }
        let mut probes = 1;
        if self.shapes_len() > 0 {
            // Most names have few levels; sixteen hashes are cheaper to set to zero than 128.
            let levels = text.bytes().filter(|&byte| byte == b'/').count() + 1;
            probes += if levels <= 16 {
                self.search_shapes::<16>(name, levels, &mut f)
            } else {
                self.search_shapes::<SHAPE_LEVELS_MAX>(name, levels, &mut f)
            };
        }
        let hidden = name.starts_with_dollar();
        for item in &self.overflow {
            probes += 1;
            let filter = self.texts.from(item.text);
            if !(hidden && matches!(filter.first(), Some(b'+' | b'#'))) && covers(filter, text) {
                f(&item.value);
            }
        }
        probes
    }

    /// `LEVELS` is at least as large as `levels` or as the levels of any shape.
    fn search_shapes<'s, const LEVELS: usize>(
        &'s self,
        name: TopicName<'_>,
        levels: usize,
        f: &mut impl FnMut(&'s V),
    ) -> usize {
        let (single_level, multi_level) = self.tables.applicable(levels);
        if single_level.is_empty() && multi_level.is_empty() {
            return 0;
        }
        let levels = Levels::<LEVELS>::new(&self.hashes, name.as_str());
        let hidden = name.starts_with_dollar();
        let mut probes = 0;
        for ShapeTable { shape, table } in single_level.iter().chain(multi_level) {
            // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
            if hidden && shape.starts_with_wildcard() {
                continue;
            }
            probes += 1;
            let hash = levels.hash(*shape);
            let found = table.find(widen(hash), |item| {
                item.hash == hash && levels.are_matched_by(self.texts.from(item.text), *shape)
            });
            if let Some(item) = found {
                f(&item.value);
            }
        }
        probes
    }

    /// All filters in the order of their bytes; takes a sort.
    pub fn iter(&self) -> impl Iterator<Item = (TopicFilter<'_>, &V)> {
        let mut all: Vec<_> = self
            .tables
            .items()
            .chain(&self.overflow)
            .map(|item| {
                (
                    TopicFilter::trusted(self.texts.text(item.text)),
                    &item.value,
                )
            })
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

impl<V: fmt::Debug> fmt::Debug for FilterTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
