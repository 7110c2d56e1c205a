//! What a shard counts.

use core::ops::AddAssign;

use crate::EngineLimits;

/// Why a message did not reach a subscriber, or was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum DropReason {
    /// The session's queue had no room [`Limits`](avocet_session::Limits).
    QueueFull,
    /// All queues of the shard together had no room.
    TotalFull,
    /// QoS 0, and the session has no connection.
    OfflineQoS0,
    /// The Message Expiry Interval passed first [MQTT5-3.3.2-5].
    Expired,
    /// Larger than the Maximum Packet Size of the client [MQTT5-3.1.2-25].
    TooLargeForClient,
    /// The session ended first.
    SessionEnded,
    /// No room in the queue of a shared subscription, or its last member left.
    GroupFull,
    /// No room for another retained message: delivered, not retained.
    RetainedFull,
    /// Refused by a verdict, a topic that clients may not publish to, or a broken limit on topics.
    NotAuthorized,
    /// The payload is not UTF-8 as its Payload Format Indicator says [MQTT5-3.3.2.3.2].
    PayloadFormat,
    /// The store takes nothing, and the client was told so.
    NotStored,
    /// The store has it, and cannot read it.
    Unreadable,
    /// Its client publishes faster than it may.
    TooFast,
    /// There is no memory for more.
    Overloaded,
    /// It has more User Properties than allowed.
    UserProperties,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::QueueFull,
        Self::TotalFull,
        Self::OfflineQoS0,
        Self::Expired,
        Self::TooLargeForClient,
        Self::SessionEnded,
        Self::GroupFull,
        Self::RetainedFull,
        Self::NotAuthorized,
        Self::PayloadFormat,
        Self::NotStored,
        Self::Unreadable,
        Self::TooFast,
        Self::Overloaded,
        Self::UserProperties,
    ];
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the start, and a few current values, of one shard.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Messages dropped, by reason; see [`Counters::dropped`].
            dropped: [u64; DropReason::ALL.len()],
        }

        impl AddAssign<&Self> for Counters {
            fn add_assign(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
                    *sum += count;
                }
            }
        }
    };
}

counters! {
    /// Current: Network Connections, those before their CONNECT included.
    connections,
    /// Network Connections opened.
    connections_opened,
    /// CONNECTs accepted.
    connects_accepted,
    /// CONNECTs refused, and connections that were closed before they sent one because of a limit.
    connects_refused,
    /// Of these: because of a ban.
    connects_banned,
    /// Of these: because there were as many as there may be (0x97).
    connects_over_quota,
    /// Of these: because there was no memory for more (0x89).
    connects_overloaded,
    /// Of these: because they came too fast (0x9F).
    connects_over_rate,
    /// Connections that were ended by the driver's [`Engine::disconnect_where`](crate::Engine::disconnect_where).
    disconnected_by_driver,
    /// Connections taken over by another one with the same Client Identifier.
    takeovers,
    /// Current: sessions with a connection.
    sessions_connected,
    /// Current: sessions without a connection.
    sessions_disconnected,
    /// Sessions that ended because their Session Expiry Interval passed.
    sessions_expired,
    /// Current: subscriptions of all sessions.
    subscriptions,
    /// Current: subscriptions of all sessions that are shared ones.
    shared_subscriptions,
    /// Subscriptions that a restart had no room for.
    subscriptions_not_restored,
    /// Current: retained messages.
    retained_messages,
    /// Current: bytes of retained messages.
    retained_bytes,
    /// Current: messages waiting in sessions and groups.
    queued_messages,
    /// Current: bytes of these.
    queued_bytes,
    /// Control Packets received.
    packets_received,
    /// Control Packets sent.
    packets_sent,
    /// PUBLISHes received.
    publishes_received,
    /// PUBLISHes sent.
    publishes_sent,
    /// Bytes received.
    bytes_received,
    /// Bytes given to the driver to send.
    bytes_sent,
    /// Will Messages published.
    wills_published,
    /// How often a client was not read for a while because it published too fast.
    publishers_paused,
    /// How often messages were held back because a client was sent as many as it may be.
    deliveries_held,
    /// Messages sent to other shards.
    forwards_sent,
}

impl Counters {
    /// Messages dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Messages dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether all queues together have no room for another message.
    pub(crate) const fn is_full(&self, limits: &EngineLimits) -> bool {
        self.queued_messages >= limits.queued_messages_max as u64
            || self.queued_bytes >= limits.queued_bytes_max as u64
    }

    /// Takes over what a queue holds: messages and bytes, instead of what it held.
    pub(crate) fn count_queue(&mut self, held: &mut (usize, u64), holds: (usize, u64)) {
        self.queued_messages = self.queued_messages + holds.0 as u64 - held.0 as u64;
        self.queued_bytes = self.queued_bytes + holds.1 - held.1;
        *held = holds;
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason, messages: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += messages;
        }
    }
}
