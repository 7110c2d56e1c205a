//! The client for programs without a runtime: every call blocks until it is done.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use avocet_session::Message;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::{
    Acknowledged, Answered, Closed, Config, ConnectError, PublishError, Received, SubscribeError,
    Subscription,
};

/// A client whose connection lives on a thread of its own. It must not be used within a runtime.
#[derive(Debug)]
pub struct Client {
    client: crate::Client,
    messages: Option<crate::Messages>,
    runtime: Runtime,
}

/// A runtime on a thread of its own, until it is dropped.
#[derive(Debug)]
struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // Stopped, or the client is gone.
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new().name("avocet-client".into());
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread.spawn(run)?),
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Client {
    /// As [`Client::connect`](crate::Client::connect).
    ///
    /// # Errors
    ///
    /// [`ConnectError`]
    pub fn connect(config: Config) -> Result<Self, ConnectError> {
        let runtime = Runtime::start()?;
        let connecting = crate::Client::connect(config);
        let (client, messages) = runtime.handle.block_on(connecting)?;
        Ok(Self {
            client,
            messages: Some(messages),
            runtime,
        })
    }

    /// As [`Client::publish`](crate::Client::publish).
    ///
    /// # Errors
    ///
    /// [`PublishError`]
    pub fn publish(&self, message: Message) -> Result<Acknowledged, PublishError> {
        self.runtime.handle.block_on(self.client.publish(message))
    }

    /// As [`Client::subscribe_with`](crate::Client::subscribe_with); the messages come with
    /// [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub fn subscribe(
        &self,
        subscription: impl Into<Subscription>,
    ) -> Result<Answered, SubscribeError> {
        let subscribing = self.client.subscribe_with(subscription.into());
        self.runtime.handle.block_on(subscribing)
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the client has ended.
    pub fn receive(&mut self) -> Result<Received, Closed> {
        let messages = self.messages.as_mut();
        let receiving = async {
            match messages {
                Some(messages) => messages.receive().await,
                None => Err(self.client.closed().await),
            }
        };
        self.runtime.handle.block_on(receiving)
    }

    /// The next message, if it comes in time.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the client has ended.
    pub fn receive_timeout(&mut self, wait: Duration) -> Result<Option<Received>, Closed> {
        let messages = self.messages.as_mut();
        let receiving = async {
            match messages {
                Some(messages) => tokio::time::timeout(wait, messages.receive()).await,
                None => Ok(Err(self.client.closed().await)),
            }
        };
        match self.runtime.handle.block_on(receiving) {
            Ok(received) => received.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// As [`Client::disconnect`](crate::Client::disconnect).
    pub fn disconnect(self, deadline: Duration) {
        self.runtime
            .handle
            .block_on(self.client.disconnect(deadline));
    }

    /// The client itself, for what is not here; its futures need a runtime.
    #[must_use]
    pub const fn inner(&self) -> &crate::Client {
        &self.client
    }
}

/// Disconnects, with five seconds for what is on its way.
impl Drop for Client {
    fn drop(&mut self) {
        let disconnecting = self.client.disconnect(Duration::from_secs(5));
        self.runtime.handle.block_on(disconnecting);
    }
}
