//! The upgrade from HTTP to WebSocket.

use std::net::IpAddr;

use base64ct::{Base64, Encoding};
use sha1::{Digest, Sha1};

use crate::Network;

/// The longest request, or answer, up to the empty line.
pub(crate) const HEAD_MAX: usize = 8 << 10;

/// The most header fields.
const FIELDS_MAX: usize = 64;

/// Appended to a client's key [RFC 6455, 1.3].
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a WebSocket listener accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketServer {
    /// The path of the requests it answers; queries are ignored.
    pub path: String,
    /// The web sites whose pages may connect, as browsers name them: `https://example.org`, with the
    /// port where it is not that of the scheme. `*` is all of them. Empty: only those that come from
    /// the same host and port. What is no browser names none, and is let in.
    pub origins: Vec<String>,
}

impl Default for WebSocketServer {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            origins: Vec::new(),
        }
    }
}

/// Why an upgrade failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// What came is no HTTP.
    #[error("not an HTTP/1.1 request")]
    NotHttp,
    /// The head is longer than 8 KiB, or has more than 64 fields.
    #[error("the header of the request is too long")]
    TooLong,
    /// It is a request for something else.
    #[error("no request for a WebSocket connection")]
    NoWebSocket,
    /// A version that is not 13.
    #[error("another version of WebSocket")]
    Version,
    /// The path is not the listener's.
    #[error("another path than the listener's")]
    Path,
    /// A page of a web site that is not allowed.
    #[error("a web page whose origin is not allowed")]
    Origin,
    /// The client does not offer the subprotocol `mqtt` [MQTT5-6.0.0-3] [MQTT311-6.0.0-3].
    #[error("the subprotocol mqtt is not offered")]
    Subprotocol,
    /// The server's answer is not that to the client's key.
    #[error("the server does not speak WebSocket")]
    Answer,
}

impl UpgradeError {
    /// The answer to a request that is refused.
    pub(crate) fn response(self) -> String {
        let (status, fields) = match self {
            Self::NotHttp | Self::NoWebSocket | Self::Subprotocol | Self::Answer => {
                ("400 Bad Request", "")
            }
            Self::TooLong => ("431 Request Header Fields Too Large", ""),
            Self::Version => ("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
            Self::Path => ("404 Not Found", ""),
            Self::Origin => ("403 Forbidden", ""),
        };
        let text = format!("{self}\n");
        let len = text.len();
        format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Type: text/plain\r\nContent-Length: {len}\r\n\
             Connection: close\r\n\r\n{text}"
        )
    }
}

/// A request that is granted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The bytes of the request.
    pub(crate) len: usize,
    pub(crate) response: String,
    /// Where the client is, if all on the way are trusted.
    pub(crate) forwarded_for: Option<IpAddr>,
}

/// Reads a request; `None` while its end has not come. `trusted` says whose word on the client's
/// address counts; the peer is one of them.
pub(crate) fn request(
    bytes: &[u8],
    server: &WebSocketServer,
    trusted: Option<&[Network]>,
) -> Result<Option<Granted>, UpgradeError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(UpgradeError::TooLong),
        Err(_) => return Err(UpgradeError::NotHttp),
    };
    let fields = Fields(request.headers);
    if request.version != Some(1) || request.method != Some("GET") {
        return Err(UpgradeError::NotHttp);
    }
    let upgrades = fields.has_token("upgrade", "websocket");
    if !upgrades || !fields.has_token("connection", "upgrade") {
        return Err(UpgradeError::NoWebSocket);
    }
    if fields.one("sec-websocket-version") != Some("13") {
        return Err(UpgradeError::Version);
    }
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some(&server.path) {
        return Err(UpgradeError::Path);
    }
    let (Some(key), Some(host)) = (fields.one("sec-websocket-key"), fields.one("host")) else {
        return Err(UpgradeError::NoWebSocket);
    };
    let mut nonce = [0; 18];
    if !Base64::decode(key, &mut nonce).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(UpgradeError::NoWebSocket);
    }
    if let Some(origin) = fields.values("origin").next()
        && !(is_allowed(origin, host, server) && fields.one("origin").is_some())
    {
        return Err(UpgradeError::Origin);
    }
    let known = |offered: &&str| ["mqtt", "mqttv3.1"].contains(offered);
    let mut offered = fields.tokens("sec-websocket-protocol");
    let Some(subprotocol) = offered.find(known) else {
        return Err(UpgradeError::Subprotocol);
    };
    let accept = accept(key);
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    let forwarded_for = trusted.and_then(|trusted| fields.client(trusted));
    Ok(Some(Granted {
        len,
        response,
        forwarded_for,
    }))
}

