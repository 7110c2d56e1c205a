//! What comes before the first byte of MQTT on the server's side: a proxy's word on where the
//! client is, TLS, the upgrade to WebSocket.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::HandshakeKind;

use crate::layered::Layered;
use crate::proxy::{self, ProxyError};
use crate::tls::{CertificateNames, TlsAcceptor};
use crate::websocket::frames::WebSocket;
use crate::websocket::upgrade::{self, HEAD_MAX, UpgradeError, WebSocketServer};
use crate::{FrameError, Network};

/// What lies between the sockets of a listener and MQTT.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// TLS.
    pub tls: Option<Arc<TlsAcceptor>>,
    /// WebSocket.
    pub websocket: Option<WebSocketServer>,
    /// Whether each connection comes from a proxy that says where the client is (PROXY protocol 1
    /// or 2).
    pub proxy_protocol: bool,
    /// The proxies that are believed, also in the header of WebSocket requests (`Forwarded`,
    /// `X-Forwarded-For`).
    pub trusted_proxies: Vec<Network>,
}

impl Layers {
    /// Whether there is nothing in between.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tls.is_none() && self.websocket.is_none() && !self.proxy_protocol
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let mut networks = self.trusted_proxies.iter();
        networks.any(|network| network.contains(address))
    }
}

/// Why no connection came of a socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer closed, or the socket broke.
    #[error("the connection was closed")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
    /// The peer is no proxy that is trusted.
    #[error("not from a trusted proxy")]
    Untrusted,
    /// The header of the PROXY protocol is refused.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS was refused by either side.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// QUIC, or TLS within it, was refused by either side.
    #[error("QUIC: {0}")]
    Quic(io::Error),
    /// The request for WebSocket is refused.
    #[error("WebSocket: {0}")]
    Upgrade(#[from] UpgradeError),
    /// The first frames are refused.
    #[error("WebSocket: {0}")]
    Frame(#[from] FrameError),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let closed = [
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::UnexpectedEof,
        ];
        if closed.contains(&error.kind()) {
            Self::Closed
        } else {
            Self::Io(error)
        }
    }
}

/// A socket on its way to a connection. What it keeps is bounded by the longest header, or by one
/// message of TLS.
#[derive(Debug)]
pub struct Handshake<S> {
    stream: Layered<S>,
    stage: Stage,
    /// Where the client is.
    peer: Option<SocketAddr>,
    /// Whether the one it comes from is believed.
    trusted: bool,
    /// The request for WebSocket, until its end has come; then what was sent behind it.
    head: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Proxy,
    Tls,
    WebSocket,
    /// Our last answer has not left.
    Answer,
    Done,
}

/// A connection.
#[derive(Debug)]
pub struct Established<S> {
    /// The stream.
    pub stream: EstablishedStream<S>,
    /// Bytes that were read already; the stream's come after them.
    pub input: Vec<u8>,
    /// Where the client is; none for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whom its certificate names, if it presented one.
    pub certificate: Option<CertificateNames>,
}

/// The stream of a connection.
#[derive(Debug)]
pub enum EstablishedStream<S> {
    /// The socket itself.
    Plain(S),
    /// With something in between.
    Layered(Layered<S>),
}

impl<S: Read + Write> Handshake<S> {
    /// A socket that was accepted from `peer`; none for a Unix socket.
    #[must_use]
    pub fn new(socket: S, peer: Option<SocketAddr>) -> Self {
        Self {
            stream: Layered::new(socket),
            stage: Stage::Proxy,
            peer,
            trusted: false,
            head: Vec::new(),
        }
    }

