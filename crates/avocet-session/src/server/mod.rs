//! The server's end of one Network Connection.
//!
//! ```text
//!   Opened ──CONNECT──> Connecting ──accept──> Connected ──┐
//!     │                   │  ^ AUTH                        │ violation, timeout, disconnect
//!     │ violation         │ refuse                         v
//!     │                   └──────────────────────────> Draining ──last packet left──> Closed
//!     └───────────────────────────────────────────────────────────────────────────────^
//! ```

mod config;
mod encoded;
mod handshake;
mod incoming;
mod outgoing;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::sync::Arc;
use avocet_codec::{
    Auth, Connack, Connect, Disconnect, Packet, PacketType, ReasonCode, Subscribe, Unsubscribe,
    Version,
};
use core::time::Duration;

pub use config::ServerConfig;
pub use handshake::{Accept, Authentication, Details};

use self::encoded::Encoded;
use crate::exchange::Exchange;
use crate::{
    AckError, AckToken, CloseReason, CommitId, ConnectionError, ConnectionEvent, Demand,
    IncomingPublish, Instant, Now, Session, Timeout, Timer,
};

/// One Network Connection of a server: bytes and time in, packets and events out.
#[derive(Debug)]
pub struct ServerConnection {
    config: Arc<ServerConfig>,
    state: State,
    client: Client,
    /// From `accept` to the end.
    exchange: Option<Exchange>,
    /// Answers that leave in order: AUTH, CONNACK, SUBACK, UNSUBACK.
    replies: VecDeque<outgoing::Reply>,
    /// PINGRESP packets to send.
    pingresps: u16,
    /// Whether CONNACK has not left: nothing but AUTH goes before it.
    connack_pending: bool,
    /// Whether the owner stopped the reading.
    paused: bool,
    /// Whether reading stopped because acknowledgements wait for this side.
    held: bool,
    /// When the last packet came.
    last_received: Instant,
    /// Packets written.
    packets_sent: u64,
    /// Messages that may be sent, [`u16::MAX`] for all there are.
    messages_left: u16,
}

#[derive(Debug)]
enum State {
    /// CONNECT is due.
    Opened { deadline: Instant },
    /// The owner's answer to CONNECT, or to AUTH, is due; or the client's AUTH.
    Connecting { deadline: Instant, auth_due: bool },
    /// CONNACK is on its way or has left.
    Connected { auth_turn: AuthTurn },
    /// The last packet has not left.
    Draining {
        deadline: Instant,
        reason: CloseReason,
        last: Encoded,
    },
    /// Nothing is sent or read; `reason` until it was reported.
    Closed { reason: Option<CloseReason> },
}

/// Whose packet is due in a re-authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthTurn {
    /// There is none.
    Nobody,
    Server,
    Client,
}

/// What CONNECT said.
#[derive(Debug)]
struct Client {
    version: Version,
    client_id: Box<str>,
    clean_start: bool,
    /// In seconds, as in force: the client's or Server Keep Alive.
    keep_alive: u16,
    session_expiry_interval: u32,
    receive_maximum: u16,
    maximum_packet_size: u32,
    topic_alias_maximum: u16,
    request_response_information: bool,
    request_problem_information: bool,
    authentication_method: Option<Box<str>>,
}

/// What [`ServerConnection::handle_input`] made of the bytes.
#[derive(Debug)]
pub struct ServerInput<'a> {
    /// Bytes read; the driver drops them.
    pub consumed: usize,
    /// Packets among them: one, or more if they are acknowledgements.
    pub packets: usize,
    /// How to go on with the rest.
    pub demand: Demand,
    /// The packet, if it concerns the owner.
    pub event: Option<ServerEvent<'a>>,
}

