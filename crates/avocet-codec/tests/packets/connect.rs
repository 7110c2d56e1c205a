use std::num::{NonZeroU16, NonZeroU32};

use avocet_codec::{
    Connect, ConnectProperties, DecodeError, EncodeError, Field, List, MessageProperties,
    MessagePropertiesParts, Packet, PacketType, PayloadFormat, PropertyId, QoS, TopicName,
    UserProperty, Will,
};

use crate::{V3_1, V3_1_1, V5, accepts, decodes, refuses, same, unencodable};

#[test]
fn the_smallest_connect_of_each_version() {
    let connect = |version| Packet::Connect(Connect::new(version, "a"));
    let v3_1 = "10 0f 00 06 'MQIsdp' 03 02 00 00 00 01 'a'";
    let v3_1_1 = "10 0d 00 04 'MQTT' 04 02 00 00 00 01 'a'";
    let v5 = "10 0e 00 04 'MQTT' 05 02 00 00 00 00 01 'a'";
    // The packet says its version, so that the argument does not matter.
    for version in [V3_1, V3_1_1, V5] {
        same(version, v3_1, connect(V3_1));
        same(version, v3_1_1, connect(V3_1_1));
        same(version, v5, connect(V5));
    }
}

/// [MQTT311-3.1.3-1]
#[test]
fn everything_that_3_1_1_has() {
    let text = "10 24 00 04 'MQTT' 04 f4 00 3c 00 03 'dev' 00 03 'w/t' 00 04 'gone'
        00 02 'me' 00 04 ff 00 fe 01";
    let will = Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        ..Will::new(TopicName::new("w/t").unwrap(), b"gone")
    };
    let connect = Connect {
        clean_start: false,
        keep_alive: 60,
        will: Some(will),
        user_name: Some("me"),
        password: Some(&[0xff, 0, 0xfe, 1]),
        ..Connect::new(V3_1_1, "dev")
    };
    same(V3_1_1, text, Packet::Connect(connect));
}

/// [MQTT5-3.1.3-1]
#[test]
fn everything_that_5_0_has() {
    let text = "10 69 00 04 'MQTT' 05 ee 00 0a
        2a 11 00 00 00 0a 21 00 14 27 00 00 03 e8 22 00 05 19 01 17 00
           26 00 01 'k' 00 01 'v' 26 00 01 'k' 00 00 15 00 02 'ab' 16 00 01 00
        00 00
        26 18 00 00 00 05 02 00 00 00 06 01 01 03 00 01 't' 08 00 01 'r' 09 00 02 00 01
           26 00 01 'a' 00 01 'b' 26 00 01 'c' 00 00
        00 01 'w' 00 00
        00 01 'u' 00 01 'p'";
    let user_properties = [
        UserProperty {
            name: "k",
            value: "v",
        },
        UserProperty {
            name: "k",
            value: "",
        },
    ];
    let will_user_properties = [
        UserProperty {
            name: "a",
            value: "b",
        },
        UserProperty {
            name: "c",
            value: "",
        },
    ];
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        will_delay_interval: 5,
        message_expiry_interval: Some(6),
        properties: MessageProperties::new(MessagePropertiesParts {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some("t"),
            response_topic: Some(TopicName::new("r").unwrap()),
            correlation_data: Some(&[0, 1]),
            user_properties: &will_user_properties,
        }),
        ..Will::new(TopicName::new("w").unwrap(), b"")
    };
    let connect = Connect {
        keep_alive: 10,
        will: Some(will),
        user_name: Some("u"),
        password: Some(b"p"),
        properties: ConnectProperties {
            session_expiry_interval: 10,
            receive_maximum: NonZeroU16::new(20),
            maximum_packet_size: NonZeroU32::new(1000),
            topic_alias_maximum: 5,
            request_response_information: true,
            request_problem_information: false,
            user_properties: List::from_slice(&user_properties),
            authentication_method: Some("ab"),
            authentication_data: Some(&[0]),
        },
        ..Connect::new(V5, "")
    };
    same(V5, text, Packet::Connect(connect));
}

