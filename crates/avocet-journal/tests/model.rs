//! The journal against a model that keeps values as they are, over every store there is.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;

use avocet_codec::{PacketId, QoS, SubscriptionId, SubscriptionOptions};
use avocet_engine::{
    Fetched, GroupName, GroupPlace, MessageId, Part, Record, Restored, RetainedPlace, SessionKey,
    ShardId, Tenant,
};
use avocet_journal::Journal;
use avocet_session::{FetchFrom, Message, UnixTime};
use avocet_store::{LogOptions, LogStore, MemoryStore, SimVfs, Store};
use avocet_topic::{TopicFilterBuf, TopicName};
use proptest::prelude::*;

const SESSIONS: [&str; 3] = ["a", "b", "long-client-identifier"];
const FILTERS: [&str; 3] = ["x/#", "+/y", "$share/g/x/+"];
/// Of those without a tenant, and of a tenant.
const TENANTS: [&str; 2] = ["", "tenant"];
const TOPICS: [&str; 3] = ["x/1", "x/y", "z"];

fn session(at: u8) -> Arc<SessionKey> {
    let tenant = TENANTS[usize::from(at % 3 == 2)];
    Arc::new(SessionKey::new(tenant, SESSIONS[usize::from(at) % 3]))
}

fn filter(names: &[&str], at: u8) -> TopicFilterBuf {
    TopicFilterBuf::new(names[usize::from(at) % names.len()]).unwrap()
}

fn tenant(at: u8) -> Tenant {
    Tenant::new(TENANTS[usize::from(at) % 2]).unwrap_or_default()
}

fn group(at: u8) -> GroupName {
    GroupName::new(tenant(at), TopicFilterBuf::new("$share/g/x/+").unwrap())
}

fn tenant_of(publisher: Option<&Arc<SessionKey>>) -> Tenant {
    let tenant = publisher.map_or("", |publisher| publisher.tenant());
    Tenant::new(tenant).unwrap_or_default()
}

fn message(id: u64) -> Message {
    let topic = TopicName::new(TOPICS[id as usize % 3]).unwrap();
    let payload = vec![id as u8; (id % 40) as usize];
    let message = Message::new(topic, &payload).with_qos(QoS::from_u8((id % 3) as u8).unwrap());
    let expires_at = id
        .is_multiple_of(4)
        .then_some(UnixTime::from_millis(id * 1_000));
    message
        .with_retain(id.is_multiple_of(5))
        .with_expires_at(expires_at)
}

fn publisher(id: u64) -> Option<Arc<SessionKey>> {
    (!id.is_multiple_of(3)).then(|| session(id as u8))
}

#[derive(Clone, Debug, PartialEq)]
struct Queued {
    id: u64,
    qos: QoS,
    retain: bool,
    ids: Vec<SubscriptionId>,
    group: Option<GroupPlace>,
    pubrec: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct SessionModel {
    put: (u32, Option<UnixTime>, u64, u32),
    subscriptions: BTreeMap<TopicFilterBuf, (SubscriptionOptions, Option<SubscriptionId>)>,
    awaited: BTreeMap<TopicFilterBuf, Vec<RetainedPlace>>,
    received: BTreeSet<u16>,
    queue: BTreeMap<u64, Queued>,
    next: u64,
}

type Groups = BTreeMap<GroupName, BTreeMap<u64, (u64, Option<Arc<SessionKey>>)>>;

type Will = (Message, Option<u32>, u32, Option<UnixTime>);

type Retained = (Message, Option<Arc<SessionKey>>);

/// What everything recorded comes to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    time: Option<UnixTime>,
    sessions: BTreeMap<Arc<SessionKey>, SessionModel>,
    groups: Groups,
    unrouted: BTreeMap<u64, (Option<Arc<SessionKey>>, BTreeSet<Part>)>,
    retained: BTreeMap<(Tenant, String), Retained>,
    wills: BTreeMap<Arc<SessionKey>, Will>,
}

