use core::fmt;

use crate::version::Version;

/// What a [`List`] can hold.
pub trait ListItem<'a>: Copy {
    /// Takes the next item off a wire section that was validated before.
    #[doc(hidden)]
    fn read(section: &mut &'a [u8], version: Version) -> Option<Self>;
}

/// A list of items that borrows: either a slice of them, or the bytes of a validated packet, read
/// anew by each iteration.
pub struct List<'a, T> {
    source: Source<'a, T>,
}

enum Source<'a, T> {
    Items(&'a [T]),
    V3_1(&'a [u8]),
    V3_1_1(&'a [u8]),
    V5(&'a [u8]),
}

impl<'a, T> List<'a, T> {
    /// No items.
    pub const EMPTY: Self = Self::from_slice(&[]);

    /// The items of a slice.
    #[inline]
    pub const fn from_slice(items: &'a [T]) -> Self {
        Self {
            source: Source::Items(items),
        }
    }

    /// True when there is nothing to iterate over; false says nothing.
    #[inline]
    pub(crate) const fn is_plainly_empty(&self) -> bool {
        match self.source {
            Source::Items(items) => items.is_empty(),
            Source::V3_1(section) | Source::V3_1_1(section) | Source::V5(section) => {
                section.is_empty()
            }
        }
    }

    /// The items of a section that has been read through once without an error.
    #[inline]
    pub(crate) const fn from_wire(section: &'a [u8], version: Version) -> Self {
        Self {
            source: match version {
                Version::V3_1 => Source::V3_1(section),
                Version::V3_1_1 => Source::V3_1_1(section),
                Version::V5 => Source::V5(section),
            },
        }
    }
}

impl<'a, T: ListItem<'a>> List<'a, T> {
    /// The items in order.
    #[inline]
    pub fn iter(&self) -> Iter<'a, T> {
        Iter {
            source: self.source,
        }
    }

    /// The items in order, with a loop for each place where they may be.
    #[inline(always)]
    pub(crate) fn each(&self, mut take: impl FnMut(T)) {
        if let Source::Items(items) = self.source {
            for item in items {
                take(*item);
            }
        } else {
            for item in self.iter() {
                take(item);
            }
        }
    }

    /// True when there is no item.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self.source {
            Source::Items(items) => items.is_empty(),
            Source::V3_1(section) | Source::V3_1_1(section) | Source::V5(section) => {
                section.is_empty() || self.iter().next().is_none()
            }
        }
    }

    /// The number of items; counts them when they are on the wire.
    pub fn len(&self) -> usize {
        match self.source {
            Source::Items(items) => items.len(),
            Source::V3_1(_) | Source::V3_1_1(_) | Source::V5(_) => self.iter().count(),
        }
    }
}

/// The items of a [`List`].
pub struct Iter<'a, T> {
    source: Source<'a, T>,
}

impl<'a, T: ListItem<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        let (section, version) = match &mut self.source {
            Source::Items(items) => return items.split_off_first().copied(),
            Source::V3_1(section) => (section, Version::V3_1),
            Source::V3_1_1(section) => (section, Version::V3_1_1),
            Source::V5(section) => (section, Version::V5),
        };
        let (item, rest) = read(section, version);
        *section = rest;
        item
    }
}

/// The first item of a section and what is behind it: apart and as values, so that loops over the
/// items of a slice stay small and in registers.
#[inline(never)]
fn read<'a, T: ListItem<'a>>(mut section: &'a [u8], version: Version) -> (Option<T>, &'a [u8]) {
    let item = T::read(&mut section, version);
    (item, section)
}

impl<'a, T: ListItem<'a>> core::iter::FusedIterator for Iter<'a, T> {}

impl<T> Clone for Source<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Source<'_, T> {}

impl<T> Clone for List<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> Clone for Iter<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            source: self.source,
        }
    }
}

impl<T> Default for List<'_, T> {
    #[inline]
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self::from_slice(items)
    }
}

impl<'a, T: ListItem<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: ListItem<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Lists are equal when their items are, wherever these come from.
impl<'a, 'b, T, U> PartialEq<List<'b, U>> for List<'a, T>
where
    T: ListItem<'a> + PartialEq<U>,
    U: ListItem<'b>,
{
    fn eq(&self, other: &List<'b, U>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: ListItem<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: ListItem<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: ListItem<'a> + fmt::Debug> fmt::Debug for Iter<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[cfg(feature = "serde")]
impl<'a, T: ListItem<'a> + serde::Serialize> serde::Serialize for List<'a, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
