//! Directories and exports that were written by earlier versions stay readable.
//!
//! Those of this version are made again by
//! `AVOCET_STORE_FIXTURES=$PWD/crates/avocet-store/tests/fixtures cargo test -p avocet-store --all-features writes_what`,
//! which is right only as long as no release can read what it replaces.

use std::fs;
use std::path::{Path, PathBuf};

use avocet_store::{
    Batch, BlobId, LogOptions, LogStore, MemoryStore, Position, QueueId, Store, check,
};
use bytes::Bytes;

use crate::files::TempDir;
use crate::support::{Contents, contents, message};

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 1_000;
    options.garbage_bytes = 1_000;
    options
}

/// Something of everything.
fn history() -> Vec<Batch> {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let mut batches = Vec::new();
    let mut batch = Batch::new();
    batch.put_blob(BlobId(0), bytes("held"));
    batch.put_key(bytes("refers"), bytes("to a blob"), Some(BlobId(0)));
    batch.put_key(bytes("changes"), bytes("before"), None);
    batch.put_key(bytes("goes"), bytes("soon"), None);
    batch.append(QueueId(3), bytes("an entry of its own"), None);
    batches.push(batch);
    for id in 1..8 {
        batches.push(message(id, &[0, id % 3], &[id as u8; 150]));
    }
    let mut batch = Batch::new();
    batch.advance(QueueId(0), 5);
    batch.drop_queue(QueueId(1));
    batch.put_key(bytes("changes"), bytes("after"), None);
    batch.delete_key(bytes("goes"));
    batch.put_key(bytes("long"), Bytes::from(vec![b'x'; 1_500]), None);
    batches.push(batch);
    let mut batch = Batch::new();
    batch.append(QueueId(1), bytes("again"), Some(BlobId(6)));
    batch.release_blob(BlobId(0));
    batches.push(batch);
    batches.push(Batch::new());
    batches
}

fn expected() -> (Position, Contents) {
    let mut store = MemoryStore::new();
    for batch in history() {
        store.commit(batch).unwrap();
    }
    (store.durable(), contents(&store))
}

/// Writes the log of a program that was killed, and its export.
fn write(dir: &Path, export: &Path) {
    let mut store = LogStore::open_dir(dir, options()).unwrap();
    for batch in history() {
        store.commit(batch).unwrap();
        store.sync().unwrap();
        store.maintain(10_000).unwrap();
    }
    store.sync().unwrap();
    let file = fs::File::create(export).unwrap();
    store.snapshot().unwrap().export(file).unwrap();
    drop(store);
    fs::remove_file(dir.join("lock")).unwrap();
}

/// Opens a copy of a directory, and an import.
fn assert_readable(dir: &Path, export: &Path) {
    let copy = TempDir::new("format");
    fs::create_dir_all(&copy.0).unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.0.join(file.file_name())).unwrap();
    }
    let report = check(&copy.0).unwrap();
    assert!(report.is_sound() && report.segments.len() > 2, "{report:?}");
    let footers = report.segments.iter().filter(|segment| segment.footer);
    let footers = footers.count();
    assert!(footers > 0 && footers < report.segments.len());
    let store = LogStore::open_dir(&copy.0, options()).unwrap();
    assert_eq!((store.durable(), contents(&store)), expected());

    let imported = TempDir::new("imported");
    let export = fs::File::open(export).unwrap();
    let store = LogStore::import_dir(&imported.0, options(), export).unwrap();
    assert_eq!((store.durable(), contents(&store)), expected());
}

#[test]
fn reads_what_format_2_wrote() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (dir, export) = (fixtures.join("format-2"), fixtures.join("export-1"));
    assert_readable(&dir, &export);
}

#[test]
fn writes_what_it_reads() {
    let temporary = TempDir::new("written");
    let fixtures = std::env::var_os("AVOCET_STORE_FIXTURES");
    let fixtures = fixtures.map_or_else(|| temporary.0.clone(), PathBuf::from);
    let (dir, export) = (fixtures.join("format-2"), fixtures.join("export-1"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    write(&dir, &export);
    assert_readable(&dir, &export);
}
