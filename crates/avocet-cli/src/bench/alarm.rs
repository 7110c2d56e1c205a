//! Being woken at a time, in steps finer than the milliseconds of `Poll`.

use std::time::Duration;

use mio::{Poll, Token};

/// Wakes a poll once, after a time.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Alarm(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn new(poll: &Poll, token: Token) -> std::io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let mut source = mio::unix::SourceFd(&timer.as_raw_fd());
        poll.registry()
            .register(&mut source, token, mio::Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Wakes the poll after this time; how long the poll is to wait if it is not woken.
    pub(crate) fn set(&self, after: Duration) -> Duration {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let time = |seconds: u64, nanoseconds: u32| Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: nanoseconds.into(),
        };
        let timer = Itimerspec {
            it_interval: time(0, 0),
            // Zero would turn it off.
            it_value: time(after.as_secs(), after.subsec_nanos().max(1)),
        };
        // Without it the poll is only less exact.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &timer);
        after + Duration::from_millis(1)
    }
}

/// Elsewhere the poll itself has to do.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new(_poll: &Poll, _token: Token) -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn set(&self, after: Duration) -> Duration {
        after
    }
}
