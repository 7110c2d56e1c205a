//! From CONNECT to CONNACK: authentication, the way to the shard that owns the session, takeover,
//! and which session the connection goes on with.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::mem;

use avocet_access::Action;
use avocet_codec::{Auth, Connect, Frame, Packet, PacketType, ReasonCode, Version};
use avocet_session::{Accept, Details, Message, Now};
use avocet_topic::TopicName;

use crate::access::Judged;
use crate::connection::{Connection, Question, forget_unjudged};
use crate::counters::RefuseReason;
use crate::engine::purpose;
use crate::flapping::Flap;
use crate::quotas::Quota;
use crate::session_table::{SessionHandle, SessionKey};
use crate::subscribe::told;
use crate::will::Will;
use crate::{
    Accepted, Authentication, AuthenticationRequest, Client, ClientIds, Command, ConnectionId,
    Engine, Event, Moved, RefusedBy, Verdict,
};

/// With which session a connection goes on.
struct Admission {
    handle: SessionHandle,
    /// Seconds.
    expiry_interval: u32,
    /// Whether it leaves a will.
    will: bool,
    bridge: bool,
}

/// A client that may connect, on its way to its session.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) key: Arc<SessionKey>,
    /// Whether its Client Identifier is the server's.
    assigned: bool,
    accepted: Accepted,
    /// Whether the driver let it leave its Will.
    will_allowed: bool,
    /// Its Will Message, where the driver has said what becomes of it.
    pub(crate) will: Option<Message>,
    /// Whether that is another one than the client's.
    pub(crate) will_changed: bool,
}

impl Joining {
    /// Its user, if it has one.
    pub(crate) fn user(&self) -> Option<&str> {
        self.accepted.identity.user.as_deref()
    }
}

impl Engine {
    pub(crate) fn on_connect(&mut self, id: ConnectionId, connect: &Connect<'_>, now: Now) {
        if self.shutdown {
            self.refuse(id, ReasonCode::ServerUnavailable, Details::default(), now);
            return;
        }
        let opened = self.connections.get(&id).map(|entry| &entry.opened);
        if let Some(reason) = opened.and_then(|opened| opened.refused) {
            self.refuse(id, reason, Details::default(), now);
            return;
        }
        if self.counters.connections > self.config.limits.connections_max as u64 {
            self.refuse(id, ReasonCode::QuotaExceeded, Details::default(), now);
            return;
        }
        if let Some(reason) = self.check_connect(connect) {
            self.refuse(id, reason, Details::default(), now);
            return;
        }
        if let Some(will) = &connect.will
            && !is_bridge_state(will.topic_name)
            && let Err((reason_code, _)) =
                self.check_message(will.topic_name, &will.properties, will.payload)
        {
            self.refuse(id, reason_code, Details::default(), now);
            return;
        }
        match self.config.authentication {
            Authentication::None if connect.properties.authentication_method.is_some() => {
                let reason_code = ReasonCode::BadAuthenticationMethod;
                self.refuse(id, reason_code, Details::default(), now);
            }
            Authentication::None => self.admit(id, connect, Accepted::default(), now),
            Authentication::Asked => {
                let Ok(frame) = Frame::encode(&Packet::Connect(*connect), connect.version) else {
                    return;
                };
                let Some(entry) = self.connections.get_mut(&id) else {
                    return;
                };
                entry.question = Some(Question::Connect(frame.clone()));
                let request = AuthenticationRequest::Connect {
                    opened: entry.opened.clone(),
                    connect: frame,
                };
                self.command(Command::Authenticate { id, request });
            }
        }
    }

    /// Why a CONNECT goes beyond what clients may be, if it does.
    fn check_connect(&self, connect: &Connect<'_>) -> Option<ReasonCode> {
        let limits = &self.config.limits;
        if connect.client_id.len() > limits.client_id_bytes_max {
            return Some(ReasonCode::ClientIdentifierNotValid);
        }
        let properties = connect.properties.user_properties;
        if limits.user_properties.are_exceeded_by(properties) {
            return Some(ReasonCode::QuotaExceeded);
        }
        let max = self.config.connection.keep_alive_max;
        let too_long = max.is_some_and(|max| !(1..=max.get()).contains(&connect.keep_alive));
        if limits.keep_alive_refused && too_long && connect.version != Version::V5 {
            return Some(ReasonCode::ClientIdentifierNotValid);
        }
        None
    }

