//! What a program that embeds a broker decides and is told.

mod asking;

use std::fmt;
use std::ops::BitOr;
use std::sync::Arc;
use std::time::Duration;

use avocet_access::Identity;
use avocet_codec::{Connect, Packet, PacketType, QoS, ReasonCode};
use avocet_engine::{
    Accepted, AuthenticationRequest, AuthorizationRequest, ConnectionId, Permission, PublishIn,
    PublishOut, Recipient, SessionKey, Verdict,
};
use avocet_session::{CloseReason, Message};
use avocet_topic::TopicFilterBuf;

pub use asking::{Answer, HookCounts};
pub(crate) use asking::{Asker, Hooked, Job, Reply, Told, Waiting, forget, start};

use crate::access::refuse;

/// What a program that embeds a broker decides, and what it is told. `docs/hooks.md` of the repository
/// describes each question, its deadline, and what happens when that is missed.
///
/// Questions are put on threads that are there for it: they may block. Who needs longer, or answers
/// from async code, keeps the [`Answer`] and gives it later. The client that is asked about waits, in
/// order; nobody else does. [`publish_out`](Self::publish_out) is the exception: it is called on the thread
/// that serves the receiver, and must not block.
///
/// A method that panics has refused.
pub trait Hooks: Send + Sync + 'static {
    /// What it is asked and told; what is not in it costs nothing. Read once, when the broker
    /// starts.
    fn interests(&self) -> Interests;

    /// Whether a client may connect, and each step of enhanced authentication.
    fn authenticate(&self, request: Authenticate, answer: Answer<Authenticated>) {
        let _ = request;
        answer.give(Authenticated::Pass);
    }

    /// Whether a client may publish, leave a Will Message or subscribe, where no rule is about it.
    fn authorize(&self, request: Authorize, answer: Answer<Authorized>) {
        let _ = request;
        answer.give(Authorized::Pass);
    }

    /// What becomes of a message that a client publishes and may publish, and of its Will Message when it
    /// connects.
    fn publish_in(&self, publication: Publication, answer: Answer<PublishIn>) {
        let _ = publication;
        answer.give(PublishIn::Pass);
    }

    /// What one session gets of a message, decided when it is queued for it. It is called for each
    /// message and session on the thread that serves them, and whatever takes long here delays
    /// everything on it. The same arguments should lead to the same result.
    fn publish_out(&self, message: &Message, to: &Recipient<'_>) -> PublishOut {
        let _ = (message, to);
        PublishOut::Pass
    }

    /// A client is connected.
    fn connected(&self, client: &Client) {
        let _ = client;
    }

    /// The connection of a client has ended.
    fn disconnected(&self, client: &Client, reason: CloseReason) {
        let _ = (client, reason);
    }

    /// A client subscribed, or subscribed again, and got this QoS.
    fn subscribed(&self, client: &Client, filter: &TopicFilterBuf, granted: QoS) {
        let _ = (client, filter, granted);
    }

    /// A client ended a subscription with UNSUBSCRIBE.
    fn unsubscribed(&self, client: &Client, filter: &TopicFilterBuf) {
        let _ = (client, filter);
    }
}

/// What [`Hooks`] are asked and told; several of them with `|`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interests(u8);

impl Interests {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// [`Hooks::authenticate`].
    pub const AUTHENTICATE: Self = Self(1);
    /// [`Hooks::authorize`].
    pub const AUTHORIZE: Self = Self(1 << 1);
    /// [`Hooks::publish_in`]. No messages pass as the packets they came in then.
    pub const PUBLISH_IN: Self = Self(1 << 2);
    /// [`Hooks::publish_out`], with the same cost.
    pub const PUBLISH_OUT: Self = Self(1 << 3);
    /// [`Hooks::connected`], [`Hooks::disconnected`], [`Hooks::subscribed`], [`Hooks::unsubscribed`].
    pub const EVENTS: Self = Self(1 << 4);

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Interests {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A client of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// Its connection, which no other one has.
    pub id: ConnectionId,
    /// Where it comes from, as the log says it: an IP address and a port, `unix`, or `in-process`.
    pub peer: Box<str>,
    /// Which listener accepted it, in the order of the configuration; 65,535 for none.
    pub listener: u16,
    /// Its session: Client Identifier and tenant.
    pub session: Arc<SessionKey>,
    /// Its user, if it has one.
    pub user: Option<Box<str>>,
}

impl Client {
    /// Its Client Identifier.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.session.client_id()
    }
}

