//! The messages that a client sends.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use avocet_client::{
    Message, MessageProperties, MessagePropertiesParts, Pending, QoS, TopicName, Version,
};

use crate::wire::{accepted, config, connected, packet, string};
use crate::{BOTH, message};

fn no_properties(version: Version) -> &'static [u8] {
    if version == Version::V5 { &[0] } else { &[] }
}

fn is_pending(pending: &mut Pending) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(pending).poll(&mut context).is_pending()
}

/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-3] [MQTT5-2.2.1-2] [MQTT5-2.2.2-1] [MQTT5-3.3.1-2] [MQTT5-3.3.2-1]
/// [MQTT5-4.3.1-1] [MQTT311-1.5.3-1] [MQTT311-1.5.3-3] [MQTT311-2.3.1-5] [MQTT311-3.3.1-2]
/// [MQTT311-3.3.2-1] [MQTT311-4.3.1-1]
#[tokio::test]
async fn a_message_of_qos_0_has_no_identifier_and_no_dup() {
    for version in BOTH {
        let (client, _messages, mut wire) = connected(version).await;
        let topic = TopicName::new("\u{feff}/é").unwrap();
        client.publish(Message::new(topic, b"x")).await.unwrap();
        let topic = string(&[0xef, 0xbb, 0xbf, b'/', 0xc3, 0xa9]);
        wire.expect([&packet(0x30, &[&topic, no_properties(version), b"x"])])
            .await;
    }
}

/// [MQTT5-2.2.1-3] [MQTT5-3.3.1-1] [MQTT5-4.3.2-1] [MQTT5-4.3.2-2] [MQTT5-4.3.2-3] [MQTT5-4.3.3-1]
/// [MQTT5-4.3.3-2] [MQTT5-4.3.3-3] [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT5-3.6.1-1] [MQTT5-2.2.1-5]
/// [MQTT311-2.3.1-1] [MQTT311-2.3.1-6] [MQTT311-3.6.1-1] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
#[tokio::test]
async fn a_message_is_on_its_way_until_its_acknowledgement_comes() {
    for version in BOTH {
        let (client, _messages, mut wire) = connected(version).await;
        let none = no_properties(version);
        let mut first = client
            .start_publish(message(b"1", QoS::AtLeastOnce))
            .await
            .unwrap();
        let mut second = client
            .start_publish(message(b"2", QoS::ExactlyOnce))
            .await
            .unwrap();
        wire.expect([
            &packet(0x32, &[&string(b"t"), &[0, 1], none, b"1"]),
            &packet(0x34, &[&string(b"t"), &[0, 2], none, b"2"]),
        ])
        .await;
        assert!(is_pending(&mut first));
        wire.send(&[0x40, 2, 0, 1]).await;
        first.await.unwrap();
        wire.send(&[0x50, 2, 0, 2]).await;
        wire.expect([&[0x62, 2, 0, 2]]).await;
        assert!(is_pending(&mut second));
        wire.send(&[0x70, 2, 0, 2]).await;
        second.await.unwrap();
    }
}

/// [MQTT5-3.3.4-7] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]: a SUBSCRIBE comes where a third PUBLISH would.
#[tokio::test]
async fn no_more_than_receive_maximum_are_unacknowledged() {
    let (client, _messages, mut wire) = accepted(config(Version::V5), &[0x21, 0, 2]).await;
    let qos = [
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
    ];
    let mut pending = Vec::new();
    for (index, qos) in qos.into_iter().enumerate() {
        pending.push(
            client
                .start_publish(message(&[b'1' + index as u8], qos))
                .await
                .unwrap(),
        );
    }
    let publish =
        |first_byte: u8, id: u8| packet(first_byte, &[&string(b"t"), &[0, id, 0, b'0' + id]]);
    wire.expect([&publish(0x32, 1), &publish(0x34, 2)]).await;
    let subscribing = client.clone();
    let subscribe = tokio::spawn(async move {
        let filter = avocet_client::TopicFilter::new("f").unwrap();
        subscribing
            .subscribe(filter, QoS::AtMostOnce)
            .await
            .unwrap();
    });
    let request = wire.next().await;
    assert_eq!(request[0], 0x82);
    wire.send(&packet(0x90, &[&request[2..4], &[0, 0]])).await;
    subscribe.await.unwrap();
    // PUBREC makes no room, PUBACK and PUBCOMP do.
    wire.send(&[0x50, 2, 0, 2]).await;
    wire.expect([&[0x62, 2, 0, 2]]).await;
    wire.send(&[0x40, 2, 0, 1]).await;
    wire.expect([&publish(0x32, 3)]).await;
    wire.send(&[0x70, 2, 0, 2]).await;
    wire.expect([&publish(0x34, 4)]).await;
}

