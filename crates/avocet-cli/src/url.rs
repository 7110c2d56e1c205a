//! `mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC`, and its kin.

use std::path::PathBuf;
use std::str::FromStr;

/// What `-L` says: the server, the credentials and the topic, or the path of WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// With `mqtt`, `mqtts` and `quic`.
    pub(crate) topic: Option<String>,
    /// With `ws` and `wss`.
    pub(crate) path: Option<String>,
    /// With `unix`.
    pub(crate) socket: Option<PathBuf>,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Mqtt,
    Mqtts,
    Ws,
    Wss,
    Quic,
    Unix,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || {
            "allowed is mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, the same with mqtts:// and quic://, \
             ws://HOST[:PORT]/PATH, the same with wss://, and unix:PATH"
                .to_owned()
        };
        let (name, rest) = text.split_once(':').ok_or_else(shape)?;
        let scheme = match name {
            "mqtt" => Scheme::Mqtt,
            "mqtts" => Scheme::Mqtts,
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            "unix" => return Self::unix(rest.strip_prefix("//").unwrap_or(rest)).ok_or_else(shape),
            "quic" => Scheme::Quic,
            _ => return Err(shape()),
        };
        let rest = rest.strip_prefix("//").ok_or_else(shape)?;
        let (authority, behind) = match rest.split_once('/') {
            Some((authority, behind)) => (authority, Some(behind)),
            None => (rest, None),
        };
        let (topic, path) = match (scheme, behind) {
            (Scheme::Ws | Scheme::Wss, Some(path)) => {
                if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
                    return Err(format!("{path:?} can be no path of a URL"));
                }
                (None, Some(format!("/{path}")))
            }
            (_, None | Some("")) => (None, None),
            (_, Some(topic)) => (Some(percent_decoded(topic)?), None),
        };
        let (credentials, server) = match authority.rsplit_once('@') {
            Some((credentials, server)) => (Some(credentials), server),
            None => (None, authority),
        };
        let (user_name, password) = match credentials.map(|c| c.split_once(':').ok_or(c)) {
            None => (None, None),
            Some(Err(user_name)) => (Some(percent_decoded(user_name)?), None),
            Some(Ok((user_name, password))) => (
                Some(percent_decoded(user_name)?),
                Some(percent_decoded(password)?),
            ),
        };
        let (host, port) = host_and_port(server)?;
        if host.is_empty() {
            return Err(format!("the host is missing; {}", shape()));
        }
        Ok(Self {
            scheme,
            user_name,
            password,
            host: host.to_owned(),
            port,
            topic,
            path,
            socket: None,
        })
    }
}

impl Url {
    fn unix(path: &str) -> Option<Self> {
        (!path.is_empty()).then(|| Self {
            scheme: Scheme::Unix,
            user_name: None,
            password: None,
            host: "localhost".to_owned(),
            port: None,
            topic: None,
            path: None,
            socket: Some(path.into()),
        })
    }
}

/// Splits `HOST`, `HOST:PORT`, `[IPV6]` and `[IPV6]:PORT`.
fn host_and_port(server: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match server
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, "")) => (host, None),
        Some((host, rest)) => match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return Err(format!("{rest:?} stands behind the address")),
        },
        None => match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
    };
    let port = port.map(|port| {
        let parsed = port.parse().ok().filter(|port| *port != 0);
        parsed.ok_or_else(|| format!("{port:?} is no port; allowed are 1 to 65535"))
    });
    Ok((host, port.transpose()?))
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(format!("{text:?} has a % without two hexadecimal digits"));
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn takes_server_credentials_and_topic() {
        let expected = Url {
            scheme: Scheme::Mqtt,
            path: None,
            socket: None,
            user_name: Some("me".into()),
            password: Some("p@:/".into()),
            host: "broker.example".into(),
            port: Some(1999),
            topic: Some("a/b c".into()),
        };
        assert_eq!(
            url("mqtt://me:p%40%3A%2F@broker.example:1999/a/b%20c"),
            expected
        );
    }

    #[test]
    fn fills_in_what_is_missing() {
        let url = url("mqtt://broker");
        assert_eq!((url.host.as_str(), url.port), ("broker", None));
        assert_eq!((url.user_name, url.password, url.topic), (None, None, None));
    }

    #[test]
    fn takes_ipv6_addresses_in_brackets() {
        let url = url("mqtt://[::1]:1884/t");
        assert_eq!((url.host.as_str(), url.port), ("::1", Some(1884)));
    }

    #[test]
    fn takes_transports() {
        let secure = url("mqtts://broker/t");
        assert_eq!(
            (secure.scheme, secure.topic),
            (Scheme::Mqtts, Some("t".into()))
        );
        for (text, scheme, path) in [
            ("ws://broker", Scheme::Ws, None),
            ("ws://broker/", Scheme::Ws, Some("/")),
            (
                "wss://me@broker:444/a/b?c=%20",
                Scheme::Wss,
                Some("/a/b?c=%20"),
            ),
        ] {
            let url = url(text);
            assert_eq!((url.scheme, url.path.as_deref()), (scheme, path));
            assert_eq!((url.host.as_str(), url.topic), ("broker", None));
        }
        for text in ["unix:/run/mqtt", "unix:///run/mqtt"] {
            let url = url(text);
            assert_eq!(url.scheme, Scheme::Unix);
            assert_eq!(url.socket, Some("/run/mqtt".into()));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("broker", "allowed is mqtt://"),
            ("http://broker", "allowed is mqtt://"),
            ("quic:broker", "allowed is mqtt://"),
            ("unix:", "allowed is mqtt://"),
            ("mqtt:broker", "allowed is mqtt://"),
            ("ws://broker/a b", "can be no path"),
            ("mqtt://broker:0/t", "\"0\" is no port"),
            ("mqtt:///t", "the host is missing"),
            ("mqtt://broker:70000/t", "\"70000\" is no port"),
            ("mqtt://[::1]1884/t", "\"1884\" stands behind the address"),
            ("mqtt://broker/%2", "without two hexadecimal digits"),
            ("mqtt://broker/%ff", "not UTF-8"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
