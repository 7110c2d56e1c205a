//! What an observer of one Session knows of its exchanges, over all its connections: what one side
//! has sent and read decides what it may send next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU16;

use avocet_codec::{Ack, Packet, PacketId, Publish, QoS, Version};
use avocet_session::{AckToken, CommitId};

/// The sending half: messages of QoS 1 and 2, each of which its payload numbers.
#[derive(Debug, Default)]
pub struct Sending {
    in_flight: BTreeMap<PacketId, InFlight>,
    /// PUBRECs of this connection for what is not in flight.
    unknown: BTreeSet<PacketId>,
}

#[derive(Debug)]
struct InFlight {
    number: usize,
    qos: QoS,
    is_received: bool,
    /// Whether PUBREL was sent since PUBREC came last.
    is_released: bool,
}

/// What stands for Topic Names on one connection.
#[derive(Debug, Default)]
pub struct Aliases {
    /// The Topic Alias Maximum that the other side was told.
    pub maximum: u16,
    names: BTreeMap<NonZeroU16, String>,
}

impl Aliases {
    /// The Topic Name of a packet that came; a new Topic Alias stands for it from here on.
    pub fn topic(&mut self, publish: &Publish<'_>) -> String {
        let alias = publish.topic_alias;
        let Some(name) = publish.topic_name else {
            let known = alias.and_then(|alias| self.names.get(&alias));
            return known.expect("a Topic Alias that is set").clone();
        };
        let name = name.as_str().to_owned();
        if let Some(alias) = alias {
            assert!(alias.get() <= self.maximum, "{publish:?}");
            self.names.insert(alias, name.clone());
        }
        name
    }
}

/// The number in a payload.
pub fn number_of(publish: &Publish<'_>) -> usize {
    let bytes = publish.payload[..4].try_into().expect("a number");
    u32::from_be_bytes(bytes) as usize
}

/// From when on a message is not sent for the first time, in milliseconds.
pub fn expires_at(interval: Option<u32>, time_ms: u64) -> Option<u64> {
    interval.map(|seconds| time_ms + (u64::from(seconds) * 1_000).max(1))
}

/// The Message Expiry Interval is what is left of it; nothing that is over is sent for the first
/// time.
pub fn check_expiry(
    publish: &Publish<'_>,
    expires_at: Option<u64>,
    time_ms: u64,
    version: Version,
) {
    let left = expires_at.map(|at| at.saturating_sub(time_ms));
    assert!(publish.dup || left != Some(0), "{publish:?} is over");
    if version == Version::V5 {
        let seconds = left.map(|left| left.saturating_sub(1).div_ceil(1_000) as u32);
        assert_eq!(publish.message_expiry_interval, seconds, "{publish:?}");
    }
}

impl Sending {
    pub fn reconnect(&mut self) {
        self.unknown.clear();
        for message in self.in_flight.values_mut() {
            message.is_released = false;
        }
    }

    pub fn is_in_flight(&self, number: usize) -> bool {
        self.in_flight.values().any(|it| it.number == number)
    }

    /// A message has ended without an acknowledgement.
    pub fn forget(&mut self, number: usize) {
        self.in_flight.retain(|_, message| message.number != number);
    }

    /// It is sent for the first time without DUP, and again as what it is, until it is received.
    pub fn on_publish(&mut self, publish: &Publish<'_>) {
        let (number, qos) = (number_of(publish), publish.qos());
        let Some(id) = publish.packet_id() else {
            assert!(!publish.dup, "DUP at QoS 0: {publish:?}");
            return;
        };
        if publish.dup {
            let message = self.in_flight.get(&id);
            let message = message.unwrap_or_else(|| panic!("{id} is new, with DUP: {publish:?}"));
            assert_eq!((message.number, message.qos), (number, qos), "{publish:?}");
            assert!(!message.is_received, "{publish:?} comes after PUBREC");
        } else {
            assert!(!self.is_in_flight(number), "no DUP: {publish:?}");
            let message = InFlight {
                number,
                qos,
                is_received: false,
                is_released: false,
            };
            let old = self.in_flight.insert(id, message);
            assert!(old.is_none(), "{id} is in use: {publish:?}");
        }
    }

    /// PUBREL is sent; the number of its message, unless it answers what is not known.
    pub fn on_pubrel(&mut self, id: PacketId) -> Option<usize> {
        let Some(message) = self.in_flight.get_mut(&id) else {
            assert!(self.unknown.contains(&id), "PUBREL {id} before PUBREC");
            return None;
        };
        assert!(message.is_received, "PUBREL {id} before PUBREC");
        message.is_released = true;
        Some(message.number)
    }

    /// A packet that this side has read.
    pub fn on_read(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Puback(ack) => {
                self.end(ack.packet_id, |it| it.qos == QoS::AtLeastOnce);
            }
            Packet::Pubrec(ack) => self.on_pubrec(ack),
            Packet::Pubcomp(ack) => self.end(ack.packet_id, |it| it.is_released),
            _ => {}
        }
    }

    fn on_pubrec(&mut self, ack: &Ack<'_>) {
        let is_error = ack.reason_code.is_error();
        match self.in_flight.get_mut(&ack.packet_id) {
            Some(message) if message.qos == QoS::ExactlyOnce => {
                if !message.is_received && is_error {
                    self.in_flight.remove(&ack.packet_id);
                } else if !is_error {
                    message.is_received = true;
                    message.is_released = false;
                }
            }
            None if !is_error => {
                self.unknown.insert(ack.packet_id);
            }
            _ => {}
        }
    }

    fn end(&mut self, id: PacketId, ends: impl FnOnce(&InFlight) -> bool) {
        if self.in_flight.get(&id).is_some_and(ends) {
            self.in_flight.remove(&id);
        }
    }
}