    /// A step of enhanced authentication; the connection has checked that it is in turn
    /// [MQTT5-4.12].
    pub(crate) fn on_auth(&mut self, id: ConnectionId, auth: &Auth<'_>) {
        let Ok(auth) = Frame::encode(&Packet::Auth(*auth), Version::V5) else {
            return;
        };
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let request = match &entry.key {
            None => AuthenticationRequest::Continue { auth },
            Some(session) => {
                let session = Arc::clone(session);
                entry.reauthenticates = true;
                AuthenticationRequest::ReAuthenticate { session, auth }
            }
        };
        self.command(Command::Authenticate { id, request });
    }

    /// The answer to [`Command::Authenticate`]; nothing if the connection is gone or was not asked
    /// about.
    pub fn handle_authenticated(&mut self, id: ConnectionId, verdict: Verdict, now: Now) {
        let now = self.clock.read(now);
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        if mem::take(&mut entry.reauthenticates) {
            self.answer_reauthentication(id, &verdict, now);
        } else {
            match entry.question.take() {
                Some(Question::Connect(frame)) if entry.server.awaits_answer() => {
                    self.answer_connect(id, frame, verdict, now);
                }
                question => entry.question = question,
            }
        }
        self.poll_connection_events(id, now);
        self.settle(now);
        self.need_flush(id);
        self.check_resume(id);
        self.update_timer(id);
    }

    fn answer_connect(&mut self, id: ConnectionId, frame: Frame, verdict: Verdict, now: Now) {
        match verdict {
            Verdict::Accept(accepted) => {
                if let Packet::Connect(connect) = frame.packet() {
                    self.admit(id, &connect, accepted, now);
                }
            }
            Verdict::Continue { data } => {
                if let Some(entry) = self.connections.get_mut(&id) {
                    // Without an Authentication Method there is nothing to go on with.
                    let step = step(data.as_deref());
                    let _refused = entry.server.authenticate(step);
                    entry.question = Some(Question::Connect(frame));
                }
            }
            Verdict::Refuse { reason, .. } => self.refuse(id, reason, details(&verdict), now),
        }
    }

    /// A client that authenticates again stays with its tenant; where there are rules, it stays who it
    /// is.
    fn answer_reauthentication(&mut self, id: ConnectionId, verdict: &Verdict, now: Now) {
        let same = match verdict {
            Verdict::Accept(accepted) => {
                self.permit(id, accepted);
                self.is_of_same_tenant(id, accepted) && self.renew_access(id, accepted)
            }
            Verdict::Continue { .. } | Verdict::Refuse { .. } => true,
        };
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        if !same {
            let reason = ReasonCode::NotAuthorized;
            entry.server.disconnect(reason, Details::default(), now);
            return;
        }
        // A connection that has ended takes no answers.
        let _ended = match verdict {
            Verdict::Accept(accepted) => {
                let step = step(accepted.data.as_deref());
                entry.server.reauthenticated(step)
            }
            Verdict::Continue { data } => entry.server.authenticate(step(data.as_deref())),
            Verdict::Refuse { reason, .. } => {
                entry.server.disconnect(*reason, details(verdict), now);
                Ok(())
            }
        };
    }

    fn is_of_same_tenant(&self, id: ConnectionId, accepted: &Accepted) -> bool {
        let Some(entry) = self.connections.get(&id) else {
            return true;
        };
        let tenant = self.tenants.of_client(&entry.opened.tenant, accepted);
        let key = entry.key.as_deref();
        tenant.is_ok_and(|tenant| {
            tenant.is_none() || key.is_none_or(|key| key.tenant() == tenant.as_str())
        })
    }

