//! Files of a store as a disk, or somebody, left them: opening gives a store or an error that names
//! the file. What opens can be read, written, cleaned and opened again, and then holds the same.
//!
//! The first byte says whether checksums are made right, so that damage reaches what lies behind
//! them; then nothing panics. Then damage follows: which file, what is done to it, where and with what
//! bytes. The store under it has a little of everything.

#![no_main]

use avocet_fuzz::Choices;
use avocet_store::{
    Batch, BlobId, Entry, KeyValue, LogOptions, LogStore, OpenError, PageLimit, QueueId, SimVfs,
    Store, Vfs, VfsFile,
};
use libfuzzer_sys::fuzz_target;

/// Segments of a few batches, and no patience with garbage.
fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 400;
    options.resident_value_bytes = 8;
    options.cache_bytes = 1 << 16;
    options.garbage_bytes = 0;
    options
}

const PAGE: PageLimit = PageLimit {
    items: 3,
    bytes: 100,
};

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (repairs, closes) = (choices.flag(), choices.flag());
    let vfs = written(closes);
    let mut damaged = false;
    while !choices.is_empty() {
        damage(&vfs, &mut choices);
        damaged = true;
    }
    if repairs {
        for name in vfs.list().expect("a disk") {
            repair(&vfs, &name);
        }
    }
    let store = match LogStore::open(vfs.clone(), options()) {
        Ok(store) => store,
        Err(error) => return check_error(&error, damaged),
    };
    let before = contents(&store);
    drop(store);
    // Records with right checksums that say what no store says need not end in a store that goes on.
    let mut store = match LogStore::open(vfs.clone(), options()) {
        Ok(store) => store,
        Err(_) if repairs => return,
        Err(error) => panic!("it opened before: {error}"),
    };
    assert!(repairs || contents(&store) == before);
    let mut batch = Batch::new();
    batch.put_key("new".into(), "value".into(), None);
    if store.commit(batch).is_err() || store.sync().is_err() {
        return;
    }
    for _ in 0..20 {
        if !matches!(store.maintain(1_000), Ok(true)) {
            break;
        }
    }
    let after = contents(&store);
    if store.close().is_ok() {
        let store = LogStore::open(vfs, options());
        assert!(repairs || contents(&store.expect("it was closed")) == after);
    }
});

/// A store with blobs, queues and keys in a few segments, closed or killed.
fn written(closes: bool) -> SimVfs {
    let vfs = SimVfs::new();
    let mut store = LogStore::open(vfs.clone(), options()).expect("an empty disk");
    let (blob, queue) = (BlobId, QueueId);
    for round in 0..4 {
        let mut batch = Batch::new();
        batch
            .put_blob(blob(round), vec![b'b'; 40].into())
            .append(queue(round % 2), "entry".into(), Some(blob(round)))
            .append(queue(7), "other".into(), None)
            .put_key(format!("key{round}").into(), "value".into(), None)
            .put_key("long".into(), vec![b'v'; 30].into(), Some(blob(round)));
        if round > 1 {
            batch
                .release_blob(blob(round - 1))
                .advance(queue(7), round)
                .delete_key("key0".into());
        }
        store.commit(batch).expect("a batch");
        store.sync().expect("a disk");
    }
    if closes {
        store.close().expect("a disk");
    }
    vfs
}

/// Other bytes at a place of a file, or its end there, or a file that was not there.
fn damage(vfs: &SimVfs, choices: &mut Choices<'_>) {
    let number = choices.pick(&[1, 2, 3, 4, 5, u32::MAX]);
    let name = format!("{number:010}.log");
    let action = choices.byte();
    let offset = u64::from(choices.byte()) << 8 | u64::from(choices.byte());
    let offset = offset % 1_000;
    match action % 8 {
        0 => drop(vfs.remove(&name)),
        1 => {
            let other = format!("{:010}.log", choices.pick(&[1, 2, 3, 4, 5, u32::MAX]));
            drop(vfs.rename(&name, &other));
        }
        action => {
            let Ok(file) = vfs.open(&name).or_else(|_| vfs.create(&name)) else {
                return;
            };
            if action == 2 {
                file.set_size(offset).expect("a disk");
            }
            file.write_at(offset, choices.bytes()).expect("a disk");
        }
    }
}

