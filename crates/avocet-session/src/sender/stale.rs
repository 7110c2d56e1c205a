//! What a queue need not keep: messages that wait too long to be sent, and memory.

use alloc::vec::Vec;
use avocet_codec::QoS;

use super::{Queued, Sender, give_back, is_expired, message_bytes};
use crate::UnixTime;
use crate::receiver::free_spare;

impl Sender {
    /// Drops messages that wait and were queued before this sequence was given away: their
    /// sequences.
    pub(crate) fn drop_before(&mut self, sequence: u64) -> Vec<(u64, QoS)> {
        let mut dropped = Vec::new();
        while self.qos0.front().is_some_and(|it| it.sequence < sequence)
            && let Some(old) = self.pop_qos0()
        {
            dropped.push((old.sequence, old.outgoing.qos));
        }
        while self.queued.front().is_some_and(|it| it.sequence < sequence)
            && let Some(old) = self.pop_queued()
        {
            dropped.push((old.sequence, old.outgoing.qos));
        }
        dropped
    }

    /// Drops messages that wait and whose Message Expiry Interval has passed: their sequences.
    pub(crate) fn drop_expired(&mut self, now: UnixTime) -> Vec<(u64, QoS)> {
        let mut dropped = Vec::new();
        for queue in [&mut self.qos0, &mut self.queued] {
            queue.retain(|Queued { sequence, outgoing }| {
                let expired = is_expired(outgoing, now);
                if expired {
                    self.resident_bytes -= message_bytes(outgoing);
                    dropped.push((*sequence, outgoing.qos));
                }
                !expired
            });
            give_back(queue);
        }
        dropped
    }

    /// Frees what empty queues keep.
    pub(crate) fn free_spare(&mut self) {
        free_spare(&mut self.inflight);
        free_spare(&mut self.queued);
        free_spare(&mut self.qos0);
        free_spare(&mut self.pubrels);
        self.frames.free_spare();
    }

    /// When the first message that waits expires.
    pub(crate) fn next_expiry(&self) -> Option<UnixTime> {
        let waiting = self.qos0.iter().chain(&self.queued);
        waiting
            .filter_map(|queued| queued.outgoing.message.expires_at())
            .min()
    }
}
