//! Space is given back.

use avocet_store::{Batch, BlobId, LogOptions, LogStore, QueueId, SimVfs, Store, Vfs};

use crate::support::{EVERYTHING, message, open};

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

/// What a batch takes away that is large goes in slices, through everything that may come between.
#[test]
fn a_long_queue_is_forgotten_in_slices() {
    for drops in [false, true] {
        let vfs = SimVfs::new();
        let mut store = LogStore::open(vfs.clone(), options()).unwrap();
        for id in 0..6_000 {
            let queues = if id % 10 == 0 { &[0, 1][..] } else { &[0] };
            store.commit(message(id, queues, &[3; 20])).unwrap();
            if id % 64 == 0 {
                store.sync().unwrap();
            }
        }
        let mut batch = Batch::new();
        if drops {
            batch.drop_queue(QueueId(0));
        } else {
            batch.advance(QueueId(0), 5_990);
        }
        let mut refused = batch.clone();
        refused.advance(QueueId(0), 7_000);
        store.commit(refused).unwrap_err();
        assert_eq!(store.blobs(), 6_000);
        assert_eq!(store.queue(QueueId(0)), Some(0..6_000));

        let before = store.blobs();
        store.commit(batch).unwrap();
        assert!(before - store.blobs() < 1_100);
        let kept = if drops { None } else { Some(5_990..6_000) };
        assert_eq!(store.queue(QueueId(0)), kept);
        store.commit(message(7_000, &[0], b"more")).unwrap();
        vfs.fail_syncs(1);
        store.sync().unwrap_err();
        let mut slices = 0;
        loop {
            let before = store.blobs();
            let more = store.maintain(2_048).unwrap();
            assert!(before - store.blobs() <= 256);
            store.sync().unwrap();
            slices += 1;
            if !more {
                break;
            }
        }
        assert!(slices > 20, "{slices}");
        let left = if drops { 601 } else { 600 + 9 + 1 };
        assert_eq!(store.blobs(), left);
        drop(store);
        let store = LogStore::open(vfs, options()).unwrap();
        assert_eq!(store.blobs(), left);
        let kept = if drops { 0..1 } else { 5_990..6_001 };
        assert_eq!(store.queue(QueueId(0)), Some(kept));
    }
}

/// Until all is forgotten nothing is lost by ending the program.
#[test]
fn a_long_queue_that_was_dropped_is_gone_after_opening() {
    let vfs = SimVfs::new();
    let mut store = LogStore::open(vfs.clone(), options()).unwrap();
    for id in 0..3_000 {
        store.commit(message(id, &[0], &[3; 20])).unwrap();
    }
    let mut batch = Batch::new();
    batch.drop_queue(QueueId(0));
    store.commit(batch).unwrap();
    store.maintain(1_000).unwrap();
    store.sync().unwrap();
    drop(store);
    let mut store = LogStore::open(vfs, options()).unwrap();
    assert_eq!((store.blobs(), store.queue(QueueId(0))), (0, None));
    maintain(&mut store);
    assert_eq!(store.blobs(), 0);
}

/// Messages come and go, one of a hundred stays for ever: footers, records and copies together write
/// less than twice what is stored, and no call writes more than its share.
#[test]
fn little_more_is_written_than_what_is_stored() {
    const PAYLOAD: u64 = 256;
    const MESSAGES: u64 = 20_000;
    const BUDGET: usize = 4 << 10;
    let vfs = SimVfs::new();
    let mut store = LogStore::open(vfs.clone(), options()).unwrap();
    let mut ends = [0; 8];
    for id in 0..MESSAGES {
        let queue = if id % 100 == 0 { 7 } else { id % 7 };
        store
            .commit(message(id, &[queue], &[1; PAYLOAD as usize]))
            .unwrap();
        ends[queue as usize] += 1;
        if queue < 7 {
            store.commit(advance(queue, ends[queue as usize])).unwrap();
        }
        if id % 16 == 0 {
            let (before, waits) = (vfs.written_bytes(), store.buffered_bytes() as u64);
            store.sync().unwrap();
            // The very first header is written for itself too.
            assert!(vfs.written_bytes() - before <= waits + 48);
            let (before, waits) = (vfs.written_bytes(), store.buffered_bytes());
            store.maintain(BUDGET).unwrap();
            let copied = store.buffered_bytes() - waits;
            assert!(vfs.written_bytes() - before <= BUDGET as u64);
            assert!(copied <= BUDGET + 1_024, "{copied}");
        }
    }
    maintain(&mut store);
    assert_eq!(store.blobs(), MESSAGES / 100);
    assert!(store.disk_bytes() < 250_000, "{}", store.disk_bytes());
    let factor = vfs.written_bytes() as f64 / (MESSAGES * PAYLOAD) as f64;
    assert!(factor < 1.7, "{factor}");
}