impl Model {
    fn finish(&mut self, key: &Arc<SessionKey>, sequence: u64, in_group: bool) {
        let queued = self
            .sessions
            .get_mut(key)
            .and_then(|known| known.queue.remove(&sequence));
        if let Some(place) = queued.and_then(|queued| queued.group)
            && in_group
            && let Some(group) = self.groups.get_mut(&place.group)
        {
            group.remove(&place.sequence);
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::SessionPut {
                session,
                expiry_interval,
                expires_at,
                sent,
                window,
            } => {
                let known = self.sessions.entry(session).or_default();
                known.put = (expiry_interval, expires_at, sent, window);
            }
            Record::SessionDeleted { session } => {
                let sequences: Vec<u64> = self
                    .sessions
                    .get(&session)
                    .into_iter()
                    .flat_map(|known| known.queue.keys().copied())
                    .collect();
                for sequence in sequences {
                    self.finish(&session, sequence, true);
                }
                self.sessions.remove(&session);
            }
            Record::SubscriptionPut {
                session,
                filter,
                options,
                subscription_id,
            } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known
                        .subscriptions
                        .insert(filter, (options, subscription_id));
                }
            }
            Record::SubscriptionDeleted { session, filter } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.subscriptions.remove(&filter);
                    known.awaited.remove(&filter);
                }
            }
            Record::RetainedAwaited {
                session,
                filter,
                queued,
            } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.awaited.insert(filter, queued);
                }
            }
            Record::RetainedQueued { session, filter } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.awaited.remove(&filter);
                }
            }
            Record::MessageStored { .. } => {}
            Record::MessageAccepted { id, publisher } => {
                self.unrouted.insert(id.get(), (publisher, BTreeSet::new()));
            }
            Record::MessageArrived { id, part, unwanted } => {
                if let Some((_, arrived)) = self.unrouted.get_mut(&id.get()) {
                    let reached = iter::once(part.shard).chain(unwanted);
                    arrived.extend(reached.map(|shard| Part { shard, ..part }));
                }
            }
            Record::MessageRouted { id } => {
                self.unrouted.remove(&id.get());
            }
            Record::Enqueued {
                session,
                sequence,
                id,
                qos,
                retain,
                subscription_ids,
                group,
            } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    let queued = Queued {
                        id: id.get(),
                        qos,
                        retain,
                        ids: subscription_ids,
                        group: group.map(|place| *place),
                        pubrec: false,
                    };
                    known.queue.insert(sequence, queued);
                    known.next = sequence + 1;
                }
            }
            Record::Finished { session, sequence } => self.finish(&session, sequence, true),
            Record::Returned { session, sequence } => self.finish(&session, sequence, false),
            Record::PubrecReceived { session, sequence } => {
                if let Some(known) = self.sessions.get_mut(&session)
                    && let Some(queued) = known.queue.get_mut(&sequence)
                {
                    queued.pubrec = true;
                }
            }
            Record::GroupEnqueued {
                place,
                id,
                publisher,
            } => {
                let group = self.groups.entry(place.group).or_default();
                group.insert(place.sequence, (id.get(), publisher));
            }
            Record::GroupFinished { place } => {
                if let Some(group) = self.groups.get_mut(&place.group) {
                    group.remove(&place.sequence);
                }
            }
            Record::GroupDeleted { group } => {
                self.groups.remove(&group);
                for known in self.sessions.values_mut() {
                    for queued in known.queue.values_mut() {
                        if queued
                            .group
                            .as_ref()
                            .is_some_and(|place| place.group == group)
                        {
                            queued.group = None;
                        }
                    }
                }
            }
            Record::PublishReceived { session, packet_id } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.received.insert(packet_id.get());
                }
            }
            Record::PublishReleased { session, packet_id } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.received.remove(&packet_id.get());
                }
            }
            Record::RetainedPut { message, publisher } => {
                let topic = message.topic_name().as_str().to_owned();
                let tenant = tenant_of(publisher.as_ref());
                self.retained.insert((tenant, topic), (message, publisher));
            }
            Record::RetainedDeleted { tenant, topic_name } => {
                self.retained
                    .remove(&(tenant, topic_name.as_str().to_owned()));
            }
            Record::WillPut {
                session,
                message,
                message_expiry_interval,
                delay_interval,
                publish_at,
            } => {
                let will = (message, message_expiry_interval, delay_interval, publish_at);
                self.wills.insert(session, will);
            }
            Record::WillDeleted { session } => {
                self.wills.remove(&session);
            }
            Record::Time { at } => self.time = Some(at),
            other => panic!("the model does not know {other:?}"),
        }
    }
}

