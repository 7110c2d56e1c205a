//! QoS 1 and 2 towards the client, and from it: stories with one turn each.

use avocet_codec::PacketType::{Puback, Pubcomp, Publish, Pubrec, Pubrel};
use avocet_codec::SubscriptionId;
use avocet_codec::{Ack, AckType, Packet, PacketId, QoS, ReasonCode, Version};
use avocet_session::{
    AckError, CloseReason, ConnectionError, ConnectionEvent, DropReason, Dropped, Enqueued, Limits,
    Now, Outgoing, Owed, Session, Violation,
};
use std::num::{NonZeroU16, NonZeroU32};

use crate::support::{Pair, Peer, qos0, qos1, qos2};

const BOTH: [Version; 2] = [Version::V3_1_1, Version::V5];

fn silent(version: Version) -> Pair {
    let mut pair = Pair::connected(version);
    pair.client.answers = false;
    pair
}

/// [MQTT5-3.3.1-1] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT311-3.3.1-1] [MQTT311-4.4.0-1]
/// [MQTT311-4.6.0-1]
#[test]
fn resends_in_order_with_dup_and_the_same_packet_ids() {
    for version in BOTH {
        let mut pair = silent(version);
        for outgoing in [qos1("1"), qos2("2"), qos1("3"), qos2("4")] {
            let _ = pair.publish(outgoing);
        }
        pair.run();
        let first = pair.client.seen.clone();
        assert!(
            first
                .iter()
                .all(|seen| seen.packet_type == Publish && !seen.dup)
        );
        pair.cut();
        pair.reconnect();
        pair.run();
        let again = &pair.client.seen[1..];
        assert!(
            again
                .iter()
                .all(|seen| seen.packet_type == Publish && seen.dup)
        );
        let ids = |seen: &[crate::support::Seen]| -> Vec<_> {
            seen.iter()
                .map(|seen| (seen.packet_id, seen.payload.clone()))
                .collect()
        };
        assert_eq!(ids(again), ids(&first));
    }
}

/// [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT311-4.3.3-1] [MQTT311-4.4.0-1]
#[test]
fn resends_pubrel_and_not_publish_once_pubrec_came() {
    for version in BOTH {
        let mut pair = silent(version);
        let _ = pair.publish(qos2("x"));
        let _ = pair.publish(qos2("y"));
        pair.run();
        pair.client.ack(AckType::Pubrec, 1, ReasonCode::Success);
        pair.run();
        pair.cut();
        pair.reconnect();
        pair.run();
        assert_eq!(pair.client.take_seen()[1..], [(Pubrel, 1), (Publish, 2)]);
        pair.client.ack(AckType::Pubcomp, 1, ReasonCode::Success);
        pair.client.ack(AckType::Pubrec, 2, ReasonCode::Success);
        pair.run();
        pair.client.ack(AckType::Pubcomp, 2, ReasonCode::Success);
        pair.run();
        assert!(pair.session().is_empty());
    }
}

/// A connection that may be sent no more messages is sent what releases those it has; the others wait, and are
/// known to.
#[test]
fn a_pubrel_is_no_message_and_what_is_sent_again_is() {
    for version in BOTH {
        let mut pair = silent(version);
        let _ = pair.publish(qos2("x"));
        let _ = pair.publish(qos2("y"));
        pair.run();
        assert!(!pair.session().has_messages_to_send());
        pair.server.set_messages_left(0);
        pair.client.take_seen();
        pair.client.ack(AckType::Pubrec, 1, ReasonCode::Success);
        pair.run();
        assert_eq!(pair.client.take_seen(), [(Pubrel, 1)]);
        let _ = pair.publish(qos1("z"));
        pair.run();
        assert_eq!(pair.client.take_seen(), []);
        assert!(pair.session().has_messages_to_send());
        pair.cut();
        pair.reconnect();
        pair.server.set_messages_left(1);
        pair.run();
        assert_eq!(pair.client.take_seen()[1..], [(Pubrel, 1)]);
        assert!(pair.session().has_messages_to_send());
        pair.server.set_messages_left(2);
        pair.run();
        assert_eq!(pair.client.take_seen(), [(Publish, 2), (Publish, 3)]);
    }
}