    /// A client may connect: its connection belongs to the shard that owns its session.
    fn admit(&mut self, id: ConnectionId, connect: &Connect<'_>, accepted: Accepted, now: Now) {
        let Some(opened) = self.connections.get(&id).map(|it| &it.opened) else {
            return;
        };
        let tenant = match self.tenants.of_client(&opened.tenant, &accepted) {
            Ok(tenant) => tenant,
            Err(problem) => {
                let peer = opened.peer.clone();
                let client_id = connect.client_id.to_string();
                self.command(Command::Log(Event::TenantRefused {
                    peer,
                    client_id,
                    problem,
                }));
                self.refuse(id, ReasonCode::NotAuthorized, Details::default(), now);
                return;
            }
        };
        let assigned = connect.client_id.is_empty();
        let user = accepted.identity.user.as_deref();
        let user = user.filter(|_| self.config.client_ids == ClientIds::OfEachUser);
        let key = if assigned {
            self.assign_key(tenant.as_str(), user)
        } else {
            SessionKey::of_user(tenant.as_str(), user, connect.client_id)
        };
        let owner = self.owner_of_session(&key);
        let key = Arc::new(key);
        if owner == self.shard {
            let joining = Joining {
                key,
                assigned,
                accepted,
                will_allowed: false,
                will: None,
                will_changed: false,
            };
            self.establish(id, connect, joining, now);
            return;
        }
        let Ok(connect) = Frame::encode(&Packet::Connect(*connect), connect.version) else {
            return;
        };
        if let Some(connection) = self.forget_connection(id) {
            let Connection { server, opened, .. } = *connection;
            let moved = Box::new(Moved {
                server,
                opened,
                connect,
                key,
                accepted,
            });
            let to = owner;
            self.command(Command::Move { id, to, moved });
        }
    }

    /// A connection came from the shard that accepted it; its unread bytes follow with
    /// [`handle_input`](Self::handle_input).
    pub fn handle_moved(&mut self, id: ConnectionId, moved: Box<Moved>, now: Now) {
        let now = self.clock.read(now);
        let Moved {
            server,
            opened,
            connect,
            key,
            accepted,
        } = *moved;
        let refused = opened.refused;
        self.insert_connection(id, Connection::new(server, opened));
        if self.shutdown {
            self.refuse(id, ReasonCode::ServerUnavailable, Details::default(), now);
        } else if let Some(reason) = refused {
            self.refuse(id, reason, Details::default(), now);
        } else if let Packet::Connect(connect) = connect.packet() {
            let joining = Joining {
                key,
                assigned: false,
                accepted,
                will_allowed: false,
                will: None,
                will_changed: false,
            };
            self.establish(id, &connect, joining, now);
        }
        self.poll_connection_events(id, now);
        self.settle(now);
        self.need_flush(id);
        self.update_timer(id);
    }

    /// A Client Identifier that nobody has, of a session that stays in this shard
    /// [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT311-3.1.3-6].
    fn assign_key(&mut self, tenant: &str, user: Option<&str>) -> SessionKey {
        loop {
            self.assigned += 1;
            // Who knows a Client Identifier can take it over: none tells the next.
            let bits = self.seed.number(purpose::CLIENT_IDS, self.assigned);
            let key = SessionKey::of_user(tenant, user, &format!("auto-{bits:016x}"));
            if self.owner_of_session(&key) == self.shard && self.sessions.find(&key).is_none() {
                return key;
            }
        }
    }

