//! One name is asked for in all tables that can have a filter which matches it.
//!
//! What a table answers lies in memory that is cold once there are many filters, in two places one
//! after the other: the line of its index, and the text and value of the filter. So tables are
//! asked side by side: first all lines are read, then the texts and values of those that promise a
//! match, then these are compared. Until then no branch depends on what was read: the processor
//! need not wait.

use core::hint::black_box;

use super::FilterTree;
use super::index::Line;
use super::levels::{Levels, covers};
use super::records::{is_end, strip};
use super::tables::Table;
use crate::TopicName;
use crate::shape::{SHAPE_LEVELS_MAX, Shape};

/// Tables that are asked side by side.
const SIDE_BY_SIDE: usize = 16;

/// What a table is asked.
struct Probe<'t, V> {
    table: &'t Table<V>,
    line: Option<&'t Line<V>>,
    hash: u32,
}

impl<V> Clone for Probe<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Probe<'_, V> {}

impl<'t, V> Probe<'t, V> {
    fn new(table: &'t Table<V>, hash: u32) -> Self {
        let line = table.index.line(hash);
        Self { table, line, hash }
    }
}

/// What a line says.
struct Promise<'t, V> {
    /// Whether a filter may match.
    is_promised: bool,
    /// Whether it lies in the line; if not, text and value are those of any other.
    is_there: bool,
    text: &'t [u8],
    value: &'t Option<V>,
}

impl<V> Clone for Promise<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Promise<'_, V> {}

impl<V> Promise<'_, V> {
    const NONE: Self = Self {
        is_promised: false,
        is_there: false,
        text: &[],
        value: &None,
    };

    /// Reads the text and the value, so that they are on their way when they are looked at.
    fn fetch(&self) {
        if let ([first, ..], [.., last]) = (self.text, self.text) {
            black_box(first ^ last);
        }
        black_box(self.value.is_some());
    }
}

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
        let text = name.as_str();
        let hash = self.hashes.whole(text);
        let mut probes = 1;
        if self.shapes_len() == 0 {
            let is_match = |id| self.records.is(id, text);
            let found = self.tables.exact.index.find(hash, is_match);
            if let Some((_, value)) = found {
                f(value);
            }
        } else {
            let exact = Probe::new(&self.tables.exact, hash);
            // Most names have few levels; sixteen hashes are cheaper to set to zero than 128.
            let levels = Levels::<16>::new(&self.hashes, text);
            probes += if levels.len() <= 16 {
                self.search_shapes(name, exact, &levels, &mut f)
            } else {
                let levels = Levels::<SHAPE_LEVELS_MAX>::new(&self.hashes, text);
                self.search_shapes(name, exact, &levels, &mut f)
            };
        }
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

    /// Asks for filters of all shapes that can match, after the one without a wildcard. There are
    /// at least as many `LEVELS` as levels of the name or of any shape.
    fn search_shapes<'s, const LEVELS: usize>(
        &'s self,
        name: TopicName<'_>,
        exact: Probe<'s, V>,
        levels: &Levels<'_, LEVELS>,
        f: &mut impl FnMut(&'s V),
    ) -> usize {
        let text = name.as_str();
        let hidden = name.starts_with_dollar();
        let (single_level, multi_level) = self.tables.applicable(levels.len());
        let tables = single_level.iter().chain(multi_level);
        let is_match = |filter: &[u8], shape: &Shape| {
            if shape.is_exact() {
                is_whole(filter, text)
            } else {
                levels.are_matched_by(filter, shape)
            }
        };
        // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
        let mut tables = tables.filter(|it| !(hidden && it.shape.starts_with_wildcard()));
        let mut probes = [exact; SIDE_BY_SIDE];
        let mut asked = 1;
        let mut sum = 0;
        loop {
            let begun = asked;
            let free = probes.get_mut(asked..).unwrap_or_default();
            for (probe, table) in free.iter_mut().zip(&mut tables) {
                *probe = Probe::new(table, levels.hash(&table.shape));
                asked += 1;
            }
            sum += asked - begun;
            self.answer(probes.get(..asked).unwrap_or_default(), f, is_match);
            if asked < SIDE_BY_SIDE {
                return sum;
            }
            asked = 0;
        }
    }

    /// Calls `f` with the values of all filters that match among those which have the hashes of
    /// the probes.
    fn answer<'s>(
        &'s self,
        probes: &[Probe<'s, V>],
        f: &mut impl FnMut(&'s V),
        is_match: impl Fn(&[u8], &Shape) -> bool,
    ) {
        // Loops that only read are short: so all reads are on their way together.
        for line in probes.iter().filter_map(|probe| probe.line) {
            line.fetch();
        }
        let mut promises = [Promise::NONE; SIDE_BY_SIDE];
        for (probe, promise) in probes.iter().zip(&mut promises) {
            if let Some(line) = probe.line {
                let (is_there, place) = line.first(probe.hash);
                *promise = Promise {
                    // It may lie behind the line as well.
                    is_promised: is_there | line.goes_on(probe.hash),
                    is_there,
                    text: self.records.get(if is_there { line.id(place) } else { 0 }),
                    value: line.value(place),
                };
            }
        }
        for promise in promises.iter().take(probes.len()) {
            promise.fetch();
        }
        for (probe, promise) in probes.iter().zip(&promises) {
            if !promise.is_promised {
                continue;
            }
            let shape = &probe.table.shape;
            if promise.is_there && is_match(promise.text, shape) {
                if let Some(value) = promise.value {
                    f(value);
                }
            } else {
                // Another filter has the same hash, or it lies behind the line.
                let is_match = |id| is_match(self.records.get(id), shape);
                let found = probe.table.index.find(probe.hash, is_match);
                if let Some((_, value)) = found {
                    f(value);
                }
            }
        }
    }
}

fn is_whole(filter: &[u8], name: &str) -> bool {
    strip(filter, name.as_bytes()).is_some_and(is_end)
}
