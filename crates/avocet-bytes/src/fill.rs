//! Bytes that are written once, to where they are to lie.

use core::mem::{self, MaybeUninit};

use bytes::BufMut;

use crate::has_any;

/// Room at the end of a buffer, filled from front to back while [`append`] runs.
#[derive(Debug)]
pub struct Room<'r> {
    /// What is not filled yet.
    free: Free<'r>,
    refused: bool,
}

type Free<'r> = &'r mut [MaybeUninit<u8>];

/// What knows how to fill a [`Room`]. A closure would do as well, but is not always inlined.
pub trait Fill {
    /// Fills all of it, or refuses to.
    fn fill(self, room: &mut Room<'_>);
}

/// Appends `len` bytes to a buffer, if it has room for them in one piece and all of it is filled. Else
/// its end is where it was, though bytes behind it may have changed, and the answer is false.
///
/// `len` is what all pieces take, those that are refused included: then one that was left out leaves
/// room that is not filled.
#[inline(always)]
#[must_use]
pub fn append(out: &mut impl BufMut, len: usize, what: impl Fill) -> bool {
    // SAFETY: a `Room` writes bytes to it, and nothing that is uninitialised.
    let chunk = unsafe { out.chunk_mut().as_uninit_slice_mut() };
    let Some(free) = chunk.get_mut(..len) else {
        return false;
    };
    let mut room = Room {
        free,
        refused: false,
    };
    what.fill(&mut room);
    if room.refused || !room.free.is_empty() {
        return false;
    }
    // SAFETY: the chunk has at least `len` bytes. `fill` knows no other `Room` of this lifetime to put in
    // the place of `room`, which fills all that it takes off the front, and has nothing left.
    unsafe { out.advance_mut(len) };
    true
}

impl Room<'_> {
    /// Puts bytes behind the others. What does not fit is left out, so that in the end not all is filled.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) {
        if !put_short::<0, false>(&mut self.free, bytes) {
            self.free = other::<0, false>(mem::take(&mut self.free), bytes);
        }
    }

    /// The same for as many as the compiler knows of.
    #[inline(always)]
    pub fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(front) = self.free.split_off_mut(..N) {
            front.write_copy_of_slice(&bytes);
        }
    }

    /// Puts bytes behind their length, which takes two bytes, the higher one first.
    #[inline(always)]
    pub fn put_with_len(&mut self, bytes: &[u8]) {
        self.free = with_len::<false>(mem::take(&mut self.free), bytes);
    }

    /// The same for text, which is left out if U+0000 is in it.
    #[inline(always)]
    pub fn put_text_with_len(&mut self, text: &str) {
        self.free = with_len::<true>(mem::take(&mut self.free), text.as_bytes());
    }

    /// Leaves the buffer as it was.
    #[inline(always)]
    pub fn refuse(&mut self) {
        self.refused = true;
    }
}

/// Not inlined, as it takes and returns what fits into registers.
#[inline(never)]
fn with_len<'r, const TEXT: bool>(mut free: Free<'r>, bytes: &[u8]) -> Free<'r> {
    if put_short::<2, TEXT>(&mut free, bytes) {
        return free;
    }
    other::<2, TEXT>(free, bytes)
}

/// Puts bytes behind `LEN` bytes of their length, if they are not less than 4 and not more than 64: two
/// pieces that may overlap, which takes less than to call for a copy of any length.
#[inline(always)]
fn put_short<const LEN: usize, const TEXT: bool>(free: &mut Free<'_>, bytes: &[u8]) -> bool {
    if bytes.len() <= 16 {
        if bytes.len() >= 8 {
            put_ends::<8, LEN, TEXT>(free, bytes);
        } else if bytes.len() >= 4 {
            put_ends::<4, LEN, TEXT>(free, bytes);
        } else {
            return false;
        }
    } else if bytes.len() <= 32 {
        put_ends::<16, LEN, TEXT>(free, bytes);
    } else if bytes.len() <= 64 {
        put_ends::<32, LEN, TEXT>(free, bytes);
    } else {
        return false;
    }
    true
}

#[inline(always)]
fn put_ends<const N: usize, const LEN: usize, const TEXT: bool>(free: &mut Free<'_>, bytes: &[u8]) {
    let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return;
    };
    if TEXT && has_null(first, last) {
        return;
    }
    let Some(front) = free.split_off_mut(..LEN + bytes.len()) else {
        return;
    };
    let (len, front) = front.split_at_mut(LEN);
    put_len::<LEN>(len, bytes.len() as u16);
    if let Some(front) = front.first_chunk_mut::<N>() {
        front.write_copy_of_slice(first);
    }
    if let Some(front) = front.last_chunk_mut::<N>() {
        front.write_copy_of_slice(last);
    }
}

#[inline(always)]
fn put_len<const LEN: usize>(room: Free<'_>, len: u16) {
    if LEN == 2 {
        room.write_copy_of_slice(&len.to_be_bytes());
    }
}

#[inline(always)]
fn has_null<const N: usize>(first: &[u8; N], last: &[u8; N]) -> bool {
    let mut found = 0;
    for (first, last) in first.iter().zip(last) {
        found |= u8::from(*first == 0) | u8::from(*last == 0);
    }
    found != 0
}

#[inline(never)]
fn other<'r, const LEN: usize, const TEXT: bool>(mut free: Free<'r>, bytes: &[u8]) -> Free<'r> {
    let fits = LEN == 0 || u16::try_from(bytes.len()).is_ok();
    if !fits || (TEXT && has_any(bytes, [0])) {
        return free;
    }
    if let Some(front) = free.split_off_mut(..LEN + bytes.len()) {
        let (len, front) = front.split_at_mut(LEN);
        put_len::<LEN>(len, bytes.len() as u16);
        front.write_copy_of_slice(bytes);
    }
    free
}
