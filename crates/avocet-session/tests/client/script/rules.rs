//! What a server must not send.

use super::*;

/// Packets that only a client sends, and a second CONNACK.
#[test]
fn packets_of_the_wrong_direction_are_violations() {
    for version in VERSIONS {
        for packet in [
            &[0xC0, 0][..],
            // SUBSCRIBE, UNSUBSCRIBE
            if version == Version::V5 {
                &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0]
            } else {
                &[0x82, 6, 0, 1, 0, 1, b'a', 0]
            },
            if version == Version::V5 {
                &[0xA2, 6, 0, 1, 0, 0, 1, b'a']
            } else {
                &[0xA2, 5, 0, 1, 0, 1, b'a']
            },
            if version == Version::V5 {
                &[0x20, 3, 0, 0, 0]
            } else {
                &[0x20, 2, 0, 0]
            },
        ] {
            let mut script = Script::connected(version);
            assert_eq!(script.give_bytes(packet), None);
            script.expect_violation(Violation::WrongDirection);
        }
    }
}

/// 3.x has no DISCONNECT from the server.
#[test]
fn disconnect_of_a_3_x_server_is_a_violation() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let mut script = Script::connected(version);
        assert_eq!(script.give_bytes(&[0xE0, 0]), None);
        script.expect_violation(Violation::WrongDirection);
    }
}

/// [MQTT5-3.14.2-2]
#[test]
fn a_server_must_not_set_the_session_expiry_interval_in_disconnect() {
    let mut script = Script::connected(Version::V5);
    let disconnect = Disconnect {
        session_expiry_interval: Some(1),
        ..Disconnect::new(ReasonCode::ServerShuttingDown)
    };
    assert_eq!(script.give(Packet::Disconnect(disconnect)), None);
    script.expect_violation(Violation::SessionExpiryInterval);
}

/// [MQTT5-4.3.3]
#[test]
fn acknowledgements_of_the_wrong_kind_are_violations() {
    for version in BOTH {
        let mut script = Script::connected(version);
        script.publish(QoS::AtLeastOnce).unwrap();
        script.sent();
        script.give(Packet::Pubrec(Ack::new(id(1))));
        script.expect_violation(Violation::WrongAcknowledgement);
        let mut script = Script::connected(version);
        script.publish(QoS::ExactlyOnce).unwrap();
        script.sent();
        script.give(Packet::Puback(Ack::new(id(1))));
        script.expect_violation(Violation::WrongAcknowledgement);
    }
}

/// [MQTT5-3.1.2-24]: known before the packet is there.
#[test]
fn a_packet_larger_than_allowed_is_refused_at_its_header() {
    let config = ClientConfig {
        maximum_packet_size: 10,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::connected_with(config, ConnackProperties::DEFAULT);
    let read = script.client.handle_input(&[0x30, 9], script.now);
    assert!(read.event.is_none());
    assert_eq!(script.sent(), ["DISCONNECT packet too large"]);
}

/// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
#[test]
fn malformed_packets_end_the_connection() {
    for version in BOTH {
        let mut script = Script::connected(version);
        // PUBLISH with QoS 3.
        assert_eq!(script.give_bytes(&[0x36, 5, 0, 1, b'a', 0, 1]), None);
        let expected: &[&str] = if version == Version::V5 {
            &["DISCONNECT malformed packet"]
        } else {
            &[]
        };
        assert_eq!(script.sent(), expected);
        let notice = script.client.poll_event();
        let Some(ClientNotice::Closed(CloseReason::PeerError(ConnectionError::Decode(_)))) = notice
        else {
            panic!("{notice:?}");
        };
    }
}

/// Answers that nobody waits for do no harm.
#[test]
fn answers_nobody_asked_for_are_ignored() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        let granted = [ReasonCode::GRANTED_QOS_0];
        script.give(Packet::Suback(Suback::new(id(1), &granted)));
        script.give(Packet::Puback(Ack::new(id(1))));
        script.give(Packet::Pubcomp(Ack::new(id(1))));
        script.give(Packet::Pingresp);
        assert_eq!(script.sent(), [""; 0]);
        assert!(script.client.is_connected());
    }
}

/// Every byte of a conversation alone gives the same as all at once.
#[test]
fn any_split_of_the_input_gives_the_same() {
    let mut bytes = Vec::new();
    for packet in [
        Packet::Connack(Connack::new(ReasonCode::Success)),
        publish_packet(QoS::AtMostOnce, 0),
        publish_packet(QoS::AtLeastOnce, 1),
        publish_packet(QoS::ExactlyOnce, 2),
        Packet::Pubrel(Ack::new(id(2))),
    ] {
        packet.encode(Version::V5, &mut bytes).unwrap();
    }
    for chunk in 1..=bytes.len() {
        let mut script = Script::new(ClientConfig::new(Version::V5, "c"));
        script.sent();
        let mut events = 0;
        let mut rest = Vec::new();
        for piece in bytes.chunks(chunk) {
            rest.extend_from_slice(piece);
            loop {
                let read = script.client.handle_input(&rest, script.now);
                if let Some(ClientEvent::Publish {
                    token: Some(token), ..
                }) = &read.event
                {
                    script
                        .client
                        .acknowledge(*token, ReasonCode::Success)
                        .unwrap();
                }
                events += usize::from(read.event.is_some());
                let (consumed, demand) = (read.consumed, read.demand);
                rest.drain(..consumed);
                if demand == Demand::More {
                    break;
                }
            }
        }
        assert_eq!((events, rest.len()), (4, 0), "{chunk}");
        let sent = script.sent();
        assert_eq!(
            sent,
            ["PUBACK 1 success", "PUBREC 2 success", "PUBCOMP 2 success"]
        );
    }
}
