//! When the next sync begins, and whether others do it.
//!
//! A sync that is over soon is waited for. Where it takes long, what comes meanwhile does not wait for its end: another
//! one begins beside it, as often as lets them follow each other in equal steps. Disks that do one after the other take
//! together what waits, as if it had been one.

use std::time::Duration;

use avocet_session::Instant;
use avocet_store::SYNCS_MAX;

/// A sync that takes less is not worth another thread.
const QUICK: Duration = Duration::from_millis(1);

/// Syncs are no further apart.
const STEP_MAX: Duration = Duration::from_millis(5);

/// How long syncs take.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// What the last one took.
    took: Duration,
    /// When the last one began that others do.
    begun: Option<Instant>,
}

impl Pace {
    /// Whether others do the next one.
    pub(crate) fn is_slow(&self) -> bool {
        self.took >= QUICK
    }

    /// When others may begin the next one.
    pub(crate) fn next(&self) -> Option<Instant> {
        let step = self.took / SYNCS_MAX as u32;
        self.begun.map(|begun| begun + step.min(STEP_MAX))
    }

    /// Others have begun one.
    pub(crate) fn begun(&mut self, at: Instant) {
        self.begun = Some(at);
    }

    /// One has ended.
    pub(crate) fn ended(&mut self, took: Duration) {
        self.took = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_that_take_long_follow_each_other_in_equal_steps() {
        let mut pace = Pace::default();
        assert!(!pace.is_slow());
        pace.ended(Duration::from_micros(999));
        assert!(!pace.is_slow());
        pace.ended(Duration::from_millis(8));
        assert!(pace.is_slow());
        assert_eq!(pace.next(), None, "the first begins at once");
        pace.begun(Instant::from_nanos(1_000));
        assert_eq!(pace.next(), Some(Instant::from_nanos(2_001_000)));
        pace.ended(Duration::from_secs(1));
        assert_eq!(pace.next(), Some(Instant::from_nanos(5_001_000)));
    }
}
