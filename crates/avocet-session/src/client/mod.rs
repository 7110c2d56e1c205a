//! The client role.

mod config;
mod connection;
mod event;
mod reconnect;
mod subscription;

pub use config::{Authentication, ClientConfig, ConfigError, WillMessage};
pub use connection::{ClientConnection, Server};
pub use event::{
    ClientEvent, ClientInput, ClientNotice, ControlError, NotPublished, PublishError, PublishId,
    RequestId, SubscribeError,
};
pub use reconnect::{Backoff, Reconnect};
