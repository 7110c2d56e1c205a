//! The levels of a name, hashed once and compared with many filters.

use super::hashing::{Hashes, finish};
use super::records::{is_end, strip};
use crate::shape::Shape;

/// The first `LEVELS` levels of a name.
pub(super) struct Levels<'n, const LEVELS: usize> {
    name: &'n [u8],
    levels: [Level; LEVELS],
    len: usize,
}

#[derive(Clone, Copy, Default)]
struct Level {
    /// Where it ends in the name, in bytes.
    end: usize,
    hash: u64,
    /// The sum of the hashes up to this one.
    sum: u64,
}

impl<'n, const LEVELS: usize> Levels<'n, LEVELS> {
    pub(super) fn new(hashes: &Hashes, name: &'n str) -> Self {
        let name = name.as_bytes();
        let mut levels = [Level::default(); LEVELS];
        let mut places = levels.iter_mut().enumerate();
        let (mut start, mut sum) = (0, 0_u64);
        let mut add = |end: usize| {
            let (index, place) = places.next()?;
            let hash = hashes.level_within(index, name, start, end);
            sum = sum.wrapping_add(hash);
            *place = Level { end, hash, sum };
            start = end + 1;
            Some(index + 1)
        };
        for (number, block) in name.chunks(64).enumerate() {
            let mut found = separators(block);
            while found != 0 {
                if add(64 * number + found.trailing_zeros() as usize).is_none() {
                    break;
                }
                found &= found - 1;
            }
        }
        let len = add(name.len()).unwrap_or(LEVELS + 1);
        Self { name, levels, len }
    }

    /// The levels of the name, or one more than `LEVELS` if there are more.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The hash that a filter of this shape has if it matches; the shape has at most `LEVELS`
    /// levels, and no more than the name.
    pub(super) fn hash(&self, shape: &Shape) -> u32 {
        let last = self.levels.get(shape.levels().wrapping_sub(1));
        let sum = last.map_or(0, |last| last.sum);
        let wild = plus_levels::<LEVELS>(shape)
            .map(|index| self.levels.get(index).map_or(0, |level| level.hash));
        finish(wild.fold(sum, u64::wrapping_sub))
    }

    /// Whether a filter of this shape matches, the `$` rule aside; its text ends there or at the
    /// first zero byte.
    pub(super) fn are_matched_by(&self, filter: &[u8], shape: &Shape) -> bool {
        self.rest_behind(filter, shape).is_some_and(|rest| {
            let rest = match (shape.is_multi_level(), shape.levels()) {
                (false, _) => Some(rest),
                (true, 0) => rest.strip_prefix(b"#"),
                (true, _) => rest.strip_prefix(b"/#"),
            };
            rest.is_some_and(is_end)
        })
    }

    /// What is left of a filter behind the levels of its shape if they match.
    ///
    /// Between two `+` the filter and the name are the same bytes, separators included.
    fn rest_behind<'f>(&self, mut filter: &'f [u8], shape: &Shape) -> Option<&'f [u8]> {
        let mut start = 0;
        for index in plus_levels::<LEVELS>(shape) {
            let end = index
                .checked_sub(1)
                .map_or(Some(0), |before| Some(self.end(before)? + 1))?;
            filter = strip(filter, self.name.get(start..end)?)?.strip_prefix(b"+")?;
            start = self.end(index)?;
        }
        let end = shape
            .levels()
            .checked_sub(1)
            .map_or(Some(0), |last| self.end(last))?;
        strip(filter, self.name.get(start..end)?)
    }

    fn end(&self, index: usize) -> Option<usize> {
        Some(self.levels.get(index)?.end)
    }
}

/// The positions of `+` among so many levels, ascending.
fn plus_levels<const LEVELS: usize>(shape: &Shape) -> impl Iterator<Item = usize> {
    let mut plus = shape.plus();
    core::iter::from_fn(move || {
        if LEVELS <= 16 {
            // A word of 64 bits takes half as many instructions.
            let set = plus as u64 & 0xffff;
            plus = u128::from(set & set.wrapping_sub(1));
            return (set != 0).then_some(set.trailing_zeros() as usize);
        }
        let index = (plus != 0).then(|| plus.trailing_zeros() as usize)?;
        plus &= plus - 1;
        Some(index)
    })
}

/// Bit `i` is set if byte `i` of at most 64 is a `/`.
fn separators(block: &[u8]) -> u64 {
    let (words, rest) = block.as_chunks();
    let mut last = [0; 8];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    let words = words.iter().chain([&last]).zip((0..64).step_by(8));
    words.fold(0, |set, (word, at)| set | separators_of_word(*word) << at)
}

const fn separators_of_word(word: [u8; 8]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let word = u64::from_le_bytes(word) ^ u64::from_le_bytes([b'/'; 8]);
    // The highest bit of each byte that is zero.
    let zeros = !(((word & LOW) + LOW) | word | LOW);
    // These bits, next to each other.
    (zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Whether a filter, which ends there or at the first zero byte, matches a name, the `$` rule
/// aside.
pub(super) fn covers(filter: &[u8], name: &str) -> bool {
    let mut filter = filter.iter();
    let mut name = name.bytes();
    loop {
        match filter.next() {
            Some(b'+') => match name.find(|&byte| byte == b'/') {
                // Both levels are over: the filter goes on with a separator, as the name did.
                Some(_) => match filter.next() {
                    Some(b'/') => {
                        if filter.as_slice().strip_prefix(b"#").is_some_and(is_end) {
                            return true;
                        }
                    }
                    _ => return false,
                },
                None => {
                    let rest = filter.as_slice();
                    return is_end(rest) || rest.starts_with(b"/#");
                }
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
