//! A client that publishes.

use avocet_codec::{
    Ack, AckType, Delivery, Packet, PacketId, Publish, QoS, ReasonCode, TopicName, Version,
};

use crate::bench::check::Faults;
use crate::bench::client::{Client, OUT_MAX};
use crate::bench::open::encoded;
use crate::bench::plan::{Load, Plan};
use crate::exit::Failure;

/// Bytes of payload that say which message it is: when it was due, its publisher and its number.
const STAMP: usize = 16;

/// Bits of the number of a message; the rest tells the publisher.
const NUMBER_BITS: u32 = 40;

/// What a payload says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When it was due, in nanoseconds.
    pub(crate) due: u64,
    pub(crate) publisher: u32,
    pub(crate) number: u64,
}

impl Stamp {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let id = u64::from(self.publisher) << NUMBER_BITS | self.number;
        out.extend_from_slice(&self.due.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }

    /// None if the payload is not one that was sent.
    #[inline]
    pub(crate) fn read(payload: &[u8], filler: &[u8]) -> Option<Self> {
        let (due, rest) = payload.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let id = u64::from_le_bytes(*id);
        (rest == filler).then(|| Self {
            due: u64::from_le_bytes(*due),
            publisher: (id >> NUMBER_BITS) as u32,
            number: id & ((1 << NUMBER_BITS) - 1),
        })
    }
}

/// What stands behind the stamp in all payloads: bytes that do not compress.
pub(crate) fn filler(payload: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (STAMP..payload).map(|_| byte()).collect()
}

/// All of a PUBLISH but its payload.
#[derive(Debug)]
struct Head {
    bytes: Box<[u8]>,
}

/// Where a Packet Identifier is in a PUBLISH without properties, from its end without payload.
const fn packet_id_from_end(version: Version) -> usize {
    match version {
        Version::V5 => 3,
        Version::V3_1 | Version::V3_1_1 => 2,
    }
}

/// What a QoS 1 or 2 message waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    #[default]
    Nothing,
    Puback,
    Pubrec,
    Pubcomp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    wait: Wait,
    due: u64,
}

/// The publishing half of a load.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) index: u32,
    qos: QoS,
    heads: Vec<Head>,
    packet_id_from_end: usize,
    packet_len: usize,
    /// Messages that were handed to the socket.
    pub(crate) sent: u64,
    /// How many are to be sent.
    pub(crate) quota: u64,
    /// How many have become due, in an open loop.
    pub(crate) due: u64,
    /// Messages whose acknowledgement, and that of all before them, has come.
    pub(crate) acked: u64,
    /// What each message waits for, by its number modulo the length.
    slots: Box<[Slot]>,
    /// Messages given up, so that others can be sent: they are lost, or come too late.
    pub(crate) written_off: u64,
    /// Messages that had arrived when it was last looked at, and since when it is so.
    pub(crate) looked_at: (u64, u64),
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    Nothing,
    /// The exchange is over that began with a message due at this time.
    Done {
        due: u64,
    },
    /// The same, and nobody gets the message.
    Refused(ReasonCode),
}

impl Publisher {
    /// # Errors
    ///
    /// What a PUBLISH cannot carry.
    pub(crate) fn new(plan: &Plan, index: u32, version: Version) -> Result<Self, Failure> {
        let id = PacketId::new(1);
        let mut heads = Vec::new();
        let payload = vec![0; plan.payload];
        let mut packet_len = 0;
        for topic in 0..plan.topics {
            let topic = plan.topic(index, topic);
            let topic_name = TopicName::new(&topic)
                .map_err(|error| Failure::new(format!("{topic}: {error}")))?;
            let delivery = match (plan.qos, id) {
                (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
                (QoS::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
                _ => Delivery::AtMostOnce,
            };
            let packet = Packet::Publish(Publish::new(topic_name, delivery, &payload));
            let mut bytes = encoded(&packet, version)?;
            packet_len = packet_len.max(bytes.len());
            bytes.truncate(bytes.len() - plan.payload);
            heads.push(Head {
                bytes: bytes.into(),
            });
        }
        let quota = plan.quota(index).unwrap_or(u64::MAX);
        Ok(Self {
            heads,
            packet_id_from_end: packet_id_from_end(version),
            packet_len,
            ..Self::bare(index, plan.qos, plan.inflight, quota)
        })
    }

    /// A publisher whose packets others make.
    pub(crate) fn bare(index: u32, qos: QoS, inflight: u16, quota: u64) -> Self {
        Self {
            index,
            qos,
            heads: Vec::new(),
            packet_id_from_end: 0,
            packet_len: 1,
            sent: 0,
            quota,
            due: 0,
            acked: 0,
            slots: match qos {
                QoS::AtMostOnce => Box::default(),
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    vec![Slot::default(); inflight.into()].into()
                }
            },
            written_off: 0,
            looked_at: (0, 0),
        }
    }

    /// The server takes no more than this at a time.
    pub(crate) fn limit_inflight(&mut self, receive_maximum: u16) {
        if self.slots.len() > receive_maximum.into() {
            self.slots = vec![Slot::default(); receive_maximum.into()].into();
        }
    }

    /// How many messages may leave, if `arrived` have come to all who hear them.
    pub(crate) fn room(&self, load: Load, arrived: u64, client: &Client) -> u64 {
        let due = match load {
            Load::Closed { window, .. } => {
                window.saturating_sub(self.sent.saturating_sub(arrived + self.written_off))
            }
            Load::Open { .. } => self.due - self.sent,
        };
        let acknowledged = match self.qos {
            QoS::AtMostOnce => u64::MAX,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                (self.slots.len() as u64).saturating_sub(self.sent - self.acked)
            }
        };
        let unwritten = client.unwritten();
        let socket = match OUT_MAX.saturating_sub(unwritten) / self.packet_len.max(1) {
            // A packet larger than that leaves alone.
            0 if unwritten == 0 => 1,
            room => room as u64,
        };
        due.min(acknowledged)
            .min(self.quota - self.sent)
            .min(socket)
    }

