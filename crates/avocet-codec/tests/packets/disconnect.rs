use avocet_codec::{
    DecodeError, Disconnect, EncodeError, Field, List, Packet, PropertyId, ReasonCode, UserProperty,
};

use crate::{V3_1, V3_1_1, V5, bytes, decodes, refuses, same, unencodable};

fn disconnect(reason_code: ReasonCode) -> Packet<'static> {
    Packet::Disconnect(Disconnect::new(reason_code))
}

#[test]
fn normal_disconnection_is_empty() {
    for version in [V3_1, V3_1_1, V5] {
        same(
            version,
            "e0 00",
            disconnect(ReasonCode::NORMAL_DISCONNECTION),
        );
    }
    decodes(V5, "e0 01 00", disconnect(ReasonCode::Success));
    decodes(V5, "e0 02 00 00", disconnect(ReasonCode::Success));
}

#[test]
fn a_reason_code_may_stand_alone() {
    same(
        V5,
        "e0 01 04",
        disconnect(ReasonCode::DisconnectWithWillMessage),
    );
    same(V5, "e0 01 8e", disconnect(ReasonCode::SessionTakenOver));
    let mut out = Vec::new();
    disconnect(ReasonCode::SessionTakenOver)
        .encode(V3_1_1, &mut out)
        .unwrap();
    assert_eq!(out, bytes("e0 00"));
}

#[test]
fn everything_that_5_0_has() {
    let user_properties = [UserProperty {
        name: "k",
        value: "",
    }];
    let disconnect = Disconnect {
        session_expiry_interval: Some(u32::MAX),
        reason_string: Some("r"),
        user_properties: List::from_slice(&user_properties),
        server_reference: Some("s"),
        ..Disconnect::new(ReasonCode::ServerMoved)
    };
    same(
        V5,
        "e0 15 9d 13 11 ff ff ff ff 1f 00 01 'r' 26 00 01 'k' 00 00 1c 00 01 's'",
        Packet::Disconnect(disconnect),
    );
}

#[test]
fn malformed_disconnects_are_refused() {
    for (version, text, error) in [
        (V3_1, "e0 01 00", DecodeError::TrailingBytes),
        (V3_1_1, "e0 01 00", DecodeError::TrailingBytes),
        (V5, "e0 03 00 00 00", DecodeError::TrailingBytes),
        (V5, "e0 01 84", DecodeError::ReasonCode(0x84)),
        (V5, "e0 01 01", DecodeError::ReasonCode(0x01)),
        (
            V5,
            "e0 02 00 01",
            DecodeError::Truncated(Field::PropertyLength),
        ),
        (
            V5,
            "e0 05 00 03 21 00 01",
            DecodeError::MisplacedProperty(PropertyId::ReceiveMaximum),
        ),
    ] {
        refuses(version, text, error);
    }
    let error = EncodeError::ReasonCode(ReasonCode::Banned);
    unencodable(V5, disconnect(ReasonCode::Banned), error);
}
