//! Keyed hashes that tell filters apart.
//!
//! A text is hashed as a row of at most 128 pieces: a filter with wildcards as its levels, one
//! without as its bytes by sevens, of which the last piece takes all that are left. Everything is
//! done twice, with independent keys.
//!
//! - Words are seven bytes, so less than the prime `p` = 2⁶¹ − 1. A piece of one word is that word;
//!   a longer one is a polynomial mod `p` in two keys whose coefficients are its words, of degree
//!   200 at most. No text holds U+0000, so different pieces are different polynomials, and take the
//!   same value for at most 200 of `p` keys.
//! - The value of piece `i` is multiplied by a key of its own mod `p`. These products are added to a
//!   last key mod 2⁶⁴, so that a name loses a level by one subtraction; those of a text without wildcards are
//!   added mod `p` before. Of the sum 52 bits are kept.
//!
//! Say two rows differ in a piece whose values differ too. The 52 bits are the same if the
//! difference of its two products, which lies between −`p` and `p`, is one of the 2¹⁰ numbers there
//! that the other pieces leave, and each of them belongs to one key of the `p` that there are. (It is the
//! difference of the sums for texts without wildcards.) So the bits of one half agree for at most
//! (200 + 2¹⁰) / `p` of the keys, less than 2^−50.7, and those of both halves for less than 2^−101.
//! What [`Hash`] does to two of their values adds less than a millionth part to that, because the
//! last key makes all of them as likely.

use alloc::boxed::Box;
use core::num::NonZeroU32;

use crate::shape::SHAPE_LEVELS_MAX;

const PRIME: u64 = (1 << 61) - 1;

const WORD_BYTES: usize = 7;

/// What a word takes of eight bytes.
const WORD: u64 = (1 << (8 * WORD_BYTES)) - 1;

/// Words of a piece for which one power of the other key is taken.
const BLOCK_WORDS: usize = 128;

/// Odd, and its bits look random.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// No hash is in order behind it, so that one number is left for what is no hash.
pub(super) const ORDER_MAX: u32 = u32::MAX - 1;

/// What a filter is known by in its table, in 104 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    first: u64,
    /// 40 bits.
    second: u64,
}

impl Hash {
    pub(super) fn new(order: u32, check: u32, rest: u8, seal: NonZeroU32) -> Self {
        Self {
            first: u64::from(order) << 32 | u64::from(check),
            second: u64::from(rest) << 32 | u64::from(seal.get()),
        }
    }

    /// Where it lies, at most [`ORDER_MAX`].
    #[inline(always)]
    pub(super) const fn order(&self) -> u32 {
        let order = (self.first >> 32) as u32;
        order - (order > ORDER_MAX) as u32
    }

    #[inline(always)]
    pub(super) const fn check(&self) -> u32 {
        self.first as u32
    }

    #[inline(always)]
    pub(super) const fn rest(&self) -> u8 {
        (self.second >> 32) as u8
    }

    /// Not zero, so that it takes no memory to tell where there is no filter.
    #[inline(always)]
    pub(super) const fn seal(&self) -> NonZeroU32 {
        match NonZeroU32::new(self.second as u32) {
            Some(seal) => seal,
            None => NonZeroU32::MIN,
        }
    }
}

/// The sums of the products of some pieces, for both keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(u64, u64);

impl Sum {
    #[inline(always)]
    pub(super) const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0), self.1.wrapping_add(other.1))
    }

    #[inline(always)]
    pub(super) const fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0), self.1.wrapping_sub(other.1))
    }

    /// Keeps 52 bits of each half.
    #[inline(always)]
    pub(super) const fn hash(self) -> Hash {
        let Self(a, b) = self;
        // Sums of names that count up go up by steps, which would lie side by side: so 64 of the
        // bits are mixed, which can be undone.
        let mixed = a & ((1 << 52) - 1) | b << 52;
        Hash {
            first: (mixed ^ mixed >> 32).wrapping_mul(SPREAD),
            second: b << 12 >> 24,
        }
    }
}

/// Bytes of a text that are copied.
const SHORT_BYTES: usize = 128;

