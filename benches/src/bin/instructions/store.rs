//! The log on a simulated disk: the work of the processor, without that of the kernel.

use avocet_store::{Batch, BlobId, LogOptions, LogStore, PageLimit, QueueId, SimVfs, Store};
use bytes::Bytes;

use crate::Work;

const MESSAGES: u64 = 512;
const QUEUES: u64 = 100;

pub(crate) fn works() -> Vec<Work> {
    vec![
        Work::new("store append", MESSAGES as u32, || {
            let mut log = Log::new();
            move || log.append()
        }),
        Work::new("store append and drain", MESSAGES as u32, || {
            let mut log = Log::new();
            move || {
                log.append();
                log.drain();
            }
        }),
    ]
}

struct Log {
    store: LogStore<SimVfs>,
    payload: Bytes,
    next: u64,
    drained: u64,
}

impl Log {
    fn new() -> Self {
        Self {
            store: LogStore::open(SimVfs::new(), LogOptions::default()).unwrap(),
            payload: Bytes::from(vec![0x5a; 256]),
            next: 0,
            drained: 0,
        }
    }

    /// A batch for each message, and one sync for all.
    fn append(&mut self) {
        for id in self.next..self.next + MESSAGES {
            let mut batch = Batch::new();
            batch.put_blob(BlobId(id), self.payload.clone());
            batch.append(QueueId(id % QUEUES), Bytes::new(), Some(BlobId(id)));
            batch.release_blob(BlobId(id));
            self.store.commit(batch).unwrap();
        }
        self.next += MESSAGES;
        self.store.sync().unwrap();
    }

    fn drain(&mut self) {
        let one = PageLimit {
            items: 1,
            bytes: usize::MAX,
        };
        for id in self.drained..self.drained + MESSAGES {
            let queue = QueueId(id % QUEUES);
            let entry = self.store.read_queue(queue, 0, one).unwrap().remove(0);
            let blob = self.store.blob(entry.blob.unwrap()).unwrap();
            assert_eq!(blob.map(|blob| blob.len()), Some(256));
            let mut batch = Batch::new();
            batch.advance(queue, entry.sequence + 1);
            self.store.commit(batch).unwrap();
        }
        self.drained += MESSAGES;
        self.store.sync().unwrap();
        self.store.maintain(1 << 20).unwrap();
    }
}
