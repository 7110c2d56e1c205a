//! What is said to a proxy, and read from it, before it passes bytes on: without input and output.

use std::net::IpAddr;

use base64ct::{Base64, Encoding};

use super::{Proxy, ProxyProtocol, TunnelError};

/// The longest answer of HTTP, up to the empty line.
const HEAD_MAX: usize = 8 << 10;

/// The most header fields.
const FIELDS_MAX: usize = 64;

/// The longest name, user name or password of SOCKS5, in bytes.
const NAME_MAX: usize = 255;

const SOCKS: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const BY_PASSWORD: u8 = 2;
/// The version of the exchange of user name and password.
const PASSWORD: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// One exchange with a proxy.
#[derive(Debug)]
pub(crate) struct Agreement {
    /// To be sent before anything more is read.
    pub(super) output: Vec<u8>,
    /// The answer so far.
    pub(super) input: Vec<u8>,
    awaits: Awaits,
    /// What follows once the user is known.
    login: Vec<u8>,
    request: Vec<u8>,
}

/// The answer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// The head of HTTP.
    Head,
    /// The method of SOCKS5.
    Method,
    /// What it says to user name and password.
    Login,
    /// The reply to CONNECT of SOCKS5.
    Reply,
    Nothing,
}

impl Agreement {
    pub(crate) fn new(proxy: &Proxy, host: &str, port: u16) -> Result<Self, TunnelError> {
        let user = proxy
            .user
            .as_ref()
            .map(|(name, password)| (&**name, &**password));
        let mut agreement = Self {
            output: Vec::new(),
            input: Vec::new(),
            awaits: Awaits::Head,
            login: Vec::new(),
            request: Vec::new(),
        };
        match proxy.protocol {
            ProxyProtocol::HttpConnect => agreement.output = http_request(user, host, port)?,
            ProxyProtocol::Socks5 => {
                agreement.awaits = Awaits::Method;
                agreement.output = match user {
                    None => vec![SOCKS, 1, NO_AUTHENTICATION],
                    Some(_) => vec![SOCKS, 2, NO_AUTHENTICATION, BY_PASSWORD],
                };
                if let Some((name, password)) = user {
                    agreement.login = vec![PASSWORD];
                    put(&mut agreement.login, name)?;
                    put(&mut agreement.login, password)?;
                }
                agreement.request = socks_request(host, port)?;
            }
        }
        Ok(agreement)
    }

    /// What is to be sent before more is read.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether the stream is the server's from here on.
    pub(crate) fn is_done(&self) -> bool {
        self.awaits == Awaits::Nothing
    }

