//! Whose connections are taken: how many there are at a listener, from an address and of a user, how
//! fast they come, and who is banned.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avocet_codec::ReasonCode;
use avocet_engine::{Peer, RefuseReason};
use avocet_session::Instant;

use crate::bans::BanList;
use crate::config::{Config, ConnectionLimits, Listener};
use crate::refusals::{Refusals, Refused};

/// Refused connections that may wait for their CONNECT to be told why; others are closed at once.
const REFUSED_MAX: usize = 1_000;

const SECOND: Duration = Duration::from_secs(1);

/// Sources looked at before those are forgotten that nothing is known of.
const SWEEP_MIN: usize = 1_024;

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its address is banned.
    Banned,
    /// There are as many as there may be, of the broker.
    Connections,
    /// Of its listener.
    Listener,
    /// From its address.
    Address,
    /// They come too fast, to its listener.
    ListenerRate,
    /// From its address.
    AddressRate,
}

impl Refusal {
    pub(crate) const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Banned => ReasonCode::Banned,
            Self::Connections | Self::Listener | Self::Address => ReasonCode::QuotaExceeded,
            Self::ListenerRate | Self::AddressRate => ReasonCode::ConnectionRateExceeded,
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Banned => "the address is banned",
            Self::Connections => "too many connections",
            Self::Listener => "too many connections of the listener",
            Self::Address => "too many connections of the address",
            Self::ListenerRate => "too many connections at once for the listener",
            Self::AddressRate => "too many connections at once from the address",
        }
    }
}

/// An address as far as limits go. Whoever has one of IPv6 has a network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
        })
    }
}

/// So many in a second, of which as many may come at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When all that came would have come, one after the other.
    until: Instant,
}

impl Pace {
    /// Counts one more; false if it comes too fast.
    pub(crate) fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let interval = SECOND / per_second.max(1);
        let until = self.until.max(now) + interval;
        if until.duration_since(now) > SECOND {
            return false;
        }
        self.until = until;
        true
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// What is known of a listener or an address.
#[derive(Debug, Default)]
struct Known {
    connections: usize,
    pace: Pace,
}

#[derive(Debug, Default)]
struct State {
    /// By the number of the listener.
    listeners: HashMap<u16, Known>,
    sources: HashMap<Source, Known>,
    /// How many sources there may be before those of which nothing is known are forgotten.
    sweep_at: usize,
    /// The clients of a user, each with its connections: one that is about to be taken over is no
    /// client more.
    users: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    /// Connections that wait to be told why they are refused.
    refused: usize,
}

/// Counts the connections of a broker, for all its shards.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: ConnectionLimits,
    /// By number: how many at once, and in a second.
    listeners: Vec<(Option<usize>, Option<u32>)>,
    connections: AtomicUsize,
    bans: Mutex<Arc<BanList>>,
    state: Mutex<State>,
    pub(crate) refusals: Refusals,
}

/// What is counted for one connection until it is gone.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    listener: Option<u16>,
    source: Option<Source>,
    /// Who it is, once that is known.
    user: Option<Box<str>>,
    client: Option<Box<str>>,
    refused: bool,
}

impl Ticket {
    pub(crate) fn new(admission: &Arc<Admission>) -> Self {
        Self {
            admission: Arc::clone(admission),
            listener: None,
            source: None,
            user: None,
            client: None,
            refused: false,
        }
    }

    /// The client says its name, before it is known whose it is.
    pub(crate) fn name(&mut self, client: &str) {
        self.client = Some(client.into());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = &mut *self.admission.lock();
        if let Some(known) = self.listener.and_then(|it| state.listeners.get_mut(&it)) {
            known.connections = known.connections.saturating_sub(1);
        }
        if let Some(known) = self.source.and_then(|it| state.sources.get_mut(&it)) {
            known.connections = known.connections.saturating_sub(1);
        }
        if let (Some(user), Some(client)) = (&self.user, &self.client)
            && let Some(clients) = state.users.get_mut(user)
        {
            if let Some(connections) = clients.get_mut(client) {
                *connections -= 1;
                if *connections == 0 {
                    clients.remove(client);
                }
            }
            if clients.is_empty() {
                state.users.remove(user);
            }
        }
        state.refused -= usize::from(self.refused);
    }
}

