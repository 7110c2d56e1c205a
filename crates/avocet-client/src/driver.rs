//! The task that owns a connection: it moves bytes between the stream and the state machine, and
//! messages between that and the application.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use avocet_codec::{
    Auth, Connack, Disconnect, List, ReasonCode, SubscribeFilter, TopicFilter, UserProperty,
};
use avocet_session::client::{ClientConnection, ClientEvent, ClientNotice, PublishId, RequestId};
use avocet_session::{CloseReason, Demand, Session, TransmitBuf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, trace};

use crate::client::{Answer, Publication, Request, Subscription, Unsubscription};
use crate::clock::Clock;
use crate::config::Authenticator;
use crate::{
    Acknowledged, Answered, Closed, Config, ConnectError, Connected, Disconnection, PublishError,
    Received,
};

/// Bytes read at once.
const READ_LEN: usize = 16 * 1024;
/// Capacity that the buffer of an incomplete packet may keep once it is empty.
const INPUT_KEPT: usize = 4 * READ_LEN;
/// Bytes of packets that wait for the stream.
const TRANSMIT_LEN: usize = 64 * 1024;
/// Slices written at once.
const SLICES: usize = 16;
/// Messages taken from the application at once.
const PUBLISHES_AT_ONCE: usize = 32;

/// The driver's ends of the channels to the handles.
pub(crate) struct Ends {
    pub(crate) publications: mpsc::Receiver<Publication>,
    pub(crate) requested: mpsc::Receiver<Request>,
    pub(crate) messages: mpsc::Sender<Received>,
    pub(crate) closed: watch::Sender<Option<Closed>>,
}

pub(crate) struct Driver<S> {
    io: Io<S>,
    clock: Clock,
    state: State,
    publications: mpsc::Receiver<Publication>,
    requested: mpsc::Receiver<Request>,
    publish_max: usize,
}

/// The stream, and the bytes on both sides of it.
struct Io<S> {
    stream: S,
    chunk: Box<[u8]>,
    input: Vec<u8>,
    output: TransmitBuf,
    flushed: bool,
}

/// Everything that packets and requests change.
struct State {
    connection: ClientConnection,
    messages: mpsc::Sender<Received>,
    closed: watch::Sender<Option<Closed>>,
    /// Came, and waits for room; nothing more is read meanwhile.
    delivery: Option<Received>,
    published: HashMap<PublishId, oneshot::Sender<Result<Acknowledged, PublishError>>>,
    answers: HashMap<RequestId, Answer>,
    accepted: Option<Result<Connected, ConnectError>>,
    authenticator: Option<Authenticator>,
    manual_acknowledge: bool,
    /// What the peer, or the system, said about the end.
    detail: Option<String>,
    /// DISCONNECT, once everything before it is acknowledged, or at the deadline.
    disconnection: Option<(Disconnection, tokio::time::Instant)>,
    /// The end, once it has come.
    end: Option<CloseReason>,
}

/// What the driver waited for.
enum Wake {
    Io(io::Result<()>),
    Timeout,
    Room,
    MessagesDropped,
    Request(Option<Request>),
    Publications(usize),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(stream: S, config: Config, session: Session, ends: Ends) -> Self {
        let clock = Clock::new();
        let connection = ClientConnection::new(config.connection, session, clock.now());
        Self {
            io: Io {
                stream,
                chunk: vec![0; READ_LEN].into_boxed_slice(),
                input: Vec::new(),
                output: TransmitBuf::new(TRANSMIT_LEN),
                flushed: true,
            },
            clock,
            state: State {
                connection,
                messages: ends.messages,
                closed: ends.closed,
                delivery: None,
                published: HashMap::new(),
                answers: HashMap::new(),
                accepted: None,
                authenticator: config.authenticator,
                manual_acknowledge: config.manual_acknowledge,
                detail: None,
                disconnection: None,
                end: None,
            },
            publications: ends.publications,
            requested: ends.requested,
            publish_max: config.publish_max.max(1),
        }
    }

    pub(crate) fn into_session(self) -> Session {
        self.state.connection.into_session()
    }

