//! The run: virtual time, and whose turn it is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use avocet_engine::{
    Authentication, Authorization, Durability, Engine, EngineConfig, SessionKey, ShardId,
    StoreState,
};
use avocet_session::{FetchFrom, Instant, Limits, Now, Overflow, ServerConfig, UnixTime};

use avocet_store::Position;

use crate::broker::{Answer, Shard};
use crate::client::Client;
use crate::conn::Conn;
use crate::coverage::{Coverage, Kind, Watcher};
use crate::history::{ConnId, Digest, Event, What};
use crate::invariants::{Invariant, all, queues};
use crate::model::Model;
use crate::plan::{Action, CHECKER, Crash, Micros, Op, Plan, SECOND, WITNESS};
use crate::rng::Rng;
use crate::store::Store;

/// When the wall clock of the run begins, in milliseconds since 1970.
const WALL_START: i64 = 1_700_000_000_000;

/// More events than any plan needs.
const EVENTS_MAX: u64 = 3_000_000;

/// What is due at a time.
#[derive(Debug)]
pub(crate) enum Task {
    ShardTurn(usize),
    ClientTurn(usize),
    /// Bytes arrive at the server, or at the client.
    ArriveUp(ConnId),
    ArriveDown(ConnId),
    /// A side learns that the link is broken.
    ClientLearns(ConnId),
    ServerLearns(ConnId),
    Reconnect(usize),
    Stored(usize, u64, Position),
    Fetch(usize, u64),
    /// A shard learns what it has asked.
    Answer(usize, Box<Answer>),
    Op(usize),
    DiskWorks,
    Restart(Crash),
    Check,
    Calm,
}

/// A task and its time; of two, the one that is due first is the greater.
#[derive(Debug)]
struct Due {
    at: Micros,
    /// What is due at the same time comes in any order.
    tie: u64,
    /// Its place among all that was scheduled.
    place: u64,
    task: Task,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |it: &Self| (it.at, it.tie, it.place);
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Due {}

/// Where the history of a test begins and ends.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Marks {
    /// Steps of the disk before the first operation.
    pub(crate) steps: u64,
    /// Events before the faults end.
    pub(crate) events: u64,
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) invariant: &'static str,
    pub(crate) problem: String,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) at: Micros,
    wall_offset: i64,
    tasks: BinaryHeap<Due>,
    task_count: u64,
    order: Rng,
    pub(crate) rng: Rng,
    pub(crate) engines: Vec<Engine>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) store: Store,
    pub(crate) fetches: BTreeMap<u64, (Arc<SessionKey>, FetchFrom)>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) next_conn: ConnId,
    pub(crate) clients: Vec<Client>,
    pub(crate) next_uid: u32,
    pub(crate) calm: bool,
    /// Nothing is stored before.
    pub(crate) stalled_until: Micros,
    /// How often the broker came back, and when.
    pub(crate) boots: u32,
    pub(crate) booted_at: Micros,
    /// A crash, and how many events come before.
    pub(crate) armed: Option<(u32, Crash)>,
    pub(crate) crash_now: Option<Crash>,
    pub(crate) model: Model,
    invariants: Vec<Box<dyn Invariant>>,
    /// The one invariant that counts, if not all do.
    watched: Option<&'static str>,
    seq: u64,
    #[cfg(test)]
    pub(crate) marks: Marks,
    pub(crate) digest: Digest,
    watcher: Watcher,
    /// Every event, if somebody wants to read it.
    pub(crate) lines: Option<Vec<String>>,
    pub(crate) failure: Option<Failure>,
}