/// One step of an engine, with small numbers for what it is about.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Subscribe(u8, u8, u8),
    Unsubscribe(u8, u8),
    Await(u8, u8, u8),
    Queued(u8, u8),
    /// A new message for these sessions, groups, and maybe other shards.
    Publish(u8, u8, bool),
    /// One that is on its way, or of a group, for a session.
    Deliver(u8, u8),
    Arrive(u8, u8, Option<u8>),
    Route(u8),
    Finish(u8, u8),
    FinishMany(u8, u8),
    Return(u8, u8),
    Pubrec(u8, u8),
    GroupFinish(u8, u8),
    GroupDelete(u8),
    Receive(u8, u8),
    Release(u8, u8),
    Retain(u8),
    Clear(u8),
    Will(u8, u8),
    WillOver(u8),
    Time(u8),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        4 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Put(s, x)),
        1 => (0..3u8).prop_map(Delete),
        2 => (0..3u8, 0..3u8, any::<u8>()).prop_map(|(s, f, x)| Subscribe(s, f, x)),
        1 => (0..3u8, 0..3u8).prop_map(|(s, f)| Unsubscribe(s, f)),
        2 => (0..3u8, 0..3u8, any::<u8>()).prop_map(|(s, f, x)| Await(s, f, x)),
        1 => (0..3u8, 0..3u8).prop_map(|(s, f)| Queued(s, f)),
        20 => (0..8u8, 0..4u8, any::<bool>()).prop_map(|(s, g, other)| Publish(s, g, other)),
        6 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Deliver(s, x)),
        2 => (any::<u8>(), 0..3u8, proptest::option::of(0..3u8)).prop_map(|(x, p, q)| Arrive(x, p, q)),
        3 => any::<u8>().prop_map(Route),
        10 => (0..3u8, 0..4u8).prop_map(|(s, x)| Finish(s, x)),
        3 => (0..3u8, any::<u8>()).prop_map(|(s, x)| FinishMany(s, x)),
        2 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Return(s, x)),
        3 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Pubrec(s, x)),
        2 => (0..2u8, any::<u8>()).prop_map(|(g, x)| GroupFinish(g, x)),
        1 => (0..2u8).prop_map(GroupDelete),
        2 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Receive(s, x)),
        2 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Release(s, x)),
        2 => any::<u8>().prop_map(Retain),
        1 => (0..6u8).prop_map(Clear),
        1 => (0..3u8, any::<u8>()).prop_map(|(s, x)| Will(s, x)),
        1 => (0..3u8).prop_map(WillOver),
        1 => any::<u8>().prop_map(Time),
    ]
}

/// Turns steps into the records of one commit, as far as they make sense.
struct Recorder {
    model: Model,
    next_message: u64,
    next_place: u64,
    records: Vec<Record>,
}

impl Recorder {
    fn record(&mut self, record: Record) {
        self.model.apply(record.clone());
        self.records.push(record);
    }

    fn pick<T: Clone>(all: impl Iterator<Item = T>, at: u8) -> Option<T> {
        let all: Vec<T> = all.collect();
        all.get(usize::from(at) % all.len().max(1)).cloned()
    }

