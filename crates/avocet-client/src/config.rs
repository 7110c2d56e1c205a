//! Where to connect to, and how.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use avocet_codec::Version;
use avocet_session::client::{Backoff, ClientConfig, ServerOrder};
use avocet_transport::{Endpoint, Proxy};
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::authentication::EnhancedAuthentication;
use crate::connector::Connector;
use crate::storage::Storage;

/// Where to connect to, what CONNECT says, and how the client behaves.
pub struct Config {
    /// The server's name or address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// Other servers, to be tried when the first one cannot be reached. Unless they share their
    /// Sessions, what is subscribed is subscribed anew there.
    pub alternatives: Vec<Address>,
    /// How long the network may take to connect; CONNACK has its own deadline.
    pub connect_timeout: Duration,
    /// What CONNECT says, timers, and limits of queues.
    pub connection: ClientConfig,
    /// Whether, and how, to connect again when the connection is lost; without it the client ends
    /// with its connection.
    pub reconnect: Option<Reconnection>,
    /// Messages of QoS 0 that wait for the application, in each stream; at least 1. How many of
    /// QoS 1 and 2 wait is up to [`ClientConfig::receive_maximum`].
    pub receive_max: usize,
    /// What happens to messages of QoS 0 beyond that.
    pub when_slow: WhenSlow,
    /// Messages that wait to be sent, of all QoS together; at least 1. They are in memory, also with
    /// a storage; [`Limits::queued_bytes_max`](avocet_session::Limits) bounds their bytes.
    pub publish_max: usize,
    /// What happens to messages that are published while as many wait; in place of
    /// [`Limits::overflow`](avocet_session::Limits).
    pub when_full: WhenFull,
    /// How long messages may wait to be sent, over the end of the process too if there is a storage;
    /// for ever without it. What is in flight stays: it may have arrived. Older messages are dropped,
    /// which [`Event::NotPublished`](crate::Event) tells, and
    /// [`PublishError::NotPublished`](crate::PublishError) whoever waits for the answer.
    pub max_age: Option<Duration>,
    /// Whether the application acknowledges QoS 1 and 2 messages itself, with
    /// [`Received::acknowledge`](crate::Received::acknowledge). Otherwise a message is
    /// acknowledged when the application takes it from its stream.
    pub manual_acknowledge: bool,
    /// Answers each step of enhanced authentication: called with the server's Authentication Data,
    /// returns the client's.
    pub authenticator: Option<Authenticator>,
    /// Asked before every CONNECT, for instance to renew a token.
    pub credentials: Option<CredentialsSource>,
    /// Enhanced authentication that begins anew on each connection, such as
    /// [`ScramSha256`](crate::ScramSha256) (5.0); in place of `authenticator` and of what
    /// [`ClientConfig::authentication`] says.
    pub authentication: Option<Box<dyn EnhancedAuthentication>>,
    /// What is spoken between TCP and MQTT: TLS, WebSocket. Where it says that the server is at a host
    /// and a port, those of the server that is tried are used.
    pub endpoint: Option<Endpoint>,
    /// The proxy that connects to servers, in place of what the endpoint says; it resolves their
    /// names. [`Proxy::from_environment`] is the one that `ALL_PROXY` names: only programs that ask
    /// for it use that.
    pub proxy: Option<Proxy>,
    /// Opens streams in a way that no endpoint knows.
    pub connector: Option<Box<dyn Connector>>,
    /// Keeps messages over the end of the process. Needs a Client Identifier, and a server that
    /// keeps the Session: [`ClientConfig::session_expiry_interval`] says for how long.
    pub storage: Option<Box<dyn Storage>>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name, or an IPv4 or IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How to connect again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnection {
    /// How long to wait before each round through the servers.
    pub backoff: Backoff,
    /// A connection that lasted this long begins the waits anew.
    pub stable_after: Duration,
    /// In which order servers are tried.
    pub order: ServerOrder,
    /// How often to look whether a server that is listed before the one in use is back; then the
    /// client moves there, as soon as nothing is in flight.
    pub failback: Option<Duration>,
    /// Whether to go where the server refers to (5.0).
    pub follow_server_reference: bool,
    /// How long the server keeps the Session between two connections (5.0), unless
    /// [`ClientConfig::session_expiry_interval`] says more. It ends with
    /// [`Client::disconnect`](crate::Client::disconnect).
    pub session_kept: Duration,
}

/// What happens to a message that is published while too many wait to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits until there is room; [`Client::try_publish`](crate::Client::try_publish), which never
    /// waits, refuses it.
    #[default]
    Wait,
    /// It is refused, with [`Unsendable::QueueFull`](crate::Unsendable).
    Refuse,
    /// The message that has waited longest is dropped, which [`Event::NotPublished`](crate::Event)
    /// tells. What is in flight stays.
    DropOldest,
}

