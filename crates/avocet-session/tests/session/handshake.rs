//! CONNECT, CONNACK and AUTH.

use avocet_codec::PacketType::{
    Auth as AuthType, Connack as ConnackType, Disconnect as DisconnectType,
};
use avocet_codec::{Auth, Connack, Connect, Disconnect, Packet, QoS, ReasonCode, Version, Will};
use avocet_session::{
    Accept, Authentication, CloseReason, ConnectionError, ConnectionEvent, Details, Limits,
    ServerConfig, Session, Violation,
};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use crate::support::{Pair, qos1, topic};

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

fn opened(version: Version, config: ServerConfig) -> Pair {
    Pair::new(version, config)
}

fn send_connect(pair: &mut Pair, connect: Connect<'_>) {
    pair.client.send(&Packet::Connect(connect));
    pair.run();
}

fn connack(pair: &Pair) -> Connack<'_> {
    match Packet::decode(&pair.client.last, pair.client.version) {
        Ok(Packet::Connack(connack)) => connack,
        other => panic!("not CONNACK: {other:?}"),
    }
}

/// [MQTT5-3.1.4-5] [MQTT311-3.1.4-4]
#[test]
fn accepts_every_version() {
    for version in VERSIONS {
        let mut pair = opened(version, ServerConfig::default());
        let mut connect = Connect::new(version, "client");
        connect.keep_alive = 60;
        send_connect(&mut pair, connect);
        assert_eq!(connack(&pair).reason_code, ReasonCode::Success);
        assert!(pair.server.is_connected());
        assert_eq!(pair.server.version(), version);
        assert_eq!(pair.server.client_id(), "client");
        assert_eq!(pair.server.keep_alive(), 60);
    }
}

/// [MQTT5-3.2.2-3] [MQTT311-3.2.2-2]: 3.1 has no such flag.
#[test]
fn says_whether_the_session_is_present() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        assert!(!pair.client.session_present);
        pair.cut();
        pair.reconnect();
        pair.run();
        assert_eq!(pair.client.session_present, version != Version::V3_1);
    }
}

/// [MQTT5-3.1.2-21] [MQTT5-3.2.2-21]
#[test]
fn a_longer_keep_alive_than_the_servers_own_is_replaced() {
    for (asked, told) in [(0, Some(60)), (59, None), (60, None), (61, Some(60))] {
        let config = ServerConfig {
            keep_alive_max: NonZeroU16::new(60),
            ..ServerConfig::default()
        };
        let mut pair = opened(Version::V5, config);
        let mut connect = Connect::new(Version::V5, "client");
        connect.keep_alive = asked;
        send_connect(&mut pair, connect);
        assert_eq!(connack(&pair).properties.server_keep_alive, told);
        assert_eq!(pair.server.keep_alive(), told.unwrap_or(asked));
    }
}

/// [MQTT5-3.2.2-16] [MQTT5-3.2.2-21] [MQTT5-3.2.2-22]
#[test]
fn tells_a_5_0_client_what_the_server_offers() {
    let config = ServerConfig {
        receive_maximum: NonZeroU16::new(10).unwrap(),
        maximum_packet_size: NonZeroU32::new(2_000).unwrap(),
        topic_alias_maximum: 3,
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        wildcard_subscription_available: false,
        subscription_ids_available: false,
        shared_subscription_available: false,
        keep_alive_max: NonZeroU16::new(100),
        ..ServerConfig::default()
    };
    let mut pair = opened(Version::V5, config.clone());
    pair.accepts = false;
    let mut connect = Connect::new(Version::V5, "");
    connect.properties.session_expiry_interval = 1_000;
    connect.properties.request_response_information = true;
    send_connect(&mut pair, connect);
    pair.accept(Accept {
        assigned_client_id: Some("assigned"),
        session_expiry_interval: Some(500),
        response_information: Some("responses/"),
        ..Accept::default()
    });
    pair.run();
    let properties = connack(&pair).properties;
    assert_eq!(properties.receive_maximum, NonZeroU16::new(10));
    assert_eq!(properties.maximum_packet_size, NonZeroU32::new(2_000));
    assert_eq!(properties.topic_alias_maximum, 3);
    assert_eq!(properties.maximum_qos, QoS::AtLeastOnce);
    assert!(!properties.retain_available);
    assert!(!properties.wildcard_subscription_available);
    assert!(!properties.subscription_ids_available);
    assert!(!properties.shared_subscription_available);
    assert_eq!(properties.server_keep_alive, Some(100));
    assert_eq!(properties.assigned_client_id, Some("assigned"));
    assert_eq!(properties.session_expiry_interval, Some(500));
    assert_eq!(properties.response_information, Some("responses/"));
    assert_eq!(pair.server.client_id(), "assigned");
    assert_eq!(pair.server.keep_alive(), 100);
    assert_eq!(pair.session().expiry_interval(), 500);

    // 3.x has no way to be told, and is held to what it said.
    let mut pair = opened(Version::V3_1_1, config);
    let mut connect = Connect::new(Version::V3_1_1, "client");
    connect.keep_alive = 200;
    send_connect(&mut pair, connect);
    assert_eq!(pair.server.keep_alive(), 200);
    assert_eq!(pair.client.last, [0x20, 2, 0, 0]);
}

