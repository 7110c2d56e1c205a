//! The hash tables of a tree: one for filters without a wildcard, one per shape in use.

use alloc::vec::Vec;

use hashbrown::HashTable;

use super::arena::Arena;
use super::hashing::widen;
use crate::shape::Shape;

#[derive(Clone)]
pub(super) struct Tables<V> {
    pub(super) exact: HashTable<Item<V>>,
    /// Shapes without `#`, ascending.
    single_level: Vec<ShapeTable<V>>,
    /// Shapes with `#`, ascending.
    multi_level: Vec<ShapeTable<V>>,
}

#[derive(Clone)]
pub(super) struct ShapeTable<V> {
    pub(super) shape: Shape,
    pub(super) table: HashTable<Item<V>>,
}

#[derive(Clone)]
pub(super) struct Item<V> {
    /// Kept so that growing a table reads no text.
    pub(super) hash: u32,
    /// Where its text lies in the arena.
    pub(super) text: u32,
    pub(super) value: V,
}

impl<V> Item<V> {
    pub(super) fn is(&self, hash: u32, text: &str, texts: &Arena) -> bool {
        self.hash == hash && texts.is(self.text, text)
    }
}

impl<V> Tables<V> {
    pub(super) fn new() -> Self {
        Self {
            exact: HashTable::new(),
            single_level: Vec::new(),
            multi_level: Vec::new(),
        }
    }

    /// Shapes with wildcards that have a table.
    pub(super) fn shapes_len(&self) -> usize {
        self.single_level.len() + self.multi_level.len()
    }

    pub(super) fn contains(&self, shape: Shape) -> bool {
        self.get(shape).is_some()
    }

    pub(super) fn get(&self, shape: Shape) -> Option<&HashTable<Item<V>>> {
        if shape.is_exact() {
            return Some(&self.exact);
        }
        let tables = if shape.is_multi_level() {
            &self.multi_level
        } else {
            &self.single_level
        };
        let index = position(tables, shape).ok()?;
        tables.get(index).map(|found| &found.table)
    }

    pub(super) fn get_mut(&mut self, shape: Shape) -> Option<&mut HashTable<Item<V>>> {
        if shape.is_exact() {
            return Some(&mut self.exact);
        }
        let tables = self.side_mut(shape);
        let index = position(tables, shape).ok()?;
        tables.get_mut(index).map(|found| &mut found.table)
    }

    /// Adds the table of a shape that has none.
    pub(super) fn add(&mut self, shape: Shape, table: HashTable<Item<V>>) {
        let tables = self.side_mut(shape);
        if let Err(index) = position(tables, shape) {
            tables.insert(index, ShapeTable { shape, table });
        }
    }

    /// Removes the table of a shape if it is empty, and says whether it did.
    pub(super) fn remove_empty(&mut self, shape: Shape) -> bool {
        if shape.is_exact() {
            return false;
        }
        let tables = self.side_mut(shape);
        let index = position(tables, shape).ok();
        let empty = index
            .filter(|&index| {
                tables
                    .get(index)
                    .is_some_and(|found| found.table.is_empty())
            })
            .map(|index| tables.remove(index));
        empty.is_some()
    }

    /// The tables of shapes that can match a name of this many levels, without and with `#`.
    pub(super) fn applicable(&self, levels: usize) -> (&[ShapeTable<V>], &[ShapeTable<V>]) {
        let fewer = self
            .single_level
            .partition_point(|found| found.shape.levels() < levels);
        let single_level = self.single_level.get(fewer..).unwrap_or_default();
        let equal = single_level.partition_point(|found| found.shape.levels() == levels);
        let upto = self
            .multi_level
            .partition_point(|found| found.shape.levels() <= levels);
        (
            single_level.get(..equal).unwrap_or_default(),
            self.multi_level.get(..upto).unwrap_or_default(),
        )
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item<V>> {
        let shapes = self.single_level.iter().chain(&self.multi_level);
        self.exact
            .iter()
            .chain(shapes.flat_map(|found| found.table.iter()))
    }

    pub(super) fn items_mut(&mut self) -> impl Iterator<Item = &mut Item<V>> {
        let shapes = self.single_level.iter_mut().chain(&mut self.multi_level);
        self.exact
            .iter_mut()
            .chain(shapes.flat_map(|found| found.table.iter_mut()))
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let shapes = self.single_level.iter().chain(&self.multi_level);
        let tables: usize = shapes.map(|found| found.table.allocation_size()).sum();
        let slots = self.single_level.capacity() + self.multi_level.capacity();
        self.exact.allocation_size() + tables + slots * size_of::<ShapeTable<V>>()
    }

    fn side_mut(&mut self, shape: Shape) -> &mut Vec<ShapeTable<V>> {
        if shape.is_multi_level() {
            &mut self.multi_level
        } else {
            &mut self.single_level
        }
    }
}

/// Where the table of a shape is, or would go.
fn position<V>(tables: &[ShapeTable<V>], shape: Shape) -> Result<usize, usize> {
    tables.binary_search_by_key(&shape, |found| found.shape)
}

/// Takes an item out, and gives back room that most items have left.
pub(super) fn remove_from<V>(
    table: &mut HashTable<Item<V>>,
    hash: u32,
    is: impl FnMut(&Item<V>) -> bool,
) -> Option<Item<V>> {
    let (item, _) = table.find_entry(widen(hash), is).ok()?.remove();
    if table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, |item| widen(item.hash));
    }
    Some(item)
}
