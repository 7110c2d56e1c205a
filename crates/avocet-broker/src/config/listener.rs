//! Listeners: where clients are served, and how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, iter};

use avocet_engine::Tenant;
use avocet_transport::{ClientCertificates, Network, ServerTls, TlsVersion, WebSocketServer};

use super::value::{self, Kind, Raw};
use super::{Durability, settings};

/// Who may connect to a Unix socket unless its listener says otherwise: its owner and the group.
const MODE: u32 = 0o660;

/// How long a handshake may take unless the listener says otherwise.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client over QUIC may give no sign of life unless the listener says otherwise. Being asked for
/// one costs a device that sleeps more than it costs the broker to wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// How often WebSocket clients are pinged unless the listener says otherwise: proxies close
/// connections that are silent for a minute.
const PING: Duration = Duration::from_secs(50);

const HOUR: Duration = Duration::from_secs(3_600);

const DAY: Duration = Duration::from_secs(86_400);

/// Where clients are served, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// Where it is.
    pub address: ListenAddress,
    /// The permissions of a Unix socket.
    pub mode: u32,
    /// The tenant of those who connect here; `None`: as their identity says.
    pub tenant: Option<Tenant>,
    /// For messages that are published here; `None`: as for the whole broker.
    pub durability: Option<Durability>,
    /// Whether QUIC is spoken, over UDP: then there is a `tls`.
    pub quic: bool,
    /// TLS, if it is spoken.
    pub tls: Option<ListenerTls>,
    /// WebSocket, if it is spoken.
    pub websocket: Option<ListenerWebSocket>,
    /// Whether all connections come from a proxy that says where clients are.
    pub proxy_protocol: bool,
    /// The proxies that are believed.
    pub trusted_proxies: Vec<Network>,
    /// How long all that comes before CONNECT may take: the PROXY protocol, TLS and WebSocket.
    pub handshake_timeout: Duration,
    /// QUIC: how long a client that gives no sign of life counts as there; zero: for ever.
    pub idle_timeout: Duration,
    /// Connections that it has at a time; `None`: as many as come.
    pub connections_max: Option<usize>,
    /// Connections that come to it in a second; `None`: as fast as they come.
    pub connects_per_second: Option<u32>,
}

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerTls {
    /// The files. `alpn` is that of the listener, whatever this says.
    pub files: ServerTls,
    /// What in a client's certificate is its User Name.
    pub user: Option<CertificateUser>,
}

/// What in a client's certificate is its User Name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateUser {
    /// The Common Name.
    CommonName,
    /// The first Subject Alternative Name.
    AlternativeName,
    /// The Distinguished Name as RFC 4514 writes it.
    DistinguishedName,
}

/// WebSocket of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerWebSocket {
    /// What it accepts.
    pub server: WebSocketServer,
    /// How often clients are pinged, so that nobody on the way takes the connection for dead;
    /// zero: never.
    pub ping: Duration,
}

impl Default for ListenerWebSocket {
    fn default() -> Self {
        Self {
            server: WebSocketServer::default(),
            ping: PING,
        }
    }
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
    /// Whether other machines may reach it, or a proxy may speak for them.
    pub(crate) fn is_public(&self) -> bool {
        match &self.address {
            ListenAddress::Tcp(address) => {
                !address.ip().is_loopback() || !self.trusted_proxies.is_empty()
            }
            ListenAddress::Unix(_) => !self.trusted_proxies.is_empty(),
        }
    }