    fn queued(&self, of: u8, at: u8) -> Option<u64> {
        let known = self.model.sessions.get(&session(of))?;
        Self::pick(known.queue.keys().copied(), at)
    }

    fn enqueue(&mut self, to: u8, id: u64, group: Option<GroupPlace>) {
        let key = session(to);
        let Some(known) = self.model.sessions.get(&key) else {
            return;
        };
        let ids = [3, 268_435_455, 200].into_iter().take((id % 4) as usize);
        self.record(Record::Enqueued {
            session: key,
            sequence: known.next,
            id: MessageId::new(id),
            qos: QoS::from_u8(1 + (id % 2) as u8).unwrap(),
            retain: id.is_multiple_of(7),
            subscription_ids: ids.filter_map(SubscriptionId::new).collect(),
            group: group.map(Box::new),
        });
    }

    fn publish(&mut self, sessions: u8, groups: u8, other: bool) {
        self.next_message += 1;
        let id = (u64::from(sessions) % 2) << 48 | self.next_message;
        let of_groups = (0..2).filter(|at| groups & 1 << at != 0);
        let of_sessions = (0..3).filter(|at| {
            sessions & 1 << at != 0 && self.model.sessions.contains_key(&session(*at))
        });
        let (of_groups, of_sessions): (Vec<u8>, Vec<u8>) =
            (of_groups.collect(), of_sessions.collect());
        if of_groups.is_empty() && of_sessions.is_empty() && !other {
            return;
        }
        self.record(Record::MessageStored {
            id: MessageId::new(id),
            message: message(id),
        });
        for to in of_sessions {
            self.enqueue(to, id, None);
        }
        for at in of_groups {
            self.next_place += 2;
            self.record(Record::GroupEnqueued {
                place: GroupPlace {
                    group: group(at),
                    sequence: self.next_place,
                },
                id: MessageId::new(id),
                publisher: publisher(id),
            });
        }
        if other {
            self.record(Record::MessageAccepted {
                id: MessageId::new(id),
                publisher: publisher(id),
            });
        }
    }

