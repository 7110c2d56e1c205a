//! What each packet of a client is answered with.

use avocet_codec::PacketType::{Puback, Pubcomp, Publish, Pubrec, Suback, Unsuback};
use avocet_codec::{
    Ack, AckType, Auth, Connect, Delivery, Packet, PacketId, QoS, ReasonCode, Subscribe,
    SubscribeFilter, SubscriptionOptions, Unsubscribe, Version,
};
use avocet_session::{
    Accept, AckError, Authentication, CloseReason, Details, Message, Outgoing, ServerConfig,
    TransmitBuf,
};
use avocet_topic::TopicFilter;
use std::num::NonZeroU32;

use crate::support::{Pair, qos0, qos2, topic};

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

#[test]
fn only_what_is_answered_leads_to_output() {
    for (qos, answered) in [
        (QoS::AtMostOnce, false),
        (QoS::AtLeastOnce, true),
        (QoS::ExactlyOnce, true),
    ] {
        let mut pair = Pair::connected(Version::V5);
        assert!(!pair.server.has_output());
        pair.client.publish(qos, "1");
        pair.step_to_server(usize::MAX);
        assert_eq!(pair.server.has_output(), answered, "{qos:?}");
        pair.run();
        assert!(!pair.server.has_output());
    }
}

fn subscribe(pair: &mut Pair, packet_id: u16, filters: usize) {
    let filter = SubscribeFilter {
        topic_filter: TopicFilter::new("a/b").unwrap(),
        options: SubscriptionOptions::default(),
    };
    let filters = vec![filter; filters];
    pair.client
        .send(&Packet::Subscribe(Subscribe::new(id(packet_id), &filters)));
}

fn unsubscribe(pair: &mut Pair, packet_id: u16) {
    let filters = [TopicFilter::new("a/b").unwrap()];
    pair.client.send(&Packet::Unsubscribe(Unsubscribe::new(
        id(packet_id),
        &filters,
    )));
}

fn bytes(pair: &mut Pair) -> Vec<u8> {
    let mut out = TransmitBuf::new(usize::MAX);
    pair.server.poll_transmit(pair.now, &mut out);
    out.slices().flatten().copied().collect()
}

/// [MQTT5-3.3.4-1] [MQTT5-2.2.1-5] [MQTT311-3.3.4-1] [MQTT311-2.3.1-6]
#[test]
fn a_publish_is_answered_as_its_qos_says() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let mut pair = Pair::connected(version);
        pair.client.publish(QoS::AtMostOnce, "0");
        pair.client.publish(QoS::AtLeastOnce, "1");
        pair.client.publish(QoS::ExactlyOnce, "2");
        pair.run();
        assert_eq!(
            pair.client.take_seen(),
            [(Puback, 2), (Pubrec, 3), (Pubcomp, 3)]
        );
    }
}

/// [MQTT5-2.2.1-2] [MQTT5-4.3.1-1] [MQTT311-2.3.1-5] [MQTT311-4.3.1-1]
#[test]
fn a_publish_of_qos0_has_no_packet_id_and_no_dup() {
    let mut pair = Pair::connected(Version::V3_1_1);
    let _ = pair.publish(qos0("x"));
    assert_eq!(bytes(&mut pair), b"\x30\x06\x00\x03a/bx");
}

/// [MQTT5-3.3.1-3] [MQTT311-3.3.1-3]
#[test]
fn dup_of_what_came_is_not_passed_on() {
    let mut pair = Pair::connected(Version::V3_1_1);
    let mut publish = avocet_codec::Publish::new(topic("a/b"), Delivery::AtLeastOnce(id(9)), b"x");
    publish.dup = true;
    let message = Message::from_publish(&publish, topic("a/b"), pair.now.unix);
    let _ = pair.publish(Outgoing::new(message));
    pair.client.answers = false;
    pair.run();
    let seen = &pair.client.seen[0];
    assert_eq!(
        (seen.packet_type, seen.packet_id, seen.dup),
        (Publish, 1, false)
    );
}

/// [MQTT5-4.3.2-5] [MQTT5-4.3.3-12]
#[test]
fn a_packet_id_is_a_new_message_once_the_last_is_complete() {
    for (qos, delivery) in [
        (QoS::AtLeastOnce, Delivery::AtLeastOnce(id(1))),
        (QoS::ExactlyOnce, Delivery::ExactlyOnce(id(1))),
    ] {
        let mut pair = Pair::connected(Version::V5);
        pair.client.publish(qos, "first");
        pair.run();
        let mut publish = avocet_codec::Publish::new(topic("a/b"), delivery, b"second");
        publish.dup = true;
        pair.client.send(&Packet::Publish(publish));
        pair.run();
        assert_eq!(pair.received, ["first", "second"]);
    }
}

