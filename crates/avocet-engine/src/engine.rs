//! The entry points of a shard.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use avocet_access::{Bans, Rules};
use avocet_session::{CommitId, Instant, Limits, Now, UnixTime};
use avocet_topic::Seed;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::ConnectionId;
use crate::access::Told;
use crate::config::EngineConfig;
use crate::connection::Connections;
use crate::counters::Counters;
use crate::flapping::Flaps;
use crate::member::Memberships;
use crate::outbox::Outbox;
use crate::publish::{Matches, Ticket};
use crate::quotas::Tenants;
use crate::restore::Restoring;
use crate::retained::RetainedMessages;
use crate::routes::PendingInterests;
use crate::session_table::SessionKey;
use crate::session_table::SessionTable;
use crate::shard::{MemberId, Received, ShardId, ShardMessage, TicketId, Unaccepted, Value};
use crate::shared::Groups;
use crate::store::{StoreState, Uncommitted};
use crate::sys::Sys;
use crate::tenant::Spaces;
use crate::timer::{Clock, Timers};

/// What numbers of the seed are for, beside the keys of filters.
pub(crate) mod purpose {
    pub(crate) const SESSIONS: u64 = 1;
    pub(crate) const TENANTS: u64 = 2;
    pub(crate) const CLIENT_IDS: u64 = 3;
}

/// One shard of a broker: its connections, its sessions, the topics and groups it owns.
///
/// The same calls with the same arguments give the same results, byte for byte.
pub struct Engine {
    pub(crate) config: Arc<EngineConfig>,
    /// The limits of sessions of which the store knows nothing.
    pub(crate) resident_limits: Limits,
    pub(crate) shard: ShardId,
    pub(crate) shards: u16,
    /// For what peers must not know.
    pub(crate) seed: Seed,
    /// How many Client Identifiers were assigned.
    pub(crate) assigned: u64,
    pub(crate) clock: Clock,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
    pub(crate) connections: Connections,
    /// How many of them have too much on its way to other shards.
    pub(crate) out_of_credit: usize,
    pub(crate) sessions: SessionTable,
    /// Where there are rules: those in force.
    pub(crate) rules: Arc<Rules>,
    /// How many questions the driver was asked about what clients may do.
    pub(crate) questions: u64,
    /// How often its answers were forgotten.
    pub(crate) generation: u64,
    /// How often the operator is told of what clients were refused.
    pub(crate) told: Told,
    /// Clients that have connected of late, where flapping is looked for.
    pub(crate) flaps: Flaps,
    /// Whether there is no memory for more.
    pub(crate) overloaded: bool,
    /// Messages and bytes that all queues together may hold.
    pub(crate) queued_max: (u64, u64),
    /// How many sessions without a connection are next told to the operator.
    pub(crate) sessions_told: u64,
    /// Whether it is limited how fast clients publish, and how fast they are sent messages.
    pub(crate) paces_input: bool,
    pub(crate) paces_output: bool,
    /// Who belongs to which tenant, and what these may have.
    pub(crate) tenants: Arc<Tenants>,
    /// Whether it is limited how fast tenants publish.
    pub(crate) paces_tenants: bool,
    /// Who is not let in.
    pub(crate) bans: Arc<Bans>,
    /// The topics of each tenant.
    pub(crate) spaces: Spaces,
    pub(crate) interests: PendingInterests,
    pub(crate) matches: Matches,
    /// How long the publisher of the message that is being distributed is to wait.
    pub(crate) wait: Duration,
    pub(crate) retained: RetainedMessages,
    pub(crate) next_cursor: u64,
    pub(crate) next_suback: u64,
    pub(crate) groups: Groups,
    pub(crate) memberships: Memberships,
    pub(crate) tickets: HashMap<TicketId, Ticket, FixedState>,
    pub(crate) next_ticket: u64,
    /// The messages that had a name.
    pub(crate) messages: u64,
    /// Forwards to each shard that it has not accepted.
    pub(crate) unaccepted: Vec<Unaccepted>,
    /// Forwards from each shard.
    pub(crate) received: Vec<Received>,
    /// Memory of those that came, for those that leave.
    pub(crate) spare_frames: Vec<Vec<u8>>,
    /// Whether one of these wants an answer.
    pub(crate) unanswered: bool,
    pub(crate) next_commit: u64,
    pub(crate) committed: CommitId,
    /// The last commit whose report says that it and all before it are as safe as the default level
    /// asks: those behind it are reported sooner.
    pub(crate) strict: CommitId,
    /// Sessions whose end is not stored.
    pub(crate) ended: BTreeMap<Arc<SessionKey>, CommitId>,
    /// Whether the store takes what is recorded.
    pub(crate) store: StoreState,
    pub(crate) uncommitted: Uncommitted,
    /// Answers to other shards that wait for a commit, oldest first.
    pub(crate) gated_answers: VecDeque<(CommitId, ShardId, Value)>,
    /// Connections with output that waits for a commit.
    pub(crate) gated_connections: BTreeMap<CommitId, Vec<ConnectionId>>,
    pub(crate) sys: Sys,
    pub(crate) outbox: Outbox,
    pub(crate) shutdown: bool,
    /// From the first value given back to the end of the restart.
    pub(crate) restoring: Option<Box<Restoring>>,
    /// The time last recorded.
    pub(crate) recorded_time: UnixTime,
}

