//! A client that subscribes.

use avocet_codec::{AckType, Delivery, Packet, PacketId, Publish};

use crate::bench::check::{Faults, Seen, Stream};
use crate::bench::plan::{Plan, Shape};
use crate::bench::publisher::Stamp;

/// The subscribing half of a load.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) index: u32,
    /// What each publisher that it hears has sent.
    pub(crate) streams: Vec<Heard>,
    /// Packet Identifiers of QoS 2 messages that are not released: a bit each.
    unreleased: Vec<u64>,
}

/// The messages of one publisher.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) stream: Stream,
    pub(crate) faults: Faults,
    /// The highest number of each topic, plus 1, if there are several, or several subscribers
    /// share them: only within a topic and for one subscriber there is an order.
    highest: Box<[u64]>,
}

impl Subscriber {
    pub(crate) fn new(plan: &Plan, index: u32) -> Self {
        let heard = || Heard {
            highest: match (plan.topics, plan.shape) {
                (1, Shape::FanIn | Shape::FanOut | Shape::Pairs) => Box::default(),
                (topics, _) => vec![0; topics as usize].into(),
            },
            ..Heard::default()
        };
        Self {
            index,
            streams: (0..plan.heard_by(index)).map(|_| heard()).collect(),
            unreleased: Vec::new(),
        }
    }

    /// A packet came; `group` is what all members of a shared subscription got, and empty if this is
    /// none. Gives the stamp of a message that came for the first time; what no
    /// subscriber is to get is an error.
    #[inline]
    pub(crate) fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        plan: &Plan,
        filler: &[u8],
        group: &mut [Stream],
        out: &mut Vec<u8>,
        faults: &mut Faults,
    ) -> Result<Option<Stamp>, String> {
        match packet {
            Packet::Publish(publish) => {
                Ok(self.on_publish(publish, plan, filler, group, out, faults))
            }
            Packet::Pubrel(ack) => {
                self.release(ack.packet_id);
                out.extend_from_slice(&AckType::Pubcomp.success(ack.packet_id));
                Ok(None)
            }
            Packet::Pingresp => Ok(None),
            other @ (Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubcomp(_)
            | Packet::Subscribe(_)
            | Packet::Suback(_)
            | Packet::Unsubscribe(_)
            | Packet::Unsuback(_)
            | Packet::Pingreq
            | Packet::Disconnect(_)
            | Packet::Auth(_)) => Err(format!(
                "the server sent {}, which no subscriber asked for",
                other.packet_type()
            )),
        }
    }

    #[inline]
    fn on_publish(
        &mut self,
        publish: &Publish<'_>,
        plan: &Plan,
        filler: &[u8],
        group: &mut [Stream],
        out: &mut Vec<u8>,
        faults: &mut Faults,
    ) -> Option<Stamp> {
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => out.extend_from_slice(&AckType::Puback.success(id)),
            Delivery::ExactlyOnce(id) => {
                out.extend_from_slice(&AckType::Pubrec.success(id));
                // The same message again until it is released: no second one.
                if !self.is_first(id) {
                    return None;
                }
            }
        }
        let stamp = Stamp::read(publish.payload, filler);
        let heard = stamp.and_then(|stamp| {
            let place = plan.place(self.index, stamp.publisher)?;
            self.streams.get_mut(place as usize)
        });
        let (Some(stamp), Some(heard)) = (stamp, heard) else {
            faults.corrupt += 1;
            return None;
        };
        let stream = match group.get_mut(stamp.publisher as usize) {
            Some(stream) => stream,
            None => &mut heard.stream,
        };
        let seen = stream.see(stamp.number, plan.ranges);
        let mut is_late = seen == Seen::Late;
        if !heard.highest.is_empty() && seen != Seen::Again {
            let topic = (stamp.number % heard.highest.len() as u64) as usize;
            if let Some(highest) = heard.highest.get_mut(topic) {
                is_late = stamp.number < *highest;
                *highest = (*highest).max(stamp.number + 1);
            }
        }
        heard.faults.out_of_order += u64::from(is_late);
        if seen == Seen::Again {
            heard.faults.duplicates += 1;
            heard.faults.duplicates_marked += u64::from(publish.dup);
            return None;
        }
        Some(stamp)
    }

    fn is_first(&mut self, id: PacketId) -> bool {
        if self.unreleased.is_empty() {
            self.unreleased = vec![0; 1024];
        }
        let (word, bit) = (usize::from(id.get() / 64), id.get() % 64);
        self.unreleased.get_mut(word).is_some_and(|word| {
            let is_first = *word & 1 << bit == 0;
            *word |= 1 << bit;
            is_first
        })
    }

    fn release(&mut self, id: PacketId) {
        let (word, bit) = (usize::from(id.get() / 64), id.get() % 64);
        if let Some(word) = self.unreleased.get_mut(word) {
            *word &= !(1 << bit);
        }
    }
}
