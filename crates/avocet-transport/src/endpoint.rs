//! Where a server is and what is spoken underneath MQTT, and the stream that comes of connecting.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::layered::Layered;
use crate::websocket::stream::{WebSocketStream, upgrade};
use crate::websocket::upgrade::Asked;
use crate::{ConnectError, Proxy, TlsConnector, WebSocketClient, connect};

/// How to reach a server.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use avocet_transport::{ClientTls, Endpoint, TlsConnector};
///
/// let mut endpoint = Endpoint::tcp("broker.example", 8883);
/// endpoint.tls = Some(TlsConnector::new(&ClientTls::default())?);
/// let stream = endpoint.connect(std::time::Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it is.
    pub place: Place,
    /// TLS, if it is spoken. Over it go MQTT and WebSocket.
    pub tls: Option<TlsConnector>,
    /// WebSocket, if it is spoken. A `tls` with it should offer [`ALPN_HTTP`](crate::ALPN_HTTP).
    pub websocket: Option<WebSocketClient>,
    /// The proxy that connects to it over TCP; none for a Unix socket. QUIC goes through none.
    pub proxy: Option<Proxy>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// At a name, or an IPv4 or IPv6 address without brackets.
    Tcp {
        /// The name or the address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The same, over UDP: QUIC is spoken, which needs a `tls`.
    #[cfg(feature = "quic")]
    Udp {
        /// The name or the address.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a Unix socket of this machine.
    Unix(PathBuf),
}

impl Endpoint {
    /// A server that is reached over TCP, with nothing in between.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self {
            place: Place::Tcp { host, port },
            tls: None,
            websocket: None,
            proxy: None,
        }
    }

    /// A server that is reached over QUIC. The `tls` should offer [`ALPN_MQTT`](crate::ALPN_MQTT).
    #[cfg(feature = "quic")]
    #[must_use]
    pub fn quic(host: impl Into<String>, port: u16, tls: TlsConnector) -> Self {
        let host = host.into();
        Self {
            place: Place::Udp { host, port },
            tls: Some(tls),
            websocket: None,
            proxy: None,
        }
    }

    /// A server that is reached over a Unix socket, with nothing in between.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::Unix(path.into()),
            tls: None,
            websocket: None,
            proxy: None,
        }
    }

    /// Connects, and agrees on what is in between, within `deadline` in all.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which part failed.
    pub async fn connect(&self, deadline: Duration) -> Result<ClientStream, ConnectError> {
        let until = Instant::now() + deadline;
        let socket = match &self.place {
            Place::Tcp { host, port } => {
                let proxy = self.proxy.as_ref().filter(|proxy| proxy.is_for(host));
                let stream = match proxy {
                    Some(proxy) => self.through(proxy, host, *port, deadline).await?,
                    None => connect(host, *port, deadline).await?,
                };
                Socket::Tcp(stream)
            }
            #[cfg(feature = "quic")]
            Place::Udp { host, port } => {
                if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.is_for(host)) {
                    return Err(ConnectError::Proxy {
                        server: self.place.to_string(),
                        proxy: proxy.to_string(),
                        source: io::ErrorKind::Unsupported.into(),
                    });
                }
                let tls = self.tls.as_ref().ok_or_else(|| ConnectError::Tls {
                    server: self.place.to_string(),
                    source: io::Error::new(io::ErrorKind::InvalidInput, "QUIC needs TLS"),
                })?;
                let stream = crate::quic::connect(host, *port, tls, deadline).await?;
                return Ok(ClientStream(Inner::Quic(Box::new(stream))));
            }
            Place::Unix(path) => unix(path, until, deadline).await?,
        };
        let connecting = self.connect_over(socket);
        match timeout_at(until, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(self.place.too_slow(deadline)),
        }
    }

    /// A stream to the server that a proxy has opened.
    async fn through(
        &self,
        proxy: &Proxy,
        host: &str,
        port: u16,
        deadline: Duration,
    ) -> Result<TcpStream, ConnectError> {
        let until = Instant::now() + deadline;
        let mut stream = connect(&proxy.host, proxy.port, deadline).await?;
        let agreed = timeout_at(until, proxy.agree(&mut stream, host, port)).await;
        let agreed = agreed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match agreed {
            Ok(()) => Ok(stream),
            Err(source) => Err(ConnectError::Proxy {
                server: self.place.to_string(),
                proxy: proxy.to_string(),
                source,
            }),
        }
    }

    async fn connect_over(&self, socket: Socket) -> Result<ClientStream, ConnectError> {
        let stream = match &self.tls {
            Some(connector) => Secured::Tls(Box::new(self.secure(connector, socket).await?)),
            None => Secured::Plain(socket),
        };
        let Some(websocket) = &self.websocket else {
            return Ok(ClientStream(Inner::Bytes(stream)));
        };
        let failed = |source| ConnectError::WebSocket {
            server: self.place.to_string(),
            source,
        };
        let asked = self.ask(websocket).map_err(failed)?;
        let stream = upgrade(stream, &asked).await.map_err(failed)?;
        Ok(ClientStream(Inner::Frames(Box::new(stream))))
    }

    /// The client's side over a socket that does not block and is connected, for loops that wait for
    /// events themselves. TLS and WebSocket are agreed on while it is read and written; what is
    /// written until then waits.
    ///
    /// # Errors
    ///
    /// When the host can be no name in a certificate, or the system gives no random numbers.
    /// `Unsupported` for QUIC.
    pub fn over<S: io::Read + io::Write>(&self, socket: S) -> io::Result<Layered<S>> {
        #[cfg(feature = "quic")]
        if let Place::Udp { .. } = self.place {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut stream = Layered::new(socket);
        if let Some(connector) = &self.tls {
            let tls = connector.connect(self.place.host());
            stream.secure(tls.map_err(io::Error::other)?.into());
        }
        if let Some(websocket) = &self.websocket {
            stream.ask(self.ask(websocket)?)?;
        }
        Ok(stream)
    }

    fn ask(&self, websocket: &WebSocketClient) -> io::Result<Asked> {
        let host = match &self.place {
            Place::Tcp { .. } => self.place.to_string(),
            #[cfg(feature = "quic")]
            Place::Udp { .. } => self.place.to_string(),
            Place::Unix(_) => "localhost".to_owned(),
        };
        Asked::new(&host, &websocket.path, &websocket.headers).map_err(io::Error::other)
    }

    async fn secure(
        &self,
        connector: &TlsConnector,
        socket: Socket,
    ) -> Result<TlsStream<Socket>, ConnectError> {
        let failed = |source| ConnectError::Tls {
            server: self.place.to_string(),
            source,
        };
        let name = connector.server_name(self.place.host());
        let name =
            name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        tokio_rustls::TlsConnector::from(connector.config().clone())
            .connect(name, socket)
            .await
            .map_err(failed)
    }
}

