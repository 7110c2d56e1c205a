//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A line of a file, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
    },
    /// A command-line flag.
    Flag {
        /// Its name, with the dashes.
        name: String,
    },
    /// The program that embeds the broker.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment { name } => write!(f, "environment variable {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
            Self::Program => f.write_str("configuration"),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// The place.
        origin: Origin,
        /// What the parser said.
        message: String,
    },
    /// No setting has this key.
    #[error("{origin}: unknown setting `{key}`{}", suggest(nearest.as_deref()))]
    UnknownKey {
        /// The place.
        origin: Origin,
        /// The key.
        key: String,
        /// The setting with the most similar key.
        nearest: Option<String>,
    },
    /// The setting does not allow the value.
    #[error("{origin}: `{key} = {value}` is not allowed: it must be {allowed}")]
    Value {
        /// The place.
        origin: Origin,
        /// The setting.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two values do not go together, or one asks for what this version lacks.
    #[error("{origin}: `{key} = {value}` is refused: {reason}")]
    Refused {
        /// The place.
        origin: Origin,
        /// The setting.
        key: String,
        /// The value as it would stand in a file.
        value: String,
        /// Why, and what to do.
        reason: String,
    },
}

fn suggest(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}
