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
    pub(crate) sessions: SessionSubscribers,
    pub(crate) groups: Vec<GroupHandle>,
    /// The other shards with interest.
    pub(crate) shards: Vec<Interested>,
    /// Whether a taker in this shard survives the process, or did.
    pub(crate) durable: bool,
    /// Set until all other shards know that this one has interest.
    pending: Option<InterestToken>,
}

impl Route {
    fn is_empty(&self) -> bool {
        !self.has_takers() && self.shards.is_empty()
    }

    /// Whether this shard wants the messages.
    fn has_takers(&self) -> bool {
        !self.sessions.is_empty() || !self.groups.is_empty()
    }

    fn insert(&mut self, subscriber: Subscriber) {
        match subscriber {
            Subscriber::Session(subscriber) => self.sessions.insert(subscriber),
            Subscriber::Group(group) => {
                if !self.groups.contains(&group) {
                    self.groups.push(group);
                }
            }
        }
    }

    fn remove(&mut self, taker: Taker) {
        match taker {
            Taker::Session(session) => self.sessions.remove(session),
            Taker::Group(group) => self.groups.retain(|other| *other != group),
        }
    }
}

/// Another shard that wants the messages of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interested {
    pub(crate) shard: ShardId,
    /// Whether what it does with them must survive, so that they are stored before they leave.
    pub(crate) durable: bool,
}

/// A taker of messages in this shard, with its options.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subscriber {
    Session(SessionSubscriber),
    Group(GroupHandle),
}

/// A taker of messages in this shard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taker {
    Session(SessionHandle),
    Group(GroupHandle),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionSubscriber {
    pub(crate) session: SessionHandle,
    pub(crate) maximum_qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_id: Option<SubscriptionId>,
}

/// The sessions that subscribe to one filter: many at times, who come and go all at once.
///
/// Ascending by session. What is removed leaves a gap behind, until there are more gaps than
/// sessions.
#[derive(Default)]
pub(crate) struct SessionSubscribers {
    entries: Vec<(SessionHandle, Option<SessionSubscriber>)>,
    gaps: usize,
}

impl SessionSubscribers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SessionSubscriber> {
        self.entries
            .iter()
            .filter_map(|(_, subscriber)| subscriber.as_ref())
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == self.gaps
    }

    /// Adds a session, or changes its options.
    fn insert(&mut self, subscriber: SessionSubscriber) {
        let entry = (subscriber.session, Some(subscriber));
        let at = match self.find(subscriber.session) {
            Ok(at) => at,
            // The gap of a session that had the same place in the table.
            Err(at) if self.is_gap(at.wrapping_sub(1)) => at - 1,
            Err(at) => {
                self.entries.insert(at, entry);
                return;
            }
        };
        self.gaps -= usize::from(self.is_gap(at));
        if let Some(place) = self.entries.get_mut(at) {
            *place = entry;
        }
    }

    fn remove(&mut self, session: SessionHandle) {
        let Ok(at) = self.find(session) else {
            return;
        };
        if let Some((_, subscriber)) = self.entries.get_mut(at)
            && subscriber.take().is_some()
        {
            self.gaps += 1;
        }
        if self.gaps > self.entries.len() / 2 {
            self.entries.retain(|(_, subscriber)| subscriber.is_some());
            self.gaps = 0;
        }
    }

    fn find(&self, session: SessionHandle) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&session, |(session, _)| *session)
    }

    fn is_gap(&self, at: usize) -> bool {
        self.entries
            .get(at)
            .is_some_and(|(_, subscriber)| subscriber.is_none())
    }
}

/// Who waits until all other shards know of an interest.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// What a restart gives back waits as a whole.
    Nobody,
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
    filters: Filters,
    pending: BTreeMap<InterestToken, PendingInterest>,
    next_token: u64,
}

impl Routes {
    pub(crate) fn new(limits: FilterTreeLimits, seed: u64) -> Self {
        Self {
            filters: Filters {
                tree: FilterTree::with_limits(limits).with_seed(seed),
                generation: 0,
            },
            pending: BTreeMap::new(),
            next_token: 1,
        }
    }

