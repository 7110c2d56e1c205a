//! Some shards, their inboxes and scripted clients, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{
    Ack, AckType, Connect, Delivery, Frame, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilter, SubscriptionOptions, TopicFilter, TopicName, Unsubscribe, Version, frame_len,
};
use avocet_engine::{
    Accepted, AuthenticationRequest, AuthorizationRequest, Command, ConnectionId, Counters,
    DropReason, Engine, EngineConfig, Event, Fetched, Level, Moved, Opened, Permission, PublishIn,
    QuestionId, Record, SessionKey, ShardId, ShardMessage, Tenant, Verdict,
};
use avocet_session::{CommitId, Demand, FetchFrom, Message, Now, TransmitBuf, UnixTime};
use bytes::Bytes;

use crate::store::Store;

/// Runs a test with one shard, with three, and with three in several random orders.
pub(crate) fn each(test: impl Fn(Cluster)) {
    each_with(|_| {}, test);
}

/// Runs a test as [`each`] does, with another configuration.
pub(crate) fn each_with(configure: impl Fn(&mut EngineConfig), test: impl Fn(Cluster)) {
    let cases = [
        (1, None),
        (3, None),
        (3, Some(1)),
        (3, Some(2)),
        (3, Some(3)),
    ];
    for (shards, seed) in cases {
        eprintln!("{shards} shards, order {seed:?}");
        test(Cluster::new(shards, seed, &configure));
    }
}

/// A client's end of a connection.
pub(crate) type Client = ConnectionId;

enum Delivered {
    Value(ShardId, ShardMessage),
    Moved(ConnectionId, Box<Moved>, Vec<u8>),
}

struct Wire {
    shard: usize,
    version: Version,
    /// Sent by the client, not read by the broker.
    unread: Vec<u8>,
    paused: bool,
    /// Received by the client, not yet a packet.
    partial: Vec<u8>,
    frames: VecDeque<Frame>,
    /// Whether the client acknowledges by itself.
    acks: bool,
    /// Whether the client takes bytes.
    reads: bool,
    flush: bool,
    closed: bool,
    next_packet_id: u16,
}

pub(crate) struct Cluster {
    pub(crate) engines: Vec<Engine>,
    inboxes: Vec<VecDeque<Delivered>>,
    wires: BTreeMap<ConnectionId, Wire>,
    pub(crate) now: Now,
    rng: Option<Rng>,
    opened: u64,
    pub(crate) events: Vec<Event>,
    pub(crate) authenticate: Vec<(ConnectionId, AuthenticationRequest)>,
    pub(crate) authorize: Vec<(ConnectionId, AuthorizationRequest)>,
    /// The last question about each connection, and whom it is about.
    pub(crate) questions: BTreeMap<ConnectionId, (QuestionId, Arc<avocet_engine::Client>)>,
    /// Messages that clients publish, oldest first.
    pub(crate) publish_in: VecDeque<(ConnectionId, Message)>,
    pub(crate) fetches: Vec<(Arc<SessionKey>, FetchFrom)>,
    /// Commits by shard that were not reported back.
    pub(crate) commits: Vec<VecDeque<CommitId>>,
    pub(crate) records: Vec<Record>,
    /// Whether commits are reported at once.
    pub(crate) auto_commit: bool,
    /// Whether commits are reported some turns later, in order.
    pub(crate) late_commits: bool,
    /// Every byte that left a shard, for comparison.
    pub(crate) output: Vec<u8>,
    /// How safe each commit was to be.
    pub(crate) levels: Vec<Level>,
    /// The one log of all shards.
    pub(crate) log: Vec<Vec<Record>>,
    /// How many of its commits are reported back, where commits are reported at once.
    pub(crate) reported_max: usize,
    /// What the log amounts to, where fetches are answered at once.
    pub(crate) store: Option<Store>,
}

#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

