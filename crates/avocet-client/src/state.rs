//! What the handles and the driver share: the protocol's state machines, and who waits for them.

mod turn;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use avocet_codec::{List, ReasonCode, UserProperty};
use avocet_session::client::{
    Ages, ClientConfig, ClientConnection, PublishError as Unsendable, PublishId, SubscriptionKey,
    SubscriptionRequest, Subscriptions,
};
use avocet_session::{AckError, CloseReason, CommitId, Message, Now, Session};
use avocet_topic::TopicFilterBuf;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::debug;

use crate::authentication::EnhancedAuthentication;
use crate::clock::Clock;
use crate::config::{Authenticator, WhenFull, WhenSlow};
use crate::event::Listener;
use crate::inbox::Inbox;
use crate::outbox::{Bell, Outbox, Restored};
use crate::received::{Delivery, Due, Owed};
use crate::storage::Record;
use crate::{
    Acknowledged, Answered, Closed, Config, ConnectError, Connected, Disconnection, Event,
    PublishError, SubscribeError, aging,
};

pub(crate) type PublishAnswer = oneshot::Sender<Result<Acknowledged, PublishError>>;
pub(crate) type Answer = oneshot::Sender<Result<Answered, SubscribeError>>;

/// What the handles and the driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is room for messages to be sent, or there will never be.
    pub(crate) room: Notify,
    /// The end, once it has come.
    pub(crate) closed: watch::Sender<Option<Closed>>,
    /// There is something to store.
    pub(crate) bell: Bell,
    /// What is stored.
    pub(crate) committed: watch::Sender<CommitId>,
    /// What the server said when it accepted the latest connection.
    pub(crate) connected: watch::Sender<Option<Arc<Connected>>>,
    runtime: Handle,
}

/// The state machines of the protocol, and who waits for them.
pub(crate) struct State {
    link: Link,
    /// What CONNECT says, without what is changed for each connection; limits.
    pub(crate) config: ClientConfig,
    clock: Clock,
    /// When the driver last looked at the clock.
    now: Now,
    subscriptions: Subscriptions,
    /// Streams of subscriptions.
    inboxes: HashMap<SubscriptionKey, Inbox>,
    /// What no stream takes; none if the application does not want it.
    rest: Option<Inbox>,
    /// Messages that nobody takes; acknowledged once the application has taken a later one, which
    /// shows that it is not about to end.
    abandoned: Vec<Owed>,
    waiting: Waiting,
    ages: Ages,
    aging: Aging,
    answers: HashMap<SubscriptionKey, Answer>,
    pub(crate) listeners: BTreeMap<u64, Listener>,
    next_listener: u64,
    accepted: Option<Result<Connected, ConnectError>>,
    authenticator: Option<Authenticator>,
    pub(crate) authentication: Option<Box<dyn EnhancedAuthentication>>,
    pub(crate) manual_acknowledge: bool,
    receive_max: usize,
    when_slow: WhenSlow,
    when_full: WhenFull,
    /// Somebody waits for room.
    crowded: bool,
    /// The largest message among theirs.
    crowded_bytes: u64,
    /// Whether the DISCONNECT of the application ends a Session that is kept for reconnecting only.
    pub(crate) ends_session: bool,
    /// What the peer, or the system, said about the end of the connection.
    detail: Option<String>,
    server_reference: Option<String>,
    /// DISCONNECT, once everything before it is acknowledged, or at the deadline.
    disconnection: Option<(Disconnection, Instant)>,
    /// What DISCONNECT said, once it has begun to leave.
    disconnected: Option<ReasonCode>,
    /// The end of the connection, once it has come.
    over: Option<CloseReason>,
    /// The end of the client.
    ended: Option<Closed>,
    /// The way to the storage, if there is one.
    pub(crate) outbox: Option<Outbox>,
    /// The driver, if it sleeps.
    driver: Option<Waker>,
    /// To be woken when the lock is given back.
    wakers: Vec<Waker>,
}

