//! When to connect again: pure, as everything else here.

use core::time::Duration;

use avocet_codec::ReasonCode;

use crate::{CloseReason, Instant};

/// Exponential back-off with full jitter: each wait is drawn uniformly between zero and a ceiling
/// that doubles with each attempt, so that clients which lost their server together do not come
/// back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// The ceiling begins at `min` and ends at `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            attempts: 0,
        }
    }

    /// The wait before the next attempt; `entropy` is a uniformly distributed number.
    pub fn next_wait(&mut self, entropy: u64) -> Duration {
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        // The high half of the product is uniform below `nanos`, without a division.
        Duration::from_nanos(((u128::from(nanos) * u128::from(entropy)) >> 64) as u64)
    }

    /// The longest that the next wait can be.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }

    /// Begins anew at the shortest ceiling.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

impl Default for Backoff {
    /// From one second to two minutes.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(120))
    }
}

/// Decides when to connect again: after each end of a connection and each failed attempt it waits
/// as [`Backoff`] says. A connection must have lasted for a while before the waits become short
/// again, so that a server which accepts and closes at once is not flooded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    backoff: Backoff,
    stable_after: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected { since: Instant },
    Waiting { until: Instant },
}

impl Reconnect {
    /// Ready for the first attempt. A connection that lasted `stable_after` resets the back-off.
    #[must_use]
    pub const fn new(backoff: Backoff, stable_after: Duration) -> Self {
        Self {
            backoff,
            stable_after,
            state: State::Connecting,
        }
    }

    /// The server accepted the connection.
    pub const fn handle_connected(&mut self, now: Instant) {
        self.state = State::Connected { since: now };
    }

    /// A connection ended, or an attempt failed. `entropy` is a uniformly distributed number.
    pub fn handle_closed(&mut self, now: Instant, entropy: u64) {
        if let State::Connected { since } = self.state
            && now.duration_since(since) >= self.stable_after
        {
            self.backoff.reset();
        }
        self.state = State::Waiting {
            until: now + self.backoff.next_wait(entropy),
        };
    }

    /// Whether it is time to connect; if so, the attempt counts as begun.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Connecting;
                true
            }
            State::Waiting { .. } | State::Connecting | State::Connected { .. } => false,
        }
    }

    /// When to connect again; none while connecting or connected.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Connecting | State::Connected { .. } => None,
        }
    }
}

/// Whether a connection that ended like this, or was refused like this, would end like this again
/// whatever the wait: what CONNECT says has to change first, or another client with the same Client
/// Identifier has to go.
#[must_use]
pub fn is_final(reason: CloseReason) -> bool {
    use ReasonCode::{
        BadAuthenticationMethod, Banned, ClientIdentifierNotValid, MalformedPacket, PacketTooLarge,
        PayloadFormatInvalid, ProtocolError, QoSNotSupported, RetainNotSupported, ServerMoved,
        SessionTakenOver, TopicNameInvalid, UnsupportedProtocolVersion,
    };
    match reason {
        CloseReason::Refused(code) => matches!(
            code,
            BadAuthenticationMethod
                | Banned
                | ClientIdentifierNotValid
                | MalformedPacket
                | PacketTooLarge
                | PayloadFormatInvalid
                | ProtocolError
                | QoSNotSupported
                | RetainNotSupported
                | ServerMoved
                | TopicNameInvalid
                | UnsupportedProtocolVersion
        ),
        CloseReason::PeerDisconnected(code) => matches!(code, SessionTakenOver | ServerMoved),
        CloseReason::Disconnected(_) => true,
        CloseReason::ConnectionLost
        | CloseReason::ConnectTimeout
        | CloseReason::KeepAliveTimeout
        | CloseReason::PeerError(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_change_by_waiting_is_final() {
        use CloseReason::{ConnectionLost, Disconnected, PeerDisconnected, Refused};
        for reason in [
            Disconnected(ReasonCode::NORMAL_DISCONNECTION),
            PeerDisconnected(ReasonCode::SessionTakenOver),
            Refused(ReasonCode::UnsupportedProtocolVersion),
        ] {
            assert!(is_final(reason), "{reason}");
        }
        for reason in [
            ConnectionLost,
            PeerDisconnected(ReasonCode::ServerShuttingDown),
            Refused(ReasonCode::ServerBusy),
            Refused(ReasonCode::NotAuthorized),
        ] {
            assert!(!is_final(reason), "{reason}");
        }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const HIGHEST: u64 = u64::MAX;

    /// The highest entropy gives the ceiling, less a rounding of one nanosecond.
    fn wait(backoff: &mut Backoff) -> Duration {
        backoff.next_wait(HIGHEST) + Duration::from_nanos(1)
    }

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(SECOND, 10 * SECOND);
        let waits: [Duration; 6] = core::array::from_fn(|_| wait(&mut backoff));
        assert_eq!(waits, [1, 2, 4, 8, 10, 10].map(Duration::from_secs));
        backoff.reset();
        assert_eq!(wait(&mut backoff), SECOND);
    }

    #[test]
    fn waits_spread_from_zero_to_the_ceiling() {
        let wait = |entropy| Backoff::new(8 * SECOND, 8 * SECOND).next_wait(entropy);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(1 << 63), 4 * SECOND);
        assert_eq!(wait(1 << 61), SECOND);
    }

    #[test]
    fn survives_any_number_of_attempts_and_any_bounds() {
        for (min, max) in [
            (Duration::MAX, Duration::MAX),
            (Duration::ZERO, Duration::ZERO),
        ] {
            let mut backoff = Backoff::new(min, max);
            (0..100).for_each(|_| assert!(backoff.next_wait(HIGHEST) <= max));
            backoff.attempts = u32::MAX;
            assert!(backoff.next_wait(HIGHEST) <= max);
        }
    }

    #[test]
    fn only_a_connection_that_lasted_resets_the_waits() {
        let mut now = Instant::ORIGIN;
        let mut reconnect = Reconnect::new(Backoff::new(SECOND, 60 * SECOND), 10 * SECOND);
        assert_eq!(reconnect.poll_timeout(), None);
        let mut waits = [Duration::ZERO; 4];
        for (wait, lasted) in waits.iter_mut().zip([0, 1, 10, 9]) {
            reconnect.handle_connected(now);
            now = now + lasted * SECOND;
            reconnect.handle_closed(now, HIGHEST);
            let until = reconnect.poll_timeout().unwrap();
            *wait = until.duration_since(now) + Duration::from_nanos(1);
            assert!(!reconnect.handle_timeout(now));
            now = until;
            assert!(reconnect.handle_timeout(now));
            assert_eq!(reconnect.poll_timeout(), None);
        }
        assert_eq!(waits, [1, 2, 1, 2].map(Duration::from_secs));
    }
}
