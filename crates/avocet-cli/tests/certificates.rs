//! `avocet certificates`: what it makes is what TLS asks for.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("certificates-{name}-{}", std::process::id());
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn make(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
        command.arg("certificates").arg(&self.0).args(arguments);
        command.output().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn pair(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = certificate(&self.file(&format!("{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
        (vec![certificate], key)
    }

    /// What the broker says of the handshake with a client, which trusts the authority in `roots`.
    fn handshake(
        &self,
        host: &str,
        client: Option<&str>,
        roots: &Self,
    ) -> Result<(), rustls::Error> {
        let roots_of = |folder: &Self| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&folder.file("ca.pem"))).unwrap();
            Arc::new(roots)
        };
        let verifier = WebPkiClientVerifier::builder(roots_of(self))
            .build()
            .unwrap();
        let (chain, key) = self.pair("broker");
        let server = ServerConfig::builder().with_client_cert_verifier(verifier);
        let server = server.with_single_cert(chain, key).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots_of(roots));
        let config = match client.map(|name| self.pair(name)) {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        };
        let host = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), host).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut &*bytes).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut &*bytes).unwrap();
            client.process_new_packets()?;
        }
        server.writer().write_all(b"hello").unwrap();
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &*bytes).unwrap();
        client.process_new_packets()?;
        let mut hello = [0; 5];
        client.reader().read_exact(&mut hello).unwrap();
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn broker_and_clients_of_one_authority_trust_each_other() {
    let folder = Folder::new("trust");
    let other = Folder::new("other");
    for folder in [&folder, &other] {
        let made = folder.make(&["--server", "mqtt.example.org", "--server", "192.0.2.7"]);
        assert!(made.status.success(), "{made:?}");
        let made = folder.make(&["--client", "pump 7", "--days", "30"]);
        assert!(made.status.success(), "{made:?}");
    }
    for host in ["mqtt.example.org", "192.0.2.7"] {
        folder.handshake(host, Some("pump 7"), &folder).unwrap();
    }
    assert!(
        folder
            .handshake("localhost", Some("pump 7"), &folder)
            .is_err()
    );
    assert!(
        folder.handshake("192.0.2.7", None, &folder).is_err(),
        "no certificate"
    );
    assert!(
        folder
            .handshake("192.0.2.7", Some("broker"), &folder)
            .is_err(),
        "not a client's"
    );
    assert!(
        folder
            .handshake("192.0.2.7", Some("pump 7"), &other)
            .is_err(),
        "another authority"
    );
}

#[test]
fn the_authority_stays_and_the_others_are_made_anew() {
    let folder = Folder::new("anew");
    let mut before = Vec::new();
    for _ in 0..2 {
        let made = folder.make(&[]);
        assert!(made.status.success(), "{made:?}");
        folder.handshake("localhost", None, &folder).unwrap_err();
        before
            .push(["ca.pem", "ca.key", "broker.pem"].map(|it| fs::read(folder.file(it)).unwrap()));
    }
    assert_eq!(before[0][..2], before[1][..2]);
    assert_ne!(before[0][2], before[1][2]);
    #[cfg(unix)]
    for name in ["ca.key", "broker.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.file(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    fs::remove_file(folder.file("ca.key")).unwrap();
    let half = folder.make(&[]);
    assert!(!half.status.success());
    let said = String::from_utf8(half.stderr).unwrap();
    assert!(
        said.contains("but not") && said.contains("ca.key"),
        "{said}"
    );
    assert!(!folder.make(&["--client", "ca"]).status.success());
    assert!(!folder.make(&["--client", "../x"]).status.success());
}

#[cfg(unix)]
#[test]
fn a_key_that_a_group_may_read_stays_so_when_it_is_made_anew() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("group");
    let mode = |name: &str| {
        fs::metadata(folder.file(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert!(folder.make(&["--server", "localhost"]).status.success());
    assert_eq!((mode("broker.key"), mode("broker.pem")), (0o600, 0o644));
    let readable = fs::Permissions::from_mode(0o640);
    fs::set_permissions(folder.file("broker.key"), readable).unwrap();
    let before = fs::read(folder.file("broker.key")).unwrap();
    assert!(folder.make(&["--server", "localhost"]).status.success());
    assert_ne!(fs::read(folder.file("broker.key")).unwrap(), before);
    assert_eq!((mode("broker.key"), mode("broker.pem")), (0o640, 0o644));
}
