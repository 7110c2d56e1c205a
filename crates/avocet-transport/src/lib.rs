#![doc = include_str!("../README.md")]

mod connect;
mod endpoint;
mod listen;
mod network;
#[cfg(test)]
mod testing;
mod tls;
#[cfg(unix)]
mod unix;

pub use connect::{ConnectError, connect};
pub use endpoint::{ClientStream, Endpoint, Place};
pub use listen::{ListenError, accept, listen};
pub use network::{Network, NetworkError};
pub use tls::{
    ALPN_HTTP, ALPN_MQTT, CertificateNames, ClientCertificates, ClientTls, Roots, ServerTls,
    TlsAcceptor, TlsConnector, TlsError, TlsVersion,
};
#[cfg(unix)]
pub use unix::{UnixListenError, UnixListener};
