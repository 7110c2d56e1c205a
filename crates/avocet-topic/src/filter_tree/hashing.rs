//! Keyed hashes that tell filters apart.
//!
//! A text is hashed as a row of at most 128 pieces: a filter with wildcards as its levels, one
//! without as its bytes by eights, of which the last piece takes all that are left.
//!
//! - A piece has two values below 2⁶⁴. Of up to sixteen bytes they are its words, eight bytes each, or zero. Of
//!   more they are polynomials mod the prime `p` = 2⁶¹ − 1, each in two keys of its own, whose coefficients are
//!   words of seven bytes, of degree 200 at most. No text holds U+0000, so different pieces are
//!   different words or polynomials; if one is a polynomial, both values are the same for at most (200 / `p`)² of
//!   the keys.
//! - Each value is multiplied by a key of 192 bits that belongs to its place, and the products are added to one
//!   more, all mod 2¹⁹². So a name loses a level by one subtraction. The lowest 64 bits of the sum are dropped, and
//!   104 of the others are kept.
//!
//! Say two rows differ in a value, by `d`. Where `d` is 2ᵗ times an odd number, `t` is less than 64: the key of
//! the value times `d` is any multiple of 2ᵗ mod 2¹⁹², each for as many keys. So the bits above the lowest 64 of
//! one sum are any bits, whatever those of the other are, and 104 of them agree for 2⁻¹⁰⁴ of the keys. With the
//! polynomials that is less than 2^−103.7. What [`Hash`] does to two of their values adds less than a millionth
//! part to that.

use alloc::boxed::Box;
use core::num::NonZeroU32;

use crate::Seed;
use crate::shape::SHAPE_LEVELS_MAX;

const PRIME: u64 = (1 << 61) - 1;

const WORD_BYTES: usize = 8;

/// Bytes of the coefficients of polynomials, which are less than `p`.
const COEFFICIENT_BYTES: usize = 7;

/// Coefficients of a piece for which one power of the other key is taken.
const BLOCK: usize = 128;

/// What is left of a word of which so many bytes are wanted.
const MASKS: [u64; WORD_BYTES + 1] = [
    0,
    0xff,
    0xffff,
    0xff_ffff,
    0xffff_ffff,
    0xff_ffff_ffff,
    0xffff_ffff_ffff,
    0xff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Odd, and its bits look random.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// No hash is in order behind it, so that one number is left for what is no hash.
pub(super) const ORDER_MAX: u64 = u64::MAX - 1;

/// What a filter is known by in its table, in 104 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    order: u64,
    check: Check,
}

impl Hash {
    /// Of an order that is at most [`ORDER_MAX`].
    #[inline(always)]
    pub(super) const fn new(order: u64, check: Check) -> Self {
        Self { order, check }
    }

    /// Where it lies.
    #[inline(always)]
    pub(super) const fn order(&self) -> u64 {
        self.order
    }

    /// What the order leaves of it.
    #[inline(always)]
    pub(super) const fn check(&self) -> Check {
        self.check
    }
}

/// Forty bits of a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Check(u64);

impl Check {
    #[inline(always)]
    pub(super) fn new(rest: u8, seal: NonZeroU32) -> Self {
        Self(u64::from(rest) << 32 | u64::from(seal.get()))
    }

    #[inline(always)]
    pub(super) const fn rest(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// Not zero, so that it takes no memory to tell where there is no filter.
    #[inline(always)]
    pub(super) const fn seal(self) -> NonZeroU32 {
        match NonZeroU32::new(self.0 as u32) {
            Some(seal) => seal,
            None => NonZeroU32::MIN,
        }
    }
}

/// The sum of the products of some pieces, mod 2¹⁹².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    low: u64,
    middle: u64,
    high: u64,
}

impl Sum {
    /// The sum with the product of a key and a value.
    #[inline(always)]
    pub(super) fn plus_product(self, key: &Self, value: u64) -> Self {
        let (low, carry) = key.low.carrying_mul_add(value, self.low, 0);
        let (middle, carry) = key.middle.carrying_mul_add(value, self.middle, carry);
        let high = key.high.wrapping_mul(value);
        Self {
            low,
            middle,
            high: self.high.wrapping_add(high).wrapping_add(carry),
        }
    }

    #[inline(always)]
    pub(super) fn plus(self, other: Self) -> Self {
        let (low, carry) = self.low.carrying_add(other.low, false);
        let (middle, carry) = self.middle.carrying_add(other.middle, carry);
        let (high, _) = self.high.carrying_add(other.high, carry);
        Self { low, middle, high }
    }

