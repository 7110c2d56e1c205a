//! Real files.

use std::path::PathBuf;

use avocet_store::{LogOptions, LogStore, OpenError, Problem, QueueId, Store, check};

use crate::support::{EVERYTHING, contents, message};

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
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
    store.close().unwrap();
    let file = dir.0.join("0000000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let report = check(&dir.0).unwrap();
    assert!(!report.is_sound());
    let problem = report.segments[0].problems[0];
    assert!(matches!(problem, Problem::Damaged { offset } if (600..=1_000).contains(&offset)));
    assert!(report.segments[1..].iter().all(|s| s.problems.is_empty()));
}