    /// Until the server has answered CONNECT.
    pub(crate) async fn connect(&mut self) -> Result<Connected, ConnectError> {
        loop {
            self.turn();
            if let Some(accepted) = self.state.accepted.take() {
                return accepted;
            }
            if let Some(reason) = self.state.end {
                self.finish().await;
                return Err(Closed {
                    reason,
                    detail: self.state.detail.take(),
                }
                .into());
            }
            self.wait().await;
        }
    }

    /// Until the connection has ended.
    pub(crate) async fn run(mut self) -> Session {
        let mut publications = Vec::with_capacity(PUBLISHES_AT_ONCE);
        loop {
            self.turn();
            if let Some(reason) = self.state.end {
                self.finish().await;
                let closed = Closed {
                    reason,
                    detail: self.state.detail.take(),
                };
                debug!(%closed, "connection ended");
                // Told before the answers that will not come are dropped.
                self.state.closed.send_replace(Some(closed));
                return self.into_session();
            }
            self.wait_and_serve(&mut publications).await;
        }
    }

    /// Feeds what came, and fetches what is to be sent.
    fn turn(&mut self) {
        let now = self.clock.now();
        loop {
            let fed = self.state.feed(&mut self.io.input, &self.clock);
            self.state.begin_disconnect(&self.clock);
            self.state
                .connection
                .poll_transmit(now, &mut self.io.output);
            self.state.poll_events();
            // Acknowledgements that left may be what reading waited for.
            if !fed {
                return;
            }
        }
    }

    /// While connecting there is only the stream and the time.
    async fn wait(&mut self) {
        let Self {
            io, state, clock, ..
        } = self;
        let deadline = deadline(state, clock);
        tokio::select! {
            result = poll_fn(|context| io.poll(context, true)) => self.on_io(result),
            () = sleep_until(deadline) => {
                self.state.connection.handle_timeout(self.clock.now());
            }
        }
    }

    async fn wait_and_serve(&mut self, taken: &mut Vec<Publication>) {
        let Self {
            io,
            state,
            clock,
            publications,
            requested,
            publish_max,
        } = self;
        let deadline = deadline(state, clock);
        let reads = state.delivery.is_none();
        let disconnecting = state.disconnection.is_some();
        let takes = state.connection.session().queued() < *publish_max
            && !(publications.is_closed() && publications.is_empty());
        let serves = !requested.is_closed() || !requested.is_empty();
        let messages = state.messages.clone();
        let wake = tokio::select! {
            result = poll_fn(|context| io.poll(context, reads)) => Wake::Io(result),
            () = sleep_until(deadline) => Wake::Timeout,
            permit = messages.reserve(), if !reads => match permit {
                Ok(permit) => {
                    state.deliver(permit, clock);
                    Wake::Room
                }
                Err(_) => Wake::MessagesDropped,
            },
            () = messages.closed(), if !serves && !disconnecting => Wake::MessagesDropped,
            request = requested.recv(), if serves => Wake::Request(request),
            count = publications.recv_many(taken, PUBLISHES_AT_ONCE), if takes =>
                Wake::Publications(count),
        };
        match wake {
            Wake::Io(result) => self.on_io(result),
            Wake::Timeout => self.state.connection.handle_timeout(self.clock.now()),
            Wake::Room => {}
            Wake::MessagesDropped => {
                // Nobody takes it: it is not acknowledged, and stays the server's.
                state.delivery = None;
                state.connection.resume(clock.now());
                if !serves {
                    state.take_all(publications, clock);
                    state.disconnect_when_done(Disconnection::default(), DROPPED_DEADLINE);
                }
            }
            Wake::Request(Some(request)) => {
                if let Request::Disconnect(..) = request {
                    state.take_all(publications, clock);
                }
                state.on_request(request);
            }
            Wake::Request(None) => requested.close(),
            Wake::Publications(0) => publications.close(),
            Wake::Publications(_) => {
                taken
                    .drain(..)
                    .for_each(|publication| state.publish(publication, clock));
            }
        }
    }

    fn on_io(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                self.state.detail.get_or_insert_with(|| error.to_string());
            }
            self.state.connection.handle_closed();
        }
    }

    /// Writes what is left, and closes the stream.
    async fn finish(&mut self) {
        let limit = self.state.connection.config().drain_timeout;
        let Io { stream, output, .. } = &mut self.io;
        let writing = async {
            while !output.is_empty() {
                let written = poll_fn(|context| poll_write(stream, output, context)).await?;
                output.advance(written);
            }
            stream.shutdown().await
        };
        // The connection has ended in any case.
        let _ = timeout(limit, writing).await;
    }
}

