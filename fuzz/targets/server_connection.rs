//! A client and the owner of a server's connections that do anything in any order, over many
//! connections with one Session: bytes and packets, acknowledgements that wait for commits, a queue
//! whose tail only a store has, pauses, timers, takeover. What the server sends are whole packets
//! that it may send then: CONNACK first, nothing after DISCONNECT, nothing before its commit, within
//! what CONNECT allows, in order. With a client that keeps the rules everything settles.
//!
//! The input is a list of steps: what is done, and what is needed for it. The client's packets are
//! made of choices, or are raw bytes.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use avocet_codec::{
    Ack, Auth, Connack, Connect, Delivery, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode,
    Subscribe, SubscribeFilter, SubscriptionOptions, TopicFilter, TopicName, Unsubscribe, Version,
};
use avocet_fuzz::{
    Aliases, Choices, QOS, REASON_CODES, Receiving, Sending, VERSIONS, check_expiry, expires_at,
    now, number_of, plant, take_packets,
};
use avocet_session::{
    Accept, AckToken, Authentication, CloseReason, CommitId, ConnectionEvent, Details, Enqueued,
    FetchFrom, FetchedMessage, Limits, Message, Outgoing, Overflow, ServerConfig, ServerConnection,
    ServerEvent, Session, TransmitBuf,
};
use libfuzzer_sys::fuzz_target;

const TOPICS: [&str; 3] = ["a", "\u{e9}/c", ""];

fuzz_target!(init: plant(), |input: &[u8]| {
    let mut choices = Choices::new(input);
    let mut world = World::new(config(&mut choices));
    while !choices.is_empty() {
        world.step(&mut choices);
    }
    world.settle();
});

fn config(choices: &mut Choices<'_>) -> ServerConfig {
    let limits = Limits {
        inflight: choices.pick(&[1, 2, 32]),
        queued_messages_max: choices.pick(&[3, 10, 1_000]),
        queued_bytes_max: choices.pick(&[u64::MAX, 200]),
        resident_messages: choices.pick(&[usize::MAX, 1, 2, 4]),
        overflow: choices.pick(&[Overflow::DropNewest, Overflow::DropOldest]),
        queue_qos0: choices.flag(),
        topic_aliases: choices.pick(&[0, 2]),
    };
    ServerConfig {
        receive_maximum: NonZeroU16::new(choices.pick(&[u16::MAX, 1, 3])).expect("not 0"),
        maximum_packet_size: NonZeroU32::new(choices.pick(&[1 << 20, 60])).expect("not 0"),
        topic_alias_maximum: choices.pick(&[0, 2]),
        keep_alive_max: NonZeroU16::new(choices.pick(&[0, 5])),
        limits,
        ..ServerConfig::default()
    }
}

struct World {
    config: Arc<ServerConfig>,
    server: ServerConnection,
    /// While no connection has it.
    session: Option<Box<Session>>,
    time: u64,
    unread: Vec<u8>,
    tokens: Vec<AckToken>,
    requests: Vec<Request>,
    /// What the owner was told, and has not answered.
    pubrecs: Vec<u64>,
    pubrels: Vec<PacketId>,
    fetch: Option<FetchFrom>,
    /// Messages of QoS 1 and 2 by their sequence.
    store: BTreeMap<u64, Outgoing>,
    commits: u64,
    committed: u64,
    /// All messages; the payload is the number.
    messages: Vec<Enqueuing>,
    /// PUBRECs that are stored, by message, and the commits they wait for.
    releases: BTreeMap<usize, Option<CommitId>>,
    sending: Sending,
    receiving: Receiving,
    /// The number of the last message that was sent for the first time, for each QoS.
    last_sent: [Option<usize>; 3],
    frozen: bool,
    is_over: bool,
    /// When the server last read a packet.
    read_at: u64,
    client: Client,
}

struct Enqueuing {
    topic: &'static str,
    gate: Option<CommitId>,
    /// From when on it is not sent.
    expires_at: Option<u64>,
}

