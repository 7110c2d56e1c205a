//! Connecting to a server over TCP.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why no connection came about.
///
/// The errors name the host and the port, so that a program can show them as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of the host could not be resolved.
    #[error("cannot resolve the host name {host:?}: {source}")]
    Resolve {
        /// The host as given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name of the host resolves to no address.
    #[error("the host name {host:?} has no address")]
    NoAddress {
        /// The host as given.
        host: String,
    },
    /// None of the host's addresses took the connection; this is the last one tried.
    #[error("cannot connect to {host}:{port} at {address}: {source}")]
    Refused {
        /// The host as given.
        host: String,
        /// The port as given.
        port: u16,
        /// The address tried last.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a connection nor a refusal came before the deadline.
    #[error("no connection to {host}:{port} within {} s", deadline.as_secs_f32())]
    TimedOut {
        /// The host as given.
        host: String,
        /// The port as given.
        port: u16,
        /// The time that was allowed.
        deadline: Duration,
    },
    /// The Unix socket took no connection.
    #[error("cannot connect to {}: {source}", path.display())]
    Unix {
        /// The path of the socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy did not connect to the server, or is none.
    #[error("no connection to {server} through {proxy}: {source}")]
    Proxy {
        /// The server as given.
        server: String,
        /// The proxy as a URL, without its user.
        proxy: String,
        /// What it said, as a [`TunnelError`](crate::TunnelError), or what the system said.
        source: io::Error,
    },
    /// The server does not speak WebSocket, or not with us.
    #[error("no WebSocket connection to {server}: {source}")]
    WebSocket {
        /// The server as given.
        server: String,
        /// What it did, or what the system said.
        source: io::Error,
    },
    /// The server could not be agreed with on TLS, or is not the one asked for.
    #[error("no TLS connection to {server}: {source}")]
    Tls {
        /// The server as given.
        server: String,
        /// What TLS, or the system, said.
        source: io::Error,
    },
}

/// Connects to `host` (a name, or an IPv4 or IPv6 address without brackets) within `deadline`,
/// with `TCP_NODELAY` set.
///
/// A host's addresses are tried in the resolver's order; each has an equal share of the time that
/// is left, so one address that never answers does not keep the next from being tried.
///
/// # Errors
///
/// [`ConnectError`] says which of resolving, connecting or waiting failed.
pub async fn connect(host: &str, port: u16, deadline: Duration) -> Result<TcpStream, ConnectError> {
    let timed_out = || ConnectError::TimedOut {
        host: host.into(),
        port,
        deadline,
    };
    timeout(deadline, connect_any(host, port, deadline))
        .await
        .map_err(|_| timed_out())?
}

async fn connect_any(host: &str, port: u16, deadline: Duration) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(host, port).await?;
    let share = deadline / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = ConnectError::NoAddress { host: host.into() };
    for address in addresses {
        let attempt = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        last = match timeout(share, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => ConnectError::Refused {
                host: host.into(),
                port,
                address,
                source,
            },
            Err(_) => ConnectError::TimedOut {
                host: host.into(),
                port,
                deadline,
            },
        };
    }
    Err(last)
}

pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses = addresses.map_err(|source| ConnectError::Resolve {
        host: host.into(),
        source,
    })?;
    Ok(addresses.collect())
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