    /// The socket, to be watched.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.stream.socket
    }

    /// Where the client is, as far as that is known.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Goes on as far as the socket lets it, by edges; whether it is done.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; the peer was told as far as its socket took it.
    pub fn advance(&mut self, layers: &Layers) -> Result<bool, HandshakeError> {
        loop {
            let went_on = match self.stage {
                Stage::Proxy => self.proxy(layers)?,
                Stage::Tls => self.tls(layers)?,
                Stage::WebSocket => self.websocket(layers)?,
                Stage::Answer => {
                    let sent = self.stream.flush()?;
                    if sent {
                        self.stage = Stage::Done;
                    }
                    sent
                }
                Stage::Done => return Ok(true),
            };
            if !went_on {
                return Ok(false);
            }
        }
    }

    /// Once it is done: the connection.
    #[must_use]
    pub fn finish(mut self) -> Established<S> {
        debug_assert_eq!(self.stage, Stage::Done);
        let certificate = self.stream.peer_names();
        let is_plain = self.stream.tls.is_none() && self.stream.websocket.is_none();
        let input = if is_plain {
            std::mem::take(&mut self.stream.raw)
        } else {
            self.head
        };
        Established {
            stream: if is_plain {
                EstablishedStream::Plain(self.stream.socket)
            } else {
                EstablishedStream::Layered(self.stream)
            },
            input,
            peer: self.peer,
            certificate,
        }
    }

    fn proxy(&mut self, layers: &Layers) -> Result<bool, HandshakeError> {
        // A Unix socket is reached by those whom its mode lets in: proxies if there are any.
        let some = !layers.trusted_proxies.is_empty();
        self.trusted = self.peer.map_or(some, |peer| layers.trusts(peer.ip()));
        if layers.proxy_protocol {
            if !self.trusted {
                return Err(HandshakeError::Untrusted);
            }
            let header = loop {
                match proxy::header(&self.stream.raw)? {
                    Some(header) => break header,
                    None if !self.read_raw()? => return Ok(false),
                    None => {}
                }
            };
            self.stream.raw.drain(..header.len);
            if header.client.is_some() {
                self.peer = header.client;
                self.trusted = self.peer.is_some_and(|peer| layers.trusts(peer.ip()));
            }
        }
        self.stage = Stage::Tls;
        Ok(true)
    }

    /// Reads once; false when nothing is there.
    fn read_raw(&mut self) -> Result<bool, HandshakeError> {
        let mut room = [0; 1_024];
        match self.stream.socket.read(&mut room) {
            Ok(0) => Err(HandshakeError::Closed),
            Ok(n) => {
                let bytes = room.get(..n).unwrap_or_default();
                self.stream.raw.extend_from_slice(bytes);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn tls(&mut self, layers: &Layers) -> Result<bool, HandshakeError> {
        let Some(acceptor) = &layers.tls else {
            self.stage = Stage::WebSocket;
            return Ok(true);
        };
        if self.stream.tls.is_none() {
            let tls = acceptor.accept().map_err(HandshakeError::Tls)?;
            self.stream.secure(tls.into());
        }
        loop {
            let raw = std::mem::take(&mut self.stream.raw);
            self.stream.feed(&raw, &mut []).map_err(tls_error)?;
            let sent = self.stream.flush()?;
            let tls = self.stream.tls.as_ref();
            if !tls.is_some_and(|tls| tls.is_handshaking()) {
                self.verify_resumed(acceptor)?;
                self.stage = Stage::WebSocket;
                return Ok(true);
            }
            if !self.read_raw()? {
                return Ok(false);
            }
            if !sent && self.stream.has_unsent() {
                // It reads and takes nothing: what comes waits for the socket.
                self.stream.flush()?;
            }
        }
    }

    /// Who resumes a session presents no certificate, and the one that it has may have ended.
    fn verify_resumed(&mut self, acceptor: &TlsAcceptor) -> Result<(), HandshakeError> {
        let tls = self.stream.tls.as_ref();
        let resumed = tls.filter(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed));
        let Some(chain) = resumed.and_then(|tls| tls.peer_certificates()) else {
            return Ok(());
        };
        if let Err(error) = acceptor.verify(chain) {
            self.stream.say_goodbye();
            return Err(HandshakeError::Tls(error));
        }
        Ok(())
    }

    fn websocket(&mut self, layers: &Layers) -> Result<bool, HandshakeError> {
        let Some(server) = &layers.websocket else {
            self.stage = Stage::Answer;
            return Ok(true);
        };
        let trusted = self.trusted.then_some(&*layers.trusted_proxies);
        let mut room = [0; 1_024];
        loop {
            match upgrade::request(&self.head, server, trusted) {
                Ok(Some(granted)) => {
                    self.stream.put(granted.response.as_bytes())?;
                    if let Some(client) = granted.forwarded_for {
                        self.peer = Some(SocketAddr::new(client, 0));
                    }
                    let mut websocket = WebSocket::server();
                    self.head.drain(..granted.len);
                    let payload = websocket.decode(&mut self.head);
                    let failed = websocket.failed().filter(|_| payload == 0);
                    self.stream.ended = websocket.is_closed();
                    self.stream.websocket = Some(websocket);
                    if let Some(error) = failed {
                        self.stream.say_goodbye();
                        return Err(error.into());
                    }
                    self.head.truncate(payload);
                    self.stage = Stage::Answer;
                    return Ok(true);
                }
                Ok(None) => {}
                Err(error) => {
                    self.stream.put(error.response().as_bytes())?;
                    self.stream.say_goodbye();
                    return Err(error.into());
                }
            }
            debug_assert!(self.head.len() < HEAD_MAX, "a longer one is refused");
            match self.stream.read_carried(&mut room) {
                Ok(0) => return Err(HandshakeError::Closed),
                Ok(n) => self
                    .head
                    .extend_from_slice(room.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.flush()?;
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(tls_error(error)),
            }
        }
    }
}

/// An error of the stream, with what TLS says if it is its.
fn tls_error(error: io::Error) -> HandshakeError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => HandshakeError::Tls(error),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
