//! One Network Connection in the client role.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use avocet_codec::{
    Ack, AckType, Auth, Connack, Disconnect, EncodeError, List, Packet, PacketId, Publish, QoS,
    ReasonCode, Suback, Unsuback, Version,
};
use core::num::NonZeroU16;
use core::time::Duration;

use crate::client::offline::{check_version, publish_id};
use crate::client::{
    ClientConfig, ClientEvent, ClientInput, ClientNotice, ControlError, NotPublished, PublishError,
    PublishId, RequestId, Server,
};
use crate::exchange::{Exchange, Own, Peer};
use crate::{
    AckError, AckToken, CloseReason, CommitId, ConnectionError, ConnectionEvent, Demand,
    IncomingPublish, Instant, Message, Now, Outgoing, Session, Timeout, Timer, TransmitBuf,
    Violation,
};

/// One Network Connection of a client.
///
/// ```text
///   new ──> Connecting ── CONNACK 0x00 ──> Connected ── disconnect, violation ──> Closing ──> Closed
///               └── refused, timeout, end of the stream ── PINGRESP missing, DISCONNECT ──────┘
/// ```
///
/// The driver writes what [`poll_transmit`](Self::poll_transmit) gives, reads and hands over what
/// comes, calls [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) says so, and closes the stream after
/// [`ClientNotice::Closed`] once everything is written. Then
/// [`into_session`](Self::into_session) gives the Session back for the next connection.
#[derive(Debug)]
pub struct ClientConnection {
    config: ClientConfig,
    phase: Phase,
    holder: Holder,
    /// Control Packets to send before messages and acknowledgements, encoded.
    control: Vec<u8>,
    /// DISCONNECT, to send behind everything that may still leave.
    disconnect: Vec<u8>,
    notices: VecDeque<ClientNotice>,
    /// Whether CONNECT has left: nothing goes before it.
    connect_sent: bool,
    server: Server,
    last_sent: Instant,
    last_received: Instant,
    /// When the PINGRESP is due.
    pingresp_due: Option<Instant>,
    /// Since when the driver hands nothing over, on purpose.
    paused: bool,
    reauthenticating: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting {
        deadline: Instant,
    },
    Connected,
    Closing {
        reason: CloseReason,
        deadline: Instant,
    },
    Closed,
}

/// The Session, and with a connection what belongs to both.
#[derive(Debug)]
enum Holder {
    Idle(Box<Session>),
    Attached(Exchange),
}

impl ClientConnection {
    /// A connection whose stream stands: the first thing to transmit is CONNECT.
    ///
    /// Settings that [`ClientConfig::check`] refuses close it at once.
    #[must_use]
    pub fn new(config: ClientConfig, session: Session, now: Now) -> Self {
        let mut control = Vec::new();
        let version = config.version;
        let written =
            config.with_connect(|connect| Packet::Connect(*connect).encode(version, &mut control));
        let deadline = now.instant + config.connect_timeout;
        let mut connection = Self {
            phase: Phase::Connecting { deadline },
            holder: Holder::Idle(Box::new(session)),
            control,
            disconnect: Vec::new(),
            notices: VecDeque::new(),
            connect_sent: false,
            server: Server::new(&config),
            last_sent: now.instant,
            last_received: now.instant,
            pingresp_due: None,
            paused: false,
            reauthenticating: false,
            config,
        };
        if connection.config.check().is_err() || written.is_err() {
            connection.control.clear();
            connection.close(CloseReason::Disconnected(ReasonCode::UnspecifiedError));
        }
        connection
    }

    // Outside events.

