//! Messages, acknowledgements, subscriptions, timers and the end.

use super::*;

/// [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT5-4.3.3-4] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
#[test]
fn the_end_of_a_message_is_told_with_its_packet() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        script.publish(QoS::AtLeastOnce).unwrap();
        script.publish(QoS::ExactlyOnce).unwrap();
        script.publish(QoS::AtMostOnce).unwrap();
        assert_eq!(script.sent(), ["PUBLISH 1", "PUBLISH 2", "PUBLISH 0"]);
        let puback = Packet::Puback(Ack::new(id(1)));
        assert_eq!(script.give(puback).as_deref(), Some("published: success"));
        assert_eq!(script.give(Packet::Pubrec(Ack::new(id(2)))), None);
        assert_eq!(script.sent(), ["PUBREL 2 success"]);
        let pubcomp = Packet::Pubcomp(Ack::new(id(2)));
        assert_eq!(script.give(pubcomp).as_deref(), Some("published: success"));
        assert!(script.client.session().is_empty());
        // Again, as after a resend: nobody is told.
        assert_eq!(script.give(puback), None);
        assert_eq!(script.give(pubcomp), None);
        assert!(script.client.is_connected());
    }
}

/// [MQTT5-4.4.0-2]
#[test]
fn a_refused_message_is_told_with_the_reason() {
    let mut script = Script::connected(Version::V5);
    script.publish(QoS::AtLeastOnce).unwrap();
    script.publish(QoS::ExactlyOnce).unwrap();
    script.sent();
    let refusal = |packet_id| Ack::with_reason(id(packet_id), ReasonCode::NotAuthorized);
    let told = script.give(Packet::Puback(refusal(1)));
    assert_eq!(told.as_deref(), Some("published: not authorized"));
    let told = script.give(Packet::Pubrec(refusal(2)));
    assert_eq!(told.as_deref(), Some("published: not authorized"));
    assert_eq!(script.sent(), [""; 0]);
    assert!(script.client.session().is_empty());
}

/// [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT311-4.6.0-2] [MQTT311-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_their_messages() {
    let mut script = Script::connected(Version::V5);
    let mut tokens = Vec::new();
    for packet_id in 1..=3 {
        let mut bytes = Vec::new();
        let packet = publish_packet(QoS::AtLeastOnce, packet_id);
        packet.encode(Version::V5, &mut bytes).unwrap();
        let Some(ClientEvent::Publish {
            token: Some(token), ..
        }) = script.client.handle_input(&bytes, script.now).event
        else {
            panic!("no message");
        };
        tokens.push(token);
    }
    script
        .client
        .acknowledge(tokens[2], ReasonCode::Success)
        .unwrap();
    script
        .client
        .acknowledge(tokens[1], ReasonCode::QuotaExceeded)
        .unwrap();
    assert_eq!(script.sent(), [""; 0]);
    script
        .client
        .acknowledge(tokens[0], ReasonCode::Success)
        .unwrap();
    assert_eq!(
        script.sent(),
        [
            "PUBACK 1 success",
            "PUBACK 2 quota exceeded",
            "PUBACK 3 success"
        ]
    );
    let again = script.client.acknowledge(tokens[0], ReasonCode::Success);
    assert_eq!(again, Err(AckError::Repeated));
}

