#![doc = include_str!("../README.md")]

mod broker;
mod clock;

pub use avocet_engine::EngineConfig;
pub use avocet_session::ServerConfig;
pub use broker::{Broker, BrokerConnector};
