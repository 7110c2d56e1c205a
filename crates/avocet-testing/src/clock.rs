//! The time of a broker in memory: that of tokio, which tests may pause.

use std::time::Duration;

use avocet_session::{Instant, Now, UnixTime};

/// When every broker begins: 2023-11-14 22:13:20 UTC.
const BEGIN: UnixTime = UnixTime::from_millis(1_700_000_000_000);

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
        let elapsed = self.origin.elapsed();
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        Now::new(Instant::from_nanos(nanos), BEGIN + elapsed)
    }

    /// The same instant on tokio's clock.
    pub(crate) fn deadline(&self, at: Instant) -> tokio::time::Instant {
        self.origin + Duration::from_nanos(at.as_nanos())
    }
}
