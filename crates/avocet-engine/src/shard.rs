//! Shards: their names, who owns what, and the values that travel between them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use avocet_codec::QoS;
use avocet_session::{AckToken, CommitId, Message, PublishFrames};
use avocet_topic::{Cursor, TopicFilterBuf, TopicName};

use crate::config::Level;
use crate::counters::Counters;
use crate::quotas::TenantUsage;
use crate::record::{MessageId, RetainedPlace};
use crate::session_table::{SessionHandle, SessionKey};
use crate::shared::GroupHandle;
use crate::tenant::{GroupName, Tenant};

/// The number of a shard, below the number of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard with this number.
    #[must_use]
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// The number, to index the driver's tables with.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl ShardId {
    /// The owner of a session among so many shards.
    #[must_use]
    pub fn of_session(session: &SessionKey, shards: u16) -> Self {
        session.stable_hash().shard(shards)
    }

    /// The owner of a topic of a tenant, and of its retained message, among so many shards.
    #[must_use]
    pub fn of_topic(tenant: &str, topic_name: TopicName<'_>, shards: u16) -> Self {
        // The shard that sums the counters owns the topics that show them.
        if topic_name.as_str().starts_with("$SYS/") {
            return Self(0);
        }
        let hash = StableHash::new().tenant(tenant);
        hash.text(topic_name.as_str()).shard(shards)
    }

    /// The owner of a shared subscription among so many shards.
    #[must_use]
    pub fn of_group(group: &GroupName, shards: u16) -> Self {
        let hash = StableHash::new().tenant(group.tenant.as_str());
        hash.text(group.filter.as_str()).shard(shards)
    }
}

/// What belongs to one of so many shards. It stays the same when a broker comes to have another
/// number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The shard.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u16,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// 64-bit FNV-1a, finished so that its low bits depend on all of its input.
///
/// Ownership must be the same in every shard and every run, so it is neither seeded nor taken from
/// a crate that may change it.
#[derive(Clone, Copy)]
pub(crate) struct StableHash(u64);

impl StableHash {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Tenants use the same names, which are to be spread all the same.
    fn tenant(self, tenant: &str) -> Self {
        if tenant.is_empty() {
            return self;
        }
        self.text(tenant)
    }

    /// Bytes of a text.
    pub(crate) fn bytes(mut self, text: &[u8]) -> Self {
        // 0xff is no byte of UTF-8, so it separates.
        for byte in text.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    pub(crate) const fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }

    /// One of `shards`, evenly.
    pub(crate) fn shard(self, shards: u16) -> ShardId {
        let index = self.finish() % u64::from(shards.max(1));
        ShardId(u16::try_from(index).unwrap_or_default())
    }
}

/// A value on its way from one shard to another. The driver puts it into the inbox of the other
/// shard and looks at nothing in it.
#[derive(Debug)]
pub struct ShardMessage(pub(crate) Value);

impl ShardMessage {
    /// Whether nobody waits for it, unless the other shard [wants
    /// credit](crate::Engine::wants_credit): its driver need not be woken for it alone.
    #[must_use]
    pub const fn may_wait(&self) -> bool {
        matches!(self.0, Value::Accepted { awaited: false, .. })
    }
}

/// Which of a shard's outboxes a value leaves by. They are emptied in this order, so that what was
/// caused never overtakes its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Messages on their way to subscribers, and what must keep its place among them.
    Subscribers,
    /// Requests to the owner of a topic, a group or a filter.
    Owners,
    /// Answers.
    Confirmations,
}

/// An application message and who published it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) message: Message,
    /// Whose tenant is that of the topic; none for the server's own.
    pub(crate) publisher: Option<Arc<SessionKey>>,
    /// Set if what must survive may refer to it.
    pub(crate) id: Option<MessageId>,
    /// Whether the store has it under that name, and keeps it while this value is on its way.
    pub(crate) stored: bool,
    /// Whether a restart routes it again.
    pub(crate) accepted: bool,
    /// What its acknowledgement waits for.
    pub(crate) level: Level,
    /// Who had it before a restart.
    pub(crate) arrived: Option<Arc<[Part]>>,
}

