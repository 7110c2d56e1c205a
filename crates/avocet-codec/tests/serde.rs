//! Packets and frames as data.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_codec::{
    Delivery, Frame, MessageProperties, MessagePropertiesParts, Packet, PacketId, Publish, QoS,
    ReasonCode, SubscriptionId, TopicName, UserProperty, Version,
};
use serde_json::{from_value, json, to_value};

#[test]
fn a_packet_is_written_with_the_names_of_its_fields() {
    let user_properties = [UserProperty {
        name: "k",
        value: "v",
    }];
    let publish = Publish {
        properties: MessageProperties::new(MessagePropertiesParts {
            content_type: Some("text/plain"),
            user_properties: &user_properties,
            ..MessagePropertiesParts::default()
        }),
        ..Publish::new(
            TopicName::new("a/b").unwrap(),
            Delivery::AtLeastOnce(PacketId::new(7).unwrap()),
            b"hi",
        )
    };
    assert_eq!(
        to_value(Packet::Publish(publish)).unwrap(),
        json!({"Publish": {
            "dup": false,
            "delivery": {"AtLeastOnce": 7},
            "retain": false,
            "topic_name": "a/b",
            "topic_alias": null,
            "message_expiry_interval": null,
            "subscription_ids": [],
            "properties": {
                "payload_format": null,
                "content_type": "text/plain",
                "response_topic": null,
                "correlation_data": null,
                "user_properties": [{"name": "k", "value": "v"}],
            },
            "payload": [104, 105],
        }})
    );
}

#[test]
fn a_frame_is_checked_when_it_is_read() {
    let frame = Frame::encode(&Packet::Pingreq, Version::V5).unwrap();
    let value = to_value(&frame).unwrap();
    assert_eq!(value, json!({"version": "V5", "bytes": [0xc0, 0]}));
    assert_eq!(from_value::<Frame>(value).unwrap(), frame);
    let error = from_value::<Frame>(json!({"version": "V5", "bytes": [0xc0, 1, 0]}));
    assert_eq!(
        error.unwrap_err().to_string(),
        "bytes behind the last field"
    );
}

#[test]
fn values_are_checked_when_they_are_read() {
    assert_eq!(to_value(ReasonCode::Banned).unwrap(), json!(0x8a));
    assert_eq!(
        from_value::<ReasonCode>(json!(0x8a)).unwrap(),
        ReasonCode::Banned
    );
    assert!(from_value::<ReasonCode>(json!(0x7f)).is_err());
    assert_eq!(
        from_value::<SubscriptionId>(json!(1)).unwrap(),
        SubscriptionId::new(1).unwrap()
    );
    assert!(from_value::<SubscriptionId>(json!(0)).is_err());
    assert!(from_value::<SubscriptionId>(json!(268_435_456)).is_err());
    assert!(from_value::<PacketId>(json!(0)).is_err());
    assert_eq!(
        from_value::<QoS>(json!("ExactlyOnce")).unwrap(),
        QoS::ExactlyOnce
    );
}
