//! What happens in a run, as far as it does not follow from what happened before: a system, its
//! clients, and what they do when. A seed decides all of it, and the shrinker leaves parts out.

use std::fmt;

use avocet_codec::{QoS, RetainHandling, SubscriptionOptions, Version};
use avocet_engine::{Level, SessionKey, SharedStrategy};

use crate::rng::Rng;

/// Microseconds since the beginning.
pub(crate) type Micros = u64;

pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// The client that sees everything: subscribed to `#`, on a link without faults.
pub(crate) const WITNESS: usize = 0;

/// The client that comes at the end and asks for all retained messages.
pub(crate) const CHECKER: usize = 1;

/// The client that subscribes while others publish.
const RACER: usize = 2;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) system: System,
    pub(crate) clients: Vec<Profile>,
    pub(crate) ops: Vec<Op>,
    /// When the faults end.
    pub(crate) calm_at: Micros,
    /// When everything must have settled.
    pub(crate) end_at: Micros,
}

/// How the broker is set up.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) shards: u16,
    /// Whether commits come later.
    pub(crate) stored: bool,
    /// Whether the broker crashes, and what is stored is on a simulated disk or in memory.
    pub(crate) crashes: bool,
    pub(crate) log: bool,
    pub(crate) level: Level,
    /// After how many steps of the disk the power is lost, if it is.
    pub(crate) power_ends: Option<u64>,
    pub(crate) commit_max: Micros,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) inflight: u16,
    pub(crate) queued_messages_max: usize,
    /// Of all queues of a shard together.
    pub(crate) total_max: usize,
    pub(crate) drop_oldest: bool,
    pub(crate) resident_messages: usize,
    pub(crate) forwards_max: usize,
    pub(crate) slice_packets: usize,
    pub(crate) retained_page: usize,
    pub(crate) group_window: usize,
    pub(crate) strategy: SharedStrategy,
    /// The longest time between two turns of a shard that has work.
    pub(crate) turn_max: Micros,
    /// In percent, how many turns of a shard leave its inbox as it is.
    pub(crate) inbox_waits: u64,
    /// In percent, how often a shard's commands are carried out in the middle of a turn.
    pub(crate) carries: u64,
    /// In percent, how many subscriptions another client meets with a message at once.
    pub(crate) echoes: u64,
    /// Whether subscriptions are to single topics, so that few shards know of each other's.
    pub(crate) narrow: bool,
    pub(crate) access: Access,
}

/// Who may do what, and how long it takes to find out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    seed: u64,
    /// Whether clients need permission.
    pub(crate) asked: bool,
    pub(crate) wait_max: Micros,
    /// In percent, how many CONNECTs are refused while there are faults.
    pub(crate) refuses: u64,
}

impl Access {
    fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "access", 0);
        Self {
            seed,
            asked: rng.one_in(4),
            wait_max: *rng.pick(&[1, 2 * MILLI, 100 * MILLI]),
            refuses: *rng.pick(&[0, 20]),
        }
    }

    /// A number for whom and what it is about.
    fn dice(&self, client: usize, what: &str) -> Rng {
        Rng::new(self.seed, what, client as u64)
    }

    pub(crate) fn may_publish(&self, client: usize, topic: &str) -> bool {
        !self.asked || client <= CHECKER || !self.dice(client, topic).one_in(8)
    }

    /// The highest QoS of a subscription; none if it is refused.
    pub(crate) fn grants(&self, client: usize, filter: &str, qos: QoS) -> Option<QoS> {
        if !self.asked || client <= CHECKER || filter.starts_with("$share/") {
            return Some(qos);
        }
        let mut dice = self.dice(client, filter);
        match dice.below(8) {
            0 => None,
            1 => Some(qos.min(QoS::AtLeastOnce)),
            2 => Some(QoS::AtMostOnce),
            _ => Some(qos),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Publishes and subscribes.
    Plain,
    /// Only in shared subscriptions.
    Member,
    Witness,
    Checker,
}

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) role: Role,
    pub(crate) version: Version,
    /// Empty for none, as of those who see everything.
    pub(crate) tenant: &'static str,
    pub(crate) client_id: String,
    /// Seconds; in 3.x any but 0 is for ever.
    pub(crate) expiry: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    /// Topic Aliases towards the server.
    pub(crate) aliases: u16,
    pub(crate) inflight: u16,
    pub(crate) keep_alive: u16,
    pub(crate) link: LinkStyle,
    /// The longest time the application takes to acknowledge.
    pub(crate) ack_max: Micros,
    /// A member's only filter, unless it has Subscription Identifiers to tell several apart.
    pub(crate) share: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkStyle {
    pub(crate) latency: (Micros, Micros),
    /// Bytes that travel together, at most.
    pub(crate) chunk: usize,
    /// Bytes on the way, in each direction.
    pub(crate) capacity: usize,
    /// Bytes the client reads at a time.
    pub(crate) read_max: usize,
}

