//! Disks that fail.

use avocet_store::{
    Batch, BlobId, CommitError, LogStore, OpenError, QueueId, ReadError, SimVfs, Store, SyncError,
};
use bytes::Bytes;

use crate::support::{EVERYTHING, contents, message, open, small};

#[test]
fn a_failed_sync_reports_nothing_until_another_file_has_it() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"safe")).unwrap();
    let safe = store.sync().unwrap();
    store.commit(message(1, &[0], b"at risk")).unwrap();
    vfs.fail_syncs(3);
    for _ in 0..3 {
        assert!(matches!(store.sync(), Err(SyncError::Sync(_))));
        assert_eq!(store.durable(), safe);
        assert_eq!(
            store.read_queue(QueueId(0), 0, EVERYTHING).unwrap().len(),
            2
        );
    }
    let both = store.sync().unwrap();
    assert!(both > safe);
    let before = contents(&store);
    drop(store);
    // The disk keeps nothing of what it failed to sync.
    let store = open(&vfs.cut(|options| usize::from(options > 1)));
    assert_eq!(store.durable(), both);
    assert_eq!(contents(&store), before);
}

#[test]
fn a_full_disk_heals_when_space_returns() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"safe")).unwrap();
    let safe = store.sync().unwrap();
    vfs.set_capacity(Some(vfs.used_bytes()));
    for id in 1..8 {
        // Too much for the room that the segment has.
        let payload = [b'x'; 400];
        store.commit(message(id, &[0, 1], &payload)).unwrap();
        assert_eq!(store.sync(), Err(SyncError::Full));
        assert_eq!(store.durable(), safe);
    }
    assert!(store.buffered_bytes() > 2_800);
    vfs.set_capacity(None);
    let all = store.sync().unwrap();
    let before = contents(&store);
    drop(store);
    let store = open(&vfs.cut(|_| 1));
    assert_eq!(store.durable(), all);
    assert_eq!(contents(&store), before);
}

#[test]
fn a_disk_that_is_full_from_the_first_file_on_heals_too() {
    let vfs = SimVfs::new();
    vfs.set_capacity(Some(10));
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"wait")).unwrap();
    assert_eq!(store.sync(), Err(SyncError::Full));
    assert_eq!(store.sync(), Err(SyncError::Full));
    vfs.set_capacity(None);
    let position = store.sync().unwrap();
    drop(store);
    assert_eq!(open(&vfs).durable(), position);
}

#[test]
fn a_write_that_fails_for_a_while_loses_nothing() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    for id in 0..8 {
        store.commit(message(id, &[0], &[b'x'; 90])).unwrap();
        vfs.fail_writes(2);
        assert_eq!(store.sync(), Err(SyncError::Full));
        assert_eq!(store.sync(), Err(SyncError::Full));
        store.sync().unwrap();
    }
    let before = contents(&store);
    drop(store);
    assert_eq!(contents(&open(&vfs.cut(|_| 1))), before);
}

#[test]
fn refuses_the_second_opener() {
    let vfs = SimVfs::new();
    let store = open(&vfs);
    let second = LogStore::open(vfs.clone(), small());
    assert_eq!(second.err(), Some(OpenError::Locked));
    drop(store);
    open(&vfs);
}

/// Whatever call it is that fails once: what is asked again succeeds, and nothing is lost.
#[test]
fn every_single_failure_heals() {
    let commit = |store: &mut LogStore<SimVfs>, batch: Batch| {
        store.commit(batch).unwrap();
        let before = store.durable();
        if let Ok(position) = store.sync() {
            assert!(position > before);
        } else {
            assert_eq!(store.durable(), before);
        }
        store.maintain(200).unwrap();
    };
    for step in 0.. {
        let vfs = SimVfs::new();
        let mut store = open(&vfs);
        vfs.fail_step(step);
        for id in 0..6 {
            commit(&mut store, message(id, &[0, id % 2], &[b'x'; 150]));
            if id > 1 {
                let mut batch = Batch::new();
                batch.advance(QueueId(0), id - 1);
                commit(&mut store, batch);
            }
        }
        // The one failure may have been left for the end.
        let position = store.sync().or_else(|_| store.sync()).unwrap();
        let finished = vfs.steps() <= step;
        let before = contents(&store);
        for fate in 0..2 {
            let store = open(&vfs.cut(|options| fate.min(options - 1)));
            assert_eq!(store.durable(), position, "step {step}, fate {fate}");
            assert_eq!(contents(&store), before, "step {step}, fate {fate}");
        }
        if finished {
            return;
        }
    }
}

#[test]
fn a_failing_read_fails_that_call_alone() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    for id in 0..4 {
        store.commit(message(id, &[0], &[b'x'; 20_000])).unwrap();
        store.sync().unwrap();
    }
    let before = contents(&store);
    let mut advance = Batch::new();
    advance.put_key(Bytes::from_static(b"k"), Bytes::new(), None);
    advance.advance(QueueId(0), 1);

    // Messages so long and many that no more than one is kept of what was read.
    let closed = store.close().unwrap();
    let store = open(&vfs);
    vfs.fail_reads(1);
    let failed = ReadError::Io(std::io::ErrorKind::Other);
    assert_eq!(store.blob(BlobId(0)), Err(failed));
    assert!(store.blob(BlobId(0)).unwrap().is_some());
    vfs.fail_reads(1);
    assert_eq!(
        store.read_queue(QueueId(0), 0, EVERYTHING).err(),
        Some(failed)
    );
    drop(store);
    let mut store = open(&vfs);
    vfs.fail_reads(1);
    assert_eq!(
        store.commit(advance.clone()),
        Err(CommitError::Read(failed))
    );
    assert_eq!(contents(&store), before);
    assert_eq!(store.commit(advance).unwrap().0, closed.0 + 1);
}

#[test]
fn what_is_written_outlives_the_program_but_not_the_power() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"synced")).unwrap();
    let synced = store.sync().unwrap();
    store.commit(message(1, &[0], b"written")).unwrap();
    let written = store.write().unwrap();
    assert_eq!((store.written(), store.durable()), (written, synced));
    assert!(written > synced);
    drop(store);
    assert_eq!(
        open(&vfs.cut(|options| usize::from(options > 1))).durable(),
        synced
    );
    assert_eq!(open(&vfs).durable(), written);
}

#[test]
fn what_is_written_and_whose_sync_fails_is_written_again() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"synced")).unwrap();
    let synced = store.sync().unwrap();
    for id in 1..4 {
        store.commit(message(id, &[0], b"written")).unwrap();
        store.write().unwrap();
    }
    vfs.fail_syncs(1);
    assert!(matches!(store.sync(), Err(SyncError::Sync(_))));
    assert_eq!((store.written(), store.durable()), (synced, synced));
    let before = contents(&store);
    let all = store.write().unwrap();
    assert_eq!(store.durable(), synced);
    assert_eq!(store.sync(), Ok(all));
    drop(store);
    let store = open(&vfs.cut(|options| usize::from(options > 1)));
    assert_eq!(contents(&store), before);
}
