//! Retained messages: stored by some, fetched by others, and deleted.

use std::time::Duration;

use avocet_codec::{AckType, Delivery, Packet, Publish, QoS, TopicName};

use crate::bench::check::Faults;
use crate::bench::client::{OUT_MAX, reason};
use crate::bench::histogram::Histogram;
use crate::bench::open::{Pace, Server, Wanted, allow_files};
use crate::bench::phases::Phases;
use crate::bench::plan::{Names, nanoseconds};
use crate::bench::publisher::{Acked, Publisher, Stamp, filler};
use crate::bench::reactor::{Handler, Reactor};
use crate::bench_args::RetainedArgs;
use crate::clock::Stopwatch;
use crate::exit::Failure;

/// How long a turn may wait.
const TURN: Duration = Duration::from_millis(50);

/// QoS 0 messages of one publisher between two of which the server answers a PINGREQ.
const UNANSWERED_MAX: u64 = 1_000;

const AS_FAST_AS_POSSIBLE: Pace = Pace {
    interval: 0,
    index: 0,
};

/// The messages: which topics, how large, and at which QoS.
struct Messages {
    names: Names,
    qos: QoS,
    filler: Vec<u8>,
    publishers: u32,
}

impl Messages {
    /// The topic of the message with this number of a publisher: 256 branches of many leaves.
    fn topic(&self, publisher: u32, number: u64) -> String {
        let index = u64::from(self.publishers) * number + u64::from(publisher);
        let scattered = self.names.scatter(u32::try_from(index).unwrap_or(u32::MAX));
        format!("{}/{:02x}/{scattered:08x}", self.names.root(), index % 256)
    }
}

/// Clients that publish.
struct Store {
    messages: Messages,
    publishers: Vec<Stored>,
    /// Whether the messages are deleted.
    is_deleting: bool,
    faults: Faults,
    refused_with: Option<String>,
    acknowledged: Histogram,
    /// Messages that the server has got.
    done: u64,
    heard_at: u64,
}

struct Stored {
    publisher: Publisher,
    /// QoS 0 messages that the server has got, and those it will have when it answers.
    answered: u64,
    asked: u64,
}

impl Handler for Store {
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Failure> {
        self.heard_at = now;
        let Some(stored) = self.publishers.get_mut(client) else {
            return Ok(());
        };
        if matches!(packet, Packet::Pingresp) && self.messages.qos == QoS::AtMostOnce {
            self.done += stored.asked - stored.answered;
            stored.answered = stored.asked;
            return Ok(());
        }
        let acked = stored
            .publisher
            .on_packet(packet, out, &mut self.faults)
            .map_err(Failure::new)?;
        match acked {
            Acked::Nothing => return Ok(()),
            Acked::Done { due } => self.acknowledged.record(now.saturating_sub(due), 1),
            Acked::Refused(code) => self.refused_with = Some(reason(code)),
        }
        self.done += 1;
        Ok(())
    }
}

impl Store {
    /// Publishes all messages and waits until the server has them.
    fn run(
        &mut self,
        reactor: &mut Reactor,
        phases: &mut Phases,
        inflight: u16,
        silence: u64,
    ) -> Result<(), Failure> {
        self.heard_at = reactor.clock.nanoseconds();
        loop {
            let now = reactor.clock.nanoseconds();
            let mut is_over = true;
            for index in 0..self.publishers.len() {
                is_over &= self.fill(reactor, index, inflight, now)?;
            }
            if is_over {
                return Ok(());
            }
            if now.saturating_sub(self.heard_at) > silence {
                return Err(Failure::new(
                    "the server no longer answers publishers (--drain)",
                ));
            }
            reactor.write()?;
            reactor.turn(TURN, self)?;
            phases.show(self.done)?;
        }
    }

