//! Shared subscriptions, as the shard that owns a group sees them [MQTT5-4.8.2].
//!
//! ```text
//!   match ──> queue of the group ──choose──> member's shard ──> its session ──> acknowledged
//!                   ^                                               │
//!                   └── connection lost: unsent, and QoS 1 ─────────┘   (QoS 2 once sent: stays)
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;

use avocet_codec::QoS;
use avocet_session::{Expiry, Now, Overflow, PublishFrame};
use avocet_topic::TopicFilterBuf;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::config::SharedStrategy;
use crate::counters::DropReason;
use crate::publish::Publisher;
use crate::queue::Tag;
use crate::record::{GroupPlace, Record};
use crate::routes::{Subscriber, Taker, Waiter};
use crate::session_table::SessionKey;
use crate::shard::{
    GroupChange, GroupMessage, Lane, MemberId, MembershipId, Published, ShardId, StableHash, Value,
};
use crate::tenant::{GroupName, SpaceId};
use crate::{Durability, Engine};

/// Where a group is in the table of its owner; never the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupHandle(u64);

#[cfg(test)]
impl GroupHandle {
    pub(crate) const fn for_test(number: u64) -> Self {
        Self(number)
    }
}

/// A new member that waits until its group's filter is known everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinWaiter {
    group: GroupHandle,
    member: MemberId,
}

struct Member {
    id: MemberId,
    maximum_qos: QoS,
    online: bool,
    /// Whether its session survives the process.
    durable: bool,
    /// Messages it was given and has not reported as finished.
    in_flight: usize,
}

struct Group {
    name: GroupName,
    /// What is matched, and among whose topics.
    filter: TopicFilterBuf,
    space: SpaceId,
    /// In the order they joined.
    members: Members,
    /// Ascending sequences.
    queue: VecDeque<GroupMessage>,
    /// Bytes of these.
    queued_bytes: u64,
    /// Messages and bytes that the shard's totals count for this group.
    counted: (usize, u64),
    /// The member whose turn it is.
    turn: usize,
    /// Messages given to members who report when they are finished.
    given: HashMap<u64, Given, FixedState>,
}

/// How the member is chosen that gets a message.
#[derive(Clone, Copy)]
struct Choice {
    strategy: SharedStrategy,
    /// Messages that a member may have at once.
    window: usize,
}

struct Given {
    member: MemberId,
    /// What the next member gets if this one gives it back; none if that is what it gives back.
    published: Option<Box<Published>>,
}

impl Given {
    /// Whether it is stored for its group.
    fn is_stored(&self) -> bool {
        self.published.as_ref().is_some_and(|it| it.stored)
    }
}

/// The members of a group, and what they are together, so that no message asks them all.
#[derive(Default)]
struct Members {
    /// In the order they joined. Who leaves leaves a gap.
    in_order: Vec<Option<Member>>,
    /// Where each of them is.
    places: HashMap<MemberId, usize, FixedState>,
    online: usize,
    durable: usize,
}

impl Members {
    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn get(&self, at: usize) -> Option<&Member> {
        self.in_order.get(at)?.as_ref()
    }

    fn get_mut(&mut self, at: usize) -> Option<&mut Member> {
        self.in_order.get_mut(at)?.as_mut()
    }

    fn find(&mut self, id: MemberId) -> Option<&mut Member> {
        let at = *self.places.get(&id)?;
        self.get_mut(at)
    }

    /// Adds a member, or changes what is known of it.
    fn put(&mut self, member: Member) {
        self.online += usize::from(member.online);
        self.durable += usize::from(member.durable);
        match self.find(member.id) {
            Some(known) => {
                let in_flight = known.in_flight;
                let before = mem::replace(
                    known,
                    Member {
                        in_flight,
                        ..member
                    },
                );
                self.forget(&before);
            }
            None => {
                self.places.insert(member.id, self.in_order.len());
                self.in_order.push(Some(member));
            }
        }
    }

