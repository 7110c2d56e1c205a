//! Space is given back.

use avocet_store::{Batch, BlobId, LogOptions, LogStore, QueueId, SimVfs, Store};

use crate::support::{EVERYTHING, message};

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 16 << 10;
    options.garbage_bytes = 32 << 10;
    options
}

fn maintain(store: &mut LogStore<SimVfs>) {
    while store.maintain(4096).unwrap() {
        store.sync().unwrap();
    }
    store.sync().unwrap();
}

fn advance(queue: u64, to: u64) -> Batch {
    let mut batch = Batch::new();
    batch.advance(QueueId(queue), to);
    batch
}

#[test]
fn space_is_given_back_while_one_queue_sleeps() {
    let vfs = SimVfs::new();
    let mut store = LogStore::open(vfs.clone(), options()).unwrap();
    for id in 0..100 {
        store.commit(message(id, &[7], &[1; 200])).unwrap();
    }
    store.sync().unwrap();
    for id in 0..5_000 {
        store
            .commit(message(1_000 + id, &[0, 1], &[2; 200]))
            .unwrap();
        store.commit(advance(0, id + 1)).unwrap();
        store.commit(advance(1, id + 1)).unwrap();
        if id % 32 == 0 {
            store.sync().unwrap();
            store.maintain(64 << 10).unwrap();
        }
    }
    maintain(&mut store);
    assert!(store.disk_bytes() < 200_000, "{}", store.disk_bytes());
    assert_eq!(store.blobs(), 100);

    store.close().unwrap();
    let store = LogStore::open(vfs.clone(), options()).unwrap();
    assert_eq!(store.blobs(), 100);
    assert_eq!(store.queue(QueueId(0)), Some(5_000..5_000));
    let entries = store.read_queue(QueueId(7), 0, EVERYTHING).unwrap();
    assert_eq!(entries.len(), 100);
    for (id, entry) in (0..).zip(entries) {
        assert_eq!(entry.blob, Some(BlobId(id)));
        assert_eq!(&store.blob(BlobId(id)).unwrap().unwrap()[..], &[1; 200]);
    }
    // Beside the log there is nothing.
    assert!(vfs.used_bytes() < 200_000);
}

#[test]
fn nothing_is_left_of_what_is_drained_but_the_ends_of_queues() {
    let vfs = SimVfs::new();
    let mut store = LogStore::open(vfs.clone(), options()).unwrap();
    for id in 0..1_000 {
        store.commit(message(id, &[id % 10], &[3; 300])).unwrap();
        if id % 50 == 0 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    assert!(store.disk_bytes() > 300_000);
    for queue in 0..10 {
        store.commit(advance(queue, 100)).unwrap();
    }
    store.sync().unwrap();
    maintain(&mut store);
    assert_eq!(store.blobs(), 0);
    assert!(store.disk_bytes() < 100_000, "{}", store.disk_bytes());
    drop(store);
    let store = LogStore::open(vfs, options()).unwrap();
    for queue in 0..10 {
        assert_eq!(store.queue(QueueId(queue)), Some(100..100));
    }
}

#[test]
fn maintenance_works_in_slices() {
    let mut store = LogStore::open(SimVfs::new(), options()).unwrap();
    for id in 0..1_000 {
        let queue = u64::from(id % 10 == 0);
        store.commit(message(id, &[queue], &[3; 300])).unwrap();
        store.sync().unwrap();
    }
    store.commit(advance(0, 900)).unwrap();
    store.sync().unwrap();
    let mut slices = 0;
    loop {
        let before = store.buffered_bytes();
        let more = store.maintain(1_000).unwrap();
        assert!(store.buffered_bytes() - before < 2_000);
        store.sync().unwrap();
        slices += 1;
        if !more {
            break;
        }
    }
    assert!(slices > 10, "{slices}");
    assert_eq!(store.blobs(), 100);
    assert_eq!(
        store.read_queue(QueueId(1), 0, EVERYTHING).unwrap().len(),
        100
    );
}