    /// Gives a connection its session, a former one or a new one, and sends CONNACK.
    pub(crate) fn establish(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        joining: Joining,
        now: Now,
    ) {
        let user = joining.accepted.identity.user.as_deref();
        // Here, since bans may have come on the way from another shard.
        if self.bans.has(connect.client_id, user) {
            self.refuse(id, ReasonCode::Banned, Details::default(), now);
            return;
        }
        if joining
            .accepted
            .until
            .is_some_and(|until| until <= self.clock.unix())
        {
            self.refuse(id, ReasonCode::NotAuthorized, Details::default(), now);
            return;
        }
        let mut access = self.access_of(id, &joining.key, &joining.accepted);
        if let (Some(access), Some(will)) = (&mut access, &connect.will)
            && !is_bridge_state(will.topic_name)
        {
            let client = Arc::clone(access.client());
            let (topic_name, qos, retain) = (will.topic_name, will.qos, will.retain);
            match access.judge_publish(&self.rules, topic_name, qos, retain) {
                Judged::Open(_) if !joining.will_allowed => {
                    self.ask_to_join(id, connect, joining, client, now);
                    return;
                }
                Judged::Refused(reason_code, by) => {
                    self.refuse_will(id, &client, topic_name.as_str(), (reason_code, by), now);
                    return;
                }
                Judged::Allowed(_) | Judged::Open(_) => {}
            }
        }
        if self.config.publish_in
            && joining.will.is_none()
            && let Some(message) = will_of(connect, now)
        {
            self.ask_about_will(id, connect, joining, message);
            return;
        }
        let Joining {
            key,
            assigned,
            accepted,
            will,
            will_changed,
            ..
        } = joining;
        let user = accepted.identity.user.as_deref();
        let config = Arc::clone(&self.config);
        let limits = &config.limits;
        let known = self.sessions.find(&key);
        let connected = known.and_then(|it| self.sessions.get(it)?.connection);
        // Who has no space has nothing.
        if let Some(space) = self.spaces.find(key.tenant())
            && (!self.has_quota(space, Quota::Sessions, known.is_none().into())
                || !self.has_quota(space, Quota::Connections, connected.is_none().into()))
        {
            self.refuse(id, ReasonCode::QuotaExceeded, Details::default(), now);
            return;
        }
        if known.is_none() && self.sessions.len() >= limits.sessions_max
            || self.counters.connections > limits.connections_max as u64
        {
            self.refuse(id, ReasonCode::QuotaExceeded, Details::default(), now);
            return;
        }
        if known.is_none() && self.overloaded {
            self.refuse(id, ReasonCode::ServerBusy, Details::default(), now);
            return;
        }
        if let Some(flapping) = &limits.flapping {
            // Also where users share Client Identifiers, nobody has the client of another one banned.
            let who = SessionKey::of_user(key.tenant(), user, key.client_id());
            let who = Arc::new(who);
            let flap = self.flaps.connects(&who, flapping, now.instant);
            if flap == Flap::TooMany {
                self.tell_of_flapping(id, &who);
            }
            if flap != Flap::Fine {
                self.refuse(id, ReasonCode::Banned, Details::default(), now);
                return;
            }
        }
        let Some(entry) = self.connections.get(&id) else {
            return;
        };
        let requested = entry.server.session_expiry_interval();
        let expiry_interval = requested.min(limits.session_expiry_interval_max);
        let response_information = self
            .config
            .response_information
            .as_deref()
            .map(|text| text.replace("%c", key.client_id()));
        let accept = Accept {
            assigned_client_id: assigned.then(|| key.client_id()),
            session_expiry_interval: (expiry_interval != requested).then_some(expiry_interval),
            response_information: response_information.as_deref(),
            authentication_data: accepted.data.as_deref(),
            ..Accept::default()
        };
        if !entry.server.can_accept(&accept) {
            // Nothing has changed yet: neither the session, nor its connection, nor its will.
            self.refuse(id, ReasonCode::PacketTooLarge, Details::default(), now);
            return;
        }
        let Some(space) = self.find_or_begin_space(key.tenant()) else {
            self.refuse(id, ReasonCode::QuotaExceeded, Details::default(), now);
            return;
        };
        let mut present = None;
        if let Some(handle) = known {
            self.take_over(handle, now);
            // It may have ended with its connection.
            present = self.sessions.find(&key);
        }
        // Nobody gets what another one was allowed to subscribe to.
        let is_of_another = present.is_some_and(|it| self.is_of_another(it, access.as_deref()));
        if (connect.clean_start || is_of_another)
            && let Some(handle) = present.take()
        {
            self.end_session(handle, now);
        }
        let handle = present.unwrap_or_else(|| self.begin_session(Arc::clone(&key), space));
        // Its client is back before the delay was over [MQTT5-3.1.3-9].
        self.set_will(handle, None);
        self.keep_session(handle);
        let admission = Admission {
            handle,
            expiry_interval,
            will: connect.will.is_some(),
            bridge: connect.bridge,
        };
        let accept = Accept {
            session_present: present.is_some(),
            ..accept
        };
        if let Some(slot) = self.sessions.get_mut(handle) {
            slot.access = access;
        }
        self.drop_forbidden(handle);
        self.set_connect_will(handle, connect, (will, will_changed), now);
        let user = accepted.identity.user.clone();
        self.accept(id, &admission, accept, user, now);
        let kept = self.connections.get(&id).map(|it| it.server.keep_alive());
        let changed = kept.is_some_and(|kept| kept != connect.keep_alive);
        self.counters.keep_alives_changed += u64::from(changed);
        self.counters.session_expiries_cut += u64::from(expiry_interval < requested);
        self.permit(id, &accepted);
        self.members_online(handle);
        self.ask_retained(handle);
        self.need_flush(id);
    }

