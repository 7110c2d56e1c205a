//! One shard: an engine, its clients, and the thread that drives both.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use avocet_codec::{
    Connect, Delivery, Packet, PacketId, Publish, QoS, Subscribe, SubscribeFilter, TopicFilter,
    TopicName, Version, frame_len,
};
use avocet_engine::{
    Command, ConnectionId, Engine, EngineConfig, Opened, SessionKey, ShardId, ShardMessage,
};
use avocet_session::{Demand, Now, TransmitBuf};

const VERSION: Version = Version::V3_1_1;

/// Messages that a publisher sends at once.
const BATCH: u64 = 64;

/// Messages of a publisher under way.
const WINDOW: u64 = 4 * BATCH;

/// Bytes read before what came of them is written, as the broker does.
const TURN_BYTES: usize = 64 << 10;

/// How long a thread without work waits for mail before it looks for other work.
const WAIT: Duration = Duration::from_micros(200);

/// What the threads share.
pub(crate) struct Shared {
    inboxes: Vec<Inbox>,
    /// Of each pair.
    delivered: Vec<AtomicU64>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    mail: Mutex<Vec<(ShardId, ShardMessage)>>,
    came: Condvar,
}

impl Shared {
    pub(crate) fn new(shards: u16, pairs: usize) -> Self {
        Self {
            inboxes: (0..shards).map(|_| Inbox::default()).collect(),
            delivered: (0..pairs).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
        }
    }

