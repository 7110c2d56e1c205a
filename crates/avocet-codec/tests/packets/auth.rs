use avocet_codec::{
    Auth, DecodeError, EncodeError, Field, List, Packet, PacketType, PropertyId, ReasonCode,
    UserProperty,
};

use crate::{V3_1, V3_1_1, V5, refuses, same, unencodable};

const EMPTY: Auth<'static> = Auth {
    authentication_method: None,
    ..Auth::new(ReasonCode::Success, "")
};

#[test]
fn success_may_be_empty() {
    same(V5, "f0 00", Packet::Auth(EMPTY));
}

#[test]
fn everything_it_has() {
    let user_properties = [UserProperty {
        name: "k",
        value: "v",
    }];
    let auth = Auth {
        authentication_data: Some(&[0, 1, 2]),
        reason_string: Some("r"),
        user_properties: List::from_slice(&user_properties),
        ..Auth::new(ReasonCode::ContinueAuthentication, "SCRAM-SHA-256")
    };
    same(
        V5,
        "f0 23 18 21 15 00 0d 'SCRAM-SHA-256' 16 00 03 00 01 02 1f 00 01 'r' 26 00 01 'k' 00 01 'v'",
        Packet::Auth(auth),
    );
}

#[test]
fn it_is_of_5_0_alone() {
    for version in [V3_1, V3_1_1] {
        let error = EncodeError::NotInVersion {
            packet_type: PacketType::Auth,
            version,
        };
        unencodable(version, Packet::Auth(EMPTY), error);
    }
}

/// [MQTT5-3.15.1-1] [MQTT5-3.15.2-1]
#[test]
fn malformed_auths_are_refused() {
    for (text, error) in [
        ("f1 00", DecodeError::FixedHeaderFlags),
        ("f0 01 18", DecodeError::Truncated(Field::PropertyLength)),
        ("f0 02 18 00", DecodeError::MissingAuthenticationMethod),
        ("f0 02 87 00", DecodeError::ReasonCode(0x87)),
        (
            "f0 05 18 03 1c 00 00",
            DecodeError::MisplacedProperty(PropertyId::ServerReference),
        ),
    ] {
        refuses(V5, text, error);
    }
    let auth = Auth {
        reason_code: ReasonCode::ReAuthenticate,
        ..EMPTY
    };
    unencodable(
        V5,
        Packet::Auth(auth),
        EncodeError::MissingAuthenticationMethod,
    );
}
