//! One thread of the load: its clients, and the loop that serves them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::Duration;

use avocet_codec::{Packet, QoS};
use mio::{Token, Waker};

use crate::bench::alarm::Alarm;
use crate::bench::check::{Faults, Stream};
use crate::bench::client::reason;
use crate::bench::gathering::{Gathering, UNACKNOWLEDGED};
use crate::bench::histogram::Histogram;
use crate::bench::open::{Pace, Server, Wanted};
use crate::bench::plan::{Length, Load, Plan, Shape};
use crate::bench::publisher::{Acked, Publisher, filler};
use crate::bench::reactor::{Handler, Reactor};
use crate::bench::subscriber::Subscriber;
use crate::clock::Stopwatch;
use crate::exit::Failure;

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// Nanoseconds of one interval of the report.
pub(crate) const INTERVAL: u64 = 1_000_000_000;

/// How often is looked after what no event tells, in nanoseconds.
const LOOK: u64 = 100_000_000;

/// The longest time for which nothing may arrive before what is on its way is given up, so that the
/// load goes on.
const PATIENCE_MAX: u64 = 1_000_000_000;

/// Rounds in which the unsent messages of a publisher are counted.
const UNSENT_ROUNDS: u64 = 1_000;

/// What all threads of a load see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) server: Server,
    pub(crate) clock: Stopwatch,
    /// When messages begin to flow; 0 until all clients are there.
    pub(crate) start: AtomicU64,
    /// No more messages are sent.
    pub(crate) stopped: AtomicBool,
    /// The clients are to go.
    pub(crate) over: AtomicBool,
    /// Deliveries of the messages of each publisher, the first of each.
    delivered: Vec<AtomicU64>,
    pub(crate) workers: Vec<Progress>,
}

/// How far a thread is.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Progress {
    pub(crate) sent: AtomicU64,
    pub(crate) acked: AtomicU64,
    /// Messages that came for the first time, and are counted in `delivered`.
    pub(crate) delivered: AtomicU64,
    /// Everything that came.
    pub(crate) received: AtomicU64,
    /// All its publishers have sent all they will.
    pub(crate) finished: AtomicBool,
}

impl Shared {
    pub(crate) fn new(plan: Plan, server: Server, clock: Stopwatch) -> Self {
        Self {
            delivered: (0..plan.publishers).map(|_| AtomicU64::new(0)).collect(),
            workers: (0..plan.threads).map(|_| Progress::default()).collect(),
            plan,
            server,
            clock,
            start: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Sums up what threads say of themselves.
    pub(crate) fn sum(&self, of: impl Fn(&Progress) -> &AtomicU64) -> u64 {
        self.workers
            .iter()
            .map(|worker| of(worker).load(Relaxed))
            .sum()
    }

    /// Messages of a publisher that have come to all who hear them.
    fn arrived(&self, publisher: u32) -> u64 {
        let delivered = self.delivered.get(publisher as usize);
        delivered.map_or(0, |count| count.load(Relaxed)) / self.plan.fan_out()
    }

    /// When measuring begins and ends.
    pub(crate) fn measured(&self) -> (u64, u64) {
        let start = self.start.load(Relaxed);
        match self.plan.length {
            Length::Time { warm_up, measured } => {
                let begin = start.saturating_add(warm_up);
                (begin, begin.saturating_add(measured))
            }
            Length::Count(_) => (start, u64::MAX),
        }
    }
}

/// What a thread tells while it runs.
#[derive(Debug)]
pub(crate) enum Report {
    /// All its clients are there.
    Ready,
    /// A part of the time, of a second at most.
    Interval(Box<Interval>),
    /// It has ended.
    Ended(Result<Box<Ended>, Failure>),
}

/// What one thread saw in a part of the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interval {
    /// In nanoseconds from the start.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// Whether its messages are part of the result.
    pub(crate) is_measured: bool,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// From when a message was due until it was received.
    pub(crate) latency: Histogram,
    /// From when a message was due until PUBACK or PUBCOMP.
    pub(crate) acknowledged: Histogram,
}

/// What one thread saw in all.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Each publisher with the number of messages it sent.
    pub(crate) sent: Vec<(u32, u64)>,
    pub(crate) subscribers: Vec<Subscriber>,
    /// What the members of a shared subscription got together, by publisher.
    pub(crate) group: Vec<Stream>,
    /// Faults that belong to no stream.
    pub(crate) faults: Faults,
    /// Messages that were due and could not be sent in time.
    pub(crate) unsent: u64,
    /// How often messages were given up because nothing arrived.
    pub(crate) stalls: u64,
    /// How late messages left that were due at a fixed time.
    pub(crate) lag: Histogram,
    /// A Reason Code with which messages were refused.
    pub(crate) refused_with: Option<String>,
}

