//! The simplest store: applies records, and gives back what they amount to.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;

use avocet_codec::{PacketId, QoS, SubscriptionId, SubscriptionOptions};
use avocet_engine::{
    Fetched, GroupName, GroupPlace, MessageId, Part, Record, Restored, RetainedPlace, SessionKey,
};
use avocet_session::{FetchFrom, Message, UnixTime};
use avocet_topic::TopicFilterBuf;

type Key = Arc<SessionKey>;

#[derive(Default)]
pub(crate) struct Store {
    time: UnixTime,
    count: u64,
    messages: BTreeMap<MessageId, Message>,
    /// Those on their way: who published them, and where they have been.
    accepted: BTreeMap<MessageId, (Option<Key>, Vec<Part>)>,
    sessions: BTreeMap<Key, Session>,
    groups: BTreeMap<(GroupName, u64), (MessageId, Option<Key>)>,
    retained: BTreeMap<(String, String), Restored>,
    wills: BTreeMap<Key, Restored>,
    /// Payloads of messages that cannot be read.
    pub(crate) unreadable: Vec<&'static str>,
}

#[derive(Default)]
struct Session {
    expiry_interval: u32,
    expires_at: Option<UnixTime>,
    sent: u64,
    window: u32,
    next: u64,
    queue: BTreeMap<u64, Entry>,
    subscriptions: BTreeMap<TopicFilterBuf, (SubscriptionOptions, Option<SubscriptionId>)>,
    awaited: BTreeMap<TopicFilterBuf, Vec<RetainedPlace>>,
    received: BTreeSet<PacketId>,
}

struct Entry {
    id: MessageId,
    qos: QoS,
    retain: bool,
    subscription_ids: Vec<SubscriptionId>,
    group: Option<GroupPlace>,
    pubrec_received: bool,
}

impl Store {
    pub(crate) fn new(log: &[Vec<Record>]) -> Self {
        let mut store = Self::default();
        for commit in log {
            store.apply(commit);
        }
        store
    }

    /// Applies a commit, and forgets messages that nothing refers to.
    pub(crate) fn apply(&mut self, commit: &[Record]) {
        for record in commit {
            self.put(record.clone());
        }
        let queues = self.sessions.values().flat_map(|it| it.queue.values());
        let referred: BTreeSet<MessageId> = queues
            .map(|entry| entry.id)
            .chain(self.groups.values().map(|(id, _)| *id))
            .chain(self.accepted.keys().copied())
            .collect();
        for id in &referred {
            assert!(self.messages.contains_key(id), "{id:?} is not stored");
        }
        self.messages.retain(|id, _| referred.contains(id));
    }

