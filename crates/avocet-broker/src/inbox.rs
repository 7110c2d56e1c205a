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
    /// The shard waits, and looks at its mail only when it is woken.
    waits: bool,
}

impl Contents {
    /// Whether the shard must be woken for new mail, which happens once.
    fn must_wake(&mut self) -> bool {
        mem::take(&mut self.waits)
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

    /// Adds all of `mail`, of which the memory stays; true when the shard must be woken. Mail for
    /// a shard that has ended is dropped.
    #[must_use]
    pub(crate) fn append(&self, mail: &mut Vec<Mail>) -> bool {
        if let Some(contents) = &mut *self.lock() {
            contents.mail.append(mail);
            return contents.must_wake();
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
            if contents.must_wake() {
                drop(guard);
                self.wake();
            }
            return;
        }
        // Dropping a stream takes its lock, which comes before this one.
        drop(guard);
        drop(mail);
    }

    /// Whether the shard may wait, because there is no mail; it is woken from here on, until it
    /// takes its mail.
    pub(crate) fn may_wait(&self) -> bool {
        let mut contents = self.lock();
        contents.as_mut().is_none_or(|contents| {
            contents.waits = contents.mail.is_empty();
            contents.waits
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
            contents.waits = false;
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
