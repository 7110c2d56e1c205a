#![doc = include_str!("../README.md")]

mod acceptor;
mod access;
mod backup;
mod broker;
mod clock;
mod config;
mod connection;
mod connections;
mod events;
mod inbox;
mod pace;
mod recovery;
mod shard;
mod store;
mod stream;

pub use access::{AccessError, Reloader};
pub use avocet_engine::EngineConfig;
pub use backup::{BackupError, backup};
pub use broker::{Broker, ShardFailed, StartError, Stopper};
pub use config::{
    Access, AddressError, Config, ConfigBuilder, ConfigError, Durability, ListenAddress, Listener,
    Log, LogFormat, Origin, reference,
};
pub use recovery::{DataError, DataErrorReason};
pub use stream::InProcessStream;
