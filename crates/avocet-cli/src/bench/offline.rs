//! Messages for clients that are away.

use std::time::Duration;

use avocet_codec::Packet;

use crate::bench::check::Faults;
use crate::bench::histogram::Histogram;
use crate::bench::open::{Pace, Server, Wanted, allow_files};
use crate::bench::phases::Phases;
use crate::bench::plan::{Load, Plan};
use crate::bench::publisher::{Acked, Publisher, filler};
use crate::bench::reactor::{Handler, Reactor};
use crate::bench::subscriber::Subscriber;
use crate::bench_args::{OfflineArgs, Workload};
use crate::clock::Stopwatch;
use crate::exit::Failure;

/// How long a Session may wait for its client, in seconds: longer than any run, and no longer than
/// a day if the run is cut off.
const SESSION_EXPIRY_INTERVAL: u32 = 86_400;

/// How long a turn may wait.
const TURN: Duration = Duration::from_millis(50);

const AS_FAST_AS_POSSIBLE: Pace = Pace {
    interval: 0,
    index: 0,
};

/// Clients that publish, or come back; never both at a time.
struct Pairs {
    plan: Plan,
    filler: Vec<u8>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Whether the clients are the publishers.
    is_publishing: bool,
    faults: Faults,
    acknowledged: Histogram,
    acked: u64,
    /// Messages that came, the first of each, and when the last one did.
    received: (u64, u64),
    /// When the clients began to come back, and how long after that each message came.
    back_at: u64,
    drained: Histogram,
    pingresps: usize,
    /// When anything last came.
    heard_at: u64,
}

impl Handler for Pairs {
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Failure> {
        self.heard_at = now;
        if matches!(packet, Packet::Pingresp) {
            self.pingresps += 1;
            return Ok(());
        }
        let faults = &mut self.faults;
        if self.is_publishing {
            if let Some(publisher) = self.publishers.get_mut(client) {
                match publisher
                    .on_packet(packet, out, faults)
                    .map_err(Failure::new)?
                {
                    Acked::Nothing => return Ok(()),
                    Acked::Done { due } => self.acknowledged.record(now.saturating_sub(due), 1),
                    Acked::Refused(_) => {}
                }
                self.acked += 1;
            }
        } else if let Some(subscriber) = self.subscribers.get_mut(client) {
            let stamp = subscriber
                .on_packet(packet, &self.plan, &self.filler, &mut [], out, faults)
                .map_err(Failure::new)?;
            if stamp.is_some() {
                self.received = (self.received.0 + 1, now);
                self.drained.record(now.saturating_sub(self.back_at), 1);
            }
        }
        Ok(())
    }
}

/// Runs the workload.
///
/// # Errors
///
/// What kept it from running to its end.
pub(crate) fn run(workload: &Workload, args: &OfflineArgs) -> Result<Phases, Failure> {
    let plan = Plan::new(workload)?;
    let server = Server::new(&args.run.server)?;
    allow_files(plan.publishers.into())?;
    let clock = Stopwatch::start();
    let messages = args.messages.get();
    let settings = vec![
        ("messages", messages),
        ("pairs", u64::from(plan.publishers)),
        ("payload_bytes", plan.payload as u64),
        ("inflight", u64::from(plan.inflight)),
    ];
    let mut phases = Phases::new("offline", &server, plan.names, settings, &args.run, clock)?;
    phases.qos = plan.delivered_qos() as u8;
    let done = load(args, plan, server, clock, &mut phases);
    phases.finish(done)
}

fn load(
    args: &OfflineArgs,
    plan: Plan,
    server: Server,
    clock: Stopwatch,
    phases: &mut Phases,
) -> Result<(), Failure> {
    let messages = args.messages.get();
    let version = server.version;
    let mut reactor = Reactor::new(server, clock, plan.payload)?;
    let mut pairs = Pairs {
        filler: filler(plan.payload),
        publishers: (0..plan.publishers)
            .map(|index| Publisher::new(&plan, index, version))
            .collect::<Result<_, _>>()?,
        subscribers: (0..plan.subscribers)
            .map(|index| Subscriber::new(&plan, index))
            .collect(),
        is_publishing: false,
        faults: Faults::default(),
        acknowledged: Histogram::default(),
        acked: 0,
        received: (0, 0),
        back_at: 0,
        drained: Histogram::default(),
        pingresps: 0,
        heard_at: 0,
        plan,
    };

    phases.begin("left", "sessions")?;
    pairs.come(&mut reactor, Session::New)?;
    reactor.leave()?;
    phases.end(
        clock.nanoseconds(),
        args.pairs.get().into(),
        Histogram::default(),
    )?;

    phases.begin("queued", "messages")?;
    pairs.publish(&mut reactor, phases)?;
    let (acked, latency) = (pairs.acked, std::mem::take(&mut pairs.acknowledged));
    phases.end(pairs.heard_at, acked, latency)?;

    phases.begin("drained", "messages")?;
    pairs.back_at = clock.nanoseconds();
    pairs.come(&mut reactor, Session::Kept)?;
    pairs.drain(&mut reactor, phases, messages)?;
    let latency = std::mem::take(&mut pairs.drained);
    phases.end(pairs.received.1, pairs.received.0, latency)?;
    pairs.say_that_all_is_acknowledged(&mut reactor)?;
    reactor.leave()?;

    // What was acknowledged must not come again: it would be a duplicate.
    pairs.come(&mut reactor, Session::Kept)?;
    pairs.say_that_all_is_acknowledged(&mut reactor)?;
    reactor.leave()?;
    pairs.come(&mut reactor, Session::Ended)?;
    reactor.leave()?;

    for subscriber in &pairs.subscribers {
        for heard in &subscriber.streams {
            let sent = pairs
                .publishers
                .get(subscriber.index as usize)
                .map_or(0, |publisher| publisher.sent);
            pairs.faults += Faults {
                lost: heard.stream.lost(sent),
                ..heard.faults
            };
        }
    }
    pairs.faults.lost = pairs.faults.lost.saturating_sub(pairs.faults.refused);
    phases.faults = pairs.faults;
    Ok(())
}