    /// The driver has answered whether a client may leave its Will.
    pub(crate) fn answer_will(
        &mut self,
        id: ConnectionId,
        connect: &Frame,
        joining: Joining,
        client: &Arc<Client>,
        judged: Result<(), (ReasonCode, RefusedBy)>,
        now: Now,
    ) {
        let entry = self.connections.get(&id);
        if entry.is_some_and(|entry| entry.server.awaits_answer())
            && let Packet::Connect(connect) = connect.packet()
        {
            match judged {
                Ok(()) => {
                    let joining = Joining {
                        will_allowed: true,
                        ..joining
                    };
                    self.establish(id, &connect, joining, now);
                }
                Err(refusal) => {
                    let topic = connect.will.map(|will| will.topic_name.as_str());
                    self.refuse_will(id, client, topic.unwrap_or_default(), refusal, now);
                }
            }
        }
        self.poll_connection_events(id, now);
        self.settle(now);
        self.need_flush(id);
        self.check_resume(id);
        self.update_timer(id);
    }

    fn refuse_will(
        &mut self,
        id: ConnectionId,
        client: &Arc<Client>,
        topic: &str,
        (reason_code, by): (ReasonCode, RefusedBy),
        now: Now,
    ) {
        self.count_refusal(client, Action::Publish, topic, by, now);
        let reason_code = told(reason_code, PacketType::Connack);
        self.refuse(id, reason_code, Details::default(), now);
    }

    fn tell_of_flapping(&mut self, id: ConnectionId, key: &Arc<SessionKey>) {
        let peer = self.connections.get(&id).map(|it| it.opened.peer.clone());
        let connects = self.config.limits.flapping.map(|it| it.connects_max);
        self.command(Command::Log(Event::Flapping {
            peer: peer.unwrap_or_default(),
            session: Arc::clone(key),
            connects: connects.unwrap_or_default(),
        }));
    }

    /// Keeps in mind until when a client is let in.
    fn permit(&mut self, id: ConnectionId, accepted: &Accepted) {
        let until = accepted.until.map(|at| self.clock.instant_of(at));
        self.timers.set_permit(id, until);
    }

    fn accept(
        &mut self,
        id: ConnectionId,
        admission: &Admission,
        accept: Accept<'_>,
        user: Option<Box<str>>,
        now: Now,
    ) {
        let handle = admission.handle;
        self.set_expiry_interval(handle, admission.expiry_interval, true);
        // Session present and a will promise what is stored, a will also where the session does not
        // survive; a new session promises nothing, but that none before it comes back.
        let present = accept.session_present && self.is_recorded(handle);
        let stored = self.gate_if(present || admission.will);
        let gate = stored.max(self.ended(handle));
        let (Some(slot), Some(entry)) =
            (self.sessions.get_mut(handle), self.connections.get_mut(&id))
        else {
            return;
        };
        slot.connection = Some(id);
        self.spaces.count(slot.space, |it| it.connections += 1);
        let session = slot.session.take().unwrap_or_default();
        let waits_for = session.waits_for();
        let key = Arc::clone(&slot.key);
        let session_present = accept.session_present;
        entry.server.accept(session, Accept { gate, ..accept }, now);
        entry.server.handle_committed(self.committed);
        entry.session = Some(handle);
        entry.key = Some(Arc::clone(&key));
        entry.space = slot.space;
        entry.bridge = admission.bridge;
        let event = Event::Connected {
            id,
            peer: entry.opened.peer.clone(),
            listener: entry.opened.listener,
            session: key,
            user,
            version: entry.server.version(),
            keep_alive: entry.server.keep_alive(),
            session_present,
        };
        self.counters.connects_accepted += 1;
        self.counters.sessions_connected += 1;
        self.counters.sessions_disconnected -= 1;
        self.wait_for_commit(id, gate);
        self.wait_for_commit(id, waits_for);
        self.command(Command::Log(event));
        // Keep Alive may end before the time that its CONNECT had.
        self.update_timer(id);
    }

