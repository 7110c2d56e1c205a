//! Which of several certificates a client is shown.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The first certificate that is for the name that the client asks for (SNI) and that it can verify;
/// else the first one it can verify; else the first one.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let verifiable = |key: &&Arc<CertifiedKey>| {
            let schemes = hello.signature_schemes();
            key.key.choose_scheme(schemes).is_some()
        };
        let name = hello.server_name().and_then(|it| it.try_into().ok());
        let named = name.and_then(|name: ServerName<'_>| {
            let mut keys = self.0.iter().filter(verifiable);
            keys.find(|key| is_for(key, &name))
        });
        named
            .or_else(|| self.0.iter().find(verifiable))
            .or_else(|| self.0.first())
            .cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parse = |der: &CertificateDer<'_>| {
        ParsedCertificate::try_from(der).is_ok_and(|it| verify_server_name(&it, name).is_ok())
    };
    key.end_entity_cert().is_ok_and(parse)
}