impl LinkStyle {
    pub(crate) const PERFECT: Self = Self {
        latency: (50, 50),
        chunk: usize::MAX,
        capacity: 1 << 20,
        read_max: usize::MAX,
    };
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// Its number in the whole plan; the message it publishes is named by it.
    pub(crate) number: u32,
    pub(crate) at: Micros,
    pub(crate) client: usize,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Also closes a connection that stands, without a word.
    Connect {
        clean_start: bool,
        will: Option<WillPlan>,
    },
    Disconnect {
        /// DISCONNECT with 0x04: the will is published (5.0).
        with_will: bool,
    },
    Publish {
        topic: &'static str,
        qos: QoS,
        retain: bool,
        /// Bytes of padding; none for an empty payload, which clears what is retained (5.0).
        padding: Option<usize>,
        expiry: Option<u32>,
    },
    Subscribe {
        filters: Vec<(&'static str, SubscriptionOptions)>,
        id: Option<u32>,
    },
    Unsubscribe {
        filter: &'static str,
    },
    Cut(Cut),
    /// The client does not read for a while.
    Freeze(Micros),
    /// The wall clock of the broker jumps.
    Jump {
        seconds: i64,
    },
    /// Nothing is stored for a while, as on a disk that is full or fails to sync.
    Stall(Micros),
    /// The disk is full for a while, or fails to sync.
    Disk {
        full: bool,
        duration: Micros,
    },
    Crash(Crash),
}

impl Crash {
    /// The power is lost, and soon back.
    pub(crate) const fn power(shards: u16) -> Self {
        Self {
            after: 0,
            power: true,
            down: 100 * MILLI,
            shards,
            again: false,
        }
    }
}

/// How the broker crashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// How many more events there are before.
    pub(crate) after: u32,
    /// With the power, so that what is not synced may be lost.
    pub(crate) power: bool,
    /// How long it is gone.
    pub(crate) down: Micros,
    /// How many shards it comes back with.
    pub(crate) shards: u16,
    /// Whether it may crash once more before it is up.
    pub(crate) again: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct WillPlan {
    pub(crate) topic: &'static str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay: u32,
}

/// How a link breaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Which share of the bytes on their way still arrives, in percent, up and down.
    pub(crate) arrives: (u64, u64),
    /// When either side learns of it: the client, the server; never by the network if none.
    pub(crate) client_learns: Option<Micros>,
    pub(crate) server_learns: Option<Micros>,
}

pub(crate) const TOPICS: &[&str] = &[
    "a", "a/b", "a/b/c", "b", "b/c", "\u{e9}/d", "c//d", "s/1", "s/2", "s/3",
];

/// Topics of which single subscriptions come while they are published to.
const RACE_TOPICS: &[&str] = &["r/1", "r/2", "r/3", "r/4", "r/5", "r/6", "r/7", "r/8"];

pub(crate) const FILTERS: &[&str] = &[
    "#", "a", "a/b", "a/#", "+/b", "a/+/c", "+", "+/+", "b/c", "b/#", "\u{e9}/+", "c/+/d", "+/#",
    "s/1", "s/2", "s/3", "s/+",
];

pub(crate) const SHARES: &[&str] = &[
    "$share/g/#",
    "$share/g/a/#",
    "$share/h/a/#",
    "$share/h/+/b",
    "$share/g/b",
];

