//! One world: a client and a server, both real, a link that is lost, and a store that commits late.

use std::collections::HashMap;
use std::sync::Arc;

use avocet_codec::{Packet, PacketId, Publish, QoS, ReasonCode, TopicName, Version, frame_len};
use avocet_session::client::{
    ClientConfig, ClientConnection, ClientEvent, ClientNotice, PublishId,
};
use avocet_session::{
    Accept, CommitId, ConnectionEvent, Details, Instant, Message, Now, Outgoing, ServerConfig,
    ServerConnection, ServerEvent, Session, TransmitBuf, UnixTime,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What all worlds of a test have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) version: Version,
    pub(crate) qos: QoS,
    pub(crate) sender: Role,
    /// Whether the server stores what it sends and receives, and waits for the commits.
    pub(crate) stored: bool,
}

/// Who learns that the connection is lost. The other goes on until its peer is back, and, if it
/// sends, sends one more message into the void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notices {
    Both,
    ClientOnly,
    ServerOnly,
}

/// What becomes of the two Sessions before the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    /// The client forgets its Session, and begins with Clean Start.
    ClientLost,
    /// The server forgets its Session.
    ServerLost,
}

/// What can move: a piece to the server, a piece to the client, or a commit of the store.
pub(crate) const TO_SERVER: usize = 0;
pub(crate) const TO_CLIENT: usize = 1;
pub(crate) const COMMIT: usize = 2;

/// How many of each have moved on the connection.
pub(crate) type Position = [usize; 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Byte,
    Packet,
}

/// A message, and what happened to it.
#[derive(Debug)]
struct Sent {
    /// No Session that had it was lost, so that it has to arrive.
    must_arrive: bool,
    packet_id: Option<u16>,
    /// PUBREC has come.
    is_released: bool,
    /// How often the sender was told that it is done with.
    finished: usize,
    /// The commit that PUBLISH, or the server's PUBACK or PUBREC, waits for; none before it is
    /// named.
    stored: Option<u64>,
    /// The commit that the server's PUBREL or PUBCOMP waits for.
    released: Option<u64>,
}

/// Bytes on their way in one direction.
#[derive(Default)]
struct Link {
    bytes: Vec<u8>,
    delivered: usize,
    /// What was delivered and is not yet a packet.
    tail: Vec<u8>,
}

impl Link {
    /// The next piece, appended to what has not been consumed.
    fn deliver(&mut self, piece: Piece) -> bool {
        let rest = &self.bytes[self.delivered..];
        if rest.is_empty() {
            return false;
        }
        let len = match piece {
            Piece::Byte => 1,
            Piece::Packet => frame_len(rest, u32::MAX).unwrap().unwrap(),
        };
        self.tail.extend_from_slice(&rest[..len]);
        self.delivered += len;
        true
    }
}

pub(crate) struct World {
    case: Case,
    now: Now,
    config: Arc<ServerConfig>,
    client: ClientConnection,
    server: ServerConnection,
    to_server: Link,
    to_client: Link,
    /// The server's Session while no connection has it.
    session: Option<Box<Session>>,
    /// An earlier connection that has the Session, as the server has not noticed its end.
    half_open: Option<ServerConnection>,
    /// The client has to begin anew until it knows that the server did.
    starts_clean: bool,
    /// How many messages the server's application sends once a client is accepted.
    server_sends: usize,
    sent: Vec<Sent>,
    /// Which message the client's identifiers mean.
    published: HashMap<PublishId, usize>,
    received: Vec<usize>,
    cuts: usize,
    /// The positions given to gates, and committed.
    gates: u64,
    committed: u64,
}

/// How many messages are in flight at once.
const IN_FLIGHT: usize = 2;

impl World {
    /// Connected, with two messages to send, of which nothing has moved.
    pub(crate) fn new(case: Case) -> Self {
        let now = Now::new(Instant::ORIGIN, UnixTime::from_millis(1_700_000_000_000));
        let config = Arc::new(ServerConfig::default());
        let mut world = Self {
            case,
            now,
            client: ClientConnection::new(client_config(case, true), Session::new(), now),
            server: ServerConnection::new(config.clone(), now),
            config,
            to_server: Link::default(),
            to_client: Link::default(),
            session: None,
            half_open: None,
            starts_clean: false,
            server_sends: 0,
            sent: Vec::new(),
            published: HashMap::new(),
            received: Vec::new(),
            cuts: 0,
            gates: 0,
            committed: 0,
        };
        world.run(Piece::Packet);
        assert!(world.client.is_connected());
        world.forget_link();
        for _ in 0..IN_FLIGHT {
            world.send();
        }
        world.transmit();
        world
    }