/// [MQTT5-4.3.3-8] [MQTT5-4.3.3-11] [MQTT311-4.3.3-2]
#[test]
fn resumes_when_cut_between_pubrec_and_pubrel() {
    for version in BOTH {
        let mut pair = Pair::connected(version);
        pair.client.publish(QoS::ExactlyOnce, "x");
        pair.run_until(|pair| {
            pair.client
                .seen
                .iter()
                .any(|seen| seen.packet_type == Pubrec)
        });
        pair.cut();
        pair.reconnect();
        pair.run();
        assert_eq!(pair.received, ["x"]);
        assert_eq!(pair.client.take_seen()[1..], [(Pubcomp, 1)]);
    }
}

/// [MQTT5-4.3.3-10] [MQTT311-4.3.3-2]
#[test]
fn answers_a_duplicate_qos2_publish_without_a_second_event() {
    for version in BOTH {
        let mut pair = silent(version);
        pair.client.publish(QoS::ExactlyOnce, "x");
        pair.run_until(|pair| pair.received.len() == 1);
        pair.cut();
        pair.reconnect();
        pair.run();
        assert_eq!(pair.received, ["x"]);
        assert_eq!(pair.client.take_seen()[1..], [(Pubrec, 1)]);
    }
}

/// A message for which the application has not answered is not answered twice.
#[test]
fn a_duplicate_waits_for_the_answer_to_the_first() {
    let mut pair = silent(Version::V3_1_1);
    pair.acknowledges = false;
    pair.client.publish(QoS::ExactlyOnce, "x");
    let copy = pair.client.output.clone();
    pair.run();
    pair.client.output.extend(copy);
    pair.run();
    assert_eq!(pair.received, ["x"]);
    assert_eq!(pair.client.take_seen(), []);
    pair.server
        .acknowledge(pair.tokens[0], ReasonCode::Success, None)
        .unwrap();
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubrec, 1)]);
}

/// [MQTT5-4.3.3-4] [MQTT5-4.3.3-9] [MQTT5-4.4.0-2]
#[test]
fn pubrec_with_an_error_ends_the_delivery_and_frees_the_id() {
    let mut pair = silent(Version::V5);
    let _ = pair.publish(Outgoing {
        tag: 7,
        ..qos2("x")
    });
    pair.run();
    pair.client.take_seen();
    pair.client
        .ack(AckType::Pubrec, 1, ReasonCode::QuotaExceeded);
    pair.run();
    assert_eq!(pair.client.take_seen(), []);
    assert!(pair.session().is_empty());
    let reason_code = ReasonCode::QuotaExceeded;
    assert_eq!(
        pair.events,
        [ConnectionEvent::Finished {
            sequence: 0,
            tag: 7,
            reason_code
        }]
    );

    pair.acknowledges = false;
    pair.client.publish(QoS::ExactlyOnce, "y");
    pair.run();
    pair.server
        .acknowledge(pair.tokens[0], ReasonCode::NotAuthorized, None)
        .unwrap();
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubrec, 1)]);
    assert_eq!(pair.session().received().count(), 0);
}

/// [MQTT5-4.4.0-2]
#[test]
fn puback_with_an_error_ends_the_delivery() {
    let mut pair = silent(Version::V5);
    let _ = pair.publish(Outgoing {
        tag: 7,
        ..qos1("x")
    });
    pair.run();
    pair.client
        .ack(AckType::Puback, 1, ReasonCode::NotAuthorized);
    pair.run();
    let reason_code = ReasonCode::NotAuthorized;
    assert_eq!(
        pair.events,
        [ConnectionEvent::Finished {
            sequence: 0,
            tag: 7,
            reason_code
        }]
    );
    assert!(pair.session().is_empty());
}

/// [MQTT5-3.6.2.1] [MQTT5-3.7.2.1] [MQTT311-4.3.3-2]
#[test]
fn answers_unknown_pubrel_and_pubrec() {
    for (version, reason) in [(Version::V3_1_1, 0), (Version::V5, 0x92)] {
        let mut pair = silent(version);
        pair.client.ack(AckType::Pubrel, 9, ReasonCode::Success);
        pair.client.ack(AckType::Pubrec, 8, ReasonCode::Success);
        pair.client.ack(AckType::Puback, 7, ReasonCode::Success);
        pair.client.ack(AckType::Pubcomp, 6, ReasonCode::Success);
        pair.run();
        assert!(pair.client.seen.iter().all(|seen| seen.reason == reason));
        assert_eq!(pair.client.take_seen(), [(Pubcomp, 9), (Pubrel, 8)]);
        assert!(!pair.server.is_closed());
    }
}

