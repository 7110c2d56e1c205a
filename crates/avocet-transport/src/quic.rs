//! QUIC on both sides, by quinn: one stream that goes both ways is one connection of MQTT.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, ReadError, RecvStream, SendStream,
    TokioRuntime, TransportConfig, VarInt, WriteError,
};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connect::resolve;
use crate::handshake::HandshakeError;
use crate::tls::{CertificateNames, TlsAcceptor, TlsConnector};
use crate::{ConnectError, ListenError};

/// Bytes of each direction that were sent and not acknowledged, or received and not read.
const WINDOW: u32 = 256 << 10;

/// Bytes that are kept of a client until its handshake begins, and of all such clients.
const EARLY_BYTES: u64 = 8 << 10;
const EARLY_BYTES_TOTAL: u64 = 4 << 20;

/// How often a client shows that it is there: bindings of address translators for UDP often end after
/// 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long a client waits for a sign of the server, which answers what [`KEEP_ALIVE`] sends.
const SILENCE: Duration = Duration::from_secs(60);

/// How often a server asks a silent client for a sign of life, within the time after which it is gone:
/// datagrams get lost.
const ASKED_WITHIN_SILENCE: u32 = 3;

/// How much later than one address the next one is tried (RFC 8305 has 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// How long a connection that is dropped may take to hand over what was written.
const LINGER: Duration = Duration::from_secs(1);

/// The end of a connection as both sides want it.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// What both sides keep, and allow each other.
fn limits() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into())
        .datagram_receive_buffer_size(None);
    transport
}

/// Opens a socket for [`QuicListener::new`]. Port 0 lets the system choose one.
///
/// # Errors
///
/// [`ListenError`] says which address cannot be listened on, and why.
pub fn bind(address: SocketAddr) -> Result<UdpSocket, ListenError> {
    let open = || {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // So that 0.0.0.0 and [::] can be served side by side.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|source| ListenError { address, source })
}

/// Accepts QUIC connections.
#[derive(Debug)]
pub struct QuicListener {
    endpoint: Endpoint,
    tls: Arc<TlsAcceptor>,
    transport: Arc<TransportConfig>,
    early_max: usize,
    /// What new connections begin with, and what it was made of.
    config: (Arc<ServerConfig>, Arc<quinn::ServerConfig>),
}

impl QuicListener {
    /// Listens at a socket of [`bind`], within a runtime of tokio that has I/O and time. Beyond
    /// `early_max` clients that wait for [`Self::accept`], others are refused. A client that gives no sign
    /// of life for `idle_timeout` is gone; one that is silent because it has nothing to say is asked for
    /// one before. None: for ever.
    ///
    /// # Errors
    ///
    /// Those of the socket, or when TLS has no cipher that QUIC begins with.
    pub fn new(
        socket: UdpSocket,
        tls: Arc<TlsAcceptor>,
        early_max: usize,
        idle_timeout: Option<Duration>,
    ) -> io::Result<Self> {
        let mut transport = limits();
        let silence = idle_timeout.and_then(|it| it.try_into().ok());
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_idle_timeout(silence)
            // MQTT knows itself how long a client may be silent: what answers is there.
            .keep_alive_interval(idle_timeout.map(|it| it / ASKED_WITHIN_SILENCE));
        let transport = Arc::new(transport);
        let current = tls.config();
        let config = server_config(&current, &transport, early_max)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config.clone()),
            socket,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            tls,
            transport,
            early_max,
            config: (current, Arc::new(config)),
        })
    }

    /// The next client; none once it is closed.
    ///
    /// # Errors
    ///
    /// When TLS has no cipher that QUIC begins with.
    pub async fn accept(&mut self) -> Option<io::Result<QuicArrival>> {
        let incoming = self.endpoint.accept().await?;
        Some(self.current().map(|config| QuicArrival {
            incoming,
            config,
            tls: Arc::clone(&self.tls),
        }))
    }

    /// What connections that begin from here on are set up with.
    fn current(&mut self) -> io::Result<Arc<quinn::ServerConfig>> {
        let tls = self.tls.config();
        if !Arc::ptr_eq(&tls, &self.config.0) {
            let config = server_config(&tls, &self.transport, self.early_max)?;
            self.config = (tls, Arc::new(config));
        }
        Ok(Arc::clone(&self.config.1))
    }

    /// Takes no more clients. Those that are connected stay.
    pub fn close(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Waits until all connections are gone.
    pub async fn idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

fn server_config(
    tls: &Arc<ServerConfig>,
    transport: &Arc<TransportConfig>,
    early_max: usize,
) -> io::Result<quinn::ServerConfig> {
    let crypto = QuicServerConfig::try_from(Arc::clone(tls)).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::clone(transport))
        .max_incoming(early_max)
        .incoming_buffer_size(EARLY_BYTES)
        .incoming_buffer_size_total(EARLY_BYTES_TOTAL);
    Ok(config)
}