/// The Session, and with a connection that too.
#[derive(Debug)]
enum Link {
    Offline(Box<Session>),
    Online(Box<ClientConnection>),
}

/// The task that ends the wait of messages that wait too long, once there is one that may.
#[derive(Debug, Default)]
enum Aging {
    /// There is none.
    #[default]
    Idle,
    /// It is to be started.
    Due,
    /// It sleeps, or is about to.
    Runs(Option<Waker>),
}

impl Aging {
    /// A message waits that may be the first to go.
    fn hurry(&mut self) {
        match self {
            Self::Idle => *self = Self::Due,
            Self::Due => {}
            Self::Runs(waker) => waker.take().into_iter().for_each(Waker::wake),
        }
    }
}

/// A message of QoS 1 or 2 that waits to be sent.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) answer: oneshot::Receiver<Result<Acknowledged, PublishError>>,
    /// The commit that stores it, if there is a storage.
    pub(crate) stored: Option<CommitId>,
}

/// Who waits for the end of a message, by its place in the Session.
#[derive(Debug, Default)]
struct Waiting {
    first: u64,
    waiting: VecDeque<Option<PublishAnswer>>,
}

impl Waiting {
    fn insert(&mut self, id: PublishId, answer: PublishAnswer) {
        if self.waiting.is_empty() {
            self.first = id.sequence();
        }
        let place = usize::try_from(id.sequence().saturating_sub(self.first)).unwrap_or(usize::MAX);
        // Places are given one after the other, so nothing is left out between.
        debug_assert!(place >= self.waiting.len(), "sequences rise");
        self.waiting.resize_with(place, || None);
        self.waiting.push_back(Some(answer));
    }

    fn remove(&mut self, id: PublishId) -> Option<PublishAnswer> {
        let place = usize::try_from(id.sequence().checked_sub(self.first)?).ok()?;
        let answer = self.waiting.get_mut(place)?.take();
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        answer
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(config: &mut Config, session: Session, restored: Option<Restored>) -> Self {
        let clock = Clock::new();
        let now = clock.now();
        let mut ages = Ages::new(config.max_age);
        let mut rest = Inbox::default();
        let outbox = restored.map(|restored| {
            for (sequence, queued_at, expires_at) in restored.queued {
                ages.handle_restored(sequence, queued_at, expires_at, now);
            }
            for stored in restored.incoming {
                rest.put(Delivery::restored(stored), usize::MAX, WhenSlow::default());
            }
            restored.outbox
        });
        let mut state = State {
            link: Link::Offline(Box::new(session)),
            config: config.connection.clone(),
            clock,
            now,
            subscriptions: Subscriptions::default(),
            inboxes: HashMap::new(),
            rest: Some(rest),
            abandoned: Vec::new(),
            waiting: Waiting::default(),
            ages,
            aging: Aging::default(),
            answers: HashMap::new(),
            listeners: BTreeMap::new(),
            next_listener: 0,
            accepted: None,
            authenticator: config.authenticator.take(),
            authentication: config.authentication.take(),
            manual_acknowledge: config.manual_acknowledge,
            receive_max: config.receive_max.max(1),
            when_slow: config.when_slow,
            when_full: config.when_full,
            crowded: false,
            crowded_bytes: 0,
            ends_session: false,
            detail: None,
            server_reference: None,
            disconnection: None,
            disconnected: None,
            over: None,
            ended: None,
            outbox,
            driver: None,
            wakers: Vec::new(),
        };
        if !state.ages.are_empty() {
            state.aging.hurry();
        }
        Self {
            state: Mutex::new(state),
            room: Notify::new(),
            bell: Bell::default(),
            committed: watch::Sender::new(CommitId::ZERO),
            closed: watch::Sender::new(None),
            connected: watch::Sender::new(None),
            runtime: Handle::current(),
        }
    }

    /// Why the client has ended.
    pub(crate) fn ended(&self) -> Closed {
        let closed = self.closed.borrow().clone();
        // Without an answer and without an end, the runtime has dropped the driver.
        closed.unwrap_or(Closed {
            reason: CloseReason::ConnectionLost,
            detail: None,
        })
    }

    /// The state, whatever became of those who had it before: nothing in here panics.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes the driver for it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state);
        let driver = state.driver.take();
        let stores = state.outbox.as_ref().is_some_and(Outbox::is_due);
        drop(state);
        if stores {
            self.bell.ring();
        }
        if let Some(driver) = driver {
            driver.wake();
        }
        value
    }

