//! The shape of a Topic Filter: where its wildcards are, whatever its other levels say.

use crate::TopicFilter;

/// Wildcards in deeper levels have no place in a [`Shape`].
pub(crate) const SHAPE_LEVELS_MAX: usize = 128;

/// How many levels a Topic Filter has, which of them are `+`, and whether it ends in `#`.
///
/// What one match in a [`FilterTree`](crate::FilterTree) costs grows with the number of shapes in
/// use, not with the number of filters: a server bounds how many shapes one client brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Levels without a final `#`; zero if there is no wildcard.
    levels: u16,
    multi_level: bool,
    /// Bit `i` is set if level `i` is `+`.
    plus: u128,
}

impl Shape {
    /// The shape of every filter without a wildcard, however many levels it has.
    pub const EXACT: Self = Self {
        levels: 0,
        multi_level: false,
        plus: 0,
    };

    /// Whether filters of this shape have no wildcard; these cost a match nothing.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self == Self::EXACT
    }

    /// Levels, without a final `#`.
    pub(crate) fn levels(self) -> usize {
        usize::from(self.levels)
    }

    /// Whether the filter ends in `#`.
    pub(crate) fn is_multi_level(self) -> bool {
        self.multi_level
    }

    /// Bit `i` is set if level `i` is `+`.
    pub(crate) fn plus(self) -> u128 {
        self.plus
    }

    /// Whether the first level is a wildcard.
    pub(crate) fn starts_with_wildcard(self) -> bool {
        self.plus & 1 == 1 || (self.levels == 0 && self.multi_level)
    }

    /// Whether all wildcards lie in the levels that a shape describes.
    pub(crate) fn is_complete(self) -> bool {
        self.levels() <= SHAPE_LEVELS_MAX
    }
}

/// The shape of a Topic Filter; of a Shared Subscription, pass the filter behind the Share Name.
///
/// Filters with wildcards and more than 128 levels share a shape if they have as many levels, the
/// same `+` among the first 128, and both or neither a `#`.
#[must_use]
pub fn shape(filter: TopicFilter<'_>) -> Shape {
    if !filter.has_wildcard() {
        return Shape::EXACT;
    }
    let mut shape = Shape::EXACT;
    for (index, level) in filter.levels().enumerate() {
        match level {
            "#" => {
                shape.multi_level = true;
                return shape;
            }
            "+" if index < SHAPE_LEVELS_MAX => shape.plus |= 1 << index,
            _ => {}
        }
        // A filter of 65,535 bytes has at most 65,536 levels; only depth beyond 128 matters.
        shape.levels = shape.levels.saturating_add(1);
    }
    shape
}
