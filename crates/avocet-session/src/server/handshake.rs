//! From CONNECT to CONNACK, and AUTH.

use alloc::boxed::Box;
use avocet_codec::{
    Auth, Connack, Connect, DecodeError, List, Packet, ReasonCode, UserProperty, Version,
};
use core::num::{NonZeroU16, NonZeroU32};

use super::encoded::Encoded;
use super::outgoing::Reply;
use super::{AuthTurn, Client, ServerConnection, State};
use crate::exchange::{Exchange, Own, Peer};
use crate::{AckError, CloseReason, CommitId, ConnectionError, Now, Session, Violation};

/// The answer of an owner that accepts a CONNECT.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accept<'a> {
    /// Whether the Session is an old one [MQTT5-3.2.2-2] [MQTT311-3.2.2-2].
    pub session_present: bool,
    /// The Client Identifier that the server chose for a client that sent none
    /// [MQTT5-3.2.2-16].
    pub assigned_client_id: Option<&'a str>,
    /// Seconds, if not what the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// Sent if the client asked for it.
    pub response_information: Option<&'a str>,
    /// Sent if it does not make the packet too large [MQTT5-3.2.2-19].
    pub reason_string: Option<&'a str>,
    /// Sent if they do not make the packet too large [MQTT5-3.2.2-20].
    pub user_properties: List<'a, UserProperty<'a>>,
    /// What else the client may connect to.
    pub server_reference: Option<&'a str>,
    /// The last data of an authentication exchange.
    pub authentication_data: Option<&'a [u8]>,
    /// CONNACK, and everything behind it, leaves once this is committed: that a Clean Start
    /// discarded a stored Session, or what a resumed one had received and not stored.
    pub gate: Option<CommitId>,
}

/// What a packet that ends the connection says beside its Reason Code; left out in 3.x, and where
/// it would make the packet too large for the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details<'a> {
    /// For people.
    pub reason_string: Option<&'a str>,
    /// The server to use, with 0x9C and 0x9D.
    pub server_reference: Option<&'a str>,
}

impl Details<'_> {
    /// These, and what is left of them for clients that take only small packets
    /// [MQTT5-3.14.2-3].
    pub(super) fn shorter(self) -> impl Iterator<Item = Self> {
        [
            self,
            Self {
                reason_string: None,
                ..self
            },
            Self::default(),
        ]
        .into_iter()
    }
}

/// A step of an authentication exchange from the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Authentication<'a> {
    /// What the method says.
    pub data: Option<&'a [u8]>,
    /// For people.
    pub reason_string: Option<&'a str>,
}

impl ServerConnection {
    /// CONNECT, after its checks the owner's to answer.
    pub(super) fn on_connect(&mut self, connect: &Connect<'_>, now: Now) -> bool {
        self.client = Client::from_connect(connect);
        let deadline = match self.state {
            State::Opened { deadline } => deadline,
            State::Connecting { .. }
            | State::Connected { .. }
            | State::Draining { .. }
            | State::Closed { .. } => now.instant,
        };
        self.state = State::Connecting {
            deadline,
            auth_due: false,
        };
        if let Err(violation) = self.check_connect(connect) {
            self.fail(violation.into(), now);
            return false;
        }
        true
    }

    fn check_connect(&self, connect: &Connect<'_>) -> Result<(), Violation> {
        let id = connect.client_id;
        let valid = match connect.version {
            // A Client Identifier of 3.1 has between 1 and 23 characters.
            Version::V3_1 => {
                !id.is_empty() && (self.config.long_client_ids || id.chars().count() <= 23)
            }
            Version::V3_1_1 => !id.is_empty() || connect.clean_start,
            Version::V5 => true,
        };
        if !valid {
            return Err(Violation::ClientIdNotValid);
        }
        let Some(will) = &connect.will else {
            return Ok(());
        };
        if will.qos > self.config.maximum_qos {
            return Err(Violation::QosNotSupported);
        }
        if will.retain && !self.config.retain_available {
            return Err(Violation::RetainNotSupported);
        }
        Ok(())
    }

    /// Bytes that should have been CONNECT: a 5.0 client, and one of an unknown version, is told.
    pub(super) fn fail_connect(&mut self, frame: &[u8], error: DecodeError, now: Now) {
        let reason = CloseReason::PeerError(ConnectionError::Decode(error));
        let version = match (error, protocol_level(frame)) {
            (DecodeError::UnsupportedProtocolVersion(level), _) if level & 0x7F < 5 => {
                Some(Version::V3_1_1)
            }
            (DecodeError::UnsupportedProtocolVersion(_), _) | (_, Some(5)) => Some(Version::V5),
            _ => None,
        };
        let Some(version) = version else {
            return self.close(reason);
        };
        self.client.version = version;
        self.end_with_connack(reason, error.reason_code(), Details::default(), now);
    }

