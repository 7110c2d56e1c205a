//! A connection as the broker's driver has it.

use avocet_codec::Version;
use avocet_engine::ConnectionId;

use crate::link::Pipe;
use crate::wire::Tap;

/// A connection: the link, and what the broker's driver holds of it.
pub(crate) struct Conn {
    pub(crate) id: ConnectionId,
    pub(crate) client: usize,
    pub(crate) version: Version,
    /// What its CONNECT says.
    pub(crate) clean_start: bool,
    pub(crate) shard: usize,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// On its way to another shard.
    pub(crate) moving: bool,
    pub(crate) paused: bool,
    /// The engine waits for more bytes than there are.
    pub(crate) waits: bool,
    /// The network has told the broker that the link is broken.
    pub(crate) reset: bool,
    /// The engine was told so.
    pub(crate) told: bool,
    /// Taken from the engine, not yet written.
    pub(crate) rest: Vec<u8>,
    pub(crate) more: bool,
    /// The engine is done with it.
    pub(crate) ended: bool,
    /// The client is done with it.
    pub(crate) left: bool,
    pub(crate) up_sent: Tap,
    pub(crate) up_read: Tap,
    pub(crate) down_sent: Tap,
    pub(crate) down_read: Tap,
}

impl Conn {
    pub(crate) fn new(
        id: ConnectionId,
        client: usize,
        version: Version,
        shard: usize,
        up: Pipe,
        down: Pipe,
    ) -> Self {
        Self {
            id,
            client,
            version,
            clean_start: false,
            shard,
            up,
            down,
            moving: false,
            paused: false,
            waits: false,
            reset: false,
            told: false,
            rest: Vec::new(),
            more: false,
            ended: false,
            left: false,
            up_sent: Tap::default(),
            up_read: Tap::default(),
            down_sent: Tap::default(),
            down_read: Tap::default(),
        }
    }

    pub(crate) fn can_feed(&self) -> bool {
        !self.moving && !self.ended && !self.paused && !self.waits && !self.up.ready.is_empty()
    }

    pub(crate) fn must_close(&self) -> bool {
        let gone = self.up.ended && self.up.is_over() || self.reset && !self.can_feed();
        gone && !self.moving && !self.ended && !self.told
    }

    pub(crate) fn can_write(&self) -> bool {
        !self.moving && (self.more || !self.rest.is_empty()) && self.down.room() > 0
    }

    /// The broker is gone, and with it what it had not written; of what it wrote this share still
    /// arrives, in percent. Whether that is the beginning of something.
    pub(crate) fn crash(&mut self, percent: u64) -> bool {
        self.up.cut(0);
        self.moving = false;
        self.more = false;
        self.ended = true;
        self.shard = 0;
        let torn = !self.rest.is_empty();
        self.rest.clear();
        self.down.cut(percent) || torn
    }
}
