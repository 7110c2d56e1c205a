//! What the records of one batch come to, before any of it counts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use avocet_engine::{GroupName, SessionKey};
use avocet_session::Message;
use avocet_store::{Batch, BlobId, QueueId};
use bytes::Bytes;

use crate::journal::{Held, Map, Session};
use crate::value::{EntryValue, put_message};

/// A value and the blob it refers to; none for a key that goes.
pub(crate) type NewKey = Option<(Bytes, Option<BlobId>)>;

#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) sessions: Map<Arc<SessionKey>, Option<Session>>,
    pub(crate) groups: Map<GroupName, Option<u64>>,
    pub(crate) held: Map<u64, Held>,
    pub(crate) keys: BTreeMap<Bytes, NewKey>,
    /// The blobs and entries, behind each other: one piece of memory for all.
    pub(crate) bytes: Vec<u8>,
    /// Where in it the blobs are.
    pub(crate) blobs: Vec<(BlobId, Range<usize>)>,
    /// Where the entries are that are put into queues, and what they refer to.
    pub(crate) appended: Vec<(QueueId, Range<usize>, Option<BlobId>)>,
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

    pub(crate) fn put_blob(&mut self, id: u64, message: &Message) {
        let start = self.bytes.len();
        put_message(&mut self.bytes, message, None, true);
        self.blobs.push((BlobId(id), start..self.bytes.len()));
    }

    pub(crate) fn append(&mut self, queue: u64, value: &EntryValue, blob: Option<BlobId>) {
        let start = self.bytes.len();
        value.put(&mut self.bytes);
        let value = start..self.bytes.len();
        self.appended.push((QueueId(queue), value, blob));
    }

    /// The operations, in an order in which every blob is there when something refers to it.
    pub(crate) fn take_batch(&mut self) -> Batch {
        let blobs = std::mem::take(&mut self.blobs);
        let appended = std::mem::take(&mut self.appended);
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let others = self.keys.len() + self.advanced.len() + self.dropped.len();
        let mut batch = Batch::with_capacity(2 * blobs.len() + appended.len() + others);
        for (id, at) in &blobs {
            batch.put_blob(*id, bytes.slice(at.clone()));
        }
        for (queue, at, blob) in appended {
            batch.append(queue, bytes.slice(at), blob);
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
        for (id, _) in blobs {
            batch.release_blob(id);
        }
        batch
    }
}