/// Makes the checksums of a file what they should be.
fn repair(vfs: &SimVfs, name: &str) {
    let Ok(file) = vfs.open(name) else {
        return;
    };
    let mut bytes = vec![0; file.size().expect("a disk") as usize];
    file.read_at(0, &mut bytes).expect("a disk");
    let Some((header, data)) = bytes.split_at_mut_checked(48) else {
        return;
    };
    put_checksum(header);
    let (salt, segment) = (header[16..24].to_vec(), header[12..16].to_vec());
    // Groups, and the records in each.
    let mut at = 0;
    while let Some(head) = data.get(at..at + 20) {
        let len = u32::from_le_bytes(head[4..8].try_into().expect("4")) as usize;
        if head[..4] != *b"ALGP" || len > 2_000 {
            break;
        }
        let group = at;
        at += 20;
        let end = (at + len).min(data.len());
        while at < end {
            let Some(len) = record_len(&data[at..]) else {
                break;
            };
            let Some(record) = data.get_mut(at..at + len) else {
                break;
            };
            let checksum = crc32c::crc32c(&record[4..]).to_le_bytes();
            record[..4].copy_from_slice(&checksum);
            at += len;
        }
        at = end;
        let records = crc32c::crc32c(&data[group + 20..end]).to_le_bytes();
        data[group + 12..group + 16].copy_from_slice(&records);
        let offset = (group as u32 + 48).to_le_bytes();
        let covered = [&data[group + 4..group + 16], &salt, &segment, &offset].concat();
        let checksum = crc32c::crc32c(&covered).to_le_bytes();
        data[group + 16..group + 20].copy_from_slice(&checksum);
    }
    repair_footer(&mut bytes, &[salt, segment].concat());
    file.write_at(0, &bytes).expect("a disk");
}

fn repair_footer(bytes: &mut [u8], place: &[u8]) {
    let Some(start) = bytes.len().checked_sub(40) else {
        return;
    };
    let (data, trailer) = bytes.split_at_mut(start);
    let word = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().expect("4")) as usize;
    if trailer.starts_with(b"avocetft") {
        let (begin, items) = (word(8), word(12).min(data.len()));
        if let Some(footer) = data.get_mut(begin..) {
            let items = items.min(footer.len());
            for item in footer[..items].chunks_exact_mut(17) {
                put_checksum(item);
            }
            let checksums = footer[..items].chunks_exact(17).map(|item| &item[13..]);
            let crc = checksums.fold(0, crc32c::crc32c_append);
            let checksum = crc32c::crc32c_append(crc, footer).to_le_bytes();
            trailer[24..28].copy_from_slice(&checksum);
        }
        let covered = [&trailer[..36], place].concat();
        trailer[36..].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    }
}

/// The last four bytes become the checksum of those before.
fn put_checksum(bytes: &mut [u8]) {
    if let Some((covered, checksum)) = bytes.split_last_chunk_mut::<4>() {
        *checksum = crc32c::crc32c(covered).to_le_bytes();
    }
}

/// Checksum, kind, an integer in groups of seven bits, and as many bytes.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let mut body = 0;
    for (index, byte) in bytes.get(5..)?.iter().take(4).enumerate() {
        body |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(6 + index + body);
        }
    }
    None
}

fn check_error(error: &OpenError, damaged: bool) {
    assert!(damaged, "{error}");
    match error {
        OpenError::Corrupt { file, .. }
        | OpenError::Missing { file }
        | OpenError::Version { file, .. } => {
            assert!(file.ends_with(".log"), "{error}");
            assert!(error.to_string().contains(file), "{error}");
        }
        other => panic!("the disk works: {other}"),
    }
}

/// Everything that can be read, page by page.
fn contents(store: &LogStore<SimVfs>) -> (Vec<String>, Vec<Entry>, Vec<KeyValue>) {
    let blobs = (0..8).map(|id| format!("{:?}", store.blob(BlobId(id))));
    let (mut entries, mut keys) = (Vec::new(), Vec::<KeyValue>::new());
    for queue in [0, 1, 7].map(QueueId) {
        let mut from = 0;
        for _ in 0..1_000 {
            let page = store.read_queue(queue, from, PAGE).unwrap_or_default();
            let Some(last) = page.last() else {
                break;
            };
            assert!(last.sequence >= from, "pages go on");
            from = last.sequence.saturating_add(1);
            entries.extend(page);
        }
    }
    for _ in 0..1_000 {
        let after = keys.last().map(|last| last.key.clone());
        let page = store.scan(b"", after.as_deref(), PAGE).unwrap_or_default();
        if page.is_empty() {
            break;
        }
        keys.extend(page);
    }
    (blobs.collect(), entries, keys)
}
