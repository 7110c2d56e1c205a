//! The handles of an application.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use avocet_codec::{QoS, ReasonCode, SubscriptionId, SubscriptionOptions, TopicFilter};
use avocet_session::client::{
    ConfigError, PublishError as Unsendable, Server, SubscriptionRequest,
};
use avocet_session::{Message, Overflow, Session};
use avocet_topic::TopicFilterBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};

use crate::connector::{Connector, Standing, Transport};
use crate::driver::Driver;
use crate::event::Events;
use crate::messages::{Lease, Messages, Stream};
use crate::outbox;
use crate::state::{Published, Shared};
use crate::{Closed, Config, ConnectError, PublishError, SubscribeError, WhenFull};

/// A client: a cheap handle, clones of which share the connection.
///
/// It ends with [`Client::disconnect`], when all handles, streams and [`Messages`] are dropped, and at
/// once with the runtime.
/// The protocol runs in a task of its own, on the runtime in which it was made; what is published
/// and what comes do not wait for each other.
#[derive(Clone, Debug)]
pub struct Client {
    lease: Arc<Lease>,
}

/// What the server said when it accepted the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// Whether the server has kept a Session.
    pub session_present: bool,
    /// What the server allows.
    pub server: Server,
    /// The basis for Response Topics, if it was asked for.
    pub response_information: Option<String>,
    /// Something for people.
    pub reason_string: Option<String>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// The server's answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledged {
    /// `Success`, or `NoMatchingSubscribers`.
    pub reason_code: ReasonCode,
    /// Something for people.
    pub reason_string: Option<String>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

/// A message on its way: resolves to the server's answer, at QoS 0 at once. Dropping it changes
/// nothing about the message.
#[derive(Debug)]
#[must_use = "the server's answer is lost"]
pub struct Pending {
    /// None at QoS 0.
    published: Option<Published>,
    shared: Arc<Shared>,
}

/// What to subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Topic Filters with their options; at least one.
    pub filters: Vec<(TopicFilterBuf, SubscriptionOptions)>,
    /// Comes with each message of these filters (5.0).
    pub subscription_id: Option<SubscriptionId>,
    /// User Properties, in order (5.0).
    pub user_properties: Vec<(String, String)>,
}

/// What not to be subscribed to any longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsubscription {
    /// Topic Filters; at least one.
    pub filters: Vec<TopicFilterBuf>,
    /// User Properties, in order (5.0).
    pub user_properties: Vec<(String, String)>,
}

/// What DISCONNECT says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnection {
    /// `NORMAL_DISCONNECTION`, or `DisconnectWithWillMessage`, or an error (5.0).
    pub reason_code: ReasonCode,
    /// Another Session Expiry Interval, in seconds (5.0).
    pub session_expiry_interval: Option<u32>,
    /// Something for people (5.0).
    pub reason_string: Option<String>,
    /// User Properties, in order (5.0).
    pub user_properties: Vec<(String, String)>,
}

impl Default for Disconnection {
    fn default() -> Self {
        Self {
            reason_code: ReasonCode::NORMAL_DISCONNECTION,
            session_expiry_interval: None,
            reason_string: None,
            user_properties: Vec::new(),
        }
    }
}

/// The server's answer to a [`Subscription`] or [`Unsubscription`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// One for each Topic Filter, in order; none for UNSUBSCRIBE in 3.x.
    pub reason_codes: Vec<ReasonCode>,
    /// Something for people.
    pub reason_string: Option<String>,
}

impl Client {
    /// Connects, and waits until a server has accepted. Each server is tried once; later, when the
    /// connection is lost, [`Config::reconnect`] says how to go on.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says whether the settings, the network or the server is the reason.
    pub async fn connect(config: Config) -> Result<(Self, Messages), ConnectError> {
        Self::resume(config, &mut Session::new()).await
    }

