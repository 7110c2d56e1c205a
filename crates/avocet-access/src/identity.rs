//! Who a client is: what rules ask about, and what placeholders stand for.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// What is known of a client once it is let in. The default knows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Its Client Identifier.
    pub client_id: Box<str>,
    /// Its tenant, empty for none.
    pub tenant: Box<str>,
    /// Its User Name, none for an anonymous client. Only one that was verified belongs here.
    pub user: Option<Box<str>>,
    /// The Common Name of its certificate.
    pub cert_cn: Option<Box<str>>,
    /// The Subject Alternative Names of its certificate.
    pub cert_san: Vec<Box<str>>,
    /// The claims of its token that are texts or lists of texts.
    pub claims: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl Identity {
    /// A client with this Client Identifier and User Name, of which nothing else is known.
    #[must_use]
    pub fn new(client_id: &str, user: Option<&str>) -> Self {
        Self {
            client_id: client_id.into(),
            user: user.map(Box::from),
            ..Self::default()
        }
    }

    /// All values of a field, in the order given; none if it is not known.
    pub fn values(&self, field: &Field) -> impl Iterator<Item = &str> {
        let (one, many): (Option<&str>, &[Box<str>]) = match field {
            Field::ClientId => (Some(&self.client_id), &[]),
            Field::Tenant => (Some(&*self.tenant).filter(|it| !it.is_empty()), &[]),
            Field::User => (self.user.as_deref(), &[]),
            Field::CertCn => (self.cert_cn.as_deref(), &[]),
            Field::CertSan => (None, &self.cert_san),
            Field::Claim(name) => (None, self.claims.get(name).map_or(&[], Vec::as_slice)),
        };
        one.into_iter().chain(many.iter().map(|value| &**value))
    }
}

/// One thing that is known of a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The Client Identifier: `client_id`.
    ClientId,
    /// The tenant: `tenant`.
    Tenant,
    /// The User Name: `user`.
    User,
    /// The Common Name of the certificate: `cert_cn`.
    CertCn,
    /// The Subject Alternative Names of the certificate: `cert_san`.
    CertSan,
    /// A claim of the token: `claim.NAME`.
    Claim(Box<str>),
}

/// A text names no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown field; known are client_id, tenant, user, cert_cn, cert_san and claim.NAME")]
pub struct FieldError;

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        match text {
            "client_id" => Ok(Self::ClientId),
            "tenant" => Ok(Self::Tenant),
            "user" => Ok(Self::User),
            "cert_cn" => Ok(Self::CertCn),
            "cert_san" => Ok(Self::CertSan),
            _ => match text.strip_prefix("claim.") {
                Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
                    Ok(Self::Claim(name.into()))
                }
                Some(_) | None => Err(FieldError),
            },
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientId => f.write_str("client_id"),
            Self::Tenant => f.write_str("tenant"),
            Self::User => f.write_str("user"),
            Self::CertCn => f.write_str("cert_cn"),
            Self::CertSan => f.write_str("cert_san"),
            Self::Claim(name) => write!(f, "claim.{name}"),
        }
    }
}
