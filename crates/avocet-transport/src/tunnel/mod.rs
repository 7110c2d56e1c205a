//! Proxies that connect to servers for their clients: HTTP CONNECT [RFC 9110, 9.3.6] and SOCKS5
//! [RFC 1928]. Not to be confused with the PROXY protocol, by which a server learns of its client.

mod agreement;

use std::env;
use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::agreement::Agreement;
use crate::Network;

/// What is spoken with a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// HTTP CONNECT, without TLS to the proxy; users by Basic authentication.
    HttpConnect,
    /// SOCKS5; users by name and password [RFC 1929].
    Socks5,
}

/// A proxy that connects to servers for its clients. It is given the names of servers as they are, and
/// resolves them itself.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxy {
    /// What is spoken with it.
    pub protocol: ProxyProtocol,
    /// Its name, or its IPv4 or IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name and password, if it wants them.
    pub user: Option<(String, String)>,
    /// Servers that are reached without it: `*` is all of them, `example.org` a name and all that end
    /// with `.example.org`, `10.0.0.0/8` a network, `::1` an address.
    pub except: Vec<String>,
}

/// A text names no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// The scheme is none of `http`, `socks5` and `socks5h`.
    #[error("the scheme of a proxy is http, socks5 or socks5h")]
    Scheme,
    /// It names no host.
    #[error("the url of the proxy has no host")]
    Host,
    /// The port is not a number up to 65,535.
    #[error("the port of the proxy is not a port")]
    Port,
    /// A `%` is not followed by two digits, or what they say is not UTF-8.
    #[error("the url of the proxy has an invalid escape sequence")]
    Escape,
}

/// Why a proxy did not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// A host, user name or password that the protocol cannot carry.
    #[error("the proxy cannot be told this host, user name or password")]
    NotCarried,
    /// What came is not what the protocol says.
    #[error("an answer that is not that of such a proxy")]
    Malformed,
    /// The answer is longer than 8 KiB, or has more than 64 fields.
    #[error("an answer of the proxy that is too long")]
    TooLong,
    /// It wants a user, or another one.
    #[error("the proxy does not let this user in")]
    NotAuthenticated,
    /// It did not connect: the status of HTTP, or the reply of SOCKS5.
    #[error("the proxy did not connect: {0}")]
    NotConnected(u16),
}

impl Proxy {
    /// A proxy that knows HTTP CONNECT.
    #[must_use]
    pub fn http(host: impl Into<String>, port: u16) -> Self {
        Self::new(ProxyProtocol::HttpConnect, host.into(), port)
    }

    /// A proxy that speaks SOCKS5.
    #[must_use]
    pub fn socks5(host: impl Into<String>, port: u16) -> Self {
        Self::new(ProxyProtocol::Socks5, host.into(), port)
    }

    fn new(protocol: ProxyProtocol, host: String, port: u16) -> Self {
        Self {
            protocol,
            host,
            port,
            user: None,
            except: Vec::new(),
        }
    }

    /// The proxy of `http://[USER[:PASSWORD]@]HOST[:PORT]`, with port 8080 if there is none, or of
    /// `socks5://…`, with port 1080; `socks5h` is the same. Without a scheme it is HTTP.
    ///
    /// # Errors
    ///
    /// [`ProxyUrlError`]
    pub fn from_url(url: &str) -> Result<Self, ProxyUrlError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (protocol, port) = match scheme {
            "http" => (ProxyProtocol::HttpConnect, 8080),
            "socks5" | "socks5h" => (ProxyProtocol::Socks5, 1080),
            _ => return Err(ProxyUrlError::Scheme),
        };
        let authority = rest.split('/').next().unwrap_or_default();
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
            return Err(ProxyUrlError::Host);
        }
        let port = given.map_or(Ok(port), |it| it.parse().map_err(|_| ProxyUrlError::Port))?;
        let mut proxy = Self::new(protocol, decode(host)?, port);
        if let Some(user) = user {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            proxy.user = Some((decode(name)?, decode(password)?));
        }
        Ok(proxy)
    }

    /// The proxy that the environment names: `ALL_PROXY`, and in `NO_PROXY` the servers that are
    /// reached without it, between commas; or the same in lower case. None if there is no such
    /// variable, or an empty one.
    ///
    /// # Errors
    ///
    /// [`ProxyUrlError`]
    pub fn from_environment() -> Result<Option<Self>, ProxyUrlError> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyUrlError> {
        let either = |upper, lower| {
            let found = variable(upper).or_else(|| variable(lower));
            found.filter(|text| !text.trim().is_empty())
        };
        let Some(url) = either("ALL_PROXY", "all_proxy") else {
            return Ok(None);
        };
        let mut proxy = Self::from_url(url.trim())?;
        let except = either("NO_PROXY", "no_proxy").unwrap_or_default();
        let except = except.split(',').map(str::trim).filter(|it| !it.is_empty());
        proxy.except = except.map(str::to_owned).collect();
        Ok(Some(proxy))
    }

    /// Whether a server is reached through it.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        !self.except.iter().any(|except| {
            let network: Option<Network> = except.parse().ok();
            match (network, address) {
                _ if except == "*" => true,
                (Some(network), Some(address)) => network.contains(address),
                (Some(_), None) | (None, Some(_)) => false,
                (None, None) => ends_with(host, except.trim_start_matches('.')),
            }
        })
    }

    /// Asks it, over a stream to it, to connect to a server.
    pub(crate) async fn agree(
        &self,
        stream: &mut TcpStream,
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        let invalid = |error: TunnelError| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut agreement = Agreement::new(self, host, port).map_err(invalid)?;
        let mut buffer = [0; 1024];
        while !agreement.is_done() {
            stream.write_all(&agreement.take_output()).await?;
            // What follows the last answer comes from the server, and stays where it is.
            let count = stream.peek(&mut buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let came = buffer.get(..count).unwrap_or_default();
            let used = agreement.handle_input(came).map_err(invalid)?;
            let used = buffer.get_mut(..used).unwrap_or_default();
            stream.read_exact(used).await?;
        }
        Ok(())
    }
}

/// Whether a name is this one, or lies within it.
fn ends_with(name: &str, of: &str) -> bool {
    let Some(at) = name.len().checked_sub(of.len()) else {
        return false;
    };
    let Some((before, end)) = name.split_at_checked(at) else {
        return false;
    };
    end.eq_ignore_ascii_case(of) && (before.is_empty() || before.ends_with('.'))
}

/// With `%41` as `A`.
fn decode(text: &str) -> Result<String, ProxyUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(ProxyUrlError::Escape);
        };
        bytes.push(u8::try_from(16 * high + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| ProxyUrlError::Escape)
}

/// As a URL, without the user.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyProtocol::HttpConnect => "http",
            ProxyProtocol::Socks5 => "socks5",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Proxy {
    /// The password stays secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("url", &self.to_string())
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("except", &self.except)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
