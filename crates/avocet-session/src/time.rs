//! Time as an argument: an instant for timers, a wall clock for what survives.

use core::ops::Add;
use core::time::Duration;

/// A point on the driver's monotonic clock: nanoseconds since an origin the driver chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The driver's origin.
    pub const ORIGIN: Self = Self(0);

    /// The instant this many nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The first of these that there are. The end of time is none: it never comes.
    #[must_use]
    pub fn first_of<const N: usize>(instants: [Option<Self>; N]) -> Option<Self> {
        let mut first = Self(u64::MAX);
        for at in instants {
            first = first.min(at.unwrap_or(Self(u64::MAX)));
        }
        (first.0 < u64::MAX).then_some(first)
    }
}

/// Saturates at the end of time, some 584 years after the origin.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// A wall clock reading in milliseconds since 1970-01-01 UTC: what state that survives may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The time this many milliseconds after 1970-01-01 UTC.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Saturates at the end of time.
impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Both clocks, read once by the driver for everything it handles in one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For the timers of a connection.
    pub instant: Instant,
    /// For deadlines that outlive it: message and session expiry.
    pub unix: UnixTime,
}

impl Now {
    /// Both readings together.
    #[must_use]
    pub const fn new(instant: Instant, unix: UnixTime) -> Self {
        Self { instant, unix }
    }
}

/// Both clocks moved on together.
impl Add<Duration> for Now {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self {
            instant: self.instant + duration,
            unix: self.unix + duration,
        }
    }
}

/// When a connection wants `handle_timeout`, and for which timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The earliest instant at which the call is useful.
    pub at: Instant,
    /// What expires.
    pub timer: Timer,
}

/// The timers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timer {
    /// CONNECT, or its CONNACK, is due.
    Connect,
    /// Server: nothing came for one and a half Keep Alive. Client: a PINGREQ is due.
    KeepAlive,
    /// Client: the PINGRESP is due.
    Pingresp,
    /// The last packet had its time to leave.
    Drain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instant_is_that_of_those_that_come() {
        let at = |nanos| Some(Instant::from_nanos(nanos));
        assert_eq!(Instant::first_of([None, at(3), at(2), None]), at(2));
        assert_eq!(Instant::first_of([at(0), None]), at(0));
        assert_eq!(Instant::first_of([None, None]), None);
        assert_eq!(Instant::first_of([at(u64::MAX)]), None);
    }
}
