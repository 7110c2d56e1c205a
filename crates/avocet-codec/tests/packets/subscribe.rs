use avocet_codec::{
    DecodeError, EncodeError, Field, List, Packet, PropertyId, QoS, ReasonCode, RetainHandling,
    Suback, Subscribe, SubscribeFilter, SubscriptionId, SubscriptionOptions, TopicFilter,
    UserProperty,
};

use crate::{V3_1, V3_1_1, V5, bytes, decodes, id, refuses, same, unencodable};

fn filter(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter::new(TopicFilter::new(filter).unwrap(), qos)
}

#[test]
fn filters_with_their_qos() {
    let filters = [
        filter("a/+", QoS::AtMostOnce),
        filter("#", QoS::AtLeastOnce),
        filter("é", QoS::ExactlyOnce),
    ];
    let subscribe = Packet::Subscribe(Subscribe::new(id(10), &filters));
    let rest = "00 03 'a/+' 00 00 01 '#' 01 00 02 'é' 02";
    for version in [V3_1, V3_1_1] {
        same(version, &format!("82 11 00 0a {rest}"), subscribe);
    }
    same(V5, &format!("82 12 00 0a 00 {rest}"), subscribe);
}

#[test]
fn everything_that_5_0_has() {
    let options = SubscriptionOptions {
        maximum_qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters = [
        SubscribeFilter {
            options,
            ..filter("a", QoS::AtMostOnce)
        },
        SubscribeFilter {
            options: SubscriptionOptions {
                retain_handling: RetainHandling::SendIfNew,
                ..SubscriptionOptions::default()
            },
            ..filter("$share/g/b", QoS::AtMostOnce)
        },
    ];
    let user_properties = [UserProperty {
        name: "",
        value: "",
    }];
    let subscribe = Subscribe {
        subscription_id: SubscriptionId::new(SubscriptionId::MAX),
        user_properties: List::from_slice(&user_properties),
        ..Subscribe::new(id(1), &filters)
    };
    same(
        V5,
        "82 1e 00 01 0a 0b ff ff ff 7f 26 00 00 00 00 00 01 'a' 2e 00 0a '$share/g/b' 10",
        Packet::Subscribe(subscribe),
    );
}

#[test]
fn dup_is_of_3_1_alone() {
    let filters = [filter("a", QoS::AtMostOnce)];
    let subscribe = Subscribe {
        dup: true,
        ..Subscribe::new(id(1), &filters)
    };
    same(
        V3_1,
        "8a 06 00 01 00 01 'a' 00",
        Packet::Subscribe(subscribe),
    );
    refuses(
        V3_1_1,
        "8a 06 00 01 00 01 'a' 00",
        DecodeError::FixedHeaderFlags,
    );
    let mut out = Vec::new();
    subscribe.encode(V3_1_1, &mut out).unwrap();
    assert_eq!(out, bytes("82 06 00 01 00 01 'a' 00"));
}

/// [MQTT5-3.8.3-2] [MQTT311-3.8.3-3]
#[test]
fn at_least_one_filter() {
    refuses(V3_1, "82 02 00 01", DecodeError::NoTopicFilters);
    refuses(V3_1_1, "82 02 00 01", DecodeError::NoTopicFilters);
    refuses(V5, "82 03 00 01 00", DecodeError::NoTopicFilters);
    unencodable(
        V5,
        Packet::Subscribe(Subscribe::new(id(1), &[])),
        EncodeError::NoTopicFilters,
    );
}

/// [MQTT5-3.8.3-5] [MQTT311-3.8.3-4]
#[test]
fn reserved_options_are_refused_except_in_3_1() {
    for options in ["04", "80", "40", "10"] {
        refuses(
            V3_1_1,
            &format!("82 06 00 01 00 01 'a' {options}"),
            DecodeError::SubscriptionOptions,
        );
    }
    for options in ["40", "80", "c0"] {
        refuses(
            V5,
            &format!("82 07 00 01 00 00 01 'a' {options}"),
            DecodeError::SubscriptionOptions,
        );
    }
    refuses(
        V5,
        "82 07 00 01 00 00 01 'a' 30",
        DecodeError::RetainHandling,
    );
    let filters = [filter("a", QoS::AtLeastOnce)];
    decodes(
        V3_1,
        "82 06 00 01 00 01 'a' fd",
        Packet::Subscribe(Subscribe::new(id(1), &filters)),
    );
}

/// [MQTT5-3.8.3.1] [MQTT311-3.8.3-4]
#[test]
fn a_maximum_qos_of_3_is_refused() {
    refuses(V5, "82 07 00 01 00 00 01 'a' 03", DecodeError::MaximumQoS3);
    for version in [V3_1, V3_1_1] {
        refuses(
            version,
            "82 06 00 01 00 01 'a' 03",
            DecodeError::MaximumQoS3,
        );
    }
}

/// [MQTT5-3.8.3-4]
#[test]
fn no_local_does_not_go_with_a_shared_subscription() {
    let error = DecodeError::NoLocalOnSharedSubscription;
    refuses(V5, "82 10 00 01 00 00 0a '$share/g/a' 04", error);
    let filters = [SubscribeFilter {
        options: SubscriptionOptions {
            no_local: true,
            ..SubscriptionOptions::default()
        },
        ..filter("$share/g/a", QoS::AtMostOnce)
    }];
    let subscribe = Subscribe::new(id(1), &filters);
    unencodable(
        V5,
        Packet::Subscribe(subscribe),
        EncodeError::NoLocalOnSharedSubscription,
    );
    assert!(subscribe.encode(V3_1_1, &mut Vec::new()).is_ok());
}

#[test]
fn malformed_subscribes_are_refused() {
    for (version, text, error) in [
        (
            V3_1_1,
            "82 06 00 00 00 01 'a' 00",
            DecodeError::PacketIdZero,
        ),
        (V3_1_1, "82 05 00 01 00 00 00", DecodeError::TopicFilter),
        (
            V3_1_1,
            "82 07 00 01 00 02 'a+' 00",
            DecodeError::TopicFilter,
        ),
        (
            V3_1_1,
            "82 08 00 01 00 03 '#/a' 00",
            DecodeError::TopicFilter,
        ),
        (
            V3_1_1,
            "82 06 00 01 00 01 00 00",
            DecodeError::NullCharacter(Field::TopicFilter),
        ),
        (
            V3_1_1,
            "82 06 00 01 00 01 ff 00",
            DecodeError::IllFormedUtf8(Field::TopicFilter),
        ),
        (
            V3_1_1,
            "82 05 00 01 00 01 'a'",
            DecodeError::Truncated(Field::SubscriptionOptions),
        ),
        (
            V3_1_1,
            "82 07 00 01 00 01 'a' 00 00",
            DecodeError::Truncated(Field::TopicFilter),
        ),
        (
            V5,
            "82 0b 00 01 04 0b 01 0b 01 00 01 'a' 00",
            DecodeError::RepeatedProperty(PropertyId::SubscriptionIdentifier),
        ),
        (
            V5,
            "82 09 00 01 02 0b 00 00 01 'a' 00",
            DecodeError::PropertyValue(PropertyId::SubscriptionIdentifier),
        ),
        (
            V5,
            "82 0a 00 01 03 1f 00 00 00 01 'a' 00",
            DecodeError::MisplacedProperty(PropertyId::ReasonString),
        ),
    ] {
        refuses(version, text, error);
    }
}

#[test]
fn suback_has_a_code_for_each_filter() {
    let codes = [
        ReasonCode::GRANTED_QOS_0,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
    ];
    let suback = Packet::Suback(Suback::new(id(1), &codes));
    same(V3_1, "90 06 00 01 00 01 02 80", suback);
    same(V3_1_1, "90 06 00 01 00 01 02 80", suback);
    same(V5, "90 07 00 01 00 00 01 02 80", suback);
}

#[test]
fn suback_errors_of_5_0_are_0x80_in_3_x() {
    let codes = [ReasonCode::NotAuthorized, ReasonCode::QuotaExceeded];
    let suback = Suback {
        reason_string: Some("r"),
        ..Suback::new(id(1), &codes)
    };
    same(
        V5,
        "90 09 00 01 04 1f 00 01 'r' 87 97",
        Packet::Suback(suback),
    );
    let mut out = Vec::new();
    suback.encode(V3_1_1, &mut out).unwrap();
    assert_eq!(out, bytes("90 04 00 01 80 80"));
}

/// [MQTT5-3.8.4-6] [MQTT5-3.9.3-2] [MQTT311-3.9.3-2]
#[test]
fn malformed_subacks_are_refused() {
    refuses(V3_1_1, "90 03 00 01 03", DecodeError::ReasonCode(3));
    refuses(V3_1_1, "90 03 00 01 87", DecodeError::ReasonCode(0x87));
    refuses(V5, "90 04 00 01 00 11", DecodeError::ReasonCode(0x11));
    refuses(V3_1_1, "90 02 00 01", DecodeError::NoReasonCodes);
    refuses(V5, "90 03 00 01 00", DecodeError::NoReasonCodes);
    unencodable(
        V5,
        Packet::Suback(Suback::new(id(1), &[])),
        EncodeError::NoReasonCodes,
    );
    let codes = [ReasonCode::Banned];
    for version in [V3_1_1, V5] {
        unencodable(
            version,
            Packet::Suback(Suback::new(id(1), &codes)),
            EncodeError::ReasonCode(ReasonCode::Banned),
        );
    }
}
