//! What an engine asks of its driver, and what the driver tells it beyond bytes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use avocet_access::{Action, Effect, Identity};
use avocet_codec::{Frame, QoS, ReasonCode, Version};
use avocet_session::{CloseReason, CommitId, FetchFrom, Message, ServerConnection, UnixTime};
use avocet_topic::{TopicFilterBuf, TopicNameBuf};

use crate::config::Level;
use crate::peer::Peer;
use crate::quotas::TenantProblem;
use crate::record::Record;
use crate::session_table::SessionKey;
use crate::shard::{ShardId, ShardMessage};
use crate::tenant::Tenant;

/// Names a Network Connection in all shards: the driver gives each one a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The connection with this number in the count of the shard that accepted it, which is
    /// unique over all shards while the count stays below 2^48.
    #[must_use]
    pub const fn new(accepted_by: ShardId, count: u64) -> Self {
        Self((accepted_by.get() as u64) << 48 | count & ((1 << 48) - 1))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0 >> 48, self.0 & ((1 << 48) - 1))
    }
}

/// What the driver knows of a Network Connection before its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Where it comes from.
    pub peer: Peer,
    /// Which of the driver's listeners accepted it, for authentication.
    pub listener: u16,
    /// Whose listener that is.
    pub tenant: Tenant,
    /// What its CONNECT is to be answered with, whatever it says: the driver takes it no further.
    pub refused: Option<ReasonCode>,
}

impl Opened {
    /// A connection from `peer`, accepted by the driver's listener `listener`.
    #[must_use]
    pub fn new(peer: impl Into<Peer>, listener: u16) -> Self {
        Self {
            peer: peer.into(),
            listener,
            tenant: Tenant::NONE,
            refused: None,
        }
    }
}

/// A connection on its way to the shard that owns its session: what the engine knows of it. Socket
/// and unread bytes go with it.
pub struct Moved {
    pub(crate) server: ServerConnection,
    pub(crate) opened: Opened,
    pub(crate) connect: Frame,
    pub(crate) key: Arc<SessionKey>,
    pub(crate) accepted: Accepted,
}

impl Moved {
    /// What the driver has said of the connection.
    #[must_use]
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The driver takes it no further: its CONNECT is to be answered with this.
    pub const fn refuse(&mut self, reason: ReasonCode) {
        self.opened.refused = Some(reason);
    }
}

