//! Shared subscriptions, as the shard of a member's session sees them.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use avocet_codec::{QoS, SubscriptionId};
use avocet_session::{Now, Outgoing, Session};
use avocet_topic::TopicFilterBuf;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::Engine;
use crate::record::MessageId;
use crate::session_table::{SessionHandle, SessionKey};
use crate::shard::{GroupChange, GroupMessage, Lane, MembershipId, Published, Value};
use crate::subscribe::SubackWaiter;

/// A session's place in a group.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) session: SessionHandle,
    /// The filter with `$share/` and Share Name.
    pub(crate) group: TopicFilterBuf,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) retain_as_published: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Memberships {
    entries: HashMap<MembershipId, Membership, FixedState>,
    /// Joins that the group's owner has not answered, in order; they may outlive the membership.
    joins: HashMap<MembershipId, VecDeque<SubackWaiter>, FixedState>,
    next: u64,
}

/// What the engine knows of a message in a session, by the tag of its delivery.
#[derive(Debug)]
pub(crate) struct Mark {
    /// What the message is in the store.
    pub(crate) id: Option<MessageId>,
    /// Whether a record says that the session has it.
    pub(crate) recorded: bool,
    /// Set if it came from a group: as which member, and as which of the group's messages.
    pub(crate) shared: Option<(MembershipId, u64)>,
    /// For the group, if the message goes back.
    pub(crate) publisher: Option<Arc<SessionKey>>,
}

impl Mark {
    pub(crate) fn recorded_id(&self) -> Option<MessageId> {
        self.id.filter(|_| self.recorded)
    }
}

/// The marks of all deliveries of a session that have one.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    marks: Vec<Option<Mark>>,
    free: Vec<usize>,
}

/// Tags with this bit mark QoS 0 messages of a membership, whose end no session reports.
const QOS0_OF_MEMBERSHIP: u64 = 1 << 63;

impl Marks {
    /// The tag of a new mark; never 0.
    pub(crate) fn insert(&mut self, mark: Mark) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.marks.push(None);
            self.marks.len() - 1
        });
        if let Some(place) = self.marks.get_mut(index) {
            *place = Some(mark);
        }
        index as u64 + 1
    }

    /// The group's message that a tag marks.
    pub(crate) fn shared(&self, tag: u64) -> Option<(MembershipId, u64)> {
        if let Some(membership) = membership_of(tag) {
            return Some((membership, 0));
        }
        let index = usize::try_from(tag.checked_sub(1)?).ok()?;
        self.marks.get(index)?.as_ref()?.shared
    }

    /// The recorded message that a tag marks.
    pub(crate) fn recorded(&self, tag: u64) -> Option<MessageId> {
        let index = usize::try_from(tag.checked_sub(1)?).ok()?;
        self.marks.get(index)?.as_ref()?.recorded_id()
    }

    /// The message that a tag marks was not recorded after all.
    pub(crate) fn forget_record(&mut self, tag: u64) {
        if membership_of(tag).is_none()
            && let Some(index) = tag.checked_sub(1)
            && let Ok(index) = usize::try_from(index)
            && let Some(Some(mark)) = self.marks.get_mut(index)
        {
            mark.recorded = false;
        }
    }

    pub(crate) fn remove(&mut self, tag: u64) -> Option<Mark> {
        if let Some(membership) = membership_of(tag) {
            return Some(Mark {
                id: None,
                recorded: false,
                shared: Some((membership, 0)),
                publisher: None,
            });
        }
        let index = usize::try_from(tag.checked_sub(1)?).ok()?;
        let mark = self.marks.get_mut(index)?.take()?;
        self.free.push(index);
        Some(mark)
    }
}

pub(crate) const fn qos0_tag(membership: MembershipId) -> u64 {
    QOS0_OF_MEMBERSHIP | membership.0
}

fn membership_of(tag: u64) -> Option<MembershipId> {
    (tag & QOS0_OF_MEMBERSHIP != 0).then_some(MembershipId(tag & !QOS0_OF_MEMBERSHIP))
}

impl Engine {
    pub(crate) fn new_membership(&mut self) -> MembershipId {
        self.memberships.next += 1;
        MembershipId(self.memberships.next)
    }

    /// Asks the owner of a group to take a member; the waiter hears of the answer.
    pub(crate) fn join(
        &mut self,
        id: MembershipId,
        membership: Membership,
        waiter: SubackWaiter,
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
        if let Some(waiter) = waiter {
            self.on_subscribed(waiter, granted, now);
        }
    }

