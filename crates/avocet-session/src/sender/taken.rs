//! Messages that are taken away from a Session: others are to deliver them, nobody may, or nobody waits
//! for their end any more.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use avocet_codec::QoS;

use super::{Queued, Sender, State, message_bytes};
use crate::Outgoing;

impl Sender {
    /// Forgets what is in flight, because the peer has: their sequences, in order.
    pub(crate) fn take_in_flight(&mut self) -> Vec<u64> {
        self.live = 0;
        self.resend = 0;
        let entries = core::mem::take(&mut self.inflight).into_iter();
        entries
            .filter(|entry| !matches!(entry.state, State::Finished))
            .map(|entry| entry.sequence)
            .collect()
    }

    /// Takes messages away that another Session is to deliver: those not yet sent, and QoS 1
    /// messages in flight.
    pub(crate) fn take_where(
        &mut self,
        mut wanted: impl FnMut(&Outgoing) -> bool,
    ) -> Vec<(u64, Outgoing)> {
        self.unpack_frames();
        let mut taken = Vec::new();
        let in_flight: Vec<usize> = self
            .inflight
            .iter()
            .enumerate()
            .filter(|(_, entry)| match &entry.state {
                State::Publish(outgoing) => {
                    let movable = outgoing.qos == QoS::AtLeastOnce || planted!(SharedQos2Moves);
                    movable && wanted(outgoing)
                }
                State::Pubrel { .. } | State::Sent | State::Finished => false,
            })
            .map(|(index, _)| index)
            .collect();
        // From the back, so that the indices before stay what they are.
        for index in in_flight.into_iter().rev() {
            let Some(entry) = self.inflight.get_mut(index) else {
                continue;
            };
            let sequence = entry.sequence;
            if let State::Publish(outgoing) = core::mem::replace(&mut entry.state, State::Finished)
            {
                taken.push((sequence, outgoing));
            }
            self.bury(index);
        }
        taken.reverse();
        taken.extend(self.take_unsent(wanted));
        taken
    }

    /// Takes messages away that have not been sent.
    pub(crate) fn take_unsent(
        &mut self,
        mut wanted: impl FnMut(&Outgoing) -> bool,
    ) -> Vec<(u64, Outgoing)> {
        self.unpack_frames();
        let mut taken = Vec::new();
        for queue in [&mut self.queued, &mut self.qos0] {
            let (matching, rest) = core::mem::take(queue)
                .into_iter()
                .partition(|next| wanted(&next.outgoing));
            *queue = rest;
            let matching: VecDeque<Queued> = matching;
            for Queued { sequence, outgoing } in matching {
                self.resident_bytes -= message_bytes(&outgoing);
                taken.push((sequence, outgoing));
            }
        }
        taken
    }
}
