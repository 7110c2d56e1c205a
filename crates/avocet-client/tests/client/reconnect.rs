//! What a client does when its connection is lost: with tokio's time paused, against servers that a
//! script gives one after the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_client::{
    Address, Backoff, ByteStream, Client, ClientConfig, CloseReason, Config, ConnectError,
    Connector, Credentials, Event, Events, PublishError, QoS, ReasonCode, Reconnection, Unsendable,
    Version,
};
use avocet_session::ServerConfig;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::server::Server;
use crate::{SECOND, VERSIONS, config, filter, message};

/// What happens to one attempt to connect.
enum Step {
    /// Nobody listens.
    Refused,
    /// Nobody answers.
    Silent,
    /// A server, which comes back through the sender when its connection has ended.
    Serve(Box<Server>, oneshot::Sender<Server>),
}

/// Connects as the script says, and notes where to.
#[derive(Clone, Default)]
struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    /// Streams that nobody answers, kept so that they stay open.
    silent: Arc<Mutex<Vec<tokio::io::DuplexStream>>>,
}

impl Script {
    fn then(&self, step: Step) -> &Self {
        self.steps.lock().unwrap().push_back(step);
        self
    }

    fn serve(&self, server: Server) -> oneshot::Receiver<Server> {
        let (sender, after) = oneshot::channel();
        self.then(Step::Serve(Box::new(server), sender));
        after
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(server, _)| server.clone()).collect()
    }

    fn asked_at(&self) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(_, at)| *at).collect()
    }

    fn in_config(&self, config: Config) -> Config {
        Config {
            connector: Some(Box::new(self.clone())),
            ..config
        }
    }
}

impl Connector for Script {
    fn connect<'a>(
        &'a mut self,
        server: &'a Address,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, ConnectError>> {
        let step = self.steps.lock().unwrap().pop_front();
        let asked = (server.to_string(), Instant::now());
        self.asked.lock().unwrap().push(asked);
        let (near, far) = tokio::io::duplex(4096);
        let stream = match step {
            Some(Step::Serve(server, after)) => {
                tokio::spawn(async move { after.send(server.serve(far).await) });
                Ok(Box::new(near) as Box<dyn ByteStream>)
            }
            Some(Step::Silent) => {
                self.silent.lock().unwrap().push(far);
                Ok(Box::new(near) as Box<dyn ByteStream>)
            }
            Some(Step::Refused) | None => {
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
            }
        };
        Box::pin(async { stream })
    }
}

fn cutting() -> Server {
    Server {
        cut_at_publish: true,
        ..Server::default()
    }
}

