//! An MQTT broker: a library to embed.

mod config;

pub use config::{Access, Config, ConfigBuilder, ConfigError, Log, LogFormat, Origin, reference};
