//! One name is asked for in all tables that can have a filter which matches it.
//!
//! What a table answers lies in memory that is cold once there are many filters, in the line of
//! its index alone: a filter is known by its hash, and its text is not read. Tables are asked side
//! by side: first all lines are read, then looked at. Until then no branch depends on what was
//! read: the processor need not wait.

use super::FilterTree;
use super::hashing::{Check, Hash, NO_ROOM, Text};
use super::index::{Answer, Index, Line};
use super::levels::{Levels, covers};
use super::tables::Table;
use crate::TopicName;
use crate::shape::SHAPE_LEVELS_MAX;

/// Tables that are asked side by side.
const SIDE_BY_SIDE: usize = 16;

impl<V> FilterTree<V> {
    /// Calls `f` with the value of each filter that matches a name, each once.
    ///
    /// The order is that of the shapes: filters without a wildcard, then those without `#`, then
    /// those with `#`, fewer levels first. It depends on nothing but the filters in the tree, as
    /// long as none overflows.
    pub fn for_each_match<'s>(&'s self, name: TopicName<'_>, f: impl FnMut(&'s V)) {
        self.search(name, f);
    }

    /// Probes and comparisons that one match with this name takes, at most
    /// [`FilterTreeLimits::match_cost_max`](crate::FilterTreeLimits::match_cost_max).
    #[must_use]
    pub fn match_cost(&self, name: TopicName<'_>) -> usize {
        self.search(name, |_| {})
    }

    /// Calls `f` with the values of all filters that match, and counts the probes.
    fn search<'s>(&'s self, name: TopicName<'_>, mut f: impl FnMut(&'s V)) -> usize {
        let mut room = NO_ROOM;
        let text = Text::new(name.as_str(), &mut room);
        let mut probes = 1;
        let hash = self.hashes.whole(&text);
        if self.shapes_len() == 0 {
            let index = &self.tables.exact.index;
            if let Some(line) = index.line(&hash) {
                line.fetch_values();
                answer(index, line, &hash, &mut f);
            }
        } else {
            // Most names have few levels; sixteen hashes are cheaper to set to zero than 128.
            let mut levels = Levels::<16>::new();
            levels.fill(&self.hashes, &text);
            probes += if levels.len() > 16 {
                self.search_many_levels(&text, hash, &mut f)
            } else if name.starts_with_dollar() {
                self.search_shapes::<16, true>(hash, &levels, &mut f)
            } else {
                self.search_shapes::<16, false>(hash, &levels, &mut f)
            };
        }
        let text = name.as_str();
        let hidden = name.starts_with_dollar();
        for (id, value) in &self.overflow {
            probes += 1;
            let filter = self.records.get(*id);
            if !(hidden && matches!(filter.first(), Some(b'+' | b'#'))) && covers(filter, text) {
                f(value);
            }
        }
        probes
    }

    #[inline(never)]
    fn search_many_levels<'s>(
        &'s self,
        text: &Text<'_>,
        exact: Hash,
        f: &mut impl FnMut(&'s V),
    ) -> usize {
        let mut levels = Levels::<SHAPE_LEVELS_MAX>::new();
        levels.fill(&self.hashes, text);
        if text.whole().starts_with(b"$") {
            self.search_shapes::<SHAPE_LEVELS_MAX, true>(exact, &levels, f)
        } else {
            self.search_shapes::<SHAPE_LEVELS_MAX, false>(exact, &levels, f)
        }
    }

    /// Asks for filters of all shapes that can match, after the one without a wildcard; for a `HIDDEN` name not for
    /// those that begin with one. There are at least as many `LEVELS` as levels of the name or of any shape.
    fn search_shapes<'s, const LEVELS: usize, const HIDDEN: bool>(
        &'s self,
        exact: Hash,
        levels: &Levels<LEVELS>,
        f: &mut impl FnMut(&'s V),
    ) -> usize {
        let (single_level, multi_level) = self.tables.applicable(levels.len());
        let mut probes = Probes::new();
        probes.push(&self.tables.exact, &exact, f);
        let mut sum = 0;
        // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
        let is_asked = |table: &&Table<V>| !HIDDEN || !table.shape.starts_with_wildcard();
        for table in single_level.iter().filter(is_asked) {
            probes.push(table, &levels.hash_all(&table.shape), f);
            sum += 1;
        }
        for table in multi_level.iter().filter(is_asked) {
            probes.push(table, &levels.hash(&table.shape), f);
            sum += 1;
        }
        probes.answer(f);
        sum
    }
}

