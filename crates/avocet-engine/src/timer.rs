//! Time: a wall clock that does not jump, and what is due when.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use avocet_session::{Instant, Now, UnixTime};

use crate::ConnectionId;
use crate::session_table::SessionHandle;

/// A wall clock that moves this much more than the monotonic one has jumped.
const JUMP: Duration = Duration::from_secs(60);

/// Timers of a kind that one turn looks at, so that thousands due at once leave turns to others.
pub(crate) const DUE_MAX: usize = 256;

/// How long the time after a jump is not believed.
const JUMP_GRACE: Duration = Duration::from_secs(60);

/// The wall clock as far as it is believed: it never goes back, and follows a jump late. Meanwhile it
/// stands still for sessions and wills, so that none ends because the clock is behind the last time seen
/// or has just jumped: gateways boot in 1970. For messages it goes on as the monotonic clock does: what
/// has passed has passed, and shards that read the clock at different times agree on it.
#[derive(Debug)]
pub(crate) struct Clock {
    /// As given.
    raw: Now,
    /// As believed.
    believed: Now,
    /// When the wall clock was not behind last: for messages, time goes on from here.
    since: Now,
    /// When a jump is believed.
    grace_until: Option<Instant>,
    /// What came of the time as given: a turn gives the same one many times.
    read: Option<Now>,
}

impl Clock {
    pub(crate) const fn new(now: Now) -> Self {
        Self {
            raw: now,
            believed: now,
            since: now,
            grace_until: None,
            read: None,
        }
    }

    /// The time to go by, as it is for messages.
    #[inline]
    pub(crate) fn read(&mut self, now: Now) -> Now {
        match self.read {
            Some(read) if now == self.raw => read,
            _ => self.read_anew(now),
        }
    }

    fn read_anew(&mut self, now: Now) -> Now {
        let elapsed = now.instant.duration_since(self.raw.instant);
        if now.unix.duration_since(self.raw.unix) > elapsed + JUMP {
            self.grace_until = Some(now.instant + JUMP_GRACE);
        }
        self.raw = now;
        let held = self.grace_until.is_some_and(|until| now.instant < until);
        self.believed.instant = now.instant;
        if !held {
            self.grace_until = None;
            self.believed.unix = self.believed.unix.max(now.unix);
            if now.unix >= self.of_messages() {
                self.since = now;
            }
        }
        let read = Now::new(now.instant, self.of_messages());
        self.read = Some(read);
        read
    }

    /// The time was this once, whatever the wall clock says.
    pub(crate) fn not_before(&mut self, at: UnixTime) {
        self.read = None;
        self.believed.unix = self.believed.unix.max(at);
        if self.of_messages() < at {
            self.since = Now::new(self.believed.instant, at);
        }
    }

    /// The time as last read, as it is for sessions and wills.
    pub(crate) const fn unix(&self) -> UnixTime {
        self.believed.unix
    }

    /// The time as last read, as it is for messages.
    pub(crate) fn messages_now(&self) -> UnixTime {
        self.of_messages()
    }

    fn of_messages(&self) -> UnixTime {
        self.since.unix + self.believed.instant.duration_since(self.since.instant)
    }

    /// The last instant read.
    pub(crate) const fn instant(&self) -> Instant {
        self.believed.instant
    }

    /// When a wall clock time comes for a session or a will, as far as can be said.
    pub(crate) fn instant_of(&self, at: UnixTime) -> Instant {
        self.believed.instant + at.duration_since(self.believed.unix)
    }

    /// When a message expires whose wall clock time this is.
    pub(crate) fn expiry_of(&self, at: UnixTime) -> Instant {
        self.believed.instant + at.duration_since(self.of_messages())
    }
}

/// What happens to a session at a wall clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// Its Will Message is published.
    Will,
    /// It ends.
    Expiry,
}

/// What is due when. An entry that is void when its time comes does no harm.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    connections: BTreeSet<(Instant, ConnectionId)>,
    /// When connections are closed that were let in for a time, which are few.
    permits: BTreeMap<ConnectionId, Instant>,
    permits_end: BTreeSet<(Instant, ConnectionId)>,
    sessions: BTreeSet<(UnixTime, Deadline, SessionHandle)>,
}

impl Timers {
    /// Moves the timer of a connection.
    pub(crate) fn set_connection(
        &mut self,
        id: ConnectionId,
        old: Option<Instant>,
        new: Option<Instant>,
    ) {
        if let Some(old) = old {
            self.connections.remove(&(old, id));
        }
        if let Some(new) = new {
            self.connections.insert((new, id));
        }
    }

