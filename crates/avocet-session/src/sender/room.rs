//! The room that a queue has, and what goes when there is none.

use alloc::vec::Vec;
use avocet_codec::QoS;

use super::{Sender, message_bytes};
use crate::{DropReason, Dropped, Enqueued, Limits, Outgoing, Overflow};

impl Sender {
    pub(super) fn has_room(&self, bytes: u64, limits: &Limits) -> bool {
        self.queued() < limits.queued_messages_max
            && self.queued_bytes().saturating_add(bytes) <= limits.queued_bytes_max
    }

    /// Puts a message behind the others for which the oldest go, if they may.
    #[inline(never)]
    pub(super) fn displace(&mut self, outgoing: Outgoing, limits: &Limits) -> Enqueued {
        let bytes = message_bytes(&outgoing);
        let mut oldest = Vec::new();
        while !self.has_room(bytes, limits) {
            let displaced = match limits.overflow {
                Overflow::DropOldest => self.drop_oldest(),
                Overflow::DropNewest => None,
            };
            let Some(displaced) = displaced else {
                return Enqueued::Refused(DropReason::QueueFull);
            };
            oldest.push(displaced);
        }
        let (sequence, _) = self.put(outgoing, limits);
        Enqueued::Displaced { sequence, oldest }
    }

    fn drop_oldest(&mut self) -> Option<Dropped> {
        if let Some(frame) = self.drop_oldest_frame() {
            return Some(frame);
        }
        let oldest = if self.qos0_is_next() {
            self.pop_qos0()
        } else {
            self.pop_queued()
        };
        let oldest = oldest.map(|oldest| oldest.dropped(DropReason::QueueFull));
        oldest.or_else(|| self.drop_stored())
    }

    /// Drops the first message that only the store has, unless it may have been sent.
    fn drop_stored(&mut self) -> Option<Dropped> {
        while self.taken.remove(&(self.next_sequence - self.stored)) {
            self.stored -= 1;
        }
        let sequence = self.next_sequence - self.stored;
        if self.stored == 0 || sequence < self.sent {
            return None;
        }
        self.forget_stored_bytes();
        self.stored -= 1;
        Some(Dropped {
            sequence,
            qos: QoS::AtLeastOnce,
            tag: 0,
            stored: true,
            reason: DropReason::QueueFull,
        })
    }
}
