//! The threads that turn shards.
//!
//! Each shard has a thread of its own, which waits for its sockets. What other shards send it would have to wake that
//! thread, which costs more than a message does, so who has little to do takes the turn of a shard that waits
//! itself. Where there is much to do, threads are woken: they are there to share it.

use std::io::ErrorKind;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use avocet_engine::ShardId;
use mio::{Events, Poll};
use tracing::error;

use crate::clock::Clock;
use crate::shard::{EVENTS, Parts, Shard};

/// The shards of a broker by their index, each there while its thread runs.
pub(crate) struct Shards(Box<[Mutex<Option<Shard>>]>);

/// With more clients to write to in a turn, shards are turned by their own threads, beside each other.
pub(crate) const WRITES_MAX: usize = 32;

/// Turns of its own thread after one with more, at first and at most.
const KEPT: (u32, u32) = (64, 4_096);

/// Whether other threads take turns of a shard.
pub(crate) struct Loan {
    /// Turns until they may, and after the next one with too much.
    kept: u32,
    kept_next: u32,
}

impl Default for Loan {
    fn default() -> Self {
        Self {
            kept: 0,
            kept_next: KEPT.0,
        }
    }
}

impl Loan {
    /// Whether another thread takes this turn.
    pub(crate) const fn is_given(&mut self) -> bool {
        let given = self.kept == 0;
        self.kept = self.kept.saturating_sub(1);
        given
    }

    /// So many clients were written to in it.
    pub(crate) fn wrote(&mut self, clients: usize) {
        if clients > WRITES_MAX {
            self.kept = self.kept_next;
            self.kept_next = (2 * self.kept_next).min(KEPT.1);
        } else {
            self.kept_next = KEPT.0;
        }
    }
}

/// Where a shard is; it ends with its thread.
struct Place<'a>(&'a Mutex<Option<Shard>>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut place = self.0.lock().unwrap_or_else(|it| it.into_inner());
        let shard = place.take();
        // To close connections takes a while.
        drop(place);
        drop(shard);
    }
}

impl Shards {
    pub(crate) fn new(count: u16) -> Self {
        Self((0..count).map(|_| Mutex::new(None)).collect())
    }

    /// Turns a shard until the broker stops.
    pub(crate) fn run(&self, parts: Parts, mut poll: Poll) {
        let Some(slot) = self.0.get(parts.id.index()) else {
            return;
        };
        let (id, inboxes) = (parts.id, parts.inboxes.clone());
        #[cfg(target_os = "linux")]
        self.share_processors();
        let place = Place(slot);
        if let Ok(mut slot) = place.0.lock() {
            *slot = Shard::new(parts);
        }
        let mut events = Events::with_capacity(EVENTS);
        let mut to_wake = Vec::new();
        // Mail may have come before the shard was in its place.
        let mut timeout = Some(Duration::ZERO);
        loop {
            if !wait(id, &mut poll, &mut events, timeout) {
                return;
            }
            // Another thread that panicked in a turn of this shard leaves it half changed: that is the end of it.
            let Ok(mut shard) = place.0.lock() else {
                error!("shard {id}: a turn was not ended");
                return;
            };
            let Some(shard) = shard.as_mut() else {
                return;
            };
            shard.note(&events);
            if let Some(pause) = shard.begin_turn() {
                Clock::pause(pause);
                if !wait(id, &mut poll, &mut events, Some(Duration::ZERO)) {
                    return;
                }
                shard.note(&events);
                shard.judge_pause();
            }
            shard.turn();
            shard.take_to_wake(&mut to_wake);
            // Each gets a turn of what comes from here, and one of what comes of those; the rest are woken.
            let mut left = 2 * self.0.len();
            while let Some(other) = to_wake.pop() {
                let waits = left > 0 && self.turn_another(other, &mut to_wake);
                if !waits && let Some(inbox) = inboxes.get(other) {
                    inbox.wake();
                }
                left = left.saturating_sub(1);
            }
            if shard.is_finished() {
                return;
            }
            timeout = shard.before_wait();
        }
    }

    /// Lets threads of shards end what they do before others of them run in their place. One alone is better woken at
    /// once.
    #[cfg(target_os = "linux")]
    fn share_processors(&self) {
        static SAID: std::sync::Once = std::sync::Once::new();
        if self.0.len() > 1
            && let Err(error) = avocet_linux::wait_when_woken()
        {
            SAID.call_once(|| tracing::info!("shards are scheduled as other threads are: {error}"));
        }
    }

    /// Takes a turn of a shard that is not this thread's, and adds those that are to have a turn because of it. False
    /// if its own thread must have one.
    fn turn_another(&self, index: usize, to_wake: &mut Vec<usize>) -> bool {
        let Some(slot) = self.0.get(index) else {
            return false;
        };
        match slot.try_lock() {
            Ok(mut slot) => slot
                .as_mut()
                .is_some_and(|shard| shard.turn_for_another(to_wake)),
            // Its thread has begun a turn of its own, and may have looked for mail before.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => false,
        }
    }
}

/// Waits until something happens, or so long; false if that cannot be told.
fn wait(id: ShardId, poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> bool {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() != ErrorKind::Interrupted => {
            error!("shard {id}: waiting for events failed: {error}");
            false
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many turns are given away if so many clients are written to in each.
    fn given(loan: &mut Loan, turns: u32, writes: usize) -> u32 {
        let mut given = 0;
        for _ in 0..turns {
            if loan.is_given() {
                given += 1;
                loan.wrote(writes);
            }
        }
        given
    }

    #[test]
    fn turns_with_much_to_write_are_for_the_thread_of_the_shard() {
        let mut loan = Loan::default();
        assert_eq!(given(&mut loan, 1_000, WRITES_MAX), 1_000);
        assert_eq!(given(&mut loan, 65, WRITES_MAX + 1), 1);
        assert!(given(&mut loan, 100_000, WRITES_MAX + 1) < 40);
        given(&mut loan, 2 * KEPT.1, 1);
        assert_eq!(given(&mut loan, 1_000, 1), 1_000);
    }
}
