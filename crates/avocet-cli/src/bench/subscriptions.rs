//! Many subscriptions, and messages that match one or two of them.
//!
//! Topics and filters come in groups of four and five: two topics that one filter with a wildcard
//! matches both, two that none does, and a filter without wildcards for each. So a message has one
//! and a half subscribers in the mean, however many subscriptions there are.

use std::time::Duration;

use avocet_codec::{
    AckType, Delivery, List, Packet, PacketId, Publish, QoS, Subscribe, SubscribeFilter,
    SubscriptionOptions, TopicFilter, TopicName,
};

use crate::bench::check::Faults;
use crate::bench::client::{OUT_MAX, reason};
use crate::bench::gathering::{Gathering, UNACKNOWLEDGED};
use crate::bench::histogram::Histogram;
use crate::bench::open::{Pace, Server, Wanted, allow_files, encoded};
use crate::bench::phases::Phases;
use crate::bench::plan::{Names, nanoseconds};
use crate::bench::publisher::{Acked, Publisher, Stamp, filler};
use crate::bench::reactor::{Handler, Reactor};
use crate::bench_args::SubscriptionsArgs;
use crate::clock::Stopwatch;
use crate::exit::Failure;

/// How long a turn may wait.
const TURN: Duration = Duration::from_millis(50);

/// Filters of one SUBSCRIBE.
const FILTERS_MAX: u32 = 100;

/// Topics that are published to, drawn from all.
const TOPICS_MAX: u32 = 10_000;

/// Messages of one publisher in a turn.
const TURN_MESSAGES: u64 = 500;

/// Who subscribes to what.
#[derive(Clone, Copy)]
struct Groups {
    names: Names,
    count: u32,
    /// Clients with filters without wildcards, and clients with the others: so none has two
    /// filters that match one topic.
    exact: u32,
    wildcard: u32,
}

impl Groups {
    const TOPICS: u32 = 4;
    const FILTERS: u32 = 5;

    fn topics(self) -> u32 {
        self.count * Self::TOPICS
    }

    /// A level that says nothing about its group.
    fn level(self, group: u32, half: u32) -> String {
        let scattered = self.names.scatter(group * 2 + half);
        format!("{}/{:x}/{scattered:08x}", self.names.root(), group / 256)
    }

    fn topic(self, topic: u32) -> String {
        let (group, place) = (topic / Self::TOPICS, topic % Self::TOPICS);
        let level = self.level(group, place / 2);
        if place < 2 && group % 4 == 1 {
            format!("{level}/{}/value", place % 2)
        } else {
            format!("{level}/value/{}", place % 2)
        }
    }

    /// What matches the first two topics of a group.
    fn wildcard_filter(self, group: u32) -> String {
        let level = self.level(group, 0);
        match group % 4 {
            1 => format!("{level}/+/value"),
            3 => format!("{level}/#"),
            _ => format!("{level}/value/+"),
        }
    }

    /// All filters of a client.
    fn filters(self, client: u32) -> Vec<String> {
        let of = |all: u32, first: u32, step: u32| (first..all).step_by(step as usize);
        if client < self.exact {
            let topics = of(self.topics(), client, self.exact);
            topics.map(|topic| self.topic(topic)).collect()
        } else {
            let groups = of(self.count, client - self.exact, self.wildcard);
            groups.map(|group| self.wildcard_filter(group)).collect()
        }
    }

    /// The clients that get a message: the second because of a wildcard.
    fn hear(self, topic: u32) -> (u32, Option<u32>) {
        let (group, place) = (topic / Self::TOPICS, topic % Self::TOPICS);
        let wildcard = (place < 2).then(|| self.exact + group % self.wildcard);
        (topic % self.exact, wildcard)
    }
}

struct Load {
    groups: Groups,
    filler: Vec<u8>,
    publishers: Vec<Publisher>,
    /// Topics that are published to, with their numbers.
    topics: Vec<(u32, String)>,
    /// The filters that each client has not subscribed to yet.
    filters: Vec<Vec<String>>,
    subscribed: u64,
    maximum_qos: QoS,
    qos: QoS,
    /// Two bits for each message: whether either of those who get it has.
    seen: Vec<u8>,
    /// Deliveries that are due, and those that came.
    expected: u64,
    received: u64,
    /// So many of them are on their way at a time.
    window: u64,
    faults: Faults,
    latency: Histogram,
    heard_at: u64,
}

