//! What can go wrong, by operation.

use avocet_codec::ReasonCode;
use avocet_session::CloseReason;
use avocet_session::client::{ConfigError, NotPublished};
use avocet_session::client::{PublishError as Unsendable, SubscribeError as Unrequestable};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting that CONNECT cannot carry.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network brought no connection about.
    #[error(transparent)]
    Network(#[from] avocet_transport::ConnectError),
    /// The server refused.
    #[error(
        "the server refused the connection: {reason_code}{}",
        reason_string.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
    )]
    Refused {
        /// Why, as a code; the return codes of 3.x are mapped to those of 5.0.
        reason_code: ReasonCode,
        /// Why, in words.
        reason_string: Option<String>,
        /// Another server to use.
        server_reference: Option<String>,
    },
    /// The connection ended before the server had answered.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// The connection has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Closed {
    /// Who ended it, and why.
    pub reason: CloseReason,
    /// What the server or the system said about it.
    pub detail: Option<String>,
}

/// Why a message was not published, or is not known to have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It cannot be sent on this connection; nothing was sent.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// The server refused it.
    #[error(
        "the server refused the message: {reason_code}{}",
        reason_string.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
    )]
    Refused {
        /// Why, as a code.
        reason_code: ReasonCode,
        /// Why, in words.
        reason_string: Option<String>,
    },
    /// It was not sent after all, or the server forgot it.
    #[error(transparent)]
    NotPublished(#[from] NotPublished),
    /// The connection ended first. A message of QoS 1 or 2 may have arrived; the Session keeps it
    /// and sends it again on the next connection.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why SUBSCRIBE or UNSUBSCRIBE was not answered, or not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// It cannot be sent on this connection; nothing was sent.
    #[error(transparent)]
    Unsendable(#[from] Unrequestable),
    /// The server refused it.
    #[error(
        "the server refused the subscription: {reason_code}{}",
        reason_string.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
    )]
    Refused {
        /// Why, as a code.
        reason_code: ReasonCode,
        /// Why, in words.
        reason_string: Option<String>,
    },
    /// The connection ended first.
    #[error(transparent)]
    Closed(#[from] Closed),
}
