//! The server's side: certificates, and what clients must present.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig, ServerConnection};

use super::certificate::next_update;
use super::files::{self, TlsError, unusable, wrong_pair};
use super::resolver::Resolver;
use super::{CertificateNames, TlsVersion, provider};

/// What a TLS listener is set up with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// The files of certificates, each with those between it and its authority, and of their keys.
    /// The first one is for clients that ask for no name, or an unknown one.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Who must present a certificate.
    pub client_certificates: ClientCertificates,
    /// The authorities of clients.
    pub client_ca: Option<PathBuf>,
    /// Which of their certificates are revoked: lists of all authorities, or of those that have one.
    pub client_crl: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The protocols that are spoken over it (ALPN), the preferred one first. A client that asks for
    /// others only is refused, one that asks for none is not.
    pub alpn: Vec<Vec<u8>>,
}

/// Who must present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// Nobody is asked for one.
    #[default]
    None,
    /// Who has one may present it; one that is not valid is refused.
    Optional,
    /// Everybody.
    Required,
}

/// Accepts TLS connections as [`ServerTls`] says. Its files can be read again at any time: what they
/// say holds for connections that begin after that.
#[derive(Debug)]
pub struct TlsAcceptor {
    settings: ServerTls,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// What clients are verified with, as it was read.
    trust: Trust,
    expiries: Vec<Expiry>,
}

/// What of the files of a listener ends by itself, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expiry {
    /// The file.
    pub path: PathBuf,
    /// What in it.
    pub of: Expiring,
    /// The first second in which it is over, in UTC since 1970.
    pub end: i64,
}

/// What in a file of a listener ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiring {
    /// A certificate of the server.
    Certificate,
    /// The certificate of an authority of clients, with its Distinguished Name. Those that it has signed are
    /// believed beyond that.
    Authority(String),
    /// A list of revoked certificates, which counts beyond that.
    RevocationList,
}

/// The bytes of the files of client authorities and of revoked certificates.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trust {
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

impl TlsAcceptor {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file that cannot be used.
    pub fn new(settings: ServerTls) -> Result<Self, TlsError> {
        let state = State::load(&settings, None)?;
        Ok(Self {
            settings,
            state: Mutex::new(state),
        })
    }

    /// Reads all files again. If one cannot be used, everything stays as it was.
    ///
    /// Sessions that clients resume stay valid, unless what clients are verified with has changed:
    /// then each of them is verified anew.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file that cannot be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = State::load(&self.settings, Some(&*self.lock()))?;
        *self.lock() = loaded;
        Ok(())
    }

    /// What it was set up with.
    #[must_use]
    pub fn settings(&self) -> &ServerTls {
        &self.settings
    }

    /// What of the files, as they are in use, ends by itself.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiry> {
        self.lock().expiries.clone()
    }

    /// All files that it reads.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let ServerTls {
            certificates,
            client_ca,
            client_crl,
            ..
        } = &self.settings;
        let pairs = certificates.iter().flat_map(|(chain, key)| [chain, key]);
        pairs.chain(client_ca).chain(client_crl)
    }

    /// The server's side of a new connection.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn accept(&self) -> Result<ServerConnection, Error> {
        let config = Arc::clone(&self.lock().config);
        ServerConnection::new(config)
    }

    /// What connections that begin from here on are set up with.
    #[cfg(feature = "quic")]
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.lock().config)
    }

    /// Whether a client's certificate, with those between it and its authority, is valid now. Who
    /// resumes a session presents what was valid when the session began.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let verifier = Arc::clone(&self.lock().verifier);
        match chain.split_first() {
            Some((certificate, between)) if verifier.offer_client_auth() => {
                let verified = verifier.verify_client_cert(certificate, between, UnixTime::now());
                verified.map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn load(settings: &ServerTls, current: Option<&Self>) -> Result<Self, TlsError> {
        let provider = provider();
        let mut keys = Vec::new();
        let mut expiries = Vec::new();
        for (certificate, key) in &settings.certificates {
            let chain = files::chain(certificate)?;
            let private_key = files::key(key)?;
            let names = chain.first().and_then(|it| CertificateNames::read(it));
            let names =
                names.ok_or_else(|| unusable(certificate, "it is not an X.509 certificate"))?;
            let certified = CertifiedKey::from_der(chain, private_key, &provider);
            let certified = certified.map_err(|error| wrong_pair(certificate, key, &error))?;
            keys.push(Arc::new(certified));
            expiries.push(Expiry {
                path: certificate.clone(),
                of: Expiring::Certificate,
                end: names.not_after,
            });
        }
        let mut trust = Trust::default();
        let verifier = verifier(settings, &mut trust, &mut expiries)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(settings.min_version.and_later())
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_cert_resolver(Arc::new(Resolver(keys)));
        config.alpn_protocols.clone_from(&settings.alpn);
        config.ticketer = ticketer(current.filter(|current| current.trust == trust))?;
        // A client has one connection at a time to resume.
        config.send_tls13_tickets = 1;
        Ok(Self {
            config: Arc::new(config),
            verifier,
            trust,
            expiries,
        })
    }
}

/// Tickets end with what clients were verified by, so that each of them is asked for a certificate
/// again.
fn ticketer(current: Option<&State>) -> Result<Arc<dyn ProducesTickets>, TlsError> {
    match current {
        Some(state) => Ok(Arc::clone(&state.config.ticketer)),
        None => Ticketer::new().map_err(TlsError::Setup),
    }
}

fn verifier(
    settings: &ServerTls,
    trust: &mut Trust,
    expiries: &mut Vec<Expiry>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(ca) = &settings.client_ca else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    if settings.client_certificates == ClientCertificates::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let text = files::read(ca)?;
    let authorities = files::authorities(ca, &text)?;
    let names = authorities.iter().map(|it| CertificateNames::read(it));
    expiries.extend(names.flatten().map(|names| Expiry {
        path: ca.clone(),
        of: Expiring::Authority(names.distinguished_name),
        end: names.not_after,
    }));
    let roots = Arc::new(files::roots(ca, authorities)?);
    trust.ca = Some(text);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if let Some(crl) = &settings.client_crl {
        let text = files::read(crl)?;
        let lists = files::revocations(crl, &text)?;
        let ends = lists.iter().filter_map(|list| next_update(list));
        expiries.extend(ends.map(|end| Expiry {
            path: crl.clone(),
            of: Expiring::RevocationList,
            end,
        }));
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
        trust.crl = Some(text);
    }
    if settings.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    let file = settings.client_crl.as_ref().unwrap_or(ca);
    builder.build().map_err(|error| unusable(file, error))
}
