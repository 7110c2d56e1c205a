//! What an observer who sees every packet knows: the reference that says which subscriber may and
//! must receive which message. It knows nothing of shards, queues or commits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use avocet_codec::{
    AckType, QoS, ReasonCode, SubscriptionOptions, TopicFilter, TopicName, Version,
};
use avocet_session::CloseReason;

use crate::history::{ConnId, Event, What};
use crate::plan::{Access, Action, Micros, Op, Plan, Profile, System, WillPlan};
use crate::wire::{ConnackPkt, ConnectPkt, Pkt, PublishPkt, Uid};

/// The place of an event in the history.
pub(crate) type Seq = u64;

/// Which session of the run, of any client, it is.
pub(crate) type SessionId = usize;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) clients: Vec<Profile>,
    pub(crate) system: System,
    pub(crate) messages: BTreeMap<Uid, MessageInfo>,
    pub(crate) conns: BTreeMap<ConnId, ConnInfo>,
    pub(crate) sessions: Vec<SessionInfo>,
    /// The session that the broker has for a client, as far as is known.
    pub(crate) current: Vec<Option<SessionId>>,
    pub(crate) subs: Vec<Sub>,
    /// PUBLISH packets to a session, by message.
    pub(crate) copies: BTreeMap<(SessionId, Uid), Copies>,
    /// How often the broker has crashed.
    pub(crate) crashes: u32,
    /// Whether the disk does not work for a while, so that what is taken may be refused.
    disk_fails: bool,
    /// When it did, while it is not back.
    pub(crate) down_since: Option<Seq>,
    /// What is not known to be stored, and since when.
    pub(crate) pending: BTreeMap<(usize, u64), Micros>,
    /// At the last crash, what happened before this was stored.
    pub(crate) unsafe_since: Micros,
    /// What the last restart should have found, or should not have.
    pub(crate) lost: Vec<String>,
    /// Whether the wall clock has jumped.
    pub(crate) jumped: bool,
    /// The last message acknowledged to its publisher, and when.
    pub(crate) last_acked: Option<(Seq, Uid)>,
    pub(crate) access: Access,
    /// What the last permission or refusal was about.
    pub(crate) last_judged: Option<Pkt>,
    published: u64,

    // Known at the end only.
    /// Messages that a full queue dropped.
    pub(crate) dropped_full: u64,
    pub(crate) queued_at_end: u64,
    /// What clients wait for.
    pub(crate) unfinished: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct MessageInfo {
    pub(crate) publisher: usize,
    pub(crate) topic: &'static str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) empty: bool,
    pub(crate) len: usize,
    pub(crate) expiry: Option<u32>,
    /// Set for a Will Message: its delay in seconds.
    pub(crate) will: Option<u32>,
    /// Its place among what all applications published.
    pub(crate) order: u64,
    /// When the broker first took it; of a will, its CONNECT.
    pub(crate) read: Option<Seq>,
    /// When it took what it keeps: no crash has come between that and its acknowledgement.
    pub(crate) certain: Option<Seq>,
    /// Whether it was ever acknowledged.
    pub(crate) kept: bool,
    pub(crate) last_read_at: Micros,
    /// The session that published it last.
    pub(crate) read_from: Option<SessionId>,
    /// The Message Expiry Interval with which it came.
    pub(crate) read_expiry: Option<u32>,
    /// How often the broker took it as a new message.
    pub(crate) reads: u32,
    /// When the broker acknowledged what it took last.
    pub(crate) acked: Option<Seq>,
    pub(crate) refused: bool,
    /// Its publisher may not publish to its topic.
    pub(crate) forbidden: bool,
}