/// [MQTT5-4.3.2] [MQTT5-4.3.3] [MQTT5-4.13.1-1]
#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    let wrong = [
        (qos2("x"), AckType::Puback),
        (qos2("x"), AckType::Pubcomp),
        (qos1("x"), AckType::Pubrec),
    ];
    for (outgoing, ack_type) in wrong {
        for version in BOTH {
            let mut pair = silent(version);
            let _ = pair.publish(outgoing.clone());
            pair.run();
            pair.client.ack(ack_type, 1, ReasonCode::Success);
            pair.run();
            let error = ConnectionError::Violation(Violation::WrongAcknowledgement);
            assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
        }
    }
}

/// [MQTT5-4.6.0-4] [MQTT311-4.6.0-4]
#[test]
fn pubrel_leaves_in_the_order_of_pubrec() {
    let mut pair = silent(Version::V3_1_1);
    for payload in ["1", "2", "3"] {
        let _ = pair.publish(qos2(payload));
    }
    pair.run();
    pair.client.take_seen();
    for id in [2, 3, 1] {
        pair.client.ack(AckType::Pubrec, id, ReasonCode::Success);
    }
    pair.run();
    assert_eq!(
        pair.client.take_seen(),
        [(Pubrel, 2), (Pubrel, 3), (Pubrel, 1)]
    );
    // Asked again, PUBREL is sent again.
    pair.client.ack(AckType::Pubrec, 3, ReasonCode::Success);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubrel, 3)]);
}

/// [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT311-4.6.0-2] [MQTT311-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_their_publish() {
    for (qos, kind) in [(QoS::AtLeastOnce, Puback), (QoS::ExactlyOnce, Pubrec)] {
        let mut pair = silent(Version::V5);
        pair.acknowledges = false;
        for payload in ["1", "2", "3"] {
            pair.client.publish(qos, payload);
        }
        pair.run();
        let tokens = pair.tokens.clone();
        for (token, expected) in [(2, &[][..]), (0, &[1][..]), (1, &[2, 3][..])] {
            pair.server
                .acknowledge(tokens[token], ReasonCode::Success, None)
                .unwrap();
            pair.run();
            let expected: Vec<_> = expected.iter().map(|id| (kind, *id)).collect();
            assert_eq!(pair.client.take_seen(), expected);
        }
        for token in tokens {
            let again = pair.server.acknowledge(token, ReasonCode::Success, None);
            assert_eq!(again, Err(AckError::Repeated));
        }
    }
}

#[test]
fn a_token_of_an_earlier_connection_is_refused() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut pair = Pair::connected(Version::V5);
        pair.acknowledges = false;
        pair.client.publish(qos, "x");
        pair.run();
        pair.cut();
        pair.reconnect();
        pair.run();
        let stale = pair
            .server
            .acknowledge(pair.tokens[0], ReasonCode::Success, None);
        assert_eq!(stale, Err(AckError::Stale));
    }
}

/// What the owner says about a QoS 2 message after its connection ended is remembered.
#[test]
fn a_message_refused_after_its_connection_is_forgotten() {
    let mut pair = Pair::connected(Version::V5);
    pair.acknowledges = false;
    pair.client.publish(QoS::ExactlyOnce, "x");
    pair.run();
    pair.cut();
    assert_eq!(pair.session().received().count(), 1);
    pair.client = Peer::new(Version::V5);
    pair.reconnect();
    pair.run();
    let _ = pair
        .server
        .acknowledge(pair.tokens[0], ReasonCode::NotAuthorized, None);
    assert_eq!(pair.session().received().count(), 0);
}