/// The place of one connection among all that the broker may have, from when it is accepted until it is
/// gone.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Admission>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a connection goes on.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Its place; none if it is refused.
    pub(crate) slot: Option<Slot>,
    /// Where something is counted for it.
    pub(crate) ticket: Option<Box<Ticket>>,
    /// What its CONNECT is answered with, if it is refused.
    pub(crate) refused: Option<ReasonCode>,
    /// Whether it is known where its client is.
    pub(crate) located: bool,
}

impl Admission {
    pub(crate) fn new(config: &Config, bans: BanList) -> Self {
        let limits = |it: &Listener| (it.connections_max, it.connects_per_second);
        Self {
            limits: config.connections.clone(),
            listeners: config.listen.iter().map(limits).collect(),
            connections: AtomicUsize::new(0),
            bans: Mutex::new(Arc::new(bans)),
            state: Mutex::default(),
            refusals: Refusals::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves a value half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_bans(&self) -> MutexGuard<'_, Arc<BanList>> {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the address that a connection comes from is banned.
    pub(crate) fn is_banned(&self, peer: &Peer) -> bool {
        self.lock_bans().has_peer(peer)
    }

    pub(crate) fn set_bans(&self, bans: Arc<BanList>) {
        *self.lock_bans() = bans;
    }

    /// A place for one more connection, if there is one.
    fn slot(self: &Arc<Self>) -> Option<Slot> {
        let max = self.limits.connections_max;
        let more = |count| (count < max).then_some(count + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self.connections.fetch_update(set, fetch, more);
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }

    /// A connection came to a listener, and counts from here on. Its `address` is that of its client, none
    /// if only a proxy can say that.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        listener: u16,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<Pass, Refusal> {
        let slot = self.slot().ok_or(Refusal::Connections)?;
        let mut pass = Pass {
            slot: Some(slot),
            ..Pass::default()
        };
        let limits = self.listeners.get(usize::from(listener)).copied();
        let (connections_max, connects_per_second) = limits.unwrap_or_default();
        if connections_max.is_some() || connects_per_second.is_some() {
            let mut state = self.lock();
            let known = state.listeners.entry(listener).or_default();
            if connections_max.is_some_and(|max| known.connections >= max) {
                return Err(Refusal::Listener);
            }
            if connects_per_second.is_some_and(|rate| !known.pace.take(rate, now)) {
                return Err(Refusal::ListenerRate);
            }
            known.connections += 1;
            drop(state);
            self.ticket(&mut pass).listener = Some(listener);
        }
        if let Some(address) = address {
            self.locate(&mut pass, address, now)?;
        }
        Ok(pass)
    }

    /// Where a connection comes from is known.
    pub(crate) fn locate(
        self: &Arc<Self>,
        pass: &mut Pass,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), Refusal> {
        pass.located = true;
        if self.lock_bans().has_address(address) {
            return Err(Refusal::Banned);
        }
        let limits = &self.limits;
        if limits.per_address_max.is_none() && limits.connects_per_address.is_none() {
            return Ok(());
        }
        let source = Source::from(address);
        let mut state = self.lock();
        state.sweep(now);
        let known = state.sources.entry(source).or_default();
        let max = limits.per_address_max;
        if max.is_some_and(|max| known.connections >= max.get() as usize) {
            return Err(Refusal::Address);
        }
        let rate = limits.connects_per_address;
        if rate.is_some_and(|rate| !known.pace.take(rate.get(), now)) {
            return Err(Refusal::AddressRate);
        }
        known.connections += 1;
        drop(state);
        self.ticket(pass).source = Some(source);
        Ok(())
    }

    fn ticket<'a>(self: &Arc<Self>, pass: &'a mut Pass) -> &'a mut Ticket {
        pass.ticket
            .get_or_insert_with(|| Box::new(Ticket::new(self)))
    }