#[test]
fn a_token_is_bound_to_its_connection() {
    let mut script = Script::connected(Version::V5);
    let mut bytes = Vec::new();
    publish_packet(QoS::AtLeastOnce, 1)
        .encode(Version::V5, &mut bytes)
        .unwrap();
    let Some(ClientEvent::Publish {
        token: Some(token), ..
    }) = script.client.handle_input(&bytes, script.now).event
    else {
        panic!("no message");
    };
    script.client.handle_closed();
    assert_eq!(
        script.client.acknowledge(token, ReasonCode::Success),
        Err(AckError::Stale)
    );
    let config = ClientConfig {
        clean_start: false,
        session_known: true,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::with_session(config, script.client.into_session());
    assert_eq!(
        script.client.acknowledge(token, ReasonCode::Success),
        Err(AckError::Stale)
    );
    script.sent();
    let connack = Connack {
        session_present: true,
        ..Connack::new(ReasonCode::Success)
    };
    script.give(Packet::Connack(connack));
    assert_eq!(
        script.client.acknowledge(token, ReasonCode::Success),
        Err(AckError::Stale)
    );
    assert_eq!(script.sent(), [""; 0]);
}

/// [MQTT5-4.3.3-9]
#[test]
fn a_message_refused_between_two_connections_is_new_when_it_comes_again() {
    let mut script = Script::connected(Version::V5);
    let mut bytes = Vec::new();
    publish_packet(QoS::ExactlyOnce, 1)
        .encode(Version::V5, &mut bytes)
        .unwrap();
    let Some(ClientEvent::Publish {
        token: Some(token), ..
    }) = script.client.handle_input(&bytes, script.now).event
    else {
        panic!("no message");
    };
    script.client.handle_closed();
    let refused = script.client.acknowledge(token, ReasonCode::NotAuthorized);
    assert_eq!(refused, Err(AckError::Stale));
    let config = ClientConfig {
        clean_start: false,
        session_known: true,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::with_session(config, script.client.into_session());
    script.sent();
    script.give(Packet::Connack(Connack {
        session_present: true,
        ..Connack::new(ReasonCode::Success)
    }));
    let event = script.client.handle_input(&bytes, script.now).event;
    assert!(matches!(
        event,
        Some(ClientEvent::Publish { token: Some(_), .. })
    ));
    assert_eq!(script.sent(), [""; 0]);
}

/// [MQTT5-3.2.2-17] [MQTT5-3.3.2-9] [MQTT5-3.3.2-10] [MQTT5-3.3.2-11]
#[test]
fn topic_aliases_stand_for_names_both_ways() {
    let config = ClientConfig {
        topic_alias_maximum: 1,
        ..ClientConfig::new(Version::V5, "c")
    };
    let properties = ConnackProperties {
        topic_alias_maximum: 1,
        ..ConnackProperties::DEFAULT
    };
    let mut script = Script::connected_with(config, properties);
    let aliased = |name: Option<&'static str>, alias| {
        let publish = Publish::new(name_of("unused"), Delivery::AtMostOnce, b"m");
        let topic_alias = NonZeroU16::new(alias);
        Packet::Publish(Publish {
            topic_name: name.map(name_of),
            topic_alias,
            ..publish
        })
    };
    assert_eq!(
        script.give(aliased(Some("long/name"), 1)).as_deref(),
        Some("long/name=m")
    );
    assert_eq!(
        script.give(aliased(None, 1)).as_deref(),
        Some("long/name=m")
    );
    assert_eq!(
        script.give(aliased(Some("other"), 1)).as_deref(),
        Some("other=m")
    );
    assert_eq!(script.give(aliased(None, 1)).as_deref(), Some("other=m"));
    let now = script.now;
    for _ in 0..4 {
        script
            .client
            .publish(message("some/topic", "x", QoS::AtMostOnce), now)
            .unwrap();
    }
    let sent = script.sent();
    assert_eq!(sent.first().map(String::as_str), Some("PUBLISH 0"));
    assert_eq!(sent.last().map(String::as_str), Some("PUBLISH 0 alias 1"));
    assert_eq!(script.give(aliased(Some("third"), 2)), None);
    script.expect_violation(Violation::TopicAliasInvalid);
}

/// [MQTT5-3.3.4-9]
#[test]
fn more_messages_than_receive_maximum_are_a_violation() {
    let config = ClientConfig {
        receive_maximum: 2,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::connected_with(config, ConnackProperties::DEFAULT);
    // Acknowledged as they come, but the acknowledgements have not left.
    assert!(script.give(publish_packet(QoS::AtLeastOnce, 1)).is_some());
    assert!(script.give(publish_packet(QoS::ExactlyOnce, 2)).is_some());
    assert_eq!(script.give(publish_packet(QoS::AtLeastOnce, 3)), None);
    script.expect_violation(Violation::ReceiveMaximumExceeded);
}

/// In 3.1.1 nothing stops the server but that the client does not read.
#[test]
fn reading_stops_while_too_many_acknowledgements_wait() {
    let config = ClientConfig {
        receive_maximum: 1,
        ..ClientConfig::new(Version::V3_1_1, "c")
    };
    let mut script = Script::connected_with(config, ConnackProperties::DEFAULT);
    script.give(publish_packet(QoS::AtLeastOnce, 1));
    script.give(publish_packet(QoS::AtLeastOnce, 2));
    let mut bytes = Vec::new();
    publish_packet(QoS::AtLeastOnce, 3)
        .encode(Version::V3_1_1, &mut bytes)
        .unwrap();
    let read = script.client.handle_input(&bytes, script.now);
    assert_eq!((read.consumed, read.demand), (0, Demand::Paused));
    assert_eq!(script.sent(), ["PUBACK 1 success", "PUBACK 2 success"]);
    assert_eq!(script.give_bytes(&bytes).as_deref(), Some("t=m"));
}

/// [MQTT5-2.2.1-3] [MQTT5-2.2.1-6] [MQTT311-2.3.1-2] [MQTT311-2.3.1-7]
#[test]
fn requests_are_told_from_one_another_by_their_ids() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        script.publish(QoS::AtLeastOnce).unwrap();
        let first = script
            .client
            .subscribe(&[filter("a/#")], None, &[])
            .unwrap();
        let second = script
            .client
            .subscribe(&[filter("b"), filter("c")], None, &[])
            .unwrap();
        let third = script
            .client
            .unsubscribe(&[filter("a/#").topic_filter], &[])
            .unwrap();
        assert!(first != second && second != third);
        let sent = script.sent();
        assert_eq!(sent.len(), 4, "{sent:?}");
        let number = |index: usize| id(sent[index].split(' ').nth(1).unwrap().parse().unwrap());
        let codes = [ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError];
        let told = script.give(Packet::Suback(Suback::new(number(1), &codes)));
        assert_eq!(told.as_deref(), Some("[GrantedQoS1, UnspecifiedError]"));
        assert_eq!(
            script.give(Packet::Suback(Suback::new(number(1), &codes))),
            None
        );
        let told = script.give(Packet::Unsuback(Unsuback::new(
            number(2),
            &[ReasonCode::Success],
        )));
        assert!(told.is_some());
        let granted = [ReasonCode::GRANTED_QOS_0];
        assert!(
            script
                .give(Packet::Suback(Suback::new(number(0), &granted)))
                .is_some()
        );
    }
}

