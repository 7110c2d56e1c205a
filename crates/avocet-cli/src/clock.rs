//! The one place that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use avocet_session::UnixTime;

use crate::date::Date;

/// The date and time.
pub(crate) fn date() -> Date {
    Date::from_unix_nanoseconds(since_1970().as_nanos())
}

/// The same for state machines.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime::from_millis(u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell's clock module"
)]
fn since_1970() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