/// The Subscription Identifier that tells a shared filter.
pub(crate) fn share_id(filter: &str) -> Option<u32> {
    let at = SHARES.iter().position(|share| *share == filter)?;
    Some(at as u32 + 100)
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self::draw(seed, &mut Rng::new(seed, "plan", 0))
    }

    /// A plan of a fuzzer's choices: the first byte is the seed of everything that is not planned.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (seed, choices) = bytes.split_first().unwrap_or((&0, &[]));
        Self::draw((*seed).into(), &mut Rng::from_bytes(choices))
    }

    fn draw(seed: u64, rng: &mut Rng) -> Self {
        let mut system = System::draw(seed, rng);
        let race = rng.one_in(3);
        if race {
            system.narrow = true;
            system.inbox_waits = 80;
            system.carries = 5;
            system.turn_max = system.turn_max.max(MILLI);
            system.commit_max = system.commit_max.min(2 * MILLI);
            system.receive_maximum = u16::MAX;
        }
        let mut crashes = Rng::new(seed, "crashes", 0);
        if crashes.one_in(3) {
            system.draw_crashes(&mut crashes);
        }
        let mut clients = vec![Profile::reliable(Role::Witness), {
            let mut checker = Profile::reliable(Role::Checker);
            checker.client_id = "checker".into();
            checker
        }];
        let plain = rng.range(2, 4);
        let members = if rng.one_in(2) { rng.range(1, 3) } else { 0 };
        for index in 0..plain + members {
            let role = if index < plain {
                Role::Plain
            } else {
                Role::Member
            };
            let mut profile = Profile::draw(role, index, rng);
            if profile.version == Version::V3_1_1 && Rng::new(seed, "3.1", index).one_in(3) {
                profile.version = Version::V3_1;
            }
            clients.push(profile);
        }
        draw_tenants(&mut clients, &mut Rng::new(seed, "tenants", 0));
        if race {
            // What a session has missed is known if it lives to the end.
            clients[RACER].expiry = u32::MAX;
            for client in clients.iter_mut().skip(RACER) {
                client.inflight = 32;
                client.link = LinkStyle {
                    latency: (50, 500),
                    ..LinkStyle::PERFECT
                };
            }
        }
        let calm_at = rng.range(2, 12) * SECOND;
        let mut ops = Vec::new();
        let jumps = rng.one_in(6);
        let wild = rng.range(0, 3);
        for (client, profile) in clients.iter().enumerate().skip(CHECKER + 1) {
            let at = rng.below(SECOND / 2);
            let clean_start = rng.one_in(2);
            let will = draw_will(profile.version, rng);
            ops.push((at, client, Action::Connect { clean_start, will }));
            if profile.role == Role::Member || rng.percent(80) {
                ops.push((at, client, draw_subscribe(profile, system.narrow, rng)));
            }
        }
        for _ in 0..rng.range(10, 120) {
            if rng.is_over() {
                break;
            }
            let client = rng.range(2, clients.len() as u64 - 1) as usize;
            let at = rng.below(calm_at);
            let mut action = draw_action(&clients[client], &system, wild, jumps, rng);
            if let Action::Publish { padding, .. } = &mut action
                && clients[client].version != Version::V5
                && system.maximum_packet_size < 10_000
            {
                // A 3.x client cannot know how large a packet may be.
                *padding = padding.map(|padding| padding.min(1_000));
            }
            // Messages come in bursts, so that queues and windows fill.
            let burst = matches!(action, Action::Publish { .. }) && rng.one_in(4);
            for step in 0..if burst { rng.range(2, 20) } else { 0 } {
                let mut action = action.clone();
                if let Action::Publish { qos, retain, .. } = &mut action {
                    if rng.one_in(4) {
                        *qos = draw_qos(rng);
                    }
                    *retain = rng.one_in(5);
                }
                ops.push((at + step, client, action));
            }
            ops.push((at, client, action));
        }
        if rng.one_in(4) {
            ops.extend(draw_stream(calm_at, rng));
        }
        if race {
            for (_, client, action) in &mut ops {
                if let (RACER, Action::Connect { clean_start, .. }) = (*client, action) {
                    *clean_start = false;
                }
            }
            ops.extend(draw_race(&clients, calm_at, rng));
        }
        if system.crashes {
            // The witness sees what was acknowledged, also if it was not there.
            clients[WITNESS].expiry = u32::MAX;
            for (.., action) in &mut ops {
                spare(action);
            }
            ops.extend(draw_crashes(&system, calm_at, &mut crashes));
        }
        let mut stalls = Rng::new(seed, "stalls", 0);
        if system.stored && stalls.one_in(4) {
            for _ in 0..stalls.range(1, 3) {
                let action = Action::Stall(stalls.range(100, 3_000) * MILLI);
                ops.push((stalls.below(calm_at), RACER, action));
            }
        }
        ops.sort_by_key(|(at, ..)| *at);
        let ops = (1..).zip(ops);
        Self {
            seed,
            system,
            ops: ops
                .map(|(number, (at, client, action))| Op {
                    number,
                    at,
                    client,
                    action,
                })
                .collect(),
            clients,
            calm_at,
            end_at: calm_at + 90 * SECOND,
        }
    }
}

