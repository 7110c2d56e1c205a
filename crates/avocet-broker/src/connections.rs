//! The connections of a shard, by the engine's name for them and by the poll's.

use std::collections::HashMap;
use std::sync::Arc;

use avocet_engine::ConnectionId;
use foldhash::fast::RandomState;

use crate::admission::{Admission, Ticket};
use crate::connection::Connection;

/// The place of a connection in the table of its shard, and its token at the poll. A place is used
/// again once no event can be for who had it.
pub(crate) type Key = usize;

pub(crate) struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<Key>,
    /// Places that were left since events were noted last: another thread took a turn while the shard's own
    /// had events that it could not note.
    left: Vec<Key>,
    keys: HashMap<ConnectionId, Key, RandomState>,
    /// Of those for which something is counted.
    tickets: HashMap<ConnectionId, Box<Ticket>, RandomState>,
    admission: Arc<Admission>,
}

impl Connections {
    pub(crate) fn new(admission: Arc<Admission>) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            left: Vec::new(),
            keys: HashMap::default(),
            tickets: HashMap::default(),
            admission,
        }
    }

    /// All events that the poll has told are noted.
    pub(crate) fn events_noted(&mut self) {
        self.free.append(&mut self.left);
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, id: ConnectionId) -> Option<Key> {
        self.keys.get(&id).copied()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.places.get_mut(key)?.as_mut()
    }

    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn get(&self, key: Key) -> Option<&Connection> {
        self.places.get(key)?.as_ref()
    }

    /// The key the next insertion will have.
    pub(crate) fn next_key(&self) -> Key {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    /// Adds a connection.
    pub(crate) fn insert(&mut self, connection: Connection, ticket: Option<Box<Ticket>>) -> Key {
        let key = self.next_key();
        let ticket = ticket.map(|ticket| (connection.id, ticket));
        self.tickets.extend(ticket);
        self.keys.insert(connection.id, key);
        if let Some(place) = self.free.pop().and_then(|key| self.places.get_mut(key)) {
            *place = Some(connection);
        } else {
            self.places.push(Some(connection));
        }
        key
    }

    /// The ticket of a connection, which has one from here on.
    pub(crate) fn ticket(&mut self, id: ConnectionId) -> &mut Ticket {
        let new = || Box::new(Ticket::new(&self.admission));
        self.tickets.entry(id).or_insert_with(new)
    }

    /// Takes out a connection that goes on elsewhere.
    pub(crate) fn take(&mut self, key: Key) -> Option<(Connection, Option<Box<Ticket>>)> {
        let connection = self.places.get_mut(key)?.take()?;
        self.keys.remove(&connection.id);
        self.left.push(key);
        let ticket = self.tickets.remove(&connection.id);
        Some((connection, ticket))
    }

    /// Takes out a connection that is gone.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Connection> {
        Some(self.take(key)?.0)
    }
}

#[cfg(test)]
mod tests {
    use avocet_engine::ShardId;

    use super::*;
    use crate::bans::BanList;
    use crate::config::Config;
    use crate::stream::{Stream, pipe};

    fn connection(count: u64) -> Connection {
        let id = ConnectionId::new(ShardId::new(0), count);
        Connection::new(id, Stream::Pipe(pipe(None).1), None)
    }

    #[test]
    fn a_place_is_nobody_elses_while_an_event_may_be_for_who_had_it() {
        let admission = Admission::new(&Config::default(), BanList::default());
        let mut connections = Connections::new(Arc::new(admission));
        let first = connections.insert(connection(1), None);
        connections.remove(first);
        let second = connections.insert(connection(2), None);
        assert_ne!(first, second);
        assert!(connections.get_mut(first).is_none());
        connections.events_noted();
        assert_eq!(connections.next_key(), first);
        assert_eq!(connections.insert(connection(3), None), first);
    }
}
