//! Where connections come from.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Where a connection comes from, for logs and for authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// Another machine, or this one by way of IP.
    Address(SocketAddr),
    /// Somewhere without an address, by the name that logs have for it.
    Named(Cow<'static, str>),
}

impl Peer {
    /// Its address, if it has one.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Named(_) => None,
        }
    }

    /// Its IP address, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self::from("")
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&'static str> for Peer {
    fn from(name: &'static str) -> Self {
        Self::Named(Cow::Borrowed(name))
    }
}

impl From<String> for Peer {
    fn from(name: String) -> Self {
        Self::Named(Cow::Owned(name))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => fmt::Display::fmt(address, f),
            Self::Named(name) => f.write_str(name),
        }
    }
}