    /// Takes what came; how many bytes of it. It takes at least one until it is done, and none that
    /// are behind the answer.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) -> Result<usize, TunnelError> {
        let mut used = 0;
        while used < bytes.len() && !self.is_done() && self.output.is_empty() {
            let rest = bytes.get(used..).unwrap_or_default();
            used += match self.awaits {
                Awaits::Head => self.take_head(rest)?,
                Awaits::Method | Awaits::Login | Awaits::Reply => self.take_part(rest)?,
                Awaits::Nothing => 0,
            };
        }
        Ok(used)
    }

    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, TunnelError> {
        for (index, byte) in bytes.iter().enumerate() {
            self.input.push(*byte);
            if self.input.ends_with(b"\r\n\r\n") {
                self.awaits = Awaits::Nothing;
                http_answer(&self.input)?;
                return Ok(index + 1);
            }
            if self.input.len() >= HEAD_MAX {
                return Err(TunnelError::TooLong);
            }
        }
        // What is no HTTP is not waited for.
        http_answer(&self.input)?;
        Ok(bytes.len())
    }

    /// Fills the answer of SOCKS5 that is due, and looks at it when it is whole.
    fn take_part(&mut self, bytes: &[u8]) -> Result<usize, TunnelError> {
        let missing = self.answer_len()?.saturating_sub(self.input.len());
        let used = missing.min(bytes.len());
        let part = bytes.get(..used).unwrap_or_default();
        self.input.extend_from_slice(part);
        if self.input.len() < self.answer_len()? {
            return Ok(used);
        }
        let answer = std::mem::take(&mut self.input);
        match (self.awaits, answer.as_slice()) {
            (Awaits::Method, [SOCKS, NO_AUTHENTICATION]) => self.ask(),
            (Awaits::Method, [SOCKS, BY_PASSWORD]) if !self.login.is_empty() => {
                self.output = std::mem::take(&mut self.login);
                self.awaits = Awaits::Login;
            }
            (Awaits::Method, [SOCKS, 0xff]) => return Err(TunnelError::NotAuthenticated),
            (Awaits::Login, [PASSWORD, 0]) => self.ask(),
            (Awaits::Login, [PASSWORD, _]) => return Err(TunnelError::NotAuthenticated),
            (Awaits::Reply, [SOCKS, 0, 0, ..]) => self.awaits = Awaits::Nothing,
            (Awaits::Reply, [SOCKS, reply @ 1..=255, 0, ..]) => {
                return Err(TunnelError::NotConnected(u16::from(*reply)));
            }
            _ => return Err(TunnelError::Malformed),
        }
        Ok(used)
    }

    fn ask(&mut self) {
        self.output = std::mem::take(&mut self.request);
        self.awaits = Awaits::Reply;
    }

    /// How long the answer is, or as far as that is known.
    fn answer_len(&self) -> Result<usize, TunnelError> {
        if self.awaits != Awaits::Reply {
            return Ok(2);
        }
        // Version, reply, 0, the address that the proxy uses, its port.
        match self.input.as_slice() {
            [_, _, _, IPV4, ..] => Ok(4 + 4 + 2),
            [_, _, _, IPV6, ..] => Ok(4 + 16 + 2),
            [_, _, _, NAME, len, ..] => Ok(4 + 1 + usize::from(*len) + 2),
            [_, _, _, NAME] => Ok(4 + 1),
            [_, _, _, _, ..] => Err(TunnelError::Malformed),
            // A proxy that does not connect may leave the address out, and close.
            [SOCKS, reply @ 1..=255, _] => Err(TunnelError::NotConnected(u16::from(*reply))),
            [] | [_] | [_, _] | [_, _, _] => Ok(4),
        }
    }
}

fn http_request(user: Option<(&str, &str)>, host: &str, port: u16) -> Result<Vec<u8>, TunnelError> {
    let is_carried = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:%".contains(&byte);
    if host.is_empty() || host.len() > NAME_MAX || !host.bytes().all(is_carried) {
        return Err(TunnelError::NotCarried);
    }
    let server = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    if let Some((name, password)) = user {
        let both = format!("{name}:{password}");
        if name.contains(':') || both.len() > HEAD_MAX / 2 || both.chars().any(char::is_control) {
            return Err(TunnelError::NotCarried);
        }
        let encoded = Base64::encode_string(both.as_bytes());
        request += &format!("Proxy-Authorization: Basic {encoded}\r\n");
    }
    request += "\r\n";
    Ok(request.into_bytes())
}

/// Reads an answer, or its beginning.
fn http_answer(head: &[u8]) -> Result<(), TunnelError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.ends_with(b"\r\n\r\n") => {
            return Err(TunnelError::Malformed);
        }
        Ok(httparse::Status::Partial) => return Ok(()),
        Err(httparse::Error::TooManyHeaders) => return Err(TunnelError::TooLong),
        Err(_) => return Err(TunnelError::Malformed),
    }
    match response.code {
        Some(200..300) => Ok(()),
        Some(407) => Err(TunnelError::NotAuthenticated),
        Some(status) => Err(TunnelError::NotConnected(status)),
        None => Err(TunnelError::Malformed),
    }
}

fn socks_request(host: &str, port: u16) -> Result<Vec<u8>, TunnelError> {
    let mut request = vec![SOCKS, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(NAME);
            put(&mut request, host)?;
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

/// A text with its length before it.
fn put(bytes: &mut Vec<u8>, text: &str) -> Result<(), TunnelError> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len > 0);
    bytes.push(len.ok_or(TunnelError::NotCarried)?);
    bytes.extend(text.as_bytes());
    Ok(())
}
