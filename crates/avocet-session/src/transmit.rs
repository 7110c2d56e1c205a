//! The bytes on their way to a socket.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};

/// Payloads of at least this many bytes are passed on by reference: below, a copy is cheaper than
/// a segment of its own in `writev`.
pub(crate) const SHARED_MIN: usize = 4096;

/// Packets ready to be written, in order: small frames copied into one buffer, large payloads as
/// shared segments between its parts. What was put in counts as sent.
#[derive(Debug, Default)]
pub struct TransmitBuf {
    limit: usize,
    copied: Vec<u8>,
    /// Bytes of `copied` already written.
    start: usize,
    shared: VecDeque<Segment>,
    shared_len: usize,
}

#[derive(Debug)]
struct Segment {
    /// The length of `copied` when this segment followed it.
    position: usize,
    bytes: Bytes,
}

impl TransmitBuf {
    /// An empty buffer that is full once it holds `limit` bytes. A packet begun below the limit is
    /// taken whole.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Whether no further packet should be put in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Bytes until it is full.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.len())
    }

    /// Bytes not yet written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copied.len() - self.start + self.shared_len
    }

    /// Whether everything was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the bytes of a frame go, behind everything else.
    pub fn frame(&mut self) -> impl BufMut + '_ {
        &mut self.copied
    }

    /// Puts bytes behind everything else, shared if they are large.
    pub fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_MIN {
            self.copied.extend_from_slice(&bytes);
        } else {
            self.shared_len += bytes.len();
            self.shared.push_back(Segment {
                position: self.copied.len(),
                bytes,
            });
        }
    }

    pub(crate) fn put_slice(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
    }

    /// The bytes not yet written, in order, for `writev`; no slice is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let mut start = self.start;
        let between = self.shared.iter().flat_map(move |segment| {
            let before = self.copied.get(start..segment.position).unwrap_or_default();
            start = segment.position;
            [before, &segment.bytes]
        });
        let last = self
            .shared
            .back()
            .map_or(self.start, |segment| segment.position);
        let behind = self.copied.get(last..).unwrap_or_default();
        between.chain([behind]).filter(|slice| !slice.is_empty())
    }

    /// The bytes not yet written, if they lie in one piece.
    #[must_use]
    pub fn piece(&self) -> Option<&[u8]> {
        let piece = self.copied.get(self.start..);
        piece.filter(|_| self.shared.is_empty())
    }

    /// Forgets the first `n` bytes: the socket has them.
    pub fn advance(&mut self, mut n: usize) {
        debug_assert!(n <= self.len(), "more written than there was");
        while let Some(segment) = self.shared.front_mut() {
            let before = segment.position - self.start;
            if n < before {
                self.start += n;
                return;
            }
            n -= before;
            self.start = segment.position;
            let taken = n.min(segment.bytes.len());
            segment.bytes.advance(taken);
            self.shared_len -= taken;
            n -= taken;
            if segment.bytes.has_remaining() {
                return;
            }
            self.shared.pop_front();
        }
        self.start = (self.start + n).min(self.copied.len());
        if self.start == self.copied.len() {
            self.clear();
        }
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.start = 0;
        self.shared.clear();
        self.shared_len = 0;
    }

    /// Moves what is not yet written into a buffer of exactly its size, for a connection whose
    /// socket took only a part; this one is empty then, and keeps its memory.
    #[must_use]
    pub fn take_rest(&mut self) -> Self {
        let start = self.start;
        let mut shared = core::mem::take(&mut self.shared);
        shared.shrink_to_fit();
        for segment in &mut shared {
            segment.position -= start;
        }
        let rest = Self {
            limit: self.limit,
            copied: self.copied.get(start..).unwrap_or_default().to_vec(),
            start: 0,
            shared,
            shared_len: self.shared_len,
        };
        self.clear();
        rest
    }
}
