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

    /// A wall clock before 1970 counts as 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where clocks are read"
    )]
    pub(crate) fn now(self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            instant: self.instant(),
            unix: UnixTime::from_millis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}
