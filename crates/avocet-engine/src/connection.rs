//! Network Connections: bytes in, packets to those who act on them, bytes out, and the end.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use avocet_access::Action;
use avocet_codec::{
    Frame, MessageProperties, PacketType, PayloadFormat, QoS, ReasonCode, TopicName,
};
use avocet_session::{
    AckToken, CloseReason, CommitId, ConnectionEvent, Demand, Details, IncomingPublish, Instant,
    Message, Now, Owed, ServerConnection, ServerEvent, Session, TransmitBuf,
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::access::Judged;
use crate::authorization::Asked;
use crate::config::{Durability, Overrun};
use crate::counters::{DropReason, RefuseReason};
use crate::hooks::WillQuestion;
use crate::publish::{Answer, Origin};
use crate::queue::Tag;
use crate::rates::Meter;
use crate::record::Record;
use crate::session_table::{SessionHandle, SessionKey};
use crate::subscribe::{PendingSubacks, SubscribeRequest, told};
use crate::tenant::SpaceId;
use crate::timer::DUE_MAX;
use crate::{Authorization, Command, ConnectionId, Engine, Event, Opened};

/// How many packets of a slice one counts for that is neither a message nor an acknowledgement.
const REQUEST_WORK: usize = 16;

/// A message counts as one more for so many probes that its match may take.
const PROBES: usize = 64;

/// How many times the bytes of a slice it may put into queues.
const FAN_OUT_MAX: u64 = 64;

/// The connections of a shard.
pub(crate) type Connections = HashMap<ConnectionId, Box<Connection>, FixedState>;

/// What the shard knows of a Network Connection beside its protocol state.
pub(crate) struct Connection {
    pub(crate) server: ServerConnection,
    pub(crate) opened: Opened,
    /// From its successful CONNECT to its end.
    pub(crate) session: Option<SessionHandle>,
    /// The name of its session, which stays for the log.
    pub(crate) key: Option<Arc<SessionKey>>,
    /// The topics of the tenant of its session.
    pub(crate) space: SpaceId,
    /// Whether another broker is at the other end.
    pub(crate) bridge: bool,
    /// Whether a flush is already asked for.
    pub(crate) flush: bool,
    /// Whether it has sent a PUBLISH.
    publishes: bool,
    /// When its timer is set for, not later than it is due.
    timer: Option<Instant>,
    pub(crate) subacks: PendingSubacks,
    /// Messages and bytes on their way to other shards.
    credit: (usize, usize),
    /// Whether there is too much of that.
    out_of_credit: bool,
    /// Until when its input waits, because its messages fill a queue.
    slowed_until: Option<Instant>,
    /// How fast it goes, where that is limited.
    pub(crate) meter: Option<Box<Meter>>,
    /// Whether its input waits for the store.
    pub(crate) waits_for_store: bool,
    /// What waits for the driver's answer.
    pub(crate) question: Option<Question>,
    /// Whether the driver is asked if the client is still who it says; meanwhile all goes on.
    pub(crate) reauthenticates: bool,
    /// Whether the driver was told that reading stops.
    told_paused: bool,
}

/// What the driver was asked about a connection.
#[derive(Debug)]
pub(crate) enum Question {
    /// Whether its client may connect.
    Connect(Frame),
    /// Whether it may do something.
    Authorize(Box<Asked>),
    /// What becomes of a message.
    PublishIn(Box<Message>, Option<AckToken>),
    WillIn(Box<WillQuestion>),
}

impl Connection {
    pub(crate) fn new(server: ServerConnection, opened: Opened) -> Self {
        Self {
            server,
            opened,
            session: None,
            key: None,
            space: SpaceId::NO_TENANT,
            bridge: false,
            flush: false,
            publishes: false,
            timer: None,
            subacks: PendingSubacks::default(),
            credit: (0, 0),
            out_of_credit: false,
            slowed_until: None,
            meter: None,
            waits_for_store: false,
            question: None,
            reauthenticates: false,
            told_paused: false,
        }
    }

    /// Whether packets that come and leave make nothing due before its timer: of what may be due, they
    /// move only the end of Keep Alive, and that to a later time.
    fn keeps_timer(&self) -> bool {
        self.timer.is_some()
            && self.server.is_connected()
            && self.slowed_until.is_none()
            && self.meter.is_none()
            && self.question.is_none()
    }
}

/// What was not judged was not taken: sent again, it is a new message.
pub(crate) fn forget_unjudged(session: Option<&mut Session>, question: Option<Question>) {
    let token = match question {
        Some(Question::Authorize(asked)) => asked.exactly_once(),
        Some(Question::PublishIn(_, token)) => token.filter(|it| it.qos() == QoS::ExactlyOnce),
        Some(Question::Connect(_) | Question::WillIn(_)) | None => None,
    };
    if let (Some(session), Some(token)) = (session, token) {
        session.forget(token.packet_id());
    }
}

impl Engine {
    /// A connection was accepted; no other may have had this id.
    pub fn handle_opened(&mut self, id: ConnectionId, opened: Opened, now: Now) {
        let now = self.clock.read(now);
        self.counters.connections_opened += 1;
        let server = ServerConnection::new(Arc::clone(&self.config.connection), now);
        self.insert_connection(id, Connection::new(server, opened));
    }

    pub(crate) fn insert_connection(&mut self, id: ConnectionId, connection: Connection) {
        self.counters.connections += 1;
        self.connections.insert(id, Box::new(connection));
        self.update_timer(id);
    }

    /// Forgets a connection without ending it.
    pub(crate) fn forget_connection(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let entry = self.connections.remove(&id)?;
        self.timers.set_connection(id, entry.timer, None);
        self.timers.set_permit(id, None);
        self.counters.connections -= 1;
        self.out_of_credit -= usize::from(entry.out_of_credit);
        Some(entry)
    }

    /// Bytes came from a connection: as many as are returned were read, the driver keeps the rest.
    ///
    /// With [`Demand::Again`] it calls again in its next turn, with [`Demand::Paused`] after
    /// [`Command::Resume`]. After [`Command::Move`] the rest goes with the connection.
    pub fn handle_input(&mut self, id: ConnectionId, input: &[u8], now: Now) -> (usize, Demand) {
        let now = self.clock.read(now);
        let mut consumed = 0;
        let (mut packets, mut work) = (0, 0);
        let queued = self.counters.queued_bytes;
        let published = self.counters.publishes_received;
        let limits = &self.config.limits;
        let (mut packets_max, mut bytes_max) = (limits.slice_packets, limits.slice_bytes);
        let paced = self.paces_input || self.paces_tenants;
        if paced {
            (packets_max, bytes_max) = self.slice(id, now);
        }
        let demand = loop {
            let Some(entry) = self.connections.get_mut(&id) else {
                break Demand::Paused;
            };
            let space = entry.space;
            let rest = input.get(consumed..).unwrap_or_default();
            let read = entry.server.handle_input(rest, now);
            consumed += read.consumed;
            if read.consumed == 0 {
                entry.told_paused |= read.demand == Demand::Paused;
                break read.demand;
            }
            packets += read.packets;
            let has_events = entry.server.has_events();
            entry.publishes |= matches!(read.event, Some(ServerEvent::Publish { .. }));
            if let Some(event) = &read.event {
                self.on_event(id, event, now);
            }
            // A message leads to no event of its own connection.
            let quiet = matches!(read.event, None | Some(ServerEvent::Publish { .. }));
            if has_events || !quiet {
                self.poll_connection_events(id, now);
            }
            self.settle(now);
            if read.demand == Demand::More {
                break Demand::More;
            }
            work += match &read.event {
                None => read.packets,
                Some(ServerEvent::Publish { .. }) => {
                    1 + self.spaces.routes(space).probes() / PROBES
                }
                Some(_) => REQUEST_WORK,
            };
            let limits = &self.config.limits;
            let queued = self.counters.queued_bytes.saturating_sub(queued);
            if work >= packets_max
                || consumed >= bytes_max
                || queued >= FAN_OUT_MAX * limits.slice_bytes as u64
            {
                break Demand::Again;
            }
        };
        // A QoS 2 PUBLISH that came again waits for the commit of the first one.
        if self.config.durability == Durability::Stored {
            let again = self.session_of(id).and_then(|session| session.waits_for());
            self.wait_for_commit(id, again);
        }
        self.counters.packets_received += packets as u64;
        self.counters.bytes_received += consumed as u64;
        if paced {
            let messages = self.counters.publishes_received - published;
            self.pace_input(id, messages, consumed as u64, now);
        }
        if let Some(entry) = self.connections.get_mut(&id) {
            if entry.server.has_output() {
                self.outbox.need_flush(id, entry);
            }
            if !entry.keeps_timer() {
                self.update_timer(id);
            }
        }
        (consumed, demand)
    }

    /// The socket of a connection is closed, or broke.
    pub fn handle_closed(&mut self, id: ConnectionId, now: Now) {
        let now = self.clock.read(now);
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.server.handle_closed(now);
            self.poll_connection_events(id, now);
            self.settle(now);
        }
    }

    /// Puts a connection's packets into `out` while it is not full; what is put there counts as
    /// sent. True if there is more: to be called again when `out` was written.
    pub fn poll_transmit(&mut self, id: ConnectionId, now: Now, out: &mut TransmitBuf) -> bool {
        let now = self.clock.read(now);
        let paced = self.paces_output;
        if paced {
            self.grant_deliveries(id, now);
        }
        if self.config.authorization != Authorization::None
            && let Some(handle) = self.connections.get(&id).and_then(|entry| entry.session)
            && let Some(slot) = self.sessions.get(handle)
            && let Some(access) = &slot.access
            && access.has_older_queue(&self.rules)
        {
            self.drop_forbidden(handle);
        }
        let Some(entry) = self.connections.get_mut(&id) else {
            return false;
        };
        let server = &mut entry.server;
        let before = (out.len(), server.packets_sent(), server.publishes_sent());
        let more = server.poll_transmit(now, out);
        let bytes = (out.len() - before.0) as u64;
        let messages = server.publishes_sent() - before.2;
        let counters = &mut self.counters;
        counters.bytes_sent += bytes;
        counters.packets_sent += server.packets_sent() - before.1;
        counters.publishes_sent += messages;
        let (has_events, told_paused) = (server.has_events(), entry.told_paused);
        let keeps_timer = entry.keeps_timer() && !has_events && !told_paused;
        if let (Some(handle), Some(session)) = (entry.session, entry.server.session()) {
            let counted = (session.queued(), session.queued_bytes());
            self.count_queue(handle, counted);
            self.poll_fetch(handle);
            self.ask_retained(handle);
            if self.sessions.get(handle).is_some_and(|it| it.names_gates) {
                self.name_gates(handle);
            }
        }
        if has_events {
            self.poll_connection_events(id, now);
        }
        self.settle(now);
        if told_paused {
            self.check_resume(id);
        }
        if paced {
            self.pace_output(id, messages, bytes, now);
        }
        if !keeps_timer {
            self.update_timer(id);
        }
        more
    }

    /// What a client is to send next, of what it owes for messages in flight. More than that, if it publishes too, or has messages
    /// of groups, whose other messages may wait for it.
    #[must_use]
    pub fn owed(&self, id: ConnectionId) -> Owed {
        let Some(entry) = self.connections.get(&id) else {
            return Owed::Nothing;
        };
        let slot = entry.session.and_then(|it| self.sessions.get(it));
        if entry.publishes || slot.is_some_and(|slot| !slot.marks.is_empty()) {
            return Owed::More;
        }
        entry.server.session().map_or(Owed::Nothing, Session::owed)
    }

    fn on_event(&mut self, id: ConnectionId, event: &ServerEvent<'_>, now: Now) {
        match event {
            ServerEvent::Connect(connect) => self.on_connect(id, connect, now),
            ServerEvent::Auth(auth) => self.on_auth(id, auth),
            ServerEvent::Publish { publish, token } => self.on_publish(id, publish, *token, now),
            ServerEvent::Subscribe(subscribe) => {
                let request = SubscribeRequest::new(subscribe);
                self.on_subscribe(id, request, now);
            }
            ServerEvent::Unsubscribe(unsubscribe) => self.unsubscribe(id, unsubscribe, now),
            // No other event asks anything of this engine.
            _ => {}
        }
    }

    /// What a connection has to tell, up to its end.
    pub(crate) fn poll_connection_events(&mut self, id: ConnectionId, now: Now) {
        while let Some(entry) = self.connections.get_mut(&id)
            && let Some(event) = entry.server.poll_event()
        {
            let session = entry.session;
            match event {
                ConnectionEvent::Finished { sequence, tag, .. } => {
                    if let Some(session) = session {
                        self.on_acknowledged(session, sequence, Tag::from_u64(tag), now);
                    }
                }
                ConnectionEvent::Pubrec { sequence, .. } => self.on_pubrec(id, sequence),
                ConnectionEvent::Pubrel { packet_id } => {
                    let recorded = session.is_some_and(|session| self.is_recorded(session));
                    if recorded && let Some(session) = self.key_of(id) {
                        self.record(Record::PublishReleased { session, packet_id });
                    }
                    let gate = self.gate_if(recorded);
                    if let Some(session) = self.session_of(id) {
                        // A connection that has ended takes no answers.
                        let _ended = session.complete(packet_id, gate);
                    }
                    self.wait_for_commit(id, gate);
                }
                ConnectionEvent::Dropped(dropped) => match session {
                    Some(session) => self.on_dropped(session, dropped),
                    None => self.count_dropped(dropped.reason.into()),
                },
                ConnectionEvent::Closed(reason) => self.on_closed(id, reason, now),
                // The other events are a client's.
                _ => {}
            }
        }
    }

    /// PUBREC came for a stored message: PUBREL follows once that is stored too, if the session is.
    fn on_pubrec(&mut self, id: ConnectionId, sequence: u64) {
        let Some(entry) = self.connections.get(&id) else {
            return;
        };
        let recorded = entry
            .session
            .is_some_and(|session| self.is_recorded(session));
        if recorded && let Some(session) = entry.key.clone() {
            self.record(Record::PubrecReceived { session, sequence });
        }
        let gate = self.gate_if(recorded);
        if let Some(session) = self.session_of(id) {
            // A connection that has ended takes no answers.
            let _ended = session.release(sequence, gate);
        }
        self.wait_for_commit(id, gate);
    }

    fn key_of(&self, id: ConnectionId) -> Option<Arc<SessionKey>> {
        self.connections.get(&id)?.key.clone()
    }

    fn session_of(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.connections.get_mut(&id)?.server.session_mut()
    }

    /// A connection is over: its session goes on without it.
    fn on_closed(&mut self, id: ConnectionId, reason: CloseReason, now: Now) {
        let Some(entry) = self.forget_connection(id) else {
            return;
        };
        // Of one that was refused, or that the driver refuses, somebody has told.
        let refused = matches!(reason, CloseReason::Refused(_)) || entry.opened.refused.is_some();
        if entry.key.is_some() {
            self.counters.count_end(reason);
        }
        if entry.key.is_some() || !refused {
            let mut client_id = String::new();
            if entry.key.is_none() {
                client_id.push_str(entry.server.client_id());
                if let Some(reason) = RefuseReason::of(reason) {
                    self.counters.count_refused(reason, 1);
                }
            }
            self.command(Command::Log(Event::Disconnected {
                id,
                peer: entry.opened.peer,
                listener: entry.opened.listener,
                client_id,
                session: entry.key,
                version: entry.server.version(),
                reason,
            }));
        }
        self.command(Command::Close(id));
        if let Some(handle) = entry.session {
            let mut session = entry.server.into_session();
            forget_unjudged(session.as_deref_mut(), entry.question);
            if self.shutdown && reason.publishes_will() {
                self.park(handle, session);
            } else {
                let publishes_will = reason.publishes_will() || planted!(WillAfterDisconnect);
                self.detach(handle, session, publishes_will, now);
            }
        }
    }

    fn on_publish(
        &mut self,
        id: ConnectionId,
        publish: &IncomingPublish<'_>,
        token: Option<AckToken>,
        now: Now,
    ) {
        self.counters.publishes_received += 1;
        let topic_name = publish.topic_name();
        let (properties, payload) = (publish.properties(), publish.payload());
        if self.paces_input && self.config.limits.publish_overrun == Overrun::Refuse {
            let bytes = topic_name.as_str().len() + payload.len();
            if let Some(refusal) = self.refuse_for_rate(id, bytes, now) {
                self.refuse_publish(id, token, refusal);
                return;
            }
        }
        if let Err(refusal) = self.check_message(topic_name, properties, payload) {
            self.refuse_publish(id, token, refusal);
            return;
        }
        if self.config.authorization != Authorization::None {
            let entry = self.connections.get(&id);
            let session = entry.and_then(|entry| entry.session);
            let packet = publish.packet();
            let (qos, retain) = (packet.qos(), packet.retain);
            match self.judge_publish(session, topic_name, qos, retain, now) {
                Judged::Allowed(_) => {}
                Judged::Refused(reason_code, by) => {
                    self.count_refusal_of(session, Action::Publish, topic_name.as_str(), by, now);
                    let reason_code = told(reason_code, PacketType::Puback);
                    self.refuse_publish(id, token, (reason_code, DropReason::NotAuthorized));
                    return;
                }
                Judged::Open(_) => {
                    let message = Message::from_publish(&packet, topic_name, now.unix);
                    self.ask_to_publish(id, message, token, now);
                    return;
                }
            }
        }
        let taken = !self.config.publish_in
            && match (publish.frame(), token) {
                (Some(frame), None) => self.publish_frame(id, publish, frame, now),
                (frame, Some(token)) if frame.is_some() || self.shards > 1 => {
                    self.publish_acknowledged(id, publish, token, now)
                }
                (None | Some(_), _) => false,
            };
        if taken {
            return;
        }
        let message = Message::from_publish(publish.received(), topic_name, now.unix);
        self.publish_permitted(id, message, token, now);
    }

    /// Whether clients may publish a message: not what is the server's, and within the limits.
    pub(crate) fn check_message(
        &self,
        topic_name: TopicName<'_>,
        properties: &MessageProperties<'_>,
        payload: &[u8],
    ) -> Result<(), (ReasonCode, DropReason)> {
        let text = topic_name.as_str();
        let hidden = text.starts_with('$');
        if hidden && (text == "$SYS" || text.starts_with("$SYS/")) {
            return Err((ReasonCode::NotAuthorized, DropReason::NotAuthorized));
        }
        let limits = &self.config.limits.topics;
        if hidden && text.starts_with("$share/") || limits.check_name(topic_name).is_err() {
            return Err((ReasonCode::TopicNameInvalid, DropReason::NotAuthorized));
        }
        let limits = &self.config.limits.user_properties;
        if limits.is_limited() && limits.are_exceeded_by(properties.user_properties()) {
            return Err((ReasonCode::QuotaExceeded, DropReason::UserProperties));
        }
        // [MQTT5-3.3.2.3.2]
        if self.config.check_payload_format
            && properties.payload_format() == Some(PayloadFormat::Utf8)
            && core::str::from_utf8(payload).is_err()
        {
            return Err((ReasonCode::PayloadFormatInvalid, DropReason::PayloadFormat));
        }
        Ok(())
    }

    pub(crate) fn refuse_publish(
        &mut self,
        id: ConnectionId,
        token: Option<AckToken>,
        (reason_code, dropped): (ReasonCode, DropReason),
    ) {
        self.count_dropped(dropped);
        if let Some(token) = token
            && !self.acknowledge(id, token, reason_code, None)
        {
            let session = self.connections.get(&id).and_then(|entry| entry.session);
            self.remember_answer(session, token, reason_code, None);
        }
    }

    /// Publishes what the client of a connection sent and may send.
    pub(crate) fn publish_from(
        &mut self,
        id: ConnectionId,
        message: Message,
        token: Option<AckToken>,
        now: Now,
    ) {
        let refusal = token.and_then(|_| self.refuse_for_overload(id));
        if let Some(refusal) = refusal.or_else(|| self.refuse_for_store(id, &message)) {
            self.refuse_publish(id, token, refusal);
            return;
        }
        self.publish_taken(id, message, token, false, now);
    }

    /// Publishes what this broker takes; where its takers are `found` already, nothing may have changed
    /// since, and it goes to no owner of its topic.
    pub(crate) fn publish_taken(
        &mut self,
        id: ConnectionId,
        message: Message,
        token: Option<AckToken>,
        found: bool,
        now: Now,
    ) {
        let Some(entry) = self.connections.get(&id) else {
            return;
        };
        let (session, key) = (entry.session, entry.key.clone());
        let listener = entry.opened.listener;
        let recorded = token.is_some_and(|token| token.qos() == QoS::ExactlyOnce)
            && session.is_some_and(|session| self.is_recorded(session));
        if recorded
            && let Some(session) = key.clone()
            && let Some(token) = token
        {
            let packet_id = token.packet_id();
            self.record(Record::PublishReceived { session, packet_id });
        }
        let origin = Origin {
            session,
            connection: Some(id),
            answer: token.map_or(Answer::Nobody, |token| Answer::Acknowledge {
                connection: id,
                session,
                token,
            }),
            recorded,
            found,
            unrouted: None,
        };
        let mut published = self.published(message, key);
        if published.id.is_some() || published.message.retain() {
            let topic_name = published.message.topic_name();
            published.level = self.config.levels.of(Some(listener), topic_name);
        }
        let before = (self.records(), self.uncommitted.elsewhere());
        self.wait = Duration::ZERO;
        self.publish(&origin, &mut published, now);
        let wait = mem::take(&mut self.wait);
        self.slow_down(id, wait, now);
        if self.records() > before.0 || self.uncommitted.elsewhere() > before.1 {
            self.pause_for_store(id);
        }
    }

    /// Sends PUBACK or PUBREC; false if the connection has ended.
    pub(crate) fn acknowledge(
        &mut self,
        id: ConnectionId,
        token: AckToken,
        reason_code: ReasonCode,
        gate: Option<CommitId>,
    ) -> bool {
        let Some(entry) = self.connections.get_mut(&id) else {
            return false;
        };
        let taken = entry.server.acknowledge(token, reason_code, gate).is_ok();
        self.outbox.need_flush(id, entry);
        self.wait_for_commit(id, gate);
        taken
    }

    fn on_subscribe(&mut self, id: ConnectionId, request: SubscribeRequest, now: Now) {
        if self.config.authorization == Authorization::None {
            self.subscribe(id, &request, None, now);
        } else {
            self.judge_subscribe(id, request, now);
        }
    }

    /// Lets a connection read on, unless something else holds it.
    pub(crate) fn unpause(&mut self, id: ConnectionId, now: Now) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let holds = entry.out_of_credit || entry.waits_for_store || entry.slowed_until.is_some();
        if entry.question.is_none() && !holds {
            entry.server.resume(now);
        }
        self.check_resume(id);
    }

    /// The messages of a connection fill a queue: its input waits, unless its own acknowledgements
    /// would empty one.
    #[inline]
    pub(crate) fn slow_down(&mut self, id: ConnectionId, wait: Duration, now: Now) {
        if !wait.is_zero() {
            self.slow_down_for(id, wait, now);
        }
    }

    fn slow_down_for(&mut self, id: ConnectionId, wait: Duration, now: Now) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let session = entry.server.session();
        if session.is_some_and(|session| session.in_flight() > 0 || session.queued() > 0) {
            return;
        }
        self.counters.publishers_slowed += 1;
        self.pause_for(id, wait, now);
    }

    /// The input of a connection waits for so long.
    pub(crate) fn pause_for(&mut self, id: ConnectionId, wait: Duration, now: Now) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let until = now.instant + wait;
        if entry.slowed_until.is_none_or(|at| at < until) {
            entry.slowed_until = Some(until);
        }
        entry.server.pause();
        self.update_timer(id);
    }

    /// Tells the driver to read on if it was told to stop and nothing stops it.
    pub(crate) fn check_resume(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(&id)
            && entry.told_paused
            && !entry.server.is_paused()
        {
            entry.told_paused = false;
            self.command(Command::Resume(id));
        }
    }

    /// A message of a connection is on its way to another shard.
    pub(crate) fn use_credit(&mut self, id: ConnectionId, bytes: usize) {
        let limits = &self.config.limits;
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.credit.0 += 1;
        entry.credit.1 += bytes;
        let used_up =
            entry.credit.0 >= limits.forwards_max || entry.credit.1 >= limits.forwards_bytes_max;
        if used_up && !mem::replace(&mut entry.out_of_credit, true) {
            self.out_of_credit += 1;
            entry.server.pause();
        }
    }

    /// So many messages and bytes are where they belong.
    pub(crate) fn return_credit(
        &mut self,
        id: ConnectionId,
        (messages, bytes): (usize, usize),
        now: Now,
    ) {
        let limits = &self.config.limits;
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.credit.0 = entry.credit.0.saturating_sub(messages);
        entry.credit.1 = entry.credit.1.saturating_sub(bytes);
        // Half of it, so that a connection does not stop and go for each message.
        let enough = entry.credit.0 <= limits.forwards_max / 2
            && entry.credit.1 <= limits.forwards_bytes_max / 2;
        if entry.out_of_credit && enough {
            entry.out_of_credit = false;
            self.out_of_credit -= 1;
            self.unpause(id, now);
            self.update_timer(id);
        }
    }

    /// Sets the timer of a connection anew if it is due earlier than set; one that fires early
    /// does no harm.
    pub(crate) fn update_timer(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let due = entry.server.poll_timeout().map(|timeout| timeout.at);
        let held = entry.meter.as_ref().and_then(|meter| meter.held_until);
        let answer = match &entry.question {
            Some(Question::Authorize(asked)) => Some(asked.until),
            Some(Question::Connect(_) | Question::PublishIn(..) | Question::WillIn(_)) | None => {
                None
            }
        };
        let Some(due) = Instant::first_of([due, entry.slowed_until, held, answer]) else {
            return;
        };
        if entry.timer.is_none_or(|set| due < set) {
            self.timers.set_connection(id, entry.timer, Some(due));
            entry.timer = Some(due);
        }
    }

    pub(crate) fn expire_connections(&mut self, now: Now) {
        for _ in 0..DUE_MAX {
            let Some(id) = self.timers.pop_connection(now.instant) else {
                return;
            };
            let Some(entry) = self.connections.get_mut(&id) else {
                continue;
            };
            entry.timer = None;
            if entry
                .slowed_until
                .take_if(|at| *at <= now.instant)
                .is_some()
            {
                self.unpause(id, now);
            }
            self.expire_question(id, now);
            let Some(entry) = self.connections.get_mut(&id) else {
                continue;
            };
            if let Some(meter) = &mut entry.meter {
                meter.held_until.take_if(|at| *at <= now.instant);
            }
            entry.server.handle_timeout(now);
            self.poll_connection_events(id, now);
            self.need_flush(id);
            self.update_timer(id);
            self.settle(now);
        }
    }

    /// Closes connections that were let in until now.
    pub(crate) fn expire_permits(&mut self, now: Now) {
        for _ in 0..DUE_MAX {
            let Some(id) = self.timers.pop_permit(now.instant) else {
                return;
            };
            let details = Details {
                reason_string: Some("what let you in is over"),
                server_reference: None,
            };
            self.end_connection(id, ReasonCode::NotAuthorized, details, now);
            self.settle(now);
        }
    }

    /// Ends every connection of a broker that stops.
    pub(crate) fn disconnect_all(&mut self, now: Now) {
        let mut ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        let config = Arc::clone(&self.config);
        for id in ids {
            let reason_code = ReasonCode::ServerShuttingDown;
            let details = Details {
                reason_string: Some(reason_code.name()),
                server_reference: config.server_reference.as_deref(),
            };
            self.end_connection(id, reason_code, details, now);
        }
    }

    /// A connection has output that waits for a commit, unless that is done.
    #[inline]
    pub(crate) fn wait_for_commit(&mut self, id: ConnectionId, gate: Option<CommitId>) {
        if let Some(gate) = gate {
            self.wait_for_gate(id, gate);
        }
    }

    fn wait_for_gate(&mut self, id: ConnectionId, gate: CommitId) {
        if gate <= self.committed {
            if let Some(entry) = self.connections.get_mut(&id) {
                entry.server.handle_committed(self.committed);
            }
            return;
        }
        let waiting = self.gated_connections.entry(gate).or_default();
        if waiting.last() != Some(&id) {
            waiting.push(id);
        }
    }

    /// Lets the output leave that waited for a commit.
    pub(crate) fn release_connections(&mut self, now: Now) {
        while let Some(first) = self.gated_connections.first_entry()
            && *first.key() <= self.committed
        {
            for id in first.remove() {
                if let Some(entry) = self.connections.get_mut(&id) {
                    entry.server.handle_committed(self.committed);
                    self.poll_connection_events(id, now);
                    self.need_flush(id);
                }
            }
        }
    }
}
