//! Exports of running stores, and stores made of them.

use std::io;

use avocet_store::{
    Batch, ExportError, ImportError, LogStore, MemoryStore, OpenError, QueueId, SimVfs, Snapshot,
    Store, Vfs,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::support::{batch, contents, message, open, small};

fn import(export: &[u8]) -> Result<LogStore<SimVfs>, ImportError> {
    LogStore::import(SimVfs::new(), small(), export)
}

/// A store with something of everything, and what it exports.
fn export() -> (LogStore<SimVfs>, Vec<u8>) {
    let mut store = open(&SimVfs::new());
    for id in 0..6 {
        store
            .commit(message(id, &[0, id % 3], &[id as u8; 100]))
            .unwrap();
    }
    let mut batch = Batch::new();
    batch.advance(QueueId(0), 3);
    batch.put_key(Bytes::from_static(b"k"), Bytes::from_static(b"value"), None);
    store.commit(batch).unwrap();
    let mut export = Vec::new();
    let exported = store.snapshot().unwrap().export(&mut export).unwrap();
    assert_eq!((exported.queues, exported.keys), (3, 1));
    (store, export)
}

#[test]
fn an_import_holds_what_the_store_held() {
    let (store, export) = export();
    let mut copy = import(&export).unwrap();
    assert_eq!(contents(&copy), contents(&store));
    assert_eq!(copy.durable(), store.durable());
    // It goes on like any other, and is opened like any other.
    copy.commit(message(7, &[0], b"more")).unwrap();
    let position = copy.sync().unwrap();
    assert_eq!(position.0, store.durable().0 + 1);
    let (vfs, before) = (copy.vfs().clone(), contents(&copy));
    copy.close().unwrap();
    assert_eq!(contents(&open(&vfs)), before);
    let mut again = Vec::new();
    open(&vfs).snapshot().unwrap().export(&mut again).unwrap();
    assert_eq!(contents(&import(&again).unwrap()), before);
}

#[test]
fn an_empty_store_is_exported_with_its_position() {
    let mut store = open(&SimVfs::new());
    store.commit(Batch::new()).unwrap();
    let mut export = Vec::new();
    store.snapshot().unwrap().export(&mut export).unwrap();
    assert_eq!(import(&export).unwrap().durable(), store.durable());
}

#[test]
fn every_damaged_or_cut_export_is_refused_and_leaves_nothing() {
    let (_, export) = export();
    for at in 0..export.len() {
        let mut damaged = export.clone();
        damaged[at] ^= 4;
        for stream in [&damaged[..], &export[..at]] {
            let vfs = SimVfs::new();
            let result = LogStore::import(vfs.clone(), small(), stream);
            assert!(result.is_err(), "{at}");
            assert_eq!(vfs.list().unwrap(), [""; 0], "{at}");
        }
    }
}

/// A position that leaves no room to count on is nothing a store wrote.
#[test]
fn an_export_whose_position_cannot_be_counted_on_from_is_refused() {
    let (_, mut export) = export();
    export[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    let crc = crc32c::crc32c(&export[..20]);
    export[20..24].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(import(&export).err(), Some(ImportError::Corrupt(0)));
}

#[test]
fn an_import_into_a_log_is_refused() {
    let (store, export) = export();
    let vfs = store.vfs().clone();
    let import = |vfs: &SimVfs| LogStore::import(vfs.clone(), small(), &export[..]).err();
    assert_eq!(import(&vfs), Some(ImportError::Open(OpenError::Locked)));
    drop(store);
    assert_eq!(import(&vfs), Some(ImportError::NotEmpty));
}

/// Nobody takes the half of an import for a store.
#[test]
fn every_power_cut_of_an_import_leaves_all_or_a_refusal() {
    let (store, export) = export();
    let expected = contents(&store);
    for steps in 0.. {
        let vfs = SimVfs::new();
        vfs.end_power_after(steps);
        let done = LogStore::import(vfs.clone(), small(), &export[..]).is_ok();
        for fate in 0..3 {
            match LogStore::open(vfs.cut(|options| fate % options), small()) {
                Ok(store) => {
                    let empty = store.durable().0 == 0;
                    assert!(empty && !done || contents(&store) == expected, "{steps}");
                }
                Err(error) => assert_eq!((error, done), (OpenError::Unfinished, false)),
            }
        }
        if done && vfs.steps() < steps {
            return;
        }
    }
}

#[test]
fn a_failing_writer_ends_the_export() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut store, _) = export();
    let error = store.snapshot().unwrap().export(Full).err();
    assert_eq!(error, Some(ExportError::Write(io::ErrorKind::StorageFull)));
}

#[test]
fn a_snapshot_may_leave_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<Snapshot>();
}

proptest! {
    /// What is committed, given back and removed after the snapshot is not in it.
    #[test]
    fn an_export_is_what_the_store_held_at_one_position(
        before in proptest::collection::vec((batch(), 0usize..400), 1..20),
        after in proptest::collection::vec((batch(), 0usize..400), 1..20),
    ) {
        let mut store = open(&SimVfs::new());
        let mut oracle = MemoryStore::new();
        for (batch, budget) in before {
            let _ = store.commit(batch.clone());
            let _ = oracle.commit(batch);
            store.maintain(budget).unwrap();
        }
        let snapshot = store.snapshot().unwrap();
        prop_assert_eq!(snapshot.position(), store.durable());
        for (batch, budget) in after {
            let _ = store.commit(batch);
            store.sync().unwrap();
            store.maintain(budget).unwrap();
        }
        let mut export = Vec::new();
        snapshot.export(&mut export).unwrap();
        prop_assert_eq!(contents(&import(&export).unwrap()), contents(&oracle));
    }
}

/// Writes and takes away so much that segments come and go, and says whether the file of one was spare.
fn churn(store: &mut LogStore<SimVfs>, ids: std::ops::Range<u64>) -> bool {
    let mut spare = false;
    for id in ids {
        store
            .commit(message(100 + id, &[0], &[id as u8; 150]))
            .unwrap();
        store.sync().unwrap();
        let mut batch = Batch::new();
        batch.advance(QueueId(0), id + 1);
        store.commit(batch).unwrap();
        store.sync().unwrap();
        store.maintain(10_000).unwrap();
        spare |= store.vfs().list().unwrap().contains(&"spare".to_owned());
    }
    spare
}

#[test]
fn files_are_used_again_unless_an_export_reads_them() {
    let mut store = open(&SimVfs::new());
    store.commit(message(1, &[1], b"stays")).unwrap();
    assert!(churn(&mut store, 0..20));
    let used = store.vfs().used_bytes();
    assert!(churn(&mut store, 20..40));
    assert!(store.vfs().used_bytes() <= used + 1_000, "{used}");

    let before = contents(&store);
    let snapshot = store.snapshot().unwrap();
    churn(&mut store, 40..60);
    let mut export = Vec::new();
    snapshot.export(&mut export).unwrap();
    assert_eq!(contents(&import(&export).unwrap()), before);
    assert!(churn(&mut store, 60..80));
    let after = contents(&store);
    store.sync().unwrap();
    assert_eq!(contents(&open(&store.vfs().cut(|_| 0))), after);
}