    fn set_online(&mut self, id: MemberId, online: bool) {
        if let Some(member) = self.find(id) {
            let before = mem::replace(&mut member.online, online);
            self.online += usize::from(online);
            self.online -= usize::from(before);
        }
    }

    fn remove(&mut self, id: MemberId) {
        let at = self.places.remove(&id);
        let place = at.and_then(|at| self.in_order.get_mut(at));
        if let Some(member) = place.and_then(Option::take) {
            self.forget(&member);
        }
    }

    fn forget(&mut self, member: &Member) {
        self.online -= usize::from(member.online);
        self.durable -= usize::from(member.durable);
    }

    /// Closes the gaps when they are more than the members; where the member behind `at` is then.
    fn close_gaps(&mut self, at: usize) -> usize {
        if self.in_order.len() <= 2 * self.places.len() {
            return at;
        }
        let before = self.in_order.iter().take(at).flatten().count();
        self.in_order.retain(Option::is_some);
        for (at, member) in self.in_order.iter().enumerate() {
            if let Some(place) = member.as_ref().and_then(|it| self.places.get_mut(&it.id)) {
                *place = at;
            }
        }
        before
    }

    /// Where the members are, from the one at `turn` on.
    fn by_turn(&self, turn: usize) -> impl Iterator<Item = (usize, &Member)> {
        let places = self.in_order.len();
        let turn = turn.checked_rem(places).unwrap_or_default();
        let all = (turn..places).chain(0..turn);
        all.filter_map(|at| Some((at, self.get(at)?)))
    }
}

#[derive(Default)]
pub(crate) struct Groups {
    by_name: BTreeMap<GroupName, GroupHandle>,
    groups: HashMap<GroupHandle, Group, FixedState>,
    next: u64,
    /// The last one given; of all groups, as messages come back to a later group of the name.
    sequence: u64,
}

impl Group {
    fn is_durable(&self) -> bool {
        self.members.durable > 0
    }

    /// The member that gets a message, none if no connected one has room for it.
    fn choose(&mut self, message: &GroupMessage, choice: Choice) -> Option<&mut Member> {
        let published = &message.published;
        let publisher = published.publisher.as_deref();
        let at = self.find_taker(choice, publisher, published.message.topic_bytes())?;
        self.end_turn(at, choice);
        self.members.get_mut(at)
    }

    /// The member at this place got a message.
    fn end_turn(&mut self, at: usize, choice: Choice) {
        let stays = choice.strategy == SharedStrategy::Sticky;
        self.turn = if stays { at } else { at + 1 };
    }

    /// Where the member is that gets a message.
    fn find_taker(
        &self,
        Choice { strategy, window }: Choice,
        publisher: Option<&SessionKey>,
        topic: &[u8],
    ) -> Option<usize> {
        let takes = |member: &Member| member.online && member.in_flight < window;
        let mut by_turn = self.members.by_turn(self.turn);
        let (at, member) = match strategy {
            SharedStrategy::RoundRobin => by_turn.find(|(_, member)| takes(member))?,
            SharedStrategy::LeastInFlight => by_turn
                .filter(|(_, member)| takes(member))
                .min_by_key(|(_, member)| member.in_flight)?,
            // These keep an order, so that a full member is waited for.
            SharedStrategy::Sticky => by_turn.find(|(_, member)| member.online)?,
            SharedStrategy::ByPublisher | SharedStrategy::ByTopic => {
                let hash = match (publisher, strategy) {
                    (Some(publisher), SharedStrategy::ByPublisher) => publisher.stable_hash(),
                    (None, SharedStrategy::ByPublisher) => StableHash::new(),
                    _ => StableHash::new().bytes(topic),
                };
                let index = hash.finish().checked_rem(self.members.online as u64)?;
                let mut online = self.members.by_turn(0).filter(|(_, member)| member.online);
                online.nth(usize::try_from(index).ok()?)?
            }
        };
        takes(member).then_some(at)
    }

