//! A connection that is cut after every byte of a conversation in turn.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use avocet_client::{
    Address, Backoff, ByteStream, Client, ClientConfig, Config, ConnectError, Connector, Message,
    QoS, Reconnection, Stream, TopicFilter, TopicName, Version,
};
use avocet_testing::{Broker, BrokerConnector};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::SECOND;

/// Bytes that may still pass, both ways together; none when there is no limit.
type Budget = Arc<Mutex<Option<usize>>>;

/// Connects to a broker; the first connection is cut when its budget is used up.
struct Cutting {
    broker: BrokerConnector,
    budget: Option<Budget>,
}

impl Connector for Cutting {
    fn connect<'a>(
        &'a mut self,
        server: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>> {
        let budget = self.budget.take().unwrap_or_default();
        Box::pin(async {
            let stream = self.broker.connect(server).await?;
            Ok(Box::new(Cut { stream, budget }) as Box<dyn ByteStream>)
        })
    }
}

struct Cut {
    stream: Box<dyn ByteStream>,
    budget: Budget,
}

impl Cut {
    /// How many of these bytes may pass; none at all is an error.
    fn allowed(&self, len: usize) -> io::Result<usize> {
        match *self.budget.lock().unwrap() {
            Some(0) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(left) => Ok(left.min(len)),
            None => Ok(len),
        }
    }

    fn spend(&self, len: usize) {
        if let Some(left) = &mut *self.budget.lock().unwrap() {
            *left -= len;
        }
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = self.allowed(buffer.remaining())?;
        let mut chunk = vec![0; allowed];
        let mut part = ReadBuf::new(&mut chunk);
        let read = Pin::new(&mut *self.stream).poll_read(context, &mut part);
        self.spend(part.filled().len());
        buffer.put_slice(part.filled());
        read
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = self.allowed(bytes.len())?;
        let written = Pin::new(&mut *self.stream).poll_write(context, &bytes[..allowed]);
        if let Poll::Ready(Ok(written)) = written {
            self.spend(written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    version: Version,
    qos: QoS,
    /// Whether the publisher's connection is cut, or the subscriber's.
    cuts_publisher: bool,
}

const MESSAGES: usize = 4;

fn config(broker: &Broker, client_id: &str, version: Version, budget: Option<Budget>) -> Config {
    let mut connection = ClientConfig::new(version, client_id);
    if version != Version::V5 {
        // In 3.x the server keeps a Session only if the first CONNECT asks for it.
        connection.clean_start = false;
    }
    Config {
        connector: Some(Box::new(Cutting {
            broker: broker.connector(),
            budget,
        })),
        reconnect: Some(Reconnection {
            backoff: Backoff::new(SECOND, 4 * SECOND),
            ..Reconnection::default()
        }),
        ..Config::with_connection(connection)
    }
}

/// The payloads that arrived after a cut at this byte, and how many bytes were left when everything
/// was done.
async fn conversation(case: Case, budget: usize) -> (Vec<String>, usize) {
    let budget = Arc::new(Mutex::new(Some(budget)));
    let of = |cut: bool| cut.then(|| Arc::clone(&budget));
    let broker = Broker::start();
    let subscriber = config(&broker, "s", case.version, of(!case.cuts_publisher));
    let publisher = config(&broker, "p", case.version, of(case.cuts_publisher));
    let (subscriber, _others) = Client::start(subscriber).unwrap();
    let filter = TopicFilter::new("cut/+").unwrap();
    let mut messages = subscriber.stream((filter, case.qos)).await.unwrap();
    let (publisher, _nothing) = Client::start(publisher).unwrap();
    let mut pending = Vec::new();
    for count in 0..MESSAGES {
        let topic_name = TopicName::new("cut/t").unwrap();
        let message = Message::new(topic_name, count.to_string().as_bytes());
        pending.push(publisher.try_publish(message.with_qos(case.qos)).unwrap());
    }
    for pending in pending {
        pending.await.unwrap();
    }
    publisher.disconnect(60 * SECOND).await;
    let mut received = Vec::new();
    while received.len() < MESSAGES || !all(&received) {
        let message = next(&mut messages).await.expect("nothing is lost");
        received.push(message);
    }
    // What would come twice comes within a minute.
    while let Some(message) = next(&mut messages).await {
        received.push(message);
    }
    subscriber.disconnect(60 * SECOND).await;
    let left = budget.lock().unwrap().unwrap_or_default();
    (received, left)
}

fn all(received: &[String]) -> bool {
    let distinct: HashSet<_> = received.iter().collect();
    distinct.len() == MESSAGES
}

async fn next(messages: &mut Stream) -> Option<String> {
    let message = timeout(60 * SECOND, messages.next()).await.ok()??;
    Some(String::from_utf8_lossy(message.payload()).into_owned())
}

async fn cut_after_every_byte(case: Case) {
    for budget in 0.. {
        let (received, left) = conversation(case, budget).await;
        let expected: Vec<_> = (0..MESSAGES).map(|count| count.to_string()).collect();
        match case.qos {
            QoS::ExactlyOnce => assert_eq!(received, expected, "{case:?} cut after {budget}"),
            QoS::AtLeastOnce | QoS::AtMostOnce => {
                let mut first: Vec<String> = Vec::new();
                for payload in received {
                    if !first.contains(&payload) {
                        first.push(payload);
                    }
                }
                assert_eq!(first, expected, "{case:?} cut after {budget}");
            }
        }
        if left > 0 {
            assert!(budget > 60, "a conversation has more bytes");
            return;
        }
    }
}

/// [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-4.6.0-1]
#[tokio::test(start_paused = true)]
async fn nothing_of_qos_1_is_lost_wherever_a_connection_is_cut() {
    for version in [Version::V3_1_1, Version::V5] {
        for cuts_publisher in [true, false] {
            cut_after_every_byte(Case {
                version,
                qos: QoS::AtLeastOnce,
                cuts_publisher,
            })
            .await;
        }
    }
}

/// [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[tokio::test(start_paused = true)]
async fn nothing_of_qos_2_is_lost_or_doubled_wherever_a_connection_is_cut() {
    for version in [Version::V3_1_1, Version::V5] {
        for cuts_publisher in [true, false] {
            cut_after_every_byte(Case {
                version,
                qos: QoS::ExactlyOnce,
                cuts_publisher,
            })
            .await;
        }
    }
}
