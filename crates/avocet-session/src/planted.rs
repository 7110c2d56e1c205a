//! Bugs on purpose, one at a time, to show that the simulator finds them. Not part of any build
//! that does not ask for it.

use core::sync::atomic::{AtomicU8, Ordering};

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Bug {
            /// None.
            None,
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

bugs! {
    /// A QoS 2 PUBLISH is sent again with another Packet Identifier.
    ResentWithAnotherPacketId,
    /// PUBREL leaves before PUBREC is stored.
    PubrelBeforeStored,
    /// The Packet Identifier is free at PUBREC.
    FreedAtPubrec,
    /// A Topic Alias is used that an earlier connection has set.
    AliasSurvives,
    /// One message more than the Receive Maximum.
    ReceiveMaximumOffByOne,
    /// DUP is missing when a message is sent again.
    DupMissing,
    /// DUP is set when a message is sent for the first time.
    DupAtFirst,
    /// SUBACK leaves before the other shards know.
    SubackTooEarly,
    /// A page of retained messages may be overtaken by newer messages.
    RetainedTooLate,
    /// A message with RETAIN may be overtaken by a later one without.
    RetainOvertaken,
    /// The Will Message is published after DISCONNECT with 0x00.
    WillAfterDisconnect,
    /// The Will Message is published again when another connection takes over.
    WillTwice,
    /// A session outlives its Session Expiry Interval.
    SessionNeverExpires,
    /// No Local hides the messages of all others.
    NoLocalInverted,
    /// Message Expiry is looked at when a message is queued, and not again.
    ExpiryFromDelivery,
    /// A QoS 2 message of a lost member goes to another one.
    SharedQos2Moves,
    /// Keep Alive is not multiplied by one and a half.
    KeepAliveTooShort,
    /// PUBACKs of a dead connection leave on the next one.
    AckOfDeadConnection,
    /// What waits for a commit does not, but for deliveries of QoS 2.
    AckBeforeStored,
    /// A QoS 2 PUBLISH leaves before it is stored that the session has it.
    PublishBeforeStored,
    /// A restart forgets which QoS 2 messages of clients had PUBREC.
    PubrecForgotten,
    /// The inbox of a shard is not first in first out: the driver's own bug.
    InboxReordered,
    /// Of overlapping subscriptions, one Subscription Identifier is sent.
    SubscriptionIdLost,
    /// Of overlapping subscriptions, Retain As Published of the first one counts.
    RetainAsPublishedLost,
    /// Retain Handling 1 sends what is retained to a subscription that is not new.
    RetainHandlingIgnored,
    /// A subscription that takes the place of another one has its No Local.
    NoLocalOutdated,
    /// The queue of a group has no limit.
    GroupUnbounded,
    /// What comes from another shard is taken for nobody's, not for that of the publisher's tenant.
    TenantForgotten,
}

static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// From now on every connection and every engine of the process has this bug.
pub fn plant(bug: Bug) {
    CHOSEN.store(bug as u8, Ordering::SeqCst);
}

/// Whether this bug is there.
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    CHOSEN.load(Ordering::SeqCst) == bug as u8
}
