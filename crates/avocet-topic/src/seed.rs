//! Where keys that peers must not know come from.

use core::fmt;
use core::hash::Hasher;

/// Entropy that peers cannot guess, of which secret keys are made.
///
/// Drawn from the system's entropy, once, and told nobody. A program whose filters nobody else
/// chooses may take any number.
#[derive(Clone, Copy)]
pub struct Seed([[u64; 2]; 2]);

impl Seed {
    /// A seed of these 256 bits.
    #[must_use]
    pub const fn new(entropy: [u64; 4]) -> Self {
        let [a, b, c, d] = entropy;
        Self([[a, b], [c, d]])
    }

    /// The number with this count for a purpose. None tells the seed, or any other: SipHash with two
    /// keys. Purpose 0 is the key of a [`FilterTree`](crate::FilterTree).
    #[must_use]
    pub fn number(&self, purpose: u64, count: u64) -> u64 {
        let [left, right] = self.0;
        // What is hashed differs too: both keys of a seed may be the same.
        sip(left, [0, purpose, count]) ^ sip(right, [1, purpose, count])
    }
}

/// Any number will do where nobody but the program itself chooses filters.
impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        Self::new([number, 0, 0, 0])
    }
}

/// It is a secret.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed").finish_non_exhaustive()
    }
}

fn sip([low, high]: [u64; 2], words: [u64; 3]) -> u64 {
    #[expect(
        deprecated,
        reason = "without std it is the only hash whose results do not tell its key"
    )]
    let mut hasher = core::hash::SipHasher::new_with_keys(low, high);
    for word in words {
        hasher.write_u64(word);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    #[test]
    fn numbers_depend_on_every_part_of_the_seed_and_on_the_purpose() {
        let of = |seed: Seed, purpose| [1, 2].map(|count| seed.number(purpose, count));
        let mut all: Vec<[u64; 2]> = (0..4)
            .map(|part| {
                let mut entropy = [1, 2, 3, 4];
                entropy[part] += 1 << 63;
                of(Seed::new(entropy), 0)
            })
            .collect();
        all.push(of(Seed::new([1, 2, 3, 4]), 0));
        all.push(of(Seed::new([1, 2, 3, 4]), 1));
        assert_eq!(of(Seed::new([1, 2, 3, 4]), 1), all[5]);
        // One whose keys are the same.
        all.push(of(Seed::from(0), 0));
        let different: BTreeSet<u64> = all.iter().flatten().copied().collect();
        assert_eq!(different.len(), 14);
    }

    #[test]
    fn a_seed_is_not_printed() {
        assert_eq!(std::format!("{:?}", Seed::from(77)), "Seed { .. }");
    }
}
