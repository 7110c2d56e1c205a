//! What arrives at a shard from other threads.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avocet_access::Rules;
use avocet_engine::{
    ConnectionId, Fetched, Moved, Peer, SessionKey, ShardId, ShardMessage, StoreState, Tenants,
    Verdict,
};
use avocet_session::CommitId;
use mio::Waker;

use crate::admission::{Pass, Ticket};
use crate::authorization::Permitted;
use crate::bans::BanList;
use crate::config::LostSubscriptions;
use crate::connection::Connection;
use crate::hooks::Reply;
use crate::stream::Stream;

/// One thing for a shard to do.
pub(crate) enum Mail {
    /// A connection that was accepted for this shard.
    Accepted {
        stream: Stream,
        peer: Peer,
        listener: u16,
        pass: Pass,
    },
    /// A connection another shard was the first to read from.
    Moved {
        connection: Box<Connection>,
        moved: Box<Moved>,
        ticket: Option<Box<Ticket>>,
    },
    /// A value of another shard's engine.
    FromShard(ShardId, ShardMessage),
    /// The in-process stream of a connection can be read or written again.
    Ready(ConnectionId),
    /// Everything that the shard committed up to here is durable.
    Committed(CommitId),
    /// What the shard asked the store for.
    Fetched {
        session: Arc<SessionKey>,
        /// The first sequence not looked at.
        next: u64,
        messages: Vec<Fetched>,
    },
    /// Whether a client may connect.
    Authenticated(ConnectionId, Box<Verdict>),
    /// What a client may do.
    Authorized(Box<Permitted>),
    /// What was answered to such questions holds no more.
    ForgetAnswers,
    /// What came of a question to hooks, by its number.
    Hooked(u64, Box<Reply>),
    /// The rules that hold from here on, and whether those are disconnected whose subscriptions they
    /// do not allow.
    Rules(Arc<Rules>, LostSubscriptions),
    /// Who is banned from here on.
    Bans(Arc<BanList>),
    /// Who belongs to which tenant from here on, and what tenants may have.
    Tenants(Arc<Tenants>),
    /// Whether there is no memory for more.
    Overloaded(bool),
    /// What the disk does.
    Store(StoreState),
    /// Somebody asks whether the shard still turns.
    Answer(SyncSender<()>),
    /// The broker stops.
    Stop,
}

/// One queue for all senders, first in first out: what was caused arrives after its cause.
///
/// It has no bound of its own. What engines send each other is bounded by their credits, what the
/// store, those who verify passwords and those who ask other servers answer by what they were asked, accepted connections by the system's limit on open files, and a stream is announced at most once until
/// it was looked at.
pub(crate) struct Inbox {
    /// None once the shard has ended.
    contents: Mutex<Option<Contents>>,
    waker: Waker,
    /// Bytes that the shard holds, as far as they can be counted.
    held: AtomicU64,
}

#[derive(Default)]
struct Contents {
    mail: Vec<Mail>,
    /// How many of these [may wait](ShardMessage::may_wait).
    credits: usize,
    /// How many others came from shards.
    values: usize,
    /// What the shard waits for; it looks at its mail only when it is woken.
    waits: Option<Waits>,
}

/// Mail for which a shard is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    ForAny,
    /// Not for what may wait.
    ForMore,
}

