//! The sessions of a shard, with and without a connection.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;

use avocet_session::{Instant, Session, UnixTime};
use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::ConnectionId;
use crate::access::Access;
use crate::member::SharedMarks;
use crate::retained::RetainedCursor;
use crate::shapes::Shapes;
use crate::shard::{ShardId, StableHash};
use crate::subscriptions::Subscriptions;
use crate::tenant::SpaceId;
use crate::will::Will;

/// Names a session everywhere and forever: a Client Identifier, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The tenant, and behind a line feed the user if Client Identifiers are of each user. No name of
    /// a tenant has one.
    realm: Box<str>,
    client_id: Box<str>,
}

impl SessionKey {
    /// The session of a Client Identifier within a tenant, which is empty by default.
    #[must_use]
    pub fn new(tenant: &str, client_id: &str) -> Self {
        Self::in_realm(tenant, client_id)
    }

    /// The same, where users of a tenant have Client Identifiers of their own: no user gets at the
    /// session of another one.
    #[must_use]
    pub fn of_user(tenant: &str, user: Option<&str>, client_id: &str) -> Self {
        match user {
            Some(user) => Self::in_realm(&format!("{tenant}\n{user}"), client_id),
            None => Self::in_realm(tenant, client_id),
        }
    }

    /// What was named by its [`realm`](Self::realm) and its Client Identifier.
    #[must_use]
    pub fn in_realm(realm: &str, client_id: &str) -> Self {
        Self {
            realm: realm.into(),
            client_id: client_id.into(),
        }
    }

    /// Within what its Client Identifier is unique, as it is stored.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The tenant, which is empty by default.
    #[must_use]
    pub fn tenant(&self) -> &str {
        if self.realm.is_empty() {
            return "";
        }
        self.realm.split_once('\n').map_or(&self.realm, |it| it.0)
    }

    /// The user, where Client Identifiers are of each user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.realm.split_once('\n').map(|it| it.1)
    }

    /// The Client Identifier.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn stable_hash(&self) -> StableHash {
        StableHash::new().text(&self.realm).text(&self.client_id)
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tenant().is_empty() {
            write!(f, "{}/", self.tenant())?;
        }
        if let Some(user) = self.user() {
            write!(f, "{user}/")?;
        }
        f.write_str(&self.client_id)
    }
}

/// Where a session is in the table of its shard; never the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionHandle {
    index: u32,
    generation: u32,
}

/// What the shard knows of a session beside its Session State.
pub(crate) struct Slot {
    pub(crate) key: Arc<SessionKey>,
    /// The topics of its tenant.
    pub(crate) space: SpaceId,
    /// Its connection, which then holds the Session State.
    pub(crate) connection: Option<ConnectionId>,
    /// What its client may do, by rules; none if there are none, or until it is back after a restart.
    pub(crate) access: Option<Box<Access>>,
    /// The Session State, while there is no connection.
    pub(crate) session: Option<Box<Session>>,
    /// Seconds, as it stood when the connection was accepted or ended.
    pub(crate) expiry_interval: u32,
    /// Whether it was ever to outlive its connection, so that the store knows it.
    pub(crate) durable: bool,
    /// When it ends, while there is no connection.
    pub(crate) expires_at: Option<UnixTime>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) shapes: Shapes,
    pub(crate) will: Option<Box<Will>>,
    /// Retained messages yet to be asked for, by number; the first one is at work.
    pub(crate) cursors: BTreeMap<u64, RetainedCursor>,
    /// PUBLISHes on their way to owners of topics.
    pub(crate) relays: Vec<(ShardId, u32)>,
    /// What messages of shared subscriptions are to their groups.
    pub(crate) marks: SharedMarks,
    /// The marks of those that only the store has, by their sequences in the queue.
    pub(crate) stored_marks: BTreeMap<u64, u64>,
    /// Since when its queue slows those who publish to it.
    pub(crate) slows_since: Option<Instant>,
    /// Whether it has messages whose gates are named when they are next to leave.
    pub(crate) names_gates: bool,
    /// The last message matched to this session, and where its delivery is gathered.
    pub(crate) mark: (u64, usize),
    /// Messages and bytes that the shard's totals count for this session.
    pub(crate) counted: (usize, u64),
}

impl Slot {
    pub(crate) fn new(key: Arc<SessionKey>, space: SpaceId) -> Self {
        Self {
            key,
            space,
            connection: None,
            access: None,
            session: None,
            expiry_interval: 0,
            durable: false,
            expires_at: None,
            subscriptions: Subscriptions::default(),
            shapes: Shapes::default(),
            will: None,
            cursors: BTreeMap::new(),
            relays: Vec::new(),
            marks: SharedMarks::default(),
            stored_marks: BTreeMap::new(),
            slows_since: None,
            names_gates: false,
            mark: (0, 0),
            counted: (0, 0),
        }
    }

    /// Whether it is gone with its connection, and so is what its client has not acknowledged.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.expiry_interval == 0 && !self.durable
    }

    /// Whether the session survives the process, or ends after it: one that goes on with an
    /// interval of 0 keeps what only the store has.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }
}

pub(crate) struct SessionTable {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Those that there are, with the hashes of their keys: a table that grows would have to look at
    /// each key again.
    by_key: HashTable<(u64, SessionHandle)>,
    hasher: FixedState,
}

struct Entry {
    generation: u32,
    slot: Option<Box<Slot>>,
}

impl SessionTable {
    /// An empty table; clients choose the keys, so they must not know the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.entries
            .iter()
            .filter_map(|entry| entry.slot.as_deref())
    }

    pub(crate) fn find(&self, key: &SessionKey) -> Option<SessionHandle> {
        let hash = self.hasher.hash_one(key);
        let is_it = |known: &(u64, SessionHandle)| {
            known.0 == hash && self.get(known.1).is_some_and(|slot| *slot.key == *key)
        };
        self.by_key.find(hash, is_it).map(|known| known.1)
    }

    pub(crate) fn get(&self, handle: SessionHandle) -> Option<&Slot> {
        let entry = self.entries.get(handle.index as usize)?;
        entry
            .slot
            .as_deref()
            .filter(|_| entry.generation == handle.generation)
    }

    pub(crate) fn get_mut(&mut self, handle: SessionHandle) -> Option<&mut Slot> {
        let entry = self.entries.get_mut(handle.index as usize)?;
        entry
            .slot
            .as_deref_mut()
            .filter(|_| entry.generation == handle.generation)
    }

    /// Adds a session; none with this key may be there.
    pub(crate) fn insert(&mut self, slot: Slot) -> SessionHandle {
        let hash = self.hasher.hash_one(&*slot.key);
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                slot: None,
            });
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.slot = Some(Box::new(slot));
            generation = entry.generation;
        }
        let handle = SessionHandle { index, generation };
        self.by_key
            .insert_unique(hash, (hash, handle), |known| known.0);
        handle
    }

    pub(crate) fn remove(&mut self, handle: SessionHandle) -> Option<Box<Slot>> {
        let entry = self.entries.get_mut(handle.index as usize)?;
        if entry.generation != handle.generation {
            return None;
        }
        let slot = entry.slot.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(handle.index);
        let hash = self.hasher.hash_one(&*slot.key);
        if let Ok(known) = self.by_key.find_entry(hash, |known| known.1 == handle) {
            known.remove();
        }
        Some(slot)
    }
}