    fn deliver(&mut self, to: u8, at: u8) {
        let taken: Vec<GroupPlace> = self
            .model
            .sessions
            .values()
            .flat_map(|known| known.queue.values())
            .filter_map(|queued| queued.group.clone())
            .collect();
        let places = self.model.groups.iter().flat_map(|(group, messages)| {
            messages.iter().map(|(sequence, (id, _))| {
                let place = GroupPlace {
                    group: group.clone(),
                    sequence: *sequence,
                };
                (*id, Some(place))
            })
        });
        let free = places.filter(|(_, place)| place.as_ref().is_none_or(|p| !taken.contains(p)));
        let unrouted = self.model.unrouted.keys().map(|id| (*id, None));
        if let Some((id, place)) = Self::pick(free.chain(unrouted), at) {
            self.enqueue(to, id, place);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(of, x) => self.record(Record::SessionPut {
                session: session(of),
                expiry_interval: u32::from(x) << (x % 24),
                expires_at: (x % 2 == 0).then_some(UnixTime::from_millis(u64::from(x) << 34)),
                sent: u64::from(x),
                window: u32::from(x % 3),
            }),
            Step::Delete(of) => self.record(Record::SessionDeleted {
                session: session(of),
            }),
            Step::Subscribe(of, at, x) => {
                let mut options = SubscriptionOptions::new(QoS::from_u8(x % 3).unwrap());
                options.no_local = x & 4 != 0;
                options.retain_as_published = x & 8 != 0;
                self.record(Record::SubscriptionPut {
                    session: session(of),
                    filter: filter(&FILTERS, at),
                    options,
                    subscription_id: SubscriptionId::new(u32::from(x) * 1_000),
                });
            }
            Step::Unsubscribe(of, at) => self.record(Record::SubscriptionDeleted {
                session: session(of),
                filter: filter(&FILTERS, at),
            }),
            Step::Await(of, at, x) => {
                let place = |x: u8| RetainedPlace {
                    part: Part {
                        shard: ShardId::new(x.into()),
                        shards: u16::from(x) + 300,
                    },
                    topic_name: TopicName::new(TOPICS[usize::from(x) % 3]).unwrap().to_buf(),
                };
                self.record(Record::RetainedAwaited {
                    session: session(of),
                    filter: filter(&FILTERS, at),
                    queued: (x..x.saturating_add(x % 3)).map(place).collect(),
                });
            }
            Step::Queued(of, at) => self.record(Record::RetainedQueued {
                session: session(of),
                filter: filter(&FILTERS, at),
            }),
            Step::Publish(sessions, groups, other) => self.publish(sessions, groups, other),
            Step::Deliver(to, at) => self.deliver(to, at),
            Step::Arrive(at, shard, not_for) => {
                if let Some(id) = Self::pick(self.model.unrouted.keys().copied(), at) {
                    self.record(Record::MessageArrived {
                        id: MessageId::new(id),
                        part: Part {
                            shard: ShardId::new(shard.into()),
                            shards: 3,
                        },
                        unwanted: not_for
                            .map(|it| ShardId::new(it.into()))
                            .into_iter()
                            .collect(),
                    });
                }
            }
            Step::Route(at) => {
                if let Some(id) = Self::pick(self.model.unrouted.keys().copied(), at) {
                    self.record(Record::MessageRouted {
                        id: MessageId::new(id),
                    });
                }
            }
            Step::Finish(of, at) => {
                if let Some(sequence) = self.queued(of, at) {
                    let session = session(of);
                    self.record(Record::Finished { session, sequence });
                }
            }
            // All but a few at the front, as when a queue drops its oldest.
            Step::FinishMany(of, keep) => {
                let Some(known) = self.model.sessions.get(&session(of)) else {
                    return;
                };
                let sequences: Vec<u64> = known.queue.keys().copied().collect();
                for sequence in sequences.into_iter().skip(usize::from(keep % 4)) {
                    let session = session(of);
                    self.record(Record::Finished { session, sequence });
                }
            }
            Step::Return(of, at) => {
                if let Some(sequence) = self.queued(of, at) {
                    let session = session(of);
                    self.record(Record::Returned { session, sequence });
                }
            }
            Step::Pubrec(of, at) => {
                if let Some(sequence) = self.queued(of, at) {
                    let session = session(of);
                    self.record(Record::PubrecReceived { session, sequence });
                }
            }
            Step::GroupFinish(at, x) => {
                let group = group(at);
                let messages = self.model.groups.get(&group);
                let places = messages.into_iter().flat_map(|group| group.keys().copied());
                if let Some(sequence) = Self::pick(places, x) {
                    let place = GroupPlace { group, sequence };
                    self.record(Record::GroupFinished { place });
                }
            }
            Step::GroupDelete(at) => self.record(Record::GroupDeleted { group: group(at) }),
            Step::Receive(of, x) => self.record(Record::PublishReceived {
                session: session(of),
                packet_id: PacketId::new(u16::from(x) * 256 + 1).unwrap(),
            }),
            Step::Release(of, x) => {
                let known = self.model.sessions.get(&session(of));
                let received = known.into_iter().flat_map(|known| known.received.iter());
                if let Some(id) = Self::pick(received.copied(), x) {
                    self.record(Record::PublishReleased {
                        session: session(of),
                        packet_id: PacketId::new(id).unwrap(),
                    });
                }
            }
            Step::Retain(x) => self.record(Record::RetainedPut {
                message: message(x.into()),
                publisher: publisher(x.into()),
            }),
            Step::Clear(at) => self.record(Record::RetainedDeleted {
                tenant: tenant(at / 3),
                topic_name: TopicName::new(TOPICS[usize::from(at % 3)])
                    .unwrap()
                    .to_buf(),
            }),
            Step::Will(of, x) => self.record(Record::WillPut {
                session: session(of),
                message: message(x.into()),
                message_expiry_interval: (x % 2 == 0).then_some(x.into()),
                delay_interval: u32::from(x) * 3,
                publish_at: (x % 3 == 0).then_some(UnixTime::from_millis(u64::from(x) << 32)),
            }),
            Step::WillOver(of) => self.record(Record::WillDeleted {
                session: session(of),
            }),
            Step::Time(x) => self.record(Record::Time {
                at: UnixTime::from_millis(u64::from(x) << 33),
            }),
        }
    }
}