impl World {
    pub(crate) fn new(plan: &Plan, readable: bool) -> Self {
        let plan = plan.clone();
        let seed = plan.seed;
        let shards = plan.system.shards;
        let mut world = Self {
            at: 0,
            wall_offset: 0,
            tasks: BinaryHeap::new(),
            task_count: 0,
            order: Rng::new(seed, "order", 0),
            rng: Rng::new(seed, "world", 0),
            engines: Vec::new(),
            shards: (0..shards)
                .map(|shard| Shard::new(Rng::new(seed, "shard", shard.into())))
                .collect(),
            store: Store::new(&plan.system, seed),
            fetches: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_conn: 1,
            clients: (0..)
                .zip(&plan.clients)
                .map(|(index, profile)| {
                    Client::new(profile.clone(), Rng::new(seed, "client", index))
                })
                .collect(),
            next_uid: 1_000_000,
            calm: false,
            stalled_until: 0,
            boots: 0,
            booted_at: 0,
            armed: None,
            crash_now: None,
            model: Model::new(&plan),
            invariants: all(),
            watched: None,
            seq: 0,
            #[cfg(test)]
            marks: Marks::default(),
            digest: Digest::new(),
            watcher: Watcher::default(),
            lines: readable.then(Vec::new),
            failure: None,
            plan,
        };
        world.engines = world.new_engines(shards, 0);
        let subscribe_to_all = |number| {
            let mut options =
                avocet_codec::SubscriptionOptions::new(avocet_codec::QoS::ExactlyOnce);
            options.retain_as_published = true;
            Op {
                number,
                at: 0,
                client: WITNESS,
                action: Action::Subscribe {
                    filters: vec![("#", options)],
                    id: None,
                },
            }
        };
        world.clients[WITNESS].pending = VecDeque::from([subscribe_to_all(0)]);
        world.clients[CHECKER].pending = VecDeque::from([subscribe_to_all(0)]);
        world.clients[WITNESS].wants = true;
        world.schedule(0, Task::Reconnect(WITNESS));
        // The witness is there before anything else happens.
        for index in 0..world.plan.ops.len() {
            let at = world.plan.ops[index].at + 2 * SECOND;
            world.schedule(at, Task::Op(index));
        }
        world.schedule(world.plan.calm_at + 2 * SECOND, Task::Calm);
        world.schedule(world.plan.end_at - 30 * SECOND, Task::Check);
        world
    }

    /// Shards that know nothing.
    pub(crate) fn new_engines(&self, shards: u16, boot: u64) -> Vec<Engine> {
        let config = Arc::new(config(&self.plan));
        let now = self.now();
        let engine = |shard: u16| {
            let stream = boot << 16 | u64::from(shard);
            let entropy = Rng::new(self.plan.seed, "entropy", stream).next();
            let config = Arc::clone(&config);
            Engine::new(config, ShardId::new(shard), shards, entropy, now)
        };
        (0..shards).map(engine).collect()
    }

    /// What was scheduled for a broker that is gone never comes.
    pub(crate) fn forget_tasks(&mut self) {
        self.tasks.retain(|due| {
            !matches!(
                due.task,
                Task::ShardTurn(_)
                    | Task::ServerLearns(_)
                    | Task::Stored(..)
                    | Task::Fetch(..)
                    | Task::Answer(..)
            )
        });
    }

    /// The broker's clocks.
    pub(crate) fn now(&self) -> Now {
        let wall = WALL_START + self.wall_offset + (self.at / 1_000) as i64;
        Now::new(
            Instant::from_nanos((self.at - self.booted_at) * 1_000),
            UnixTime::from_millis(wall.max(0) as u64),
        )
    }

    /// The clients' clocks, which do not jump.
    pub(crate) fn client_now(&self) -> Now {
        let wall = WALL_START as u64 + self.at / 1_000;
        Now::new(
            Instant::from_nanos(self.at * 1_000),
            UnixTime::from_millis(wall),
        )
    }

    pub(crate) fn schedule(&mut self, at: Micros, task: Task) {
        self.task_count += 1;
        let due = Due {
            at: at.max(self.at),
            tie: self.order.next(),
            place: self.task_count,
            task,
        };
        self.tasks.push(due);
    }

    /// Something happened that is no event.
    pub(crate) fn seen(&mut self, kind: Kind) {
        self.watcher.coverage.count(kind);
    }

    /// What happened, by kind.
    pub(crate) fn coverage(&self) -> &Coverage {
        &self.watcher.coverage
    }

    /// How many events there were.
    pub(crate) const fn events(&self) -> u64 {
        self.seq
    }

