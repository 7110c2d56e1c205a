//! Disks that fail.

use avocet_store::{LogStore, OpenError, QueueId, SimVfs, Store, SyncError};

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
