//! Questions to other servers over HTTP/1.1: small requests, small answers, connections that are used
//! again.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use avocet_transport::{
    ALPN_HTTP, ClientTls, ConnectError, Endpoint, Roots, TlsConnector, TlsError,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use crate::access::lock;

/// The longest answer.
const BODY_MAX: usize = 256 << 10;

/// Connections that are kept while nobody uses them.
const IDLE_MAX: usize = 16;

/// Failures in a row after which a server is let alone for a while. Then one question shows whether it
/// is back; the others fail at once, so that clients do not wait in vain.
const FAILURES_MAX: u32 = 5;

/// For how long.
const REST: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the answer is longer than 256 KiB")]
    TooLong,
    #[error("it failed {FAILURES_MAX} times in a row, and is asked again in a moment")]
    Resting,
}

/// What is sent.
pub(crate) enum Body {
    /// GET.
    None,
    /// POST.
    Json(String),
    /// POST.
    Form(String),
}

/// A status, and what came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// One place to ask.
pub(crate) struct Server {
    endpoint: Endpoint,
    authority: HeaderValue,
    path: Uri,
    authorization: Option<HeaderValue>,
    idle: Mutex<Vec<Sender>>,
    health: Mutex<Health>,
}

/// How a server has answered of late.
#[derive(Default)]
struct Health {
    /// Failures in a row.
    failures: u32,
    /// When it is asked again, if these are too many.
    rests_until: Option<Instant>,
}

impl Health {
    fn may_be_asked(&mut self, now: Instant) -> bool {
        if self.failures < FAILURES_MAX {
            return true;
        }
        let rested = self.rests_until.is_none_or(|until| until <= now);
        if rested {
            // Of those who come after a rest, this one is asked about.
            self.rests_until = Some(now + REST);
        }
        rested
    }

    fn note(&mut self, answered: bool, now: Instant) {
        if answered {
            *self = Self::default();
        } else {
            self.failures = self.failures.saturating_add(1);
            self.rests_until = Some(now + REST);
        }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// The parts of a URL that may be asked: `https`, or `http` on this machine.
pub(crate) fn parse(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    let is_credential = uri.authority()?.as_str().contains('@');
    let allowed = match uri.scheme_str()? {
        "https" => true,
        "http" => is_this_machine(bare(host)),
        _ => false,
    };
    (allowed && !is_credential).then_some(uri)
}

fn is_this_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Server {
    /// The server of a URL that [`parse`] takes; `ca` are the authorities that may have signed its
    /// certificate, or else the system's. `None` for another URL, or for text that no header can have.
    pub(crate) fn new(
        url: &str,
        ca: Option<&Path>,
        authorization: Option<&str>,
    ) -> Result<Option<Self>, TlsError> {
        let Some(uri) = parse(url) else {
            return Ok(None);
        };
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut endpoint = Endpoint::tcp(bare(uri.host().unwrap_or_default()), port);
        if secure {
            let settings = ClientTls {
                roots: ca.map_or(Roots::System, |path| Roots::File(path.to_owned())),
                alpn: vec![ALPN_HTTP.to_vec()],
                ..ClientTls::default()
            };
            endpoint.tls = Some(TlsConnector::new(&settings)?);
        }
        let authority = uri.authority().map(|it| it.as_str()).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        let (Ok(authority), Ok(path)) = (HeaderValue::from_str(authority), path.parse()) else {
            return Ok(None);
        };
        let authorization = match authorization.map(HeaderValue::from_str) {
            Some(Ok(mut value)) => {
                value.set_sensitive(true);
                Some(value)
            }
            Some(Err(_)) => return Ok(None),
            None => None,
        };
        Ok(Some(Self {
            endpoint,
            authority,
            path,
            authorization,
            idle: Mutex::default(),
            health: Mutex::default(),
        }))
    }

    /// Asks, and once more if that fails, within a deadline for both.
    ///
    /// # Errors
    ///
    /// [`HttpError`]
    pub(crate) async fn ask(&self, body: &Body, deadline: Duration) -> Result<Answer, HttpError> {
        self.ask_within(body, deadline, deadline).await
    }

    /// The same, where so much of the whole time is left. Who had little of it says nothing of the server.
    pub(crate) async fn ask_within(
        &self,
        body: &Body,
        deadline: Duration,
        whole: Duration,
    ) -> Result<Answer, HttpError> {
        let asking = async {
            // A connection that was idle may be closed already.
            if let Some(sender) = self.idle_sender()
                && let Ok(answer) = self.ask_over(sender, body).await
            {
                return Ok(answer);
            }
            match self.ask_anew(body, deadline).await {
                Ok(answer) => Ok(answer),
                Err(HttpError::TooLong) => Err(HttpError::TooLong),
                Err(_) => self.ask_anew(body, deadline).await,
            }
        };
        if !lock(&self.health).may_be_asked(Instant::now()) {
            return Err(HttpError::Resting);
        }
        let answer = timeout(deadline, asking).await;
        let answer = answer.unwrap_or(Err(HttpError::TimedOut(deadline)));
        let answered = match &answer {
            Ok(answer) => !answer.status.is_server_error(),
            Err(error) => matches!(error, HttpError::TooLong),
        };
        let says_nothing = matches!(answer, Err(HttpError::TimedOut(_))) && deadline < whole / 2;
        if !says_nothing {
            lock(&self.health).note(answered, Instant::now());
        }
        answer
    }

    async fn ask_anew(&self, body: &Body, deadline: Duration) -> Result<Answer, HttpError> {
        let stream = self.endpoint.connect(deadline).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Whoever waits for an answer is told when it fails.
        tokio::spawn(async move { drop(connection.await) });
        self.ask_over(sender, body).await
    }

    async fn ask_over(&self, mut sender: Sender, body: &Body) -> Result<Answer, HttpError> {
        let response = sender.send_request(self.request(body)).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => HttpError::Broken(*error),
            Err(error) => {
                debug_assert!(error.is::<LengthLimitError>());
                HttpError::TooLong
            }
        })?;
        if sender.ready().await.is_ok() {
            let mut idle = lock(&self.idle);
            if idle.len() < IDLE_MAX {
                idle.push(sender);
            }
        }
        let body = body.to_bytes();
        Ok(Answer { status, body })
    }

