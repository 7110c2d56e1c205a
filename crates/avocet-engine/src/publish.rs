//! From a PUBLISH to the queues of all who want it, in this shard and in the others.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use avocet_codec::{QoS, ReasonCode, SubscriptionId};
use avocet_session::{AckToken, CommitId, IncomingPublish, Message, Now, Outgoing, PublishFrame};
use avocet_topic::TopicName;
use hashbrown::hash_map::Entry;

use crate::counters::DropReason;
use crate::forward::on_its_way;
use crate::recent::RecentTopics;
use crate::record::{MessageId, Record};
use crate::routes::{Interested, Mark, Route, Routes, SessionSubscriber};
use crate::session_table::{SessionHandle, SessionKey, SessionTable, Slot};
use crate::shard::{Lane, Part, Published, ShardId, TicketId, Value};
use crate::shared::GroupHandle;
use crate::store::StoreState;
use crate::tenant::SpaceId;
use crate::{ConnectionId, Durability, Engine};

/// Who wants to know what became of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Nobody,
    /// The client that published it with QoS 1 or 2.
    Acknowledge {
        connection: ConnectionId,
        /// Which remembers the answer to QoS 2 if the connection does not live to send it.
        session: Option<SessionHandle>,
        token: AckToken,
    },
    /// The shard that relayed it.
    Relayed(ShardId, TicketId),
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The publishing session, if it is one of this shard.
    pub(crate) session: Option<SessionHandle>,
    /// The connection whose input waits while too much of it is on its way.
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) answer: Answer,
    /// Whether its arrival, or the end of a will, was recorded in this turn: it must not be lost.
    pub(crate) recorded: bool,
    /// Whether its takers are known.
    pub(crate) found: bool,
    /// Set if an earlier run accepted it and did not route it.
    pub(crate) unrouted: Option<MessageId>,
}

impl Origin {
    /// A message of the server itself.
    pub(crate) const SERVER: Self = Self {
        session: None,
        connection: None,
        answer: Answer::Nobody,
        recorded: false,
        found: false,
        unrouted: None,
    };
}

/// Who published a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Publisher<'a> {
    /// The client of a connection of this shard.
    Connection(ConnectionId),
    /// The client of this session, which may be another shard's; none for the server.
    Session(Option<&'a SessionKey>),
}

/// A message whose answer waits for other shards.
pub(crate) struct Ticket {
    answer: Answer,
    /// Shards that have not accepted it.
    outstanding: u16,
    matched: bool,
    /// The commit in this shard that the answer waits for too.
    gate: Option<CommitId>,
    /// The session and the owner of the topic, if it is a relay.
    relay: Option<(SessionHandle, ShardId)>,
    /// The connection whose credit the relay uses, and how much.
    credit: Option<(ConnectionId, u32)>,
    /// What is to be recorded as routed.
    unrouted: Option<MessageId>,
    /// Bytes that another shard is to store.
    leaving: usize,
    /// How long the publisher is to wait.
    wait: Duration,
}

/// One copy for one session.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) session: SessionHandle,
    maximum_qos: QoS,
    retain_as_published: bool,
    pub(crate) first_id: Option<SubscriptionId>,
    more_ids: Vec<SubscriptionId>,
}

/// Buffers of one match, kept for their memory.
#[derive(Default)]
pub(crate) struct Matches {
    /// Counts matches, to tell the marks of this one from those of others.
    count: u64,
    /// Filters matched so far.
    routes: usize,
    deliveries: Vec<Delivery>,
    groups: Vec<GroupHandle>,
    pub(crate) shards: Vec<Interested>,
    /// Whether it matters who published.
    no_local: bool,
    recent: RecentTopics,
}