impl Engine {
    /// An empty shard. `shards` is the number of shards of the broker, which all get the same
    /// configuration; `seed` is entropy that clients cannot guess, another one for each shard.
    #[must_use]
    pub fn new(
        config: Arc<EngineConfig>,
        shard: ShardId,
        shards: u16,
        seed: impl Into<Seed>,
        now: Now,
    ) -> Self {
        let seed = seed.into();
        let shards = shards.max(1);
        let per_shard = usize::from(shards);
        let resident_limits = Limits {
            resident_messages: usize::MAX,
            ..config.connection.limits.clone()
        };
        Self {
            resident_limits,
            shard,
            shards,
            seed,
            assigned: 0,
            clock: Clock::new(now),
            timers: Timers::default(),
            counters: Counters::default(),
            connections: Connections::default(),
            out_of_credit: 0,
            sessions: SessionTable::new(seed.number(purpose::SESSIONS, 0)),
            rules: Arc::new(Rules::default()),
            questions: 0,
            generation: 0,
            told: Told::default(),
            paces_input: config.limits.publish_rate.is_limited(),
            paces_output: config.limits.delivery_rate.is_limited(),
            tenants: Arc::default(),
            paces_tenants: false,
            bans: Arc::default(),
            flaps: Flaps::default(),
            overloaded: false,
            queued_max: (
                config.limits.queued_messages_max as u64,
                config.limits.queued_bytes_max as u64,
            ),
            sessions_told: 0,
            spaces: Spaces::new(config.limits.filters, seed),
            interests: PendingInterests::default(),
            matches: Matches::default(),
            wait: Duration::ZERO,
            retained: RetainedMessages::default(),
            next_cursor: 0,
            next_suback: 0,
            groups: Groups::default(),
            memberships: Memberships::default(),
            tickets: HashMap::default(),
            next_ticket: 0,
            messages: 0,
            unaccepted: (0..per_shard).map(|_| Unaccepted::default()).collect(),
            received: (0..per_shard).map(|_| Received::default()).collect(),
            spare_frames: Vec::new(),
            unanswered: false,
            next_commit: 1,
            committed: CommitId::ZERO,
            strict: CommitId::ZERO,
            ended: BTreeMap::new(),
            store: StoreState::Working,
            uncommitted: Uncommitted::default(),
            gated_answers: VecDeque::new(),
            gated_connections: BTreeMap::new(),
            sys: Sys::new(&config, shard, shards, now),
            outbox: Outbox::default(),
            shutdown: false,
            restoring: None,
            recorded_time: UnixTime::default(),
            config,
        }
    }

    /// What the shard has counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether a connection waits for what it has on its way to other shards.
    #[must_use]
    pub const fn wants_credit(&self) -> bool {
        self.out_of_credit > 0
    }

