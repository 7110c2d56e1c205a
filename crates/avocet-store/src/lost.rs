//! What cannot be read any more, by name.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::{BlobId, OpenError, QueueId};

/// Something that was stored and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Entries of a queue.
    Entries {
        /// The queue.
        queue: QueueId,
        /// Which of them.
        sequences: Range<u64>,
    },
    /// A blob.
    Blob {
        /// Its name.
        id: BlobId,
    },
    /// A key and its value.
    Key {
        /// The key.
        key: Bytes,
    },
    /// What was put into a file from an offset on and is not named otherwise.
    Rest {
        /// The file.
        file: String,
        /// The first byte.
        offset: u64,
    },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { queue, sequences } => {
                let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
                write!(f, "entries {first} to {last} of queue {}", queue.0)
            }
            Self::Blob { id } => write!(f, "blob {}", id.0),
            Self::Key { key } => write!(f, "key \"{}\"", key.escape_ascii()),
            Self::Rest { file, offset } => {
                write!(f, "changes in {file} behind offset {offset}, without names")
            }
        }
    }
}

/// What an opening does about what is damaged: refuse, or list it and go on.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    list: Option<Vec<Lost>>,
}

impl Losses {
    /// Lists what is lost.
    pub(crate) fn listed() -> Self {
        Self {
            list: Some(Vec::new()),
        }
    }

    /// Gives the error back unless losses are listed.
    pub(crate) fn accept(&mut self, error: OpenError, lost: Lost) -> Result<(), OpenError> {
        if self.list.is_none() {
            return Err(error);
        }
        self.list(lost);
        Ok(())
    }

    /// Notes a loss.
    pub(crate) fn list(&mut self, lost: Lost) {
        let Some(list) = &mut self.list else { return };
        match (list.last_mut(), lost) {
            (
                Some(Lost::Entries { queue, sequences }),
                Lost::Entries {
                    queue: of,
                    sequences: more,
                },
            ) if *queue == of && sequences.end == more.start => sequences.end = more.end,
            (_, lost) => list.push(lost),
        }
    }

    pub(crate) fn into_list(self) -> Vec<Lost> {
        self.list.unwrap_or_default()
    }
}