#[test]
fn requests_that_cannot_be_sent_are_refused() {
    let mut script = Script::new(ClientConfig::new(Version::V3_1_1, "c"));
    let early = script.client.subscribe(&[filter("a")], None, &[]);
    assert_eq!(early, Err(SubscribeError::NotConnected));
    let mut script = Script::connected(Version::V3_1_1);
    let empty = script.client.subscribe(&[], None, &[]);
    assert_eq!(empty, Err(SubscribeError::NoTopicFilters));
    assert_eq!(
        script.client.unsubscribe(&[], &[]),
        Err(SubscribeError::NoTopicFilters)
    );
    let with_id = script
        .client
        .subscribe(&[filter("a")], SubscriptionId::new(1), &[]);
    assert_eq!(with_id, Err(SubscribeError::OptionsNotInVersion));
    let mut no_local = filter("a");
    no_local.options.no_local = true;
    let with_option = script.client.subscribe(&[no_local], None, &[]);
    assert_eq!(with_option, Err(SubscribeError::OptionsNotInVersion));
    assert_eq!(script.sent(), [""; 0]);
}

#[test]
fn a_request_has_user_properties_in_5_0_only() {
    let property = [UserProperty {
        name: "a",
        value: "b",
    }];
    let topic_filter = TopicFilter::new("a").unwrap();
    for version in BOTH {
        let mut script = Script::connected(version);
        let subscribed = script.client.subscribe(&[filter("a")], None, &property);
        let unsubscribed = script.client.unsubscribe(&[topic_filter], &property);
        if version == Version::V5 {
            assert!(subscribed.is_ok() && unsubscribed.is_ok());
        } else {
            let refused = Err(SubscribeError::OptionsNotInVersion);
            assert_eq!((subscribed, unsubscribed), (refused, refused));
            script.client.unsubscribe(&[topic_filter], &[]).unwrap();
        }
    }
}