/// Where a short text is copied to.
pub(super) type Room = [u8; SHORT_BYTES + 8];

pub(super) const NO_ROOM: Room = [0; SHORT_BYTES + 8];

/// A text, with zeros behind it if it is short, so that a word takes one read wherever it begins.
pub(super) struct Text<'t> {
    whole: &'t [u8],
    short: &'t Room,
}

impl<'t> Text<'t> {
    #[inline(always)]
    pub(super) fn new(text: &'t str, room: &'t mut Room) -> Self {
        let whole = text.as_bytes();
        if let (true, Some(head)) = (whole.len() <= SHORT_BYTES, room.get_mut(..whole.len())) {
            head.copy_from_slice(whole);
        }
        Self { whole, short: room }
    }

    /// Its bytes.
    pub(super) const fn whole(&self) -> &'t [u8] {
        self.whole
    }

    /// Whether words can be read of it.
    #[inline(always)]
    pub(super) const fn is_short(&self) -> bool {
        self.whole.len() <= SHORT_BYTES
    }

    /// Eight bytes of a short text from there.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        let bytes = self.short.get(at % SHORT_BYTES..).unwrap_or_default();
        u64::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default())
    }
}

/// A key that peers do not know, so that they cannot choose texts with the same hash.
#[derive(Clone, Debug)]
pub(super) struct Hashes {
    key: Box<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    start: Sum,
    factors: [[u64; 2]; SHAPE_LEVELS_MAX],
    /// Within the blocks of a long piece, and for the blocks.
    powers: [[u64; 2]; 2],
}

impl Hashes {
    pub(super) fn new(seed: u64) -> Self {
        // SplitMix64.
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_add(SPREAD);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let start = Sum(random(), random());
        let mut number = || {
            loop {
                let number = random() >> 3;
                if number < PRIME {
                    return number;
                }
            }
        };
        let mut pair = || [number(), number()];
        let powers = [pair(), pair()];
        let mut factors = [[0; 2]; SHAPE_LEVELS_MAX];
        factors.fill_with(pair);
        Self {
            key: Box::new(Key {
                start,
                factors,
                powers,
            }),
        }
    }

    /// Of these texts alone those that differ within the first so many pieces differ in hash.
    #[cfg(test)]
    pub(super) fn weak(pieces: usize) -> Self {
        let mut weak = Self::new(0);
        for factor in weak.key.factors.iter_mut().skip(pieces) {
            *factor = [0; 2];
        }
        weak
    }

    /// Bytes on the heap.
    pub(super) const fn allocated_bytes() -> usize {
        size_of::<Key>()
    }

    /// What a row without pieces has.
    pub(super) const fn start(&self) -> Sum {
        self.key.start
    }

    /// The hash of a text without wildcards.
    #[inline(always)]
    pub(super) fn whole(&self, text: &Text<'_>) -> Hash {
        let len = text.whole.len();
        // Each product is below 2^122 and all but one below 2^117: these are divided but once.
        let mut products = [0; 2];
        if text.is_short() {
            let places = (0..len).step_by(WORD_BYTES);
            for (factor, at) in self.key.factors.iter().zip(places) {
                add(&mut products, factor, [text.word(at) & WORD; 2]);
            }
        } else {
            self.add_pieces(&mut products, text.whole);
        }
        let [a, b] = products.map(|product| {
            let low = (product as u64 & PRIME) + ((product >> 61) as u64 & PRIME);
            below_prime((low & PRIME) + (low >> 61) + (product >> 122) as u64)
        });
        self.start().plus(Sum(a, b)).hash()
    }

    /// Adds the products of a text without wildcards.
    #[cold]
    fn add_pieces(&self, products: &mut [u128; 2], text: &[u8]) {
        let (factors, last) = self.key.factors.split_at(SHAPE_LEVELS_MAX - 1);
        for (factor, word) in factors.iter().zip(text.chunks(WORD_BYTES)) {
            add(products, factor, [short(word); 2]);
        }
        if let (Some(rest), [factor]) = (text.get(factors.len() * WORD_BYTES..), last) {
            add(products, factor, self.piece(rest));
        }
    }