#[derive(Clone, Copy)]
struct Request {
    packet_id: PacketId,
    filters: usize,
    subscribes: bool,
}

/// What a client sees on one connection.
#[derive(Default)]
struct Client {
    receive_maximum: usize,
    maximum_packet_size: Option<NonZeroU32>,
    is_connected: bool,
    is_over: bool,
    /// In seconds.
    keep_alive: u16,
    outstanding: BTreeSet<PacketId>,
    aliases: Aliases,
    answers: Vec<u8>,
}

impl World {
    fn new(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self {
            server: ServerConnection::new(Arc::clone(&config), now(0)),
            config,
            session: Some(Box::default()),
            time: 0,
            unread: Vec::new(),
            tokens: Vec::new(),
            requests: Vec::new(),
            pubrecs: Vec::new(),
            pubrels: Vec::new(),
            fetch: None,
            store: BTreeMap::new(),
            commits: 0,
            committed: 0,
            messages: Vec::new(),
            releases: BTreeMap::new(),
            sending: Sending::default(),
            receiving: Receiving::new(true),
            read_at: 0,
            last_sent: [None; 3],
            frozen: false,
            is_over: false,
            client: Client::default(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let now = now(self.time);
        match choices.below(20) {
            0 => self.unread.extend_from_slice(choices.bytes()),
            1 => self.reconnect(choices),
            2 | 3 => self.enqueue(choices),
            4 if !self.tokens.is_empty() => {
                let token = self.tokens.swap_remove(choices.below(self.tokens.len()));
                let reason = choices.pick(&REASON_CODES);
                let gate = self.gate(choices);
                self.acknowledge(token, reason, gate);
            }
            5 if !self.requests.is_empty() => {
                let request = self.requests.remove(choices.below(self.requests.len()));
                let gate = self.gate(choices);
                self.answer(request, choices.pick(&REASON_CODES), gate);
            }
            6 if !self.pubrecs.is_empty() => {
                let sequence = self.pubrecs.swap_remove(choices.below(self.pubrecs.len()));
                let gate = self.gate(choices);
                self.release(sequence, gate);
            }
            7 if !self.pubrels.is_empty() => {
                let id = self.pubrels.swap_remove(choices.below(self.pubrels.len()));
                let gate = self.gate(choices);
                self.complete(id, gate);
            }
            8 => {
                self.committed +=
                    choices.below((self.commits - self.committed) as usize + 1) as u64;
                self.tell_committed();
            }
            9 => self.fetch(choices.below(3), choices.flag()),
            10 => {
                self.frozen = choices.flag();
                if choices.flag() {
                    self.server.pause();
                } else {
                    self.server.resume(now);
                }
            }
            11 => {
                self.pass_until(self.time + choices.millis());
            }
            12 => {
                if let Some(timeout) = self.server.poll_timeout() {
                    self.pass_until(timeout.at.as_nanos() / 1_000_000 + 1);
                }
            }
            13 => {
                let details = Details {
                    reason_string: choices.flag().then_some("a reason"),
                    server_reference: None,
                };
                self.server
                    .disconnect(choices.pick(&REASON_CODES), details, now);
            }
            14 => match choices.below(4) {
                0 => {
                    let _ = self.server.authenticate(Authentication::default());
                }
                1 => {
                    let _ = self.server.reauthenticated(Authentication::default());
                }
                2 => self
                    .server
                    .refuse(choices.pick(&REASON_CODES), Details::default(), now),
                // A Session leaves a connection that is still sending its last packet.
                _ => self.session = self.server.take_session().or(self.session.take()),
            },
            15 => {
                if let Some(session) = &mut self.session {
                    let odd = |outgoing: &Outgoing| outgoing.tag == 1;
                    for (sequence, outgoing) in session.take_where(odd) {
                        let number = number_in(&outgoing);
                        let stays =
                            outgoing.qos == QoS::ExactlyOnce && self.sending.is_in_flight(number);
                        assert!(!stays, "{number} is in flight at QoS 2");
                        self.sending.forget(number);
                        // The place of a QoS 0 message is not its own.
                        if outgoing.qos != QoS::AtMostOnce {
                            self.store.remove(&sequence);
                        }
                    }
                }
            }
            _ => self.send(choices),
        }
        self.run();
    }

    fn gate(&mut self, choices: &mut Choices<'_>) -> Option<CommitId> {
        choices.flag().then(|| {
            self.commits += 1;
            CommitId::new(self.commits)
        })
    }

    fn pass_until(&mut self, time: u64) {
        self.time = self.time.max(time);
        let now = now(self.time);
        self.server.handle_timeout(now);
        let next = self.server.poll_timeout();
        assert!(next.is_none_or(|next| next.at > now.instant), "{next:?}");
    }

    fn release(&mut self, sequence: u64, gate: Option<CommitId>) {
        let released = self.session_mut().map(|it| it.release(sequence, gate));
        if released == Some(Ok(()))
            && let Some(outgoing) = self.store.get(&sequence)
        {
            self.releases.insert(number_in(outgoing), gate);
        }
    }

    fn complete(&mut self, id: PacketId, gate: Option<CommitId>) {
        if self.session_mut().map(|it| it.complete(id, gate)) == Some(Ok(())) {
            self.receiving.on_complete(id, gate);
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.session {
            Some(session) => Some(session),
            None => self.server.session_mut(),
        }
    }

    fn tell_committed(&mut self) {
        let committed = CommitId::new(self.committed);
        self.server.handle_committed(committed);
        if let Some(session) = &mut self.session {
            session.handle_committed(committed);
        }
    }

    fn enqueue(&mut self, choices: &mut Choices<'_>) {
        let number = self.messages.len();
        let mut payload = (number as u32).to_be_bytes().to_vec();
        payload.resize(4 + choices.pick(&[0, 0, 60]), 0);
        let now = now(self.time);
        let expiry = choices.pick(&[None, None, Some(2)]);
        // Shorter ones have no Topic Aliases.
        let topic = if number % 4 == 3 {
            "a/long/b"
        } else {
            "a/long"
        };
        let message = Message::new(TopicName::new(topic).expect("one"), &payload)
            .with_qos(choices.pick(&QOS))
            .with_expiry(expiry, now.unix);
        let mut outgoing = Outgoing::new(message);
        outgoing.tag = choices.below(3) as u64;
        outgoing.gate = self.gate(choices);
        let config = Arc::clone(&self.config);
        let Some(session) = self.session_mut() else {
            return;
        };
        let enqueued = session.enqueue(outgoing.clone(), &config.limits, now);
        assert!(session.queued() <= config.limits.queued_messages_max);
        assert!(session.queued_bytes() <= config.limits.queued_bytes_max);
        self.messages.push(Enqueuing {
            topic,
            gate: outgoing.gate,
            expires_at: expires_at(expiry, self.time),
        });
        match enqueued {
            Enqueued::Queued { sequence } | Enqueued::Stored { sequence } => {
                self.keep(sequence, outgoing);
            }
            Enqueued::Displaced { sequence, oldest } => {
                self.keep(sequence, outgoing);
                for dropped in oldest {
                    self.drop_stored(dropped.qos, dropped.sequence);
                }
            }
            Enqueued::Refused(_) => {}
        }
    }

    fn keep(&mut self, sequence: u64, outgoing: Outgoing) {
        if outgoing.qos != QoS::AtMostOnce {
            let old = self.store.insert(sequence, outgoing);
            assert!(old.is_none(), "sequence {sequence} twice");
        }
    }

    fn drop_stored(&mut self, qos: QoS, sequence: u64) {
        if qos != QoS::AtMostOnce
            && let Some(outgoing) = self.store.remove(&sequence)
        {
            self.sending.forget(number_in(&outgoing));
        }
    }

    /// The store's next page, some of which may have expired.
    fn fetch(&mut self, fewer: usize, expires: bool) {
        let store = std::mem::take(&mut self.store);
        if let (Some(from), Some(session)) = (self.fetch.take(), self.session_mut()) {
            let most = from.max_messages.saturating_sub(fewer).max(1);
            let page = store.range(from.sequence..).take(most);
            let page: Vec<_> = page.map(|(at, message)| (*at, message.clone())).collect();
            // Beyond the last message there is nothing.
            let next = match page.last() {
                Some((last, _)) if page.len() == most => last + 1,
                _ => u64::MAX,
            };
            let skipped = usize::from(expires && page.len() > 1);
            let messages = page.into_iter().skip(skipped);
            let messages = messages.map(|(sequence, outgoing)| FetchedMessage {
                sequence,
                outgoing,
                pubrec_received: false,
            });
            session.handle_fetched(next, messages);
        }
        self.store = store;
    }

    fn acknowledge(&mut self, token: AckToken, reason: ReasonCode, gate: Option<CommitId>) {
        if self.server.acknowledge(token, reason, gate).is_ok() {
            self.receiving.on_answer(token, gate);
        } else if let Some(session) = self.session_mut()
            && token.qos() == QoS::ExactlyOnce
        {
            session.answer(token, reason, gate);
            self.receiving.on_answer(token, gate);
        }
    }

    fn answer(&mut self, request: Request, reason: ReasonCode, gate: Option<CommitId>) {
        let (codes, now) = (vec![reason; request.filters], now(self.time));
        let _ = if request.subscribes {
            self.server.suback(request.packet_id, &codes, gate, now)
        } else {
            self.server.unsuback(request.packet_id, &codes, gate, now)
        };
    }

    /// The connection ends or is taken over, and another one begins.
    fn reconnect(&mut self, choices: &mut Choices<'_>) {
        let mut connect = Connect::new(choices.pick(&VERSIONS), choices.pick(&["c", ""]));
        connect.clean_start = choices.below(4) == 0;
        connect.keep_alive = choices.pick(&[0, 1, 60]);
        if connect.version == Version::V5 {
            connect.properties.receive_maximum = NonZeroU16::new(choices.pick(&[0, 1, 3]));
            connect.properties.maximum_packet_size = NonZeroU32::new(choices.pick(&[0, 0, 40, 8]));
            connect.properties.topic_alias_maximum = choices.pick(&[0, 1, 9]);
            connect.properties.authentication_method = choices.flag().then_some("m");
        }
        if choices.flag() {
            self.server.handle_closed(now(self.time));
            self.poll_events();
        }
        self.open();
        Packet::Connect(connect)
            .encode(connect.version, &mut self.unread)
            .expect("a packet");
    }

    fn open(&mut self) {
        self.poll_events();
        let new = ServerConnection::new(Arc::clone(&self.config), now(self.time));
        let old = std::mem::replace(&mut self.server, new);
        self.session = self.session.take().or(old.into_session());
        self.unread.clear();
        self.requests.clear();
        self.is_over = false;
        self.sending.reconnect();
        self.receiving.reconnect();
        self.client = Client::default();
    }

    /// A packet of the client.
    fn send(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.below(16);
        if kind < 4 && self.client.is_connected {
            // What the client owes, all at once.
            self.unread.append(&mut self.client.answers);
            return;
        }
        let version = self.server.version();
        let (id, reason) = (choices.packet_id(), choices.pick(&REASON_CODES));
        let ack = Ack::with_reason(id, reason);
        let filter = TopicFilter::new("a").expect("one");
        let filters = vec![filter; 1 + choices.below(3)];
        let options = SubscriptionOptions::new(choices.pick(&QOS));
        let subscriptions: Vec<_> = filters
            .iter()
            .map(|filter| SubscribeFilter {
                topic_filter: *filter,
                options,
            })
            .collect();
        let packet = match kind {
            0..=3 => Packet::Pingreq,
            4 => Packet::Puback(ack),
            5 => Packet::Pubrec(ack),
            6 => Packet::Pubcomp(ack),
            7 => Packet::Pubrel(Ack::new(id)),
            8..=11 => {
                let delivery = match choices.pick(&QOS) {
                    QoS::AtMostOnce => Delivery::AtMostOnce,
                    QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
                    QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
                };
                let mut publish =
                    Publish::new(TopicName::new("a").expect("one"), delivery, b"payload");
                publish.topic_name = TopicName::new(choices.pick(&TOPICS)).ok();
                publish.topic_alias = NonZeroU16::new(choices.pick(&[0, 0, 1, 9]));
                publish.dup = choices.flag();
                Packet::Publish(publish)
            }
            12 => Packet::Subscribe(Subscribe::new(id, &subscriptions)),
            13 => Packet::Unsubscribe(Unsubscribe::new(id, &filters)),
            14 => Packet::Auth(Auth::new(reason, "m")),
            _ => {
                let mut disconnect = Disconnect::new(reason);
                disconnect.session_expiry_interval = choices.flag().then_some(9);
                Packet::Disconnect(disconnect)
            }
        };
        let mut bytes = Vec::new();
        if packet.encode(version, &mut bytes).is_ok() {
            self.unread.extend_from_slice(&bytes);
        }
    }

    /// Reads, writes, and looks at what comes out.
    fn run(&mut self) {
        let now = now(self.time);
        loop {
            let unread = std::mem::take(&mut self.unread);
            let paused = self.server.is_paused();
            let reads = self.server.is_connected();
            let input = self.server.handle_input(&unread, now);
            let (consumed, packets) = (input.consumed, input.packets);
            assert!(consumed <= unread.len());
            assert!(consumed == 0 || !paused, "read while paused");
            if let Some(event) = input.event {
                self.on_event(event);
            }
            let version = self.server.version();
            let mut read = &unread[..consumed];
            for _ in 0..packets {
                let Ok(Some(packet)) = Packet::decode_next(&mut read, version, u32::MAX) else {
                    break;
                };
                self.client.on_sent(&packet);
                if reads {
                    self.sending.on_read(&packet);
                    self.receiving.on_read(&packet);
                }
                if reads || matches!(packet, Packet::Connect(_)) {
                    self.read_at = self.time;
                }
            }
            self.unread = unread;
            self.unread.drain(..consumed);
            self.poll_events();
            if consumed == 0 {
                break;
            }
        }
        if !self.frozen {
            self.transmit();
        }
        let limits = self.config.limits.clone();
        if self.fetch.is_none()
            && let Some(session) = self.session_mut()
        {
            self.fetch = session.poll_fetch(&limits);
        }
    }

    fn transmit(&mut self) {
        let now = now(self.time);
        let mut out = TransmitBuf::new(128);
        loop {
            let more = self.server.poll_transmit(now, &mut out);
            let version = self.server.version();
            take_packets(&mut out, version, |packet, len| {
                self.client.on_received(&packet, len, version);
                self.on_sent(&packet);
            });
            self.poll_events();
            if !more {
                break;
            }
        }
    }

    /// What the server sends is what it may send then.
    fn on_sent(&mut self, packet: &Packet<'_>) {
        let committed = CommitId::new(self.committed);
        self.receiving.on_sent(packet, committed);
        match packet {
            Packet::Publish(publish) => {
                self.sending.on_publish(publish);
                let number = number_of(publish);
                let message = &self.messages[number];
                assert!(message.gate <= Some(committed), "{number} is not stored");
                let topic = self.client.aliases.topic(publish);
                assert_eq!(topic, message.topic, "{publish:?}");
                let version = self.server.version();
                check_expiry(publish, message.expires_at, self.time, version);
                if !publish.dup {
                    let last = &mut self.last_sent[publish.qos() as usize];
                    assert!(*last < Some(number), "{number} comes after {last:?}");
                    *last = Some(number);
                }
            }
            Packet::Pubrel(ack) => {
                let number = self.sending.on_pubrel(ack.packet_id);
                if let Some(number) = number.filter(|it| self.messages[*it].gate.is_some()) {
                    let gate = self.releases.get(&number);
                    let gate = gate.unwrap_or_else(|| panic!("{ack:?} before it is stored"));
                    assert!(*gate <= Some(committed), "{ack:?} before its commit");
                }
            }
            _ => {}
        }
    }

    fn on_event(&mut self, event: ServerEvent<'_>) {
        match event {
            ServerEvent::Connect(connect) => {
                self.client.on_connect(&connect, &self.config);
                if connect.client_id.is_empty()
                    && connect.properties.authentication_method.is_some()
                {
                    // Answered by a step of its own.
                    return;
                }
                self.accept(connect.clean_start);
            }
            ServerEvent::Publish {
                token: Some(token), ..
            } => {
                self.tokens.push(token);
                self.receiving.on_message(token);
            }
            ServerEvent::Subscribe(subscribe) => self.requests.push(Request {
                packet_id: subscribe.packet_id,
                filters: subscribe.filters.len(),
                subscribes: true,
            }),
            ServerEvent::Unsubscribe(unsubscribe) => self.requests.push(Request {
                packet_id: unsubscribe.packet_id,
                filters: unsubscribe.filters.len(),
                subscribes: false,
            }),
            ServerEvent::Auth(_) if self.server.awaits_answer() && self.commits % 2 == 0 => {
                let clean_start = self.server.clean_start();
                self.accept(clean_start);
            }
            ServerEvent::Auth(_) => {
                let _ = self.server.reauthenticated(Authentication::default());
            }
            _ => {}
        }
    }

    fn accept(&mut self, clean_start: bool) {
        if !self.server.awaits_answer() {
            return;
        }
        if clean_start {
            self.session = Some(Box::default());
            self.store.clear();
            self.fetch = None;
            self.pubrecs.clear();
            self.pubrels.clear();
            self.tokens.clear();
            self.sending = Sending::default();
            self.receiving = Receiving::new(true);
        }
        let session = self.session.take().unwrap_or_default();
        let accept = Accept {
            session_present: !clean_start,
            assigned_client_id: self.server.client_id().is_empty().then_some("assigned"),
            ..Accept::default()
        };
        self.server.accept(session, accept, now(self.time));
        self.tell_committed();
    }

    fn poll_events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            assert!(!self.is_over, "{event:?} after the last");
            match event {
                ConnectionEvent::Closed(reason) => {
                    if reason == CloseReason::KeepAliveTimeout {
                        let silence = self.time - self.read_at;
                        let keep_alive = u64::from(self.client.keep_alive) * 1_500;
                        assert!(silence >= keep_alive, "closed after {silence} ms");
                    }
                    self.is_over = true;
                    self.client.is_over = true;
                    assert_eq!(self.server.poll_timeout(), None);
                }
                ConnectionEvent::Finished { sequence, .. } => {
                    assert!(
                        self.store.remove(&sequence).is_some(),
                        "{sequence} ended twice"
                    );
                }
                ConnectionEvent::Dropped(dropped) => {
                    self.drop_stored(dropped.qos, dropped.sequence);
                }
                ConnectionEvent::Pubrec { sequence, .. } => self.pubrecs.push(sequence),
                ConnectionEvent::Pubrel { packet_id } => {
                    self.receiving.on_release(packet_id);
                    self.pubrels.push(packet_id);
                }
                other => panic!("{other:?} is new"),
            }
        }
    }

    /// A client that keeps the rules gets everything in the end.
    fn settle(&mut self) {
        self.frozen = false;
        self.server.handle_closed(now(self.time));
        self.open();
        let mut connect = Connect::new(Version::V5, "c");
        connect.clean_start = false;
        connect.properties.topic_alias_maximum = 9;
        Packet::Connect(connect)
            .encode(Version::V5, &mut self.unread)
            .expect("a packet");
        for id in self
            .session
            .as_deref()
            .into_iter()
            .flat_map(Session::received)
        {
            Packet::Pubrel(Ack::new(id))
                .encode(Version::V5, &mut self.unread)
                .expect("a packet");
        }
        for _ in 0..10_000 {
            self.run();
            self.committed = self.commits;
            self.tell_committed();
            for token in std::mem::take(&mut self.tokens) {
                self.acknowledge(token, ReasonCode::Success, None);
            }
            for sequence in std::mem::take(&mut self.pubrecs) {
                self.release(sequence, None);
            }
            for id in std::mem::take(&mut self.pubrels) {
                self.complete(id, None);
            }
            self.fetch(0, false);
            self.unread.append(&mut self.client.answers);
            let empty = self.server.session().is_some_and(Session::is_empty);
            if empty && self.unread.is_empty() {
                return;
            }
        }
        panic!("{:?} with {:?} left", self.server, self.unread);
    }
}

impl Client {
    fn on_connect(&mut self, connect: &Connect<'_>, config: &ServerConfig) {
        let v5 = connect.version == Version::V5;
        let properties = &connect.properties;
        self.receive_maximum = match properties.receive_maximum {
            Some(maximum) if v5 => maximum.get().into(),
            None if v5 => 65_535,
            _ => config.limits.inflight.into(),
        };
        self.maximum_packet_size = properties.maximum_packet_size;
        self.aliases.maximum = properties.topic_alias_maximum;
        let longest = config.keep_alive_max.map_or(u16::MAX, NonZeroU16::get);
        self.keep_alive = match connect.keep_alive {
            0 => longest,
            keep_alive if v5 => keep_alive.min(longest),
            keep_alive => keep_alive,
        };
    }