    /// A connection is refused: that is counted, and told to the operator.
    pub(crate) fn tell(
        &self,
        refusal: Refusal,
        address: &dyn Display,
        listener: u16,
        now: Instant,
    ) {
        let refused = Refused {
            reason: refusal.reason_code().into(),
            address,
            listener,
            client_id: "",
            connection: None,
            text: &refusal.text(),
        };
        self.refusals.count_and_tell(&refused, now);
    }

    /// The same where a connection would be one more within its handshake than there may be.
    pub(crate) fn too_many_handshakes(&self, address: &dyn Display, listener: u16, now: Instant) {
        let refused = Refused {
            reason: RefuseReason::Handshakes,
            address,
            listener,
            client_id: "",
            connection: None,
            text: &"too many at once",
        };
        self.refusals.count_and_tell(&refused, now);
    }

    /// Lets a connection that is refused wait for its CONNECT; none if too many do.
    pub(crate) fn refuse(self: &Arc<Self>, refusal: Refusal) -> Option<Pass> {
        let mut state = self.lock();
        if state.refused >= REFUSED_MAX {
            return None;
        }
        state.refused += 1;
        drop(state);
        let mut pass = Pass {
            refused: Some(refusal.reason_code()),
            located: true,
            ..Pass::default()
        };
        self.ticket(&mut pass).refused = true;
        Some(pass)
    }

    /// Whether the connections of users are counted.
    pub(crate) const fn counts_users(&self) -> bool {
        self.limits.per_user_max.is_some()
    }

    /// It is known whose client a connection is; false if its user has as many as there may be.
    pub(crate) fn admit_user(&self, ticket: &mut Ticket, user: &str) -> bool {
        let Some(max) = self.limits.per_user_max else {
            return true;
        };
        let (None, Some(client)) = (&ticket.user, &ticket.client) else {
            // It authenticates again, as the same one.
            return true;
        };
        let mut state = self.lock();
        let clients = state.users.entry(user.into()).or_default();
        if !clients.contains_key(client) && clients.len() >= max.get() as usize {
            return false;
        }
        *clients.entry(client.clone()).or_default() += 1;
        drop(state);
        ticket.user = Some(user.into());
        true
    }
}

