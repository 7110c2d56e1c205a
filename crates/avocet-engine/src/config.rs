//! What an engine is told once, at its start.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use avocet_codec::{List, UserProperty};
use avocet_session::ServerConfig;
use avocet_topic::{FilterTreeLimits, TopicLimits, TopicName};

use crate::hooks::PublishOutHook;

/// How a broker behaves. All shards of a broker get the same value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// What every Network Connection is offered and held to, and the limits of every Session.
    pub connection: Arc<ServerConfig>,
    /// Whether a CONNECT waits for a verdict.
    pub authentication: Authentication,
    /// Who decides what clients may do.
    pub authorization: Authorization,
    /// How long the driver has for its answer to [`Command::Authorize`](crate::Command::Authorize).
    /// Then what waits for it is refused with 0x83 (implementation specific error).
    pub authorization_timeout: Duration,
    /// Whether each message that a client publishes, and its Will Message, waits for what the driver
    /// makes of it: [`Command::PublishIn`](crate::Command::PublishIn).
    pub publish_in: bool,
    /// What decides what each session gets of a message; none for all of it.
    pub publish_out: Option<Arc<dyn PublishOutHook>>,
    /// Whether the driver is told who subscribed to what, and who ended that:
    /// [`Event::Subscribed`](crate::Event::Subscribed), [`Event::Unsubscribed`](crate::Event::Unsubscribed).
    pub subscription_events: bool,
    /// Whether users have Client Identifiers of their own.
    pub client_ids: ClientIds,
    /// Whether acknowledgements wait for commits.
    pub durability: Durability,
    /// What they wait for, where they wait for commits.
    pub levels: Levels,
    /// Bounds on what one shard holds.
    pub limits: EngineLimits,
    /// How a shared subscription chooses a member.
    pub shared_strategy: SharedStrategy,
    /// Whether a payload declared to be UTF-8 is checked [MQTT5-3.3.2.3.2].
    pub check_payload_format: bool,
    /// Response Information for the clients that ask for it; `%c` stands for the Client
    /// Identifier [MQTT5-3.2.2.3.15].
    pub response_information: Option<Box<str>>,
    /// Server Reference sent with the DISCONNECT of a shutdown [MQTT5-3.14.2.3.5].
    pub server_reference: Option<Box<str>>,
    /// How often `$SYS` topics are brought up to date; none for no such topics.
    pub sys_interval: Option<Duration>,
    /// Value of `$SYS/broker/version`.
    pub version: Box<str>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            connection: Arc::new(ServerConfig::default()),
            authentication: Authentication::None,
            authorization: Authorization::None,
            authorization_timeout: Duration::from_secs(10),
            publish_in: false,
            publish_out: None,
            subscription_events: false,
            client_ids: ClientIds::Shared,
            durability: Durability::Memory,
            levels: Levels::default(),
            limits: EngineLimits::default(),
            shared_strategy: SharedStrategy::RoundRobin,
            check_payload_format: false,
            response_information: None,
            server_reference: None,
            sys_interval: Some(Duration::from_secs(10)),
            version: concat!("avocet version ", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// Who decides whether a client may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Nobody: every well-formed CONNECT without enhanced authentication is accepted.
    #[default]
    None,
    /// The driver: [`Command::Authenticate`](crate::Command::Authenticate).
    Asked,
}

/// Who decides what a client may publish, subscribe to and be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// Nobody: all of it.
    #[default]
    None,
    /// The rules of [`Engine::set_rules`](crate::Engine::set_rules); until there are some, everything
    /// is denied.
    Rules,
    /// The same rules, and about publishing and subscribing what none of them is about, the driver:
    /// [`Command::Authorize`](crate::Command::Authorize). What a client has subscribed to, it is sent,
    /// unless a rule denies it.
    Asked,
}

/// Whom a session belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIds {
    /// To its Client Identifier: another user who has it takes the session over.
    #[default]
    Shared,
    /// To its user and its Client Identifier: another user who has it gets a session of his own.
    OfEachUser,
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// That the message is in memory: nothing is recorded, nothing waits.
    #[default]
    Memory,
    /// That what must survive is stored: changes leave as [`Command::Commit`](crate::Command), and
    /// what depends on them waits for [`Engine::handle_committed`](crate::Engine).
    Stored,
}

/// How far a commit has come when what waits for it goes on. Everything is recorded in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing waits: a crash may take back what was acknowledged.
    Memory,
    /// The operating system has it: it survives the end of the process.
    Os,
    /// It is on the disk: it survives the loss of power.
    #[default]
    Fsync,
}