/// [MQTT5-3.2.2-19] [MQTT5-3.2.2-20]
#[test]
fn leaves_out_what_makes_connack_too_large() {
    let mut pair = opened(Version::V5, ServerConfig::default());
    pair.accepts = false;
    pair.client.maximum_packet_size = NonZeroU32::new(30);
    let mut connect = Connect::new(Version::V5, "client");
    connect.properties.maximum_packet_size = NonZeroU32::new(30);
    send_connect(&mut pair, connect);
    assert!(!pair.server.can_accept(&Accept {
        assigned_client_id: Some("an identifier that is longer than the client likes"),
        ..Accept::default()
    }));
    assert!(pair.server.can_accept(&Accept::default()));
    pair.accept(Accept {
        reason_string: Some("a reason that is longer than the client likes"),
        ..Accept::default()
    });
    pair.run();
    assert_eq!(connack(&pair).properties.reason_string, None);
    let reason_string = Some("a farewell that is longer than the client likes");
    pair.server.disconnect(
        ReasonCode::AdministrativeAction,
        Details {
            reason_string,
            ..Details::default()
        },
        pair.now,
    );
    pair.run();
    assert_eq!(pair.client.last, [0xE0, 1, 0x98]);
}

/// Some clients read the Reason Code of DISCONNECT only when more bytes follow.
#[test]
fn a_violation_is_named_to_clients_that_have_room_for_it() {
    for (size, expected) in [
        (100, Some("packet that this side must not receive")),
        (30, None),
    ] {
        let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
            client.maximum_packet_size = NonZeroU32::new(size);
        });
        pair.client.send(&Packet::Pingresp);
        pair.run();
        let Ok(Packet::Disconnect(disconnect)) = Packet::decode(&pair.client.last, Version::V5)
        else {
            panic!("{:?}", pair.client.last);
        };
        assert_eq!(disconnect.reason_code, ReasonCode::ProtocolError);
        assert_eq!(disconnect.reason_string, expected);
    }
}

/// [MQTT311-3.1.3-8] [MQTT311-3.1.3-9]; 5.0 lets the server choose one [MQTT5-3.1.3-6].
#[test]
fn an_empty_client_id_needs_clean_session_in_3_1_1() {
    for (version, clean_start, accepted) in [
        (Version::V3_1, true, false),
        (Version::V3_1_1, true, true),
        (Version::V3_1_1, false, false),
        (Version::V5, false, true),
        (Version::V5, true, true),
    ] {
        let mut pair = opened(version, ServerConfig::default());
        let mut connect = Connect::new(version, "");
        connect.clean_start = clean_start;
        send_connect(&mut pair, connect);
        assert_eq!(pair.connects, usize::from(accepted));
        if !accepted {
            assert_eq!(pair.client.last, [0x20, 2, 0, 2]);
            let error = ConnectionError::Violation(Violation::ClientIdNotValid);
            assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
        }
    }
}

#[test]
fn a_long_client_id_in_3_1_passes_by_setting() {
    for long_client_ids in [false, true] {
        let config = ServerConfig {
            long_client_ids,
            ..ServerConfig::default()
        };
        for (id, accepted) in [("x".repeat(23), true), ("x".repeat(24), long_client_ids)] {
            let mut pair = opened(Version::V3_1, config.clone());
            send_connect(&mut pair, Connect::new(Version::V3_1, &id));
            assert_eq!(pair.server.is_connected(), accepted);
        }
    }
}

/// [MQTT5-3.2.2-12] [MQTT5-3.2.2-13]
#[test]
fn refuses_a_will_that_the_server_does_not_offer() {
    let config = ServerConfig {
        maximum_qos: QoS::AtMostOnce,
        retain_available: false,
        ..ServerConfig::default()
    };
    for (qos, retain, reason) in [
        (QoS::AtLeastOnce, false, 0x9B),
        (QoS::AtMostOnce, true, 0x9A),
        (QoS::AtMostOnce, false, 0),
    ] {
        let mut pair = opened(Version::V5, config.clone());
        let mut connect = Connect::new(Version::V5, "client");
        let will = Will {
            qos,
            retain,
            ..Will::new(topic("will"), b"x")
        };
        connect.will = Some(will);
        send_connect(&mut pair, connect);
        assert_eq!(connack(&pair).reason_code as u8, reason);
        assert_eq!(pair.server.is_closed(), reason != 0);
    }
}

