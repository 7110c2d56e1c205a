//! One shard: an engine, and the loop that drives it.

mod arriving;
mod commands;
pub(crate) mod hooks;
mod limits;
pub(crate) mod quiet;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod together;
mod transfer;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use avocet_engine::{ConnectionId, Engine, ShardId};
use avocet_session::{Instant, Now, TransmitBuf};
use mio::{Events, Registry, Token};
use tracing::error;

use self::hooks::Questions;
use self::transfer::{feed_unread, read, receive, send, send_rest};
use crate::acceptor::Acceptor;
use crate::access::Authenticator;
use crate::admission::Admission;
use crate::arrivals::{self, Arrivals};
use crate::authorization::Authorizer;
use crate::clock::Clock;
use crate::connection::{Closing, Reading};
use crate::connections::{Connections, Key};
use crate::doors::Doors;
use crate::gathering::Gathering;
use crate::inbox::{Inbox, Mail};
use crate::store::StoreHandle;
use crate::turning::Loan;

/// Bytes read from one connection at once, into the one buffer of the shard.
const READ_BYTES: usize = 64 << 10;

/// Bytes read from all connections before what came of them is written, while it is still in the
/// cache of the processor.
const TURN_BYTES: usize = READ_BYTES;

/// The same while there is little from each connection or for each, so that more leaves with each
/// system call.
const SCATTERED_BYTES: usize = 8 * TURN_BYTES;

/// What is little for a connection.
const SCATTERED_MAX: usize = 4 << 10;

/// Bytes taken from the engine for one connection at once.
const TRANSMIT_BYTES: usize = 64 << 10;

pub(crate) const EVENTS: usize = 1_024;

/// How long a connection that the broker closes may take to read what was sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the peer may then take to close too.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// By so much the poll may be late in any case, which counts milliseconds.
const LATE_MAX: Duration = Duration::from_millis(1);

/// The token of the waker; those of the listeners count down from it.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// The token of a listener.
pub(crate) fn listener_token(index: usize) -> Token {
    Token(usize::MAX - 1 - index)
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) id: ShardId,
    pub(crate) engine: Engine,
    /// None when all state is in memory.
    pub(crate) store: Option<StoreHandle>,
    pub(crate) clock: Clock,
    /// Where the shard's thread waits.
    pub(crate) registry: Registry,
    /// The inboxes of all shards, this one's at its index.
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    /// In one shard: the listeners of the broker.
    pub(crate) acceptor: Acceptor,
    /// What lies behind each listener.
    pub(crate) doors: Doors,
    /// Whose connections are taken.
    pub(crate) admission: Arc<Admission>,
    pub(crate) handshakes_max: usize,
    /// How long a packet may take to come; zero: as long as it takes.
    pub(crate) packet_timeout: Duration,
    pub(crate) gather_max: Duration,
    pub(crate) stop_timeout: Duration,
    /// None when nobody is asked who he is.
    pub(crate) authenticator: Option<Authenticator>,
    /// None when nobody is asked what clients may do.
    pub(crate) authorizer: Option<Authorizer>,
    /// None when no program is asked.
    pub(crate) questions: Option<Questions>,
}

pub(crate) struct Shard {
    id: ShardId,
    engine: Engine,
    store: Option<StoreHandle>,
    /// So much waits for the store that nothing is read.
    stalled: bool,
    clock: Clock,
    /// When the turn began, and the last one ended.
    now: Now,
    ended: Instant,
    /// When the engine is to be told the time.
    due: Option<Instant>,
    /// Until when the shard's thread waits if nothing happens; none for ever.
    waits_until: Option<Instant>,
    /// Whether the last turn left connections to read.
    left: bool,
    /// Whether others take turns of this shard.
    loan: Loan,
    /// Clients written to in the last turn.
    written: usize,
    /// How much there is for the turn.
    input: usize,
    registry: Registry,
    inboxes: Arc<[Arc<Inbox>]>,
    inbox: Arc<Inbox>,
    acceptor: Acceptor,
    doors: Doors,
    admission: Arc<Admission>,
    handshakes_max: usize,
    packet_timeout: Duration,
    gathering: Gathering,
    stop_timeout: Duration,
    authenticator: Option<Authenticator>,
    authorizer: Option<Authorizer>,
    questions: Option<Questions>,
    arrivals: Arrivals,
    connections: Connections,
    /// When WebSocket clients are pinged. Those that are gone are left out when their time comes.
    pings: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    /// Connections that may not wake the shard, and when they are looked at.
    quiet: VecDeque<(Instant, ConnectionId)>,
    /// When those are looked at that had begun a packet.
    partial: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    /// Connections to read, each for one slice per turn.
    ready: VecDeque<Key>,
    /// Connections that have something to write.
    dirty: Vec<Key>,
    /// Mail for one other shard, until there is some for another one or the turn ends.
    outgoing: Vec<Mail>,
    outgoing_to: usize,
    /// How much of it may wait.
    outgoing_credits: usize,
    /// Shards that wait, have new mail and were not woken.
    to_wake: Vec<usize>,
    /// Connections that are being closed, with the time when they are dropped.
    draining: VecDeque<(Instant, ConnectionId)>,
    lingering: VecDeque<(Instant, ConnectionId)>,
    /// Connections accepted here or for this shard so far.
    count: u64,
    /// The shard that gets the next accepted connection.
    next_shard: usize,
    /// When the last connections are dropped, once the broker stops.
    stop_at: Option<Instant>,
    buffer: Box<[u8]>,
    transmit: TransmitBuf,
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    together: together::Together,
    mail: Vec<Mail>,
}