/// A client that has yet to shake hands.
#[derive(Debug)]
pub struct QuicArrival {
    incoming: Incoming,
    config: Arc<quinn::ServerConfig>,
    tls: Arc<TlsAcceptor>,
}

impl QuicArrival {
    /// Where it says it is.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Whether it has shown that it is there.
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Has it show that it is there, before anything is kept of it: it comes again.
    pub fn validate(self) {
        // Fails for one that has, which is refused then.
        let _ = self.incoming.retry();
    }

    /// Tells it to go away.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Shakes hands, and waits for the first byte of MQTT. There is no deadline.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]
    pub async fn establish(self) -> Result<QuicStream, HandshakeError> {
        let connecting = self.incoming.accept_with(self.config);
        let connection = connecting.map_err(refused)?.await.map_err(refused)?;
        if let Some(chain) = certificates(&connection)
            && let Err(error) = self.tls.verify(&chain)
        {
            connection.close(NO_ERROR, b"certificate");
            return Err(HandshakeError::Tls(error));
        }
        let (send, recv) = connection.accept_bi().await.map_err(refused)?;
        Ok(QuicStream::new(connection, send, recv))
    }
}

fn refused(error: quinn::ConnectionError) -> HandshakeError {
    use quinn::ConnectionError::{ApplicationClosed, Reset};
    if matches!(error, ApplicationClosed(_) | Reset) {
        return HandshakeError::Closed;
    }
    HandshakeError::Quic(io::Error::other(error))
}

fn certificates(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    let identity = connection.peer_identity()?;
    identity.downcast().ok().map(|chain| *chain)
}

/// The stream of a connection over QUIC. Dropping it ends the connection, once the peer has what was
/// written.
#[derive(Debug)]
pub struct QuicStream {
    reader: QuicReader,
    writer: QuicWriter,
}

impl QuicStream {
    fn new(connection: Connection, send: SendStream, recv: RecvStream) -> Self {
        Self {
            reader: QuicReader(recv),
            writer: QuicWriter {
                send,
                connection,
                ending: None,
                ended: false,
            },
        }
    }

    /// Where the peer is. It may move, which changes nothing else.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.writer.connection.remote_address()
    }

    /// Whom the peer's certificate names, if it presented one: nobody if its names cannot be read.
    #[must_use]
    pub fn peer_names(&self) -> Option<CertificateNames> {
        let chain = certificates(&self.writer.connection)?;
        Some(CertificateNames::read(chain.first()?).unwrap_or_default())
    }

    /// Both directions apart.
    #[must_use]
    pub fn split(self) -> (QuicReader, QuicWriter) {
        (self.reader, self.writer)
    }
}

/// What the peer sends.
#[derive(Debug)]
pub struct QuicReader(RecvStream);

impl QuicReader {
    /// The next bytes, at most `max`; none at the end.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or the peer has given it up.
    pub async fn read(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        let chunk = self.0.read_chunk(max, true).await?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

/// What is sent to the peer. Dropping it ends the connection, once the peer has what was written.
pub struct QuicWriter {
    send: SendStream,
    connection: Connection,
    /// The peer is to acknowledge the end.
    ending: Option<Ending>,
    ended: bool,
}

type Ending = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl fmt::Debug for QuicWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("QuicWriter");
        shown.field("send", &self.send).finish_non_exhaustive()
    }
}

