//! Pieces of files that were read lately.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use crate::log::read_error;
use crate::vfs::VfsFile;
use crate::{Map, ReadError};

/// Large enough for neighbouring records, small enough that one record of a queue whose entries are far
/// apart costs little more than its own read.
pub(crate) const CHUNK: usize = 8 << 10;

/// Pieces of complete segments, those read first go first.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    chunks: Map<(u32, u64), Vec<u8>>,
    order: VecDeque<(u32, u64)>,
}

impl Cache {
    pub(crate) fn forget(&mut self, segment: u32) {
        self.chunks.retain(|(of, _), _| *of != segment);
        self.order.retain(|(of, _)| *of != segment);
    }

    /// What the file of a segment holds from `offset` on, up to the end of a chunk or the file; at most
    /// `max` bytes are kept.
    pub(crate) fn read(
        &mut self,
        segment: u32,
        file: &impl VfsFile,
        offset: u64,
        max: usize,
    ) -> Result<&[u8], ReadError> {
        let number = offset / CHUNK as u64;
        let place = (segment, number);
        while self.order.len() > (max / CHUNK).max(2) {
            if let Some(old) = self.order.pop_front_if(|old| *old != place) {
                self.chunks.remove(&old);
            } else {
                break;
            }
        }
        let chunk = match self.chunks.entry(place) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut chunk = vec![0; CHUNK];
                let read = file
                    .read_at(number * CHUNK as u64, &mut chunk)
                    .map_err(|error| read_error(&error))?;
                chunk.truncate(read);
                self.order.push_back(place);
                entry.insert(chunk)
            }
        };
        let rest = chunk.get((offset % CHUNK as u64) as usize..);
        rest.filter(|rest| !rest.is_empty())
            .ok_or(ReadError::Corrupt)
    }
}
