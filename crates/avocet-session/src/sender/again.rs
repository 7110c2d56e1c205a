//! Messages in flight, as if they had never left; and messages of an earlier process.

use avocet_codec::QoS;

use super::{InFlight, PACKET_IDS, Queued, Release, Sender, State, message_bytes};
use crate::{CommitId, Outgoing};

/// A message that a client's store gives back after a restart.
#[derive(Clone, Debug)]
pub struct RestoredMessage {
    /// Its place in the queue.
    pub sequence: u64,
    /// What it was when it was queued.
    pub outgoing: Outgoing,
    /// Whether it is known that it may have been sent.
    pub sent: bool,
    /// Whether PUBREC came for it: PUBREL follows, not PUBLISH [MQTT5-4.3.3-6].
    pub pubrec_received: bool,
}

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

    /// Puts back messages of an earlier process, by rising sequences. Messages are sent in their
    /// order, so none was sent behind the first one that was not.
    pub(crate) fn restore_messages(&mut self, messages: impl IntoIterator<Item = RestoredMessage>) {
        let mut all_sent = true;
        let mut first = None;
        for restored in messages {
            let RestoredMessage {
                sequence,
                mut outgoing,
                sent,
                pubrec_received,
            } = restored;
            let first = *first.get_or_insert(sequence);
            self.next_sequence = sequence + 1;
            all_sent &= sent || pubrec_received;
            all_sent &= sequence - first < PACKET_IDS;
            if !all_sent {
                outgoing.gate = Some(CommitId::UNNAMED);
                self.resident_bytes += message_bytes(&outgoing);
                self.queued.push_back(Queued { sequence, outgoing });
                continue;
            }
            outgoing.gate = Some(CommitId::ZERO);
            self.go_on(sequence, outgoing, pubrec_received);
        }
    }

    /// Goes on with a message that was sent before, behind those that are in flight.
    pub(super) fn go_on(&mut self, sequence: u64, outgoing: Outgoing, pubrec_received: bool) {
        let state = if pubrec_received {
            State::Pubrel {
                tag: outgoing.tag,
                stored: outgoing.gate.is_some(),
                release: Release::After(CommitId::ZERO),
            }
        } else {
            State::Publish(outgoing)
        };
        self.live += 1;
        self.inflight.push_back(InFlight {
            sequence,
            counted: false,
            state,
        });
    }

    /// The sequence that the next message of QoS 1 or 2 gets.
    pub(crate) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
}
