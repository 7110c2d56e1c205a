//! Real files.

use std::path::PathBuf;

use avocet_store::{
    Batch, BlobId, LogOptions, LogStore, Lost, OpenError, Problem, QueueId, Store, check,
};
use bytes::Bytes;

use crate::support::{EVERYTHING, contents, message};

/// A directory that goes with its value.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("avocet-store-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 8 << 10;
    options
}

#[test]
fn keeps_everything_in_real_files() {
    let dir = TempDir::new("keeps");
    let mut store = LogStore::open_dir(&dir.0, options()).unwrap();
    for id in 0..100 {
        store
            .commit(message(id, &[id % 3, 4], &[id as u8; 256]))
            .unwrap();
        if id % 7 == 0 {
            store.sync().unwrap();
        }
    }
    let position = store.sync().unwrap();
    let before = contents(&store);
    drop(store);
    let report = check(&dir.0).unwrap();
    assert!(report.is_sound() && report.segments.len() > 2, "{report:?}");

    let store = LogStore::open_dir(&dir.0, options()).unwrap();
    assert_eq!(store.durable(), position);
    assert_eq!(contents(&store), before);
    assert_eq!(
        store.read_queue(QueueId(4), 0, EVERYTHING).unwrap().len(),
        100
    );
    store.close().unwrap();
    assert!(check(&dir.0).unwrap().is_sound());
}

#[test]
fn the_second_opener_of_a_directory_is_refused() {
    let dir = TempDir::new("locked");
    let store = LogStore::open_dir(&dir.0, options()).unwrap();
    let second = LogStore::open_dir(&dir.0, options());
    assert_eq!(second.err(), Some(OpenError::Locked));
    assert_eq!(check(&dir.0).err(), Some(OpenError::Locked));
    drop(store);
    LogStore::open_dir(&dir.0, options()).unwrap();
}

#[test]
fn check_names_what_is_damaged() {
    let dir = TempDir::new("damaged");
    let mut store = LogStore::open_dir(&dir.0, options()).unwrap();
    for id in 0..60 {
        store.commit(message(id, &[0], &[7; 256])).unwrap();
        store.sync().unwrap();
    }
    let mut batch = Batch::new();
    batch.advance(QueueId(0), 2);
    batch.put_key(
        Bytes::from_static(b"key"),
        Bytes::from_static(b"value"),
        None,
    );
    store.commit(batch).unwrap();
    store.close().unwrap();
    let damage = |name: &str, offset: usize| {
        let file = dir.0.join(name);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    };
    // All messages take as much, in a group each. The blob of one that is done with, that of the
    // fourth, and the entry of the fifth.
    let first = &check(&dir.0).unwrap().segments[0];
    let size = (first.data_bytes as usize - 48) / (first.records as usize / 2);
    for offset in [100, 48 + 3 * size + 100, 48 + 5 * size - 2] {
        damage("0000000001.log", offset);
    }
    let report = check(&dir.0).unwrap();
    assert!(!report.is_sound());
    let problem = report.segments[0].problems[0];
    assert!(matches!(problem, Problem::Damaged { offset } if offset <= 100));
    assert!(report.segments[1..].iter().all(|s| s.problems.is_empty()));
    let entries = Lost::Entries {
        queue: QueueId(0),
        sequences: 4..5,
    };
    assert_eq!(report.lost, [Lost::Blob { id: BlobId(3) }, entries]);
    assert_eq!(report.lost[1].to_string(), "entries 4 to 4 of queue 0");

    // The only file that says something of the key.
    let last = report.segments.last().unwrap();
    damage(&last.file, last.data_bytes as usize - 4);
    let lost = check(&dir.0).unwrap().lost;
    let key = Bytes::from_static(b"key");
    assert!(lost.contains(&Lost::Key { key }), "{lost:?}");
}

#[test]
fn check_names_what_a_missing_file_and_one_without_footer_held() {
    let dir = TempDir::new("missing");
    let mut store = LogStore::open_dir(&dir.0, options()).unwrap();
    for id in 0..90 {
        store.commit(message(id, &[id / 60], &[7; 256])).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    std::fs::remove_file(dir.0.join("0000000002.log")).unwrap();
    let report = check(&dir.0).unwrap();
    assert_eq!(report.segments[1].problems, [Problem::Missing]);
    let is_lost = |lost: &Lost| matches!(lost, Lost::Entries { queue: QueueId(0), sequences } if sequences.start > 20);
    assert!(report.lost.iter().any(is_lost), "{:?}", report.lost);
    let file = "0000000002.log".to_owned();
    let opened = LogStore::open_dir(&dir.0, options());
    assert_eq!(opened.err(), Some(OpenError::Missing { file }));
}

/// Numbers of segments never end.
#[test]
fn leaves_a_file_with_the_last_number_alone() {
    let dir = TempDir::new("last-number");
    std::fs::create_dir_all(&dir.0).unwrap();
    let stray = dir.0.join("4294967295.log");
    std::fs::write(&stray, b"not ours").unwrap();
    let mut store = LogStore::open_dir(&dir.0, options()).unwrap();
    store.commit(message(1, &[1], b"x")).unwrap();
    store.close().unwrap();
    assert!(check(&dir.0).unwrap().is_sound());
    assert_eq!(std::fs::read(stray).unwrap(), b"not ours");
}
