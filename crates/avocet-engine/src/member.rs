//! Shared subscriptions, as the shard of a member's session sees them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use avocet_codec::{QoS, SubscriptionId};
use avocet_session::{Now, Outgoing, Session};
use avocet_topic::TopicFilterBuf;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::queue::{Tag, state};
use crate::record::{GroupPlace, Record};
use crate::session_table::{SessionHandle, SessionKey};
use crate::shard::{GroupChange, GroupMessage, Lane, MembershipId, Published, Value};
use crate::shared::GroupHandle;
use crate::subscribe::SubackWaiter;
use crate::tenant::{GroupName, SpaceId};
use crate::{Engine, Level};

/// A session's place in a group.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) session: SessionHandle,
    pub(crate) group: GroupName,
    /// As the last SUBSCRIBE says, which may be on its way to the group.
    pub(crate) maximum_qos: QoS,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) retain_as_published: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Memberships {
    entries: HashMap<MembershipId, Membership, FixedState>,
    /// Joins that the group's owner has not answered, in order; they may outlive the membership.
    joins: HashMap<MembershipId, VecDeque<Option<SubackWaiter>>, FixedState>,
    next: u64,
}

/// What a message is to the group that gave it to a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPlace {
    pub(crate) membership: MembershipId,
    /// Its place in the order of the group.
    pub(crate) sequence: u64,
    /// The group, if it is one of this shard and has not been restored since.
    pub(crate) group: Option<GroupHandle>,
}

/// What a message of QoS 1 or 2 in a session is to the group that it came from.
#[derive(Debug)]
pub(crate) struct SharedMark {
    pub(crate) place: SharedPlace,
    /// For the group, if the message goes back.
    pub(crate) publisher: Option<Arc<SessionKey>>,
    /// Whether it is recorded as gone from the group: no crash gives it to another member.
    pub(crate) gone: bool,
}

/// The marks of the messages in a session, by number.
#[derive(Debug, Default)]
pub(crate) struct SharedMarks {
    marks: Vec<Option<SharedMark>>,
    free: Vec<usize>,
}

impl SharedMarks {
    /// The number of a new mark; never 0.
    pub(crate) fn insert(&mut self, mark: SharedMark) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.marks.push(None);
            self.marks.len() - 1
        });
        if let Some(place) = self.marks.get_mut(index) {
            *place = Some(mark);
        }
        index as u64 + 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.marks.len()
    }

    pub(crate) fn get(&self, number: u64) -> Option<&SharedMark> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.marks.get(index)?.as_ref()
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut SharedMark> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.marks.get_mut(index)?.as_mut()
    }

    /// The numbers of the marks of a membership.
    fn of(&self, membership: MembershipId) -> impl Iterator<Item = u64> + '_ {
        let numbered = (1..).zip(&self.marks);
        let of = move |(number, mark): (u64, &Option<SharedMark>)| {
            mark.as_ref()
                .is_some_and(|mark| mark.place.membership == membership)
                .then_some(number)
        };
        numbered.filter_map(of)
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<SharedMark> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        let mark = self.marks.get_mut(index)?.take()?;
        self.free.push(index);
        Some(mark)
    }
}

impl Memberships {
    /// The group of a membership, unless that has ended.
    pub(crate) fn group(&self, id: MembershipId) -> Option<&GroupName> {
        self.entries.get(&id).map(|membership| &membership.group)
    }

    /// The session of a membership that gets packets of QoS 0 as they came.
    pub(crate) fn takes_frames(&self, id: MembershipId) -> Option<SessionHandle> {
        let membership = self.entries.get(&id)?;
        let plain = membership.subscription_id.is_none();
        plain.then_some(membership.session)
    }
}

/// Messages that a member mostly is done with at once, at most.
const FINISHED: usize = 32;

