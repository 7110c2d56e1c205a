//! How connections come to a shard: accepted, through a handshake, or from another shard.

use std::cmp::Reverse;
use std::fmt::Display;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use avocet_engine::{ConnectionId, Moved, Opened, Peer, RefuseReason};
use avocet_session::Now;
use avocet_transport::{EstablishedStream, Handshake, HandshakeError};
use mio::{Interest, Token};
use tracing::{debug, error};

use super::Shard;
use crate::admission::{Pass, Ticket};
use crate::arrivals::Arrival;
use crate::connection::{Connection, Reading};
use crate::connections::Key;
use crate::events;
use crate::inbox::Mail;
use crate::stream::{LayeredStream, Socket, Stream};

impl Shard {
    pub(super) fn accept(&mut self, now: Now) {
        if !self.acceptor.may_accept(now.instant) {
            return;
        }
        let mut acceptor = mem::take(&mut self.acceptor);
        acceptor.accept(now, |stream, peer, listener| {
            let Some(pass) = self.admit(&peer, listener, now) else {
                return;
            };
            let to = self.next_shard;
            self.next_shard = (to + 1) % self.inboxes.len();
            let stream = stream.into();
            if to == self.id.index() {
                self.open(stream, peer, listener, pass, now);
            } else {
                self.push(
                    to,
                    Mail::Accepted {
                        stream,
                        peer,
                        listener,
                        pass,
                    },
                );
            }
        });
        self.acceptor = acceptor;
    }

    pub(super) fn open(&mut self, stream: Stream, peer: Peer, listener: u16, pass: Pass, now: Now) {
        if self.stop_at.is_some() {
            return;
        }
        // Pipes begin where there is nothing left in between.
        let is_pipe = matches!(stream, Stream::Pipe(_));
        let door = self.doors.get(usize::from(listener));
        let door = door.filter(|_| !is_pipe);
        match door.map(|door| (door.layers.is_empty(), door.handshake_timeout)) {
            Some((false, timeout)) => {
                self.arrive(stream, peer, listener, pass, timeout, now);
            }
            Some((true, _)) | None => {
                let opened = Opened::new(peer, listener);
                self.connect(stream, opened, pass, &[], now);
            }
        }
    }

    /// A connection whose first bytes may have been read.
    fn connect(&mut self, stream: Stream, opened: Opened, pass: Pass, input: &[u8], now: Now) {
        let id = ConnectionId::new(self.id, self.count);
        self.count += 1;
        let mut connection = Connection::new(id, stream, pass.slot);
        if !input.is_empty() {
            connection.unread.set(input);
            connection.reading = Reading::Unread;
        }
        if let Some(every) = connection.stream.ping_interval() {
            self.pings.push(Reverse((now.instant + every, id)));
        }
        let mut opened = opened;
        opened.refused = pass.refused.or_else(|| self.judge_again(&opened, now));
        if let Some(door) = self.doors.get(usize::from(opened.listener)) {
            opened.tenant = door.tenant.clone();
        }
        if self.insert(connection, pass.ticket).is_some() {
            self.engine.handle_opened(id, opened, now);
        }
    }

    /// A socket that has a handshake before it.
    fn arrive(
        &mut self,
        stream: Stream,
        peer: Peer,
        listener: u16,
        pass: Pass,
        timeout: Duration,
        now: Now,
    ) {
        let mut socket = match stream {
            Stream::Tcp(socket) => Socket::Tcp(socket),
            #[cfg(unix)]
            Stream::Unix(socket) => Socket::Unix(socket),
            Stream::Layered(_) | Stream::Pipe(_) => return,
        };
        let address = peer.address();
        if self.arrivals.len() >= self.handshakes_max {
            let refuse = |address: &dyn Display, listener| {
                let admission = &self.admission;
                admission.too_many_handshakes(address, listener, now.instant);
            };
            let Some(slow) = self.arrivals.next_to_be_overdue() else {
                return refuse(&peer, listener);
            };
            refuse(&events::peer(&slow), slow.listener);
        }
        let token = self.arrivals.next_token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = self.registry.register(socket.source(), token, interest);
        if let Err(error) = watched {
            error!("cannot watch a connection from {peer}: {error}");
            return;
        }
        let handshake = Handshake::new(socket, address);
        let deadline = now.instant + timeout;
        self.arrivals.insert(handshake, listener, pass, deadline);
    }