/// [MQTT5-2.2.1-4] [MQTT311-2.3.1-4]: an identifier is free once its message is acknowledged, and
/// not before.
#[test]
fn packet_ids_go_round_and_skip_those_in_use() {
    let mut pair = silent(Version::V5);
    let _ = pair.publish(qos1("stuck"));
    pair.run();
    pair.client.take_seen();
    pair.client.answers = true;
    for _ in 0..65_534 {
        let _ = pair.publish(qos1("x"));
        pair.run();
    }
    let last = pair.client.take_seen().pop();
    assert_eq!(last, Some((Publish, 65_535)));
    // The next would be identifier 1, which is in use.
    let _ = pair.publish(qos1("waits"));
    let _ = pair.publish(qos0("passes"));
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 0)]);
    pair.client.ack(AckType::Puback, 1, ReasonCode::Success);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 1)]);
    assert!(pair.session().is_empty());
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6] [MQTT5-4.3.3-7]
#[test]
fn expiry_is_written_when_sent_and_drops_only_what_was_never_sent() {
    let mut pair = silent(Version::V5);
    let expiring = |pair: &Pair, outgoing: Outgoing, seconds| {
        let message = outgoing.message.clone();
        let message = message.with_expiry(Some(seconds), pair.now.unix);
        Outgoing {
            message,
            ..outgoing
        }
    };
    let sent = expiring(&pair, qos1("sent"), 10);
    let _ = pair.publish(sent);
    pair.advance(3.5);
    let mut out = avocet_session::TransmitBuf::new(1);
    pair.server.poll_transmit(pair.now, &mut out);
    let bytes: Vec<u8> = out.slices().flatten().copied().collect();
    let Ok(Packet::Publish(publish)) = Packet::decode(&bytes, Version::V5) else {
        panic!()
    };
    assert_eq!(publish.message_expiry_interval, Some(7));

    pair.cut();
    let unsent = expiring(&pair, qos1("unsent"), 10);
    let _ = pair.publish(unsent);
    pair.advance(10.0);
    let late = expiring(&pair, qos1("late"), 0);
    assert!(matches!(pair.publish(late), Enqueued::Queued { .. }));
    pair.reconnect();
    pair.run();
    assert_eq!(pair.client.received, ["sent", "late"]);
    let reason = DropReason::Expired;
    let dropped = Dropped {
        sequence: 1,
        qos: QoS::AtLeastOnce,
        tag: 0,
        stored: false,
        reason,
    };
    assert_eq!(pair.events.last(), Some(&ConnectionEvent::Dropped(dropped)));
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_message_too_large_for_the_client_counts_as_delivered() {
    let mut pair = silent(Version::V5);
    for outgoing in [qos1("small"), qos1(&"x".repeat(100)), qos2("last")] {
        let _ = pair.publish(outgoing);
    }
    pair.run();
    assert_eq!(pair.session().in_flight(), 3);
    pair.cut();
    pair.client.maximum_packet_size = NonZeroU32::new(60);
    pair.client.answers = true;
    let _ = pair.publish(qos1(&"y".repeat(60)));
    let _ = pair.publish(qos0(&"z".repeat(60)));
    pair.reconnect();
    pair.run();
    let ids: Vec<_> = pair
        .client
        .take_seen()
        .into_iter()
        .filter(|it| it.0 == Publish)
        .collect();
    assert_eq!(ids, [(Publish, 1), (Publish, 3)]);
    assert!(pair.session().is_empty());
    let too_large = |event: &&ConnectionEvent| matches!(event, ConnectionEvent::Dropped(dropped) if dropped.reason == DropReason::TooLarge);
    assert_eq!(pair.events.iter().filter(too_large).count(), 2);
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn writes_all_subscription_identifiers_in_5_0_only() {
    for version in BOTH {
        let mut pair = Pair::connected(version);
        let ids = [1, 200, 268_435_455].map(|id| SubscriptionId::new(id).unwrap());
        let _ = pair.publish(qos0("x").with_subscription_ids(ids));
        let mut out = avocet_session::TransmitBuf::new(1);
        pair.server.poll_transmit(pair.now, &mut out);
        let bytes: Vec<u8> = out.slices().flatten().copied().collect();
        let Ok(Packet::Publish(publish)) = Packet::decode(&bytes, version) else {
            panic!()
        };
        let expected = if version == Version::V5 {
            &ids[..]
        } else {
            &[]
        };
        assert_eq!(
            publish.subscription_ids.iter().collect::<Vec<_>>(),
            expected
        );
    }
}

/// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]
#[test]
fn a_lost_member_gives_back_all_but_qos2_in_flight() {
    let mut pair = silent(Version::V5);
    pair.client.receive_maximum = NonZeroU16::new(2);
    pair.cut();
    pair.reconnect();
    pair.run();
    for outgoing in [qos1("1"), qos2("2"), qos1("3"), qos2("4"), qos1("other")] {
        let tag = u64::from(outgoing.message.payload() != b"other");
        let _ = pair.publish(Outgoing { tag, ..outgoing });
    }
    pair.run();
    pair.cut();
    let taken = pair.session_mut().take_where(|outgoing| outgoing.tag == 1);
    let sequences: Vec<_> = taken.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, [0, 2, 3]);
    assert_eq!(
        (pair.session().in_flight(), pair.session().queued()),
        (1, 1)
    );
    pair.client.answers = true;
    pair.reconnect();
    pair.run();
    assert_eq!(pair.client.received[2..], ["other"]);
    assert!(pair.session().is_empty());
}

#[test]
fn a_session_can_be_restored_from_what_a_store_kept() {
    let mut session = Session::new();
    session.restore_received(PacketId::new(5).unwrap());
    let mut pair = Pair::new(Version::V5, Default::default());
    pair.session = Some(Box::new(session));
    pair.client.connect();
    pair.run();
    pair.client.take_seen();
    let ack = Ack::new(PacketId::new(5).unwrap());
    pair.client.send(&Packet::Pubrel(ack));
    pair.run();
    // The store has to forget it first.
    assert_eq!(pair.client.take_seen(), []);
    assert_eq!(
        pair.events,
        [ConnectionEvent::Pubrel {
            packet_id: ack.packet_id
        }]
    );
    pair.session_mut().complete(ack.packet_id, None).unwrap();
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubcomp, 5)]);
}