    /// Moves pieces up to a position, in this order of preference; whether it was reached.
    pub(crate) fn run_to(&mut self, position: Position, order: [usize; 3], piece: Piece) -> bool {
        let mut moved = [0; 3];
        loop {
            let next = order
                .into_iter()
                .find(|&what| moved[what] < position[what] && self.step(what, piece));
            match next {
                Some(what) => moved[what] += 1,
                None => return moved == position,
            }
        }
    }

    /// Moves everything; the position reached.
    pub(crate) fn run(&mut self, piece: Piece) -> Position {
        let mut moved = [0; 3];
        self.transmit();
        while let Some(what) = (0..3).find(|&what| self.step(what, piece)) {
            moved[what] += 1;
            assert!(moved[what] < 1_000, "no end: {:?}", self.case);
        }
        moved
    }

    fn step(&mut self, what: usize, piece: Piece) -> bool {
        let moved = match what {
            TO_SERVER => self.to_server.deliver(piece),
            TO_CLIENT => self.to_client.deliver(piece),
            _ => self.committed < self.gates,
        };
        if moved {
            match what {
                TO_SERVER => self.feed_server(),
                TO_CLIENT => self.feed_client(),
                _ => self.commit(),
            }
            self.transmit();
        }
        moved
    }

    /// The connection is lost, with what is on it.
    pub(crate) fn cut(&mut self, notices: Notices) {
        self.cuts += 1;
        if notices != Notices::ClientOnly {
            self.server.handle_closed(self.now);
            self.poll_server();
            self.session = self.server.take_session().or_else(|| self.session.take());
        }
        if notices != Notices::ServerOnly {
            self.client.handle_closed();
            self.poll_client();
        }
        match (notices, self.case.sender) {
            (Notices::ClientOnly, Role::Server) if self.server.session().is_some() => self.send(),
            (Notices::ServerOnly, Role::Client) => self.send(),
            _ => {}
        }
        self.transmit();
        self.client.handle_closed();
        self.poll_client();
        self.forget_link();
        if self.server.session().is_some() {
            let idle = ServerConnection::new(self.config.clone(), self.now);
            self.half_open = Some(std::mem::replace(&mut self.server, idle));
        }
    }

    /// A new connection, on which nothing has moved, with a message to send beside those of before.
    pub(crate) fn reconnect(&mut self, fate: Fate) {
        let idle = ClientConnection::new(client_config(self.case, true), Session::new(), self.now);
        let mut session = std::mem::replace(&mut self.client, idle).into_session();
        let clean_start = self.starts_clean || fate == Fate::ClientLost;
        if fate != Fate::Kept {
            self.sent
                .iter_mut()
                .for_each(|sent| sent.must_arrive = false);
            // Until it hears of a new Session, a client cannot know whether the server has begun one.
            self.starts_clean = true;
        }
        if clean_start && self.case.version == Version::V3_1_1 {
            // A Clean Session ends with its connection: the client has one, and goes on behind it.
            self.session = None;
            self.half_open = None;
            if self.case.sender == Role::Server {
                self.sent
                    .iter_mut()
                    .for_each(|sent| sent.must_arrive = false);
            }
        }
        match fate {
            Fate::Kept => {}
            Fate::ClientLost => {
                session = Session::new();
                self.published.clear();
            }
            Fate::ServerLost => {
                self.session = None;
                self.half_open = None;
            }
        }
        self.client =
            ClientConnection::new(client_config(self.case, clean_start), session, self.now);
        self.server = ServerConnection::new(self.config.clone(), self.now);
        match self.case.sender {
            Role::Client => self.send(),
            Role::Server => self.server_sends += 1,
        }
        self.transmit();
    }

    /// Lets everything arrive, and checks what both ends have seen.
    pub(crate) fn finish(mut self) {
        self.run(Piece::Packet);
        assert!(self.client.is_connected());
        assert!(self.client.session().is_empty(), "{:?}", self.client);
        assert_eq!(self.client.session().received().count(), 0);
        let session = self.server.session().unwrap();
        assert!(session.is_empty(), "{session:?}");
        assert_eq!(session.received().count(), 0);
        assert_eq!(session.waits_for(), None);

        let mut times = vec![0; self.sent.len()];
        let mut last_first = None;
        for &message in &self.received {
            times[message] += 1;
            if times[message] == 1 {
                // [MQTT5-4.6.0-1]: no message comes for the first time after a later one.
                assert!(last_first < Some(message), "{:?}", self.received);
                last_first = Some(message);
            }
        }
        for (sent, times) in self.sent.iter().zip(times) {
            let context = || format!("{:?} of {:?}", self.received, self.sent);
            let most = match self.case.qos {
                QoS::ExactlyOnce => 1,
                _ => self.cuts + 1,
            };
            assert!(times <= most, "{}", context());
            assert!(sent.finished <= 1, "{}", context());
            if sent.must_arrive {
                assert!(times >= 1, "{}", context());
                assert_eq!(sent.finished, 1, "{}", context());
            }
        }
    }

