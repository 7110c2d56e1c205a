//! Connections that are refused: each is counted, and the operator is told of them as far as he can read.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use avocet_engine::{ConnectionId, RefuseReason};
use avocet_session::Instant;
use tracing::info;

use crate::admission::Pace;

/// Lines of each kind in a second, at most.
const LINES_PER_SECOND: u32 = 10;

const KINDS: usize = RefuseReason::ALL.len();

/// One connection that is refused.
pub(crate) struct Refused<'a> {
    pub(crate) reason: RefuseReason,
    pub(crate) address: &'a dyn Display,
    /// The place of its listener in the configuration.
    pub(crate) listener: u16,
    /// Empty if it has not said it.
    pub(crate) client_id: &'a str,
    /// None if it was not opened.
    pub(crate) connection: Option<ConnectionId>,
    /// Which limit, or what failed.
    pub(crate) text: &'a dyn Display,
}

/// Those of all shards, and of those who accept connections beside them.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Those that no engine has counted, by reason.
    counts: [AtomicU64; KINDS],
    uncounted: AtomicBool,
    lines: [Mutex<Lines>; KINDS],
}

#[derive(Debug, Default)]
struct Lines {
    pace: Pace,
    /// Refusals since the last line.
    untold: u64,
}

impl Refusals {
    /// Counts one that no engine counts.
    pub(crate) fn count(&self, reason: RefuseReason) {
        if let Some(count) = self.counts.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
            self.uncounted.store(true, Ordering::Release);
        }
    }

    /// What was counted since this was asked last: for one engine, which counts it.
    pub(crate) fn take_counts(&self) -> Option<impl Iterator<Item = (RefuseReason, u64)>> {
        // A load, in most turns: writing would take the line from the other shards.
        if !self.uncounted.load(Ordering::Relaxed) {
            return None;
        }
        self.uncounted.swap(false, Ordering::Acquire);
        let counts = self.counts.iter().zip(RefuseReason::ALL);
        Some(counts.map(|(count, reason)| (reason, count.swap(0, Ordering::Relaxed))))
    }

    /// Whether a line of this kind may be written, and then how many refusals there were without one.
    fn may_tell(&self, reason: RefuseReason, now: Instant) -> Option<u64> {
        let lines = self.lines.get(reason as usize)?.lock();
        // Nothing that holds the lock leaves a value half changed.
        let mut lines = lines.unwrap_or_else(PoisonError::into_inner);
        if lines.pace.take(LINES_PER_SECOND, now) {
            return Some(std::mem::take(&mut lines.untold));
        }
        lines.untold += 1;
        None
    }

    /// Tells the operator, if there was not too much of it already.
    pub(crate) fn tell(&self, refused: &Refused<'_>, now: Instant) {
        let Some(others) = self.may_tell(refused.reason, now) else {
            return;
        };
        let handshake = [
            RefuseReason::Handshake,
            RefuseReason::HandshakeTimeout,
            RefuseReason::Handshakes,
        ];
        let unconnected = [RefuseReason::Malformed, RefuseReason::ConnectTimeout];
        let message = if handshake.contains(&refused.reason) {
            "refused within its handshake"
        } else if unconnected.contains(&refused.reason) {
            "closed before it was connected"
        } else {
            "refused"
        };
        info!(
            client_id = Some(refused.client_id).filter(|client_id| !client_id.is_empty()),
            address = %refused.address,
            listener = refused.listener,
            connection = refused.connection.map(display),
            closed_by = "broker",
            reason = %refused.text,
            others,
            "{message}"
        );
    }

    /// Counts one that no engine counts, and tells of it.
    pub(crate) fn count_and_tell(&self, refused: &Refused<'_>, now: Instant) {
        self.count(refused.reason);
        self.tell(refused, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_counted_once() {
        let refusals = Refusals::default();
        assert!(refusals.take_counts().is_none());
        for reason in RefuseReason::ALL {
            (0..=reason as u64).for_each(|_| refusals.count(reason));
        }
        let counts = refusals.take_counts().map(Iterator::collect::<Vec<_>>);
        let expected = RefuseReason::ALL.map(|reason| (reason, reason as u64 + 1));
        assert_eq!(counts.as_deref(), Some(&expected[..]));
        assert!(refusals.take_counts().is_none());
    }

    #[test]
    fn a_flood_of_one_kind_does_not_hide_another_and_is_told_in_few_lines() {
        let refusals = Refusals::default();
        let at = |millis| Instant::ORIGIN + Duration::from_millis(millis);
        let tell = |reason, millis| refusals.may_tell(reason, at(millis));
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(tell(RefuseReason::Handshake, 0), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(tell(RefuseReason::Handshake, 0), None);
        }
        assert_eq!(tell(RefuseReason::Banned, 0), Some(0));
        assert_eq!(tell(RefuseReason::Handshake, 100), Some(1_000));
        assert_eq!(tell(RefuseReason::Handshake, 100), None);
    }
}