/// Tables that are asked side by side.
struct Probes<'t, V> {
    indexes: [Option<&'t Index<V>>; SIDE_BY_SIDE],
    /// Where filters begin that have what is asked for.
    lines: [Option<&'t Line<V>>; SIDE_BY_SIDE],
    orders: [u64; SIDE_BY_SIDE],
    checks: [Check; SIDE_BY_SIDE],
    len: usize,
}

impl<'t, V> Probes<'t, V> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            indexes: [None; SIDE_BY_SIDE],
            lines: [None; SIDE_BY_SIDE],
            orders: [0; SIDE_BY_SIDE],
            checks: [Check::default(); SIDE_BY_SIDE],
            len: 0,
        }
    }

    /// Asks one more; those before it are answered if there is no room.
    #[inline(always)]
    fn push(&mut self, table: &'t Table<V>, hash: &Hash, f: &mut impl FnMut(&'t V)) {
        let Some(found) = table.index.line(hash) else {
            return;
        };
        if self.len == SIDE_BY_SIDE {
            self.answer(f);
            self.len = 0;
        }
        let at = self.len % SIDE_BY_SIDE;
        if let (Some(index), Some(line), Some(order), Some(check)) = (
            self.indexes.get_mut(at),
            self.lines.get_mut(at),
            self.orders.get_mut(at),
            self.checks.get_mut(at),
        ) {
            *index = Some(&table.index);
            *line = Some(found);
            *order = hash.order();
            *check = hash.check();
        }
        self.len = at + 1;
    }

    /// Calls `f` with the values of the filters that have the hashes of the probes.
    #[inline(always)]
    fn answer(&self, f: &mut impl FnMut(&'t V)) {
        let (Some(lines), Some(orders)) = (self.lines.get(..self.len), self.orders.get(..self.len))
        else {
            return;
        };
        answer_all(lines, orders, &self.checks, &self.indexes, f);
    }
}

/// Calls `f` with the values of the filters that have the hashes of some probes.
#[inline(never)]
fn answer_all<'t, V>(
    lines: &[Option<&'t Line<V>>],
    orders: &[u64],
    checks: &[Check; SIDE_BY_SIDE],
    indexes: &[Option<&'t Index<V>>; SIDE_BY_SIDE],
    f: &mut impl FnMut(&'t V),
) {
    // A loop that only reads is short: so all reads are on their way together.
    for line in lines.iter().flatten() {
        line.fetch();
    }
    for (((line, order), check), index) in lines.iter().zip(orders).zip(checks).zip(indexes) {
        if let (Some(line), Some(index)) = (line, index) {
            answer(index, line, &Hash::new(*order, *check), f);
        }
    }
}

/// Calls `f` with the value of the filter that has the hash, which begins in this line.
#[inline(always)]
fn answer<'t, V>(index: &'t Index<V>, line: &'t Line<V>, hash: &Hash, f: &mut impl FnMut(&'t V)) {
    let value = match line.answer(hash) {
        Answer::Found(value) => Some(value),
        Answer::Perhaps => find(index, hash),
        Answer::Missing => None,
    };
    if let Some(value) = value {
        f(value);
    }
}

/// Looks behind the line.
#[cold]
#[inline(never)]
fn find<'t, V>(index: &'t Index<V>, hash: &Hash) -> Option<&'t V> {
    // That a hash is another filter's is not to be expected of any (see `hashing`).
    let found = index.find(hash, |_| true);
    found.map(|(_, value)| value)
}