    #[inline(always)]
    pub(super) fn minus(self, other: &Self) -> Self {
        let (low, borrow) = self.low.borrowing_sub(other.low, false);
        let (middle, borrow) = self.middle.borrowing_sub(other.middle, borrow);
        let (high, _) = self.high.borrowing_sub(other.high, borrow);
        Self { low, middle, high }
    }

    /// Keeps 104 bits.
    #[inline(always)]
    pub(super) const fn hash(self) -> Hash {
        // Sums of names that count up go up by steps, which would lie side by side: so these bits
        // are mixed, which can be undone.
        let order = (self.high ^ self.high >> 32).wrapping_mul(SPREAD);
        Hash {
            order: if order > ORDER_MAX { ORDER_MAX } else { order },
            check: Check(self.middle),
        }
    }
}

/// Where a text goes that is shorter than a word.
pub(super) type Room = [u8; WORD_BYTES];

pub(super) const NO_ROOM: Room = [0; WORD_BYTES];

/// A text of which words are read, wherever they begin.
pub(super) struct Text<'t> {
    whole: &'t [u8],
    /// The same, with zeros behind it if it is shorter than a word.
    padded: &'t [u8],
}

impl<'t> Text<'t> {
    #[inline(always)]
    pub(super) fn new(text: &'t str, room: &'t mut Room) -> Self {
        let whole = text.as_bytes();
        let mut padded = whole;
        if whole.len() < WORD_BYTES {
            *room = short(whole).to_le_bytes();
            padded = room;
        }
        Self { whole, padded }
    }

    /// Its bytes.
    #[inline(always)]
    pub(super) const fn whole(&self) -> &'t [u8] {
        self.whole
    }

    /// Eight bytes from there on, which is not behind its end, with zeros for what is. At its end they are any bytes.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        let Some(last) = self.padded.len().checked_sub(WORD_BYTES) else {
            return 0;
        };
        let from = at.min(last);
        let bytes = self.padded.get(from..from + WORD_BYTES);
        let bytes = bytes.and_then(<[u8]>::first_chunk).copied();
        u64::from_le_bytes(bytes.unwrap_or_default()).wrapping_shr(8 * (at - from) as u32)
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
    /// Of the first values of pieces.
    factors: [Sum; SHAPE_LEVELS_MAX],
    /// Of their second values.
    seconds: [Sum; SHAPE_LEVELS_MAX],
    /// Within the blocks of a long piece, and for the blocks.
    powers: [[u64; 2]; 2],
}

impl Hashes {
    pub(super) fn new(seed: Seed) -> Self {
        let mut count = 0;
        let mut random = || {
            count += 1;
            seed.number(0, count)
        };
        let mut number = || {
            loop {
                let number = random() >> 3;
                if number < PRIME {
                    return number;
                }
            }
        };
        let powers = [[number(), number()], [number(), number()]];
        let mut sum = || Sum {
            low: random(),
            middle: random(),
            high: random(),
        };
        let start = sum();
        let mut factors = [Sum::default(); SHAPE_LEVELS_MAX];
        factors.fill_with(&mut sum);
        let mut seconds = [Sum::default(); SHAPE_LEVELS_MAX];
        seconds.fill_with(&mut sum);
        Self {
            key: Box::new(Key {
                start,
                factors,
                seconds,
                powers,
            }),
        }
    }

    /// Of these texts alone those that differ within the first so many pieces differ in hash.
    #[cfg(test)]
    pub(super) fn weak(pieces: usize) -> Self {
        let mut weak = Self::new(Seed::from(0));
        let Key {
            factors, seconds, ..
        } = weak.key.as_mut();
        let factors = factors.iter_mut().skip(pieces);
        for factor in factors.chain(seconds.iter_mut().skip(pieces)) {
            *factor = Sum::default();
        }
        weak
    }

    /// Bytes on the heap.
    pub(super) const fn allocated_bytes() -> usize {
        size_of::<Key>()
    }

    /// What a row without pieces has.
    #[inline(always)]
    pub(super) const fn start(&self) -> Sum {
        self.key.start
    }

