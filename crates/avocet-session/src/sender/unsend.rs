//! Messages in flight, as if they had never left.

use avocet_codec::QoS;

use super::{Queued, Sender, State, message_bytes};

impl Sender {
    /// Puts messages of QoS 1 in flight back before those that wait, in their order: the peer has
    /// forgotten them. Of the others it is not known whether they arrived; they stay in flight.
    pub(crate) fn unsend(&mut self) {
        let movable = |state: &State| matches!(state, State::Publish(outgoing) if outgoing.qos == QoS::AtLeastOnce);
        // From the back, so that the indices before stay what they are, and the first comes first.
        for index in (0..self.inflight.len()).rev() {
            let Some(entry) = self.inflight.get_mut(index) else {
                continue;
            };
            if !movable(&entry.state) {
                continue;
            }
            let sequence = entry.sequence;
            if let State::Publish(outgoing) = core::mem::replace(&mut entry.state, State::Finished)
            {
                self.resident_bytes += message_bytes(&outgoing);
                self.queued.push_front(Queued { sequence, outgoing });
            }
            self.bury(index);
        }
    }
}