/// Which level is for whom. A message has the strictest of its listener's and its topic's, or else
/// the default, and keeps it; what is not a message has the default.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Levels {
    /// Where nothing else is said.
    pub default: Level,
    /// By the driver's number of the listener that accepted the publisher.
    pub listeners: Vec<(u16, Level)>,
    /// By the beginning of the Topic Name.
    pub topics: Vec<(Box<str>, Level)>,
}

impl Levels {
    /// The level of a message; one without a listener is the server's.
    pub(crate) fn of(&self, listener: Option<u16>, topic_name: TopicName<'_>) -> Level {
        let listeners = self.listeners.iter();
        let listeners = listeners.filter(|(number, _)| Some(*number) == listener);
        let topics = self.topics.iter();
        let topics = topics.filter(|(prefix, _)| topic_name.as_str().starts_with(&**prefix));
        let levels = listeners.map(|it| it.1).chain(topics.map(|it| it.1));
        levels.max().unwrap_or(self.default)
    }
}

/// So much in a second, of which as much may come at once; 0 for as much as comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Messages.
    pub messages_per_second: u32,
    /// Bytes of their packets.
    pub bytes_per_second: u32,
}

impl Rate {
    /// Whether it limits anything.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.messages_per_second > 0 || self.bytes_per_second > 0
    }
}

/// How many User Properties a packet may have; 0 for as many as it has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserPropertyLimits {
    /// Their number.
    pub count_max: u32,
    /// Bytes of their names and values.
    pub bytes_max: u32,
}

impl UserPropertyLimits {
    /// Whether there is a limit at all.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.count_max > 0 || self.bytes_max > 0
    }

    /// Whether so many are too many.
    #[must_use]
    pub fn are_exceeded_by(&self, properties: List<'_, UserProperty<'_>>) -> bool {
        let max = |max: u32| if max == 0 { usize::MAX } else { max as usize };
        let bytes = |it: UserProperty<'_>| it.name.len() + it.value.len();
        properties.len() > max(self.count_max)
            || properties.iter().map(bytes).sum::<usize>() > max(self.bytes_max)
    }
}

/// When a client is banned for connecting again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// Connections within the window that are allowed.
    pub connects_max: u32,
    /// How long connections are counted.
    pub window: Duration,
    /// For how long it is refused then, with 0x8A (banned).
    pub ban: Duration,
}

/// What happens to a client that publishes too fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overrun {
    /// It is not read for a while, so that the network slows it.
    #[default]
    Pause,
    /// Its message is refused with 0x97 (quota exceeded); dropped where that cannot be told: with QoS 0
    /// and in 3.x.
    Refuse,
}

/// How a shared subscription chooses the member that gets a message, among those connected
/// [MQTT5-4.8.2].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedStrategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest messages that are not acknowledged; the longest waiting of these.
    LeastInFlight,
    /// The same one until it goes.
    Sticky,
    /// The same one for all messages of a publisher, while the members stay.
    ByPublisher,
    /// The same one for all messages of a topic, while the members stay.
    ByTopic,
}

