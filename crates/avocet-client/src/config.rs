//! Where to connect to, and how.

use std::fmt;
use std::time::Duration;

use avocet_codec::Version;
use avocet_session::client::ClientConfig;

/// Where to connect to, what CONNECT says, and how the client behaves.
pub struct Config {
    /// The server's name or address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// How long the network may take to connect; CONNACK has its own deadline.
    pub connect_timeout: Duration,
    /// What CONNECT says, timers, and limits of queues.
    pub connection: ClientConfig,
    /// Messages that wait for the application; while there are as many, the socket is not read. At
    /// least 1.
    pub receive_max: usize,
    /// Messages that wait to be sent; while there are as many, `publish` waits. At least 1.
    pub publish_max: usize,
    /// Whether the application acknowledges QoS 1 and 2 messages with
    /// [`Client::acknowledge`](crate::Client::acknowledge). Otherwise a message is acknowledged as
    /// soon as it waits for the application.
    pub manual_acknowledge: bool,
    /// Answers each step of enhanced authentication: called with the server's Authentication Data,
    /// returns the client's.
    pub authenticator: Option<Authenticator>,
}

/// See [`Config::authenticator`].
pub type Authenticator = Box<dyn FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send>;

impl Config {
    /// A 5.0 client of this server, with an empty Client Identifier (the server assigns one) and
    /// an empty Session.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            ..Self::with_connection(ClientConfig::new(Version::V5, ""))
        }
    }

    /// For a stream that stands already, or to set the server later.
    #[must_use]
    pub fn with_connection(connection: ClientConfig) -> Self {
        Self {
            host: "localhost".into(),
            port: 1883,
            connect_timeout: Duration::from_secs(30),
            connection,
            receive_max: 64,
            publish_max: 256,
            manual_acknowledge: false,
            authenticator: None,
        }
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