    /// Gives up what has not arrived, if nothing has for `patience` nanoseconds although there is
    /// no room for more. Says whether it did.
    pub(crate) fn write_off(&mut self, arrived: u64, now: u64, patience: u64) -> bool {
        let progress = arrived + self.acked;
        if self.looked_at.0 != progress || self.sent == self.quota {
            self.looked_at = (progress, now);
            return false;
        }
        let unarrived = self.sent.saturating_sub(arrived + self.written_off);
        if unarrived == 0 || now - self.looked_at.1 < patience {
            return false;
        }
        self.written_off += unarrived;
        true
    }

    /// Sends the next message, for which there is room.
    #[inline]
    pub(crate) fn publish(&mut self, due: u64, filler: &[u8], out: &mut Vec<u8>) {
        let topic = if self.heads.len() == 1 {
            0
        } else {
            (self.sent % self.heads.len() as u64) as usize
        };
        let Some(head) = self.heads.get(topic) else {
            return;
        };
        out.extend_from_slice(&head.bytes);
        let number = self.sent;
        if let Some(packet_id) = self.take(due) {
            let at = out.len() - self.packet_id_from_end;
            if let Some(id) = out.get_mut(at..at + 2) {
                id.copy_from_slice(&packet_id.get().to_be_bytes());
            }
        }
        self.stamp(number, due).write(out);
        out.extend_from_slice(filler);
    }

    /// Counts the next message as sent. Gives its Packet Identifier, if it has one.
    #[inline]
    pub(crate) fn take(&mut self, due: u64) -> Option<PacketId> {
        let number = self.sent;
        self.sent += 1;
        let wait = match self.qos {
            QoS::AtMostOnce => return None,
            QoS::AtLeastOnce => Wait::Puback,
            QoS::ExactlyOnce => Wait::Pubrec,
        };
        let place = (number % self.slots.len() as u64) as usize;
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Slot { wait, due };
        }
        PacketId::new(place as u16 + 1)
    }

    /// What the payload of a message begins with.
    pub(crate) const fn stamp(&self, number: u64, due: u64) -> Stamp {
        Stamp {
            due,
            publisher: self.index,
            number,
        }
    }

    /// A packet came; what it is not due to get is an error, or is counted.
    pub(crate) fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        faults: &mut Faults,
    ) -> Result<Acked, String> {
        match packet {
            Packet::Puback(ack) => Ok(self.on_ack(ack, Wait::Puback, faults)),
            Packet::Pubcomp(ack) => Ok(self.on_ack(ack, Wait::Pubcomp, faults)),
            Packet::Pubrec(ack) => {
                if ack.reason_code.is_error() {
                    return Ok(self.on_ack(ack, Wait::Pubrec, faults));
                }
                match self.slot(ack) {
                    Some(slot) if slot.wait == Wait::Pubrec => {
                        slot.wait = Wait::Pubcomp;
                        out.extend_from_slice(&AckType::Pubrel.success(ack.packet_id));
                    }
                    Some(_) | None => faults.stray_acks += 1,
                }
                Ok(Acked::Nothing)
            }
            Packet::Pingresp => Ok(Acked::Nothing),
            other @ (Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Publish(_)
            | Packet::Pubrel(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Disconnect(_)
            | Packet::Auth(_)) => Err(format!(
                "the server sent {}, which no publisher asked for",
                other.packet_type()
            )),
        }
    }

    fn slot(&mut self, ack: &Ack<'_>) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(ack.packet_id.get()) - 1)
    }

    fn on_ack(&mut self, ack: &Ack<'_>, expected: Wait, faults: &mut Faults) -> Acked {
        let due = match self.slot(ack) {
            Some(slot) if slot.wait == expected => {
                slot.wait = Wait::Nothing;
                slot.due
            }
            Some(_) | None => {
                faults.stray_acks += 1;
                return Acked::Nothing;
            }
        };
        while self.acked < self.sent {
            let place = (self.acked % self.slots.len() as u64) as usize;
            if self
                .slots
                .get(place)
                .is_some_and(|slot| slot.wait != Wait::Nothing)
            {
                break;
            }
            self.acked += 1;
        }
        if ack.reason_code.is_error() {
            faults.refused += 1;
            return Acked::Refused(ack.reason_code);
        }
        Acked::Done { due }
    }
}
