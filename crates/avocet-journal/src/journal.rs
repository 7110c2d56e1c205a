//! The journal: what is kept in memory of what is stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use avocet_engine::{GroupName, SessionKey};
use avocet_session::Message;
use avocet_store::{
    BlobId, CommitError, KeyValue, PageLimit, Position, QueueId, ReadError, Store, SyncError,
};
use bytes::Bytes;

use crate::value::{
    EntryValue, FORMAT, Kind, OfGroupValue, Reader, SessionValue, ValueError, decode_message, key,
};

pub(crate) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Why the journal cannot go on with what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The store refused the batch. Nothing of it was applied.
    #[error("cannot store: {0}")]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is stored cannot be understood.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// What is stored is of a format that this version does not know.
    #[error("format {0} is not known to this version")]
    Format(u64),
}

/// What is known of a session without reading.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Names it in keys, and its queue.
    pub(crate) number: u64,
    /// The session's sequence of the entry 0 of the queue, in wrapping arithmetic.
    pub(crate) base: u64,
    /// The first entry of the queue, by the session's sequence.
    pub(crate) first: u64,
    /// Behind its last one.
    pub(crate) end: u64,
    /// Bytes of all messages put into the queue since it was last empty.
    pub(crate) bytes: u64,
    /// How many entries were taken out of the queue because what is behind them is finished.
    pub(crate) lifted: u64,
    /// For how many messages PUBREC came.
    pub(crate) pubrecs: u64,
    /// Sequences behind the first one that are finished: beginnings and ends. At most as many as
    /// there are messages in flight.
    pub(crate) finished: BTreeMap<u64, u64>,
    /// How many messages came from shared subscriptions.
    pub(crate) of_groups: u64,
}

impl Session {
    /// One of which nothing is known.
    pub(crate) const fn new(number: u64) -> Self {
        Self {
            number,
            base: 0,
            first: 0,
            end: 0,
            bytes: 0,
            lifted: 0,
            pubrecs: 0,
            finished: BTreeMap::new(),
            of_groups: 0,
        }
    }
}

/// A message that is not only in queues of sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) len: u32,
    /// How many shared subscriptions hold it, and one more until it is routed.
    pub(crate) holds: u32,
    /// It was stored in this batch, which holds it too.
    pub(crate) new: bool,
}

/// The records of a broker's engines in a [`Store`].
///
/// In memory are a few words for each session and for each message that is being routed or
/// belongs to a shared subscription; nothing for a message in the queue of a session.
#[derive(Debug)]
pub struct Journal<S> {
    pub(crate) store: S,
    pub(crate) sessions: Map<Arc<SessionKey>, Session>,
    /// The numbers of shared subscriptions.
    pub(crate) groups: Map<GroupName, u64>,
    pub(crate) held: Map<u64, Held>,
    /// The number of the next session or group.
    pub(crate) next_number: u64,
    /// What no message's count is above.
    pub(crate) message_count: u64,
    pub(crate) ignored: u64,
}

const PAGE: PageLimit = PageLimit {
    items: 1_000,
    bytes: 1 << 20,
};

