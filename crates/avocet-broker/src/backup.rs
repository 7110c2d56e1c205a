//! Copies of what a running broker has stored.

#[cfg(unix)]
mod socket;

use std::io::{self, Write};
use std::path::Path;

use avocet_store::Exported;

#[cfg(unix)]
pub(crate) use socket::Backups;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// No running broker gives backups of the directory.
    #[error("no broker answers in the data directory")]
    NoBroker,
    /// The broker cannot be reached.
    #[error("the broker that uses the data directory cannot be reached: {0}")]
    Connect(io::Error),
    /// The broker ended the backup: it stops, or cannot read what it stored; its log says which.
    #[error("the broker ended the backup early ({0}); its log says why")]
    Incomplete(io::ErrorKind),
    /// The backup could not be written.
    #[error("cannot write the backup: {0}")]
    Write(io::Error),
}

/// Writes what the broker that uses the data directory `dir` has stored, in the format of
/// `avocet-broker store export`. All that was acknowledged before is in it; the broker goes on meanwhile.
///
/// What was written is of no use when it fails.
pub fn backup(dir: &Path, out: impl Write) -> Result<Exported, BackupError> {
    #[cfg(unix)]
    {
        socket::ask(dir, out)
    }
    #[cfg(not(unix))]
    {
        let _ = (dir, out);
        Err(BackupError::NoBroker)
    }
}