    /// Something came from another shard's [`Command::ToShard`](crate::Command::ToShard).
    pub fn handle_from_shard(&mut self, from: ShardId, value: ShardMessage, now: Now) {
        let now = self.clock.read(now);
        self.on_value(from, value.0, now);
        self.settle(now);
    }

    pub(crate) fn on_value(&mut self, from: ShardId, value: Value, now: Now) {
        match value {
            Value::Forward(published) => self.on_forward(from, published, now),
            Value::Frames(forwarded) => self.on_forwarded_frames(from, forwarded, now),
            Value::Accepted {
                through,
                unmatched,
                slowed,
                ..
            } => {
                self.on_accepted(from, through, &unmatched, &slowed, now);
            }
            Value::Relay { ticket, published } => self.on_relay(from, ticket, published, now),
            Value::Relayed {
                ticket,
                matched,
                wait,
            } => self.close_one(ticket, matched, wait, now),
            Value::Interest {
                token,
                tenant,
                filter,
                durable,
            } => self.on_interest(from, token, &tenant, filter.as_filter(), durable),
            Value::Disinterest { tenant, filter } => {
                self.on_disinterest(from, &tenant, filter.as_filter());
            }
            Value::InterestConfirmed { token, granted } => {
                self.on_interest_confirmed(token, granted, now);
            }
            Value::RetainedQuery(query) => self.on_retained_query(from, *query, now),
            Value::RetainedPage {
                query,
                messages,
                next,
            } => self.on_retained_page(query, messages, next, now),
            Value::Group {
                group,
                membership,
                change,
            } => self.on_group_change(from, group, membership, change, now),
            Value::Finished {
                group,
                membership,
                sequence,
            } => {
                let shard = self.shard;
                self.on_member_finished(group, MemberId { shard, membership }, sequence, now);
            }
            Value::Joined {
                membership,
                granted,
            } => self.on_joined(membership, granted, now),
            Value::SharedDeliver {
                group,
                membership,
                qos,
                message,
            } => self.on_shared_deliver(group, membership, qos, message, now),
            Value::Restored { second } => self.on_restored(second, now),
            Value::Usage { tenant, usage } => self.on_usage(from, &tenant, usage),
            Value::Stats(counters) => self.on_stats(from, *counters),
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.expire_connections(now);
        self.expire_permits(now);
        if self.is_restoring() {
            return;
        }
        self.expire_sessions(now);
        self.expire_retained(now);
        self.ask_deferred();
        self.update_sys(now);
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_restoring() {
            return self.timers.next_connection();
        }
        let session = self.timers.next_session();
        let retained = self.retained.next_expiry();
        let deferred = self.retained.is_deferred().then(|| self.clock.instant());
        Instant::first_of([
            deferred,
            self.timers.next_connection(),
            session.map(|at| self.clock.instant_of(at)),
            retained.map(|at| self.clock.expiry_of(at)),
            self.sys.next_update(),
        ])
    }

    /// Everything up to this commit is stored: what waited for it leaves.
    pub fn handle_committed(&mut self, committed: CommitId, now: Now) {
        let now = self.clock.read(now);
        self.committed = self.committed.max(committed);
        self.ended.retain(|_, gate| *gate > committed);
        self.uncommitted.commit(committed);
        self.resume_for_store(now);
        self.release_answers();
        self.release_connections(now);
        self.settle(now);
    }

    /// The store has stopped taking what is recorded, or takes it again. While it does not, clients of
    /// 5.0 are told so when they publish what would have to be stored, with 0x97 (quota exceeded) or
    /// 0x83 (implementation specific error), and others get no acknowledgement. What need not be
    /// stored goes on as ever.
    pub const fn set_store(&mut self, state: StoreState) {
        self.store = state;
    }

    /// The broker stops: 5.0 clients are told so [MQTT5-4.13.2-1], and every connection ends once
    /// its output is written. Wills are left to the restart.
    pub fn handle_shutdown(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.shutdown = true;
        self.disconnect_all(now);
        self.settle(now);
    }
}

impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Engine")
            .field("shard", &self.shard)
            .field("shards", &self.shards)
            .field("connections", &self.connections.len())
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}
