//! The one place that reads the clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avocet_session::{Instant, Now, UnixTime};

/// Both clocks; the origin of instants is when this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let elapsed = self.origin.elapsed().as_nanos();
        let instant = Instant::from_nanos(u64::try_from(elapsed).unwrap_or(u64::MAX));
        Now::new(instant, unix_time())
    }

    /// As good as never: some ten years from the origin.
    pub(crate) fn far_future(&self) -> tokio::time::Instant {
        self.origin + Duration::from_secs(10 * 365 * 86_400)
    }

    /// The same instant on tokio's clock.
    pub(crate) fn deadline(&self, at: Instant) -> tokio::time::Instant {
        self.origin + Duration::from_nanos(at.as_nanos())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell's clock module"
)]
fn unix_time() -> UnixTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