    /// The hash of a text without wildcards.
    #[inline(always)]
    pub(super) fn whole(&self, text: &Text<'_>) -> Hash {
        let (words, rest) = text.whole.as_chunks();
        let mut factors = self.key.factors.iter();
        let mut sum = self.start();
        for word in words {
            let Some(factor) = factors.next() else {
                return self.long(text.whole).hash();
            };
            sum = sum.plus_product(factor, u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let Some(factor) = factors.next() else {
                return self.long(text.whole).hash();
            };
            sum = sum.plus_product(factor, text.word(text.whole.len() - rest.len()));
        }
        sum.hash()
    }

    /// The sum of a text without wildcards whose last piece is longer than a word.
    #[cold]
    #[inline(never)]
    fn long(&self, text: &[u8]) -> Sum {
        const LAST: usize = SHAPE_LEVELS_MAX - 1;
        let (head, rest) = text.split_at(text.len().min(LAST * WORD_BYTES));
        let pieces = head.chunks(WORD_BYTES).chain([rest]).enumerate();
        pieces.fold(self.start(), |sum, (position, piece)| {
            sum.plus(self.piece(position, piece))
        })
    }

    /// The keys of levels, by their positions.
    #[inline(always)]
    pub(super) const fn factors(&self) -> &[Sum; SHAPE_LEVELS_MAX] {
        &self.key.factors
    }

    /// What the level at this position adds to the sum, which lies in a name from `start` to `end`; `factor` is the
    /// key of the position.
    ///
    /// The sum of a name under any shape takes one subtraction for each `+`.
    #[inline(always)]
    pub(super) fn level(
        &self,
        (position, factor): (usize, &Sum),
        name: &Text<'_>,
        start: usize,
        end: usize,
    ) -> Sum {
        if let Some(mask) = MASKS.get(end - start) {
            return Sum::default().plus_product(factor, name.word(start) & mask);
        }
        let [first, second] = values(
            &self.key.powers,
            name.whole.get(start..end).unwrap_or_default(),
        );
        let hash = Sum::default().plus_product(factor, first);
        let other = self.key.seconds.get(position);
        other.map_or(hash, |other| hash.plus_product(other, second))
    }

    /// What a piece adds to the sum.
    fn piece(&self, position: usize, piece: &[u8]) -> Sum {
        let [first, second] = values(&self.key.powers, piece);
        let keys = [&self.key.factors, &self.key.seconds];
        let [factor, other] = keys.map(|keys| keys.get(position).copied().unwrap_or_default());
        let sum = Sum::default().plus_product(&factor, first);
        sum.plus_product(&other, second)
    }
}

/// The values of a piece.
#[inline(never)]
fn values([[a, b], [c, d]]: &[[u64; 2]; 2], piece: &[u8]) -> [u64; 2] {
    if piece.len() <= 2 * WORD_BYTES {
        let (first, second) = piece.split_at(piece.len().min(WORD_BYTES));
        return [short(first), short(second)];
    }
    let mut values = [0; 2];
    for block in piece.chunks(BLOCK * COEFFICIENT_BYTES) {
        let mut sums = [0; 2];
        for word in block.chunks(COEFFICIENT_BYTES).map(short) {
            sums = [
                plus(times(sums[0], *a), word),
                plus(times(sums[1], *b), word),
            ];
        }
        values = [
            plus(times(values[0], *c), sums[0]),
            plus(times(values[1], *d), sums[1]),
        ];
    }
    values
}

/// Up to eight bytes, zeros behind them.
#[inline(always)]
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

