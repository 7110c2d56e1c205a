//! `mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC`.

use std::str::FromStr;

/// What `-L` says: the server, the credentials and the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) topic: Option<String>,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "allowed is mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(shape)?;
        match scheme {
            "mqtt" => {}
            "mqtts" | "ws" | "wss" | "quic" | "unix" => {
                return Err(format!(
                    "{scheme}:// is not supported yet; allowed is mqtt://"
                ));
            }
            _ => return Err(shape()),
        }
        let (authority, topic) = match rest.split_once('/') {
            Some((authority, "")) => (authority, None),
            Some((authority, topic)) => (authority, Some(percent_decoded(topic)?)),
            None => (rest, None),
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
            user_name,
            password,
            host: host.to_owned(),
            port,
            topic,
        })
    }
}

/// Splits `HOST`, `HOST:PORT`, `[IPV6]` and `[IPV6]:PORT`.
fn host_and_port(server: &str) -> Result<(&str, u16), String> {
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
    let port = match port {
        None => 1883,
        Some(port) => port
            .parse()
            .map_err(|_| format!("{port:?} is no port; allowed are 1 to 65535"))?,
    };
    Ok((host, port))
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
            user_name: Some("me".into()),
            password: Some("p@:/".into()),
            host: "broker.example".into(),
            port: 1999,
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
        assert_eq!((url.host.as_str(), url.port), ("broker", 1883));
        assert_eq!((url.user_name, url.password, url.topic), (None, None, None));
    }

    #[test]
    fn takes_ipv6_addresses_in_brackets() {
        let url = url("mqtt://[::1]:1884/t");
        assert_eq!((url.host.as_str(), url.port), ("::1", 1884));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("broker", "allowed is mqtt://"),
            ("http://broker", "allowed is mqtt://"),
            ("mqtts://broker/t", "mqtts:// is not supported yet"),
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
