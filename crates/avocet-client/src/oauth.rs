//! Tokens for clients by OAuth 2, the client credentials grant (RFC 6749, 4.4).

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use avocet_transport::{ClientTls, Endpoint, Proxy, TlsConnector, TlsError};
use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::{Credentials, CredentialsSource};

/// The longest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// The longest head of an answer, in bytes.
const HEAD_MAX: usize = 16 << 10;

/// Whoever is asked again so soon was refused with what it had.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// Gets tokens from an authorization server, as [`Config::credentials`](crate::Config::credentials):
/// the token is the Password.
///
/// ```
/// use avocet_client::{ClientCredentials, Config};
///
/// let mut config = Config::new("broker.example", 8883);
/// let mut tokens = ClientCredentials::new("https://login.example/token", "pump-7", "secret");
/// tokens.scope = Some("telemetry".into());
/// tokens.user_name = Some("pump-7".into());
/// config.credentials = Some(tokens.into_source()?);
/// # Ok::<(), avocet_client::OAuthError>(())
/// ```
///
/// A token is used for further connections until [`ClientCredentials::renew_before`] its end. One that
/// was given out less than ten seconds ago was refused, or its connection lost at once, and a new one
/// is fetched.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientCredentials {
    /// Where tokens come from: `https://`, or `http://` on this machine.
    pub token_url: String,
    /// The client's name at the authorization server.
    pub client_id: String,
    /// What proves it.
    pub client_secret: String,
    /// How both are sent.
    pub authentication: ClientAuthentication,
    /// What the token is to allow, as the authorization server calls it.
    pub scope: Option<String>,
    /// Further parameters of the request, such as `audience`.
    pub parameters: Vec<(String, String)>,
    /// The User Name that goes with the token; 3.x needs one.
    pub user_name: Option<String>,
    /// How a token is still used for a connection: as long as it lasts longer than this.
    pub renew_before: Duration,
    /// How long the authorization server may take.
    pub timeout: Duration,
    /// Its authorities.
    pub tls: ClientTls,
    /// The proxy that connects to it.
    pub proxy: Option<Proxy>,
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// By Basic authentication, which every authorization server has to know.
    #[default]
    Basic,
    /// As `client_id` and `client_secret` among the parameters.
    Parameters,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OAuthError {
    /// The URL is none, or `http` with another machine, which would learn the secret unprotected.
    #[error("the token url is not https")]
    Url,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is no connection to the authorization server.
    #[error(transparent)]
    Connect(#[from] avocet_transport::ConnectError),
    /// The exchange with it failed.
    #[error("the authorization server does not answer: {0}")]
    Http(io::Error),
    /// It took too long.
    #[error("no token within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It refused.
    #[error(
        "the authorization server refused a token: {status}{}",
        in_words(error, description)
    )]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// The `error` of OAuth, such as `invalid_client`.
        error: Option<String>,
        /// Something for people.
        description: Option<String>,
    },
    /// The answer is not one with a bearer token.
    #[error("the authorization server's answer has no bearer token")]
    NoToken,
}

fn in_words(error: &Option<String>, description: &Option<String>) -> String {
    let mut text = String::new();
    for words in [error, description].into_iter().flatten() {
        let separator = if text.is_empty() { ": " } else { ", " };
        // What comes from outside goes into logs.
        let words = words.chars().filter(|it| !it.is_control()).take(200);
        text.push_str(separator);
        text.extend(words);
    }
    text
}

/// A token, and until when it is used.
struct Token {
    text: Bytes,
    /// None if it is for one connection.
    until: Option<Instant>,
    given: Instant,
}

struct Source {
    settings: ClientCredentials,
    endpoint: Endpoint,
    /// The value of Host.
    host: String,
    path: String,
    token: Mutex<Option<Token>>,
}

