//! From CONNECT to CONNACK.

use super::*;

/// [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]
#[test]
fn connect_comes_first_and_alone() {
    for version in VERSIONS {
        let mut script = Script::new(ClientConfig::new(version, "c"));
        script.publish(QoS::AtLeastOnce).unwrap();
        assert_eq!(script.sent(), ["CONNECT"]);
        assert_eq!(script.sent(), [""; 0]);
        script.give(Packet::Connack(Connack::new(ReasonCode::Success)));
        assert_eq!(script.sent(), ["PUBLISH 1"]);
    }
}

#[test]
fn connect_carries_every_setting() {
    let mut config = ClientConfig::new(Version::V5, "me");
    config.clean_start = false;
    config.keep_alive = 17;
    config.user_name = Some("user".into());
    config.password = Some("secret".into());
    config.session_expiry_interval = 99;
    config.receive_maximum = 5;
    config.maximum_packet_size = 1000;
    config.topic_alias_maximum = 3;
    config.request_response_information = true;
    config.request_problem_information = false;
    config.user_properties = vec![("a".into(), "1".into()), ("a".into(), "2".into())];
    config.authentication = Some(Authentication {
        method: "m".into(),
        data: Some("d".into()),
    });
    let will = Message::new(name_of("w"), b"gone")
        .with_qos(QoS::ExactlyOnce)
        .with_retain(true);
    config.will = Some(WillMessage {
        will_delay_interval: 4,
        message_expiry_interval: Some(6),
        ..WillMessage::new(will)
    });
    let mut script = Script::new(config);
    let frames = script.sent_frames();
    let Packet::Connect(connect) = Packet::decode(&frames[0], Version::V5).unwrap() else {
        panic!("not CONNECT");
    };
    let Connect {
        version,
        clean_start,
        keep_alive,
        client_id,
        ..
    } = connect;
    assert_eq!(
        (version, clean_start, keep_alive, client_id),
        (Version::V5, false, 17, "me")
    );
    assert_eq!(connect.user_name, Some("user"));
    assert_eq!(connect.password, Some(&b"secret"[..]));
    let will = connect.will.unwrap();
    assert_eq!(
        (will.topic_name.as_str(), will.payload),
        ("w", &b"gone"[..])
    );
    assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
    assert_eq!(
        (will.will_delay_interval, will.message_expiry_interval),
        (4, Some(6))
    );
    let properties = connect.properties;
    assert_eq!(properties.session_expiry_interval, 99);
    assert_eq!(properties.receive_maximum, NonZeroU16::new(5));
    assert_eq!(properties.maximum_packet_size, NonZeroU32::new(1000));
    assert_eq!(properties.topic_alias_maximum, 3);
    assert!(properties.request_response_information);
    assert!(!properties.request_problem_information);
    let user_properties: Vec<_> = properties
        .user_properties
        .iter()
        .map(|it| (it.name, it.value))
        .collect();
    assert_eq!(user_properties, [("a", "1"), ("a", "2")]);
    assert_eq!(properties.authentication_method, Some("m"));
    assert_eq!(properties.authentication_data, Some(&b"d"[..]));
}

#[test]
fn settings_that_connect_cannot_carry_close_at_once() {
    let config = ClientConfig {
        clean_start: false,
        ..ClientConfig::new(Version::V3_1_1, "")
    };
    let mut script = Script::new(config);
    script.expect_closed(CloseReason::Disconnected(ReasonCode::UnspecifiedError));
}

#[test]
fn a_refusal_is_told_and_closes() {
    for version in VERSIONS {
        let mut script = Script::new(ClientConfig::new(version, "c"));
        script.sent();
        let connack = Connack::new(ReasonCode::NotAuthorized);
        let told = script.give(Packet::Connack(connack));
        assert_eq!(told.as_deref(), Some("refused: not authorized"));
        script.expect_closed(CloseReason::Refused(ReasonCode::NotAuthorized));
    }
}

