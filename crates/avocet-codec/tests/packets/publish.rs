use std::num::NonZeroU16;

use avocet_codec::{
    DecodeError, Delivery, EncodeError, Field, List, MessageProperties, MessagePropertiesParts,
    Packet, PayloadFormat, PropertyId, Publish, SubscriptionId, TopicName, UserProperty,
};

use crate::{V3_1, V3_1_1, V5, bytes, decodes, id, refuses, same, unencodable};

fn name(name: &str) -> TopicName<'_> {
    TopicName::new(name).unwrap()
}

#[test]
fn qos_0_has_no_packet_identifier() {
    let publish = Packet::Publish(Publish::new(name("a/b"), Delivery::AtMostOnce, b"hi"));
    same(V3_1, "30 07 00 03 'a/b' 'hi'", publish);
    same(V3_1_1, "30 07 00 03 'a/b' 'hi'", publish);
    same(V5, "30 08 00 03 'a/b' 00 'hi'", publish);
}

#[test]
fn qos_1_and_2_have_one() {
    let publish = Publish {
        dup: true,
        retain: true,
        ..Publish::new(name("t"), Delivery::AtLeastOnce(id(10)), b"")
    };
    same(V3_1_1, "3b 05 00 01 't' 00 0a", Packet::Publish(publish));
    let publish = Publish::new(name("t"), Delivery::ExactlyOnce(id(0xffff)), b"x");
    same(V5, "34 07 00 01 't' ff ff 00 'x'", Packet::Publish(publish));
}

#[test]
fn everything_that_5_0_has() {
    let text = "32 32 00 01 't' 00 01 2b
        23 00 02 02 00 00 00 1e 0b 01 0b 80 01
        01 01 03 00 02 'ct' 08 00 01 'r' 09 00 02 00 01 26 00 01 'a' 00 01 'b' 26 00 01 'a' 00 01 'b'
        'x'";
    let user_properties = [UserProperty {
        name: "a",
        value: "b",
    }; 2];
    let subscription_ids = [1, 128].map(|id| SubscriptionId::new(id).unwrap());
    let publish = Publish {
        topic_alias: NonZeroU16::new(2),
        message_expiry_interval: Some(30),
        subscription_ids: List::from_slice(&subscription_ids),
        properties: MessageProperties::new(MessagePropertiesParts {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some("ct"),
            response_topic: Some(name("r")),
            correlation_data: Some(&[0, 1]),
            user_properties: &user_properties,
        }),
        ..Publish::new(name("t"), Delivery::AtLeastOnce(id(1)), b"x")
    };
    same(V5, text, Packet::Publish(publish));
}

/// [MQTT5-3.3.2-18]
#[test]
fn message_properties_pass_through_unaltered_and_in_order() {
    let section = bytes(
        "26 00 01 'z' 00 00 0b 05 26 00 01 'a' 00 01 '1' 02 00 00 00 09 03 00 01 'c'
         23 00 01 26 00 01 'z' 00 00",
    );
    let len = section.len() as u8;
    let wire = [&[0x30, len + 4, 0, 1, b't', len], &section[..]].concat();
    let publish = Publish::decode(&wire, V5).unwrap();
    let expected =
        bytes("26 00 01 'z' 00 00 26 00 01 'a' 00 01 '1' 03 00 01 'c' 26 00 01 'z' 00 00");
    assert_eq!(publish.properties.encoded_len(), expected.len());
    let mut forwarded = Vec::new();
    publish.properties.encode(&mut forwarded).unwrap();
    assert_eq!(forwarded, expected);
    let properties = MessageProperties::from_wire(&forwarded).unwrap();
    assert_eq!(properties, publish.properties);
    assert_eq!(MessageProperties::from_encoded(&forwarded), properties);
    let pairs: Vec<_> = properties
        .user_properties()
        .iter()
        .map(|property| (property.name, property.value))
        .collect();
    assert_eq!(pairs, [("z", ""), ("a", "1"), ("z", "")]);
    assert_eq!(properties.user_properties().len(), 3);
}

