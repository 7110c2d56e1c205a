//! What happens to the connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use avocet_codec::ReasonCode;
use avocet_topic::TopicFilterBuf;
use futures::Stream;

use crate::state::Shared;
use crate::{Address, Closed, ConnectError, Connected, NotPublished};

/// What happens to the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection to this server is tried.
    Connecting(Address),
    /// The server accepted the connection.
    Connected(Connected),
    /// The attempt failed; another follows, unless the client ends.
    Failed(Arc<ConnectError>),
    /// The connection was lost; another one is tried, unless the client ends.
    Lost(Closed),
    /// All servers were tried, and it is waited for so long.
    Waiting(Duration),
    /// A new Session made it necessary to subscribe anew, and this was refused.
    NotResubscribed {
        /// Of the filters with these names.
        filters: Vec<TopicFilterBuf>,
        /// What the server says to each of them.
        reason_codes: Vec<ReasonCode>,
    },
    /// Messages were not published, or are not known to have been: they waited too long, gave way to
    /// others, or are not for this server. Whoever waits for the answer to one is told too.
    NotPublished {
        /// Why.
        reason: NotPublished,
        /// How many, one after the other, for this reason.
        messages: u64,
    },
    /// A message was dropped without an acknowledgement; the server keeps it for the next
    /// connection.
    Unacknowledged,
    /// What changed could not be stored, for this reason; it is tried again, and what depends on it
    /// waits.
    NotStored(String),
    /// The client has ended; nothing follows.
    Ended(Closed),
}

/// How many events wait for one listener.
const EVENTS_MAX: usize = 64;

/// Events on their way to one listener: the oldest go when it is slow.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    events: VecDeque<Event>,
    waker: Option<Waker>,
}

impl Listener {
    pub(crate) fn put(&mut self, event: Event) -> Option<Waker> {
        if let (
            Event::NotPublished { reason, messages },
            Some(Event::NotPublished {
                reason: last,
                messages: before,
            }),
        ) = (&event, self.events.back_mut())
            && reason == last
        {
            // A queue that is given up leaves room for what else happens.
            *before = before.saturating_add(*messages);
            return self.waker.take();
        }
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.waker.take()
    }

    fn take(&mut self, ended: bool, context: &Context<'_>) -> Poll<Option<Event>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if ended => Poll::Ready(None),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The events from here on, as a stream that ends with the client. Of a listener that takes none,
/// the oldest of 64 are forgotten.
#[derive(Debug)]
pub struct Events {
    pub(crate) id: u64,
    pub(crate) shared: Arc<Shared>,
}

impl Events {
    /// The next event; none when the client has ended.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.shared.lock();
        let ended = state.ended().is_some();
        match state.listeners.get_mut(&self.id) {
            Some(listener) => listener.take(ended, context),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.lock().listeners.remove(&self.id);
    }
}