/// How long messages may take to leave once nobody holds a handle.
const DROPPED_DEADLINE: Duration = Duration::from_secs(5);

fn deadline(state: &State, clock: &Clock) -> tokio::time::Instant {
    let timer = state
        .connection
        .poll_timeout()
        .map(|timeout| clock.deadline(timeout.at));
    let disconnect = state.disconnection.as_ref().map(|(_, deadline)| *deadline);
    timer
        .into_iter()
        .chain(disconnect)
        .min()
        .unwrap_or_else(|| clock.far_future())
}

impl State {
    /// Hands over what came until the machine or the application wants no more; whether anything
    /// was taken.
    fn feed(&mut self, input: &mut Vec<u8>, clock: &Clock) -> bool {
        let now = clock.now();
        let mut start = 0;
        while self.delivery.is_none() {
            let rest = input.get(start..).unwrap_or_default();
            let read = self.connection.handle_input(rest, now);
            start += read.consumed;
            let demand = read.demand;
            if let Some(event) = read.event {
                self.on_event(event, clock);
            }
            if demand != Demand::Again {
                break;
            }
        }
        input.drain(..start);
        if input.is_empty() && input.capacity() > INPUT_KEPT {
            *input = Vec::new();
        }
        start > 0
    }

    fn on_event(&mut self, event: ClientEvent<'_>, clock: &Clock) {
        match event {
            ClientEvent::Connected(connack) => {
                let session_present = connack.session_present;
                debug!(session_present, server = ?self.connection.server(), "received CONNACK");
                self.accepted = Some(Ok(self.connected(&connack)));
            }
            ClientEvent::Refused(connack) => {
                debug!(reason_code = %connack.reason_code, "received CONNACK");
                self.accepted = Some(Err(ConnectError::Refused {
                    reason_code: connack.reason_code,
                    reason_string: connack.properties.reason_string.map(str::to_owned),
                    server_reference: connack.properties.server_reference.map(str::to_owned),
                }));
            }
            ClientEvent::Publish { publish, token } => {
                let packet = publish.packet();
                trace!(
                    topic_name = %publish.topic_name(),
                    qos = %packet.qos(),
                    packet_id = packet.packet_id().map(|id| id.get()),
                    dup = packet.dup,
                    retain = packet.retain,
                    payload_bytes = packet.payload.len(),
                    "received PUBLISH"
                );
                let received = Received::new(
                    &publish.packet(),
                    publish.topic_name(),
                    token,
                    clock.now().unix,
                );
                match self.messages.try_send(received) {
                    Ok(()) => self.acknowledge(token),
                    Err(TrySendError::Full(received)) => {
                        self.delivery = Some(received);
                        self.connection.pause();
                    }
                    Err(TrySendError::Closed(_)) => {}
                }
            }
            ClientEvent::Published { id, ack } => {
                trace!(packet_id = %ack.packet_id, reason_code = %ack.reason_code, "published");
                let reason_code = ack.reason_code;
                let reason_string = ack.reason_string.map(str::to_owned);
                self.tell(
                    id,
                    if reason_code.is_error() {
                        Err(PublishError::Refused {
                            reason_code,
                            reason_string,
                        })
                    } else {
                        Ok(Acknowledged {
                            reason_code,
                            reason_string,
                        })
                    },
                );
            }
            ClientEvent::Subscribed { id, suback } => self.answer(
                id,
                Answered {
                    reason_codes: suback.reason_codes.iter().collect(),
                    reason_string: suback.reason_string.map(str::to_owned),
                },
            ),
            ClientEvent::Unsubscribed { id, unsuback } => self.answer(
                id,
                Answered {
                    reason_codes: unsuback.reason_codes.iter().collect(),
                    reason_string: unsuback.reason_string.map(str::to_owned),
                },
            ),
            ClientEvent::Auth(auth) => self.on_auth(&auth),
            ClientEvent::Disconnected(disconnect) => {
                debug!(reason_code = %disconnect.reason_code, "received DISCONNECT");
                self.detail = disconnect
                    .reason_string
                    .or(disconnect.server_reference)
                    .map(str::to_owned);
            }
            _ => {}
        }
    }

