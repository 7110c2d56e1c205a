//! The task that owns the connections: it opens streams, moves bytes between them and the state
//! machines, and waits where those say so.

use std::future::{Future as _, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use avocet_codec::{ReasonCode, Version};
use avocet_session::CloseReason;
use avocet_session::client::{Authentication, Reconnect, Servers, is_final};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::debug;

use crate::clock::Clock;
use crate::config::{CredentialsSource, Reconnection};
use crate::connector::Connector;
use crate::io::Io;
use crate::state::{Shared, State};
use crate::{Address, Closed, Config, ConnectError, Connected, Event};

/// Turns in which the stream made progress before others have theirs.
const TURNS: usize = 16;

/// How long the end waits for the storage.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// How often in a row a server may refer to another one.
const REFERENCES_MAX: u32 = 8;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    clock: Clock,
    servers: Vec<Address>,
    connector: Box<dyn Connector>,
    credentials: Option<CredentialsSource>,
    reconnect: Option<Reconnection>,
    connect_timeout: Duration,
    /// Whether a server has accepted before, so that there is a Session to go on with.
    connected_before: bool,
}

/// A connection that the server has accepted.
pub(crate) struct Connection {
    io: Io,
    place: Option<usize>,
    port: u16,
}

/// Why a connection is over.
enum Over {
    /// It ended.
    Ended(Closed),
    /// A server that is listed before can be reached: by this stream.
    Better(usize, Box<dyn crate::connector::ByteStream>),
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, config: Config, connector: Box<dyn Connector>) -> Self {
        Self {
            shared,
            clock: Clock::new(),
            servers: config.servers(),
            connector,
            credentials: config.credentials,
            reconnect: config.reconnect,
            connect_timeout: config.connect_timeout,
            connected_before: false,
        }
    }

    fn order(&self) -> Servers {
        let order = self.reconnect.as_ref().map(|it| it.order);
        Servers::new(self.servers.len(), order.unwrap_or_default(), entropy())
    }

    /// The first round through the servers.
    pub(crate) async fn connect_first(&mut self) -> Result<Connection, ConnectError> {
        let mut servers = self.order();
        self.connect(&mut servers).await
    }

    /// One round through the servers. The last error, if none accepts.
    async fn connect(&mut self, servers: &mut Servers) -> Result<Connection, ConnectError> {
        let mut last = None;
        while let Some(place) = servers.next_server() {
            let Some(server) = self.servers.get(place).cloned() else {
                continue;
            };
            match self.connect_following(server, Some(place)).await {
                Ok(connection) => return Ok(connection),
                Err(error) if self.is_hopeless(&error) => return Err(error),
                Err(error) => {
                    if let Some(before) = last.replace(error) {
                        self.tell(Event::Failed(Arc::new(before)));
                    }
                }
            }
        }
        // There is at least one server.
        Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound).into()))
    }

    /// Connects to this server, or where it refers to.
    async fn connect_following(
        &mut self,
        mut server: Address,
        mut place: Option<usize>,
    ) -> Result<Connection, ConnectError> {
        let follows = self
            .reconnect
            .as_ref()
            .is_some_and(|it| it.follow_server_reference);
        let mut references = 0;
        loop {
            let outcome = self.attempt(&server).await;
            let error = match outcome {
                Ok(io) => {
                    let port = server.port;
                    return Ok(Connection { io, place, port });
                }
                Err(error) => error,
            };
            let reference = self.shared.lock().take_server_reference();
            let other = reference.and_then(|it| Address::from_reference(&it, server.port));
            match other {
                Some(other) if follows && references < REFERENCES_MAX => {
                    debug!(%server, %other, "another server");
                    references += 1;
                    server = other;
                    place = None;
                }
                Some(_) | None => return Err(error),
            }
        }
    }

    async fn attempt(&mut self, server: &Address) -> Result<Io, ConnectError> {
        let shared = Arc::clone(&self.shared);
        self.tell(Event::Connecting(server.clone()));
        let outcome = tokio::select! {
            biased;
            closed = stopped(&shared) => Err(closed.into()),
            stream = self.open(server) => stream,
        };
        let outcome = match outcome {
            Ok(stream) => self.log_in(stream).await,
            Err(error) => Err(error),
        };
        outcome.map_err(|error| {
            debug!(%server, %error, "no connection");
            error
        })
    }

    async fn open(
        &mut self,
        server: &Address,
    ) -> Result<Box<dyn crate::connector::ByteStream>, ConnectError> {
        let opened = timeout(self.connect_timeout, self.connector.connect(server)).await;
        opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    /// Sends CONNECT, and waits for the answer.
    async fn log_in(
        &mut self,
        stream: Box<dyn crate::connector::ByteStream>,
    ) -> Result<Io, ConnectError> {
        let mut config = self.shared.lock().config.clone();
        if let Some(credentials) = &mut self.credentials {
            let given = tokio::select! {
                biased;
                closed = stopped(&self.shared) => return Err(closed.into()),
                given = credentials() => given.map_err(ConnectError::Credentials)?,
            };
            config.user_name = given.user_name;
            config.password = given.password;
        }
        if let Some(reconnect) = &self.reconnect
            && config.version == Version::V5
            && config.session_expiry_interval == 0
        {
            let kept = reconnect.session_kept.as_secs();
            config.session_expiry_interval = u32::try_from(kept).unwrap_or(u32::MAX);
            let mut state = self.shared.lock();
            state.ends_session = state.outbox.is_none();
        }
        if self.connected_before {
            config.session_known = true;
            config.publish_again = true;
            // In 3.x it also says that the server shall keep no Session.
            config.clean_start &= config.version != Version::V5;
        }
        if let Some(method) = &mut self.shared.lock().authentication {
            config.authentication = Some(Authentication {
                method: method.method().to_owned(),
                data: method.begin().map(Into::into),
            });
        }
        config.check()?;
        let mut io = Io::new(stream);
        self.shared.lock().begin(config);
        let mut pump = Pump::new(&self.shared);
        let outcome = poll_fn(|context| pump.poll(&mut io, context)).await;
        match outcome {
            Pumped::Accepted(Ok(connected)) => {
                self.connected_before = true;
                let connected = Arc::new(connected);
                self.shared
                    .connected
                    .send_replace(Some(Arc::clone(&connected)));
                self.tell(Event::Connected(Connected::clone(&connected)));
                Ok(io)
            }
            Pumped::Accepted(Err(error)) => {
                self.finish(io).await;
                Err(error)
            }
            Pumped::Over(closed) => {
                self.finish(io).await;
                Err(closed.into())
            }
        }
    }

    /// Writes what is left, closes the stream, and keeps the Session.
    async fn finish(&mut self, io: Io) {
        let limit = self.shared.lock().config.drain_timeout;
        io.finish(limit).await;
        let mut state = self.shared.lock();
        state.finish();
        self.shared.unlock(state);
    }

    /// Until the client ends, beginning with a connection if there is one.
    pub(crate) async fn run(mut self, connection: Option<Connection>) {
        let mut connection = connection;
        let options = self.reconnect.clone().unwrap_or_default();
        let mut reconnect = Reconnect::new(options.backoff, options.stable_after);
        let mut servers = self.order();
        let mut references = 0;
        loop {
            let outcome = match connection.take() {
                Some(standing) => {
                    reconnect.handle_connected(self.clock.now().instant);
                    let port = standing.port;
                    match self.serve(standing).await {
                        Over::Better(place, stream) => {
                            let io = self.log_in(stream).await;
                            let place = Some(place);
                            io.map(|io| Connection { io, place, port })
                        }
                        Over::Ended(closed) => {
                            if self.reconnect.is_none() || is_final(closed.reason) {
                                return self.end(closed).await;
                            }
                            self.tell(Event::Lost(closed));
                            match self.reference(port) {
                                Some(other) if references < REFERENCES_MAX => {
                                    references += 1;
                                    self.connect_following(other, None).await
                                }
                                Some(_) | None => {
                                    references = 0;
                                    if let Err(closed) = self.wait(&mut reconnect).await {
                                        return self.end(closed).await;
                                    }
                                    continue;
                                }
                            }
                        }
                    }
                }
                None => {
                    servers.begin_round(entropy());
                    self.connect(&mut servers).await
                }
            };
            match outcome {
                Ok(standing) => connection = Some(standing),
                Err(error) if self.reconnect.is_none() || self.is_hopeless(&error) => {
                    return self.end(closed_by(error)).await;
                }
                Err(error) => {
                    self.tell(Event::Failed(Arc::new(error)));
                    if let Err(closed) = self.wait(&mut reconnect).await {
                        return self.end(closed).await;
                    }
                }
            }
        }
    }

    /// Until it is time for the next attempt, or the application wants none.
    async fn wait(&mut self, reconnect: &mut Reconnect) -> Result<(), Closed> {
        let now = self.clock.now().instant;
        reconnect.handle_closed(now, entropy());
        let Some(until) = reconnect.poll_timeout() else {
            return Ok(());
        };
        self.tell(Event::Waiting(until.duration_since(now)));
        tokio::select! {
            biased;
            closed = stopped(&self.shared) => return Err(closed),
            () = sleep_until(self.clock.deadline(until)) => {}
        }
        reconnect.handle_timeout(until);
        Ok(())
    }

    /// Until the connection is over.
    async fn serve(&mut self, connection: Connection) -> Over {
        let Connection { mut io, place, .. } = connection;
        let shared = Arc::clone(&self.shared);
        let mut pump = Pump::new(&shared);
        let failback = self.reconnect.as_ref().and_then(|it| it.failback);
        let better = place.filter(|place| self.order().has_better_than(*place));
        let moved = {
            let serving = poll_fn(|context| pump.poll(&mut io, context));
            let probing = async {
                match (failback, better) {
                    (Some(interval), Some(place)) => self.probe(interval, place).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                pumped = serving => Err(pumped),
                better = probing => Ok(better),
            }
        };
        let over = match moved {
            Ok((place, stream)) => {
                shared.lock().leave();
                // DISCONNECT leaves with what is left.
                let _ = poll_fn(|context| pump.poll(&mut io, context)).await;
                Over::Better(place, stream)
            }
            Err(Pumped::Over(closed)) => Over::Ended(closed),
            Err(Pumped::Accepted(_)) => Over::Ended(Closed {
                reason: CloseReason::ConnectionLost,
                detail: None,
            }),
        };
        self.finish(io).await;
        over
    }

    /// Looks from time to time whether a server before this one is back, and nothing is in flight.
    async fn probe(
        &mut self,
        interval: Duration,
        place: usize,
    ) -> (usize, Box<dyn crate::connector::ByteStream>) {
        loop {
            sleep(interval).await;
            for better in 0..place {
                let Some(server) = self.servers.get(better).cloned() else {
                    continue;
                };
                if let Ok(stream) = self.open(&server).await
                    && self.shared.lock().is_idle()
                {
                    return (better, stream);
                }
            }
        }
    }

    /// Where the server that ended the connection referred to, if it is to be followed.
    fn reference(&self, port: u16) -> Option<Address> {
        let follows = self.reconnect.as_ref()?.follow_server_reference;
        let reference = self.shared.lock().take_server_reference()?;
        Address::from_reference(&reference, port).filter(|_| follows)
    }

    /// Whether another attempt would end like this one.
    fn is_hopeless(&self, error: &ConnectError) -> bool {
        match error {
            ConnectError::Config(_) | ConnectError::Storage(_) => true,
            ConnectError::Network(_) | ConnectError::Io(_) | ConnectError::Credentials(_) => false,
            ConnectError::Closed(closed) => is_final(closed.reason),
            ConnectError::Refused { reason_code, .. } => {
                use ReasonCode::{BadUserNameOrPassword, NotAuthorized};
                // Other credentials may be right, and those that were right may be so again.
                let changes = self.credentials.is_some() || self.connected_before;
                is_final(CloseReason::Refused(*reason_code))
                    || (matches!(reason_code, BadUserNameOrPassword | NotAuthorized) && !changes)
            }
        }
    }

    /// Ends the client, once what it leaves is stored.
    async fn end(&mut self, closed: Closed) {
        self.end_storage().await;
        self.shared.end(closed);
    }

    /// Until everything is stored, and the storage is closed.
    pub(crate) async fn end_storage(&mut self) {
        self.shared.change(State::stop_storing);
        let ended = poll_fn(|context| {
            let mut state = self.shared.lock();
            state.sleep(context.waker());
            if state.outbox.is_none() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let _ = timeout(STORE_DEADLINE, ended).await;
    }

    fn tell(&self, event: Event) {
        let mut state = self.shared.lock();
        state.tell(event);
        self.shared.unlock(state);
    }
}

/// Dropped with its runtime, it leaves nobody to wait for it, and the storage closed: another client
/// may open it.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.change(State::stop_storing);
        let has_ended = self.shared.lock().ended().is_some();
        if !has_ended {
            self.shared.end(Closed {
                reason: CloseReason::ConnectionLost,
                detail: None,
            });
        }
    }
}

/// How the client ends after an error.
fn closed_by(error: ConnectError) -> Closed {
    match error {
        ConnectError::Closed(closed) => closed,
        ConnectError::Refused {
            reason_code,
            reason_string,
            ..
        } => Closed {
            reason: CloseReason::Refused(reason_code),
            detail: reason_string,
        },
        error @ (ConnectError::Config(_)
        | ConnectError::Network(_)
        | ConnectError::Io(_)
        | ConnectError::Credentials(_)
        | ConnectError::Storage(_)) => Closed {
            reason: CloseReason::ConnectionLost,
            detail: Some(error.to_string()),
        },
    }
}

/// Until the application wants no connection any more: at the deadline of its disconnect, or as
/// soon as nothing waits for a connection.
async fn stopped(shared: &Shared) -> Closed {
    let deadline = poll_fn(|context| {
        let mut state = shared.lock();
        state.sleep(context.waker());
        state.stops_at().map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    sleep_until(deadline).await;
    Closed {
        reason: CloseReason::Disconnected(shared.lock().disconnect_reason()),
        detail: None,
    }
}

/// A uniformly distributed number.
fn entropy() -> u64 {
    RandomState::new().hash_one(0)
}

/// Moves bytes between a stream and the state machines.
struct Pump<'a> {
    shared: &'a Shared,
    /// Fires no later than the next turn is due.
    alarm: Pin<Box<Sleep>>,
}

enum Pumped {
    Accepted(Result<Connected, ConnectError>),
    Over(Closed),
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            alarm: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// Ready when the server has answered CONNECT, and when the connection is over.
    fn poll(&mut self, io: &mut Io, context: &mut Context<'_>) -> Poll<Pumped> {
        for _ in 0..TURNS {
            let mut state = self.shared.lock();
            let (input, output) = io.buffers();
            let consumed = state.turn(input, output);
            io.consume(consumed);
            let accepted = state.take_accepted();
            let over = state.over();
            let deadline = state.deadline();
            let reads = !state.stops_reading();
            state.sleep(context.waker());
            self.shared.unlock(state);
            if let Some(accepted) = accepted {
                return Poll::Ready(Pumped::Accepted(accepted));
            }
            if let Some(closed) = over {
                return Poll::Ready(Pumped::Over(closed));
            }
            let mut progress = false;
            match io.poll(context, reads) {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(error)) => {
                    let detail =
                        (error.kind() != io::ErrorKind::UnexpectedEof).then(|| error.to_string());
                    self.shared.lock().handle_closed(detail);
                    progress = true;
                }
                Poll::Pending => {}
            }
            progress |= self.rings(deadline, context);
            if !progress {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the deadline is over; if not, the task is woken then.
    fn rings(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        // A deadline that moved on is looked at when the alarm fires.
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
        while self.alarm.as_mut().poll(context).is_ready() {
            if deadline <= Instant::now() {
                return true;
            }
            self.alarm.as_mut().reset(deadline);
        }
        false
    }
}