    /// Starts the task that ends the wait of messages.
    pub(crate) fn start_aging(self: &Arc<Self>) {
        self.runtime.spawn(aging::run(Arc::clone(self)));
    }

    pub(crate) fn acknowledge(&self, owed: Owed, reason_code: ReasonCode) -> Result<(), AckError> {
        self.change(|state| state.acknowledge(owed, reason_code))
    }

    /// Gives the lock back, and wakes who waited for what was done.
    pub(crate) fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        let room = state.crowded && (state.has_room() || state.ended.is_some());
        if room {
            state.crowded = false;
            state.crowded_bytes = 0;
        }
        let stores = state.outbox.as_ref().is_some_and(Outbox::is_due);
        drop(state);
        if stores {
            self.bell.ring();
        }
        if room {
            self.room.notify_waiters();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn token_dropped(&self) {
        let mut state = self.lock();
        state.tell(Event::Unacknowledged);
        self.unlock(state);
    }

    /// The client has ended: nothing changes any more.
    pub(crate) fn end(&self, closed: Closed) {
        debug!(%closed, "the client ends");
        let mut state = self.lock();
        state.end(closed.clone());
        // Told before those who wait for answers learn that there will be none.
        self.closed.send_replace(Some(closed));
        let unanswered = (
            std::mem::take(&mut state.waiting),
            std::mem::take(&mut state.answers),
        );
        state.crowded = true;
        // Its task has this state, which would never end otherwise.
        state.aging.hurry();
        self.unlock(state);
        drop(unanswered);
    }
}

impl State {
    // What handles do.

    pub(crate) fn ended(&self) -> Option<&Closed> {
        self.ended.as_ref()
    }

    pub(crate) fn session(&self) -> &Session {
        match &self.link {
            Link::Offline(session) => session,
            Link::Online(connection) => connection.session(),
        }
    }

    fn session_mut(&mut self) -> &mut Session {
        match &mut self.link {
            Link::Offline(session) => session,
            Link::Online(connection) => connection.session_mut(),
        }
    }

    pub(crate) fn take_session(&mut self) -> Session {
        match &mut self.link {
            Link::Offline(session) => std::mem::take(&mut **session),
            Link::Online(_) => Session::new(),
        }
    }

    fn has_room(&self) -> bool {
        let (session, limits) = (self.session(), &self.config.limits);
        let bytes = limits.queued_bytes_max;
        session.queued() <= limits.queued_messages_max / 2
            && session.queued_bytes() <= (bytes / 2).min(bytes.saturating_sub(self.crowded_bytes))
    }

    /// Whether to wait for room for this message, which there can be.
    pub(crate) fn waits_for_room(&self, message: &Message) -> bool {
        let len = u64::try_from(message.len());
        self.when_full == WhenFull::Wait
            && len.is_ok_and(|len| len <= self.config.limits.queued_bytes_max)
    }

    /// Notes that somebody waits for room for so many bytes.
    pub(crate) fn crowd(&mut self, bytes: usize) {
        self.crowded = true;
        self.crowded_bytes = self.crowded_bytes.max(bytes as u64);
    }