impl Published {
    /// Whose topic it is published to, empty for nobody's.
    pub(crate) fn tenant(&self) -> &str {
        self.publisher.as_deref().map_or("", SessionKey::tenant)
    }

    /// Whether what `owner` names, given a number of shards, had it before a restart.
    pub(crate) fn has_reached(&self, owner: impl Fn(u16) -> ShardId) -> bool {
        let mut parts = self.arrived.as_deref().unwrap_or_default().iter();
        parts.any(|part| owner(part.shards) == part.shard)
    }
}

/// A PUBLISH that waits for other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TicketId(pub(crate) u64);

/// A change of interest that waits for confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InterestToken(pub(crate) u64);

/// A session's membership in a shared subscription, known by this number in the member's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MembershipId(pub(crate) u64);

/// A member as its group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId {
    pub(crate) shard: ShardId,
    pub(crate) membership: MembershipId,
}

/// Whose retained messages a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueryId {
    pub(crate) session: SessionHandle,
    pub(crate) cursor: u64,
}

/// A message that a group gave to a member and may get back.
#[derive(Clone, Debug)]
pub(crate) struct GroupMessage {
    /// The place of the message in the order of its group.
    pub(crate) sequence: u64,
    pub(crate) published: Published,
    /// Whether its member recorded it as gone from the group.
    pub(crate) gone: bool,
}

#[derive(Debug)]
pub(crate) enum Value {
    /// To a shard with interest. Counted by both ends, so that one `Accepted` answers many.
    Forward(Published),
    /// The same for messages that came one after the other from one connection.
    Frames(ForwardedFrames),
    /// The first `through` messages that the addressee forwarded are where they belong; `unmatched` of
    /// those not accepted before, of QoS 1 and 2, met no subscription, and the clients that published
    /// the `slowed` ones, and what came with them, are to wait.
    Accepted {
        through: u64,
        unmatched: Vec<u64>,
        slowed: Vec<(u64, Duration)>,
        /// Whether it says more than that connections may read on.
        awaited: bool,
    },
    /// To the owner of the topic: a PUBLISH with RETAIN 1, or one that follows such a PUBLISH.
    Relay {
        ticket: TicketId,
        published: Published,
    },
    /// The answer to a relay.
    Relayed {
        ticket: TicketId,
        matched: bool,
        wait: Duration,
    },
    /// A filter began to matter to the sender.
    Interest {
        token: InterestToken,
        tenant: Tenant,
        filter: TopicFilterBuf,
        /// Whether it is a session's or a group's that survives the process.
        durable: bool,
    },
    /// A filter ceased to matter to the sender.
    Disinterest {
        tenant: Tenant,
        filter: TopicFilterBuf,
    },
    /// The answer to an interest; false when there is no room for it.
    InterestConfirmed { token: InterestToken, granted: bool },
    /// Asks an owner of topics for a page of retained messages.
    RetainedQuery(Box<RetainedQuery>),
    /// The page; in the subscribers' lane, so that no newer message overtakes it.
    RetainedPage {
        query: QueryId,
        messages: Vec<Message>,
        /// Where the next page begins, none after the last.
        next: Option<Cursor>,
    },
    /// To the owner of a group.
    Group {
        group: GroupName,
        membership: MembershipId,
        change: GroupChange,
    },
    /// The answer to `GroupChange::Join`; false when there is no room for the filter.
    Joined {
        membership: MembershipId,
        granted: bool,
    },
    /// A member of the same shard as its group is done with a message.
    Finished {
        group: GroupHandle,
        membership: MembershipId,
        sequence: u64,
    },
    /// A message for a member.
    SharedDeliver {
        group: GroupName,
        membership: MembershipId,
        qos: QoS,
        message: GroupMessage,
    },
    /// All that the sender restored is told to those whose business it is, for the first or the
    /// second time: what groups tell in their turn comes between.
    Restored { second: bool },
    /// What a tenant has in the sender.
    Usage { tenant: Tenant, usage: TenantUsage },
    /// To the shard that sums.
    Stats(Box<Counters>),
}