/// [MQTT5-3.3.1-3] [MQTT5-3.3.4-6]: what came from a server is published anew.
#[tokio::test]
async fn what_came_from_a_server_leaves_without_its_dup_and_subscription_identifiers() {
    let (client, mut messages, mut wire) = connected(Version::V5).await;
    let properties = [2, 0x0b, 7];
    wire.send(&packet(0x3a, &[&string(b"t"), &[0, 9], &properties, b"x"]))
        .await;
    let received = messages.receive().await.unwrap();
    wire.expect([&[0x40, 2, 0, 9]]).await;
    assert!(received.dup());
    assert_eq!(received.subscription_ids().len(), 1);
    let _pending = client.start_publish(received.into_message()).await.unwrap();
    wire.expect([&packet(0x32, &[&string(b"t"), &[0, 1, 0], b"x"])])
        .await;
}

/// [MQTT5-3.3.2-13] [MQTT5-3.3.2-19] [MQTT5-1.5.7-1]
#[tokio::test]
async fn the_properties_of_a_message_are_strings() {
    let (client, _messages, mut wire) = connected(Version::V5).await;
    let user_properties = [avocet_client::UserProperty {
        name: "ä",
        value: "ö",
    }];
    let properties = MessageProperties::new(MessagePropertiesParts {
        content_type: Some("ü"),
        response_topic: Some(TopicName::new("é").unwrap()),
        user_properties: &user_properties,
        ..MessagePropertiesParts::default()
    });
    let topic = TopicName::new("t").unwrap();
    let message = Message::with_properties(topic, &properties, b"").unwrap();
    client.publish(message).await.unwrap();
    let content_type = [&[0x03], string("ü".as_bytes()).as_slice()].concat();
    let response_topic = [&[0x08], string("é".as_bytes()).as_slice()].concat();
    let user_property = [
        &[0x26],
        string("ä".as_bytes()).as_slice(),
        &string("ö".as_bytes()),
    ]
    .concat();
    let publish = wire.next().await;
    let length = content_type.len() + response_topic.len() + user_property.len();
    assert_eq!(publish[5], length as u8);
    for property in [content_type, response_topic, user_property] {
        let mut windows = publish.windows(property.len());
        assert!(
            windows.any(|window| window == property),
            "{property:?} in {publish:?}"
        );
    }
}

/// [MQTT5-3.2.2-17] [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]
#[tokio::test]
async fn topic_aliases_begin_at_1_and_end_at_the_servers_maximum() {
    let (client, _messages, mut wire) = accepted(config(Version::V5), &[0x22, 0, 1]).await;
    let mut aliases = Vec::new();
    for topic in ["long/a", "long/a", "long/a", "long/b", "long/b", "long/b"] {
        let topic = TopicName::new(topic).unwrap();
        client.publish(Message::new(topic, b"x")).await.unwrap();
        let publish = wire.next().await;
        let at = 4 + usize::from(publish[3]);
        if publish[at] != 0 {
            assert_eq!(publish[at..at + 2], [3, 0x23]);
            aliases.push([publish[at + 2], publish[at + 3]]);
        }
    }
    assert!(!aliases.is_empty());
    assert!(aliases.iter().all(|alias| *alias == [0, 1]), "{aliases:?}");
}

/// [MQTT5-4.2.0-1] [MQTT311-7.1.2-1]
#[tokio::test]
async fn a_large_message_arrives_whole_and_in_order() {
    let (client, _messages, mut wire) = connected(Version::V3_1_1).await;
    let payload: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    let publishing = payload.clone();
    let publish = tokio::spawn(async move {
        client
            .publish(message(&publishing, QoS::AtMostOnce))
            .await
            .unwrap();
        client.disconnect(Duration::from_secs(1)).await;
    });
    let packet = wire.next().await;
    assert!(packet.ends_with(&payload));
    assert_eq!(packet.len(), 1 + 3 + 3 + payload.len());
    wire.expect([&[0xe0, 0]]).await;
    publish.await.unwrap();
}
