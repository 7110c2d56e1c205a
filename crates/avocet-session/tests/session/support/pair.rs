use avocet_codec::{ReasonCode, Version};
use avocet_session::{
    Accept, AckToken, CommitId, ConnectionEvent, Demand, Enqueued, Instant, Now, Outgoing,
    ServerConfig, ServerConnection, ServerEvent, Session, TransmitBuf, UnixTime,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Peer;

/// A server with its owner, a client, and the link between them, in virtual time.
pub(crate) struct Pair {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) server: ServerConnection,
    pub(crate) client: Peer,
    pub(crate) now: Now,
    /// The Session while no connection has it.
    pub(crate) session: Option<Box<Session>>,
    /// Bytes the server has read and not consumed.
    tail: Vec<u8>,
    /// Bytes on their way to the client.
    to_client: VecDeque<u8>,
    /// How much the server hands out at once.
    pub(crate) transmit_limit: usize,
    /// Payloads the owner got.
    pub(crate) received: Vec<String>,
    pub(crate) topics: Vec<String>,
    pub(crate) tokens: Vec<AckToken>,
    pub(crate) events: Vec<ConnectionEvent>,
    /// Whether the owner acknowledges at once.
    pub(crate) acknowledges: bool,
    /// Whether the owner answers CONNECT by accepting, and SUBSCRIBE by granting.
    pub(crate) accepts: bool,
    /// The gate of what the owner acknowledges.
    pub(crate) gate: Option<CommitId>,
    pub(crate) connects: usize,
    pub(crate) auths: Vec<Vec<u8>>,
}

impl Pair {
    pub(crate) fn new(version: Version, config: ServerConfig) -> Self {
        let config = Arc::new(config);
        let start = Duration::from_secs(1_000);
        let now = Now::new(
            Instant::ORIGIN + start,
            UnixTime::from_millis(1_700_000_000_000),
        );
        Self {
            server: ServerConnection::new(config.clone(), now),
            config,
            client: Peer::new(version),
            now,
            session: None,
            tail: Vec::new(),
            to_client: VecDeque::new(),
            transmit_limit: 64 * 1024,
            received: Vec::new(),
            topics: Vec::new(),
            tokens: Vec::new(),
            events: Vec::new(),
            acknowledges: true,
            accepts: true,
            gate: None,
            connects: 0,
            auths: Vec::new(),
        }
    }

    pub(crate) fn connected(version: Version) -> Self {
        Self::connected_with(version, ServerConfig::default(), |_| {})
    }

    pub(crate) fn connected_with(
        version: Version,
        config: ServerConfig,
        client: impl FnOnce(&mut Peer),
    ) -> Self {
        let mut pair = Self::new(version, config);
        client(&mut pair.client);
        pair.client.connect();
        pair.run();
        assert!(pair.client.connected);
        pair.client.seen.clear();
        pair
    }

    pub(crate) fn publish(&mut self, outgoing: Outgoing) -> Enqueued {
        let limits = &self.config.limits;
        let session = match &mut self.session {
            Some(session) => session,
            None => self.server.session_mut().unwrap(),
        };
        session.enqueue(outgoing, limits, self.now)
    }

    pub(crate) fn session(&self) -> &Session {
        self.session
            .as_deref()
            .or_else(|| self.server.session())
            .unwrap()
    }

    pub(crate) fn session_mut(&mut self) -> &mut Session {
        match &mut self.session {
            Some(session) => session,
            None => self.server.session_mut().unwrap(),
        }
    }

    /// Moves bytes both ways until nothing moves.
    pub(crate) fn run(&mut self) {
        self.run_until(|_| false);
    }