#[test]
fn bridges_say_so_in_the_protocol_level() {
    let bridge = |version| {
        Packet::Connect(Connect {
            bridge: true,
            ..Connect::new(version, "a")
        })
    };
    same(
        V5,
        "10 0f 00 06 'MQIsdp' 83 02 00 00 00 01 'a'",
        bridge(V3_1),
    );
    same(
        V5,
        "10 0d 00 04 'MQTT' 84 02 00 00 00 01 'a'",
        bridge(V3_1_1),
    );
    unencodable(
        V5,
        bridge(V5),
        EncodeError::NotInVersion {
            packet_type: PacketType::Connect,
            version: V5,
        },
    );
}

/// [MQTT5-3.1.2-1] [MQTT5-3.1.2-2] [MQTT311-3.1.2-1] [MQTT311-3.1.2-2]
#[test]
fn unknown_names_are_malformed_and_unknown_levels_unsupported() {
    refuses(
        V5,
        "10 0d 00 04 'MQTX' 04 02 00 00 00 01 'a'",
        DecodeError::ProtocolName,
    );
    refuses(
        V5,
        "10 0d 00 04 'mqtt' 04 02 00 00 00 01 'a'",
        DecodeError::ProtocolName,
    );
    for (text, level) in [
        ("10 0d 00 04 'MQTT' 06 02 00 00 00 01 'a'", 6),
        ("10 0d 00 04 'MQTT' 03 02 00 00 00 01 'a'", 3),
        ("10 0e 00 04 'MQTT' 85 02 00 00 00 00 01 'a'", 0x85),
        ("10 0f 00 06 'MQIsdp' 04 02 00 00 00 01 'a'", 4),
        // Nothing behind the level of an unknown version is looked at.
        ("10 07 00 04 'MQTT' 09", 9),
    ] {
        refuses(V5, text, DecodeError::UnsupportedProtocolVersion(level));
    }
}

/// [MQTT5-3.1.2-3] [MQTT311-3.1.2-3]
#[test]
fn the_reserved_connect_flag_is_refused_except_in_3_1() {
    let error = DecodeError::ConnectFlags;
    refuses(V5, "10 0d 00 04 'MQTT' 04 03 00 00 00 01 'a'", error);
    refuses(V5, "10 0e 00 04 'MQTT' 05 03 00 00 00 00 01 'a'", error);
    decodes(
        V5,
        "10 0f 00 06 'MQIsdp' 03 03 00 00 00 01 'a'",
        Packet::Connect(Connect::new(V3_1, "a")),
    );
}

/// [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT311-3.1.2-11] [MQTT311-3.1.2-13] [MQTT311-3.1.2-15]
#[test]
fn will_flags_without_a_will_are_refused_except_in_3_1() {
    for flags in ["0a", "12", "22"] {
        for (version, text) in [
            (
                V3_1_1,
                format!("10 0d 00 04 'MQTT' 04 {flags} 00 00 00 01 'a'"),
            ),
            (
                V5,
                format!("10 0e 00 04 'MQTT' 05 {flags} 00 00 00 00 01 'a'"),
            ),
        ] {
            refuses(version, &text, DecodeError::ConnectFlags);
        }
        let text = format!("10 0f 00 06 'MQIsdp' 03 {flags} 00 00 00 01 'a'");
        decodes(V3_1, &text, Packet::Connect(Connect::new(V3_1, "a")));
    }
}

/// [MQTT5-3.1.2-12] [MQTT311-3.1.2-14]
#[test]
fn a_will_with_qos_3_is_refused() {
    let text = "10 12 00 04 'MQTT' 04 1e 00 00 00 01 'a' 00 01 'w' 00 00";
    refuses(V3_1_1, text, DecodeError::QoS3);
    let text = "10 14 00 06 'MQIsdp' 03 1e 00 00 00 01 'a' 00 01 'w' 00 00";
    refuses(V3_1, text, DecodeError::QoS3);
}

