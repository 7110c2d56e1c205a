//! How reading stops and goes on, and what waits for a store.

use core::num::NonZeroU64;

/// What a connection wants of its driver after `handle_input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Demand {
    /// Bytes beyond those given: keep what was not consumed, and read.
    More,
    /// Stopped after one packet, a row of acknowledgements, or a slice of the turn: call again with the rest.
    Again,
    /// Nothing until the connection is no longer paused: keep the rest, and stop reading.
    Paused,
}

/// What a peer is to send next, of what it owes for the messages that are in flight between both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owed {
    /// Nothing: no message is in flight, and none waits.
    Nothing,
    /// PUBACKs, which change nothing for anybody but the messages they are for: no other message waits for room.
    Puback,
    /// First a PUBCOMP of which the same is true, perhaps for a PUBREL that has not left yet.
    Pubcomp,
    /// Something that more follows from.
    More,
}

/// A position in the order in which a store commits; what waits for one leaves once the committed
/// position is not smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(NonZeroU64);

impl CommitId {
    /// The position before the first commit, which every store has reached: what was stored
    /// before the program began waits for this one.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The position of a commit that is not named yet, which no store reaches.
    pub const UNNAMED: Self = Self(NonZeroU64::MAX);

    /// The position with this number, which is less than `u64::MAX - 1`.
    #[must_use]
    pub const fn new(position: u64) -> Self {
        // One more than the number, so that an optional position takes no more room.
        Self(NonZeroU64::MIN.saturating_add(position))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get() - 1
    }
}

impl Default for CommitId {
    fn default() -> Self {
        Self::ZERO
    }
}
