//! One name is asked for in all tables that can have a filter which matches it.
//!
//! What a table answers lies in memory that is cold once there are many filters, in two places one
//! after the other: the slot with the value, and the text. So tables are asked side by side: first
//! all slots are read, then the texts of those that promise a match, then these are compared.

use core::hint::black_box;

use super::FilterTree;
use super::index::{Index, Key};
use super::levels::{Levels, covers};
use super::tables::ShapeTable;
use crate::TopicName;
use crate::shape::{SHAPE_LEVELS_MAX, Shape};

/// Tables that are asked side by side.
const SIDE_BY_SIDE: usize = 16;

/// A table that is being asked.
struct Probe<'t, V> {
    index: &'t Index<V>,
    shape: Shape,
    hash: u32,
    position: usize,
    key: Key,
}

impl<V> Clone for Probe<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Probe<'_, V> {}

impl<'t, V> Probe<'t, V> {
    fn new(index: &'t Index<V>, shape: Shape, hash: u32) -> Self {
        let position = index.home(hash);
        Self {
            index,
            shape,
            hash,
            position,
            key: index.key(position),
        }
    }

    /// Goes to the first filter with the hash; false if there is none.
    fn seek(&mut self) -> bool {
        (self.position, self.key) = self.index.seek(self.hash, self.position, self.key);
        self.key.hash == self.hash
    }

    /// Goes to the next filter with the same hash; false if there is none.
    fn next(&mut self) -> bool {
        self.position += 1;
        self.key = self.index.key(self.position);
        self.key.hash == self.hash
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
        let exact = Probe::new(&self.tables.exact, Shape::EXACT, hash);
        let mut probes = 1;
        let levels = match self.shapes_len() {
            0 => 0,
            _ => text.bytes().filter(|&byte| byte == b'/').count() + 1,
        };
        let (single_level, multi_level) = self.tables.applicable(levels);
        if single_level.is_empty() && multi_level.is_empty() {
            self.answer(&mut [exact], &mut f, |key, _| self.texts.is(key.text, text));
        } else {
            let tables = single_level.iter().chain(multi_level);
            // Most names have few levels; sixteen hashes are cheaper to set to zero than 128.
            probes += if levels <= 16 {
                self.search_shapes::<16>(name, exact, tables, &mut f)
            } else {
                self.search_shapes::<SHAPE_LEVELS_MAX>(name, exact, tables, &mut f)
            };
        }
        let hidden = name.starts_with_dollar();
        for slot in &self.overflow {
            probes += 1;
            let filter = self.texts.from(slot.key.text);
            if !(hidden && matches!(filter.first(), Some(b'+' | b'#')))
                && covers(filter, text)
                && let Some(value) = &slot.value
            {
                f(value);
            }
        }
        probes
    }

    /// Asks for filters of some shapes, after the one without a wildcard. `LEVELS` is at least as
    /// large as the levels of the name or of any shape.
    fn search_shapes<'s, const LEVELS: usize>(
        &'s self,
        name: TopicName<'_>,
        exact: Probe<'s, V>,
        tables: impl Iterator<Item = &'s ShapeTable<V>>,
        f: &mut impl FnMut(&'s V),
    ) -> usize {
        let text = name.as_str();
        let levels = Levels::<LEVELS>::new(&self.hashes, text);
        let hidden = name.starts_with_dollar();
        let is_match = |key: Key, shape: Shape| {
            if shape.is_exact() {
                self.texts.is(key.text, text)
            } else {
                levels.are_matched_by(self.texts.from(key.text), shape)
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
            for (probe, ShapeTable { shape, index }) in free.iter_mut().zip(&mut tables) {
                *probe = Probe::new(index, *shape, levels.hash(*shape));
                asked += 1;
            }
            sum += asked - begun;
            self.answer(probes.get_mut(..asked).unwrap_or_default(), f, is_match);
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
        probes: &mut [Probe<'s, V>],
        f: &mut impl FnMut(&'s V),
        is_match: impl Fn(Key, Shape) -> bool,
    ) {
        let mut promising = 0;
        for at in 0..probes.len() {
            let Some(mut probe) = probes.get(at).copied() else {
                break;
            };
            if probe.seek() {
                // Read here, so that all are on their way before the first one is waited for.
                black_box(self.texts.from(probe.key.text).first());
                if let Some(place) = probes.get_mut(promising) {
                    *place = probe;
                }
                promising += 1;
            }
        }
        for probe in probes.iter_mut().take(promising) {
            loop {
                if is_match(probe.key, probe.shape) {
                    let slot = probe.index.get(probe.position);
                    slot.and_then(|slot| slot.value.as_ref()).map(&mut *f);
                    break;
                }
                if !probe.next() {
                    break;
                }
            }
        }
    }
}
