//! The one place that reads the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avocet_session::UnixTime;

use crate::date::Date;

/// The date and time.
pub(crate) fn date() -> Date {
    Date::from_unix_nanoseconds(since_1970().as_nanos())
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

/// A clock that never goes back, for measuring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    origin: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell's clock module"
)]
impl Stopwatch {
    /// Zero is this moment.
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Nanoseconds since zero.
    pub(crate) fn nanoseconds(self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Lets time pass, for a thread that is not to be woken by anything.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell's clock module"
)]
pub(crate) fn doze(time: Duration) {
    std::thread::sleep(time);
}

/// The same for state machines.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime::from_millis(u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell's clock module"
)]
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
