//! What a shard counts.

use core::ops::AddAssign;

use avocet_codec::ReasonCode;
use avocet_session::CloseReason;

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
    /// The driver refused it, as it was published or on its way to a session.
    RefusedByHook,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 16] = [
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
        Self::RefusedByHook,
    ];
}

/// Why a Network Connection was not taken, or its CONNECT refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum RefuseReason {
    /// Its address, its client or its user is banned (0x8A).
    Banned,
    /// There are as many as there may be (0x97).
    OverQuota,
    /// They come too fast (0x9F).
    OverRate,
    /// There is no memory for more (0x89).
    Overloaded,
    /// It is not who it says, or may not connect (0x86, 0x87, 0x8C).
    NotAuthorized,
    /// Anything else that a CONNECT is refused for.
    Other,
    /// What came is no CONNECT, or a wrong one.
    Malformed,
    /// No CONNECT came in time, or nobody could say in time who it is.
    ConnectTimeout,
    /// What comes before CONNECT, such as TLS, failed.
    Handshake,
    /// It took too long.
    HandshakeTimeout,
    /// As many are at it as may be.
    Handshakes,
}

impl RefuseReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Banned,
        Self::OverQuota,
        Self::OverRate,
        Self::Overloaded,
        Self::NotAuthorized,
        Self::Other,
        Self::Malformed,
        Self::ConnectTimeout,
        Self::Handshake,
        Self::HandshakeTimeout,
        Self::Handshakes,
    ];

    /// What a connection that was never accepted was closed for; none if its client went away.
    #[must_use]
    pub const fn of(reason: CloseReason) -> Option<Self> {
        if matches!(reason, CloseReason::ConnectTimeout) {
            Some(Self::ConnectTimeout)
        } else if matches!(reason, CloseReason::PeerError(_)) {
            Some(Self::Malformed)
        } else {
            None
        }
    }
}

impl From<ReasonCode> for RefuseReason {
    fn from(reason_code: ReasonCode) -> Self {
        if reason_code == ReasonCode::Banned {
            Self::Banned
        } else if reason_code == ReasonCode::QuotaExceeded {
            Self::OverQuota
        } else if reason_code == ReasonCode::ConnectionRateExceeded {
            Self::OverRate
        } else if reason_code == ReasonCode::ServerBusy {
            Self::Overloaded
        } else if [
            ReasonCode::BadUserNameOrPassword,
            ReasonCode::NotAuthorized,
            ReasonCode::BadAuthenticationMethod,
        ]
        .contains(&reason_code)
        {
            Self::NotAuthorized
        } else {
            Self::Other
        }
    }
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
    /// Network Connections that the broker ended before it accepted their CONNECT, for any [`RefuseReason`].
    connects_refused,
    /// Of these: because of a ban.
    connects_banned,
    /// Of these: because there were as many as there may be (0x97).
    connects_over_quota,
    /// Of these: because there was no memory for more (0x89).
    connects_overloaded,
    /// Of these: because they came too fast (0x9F).
    connects_over_rate,
    /// Of these: because they are not who they say, or may not connect (0x86, 0x87, 0x8C).
    connects_not_authorized,
    /// Of these: because what came was no CONNECT, or a wrong one.
    connects_malformed,
    /// Of these: because CONNECT did not come in time.
    connects_timed_out,
    /// Of these: because what comes before CONNECT, such as TLS, failed.
    handshakes_failed,
    /// Of these: because it took too long.
    handshakes_timed_out,
    /// Of these: because as many were at it as may be.
    handshakes_over_limit,
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
    /// Topic Filters of SUBSCRIBE that were refused because there are as many as there may be (0x97).
    subscriptions_over_quota,
    /// Topic Filters of SUBSCRIBE that were refused for what they look like (0x8F).
    subscriptions_not_valid,
    /// Topic Filters of SUBSCRIBE that their client may not subscribe to (0x87).
    subscriptions_not_authorized,
    /// Clients that were given another Keep Alive than they asked for.
    keep_alives_changed,
    /// Sessions that were given less time to live on than their client asked for.
    session_expiries_cut,
    /// Connections that were ended because a packet was larger than the broker takes (0x95).
    packets_too_large,
    /// Connections that were ended because of more messages at a time than they may send (0x93).
    receive_maximum_exceeded,
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
    /// How often a client was not read for a while because queues that it publishes to are full.
    publishers_slowed,
    /// How often messages were held back because a client was sent as many as it may be.
    deliveries_held,
    /// Messages sent to other shards.
    forwards_sent,
    /// Messages that clients were not allowed to publish, Wills included.
    publishes_not_authorized,
    /// Messages that clients were not allowed to be sent.
    deliveries_not_authorized,
    /// Questions to the driver about what clients may do.
    authorizations_asked,
    /// Of these: not answered in time.
    authorizations_unanswered,
    /// Messages that an answer which was kept decided about.
    authorizations_known,
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

    pub(crate) fn count_suback(&mut self, reason_codes: &[ReasonCode]) {
        for reason_code in reason_codes {
            if *reason_code == ReasonCode::QuotaExceeded {
                self.subscriptions_over_quota += 1;
            } else if *reason_code == ReasonCode::TopicFilterInvalid {
                self.subscriptions_not_valid += 1;
            } else if *reason_code == ReasonCode::NotAuthorized {
                self.subscriptions_not_authorized += 1;
            }
        }
    }

    /// A connection that was accepted has ended.
    pub(crate) fn count_end(&mut self, reason: CloseReason) {
        if let CloseReason::PeerError(error) = reason {
            let reason_code = error.reason_code();
            self.packets_too_large += u64::from(reason_code == ReasonCode::PacketTooLarge);
            let exceeded = reason_code == ReasonCode::ReceiveMaximumExceeded;
            self.receive_maximum_exceeded += u64::from(exceeded);
        }
    }

    pub(crate) const fn count_refused(&mut self, reason: RefuseReason, connections: u64) {
        self.connects_refused += connections;
        *match reason {
            RefuseReason::Banned => &mut self.connects_banned,
            RefuseReason::OverQuota => &mut self.connects_over_quota,
            RefuseReason::OverRate => &mut self.connects_over_rate,
            RefuseReason::Overloaded => &mut self.connects_overloaded,
            RefuseReason::NotAuthorized => &mut self.connects_not_authorized,
            RefuseReason::Other => return,
            RefuseReason::Malformed => &mut self.connects_malformed,
            RefuseReason::ConnectTimeout => &mut self.connects_timed_out,
            RefuseReason::Handshake => &mut self.handshakes_failed,
            RefuseReason::HandshakeTimeout => &mut self.handshakes_timed_out,
            RefuseReason::Handshakes => &mut self.handshakes_over_limit,
        } += connections;
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason, messages: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += messages;
        }
    }
}