#[test]
fn the_header_goes_without_the_payload() {
    let payload = vec![7; 300];
    let publish = Publish::new(name("t"), Delivery::AtLeastOnce(id(1)), &payload);
    let mut header = Vec::new();
    publish.encode_header(V5, &mut header).unwrap();
    assert_eq!(header, bytes("32 b2 02 00 01 't' 00 01 00"));
    assert_eq!(header.len(), publish.encoded_header_len(V5));
    header.extend_from_slice(&payload);
    assert_eq!(Publish::decode(&header, V5), Ok(publish));
    // The room of the payload is not needed.
    let mut room = [0; 9];
    publish.encode_header(V5, &mut room.as_mut_slice()).unwrap();
    let error = publish.encode_header(V5, &mut [0; 8].as_mut_slice());
    assert_eq!(error, Err(EncodeError::OutputFull));
}

#[test]
fn another_packet_is_not_a_publish() {
    let pingreq = bytes("c0 00");
    assert_eq!(
        Publish::decode(&pingreq, V5),
        Err(DecodeError::PacketType(12))
    );
}

/// [MQTT5-3.3.1-4] [MQTT311-3.3.1-4]
#[test]
fn qos_3_is_refused() {
    for version in [V3_1, V3_1_1, V5] {
        refuses(version, "36 05 00 01 't' 00 01", DecodeError::QoS3);
    }
}

/// [MQTT5-3.3.1-2] [MQTT311-3.3.1-2]
#[test]
fn dup_with_qos_0_is_refused_except_in_3_1() {
    refuses(V3_1_1, "38 03 00 01 't'", DecodeError::DupWithQoS0);
    refuses(V5, "38 04 00 01 't' 00", DecodeError::DupWithQoS0);
    let publish = Publish::new(name("t"), Delivery::AtMostOnce, b"");
    decodes(V3_1, "38 03 00 01 't'", Packet::Publish(publish));
    let publish = Publish {
        dup: true,
        ..publish
    };
    unencodable(V5, Packet::Publish(publish), EncodeError::DupWithQoS0);
}

/// [MQTT5-2.2.1-3] [MQTT311-2.3.1-1]
#[test]
fn packet_identifier_0_is_refused() {
    refuses(V3_1_1, "32 05 00 01 't' 00 00", DecodeError::PacketIdZero);
    refuses(V5, "34 06 00 01 't' 00 00 00", DecodeError::PacketIdZero);
}

/// [MQTT5-3.3.2-2] [MQTT311-3.3.2-2] [MQTT5-4.7.3-1]
#[test]
fn the_topic_name_has_a_character_and_no_wildcard() {
    let error = DecodeError::TopicName(Field::TopicName);
    for version in [V3_1, V3_1_1] {
        refuses(version, "30 02 00 00", error);
        refuses(version, "30 05 00 03 'a/+'", error);
        refuses(version, "30 05 00 03 'a#b'", error);
    }
    refuses(V5, "30 06 00 03 'a/#' 00", error);
}

/// [MQTT5-3.3.2-1]
#[test]
fn an_empty_topic_name_needs_an_alias() {
    refuses(V5, "30 03 00 00 00", DecodeError::MissingTopicName);
    let publish = Publish {
        topic_name: None,
        topic_alias: NonZeroU16::new(1),
        ..Publish::new(name("unused"), Delivery::AtMostOnce, b"x")
    };
    same(V5, "30 07 00 00 03 23 00 01 'x'", Packet::Publish(publish));
    let error = EncodeError::MissingTopicName;
    unencodable(V3_1_1, Packet::Publish(publish), error);
    let publish = Publish {
        topic_alias: None,
        ..publish
    };
    unencodable(V5, Packet::Publish(publish), error);
}

