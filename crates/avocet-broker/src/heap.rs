//! Room that the heap of a shard gets ahead of time.

use std::hint::black_box;

/// So much of it: 18,000 connections.
const AHEAD: usize = 32 << 20;

/// What is asked for at once. From 128 KiB on, glibc keeps it apart from the heap.
const PIECE: usize = 120 << 10;

/// Lets the heap of this thread grow, and gives all of it back.
///
/// In glibc the heap of every thread but the first grows by as many pages as are missing, which mostly
/// is one, with a system call (`mprotect`) for each time: one for three connections. Into what was
/// given back it grows without a call. The memory is not used, so the system has not to provide it.
pub(crate) fn grow_ahead() {
    let pieces = 0..AHEAD / PIECE;
    let pieces: Vec<Vec<u8>> = pieces.map(|_| Vec::with_capacity(PIECE)).collect();
    drop(black_box(pieces));
}
