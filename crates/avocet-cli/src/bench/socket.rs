//! The sockets of a load: TCP, Unix, and QUIC by way of one.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;

use avocet_transport::Layered;
use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

#[cfg(unix)]
use crate::bench::quic::Quic;

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
    #[cfg(unix)]
    Quic(Box<Quic>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "{}", path.display()),
            #[cfg(unix)]
            Self::Quic(quic) => write!(f, "{quic}"),
        }
    }
}

impl Target {
    /// A socket that connects. `index` counts the clients of all threads.
    pub(crate) fn connect(&self, index: usize) -> io::Result<Raw> {
        Ok(match self {
            Self::Tcp(address) => Raw::Tcp(connect(*address, index)?),
            #[cfg(unix)]
            Self::Unix(path) => Raw::Unix(UnixStream::connect(path)?),
            #[cfg(unix)]
            Self::Quic(quic) => Raw::Unix(quic.connect()?),
        })
    }
}

/// A socket with nothing on top of it.
#[derive(Debug)]
pub(crate) enum Raw {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Raw {
    /// Whether it is connected; an error when it cannot be.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(socket) => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                if socket.peer_addr().is_err() {
                    return Ok(false);
                }
                // One write goes out at once, whatever is still unacknowledged.
                socket.set_nodelay(true)?;
            }
            // They are, or fail, at once.
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
        Ok(true)
    }
}

impl Read for Raw {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            #[cfg(unix)]
            Self::Unix(socket) => socket.read(room),
        }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            #[cfg(unix)]
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(slices),
            #[cfg(unix)]
            Self::Unix(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Raw {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.register(registry, token, interest),
            #[cfg(unix)]
            Self::Unix(socket) => socket.register(registry, token, interest),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.reregister(registry, token, interest),
            #[cfg(unix)]
            Self::Unix(socket) => socket.reregister(registry, token, interest),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.deregister(registry),
            #[cfg(unix)]
            Self::Unix(socket) => socket.deregister(registry),
        }
    }
}

/// What a client reads and writes.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(Raw),
    Layered(Box<Layered<Raw>>),
}

impl Socket {
    pub(crate) fn raw(&mut self) -> &mut Raw {
        match self {
            Self::Plain(socket) => socket,
            Self::Layered(stream) => stream.socket_mut(),
        }
    }

    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(room),
            Self::Layered(stream) => stream.read(room),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Layered(stream) => stream.write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    /// Whether a read that took less than there was room for has taken all there was.
    pub(crate) fn is_at_its_end(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Layered(stream) => !stream.has_more(),
        }
    }
}

/// A socket that connects to `address`. Sources on loopback have 28,000 ports or so each, and
/// finding a free one takes longer the more are in use: each of them serves some thousand clients.
fn connect(address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    const PER_SOURCE: usize = 4_000;
    let source = u32::try_from(index / PER_SOURCE).unwrap_or(0);
    let stream = match address {
        SocketAddr::V4(v4) if cfg!(target_os = "linux") && v4.ip().is_loopback() && source > 0 => {
            let from = std::net::Ipv4Addr::from_bits(
                std::net::Ipv4Addr::LOCALHOST.to_bits() + source % 65_536,
            );
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
            match socket.connect(&address.into()) {
                Ok(()) => {}
                Err(error) if is_in_progress(&error) => {}
                Err(error) => return Err(error),
            }
            TcpStream::from_std(socket.into())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => TcpStream::connect(address)?,
    };
    Ok(stream)
}

/// Connecting without waiting has begun.
fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    let code = Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    #[cfg(not(unix))]
    let code = None;
    error.kind() == io::ErrorKind::WouldBlock
        || error
            .raw_os_error()
            .is_some_and(|given| Some(given) == code)
}
