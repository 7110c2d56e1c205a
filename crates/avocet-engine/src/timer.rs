//! Time: a wall clock that does not jump, and what is due when.

use alloc::collections::BTreeSet;
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

/// The wall clock as far as it is believed: it never goes back, and follows a jump late. So
/// nothing expires while the clock is behind the last time seen, or has just jumped: gateways boot
/// in 1970.
#[derive(Debug)]
pub(crate) struct Clock {
    /// As given.
    raw: Now,
    /// As believed.
    believed: Now,
    /// When a jump is believed.
    grace_until: Option<Instant>,
}

impl Clock {
    pub(crate) const fn new(now: Now) -> Self {
        Self {
            raw: now,
            believed: now,
            grace_until: None,
        }
    }

    /// The time to go by.
    pub(crate) fn read(&mut self, now: Now) -> Now {
        let elapsed = now.instant.duration_since(self.raw.instant);
        if now.unix.duration_since(self.raw.unix) > elapsed + JUMP {
            self.grace_until = Some(now.instant + JUMP_GRACE);
        }
        self.raw = now;
        let held = self.grace_until.is_some_and(|until| now.instant < until);
        let unix = if held {
            self.believed.unix
        } else {
            self.grace_until = None;
            self.believed.unix.max(now.unix)
        };
        self.believed = Now::new(now.instant, unix);
        self.believed
    }

    /// The time was this once, whatever the wall clock says.
    pub(crate) fn not_before(&mut self, at: UnixTime) {
        self.believed.unix = self.believed.unix.max(at);
    }

    /// The time as last read.
    pub(crate) const fn unix(&self) -> UnixTime {
        self.believed.unix
    }

    /// The last instant read.
    pub(crate) const fn instant(&self) -> Instant {
        self.believed.instant
    }

    /// When a wall clock time comes, as far as can be said.
    pub(crate) fn instant_of(&self, at: UnixTime) -> Instant {
        self.believed.instant + at.duration_since(self.believed.unix)
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
        self.connections.first().map(|(at, _)| *at)
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
    fn clock_stands_still_while_it_is_behind() {
        let mut clock = Clock::new(now(0, 1_000));
        assert_eq!(clock.read(now(1, 10)).unix, now(0, 1_000).unix);
        assert_eq!(clock.read(now(2, 1_001)).unix, now(0, 1_000).unix);
        assert_eq!(clock.read(now(62, 1_061)).unix, now(0, 1_061).unix);
    }

    #[test]
    fn clock_follows_a_jump_late() {
        let mut clock = Clock::new(now(0, 10));
        assert_eq!(clock.read(now(1, 11)).unix, now(0, 11).unix);
        assert_eq!(clock.read(now(2, 1_700_000_000)).unix, now(0, 11).unix);
        assert_eq!(clock.read(now(61, 1_700_000_059)).unix, now(0, 11).unix);
        let followed = now(0, 1_700_000_060).unix;
        assert_eq!(clock.read(now(62, 1_700_000_060)).unix, followed);
    }
}
