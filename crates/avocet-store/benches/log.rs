//! What it costs to make messages durable: 256 bytes each, referred to by one of 1,000 queues.
//! `group` syncs once for 512 of them, `naive` once for each; `drain` reads 512 and removes them.
//! `TMPDIR` says on which disk.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a failing disk fails the run")]

use std::path::PathBuf;

use avocet_store::{Batch, BlobId, LogOptions, LogStore, PageLimit, QueueId, Store};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const GROUP: u64 = 512;
const QUEUES: u64 = 1_000;

struct Bench {
    store: LogStore,
    payload: Bytes,
    next: u64,
    drained: u64,
}

impl Bench {
    fn new(dir: PathBuf) -> Self {
        let _ = std::fs::remove_dir_all(&dir);
        Self {
            store: LogStore::open_dir(dir, LogOptions::default()).unwrap(),
            payload: Bytes::from(vec![0x5a; 256]),
            next: 0,
            drained: 0,
        }
    }

    fn queue(number: u64) -> QueueId {
        QueueId(number % QUEUES)
    }

    fn append(&mut self, count: u64) {
        for id in self.next..self.next + count {
            let mut batch = Batch::new();
            batch.put_blob(BlobId(id), self.payload.clone());
            batch.append(Self::queue(id), Bytes::new(), Some(BlobId(id)));
            batch.release_blob(BlobId(id));
            self.store.commit(batch).unwrap();
        }
        self.next += count;
        self.store.sync().unwrap();
    }

    fn drain(&mut self, count: u64) {
        let one = PageLimit {
            items: 1,
            bytes: usize::MAX,
        };
        for id in self.drained..self.drained + count {
            let queue = Self::queue(id);
            let entry = self.store.read_queue(queue, 0, one).unwrap().remove(0);
            let blob = self.store.blob(entry.blob.unwrap()).unwrap();
            assert_eq!(blob.map(|blob| blob.len()), Some(256));
            let mut batch = Batch::new();
            batch.advance(queue, entry.sequence + 1);
            self.store.commit(batch).unwrap();
        }
        self.drained += count;
        self.store.sync().unwrap();
        self.store.maintain(1 << 20).unwrap();
    }
}

fn log(criterion: &mut Criterion) {
    let dir = std::env::temp_dir().join(format!("avocet-store-bench-{}", std::process::id()));
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(GROUP));
    group.bench_function("group", |bencher| {
        let mut bench = Bench::new(dir.clone());
        bencher.iter(|| bench.append(GROUP));
    });
    group.bench_function("group and drain", |bencher| {
        let mut bench = Bench::new(dir.clone());
        bencher.iter(|| {
            bench.append(GROUP);
            bench.drain(GROUP);
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("naive", |bencher| {
        let mut bench = Bench::new(dir.clone());
        bencher.iter(|| bench.append(1));
    });
    group.finish();
    let _ = std::fs::remove_dir_all(&dir);
}

criterion_group!(benches, log);
criterion_main!(benches);