    /// AUTH of the server: the authenticator goes on, unless it was the last step.
    fn on_auth(&mut self, auth: &Auth<'_>) {
        if auth.reason_code == ReasonCode::ContinueAuthentication {
            let authenticator = self.authenticator.as_mut();
            let answer = authenticator.and_then(|answer| answer(auth.authentication_data));
            let sent = self.connection.authenticate(answer.as_deref());
            debug!(?sent, "authentication goes on");
        }
    }

    fn connected(&self, connack: &Connack<'_>) -> Connected {
        let properties = &connack.properties;
        let pairs = properties.user_properties.iter();
        Connected {
            session_present: connack.session_present,
            server: self.connection.server().clone(),
            response_information: properties.response_information.map(str::to_owned),
            reason_string: properties.reason_string.map(str::to_owned),
            user_properties: pairs
                .map(|it| (it.name.to_owned(), it.value.to_owned()))
                .collect(),
        }
    }

    /// Where the application does not do it itself.
    fn acknowledge(&mut self, token: Option<avocet_session::AckToken>) {
        if let Some(token) = token
            && !self.manual_acknowledge
        {
            let acknowledged = self.connection.acknowledge(token, ReasonCode::Success);
            debug_assert!(acknowledged.is_ok(), "{acknowledged:?}");
        }
    }

    /// The application has room again.
    fn deliver(&mut self, permit: mpsc::Permit<'_, Received>, clock: &Clock) {
        if let Some(received) = self.delivery.take() {
            let token = received.token;
            permit.send(received);
            self.acknowledge(token);
        }
        self.connection.resume(clock.now());
    }