    /// Connects with the Session that an earlier client left ([`Messages::into_session`]). It is
    /// taken out if the server accepts, and stays otherwise.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn resume(
        mut config: Config,
        session: &mut Session,
    ) -> Result<(Self, Messages), ConnectError> {
        let connector = connector(&mut config);
        Self::begin(config, connector, session).await
    }

    /// Connects over a stream that stands already, and ends with it; host, port and
    /// [`Config::reconnect`] are not used.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn connect_over<S>(
        stream: S,
        config: Config,
    ) -> Result<(Self, Messages), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::resume_over(stream, config, &mut Session::new()).await
    }

    /// The same with the Session that an earlier client left. It is taken out if the server
    /// accepts, and stays otherwise.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn resume_over<S>(
        stream: S,
        mut config: Config,
        session: &mut Session,
    ) -> Result<(Self, Messages), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        config.reconnect = None;
        config.alternatives = Vec::new();
        let connector = Box::new(Standing(Some(Box::new(stream))));
        Self::begin(config, connector, session).await
    }

    async fn begin(
        mut config: Config,
        connector: Box<dyn Connector>,
        session: &mut Session,
    ) -> Result<(Self, Messages), ConnectError> {
        config.connection.check()?;
        let shared = shared(&mut config, session)?;
        let mut driver = Driver::new(Arc::clone(&shared), config, connector);
        match driver.connect_first().await {
            Ok(connection) => {
                tokio::spawn(driver.run(Some(connection)));
                Ok(Self::handles(shared))
            }
            Err(error) => {
                driver.end_storage().await;
                *session = shared.lock().take_session();
                Err(error)
            }
        }
    }

    /// Begins to connect, and returns at once: messages of QoS 1 and 2 wait for the connection,
    /// within the limits. [`Client::events`] tells how it goes.
    ///
    /// # Errors
    ///
    /// A setting that CONNECT cannot carry.
    pub fn start(config: Config) -> Result<(Self, Messages), ConnectError> {
        Self::start_with(config, Session::new())
    }

    /// The same with the Session that an earlier client left.
    ///
    /// # Errors
    ///
    /// A setting that CONNECT cannot carry.
    pub fn start_with(
        mut config: Config,
        mut session: Session,
    ) -> Result<(Self, Messages), ConnectError> {
        config.connection.check()?;
        let connector = connector(&mut config);
        let shared = shared(&mut config, &mut session)?;
        let driver = Driver::new(Arc::clone(&shared), config, connector);
        tokio::spawn(driver.run(None));
        Ok(Self::handles(shared))
    }

    fn handles(shared: Arc<Shared>) -> (Self, Messages) {
        let lease = Arc::new(Lease { shared });
        let messages = Messages {
            lease: Arc::clone(&lease),
        };
        (Self { lease }, messages)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.lease.shared
    }

    /// What the server said when it accepted the latest connection; none before the first.
    #[must_use]
    pub fn connected(&self) -> Option<Arc<Connected>> {
        self.shared().connected.borrow().clone()
    }

    /// What happens to the connection from here on.
    #[must_use]
    pub fn events(&self) -> Events {
        let shared = Arc::clone(self.shared());
        let id = shared.lock().listen();
        Events { id, shared }
    }

    /// Publishes a message and waits for the server's answer; at QoS 0, until it waits to be sent.
    ///
    /// When the connection is lost, a message of QoS 1 or 2 goes on over the next one.
    ///
    /// # Errors
    ///
    /// [`PublishError`]
    pub async fn publish(&self, message: Message) -> Result<Acknowledged, PublishError> {
        self.start_publish(message).await?.await
    }

    /// Publishes a message; the server's answer can be awaited later, or not at all. This waits
    /// only while too many messages wait to be sent. Dropped before it is ready, it publishes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`PublishError`]
    pub async fn start_publish(&self, message: Message) -> Result<Pending, PublishError> {
        loop {
            let mut room = std::pin::pin!(self.shared().room.notified());
            let (published, ages) = self.shared().change(|state| {
                let published = state.publish(&message);
                if is_full(&published) {
                    state.crowd(message.len());
                    // Nobody else can wake it between here and the wait.
                    room.as_mut().enable();
                }
                (published, state.starts_aging())
            });
            if ages {
                self.shared().start_aging();
            }
            match published {
                Err(PublishError::Unsendable(Unsendable::QueueFull))
                    if self.shared().lock().waits_for_room(&message) =>
                {
                    room.await;
                }
                other => return other.map(|published| self.pending(published)),
            }
        }
    }

    /// Publishes a message if there is room, without any wait; the server's answer can be awaited
    /// later, or not at all.
    ///
    /// # Errors
    ///
    /// [`PublishError`], with [`Unsendable::QueueFull`] when too many messages wait to be sent.
    pub fn try_publish(&self, message: Message) -> Result<Pending, PublishError> {
        let (published, ages) = self
            .shared()
            .change(|state| (state.publish(&message), state.starts_aging()));
        if ages {
            self.shared().start_aging();
        }
        Ok(self.pending(published?))
    }

    fn pending(&self, published: Option<Published>) -> Pending {
        let shared = Arc::clone(self.shared());
        Pending { published, shared }
    }

    /// Subscribes to one Topic Filter; the QoS that the server grants may be lower. Its messages
    /// come with [`Messages`].
    ///
    /// # Errors
    ///
    /// [`SubscribeError`], also when the server refuses.
    pub async fn subscribe(
        &self,
        topic_filter: TopicFilter<'_>,
        maximum_qos: QoS,
    ) -> Result<QoS, SubscribeError> {
        let answered = self
            .subscribe_with((topic_filter, maximum_qos).into())
            .await?;
        granted(answered)
    }

    /// Subscribes; each Topic Filter has its own Reason Code, which may be a refusal. The messages
    /// come with [`Messages`].
    ///
    /// While there is no connection it waits for one. When a server has lost the Session it is
    /// subscribed anew.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn subscribe_with(
        &self,
        subscription: Subscription,
    ) -> Result<Answered, SubscribeError> {
        let (sender, answer) = oneshot::channel();
        let request = subscription.request(false);
        self.shared()
            .change(|state| state.subscribe(request, sender))?;
        self.answer(answer).await
    }

    /// Subscribes, with a stream for these messages alone. They are told from others by a
    /// Subscription Identifier, where the server supports that, otherwise by their Topic Names.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`], also when the server refuses all filters; what it says to each of
    /// several is in [`Stream::answered`].
    pub async fn stream(
        &self,
        subscription: impl Into<Subscription>,
    ) -> Result<Stream, SubscribeError> {
        let (sender, answer) = oneshot::channel();
        let request = subscription.into().request(true);
        let key = self
            .shared()
            .change(|state| state.subscribe(request, sender))?;
        // From here on the stream cleans up behind itself.
        let mut stream = Stream::new(Arc::clone(&self.lease), key);
        let answered = self.answer(answer).await?;
        if answered.reason_codes.iter().all(|code| code.is_error()) {
            return Err(refused(answered));
        }
        stream.set_answered(answered);
        Ok(stream)
    }

    /// Unsubscribes from one Topic Filter, whoever subscribed to it.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn unsubscribe(
        &self,
        topic_filter: TopicFilter<'_>,
    ) -> Result<Answered, SubscribeError> {
        let filters = vec![topic_filter.to_buf()];
        self.unsubscribe_with(Unsubscription {
            filters,
            ..Unsubscription::default()
        })
        .await
    }

    /// Unsubscribes; each Topic Filter has its own Reason Code.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn unsubscribe_with(
        &self,
        unsubscription: Unsubscription,
    ) -> Result<Answered, SubscribeError> {
        let Unsubscription {
            filters,
            user_properties,
        } = unsubscription;
        let (sender, answer) = oneshot::channel();
        self.shared()
            .change(|state| state.unsubscribe(filters, user_properties, sender))?;
        self.answer(answer).await
    }

    async fn answer(
        &self,
        answer: oneshot::Receiver<Result<Answered, SubscribeError>>,
    ) -> Result<Answered, SubscribeError> {
        answer
            .await
            .unwrap_or_else(|_| Err(self.shared().ended().into()))
    }

    /// Authenticates anew on the connection that stands (5.0); [`Config::authenticator`] goes on
    /// with it. Without a connection it does nothing: the next one authenticates anyway.
    pub fn reauthenticate(&self, data: Option<&[u8]>) {
        self.shared().change(|state| state.reauthenticate(data));
    }

    /// Ends the client: sends what was published before, waits for its answers until the
    /// deadline, over another connection if it must, sends DISCONNECT, and closes.
    pub async fn disconnect(&self, deadline: Duration) {
        self.disconnect_with(Disconnection::default(), deadline)
            .await;
    }

    /// The same with a reason.
    pub async fn disconnect_with(&self, disconnection: Disconnection, deadline: Duration) {
        self.shared()
            .change(|state| state.disconnect(disconnection, deadline));
        self.closed().await;
    }

    /// Waits until the client has ended, and says why.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.shared().closed.subscribe();
        wait_for_end(&mut closed).await;
        self.shared().ended()
    }
}