    /// Takes the bytes that came, at most one packet at a time. The driver calls it again with
    /// what was not consumed until nothing is consumed and [`Demand::More`] comes back.
    pub fn handle_input<'a>(&mut self, input: &'a [u8], now: Now) -> ClientInput<'a> {
        if self.is_over() {
            // What still comes in is of no interest.
            return ClientInput {
                consumed: input.len(),
                demand: Demand::More,
                event: None,
            };
        }
        if self.paused || self.is_congested() {
            return ClientInput {
                consumed: 0,
                demand: Demand::Paused,
                event: None,
            };
        }
        // Filled where it is returned: an event is large, and messages are many.
        let mut read = ClientInput {
            consumed: 0,
            demand: Demand::More,
            event: None,
        };
        let limit = self.config.maximum_packet_size;
        let mut rest = input;
        // By reference, as it is large.
        match &Packet::decode_next(&mut rest, self.config.version, limit) {
            Ok(None) => {}
            Ok(Some(packet)) => {
                self.last_received = now.instant;
                read.consumed = input.len() - rest.len();
                read.demand = Demand::Again;
                if let Err(error) = self.handle_packet(packet, now, &mut read.event) {
                    self.fail(error, now);
                }
            }
            Err(error) => {
                self.fail((*error).into(), now);
                read.consumed = input.len();
            }
        }
        read
    }

    fn handle_packet<'a>(
        &mut self,
        packet: &Packet<'a>,
        now: Now,
        event: &mut Option<ClientEvent<'a>>,
    ) -> Result<(), ConnectionError> {
        if let Phase::Connecting { .. } = self.phase {
            *event = self.on_first_packet(packet, now)?;
            return Ok(());
        }
        *event = match *packet {
            Packet::Publish(ref publish) => return self.on_publish(publish, event),
            Packet::Puback(ack) => self.on_ack(AckType::Puback, ack)?,
            Packet::Pubrec(ack) => self.on_ack(AckType::Pubrec, ack)?,
            Packet::Pubrel(ack) => self.on_ack(AckType::Pubrel, ack)?,
            Packet::Pubcomp(ack) => self.on_ack(AckType::Pubcomp, ack)?,
            Packet::Suback(suback) => self.on_suback(suback),
            Packet::Unsuback(unsuback) => self.on_unsuback(unsuback),
            Packet::Pingresp => {
                self.pingresp_due = None;
                None
            }
            Packet::Disconnect(disconnect) => Some(self.on_disconnect(disconnect)?),
            Packet::Auth(auth) => Some(self.on_auth(auth, now)?),
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => return Err(Violation::WrongDirection.into()),
        };
        Ok(())
    }

    /// Before CONNACK.
    fn on_first_packet<'a>(
        &mut self,
        packet: &Packet<'a>,
        now: Now,
    ) -> Result<Option<ClientEvent<'a>>, ConnectionError> {
        match *packet {
            Packet::Connack(connack) => self.on_connack(connack, now).map(Some),
            Packet::Auth(auth) => self.on_auth(auth, now).map(Some),
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => Err(Violation::WrongDirection.into()),
            Packet::Publish(_)
            | Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp
            | Packet::Disconnect(_) => Err(Violation::BeforeConnack.into()),
        }
    }

    /// Time has passed, at least until [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Now) {
        match self.poll_timeout() {
            Some(Timeout { at, timer }) if at <= now.instant => self.on_timer(timer, now),
            Some(_) | None => {}
        }
    }

    /// The stream has ended, or failed: nothing more comes or leaves.
    pub fn handle_closed(&mut self) {
        match self.phase {
            Phase::Closing { reason, .. } => self.close(reason),
            Phase::Connecting { .. } | Phase::Connected => self.close(CloseReason::ConnectionLost),
            Phase::Closed => {}
        }
    }

    /// The driver stops reading because the application cannot take more. The PINGRESP is not
    /// missed meanwhile.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// The driver reads again.
    pub fn resume(&mut self, now: Now) {
        if self.paused {
            self.paused = false;
            self.last_received = now.instant;
            if let Some(due) = &mut self.pingresp_due {
                *due = now.instant + self.config.pingresp_timeout;
            }
        }
    }

    // Commands.

    /// Puts a message behind the others; a QoS 1 or 2 message has an id by which its end is
    /// reported, on this connection or a later one with the same Session.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing changed.
    pub fn publish(
        &mut self,
        message: Message,
        now: Now,
    ) -> Result<Option<PublishId>, PublishError> {
        self.publish_stored(message, None, now)
    }

    /// The same for a client whose Session a store keeps, as [`Session::publish`] says.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing changed.
    pub fn publish_stored(
        &mut self,
        message: Message,
        stored: Option<CommitId>,
        now: Now,
    ) -> Result<Option<PublishId>, PublishError> {
        if self.is_over() {
            return Err(PublishError::Closed);
        }
        self.check_message(&message, now)?;
        let mut notices = Vec::new();
        let session = match &mut self.holder {
            Holder::Idle(session) => session.as_mut(),
            Holder::Attached(exchange) => exchange.session.as_mut(),
        };
        let id = session.publish(message, &self.config, stored, now, &mut notices)?;
        self.notices.extend(notices);
        Ok(id)
    }

    /// Answers a QoS 1 or 2 message: with an error in 5.0, the server learns that it was refused.
    ///
    /// # Errors
    ///
    /// [`AckError`]: the message came on another connection, or is acknowledged already.
    pub fn acknowledge(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
    ) -> Result<(), AckError> {
        self.acknowledge_stored(token, reason_code, None)
    }

    /// The same for a client whose Session a store keeps: the answer leaves after this commit, and
    /// [`ClientNotice::Pubrel`] follows on QoS 2.
    ///
    /// # Errors
    ///
    /// As [`acknowledge`](Self::acknowledge).
    pub fn acknowledge_stored(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        stored: Option<CommitId>,
    ) -> Result<(), AckError> {
        // What it says about a QoS 2 message is remembered even if nothing can leave any more.
        match &mut self.holder {
            Holder::Attached(exchange) if self.phase != Phase::Closed => exchange
                .session
                .receiver
                .acknowledge(token, reason_code, stored),
            Holder::Attached(Exchange { session, .. }) | Holder::Idle(session) => {
                let _ = session.receiver.acknowledge(token, reason_code, stored);
                Err(AckError::Stale)
            }
        }
    }

    /// Sends DISCONNECT behind what may leave at once, and closes. Messages not yet sent stay in
    /// the Session. Before CONNACK it closes without a packet. User Properties and Reason String
    /// that the server's Maximum Packet Size has no room for are left out
    /// [MQTT5-3.14.2-3] [MQTT5-3.14.2-4].
    ///
    /// # Errors
    ///
    /// [`ControlError`]; nothing changed.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect<'_>,
        now: Now,
    ) -> Result<(), ControlError> {
        let reason = CloseReason::Disconnected(disconnect.reason_code);
        match self.phase {
            Phase::Closing { .. } | Phase::Closed => Err(ControlError::WrongState),
            Phase::Connecting { .. } => {
                self.close(reason);
                Ok(())
            }
            Phase::Connected => {
                let expiry = disconnect.session_expiry_interval;
                if expiry.is_some_and(|seconds| seconds != 0)
                    && self.config.session_expiry_interval == 0
                {
                    return Err(ControlError::SessionExpiryInterval);
                }
                let Some(packet) = self.encode_disconnect(*disconnect)? else {
                    self.close(reason);
                    return Ok(());
                };
                if let Some(seconds) = expiry {
                    self.server.session_expiry_interval = seconds;
                }
                self.disconnect = packet;
                let deadline = now.instant + self.config.drain_timeout;
                self.phase = Phase::Closing { reason, deadline };
                Ok(())
            }
        }
    }

    /// Goes on with enhanced authentication: the answer to an AUTH that says so
    /// [MQTT5-4.12.0-3].
    ///
    /// # Errors
    ///
    /// [`ControlError`]; nothing changed.
    pub fn authenticate(&mut self, data: Option<&[u8]>) -> Result<(), ControlError> {
        match self.phase {
            Phase::Connecting { .. } => {}
            Phase::Connected if self.reauthenticating => {}
            Phase::Connected | Phase::Closing { .. } | Phase::Closed => {
                return Err(ControlError::WrongState);
            }
        }
        self.send_auth(ReasonCode::ContinueAuthentication, data)
    }

    /// Begins a new authentication on a connection that stands; messages go on meanwhile
    /// [MQTT5-4.12.1-1].
    ///
    /// # Errors
    ///
    /// [`ControlError`]; nothing changed.
    pub fn reauthenticate(&mut self, data: Option<&[u8]>) -> Result<(), ControlError> {
        if self.phase != Phase::Connected || self.reauthenticating {
            return Err(ControlError::WrongState);
        }
        self.send_auth(ReasonCode::ReAuthenticate, data)?;
        self.reauthenticating = true;
        Ok(())
    }

    // Outputs.

    /// Writes what may leave into `out` until that is full. True if there is more.
    ///
    /// What is taken counts as sent.
    pub fn poll_transmit(&mut self, now: Now, out: &mut TransmitBuf) -> bool {
        let before = out.len();
        let more = self.transmit(now, out);
        if out.len() > before {
            self.last_sent = now.instant;
        }
        more
    }

    /// What else happened; [`ClientNotice::Closed`] is the last.
    pub fn poll_event(&mut self) -> Option<ClientNotice> {
        if let Holder::Attached(exchange) = &mut self.holder {
            while let Some(event) = exchange.events.pop_front() {
                match event {
                    ConnectionEvent::Dropped(dropped) => {
                        let reason = NotPublished::Dropped(dropped.reason);
                        return Some(not_published(dropped.qos, dropped.sequence, reason));
                    }
                    ConnectionEvent::Pubrec { sequence, .. } => {
                        let id = PublishId(sequence);
                        return Some(ClientNotice::Pubrec { id });
                    }
                    ConnectionEvent::Pubrel { packet_id } => {
                        return Some(ClientNotice::Pubrel { packet_id });
                    }
                    ConnectionEvent::Finished { .. } | ConnectionEvent::Closed(_) => {}
                }
            }
        }
        self.notices.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        match self.phase {
            Phase::Connecting { deadline } => Some(Timeout {
                at: deadline,
                timer: Timer::Connect,
            }),
            Phase::Connected => {
                let ping = self.ping_due().map(|at| Timeout {
                    at,
                    timer: Timer::KeepAlive,
                });
                let pingresp = self.pingresp_due.filter(|_| !self.paused);
                let pingresp = pingresp.map(|at| Timeout {
                    at,
                    timer: Timer::Pingresp,
                });
                pingresp
                    .into_iter()
                    .chain(ping)
                    .min_by_key(|timeout| timeout.at)
            }
            Phase::Closing { deadline, .. } => Some(Timeout {
                at: deadline,
                timer: Timer::Drain,
            }),
            Phase::Closed => None,
        }
    }

    // Getters.

    /// The settings it was made with.
    #[must_use]
    pub const fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// What the server allows; before its CONNACK, what the client assumes.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// Whether the server has accepted the connection, and it is not about to end.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// The Session.
    #[must_use]
    pub const fn session(&self) -> &Session {
        match &self.holder {
            Holder::Idle(session) => session,
            Holder::Attached(exchange) => &exchange.session,
        }
    }

    /// The Session, for whoever stores it.
    pub fn session_mut(&mut self) -> &mut Session {
        match &mut self.holder {
            Holder::Idle(session) => session,
            Holder::Attached(exchange) => &mut exchange.session,
        }
    }

    /// The Session, for the next connection.
    #[must_use]
    pub fn into_session(self) -> Session {
        let clean = self.config.version != Version::V5 && self.config.clean_start;
        let mut session = match self.holder {
            Holder::Idle(session) => session,
            Holder::Attached(mut exchange) => {
                exchange.session.ended = clean;
                exchange.session
            }
        };
        session.detach();
        session.set_expiry_interval(self.server.session_expiry_interval);
        *session
    }

    // Private reactions.

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Closed)
    }

    /// Whether so many acknowledgements wait that no further packet is taken. In 5.0 Receive
    /// Maximum stops the server before.
    fn is_congested(&self) -> bool {
        match &self.holder {
            Holder::Idle(_) => false,
            Holder::Attached(exchange) => {
                exchange.pending() >= 2 * usize::from(self.config.receive_maximum)
            }
        }
    }

    fn on_connack<'a>(
        &mut self,
        connack: Connack<'a>,
        _now: Now,
    ) -> Result<ClientEvent<'a>, ConnectionError> {
        if connack.reason_code != ReasonCode::Success {
            self.close(CloseReason::Refused(connack.reason_code));
            return Ok(ClientEvent::Refused(connack));
        }
        let config = &self.config;
        let is_5_0 = config.version == Version::V5;
        let method = config.authentication.as_ref().map(|it| it.method.as_str());
        let answered = connack.properties.authentication_method;
        if answered.is_some_and(|answered| Some(answered) != method) {
            return Err(Violation::UnexpectedAuth.into());
        }
        let known = !config.clean_start && (config.session_known || !self.session().is_empty());
        if is_5_0 && connack.session_present && !known {
            return Err(Violation::SessionPresent.into());
        }
        if is_5_0 {
            self.server.negotiate(&connack);
        }
        let Holder::Idle(session) = &mut self.holder else {
            return Err(Violation::WrongDirection.into());
        };
        let mut session = core::mem::take(session);
        // 3.1 has no Session Present: without Clean Session the client has to trust the server.
        let present = connack.session_present || config.version == Version::V3_1;
        if !present || config.clean_start || session.ended {
            discard(&mut session, config.publish_again, &mut self.notices);
        }
        session.ended = false;
        drop_unsupported(&mut session, &self.server, &mut self.notices);
        let own = Own {
            receive_maximum: is_5_0.then_some(config.receive_maximum),
            topic_alias_maximum: if is_5_0 {
                config.topic_alias_maximum
            } else {
                0
            },
            answers_late: config.answers_late,
        };
        let peer = Peer {
            window: NonZeroU16::new(self.server.receive_maximum).unwrap_or(NonZeroU16::MIN),
            maximum_packet_size: self.server.maximum_packet_size,
            topic_alias_maximum: self
                .server
                .topic_alias_maximum
                .min(config.limits.topic_aliases),
        };
        self.holder = Holder::Attached(Exchange::new(session, config.version, own, peer));
        self.phase = Phase::Connected;
        Ok(ClientEvent::Connected(connack))
    }

    fn on_publish<'a>(
        &mut self,
        publish: &Publish<'a>,
        event: &mut Option<ClientEvent<'a>>,
    ) -> Result<(), ConnectionError> {
        let Holder::Attached(exchange) = &mut self.holder else {
            return Ok(());
        };
        if let Some((topic, token)) = exchange.receive(publish)? {
            let publish = IncomingPublish {
                publish: *publish,
                topic,
                frame: None,
            };
            *event = Some(ClientEvent::Publish { publish, token });
        }
        Ok(())
    }

    fn on_ack<'a>(
        &mut self,
        ack_type: AckType,
        ack: Ack<'a>,
    ) -> Result<Option<ClientEvent<'a>>, ConnectionError> {
        let Holder::Attached(exchange) = &mut self.holder else {
            return Ok(None);
        };
        exchange.handle_ack(ack_type, ack)?;
        // The end of a message, which is the last thing that was noted, is told with its packet.
        let Some(ConnectionEvent::Finished { sequence, .. }) = exchange.events.back() else {
            return Ok(None);
        };
        let id = PublishId(*sequence);
        exchange.events.pop_back();
        let mut ack = ack;
        if ack_type == AckType::Pubcomp {
            // PUBREC said that the message is the server's; one that does not know it any more has
            // had an earlier PUBREL.
            ack.reason_code = ReasonCode::Success;
        }
        Ok(Some(ClientEvent::Published { id, ack }))
    }

    /// An answer that nobody asked for is ignored: it does no harm.
    fn on_suback<'a>(&mut self, suback: Suback<'a>) -> Option<ClientEvent<'a>> {
        self.answered(suback.packet_id)
            .map(|id| ClientEvent::Subscribed { id, suback })
    }

    fn on_unsuback<'a>(&mut self, unsuback: Unsuback<'a>) -> Option<ClientEvent<'a>> {
        self.answered(unsuback.packet_id)
            .map(|id| ClientEvent::Unsubscribed { id, unsuback })
    }

    fn answered(&mut self, packet_id: PacketId) -> Option<RequestId> {
        let Holder::Attached(exchange) = &mut self.holder else {
            return None;
        };
        let due = exchange.session.sender.return_request_id(packet_id);
        due.then_some(RequestId(packet_id))
    }

    fn on_disconnect<'a>(
        &mut self,
        disconnect: Disconnect<'a>,
    ) -> Result<ClientEvent<'a>, ConnectionError> {
        if self.config.version != Version::V5 {
            return Err(Violation::WrongDirection.into());
        }
        // [MQTT5-3.14.2-2]
        if disconnect.session_expiry_interval.is_some() {
            return Err(Violation::SessionExpiryInterval.into());
        }
        self.close(CloseReason::PeerDisconnected(disconnect.reason_code));
        Ok(ClientEvent::Disconnected(disconnect))
    }

    /// [MQTT5-4.12.0-5] [MQTT5-4.12.0-6]
    fn on_auth<'a>(
        &mut self,
        auth: Auth<'a>,
        now: Now,
    ) -> Result<ClientEvent<'a>, ConnectionError> {
        let method = self
            .config
            .authentication
            .as_ref()
            .map(|it| it.method.as_str());
        if method.is_none() || auth.authentication_method != method {
            return Err(Violation::UnexpectedAuth.into());
        }
        match (&mut self.phase, auth.reason_code) {
            (Phase::Connecting { deadline }, ReasonCode::ContinueAuthentication) => {
                *deadline = now.instant + self.config.connect_timeout;
            }
            (Phase::Connected, ReasonCode::ContinueAuthentication) if self.reauthenticating => {}
            (Phase::Connected, ReasonCode::Success) if self.reauthenticating => {
                self.reauthenticating = false;
            }
            _ => return Err(Violation::UnexpectedAuth.into()),
        }
        Ok(ClientEvent::Auth(auth))
    }

    fn on_timer(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Connect => self.close(CloseReason::ConnectTimeout),
            Timer::KeepAlive => {
                let written = Packet::Pingreq.encode(self.config.version, &mut self.control);
                debug_assert!(written.is_ok(), "{written:?}");
                // Both begin anew, so that the next is due an interval later.
                self.last_sent = now.instant;
                let due = now.instant + self.config.pingresp_timeout;
                self.pingresp_due.get_or_insert(due);
            }
            Timer::Pingresp => {
                self.disconnect_because(
                    CloseReason::KeepAliveTimeout,
                    ReasonCode::UnspecifiedError,
                    now,
                );
            }
            Timer::Drain => self.handle_closed(),
        }
    }

    /// When nothing was sent for Keep Alive [MQTT5-3.1.2-20] [MQTT311-3.1.2-23], or nothing came
    /// for as long: a client that only sends would not learn that the server is gone.
    fn ping_due(&self) -> Option<Instant> {
        if self.server.keep_alive == 0 {
            return None;
        }
        let interval = Duration::from_secs(self.server.keep_alive.into());
        let silent = if self.paused || self.pingresp_due.is_some() {
            self.last_sent
        } else {
            self.last_sent.min(self.last_received)
        };
        Some(silent + interval)
    }

    fn check_message(&self, message: &Message, now: Now) -> Result<(), PublishError> {
        let version = self.config.version;
        check_version(message, version)?;
        if message.qos() > self.server.maximum_qos {
            return Err(PublishError::QosNotSupported);
        }
        if message.retain() && !self.server.retain_available {
            return Err(PublishError::RetainNotSupported);
        }
        let size = packet_size(message, version, now);
        let maximum = self.packet_size_max();
        if size > maximum {
            return Err(PublishError::PacketTooLarge { size, maximum });
        }
        Ok(())
    }

    fn send_auth(
        &mut self,
        reason_code: ReasonCode,
        data: Option<&[u8]>,
    ) -> Result<(), ControlError> {
        let authentication = self.config.authentication.as_ref();
        let method = &authentication
            .ok_or(ControlError::NoAuthenticationMethod)?
            .method;
        let auth = Auth {
            authentication_data: data,
            ..Auth::new(reason_code, method)
        };
        let packet = Packet::Auth(auth);
        let (size, maximum) = (
            packet.encoded_len(self.config.version),
            self.packet_size_max(),
        );
        if size > maximum {
            return Err(ControlError::PacketTooLarge { size, maximum });
        }
        packet.encode(self.config.version, &mut self.control)?;
        Ok(())
    }

    fn transmit(&mut self, now: Now, out: &mut TransmitBuf) -> bool {
        if self.phase == Phase::Closed {
            return false;
        }
        if !self.control.is_empty() {
            if out.is_full() {
                return true;
            }
            out.put_slice(&self.control);
            self.control = Vec::new();
            self.connect_sent = true;
        }
        // A packet that says that the server broke the rules is the last one at once.
        let in_error = matches!(
            self.phase,
            Phase::Closing {
                reason: CloseReason::PeerError(_) | CloseReason::KeepAliveTimeout,
                ..
            }
        );
        if let Holder::Attached(exchange) = &mut self.holder
            && !in_error
        {
            let mut messages_left = u16::MAX;
            loop {
                if out.is_full() {
                    return true;
                }
                if exchange.transmit(now, out, &mut messages_left) == 0 {
                    break;
                }
            }
        }
        if let Phase::Closing { reason, .. } = self.phase {
            out.put_slice(&self.disconnect);
            self.close(reason);
        }
        false
    }

    /// The server broke the protocol: 5.0 says so, 3.x cannot.
    fn fail(&mut self, error: ConnectionError, now: Now) {
        self.disconnect_because(CloseReason::PeerError(error), error.reason_code(), now);
    }

    fn disconnect_because(&mut self, reason: CloseReason, reason_code: ReasonCode, now: Now) {
        let is_5_0 = self.config.version == Version::V5;
        self.control.clear();
        // A server may have answered a CONNECT that had not left [MQTT5-3.1.0-1].
        let packet = if self.phase == Phase::Connected && is_5_0 && self.connect_sent {
            let written = self.encode_disconnect(Disconnect::new(reason_code));
            debug_assert!(written.is_ok(), "{written:?}");
            written.ok().flatten()
        } else {
            None
        };
        if let Some(packet) = packet {
            self.disconnect = packet;
            let deadline = now.instant + self.config.drain_timeout;
            self.phase = Phase::Closing { reason, deadline };
        } else {
            self.close(reason);
        }
    }

    /// With as much of what is for people as the server has room for; `None` if it has no room.
    fn encode_disconnect(
        &self,
        disconnect: Disconnect<'_>,
    ) -> Result<Option<Vec<u8>>, EncodeError> {
        let version = self.config.version;
        let without_properties = Disconnect {
            user_properties: List::EMPTY,
            ..disconnect
        };
        let bare = Disconnect {
            reason_string: None,
            ..without_properties
        };
        for disconnect in [disconnect, without_properties, bare] {
            let mut packet = Vec::new();
            Packet::Disconnect(disconnect).encode(version, &mut packet)?;
            if packet.len() <= self.packet_size_max() {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }

    fn packet_size_max(&self) -> usize {
        usize::try_from(self.server.maximum_packet_size).unwrap_or(usize::MAX)
    }

    fn close(&mut self, reason: CloseReason) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            if let Holder::Attached(exchange) = &mut self.holder {
                exchange.session.detach();
            }
            self.notices.push_back(ClientNotice::Closed(reason));
        }
    }

    pub(super) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        match &mut self.holder {
            Holder::Attached(exchange) => Some(exchange),
            Holder::Idle(_) => None,
        }
    }

    pub(super) fn put_control(&mut self, packet: &[u8]) {
        self.control.extend_from_slice(packet);
    }
}

