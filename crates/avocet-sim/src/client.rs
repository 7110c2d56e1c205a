//! The clients' side: the real client connections, and applications that use them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use avocet_codec::{
    Disconnect, MessageProperties, MessagePropertiesParts, ReasonCode, SubscribeFilter,
    SubscriptionId, TopicFilter, TopicName, Version,
};
use avocet_engine::{ConnectionId, Opened, ShardId, Tenant};
use avocet_session::client::{
    ClientConfig, ClientConnection, ClientEvent, ClientNotice, PublishError, PublishId, WillMessage,
};
use avocet_session::{AckToken, CloseReason, Limits, Message, Session, Timer, TransmitBuf};

use crate::conn::Conn;
use crate::coverage::Kind;
use crate::history::{ConnId, What};
use crate::link::Pipe;
use crate::plan::{
    Action, CHECKER, Cut, LinkStyle, MILLI, Micros, Op, Profile, Role, TOPICS, WillPlan, draw_qos,
    spare,
};
use crate::rng::Rng;
use crate::wire::{PublishPkt, Uid};
use crate::world::{Task, World};

/// A client and its application.
pub(crate) struct Client {
    pub(crate) profile: Profile,
    rng: Rng,
    machine: Option<(ConnId, ClientConnection)>,
    /// Between connections.
    session: Session,
    /// Whether it connects again by itself.
    pub(crate) wants: bool,
    /// What the next CONNECT says.
    clean_start: bool,
    /// What the last one said.
    was_clean: bool,
    /// Whether the server may have begun a session that the client does not know of.
    unsure: bool,
    will: Option<WillPlan>,
    /// What it does once it can.
    pub(crate) pending: VecDeque<Op>,
    /// Messages whose end it does not know.
    sending: BTreeMap<PublishId, Uid>,
    /// Acknowledgements that the application owes, with their time.
    acks: Vec<(Micros, AckToken)>,
    frozen_until: Micros,
    turn_at: Option<Micros>,
}

impl Client {
    pub(crate) fn new(profile: Profile, rng: Rng) -> Self {
        Self {
            profile,
            rng,
            machine: None,
            session: Session::new(),
            wants: false,
            clean_start: true,
            was_clean: false,
            unsure: false,
            will: None,
            pending: VecDeque::new(),
            sending: BTreeMap::new(),
            acks: Vec::new(),
            frozen_until: 0,
            turn_at: None,
        }
    }

    /// From now on it is quick, and connects if it is not connected.
    pub(crate) fn calm(&mut self) {
        self.frozen_until = 0;
        self.wants = true;
        self.profile.ack_max = 0;
        self.profile.link = LinkStyle::PERFECT;
    }

    /// What should be done and is not.
    pub(crate) fn unfinished(&self, index: usize) -> Option<String> {
        let Some((conn, machine)) = &self.machine else {
            return Some(format!("client {index} has no connection"));
        };
        let session = machine.session();
        let done = machine.is_connected()
            && self.pending.is_empty()
            && self.sending.is_empty()
            && self.acks.is_empty()
            && session.is_empty();
        (!done).then(|| {
            format!(
                "client {index} on [{conn}]: connected {}, {} operations wait, {:?} not finished, \
                 {} messages to acknowledge, {} queued, {} in flight, received {:?}",
                machine.is_connected(),
                self.pending.len(),
                self.sending.values().collect::<Vec<_>>(),
                self.acks.len(),
                session.queued(),
                session.in_flight(),
                session.received().collect::<Vec<_>>(),
            )
        })
    }

    fn config(&self, will: Option<WillMessage>) -> ClientConfig {
        let profile = &self.profile;
        let v5 = profile.version == Version::V5;
        ClientConfig {
            clean_start: self.clean_start || self.unsure,
            session_known: true,
            keep_alive: profile.keep_alive,
            will,
            session_expiry_interval: if v5 { profile.expiry } else { 0 },
            receive_maximum: profile.receive_maximum,
            maximum_packet_size: if v5 {
                profile.maximum_packet_size
            } else {
                u32::MAX
            },
            topic_alias_maximum: if v5 { profile.topic_alias_maximum } else { 0 },
            connect_timeout: Duration::from_secs(5),
            pingresp_timeout: Duration::from_secs(2),
            limits: Limits {
                inflight: profile.inflight,
                topic_aliases: profile.aliases,
                ..Limits::default()
            },
            ..ClientConfig::new(profile.version, profile.client_id.clone())
        }
    }
}