impl ClientCredentials {
    /// This client of this authorization server, with half a minute for its answers, and tokens that
    /// last for at least another minute.
    #[must_use]
    pub fn new(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Self {
        Self {
            token_url: token_url.into(),
            client_id: client_id.into(),
            client_secret: client_secret.into(),
            authentication: ClientAuthentication::default(),
            scope: None,
            parameters: Vec::new(),
            user_name: None,
            renew_before: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            tls: ClientTls::default(),
            proxy: None,
        }
    }

    /// What [`Config::credentials`](crate::Config::credentials) takes. Its errors are
    /// [`OAuthError`]s.
    ///
    /// # Errors
    ///
    /// [`OAuthError::Url`] and [`OAuthError::Tls`].
    pub fn into_source(mut self) -> Result<CredentialsSource, OAuthError> {
        let (scheme, rest) = self.token_url.split_once("://").ok_or(OAuthError::Url)?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority
            .strip_prefix('[')
            .and_then(|it| it.split_once(']'))
        {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_secure = scheme == "https";
        let is_here = ["localhost", "127.0.0.1", "::1"].contains(&host);
        let is_visible = path.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !is_visible || path.contains('#') {
            return Err(OAuthError::Url);
        }
        if !(is_secure || scheme == "http" && is_here) {
            return Err(OAuthError::Url);
        }
        let default = if is_secure { 443 } else { 80 };
        let port = port.map_or(Ok(default), |it| it.parse().map_err(|_| OAuthError::Url))?;
        let mut endpoint = Endpoint::tcp(host, port);
        if is_secure {
            if self.tls.alpn.is_empty() {
                self.tls.alpn = vec![avocet_transport::ALPN_HTTP.to_vec()];
            }
            endpoint.tls = Some(TlsConnector::new(&self.tls)?);
        }
        // On the proxy's machine `localhost` is another one, and the way there is not protected.
        endpoint.proxy = self.proxy.clone().filter(|_| is_secure);
        let source = Arc::new(Source {
            host: authority.to_owned(),
            path: path.to_owned(),
            endpoint,
            token: Mutex::new(None),
            settings: self,
        });
        Ok(Box::new(move || Arc::clone(&source).credentials()))
    }
}

impl Source {
    fn credentials(
        self: Arc<Self>,
    ) -> BoxFuture<'static, Result<Credentials, Box<dyn Error + Send + Sync>>> {
        async move {
            let password = self.token().await?;
            Ok(Credentials {
                user_name: self.settings.user_name.clone(),
                password: Some(password),
            })
        }
        .boxed()
    }

    async fn token(&self) -> Result<Bytes, OAuthError> {
        let mut kept = self.token.lock().await;
        let now = Instant::now();
        if let Some(token) = &mut *kept {
            let lasts = token.until.is_some_and(|until| now < until);
            if lasts && token.given + REFUSED_WITHIN <= now {
                token.given = now;
                return Ok(token.text.clone());
            }
        }
        *kept = None;
        let limit = self.settings.timeout;
        let fetched = timeout(limit, self.fetch()).await;
        let (text, lifetime) = fetched.unwrap_or(Err(OAuthError::TimedOut(limit)))?;
        let used = lifetime.map(|it| it.saturating_sub(self.settings.renew_before));
        let token = kept.insert(Token {
            text,
            until: used.and_then(|used| now.checked_add(used)),
            given: Instant::now(),
        });
        Ok(token.text.clone())
    }

    /// A new token, and how long it lasts.
    async fn fetch(&self) -> Result<(Bytes, Option<Duration>), OAuthError> {
        let http = |error: Box<dyn Error + Send + Sync>| OAuthError::Http(io::Error::other(error));
        let stream = self.endpoint.connect(self.settings.timeout).await?;
        let request = self.request().map_err(|error| http(error.into()))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_MAX).max_headers(64);
        let (mut sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| http(error.into()))?;
        let exchange = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| http(error.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(http)?;
            token(status, &body.to_bytes())
        };
        // The connection may end before what it has brought is read.
        let connection = connection.then(|_| std::future::pending::<()>());
        tokio::select! {
            biased;
            outcome = exchange => outcome,
            () = connection => Err(OAuthError::NoToken),
        }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let ClientCredentials {
            client_id,
            client_secret,
            scope,
            parameters,
            authentication,
            ..
        } = &self.settings;
        let mut form = "grant_type=client_credentials".to_owned();
        let mut add = |name: &str, value: &str| {
            form.push('&');
            put(&mut form, name);
            form.push('=');
            put(&mut form, value);
        };
        if let Some(scope) = scope {
            add("scope", scope);
        }
        for (name, value) in parameters {
            add(name, value);
        }
        let mut request = Request::post(&self.path)
            .header(HOST, &self.host)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match authentication {
            ClientAuthentication::Basic => {
                let mut both = String::new();
                put(&mut both, client_id);
                both.push(':');
                put(&mut both, client_secret);
                let encoded = Base64::encode_string(both.as_bytes());
                request = request.header(AUTHORIZATION, format!("Basic {encoded}"));
            }
            ClientAuthentication::Parameters => {
                add("client_id", client_id);
                add("client_secret", client_secret);
            }
        }
        request.body(Full::new(form.into()))
    }
}

/// The token of an answer, and how long it lasts.
fn token(status: StatusCode, body: &[u8]) -> Result<(Bytes, Option<Duration>), OAuthError> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name| answer.get(name).and_then(Value::as_str);
    if status != StatusCode::OK {
        return Err(OAuthError::Refused {
            status: status.as_u16(),
            error: text("error").map(str::to_owned),
            description: text("error_description").map(str::to_owned),
        });
    }
    let is_bearer = text("token_type").is_some_and(|it| it.eq_ignore_ascii_case("bearer"));
    let token = text("access_token").filter(|token| is_bearer && !token.is_empty());
    let token = token.ok_or(OAuthError::NoToken)?;
    // Some write the number as a text.
    let seconds = answer.get("expires_in").and_then(|value| {
        let as_text = value.as_str().and_then(|text| text.parse().ok());
        value.as_u64().or(as_text)
    });
    let token = Bytes::copy_from_slice(token.as_bytes());
    Ok((token, seconds.map(Duration::from_secs)))
}

/// A text as forms write it.
fn put(form: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b' ' => form.push('+'),
            b'*' | b'-' | b'.' | b'_' => form.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => form.push(char::from(byte)),
            // Writing into a text does not fail.
            _ => drop(write!(form, "%{byte:02X}")),
        }
    }
}

impl fmt::Debug for ClientCredentials {
    /// The secret stays secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("token_url", &self.token_url)
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
