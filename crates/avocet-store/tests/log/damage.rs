//! Bytes that changed on the disk.

use avocet_store::{Batch, BlobId, LogStore, OpenError, QueueId, SimVfs, Store, Vfs, VfsFile};
use bytes::Bytes;

use crate::support::{EVERYTHING, contents, message, open, small, states};

fn history() -> Vec<Batch> {
    let mut batches: Vec<_> = (0..4)
        .map(|id| message(id, &[0, id % 2 + 1], b"a payload of some length"))
        .collect();
    let mut batch = Batch::new();
    batch.advance(QueueId(0), 2);
    batch.put_key(
        Bytes::from_static(b"key"),
        Bytes::from_static(b"a long value"),
        None,
    );
    batch.drop_queue(QueueId(1));
    batches.push(batch);
    batches.push(message(6, &[0, 1], b"another payload"));
    batches
}

fn written(close: bool) -> SimVfs {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    for batch in history() {
        store.commit(batch).unwrap();
        store.sync().unwrap();
    }
    if close {
        store.close().unwrap();
    }
    vfs
}

fn every_flip(close: bool, mut judge: impl FnMut(SimVfs, &str, u64)) {
    let whole = written(close);
    for name in whole.list().unwrap() {
        let size = whole.open(&name).unwrap().size().unwrap();
        for offset in 0..size {
            let vfs = whole.cut(|_| 0);
            vfs.flip(&name, offset, (offset % 8) as u8);
            judge(vfs, &name, offset);
        }
    }
}

/// Reads everything, and says whether all reads succeeded.
fn reads(store: &LogStore<SimVfs>) -> bool {
    let blobs = (0..8).all(|id| store.blob(BlobId(id)).is_ok());
    let queues = (0..6).all(|id| store.read_queue(QueueId(id), 0, EVERYTHING).is_ok());
    blobs && queues && store.scan(b"", None, EVERYTHING).is_ok()
}

#[test]
fn every_flipped_bit_of_a_closed_store_is_detected_or_harmless() {
    let expected = states(&history()).pop().unwrap();
    let mut detected = 0;
    every_flip(true, |vfs, name, offset| {
        match LogStore::open(vfs, small()) {
            Ok(store) if reads(&store) => {
                assert_eq!(contents(&store), expected, "{name} at {offset}");
            }
            Ok(_) | Err(OpenError::Corrupt { .. }) => detected += 1,
            Err(error) => panic!("{name} at {offset}: {error}"),
        }
    });
    assert!(detected > 100, "{detected}");
}

/// The last group of a store that was not closed cannot be told from one that was torn.
#[test]
fn every_flipped_bit_of_a_killed_store_is_detected_or_cuts_the_last_group() {
    let states = states(&history());
    every_flip(false, |vfs, name, offset| {
        match LogStore::open(vfs, small()) {
            Ok(store) if reads(&store) => {
                let survived = store.durable().0 as usize;
                assert!(
                    survived + 2 >= states.len(),
                    "{name} at {offset}: {survived}"
                );
                assert_eq!(contents(&store), states[survived], "{name} at {offset}");
            }
            Ok(_) | Err(OpenError::Corrupt { .. }) => {}
            Err(error) => panic!("{name} at {offset}: {error}"),
        }
    });
}