async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let waiting = async {
        loop {
            let event = events.next().await.expect("the client goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(3600 * SECOND, waiting).await.unwrap()
}

/// [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-4.6.0-1]
#[tokio::test(start_paused = true)]
async fn what_was_in_flight_goes_on_over_the_next_connection_in_order() {
    for version in VERSIONS {
        let script = Script::default();
        let first = script.serve(cutting());
        let mut config = script.in_config(config(version));
        // In 3.x a Session is kept only if it is asked for at once.
        config.connection.clean_start = version == Version::V5;
        let (client, _messages) = Client::connect(config).await.unwrap();
        let mut pending = Vec::new();
        for count in 0..5 {
            let message = message(&count.to_string(), QoS::ExactlyOnce);
            pending.push(client.start_publish(message).await.unwrap());
        }
        let kept = first.await.unwrap().session;
        script.then(Step::Refused);
        let second = script.serve(Server {
            session: kept,
            ..Server::default()
        });
        for pending in pending {
            pending.await.unwrap();
        }
        client.disconnect(SECOND).await;
        let second = second.await.unwrap();
        let payloads: Vec<_> = second
            .received
            .iter()
            .map(|(_, it, _)| it.as_str())
            .collect();
        // The first one was taken before the cut.
        assert_eq!(payloads, ["1", "2", "3", "4"], "{version:?}");
        let (clean_start, expiry, _) = second.connect.unwrap();
        assert!(!clean_start);
        assert_eq!(expiry, if version == Version::V5 { 300 } else { 0 });
    }
}

/// [MQTT5-3.2.2-5]: QoS 1 is new to the server, and of QoS 2 nobody knows whether it arrived.
#[tokio::test(start_paused = true)]
async fn a_lost_session_loses_nothing_of_qos_1_and_doubles_nothing_of_qos_2() {
    for version in VERSIONS {
        let script = Script::default();
        let first = script.serve(cutting());
        let second = script.serve(Server::default());
        let config = script.in_config(config(version));
        let (client, _messages) = Client::connect(config).await.unwrap();
        let mut pending = Vec::new();
        for (payload, qos) in [
            ("1", QoS::AtLeastOnce),
            ("2", QoS::ExactlyOnce),
            ("3", QoS::AtLeastOnce),
        ] {
            let started = client.start_publish(message(payload, qos)).await;
            pending.push(started.unwrap());
        }
        first.await.unwrap();
        let mut outcomes = Vec::new();
        for pending in pending {
            outcomes.push(pending.await);
        }
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
        assert!(matches!(outcomes[1], Err(PublishError::NotPublished(_))));
        client.disconnect(SECOND).await;
        let received = second.await.unwrap().received;
        let payloads: Vec<_> = received.iter().map(|(_, it, _)| it.as_str()).collect();
        assert_eq!(payloads, ["1", "3"], "{version:?}");
    }
}

/// [MQTT5-3.2.2-4]
#[tokio::test(start_paused = true)]
async fn a_session_that_the_client_does_not_know_is_left_at_once() {
    let script = Script::default();
    let claiming = script.serve(Server {
        claims_session: true,
        ..Server::default()
    });
    let error = Client::connect(script.in_config(config(Version::V5))).await;
    let Err(ConnectError::Closed(closed)) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(closed.reason, CloseReason::PeerError(_)));
    claiming.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_session_is_subscribed_anew_and_a_kept_one_is_not() {
    let script = Script::default();
    let first = script.serve(cutting());
    let (client, _messages) = Client::connect(script.in_config(config(Version::V5)))
        .await
        .unwrap();
    client
        .subscribe(filter("a"), QoS::AtMostOnce)
        .await
        .unwrap();
    let _stream = client
        .stream((filter("b/#"), QoS::AtLeastOnce))
        .await
        .unwrap();
    client
        .subscribe(filter("c"), QoS::AtMostOnce)
        .await
        .unwrap();
    client.unsubscribe(filter("a")).await.unwrap();
    let cut = |payload| client.start_publish(message(payload, QoS::AtLeastOnce));
    drop(cut("1").await.unwrap());
    let first = first.await.unwrap();
    assert_eq!(first.subscribed.len(), 3);

    let second = script.serve(Server {
        session: first.session,
        cut_at_publish: true,
        ..Server::default()
    });
    let second = timeout(600 * SECOND, second).await.unwrap().unwrap();
    assert_eq!(second.subscribed, []);

    let third = script.serve(Server::default());
    let mut events = client.events();
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
    client.disconnect(SECOND).await;
    let subscribed = third.await.unwrap().subscribed;
    let id = first.subscribed[1].1;
    assert!(id.is_some());
    let expected = [(vec!["b/#".to_owned()], id), (vec!["c".to_owned()], None)];
    assert_eq!(subscribed, expected);
}

#[tokio::test(start_paused = true)]
async fn servers_are_tried_in_turn_and_then_it_is_waited() {
    let script = Script::default();
    let mut config = script.in_config(config(Version::V5));
    config.host = "a".into();
    config.alternatives = vec![Address::new("b", 1), Address::new("c", 2)];
    config.reconnect = Some(Reconnection {
        backoff: Backoff::new(10 * SECOND, 60 * SECOND),
        ..Reconnection::default()
    });
    let (client, _messages) = Client::start(config).unwrap();
    let mut events = client.events();
    for _ in 0..6 {
        until(&mut events, |event| matches!(event, Event::Waiting(_))).await;
    }
    let asked = script.asked();
    assert_eq!(asked.len(), 18);
    for round in asked.chunks(3) {
        assert_eq!(round, ["a:1883", "b:1", "c:2"]);
    }
    let at = script.asked_at();
    for (count, round) in at.chunks(3).collect::<Vec<_>>().windows(2).enumerate() {
        assert_eq!(round[0][0], round[0][2], "no wait within a round");
        let ceiling = (10 * SECOND * (1 << count)).min(60 * SECOND);
        let wait = round[1][0] - round[0][2];
        assert!(wait <= ceiling + SECOND, "{wait:?} of {ceiling:?}");
    }
    // Nothing waits for a connection, so none is waited for.
    let before = Instant::now();
    client.disconnect(3600 * SECOND).await;
    assert!(before.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_the_stream_and_says_nothing_is_not_waited_for_forever() {
    let script = Script::default();
    script.then(Step::Silent);
    let second = script.serve(Server::default());
    let mut config = script.in_config(config(Version::V3_1_1));
    config.connection.connect_timeout = 5 * SECOND;
    config.alternatives = vec![Address::new("b", 1)];
    let before = Instant::now();
    let (client, _messages) = Client::connect(config).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 5);
    client.disconnect(SECOND).await;
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_reference_is_followed_if_it_is_allowed() {
    for (follows, expected) in [
        (true, vec!["localhost:1883", "other:9"]),
        (false, vec!["localhost:1883"]),
    ] {
        let script = Script::default();
        script.serve(Server {
            refuse: Some(ReasonCode::UseAnotherServer),
            server_reference: Some("other:9"),
            ..Server::default()
        });
        script.serve(Server::default());
        let mut config = script.in_config(config(Version::V5));
        config.reconnect = Some(Reconnection {
            follow_server_reference: follows,
            ..Reconnection::default()
        });
        assert_eq!(Client::connect(config).await.is_ok(), follows);
        assert_eq!(script.asked(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_the_client_elsewhere_is_left_without_a_wait() {
    let script = Script::default();
    let first = script.serve(Server {
        disconnect_at_subscribe: true,
        server_reference: Some("other:9"),
        ..Server::default()
    });
    let second = script.serve(Server::default());
    let config = script.in_config(config(Version::V5));
    let (client, _messages) = Client::connect(config).await.unwrap();
    let granted = client.subscribe(filter("a"), QoS::AtLeastOnce).await;
    assert_eq!(granted, Ok(QoS::AtLeastOnce));
    assert_eq!(script.asked(), ["localhost:1883", "other:9"]);
    let at = script.asked_at();
    assert!(at[1] - at[0] < SECOND, "{at:?}");
    client.disconnect(SECOND).await;
    first.await.unwrap();
    assert_eq!(second.await.unwrap().subscribed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn servers_that_refer_to_each_other_are_not_followed_for_ever() {
    let script = Script::default();
    for _ in 0..100 {
        script.serve(Server {
            refuse: Some(ReasonCode::UseAnotherServer),
            server_reference: Some("elsewhere"),
            ..Server::default()
        });
    }
    let refused = Client::connect(script.in_config(config(Version::V5))).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })));
    assert_eq!(script.asked().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_asked_for_before_every_connect() {
    let script = Script::default();
    let refusing = script.serve(Server {
        refuse: Some(ReasonCode::BadUserNameOrPassword),
        ..Server::default()
    });
    let accepting = script.serve(Server::default());
    let mut config = script.in_config(config(Version::V5));
    let mut count = 0;
    config.credentials = Some(Box::new(move || {
        count += 1;
        let user_name = Some(format!("token {count}"));
        Box::pin(async {
            Ok(Credentials {
                user_name,
                password: None,
            })
        })
    }));
    let (client, _messages) = Client::start(config).unwrap();
    let mut events = client.events();
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
    client.disconnect(SECOND).await;
    for (server, expected) in [(refusing, "token 1"), (accepting, "token 2")] {
        let (_, _, user_name) = server.await.unwrap().connect.unwrap();
        assert_eq!(user_name.as_deref(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stays_one_ends_the_client() {
    for reason_code in [
        ReasonCode::NotAuthorized,
        ReasonCode::ClientIdentifierNotValid,
    ] {
        let script = Script::default();
        script.serve(Server {
            refuse: Some(reason_code),
            ..Server::default()
        });
        let (client, mut messages) = Client::start(script.in_config(config(Version::V5))).unwrap();
        let closed = client.closed().await;
        assert_eq!(closed.reason, CloseReason::Refused(reason_code));
        assert_eq!(messages.receive().await.unwrap_err(), closed);
        assert_eq!(script.asked().len(), 1);
    }
}

/// [MQTT5-3.2.2-15]
#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_the_next_server_fails_alone() {
    let script = Script::default();
    let first = script.serve(cutting());
    let (client, _messages) = Client::connect(script.in_config(config(Version::V5)))
        .await
        .unwrap();
    let large = "x".repeat(2000);
    let mut pending = Vec::new();
    for payload in ["1", &large, "3"] {
        let started = client
            .start_publish(message(payload, QoS::AtLeastOnce))
            .await;
        pending.push(started.unwrap());
    }
    let kept = first.await.unwrap().session;
    let second = script.serve(Server {
        config: ServerConfig {
            maximum_packet_size: 1000.try_into().unwrap(),
            ..ServerConfig::default()
        },
        session: kept,
        ..Server::default()
    });
    let mut outcomes = Vec::new();
    for pending in pending {
        outcomes.push(pending.await);
    }
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(PublishError::NotPublished(_))));
    let refused = client.publish(message(&large, QoS::AtLeastOnce)).await;
    assert!(matches!(
        refused,
        Err(PublishError::Unsendable(Unsendable::PacketTooLarge { .. }))
    ));
    client.disconnect(SECOND).await;
    assert_eq!(second.await.unwrap().received.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_the_first_connection_and_disconnect_waits_for_them() {
    let script = Script::default();
    for _ in 0..4 {
        script.then(Step::Refused);
    }
    let server = script.serve(Server::default());
    let (client, _messages) = Client::start(script.in_config(config(Version::V5))).unwrap();
    let early = client.publish(message("0", QoS::AtMostOnce)).await;
    assert_eq!(early, Err(Unsendable::NotConnected.into()));
    let pending = client.try_publish(message("1", QoS::AtLeastOnce)).unwrap();
    client.disconnect(3600 * SECOND).await;
    pending.await.unwrap();
    let server = server.await.unwrap();
    assert_eq!(server.received.len(), 1);
    let normal = CloseReason::PeerDisconnected(ReasonCode::NORMAL_DISCONNECTION);
    assert_eq!(server.closed, Some(normal));
}

#[tokio::test(start_paused = true)]
async fn disconnect_gives_up_at_its_deadline() {
    let script = Script::default();
    let (client, messages) = Client::start(script.in_config(config(Version::V5))).unwrap();
    let pending = client.try_publish(message("1", QoS::AtLeastOnce)).unwrap();
    let before = Instant::now();
    client.disconnect(7 * SECOND).await;
    assert_eq!(before.elapsed().as_secs(), 7);
    assert!(matches!(pending.await, Err(PublishError::Closed(_))));
    assert_eq!(messages.into_session().await.queued(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_client_moves_back_to_the_preferred_server_when_nothing_is_in_flight() {
    let script = Script::default();
    script.then(Step::Refused);
    let second = script.serve(Server::default());
    let mut config = script.in_config(config(Version::V5));
    config.alternatives = vec![Address::new("b", 1)];
    config.reconnect = Some(Reconnection {
        failback: Some(60 * SECOND),
        ..Reconnection::default()
    });
    let (client, _messages) = Client::connect(config).await.unwrap();
    client
        .subscribe(filter("a"), QoS::AtMostOnce)
        .await
        .unwrap();
    script.then(Step::Refused);
    let first = script.serve(Server::default());
    let mut events = client.events();
    until(&mut events, |event| matches!(event, Event::Connected(_))).await;
    client
        .publish(message("1", QoS::AtLeastOnce))
        .await
        .unwrap();
    client.disconnect(SECOND).await;
    assert_eq!(second.await.unwrap().received, []);
    let first = first.await.unwrap();
    assert_eq!((first.received.len(), first.subscribed.len()), (1, 1));
    assert_eq!(
        script.asked(),
        ["localhost:1883", "b:1", "localhost:1883", "localhost:1883"]
    );
}

#[tokio::test(start_paused = true)]
async fn without_reconnect_the_client_ends_with_its_connection() {
    let script = Script::default();
    let first = script.serve(cutting());
    let config = Config {
        reconnect: None,
        ..script.in_config(Config::with_connection(ClientConfig::new(Version::V5, "c")))
    };
    let (client, _messages) = Client::connect(config).await.unwrap();
    let lost = client.publish(message("1", QoS::AtLeastOnce)).await;
    assert!(matches!(lost, Err(PublishError::Closed(_))));
    assert_eq!(client.closed().await.reason, CloseReason::ConnectionLost);
    assert_eq!(script.asked().len(), 1);
    first.await.unwrap();
    assert!(timeout(Duration::ZERO, client.closed()).await.is_ok());
}

/// Whoever gives the credentials may be slow: what the application wants goes on.
#[tokio::test(start_paused = true)]
async fn credentials_that_never_come_do_not_keep_the_client_from_ending() {
    let script = Script::default();
    script.serve(Server::default());
    let mut config = script.in_config(config(Version::V5));
    config.credentials = Some(Box::new(|| Box::pin(std::future::pending())));
    let (client, messages) = Client::start(config).unwrap();
    let pending = client.try_publish(message("1", QoS::AtLeastOnce)).unwrap();
    let before = Instant::now();
    client.disconnect(5 * SECOND).await;
    assert_eq!(before.elapsed().as_secs(), 5);
    assert!(pending.await.is_err());
    assert_eq!(messages.into_session().await.queued(), 1);
}
