//! TLS 1.2 and 1.3 on both sides, by rustls.

mod certificate;
mod client;
mod files;
mod resolver;
mod server;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;

pub use certificate::CertificateNames;
pub use client::{ClientTls, Roots, TlsConnector};
pub use files::TlsError;
pub use server::{ClientCertificates, Expiring, Expiry, ServerTls, TlsAcceptor};

/// What a client and a server that speak MQTT agree on (ALPN).
pub const ALPN_MQTT: &[u8] = b"mqtt";

/// What a client and a server that speak WebSocket agree on (ALPN).
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsVersion {
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        const BOTH: &[&SupportedProtocolVersion] =
            &[&rustls::version::TLS13, &rustls::version::TLS12];
        const NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        match self {
            Self::V1_2 => BOTH,
            Self::V1_3 => NEWEST,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