impl Matches {
    /// Finds who wants the messages of a topic of a space, of which the name is asked for if it is not
    /// a recent one.
    pub(crate) fn find<'a>(
        &mut self,
        (space, routes): (SpaceId, &Routes),
        sessions: &mut SessionTable,
        topic: &[u8],
        topic_name: impl FnOnce() -> TopicName<'a>,
        publisher: Option<&Arc<SessionKey>>,
    ) {
        self.count += 1;
        self.routes = 0;
        self.no_local = false;
        self.shards.clear();
        let missed = match self.recent.find(space, topic, routes.generation()) {
            Ok(takers) => {
                let sessions = takers.sessions.iter().flatten();
                self.deliveries.extend(sessions.map(Delivery::new));
                self.groups.extend(takers.group);
                self.shards.extend(takers.shard);
                return;
            }
            Err(missed) => missed,
        };
        routes.tree().for_each_match(topic_name(), |route| {
            self.add_route(sessions, route, publisher);
        });
        let with_more_ids = |delivery: &Delivery| !delivery.more_ids.is_empty();
        self.shards.sort_unstable();
        self.shards.dedup_by(|later, kept| {
            kept.durable |= later.durable && later.shard == kept.shard;
            later.shard == kept.shard
        });
        if !self.no_local && !self.deliveries.iter().any(with_more_ids) {
            let takers = self.deliveries.iter().map(Delivery::taker);
            let generation = routes.generation();
            let (groups, shards) = (&self.groups, &self.shards);
            self.recent
                .remember(missed, topic, generation, takers, groups, shards);
        }
    }

    /// Takes out the one who is to have the message, if there is no other.
    pub(crate) fn take_only(&mut self) -> Option<Delivery> {
        (self.deliveries.len() == 1 && self.takers() == 1)
            .then(|| self.deliveries.pop())
            .flatten()
    }

    /// Adds one who is to have the message.
    pub(crate) fn put(&mut self, delivery: Delivery) {
        self.deliveries.push(delivery);
    }

    /// Those who have not got the message.
    fn takers(&self) -> usize {
        self.deliveries.len() + self.groups.len() + self.shards.len()
    }

    /// Whether everybody has got the message.
    pub(crate) fn are_served(&self) -> bool {
        self.takers() == 0
    }

    /// Adds all takers of a filter that matches.
    fn add_route(
        &mut self,
        sessions: &mut SessionTable,
        route: &Route,
        publisher: Option<&Arc<SessionKey>>,
    ) {
        self.routes += 1;
        if self.routes == 2 {
            // From here on a session may come for a second time.
            for (at, delivery) in self.deliveries.iter().enumerate() {
                if let Some(slot) = sessions.get_mut(delivery.session) {
                    slot.mark = (self.count, at);
                }
            }
        }
        for subscriber in route.sessions() {
            self.add(sessions, subscriber, publisher);
        }
        self.groups.extend_from_slice(route.groups());
        self.shards.extend_from_slice(route.shards());
    }

    /// Adds a subscription to the one copy of its session: the highest QoS and all identifiers
    /// [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT311-3.3.5-1].
    fn add(
        &mut self,
        sessions: &mut SessionTable,
        subscriber: &SessionSubscriber,
        publisher: Option<&Arc<SessionKey>>,
    ) {
        self.no_local |= subscriber.no_local;
        if subscriber.no_local
            && let Some(slot) = sessions.get(subscriber.session)
            && (publisher == Some(&slot.key)) ^ planted!(NoLocalInverted)
        {
            return;
        }
        if self.routes > 1
            && let Some(slot) = sessions.get_mut(subscriber.session)
        {
            let (mark, at) = slot.mark;
            if mark == self.count
                && let Some(delivery) = self.deliveries.get_mut(at)
            {
                delivery.add(subscriber);
                return;
            }
            slot.mark = (self.count, self.deliveries.len());
        }
        self.deliveries.push(Delivery::new(subscriber));
    }
}

impl Delivery {
    const fn new(subscriber: &SessionSubscriber) -> Self {
        Self {
            session: subscriber.session,
            maximum_qos: subscriber.maximum_qos,
            retain_as_published: subscriber.retain_as_published,
            first_id: subscriber.subscription_id,
            more_ids: Vec::new(),
        }
    }

    /// The one subscription that would lead to the same copy.
    const fn taker(&self) -> SessionSubscriber {
        SessionSubscriber {
            session: self.session,
            maximum_qos: self.maximum_qos,
            no_local: false,
            retain_as_published: self.retain_as_published,
            mark: Mark::None,
            subscription_id: self.first_id,
        }
    }

