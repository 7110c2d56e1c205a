//! What the handles and the driver share: the protocol's state machines, and who waits for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use avocet_codec::{
    Auth, Connack, Disconnect, List, ReasonCode, SubscriptionId, UserProperty, Version,
};
use avocet_session::client::{
    ClientConfig, ClientConnection, ClientEvent, ClientNotice, PublishError as Unsendable,
    PublishId, SubscriptionKey, SubscriptionRequest, Subscriptions,
};
use avocet_session::{
    AckError, AckToken, CloseReason, Demand, IncomingPublish, Message, Now, Overflow, Session,
};
use avocet_topic::TopicFilterBuf;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, trace};

use crate::clock::Clock;
use crate::config::{Authenticator, WhenSlow};
use crate::event::Listener;
use crate::inbox::Inbox;
use crate::received::{Delivery, Due};
use crate::{
    Acknowledged, Answered, Closed, Config, ConnectError, Connected, Disconnection, Event,
    PublishError, SubscribeError,
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
    /// What the server said when it accepted the latest connection.
    pub(crate) connected: watch::Sender<Option<Arc<Connected>>>,
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
    abandoned: Vec<AckToken>,
    published: Published,
    answers: HashMap<SubscriptionKey, Answer>,
    pub(crate) listeners: BTreeMap<u64, Listener>,
    next_listener: u64,
    accepted: Option<Result<Connected, ConnectError>>,
    authenticator: Option<Authenticator>,
    pub(crate) manual_acknowledge: bool,
    receive_max: usize,
    when_slow: WhenSlow,
    publish_max: usize,
    /// Somebody waits for room.
    crowded: bool,
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

/// Who waits for the end of a message, by its place in the Session.
#[derive(Debug, Default)]
struct Published {
    first: u64,
    waiting: VecDeque<Option<PublishAnswer>>,
}

impl Published {
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
    pub(crate) fn new(config: &mut Config, session: Session) -> Self {
        let clock = Clock::new();
        let state = State {
            link: Link::Offline(Box::new(session)),
            config: config.connection.clone(),
            clock,
            now: clock.now(),
            subscriptions: Subscriptions::default(),
            inboxes: HashMap::new(),
            rest: Some(Inbox::default()),
            abandoned: Vec::new(),
            published: Published::default(),
            answers: HashMap::new(),
            listeners: BTreeMap::new(),
            next_listener: 0,
            accepted: None,
            authenticator: config.authenticator.take(),
            manual_acknowledge: config.manual_acknowledge,
            receive_max: config.receive_max.max(1),
            when_slow: config.when_slow,
            publish_max: config.publish_max.max(1),
            crowded: false,
            ends_session: false,
            detail: None,
            server_reference: None,
            disconnection: None,
            disconnected: None,
            over: None,
            ended: None,
            driver: None,
            wakers: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            room: Notify::new(),
            closed: watch::Sender::new(None),
            connected: watch::Sender::new(None),
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
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        value
    }

    pub(crate) fn acknowledge(
        &self,
        token: AckToken,
        reason_code: ReasonCode,
    ) -> Result<(), AckError> {
        self.change(|state| state.acknowledge(token, reason_code))
    }

    /// Gives the lock back, and wakes who waited for what was done.
    pub(crate) fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        let room = state.crowded && (state.has_room() || state.ended.is_some());
        if room {
            state.crowded = false;
        }
        drop(state);
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
            std::mem::take(&mut state.published),
            std::mem::take(&mut state.answers),
        );
        state.crowded = true;
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

    pub(crate) fn take_session(&mut self) -> Session {
        match &mut self.link {
            Link::Offline(session) => std::mem::take(&mut **session),
            Link::Online(_) => Session::new(),
        }
    }

    fn has_room(&self) -> bool {
        self.session().queued() <= self.publish_max / 2
    }

    /// Whether there can ever be room for this message.
    pub(crate) fn fits(&self, message: &Message) -> bool {
        u64::try_from(message.len()).is_ok_and(|len| len <= self.config.limits.queued_bytes_max)
    }

    /// Notes that somebody waits for room.
    pub(crate) fn crowd(&mut self) {
        self.crowded = true;
    }

    /// Puts a message behind the others; at QoS 1 and 2 the answer is to be waited for.
    pub(crate) fn publish(
        &mut self,
        message: &Arc<Message>,
    ) -> Result<Option<oneshot::Receiver<Result<Acknowledged, PublishError>>>, PublishError> {
        if let Some(closed) = &self.ended {
            return Err(closed.clone().into());
        }
        if self.disconnection.is_some() || self.disconnected.is_some() {
            return Err(Unsendable::Closed.into());
        }
        if self.config.limits.overflow == Overflow::DropNewest
            && self.session().queued() >= self.publish_max
        {
            return Err(Unsendable::QueueFull.into());
        }
        // The clock matters to what expires only.
        let now = if message.expires_at().is_some() {
            self.clock.now()
        } else {
            self.now
        };
        let mut notices = Vec::new();
        let id = match &mut self.link {
            Link::Online(connection) => connection.publish(Arc::clone(message), now),
            Link::Offline(session) => {
                session.publish(Arc::clone(message), &self.config, now, &mut notices)
            }
        }?;
        notices
            .into_iter()
            .for_each(|notice| self.on_notice(notice));
        let Some(id) = id else { return Ok(None) };
        let (sender, answer) = oneshot::channel();
        self.published.insert(id, sender);
        Ok(Some(answer))
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

    /// The application has taken a message from a stream. True if the driver has something to do.
    pub(crate) fn taken(&mut self, delivery: &mut Delivery) -> bool {
        let mut news = self.when_slow == WhenSlow::StopReading;
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

    fn acknowledge(&mut self, token: AckToken, reason_code: ReasonCode) -> Result<(), AckError> {
        match &mut self.link {
            Link::Online(connection) => connection.acknowledge(token, reason_code),
            Link::Offline(session) => {
                session.answer(token, reason_code, None);
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

    // What the driver does.

    /// A driver that is about to sleep.
    pub(crate) fn sleep(&mut self, waker: &Waker) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(waker),
            none @ None => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let woken = self.listeners.values_mut();
        self.wakers
            .extend(woken.filter_map(|listener| listener.put(event.clone())));
    }

    /// A stream stands: CONNECT is the next thing to leave.
    pub(crate) fn begin(&mut self, config: ClientConfig) {
        self.now = self.clock.now();
        self.over = None;
        self.accepted = None;
        self.detail = None;
        self.server_reference = None;
        let session = self.take_session();
        let connection = ClientConnection::new(config, session, self.now);
        self.link = Link::Online(Box::new(connection));
    }

    /// The connection has ended, and its stream is closed: the Session waits for the next.
    pub(crate) fn finish(&mut self) {
        if let Link::Online(connection) =
            std::mem::replace(&mut self.link, Link::Offline(Box::default()))
        {
            self.link = Link::Offline(Box::new(connection.into_session()));
        }
    }

    /// What the server said to CONNECT, once it has.
    pub(crate) fn take_accepted(&mut self) -> Option<Result<Connected, ConnectError>> {
        self.accepted.take()
    }

    /// How the connection ended, once it has.
    pub(crate) fn over(&self) -> Option<Closed> {
        let reason = self.over?;
        Some(Closed {
            reason,
            detail: self.detail.clone(),
        })
    }

    /// Another server, if the one that is left named it.
    pub(crate) fn take_server_reference(&mut self) -> Option<String> {
        self.server_reference.take()
    }

    /// While there is no connection: when the application wants none any more.
    pub(crate) fn stops_at(&self) -> Option<Instant> {
        let (_, deadline) = match (&self.disconnection, self.disconnected) {
            (Some(disconnection), None) if !self.is_idle() => disconnection,
            (None, None) => return None,
            (Some(_), _) | (None, Some(_)) => return Some(Instant::now()),
        };
        Some(*deadline)
    }

    pub(crate) fn disconnect_reason(&self) -> ReasonCode {
        let asked = self.disconnection.as_ref().map(|(it, _)| it.reason_code);
        let reason_code = self.disconnected.or(asked);
        reason_code.unwrap_or(ReasonCode::NORMAL_DISCONNECTION)
    }

    /// Whether nothing is queued or in flight.
    pub(crate) fn is_idle(&self) -> bool {
        let session = self.session();
        session.queued() == 0 && session.in_flight() == 0
    }

    /// The stream has failed, or ended.
    pub(crate) fn handle_closed(&mut self, detail: Option<String>) {
        if let Some(detail) = detail {
            self.detail.get_or_insert(detail);
        }
        if let Link::Online(connection) = &mut self.link {
            connection.handle_closed();
        }
    }

    /// Ends the connection, to go to another server.
    pub(crate) fn leave(&mut self) {
        if let Link::Online(connection) = &mut self.link {
            let normal = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            let left = connection.disconnect(&normal, self.now);
            debug!(?left, "leaving for another server");
        }
    }

    /// One turn: takes what came, and gives what is to be sent. How many bytes of the input are
    /// done with.
    pub(crate) fn turn(
        &mut self,
        mut input: &[u8],
        output: &mut avocet_session::TransmitBuf,
    ) -> usize {
        let before = input.len();
        self.now = self.clock.now();
        if let Link::Online(connection) = &mut self.link {
            connection.handle_timeout(self.now);
        }
        loop {
            let consumed = self.feed(input);
            input = input.get(consumed..).unwrap_or_default();
            self.poll_subscriptions();
            self.begin_disconnect();
            if let Link::Online(connection) = &mut self.link {
                connection.poll_transmit(self.now, output);
            }
            self.poll_notices();
            // Acknowledgements that left may be what reading waited for.
            if consumed == 0 {
                return before - input.len();
            }
        }
    }

    /// When the next turn is due at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        let timer = match &self.link {
            Link::Online(connection) => connection.poll_timeout(),
            Link::Offline(_) => None,
        };
        let timer = timer.map(|timeout| self.clock.deadline(timeout.at));
        let disconnect = self.disconnection.as_ref().map(|(_, deadline)| *deadline);
        timer
            .into_iter()
            .chain(disconnect)
            .min()
            .unwrap_or_else(|| self.clock.far_future())
    }

    /// Whether an application that is slow keeps anything more from being read.
    pub(crate) fn stops_reading(&self) -> bool {
        let is_full = |inbox: &Inbox| inbox.is_full(self.receive_max);
        self.when_slow == WhenSlow::StopReading
            && (self.inboxes.values().any(is_full) || self.rest.as_ref().is_some_and(is_full))
    }

    fn feed(&mut self, input: &[u8]) -> usize {
        let mut start = 0;
        loop {
            let stops = self.stops_reading();
            let Link::Online(connection) = &mut self.link else {
                return start;
            };
            if stops {
                connection.pause();
                return start;
            }
            connection.resume(self.now);
            let read = connection.handle_input(input.get(start..).unwrap_or_default(), self.now);
            start += read.consumed;
            if let Some(event) = read.event {
                self.on_event(event);
            }
            if read.demand != Demand::Again {
                return start;
            }
        }
    }

    fn on_event(&mut self, event: ClientEvent<'_>) {
        match event {
            ClientEvent::Connected(connack) => self.on_connected(&connack),
            ClientEvent::Refused(connack) => {
                debug!(reason_code = %connack.reason_code, "received CONNACK");
                let server_reference = connack.properties.server_reference.map(str::to_owned);
                self.server_reference.clone_from(&server_reference);
                self.accepted = Some(Err(ConnectError::Refused {
                    reason_code: connack.reason_code,
                    reason_string: connack.properties.reason_string.map(str::to_owned),
                    server_reference,
                }));
            }
            ClientEvent::Publish { publish, token } => self.on_publish(&publish, token),
            ClientEvent::Published { id, ack } => {
                trace!(packet_id = %ack.packet_id, reason_code = %ack.reason_code, "published");
                let reason_code = ack.reason_code;
                let reason_string = ack.reason_string.map(str::to_owned);
                let user_properties = owned(ack.user_properties);
                let outcome = if reason_code.is_error() {
                    Err(PublishError::Refused {
                        reason_code,
                        reason_string,
                    })
                } else {
                    Ok(Acknowledged {
                        reason_code,
                        reason_string,
                        user_properties,
                    })
                };
                self.answer_publish(id, outcome);
            }
            ClientEvent::Subscribed { id, suback } => {
                let answered = Answered {
                    reason_codes: suback.reason_codes.iter().collect(),
                    reason_string: suback.reason_string.map(str::to_owned),
                };
                self.on_answered(id, answered);
            }
            ClientEvent::Unsubscribed { id, unsuback } => {
                let answered = Answered {
                    reason_codes: unsuback.reason_codes.iter().collect(),
                    reason_string: unsuback.reason_string.map(str::to_owned),
                };
                self.on_answered(id, answered);
            }
            ClientEvent::Auth(auth) => self.on_auth(&auth),
            ClientEvent::Disconnected(disconnect) => {
                debug!(reason_code = %disconnect.reason_code, "received DISCONNECT");
                self.server_reference = disconnect.server_reference.map(str::to_owned);
                self.detail = disconnect
                    .reason_string
                    .or(disconnect.server_reference)
                    .map(str::to_owned);
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, connack: &Connack<'_>) {
        let Link::Online(connection) = &self.link else {
            return;
        };
        let session_present = connack.session_present;
        debug!(session_present, server = ?connection.server(), "received CONNACK");
        self.subscriptions
            .handle_connected(session_present, connection);
        let properties = &connack.properties;
        if let Some(assigned) = properties.assigned_client_id {
            self.config.client_id = assigned.to_owned();
        }
        self.accepted = Some(Ok(Connected {
            session_present,
            server: connection.server().clone(),
            response_information: properties.response_information.map(str::to_owned),
            reason_string: properties.reason_string.map(str::to_owned),
            user_properties: owned(properties.user_properties),
        }));
    }

    fn on_publish(&mut self, publish: &IncomingPublish<'_>, token: Option<AckToken>) {
        let packet = publish.packet();
        let topic_name = publish.topic_name();
        trace!(
            %topic_name,
            qos = %packet.qos(),
            packet_id = packet.packet_id().map(|id| id.get()),
            dup = packet.dup,
            retain = packet.retain,
            payload_bytes = packet.payload.len(),
            "received PUBLISH"
        );
        let now = self.now.unix;
        let (max, when_slow) = (self.receive_max, self.when_slow);
        let mut ids = packet.subscription_ids.iter();
        let (first, more) = (ids.next(), ids.next());
        let rest: Vec<SubscriptionId>;
        let ids = match (&first, more) {
            (None, _) => &[][..],
            (Some(id), None) => std::slice::from_ref(id),
            (Some(_), Some(_)) => {
                rest = packet.subscription_ids.iter().collect();
                &rest
            }
        };
        let mut keys = self
            .subscriptions
            .route(topic_name, ids)
            .filter(|key| self.inboxes.contains_key(key));
        let first = keys.next();
        // Empty, and without memory, unless subscriptions overlap.
        let others: Vec<_> = keys.collect();
        let due = Due::new(token, 1 + others.len());
        let delivery = Delivery::new(&packet, topic_name, due, now);
        for key in others {
            if let Some(inbox) = self.inboxes.get_mut(&key) {
                self.wakers
                    .extend(inbox.put(delivery.clone(), max, when_slow));
            }
        }
        let inbox = match first {
            Some(key) => self.inboxes.get_mut(&key),
            None => self.rest.as_mut(),
        };
        match inbox {
            Some(inbox) => self.wakers.extend(inbox.put(delivery, max, when_slow)),
            None => self.abandoned.extend(delivery.due.done()),
        }
    }

    /// AUTH of the server: the authenticator goes on, unless it was the last step.
    fn on_auth(&mut self, auth: &Auth<'_>) {
        let Link::Online(connection) = &mut self.link else {
            return;
        };
        if auth.reason_code == ReasonCode::ContinueAuthentication {
            let authenticator = self.authenticator.as_mut();
            let answer = authenticator.and_then(|answer| answer(auth.authentication_data));
            let sent = connection.authenticate(answer.as_deref());
            debug!(?sent, "answered AUTH");
        }
    }

    fn on_answered(&mut self, id: avocet_session::client::RequestId, answered: Answered) {
        debug!(?id, reason_codes = ?answered.reason_codes, "received SUBACK or UNSUBACK");
        let Some(answer) = self
            .subscriptions
            .handle_answered(id, &answered.reason_codes)
        else {
            return;
        };
        if answer.first {
            if let Some(waiting) = self.answers.remove(&answer.key) {
                let _ = waiting.send(Ok(answered));
            }
        } else if answered.reason_codes.iter().any(|code| code.is_error()) {
            let filters = self.subscriptions.filters(answer.key);
            let reason_codes = answered.reason_codes;
            self.tell(Event::NotResubscribed {
                filters,
                reason_codes,
            });
        }
    }

    fn poll_subscriptions(&mut self) {
        let Link::Online(connection) = &mut self.link else {
            return;
        };
        while let Some((key, error)) = self.subscriptions.poll(connection) {
            if let Some(answer) = self.answers.remove(&key) {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    /// DISCONNECT is due when nothing is queued or in flight any more, or at the deadline.
    fn begin_disconnect(&mut self) {
        let idle = self.is_idle();
        let is_due = |it: &mut (Disconnection, Instant)| idle || it.1 <= Instant::now();
        let Link::Online(connection) = &mut self.link else {
            return;
        };
        let Some((disconnection, _)) = self.disconnection.take_if(is_due) else {
            return;
        };
        self.disconnected = Some(disconnection.reason_code);
        let ends = self.ends_session && connection.config().version == Version::V5;
        let user_properties: Vec<_> = disconnection
            .user_properties
            .iter()
            .map(|(name, value)| UserProperty { name, value })
            .collect();
        let disconnect = Disconnect {
            session_expiry_interval: disconnection
                .session_expiry_interval
                .or_else(|| ends.then_some(0)),
            reason_string: disconnection.reason_string.as_deref(),
            user_properties: List::from_slice(&user_properties),
            ..Disconnect::new(disconnection.reason_code)
        };
        if let Err(error) = connection.disconnect(&disconnect, self.now) {
            debug!(%error, "DISCONNECT as asked for cannot be sent");
            let plain = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            let _ = connection.disconnect(&plain, self.now);
        }
    }

    fn poll_notices(&mut self) {
        loop {
            let Link::Online(connection) = &mut self.link else {
                return;
            };
            let Some(notice) = connection.poll_event() else {
                return;
            };
            self.on_notice(notice);
        }
    }

    fn on_notice(&mut self, notice: ClientNotice) {
        match notice {
            ClientNotice::NotPublished { id, reason } => {
                debug!(%reason, "a message was not published");
                if let Some(id) = id {
                    self.answer_publish(id, Err(reason.into()));
                }
            }
            ClientNotice::Closed(reason) => self.over = Some(reason),
            _ => {}
        }
    }

    fn answer_publish(&mut self, id: PublishId, outcome: Result<Acknowledged, PublishError>) {
        if let Some(answer) = self.published.remove(id) {
            let _ = answer.send(outcome);
        }
    }

    fn end(&mut self, closed: Closed) {
        self.tell(Event::Ended(closed.clone()));
        self.ended = Some(closed);
        let inboxes = self.inboxes.values_mut().chain(&mut self.rest);
        self.wakers.extend(inboxes.filter_map(Inbox::end));
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
