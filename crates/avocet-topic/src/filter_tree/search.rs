//! One name is asked for in all tables that can have a filter which matches it.
//!
//! What a table answers lies in memory that is cold once there are many filters, in the line of
//! its index alone: a filter is known by its hash, and its text is not read. Tables are asked side
//! by side: first all lines are read, then looked at. Until then no branch depends on what was
//! read: the processor need not wait.

use super::FilterTree;
use super::hashing::{Hash, NO_ROOM, Text};
use super::index::{Answer, Line};
use super::levels::{Levels, covers};
use super::tables::Table;
use crate::TopicName;
use crate::shape::SHAPE_LEVELS_MAX;

/// Tables that are asked side by side.
const SIDE_BY_SIDE: usize = 16;

/// What a table is asked.
struct Probe<'t, V> {
    table: &'t Table<V>,
    line: Option<&'t Line<V>>,
    hash: Hash,
}

impl<'t, V> Probe<'t, V> {
    #[inline(always)]
    fn new(table: &'t Table<V>, hash: Hash) -> Self {
        let line = table.index.line(&hash);
        Self { table, line, hash }
    }

    #[inline(always)]
    fn fetch(&self) {
        if let Some(line) = self.line {
            line.fetch();
        }
    }

    /// Calls `f` with the value of the filter that has the hash.
    #[inline(always)]
    fn answer(&self, f: &mut impl FnMut(&'t V)) {
        let answer = self.line.map(|line| line.answer(&self.hash));
        let value = match answer {
            Some(Answer::Found(value)) => Some(value),
            Some(Answer::Perhaps) => self.find(),
            Some(Answer::Missing) | None => None,
        };
        if let Some(value) = value {
            f(value);
        }
    }

    /// Looks behind the line.
    #[cold]
    fn find(&self) -> Option<&'t V> {
        // That a hash is another filter's is not to be expected of any (see `hashing`).
        let found = self.table.index.find(&self.hash, |_| true);
        found.map(|(_, value)| value)
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
        let mut room = NO_ROOM;
        let text = Text::new(name.as_str(), &mut room);
        let exact = Probe::new(&self.tables.exact, self.hashes.whole(&text));
        let mut probes = 1;
        if self.shapes_len() == 0 {
            if let Some(line) = exact.line {
                line.fetch_values();
            }
            exact.answer(&mut f);
        } else {
            // Most names have few levels; sixteen hashes are cheaper to set to zero than 128.
            let mut levels = Levels::<16>::new();
            levels.fill(&self.hashes, &text);
            probes += if levels.len() <= 16 {
                self.search_shapes(name, exact, &levels, &mut f)
            } else {
                let mut levels = Levels::<SHAPE_LEVELS_MAX>::new();
                levels.fill(&self.hashes, &text);
                self.search_shapes(name, exact, &levels, &mut f)
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

    /// Asks for filters of all shapes that can match, after the one without a wildcard. There are
    /// at least as many `LEVELS` as levels of the name or of any shape.
    fn search_shapes<'s, const LEVELS: usize>(
        &'s self,
        name: TopicName<'_>,
        exact: Probe<'s, V>,
        levels: &Levels<LEVELS>,
        f: &mut impl FnMut(&'s V),
    ) -> usize {
        let hidden = name.starts_with_dollar();
        let (single_level, multi_level) = self.tables.applicable(levels.len());
        let mut probes = Probes::new();
        probes.push(exact, f);
        let mut sum = 0;
        for tables in [single_level, multi_level] {
            for table in tables {
                // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
                if hidden && table.shape.starts_with_wildcard() {
                    continue;
                }
                probes.push(Probe::new(table, levels.hash(&table.shape)), f);
                sum += 1;
            }
        }
        probes.answer(f);
        sum
    }
}

/// Tables that are asked side by side.
struct Probes<'t, V> {
    probes: [Option<Probe<'t, V>>; SIDE_BY_SIDE],
    len: usize,
}

impl<'t, V> Probes<'t, V> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            probes: [const { None }; SIDE_BY_SIDE],
            len: 0,
        }
    }

    /// Asks one more; those before it are answered if there is no room.
    #[inline(always)]
    fn push(&mut self, probe: Probe<'t, V>, f: &mut impl FnMut(&'t V)) {
        if self.len == SIDE_BY_SIDE {
            self.answer(f);
            self.len = 0;
        }
        if let Some(place) = self.probes.get_mut(self.len) {
            *place = Some(probe);
            self.len += 1;
        }
    }

    /// Calls `f` with the values of the filters that have the hashes of the probes.
    fn answer(&self, f: &mut impl FnMut(&'t V)) {
        let probes = self.probes.iter().take(self.len).flatten();
        // A loop that only reads is short: so all reads are on their way together.
        for probe in probes.clone() {
            probe.fetch();
        }
        for probe in probes {
            probe.answer(f);
        }
    }
}
