//! The configuration of a broker.

mod error;
mod reference;
mod settings;
mod sources;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avocet_engine::EngineConfig;

pub use error::{ConfigError, Origin};
pub use reference::reference;
pub use sources::ConfigBuilder;

const MAXIMUM_PACKET_SIZE: NonZeroU32 = const { NonZeroU32::new(4 << 20).unwrap() };

/// A few pages of what a client takes at once.
const RESIDENT_MESSAGES: usize = 1_000;

/// Everything that can be set. `docs/configuration.md` describes each setting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where plain TCP is served. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Where durable state is kept; made when it is missing. `None`: all state is in memory.
    pub data_dir: Option<PathBuf>,
    /// What an acknowledgement says, where there is a data directory.
    pub durability: Durability,
    /// How many threads share the clients; `None` is one per core.
    pub shards: Option<NonZeroU16>,
    /// How long clients may take to read what they were still to get when the broker stops.
    pub stop_timeout: Duration,
    /// Who may connect.
    pub access: Access,
    /// What is logged, by the binary.
    pub log: Log,
    /// How the protocol is served, and the limits.
    pub engine: EngineConfig,
}

/// What an acknowledgement says of the message, or of the change, that it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// That it is in memory: it ends with the process.
    Memory,
    /// That the operating system has it: it survives the process, but not the loss of power.
    Os,
    /// That it is on disk, where it survives the loss of power.
    #[default]
    Fsync,
}

impl Config {
    /// Whether state is kept in a data directory.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.data_dir.is_some() && self.durability != Durability::Memory
    }
}

/// Who may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// Whether anyone who reaches a listener may connect, also from other machines.
    pub anonymous: bool,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// The level, or directives of `tracing-subscriber`'s `EnvFilter`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))],
            data_dir: None,
            durability: Durability::default(),
            shards: None,
            stop_timeout: Duration::from_secs(5),
            access: Access::default(),
            log: Log {
                filter: "info".to_owned(),
                format: LogFormat::Text,
            },
            engine: engine_defaults(),
        }
    }
}

/// The engine's own defaults, but for packets that may hold a few megabytes (devices send images),
/// and for queues, whose messages stay on disk where there is one.
fn engine_defaults() -> EngineConfig {
    let mut engine = EngineConfig::default();
    let connection = Arc::make_mut(&mut engine.connection);
    connection.maximum_packet_size = MAXIMUM_PACKET_SIZE;
    connection.limits.resident_messages = RESIDENT_MESSAGES;
    engine
}

impl Config {
    /// Checks that the settings go together and that this version supports them.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_with(|_| Origin::Program)
    }

    fn check_with(&self, origin: impl Fn(&str) -> Origin) -> Result<(), ConfigError> {
        let refused = |key: &str, reason: String| ConfigError::Refused {
            origin: origin(key),
            key: key.to_owned(),
            value: sources::shown(self, key),
            reason,
        };
        let public = self
            .listen
            .iter()
            .find(|address| !address.ip().is_loopback());
        if let Some(address) = public.filter(|_| !self.access.anonymous) {
            let reason = format!(
                "other machines could reach {address}, and anyone could connect, since there is \
                 no authentication; to allow that set `anonymous = true` in section `[access]` \
                 (or AVOCET_ACCESS_ANONYMOUS=true, or the flag --anonymous), else listen on \
                 127.0.0.1 or [::1]"
            );
            return Err(refused("listen", reason));
        }
        Ok(())
    }
}
