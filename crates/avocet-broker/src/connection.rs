//! What a shard keeps for a connection outside of the engine.

use avocet_engine::ConnectionId;
use avocet_session::{Instant, TransmitBuf};
use mio::Interest;

use crate::admission::Slot;
use crate::shard::quiet::Quiet;
use crate::stream::Stream;

/// One connection: its stream, and what could not be used or sent at once. While it is idle, it
/// holds no buffer.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) stream: Stream,
    /// Bytes read that the engine has not consumed.
    pub(crate) unread: Unread,
    /// What the socket did not take.
    pub(crate) unsent: Option<Box<TransmitBuf>>,
    pub(crate) reading: Reading,
    pub(crate) closing: Closing,
    /// The stream may hold bytes that were not read. A socket says so once it is watched.
    pub(crate) readable: bool,
    /// The peer closed: the end of the stream must be read even after a short read.
    pub(crate) read_closed: bool,
    /// The poll tells when the socket takes more.
    pub(crate) watches_room: bool,
    /// Writing failed. What came before, perhaps a DISCONNECT, is read to its end.
    pub(crate) broken: bool,
    /// Waits in the shard's queue of connections to read.
    pub(crate) in_ready: bool,
    /// Waits in the shard's list of connections to write.
    pub(crate) in_dirty: bool,
    /// Something was written since something was last read.
    pub(crate) spoke_last: bool,
    /// Whether it may wake the shard.
    pub(crate) quiet: Quiet,
    /// Since when the rest of a packet is waited for; [`Instant::ORIGIN`] when none is.
    pub(crate) partial_since: Instant,
    /// Somebody looks at that when it has taken too long.
    pub(crate) partial_watched: bool,
    /// It counts as a connection until this is dropped; none if it is refused.
    _slot: Option<Slot>,
}

/// What reading this connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Bytes from the stream.
    Stream,
    /// First the unread bytes, of which the engine took only a slice.
    Unread,
    /// Nothing, until the engine resumes.
    Paused,
}

/// How far a connection is on its way to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Open,
    /// The engine is done with it; what is unsent still goes out.
    Draining,
    /// All is sent; the peer has yet to close, and what it sends is thrown away.
    Lingering,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, stream: Stream, slot: Option<Slot>) -> Self {
        Self {
            _slot: slot,
            quiet: Quiet::default(),
            partial_since: Instant::ORIGIN,
            partial_watched: false,
            id,
            stream,
            unread: Unread::default(),
            unsent: None,
            reading: Reading::Stream,
            closing: Closing::Open,
            readable: false,
            read_closed: false,
            watches_room: false,
            broken: false,
            in_ready: false,
            in_dirty: false,
            spoke_last: false,
        }
    }
}

impl Connection {
    /// What the poll is to watch its socket for.
    pub(crate) fn interest(&self) -> Interest {
        if self.watches_room {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        }
    }
}

/// Bytes at hand, taken from the front.
#[derive(Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    start: usize,
}

impl Unread {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start.min(self.bytes.len()));
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Replaces all of it.
    pub(crate) fn set(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            *self = Self::default();
        } else {
            self.start = 0;
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.len() == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_bytes_are_taken_from_the_front_and_leave_no_buffer_behind() {
        let mut unread = Unread::default();
        unread.set(b"abc");
        unread.consume(1);
        assert_eq!(unread.bytes(), b"bc");
        unread.push(b"de");
        assert_eq!((unread.bytes(), unread.len()), (&b"bcde"[..], 4));
        unread.consume(4);
        assert_eq!((unread.len(), unread.bytes.capacity()), (0, 0));
        unread.set(b"f");
        unread.set(b"");
        assert_eq!(unread.bytes.capacity(), 0);
    }
}