    /// The filters and what they lead to.
    pub(crate) const fn tree(&self) -> &FilterTree<Route> {
        &self.filters.tree
    }

    /// Another value than before whenever a topic may have other takers.
    pub(crate) const fn generation(&self) -> u64 {
        self.filters.generation
    }
}

/// The filters, and how often they may have changed.
struct Filters {
    tree: FilterTree<Route>,
    generation: u64,
}

impl Filters {
    /// To change something.
    const fn tree_mut(&mut self) -> &mut FilterTree<Route> {
        self.generation += 1;
        &mut self.tree
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
            .filters
            .tree_mut()
            .get_or_insert_with(filter.as_filter(), Route::default)?;
        let news = !route.has_takers() || (durable && !route.durable);
        route.durable |= durable;
        let durable = route.durable;
        route.insert(subscriber);
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
            .tree()
            .get(filter.as_filter())
            .and_then(|route| route.pending);
        let Some(pending) = token.and_then(|token| self.routes.pending.get_mut(&token)) else {
            return Ok(false);
        };
        if planted!(SubackTooEarly) {
            return Ok(false);
        }
        pending.waiters.push(waiter);
        Ok(true)
    }

    /// Removes a taker; the interest ends with the last one.
    pub(crate) fn remove_subscriber(&mut self, filter: &TopicFilterBuf, taker: Taker) {
        let Some(route) = self.routes.filters.tree_mut().get_mut(filter.as_filter()) else {
            return;
        };
        let wanted = route.has_takers();
        route.remove(taker);
        if !wanted || route.has_takers() {
            return;
        }
        route.pending = None;
        route.durable = false;
        if route.is_empty() {
            self.routes.filters.tree_mut().remove(filter.as_filter());
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
        let granted = match self
            .routes
            .filters
            .tree_mut()
            .get_or_insert_with(filter, Route::default)
        {
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
        let Some(route) = self.routes.filters.tree_mut().get_mut(filter) else {
            return;
        };
        route.shards.retain(|known| known.shard != from);
        if route.is_empty() {
            self.routes.filters.tree_mut().remove(filter);
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
                Waiter::Nobody => {}
                Waiter::Join(waiter) => self.on_group_known(waiter, pending.granted, now),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::sync::Arc;

    use super::*;
    use crate::SessionKey;
    use crate::session_table::{SessionTable, Slot};

    /// Subscriptions come and go like entries of a map, while places in the table of sessions are
    /// used again.
    #[test]
    fn session_subscribers_are_a_map() {
        let mut table = SessionTable::new(0);
        let mut subscribers = SessionSubscribers::default();
        let mut model = BTreeMap::new();
        let mut random = 1_u64;
        let mut handles = Vec::new();
        for n in 0..5_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let pick = (random >> 33) as usize;
            let subscriber = |session| SessionSubscriber {
                session,
                maximum_qos: QoS::AtMostOnce,
                no_local: false,
                retain_as_published: false,
                subscription_id: SubscriptionId::new(n + 1),
            };
            match pick % 5 {
                0 | 1 => {
                    let key = SessionKey::new("", &alloc::format!("{n}"));
                    let session = table.insert(Slot::new(Arc::new(key)));
                    handles.push(session);
                    subscribers.insert(subscriber(session));
                    model.insert(session, subscriber(session));
                }
                2 if !handles.is_empty() => {
                    let session = handles[pick % handles.len()];
                    subscribers.insert(subscriber(session));
                    model.insert(session, subscriber(session));
                }
                _ if !handles.is_empty() => {
                    let session = handles.swap_remove(pick % handles.len());
                    table.remove(session);
                    subscribers.remove(session);
                    model.remove(&session);
                }
                _ => {}
            }
            assert!(subscribers.iter().eq(model.values()));
            assert_eq!(subscribers.is_empty(), model.is_empty());
        }
    }
}