/// What a journal gives back, as the model has it.
fn recovered<S: Store>(journal: &Journal<S>) -> (Model, u64) {
    let mut model = Model::default();
    let mut bytes = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    let mut of_group = Vec::new();
    let mut count = 0;
    let mut unrouted = None;
    journal
        .recover(|restored| match restored {
            Restored::Time { at } => model.time = Some(at),
            Restored::MessageCount { count: last } => count = last,
            Restored::Session {
                session,
                expiry_interval,
                expires_at,
                sent,
                window,
                queue,
                queued_bytes,
            } => {
                let known = SessionModel {
                    put: (expiry_interval, expires_at, sent, window),
                    next: queue.end,
                    ..SessionModel::default()
                };
                firsts.insert(Arc::clone(&session), queue.start);
                bytes.insert(Arc::clone(&session), queued_bytes);
                assert!(model.sessions.insert(session, known).is_none());
            }
            Restored::Subscription {
                session,
                filter,
                options,
                subscription_id,
            } => {
                let known = model.sessions.get_mut(&session).unwrap();
                known
                    .subscriptions
                    .insert(filter, (options, subscription_id));
            }
            Restored::RetainedAwaited {
                session,
                filter,
                queued,
            } => {
                let known = model.sessions.get_mut(&session).unwrap();
                known.awaited.insert(filter, queued);
            }
            Restored::PublishReceived { session, packet_id } => {
                let known = model.sessions.get_mut(&session).unwrap();
                known.received.insert(packet_id.get());
            }
            Restored::OfGroup {
                session,
                sequence,
                id,
                qos,
                place,
            } => of_group.push((session, sequence, id, qos, place)),
            Restored::Will {
                session,
                message,
                message_expiry_interval,
                delay_interval,
                publish_at,
            } => {
                let will = (message, message_expiry_interval, delay_interval, publish_at);
                model.wills.insert(session, will);
            }
            Restored::GroupMessage {
                place,
                id,
                message: found,
                publisher,
            } => {
                assert_eq!(found, message(id.get()));
                let group = model.groups.entry(place.group).or_default();
                let last = group.last_key_value().map(|(sequence, _)| *sequence);
                assert!(last < Some(place.sequence));
                group.insert(place.sequence, (id.get(), publisher));
            }
            Restored::Retained { message, publisher } => {
                let topic = message.topic_name().as_str().to_owned();
                let tenant = tenant_of(publisher.as_ref());
                model.retained.insert((tenant, topic), (message, publisher));
            }
            Restored::Unrouted {
                id,
                message: found,
                publisher,
                arrived,
            } => {
                assert_eq!(found, message(id.get()));
                assert!(unrouted < Some(id.count()));
                unrouted = Some(id.count());
                let arrived = arrived.into_iter().collect();
                model.unrouted.insert(id.get(), (publisher, arrived));
            }
            other => panic!("the model does not know {other:?}"),
        })
        .unwrap();
    let keys: Vec<_> = model.sessions.keys().cloned().collect();
    for key in keys {
        let known = model.sessions.get_mut(&key).unwrap();
        let fetched = fetch_all(journal, &key, firsts[&key]);
        let all: u64 = fetched
            .iter()
            .map(|f| f.message.as_ref().unwrap().len() as u64)
            .sum();
        assert_eq!(bytes[&key], all, "bytes in the queue of {key}");
        for fetched in fetched {
            assert_eq!(fetched.message, Some(message(fetched.id.get())));
            let queued = Queued {
                id: fetched.id.get(),
                qos: fetched.qos,
                retain: fetched.retain,
                ids: fetched.subscription_ids,
                group: None,
                pubrec: fetched.pubrec_received,
            };
            known.queue.insert(fetched.sequence, queued);
        }
    }
    for (session, sequence, id, qos, place) in of_group {
        let known = model.sessions.get_mut(&session).unwrap();
        let queued = known.queue.get_mut(&sequence).unwrap();
        assert_eq!((queued.id, queued.qos), (id.get(), qos));
        queued.group = Some(place);
    }
    (model, count)
}