    fn remove_member(&mut self, id: MemberId) {
        self.members.remove(id);
        self.turn = self.members.close_gaps(self.turn);
    }

    /// The member does not have the message any more; the message, unless the member did not have
    /// it.
    fn take_back(&mut self, member: MemberId, sequence: u64) -> Option<Given> {
        let Entry::Occupied(given) = self.given.entry(sequence) else {
            return None;
        };
        if given.get().member != member {
            return None;
        }
        if let Some(member) = self.members.find(member) {
            member.in_flight = member.in_flight.saturating_sub(1);
        }
        Some(given.remove())
    }

    /// The member has these messages of the queue.
    fn give(&mut self, member: MemberId, sequences: &[u64]) {
        for sequence in sequences {
            let found = self.queue.binary_search_by_key(sequence, |it| it.sequence);
            let Some(message) = found.ok().and_then(|at| self.queue.remove(at)) else {
                continue;
            };
            self.queued_bytes -= message.published.message.len() as u64;
            let given = Given {
                member,
                published: Some(Box::new(message.published)),
            };
            self.given.insert(*sequence, given);
            if let Some(member) = self.members.find(member) {
                member.in_flight += 1;
            }
        }
    }

    fn put(&mut self, at: usize, message: GroupMessage) {
        self.queued_bytes += message.published.message.len() as u64;
        self.queue.insert(at, message);
    }

    /// Takes a message from the front of the queue, or from its back.
    fn take(&mut self, front: bool) -> Option<GroupMessage> {
        let message = if front {
            self.queue.pop_front()
        } else {
            self.queue.pop_back()
        }?;
        self.queued_bytes -= message.published.message.len() as u64;
        Some(message)
    }

    /// Puts a message where it was before it was given to a member.
    fn put_back(&mut self, message: GroupMessage) {
        let at = self
            .queue
            .partition_point(|queued| queued.sequence <= message.sequence);
        self.put(at, message);
    }
}

impl Groups {
    fn find_or_insert(
        &mut self,
        name: GroupName,
        filter: &TopicFilterBuf,
        space: SpaceId,
    ) -> GroupHandle {
        if let Some(handle) = self.by_name.get(&name) {
            return *handle;
        }
        self.next += 1;
        let handle = GroupHandle(self.next);
        self.by_name.insert(name.clone(), handle);
        let group = Group {
            name,
            filter: filter.clone(),
            space,
            members: Members::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            counted: (0, 0),
            turn: 0,
            given: HashMap::default(),
        };
        self.groups.insert(handle, group);
        handle
    }
}

impl Engine {
    /// Gives a group back a message that it had before a restart; its members come later.
    pub(crate) fn restore_group_message(&mut self, place: GroupPlace, published: Published) {
        let GroupPlace { group, sequence } = place;
        let share = group.filter.as_filter().share().ok().flatten();
        let Some(filter) = share.map(|share| share.topic_filter.to_buf()) else {
            return;
        };
        let space = self.spaces.find_or_begin(group.tenant.as_str());
        self.groups.sequence = self.groups.sequence.max(sequence);
        let handle = self.groups.find_or_insert(group, &filter, space);
        if let Some(group) = self.groups.groups.get_mut(&handle) {
            group.put_back(GroupMessage {
                sequence,
                published,
                gone: false,
            });
        }
    }

    /// Every member that a restart gives back has joined: groups without one are gone.
    pub(crate) fn end_restore_of_groups(&mut self) {
        let mut handles: Vec<GroupHandle> = self.groups.groups.keys().copied().collect();
        handles.sort_unstable();
        for handle in handles {
            self.bound_group(handle);
            let group = self.groups.groups.get(&handle);
            if group.is_some_and(|group| group.members.is_empty()) {
                self.forget_group(handle);
                self.end_group(handle);
            }
        }
    }

