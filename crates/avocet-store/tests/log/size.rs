//! How much memory what is on disk takes.

use avocet_store::{Batch, BlobId, LogOptions, LogStore, QueueId, SimVfs, Store};
use bytes::Bytes;

const ENTRIES: u64 = 100_000;

/// Puts `ENTRIES` entries into so many queues, each message into all of them, and returns how many
/// bytes of memory an entry takes.
fn bytes_per_entry(queues: u64) -> f64 {
    let mut options = LogOptions::default();
    options.segment_bytes = 1 << 20;
    let mut store = LogStore::open(SimVfs::new(), options).unwrap();
    for id in 0..ENTRIES / queues {
        let mut batch = Batch::new();
        // Other messages take ids too, and are not kept.
        let blob = BlobId(7 << 48 | (id * 3));
        batch.put_blob(blob, Bytes::from_static(&[7; 40]));
        for queue in (0..queues).map(QueueId) {
            batch.append(queue, Bytes::new(), Some(blob));
        }
        batch.release_blob(blob);
        store.commit(batch).unwrap();
        if id % 64 == 0 {
            store.sync().unwrap();
            store.maintain(1 << 20).unwrap();
        }
    }
    let vfs = store.vfs().clone();
    store.close().unwrap();
    let store = LogStore::open(vfs, options).unwrap();
    assert_eq!(store.queue(QueueId(0)), Some(0..ENTRIES / queues));
    store.index_bytes() as f64 / ENTRIES as f64
}

#[test]
fn entries_of_one_queue_take_few_bytes() {
    let bytes = bytes_per_entry(1);
    assert!(bytes < 4.0, "{bytes}");
}

#[test]
fn entries_of_many_queues_that_share_messages_take_few_bytes() {
    let bytes = bytes_per_entry(100);
    assert!(bytes < 2.0, "{bytes}");
}