    fn add(&mut self, subscriber: &SessionSubscriber) {
        self.maximum_qos = self.maximum_qos.max(subscriber.maximum_qos);
        if !planted!(RetainAsPublishedLost) {
            self.retain_as_published |= subscriber.retain_as_published;
        }
        if planted!(SubscriptionIdLost) {
            return;
        }
        if self.first_id.is_none() {
            self.first_id = subscriber.subscription_id;
        } else {
            self.more_ids.extend(subscriber.subscription_id);
        }
    }
}

/// What a message came to in this shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) matched: bool,
    /// Whether state changed that must survive.
    pub(crate) durable: bool,
}

impl Engine {
    /// Sends a message where it belongs; whoever waits for the answer gets it, at once or later.
    pub(crate) fn publish(&mut self, origin: &Origin, published: &mut Published, now: Now) {
        let retain = published.message.retain();
        let may_follow = || origin.unrouted.is_some() || self.has_relays(origin.session);
        if self.shards == 1 || !retain && !may_follow() {
            self.publish_here(origin, published, now);
            return;
        }
        let owner = self.owner_of_topic(published.tenant(), published.message.topic_name());
        // What an earlier run left of a topic goes one way: the session that would tell of relays may
        // have ended [MQTT5-4.6.0-5].
        let follows = origin.unrouted.is_some() || self.has_relay(origin.session, owner);
        if owner != self.shard && (retain || follows && !planted!(RetainOvertaken)) {
            // What its owner retains must not be lost on the way either.
            let wanted = origin.recorded && (retain || self.is_wanted_durably(published));
            let accepted = wanted && self.accept_message(published);
            let gate = self.gate_at(published.level, accepted || origin.recorded);
            let unrouted = published.id.filter(|_| accepted).or(origin.unrouted);
            let origin = Origin {
                unrouted,
                ..*origin
            };
            self.relay(origin, owner, published.clone(), gate);
            return;
        }
        self.publish_here(origin, published, now);
    }

    /// The part of [`publish`](Self::publish) after the order of the topic is settled.
    fn publish_here(&mut self, origin: &Origin, published: &mut Published, now: Now) {
        let mut reach = Reach {
            matched: false,
            durable: origin.recorded,
        };
        let owner = |shards| {
            let topic_name = published.message.topic_name();
            ShardId::of_topic(published.tenant(), topic_name, shards)
        };
        if published.message.retain() && !published.has_reached(owner) {
            reach.durable |= self.retain_message(published, now);
        }
        if !origin.found {
            self.find_matches(published);
        }
        self.publish_matched(origin, published, reach, now);
    }

    /// Publishes a PUBLISH of QoS 0 as the packet in which it came; who cannot get it like that gets
    /// its message. False, and nothing done, if it must follow others to the owner of its topic.
    pub(crate) fn publish_frame(
        &mut self,
        id: ConnectionId,
        publish: &IncomingPublish<'_>,
        frame: PublishFrame<'_>,
        now: Now,
    ) -> bool {
        let topic_name = publish.topic_name();
        let Some(entry) = self.connections.get(&id) else {
            return true;
        };
        let session = entry.session;
        let publisher = entry.key.as_ref();
        if self.has_relays(session) {
            let tenant = publisher.map_or("", |key| key.tenant());
            if self.has_relay(session, self.owner_of_topic(tenant, topic_name)) {
                return false;
            }
        }
        let routes = (entry.space, self.spaces.routes(entry.space));
        let topic = topic_name.as_str().as_bytes();
        let sessions = &mut self.sessions;
        self.matches
            .find(routes, sessions, topic, || topic_name, publisher);
        self.wait = Duration::ZERO;
        // A large payload is shared by those who take it, not copied for each.
        if !frame.is_large() || self.matches.takers() == 1 {
            self.deliver_frames(Publisher::Connection(id), frame, now);
        }
        if !frame.is_large() {
            self.forward_frame(id, frame);
        }
        if !self.matches.are_served() {
            let message = Message::from_publish(publish.received(), topic_name, now.unix);
            let publisher = self
                .connections
                .get(&id)
                .and_then(|entry| entry.key.clone());
            let mut published = self.published(message, publisher);
            let origin = Origin {
                session,
                connection: Some(id),
                ..Origin::SERVER
            };
            self.publish_matched(&origin, &mut published, Reach::default(), now);
        }
        let wait = mem::take(&mut self.wait);
        self.slow_down(id, wait, now);
        true
    }