#[test]
fn properties_and_expiry_need_5_0() {
    let now = start();
    let properties = MessageProperties::new(MessagePropertiesParts {
        content_type: Some("text/plain"),
        ..MessagePropertiesParts::default()
    });
    let with_property = Message::with_properties(name_of("a"), &properties, b"x").unwrap();
    let with_expiry = Message::new(name_of("a"), b"x").with_expiry(Some(9), now.unix);
    for message in [with_property, with_expiry] {
        let mut script = Script::connected(Version::V3_1_1);
        let refused = script.client.publish(message.clone(), now);
        assert_eq!(refused, Err(PublishError::PropertiesNotInVersion));
        let mut script = Script::connected(Version::V5);
        assert_eq!(script.client.publish(message, now), Ok(None));
    }
}

/// [MQTT5-3.1.2-20] [MQTT311-3.1.2-23]
#[test]
fn pings_when_nothing_was_sent_for_keep_alive() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        script.now = script.now + 30 * SECOND;
        script.publish(QoS::AtMostOnce).unwrap();
        script.sent();
        script.give(publish_packet(QoS::AtMostOnce, 0));
        script.expect_timer(Timer::KeepAlive, 60 * SECOND);
        assert_eq!(script.sent(), ["PINGREQ"]);
        script.give(Packet::Pingresp);
        script.expect_timer(Timer::KeepAlive, 60 * SECOND);
        assert_eq!(script.sent(), ["PINGREQ"]);
        script.expect_timer(Timer::Pingresp, 20 * SECOND);
        let last = script.sent();
        let expected: &[&str] = if version == Version::V5 {
            &["DISCONNECT unspecified error"]
        } else {
            &[]
        };
        assert_eq!(last, expected);
        script.expect_closed(CloseReason::KeepAliveTimeout);
    }
}

#[test]
fn pings_when_nothing_came_for_keep_alive_though_something_was_sent() {
    let mut script = Script::connected(Version::V5);
    for _ in 0..5 {
        script.now = script.now + 10 * SECOND;
        script.publish(QoS::AtMostOnce).unwrap();
        script.sent();
    }
    script.expect_timer(Timer::KeepAlive, 10 * SECOND);
    assert_eq!(script.sent(), ["PINGREQ"]);
}

