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
    assert_eq!(message.payload_bytes(), message.payload());
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

#[test]
fn no_message_is_empty() {
    let message = Message::new(TopicName::new("a").unwrap(), b"");
    assert_eq!((message.len(), message.is_empty()), (1, false));
}
