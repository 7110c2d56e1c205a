//! The one table of all settings: keys, what they allow, what they mean, where they go.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{Kind, Value};
use super::{Config, LogFormat};

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its place in the file, with dots between the table and the key.
    pub(crate) key: &'static str,
    /// What it allows.
    pub(crate) kind: Kind,
    /// What it does, for the reference.
    pub(crate) about: &'static str,
    /// What a configuration holds; `None` when nothing is set and nothing is the default.
    pub(crate) get: fn(&Config) -> Value,
    /// Stores a value that `kind` allows.
    pub(crate) set: fn(&mut Config, Value),
}

impl Setting {
    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        match self.key {
            "log.filter" => "AVOCET_LOG".to_owned(),
            key => format!("AVOCET_{}", key.to_ascii_uppercase().replace('.', "_")),
        }
    }
}

/// All settings, in the order of the reference.
pub(crate) static SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        kind: Kind::Addresses,
        about: "Where plain TCP is served. A host name stands for its first IPv4 address. In the \
                environment, several are separated by commas.",
        get: |config| Value::Addresses(config.listen.clone()),
        set: |config, value| config.listen = value.addresses(),
    },
    Setting {
        key: "data_dir",
        kind: Kind::Text {
            allowed: "the path of a folder",
            is_allowed: |_| true,
        },
        about: "Where durable state is kept. Not supported yet: all state is in memory, and a \
                broker with this setting refuses to start.",
        get: |config| {
            let path = config.data_dir.as_ref();
            Value::Text(
                path.map(|path| path.display().to_string())
                    .unwrap_or_default(),
            )
        },
        set: |config, value| {
            let path = value.text();
            config.data_dir = (!path.is_empty()).then(|| PathBuf::from(path));
        },
    },
    Setting {
        key: "shards",
        kind: Kind::Integer { min: 0, max: 256 },
        about: "How many threads share the clients. 0: one per core.",
        get: |config| Value::Integer(config.shards.map_or(0, |shards| shards.get().into())),
        set: |config, value| {
            config.shards = u16::try_from(value.integer())
                .ok()
                .and_then(NonZeroU16::new);
        },
    },
    Setting {
        key: "stop_timeout",
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: Duration::from_secs(3_600),
        },
        about: "How long clients may take, when the broker stops, to read what they were still to \
                get.",
        get: |config| Value::Duration(config.stop_timeout),
        set: |config, value| config.stop_timeout = value.duration(),
    },
    Setting {
        key: "access.anonymous",
        kind: Kind::Flag,
        about: "Whether anyone who reaches a listener may connect. Must be true for a listener \
                that other machines can reach.",
        get: |config| Value::Flag(config.access.anonymous),
        set: |config, value| config.access.anonymous = value.flag(),
    },
    Setting {
        key: "log.filter",
        kind: Kind::Text {
            allowed: "a level (error, warn, info, debug, trace) or directives such as \
                      \"info,avocet_broker=debug\"",
            is_allowed: |text| text.parse::<tracing_subscriber::EnvFilter>().is_ok(),
        },
        about: "What is logged to standard error: a level (`error`, `warn`, `info`, `debug`, \
                `trace`) or directives such as `info,avocet_broker=debug`.",
        get: |config| Value::Text(config.log.filter.clone()),
        set: |config, value| config.log.filter = value.text(),
    },
    Setting {
        key: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        about: "How log lines look: `text` for people, `json` for programs (one object per line).",
        get: |config| {
            let name = match config.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            };
            Value::Text(name.to_owned())
        },
        set: |config, value| {
            config.log.format = if value.text() == "json" {
                LogFormat::Json
            } else {
                LogFormat::Text
            };
        },
    },
];