impl Load {
    /// Which of `topics` a message is published to.
    fn topic_of(&self, message: u64) -> usize {
        let scattered = self.groups.names.scatter(message as u32);
        scattered as usize % self.topics.len().max(1)
    }

    /// The next SUBSCRIBE of a client, if it has any more filters.
    fn subscribe(
        &mut self,
        client: usize,
        out: &mut Vec<u8>,
        reactor: &Server,
    ) -> Result<(), Failure> {
        let Some(filters) = self.filters.get_mut(client) else {
            return Ok(());
        };
        let rest = filters.len().saturating_sub(FILTERS_MAX as usize);
        let next = filters.split_off(rest);
        let entries: Vec<_> = next
            .iter()
            .filter_map(|filter| TopicFilter::new(filter).ok())
            .map(|topic_filter| SubscribeFilter {
                topic_filter,
                options: SubscriptionOptions::new(self.maximum_qos),
            })
            .collect();
        if let (Some(packet_id), false) = (PacketId::new(1), entries.is_empty()) {
            let packet = Packet::Subscribe(Subscribe {
                dup: false,
                packet_id,
                subscription_id: None,
                user_properties: List::EMPTY,
                filters: List::from_slice(&entries),
            });
            out.extend(encoded(&packet, reactor.version)?);
        }
        Ok(())
    }

    fn on_publish(&mut self, subscriber: u32, publish: &Publish<'_>, now: u64) {
        let stamp = Stamp::read(publish.payload, &self.filler);
        let publishers = self.publishers.len() as u64;
        let message = stamp.map(|stamp| stamp.number * publishers + u64::from(stamp.publisher));
        let bit = message.and_then(|message| {
            let (topic, _) = self.topics.get(self.topic_of(message))?;
            let (exact, wildcard) = self.groups.hear(*topic);
            let which = if subscriber == exact {
                0
            } else if Some(subscriber) == wildcard {
                1
            } else {
                return None;
            };
            let place = usize::try_from(message / 4).ok()?;
            Some((place, 1 << (message % 4 * 2 + which)))
        });
        match bit.and_then(|(place, bit)| Some((self.seen.get_mut(place)?, bit))) {
            None => self.faults.corrupt += 1,
            Some((seen, bit)) if *seen & bit != 0 => {
                self.faults.duplicates += 1;
                self.faults.duplicates_marked += u64::from(publish.dup);
            }
            Some((seen, bit)) => {
                *seen |= bit;
                self.received += 1;
                if let Some(stamp) = stamp {
                    self.latency.record(now.saturating_sub(stamp.due), 1);
                }
            }
        }
    }

    /// Lets a publisher send what it may.
    fn fill(&mut self, reactor: &mut Reactor, index: usize, now: u64) -> Result<(), Failure> {
        let version = reactor.server.version;
        let all = self.publishers.len() as u64;
        let mut payload = Vec::new();
        for _ in 0..TURN_MESSAGES {
            let on_their_way = self.expected.saturating_sub(self.received);
            let Some(publisher) = self.publishers.get_mut(index) else {
                return Ok(());
            };
            let Some(client) = reactor.client(index) else {
                return Ok(());
            };
            let room = publisher.room(
                crate::bench::plan::Load::Closed {
                    window: u64::MAX,
                    batch: 1,
                },
                publisher.sent,
                client,
            );
            if on_their_way >= self.window || room == 0 || client.unwritten() > OUT_MAX {
                return Ok(());
            }
            let number = publisher.sent;
            payload.clear();
            publisher.stamp(number, now).write(&mut payload);
            payload.extend_from_slice(&self.filler);
            let delivery = match (self.qos, publisher.take(now)) {
                (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
                (QoS::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
                _ => Delivery::AtMostOnce,
            };
            let message = number * all + index as u64;
            let Some((topic, name)) = self.topics.get(self.topic_of(message)) else {
                return Ok(());
            };
            let (_, wildcard) = self.groups.hear(*topic);
            self.expected += 1 + u64::from(wildcard.is_some());
            let topic_name =
                TopicName::new(name).map_err(|error| Failure::new(format!("{name}: {error}")))?;
            Publish::new(topic_name, delivery, &payload)
                .encode(version, &mut client.out)
                .map_err(|error| Failure::new(format!("PUBLISH cannot be sent: {error}")))?;
        }
        Ok(())
    }
}

/// A load, and the server that its packets are for.
struct Clients<'a> {
    load: &'a mut Load,
    server: Server,
}

impl Handler for Clients<'_> {
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Failure> {
        let load = &mut *self.load;
        load.heard_at = now;
        if let Some(publisher) = load.publishers.get_mut(client) {
            let acked = publisher
                .on_packet(packet, out, &mut load.faults)
                .map_err(Failure::new)?;
            if let Acked::Refused(code) = acked {
                return Err(Failure::new(format!(
                    "the server refused a message: {}",
                    reason(code)
                )));
            }
            return Ok(());
        }
        let subscriber = client - load.publishers.len();
        if let Packet::Suback(suback) = packet {
            for code in suback.reason_codes {
                if code as u8 != load.maximum_qos as u8 {
                    return Err(Failure::new(format!(
                        "subscriber {subscriber}: the server answered a subscription with {}",
                        reason(code)
                    )));
                }
                load.subscribed += 1;
            }
            load.subscribe(subscriber, out, &self.server)?;
        }
        if let Packet::Pubrel(ack) = packet {
            out.extend_from_slice(&AckType::Pubcomp.success(ack.packet_id));
        }
        if let Packet::Publish(publish) = packet {
            match publish.delivery {
                Delivery::AtMostOnce => {}
                Delivery::AtLeastOnce(id) => out.extend_from_slice(&AckType::Puback.success(id)),
                Delivery::ExactlyOnce(id) => out.extend_from_slice(&AckType::Pubrec.success(id)),
            }
            load.on_publish(subscriber as u32, publish, now);
        }
        Ok(())
    }
}