/// [MQTT5-3.1.2-21] [MQTT5-3.2.2-21]
#[test]
fn server_keep_alive_replaces_the_clients() {
    let properties = ConnackProperties {
        server_keep_alive: Some(7),
        ..ConnackProperties::DEFAULT
    };
    let config = ClientConfig {
        keep_alive: 0,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::connected_with(config, properties);
    script.expect_timer(Timer::KeepAlive, 7 * SECOND);
    assert_eq!(script.sent(), ["PINGREQ"]);
}

#[test]
fn keep_alive_0_turns_pings_off() {
    let config = ClientConfig {
        keep_alive: 0,
        ..ClientConfig::new(Version::V5, "c")
    };
    let script = Script::connected_with(config, ConnackProperties::DEFAULT);
    assert_eq!(script.client.poll_timeout(), None);
}

/// A slow application must not lose its connection, and must keep it alive.
#[test]
fn while_paused_pings_go_on_and_their_answer_is_not_missed() {
    let mut script = Script::connected(Version::V5);
    script.client.pause();
    for _ in 0..3 {
        script.expect_timer(Timer::KeepAlive, 60 * SECOND);
        assert_eq!(script.sent(), ["PINGREQ"]);
    }
    let read = script.client.handle_input(&[0xD0, 0], script.now);
    assert_eq!((read.consumed, read.demand), (0, Demand::Paused));
    script.client.resume(script.now);
    let timeout = script.client.poll_timeout().unwrap();
    assert_eq!(timeout.timer, Timer::Pingresp);
    assert_eq!(timeout.at.duration_since(script.now.instant), 20 * SECOND);
    script.give(Packet::Pingresp);
    script.expect_timer(Timer::KeepAlive, 60 * SECOND);
}

/// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT311-3.14.4-1] [MQTT311-3.14.4-2]
#[test]
fn disconnect_leaves_last_behind_acknowledgements_and_requests() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        script.give(publish_packet(QoS::AtLeastOnce, 4));
        script.client.subscribe(&[filter("a")], None, &[]).unwrap();
        let now = script.now;
        script
            .client
            .disconnect(&Disconnect::new(ReasonCode::NORMAL_DISCONNECTION), now)
            .unwrap();
        assert_eq!(script.publish(QoS::AtMostOnce), Err(PublishError::Closed));
        let again = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        assert_eq!(
            script.client.disconnect(&again, now),
            Err(ControlError::WrongState)
        );
        let sent = script.sent();
        assert_eq!(
            sent[1..],
            ["PUBACK 4 success", "DISCONNECT success"],
            "{version}"
        );
        script.expect_closed(CloseReason::Disconnected(ReasonCode::NORMAL_DISCONNECTION));
        assert_eq!(script.give(publish_packet(QoS::AtMostOnce, 0)), None);
    }
}

/// [MQTT5-3.1.2-23]: a Session Expiry Interval of 0 cannot become another one.
#[test]
fn disconnect_may_change_the_session_expiry_interval_unless_it_was_0() {
    let disconnect = Disconnect {
        session_expiry_interval: Some(5),
        ..Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)
    };
    let mut script = Script::connected(Version::V5);
    let refused = script.client.disconnect(&disconnect, script.now);
    assert_eq!(refused, Err(ControlError::SessionExpiryInterval));
    let config = ClientConfig {
        session_expiry_interval: 100,
        ..ClientConfig::new(Version::V5, "c")
    };
    let mut script = Script::connected_with(config, ConnackProperties::DEFAULT);
    script.client.disconnect(&disconnect, script.now).unwrap();
    script.sent();
    assert_eq!(script.client.into_session().expiry_interval(), 5);
}

#[test]
fn a_disconnect_that_cannot_leave_ends_at_the_deadline() {
    let mut script = Script::connected(Version::V5);
    let disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    script.client.disconnect(&disconnect, script.now).unwrap();
    script.expect_timer(Timer::Drain, 5 * SECOND);
    script.expect_closed(CloseReason::Disconnected(ReasonCode::NORMAL_DISCONNECTION));
}

#[test]
fn the_servers_disconnect_is_told_with_its_reason() {
    let mut script = Script::connected(Version::V5);
    let disconnect = Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver));
    assert_eq!(
        script.give(disconnect).as_deref(),
        Some("disconnected: session taken over")
    );
    script.expect_closed(CloseReason::PeerDisconnected(ReasonCode::SessionTakenOver));
}

#[test]
fn the_end_of_the_stream_is_a_lost_connection() {
    let mut script = Script::connected(Version::V5);
    script.publish(QoS::AtLeastOnce).unwrap();
    script.client.handle_closed();
    script.expect_closed(CloseReason::ConnectionLost);
    assert_eq!(script.client.into_session().queued(), 1);
}

