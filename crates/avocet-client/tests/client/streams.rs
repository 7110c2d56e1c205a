//! Streams of messages, and their acknowledgement.

use avocet_client::{
    AckError, Client, Config, Event, Message, Messages, QoS, ReasonCode, TopicName, Version,
    WhenSlow,
};
use futures::StreamExt;
use tokio::task::JoinHandle;

use crate::server::Server;
use crate::{SECOND, VERSIONS, config, connect, filter};

fn to(topic_name: &str, payload: &str, qos: QoS) -> Message {
    Message::new(TopicName::new(topic_name).unwrap(), payload.as_bytes()).with_qos(qos)
}

async fn echoing(config: Config) -> (Client, Messages, JoinHandle<Server>) {
    let server = Server {
        echo: true,
        ..Server::default()
    };
    let (client, server) = connect(config, server).await;
    let (client, messages) = client.unwrap();
    (client, messages, server)
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_to_the_streams_that_it_matches_and_otherwise_to_the_rest() {
    // The server of this test sends no identifiers, so Topic Names decide in 3.x.
    for version in [Version::V3_1, Version::V3_1_1] {
        let (client, mut rest, _server) = echoing(config(version)).await;
        let mut a = client
            .stream((filter("a/#"), QoS::AtLeastOnce))
            .await
            .unwrap();
        let mut b = client
            .stream((filter("+/b"), QoS::AtLeastOnce))
            .await
            .unwrap();
        for (topic_name, payload) in [("a/x", "1"), ("c/b", "2"), ("a/b", "3"), ("d", "4")] {
            client
                .publish(to(topic_name, payload, QoS::AtLeastOnce))
                .await
                .unwrap();
        }
        for (stream, expected) in [(&mut a, ["1", "3"]), (&mut b, ["2", "3"])] {
            for payload in expected {
                assert_eq!(stream.next().await.unwrap().payload(), payload.as_bytes());
            }
        }
        assert_eq!(rest.receive().await.unwrap().payload(), b"4");
        client.disconnect(SECOND).await;
        assert!(a.next().await.is_none());
        assert!(StreamExt::next(&mut b).await.is_none());
    }
}

/// A task that receives may wait for the answers to what it publishes, however slow it is.
#[tokio::test(start_paused = true)]
async fn publishing_from_the_task_that_receives_does_not_block() {
    for version in VERSIONS {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let config = Config {
                receive_max: 1,
                publish_max: 1,
                ..config(version)
            };
            let (client, mut messages, _server) = echoing(config).await;
            for _ in 0..50 {
                let early = client.start_publish(to("t", "x", qos)).await.unwrap();
                drop(early);
            }
            client
                .publish(to("t", "x", QoS::AtLeastOnce))
                .await
                .unwrap();
            for _ in 0..20 {
                client
                    .publish(to("t", "x", QoS::ExactlyOnce))
                    .await
                    .unwrap();
                drop(messages.receive().await.unwrap());
            }
            client.disconnect(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_application_misses_messages_of_qos_0_only_and_learns_how_many() {
    for (when_slow, expected) in [
        (WhenSlow::DropOldest, ["7", "8", "9"]),
        (WhenSlow::DropNewest, ["0", "1", "2"]),
    ] {
        let sends = (0..10).flat_map(|count| {
            let one = |qos| to("t", &count.to_string(), qos);
            [one(QoS::AtMostOnce), one(QoS::AtLeastOnce)]
        });
        let server = Server {
            sends: sends.collect(),
            ..Server::default()
        };
        let config = Config {
            receive_max: 3,
            when_slow,
            ..config(Version::V5)
        };
        let (client, _server) = connect(config, server).await;
        let (client, mut messages) = client.unwrap();
        client
            .publish(to("t", "x", QoS::AtLeastOnce))
            .await
            .unwrap();
        let mut of_qos_0 = Vec::new();
        let mut of_qos_1 = 0;
        while of_qos_1 < 10 || of_qos_0.len() < 3 {
            let received = messages.receive().await.unwrap();
            match received.qos() {
                QoS::AtMostOnce => {
                    of_qos_0.push(String::from_utf8(received.payload().to_vec()).unwrap());
                }
                _ => of_qos_1 += 1,
            }
        }
        assert_eq!(of_qos_0, expected);
        assert_eq!((messages.take_missed(), messages.take_missed()), (7, 0));
        client.disconnect(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_when_the_application_takes_it() {
    let sends = ["1", "2"].map(|payload| to("t", payload, QoS::AtLeastOnce));
    let server = Server {
        sends: sends.into(),
        ..Server::default()
    };
    let (client, server) = connect(config(Version::V5), server).await;
    let (client, mut messages) = client.unwrap();
    drop(messages.receive().await.unwrap());
    client.disconnect(SECOND).await;
    assert_eq!(
        server.await.unwrap().acknowledged,
        [(1, ReasonCode::Success)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_dropped_acknowledges_nothing_and_is_told() {
    let sends = ["1", "2"].map(|payload| to("t", payload, QoS::AtLeastOnce));
    let server = Server {
        sends: sends.into(),
        ..Server::default()
    };
    let config = Config {
        manual_acknowledge: true,
        ..config(Version::V5)
    };
    let (client, server) = connect(config, server).await;
    let (client, mut messages) = client.unwrap();
    let mut events = client.events();
    drop(messages.receive().await.unwrap());
    assert!(matches!(events.next().await, Some(Event::Unacknowledged)));
    let token = messages.receive().await.unwrap().take_acknowledgement();
    token.unwrap().acknowledge().unwrap();
    client.disconnect(SECOND).await;
    // The second one waits behind the first.
    assert_eq!(server.await.unwrap().acknowledged, []);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_of_no_use_after_its_connection() {
    let server = Server {
        sends: vec![to("t", "1", QoS::AtLeastOnce)],
        ..Server::default()
    };
    let config = Config {
        manual_acknowledge: true,
        ..config(Version::V5)
    };
    let (client, _server) = connect(config, server).await;
    let (client, mut messages) = client.unwrap();
    let mut received = messages.receive().await.unwrap();
    client.disconnect(SECOND).await;
    assert_eq!(received.acknowledge(), Err(AckError::Stale));
    assert_eq!(received.acknowledge(), Ok(()));
}
