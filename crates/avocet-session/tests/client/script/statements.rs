//! What the standards demand of a client, where no other story shows it.

use super::*;

/// [MQTT5-3.2.2-18]
#[test]
fn no_alias_goes_to_a_server_that_wants_none() {
    let mut script = Script::connected(Version::V5);
    for _ in 0..4 {
        script.publish(QoS::AtMostOnce).unwrap();
    }
    assert_eq!(script.sent(), ["PUBLISH 0"; 4]);
}

/// [MQTT5-3.3.4-8] [MQTT5-4.9.0-3]
#[test]
fn a_full_window_holds_back_nothing_but_publish() {
    let properties = ConnackProperties {
        receive_maximum: NonZeroU16::new(1),
        ..ConnackProperties::DEFAULT
    };
    let mut script = Script::connected_with(ClientConfig::new(Version::V5, "c"), properties);
    script.publish(QoS::AtLeastOnce).unwrap();
    script.publish(QoS::AtLeastOnce).unwrap();
    assert_eq!(script.sent(), ["PUBLISH 1"]);
    script.give(publish_packet(QoS::AtLeastOnce, 7));
    script.give(publish_packet(QoS::ExactlyOnce, 8));
    assert_eq!(script.sent(), ["PUBACK 7 success", "PUBREC 8 success"]);
    script.give(Packet::Pubrel(Ack::new(id(8))));
    assert_eq!(script.sent(), ["PUBCOMP 8 success"]);
    let filters = [filter("a")];
    script.client.subscribe(&filters, None, &[]).unwrap();
    let topic_filters = filters.map(|filter| filter.topic_filter);
    script.client.unsubscribe(&topic_filters, &[]).unwrap();
    let sent = script.sent();
    assert!(
        sent.iter().any(|it| it.starts_with("SUBSCRIBE")),
        "{sent:?}"
    );
    assert!(
        sent.iter().any(|it| it.starts_with("UNSUBSCRIBE")),
        "{sent:?}"
    );
    script.give(Packet::Puback(Ack::new(id(1))));
    let sent = script.sent();
    assert!(
        matches!(sent.as_slice(), [it] if it.starts_with("PUBLISH")),
        "{sent:?}"
    );
}

/// [MQTT5-3.3.4-1] [MQTT5-4.5.0-2] [MQTT311-3.3.4-1] [MQTT311-4.5.0-2]: also a message of a topic that was never subscribed to.
#[test]
fn every_message_is_acknowledged_as_its_qos_says() {
    for version in VERSIONS {
        let mut script = Script::connected(version);
        script.give(publish_packet(QoS::AtMostOnce, 0));
        script.give(publish_packet(QoS::AtLeastOnce, 3));
        script.give(publish_packet(QoS::ExactlyOnce, 4));
        assert_eq!(script.sent(), ["PUBACK 3 success", "PUBREC 4 success"]);
        script.give(Packet::Pubrel(Ack::new(id(4))));
        assert_eq!(script.sent(), ["PUBCOMP 4 success"]);
    }
}

/// [MQTT311-2.3.1-3] [MQTT5-4.4.0-1]
#[test]
fn what_is_sent_again_keeps_its_identifier() {
    for version in BOTH {
        let mut config = ClientConfig::new(version, "c");
        config.clean_start = false;
        let mut script = Script::new(config.clone());
        script.sent();
        script.give(Packet::Connack(Connack::new(ReasonCode::Success)));
        assert!(
            script.client.is_connected(),
            "{:?}",
            script.client.poll_event()
        );
        script.publish(QoS::AtLeastOnce).unwrap();
        script.publish(QoS::ExactlyOnce).unwrap();
        script.publish(QoS::ExactlyOnce).unwrap();
        assert_eq!(script.sent(), ["PUBLISH 1", "PUBLISH 2", "PUBLISH 3"]);
        script.give(Packet::Pubrec(Ack::new(id(2))));
        assert_eq!(script.sent(), ["PUBREL 2 success"]);
        script.client.handle_closed();
        let mut script = Script::with_session(config, script.client.into_session());
        script.sent();
        script.give(Packet::Connack(Connack {
            session_present: true,
            ..Connack::new(ReasonCode::Success)
        }));
        let mut sent = script.sent();
        sent.sort();
        let again = ["PUBLISH 1 dup", "PUBLISH 3 dup", "PUBREL 2 success"];
        assert_eq!(sent, again);
    }
}

/// [MQTT5-3.3.2-5] [MQTT5-4.3.3-7] [MQTT5-4.3.3-13]: not even while there is no connection.
#[test]
fn a_message_does_not_expire_once_it_was_sent() {
    let mut config = ClientConfig::new(Version::V5, "c");
    config.clean_start = false;
    let mut script = Script::new(config.clone());
    script.sent();
    script.give(Packet::Connack(Connack::new(ReasonCode::Success)));
    for pubrec in [true, false] {
        let message = Message::new(name_of("a"), b"x").with_qos(QoS::ExactlyOnce);
        let message = message.with_expiry(Some(1), script.now.unix);
        script.client.publish(message, script.now).unwrap();
        let sent = script.sent();
        assert_eq!(sent.len(), 1);
        if pubrec {
            script.give(Packet::Pubrec(Ack::new(id(1))));
            assert_eq!(script.sent(), ["PUBREL 1 success"]);
        }
    }
    script.client.handle_closed();
    let now = script.now + 10 * SECOND;
    let mut script = Script::with_session(config, script.client.into_session());
    script.now = now;
    script.sent();
    script.give(Packet::Connack(Connack {
        session_present: true,
        ..Connack::new(ReasonCode::Success)
    }));
    let mut sent = script.sent();
    sent.sort();
    assert_eq!(sent, ["PUBLISH 2 dup", "PUBREL 1 success"]);
    script.give(Packet::Pubrec(Ack::new(id(2))));
    assert_eq!(script.sent(), ["PUBREL 2 success"]);
}

/// [MQTT311-3.1.2-6] What a connection with Clean Session left unfinished is not for a later
/// session, which the server may have from before.
#[test]
fn a_clean_session_leaves_nothing_for_another_session() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let mut script = Script::connected(version);
        script.publish(QoS::ExactlyOnce).unwrap();
        script.publish(QoS::ExactlyOnce).unwrap();
        script.sent();
        script.give(Packet::Pubrec(Ack::new(id(1))));
        script.give(publish_packet(QoS::ExactlyOnce, 9));
        script.sent();
        script.client.handle_closed();
        let mut config = ClientConfig::new(version, "c");
        config.clean_start = false;
        // One attempt that gets no answer changes nothing.
        let mut script = Script::with_session(config.clone(), script.client.into_session());
        script.client.handle_closed();
        let mut script = Script::with_session(config, script.client.into_session());
        script.publish(QoS::ExactlyOnce).unwrap();
        script.sent();
        script.give(Packet::Connack(Connack {
            session_present: version != Version::V3_1,
            ..Connack::new(ReasonCode::Success)
        }));
        assert_eq!(script.sent(), ["PUBLISH 3"], "{version}");
        let lost = std::iter::from_fn(|| script.client.poll_event());
        let lost = lost.filter(|notice| {
            let reason = NotPublished::SessionLost;
            matches!(notice, ClientNotice::NotPublished { reason: found, .. } if *found == reason)
        });
        assert_eq!(lost.count(), 2);
        let message = script.give(publish_packet(QoS::ExactlyOnce, 9));
        assert_eq!(message.as_deref(), Some("t=m"));
    }
}
