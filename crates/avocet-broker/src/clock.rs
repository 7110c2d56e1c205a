//! The only place that reads clocks.

use std::thread;
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use avocet_session::{Instant, Now, UnixTime};

/// Readings of both clocks, with one origin for all shards, so that timers may move between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: StdInstant,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where clocks are read"
    )]
    pub(crate) fn start() -> Self {
        Self {
            origin: StdInstant::now(),
        }
    }

    /// How late it is without the wall clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where clocks are read"
    )]
    pub(crate) fn instant(self) -> Instant {
        Instant::ORIGIN + StdInstant::now().duration_since(self.origin)
    }

    /// Does nothing for so long, and somewhat longer.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing that happens meanwhile is to end it"
    )]
    pub(crate) fn pause(time: Duration) {
        thread::sleep(time);
    }

    /// Both clocks. A wall clock before 1970 counts as 1970.
    pub(crate) fn now(self) -> Now {
        Now::new(self.instant(), unix())
    }

    /// The same, where `last` was the reading before: within one millisecond the wall clock, which is
    /// told in milliseconds, stands still.
    pub(crate) fn now_after(self, last: Now) -> Now {
        let instant = self.instant();
        let millis = |at: Instant| at.as_nanos() / 1_000_000;
        let unix = if millis(instant) == millis(last.instant) {
            last.unix
        } else {
            unix()
        };
        Now::new(instant, unix)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module is where clocks are read"
)]
fn unix() -> UnixTime {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime::from_millis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
}
