//! Stories every foreign client library takes part in, each with a broker of its own.
//!
//! Where a story must show that something does *not* arrive, it sends a last message the same way
//! and expects that one next.

use crate::broker::Broker;
use crate::client::{Connect, Message, Peer, Properties, Subscribe};

/// Declares one test per scenario and version: `scenarios! { start: v311 V311 [a, b], … }`.
#[macro_export]
macro_rules! scenarios {
    ($start:ident: $($module:ident $version:ident [$($scenario:ident),+ $(,)?])+) => {$(
        mod $module {
            const PEER: $crate::client::Peer = $crate::client::Peer {
                start: super::$start,
                version: $crate::client::Version::$version,
            };
            $(
                #[tokio::test]
                async fn $scenario() {
                    $crate::scenario::$scenario(PEER).await;
                }
            )+
        }
    )+};
}

/// The granted QoS caps the QoS of each message.
pub async fn messages_arrive_at_the_lower_qos(peer: Peer) {
    let broker = Broker::start().await;
    let mut subscriber = peer.connected(&broker, "subscriber").await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    for granted in 0..=2 {
        subscriber
            .subscribe(Subscribe::new(&format!("q/{granted}/+"), granted))
            .await;
    }
    for granted in 0..=2 {
        for qos in 0..=2 {
            let message = Message::new(&format!("q/{granted}/{qos}"), [0, qos, 0xff], qos);
            publisher.publish(message.clone()).await;
            let expected = Message {
                qos: qos.min(granted),
                ..message
            };
            assert_eq!(subscriber.message().await, expected);
        }
    }
}

/// Messages of one QoS keep their order, none is lost and none comes twice.
pub async fn messages_of_one_qos_stay_in_order(peer: Peer) {
    const COUNT: u32 = 200;
    let broker = Broker::start().await;
    let mut subscriber = peer.connected(&broker, "subscriber").await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    for qos in 0..=2 {
        let topic = format!("o/{qos}");
        subscriber.subscribe(Subscribe::new(&topic, qos)).await;
        let sent: Vec<Message> = (0..COUNT)
            .map(|number| Message::new(&topic, number.to_string(), qos))
            .chain([Message::new(&topic, "last", qos)])
            .collect();
        publisher.publish_all(sent.clone()).await;
        assert_eq!(subscriber.messages(sent.len()).await, sent, "at QoS {qos}");
    }
}

/// A retained message is stored, replaced, delivered on subscribing with RETAIN 1, and cleared by
/// an empty payload; who is subscribed already gets RETAIN 0.
pub async fn retained_message_is_stored_replaced_and_cleared(peer: Peer) {
    let broker = Broker::start().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    for qos in 0..=2 {
        let topic = format!("r/{qos}");
        let filter = Subscribe::new(&format!("r/{qos}/#"), qos);
        publisher
            .publish(Message::retained(&topic, "old", qos))
            .await;
        publisher
            .publish(Message::retained(&topic, "new", qos))
            .await;
        // Nothing else says that a QoS 0 message has reached the broker.
        publisher.settle().await;

        let mut early = peer.connected(&broker, "early").await;
        early.subscribe(filter.clone()).await;
        assert_eq!(early.message().await, Message::retained(&topic, "new", qos));
        publisher
            .publish(Message::retained(&topic, "live", qos))
            .await;
        assert_eq!(early.message().await, Message::new(&topic, "live", qos));
        publisher.publish(Message::retained(&topic, "", qos)).await;
        assert_eq!(early.message().await, Message::new(&topic, "", qos));
        early.disconnect().await;

        let mut late = peer.connected(&broker, "late").await;
        late.subscribe(filter).await;
        publisher.publish(Message::new(&topic, "last", qos)).await;
        assert_eq!(late.message().await, Message::new(&topic, "last", qos));
        late.disconnect().await;
    }
}

