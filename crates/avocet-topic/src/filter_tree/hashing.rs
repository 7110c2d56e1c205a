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
}

impl Hashes {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed: SharedSeed::from_u64(seed),
        }
    }

    /// The hash of a whole name.
    pub(super) fn whole(&self, text: &str) -> u32 {
        finish(self.bytes(0, text.as_bytes()))
    }

    /// The hash of a level at its position, counted from zero.
    ///
    /// A filter hashes to the sum of its levels without the wildcards, [`finish`]ed: so the hash
    /// of a name under any shape takes one subtraction per `+`.
    pub(super) fn level(&self, index: usize, level: &[u8]) -> u64 {
        self.bytes((index as u64).wrapping_add(1).wrapping_mul(SPREAD), level)
    }

    fn bytes(&self, salt: u64, bytes: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(salt, &self.seed);
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Makes every bit of a sum of level hashes count in 32.
pub(super) fn finish(sum: u64) -> u32 {
    let product = u128::from(sum ^ SPREAD.rotate_left(32)) * u128::from(SPREAD);
    ((product ^ (product >> 64)) as u32).min(HASH_MAX)
}