#[derive(Debug)]
pub(crate) struct ConnInfo {
    pub(crate) client: usize,
    pub(crate) connect: Option<ConnectPkt>,
    pub(crate) connack: Option<ConnackPkt>,
    pub(crate) connack_seq: Option<Seq>,
    pub(crate) connack_read: bool,
    pub(crate) session: Option<SessionId>,
    /// What the broker says about its session.
    pub(crate) present: Option<bool>,
    pub(crate) accepted_at: Micros,
    pub(crate) accepted_seq: Seq,
    /// When another connection took its session.
    pub(crate) superseded: Option<(Seq, Micros)>,
    pub(crate) ended: Option<(Seq, Micros, CloseReason)>,
    pub(crate) left: bool,
    pub(crate) cut: bool,
    /// When the broker last took a packet.
    pub(crate) read_at: Micros,
    /// QoS 1 messages by Packet Identifier.
    incoming: BTreeMap<u16, Uid>,
    /// UNSUBSCRIBE packets without UNSUBACK.
    unsubscribes: BTreeMap<u16, Vec<String>>,
    /// It ended with the broker.
    pub(crate) crashed: bool,
    /// Nobody knows whether its will is still to be published.
    pub(crate) will_uncertain: bool,
    /// Subscriptions without SUBACK; none for a filter that is not permitted.
    subscribes: BTreeMap<u16, Vec<Option<usize>>>,
    /// What waits for permission, and since when.
    question: Option<(Micros, Pkt)>,
}

impl ConnInfo {
    /// Whether it has its session, as far as is known.
    pub(crate) fn is_live(&self) -> bool {
        self.session.is_some() && self.superseded.is_none() && self.ended.is_none()
    }

    /// When it lost its session, or ended.
    pub(crate) fn lost(&self) -> Option<Seq> {
        let superseded = self.superseded.map(|(seq, _)| seq);
        superseded.or_else(|| self.ended.map(|(seq, ..)| seq))
    }

    pub(crate) fn drop_question(&mut self) {
        self.question = None;
    }

    /// Whether it waits for permission.
    pub(crate) const fn has_question(&self) -> bool {
        self.question.is_some()
    }

    pub(crate) fn version(&self) -> Version {
        self.connect
            .as_ref()
            .map_or(Version::V5, |connect| connect.version)
    }
}

#[derive(Debug)]
pub(crate) struct SessionInfo {
    pub(crate) client: usize,
    pub(crate) ended: Option<Seq>,
    /// Seconds, of its last connection.
    pub(crate) expiry: u32,
    pub(crate) conn: ConnId,
    pub(crate) began: Seq,
    /// Whether its client was told that it began.
    pub(crate) answered: bool,
    /// Whether it is certain to survive a crash.
    pub(crate) certain: bool,
    /// QoS 2 messages taken and not released, by Packet Identifier.
    pub(crate) received: BTreeMap<u16, Received>,
    /// Those that were released, without PUBCOMP.
    pub(crate) releasing: BTreeMap<u16, Received>,
}

/// A QoS 2 message of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) uid: Uid,
    /// Whether it had PUBREC.
    pub(crate) answered: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub(crate) session: SessionId,
    /// The connection that subscribed.
    pub(crate) conn: ConnId,
    pub(crate) filter: String,
    /// Without `$share/` and Share Name.
    pub(crate) matched: String,
    pub(crate) shared: bool,
    pub(crate) options: SubscriptionOptions,
    pub(crate) id: Option<u32>,
    /// Whether there was none for this filter.
    pub(crate) new: bool,
    /// From here on it may be in force.
    pub(crate) began: Seq,
    /// From here on it is.
    pub(crate) certain: Option<Seq>,
    /// When its own SUBACK left.
    pub(crate) answered: Option<Seq>,
    /// From here on it is not.
    pub(crate) ended: Option<Seq>,
    /// Whether its client was told so.
    pub(crate) end_answered: bool,
    /// The one that took its place, with other options.
    pub(crate) replaced_by: Option<usize>,
}

impl Sub {
    pub(crate) fn matches(&self, topic: &str) -> bool {
        let filter = TopicFilter::new(&self.matched);
        let topic = TopicName::new(topic);
        matches!((filter, topic), (Ok(filter), Ok(topic)) if avocet_topic::matches(filter, topic))
    }
}

