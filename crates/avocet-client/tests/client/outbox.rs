//! Messages that wait for a server: how many, for how long, and over the end of the process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avocet_client::{
    Address, ByteStream, Client, Config, ConnectError, Connector, DropReason, Event, Events,
    MemoryStorage, NotPublished, Pending, PublishError, QoS, Record, Storage, UnixTime, Unsendable,
    Version, WhenFull,
};
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use crate::server::Server;
use crate::{SECOND, VERSIONS, config, message};

/// No server can be reached.
struct Nowhere;

impl Connector for Nowhere {
    fn connect<'a>(
        &'a mut self,
        _: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into()) })
    }
}

fn offline(version: Version) -> Config {
    Config {
        connector: Some(Box::new(Nowhere)),
        ..config(version)
    }
}

/// The next drop that is told: why, and how many.
async fn dropped(events: &mut Events) -> (NotPublished, u64) {
    let waiting = async {
        loop {
            let event = events.next().await.expect("the client goes on");
            if let Event::NotPublished { reason, messages } = event {
                return (reason, messages);
            }
        }
    };
    timeout(3600 * SECOND, waiting).await.unwrap()
}

async fn why(pending: Pending) -> NotPublished {
    match pending.await {
        Err(PublishError::NotPublished(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is stored is as old as the wall clock says"
)]
fn unix_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixTime::from_millis(since.as_millis() as u64)
}

fn ago(age: Duration) -> UnixTime {
    UnixTime::from_millis(unix_time().as_millis() - age.as_millis() as u64)
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_too_long_are_dropped_and_told() {
    for version in VERSIONS {
        let mut config = offline(version);
        config.max_age = Some(60 * SECOND);
        let (client, _messages) = Client::start(config).unwrap();
        let mut events = client.events();
        let before = Instant::now();
        let first = client.try_publish(message("1", QoS::AtLeastOnce)).unwrap();
        let second = client.try_publish(message("2", QoS::ExactlyOnce)).unwrap();
        assert_eq!(why(first).await, NotPublished::TooOld);
        assert_eq!(why(second).await, NotPublished::TooOld);
        assert_eq!(before.elapsed().as_secs(), 60);
        assert_eq!(dropped(&mut events).await, (NotPublished::TooOld, 2));
        // The next one is in time again.
        let third = client.try_publish(message("3", QoS::AtLeastOnce)).unwrap();
        let third = timeout(59 * SECOND, third).await;
        assert!(third.is_err(), "{third:?}");
        client.disconnect(Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_sent_in_time_has_no_age() {
    let (near, far) = tokio::io::duplex(4096);
    let server = tokio::spawn(Server::default().serve(far));
    let mut config = config(Version::V5);
    config.max_age = Some(SECOND);
    let (client, _messages) = Client::connect_over(near, config).await.unwrap();
    let mut events = client.events();
    for payload in ["1", "2"] {
        let published = client.publish(message(payload, QoS::AtLeastOnce)).await;
        assert!(published.is_ok(), "{published:?}");
        let event = timeout(10 * SECOND, events.next()).await;
        assert!(event.is_err(), "{event:?}");
    }
    client.disconnect(SECOND).await;
    assert_eq!(server.await.unwrap().received.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_waits_refuses_or_drops_the_oldest() {
    let start = |when_full| {
        let mut config = offline(Version::V5);
        config.publish_max = 2;
        config.when_full = when_full;
        let (client, messages) = Client::start(config).unwrap();
        let publish = |payload| client.try_publish(message(payload, QoS::AtLeastOnce));
        let first = publish("1").unwrap();
        drop(publish("2").unwrap());
        (client, messages, first)
    };
    let full = Err(PublishError::Unsendable(Unsendable::QueueFull));

    let (client, _messages, _first) = start(WhenFull::Wait);
    let third = client.start_publish(message("3", QoS::AtLeastOnce));
    assert!(timeout(3600 * SECOND, third).await.is_err());
    let third = client.try_publish(message("3", QoS::AtLeastOnce));
    assert_eq!(third.map(drop), full);

    let (client, _messages, _first) = start(WhenFull::Refuse);
    let third = client.start_publish(message("3", QoS::AtLeastOnce)).await;
    assert_eq!(third.map(drop), full);

    let (client, _messages, first) = start(WhenFull::DropOldest);
    let mut events = client.events();
    let third = client.start_publish(message("3", QoS::AtLeastOnce)).await;
    assert!(third.is_ok());
    let gone = NotPublished::Dropped(DropReason::QueueFull);
    assert_eq!(dropped(&mut events).await, (gone, 1));
    assert_eq!(why(first).await, gone);
}

/// What an earlier process has queued, of QoS 1 and 2 in turn.
fn left(messages: &[(u64, UnixTime, Option<UnixTime>)]) -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    let records: Vec<_> = messages
        .iter()
        .map(|(sequence, queued_at, expires_at)| Record::Queued {
            sequence: *sequence,
            message: message(
                &sequence.to_string(),
                match sequence % 2 {
                    0 => QoS::ExactlyOnce,
                    _ => QoS::AtLeastOnce,
                },
            )
            .with_expires_at(*expires_at),
            queued_at: *queued_at,
            sent: false,
        })
        .collect();
    storage.store(&records).unwrap();
    storage
}

#[tokio::test]
async fn age_and_expiry_go_on_while_no_process_runs() {
    let storage = left(&[
        (1, ago(120 * SECOND), None),
        (2, ago(110 * SECOND), None),
        (3, ago(30 * SECOND), Some(ago(SECOND))),
        (4, ago(20 * SECOND), Some(unix_time() + 100 * SECOND)),
        (5, ago(10 * SECOND), None),
    ]);
    let mut restarted = offline(Version::V5);
    restarted.max_age = Some(60 * SECOND);
    restarted.storage = Some(Box::new(storage.clone()));
    let (client, _messages) = Client::start(restarted).unwrap();
    let mut events = client.events();
    assert_eq!(dropped(&mut events).await, (NotPublished::TooOld, 2));
    let expired = NotPublished::Dropped(DropReason::Expired);
    assert_eq!(dropped(&mut events).await, (expired, 1));
    client.disconnect(Duration::ZERO).await;
    let mut kept = storage.clone();
    let sequences = kept.load().unwrap().outgoing.into_iter();
    let sequences: Vec<_> = sequences.map(|it| it.sequence).collect();
    assert_eq!(sequences, [4, 5]);

    // What is left is published, the first one with what is left of its interval.
    let (near, far) = tokio::io::duplex(4096);
    let server = tokio::spawn(Server::default().serve(far));
    let mut online = config(Version::V5);
    online.storage = Some(Box::new(storage));
    let (client, _messages) = Client::connect_over(near, online).await.unwrap();
    client.disconnect(10 * SECOND).await;
    let server = server.await.unwrap();
    let payloads: Vec<_> = server.received.iter().map(|it| it.1.as_str()).collect();
    assert_eq!(payloads, ["4", "5"]);
    let [Some(left), None] = server.intervals[..] else {
        panic!("{:?}", server.intervals);
    };
    assert!((90..=100).contains(&left), "{left}");
}

/// Whatever the storage says was sent is sent again, however old it is.
#[tokio::test]
async fn a_message_that_may_have_been_sent_has_no_age() {
    let mut storage = left(&[(1, ago(120 * SECOND), None)]);
    storage.store(&[Record::Sent { sequence: 1 }]).unwrap();
    let (near, far) = tokio::io::duplex(4096);
    let server = tokio::spawn(Server::default().serve(far));
    let mut config = config(Version::V5);
    config.max_age = Some(SECOND);
    config.storage = Some(Box::new(storage.clone()));
    let (client, _messages) = Client::connect_over(near, config).await.unwrap();
    client.disconnect(10 * SECOND).await;
    assert_eq!(server.await.unwrap().received.len(), 1);
    assert_eq!(storage.load().unwrap().outgoing, []);
}