/// A client that wants to connect, or to show again who it is.
#[non_exhaustive]
pub struct Authenticate {
    /// Its connection, by which steps of enhanced authentication belong together.
    pub id: ConnectionId,
    /// What its certificate says of it.
    pub identity: Identity,
    /// Where it comes from, and by which listener.
    origin: Option<(Box<str>, u16)>,
    request: AuthenticationRequest,
}

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticate")
            .field("id", &self.id)
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}

impl Authenticate {
    pub(crate) fn new(
        id: ConnectionId,
        identity: Identity,
        request: AuthenticationRequest,
    ) -> Self {
        let origin = if let AuthenticationRequest::Connect { opened, .. } = &request {
            Some((opened.peer.to_string().into(), opened.listener))
        } else {
            None
        };
        Self {
            id,
            identity,
            origin,
            request,
        }
    }

    /// What it presents: a CONNECT, or an AUTH that goes on with enhanced authentication or, in a
    /// connection that has a session, begins it again [MQTT5-4.12].
    #[must_use]
    pub fn packet(&self) -> Packet<'_> {
        match &self.request {
            AuthenticationRequest::Connect { connect, .. } => connect.packet(),
            AuthenticationRequest::Continue { auth }
            | AuthenticationRequest::ReAuthenticate { auth, .. } => auth.packet(),
            // The engine asks in no other way.
            _ => Packet::Pingreq,
        }
    }

    /// Where it comes from, as the log says it, and which listener accepted it; none with AUTH.
    #[must_use]
    pub fn origin(&self) -> Option<(&str, u16)> {
        let (peer, listener) = self.origin.as_ref()?;
        Some((peer, *listener))
    }

    /// Its session, if it is connected and authenticates again.
    #[must_use]
    pub fn session(&self) -> Option<&SessionKey> {
        if let AuthenticationRequest::ReAuthenticate { session, .. } = &self.request {
            return Some(session);
        }
        None
    }

    /// The Client Identifier of its CONNECT, empty if it has none.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.connect().map_or("", |connect| connect.client_id)
    }

    /// The User Name of its CONNECT.
    #[must_use]
    pub fn user_name(&self) -> Option<&str> {
        self.connect()?.user_name
    }

    /// The Password of its CONNECT.
    #[must_use]
    pub fn password(&self) -> Option<&[u8]> {
        self.connect()?.password
    }

    fn connect(&self) -> Option<Connect<'_>> {
        if let Packet::Connect(connect) = self.packet() {
            return Some(connect);
        }
        None
    }
}

/// The answer to [`Hooks::authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authenticated {
    /// The settings decide: certificates, users, tokens, servers that are asked, anonymous access.
    Pass,
    /// It is let in, and this is known of it.
    Accept(Accepted),
    /// It has to answer this [MQTT5-4.12.0-2].
    Continue(Vec<u8>),
    /// It is not let in: an error code for CONNACK; in 3.x the return code that is closest to it.
    Refuse(ReasonCode),
}

impl Authenticated {
    /// Let in as this user.
    #[must_use]
    pub fn user(name: impl Into<Box<str>>) -> Self {
        let mut accepted = Accepted::default();
        accepted.identity.user = Some(name.into());
        Self::Accept(accepted)
    }

    /// None: the settings decide.
    pub(crate) fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Pass => None,
            Self::Accept(accepted) => Some(Verdict::Accept(accepted)),
            Self::Continue(data) => Some(Verdict::Continue { data: Some(data) }),
            Self::Refuse(reason) => {
                let said = reason.is_error() && reason.is_allowed_in(PacketType::Connack);
                let reason = if said {
                    reason
                } else {
                    ReasonCode::NotAuthorized
                };
                Some(refuse(reason))
            }
        }
    }
}

/// Something that a client wants to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Authorize {
    /// Who wants it; with a Will Message, it is about to be connected.
    pub client: Arc<Client>,
    /// What it wants. Filters that rules are about are not in it.
    pub wanted: AuthorizationRequest,
}