    /// Publishes a PUBLISH of QoS 1 or 2. What nobody wants but one other shard goes there with others
    /// of its connection, what nobody wants but one client to it as the packet in which it came, if it may
    /// get it like that; the rest goes as a message. False, and nothing done, if it must be looked at more
    /// closely.
    pub(crate) fn publish_acknowledged(
        &mut self,
        id: ConnectionId,
        publish: &IncomingPublish<'_>,
        token: AckToken,
        now: Now,
    ) -> bool {
        let Some(entry) = self.connections.get(&id) else {
            return true;
        };
        let session = entry.session;
        let recorded = || session.is_some_and(|session| self.is_recorded(session));
        if !publish.is_plain()
            || self.overloaded
            || self.store != StoreState::Working
            || self.has_relays(session)
            || token.qos() == QoS::ExactlyOnce && recorded()
        {
            return false;
        }
        let topic_name = publish.topic_name();
        let routes = (entry.space, self.spaces.routes(entry.space));
        let (sessions, publisher) = (&mut self.sessions, entry.key.as_ref());
        let topic = topic_name.as_str().as_bytes();
        self.matches
            .find(routes, sessions, topic, || topic_name, publisher);
        if let [to] = *self.matches.shards
            && self.matches.takers() == 1
        {
            self.matches.shards.clear();
            self.forward_publish(id, to, publish, token);
        } else if !self.deliver_acknowledged(id, publish, token, now) {
            let message = Message::from_publish(publish.received(), topic_name, now.unix);
            self.publish_taken(id, message, Some(token), true, now);
        }
        true
    }

    /// Gives a packet of QoS 1 to the only one who matches it, if he may get it as it is, and
    /// acknowledges it.
    fn deliver_acknowledged(
        &mut self,
        id: ConnectionId,
        publish: &IncomingPublish<'_>,
        token: AckToken,
        now: Now,
    ) -> bool {
        self.wait = Duration::ZERO;
        let delivered = publish
            .frame()
            .is_some_and(|frame| self.deliver_to_only(frame, now));
        if delivered {
            self.acknowledge(id, token, ReasonCode::Success, None);
            let wait = mem::take(&mut self.wait);
            self.slow_down(id, wait, now);
        }
        delivered
    }

    /// Gives a packet of QoS 1 to the only one who matches it, if he may get it as it is: he is not sent it
    /// again, so his Session has to end with his connection.
    pub(crate) fn deliver_to_only(&mut self, frame: PublishFrame<'_>, now: Now) -> bool {
        let Some(to) = self.matches.take_only() else {
            return false;
        };
        let slot = self.sessions.get(to.session);
        let delivered = to.maximum_qos >= frame.qos()
            && to.first_id.is_none()
            && slot.is_some_and(Slot::ends_with_connection)
            && self.deliver_frame(to.session, frame, now);
        if !delivered {
            self.matches.put(to);
        }
        delivered
    }

    /// Gives a packet to those who match it and may get it as it is; the others are left.
    pub(crate) fn deliver_frames(
        &mut self,
        from: Publisher<'_>,
        frame: PublishFrame<'_>,
        now: Now,
    ) {
        let mut deliveries = mem::take(&mut self.matches.deliveries);
        deliveries.retain(|delivery| {
            delivery.first_id.is_some() || !self.deliver_frame(delivery.session, frame, now)
        });
        self.matches.deliveries = deliveries;
        let mut groups = mem::take(&mut self.matches.groups);
        groups.retain(|group| !self.offer_frame_to_group(*group, from, frame, now));
        self.matches.groups = groups;
    }