/// [MQTT5-4.3.3-13]
#[test]
fn an_exchange_goes_on_after_its_message_has_expired() {
    let mut pair = Pair::connected(Version::V5);
    pair.client.answers = false;
    let outgoing = qos2("x");
    let message = outgoing.message.clone().with_expiry(Some(1), pair.now.unix);
    let _ = pair.publish(Outgoing {
        message,
        ..outgoing
    });
    pair.run();
    pair.advance(10.0);
    pair.cut();
    pair.client.answers = true;
    pair.reconnect();
    pair.run();
    assert_eq!(pair.client.received, ["x"]);
    assert!(pair.session().is_empty());
}

/// [MQTT5-2.2.1-6] [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-6] [MQTT5-3.10.4-4]
/// [MQTT5-3.10.4-5] [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-3.10.4-4]
#[test]
fn requests_are_answered_in_their_order() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let mut pair = Pair::connected(version);
        pair.accepts = false;
        subscribe(&mut pair, 7, 2);
        unsubscribe(&mut pair, 8);
        subscribe(&mut pair, 9, 1);
        pair.run();
        let granted = [ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2];
        let success = [ReasonCode::Success];
        let now = pair.now;
        pair.server.suback(id(9), &granted[..1], None, now).unwrap();
        pair.server.unsuback(id(8), &success, None, now).unwrap();
        pair.run();
        assert_eq!(pair.client.take_seen(), []);
        assert_eq!(
            pair.server.suback(id(8), &success, None, now),
            Err(AckError::Unknown)
        );
        pair.server.suback(id(7), &granted, None, now).unwrap();
        pair.run();
        assert_eq!(
            pair.client.take_seen(),
            [(Suback, 7), (Unsuback, 8), (Suback, 9)]
        );
    }
}

/// [MQTT5-3.9.3-1] [MQTT5-3.11.3-1] [MQTT5-3.9.2-1] [MQTT5-3.9.2-2] [MQTT5-3.11.2-1]
/// [MQTT5-3.11.2-2] [MQTT311-3.9.3-1]: codes in order, and no properties.
#[test]
fn an_answer_has_a_code_for_each_filter_in_order() {
    let codes = [
        ReasonCode::GrantedQoS2,
        ReasonCode::NotAuthorized,
        ReasonCode::Success,
    ];
    let expected = [
        (
            Version::V3_1_1,
            &b"\x90\x05\x00\x07\x02\x80\x00\xB0\x02\x00\x08"[..],
        ),
        (
            Version::V5,
            b"\x90\x06\x00\x07\x00\x02\x87\x00\xB0\x04\x00\x08\x00\x11",
        ),
    ];
    for (version, expected) in expected {
        let mut pair = Pair::connected(version);
        pair.accepts = false;
        subscribe(&mut pair, 7, 3);
        unsubscribe(&mut pair, 8);
        pair.run();
        let now = pair.now;
        pair.server.suback(id(7), &codes, None, now).unwrap();
        let existed = [ReasonCode::NoSubscriptionExisted];
        pair.server.unsuback(id(8), &existed, None, now).unwrap();
        assert_eq!(bytes(&mut pair), expected);
    }
}

/// [MQTT5-3.1.2-24]: a client that takes no packet of this size cannot be answered.
#[test]
fn an_answer_too_large_for_the_client_ends_the_connection() {
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.maximum_packet_size = NonZeroU32::new(20);
    });
    subscribe(&mut pair, 1, 50);
    pair.run();
    let reason = CloseReason::Disconnected(ReasonCode::PacketTooLarge);
    assert_eq!(pair.closed(), Some(reason));
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.8.4-7] [MQTT5-3.9.3-2] [MQTT5-3.11.3-2]
#[test]
fn codes_that_an_answer_cannot_carry_are_the_owners_error() {
    let mut pair = Pair::connected(Version::V5);
    pair.acknowledges = false;
    pair.accepts = false;
    pair.client.publish(QoS::AtLeastOnce, "x");
    pair.client.publish(QoS::ExactlyOnce, "y");
    subscribe(&mut pair, 7, 1);
    unsubscribe(&mut pair, 8);
    pair.run();
    let wrong = ReasonCode::SessionTakenOver;
    for token in pair.tokens.clone() {
        assert_eq!(
            pair.server.acknowledge(token, wrong, None),
            Err(AckError::ReasonCode)
        );
        pair.server
            .acknowledge(token, ReasonCode::QuotaExceeded, None)
            .unwrap();
    }
    let now = pair.now;
    assert_eq!(
        pair.server.suback(id(7), &[wrong], None, now),
        Err(AckError::ReasonCode)
    );
    assert_eq!(
        pair.server.unsuback(id(8), &[wrong], None, now),
        Err(AckError::ReasonCode)
    );
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Puback, 1), (Pubrec, 2)]);
}