/// The Will Message is published, with its QoS and RETAIN, when the client is cut off, and is
/// discarded when it leaves with DISCONNECT.
pub async fn will_is_published_when_the_client_is_cut_off_only(peer: Peer) {
    let broker = Broker::start().await;
    let mut watcher = peer.connected(&broker, "watcher").await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    watcher.subscribe(Subscribe::new("will", 2)).await;
    let with_will = |client_id| Connect {
        will: Some(Message::retained("will", client_id, 2)),
        ..peer.clean(&broker, client_id)
    };

    let mut polite = (peer.start)();
    polite.connect(with_will("polite")).await;
    polite.disconnect().await;
    publisher.publish(Message::new("will", "between", 2)).await;
    assert_eq!(watcher.message().await, Message::new("will", "between", 2));

    let mut unlucky = (peer.start)();
    unlucky.connect(with_will("unlucky")).await;
    unlucky.cut().await;
    assert_eq!(watcher.message().await, Message::new("will", "unlucky", 2));
    let mut late = peer.connected(&broker, "late").await;
    late.subscribe(Subscribe::new("will", 2)).await;
    assert_eq!(
        late.message().await,
        Message::retained("will", "unlucky", 2)
    );
}

/// DISCONNECT with Reason Code 0x04 publishes the Will Message, with its properties (5.0).
pub async fn will_with_properties_is_published_on_request(peer: Peer) {
    const DISCONNECT_WITH_WILL_MESSAGE: u8 = 0x04;
    let broker = Broker::start().await;
    let mut watcher = peer.connected(&broker, "watcher").await;
    watcher.subscribe(Subscribe::new("will", 1)).await;
    let properties = Properties {
        user: user_properties(),
        content_type: Some("text/plain".to_owned()),
        payload_format: Some(1),
        ..Properties::default()
    };
    let will = Message::new("will", "as asked", 1).with(properties);
    let mut client = (peer.start)();
    client
        .connect(Connect {
            will: Some(will.clone()),
            ..peer.clean(&broker, "client")
        })
        .await;
    client.disconnect_with(DISCONNECT_WITH_WILL_MESSAGE).await;
    assert_eq!(watcher.message().await, will);
}

/// A will with a Will Delay Interval is not published when the client is back in time (5.0).
pub async fn delayed_will_is_cancelled_by_a_reconnect(peer: Peer) {
    let broker = Broker::start().await;
    let mut watcher = peer.connected(&broker, "watcher").await;
    watcher.subscribe(Subscribe::new("will", 1)).await;
    let delayed = Properties {
        will_delay: Some(300),
        ..Properties::default()
    };
    let will = Message::new("will", "late", 1).with(delayed);
    let connect = Connect {
        will: Some(will),
        ..peer.persistent(&broker, "client")
    };
    let mut client = (peer.start)();
    client.connect(connect.clone()).await;
    client.cut().await;

    let mut client = (peer.start)();
    assert!(client.connect(connect).await, "the session is present");
    client.disconnect().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    publisher.publish(Message::new("will", "last", 1)).await;
    assert_eq!(watcher.message().await, Message::new("will", "last", 1));
}

/// A session that outlives its connection keeps its subscriptions and what is published
/// meanwhile, until a clean one takes its place.
pub async fn persistent_session_receives_what_was_published_while_away(peer: Peer) {
    let broker = Broker::start().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    let mut sleeper = (peer.start)();
    let session_present = sleeper.connect(peer.persistent(&broker, "sleeper")).await;
    assert!(!session_present, "the session is new");
    sleeper.subscribe(Subscribe::new("s/#", 2)).await;
    sleeper.disconnect().await;

    for qos in 1..=2 {
        let topic = format!("s/{qos}");
        let sent: Vec<Message> = (0..10)
            .map(|number| Message::new(&topic, format!("away {number}"), qos))
            .collect();
        publisher.publish_all(sent.clone()).await;
        let mut sleeper = (peer.start)();
        let session_present = sleeper.connect(peer.persistent(&broker, "sleeper")).await;
        assert!(session_present, "the session is kept");
        assert_eq!(sleeper.messages(sent.len()).await, sent);
        publisher.publish(Message::new(&topic, "awake", qos)).await;
        assert_eq!(sleeper.message().await, Message::new(&topic, "awake", qos));
        sleeper.settle().await;
        sleeper.disconnect().await;
    }

    publisher.publish(Message::new("s/1", "discarded", 1)).await;
    let mut clean = peer.connected(&broker, "sleeper").await;
    clean.subscribe(Subscribe::new("other", 1)).await;
    publisher
        .publish(Message::new("s/1", "nobody listens", 1))
        .await;
    publisher.publish(Message::new("other", "last", 1)).await;
    assert_eq!(clean.message().await, Message::new("other", "last", 1));
}

