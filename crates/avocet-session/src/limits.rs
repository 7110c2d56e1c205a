//! What a Session may hold, and what happens beyond.

/// Which message goes when a queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The one that has waited longest; what is in flight stays.
    DropOldest,
    /// The one that came last.
    #[default]
    DropNewest,
}

/// The limits of one Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages of QoS 1 and 2 in flight towards a 3.x client, which has no Receive Maximum; at
    /// least 1.
    pub inflight: u16,
    /// Messages not yet sent, of all QoS together.
    pub queued_messages_max: usize,
    /// Bytes of the messages not yet sent: topics, properties and payloads.
    pub queued_bytes_max: u64,
    /// Whether QoS 0 messages wait for a client that is not connected.
    pub queue_qos0: bool,
    /// Which message goes when one of the queue limits is reached.
    pub overflow: Overflow,
    /// QoS 1 and 2 messages kept in memory; those beyond are only counted, and fetched from the
    /// store when their turn comes.
    pub resident_messages: usize,
    /// Topic Aliases used towards a client that allows them; each keeps one Topic Name.
    pub topic_aliases: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A window takes a round trip: with one of 32, this is what a fast client waits for.
            inflight: 256,
            queued_messages_max: 100_000,
            queued_bytes_max: 64 << 20,
            queue_qos0: false,
            overflow: Overflow::default(),
            resident_messages: usize::MAX,
            topic_aliases: 32,
        }
    }
}