#[test]
fn a_damaged_middle_names_file_offset_and_remedy() {
    let vfs = SimVfs::new();
    let mut options = small();
    options.segment_bytes = 10_000;
    let mut store = LogStore::open(vfs.clone(), options).unwrap();
    for batch in history() {
        store.commit(batch).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    vfs.flip("0000000001.log", 80, 3);
    let error = LogStore::open(vfs.clone(), options).err().unwrap();
    let OpenError::Corrupt { file, offset } = &error else {
        panic!("{error}");
    };
    assert_eq!((file.as_str(), *offset <= 80), ("0000000001.log", true));
    let text = error.to_string();
    assert!(
        text.contains("0000000001.log") && text.contains("restore"),
        "{text}"
    );
    // Opening changed nothing: it says the same again.
    assert_eq!(LogStore::open(vfs, options).err(), Some(error));
}

#[test]
fn a_missing_file_is_named() {
    let vfs = SimVfs::new();
    let mut store = open(&vfs);
    for id in 0..4 {
        store.commit(message(id, &[0], &[7; 400])).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    let names = vfs.list().unwrap();
    assert!(names.len() > 2, "{names:?}");
    vfs.remove(&names[1]).unwrap();
    let error = LogStore::open(vfs, small()).err();
    let file = names[1].clone();
    assert_eq!(error, Some(OpenError::Missing { file }));
}

#[test]
fn another_format_is_refused() {
    for version in [1, 3] {
        let vfs = written(true);
        let name = &vfs.list().unwrap()[0];
        let file = vfs.open(name).unwrap();
        let mut header = [0; 48];
        file.read_at(0, &mut header).unwrap();
        header[8] = version;
        put_checksum(&mut header);
        file.write_at(0, &header).unwrap();
        let error = LogStore::open(vfs.clone(), small()).err();
        let (file, version) = (name.clone(), version.into());
        assert_eq!(error, Some(OpenError::Version { file, version }));
    }
}

/// A position that leaves no room to count on is nothing a store wrote.
#[test]
fn a_position_that_cannot_be_counted_on_from_is_refused() {
    for (close, position) in [(false, u64::MAX), (true, u64::MAX), (true, 1 << 63)] {
        let vfs = written(close);
        for name in vfs.list().unwrap() {
            let vfs = vfs.cut(|_| 0);
            let file = vfs.open(&name).unwrap();
            let mut header = [0; 48];
            file.read_at(0, &mut header).unwrap();
            header[32..40].copy_from_slice(&position.to_le_bytes());
            put_checksum(&mut header);
            file.write_at(0, &header).unwrap();
            let error = LogStore::open(vfs, small()).err();
            let (file, offset) = (name, 0);
            assert_eq!(error, Some(OpenError::Corrupt { file, offset }));
        }
    }
}

/// The last four bytes become the checksum of those before.
fn put_checksum(bytes: &mut [u8]) {
    if let Some((covered, checksum)) = bytes.split_last_chunk_mut::<4>() {
        *checksum = crc32c::crc32c(covered).to_le_bytes();
    }
}

/// Makes the checksums of a file right, as far as its lengths are.
fn repair(bytes: &mut [u8]) {
    let Some((header, data)) = bytes.split_at_mut_checked(48) else {
        return;
    };
    put_checksum(header);
    let mut at = 0;
    while let Some(head) = data.get(at..at + 20) {
        let len = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
        if head[..4] != *b"ALGP" || len > data.len() {
            break;
        }
        let group = at;
        at += 20;
        let end = (at + len).min(data.len());
        while at + 6 < end {
            // No record here has a length of more than two bytes.
            let (low, high) = (usize::from(data[at + 5]), usize::from(data[at + 6]));
            let len = if low < 128 {
                6 + low
            } else {
                7 + (low & 127) + high * 128
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
        let said = &data[group + 4..group + 16];
        let covered = [said, &header[16..24], &header[12..16], &offset].concat();
        let checksum = crc32c::crc32c(&covered).to_le_bytes();
        data[group + 16..group + 20].copy_from_slice(&checksum);
    }
    let place = [&header[16..24], &header[12..16]].concat();
    let Some(start) = bytes.len().checked_sub(40) else {
        return;
    };
    let (data, trailer) = bytes.split_at_mut(start);
    if trailer.starts_with(b"avocetft") {
        let word = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().unwrap());
        let (begin, items) = (word(8) as usize, word(12) as usize);
        if let Some(footer) = data.get_mut(begin..) {
            let items = items.min(footer.len());
            footer[..items].chunks_exact_mut(17).for_each(put_checksum);
            let checksums = footer[..items].chunks_exact(17).map(|item| &item[13..]);
            let crc = checksums.fold(0, crc32c::crc32c_append);
            let checksum = crc32c::crc32c_append(crc, footer).to_le_bytes();
            trailer[24..28].copy_from_slice(&checksum);
        }
        let covered = [&trailer[..36], &place].concat();
        trailer[36..].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    }
}

/// When the power is lost while a footer is written in place of another one that was torn, some items may
/// be those of the other one, which may list the same entries in another order: each is whole.
#[test]
fn a_footer_with_items_of_another_one_is_not_taken() {
    let expected = states(&history()).pop().unwrap();
    let mut changed = 0;
    for name in written(true).list().unwrap() {
        let vfs = written(true);
        let file = vfs.open(&name).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let Some(start) = bytes.len().checked_sub(40) else {
            continue;
        };
        let (data, trailer) = bytes.split_at_mut(start);
        let word = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().unwrap()) as usize;
        let (begin, items) = (word(8), word(12));
        if !trailer.starts_with(b"avocetft") || items < 34 {
            continue;
        }
        data[begin..begin + items].rotate_left(17);
        file.write_at(0, &bytes).unwrap();
        changed += 1;
        let store = LogStore::open(vfs, small()).unwrap();
        assert!(reads(&store), "{name}");
        assert_eq!(contents(&store), expected, "{name}");
    }
    assert!(changed > 0);
}

/// Files that somebody made say things that no store says.
#[test]
fn wrong_bytes_with_right_checksums_are_refused_or_read() {
    for close in [false, true] {
        let whole = written(close);
        for name in whole.list().unwrap() {
            let size = whole.open(&name).unwrap().size().unwrap();
            for (offset, value) in (0..size).flat_map(|at| [0, 1, 0x7f, 0xff].map(|v| (at, v))) {
                let vfs = whole.cut(|_| 0);
                let file = vfs.open(&name).unwrap();
                let mut bytes = vec![0; size as usize];
                file.read_at(0, &mut bytes).unwrap();
                if bytes[offset as usize] == value {
                    continue;
                }
                bytes[offset as usize] = value;
                repair(&mut bytes);
                file.write_at(0, &bytes).unwrap();
                let Ok(mut store) = LogStore::open(vfs, small()) else {
                    continue;
                };
                reads(&store);
                let _ = store.commit(message(7, &[0, 1, 2], b"goes on"));
                let _ = store.commit(Batch::new());
                let _ = store.sync();
                for _ in 0..10 {
                    let _ = store.maintain(1_000);
                }
                let _ = store.snapshot().map(|snapshot| snapshot.export(Vec::new()));
                let _ = store.close();
            }
        }
    }
}

/// A message that ends a file like a footer does, as far as those can know who do not know the salt.
#[test]
fn a_message_that_looks_like_a_footer_is_none() {
    let written = |payload: Vec<u8>| {
        let vfs = SimVfs::new();
        let mut store = open(&vfs);
        let mut batch = Batch::new();
        batch.put_blob(BlobId(1), Bytes::from(payload));
        store.commit(batch).unwrap();
        store.sync().unwrap();
        drop(store);
        vfs
    };
    let file = |vfs: &SimVfs| vfs.open(&vfs.list().unwrap()[0]).unwrap();
    let size = file(&written(vec![0; 500])).size().unwrap() as u32;
    // A position, and nothing else.
    let summary = [1, 0, 0, 0, 0, 0, 0];
    let mut payload = vec![7; 500 - 40 - summary.len()];
    payload.extend(summary);
    let trailer = payload.len();
    payload.extend(b"avocetft");
    let crc = crc32c::crc32c(&summary);
    for word in [size - 47, 0, 0, 7, crc, 0, 0] {
        payload.extend(word.to_le_bytes());
    }
    let crc = crc32c::crc32c(&payload[trailer..]);
    payload.extend(crc.to_le_bytes());

    let vfs = written(payload.clone());
    let mut end = vec![0; 500];
    file(&vfs).read_at(u64::from(size) - 500, &mut end).unwrap();
    assert_eq!(end, payload);
    let store = open(&vfs);
    assert_eq!(store.blob(BlobId(1)).unwrap().unwrap(), payload);
}
