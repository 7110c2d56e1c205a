//! What can go wrong, by operation.

use std::fmt;

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
    /// A stream could not be opened, by a [`Connector`](crate::Connector) of the application.
    #[error("no connection: {0}")]
    Io(#[from] std::io::Error),
    /// [`Config::credentials`](crate::Config::credentials) had none.
    #[error("no credentials: {0}")]
    Credentials(Box<dyn std::error::Error + Send + Sync>),
    /// [`Config::storage`](crate::Config::storage) could not say what it has.
    #[error("cannot read what was stored: {0}")]
    Storage(Box<dyn std::error::Error + Send + Sync>),
    /// The server refused.
    #[error(
        "the server refused the connection: {reason_code}{}",
        in_words(reason_code, reason_string.as_deref())
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

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// This program's: a setting, a message, a call out of place.
    Application,
    /// The server's: it refused, ended the connection, or broke the protocol.
    Server,
    /// The network's.
    Network,
}

impl ConnectError {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Config(_) | Self::Credentials(_) | Self::Storage(_) => Fault::Application,
            Self::Network(_) | Self::Io(_) => Fault::Network,
            Self::Refused { .. } => Fault::Server,
            Self::Closed(closed) => closed.fault(),
        }
    }
}

impl Closed {
    /// Whose fault it is; that of the application where it disconnected.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self.reason {
            CloseReason::Disconnected(_) => Fault::Application,
            CloseReason::ConnectionLost
            | CloseReason::ConnectTimeout
            | CloseReason::KeepAliveTimeout => Fault::Network,
            CloseReason::PeerDisconnected(_)
            | CloseReason::PeerError(_)
            | CloseReason::Refused(_)
            | _ => Fault::Server,
        }
    }
}

/// The client has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", in_words(reason, detail.as_deref()))]
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
        in_words(reason_code, reason_string.as_deref())
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
        in_words(reason_code, reason_string.as_deref())
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

/// ` (text)`, unless the reason says the same already: many servers send a Reason String that
/// repeats the name of the Reason Code.
fn in_words(reason: &impl fmt::Display, text: Option<&str>) -> String {
    let is_news = |text: &&str| !reason.to_string().ends_with(*text);
    text.filter(is_news)
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_repeat_the_reason_are_left_out() {
        let closed = |detail: &str| Closed {
            reason: CloseReason::PeerDisconnected(ReasonCode::ServerShuttingDown),
            detail: Some(detail.to_owned()),
        };
        let repeated = closed(ReasonCode::ServerShuttingDown.name()).to_string();
        assert_eq!(repeated, "disconnected by the peer: server shutting down");
        assert_eq!(
            closed("back at noon").to_string(),
            "disconnected by the peer: server shutting down (back at noon)"
        );
    }
}