    fn publish(&mut self, publication: Publication, clock: &Clock) {
        let Publication { message, answer } = publication;
        trace!(
            topic_name = %message.topic_name(),
            qos = %message.qos(),
            retain = message.retain(),
            payload_bytes = message.payload().len(),
            "publishing"
        );
        // An answer that nobody awaits is dropped.
        match self.connection.publish(message, clock.now()) {
            Ok(Some(id)) => {
                self.published.insert(id, answer);
            }
            Ok(None) => {
                let reason_code = ReasonCode::Success;
                let _ = answer.send(Ok(Acknowledged {
                    reason_code,
                    reason_string: None,
                }));
            }
            Err(error) => {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    /// What was published before the end goes first.
    fn take_all(&mut self, publications: &mut mpsc::Receiver<Publication>, clock: &Clock) {
        publications.close();
        while let Ok(publication) = publications.try_recv() {
            self.publish(publication, clock);
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Subscribe(subscription, answer) => {
                let id = self.subscribe(&subscription);
                self.await_answer(id, answer);
            }
            Request::Unsubscribe(unsubscription, answer) => {
                let id = self.unsubscribe(&unsubscription);
                self.await_answer(id, answer);
            }
            Request::Acknowledge(token, reason_code) => {
                let acknowledged = self.connection.acknowledge(token, reason_code);
                debug!(?acknowledged, "acknowledged by the application");
            }
            Request::Disconnect(disconnection, deadline) => {
                self.disconnect_when_done(disconnection, deadline);
            }
            Request::Reauthenticate(data) => {
                let sent = self.connection.reauthenticate(data.as_deref());
                debug!(?sent, "authentication begins anew");
            }
        }
    }

    fn subscribe(
        &mut self,
        subscription: &Subscription,
    ) -> Result<RequestId, avocet_session::client::SubscribeError> {
        let filters: Vec<_> = subscription
            .filters
            .iter()
            .map(|(filter, options)| SubscribeFilter {
                topic_filter: filter.as_filter(),
                options: *options,
            })
            .collect();
        let user_properties = borrowed(&subscription.user_properties);
        self.connection
            .subscribe(&filters, subscription.subscription_id, &user_properties)
    }

    fn unsubscribe(
        &mut self,
        unsubscription: &Unsubscription,
    ) -> Result<RequestId, avocet_session::client::SubscribeError> {
        let filters: Vec<TopicFilter<'_>> = unsubscription
            .filters
            .iter()
            .map(|filter| filter.as_filter())
            .collect();
        self.connection
            .unsubscribe(&filters, &borrowed(&unsubscription.user_properties))
    }

    fn await_answer(
        &mut self,
        id: Result<RequestId, avocet_session::client::SubscribeError>,
        answer: Answer,
    ) {
        debug!(?id, "sending SUBSCRIBE or UNSUBSCRIBE");
        match id {
            Ok(id) => {
                self.answers.insert(id, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    fn answer(&mut self, id: RequestId, answered: Answered) {
        debug!(?id, reason_codes = ?answered.reason_codes, "received SUBACK or UNSUBACK");
        if let Some(answer) = self.answers.remove(&id) {
            let _ = answer.send(Ok(answered));
        }
    }

    fn tell(&mut self, id: PublishId, outcome: Result<Acknowledged, PublishError>) {
        if let Some(answer) = self.published.remove(&id) {
            let _ = answer.send(outcome);
        }
    }

    fn disconnect_when_done(&mut self, disconnection: Disconnection, deadline: Duration) {
        let deadline = tokio::time::Instant::now() + deadline;
        self.disconnection.get_or_insert((disconnection, deadline));
    }

    /// DISCONNECT is due when nothing is queued or in flight any more, or at the deadline.
    fn begin_disconnect(&mut self, clock: &Clock) {
        let session = self.connection.session();
        let done = session.queued() == 0 && session.in_flight() == 0;
        let due = self
            .disconnection
            .as_ref()
            .is_some_and(|(_, deadline)| done || *deadline <= tokio::time::Instant::now());
        if !due {
            return;
        }
        let Some((disconnection, _)) = self.disconnection.take() else {
            return;
        };
        let user_properties = borrowed(&disconnection.user_properties);
        let disconnect = Disconnect {
            session_expiry_interval: disconnection.session_expiry_interval,
            reason_string: disconnection.reason_string.as_deref(),
            user_properties: List::from_slice(&user_properties),
            ..Disconnect::new(disconnection.reason_code)
        };
        let now = clock.now();
        if let Err(error) = self.connection.disconnect(&disconnect, now) {
            debug!(%error, "DISCONNECT as asked for cannot be sent");
            let plain = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
            let _ = self.connection.disconnect(&plain, now);
        }
    }

    fn poll_events(&mut self) {
        while let Some(notice) = self.connection.poll_event() {
            match notice {
                ClientNotice::NotPublished { id, reason } => {
                    debug!(%reason, "a message was not published");
                    if let Some(id) = id {
                        self.tell(id, Err(reason.into()));
                    }
                }
                ClientNotice::Closed(reason) => self.end = Some(reason),
                _ => {}
            }
        }
    }
}

fn borrowed(pairs: &[(String, String)]) -> Vec<UserProperty<'_>> {
    pairs
        .iter()
        .map(|(name, value)| UserProperty { name, value })
        .collect()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Io<S> {
    /// Writes what there is and reads what comes; ready when either made progress.
    fn poll(&mut self, context: &mut Context<'_>, reads: bool) -> Poll<io::Result<()>> {
        let mut progress = false;
        while !self.output.is_empty() {
            match poll_write(&mut self.stream, &self.output, context)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => {
                    self.output.advance(written);
                    self.flushed = false;
                    progress = true;
                }
                Poll::Pending => break,
            }
        }
        if !self.flushed && Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
            self.flushed = true;
        }
        if reads {
            let mut buffer = ReadBuf::new(&mut self.chunk);
            if Pin::new(&mut self.stream)
                .poll_read(context, &mut buffer)?
                .is_ready()
            {
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.input.extend_from_slice(buffer.filled());
                progress = true;
            }
        }
        if progress {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

fn poll_write(
    stream: &mut (impl AsyncWrite + Unpin),
    output: &TransmitBuf,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut count = 0;
    for (slot, slice) in slices.iter_mut().zip(output.slices()) {
        *slot = IoSlice::new(slice);
        count += 1;
    }
    let slices = slices.get(..count).unwrap_or_default();
    Pin::new(stream).poll_write_vectored(context, slices)
}
