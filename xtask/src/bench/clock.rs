//! The one place of the benches that reads the clock.

use std::time::{Duration, Instant};

#[expect(
    clippy::disallowed_methods,
    reason = "how long a broker and a load may take is told by the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes cannot be waited for with a deadline otherwise"
)]
pub(crate) fn doze(time: Duration) {
    std::thread::sleep(time);
}