    fn request(&self, body: &Body) -> Request<Full<Bytes>> {
        let (method, kind, bytes) = match body {
            Body::None => (Method::GET, None, Bytes::new()),
            Body::Json(text) => (
                Method::POST,
                Some("application/json"),
                Bytes::copy_from_slice(text.as_bytes()),
            ),
            Body::Form(text) => (
                Method::POST,
                Some("application/x-www-form-urlencoded"),
                Bytes::copy_from_slice(text.as_bytes()),
            ),
        };
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = method;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("avocet-broker"));
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        request
    }

    fn idle_sender(&self) -> Option<Sender> {
        let mut idle = lock(&self.idle);
        idle.retain(|sender| !sender.is_closed());
        idle.pop()
    }
}

/// A value of a form (`application/x-www-form-urlencoded`).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(digit.into(), 16).unwrap_or('0');
                encoded.push(digit.to_ascii_uppercase());
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_go_to_other_machines_over_tls_only() {
        for (url, allowed) in [
            ("https://auth.example/mqtt?x=1", true),
            ("https://10.0.0.1:8443/", true),
            ("http://127.0.0.1:8080/a", true),
            ("http://[::1]:8080", true),
            ("http://localhost/a", true),
            ("http://auth.example/", false),
            ("http://127.0.0.1.example/", false),
            ("https://user:secret@auth.example/", false),
            ("ftp://127.0.0.1/", false),
            ("auth.example", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(parse(url).is_some(), allowed, "{url}");
        }
    }

    #[test]
    fn a_server_that_fails_again_and_again_is_asked_once_in_a_while() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..FAILURES_MAX {
            assert!(health.may_be_asked(now));
            health.note(false, now);
        }
        for _ in 0..3 {
            assert!(!health.may_be_asked(now));
            now += REST;
            assert!(health.may_be_asked(now));
            assert!(!health.may_be_asked(now), "one is enough to find out");
            health.note(false, now);
        }
        now += REST;
        assert!(health.may_be_asked(now));
        health.note(true, now);
        assert!((0..9).all(|_| health.may_be_asked(now)));
    }

    #[test]
    fn values_of_a_form_are_encoded() {
        assert_eq!(encode("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(encode("a b&c=d/é"), "a%20b%26c%3Dd%2F%C3%A9");
    }
}