impl Place {
    fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            #[cfg(feature = "quic")]
            Self::Udp { host, .. } => host,
            Self::Unix(_) => "localhost",
        }
    }

    fn too_slow(&self, deadline: Duration) -> ConnectError {
        match self {
            Self::Tcp { host, port } => ConnectError::TimedOut {
                host: host.clone(),
                port: *port,
                deadline,
            },
            #[cfg(feature = "quic")]
            Self::Udp { host, port } => ConnectError::TimedOut {
                host: host.clone(),
                port: *port,
                deadline,
            },
            Self::Unix(path) => ConnectError::Unix {
                path: path.clone(),
                source: io::ErrorKind::TimedOut.into(),
            },
        }
    }
}

/// As an operator writes it: `HOST:PORT`, or the path of the socket.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (host, port) = match self {
            Self::Tcp { host, port } => (host, port),
            #[cfg(feature = "quic")]
            Self::Udp { host, port } => (host, port),
            Self::Unix(path) => return write!(f, "{}", path.display()),
        };
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(unix)]
async fn unix(
    path: &std::path::Path,
    until: Instant,
    deadline: Duration,
) -> Result<Socket, ConnectError> {
    let connecting = tokio::net::UnixStream::connect(path);
    match timeout_at(until, connecting).await {
        Ok(Ok(stream)) => Ok(Socket::Unix(stream)),
        Ok(Err(source)) => Err(ConnectError::Unix {
            path: path.to_owned(),
            source,
        }),
        Err(_) => Err(Place::Unix(path.to_owned()).too_slow(deadline)),
    }
}

#[cfg(not(unix))]
async fn unix(path: &std::path::Path, _: Instant, _: Duration) -> Result<Socket, ConnectError> {
    Err(ConnectError::Unix {
        path: path.to_owned(),
        source: io::ErrorKind::Unsupported.into(),
    })
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

/// A connection to a server: a stream of the bytes of MQTT, whatever carries them.
#[derive(Debug)]
pub struct ClientStream(Inner);

#[derive(Debug)]
enum Inner {
    Bytes(Secured),
    Frames(Box<WebSocketStream<Secured>>),
    #[cfg(feature = "quic")]
    Quic(Box<crate::quic::QuicStream>),
}

#[derive(Debug)]
enum Secured {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Calls the same method on what an enum holds.
macro_rules! each {
    ($this:expr, $type:ident { $($(#[$attribute:meta])* $variant:ident),* }, $stream:ident => $call:expr) => {
        match $this {
            $($(#[$attribute])* $type::$variant($stream) => $call,)*
        }
    };
}

macro_rules! impl_stream {
    ($type:ident, $path:ident { $($variants:tt)* }, $inner:expr) => {
        impl AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let inner: fn(&mut Self) -> &mut $path = $inner;
                each!(inner(&mut self), $path { $($variants)* }, stream => {
                    Pin::new(stream).poll_read(context, buffer)
                })
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let inner: fn(&mut Self) -> &mut $path = $inner;
                each!(inner(&mut self), $path { $($variants)* }, stream => {
                    Pin::new(stream).poll_write(context, bytes)
                })
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let inner: fn(&mut Self) -> &mut $path = $inner;
                each!(inner(&mut self), $path { $($variants)* }, stream => {
                    Pin::new(stream).poll_write_vectored(context, slices)
                })
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                let inner: fn(&mut Self) -> &mut $path = $inner;
                each!(inner(&mut self), $path { $($variants)* }, stream => {
                    Pin::new(stream).poll_flush(context)
                })
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                let inner: fn(&mut Self) -> &mut $path = $inner;
                each!(inner(&mut self), $path { $($variants)* }, stream => {
                    Pin::new(stream).poll_shutdown(context)
                })
            }
        }
    };
}

impl_stream!(
    Socket,
    Socket {
        Tcp,
        #[cfg(unix)]
        Unix
    },
    |this| this
);
impl_stream!(Secured, Secured { Plain, Tls }, |this| this);
impl_stream!(
    ClientStream,
    Inner {
        Bytes,
        Frames,
        #[cfg(feature = "quic")]
        Quic
    },
    |this| &mut this.0
);

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