    /// The keys of levels, by their positions.
    pub(super) const fn factors(&self) -> &[[u64; 2]; SHAPE_LEVELS_MAX] {
        &self.key.factors
    }

    /// What a level adds to the sum with the key of its position.
    ///
    /// The sum of a name under any shape takes one subtraction for each `+`.
    #[inline(never)]
    pub(super) fn level(&self, factor: &[u64; 2], level: &[u8]) -> Sum {
        product(factor, self.piece(level))
    }

    /// The same of the level that lies in a short name from `start` to `end`: one read if it is
    /// short.
    #[inline(always)]
    pub(super) fn level_within(
        &self,
        factor: &[u64; 2],
        name: &Text<'_>,
        start: usize,
        end: usize,
    ) -> Sum {
        let len = end - start;
        if len <= WORD_BYTES {
            let word = name.word(start) & !(u64::MAX << (8 * len));
            product(factor, [word; 2])
        } else {
            self.level(factor, name.whole.get(start..end).unwrap_or_default())
        }
    }

    /// The value of a piece.
    fn piece(&self, piece: &[u8]) -> [u64; 2] {
        if piece.len() <= WORD_BYTES {
            return [short(piece); 2];
        }
        let [[a, b], [c, d]] = self.key.powers;
        let mut value = [0; 2];
        for block in piece.chunks(BLOCK_WORDS * WORD_BYTES) {
            let mut sums = [0; 2];
            for word in block.chunks(WORD_BYTES).map(short) {
                sums = [plus(times(sums[0], a), word), plus(times(sums[1], b), word)];
            }
            value = [
                plus(times(value[0], c), sums[0]),
                plus(times(value[1], d), sums[1]),
            ];
        }
        value
    }
}

#[inline(always)]
const fn product([a, b]: &[u64; 2], [c, d]: [u64; 2]) -> Sum {
    Sum(times(*a, c), times(*b, d))
}

/// Adds a product that is not divided.
#[inline(always)]
fn add([one, other]: &mut [u128; 2], [a, b]: &[u64; 2], [c, d]: [u64; 2]) {
    *one += u128::from(*a) * u128::from(c);
    *other += u128::from(*b) * u128::from(d);
}

/// Up to seven bytes, zeros behind them.
fn short(bytes: &[u8]) -> u64 {
    let four = |at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u64::from(u32::from_le_bytes(*word)))
    };
    match (four(0), bytes.len().checked_sub(4)) {
        (Some(first), Some(more)) => first | four(more).unwrap_or_default() << (8 * more),
        _ => {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |word, &byte| word << 8 | u64::from(byte))
        }
    }
}

/// What is left of a number below 2 `p`.
#[inline(always)]
const fn below_prime(number: u64) -> u64 {
    let less = number.wrapping_sub(PRIME);
    if number >= PRIME { less } else { number }
}

/// The product of two numbers below `p`, mod `p`.
#[inline(always)]
const fn times(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    below_prime((product as u64 & PRIME) + (product >> 61) as u64)
}