/// [MQTT5-3.1.4-2] [MQTT5-3.2.2-7] [MQTT311-3.2.2-5]
#[test]
fn refuses_with_the_code_of_the_version() {
    for (version, expected) in [(Version::V3_1_1, &[0x20, 2, 0, 5][..]), (Version::V5, &[])] {
        let mut pair = opened(version, ServerConfig::default());
        pair.accepts = false;
        send_connect(&mut pair, Connect::new(version, "client"));
        let reason = ReasonCode::NotAuthorized;
        let details = Details {
            server_reference: Some("other"),
            ..Details::default()
        };
        pair.server.refuse(reason, details, pair.now);
        assert!(!pair.server.is_closed());
        pair.run();
        assert_eq!(pair.closed(), Some(CloseReason::Refused(reason)));
        if version == Version::V5 {
            assert_eq!(connack(&pair).reason_code, reason);
            assert_eq!(connack(&pair).properties.server_reference, Some("other"));
        } else {
            assert_eq!(pair.client.last, expected);
        }
    }
}

/// [MQTT5-3.1.3-8] [MQTT311-3.1.3-9]
#[test]
fn refuses_a_client_identifier() {
    for (version, code) in [(Version::V3_1_1, 0x02), (Version::V5, 0x85)] {
        let mut pair = opened(version, ServerConfig::default());
        pair.accepts = false;
        send_connect(&mut pair, Connect::new(version, "client"));
        let reason = ReasonCode::ClientIdentifierNotValid;
        pair.server.refuse(reason, Details::default(), pair.now);
        pair.run();
        assert_eq!(pair.closed(), Some(CloseReason::Refused(reason)));
        assert_eq!(pair.client.last[2..4], [0, code]);
    }
}

/// [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]
#[test]
fn closes_without_a_word_when_the_first_packet_is_not_connect() {
    for first in [&[0xC0, 0][..], &[0x30, 200], &[0xE0, 0], &[0x00]] {
        let mut pair = opened(Version::V5, ServerConfig::default());
        pair.client.output.extend(first);
        pair.run();
        let error = ConnectionError::Violation(Violation::NotConnect);
        assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
        assert_eq!(pair.client.seen, []);
    }
}

/// [MQTT5-3.1.2-2] [MQTT5-3.1.4-1] [MQTT311-3.1.2-2] [MQTT311-3.1.4-1] [MQTT311-3.2.2-6]
#[test]
fn answers_a_connect_it_cannot_read_as_its_version_says() {
    let answer = |connect: &[u8]| {
        let mut pair = opened(Version::V5, ServerConfig::default());
        let mut bytes = vec![0x10, u8::try_from(connect.len()).unwrap()];
        bytes.extend(connect);
        pair.server.handle_input(&bytes, pair.now);
        let mut out = avocet_session::TransmitBuf::new(100);
        pair.server.poll_transmit(pair.now, &mut out);
        assert!(pair.server.is_closed());
        out.slices().flatten().copied().collect::<Vec<u8>>()
    };
    // A level below 3.1.1's, and one of the future.
    assert_eq!(
        answer(b"\x00\x04MQTT\x02\x02\x00\x00\x00\x00"),
        [0x20, 2, 0, 1]
    );
    assert_eq!(
        answer(b"\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x00"),
        [0x20, 3, 0, 0x84, 0]
    );
    // The reserved flag.
    assert!(answer(b"\x00\x04MQTT\x04\x03\x00\x00\x00\x00").is_empty());
    assert_eq!(
        answer(b"\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00"),
        [0x20, 3, 0, 0x81, 0]
    );
    // No MQTT at all.
    assert!(answer(b"\x00\x04HTTP\x05\x02\x00\x00\x00\x00\x00").is_empty());
}

/// [MQTT5-3.1.0-2] [MQTT5-3.2.0-2] [MQTT311-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.client.connect();
        pair.run();
        let error = ConnectionError::Violation(Violation::SecondConnect);
        assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
        let told: Vec<_> = pair.client.seen.iter().map(|seen| seen.reason).collect();
        assert_eq!(
            told,
            if version == Version::V5 {
                &[0x82][..]
            } else {
                &[]
            }
        );
    }
}

