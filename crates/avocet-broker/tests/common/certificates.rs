//! Certificates for tests, in files.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "test helpers, not all of which every test uses"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

/// Signs certificates, which it writes into a folder.
pub(crate) struct Authority {
    dir: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    serial: Vec<u8>,
}

impl Issued {
    /// What an authority in a folder has issued to a name.
    pub(crate) fn of(dir: &Path, name: &str, authority: &str) -> Self {
        let file = |kind| dir.join(format!("{name}-by-{authority}.{kind}"));
        Self {
            certificate: file("pem"),
            key: file("key"),
            serial: name.bytes().take(15).collect(),
        }
    }
}

impl Authority {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        Self::new_until(dir, name, 4096)
    }

    /// One whose own certificate has expired.
    pub(crate) fn expired(dir: &Path, name: &str) -> Self {
        Self::new_until(dir, name, 2021)
    }

    fn new_until(dir: &Path, name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.pem", self.name))
    }

    /// A new certificate for a host or a client.
    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.issue_until(name, 4096)
    }

    /// The same, valid up to the first day of a year.
    pub(crate) fn issue_until(&self, name: &str, year: i32) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(name, params)
    }

    /// The same, valid for some time from now on.
    #[allow(
        clippy::disallowed_methods,
        reason = "certificates say what time it is"
    )]
    pub(crate) fn issue_for(&self, name: &str, time: Duration) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let end = SystemTime::now() + time;
        params.not_after = date_time_ymd(1970, 1, 1) + end.duration_since(UNIX_EPOCH).unwrap();
        self.sign(name, params)
    }

    /// A new certificate whose Subject Alternative Names are others than its Common Name.
    pub(crate) fn issue_also_named(&self, name: &str, others: &[&str]) -> Issued {
        let others: Vec<_> = others.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.not_after = date_time_ymd(4096, 1, 1);
        self.sign(name, params)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Issued {
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Plant");
        params.distinguished_name.push(DnType::CommonName, name);
        let issued = Issued::of(&self.dir, name, &self.name);
        params.serial_number = Some(SerialNumber::from_slice(&issued.serial));
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(&issued.certificate, signed.pem()).unwrap();
        fs::write(&issued.key, key.serialize_pem()).unwrap();
        issued
    }

    /// Writes a list of revoked certificates.
    pub(crate) fn revoke(&self, revoked: &[&Issued]) -> PathBuf {
        self.revoke_until(revoked, 4096)
    }

    /// The same, to be replaced by the first day of a year.
    pub(crate) fn revoke_until(&self, revoked: &[&Issued], year: i32) -> PathBuf {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&issued.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        let path = self.dir.join(format!("{}.crl", self.name));
        fs::write(&path, list.pem().unwrap()).unwrap();
        path
    }
}
