//! Messages on their way to other shards, and what these answer.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;
use core::time::Duration;

use avocet_codec::{QoS, ReasonCode};
use avocet_session::{AckToken, IncomingPublish, Now, PublishFrame, PublishFrames};

use crate::config::Level;
use crate::publish::{Publisher, Reach};
use crate::routes::Interested;
use crate::session_table::{SessionHandle, SessionKey};
use crate::shard::{
    Awaiting, Credit, ForwardedFrames, Lane, Published, Received, ShardId, TicketId,
    UnacceptedForward, Value,
};
use crate::tenant::SpaceId;
use crate::{ConnectionId, Durability, Engine};

/// Packets with more bytes together are forwarded as two values.
const FRAMES_BYTES_MAX: usize = 64 << 10;

/// What there is room for at first, so that what goes together mostly is not moved as it grows.
const FRAMES_BYTES: usize = 1 << 10;

/// Memory that is kept for packets to be forwarded: so many pieces, of so many bytes at most. Where as
/// much goes as comes, none is allocated.
const SPARE: (usize, usize) = (16, 16 << 10);

impl Engine {
    pub(crate) fn forward(
        &mut self,
        to: ShardId,
        connection: Option<ConnectionId>,
        ticket: Option<TicketId>,
        published: Published,
    ) {
        let bytes = published.message.len();
        let credit = connection.map(|connection| {
            self.use_credit(connection, bytes);
            Credit {
                connection,
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            }
        });
        if let Some(unaccepted) = self.unaccepted.get_mut(to.index()) {
            unaccepted.forwards.push_back(UnacceptedForward {
                messages: 1,
                awaiting: ticket.map_or(Awaiting::Nobody, Awaiting::Ticket),
                credit,
            });
        }
        self.counters.forwards_sent += 1;
        let published = on_its_way(published);
        self.send(to, Lane::Subscribers, Value::Forward(published));
    }

    /// Forwards a packet to the other shards that match it, behind those of its connection that have
    /// not left.
    pub(crate) fn forward_frame(&mut self, from: ConnectionId, frame: PublishFrame<'_>) {
        let mut shards = mem::take(&mut self.matches.shards);
        for Interested { shard: to, .. } in shards.drain(..) {
            // What no acknowledgement waits for is of no level.
            let Some((frames, forward)) =
                self.frames_for(to, from, (QoS::AtMostOnce, Level::Memory))
            else {
                continue;
            };
            let bytes = frames.frames.push(frame);
            forward.add(bytes);
            self.use_credit(from, bytes);
            self.counters.forwards_sent += 1;
        }
        self.matches.shards = shards;
    }

    /// Forwards what was published with QoS 1 or 2 to the only one who wants it, which answers for all
    /// that came with it. That shard stores it, if it must survive: its publisher repeats it until then.
    pub(crate) fn forward_publish(
        &mut self,
        from: ConnectionId,
        to: Interested,
        publish: &IncomingPublish<'_>,
        token: AckToken,
    ) {
        let Some(entry) = self.connections.get(&from) else {
            return;
        };
        let (mut level, mut named) = (Level::Memory, 0);
        let stored = self.config.durability == Durability::Stored;
        if stored {
            let listener = Some(entry.opened.listener);
            level = self.config.levels.of(listener, publish.topic_name());
            self.messages += 1;
            named = self.messages;
        }
        let leaves = stored && to.durable;
        let Some((frames, forward)) = self.frames_for(to.shard, from, (token.qos(), level)) else {
            return;
        };
        let bytes = frames.frames.push_publish(publish);
        frames.named = named;
        forward.add(bytes);
        if let Awaiting::Publisher { leaving, .. } = &mut forward.awaiting
            && leaves
        {
            *leaving += bytes;
        }
        if let Some(unaccepted) = self.unaccepted.get_mut(to.shard.index()) {
            unaccepted.tokens.push_back(token);
        }
        self.use_credit(from, bytes);
        self.counters.forwards_sent += 1;
        if leaves {
            self.uncommitted.leave(bytes);
            self.pause_for_store(from);
        }
    }