    pub(crate) fn delivered(&self) -> u64 {
        let all = self.delivered.iter();
        all.map(|it| it.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn shards(&self) -> u16 {
        u16::try_from(self.inboxes.len()).unwrap()
    }
}

pub(crate) struct Shard {
    id: ShardId,
    engine: Engine,
    shared: Arc<Shared>,
    publishers: Vec<Publisher>,
    /// The pairs of the subscribers here.
    subscribers: HashMap<ConnectionId, usize>,
    /// Output for each shard.
    outgoing: Vec<Vec<(ShardId, ShardMessage)>>,
    mail: Vec<(ShardId, ShardMessage)>,
    flushes: VecDeque<ConnectionId>,
    out: TransmitBuf,
    answers: Vec<u8>,
    connections: u64,
}

struct Publisher {
    id: ConnectionId,
    pair: usize,
    batch: Vec<u8>,
    /// Bytes of the batch that the engine has not taken.
    unread: usize,
    paused: bool,
    sent: u64,
}

impl Shard {
    /// Shards with their clients, who have subscribed.
    pub(crate) fn connected(shared: &Arc<Shared>, qos: QoS) -> Vec<Self> {
        let count = shared.shards();
        let mut shards: Vec<_> = (0..count).map(|n| Self::new(n, shared)).collect();
        for pair in 0..shared.delivered.len() {
            let from = pair % usize::from(count);
            // Of each two pairs of a shard, one crosses.
            let crosses = pair / usize::from(count) % 2 == 1;
            let to = if crosses {
                usize::from(count) - 1 - from
            } else {
                from
            };
            let topic = format!("site/{}/line/2/dev/{pair}/metric", pair % 10);
            let subscriber = shards[to].connect(&format!("subscriber {pair}"));
            shards[to].subscribe(subscriber, &topic, qos);
            shards[to].subscribers.insert(subscriber, pair);
            let id = shards[from].connect(&format!("publisher {pair}"));
            shards[from].publishers.push(Publisher {
                id,
                pair,
                batch: publishes(&topic, qos),
                unread: 0,
                paused: false,
                sent: 0,
            });
        }
        // Until all shards know what the others want.
        while shards
            .iter_mut()
            .any(|shard| shard.handle_mail() | shard.carry_out())
        {}
        shards
    }

    fn new(number: u16, shared: &Arc<Shared>) -> Self {
        let mut config = EngineConfig::default();
        config.sys_interval = None;
        let (id, count) = (ShardId::new(number), shared.shards());
        Self {
            id,
            engine: Engine::new(Arc::new(config), id, count, 1, Now::default()),
            shared: Arc::clone(shared),
            publishers: Vec::new(),
            subscribers: HashMap::new(),
            outgoing: (0..count).map(|_| Vec::new()).collect(),
            mail: Vec::new(),
            flushes: VecDeque::new(),
            out: TransmitBuf::new(TURN_BYTES),
            answers: Vec::new(),
            connections: 0,
        }
    }

    /// Connects a client whose session is this shard's.
    fn connect(&mut self, name: &str) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId::new(self.id, self.connections);
        self.engine
            .handle_opened(id, Opened::default(), Now::default());
        let count = self.shared.shards();
        let client_id = (0..)
            .map(|n| format!("{name} {n}"))
            .find(|it| ShardId::of_session(&SessionKey::new("", it), count) == self.id)
            .unwrap();
        let mut connect = Connect::new(VERSION, &client_id);
        connect.keep_alive = 0;
        self.feed(id, &encoded(&Packet::Connect(connect)));
        id
    }

    fn subscribe(&mut self, id: ConnectionId, topic: &str, qos: QoS) {
        let filters = [SubscribeFilter::new(TopicFilter::new(topic).unwrap(), qos)];
        let subscribe = Subscribe::new(PacketId::new(1).unwrap(), &filters);
        self.feed(id, &encoded(&Packet::Subscribe(subscribe)));
    }

    /// Feeds what must be taken at once.
    fn feed(&mut self, id: ConnectionId, mut input: &[u8]) {
        while !input.is_empty() {
            let (consumed, _) = self.engine.handle_input(id, input, Now::default());
            assert!(consumed > 0, "the engine stopped reading");
            input = &input[consumed..];
        }
    }

    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let mut worked = self.handle_mail();
            worked |= self.publish();
            worked |= self.carry_out();
            if !worked {
                let inbox = &self.shared.inboxes[self.id.index()];
                let mail = inbox.mail.lock().unwrap();
                if mail.is_empty() {
                    drop(inbox.came.wait_timeout(mail, WAIT).unwrap());
                }
            }
        }
    }

    fn handle_mail(&mut self) -> bool {
        let inbox = &self.shared.inboxes[self.id.index()];
        mem::swap(&mut self.mail, &mut *inbox.mail.lock().unwrap());
        let came = !self.mail.is_empty();
        for (from, value) in self.mail.drain(..) {
            self.engine.handle_from_shard(from, value, Now::default());
        }
        came
    }

    /// Reads from publishers, as many bytes as a turn has.
    fn publish(&mut self) -> bool {
        let mut bytes = 0;
        let count = self.publishers.len();
        for publisher in &mut self.publishers {
            if bytes >= TURN_BYTES {
                break;
            }
            let delivered = self.shared.delivered[publisher.pair].load(Ordering::Relaxed);
            if publisher.unread == 0 && publisher.sent + BATCH <= delivered + WINDOW {
                publisher.unread = publisher.batch.len();
                publisher.sent += BATCH;
            }
            if publisher.unread > 0 && !publisher.paused {
                let input = &publisher.batch[publisher.batch.len() - publisher.unread..];
                let now = Now::default();
                let (consumed, demand) = self.engine.handle_input(publisher.id, input, now);
                publisher.unread -= consumed;
                publisher.paused = demand == Demand::Paused;
                bytes += consumed;
            }
        }
        // The others come first next time.
        self.publishers.rotate_left(count / 3);
        bytes > 0
    }

    /// Carries out what the engine wants, and lets clients answer.
    fn carry_out(&mut self) -> bool {
        let mut worked = self.handle_commands();
        while let Some(id) = self.flushes.pop_front() {
            worked = true;
            self.flush(id);
        }
        worked | self.handle_commands()
    }

    fn handle_commands(&mut self) -> bool {
        let mut any = false;
        while let Some(command) = self.engine.poll_command() {
            any = true;
            match command {
                Command::Flush(id) => self.flushes.push_back(id),
                Command::ToShard { to, value } => {
                    self.outgoing[to.index()].push((self.id, value));
                }
                Command::Resume(id) => {
                    let resumed = self.publishers.iter_mut().find(|it| it.id == id);
                    resumed.unwrap().paused = false;
                }
                Command::Log(_) => {}
                Command::Commit { .. }
                | Command::Fetch { .. }
                | Command::Move { .. }
                | Command::Close(_)
                | Command::Authenticate { .. }
                | Command::Authorize { .. }
                | _ => panic!("unexpected {command:?}"),
            }
        }
        for (to, mail) in self.outgoing.iter_mut().enumerate() {
            if !mail.is_empty() {
                let inbox = &self.shared.inboxes[to];
                inbox.mail.lock().unwrap().append(mail);
                inbox.came.notify_one();
            }
        }
        any
    }

    fn flush(&mut self, id: ConnectionId) {
        let mut more = true;
        let mut delivered = 0;
        while more {
            more = self.engine.poll_transmit(id, Now::default(), &mut self.out);
            for packets in self.out.slices() {
                delivered += answer(packets, &mut self.answers);
            }
            self.out.clear();
        }
        if let Some(pair) = self.subscribers.get(&id) {
            self.shared.delivered[*pair].fetch_add(delivered, Ordering::Relaxed);
        }
        if !self.answers.is_empty() {
            let answers = mem::take(&mut self.answers);
            self.feed(id, &answers);
            self.answers = answers;
            self.answers.clear();
        }
    }
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(VERSION, &mut bytes).unwrap();
    bytes
}

fn publishes(topic: &str, qos: QoS) -> Vec<u8> {
    let topic = TopicName::new(topic).unwrap();
    let publish = |n: u64| {
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                Delivery::AtLeastOnce(PacketId::new(n as u16).unwrap())
            }
        };
        encoded(&Packet::Publish(Publish::new(topic, delivery, &[b'x'; 64])))
    };
    (1..=BATCH).flat_map(publish).collect()
}

/// Acknowledges PUBLISH packets of QoS 1; how many there are of any QoS.
fn answer(mut packets: &[u8], answers: &mut Vec<u8>) -> u64 {
    let mut delivered = 0;
    while let Ok(Some(len)) = frame_len(packets, u32::MAX) {
        let (packet, behind) = packets.split_at(len);
        if packet[0] >> 4 == 3 {
            delivered += 1;
            if packet[0] & 0b110 != 0 {
                // All packets here are short enough for a Remaining Length of one byte.
                let id = 4 + usize::from(packet[3]);
                answers.extend_from_slice(&[0x40, 2, packet[id], packet[id + 1]]);
            }
        }
        packets = behind;
    }
    delivered
}