/// Each message goes to one member of the group, both members get some, in order.
pub async fn shared_subscription_gives_each_message_to_one_member(peer: Peer) {
    let broker = Broker::start().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    let mut one = peer.connected(&broker, "one").await;
    let mut two = peer.connected(&broker, "two").await;
    for member in [&mut one, &mut two] {
        member
            .subscribe(Subscribe::new("$share/group/s/+", 1))
            .await;
        member.subscribe(Subscribe::new("end", 1)).await;
    }
    let sent: Vec<Message> = (0..40)
        .map(|number| Message::new("s/1", format!("{number:02}"), 1))
        .collect();
    publisher.publish_all(sent.clone()).await;
    let (mut to_one, mut to_two) = (Vec::new(), Vec::new());
    while to_one.len() + to_two.len() < sent.len() {
        tokio::select! {
            message = one.message() => to_one.push(message),
            message = two.message() => to_two.push(message),
        }
    }
    publisher.publish(Message::new("end", "", 1)).await;
    for member in [&mut one, &mut two] {
        assert_eq!(member.message().await.topic, "end", "a message came twice");
    }
    assert!(
        !to_one.is_empty() && !to_two.is_empty(),
        "{to_one:?} and {to_two:?}"
    );
    for member in [&to_one, &to_two] {
        assert!(
            member.is_sorted_by(|a, b| a.payload < b.payload),
            "in order: {member:?}"
        );
    }
    let mut received = [to_one, to_two].concat();
    received.sort_by(|a, b| a.payload.cmp(&b.payload));
    assert_eq!(received, sent, "each message once");
}