    /// Puts a message into a group's queue, and gives members what they can take. True if the
    /// group must survive.
    pub(crate) fn offer_to_group(
        &mut self,
        handle: GroupHandle,
        published: &mut Published,
        now: Now,
    ) -> bool {
        let queue_qos0 = self.config.connection.limits.queue_qos0;
        let (full, really) = (self.is_full(), self.counters.is_full(&self.config.limits));
        let overloaded = self.overloaded;
        let Some(group) = self.groups.groups.get_mut(&handle) else {
            return false;
        };
        if published.has_reached(|shards| ShardId::of_group(&group.name, shards)) {
            return false;
        }
        // Members that keep up take a message at once.
        let keeps_up = group.members.online > 0 && group.queue.is_empty();
        if really || full && !(overloaded && keeps_up) {
            let reason = if really || !overloaded {
                DropReason::TotalFull
            } else {
                DropReason::Overloaded
            };
            self.count_dropped(reason);
            return false;
        }
        let qos0 = published.message.qos() == QoS::AtMostOnce;
        if qos0 && !queue_qos0 && group.members.online == 0 {
            self.count_dropped(DropReason::OfflineQoS0);
            return false;
        }
        let durable = !qos0 && group.is_durable() && published.id.is_some();
        self.groups.sequence += 1;
        let sequence = self.groups.sequence;
        if durable {
            let group = group.name.clone();
            self.store_message(published);
            if let Some(id) = published.id {
                self.record(Record::GroupEnqueued {
                    place: GroupPlace { group, sequence },
                    id,
                    publisher: published.publisher.clone(),
                });
            }
        }
        let message = GroupMessage {
            sequence,
            published: Published {
                // As long as the group has it.
                stored: durable,
                accepted: false,
                arrived: None,
                ..published.clone()
            },
            gone: false,
        };
        if let Some(group) = self.groups.groups.get_mut(&handle) {
            if group.queue.is_empty() {
                if let Some(message) = self.give_to_member(handle, message, now) {
                    self.put_into_group(handle, message);
                }
            } else {
                group.put(group.queue.len(), message);
                self.serve_group(handle, now);
            }
        }
        durable
    }

    /// Puts a message behind all others of a group, as far as there is room.
    fn put_into_group(&mut self, handle: GroupHandle, message: GroupMessage) {
        if let Some(group) = self.groups.groups.get_mut(&handle) {
            group.put(group.queue.len(), message);
        }
        self.bound_group(handle);
    }

    /// Gives members the messages that wait, in order, as far as members can take them.
    fn serve_group(&mut self, handle: GroupHandle, now: Now) {
        while let Some(group) = self.groups.groups.get_mut(&handle)
            && let Some(message) = group.take(true)
        {
            if let Some(message) = self.give_to_member(handle, message, now) {
                if let Some(group) = self.groups.groups.get_mut(&handle) {
                    group.put(0, message);
                }
                break;
            }
        }
        self.bound_group(handle);
    }

