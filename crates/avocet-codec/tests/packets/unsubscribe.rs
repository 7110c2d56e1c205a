use avocet_codec::{
    DecodeError, EncodeError, List, Packet, PropertyId, ReasonCode, TopicFilter, Unsuback,
    Unsubscribe, UserProperty,
};

use crate::{V3_1, V3_1_1, V5, id, refuses, same, unencodable};

#[test]
fn filters_alone() {
    let filters = ["a/b", "+/#"].map(|filter| TopicFilter::new(filter).unwrap());
    let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(id(3), &filters));
    same(V3_1, "a2 0c 00 03 00 03 'a/b' 00 03 '+/#'", unsubscribe);
    same(V3_1_1, "a2 0c 00 03 00 03 'a/b' 00 03 '+/#'", unsubscribe);
    same(V5, "a2 0d 00 03 00 00 03 'a/b' 00 03 '+/#'", unsubscribe);
}

#[test]
fn user_properties_and_dup() {
    let filters = [TopicFilter::new("a").unwrap()];
    let user_properties = [UserProperty {
        name: "k",
        value: "v",
    }];
    let unsubscribe = Unsubscribe {
        user_properties: List::from_slice(&user_properties),
        ..Unsubscribe::new(id(1), &filters)
    };
    same(
        V5,
        "a2 0d 00 01 07 26 00 01 'k' 00 01 'v' 00 01 'a'",
        Packet::Unsubscribe(unsubscribe),
    );
    let unsubscribe = Unsubscribe {
        dup: true,
        ..Unsubscribe::new(id(1), &filters)
    };
    same(
        V3_1,
        "aa 05 00 01 00 01 'a'",
        Packet::Unsubscribe(unsubscribe),
    );
}

/// [MQTT5-3.10.3-2] [MQTT311-3.10.3-2]
#[test]
fn malformed_unsubscribes_are_refused() {
    for (version, text, error) in [
        (V3_1, "a2 02 00 01", DecodeError::NoTopicFilters),
        (V3_1_1, "a2 02 00 01", DecodeError::NoTopicFilters),
        (V5, "a2 03 00 01 00", DecodeError::NoTopicFilters),
        (V5, "a2 03 00 00 00", DecodeError::PacketIdZero),
        (V3_1_1, "a2 04 00 01 00 00", DecodeError::TopicFilter),
        (V3_1_1, "a2 06 00 01 00 02 '##'", DecodeError::TopicFilter),
        (
            V5,
            "a2 08 00 01 02 0b 01 00 01 'a'",
            DecodeError::MisplacedProperty(PropertyId::SubscriptionIdentifier),
        ),
        (
            V3_1_1,
            "aa 05 00 01 00 01 'a'",
            DecodeError::FixedHeaderFlags,
        ),
    ] {
        refuses(version, text, error);
    }
    let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(id(1), &[]));
    unencodable(V5, unsubscribe, EncodeError::NoTopicFilters);
}

#[test]
fn unsuback_has_codes_in_5_0_alone() {
    same(
        V3_1,
        "b0 02 00 01",
        Packet::Unsuback(Unsuback::new(id(1), &[])),
    );
    same(
        V3_1_1,
        "b0 02 00 01",
        Packet::Unsuback(Unsuback::new(id(1), &[])),
    );
    let codes = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    let unsuback = Packet::Unsuback(Unsuback::new(id(1), &codes));
    same(V5, "b0 05 00 01 00 00 11", unsuback);
}

/// [MQTT5-3.11.3-1] [MQTT5-3.11.3-2]
#[test]
fn malformed_unsubacks_are_refused() {
    refuses(V3_1_1, "b0 03 00 01 00", DecodeError::TrailingBytes);
    refuses(V5, "b0 03 00 01 00", DecodeError::NoReasonCodes);
    refuses(V5, "b0 04 00 01 00 01", DecodeError::ReasonCode(1));
    let unsuback = Packet::Unsuback(Unsuback::new(id(1), &[]));
    unencodable(V5, unsuback, EncodeError::NoReasonCodes);
}