fn not_published(qos: QoS, sequence: u64, reason: NotPublished) -> ClientNotice {
    let id = publish_id(qos, sequence);
    ClientNotice::NotPublished { id, reason }
}

/// The server has no Session: what was sent and received before is forgotten; what was not yet
/// sent stays [MQTT5-3.2.2-5]. A message of QoS 1 may be published again, as one that is new to
/// the server.
fn discard(session: &mut Session, publish_again: bool, notices: &mut VecDeque<ClientNotice>) {
    if publish_again {
        session.sender.unsend();
    }
    for sequence in session.sender.take_in_flight() {
        let id = Some(PublishId(sequence));
        notices.push_back(ClientNotice::NotPublished {
            id,
            reason: NotPublished::SessionLost,
        });
    }
    let received: Vec<_> = session.received().collect();
    for packet_id in received {
        session.forget(packet_id);
    }
}

/// Messages that waited for a connection, and that this server does not take, fail alone.
fn drop_unsupported(session: &mut Session, server: &Server, notices: &mut VecDeque<ClientNotice>) {
    if server.maximum_qos == QoS::ExactlyOnce && server.retain_available {
        return;
    }
    let unsupported = |outgoing: &Outgoing| {
        outgoing.qos > server.maximum_qos || (outgoing.retain && !server.retain_available)
    };
    for (sequence, outgoing) in session.take_where(unsupported) {
        notices.push_back(not_published(
            outgoing.qos,
            sequence,
            NotPublished::NotSupported,
        ));
    }
}

/// What the PUBLISH takes at most: with its Topic Name, and without an alias.
fn packet_size(message: &Message, version: Version, now: Now) -> usize {
    use avocet_codec::Delivery;
    let id = PacketId::new(1);
    let delivery = match (message.qos(), id) {
        (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
        (QoS::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
        (QoS::AtMostOnce, _) | (_, None) => Delivery::AtMostOnce,
    };
    let mut publish = Publish::new(message.topic_name(), delivery, message.payload());
    publish.properties = message.properties();
    publish.message_expiry_interval = match message.remaining_expiry(now.unix) {
        crate::Expiry::Never => None,
        crate::Expiry::Seconds(seconds) => Some(seconds),
        crate::Expiry::Expired => Some(0),
    };
    publish.encoded_len(version)
}