    /// Accepts the client: CONNACK is queued, and the exchange of messages begins with this
    /// Session. The Session is lost if the client is not waiting for an answer, so whoever takes
    /// it out of another connection asks [`ServerConnection::awaits_answer`] before.
    ///
    /// If the Session waits for commits, tell the connection the committed position next.
    pub fn accept(&mut self, mut session: Box<Session>, accept: Accept<'_>, now: Now) {
        if !self.awaits_answer() {
            debug_assert!(false, "accepted without a CONNECT that waits for it");
            return;
        }
        if let Some(id) = accept.assigned_client_id {
            self.client.client_id = id.into();
        }
        session.set_expiry_interval(
            accept
                .session_expiry_interval
                .unwrap_or(self.client.session_expiry_interval),
        );
        self.exchange = Some(Exchange::new(
            session,
            self.client.version,
            self.own(),
            self.peer(),
        ));
        let Some(connack) = self.connack(&accept) else {
            // What the owner must say is more than the client takes; its Session is not lost.
            return self.close(CloseReason::Refused(ReasonCode::PacketTooLarge));
        };
        self.client.keep_alive = self.server_keep_alive().unwrap_or(self.client.keep_alive);
        self.replies.push_back(Reply::connack(connack, accept.gate));
        self.connack_pending = true;
        self.state = State::Connected {
            auth_turn: AuthTurn::Nobody,
        };
        self.last_received = now.instant;
    }

    /// Whether `accept`, `refuse` or `authenticate` is due.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        matches!(
            self.state,
            State::Connecting {
                auth_due: false,
                ..
            }
        )
    }

    /// Whether the CONNACK of [`accept`](Self::accept) fits into the client's Maximum Packet Size
    /// [MQTT5-3.1.2-24]. Neither `session_present` nor `gate` makes a difference.
    #[must_use]
    pub fn can_accept(&self, accept: &Accept<'_>) -> bool {
        // In 3.x it has two bytes, whatever there is to say.
        self.client.version != Version::V5 || self.connack(accept).is_some()
    }

    /// The Keep Alive that a client is told to use instead of its own.
    fn server_keep_alive(&self) -> Option<u16> {
        if self.client.version != Version::V5 {
            return None;
        }
        let keep_alive = self.client.keep_alive;
        let [min, max] = [self.config.keep_alive_min, self.config.keep_alive_max]
            .map(|seconds| seconds.map(NonZeroU16::get));
        let told = max
            .filter(|max| keep_alive == 0 || keep_alive > *max)
            .unwrap_or(keep_alive);
        let told = min.filter(|min| told > 0 && told < *min).unwrap_or(told);
        (told != keep_alive).then_some(told)
    }

    fn own(&self) -> Own {
        if self.client.version == Version::V5 {
            Own {
                receive_maximum: Some(self.config.receive_maximum.get()),
                topic_alias_maximum: self.config.topic_alias_maximum,
                answers_late: true,
            }
        } else {
            Own {
                receive_maximum: None,
                topic_alias_maximum: 0,
                answers_late: true,
            }
        }
    }

    fn peer(&self) -> Peer {
        let window = if self.client.version == Version::V5 {
            self.client.receive_maximum
        } else {
            self.config.limits.inflight
        };
        Peer {
            window: NonZeroU16::new(window).unwrap_or(NonZeroU16::MIN),
            maximum_packet_size: self.client.maximum_packet_size,
            topic_alias_maximum: self
                .client
                .topic_alias_maximum
                .min(self.config.limits.topic_aliases),
        }
    }

    fn connack(&self, accept: &Accept<'_>) -> Option<Encoded> {
        let config = &self.config;
        let mut connack = Connack::new(ReasonCode::Success);
        // 3.1 has no such flag.
        connack.session_present = accept.session_present && self.client.version != Version::V3_1;
        let properties = &mut connack.properties;
        let maximum = config.receive_maximum;
        properties.receive_maximum = Some(maximum).filter(|maximum| *maximum != NonZeroU16::MAX);
        let largest = NonZeroU32::new(avocet_codec::PACKET_SIZE_MAX);
        properties.maximum_packet_size =
            Some(config.maximum_packet_size).filter(|size| Some(*size) < largest);
        properties.session_expiry_interval = accept
            .session_expiry_interval
            .filter(|seconds| *seconds != self.client.session_expiry_interval);
        properties.maximum_qos = config.maximum_qos;
        properties.retain_available = config.retain_available;
        properties.topic_alias_maximum = config.topic_alias_maximum;
        properties.wildcard_subscription_available = config.wildcard_subscription_available;
        properties.subscription_ids_available = config.subscription_ids_available;
        properties.shared_subscription_available = config.shared_subscription_available;
        properties.assigned_client_id = accept.assigned_client_id;
        properties.server_keep_alive = self.server_keep_alive();
        properties.server_reference = accept.server_reference;
        properties.response_information = accept
            .response_information
            .filter(|_| self.client.request_response_information);
        properties.authentication_method = self.client.authentication_method.as_deref();
        properties.authentication_data = accept.authentication_data;
        let mut verbose = connack;
        verbose.properties.reason_string = accept.reason_string;
        verbose.properties.user_properties = accept.user_properties;
        self.encode(&Packet::Connack(verbose))
            .or_else(|| self.encode(&Packet::Connack(connack)))
    }

    /// Refuses the client: CONNACK with an error, and the end. In 3.x the Reason Code becomes the
    /// nearest return code. A code that CONNACK cannot carry becomes 0x80.
    pub fn refuse(&mut self, reason_code: ReasonCode, details: Details<'_>, now: Now) {
        if let State::Connecting { .. } = self.state {
            self.end_with_connack(CloseReason::Refused(reason_code), reason_code, details, now);
        }
    }

    /// Goes on with an authentication exchange: AUTH with 0x18, to which the client's next AUTH is
    /// the answer [MQTT5-4.12.0-2] [MQTT5-4.12.0-3].
    pub fn authenticate(&mut self, authentication: Authentication<'_>) -> Result<(), AckError> {
        match &mut self.state {
            State::Connecting {
                auth_due: auth_due @ false,
                ..
            } if self.client.authentication_method.is_some() => {
                *auth_due = true;
            }
            State::Connected {
                auth_turn: turn @ AuthTurn::Server,
            } => *turn = AuthTurn::Client,
            State::Opened { .. }
            | State::Connecting { .. }
            | State::Connected { .. }
            | State::Draining { .. }
            | State::Closed { .. } => return Err(AckError::WrongState),
        }
        self.push_auth(ReasonCode::ContinueAuthentication, authentication);
        Ok(())
    }

    /// Ends a re-authentication: AUTH with 0x00 [MQTT5-4.12.1-1].
    pub fn reauthenticated(&mut self, authentication: Authentication<'_>) -> Result<(), AckError> {
        match &mut self.state {
            State::Connected {
                auth_turn: turn @ AuthTurn::Server,
            } => *turn = AuthTurn::Nobody,
            State::Opened { .. }
            | State::Connecting { .. }
            | State::Connected { .. }
            | State::Draining { .. }
            | State::Closed { .. } => return Err(AckError::WrongState),
        }
        self.push_auth(ReasonCode::Success, authentication);
        Ok(())
    }

    fn push_auth(&mut self, reason_code: ReasonCode, authentication: Authentication<'_>) {
        let method = self
            .client
            .authentication_method
            .as_deref()
            .unwrap_or_default();
        // [MQTT5-3.1.2-29] [MQTT5-3.15.2-2]
        let verbose = authentication
            .reason_string
            .filter(|_| self.client.request_problem_information);
        let bytes = [verbose, None].into_iter().find_map(|reason_string| {
            self.encode(&Packet::Auth(Auth {
                authentication_data: authentication.data,
                reason_string,
                ..Auth::new(reason_code, method)
            }))
        });
        match bytes {
            Some(bytes) => self.replies.push_back(Reply::auth(bytes)),
            None => self.close(CloseReason::Disconnected(ReasonCode::PacketTooLarge)),
        }
    }

    /// AUTH: only with the method of CONNECT, and only in turn
    /// [MQTT5-4.12.0-5] [MQTT5-4.12.0-6] [MQTT5-4.12.0-7] [MQTT5-4.12.1-1].
    pub(super) fn on_auth(&mut self, auth: &Auth<'_>) -> Result<(), Violation> {
        let method = self.client.authentication_method.as_deref();
        if method.is_none() || auth.authentication_method != method {
            return Err(Violation::UnexpectedAuth);
        }
        match (&mut self.state, auth.reason_code) {
            (
                State::Connecting {
                    auth_due: auth_due @ true,
                    ..
                },
                ReasonCode::ContinueAuthentication,
            ) => *auth_due = false,
            (
                State::Connected {
                    auth_turn: turn @ AuthTurn::Client,
                },
                ReasonCode::ContinueAuthentication,
            )
            | (
                State::Connected {
                    auth_turn: turn @ AuthTurn::Nobody,
                },
                ReasonCode::ReAuthenticate,
            ) => *turn = AuthTurn::Server,
            _ => return Err(Violation::UnexpectedAuth),
        }
        Ok(())
    }
}

