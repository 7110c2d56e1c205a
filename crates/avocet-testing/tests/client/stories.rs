//! The client and the engine together.

use avocet_client::{
    Client, Config, Event, Message, QoS, Subscription, TopicFilter, TopicName, Version,
};
use avocet_testing::Broker;
use tokio::time::timeout;

use crate::{SECOND, pass};

fn to(topic_name: &str, payload: &str, qos: QoS) -> Message {
    Message::new(TopicName::new(topic_name).unwrap(), payload.as_bytes()).with_qos(qos)
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

/// A message that matches two subscriptions comes with both identifiers, and goes to both streams.
#[tokio::test(start_paused = true)]
async fn streams_have_their_messages_by_subscription_identifier() {
    let broker = Broker::start();
    let (client, mut rest) = Client::connect(broker.config("c")).await.unwrap();
    let mut a = client
        .stream((filter("a/#"), QoS::AtLeastOnce))
        .await
        .unwrap();
    let mut b = client
        .stream((filter("+/b"), QoS::ExactlyOnce))
        .await
        .unwrap();
    client
        .subscribe(filter("d"), QoS::AtMostOnce)
        .await
        .unwrap();
    for (topic_name, payload) in [("a/x", "1"), ("c/b", "2"), ("a/b", "3"), ("d", "4")] {
        client
            .publish(to(topic_name, payload, QoS::ExactlyOnce))
            .await
            .unwrap();
    }
    for (stream, expected) in [(&mut a, ["1", "3"]), (&mut b, ["2", "3"])] {
        for payload in expected {
            let message = timeout(SECOND, stream.next()).await.unwrap().unwrap();
            assert_eq!(message.payload(), payload.as_bytes());
        }
        assert!(timeout(SECOND, stream.next()).await.is_err(), "only once");
    }
    assert_eq!(rest.receive().await.unwrap().payload(), b"4");

    b.unsubscribe().await.unwrap();
    client
        .publish(to("c/b", "5", QoS::AtLeastOnce))
        .await
        .unwrap();
    client
        .publish(to("a/b", "6", QoS::AtLeastOnce))
        .await
        .unwrap();
    assert_eq!(a.next().await.unwrap().payload(), b"6");
    assert!(timeout(SECOND, rest.receive()).await.is_err());
}

/// With more messages than Receive Maximum, so acknowledgements have to leave meanwhile.
#[tokio::test(start_paused = true)]
async fn a_worker_acknowledges_in_another_order_than_messages_come() {
    let broker = Broker::start();
    let mut config = broker.config("worker");
    config.manual_acknowledge = true;
    config.connection.receive_maximum = 4;
    let (worker, _rest) = Client::connect(config).await.unwrap();
    let work = filter("$share/workers/work");
    let mut work = worker.stream((work, QoS::AtLeastOnce)).await.unwrap();
    let (source, _rest) = Client::connect(broker.config("source")).await.unwrap();
    for count in 0..20 {
        source
            .publish(to("work", &count.to_string(), QoS::AtLeastOnce))
            .await
            .unwrap();
    }
    for round in 0..5 {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(timeout(SECOND, work.next()).await.unwrap().unwrap());
        }
        assert!(
            timeout(SECOND, work.next()).await.is_err(),
            "receive maximum"
        );
        let payloads: Vec<_> = held.iter().map(|it| it.payload().to_vec()).collect();
        let expected: Vec<_> = (4 * round..4 * round + 4)
            .map(|count: usize| count.to_string().into_bytes())
            .collect();
        assert_eq!(payloads, expected);
        for mut message in held.into_iter().rev() {
            message.acknowledge().unwrap();
        }
    }
}

