//! Random numbers, all of which a seed decides; those of a plan also a fuzzer.

/// A stream of numbers (SplitMix64). Streams of the same seed with other names have nothing in
/// common, so that one fewer operation in a plan leaves the faults of other parts as they were.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
    /// What a fuzzer chose.
    tape: Option<Tape>,
}

#[derive(Clone, Debug)]
struct Tape {
    bytes: Vec<u8>,
    at: usize,
}

impl Rng {
    pub(crate) fn new(seed: u64, name: &str, index: u64) -> Self {
        let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes().chain(index.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            hash ^= hash >> 29;
        }
        Self {
            state: hash,
            tape: None,
        }
    }

    /// The choices are the bytes, as few for each as its limit needs; behind the last they are 0.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            state: 0,
            tape: Some(Tape {
                bytes: bytes.to_vec(),
                at: 0,
            }),
        }
    }

    /// Whether the bytes it was made of are used up.
    pub(crate) fn is_over(&self) -> bool {
        self.tape
            .as_ref()
            .is_some_and(|tape| tape.at >= tape.bytes.len())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Below `limit`; 0 if that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let limit = limit.max(1);
        match &mut self.tape {
            Some(tape) => tape.below(limit),
            None => self.next() % limit,
        }
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Both ends included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn name(&mut self, of: &[&'static str]) -> &'static str {
        of[self.index(of.len())]
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }
}

impl Tape {
    fn below(&mut self, limit: u64) -> u64 {
        let mut number = 0;
        let mut reach = 1_u64;
        while reach < limit {
            let byte = self.bytes.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            number = number << 8 | u64::from(byte);
            reach = reach.saturating_mul(256);
        }
        number % limit
    }
}
