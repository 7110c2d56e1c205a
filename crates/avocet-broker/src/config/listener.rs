//! Listeners: where clients are served, and how.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{self, Kind, Raw};
use super::{Durability, settings};

/// Who may connect to a Unix socket unless its listener says otherwise: its owner and the group.
const MODE: u32 = 0o660;

/// Where clients are served, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// Where it is.
    pub address: ListenAddress,
    /// The permissions of a Unix socket.
    pub mode: u32,
    /// For messages that are published here; `None`: as for the whole broker.
    pub durability: Option<Durability>,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// At an IP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

impl Listener {
    /// Whether other machines may reach it.
    pub(crate) fn is_public(&self) -> bool {
        match &self.address {
            ListenAddress::Tcp(address) => !address.ip().is_loopback(),
            ListenAddress::Unix(_) => false,
        }
    }

    /// Why the settings of this listener do not go together, if they do not.
    pub(crate) fn problem(&self) -> Option<String> {
        let is_unix = matches!(self.address, ListenAddress::Unix(_));
        if is_unix && !cfg!(unix) {
            return Some("this system has no Unix sockets".to_owned());
        }
        if !is_unix && self.mode != MODE {
            return Some("only Unix sockets have a `mode`".to_owned());
        }
        None
    }
}

impl From<ListenAddress> for Listener {
    fn from(address: ListenAddress) -> Self {
        Self {
            address,
            mode: MODE,
            durability: None,
        }
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        ListenAddress::Tcp(address).into()
    }
}

/// A text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed is HOST:PORT, or unix:PATH")]
pub struct AddressError;

/// `HOST:PORT`, or `unix:PATH`. A host name stands for its first IPv4 address.
impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(AddressError),
            Some(path) if path.contains('\0') => Err(AddressError),
            Some(path) => Ok(Self::Unix(path.into())),
            None => value::parse_address(text)
                .map(Self::Tcp)
                .ok_or(AddressError),
        }
    }
}

/// A listener of this address, with nothing else set.
impl FromStr for Listener {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse().map(|address: ListenAddress| address.into())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Three octal digits, perhaps behind a 0.
pub(crate) fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').unwrap_or(text);
    let all_octal = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|_| digits.len() == 3 && all_octal)
}

/// What a field of a listener's table may hold; `None` when there is no such field.
pub(crate) fn field(name: &str) -> Option<Kind> {
    Some(match name {
        "address" => Kind::Address,
        "mode" => Kind::Text {
            allowed: "three octal digits such as \"660\"",
            is_allowed: |text| parse_mode(text).is_some(),
        },
        "durability" => settings::LEVEL,
        _ => return None,
    })
}

/// Reads an address, or the table of a listener.
pub(crate) fn read(raw: &Raw) -> Option<Listener> {
    let Raw::Table(fields) = raw else {
        return raw.text()?.parse().ok();
    };
    let address = raw.field("address")?.text()?;
    let mut listener = Listener::from(address.parse::<ListenAddress>().ok()?);
    for (name, value) in fields {
        match name.as_str() {
            "address" => {}
            "mode" => listener.mode = parse_mode(value.text()?)?,
            "durability" => listener.durability = Some(value::level(value.text()?)?),
            _ => return None,
        }
    }
    Some(listener)
}

/// As it is written in a TOML file, on one line.
pub(crate) fn show(listener: &Listener, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let address = listener.address.to_string();
    let plain = Listener::from(listener.address.clone());
    if *listener == plain {
        return value::write_text(&address, f);
    }
    f.write_str("{ address = ")?;
    value::write_text(&address, f)?;
    if listener.mode != plain.mode {
        write!(f, ", mode = \"{:03o}\"", listener.mode)?;
    }
    if let Some(level) = listener.durability {
        write!(f, ", durability = \"{}\"", settings::level_name(level))?;
    }
    f.write_str(" }")
}
