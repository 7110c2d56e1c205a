//! How fast a client may publish, and how fast it is sent messages.

use alloc::boxed::Box;
use core::time::Duration;

use avocet_codec::ReasonCode;
use avocet_session::{Instant, Now};

use crate::config::{Overrun, Rate};
use crate::counters::DropReason;
use crate::{ConnectionId, Engine};

/// As much as in this time may come at once.
const BURST: Duration = Duration::from_secs(1);

/// No pause is longer, so that a client which is gone is noticed. What was too much is still owed.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a connection has done of what it may do.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    publish: Spent,
    deliver: Spent,
    /// When messages are sent to it again.
    pub(crate) held_until: Option<Instant>,
}

/// What was spent of a rate: when all of it would be over, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    messages: Instant,
    bytes: Instant,
}

impl Spent {
    /// Spends, though there may be too little left: then the time until there is enough again.
    fn spend(&mut self, rate: &Rate, messages: u64, bytes: u64, now: Instant) -> Duration {
        let spend = |until: &mut Instant, per_second: u32, count: u64| {
            if per_second == 0 {
                return Duration::ZERO;
            }
            let nanos = u128::from(count) * BURST.as_nanos() / u128::from(per_second);
            let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            *until = (*until).max(now) + cost;
            until.duration_since(now + BURST)
        };
        let by_messages = spend(&mut self.messages, rate.messages_per_second, messages);
        by_messages.max(spend(&mut self.bytes, rate.bytes_per_second, bytes))
    }

    /// Spends if enough is left; a message larger than all there may be is let through alone.
    fn try_spend(&mut self, rate: &Rate, bytes: u64, now: Instant) -> bool {
        let limits = [
            (self.messages, rate.messages_per_second),
            (self.bytes, rate.bytes_per_second),
        ];
        let over = |(until, per_second): &(Instant, u32)| *per_second > 0 && *until >= now + BURST;
        if limits.iter().any(over) {
            return false;
        }
        self.spend(rate, 1, bytes, now);
        true
    }

    /// How many messages may be sent, at least one if any.
    fn left(&self, rate: &Rate, now: Instant) -> u16 {
        if rate.bytes_per_second > 0 && self.bytes >= now + BURST {
            return 0;
        }
        if rate.messages_per_second == 0 {
            // Bytes are known once they are sent: one message at a time, or about as many.
            return if rate.bytes_per_second > 0 {
                16
            } else {
                u16::MAX
            };
        }
        let left = (now + BURST).duration_since(self.messages.max(now));
        let messages = left.as_nanos() * u128::from(rate.messages_per_second) / BURST.as_nanos();
        u16::try_from(messages)
            .unwrap_or(u16::MAX)
            .min(u16::MAX - 1)
    }

    /// How long until a message may be sent.
    fn wait(&self, rate: &Rate, now: Instant) -> Duration {
        let messages = if rate.messages_per_second > 0 {
            let one = BURST / rate.messages_per_second;
            (self.messages + one).duration_since(now + BURST)
        } else {
            Duration::ZERO
        };
        let bytes = if rate.bytes_per_second > 0 {
            self.bytes.duration_since(now + BURST)
        } else {
            Duration::ZERO
        };
        messages.max(bytes)
    }
}

impl Engine {
    /// How many packets and bytes are read from a connection before others have their turn.
    pub(crate) fn slice(&mut self, id: ConnectionId, now: Now) -> (usize, usize) {
        let limits = &self.config.limits;
        let (packets, bytes) = (limits.slice_packets, limits.slice_bytes);
        let Some(entry) = self.connections.get_mut(&id) else {
            return (packets, bytes);
        };
        let meter = entry.meter.get_or_insert_default();
        let left = |until: Instant, per_second: u32| {
            if per_second == 0 {
                return usize::MAX;
            }
            let left = (now.instant + BURST).duration_since(until.max(now.instant));
            let count = left.as_nanos() * u128::from(per_second) / BURST.as_nanos();
            usize::try_from(count).unwrap_or(usize::MAX).max(1)
        };
        let (rate, spent) = (&limits.publish_rate, &meter.publish);
        let packets = packets.min(left(spent.messages, rate.messages_per_second));
        let bytes = bytes.min(left(spent.bytes, rate.bytes_per_second));
        let space = entry.space;
        let (rate, spent) = (
            self.publish_rate_of(space),
            &self.spaces.get(space).published,
        );
        (
            packets.min(left(spent.messages, rate.messages_per_second)),
            bytes.min(left(spent.bytes, rate.bytes_per_second)),
        )
    }

    /// A client published so many messages and bytes: its input waits if that was too fast, for itself
    /// or for its tenant.
    pub(crate) fn pace_input(&mut self, id: ConnectionId, messages: u64, bytes: u64, now: Now) {
        let limits = &self.config.limits;
        if messages == 0 {
            return;
        }
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let mut wait = Duration::ZERO;
        if limits.publish_overrun == Overrun::Pause {
            let meter = entry.meter.get_or_insert_default();
            let rate = &limits.publish_rate;
            wait = meter.publish.spend(rate, messages, bytes, now.instant);
        }
        let space = entry.space;
        let rate = self.publish_rate_of(space);
        if rate.is_limited() {
            let published = &mut self.spaces.get_mut(space).published;
            wait = wait.max(published.spend(&rate, messages, bytes, now.instant));
        }
        if !wait.is_zero() {
            self.counters.publishers_paused += 1;
            self.pause_for(id, wait.min(PAUSE_MAX), now);
        }
    }

    /// Why a client may not publish a message now: it publishes too fast, and is told so.
    pub(crate) fn refuse_for_rate(
        &mut self,
        id: ConnectionId,
        bytes: usize,
        now: Now,
    ) -> Option<(ReasonCode, DropReason)> {
        let rate = &self.config.limits.publish_rate;
        let entry = self.connections.get_mut(&id)?;
        let meter = entry.meter.get_or_insert_default();
        let spent = meter.publish.try_spend(rate, bytes as u64, now.instant);
        (!spent).then_some((ReasonCode::QuotaExceeded, DropReason::TooFast))
    }

    /// Says how many messages a connection may be sent now.
    pub(crate) fn grant_deliveries(&mut self, id: ConnectionId, now: Now) {
        if let Some(entry) = self.connections.get_mut(&id) {
            let rate = &self.config.limits.delivery_rate;
            let meter: &mut Box<Meter> = entry.meter.get_or_insert_default();
            entry
                .server
                .set_messages_left(meter.deliver.left(rate, now.instant));
        }
    }

    /// So much was sent to a connection; if it may have no more, it is asked again when it may.
    pub(crate) fn pace_output(&mut self, id: ConnectionId, messages: u64, bytes: u64, now: Now) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let rate = &self.config.limits.delivery_rate;
        let meter = entry.meter.get_or_insert_default();
        if messages > 0 {
            meter.deliver.spend(rate, messages, bytes, now.instant);
        }
        let session = entry.server.session();
        let waits = session.is_some_and(avocet_session::Session::has_messages_to_send);
        if entry.server.messages_left() > 0 || !waits {
            return;
        }
        let wait = meter.deliver.wait(rate, now.instant);
        if wait.is_zero() {
            self.need_flush(id);
        } else if meter.held_until.is_none() {
            meter.held_until = Some(now.instant + wait);
            self.counters.deliveries_held += 1;
        }
    }
}