/// What is seen by nobody while the witness is gone is not what a crash is about: retained messages
/// and wills of QoS 0.
pub(crate) fn spare(action: &mut Action) {
    let (qos, matters) = match action {
        Action::Publish { qos, retain, .. } => (qos, *retain),
        Action::Connect {
            will: Some(will), ..
        } => (&mut will.qos, true),
        _ => return,
    };
    if matters && *qos == QoS::AtMostOnce {
        *qos = QoS::AtLeastOnce;
    }
}

fn draw_crashes(system: &System, calm_at: Micros, rng: &mut Rng) -> Vec<(Micros, usize, Action)> {
    let mut ops = Vec::new();
    if rng.one_in(3) {
        let action = Action::Disk {
            full: rng.one_in(2),
            duration: rng.range(50, 2_000) * MILLI,
        };
        ops.push((rng.below(calm_at), RACER, action));
    }
    for _ in 0..rng.range(1, 3) {
        let crash = Crash {
            after: rng.below(80) as u32,
            power: system.level == Level::Fsync && rng.one_in(2),
            down: *rng.pick(&[1, 100 * MILLI, SECOND, 3 * SECOND]),
            shards: rng.range(1, 3) as u16,
            again: true,
        };
        ops.push((rng.below(calm_at), RACER, Action::Crash(crash)));
    }
    ops
}

impl System {
    fn draw_crashes(&mut self, rng: &mut Rng) {
        self.stored = true;
        self.crashes = true;
        self.log = rng.one_in(2);
        self.level = if rng.one_in(4) {
            Level::Os
        } else {
            Level::Fsync
        };
        self.queued_messages_max = 100_000;
        self.total_max = 100_000;
        if rng.one_in(2) {
            self.resident_messages = rng.range(1, 8) as usize;
        }
    }

    pub(crate) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let stored = rng.one_in(3);
        let tight = rng.one_in(8);
        Self {
            shards: *rng.pick(&[1, 2, 3, 3]),
            stored,
            crashes: false,
            log: false,
            level: Level::Fsync,
            power_ends: None,
            commit_max: *rng.pick(&[10, 2 * MILLI, 200 * MILLI]),
            receive_maximum: *rng.pick(&[u16::MAX, 20, 3, 1]),
            maximum_packet_size: *rng.pick(&[1 << 20, 1 << 20, 3_000]),
            topic_alias_maximum: *rng.pick(&[0, 2, 16]),
            inflight: *rng.pick(&[1, 4, 32]),
            queued_messages_max: if tight {
                rng.range(2, 10) as usize
            } else {
                100_000
            },
            total_max: if tight && Rng::new(seed, "total", 0).one_in(3) {
                20
            } else {
                100_000
            },
            drop_oldest: rng.one_in(2),
            resident_messages: if stored && rng.one_in(2) {
                rng.range(1, 8) as usize
            } else {
                usize::MAX
            },
            forwards_max: *rng.pick(&[1_024, 1_024, 2]),
            slice_packets: *rng.pick(&[64, 3, 1]),
            retained_page: *rng.pick(&[64, 2, 1]),
            group_window: *rng.pick(&[1_000, 4, 1]),
            strategy: *rng.pick(&[
                SharedStrategy::RoundRobin,
                SharedStrategy::LeastInFlight,
                SharedStrategy::Sticky,
                SharedStrategy::ByPublisher,
                SharedStrategy::ByTopic,
            ]),
            turn_max: *rng.pick(&[50, 1_000, 30 * MILLI]),
            inbox_waits: *rng.pick(&[33, 33, 80]),
            carries: *rng.pick(&[33, 33, 5]),
            echoes: *rng.pick(&[0, 30, 100]),
            narrow: rng.one_in(3),
            access: Access::draw(seed),
        }
    }

    /// Whether messages may be dropped because a queue is full.
    pub(crate) fn is_tight(&self) -> bool {
        self.queued_messages_max < 1_000
    }
}

impl Profile {
    /// What names its session among those of all.
    pub(crate) fn session_name(&self) -> String {
        SessionKey::new(self.tenant, &self.client_id).to_string()
    }

    pub(crate) fn reliable(role: Role) -> Self {
        Self {
            role,
            version: Version::V5,
            tenant: "",
            client_id: "witness".into(),
            expiry: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            aliases: 0,
            inflight: 32,
            keep_alive: 0,
            link: LinkStyle::PERFECT,
            ack_max: 0,
            share: None,
        }
    }