    /// Where to put a packet of a connection for another shard: with those that have not left, if
    /// nothing went there after them.
    fn frames_for(
        &mut self,
        to: ShardId,
        from: ConnectionId,
        kind: (QoS, Level),
    ) -> Option<(&mut ForwardedFrames, &mut UnacceptedForward)> {
        let unaccepted = self.unaccepted.get_mut(to.index())?;
        let last = self.outbox.last_for_subscribers(to);
        let fits = matches!(last, Some(Value::Frames(last)) if last.from == from
            && (last.frames.qos(), last.level) == kind
            && last.frames.bytes() < FRAMES_BYTES_MAX);
        if !fits {
            // Without its publisher, nobody could tell whose tenant's it is.
            let entry = self.connections.get(&from)?;
            let publisher = Some(entry.key.clone()?);
            let (qos, level) = kind;
            let awaiting = match qos {
                QoS::AtMostOnce => Awaiting::Nobody,
                QoS::AtLeastOnce | QoS::ExactlyOnce => Awaiting::Publisher {
                    session: entry.session,
                    leaving: 0,
                },
            };
            let version = entry.server.version();
            let memory = self.spare_frames.pop();
            let memory = memory.unwrap_or_else(|| Vec::with_capacity(FRAMES_BYTES));
            let credit = Some(Credit {
                connection: from,
                bytes: 0,
            });
            unaccepted.forwards.push_back(UnacceptedForward {
                messages: 0,
                awaiting,
                credit,
            });
            let frames = ForwardedFrames {
                from,
                publisher,
                frames: PublishFrames::new(version, qos, memory),
                level,
                named: 0,
            };
            self.send(to, Lane::Subscribers, Value::Frames(frames));
        }
        let forward = self.unaccepted.get_mut(to.index())?.forwards.back_mut()?;
        let Some(Value::Frames(frames)) = self.outbox.last_for_subscribers(to) else {
            return None;
        };
        Some((frames, forward))
    }

    pub(crate) fn on_forwarded_frames(
        &mut self,
        from: ShardId,
        forwarded: ForwardedFrames,
        now: Now,
    ) {
        self.wait = Duration::ZERO;
        let ForwardedFrames {
            mut publisher,
            frames,
            level,
            named,
            ..
        } = forwarded;
        let qos = frames.qos();
        let acknowledged = qos != QoS::AtMostOnce;
        if acknowledged {
            // Counts follow the way of a message, so that those of one client are in its order.
            self.messages = self.messages.max(named);
        }
        let (mut unmatched, mut durable) = (Vec::new(), false);
        let known = publisher.as_ref().filter(|_| !planted!(TenantForgotten));
        // What nobody here has heard of is wanted by nobody.
        let space = self.spaces.find(known.map_or("", |key| key.tenant()));
        let mut at = 0;
        for run in frames.iter() {
            let found = space.is_some_and(|space| {
                self.find_frame(space, publisher.as_ref(), run);
                true
            });
            let all = (run.packets() > 1)
                .then(|| self.matches.take_only())
                .flatten();
            if let Some(to) = &all
                && !acknowledged
                && to.first_id.is_none()
                && self.deliver_frame(to.session, run, now)
            {
                at += run.packets() as u64;
                continue;
            }
            for (n, frame) in run.each().enumerate() {
                let mut reach = Reach::default();
                match (&all, space) {
                    (Some(to), _) => self.matches.put(to.clone()),
                    (None, Some(space)) if n > 0 => {
                        self.find_frame(space, publisher.as_ref(), frame);
                    }
                    (None, _) => {}
                }
                if found && frame.qos() == QoS::AtLeastOnce && self.deliver_to_only(frame, now) {
                    at += 1;
                    continue;
                }
                if found && !acknowledged {
                    let publisher = Publisher::Session(publisher.as_deref());
                    self.deliver_frames(publisher, frame, now);
                }
                if found && !self.matches.are_served() {
                    let message = frame.message().with_qos(qos);
                    let mut published = self.published(message, publisher.take());
                    published.level = level;
                    self.distribute(&mut published, &mut reach, now);
                    publisher = published.publisher;
                }
                if acknowledged && !reach.matched {
                    unmatched.push(at);
                }
                durable |= reach.durable;
                at += 1;
            }
        }
        let gate = self.gate_at(level, durable);
        let (wait, messages) = (mem::take(&mut self.wait), frames.len() as u64);
        let memory = frames.into_memory();
        if self.spare_frames.len() < SPARE.0 && memory.capacity() <= SPARE.1 {
            self.spare_frames.push(memory);
        }
        if let Some(received) = self.count_forward(from, messages, wait) {
            let first = received.count - messages;
            let unmatched = unmatched.into_iter().map(|at| first + at);
            received.unmatched.extend(unmatched);
            received.awaited |= acknowledged;
            received.gate = received.gate.max(gate);
        }
    }