fn fetch_all<S: Store>(journal: &Journal<S>, key: &SessionKey, first: u64) -> Vec<Fetched> {
    let mut all: Vec<Fetched> = Vec::new();
    let mut sequence = first;
    loop {
        let from = FetchFrom {
            sequence,
            max_messages: 3,
            max_bytes: 50,
        };
        let (next, page) = journal.fetch(key, from).unwrap();
        let last = page.last().map(|fetched| fetched.sequence);
        assert!(page.len() <= 3 && last.is_none_or(|last| last < next));
        let done = page.is_empty();
        all.extend(page);
        if done {
            return all;
        }
        sequence = next;
    }
}

/// Runs batches of steps; after each one that says so the store is opened again.
fn run<S: Store>(store: S, batches: &[(Vec<Step>, bool)], mut reopen: impl FnMut(S) -> S) {
    let mut recorder = Recorder {
        model: Model::default(),
        next_message: 0,
        next_place: 0,
        records: Vec::new(),
    };
    let mut journal = Journal::open(store).unwrap();
    for (steps, again) in batches {
        for step in steps {
            recorder.step(*step);
        }
        journal
            .apply(&std::mem::take(&mut recorder.records))
            .unwrap();
        journal.sync().unwrap();
        if *again {
            journal = Journal::open(reopen(journal.into_store())).unwrap();
        }
        let (mut model, count) = recovered(&journal);
        assert!(count >= recorder.next_message || count == 0);
        // A session of an empty queue does not say how long it was, a group without messages not
        // that it is there.
        model.groups.retain(|_, messages| !messages.is_empty());
        let mut expected = recorder.model.clone();
        expected.groups.retain(|_, messages| !messages.is_empty());
        assert_eq!(model, expected);
    }
}

fn batches() -> impl Strategy<Value = Vec<(Vec<Step>, bool)>> {
    let batch = (prop::collection::vec(step(), 1..30), any::<bool>());
    prop::collection::vec(batch, 1..12)
}

fn small_segments() -> LogOptions {
    let mut options = LogOptions::default();
    options.segment_bytes = 4 << 10;
    options.resident_value_bytes = 8;
    options.garbage_bytes = 1 << 10;
    options
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gives_back_what_was_recorded_in_memory(batches in batches()) {
        run(MemoryStore::new(), &batches, |store| store);
    }

    #[test]
    fn gives_back_what_was_recorded_in_a_log(batches in batches()) {
        let store = LogStore::open(SimVfs::new(), small_segments()).unwrap();
        run(store, &batches, |mut store| {
            while store.maintain(1 << 20).unwrap() {}
            store.sync().unwrap();
            // Power is lost: what was synced is there.
            let disk = store.vfs().cut(|_| 0);
            drop(store);
            LogStore::open(disk, small_segments()).unwrap()
        });
    }
}