impl Engine {
    /// The shared subscription with this filter of those whose space it is.
    pub(crate) fn group_name(&self, space: SpaceId, filter: TopicFilterBuf) -> GroupName {
        GroupName::new(self.spaces.get(space).tenant.clone(), filter)
    }

    pub(crate) fn new_membership(&mut self) -> MembershipId {
        self.memberships.next += 1;
        MembershipId(self.memberships.next)
    }

    /// Asks the owner of a group to take a member; the waiter, if there is one, hears of the answer.
    pub(crate) fn join(
        &mut self,
        id: MembershipId,
        membership: Membership,
        waiter: Option<SubackWaiter>,
        change: GroupChange,
    ) {
        let group = membership.group.clone();
        self.memberships.entries.insert(id, membership);
        self.memberships
            .joins
            .entry(id)
            .or_default()
            .push_back(waiter);
        self.tell_group(group, id, change);
    }

    pub(crate) fn on_joined(&mut self, id: MembershipId, granted: bool, now: Now) {
        let Some(joins) = self.memberships.joins.get_mut(&id) else {
            return;
        };
        let waiter = joins.pop_front();
        if joins.is_empty() {
            self.memberships.joins.remove(&id);
        }
        if let Some(waiter) = waiter.flatten() {
            self.on_subscribed(waiter, granted, now);
        }
    }

    pub(crate) fn leave(&mut self, id: MembershipId) {
        let kept = self.keep_from_group(id);
        if let Some(membership) = self.memberships.entries.remove(&id) {
            self.tell_group(membership.group, id, GroupChange::Leave { kept });
        }
    }

    pub(crate) fn tell_group(
        &mut self,
        group: GroupName,
        membership: MembershipId,
        change: GroupChange,
    ) {
        let owner = self.owner_of_group(&group);
        let value = Value::Group {
            group,
            membership,
            change,
        };
        self.send(owner, Lane::Owners, value);
    }

    /// A group of another shard gives a member a message.
    pub(crate) fn on_shared_deliver(
        &mut self,
        name: GroupName,
        id: MembershipId,
        qos: QoS,
        message: GroupMessage,
        now: Now,
    ) {
        if let Some(message) = self.take_shared(None, id, qos, message, now) {
            self.return_shared(name, id, message);
        }
    }

    /// A message that came when the member had left, or its client, goes back.
    pub(crate) fn return_shared(
        &mut self,
        name: GroupName,
        id: MembershipId,
        message: GroupMessage,
    ) {
        let returned = alloc::vec![message];
        self.tell_group(name, id, GroupChange::Return { returned });
    }

    /// Puts a message into the session of a member, from a group of this shard or of another; back if
    /// the member has left, or its client.
    pub(crate) fn take_shared(
        &mut self,
        group: Option<GroupHandle>,
        id: MembershipId,
        qos: QoS,
        message: GroupMessage,
        now: Now,
    ) -> Option<GroupMessage> {
        let membership = self.memberships.entries.get(&id).filter(|membership| {
            let slot = self.sessions.get(membership.session);
            slot.is_some_and(|slot| slot.connection.is_some())
        });
        let Some(membership) = membership else {
            return Some(message);
        };
        let GroupMessage {
            sequence,
            mut published,
            ..
        } = message;
        let maximum_qos = membership.maximum_qos;
        let outgoing = Outgoing {
            qos: qos.min(maximum_qos),
            retain: published.message.retain() && membership.retain_as_published,
            subscription_id: membership.subscription_id,
            ..Outgoing::new(published.message.clone())
        };
        let session = membership.session;
        let place = SharedPlace {
            membership: id,
            sequence,
            group,
        };
        self.rename_unless_stored(&mut published);
        // What a member has no room for waits in its group: no publisher has to.
        let wait = self.wait;
        self.deliver(session, outgoing, &mut published, Some(place), now);
        self.wait = wait;
        let awaited = group.is_none() || qos > QoS::AtMostOnce;
        if qos.min(maximum_qos) == QoS::AtMostOnce && awaited {
            self.finish_shared(place);
        }
        None
    }