impl<S: Store> Journal<S> {
    /// Takes a store that is empty or was written by a journal.
    pub fn open(store: S) -> Result<Self, JournalError> {
        let mut journal = Self {
            store,
            sessions: Map::default(),
            groups: Map::default(),
            held: Map::default(),
            next_number: 1,
            message_count: 0,
            ignored: 0,
        };
        match journal.int(&key(Kind::Format))? {
            None => {}
            Some(FORMAT) => journal.index()?,
            Some(other) => return Err(JournalError::Format(other)),
        }
        Ok(journal)
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The store, for maintenance. What the journal wrote must stay as it is.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Writes everything applied so far: it survives the end of the program, but not that of the
    /// power.
    pub fn write(&mut self) -> Result<Position, SyncError> {
        self.store.write()
    }

    /// Makes everything applied so far durable, and returns the position of the last batch.
    pub fn sync(&mut self) -> Result<Position, SyncError> {
        self.store.sync()
    }

    /// How many records said nothing, or queued a message without its content, because what they are
    /// about is not stored: late ones about a session that has ended. Others would be a bug of the
    /// engine.
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How many sessions are stored.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn int(&self, name: &Bytes) -> Result<Option<u64>, JournalError> {
        let Some(found) = self.store.key(name)? else {
            return Ok(None);
        };
        let kind = Kind::of(name).unwrap_or(Kind::Format);
        Ok(Some(read_int(kind, &found.value)?))
    }

    /// Gives every key with a prefix to `take`, page by page.
    pub(crate) fn for_each_key(
        &self,
        prefix: &[u8],
        mut take: impl FnMut(&KeyValue) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.store.scan(prefix, after.as_deref(), PAGE)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.key.clone());
            for found in &page {
                take(found)?;
            }
        }
    }

    /// Learns what it keeps in memory.
    fn index(&mut self) -> Result<(), JournalError> {
        let mut groups: Map<GroupName, u64> = Map::default();
        let mut next_number = self.next_number;
        self.for_each_key(&key(Kind::Group), |found| {
            let group = Reader::of_key(Kind::Group, &found.key).group()?;
            let number = read_int(Kind::Group, &found.value)?;
            next_number = next_number.max(number.saturating_add(1));
            groups.insert(group, number);
            Ok(())
        })?;
        let mut names: Vec<(Arc<SessionKey>, u64)> = Vec::new();
        let mut known: Map<u64, Session> = Map::default();
        self.for_each_key(&key(Kind::Session), |found| {
            let mut name = Reader::of_key(Kind::Session, &found.key);
            let session = name.session_key()?;
            name.end(())?;
            let number = SessionValue::decode(&found.value)?.number;
            next_number = next_number.max(number.saturating_add(1));
            known.insert(number, Session::new(number));
            names.push((Arc::new(session), number));
            Ok(())
        })?;
        self.index_parts(&mut known)?;
        for session in known.values_mut() {
            self.index_queue(session)?;
        }
        // The number of a group that has ended may still stand here: no other one may get it.
        self.for_each_key(&key(Kind::OfGroup), |found| {
            let group = OfGroupValue::decode(&found.value)?.group;
            next_number = next_number.max(group.saturating_add(1));
            Ok(())
        })?;
        let mut held: Map<u64, Held> = Map::default();
        for kind in [Kind::GroupMessage, Kind::Unrouted] {
            self.for_each_key(&key(kind), |found| self.hold(found, &mut held))?;
        }
        self.message_count = self.int(&key(Kind::MessageCount))?.unwrap_or(0);
        let sessions = names.into_iter();
        self.sessions = sessions
            .filter_map(|(name, number)| Some((name, known.remove(&number)?)))
            .collect();
        self.groups = groups;
        self.held = held;
        self.next_number = next_number;
        Ok(())
    }

    /// Learns what is stored of sessions beside their queues: one scan of each kind, however many sessions
    /// there are.
    fn index_parts(&self, known: &mut Map<u64, Session>) -> Result<(), JournalError> {
        self.for_each_key(&key(Kind::Base), |found| {
            if let Some(session) = known.get_mut(&number_of(Kind::Base, &found.key)?) {
                session.base = read_int(Kind::Base, &found.value)?;
            }
            Ok(())
        })?;
        self.for_each_key(&key(Kind::Finished), |found| {
            if let Some(session) = known.get_mut(&number_of(Kind::Finished, &found.key)?) {
                let start = sequence_of(Kind::Finished, &found.key)?;
                let end = read_int(Kind::Finished, &found.value)?;
                session.finished.insert(start, end);
            }
            Ok(())
        })?;
        let mut count = |kind: Kind, field: fn(&mut Session) -> &mut u64| {
            self.for_each_key(&key(kind), |found| {
                if let Some(session) = known.get_mut(&number_of(kind, &found.key)?) {
                    *field(session) += 1;
                }
                Ok(())
            })
        };
        count(Kind::Lifted, |session| &mut session.lifted)?;
        count(Kind::Pubrec, |session| &mut session.pubrecs)?;
        count(Kind::OfGroup, |session| &mut session.of_groups)
    }

    fn index_queue(&self, session: &mut Session) -> Result<(), JournalError> {
        let Some(range) = self.store.queue(QueueId(session.number)) else {
            (session.first, session.end) = (session.base, session.base);
            return Ok(());
        };
        session.first = session.base.wrapping_add(range.start);
        session.end = session.base.wrapping_add(range.end);
        if !range.is_empty() {
            let last = self.entry(session.number, range.end - 1)?;
            session.bytes = last.before.saturating_add(last.len.into());
        }
        Ok(())
    }

    fn hold(&self, found: &KeyValue, held: &mut Map<u64, Held>) -> Result<(), JournalError> {
        let missing = ValueError(Kind::Message);
        let id = found.blob.ok_or(missing)?;
        if let Some(known) = held.get_mut(&id.0) {
            known.holds += 1;
            return Ok(());
        }
        let len = self.message(id)?.len();
        let len = u32::try_from(len).map_err(|_| missing)?;
        held.insert(
            id.0,
            Held {
                len,
                holds: 1,
                new: false,
            },
        );
        Ok(())
    }

    /// An entry of a queue, by its place in the queue.
    pub(crate) fn entry(&self, queue: u64, place: u64) -> Result<EntryValue, JournalError> {
        let limit = PageLimit { items: 1, bytes: 0 };
        let entries = self.store.read_queue(QueueId(queue), place, limit)?;
        let entry = entries.first().ok_or(ValueError(Kind::Entry))?;
        Ok(EntryValue::decode(&entry.value)?)
    }

    pub(crate) fn message(&self, id: BlobId) -> Result<Message, JournalError> {
        let missing = ValueError(Kind::Message);
        let blob = self.store.blob(id)?.ok_or(missing)?;
        Ok(decode_message(Kind::Message, &blob, None)?.message)
    }
}

pub(crate) fn read_int(kind: Kind, bytes: &[u8]) -> Result<u64, ValueError> {
    let mut reader = Reader::new(kind, bytes);
    let value = reader.int()?;
    reader.end(value)
}

/// The number of the session or group in the key of a part of it.
pub(crate) fn number_of(kind: Kind, key: &[u8]) -> Result<u64, ValueError> {
    Reader::of_key(kind, key).int()
}

/// The sequence in the key of a part of a session or group.
pub(crate) fn sequence_of(kind: Kind, key: &[u8]) -> Result<u64, ValueError> {
    let mut name = Reader::of_key(kind, key);
    name.int()?;
    let sequence = name.u64()?;
    name.end(sequence)
}