    /// Finds who wants a forwarded packet in this shard. What others want is the business of the one
    /// that forwards.
    fn find_frame(
        &mut self,
        space: SpaceId,
        publisher: Option<&Arc<SessionKey>>,
        frame: PublishFrame<'_>,
    ) {
        let (routes, sessions) = ((space, self.spaces.routes(space)), &mut self.sessions);
        let (topic, topic_name) = (frame.topic_bytes(), || frame.topic_name());
        self.matches
            .find(routes, sessions, topic, topic_name, publisher);
        self.matches.shards.clear();
    }

    /// A forward of so many messages is where it belongs.
    fn count_forward(
        &mut self,
        from: ShardId,
        messages: u64,
        wait: Duration,
    ) -> Option<&mut Received> {
        let received = self.received.get_mut(from.index())?;
        if !wait.is_zero() {
            received.slowed.push((received.count, wait));
            received.awaited = true;
        }
        received.count += messages;
        received.unanswered = true;
        self.unanswered = true;
        Some(received)
    }

    pub(crate) fn on_forward(&mut self, from: ShardId, mut published: Published, now: Now) {
        let mut reach = Reach::default();
        self.rename_unless_stored(&mut published);
        self.wait = Duration::ZERO;
        // What others want is the business of the shard that forwards.
        self.find_matches(&published);
        self.distribute(&mut published, &mut reach, now);
        reach.durable |= self.record_arrival(&published, None);
        let gate = self.gate_at(published.level, reach.durable);
        let wait = mem::take(&mut self.wait);
        if let Some(received) = self.count_forward(from, 1, wait) {
            if !reach.matched {
                received.unmatched.push(received.count - 1);
            }
            received.awaited = true;
            received.gate = received.gate.max(gate);
        }
    }