    /// The sender's application has one more message.
    fn send(&mut self) {
        let index = self.sent.len();
        let topic_name = TopicName::new("t").unwrap();
        let message = Message::new(topic_name, &[index as u8]).with_qos(self.case.qos);
        match self.case.sender {
            Role::Client => {
                let id = self.client.publish(message, self.now).unwrap();
                self.published.insert(id.unwrap(), index);
            }
            Role::Server => {
                let mut outgoing = Outgoing::new(message);
                outgoing.tag = index as u64 + 1;
                outgoing.gate = self.gate();
                let session = self.server.session_mut().unwrap();
                let _ = session.enqueue(outgoing, &self.config.limits, self.now);
            }
        }
        self.sent.push(Sent {
            must_arrive: true,
            packet_id: None,
            is_released: false,
            finished: 0,
            stored: self.last_gate(),
            released: None,
        });
    }

    fn gate(&mut self) -> Option<CommitId> {
        self.gates += u64::from(self.case.stored);
        self.case.stored.then(|| CommitId::new(self.gates))
    }

    fn last_gate(&self) -> Option<u64> {
        self.case.stored.then_some(self.gates)
    }

    fn commit(&mut self) {
        self.committed += 1;
        let committed = CommitId::new(self.committed);
        self.server.handle_committed(committed);
        if let Some(session) = &mut self.session {
            session.handle_committed(committed);
        }
        if let Some(server) = &mut self.half_open {
            server.handle_committed(committed);
        }
    }

    fn forget_link(&mut self) {
        self.to_server = Link::default();
        self.to_client = Link::default();
    }

    fn transmit(&mut self) {
        let mut out = TransmitBuf::new(usize::MAX);
        self.client.poll_transmit(self.now, &mut out);
        let bytes: Vec<u8> = out.slices().flatten().copied().collect();
        self.see(Role::Client, &bytes);
        self.to_server.bytes.extend(bytes);
        out.clear();
        self.server.poll_transmit(self.now, &mut out);
        let bytes: Vec<u8> = out.slices().flatten().copied().collect();
        self.see(Role::Server, &bytes);
        self.to_client.bytes.extend(bytes);
        self.poll_client();
        self.poll_server();
    }

    /// Checks the packets that one side writes.
    fn see(&mut self, from: Role, mut bytes: &[u8]) {
        let version = self.case.version;
        while let Some(packet) = Packet::decode_next(&mut bytes, version, u32::MAX).unwrap() {
            if self.case.stored && from == Role::Server {
                self.see_stored(&packet);
            }
            if let Packet::Publish(publish) = packet {
                assert_eq!(from, self.case.sender);
                self.see_publish(&publish);
            }
        }
    }

    /// Identifier and DUP are right, and PUBLISH does not follow PUBREC.
    fn see_publish(&mut self, publish: &Publish<'_>) {
        let id = publish.packet_id().unwrap().get();
        let index = usize::from(publish.payload[0]);
        for (other, sent) in self.sent.iter().enumerate() {
            let in_use = sent.must_arrive && sent.finished == 0 && sent.packet_id == Some(id);
            assert!(other == index || !in_use, "{:?}", self.sent);
        }
        let sent = &mut self.sent[index];
        assert!(!sent.is_released, "PUBLISH after PUBREC: {sent:?}");
        assert_eq!(publish.dup, sent.packet_id.is_some(), "{sent:?}");
        assert!(sent.packet_id.is_none_or(|known| known == id), "{sent:?}");
        sent.packet_id = Some(id);
    }

    /// What the server writes waits until it is stored.
    fn see_stored(&self, packet: &Packet<'_>) {
        let of_id = |id: PacketId| {
            let mut of_id = self.sent.iter().rev();
            of_id.find(|sent| sent.packet_id == Some(id.get())).unwrap()
        };
        let commit = match packet {
            Packet::Publish(publish) => self.sent[usize::from(publish.payload[0])].stored,
            Packet::Puback(ack) | Packet::Pubrec(ack) => of_id(ack.packet_id).stored,
            Packet::Pubrel(ack) | Packet::Pubcomp(ack) => of_id(ack.packet_id).released,
            _ => return,
        };
        let is_stored = commit.is_some_and(|commit| commit <= self.committed);
        assert!(is_stored, "{packet:?} before it is stored");
    }

