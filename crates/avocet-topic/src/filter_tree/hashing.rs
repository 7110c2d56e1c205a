//! Seeded hashes of names and levels.

use core::hash::Hasher as _;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// Odd, and its bits look random: spreads consecutive numbers over the whole word.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// No hash is greater, so that one number is left for what is no hash.
pub(super) const HASH_MAX: u32 = u32::MAX - 1;

/// Hashes with a seed that peers do not know, so that they cannot choose collisions.
#[derive(Clone, Debug)]
pub(super) struct Hashes {
    seed: SharedSeed,
    /// For levels of up to eight bytes, which are one word.
    words: [u64; 2],
}

impl Hashes {
    pub(super) fn new(seed: u64) -> Self {
        let seed = SharedSeed::from_u64(seed);
        let word = |salt| bytes(&seed, salt, &[]);
        Self {
            words: [word(SPREAD), word(!SPREAD)],
            seed,
        }
    }

    /// The hash of a whole name.
    pub(super) fn whole(&self, text: &str) -> u32 {
        finish(bytes(&self.seed, 0, text.as_bytes()))
    }

    /// The hash of a level at its position, counted from zero.
    ///
    /// A filter hashes to the sum of its levels without the wildcards, [`finish`]ed: so the hash
    /// of a name under any shape takes one subtraction per `+`.
    #[inline(never)]
    pub(super) fn level(&self, index: usize, level: &[u8]) -> u64 {
        if let Some(word) = short(level) {
            self.word(index, word)
        } else {
            self.long(index, level)
        }
    }

    /// The hash of the level that lies in a name from `start` to `end`: one word of memory, if the
    /// name does not end before.
    #[inline]
    pub(super) fn level_within(&self, index: usize, name: &[u8], start: usize, end: usize) -> u64 {
        let len = end - start;
        match name.get(start..start + 8) {
            Some(&[a, b, c, d, e, f, g, h]) if len <= 8 => {
                let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                // Shifted in two steps, so that a level of eight bytes is no special case.
                self.word(index, word & !(u64::MAX << (4 * len) << (4 * len)))
            }
            _ => self.level(index, name.get(start..end).unwrap_or_default()),
        }
    }

    /// No level holds U+0000, so the bytes behind it tell its length.
    fn word(&self, index: usize, word: u64) -> u64 {
        let [a, b] = self.words;
        let product = u128::from(word ^ a) * u128::from(salt(index) ^ b);
        product as u64 ^ (product >> 64) as u64
    }

    fn long(&self, index: usize, level: &[u8]) -> u64 {
        bytes(&self.seed, salt(index), level)
    }
}

/// A level of up to eight bytes, zeros behind it.
fn short(level: &[u8]) -> Option<u64> {
    let four = |at: usize| {
        let word = level.get(at..)?.first_chunk()?;
        Some(u64::from(u32::from_le_bytes(*word)))
    };
    match level.len() {
        len @ 4..=8 => Some(four(0)? | four(len - 4)? << (8 * (len - 4))),
        0..4 => {
            let bytes = level.iter().rev();
            Some(bytes.fold(0, |word, &byte| word << 8 | u64::from(byte)))
        }
        _ => None,
    }
}

const fn salt(index: usize) -> u64 {
    (index as u64).wrapping_add(1).wrapping_mul(SPREAD)
}

fn bytes(seed: &SharedSeed, salt: u64, bytes: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(salt, seed);
    hasher.write(bytes);
    hasher.finish()
}

/// Makes every bit of a sum of level hashes count in 32.
pub(super) const fn finish(sum: u64) -> u32 {
    let hash = (sum ^ (sum >> 32)) as u32;
    if hash > HASH_MAX { HASH_MAX } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_hashes_alike_wherever_it_lies() {
        let hashes = Hashes::new(7);
        let name = b"0123456789abcdefghij";
        for start in 0..name.len() {
            for end in start..=name.len() {
                let there = hashes.level_within(3, name, start, end);
                assert_eq!(there, hashes.level(3, &name[start..end]), "{start}..{end}");
                assert_ne!(there, hashes.level(4, &name[start..end]));
            }
        }
    }
}
