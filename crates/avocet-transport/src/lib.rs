//! Byte streams for MQTT: connect and listen over TCP.

mod connect;

pub use connect::{ConnectError, connect};