    fn draw(role: Role, index: u64, rng: &mut Rng) -> Self {
        let version = *rng.pick(&[Version::V3_1_1, Version::V5, Version::V5]);
        let member = role == Role::Member;
        let slow = rng.one_in(5);
        Self {
            role,
            version,
            tenant: "",
            // Any shard may own its session.
            client_id: format!(
                "{}{index}-{}",
                if member { "member" } else { "client" },
                rng.below(100)
            ),
            expiry: *rng.pick(&[0, 0, 2, 60, u32::MAX, u32::MAX]),
            receive_maximum: *rng.pick(&[u16::MAX, 10, 2, 1]),
            maximum_packet_size: *rng.pick(&[u32::MAX, u32::MAX, u32::MAX, 2_000]),
            topic_alias_maximum: *rng.pick(&[0, 1, 3, 10]),
            aliases: *rng.pick(&[0, 1, 10]),
            inflight: *rng.pick(&[1, 5, 32]),
            keep_alive: *rng.pick(&[0, 1, 2, 10]),
            link: LinkStyle {
                latency: *rng.pick(&[(50, 200), (MILLI, 20 * MILLI), (0, 300 * MILLI)]),
                chunk: *rng.pick(&[usize::MAX, usize::MAX, 100, 9, 1]),
                capacity: *rng.pick(&[1 << 20, 1 << 14, 300]),
                read_max: if slow { 20 } else { usize::MAX },
            },
            ack_max: *rng.pick(&[0, 0, 5 * MILLI, 400 * MILLI]),
            share: (member && version != Version::V5).then(|| rng.name(SHARES)),
        }
    }
}

/// Some clients are those of a tenant, perhaps with the Client Identifiers of others.
fn draw_tenants(clients: &mut [Profile], rng: &mut Rng) {
    if !rng.one_in(3) {
        return;
    }
    let same = rng.one_in(2);
    let mut names: Vec<String> = Vec::new();
    for client in clients.iter_mut().skip(RACER) {
        if !rng.one_in(2) {
            names.push(client.client_id.clone());
            continue;
        }
        client.tenant = "tenant";
        let of_role = |name: &String| name.starts_with("member") == (client.role == Role::Member);
        if let Some(at) = names.iter().position(of_role)
            && same
        {
            client.client_id = names.swap_remove(at);
        }
    }
}

pub(crate) fn draw_qos(rng: &mut Rng) -> QoS {
    *rng.pick(&[
        QoS::AtMostOnce,
        QoS::AtLeastOnce,
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::ExactlyOnce,
    ])
}

fn draw_will(version: Version, rng: &mut Rng) -> Option<WillPlan> {
    rng.one_in(2).then(|| WillPlan {
        topic: rng.name(TOPICS),
        qos: draw_qos(rng),
        retain: rng.one_in(4),
        delay: if version == Version::V5 {
            *rng.pick(&[0, 0, 1, 5])
        } else {
            0
        },
    })
}