    fn put(&mut self, record: Record) {
        match record {
            Record::SessionPut {
                session,
                expiry_interval,
                expires_at,
                sent,
                window,
            } => {
                let stored = self.sessions.entry(session).or_default();
                stored.expiry_interval = expiry_interval;
                stored.expires_at = expires_at;
                (stored.sent, stored.window) = (sent, window);
            }
            Record::SessionDeleted { session } => {
                for entry in self
                    .sessions
                    .remove(&session)
                    .into_iter()
                    .flat_map(|it| it.queue)
                {
                    self.end_in_group(entry.1.group);
                }
            }
            Record::SubscriptionPut {
                session,
                filter,
                options,
                subscription_id,
            } => {
                let stored = self.sessions.get_mut(&session).unwrap();
                stored
                    .subscriptions
                    .insert(filter, (options, subscription_id));
            }
            Record::SubscriptionDeleted { session, filter } => {
                if let Some(stored) = self.sessions.get_mut(&session) {
                    stored.subscriptions.remove(&filter);
                    stored.awaited.remove(&filter);
                }
            }
            Record::RetainedAwaited {
                session,
                filter,
                queued,
            } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                assert!(stored.subscriptions.contains_key(&filter));
                stored.awaited.insert(filter, queued);
            }
            Record::RetainedQueued { session, filter } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                assert!(stored.awaited.remove(&filter).is_some());
            }
            Record::MessageStored { id, message } => {
                self.count = self.count.max(id.count());
                assert!(self.messages.insert(id, message).is_none(), "{id:?} twice");
            }
            Record::MessageAccepted { id, publisher } => {
                self.accepted.insert(id, (publisher, Vec::new()));
            }
            Record::MessageArrived { id, part, unwanted } => {
                if let Some((_, parts)) = self.accepted.get_mut(&id) {
                    let reached = iter::once(part.shard).chain(unwanted);
                    parts.extend(reached.map(|shard| Part { shard, ..part }));
                }
            }
            Record::MessageRouted { id } => {
                assert!(self.accepted.remove(&id).is_some(), "{id:?} is on no way");
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
                let stored = self.sessions.get_mut(&session).expect("a session");
                assert_eq!(sequence, stored.next, "no gaps");
                stored.next += 1;
                let entry = Entry {
                    id,
                    qos,
                    retain,
                    subscription_ids,
                    group: group.map(|place| *place),
                    pubrec_received: false,
                };
                stored.queue.insert(sequence, entry);
            }
            Record::Finished { session, sequence } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                if let Some(entry) = stored.queue.remove(&sequence) {
                    self.end_in_group(entry.group);
                }
            }
            Record::Returned { session, sequence } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                assert!(stored.queue.remove(&sequence).is_some());
            }
            Record::PubrecReceived { session, sequence } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                let entry = stored.queue.get_mut(&sequence).expect("a message");
                entry.pubrec_received = true;
            }
            Record::GroupEnqueued {
                place,
                id,
                publisher,
            } => {
                self.groups
                    .insert((place.group, place.sequence), (id, publisher));
            }
            Record::GroupFinished { place } => self.end_in_group(Some(place)),
            Record::GroupDeleted { group } => self.groups.retain(|(name, _), _| *name != group),
            Record::PublishReceived { session, packet_id } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                assert!(stored.received.insert(packet_id), "received twice");
            }
            Record::PublishReleased { session, packet_id } => {
                let stored = self.sessions.get_mut(&session).expect("a session");
                assert!(stored.received.remove(&packet_id), "not received");
            }
            Record::RetainedPut { message, publisher } => {
                let topic_name = message.topic_name().as_str().to_owned();
                let tenant = publisher
                    .as_deref()
                    .map_or("", SessionKey::tenant)
                    .to_owned();
                let retained = Restored::Retained { message, publisher };
                self.retained.insert((tenant, topic_name), retained);
            }
            Record::RetainedDeleted { tenant, topic_name } => {
                let (tenant, topic_name) = (tenant.as_str(), topic_name.as_str());
                self.retained
                    .remove(&(tenant.to_owned(), topic_name.to_owned()));
            }
            Record::WillPut {
                session,
                message,
                message_expiry_interval,
                delay_interval,
                publish_at,
            } => {
                let will = Restored::Will {
                    session: Arc::clone(&session),
                    message,
                    message_expiry_interval,
                    delay_interval,
                    publish_at,
                };
                self.wills.insert(session, will);
            }
            Record::WillDeleted { session } => {
                self.wills.remove(&session);
            }
            Record::Time { at } => self.time = at,
            other => panic!("unknown record {other:?}"),
        }
    }

    fn end_in_group(&mut self, place: Option<GroupPlace>) {
        if let Some(place) = place {
            self.groups.remove(&(place.group, place.sequence));
        }
    }

    pub(crate) fn restored(&self) -> Vec<Restored> {
        let mut all = vec![
            Restored::Time { at: self.time },
            Restored::MessageCount { count: self.count },
        ];
        for (session, stored) in &self.sessions {
            let first = stored.queue.keys().next().copied();
            let bytes = |entry: &Entry| self.messages[&entry.id].len() as u64;
            all.push(Restored::Session {
                session: Arc::clone(session),
                expiry_interval: stored.expiry_interval,
                expires_at: stored.expires_at,
                sent: stored.sent,
                window: stored.window,
                queue: first.unwrap_or(stored.next)..stored.next,
                queued_bytes: stored.queue.values().map(bytes).sum(),
            });
            for (filter, (options, subscription_id)) in &stored.subscriptions {
                all.push(Restored::Subscription {
                    session: Arc::clone(session),
                    filter: filter.clone(),
                    options: *options,
                    subscription_id: *subscription_id,
                });
            }
            for (filter, queued) in &stored.awaited {
                all.push(Restored::RetainedAwaited {
                    session: Arc::clone(session),
                    filter: filter.clone(),
                    queued: queued.clone(),
                });
            }
            for packet_id in &stored.received {
                all.push(Restored::PublishReceived {
                    session: Arc::clone(session),
                    packet_id: *packet_id,
                });
            }
            for (sequence, entry) in &stored.queue {
                // What the group is done with is the session's own.
                let place = entry.group.clone();
                let place = place.filter(|place| {
                    let place = (place.group.clone(), place.sequence);
                    self.groups.contains_key(&place)
                });
                all.extend(place.map(|place| Restored::OfGroup {
                    session: Arc::clone(session),
                    sequence: *sequence,
                    id: entry.id,
                    qos: entry.qos,
                    place,
                }));
            }
        }
        all.extend(self.wills.values().cloned());
        for ((group, sequence), (id, publisher)) in &self.groups {
            all.push(Restored::GroupMessage {
                place: GroupPlace {
                    group: group.clone(),
                    sequence: *sequence,
                },
                id: *id,
                message: self.messages[id].clone(),
                publisher: publisher.clone(),
            });
        }
        all.extend(self.retained.values().cloned());
        let mut accepted: Vec<_> = self.accepted.iter().collect();
        accepted.sort_by_key(|(id, _)| id.count());
        for (id, (publisher, arrived)) in accepted {
            all.push(Restored::Unrouted {
                id: *id,
                message: self.messages[id].clone(),
                publisher: publisher.clone(),
                arrived: arrived.clone(),
            });
        }
        all
    }

    pub(crate) fn fetch(&self, session: &SessionKey, from: FetchFrom) -> (u64, Vec<Fetched>) {
        let Some(stored) = self.sessions.get(session) else {
            return (from.sequence, Vec::new());
        };
        let mut rest = stored.queue.range(from.sequence..);
        let page = rest.by_ref().take(from.max_messages);
        let messages = page
            .map(|(sequence, entry)| Fetched {
                sequence: *sequence,
                id: entry.id,
                message: self.read(entry.id),
                qos: entry.qos,
                retain: entry.retain,
                subscription_ids: entry.subscription_ids.clone(),
                pubrec_received: entry.pubrec_received,
            })
            .collect();
        let next = rest.next().map_or(stored.next, |(sequence, _)| *sequence);
        (next, messages)
    }

    fn read(&self, id: MessageId) -> Option<Message> {
        let message = &self.messages[&id];
        let unreadable = self.unreadable.iter();
        let mut unreadable = unreadable.filter(|payload| payload.as_bytes() == message.payload());
        unreadable.next().is_none().then(|| message.clone())
    }

    /// Messages that something refers to, sessions, and messages of groups.
    pub(crate) fn holds(&self) -> (usize, usize, usize) {
        (self.messages.len(), self.sessions.len(), self.groups.len())
    }

    /// The payload retained for a topic.
    pub(crate) fn retained(&self, topic_name: &str) -> Option<String> {
        match self.retained.get(&(String::new(), topic_name.to_owned()))? {
            Restored::Retained { message, .. } => {
                Some(String::from_utf8_lossy(message.payload()).into_owned())
            }
            _ => None,
        }
    }

    /// How many wills there are.
    pub(crate) fn wills(&self) -> usize {
        self.wills.len()
    }
}
