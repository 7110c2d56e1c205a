//! Power cuts: what survives is a prefix of the history that holds everything reported durable.

use avocet_store::{Batch, BlobId, Chore, LogStore, Operation, QueueId, SimVfs, Store};
use bytes::Bytes;
use proptest::prelude::*;

use crate::support::{Flying, batch, contents, message, open, small, states};

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Write,
    Sync,
    FailSync,
    /// Another thread takes a sync.
    BeginSync,
    /// One of those is done.
    RunSync(usize),
    /// It fails, and nobody else is told if that is set.
    FailRun(usize, bool),
    /// The store is told that one is done, which may have to be done before.
    EndSync(usize),
    Maintain,
    /// Another thread takes a chore.
    TakeChore,
    /// It is done with it.
    EndChore,
    Reopen,
}

/// Runs a history until the power ends after `steps` calls, and returns what was reported durable
/// and whether the power lasted.
fn run(vfs: &SimVfs, history: &[Step], steps: u64) -> (u64, bool) {
    vfs.end_power_after(steps);
    let mut durable = 0;
    let Ok(mut store) = LogStore::open(vfs.clone(), small()) else {
        return (0, false);
    };
    let mut chore: Option<Chore<SimVfs>> = None;
    let mut flying = Flying::default();
    for step in history {
        match step {
            Step::Commit(batch) => {
                let _ = store.commit(batch.clone());
            }
            Step::Write => {
                let _ = store.write();
                durable = durable.max(store.durable().0);
            }
            Step::Sync => {
                flying.end_all(&mut store);
                durable = durable.max(store.durable().0);
                if let Ok(position) = store.sync() {
                    durable = position.0;
                }
            }
            Step::FailSync => {
                vfs.fail_syncs(1);
                let _ = store.sync();
                vfs.fail_syncs(0);
            }
            Step::BeginSync => {
                let _ = flying.begin(&mut store);
                durable = durable.max(store.durable().0);
            }
            Step::RunSync(which) => flying.run(*which),
            Step::FailRun(which, alone) => {
                vfs.fail_syncs((!alone).into());
                vfs.fail_flushes((*alone).into());
                flying.run(*which);
                vfs.fail_syncs(0);
                vfs.fail_flushes(0);
            }
            Step::EndSync(which) => {
                if let Some(Ok(position)) = flying.end(&mut store, *which) {
                    durable = durable.max(position.0);
                }
            }
            Step::Maintain => {
                store.maintain(150).unwrap();
            }
            Step::TakeChore => chore = chore.or_else(|| store.chore()),
            Step::EndChore => {
                if let Some(chore) = chore.take() {
                    store.end_chore(chore.run());
                }
            }
            Step::Reopen => {
                chore = None;
                flying = Flying::default();
                if let Ok(position) = store.sync() {
                    durable = position.0;
                }
                drop(store);
                match LogStore::open(vfs.clone(), small()) {
                    Ok(opened) => store = opened,
                    Err(_) => return (durable, false),
                }
                durable = durable.max(store.durable().0);
            }
        }
    }
    (durable, vfs.steps() < steps)
}

fn batches(history: &[Step]) -> Vec<Batch> {
    let batch = |step: &Step| match step {
        Step::Commit(batch) => Some(batch.clone()),
        Step::Write
        | Step::Sync
        | Step::FailSync
        | Step::BeginSync
        | Step::RunSync(_)
        | Step::FailRun(..)
        | Step::EndSync(_)
        | Step::Maintain
        | Step::TakeChore
        | Step::EndChore
        | Step::Reopen => None,
    };
    history.iter().filter_map(batch).collect()
}

fn assert_prefix(cut: &SimVfs, history: &[Step], durable: u64) {
    let expected = states(&batches(history));
    let store = open(cut);
    let survived = store.durable().0;
    assert!(
        survived >= durable,
        "{survived} of {durable} durable batches survived"
    );
    assert_eq!(contents(&store), expected[survived as usize]);
    // What was recovered stays, whatever happens next.
    drop(store);
    let again = open(&cut.cut(|_| 0));
    assert_eq!(again.durable().0, survived);
    assert_eq!(contents(&again), expected[survived as usize]);
}

/// Every combination of choices, the number of each known only once it is asked for.
#[derive(Default)]
struct Choices {
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, options: usize) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, options));
        }
        self.at += 1;
        self.path[self.at - 1].0
    }

    /// Goes on to the next combination.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, options)) = self.path.pop() {
            if choice + 1 < options {
                self.path.push((choice + 1, options));
                return true;
            }
        }
        false
    }
}

