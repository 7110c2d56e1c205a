//! Who wants what: the subscriptions of this shard and the interest of the others in one tree.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::{mem, slice};

use avocet_codec::{QoS, SubscriptionId, SubscriptionOptions};
use avocet_session::Now;
use avocet_topic::{FilterTree, FilterTreeLimits, Seed, TopicFilter, TopicFilterBuf, TreeFull};

use crate::Engine;
use crate::session_table::SessionHandle;
use crate::shard::{InterestToken, Lane, ShardId, Value};
use crate::shared::{GroupHandle, JoinWaiter};
use crate::subscribe::SubackWaiter;
use crate::tenant::{Space, SpaceId, Tenant};

/// What a Topic Filter leads to. Most lead to one session or one other shard, so these take no
/// memory of their own.
#[derive(Default)]
pub(crate) enum Route {
    #[default]
    Nobody,
    /// Its mark says whether it survives the process.
    Session(SessionSubscriber),
    Shard(Interested),
    Many(Box<Takers>),
}

/// Those who want the messages of a filter, if they are not just one.
#[derive(Default)]
pub(crate) struct Takers {
    sessions: SessionSubscribers,
    groups: Vec<GroupHandle>,
    /// The other shards with interest.
    shards: Vec<Interested>,
    /// Whether a taker in this shard survives the process, or did.
    durable: bool,
}

impl Route {
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &SessionSubscriber> {
        let entries = match self {
            Self::Session(subscriber) => slice::from_ref(subscriber),
            Self::Many(takers) => &takers.sessions.entries,
            Self::Nobody | Self::Shard(_) => &[],
        };
        entries.iter().filter(|subscriber| !subscriber.is_gone())
    }

    /// The subscription of a session.
    pub(crate) fn session(&self, session: SessionHandle) -> Option<&SessionSubscriber> {
        match self {
            Self::Many(takers) => takers.sessions.get(session),
            Self::Nobody | Self::Session(_) | Self::Shard(_) => {
                self.sessions().find(|it| it.session == session)
            }
        }
    }

    pub(crate) fn groups(&self) -> &[GroupHandle] {
        match self {
            Self::Many(takers) => &takers.groups,
            Self::Nobody | Self::Session(_) | Self::Shard(_) => &[],
        }
    }

    /// The other shards with interest.
    pub(crate) fn shards(&self) -> &[Interested] {
        match self {
            Self::Shard(interested) => slice::from_ref(interested),
            Self::Many(takers) => &takers.shards,
            Self::Nobody | Self::Session(_) => &[],
        }
    }