/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT311-1.5.3-1] [MQTT311-1.5.3-2]
#[test]
fn strings_are_utf_8_without_the_null_character() {
    let ill_formed = DecodeError::IllFormedUtf8(Field::TopicName);
    for version in [V3_1, V3_1_1] {
        refuses(version, "30 04 00 02 c3 28", ill_formed);
        // A surrogate.
        refuses(version, "30 05 00 03 ed a0 80", ill_formed);
        // An overlong slash.
        refuses(version, "30 04 00 02 c0 af", ill_formed);
        let null = DecodeError::NullCharacter(Field::TopicName);
        refuses(version, "30 05 00 03 'a' 00 'b'", null);
    }
    // U+FEFF is a character like any other, and so are control and non-characters.
    for (text, topic) in [
        ("30 05 00 03 ef bb bf", "\u{feff}"),
        ("30 03 00 01 01", "\u{1}"),
        ("30 05 00 03 ef bf bf", "\u{ffff}"),
        ("30 06 00 04 f0 9f a6 86", "🦆"),
    ] {
        let publish = Publish::new(name(topic), Delivery::AtMostOnce, b"");
        same(V3_1_1, text, Packet::Publish(publish));
    }
}

#[test]
fn every_truncation_names_its_field() {
    for (text, field) in [
        ("30 00", Field::TopicName),
        ("30 01 00", Field::TopicName),
        ("30 02 00 01", Field::TopicName),
        ("32 03 00 01 't'", Field::PacketId),
        ("32 04 00 01 't' 00", Field::PacketId),
        ("32 05 00 01 't' 00 01", Field::PropertyLength),
        ("30 04 00 01 't' 01", Field::PropertyLength),
        ("30 04 00 01 't' 80", Field::PropertyLength),
        (
            "30 06 00 01 't' 02 23 00",
            Field::Property(PropertyId::TopicAlias),
        ),
        (
            "30 07 00 01 't' 03 03 00 01",
            Field::Property(PropertyId::ContentType),
        ),
    ] {
        refuses(V5, text, DecodeError::Truncated(field));
    }
}

#[test]
fn property_values_out_of_range_are_refused() {
    for (text, id) in [
        ("30 07 00 01 't' 03 23 00 00", PropertyId::TopicAlias),
        (
            "30 06 00 01 't' 02 01 02",
            PropertyId::PayloadFormatIndicator,
        ),
        (
            "30 06 00 01 't' 02 0b 00",
            PropertyId::SubscriptionIdentifier,
        ),
    ] {
        refuses(V5, text, DecodeError::PropertyValue(id));
    }
    let response_topic = DecodeError::TopicName(Field::Property(PropertyId::ResponseTopic));
    refuses(V5, "30 08 00 01 't' 04 08 00 01 '+'", response_topic);
    refuses(V5, "30 07 00 01 't' 03 08 00 00", response_topic);
    refuses(
        V5,
        "30 07 00 01 't' 03 0b 81 00",
        DecodeError::VariableByteIntegerNotMinimal(Field::Property(
            PropertyId::SubscriptionIdentifier,
        )),
    );
}

#[test]
fn only_what_may_come_twice_comes_twice() {
    for (text, id) in [
        (
            "30 08 00 01 't' 04 01 00 01 00",
            PropertyId::PayloadFormatIndicator,
        ),
        (
            "30 0a 00 01 't' 06 23 00 01 23 00 01",
            PropertyId::TopicAlias,
        ),
        (
            "30 0a 00 01 't' 06 09 00 00 09 00 00",
            PropertyId::CorrelationData,
        ),
    ] {
        refuses(V5, text, DecodeError::RepeatedProperty(id));
    }
}

#[test]
fn properties_that_do_not_fit_are_not_encoded() {
    let long = vec![0; 65_536];
    let properties = MessageProperties::new(MessagePropertiesParts {
        correlation_data: Some(&long),
        ..MessagePropertiesParts::default()
    });
    let field = Field::Property(PropertyId::CorrelationData);
    let mut out = Vec::new();
    assert_eq!(
        properties.encode(&mut out),
        Err(EncodeError::FieldTooLong(field))
    );
    let publish = Publish {
        properties,
        ..Publish::new(name("t"), Delivery::AtMostOnce, b"")
    };
    unencodable(
        V5,
        Packet::Publish(publish),
        EncodeError::FieldTooLong(field),
    );
    // 3.x leaves properties out.
    publish.encode(V3_1_1, &mut out).unwrap();
    assert_eq!(out, bytes("30 03 00 01 't'"));
}