    /// Whether nobody gets in without a certificate.
    pub(crate) fn requires_certificate(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.files.client_certificates == ClientCertificates::Required)
    }

    /// Why the settings of this listener do not go together, if they do not.
    pub(crate) fn problem(&self) -> Option<String> {
        let is_unix = matches!(self.address, ListenAddress::Unix(_));
        let trusts = !self.trusted_proxies.is_empty();
        let asks = self.proxy_protocol || self.websocket.is_some();
        let certificates = |tls: &ListenerTls| {
            let files = &tls.files;
            let asks = files.client_certificates != ClientCertificates::None;
            let uses = files.client_crl.is_some() || tls.user.is_some();
            (asks || uses) && files.client_ca.is_none()
        };
        let problem = if is_unix && !cfg!(unix) {
            "this system has no Unix sockets"
        } else if !is_unix && self.mode != MODE {
            "only Unix sockets have a `mode`"
        } else if self.quic && is_unix {
            "QUIC needs an IP address"
        } else if self.quic && self.tls.is_none() {
            "QUIC needs `tls`, with a certificate and its key"
        } else if self.quic && (asks || trusts) {
            "QUIC goes with `tls` alone, and proxies cannot be told from others"
        } else if !self.quic && self.idle_timeout != IDLE_TIMEOUT {
            "only QUIC has an `idle_timeout`"
        } else if self.proxy_protocol && !trusts {
            "`proxy_protocol` needs `trusted_proxies`, the addresses or networks of the proxies"
        } else if trusts && !asks {
            "`trusted_proxies` says whom to believe where clients are, which only `proxy_protocol` \
             and `websocket` tell"
        } else if self.tls.as_ref().is_some_and(certificates) {
            "without `client_ca` no client is asked for a certificate"
        } else {
            return None;
        };
        Some(problem.to_owned())
    }
}

impl From<ListenAddress> for Listener {
    fn from(address: ListenAddress) -> Self {
        Self {
            address,
            mode: MODE,
            tenant: None,
            durability: None,
            quic: false,
            tls: None,
            websocket: None,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connections_max: None,
            connects_per_second: None,
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

const USERS: [(&str, CertificateUser); 3] = [
    ("cn", CertificateUser::CommonName),
    ("san", CertificateUser::AlternativeName),
    ("dn", CertificateUser::DistinguishedName),
];

const ASKED: [(&str, ClientCertificates); 2] = [
    ("required", ClientCertificates::Required),
    ("optional", ClientCertificates::Optional),
];

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    let found = names.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value)
}

fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, named)| *named == value);
    found.map_or("", |(name, _)| name)
}

/// Three octal digits, perhaps behind a 0.
fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').unwrap_or(text);
    let all_octal = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|_| digits.len() == 3 && all_octal)
}

fn is_origin(text: &str) -> bool {
    let host = text.split_once("://").map_or("", |(_, host)| host);
    text == "*" || !host.is_empty() && !host.contains(['/', ' ', ','])
}

const PATH: Kind = Kind::Text {
    allowed: "the path of a file",
    is_allowed: |text| !text.is_empty(),
};

const PATHS: Kind = Kind::Texts {
    allowed: "the path of a file, or a list of these",
    is_allowed: |text| !text.is_empty(),
};

/// What a field of a listener's table may hold; `None` when there is no such field.
pub(crate) fn field(name: &str) -> Option<Kind> {
    Some(match name {
        "address" => Kind::Address,
        "mode" => Kind::Text {
            allowed: "three octal digits such as \"660\"",
            is_allowed: |text| parse_mode(text).is_some(),
        },
        "tenant" => Kind::Text {
            allowed: "a name of 1 to 64 bytes without control characters, /, + and #",
            is_allowed: |text| text != "*" && Tenant::new(text).is_ok(),
        },
        "durability" => settings::LEVEL,
        "quic" => Kind::Flag,
        "tls" => Kind::Tls,
        "websocket" => Kind::WebSocket,
        "proxy_protocol" => Kind::Flag,
        "trusted_proxies" => Kind::Texts {
            allowed: "an IP address, a network such as \"10.0.0.0/8\", or a list of these",
            is_allowed: |text| text.parse::<Network>().is_ok(),
        },
        "handshake_timeout" => Kind::Duration {
            min: Duration::from_millis(1),
            max: HOUR,
        },
        "idle_timeout" => Kind::Duration {
            min: Duration::ZERO,
            max: DAY,
        },
        "connections_max" | "connects_per_second" => Kind::Integer {
            min: 1,
            max: u32::MAX.into(),
        },
        _ => return None,
    })
}

/// The same for its `tls`.
pub(crate) fn tls_field(name: &str) -> Option<Kind> {
    Some(match name {
        "certificate" | "key" => PATHS,
        "client_ca" | "client_crl" => PATH,
        "client_certificate" => Kind::Choice(const { &settings::names(ASKED) }),
        "user" => Kind::Choice(const { &settings::names(USERS) }),
        "min_version" => Kind::Choice(const { &settings::names(VERSIONS) }),
        _ => return None,
    })
}

