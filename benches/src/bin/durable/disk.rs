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

    /// When each of the syncs began, and how long it took.
    fn syncs(&mut self, length: Duration, bytes: usize) -> Result<Vec<(Instant, Duration)>> {
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
            took.push((begin, begin.elapsed()));
            self.at += bytes as u64;
        }
        Ok(took)
    }

    /// How long each of the syncs took.
    pub(crate) fn run(&mut self, length: Duration, bytes: usize) -> Result<Vec<Duration>> {
        let syncs = self.syncs(length, bytes)?;
        Ok(syncs.into_iter().map(|(_, took)| took).collect())
    }

    /// How long each of the syncs took; and how long each of `rate` messages a second would wait if a message were
    /// on disk with the first sync that begins after it came, and nothing took any time but syncs. One that takes long
    /// is one among many of the first kind, and delays many of the second.
    pub(crate) fn run_for(
        &mut self,
        length: Duration,
        bytes: usize,
        rate: f64,
    ) -> Result<[Vec<Duration>; 2]> {
        let syncs = self.syncs(length, bytes)?;
        let mut waits = Vec::new();
        let start = syncs.first().map_or_else(Instant::now, |(begin, _)| *begin);
        let due = |number: usize| start + Duration::from_secs_f64(number as f64 / rate);
        for (begin, took) in &syncs {
            while due(waits.len()) <= *begin {
                waits.push(*begin + *took - due(waits.len()));
            }
        }
        let took = syncs.into_iter().map(|(_, took)| took).collect();
        Ok([took, waits])
    }
}

/// What the log alone is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Queues that the messages go to in turn.
    pub(crate) queues: u64,
    /// Messages for each sync.
    pub(crate) group: u64,
    /// Messages for each batch.
    pub(crate) batch: u64,
}

impl Shape {
    /// What the log is measured with wherever it is compared.
    pub(crate) const REFERENCE: Self = Self {
        queues: 1_000,
        group: 512,
        batch: 512,
    };
}

/// Messages a second that the log takes; those of the group before are removed behind each sync, and space is given
/// back.
pub(crate) fn log_alone(dir: &Path, length: Duration, shape: Shape, payload: usize) -> Result<f64> {
    let mut store = LogStore::open_dir(dir, LogOptions::default())?;
    let payload = Bytes::from(vec![b'p'; payload]);
    let mut ends = vec![0_u64; shape.queues as usize];
    let mut id = 0;
    let start = Instant::now();
    while start.elapsed() < length {
        let first = id;
        while id < first + shape.group {
            let mut batch = Batch::new();
            let last = (id + shape.batch).min(first + shape.group);
            for id in id..last {
                let queue = id % shape.queues;
                batch.put_blob(BlobId(id), payload.clone());
                batch.append(
                    QueueId(queue),
                    Bytes::from_static(&[0; 16]),
                    Some(BlobId(id)),
                );
                batch.release_blob(BlobId(id));
                ends[queue as usize] += 1;
            }
            store.commit(batch)?;
            id = last;
        }
        store.sync()?;
        let mut batch = Batch::new();
        for queue in (first..id.min(first + shape.queues)).map(|id| id % shape.queues) {
            batch.advance(QueueId(queue), ends[queue as usize]);
            if shape.batch == 1 {
                store.commit(std::mem::take(&mut batch))?;
            }
        }
        store.commit(batch)?;
        store.maintain(256 << 10)?;
    }
    let rate = id as f64 / start.elapsed().as_secs_f64();
    drop(store);
    std::fs::remove_dir_all(dir)?;
    Ok(rate)
}