    /// Messages of QoS 2 that a session without records may send next are recorded as gone from
    /// their groups before they leave: they die with the session, also in a crash
    /// [MQTT5-4.8.2-5].
    pub(crate) fn name_gates(&mut self, handle: SessionHandle) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let connection = slot.connection;
        let Some(session) = state(slot, &mut self.connections) else {
            return;
        };
        let tags: Vec<u64> = session.unnamed_gates().collect();
        if tags.is_empty() {
            return;
        }
        for mark in tags.iter().filter_map(|tag| Tag::from_u64(*tag).mark()) {
            self.take_from_group(handle, mark);
        }
        // Some may have been recorded before.
        let gate = self.gate_all();
        if let Some(slot) = self.sessions.get_mut(handle)
            && let Some(session) = state(slot, &mut self.connections)
        {
            session.name_gates(gate);
        }
        if let Some(connection) = connection {
            self.wait_for_commit(connection, Some(gate));
            self.need_flush(connection);
        }
    }

    /// Records that a group does not have a message any more which a member's session has.
    fn take_from_group(&mut self, handle: SessionHandle, mark: u64) {
        let slot = self.sessions.get_mut(handle);
        let Some(mark) = slot.and_then(|slot| slot.marks.get_mut(mark)) else {
            return;
        };
        if let Some(membership) = self.memberships.entries.get(&mark.place.membership)
            && !mem::replace(&mut mark.gone, true)
        {
            let place = GroupPlace {
                group: membership.group.clone(),
                sequence: mark.place.sequence,
            };
            self.record(Record::GroupFinished { place });
        }
    }

    /// Who leaves a group keeps what it has of it: the places of that in the order of the group.
    fn keep_from_group(&mut self, id: MembershipId) -> Vec<u64> {
        let Some(handle) = self.memberships.entries.get(&id).map(|it| it.session) else {
            return Vec::new();
        };
        let Some(slot) = self.sessions.get(handle) else {
            return Vec::new();
        };
        let marks: Vec<u64> = slot.marks.of(id).collect();
        let places = marks.iter().filter_map(|mark| slot.marks.get(*mark));
        let kept = places.map(|mark| mark.place.sequence).collect();
        if slot.names_gates {
            for mark in marks {
                self.take_from_group(handle, mark);
            }
        }
        kept
    }

    /// Tells a group that the member's session is done with a message.
    pub(crate) fn finish_shared(&mut self, place: SharedPlace) {
        let SharedPlace {
            membership,
            sequence,
            group,
        } = place;
        if let Some(group) = group {
            let finished = Value::Finished {
                group,
                membership,
                sequence,
            };
            self.send(self.shard, Lane::Owners, finished);
        } else if let Some(sequences) = self.outbox.last_finished(membership) {
            sequences.push(sequence);
        } else if let Some(of) = self.memberships.entries.get(&membership) {
            let mut sequences = Vec::with_capacity(FINISHED);
            sequences.push(sequence);
            let finished = GroupChange::Finished { sequences };
            self.tell_group(of.group.clone(), membership, finished);
        }
    }

    /// The connection of a session ended: what its groups gave it and others can deliver goes
    /// back, in order [MQTT5-4.8.2].
    pub(crate) fn members_offline(&mut self, handle: SessionHandle, session: &mut Session) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let memberships = slot.subscriptions.open().values();
        let mut returned: BTreeMap<MembershipId, Vec<GroupMessage>> = memberships
            .filter_map(|subscription| Some((subscription.membership?, Vec::new())))
            .collect();
        if returned.is_empty() {
            return;
        }
        let marks = &slot.marks;
        let taken = session.take_where(|outgoing| {
            let tag = Tag::from_u64(outgoing.tag);
            let membership = match tag.mark() {
                Some(mark) => marks.get(mark).map(|mark| mark.place.membership),
                None => tag.qos0_membership(),
            };
            membership.is_some_and(|id| returned.contains_key(&id))
        });
        for (sequence, outgoing) in taken {
            if let Some((id, message)) = self.take_from_member(handle, sequence, outgoing)
                && let Some(messages) = returned.get_mut(&id)
            {
                messages.push(message);
            }
        }
        let mut stored = self.take_stored_from_member(handle, session, &returned);
        for (id, returned) in returned {
            if let Some(membership) = self.memberships.entries.get(&id) {
                let group = membership.group.clone();
                let stored = stored.remove(&id).unwrap_or_default();
                self.tell_group(group, id, GroupChange::Offline { returned, stored });
            }
        }
    }

    /// What goes back of messages that only the store has for a session: their places in the order
    /// of their groups, who have the messages.
    fn take_stored_from_member(
        &mut self,
        handle: SessionHandle,
        session: &mut Session,
        memberships: &BTreeMap<MembershipId, Vec<GroupMessage>>,
    ) -> BTreeMap<MembershipId, Vec<u64>> {
        let mut stored: BTreeMap<MembershipId, Vec<u64>> = BTreeMap::new();
        let Some(slot) = self.sessions.get_mut(handle) else {
            return stored;
        };
        let marks = &slot.marks;
        let wanted = slot.stored_marks.iter().filter_map(|(sequence, mark)| {
            let membership = marks.get(*mark)?.place.membership;
            memberships.contains_key(&membership).then_some(*sequence)
        });
        let key = Arc::clone(&slot.key);
        for sequence in session.take_stored(wanted) {
            let mark = slot.stored_marks.remove(&sequence);
            if let Some(mark) = mark.and_then(|mark| slot.marks.remove(mark)) {
                stored
                    .entry(mark.place.membership)
                    .or_default()
                    .push(mark.place.sequence);
            }
            let session = Arc::clone(&key);
            self.outbox.record(Record::Returned { session, sequence });
        }
        stored
    }

    /// What a message that a session did not deliver is to its group.
    fn take_from_member(
        &mut self,
        handle: SessionHandle,
        sequence: u64,
        outgoing: Outgoing,
    ) -> Option<(MembershipId, GroupMessage)> {
        let slot = self.sessions.get_mut(handle)?;
        let tag = Tag::from_u64(outgoing.tag);
        // QoS 0 has no mark, and no place in the group's order: it goes to the front.
        let mark = match (tag.mark(), tag.qos0_membership()) {
            (Some(mark), _) => slot.marks.remove(mark)?,
            (None, membership) => SharedMark {
                place: SharedPlace {
                    membership: membership?,
                    sequence: 0,
                    group: None,
                },
                publisher: None,
                gone: false,
            },
        };
        if tag.is_recorded() {
            slot.stored_marks.remove(&sequence);
            let session = Arc::clone(&slot.key);
            self.record(Record::Returned { session, sequence });
        }
        // The group knows what it is in the store.
        let published = Published {
            message: outgoing.message,
            publisher: mark.publisher,
            id: None,
            stored: false,
            accepted: false,
            level: Level::default(),
            arrived: None,
        };
        let message = GroupMessage {
            sequence: mark.place.sequence,
            published,
            gone: mark.gone,
        };
        Some((mark.place.membership, message))
    }

    /// The client of a session is back.
    pub(crate) fn members_online(&mut self, handle: SessionHandle) {
        let Some(slot) = self.sessions.get(handle) else {
            return;
        };
        let tenant = &self.spaces.get(slot.space).tenant;
        let groups: Vec<_> = slot
            .subscriptions
            .open()
            .iter()
            .filter_map(|(filter, subscription)| {
                let group = GroupName::new(tenant.clone(), filter.clone());
                Some((group, subscription.membership?))
            })
            .collect();
        for (group, membership) in groups {
            self.tell_group(group, membership, GroupChange::Online);
        }
    }
}