/// A payload of 1 MiB arrives whole, also when it is retained.
pub async fn payload_of_one_mebibyte_arrives_whole(peer: Peer) {
    let broker = Broker::start().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    let mut subscriber = peer.connected(&broker, "subscriber").await;
    // Every kilobyte is another one, so that a lost or repeated piece shows.
    let payload: Vec<u8> = (0..1_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    subscriber.subscribe(Subscribe::new("big/+", 2)).await;
    for qos in 0..=2 {
        let sent = Message::retained(&format!("big/{qos}"), payload.clone(), qos);
        publisher.publish(sent.clone()).await;
        let received = subscriber.message().await;
        assert_eq!((&received.topic, received.qos), (&sent.topic, qos));
        assert!(
            received.payload == payload,
            "{} bytes differ",
            received.payload.len()
        );
    }
    subscriber.disconnect().await;
    let mut late = peer.connected(&broker, "late").await;
    late.subscribe(Subscribe::new("big/2", 2)).await;
    let received = late.message().await;
    assert!(
        received.retain && received.payload == payload,
        "the retained message differs"
    );
}

/// After UNSUBACK nothing more comes.
pub async fn unsubscribe_ends_the_delivery(peer: Peer) {
    let broker = Broker::start().await;
    let mut client = peer.connected(&broker, "client").await;
    client.subscribe(Subscribe::new("u/#", 1)).await;
    client.subscribe(Subscribe::new("end", 1)).await;
    client.publish(Message::new("u/1", "first", 1)).await;
    assert_eq!(client.message().await, Message::new("u/1", "first", 1));
    client.unsubscribe("u/#").await;
    client.publish(Message::new("u/1", "second", 1)).await;
    client.publish(Message::new("end", "last", 1)).await;
    assert_eq!(client.message().await, Message::new("end", "last", 1));
}

/// Filters that begin with a wildcard do not see `$` topics, and `$SYS` has values.
pub async fn wildcard_does_not_match_dollar_topics(peer: Peer) {
    let broker = Broker::start().await;
    let mut client = peer.connected(&broker, "client").await;
    client
        .subscribe(Subscribe::new("$SYS/broker/version", 0))
        .await;
    let version = client.message().await;
    assert_eq!(
        (version.topic.as_str(), version.retain),
        ("$SYS/broker/version", true)
    );
    assert!(!version.payload.is_empty(), "the broker has a version");

    let mut other = peer.connected(&broker, "other").await;
    other.subscribe(Subscribe::new("#", 0)).await;
    other.subscribe(Subscribe::new("+/broker/version", 0)).await;
    client.publish(Message::new("end", "last", 0)).await;
    assert_eq!(other.message().await, Message::new("end", "last", 0));
}

/// A second connection with the same Client Identifier ends the first; in 5.0 with Session taken
/// over (0x8E).
pub async fn second_connection_takes_the_session_over(peer: Peer) {
    let broker = Broker::start().await;
    let mut first = (peer.start)();
    first.connect(peer.persistent(&broker, "twin")).await;
    first.subscribe(Subscribe::new("t", 1)).await;
    let mut second = (peer.start)();
    let session_present = second.connect(peer.persistent(&broker, "twin")).await;
    assert!(session_present, "the second has the session of the first");
    let expected = (u8::from(peer.version) == 5).then_some(0x8e);
    assert_eq!(first.disconnected().await, expected);
    second.publish(Message::new("t", "to the second", 1)).await;
    assert_eq!(
        second.message().await,
        Message::new("t", "to the second", 1)
    );
}

/// A stopped broker says so: Server shutting down (0x8B) in 5.0, and exit code 0.
pub async fn stopped_broker_says_good_bye(peer: Peer) {
    let broker = Broker::start().await;
    let mut client = peer.connected(&broker, "client").await;
    let status = broker.stop().await;
    let expected = (u8::from(peer.version) == 5).then_some(0x8b);
    assert_eq!(client.disconnected().await, expected);
    assert!(status.success(), "the broker ended with {status}");
}

/// All properties of a message pass unchanged and in order (5.0).
pub async fn properties_pass_unchanged(peer: Peer) {
    let broker = Broker::start().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    let mut subscriber = peer.connected(&broker, "subscriber").await;
    subscriber.subscribe(Subscribe::new("p", 1)).await;
    let properties = Properties {
        user: user_properties(),
        content_type: Some("text/plain; charset=utf-8".to_owned()),
        response_topic: Some("p/answer".to_owned()),
        correlation_data: Some("00ff10".to_owned()),
        payload_format: Some(1),
        ..Properties::default()
    };
    let message = Message::new("p", "23 °C", 1).with(properties);
    publisher.publish(message.clone()).await;
    assert_eq!(subscriber.message().await, message);

    let expiring = Properties {
        message_expiry: Some(600),
        ..Properties::default()
    };
    publisher
        .publish(Message::new("p", "fresh", 1).with(expiring))
        .await;
    let left = subscriber.message().await.properties.message_expiry;
    assert!(
        left.is_some_and(|seconds| (570..=600).contains(&seconds)),
        "{left:?} of 600 s"
    );
}

/// A request carries where to answer and what to answer with (5.0).
pub async fn request_is_answered_on_the_response_topic(peer: Peer) {
    let broker = Broker::start().await;
    let mut responder = peer.connected(&broker, "responder").await;
    let mut requester = peer.connected(&broker, "requester").await;
    responder.subscribe(Subscribe::new("ask", 1)).await;
    requester.subscribe(Subscribe::new("answer/+", 1)).await;
    for (name, correlation) in [("a", "01"), ("b", "0200ff")] {
        let properties = Properties {
            response_topic: Some(format!("answer/{name}")),
            correlation_data: Some(correlation.to_owned()),
            ..Properties::default()
        };
        requester
            .publish(Message::new("ask", name, 1).with(properties))
            .await;
        let request = responder.message().await;
        let to = request
            .properties
            .response_topic
            .expect("a request says where to answer");
        let properties = Properties {
            correlation_data: request.properties.correlation_data,
            ..Properties::default()
        };
        responder
            .publish(Message::new(&to, request.payload, 1).with(properties.clone()))
            .await;
        assert_eq!(properties.correlation_data.as_deref(), Some(correlation));
        let expected = Message::new(&format!("answer/{name}"), name, 1).with(properties);
        assert_eq!(requester.message().await, expected);
    }
}

/// Subscription Identifiers come with what matched, all of them (5.0).
pub async fn subscription_identifiers_say_what_matched(peer: Peer) {
    let broker = Broker::start().await;
    let mut client = peer.connected(&broker, "client").await;
    for (filter, id) in [("i/+", 7), ("i/#", 268_435_455), ("j", 1)] {
        let subscribe = Subscribe {
            subscription_id: Some(id),
            ..Subscribe::new(filter, 1)
        };
        client.subscribe(subscribe).await;
    }
    client.publish(Message::new("j", "one", 1)).await;
    assert_eq!(client.message().await.properties.subscription_ids, [1]);
    // One copy with both, or one copy for each: the standard leaves it to the server.
    client.publish(Message::new("i/x", "two", 1)).await;
    client.publish(Message::new("j", "last", 1)).await;
    let mut ids = Vec::new();
    loop {
        let message = client.message().await;
        if message.payload == b"last" {
            break;
        }
        ids.extend(message.properties.subscription_ids);
    }
    ids.sort_unstable();
    assert_eq!(ids, [7, 268_435_455]);
}

/// No Local, Retain As Published and Retain Handling do what they say (5.0).
pub async fn subscription_options_are_kept(peer: Peer) {
    let broker = Broker::start().await;
    let mut publisher = peer.connected(&broker, "publisher").await;
    let mut client = peer.connected(&broker, "client").await;
    publisher
        .publish(Message::retained("o/1", "stored", 1))
        .await;

    let never = Subscribe {
        retain_handling: 2,
        no_local: true,
        ..Subscribe::new("o/1", 1)
    };
    client.subscribe(never).await;
    client.publish(Message::new("o/1", "own", 1)).await;
    publisher
        .publish(Message::retained("o/1", "flag dropped", 1))
        .await;
    assert_eq!(
        client.message().await,
        Message::new("o/1", "flag dropped", 1)
    );

    let published = Subscribe {
        retain_as_published: true,
        ..Subscribe::new("o/2", 1)
    };
    client.subscribe(published).await;
    publisher
        .publish(Message::retained("o/2", "flag kept", 1))
        .await;
    assert_eq!(
        client.message().await,
        Message::retained("o/2", "flag kept", 1)
    );
    publisher.publish(Message::new("o/2", "no flag", 1)).await;
    assert_eq!(client.message().await, Message::new("o/2", "no flag", 1));

    let once = Subscribe {
        retain_handling: 1,
        ..Subscribe::new("o/2", 1)
    };
    client.subscribe(once).await;
    let again = Subscribe::new("o/1", 1);
    client.subscribe(again).await;
    assert_eq!(
        client.message().await,
        Message::retained("o/1", "flag dropped", 1)
    );
}

/// Two pairs of the same name side by side: MQTT.js keeps no other order.
fn user_properties() -> Vec<(String, String)> {
    [
        ("unit", "celsius"),
        ("room", "kitchen"),
        ("room", "küche"),
        ("a", ""),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
