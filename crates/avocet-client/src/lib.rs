#![doc = include_str!("../README.md")]

/// The guide's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/from-rumqttc.md")]
struct FromRumqttc;

mod aging;
mod authentication;
pub mod blocking;
mod client;
mod clock;
mod config;
mod connector;
mod driver;
mod error;
mod event;
mod file_storage;
mod inbox;
mod io;
mod messages;
#[cfg(feature = "oauth")]
mod oauth;
mod outbox;
mod received;
mod request;
mod scram;
mod state;
mod storage;
mod url;

pub use authentication::{AuthenticationFailed, EnhancedAuthentication};
pub use client::{
    Acknowledged, Answered, Client, Connected, Disconnection, Pending, Subscription, Unsubscription,
};
pub use config::{
    Address, Authenticator, Config, Credentials, CredentialsSource, Reconnection, WhenFull,
    WhenSlow,
};
pub use connector::{ByteStream, Connector};
pub use error::{Closed, ConnectError, Fault, PublishError, SubscribeError};
pub use event::{Event, Events};
pub use file_storage::{FileStorage, Unreadable};
pub use messages::{Messages, Stream};
#[cfg(feature = "oauth")]
pub use oauth::{ClientAuthentication, ClientCredentials, OAuthError};
pub use outbox::MemoryStorage;
pub use received::{Acknowledgement, Received};
pub use request::{RequestError, Requester};
pub use scram::ScramSha256;
pub use storage::{Record, Storage, Stored, StoredMessage, StoredOutgoing};

pub use url::UrlError;

pub use avocet_codec::{
    MessageProperties, MessagePropertiesParts, PayloadFormat, QoS, ReasonCode, RetainHandling,
    SubscriptionId, SubscriptionOptions, UserProperty, Version,
};
pub use avocet_session::client::{
    Authentication, Backoff, ClientConfig, ConfigError, NotPublished, PublishError as Unsendable,
    Reconnect, Server, ServerOrder, WillMessage,
};
pub use avocet_session::{
    AckError, CloseReason, DropReason, Limits, Message, Overflow, Session, UnixTime,
};
pub use avocet_topic::{TopicFilter, TopicFilterBuf, TopicName, TopicNameBuf};
pub use avocet_transport::{
    ClientTls, Endpoint, Place, Proxy, ProxyProtocol, ProxyUrlError, Roots, TlsConnector, TlsError,
    TlsVersion, WebSocketClient,
};
