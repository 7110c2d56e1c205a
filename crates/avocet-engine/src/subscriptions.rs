//! The subscriptions of a session. What they say lies with the routes of their filters, so most are
//! four bytes here.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use avocet_codec::{QoS, SubscriptionId};
use avocet_topic::{FilterId, TopicFilterBuf};

use crate::Engine;
use crate::routes::Routes;
use crate::session_table::SessionHandle;
use crate::shard::MembershipId;

/// One subscription of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    /// Set for a shared subscription.
    pub(crate) membership: Option<MembershipId>,
    /// The SUBACK of the SUBSCRIBE that it comes from, until all shards know of it.
    pub(crate) suback: Option<u64>,
    /// The number of the cursor that its retained messages come by; void once it has ended.
    pub(crate) cursor: u64,
    /// How retained messages come, whichever SUBSCRIBE asked for them.
    pub(crate) maximum_qos: QoS,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) no_local: bool,
}

impl Subscription {
    /// Whether its route says all there is to know.
    fn is_settled(&self) -> bool {
        self.membership.is_none() && self.suback.is_none() && self.cursor == 0
    }
}

#[derive(Default)]
pub(crate) struct Subscriptions {
    /// Ascending. Each is in the tree of routes, because its session is a subscriber there.
    settled: Vec<FilterId>,
    /// Shared ones, and those whose SUBACK or retained messages are yet to come.
    open: BTreeMap<TopicFilterBuf, Subscription>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.settled.len() + self.open.len()
    }

    /// The shared ones, and those whose SUBACK or retained messages are yet to come.
    pub(crate) fn open(&self) -> &BTreeMap<TopicFilterBuf, Subscription> {
        &self.open
    }

    /// Ascending filters of the open ones, then the others in no order that means anything.
    pub(crate) fn filters(&self, routes: &Routes) -> impl Iterator<Item = TopicFilterBuf> {
        let settled = self.settled.iter();
        let settled = settled.filter_map(|id| Some(routes.tree().filter(*id)?.to_buf()));
        self.open.keys().cloned().chain(settled)
    }

    /// The subscription of `session`, whose subscriptions these are.
    pub(crate) fn get(
        &self,
        filter: &TopicFilterBuf,
        session: SessionHandle,
        routes: &Routes,
    ) -> Option<Subscription> {
        if let Some(open) = self.open.get(filter) {
            return Some(*open);
        }
        let id = routes.tree().id(filter.as_filter())?;
        self.settled.binary_search(&id).ok()?;
        let subscriber = routes.tree().get(filter.as_filter())?.session(session)?;
        Some(Subscription {
            membership: None,
            suback: None,
            cursor: 0,
            maximum_qos: subscriber.maximum_qos,
            subscription_id: subscriber.subscription_id,
            no_local: subscriber.no_local,
        })
    }

    /// Adds a subscription, or changes it.
    pub(crate) fn insert(
        &mut self,
        filter: TopicFilterBuf,
        subscription: Subscription,
        routes: &Routes,
    ) {
        let id = routes.tree().id(filter.as_filter());
        let Some(id) = id.filter(|_| subscription.membership.is_none()) else {
            self.open.insert(filter, subscription);
            return;
        };
        match self.settled.binary_search(&id) {
            Ok(at) if !subscription.is_settled() => {
                self.settled.remove(at);
                self.open.insert(filter, subscription);
            }
            Ok(_) => {}
            Err(at) if subscription.is_settled() => {
                self.open.remove(&filter);
                self.settled.insert(at, id);
            }
            Err(_) => {
                self.open.insert(filter, subscription);
            }
        }
    }

    /// Changes an open subscription, which may be settled then.
    pub(crate) fn update_open(
        &mut self,
        filter: &TopicFilterBuf,
        routes: &Routes,
        change: impl FnOnce(&mut Subscription),
    ) {
        if let Some(open) = self.open.get(filter) {
            let mut subscription = *open;
            change(&mut subscription);
            self.insert(filter.clone(), subscription, routes);
        }
    }

    /// Removes a subscription while its filter is still in the tree; true if it was there, and what
    /// it was if it was open.
    pub(crate) fn remove(
        &mut self,
        filter: &TopicFilterBuf,
        routes: &Routes,
    ) -> (bool, Option<Subscription>) {
        if let Some(open) = self.open.remove(filter) {
            return (true, Some(open));
        }
        let id = routes.tree().id(filter.as_filter());
        let at = id.and_then(|id| self.settled.binary_search(&id).ok());
        if let Some(at) = at {
            self.settled.remove(at);
        }
        (at.is_some(), None)
    }
}

impl Engine {
    /// The subscription of a session to a filter.
    pub(crate) fn subscription(
        &self,
        session: SessionHandle,
        filter: &TopicFilterBuf,
    ) -> Option<Subscription> {
        let slot = self.sessions.get(session)?;
        let routes = self.spaces.routes(slot.space);
        slot.subscriptions.get(filter, session, routes)
    }
}
