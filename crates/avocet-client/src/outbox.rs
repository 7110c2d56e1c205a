//! The way of what changes into a [`Storage`], and back after a restart.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Condvar, PoisonError};
use std::thread;
use std::time::Duration;

use avocet_codec::PacketId;
use avocet_session::{CommitId, Outgoing, RestoredMessage, Session, UnixTime};
use tracing::{error, warn};

use crate::state::Shared;
use crate::storage::{Record, Storage, Stored, StoredMessage};

/// How long to wait before what could not be stored is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be stored, and how far that has got.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Not given to the storage yet.
    records: Vec<Record>,
    /// The commit that these will be.
    next: u64,
    /// The storage has these.
    busy: bool,
    /// Nothing follows.
    ended: bool,
    next_place: u64,
    /// Messages that came, are stored, and that the application has not acknowledged.
    incoming: usize,
    incoming_max: usize,
}

/// Tells the thread of the storage that there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Bell(Condvar);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }
}

impl Outbox {
    fn new(incoming_max: usize, stored: &Stored) -> Self {
        let last = stored.incoming.last();
        Self {
            records: Vec::new(),
            next: 1,
            busy: false,
            ended: false,
            next_place: last.map_or(0, |message| message.place + 1),
            incoming: stored.incoming.len(),
            incoming_max,
        }
    }

    /// The commit of what is recorded next.
    pub(crate) const fn commit(&self) -> CommitId {
        CommitId::new(self.next)
    }

    pub(crate) fn record(&mut self, record: Record) -> CommitId {
        self.records.push(record);
        self.commit()
    }

    /// Whether the thread has something to do.
    pub(crate) fn is_due(&self) -> bool {
        (!self.records.is_empty() && !self.busy) || self.ended
    }

    /// What the thread had is stored.
    pub(crate) fn stored(&mut self) {
        self.busy = false;
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// A place for a message that came; none if the application has so many that this one waits
    /// for it on the connection.
    pub(crate) fn place(&mut self) -> Option<u64> {
        if self.incoming >= self.incoming_max {
            return None;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.incoming += 1;
        Some(place)
    }

    pub(crate) fn take(&mut self, place: u64) {
        self.incoming = self.incoming.saturating_sub(1);
        self.record(Record::Taken { place });
    }

    pub(crate) fn receive(
        &mut self,
        packet_id: PacketId,
        message: Option<StoredMessage>,
    ) -> CommitId {
        self.record(Record::Received { packet_id, message })
    }
}

/// What an earlier process left, beside what its Session has.
pub(crate) struct Restored {
    pub(crate) outbox: Outbox,
    /// Messages that the application gets again.
    pub(crate) incoming: Vec<StoredMessage>,
    /// Messages on their way to the server: their places, when they were queued, their deadlines.
    pub(crate) queued: Vec<(u64, UnixTime, Option<UnixTime>)>,
}

/// Puts what was stored into an empty Session.
pub(crate) fn restore(
    storage: &mut dyn Storage,
    session: &mut Session,
    incoming_max: usize,
) -> Result<Restored, Box<dyn Error + Send + Sync>> {
    let stored = storage.load()?;
    let outbox = Outbox::new(incoming_max, &stored);
    let Stored {
        outgoing,
        received,
        incoming,
    } = stored;
    let queued = outgoing
        .iter()
        .map(|it| (it.sequence, it.queued_at, it.message.expires_at()))
        .collect();
    session.restore_messages(outgoing.into_iter().map(|it| RestoredMessage {
        sequence: it.sequence,
        outgoing: Outgoing::new(it.message),
        sent: it.sent,
        pubrec_received: it.pubrec,
    }));
    received
        .into_iter()
        .for_each(|id| session.restore_received(id));
    Ok(Restored {
        outbox,
        incoming,
        queued,
    })
}

/// The thread of a storage: what came while one call ran goes into the next.
pub(crate) fn start(shared: Arc<Shared>, storage: Box<dyn Storage>) -> std::io::Result<()> {
    let run = move || {
        run(&shared, storage);
        // Its files may be opened again.
        shared.change(|state| state.outbox = None);
    };
    thread::Builder::new()
        .name("avocet-storage".into())
        .spawn(run)
        .map(drop)
}

fn run(shared: &Shared, mut storage: Box<dyn Storage>) {
    let mut records = Vec::new();
    let mut failed = false;
    loop {
        let (commit, ended) = {
            let mut state = shared.lock();
            if failed {
                let waited = shared.bell.0.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                let idle = shared.bell.0.wait_while(state, |state| {
                    state.outbox.as_ref().is_some_and(|outbox| !outbox.is_due())
                });
                state = idle.unwrap_or_else(PoisonError::into_inner);
            }
            let Some(outbox) = &mut state.outbox else {
                return;
            };
            records.append(&mut outbox.records);
            let commit = CommitId::new(outbox.next);
            outbox.next += 1;
            outbox.busy = !records.is_empty();
            (commit, outbox.ended)
        };
        if records.is_empty() {
            if ended {
                return;
            }
            continue;
        }
        match storage.store(&records) {
            Ok(()) => {
                failed = false;
                records.clear();
                shared.change(|state| state.committed(commit));
                shared.committed.send_replace(commit);
            }
            Err(error) => {
                if ended {
                    error!(%error, "what the client leaves is not stored");
                    return;
                }
                if !failed {
                    warn!(%error, "nothing is stored, and nothing leaves");
                }
                failed = true;
                shared.change(|state| state.not_stored(&*error));
            }
        }
    }
}

/// Records as they add up: for storages that keep everything in memory, and to test others with.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    stored: Arc<std::sync::Mutex<Sums>>,
}

#[derive(Debug, Default)]
struct Sums {
    outgoing: BTreeMap<u64, crate::storage::StoredOutgoing>,
    received: BTreeMap<PacketId, ()>,
    incoming: BTreeMap<u64, StoredMessage>,
}

impl MemoryStorage {
    /// With nothing in it. Clones are the same storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Storage for MemoryStorage {
    fn load(&mut self) -> Result<Stored, Box<dyn Error + Send + Sync>> {
        let sums = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Stored {
            outgoing: sums.outgoing.values().cloned().collect(),
            received: sums.received.keys().copied().collect(),
            incoming: sums.incoming.values().cloned().collect(),
        })
    }

    fn store(&mut self, records: &[Record]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut sums = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            match record.clone() {
                Record::Queued {
                    sequence,
                    message,
                    queued_at,
                    sent,
                } => {
                    let outgoing = crate::storage::StoredOutgoing {
                        sequence,
                        message,
                        queued_at,
                        sent,
                        pubrec: false,
                    };
                    sums.outgoing.insert(sequence, outgoing);
                }
                Record::Sent { sequence } => {
                    if let Some(outgoing) = sums.outgoing.get_mut(&sequence) {
                        outgoing.sent = true;
                    }
                }
                Record::Pubrec { sequence } => {
                    if let Some(outgoing) = sums.outgoing.get_mut(&sequence) {
                        outgoing.pubrec = true;
                    }
                }
                Record::Finished { sequence } => {
                    sums.outgoing.remove(&sequence);
                }
                Record::Received { packet_id, message } => {
                    sums.received.insert(packet_id, ());
                    if let Some(message) = message {
                        sums.incoming.insert(message.place, message);
                    }
                }
                Record::Released { packet_id } => {
                    sums.received.remove(&packet_id);
                }
                Record::AllReleased => sums.received.clear(),
                Record::Taken { place } => {
                    sums.incoming.remove(&place);
                }
            }
        }
        Ok(())
    }
}
