//! The handles of an application.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use avocet_codec::{QoS, ReasonCode, SubscriptionId, SubscriptionOptions, TopicFilter};
use avocet_session::client::Server;
use avocet_session::{AckToken, CloseReason, Message, Session};
use avocet_topic::TopicFilterBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::driver::{Driver, Ends};
use crate::{Closed, Config, ConnectError, PublishError, Received, SubscribeError};

/// A connected client: a cheap handle, clones of which share the connection.
///
/// The connection ends with [`Client::disconnect`], or when all handles and [`Messages`] are
/// dropped.
#[derive(Clone, Debug)]
pub struct Client {
    publishes: mpsc::Sender<Publication>,
    requests: mpsc::Sender<Request>,
    connected: Arc<Connected>,
    closed: watch::Receiver<Option<Closed>>,
}

/// The messages that come: bounded, so that an application which does not take them slows down the
/// server rather than filling the memory.
#[derive(Debug)]
pub struct Messages {
    messages: mpsc::Receiver<Received>,
    closed: watch::Receiver<Option<Closed>>,
    driver: JoinHandle<Session>,
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
}

/// A message on its way: resolves to the server's answer, at QoS 0 at once. Dropping it changes
/// nothing about the message.
#[derive(Debug)]
#[must_use = "the server's answer is lost"]
pub struct Pending {
    answer: oneshot::Receiver<Result<Acknowledged, PublishError>>,
    closed: watch::Receiver<Option<Closed>>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// One for each Topic Filter, in order; none for UNSUBSCRIBE in 3.x.
    pub reason_codes: Vec<ReasonCode>,
    /// Something for people.
    pub reason_string: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) message: Arc<Message>,
    pub(crate) answer: oneshot::Sender<Result<Acknowledged, PublishError>>,
}

pub(crate) type Answer = oneshot::Sender<Result<Answered, SubscribeError>>;

#[derive(Debug)]
pub(crate) enum Request {
    Subscribe(Subscription, Answer),
    Unsubscribe(Unsubscription, Answer),
    Acknowledge(AckToken, ReasonCode),
    Disconnect(Disconnection, Duration),
    Reauthenticate(Option<Vec<u8>>),
}

/// Requests that wait for the driver; it always takes them.
const REQUESTS_MAX: usize = 16;

/// Messages on their way to the driver; those it has taken wait in the Session.
const PUBLISHES_MAX: usize = 32;

impl Client {
    /// Connects over TCP, and waits until the server has accepted.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says whether the settings, the network or the server is the reason.
    pub async fn connect(config: Config) -> Result<(Self, Messages), ConnectError> {
        Self::resume(config, &mut Session::new()).await
    }