/// The sum of two numbers below `p`, mod `p`.
#[inline(always)]
const fn plus(a: u64, b: u64) -> u64 {
    below_prime(a + b)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    /// The words of a piece.
    fn words(piece: &[u8]) -> Vec<u128> {
        let word = |bytes: &[u8]| {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |word, &byte| word << 8 | u128::from(byte))
        };
        piece.chunks(7).map(word).collect()
    }

    /// What the module says, by the letter; products are added mod `modulus`.
    fn by_the_letter(hashes: &Hashes, pieces: &[&[u8]], modulus: u128) -> Hash {
        let prime = u128::from(PRIME);
        let half = |half: usize| {
            let of = |pair: [u64; 2]| u128::from(pair[half]);
            let [x, y] = hashes.key.powers.map(of);
            let power = |base: u128, exponent: usize| {
                (0..exponent).fold(1, |product, _| product * base % prime)
            };
            let value = |piece: &[u8]| {
                let words = words(piece);
                let blocks = words.chunks(128).rev().enumerate();
                blocks.fold(0, |sum, (number, block)| {
                    let words = block.iter().rev().enumerate();
                    let block =
                        words.fold(0, |sum, (at, word)| (sum + word * power(x, at)) % prime);
                    (sum + block * power(y, number)) % prime
                })
            };
            let products = pieces.iter().zip(hashes.key.factors);
            let sum = products.fold(0, |sum, (piece, factor)| {
                (sum + value(piece) * of(factor) % prime) % modulus
            });
            sum as u64
        };
        hashes.start().plus(Sum(half(0), half(1))).hash()
    }

    fn text(len: usize) -> String {
        let letter = |at: usize| char::from(b'!' + (at * at % 89) as u8);
        (0..len).map(letter).collect()
    }

    #[test]
    fn texts_hash_as_they_should() {
        for seed in [0, u64::MAX] {
            let hashes = Hashes::new(seed);
            let lens = (1..150)
                .chain(880..910)
                .chain([1_777, 1_785, 1_786, 4_000, 65_535]);
            for text in lens.map(text) {
                let (head, rest) = text.as_bytes().split_at(text.len().min(127 * 7));
                let pieces: Vec<&[u8]> = head.chunks(7).chain([rest]).collect();
                let expected = by_the_letter(&hashes, &pieces, u128::from(PRIME));
                assert_eq!(
                    hashes.whole(&Text::new(&text, &mut NO_ROOM.clone())),
                    expected,
                    "{}",
                    text.len()
                );
            }
        }
    }

    #[test]
    fn levels_hash_as_they_should() {
        let hashes = Hashes::new(3);
        for text in (0..40).chain([900, 3_000, 65_535]).map(text) {
            let sum = hashes
                .start()
                .plus(hashes.level(&hashes.factors()[2], text.as_bytes()));
            let pieces = [&[], &[], text.as_bytes()];
            assert_eq!(
                sum.hash(),
                by_the_letter(&hashes, &pieces, 1 << 64),
                "{text}"
            );
        }
    }

    #[test]
    fn a_level_hashes_alike_wherever_it_lies() {
        let hashes = Hashes::new(7);
        let name = "0123456789abcdefghij";
        let [_, _, two, three, ..] = hashes.factors();
        for len in 1..=name.len() {
            let mut room = NO_ROOM;
            let text = Text::new(&name[..len], &mut room);
            for start in 0..=len {
                for end in start..=len {
                    let there = hashes.level_within(three, &text, start, end);
                    let level = &name.as_bytes()[start..end];
                    assert_eq!(there, hashes.level(three, level), "{start}..{end} of {len}");
                    assert!(level.is_empty() || there != hashes.level(two, level));
                }
            }
        }
    }

    /// Each word of a hash is that of few texts among many that are alike.
    #[test]
    fn texts_that_count_up_spread() {
        for seed in 0..20 {
            let hashes = Hashes::new(seed);
            let count = 10_000;
            let names = (0..count).map(|n| alloc::format!("site/{}/dev/{}", n % 100, n / 100));
            let hashes: Vec<Hash> = names
                .map(|name| hashes.whole(&Text::new(&name, &mut NO_ROOM.clone())))
                .collect();
            let words: [fn(&Hash) -> u32; 3] = [Hash::order, Hash::check, |it| it.seal().get()];
            for word in words {
                let mut words: Vec<u32> = hashes.iter().map(word).collect();
                words.sort_unstable();
                words.dedup();
                // One of 86 is expected twice.
                assert!(words.len() + 20 > count, "{seed}: {}", words.len());
            }
            let mut homes = alloc::vec![0; 2_500];
            for hash in &hashes {
                let home = (u64::from(hash.order()) * 2_500) >> 32;
                homes[home as usize] += 1;
            }
            // Among 2,500 homes with four each on average, one has more than 16 in a hundred runs.
            assert!(
                homes.iter().max() < Some(&20),
                "{seed}: {:?}",
                homes.iter().max()
            );
        }
    }
}