    /// Ends the connection that a session has, for the sake of another one [MQTT5-3.1.4-3]
    /// [MQTT311-3.1.4-2]. Its will is cancelled only if it has a delay and the session goes on.
    fn take_over(&mut self, handle: SessionHandle, now: Now) {
        let connection = self.sessions.get(handle).and_then(|slot| slot.connection);
        let Some(id) = connection else {
            return;
        };
        self.poll_connection_events(id, now);
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let reason_code = ReasonCode::SessionTakenOver;
        // paho-mqtt (Python) and rumqttc see the Reason Code only with properties behind it.
        let details = Details {
            reason_string: Some(reason_code.name()),
            server_reference: None,
        };
        entry.server.disconnect(reason_code, details, now);
        let mut session = entry.server.take_session();
        forget_unjudged(session.as_deref_mut(), entry.question.take());
        entry.session = None;
        self.counters.takeovers += 1;
        self.need_flush(id);
        self.poll_connection_events(id, now);
        self.update_timer(id);
        self.detach(handle, session, true, now);
    }

    fn set_connect_will(
        &mut self,
        handle: SessionHandle,
        connect: &Connect<'_>,
        (by_driver, is_changed): (Option<Message>, bool),
        now: Now,
    ) {
        if let Some(will) = &connect.will
            && let Some(message) = by_driver.or_else(|| will_of(connect, now))
        {
            let will = Will {
                message,
                message_expiry_interval: will.message_expiry_interval,
                delay_interval: will.will_delay_interval,
                publish_at: None,
                is_changed,
            };
            self.set_will(handle, Some(Box::new(will)));
        }
    }

    /// Counts connections that the driver refused: those that the engine never knew, and those of which
    /// [`Opened::refused`](crate::Opened::refused) says so, which the engine does not count.
    pub const fn count_refused(&mut self, reason: RefuseReason, connections: u64) {
        self.counters.count_refused(reason, connections);
    }

    /// A CONNECT is refused with this code.
    pub(crate) fn refuse_connect(&mut self, id: ConnectionId, reason: ReasonCode, now: Now) {
        self.refuse(id, reason, Details::default(), now);
    }

    fn refuse(&mut self, id: ConnectionId, reason: ReasonCode, details: Details<'_>, now: Now) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.server.refuse(reason, details, now);
        let counted = entry.opened.refused.is_some();
        let event = Event::Refused {
            id,
            peer: entry.opened.peer.clone(),
            listener: entry.opened.listener,
            client_id: entry.server.client_id().to_string(),
            reason,
        };
        if !counted {
            self.counters.count_refused(reason.into(), 1);
        }
        self.command(Command::Log(event));
        self.need_flush(id);
    }
}

const fn step(data: Option<&[u8]>) -> avocet_session::Authentication<'_> {
    avocet_session::Authentication {
        data,
        reason_string: None,
    }
}

/// What a refusal says beside its Reason Code.
fn details(verdict: &Verdict) -> Details<'_> {
    match verdict {
        Verdict::Refuse {
            reason_string,
            server_reference,
            ..
        } => Details {
            reason_string: reason_string.as_deref(),
            server_reference: server_reference.as_deref(),
        },
        Verdict::Accept(_) | Verdict::Continue { .. } => Details::default(),
    }
}

/// The Will Message that a client wants, without expiry: its Message Expiry Interval runs from the
/// publication.
fn will_of(connect: &Connect<'_>, now: Now) -> Option<Message> {
    let will = connect.will.as_ref();
    let will = will.filter(|will| !is_bridge_state(will.topic_name))?;
    Some(Message::from_will(will, now.unix).with_expiry(None, now.unix))
}

/// Whether a will is what mosquitto's bridges leave to say that they are gone. Clients may not
/// publish there, and a bridge whose CONNECT is refused for it never comes up: it has no will.
fn is_bridge_state(topic_name: TopicName<'_>) -> bool {
    topic_name.as_str().starts_with("$SYS/broker/connection/")
}