    /// Sends a message to those who match it.
    fn publish_matched(
        &mut self,
        origin: &Origin,
        published: &mut Published,
        mut reach: Reach,
        now: Now,
    ) {
        self.distribute(published, &mut reach, now);
        let shards = mem::take(&mut self.matches.shards);
        let mut unrouted = origin.unrouted;
        if must_accept(origin, published, &shards) && self.accept_message(published) {
            unrouted = published.id;
        }
        reach.durable |= self.record_arrival(published, Some(&shards));
        let gate = self.gate_at(published.level, reach.durable);
        let awaited = match origin.answer {
            Answer::Acknowledge { .. } | Answer::Relayed(..) => true,
            Answer::Nobody => unrouted.is_some(),
        };
        let leaves = shards.iter().any(|shard| shard.durable) && !published.accepted;
        let ticket = (awaited && !shards.is_empty()).then(|| {
            self.open_ticket(Ticket {
                answer: origin.answer,
                outstanding: u16::try_from(shards.len()).unwrap_or(u16::MAX),
                matched: reach.matched,
                gate,
                relay: None,
                credit: None,
                unrouted,
                wait: self.wait,
                leaving: if leaves { published.message.len() } else { 0 },
            })
        });
        for interested in &shards {
            self.forward(
                interested.shard,
                origin.connection,
                ticket,
                published.clone(),
            );
        }
        if ticket.is_none() {
            self.record_routed(unrouted);
            self.answer(origin.answer, reach.matched || !shards.is_empty(), gate);
        }
        self.matches.shards = shards;
    }

    pub(crate) fn find_matches(&mut self, published: &Published) {
        let Some(space) = self.spaces.find(published.tenant()) else {
            self.matches.shards.clear();
            return;
        };
        let message = &published.message;
        let publisher = published.publisher.as_ref();
        let (routes, sessions) = ((space, self.spaces.routes(space)), &mut self.sessions);
        let (topic, topic_name) = (message.topic_bytes(), || message.topic_name());
        self.matches
            .find(routes, sessions, topic, topic_name, publisher);
    }

    /// Queues a message for the sessions and groups of this shard that match it.
    pub(crate) fn distribute(&mut self, published: &mut Published, reach: &mut Reach, now: Now) {
        let (deliveries, groups) = (self.matches.deliveries.len(), self.matches.groups.len());
        reach.matched |= deliveries > 0 || groups > 0;
        for at in 0..deliveries {
            let Some(delivery) = self.matches.deliveries.get_mut(at) else {
                break;
            };
            let session = delivery.session;
            let outgoing = Outgoing {
                message: published.message.clone(),
                qos: published.message.qos().min(delivery.maximum_qos),
                retain: published.message.retain() && delivery.retain_as_published,
                subscription_id: delivery.first_id,
                more_subscription_ids: mem::take(&mut delivery.more_ids).into(),
                tag: 0,
                gate: None,
            };
            if published.arrived.is_some()
                && let Some(slot) = self.sessions.get(session)
                && published.has_reached(|shards| ShardId::of_session(&slot.key, shards))
            {
                continue;
            }
            reach.durable |= self.deliver(session, outgoing, published, None, now);
        }
        self.matches.deliveries.clear();
        for at in 0..groups {
            let Some(group) = self.matches.groups.get(at).copied() else {
                break;
            };
            reach.durable |= self.offer_to_group(group, published, now);
        }
        self.matches.groups.clear();
    }

    /// Whether what must survive will refer to a message, in this shard or another.
    fn is_wanted_durably(&self, published: &Published) -> bool {
        let Some(space) = self.spaces.find(published.tenant()) else {
            return false;
        };
        published.id.is_some() && self.matches_durably(space, published.message.topic_name())
    }

    /// Whether a topic matches a filter of what survives, in this shard or another.
    pub(crate) fn matches_durably(&self, space: SpaceId, topic_name: TopicName<'_>) -> bool {
        let mut wanted = false;
        self.spaces
            .routes(space)
            .tree()
            .for_each_match(topic_name, |route| {
                wanted |= route.is_durable() || route.shards().iter().any(|shard| shard.durable);
            });
        wanted
    }