    /// Notes the PUBRECs that the sender gets, which are whole when they are consumed.
    fn see_pubrecs(&mut self, to: Role, mut packets: &[u8]) {
        if to != self.case.sender {
            return;
        }
        let version = self.case.version;
        while let Some(packet) = Packet::decode_next(&mut packets, version, u32::MAX).unwrap() {
            let Packet::Pubrec(pubrec) = packet else {
                continue;
            };
            let id = Some(pubrec.packet_id.get());
            let of_id = self.sent.iter_mut().filter(|sent| sent.packet_id == id);
            of_id.last().unwrap().is_released = true;
        }
    }

    fn feed_server(&mut self) {
        loop {
            let tail = std::mem::take(&mut self.to_server.tail);
            let input = self.server.handle_input(&tail, self.now);
            let consumed = input.consumed;
            match input.event {
                Some(ServerEvent::Connect(connect)) => {
                    let clean_start = connect.clean_start;
                    self.accept(clean_start);
                }
                Some(ServerEvent::Publish { publish, token }) => {
                    let index = usize::from(publish.packet().payload[0]);
                    self.received.push(index);
                    let gate = self.gate();
                    self.sent[index].stored = self.last_gate();
                    let token = token.unwrap();
                    self.server
                        .acknowledge(token, ReasonCode::Success, gate)
                        .unwrap();
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            self.see_pubrecs(Role::Server, &tail[..consumed]);
            self.to_server.tail = tail[consumed..].to_vec();
            self.poll_server();
            if consumed == 0 {
                break;
            }
        }
    }

    fn accept(&mut self, clean_start: bool) {
        if let Some(mut other) = self.half_open.take() {
            let reason_code = ReasonCode::SessionTakenOver;
            other.disconnect(reason_code, Details::default(), self.now);
            self.session = other.take_session();
        }
        let kept = self.session.take().filter(|_| !clean_start);
        if clean_start && self.case.sender == Role::Server {
            self.sent
                .iter_mut()
                .for_each(|sent| sent.must_arrive = false);
        }
        let accept = Accept {
            session_present: kept.is_some(),
            ..Accept::default()
        };
        self.server
            .accept(kept.unwrap_or_default(), accept, self.now);
        for _ in 0..std::mem::take(&mut self.server_sends) {
            self.send();
        }
    }

    fn feed_client(&mut self) {
        loop {
            let tail = std::mem::take(&mut self.to_client.tail);
            let input = self.client.handle_input(&tail, self.now);
            let consumed = input.consumed;
            match input.event {
                Some(ClientEvent::Connected(_)) => self.starts_clean = false,
                Some(ClientEvent::Publish { publish, token }) => {
                    self.received.push(usize::from(publish.packet().payload[0]));
                    self.client
                        .acknowledge(token.unwrap(), ReasonCode::Success)
                        .unwrap();
                }
                Some(ClientEvent::Published { id, .. }) => self.finished(id),
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            self.see_pubrecs(Role::Client, &tail[..consumed]);
            self.to_client.tail = tail[consumed..].to_vec();
            self.poll_client();
            if consumed == 0 {
                break;
            }
        }
    }

    fn finished(&mut self, id: PublishId) {
        self.sent[self.published[&id]].finished += 1;
    }

    fn poll_client(&mut self) {
        while let Some(notice) = self.client.poll_event() {
            match notice {
                ClientNotice::NotPublished { id, .. } => self.finished(id.unwrap()),
                ClientNotice::Closed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn poll_server(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ConnectionEvent::Finished { tag, .. } => self.sent[tag as usize - 1].finished += 1,
                ConnectionEvent::Pubrec { sequence, tag } => {
                    let gate = self.gate();
                    self.sent[tag as usize - 1].released = self.last_gate();
                    let session = self.server.session_mut().unwrap();
                    session.release(sequence, gate).unwrap();
                }
                ConnectionEvent::Pubrel { packet_id } => {
                    let gate = self.gate();
                    let released = self.last_gate();
                    let id = Some(packet_id.get());
                    let mut of_id = self.sent.iter_mut().rev();
                    of_id.find(|sent| sent.packet_id == id).unwrap().released = released;
                    let session = self.server.session_mut().unwrap();
                    session.complete(packet_id, gate).unwrap();
                }
                ConnectionEvent::Closed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn client_config(case: Case, clean_start: bool) -> ClientConfig {
    let mut config = ClientConfig::new(case.version, "c");
    config.clean_start = clean_start && case.version == Version::V5;
    config.session_known = !clean_start;
    config.keep_alive = 0;
    if case.version == Version::V5 {
        config.session_expiry_interval = u32::MAX;
    }
    config
}
