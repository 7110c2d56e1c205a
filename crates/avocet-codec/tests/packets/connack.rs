use std::num::{NonZeroU16, NonZeroU32};

use avocet_codec::{
    Connack, ConnackProperties, DecodeError, EncodeError, List, Packet, PropertyId, QoS,
    ReasonCode, UserProperty,
};

use crate::{V3_1, V3_1_1, V5, decodes, refuses, same, unencodable};

fn accepted(session_present: bool) -> Packet<'static> {
    Packet::Connack(Connack {
        session_present,
        ..Connack::new(ReasonCode::Success)
    })
}

#[test]
fn session_present_since_3_1_1() {
    same(V3_1, "20 02 00 00", accepted(false));
    same(V3_1_1, "20 02 01 00", accepted(true));
    same(V5, "20 03 01 00 00", accepted(true));
    // 3.1 gives the first byte no meaning.
    decodes(V3_1, "20 02 ff 00", accepted(false));
}

/// [MQTT5-3.2.2-1] [MQTT311-3.2.2.1]
#[test]
fn reserved_acknowledge_flags_are_refused() {
    refuses(V3_1_1, "20 02 02 00", DecodeError::ConnectAcknowledgeFlags);
    refuses(V5, "20 03 80 00 00", DecodeError::ConnectAcknowledgeFlags);
}

/// [MQTT5-3.2.2-6] [MQTT311-3.2.2-4]
#[test]
fn a_refusal_has_no_session_present() {
    let error = DecodeError::SessionPresentWithError;
    refuses(V3_1_1, "20 02 01 05", error);
    refuses(V5, "20 03 01 87 00", error);
    let connack = Connack {
        session_present: true,
        ..Connack::new(ReasonCode::NotAuthorized)
    };
    unencodable(
        V5,
        Packet::Connack(connack),
        EncodeError::SessionPresentWithError,
    );
}

#[test]
fn return_codes_of_3_x_are_reason_codes() {
    for (text, code) in [
        ("20 02 00 01", ReasonCode::UnsupportedProtocolVersion),
        ("20 02 00 02", ReasonCode::ClientIdentifierNotValid),
        ("20 02 00 03", ReasonCode::ServerUnavailable),
        ("20 02 00 04", ReasonCode::BadUserNameOrPassword),
        ("20 02 00 05", ReasonCode::NotAuthorized),
    ] {
        same(V3_1_1, text, Packet::Connack(Connack::new(code)));
        same(V3_1, text, Packet::Connack(Connack::new(code)));
    }
    refuses(V3_1_1, "20 02 00 06", DecodeError::ReasonCode(6));
    refuses(V3_1, "20 02 00 ff", DecodeError::ReasonCode(0xff));
}

/// [MQTT5-3.2.2-8]
#[test]
fn codes_of_other_packets_are_refused() {
    refuses(V5, "20 03 00 01 00", DecodeError::ReasonCode(1));
    refuses(V5, "20 03 00 8e 00", DecodeError::ReasonCode(0x8e));
    refuses(V5, "20 03 00 7b 00", DecodeError::ReasonCode(0x7b));
    let connack = Packet::Connack(Connack::new(ReasonCode::SessionTakenOver));
    let error = EncodeError::ReasonCode(ReasonCode::SessionTakenOver);
    unencodable(V5, connack, error);
}

#[test]
fn everything_that_5_0_has() {
    let text = "20 44 01 00 41
        11 00 00 00 07 21 00 0a 24 01 25 00 27 00 01 00 00 12 00 02 'id' 22 00 03 1f 00 01 'r'
        26 00 01 'n' 00 01 'v' 28 00 29 00 2a 00 13 00 1e 1a 00 02 'in' 1c 00 03 'ref'
        15 00 01 'm' 16 00 02 00 ff";
    let user_properties = [UserProperty {
        name: "n",
        value: "v",
    }];
    let connack = Connack {
        session_present: true,
        reason_code: ReasonCode::Success,
        properties: ConnackProperties {
            session_expiry_interval: Some(7),
            receive_maximum: NonZeroU16::new(10),
            maximum_qos: QoS::AtLeastOnce,
            retain_available: false,
            maximum_packet_size: NonZeroU32::new(65_536),
            assigned_client_id: Some("id"),
            topic_alias_maximum: 3,
            reason_string: Some("r"),
            user_properties: List::from_slice(&user_properties),
            wildcard_subscription_available: false,
            subscription_ids_available: false,
            shared_subscription_available: false,
            server_keep_alive: Some(30),
            response_information: Some("in"),
            server_reference: Some("ref"),
            authentication_method: Some("m"),
            authentication_data: Some(&[0, 0xff]),
        },
    };
    same(V5, text, Packet::Connack(connack));
}

#[test]
fn defaults_may_be_said() {
    decodes(
        V5,
        "20 0d 00 00 0a 25 01 28 01 29 01 2a 01 24 01",
        Packet::Connack(Connack {
            properties: ConnackProperties {
                maximum_qos: QoS::AtLeastOnce,
                ..ConnackProperties::DEFAULT
            },
            ..Connack::new(ReasonCode::Success)
        }),
    );
}

/// [MQTT5-3.2.2.3.4]
#[test]
fn maximum_qos_2_is_never_said() {
    refuses(
        V5,
        "20 05 00 00 02 24 02",
        DecodeError::PropertyValue(PropertyId::MaximumQoS),
    );
}
