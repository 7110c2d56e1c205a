//! The client role.

mod ages;
mod config;
mod connection;
mod event;
mod offline;
mod reconnect;
mod server;
mod servers;
mod subscription;
mod subscriptions;

pub use ages::Ages;
pub use config::{Authentication, ClientConfig, ConfigError, WillMessage};
pub use connection::ClientConnection;
pub use event::{
    ClientEvent, ClientInput, ClientNotice, ControlError, NotPublished, PublishError, PublishId,
    RequestId, SubscribeError,
};
pub use reconnect::{Backoff, Reconnect, is_final};
pub use server::Server;
pub use servers::{ServerOrder, Servers};
pub use subscriptions::{SubscriptionAnswer, SubscriptionKey, SubscriptionRequest, Subscriptions};