/// [MQTT311-3.1.2-22]
#[test]
fn only_5_0_allows_a_password_without_a_user_name() {
    let error = DecodeError::PasswordWithoutUserName;
    refuses(
        V5,
        "10 10 00 04 'MQTT' 04 42 00 00 00 01 'a' 00 01 'p'",
        error,
    );
    refuses(
        V5,
        "10 12 00 06 'MQIsdp' 03 42 00 00 00 01 'a' 00 01 'p'",
        error,
    );
    let with_password = |version| {
        Packet::Connect(Connect {
            password: Some(b"p"),
            ..Connect::new(version, "a")
        })
    };
    same(
        V5,
        "10 11 00 04 'MQTT' 05 42 00 00 00 00 01 'a' 00 01 'p'",
        with_password(V5),
    );
    for version in [V3_1, V3_1_1] {
        let error = EncodeError::PasswordWithoutUserName;
        unencodable(version, with_password(version), error);
    }
}

#[test]
fn in_3_1_the_end_of_the_packet_outranks_the_credential_flags() {
    decodes(
        V3_1,
        "10 0f 00 06 'MQIsdp' 03 c2 00 00 00 01 'a'",
        Packet::Connect(Connect::new(V3_1, "a")),
    );
    let with_user_name = Connect {
        user_name: Some("u"),
        ..Connect::new(V3_1, "a")
    };
    decodes(
        V3_1,
        "10 12 00 06 'MQIsdp' 03 c2 00 00 00 01 'a' 00 01 'u'",
        Packet::Connect(with_user_name),
    );
    refuses(
        V3_1_1,
        "10 0d 00 04 'MQTT' 04 82 00 00 00 01 'a'",
        DecodeError::Truncated(Field::UserName),
    );
}

#[test]
fn the_will_topic_is_a_topic_name() {
    let error = DecodeError::TopicName(Field::WillTopic);
    refuses(
        V5,
        "10 12 00 04 'MQTT' 04 06 00 00 00 01 'a' 00 01 '#' 00 00",
        error,
    );
    refuses(
        V5,
        "10 11 00 04 'MQTT' 04 06 00 00 00 01 'a' 00 00 00 00",
        error,
    );
}

#[test]
fn bytes_behind_the_last_field_are_refused() {
    let error = DecodeError::TrailingBytes;
    refuses(V5, "10 0e 00 04 'MQTT' 04 02 00 00 00 01 'a' 00", error);
    refuses(V5, "10 0f 00 04 'MQTT' 05 02 00 00 00 00 01 'a' 00", error);
}

#[test]
fn every_truncation_names_its_field() {
    for (text, field) in [
        ("10 01 00", Field::ProtocolName),
        ("10 04 00 04 'MQ'", Field::ProtocolName),
        ("10 06 00 04 'MQTT'", Field::ProtocolVersion),
        ("10 07 00 04 'MQTT' 05", Field::ConnectFlags),
        ("10 09 00 04 'MQTT' 05 02 00", Field::KeepAlive),
        ("10 0a 00 04 'MQTT' 05 02 00 00", Field::PropertyLength),
        ("10 0b 00 04 'MQTT' 05 02 00 00 01", Field::PropertyLength),
        ("10 0d 00 04 'MQTT' 05 02 00 00 00 00 01", Field::ClientId),
        (
            "10 0d 00 04 'MQTT' 05 06 00 00 00 00 00",
            Field::PropertyLength,
        ),
        (
            "10 0e 00 04 'MQTT' 05 06 00 00 00 00 00 00",
            Field::WillTopic,
        ),
        (
            "10 11 00 04 'MQTT' 05 06 00 00 00 00 00 00 00 01 'w'",
            Field::WillPayload,
        ),
        (
            "10 0e 00 04 'MQTT' 05 c2 00 00 00 00 00 00",
            Field::UserName,
        ),
        (
            "10 0f 00 04 'MQTT' 05 c2 00 00 00 00 00 00 00",
            Field::Password,
        ),
    ] {
        refuses(V5, text, DecodeError::Truncated(field));
    }
}