impl World {
    pub(crate) fn wake_client(&mut self, client: usize, at: Micros) {
        let state = &mut self.clients[client];
        let at = at.max(self.at);
        if state.turn_at.is_none_or(|set| at < set) {
            state.turn_at = Some(at);
            self.schedule(at, Task::ClientTurn(client));
        }
    }

    /// Opens a connection, unless there is one or none is wanted.
    pub(crate) fn reconnect(&mut self, client: usize) {
        if !self.clients[client].wants || self.clients[client].machine.is_some() {
            return;
        }
        if self.is_down() {
            let wait = self.clients[client].rng.range(1, 500) * MILLI;
            self.schedule(self.at + wait, Task::Reconnect(client));
            return;
        }
        if self.is_stale(client) {
            self.schedule(self.at + MILLI, Task::Reconnect(client));
            return;
        }
        let id = self.next_conn;
        self.next_conn += 1;
        let will = self.will_of(client);
        let now = self.client_now();
        let state = &mut self.clients[client];
        // In 3.1 a client is not told that there is no session to go on with.
        state.clean_start |= state.was_clean && state.profile.version == Version::V3_1;
        let config = state.config(will);
        let session = std::mem::take(&mut state.session);
        let machine = ClientConnection::new(config, session, now);
        let shard = state.rng.index(self.engines.len());
        let style = state.profile.link;
        let pipe = |name| Pipe::new(style, Rng::new(self.plan.seed, name, id));
        let (up, down) = (pipe("up"), pipe("down"));
        let number = ConnectionId::new(ShardId::new(shard as u16), id);
        let version = state.profile.version;
        let clean_start = machine.config().clean_start;
        state.was_clean = clean_start;
        state.machine = Some((id, machine));
        // A 3.x client that keeps its session goes on with it; so does one of 5.0.
        state.clean_start = version != Version::V5 && state.profile.expiry == 0;
        let mut conn = Conn::new(number, client, version, shard, up, down);
        conn.clean_start = clean_start;
        self.conns.insert(id, conn);
        let mut opened = Opened::new(format!("client {client}"), 0);
        let tenant = self.clients[client].profile.tenant;
        if let Ok(tenant) = Tenant::new(tenant) {
            opened.tenant = tenant;
            self.seen(Kind::OfTenant);
        }
        let broker_now = self.now();
        self.engines[shard].handle_opened(number, opened, broker_now);
        self.record(What::Opened { conn: id, client });
        if style.chunk == 1 {
            self.seen(Kind::ByteAtATime);
        }
        self.wake_shard(shard);
        self.do_pending(client);
        self.wake_client(client, self.at);
    }

    /// Whether a CONNECT of a connection that the client has left may still replace its session:
    /// one that did so behind the next CONNECT would take a session from under its client.
    fn is_stale(&self, client: usize) -> bool {
        let state = &self.clients[client];
        // In 3.x a clean session ends with its connection.
        let clean = state.clean_start || state.unsure;
        let clean = clean && state.profile.version != Version::V5;
        let lasting = state.profile.expiry == u32::MAX && !clean;
        self.conns.iter().any(|(id, conn)| {
            let info = self.model.conns.get(id);
            let waits = info.is_some_and(|it| it.connect.is_some() && it.session.is_none());
            let replaces = conn.clean_start || !lasting;
            conn.client == client && conn.left && !conn.ended && waits && replaces
        })
    }

    fn will_of(&mut self, client: usize) -> Option<WillMessage> {
        let state = &self.clients[client];
        let plan = state.will.clone()?;
        self.next_uid += 1;
        let uid = self.next_uid;
        self.model.add_will(uid, client, &plan);
        let message = Message::new(topic_name(plan.topic), format!("m{uid}").as_bytes())
            .with_qos(plan.qos)
            .with_retain(plan.retain);
        Some(WillMessage {
            will_delay_interval: plan.delay,
            ..WillMessage::new(message)
        })
    }