/// What happens to messages of QoS 0 when too many wait for the application. Those of QoS 1 and 2
/// always wait, unacknowledged: Receive Maximum bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenSlow {
    /// The one that has waited longest is dropped, and counted.
    #[default]
    DropOldest,
    /// The one that came last is dropped, and counted.
    DropNewest,
    /// Nothing more is read from the server until the application has taken one. As the answers to
    /// what is published come behind, a task that receives must not wait for them.
    StopReading,
}

/// What identifies the user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The User Name.
    pub user_name: Option<String>,
    /// The Password; in 3.x only with a User Name.
    pub password: Option<Bytes>,
}

/// See [`Config::authenticator`].
pub type Authenticator = Box<dyn FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send>;

/// See [`Config::credentials`].
pub type CredentialsSource = Box<
    dyn FnMut() -> BoxFuture<'static, Result<Credentials, Box<dyn Error + Send + Sync>>> + Send,
>;

/// Messages of QoS 1 and 2 that the server sends ahead of their acknowledgement.
const RECEIVE_MAXIMUM: u16 = 256;

impl Config {
    /// A 5.0 client of this server, with an empty Client Identifier (the server assigns one) and
    /// an empty Session, that connects again when its connection is lost.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let mut connection = ClientConfig::new(Version::V5, "");
        connection.receive_maximum = RECEIVE_MAXIMUM;
        Self {
            host: host.into(),
            port,
            ..Self::with_connection(connection)
        }
    }

    /// For a stream that stands already, or to set the server later.
    #[must_use]
    pub fn with_connection(connection: ClientConfig) -> Self {
        Self {
            host: "localhost".into(),
            port: 1883,
            alternatives: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            connection,
            reconnect: Some(Reconnection::default()),
            receive_max: 1024,
            when_slow: WhenSlow::default(),
            publish_max: 256,
            when_full: WhenFull::default(),
            max_age: None,
            manual_acknowledge: false,
            authenticator: None,
            credentials: None,
            authentication: None,
            endpoint: None,
            proxy: None,
            connector: None,
            storage: None,
        }
    }

    /// All servers, the first one first.
    pub(crate) fn servers(&self) -> Vec<Address> {
        let first = Address::new(self.host.clone(), self.port);
        std::iter::once(first)
            .chain(self.alternatives.iter().cloned())
            .collect()
    }
}

impl Default for Reconnection {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            stable_after: Duration::from_secs(60),
            order: ServerOrder::default(),
            failback: None,
            follow_server_reference: true,
            session_kept: Duration::from_secs(300),
        }
    }
}

impl Address {
    /// This host and port.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// The first server of a Server Reference, a list of `host` and `host:port` between spaces
    /// [MQTT5-4.11]; without a port it is the one given.
    pub(crate) fn from_reference(reference: &str, port: u16) -> Option<Self> {
        let first = reference.split_whitespace().next()?;
        let bracketed = first
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let (host, rest) = match bracketed {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match first.rsplit_once(':') {
                // More than one colon without brackets is an IPv6 address.
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) | None => (first, None),
            },
        };
        let port = rest.map_or(Some(port), |text| text.parse().ok())?;
        (!host.is_empty()).then(|| Self::new(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Credentials {
    /// The Password stays secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("client_id", &self.connection.client_id)
            .field("version", &self.connection.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_reference_names_a_host_and_perhaps_a_port() {
        let parse = |text| Address::from_reference(text, 1883).map(|it| it.to_string());
        for (text, expected) in [
            ("other", Some("other:1883")),
            ("other:8883 third:1", Some("other:8883")),
            ("10.10.151.22:8883", Some("10.10.151.22:8883")),
            ("[fe80::9610]:1884", Some("[fe80::9610]:1884")),
            ("fe80::9610", Some("[fe80::9610]:1883")),
            ("[::1]", Some("[::1]:1883")),
            ("", None),
            (":1883", None),
            ("host:port", None),
        ] {
            assert_eq!(parse(text).as_deref(), expected, "{text}");
        }
    }
}
