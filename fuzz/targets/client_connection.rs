//! An application and a server that do anything in any order, over many connections with one
//! Session. What the client sends are whole packets that it may send then: CONNECT first, nothing
//! after DISCONNECT, within what CONNACK allows, no Packet Identifier twice. The end of each message
//! of QoS 1 and 2 is told once. With a server that keeps the rules everything settles.
//!
//! The input is a list of steps: what is done, and what is needed for it. The server's packets are
//! made of choices, or are raw bytes.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};

use avocet_codec::{
    Ack, Auth, Connack, Delivery, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, Suback,
    SubscribeFilter, SubscriptionId, SubscriptionOptions, TopicFilter, TopicName, Unsuback,
    UserProperty, Version,
};
use avocet_fuzz::{
    Aliases, Choices, QOS, REASON_CODES, Receiving, Sending, VERSIONS, check_expiry, expires_at,
    now, number_of, plant, take_packets,
};
use avocet_session::client::{
    Authentication, ClientConfig, ClientConnection, ClientEvent, ClientNotice, PublishId,
};
use avocet_session::{AckToken, CommitId, Limits, Message, Overflow, Session, TransmitBuf};
use libfuzzer_sys::fuzz_target;

const TOPICS: [&str; 4] = ["a", "a/b", "\u{e9}/c", ""];
const FILTERS: [&str; 5] = ["a", "+/b", "#", "$share/g/a", "$share//"];

fuzz_target!(init: plant(), |input: &[u8]| {
    let mut choices = Choices::new(input);
    let limits = Limits {
        inflight: choices.pick(&[1, 2, 32]),
        queued_messages_max: choices.pick(&[2, 8, 1_000]),
        overflow: choices.pick(&[Overflow::DropNewest, Overflow::DropOldest]),
        queue_qos0: choices.flag(),
        topic_aliases: choices.pick(&[0, 2]),
        ..Limits::default()
    };
    let version = choices.pick(&VERSIONS);
    let mut world = World::new(config(version, limits, &mut choices));
    while !choices.is_empty() {
        world.step(&mut choices);
    }
    world.settle();
});

fn config(version: Version, limits: Limits, choices: &mut Choices<'_>) -> ClientConfig {
    let mut config = ClientConfig::new(version, choices.pick(&["c", ""]));
    config.limits = limits;
    config.clean_start = choices.flag();
    config.session_known = choices.flag();
    config.keep_alive = choices.pick(&[0, 1, 60]);
    config.receive_maximum = choices.pick(&[u16::MAX, 1, 3, 0]);
    config.maximum_packet_size = choices.pick(&[1 << 20, 64, 20]);
    config.topic_alias_maximum = choices.pick(&[0, 1, 5]);
    if choices.flag() {
        config.session_expiry_interval = choices.pick(&[1, 60, u32::MAX]);
    }
    config.authentication = choices.flag().then(|| Authentication {
        method: "m".into(),
        data: None,
    });
    config
}