    /// Words of so many bytes.
    fn words(piece: &[u8], bytes: usize) -> Vec<u128> {
        let word = |bytes: &[u8]| {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |word, &byte| word << 8 | u128::from(byte))
        };
        piece.chunks(bytes).map(word).collect()
    }

    /// Adds a product to a number of six times 32 bits.
    fn add_product(to: &mut [u64; 6], key: Sum, value: u64) {
        let halves = |word: u64| [word & 0xffff_ffff, word >> 32];
        let key = [key.low, key.middle, key.high].map(halves);
        for (i, digit) in key.as_flattened().iter().enumerate() {
            for (j, other) in halves(value).into_iter().enumerate() {
                let mut carry = digit * other;
                for place in to.iter_mut().skip(i + j) {
                    carry += *place;
                    *place = carry & 0xffff_ffff;
                    carry >>= 32;
                }
            }
        }
    }

    /// What the module says, by the letter.
    fn by_the_letter(hashes: &Hashes, pieces: &[&[u8]]) -> Hash {
        let prime = u128::from(PRIME);
        let value = |piece: &[u8], half: usize| {
            if piece.len() <= 16 {
                return words(piece, 8).get(half).copied().unwrap_or(0) as u64;
            }
            let [x, y] = hashes.key.powers.map(|pair| u128::from(pair[half]));
            let power = |base: u128, exponent: usize| {
                (0..exponent).fold(1, |product, _| product * base % prime)
            };
            let words = words(piece, 7);
            let blocks = words.chunks(128).rev().enumerate();
            let value = blocks.fold(0, |sum, (number, block)| {
                let words = block.iter().rev().enumerate();
                let block = words.fold(0, |sum, (at, word)| (sum + word * power(x, at)) % prime);
                (sum + block * power(y, number)) % prime
            });
            value as u64
        };
        let mut sum = [0; 6];
        add_product(&mut sum, hashes.key.start, 1);
        for (piece, at) in pieces.iter().zip(0..) {
            add_product(&mut sum, hashes.key.factors[at], value(piece, 0));
            add_product(&mut sum, hashes.key.seconds[at], value(piece, 1));
        }
        let word = |at: usize| sum[at] | sum[at + 1] << 32;
        let sum = Sum {
            low: word(0),
            middle: word(2),
            high: word(4),
        };
        sum.hash()
    }

    fn text(len: usize) -> String {
        let letter = |at: usize| char::from(b'!' + (at * at % 89) as u8);
        (0..len).map(letter).collect()
    }

    #[test]
    fn texts_hash_as_they_should() {
        for seed in [0, u64::MAX] {
            let hashes = Hashes::new(Seed::from(seed));
            let lens = (1..150)
                .chain(880..910)
                .chain(1_000..1_050)
                .chain([1_912, 1_913, 4_000, 65_535]);
            for text in lens.map(text) {
                let (head, rest) = text.as_bytes().split_at(text.len().min(127 * 8));
                let pieces: Vec<&[u8]> = head.chunks(8).chain([rest]).collect();
                let expected = by_the_letter(&hashes, &pieces);
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
        let hashes = Hashes::new(Seed::from(3));
        for level in (0..40).chain([900, 3_000, 65_535]).map(text) {
            for before in 0..9 {
                let before = text(before);
                let name = alloc::format!("{before}{level}");
                let mut room = NO_ROOM;
                let name = Text::new(&name, &mut room);
                let there = hashes.level(
                    (2, &hashes.factors()[2]),
                    &name,
                    before.len(),
                    name.whole.len(),
                );
                let pieces = [&[], &[], level.as_bytes()];
                let hash = hashes.start().plus(there).hash();
                assert_eq!(hash, by_the_letter(&hashes, &pieces), "{before}{level}");
            }
        }
    }

    #[test]
    fn a_level_hashes_alike_wherever_it_lies() {
        let hashes = Hashes::new(Seed::from(7));
        let name = "0123456789abcdefghijkl";
        let [_, _, two, three, ..] = hashes.factors();
        for len in 1..=name.len() {
            let mut room = NO_ROOM;
            let text = Text::new(&name[..len], &mut room);
            for start in 0..=len {
                for end in start..=len {
                    let there = hashes.level((3, three), &text, start, end);
                    let level = &name.as_bytes()[start..end];
                    assert_eq!(there, hashes.piece(3, level), "{start}..{end} of {len}");
                    let other = hashes.level((2, two), &text, start, end);
                    assert!(level.is_empty() || there != other);
                }
            }
        }
    }

    /// What is subtracted leaves what was there, with carries and borrows.
    #[test]
    fn a_sum_without_a_product_is_what_it_was() {
        let words = [0, 1, 1 << 63, u64::MAX - 1, u64::MAX];
        let sums = || {
            words.into_iter().flat_map(move |low| {
                let sum = move |middle, high| Sum { low, middle, high };
                words
                    .into_iter()
                    .flat_map(move |middle| words.map(|high| sum(middle, high)))
            })
        };
        for one in sums() {
            for other in sums() {
                assert_eq!(one.plus(other).minus(&other), one);
                assert_eq!(one.plus(other), other.plus(one));
            }
            assert_eq!(
                Sum::default().plus_product(&one, 3),
                one.plus(one).plus(one)
            );
            let halves = Sum::default().plus_product(&one, 1 << 63);
            assert_eq!(
                halves.plus(halves).minus(&one),
                Sum::default().plus_product(&one, u64::MAX)
            );
        }
    }

    /// Each word of a hash is that of few texts among many that are alike.
    #[test]
    fn texts_that_count_up_spread() {
        for seed in 0..20 {
            let hashes = Hashes::new(Seed::from(seed));
            let count = 10_000;
            let names = (0..count).map(|n| alloc::format!("site/{}/dev/{}", n % 100, n / 100));
            let hashes: Vec<Hash> = names
                .map(|name| hashes.whole(&Text::new(&name, &mut NO_ROOM.clone())))
                .collect();
            let words: [fn(&Hash) -> u32; 3] = [
                |it| (it.order() >> 32) as u32,
                |it| it.order() as u32,
                |it| it.check().seal().get(),
            ];
            for word in words {
                let mut words: Vec<u32> = hashes.iter().map(word).collect();
                words.sort_unstable();
                words.dedup();
                // One of 86 is expected twice.
                assert!(words.len() + 20 > count, "{seed}: {}", words.len());
            }
            let mut homes = alloc::vec![0; 2_500];
            for hash in &hashes {
                let home = (u128::from(hash.order()) * 2_500) >> 64;
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