    fn relay(
        &mut self,
        origin: Origin,
        owner: ShardId,
        published: Published,
        gate: Option<CommitId>,
    ) {
        let credit = origin.connection.map(|connection| {
            let bytes = published.message.len();
            self.use_credit(connection, bytes);
            (connection, u32::try_from(bytes).unwrap_or(u32::MAX))
        });
        let relay = origin.session.map(|session| (session, owner));
        if let Some(slot) = origin.session.and_then(|s| self.sessions.get_mut(s)) {
            match slot.relays.iter_mut().find(|(shard, _)| *shard == owner) {
                Some((_, count)) => *count += 1,
                None => slot.relays.push((owner, 1)),
            }
        }
        let leaves = published.id.is_some() && !published.accepted;
        let ticket = self.open_ticket(Ticket {
            answer: origin.answer,
            outstanding: 1,
            matched: false,
            gate,
            relay,
            credit,
            unrouted: origin.unrouted,
            wait: Duration::ZERO,
            leaving: if leaves { published.message.len() } else { 0 },
        });
        let published = on_its_way(published);
        self.send(owner, Lane::Owners, Value::Relay { ticket, published });
    }

    /// Whether messages of a session are on their way to owners of topics.
    pub(crate) fn has_relays(&self, session: Option<SessionHandle>) -> bool {
        session
            .and_then(|session| self.sessions.get(session))
            .is_some_and(|slot| !slot.relays.is_empty())
    }

    /// Whether messages of a session are on their way to an owner, so that others must follow.
    fn has_relay(&self, session: Option<SessionHandle>, owner: ShardId) -> bool {
        session
            .and_then(|session| self.sessions.get(session))
            .is_some_and(|slot| slot.relays.iter().any(|(shard, _)| *shard == owner))
    }

    pub(crate) fn on_relay(
        &mut self,
        from: ShardId,
        ticket: TicketId,
        mut published: Published,
        now: Now,
    ) {
        self.rename_unless_stored(&mut published);
        self.wait = Duration::ZERO;
        let origin = Origin {
            answer: Answer::Relayed(from, ticket),
            ..Origin::SERVER
        };
        self.publish_here(&origin, &mut published, now);
    }

    fn open_ticket(&mut self, ticket: Ticket) -> TicketId {
        let id = TicketId(self.next_ticket);
        self.next_ticket += 1;
        self.uncommitted.leave(ticket.leaving);
        self.tickets.insert(id, ticket);
        id
    }

    /// One of the shards that a ticket waits for is done.
    pub(crate) fn close_one(&mut self, id: TicketId, matched: bool, wait: Duration, now: Now) {
        let Entry::Occupied(mut entry) = self.tickets.entry(id) else {
            return;
        };
        let ticket = entry.get_mut();
        ticket.matched |= matched;
        ticket.wait = ticket.wait.max(wait);
        ticket.outstanding -= 1;
        if ticket.outstanding > 0 {
            return;
        }
        let ticket = entry.remove();
        if let Some((session, owner)) = ticket.relay
            && let Some(slot) = self.sessions.get_mut(session)
        {
            slot.relays.retain_mut(|(shard, count)| {
                if *shard == owner {
                    *count -= 1;
                }
                *count > 0
            });
        }
        if let Some((connection, bytes)) = ticket.credit {
            self.slow_down(connection, ticket.wait, now);
            self.return_credit(connection, (1, bytes as usize), now);
        }
        if ticket.leaving > 0 {
            self.uncommitted.arrive(ticket.leaving);
            self.resume_for_store(now);
        }
        self.record_routed(ticket.unrouted);
        self.wait = ticket.wait;
        self.answer(ticket.answer, ticket.matched, ticket.gate);
    }