    pub(crate) fn leave(&mut self, id: MembershipId) {
        if let Some(membership) = self.memberships.entries.remove(&id) {
            self.tell_group(membership.group, id, GroupChange::Leave);
        }
    }

    fn tell_group(&mut self, group: TopicFilterBuf, membership: MembershipId, change: GroupChange) {
        let owner = self.owner_of_group(&group);
        let value = Value::Group {
            group,
            membership,
            change,
        };
        self.send(owner, Lane::Owners, value);
    }

    pub(crate) fn on_shared_deliver(
        &mut self,
        group: TopicFilterBuf,
        id: MembershipId,
        qos: QoS,
        message: GroupMessage,
        now: Now,
    ) {
        let online = |membership: &&Membership| {
            let slot = self.sessions.get(membership.session);
            slot.is_some_and(|slot| slot.connection.is_some())
        };
        let Some(membership) = self.memberships.entries.get(&id).filter(online) else {
            // It left, or its client did, while the message was on its way.
            let returned = alloc::vec![message];
            self.tell_group(group, id, GroupChange::Return { returned });
            return;
        };
        let GroupMessage {
            sequence,
            mut published,
        } = message;
        let outgoing = Outgoing {
            qos,
            retain: published.message.retain() && membership.retain_as_published,
            subscription_ids: membership.subscription_id.into_iter().collect(),
            tag: 0,
            gate: None,
            message: Arc::clone(&published.message),
        };
        let session = membership.session;
        let shared = Some((id, sequence));
        self.deliver(session, outgoing, &mut published, shared, now);
    }

    /// A session is done with a marked message.
    pub(crate) fn finish_mark(&mut self, session: SessionHandle, tag: u64) {
        let slot = self.sessions.get_mut(session);
        let Some(mark) = slot.and_then(|slot| slot.marks.remove(tag)) else {
            return;
        };
        self.record_finished(session, &mark);
        self.finish_shared(mark.shared);
    }

    /// Tells a group that the member's session is done with a message.
    pub(crate) fn finish_shared(&mut self, shared: Option<(MembershipId, u64)>) {
        let Some((id, sequence)) = shared.filter(|(_, sequence)| *sequence > 0) else {
            return;
        };
        if let Some(membership) = self.memberships.entries.get(&id) {
            let group = membership.group.clone();
            self.tell_group(group, id, GroupChange::Finished { sequence });
        }
    }

    /// The connection of a session ended: what its groups gave it and others can deliver goes
    /// back, in order [MQTT5-4.8.2].
    pub(crate) fn members_offline(&mut self, handle: SessionHandle, session: &mut Session) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let memberships: Vec<MembershipId> = slot
            .subscriptions
            .values()
            .filter_map(|subscription| subscription.membership)
            .collect();
        if memberships.is_empty() {
            return;
        }
        let marks = &slot.marks;
        let taken = session.take_where(|outgoing| {
            let shared = marks.shared(outgoing.tag);
            shared.is_some_and(|(id, _)| memberships.contains(&id))
        });
        let mut returned: Vec<(MembershipId, GroupMessage)> = Vec::new();
        for (_, outgoing) in taken {
            let slot = self.sessions.get_mut(handle);
            let Some(mark) = slot.and_then(|slot| slot.marks.remove(outgoing.tag)) else {
                continue;
            };
            self.record_finished(handle, &mark);
            let Some((id, sequence)) = mark.shared else {
                continue;
            };
            let published = Published {
                message: outgoing.message,
                publisher: mark.publisher,
                id: mark.id,
                stored: true,
            };
            returned.push((
                id,
                GroupMessage {
                    sequence,
                    published,
                },
            ));
        }
        for id in memberships {
            let of_this = |(other, _): &mut (MembershipId, GroupMessage)| *other == id;
            let returned = returned.extract_if(.., of_this).map(|(_, message)| message);
            let returned = returned.collect();
            if let Some(membership) = self.memberships.entries.get(&id) {
                let group = membership.group.clone();
                self.tell_group(group, id, GroupChange::Offline { returned });
            }
        }
    }

    /// The client of a session is back.
    pub(crate) fn members_online(&mut self, handle: SessionHandle) {
        let Some(slot) = self.sessions.get(handle) else {
            return;
        };
        let groups: Vec<_> = slot
            .subscriptions
            .iter()
            .filter_map(|(group, subscription)| Some((group.clone(), subscription.membership?)))
            .collect();
        for (group, membership) in groups {
            self.tell_group(group, membership, GroupChange::Online);
        }
    }
}