struct World {
    config: ClientConfig,
    client: ClientConnection,
    time: u64,
    /// Sent by the server, not read by the client.
    unread: Vec<u8>,
    tokens: Vec<AckToken>,
    /// Messages of QoS 1 and 2 whose end was not told, and their numbers.
    unfinished: BTreeMap<PublishId, usize>,
    /// All messages, and from when on they are not sent; the payload is the number.
    published: Vec<(&'static str, Option<u64>)>,
    /// The number of the last message that was sent for the first time, for each QoS.
    last_sent: [Option<usize>; 3],
    sending: Sending,
    receiving: Receiving,
    frozen: bool,
    server: Server,
}

/// What a server sees on one connection.
#[derive(Default)]
struct Server {
    connects: usize,
    is_over: bool,
    told_closed: bool,
    /// PUBLISH packets not completely acknowledged, with their QoS.
    outstanding: BTreeMap<PacketId, QoS>,
    requests: BTreeSet<PacketId>,
    /// Answers to what had not come: such a request may be on its way, and its identifier is free.
    answered_early: BTreeSet<PacketId>,
    aliases: Aliases,
    receive_maximum: usize,
    maximum_packet_size: usize,
    answers: Vec<u8>,
}

impl World {
    fn new(config: ClientConfig) -> Self {
        Self {
            client: ClientConnection::new(config.clone(), Session::new(), now(0)),
            config,
            time: 0,
            unread: Vec::new(),
            tokens: Vec::new(),
            unfinished: BTreeMap::new(),
            published: Vec::new(),
            last_sent: [None; 3],
            sending: Sending::default(),
            receiving: Receiving::new(false),
            frozen: false,
            server: Server::default(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let now = now(self.time);
        match choices.below(16) {
            0 => self.publish(choices),
            1 => {
                let filter = choices.pick(&FILTERS);
                let mut options = SubscriptionOptions::new(choices.pick(&QOS));
                options.no_local = choices.flag();
                let id = choices.flag().then(|| SubscriptionId::new(7));
                let user_properties = [UserProperty {
                    name: "n",
                    value: "v",
                }];
                let Ok(topic_filter) = TopicFilter::new(filter) else {
                    return;
                };
                let filters = vec![
                    SubscribeFilter {
                        topic_filter,
                        options
                    };
                    choices.below(4)
                ];
                let user_properties = &user_properties[..choices.below(2)];
                let _ = self
                    .client
                    .subscribe(&filters, id.flatten(), user_properties);
            }
            2 => {
                let Ok(filter) = TopicFilter::new(choices.pick(&FILTERS)) else {
                    return;
                };
                let filters = vec![filter; choices.below(4)];
                let _ = self.client.unsubscribe(&filters, &[]);
            }
            3 if !self.tokens.is_empty() => {
                let token = self.tokens.swap_remove(choices.below(self.tokens.len()));
                let reason = choices.pick(&REASON_CODES);
                // Behind DISCONNECT it may leave all the same.
                let _ = self.client.acknowledge(token, reason);
                self.receiving.on_answer(token, None);
            }
            4 => {
                let mut disconnect = Disconnect::new(choices.pick(&REASON_CODES));
                disconnect.session_expiry_interval = choices.flag().then_some(9);
                let _ = self.client.disconnect(&disconnect, now);
            }
            5 => {
                let _ = self.client.authenticate(Some(b"x"));
            }
            6 => {
                let _ = self.client.reauthenticate(None);
            }
            7 => {
                self.frozen = choices.flag();
                if choices.flag() {
                    self.client.pause();
                } else {
                    self.client.resume(now);
                }
            }
            8 => self.pass(choices.millis()),
            9 => {
                // To the next timer.
                if let Some(timeout) = self.client.poll_timeout() {
                    self.pass_until(timeout.at.as_nanos() / 1_000_000 + 1);
                }
            }
            10 => {
                let limits = self.config.limits.clone();
                let config = config(self.config.version, limits, choices);
                self.reconnect(config);
            }
            11 => self.unread.extend_from_slice(choices.bytes()),
            _ => self.serve(choices),
        }
        self.run();
    }

    fn publish(&mut self, choices: &mut Choices<'_>) {
        let name = choices.pick(&TOPICS);
        let Ok(topic) = TopicName::new(name) else {
            return;
        };
        let number = self.published.len();
        let mut payload = (number as u32).to_be_bytes().to_vec();
        payload.resize(4 + choices.pick(&[0, 0, 100]), 0);
        let now = now(self.time);
        let expiry = choices.pick(&[None, None, Some(0), Some(2)]);
        let message = Message::new(topic, &payload)
            .with_qos(choices.pick(&QOS))
            .with_retain(choices.flag())
            .with_expiry(expiry, now.unix);
        if let Ok(id) = self.client.publish(message, now) {
            self.published.push((name, expires_at(expiry, self.time)));
            if let Some(id) = id {
                let old = self.unfinished.insert(id, number);
                assert_eq!(old, None, "{id:?} is not new");
            }
        }
    }

    /// A packet of the server.
    fn serve(&mut self, choices: &mut Choices<'_>) {
        let reason = choices.pick(&REASON_CODES);
        let id = choices.packet_id();
        let mut ack = Ack::new(id);
        if choices.flag() {
            ack.reason_code = reason;
        }
        let kind = choices.below(12);
        if kind < 3 && self.server.connects > 0 {
            // What the server owes, in any order.
            self.unread.append(&mut self.server.answers);
            return;
        }
        let reasons = vec![reason; choices.below(4)];
        let packet = match kind {
            0..=3 => {
                let mut connack = Connack::new(if choices.below(8) == 0 {
                    reason
                } else {
                    ReasonCode::Success
                });
                connack.session_present = choices.flag();
                let properties = &mut connack.properties;
                properties.receive_maximum = NonZeroU16::new(choices.pick(&[0, 1, 3]));
                properties.maximum_packet_size = NonZeroU32::new(choices.pick(&[0, 0, 40]));
                properties.topic_alias_maximum = choices.pick(&[0, 1, 4]);
                properties.maximum_qos = choices.pick(&[QoS::ExactlyOnce, QoS::AtLeastOnce]);
                properties.retain_available = !choices.flag();
                properties.server_keep_alive = choices.pick(&[None, Some(0), Some(5)]);
                Packet::Connack(connack)
            }
            4 => Packet::Puback(ack),
            5 => Packet::Pubrec(ack),
            6 => Packet::Pubcomp(ack),
            7 => Packet::Pubrel(Ack::new(id)),
            8 => {
                let delivery = match choices.pick(&QOS) {
                    QoS::AtMostOnce => Delivery::AtMostOnce,
                    QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
                    QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
                };
                let topic = TopicName::new(choices.pick(&TOPICS)).ok();
                let mut publish =
                    Publish::new(TopicName::new("a").expect("one"), delivery, b"payload");
                publish.topic_name = topic;
                publish.topic_alias = NonZeroU16::new(choices.pick(&[0, 1, 2, 9]));
                publish.dup = choices.flag();
                Packet::Publish(publish)
            }
            9 => Packet::Suback(Suback::new(id, &reasons)),
            10 => Packet::Unsuback(Unsuback::new(id, &reasons)),
            _ => match choices.below(4) {
                0 => Packet::Pingresp,
                1 => Packet::Auth(Auth::new(reason, "m")),
                2 => Packet::Disconnect(Disconnect::new(reason)),
                _ => Packet::Pingreq,
            },
        };
        // What the version has no way to say is not said.
        let mut bytes = Vec::new();
        if packet.encode(self.config.version, &mut bytes).is_ok() {
            self.unread.extend_from_slice(&bytes);
        }
    }

    fn pass(&mut self, millis: u64) {
        self.pass_until(self.time + millis);
    }

    fn pass_until(&mut self, time: u64) {
        self.time = self.time.max(time);
        self.client.handle_timeout(now(self.time));
    }

    /// Reads, writes, and looks at what comes out.
    fn run(&mut self) {
        let now = now(self.time);
        loop {
            let unread = std::mem::take(&mut self.unread);
            let reads = self.client.is_connected();
            let input = self.client.handle_input(&unread, now);
            let consumed = input.consumed;
            assert!(consumed <= unread.len());
            if let Some(event) = input.event {
                self.on_event(event);
            }
            if let Ok(packet) = Packet::decode(&unread[..consumed], self.config.version) {
                self.server.on_sent(&packet, &self.config);
                if reads {
                    self.sending.on_read(&packet);
                    self.receiving.on_read(&packet);
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
            let mut out = TransmitBuf::new(256);
            loop {
                let more = self.client.poll_transmit(now, &mut out);
                take_packets(&mut out, self.config.version, |packet, len| {
                    self.server.on_received(&packet, len, &self.config);
                    self.on_sent(&packet);
                });
                if !more {
                    break;
                }
            }
            self.poll_events();
        }
        let limits = &self.config.limits;
        assert!(self.client.session().queued() <= limits.queued_messages_max);
    }

    /// What the client sends is what it may send then.
    fn on_sent(&mut self, packet: &Packet<'_>) {
        self.receiving.on_sent(packet, CommitId::ZERO);
        match packet {
            Packet::Publish(publish) => {
                self.sending.on_publish(publish);
                let number = number_of(publish);
                let (topic, expires_at) = self.published[number];
                assert_eq!(self.server.aliases.topic(publish), topic, "{publish:?}");
                check_expiry(publish, expires_at, self.time, self.config.version);
                if !publish.dup {
                    let last = &mut self.last_sent[publish.qos() as usize];
                    assert!(*last < Some(number), "{number} comes after {last:?}");
                    *last = Some(number);
                }
            }
            Packet::Pubrel(ack) => {
                self.sending.on_pubrel(ack.packet_id);
            }
            _ => {}
        }
    }

    fn on_event(&mut self, event: ClientEvent<'_>) {
        match event {
            ClientEvent::Publish {
                token: Some(token), ..
            } => {
                self.tokens.push(token);
                self.receiving.on_message(token);
            }
            ClientEvent::Published { id, .. } => {
                assert!(self.unfinished.remove(&id).is_some(), "{id:?} ended twice");
            }
            _ => {}
        }
    }

    fn poll_events(&mut self) {
        while let Some(notice) = self.client.poll_event() {
            assert!(!self.server.told_closed, "{notice:?} after the last");
            match notice {
                ClientNotice::Closed(_) => {
                    self.server.told_closed = true;
                    self.server.is_over = true;
                    assert_eq!(self.client.poll_timeout(), None);
                }
                ClientNotice::NotPublished { id: Some(id), .. } => {
                    let number = self.unfinished.remove(&id);
                    let number = number.unwrap_or_else(|| panic!("{id:?} ended twice"));
                    self.sending.forget(number);
                }
                _ => {}
            }
        }
    }

    fn reconnect(&mut self, config: ClientConfig) {
        self.client.handle_closed();
        self.poll_events();
        assert!(self.server.told_closed);
        // What happens before the Session moves on belongs to the old connection.
        let mut out = TransmitBuf::new(256);
        assert!(!self.client.poll_transmit(now(self.time), &mut out) && out.is_empty());
        let closed = ClientConnection::new(config.clone(), Session::new(), now(self.time));
        let session = std::mem::replace(&mut self.client, closed).into_session();
        self.client = ClientConnection::new(config.clone(), session, now(self.time));
        self.config = config;
        self.unread.clear();
        self.sending.reconnect();
        self.receiving.reconnect();
        self.server = Server::default();
    }

    /// A server that keeps the rules has everything in the end.
    fn settle(&mut self) {
        let mut config = ClientConfig::new(self.config.version, "c");
        config.limits = self.config.limits.clone();
        config.clean_start = false;
        config.session_known = true;
        self.frozen = false;
        self.reconnect(config);
        let mut connack = Connack::new(ReasonCode::Success);
        // 3.1 has no such flag.
        connack.session_present = self.config.version != Version::V3_1;
        if self.config.version == Version::V5 {
            connack.properties.topic_alias_maximum = 4;
        }
        let packet = Packet::Connack(connack);
        packet
            .encode(self.config.version, &mut self.unread)
            .expect("a packet");
        let received: Vec<_> = self.client.session().received().collect();
        for id in received {
            let pubrel = Packet::Pubrel(Ack::new(id));
            pubrel
                .encode(self.config.version, &mut self.unread)
                .expect("a packet");
        }
        for _ in 0..10_000 {
            self.run();
            if self.unread.is_empty() && self.server.answers.is_empty() {
                break;
            }
            self.unread.append(&mut self.server.answers);
        }
        assert!(self.client.is_connected(), "{:?}", self.client);
        assert!(self.client.session().is_empty(), "{:?}", self.client);
        assert!(self.unfinished.is_empty(), "{:?}", self.unfinished);
    }
}

impl Server {
    /// A packet of the client.
    fn on_received(&mut self, packet: &Packet<'_>, len: usize, config: &ClientConfig) {
        assert!(!self.is_over, "{packet:?} after the end");
        assert_eq!(
            matches!(packet, Packet::Connect(_)),
            self.connects == 0,
            "{packet:?}"
        );
        if self.connects == 0 {
            self.maximum_packet_size = usize::MAX;
        }
        assert!(len <= self.maximum_packet_size || matches!(packet, Packet::Auth(_)));
        let mut answer = |packet: Packet<'_>| {
            packet
                .encode(config.version, &mut self.answers)
                .expect("a packet");
        };
        match packet {
            Packet::Connect(_) => self.connects += 1,
            Packet::Publish(publish) => {
                let (id, qos) = match publish.delivery {
                    Delivery::AtMostOnce => return,
                    Delivery::AtLeastOnce(id) => (id, QoS::AtLeastOnce),
                    Delivery::ExactlyOnce(id) => (id, QoS::ExactlyOnce),
                };
                assert!(!self.requests.contains(&id), "{id:?} is in use");
                assert_eq!(self.outstanding.insert(id, qos), None, "{id:?} is in use");
                assert!(self.outstanding.len() <= self.receive_maximum);
                match qos {
                    QoS::AtLeastOnce => answer(Packet::Puback(Ack::new(id))),
                    _ => answer(Packet::Pubrec(Ack::new(id))),
                }
            }
            Packet::Pubrel(ack) => answer(Packet::Pubcomp(Ack::new(ack.packet_id))),
            Packet::Pubrec(ack) if !ack.reason_code.is_error() => {
                answer(Packet::Pubrel(Ack::new(ack.packet_id)));
            }
            Packet::Subscribe(subscribe) => {
                let id = subscribe.packet_id;
                let codes = vec![ReasonCode::Success; subscribe.filters.len()];
                answer(Packet::Suback(Suback::new(id, &codes)));
                self.on_request(id);
            }
            Packet::Unsubscribe(unsubscribe) => {
                let id = unsubscribe.packet_id;
                let codes = vec![ReasonCode::Success; unsubscribe.filters.len()];
                answer(Packet::Unsuback(Unsuback::new(id, &codes)));
                self.on_request(id);
            }
            Packet::Pingreq => answer(Packet::Pingresp),
            Packet::Disconnect(_) => self.is_over = true,
            Packet::Puback(_) | Packet::Pubrec(_) | Packet::Pubcomp(_) | Packet::Auth(_) => {}
            other => panic!("a client sent {other:?}"),
        }
    }

    fn on_request(&mut self, id: PacketId) {
        assert!(!self.outstanding.contains_key(&id), "{id:?} is in use");
        if !self.answered_early.remove(&id) {
            assert!(self.requests.insert(id), "{id:?} is in use");
        }
    }

    /// A packet that the client has read.
    fn on_sent(&mut self, packet: &Packet<'_>, config: &ClientConfig) {
        match packet {
            Packet::Connack(connack) if self.receive_maximum == 0 => {
                let properties = &connack.properties;
                let v5 = config.version == Version::V5;
                self.receive_maximum = if v5 {
                    properties
                        .receive_maximum
                        .map_or(65_535, NonZeroU16::get)
                        .into()
                } else {
                    config.limits.inflight.into()
                };
                if let Some(maximum) = properties.maximum_packet_size {
                    self.maximum_packet_size = maximum.get() as usize;
                }
                self.aliases.maximum = properties.topic_alias_maximum;
            }
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                self.outstanding.remove(&ack.packet_id);
            }
            Packet::Pubrec(ack) if ack.reason_code.is_error() => {
                self.outstanding.remove(&ack.packet_id);
            }
            Packet::Suback(Suback { packet_id, .. })
            | Packet::Unsuback(Unsuback { packet_id, .. }) => {
                if !self.requests.remove(packet_id) {
                    self.answered_early.insert(*packet_id);
                }
            }
            _ => {}
        }
    }
}