/// [MQTT5-3.1.4-6] [MQTT311-3.1.4-5]: what comes behind CONNECT waits for CONNACK.
#[test]
fn bytes_behind_connect_wait_until_it_is_accepted() {
    let mut pair = opened(Version::V3_1_1, ServerConfig::default());
    pair.accepts = false;
    pair.client.connect();
    let unread = pair.client.output.len();
    pair.client.send(&Packet::Pingreq);
    let input = std::mem::take(&mut pair.client.output);
    let read = pair.server.handle_input(&input, pair.now);
    assert_eq!(read.consumed, unread);
    let read = pair.server.handle_input(&input[unread..], pair.now);
    assert_eq!(
        (read.consumed, read.demand),
        (0, avocet_session::Demand::Paused)
    );
    pair.accept(Accept::default());
    let read = pair.server.handle_input(&input[unread..], pair.now);
    assert_eq!(read.consumed, 2);
}

fn auth(pair: &mut Pair, reason_code: ReasonCode, method: &str, data: &[u8]) {
    let auth = Auth {
        authentication_data: Some(data),
        ..Auth::new(reason_code, method)
    };
    pair.client.send(&Packet::Auth(auth));
    pair.run();
}

fn with_method(pair: &mut Pair, method: &str) {
    let mut connect = Connect::new(Version::V5, "client");
    connect.properties.authentication_method = Some(method);
    send_connect(pair, connect);
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-4] [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
#[test]
fn authenticates_in_steps_and_again() {
    let mut pair = opened(Version::V5, ServerConfig::default());
    pair.accepts = false;
    with_method(&mut pair, "SCRAM");
    assert_eq!(pair.server.authentication_method(), Some("SCRAM"));
    for data in [b"1", b"2"] {
        let step = Authentication {
            data: Some(b"challenge"),
            ..Authentication::default()
        };
        pair.server.authenticate(step).unwrap();
        assert!(pair.server.authenticate(step).is_err());
        pair.run();
        assert_eq!(pair.client.seen.last().unwrap().reason, 0x18);
        auth(&mut pair, ReasonCode::ContinueAuthentication, "SCRAM", data);
    }
    assert_eq!(pair.auths, [b"1", b"2"]);
    pair.accept(Accept {
        authentication_data: Some(b"done"),
        ..Accept::default()
    });
    pair.run();
    let properties = connack(&pair).properties;
    assert_eq!(properties.authentication_method, Some("SCRAM"));
    assert_eq!(properties.authentication_data, Some(&b"done"[..]));

    pair.accepts = true;
    assert!(
        pair.server
            .reauthenticated(Authentication::default())
            .is_err()
    );
    auth(&mut pair, ReasonCode::ReAuthenticate, "SCRAM", b"3");
    pair.server.authenticate(Authentication::default()).unwrap();
    auth(&mut pair, ReasonCode::ContinueAuthentication, "SCRAM", b"4");
    pair.server
        .reauthenticated(Authentication::default())
        .unwrap();
    pair.client.take_seen();
    pair.run();
    assert_eq!(pair.auths.len(), 4);
    assert_eq!(pair.client.take_seen(), [(AuthType, 0)]);
    assert!(pair.server.is_connected());
}

/// [MQTT5-4.12.0-5] [MQTT5-4.12.0-7]
#[test]
fn an_auth_out_of_turn_is_a_protocol_error() {
    let unexpected = ConnectionError::Violation(Violation::UnexpectedAuth);
    for (method, reason_code) in [
        (None, ReasonCode::ReAuthenticate),
        (Some("other"), ReasonCode::ReAuthenticate),
        (Some("SCRAM"), ReasonCode::ContinueAuthentication),
    ] {
        let mut pair = opened(Version::V5, ServerConfig::default());
        match method {
            Some(_) => with_method(&mut pair, "SCRAM"),
            None => send_connect(&mut pair, Connect::new(Version::V5, "client")),
        }
        auth(&mut pair, reason_code, method.unwrap_or("SCRAM"), b"");
        assert_eq!(pair.closed(), Some(CloseReason::PeerError(unexpected)));
        assert_eq!(
            pair.client.take_seen(),
            [(ConnackType, 0), (DisconnectType, 0)]
        );
    }
}

/// [MQTT5-4.12.1-1] A client answers each AUTH of the server once, and cannot ask faster than it is
/// answered.
#[test]
fn an_auth_before_the_servers_answer_is_a_protocol_error() {
    let mut pair = opened(Version::V5, ServerConfig::default());
    with_method(&mut pair, "SCRAM");
    auth(&mut pair, ReasonCode::ReAuthenticate, "SCRAM", b"");
    pair.server.authenticate(Authentication::default()).unwrap();
    auth(&mut pair, ReasonCode::ContinueAuthentication, "SCRAM", b"");
    assert_eq!(pair.closed(), None);
    auth(&mut pair, ReasonCode::ContinueAuthentication, "SCRAM", b"");
    let unexpected = ConnectionError::Violation(Violation::UnexpectedAuth);
    assert_eq!(pair.closed(), Some(CloseReason::PeerError(unexpected)));
}

/// [MQTT5-3.1.2-24]
#[test]
fn a_connack_too_large_for_the_client_leaves_its_session_alone() {
    let mut pair = opened(Version::V5, ServerConfig::default());
    pair.accepts = false;
    let mut connect = Connect::new(Version::V5, "client");
    connect.properties.maximum_packet_size = NonZeroU32::new(4);
    connect.properties.session_expiry_interval = 7;
    send_connect(&mut pair, connect);
    let mut session = Session::new();
    let _ = session.enqueue(qos1("x"), &Limits::default(), pair.now);
    pair.server
        .accept(Box::new(session), Accept::default(), pair.now);
    let refused = CloseReason::Refused(ReasonCode::PacketTooLarge);
    assert_eq!(
        pair.server.poll_event(),
        Some(ConnectionEvent::Closed(refused))
    );
    let session = pair.server.take_session().unwrap();
    assert!(!session.is_connected());
    assert_eq!((session.queued(), session.expiry_interval()), (1, 7));
}

/// [MQTT5-3.1.2-30]
#[test]
fn only_auth_and_disconnect_come_before_connack() {
    let start = || {
        let mut pair = opened(Version::V5, ServerConfig::default());
        pair.accepts = false;
        with_method(&mut pair, "SCRAM");
        pair.server.authenticate(Authentication::default()).unwrap();
        pair.run();
        pair
    };
    let mut pair = start();
    pair.client.send(&Packet::Pingreq);
    pair.run();
    let error = ConnectionError::Violation(Violation::BeforeConnack);
    assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
    assert_eq!(connack(&pair).reason_code, ReasonCode::ProtocolError);

    let mut pair = start();
    pair.client
        .send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    pair.run();
    assert_eq!(
        pair.closed(),
        Some(CloseReason::PeerDisconnected(ReasonCode::Success))
    );
}

/// [MQTT5-3.2.0-1] [MQTT5-3.14.0-1]
#[test]
fn nothing_but_connack_leaves_before_the_client_is_accepted() {
    let mut pair = opened(Version::V5, ServerConfig::default());
    pair.accepts = false;
    pair.client.connect();
    pair.run();
    pair.server
        .disconnect(ReasonCode::ServerShuttingDown, Details::default(), pair.now);
    pair.run();
    assert_eq!(pair.client.seen, []);
    let reason = CloseReason::Disconnected(ReasonCode::ServerShuttingDown);
    assert_eq!(pair.closed(), Some(reason));
}

/// [MQTT5-3.1.4-3] [MQTT311-3.1.4-2]: the Session moves while the last packet leaves.
#[test]
fn takeover_moves_the_session_and_tells_the_old_connection() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.client.answers = false;
        let _ = pair.publish(qos1("x"));
        pair.run();
        assert!(pair.server.take_session().is_none());
        pair.server
            .disconnect(ReasonCode::SessionTakenOver, Details::default(), pair.now);
        let session: Box<Session> = pair.server.take_session().unwrap();
        assert!(pair.server.take_session().is_none());
        assert_eq!(session.in_flight(), 1);
        pair.client.take_seen();
        pair.run();
        let seen = pair.client.take_seen();
        assert_eq!(
            seen,
            if version == Version::V5 {
                vec![(DisconnectType, 0)]
            } else {
                vec![]
            }
        );
        let reason = CloseReason::Disconnected(ReasonCode::SessionTakenOver);
        assert_eq!(pair.closed(), Some(reason));
        pair.client.cut();
        pair.session = Some(session);
        pair.client.answers = true;
        pair.reconnect();
        pair.run();
        assert!(pair.session().is_empty());
    }
}

#[test]
fn a_connect_that_does_not_come_ends_the_connection() {
    let mut pair = opened(Version::V5, ServerConfig::default());
    let timeout = pair.server.poll_timeout().unwrap();
    assert_eq!(timeout.at, pair.now.instant + Duration::from_secs(10));
    pair.client.output.extend([0x10, 20]);
    pair.run();
    pair.advance(10.0);
    assert_eq!(pair.closed(), Some(CloseReason::ConnectTimeout));
    assert_eq!(pair.server.poll_timeout(), None);
}