/// The same for its `websocket`.
pub(crate) fn websocket_field(name: &str) -> Option<Kind> {
    Some(match name {
        "path" => Kind::Text {
            allowed: "a path that begins with a slash, without a query",
            is_allowed: |text| text.starts_with('/') && !text.contains(['?', '#', ' ', '\0']),
        },
        "origins" => Kind::Texts {
            allowed: "\"*\", a web site such as \"https://example.org\", or a list of these",
            is_allowed: is_origin,
        },
        "ping" => Kind::Duration {
            min: Duration::ZERO,
            max: HOUR,
        },
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
        // Each field alone is allowed, or the whole is not.
        let read = field(name)?.read(value)?;
        match name.as_str() {
            "mode" => listener.mode = parse_mode(&read.text())?,
            "tenant" => listener.tenant = Some(Tenant::new(&read.text()).ok()?),
            "durability" => listener.durability = Some(value::level(&read.text())?),
            "quic" => listener.quic = read.flag(),
            "tls" => listener.tls = Some(read_tls(value)?),
            "websocket" => listener.websocket = read_websocket(value)?,
            "proxy_protocol" => listener.proxy_protocol = read.flag(),
            "trusted_proxies" => {
                let networks = read.texts().into_iter().map(|text| text.parse().ok());
                listener.trusted_proxies = networks.collect::<Option<_>>()?;
            }
            "handshake_timeout" => listener.handshake_timeout = read.duration(),
            "idle_timeout" => listener.idle_timeout = read.duration(),
            "connections_max" => {
                listener.connections_max = usize::try_from(read.integer()).ok();
            }
            "connects_per_second" => {
                listener.connects_per_second = u32::try_from(read.integer()).ok();
            }
            _ => {}
        }
    }
    Some(listener)
}

/// Reads the `tls` of a listener.
pub(crate) fn read_tls(raw: &Raw) -> Option<ListenerTls> {
    let Raw::Table(fields) = raw else {
        return None;
    };
    let mut tls = ListenerTls::default();
    let (mut certificates, mut keys, mut asked) = (Vec::new(), Vec::new(), None);
    for (name, value) in fields {
        let read = tls_field(name)?.read(value)?;
        match name.as_str() {
            "certificate" => certificates = read.texts(),
            "key" => keys = read.texts(),
            "client_ca" => tls.files.client_ca = Some(read.text().into()),
            "client_crl" => tls.files.client_crl = Some(read.text().into()),
            "client_certificate" => asked = Some(named(&ASKED, &read.text())?),
            "user" => tls.user = Some(named(&USERS, &read.text())?),
            "min_version" => tls.files.min_version = named(&VERSIONS, &read.text())?,
            _ => {}
        }
    }
    // An authority of clients is named to require certificates, unless it says otherwise.
    let by_default = if tls.files.client_ca.is_some() {
        ClientCertificates::Required
    } else {
        ClientCertificates::None
    };
    tls.files.client_certificates = asked.unwrap_or(by_default);
    if certificates.is_empty() || certificates.len() != keys.len() {
        return None;
    }
    let pairs = certificates.into_iter().zip(keys);
    tls.files.certificates = pairs.map(|(it, key)| (it.into(), key.into())).collect();
    Some(tls)
}

/// Reads the `websocket` of a listener: true, false or a table.
pub(crate) fn read_websocket(raw: &Raw) -> Option<Option<ListenerWebSocket>> {
    if let Raw::Flag(wanted) = raw {
        return Some(wanted.then(ListenerWebSocket::default));
    }
    let Raw::Table(fields) = raw else {
        return None;
    };
    let mut websocket = ListenerWebSocket::default();
    for (name, value) in fields {
        let read = websocket_field(name)?.read(value)?;
        match name.as_str() {
            "path" => websocket.server.path = read.text(),
            "origins" => websocket.server.origins = read.texts(),
            "ping" => websocket.ping = read.duration(),
            _ => {}
        }
    }
    Some(Some(websocket))
}

/// As it is written in a TOML file, on one line.
pub(crate) fn show(listener: &Listener, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = Listener::from(listener.address.clone());
    if *listener == plain {
        return value::write_text(&listener.address.to_string(), f);
    }
    let mut table = Table::begin(f)?;
    table.text("address", &listener.address.to_string())?;
    if listener.mode != plain.mode {
        table.text("mode", &format!("{:03o}", listener.mode))?;
    }
    if let Some(tenant) = &listener.tenant {
        table.text("tenant", tenant.as_str())?;
    }
    if let Some(level) = listener.durability {
        table.text("durability", settings::level_name(level))?;
    }
    if listener.quic {
        table.key("quic")?;
        table.f.write_str("true")?;
    }
    if let Some(tls) = &listener.tls {
        table.key("tls")?;
        show_tls(tls, table.f)?;
    }
    if let Some(websocket) = &listener.websocket {
        table.key("websocket")?;
        show_websocket(websocket, table.f)?;
    }
    if listener.proxy_protocol {
        table.key("proxy_protocol")?;
        table.f.write_str("true")?;
    }
    if !listener.trusted_proxies.is_empty() {
        let networks = listener.trusted_proxies.iter().map(Network::to_string);
        table.texts("trusted_proxies", networks)?;
    }
    if listener.handshake_timeout != plain.handshake_timeout {
        let timeout = value::show_duration(listener.handshake_timeout);
        table.text("handshake_timeout", &timeout)?;
    }
    if listener.idle_timeout != plain.idle_timeout {
        let timeout = value::show_duration(listener.idle_timeout);
        table.text("idle_timeout", &timeout)?;
    }
    if let Some(max) = listener.connections_max {
        table.key("connections_max")?;
        write!(table.f, "{max}")?;
    }
    if let Some(rate) = listener.connects_per_second {
        table.key("connects_per_second")?;
        write!(table.f, "{rate}")?;
    }
    table.end()
}

fn show_tls(tls: &ListenerTls, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let files = &tls.files;
    let shown = |path: &PathBuf| path.display().to_string();
    let mut table = Table::begin(f)?;
    let pairs = || files.certificates.iter();
    table.texts("certificate", pairs().map(|pair| shown(&pair.0)))?;
    table.texts("key", pairs().map(|pair| shown(&pair.1)))?;
    if let Some(path) = &files.client_ca {
        table.text("client_ca", &shown(path))?;
    }
    if let Some(path) = &files.client_crl {
        table.text("client_crl", &shown(path))?;
    }
    if files.client_certificates != ClientCertificates::None {
        table.text(
            "client_certificate",
            name_of(&ASKED, files.client_certificates),
        )?;
    }
    if let Some(user) = tls.user {
        table.text("user", name_of(&USERS, user))?;
    }
    if files.min_version != TlsVersion::default() {
        table.text("min_version", name_of(&VERSIONS, files.min_version))?;
    }
    table.end()
}

fn show_websocket(websocket: &ListenerWebSocket, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = ListenerWebSocket::default();
    if *websocket == plain {
        return f.write_str("true");
    }
    let mut table = Table::begin(f)?;
    if websocket.server.path != plain.server.path {
        table.text("path", &websocket.server.path)?;
    }
    if !websocket.server.origins.is_empty() {
        table.texts("origins", websocket.server.origins.iter().cloned())?;
    }
    if websocket.ping != plain.ping {
        table.text("ping", &value::show_duration(websocket.ping))?;
    }
    table.end()
}

/// An inline table.
struct Table<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    separator: &'static str,
}

impl<'a, 'b> Table<'a, 'b> {
    fn begin(f: &'a mut fmt::Formatter<'b>) -> Result<Self, fmt::Error> {
        f.write_str("{ ")?;
        let separator = "";
        Ok(Self { f, separator })
    }

    fn key(&mut self, key: &str) -> fmt::Result {
        write!(self.f, "{}{key} = ", self.separator)?;
        self.separator = ", ";
        Ok(())
    }

    fn text(&mut self, key: &str, text: &str) -> fmt::Result {
        self.key(key)?;
        value::write_text(text, self.f)
    }

    fn texts(&mut self, key: &str, texts: impl Iterator<Item = String>) -> fmt::Result {
        self.key(key)?;
        self.f.write_str("[")?;
        let separators = iter::once("").chain(iter::repeat(", "));
        for (text, separator) in texts.zip(separators) {
            self.f.write_str(separator)?;
            value::write_text(&text, self.f)?;
        }
        self.f.write_str("]")
    }

    fn end(self) -> fmt::Result {
        self.f.write_str(" }")
    }
}