    /// What the plan says.
    pub(crate) fn client_op(&mut self, op: Op) {
        let client = op.client;
        match &op.action {
            Action::Connect { clean_start, will } => {
                self.leave(client);
                let state = &mut self.clients[client];
                state.wants = true;
                state.clean_start = *clean_start;
                state.will = will.clone();
                self.reconnect(client);
            }
            Action::Disconnect { with_will } => {
                self.clients[client].wants = false;
                self.disconnect(client, *with_will);
            }
            Action::Cut(cut) => self.cut(client, *cut),
            Action::Freeze(duration) => {
                self.clients[client].frozen_until = self.at + duration;
            }
            Action::Publish { .. } | Action::Subscribe { .. } | Action::Unsubscribe { .. } => {
                self.clients[client].pending.push_back(op);
                self.do_pending(client);
            }
            Action::Jump { .. } | Action::Stall(_) | Action::Disk { .. } | Action::Crash(_) => {}
        }
        self.wake_client(client, self.at);
    }

    /// The broker has taken or answered SUBSCRIBE or UNSUBSCRIBE: another client publishes at once
    /// what the subscription matches, or did.
    pub(crate) fn echo(&mut self, conn: ConnId) {
        let Some(sub) = self.model.last_sub(conn) else {
            return;
        };
        let topics = TOPICS.iter().filter(|topic| sub.matches(topic));
        let topics: Vec<&str> = topics.copied().collect();
        let owner = self.model.conns[&conn].client;
        let others = (CHECKER + 1..self.clients.len()).filter(|other| {
            let other = &self.clients[*other];
            other.profile.role == Role::Plain && other.machine.is_some()
        });
        let mut others: Vec<usize> = others.filter(|other| *other != owner).collect();
        let rng = &mut Rng::new(self.plan.seed, "echo", self.next_uid.into());
        if self.calm || topics.is_empty() || !rng.percent(self.plan.system.echoes) {
            return;
        }
        others.truncate(1 + rng.index(others.len()));
        for client in others {
            self.next_uid += 1;
            let number = self.next_uid;
            let mut action = Action::Publish {
                // Often the same one, so that one value follows another.
                topic: topics[rng.index(topics.len()) * rng.index(2)],
                qos: draw_qos(rng),
                retain: rng.one_in(2),
                padding: Some(0),
                expiry: None,
            };
            if self.plan.system.crashes {
                spare(&mut action);
            }
            self.client_op(Op {
                number,
                at: self.at,
                client,
                action,
            });
        }
    }

    fn do_pending(&mut self, client: usize) {
        loop {
            let state = &mut self.clients[client];
            let (Some(op), Some((_, machine))) = (state.pending.front(), &state.machine) else {
                return;
            };
            if !matches!(op.action, Action::Publish { .. }) && !machine.is_connected() {
                return;
            }
            if let Some(op) = state.pending.pop_front() {
                self.do_now(client, &op);
            }
        }
    }

