//! A client with a storage whose process ends after every record in turn: the storage takes nothing
//! from there on, and so nothing leaves that depends on it.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_client::{
    Backoff, Client, Config, MemoryStorage, Message, Messages, QoS, Reconnection, Record, Storage,
    Stored, TopicFilter, TopicName,
};
use avocet_testing::Broker;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::SECOND;

const MESSAGES: usize = 3;

/// A storage that takes so many records, and one batch more only whole.
#[derive(Clone)]
struct Limited {
    inner: MemoryStorage,
    log: Arc<Mutex<Log>>,
    full: Arc<Notify>,
}

#[derive(Default)]
struct Log {
    left: usize,
    accepted: Vec<Record>,
    refused: bool,
}

impl Limited {
    fn new(left: usize) -> Self {
        let log = Log {
            left,
            ..Log::default()
        };
        Self {
            inner: MemoryStorage::new(),
            log: Arc::new(Mutex::new(log)),
            full: Arc::new(Notify::new()),
        }
    }

    /// The process ended, and another one begins.
    fn restart(&self) {
        self.log.lock().unwrap().left = usize::MAX;
    }

    fn refused(&self) -> bool {
        self.log.lock().unwrap().refused
    }

    fn queued(&self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let queued = log.accepted.iter().filter_map(|record| match record {
            Record::Queued { message, .. } => Some(payload(message.payload())),
            _ => None,
        });
        queued.collect()
    }

    /// The places and payloads that entered the inbox.
    fn received(&self) -> Vec<(u64, String)> {
        let log = self.log.lock().unwrap();
        let received = log.accepted.iter().filter_map(|record| match record {
            Record::Received {
                message: Some(stored),
                ..
            } => Some((stored.place, payload(stored.message.payload()))),
            _ => None,
        });
        received.collect()
    }

    fn taken(&self) -> Vec<u64> {
        let log = self.log.lock().unwrap();
        let taken = log.accepted.iter().filter_map(|record| match record {
            Record::Taken { place } => Some(*place),
            _ => None,
        });
        taken.collect()
    }
}

impl Storage for Limited {
    fn load(&mut self) -> Result<Stored, Box<dyn Error + Send + Sync>> {
        self.inner.load()
    }

    fn store(&mut self, records: &[Record]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut log = self.log.lock().unwrap();
        if log.left < records.len() {
            log.refused = true;
            log.left = 0;
            self.full.notify_one();
            return Err("no room".into());
        }
        log.left -= records.len();
        log.accepted.extend_from_slice(records);
        self.inner.store(records)
    }
}

fn payload(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn config(broker: &Broker, client_id: &str, storage: Option<&Limited>) -> Config {
    let mut config = broker.config(client_id);
    config.connection.session_expiry_interval = 3600;
    config.reconnect = Some(Reconnection {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(1)),
        ..Reconnection::default()
    });
    config.storage = storage.map(|storage| Box::new(storage.clone()) as Box<dyn Storage>);
    config
}

fn message(payload: &str, qos: QoS) -> Message {
    Message::new(TopicName::new("t").unwrap(), payload.as_bytes()).with_qos(qos)
}

async fn next(messages: &mut Messages, wait: Duration) -> Option<String> {
    let mut message = timeout(wait, messages.receive()).await.ok()?.ok()?;
    let text = payload(message.payload());
    let _ = message.acknowledge();
    Some(text)
}