    /// Tells whoever waits for it that a message is where it belongs.
    fn answer(&mut self, answer: Answer, matched: bool, gate: Option<CommitId>) {
        match answer {
            Answer::Nobody => {}
            Answer::Acknowledge {
                connection,
                session,
                token,
            } => {
                let reason = if matched {
                    ReasonCode::Success
                } else {
                    ReasonCode::NoMatchingSubscribers
                };
                if !self.acknowledge(connection, token, reason, gate) {
                    self.remember_answer(session, token, reason, gate);
                }
            }
            Answer::Relayed(to, ticket) => {
                let value = Value::Relayed {
                    ticket,
                    matched,
                    wait: mem::take(&mut self.wait),
                };
                match gate.filter(|gate| *gate > self.committed) {
                    Some(gate) => self.gated_answers.push_back((gate, to, value)),
                    None => self.send(to, Lane::Confirmations, value),
                }
            }
        }
    }

    /// Gives a message its name in the store, if it needs one.
    pub(crate) fn published(
        &mut self,
        message: Message,
        publisher: Option<Arc<SessionKey>>,
    ) -> Published {
        let named =
            self.config.durability == Durability::Stored && message.qos() != QoS::AtMostOnce;
        Published {
            message,
            publisher,
            id: named.then(|| self.new_message_id()),
            stored: false,
            accepted: false,
            level: self.config.levels.default,
            arrived: None,
        }
    }

    pub(crate) fn new_message_id(&mut self) -> MessageId {
        self.messages += 1;
        MessageId::of_shard(self.shard, self.messages)
    }

    /// What came from elsewhere and is not stored there gets a name of this shard: the other one
    /// may be that of a message which is stored, and not for long.
    pub(crate) fn rename_unless_stored(&mut self, published: &mut Published) {
        let named = self.config.durability == Durability::Stored
            && published.message.qos() != QoS::AtMostOnce;
        if named && !published.stored {
            // Counts follow the way of a message, so that those of one client are in its order.
            let count = published.id.map_or(0, MessageId::count);
            self.messages = self.messages.max(count);
            published.id = Some(self.new_message_id());
        }
    }

    /// Records a message before anything refers to it; true if it was not yet recorded.
    pub(crate) fn store_message(&mut self, published: &mut Published) -> bool {
        let Some(id) = published.id else {
            return false;
        };
        if mem::replace(&mut published.stored, true) {
            return false;
        }
        let message = published.message.clone();
        self.record(Record::MessageStored { id, message });
        true
    }

    /// Records that a message is on its way; true if it was not before.
    fn accept_message(&mut self, published: &mut Published) -> bool {
        let Some(id) = published.id.filter(|_| !published.accepted) else {
            return false;
        };
        self.store_message(published);
        published.accepted = true;
        let publisher = published.publisher.clone();
        self.record(Record::MessageAccepted { id, publisher });
        true
    }

    /// Records that this shard is done with a message that is on its way; and, if it is the one that
    /// sends it to those `interested`, that the others never had to see it.
    pub(crate) fn record_arrival(
        &mut self,
        published: &Published,
        interested: Option<&[Interested]>,
    ) -> bool {
        let Some(id) = published.id.filter(|_| published.accepted) else {
            return false;
        };
        let part = Part {
            shard: self.shard,
            shards: self.shards,
        };
        let unwanted = interested.map_or_else(Vec::new, |interested| {
            let wants = |shard: &ShardId| interested.iter().any(|it| it.shard == *shard);
            self.other_shards().filter(|shard| !wants(shard)).collect()
        });
        self.record(Record::MessageArrived { id, part, unwanted });
        true
    }

    fn record_routed(&mut self, unrouted: Option<MessageId>) {
        if let Some(id) = unrouted {
            self.record(Record::MessageRouted { id });
        }
    }

    /// Counts a message that goes nowhere.
    pub(crate) fn count_dropped(&mut self, reason: DropReason) {
        self.counters.count_dropped(reason, 1);
    }
}

/// Whether a message is stored before it leaves for others: nobody sends it again if it is lost, or
/// more than one shard would store it. Otherwise the only one stores it, and its publisher hears
/// nothing before.
fn must_accept(origin: &Origin, published: &Published, shards: &[Interested]) -> bool {
    match shards.iter().filter(|shard| shard.durable).count() {
        0 => false,
        // What is retained is not to be only that.
        1 => origin.recorded || published.stored || published.message.retain(),
        _ => true,
    }
}