pub(crate) async fn wait_for_end(closed: &mut watch::Receiver<Option<Closed>>) {
    let _ = closed.wait_for(Option::is_some).await;
}

/// What handles and driver share, with what was stored.
fn shared(config: &mut Config, session: &mut Session) -> Result<Arc<Shared>, ConnectError> {
    let limits = &mut config.connection.limits;
    limits.queued_messages_max = limits.queued_messages_max.min(config.publish_max).max(1);
    limits.overflow = match config.when_full {
        WhenFull::Wait | WhenFull::Refuse => Overflow::DropNewest,
        WhenFull::DropOldest => Overflow::DropOldest,
    };
    let Some(mut storage) = config.storage.take() else {
        return Ok(Arc::new(Shared::new(config, std::mem::take(session), None)));
    };
    let connection = &mut config.connection;
    if connection.client_id.is_empty() {
        return Err(ConfigError::ClientIdEmpty.into());
    }
    // What was stored is what this client last had with the server.
    connection.clean_start = false;
    connection.session_known = true;
    connection.answers_late = true;
    connection.publish_again = true;
    let incoming_max = usize::from(connection.receive_maximum);
    let stored = outbox::restore(&mut *storage, session, incoming_max);
    let stored = stored.map_err(ConnectError::Storage)?;
    let shared = Arc::new(Shared::new(config, std::mem::take(session), Some(stored)));
    outbox::start(Arc::clone(&shared), storage)?;
    let ages = shared.lock().starts_aging();
    if ages {
        shared.start_aging();
    }
    Ok(shared)
}

