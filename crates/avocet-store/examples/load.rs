//! What the store costs: `load DIR steady|sleeper|paced|offline|shared|keys MESSAGES QUEUES [PAYLOAD]`.
//!
//! `steady` puts messages into queues in turn, 512 for each sync, removes those of the group before, and
//! gives space back. With `sleeper` each hundredth message stays, in a queue of its own. `paced` does
//! the same with 128 messages every 2.5 milliseconds, and syncs as many bytes to a file beside it in
//! turn. `offline` puts each message into one queue, then reopens and drains all. `shared`
//! puts as many entries, but each message into all queues. `keys` puts as many keys, half of which refer
//! to a message, and reopens.
//! CPU time, memory and bytes written are those that Linux counts.
#![allow(clippy::unwrap_used, reason = "a failing disk ends the run")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::indexing_slicing, reason = "it fails as a whole")]

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use avocet_store::{Batch, BlobId, LogOptions, LogStore, PageLimit, QueueId, Store};
use bytes::Bytes;

const GROUP: u64 = 512;

/// CPU seconds, resident MiB, the most of them and MiB written so far.
fn used() -> (f64, f64, f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| -> f64 {
        let field = stat.split_whitespace().nth(at);
        field.and_then(|field| field.parse().ok()).unwrap_or(0.0)
    };
    let counted = |file: &str, name: &str| -> f64 {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    (
        (ticks(13) + ticks(14)) / 100.0,
        counted("/proc/self/status", "VmRSS:") / 1024.0,
        counted("/proc/self/status", "VmHWM:") / 1024.0,
        counted("/proc/self/io", "write_bytes:") / 1048576.0,
    )
}

fn phase<T>(name: &str, messages: u64, run: impl FnOnce() -> T) -> T {
    let (before, start) = (used(), Instant::now());
    let result = run();
    let (seconds, after) = (start.elapsed().as_secs_f64(), used());
    println!(
        "{name:8} {:8.0} msg/s  {:.2} CPU s per million  RSS {:.1} MiB (most {:.1})  {:.0} bytes written per message",
        messages as f64 / seconds,
        (after.0 - before.0) * 1e6 / messages as f64,
        after.1,
        after.2,
        (after.3 - before.3) * 1048576.0 / messages as f64,
    );
    result
}

/// A message for one of the queues.
fn message(id: u64, queues: u64, payload: &Bytes) -> Batch {
    let mut batch = Batch::new();
    batch.put_blob(BlobId(id), payload.clone());
    batch.append(QueueId(id % queues), Bytes::new(), Some(BlobId(id)));
    batch.release_blob(BlobId(id));
    batch
}

/// Messages come and go; one of a hundred stays if `sleeper` is set.
struct Steady {
    store: LogStore,
    payload: Bytes,
    queues: u64,
    sleeper: bool,
    /// The messages of the group before: queue and sequence.
    group: Vec<(u64, u64)>,
    ends: Vec<u64>,
}

impl Steady {
    fn commit(&mut self, messages: Range<u64>) {
        let old = std::mem::take(&mut self.group);
        for id in messages {
            let sleeps = self.sleeper && id % 100 == 0;
            let queue = if sleeps {
                self.queues
            } else {
                id % self.queues
            };
            let mut batch = Batch::new();
            batch.put_blob(BlobId(id), self.payload.clone());
            batch.append(QueueId(queue), Bytes::new(), Some(BlobId(id)));
            batch.release_blob(BlobId(id));
            self.store.commit(batch).unwrap();
            let end = &mut self.ends[queue as usize];
            *end += 1;
            if !sleeps {
                self.group.push((queue, *end));
            }
        }
        for (queue, to) in old {
            let mut batch = Batch::new();
            batch.advance(QueueId(queue), to);
            self.store.commit(batch).unwrap();
        }
    }

    fn run(&mut self, messages: u64) {
        let mut id = 0;
        while id < messages {
            self.commit(id..id + GROUP);
            self.store.sync().unwrap();
            self.store.maintain(1 << 20).unwrap();
            id += GROUP;
        }
    }

    /// How long calls take, while messages come at some rate.
    fn run_paced(&mut self, messages: u64, dir: &str) {
        const PACED: u64 = 128;
        let tick = Duration::from_micros(2_500);
        let name = format!("{dir}/beside");
        let beside = fs::File::create(&name).unwrap();
        let (mut offset, mut id) = (0, 0);
        let mut times: [Vec<f64>; 4] = Default::default();
        let mut next = Instant::now();
        while id < messages {
            next += tick;
            let mut time = |at: usize, start: Instant| {
                times[at].push(start.elapsed().as_secs_f64() * 1e3);
            };
            let start = Instant::now();
            self.commit(id..id + PACED);
            time(0, start);
            let bytes = vec![7; self.store.buffered_bytes()];
            self.store.sync().unwrap();
            time(1, start);
            let start = Instant::now();
            self.store.maintain(64 << 10).unwrap();
            time(2, start);
            let start = Instant::now();
            beside.write_all_at(&bytes, offset).unwrap();
            beside.sync_data().unwrap();
            time(3, start);
            offset = (offset + bytes.len() as u64) % (64 << 20);
            id += PACED;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        fs::remove_file(name).unwrap();
        let names = ["commit", "commit+sync", "maintain", "bare sync"];
        for (name, mut times) in names.into_iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
            println!(
                "{name:12} p50 {:.3}  p99 {:.3}  p99.9 {:.3}  most {:.3} ms",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        }
    }
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u64>().ok());
    let dir = args.get(1).unwrap();
    let (messages, queues) = (number(3).unwrap(), number(4).unwrap());
    let payload = Bytes::from(vec![0x5a; number(5).unwrap_or(256) as usize]);
    let _ = fs::remove_dir_all(dir);
    let mut store = LogStore::open_dir(dir, LogOptions::default()).unwrap();
    println!("start: RSS {:.1} MiB", used().1);
    let mode = args.get(2).unwrap();
    if ["steady", "sleeper", "paced"].contains(&mode.as_str()) {
        let mut steady = Steady {
            store,
            payload,
            queues,
            sleeper: mode != "steady",
            group: Vec::new(),
            ends: vec![0; queues as usize + 1],
        };
        phase(mode, messages, || match mode.as_str() {
            "paced" => steady.run_paced(messages, dir),
            _ => steady.run(messages),
        });
        println!(
            "log: {:.1} MiB",
            steady.store.disk_bytes() as f64 / 1048576.0
        );
        return;
    }
    if mode == "keys" {
        phase("put", messages, || {
            for id in 0..messages {
                let mut batch = Batch::new();
                let blob = (id % 2 == 0).then_some(BlobId(id));
                if let Some(blob) = blob {
                    batch.put_blob(blob, payload.clone());
                }
                let key = format!("some/key/of/usual/length/{id}");
                batch.put_key(key.into(), Bytes::from_static(&[1; 24]), blob);
                if let Some(blob) = blob {
                    batch.release_blob(blob);
                }
                store.commit(batch).unwrap();
                if id % GROUP == 0 {
                    store.sync().unwrap();
                    store.maintain(1 << 20).unwrap();
                }
            }
            store.sync().unwrap();
        });
        drop(store);
        let open = || LogStore::open_dir(dir, LogOptions::default()).unwrap();
        drop(phase("reopen", messages, open));
        return;
    }
    phase("enqueue", messages, || {
        let shared = mode == "shared";
        let blobs = if shared { messages / queues } else { messages };
        for id in 0..blobs {
            if shared {
                let mut batch = Batch::new();
                batch.put_blob(BlobId(id), payload.clone());
                for queue in (0..queues).map(QueueId) {
                    batch.append(queue, Bytes::new(), Some(BlobId(id)));
                }
                batch.release_blob(BlobId(id));
                store.commit(batch).unwrap();
            } else {
                store.commit(message(id, queues, &payload)).unwrap();
            }
            if id % GROUP == 0 || shared {
                store.sync().unwrap();
                store.maintain(1 << 20).unwrap();
            }
        }
        store.sync().unwrap();
    });
    println!("index: {:.1} MiB", store.index_bytes() as f64 / 1048576.0);
    drop(store);
    let mut store = phase("reopen", messages, || {
        LogStore::open_dir(dir, LogOptions::default()).unwrap()
    });
    phase("drain", messages, || {
        let limit = PageLimit {
            items: 64,
            bytes: 65_536,
        };
        let (mut drained, mut group) = (0, 0);
        while drained < messages {
            for queue in (0..queues).map(QueueId) {
                let entries = store.read_queue(queue, 0, limit).unwrap();
                for entry in &entries {
                    let blob = store.blob(entry.blob.unwrap()).unwrap().unwrap();
                    assert_eq!(blob.len(), payload.len());
                    let mut batch = Batch::new();
                    batch.advance(queue, entry.sequence + 1);
                    store.commit(batch).unwrap();
                }
                drained += entries.len() as u64;
                group += entries.len() as u64;
                if group >= GROUP {
                    group = 0;
                    store.sync().unwrap();
                    store.maintain(1 << 20).unwrap();
                }
            }
        }
        store.sync().unwrap();
    });
    println!("left: {} bytes", store.disk_bytes());
}
