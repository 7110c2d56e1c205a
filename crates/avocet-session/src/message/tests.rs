use alloc::vec::Vec;
use avocet_codec::{
    Delivery, List, MessagePropertiesParts, PayloadFormat, Publish, UserProperty, Version,
};

use super::*;

fn publish<'a>(parts: MessagePropertiesParts<'a>, payload: &'a [u8]) -> Publish<'a> {
    let mut publish = Publish::new(
        TopicName::new("a/b").unwrap(),
        Delivery::AtMostOnce,
        payload,
    );
    publish.properties = MessageProperties::new(parts);
    publish
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
/// [MQTT5-3.3.2-20]
#[test]
fn keeps_what_travels_with_a_message_and_nothing_else() {
    let user_properties = [
        UserProperty {
            name: "b",
            value: "1",
        },
        UserProperty {
            name: "a",
            value: "2",
        },
    ];
    let parts = MessagePropertiesParts {
        payload_format: Some(PayloadFormat::Utf8),
        content_type: Some("text"),
        response_topic: Some(TopicName::new("answers").unwrap()),
        correlation_data: Some(b"7"),
        user_properties: &user_properties,
    };
    let mut packet = publish(parts, b"payload");
    packet.message_expiry_interval = Some(10);
    packet.topic_alias = core::num::NonZeroU16::new(3);
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes).unwrap();
    let decoded = Publish::decode(&bytes, Version::V5).unwrap();

    let now = UnixTime::from_millis(1_000);
    let message = Message::from_publish(&decoded, TopicName::new("other").unwrap(), now);
    assert_eq!(message.topic_name().as_str(), "other");
    assert_eq!(message.payload(), b"payload");
    let properties = message.properties();
    assert_eq!(properties.content_type(), Some("text"));
    assert_eq!(
        properties.response_topic().map(TopicName::as_str),
        Some("answers")
    );
    assert_eq!(properties.correlation_data(), Some(&b"7"[..]));
    assert_eq!(
        properties.user_properties(),
        List::from_slice(&user_properties)
    );
    assert_eq!(message.properties_bytes().len(), properties.encoded_len());
    assert_eq!(message.expires_at(), Some(UnixTime::from_millis(11_000)));
}

/// [MQTT5-3.3.2-6]
#[test]
fn tells_the_seconds_begun_until_it_expires() {
    let topic_name = TopicName::new("a").unwrap();
    let start = UnixTime::from_millis(5_000);
    let message = Message::new(topic_name, b"").with_expiry(Some(2), start);
    let expected = [
        (5_000, Expiry::Seconds(2)),
        (5_001, Expiry::Seconds(2)),
        (6_000, Expiry::Seconds(1)),
        (6_998, Expiry::Seconds(1)),
        (6_999, Expiry::Seconds(0)),
        (7_000, Expiry::Expired),
        (u64::MAX, Expiry::Expired),
        // A clock that was set back.
        (0, Expiry::Seconds(7)),
    ];
    for (millis, expiry) in expected {
        assert_eq!(
            message.remaining_expiry(UnixTime::from_millis(millis)),
            expiry
        );
    }
    let message = message.with_expiry(Some(0), start);
    assert_eq!(message.remaining_expiry(start), Expiry::Seconds(0));
    let message = Message::new(topic_name, b"");
    assert_eq!(
        message.remaining_expiry(UnixTime::from_millis(u64::MAX)),
        Expiry::Never
    );
}

/// What a queue keeps of each message is small, and no copy is made of a large payload.
#[test]
fn a_message_is_small_and_shares_its_payload() {
    assert_eq!(size_of::<Option<Message>>(), size_of::<usize>());
    assert_eq!(size_of::<Header>(), 8);
    let topic_name = TopicName::new("a/b").unwrap();
    let message = Message::new(topic_name, b"payload");
    let expires = message
        .clone()
        .with_expiry(Some(3), UnixTime::from_millis(1));
    for message in [message, expires] {
        let message = message.with_retain(true).with_qos(QoS::ExactlyOnce);
        let payload = message.payload_bytes();
        assert_eq!(&payload, &b"payload"[..]);
        assert_eq!(payload.as_ptr(), message.payload().as_ptr());
    }
}

#[test]
fn a_message_is_the_same_but_for_its_expiry() {
    let now = UnixTime::from_millis(1_000);
    let message = Message::new(TopicName::new("a/b").unwrap(), b"payload")
        .with_retain(true)
        .with_qos(QoS::AtLeastOnce);
    let expires = message.clone().with_expiry(Some(2), now);
    assert_ne!(expires, message);
    assert_eq!(expires.expires_at(), Some(UnixTime::from_millis(3_000)));
    assert_eq!(expires.payload(), b"payload");
    assert_eq!(expires.len(), message.len());
    assert_eq!((expires.qos(), expires.retain()), (QoS::AtLeastOnce, true));
    let later = expires.with_expiry(Some(5), now);
    assert_eq!(later.expires_at(), Some(UnixTime::from_millis(6_000)));
    assert_eq!(later.with_expires_at(None), message);
}

#[test]
fn no_message_is_empty() {
    let message = Message::new(TopicName::new("a").unwrap(), b"");
    assert_eq!((message.len(), message.is_empty()), (1, false));
}

#[test]
fn a_changed_message_keeps_all_else() {
    let parts = MessagePropertiesParts {
        content_type: Some("text"),
        ..MessagePropertiesParts::default()
    };
    let name = TopicName::new("a/b").unwrap();
    let properties = MessageProperties::new(parts);
    let now = UnixTime::from_millis(1_000);
    let message = Message::with_properties(name, &properties, b"payload").unwrap();
    let message = message.with_qos(QoS::AtLeastOnce).with_retain(true);
    let message = message.with_expiry(Some(10), now);

    let other = message.with_payload(b"longer than before");
    assert_eq!(other.payload(), b"longer than before");
    assert_eq!(other.with_payload(b"payload"), message);

    let elsewhere = message.with_topic_name(TopicName::new("c").unwrap());
    assert_eq!(elsewhere.topic_name().as_str(), "c");
    assert_eq!(elsewhere.with_topic_name(name), message);

    let bare = message.with_other_properties(&MessageProperties::default());
    let bare = bare.unwrap();
    assert_eq!(bare.properties().content_type(), None);
    assert_eq!(bare.with_other_properties(&properties).unwrap(), message);
    assert_eq!((bare.qos(), bare.retain()), (QoS::AtLeastOnce, true));
    assert_eq!(bare.expires_at(), message.expires_at());
}