/// What the clients that were away begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    New,
    Kept,
    /// A new one that ends with the connection.
    Ended,
}

impl Pairs {
    /// The clients that are away come, or come back.
    fn come(&mut self, reactor: &mut Reactor, session: Session) -> Result<(), Failure> {
        let plan = &self.plan;
        let is_5_0 = reactor.server.version == avocet_codec::Version::V5;
        let wanted = (0..plan.subscribers)
            .map(|index| Wanted {
                // In 3.x a Session that is kept needs Clean Session 0 from the first.
                clean_start: match session {
                    Session::New => is_5_0,
                    Session::Kept => false,
                    Session::Ended => true,
                },
                session_expiry_interval: match session {
                    Session::New | Session::Kept => SESSION_EXPIRY_INTERVAL,
                    Session::Ended => 0,
                },
                filters: match session {
                    Session::New => plan.filters(index),
                    Session::Kept | Session::Ended => Vec::new(),
                },
                maximum_qos: plan.maximum_qos,
                ..Wanted::new(
                    format!("subscriber {index}"),
                    plan.names.client_id('s', index),
                )
            })
            .collect();
        self.is_publishing = false;
        reactor.open(wanted, AS_FAST_AS_POSSIBLE, &mut Histogram::default(), self)?;
        self.heard_at = reactor.clock.nanoseconds();
        Ok(())
    }

    /// Publishes everything and waits until it is acknowledged.
    fn publish(&mut self, reactor: &mut Reactor, phases: &mut Phases) -> Result<(), Failure> {
        let plan = &self.plan;
        let wanted = (0..plan.publishers)
            .map(|index| Wanted {
                maximum_qos: plan.qos,
                ..Wanted::new(
                    format!("publisher {index}"),
                    plan.names.client_id('p', index),
                )
            })
            .collect();
        self.is_publishing = true;
        reactor.open(wanted, AS_FAST_AS_POSSIBLE, &mut Histogram::default(), self)?;
        for (client, publisher) in reactor.clients.iter().zip(&mut self.publishers) {
            publisher.limit_inflight(client.receive_maximum);
        }
        self.heard_at = reactor.clock.nanoseconds();
        let load = Load::Closed {
            window: u64::MAX,
            batch: 1,
        };
        loop {
            let now = reactor.clock.nanoseconds();
            let mut is_over = true;
            for index in 0..self.publishers.len() {
                let (Some(publisher), Some(client)) =
                    (self.publishers.get_mut(index), reactor.client(index))
                else {
                    continue;
                };
                for _ in 0..publisher.room(load, publisher.acked, client) {
                    publisher.publish(now, &self.filler, &mut client.out);
                }
                is_over &= publisher.sent == publisher.quota && publisher.acked == publisher.sent;
            }
            if is_over {
                break;
            }
            if now.saturating_sub(self.heard_at) > self.plan.drain {
                return Err(Failure::new(
                    "the server no longer acknowledges messages (--drain)",
                ));
            }
            reactor.write()?;
            reactor.turn(TURN, self)?;
            phases.show(self.acked)?;
        }
        reactor.leave()?;
        Ok(())
    }

    /// Takes what comes until everything has, or nothing more does.
    fn drain(
        &mut self,
        reactor: &mut Reactor,
        phases: &mut Phases,
        messages: u64,
    ) -> Result<(), Failure> {
        while self.received.0 + self.faults.refused < messages {
            if reactor.clock.nanoseconds().saturating_sub(self.heard_at) > self.plan.drain {
                break;
            }
            reactor.turn(TURN, self)?;
            phases.show(self.received.0)?;
        }
        Ok(())
    }

    /// Asks each client's server to answer, which it does behind all that it had to say.
    fn say_that_all_is_acknowledged(&mut self, reactor: &mut Reactor) -> Result<(), Failure> {
        self.pingresps = 0;
        for index in 0..self.subscribers.len() {
            if let Some(client) = reactor.client(index) {
                // PINGREQ
                client.out.extend_from_slice(&[0xc0, 0]);
            }
        }
        reactor.write()?;
        self.heard_at = reactor.clock.nanoseconds();
        while self.pingresps < self.subscribers.len() {
            if reactor.clock.nanoseconds().saturating_sub(self.heard_at) > self.plan.drain {
                return Err(Failure::new(
                    "the server no longer answers PINGREQ (--drain)",
                ));
            }
            reactor.turn(TURN, self)?;
        }
        Ok(())
    }
}
