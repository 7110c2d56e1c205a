//! Random histories against the store in memory.

use avocet_store::{
    Batch, CommitError, LogStore, MemoryStore, Position, QueueId, SimVfs, Store, SyncError,
};
use proptest::prelude::*;

use crate::support::{EVERYTHING, Flying, batch, contents, message, open, small};

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Write,
    Sync,
    FailSync,
    BeginSync,
    /// One of those that others do ends, well or not.
    EndSync(usize, bool),
    FailWrite,
    FailRead,
    Maintain(usize),
    Close,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => batch().prop_map(Step::Commit),
        2 => Just(Step::Write),
        4 => Just(Step::Sync),
        1 => Just(Step::FailSync),
        4 => Just(Step::BeginSync),
        4 => (any::<usize>(), proptest::bool::weighted(0.8))
            .prop_map(|(which, well)| Step::EndSync(which, well)),
        1 => Just(Step::FailWrite),
        1 => Just(Step::FailRead),
        3 => (1usize..400).prop_map(Step::Maintain),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn says_what_the_memory_store_says(steps in proptest::collection::vec(step(), 1..80)) {
        let vfs = SimVfs::new();
        let mut store = open(&vfs);
        let mut oracle = MemoryStore::new();
        let mut flying = Flying::default();
        for step in steps {
            match step {
                Step::Commit(batch) => {
                    let mut result = store.commit(batch.clone());
                    if let Err(CommitError::Read(_)) = result {
                        vfs.fail_reads(0);
                        prop_assert_eq!(contents(&store), contents(&oracle));
                        result = store.commit(batch.clone());
                    }
                    vfs.fail_reads(0);
                    let expected = oracle.commit(batch);
                    prop_assert_eq!(result.is_ok(), expected.is_ok());
                    prop_assert_eq!(result.err(), expected.err());
                }
                Step::Sync => {
                    flying.end_all(&mut store);
                    let position = store.sync().unwrap();
                    prop_assert_eq!(position, store.durable());
                    prop_assert_eq!(store.buffered_bytes(), 0);
                }
                Step::Write => {
                    let position = store.write().unwrap();
                    prop_assert_eq!(position, store.written());
                    prop_assert_eq!(position, oracle.written());
                }
                Step::FailRead => {
                    vfs.fail_reads(1);
                    continue;
                }
                Step::FailSync => {
                    flying.end_all(&mut store);
                    let before = store.durable();
                    vfs.fail_syncs(1);
                    let failed = store.buffered_bytes() > 0;
                    prop_assert_eq!(store.sync().is_err(), failed);
                    vfs.fail_syncs(0);
                    prop_assert_eq!(store.durable(), before);
                }
                Step::BeginSync => {
                    let begun = flying.begin(&mut store);
                    prop_assert!(matches!(begun, Ok(()) | Err(SyncError::Begun)));
                    prop_assert_eq!(store.written(), oracle.written());
                }
                Step::EndSync(which, well) => {
                    let before = store.durable();
                    vfs.fail_syncs((!well).into());
                    let ended = flying.end(&mut store, which);
                    vfs.fail_syncs(0);
                    prop_assert!(store.durable() >= before);
                    if let Some(Ok(position)) = ended {
                        prop_assert_eq!(position, store.durable());
                    }
                }
                Step::FailWrite => {
                    let before = store.durable();
                    vfs.fail_writes(1);
                    let failed = store.written() < oracle.written();
                    prop_assert!(store.write().is_err() || !failed);
                    vfs.fail_writes(0);
                    prop_assert_eq!(store.durable(), before);
                }
                Step::Maintain(budget) => {
                    let _ = store.maintain(budget);
                    vfs.fail_reads(0);
                }
                Step::Close => {
                    vfs.fail_reads(0);
                    flying.end_all(&mut store);
                    let position = store.close().unwrap();
                    flying = Flying::default();
                    store = open(&vfs);
                    prop_assert_eq!(store.durable(), position);
                }
                Step::Kill => {
                    vfs.fail_reads(0);
                    let position = store.write().unwrap();
                    drop(store);
                    flying = Flying::default();
                    store = open(&vfs);
                    prop_assert_eq!(store.durable(), position);
                }
            }
            vfs.fail_reads(0);
            prop_assert_eq!(contents(&store), contents(&oracle));
            prop_assert_eq!(store.blobs(), oracle.blobs() as u64);
        }
        prop_assert!(store.durable() <= Position(80));
    }
}

/// What happens to queues whose messages have names of their own.
#[derive(Clone, Debug)]
enum Traffic {
    Message(Vec<u64>),
    Advance(u64, u64),
    Drop(u64),
    Sync,
    FailSync,
    Maintain(usize),
    Kill,
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let queue = || 0u64..3;
    prop_oneof![
        8 => proptest::collection::vec(queue(), 0..4).prop_map(Traffic::Message),
        2 => (queue(), 0u64..20).prop_map(|(queue, count)| Traffic::Advance(queue, count)),
        1 => queue().prop_map(Traffic::Drop),
        2 => Just(Traffic::Sync),
        1 => Just(Traffic::FailSync),
        3 => (1usize..300).prop_map(Traffic::Maintain),
        1 => Just(Traffic::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Removing entries one after the other comes to the same as at once.
    #[test]
    fn what_is_removed_bit_by_bit_is_removed(
        steps in proptest::collection::vec(traffic(), 1..80),
        cleans in any::<bool>(),
    ) {
        let mut options = small();
        options.removed_at_once = 2;
        options.garbage_bytes = if cleans { 0 } else { u64::MAX };
        let vfs = SimVfs::new();
        let open = || LogStore::open(vfs.clone(), options).unwrap();
        let mut store = open();
        let mut oracle = MemoryStore::new();
        for (id, step) in (0..).zip(steps) {
            let mut batch = Batch::new();
            match step {
                Traffic::Message(queues) => batch = message(id, &queues, b"a message"),
                Traffic::Advance(queue, count) => {
                    let queue = QueueId(queue);
                    let first = oracle.queue(queue).map_or(0, |sequences| sequences.start);
                    batch.advance(queue, first + count);
                }
                Traffic::Drop(queue) => {
                    batch.drop_queue(QueueId(queue));
                }
                Traffic::Sync => {
                    store.sync().unwrap();
                }
                Traffic::FailSync => {
                    vfs.fail_syncs(1);
                    let _ = store.sync();
                    vfs.fail_syncs(0);
                }
                Traffic::Maintain(budget) => {
                    store.maintain(budget).unwrap();
                }
                Traffic::Kill => {
                    store.sync().unwrap();
                    drop(store);
                    store = open();
                    prop_assert_eq!(store.blobs(), oracle.blobs() as u64);
                }
            }
            prop_assert_eq!(store.commit(batch.clone()).err(), oracle.commit(batch).err());
            prop_assert!(store.blobs() >= oracle.blobs() as u64);
            for queue in (0..3).map(QueueId) {
                prop_assert_eq!(store.queue(queue), oracle.queue(queue));
                let entries = oracle.read_queue(queue, 0, EVERYTHING);
                prop_assert_eq!(store.read_queue(queue, 0, EVERYTHING), entries.clone());
                for blob in entries.unwrap().into_iter().filter_map(|entry| entry.blob) {
                    prop_assert_eq!(store.blob(blob), oracle.blob(blob));
                }
            }
        }
        for _ in 0..100 {
            store.maintain(1_000).unwrap();
        }
        prop_assert_eq!(store.blobs(), oracle.blobs() as u64);
    }
}
