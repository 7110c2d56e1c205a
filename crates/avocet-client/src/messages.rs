//! Streams of messages.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use avocet_session::Session;
use avocet_session::client::SubscriptionKey;
use tokio::sync::oneshot;

use crate::client::wait_for_end;
use crate::received::Received;
use crate::state::{Shared, State};
use crate::{Answered, Closed, Disconnection, SubscribeError};

/// How long messages may take to leave once nobody holds a handle.
const DROPPED_DEADLINE: Duration = Duration::from_secs(5);

/// What all handles of a client share: when the last one goes, the client ends.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared
            .change(|state| state.disconnect(Disconnection::default(), DROPPED_DEADLINE));
    }
}

/// The messages that come and are for no [`Stream`], as a stream that ends with the client: it goes
/// on over all its connections. Bounded, as [`Config::receive_max`](crate::Config::receive_max)
/// says.
///
/// When it is dropped, its messages are dropped too; those of QoS 1 and 2 are acknowledged once
/// the application takes a later one from a stream.
#[derive(Debug)]
pub struct Messages {
    pub(crate) lease: Arc<Lease>,
}

impl Messages {
    /// The next message.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the client has ended, and every message that came before was given out.
    pub async fn receive(&mut self) -> Result<Received, Closed> {
        let next = poll_fn(|context| poll_next(&self.lease.shared, None, context)).await;
        match next {
            Some(message) => Ok(message),
            None => {
                wait_for_end(&mut self.lease.shared.closed.subscribe()).await;
                Err(self.lease.shared.ended())
            }
        }
    }

    /// How many messages of QoS 0 were dropped since this was last asked, because the application
    /// was slow.
    #[must_use]
    pub fn take_missed(&mut self) -> u64 {
        take_missed(&self.lease.shared, None)
    }

    /// Waits until the client has ended, and gives the Session back for
    /// [`Client::resume`](crate::Client::resume): the messages that were not sent, or not
    /// acknowledged. Messages that nobody received are lost, unless they are yet to be
    /// acknowledged.
    pub async fn into_session(self) -> Session {
        let shared = Arc::clone(&self.lease.shared);
        drop(self);
        wait_for_end(&mut shared.closed.subscribe()).await;
        let mut state = shared.lock();
        state.take_session()
    }
}

impl futures::Stream for Messages {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        poll_next(&self.lease.shared, None, context)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        // What it had may be what reading waited for.
        self.lease.shared.change(State::drop_rest);
    }
}

/// The messages of one subscription, as a stream that ends with the client, over all its
/// connections. Bounded, as [`Config::receive_max`](crate::Config::receive_max) says.
///
/// Dropping it ends the stream, not the subscription: what still comes for it goes to
/// [`Messages`]. [`Stream::unsubscribe`] ends both.
#[derive(Debug)]
pub struct Stream {
    lease: Arc<Lease>,
    key: SubscriptionKey,
    answered: Answered,
}

impl Stream {
    pub(crate) fn new(lease: Arc<Lease>, key: SubscriptionKey) -> Self {
        Self {
            lease,
            key,
            answered: Answered::default(),
        }
    }

    pub(crate) fn set_answered(&mut self, answered: Answered) {
        self.answered = answered;
    }

    /// What the server said to each filter.
    #[must_use]
    pub const fn answered(&self) -> &Answered {
        &self.answered
    }

    /// The next message; none when the client has ended, and every message that came before was
    /// given out.
    pub async fn next(&mut self) -> Option<Received> {
        poll_fn(|context| poll_next(&self.lease.shared, Some(self.key), context)).await
    }

    /// How many messages of QoS 0 were dropped since this was last asked, because the application
    /// was slow.
    #[must_use]
    pub fn take_missed(&mut self) -> u64 {
        take_missed(&self.lease.shared, Some(self.key))
    }

    /// Ends the subscription, and with it the stream.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn unsubscribe(self) -> Result<Answered, SubscribeError> {
        let shared = Arc::clone(&self.lease.shared);
        let (sender, answer) = oneshot::channel();
        shared.change(|state| {
            let filters = state.drop_stream(self.key);
            state.unsubscribe(filters, Vec::new(), sender)
        })?;
        answer.await.unwrap_or_else(|_| Err(shared.ended().into()))
    }
}

impl futures::Stream for Stream {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        poll_next(&self.lease.shared, Some(self.key), context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let dropped = |state: &mut State| state.drop_stream(self.key);
        self.lease.shared.change(dropped);
    }
}

fn poll_next(
    shared: &Arc<Shared>,
    key: Option<SubscriptionKey>,
    context: &Context<'_>,
) -> Poll<Option<Received>> {
    let mut state = shared.lock();
    let Some(inbox) = state.inbox(key) else {
        return Poll::Ready(None);
    };
    let Poll::Ready(next) = inbox.take(context) else {
        return Poll::Pending;
    };
    let Some(mut delivery) = next else {
        return Poll::Ready(None);
    };
    let waiting = inbox.len();
    let driver = if state.taken(&mut delivery, waiting) {
        state.take_driver()
    } else {
        None
    };
    drop(state);
    if let Some(driver) = driver {
        driver.wake();
    }
    Poll::Ready(Some(Received::new(delivery, Some(shared))))
}

fn take_missed(shared: &Shared, key: Option<SubscriptionKey>) -> u64 {
    let mut state = shared.lock();
    state.inbox(key).map_or(0, |inbox| inbox.take_missed())
}
