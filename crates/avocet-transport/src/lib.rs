#![doc = include_str!("../README.md")]

mod connect;
mod endpoint;
mod handshake;
mod layered;
mod listen;
mod network;
mod proxy;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(test)]
mod testing;
mod tls;
mod tunnel;
#[cfg(unix)]
mod unix;
mod websocket;

pub use connect::{ConnectError, connect};
pub use endpoint::{ClientStream, Endpoint, Place};
pub use handshake::{Established, EstablishedStream, Handshake, HandshakeError, Layers};
pub use layered::Layered;
pub use listen::{BoundTcp, ListenError, accept, bind, listen};
pub use network::{Network, NetworkError};
pub use proxy::{ProxyError, proxy_header};
pub use tls::{
    ALPN_HTTP, ALPN_MQTT, CertificateNames, ClientCertificates, ClientTls, Expiring, Expiry, Roots,
    ServerTls, TlsAcceptor, TlsConnector, TlsError, TlsVersion,
};
pub use tunnel::{Proxy, ProxyProtocol, ProxyUrlError, TunnelError};
#[cfg(unix)]
pub use unix::{UnixListenError, UnixListener};
pub use websocket::{FrameError, UpgradeError, WebSocketClient, WebSocketServer};
