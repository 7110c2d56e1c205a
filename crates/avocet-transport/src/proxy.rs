//! The PROXY protocol, versions 1 and 2: where a connection comes from that a proxy passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What came is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Another protocol began.
    #[error("no PROXY protocol header")]
    Missing,
    /// A header that is not as the protocol says.
    #[error("a malformed PROXY protocol header")]
    Malformed,
    /// More than 4,096 bytes.
    #[error("a PROXY protocol header that is too long")]
    TooLong,
}

/// The longest header that is read, with all that a proxy may add.
pub(crate) const HEADER_MAX: usize = 4 << 10;

/// The longest header of version 1, which is a line.
const LINE_MAX: usize = 107;

const LINE: &[u8] = b"PROXY ";

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header, and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: usize,
    /// None where the proxy speaks for itself, or does not know.
    pub(crate) client: Option<SocketAddr>,
}

/// Reads a header; `None` while its end has not come.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let begins = |start: &[u8]| {
        let common = bytes.len().min(start.len());
        bytes.get(..common) == start.get(..common)
    };
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(LINE) {
        line(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

fn line(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some(end) = bytes
        .windows(2)
        .take(LINE_MAX - 1)
        .position(|it| it == b"\r\n")
    else {
        return if bytes.len() < LINE_MAX {
            Ok(None)
        } else {
            Err(ProxyError::TooLong)
        };
    };
    let text = bytes.get(LINE.len()..end).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| ProxyError::Malformed)?;
    let client = match text.split_once(' ') {
        _ if text == "UNKNOWN" => None,
        Some(("UNKNOWN", _)) => None,
        Some(("TCP4", rest)) => Some(source(rest, |it| {
            it.parse::<Ipv4Addr>().ok().map(IpAddr::from)
        })?),
        Some(("TCP6", rest)) => Some(source(rest, |it| {
            it.parse::<Ipv6Addr>().ok().map(IpAddr::from)
        })?),
        _ => return Err(ProxyError::Malformed),
    };
    let len = end + 2;
    Ok(Some(Header { len, client }))
}

/// The first of `SOURCE DESTINATION PORT PORT`.
fn source(text: &str, parse: fn(&str) -> Option<IpAddr>) -> Result<SocketAddr, ProxyError> {
    let mut parts = text.split(' ');
    let mut next = || parts.next().unwrap_or_default();
    let (source, destination) = (parse(next()), parse(next()));
    let (source_port, port) = (next().parse::<u16>(), next().parse::<u16>());
    match (source, destination, source_port, port, parts.next()) {
        (Some(ip), Some(_), Ok(port), Ok(_), None) => Ok(SocketAddr::new(ip, port)),
        _ => Err(ProxyError::Malformed),
    }
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let [.., version, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if fixed.len() + len > HEADER_MAX {
        return Err(ProxyError::TooLong);
    }
    let is_local = match version {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed),
    };
    let Some(addresses) = rest.get(..len) else {
        return Ok(None);
    };
    let client = match family {
        _ if is_local => None,
        // TCP over IPv4 and over IPv6.
        0x11 => {
            let Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) = addresses.first_chunk() else {
                return Err(ProxyError::Malformed);
            };
            let ip = Ipv4Addr::new(a, b, c, d);
            Some((ip, u16::from_be_bytes([high, low])).into())
        }
        0x21 => {
            let (Some(ip), Some(&[.., high, low, _, _])) =
                (addresses.first_chunk::<16>(), addresses.first_chunk::<36>())
            else {
                return Err(ProxyError::Malformed);
            };
            Some((Ipv6Addr::from(*ip), u16::from_be_bytes([high, low])).into())
        }
        // Unix sockets, datagrams, and what is not specified.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(ProxyError::Malformed),
    };
    let len = fixed.len() + len;
    Ok(Some(Header { len, client }))
}

/// The header of version 2 for a connection from `client` to `server`.
#[must_use]
pub fn proxy_header(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::new();
    let family = match (client.ip(), server.ip()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            addresses.extend(client.octets());
            addresses.extend(server.octets());
            0x11
        }
        (client, server) => {
            let wide = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            addresses.extend(wide(client));
            addresses.extend(wide(server));
            0x21
        }
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(server.port().to_be_bytes());
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, family, 0]);
    // 12 or 36.
    header.extend(u8::try_from(addresses.len()));
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(bytes: &[u8]) -> Result<Option<Option<String>>, ProxyError> {
        let found = header(bytes)?;
        Ok(found.map(|it| {
            assert_eq!(it.len, bytes.len());
            it.client.map(|it| it.to_string())
        }))
    }

    #[test]
    fn reads_the_line_of_version_1() {
        for (text, expected) in [
            (
                "PROXY TCP4 1.2.3.4 5.6.7.8 56324 1883\r\n",
                Some("1.2.3.4:56324"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
                Some("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ::1 1 2\r\n", None),
        ] {
            assert_eq!(
                client(text.as_bytes()),
                Ok(Some(expected.map(str::to_owned)))
            );
            for len in 0..text.len() {
                assert_eq!(header(&text.as_bytes()[..len]), Ok(None), "{text}");
            }
        }
    }

    #[test]
    fn reads_the_header_of_version_2() {
        for (from, to) in [
            ("1.2.3.4:56324", "5.6.7.8:1883"),
            ("[2001:db8::1]:1", "[::1]:2"),
        ] {
            let mut bytes = proxy_header(from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(client(&bytes), Ok(Some(Some(from.to_owned()))));
            for len in 0..bytes.len() {
                assert_eq!(header(&bytes[..len]), Ok(None));
            }
            // With something appended that is not looked at.
            bytes[15] += 3;
            bytes.extend([4, 0, 0]);
            assert_eq!(client(&bytes), Ok(Some(Some(from.to_owned()))));
            // The proxy itself.
            bytes[12] = 0x20;
            assert_eq!(client(&bytes), Ok(Some(None)));
        }
    }

    #[test]
    fn refuses_everything_else() {
        let mut too_short = proxy_header(([1, 2, 3, 4], 5).into(), ([1, 2, 3, 4], 5).into());
        too_short[15] -= 1;
        let mut version = too_short.clone();
        version[12] = 0x31;
        let mut long = too_short.clone();
        long[14] = 0x10;
        for (bytes, expected) in [
            (&b"\x10\x0c\0\x04MQTT"[..], ProxyError::Missing),
            (b"PROXIES", ProxyError::Missing),
            (b"\x16\x03\x01", ProxyError::Missing),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", ProxyError::Malformed),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", ProxyError::Malformed),
            (
                b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
                ProxyError::Malformed,
            ),
            (
                b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
                ProxyError::Malformed,
            ),
            (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", ProxyError::Malformed),
            (b"PROXY \xff\r\n", ProxyError::Malformed),
            (&[b"PROXY ", &[b'x'; 101][..]].concat(), ProxyError::TooLong),
            (&too_short, ProxyError::Malformed),
            (&version, ProxyError::Malformed),
            (&long, ProxyError::TooLong),
        ] {
            assert_eq!(header(bytes), Err(expected), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, version: bool) {
            let start: &[u8] = if version { SIGNATURE } else { LINE };
            let bytes = [start, &bytes].concat();
            if let Ok(Some(header)) = header(&bytes) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }
}