    /// Gives a message to a member; back if none can take it.
    fn give_to_member(
        &mut self,
        handle: GroupHandle,
        mut message: GroupMessage,
        now: Now,
    ) -> Option<GroupMessage> {
        let choice = self.choice();
        if message.published.message.remaining_expiry(now.unix) == Expiry::Expired {
            self.forget_message(handle, &message, DropReason::Expired);
            return None;
        }
        let Groups {
            groups, sequence, ..
        } = &mut self.groups;
        let group = groups.get_mut(&handle)?;
        let Some(member) = group.choose(&message, choice) else {
            return Some(message);
        };
        let member_id = member.id;
        let here = member_id.shard == self.shard;
        let qos = message.published.message.qos().min(member.maximum_qos);
        // QoS 0 is over once it is queued; only other shards are waited for, which bounds what
        // is on its way to them.
        if qos == QoS::AtMostOnce && here {
            self.finish_message(handle, message.sequence, message.published.stored);
        } else {
            member.in_flight += 1;
            // One that came back from a delivery of QoS 0 has lost its place.
            if message.sequence == 0 {
                *sequence += 1;
                message.sequence = *sequence;
            }
            // The store may have it alone, under another name, and a hook may make another one of it.
            let stored = self.config.durability == Durability::Stored;
            let differs = stored || self.config.publish_out.is_some();
            let given = Given {
                member: member_id,
                published: differs.then(|| Box::new(message.published.clone())),
            };
            group.given.insert(message.sequence, given);
        }
        let membership = member_id.membership;
        if here {
            let returned = self.take_shared(Some(handle), membership, qos, message, now)?;
            let name = self.groups.groups.get(&handle)?.name.clone();
            self.return_shared(name, membership, returned);
        } else {
            let deliver = Value::SharedDeliver {
                group: self.groups.groups.get(&handle)?.name.clone(),
                membership,
                qos,
                message,
            };
            self.send(member_id.shard, Lane::Subscribers, deliver);
        }
        None
    }

    fn choice(&self) -> Choice {
        // What a member's own queue has no room for waits in the group.
        let queued_max = self.config.connection.limits.queued_messages_max;
        Choice {
            strategy: self.config.shared_strategy,
            window: self.config.limits.group_window.min(queued_max).max(1),
        }
    }

    /// Gives a PUBLISH of QoS 0 to a member of this shard as the packet in which it came from a
    /// connection; false, and nothing done, if the group must have its message.
    pub(crate) fn offer_frame_to_group(
        &mut self,
        handle: GroupHandle,
        from: Publisher<'_>,
        frame: PublishFrame<'_>,
        now: Now,
    ) -> bool {
        let choice = self.choice();
        let Some(group) = self.groups.groups.get(&handle) else {
            return false;
        };
        let publisher = match from {
            Publisher::Connection(id) => {
                let entry = self.connections.get(&id);
                entry.and_then(|entry| entry.key.as_deref())
            }
            Publisher::Session(key) => key,
        };
        let taker = group
            .find_taker(choice, publisher, frame.topic_bytes())
            .filter(|_| group.queue.is_empty())
            .and_then(|at| Some((at, group.members.get(at)?.id)))
            .filter(|(_, member)| member.shard == self.shard);
        let Some((at, MemberId { membership, .. })) = taker else {
            return false;
        };
        let Some(session) = self.memberships.takes_frames(membership) else {
            return false;
        };
        let frame = frame.with_tag(Tag::qos0_of(membership).as_u64());
        // What a member has no room for waits in its group: no publisher has to.
        let wait = self.wait;
        let delivered = self.deliver_frame(session, frame, now);
        self.wait = wait;
        if delivered && let Some(group) = self.groups.groups.get_mut(&handle) {
            group.end_turn(at, choice);
        }
        delivered
    }

    /// Drops what a group's queue has no room for.
    fn bound_group(&mut self, handle: GroupHandle) {
        let messages_max = self.config.limits.group_messages_max;
        let limits = &self.config.connection.limits;
        let (bytes_max, front) = (
            limits.queued_bytes_max,
            limits.overflow == Overflow::DropOldest,
        );
        while let Some(group) = self.groups.groups.get_mut(&handle) {
            let fits = group.queue.len() <= messages_max && group.queued_bytes <= bytes_max;
            if !fits
                && !planted!(GroupUnbounded)
                && let Some(message) = group.take(front)
            {
                self.forget_message(handle, &message, DropReason::GroupFull);
                continue;
            }
            let holds = (group.queue.len(), group.queued_bytes);
            return self.counters.count_queue(&mut group.counted, holds);
        }
    }

    fn forget_message(&mut self, handle: GroupHandle, message: &GroupMessage, reason: DropReason) {
        self.count_dropped(reason);
        self.finish_message(handle, message.sequence, message.published.stored);
    }