impl Cluster {
    pub(crate) fn new(
        shards: u16,
        seed: Option<u64>,
        configure: impl Fn(&mut EngineConfig),
    ) -> Self {
        let mut config = EngineConfig::default();
        config.sys_interval = None;
        configure(&mut config);
        let config = Arc::new(config);
        let now = Now::new(Default::default(), UnixTime::from_millis(1_700_000_000_000));
        let engine = |shard| {
            let id = ShardId::new(shard);
            Engine::new(Arc::clone(&config), id, shards, u64::from(shard) + 7, now)
        };
        Self {
            engines: (0..shards).map(engine).collect(),
            inboxes: (0..shards).map(|_| VecDeque::new()).collect(),
            wires: BTreeMap::new(),
            now,
            rng: seed.map(Rng::new),
            opened: 0,
            events: Vec::new(),
            authenticate: Vec::new(),
            authorize: Vec::new(),
            questions: BTreeMap::new(),
            publish_in: VecDeque::new(),
            fetches: Vec::new(),
            commits: (0..shards).map(|_| VecDeque::new()).collect(),
            records: Vec::new(),
            auto_commit: true,
            late_commits: false,
            output: Vec::new(),
            levels: Vec::new(),
            log: Vec::new(),
            reported_max: usize::MAX,
            store: None,
        }
    }

    /// A broker that goes on from what is stored.
    pub(crate) fn restored(
        shards: u16,
        configure: impl Fn(&mut EngineConfig),
        log: Vec<Vec<Record>>,
        reported_max: usize,
        now: Now,
    ) -> Self {
        let mut cluster = Self::new(shards, None, configure);
        cluster.now = now;
        let store = Store::new(&log);
        for restored in store.restored() {
            match restored.shard(shards) {
                Some(shard) => cluster.engines[shard.index()].restore(restored),
                None => {
                    for engine in &mut cluster.engines {
                        engine.restore(restored.clone());
                    }
                }
            }
        }
        cluster.store = Some(store);
        cluster.log = log;
        cluster.reported_max = reported_max;
        for engine in &mut cluster.engines {
            engine.finish_restore(now);
        }
        for shard in 0..cluster.shards() {
            cluster.carry_out(shard);
        }
        cluster.run();
        assert!(!cluster.engines.iter().any(Engine::is_restoring));
        cluster
    }

    pub(crate) fn shards(&self) -> usize {
        self.engines.len()
    }

    /// Opens a connection; clients come to the shards in turn.
    pub(crate) fn open(&mut self, version: Version) -> Client {
        self.open_with(version, |_| {})
    }

    /// Opens a connection that the driver takes no further.
    pub(crate) fn open_refused(&mut self, version: Version, reason: ReasonCode) -> Client {
        self.open_with(version, |opened| opened.refused = Some(reason))
    }

    /// Opens a connection to a tenant's listener.
    pub(crate) fn open_of(&mut self, version: Version, tenant: Tenant) -> Client {
        self.open_with(version, |opened| opened.tenant = tenant)
    }

    fn open_with(&mut self, version: Version, change: impl FnOnce(&mut Opened)) -> Client {
        self.opened += 1;
        let shard = self.opened as usize % self.shards();
        let id = ConnectionId::new(ShardId::new(shard as u16), self.opened);
        let mut opened = Opened::new(format!("peer {id}"), 0);
        change(&mut opened);
        self.engines[shard].handle_opened(id, opened, self.now);
        self.wires.insert(
            id,
            Wire {
                shard,
                version,
                unread: Vec::new(),
                paused: false,
                partial: Vec::new(),
                frames: VecDeque::new(),
                acks: true,
                reads: true,
                flush: false,
                closed: false,
                next_packet_id: 0,
            },
        );
        id
    }

    /// Opens a connection, sends CONNECT, and runs until all is quiet.
    pub(crate) fn connect(&mut self, connect: &Connect<'_>) -> Client {
        let client = self.open(connect.version);
        self.send(client, &Packet::Connect(*connect));
        self.run();
        client
    }

    /// A 5.0 client with Clean Start and no session after its end, whose CONNACK is dropped.
    pub(crate) fn client(&mut self, client_id: &str) -> Client {
        self.client_with(&Connect::new(Version::V5, client_id))
    }

    /// The same with another CONNECT.
    pub(crate) fn client_with(&mut self, connect: &Connect<'_>) -> Client {
        let client = self.connect(connect);
        assert!(self.packet(client).starts_with("connack 0x00"));
        client
    }

    /// A 5.0 client with a session that never ends; whether there was one.
    pub(crate) fn persistent(&mut self, client_id: &str) -> (Client, bool) {
        let client = self.connect(&persistent(client_id));
        let connack = self.packet(client);
        assert!(connack.starts_with("connack 0x00"), "{connack}");
        (client, connack.contains("present"))
    }

    pub(crate) fn version(&self, client: Client) -> Version {
        self.wires[&client].version
    }

