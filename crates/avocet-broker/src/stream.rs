//! The byte streams a shard reads and writes without blocking: sockets, and pipes within the
//! process.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use avocet_engine::ConnectionId;
use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::inbox::{Inbox, Mail};

/// Bytes a pipe holds in each direction.
const PIPE_CAPACITY: usize = 64 << 10;

/// The broker's end of a connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Pipe(PipeEnd),
}

impl Stream {
    /// Reads what is there. Fewer bytes than there was room for mean that there are no more, and
    /// that the arrival of others is announced.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            #[cfg(unix)]
            Self::Unix(socket) => socket.read(room),
            Self::Pipe(end) => end.0.read(room),
        }
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => match slices {
                // The plain call is cheaper, and one slice is what there mostly is.
                [slice] => socket.write(slice),
                slices => socket.write_vectored(slices),
            },
            #[cfg(unix)]
            Self::Unix(socket) => socket.write_vectored(slices),
            Self::Pipe(end) => end.0.write_vectored(slices),
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn shutdown_write(&mut self) {
        match self {
            // Fails only when the peer is gone.
            Self::Tcp(socket) => drop(socket.shutdown(Shutdown::Write)),
            #[cfg(unix)]
            Self::Unix(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Pipe(end) => end.0.lock().from_broker.close(),
        }
    }

    /// Whether dropping it with unread input takes from the peer what it has not read.
    pub(crate) fn may_reset(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            #[cfg(unix)]
            Self::Unix(_) => true,
            Self::Pipe(_) => false,
        }
    }

    /// What the poll watches; a pipe announces itself.
    pub(crate) fn source(&mut self) -> Option<&mut dyn Source> {
        match self {
            Self::Tcp(socket) => Some(socket),
            #[cfg(unix)]
            Self::Unix(socket) => Some(socket),
            Self::Pipe(_) => None,
        }
    }
}

/// The broker's end of a pipe. Dropping it closes both directions.
pub(crate) struct PipeEnd(Arc<Pipe>);

impl PipeEnd {
    /// Says where to announce that the pipe can be read or written again.
    pub(crate) fn attach(&self, inbox: Arc<Inbox>, id: ConnectionId) {
        let mut state = self.0.lock();
        state.shard = Some((inbox, id));
        state.announced = false;
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.shard = None;
        state.to_broker.close();
        state.from_broker.close();
    }
}

/// A connection to the broker within the process: bytes written here are read by the broker as if
/// they came from a socket.
///
/// Each direction holds at most 64 KiB; beyond that, writing waits for the broker, and the broker
/// waits for this end to read. Dropping it closes the connection.
pub struct InProcessStream(Arc<Pipe>);

impl std::fmt::Debug for InProcessStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcessStream").finish_non_exhaustive()
    }
}

struct Pipe {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    to_broker: Direction,
    from_broker: Direction,
    shard: Option<(Arc<Inbox>, ConnectionId)>,
    /// The shard found nothing to read, or no room to write, and waits to be told.
    broker_waits: bool,
    /// The shard was told and has not looked since.
    announced: bool,
}

#[derive(Default)]
struct Direction {
    bytes: VecDeque<u8>,
    closed: bool,
    /// The application's task, which waits for bytes or room.
    waker: Option<Waker>,
}

/// Both ends of a new pipe.
pub(crate) fn pipe() -> (InProcessStream, PipeEnd) {
    let pipe = Arc::new(Pipe {
        state: Mutex::default(),
    });
    (InProcessStream(Arc::clone(&pipe)), PipeEnd(pipe))
}

impl Direction {
    fn room(&self) -> usize {
        PIPE_CAPACITY.saturating_sub(self.bytes.len())
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.bytes.extend(bytes.iter().take(taken));
        taken
    }

    fn take(&mut self, room: &mut [u8]) -> usize {
        // Reading from a `VecDeque` does not fail, and takes what its first half holds.
        let mut taken = 0;
        while let Some(rest) = room.get_mut(taken..).filter(|rest| !rest.is_empty()) {
            match self.bytes.read(rest) {
                Ok(n) if n > 0 => taken += n,
                _ => break,
            }
        }
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        taken
    }

    fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(&mut self, context: &Context<'_>) {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            self.waker = Some(context.waker().clone());
        }
    }
}

impl State {
    /// Tells the shard, if it waits, that something has changed.
    fn announce(&mut self) {
        if self.broker_waits
            && !self.announced
            && let Some((inbox, id)) = &self.shard
        {
            self.announced = true;
            inbox.send(Mail::Ready(*id));
        }
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        state.announced = false;
        let taken = state.to_broker.take(room);
        state.broker_waits |= state.to_broker.bytes.is_empty();
        if taken > 0 {
            state.to_broker.wake();
            return Ok(taken);
        }
        if state.to_broker.closed {
            Ok(0)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.lock();
        state.announced = false;
        if state.from_broker.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = slices
            .iter()
            .map(|slice| state.from_broker.put(slice))
            .sum();
        state.broker_waits |= state.from_broker.room() == 0;
        if taken == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.from_broker.wake();
        Ok(taken)
    }
}

impl AsyncRead for InProcessStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let was_full = state.from_broker.room() == 0;
        let taken = state.from_broker.take(buffer.initialize_unfilled());
        if taken == 0 && buffer.remaining() > 0 && !state.from_broker.closed {
            state.from_broker.wait(context);
            return Poll::Pending;
        }
        buffer.advance(taken);
        if was_full && taken > 0 {
            state.announce();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for InProcessStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if state.to_broker.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = state.to_broker.put(bytes);
        if taken == 0 && !bytes.is_empty() {
            state.to_broker.wait(context);
            return Poll::Pending;
        }
        state.announce();
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.to_broker.close();
        state.announce();
        Poll::Ready(Ok(()))
    }
}

impl Drop for InProcessStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.to_broker.close();
        state.from_broker.close();
        state.broker_waits = true;
        state.announce();
    }
}
