//! What a driver makes of messages: of those that clients publish, which it is asked about, and of
//! those on their way to sessions, of which a function decides.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use avocet_codec::{Connect, Frame, Packet, PacketType, QoS, ReasonCode};
use avocet_session::{AckToken, Message, Now, Outgoing};

use crate::connect::Joining;
use crate::connection::Question;
use crate::counters::DropReason;
use crate::session_table::{SessionHandle, SessionKey};
use crate::shard::Published;
use crate::subscribe::told;
use crate::{Command, ConnectionId, Engine, Opened, PublishIn};

/// Decides what each session gets of a message. It is called on the thread of the shard, for each
/// message and session, before the message is queued: all else waits for it.
///
/// The same arguments should give the same result, since a broker that restarts asks again about what
/// was on its way.
pub trait PublishOutHook: fmt::Debug + Send + Sync {
    /// What becomes of a message on its way to a session.
    fn publish_out(&self, message: &Message, to: &Recipient<'_>) -> PublishOut;
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Recipient<'a> {
    /// The session, whose client may be away.
    pub session: &'a SessionKey,
    /// Its user, if it has one. Where Client Identifiers are not of each user it is known only with
    /// authorization, and not from a restart until its client is back.
    pub user: Option<&'a str>,
    /// With which QoS it will be sent.
    pub qos: QoS,
    /// With which RETAIN flag.
    pub retain: bool,
}

/// What becomes of a message on its way to one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishOut {
    /// The session gets it.
    #[default]
    Pass,
    /// The session gets the topic, properties, payload and expiry of this one, with the QoS and RETAIN flag
    /// that the other one would have.
    Change(Message),
    /// The session does not get it, which is counted.
    Refuse,
}

/// A client with a Will Message that has authenticated.
#[derive(Debug)]
pub(crate) struct WillQuestion {
    connect: Frame,
    joining: Joining,
    message: Message,
}

impl Engine {
    /// What the driver said of a connection; none once it is gone, or has moved.
    #[must_use]
    pub fn opened(&self, id: ConnectionId) -> Option<&Opened> {
        self.connections.get(&id).map(|entry| &entry.opened)
    }

    /// Publishes what a client may publish, once the driver has said what becomes of it.
    pub(crate) fn publish_permitted(
        &mut self,
        id: ConnectionId,
        message: Message,
        token: Option<AckToken>,
        now: Now,
    ) {
        if !self.config.publish_in {
            self.publish_from(id, message, token, now);
            return;
        }
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.server.pause();
        entry.question = Some(Question::PublishIn(Box::new(message.clone()), token));
        self.command(Command::PublishIn { id, message });
    }

    /// Asks about the Will Message of a client that is about to be connected.
    pub(crate) fn ask_about_will(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        joining: Joining,
        message: Message,
    ) {
        let frame = Frame::encode(&Packet::Connect(*connect), connect.version);
        let (Some(entry), Ok(connect)) = (self.connections.get_mut(&id), frame) else {
            return;
        };
        let session = Arc::clone(&joining.key);
        let user = joining.user().map(Box::from);
        let question = WillQuestion {
            connect,
            joining,
            message: message.clone(),
        };
        entry.question = Some(Question::WillIn(Box::new(question)));
        self.command(Command::WillIn {
            id,
            session,
            user,
            message,
        });
    }

    /// The answer to [`Command::PublishIn`] or [`Command::WillIn`]; nothing if the connection is gone or
    /// was not asked about.
    pub fn handle_publish_in(&mut self, id: ConnectionId, verdict: PublishIn, now: Now) {
        let now = self.clock.read(now);
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        match entry.question.take() {
            Some(Question::PublishIn(message, token)) => {
                match self.changed(*message, verdict, PacketType::Puback) {
                    Ok(message) => self.publish_from(id, message, token, now),
                    Err(refusal) => self.refuse_publish(id, token, refusal),
                }
            }
            Some(Question::WillIn(question)) if entry.server.awaits_answer() => {
                self.answer_will_in(id, *question, verdict, now);
            }
            question => {
                entry.question = question;
                return;
            }
        }
        self.poll_connection_events(id, now);
        self.settle(now);
        self.need_flush(id);
        self.unpause(id, now);
        self.update_timer(id);
    }

    fn answer_will_in(
        &mut self,
        id: ConnectionId,
        question: WillQuestion,
        verdict: PublishIn,
        now: Now,
    ) {
        let is_changed = matches!(verdict, PublishIn::Change(_));
        match self.changed(question.message, verdict, PacketType::Connack) {
            Ok(message) => {
                if let Packet::Connect(connect) = question.connect.packet() {
                    let mut joining = question.joining;
                    joining.will_changed = is_changed;
                    joining.will = Some(message.with_expiry(None, now.unix));
                    self.establish(id, &connect, joining, now);
                }
            }
            Err((reason_code, _)) => self.refuse_connect(id, reason_code, now),
        }
    }

    /// What is published of a message, or why nothing is; `packet_type` is the one that says so.
    fn changed(
        &self,
        message: Message,
        verdict: PublishIn,
        packet_type: PacketType,
    ) -> Result<Message, (ReasonCode, DropReason)> {
        match verdict {
            PublishIn::Pass => Ok(message),
            PublishIn::Change(changed) => {
                if changed.retain() && !self.config.connection.retain_available {
                    return Err((
                        told(ReasonCode::RetainNotSupported, packet_type),
                        DropReason::RefusedByHook,
                    ));
                }
                let (name, properties) = (changed.topic_name(), changed.properties());
                self.check_message(name, &properties, changed.payload())?;
                Ok(changed.with_qos(message.qos()))
            }
            PublishIn::Refuse(reason_code) => {
                let reason_code = told(reason_code, packet_type);
                Err((reason_code, DropReason::RefusedByHook))
            }
        }
    }

    /// What a session gets of a message.
    pub(crate) fn pass_out(
        &mut self,
        handle: SessionHandle,
        outgoing: &mut Outgoing,
        published: &Published,
    ) -> Passed {
        let hook = self.config.publish_out.as_ref();
        let (Some(hook), Some(slot)) = (hook, self.sessions.get(handle)) else {
            return Passed::AsItCame;
        };
        let access = slot.access.as_ref();
        let to = Recipient {
            session: &slot.key,
            user: (slot.key.user()).or_else(|| access.and_then(|access| access.user())),
            qos: outgoing.qos,
            retain: outgoing.retain,
        };
        let message = match hook.publish_out(&outgoing.message, &to) {
            PublishOut::Pass => return Passed::AsItCame,
            PublishOut::Refuse => return Passed::Nothing,
            PublishOut::Change(message) => message,
        };
        outgoing.message = message.clone();
        // It is a message of its own in the store.
        let id = published.id.map(|_| self.new_message_id());
        let published = Published {
            message,
            id,
            stored: false,
            accepted: false,
            arrived: None,
            ..published.clone()
        };
        Passed::Changed(Box::new(published))
    }
}

/// What a session gets of a message.
pub(crate) enum Passed {
    AsItCame,
    /// Another message.
    Changed(Box<Published>),
    Nothing,
}