fn every_cut(history: &[Step]) -> usize {
    let mut cuts = 0;
    for steps in 0.. {
        let vfs = SimVfs::new();
        let (durable, finished) = run(&vfs, history, steps);
        let mut choices = Choices::default();
        loop {
            let cut = vfs.cut(|options| choices.choose(options));
            assert_prefix(&cut, history, durable);
            cuts += 1;
            if !choices.advance() {
                break;
            }
        }
        if finished {
            return cuts;
        }
    }
    cuts
}

fn operations(operations: impl IntoIterator<Item = Operation>) -> Step {
    let mut batch = Batch::new();
    for operation in operations {
        batch.push(operation);
    }
    Step::Commit(batch)
}

fn advance(queue: u64, to: u64) -> Step {
    let queue = QueueId(queue);
    operations([Operation::Advance { queue, to }])
}

#[test]
fn every_power_cut_of_a_small_history_leaves_a_prefix() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::Sync,
        Step::Commit(message(2, &[0], b"another one")),
        Step::Commit(message(3, &[1], b"and one in the same group")),
        Step::Sync,
        advance(0, 1),
        Step::Reopen,
        Step::Commit(message(4, &[0, 1], b"after opening again")),
        Step::Sync,
    ];
    assert!(every_cut(&history) > 50);
}

#[test]
fn every_power_cut_around_a_failing_sync_leaves_a_prefix() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::FailSync,
        Step::Commit(message(2, &[0], b"another one")),
        Step::Sync,
        Step::Commit(message(3, &[1], b"which the disk loses")),
        Step::FailSync,
        advance(1, 1),
        Step::Sync,
        Step::Commit(message(4, &[0], b"the last")),
        Step::Sync,
    ];
    assert!(every_cut(&history) > 50);
}

/// Of two groups that are written before one sync the disk may keep the second alone.
#[test]
fn every_power_cut_between_writes_leaves_a_prefix() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::Write,
        Step::Commit(message(2, &[0], b"another one")),
        Step::Write,
        Step::Sync,
        Step::Commit(message(3, &[0], b"the third")),
        Step::Write,
        advance(0, 1),
        Step::Write,
        Step::Commit(message(4, &[1], b"the fourth")),
        Step::Sync,
    ];
    assert!(every_cut(&history) > 500);
}

/// Two syncs are under way, and the one that was begun last ends first.
#[test]
fn every_power_cut_between_syncs_that_others_do_leaves_a_prefix() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::Sync,
        Step::Commit(message(2, &[0], b"another one")),
        Step::BeginSync,
        Step::Commit(message(3, &[1], b"the third")),
        Step::BeginSync,
        advance(0, 1),
        Step::RunSync(1),
        Step::Write,
        Step::EndSync(1),
        Step::EndSync(0),
        Step::Sync,
    ];
    assert!(every_cut(&history) > 100);
}

/// What failed for one is told to the others, although they sync more.
#[test]
fn every_power_cut_after_one_of_two_syncs_failed_leaves_a_prefix() {
    for (which, alone) in [(0, false), (1, false), (0, true), (1, true)] {
        let history = [
            Step::Commit(message(1, &[0, 1], b"a message")),
            Step::Sync,
            Step::Commit(message(2, &[0], b"another one")),
            Step::BeginSync,
            Step::Commit(message(3, &[1], b"the third")),
            Step::BeginSync,
            Step::FailRun(which, alone),
            Step::EndSync(0),
            Step::EndSync(0),
            advance(0, 1),
            Step::Sync,
        ];
        assert!(every_cut(&history) > 100, "{which} {alone}");
    }
}

/// The flush of the first one failed, the second one ended well, and the store hears of the second one first.
#[test]
fn every_power_cut_after_a_failure_that_is_told_late_leaves_a_prefix() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::Sync,
        Step::Commit(message(2, &[0], b"another one")),
        Step::BeginSync,
        Step::Commit(message(3, &[1], b"the third")),
        Step::BeginSync,
        Step::FailRun(0, true),
        Step::RunSync(0),
        Step::EndSync(1),
        Step::EndSync(0),
        Step::Sync,
    ];
    assert!(every_cut(&history) > 100);
}

#[test]
fn every_power_cut_after_writes_whose_sync_failed_leaves_a_prefix() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::Sync,
        Step::Commit(message(2, &[0], b"another one")),
        Step::Write,
        Step::Commit(message(3, &[1], b"which the disk loses")),
        Step::FailSync,
        advance(1, 1),
        Step::Write,
        Step::Sync,
    ];
    assert!(every_cut(&history) > 500);
}