    /// Records that a group is done with a message, if it is stored for it.
    fn finish_message(&mut self, handle: GroupHandle, sequence: u64, stored: bool) {
        if !stored {
            return;
        }
        if let Some(group) = self.groups.groups.get(&handle) {
            let group = group.name.clone();
            let place = GroupPlace { group, sequence };
            self.record(Record::GroupFinished { place });
        }
    }

    pub(crate) fn on_group_change(
        &mut self,
        from: ShardId,
        name: GroupName,
        membership: MembershipId,
        change: GroupChange,
        now: Now,
    ) {
        let member_id = MemberId {
            shard: from,
            membership,
        };
        if let GroupChange::Join {
            maximum_qos,
            online,
            durable,
        } = change
        {
            let member = Member {
                id: member_id,
                maximum_qos,
                online,
                durable,
                in_flight: 0,
            };
            self.join_group(name, member, now);
            return;
        }
        let Some(&handle) = self.groups.by_name.get(&name) else {
            if let GroupChange::Offline { returned, .. } | GroupChange::Return { returned } = change
            {
                let dropped = returned.len() as u64;
                self.counters.count_dropped(DropReason::GroupFull, dropped);
            }
            return;
        };
        let Some(group) = self.groups.groups.get_mut(&handle) else {
            return;
        };
        match change {
            GroupChange::Join { .. } => {}
            GroupChange::Leave { kept } => self.leave_group(handle, member_id, &kept),
            GroupChange::Online => group.members.set_online(member_id, true),
            GroupChange::Offline { returned, stored } => {
                group.members.set_online(member_id, false);
                for sequence in stored {
                    let given = group.take_back(member_id, sequence);
                    if let Some(published) = given.and_then(|given| given.published) {
                        group.put_back(GroupMessage {
                            sequence,
                            published: *published,
                            gone: false,
                        });
                    }
                }
                self.return_to_group(handle, member_id, returned);
            }
            GroupChange::Return { returned } => {
                self.return_to_group(handle, member_id, returned);
            }
            GroupChange::Finished { sequences } => {
                for sequence in sequences {
                    self.on_member_finished(handle, member_id, sequence, now);
                }
                return;
            }
            GroupChange::Holds { sequences } => group.give(member_id, &sequences),
        }
        self.serve_group(handle, now);
    }

    /// A member is done with a message.
    pub(crate) fn on_member_finished(
        &mut self,
        handle: GroupHandle,
        member: MemberId,
        sequence: u64,
        now: Now,
    ) {
        let Some(group) = self.groups.groups.get_mut(&handle) else {
            return;
        };
        let something_waits = !group.queue.is_empty();
        if let Some(given) = group.take_back(member, sequence) {
            self.finish_message(handle, sequence, given.is_stored());
        }
        if something_waits {
            self.serve_group(handle, now);
        }
    }

    fn return_to_group(
        &mut self,
        handle: GroupHandle,
        member: MemberId,
        returned: Vec<GroupMessage>,
    ) {
        for mut message in returned {
            let Some(group) = self.groups.groups.get_mut(&handle) else {
                return;
            };
            // An earlier group of this name had what this one did not give.
            let given = group.take_back(member, message.sequence);
            match given.map(|given| given.published) {
                // The member may have had another message made of it.
                Some(Some(published)) => {
                    let publisher = message.published.publisher.take();
                    message.published = *published;
                    message.published.publisher = publisher;
                }
                Some(None) | None => {
                    (message.published.id, message.published.stored) = (None, false)
                }
            }
            if mem::take(&mut message.gone) && message.published.stored {
                let group = group.name.clone();
                self.store_again(group, &mut message);
            }
            if let Some(group) = self.groups.groups.get_mut(&handle) {
                group.put_back(message);
            }
        }
    }

