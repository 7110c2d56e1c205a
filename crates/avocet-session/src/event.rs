//! What a connection tells its owner beside the packets it reads.

use avocet_codec::{PacketId, ReasonCode};

use crate::{CloseReason, Dropped};

/// What happened on a connection, in order; [`ConnectionEvent::Closed`] is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The peer has completely acknowledged a QoS 1 or 2 message that has a tag or a gate.
    Finished {
        /// Its place in the queue.
        sequence: u64,
        /// The owner's mark.
        tag: u64,
        /// That of PUBACK, of PUBCOMP, or of a PUBREC that refused the message.
        reason_code: ReasonCode,
    },
    /// PUBREC came for a message with a gate: the owner answers with `release`, and PUBREL leaves.
    Pubrec {
        /// Its place in the queue.
        sequence: u64,
        /// The owner's mark.
        tag: u64,
    },
    /// PUBREL came for a message that was acknowledged with a gate: the owner answers with
    /// `complete`, and PUBCOMP leaves.
    Pubrel {
        /// The Packet Identifier, which is free again.
        packet_id: PacketId,
    },
    /// A message is not delivered.
    Dropped(Dropped),
    /// The Network Connection is over, and the driver closes the socket once what it has is
    /// written.
    Closed(CloseReason),
}
