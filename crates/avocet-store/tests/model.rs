//! The memory store against a model that keeps nothing but the history.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::{BTreeMap, BTreeSet};

use avocet_store::{
    Batch, BlobId, CommitError, MemoryStore, Operation, PageLimit, Position, QueueId, Store,
};
use bytes::Bytes;
use proptest::prelude::*;

const EVERYTHING: PageLimit = PageLimit {
    items: usize::MAX,
    bytes: usize::MAX,
};

type Reference = Option<BlobId>;
type Entries = BTreeMap<u64, (Bytes, Reference)>;

/// What the history amounts to, worked out from its beginning.
#[derive(Clone, Default, Debug)]
struct Model {
    blobs: BTreeMap<BlobId, Bytes>,
    held: BTreeSet<BlobId>,
    queues: BTreeMap<QueueId, (u64, Entries)>,
    keys: BTreeMap<Bytes, (Bytes, Reference)>,
}

impl Model {
    fn referred(&self, id: BlobId) -> bool {
        let in_queues = self
            .queues
            .values()
            .flat_map(|(_, entries)| entries.values());
        in_queues
            .chain(self.keys.values())
            .any(|(_, blob)| *blob == Some(id))
    }

    fn exists(&self, id: Reference) -> Result<(), CommitError> {
        match id {
            Some(id) if !self.blobs.contains_key(&id) => Err(CommitError::UnknownBlob(id)),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), CommitError> {
        match operation.clone() {
            Operation::PutBlob { id, bytes } => {
                if self.blobs.contains_key(&id) {
                    return Err(CommitError::BlobExists(id));
                }
                self.blobs.insert(id, bytes);
                self.held.insert(id);
            }
            Operation::ReleaseBlob { id } => {
                if !self.held.remove(&id) {
                    return Err(CommitError::UnknownBlob(id));
                }
            }
            Operation::Append { queue, value, blob } => {
                self.exists(blob)?;
                let (next, entries) = self.queues.entry(queue).or_default();
                entries.insert(*next, (value, blob));
                *next += 1;
            }
            Operation::Advance { queue, to } => {
                let Some((next, entries)) = self.queues.get_mut(&queue) else {
                    return Err(CommitError::UnknownQueue(queue));
                };
                if to > *next {
                    return Err(CommitError::BeyondEnd { queue, to });
                }
                entries.retain(|sequence, _| *sequence >= to);
            }
            Operation::DropQueue { queue } => {
                if self.queues.remove(&queue).is_none() {
                    return Err(CommitError::UnknownQueue(queue));
                }
            }
            Operation::PutKey { key, value, blob } => {
                self.exists(blob)?;
                self.keys.insert(key, (value, blob));
            }
            Operation::DeleteKey { key } => {
                self.keys.remove(&key);
            }
        }
        let dead: Vec<_> = self.blobs.keys().copied().collect();
        for id in dead {
            if !self.held.contains(&id) && !self.referred(id) {
                self.blobs.remove(&id);
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut after = self.clone();
        for operation in batch.operations() {
            after.apply(operation)?;
        }
        *self = after;
        Ok(())
    }

    fn assert_same(&self, store: &MemoryStore) {
        assert_eq!(store.blobs(), self.blobs.len());
        for (id, bytes) in &self.blobs {
            assert_eq!(store.blob(*id).unwrap().as_ref(), Some(bytes));
        }
        for id in (0..4).map(QueueId) {
            let Some((next, entries)) = self.queues.get(&id) else {
                assert_eq!(store.queue(id), None);
                continue;
            };
            assert_eq!(store.queue(id).unwrap().end, *next);
            let read = store.read_queue(id, 0, EVERYTHING).unwrap();
            let read: Vec<_> = read
                .into_iter()
                .map(|e| (e.sequence, (e.value, e.blob)))
                .collect();
            let expected: Vec<_> = entries.iter().map(|(s, e)| (*s, e.clone())).collect();
            assert_eq!(read, expected);
        }
        let read = store.scan(b"", None, EVERYTHING).unwrap();
        let read: Vec<_> = read
            .into_iter()
            .map(|k| (k.key, (k.value, k.blob)))
            .collect();
        let expected: Vec<_> = self.keys.clone().into_iter().collect();
        assert_eq!(read, expected);
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(0u8..3, 0..3).prop_map(Bytes::from)
}

fn operation() -> impl Strategy<Value = Operation> {
    let blob = || (0u64..4).prop_map(BlobId);
    let queue = || (0u64..3).prop_map(QueueId);
    prop_oneof![
        3 => (blob(), bytes()).prop_map(|(id, bytes)| Operation::PutBlob { id, bytes }),
        1 => blob().prop_map(|id| Operation::ReleaseBlob { id }),
        4 => (queue(), bytes(), proptest::option::of(blob()))
            .prop_map(|(queue, value, blob)| Operation::Append { queue, value, blob }),
        2 => (queue(), 0u64..6).prop_map(|(queue, to)| Operation::Advance { queue, to }),
        1 => queue().prop_map(|queue| Operation::DropQueue { queue }),
        2 => (bytes(), bytes(), proptest::option::of(blob()))
            .prop_map(|(key, value, blob)| Operation::PutKey { key, value, blob }),
        1 => bytes().prop_map(|key| Operation::DeleteKey { key }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    proptest::collection::vec(operation(), 0..5).prop_map(|operations| {
        let mut batch = Batch::new();
        for operation in operations {
            batch.push(operation);
        }
        batch
    })
}

proptest! {
    #[test]
    fn every_history_amounts_to_what_the_model_says(
        batches in proptest::collection::vec(batch(), 0..24),
    ) {
        let (mut store, mut model) = (MemoryStore::new(), Model::default());
        let mut position = Position(0);
        for batch in batches {
            let expected = model.commit(&batch);
            let committed = store.commit(batch);
            prop_assert_eq!(committed.map(|_| ()), expected);
            if let Ok(committed) = committed {
                prop_assert!(committed > position);
                position = committed;
            }
            model.assert_same(&store);
        }
        prop_assert_eq!(store.sync(), Ok(position));
    }

    #[test]
    fn pages_put_together_are_the_whole(
        values in proptest::collection::vec(bytes(), 0..20),
        items in 0usize..5,
        size in 0usize..6,
    ) {
        let mut store = MemoryStore::new();
        let mut batch = Batch::new();
        for value in &values {
            batch.append(QueueId(0), value.clone(), None);
            batch.put_key(value.clone(), value.clone(), None);
        }
        store.commit(batch).unwrap();
        let limit = PageLimit { items, bytes: size };

        let mut entries = Vec::new();
        loop {
            let from = entries.len() as u64;
            let page = store.read_queue(QueueId(0), from, limit).unwrap();
            if page.is_empty() {
                break;
            }
            prop_assert!(page.len() <= items.max(1));
            entries.extend(page.into_iter().map(|entry| entry.value));
        }
        prop_assert_eq!(&entries, &values);

        let mut keys: Vec<Bytes> = Vec::new();
        loop {
            let page = store.scan(b"", keys.last().map(|key| &key[..]), limit).unwrap();
            if page.is_empty() {
                break;
            }
            keys.extend(page.into_iter().map(|item| item.key));
        }
        let expected: BTreeSet<Bytes> = values.into_iter().collect();
        prop_assert_eq!(keys, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn scan_returns_only_keys_with_the_prefix() {
    let mut store = MemoryStore::new();
    let mut batch = Batch::new();
    for key in ["a", "ab", "abc", "b", "aa"] {
        batch.put_key(Bytes::from_static(key.as_bytes()), Bytes::new(), None);
    }
    store.commit(batch).unwrap();
    let keys = |prefix: &str, after: Option<&str>| -> Vec<Bytes> {
        let page = store
            .scan(prefix.as_bytes(), after.map(str::as_bytes), EVERYTHING)
            .unwrap();
        page.into_iter().map(|item| item.key).collect()
    };
    assert_eq!(keys("ab", None), ["ab", "abc"]);
    assert_eq!(keys("ab", Some("ab")), ["abc"]);
    assert_eq!(keys("ab", Some("a")), ["ab", "abc"]);
    assert_eq!(keys("c", None), [""; 0]);
}

#[test]
fn a_refused_batch_changes_nothing() {
    let mut store = MemoryStore::new();
    let mut batch = Batch::new();
    batch.put_key(Bytes::from_static(b"k"), Bytes::new(), None);
    batch.append(QueueId(1), Bytes::new(), Some(BlobId(9)));
    assert_eq!(
        store.commit(batch),
        Err(CommitError::UnknownBlob(BlobId(9)))
    );
    assert_eq!(store.key(b"k"), Ok(None));
    assert_eq!(store.queue(QueueId(1)), None);
}
