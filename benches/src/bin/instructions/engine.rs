//! One shard of the broker between the bytes of publishers and those for subscribers, which answer
//! what they get.

use std::collections::VecDeque;
use std::sync::Arc;

use avocet_codec::{
    Connect, Packet, QoS, Subscribe, SubscribeFilter, TopicFilter, Unsubscribe, Version, frame_len,
};
use avocet_engine::{Command, ConnectionId, Engine, EngineConfig, Opened, ShardId};
use avocet_session::{Now, TransmitBuf};

use crate::{MESSAGES, VERSIONS, Work, encoded, packet_id, publishes};

const TOPIC: &str = "site/1/line/2/dev/3/metric";

pub(crate) fn works() -> Vec<Work> {
    let mut works = Vec::new();
    for version in VERSIONS {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            works.push(Work::new(
                format!("engine pairs q{qos} {version}"),
                MESSAGES.into(),
                move || deliver(version, qos, &[TOPIC]),
            ));
        }
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let receivers = 250;
        works.push(Work::new(
            format!("engine fan-out q{qos}, per delivery"),
            receivers * u32::from(MESSAGES),
            move || deliver(Version::V3_1_1, qos, &vec![TOPIC; receivers as usize]),
        ));
        let group = ["$share/group/site/1/#"; 4];
        works.push(Work::new(
            format!("engine shared q{qos}"),
            MESSAGES.into(),
            move || deliver(Version::V5, qos, &group),
        ));
    }
    works.push(Work::new("engine connect", 32, || {
        let mut broker = Broker::new();
        move || {
            for _ in 0..32 {
                let id = broker.connect(Version::V3_1_1);
                broker.engine.handle_closed(id, broker.now);
                broker.turn();
            }
        }
    }));
    works.push(Work::new("engine subscribe and unsubscribe", 32, || {
        let mut broker = Broker::new();
        let id = broker.connect(Version::V5);
        move || {
            for n in 0..32 {
                broker.subscribe(id, Version::V5, &format!("site/{n}/+/metric"));
            }
            for n in 0..32 {
                let filter = format!("site/{n}/+/metric");
                let filters = [TopicFilter::new(&filter).unwrap()];
                let unsubscribe = Unsubscribe::new(packet_id(1), &filters);
                broker.feed(id, &encoded(Version::V5, &Packet::Unsubscribe(unsubscribe)));
                broker.turn();
            }
        }
    }));
    works
}

/// A turn of messages of one publisher, to a subscriber of each of the filters.
fn deliver(version: Version, qos: QoS, filters: &[&str]) -> impl FnMut() + use<> {
    let mut broker = Broker::new();
    for filter in filters {
        let id = broker.connect(version);
        broker.subscribe(id, version, filter);
    }
    let publisher = broker.connect(version);
    let input = publishes(version, TOPIC, qos);
    move || {
        let delivered = broker.delivered;
        broker.feed(publisher, &input);
        broker.turn();
        assert!(broker.delivered - delivered >= u64::from(MESSAGES));
    }
}

struct Broker {
    engine: Engine,
    now: Now,
    connections: u64,
    out: TransmitBuf,
    flushes: VecDeque<ConnectionId>,
    /// What clients answer.
    answers: Vec<u8>,
    /// PUBLISH packets that clients got.
    delivered: u64,
}

impl Broker {
    fn new() -> Self {
        let mut config = EngineConfig::default();
        config.sys_interval = None;
        let now = Now::default();
        Self {
            engine: Engine::new(Arc::new(config), ShardId::new(0), 1, 1, now),
            now,
            connections: 0,
            out: TransmitBuf::new(1 << 20),
            flushes: VecDeque::new(),
            answers: Vec::new(),
            delivered: 0,
        }
    }

    fn connect(&mut self, version: Version) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId::new(ShardId::new(0), self.connections);
        self.engine.handle_opened(id, Opened::default(), self.now);
        let client_id = format!("client {}", self.connections);
        let connect = Connect::new(version, &client_id);
        self.feed(id, &encoded(version, &Packet::Connect(connect)));
        self.turn();
        id
    }

    fn subscribe(&mut self, id: ConnectionId, version: Version, filter: &str) {
        let filters = [SubscribeFilter::new(
            TopicFilter::new(filter).unwrap(),
            QoS::ExactlyOnce,
        )];
        let subscribe = Subscribe::new(packet_id(1), &filters);
        self.feed(id, &encoded(version, &Packet::Subscribe(subscribe)));
        self.turn();
    }

    fn feed(&mut self, id: ConnectionId, mut input: &[u8]) {
        while !input.is_empty() {
            let (consumed, _) = self.engine.handle_input(id, input, self.now);
            assert!(consumed > 0, "the engine stopped reading");
            input = &input[consumed..];
        }
    }

    /// Carries out all commands, and lets clients answer.
    fn turn(&mut self) {
        loop {
            while let Some(command) = self.engine.poll_command() {
                if let Command::Flush(id) = command {
                    self.flushes.push_back(id);
                }
            }
            let Some(id) = self.flushes.pop_front() else {
                return;
            };
            let mut more = true;
            while more {
                more = self.engine.poll_transmit(id, self.now, &mut self.out);
                for packets in self.out.slices() {
                    self.delivered += answer(packets, &mut self.answers);
                }
                self.out.clear();
            }
            if !self.answers.is_empty() {
                let answers = std::mem::take(&mut self.answers);
                self.feed(id, &answers);
                self.answers = answers;
                self.answers.clear();
            }
        }
    }
}

/// Acknowledges what asks for it, at the cost of a few instructions; the number of PUBLISH packets.
fn answer(mut packets: &[u8], answers: &mut Vec<u8>) -> u64 {
    let mut delivered = 0;
    while let Ok(Some(len)) = frame_len(packets, u32::MAX) {
        let (packet, behind) = packets.split_at(len);
        let packet_type = packet[0] >> 4;
        let first_byte = match (packet_type, packet[0] >> 1 & 0b11) {
            // PUBLISH of QoS 1 and 2, PUBREC and PUBREL.
            (3, 1) => Some(0x40),
            (3, 2) => Some(0x50),
            (5, _) => Some(0x62),
            (6, _) => Some(0x70),
            _ => None,
        };
        let is_publish = packet_type == 3;
        delivered += u64::from(is_publish);
        if let Some(first_byte) = first_byte {
            // All packets here are short enough for a Remaining Length of up to two bytes.
            let body = if packet[1] < 0x80 { 2 } else { 3 };
            let topic_len = usize::from(packet[body + 1]);
            let id = if is_publish {
                body + 2 + topic_len
            } else {
                body
            };
            answers.extend_from_slice(&[first_byte, 2, packet[id], packet[id + 1]]);
        }
        packets = behind;
    }
    delivered
}