    fn do_now(&mut self, client: usize, op: &Op) {
        let now = self.client_now();
        let state = &mut self.clients[client];
        let Some((_, machine)) = &mut state.machine else {
            return;
        };
        match &op.action {
            Action::Publish {
                topic,
                qos,
                retain,
                padding,
                expiry,
            } => {
                let message = message(op.number, topic, *padding)
                    .with_qos(*qos)
                    .with_retain(*retain)
                    .with_expiry(*expiry, now.unix);
                self.model.add_message(op);
                // A server with less to offer, or a lost connection, is none of the application's
                // making.
                match machine.publish(message, now) {
                    Ok(id) => {
                        if let Some(id) = id {
                            state.sending.insert(id, op.number);
                        }
                        let uid = op.number;
                        self.record(What::Published { client, uid });
                    }
                    Err(PublishError::PacketTooLarge { .. }) => self.seen(Kind::UpTooLarge),
                    Err(_) => {}
                }
            }
            Action::Subscribe { filters, id } => {
                let filters: Vec<SubscribeFilter<'_>> = filters
                    .iter()
                    .map(|(filter, options)| SubscribeFilter {
                        topic_filter: topic_filter(filter),
                        options: *options,
                    })
                    .collect();
                let id = id.and_then(SubscriptionId::new);
                let _lost = machine.subscribe(&filters, id, &[]);
            }
            Action::Unsubscribe { filter } => {
                let _lost = machine.unsubscribe(&[topic_filter(filter)], &[]);
            }
            Action::Connect { .. }
            | Action::Disconnect { .. }
            | Action::Cut(_)
            | Action::Freeze(_)
            | Action::Jump { .. }
            | Action::Stall(_)
            | Action::Disk { .. }
            | Action::Crash(_) => {}
        }
    }

    fn disconnect(&mut self, client: usize, with_will: bool) {
        let now = self.client_now();
        if let Some((_, machine)) = &mut self.clients[client].machine {
            let reason = if with_will {
                ReasonCode::DisconnectWithWillMessage
            } else {
                ReasonCode::NORMAL_DISCONNECTION
            };
            let _over = machine.disconnect(&Disconnect::new(reason), now);
        }
    }

    /// The client closes its connection without a word.
    fn leave(&mut self, client: usize) {
        if let Some((_, machine)) = &mut self.clients[client].machine {
            machine.handle_closed();
            self.notices(client);
        }
    }

