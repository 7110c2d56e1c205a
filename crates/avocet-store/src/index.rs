//! What is kept in memory of everything that is stored.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Map;
use crate::blobs::{Blobs, map_memory};
use crate::queue::{Item, Queue, Run};

/// A key and what is stored under it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// `None` when it is read from the disk.
    pub(crate) value: Option<Bytes>,
    pub(crate) blob: Option<u64>,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// Everything that is known without reading.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) blobs: Blobs,
    pub(crate) queues: Map<u64, Queue>,
    pub(crate) keys: BTreeMap<Bytes, Key>,
}

impl Index {
    /// About how many bytes of memory blobs and queues take.
    pub(crate) fn memory(&self) -> usize {
        let queues = self.queues.values().map(|queue| {
            queue.runs.capacity() * size_of::<Run>() + queue.items.capacity() * size_of::<Item>()
        });
        self.blobs.memory() + map_memory(&self.queues) + queues.sum::<usize>()
    }
}