    /// Runs to the end, or to the first failure.
    pub(crate) fn run(&mut self) {
        let mut events = 0;
        // The place among all that was scheduled of what arrived last, and on which connection.
        let mut arrived = (0, 0);
        while let Some(Due {
            at, place, task, ..
        }) = self.tasks.pop()
        {
            if at > self.plan.end_at || self.failure.is_some() {
                break;
            }
            events += 1;
            if events > EVENTS_MAX {
                self.fail(
                    "liveness",
                    format!("more than {EVENTS_MAX} steps, the last one {task:?}"),
                );
                return;
            }
            self.at = at;
            if let Task::ArriveUp(conn) | Task::ArriveDown(conn) = task {
                if place < arrived.0 && conn != arrived.1 {
                    self.seen(Kind::LinksReordered);
                }
                arrived = arrived.max((place, conn));
            }
            self.step(task);
            if let Some(crash) = self.crash_now.take() {
                self.crash(crash);
            }
        }
        if self.failure.is_none() {
            self.settle();
        }
    }

    fn step(&mut self, task: Task) {
        match task {
            Task::ShardTurn(shard) => self.shard_turn(shard),
            Task::ClientTurn(client) => self.client_turn(client),
            Task::ArriveUp(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn)
                    && conn.up.arrive(self.at)
                {
                    conn.waits = false;
                    let shard = conn.shard;
                    self.wake_shard(shard);
                }
            }
            Task::ArriveDown(id) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.down.arrive(self.at);
                    let client = conn.client;
                    self.wake_client(client, self.at);
                }
            }
            Task::ClientLearns(conn) => self.client_learns(conn),
            Task::ServerLearns(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.reset = true;
                    let shard = conn.shard;
                    self.wake_shard(shard);
                }
            }
            Task::Reconnect(client) => self.reconnect(client),
            Task::Stored(shard, commit, position) => self.stored(shard, commit, position),
            Task::Fetch(shard, number) => {
                self.shards[shard].fetched.push_back(number);
                self.wake_shard(shard);
            }
            Task::Answer(shard, answer) => {
                self.shards[shard].answers.push_back(*answer);
                self.wake_shard(shard);
            }
            Task::Op(index) => {
                self.before_op(index);
                let op = self.plan.ops[index].clone();
                match op.action {
                    Action::Jump { seconds } => {
                        self.wall_offset += seconds * 1_000;
                        self.record(What::Jump { seconds });
                    }
                    Action::Disk { full, duration } => {
                        self.set_disk(if full {
                            StoreState::Full
                        } else {
                            StoreState::Failed
                        });
                        self.schedule(self.at + duration, Task::DiskWorks);
                    }
                    Action::Crash(crash) => self.armed = Some((crash.after, crash)),
                    Action::Stall(duration) => {
                        self.stalled_until = self.at + duration;
                        self.record(What::Stall);
                    }
                    _ => self.client_op(op),
                }
            }
            Task::DiskWorks => self.set_disk(StoreState::Working),
            Task::Restart(crash) => self.restart(crash),
            Task::Check => {
                self.clients[CHECKER].wants = true;
                self.reconnect(CHECKER);
            }
            Task::Calm => {
                #[cfg(test)]
                {
                    self.marks.events = self.seq;
                }
                self.calm = true;
                self.record(What::Calm);
                for conn in self.conns.values_mut() {
                    conn.up.calm();
                    conn.down.calm();
                }
                for client in 0..self.clients.len() {
                    if client == CHECKER {
                        continue;
                    }
                    self.clients[client].calm();
                    self.wake_client(client, self.at);
                    self.schedule(self.at, Task::Reconnect(client));
                }
                for shard in 0..self.shards.len() {
                    self.wake_shard(shard);
                }
            }
        }
    }

    /// Writes an event down, and shows it to everyone who has an opinion.
    pub(crate) fn record(&mut self, what: What) {
        if self.failure.is_some() {
            return;
        }
        self.seq += 1;
        let event = Event {
            seq: self.seq,
            at: self.at,
            what,
        };
        // Writing to a digest cannot fail.
        let _ = writeln!(self.digest, "{event}");
        if let Some(lines) = &mut self.lines {
            lines.push(event.to_string());
        }
        if let What::Broken { problem, .. } = &event.what {
            self.fail("packets", problem.clone());
            return;
        }
        self.count_down();
        self.model.apply(&event);
        self.watcher.watch(&event, &self.model);
        for invariant in &mut self.invariants {
            if let Err(problem) = invariant.check(&event, &self.model) {
                let invariant = invariant.name();
                self.fail(invariant, problem);
                return;
            }
        }
    }

    /// From now on nothing but this invariant makes the run fail.
    #[cfg(feature = "planted")]
    pub(crate) fn watch_only(&mut self, name: &'static str) {
        self.invariants.retain(|invariant| invariant.name() == name);
        self.watched = Some(name);
    }

    pub(crate) fn fail(&mut self, invariant: &'static str, problem: String) {
        if self.watched.is_some_and(|watched| watched != invariant) {
            return;
        }
        self.failure.get_or_insert(Failure { invariant, problem });
    }

    /// Looks at what a shard holds.
    pub(crate) fn check_shard(&mut self, shard: usize) {
        let counters = self.engines[shard].counters();
        if let Err(problem) = queues::check(counters, &self.plan) {
            self.fail("queues within their limits", problem);
        }
    }

    /// The witness is there, and the history begins.
    fn before_op(&mut self, index: usize) {
        if index > 0 {
            return;
        }
        if let Some(steps) = self.plan.system.power_ends {
            self.store.journal.store().end_power_after(steps);
        }
        #[cfg(test)]
        {
            self.marks.steps = self.store.journal.store().steps();
        }
    }

    /// What the shards have counted.
    pub(crate) fn add_counters(&mut self) {
        use avocet_engine::DropReason;
        let reasons = [
            DropReason::QueueFull,
            DropReason::TotalFull,
            DropReason::GroupFull,
        ];
        for engine in &self.engines {
            let counters = engine.counters();
            self.watcher.coverage.add_counters(counters);
            let full: u64 = reasons.iter().map(|reason| counters.dropped(*reason)).sum();
            self.model.dropped_full += full;
        }
    }

    fn settle(&mut self) {
        self.add_counters();
        for engine in &self.engines {
            self.model.queued_at_end += engine.counters().queued_messages;
        }
        if let Err(problem) = self.check_restart() {
            self.fail("a restart brings everything back", problem);
        }
        self.watcher.settle(&self.model);
        for (index, client) in self.clients.iter().enumerate() {
            self.model.unfinished.extend(client.unfinished(index));
        }
        for invariant in &mut self.invariants {
            if let Err(problem) = invariant.settle(&self.model) {
                let invariant = invariant.name();
                self.failure = Some(Failure { invariant, problem });
                return;
            }
        }
    }
}

