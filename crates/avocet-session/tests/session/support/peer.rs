use avocet_codec::{
    Ack, AckType, Connect, Delivery, Packet, PacketId, PacketType, Publish, QoS, ReasonCode,
    Version, frame_len,
};
use std::collections::{BTreeSet, HashMap};
use std::num::{NonZeroU16, NonZeroU32};

use super::{Seen, topic};

/// A client that keeps the rules, written without the code under test.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive: u16,
    pub(crate) receive_maximum: Option<NonZeroU16>,
    pub(crate) maximum_packet_size: Option<NonZeroU32>,
    pub(crate) topic_alias_maximum: u16,
    /// Whether it answers PUBLISH and PUBREL at once.
    pub(crate) answers: bool,
    pub(crate) connected: bool,
    pub(crate) session_present: bool,
    /// Bytes on their way to the server.
    pub(crate) output: Vec<u8>,
    input: Vec<u8>,
    /// Payloads its application got.
    pub(crate) received: Vec<String>,
    /// Everything the server sent on this connection.
    pub(crate) seen: Vec<Seen>,
    /// The last CONNACK or DISCONNECT, whole.
    pub(crate) last: Vec<u8>,
    next_id: u16,
    unacked: Vec<Unacked>,
    unreleased: BTreeSet<PacketId>,
    /// Of the server's PUBLISH packets on this connection.
    outstanding: BTreeSet<u16>,
    pub(crate) outstanding_max: usize,
    aliases: HashMap<u16, String>,
    pub(crate) topics: Vec<String>,
}

#[derive(Debug)]
struct Unacked {
    id: PacketId,
    qos: QoS,
    payload: String,
    released: bool,
    sent: bool,
}

