//! What the records of one batch come to, before any of it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use avocet_engine::SessionKey;
use avocet_store::{Batch, BlobId, Operation, QueueId};
use avocet_topic::TopicFilterBuf;
use bytes::Bytes;

use crate::journal::{Held, Map, Session};

/// A value and the blob it refers to; none for a key that goes.
pub(crate) type NewKey = Option<(Bytes, Option<BlobId>)>;

#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) sessions: Map<Arc<SessionKey>, Option<Session>>,
    pub(crate) groups: Map<TopicFilterBuf, Option<u64>>,
    pub(crate) held: Map<u64, Held>,
    pub(crate) keys: BTreeMap<Bytes, NewKey>,
    pub(crate) blobs: Vec<(u64, Bytes)>,
    pub(crate) appended: Vec<Operation>,
    /// Where queues that shrink begin, by their own sequences.
    pub(crate) advanced: BTreeMap<u64, u64>,
    pub(crate) dropped: Vec<u64>,
    pub(crate) next_number: u64,
    pub(crate) message_count: u64,
    pub(crate) ignored: u64,
}

impl Change {
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes, blob: Option<BlobId>) {
        self.keys.insert(key, Some((value, blob)));
    }

    pub(crate) fn delete(&mut self, key: Bytes) {
        self.keys.insert(key, None);
    }

    /// The operations, in an order in which every blob is there when something refers to it.
    pub(crate) fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        let blobs = std::mem::take(&mut self.blobs);
        let ids: Vec<_> = blobs.iter().map(|(id, _)| BlobId(*id)).collect();
        for (id, bytes) in blobs {
            batch.put_blob(BlobId(id), bytes);
        }
        for operation in std::mem::take(&mut self.appended) {
            batch.push(operation);
        }
        let mut deleted = Vec::new();
        for (key, new) in std::mem::take(&mut self.keys) {
            match new {
                Some((value, blob)) => {
                    batch.put_key(key, value, blob);
                }
                None => deleted.push(key),
            }
        }
        for key in deleted {
            batch.delete_key(key);
        }
        for (queue, to) in std::mem::take(&mut self.advanced) {
            batch.advance(QueueId(queue), to);
        }
        for queue in std::mem::take(&mut self.dropped) {
            batch.drop_queue(QueueId(queue));
        }
        for id in ids {
            batch.release_blob(id);
        }
        batch
    }
}
