//! The connections of a shard, by the engine's name for them and by the poll's.

use std::collections::HashMap;

use avocet_engine::ConnectionId;
use foldhash::fast::RandomState;

use crate::connection::Connection;

/// The place of a connection in the table of its shard, and its token at the poll. A place is used
/// again: an event for one that changed hands is harmless, it only causes a look at the stream.
pub(crate) type Key = usize;

#[derive(Default)]
pub(crate) struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<Key>,
    keys: HashMap<ConnectionId, Key, RandomState>,
}

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, id: ConnectionId) -> Option<Key> {
        self.keys.get(&id).copied()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.places.get_mut(key)?.as_mut()
    }

    /// The key the next insertion will have.
    pub(crate) fn next_key(&self) -> Key {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    pub(crate) fn insert(&mut self, connection: Connection) -> Key {
        let key = self.next_key();
        self.keys.insert(connection.id, key);
        if let Some(place) = self.free.pop().and_then(|key| self.places.get_mut(key)) {
            *place = Some(connection);
        } else {
            self.places.push(Some(connection));
        }
        key
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Connection> {
        let connection = self.places.get_mut(key)?.take()?;
        self.keys.remove(&connection.id);
        self.free.push(key);
        Some(connection)
    }
}