#[test]
fn nothing_is_left_of_what_has_ended() {
    let mut journal = Journal::open(MemoryStore::new()).unwrap();
    let mut recorder = Recorder {
        model: Model::default(),
        next_message: 0,
        next_place: 0,
        records: Vec::new(),
    };
    recorder.step(Step::Put(0, 1));
    recorder.step(Step::Put(1, 1));
    for step in 0..200 {
        recorder.step(Step::Publish(3, 1, step % 3 == 0));
        recorder.step(Step::Deliver(0, step));
        recorder.step(Step::Pubrec(0, step));
        recorder.step(Step::Finish(1, step));
        journal
            .apply(&std::mem::take(&mut recorder.records))
            .unwrap();
    }
    recorder.step(Step::Delete(0));
    recorder.step(Step::Delete(1));
    recorder.step(Step::GroupDelete(0));
    for step in 0..200 {
        recorder.step(Step::Route(step));
    }
    journal
        .apply(&std::mem::take(&mut recorder.records))
        .unwrap();
    assert_eq!(journal.ignored(), 0);
    assert_eq!(journal.store().blobs(), 0);
    let everything = avocet_store::PageLimit {
        items: usize::MAX,
        bytes: usize::MAX,
    };
    let left = journal.store().scan(&[], None, everything).unwrap();
    let left: Vec<u8> = left.iter().map(|found| found.key[0]).collect();
    assert_eq!(left, [0, 1], "the format and the count of messages");
}

/// One message that is not acknowledged must not keep all those on the disk that were dropped
/// behind it.
#[test]
fn space_is_given_back_behind_a_message_that_stays() {
    let mut journal = Journal::open(MemoryStore::new()).unwrap();
    let mut recorder = Recorder {
        model: Model::default(),
        next_message: 0,
        next_place: 0,
        records: Vec::new(),
    };
    recorder.step(Step::Put(0, 1));
    recorder.step(Step::Publish(1, 0, false));
    recorder.step(Step::Publish(1, 0, false));
    for _ in 0..10_000 {
        recorder.step(Step::Publish(1, 0, false));
        recorder.step(Step::FinishMany(0, 2));
        journal
            .apply(&std::mem::take(&mut recorder.records))
            .unwrap();
        assert!(journal.store().blobs() < 100);
    }
    assert_eq!(recovered(&journal).0, recorder.model);
    recorder.step(Step::Pubrec(0, 0));
    recorder.step(Step::Finish(0, 1));
    journal
        .apply(&std::mem::take(&mut recorder.records))
        .unwrap();
    let journal = Journal::open(journal.into_store()).unwrap();
    assert_eq!(recovered(&journal).0, recorder.model);
}

/// What a session still has of a group that ended must not be taken for that of a later one.
#[test]
fn a_later_group_does_not_get_the_number_of_one_that_a_session_remembers() {
    let stored = |id| Record::MessageStored {
        id: MessageId::new(id),
        message: message(id),
    };
    let place = |at| GroupPlace {
        group: group(at),
        sequence: 5,
    };
    let of_group = |group, id| Record::GroupEnqueued {
        place: place(group),
        id: MessageId::new(id),
        publisher: None,
    };
    let member = session(0);
    let put = Record::SessionPut {
        session: Arc::clone(&member),
        expiry_interval: 1,
        expires_at: None,
        sent: 0,
        window: 0,
    };
    let given = Record::Enqueued {
        session: Arc::clone(&member),
        sequence: 0,
        id: MessageId::new(1),
        qos: QoS::ExactlyOnce,
        retain: false,
        subscription_ids: Vec::new(),
        group: Some(Box::new(place(0))),
    };
    let ended = Record::GroupDeleted { group: group(0) };
    let mut journal = Journal::open(MemoryStore::new()).unwrap();
    journal
        .apply(&[put, stored(1), of_group(0, 1), given, ended])
        .unwrap();
    let mut journal = Journal::open(journal.into_store()).unwrap();
    journal.apply(&[stored(2), of_group(1, 2)]).unwrap();
    let finished = Record::Finished {
        session: member,
        sequence: 0,
    };
    journal.apply(&[finished]).unwrap();
    let (model, _) = recovered(&journal);
    assert_eq!(model.groups[&group(1)].len(), 1);
}