    /// Puts a message behind the others; at QoS 1 and 2 the answer is to be waited for.
    pub(crate) fn publish(&mut self, message: &Message) -> Result<Option<Published>, PublishError> {
        if let Some(closed) = &self.ended {
            return Err(closed.clone().into());
        }
        if self.disconnection.is_some() || self.disconnected.is_some() {
            return Err(Unsendable::Closed.into());
        }
        // The clock matters to what expires only, and to what is stored.
        let dated =
            message.expires_at().is_some() || self.ages.are_limited() || self.outbox.is_some();
        let now = if dated { self.clock.now() } else { self.now };
        let sent = self.session().leaves_when_stored(message.qos());
        let mut notices = Vec::new();
        let stored = self.outbox.as_ref().map(Outbox::commit);
        let id = match &mut self.link {
            Link::Online(connection) => {
                match connection.publish_stored(message.clone(), stored, now) {
                    // This connection has ended, but the next one will do.
                    Err(Unsendable::Closed) => connection.session_mut().publish(
                        message.clone(),
                        &self.config,
                        stored,
                        now,
                        &mut notices,
                    ),
                    published => published,
                }
            }
            Link::Offline(session) => {
                session.publish(message.clone(), &self.config, stored, now, &mut notices)
            }
        }?;
        notices
            .into_iter()
            .for_each(|notice| self.on_notice(notice));
        if dated {
            let session = match &self.link {
                Link::Offline(session) => session,
                Link::Online(connection) => connection.session(),
            };
            let expires_at = message.expires_at();
            if self.ages.handle_published(id, expires_at, session, now) {
                self.aging.hurry();
            }
        }
        let Some(id) = id else { return Ok(None) };
        if let Some(outbox) = &mut self.outbox {
            outbox.record(Record::Queued {
                sequence: id.sequence(),
                message: Message::clone(message),
                queued_at: now.unix,
                sent,
            });
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.insert(id, sender);
        Ok(Some(Published { answer, stored }))
    }

    /// Whether the task of [`State::age`] is to be started.
    pub(crate) fn starts_aging(&mut self) -> bool {
        let is_due = matches!(self.aging, Aging::Due);
        if is_due {
            self.aging = Aging::Runs(None);
        }
        is_due
    }

    /// Drops messages that have waited too long. When the next one has; the waker is for those that
    /// may be the first before.
    pub(crate) fn age(&mut self, waker: &Waker) -> Option<Instant> {
        let now = self.clock.now();
        let mut notices = Vec::new();
        let session = match &mut self.link {
            Link::Offline(session) => session,
            Link::Online(connection) => connection.session_mut(),
        };
        self.ages.handle_timeout(session, now, &mut notices);
        let next = self.ages.poll_timeout(session, now);
        self.aging = Aging::Runs(Some(waker.clone()));
        notices
            .into_iter()
            .for_each(|notice| self.on_notice(notice));
        next.map(|at| self.clock.deadline(at))
    }

    /// Asks for a subscription, with a stream of its own if it is `routed`.
    pub(crate) fn subscribe(
        &mut self,
        request: SubscriptionRequest,
        answer: Answer,
    ) -> Result<SubscriptionKey, SubscribeError> {
        self.check_request()?;
        let routed = request.routed;
        let key = self.subscriptions.subscribe(request);
        if routed {
            self.inboxes.insert(key, Inbox::default());
        }
        self.answers.insert(key, answer);
        Ok(key)
    }

    pub(crate) fn unsubscribe(
        &mut self,
        filters: Vec<TopicFilterBuf>,
        user_properties: Vec<(String, String)>,
        answer: Answer,
    ) -> Result<(), SubscribeError> {
        self.check_request()?;
        let key = self.subscriptions.unsubscribe(filters, user_properties);
        self.answers.insert(key, answer);
        Ok(())
    }

    fn check_request(&self) -> Result<(), SubscribeError> {
        match &self.ended {
            Some(closed) => Err(closed.clone().into()),
            None if self.subscriptions.pending() >= REQUESTS_MAX => {
                Err(avocet_session::client::SubscribeError::TooManyRequests.into())
            }
            None => Ok(()),
        }
    }

    /// The stream of a subscription is gone; the filters that were its own.
    pub(crate) fn drop_stream(&mut self, key: SubscriptionKey) -> Vec<TopicFilterBuf> {
        if let Some(inbox) = self.inboxes.remove(&key) {
            self.abandon(inbox);
        }
        self.answers.remove(&key);
        self.subscriptions.forget(key)
    }

    pub(crate) fn drop_rest(&mut self) {
        if let Some(inbox) = self.rest.take() {
            self.abandon(inbox);
        }
    }

    fn abandon(&mut self, inbox: Inbox) {
        let tokens = inbox
            .into_waiting()
            .filter_map(|delivery| delivery.due.done());
        self.abandoned.extend(tokens);
    }

    /// The inbox of a subscription, or that of everything else.
    pub(crate) fn inbox(&mut self, key: Option<SubscriptionKey>) -> Option<&mut Inbox> {
        match key {
            Some(key) => self.inboxes.get_mut(&key),
            None => self.rest.as_mut(),
        }
    }

    /// The application has taken a message from a stream, where so many wait still. True if the
    /// driver has something to do.
    pub(crate) fn taken(&mut self, delivery: &mut Delivery, waiting: usize) -> bool {
        // A stream that was full has come down to its half, once on its way: reading goes on.
        let mut news = self.when_slow == WhenSlow::StopReading && waiting == self.receive_max / 2;
        for token in std::mem::take(&mut self.abandoned) {
            news |= self.acknowledge(token, ReasonCode::Success).is_ok();
        }
        if !self.manual_acknowledge
            && let Some(token) = std::mem::replace(&mut delivery.due, Due::Nothing).done()
        {
            news |= self.acknowledge(token, ReasonCode::Success).is_ok();
        }
        news
    }

    /// The driver, to be woken.
    pub(crate) fn take_driver(&mut self) -> Option<Waker> {
        self.driver.take()
    }

    fn acknowledge(&mut self, owed: Owed, reason_code: ReasonCode) -> Result<(), AckError> {
        let token = match (owed, &mut self.outbox) {
            (Owed::Place(place), outbox) => {
                if let Some(outbox) = outbox {
                    outbox.take(place);
                }
                return Ok(());
            }
            (Owed::Token(token), _) => token,
        };
        let knows = self.session().knows(token);
        let stored = match &mut self.outbox {
            Some(outbox) if knows && !reason_code.is_error() => {
                Some(outbox.receive(token.packet_id(), None))
            }
            Some(_) | None => None,
        };
        match &mut self.link {
            Link::Online(connection) => connection.acknowledge_stored(token, reason_code, stored),
            Link::Offline(session) => {
                session.answer(token, reason_code, stored);
                Err(AckError::Stale)
            }
        }
    }

    pub(crate) fn reauthenticate(&mut self, data: Option<&[u8]>) {
        if let Link::Online(connection) = &mut self.link {
            let sent = connection.reauthenticate(data);
            debug!(?sent, "authentication begins anew");
        }
    }

    pub(crate) fn listen(&mut self) -> u64 {
        let id = self.next_listener;
        self.next_listener += 1;
        self.listeners.insert(id, Listener::default());
        id
    }

    /// DISCONNECT, when nothing is queued or in flight any more, or at the deadline.
    pub(crate) fn disconnect(&mut self, disconnection: Disconnection, deadline: Duration) {
        if self.disconnected.is_some() {
            return;
        }
        let deadline = Instant::now() + deadline;
        self.disconnection.get_or_insert((disconnection, deadline));
    }
}

/// SUBSCRIBE and UNSUBSCRIBE without an answer.
const REQUESTS_MAX: usize = 1024;

pub(crate) fn owned(pairs: List<'_, UserProperty<'_>>) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|pair| (pair.name.to_owned(), pair.value.to_owned()))
        .collect()
}
