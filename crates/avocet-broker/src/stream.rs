//! The byte streams a shard reads and writes without blocking: sockets, and pipes within the
//! process.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::num::NonZeroU8;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd as _;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use avocet_engine::ConnectionId;
use avocet_transport::{CertificateNames, Layered};
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
    Layered(Box<LayeredStream>),
    Pipe(PipeEnd),
}

/// A socket without anything in between.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(socket) => socket,
            #[cfg(unix)]
            Self::Unix(socket) => socket,
        }
    }

    fn shutdown_write(&self) {
        // Fails only when the peer is gone.
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            #[cfg(unix)]
            Self::Unix(socket) => socket.read(room),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            #[cfg(unix)]
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // The plain call is cheaper, and one slice is what there mostly is.
            (Self::Tcp(socket), [slice]) => socket.write(slice),
            (Self::Tcp(socket), slices) => socket.write_vectored(slices),
            #[cfg(unix)]
            (Self::Unix(socket), slices) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(socket) => Self::Tcp(socket),
            #[cfg(unix)]
            Socket::Unix(socket) => Self::Unix(socket),
        }
    }
}

/// A socket with TLS or WebSocket on top of it. Dropping it says goodbye.
pub(crate) struct LayeredStream {
    layers: Layered<Socket>,
    /// How often a WebSocket client is pinged.
    ping: Option<Duration>,
    said_goodbye: bool,
}

impl LayeredStream {
    pub(crate) fn new(layers: Layered<Socket>, ping: Option<Duration>) -> Self {
        Self {
            layers,
            ping,
            said_goodbye: false,
        }
    }

    fn shutdown_write(&mut self) {
        self.say_goodbye();
        self.layers.socket_mut().shutdown_write();
    }

    fn say_goodbye(&mut self) {
        if !self.said_goodbye {
            self.said_goodbye = true;
            self.layers.say_goodbye();
        }
    }
}

impl Drop for LayeredStream {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl Stream {
    /// Reads what is there. Fewer bytes than there was room for mean that there are no more, and
    /// that the arrival of others is announced.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            #[cfg(unix)]
            Self::Unix(socket) => socket.read(room),
            Self::Layered(stream) => stream.layers.read(room),
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
            Self::Layered(stream) => stream.layers.write_vectored(slices),
            Self::Pipe(end) => end.0.write_vectored(slices),
        }
    }

    /// The socket, if nothing lies between it and MQTT.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn socket_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(socket) => Some(socket.as_fd()),
            Self::Unix(socket) => Some(socket.as_fd()),
            Self::Layered(_) | Self::Pipe(_) => None,
        }
    }

    /// Nobody is told that it can be read while it holds fewer bytes than this. False where that cannot be had.
    pub(crate) fn set_low_water(&self, bytes: NonZeroU8) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Tcp(socket) => avocet_linux::set_receive_low_water(socket.as_fd(), bytes).is_ok(),
            _ => false,
        }
    }

    /// Whether the last read left something that no event will tell of.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Layered(stream) => stream.layers.has_more(),
            Self::Tcp(_) | Self::Pipe(_) => false,
            #[cfg(unix)]
            Self::Unix(_) => false,
        }
    }

    /// Whether something that was taken waits for the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Layered(stream) => stream.layers.has_unsent(),
            Self::Tcp(_) | Self::Pipe(_) => false,
            #[cfg(unix)]
            Self::Unix(_) => false,
        }
    }

    /// Sends what was taken; false when the socket takes no more.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Layered(stream) => stream.layers.flush(),
            Self::Tcp(_) | Self::Pipe(_) => Ok(true),
            #[cfg(unix)]
            Self::Unix(_) => Ok(true),
        }
    }

    /// How often it is to be pinged.
    pub(crate) fn ping_interval(&self) -> Option<Duration> {
        match self {
            Self::Layered(stream) => stream.ping,
            Self::Tcp(_) | Self::Pipe(_) => None,
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    pub(crate) fn ping(&mut self) {
        if let Self::Layered(stream) = self {
            stream.layers.ping();
        }
    }

    /// Whom the peer's certificate names.
    pub(crate) fn certificate(&self) -> Option<CertificateNames> {
        match self {
            Self::Layered(stream) => stream.layers.peer_names(),
            Self::Pipe(end) => end.0.certificate.clone(),
            Self::Tcp(_) => None,
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn shutdown_write(&mut self) {
        match self {
            // Fails only when the peer is gone.
            Self::Tcp(socket) => drop(socket.shutdown(Shutdown::Write)),
            #[cfg(unix)]
            Self::Unix(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Layered(stream) => stream.shutdown_write(),
            Self::Pipe(end) => end.0.lock().from_broker.close(),
        }
    }

    /// Whether dropping it with unread input takes from the peer what it has not read.
    pub(crate) fn may_reset(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Layered(_) => true,
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
            Self::Layered(stream) => Some(stream.layers.socket_mut().source()),
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
    /// Whom the certificate of the one at the other end names.
    certificate: Option<CertificateNames>,
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

/// Both ends of a new pipe, for a client with this certificate.
pub(crate) fn pipe(certificate: Option<CertificateNames>) -> (InProcessStream, PipeEnd) {
    let pipe = Arc::new(Pipe {
        certificate,
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

impl InProcessStream {
    /// Gives the broker as much as there is room for.
    fn poll_give(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

    /// Gives the broker all of it, as it takes what came before.
    pub(crate) async fn give(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let given = poll_fn(|context| self.poll_give(context, bytes)).await?;
            bytes = bytes.get(given..).unwrap_or_default();
        }
        Ok(())
    }

    /// Nothing more is given.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        state.to_broker.close();
        state.announce();
    }

    /// Waits until the broker has closed; not beside [`Self::take`].
    pub(crate) async fn closed(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.from_broker.closed {
                return Poll::Ready(());
            }
            state.from_broker.wait(context);
            Poll::Pending
        })
        .await;
    }

    /// Takes everything that the broker has written; none at the end.
    pub(crate) async fn take(&self) -> Option<Vec<u8>> {
        poll_fn(|context| {
            let mut state = self.0.lock();
            let was_full = state.from_broker.room() == 0;
            let bytes = mem::take(&mut state.from_broker.bytes);
            if bytes.is_empty() && !state.from_broker.closed {
                state.from_broker.wait(context);
                return Poll::Pending;
            }
            if was_full {
                state.announce();
            }
            Poll::Ready((!bytes.is_empty()).then(|| bytes.into()))
        })
        .await
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
        self.poll_give(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_above_a_socket_costs_a_plain_connection_nothing() {
        // A socket, or a pointer, and which of them it is.
        let needed = size_of::<TcpStream>().max(size_of::<usize>()) + size_of::<usize>();
        assert_eq!(size_of::<Stream>(), needed);
    }
}