/// A packet that the owner of the connection acts on; it borrows the input.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent<'a> {
    /// The first packet: answered with `accept`, `refuse` or `authenticate`. Nothing more is read
    /// until then.
    Connect(Box<Connect<'a>>),
    /// A step of an authentication exchange: answered with `authenticate`; during CONNECT also
    /// with `accept` or `refuse`, later with `reauthenticated` or `disconnect`.
    Auth(Auth<'a>),
    /// A message.
    Publish {
        /// The packet, its Topic Alias resolved.
        publish: IncomingPublish<'a>,
        /// For QoS 1 and 2: what `acknowledge` wants.
        token: Option<AckToken>,
    },
    /// Answered with `suback`.
    Subscribe(Subscribe<'a>),
    /// Answered with `unsuback`.
    Unsubscribe(Unsubscribe<'a>),
}

impl ServerConnection {
    /// A connection whose socket was just accepted; CONNECT is due within
    /// [`ServerConfig::connect_timeout`].
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, now: Now) -> Self {
        let deadline = now.instant + config.connect_timeout;
        Self {
            config,
            state: State::Opened { deadline },
            client: Client::unknown(),
            exchange: None,
            replies: VecDeque::new(),
            pingresps: 0,
            connack_pending: false,
            paused: false,
            held: false,
            last_received: now.instant,
            packets_sent: 0,
            messages_left: u16::MAX,
        }
    }

    /// Lets time pass: to be called when [`ServerConnection::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Now) {
        let Some(timeout) = self.poll_timeout() else {
            return;
        };
        if timeout.at > now.instant {
            return;
        }
        match timeout.timer {
            Timer::Drain => self.close_drained(),
            Timer::KeepAlive => {
                let code = ReasonCode::KeepAliveTimeout;
                let details = Details {
                    reason_string: Some(code.name()),
                    server_reference: None,
                };
                self.end(CloseReason::KeepAliveTimeout, code, details, now);
            }
            Timer::Connect | Timer::Pingresp => self.close(CloseReason::ConnectTimeout),
        }
    }

    /// The socket is closed, or broke. An end that had begun keeps its reason.
    pub fn handle_closed(&mut self, _now: Now) {
        match self.state {
            State::Draining { .. } => self.close_drained(),
            State::Opened { .. } | State::Connecting { .. } | State::Connected { .. } => {
                self.close(CloseReason::ConnectionLost);
            }
            State::Closed { .. } => {}
        }
    }

    /// The store has committed everything up to this position; what waited for it may leave.
    pub fn handle_committed(&mut self, committed: CommitId) {
        if let Some(exchange) = &mut self.exchange {
            exchange.session.handle_committed(committed);
        }
    }

    /// Ends the connection from this side: in 5.0 with DISCONNECT, in 3.x by closing
    /// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2]. Before CONNACK has left it only closes [MQTT5-3.14.0-1].
    pub fn disconnect(&mut self, reason_code: ReasonCode, details: Details<'_>, now: Now) {
        self.end(
            CloseReason::Disconnected(reason_code),
            reason_code,
            details,
            now,
        );
    }

    /// Whether [`ServerConnection::poll_event`] has something to tell.
    #[must_use]
    pub fn has_events(&self) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| !exchange.events.is_empty())
            || matches!(self.state, State::Closed { reason: Some(_) })
    }

    /// What happened, in order; after `Closed` nothing comes.
    pub fn poll_event(&mut self) -> Option<ConnectionEvent> {
        let event = self
            .exchange
            .as_mut()
            .and_then(|exchange| exchange.events.pop_front());
        if event.is_some() {
            return event;
        }
        match &mut self.state {
            State::Closed { reason } => reason.take().map(ConnectionEvent::Closed),
            State::Opened { .. }
            | State::Connecting { .. }
            | State::Connected { .. }
            | State::Draining { .. } => None,
        }
    }

    /// When `handle_timeout` is due, unless something happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        match self.state {
            State::Opened { deadline } | State::Connecting { deadline, .. } => Some(Timeout {
                at: deadline,
                timer: Timer::Connect,
            }),
            State::Connected { .. } => {
                // [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]: one and a half Keep Alive. While this side
                // does not read, silence is not the client's.
                if self.client.keep_alive == 0 || self.paused || self.held {
                    return None;
                }
                let factor = if planted!(KeepAliveTooShort) {
                    1000
                } else {
                    1500
                };
                let silence = Duration::from_millis(u64::from(self.client.keep_alive) * factor);
                Some(Timeout {
                    at: self.last_received + silence,
                    timer: Timer::KeepAlive,
                })
            }
            State::Draining { deadline, .. } => Some(Timeout {
                at: deadline,
                timer: Timer::Drain,
            }),
            State::Closed { .. } => None,
        }
    }

    /// Stops the reading: `handle_input` consumes nothing, and Keep Alive is suspended.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Goes on reading after [`ServerConnection::pause`]; Keep Alive begins anew.
    pub fn resume(&mut self, now: Now) {
        if self.paused {
            self.paused = false;
            self.last_received = now.instant;
        }
    }

    /// Whether `handle_input` would consume nothing: the owner paused it or owes an answer to
    /// CONNECT, or too many acknowledgements have not left. To be asked after an answer and after
    /// [`ServerConnection::poll_transmit`].
    #[must_use]
    pub fn is_paused(&self) -> bool {
        match self.state {
            State::Connecting { auth_due, .. } => !auth_due,
            State::Connected { .. } => self.paused || self.is_backlogged(),
            State::Opened { .. } => self.paused,
            State::Draining { .. } | State::Closed { .. } => false,
        }
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether the connection was accepted and has not begun to end.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// The Session State given to `accept`.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        let exchange = self.exchange.as_ref().filter(|exchange| !exchange.taken)?;
        Some(&exchange.session)
    }

    /// The Session State given to `accept`, to queue messages and answer events.
    pub fn session_mut(&mut self) -> Option<&mut Session> {
        let exchange = self.exchange.as_mut().filter(|exchange| !exchange.taken)?;
        Some(&mut exchange.session)
    }

    /// Takes the Session State out, whatever the state of the connection: takeover is a move.
    /// Events not yet polled are gone with the connection.
    #[must_use]
    pub fn into_session(self) -> Option<Box<Session>> {
        let mut exchange = self.exchange.filter(|exchange| !exchange.taken)?;
        exchange.session.detach();
        Some(exchange.session)
    }

    /// Takes the Session State out of a connection that ends or has ended, so that its last packet
    /// can leave while another connection has the Session; `None` before that.
    pub fn take_session(&mut self) -> Option<Box<Session>> {
        match self.state {
            State::Draining { .. } | State::Closed { .. } => {}
            State::Opened { .. } | State::Connecting { .. } | State::Connected { .. } => {
                return None;
            }
        }
        let exchange = self.exchange.as_mut().filter(|exchange| !exchange.taken)?;
        exchange.taken = true;
        Some(core::mem::take(&mut exchange.session))
    }

    /// Packets that [`ServerConnection::poll_transmit`] has written, of all kinds.
    #[must_use]
    pub const fn packets_sent(&self) -> u64 {
        self.packets_sent
    }

    /// How many messages, and PUBRELs, [`ServerConnection::poll_transmit`] may write from here on;
    /// [`u16::MAX`] for all there are. The others wait, acknowledgements and answers do not.
    pub fn set_messages_left(&mut self, messages: u16) {
        self.messages_left = messages;
    }

    /// How many are left of these.
    #[must_use]
    pub const fn messages_left(&self) -> u16 {
        self.messages_left
    }

    /// The PUBLISH packets among them; none without a Session.
    #[must_use]
    pub fn publishes_sent(&self) -> u64 {
        self.exchange
            .as_ref()
            .map_or(0, |exchange| exchange.publishes_sent)
    }

    /// The version of CONNECT; 5.0 before it came.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.client.version
    }

    /// The Client Identifier, sent or assigned; empty before CONNECT came.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client.client_id
    }

    /// Whether CONNECT asked for a new Session.
    #[must_use]
    pub const fn clean_start(&self) -> bool {
        self.client.clean_start
    }

    /// The Keep Alive in force, in seconds; 0 for none.
    #[must_use]
    pub const fn keep_alive(&self) -> u16 {
        self.client.keep_alive
    }

    /// The Session Expiry Interval that CONNECT asked for, in seconds; in 3.x 0 with Clean Session
    /// and for ever without.
    #[must_use]
    pub const fn session_expiry_interval(&self) -> u32 {
        self.client.session_expiry_interval
    }

    /// The Authentication Method of CONNECT.
    #[must_use]
    pub fn authentication_method(&self) -> Option<&str> {
        self.client.authentication_method.as_deref()
    }

    /// Whether the client wants Reason Strings and User Properties on every packet; without it
    /// they go with PUBLISH, CONNACK and DISCONNECT only [MQTT5-3.1.2-29].
    #[must_use]
    pub const fn request_problem_information(&self) -> bool {
        self.client.request_problem_information
    }

    /// The peer's error ends the connection as version and state say. The Reason String, which
    /// these packets may have in any case [MQTT5-3.1.2-29], says what it was.
    fn fail(&mut self, error: ConnectionError, now: Now) {
        let (reason, code) = (CloseReason::PeerError(error), error.reason_code());
        let text = error.to_string();
        let details = Details {
            reason_string: Some(&text),
            server_reference: None,
        };
        match self.state {
            State::Connecting { .. } => self.end_with_connack(reason, code, details, now),
            State::Opened { .. }
            | State::Connected { .. }
            | State::Draining { .. }
            | State::Closed { .. } => self.end(reason, code, details, now),
        }
    }

    /// Ends with DISCONNECT where there is one [MQTT5-4.13.1-1] [MQTT311-4.8.0-1].
    fn end(&mut self, reason: CloseReason, code: ReasonCode, details: Details<'_>, now: Now) {
        match self.state {
            State::Connected { .. }
                if self.client.version == Version::V5 && !self.connack_pending =>
            {
                let code = told(code, PacketType::Disconnect);
                let last = details.shorter().find_map(|details| {
                    let disconnect = Disconnect {
                        reason_string: details.reason_string,
                        server_reference: details.server_reference,
                        ..Disconnect::new(code)
                    };
                    self.encode(&Packet::Disconnect(disconnect))
                });
                self.drain(reason, last, now);
            }
            State::Opened { .. } | State::Connecting { .. } | State::Connected { .. } => {
                self.close(reason);
            }
            State::Draining { .. } | State::Closed { .. } => {}
        }
    }

    /// Ends with a CONNACK that refuses [MQTT5-3.2.2-7] [MQTT311-3.2.2-5].
    fn end_with_connack(
        &mut self,
        reason: CloseReason,
        code: ReasonCode,
        details: Details<'_>,
        now: Now,
    ) {
        let last = details.shorter().find_map(|details| {
            let mut connack = Connack::new(told(code, PacketType::Connack));
            connack.properties.reason_string = details.reason_string;
            connack.properties.server_reference = details.server_reference;
            self.encode(&Packet::Connack(connack))
        });
        self.drain(reason, last, now);
    }

    /// The bytes of a packet; `None` if it is larger than the client allows [MQTT5-3.1.2-24].
    fn encode(&self, packet: &Packet<'_>) -> Option<Encoded> {
        let version = self.client.version;
        let len = packet.encoded_len(version);
        if u32::try_from(len).ok()? > self.client.maximum_packet_size {
            return None;
        }
        Encoded::new(packet, version, len).ok()
    }

    /// Lets the last packet leave, until a deadline.
    fn drain(&mut self, reason: CloseReason, last: Option<Encoded>, now: Now) {
        let Some(last) = last else {
            return self.close(reason);
        };
        let deadline = now.instant + self.config.drain_timeout;
        self.state = State::Draining {
            deadline,
            reason,
            last,
        };
        self.forget_connection();
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed {
            reason: Some(reason),
        };
        self.forget_connection();
    }

    fn close_drained(&mut self) {
        if let State::Draining { reason, .. } = self.state {
            self.close(reason);
        }
    }

    fn forget_connection(&mut self) {
        self.replies = VecDeque::new();
        self.pingresps = 0;
        if let Some(exchange) = &mut self.exchange {
            exchange.session.detach();
        }
    }

    fn exchange_connected(&mut self) -> Result<&mut Exchange, AckError> {
        match (&self.state, &mut self.exchange) {
            (State::Connected { .. }, Some(exchange)) => Ok(exchange),
            _ => Err(AckError::WrongState),
        }
    }
}

/// What the client is told: this code, if the packet can say it.
fn told(code: ReasonCode, packet_type: PacketType) -> ReasonCode {
    let refuses = packet_type == PacketType::Connack;
    if code.is_allowed_in(packet_type) && (code.is_error() || !refuses) {
        code
    } else {
        ReasonCode::UnspecifiedError
    }
}

impl Client {
    /// Before CONNECT came.
    fn unknown() -> Self {
        Self {
            version: Version::V5,
            client_id: Box::default(),
            clean_start: false,
            keep_alive: 0,
            session_expiry_interval: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
        }
    }
}