impl QuicWriter {
    /// Takes all of it, as the peer takes what came before.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or the peer reads no more.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        Ok(self.send.write_chunk(bytes).await?)
    }

    /// Waits until the peer has everything, and ends the connection.
    pub async fn finish(&mut self) {
        std::future::poll_fn(|context| self.poll_finish(context)).await;
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Ready(());
        }
        let Self { send, ending, .. } = self;
        let ending = ending.get_or_insert_with(|| {
            // Fails when it has ended otherwise.
            let _ = send.finish();
            let stopped = send.stopped();
            Box::pin(async move {
                // Fails when the connection is lost.
                let _ = stopped.await;
            })
        });
        ready!(ending.as_mut().poll(context));
        self.ended = true;
        self.connection.close(NO_ERROR, b"");
        Poll::Ready(())
    }
}

impl Drop for QuicWriter {
    fn drop(&mut self) {
        if self.ended || self.connection.close_reason().is_some() {
            return;
        }
        let _ = self.send.finish();
        let (stopped, connection) = (self.send.stopped(), self.connection.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = timeout(LINGER, stopped).await;
                connection.close(NO_ERROR, b"");
            });
        }
    }
}

/// Of a connection that is lost, why it is.
fn with_reason(error: io::Error) -> io::Error {
    let inner = error.get_ref();
    let of_read = inner.and_then(|it| match it.downcast_ref() {
        Some(ReadError::ConnectionLost(reason)) => Some(reason.clone()),
        Some(_) | None => None,
    });
    let of_write = inner.and_then(|it| match it.downcast_ref() {
        Some(WriteError::ConnectionLost(reason)) => Some(reason.clone()),
        Some(_) | None => None,
    });
    of_read.or(of_write).map_or(error, io::Error::from)
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = AsyncRead::poll_read(Pin::new(&mut self.reader.0), context, buffer);
        read.map_err(with_reason)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = AsyncWrite::poll_write(Pin::new(&mut self.writer.send), context, bytes);
        written.map_err(with_reason)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_finish(context).map(Ok)
    }
}

/// Connects, from a socket of its own. As UDP tells of no refusal, addresses of the host are tried side
/// by side, each a little later than the one before.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    tls: &TlsConnector,
    deadline: Duration,
) -> Result<QuicStream, ConnectError> {
    let mut transport = limits();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(SILENCE.try_into().ok());
    let server = || format!("{host}:{port}");
    let crypto = QuicClientConfig::try_from(Arc::clone(tls.config()));
    let crypto = crypto.map_err(|error| ConnectError::Tls {
        server: server(),
        source: io::Error::other(error),
    })?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let name = tls.name(host);
    let connecting = async {
        let mut attempts = JoinSet::new();
        let mut last = ConnectError::NoAddress { host: host.into() };
        for (address, turn) in resolve(host, port).await?.into_iter().zip(0..) {
            let (config, name) = (config.clone(), name.to_owned());
            attempts.spawn(async move {
                sleep(STAGGER * turn).await;
                let connected = connect_to(address, config, &name).await;
                connected.map_err(|source| (address, source))
            });
        }
        while let Some(attempt) = attempts.join_next().await {
            last = match attempt {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err((_, source))) if is_of_tls(&source) => ConnectError::Tls {
                    server: server(),
                    source,
                },
                Ok(Err((address, source))) => ConnectError::Refused {
                    host: host.into(),
                    port,
                    address,
                    source,
                },
                // It was stopped with its runtime.
                Err(_) => continue,
            };
        }
        Err(last)
    };
    let connected = timeout(deadline, connecting).await;
    connected.unwrap_or_else(|_| {
        Err(ConnectError::TimedOut {
            host: host.into(),
            port,
            deadline,
        })
    })
}

async fn connect_to(
    address: SocketAddr,
    config: quinn::ClientConfig,
    name: &str,
) -> io::Result<QuicStream> {
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(own)?;
    let connecting = endpoint.connect_with(config, address, name);
    let connection = connecting.map_err(io::Error::other)?.await?;
    let (send, recv) = connection.open_bi().await?;
    Ok(QuicStream::new(connection, send, recv))
}

/// Whether TLS within QUIC failed.
fn is_of_tls(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|it| it.downcast_ref());
    let code = match error {
        Some(quinn::ConnectionError::TransportError(error)) => u64::from(error.code),
        Some(quinn::ConnectionError::ConnectionClosed(close)) => u64::from(close.error_code),
        Some(_) | None => return false,
    };
    // CRYPTO_ERROR of RFC 9000: an alert of TLS in its last byte.
    code >> 8 == 1
}

#[cfg(test)]
#[path = "quic_tests.rs"]
mod tests;