/// The answer to [`Hooks::authorize`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authorized {
    /// The settings decide: a server that is asked, or what the rules say of everything else; without either
    /// it is allowed.
    Pass,
    /// All of it is allowed, subscriptions with the QoS that is wanted.
    Allow,
    /// None of it is, with this error code, or Not authorized if the answer to the packet cannot say it.
    Refuse(ReasonCode),
    /// For each filter of a SUBSCRIBE, in order: the highest QoS that is granted, or an error code. Filters
    /// that are missing are not authorized.
    Filters(Vec<Result<QoS, ReasonCode>>),
}

impl Authorized {
    /// None: the settings decide.
    pub(crate) fn permission(self, wanted: &AuthorizationRequest) -> Option<Permission> {
        Some(match (wanted, self) {
            (_, Self::Pass) => return None,
            (AuthorizationRequest::Subscribe { filters }, answer) => {
                Permission::Subscribe(match answer {
                    Self::Filters(answers) => answers,
                    Self::Refuse(reason) => vec![Err(reason); filters.len()],
                    Self::Allow | Self::Pass => filters.iter().map(|it| Ok(it.1)).collect(),
                })
            }
            (_, Self::Allow) => Permission::Publish(ReasonCode::Success),
            (_, Self::Refuse(reason)) if reason.is_error() => Permission::Publish(reason),
            (_, Self::Refuse(_) | Self::Filters(_)) => {
                Permission::Publish(ReasonCode::NotAuthorized)
            }
        })
    }
}

/// A message that a client publishes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Publication {
    /// Whose it is.
    pub client: Arc<Client>,
    /// The message, with the QoS and the RETAIN flag of its PUBLISH.
    pub message: Message,
    /// Whether it is the Will Message of a client that is about to be connected.
    pub will: bool,
}

/// What happens to a question that is not answered in time, or whose [`Answer`] is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// It is refused.
    #[default]
    Refuse,
    /// It is answered with `Pass`.
    Pass,
}

/// Who decides beside the settings, and until when.
#[derive(Clone)]
#[non_exhaustive]
pub struct HookSettings {
    /// The program's own part; none for no questions.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// Threads that put questions.
    pub threads: u16,
    /// How long a client waits for the answer to [`Hooks::authenticate`].
    pub authenticate_timeout: Duration,
    /// What then: 0x88 (server unavailable), or whoever else decides.
    pub authenticate_missed: Missed,
    /// How long a client waits for the answer to [`Hooks::authorize`].
    pub authorize_timeout: Duration,
    /// What then: 0x87 (not authorized), or whoever else decides.
    pub authorize_missed: Missed,
    /// How long an answer to it holds for the same client and topic. Zero: for this once.
    pub authorize_cache: Duration,
    /// How long a message waits for the answer to [`Hooks::publish_in`].
    pub publish_in_timeout: Duration,
    /// What then: 0x80 (unspecified error), or it is published as it came.
    pub publish_in_missed: Missed,
    /// How long [`Hooks::publish_out`] may take; what takes longer is counted and logged.
    pub publish_out_budget: Duration,
    /// Events that wait to be told. Further ones are dropped and counted.
    pub events_max: usize,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            hooks: None,
            threads: 4,
            authenticate_timeout: Duration::from_secs(5),
            authenticate_missed: Missed::Refuse,
            authorize_timeout: Duration::from_secs(5),
            authorize_missed: Missed::Refuse,
            authorize_cache: Duration::ZERO,
            publish_in_timeout: Duration::from_secs(5),
            publish_in_missed: Missed::Refuse,
            publish_out_budget: Duration::from_millis(1),
            events_max: 10_000,
        }
    }
}

impl fmt::Debug for HookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSettings")
            .field("hooks", &self.interests())
            .field("threads", &self.threads)
            .field("authenticate_timeout", &self.authenticate_timeout)
            .field("authenticate_missed", &self.authenticate_missed)
            .field("authorize_timeout", &self.authorize_timeout)
            .field("authorize_missed", &self.authorize_missed)
            .field("authorize_cache", &self.authorize_cache)
            .field("publish_in_timeout", &self.publish_in_timeout)
            .field("publish_in_missed", &self.publish_in_missed)
            .field("publish_out_budget", &self.publish_out_budget)
            .field("events_max", &self.events_max)
            .finish()
    }
}

impl HookSettings {
    pub(crate) fn interests(&self) -> Interests {
        let hooks = self.hooks.as_ref();
        hooks.map_or(Interests::NONE, |hooks| hooks.interests())
    }
}