/// References are counted through sealing, copying and opening, however many there are.
#[test]
fn a_blob_lives_until_the_last_of_many_references() {
    const QUEUES: u64 = 400;
    let vfs = SimVfs::new();
    let mut store = LogStore::open(vfs.clone(), options()).unwrap();
    let queues: Vec<_> = (0..QUEUES).collect();
    store.commit(message(3, &queues, b"for all")).unwrap();
    for (id, queue) in (10..).zip(0..QUEUES) {
        assert!(store.blob(BlobId(3)).unwrap().is_some());
        // Segments come and go, and the message is copied.
        store.commit(message(id, &[QUEUES], &[1; 1_000])).unwrap();
        store.commit(advance(QUEUES, queue + 1)).unwrap();
        store.commit(advance(queue, 1)).unwrap();
        if queue % 50 == 7 {
            store.sync().unwrap();
            drop(store);
            store = LogStore::open(vfs.clone(), options()).unwrap();
        }
        store.sync().unwrap();
        store.maintain(10_000).unwrap();
    }
    assert_eq!(store.blob(BlobId(3)), Ok(None));
    assert_eq!(store.blobs(), 0);
}

/// Where a queue begins is said again before the segment goes that said it, and again, even if the
/// program is killed while both are there.
#[test]
fn where_an_empty_queue_begins_is_copied_from_segment_to_segment() {
    for budget in 1..200 {
        let vfs = SimVfs::new();
        let mut store = open(&vfs);
        let mut batch = Batch::new();
        batch.append(QueueId(0), bytes::Bytes::new(), None);
        batch.advance(QueueId(0), 1);
        store.commit(batch).unwrap();
        store.close().unwrap();
        for round in 0..6 {
            let mut store = open(&vfs);
            assert_eq!(store.queue(QueueId(0)), Some(1..1), "{budget} {round}");
            store.maintain(budget).unwrap();
            store.write().unwrap();
            if round % 2 == 1 {
                store.close().unwrap();
            }
        }
    }
}

/// Each opening begins a segment; short ones become one, a bounded piece of work at a time.
#[test]
fn segments_of_many_short_runs_become_few() {
    let vfs = SimVfs::new();
    let mut options = options();
    options.segment_bytes = 1 << 20;
    options.garbage_bytes = 1 << 30;
    for run in 0..100 {
        let mut store = LogStore::open(vfs.clone(), options).unwrap();
        assert!(vfs.list().unwrap().len() < 20);
        let mut batch = message(run, &[run % 3], &[1; 500]);
        batch.put_key(format!("key{}", run % 7).into(), vec![2; 300].into(), None);
        store.commit(batch).unwrap();
        let before = vfs.written_bytes();
        while store.maintain(4_096).unwrap() {
            store.sync().unwrap();
        }
        store.sync().unwrap();
        // What lives in one of them, and no more, moves.
        assert!(vfs.written_bytes() - before < 100_000, "{run}");
        if run % 2 == 0 {
            store.close().unwrap();
        }
    }
    let store = LogStore::open(vfs, options).unwrap();
    assert_eq!(store.blobs(), 100);
    assert_eq!(store.scan(b"key", None, EVERYTHING).unwrap().len(), 7);
    for queue in 0..3 {
        let entries = store.read_queue(QueueId(queue), 0, EVERYTHING).unwrap();
        let ids: Vec<_> = entries.iter().map(|it| it.blob.unwrap().0).collect();
        let expected: Vec<_> = (0..100).filter(|id| id % 3 == queue).collect();
        assert_eq!(ids, expected);
    }
}
