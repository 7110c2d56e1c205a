//! The client's side: which servers to trust, and what to present to them.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::files::{self, TlsError, wrong_pair};
use super::{ALPN_MQTT, TlsVersion, provider};

/// How a client uses TLS. The default trusts the authorities of the system and presents nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Who may have signed the server's certificate.
    pub roots: Roots,
    /// The files of the client's certificate, with those between it and its authority, and of its
    /// key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have, and that is asked for (SNI); `None`: the host
    /// that is connected to.
    pub server_name: Option<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The protocols that are offered (ALPN).
    pub alpn: Vec<Vec<u8>>,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            roots: Roots::System,
            certificate: None,
            server_name: None,
            min_version: TlsVersion::default(),
            alpn: vec![ALPN_MQTT.to_vec()],
        }
    }
}

/// Who may have signed the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// The authorities that the system trusts.
    System,
    /// Those in a PEM file.
    File(PathBuf),
    /// Anybody, for any name, at any time: whoever is on the way can read and change everything.
    /// For tests.
    DangerousAnybody,
}

/// Makes the client's side of TLS connections. Its clones share sessions to resume.
#[derive(Clone, Debug)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl TlsConnector {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file that cannot be used.
    pub fn new(settings: &ClientTls) -> Result<Self, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(settings.min_version.and_later())
            .map_err(TlsError::Setup)?;
        let builder = match &settings.roots {
            Roots::System => builder.with_root_certificates(system_roots()?),
            Roots::File(path) => {
                let authorities = files::authorities(path, &files::read(path)?)?;
                builder.with_root_certificates(files::roots(path, authorities)?)
            }
            Roots::DangerousAnybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let mut config = match &settings.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = files::chain(certificate)?;
                let private_key = files::key(key)?;
                builder
                    .with_client_auth_cert(chain, private_key)
                    .map_err(|error| wrong_pair(certificate, key, &error))?
            }
        };
        config.alpn_protocols.clone_from(&settings.alpn);
        Ok(Self {
            config: Arc::new(config),
            server_name: settings.server_name.clone(),
        })
    }

    /// The client's side of a new connection to `host`.
    ///
    /// # Errors
    ///
    /// When `host` can be no name in a certificate, or the system gives no random numbers.
    pub fn connect(&self, host: &str) -> Result<ClientConnection, Error> {
        ClientConnection::new(Arc::clone(&self.config), self.server_name(host)?)
    }

    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name that the certificate of `host` must have.
    pub(crate) fn name<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(host)
    }

    pub(crate) fn server_name(&self, host: &str) -> Result<ServerName<'static>, Error> {
        let name = ServerName::try_from(self.name(host).to_owned());
        name.map_err(|_| Error::General(format!("{host:?} can be no name in a certificate")))
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots)
}

/// Verifies that the server has the key of its certificate, and nothing about the certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
