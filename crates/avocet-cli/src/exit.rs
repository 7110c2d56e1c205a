//! How a command ends.

use std::io;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Said to the user; exit code 1.
    Error(String),
    /// `-W` ran out; exit code 27, as `mosquitto_sub` does, and nothing is said.
    TimedOut,
    /// The server refused the connection; the exit code is that of its CONNACK.
    Refused { message: String, code: u8 },
    /// A signal ended it, as it was asked to; exit code 1, and what there is was said.
    Interrupted,
    /// What was asked about is denied; exit code 2, and what there is was said.
    Denied,
    /// The reader of the output went away; there is nobody to tell, and nothing went wrong.
    OutputClosed,
}

impl Failure {
    /// An error with this text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }

    /// What writing to standard output failed with.
    pub(crate) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Error(format!("cannot write to standard output: {error}"))
        }
    }

    /// What the user reads on standard error.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::Error(message) | Self::Refused { message, .. } => Some(message),
            Self::TimedOut | Self::Interrupted | Self::Denied | Self::OutputClosed => None,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Error(_) | Self::Interrupted => ExitCode::FAILURE,
            Self::TimedOut => ExitCode::from(27),
            Self::Denied => ExitCode::from(2),
            // No CONNACK that refuses has code 0; should one come about, it is still a failure.
            Self::Refused { code, .. } => ExitCode::from((*code).max(1)),
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Error(text)
    }
}
