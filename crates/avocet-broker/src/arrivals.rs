//! Sockets on their way to a connection: a proxy's header, TLS, the upgrade to WebSocket. The engine
//! knows nothing of them until they are done.

use std::collections::{BTreeSet, VecDeque};

use avocet_session::Instant;
use avocet_transport::Handshake;
use mio::Token;

use crate::admission::Pass;
use crate::stream::Socket;

/// Tokens with this bit are those of arrivals; connections have fewer.
const MARK: usize = 1 << (usize::BITS - 2);

/// The place of an arrival in the table of its shard.
pub(crate) type Key = usize;

/// The arrival that a token stands for, if it does for one.
pub(crate) fn key(token: Token) -> Option<Key> {
    (token.0 & MARK != 0).then_some(token.0 & !MARK)
}

pub(crate) struct Arrival {
    pub(crate) handshake: Handshake<Socket>,
    pub(crate) listener: u16,
    pub(crate) pass: Pass,
    deadline: Instant,
    /// Waits in the queue of those to advance.
    in_ready: bool,
}

#[derive(Default)]
pub(crate) struct Arrivals {
    places: Vec<Option<Arrival>>,
    free: Vec<Key>,
    /// Those that may go on, one step each per turn.
    ready: VecDeque<Key>,
    deadlines: BTreeSet<(Instant, Key)>,
}

impl Arrivals {
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether one may go on at once.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next one has taken too long.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The token that the next insertion will have.
    pub(crate) fn next_token(&self) -> Token {
        Token(MARK | self.free.last().copied().unwrap_or(self.places.len()))
    }

    pub(crate) fn insert(
        &mut self,
        handshake: Handshake<Socket>,
        listener: u16,
        pass: Pass,
        deadline: Instant,
    ) {
        let arrival = Some(Arrival {
            handshake,
            listener,
            pass,
            deadline,
            in_ready: false,
        });
        let key = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(key) {
            Some(place) => *place = arrival,
            None => self.places.push(arrival),
        }
        self.deadlines.insert((deadline, key));
        self.set_ready(key);
    }

    /// Notes that one may go on.
    pub(crate) fn set_ready(&mut self, key: Key) {
        if let Some(Some(arrival)) = self.places.get_mut(key)
            && !arrival.in_ready
        {
            arrival.in_ready = true;
            self.ready.push_back(key);
        }
    }

    /// The next one that may go on.
    pub(crate) fn next_ready(&mut self) -> Option<(Key, &mut Arrival)> {
        let key = loop {
            let key = self.ready.pop_front()?;
            if self.places.get(key).is_some_and(Option::is_some) {
                break key;
            }
        };
        let arrival = self.places.get_mut(key)?.as_mut()?;
        arrival.in_ready = false;
        Some((key, arrival))
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Arrival> {
        let arrival = self.places.get_mut(key)?.take()?;
        self.deadlines.remove(&(arrival.deadline, key));
        if arrival.in_ready {
            // Its place goes to another one, who queues on its own.
            self.ready.retain(|ready| *ready != key);
        }
        self.free.push(key);
        Some(arrival)
    }

    /// Takes out one that has taken too long.
    pub(crate) fn next_overdue(&mut self, now: Instant) -> Option<Arrival> {
        let (deadline, key) = *self.deadlines.first()?;
        if now < deadline {
            return None;
        }
        self.remove(key)
    }

    /// Takes out the one that would be overdue first of those that wait for their peers; none where all
    /// wait for this broker.
    pub(crate) fn next_to_be_overdue(&mut self) -> Option<Arrival> {
        let waits_for_peer = |key: Key| {
            let arrival = self.places.get(key).and_then(Option::as_ref);
            arrival.is_some_and(|arrival| !arrival.in_ready)
        };
        let mut keys = self.deadlines.iter().map(|(_, key)| *key);
        let key = keys.find(|key| waits_for_peer(*key))?;
        self.remove(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn those_that_are_closed_unserved_leave_nothing_in_the_queue() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut arrivals = Arrivals::default();
        let arrive = |arrivals: &mut Arrivals, deadline| {
            let socket = Socket::Tcp(mio::net::TcpStream::connect(address).unwrap());
            let deadline = Instant::from_nanos(deadline);
            arrivals.insert(Handshake::new(socket, None), 0, Pass::default(), deadline);
        };
        for deadline in 0..10 {
            arrivals.next_overdue(Instant::from_nanos(deadline));
            arrive(&mut arrivals, deadline);
        }
        assert_eq!((arrivals.len(), arrivals.ready.len()), (1, 1));
        assert!(arrivals.next_ready().is_some());
        assert!(arrivals.next_ready().is_none());
    }

    #[test]
    fn who_waits_for_the_broker_is_not_closed_for_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut arrivals = Arrivals::default();
        for _ in 0..3 {
            let socket = Socket::Tcp(mio::net::TcpStream::connect(address).unwrap());
            let handshake = Handshake::new(socket, None);
            arrivals.insert(handshake, 0, Pass::default(), Instant::ORIGIN);
        }
        assert!(arrivals.next_to_be_overdue().is_none());
        // It was served, and has to send more.
        let (served, _) = arrivals.next_ready().unwrap();
        assert!(arrivals.next_to_be_overdue().is_some());
        assert!(arrivals.places[served].is_none());
        assert!(arrivals.next_to_be_overdue().is_none());
        assert_eq!(arrivals.len(), 2);
    }
}
