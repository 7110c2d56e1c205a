//! The broker's side: shards in turn, each with its one inbox, its sockets and its store.

use std::collections::VecDeque;
use std::time::Duration;

use avocet_codec::{QoS, ReasonCode};
use avocet_engine::{
    Accepted, AuthorizationRequest, Command, ConnectionId, Event as EngineEvent, Moved, Permission,
    QuestionId, ShardId, ShardMessage, StoreState, Verdict,
};
use avocet_session::{CommitId, Demand, TransmitBuf};

use crate::conn::Conn;
use crate::coverage::Kind;
use crate::history::{ConnId, What};
use crate::plan::{CHECKER, MILLI, Micros};
use crate::rng::Rng;
use crate::wire::Pkt;
use crate::world::{Task, World};

/// What comes to a shard's one inbox.
enum Mail {
    Value(ShardId, ShardMessage),
    Moved(ConnId, Box<Moved>),
}

/// What comes of a question: a verdict on a CONNECT, or a permission.
#[derive(Debug)]
pub(crate) enum Answer {
    Verdict(ConnId, bool),
    Publish(ConnId, QuestionId, bool),
    Subscribe(ConnId, QuestionId, Vec<Option<u8>>),
    /// Whether it may connect with its Will.
    Will(ConnId, QuestionId, bool),
}

pub(crate) struct Shard {
    inbox: VecDeque<Mail>,
    pub(crate) rng: Rng,
    turn_at: Option<Micros>,
    pub(crate) last_stored: Micros,
    pub(crate) committed: VecDeque<u64>,
    pub(crate) fetched: VecDeque<u64>,
    pub(crate) answers: VecDeque<Answer>,
    /// How the disk is, if the shard is told.
    pub(crate) store_state: Option<StoreState>,
}

impl Shard {
    /// The first value of the inbox, as the engine may rely on.
    fn next_mail(&mut self) -> Option<Mail> {
        #[cfg(feature = "planted")]
        {
            use avocet_session::planted::{Bug, is_planted};
            if is_planted(Bug::InboxReordered) && self.inbox.len() > 1 && self.rng.one_in(3) {
                return self.inbox.remove(1);
            }
        }
        self.inbox.pop_front()
    }

    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            inbox: VecDeque::new(),
            rng,
            turn_at: None,
            last_stored: 0,
            committed: VecDeque::new(),
            fetched: VecDeque::new(),
            answers: VecDeque::new(),
            store_state: None,
        }
    }
}

impl World {
    /// The shard has something to do, and does it some time soon.
    pub(crate) fn wake_shard(&mut self, shard: usize) {
        let turn_max = if self.calm {
            50
        } else {
            self.plan.system.turn_max
        };
        // A connection may outlive the shard.
        let Some(state) = self.shards.get_mut(shard) else {
            return;
        };
        let wait = if state.rng.one_in(20) {
            state.rng.below(turn_max * 3)
        } else {
            state.rng.below(turn_max)
        };
        self.wake_shard_at(shard, self.at + 1 + wait);
    }

    fn wake_shard_at(&mut self, shard: usize, at: Micros) {
        let state = &mut self.shards[shard];
        if state.turn_at.is_none_or(|set| at < set) {
            state.turn_at = Some(at);
            self.schedule(at, Task::ShardTurn(shard));
        }
    }

