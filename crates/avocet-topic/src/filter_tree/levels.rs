//! The levels of a name, hashed once and compared with many filters.

use super::hashing::{Hashes, finish};
use crate::shape::Shape;

/// The first `LEVELS` levels of a name.
pub(super) struct Levels<'n, const LEVELS: usize> {
    name: &'n [u8],
    /// Where each level ends in the name, in bytes.
    ends: [u32; LEVELS],
    /// The hash of each level.
    hashes: [u64; LEVELS],
    /// The sum of the hashes up to each level, itself included.
    sums: [u64; LEVELS],
}

impl<'n, const LEVELS: usize> Levels<'n, LEVELS> {
    pub(super) fn new(hashes: &Hashes, name: &'n str) -> Self {
        let name = name.as_bytes();
        let mut levels = Self {
            name,
            ends: [0; LEVELS],
            hashes: [0; LEVELS],
            sums: [0; LEVELS],
        };
        let slots = levels
            .ends
            .iter_mut()
            .zip(&mut levels.hashes)
            .zip(&mut levels.sums);
        let mut end = 0;
        let mut sum = 0_u64;
        for ((index, level), ((end_slot, hash_slot), sum_slot)) in
            name.split(|&byte| byte == b'/').enumerate().zip(slots)
        {
            let hash = hashes.level(index, level);
            sum = sum.wrapping_add(hash);
            end += level.len();
            *end_slot = end as u32;
            *hash_slot = hash;
            *sum_slot = sum;
            end += 1;
        }
        levels
    }

    /// The hash that a filter of this shape has if it matches; the shape has at most `LEVELS`
    /// levels, and no more than the name.
    pub(super) fn hash(&self, shape: Shape) -> u32 {
        let last = shape
            .levels()
            .checked_sub(1)
            .and_then(|last| self.sums.get(last));
        let wild = plus_levels(shape)
            .map(|index| self.hashes.get(index).copied().unwrap_or_default())
            .fold(0, u64::wrapping_add);
        finish(last.copied().unwrap_or_default().wrapping_sub(wild))
    }

    /// Whether a filter of this shape matches, the `$` rule aside; its text ends at the first zero
    /// byte.
    pub(super) fn are_matched_by(&self, filter: &[u8], shape: Shape) -> bool {
        self.rest_behind(filter, shape)
            .is_some_and(|rest| match rest {
                [0, ..] => !shape.is_multi_level(),
                [b'/', b'#', ..] => shape.is_multi_level(),
                [b'#', ..] => shape.levels() == 0,
                _ => false,
            })
    }

    /// What is left of a filter behind the levels of its shape if they match.
    ///
    /// Between two `+` the filter and the name are the same bytes, separators included.
    fn rest_behind<'f>(&self, mut filter: &'f [u8], shape: Shape) -> Option<&'f [u8]> {
        let mut start = 0;
        for index in plus_levels(shape) {
            let end = index
                .checked_sub(1)
                .map_or(Some(0), |before| Some(self.end(before)? + 1))?;
            filter = filter
                .strip_prefix(self.name.get(start..end)?)?
                .strip_prefix(b"+")?;
            start = self.end(index)?;
        }
        let end = shape
            .levels()
            .checked_sub(1)
            .map_or(Some(0), |last| self.end(last))?;
        filter.strip_prefix(self.name.get(start..end)?)
    }

    fn end(&self, index: usize) -> Option<usize> {
        self.ends.get(index).map(|&end| end as usize)
    }
}

/// The positions of `+`, ascending.
fn plus_levels(shape: Shape) -> impl Iterator<Item = usize> {
    let mut plus = shape.plus();
    core::iter::from_fn(move || {
        let index = (plus != 0).then(|| plus.trailing_zeros() as usize)?;
        plus &= plus - 1;
        Some(index)
    })
}

/// Whether the filter that ends at the first zero byte matches a name, the `$` rule aside.
pub(super) fn covers(filter: &[u8], name: &str) -> bool {
    let mut filter = filter.iter();
    let mut name = name.bytes();
    loop {
        match filter.next() {
            Some(b'+') => match name.find(|&byte| byte == b'/') {
                // Both levels are over: the filter goes on with a separator, as the name did.
                Some(_) => match filter.next() {
                    Some(b'/') => {
                        if filter.as_slice().starts_with(b"#\0") {
                            return true;
                        }
                    }
                    _ => return false,
                },
                None => return matches!(filter.as_slice(), [0, ..] | [b'/', b'#', ..]),
            },
            Some(b'#') => return true,
            Some(0) | None => return name.next().is_none(),
            Some(&byte) => match name.next() {
                Some(same) if same == byte => {}
                Some(_) => return false,
                None => return byte == b'/' && filter.as_slice().starts_with(b"#"),
            },
        }
    }
}