impl Shard {
    /// None when there is no inbox for the shard's index.
    pub(crate) fn new(parts: Parts) -> Option<Self> {
        Some(Self {
            id: parts.id,
            engine: parts.engine,
            store: parts.store,
            stalled: false,
            clock: parts.clock,
            now: parts.clock.now(),
            ended: Instant::ORIGIN,
            due: None,
            waits_until: None,
            left: false,
            loan: Loan::default(),
            written: 0,
            input: 0,
            registry: parts.registry,
            inbox: Arc::clone(parts.inboxes.get(parts.id.index())?),
            inboxes: parts.inboxes,
            acceptor: parts.acceptor,
            doors: parts.doors,
            handshakes_max: parts.handshakes_max,
            packet_timeout: parts.packet_timeout,
            gathering: Gathering::new(parts.gather_max),
            stop_timeout: parts.stop_timeout,
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            questions: parts.questions,
            arrivals: Arrivals::default(),
            connections: Connections::new(Arc::clone(&parts.admission)),
            admission: parts.admission,
            pings: BinaryHeap::new(),
            quiet: VecDeque::new(),
            partial: BinaryHeap::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            outgoing: Vec::new(),
            outgoing_to: 0,
            outgoing_credits: 0,
            to_wake: Vec::new(),
            draining: VecDeque::new(),
            lingering: VecDeque::new(),
            count: 0,
            next_shard: 0,
            stop_at: None,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            transmit: TransmitBuf::new(TRANSMIT_BYTES),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            together: together::Together::new(),
            mail: Vec::new(),
        })
    }

    /// Notes what has happened.
    pub(crate) fn note(&mut self, events: &Events) {
        for event in events {
            self.note_event(event);
        }
        self.connections.events_noted();
    }

    /// Begins a turn, or says how long to wait before it so that more comes.
    pub(crate) fn begin_turn(&mut self) -> Option<Duration> {
        let input = self.input();
        self.now = self.clock.now_after(self.now);
        let pause = self.gathering.pause(input, self.now.instant);
        self.input = input;
        pause.filter(|_| !self.left)
    }

    /// What a pause before the turn came to.
    pub(crate) fn judge_pause(&mut self) {
        let after = self.input();
        let before = mem::replace(&mut self.input, after);
        self.gathering.judge(before, after);
        self.now = self.clock.now_after(self.now);
    }

    /// Does what there is to do.
    pub(crate) fn turn(&mut self) {
        let now = self.now;
        self.gathering
            .begin(self.input, self.ready.len(), now.instant);
        self.handle_mail(now);
        self.accept(now);
        self.stalled = self.store.as_ref().is_some_and(StoreHandle::is_full);
        if !self.stalled {
            self.read_ready(now);
            self.end_quiet(now);
        }
        self.advance_arrival(now);
        self.count_refused();
        if self.due.is_some_and(|at| at <= now.instant) {
            self.engine.handle_timeout(now);
        }
        self.miss_deadlines(now);
        self.end_partial(now);
        self.carry_out(now);
        self.drop_overdue(now);
        self.ping(now);
        self.tell_held();
    }

    /// The same by the thread of another shard, while this one's waits. False if this one's is to take the next turn:
    /// this one, if there is much to write in them, or one sooner than it would by itself.
    pub(crate) fn turn_for_another(&mut self, to_wake: &mut Vec<usize>) -> bool {
        if !self.loan.is_given() {
            return false;
        }
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        self.together.set_lent(true);
        // Where there is little to do, nobody waits for more.
        let _ = self.begin_turn();
        self.turn();
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        self.together.set_lent(false);
        self.take_to_wake(to_wake);
        let next = self.next_turn();
        self.loan.wrote(self.written);
        !self.is_finished()
            && match (next, self.waits_until) {
                (None, _) => true,
                (Some(next), Some(waits_until)) => waits_until <= next + LATE_MAX,
                (Some(_), None) => false,
            }
    }