impl fmt::Debug for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moved")
            .field("opened", &self.opened)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What the driver has to do, in the order given.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// Store these changes as one unit, behind those of earlier commits; then call
    /// [`Engine::handle_committed`](crate::Engine::handle_committed).
    Commit {
        /// Its position.
        id: CommitId,
        /// The changes, in order.
        records: Vec<Record>,
        /// How safe it must be, and all before it, to be reported: the strictest of what waits for
        /// it. One that nothing waits for is reported all the same, sooner or later.
        level: Level,
    },
    /// Read queued messages of a session back; then call
    /// [`Engine::handle_fetched`](crate::Engine::handle_fetched).
    Fetch {
        /// The session; the answer brings this value itself.
        session: Arc<SessionKey>,
        /// Which messages of its queue.
        from: FetchFrom,
    },
    /// Put a value behind all others in the inbox of another shard; its driver calls
    /// [`Engine::handle_from_shard`](crate::Engine::handle_from_shard).
    ToShard {
        /// The other shard.
        to: ShardId,
        /// The value.
        value: ShardMessage,
    },
    /// Find out whether a client may connect; then call
    /// [`Engine::handle_authenticated`](crate::Engine::handle_authenticated). Its input waits.
    Authenticate {
        /// The connection.
        id: ConnectionId,
        /// What it presents.
        request: AuthenticationRequest,
    },
    /// Find out what a client may do; then call
    /// [`Engine::handle_authorized`](crate::Engine::handle_authorized). Its input waits, for as long as
    /// [`authorization_timeout`](crate::EngineConfig::authorization_timeout) says.
    Authorize {
        /// The connection.
        id: ConnectionId,
        /// What the answer is to.
        question: QuestionId,
        /// Whose connection it is.
        client: Arc<Client>,
        /// What it wants.
        request: AuthorizationRequest,
        /// What the rules in force say of what nobody says anything about.
        default: Effect,
    },
    /// Say what becomes of a message that a client publishes and may publish; then call
    /// [`Engine::handle_publish_in`](crate::Engine::handle_publish_in). Its input waits.
    PublishIn {
        /// The connection.
        id: ConnectionId,
        /// The message, with the QoS and the RETAIN flag of its PUBLISH.
        message: Message,
    },
    /// The same of the Will Message of a client that has authenticated and is not yet connected. What
    /// becomes of it is its Will Message.
    WillIn {
        /// The connection.
        id: ConnectionId,
        /// The session that it will have.
        session: Arc<SessionKey>,
        /// Its user, if it has one.
        user: Option<Box<str>>,
        /// The message, which has no expiry: that runs from its publication.
        message: Message,
    },
    /// Hand a connection over, socket and unread bytes included; the driver of the other shard
    /// calls [`Engine::handle_moved`](crate::Engine::handle_moved), then
    /// [`Engine::handle_input`](crate::Engine::handle_input) with the unread bytes. It travels in
    /// the same inbox as the values of [`Command::ToShard`].
    Move {
        /// The connection, which this shard has forgotten.
        id: ConnectionId,
        /// The other shard.
        to: ShardId,
        /// What its engine needs.
        moved: Box<Moved>,
    },
    /// Read on: call [`Engine::handle_input`](crate::Engine::handle_input) with the rest.
    Resume(ConnectionId),
    /// There is output: call [`Engine::poll_transmit`](crate::Engine::poll_transmit) and write it.
    Flush(ConnectionId),
    /// Close the socket once what was already taken is written. The engine has forgotten it.
    Close(ConnectionId),
    /// For the operator.
    Log(Event),
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client is connected.
    Connected {
        /// The connection.
        id: ConnectionId,
        /// Where it comes from.
        peer: Peer,
        /// Which of the driver's listeners accepted it.
        listener: u16,
        /// The session.
        session: Arc<SessionKey>,
        /// Its user, if it has one.
        user: Option<Box<str>>,
        /// The version it speaks.
        version: Version,
        /// Keep Alive in seconds, 0 for none.
        keep_alive: u16,
        /// Whether it goes on with an existing session.
        session_present: bool,
    },
    /// A SUBACK leaves. Told where [`EngineConfig::subscription_events`](crate::EngineConfig::subscription_events)
    /// says so.
    Subscribed {
        /// The connection.
        id: ConnectionId,
        /// The filters of the SUBSCRIBE, with what the SUBACK says of each.
        filters: Vec<(TopicFilterBuf, ReasonCode)>,
    },
    /// An UNSUBACK leaves. Told as [`Subscribed`](Self::Subscribed) is.
    Unsubscribed {
        /// The connection.
        id: ConnectionId,
        /// The filters of the UNSUBSCRIBE, with what the UNSUBACK says of each.
        filters: Vec<(TopicFilterBuf, ReasonCode)>,
    },
    /// A CONNECT was refused.
    Refused {
        /// The connection.
        id: ConnectionId,
        /// Where it comes from.
        peer: Peer,
        /// Which of the driver's listeners accepted it.
        listener: u16,
        /// The Client Identifier, empty if it has none.
        client_id: String,
        /// Why.
        reason: ReasonCode,
    },
    /// A CONNECT is refused, since it is not clear whose client it is.
    TenantRefused {
        /// Where it comes from.
        peer: Peer,
        /// The Client Identifier.
        client_id: String,
        /// Why.
        problem: TenantProblem,
    },
    /// The store cannot read queued messages of a session: it goes on without them.
    Unreadable {
        /// The session.
        session: Arc<SessionKey>,
        /// How many.
        messages: u64,
    },
    /// A client connects again and again: it is refused for a while.
    Flapping {
        /// Where its last connection comes from.
        peer: Peer,
        /// Its session.
        session: Arc<SessionKey>,
        /// How often it connected.
        connects: u32,
    },
    /// There are very many sessions without a connection. Clients that choose another Client Identifier
    /// each time leave such behind.
    ManySessions {
        /// How many in this shard.
        disconnected: u64,
        /// Whose most of them are, by tenant and user (the Client Identifier is empty), and how many.
        most: (Arc<SessionKey>, u64),
        /// The last one.
        example: Arc<SessionKey>,
    },
    /// A client was refused something. A shard tells of at most 50 refusals in a second, 5 of one client.
    /// Messages that a client is not sent are counted only.
    NotAuthorized {
        /// The client.
        client: Arc<Client>,
        /// What it wanted to do.
        action: Action,
        /// The Topic Name, or the Topic Filter.
        topic: Box<str>,
        /// Who refused it.
        by: RefusedBy,
        /// What the rule is called, if it was one.
        rule: Option<String>,
        /// Refusals of this shard that nothing was said of since the last one.
        omitted: u64,
    },
    /// A connection is gone.
    Disconnected {
        /// The connection.
        id: ConnectionId,
        /// Where it came from.
        peer: Peer,
        /// Which of the driver's listeners accepted it.
        listener: u16,
        /// What it called itself, if it has no session: empty before its CONNECT.
        client_id: String,
        /// The session, none if it had no successful CONNECT.
        session: Option<Arc<SessionKey>>,
        /// The version it spoke, which is known once it has a session.
        version: Version,
        /// Who closed it, and why.
        reason: CloseReason,
    },
}

