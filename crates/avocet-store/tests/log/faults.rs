//! Disks that fail.

use avocet_store::{
    Batch, BlobId, CommitError, LogStore, OpenError, QueueId, ReadError, SimVfs, Store, SyncError,
    Vfs,
};
use bytes::Bytes;

use crate::support::{EVERYTHING, contents, message, open, small, states};

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

/// Writes and syncs, some of which fail, until the program ends: the call after `steps` others fails, a
/// write after a part of it, and so do all that follow. Returns the last position reported as written.
fn written_until(vfs: &SimVfs, first_synced: bool, steps: u64) -> u64 {
    let mut reported = 0;
    let mut store = open(vfs);
    vfs.fail_step(steps);
    vfs.end_power_after(steps + 1);
    let mut id = 0;
    let mut write = |store: &mut LogStore<SimVfs>| {
        store.commit(message(id, &[0], b"written")).unwrap();
        id += 1;
        if let Ok(position) = store.write() {
            reported = reported.max(position.0);
        }
    };
    if first_synced {
        write(&mut store);
        let _ = store.sync();
    }
    for _ in 0..3 {
        write(&mut store);
        vfs.fail_syncs(2);
        assert!(store.sync().is_err());
        assert!(store.sync().is_err());
        write(&mut store);
    }
    let _ = store.sync();
    write(&mut store);
    drop(store);
    vfs.fail_syncs(0);
    vfs.fail_step(u64::MAX);
    vfs.end_power_after(u64::MAX);
    reported
}

#[test]
fn what_is_written_outlives_the_program_while_syncs_fail() {
    for first_synced in [false, true] {
        for steps in 0.. {
            let vfs = SimVfs::new();
            let written = written_until(&vfs, first_synced, steps);
            let finished = vfs.steps() <= steps;
            let batches: Vec<_> = (0..8).map(|id| message(id, &[0], b"written")).collect();
            let store = open(&vfs);
            let found = store.durable().0;
            assert!(found >= written, "{found} of {written} at step {steps}");
            assert_eq!(contents(&store), states(&batches)[found as usize]);
            if finished {
                break;
            }
        }
    }
}

/// What a failed sync has lost is still there for the next program, whose own sync covers none of it.
#[test]
fn what_is_found_after_a_failed_sync_is_kept_when_power_is_lost() {
    for first_synced in [false, true] {
        for steps in 0.. {
            let vfs = SimVfs::new();
            written_until(&vfs, first_synced, steps);
            let finished = vfs.steps() <= steps;
            let mut store = open(&vfs);
            let found = contents(&store);
            for fate in [0, 1, usize::MAX] {
                let store = open(&vfs.cut(|options| fate.min(options - 1)));
                assert_eq!(contents(&store), found, "step {steps}, fate {fate}");
            }
            // It goes on from there.
            store.commit(message(9, &[1], b"later")).unwrap();
            store.sync().unwrap();
            let later = contents(&store);
            drop(store);
            for fate in [0, 1, usize::MAX] {
                let cut = vfs.cut(|options| fate.min(options - 1));
                assert_eq!(contents(&open(&cut)), later, "step {steps}, fate {fate}");
                assert_eq!(contents(&open(&cut)), later, "step {steps}, fate {fate}");
            }
            if finished {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_is_opened_after_a_kill() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"synced")).unwrap();
    store.sync().unwrap();
    store.commit(message(1, &[0], b"written")).unwrap();
    let written = store.write().unwrap();
    drop(store);
    vfs.set_capacity(Some(vfs.used_bytes()));
    assert_eq!(open(&vfs).durable(), written);
    let cut = vfs.cut(|options| usize::from(options > 1));
    assert_eq!(open(&cut).durable(), written);
}

#[test]
fn an_opening_that_fails_leaves_no_files_behind() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    store.commit(message(0, &[0], b"synced")).unwrap();
    let synced = store.sync().unwrap();
    drop(store);
    let files = vfs.list().unwrap();
    for _ in 0..3 {
        vfs.fail_syncs(1);
        let error = LogStore::open(vfs.clone(), small()).err();
        assert!(matches!(error, Some(OpenError::Io { .. })), "{error:?}");
        assert_eq!(vfs.list().unwrap(), files);
    }
    assert_eq!(open(&vfs).durable(), synced);
}