    /// Who is to have a turn, or to be woken, because of this one.
    pub(crate) fn take_to_wake(&mut self, to_wake: &mut Vec<usize>) {
        to_wake.append(&mut self.to_wake);
    }

    /// How long the shard may wait for the next turn.
    pub(crate) fn before_wait(&mut self) -> Option<Duration> {
        self.waits_until = self.next_turn();
        self.waits_until.map(|next| next.duration_since(self.ended))
    }

    /// How much there is for this turn: connections to read, and what others read for this shard.
    fn input(&self) -> usize {
        self.ready.len() + self.inbox.awake()
    }

    pub(crate) fn is_finished(&self) -> bool {
        let Some(stop_at) = self.stop_at else {
            return false;
        };
        self.connections.len() == 0 || stop_at <= self.clock.now().instant
    }

    /// The turn is over: when the next one must be at the latest. From here on the shard is woken for what comes
    /// into its inbox.
    fn next_turn(&mut self) -> Option<Instant> {
        self.left = !self.ready.is_empty();
        // Where nobody asks how long a turn took, timers may be late by as much.
        self.ended = if self.gathering.is_loaded() || self.inboxes.len() > 1 {
            self.clock.instant()
        } else {
            self.now.instant
        };
        self.gathering.end(self.ended);
        self.due = self.engine.poll_timeout();
        let ready = self.left && !self.stalled;
        let coming = self.acceptor.is_ready() || self.arrivals.is_ready();
        let busy = ready || !self.dirty.is_empty() || coming;
        if busy || !self.inbox.may_wait(self.engine.wants_credit()) {
            return Some(Instant::ORIGIN);
        }
        Instant::first_of([
            self.due,
            self.draining.front().map(|closing| closing.0),
            self.lingering.front().map(|closing| closing.0),
            self.acceptor.timeout(),
            self.arrivals.timeout(),
            self.pings.peek().map(|ping| ping.0.0),
            self.questions.as_ref().and_then(Questions::timeout),
            self.partial.peek().map(|partial| partial.0.0),
            self.quiet_timeout(),
            self.stop_at,
        ])
    }

    fn note_event(&mut self, event: &mio::event::Event) {
        if event.token() == WAKER {
            return;
        }
        let below_waker = usize::MAX - 1 - event.token().0;
        if below_waker < self.doors.len() {
            self.acceptor.set_ready(below_waker);
            return;
        }
        if let Some(key) = arrivals::key(event.token()) {
            self.arrivals.set_ready(key);
            return;
        }
        let key = event.token().0;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if event.is_readable() || event.is_error() {
            connection.readable = true;
            connection.read_closed |= event.is_read_closed() || event.is_error();
            self.set_ready(key);
        }
        if event.is_writable() {
            self.retry_write(key);
        }
    }

    /// Puts a connection into the queue of those to read, if it may be read.
    fn set_ready(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let useful = match connection.reading {
            Reading::Stream => connection.readable,
            Reading::Unread => true,
            Reading::Paused => false,
        };
        if useful && !connection.in_ready {
            connection.in_ready = true;
            self.ready.push_back(key);
        }
    }

    fn set_dirty(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !connection.in_dirty {
            connection.in_dirty = true;
            self.dirty.push(key);
        }
    }

    /// Puts a connection whose output was stuck into the list of those to write.
    fn retry_write(&mut self, key: Key) {
        if self
            .connections
            .get_mut(key)
            .is_some_and(|connection| connection.unsent.is_some() || connection.stream.has_unsent())
        {
            self.set_dirty(key);
        }
    }

