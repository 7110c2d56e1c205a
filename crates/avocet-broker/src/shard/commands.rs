//! What an engine wants, carried out.

use std::mem;

use avocet_engine::{Command, ConnectionId, Moved, ShardId};
use avocet_session::Now;
use tracing::error;

use super::hooks::Open;
use super::{EVENTS, Shard};
use crate::authorization::Permitted;
use crate::connection::Reading;
use crate::events;
use crate::inbox::Mail;
use crate::turning::WRITES_MAX;

impl Shard {
    pub(super) fn handle_commands(&mut self, now: Now) {
        while let Some(command) = self.engine.poll_command() {
            self.command(command, now);
        }
        self.send_outgoing();
        // With little to do, this thread takes their turns itself when its own is over.
        if !self.gathering.is_busy() && self.dirty.len() <= WRITES_MAX {
            return;
        }
        for shard in self.to_wake.drain(..) {
            if let Some(inbox) = self.inboxes.get(shard) {
                inbox.wake();
            }
        }
    }

    fn command(&mut self, command: Command, now: Now) {
        match command {
            Command::Commit { id, records, level } => match &self.store {
                Some(store) => store.commit(id, records, level),
                // All state is in memory, where it is as soon as it is said.
                None => self.engine.handle_committed(id, now),
            },
            Command::Fetch { session, from } => {
                debug_assert!(self.store.is_some(), "what is in memory is not fetched");
                if let Some(store) = &self.store {
                    store.fetch(session, from);
                }
            }
            Command::ToShard { to, value } => {
                let credit = value.may_wait();
                self.push(to.index(), Mail::FromShard(self.id, value));
                self.outgoing_credits += usize::from(credit);
            }
            Command::Move { id, to, moved } => self.hand_over(id, to, moved),
            Command::Resume(id) => {
                let Some(key) = self.connections.key(id) else {
                    return;
                };
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.reading = Reading::Unread;
                }
                self.set_ready(key);
            }
            Command::Flush(id) => {
                let Some(key) = self.connections.key(id) else {
                    return;
                };
                // While its stream takes nothing, the poll tells when to go on.
                if self
                    .connections
                    .get_mut(key)
                    .is_some_and(|found| found.unsent.is_none())
                {
                    self.set_dirty(key);
                    self.read_before_write(key, now);
                }
            }
            Command::Close(id) => self.close(id, now),
            Command::Log(event) => {
                events::log(&event, &self.admission.refusals, now.instant);
                self.tell_hooks(&event);
            }
            Command::Authorize {
                question,
                client,
                request,
                default,
                ..
            } => {
                let open = Open {
                    question,
                    client,
                    request,
                    default,
                };
                self.authorize(open, now);
            }
            Command::Authenticate { id, request } => self.authenticate(id, request, now),
            Command::PublishIn { id, message } => self.publish_in(id, message, now),
            Command::WillIn {
                id,
                session,
                user,
                message,
            } => self.will_in(id, session, user, message, now),
            // What is not configured, the engine does not ask for.
            _ => {
                debug_assert!(false, "the engine asked for what is not configured");
                error!("shard {}: unexpected command of the engine", self.id);
            }
        }
    }

    /// An answer has come to what a client may do.
    pub(super) fn permit(&mut self, permitted: Permitted, now: Now) {
        let Permitted {
            client,
            question,
            permission,
            kept,
        } = permitted;
        self.engine
            .handle_authorized(client.id, question, permission, kept, now);
    }

    fn hand_over(&mut self, id: ConnectionId, to: ShardId, moved: Box<Moved>) {
        let removed = self
            .connections
            .key(id)
            .and_then(|key| self.connections.take(key));
        let Some((mut connection, ticket)) = removed else {
            return;
        };
        if let Some(source) = connection.stream.source()
            && let Err(error) = self.registry.deregister(source)
        {
            error!("cannot hand over connection {id}: {error}");
            return;
        }
        connection.in_ready = false;
        connection.in_dirty = false;
        connection.partial_watched = false;
        self.push(
            to.index(),
            Mail::Moved {
                connection: Box::new(connection),
                moved,
                ticket,
            },
        );
    }

    /// Mail for another shard. It is in the inbox before any later mail is in that of a third one,
    /// which that could lead to an answer.
    pub(super) fn push(&mut self, to: usize, mail: Mail) {
        if self.outgoing_to != to {
            self.send_outgoing();
            self.outgoing_to = to;
        }
        self.outgoing.push(mail);
    }

    fn send_outgoing(&mut self) {
        if self.outgoing.is_empty() {
            return;
        }
        let to = self.outgoing_to;
        let inbox = self.inboxes.get(to);
        let credits = mem::take(&mut self.outgoing_credits);
        if inbox.is_some_and(|inbox| inbox.append(&mut self.outgoing, credits)) {
            self.to_wake.push(to);
        }
        if self.outgoing.capacity() > EVENTS {
            self.outgoing = Vec::new();
        }
    }
}