    /// Whether a taker in this shard survives the process, or did.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Session(only) => only.mark == Mark::Durable,
            Self::Many(takers) => takers.durable,
            Self::Nobody | Self::Shard(_) => false,
        }
    }

    /// Whether this shard wants the messages.
    fn has_takers(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Many(takers) => !takers.sessions.is_empty() || !takers.groups.is_empty(),
            Self::Nobody | Self::Shard(_) => false,
        }
    }

    fn is_empty(&self) -> bool {
        !self.has_takers() && self.shards().is_empty()
    }

    fn insert(&mut self, subscriber: Subscriber, durable: bool) {
        let durable = durable || self.is_durable();
        let known = match self {
            Self::Nobody => true,
            Self::Session(known) => {
                matches!(subscriber, Subscriber::Session(it) if it.session == known.session)
            }
            Self::Shard(_) | Self::Many(_) => false,
        };
        match subscriber {
            Subscriber::Session(only) if known => *self = Self::only(only, durable),
            Subscriber::Session(_) | Subscriber::Group(_) => {
                let takers = self.many();
                takers.durable = durable;
                takers.insert(subscriber);
            }
        }
    }

    /// The last taker in this shard is not durable for those who come after it.
    fn remove(&mut self, taker: Taker) {
        match (&mut *self, taker) {
            (Self::Session(only), Taker::Session(session)) => {
                if only.session == session {
                    *self = Self::Nobody;
                }
            }
            (Self::Many(takers), Taker::Session(session)) => takers.sessions.remove(session),
            (Self::Many(takers), Taker::Group(group)) => {
                takers.groups.retain(|other| *other != group);
            }
            (Self::Session(_), Taker::Group(_)) | (Self::Nobody | Self::Shard(_), _) => {}
        }
        let has_takers = self.has_takers();
        if let Self::Many(takers) = self {
            takers.durable &= has_takers;
        }
        self.shorten();
    }

    fn insert_shard(&mut self, interested: Interested) {
        match self {
            Self::Nobody => *self = Self::Shard(interested),
            Self::Shard(known) if known.shard == interested.shard => *known = interested,
            Self::Shard(_) | Self::Session(_) | Self::Many(_) => {
                let shards = &mut self.many().shards;
                match shards.iter_mut().find(|it| it.shard == interested.shard) {
                    Some(known) => *known = interested,
                    None => shards.push(interested),
                }
            }
        }
    }

    fn remove_shard(&mut self, shard: ShardId) {
        match self {
            Self::Shard(known) if known.shard == shard => *self = Self::Nobody,
            Self::Many(takers) => takers.shards.retain(|known| known.shard != shard),
            Self::Nobody | Self::Session(_) | Self::Shard(_) => {}
        }
        self.shorten();
    }

    fn only(subscriber: SessionSubscriber, durable: bool) -> Self {
        let mark = if durable { Mark::Durable } else { Mark::None };
        Self::Session(SessionSubscriber { mark, ..subscriber })
    }

    /// The form that has room for any number of takers.
    fn many(&mut self) -> &mut Takers {
        if !matches!(self, Self::Many(_)) {
            let mut takers = Takers {
                durable: self.is_durable(),
                ..Takers::default()
            };
            match mem::take(self) {
                Self::Session(only) => takers.sessions.insert(SessionSubscriber {
                    mark: Mark::None,
                    ..only
                }),
                Self::Shard(interested) => takers.shards.push(interested),
                Self::Nobody | Self::Many(_) => {}
            }
            *self = Self::Many(Box::new(takers));
        }
        let Self::Many(takers) = self else {
            unreachable!("it was made so");
        };
        takers
    }

    /// Gives back the memory of a route that leads to one again, or to nobody.
    fn shorten(&mut self) {
        let Self::Many(takers) = self else {
            return;
        };
        let durable = takers.durable;
        if !takers.groups.is_empty() {
            return;
        }
        let sessions = takers.sessions.entries.len() - takers.sessions.gaps;
        *self = match (sessions, takers.shards.as_slice()) {
            (0, []) => Self::Nobody,
            (0, [only]) => Self::Shard(*only),
            (1, []) => match takers.sessions.iter().next() {
                Some(only) => Self::only(*only, durable),
                None => return,
            },
            _ => return,
        };
    }
}

impl Takers {
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
    pub(crate) mark: Mark,
    pub(crate) subscription_id: Option<SubscriptionId>,
}

/// What is to be known of a subscriber where it is kept, in a byte that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    /// The only taker of a route, which survives the process, or one before it did.
    Durable,
    /// A gap among [`SessionSubscribers`].
    Gone,
}

impl SessionSubscriber {
    fn is_gone(&self) -> bool {
        self.mark == Mark::Gone
    }

    pub(crate) fn new(
        session: SessionHandle,
        options: SubscriptionOptions,
        subscription_id: Option<SubscriptionId>,
    ) -> Self {
        Self {
            session,
            maximum_qos: options.maximum_qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            mark: Mark::None,
            subscription_id,
        }
    }
}

/// The sessions that subscribe to one filter: many at times, who come and go all at once.
///
/// Ascending by session. What is removed leaves a gap behind, until there are more gaps than
/// sessions.
#[derive(Default)]
pub(crate) struct SessionSubscribers {
    entries: Vec<SessionSubscriber>,
    gaps: usize,
}

impl SessionSubscribers {
    fn iter(&self) -> impl Iterator<Item = &SessionSubscriber> {
        self.entries
            .iter()
            .filter(|subscriber| !subscriber.is_gone())
    }

    fn get(&self, session: SessionHandle) -> Option<&SessionSubscriber> {
        let found = self.entries.get(self.find(session).ok()?);
        found.filter(|subscriber| !subscriber.is_gone())
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == self.gaps
    }

    /// Adds a session, or changes its options.
    fn insert(&mut self, subscriber: SessionSubscriber) {
        let at = match self.find(subscriber.session) {
            Ok(at) => at,
            // The gap of a session that had the same place in the table.
            Err(at) if self.is_gap(at.wrapping_sub(1)) => at - 1,
            Err(at) => {
                self.entries.insert(at, subscriber);
                return;
            }
        };
        self.gaps -= usize::from(self.is_gap(at));
        if let Some(place) = self.entries.get_mut(at) {
            *place = subscriber;
        }
    }

    fn remove(&mut self, session: SessionHandle) {
        let Ok(at) = self.find(session) else {
            return;
        };
        if let Some(subscriber) = self.entries.get_mut(at)
            && mem::replace(&mut subscriber.mark, Mark::Gone) != Mark::Gone
        {
            self.gaps += 1;
        }
        if self.gaps > self.entries.len() / 2 {
            self.entries.retain(|subscriber| !subscriber.is_gone());
            self.gaps = 0;
        }
    }