impl Peer {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            clean_start: false,
            keep_alive: 0,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            answers: true,
            connected: false,
            session_present: false,
            output: Vec::new(),
            input: Vec::new(),
            received: Vec::new(),
            seen: Vec::new(),
            last: Vec::new(),
            next_id: 0,
            unacked: Vec::new(),
            unreleased: BTreeSet::new(),
            outstanding: BTreeSet::new(),
            outstanding_max: 0,
            aliases: HashMap::new(),
            topics: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.output).unwrap();
    }

    pub(crate) fn connect(&mut self) {
        let mut connect = Connect::new(self.version, "peer");
        connect.clean_start = self.clean_start;
        connect.keep_alive = self.keep_alive;
        if self.version == Version::V5 {
            connect.properties.session_expiry_interval = u32::MAX;
            connect.properties.receive_maximum = self.receive_maximum;
            connect.properties.maximum_packet_size = self.maximum_packet_size;
            connect.properties.topic_alias_maximum = self.topic_alias_maximum;
        }
        self.send(&Packet::Connect(connect));
    }

    /// The network is gone, with what was on it.
    pub(crate) fn cut(&mut self) {
        self.connected = false;
        self.input.clear();
        self.output.clear();
        self.seen.clear();
        self.outstanding.clear();
        self.aliases.clear();
        for unacked in &mut self.unacked {
            // What was written may have arrived.
            unacked.sent = true;
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unacked.is_empty() && self.unreleased.is_empty()
    }

    pub(crate) fn publish(&mut self, qos: QoS, payload: &str) {
        self.next_id += 1;
        let id = PacketId::new(self.next_id).unwrap();
        let unacked = Unacked {
            id,
            qos,
            payload: payload.to_owned(),
            released: false,
            sent: false,
        };
        if self.connected {
            self.send_publish(&unacked);
        }
        if qos != QoS::AtMostOnce {
            self.unacked.push(unacked);
        }
    }

    fn send_publish(&mut self, unacked: &Unacked) {
        let delivery = match unacked.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(unacked.id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(unacked.id),
        };
        let mut publish = Publish::new(topic("a/b"), delivery, unacked.payload.as_bytes());
        publish.dup = unacked.sent && unacked.qos != QoS::AtMostOnce;
        self.send(&Packet::Publish(publish));
    }

    pub(crate) fn ack(&mut self, ack_type: AckType, id: u16, reason: ReasonCode) {
        let ack = Ack::with_reason(PacketId::new(id).unwrap(), reason);
        self.send(&match ack_type {
            AckType::Puback => Packet::Puback(ack),
            AckType::Pubrec => Packet::Pubrec(ack),
            AckType::Pubrel => Packet::Pubrel(ack),
            AckType::Pubcomp => Packet::Pubcomp(ack),
        });
        if matches!(ack_type, AckType::Puback | AckType::Pubcomp) || reason.is_error() {
            self.outstanding.remove(&id);
        }
    }

    fn answer(&mut self, ack_type: AckType, id: PacketId) {
        if self.answers {
            self.ack(ack_type, id.get(), ReasonCode::Success);
        }
    }

    pub(crate) fn handle_input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(len) = frame_len(&self.input, u32::MAX).unwrap() {
            if self.input.len() < len {
                return;
            }
            let rest = self.input.split_off(len);
            let frame = std::mem::replace(&mut self.input, rest);
            if let Some(maximum) = self
                .maximum_packet_size
                .filter(|_| self.version == Version::V5)
            {
                assert!(frame.len() <= maximum.get() as usize, "[MQTT5-3.1.2-24]");
            }
            let packet = Packet::decode(&frame, self.version).unwrap();
            self.see(&packet);
            self.handle(&packet);
            if matches!(packet, Packet::Connack(_) | Packet::Disconnect(_)) {
                self.last = frame;
            }
        }
    }

    fn see(&mut self, packet: &Packet<'_>) {
        let mut seen = Seen {
            packet_type: packet.packet_type(),
            packet_id: 0,
            dup: false,
            reason: 0,
            payload: String::new(),
        };
        match packet {
            Packet::Publish(publish) => {
                seen.packet_id = publish.packet_id().map_or(0, PacketId::get);
                seen.dup = publish.dup;
                seen.payload = String::from_utf8_lossy(publish.payload).into_owned();
            }
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack) => {
                seen.packet_id = ack.packet_id.get();
                seen.reason = ack.reason_code as u8;
            }
            Packet::Suback(suback) => {
                seen.packet_id = suback.packet_id.get();
                seen.reason = suback.reason_codes.iter().next().unwrap() as u8;
            }
            Packet::Unsuback(unsuback) => seen.packet_id = unsuback.packet_id.get(),
            Packet::Connack(connack) => seen.reason = connack.reason_code as u8,
            Packet::Disconnect(disconnect) => seen.reason = disconnect.reason_code as u8,
            Packet::Auth(auth) => seen.reason = auth.reason_code as u8,
            _ => {}
        }
        self.seen.push(seen);
    }

    fn handle(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connack(connack) => {
                self.session_present = connack.session_present;
                if connack.reason_code == ReasonCode::Success {
                    self.connected = true;
                    self.resend();
                }
            }
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::Puback(ack) => {
                self.unacked.retain(|it| it.id != ack.packet_id);
            }
            Packet::Pubcomp(ack) => self.unacked.retain(|it| it.id != ack.packet_id),
            Packet::Pubrec(ack) => {
                if ack.reason_code.is_error() {
                    self.unacked.retain(|it| it.id != ack.packet_id);
                } else {
                    for it in self.unacked.iter_mut().filter(|it| it.id == ack.packet_id) {
                        it.released = true;
                    }
                    self.answer(AckType::Pubrel, ack.packet_id);
                }
            }
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                self.answer(AckType::Pubcomp, ack.packet_id);
            }
            _ => {}
        }
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) {
        let name = match (publish.topic_name, publish.topic_alias) {
            (Some(name), Some(alias)) => {
                assert!(alias.get() <= self.topic_alias_maximum, "[MQTT5-3.1.2-26]");
                self.aliases.insert(alias.get(), name.as_str().to_owned());
                name.as_str().to_owned()
            }
            (Some(name), None) => name.as_str().to_owned(),
            (None, alias) => self.aliases[&alias.unwrap().get()].clone(),
        };
        self.topics.push(name);
        let payload = String::from_utf8_lossy(publish.payload).into_owned();
        if let Some(id) = publish.packet_id() {
            // The server sends a message once on a connection.
            assert!(
                self.outstanding.insert(id.get()),
                "[MQTT5-2.2.1-4]: {id} in use twice"
            );
            self.outstanding_max = self.outstanding_max.max(self.outstanding.len());
            if let Some(maximum) = self.receive_maximum.filter(|_| self.version == Version::V5) {
                let maximum = usize::from(maximum.get());
                assert!(self.outstanding.len() <= maximum, "[MQTT5-3.3.4-9]");
            }
        }
        match publish.delivery {
            Delivery::AtMostOnce => self.received.push(payload),
            Delivery::AtLeastOnce(id) => {
                self.received.push(payload);
                self.answer(AckType::Puback, id);
            }
            Delivery::ExactlyOnce(id) => {
                if self.unreleased.insert(id) {
                    self.received.push(payload);
                }
                self.answer(AckType::Pubrec, id);
            }
        }
    }

    fn resend(&mut self) {
        let unacked = std::mem::take(&mut self.unacked);
        for it in &unacked {
            if it.released {
                self.ack(AckType::Pubrel, it.id.get(), ReasonCode::Success);
            } else {
                self.send_publish(it);
            }
        }
        self.unacked = unacked;
    }

    /// What the server sent since the last call: packet types with their identifiers.
    pub(crate) fn take_seen(&mut self) -> Vec<(PacketType, u16)> {
        self.seen
            .drain(..)
            .map(|seen| (seen.packet_type, seen.packet_id))
            .collect()
    }
}