/// [MQTT5-3.4.2-2] [MQTT5-3.4.2-3] [MQTT5-3.5.2-2] [MQTT5-3.5.2-3] [MQTT5-3.6.2-1]
/// [MQTT5-3.6.2-2] [MQTT5-3.6.2-3] [MQTT5-3.7.2-1] [MQTT5-3.7.2-2] [MQTT5-3.7.2-3]
#[test]
fn acknowledgements_have_a_code_and_no_properties() {
    let mut pair = Pair::connected(Version::V5);
    pair.acknowledges = false;
    pair.client.publish(QoS::AtLeastOnce, "x");
    pair.client.publish(QoS::ExactlyOnce, "y");
    for (ack_type, packet_id) in [(AckType::Pubrel, 8), (AckType::Pubrec, 9)] {
        pair.client.ack(ack_type, packet_id, ReasonCode::Success);
    }
    pair.step_to_server(usize::MAX);
    for token in pair.tokens.clone() {
        pair.server
            .acknowledge(token, ReasonCode::NotAuthorized, None)
            .unwrap();
    }
    let expected = [
        [0x40, 3, 0, 1, 0x87],
        [0x50, 3, 0, 2, 0x87],
        [0x70, 3, 0, 8, 0x92],
        [0x62, 3, 0, 9, 0x92],
    ];
    assert_eq!(bytes(&mut pair), expected.concat());
}

/// [MQTT5-3.14.2-1] [MQTT5-3.2.2-8]
#[test]
fn codes_that_the_last_packet_cannot_carry_become_unspecified() {
    let mut pair = Pair::connected(Version::V5);
    pair.server.disconnect(
        ReasonCode::NoSubscriptionExisted,
        Details::default(),
        pair.now,
    );
    pair.run();
    assert_eq!(pair.client.last, [0xE0, 1, 0x80]);

    for reason in [ReasonCode::SessionTakenOver, ReasonCode::Success] {
        let mut pair = Pair::new(Version::V5, ServerConfig::default());
        pair.accepts = false;
        pair.client.connect();
        pair.run();
        pair.server.refuse(reason, Details::default(), pair.now);
        assert_eq!(bytes(&mut pair), [0x20, 3, 0, 0x80, 0]);
    }
}

/// [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]
#[test]
fn the_server_to_use_is_told_even_if_the_reason_is_too_long() {
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.maximum_packet_size = NonZeroU32::new(20);
    });
    let details = Details {
        reason_string: Some("a reason of many words"),
        server_reference: Some("other"),
    };
    pair.server
        .disconnect(ReasonCode::UseAnotherServer, details, pair.now);
    assert_eq!(bytes(&mut pair), b"\xE0\x0A\x9C\x08\x1C\x00\x05other");
}

/// [MQTT5-3.1.2-28]
#[test]
fn response_information_goes_to_clients_that_asked_for_it() {
    let mut pair = Pair::new(Version::V5, ServerConfig::default());
    pair.accepts = false;
    pair.client.connect();
    pair.run();
    pair.accept(Accept {
        response_information: Some("x"),
        ..Accept::default()
    });
    pair.run();
    let Ok(Packet::Connack(connack)) = Packet::decode(&pair.client.last, Version::V5) else {
        panic!("no CONNACK");
    };
    assert_eq!(connack.properties.response_information, None);
}

fn authenticating(problem_information: bool, maximum_packet_size: u32) -> Pair {
    let mut pair = Pair::new(Version::V5, ServerConfig::default());
    pair.accepts = false;
    let mut connect = Connect::new(Version::V5, "client");
    connect.properties.request_problem_information = problem_information;
    connect.properties.maximum_packet_size = NonZeroU32::new(maximum_packet_size);
    connect.properties.authentication_method = Some("m");
    pair.client.send(&Packet::Connect(connect));
    pair.run();
    pair
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-29] [MQTT5-3.15.2-2] [MQTT5-3.15.2-3]
#[test]
fn a_reason_in_auth_goes_to_clients_that_want_it_and_have_room() {
    // A packet of just the Maximum Packet Size is not too large.
    let size = 33;
    for (wanted, maximum, expected) in [
        (true, size, true),
        (true, size - 1, false),
        (false, 100, false),
        (true, 20, false),
    ] {
        let mut pair = authenticating(wanted, maximum);
        assert_eq!(pair.server.request_problem_information(), wanted);
        let reason_string = Some("a reason of many words");
        pair.server
            .authenticate(Authentication {
                reason_string,
                data: None,
            })
            .unwrap();
        let bytes = bytes(&mut pair);
        let Ok(Packet::Auth(auth)) = Packet::decode(&bytes, Version::V5) else {
            panic!("no AUTH");
        };
        assert_eq!(auth.reason_string, reason_string.filter(|_| expected));
    }
}

