//! `avocet certificates`: an authority of one's own, and certificates for a broker and its clients.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::access_args::CertificatesArgs;
use crate::clock;
use crate::exit::Failure;

/// How long an authority lasts.
const AUTHORITY_DAYS: i64 = 3_650;

pub(crate) fn run(args: &CertificatesArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    fs::create_dir_all(folder).map_err(|error| {
        Failure::new(format!(
            "cannot make the folder {}: {error}",
            folder.display()
        ))
    })?;
    let issuer = authority(folder)?;
    let days = args.days.into();
    if !args.server.is_empty() || args.client.is_empty() {
        let local = || ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        let names = if args.server.is_empty() {
            local()
        } else {
            args.server.clone()
        };
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        issue(folder, "broker", names, purpose, days, &issuer)?;
    }
    for name in &args.client {
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        issue(folder, name, Vec::new(), purpose, days, &issuer)?;
    }
    Ok(())
}

/// The authority of a folder, which is made the first time.
fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>, Failure> {
    let [certificate, key] = files(folder, "ca");
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let wrong = |path: &Path, error: rcgen::Error| {
                Failure::new(format!("{} is of no use: {error}", path.display()))
            };
            let pair = KeyPair::from_pem(&read(&key)?).map_err(|error| wrong(&key, error))?;
            Issuer::from_ca_cert_pem(&read(&certificate)?, pair)
                .map_err(|error| wrong(&certificate, error))
        }
        (false, false) => {
            let mut params = params("Avocet authority", Vec::new(), AUTHORITY_DAYS)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let pair = KeyPair::generate().map_err(failed)?;
            let made = params.self_signed(&pair).map_err(failed)?;
            save(folder, "ca", &made.pem(), &pair)?;
            Ok(Issuer::new(params, pair))
        }
        (true, false) => Err(half(&certificate, &key)),
        (false, true) => Err(half(&key, &certificate)),
    }
}

fn half(there: &Path, missing: &Path) -> Failure {
    let (there, missing) = (there.display(), missing.display());
    Failure::new(format!(
        "there is {there}, but not {missing}: put it back, or remove the other one to begin anew"
    ))
}

fn issue(
    folder: &Path,
    name: &str,
    hosts: Vec<String>,
    purpose: ExtendedKeyUsagePurpose,
    days: i64,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<(), Failure> {
    let common_name = hosts.first().map_or(name, String::as_str).to_owned();
    let mut params = params(&common_name, hosts, days)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    let pair = KeyPair::generate().map_err(failed)?;
    let made = params.signed_by(&pair, issuer).map_err(failed)?;
    save(folder, name, &made.pem(), &pair)
}

/// What a certificate says that is valid from yesterday on: clocks differ.
fn params(name: &str, hosts: Vec<String>, days: i64) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(hosts)
        .map_err(|error| Failure::new(format!("a host name or address is wrong: {error}")))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let today = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    let today = OffsetDateTime::from_unix_timestamp(today)
        .map_err(|error| Failure::new(format!("the clock is wrong: {error}")))?;
    params.not_before = today - Duration::DAY;
    params.not_after = today + Duration::days(days);
    Ok(params)
}

fn failed(error: rcgen::Error) -> Failure {
    Failure::new(format!("cannot make a certificate: {error}"))
}

fn files(folder: &Path, name: &str) -> [PathBuf; 2] {
    ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

/// Puts both files in the places of old ones, and says so.
fn save(folder: &Path, name: &str, certificate: &str, pair: &KeyPair) -> Result<(), Failure> {
    let [certificate_file, key_file] = files(folder, name);
    write(&key_file, &pair.serialize_pem(), 0o600)?;
    write(&certificate_file, certificate, 0o644)?;
    let (certificate, key) = (certificate_file.display(), key_file.display());
    writeln!(io::stdout(), "{certificate}\n{key}").map_err(Failure::output)
}

/// Whoever reads a file sees the old one or the new one, whole.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&beside)?;
        #[cfg(unix)]
        crate::passwd::keep_owner(&file, path, mode)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error: io::Error| {
        // It may not even be there.
        let _ = fs::remove_file(&beside);
        Failure::new(format!("cannot write {}: {error}", path.display()))
    })
}