    /// Takes one handshake a step further: a step may take the time of a thousand messages.
    pub(super) fn advance_arrival(&mut self, now: Now) {
        while let Some(slow) = self.arrivals.next_overdue(now.instant) {
            let reason = RefuseReason::HandshakeTimeout;
            self.fail_handshake(&slow, reason, &"it took too long", now);
        }
        let Some((key, arrival)) = self.arrivals.next_ready() else {
            return;
        };
        let Some(door) = self.doors.get(usize::from(arrival.listener)) else {
            return;
        };
        let (advanced, ping) = (arrival.handshake.advance(&door.layers), door.ping);
        if let Ok(false) = advanced {
            return;
        }
        let Some(mut arrival) = self.arrivals.remove(key) else {
            return;
        };
        match advanced {
            Ok(_) => {}
            Err(HandshakeError::Closed) => {
                debug!(
                    address = events::peer(&arrival).to_string(),
                    "closed within its handshake"
                );
                return;
            }
            Err(error) => {
                return self.fail_handshake(&arrival, RefuseReason::Handshake, &error, now);
            }
        }
        let socket = arrival.handshake.socket_mut();
        if let Err(error) = self.registry.deregister(socket.source()) {
            error!("cannot take over a connection: {error}");
            return;
        }
        let peer = events::peer(&arrival);
        let Arrival {
            handshake,
            listener,
            pass,
            ..
        } = arrival;
        let Some(pass) = self.admit_from(pass, handshake.peer(), listener, now) else {
            return;
        };
        let established = handshake.finish();
        let stream = match established.stream {
            EstablishedStream::Plain(socket) => socket.into(),
            EstablishedStream::Layered(layers) => {
                Stream::Layered(Box::new(LayeredStream::new(layers, ping)))
            }
        };
        let opened = Opened::new(peer, listener);
        self.connect(stream, opened, pass, &established.input, now);
    }

    pub(super) fn take_over(
        &mut self,
        mut connection: Connection,
        mut moved: Box<Moved>,
        ticket: Option<Box<Ticket>>,
        now: Now,
    ) {
        let id = connection.id;
        connection.reading = Reading::Unread;
        if let Some(every) = connection.stream.ping_interval() {
            self.pings.push(Reverse((now.instant + every, id)));
        }
        if let Some(reason) = self.judge_again(moved.opened(), now) {
            moved.refuse(reason);
        }
        if self.insert(connection, ticket).is_some() {
            self.engine.handle_moved(id, moved, now);
        } else {
            debug!("connection {id} was lost on its way to shard {}", self.id);
        }
    }

    /// None, and the connection is closed, when the system cannot watch it.
    fn insert(&mut self, mut connection: Connection, ticket: Option<Box<Ticket>>) -> Option<Key> {
        let key = self.connections.next_key();
        // A socket takes what is written but for a few: those are watched for room once it is needed.
        connection.watches_room = connection.unsent.is_some();
        match &mut connection.stream {
            Stream::Pipe(end) => {
                end.attach(Arc::clone(&self.inbox), connection.id);
                connection.readable = true;
            }
            Stream::Layered(_) => {
                // It may hold bytes that it has read ahead, and it writes by itself.
                connection.readable = true;
                connection.watches_room = true;
            }
            Stream::Tcp(_) => {}
            #[cfg(unix)]
            Stream::Unix(_) => {}
        }
        let interest = connection.interest();
        if let Some(source) = connection.stream.source()
            && let Err(error) = self.registry.register(source, Token(key), interest)
        {
            error!("cannot watch connection {}: {error}", connection.id);
            return None;
        }
        let key = self.connections.insert(connection, ticket);
        self.set_ready(key);
        Some(key)
    }
}
