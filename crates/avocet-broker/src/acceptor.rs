//! Accepting connections.

use std::borrow::Cow;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use avocet_engine::Peer;
use avocet_session::{Instant, Now};
use avocet_transport::BoundTcp;
#[cfg(unix)]
use avocet_transport::UnixListener;
use mio::event::Source;
use mio::net::TcpListener;
use tracing::{info, warn};

use crate::broker::StartError;
use crate::config::{ListenAddress, Listener as Settings};
use crate::stream::Socket as Connected;

/// Connections taken from one listener before the ones that are there have their turn.
const PER_TURN: usize = 64;

/// How long to wait when the system has no descriptor or no memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The listeners of a broker.
#[derive(Default)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The system was out of resources: no accepting before this.
    paused_until: Option<Instant>,
    /// The operator was told, and there was no success since.
    warned: bool,
}

struct Listener {
    /// Its place among all listeners.
    index: u16,
    socket: Socket,
    ready: bool,
}

/// What connections are accepted from.
pub(crate) enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// An address that is taken, where nobody is served yet.
pub(crate) enum Bound {
    Tcp(BoundTcp),
    /// Of QUIC, where nobody accepts from here on but its thread.
    Udp(UdpSocket),
    /// Nothing is taken: the user that the broker runs as makes the file.
    Unix,
}

impl Bound {
    /// Takes the address of a listener.
    pub(crate) fn take(listener: &Settings) -> Result<Self, StartError> {
        Ok(match listener.address {
            ListenAddress::Tcp(address) if listener.quic => {
                Self::Udp(avocet_transport::quic::bind(address)?)
            }
            ListenAddress::Tcp(address) => Self::Tcp(avocet_transport::bind(address)?),
            ListenAddress::Unix(_) => Self::Unix,
        })
    }
}

impl Socket {
    /// Opens a listener where its address was taken.
    pub(crate) fn open(bound: Bound, listener: &Settings) -> Result<Self, StartError> {
        match (bound, &listener.address) {
            (Bound::Tcp(bound), _) => Ok(Self::Tcp(bound.listen()?)),
            #[cfg(unix)]
            (Bound::Unix, ListenAddress::Unix(path)) => {
                Ok(Self::Unix(UnixListener::open(path, listener.mode)?))
            }
            (Bound::Udp(_) | Bound::Unix, _) => {
                Err(io::Error::from(io::ErrorKind::Unsupported).into())
            }
        }
    }

    /// Where it listens, with the port that the system chose.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(socket) => Ok(ListenAddress::Tcp(socket.local_addr()?)),
            #[cfg(unix)]
            Self::Unix(socket) => Ok(ListenAddress::Unix(socket.path().to_owned())),
        }
    }

    pub(crate) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(socket) => socket,
            #[cfg(unix)]
            Self::Unix(socket) => socket,
        }
    }

    fn accept(&self) -> io::Result<(Connected, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = avocet_transport::accept(socket)?;
                Ok((Connected::Tcp(stream), address.into()))
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok((Connected::Unix(socket.accept()?), UNIX)),
        }
    }
}

/// Where programs on this machine come from that use a Unix socket.
pub(crate) const UNIX: Peer = Peer::Named(Cow::Borrowed("unix"));

/// Where the program comes from that the broker is part of.
pub(crate) const IN_PROCESS: Peer = Peer::Named(Cow::Borrowed("in-process"));

/// What came of one attempt.
enum Attempt {
    Accepted(Connected, Peer),
    /// The connection was gone before it was accepted, or a signal came.
    Retry,
    Nobody,
    Exhausted(io::Error),
}

impl Acceptor {
    pub(crate) fn new(sockets: Vec<(u16, Socket)>) -> Self {
        let listeners = sockets.into_iter().map(|(index, socket)| Listener {
            index,
            socket,
            ready: true,
        });
        Self {
            listeners: listeners.collect(),
            paused_until: None,
            warned: false,
        }
    }

    /// Notes that connections wait at a listener.
    pub(crate) fn set_ready(&mut self, index: usize) {
        let mut listeners = self.listeners.iter_mut();
        if let Some(listener) = listeners.find(|it| usize::from(it.index) == index) {
            listener.ready = true;
        }
    }

    /// Whether there may be connections to accept at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.paused_until.is_none() && self.listeners.iter().any(|listener| listener.ready)
    }

    /// Whether [`accept`](Self::accept) has something to do.
    pub(crate) fn may_accept(&self, now: Instant) -> bool {
        match self.paused_until {
            Some(until) => until <= now,
            None => self.is_ready(),
        }
    }

    /// When to try again after the system was out of resources.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Closes all listeners.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Takes waiting connections, each with its peer and the index of its listener.
    pub(crate) fn accept(&mut self, now: Now, mut take: impl FnMut(Connected, Peer, u16)) {
        if !self.may_accept(now.instant) {
            return;
        }
        self.paused_until = None;
        for listener in &mut self.listeners {
            for _ in 0..PER_TURN {
                if !listener.ready {
                    break;
                }
                match attempt(&listener.socket) {
                    Attempt::Accepted(stream, peer) => {
                        if self.warned {
                            info!("accepting connections again");
                            self.warned = false;
                        }
                        take(stream, peer, listener.index);
                    }
                    Attempt::Retry => {}
                    Attempt::Nobody => listener.ready = false,
                    Attempt::Exhausted(error) => {
                        if !self.warned {
                            warn!("cannot accept connections: {error}; retrying");
                            self.warned = true;
                        }
                        self.paused_until = Some(now.instant + EXHAUSTED_PAUSE);
                        return;
                    }
                }
            }
        }
    }
}

fn attempt(listener: &Socket) -> Attempt {
    let error = match listener.accept() {
        Ok((stream, peer)) => return Attempt::Accepted(stream, peer),
        Err(error) => error,
    };
    if error.kind() == io::ErrorKind::WouldBlock {
        return Attempt::Nobody;
    }
    let gone = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
        io::ErrorKind::NetworkDown,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::TimedOut,
    ];
    if gone.contains(&error.kind()) {
        Attempt::Retry
    } else {
        Attempt::Exhausted(error)
    }
}