#[test]
fn qos0_waits_for_an_absent_client_only_if_told_to() {
    let mut session = Session::new();
    let now = Now::default();
    let outcome = session.enqueue(qos0("x"), &Limits::default(), now);
    assert_eq!(outcome, Enqueued::Refused(DropReason::Offline));
    let limits = Limits {
        queue_qos0: true,
        ..Limits::default()
    };
    assert_eq!(
        session.enqueue(qos0("x"), &limits, now),
        Enqueued::Queued { sequence: 0 }
    );
}

/// What the client owes next, and whether anything waits for it.
#[test]
fn what_is_owed_is_known_at_each_step() {
    let mut pair = silent(Version::V5);
    assert_eq!(pair.session().owed(), Owed::Nothing);
    let mut step = |outgoing: &[Outgoing], input: &[u8]| {
        for outgoing in outgoing {
            let _ = pair.publish(outgoing.clone());
        }
        pair.run();
        let mut input = input;
        while !input.is_empty() {
            let read = pair.server.handle_input(input, pair.now).consumed;
            assert!(read > 0);
            input = &input[read..];
        }
        pair.run();
        pair.session().owed()
    };
    assert_eq!(step(&[qos0("0")], &[]), Owed::Nothing);
    assert_eq!(step(&[qos1("1")], &[]), Owed::Puback);
    assert_eq!(step(&[qos2("2")], &[]), Owed::More);
    assert_eq!(step(&[], &[0x40, 2, 0, 1]), Owed::More);
    // PUBREC, upon which PUBREL leaves.
    assert_eq!(step(&[], &[0x50, 2, 0, 2]), Owed::Pubcomp);
    assert_eq!(step(&[qos2("3")], &[]), Owed::Pubcomp);
    assert_eq!(step(&[qos1("4")], &[]), Owed::More);
    assert_eq!(step(&[], &[0x70, 2, 0, 2]), Owed::More);
    assert_eq!(step(&[], &[0x50, 2, 0, 3]), Owed::Pubcomp);
    assert_eq!(step(&[], &[0x70, 2, 0, 3]), Owed::Puback);
    assert_eq!(step(&[qos1("5")], &[]), Owed::Puback);
    // A PUBLISH of the client at QoS 2 is answered, and its PUBREL is due.
    assert_eq!(step(&[], &[0x34, 6, 0, 1, b'a', 0, 9, 0]), Owed::More);
}

#[test]
fn an_acknowledgement_that_makes_room_is_waited_for() {
    let mut pair = silent(Version::V5);
    pair.client.receive_maximum = NonZeroU16::new(1);
    pair.cut();
    pair.reconnect();
    let _ = pair.publish(qos1("1"));
    pair.run();
    assert_eq!(pair.session().owed(), Owed::More);
}
