//! TCP listeners for a `mio` loop.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the system may hold for a listener until they are accepted. Systems cap it
/// (Linux at `net.core.somaxconn`, 4,096 unless set).
const BACKLOG: i32 = 4_096;

/// Whether accepted sockets begin with the listener's `TCP_NODELAY`, which saves a system call for
/// each.
const NODELAY_INHERITED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", reason(source, *address))]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn reason(source: &io::Error, address: SocketAddr) -> String {
    if source.kind() == io::ErrorKind::AddrInUse {
        return format!("another program uses port {} already", address.port());
    }
    if source.kind() == io::ErrorKind::AddrNotAvailable {
        return "no interface of this machine has that address".to_owned();
    }
    if source.kind() == io::ErrorKind::PermissionDenied {
        return format!("permission denied (port {})", address.port());
    }
    source.to_string()
}

/// Opens a non-blocking TCP listener. Port 0 lets the system choose one.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    bind(address)?.listen()
}

/// Takes a TCP address, at which connections are refused until [`BoundTcp::listen`]. Port 0 lets the
/// system choose one.
pub fn bind(address: SocketAddr) -> Result<BoundTcp, ListenError> {
    let socket = open(address).map_err(|source| ListenError { address, source })?;
    Ok(BoundTcp { socket, address })
}

/// A TCP address that is taken.
#[derive(Debug)]
pub struct BoundTcp {
    socket: Socket,
    /// The one asked for.
    address: SocketAddr,
}

impl BoundTcp {
    /// Opens the listener, for which no more rights are needed. Fails when another program listens
    /// there already.
    pub fn listen(self) -> Result<TcpListener, ListenError> {
        let address = self.address;
        let failed = |source| ListenError { address, source };
        self.socket.listen(BACKLOG).map_err(failed)?;
        Ok(TcpListener::from_std(self.socket.into()))
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Windows would let a second program take a port in use; elsewhere this only allows a restart
    // while connections of the last run linger.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be served side by side.
        socket.set_only_v6(true)?;
    }
    if NODELAY_INHERITED {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Takes the next waiting connection, ready for packets that are small and must not wait (no Nagle
/// delay). Fails with `WouldBlock` when none is waiting.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    if !NODELAY_INHERITED {
        // Fails only when the peer is gone, which the next read tells.
        let _ = stream.set_nodelay(true);
    }
    Ok((stream, peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_port_is_taken() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        let expected = format!(
            "cannot listen on {address}: another program uses port {} already",
            address.port()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_address_that_is_only_taken_refuses_connections() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.socket.local_addr().unwrap().as_socket().unwrap();
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = bound.listen().unwrap();
        std::net::TcpStream::connect(address).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = listen("192.0.2.1:1883".parse().unwrap()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot listen on 192.0.2.1:1883: no interface")
        );
    }

    #[test]
    fn accepted_connections_do_not_delay_small_packets() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = loop {
            match accept(&listener) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.unwrap(),
            }
        };
        assert!(stream.nodelay().unwrap());
    }
}
