//! Who wants what: the subscriptions of this shard and the interest of the others in one tree.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use avocet_codec::{QoS, SubscriptionId};
use avocet_session::Now;
use avocet_topic::{FilterTree, FilterTreeLimits, TopicFilter, TopicFilterBuf, TreeFull};

use crate::Engine;
use crate::session_table::SessionHandle;
use crate::shard::{InterestToken, Lane, ShardId, Value};
use crate::shared::{GroupHandle, JoinWaiter};
use crate::subscribe::SubackWaiter;

/// What a Topic Filter leads to.
#[derive(Default)]
pub(crate) struct Route {
    pub(crate) subscribers: Vec<Subscriber>,
    /// The other shards with interest.
    pub(crate) shards: Vec<Interested>,
    /// Whether a taker in this shard survives the process, or did.
    pub(crate) durable: bool,
    /// Set until all other shards know that this one has interest.
    pending: Option<InterestToken>,
}

impl Route {
    fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.shards.is_empty()
    }
}

/// Another shard that wants the messages of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interested {
    pub(crate) shard: ShardId,
    /// Whether what it does with them must survive, so that they are stored before they leave.
    pub(crate) durable: bool,
}

/// A taker of messages in this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscriber {
    Session(SessionSubscriber),
    Group(GroupHandle),
}

impl Subscriber {
    /// Whether both are the same taker, whatever the options.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Session(a), Self::Session(b)) => a.session == b.session,
            (Self::Group(a), Self::Group(b)) => a == b,
            (Self::Session(_), Self::Group(_)) | (Self::Group(_), Self::Session(_)) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionSubscriber {
    pub(crate) session: SessionHandle,
    pub(crate) maximum_qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_id: Option<SubscriptionId>,
}

/// Who waits until all other shards know of an interest.
#[derive(Debug)]
pub(crate) enum Waiter {
    Suback(SubackWaiter),
    Join(JoinWaiter),
}

struct PendingInterest {
    /// Shards that have not confirmed.
    outstanding: u16,
    granted: bool,
    waiters: Vec<Waiter>,
}

pub(crate) struct Routes {
    pub(crate) tree: FilterTree<Route>,
    pending: BTreeMap<InterestToken, PendingInterest>,
    next_token: u64,
}

impl Routes {
    pub(crate) fn new(limits: FilterTreeLimits, seed: u64) -> Self {
        Self {
            tree: FilterTree::with_limits(limits).with_seed(seed),
            pending: BTreeMap::new(),
            next_token: 1,
        }
    }
}

impl Engine {
    /// Adds a taker, or changes its options. True if it is not yet known to all other shards; the
    /// waiter hears of it then.
    pub(crate) fn add_subscriber(
        &mut self,
        filter: &TopicFilterBuf,
        subscriber: Subscriber,
        durable: bool,
        waiter: Waiter,
    ) -> Result<bool, TreeFull> {
        let route = self
            .routes
            .tree
            .get_or_insert_with(filter.as_filter(), Route::default)?;
        let news = route.subscribers.is_empty() || (durable && !route.durable);
        route.durable |= durable;
        let durable = route.durable;
        match route
            .subscribers
            .iter_mut()
            .find(|other| other.is_same(&subscriber))
        {
            Some(other) => *other = subscriber,
            None => route.subscribers.push(subscriber),
        }
        if news && self.shards > 1 {
            let token = InterestToken(self.routes.next_token);
            self.routes.next_token += 1;
            route.pending = Some(token);
            self.routes.pending.insert(
                token,
                PendingInterest {
                    outstanding: self.shards - 1,
                    granted: true,
                    waiters: Vec::new(),
                },
            );
            for shard in self.other_shards() {
                let filter = filter.clone();
                let interest = Value::Interest {
                    token,
                    filter,
                    durable,
                };
                self.send(shard, Lane::Owners, interest);
            }
        }
        let token = self
            .routes
            .tree
            .get(filter.as_filter())
            .and_then(|route| route.pending);
        let Some(pending) = token.and_then(|token| self.routes.pending.get_mut(&token)) else {
            return Ok(false);
        };
        pending.waiters.push(waiter);
        Ok(true)
    }

    /// Removes a taker; the interest ends with the last one.
    pub(crate) fn remove_subscriber(&mut self, filter: &TopicFilterBuf, subscriber: Subscriber) {
        let Some(route) = self.routes.tree.get_mut(filter.as_filter()) else {
            return;
        };
        let before = route.subscribers.len();
        route
            .subscribers
            .retain(|other| !other.is_same(&subscriber));
        if before == 0 || !route.subscribers.is_empty() {
            return;
        }
        route.pending = None;
        route.durable = false;
        if route.is_empty() {
            self.routes.tree.remove(filter.as_filter());
        }
        for shard in self.other_shards() {
            let filter = filter.clone();
            self.send(shard, Lane::Owners, Value::Disinterest { filter });
        }
    }

    pub(crate) fn on_interest(
        &mut self,
        from: ShardId,
        token: InterestToken,
        filter: TopicFilter<'_>,
        durable: bool,
    ) {
        let interested = Interested {
            shard: from,
            durable,
        };
        let granted = match self.routes.tree.get_or_insert_with(filter, Route::default) {
            Ok(route) => {
                match route.shards.iter_mut().find(|known| known.shard == from) {
                    Some(known) => *known = interested,
                    None => route.shards.push(interested),
                }
                true
            }
            Err(_full) => false,
        };
        let answer = Value::InterestConfirmed { token, granted };
        self.send(from, Lane::Confirmations, answer);
    }

    pub(crate) fn on_disinterest(&mut self, from: ShardId, filter: TopicFilter<'_>) {
        let Some(route) = self.routes.tree.get_mut(filter) else {
            return;
        };
        route.shards.retain(|known| known.shard != from);
        if route.is_empty() {
            self.routes.tree.remove(filter);
        }
    }

    pub(crate) fn on_interest_confirmed(&mut self, token: InterestToken, granted: bool, now: Now) {
        let Some(pending) = self.routes.pending.get_mut(&token) else {
            return;
        };
        pending.outstanding -= 1;
        pending.granted &= granted;
        if pending.outstanding > 0 {
            return;
        }
        let Some(pending) = self.routes.pending.remove(&token) else {
            return;
        };
        for waiter in pending.waiters {
            match waiter {
                Waiter::Suback(waiter) => self.on_subscribed(waiter, pending.granted, now),
                Waiter::Join(waiter) => self.on_group_known(waiter, pending.granted, now),
            }
        }
    }
}