/// Unacknowledged messages come again on the next connection, and then can be acknowledged.
#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_comes_again_after_a_cut() {
    let broker = Broker::start();
    let mut config = broker.config("worker");
    config.manual_acknowledge = true;
    let (worker, _rest) = Client::connect(config).await.unwrap();
    let mut work = worker
        .stream((filter("work"), QoS::AtLeastOnce))
        .await
        .unwrap();
    worker
        .publish(to("work", "1", QoS::AtLeastOnce))
        .await
        .unwrap();
    let mut first = work.next().await.unwrap();
    broker.cut();
    let mut again = timeout(60 * SECOND, work.next()).await.unwrap().unwrap();
    assert!(!first.dup() && again.dup());
    assert!(first.acknowledge().is_err());
    again.acknowledge().unwrap();
    pass(SECOND).await;
    broker.cut();
    assert!(timeout(60 * SECOND, work.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_forgot_everything_is_subscribed_anew() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let broker = Broker::start();
        let mut config = broker.config("c");
        config.connection.version = version;
        let (client, _rest) = Client::connect(config).await.unwrap();
        let mut a = client
            .stream((filter("a"), QoS::AtLeastOnce))
            .await
            .unwrap();
        let mut events = client.events();
        broker.forget();
        let waiting = async { while !matches!(events.next().await, Some(Event::Connected(_))) {} };
        timeout(60 * SECOND, waiting).await.unwrap();
        client
            .publish(to("a", "1", QoS::AtLeastOnce))
            .await
            .unwrap();
        let message = timeout(SECOND, a.next()).await.unwrap().unwrap();
        assert_eq!(message.payload(), b"1");
    }
}

/// The Session is kept over lost connections, and ends with the client.
#[tokio::test(start_paused = true)]
async fn a_session_for_reconnecting_ends_with_disconnect() {
    let broker = Broker::start();
    let (client, _rest) = Client::connect(broker.config("c")).await.unwrap();
    let keeping = || {
        let mut config = broker.config("c");
        config.connection.clean_start = false;
        config.connection.session_known = true;
        config
    };
    client
        .subscribe(filter("a"), QoS::AtMostOnce)
        .await
        .unwrap();
    client.disconnect(SECOND).await;
    let (client, _rest) = Client::connect(keeping()).await.unwrap();
    assert!(!client.connected().unwrap().session_present);
    client
        .subscribe(filter("a"), QoS::AtMostOnce)
        .await
        .unwrap();
    broker.cut();
    let mut events = client.events();
    let connected = async {
        loop {
            if let Some(Event::Connected(connected)) = events.next().await {
                return connected;
            }
        }
    };
    let connected = timeout(60 * SECOND, connected).await.unwrap();
    assert!(connected.session_present);
}

/// A connection that is half open is noticed by Keep Alive; the Will is published meanwhile.
#[tokio::test(start_paused = true)]
async fn a_day_of_trouble_takes_no_time() {
    let broker = Broker::start();
    let (client, _rest) = Client::connect(broker.config("c")).await.unwrap();
    let several = Subscription {
        filters: vec![(
            filter("day").to_buf(),
            avocet_client::SubscriptionOptions::new(QoS::ExactlyOnce),
        )],
        ..Subscription::default()
    };
    let mut day = client.stream(several).await.unwrap();
    for hour in 0..24 {
        broker.set_reachable(false);
        let message = to("day", &hour.to_string(), QoS::ExactlyOnce);
        let pending = client.try_publish(message).unwrap();
        pass(120 * SECOND).await;
        broker.set_reachable(true);
        pending.await.unwrap();
        pass(3600 * SECOND).await;
        assert_eq!(
            day.next().await.unwrap().payload(),
            hour.to_string().as_bytes()
        );
    }
    assert_eq!(broker.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn any_client_connects_over_a_stream() {
    let broker = Broker::start();
    let config = Config::new("unused", 1);
    let stream = broker.stream().unwrap();
    let (client, _rest) = Client::connect_over(stream, config).await.unwrap();
    assert_eq!(broker.connections(), 1);
    client.disconnect(SECOND).await;
    pass(SECOND).await;
    assert_eq!(broker.connections(), 0);
    broker.set_reachable(false);
    assert!(broker.stream().is_err());
}