    /// Until when a connection is let in; for ever if none.
    pub(crate) fn set_permit(&mut self, id: ConnectionId, until: Option<Instant>) {
        let old = match until {
            Some(until) => self.permits.insert(id, until),
            None => self.permits.remove(&id),
        };
        if let Some(old) = old {
            self.permits_end.remove(&(old, id));
        }
        if let Some(until) = until {
            self.permits_end.insert((until, id));
        }
    }

    /// A connection that was let in until now.
    pub(crate) fn pop_permit(&mut self, now: Instant) -> Option<ConnectionId> {
        let (_, id) = self
            .permits_end
            .first()
            .copied()
            .filter(|(at, _)| *at <= now)?;
        self.set_permit(id, None);
        Some(id)
    }

    pub(crate) fn set_session(&mut self, handle: SessionHandle, deadline: Deadline, at: UnixTime) {
        self.sessions.insert((at, deadline, handle));
    }

    pub(crate) fn clear_session(
        &mut self,
        handle: SessionHandle,
        deadline: Deadline,
        at: UnixTime,
    ) {
        self.sessions.remove(&(at, deadline, handle));
    }

    pub(crate) fn next_connection(&self) -> Option<Instant> {
        let due = [self.connections.first(), self.permits_end.first()];
        Instant::first_of(due.map(|first| first.map(|(at, _)| *at)))
    }

    pub(crate) fn next_session(&self) -> Option<UnixTime> {
        self.sessions.first().map(|(at, ..)| *at)
    }

    /// A connection whose time has come.
    pub(crate) fn pop_connection(&mut self, now: Instant) -> Option<ConnectionId> {
        let (at, _) = self.connections.first()?;
        if *at > now {
            return None;
        }
        self.connections.pop_first().map(|(_, id)| id)
    }

    /// A session whose time has come.
    pub(crate) fn pop_session(&mut self, now: UnixTime) -> Option<(Deadline, SessionHandle)> {
        let (at, ..) = self.sessions.first()?;
        if *at > now {
            return None;
        }
        self.sessions
            .pop_first()
            .map(|(_, deadline, handle)| (deadline, handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(instant_secs: u64, unix_secs: u64) -> Now {
        Now::new(
            Instant::from_nanos(instant_secs * 1_000_000_000),
            UnixTime::from_millis(unix_secs * 1_000),
        )
    }

    #[test]
    fn clock_stands_still_for_sessions_while_it_is_behind() {
        let mut clock = Clock::new(now(0, 1_000));
        for (instant, unix, sessions, messages) in [
            (1, 10, 1_000, 1_001),
            (2, 1_001, 1_000, 1_002),
            (62, 1_061, 1_061, 1_062),
            (63, 1_064, 1_064, 1_064),
        ] {
            let read = clock.read(now(instant, unix)).unix;
            assert_eq!(clock.unix(), now(0, sessions).unix, "{instant}");
            assert_eq!(read, now(0, messages).unix, "{instant}");
        }
    }

    #[test]
    fn clock_follows_a_jump_late() {
        let mut clock = Clock::new(now(0, 10));
        for (instant, unix, sessions, messages) in [
            (1, 11, 11, 11),
            (2, 1_700_000_000, 11, 12),
            (61, 1_700_000_059, 11, 71),
            (62, 1_700_000_060, 1_700_000_060, 1_700_000_060),
        ] {
            let read = clock.read(now(instant, unix)).unix;
            assert_eq!(clock.unix(), now(0, sessions).unix, "{instant}");
            assert_eq!(read, now(0, messages).unix, "{instant}");
        }
    }

    #[test]
    fn clocks_agree_on_messages_however_often_they_were_read() {
        let (mut busy, mut idle) = (Clock::new(now(0, 1_000)), Clock::new(now(0, 1_000)));
        for step in 1..=50_000 {
            busy.read(now(0, 1_000) + Duration::from_micros(step * 700));
        }
        for step in 50_000..=100_000 {
            busy.read(now(0, 10) + Duration::from_micros(step * 700));
        }
        let last = now(70, 10);
        assert_eq!(busy.read(last), idle.read(last));
        assert_eq!(busy.read(last), now(70, 1_070));
    }

    #[test]
    fn clock_goes_on_behind_the_last_time_of_an_earlier_run() {
        let mut clock = Clock::new(now(0, 10));
        clock.not_before(now(0, 1_000).unix);
        clock.not_before(now(0, 500).unix);
        assert_eq!(clock.read(now(3, 13)), now(3, 1_003));
        assert_eq!(clock.unix(), now(0, 1_000).unix);
        let at = now(0, 1_010).unix;
        let due = |seconds| now(seconds, 0).instant;
        assert_eq!(
            (clock.instant_of(at), clock.expiry_of(at)),
            (due(13), due(10))
        );
    }
}
