//! MQTT URLs.

use avocet_transport::{ALPN_HTTP, ClientTls, Endpoint, TlsConnector, TlsError, WebSocketClient};
use bytes::Bytes;

use crate::Config;

#[cfg(feature = "quic")]
const SCHEMES: &str = "mqtt, mqtts, ws, wss, quic or unix";
#[cfg(not(feature = "quic"))]
const SCHEMES: &str = "mqtt, mqtts, ws, wss or unix (quic needs the feature quic)";

/// What is wrong with a URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It has no scheme, or one that is not `mqtt`, `mqtts`, `ws`, `wss`, `quic` or `unix`; or it is
    /// `quic`, without the feature of that name.
    #[error("the scheme of the url is not {SCHEMES}")]
    Scheme,
    /// It names no server.
    #[error("the url has no host")]
    Host,
    /// The port is not a number up to 65,535.
    #[error("the port of the url is not a port")]
    Port,
    /// A `%` is not followed by two digits, or what they say is not UTF-8.
    #[error("the url has an invalid escape sequence")]
    Escape,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Config {
    /// A client of the server that a URL names, as [`Config::new`] makes it:
    ///
    /// | scheme | default port | |
    /// |---|---|---|
    /// | `mqtt://[USER[:PASSWORD]@]HOST[:PORT]` | 1883 | TCP |
    /// | `mqtts://…` | 8883 | TLS with the authorities of the system |
    /// | `ws://…/PATH` | 80 | WebSocket; without a path it is `/mqtt` |
    /// | `wss://…/PATH` | 443 | WebSocket over TLS |
    /// | `quic://…` | 8883 | QUIC with the authorities of the system; feature `quic` |
    /// | `unix:PATH` | | a Unix socket of this machine |
    ///
    /// # Errors
    ///
    /// [`UrlError`]
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(UrlError::Host);
            }
            let mut config = Self::new("localhost", 0);
            config.endpoint = Some(Endpoint::unix(decode(path)?));
            return Ok(config);
        }
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let (port, tls, websocket) = match scheme {
            "mqtt" => (1883, false, false),
            "mqtts" => (8883, true, false),
            "ws" => (80, false, true),
            "wss" => (443, true, true),
            #[cfg(feature = "quic")]
            "quic" => (8883, true, false),
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, given) = match place.strip_prefix('[').and_then(|it| it.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        if host.is_empty() {
            return Err(UrlError::Host);
        }
        let port = given.map_or(Ok(port), |it| it.parse().map_err(|_| UrlError::Port))?;
        let mut config = Self::new(decode(host)?, port);
        if let Some(user) = user {
            let (name, password) = match user.split_once(':') {
                Some((name, password)) => (name, Some(decode(password)?)),
                None => (user, None),
            };
            config.connection.user_name = Some(decode(name)?);
            config.connection.password = password.map(Bytes::from);
        }
        let mut endpoint = Endpoint::tcp(host, port);
        if tls {
            let mut settings = ClientTls::default();
            if websocket {
                settings.alpn = vec![ALPN_HTTP.to_vec()];
            }
            endpoint.tls = Some(TlsConnector::new(&settings)?);
        }
        if websocket {
            let mut asked = WebSocketClient::default();
            if !path.is_empty() {
                asked.path = path.to_owned();
            }
            endpoint.websocket = Some(asked);
        }
        #[cfg(feature = "quic")]
        if let ("quic", Some(tls)) = (scheme, &endpoint.tls) {
            endpoint = Endpoint::quic(host, port, tls.clone());
        }
        config.endpoint = Some(endpoint);
        Ok(config)
    }
}

/// With `%41` as `A`.
fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = behind;
            continue;
        }
        let (digits, behind) = behind.split_at_checked(2).ok_or(UrlError::Escape)?;
        let digits = std::str::from_utf8(digits).map_err(|_| UrlError::Escape)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        bytes.push(byte.ok_or(UrlError::Escape)?);
        rest = behind;
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_who() {
        let config = Config::from_url("mqtt://us%40er:p%C3%A4ss@broker.example:1884").unwrap();
        assert_eq!(
            (config.host.as_str(), config.port),
            ("broker.example", 1884)
        );
        assert_eq!(config.connection.user_name.as_deref(), Some("us@er"));
        assert_eq!(
            config.connection.password.as_deref(),
            Some("päss".as_bytes())
        );
        for (url, host, port) in [
            ("mqtt://h", "h", 1883),
            ("mqtt://[::1]", "::1", 1883),
            ("mqtt://[::1]:7/", "::1", 7),
            ("ws://h/a/b", "h", 80),
        ] {
            let config = Config::from_url(url).unwrap();
            assert_eq!((config.host.as_str(), config.port), (host, port), "{url}");
        }
        let websocket = Config::from_url("ws://h/a/b")
            .unwrap()
            .endpoint
            .unwrap()
            .websocket;
        assert_eq!(websocket.unwrap().path, "/a/b");
        assert!(Config::from_url("unix:/run/mqtt.sock").is_ok());
    }

    #[test]
    fn a_url_that_says_nothing_is_refused() {
        for url in [
            "h",
            "http://h",
            "mqtt://",
            "mqtt://:1",
            "mqtt://h:x",
            "mqtt://h:70000",
            "unix:",
            "mqtt://%4@h",
            "mqtt://%+1@h",
            "mqtt://%ff@h",
        ] {
            assert!(Config::from_url(url).is_err(), "{url}");
        }
    }
}