/// What a client presents to be let in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AuthenticationRequest {
    /// Its CONNECT.
    Connect {
        /// Where it comes from, and by which listener.
        opened: Opened,
        /// The whole packet.
        connect: Frame,
    },
    /// An AUTH that goes on with enhanced authentication [MQTT5-4.12].
    Continue {
        /// The whole packet.
        auth: Frame,
    },
    /// An AUTH that begins re-authentication [MQTT5-4.12.1].
    ReAuthenticate {
        /// The session.
        session: Arc<SessionKey>,
        /// The whole packet.
        auth: Frame,
    },
}

/// The answer to an [`AuthenticationRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is let in.
    Accept(Accepted),
    /// It has to answer this [MQTT5-4.12.0-2].
    Continue {
        /// Authentication Data for the client.
        data: Option<Vec<u8>>,
    },
    /// It is not.
    Refuse {
        /// An error code.
        reason: ReasonCode,
        /// For the client's log.
        reason_string: Option<String>,
        /// Where it should go instead, with [`ReasonCode::UseAnotherServer`] and
        /// [`ReasonCode::ServerMoved`].
        server_reference: Option<String>,
    },
}

/// What is known of a client that was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// Whose topics, Client Identifiers and sessions are apart from those of others; none for that of
    /// the listener. Where both name one it must be the same.
    pub tenant: Tenant,
    /// Authentication Data for the CONNACK, or the last AUTH.
    pub data: Option<Vec<u8>>,
    /// Who it is, for rules; the engine puts the Client Identifier in.
    pub identity: Identity,
    /// When its connection is closed with Not authorized, if nothing renews this; its Session State stays.
    pub until: Option<UnixTime>,
}

impl Accepted {
    /// Let in as a client of this tenant.
    #[must_use]
    pub fn new(tenant: Tenant, data: Option<Vec<u8>>) -> Self {
        Self {
            tenant,
            data,
            identity: Identity::default(),
            until: None,
        }
    }
}

/// Names a question about what a client may do; no other question of its shard has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub(crate) u64);

/// A client that was let in, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// Its connection.
    pub id: ConnectionId,
    /// Its session, by tenant and Client Identifier.
    pub session: Arc<SessionKey>,
    /// Who it is.
    pub identity: Identity,
    /// Where it comes from, and by which listener.
    pub opened: Opened,
}

/// Who refused what a client wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBy {
    /// The rule with this index.
    Rule(usize),
    /// The rules, none of which is about it.
    Default,
    /// The driver.
    Answer,
    /// The driver, which did not answer in time, or with 0x83.
    Nobody,
}

/// What becomes of a message that a client publishes: the answer to [`Command::PublishIn`] and to
/// [`Command::WillIn`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishIn {
    /// It is published as it came.
    Pass,
    /// This one is published, with the QoS with which the other one came. It must be one that clients
    /// may publish, as far as topics and limits go; no rules judge it.
    Change(Message),
    /// Nothing is published. The client is told this error code; with QoS 0 and in 3.x it is told nothing,
    /// and its message counts as acknowledged. A client with a Will Message is not let in.
    Refuse(ReasonCode),
}

/// What a client wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthorizationRequest {
    /// To publish a message, or to leave it as its Will.
    Publish {
        /// To this topic.
        topic_name: TopicNameBuf,
        /// With this QoS.
        qos: QoS,
        /// With this RETAIN flag.
        retain: bool,
        /// Whether it is a Will: then its client is not let in before the answer.
        will: bool,
    },
    /// To subscribe.
    Subscribe {
        /// To these, as they stood in the packet, with the QoS asked for.
        filters: Vec<(TopicFilterBuf, QoS)>,
    },
}

/// The answer to an [`AuthorizationRequest`]. 0x83 (implementation specific error) says that nobody knows,
/// which is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Permission {
    /// To publish: [`ReasonCode::Success`] or an error code.
    Publish(ReasonCode),
    /// To subscribe, for each filter in order: the highest QoS, or an error code. Filters without
    /// an answer are not authorized.
    Subscribe(Vec<Result<QoS, ReasonCode>>),
}