/// [MQTT5-3.3.2-5]
#[test]
fn an_expired_message_is_not_sent_and_told() {
    let mut script = Script::connected_with(
        ClientConfig::new(Version::V5, "c"),
        ConnackProperties {
            receive_maximum: NonZeroU16::new(1),
            ..ConnackProperties::DEFAULT
        },
    );
    script.publish(QoS::AtLeastOnce).unwrap();
    let expiring = Message::new(name_of("a"), b"x").with_qos(QoS::AtLeastOnce);
    let expiring = expiring.with_expiry(Some(1), script.now.unix);
    let id_of_expiring = script.client.publish(expiring.clone(), script.now).unwrap();
    assert_eq!(script.sent(), ["PUBLISH 1"]);
    script.now = script.now + 2 * SECOND;
    assert_eq!(
        script.client.publish(expiring, script.now),
        Err(PublishError::Expired)
    );
    script.give(Packet::Puback(Ack::new(id(1))));
    assert_eq!(script.sent(), [""; 0]);
    let reason = NotPublished::Dropped(DropReason::Expired);
    let expected = ClientNotice::NotPublished {
        id: id_of_expiring,
        reason,
    };
    assert_eq!(script.client.poll_event(), Some(expected));
}

#[test]
fn a_full_queue_refuses_or_displaces() {
    let mut config = ClientConfig::new(Version::V5, "c");
    config.limits.queued_messages_max = 1;
    let mut script = Script::connected_with(config.clone(), ConnackProperties::DEFAULT);
    script.publish(QoS::AtLeastOnce).unwrap();
    assert_eq!(
        script.publish(QoS::AtLeastOnce),
        Err(PublishError::QueueFull)
    );
    config.limits.overflow = avocet_session::Overflow::DropOldest;
    let mut script = Script::connected_with(config, ConnackProperties::DEFAULT);
    let oldest = script
        .client
        .publish(message("a", "x", QoS::AtLeastOnce), script.now)
        .unwrap();
    script.publish(QoS::AtLeastOnce).unwrap();
    let reason = NotPublished::Dropped(DropReason::QueueFull);
    let expected = ClientNotice::NotPublished { id: oldest, reason };
    assert_eq!(script.client.poll_event(), Some(expected));
}

/// Before they leave the store learns that they may have; from then on they are sent again.
#[test]
fn messages_of_qos_1_that_waited_for_a_connection_leave_once_that_is_stored() {
    let mut session = Session::new();
    let config = ClientConfig::new(Version::V5, "c");
    let waiting = message("a", "1", QoS::AtLeastOnce);
    let stored = Some(CommitId::new(1));
    assert!(!session.leaves_when_stored(QoS::AtLeastOnce));
    let id = session.publish(waiting, &config, stored, start(), &mut Vec::new());
    session.handle_committed(CommitId::new(1));
    let mut script = Script::with_session(config, session);
    script.sent();
    script.give(Packet::Connack(Connack::new(ReasonCode::Success)));
    assert_eq!(script.sent(), [""; 0]);
    let session = script.client.session_mut();
    assert!(session.leaves_when_stored(QoS::AtLeastOnce));
    assert!(!session.leaves_when_stored(QoS::ExactlyOnce));
    let next: Vec<_> = session.next_to_leave().collect();
    assert_eq!(next, [id.unwrap().unwrap()]);
    session.name_gates(CommitId::new(2));
    assert_eq!(script.sent(), [""; 0]);
    let session = script.client.session_mut();
    session.handle_committed(CommitId::new(2));
    assert_eq!(script.sent(), ["PUBLISH 1"]);
    // One that is published on the connection leaves as soon as it is stored itself.
    let message = message("a", "2", QoS::AtLeastOnce);
    let stored = Some(CommitId::new(3));
    let published = script.client.publish_stored(message, stored, script.now);
    published.unwrap();
    assert_eq!(script.sent(), [""; 0]);
    let session = script.client.session_mut();
    session.handle_committed(CommitId::new(3));
    assert_eq!(script.sent(), ["PUBLISH 2"]);
}