    fn find(&self, session: SessionHandle) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&session, |subscriber| subscriber.session)
    }

    fn is_gap(&self, at: usize) -> bool {
        self.entries.get(at).is_some_and(SessionSubscriber::is_gone)
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
    space: SpaceId,
    filter: TopicFilterBuf,
    /// Shards that have not confirmed.
    outstanding: u16,
    granted: bool,
    waiters: Vec<Waiter>,
}

/// Who wants what of one tenant's topics.
pub(crate) struct Routes {
    filters: Filters,
    /// The last interest in a filter that not all other shards know of.
    pending: BTreeMap<TopicFilterBuf, InterestToken>,
}

/// Interests of all tenants that not all other shards know of.
#[derive(Default)]
pub(crate) struct PendingInterests {
    by_token: BTreeMap<InterestToken, PendingInterest>,
    last: u64,
}

impl Routes {
    pub(crate) fn new(limits: FilterTreeLimits, seed: Seed) -> Self {
        Self {
            filters: Filters {
                tree: FilterTree::with_limits(limits, seed),
                generation: 0,
            },
            pending: BTreeMap::new(),
        }
    }

    /// The filters and what they lead to.
    pub(crate) const fn tree(&self) -> &FilterTree<Route> {
        &self.filters.tree
    }

    /// How many probes and comparisons a match takes at most.
    pub(crate) fn probes(&self) -> usize {
        self.filters.tree.shapes_len() + self.filters.tree.overflow_len()
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
        space: SpaceId,
        filter: &TopicFilterBuf,
        subscriber: Subscriber,
        durable: bool,
        waiter: Waiter,
    ) -> Result<bool, TreeFull> {
        let in_space = self.spaces.get_mut(space);
        let route = in_space
            .routes
            .filters
            .tree_mut()
            .get_or_insert_with(filter.as_filter(), Route::default)?;
        let news = !route.has_takers() || (durable && !route.is_durable());
        route.insert(subscriber, durable);
        let durable = route.is_durable();
        if self.shards == 1 {
            return Ok(false);
        }
        if news {
            self.interests.last += 1;
            let token = InterestToken(self.interests.last);
            in_space.routes.pending.insert(filter.clone(), token);
            let tenant = in_space.tenant.clone();
            self.interests.by_token.insert(
                token,
                PendingInterest {
                    space,
                    filter: filter.clone(),
                    outstanding: self.shards - 1,
                    granted: true,
                    waiters: Vec::new(),
                },
            );
            for shard in self.other_shards() {
                let (tenant, filter) = (tenant.clone(), filter.clone());
                let interest = Value::Interest {
                    token,
                    tenant,
                    filter,
                    durable,
                };
                self.send(shard, Lane::Owners, interest);
            }
        }
        let token = self.spaces.routes(space).pending.get(filter);
        let pending = token.and_then(|token| self.interests.by_token.get_mut(token));
        let Some(pending) = pending else {
            return Ok(false);
        };
        if planted!(SubackTooEarly) {
            return Ok(false);
        }
        pending.waiters.push(waiter);
        Ok(true)
    }

    /// Removes a taker; the interest ends with the last one.
    pub(crate) fn remove_subscriber(
        &mut self,
        space: SpaceId,
        filter: &TopicFilterBuf,
        taker: Taker,
    ) {
        let Space { tenant, routes, .. } = self.spaces.get_mut(space);
        let Some(route) = routes.filters.tree_mut().get_mut(filter.as_filter()) else {
            return;
        };
        let wanted = route.has_takers();
        route.remove(taker);
        if !wanted || route.has_takers() {
            return;
        }
        if route.is_empty() {
            routes.filters.tree_mut().remove(filter.as_filter());
        }
        routes.pending.remove(filter);
        let tenant = tenant.clone();
        for shard in self.other_shards() {
            let (tenant, filter) = (tenant.clone(), filter.clone());
            self.send(shard, Lane::Owners, Value::Disinterest { tenant, filter });
        }
    }

    pub(crate) fn on_interest(
        &mut self,
        from: ShardId,
        token: InterestToken,
        tenant: &Tenant,
        filter: TopicFilter<'_>,
        durable: bool,
    ) {
        let interested = Interested {
            shard: from,
            durable,
        };
        let space = self.find_or_begin_space(tenant.as_str());
        let route = space.and_then(|space| {
            let filters = &mut self.spaces.get_mut(space).routes.filters;
            let route = filters
                .tree_mut()
                .get_or_insert_with(filter, Route::default);
            route.ok()
        });
        let granted = route.is_some();
        if let Some(route) = route {
            route.insert_shard(interested);
        }
        let answer = Value::InterestConfirmed { token, granted };
        self.send(from, Lane::Confirmations, answer);
    }