/// [MQTT5-4.12.1-2]
#[test]
fn a_failed_reauthentication_ends_the_connection() {
    let mut pair = authenticating(true, 100);
    pair.accept(Accept::default());
    pair.run();
    pair.client
        .send(&Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, "m")));
    pair.run();
    pair.server
        .disconnect(ReasonCode::NotAuthorized, Details::default(), pair.now);
    pair.run();
    assert_eq!(pair.client.last, [0xE0, 1, 0x87]);
    let reason = CloseReason::Disconnected(ReasonCode::NotAuthorized);
    assert_eq!(pair.closed(), Some(reason));
}

/// [MQTT5-3.1.3-5] [MQTT311-3.1.3-5]
#[test]
fn client_ids_of_letters_and_digits_are_allowed() {
    let characters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        for client_id in [
            "7",
            &characters[..23],
            &characters[20..43],
            &characters[39..],
        ] {
            let mut pair = Pair::new(version, ServerConfig::default());
            pair.client
                .send(&Packet::Connect(Connect::new(version, client_id)));
            pair.run();
            assert!(pair.client.connected);
        }
    }
}

/// [MQTT311-2.2.2-1] [MQTT311-2.2.2-2] [MQTT311-3.6.1-1] [MQTT311-3.8.1-1] [MQTT311-3.10.1-1]
/// [MQTT311-3.14.1-1] [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1]
/// [MQTT5-3.14.1-1]
#[test]
fn reserved_flags_end_the_connection() {
    let subscribe = [0x80, 6, 0, 1, 0, 1, b'a', 0];
    let packets = [
        &[0xE1, 0][..],
        &[0x60, 2, 0, 1],
        &[0xC1, 0],
        &subscribe,
        &[0xA0, 2, 0, 1],
    ];
    for version in [Version::V3_1_1, Version::V5] {
        for packet in packets {
            let mut pair = Pair::connected(version);
            pair.client.output.extend(packet);
            pair.run();
            let closed = pair.closed().unwrap();
            assert!(
                matches!(closed, CloseReason::PeerError(_)),
                "{packet:?}: {closed:?}"
            );
            let told = pair.client.seen.last().map(|seen| seen.reason);
            assert_eq!(told, (version == Version::V5).then_some(0x81));
        }
    }
}

/// [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.1.0-1] [MQTT311-4.1.0-1] [MQTT311-4.1.0-2]
#[test]
fn what_is_not_acknowledged_stays_in_the_session() {
    let mut pair = Pair::connected(Version::V5);
    pair.client.answers = false;
    let _ = pair.publish(qos2("x"));
    pair.run();
    pair.advance(1e6);
    pair.run();
    assert_eq!(pair.session().in_flight(), 1);
    pair.client.send(&Packet::Pubrec(Ack::new(id(1))));
    pair.run();
    assert_eq!(pair.session().in_flight(), 1);
    pair.client.send(&Packet::Pubcomp(Ack::new(id(1))));
    pair.run();
    assert_eq!(pair.session().in_flight(), 0);
}

/// A QoS 2 PUBLISH that comes again gets no PUBREC before the first one has been answered.
#[test]
fn a_repeated_publish_waits_for_the_answer_to_the_first() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut pair = Pair::connected(version);
        pair.acknowledges = false;
        pair.client.publish(QoS::ExactlyOnce, "x");
        pair.run();
        pair.cut();
        pair.reconnect();
        pair.run();
        let [token] = pair.tokens[..] else {
            panic!("{:?}", pair.tokens);
        };
        assert!(!pair.client.is_idle());
        assert_eq!(pair.session().received().count(), 1);
        pair.session_mut().answer(token, ReasonCode::Success, None);
        pair.run();
        assert!(pair.client.is_idle());
        assert_eq!(pair.received, ["x"]);
    }
}

/// [MQTT5-3.5.2-1]
#[test]
fn a_late_answer_that_pubrec_cannot_carry_becomes_unspecified() {
    let mut pair = Pair::connected(Version::V5);
    pair.acknowledges = false;
    pair.client.publish(QoS::ExactlyOnce, "x");
    pair.run();
    pair.cut();
    pair.reconnect();
    pair.run();
    let token = pair.tokens[0];
    pair.session_mut()
        .answer(token, ReasonCode::PacketIdentifierNotFound, None);
    assert_eq!(bytes(&mut pair), [0x50, 3, 0, 1, 0x80]);
}
