//! What of a client survives its process.

use std::error::Error;

use avocet_codec::{PacketId, SubscriptionId};
use avocet_session::{Message, UnixTime};

/// Keeps what a client must not lose with its process: messages on their way to the server, and
/// messages of QoS 2 that came. [`FileStorage`](crate::FileStorage) keeps it in a directory.
///
/// It is called on a thread of its own, and may block. The order of calls, and of the records in
/// each, is that in which things happened.
pub trait Storage: Send + 'static {
    /// Everything that was stored and is not over.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being read: the client does not start then.
    fn load(&mut self) -> Result<Stored, Box<dyn Error + Send + Sync>>;

    /// Stores these, all or none, so that they survive a crash when it returns.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being stored. Nothing that depends on it leaves, and it is called
    /// again with the same records, and perhaps more, after a while.
    fn store(&mut self, records: &[Record]) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// A change of what is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A message of QoS 1 or 2 waits to be sent.
    Queued {
        /// Its place.
        sequence: u64,
        /// The message.
        message: Message,
        /// When it was queued.
        queued_at: UnixTime,
        /// Whether it leaves as soon as this is stored, so that it may have been sent.
        sent: bool,
    },
    /// A message may have been sent.
    Sent {
        /// Its place.
        sequence: u64,
    },
    /// The server has a message of QoS 2, and is told so until it has heard it.
    Pubrec {
        /// Its place.
        sequence: u64,
    },
    /// A message is the server's, or will never be.
    Finished {
        /// Its place.
        sequence: u64,
    },
    /// A message of QoS 2 came. The same Packet Identifier is the same message until it is released.
    Received {
        /// Its Packet Identifier.
        packet_id: PacketId,
        /// The message, unless the application has it already.
        message: Option<StoredMessage>,
    },
    /// A Packet Identifier is free again.
    Released {
        /// The Packet Identifier.
        packet_id: PacketId,
    },
    /// The server has lost the Session: all Packet Identifiers are free.
    AllReleased,
    /// The application has acknowledged a message that came.
    Taken {
        /// Its place.
        place: u64,
    },
}

/// A message that came, and that the application has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place: those that came later have greater ones.
    pub place: u64,
    /// The message.
    pub message: Message,
    /// The identifiers of the subscriptions it matched.
    pub subscription_ids: Vec<SubscriptionId>,
}

/// What a [`Storage`] has kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Messages on their way to the server, by their places.
    pub outgoing: Vec<StoredOutgoing>,
    /// Packet Identifiers of messages of QoS 2 that came and are not released.
    pub received: Vec<PacketId>,
    /// Messages that the application has not acknowledged, by their places.
    pub incoming: Vec<StoredMessage>,
}

/// A message on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutgoing {
    /// Its place.
    pub sequence: u64,
    /// The message.
    pub message: Message,
    /// When it was queued.
    pub queued_at: UnixTime,
    /// Whether it may have been sent: [`Record::Sent`] was stored for it, or [`Record::Queued`] said
    /// so.
    pub sent: bool,
    /// Whether [`Record::Pubrec`] was stored for it.
    pub pubrec: bool,
}