    pub(crate) fn on_disinterest(
        &mut self,
        from: ShardId,
        tenant: &Tenant,
        filter: TopicFilter<'_>,
    ) {
        let Some(space) = self.spaces.find(tenant.as_str()) else {
            return;
        };
        let filters = &mut self.spaces.get_mut(space).routes.filters;
        let Some(route) = filters.tree_mut().get_mut(filter) else {
            return;
        };
        route.remove_shard(from);
        if route.is_empty() {
            filters.tree_mut().remove(filter);
        }
    }

    pub(crate) fn on_interest_confirmed(&mut self, token: InterestToken, granted: bool, now: Now) {
        let Some(pending) = self.interests.by_token.get_mut(&token) else {
            return;
        };
        pending.outstanding -= 1;
        pending.granted &= granted;
        if pending.outstanding > 0 {
            return;
        }
        let Some(pending) = self.interests.by_token.remove(&token) else {
            return;
        };
        let last = &mut self.spaces.get_mut(pending.space).routes.pending;
        if last.get(&pending.filter) == Some(&token) {
            last.remove(&pending.filter);
        }
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

    #[test]
    fn a_route_to_one_taker_is_small() {
        assert_eq!(size_of::<Option<Route>>(), 16);
    }

    /// Whatever form a route has, it leads to those who came and have not gone.
    #[test]
    fn a_route_leads_to_all_its_takers() {
        let mut table = SessionTable::new(0);
        let sessions = [0, 1, 2].map(|n| {
            let key = SessionKey::new("", &alloc::format!("{n}"));
            table.insert(Slot::new(Arc::new(key), SpaceId::NO_TENANT))
        });
        let shards = [1, 2].map(ShardId::new);
        let groups = [GroupHandle::for_test(1), GroupHandle::for_test(2)];
        let mut route = Route::default();
        let mut model = BTreeMap::new();
        let mut durable = false;
        let mut random = 1_u64;
        for _ in 0..5_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bits = (random >> 33) as usize;
            let (taker, comes) = (bits % 7, (bits / 7).is_multiple_of(3));
            let durably = (bits / 21).is_multiple_of(2);
            match taker {
                0..3 if comes => {
                    let options = SubscriptionOptions::default();
                    let id = SubscriptionId::new(bits as u32 % 100 + 1);
                    let subscriber = SessionSubscriber::new(sessions[taker], options, id);
                    route.insert(Subscriber::Session(subscriber), durably);
                }
                0..3 => route.remove(Taker::Session(sessions[taker])),
                3..5 if comes => route.insert(Subscriber::Group(groups[taker - 3]), durably),
                3..5 => route.remove(Taker::Group(groups[taker - 3])),
                _ if comes => route.insert_shard(Interested {
                    shard: shards[taker - 5],
                    durable: durably,
                }),
                _ => route.remove_shard(shards[taker - 5]),
            }
            if comes {
                model.insert(taker, durably);
                durable |= durably && taker < 5;
            } else {
                model.remove(&taker);
            }
            durable &= model.range(..5).next().is_some();
            for (n, session) in sessions.iter().enumerate() {
                assert_eq!(route.session(*session).is_some(), model.contains_key(&n));
            }
            assert_eq!(route.sessions().count(), model.range(..3).count());
            for (n, group) in groups.iter().enumerate() {
                let known = model.contains_key(&(n + 3));
                assert_eq!(route.groups().contains(group), known);
            }
            assert_eq!(route.shards().len(), model.range(5..).count());
            for it in route.shards() {
                let n = usize::from(it.shard.get()) + 4;
                assert_eq!(Some(&it.durable), model.get(&n));
            }
            assert_eq!(route.has_takers(), model.range(..5).next().is_some());
            assert_eq!(route.is_empty(), model.is_empty());
            assert_eq!(route.is_durable(), durable);
            assert!(!model.is_empty() || matches!(route, Route::Nobody));
        }
    }

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
            let subscriber = |session| {
                let id = SubscriptionId::new(n + 1);
                SessionSubscriber::new(session, SubscriptionOptions::default(), id)
            };
            match pick % 5 {
                0 | 1 => {
                    let key = SessionKey::new("", &alloc::format!("{n}"));
                    let session = table.insert(Slot::new(Arc::new(key), SpaceId::NO_TENANT));
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