fn connector(config: &mut Config) -> Box<dyn Connector> {
    let deadline = config.connect_timeout;
    let (endpoint, proxy) = (config.endpoint.take(), config.proxy.take());
    config.connector.take().unwrap_or_else(|| {
        Box::new(Transport {
            endpoint,
            proxy,
            deadline,
        })
    })
}

fn is_full<T>(published: &Result<T, PublishError>) -> bool {
    matches!(
        published,
        Err(PublishError::Unsendable(Unsendable::QueueFull))
    )
}

fn granted(answered: Answered) -> Result<QoS, SubscribeError> {
    match answered.reason_codes.first() {
        Some(ReasonCode::Success) => Ok(QoS::AtMostOnce),
        Some(ReasonCode::GrantedQoS1) => Ok(QoS::AtLeastOnce),
        Some(ReasonCode::GrantedQoS2) => Ok(QoS::ExactlyOnce),
        Some(_) | None => Err(refused(answered)),
    }
}

fn refused(answered: Answered) -> SubscribeError {
    let reason_code = answered.reason_codes.first().copied();
    SubscribeError::Refused {
        reason_code: reason_code.unwrap_or(ReasonCode::ProtocolError),
        reason_string: answered.reason_string,
    }
}

impl Subscription {
    fn request(self, routed: bool) -> SubscriptionRequest {
        let Self {
            filters,
            subscription_id,
            user_properties,
        } = self;
        SubscriptionRequest {
            filters,
            subscription_id,
            user_properties,
            routed,
        }
    }
}

/// To one Topic Filter.
impl From<(TopicFilter<'_>, QoS)> for Subscription {
    fn from((topic_filter, maximum_qos): (TopicFilter<'_>, QoS)) -> Self {
        let options = SubscriptionOptions::new(maximum_qos);
        Self {
            filters: vec![(topic_filter.to_buf(), options)],
            ..Self::default()
        }
    }
}

impl Pending {
    /// Waits until [`Config::storage`] has the message, so that it outlives this process: the
    /// server's answer can be left to whoever runs next. At once without a storage, and at QoS 0.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the client has ended, and the storage has failed.
    pub async fn stored(&self) -> Result<(), Closed> {
        let Some(stored) = self.published.as_ref().and_then(|it| it.stored) else {
            return Ok(());
        };
        let mut committed = self.shared.committed.subscribe();
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            biased;
            _ = committed.wait_for(|committed| *committed >= stored) => Ok(()),
            () = wait_for_end(&mut closed) => Err(self.shared.ended()),
        }
    }
}

impl Future for Pending {
    type Output = Result<Acknowledged, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(Published { answer, .. }) = &mut self.published else {
            return Poll::Ready(Ok(Acknowledged {
                reason_code: ReasonCode::Success,
                reason_string: None,
                user_properties: Vec::new(),
            }));
        };
        let answer = Pin::new(answer).poll(context);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(self.shared.ended().into())))
    }
}