impl State {
    /// Forgets addresses without connections, once in a while.
    fn sweep(&mut self, now: Instant) {
        if self.sources.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        let sources = &mut self.sources;
        sources.retain(|_, known| known.connections > 0 || !known.pace.is_idle(now));
        self.sweep_at = 2 * sources.len();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::num::NonZeroU32;

    use super::*;

    const LISTENER: u16 = 0;

    fn admission(change: impl FnOnce(&mut Config)) -> Arc<Admission> {
        let mut config = Config::default();
        change(&mut config);
        Arc::new(Admission::new(&config, BanList::default()))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_kept_for_a_connection_where_nothing_is_limited() {
        let admission = admission(|_| {});
        let pass = admission.arrive(LISTENER, address("10.0.0.1"), at(0));
        assert!(pass.unwrap().ticket.is_none());
    }

    #[test]
    fn a_connection_has_its_place_from_when_it_comes_until_it_is_gone() {
        let admission = admission(|config| {
            config.connections.connections_max = 2;
            config.connections.per_address_max = NonZeroU32::new(1);
        });
        let arrive = |text| admission.arrive(LISTENER, address(text), at(0));
        let first = arrive("10.0.0.1").unwrap();
        // Who is refused for another limit takes no place.
        assert_eq!(arrive("10.0.0.1").unwrap_err(), Refusal::Address);
        let _second = arrive("10.0.0.2").unwrap();
        assert_eq!(arrive("10.0.0.3").unwrap_err(), Refusal::Connections);
        let _told = admission.refuse(Refusal::Connections).unwrap();
        drop(first);
        let _third = arrive("10.0.0.3").unwrap();
        assert_eq!(arrive("10.0.0.4").unwrap_err(), Refusal::Connections);
    }

    #[test]
    fn no_more_get_in_when_many_come_at_once() {
        let admission = admission(|config| config.connections.connections_max = 10);
        let taken = std::thread::scope(|scope| {
            let come = || {
                let arrive = |_| admission.arrive(LISTENER, None, at(0)).ok();
                (0..1_000).filter_map(arrive).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(come)).collect();
            let taken = threads.into_iter().map(|it| it.join().unwrap());
            taken.collect::<Vec<_>>()
        });
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 10);
        drop(taken);
        assert_eq!(admission.connections.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let admission = admission(|config| config.connections.per_address_max = NonZeroU32::new(1));
        let arrive = |text| admission.arrive(LISTENER, address(text), at(0));
        let first = arrive("2001:db8::1").unwrap();
        assert_eq!(arrive("2001:db8::ffff:1").unwrap_err(), Refusal::Address);
        let _other = arrive("2001:db8:0:1::1").unwrap();
        let _v4 = arrive("10.0.0.1").unwrap();
        assert_eq!(arrive("::ffff:10.0.0.1").unwrap_err(), Refusal::Address);
        drop(first);
        arrive("2001:db8::2").unwrap();
    }

    #[test]
    fn connections_of_a_listener_are_counted_until_they_are_gone() {
        let admission = admission(|config| config.listen[0].connections_max = Some(2));
        let arrive = || admission.arrive(LISTENER, None, at(0));
        let first = arrive().unwrap();
        let _second = arrive().unwrap();
        assert_eq!(arrive().unwrap_err(), Refusal::Listener);
        drop(first);
        let _third = arrive().unwrap();
        assert_eq!(arrive().unwrap_err(), Refusal::Listener);
    }

    #[test]
    fn connections_come_as_fast_as_allowed_and_no_faster() {
        let admission =
            admission(|config| config.connections.connects_per_address = NonZeroU32::new(4));
        let arrive = |millis| admission.arrive(LISTENER, address("10.0.0.1"), at(millis));
        for _ in 0..4 {
            arrive(0).unwrap();
        }
        assert_eq!(arrive(0).unwrap_err(), Refusal::AddressRate);
        assert_eq!(arrive(249).unwrap_err(), Refusal::AddressRate);
        arrive(250).unwrap();
        assert_eq!(arrive(250).unwrap_err(), Refusal::AddressRate);
        assert!(
            admission
                .arrive(LISTENER, address("10.0.0.2"), at(250))
                .is_ok()
        );
    }

    #[test]
    fn addresses_of_which_nothing_is_known_are_forgotten() {
        let admission =
            admission(|config| config.connections.connects_per_address = NonZeroU32::new(1));
        for number in 0..100_000_u32 {
            let source = IpAddr::from(number.to_be_bytes());
            let now = at(u64::from(number));
            admission.arrive(LISTENER, Some(source), now).unwrap();
            assert!(admission.lock().sources.len() < 5_000);
        }
    }

    #[test]
    fn a_client_that_takes_its_session_over_is_no_client_more() {
        let admission = admission(|config| config.connections.per_user_max = NonZeroU32::new(2));
        let connect = |user, client| {
            let mut ticket = Ticket::new(&admission);
            ticket.name(client);
            admission.admit_user(&mut ticket, user).then_some(ticket)
        };
        let first = connect("ann", "a").unwrap();
        let _second = connect("ann", "b").unwrap();
        let again = connect("ann", "a").unwrap();
        assert!(connect("ann", "c").is_none());
        assert!(connect("bob", "c").is_some());
        drop(first);
        assert!(connect("ann", "c").is_none());
        drop(again);
        assert!(connect("ann", "c").is_some());
        assert_eq!(admission.lock().users.len(), 1);
    }

    #[test]
    fn only_so_many_wait_to_be_told_why_they_are_refused() {
        let admission = admission(|_| {});
        let refuse = || admission.refuse(Refusal::Banned);
        let told: Vec<_> = (0..REFUSED_MAX).map(|_| refuse().unwrap()).collect();
        assert!(refuse().is_none());
        drop(told);
        assert_eq!(refuse().unwrap().refused, Some(ReasonCode::Banned));
    }
}
