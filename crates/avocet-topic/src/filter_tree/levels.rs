//! The levels of a name, hashed once and asked for in many shapes.

use avocet_bytes::places;

use super::hashing::{Hash, Hashes, Sum, Text};
use super::records::is_end;
use crate::shape::Shape;

/// The first `LEVELS` levels of a name.
pub(super) struct Levels<const LEVELS: usize> {
    levels: [Sum; LEVELS],
    /// The sums of the levels before each.
    before: [Sum; LEVELS],
    len: usize,
    /// The sum of all levels.
    sum: Sum,
}

impl<const LEVELS: usize> Levels<LEVELS> {
    pub(super) fn new() -> Self {
        Self {
            levels: [Sum::default(); LEVELS],
            before: [Sum::default(); LEVELS],
            len: 0,
            sum: Sum::default(),
        }
    }

    /// The levels of a name, or of a filter; asked once.
    #[inline(always)]
    pub(super) fn fill(&mut self, hashes: &Hashes, name: &Text<'_>) {
        let (mut sum, mut start, mut len) = (hashes.start(), 0, 0);
        let mut block = 0;
        'name: while block <= name.whole().len() {
            let mut ends = ends(name, block);
            while ends != 0 {
                if len == LEVELS {
                    len += 1;
                    break 'name;
                }
                let end = block + ends.trailing_zeros() as usize;
                if let (Some(level), Some(before), Some(factor)) = (
                    self.levels.get_mut(len),
                    self.before.get_mut(len),
                    hashes.factors().get(len),
                ) {
                    let hash = hashes.level((len, factor), name, start, end);
                    *level = hash;
                    *before = sum;
                    sum = sum.plus(hash);
                }
                start = end + 1;
                len += 1;
                ends &= ends - 1;
            }
            block += 64;
        }
        self.len = len;
        self.sum = sum;
    }

    /// The levels of the name, or some number above `LEVELS` if there are more.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The hash that a filter of this shape has if it matches, the `$` rule aside; the shape has at
    /// most `LEVELS` levels, and no more than the name.
    #[inline(always)]
    pub(super) fn hash(&self, shape: &Shape) -> Hash {
        let sum = if shape.levels() < self.len {
            self.before.get(shape.levels()).unwrap_or(&self.sum)
        } else {
            &self.sum
        };
        self.hash_of(*sum, shape)
    }

    /// The same for a shape of as many levels as the name has.
    #[inline(always)]
    pub(super) fn hash_all(&self, shape: &Shape) -> Hash {
        self.hash_of(self.sum, shape)
    }

    /// The hash of the levels that add up to this, without those that are `+`.
    #[inline(always)]
    fn hash_of(&self, mut sum: Sum, shape: &Shape) -> Hash {
        if LEVELS <= 16 {
            // One word takes half as many instructions as two.
            let mut plus = shape.plus() as u64;
            while plus != 0 {
                sum = self.without(sum, plus.trailing_zeros());
                plus &= plus - 1;
            }
        } else {
            let mut plus = shape.plus();
            while plus != 0 {
                sum = self.without(sum, plus.trailing_zeros());
                plus &= plus - 1;
            }
        }
        sum.hash()
    }

    /// A sum without that of a level.
    #[inline(always)]
    fn without(&self, sum: Sum, position: u32) -> Sum {
        let level = self.levels.get(position as usize % LEVELS);
        level.map_or(sum, |level| sum.minus(level))
    }
}

/// Bit `i` is set if byte `i` of the 64 that begin there is a `/`, or the first behind the name.
#[inline(always)]
fn ends(name: &Text<'_>, block: usize) -> u64 {
    let whole = name.whole();
    let bytes = whole.get(block..).unwrap_or_default();
    let bytes = bytes.get(..64).unwrap_or(bytes);
    let Some(last) = whole.last_chunk() else {
        return ends_of_few(name);
    };
    let (chunks, rest) = bytes.as_chunks();
    let mut set = if bytes.len() < 64 {
        1 << bytes.len()
    } else {
        0
    };
    let mut at = 0;
    for chunk in chunks {
        set |= u64::from(places(chunk, b'/')) << at;
        at += 16;
    }
    if !rest.is_empty() {
        set |= u64::from(places(last, b'/') >> (16 - rest.len())) << at;
    }
    set
}

/// The same for a name of less than sixteen bytes.
#[inline(never)]
fn ends_of_few(name: &Text<'_>) -> u64 {
    let len = name.whole().len();
    let high = if len > 8 { name.word(8) } else { 0 };
    let words = u128::from(name.word(0)) | u128::from(high) << 64;
    // The zeros behind the name are no separators.
    u64::from(places(&words.to_le_bytes(), b'/')) | 1 << len
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