    pub(crate) fn shard_turn(&mut self, shard: usize) {
        if self.shards[shard].turn_at != Some(self.at) {
            return;
        }
        self.shards[shard].turn_at = None;
        let now = self.now();
        while let Some(commit) = self.shards[shard].committed.pop_front() {
            self.engines[shard].handle_committed(CommitId::new(commit), now);
        }
        while let Some(number) = self.shards[shard].fetched.pop_front() {
            self.fetch(shard, number);
        }
        if let Some(state) = self.shards[shard].store_state.take() {
            self.engines[shard].set_store(state);
        }
        while let Some(answer) = self.shards[shard].answers.pop_front() {
            self.answer(shard, answer);
        }
        // Input may be read while values wait.
        let mail = self.shards[shard].inbox.len() as u64;
        let rng = &mut self.shards[shard].rng;
        let waits = if self.calm {
            33
        } else {
            self.plan.system.inbox_waits
        };
        let take = if rng.percent(waits) {
            0
        } else {
            1 + rng.below(mail)
        };
        if mail > take {
            self.seen(Kind::InboxWaited);
        }
        for _ in 0..take {
            match self.shards[shard].next_mail() {
                Some(Mail::Value(from, value)) => {
                    self.engines[shard].handle_from_shard(from, value, now);
                }
                Some(Mail::Moved(id, moved)) => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.moving = false;
                        conn.paused = false;
                        conn.waits = false;
                        self.engines[shard].handle_moved(conn.id, moved, now);
                    }
                    self.carry_out(shard);
                }
                None => break,
            }
            self.perhaps_carry_out(shard);
        }
        let due = self.engines[shard].poll_timeout();
        if due.is_some_and(|due| due <= now.instant) {
            self.engines[shard].handle_timeout(now);
            self.carry_out(shard);
        }
        let mine = |conn: &Conn| conn.shard == shard && !conn.moving;
        let ids: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| mine(conn))
            .map(|(id, _)| *id)
            .collect();
        let first = self.shards[shard].rng.index(ids.len());
        for at in 0..ids.len() {
            let id = ids[(first + at) % ids.len()];
            if self.conns[&id].can_feed() && !self.shards[shard].rng.one_in(3) {
                self.feed(shard, id);
                self.perhaps_carry_out(shard);
            }
            if let Some(conn) = self.conns.get_mut(&id)
                && mine(conn)
                && conn.must_close()
            {
                conn.told = true;
                self.engines[shard].handle_closed(conn.id, now);
            }
            if self
                .conns
                .get(&id)
                .is_some_and(|conn| mine(conn) && conn.can_write())
            {
                self.write(shard, id);
            }
        }
        self.carry_out(shard);
        self.check_shard(shard);
        self.rest(shard);
    }

    /// Says when the shard's next turn is, if it has something to do.
    fn rest(&mut self, shard: usize) {
        let busy = !self.shards[shard].inbox.is_empty()
            || self.conns.values().any(|conn| {
                conn.shard == shard && (conn.can_feed() || conn.must_close() || conn.can_write())
            });
        if busy {
            self.wake_shard(shard);
        }
        if let Some(due) = self.engines[shard].poll_timeout() {
            let at = self.booted_at + due.as_nanos().div_ceil(1_000);
            self.wake_shard_at(shard, at.max(self.at + MILLI));
        }
        self.conns.retain(|_, conn| !(conn.ended && conn.left));
    }

    fn feed(&mut self, shard: usize, id: ConnId) {
        let now = self.now();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let rng = &mut self.shards[shard].rng;
        let len = match rng.below(4) {
            0 => 1 + rng.index(conn.up.ready.len()),
            _ => conn.up.ready.len(),
        };
        let engine = &mut self.engines[shard];
        let taken_before = engine.counters().publishes_received;
        let (consumed, demand) = engine.handle_input(conn.id, &conn.up.ready[..len], now);
        let mut taken = engine.counters().publishes_received - taken_before;
        conn.up_read.put(&conn.up.ready[..consumed]);
        conn.up.ready.drain(..consumed);
        conn.paused = demand == Demand::Paused;
        let paused = conn.paused;
        conn.waits = demand == Demand::More && len - consumed == conn.up.ready.len();
        let (client, version) = (conn.client, conn.version);
        if paused {
            self.seen(Kind::InputPaused);
        }
        let mut connects = false;
        while let Some(conn) = self.conns.get_mut(&id)
            && let Some(packet) = conn.up_read.next(version)
        {
            match packet {
                Ok((Pkt::Publish(publish), _)) if !self.model.is_repeated(id, &publish) => {
                    // What comes while the connection is being closed is not taken.
                    if taken > 0 {
                        taken -= 1;
                        let pkt = Pkt::Publish(publish);
                        self.record(What::ServerRead { conn: id, pkt });
                    }
                }
                Ok((pkt, _)) => {
                    connects |= matches!(pkt, Pkt::Connect(_));
                    let subscribes = matches!(pkt, Pkt::Subscribe { .. });
                    self.record(What::ServerRead { conn: id, pkt });
                    if subscribes {
                        self.echo(id);
                    }
                }
                Err(problem) => self.record(What::Broken { conn: id, problem }),
            }
        }
        if connects {
            // Who has the session is known before anything else is read.
            self.carry_out(shard);
        }
        // The client has room to write.
        self.wake_client(client, self.at);
    }

    fn perhaps_carry_out(&mut self, shard: usize) {
        if self.shards[shard].rng.percent(self.plan.system.carries) {
            self.carry_out(shard);
        }
    }

    /// Does what a shard asks for.
    fn carry_out(&mut self, shard: usize) {
        let this = ShardId::new(shard as u16);
        while let Some(command) = self.engines[shard].poll_command() {
            match command {
                Command::ToShard { to, value } => {
                    self.shards[to.index()]
                        .inbox
                        .push_back(Mail::Value(this, value));
                    self.wake_shard(to.index());
                }
                Command::Move { id, to, moved } => {
                    let id = number(id);
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.shard = to.index();
                        conn.moving = true;
                    }
                    self.seen(Kind::ConnectionMoved);
                    self.shards[to.index()]
                        .inbox
                        .push_back(Mail::Moved(id, moved));
                    self.wake_shard(to.index());
                }
                Command::Resume(id) => {
                    if let Some(conn) = self.conns.get_mut(&number(id)) {
                        conn.paused = false;
                    }
                }
                Command::Flush(id) => self.write(shard, number(id)),
                Command::Close(id) => self.end(number(id)),
                Command::Log(EngineEvent::Connected {
                    id,
                    session_present,
                    ..
                }) => {
                    let (conn, present) = (number(id), session_present);
                    self.record(What::Accepted { conn, present });
                }
                Command::Log(EngineEvent::Disconnected { id, reason, .. }) => {
                    self.record(What::Ended {
                        conn: number(id),
                        reason,
                    });
                }
                Command::Log(_) => {}
                Command::Commit { id, records, .. } => self.commit(shard, id, &records),
                Command::Fetch { session, from } => {
                    let number = self.seq_of_fetch();
                    self.fetches.insert(number, (session, from));
                    let wait = self.shards[shard].rng.below(self.plan.system.commit_max);
                    self.schedule(self.at + wait, Task::Fetch(shard, number));
                }
                Command::Authenticate { id, .. } => {
                    let conn = number(id);
                    let refuses = self.plan.system.access.refuses;
                    let reliable = self.conns[&conn].client <= CHECKER;
                    let rng = &mut self.shards[shard].rng;
                    let accepts = self.calm || reliable || !rng.percent(refuses);
                    self.ask(shard, Answer::Verdict(conn, accepts));
                }
                Command::Authorize {
                    id,
                    question,
                    request,
                    ..
                } => {
                    let conn = number(id);
                    let client = self.conns[&conn].client;
                    let access = self.plan.system.access;
                    let answer = match request {
                        AuthorizationRequest::Publish { will: true, .. } => {
                            let reliable = self.calm || client <= CHECKER;
                            let rng = &mut self.shards[shard].rng;
                            let permitted = reliable || !rng.percent(access.refuses);
                            Answer::Will(conn, question, permitted)
                        }
                        AuthorizationRequest::Publish { topic_name, .. } => {
                            let permitted = access.may_publish(client, topic_name.as_str());
                            Answer::Publish(conn, question, permitted)
                        }
                        AuthorizationRequest::Subscribe { filters } => {
                            let mut all = Vec::new();
                            for (filter, qos) in filters {
                                let granted = access.grants(client, filter.as_str(), qos);
                                if granted.is_some_and(|granted| granted < qos) {
                                    self.seen(Kind::QoSLowered);
                                }
                                all.push(granted.map(|qos| qos as u8));
                            }
                            Answer::Subscribe(conn, question, all)
                        }
                        _ => continue,
                    };
                    self.ask(shard, answer);
                }
                _ => {}
            }
        }
    }

    /// The answer comes some time.
    fn ask(&mut self, shard: usize, answer: Answer) {
        let wait_max = if self.calm {
            100
        } else {
            self.plan.system.access.wait_max
        };
        let wait = self.shards[shard].rng.below(wait_max);
        self.schedule(self.at + wait, Task::Answer(shard, Box::new(answer)));
    }

    fn answer(&mut self, shard: usize, answer: Answer) {
        let now = self.now();
        let (Answer::Verdict(conn, _)
        | Answer::Publish(conn, ..)
        | Answer::Subscribe(conn, ..)
        | Answer::Will(conn, ..)) = &answer;
        let Some(id) = self.conns.get(conn).map(|conn| conn.id) else {
            return;
        };
        match answer {
            Answer::Verdict(_, accepts) => {
                let verdict = if accepts {
                    Verdict::Accept(Accepted::default())
                } else {
                    Verdict::Refuse {
                        reason: ReasonCode::NotAuthorized,
                        reason_string: None,
                        server_reference: None,
                    }
                };
                self.seen(Kind::ConnectWaited);
                self.engines[shard].handle_authenticated(id, verdict, now);
                // Who has the session is known before anything else is read.
                self.carry_out(shard);
            }
            Answer::Publish(conn, question, permitted) => {
                self.record(What::Judged { conn });
                self.authorize(shard, id, question, Permission::Publish(code_of(permitted)));
                // What was answered is not asked any more.
                self.authorize(
                    shard,
                    id,
                    question,
                    Permission::Publish(code_of(!permitted)),
                );
            }
            Answer::Will(_, question, permitted) => {
                self.authorize(shard, id, question, Permission::Publish(code_of(permitted)));
                // Who has the session is known before anything else is read.
                self.carry_out(shard);
            }
            Answer::Subscribe(conn, question, granted) => {
                self.record(What::Judged { conn });
                let granted = granted.into_iter().map(|granted| match granted {
                    Some(0) => Ok(QoS::AtMostOnce),
                    Some(1) => Ok(QoS::AtLeastOnce),
                    Some(_) => Ok(QoS::ExactlyOnce),
                    None => Err(ReasonCode::NotAuthorized),
                });
                let permission = Permission::Subscribe(granted.collect());
                self.authorize(shard, id, question, permission);
            }
        }
    }

    fn authorize(
        &mut self,
        shard: usize,
        id: ConnectionId,
        question: QuestionId,
        permission: Permission,
    ) {
        let now = self.now();
        self.engines[shard].handle_authorized(id, question, permission, Duration::ZERO, now);
    }

    /// Lets a connection have its output, as far as its socket takes it.
    fn write(&mut self, shard: usize, id: ConnId) {
        let now = self.now();
        loop {
            let Some(conn) = self.conns.get_mut(&id) else {
                return;
            };
            let room = conn.down.room().min(conn.rest.len());
            if room > 0 {
                let bytes: Vec<u8> = conn.rest.drain(..room).collect();
                for at in conn.down.send(&bytes, self.at) {
                    self.schedule(at, Task::ArriveDown(id));
                }
                continue;
            }
            if conn.ended && conn.rest.is_empty() {
                conn.down.ended = !conn.down.dead;
                self.schedule_last(id);
                return;
            }
            if !conn.rest.is_empty() || conn.down.room() == 0 || conn.ended || conn.moving {
                conn.more |= !conn.ended;
                if conn.down.room() == 0 {
                    self.seen(Kind::SlowReader);
                }
                return;
            }
            let rng = &mut self.shards[shard].rng;
            let limit = if rng.one_in(3) {
                1 + rng.index(200)
            } else {
                1 << 16
            };
            let mut out = TransmitBuf::new(limit);
            conn.more = self.engines[shard].poll_transmit(conn.id, now, &mut out);
            let bytes = out.slices().fold(Vec::new(), |mut all, slice| {
                all.extend_from_slice(slice);
                all
            });
            conn.down_sent.put(&bytes);
            conn.rest = bytes;
            let (more, version) = (conn.more, conn.version);
            while let Some(conn) = self.conns.get_mut(&id)
                && let Some(packet) = conn.down_sent.next(version)
            {
                match packet {
                    Ok((pkt, len)) => {
                        let answers = matches!(pkt, Pkt::Suback { .. } | Pkt::Unsuback { .. });
                        self.record(What::ServerSent { conn: id, pkt, len });
                        if answers {
                            self.echo(id);
                        }
                    }
                    Err(problem) => self.record(What::Broken { conn: id, problem }),
                }
            }
            if !more && self.conns.get(&id).is_none_or(|conn| conn.rest.is_empty()) {
                return;
            }
        }
    }

    /// The end of the stream arrives behind its last byte.
    fn schedule_last(&mut self, id: ConnId) {
        let latency = self.rng.range(1, MILLI);
        self.schedule(self.at + latency, Task::ArriveDown(id));
    }

    /// The engine is done with a connection: what was taken is written, then it is closed.
    fn end(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.ended = true;
            conn.more = false;
            let shard = conn.shard;
            self.write(shard, id);
        }
    }
}

const fn code_of(permitted: bool) -> ReasonCode {
    if permitted {
        ReasonCode::Success
    } else {
        ReasonCode::NotAuthorized
    }
}

/// The number of a connection in this run.
fn number(id: ConnectionId) -> ConnId {
    id.get() & ((1 << 48) - 1)
}