    fn handle_mail(&mut self, now: Now) {
        let mut mail = mem::take(&mut self.mail);
        self.inbox.take(&mut mail);
        for item in mail.drain(..) {
            match item {
                Mail::Accepted {
                    stream,
                    peer,
                    listener,
                    pass,
                } => self.open(stream, peer, listener, pass, now),
                Mail::Moved {
                    connection,
                    moved,
                    ticket,
                } => self.take_over(*connection, moved, ticket, now),
                Mail::FromShard(from, value) => self.engine.handle_from_shard(from, value, now),
                Mail::Ready(id) => {
                    let Some(key) = self.connections.key(id) else {
                        continue;
                    };
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.readable = true;
                    }
                    self.set_ready(key);
                    self.retry_write(key);
                }
                Mail::Committed(id) => self.engine.handle_committed(id, now),
                Mail::Fetched {
                    session,
                    next,
                    messages,
                } => self.engine.handle_fetched(&session, next, messages, now),
                Mail::Authenticated(id, verdict) => self.handle_authenticated(id, *verdict, now),
                Mail::Hooked(number, reply) => self.handle_reply(number, *reply, now),
                Mail::Authorized(permitted) => self.permit(*permitted, now),
                Mail::ForgetAnswers => self.engine.forget_answers(),
                Mail::Rules(rules, lost) => self.set_rules(rules, lost, now),
                Mail::Bans(bans) => self.ban(&bans, now),
                Mail::Tenants(tenants) => self.engine.set_tenants(tenants),
                Mail::Overloaded(overloaded) => self.engine.set_overloaded(overloaded),
                Mail::Store(state) => self.engine.set_store(state),
                Mail::Answer(answer) => {
                    // There is room for each shard's answer; who asked may have gone.
                    let _ = answer.try_send(());
                }
                Mail::Stop => self.stop(now),
            }
        }
        // Keep the memory for the next time, unless it was an unusual lot.
        if mail.capacity() <= EVENTS {
            self.mail = mail;
        }
    }

    fn stop(&mut self, now: Now) {
        if self.stop_at.is_none() {
            self.read_all_quiet(now);
            self.acceptor.close();
            self.arrivals = Arrivals::default();
            self.engine.handle_shutdown(now);
            self.stop_at = Some(now.instant + self.stop_timeout);
        }
    }

    /// Pings the WebSocket clients whose time has come.
    fn ping(&mut self, now: Now) {
        while let Some(Reverse((at, id))) = self.pings.peek().copied() {
            if now.instant < at {
                return;
            }
            self.pings.pop();
            let key = self.connections.key(id);
            if let Some(connection) = key.and_then(|key| self.connections.get_mut(key))
                && let Some(every) = connection.stream.ping_interval()
            {
                connection.stream.ping();
                self.pings.push(Reverse((now.instant + every, id)));
            }
        }
    }

    /// Reads each connection that is ready once, up to the bytes of a turn.
    fn read_ready(&mut self, now: Now) {
        let mut bytes = 0;
        let queued = self.engine.counters().queued_bytes;
        for reads in 0..self.ready.len() {
            if bytes >= TURN_BYTES
                && (bytes >= SCATTERED_BYTES
                    || bytes >= SCATTERED_MAX * reads && !self.is_scattered(queued))
            {
                return;
            }
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            bytes += self.read_once(key, now);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.was_read(&self.engine);
            }
        }
    }

    /// Reads a connection once; how many bytes.
    fn read_once(&mut self, key: Key, now: Now) -> usize {
        let Some(connection) = self.connections.get_mut(key) else {
            return 0;
        };
        connection.in_ready = false;
        let mut bytes = 0;
        let gone = match (connection.closing, connection.reading) {
            (_, Reading::Paused) => false,
            (Closing::Open, Reading::Unread) => {
                feed_unread(&mut self.engine, connection, now);
                false
            }
            (Closing::Open, Reading::Stream) => {
                let read = read(&mut self.engine, connection, &mut self.buffer, now);
                bytes = read.as_ref().copied().unwrap_or_default();
                read.is_err()
            }
            (Closing::Draining | Closing::Lingering, _) => {
                let gone = receive(connection, &mut self.buffer).is_err();
                gone && (connection.closing == Closing::Lingering || connection.unsent.is_none())
            }
        };
        if connection.is_partial() && !connection.partial_watched && !self.packet_timeout.is_zero()
        {
            connection.partial_watched = true;
            let at = now.instant + self.packet_timeout;
            self.partial.push(Reverse((at, connection.id)));
        }
        let read = !connection.readable || connection.reading == Reading::Paused;
        if gone || connection.broken && read {
            self.lose(key, now);
        } else {
            self.set_ready(key);
        }
        bytes
    }

    /// Whether what was queued in this turn, since there were so many bytes, is little for each
    /// connection.
    fn is_scattered(&self, queued: u64) -> bool {
        let came = self.engine.counters().queued_bytes.saturating_sub(queued);
        came < (SCATTERED_MAX * self.engine.flushes()) as u64
    }

    /// The peer closed a connection, or it broke.
    fn lose(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        if connection.closing == Closing::Open {
            self.engine.handle_closed(connection.id, now);
            self.forget_authentication(connection.id);
        }
    }

    fn forget_authentication(&mut self, id: ConnectionId) {
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.forget(id);
        }
    }

    /// A connection cannot be written. It is lost once what it has sent is read.
    fn fail_write(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.unsent = None;
        if connection.closing != Closing::Open || connection.reading == Reading::Paused {
            return self.lose(key, now);
        }
        connection.broken = true;
        connection.readable = true;
        connection.read_closed = true;
        self.set_ready(key);
    }

    /// Carries out what the engine wants, and writes each connection that has output once.
    fn carry_out(&mut self, now: Now) {
        self.handle_commands(now);
        let mut dirty = mem::take(&mut self.dirty);
        self.written = dirty.len();
        for key in dirty.drain(..) {
            self.write(key, now);
        }
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        self.write_together(now);
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
        // Output that writing gave rise to goes out in the next turn.
        self.handle_commands(now);
    }

    /// The engine is done with a connection.
    fn close(&mut self, id: ConnectionId, now: Now) {
        self.forget_authentication(id);
        let Some(key) = self.connections.key(id) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.closing = Closing::Draining;
        connection.reading = Reading::Stream;
        connection.unread.set(&[]);
        self.draining.push_back((now.instant + DRAIN_TIMEOUT, id));
        self.finish_closing(key, now);
    }

    /// Takes a connection that is being closed a step further, if all is sent.
    ///
    /// A socket that is dropped with unread input resets the connection, and the peer may lose what
    /// was sent last. So when that matters, the input is read until the peer closes too.
    fn finish_closing(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.closing != Closing::Draining || connection.unsent.is_some() {
            return;
        }
        if connection.spoke_last && !connection.read_closed && connection.stream.may_reset() {
            connection.closing = Closing::Lingering;
            connection.stream.shutdown_write();
            self.lingering
                .push_back((now.instant + LINGER_TIMEOUT, connection.id));
            self.set_ready(key);
        } else {
            self.connections.remove(key);
        }
    }

    fn drop_overdue(&mut self, now: Now) {
        for queue in [&mut self.draining, &mut self.lingering] {
            while let Some((at, id)) = queue.front().copied() {
                let key = self.connections.key(id);
                if key.is_some() && now.instant < at {
                    break;
                }
                queue.pop_front();
                if let Some(key) = key {
                    self.connections.remove(key);
                }
            }
        }
    }

    /// Writes what is unsent, then what the engine has. What is more than a connection may take at
    /// once waits for the next turn.
    fn write(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        // A place in the list may be that of a connection that is gone.
        if !mem::take(&mut connection.in_dirty) {
            return;
        }
        if let Some(unsent) = &mut connection.unsent {
            match send(&mut connection.stream, unsent) {
                Ok(true) => connection.unsent = None,
                Ok(false) => return,
                Err(_) => return self.fail_write(key, now),
            }
        }
        if connection.closing != Closing::Open {
            return self.finish_closing(key, now);
        }
        if connection.broken {
            return;
        }
        let more = self
            .engine
            .poll_transmit(connection.id, now, &mut self.transmit);
        if self.transmit.is_empty() {
            // Answers of TLS and WebSocket that found no room.
            if connection.stream.flush().is_err() {
                self.fail_write(key, now);
            } else if !connection.stay_quiet(&self.engine) {
                self.read_again(key);
            }
            return;
        }
        if !mem::replace(&mut connection.spoke_last, true) {
            self.gathering.answer();
        }
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        if self
            .together
            .take(key, &connection.stream, &mut self.transmit, more)
        {
            if self.together.is_full() {
                self.write_together(now);
            }
            return;
        }
        self.write_rest(key, None, more, now);
    }

    /// Writes what is left of the output of a connection, of which so much was written.
    fn write_rest(&mut self, key: Key, written: Option<io::Result<usize>>, more: bool, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            self.transmit.clear();
            return;
        };
        match send_rest(&mut connection.stream, &mut self.transmit, written) {
            Ok(true) if more => {
                connection.in_dirty = true;
                self.dirty.push(key);
            }
            Ok(true) => self.hush(key, now),
            Ok(false) => {
                connection.unsent = Some(Box::new(self.transmit.take_rest()));
                if connection.end_quiet() {
                    self.read_again(key);
                }
                self.watch_room(key, now);
            }
            Err(_) => {
                self.transmit.clear();
                self.fail_write(key, now);
            }
        }
    }

    /// Lets the poll tell when a socket that is full takes more; from then on, since it will be full
    /// again.
    fn watch_room(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.watches_room {
            return;
        }
        connection.watches_room = true;
        let interest = connection.interest();
        if let Some(source) = connection.stream.source()
            && let Err(error) = self.registry.reregister(source, Token(key), interest)
        {
            error!("cannot watch connection {}: {error}", connection.id);
            self.fail_write(key, now);
        }
    }
}