#[derive(Debug)]
pub(crate) struct RetainedQuery {
    pub(crate) query: QueryId,
    pub(crate) tenant: Tenant,
    pub(crate) filter: TopicFilterBuf,
    pub(crate) cursor: Cursor,
    pub(crate) messages_max: usize,
    /// The session that must not get its own messages back.
    pub(crate) no_local: Option<Arc<SessionKey>>,
    /// What is queued already.
    pub(crate) queued: Arc<[RetainedPlace]>,
}

/// What a member's shard tells the owner of its group.
#[derive(Debug)]
pub(crate) enum GroupChange {
    /// A new member, or new options of a member.
    Join {
        maximum_qos: QoS,
        online: bool,
        durable: bool,
    },
    /// The subscription is gone. The session keeps these messages; others that the group gave it are
    /// on their way, and come back as [`GroupChange::Return`].
    Leave { kept: Vec<u64> },
    /// The member's client is connected.
    Online,
    /// The member's client is not connected; these messages go to others.
    Offline {
        returned: Vec<GroupMessage>,
        /// Messages that only the store has for the member.
        stored: Vec<u64>,
    },
    /// Messages that arrived when the member or its client had gone.
    Return { returned: Vec<GroupMessage> },
    /// The member is done with these messages.
    Finished { sequences: Vec<u64> },
    /// The member had these messages before a restart, and has them still.
    Holds { sequences: Vec<u64> },
}

/// Forwards of one shard to another that were not accepted.
#[derive(Default)]
pub(crate) struct Unaccepted {
    /// The number of the first message.
    pub(crate) first: u64,
    pub(crate) forwards: VecDeque<UnacceptedForward>,
    /// What the clients are to be told whose [`Awaiting::Publisher`] it is, oldest first.
    pub(crate) tokens: VecDeque<AckToken>,
}

/// What left as one value.
pub(crate) struct UnacceptedForward {
    pub(crate) messages: u32,
    pub(crate) awaiting: Awaiting,
    pub(crate) credit: Option<Credit>,
}

/// Who waits for an answer to a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaiting {
    Nobody,
    /// A PUBLISH that waits for other shards too, or for a commit.
    Ticket(TicketId),
    /// The client whose credit it is, for each of its messages.
    Publisher {
        /// Which remembers the answers to QoS 2 if the connection does not live to send them.
        session: Option<SessionHandle>,
        /// Bytes that the other shard is to store.
        leaving: usize,
    },
}

/// What a connection has on its way to another shard.
pub(crate) struct Credit {
    pub(crate) connection: crate::ConnectionId,
    pub(crate) bytes: u32,
}

/// Messages on their way to a shard with interest, as packets. Those of QoS 2 have the form of QoS 0.
#[derive(Debug)]
pub(crate) struct ForwardedFrames {
    pub(crate) from: crate::ConnectionId,
    pub(crate) publisher: Option<Arc<SessionKey>>,
    pub(crate) frames: PublishFrames,
    /// What the acknowledgement of each waits for.
    pub(crate) level: Level,
    /// How many messages had a name when the last one came, if they need one.
    pub(crate) named: u64,
}

/// Forwards that came from one shard.
#[derive(Default)]
pub(crate) struct Received {
    /// How many messages.
    pub(crate) count: u64,
    pub(crate) unmatched: Vec<u64>,
    /// Those whose publishers are to wait so long.
    pub(crate) slowed: Vec<(u64, Duration)>,
    /// Whether there are some that no `Accepted` speaks of.
    pub(crate) unanswered: bool,
    /// Whether somebody waits for that.
    pub(crate) awaited: bool,
    /// The commit that holds what one of those changed and must survive.
    pub(crate) gate: Option<CommitId>,
    /// Answers that wait for a commit, oldest first.
    pub(crate) gated: VecDeque<(CommitId, Value)>,
}
