//! PEM files of certificates, keys and revocation lists.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{Error, RootCertStore};

/// Why TLS cannot be set up. The errors name the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not a PEM file: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file does not hold what it is for.
    #[error("{} holds no {what}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A certificate, a key or a revocation list cannot be used.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key is not that of the certificate.
    #[error("{} is not the key of the certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The system has no certificates of authorities that can be read.
    #[error(
        "this system has no certificates of authorities (ca-certificates): name a file of those to trust"
    )]
    NoSystemRoots,
    /// The system gives no random numbers, or the settings do not go together.
    #[error("TLS cannot be set up: {0}")]
    Setup(Error),
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn all<T: PemObject>(path: &Path, text: &[u8], what: &'static str) -> Result<Vec<T>, TlsError> {
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    let items = items.map_err(|error| not_pem(path, &error))?;
    if items.is_empty() {
        let path = path.to_owned();
        return Err(TlsError::Missing { path, what });
    }
    Ok(items)
}

fn not_pem(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::NotPem {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

pub(crate) fn unusable(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Unusable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// What rustls says of a certificate with its key.
pub(crate) fn wrong_pair(certificate: &Path, key: &Path, error: &Error) -> TlsError {
    if let Error::InconsistentKeys(_) = error {
        return TlsError::OtherKey {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
        };
    }
    let of_certificate = matches!(error, Error::InvalidCertificate(_));
    unusable(if of_certificate { certificate } else { key }, error)
}

/// A certificate with those between it and its authority.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, &read(path)?, "certificate")
}

pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsError::Missing {
            path: path.to_owned(),
            what: "private key that is not encrypted",
        }),
        Err(error) => Err(not_pem(path, &error)),
    }
}

/// The certificates of authorities.
pub(crate) fn authorities(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, text, "certificate of an authority")
}

pub(crate) fn roots(
    path: &Path,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in authorities {
        store
            .add(certificate)
            .map_err(|error| unusable(path, error))?;
    }
    Ok(store)
}

pub(crate) fn revocations(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all(path, text, "certificate revocation list")
}