    /// Whether the client acknowledges what it receives; it does unless told otherwise.
    pub(crate) fn set_acks(&mut self, client: Client, acks: bool) {
        self.wires.get_mut(&client).unwrap().acks = acks;
    }

    /// Whether the client reads its socket; it does unless told otherwise.
    pub(crate) fn set_reads(&mut self, client: Client, reads: bool) {
        let wire = self.wires.get_mut(&client).unwrap();
        wire.reads = reads;
    }

    pub(crate) fn packet_id(&mut self, client: Client) -> PacketId {
        let wire = self.wires.get_mut(&client).unwrap();
        wire.next_packet_id += 1;
        PacketId::new(wire.next_packet_id).unwrap()
    }

    /// Where the client's connection is.
    pub(crate) fn shard(&self, client: Client) -> usize {
        self.wires[&client].shard
    }

    /// All clients there ever were.
    pub(crate) fn clients(&self) -> Vec<Client> {
        self.wires.keys().copied().collect()
    }

    /// Gives bytes to the client's socket; nothing happens until [`run`](Self::run).
    pub(crate) fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        let wire = self.wires.get_mut(&client).unwrap();
        wire.unread.extend_from_slice(bytes);
    }

    pub(crate) fn send(&mut self, client: Client, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version(client), &mut bytes).unwrap();
        self.send_bytes(client, &bytes);
    }

    /// Sends a PUBLISH with a fresh Packet Identifier.
    pub(crate) fn publish(&mut self, client: Client, topic: &str, payload: &str, qos: u8) {
        self.publish_with(client, topic, payload, qos, |_| {});
    }

    pub(crate) fn publish_retained(&mut self, client: Client, topic: &str, payload: &str, qos: u8) {
        self.publish_with(client, topic, payload, qos, |publish| publish.retain = true);
    }

    pub(crate) fn publish_with<'a>(
        &mut self,
        client: Client,
        topic: &'a str,
        payload: &'a str,
        qos: u8,
        change: impl FnOnce(&mut Publish<'a>),
    ) {
        let delivery = match qos {
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce(self.packet_id(client)),
            _ => Delivery::ExactlyOnce(self.packet_id(client)),
        };
        let topic = TopicName::new(topic).unwrap();
        let mut publish = Publish::new(topic, delivery, payload.as_bytes());
        change(&mut publish);
        self.send(client, &Packet::Publish(publish));
    }

    /// Subscribes, runs, and returns the SUBACK.
    pub(crate) fn subscribe(&mut self, client: Client, filter: &str, qos: u8) -> String {
        self.subscribe_with(client, filter, qos, None, |_| {})
    }

    pub(crate) fn subscribe_with(
        &mut self,
        client: Client,
        filter: &str,
        qos: u8,
        subscription_id: Option<u32>,
        change: impl FnOnce(&mut SubscriptionOptions),
    ) -> String {
        self.send_subscribe(client, filter, qos, subscription_id, change);
        self.run();
        self.packet_of(client, "suback")
    }

    pub(crate) fn send_subscribe(
        &mut self,
        client: Client,
        filter: &str,
        qos: u8,
        subscription_id: Option<u32>,
        change: impl FnOnce(&mut SubscriptionOptions),
    ) {
        let qos = QoS::from_u8(qos).unwrap();
        let mut filters = [SubscribeFilter::new(TopicFilter::new(filter).unwrap(), qos)];
        change(&mut filters[0].options);
        let mut subscribe = Subscribe::new(self.packet_id(client), &filters);
        subscribe.subscription_id =
            subscription_id.map(|id| avocet_codec::SubscriptionId::new(id).unwrap());
        self.send(client, &Packet::Subscribe(subscribe));
    }

    pub(crate) fn unsubscribe(&mut self, client: Client, filter: &str) -> String {
        self.send_unsubscribe(client, filter);
        self.run();
        self.packet_of(client, "unsuback")
    }

    pub(crate) fn send_unsubscribe(&mut self, client: Client, filter: &str) {
        let filters = [TopicFilter::new(filter).unwrap()];
        let unsubscribe = Unsubscribe::new(self.packet_id(client), &filters);
        self.send(client, &Packet::Unsubscribe(unsubscribe));
    }

    /// Sends DISCONNECT with 0x00, and runs.
    pub(crate) fn disconnect(&mut self, client: Client) {
        let disconnect = avocet_codec::Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        self.send(client, &Packet::Disconnect(disconnect));
        self.run();
    }

    /// The network breaks, and all that was on its way is lost.
    pub(crate) fn cut(&mut self, client: Client) {
        let wire = self.wires.get_mut(&client).unwrap();
        wire.unread.clear();
        let shard = wire.shard;
        if !wire.closed {
            wire.closed = true;
            self.engines[shard].handle_closed(client, self.now);
        }
        self.run();
    }

    pub(crate) fn is_closed(&self, client: Client) -> bool {
        self.wires[&client].closed
    }

    /// Whether the broker has stopped reading from the client.
    pub(crate) fn is_paused(&self, client: Client) -> bool {
        self.wires[&client].paused
    }

    /// Lets time pass, with every timer in its turn.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let target = self.now + duration;
        loop {
            self.run();
            let next = self.engines.iter().filter_map(Engine::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= target.instant) else {
                break;
            };
            let step = next
                .duration_since(self.now.instant)
                .max(Duration::from_millis(1))
                .min(target.instant.duration_since(self.now.instant));
            self.now = self.now + step;
            for shard in 0..self.shards() {
                self.timeout(shard);
            }
            if step.is_zero() {
                break;
            }
        }
        self.now = self.now + target.instant.duration_since(self.now.instant);
        for shard in 0..self.shards() {
            self.timeout(shard);
        }
        self.run();
    }

    fn timeout(&mut self, shard: usize) {
        let due = self.engines[shard].poll_timeout();
        if due.is_some_and(|at| at <= self.now.instant) {
            self.engines[shard].handle_timeout(self.now);
            self.carry_out(shard);
        }
    }

    /// Runs until nothing is on its way.
    pub(crate) fn run(&mut self) {
        for shard in 0..self.shards() {
            self.carry_out(shard);
        }
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    /// One turn of one shard that has something to do; false if none has.
    pub(crate) fn step(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.shards())
            .filter(|&shard| self.is_ready(shard))
            .collect();
        if ready.is_empty() {
            return false;
        }
        let pick = self.rng.as_mut().map_or(0, |rng| rng.below(ready.len()));
        self.turn(ready[pick]);
        true
    }

    fn is_ready(&self, shard: usize) -> bool {
        let due = self.engines[shard].poll_timeout();
        due.is_some_and(|at| at <= self.now.instant)
            || self.late_commits && !self.commits[shard].is_empty()
            || !self.inboxes[shard].is_empty()
            || self.wires.values().any(|wire| {
                wire.shard == shard
                    && !wire.closed
                    && (!wire.unread.is_empty() && !wire.paused || wire.flush && wire.reads)
            })
    }

    /// Of the values that wait for a shard, whether they [may wait](ShardMessage::may_wait).
    pub(crate) fn mail(&self, shard: usize) -> Vec<bool> {
        let may_wait = |mail: &Delivered| match mail {
            Delivered::Value(_, value) => value.may_wait(),
            Delivered::Moved(..) => false,
        };
        self.inboxes[shard].iter().map(may_wait).collect()
    }

    /// One turn of a shard.
    pub(crate) fn turn(&mut self, shard: usize) {
        self.timeout(shard);
        if self.late_commits
            && self.rng.as_mut().is_some_and(|rng| rng.one_in(3))
            && let Some(id) = self.commits[shard].pop_front()
        {
            self.engines[shard].handle_committed(id, self.now);
        }
        let values = self.inboxes[shard].len();
        let values = match &mut self.rng {
            Some(rng) if values > 0 => rng.below(values + 1),
            _ => values,
        };
        for _ in 0..values {
            match self.inboxes[shard].pop_front() {
                Some(Delivered::Value(from, value)) => {
                    self.engines[shard].handle_from_shard(from, value, self.now);
                }
                Some(Delivered::Moved(id, moved, unread)) => {
                    let wire = self.wires.get_mut(&id).unwrap();
                    wire.shard = shard;
                    wire.paused = false;
                    wire.unread.splice(0..0, unread);
                    self.engines[shard].handle_moved(id, moved, self.now);
                    if self.wires[&id].closed {
                        self.engines[shard].handle_closed(id, self.now);
                    }
                }
                None => break,
            }
        }
        let ids: Vec<_> = self.wires.keys().copied().collect();
        for id in ids {
            let wire = &self.wires[&id];
            if wire.shard != shard || wire.closed {
                continue;
            }
            if wire.flush && wire.reads {
                self.transmit(id);
            }
            if self.rng.as_mut().is_some_and(|rng| rng.one_in(2)) {
                continue;
            }
            self.feed(shard, id);
        }
        self.carry_out(shard);
    }

    fn feed(&mut self, shard: usize, id: ConnectionId) {
        let wire = self.wires.get_mut(&id).unwrap();
        if wire.unread.is_empty() || wire.paused {
            return;
        }
        let mut len = wire.unread.len();
        if let Some(rng) = &mut self.rng
            && rng.one_in(2)
        {
            len = 1 + rng.below(len);
        }
        let (consumed, demand) =
            self.engines[shard].handle_input(id, &wire.unread[..len], self.now);
        wire.unread.drain(..consumed);
        wire.paused = demand == Demand::Paused;
        if demand == Demand::More && consumed == 0 && len == wire.unread.len() {
            // A packet that will never be whole: nobody sends the rest.
            wire.paused = true;
        }
    }

    /// Does what a shard asks for.
    fn carry_out(&mut self, shard: usize) {
        let this = ShardId::new(shard as u16);
        while let Some(command) = self.engines[shard].poll_command() {
            match command {
                Command::ToShard { to, value } => {
                    self.inboxes[to.index()].push_back(Delivered::Value(this, value));
                }
                Command::Move { id, to, moved } => {
                    let wire = self.wires.get_mut(&id).unwrap();
                    let unread = std::mem::take(&mut wire.unread);
                    wire.shard = to.index();
                    wire.paused = true;
                    self.inboxes[to.index()].push_back(Delivered::Moved(id, moved, unread));
                }
                Command::Resume(id) => {
                    if let Some(wire) = self.wires.get_mut(&id) {
                        wire.paused = false;
                    }
                }
                Command::Flush(id) => self.transmit(id),
                Command::Close(id) => self.wires.get_mut(&id).unwrap().closed = true,
                Command::Log(event) => self.events.push(event),
                Command::Authenticate { id, request } => self.authenticate.push((id, request)),
                Command::Authorize {
                    id,
                    question,
                    client,
                    request,
                    ..
                } => {
                    self.questions.insert(id, (question, client));
                    self.authorize.push((id, request));
                }
                Command::PublishIn { id, message } | Command::WillIn { id, message, .. } => {
                    self.publish_in.push_back((id, message));
                }
                Command::Fetch { session, from } => match &self.store {
                    Some(store) => {
                        let (next, messages) = store.fetch(&session, from);
                        self.engines[shard].handle_fetched(&session, next, messages, self.now);
                    }
                    None => self.fetches.push((session, from)),
                },
                Command::Commit { id, records, level } => {
                    self.levels.push(level);
                    self.log.push(records.clone());
                    if let Some(store) = &mut self.store {
                        store.apply(&records);
                    }
                    self.records.extend(records);
                    if self.auto_commit && self.log.len() <= self.reported_max {
                        self.engines[shard].handle_committed(id, self.now);
                    } else {
                        self.commits[shard].push_back(id);
                    }
                }
                other => panic!("unknown command {other:?}"),
            }
        }
    }

    /// Reports all commits, and runs.
    pub(crate) fn commit(&mut self) {
        loop {
            let mut reported = false;
            for shard in 0..self.shards() {
                while let Some(id) = self.commits[shard].pop_front() {
                    self.engines[shard].handle_committed(id, self.now);
                    reported = true;
                }
            }
            self.run();
            if !reported {
                return;
            }
        }
    }

    /// Lets connections whose sockets take bytes again have their output.
    fn transmit(&mut self, id: ConnectionId) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.flush = true;
        if !wire.reads || wire.closed {
            return;
        }
        wire.flush = false;
        let mut out = TransmitBuf::new(1 << 16);
        loop {
            let more = self.engines[wire.shard].poll_transmit(id, self.now, &mut out);
            for slice in out.slices() {
                wire.partial.extend_from_slice(slice);
                self.output.extend_from_slice(slice);
            }
            out.clear();
            if !more {
                break;
            }
        }
        self.receive(id);
    }

    /// Reads what a client received, and acknowledges it.
    fn receive(&mut self, id: ConnectionId) {
        let wire = self.wires.get_mut(&id).unwrap();
        let version = wire.version;
        let mut answers = Vec::new();
        while let Some(len) = frame_len(&wire.partial, u32::MAX).unwrap() {
            if len > wire.partial.len() {
                break;
            }
            let bytes = Bytes::from_iter(wire.partial.drain(..len));
            let frame = Frame::new(bytes, version).unwrap();
            let answer = match frame.packet() {
                Packet::Publish(publish) => match publish.delivery {
                    Delivery::AtMostOnce => None,
                    Delivery::AtLeastOnce(id) => Some((AckType::Puback, id)),
                    Delivery::ExactlyOnce(id) => Some((AckType::Pubrec, id)),
                },
                Packet::Pubrec(ack) if !ack.reason_code.is_error() => {
                    Some((AckType::Pubrel, ack.packet_id))
                }
                Packet::Pubrel(ack) => Some((AckType::Pubcomp, ack.packet_id)),
                _ => None,
            };
            if let Some((ack_type, packet_id)) = answer.filter(|_| wire.acks) {
                ack(ack_type, packet_id)
                    .encode(version, &mut answers)
                    .unwrap();
            }
            wire.frames.push_back(frame);
        }
        wire.unread.extend_from_slice(&answers);
    }

    /// The next packet that a client received, described.
    pub(crate) fn packet(&mut self, client: Client) -> String {
        let wire = self.wires.get_mut(&client).unwrap();
        match wire.frames.pop_front() {
            Some(frame) => describe(&frame),
            None if wire.closed => "closed".into(),
            None => "nothing".into(),
        }
    }

    /// The next packet of a kind, described; others stay.
    pub(crate) fn packet_of(&mut self, client: Client, kind: &str) -> String {
        let wire = self.wires.get_mut(&client).unwrap();
        let found = wire
            .frames
            .iter()
            .position(|frame| describe(frame).starts_with(kind));
        match found {
            Some(at) => describe(&wire.frames.remove(at).unwrap()),
            None => format!("no {kind}"),
        }
    }

    /// All packets that a client received, described.
    pub(crate) fn packets(&mut self, client: Client) -> Vec<String> {
        self.run();
        let wire = self.wires.get_mut(&client).unwrap();
        wire.frames
            .drain(..)
            .map(|frame| describe(&frame))
            .collect()
    }

    /// The frames themselves.
    pub(crate) fn frames(&mut self, client: Client) -> Vec<Frame> {
        self.run();
        self.wires
            .get_mut(&client)
            .unwrap()
            .frames
            .drain(..)
            .collect()
    }

    /// What a client has received so far: the shards do nothing meanwhile.
    pub(crate) fn received(&mut self, client: Client) -> Vec<Frame> {
        let wire = self.wires.get_mut(&client).unwrap();
        wire.frames.drain(..).collect()
    }

    /// The PUBLISHes that a client received, described; other packets are dropped.
    pub(crate) fn messages(&mut self, client: Client) -> Vec<String> {
        let mut packets = self.packets(client);
        packets.retain(|packet| packet.contains('='));
        packets
    }

    /// The counters of all shards together.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for engine in &self.engines {
            sum += engine.counters();
        }
        sum
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.counters().dropped(reason)
    }

    /// Answers all fetches from the records, and runs.
    pub(crate) fn serve_fetches(&mut self) {
        self.run();
        while let Some((key, from)) = self.fetches.pop() {
            let mut stored = BTreeMap::new();
            let mut messages = Vec::new();
            for record in &self.records {
                match record {
                    Record::MessageStored { id, message } => {
                        stored.insert(*id, message.clone());
                    }
                    Record::Enqueued {
                        session,
                        sequence,
                        id,
                        qos,
                        retain,
                        subscription_ids,
                        ..
                    } if *session == key && *sequence >= from.sequence => {
                        messages.push(Fetched {
                            sequence: *sequence,
                            id: *id,
                            message: Some(stored[id].clone()),
                            qos: *qos,
                            retain: *retain,
                            subscription_ids: subscription_ids.clone(),
                            pubrec_received: false,
                        });
                    }
                    _ => {}
                }
            }
            messages.truncate(from.max_messages);
            let next = messages
                .last()
                .map_or(from.sequence, |last| last.sequence + 1);
            for shard in 0..self.shards() {
                // Only the shard that has the session takes notice.
                self.engines[shard].handle_fetched(&key, next, messages.clone(), self.now);
            }
            self.run();
        }
    }

    /// Lets in everyone who waits for it.
    pub(crate) fn let_in(&mut self) {
        while let Some((id, _)) = self.authenticate.pop() {
            self.verdict(id, Verdict::Accept(Accepted::default()));
        }
    }

    pub(crate) fn verdict(&mut self, id: ConnectionId, verdict: Verdict) {
        let shard = self.wires[&id].shard;
        self.engines[shard].handle_authenticated(id, verdict, self.now);
        self.run();
    }

    /// Says what becomes of the oldest message that waits for it.
    pub(crate) fn answer(&mut self, verdict: impl FnOnce(&Message) -> PublishIn) -> Client {
        let (id, message) = self.publish_in.pop_front().unwrap();
        let shard = self.wires[&id].shard;
        self.engines[shard].handle_publish_in(id, verdict(&message), self.now);
        self.run();
        id
    }

    pub(crate) fn permit(&mut self, id: ConnectionId, permission: Permission) {
        self.permit_for(id, permission, Duration::ZERO);
    }

    /// Answers the last question about a connection; the answer is kept for so long.
    pub(crate) fn permit_for(&mut self, id: ConnectionId, permission: Permission, kept: Duration) {
        let shard = self.wires[&id].shard;
        let question = self.questions[&id].0;
        self.engines[shard].handle_authorized(id, question, permission, kept, self.now);
        self.run();
    }
}

