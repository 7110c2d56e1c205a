//! The client against the server role, over a stream in memory.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

mod outbox;
mod proxy;
mod reconnect;
mod server;
mod streams;

use std::time::Duration;

use avocet_client::{
    Client, ClientConfig, CloseReason, Closed, Config, ConnectError, Message, Messages,
    PublishError, QoS, ReasonCode, Session, SubscribeError, TopicFilter, TopicName, Version,
    WhenSlow,
};
use avocet_session::ServerConfig;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::server::Server;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];
const SECOND: Duration = Duration::from_secs(1);

fn message(payload: &str, qos: QoS) -> Message {
    Message::new(TopicName::new("some/topic").unwrap(), payload.as_bytes()).with_qos(qos)
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

fn config(version: Version) -> Config {
    Config::with_connection(ClientConfig::new(version, "c"))
}

async fn connect(
    config: Config,
    server: Server,
) -> (Result<(Client, Messages), ConnectError>, JoinHandle<Server>) {
    let mut session = Session::new();
    resume(config, server, &mut session).await
}

async fn resume(
    config: Config,
    server: Server,
    session: &mut Session,
) -> (Result<(Client, Messages), ConnectError>, JoinHandle<Server>) {
    let (near, far) = tokio::io::duplex(4096);
    let server = tokio::spawn(server.serve(far));
    (Client::resume_over(near, config, session).await, server)
}

#[tokio::test(start_paused = true)]
async fn messages_go_both_ways_at_every_qos_in_every_version() {
    for version in VERSIONS {
        let server = Server {
            echo: true,
            ..Server::default()
        };
        let (client, server) = connect(config(version), server).await;
        let (client, mut messages) = client.unwrap();
        assert!(!client.connected().unwrap().session_present);
        let granted = client.subscribe(filter("some/#"), QoS::AtLeastOnce).await;
        assert_eq!(granted, Ok(QoS::AtLeastOnce));
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let payload = format!("at {qos}");
            let acknowledged = client.publish(message(&payload, qos)).await.unwrap();
            assert_eq!(acknowledged.reason_code, ReasonCode::Success);
            let received = messages.receive().await.unwrap();
            assert_eq!(received.topic_name().as_str(), "some/topic");
            assert_eq!(
                (received.payload(), received.qos()),
                (payload.as_bytes(), qos)
            );
        }
        client.unsubscribe(filter("some/#")).await.unwrap();
        client.disconnect(SECOND).await;
        let server = server.await.unwrap();
        assert_eq!(server.received.len(), 3);
        let normal = CloseReason::PeerDisconnected(ReasonCode::NORMAL_DISCONNECTION);
        assert_eq!(server.closed, Some(normal));
        let closed = messages.receive().await.unwrap_err();
        let expected = CloseReason::Disconnected(ReasonCode::NORMAL_DISCONNECTION);
        assert_eq!(
            closed,
            Closed {
                reason: expected,
                detail: None
            }
        );
        let after = client.publish(message("late", QoS::AtMostOnce)).await;
        assert_eq!(after, Err(PublishError::Closed(closed)));
    }
}