impl Client {
    fn from_connect(connect: &Connect<'_>) -> Self {
        let properties = &connect.properties;
        let v5 = connect.version == Version::V5;
        let for_ever = if connect.clean_start { 0 } else { u32::MAX };
        Self {
            version: connect.version,
            client_id: Box::from(connect.client_id),
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            session_expiry_interval: if v5 {
                properties.session_expiry_interval
            } else {
                for_ever
            },
            receive_maximum: properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            maximum_packet_size: properties
                .maximum_packet_size
                .map_or(u32::MAX, NonZeroU32::get),
            topic_alias_maximum: if v5 {
                properties.topic_alias_maximum
            } else {
                0
            },
            request_response_information: properties.request_response_information,
            request_problem_information: properties.request_problem_information,
            authentication_method: properties.authentication_method.map(Box::from),
        }
    }
}

/// The Protocol Version in a CONNECT that is not valid otherwise, if its name is MQTT.
fn protocol_level(frame: &[u8]) -> Option<u8> {
    let remaining_length = frame
        .get(1..)?
        .iter()
        .take(4)
        .position(|byte| byte & 0x80 == 0)?
        + 1;
    let body = frame.get(1 + remaining_length..)?;
    let level = body.strip_prefix(b"\x00\x04MQTT")?.first()?;
    Some(*level)
}