    /// Lets a publisher send what it may. Says whether the server has all its messages.
    fn fill(
        &mut self,
        reactor: &mut Reactor,
        index: usize,
        inflight: u16,
        now: u64,
    ) -> Result<bool, Failure> {
        let version = reactor.server.version;
        let messages = &self.messages;
        let (Some(stored), Some(client)) = (self.publishers.get_mut(index), reactor.client(index))
        else {
            return Ok(true);
        };
        let is_counted = messages.qos == QoS::AtMostOnce;
        let inflight = inflight.min(client.receive_maximum);
        let mut payload = Vec::new();
        while stored.publisher.sent < stored.publisher.quota && client.unwritten() < OUT_MAX {
            let publisher = &mut stored.publisher;
            let number = publisher.sent;
            let is_full = if is_counted {
                number - stored.answered >= UNANSWERED_MAX
            } else {
                number - publisher.acked >= inflight.into()
            };
            if is_full {
                break;
            }
            let topic = messages.topic(publisher.index, number);
            let topic_name = TopicName::new(&topic)
                .map_err(|error| Failure::new(format!("{topic}: {error}")))?;
            payload.clear();
            if !self.is_deleting {
                publisher.stamp(number, now).write(&mut payload);
                payload.extend_from_slice(&messages.filler);
            }
            let delivery = match (messages.qos, publisher.take(now)) {
                (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
                (QoS::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
                _ => Delivery::AtMostOnce,
            };
            let publish = Publish {
                retain: true,
                ..Publish::new(topic_name, delivery, &payload)
            };
            publish
                .encode(version, &mut client.out)
                .map_err(|error| Failure::new(format!("PUBLISH cannot be sent: {error}")))?;
        }
        let publisher = &stored.publisher;
        if is_counted && stored.asked == stored.answered && stored.asked < publisher.sent {
            stored.asked = publisher.sent;
            // PINGREQ
            client.out.extend_from_slice(&[0xc0, 0]);
        }
        let done = if is_counted {
            stored.answered
        } else {
            publisher.acked
        };
        Ok(done == publisher.quota)
    }

    /// Begins again from the first message.
    fn again(&mut self, quotas: impl Iterator<Item = (u32, u64)>, inflight: u16) {
        let qos = self.messages.qos;
        self.publishers = quotas
            .map(|(index, quota)| Stored {
                publisher: Publisher::bare(index, qos, inflight, quota),
                answered: 0,
                asked: 0,
            })
            .collect();
        self.done = 0;
    }
}

/// Clients that fetch.
struct Fetch {
    filler: Vec<u8>,
    publishers: u32,
    /// Which messages each has got: a bit each.
    seen: Vec<Vec<u64>>,
    faults: Faults,
    latency: Histogram,
    subscribed_at: u64,
    received: u64,
    heard_at: u64,
}

impl Handler for Fetch {
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Failure> {
        self.heard_at = now;
        if let Packet::Pubrel(ack) = packet {
            out.extend_from_slice(&AckType::Pubcomp.success(ack.packet_id));
        }
        if let Packet::Suback(suback) = packet
            && let Some(code) = suback.reason_codes.iter().find(|code| code.is_error())
        {
            return Err(Failure::new(format!(
                "subscriber {client}: the server answered the subscription with {}",
                reason(code)
            )));
        }
        let Packet::Publish(publish) = packet else {
            return Ok(());
        };
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => out.extend_from_slice(&AckType::Puback.success(id)),
            Delivery::ExactlyOnce(id) => out.extend_from_slice(&AckType::Pubrec.success(id)),
        }
        // A retained message that is fetched says that it is one [MQTT5-3.3.1-8].
        let stamp = Stamp::read(publish.payload, &self.filler).filter(|_| publish.retain);
        let place = stamp.map(|stamp| {
            let index = stamp.number * u64::from(self.publishers) + u64::from(stamp.publisher);
            (index / 64, index % 64)
        });
        let word = place.and_then(|(word, bit)| {
            let words = self.seen.get_mut(client)?;
            Some((words.get_mut(usize::try_from(word).ok()?)?, bit))
        });
        match word {
            None => self.faults.corrupt += 1,
            Some((word, bit)) if *word & 1 << bit != 0 => self.faults.duplicates += 1,
            Some((word, bit)) => {
                *word |= 1 << bit;
                self.received += 1;
                self.latency
                    .record(now.saturating_sub(self.subscribed_at), 1);
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
pub(crate) fn run(args: &RetainedArgs) -> Result<Phases, Failure> {
    let (publishers, subscribers) = (args.publishers.get(), args.subscribers.get());
    let server = Server::new(&args.run.server)?;
    allow_files(u64::from(publishers) + u64::from(subscribers))?;
    let (names, clock) = (Names::new(&args.run), Stopwatch::start());
    let maximum_qos = args.sub_qos.unwrap_or(args.qos);
    let settings = vec![
        ("messages", u64::from(args.messages)),
        ("publishers", u64::from(publishers)),
        ("subscribers", u64::from(subscribers)),
        ("payload_bytes", u64::from(args.message.payload)),
    ];
    let mut phases = Phases::new("retained", &server, names, settings, &args.run, clock)?;
    phases.qos = args.qos.min(maximum_qos) as u8;
    let done = load(args, server, names, clock, &mut phases);
    phases.finish(done)
}

fn load(
    args: &RetainedArgs,
    server: Server,
    names: Names,
    clock: Stopwatch,
    phases: &mut Phases,
) -> Result<(), Failure> {
    let (publishers, subscribers) = (args.publishers.get(), args.subscribers.get());
    let maximum_qos = args.sub_qos.unwrap_or(args.qos);
    let silence = nanoseconds(args.run.drain);
    let inflight = args.message.inflight.get();
    let payload = args.message.payload as usize;
    let version = server.version;
    let mut reactor = Reactor::new(server, clock, payload)?;
    let mut store = Store {
        messages: Messages {
            names,
            qos: args.qos,
            filler: filler(payload),
            publishers,
        },
        publishers: Vec::new(),
        is_deleting: false,
        faults: Faults::default(),
        refused_with: None,
        acknowledged: Histogram::default(),
        done: 0,
        heard_at: 0,
    };
    let quotas = || {
        (0..publishers).map(|index| {
            let quota = args.messages / publishers + u32::from(index < args.messages % publishers);
            (index, u64::from(quota))
        })
    };
    store.again(quotas(), inflight);
    let wanted = |role: char, name: &str, count: u32, maximum_qos| -> Vec<_> {
        (0..count)
            .map(|index| Wanted {
                maximum_qos,
                ..Wanted::new(format!("{name} {index}"), names.client_id(role, index))
            })
            .collect()
    };
    let mut times = Histogram::default();
    let clients = wanted('p', "publisher", publishers, args.qos);
    reactor.open(clients, AS_FAST_AS_POSSIBLE, &mut times, &mut store)?;
    phases.begin("stored", "messages")?;
    store.run(&mut reactor, phases, inflight, silence)?;
    let latency = std::mem::take(&mut store.acknowledged);
    phases.end(store.heard_at, store.done, latency)?;
    if let Some(code) = &store.refused_with {
        return Err(Failure::new(format!(
            "the server refused {} retained messages: {code}",
            store.faults.refused
        )));
    }
    reactor.leave()?;

    let mut fetch = Fetch {
        filler: filler(payload),
        publishers,
        seen: vec![
            vec![0; args.messages as usize / 64 + publishers as usize + 1];
            subscribers as usize
        ],
        faults: Faults::default(),
        latency: Histogram::default(),
        subscribed_at: 0,
        received: 0,
        heard_at: 0,
    };
    let clients = wanted('s', "subscriber", subscribers, maximum_qos);
    reactor.open(clients.clone(), AS_FAST_AS_POSSIBLE, &mut times, &mut fetch)?;
    phases.begin("fetched", "messages")?;
    fetch.subscribed_at = clock.nanoseconds();
    fetch.heard_at = fetch.subscribed_at;
    for (index, wanted) in clients.into_iter().enumerate() {
        let wanted = Wanted {
            filters: vec![format!("{}/#", names.root())],
            ..wanted
        };
        let packet = wanted.subscribe_packet(version)?;
        if let Some(client) = reactor.client(index) {
            client.out.extend_from_slice(&packet);
        }
    }
    reactor.write()?;
    let expected = u64::from(args.messages) * u64::from(subscribers);
    while fetch.received < expected && clock.nanoseconds().saturating_sub(fetch.heard_at) <= silence
    {
        reactor.turn(TURN, &mut fetch)?;
        phases.show(fetch.received)?;
    }
    let latency = std::mem::take(&mut fetch.latency);
    phases.end(fetch.heard_at, fetch.received, latency)?;
    reactor.stay(args.hold, args.messages.into(), &mut fetch, phases)?;
    reactor.leave()?;

    if !args.keep {
        store.is_deleting = true;
        store.again(quotas(), inflight);
        let clients = wanted('p', "publisher", publishers, args.qos);
        reactor.open(clients, AS_FAST_AS_POSSIBLE, &mut times, &mut store)?;
        phases.begin("deleted", "messages")?;
        store.run(&mut reactor, phases, inflight, silence)?;
        phases.end(store.heard_at, store.done, Histogram::default())?;
        reactor.leave()?;
    }
    phases.faults = store.faults;
    phases.faults += fetch.faults;
    phases.faults.lost += expected - fetch.received;
    Ok(())
}
