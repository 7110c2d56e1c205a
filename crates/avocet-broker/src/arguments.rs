//! The command line, and the configuration it leads to.

use std::path::PathBuf;

use avocet_broker::{Config, ConfigBuilder, ConfigError};
use clap::{Args, Parser, Subcommand};

/// An MQTT broker for versions 3.1, 3.1.1 and 5.0.
///
/// Without a configuration it listens on 127.0.0.1:1883. Exit codes: 0 after SIGTERM or SIGINT, 1 when it could not
/// start or failed, 2 for wrong flags or a wrong configuration.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) command: Option<Action>,
}

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Check the configuration and exit: 0 when it is fine
    Check,
    /// Have the broker that runs with this configuration read users, rules, keys and certificates again: 0 when all of them are
    /// fine, 1 when not, or when no broker answers
    Reload,
    /// Print all settings with their defaults, as Markdown
    Settings,
    /// Check, look at, export or import a data directory
    #[command(subcommand)]
    Store(StoreAction),
}

#[derive(Subcommand)]
pub(crate) enum StoreAction {
    /// Read everything in a data directory that no broker uses, and say what is wrong with it: 0 when it is sound, 1
    /// when not
    Check {
        /// The data directory
        dir: PathBuf,
    },
    /// Say how much is stored of each tenant in a data directory that no broker uses
    Tenants {
        /// The data directory
        dir: PathBuf,
    },
    /// Write everything in a data directory to standard output, also while a broker uses it
    Export {
        /// The data directory
        dir: PathBuf,
    },
    /// Make a data directory of an export on standard input
    Import {
        /// The data directory, which must be empty or missing
        dir: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Settings {
    /// Read settings from a TOML file
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Listen here (may be repeated); port 0 is any free one
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub(crate) listen: Vec<String>,
    /// Keep sessions and messages in this folder, so that they survive the process
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<String>,
    /// What an acknowledgement says where there is a data directory: fsync, os or memory
    #[arg(long, value_name = "LEVEL", global = true)]
    durability: Option<String>,
    /// Share the clients among N threads; 0 is half of the cores
    #[arg(long, value_name = "N", global = true)]
    shards: Option<String>,
    /// Let anyone connect, also from other machines
    #[arg(long, global = true)]
    anonymous: bool,
    /// Log this: error, warn, info, debug, trace, or directives
    #[arg(long, value_name = "FILTER", global = true)]
    log: Option<String>,
    /// Log as text or json
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<String>,
    /// Set any setting (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub(crate) set: Vec<String>,
}

impl Settings {
    /// The configuration: the file, over it `variables` of the environment, over them the flags.
    pub(crate) fn load(
        &self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut builder = ConfigBuilder::new();
        if let Some(path) = &self.config {
            builder = builder.file(path)?;
        }
        builder = builder.environment(variables)?;
        for assignment in &self.set {
            let (key, value) = assignment.split_once('=').unwrap_or((assignment, ""));
            builder = builder.flag("--set", key.trim(), value.trim())?;
        }
        if !self.listen.is_empty() {
            builder = builder.flag("--listen", "listen", &self.listen.join(","))?;
        }
        if self.anonymous {
            builder = builder.flag("--anonymous", "access.anonymous", "true")?;
        }
        let flags = [
            ("--data-dir", "data_dir", &self.data_dir),
            ("--durability", "durability", &self.durability),
            ("--shards", "shards", &self.shards),
            ("--log", "log.filter", &self.log),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (name, key, value) in flags {
            if let Some(value) = value {
                builder = builder.flag(name, key, value)?;
            }
        }
        builder.build()
    }
}