    pub(crate) fn on_accepted(
        &mut self,
        from: ShardId,
        through: u64,
        unmatched: &[u64],
        slowed: &[(u64, Duration)],
        now: Now,
    ) {
        // Of the messages that came one after the other from one connection.
        let mut credit: Option<(ConnectionId, (usize, usize))> = None;
        while let Some(unaccepted) = self.unaccepted.get_mut(from.index())
            && unaccepted.first < through
            && let Some(forward) = unaccepted.forwards.pop_front()
        {
            let (number, messages) = (unaccepted.first, forward.messages);
            unaccepted.first += u64::from(messages);
            let slowed = slowed
                .binary_search_by_key(&number, |it| it.0)
                .ok()
                .and_then(|at| slowed.get(at));
            let wait = slowed.map_or(Duration::ZERO, |it| it.1);
            if let Some(returned) = &forward.credit {
                let connection = returned.connection;
                self.slow_down(connection, wait, now);
                let returned = (messages as usize, returned.bytes as usize);
                match &mut credit {
                    Some((same, (messages, bytes))) if *same == connection => {
                        *messages += returned.0;
                        *bytes += returned.1;
                    }
                    _ => {
                        if let Some((other, credit)) = credit.replace((connection, returned)) {
                            self.return_credit(other, credit, now);
                        }
                    }
                }
            }
            match (forward.awaiting, forward.credit) {
                (Awaiting::Ticket(ticket), _) => {
                    let matched = unmatched.binary_search(&number).is_err();
                    self.close_one(ticket, matched, wait, now);
                }
                (Awaiting::Publisher { session, leaving }, Some(credit)) => {
                    let numbers = number..number + u64::from(messages);
                    self.answer_publisher(from, (credit.connection, session), numbers, unmatched);
                    if leaving > 0 {
                        self.uncommitted.arrive(leaving);
                        self.resume_for_store(now);
                    }
                }
                (Awaiting::Nobody | Awaiting::Publisher { .. }, _) => {}
            }
        }
        if let Some((connection, credit)) = credit {
            self.return_credit(connection, credit, now);
        }
    }

    /// Tells a client that messages are where they belong, all but those `unmatched`.
    fn answer_publisher(
        &mut self,
        from: ShardId,
        (connection, session): (ConnectionId, Option<SessionHandle>),
        numbers: Range<u64>,
        unmatched: &[u64],
    ) {
        for number in numbers {
            let unaccepted = self.unaccepted.get_mut(from.index());
            let Some(token) = unaccepted.and_then(|it| it.tokens.pop_front()) else {
                return;
            };
            let reason = if unmatched.binary_search(&number).is_err() {
                ReasonCode::Success
            } else {
                ReasonCode::NoMatchingSubscribers
            };
            if !self.acknowledge(connection, token, reason, None) {
                self.remember_answer(session, token, reason, None);
            }
        }
    }

    /// Answers for the forwards handled since the last call; after each turn.
    pub(crate) fn accept_forwards(&mut self) {
        if !mem::take(&mut self.unanswered) {
            return;
        }
        for shard in self.other_shards() {
            let committed = self.committed;
            let Some(received) = self.received.get_mut(shard.index()) else {
                continue;
            };
            if !mem::take(&mut received.unanswered) {
                continue;
            }
            let accepted = Value::Accepted {
                through: received.count,
                unmatched: mem::take(&mut received.unmatched),
                slowed: mem::take(&mut received.slowed),
                awaited: mem::take(&mut received.awaited),
            };
            // Answers keep their order, so this one waits at least with those before it.
            let before = received.gated.back().map(|(gate, _)| *gate);
            let gate = received.gate.take().max(before);
            let gate = gate.filter(|gate| *gate > committed);
            match gate {
                Some(gate) => received.gated.push_back((gate, accepted)),
                None => self.send(shard, Lane::Confirmations, accepted),
            }
        }
    }

    /// Sends the answers that waited for a commit.
    pub(crate) fn release_answers(&mut self) {
        for shard in self.other_shards() {
            while let Some(received) = self.received.get_mut(shard.index())
                && let Some((_, accepted)) = received
                    .gated
                    .pop_front_if(|(gate, _)| *gate <= self.committed)
            {
                self.send(shard, Lane::Confirmations, accepted);
            }
        }
        while let Some((_, to, value)) = self
            .gated_answers
            .pop_front_if(|(gate, ..)| *gate <= self.committed)
        {
            self.send(to, Lane::Confirmations, value);
        }
    }
}

impl UnacceptedForward {
    /// One more message of so many bytes.
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        if let Some(credit) = &mut self.credit {
            credit.bytes += u32::try_from(bytes).unwrap_or(u32::MAX);
        }
    }
}

/// A message that leaves this shard: the store keeps it for others only once it is accepted.
pub(crate) fn on_its_way(published: Published) -> Published {
    Published {
        stored: published.accepted,
        ..published
    }
}