/// [MQTT5-3.1.2.11]
#[test]
fn property_values_out_of_range_are_refused() {
    for (property, id) in [
        ("21 00 00", PropertyId::ReceiveMaximum),
        ("27 00 00 00 00", PropertyId::MaximumPacketSize),
        ("19 02", PropertyId::RequestResponseInformation),
        ("17 02", PropertyId::RequestProblemInformation),
    ] {
        let len = property.split(' ').count();
        let text = format!(
            "10 {:02x} 00 04 'MQTT' 05 02 00 00 {len:02x} {property} 00 00",
            13 + len
        );
        refuses(V5, &text, DecodeError::PropertyValue(id));
    }
}

/// [MQTT5-3.1.2.11.10]
#[test]
fn authentication_data_needs_a_method() {
    refuses(
        V5,
        "10 11 00 04 'MQTT' 05 02 00 00 04 16 00 01 00 00 00",
        DecodeError::MissingAuthenticationMethod,
    );
    let connect = Connect {
        properties: ConnectProperties {
            authentication_data: Some(b""),
            ..ConnectProperties::DEFAULT
        },
        ..Connect::new(V5, "")
    };
    unencodable(
        V5,
        Packet::Connect(connect),
        EncodeError::MissingAuthenticationMethod,
    );
}

#[test]
fn a_will_has_no_topic_alias() {
    refuses(
        V5,
        "10 17 00 04 'MQTT' 05 06 00 00 00 00 00 03 23 00 01 00 01 'w' 00 01 'x'",
        DecodeError::MisplacedProperty(PropertyId::TopicAlias),
    );
}

#[test]
fn the_session_judges_client_identifiers() {
    accepts(V5, "10 0c 00 04 'MQTT' 04 00 00 00 00 00");
    accepts(V5, "10 0e 00 06 'MQIsdp' 03 02 00 00 00 00");
}

#[test]
fn strings_that_do_not_fit_are_not_encoded() {
    let long = "x".repeat(65_536);
    unencodable(
        V5,
        Packet::Connect(Connect::new(V3_1_1, &long)),
        EncodeError::FieldTooLong(Field::ClientId),
    );
    unencodable(
        V5,
        Packet::Connect(Connect::new(V3_1_1, "a\0b")),
        EncodeError::NullCharacter(Field::ClientId),
    );
    accepts(V5, "10 0d 00 04 'MQTT' 04 02 00 00 00 01 7f");
}

/// Strings are looked at in words of eight bytes, so that what stands where matters.
/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT311-1.5.3-1] [MQTT311-1.5.3-2]
#[test]
fn null_and_ill_formed_characters_are_found_at_every_place() {
    for len in 1..=25 {
        for place in 0..len {
            let mut frame = Vec::new();
            let client_id = "x".repeat(len);
            let connect = Packet::Connect(Connect::new(V5, &client_id));
            connect.encode(V5, &mut frame).unwrap();
            let at = frame.len() - len + place;
            for (byte, error) in [
                (0x00, Some(DecodeError::NullCharacter(Field::ClientId))),
                (0x80, Some(DecodeError::IllFormedUtf8(Field::ClientId))),
                (0x01, None),
                (0x7f, None),
            ] {
                frame[at] = byte;
                assert_eq!(Packet::decode(&frame, V5).err(), error, "{place} of {len}");
            }
            let mut client_id = client_id;
            client_id.replace_range(place..=place, "\0");
            unencodable(
                V5,
                Packet::Connect(Connect::new(V5, &client_id)),
                EncodeError::NullCharacter(Field::ClientId),
            );
        }
    }
}