    /// As [`Pair::run`], packet by packet, until the condition holds.
    pub(crate) fn run_until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        while !condition(self) && (self.step_to_server(usize::MAX) || self.step_to_client(1)) {}
    }

    /// Lets up to `n` bytes arrive at the server; whether there were any.
    pub(crate) fn step_to_server(&mut self, n: usize) -> bool {
        let n = n.min(self.client.output.len());
        if n == 0 {
            return self.feed();
        }
        self.tail.extend(self.client.output.drain(..n));
        self.feed();
        true
    }

    /// Lets up to `n` bytes arrive at the client; whether there were any.
    pub(crate) fn step_to_client(&mut self, n: usize) -> bool {
        self.pull();
        let n = n.min(self.to_client.len());
        let bytes: Vec<u8> = self.to_client.drain(..n).collect();
        self.client.handle_input(&bytes);
        n > 0
    }

    fn pull(&mut self) {
        if self.to_client.is_empty() {
            let mut out = TransmitBuf::new(self.transmit_limit);
            self.server.poll_transmit(self.now, &mut out);
            self.to_client.extend(out.slices().flatten());
        }
        self.poll_events();
    }

    fn poll_events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            self.events.push(event);
        }
    }

    /// Offers the server what it has not consumed; whether it consumed anything.
    pub(crate) fn feed(&mut self) -> bool {
        let mut progress = false;
        loop {
            let tail = std::mem::take(&mut self.tail);
            let input = self.server.handle_input(&tail, self.now);
            let (consumed, demand) = (input.consumed, input.demand);
            if let Some(event) = input.event {
                self.on_event(event);
            }
            self.tail = tail;
            self.tail.drain(..consumed);
            self.poll_events();
            progress |= consumed > 0;
            if consumed == 0 || demand == Demand::Paused && !self.accepts {
                return progress;
            }
        }
    }

    fn on_event(&mut self, event: ServerEvent<'_>) {
        let success = ReasonCode::Success;
        match event {
            ServerEvent::Connect(_) => {
                self.connects += 1;
                if self.accepts {
                    self.accept(Accept::default());
                }
            }
            ServerEvent::Auth(auth) => {
                self.auths
                    .push(auth.authentication_data.unwrap_or_default().to_vec());
            }
            ServerEvent::Publish { publish, token } => {
                let packet = publish.packet();
                self.received
                    .push(String::from_utf8_lossy(packet.payload).into_owned());
                self.topics.push(publish.topic_name().as_str().to_owned());
                if let Some(token) = token {
                    if self.acknowledges {
                        self.server.acknowledge(token, success, self.gate).unwrap();
                    } else {
                        self.tokens.push(token);
                    }
                }
            }
            ServerEvent::Subscribe(subscribe) if self.accepts => {
                let codes = vec![ReasonCode::GrantedQoS2; subscribe.filters.len()];
                let (id, gate) = (subscribe.packet_id, self.gate);
                self.server.suback(id, &codes, gate, self.now).unwrap();
            }
            ServerEvent::Unsubscribe(unsubscribe) if self.accepts => {
                let codes = vec![success; unsubscribe.filters.len()];
                let (id, gate) = (unsubscribe.packet_id, self.gate);
                self.server.unsuback(id, &codes, gate, self.now).unwrap();
            }
            _ => {}
        }
    }

    /// Accepts with the Session of the last connection, if the client wants it.
    pub(crate) fn accept(&mut self, accept: Accept<'_>) {
        let session = self.session.take().filter(|_| !self.server.clean_start());
        let session_present = session.is_some();
        let session = session.unwrap_or_default();
        self.server.accept(
            session,
            Accept {
                session_present,
                ..accept
            },
            self.now,
        );
    }

    /// The network breaks; what was on it is lost.
    pub(crate) fn cut(&mut self) {
        self.server.handle_closed(self.now);
        self.poll_events();
        if let Some(session) = self.server.take_session() {
            self.session = Some(session);
        }
        self.tail.clear();
        self.to_client.clear();
        self.client.cut();
    }

    /// A new connection with the same two Sessions, as far as its CONNECT is written.
    pub(crate) fn reconnect(&mut self) {
        self.server = ServerConnection::new(self.config.clone(), self.now);
        self.client.connect();
    }

    pub(crate) fn advance(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
        if self
            .server
            .poll_timeout()
            .is_some_and(|timeout| timeout.at <= self.now.instant)
        {
            self.server.handle_timeout(self.now);
        }
        self.poll_events();
    }

    pub(crate) fn committed(&mut self, position: u64) {
        self.server.handle_committed(CommitId::new(position));
    }

    pub(crate) fn closed(&self) -> Option<avocet_session::CloseReason> {
        match self.events.last() {
            Some(ConnectionEvent::Closed(reason)) => Some(*reason),
            _ => None,
        }
    }
}
