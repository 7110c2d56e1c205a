//! A message on its way to one subscriber.

use alloc::boxed::Box;
use alloc::vec::Vec;
use avocet_codec::{QoS, SubscriptionId};
use core::fmt;

use crate::{CommitId, Message};

/// One message for one subscriber (or, of a client, for its server).
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What is sent; shared with every other Session that wants it.
    pub message: Message,
    /// The QoS of this delivery.
    pub qos: QoS,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// The identifier of the subscription that matched, or of the first one; written in 5.0 only.
    pub subscription_id: Option<SubscriptionId>,
    /// Those of the other subscriptions that matched.
    pub more_subscription_ids: MoreSubscriptionIds,
    /// The owner's own mark; if it is not 0, the end of a QoS 1 or 2 delivery is reported with it.
    pub tag: u64,
    /// The commit that stores this message in the Session; `None` when nothing stores it.
    ///
    /// The PUBLISH leaves once it is committed. With a gate the end of a QoS 1 or 2 delivery is
    /// always reported, and PUBREC raises an event: PUBREL waits until the owner has named the
    /// commit that stores it.
    ///
    /// With [`CommitId::UNNAMED`] it waits until it is among the next to leave and
    /// [`Session::name_gates`](crate::Session::name_gates) names it.
    pub gate: Option<CommitId>,
}

impl Outgoing {
    /// A delivery as the message was published: its QoS and RETAIN flag, nothing else.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Self {
            qos: message.qos(),
            retain: message.retain(),
            subscription_id: None,
            more_subscription_ids: MoreSubscriptionIds::default(),
            tag: 0,
            gate: None,
            message,
        }
    }

    /// The same delivery with the identifiers of the subscriptions that matched.
    #[must_use]
    pub fn with_subscription_ids(mut self, ids: impl IntoIterator<Item = SubscriptionId>) -> Self {
        let mut ids = ids.into_iter();
        self.subscription_id = ids.next();
        self.more_subscription_ids = ids.collect();
        self
    }

    /// The identifiers of all subscriptions that matched, in the order they were given.
    pub fn subscription_ids(&self) -> impl Iterator<Item = SubscriptionId> + '_ {
        let more = self.more_subscription_ids.as_slice().iter().copied();
        self.subscription_id.into_iter().chain(more)
    }
}

/// Subscription Identifiers behind the first one; in a queue they take eight bytes where there are
/// none, as in most deliveries.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MoreSubscriptionIds(Option<Box<Box<[SubscriptionId]>>>);

impl MoreSubscriptionIds {
    /// The identifiers in the order they were given.
    #[must_use]
    pub fn as_slice(&self) -> &[SubscriptionId] {
        self.0.as_deref().map_or(&[], |ids| ids)
    }
}

impl From<Vec<SubscriptionId>> for MoreSubscriptionIds {
    #[inline]
    fn from(ids: Vec<SubscriptionId>) -> Self {
        if ids.is_empty() {
            return Self(None);
        }
        Self(Some(Box::new(ids.into_boxed_slice())))
    }
}

impl FromIterator<SubscriptionId> for MoreSubscriptionIds {
    fn from_iter<I: IntoIterator<Item = SubscriptionId>>(ids: I) -> Self {
        ids.into_iter().collect::<Vec<_>>().into()
    }
}

impl fmt::Debug for MoreSubscriptionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Subscription Identifiers of one message received; up to one takes no memory of its own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SubscriptionIds(Ids);

#[derive(Clone, Default, PartialEq, Eq)]
enum Ids {
    #[default]
    None,
    One(SubscriptionId),
    Many(Box<[SubscriptionId]>),
}

impl SubscriptionIds {
    /// The identifiers in the order they were given.
    #[must_use]
    pub fn as_slice(&self) -> &[SubscriptionId] {
        match &self.0 {
            Ids::None => &[],
            Ids::One(id) => core::slice::from_ref(id),
            Ids::Many(ids) => ids,
        }
    }
}

impl FromIterator<SubscriptionId> for SubscriptionIds {
    fn from_iter<I: IntoIterator<Item = SubscriptionId>>(ids: I) -> Self {
        let mut ids = ids.into_iter();
        let Some(first) = ids.next() else {
            return Self(Ids::None);
        };
        let Some(second) = ids.next() else {
            return Self(Ids::One(first));
        };
        let all = [first, second].into_iter().chain(ids).collect();
        Self(Ids::Many(all))
    }
}

impl fmt::Debug for SubscriptionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// What became of a message given to a Session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Enqueued {
    /// It waits for its turn.
    Queued {
        /// Its place; for QoS 1 and 2 its own, and what its Packet Identifier is derived from.
        sequence: u64,
    },
    /// It waits, but is not kept in memory: `poll_fetch` asks for it when its turn comes.
    Stored {
        /// Its own place, under which it is asked for.
        sequence: u64,
    },
    /// It waits, and older ones went for it.
    Displaced {
        /// Its place.
        sequence: u64,
        /// The older ones, oldest first.
        oldest: Vec<Dropped>,
    },
    /// It is not queued.
    Refused(DropReason),
}

/// A message that is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its place in the queue.
    pub sequence: u64,
    /// Its QoS: for QoS 0, the place is not its own.
    pub qos: QoS,
    /// The owner's mark; 0 if only the store had the message.
    pub tag: u64,
    /// Whether only the store had it, so that neither its mark nor its QoS is known: 1 or 2.
    pub stored: bool,
    /// Why.
    pub reason: DropReason,
}

/// Why a message is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// A limit of the Session's queue was reached.
    QueueFull,
    /// QoS 0, and the client is not connected.
    Offline,
    /// Its Message Expiry Interval passed before it was first sent [MQTT5-3.3.2-5].
    Expired,
    /// The peer's Maximum Packet Size is smaller [MQTT5-3.1.2-25].
    TooLarge,
}