    /// A packet of the server.
    fn on_received(&mut self, packet: &Packet<'_>, len: usize, version: Version) {
        assert!(!self.is_over, "{packet:?} after the end");
        let maximum = self.maximum_packet_size.map_or(u32::MAX, NonZeroU32::get);
        assert!(len <= maximum as usize, "{packet:?} is too large");
        let mut answer = |packet: Packet<'_>| {
            packet.encode(version, &mut self.answers).expect("a packet");
        };
        match packet {
            Packet::Connack(Connack { reason_code, .. }) => {
                assert!(!self.is_connected, "second CONNACK");
                self.is_connected = true;
                self.is_over = reason_code.is_error();
                return;
            }
            Packet::Auth(_) => return,
            _ => assert!(self.is_connected, "{packet:?} before CONNACK"),
        }
        match packet {
            Packet::Publish(publish) => {
                let id = match publish.delivery {
                    Delivery::AtMostOnce => return,
                    Delivery::AtLeastOnce(id) => {
                        answer(Packet::Puback(Ack::new(id)));
                        id
                    }
                    Delivery::ExactlyOnce(id) => {
                        answer(Packet::Pubrec(Ack::new(id)));
                        id
                    }
                };
                assert!(self.outstanding.insert(id), "{id:?} is in use");
                assert!(self.outstanding.len() <= self.receive_maximum);
            }
            Packet::Pubrel(ack) => answer(Packet::Pubcomp(Ack::new(ack.packet_id))),
            Packet::Pubrec(ack) if !ack.reason_code.is_error() => {
                answer(Packet::Pubrel(Ack::new(ack.packet_id)));
            }
            Packet::Disconnect(_) => self.is_over = true,
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Pingreq => panic!("a server sent {packet:?}"),
            _ => {}
        }
    }

    /// A packet that the server has read.
    fn on_sent(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                self.outstanding.remove(&ack.packet_id);
            }
            Packet::Pubrec(ack) if ack.reason_code.is_error() => {
                self.outstanding.remove(&ack.packet_id);
            }
            _ => {}
        }
    }
}

fn number_in(outgoing: &Outgoing) -> usize {
    let payload = outgoing.message.payload();
    u32::from_be_bytes(payload[..4].try_into().expect("a number")) as usize
}
