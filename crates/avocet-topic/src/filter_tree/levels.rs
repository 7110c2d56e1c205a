//! The levels of a name, hashed once and asked for in many shapes.

use super::hashing::{Hash, Hashes, Sum, Text};
use super::records::is_end;
use crate::shape::Shape;

/// The first `LEVELS` levels of a name.
pub(super) struct Levels<const LEVELS: usize> {
    /// What a row without levels has.
    start: Sum,
    levels: [Level; LEVELS],
    len: usize,
}

#[derive(Clone, Copy, Default)]
struct Level {
    hash: Sum,
    /// The sum of the levels up to this one.
    sum: Sum,
}

impl<const LEVELS: usize> Levels<LEVELS> {
    pub(super) fn new() -> Self {
        Self {
            start: Sum::default(),
            levels: [Level::default(); LEVELS],
            len: 0,
        }
    }

    /// The levels of a name, or of a filter; asked once.
    #[inline(always)]
    pub(super) fn fill(&mut self, hashes: &Hashes, name: &Text<'_>) {
        self.start = hashes.start();
        if !name.is_short() {
            self.fill_long(hashes, name.whole());
            return;
        }
        let (mut sum, mut start, mut len) = (self.start, 0, 0);
        let mut places = self.levels.iter_mut().zip(hashes.factors());
        for block in (0..=name.whole().len()).step_by(64) {
            let mut ends = ends(name, block);
            while ends != 0 {
                len += 1;
                let Some((place, factor)) = places.next() else {
                    break;
                };
                let end = block + ends.trailing_zeros() as usize;
                let hash = hashes.level_within(factor, name, start, end);
                sum = sum.plus(hash);
                *place = Level { hash, sum };
                start = end + 1;
                ends &= ends - 1;
            }
        }
        self.len = len;
    }

    #[cold]
    fn fill_long(&mut self, hashes: &Hashes, name: &[u8]) {
        let mut sum = self.start;
        let mut places = self.levels.iter_mut().zip(hashes.factors());
        for level in name.split(|&byte| byte == b'/') {
            self.len += 1;
            let Some((place, factor)) = places.next() else {
                return;
            };
            let hash = hashes.level(factor, level);
            sum = sum.plus(hash);
            *place = Level { hash, sum };
        }
    }

    /// The levels of the name, or some number above `LEVELS` if there are more.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The hash that a filter of this shape has if it matches, the `$` rule aside; the shape has at
    /// most `LEVELS` levels, and no more than the name.
    #[inline(always)]
    pub(super) fn hash(&self, shape: &Shape) -> Hash {
        let last = self.levels.get(shape.levels().wrapping_sub(1));
        let sum = last.map_or(self.start, |last| last.sum);
        let wild = plus_levels::<LEVELS>(shape).filter_map(|index| self.levels.get(index));
        wild.fold(sum, |sum, level| sum.minus(level.hash)).hash()
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

/// Bit `i` is set if byte `i` of the 64 that begin there is a `/`, or the first behind the name.
#[inline(always)]
fn ends(name: &Text<'_>, block: usize) -> u64 {
    let len = name.whole().len() - block;
    let mut set = if len < 64 { 1 << len } else { 0 };
    for at in (0..len.min(64)).step_by(8) {
        set |= separators(name.word(block + at)) << at;
    }
    set
}

/// Bit `i` is set if byte `i` is a `/`.
#[inline(always)]
const fn separators(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let word = word ^ u64::from_le_bytes([b'/'; 8]);
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
