//! Acknowledgements that wake nobody.
//!
//! A client that acknowledges a message does so at once, and mostly alone: the shard is woken for four bytes that change
//! nothing for anybody else. To wake costs more than all that is done with the message. So while such an acknowledgement is
//! what a client owes next, its socket tells of nothing shorter than one byte more. A PUBACK is read before the next message is
//! written, a PUBCOMP with the PUBREC of the next one, and either with the next packet of the client or when its time is over.
//!
//! What the client sends behind it wakes the shard, and so does its end. A PINGREQ, which has two bytes, may wait for [`QUIET`] twice and
//! [`QUIET_LATE`] twice in front of an acknowledgement that does not come.

use std::mem;
use std::num::NonZeroU8;
use std::time::Duration;

use avocet_engine::Engine;
use avocet_session::{Instant, Now, Owed};

use super::{EVENTS, Shard};
use crate::connection::{Closing, Connection, Reading};
use crate::connections::Key;

/// How long a connection is quiet after a message, in a shard that has turns. For longer than most intervals between messages,
/// so that one reads what the other left.
const QUIET: Duration = Duration::from_millis(150);

/// By so much longer in one that has none: it is not woken sooner for this.
const QUIET_LATE: Duration = Duration::from_millis(50);

/// More than PUBACK and PUBCOMP have without a Reason Code other than Success.
const LOW_WATER: NonZeroU8 = NonZeroU8::MIN.saturating_add(4);

/// What a socket has that may tell of every byte.
const ANY: NonZeroU8 = NonZeroU8::MIN;

/// Whether a connection may wake its shard.
#[derive(Default)]
pub(crate) struct Quiet {
    /// Until when it may not for what it owes; none if it may.
    until: Option<Instant>,
    /// What is owed are PUBACKs.
    pubacks: bool,
    /// It is in the list of those to look at, and was read since it was put there.
    listed: bool,
    read: bool,
}

impl Connection {
    /// It was read because it woke the shard.
    pub(super) fn was_read(&mut self, engine: &Engine) {
        self.quiet.read = true;
        self.stay_quiet(engine);
    }

    /// It stays so, unless it owes something else now, or the beginning of a packet is there, whose rest may be short.
    /// False if it is quiet no more.
    pub(super) fn stay_quiet(&mut self, engine: &Engine) -> bool {
        let ends = self.quiet.until.is_some()
            && (self.unread.len() > 0
                || !matches!(engine.owed(self.id), Owed::Puback | Owed::Pubcomp));
        !(ends && self.end_quiet())
    }

    /// It may wake the shard with any byte. True if it might not before: then there may be some to read.
    pub(super) fn end_quiet(&mut self) -> bool {
        let was_quiet = self.quiet.until.take().is_some();
        if was_quiet {
            // What could be set can be set again.
            self.stream.set_low_water(ANY);
        }
        was_quiet
    }
}

impl Shard {
    /// All that there was for a connection is written.
    pub(super) fn hush(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let was_quiet = connection.quiet.until.is_some();
        // With much to do, the shard does not sleep.
        if !was_quiet && (self.gathering.is_loaded() || !self.gathering.is_allowed()) {
            return;
        }
        let owed = self.engine.owed(connection.id);
        let may_be_quiet = matches!(owed, Owed::Puback | Owed::Pubcomp)
            && connection.closing == Closing::Open
            && connection.reading == Reading::Stream
            && !connection.readable
            && connection.unread.len() == 0
            && !connection.broken;
        if !may_be_quiet {
            if connection.end_quiet() {
                self.read_again(key);
            }
            return;
        }
        if !was_quiet && !connection.stream.set_low_water(LOW_WATER) {
            return;
        }
        connection.quiet.until = Some(now.instant + QUIET);
        connection.quiet.pubacks = owed == Owed::Puback;
        if !connection.quiet.listed {
            self.list_quiet(key, now);
        }
    }

    /// Lets a connection be read that is quiet no more, and was not read since: older systems do not tell anew.
    pub(super) fn read_again(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.readable = true;
            self.set_ready(key);
        }
    }

    fn list_quiet(&mut self, key: Key, now: Now) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.quiet.listed = true;
            connection.quiet.read = false;
            self.quiet.push_back((now.instant + QUIET, connection.id));
        }
    }

    /// A connection is to be written: what it owes from before has come by now, and makes room for what it will.
    pub(super) fn read_before_write(&mut self, key: Key, now: Now) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.quiet.until.is_some()
            && connection.quiet.pubacks
            && connection.spoke_last
            && !connection.in_ready
            && !self.stalled
        {
            connection.quiet.read = true;
            self.gathering.read_more();
            self.read_once(key, now);
        }
    }

    /// Reads those that were not read for long enough, and lets those wake the shard that were sent no more: as many as the
    /// poll may tell of in one turn.
    pub(super) fn end_quiet(&mut self, now: Now) {
        for _ in 0..EVENTS {
            let Some((_, id)) = self.quiet.pop_front_if(|(at, _)| *at <= now.instant) else {
                return;
            };
            let Some(key) = self.connections.key(id) else {
                continue;
            };
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            connection.quiet.listed = false;
            let Some(until) = connection.quiet.until else {
                continue;
            };
            let is_over = until <= now.instant;
            if (is_over || !connection.quiet.read) && !connection.in_ready {
                self.read_once(key, now);
            }
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            if is_over {
                connection.end_quiet();
            } else if connection.stay_quiet(&self.engine) {
                self.list_quiet(key, now);
            }
        }
    }

    /// Reads all of them: the broker stops, and what is acknowledged is not to be sent again when it starts.
    pub(super) fn read_all_quiet(&mut self, now: Now) {
        for (_, id) in mem::take(&mut self.quiet) {
            if let Some(key) = self.connections.key(id) {
                self.read_once(key, now);
            }
        }
    }

    /// When a shard that has no turns is to have one for them. While it reads nothing, the store wakes it.
    pub(super) fn quiet_timeout(&self) -> Option<Instant> {
        let next = self.quiet.front().filter(|_| !self.stalled);
        next.map(|(at, _)| *at + QUIET_LATE)
    }
}