    fn cut(&mut self, client: usize, cut: Cut) {
        let Some(id) = self.clients[client].machine.as_ref().map(|(id, _)| *id) else {
            return;
        };
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.up.dead) else {
            return;
        };
        let torn = conn.up.cut(cut.arrives.0) | conn.down.cut(cut.arrives.1);
        if torn {
            self.seen(Kind::PacketTorn);
        }
        self.record(What::Cut { conn: id });
        if cut.client_learns.is_none() {
            self.seen(Kind::ClientHalfOpen);
        }
        if cut.server_learns.is_none() {
            self.seen(Kind::ServerHalfOpen);
        }
        if let Some(wait) = cut.client_learns {
            self.schedule(self.at + wait, Task::ClientLearns(id));
        }
        if let Some(wait) = cut.server_learns {
            self.schedule(self.at + wait, Task::ServerLearns(id));
        }
    }

    pub(crate) fn client_learns(&mut self, id: ConnId) {
        let Some(client) = self.conns.get(&id).map(|conn| conn.client) else {
            return;
        };
        if let Some((own, machine)) = &mut self.clients[client].machine
            && *own == id
        {
            machine.handle_closed();
            self.notices(client);
        }
    }

    pub(crate) fn client_turn(&mut self, client: usize) {
        if self.clients[client].turn_at != Some(self.at) {
            return;
        }
        self.clients[client].turn_at = None;
        let now = self.client_now();
        if let Some((_, machine)) = &mut self.clients[client].machine {
            machine.handle_timeout(now);
        }
        self.notices(client);
        if self.clients[client].frozen_until <= self.at {
            self.read(client);
        }
        self.acknowledge(client);
        self.do_pending(client);
        self.transmit(client);
        self.notices(client);
        self.next_turn(client);
    }

    fn next_turn(&mut self, client: usize) {
        let state = &self.clients[client];
        let Some((id, machine)) = &state.machine else {
            return;
        };
        let timer = machine.poll_timeout();
        let timer = timer.map(|timer| timer.at.as_nanos().div_ceil(1_000).max(self.at + 1));
        let ack = state
            .acks
            .iter()
            .map(|(at, _)| (*at).max(self.at + 1))
            .min();
        let unread = self
            .conns
            .get(id)
            .filter(|conn| !conn.down.ready.is_empty());
        // What stays unread is a slow reader's, or half a packet.
        let read = unread.map(|_| state.frozen_until.max(self.at + MILLI));
        if let Some(at) = [timer, ack, read].into_iter().flatten().min() {
            self.wake_client(client, at);
        }
    }

    fn read(&mut self, client: usize) {
        let Some((id, _)) = &self.clients[client].machine else {
            return;
        };
        let id = *id;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (shard, version) = (conn.shard, conn.version);
        let mut bytes = std::mem::take(&mut conn.down.ready);
        let mut read = 0;
        let now = self.client_now();
        while let Some((own, machine)) = &mut self.clients[client].machine
            && *own == id
        {
            // A client that is closing does not look at what comes.
            let timer = machine.poll_timeout().map(|timeout| timeout.timer);
            let looks = !matches!(timer, None | Some(Timer::Drain)) || machine.is_connected();
            let input = machine.handle_input(&bytes[read..], now);
            let consumed = input.consumed;
            let mut delivered = None;
            let mut finished = None;
            let mut connected = false;
            if let Some(event) = input.event {
                match event {
                    ClientEvent::Publish { publish, token } => {
                        let packet = publish.packet();
                        let topic = publish.topic_name().as_str().to_owned();
                        delivered = Some((PublishPkt::new(&packet, &topic), token));
                    }
                    ClientEvent::Published { id, .. } => finished = Some(id),
                    ClientEvent::Connected(_) => connected = true,
                    _ => {}
                }
            }
            if consumed == 0 {
                break;
            }
            if connected {
                self.clients[client].unsure = false;
            }
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.down_read.put(&bytes[read..read + consumed]);
            }
            read += consumed;
            while let Some(conn) = self.conns.get_mut(&id)
                && let Some(packet) = conn.down_read.next(version)
            {
                match packet {
                    Ok((pkt, _)) if looks => self.record(What::ClientRead { conn: id, pkt }),
                    Ok(_) => {}
                    Err(problem) => self.record(What::Broken { conn: id, problem }),
                }
            }
            if let Some((publish, token)) = delivered {
                self.record(What::Delivered { conn: id, publish });
                let state = &mut self.clients[client];
                if let Some(token) = token {
                    let wait = state.rng.below(state.profile.ack_max + 1);
                    state.acks.push((self.at + wait, token));
                }
            }
            if let Some(publish) = finished {
                self.finish(client, publish, true);
            }
            self.notices(client);
            let read_max = self.clients[client].profile.link.read_max;
            if read >= read_max && !self.calm {
                break;
            }
        }
        bytes.drain(..read);
        if let Some(conn) = self.conns.get_mut(&id) {
            bytes.append(&mut conn.down.ready);
            conn.down.ready = bytes;
            if conn.down.is_over()
                && let Some((own, machine)) = &mut self.clients[client].machine
                && *own == id
            {
                machine.handle_closed();
                self.notices(client);
            }
        }
        // The broker has room to write.
        self.wake_shard(shard);
    }

    fn finish(&mut self, client: usize, publish: PublishId, sent: bool) {
        if let Some(uid) = self.clients[client].sending.remove(&publish) {
            self.record(What::Finished { client, uid, sent });
        }
    }

    /// Acknowledges what is due, in any order.
    fn acknowledge(&mut self, client: usize) {
        let state = &mut self.clients[client];
        let now = self.at;
        let due = |(at, _): &mut (Micros, AckToken)| *at <= now;
        let mut due: Vec<_> = state.acks.extract_if(.., due).collect();
        while !due.is_empty() {
            let (_, token) = due.swap_remove(state.rng.index(due.len()));
            if let Some((_, machine)) = &mut state.machine {
                let _lost = machine.acknowledge(token, ReasonCode::Success);
            }
        }
    }

    fn transmit(&mut self, client: usize) {
        let now = self.client_now();
        loop {
            let state = &mut self.clients[client];
            let Some((id, machine)) = &mut state.machine else {
                return;
            };
            let id = *id;
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            if conn.up.room() == 0 {
                self.seen(Kind::SlowServer);
                return;
            }
            // A packet begun is written whole, so that a full socket holds a little more.
            let mut out = TransmitBuf::new(conn.up.room());
            let more = machine.poll_transmit(now, &mut out);
            let bytes = out.slices().fold(Vec::new(), |mut all, slice| {
                all.extend_from_slice(slice);
                all
            });
            conn.up_sent.put(&bytes);
            let arrivals = conn.up.send(&bytes, self.at);
            let version = conn.version;
            for at in arrivals {
                self.schedule(at, Task::ArriveUp(id));
            }
            while let Some(conn) = self.conns.get_mut(&id)
                && let Some(packet) = conn.up_sent.next(version)
            {
                match packet {
                    Ok((pkt, len)) => self.record(What::ClientSent { conn: id, pkt, len }),
                    Err(problem) => self.record(What::Broken { conn: id, problem }),
                }
            }
            if !more {
                return;
            }
        }
    }

    /// What else a client learns, up to the end of its connection.
    fn notices(&mut self, client: usize) {
        while let Some((id, machine)) = &mut self.clients[client].machine {
            let id = *id;
            match machine.poll_event() {
                None => return,
                Some(ClientNotice::NotPublished {
                    id: Some(publish), ..
                }) => {
                    self.finish(client, publish, false);
                }
                Some(ClientNotice::Closed(reason)) => self.closed(client, id, reason),
                Some(_) => {}
            }
        }
    }

    fn closed(&mut self, client: usize, id: ConnId, reason: CloseReason) {
        self.record(What::Left { conn: id, reason });
        if let CloseReason::PeerError(error) = reason {
            let problem = format!("the client says: {error}");
            self.record(What::Broken { conn: id, problem });
        }
        let state = &mut self.clients[client];
        if let Some((_, machine)) = state.machine.take() {
            state.session = machine.into_session();
        }
        state.acks.clear();
        // Without CONNACK a client cannot know whether the server has begun a new session. Going on
        // with the state of an old one there is no safe thing to do, so this one begins anew.
        let asked = self.conns.get(&id).is_some_and(|conn| conn.clean_start);
        let info = self.model.conns.get(&id);
        let read = info.is_some_and(|info| info.connect.is_some());
        let resumed = info.is_some_and(|info| info.present == Some(true));
        let answered = info.is_some_and(|info| info.connack_read);
        if !answered {
            // One that crashed before it began one has begun none.
            let none = info.is_some_and(|info| info.crashed && info.session.is_none());
            self.clients[client].unsure |= !none && (asked || read && !resumed);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            if !answered && !read {
                // A CONNECT that comes when its client has gone on elsewhere would end that.
                conn.up.abandon();
                conn.reset = true;
            }
            conn.up.ended = !conn.up.dead;
            let end = self.rng.range(1, MILLI);
            let shard = conn.shard;
            // The end of the stream arrives behind its last byte.
            self.schedule(self.at + end, Task::ArriveUp(id));
            self.wake_shard(shard);
            // Nobody reads any more.
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.down.abandon();
                conn.left = true;
            }
        }
        if self.clients[client].wants {
            let wait = match self.clients[client].rng.below(4) {
                0 => 0,
                1 => self.clients[client].rng.below(MILLI),
                _ => self.clients[client].rng.below(500 * MILLI),
            };
            self.schedule(self.at + wait, Task::Reconnect(client));
        }
    }
}

fn topic_name(topic: &'static str) -> TopicName<'static> {
    TopicName::new(topic).expect("a Topic Name of the plan")
}

fn topic_filter(filter: &'static str) -> TopicFilter<'static> {
    TopicFilter::new(filter).expect("a Topic Filter of the plan")
}

/// A message that says which one it is: in its payload, or without one in its Content Type.
fn message(uid: Uid, topic: &'static str, padding: Option<usize>) -> Message {
    let name = format!("m{uid}");
    let Some(padding) = padding else {
        let properties = MessageProperties::new(MessagePropertiesParts {
            content_type: Some(&name),
            ..MessagePropertiesParts::default()
        });
        return Message::with_properties(topic_name(topic), &properties, &[])
            .expect("a short Content Type");
    };
    let payload = format!("{name} {}", "x".repeat(padding));
    Message::new(topic_name(topic), payload.as_bytes())
}
