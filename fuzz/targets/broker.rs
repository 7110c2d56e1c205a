//! Two shards and four sockets: whatever clients send, and whenever they come and go, the broker
//! comes to rest, sends whole packets, names a connection no more once it is closed, and forgets
//! every connection in the end.
//!
//! The input is a list of steps: a byte that says which socket and what happens (bytes come, the
//! socket breaks, time passes), a length, and as many bytes.

#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{PACKET_SIZE_MAX, frame_len};
use avocet_engine::{
    Command, ConnectionId, Engine, EngineConfig, Moved, Opened, ShardId, ShardMessage,
};
use avocet_session::{Demand, Now, TransmitBuf, UnixTime};
use libfuzzer_sys::fuzz_target;

const SHARDS: u16 = 2;
const SOCKETS: usize = 4;

fuzz_target!(|input: &[u8]| {
    let mut broker = Broker::new();
    let mut sockets = [None; SOCKETS];
    let mut input = input;
    while let [step, len, rest @ ..] = input {
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        input = rest;
        let socket = &mut sockets[usize::from(*step) % SOCKETS];
        match step >> 2 & 3 {
            0 | 1 => {
                let id = *socket.get_or_insert_with(|| broker.open());
                broker.receive(id, bytes);
            }
            2 => {
                if let Some(id) = socket.take() {
                    broker.cut(id);
                }
            }
            _ => broker.pass(Duration::from_millis(1 << (len % 40))),
        }
        broker.run();
        for socket in &mut sockets {
            socket.take_if(|id| !broker.wires.contains_key(id));
        }
    }
    for id in sockets.into_iter().flatten() {
        broker.cut(id);
    }
    broker.run();
    assert!(broker.wires.is_empty());
    for engine in &broker.engines {
        assert_eq!(engine.counters().connections, 0);
    }
});

enum Delivered {
    Value(ShardId, ShardMessage),
    Moved(ConnectionId, Box<Moved>),
}

struct Wire {
    shard: usize,
    /// Sent by the client, not read by the broker.
    unread: Vec<u8>,
    /// Whether there is something to read, and the broker wants it.
    ready: bool,
    paused: bool,
    sent: Vec<u8>,
}

struct Broker {
    engines: Vec<Engine>,
    inboxes: Vec<VecDeque<Delivered>>,
    wires: BTreeMap<ConnectionId, Wire>,
    now: Now,
    opened: u64,
}

impl Broker {
    fn new() -> Self {
        let config = Arc::new(EngineConfig::default());
        let now = Now::new(Default::default(), UnixTime::from_millis(1_700_000_000_000));
        let engine = |shard| {
            Engine::new(
                Arc::clone(&config),
                ShardId::new(shard),
                SHARDS,
                u64::from(shard),
                now,
            )
        };
        Self {
            engines: (0..SHARDS).map(engine).collect(),
            inboxes: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            wires: BTreeMap::new(),
            now,
            opened: 0,
        }
    }

    fn open(&mut self) -> ConnectionId {
        self.opened += 1;
        let shard = (self.opened % u64::from(SHARDS)) as u16;
        let id = ConnectionId::new(ShardId::new(shard), self.opened);
        let shard = usize::from(shard);
        self.engines[shard].handle_opened(id, Opened::new("fuzzer", 0), self.now);
        let (unread, sent) = (Vec::new(), Vec::new());
        self.wires.insert(
            id,
            Wire {
                shard,
                unread,
                ready: false,
                paused: false,
                sent,
            },
        );
        id
    }

    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.unread.extend_from_slice(bytes);
            wire.ready = !wire.paused;
        }
    }

    fn cut(&mut self, id: ConnectionId) {
        if let Some(wire) = self.wires.get(&id) {
            self.engines[wire.shard].handle_closed(id, self.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        let unix = self.now.unix.as_millis() + time.as_millis() as u64;
        self.now = Now::new(self.now.instant + time, UnixTime::from_millis(unix));
        for engine in &mut self.engines {
            if engine
                .poll_timeout()
                .is_some_and(|at| at <= self.now.instant)
            {
                engine.handle_timeout(self.now);
            }
        }
    }

    /// Turns of all shards, until nothing happens.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if !(0..self.engines.len()).fold(false, |busy, shard| self.turn(shard) | busy) {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    /// One turn of one shard; whether anything happened.
    fn turn(&mut self, shard: usize) -> bool {
        let now = self.now;
        let engine = &mut self.engines[shard];
        let mut busy = false;
        while let Some(delivered) = self.inboxes[shard].pop_front() {
            busy = true;
            match delivered {
                Delivered::Value(from, value) => engine.handle_from_shard(from, value, now),
                Delivered::Moved(id, moved) => engine.handle_moved(id, moved, now),
            }
        }
        for (id, wire) in self
            .wires
            .iter_mut()
            .filter(|(_, wire)| wire.shard == shard)
        {
            if mem::take(&mut wire.ready) {
                let (consumed, demand) = engine.handle_input(*id, &wire.unread, now);
                wire.unread.drain(..consumed);
                wire.paused = demand == Demand::Paused;
                wire.ready = demand == Demand::Again;
                busy = true;
            }
        }
        while let Some(command) = self.engines[shard].poll_command() {
            busy = true;
            self.carry_out(shard, command);
        }
        busy
    }

    fn carry_out(&mut self, shard: usize, command: Command) {
        let from = ShardId::new(shard as u16);
        match command {
            Command::ToShard { to, value } => {
                self.inboxes[usize::from(to.get())].push_back(Delivered::Value(from, value));
            }
            Command::Move { id, to, moved } => {
                let wire = self.wires.get_mut(&id).expect("an open connection");
                wire.shard = usize::from(to.get());
                wire.ready = true;
                self.inboxes[wire.shard].push_back(Delivered::Moved(id, moved));
            }
            Command::Resume(id) => {
                let wire = self.wires.get_mut(&id).expect("an open connection");
                wire.paused = false;
                wire.ready = true;
            }
            Command::Flush(id) => {
                let wire = self.wires.get_mut(&id).expect("an open connection");
                let mut out = TransmitBuf::new(1_024);
                while self.engines[shard].poll_transmit(id, self.now, &mut out) {
                    take(&mut out, &mut wire.sent);
                }
                take(&mut out, &mut wire.sent);
            }
            Command::Close(id) => {
                let wire = self.wires.remove(&id).expect("an open connection");
                check_sent(&wire.sent);
            }
            Command::Log(_) => {}
            other => panic!("{other:?} in memory and with anonymous access"),
        }
    }
}

fn take(out: &mut TransmitBuf, sent: &mut Vec<u8>) {
    out.slices().for_each(|slice| sent.extend_from_slice(slice));
    out.clear();
}

fn check_sent(mut sent: &[u8]) {
    while !sent.is_empty() {
        let len = frame_len(sent, PACKET_SIZE_MAX)
            .expect("a packet")
            .expect("a whole one");
        sent = sent.get(len..).expect("a whole packet");
    }
}
