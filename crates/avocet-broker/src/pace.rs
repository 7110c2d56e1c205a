//! When the next sync begins.
//!
//! Clients that wait for an acknowledgement before they go on are released by a sync, and most of their next
//! messages come just after the next one has begun: then two groups of clients take turns, and each sync serves
//! half of them. A sync that took long is worth a wait for those it released.

use std::mem;
use std::time::Duration;

use avocet_session::Instant;

/// A sync that takes less is over before clients come back: nothing waits for them.
const QUICK: Duration = Duration::from_millis(1);

/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// So many syncs begin at once after a wait in vain: clients that publish at a rate of their own do not
/// come back sooner for an acknowledgement.
const SKIPPED: u32 = 8;

/// Whether a group waits for more messages, and for how many.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Messages of the group that is not synced yet.
    group: usize,
    /// Until when the next one waits, and for how many messages.
    wait: Option<(Instant, usize)>,
    /// How many do not.
    skipped: u32,
}

impl Pace {
    #[cfg(test)]
    pub(crate) fn waiting(until: Instant, wanted: usize) -> Self {
        Self {
            wait: Some((until, wanted)),
            ..Self::default()
        }
    }

    /// How long a group of so many messages waits for more, and how many it waits for.
    pub(crate) fn wait(&self, messages: usize, now: Instant) -> Option<(Duration, usize)> {
        let (until, wanted) = self.wait?;
        let waits = messages > 0 && messages < wanted && now < until;
        waits.then(|| (until.duration_since(now), wanted))
    }

    /// Such a wait ended without as many.
    pub(crate) fn missed(&mut self) {
        self.skipped = SKIPPED;
    }

    /// So many messages will be synced.
    pub(crate) fn taken(&mut self, messages: usize) {
        self.group += messages;
    }

    /// They are, and so many came meanwhile.
    pub(crate) fn synced(&mut self, begin: Instant, end: Instant, waiting: usize) {
        let released = mem::take(&mut self.group);
        let took = end.duration_since(begin);
        self.wait = None;
        if self.skipped > 0 {
            self.skipped -= 1;
        } else if took >= QUICK {
            let all = waiting + released;
            // Some are late, some are done.
            let wanted = all - all / 8;
            self.wait = Some((end + (took / 2).min(WAIT_MAX), wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1_000)
    }

    /// After a sync of so many microseconds that served 50 messages, while 50 came.
    fn after(took: u64) -> Pace {
        let mut pace = Pace::default();
        pace.taken(50);
        pace.synced(at(1_000), at(1_000 + took), 50);
        pace
    }

    #[test]
    fn a_group_waits_half_a_sync_for_those_whom_the_last_one_released() {
        let pace = after(4_000);
        let waits = |messages, now| pace.wait(messages, at(now));
        assert_eq!(waits(50, 5_500), Some((Duration::from_micros(1_500), 88)));
        assert_eq!(waits(87, 5_500).map(|(_, wanted)| wanted), Some(88));
        assert_eq!(waits(88, 5_500), None);
        assert_eq!(waits(1, 7_000), None, "quiet for a while");
    }

    #[test]
    fn no_group_waits_long_whatever_a_sync_took() {
        let pace = after(2_000_000);
        assert_eq!(pace.wait(1, at(2_001_000)), Some((WAIT_MAX, 88)));
    }

    #[test]
    fn no_group_waits_after_a_quick_sync() {
        assert_eq!(after(999).wait(1, at(2_000)), None);
        assert!(after(1_000).wait(1, at(2_000)).is_some());
    }

    #[test]
    fn a_client_that_is_alone_waits_for_nobody() {
        let mut pace = Pace::default();
        pace.taken(1);
        pace.synced(at(0), at(4_000), 0);
        assert_eq!(pace.wait(1, at(4_001)), None);
    }

    #[test]
    fn eight_groups_do_not_wait_after_a_wait_in_vain() {
        let mut pace = after(4_000);
        pace.missed();
        for _ in 0..SKIPPED {
            pace.taken(50);
            pace.synced(at(0), at(4_000), 50);
            assert_eq!(pace.wait(1, at(4_001)), None);
        }
        pace.taken(50);
        pace.synced(at(0), at(4_000), 50);
        assert!(pace.wait(1, at(4_001)).is_some());
    }
}