/// The receiving half: acknowledgements leave in the order of what they are for, once the owner has
/// answered and its store has committed.
#[derive(Debug, Default)]
pub struct Receiving {
    /// Whether a QoS 2 PUBLISH that comes again waits for the owner's answer to the first.
    answers_late: bool,
    /// Which QoS 2 message has a Packet Identifier.
    received: BTreeMap<PacketId, AckToken>,
    answers: HashMap<AckToken, Option<CommitId>>,
    pubacks: VecDeque<AckToken>,
    /// None for a message that had come before, or that was released early.
    pubrecs: VecDeque<(PacketId, Option<AckToken>)>,
    /// What the other side released before PUBREC: it may get one for each PUBLISH it sent.
    released_early: BTreeSet<PacketId>,
    /// With the commit that each waits for, once it is known.
    pubcomps: VecDeque<(PacketId, Option<Option<CommitId>>)>,
}

impl Receiving {
    /// Of a server, which answers late, or of a client.
    pub fn new(answers_late: bool) -> Self {
        Self {
            answers_late,
            ..Self::default()
        }
    }

    /// What was not sent is not sent any more.
    pub fn reconnect(&mut self) {
        self.pubacks.clear();
        self.pubrecs.clear();
        self.released_early.clear();
        self.pubcomps.clear();
    }

    /// The owner was given a message.
    pub fn on_message(&mut self, token: AckToken) {
        let id = token.packet_id();
        if token.qos() == QoS::AtLeastOnce {
            self.pubacks.push_back(token);
        } else {
            self.received.insert(id, token);
            self.pubrecs.push_back((id, Some(token)));
        }
    }

    /// A packet that this side has read, after what the owner was told of it.
    pub fn on_read(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Publish(publish) if publish.qos() == QoS::ExactlyOnce => {
                let id = publish.packet_id().expect("QoS 2 has one");
                if !self.pubrecs.iter().any(|(due, _)| *due == id) {
                    self.pubrecs.push_back((id, None));
                }
            }
            Packet::Pubrel(ack) => {
                self.received.remove(&ack.packet_id);
                // Who releases before PUBREC may get the answer to the next one with this identifier.
                for (id, token) in self.pubrecs.iter_mut().filter(|it| it.0 == ack.packet_id) {
                    *token = None;
                    self.released_early.insert(*id);
                }
                self.pubcomps.push_back((ack.packet_id, Some(None)));
            }
            _ => {}
        }
    }

    /// The owner has answered.
    pub fn on_answer(&mut self, token: AckToken, gate: Option<CommitId>) {
        self.answers.insert(token, gate);
    }

    /// The owner was told of a PUBREL, whose PUBCOMP waits for it.
    pub fn on_release(&mut self, id: PacketId) {
        let last = self.pubcomps.iter_mut().rev().find(|(due, _)| *due == id);
        last.expect("a PUBREL").1 = None;
    }

    /// The owner has stored the release.
    pub fn on_complete(&mut self, id: PacketId, gate: Option<CommitId>) {
        let mut due = self.pubcomps.iter_mut().rev();
        let due = due.find(|(due, answer)| *due == id && answer.is_none());
        due.expect("a PUBREL").1 = Some(gate);
    }

    /// An acknowledgement is sent.
    pub fn on_sent(&mut self, packet: &Packet<'_>, committed: CommitId) {
        match packet {
            Packet::Puback(ack) => {
                let token = self.pubacks.pop_front();
                let token = token.unwrap_or_else(|| panic!("{ack:?} for no PUBLISH"));
                assert_eq!(token.packet_id(), ack.packet_id, "PUBACK out of order");
                self.expect_answer(token, ack, committed);
            }
            Packet::Pubrec(ack)
                if self.released_early.contains(&ack.packet_id)
                    && self.pubrecs.iter().all(|(due, _)| *due != ack.packet_id) => {}
            Packet::Pubrec(ack) => {
                let due = loop {
                    let due = self.pubrecs.pop_front();
                    let (id, token) = due.unwrap_or_else(|| panic!("{ack:?} for no PUBLISH"));
                    if id == ack.packet_id {
                        break token;
                    }
                    assert_eq!(token, None, "PUBREC out of order: {ack:?}");
                };
                let known = self.received.get(&ack.packet_id).copied();
                let comes_again =
                    self.answers_late && !self.released_early.contains(&ack.packet_id);
                if let Some(token) = due.or(known.filter(|_| comes_again)) {
                    self.expect_answer(token, ack, committed);
                }
            }
            Packet::Pubcomp(ack) => {
                let due = self.pubcomps.pop_front();
                let (id, answer) = due.unwrap_or_else(|| panic!("{ack:?} for no PUBREL"));
                assert_eq!(id, ack.packet_id, "PUBCOMP out of order");
                let gate = answer.unwrap_or_else(|| panic!("{ack:?} before it is stored"));
                assert!(gate <= Some(committed), "{ack:?} before its commit");
            }
            _ => {}
        }
    }

    fn expect_answer(&self, token: AckToken, ack: &Ack<'_>, committed: CommitId) {
        let answer = self.answers.get(&token);
        let gate = answer.unwrap_or_else(|| panic!("{ack:?} before the owner's answer"));
        assert!(*gate <= Some(committed), "{ack:?} before its commit");
    }
}