/// True if the process came to its end before the storage was full.
async fn publisher_that_ends_after(records: usize, qos: QoS, starts_offline: bool) -> bool {
    let broker = Broker::start();
    let subscriber = config(&broker, "s", None);
    let (subscriber, mut messages) = Client::connect(subscriber).await.unwrap();
    let filter = TopicFilter::new("t").unwrap();
    subscriber.subscribe(filter, qos).await.unwrap();

    let storage = Limited::new(records);
    broker.set_reachable(!starts_offline);
    let (client, _nothing) = Client::start(config(&broker, "p", Some(&storage))).unwrap();
    let all = async {
        let mut pending = Vec::new();
        for count in 0..MESSAGES {
            pending.push(
                client
                    .try_publish(message(&count.to_string(), qos))
                    .unwrap(),
            );
        }
        if starts_offline {
            for pending in &pending {
                pending.stored().await.unwrap();
            }
            broker.set_reachable(true);
        }
        for pending in pending {
            pending.await.unwrap();
        }
    };
    tokio::select! {
        () = all => {}
        () = storage.full.notified() => {}
    }
    client.disconnect(Duration::ZERO).await;
    broker.set_reachable(true);

    storage.restart();
    let (client, _nothing) = Client::start(config(&broker, "p", Some(&storage))).unwrap();
    client.disconnect(60 * SECOND).await;
    let expected = storage.queued();
    let mut received = Vec::new();
    while received.len() < expected.len()
        || (qos == QoS::AtLeastOnce && !expected.iter().all(|it| received.contains(it)))
    {
        let Some(message) = next(&mut messages, 5 * SECOND).await else {
            panic!(
                "lost: {qos:?} after {records} records, offline {starts_offline}: {received:?} of {expected:?}"
            );
        };
        received.push(message);
    }
    // What would come twice is behind this.
    subscriber.publish(message("end", qos)).await.unwrap();
    loop {
        match next(&mut messages, 60 * SECOND).await {
            Some(text) if text == "end" => break,
            Some(text) => received.push(text),
            None => panic!("the end did not come"),
        }
    }
    if qos == QoS::AtLeastOnce {
        received.dedup();
        received.sort();
        received.dedup();
    }
    assert_eq!(received, expected, "{qos:?} after {records} records");
    !storage.refused()
}

#[tokio::test]
async fn what_was_stored_is_published_after_a_crash_and_qos_2_only_once() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for starts_offline in [false, true] {
            let mut records = 0;
            while !publisher_that_ends_after(records, qos, starts_offline).await {
                records += 1;
            }
            assert!(records >= 2 * MESSAGES, "a message takes more records");
        }
    }
}

/// True if the process came to its end before the storage was full.
async fn receiver_that_ends_after(records: usize) -> bool {
    let broker = Broker::start();
    let storage = Limited::new(records);
    let manual = || {
        let mut config = config(&broker, "s", Some(&storage));
        config.manual_acknowledge = true;
        config
    };
    let (client, mut messages) = Client::connect(manual()).await.unwrap();
    let filter = TopicFilter::new("t").unwrap();
    client.subscribe(filter, QoS::ExactlyOnce).await.unwrap();
    let (publisher, _nothing) = Client::connect(broker.config("p")).await.unwrap();
    for count in 0..MESSAGES {
        let message = message(&count.to_string(), QoS::ExactlyOnce);
        publisher.publish(message).await.unwrap();
    }
    let mut handled = Vec::new();
    let all = async {
        while handled.len() < MESSAGES {
            handled.extend(next(&mut messages, 60 * SECOND).await);
        }
        // So that everything that is to be stored is.
        client.disconnect(60 * SECOND).await;
    };
    tokio::select! {
        () = all => {}
        () = storage.full.notified() => {}
    }
    client.disconnect(Duration::ZERO).await;

    storage.restart();
    let taken = storage.taken();
    let done: Vec<String> = storage
        .received()
        .into_iter()
        .filter(|(place, _)| taken.contains(place))
        .map(|(_, text)| text)
        .collect();
    let (client, mut messages) = Client::connect(manual()).await.unwrap();
    let end = message("end", QoS::ExactlyOnce);
    publisher.publish(end).await.unwrap();
    let mut again = Vec::new();
    loop {
        let text = next(&mut messages, 60 * SECOND).await;
        match text.expect("nothing is lost") {
            text if text == "end" => break,
            text => again.push(text),
        }
    }
    client.disconnect(60 * SECOND).await;
    let expected: Vec<String> = (0..MESSAGES).map(|count| count.to_string()).collect();
    let mut inbox: Vec<String> = storage
        .received()
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    inbox.retain(|text| text != "end");
    assert_eq!(
        inbox, expected,
        "into the inbox once, after {records} records"
    );
    let not_done: Vec<&String> = expected.iter().filter(|it| !done.contains(it)).collect();
    assert_eq!(
        again.iter().collect::<Vec<_>>(),
        not_done,
        "after {records} records"
    );
    !storage.refused()
}

#[tokio::test]
async fn what_came_at_qos_2_enters_the_inbox_once_and_is_handed_out_until_acknowledged() {
    let mut records = 0;
    while !receiver_that_ends_after(records).await {
        records += 1;
    }
    assert!(records > 2 * MESSAGES, "a message takes more records");
}
