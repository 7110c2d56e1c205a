//! The hash tables of a tree: one for filters without a wildcard, one per shape in use.

use alloc::vec::Vec;

use super::index::Index;
use super::records::Shelf;
use crate::shape::Shape;

/// The filters of a shape.
#[derive(Clone)]
pub(super) struct Table<V> {
    pub(super) shape: Shape,
    pub(super) index: Index<V>,
    /// Where their texts lie.
    pub(super) shelf: Shelf,
}

#[derive(Clone)]
pub(super) struct Tables<V> {
    pub(super) exact: Table<V>,
    /// Shapes without `#`, ascending.
    single_level: Vec<Table<V>>,
    /// Shapes with `#`, ascending.
    multi_level: Vec<Table<V>>,
    /// Which of them names of so many levels are asked for in; longer ones in all with `#`.
    reach: Vec<Reach>,
}

/// Tables that can have a filter which matches.
#[derive(Clone, Copy, Default)]
struct Reach {
    single_level_from: usize,
    single_level_to: usize,
    multi_level_to: usize,
}

impl<V> Table<V> {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            index: Index::new(),
            shelf: Shelf::default(),
        }
    }
}

impl<V> Tables<V> {
    pub(super) fn new() -> Self {
        Self {
            exact: Table::new(Shape::EXACT),
            single_level: Vec::new(),
            multi_level: Vec::new(),
            reach: Vec::new(),
        }
    }

    /// Shapes with wildcards that have a table.
    pub(super) fn shapes_len(&self) -> usize {
        self.single_level.len() + self.multi_level.len()
    }

    pub(super) fn get(&self, shape: Shape) -> Option<&Table<V>> {
        if shape.is_exact() {
            return Some(&self.exact);
        }
        let tables = if shape.is_multi_level() {
            &self.multi_level
        } else {
            &self.single_level
        };
        tables.get(position(tables, shape).ok()?)
    }

    pub(super) fn get_mut(&mut self, shape: Shape) -> Option<&mut Table<V>> {
        if shape.is_exact() {
            return Some(&mut self.exact);
        }
        let tables = self.side_mut(shape);
        let at = position(tables, shape).ok()?;
        tables.get_mut(at)
    }

    /// The table of a shape, which is added if it is not there.
    pub(super) fn get_or_add(&mut self, shape: Shape) -> &mut Table<V> {
        if shape.is_exact() {
            return &mut self.exact;
        }
        let at = match position(self.side_mut(shape), shape) {
            Ok(at) => at,
            Err(at) => {
                self.side_mut(shape).insert(at, Table::new(shape));
                self.find_reach();
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "it was found or inserted here")]
        &mut self.side_mut(shape)[at]
    }

    /// Removes the table of a shape if it is empty, and says whether it did.
    pub(super) fn remove_empty(&mut self, shape: Shape) -> bool {
        if shape.is_exact() {
            return false;
        }
        let tables = self.side_mut(shape);
        let Ok(at) = position(tables, shape) else {
            return false;
        };
        let empty = tables.get(at).is_some_and(|table| table.index.is_empty());
        if empty {
            tables.remove(at);
            self.find_reach();
        }
        empty
    }

    /// The tables of shapes that can match a name of this many levels, without and with `#`.
    pub(super) fn applicable(&self, levels: usize) -> (&[Table<V>], &[Table<V>]) {
        let reach = self.reach.get(levels).copied().unwrap_or_else(|| Reach {
            multi_level_to: self.multi_level.len(),
            ..Reach::default()
        });
        let single_level = reach.single_level_from..reach.single_level_to;
        (
            self.single_level.get(single_level).unwrap_or_default(),
            self.multi_level
                .get(..reach.multi_level_to)
                .unwrap_or_default(),
        )
    }

    /// The numbers and values of all filters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        self.all().flat_map(|table| table.index.iter())
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        let tables = self
            .all()
            .map(|table| table.index.allocated_bytes() + table.shelf.allocated_bytes());
        let slots = self.single_level.capacity() + self.multi_level.capacity();
        let reach = self.reach.capacity() * size_of::<Reach>();
        tables.sum::<usize>() + slots * size_of::<Table<V>>() + reach
    }

    fn all(&self) -> impl Iterator<Item = &Table<V>> {
        let shapes = self.single_level.iter().chain(&self.multi_level);
        [&self.exact].into_iter().chain(shapes)
    }

    fn side_mut(&mut self, shape: Shape) -> &mut Vec<Table<V>> {
        if shape.is_multi_level() {
            &mut self.multi_level
        } else {
            &mut self.single_level
        }
    }

    fn find_reach(&mut self) {
        let last = [self.single_level.last(), self.multi_level.last()];
        let last = last.into_iter().flatten().map(|table| table.shape.levels());
        let reach = (0..last.max().map_or(0, |levels| levels + 1)).map(|levels| Reach {
            single_level_from: fewer_levels(&self.single_level, levels),
            single_level_to: fewer_levels(&self.single_level, levels + 1),
            multi_level_to: fewer_levels(&self.multi_level, levels + 1),
        });
        self.reach = reach.collect();
    }
}

/// Where the table of a shape is, or would go.
fn position<V>(tables: &[Table<V>], shape: Shape) -> Result<usize, usize> {
    tables.binary_search_by_key(&shape, |table| table.shape)
}

/// How many tables have shapes of fewer levels.
fn fewer_levels<V>(tables: &[Table<V>], levels: usize) -> usize {
    tables.partition_point(|table| table.shape.levels() < levels)
}
