#![doc = include_str!("../README.md")]

mod acceptor;
mod access;
mod admission;
mod arrivals;
mod authorization;
mod backup;
mod bans;
mod broker;
mod callouts;
mod certificates;
mod clock;
mod config;
mod connection;
mod connections;
mod doors;
mod events;
mod exchanges;
mod gathering;
mod heap;
mod hooks;
mod http;
mod inbox;
mod memory;
mod pace;
mod queue;
mod quic;
mod recovery;
mod refusals;
mod shard;
mod store;
mod stream;
mod tenants;
mod tokens;
mod turning;

pub use access::{AccessError, ReloadError, Reloader};
pub use avocet_access::Identity;
pub use avocet_engine::{
    Accepted, AuthorizationRequest, ConnectionId, EngineConfig, Flapping, PublishIn, PublishOut,
    Recipient, SessionKey,
};
pub use avocet_session::{CloseReason, Message};
pub use backup::{BackupError, backup};
pub use broker::{BoundBroker, Broker, Pulse, ShardFailed, StartError, Stopper};
pub use config::{
    Access, AddressError, CertificateUser, Config, ConfigBuilder, ConfigError, ConnectionLimits,
    Durability, ListenAddress, Listener, ListenerTls, ListenerWebSocket, Log, LogFormat,
    LostSubscriptions, Origin, reference,
};
pub use hooks::{
    Answer, Authenticate, Authenticated, Authorize, Authorized, Client, HookCounts, HookSettings,
    Hooks, Interests, Missed, Publication,
};
pub use recovery::{DataError, DataErrorReason};
pub use stream::InProcessStream;