impl Contents {
    /// Whether the shard must be woken for new mail, which happens once.
    fn must_wake(&mut self, may_wait: bool) -> bool {
        let wakes = match self.waits {
            None => false,
            Some(Waits::ForAny) => true,
            Some(Waits::ForMore) => !may_wait,
        };
        wakes && self.waits.take().is_some()
    }
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            contents: Mutex::new(Some(Contents::default())),
            waker,
            held: AtomicU64::new(0),
        }
    }

    /// The shard holds so many bytes.
    pub(crate) fn set_held(&self, bytes: u64) {
        self.held.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that the shard holds, as it said last.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Adds all of `mail` of another shard, of which the memory stays and so many [may
    /// wait](ShardMessage::may_wait); true when the shard must be woken. Mail for a shard that has
    /// ended is dropped.
    #[must_use]
    pub(crate) fn append(&self, mail: &mut Vec<Mail>, credits: usize) -> bool {
        if let Some(contents) = &mut *self.lock() {
            let values = mail.len() - credits;
            contents.credits += credits;
            contents.values += values;
            contents.mail.append(mail);
            return contents.must_wake(values == 0);
        }
        // Dropping a stream takes its lock, which comes before that of the inbox.
        mail.clear();
        false
    }

    /// Adds mail, and wakes the shard if it waits. Mail for a shard that has ended is dropped.
    pub(crate) fn send(&self, mail: Mail) {
        let mut guard = self.lock();
        if let Some(contents) = &mut *guard {
            contents.mail.push(mail);
            if contents.must_wake(false) {
                drop(guard);
                self.wake();
            }
            return;
        }
        // Dropping a stream takes its lock, which comes before this one.
        drop(guard);
        drop(mail);
    }

    /// Whether the shard may wait, because there is no mail that may not; it is woken from here on,
    /// until it [is awake](Self::awake). One that wants credit waits for that too.
    pub(crate) fn may_wait(&self, wants_credit: bool) -> bool {
        let mut contents = self.lock();
        contents.as_mut().is_none_or(|contents| {
            let (waiting, waits) = if wants_credit {
                (0, Waits::ForAny)
            } else {
                (contents.credits, Waits::ForMore)
            };
            contents.waits = (contents.mail.len() == waiting).then_some(waits);
            contents.waits.is_some()
        })
    }

    /// The shard need not be woken, because it takes its mail soon: how much other shards sent that
    /// may not wait.
    pub(crate) fn awake(&self) -> usize {
        let mut contents = self.lock();
        contents.as_mut().map_or(0, |contents| {
            contents.waits = None;
            contents.values
        })
    }

    pub(crate) fn wake(&self) {
        // Fails only when the shard's poll is gone, and the shard with it.
        let _ = self.waker.wake();
    }

    /// Takes all mail, leaving `empty` (which must be that) in its place.
    pub(crate) fn take(&self, empty: &mut Vec<Mail>) {
        debug_assert!(empty.is_empty(), "mail would be lost");
        if let Some(contents) = &mut *self.lock() {
            (contents.credits, contents.values) = (0, 0);
            contents.waits = None;
            mem::swap(&mut contents.mail, empty);
        }
    }

    /// Takes no more mail, and drops what is there.
    pub(crate) fn close(&self) {
        let rest = self.lock().take();
        drop(rest);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Contents>> {
        // Nothing that holds the lock leaves the queue half changed.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> (mio::Poll, Inbox) {
        let poll = mio::Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Inbox::new(waker))
    }

    /// Other shards send so much, of which so much may wait; whether the shard must be woken.
    fn send(inbox: &Inbox, mail: usize, credits: usize) -> bool {
        let mut mail = (0..mail).map(|_| Mail::ForgetAnswers).collect();
        inbox.append(&mut mail, credits)
    }

    #[test]
    fn a_shard_that_waits_is_woken_once() {
        let (_poll, inbox) = inbox();
        assert!(!send(&inbox, 1, 0));
        assert!(!inbox.may_wait(false));
        inbox.take(&mut Vec::new());
        assert!(inbox.may_wait(false));
        assert!(send(&inbox, 1, 0));
        assert!(!send(&inbox, 1, 0));
    }

    #[test]
    fn credit_wakes_only_a_shard_that_wants_it() {
        let (_poll, inbox) = inbox();
        for (wants_credit, wakes) in [(false, false), (true, true)] {
            assert!(inbox.may_wait(wants_credit));
            assert_eq!(send(&inbox, 2, 2), wakes);
            assert_eq!(inbox.may_wait(wants_credit), !wakes);
            assert_eq!(inbox.awake(), 0);
            inbox.take(&mut Vec::new());
        }
        assert!(inbox.may_wait(false));
        assert!(!send(&inbox, 1, 1));
        assert!(!inbox.may_wait(true));
        assert!(inbox.may_wait(false));
        assert!(send(&inbox, 2, 1));
    }

    #[test]
    fn a_shard_that_is_awake_is_not_woken_and_knows_what_came() {
        let (_poll, inbox) = inbox();
        assert!(inbox.may_wait(false));
        assert_eq!(inbox.awake(), 0);
        assert!(!send(&inbox, 3, 1));
        inbox.send(Mail::ForgetAnswers);
        assert_eq!(inbox.awake(), 2);
        let mut mail = Vec::new();
        inbox.take(&mut mail);
        assert_eq!((mail.len(), inbox.awake()), (4, 0));
    }
}