    /// A message that was recorded as gone did not leave, and is the group's again.
    fn store_again(&mut self, group: GroupName, message: &mut GroupMessage) {
        message.published.stored = false;
        let id = self.new_message_id();
        message.published.id = Some(id);
        self.store_message(&mut message.published);
        let sequence = message.sequence;
        self.record(Record::GroupEnqueued {
            place: GroupPlace { group, sequence },
            id,
            publisher: message.published.publisher.clone(),
        });
    }

    fn join_group(&mut self, name: GroupName, member: Member, now: Now) {
        let (member_id, durable) = (member.id, member.durable);
        let share = name.filter.as_filter().share().ok().flatten();
        let Some(filter) = share.map(|share| share.topic_filter.to_buf()) else {
            return;
        };
        let Some(space) = self.find_or_begin_space(name.tenant.as_str()) else {
            self.answer_join(member_id, false);
            return;
        };
        let handle = self.groups.find_or_insert(name, &filter, space);
        if let Some(group) = self.groups.groups.get_mut(&handle) {
            group.members.put(member);
        }
        let waiter = JoinWaiter {
            group: handle,
            member: member_id,
        };
        let subscriber = Subscriber::Group(handle);
        match self.add_subscriber(space, &filter, subscriber, durable, Waiter::Join(waiter)) {
            Ok(true) => {}
            Ok(false) => self.on_group_known(waiter, true, now),
            Err(_full) => self.on_group_known(waiter, false, now),
        }
    }

    /// All shards know of a group's filter, or one of them has no room for it.
    pub(crate) fn on_group_known(&mut self, waiter: JoinWaiter, granted: bool, now: Now) {
        if !granted {
            self.leave_group(waiter.group, waiter.member, &[]);
        }
        self.answer_join(waiter.member, granted);
        self.serve_group(waiter.group, now);
    }

    fn answer_join(&mut self, MemberId { shard, membership }: MemberId, granted: bool) {
        let joined = Value::Joined {
            membership,
            granted,
        };
        self.send(shard, Lane::Confirmations, joined);
    }

    /// What a group has does not survive any more.
    pub(crate) fn forget_group(&mut self, handle: GroupHandle) {
        let Some(group) = self.groups.groups.get_mut(&handle) else {
            return;
        };
        for message in &mut group.queue {
            message.published.stored = false;
        }
        let given = group.given.values_mut();
        for published in given.filter_map(|given| given.published.as_mut()) {
            published.stored = false;
        }
        let group = group.name.clone();
        if self.config.durability == Durability::Stored {
            self.record(Record::GroupDeleted { group });
        }
    }

    /// A member keeps these messages. The rest of what it was given comes back, and is the group's
    /// until then: a crash must not lose it.
    fn leave_group(&mut self, handle: GroupHandle, member: MemberId, kept: &[u64]) {
        let Some(group) = self.groups.groups.get_mut(&handle) else {
            return;
        };
        let mut done = Vec::new();
        for sequence in kept {
            if let Some(given) = group.take_back(member, *sequence) {
                done.push((*sequence, given.is_stored()));
            }
        }
        let was_durable = group.is_durable();
        group.remove_member(member);
        let durable = group.is_durable();
        let empty = group.members.is_empty();
        for (sequence, stored) in done {
            self.finish_message(handle, sequence, stored && durable);
        }
        if was_durable && !durable {
            self.forget_group(handle);
        }
        if !empty {
            return;
        }
        self.end_group(handle);
    }

    fn end_group(&mut self, handle: GroupHandle) {
        let Some(mut group) = self.groups.groups.remove(&handle) else {
            return;
        };
        self.counters.count_queue(&mut group.counted, (0, 0));
        self.groups.by_name.remove(&group.name);
        let dropped = group.queue.len() as u64;
        self.counters.count_dropped(DropReason::GroupFull, dropped);
        self.remove_subscriber(group.space, &group.filter, Taker::Group(handle));
    }
}