#[derive(Debug)]
enum Role {
    Subscriber(Subscriber),
    Publisher(Publisher),
}

/// Deliveries that follow each other and are counted together.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    publisher: u32,
    due: u64,
    count: u64,
}

/// What packets change beside their client.
struct Tally {
    interval: Interval,
    ended: Ended,
    /// Messages due in this time are measured.
    window: (u64, u64),
    run: Run,
    received: u64,
    delivered: u64,
    acked: u64,
}

impl Tally {
    /// Counts a delivery.
    #[inline]
    fn deliver(&mut self, publisher: u32, due: u64, now: u64, shared: &Shared) {
        if self.run.publisher != publisher || self.run.due != due {
            self.finish_run(now, shared);
            self.run = Run {
                publisher,
                due,
                count: 0,
            };
        }
        self.run.count += 1;
    }

    fn finish_run(&mut self, now: u64, shared: &Shared) {
        let Run {
            publisher,
            due,
            count,
        } = self.run;
        if count == 0 {
            return;
        }
        self.run.count = 0;
        self.delivered += count;
        if let Some(delivered) = shared.delivered.get(publisher as usize) {
            delivered.fetch_add(count, Relaxed);
        }
        if self.is_counted(due) {
            self.interval.latency.record(now.saturating_sub(due), count);
        }
    }

    /// Before measuring everything is shown; then only what was due in its time.
    #[inline]
    fn is_counted(&self, due: u64) -> bool {
        !self.interval.is_measured || (self.window.0..self.window.1).contains(&due)
    }
}

/// What the clients of a thread do with what they get.
struct Traffic {
    shared: Arc<Shared>,
    roles: Vec<Role>,
    tally: Tally,
    filler: Vec<u8>,
    /// What the members of a shared subscription got together, by publisher.
    group: Vec<Stream>,
}

impl Handler for Traffic {
    #[inline]
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Failure> {
        let tally = &mut self.tally;
        let faults = &mut tally.ended.faults;
        match self.roles.get_mut(client) {
            Some(Role::Subscriber(subscriber)) => {
                tally.received += 1;
                let plan = &self.shared.plan;
                let stamp = subscriber
                    .on_packet(packet, plan, &self.filler, &mut self.group, out, faults)
                    .map_err(Failure::new)?;
                if let Some(stamp) = stamp {
                    tally.interval.received += 1;
                    tally.deliver(stamp.publisher, stamp.due, now, &self.shared);
                }
            }
            Some(Role::Publisher(publisher)) => {
                match publisher
                    .on_packet(packet, out, faults)
                    .map_err(Failure::new)?
                {
                    Acked::Nothing => return Ok(()),
                    Acked::Done { due } => {
                        if tally.is_counted(due) {
                            let latency = now.saturating_sub(due);
                            tally.interval.acknowledged.record(latency, 1);
                        }
                    }
                    Acked::Refused(code) => {
                        publisher.written_off += 1;
                        tally.ended.refused_with = Some(reason(code));
                    }
                }
                tally.acked += 1;
            }
            None => {}
        }
        Ok(())
    }

    fn on_read(&mut self, now: u64) {
        self.tally.finish_run(now, &self.shared);
    }
}

/// A thread with its clients.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    number: u32,
    reactor: Reactor,
    alarm: Alarm,
    /// The wakers of all threads, by number.
    wakers: Arc<Vec<Waker>>,
    reports: Sender<Report>,
    traffic: Traffic,
    /// The first publisher among the clients, and the one whose message is due next.
    publishers: usize,
    next_due: usize,
    /// How many messages each publisher before `next_due` was due.
    rounds: u64,
    looked_at: u64,
    gathering: Gathering,
    /// The clients whose Sessions are to end after the run.
    ends: Vec<Wanted>,
}