fn accept(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(MAGIC).finalize();
    Base64::encode_string(&digest)
}

fn is_allowed(origin: &str, host: &str, server: &WebSocketServer) -> bool {
    if server.origins.is_empty() {
        let of_page = origin.split_once("://").map(|(_, host)| host);
        return of_page.is_some_and(|of_page| of_page.eq_ignore_ascii_case(host));
    }
    let mut origins = server.origins.iter();
    origins.any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

/// A client's request, and what its answer must hold.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: String,
    accept: String,
}

impl Asked {
    /// Asks `host`, with its port where that matters, for `path`. `fields` are further lines of the
    /// header.
    pub(crate) fn new(
        host: &str,
        path: &str,
        fields: &[(String, String)],
    ) -> Result<Self, getrandom::Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        let key = Base64::encode_string(&nonce);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
        );
        for (name, value) in fields {
            // Nothing that is put in ends the line or the header.
            let clean = |text: &str| text.replace(['\r', '\n', '\0'], " ");
            request += &format!("{}: {}\r\n", clean(name), clean(value));
        }
        request += "\r\n";
        Ok(Self {
            request,
            accept: accept(&key),
        })
    }

    /// Reads the answer: its length once it has come.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Result<Option<usize>, UpgradeError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
            Ok(_) => return Err(UpgradeError::TooLong),
            Err(_) => return Err(UpgradeError::NotHttp),
        };
        let fields = Fields(response.headers);
        let upgraded = response.code == Some(101)
            && fields.has_token("upgrade", "websocket")
            && fields.has_token("connection", "upgrade")
            && fields.one("sec-websocket-accept") == Some(&self.accept);
        if !upgraded {
            return Err(UpgradeError::Answer);
        }
        match fields.one("sec-websocket-protocol") {
            Some("mqtt") => Ok(Some(len)),
            _ => Err(UpgradeError::Subprotocol),
        }
    }
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of a field that are texts, in order.
    fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let named = self
            .0
            .iter()
            .filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.filter_map(|it| std::str::from_utf8(it.value).ok())
    }

    /// The value of a field that stands there once.
    fn one(&self, name: &str) -> Option<&'a str> {
        let mut values = self.values(name);
        let value = values.next()?;
        values.next().is_none().then(|| value.trim())
    }

    /// The parts of lists.
    fn tokens(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.values(name)
            .flat_map(|it| it.split(','))
            .map(str::trim)
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|it| it.eq_ignore_ascii_case(token))
    }

    /// The address that the trusted tell. A proxy may know only one of the two fields, and pass on the
    /// other as the client wrote it: none where both are there and tell different addresses.
    fn client(&self, trusted: &[Network]) -> Option<IpAddr> {
        let forwarded = self.tokens("forwarded").map(forwarded_for);
        let others = self.tokens("x-forwarded-for").map(Some);
        let has = |name| self.values(name).next().is_some();
        let by_forwarded = has("forwarded").then(|| nearest(forwarded.rev(), trusted));
        let by_others = has("x-forwarded-for").then(|| nearest(others.rev(), trusted));
        match (by_forwarded, by_others) {
            (Some(one), Some(other)) => one.filter(|_| one == other),
            (one, other) => one.or(other)?,
        }
    }
}

/// The address nearest to us that is not trusted: each of the trusted has appended the one it was
/// asked by [RFC 7239].
fn nearest<'a>(
    asked: impl Iterator<Item = Option<&'a str>>,
    trusted: &[Network],
) -> Option<IpAddr> {
    let mut client = None;
    for text in asked {
        let Some(address) = text.and_then(address) else {
            return client;
        };
        client = Some(address);
        if !trusted.iter().any(|network| network.contains(address)) {
            return client;
        }
    }
    client
}

/// The node of `for=NODE;by=...`.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    found.map(|(_, value)| value.trim().trim_matches('"'))
}

/// An address, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
    let without_port = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, _)| address)?,
        None => match text.split_once(':') {
            // With a second colon it is an IPv6 address as it is.
            Some((address, port)) if !port.contains(':') => address,
            _ => text,
        },
    };
    without_port.parse().ok()
}

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