    /// Connects over TCP with the Session that an earlier connection left
    /// ([`Messages::into_session`]). It is taken out if the server accepts, and stays otherwise.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn resume(
        config: Config,
        session: &mut Session,
    ) -> Result<(Self, Messages), ConnectError> {
        config.connection.check()?;
        let stream =
            avocet_transport::connect(&config.host, config.port, config.connect_timeout).await?;
        Self::resume_over(stream, config, session).await
    }

    /// Connects over a stream that stands already; host and port are not used.
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

    /// Connects over a stream that stands already, with the Session that an earlier connection
    /// left. It is taken out if the server accepts, and stays otherwise.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub async fn resume_over<S>(
        stream: S,
        config: Config,
        session: &mut Session,
    ) -> Result<(Self, Messages), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        config.connection.check()?;
        let (publishes, publications) = mpsc::channel(config.publish_max.clamp(1, PUBLISHES_MAX));
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let (sender, messages) = mpsc::channel(config.receive_max.max(1));
        let (closed_sender, closed) = watch::channel(None);
        let ends = Ends {
            publications,
            requested,
            messages: sender,
            closed: closed_sender,
        };
        let mut driver = Driver::new(stream, config, std::mem::take(session), ends);
        match driver.connect().await {
            Ok(connected) => {
                let connected = Arc::new(connected);
                let driver = tokio::spawn(driver.run());
                let client = Self {
                    publishes,
                    requests,
                    connected,
                    closed: closed.clone(),
                };
                Ok((
                    client,
                    Messages {
                        messages,
                        closed,
                        driver,
                    },
                ))
            }
            Err(error) => {
                *session = driver.into_session();
                Err(error)
            }
        }
    }

    /// What the server said when it accepted the connection.
    #[must_use]
    pub fn connected(&self) -> &Connected {
        &self.connected
    }

    /// Publishes a message and waits for the server's answer; at QoS 0, until it is on its way.
    ///
    /// The answer comes behind the messages that the server sent before it. While those wait for
    /// the application nothing is read, so the task that receives must not wait here: it uses
    /// [`start_publish`](Self::start_publish), or leaves publishing to another task.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. When the connection ends first, a message of QoS 1 or 2 is still in the
    /// Session, and the next connection sends it again.
    pub async fn publish(&self, message: Message) -> Result<Acknowledged, PublishError> {
        self.start_publish(message).await?.await
    }

    /// Publishes a message; the server's answer can be awaited later, or not at all. This waits
    /// only while too many messages wait to be sent.
    ///
    /// # Errors
    ///
    /// [`PublishError::Closed`]: the connection has ended.
    pub async fn start_publish(&self, message: Message) -> Result<Pending, PublishError> {
        let (sender, answer) = oneshot::channel();
        let publication = Publication {
            message: Arc::new(message),
            answer: sender,
        };
        match self.publishes.send(publication).await {
            Ok(()) => Ok(Pending {
                answer,
                closed: self.closed.clone(),
            }),
            Err(_) => Err(ended(&self.closed).into()),
        }
    }

    /// Subscribes to one Topic Filter; the QoS that the server grants may be lower.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`], also when the server refuses.
    pub async fn subscribe(
        &self,
        topic_filter: TopicFilter<'_>,
        maximum_qos: QoS,
    ) -> Result<QoS, SubscribeError> {
        let filter = (topic_filter.to_buf(), SubscriptionOptions::new(maximum_qos));
        let answered = self
            .subscribe_with(Subscription {
                filters: vec![filter],
                ..Subscription::default()
            })
            .await?;
        match answered.reason_codes.first() {
            Some(ReasonCode::Success) => Ok(QoS::AtMostOnce),
            Some(ReasonCode::GrantedQoS1) => Ok(QoS::AtLeastOnce),
            Some(ReasonCode::GrantedQoS2) => Ok(QoS::ExactlyOnce),
            other => Err(SubscribeError::Refused {
                reason_code: other.copied().unwrap_or(ReasonCode::ProtocolError),
                reason_string: answered.reason_string,
            }),
        }
    }

    /// Subscribes; each Topic Filter has its own Reason Code, which may be a refusal.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn subscribe_with(
        &self,
        subscription: Subscription,
    ) -> Result<Answered, SubscribeError> {
        let (sender, answer) = oneshot::channel();
        self.request(Request::Subscribe(subscription, sender))
            .await?;
        answer
            .await
            .unwrap_or_else(|_| Err(ended(&self.closed).into()))
    }

    /// Unsubscribes from one Topic Filter.
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
        let (sender, answer) = oneshot::channel();
        self.request(Request::Unsubscribe(unsubscription, sender))
            .await?;
        answer
            .await
            .unwrap_or_else(|_| Err(ended(&self.closed).into()))
    }

    /// Acknowledges a QoS 1 or 2 message, where [`Config::manual_acknowledge`] leaves that to the
    /// application; an error refuses it (5.0). Messages may be acknowledged in any order: the
    /// packets leave in the order the standard demands. At QoS 0, and for a second time, it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the connection has ended, and the server sends the message again.
    pub async fn acknowledge(
        &self,
        message: &Received,
        reason_code: ReasonCode,
    ) -> Result<(), Closed> {
        match message.token {
            Some(token) => self.request(Request::Acknowledge(token, reason_code)).await,
            None => Ok(()),
        }
    }

    /// Authenticates anew on the connection that stands (5.0); [`Config::authenticator`] goes on
    /// with it.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the connection has ended.
    pub async fn reauthenticate(&self, data: Option<Vec<u8>>) -> Result<(), Closed> {
        self.request(Request::Reauthenticate(data)).await
    }

    /// Ends the connection: sends what was published before, waits for its answers until the
    /// deadline, sends DISCONNECT, and closes.
    pub async fn disconnect(&self, deadline: Duration) {
        self.disconnect_with(Disconnection::default(), deadline)
            .await;
    }

    /// The same with a reason.
    pub async fn disconnect_with(&self, disconnection: Disconnection, deadline: Duration) {
        if self
            .request(Request::Disconnect(disconnection, deadline))
            .await
            .is_ok()
        {
            self.closed().await;
        }
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.closed.clone();
        let _ = closed.wait_for(Option::is_some).await;
        ended(&closed)
    }

    async fn request(&self, request: Request) -> Result<(), Closed> {
        self.requests
            .send(request)
            .await
            .map_err(|_| ended(&self.closed))
    }
}

impl Messages {
    /// The next message.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the connection has ended, and every message that came before was given out.
    pub async fn receive(&mut self) -> Result<Received, Closed> {
        match self.messages.recv().await {
            Some(message) => Ok(message),
            None => {
                let _ = self.closed.wait_for(Option::is_some).await;
                Err(ended(&self.closed))
            }
        }
    }

    /// Waits until the connection has ended, and gives the Session back for
    /// [`Client::resume`]: the messages that were not sent, or not acknowledged. Messages that
    /// nobody received are lost, unless they are yet to be acknowledged.
    pub async fn into_session(self) -> Session {
        drop(self.messages);
        // The driver does not panic; if the runtime is shut down under it, the Session is lost.
        self.driver.await.unwrap_or_default()
    }
}

impl Future for Pending {
    type Output = Result<Acknowledged, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(ended(&self.closed).into())))
    }
}

/// Why the connection has ended.
fn ended(closed: &watch::Receiver<Option<Closed>>) -> Closed {
    let closed = closed.borrow().clone();
    closed.unwrap_or(Closed {
        reason: CloseReason::ConnectionLost,
        detail: None,
    })
}
