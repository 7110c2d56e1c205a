//! Batches of operations.

use bytes::Bytes;

use crate::{BlobId, QueueId};

/// One step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stores a blob, and holds it until it is released.
    PutBlob {
        /// Its name; no living blob may have it.
        id: BlobId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Gives up the hold of [`Operation::PutBlob`]. The blob goes when nothing refers to it.
    ReleaseBlob {
        /// Its name.
        id: BlobId,
    },
    /// Puts an entry behind the others of a queue; the first one makes the queue.
    Append {
        /// The queue.
        queue: QueueId,
        /// The entry's own bytes.
        value: Bytes,
        /// The blob it refers to.
        blob: Option<BlobId>,
    },
    /// Removes every entry whose sequence is below `to`. Going backwards changes nothing. Blobs that
    /// only they referred to may go later, if they are many.
    Advance {
        /// The queue.
        queue: QueueId,
        /// The lowest sequence that stays.
        to: u64,
    },
    /// Removes a queue and its entries, as [`Operation::Advance`] does. Its sequences start from 0 if it
    /// is made again.
    DropQueue {
        /// The queue.
        queue: QueueId,
    },
    /// Stores a value under a key, in place of what was there.
    PutKey {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The blob it refers to.
        blob: Option<BlobId>,
    },
    /// Removes a key. One that is not there changes nothing.
    DeleteKey {
        /// The key.
        key: Bytes,
    },
}

/// Operations that are applied together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for so many operations.
    pub fn with_capacity(operations: usize) -> Self {
        Self {
            operations: Vec::with_capacity(operations),
        }
    }

    /// Stores a blob; see [`Operation::PutBlob`].
    pub fn put_blob(&mut self, id: BlobId, bytes: Bytes) -> &mut Self {
        self.push(Operation::PutBlob { id, bytes })
    }

    /// Gives up the hold on a blob; see [`Operation::ReleaseBlob`].
    pub fn release_blob(&mut self, id: BlobId) -> &mut Self {
        self.push(Operation::ReleaseBlob { id })
    }

    /// Puts an entry behind the others of a queue; see [`Operation::Append`].
    pub fn append(&mut self, queue: QueueId, value: Bytes, blob: Option<BlobId>) -> &mut Self {
        self.push(Operation::Append { queue, value, blob })
    }

    /// Removes the entries of a queue below a sequence; see [`Operation::Advance`].
    pub fn advance(&mut self, queue: QueueId, to: u64) -> &mut Self {
        self.push(Operation::Advance { queue, to })
    }

    /// Removes a queue; see [`Operation::DropQueue`].
    pub fn drop_queue(&mut self, queue: QueueId) -> &mut Self {
        self.push(Operation::DropQueue { queue })
    }

    /// Stores a value under a key; see [`Operation::PutKey`].
    pub fn put_key(&mut self, key: Bytes, value: Bytes, blob: Option<BlobId>) -> &mut Self {
        self.push(Operation::PutKey { key, value, blob })
    }

    /// Removes a key; see [`Operation::DeleteKey`].
    pub fn delete_key(&mut self, key: Bytes) -> &mut Self {
        self.push(Operation::DeleteKey { key })
    }

    /// Adds one operation.
    pub fn push(&mut self, operation: Operation) -> &mut Self {
        self.operations.push(operation);
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations in their order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations in their order, as values.
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}