pub(crate) fn persistent(client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = u32::MAX;
    connect
}

pub(crate) fn ack(ack_type: AckType, packet_id: PacketId) -> Packet<'static> {
    let ack = Ack::new(packet_id);
    match ack_type {
        AckType::Puback => Packet::Puback(ack),
        AckType::Pubrec => Packet::Pubrec(ack),
        AckType::Pubrel => Packet::Pubrel(ack),
        AckType::Pubcomp => Packet::Pubcomp(ack),
    }
}

/// `topic=payload q1 retain ids 1 2`, `connack 0x00 present`, `puback 7 0x10` and the like.
pub(crate) fn describe(frame: &Frame) -> String {
    let mut text = String::new();
    match frame.packet() {
        Packet::Publish(publish) => {
            let topic = publish.topic_name.map_or("", |name| name.as_str());
            let payload = String::from_utf8_lossy(publish.payload);
            write!(text, "{topic}={payload} q{}", publish.delivery.qos()).unwrap();
            if publish.retain {
                text += " retain";
            }
            if publish.dup {
                text += " dup";
            }
            let mut ids: Vec<_> = publish.subscription_ids.iter().map(|id| id.get()).collect();
            ids.sort_unstable();
            if !ids.is_empty() {
                write!(text, " ids {ids:?}").unwrap();
            }
            if let Some(seconds) = publish.message_expiry_interval {
                write!(text, " expires in {seconds}").unwrap();
            }
        }
        Packet::Connack(connack) => {
            write!(text, "connack {:#04x}", connack.reason_code as u8).unwrap();
            if connack.session_present {
                text += " present";
            }
        }
        Packet::Suback(suback) => {
            text += "suback";
            for code in suback.reason_codes.iter() {
                write!(text, " {:#04x}", code as u8).unwrap();
            }
        }
        Packet::Unsuback(unsuback) => {
            text += "unsuback";
            for code in unsuback.reason_codes.iter() {
                write!(text, " {:#04x}", code as u8).unwrap();
            }
        }
        Packet::Puback(ack) => describe_ack(&mut text, "puback", &ack),
        Packet::Pubrec(ack) => describe_ack(&mut text, "pubrec", &ack),
        Packet::Pubrel(ack) => describe_ack(&mut text, "pubrel", &ack),
        Packet::Pubcomp(ack) => describe_ack(&mut text, "pubcomp", &ack),
        Packet::Disconnect(disconnect) => {
            write!(text, "disconnect {:#04x}", disconnect.reason_code as u8).unwrap();
        }
        Packet::Auth(auth) => {
            let data = auth.authentication_data.unwrap_or_default();
            let data = String::from_utf8_lossy(data);
            write!(text, "auth {:#04x} {data}", auth.reason_code as u8).unwrap();
        }
        other => write!(text, "{other:?}").unwrap(),
    }
    text
}

fn describe_ack(text: &mut String, name: &str, ack: &Ack<'_>) {
    let id = ack.packet_id.get();
    write!(text, "{name} {id} {:#04x}", ack.reason_code as u8).unwrap();
}