impl Worker {
    /// Room for the clients of a worker, and what wakes it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn reactor(shared: &Shared) -> Result<(Reactor, Waker), Failure> {
        let (server, payload) = (shared.server.clone(), shared.plan.payload);
        let reactor = Reactor::new(server, shared.clock, payload)?;
        let waker = Waker::new(reactor.poll().registry(), WAKER)
            .map_err(|error| Failure::new(format!("cannot wait for the network: {error}")))?;
        Ok((reactor, waker))
    }

    /// Connects and subscribes the clients of a thread, runs the load and ends.
    pub(crate) fn run(
        shared: Arc<Shared>,
        number: u32,
        reactor: Reactor,
        wakers: Arc<Vec<Waker>>,
        reports: Sender<Report>,
    ) {
        let sender = reports.clone();
        let run = AssertUnwindSafe(|| {
            Self::open(shared, number, reactor, wakers, sender).and_then(Self::serve)
        });
        // The others would wait for ever for a thread that says nothing.
        let ended = catch_unwind(run)
            .unwrap_or_else(|_| Err(Failure::new("a thread of the load has failed")))
            .map(Box::new);
        // Nobody is left to tell if this fails.
        let _ = reports.send(Report::Ended(ended));
    }

    fn open(
        shared: Arc<Shared>,
        number: u32,
        mut reactor: Reactor,
        wakers: Arc<Vec<Waker>>,
        reports: Sender<Report>,
    ) -> Result<Self, Failure> {
        let Shared { plan, server, .. } = &*shared;
        let own = |all: u32| (number..all).step_by(plan.threads as usize);
        // The members of a group are looked at together.
        let subscribers: Vec<u32> = match plan.shape {
            Shape::Shared if number > 0 => Vec::new(),
            Shape::Shared => (0..plan.subscribers).collect(),
            Shape::FanIn | Shape::FanOut | Shape::Pairs => own(plan.subscribers).collect(),
        };
        let (mut wanted, mut roles) = (Vec::new(), Vec::new());
        for index in subscribers {
            roles.push(Role::Subscriber(Subscriber::new(plan, index)));
            wanted.push(Wanted {
                filters: plan.filters(index),
                maximum_qos: plan.maximum_qos,
                clean_start: plan.clean_start,
                session_expiry_interval: plan.session_expiry_interval,
                ..Wanted::new(
                    format!("subscriber {index}"),
                    plan.names.client_id('s', index),
                )
            });
        }
        let publishers = roles.len();
        for index in own(plan.publishers) {
            roles.push(Role::Publisher(Publisher::new(
                plan,
                index,
                server.version,
            )?));
            wanted.push(Wanted {
                maximum_qos: plan.qos,
                clean_start: plan.clean_start,
                session_expiry_interval: plan.session_expiry_interval,
                ..Wanted::new(
                    format!("publisher {index}"),
                    plan.names.client_id('p', index),
                )
            });
        }
        let alarm = Alarm::new(reactor.poll(), ALARM)
            .map_err(|error| Failure::new(format!("cannot set a timer: {error}")))?;
        let pace = Pace {
            interval: 0,
            index: number as usize * wanted.len(),
        };
        let mut traffic = Traffic {
            roles,
            tally: Tally {
                interval: Interval::default(),
                ended: Ended::default(),
                window: (0, u64::MAX),
                run: Run::default(),
                received: 0,
                delivered: 0,
                acked: 0,
            },
            filler: filler(plan.payload),
            group: match plan.shape {
                Shape::Shared => vec![Stream::default(); plan.publishers as usize],
                Shape::FanIn | Shape::FanOut | Shape::Pairs => Vec::new(),
            },
            shared: Arc::clone(&shared),
        };
        let ends = match plan.keeps_sessions() {
            true => wanted.clone(),
            false => Vec::new(),
        };
        reactor.open(wanted, pace, &mut Histogram::default(), &mut traffic)?;
        for (client, role) in reactor.clients.iter().zip(&mut traffic.roles) {
            if let Role::Publisher(publisher) = role {
                publisher.limit_inflight(client.receive_maximum);
            }
        }
        let _ = reports.send(Report::Ready);
        Ok(Self {
            number,
            reactor,
            alarm,
            wakers,
            reports,
            traffic,
            publishers,
            next_due: publishers,
            rounds: 0,
            looked_at: 0,
            gathering: Gathering::default(),
            ends,
            shared,
        })
    }

    fn serve(mut self) -> Result<Ended, Failure> {
        let shared = Arc::clone(&self.shared);
        let mut is_publishing = true;
        let (start, (begin, end)) = loop {
            let start = shared.start.load(Relaxed);
            if start != 0 {
                break (start, shared.measured());
            }
            if shared.over.load(Relaxed) {
                return Ok(Ended::default());
            }
            self.reactor
                .turn(Duration::from_nanos(LOOK), &mut self.traffic)?;
        };
        self.traffic.tally.window = (begin, end);
        self.begin_interval(start, start, begin, end);
        while !shared.over.load(Relaxed) {
            let now = shared.clock.nanoseconds();
            if now >= start + self.traffic.tally.interval.end {
                let next = start + self.traffic.tally.interval.end;
                self.finish_interval();
                self.begin_interval(start, next, begin, end);
                continue;
            }
            if is_publishing && (now >= end || shared.stopped.load(Relaxed)) {
                // What became due since the last turn is not late.
                if matches!(shared.plan.load, Load::Open { .. }) {
                    self.pump(now.min(end - 1), start, true)?;
                    self.reactor.write()?;
                    self.count_unsent(now.min(end));
                }
                is_publishing = false;
            }
            let wait = if now < start {
                Duration::from_nanos(start - now)
            } else {
                let due = self.pump(now, start, is_publishing)?;
                let look = (start + self.traffic.tally.interval.end).min(now + LOOK);
                Duration::from_nanos(due.unwrap_or(look).min(look).saturating_sub(now))
            };
            self.reactor.write()?;
            self.tell(is_publishing);
            if is_publishing {
                self.gather();
            }
            let wait = match shared.plan.load {
                Load::Open { .. } if is_publishing && !wait.is_zero() => self.alarm.set(wait),
                Load::Open { .. } | Load::Closed { .. } => wait,
            };
            self.reactor.turn(wait, &mut self.traffic)?;
            self.look(shared.clock.nanoseconds(), is_publishing);
        }
        self.finish_interval();
        self.end_sessions()?;
        let mut ended = self.traffic.tally.ended;
        ended.group = self.traffic.group;
        for role in self.traffic.roles {
            match role {
                Role::Subscriber(subscriber) => ended.subscribers.push(subscriber),
                Role::Publisher(publisher) => ended.sent.push((publisher.index, publisher.sent)),
            }
        }
        Ok(ended)
    }

    /// Leaves nothing behind: a Session ends when its client comes with Clean Start once more, and
    /// goes.
    fn end_sessions(&mut self) -> Result<(), Failure> {
        if self.ends.is_empty() {
            self.reactor.close();
            return Ok(());
        }
        self.reactor.leave()?;
        let mut wanted = std::mem::take(&mut self.ends);
        for wanted in &mut wanted {
            wanted.clean_start = true;
            wanted.session_expiry_interval = 0;
            wanted.filters.clear();
        }
        let pace = Pace {
            interval: 0,
            index: 0,
        };
        let times = &mut Histogram::default();
        self.reactor.open(wanted, pace, times, &mut self.traffic)?;
        self.reactor.leave()
    }

    /// The interval that begins at `from` ends with a second, or where measuring begins or ends.
    fn begin_interval(&mut self, start: u64, from: u64, begin: u64, end: u64) {
        let mut to = start + ((from - start) / INTERVAL + 1) * INTERVAL;
        for edge in [begin, end] {
            if from < edge {
                to = to.min(edge);
            }
        }
        self.traffic.tally.interval = Interval {
            begin: from - start,
            end: to - start,
            is_measured: from >= begin,
            ..Interval::default()
        };
    }

    fn finish_interval(&mut self) {
        let interval = Box::new(std::mem::take(&mut self.traffic.tally.interval));
        let _ = self.reports.send(Report::Interval(interval));
    }

    /// Lets publishers send what they may. Gives the time when the next message is due.
    fn pump(&mut self, now: u64, start: u64, is_publishing: bool) -> Result<Option<u64>, Failure> {
        if !is_publishing {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let next = match plan.load {
            Load::Open { interval } => self.advance(now, start, interval),
            Load::Closed { .. } => None,
        };
        let Traffic {
            roles,
            tally,
            filler,
            ..
        } = &mut self.traffic;
        let mut marked = Vec::new();
        let clients = self.reactor.clients.iter_mut().zip(roles).enumerate();
        for (index, (client, role)) in clients.skip(self.publishers) {
            let Role::Publisher(publisher) = role else {
                continue;
            };
            let mut room = match plan.load {
                Load::Open { .. } if publisher.due == publisher.sent => continue,
                Load::Open { .. } | Load::Closed { .. } => {
                    publisher.room(plan.load, shared.arrived(publisher.index), client)
                }
            };
            if room == 0 {
                continue;
            }
            match plan.load {
                Load::Open { interval } => {
                    for _ in 0..room {
                        let due = start + plan.due(interval, publisher.index, publisher.sent);
                        tally.ended.lag.record(now.saturating_sub(due), 1);
                        publisher.publish(due, filler, &mut client.out);
                    }
                    tally.interval.sent += room;
                    marked.push(index);
                }
                Load::Closed { batch, .. } => {
                    // The last ones are fewer.
                    let least = batch.min(publisher.quota - publisher.sent);
                    while room >= least && room > 0 {
                        let count = batch.min(room);
                        for _ in 0..count {
                            publisher.publish(now, filler, &mut client.out);
                        }
                        tally.interval.sent += count;
                        room -= count;
                        client.flush(now).map_err(|error| client.lost(error))?;
                        if client.unwritten() > 0 {
                            break;
                        }
                    }
                }
            }
        }
        for index in marked {
            self.reactor.mark(index);
        }
        Ok(next)
    }

    /// Makes all messages due whose time has come. Gives the time of the next.
    fn advance(&mut self, now: u64, start: u64, interval: f64) -> Option<u64> {
        loop {
            let Some(Role::Publisher(publisher)) = self.traffic.roles.get_mut(self.next_due) else {
                if self.next_due == self.publishers {
                    return None;
                }
                self.next_due = self.publishers;
                self.rounds += 1;
                continue;
            };
            let due = start + self.shared.plan.due(interval, publisher.index, self.rounds);
            if self.rounds >= publisher.quota {
                // Those behind it have no more to send than this one.
                return None;
            }
            if due > now {
                return Some(due);
            }
            publisher.due = self.rounds + 1;
            self.next_due += 1;
        }
    }

    /// What was due and has not left was late by the time that it has waited, at least.
    fn count_unsent(&mut self, now: u64) {
        let shared = Arc::clone(&self.shared);
        let Load::Open { interval } = shared.plan.load else {
            return;
        };
        let start = shared.start.load(Relaxed);
        let Traffic { roles, tally, .. } = &mut self.traffic;
        for role in roles {
            let Role::Publisher(publisher) = role else {
                continue;
            };
            let unsent = publisher.due - publisher.sent;
            tally.ended.unsent += unsent;
            let step = unsent / UNSENT_ROUNDS + 1;
            let mut number = publisher.sent;
            while number < publisher.due {
                let due = start + shared.plan.due(interval, publisher.index, number);
                let count = step.min(publisher.due - number);
                if tally.is_counted(due) {
                    let latency = &mut tally.interval.latency;
                    latency.record(now.saturating_sub(due), count);
                }
                number += count;
            }
        }
    }

    /// Tells the other threads how far this one is, and wakes those that wait for that.
    fn tell(&mut self, is_publishing: bool) {
        let Some(progress) = self.shared.workers.get(self.number as usize) else {
            return;
        };
        let publishers = self.traffic.roles.iter().skip(self.publishers);
        let mut is_finished = true;
        let mut sent = 0;
        for role in publishers {
            if let Role::Publisher(publisher) = role {
                sent += publisher.sent;
                is_finished &= publisher.sent == publisher.quota || !is_publishing;
            }
        }
        progress.sent.store(sent, Relaxed);
        progress.acked.store(self.traffic.tally.acked, Relaxed);
        progress
            .received
            .store(self.traffic.tally.received, Relaxed);
        progress.finished.store(is_finished, Relaxed);
        let before = progress
            .delivered
            .swap(self.traffic.tally.delivered, Relaxed);
        if before != self.traffic.tally.delivered {
            let others = self.wakers.iter().enumerate();
            for (_, waker) in others.filter(|(number, _)| *number != self.number as usize) {
                // A thread that is not woken looks for itself soon.
                let _ = waker.wake();
            }
        }
    }

    /// Lets messages gather, unless each is to be a write of its own.
    fn gather(&mut self) {
        let plan = &self.shared.plan;
        if !matches!(plan.load, Load::Closed { batch, .. } if batch != 1) {
            return;
        }
        let fan_out = plan.fan_out();
        let sent = self.shared.sum(|worker| &worker.sent);
        let arrived = self.shared.sum(|worker| &worker.delivered) / fan_out;
        let work = match plan.delivered_qos() {
            QoS::AtMostOnce => u64::MAX,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                u64::from(plan.subscribers) * UNACKNOWLEDGED / fan_out
            }
        };
        let now = self.shared.clock.nanoseconds();
        self.gathering.wait(now, sent, arrived, work);
    }

    /// Gives up messages that never arrive.
    fn look(&mut self, now: u64, is_publishing: bool) {
        let is_closed = matches!(self.shared.plan.load, Load::Closed { .. });
        if now - self.looked_at < LOOK || !is_publishing || !is_closed {
            return;
        }
        self.looked_at = now;
        let patience = (self.shared.plan.drain / 4).min(PATIENCE_MAX);
        for role in &mut self.traffic.roles {
            if let Role::Publisher(publisher) = role
                && publisher.write_off(self.shared.arrived(publisher.index), now, patience)
            {
                self.traffic.tally.ended.stalls += 1;
            }
        }
    }
}
