//! What the disk and the log alone do.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use avocet_store::{Batch, BlobId, LogOptions, LogStore, QueueId, Store as _};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};

/// Writes so many bytes behind each other into a preallocated file, each followed by a sync.
pub(crate) struct BareFile {
    file: File,
    at: u64,
}

const FILE_BYTES: u64 = 64 << 20;

impl BareFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path)?;
        fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// How long each of the syncs took.
    pub(crate) fn run(&mut self, length: Duration, bytes: usize) -> Result<Vec<Duration>> {
        let piece = vec![b'p'; bytes];
        let mut took = Vec::new();
        let start = Instant::now();
        while start.elapsed() < length {
            if self.at + bytes as u64 > FILE_BYTES {
                self.file.set_len(0)?;
                fallocate(&self.file, FallocateFlags::empty(), 0, FILE_BYTES)?;
                self.file.sync_all()?;
                self.at = 0;
            }
            let begin = Instant::now();
            self.file.write_all_at(&piece, self.at)?;
            self.file.sync_data()?;
            took.push(begin.elapsed());
            self.at += bytes as u64;
        }
        Ok(took)
    }
}

/// Messages a second that the log takes: so many for each sync, one of 100 queues each, those of the
/// group before removed, space given back.
pub(crate) fn log_alone(dir: &Path, length: Duration, group: u64, payload: usize) -> Result<f64> {
    const QUEUES: u64 = 100;
    let mut store = LogStore::open_dir(dir, LogOptions::default())?;
    let payload = Bytes::from(vec![b'p'; payload]);
    let mut ends = [0_u64; QUEUES as usize];
    let mut id = 0;
    let start = Instant::now();
    while start.elapsed() < length {
        for _ in 0..group {
            let mut batch = Batch::new();
            let queue = (id % QUEUES) as usize;
            batch
                .put_blob(BlobId(id), payload.clone())
                .append(
                    QueueId(id % QUEUES),
                    Bytes::from_static(&[0; 16]),
                    Some(BlobId(id)),
                )
                .release_blob(BlobId(id));
            store.commit(batch)?;
            ends[queue] += 1;
            id += 1;
        }
        store.sync()?;
        for (queue, end) in ends.iter().enumerate() {
            let mut batch = Batch::new();
            batch.advance(QueueId(queue as u64), *end);
            store.commit(batch)?;
        }
        store.maintain(256 << 10)?;
    }
    Ok(id as f64 / start.elapsed().as_secs_f64())
}
