use avocet_codec::{
    Ack, AckType, DecodeError, EncodeError, Field, List, Packet, PropertyId, ReasonCode,
    UserProperty,
};

use crate::{V3_1, V3_1_1, V5, bytes, decodes, id, refuses, same, unencodable};

type Constructor = fn(Ack<'static>) -> Packet<'static>;

/// The first byte of each, and what it says that the rest is.
const ALL: [(&str, Constructor); 4] = [
    ("40", Packet::Puback),
    ("50", Packet::Pubrec),
    ("62", Packet::Pubrel),
    ("70", Packet::Pubcomp),
];

#[test]
fn success_is_the_same_in_all_versions() {
    for (first_byte, packet) in ALL {
        for version in [V3_1, V3_1_1, V5] {
            let text = format!("{first_byte} 02 12 34");
            same(version, &text, packet(Ack::new(id(0x1234))));
        }
    }
    for (ack_type, text) in [
        (AckType::Puback, "40 02 12 34"),
        (AckType::Pubrec, "50 02 12 34"),
        (AckType::Pubrel, "62 02 12 34"),
        (AckType::Pubcomp, "70 02 12 34"),
    ] {
        assert_eq!(ack_type.success(id(0x1234)).as_slice(), bytes(text));
    }
}

#[test]
fn a_reason_code_may_stand_without_properties() {
    let ack = Ack::with_reason(id(1), ReasonCode::NoMatchingSubscribers);
    same(V5, "40 03 00 01 10", Packet::Puback(ack));
    let ack = Ack::with_reason(id(1), ReasonCode::PacketIdentifierNotFound);
    same(V5, "62 03 00 01 92", Packet::Pubrel(ack));
    // The longer forms say the same.
    decodes(V5, "40 03 00 01 00", Packet::Puback(Ack::new(id(1))));
    decodes(V5, "40 04 00 01 00 00", Packet::Puback(Ack::new(id(1))));
}

#[test]
fn properties_need_a_reason_code() {
    let user_properties = [UserProperty {
        name: "k",
        value: "v",
    }];
    let ack = Ack {
        reason_string: Some("no"),
        user_properties: List::from_slice(&user_properties),
        ..Ack::new(id(1))
    };
    same(
        V5,
        "50 10 00 01 00 0c 1f 00 02 'no' 26 00 01 'k' 00 01 'v'",
        Packet::Pubrec(ack),
    );
}

#[test]
fn codes_of_other_packets_are_refused() {
    refuses(V5, "40 03 00 01 92", DecodeError::ReasonCode(0x92));
    refuses(V5, "70 03 00 01 10", DecodeError::ReasonCode(0x10));
    refuses(V5, "50 03 00 01 01", DecodeError::ReasonCode(0x01));
    refuses(V5, "50 03 00 01 ff", DecodeError::ReasonCode(0xff));
    let ack = Ack::with_reason(id(1), ReasonCode::NotAuthorized);
    let error = EncodeError::ReasonCode(ReasonCode::NotAuthorized);
    unencodable(V5, Packet::Pubrel(ack), error);
}

#[test]
fn reason_codes_are_left_out_in_3_x() {
    let ack = Ack::with_reason(id(1), ReasonCode::NotAuthorized);
    let mut out = Vec::new();
    ack.encode(AckType::Pubrec, V3_1_1, &mut out).unwrap();
    assert_eq!(out, bytes("50 02 00 01"));
}

#[test]
fn malformed_acknowledgements_are_refused() {
    for (first_byte, _) in ALL {
        for (version, rest, error) in [
            (V3_1_1, "02 00 00", DecodeError::PacketIdZero),
            (V5, "02 00 00", DecodeError::PacketIdZero),
            (V5, "00", DecodeError::Truncated(Field::PacketId)),
            (V5, "01 00", DecodeError::Truncated(Field::PacketId)),
            (V3_1_1, "03 00 01 00", DecodeError::TrailingBytes),
            (V3_1, "03 00 01 00", DecodeError::TrailingBytes),
            (V5, "05 00 01 00 00 00", DecodeError::TrailingBytes),
            (
                V5,
                "04 00 01 00 01",
                DecodeError::Truncated(Field::PropertyLength),
            ),
            (
                V5,
                "09 00 01 00 05 11 00 00 00 00",
                DecodeError::MisplacedProperty(PropertyId::SessionExpiryInterval),
            ),
        ] {
            refuses(version, &format!("{first_byte} {rest}"), error);
        }
    }
}