/// A file goes only with the end of the sync that covers what was copied out of it.
#[test]
fn every_power_cut_while_space_is_given_back_beside_a_sync_leaves_a_prefix() {
    let history = [
        Step::Commit(message(0, &[5], b"sleeps")),
        Step::Commit(message(1, &[0], &[b'x'; 350])),
        Step::Sync,
        Step::Commit(message(2, &[1], b"in the next segment")),
        Step::Sync,
        advance(0, 1),
        Step::Maintain,
        Step::Maintain,
        Step::BeginSync,
        Step::Maintain,
        Step::Maintain,
        Step::EndSync(0),
    ];
    assert!(every_cut(&history) > 50);
}

#[test]
fn every_power_cut_while_space_is_given_back_leaves_a_prefix() {
    let mut history = vec![Step::Commit(message(0, &[5], b"sleeps"))];
    for id in 1..6 {
        history.push(Step::Commit(message(id, &[0], &[b'x'; 150])));
        history.push(Step::Sync);
        history.push(advance(0, id));
        history.push(Step::Maintain);
        history.push(Step::Sync);
    }
    history.push(Step::Commit({
        let mut batch = Batch::new();
        batch.put_key(
            Bytes::from_static(b"k"),
            Bytes::from_static(b"long"),
            Some(BlobId(0)),
        );
        batch
    }));
    history.push(Step::Sync);
    assert!(every_cut(&history) > 50);
}

#[test]
fn every_power_cut_while_what_was_found_is_written_again_leaves_it() {
    let history = [
        Step::Commit(message(1, &[0, 1], b"a message")),
        Step::Sync,
        Step::Commit(message(2, &[0], b"another one")),
        Step::Write,
        Step::Commit(message(3, &[1], b"the third")),
        Step::Reopen,
        Step::Reopen,
        Step::Commit(message(4, &[0], b"after opening again")),
        Step::FailSync,
        Step::Reopen,
        advance(0, 1),
        Step::Sync,
    ];
    assert!(every_cut(&history) > 100);
}

/// Files with whole groups of the same lengths at the same places are used again, and what is done to them
/// comes between whatever else is done. There are too many ways to lose power to try all of them.
#[test]
fn power_cuts_while_files_are_used_again_leave_a_prefix() {
    let mut random = 1_u64;
    let mut choose = |options: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005);
        random = random.wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % options
    };
    for (take, end) in [(0, 0), (0, 1), (1, 2), (0, 3)] {
        let mut history = Vec::new();
        for id in 0..10 {
            history.push(Step::Commit(message(id, &[0], &[id as u8; 190])));
            if id % 4 == take {
                history.push(Step::TakeChore);
            }
            history.push(Step::Write);
            history.push(Step::Commit(message(100 + id, &[1], &[id as u8; 50])));
            history.push(Step::Sync);
            history.push(advance(0, id + 1));
            history.push(advance(1, id + 1));
            history.push(Step::Maintain);
            if id % 4 == end {
                history.push(Step::EndChore);
            }
        }
        for steps in 0.. {
            let vfs = SimVfs::new();
            let (durable, finished) = run(&vfs, &history, steps);
            for _ in 0..40 {
                assert_prefix(&vfs.cut(&mut choose), &history, durable);
            }
            if finished {
                break;
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => batch().prop_map(Step::Commit),
        2 => Just(Step::Write),
        4 => Just(Step::Sync),
        1 => Just(Step::FailSync),
        4 => Just(Step::BeginSync),
        2 => any::<usize>().prop_map(Step::RunSync),
        1 => any::<(usize, bool)>().prop_map(|(which, alone)| Step::FailRun(which, alone)),
        3 => any::<usize>().prop_map(Step::EndSync),
        2 => Just(Step::Maintain),
        2 => Just(Step::TakeChore),
        2 => Just(Step::EndChore),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_power_cut_of_any_history_leaves_a_prefix(
        history in proptest::collection::vec(step(), 1..60),
        steps in 0u64..150,
        fates in proptest::collection::vec(any::<usize>(), 1..64),
    ) {
        let vfs = SimVfs::new();
        let (durable, _) = run(&vfs, &history, steps);
        let mut fates = fates.iter().cycle();
        let cut = vfs.cut(|options| fates.next().unwrap() % options);
        assert_prefix(&cut, &history, durable);
    }
}