/// Bounds on what one shard holds; where one is reached, the outcome is the one named.
///
/// Counts are per shard: sessions spread evenly over the shards of a broker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineLimits {
    /// Network Connections. A CONNECT beyond gets 0x97 (quota exceeded).
    pub connections_max: usize,
    /// Sessions, with or without a connection. A CONNECT beyond gets 0x97.
    pub sessions_max: usize,
    /// Tenants that have or had sessions, messages or subscriptions here since the start. A CONNECT of
    /// another one gets 0x97.
    pub tenants_max: usize,
    /// Subscriptions of one session. Beyond, the SUBACK says 0x97.
    pub subscriptions_per_session_max: usize,
    /// Topics of one connected client for which the driver's answers are kept; none of more than 256
    /// bytes. Others are asked about each time.
    pub answers_per_session_max: usize,
    /// Shapes of the wildcard filters of one session: what keeps a client from using up those of
    /// the shard. Filters of further shapes get 0x97.
    pub shapes_per_session_max: usize,
    /// Topic Levels and bytes. A Topic Filter beyond gets 0x8F, a Topic Name 0x90.
    pub topics: TopicLimits,
    /// Different Topic Filters. A subscription beyond gets 0x97.
    pub filters: FilterTreeLimits,
    /// Bytes of a Client Identifier. A CONNECT with a longer one gets 0x85 (client identifier not
    /// valid).
    pub client_id_bytes_max: usize,
    /// User Properties of a CONNECT, a Will Message or a PUBLISH. Beyond, it gets 0x97.
    pub user_properties: UserPropertyLimits,
    /// Levels that a Topic Filter has before its first wildcard, at least. One with fewer gets 0x8F.
    pub wildcard_level_min: usize,
    /// Whether 3.x clients, which cannot be told another Keep Alive, get 0x85 (return code 2) if theirs
    /// is greater than [`keep_alive_max`](avocet_session::ServerConfig::keep_alive_max), or 0.
    pub keep_alive_refused: bool,
    /// How often a client may connect before it counts as flapping; none for as often as it wants.
    pub flapping: Option<Flapping>,
    /// Sessions without a connection that are told to the operator, and again at each doubling.
    pub sessions_disconnected_told: usize,
    /// For how long a message is retained at most, from when the shard had it; zero for ever.
    pub retained_age_max: Duration,
    /// Retained messages this shard owns. Beyond, a message is delivered and not retained, which
    /// is counted.
    pub retained_messages_max: usize,
    /// Bytes of the retained messages this shard owns; the outcome is the same.
    pub retained_bytes_max: usize,
    /// Messages waiting in all sessions and groups of the shard. Beyond, a message is dropped and counted.
    pub queued_messages_max: usize,
    /// Bytes of these; a message that waits in several sessions counts in each.
    pub queued_bytes_max: usize,
    /// Messages waiting in one group while no member can take them. Beyond, or beyond the bytes
    /// that a session's queue may hold, they are dropped by the policy of
    /// [`Limits`](avocet_session::Limits) and counted.
    pub group_messages_max: usize,
    /// Unacknowledged messages that a group gives to one member.
    pub group_window: usize,
    /// Seconds. A longer Session Expiry Interval is cut to this, and the client is told.
    pub session_expiry_interval_max: u32,
    /// For how long the queue of a connected client that is more than half full slows those who
    /// publish to it: after each of their messages their input waits up to a hundredth of this, the
    /// longer the fuller it is. After that it slows nobody until it has been half empty. Zero for not
    /// at all.
    pub slow_publishers: Duration,
    /// How fast each client may publish.
    pub publish_rate: Rate,
    /// What happens beyond.
    pub publish_overrun: Overrun,
    /// How fast each client is sent messages. Beyond, they wait in its queue.
    pub delivery_rate: Rate,
    /// Messages of one connection on their way to other shards. Beyond, its input pauses.
    pub forwards_max: usize,
    /// Bytes of these; the outcome is the same.
    pub forwards_bytes_max: usize,
    /// Bytes recorded and not stored. Beyond, connections that publish what must be stored pause.
    pub uncommitted_bytes_max: usize,
    /// Packets read from one connection before the others have their turn; all but messages and
    /// acknowledgements count as 16, messages as more the more filters of different shapes there are.
    pub slice_packets: usize,
    /// Bytes read from one connection, or a sixty-fourth of the bytes queued for its messages, before
    /// the others have their turn.
    pub slice_bytes: usize,
    /// Retained messages asked from an owner at once.
    pub retained_page_messages: usize,
    /// Bytes of these.
    pub retained_page_bytes: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            sessions_max: 2_000_000,
            tenants_max: 10_000,
            answers_per_session_max: 64,
            subscriptions_per_session_max: 10_000,
            shapes_per_session_max: 64,
            client_id_bytes_max: u16::MAX.into(),
            user_properties: UserPropertyLimits::default(),
            wildcard_level_min: 0,
            keep_alive_refused: false,
            flapping: None,
            sessions_disconnected_told: 100_000,
            retained_age_max: Duration::ZERO,
            topics: TopicLimits::default(),
            filters: FilterTreeLimits::default(),
            retained_messages_max: 10_000_000,
            retained_bytes_max: 4 << 30,
            queued_messages_max: 50_000_000,
            queued_bytes_max: 4 << 30,
            group_messages_max: 100_000,
            group_window: 1_000,
            session_expiry_interval_max: u32::MAX,
            slow_publishers: Duration::ZERO,
            publish_rate: Rate::default(),
            publish_overrun: Overrun::default(),
            delivery_rate: Rate::default(),
            forwards_max: 1_024,
            forwards_bytes_max: 1 << 20,
            uncommitted_bytes_max: 16 << 20,
            slice_packets: 1_000,
            slice_bytes: 64 << 10,
            retained_page_messages: 256,
            retained_page_bytes: 256 << 10,
        }
    }
}