/// Runs the workload.
///
/// # Errors
///
/// What kept it from running to its end.
pub(crate) fn run(args: &SubscriptionsArgs) -> Result<Phases, Failure> {
    let (clients, publishers) = (args.clients, args.publishers.get());
    let server = Server::new(&args.run.server)?;
    allow_files(u64::from(clients) + u64::from(publishers))?;
    let (names, clock) = (Names::new(&args.run), Stopwatch::start());
    let wildcard = (clients / 5).max(1);
    let groups = Groups {
        names,
        count: args.subscriptions.div_ceil(Groups::FILTERS),
        exact: clients - wildcard,
        wildcard,
    };
    let subscriptions = u64::from(groups.count * Groups::FILTERS);
    let messages = u64::from(args.messages);
    let settings = vec![
        ("subscriptions", subscriptions),
        ("clients", clients.into()),
        ("messages", messages),
        ("publishers", publishers.into()),
        ("window", args.window.get().into()),
        ("payload_bytes", args.message.payload.into()),
    ];
    let mut phases = Phases::new("subscriptions", &server, names, settings, &args.run, clock)?;
    phases.qos = args.qos as u8;
    let done = load(args, groups, server, clock, &mut phases);
    phases.finish(done)
}

fn load(
    args: &SubscriptionsArgs,
    groups: Groups,
    server: Server,
    clock: Stopwatch,
    phases: &mut Phases,
) -> Result<(), Failure> {
    let (clients, publishers) = (args.clients, args.publishers.get());
    let names = groups.names;
    let subscriptions = u64::from(groups.count * Groups::FILTERS);
    let messages = u64::from(args.messages);
    let silence = nanoseconds(args.run.drain);
    let payload = args.message.payload as usize;
    let topics = groups.topics();
    let inflight = args.message.inflight.get();
    let mut load = Load {
        groups,
        filler: filler(payload),
        publishers: (0..publishers)
            .map(|index| {
                let more = u32::from(index < args.messages % publishers);
                let quota = args.messages / publishers + more;
                Publisher::bare(index, args.qos, inflight, quota.into())
            })
            .collect(),
        // At random: topics in equal steps would be heard by a few clients only.
        topics: (0..topics.min(TOPICS_MAX))
            .map(|index| names.scatter(index) % topics)
            .map(|topic| (topic, groups.topic(topic)))
            .collect(),
        filters: (0..clients).map(|client| groups.filters(client)).collect(),
        subscribed: 0,
        maximum_qos: args.qos,
        qos: args.qos,
        seen: vec![0; args.messages as usize / 4 + publishers as usize + 1],
        expected: 0,
        received: 0,
        window: args.window.get().into(),
        faults: Faults::default(),
        latency: Histogram::default(),
        heard_at: 0,
    };
    let mut reactor = Reactor::new(server.clone(), clock, payload)?;
    let wanted = |role: char, name: &str, count: u32| -> Vec<_> {
        (0..count)
            .map(|index| Wanted {
                maximum_qos: args.qos,
                ..Wanted::new(format!("{name} {index}"), names.client_id(role, index))
            })
            .collect()
    };
    let mut all = wanted('p', "publisher", publishers);
    all.extend(wanted('s', "subscriber", clients));
    let pace = Pace {
        interval: 0,
        index: 0,
    };
    let mut handler = Clients {
        load: &mut load,
        server,
    };
    reactor.open(all, pace, &mut Histogram::default(), &mut handler)?;
    for (client, publisher) in reactor.clients.iter().zip(&mut handler.load.publishers) {
        publisher.limit_inflight(client.receive_maximum);
    }

    phases.begin("subscribed", "subscriptions")?;
    for index in 0..clients as usize {
        let place = publishers as usize + index;
        if let Some(client) = reactor.client(place) {
            handler
                .load
                .subscribe(index, &mut client.out, &handler.server)?;
        }
    }
    reactor.write()?;
    handler.load.heard_at = clock.nanoseconds();
    while handler.load.subscribed < subscriptions {
        if clock.nanoseconds().saturating_sub(handler.load.heard_at) > silence {
            return Err(Failure::new(
                "the server no longer answers SUBSCRIBE (--drain)",
            ));
        }
        reactor.turn(TURN, &mut handler)?;
        phases.show(handler.load.subscribed)?;
    }
    let subscribed = handler.load.subscribed;
    phases.end(handler.load.heard_at, subscribed, Histogram::default())?;

    phases.begin("matched", "messages")?;
    handler.load.heard_at = clock.nanoseconds();
    let mut gathering = Gathering::default();
    let work = match args.qos {
        QoS::AtMostOnce => u64::MAX,
        QoS::AtLeastOnce | QoS::ExactlyOnce => u64::from(clients) * UNACKNOWLEDGED,
    };
    loop {
        let now = clock.nanoseconds();
        for index in 0..publishers as usize {
            handler.load.fill(&mut reactor, index, now)?;
        }
        let load = &*handler.load;
        let sent: u64 = load.publishers.iter().map(|publisher| publisher.sent).sum();
        let is_over = sent == messages
            && load.received >= load.expected
            && (load.qos == QoS::AtMostOnce
                || load
                    .publishers
                    .iter()
                    .all(|publisher| publisher.acked == publisher.sent));
        if is_over || now.saturating_sub(load.heard_at) > silence {
            break;
        }
        let (expected, received) = (load.expected, load.received);
        reactor.write()?;
        gathering.wait(clock.nanoseconds(), expected, received, work);
        reactor.turn(TURN, &mut handler)?;
        phases.show(sent)?;
    }
    let load = &mut *handler.load;
    let sent = load.publishers.iter().map(|publisher| publisher.sent).sum();
    phases.end(load.heard_at, sent, std::mem::take(&mut load.latency))?;
    reactor.stay(args.hold, subscriptions, &mut handler, phases)?;
    reactor.leave()?;
    let load = handler.load;
    load.faults.lost = load.expected.saturating_sub(load.received);
    phases.faults = load.faults;
    phases.note("deliveries", load.received);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use avocet_topic::matches;

    /// Each filter against each topic.
    #[test]
    fn a_topic_is_heard_by_those_whose_filters_match() {
        let groups = Groups {
            names: Names { seed: 77 },
            count: 9,
            exact: 4,
            wildcard: 2,
        };
        let filters: Vec<_> = (0..6).map(|client| groups.filters(client)).collect();
        assert_eq!(filters.iter().map(Vec::len).sum::<usize>(), 45);
        for topic in 0..groups.topics() {
            let name = groups.topic(topic);
            let name = TopicName::new(&name).unwrap();
            let is_match = |filter: &&String| matches(TopicFilter::new(filter).unwrap(), name);
            let found: Vec<_> = (0..)
                .zip(&filters)
                .map(|(client, filters)| (client, filters.iter().filter(is_match).count()))
                .filter(|(_, count)| *count > 0)
                .collect();
            let (exact, wildcard) = groups.hear(topic);
            let expected: Vec<_> = [Some(exact), wildcard].into_iter().flatten().collect();
            assert_eq!(
                found,
                expected.into_iter().map(|c| (c, 1)).collect::<Vec<_>>()
            );
        }
    }
}