/// [MQTT5-3.2.2-4]
#[test]
fn leaves_a_server_that_has_a_session_the_client_does_not_know() {
    let connack = Connack {
        session_present: true,
        ..Connack::new(ReasonCode::Success)
    };
    for clean_start in [true, false] {
        let config = ClientConfig {
            clean_start,
            ..ClientConfig::new(Version::V5, "c")
        };
        let mut script = Script::new(config);
        script.sent();
        assert_eq!(script.give(Packet::Connack(connack)), None);
        let error = ConnectionError::Violation(Violation::SessionPresent);
        script.expect_closed(CloseReason::PeerError(error));
    }
    let config = ClientConfig {
        clean_start: false,
        session_known: true,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::new(config);
    script.sent();
    assert_eq!(
        script.give(Packet::Connack(connack)).as_deref(),
        Some("connected")
    );
}

/// [MQTT5-3.2.0-1] [MQTT311-3.2.0-1]
#[test]
fn other_packets_before_connack_are_violations() {
    for version in BOTH {
        for packet in [publish_packet(QoS::AtMostOnce, 0), Packet::Pingresp] {
            let mut script = Script::new(ClientConfig::new(version, "c"));
            script.sent();
            assert_eq!(script.give(packet), None);
            let error = ConnectionError::Violation(Violation::BeforeConnack);
            script.expect_closed(CloseReason::PeerError(error));
        }
    }
}

#[test]
fn connack_is_due_until_the_deadline() {
    let mut script = Script::new(ClientConfig::new(Version::V5, "c"));
    script.sent();
    script.expect_timer(Timer::Connect, 30 * SECOND);
    script.expect_closed(CloseReason::ConnectTimeout);
}

#[test]
fn connack_sets_what_the_server_allows() {
    let properties = ConnackProperties {
        session_expiry_interval: Some(7),
        receive_maximum: NonZeroU16::new(2),
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        maximum_packet_size: NonZeroU32::new(20),
        assigned_client_id: Some("assigned"),
        topic_alias_maximum: 1,
        wildcard_subscription_available: false,
        subscription_ids_available: false,
        shared_subscription_available: false,
        server_keep_alive: Some(5),
        ..ConnackProperties::DEFAULT
    };
    let mut script = Script::connected_with(ClientConfig::new(Version::V5, ""), properties);
    let server = script.client.server().clone();
    assert_eq!(server.assigned_client_id.as_deref(), Some("assigned"));
    assert_eq!(server.session_expiry_interval, 7);
    assert_eq!(
        script.publish(QoS::ExactlyOnce),
        Err(PublishError::QosNotSupported)
    );
    let now = script.now;
    let retained = Message::new(name_of("a"), b"x").with_retain(true);
    let refused = script.client.publish(retained, now);
    assert_eq!(refused, Err(PublishError::RetainNotSupported));
    let large = message("a", "0123456789abcdef", QoS::AtMostOnce);
    let refused = script.client.publish(large, now);
    assert_eq!(
        refused,
        Err(PublishError::PacketTooLarge {
            size: 22,
            maximum: 20
        })
    );
    let subscribe = |script: &mut Script, text, id| {
        script
            .client
            .subscribe(&[filter(text)], SubscriptionId::new(id), &[])
            .map(|_| ())
    };
    let refused = subscribe(&mut script, "a/+", 0);
    assert_eq!(refused, Err(SubscribeError::WildcardNotSupported));
    let refused = subscribe(&mut script, "$share/g/a", 0);
    assert_eq!(refused, Err(SubscribeError::SharedNotSupported));
    let refused = subscribe(&mut script, "a", 1);
    assert_eq!(refused, Err(SubscribeError::SubscriptionIdsNotSupported));
    let refused = subscribe(&mut script, "a/long/filter", 0);
    assert_eq!(
        refused,
        Err(SubscribeError::PacketTooLarge {
            size: 21,
            maximum: 20
        })
    );
    // [MQTT5-4.9.0-2]: two of three leave.
    (0..3).for_each(|_| script.publish(QoS::AtLeastOnce).unwrap());
    assert_eq!(script.sent(), ["PUBLISH 1", "PUBLISH 2"]);
    script.give(Packet::Puback(Ack::new(id(1))));
    assert_eq!(script.sent(), ["PUBLISH 3"]);
    assert_eq!(script.client.into_session().expiry_interval(), 7);
}

/// [MQTT5-3.2.2-11] [MQTT5-3.2.2-14] [MQTT5-3.2.2-15]: what was queued before is judged by CONNACK.
#[test]
fn queued_messages_the_server_does_not_take_fail_alone() {
    let mut script = Script::new(ClientConfig::new(Version::V5, "c"));
    let now = script.now;
    let long = "x".repeat(50);
    for (payload, qos, retain) in [
        ("1", QoS::AtLeastOnce, false),
        ("2", QoS::ExactlyOnce, false),
        ("3", QoS::AtLeastOnce, true),
        (&long, QoS::AtLeastOnce, false),
        ("5", QoS::AtLeastOnce, false),
    ] {
        let message = Message::new(name_of("a"), payload.as_bytes());
        let message = message.with_qos(qos).with_retain(retain);
        script.client.publish(message, now).unwrap().unwrap();
    }
    script.sent();
    let properties = ConnackProperties {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        maximum_packet_size: NonZeroU32::new(50),
        ..ConnackProperties::DEFAULT
    };
    script.give(Packet::Connack(Connack {
        properties,
        ..Connack::new(ReasonCode::Success)
    }));
    assert_eq!(script.sent(), ["PUBLISH 1", "PUBLISH 5"]);
    let mut reasons = Vec::new();
    while let Some(ClientNotice::NotPublished { id, reason }) = script.client.poll_event() {
        assert!(id.is_some());
        reasons.push(reason);
    }
    reasons.sort_by_key(|reason| *reason != NotPublished::NotSupported);
    let too_large = NotPublished::Dropped(DropReason::TooLarge);
    assert_eq!(
        reasons,
        [
            NotPublished::NotSupported,
            NotPublished::NotSupported,
            too_large
        ]
    );
}

/// [MQTT5-3.2.2-5]
#[test]
fn what_was_in_flight_is_lost_with_the_servers_session() {
    let mut script = Script::connected(Version::V5);
    script.publish(QoS::AtLeastOnce).unwrap();
    script.give(publish_packet(QoS::ExactlyOnce, 9));
    script.sent();
    script.client.handle_closed();
    let config = ClientConfig {
        clean_start: false,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::with_session(config, script.client.into_session());
    script.publish(QoS::AtLeastOnce).unwrap();
    script.sent();
    script.give(Packet::Connack(Connack::new(ReasonCode::Success)));
    let notice = script.client.poll_event().unwrap();
    assert!(matches!(
        notice,
        ClientNotice::NotPublished {
            id: Some(_),
            reason: NotPublished::SessionLost
        }
    ));
    // The message that had not been sent is, and the received identifier is free again.
    assert_eq!(script.sent(), ["PUBLISH 2"]);
    assert_eq!(
        script.give(publish_packet(QoS::ExactlyOnce, 9)).as_deref(),
        Some("t=m")
    );
}

/// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]
#[test]
fn enhanced_authentication_goes_back_and_forth() {
    let mut config = ClientConfig::new(Version::V5, "c");
    config.authentication = Some(Authentication {
        method: "m".into(),
        data: None,
    });
    let mut script = Script::new(config);
    script.sent();
    script.now = script.now + 29 * SECOND;
    let auth = Packet::Auth(Auth::new(ReasonCode::ContinueAuthentication, "m"));
    assert_eq!(
        script.give(auth).as_deref(),
        Some("auth: continue authentication")
    );
    assert_eq!(
        script.client.reauthenticate(None),
        Err(ControlError::WrongState)
    );
    script.client.authenticate(Some(b"answer")).unwrap();
    assert_eq!(script.sent(), ["AUTH continue authentication"]);
    // The deadline began anew.
    let timeout = script.client.poll_timeout().unwrap();
    assert_eq!(timeout.at.duration_since(script.now.instant), 30 * SECOND);
    let properties = ConnackProperties {
        authentication_method: Some("m"),
        ..ConnackProperties::DEFAULT
    };
    script.give(Packet::Connack(Connack {
        properties,
        ..Connack::new(ReasonCode::Success)
    }));
    assert!(script.client.is_connected());
    assert_eq!(
        script.client.authenticate(None),
        Err(ControlError::WrongState)
    );
    // And again, while messages go on.
    script.client.reauthenticate(Some(b"token")).unwrap();
    assert_eq!(
        script.client.reauthenticate(None),
        Err(ControlError::WrongState)
    );
    assert_eq!(script.sent(), ["AUTH re-authenticate"]);
    assert_eq!(
        script.give(auth).as_deref(),
        Some("auth: continue authentication")
    );
    assert_eq!(
        script.give(publish_packet(QoS::AtMostOnce, 0)).as_deref(),
        Some("t=m")
    );
    script.client.authenticate(None).unwrap();
    assert_eq!(script.sent(), ["AUTH continue authentication"]);
    let success = Packet::Auth(Auth::new(ReasonCode::Success, "m"));
    assert_eq!(script.give(success).as_deref(), Some("auth: success"));
    assert_eq!(script.give(success), None);
    script.expect_violation(Violation::UnexpectedAuth);
}

/// [MQTT5-4.12.0-5] [MQTT5-4.12.0-6]
#[test]
fn authentication_nobody_asked_for_is_a_violation() {
    let auth = Packet::Auth(Auth::new(ReasonCode::ContinueAuthentication, "m"));
    let mut script = Script::new(ClientConfig::new(Version::V5, "c"));
    script.sent();
    assert_eq!(
        script.client.authenticate(None),
        Err(ControlError::NoAuthenticationMethod)
    );
    script.give(auth);
    let error = ConnectionError::Violation(Violation::UnexpectedAuth);
    script.expect_closed(CloseReason::PeerError(error));
    let mut script = Script::connected(Version::V5);
    script.give(auth);
    script.expect_violation(Violation::UnexpectedAuth);
}
