//! The hash tables of a tree: one for filters without a wildcard, one per shape in use.

use alloc::vec::Vec;

use super::index::{Index, Slot};
use crate::shape::Shape;

#[derive(Clone)]
pub(super) struct Tables<V> {
    pub(super) exact: Index<V>,
    /// Shapes without `#`, ascending.
    single_level: Vec<ShapeTable<V>>,
    /// Shapes with `#`, ascending.
    multi_level: Vec<ShapeTable<V>>,
}

#[derive(Clone)]
pub(super) struct ShapeTable<V> {
    pub(super) shape: Shape,
    pub(super) index: Index<V>,
}

impl<V> Tables<V> {
    pub(super) const fn new() -> Self {
        Self {
            exact: Index::new(),
            single_level: Vec::new(),
            multi_level: Vec::new(),
        }
    }

    /// Shapes with wildcards that have a table.
    pub(super) fn shapes_len(&self) -> usize {
        self.single_level.len() + self.multi_level.len()
    }

    pub(super) fn get(&self, shape: Shape) -> Option<&Index<V>> {
        if shape.is_exact() {
            return Some(&self.exact);
        }
        let tables = if shape.is_multi_level() {
            &self.multi_level
        } else {
            &self.single_level
        };
        let index = position(tables, shape).ok()?;
        tables.get(index).map(|found| &found.index)
    }

    pub(super) fn get_mut(&mut self, shape: Shape) -> Option<&mut Index<V>> {
        if shape.is_exact() {
            return Some(&mut self.exact);
        }
        let tables = self.side_mut(shape);
        let at = position(tables, shape).ok()?;
        tables.get_mut(at).map(|found| &mut found.index)
    }

    /// The table of a shape, which is added if it is not there.
    pub(super) fn get_or_add(&mut self, shape: Shape) -> &mut Index<V> {
        if shape.is_exact() {
            return &mut self.exact;
        }
        let tables = self.side_mut(shape);
        let at = position(tables, shape).unwrap_or_else(|at| {
            let index = Index::new();
            tables.insert(at, ShapeTable { shape, index });
            at
        });
        #[expect(clippy::indexing_slicing, reason = "it was found or inserted here")]
        &mut tables[at].index
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
                    .is_some_and(|found| found.index.is_empty())
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

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot<V>> {
        let shapes = self.single_level.iter().chain(&self.multi_level);
        let shapes = shapes.flat_map(|found| found.index.slots());
        self.exact.slots().chain(shapes)
    }

    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot<V>> {
        let shapes = self.single_level.iter_mut().chain(&mut self.multi_level);
        let shapes = shapes.flat_map(|found| found.index.slots_mut());
        self.exact.slots_mut().chain(shapes)
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let shapes = self.single_level.iter().chain(&self.multi_level);
        let tables: usize = shapes.map(|found| found.index.allocated_bytes()).sum();
        let slots = self.single_level.capacity() + self.multi_level.capacity();
        self.exact.allocated_bytes() + tables + slots * size_of::<ShapeTable<V>>()
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
