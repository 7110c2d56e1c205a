//! Requests and their responses (5.0).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avocet_codec::{EncodeError, MessageProperties, MessagePropertiesParts, QoS};
use avocet_session::Message;
use avocet_topic::{TopicFilter, TopicName, TopicNameBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::{Client, PublishError, Received, SubscribeError};

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Its properties cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// No response came in time.
    #[error("no response in time")]
    TimedOut,
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}

type Waiting = Arc<Mutex<HashMap<Vec<u8>, oneshot::Sender<Received>>>>;

/// Publishes requests and finds their responses, by Correlation Data of its own (5.0). Any number of
/// requests may wait at the same time.
#[derive(Debug)]
pub struct Requester {
    client: Client,
    response_topic: TopicNameBuf,
    waiting: Waiting,
    /// Tells its requests from those of others, and of an earlier process.
    prefix: u64,
    count: AtomicU64,
    task: AbortHandle,
}

impl Requester {
    /// Subscribes to the topic on which the responses come; it should be this client's alone.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn new(
        client: &Client,
        response_topic: TopicName<'_>,
    ) -> Result<Self, SubscribeError> {
        let filter = TopicFilter::from(response_topic);
        let mut responses = client.stream((filter, QoS::AtLeastOnce)).await?;
        let waiting = Waiting::default();
        let found = Arc::clone(&waiting);
        let task = tokio::spawn(async move {
            while let Some(mut response) = responses.next().await {
                // One that nobody waits for came too late.
                let _ = response.acknowledge();
                let correlation_data = response.properties().correlation_data();
                let waits = correlation_data.and_then(|it| lock(&found).remove(it));
                if let Some(waits) = waits {
                    let _ = waits.send(response);
                }
            }
            lock(&found).clear();
        });
        Ok(Self {
            client: client.clone(),
            response_topic: response_topic.to_buf(),
            waiting,
            prefix: RandomState::new().hash_one(0),
            count: AtomicU64::new(0),
            task: task.abort_handle(),
        })
    }

    /// Publishes a request at QoS 1, and waits for its response.
    ///
    /// # Errors
    ///
    /// [`RequestError`]
    pub async fn request(
        &self,
        topic_name: TopicName<'_>,
        payload: &[u8],
        deadline: Duration,
    ) -> Result<Received, RequestError> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let correlation_data = [self.prefix.to_be_bytes(), count.to_be_bytes()].concat();
        let properties = MessageProperties::new(MessagePropertiesParts {
            response_topic: Some(self.response_topic.as_name()),
            correlation_data: Some(&correlation_data),
            ..MessagePropertiesParts::default()
        });
        let request = Message::with_properties(topic_name, &properties, payload)?;
        let (sender, response) = oneshot::channel();
        lock(&self.waiting).insert(correlation_data.clone(), sender);
        // However this ends, nobody waits afterwards.
        let _forget = Forget {
            waiting: &self.waiting,
            correlation_data,
        };
        let exchange = async {
            self.client
                .publish(request.with_qos(QoS::AtLeastOnce))
                .await?;
            response.await.map_err(|_| RequestError::Ended)
        };
        match timeout(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RequestError::TimedOut),
        }
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    correlation_data: Vec<u8>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.correlation_data);
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<Vec<u8>, oneshot::Sender<Received>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Received {
    /// The response to this request, with its Correlation Data; none if it has no Response Topic.
    #[must_use]
    pub fn response(&self, payload: &[u8]) -> Option<Message> {
        let request = self.properties();
        let properties = MessageProperties::new(MessagePropertiesParts {
            correlation_data: request.correlation_data(),
            ..MessagePropertiesParts::default()
        });
        let response_topic = request.response_topic()?;
        // Correlation Data that came can be sent.
        let response = Message::with_properties(response_topic, &properties, payload).ok()?;
        Some(response.with_qos(self.qos()))
    }
}
