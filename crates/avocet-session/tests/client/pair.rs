//! A client and a server, both real, over a link of bytes, in virtual time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{QoS, ReasonCode, TopicName, Version};
use avocet_session::client::{ClientConfig, ClientConnection, ClientEvent, ClientNotice};
use avocet_session::{
    Accept, ConnectionEvent, Demand, Instant, Message, Now, Outgoing, ServerConfig,
    ServerConnection, ServerEvent, Session, TransmitBuf, UnixTime,
};

pub(crate) fn start() -> Now {
    Now::new(Instant::ORIGIN, UnixTime::from_millis(1_700_000_000_000))
}

pub(crate) fn message(topic_name: &str, payload: &str, qos: QoS) -> Message {
    let topic_name = TopicName::new(topic_name).unwrap();
    Message::new(topic_name, payload.as_bytes()).with_qos(qos)
}

/// Both ends of one Network Connection, and what their applications saw over all connections.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) now: Now,
    pub(crate) server_config: Arc<ServerConfig>,
    /// The server's Session while no connection holds it.
    pub(crate) server_session: Option<Box<Session>>,
    /// What the server's application sends once it has accepted a client.
    pub(crate) server_sends: Vec<Message>,
    pub(crate) server_received: Vec<String>,
    pub(crate) client_received: Vec<String>,
    /// Messages of each side that are completely acknowledged.
    pub(crate) client_finished: usize,
    pub(crate) server_finished: usize,
    pub(crate) notices: Vec<ClientNotice>,
    pub(crate) events: Vec<String>,
    /// Bytes on their way.
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Bytes that arrived and are not yet a packet.
    server_input: Vec<u8>,
    client_input: Vec<u8>,
}