pub(crate) fn config(plan: &Plan) -> EngineConfig {
    let system = &plan.system;
    let mut config = EngineConfig::default();
    config.connection = Arc::new(ServerConfig {
        receive_maximum: NonZeroU16::new(system.receive_maximum).unwrap_or(NonZeroU16::MAX),
        maximum_packet_size: NonZeroU32::new(system.maximum_packet_size).unwrap_or(NonZeroU32::MAX),
        topic_alias_maximum: system.topic_alias_maximum,
        limits: Limits {
            inflight: system.inflight,
            queued_messages_max: system.queued_messages_max,
            resident_messages: system.resident_messages,
            overflow: if system.drop_oldest {
                Overflow::DropOldest
            } else {
                Overflow::DropNewest
            },
            ..Limits::default()
        },
        ..ServerConfig::default()
    });
    config.levels.default = system.level;
    config.sys_interval = None;
    config.shared_strategy = system.strategy;
    if system.stored {
        config.durability = Durability::Stored;
    }
    if system.access.asked {
        config.authentication = Authentication::Asked;
        config.authorization = Authorization::Asked;
        // Time leaps, and each question has its answer.
        config.authorization_timeout = Duration::from_secs(1 << 32);
    }
    config.limits.queued_messages_max = system.total_max;
    config.limits.group_messages_max = system.queued_messages_max;
    config.limits.forwards_max = system.forwards_max;
    config.limits.slice_packets = system.slice_packets;
    config.limits.retained_page_messages = system.retained_page;
    config.limits.group_window = system.group_window;
    config
}
