//! Random histories against the store in memory.

use avocet_store::{Batch, CommitError, MemoryStore, Position, SimVfs, Store};
use proptest::prelude::*;

use crate::support::{batch, contents, open};

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Write,
    Sync,
    FailSync,
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
                    let before = store.durable();
                    vfs.fail_syncs(1);
                    let failed = store.buffered_bytes() > 0;
                    prop_assert_eq!(store.sync().is_err(), failed);
                    vfs.fail_syncs(0);
                    prop_assert_eq!(store.durable(), before);
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
                    let position = store.close().unwrap();
                    store = open(&vfs);
                    prop_assert_eq!(store.durable(), position);
                }
                Step::Kill => {
                    vfs.fail_reads(0);
                    let position = store.write().unwrap();
                    drop(store);
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