fn draw_subscribe(profile: &Profile, narrow: bool, rng: &mut Rng) -> Action {
    let v5 = profile.version == Version::V5;
    if profile.role == Role::Member {
        let filter = profile.share.unwrap_or_else(|| rng.name(SHARES));
        let mut options = SubscriptionOptions::new(*rng.pick(&[
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
            QoS::ExactlyOnce,
        ]));
        options.retain_as_published = v5 && rng.one_in(3);
        let id = if v5 { share_id(filter) } else { None };
        let filters = vec![(filter, options)];
        return Action::Subscribe { filters, id };
    }
    let mut filters: Vec<(&'static str, SubscriptionOptions)> = Vec::new();
    for _ in 0..rng.range(1, 3) {
        let filter: &'static str = rng.name(if narrow { TOPICS } else { FILTERS });
        if filters.iter().any(|(known, _)| *known == filter) {
            continue;
        }
        let mut options = SubscriptionOptions::new(draw_qos(rng));
        if v5 {
            options.no_local = rng.one_in(4);
            options.retain_as_published = rng.one_in(3);
            options.retain_handling = *rng.pick(&[
                RetainHandling::SendAtSubscribe,
                RetainHandling::SendAtSubscribe,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ]);
        }
        filters.push((filter, options));
    }
    let id = (v5 && rng.one_in(2)).then(|| rng.range(1, 9) as u32);
    Action::Subscribe { filters, id }
}

/// A client that publishes all the time, so that something is on its way whenever others act.
fn draw_stream(calm_at: Micros, rng: &mut Rng) -> Vec<(Micros, usize, Action)> {
    let client = CHECKER + 1;
    let begin = rng.below(calm_at);
    let wait = rng.range(1, 8) * MILLI;
    let retains = rng.one_in(2);
    let message = |rng: &mut Rng| Action::Publish {
        topic: rng.name(TOPICS),
        qos: QoS::AtLeastOnce,
        retain: retains && rng.one_in(2),
        padding: Some(0),
        expiry: None,
    };
    (0..150)
        .map(|step| (begin + step * wait, client, message(rng)))
        .filter(|(at, ..)| *at < calm_at)
        .collect()
}

/// A client subscribes to one topic after the other, to each while another one publishes to it.
fn draw_race(clients: &[Profile], calm_at: Micros, rng: &mut Rng) -> Vec<(Micros, usize, Action)> {
    let others = (RACER + 1..clients.len()).filter(|it| clients[*it].role == Role::Plain);
    let others: Vec<usize> = others.collect();
    let mut ops = Vec::new();
    let mut at = rng.below(calm_at / 2);
    let gap = rng.range(5, 100) * MILLI;
    for topic in RACE_TOPICS {
        at += gap;
        let mut options = SubscriptionOptions::new(QoS::AtLeastOnce);
        options.retain_as_published = clients[RACER].version == Version::V5;
        let filters = vec![(*topic, options)];
        ops.push((at, RACER, Action::Subscribe { filters, id: None }));
        for step in 0..12 {
            let publisher = others[rng.index(others.len())];
            let message = Action::Publish {
                topic,
                qos: QoS::AtLeastOnce,
                retain: rng.one_in(2),
                padding: Some(0),
                expiry: None,
            };
            ops.push((at + step * gap / 6, publisher, message));
        }
    }
    ops.retain(|(at, ..)| *at < calm_at);
    ops
}

fn draw_action(
    profile: &Profile,
    system: &System,
    wild: u64,
    jumps: bool,
    rng: &mut Rng,
) -> Action {
    let v5 = profile.version == Version::V5;
    let quiet = profile.role == Role::Member;
    let roll = rng.below(if quiet { 60 } else { 100 });
    match roll {
        // Faults, the more the wilder.
        0..=24 if roll < 8 * wild => Action::Cut(draw_cut(profile, rng)),
        0..=7 => Action::Freeze(rng.range(10, 800) * MILLI),
        8..=29 => draw_subscribe(profile, system.narrow, rng),
        30..=39 => Action::Unsubscribe {
            filter: match profile.role {
                Role::Member => profile.share.unwrap_or_else(|| rng.name(SHARES)),
                Role::Plain | Role::Witness | Role::Checker => {
                    rng.name(if system.narrow { TOPICS } else { FILTERS })
                }
            },
        },
        40..=47 => Action::Connect {
            clean_start: rng.one_in(4),
            will: draw_will(profile.version, rng),
        },
        48..=51 => Action::Disconnect {
            with_will: v5 && rng.one_in(3),
        },
        52 if jumps => Action::Jump {
            seconds: *rng.pick(&[-1_000_000, -50, 30, 90, 5_000]),
        },
        52..=59 => Action::Freeze(rng.range(1, 100) * MILLI),
        _ => Action::Publish {
            topic: rng.name(TOPICS),
            qos: draw_qos(rng),
            retain: rng.one_in(4),
            padding: match rng.below(20) {
                0 if v5 => None,
                1 => Some(rng.range(1_500, 6_000) as usize),
                _ => Some(rng.below(40) as usize),
            },
            expiry: (v5 && rng.one_in(10)).then(|| rng.range(1, 5) as u32),
        },
    }
}

fn draw_cut(profile: &Profile, rng: &mut Rng) -> Cut {
    // Without Keep Alive nobody notices a link that is silently gone.
    let silent = profile.keep_alive > 0 && rng.one_in(4);
    let learns = |rng: &mut Rng| Some(rng.range(0, 400) * MILLI);
    let (client_learns, server_learns) = match rng.below(3) {
        0 if silent => (None, None),
        1 if silent => (learns(rng), None),
        2 if silent => (None, learns(rng)),
        _ => (learns(rng), learns(rng)),
    };
    Cut {
        arrives: (rng.below(101), rng.below(101)),
        client_learns,
        server_learns,
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>12.6} client {} #{}: {:?}",
            self.at as f64 / 1e6,
            self.client,
            self.number,
            self.action
        )
    }
}