impl Pair {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self::with_server(config, ServerConfig::default())
    }

    pub(crate) fn with_server(config: ClientConfig, server_config: ServerConfig) -> Self {
        let now = start();
        let server_config = Arc::new(server_config);
        Self {
            client: ClientConnection::new(config, Session::new(), now),
            server: ServerConnection::new(server_config.clone(), now),
            now,
            server_config,
            server_session: None,
            server_sends: Vec::new(),
            server_received: Vec::new(),
            client_received: Vec::new(),
            client_finished: 0,
            server_finished: 0,
            notices: Vec::new(),
            events: Vec::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            server_input: Vec::new(),
            client_input: Vec::new(),
        }
    }

    /// Connected, and nothing on its way.
    pub(crate) fn connected(version: Version) -> Self {
        let mut config = ClientConfig::new(version, "c");
        config.clean_start = false;
        let mut pair = Self::new(config);
        pair.run();
        assert!(pair.client.is_connected(), "{:?}", pair.notices);
        pair
    }

    /// Lets everything arrive until nothing happens any more.
    pub(crate) fn run(&mut self) {
        let left = self.run_bytes(usize::MAX);
        assert!(left > 0, "the two never come to rest");
    }

    /// Delivers at most this many bytes, one at a time and by turns; how many were left over.
    pub(crate) fn run_bytes(&mut self, mut bytes: usize) -> usize {
        self.transmit();
        while bytes > 0 && !(self.to_server.is_empty() && self.to_client.is_empty()) {
            if !self.to_server.is_empty() {
                bytes -= 1;
                self.step_server();
            }
            if bytes > 0 && !self.to_client.is_empty() {
                bytes -= 1;
                self.step_client();
            }
            self.transmit();
        }
        bytes
    }

    /// The link breaks, and what was on its way is lost.
    pub(crate) fn cut(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.server_input.clear();
        self.client_input.clear();
        self.client.handle_closed();
        self.server.handle_closed(self.now);
        self.transmit();
    }

    /// What was on its way is lost, and nobody learns it.
    pub(crate) fn drop_bytes(&mut self) {
        self.transmit();
        self.to_server.clear();
        self.to_client.clear();
    }

    /// The same two Sessions, moved to a new connection, whose client keeps its Session.
    pub(crate) fn reconnect(&mut self) {
        let mut config = self.client.config().clone();
        config.clean_start = false;
        config.session_known = true;
        self.reconnect_with(config);
    }

    pub(crate) fn reconnect_with(&mut self, config: ClientConfig) {
        let idle = ClientConnection::new(config.clone(), Session::new(), self.now);
        let session = std::mem::replace(&mut self.client, idle).into_session();
        self.client = ClientConnection::new(config, session, self.now);
        let idle = ServerConnection::new(self.server_config.clone(), self.now);
        if let Some(session) = std::mem::replace(&mut self.server, idle).into_session() {
            self.server_session = Some(session);
        }
    }

    pub(crate) fn publish(&mut self, message: Message) {
        self.client.publish(message, self.now).unwrap();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
    }

    fn transmit(&mut self) {
        let mut out = TransmitBuf::new(usize::MAX);
        self.client.poll_transmit(self.now, &mut out);
        out.slices().for_each(|slice| self.to_server.extend(slice));
        out.clear();
        self.server.poll_transmit(self.now, &mut out);
        out.slices().for_each(|slice| self.to_client.extend(slice));
        while let Some(notice) = self.client.poll_event() {
            self.notices.push(notice);
        }
        while let Some(event) = self.server.poll_event() {
            if let ConnectionEvent::Finished { .. } = event {
                self.server_finished += 1;
            }
        }
    }

    /// One more byte arrives at the server.
    fn step_server(&mut self) {
        self.server_input.extend(self.to_server.pop_front());
        let read = self.server.handle_input(&self.server_input, self.now);
        let consumed = read.consumed;
        match read.event {
            Some(ServerEvent::Connect(connect)) => {
                let clean_start = connect.clean_start;
                let kept = self.server_session.take().filter(|_| !clean_start);
                let accept = Accept {
                    session_present: kept.is_some(),
                    ..Accept::default()
                };
                let mut session = kept.unwrap_or_default();
                for message in self.server_sends.drain(..) {
                    let mut outgoing = Outgoing::new(message);
                    outgoing.tag = 1;
                    let _ = session.enqueue(outgoing, &self.server_config.limits, self.now);
                }
                self.server.accept(session, accept, self.now);
            }
            Some(ServerEvent::Publish { publish, token }) => {
                let packet = publish.packet();
                let payload = String::from_utf8(packet.payload.to_vec()).unwrap();
                self.server_received.push(payload);
                if let Some(token) = token {
                    self.server
                        .acknowledge(token, ReasonCode::Success, None)
                        .unwrap();
                }
            }
            Some(ServerEvent::Subscribe(subscribe)) => {
                let codes: Vec<_> = subscribe
                    .filters
                    .iter()
                    .map(|_| ReasonCode::GrantedQoS1)
                    .collect();
                self.server
                    .suback(subscribe.packet_id, &codes, None, self.now)
                    .unwrap();
            }
            Some(ServerEvent::Unsubscribe(unsubscribe)) => {
                let codes: Vec<_> = unsubscribe
                    .filters
                    .iter()
                    .map(|_| ReasonCode::Success)
                    .collect();
                self.server
                    .unsuback(unsubscribe.packet_id, &codes, None, self.now)
                    .unwrap();
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        self.server_input.drain(..consumed);
    }

    /// One more byte arrives at the client.
    fn step_client(&mut self) {
        self.client_input.extend(self.to_client.pop_front());
        let read = self.client.handle_input(&self.client_input, self.now);
        assert_ne!(read.demand, Demand::Paused);
        let consumed = read.consumed;
        match read.event {
            Some(ClientEvent::Publish { publish, token }) => {
                let payload = String::from_utf8(publish.packet().payload.to_vec()).unwrap();
                self.client_received.push(payload);
                if let Some(token) = token {
                    self.client.acknowledge(token, ReasonCode::Success).unwrap();
                }
            }
            Some(ClientEvent::Published { .. }) => self.client_finished += 1,
            Some(ClientEvent::Connected(connack)) => {
                self.events
                    .push(format!("connected {}", connack.session_present));
            }
            Some(ClientEvent::Refused(connack)) => {
                self.events.push(format!("refused {}", connack.reason_code));
            }
            Some(ClientEvent::Subscribed { suback, .. }) => {
                self.events
                    .push(format!("subscribed {:?}", suback.reason_codes));
            }
            Some(ClientEvent::Unsubscribed { .. }) => self.events.push("unsubscribed".into()),
            Some(ClientEvent::Disconnected(disconnect)) => {
                self.events
                    .push(format!("disconnected {}", disconnect.reason_code));
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        self.client_input.drain(..consumed);
    }
}