/// A PUBLISH from the broker to a session.
#[derive(Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) conn: ConnId,
    pub(crate) publish: &'a PublishPkt,
    pub(crate) session: SessionId,
    pub(crate) uid: Uid,
    pub(crate) message: &'a MessageInfo,
}

impl fmt::Display for Sent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.conn, Pkt::Publish(self.publish.clone()))
    }
}

/// What a session was sent of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    /// PUBLISH packets that are not sent again.
    pub(crate) fresh: u32,
    /// How many of them may be lost in a crash that the message survives: those below QoS 2.
    pub(crate) loose: u32,
    /// The last of them, and the Packet Identifiers of all.
    pub(crate) latest: Option<Seq>,
    ids: BTreeSet<u16>,
    /// The first PUBLISH.
    pub(crate) first: Option<Seq>,
    /// The highest QoS.
    pub(crate) qos: Option<QoS>,
    /// What its application received.
    pub(crate) delivered: u32,
}

impl Model {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            clients: plan.clients.clone(),
            system: plan.system.clone(),
            messages: BTreeMap::new(),
            conns: BTreeMap::new(),
            sessions: Vec::new(),
            current: vec![None; plan.clients.len()],
            subs: Vec::new(),
            copies: BTreeMap::new(),
            crashes: 0,
            disk_fails: plan
                .ops
                .iter()
                .any(|op| matches!(op.action, Action::Disk { .. })),
            down_since: None,
            pending: BTreeMap::new(),
            unsafe_since: 0,
            lost: Vec::new(),
            jumped: false,
            last_acked: None,
            access: plan.system.access,
            last_judged: None,
            published: 0,
            dropped_full: 0,
            queued_at_end: 0,
            unfinished: Vec::new(),
        }
    }

    pub(crate) fn add_message(&mut self, op: &Op) {
        if let Action::Publish {
            topic,
            qos,
            retain,
            padding,
            expiry,
        } = op.action
        {
            self.published += 1;
            let info = MessageInfo {
                publisher: op.client,
                topic,
                qos,
                retain,
                empty: padding.is_none(),
                len: padding.unwrap_or_default(),
                expiry,
                will: None,
                order: self.published,
                read: None,
                certain: None,
                kept: false,
                last_read_at: 0,
                read_from: None,
                read_expiry: None,
                reads: 0,
                acked: None,
                refused: false,
                forbidden: !self.access.may_publish(op.client, topic),
            };
            self.messages.insert(op.number, info);
        }
    }

    pub(crate) fn add_will(&mut self, uid: Uid, client: usize, will: &WillPlan) {
        self.published += 1;
        let info = MessageInfo {
            publisher: client,
            topic: will.topic,
            qos: will.qos,
            retain: will.retain,
            empty: false,
            len: 0,
            expiry: None,
            will: Some(will.delay),
            order: self.published,
            read: None,
            certain: None,
            kept: false,
            last_read_at: 0,
            read_from: None,
            read_expiry: None,
            reads: 0,
            acked: None,
            refused: false,
            forbidden: false,
        };
        self.messages.insert(uid, info);
    }

    pub(crate) fn session_of(&self, conn: ConnId) -> Option<SessionId> {
        self.conns.get(&conn)?.session
    }

    pub(crate) fn message(&self, publish: &PublishPkt) -> Option<&MessageInfo> {
        self.messages.get(&publish.uid?)
    }

    /// The connection whose will a message is.
    pub(crate) fn will_of(&self, uid: Uid) -> Option<&ConnInfo> {
        let of = |info: &&ConnInfo| info.connect.as_ref().and_then(|it| it.will) == Some(uid);
        self.conns.values().find(of)
    }

    /// The subscriptions of a session that a message matches, past ones included.
    pub(crate) fn matching<'a>(
        &'a self,
        session: SessionId,
        message: &'a MessageInfo,
    ) -> impl Iterator<Item = &'a Sub> {
        let subs = self.subs.iter().filter(move |sub| sub.session == session);
        subs.filter(|sub| self.takes(sub, message))
    }

    /// Whether a message is to a topic that a subscription matches, and both are of one tenant.
    pub(crate) fn takes(&self, sub: &Sub, message: &MessageInfo) -> bool {
        self.is_of_tenant(sub, message.publisher) && sub.matches(message.topic)
    }

    /// Whether a subscription is that of a client's tenant.
    pub(crate) fn is_of_tenant(&self, sub: &Sub, client: usize) -> bool {
        let subscriber = self.sessions[sub.session].client;
        self.clients[subscriber].tenant == self.clients[client].tenant
    }

    /// A PUBLISH that the broker sends, of a message of the run.
    pub(crate) fn sent<'a>(&'a self, event: &'a Event) -> Option<Sent<'a>> {
        let What::ServerSent {
            conn,
            pkt: Pkt::Publish(publish),
            ..
        } = &event.what
        else {
            return None;
        };
        let uid = publish.uid?;
        Some(Sent {
            conn: *conn,
            publish,
            session: self.session_of(*conn)?,
            uid,
            message: self.messages.get(&uid)?,
        })
    }

    /// Whether a QoS 2 PUBLISH came before and is not released.
    pub(crate) fn is_repeated(&self, conn: ConnId, publish: &PublishPkt) -> bool {
        let session = self.session_of(conn).and_then(|it| self.sessions.get(it));
        publish.qos == QoS::ExactlyOnce
            && session
                .zip(publish.id)
                .is_some_and(|(session, id)| session.received.contains_key(&id))
    }

    /// The subscription that a connection last made, had confirmed or ended.
    pub(crate) fn last_sub(&self, conn: ConnId) -> Option<&Sub> {
        let subs = self.subs.iter().filter(|sub| sub.conn == conn);
        subs.max_by_key(|sub| sub.certain.max(sub.ended).max(Some(sub.began)))
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match &event.what {
            What::Opened { conn, client } => {
                let info = ConnInfo {
                    client: *client,
                    connect: None,
                    connack: None,
                    connack_seq: None,
                    connack_read: false,
                    session: None,
                    present: None,
                    accepted_at: 0,
                    accepted_seq: 0,
                    superseded: None,
                    ended: None,
                    left: false,
                    cut: false,
                    read_at: event.at,
                    incoming: BTreeMap::new(),
                    unsubscribes: BTreeMap::new(),
                    crashed: false,
                    will_uncertain: false,
                    subscribes: BTreeMap::new(),
                    question: None,
                };
                self.conns.insert(*conn, info);
            }
            What::ServerRead { conn, pkt } => self.server_read(event, *conn, pkt),
            What::ServerSent { conn, pkt, .. } => self.server_sent(event.seq, *conn, pkt),
            What::Accepted { conn, present } => self.accepted(event, *conn, *present),
            What::Ended { conn, reason } => {
                let Some(info) = self.conns.get_mut(conn) else {
                    return;
                };
                info.ended = Some((event.seq, event.at, *reason));
                if let (Some(session), None) = (info.session, info.superseded)
                    && self.sessions[session].expiry == 0
                {
                    self.end_session(session, event.seq);
                }
            }
            What::Left { conn, .. } => {
                if let Some(info) = self.conns.get_mut(conn) {
                    info.left = true;
                }
            }
            What::Cut { conn } => {
                if let Some(info) = self.conns.get_mut(conn) {
                    info.cut = true;
                }
            }
            What::Delivered { conn, publish } => {
                if let (Some(session), Some(uid)) = (self.session_of(*conn), publish.uid) {
                    self.copies.entry((session, uid)).or_default().delivered += 1;
                }
            }
            What::Commit { shard, commit, .. } => {
                self.pending.insert((*shard, *commit), event.at);
            }
            What::Committed { shard, commit } => {
                self.pending
                    .retain(|it, _| it.0 != *shard || it.1 > *commit);
            }
            What::Crashed { .. } => self.crashed(event),
            What::Restarted { survivors, .. } => self.restarted(event, survivors),
            What::Jump { .. } => self.jumped = true,
            What::Judged { conn } => {
                let info = self.conns.get_mut(conn);
                self.last_judged = None;
                if let Some((at, pkt)) = info.and_then(|info| info.question.take()) {
                    self.take(event.seq, at, *conn, &pkt);
                    self.last_judged = Some(pkt);
                }
            }
            What::ClientRead {
                conn,
                pkt: Pkt::Connack(_),
            } => {
                if let Some(info) = self.conns.get_mut(conn) {
                    info.connack_read = true;
                }
            }
            What::ClientSent { .. }
            | What::ClientRead { .. }
            | What::Published { .. }
            | What::Finished { .. }
            | What::Calm
            | What::Stall
            | What::Broken { .. } => {}
        }
    }

    pub(crate) fn end_session(&mut self, session: SessionId, seq: Seq) {
        self.sessions[session].ended.get_or_insert(seq);
        let client = self.sessions[session].client;
        if self.current[client] == Some(session) {
            self.current[client] = None;
        }
        for sub in self.subs.iter_mut().filter(|sub| sub.session == session) {
            sub.ended.get_or_insert(seq);
        }
    }

    fn accepted(&mut self, event: &Event, conn: ConnId, present: bool) {
        let Some(client) = self.conns.get(&conn).map(|info| info.client) else {
            return;
        };
        if let Some(old) = self.current[client] {
            let holder = self.sessions[old].conn;
            if let Some(info) = self.conns.get_mut(&holder)
                && info.ended.is_none()
            {
                info.superseded = Some((event.seq, event.at));
            }
            if !present {
                self.end_session(old, event.seq);
            }
        }

        let connect = self.conns[&conn].connect.as_ref();
        let expiry = connect.map_or(0, |connect| connect.expiry);
        let session = match self.current[client] {
            Some(session) => {
                self.sessions[session].expiry = expiry;
                self.sessions[session].conn = conn;
                session
            }
            None => {
                self.sessions.push(SessionInfo {
                    client,
                    ended: None,
                    expiry,
                    conn,
                    began: event.seq,
                    answered: false,
                    certain: false,
                    received: BTreeMap::new(),
                    releasing: BTreeMap::new(),
                });
                self.sessions.len() - 1
            }
        };
        self.current[client] = Some(session);
        if let Some(info) = self.conns.get_mut(&conn) {
            info.session = Some(session);
            info.present = Some(present);
            info.accepted_at = event.at;
            info.accepted_seq = event.seq;
        }
    }

    fn server_read(&mut self, event: &Event, conn: ConnId, pkt: &Pkt) {
        let repeated = matches!(pkt, Pkt::Publish(publish) if self.is_repeated(conn, publish));
        let Some(info) = self.conns.get_mut(&conn) else {
            return;
        };
        info.read_at = event.at;
        if let Pkt::Connect(connect) = pkt {
            if let Some(message) = connect.will.and_then(|will| self.messages.get_mut(&will)) {
                message.read = Some(event.seq);
                message.reads = 1;
            }
            info.connect = Some(connect.clone());
            return;
        }
        let asks = match pkt {
            Pkt::Publish(_) => !repeated,
            Pkt::Subscribe { .. } => true,
            _ => false,
        };
        if self.access.asked && asks && info.is_live() {
            info.question = Some((event.at, pkt.clone()));
            return;
        }
        self.take(event.seq, event.at, conn, pkt);
    }

    /// A packet that the broker has read takes effect.
    fn take(&mut self, seq: Seq, read_at: Micros, conn: ConnId, pkt: &Pkt) {
        let repeated = matches!(pkt, Pkt::Publish(publish) if self.is_repeated(conn, publish));
        let Some(info) = self.conns.get_mut(&conn) else {
            return;
        };
        let (Some(session), true) = (info.session, info.is_live()) else {
            return;
        };
        let client = info.client;
        match pkt {
            Pkt::Publish(publish) => {
                if let (Some(id), Some(uid)) = (publish.id, publish.uid) {
                    if publish.qos == QoS::ExactlyOnce {
                        let received = Received {
                            uid,
                            answered: false,
                        };
                        let known = &mut self.sessions[session].received;
                        known.entry(id).or_insert(received);
                    } else {
                        info.incoming.insert(id, uid);
                    }
                }
                if let Some(message) = publish.uid.and_then(|uid| self.messages.get_mut(&uid))
                    && !repeated
                {
                    message.read.get_or_insert(seq);
                    message.certain.get_or_insert(seq);
                    message.last_read_at = read_at;
                    message.read_from = Some(session);
                    message.read_expiry = publish.expiry;
                    message.reads += 1;
                    message.acked = None;
                }
            }
            Pkt::Ack {
                kind: AckType::Pubrel,
                id,
                ..
            } => {
                let session = &mut self.sessions[session];
                if let Some(received) = session.received.remove(id) {
                    session.releasing.insert(*id, received);
                }
            }
            Pkt::Subscribe {
                id,
                filters,
                subscription_id,
            } => {
                let mut added = Vec::new();
                for (filter, options) in filters {
                    let granted = self.access.grants(client, filter, options.maximum_qos);
                    let Some(maximum_qos) = granted else {
                        added.push(None);
                        continue;
                    };
                    let mut options = *options;
                    options.maximum_qos = maximum_qos;
                    let index = self.subs.len();
                    let old = self.subs.iter_mut().find(|sub| {
                        sub.session == session && sub.filter == *filter && sub.ended.is_none()
                    });
                    let new = old.is_none();
                    let mut certain = None;
                    if let Some(old) = old {
                        old.ended = Some(seq);
                        old.replaced_by = Some(index);
                        certain = old.certain.map(|_| seq);
                    }
                    let share = TopicFilter::new(filter).ok();
                    let share = share.and_then(|filter| filter.share().ok().flatten());
                    self.subs.push(Sub {
                        session,
                        conn,
                        filter: filter.clone(),
                        matched: share
                            .map_or(filter.as_str(), |share| share.topic_filter.as_str())
                            .to_owned(),
                        shared: share.is_some(),
                        options,
                        id: *subscription_id,
                        new,
                        began: seq,
                        certain,
                        answered: None,
                        ended: None,
                        end_answered: false,
                        replaced_by: None,
                    });
                    added.push(Some(index));
                }
                info.subscribes.insert(*id, added);
            }
            Pkt::Unsubscribe { id, filters } => {
                info.unsubscribes.insert(*id, filters.clone());
                for sub in &mut self.subs {
                    if sub.session == session && filters.contains(&sub.filter) {
                        sub.ended.get_or_insert(seq);
                    }
                }
            }
            _ => {}
        }
    }

    fn server_sent(&mut self, seq: Seq, conn: ConnId, pkt: &Pkt) {
        let Some(info) = self.conns.get_mut(&conn) else {
            return;
        };
        match pkt {
            Pkt::Connack(connack) => {
                info.connack = Some(connack.clone());
                info.connack_seq = Some(seq);
                if let Some(session) = info.session {
                    let session = &mut self.sessions[session];
                    session.answered = true;
                    session.certain |= connack.present;
                }
            }
            Pkt::Ack { kind, id, code } => {
                let uid = match (kind, info.session) {
                    (AckType::Puback, _) => info.incoming.get(id).copied(),
                    (AckType::Pubrec, Some(session)) => {
                        let state = &mut self.sessions[session];
                        let uid = state.received.get(id).map(|it| it.uid);
                        if code.is_error() {
                            state.received.remove(id);
                        } else if let Some(received) = state.received.get_mut(id) {
                            received.answered = true;
                            // What a 3.x client may not publish has PUBREC and goes nowhere.
                            let message = self.messages.get(&received.uid);
                            state.certain |= message.is_some_and(|it| !it.forbidden);
                        }
                        uid
                    }
                    (AckType::Pubcomp, Some(session)) => {
                        self.sessions[session].releasing.remove(id);
                        None
                    }
                    _ => None,
                };
                self.last_acked = uid.map(|uid| (seq, uid));
                if let Some(message) = uid.and_then(|uid| self.messages.get_mut(&uid)) {
                    message.acked.get_or_insert(seq);
                    message.kept |= !code.is_error();
                    message.refused |= code.is_error();
                }
            }
            Pkt::Suback { id, codes } => {
                let subs = info.subscribes.remove(id).unwrap_or_default();
                let subs = subs.into_iter().zip(codes);
                for (index, code) in subs.filter_map(|(index, code)| Some((index?, code))) {
                    let sub = &mut self.subs[index];
                    sub.answered = Some(seq);
                    if code.is_error() {
                        sub.ended.get_or_insert(seq);
                        sub.end_answered = true;
                    } else {
                        self.sessions[sub.session].certain = true;
                        sub.certain.get_or_insert(seq);
                        debug_assert!(*code as u8 <= ReasonCode::GrantedQoS2 as u8);
                    }
                }
            }
            Pkt::Unsuback { id } => {
                let filters = info.unsubscribes.remove(id).unwrap_or_default();
                for sub in &mut self.subs {
                    let told = Some(sub.session) == info.session && filters.contains(&sub.filter);
                    sub.end_answered |= told && sub.ended.is_some();
                }
            }
            Pkt::Publish(publish) => {
                if let (Some(session), Some(uid)) = (info.session, publish.uid) {
                    let copies = self.copies.entry((session, uid)).or_default();
                    // After a crash also what was never sent may have DUP.
                    let known = publish.id.is_some_and(|id| !copies.ids.insert(id));
                    if !publish.dup || !known {
                        copies.fresh += 1;
                        copies.loose += u32::from(publish.qos < QoS::ExactlyOnce);
                        copies.latest = Some(seq);
                    }
                    copies.first.get_or_insert(seq);
                    copies.qos = copies.qos.max(Some(publish.qos));
                }
            }
            _ => {}
        }
    }

    /// Whether the broker may have refused a message, and its client never heard of it.
    pub(crate) fn may_be_dropped(&self, message: &MessageInfo) -> bool {
        self.disk_fails && !message.kept && message.qos > QoS::AtMostOnce
    }

    /// The QoS at which a session must have received a message by the end; none if it need not.
    pub(crate) fn must(&self, session: SessionId, message: &MessageInfo) -> Option<QoS> {
        let state = &self.sessions[session];
        let read = message.certain?;
        let profile = &self.clients[state.client];
        let invisible = message.empty && profile.version != Version::V5;
        let large = profile.maximum_packet_size < u32::MAX && message.len > 1_000;
        if state.ended.is_some()
            || self.may_be_dropped(message)
            || message.refused
            || message.forbidden
            || message.will.is_some()
            || message.expiry.is_some()
            || invisible
            || large
        {
            return None;
        }
        self.matching(session, message)
            .filter(|sub| !sub.shared)
            .filter_map(|sub| self.granted(sub, message, read, state.client))
            .max()
    }

    /// The QoS that a subscription grants a message for certain.
    fn granted(&self, sub: &Sub, message: &MessageInfo, read: Seq, client: usize) -> Option<QoS> {
        if sub.certain? >= read {
            return None;
        }
        let mut sub = sub;
        let mut qos = message.qos.min(sub.options.maximum_qos);
        loop {
            if sub.options.no_local && message.publisher == client {
                return None;
            }
            qos = qos.min(sub.options.maximum_qos);
            match (sub.ended, sub.replaced_by) {
                (None, _) => return Some(qos),
                // Everything was where it belongs when the message was acknowledged.
                (Some(ended), _) if message.acked.is_some_and(|acked| ended > acked) => {
                    return Some(qos);
                }
                (Some(_), Some(next)) => sub = &self.subs[next],
                (Some(_), None) => return None,
            }
        }
    }

    /// Whether a session's client was connected from before an event to the end.
    pub(crate) fn stayed(&self, session: SessionId, since: Seq) -> bool {
        let info = &self.conns[&self.sessions[session].conn];
        info.is_live() && !info.cut && info.connack_seq.is_some_and(|seq| seq < since)
    }
}