#[tokio::test(start_paused = true)]
async fn large_messages_arrive_whole() {
    let config_of_server = ServerConfig {
        maximum_packet_size: 10_000_000.try_into().unwrap(),
        ..ServerConfig::default()
    };
    let server = Server {
        echo: true,
        config: config_of_server,
        ..Server::default()
    };
    let (client, _server) = connect(config(Version::V5), server).await;
    let (client, mut messages) = client.unwrap();
    let payload = "0123456789abcdef".repeat(1 << 16);
    client
        .publish(message(&payload, QoS::ExactlyOnce))
        .await
        .unwrap();
    assert!(messages.receive().await.unwrap().payload() == payload.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_why() {
    for version in VERSIONS {
        let refuse = Some(ReasonCode::NotAuthorized);
        let (client, _server) = connect(
            config(version),
            Server {
                refuse,
                ..Server::default()
            },
        )
        .await;
        let error = client.unwrap_err();
        let ConnectError::Refused {
            reason_code,
            reason_string,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*reason_code, ReasonCode::NotAuthorized);
        let expected = (version == Version::V5).then_some("not today");
        assert_eq!(reason_string.as_deref(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_left_at_the_deadline() {
    let (near, _far) = tokio::io::duplex(4096);
    let error = Client::connect_over(near, config(Version::V5))
        .await
        .unwrap_err();
    let ConnectError::Closed(closed) = &error else {
        panic!("{error}")
    };
    assert_eq!(closed.reason, CloseReason::ConnectTimeout);
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_sent_are_refused_before_connecting() {
    let mut config = Config::new("host.invalid", 1);
    config.connection.receive_maximum = 0;
    assert!(matches!(
        Client::connect(config).await,
        Err(ConnectError::Config(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_refuses_is_an_error_of_its_own() {
    let server = Server {
        refuse_messages: true,
        ..Server::default()
    };
    let (client, _server) = connect(config(Version::V5), server).await;
    let (client, _messages) = client.unwrap();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let refused = client.publish(message("x", qos)).await;
        let reason_code = ReasonCode::NotAuthorized;
        assert_eq!(
            refused,
            Err(PublishError::Refused {
                reason_code,
                reason_string: None
            })
        );
    }
    let refused = client
        .subscribe(filter("a"), QoS::ExactlyOnce)
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        SubscribeError::Refused {
            reason_code: ReasonCode::NotAuthorized,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_take_is_not_sent() {
    let config_of_server = ServerConfig {
        maximum_qos: QoS::AtMostOnce,
        ..ServerConfig::default()
    };
    let server = Server {
        config: config_of_server,
        ..Server::default()
    };
    let (client, server) = connect(config(Version::V5), server).await;
    let (client, _messages) = client.unwrap();
    let refused = client.publish(message("x", QoS::AtLeastOnce)).await;
    assert!(matches!(refused, Err(PublishError::Unsendable(_))));
    client.publish(message("y", QoS::AtMostOnce)).await.unwrap();
    client.disconnect(SECOND).await;
    assert_eq!(server.await.unwrap().received.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_servers_disconnect_ends_everything_with_its_reason() {
    let server = Server {
        disconnect_at_subscribe: true,
        ..Server::default()
    };
    let (client, _server) = connect(config(Version::V5), server).await;
    let (client, mut messages) = client.unwrap();
    let reason = CloseReason::PeerDisconnected(ReasonCode::AdministrativeAction);
    let closed = Closed {
        reason,
        detail: Some("enough".into()),
    };
    let unanswered = client.subscribe(filter("a"), QoS::AtMostOnce).await;
    assert_eq!(unanswered, Err(SubscribeError::Closed(closed.clone())));
    assert_eq!(messages.receive().await.unwrap_err(), closed);
    assert_eq!(client.closed().await, closed);
}

#[tokio::test(start_paused = true)]
async fn disconnect_sends_what_was_published_before() {
    let (client, server) = connect(config(Version::V5), Server::default()).await;
    let (client, _messages) = client.unwrap();
    let mut pending = Vec::new();
    for count in 0..200 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][count % 3];
        pending.push(
            client
                .start_publish(message(&count.to_string(), qos))
                .await
                .unwrap(),
        );
    }
    client.disconnect(SECOND).await;
    for pending in pending {
        pending.await.unwrap();
    }
    let received = server.await.unwrap().received;
    let payloads: Vec<_> = received
        .into_iter()
        .map(|(_, payload, _)| payload)
        .collect();
    assert_eq!(
        payloads,
        (0..200).map(|count| count.to_string()).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_disconnects_in_order() {
    let (client, server) = connect(config(Version::V3_1_1), Server::default()).await;
    let (client, messages) = client.unwrap();
    drop(
        client
            .start_publish(message("last", QoS::AtLeastOnce))
            .await
            .unwrap(),
    );
    drop((client, messages));
    let server = server.await.unwrap();
    assert_eq!(server.received.len(), 1);
    let normal = CloseReason::PeerDisconnected(ReasonCode::NORMAL_DISCONNECTION);
    assert_eq!(server.closed, Some(normal));
}

/// The stream holds 4 KiB, the channel one message: the rest stays with the server.
#[tokio::test(start_paused = true)]
async fn a_slow_application_stops_the_reading_and_loses_nothing() {
    let sends = (0..100).map(|count| message(&format!("{count:01000}"), QoS::AtMostOnce));
    let server = Server {
        sends: sends.collect(),
        ..Server::default()
    };
    let config = Config {
        receive_max: 1,
        when_slow: WhenSlow::StopReading,
        ..config(Version::V5)
    };
    let (client, mut server) = connect(config, server).await;
    let (client, mut messages) = client.unwrap();
    client
        .publish(message("still goes out", QoS::AtMostOnce))
        .await
        .unwrap();
    // The server is still writing after ten minutes, in which pings went unread.
    assert!(timeout(600 * SECOND, &mut server).await.is_err());
    for count in 0..100 {
        let received = messages.receive().await.unwrap();
        assert_eq!(received.payload(), format!("{count:01000}").as_bytes());
    }
    client.disconnect(SECOND).await;
    assert_eq!(server.await.unwrap().received.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pings_keep_an_idle_connection() {
    let (client, server) = connect(config(Version::V5), Server::default()).await;
    let (client, _messages) = client.unwrap();
    assert!(timeout(3600 * SECOND, client.closed()).await.is_err());
    client.disconnect(SECOND).await;
    let normal = CloseReason::PeerDisconnected(ReasonCode::NORMAL_DISCONNECTION);
    assert_eq!(server.await.unwrap().closed, Some(normal));
}

/// [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
#[tokio::test(start_paused = true)]
async fn a_session_goes_on_after_the_connection_broke() {
    for version in VERSIONS {
        let cutting = Server {
            cut_at_publish: true,
            ..Server::default()
        };
        let mut keeping = config(version);
        keeping.connection.clean_start = false;
        let (client, server) = connect(keeping, cutting).await;
        let (client, messages) = client.unwrap();
        let lost = client
            .publish(message("once", QoS::ExactlyOnce))
            .await
            .unwrap_err();
        let PublishError::Closed(closed) = lost else {
            panic!("{lost}")
        };
        assert_eq!(closed.reason, CloseReason::ConnectionLost);
        let mut session = messages.into_session().await;
        assert_eq!(session.in_flight(), 1);

        // A server that refuses leaves the Session where it was.
        let again = || {
            let mut again = config(version);
            again.connection.clean_start = false;
            again.connection.session_known = true;
            again
        };
        let refusing = Server {
            refuse: Some(ReasonCode::ServerUnavailable),
            ..Server::default()
        };
        let (refused, _) = resume(again(), refusing, &mut session).await;
        assert!(refused.is_err());
        assert_eq!(session.in_flight(), 1);

        let kept = server.await.unwrap().session;
        let server = Server {
            session: kept,
            ..Server::default()
        };
        let (client, server) = resume(again(), server, &mut session).await;
        let (client, _messages) = client.unwrap();
        assert!(session.is_empty());
        client.disconnect(SECOND).await;
        // The first connection took it, but never said so: a QoS 2 message that is known already
        // is not delivered again.
        let server = server.await.unwrap();
        assert_eq!(server.received, []);
        assert!(server.session.unwrap().is_empty());
    }
}

/// [MQTT5-4.6.0-2]
#[tokio::test(start_paused = true)]
async fn the_application_may_acknowledge_itself_in_any_order() {
    let sends = vec![
        message("1", QoS::AtLeastOnce),
        message("2", QoS::AtLeastOnce),
    ];
    let server = Server {
        sends,
        ..Server::default()
    };
    let config = Config {
        manual_acknowledge: true,
        ..config(Version::V5)
    };
    let (client, server) = connect(config, server).await;
    let (client, mut messages) = client.unwrap();
    let mut first = messages.receive().await.unwrap();
    let mut second = messages.receive().await.unwrap();
    second.refuse(ReasonCode::QuotaExceeded).unwrap();
    first.acknowledge().unwrap();
    client.disconnect(SECOND).await;
    let expected = [(1, ReasonCode::Success), (2, ReasonCode::QuotaExceeded)];
    assert_eq!(server.await.unwrap().acknowledged, expected);
}
