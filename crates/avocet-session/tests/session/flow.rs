//! Receive Maximum both ways, queue limits, Topic Aliases, the transmit buffer.

use avocet_codec::PacketType::{Puback, Publish};
use avocet_codec::{AckType, Delivery, Packet, QoS, ReasonCode, Version};
use avocet_session::{
    CloseReason, CommitId, ConnectionError, ConnectionEvent, Demand, DropReason, Dropped, Enqueued,
    Limits, Outgoing, Overflow, ServerConfig, TransmitBuf, Violation,
};
use std::num::NonZeroU16;

use crate::support::{Pair, message, outgoing, qos0, qos1, qos2, topic};

/// [MQTT5-3.3.4-9] [MQTT5-3.3.4-10] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2] [MQTT5-4.9.0-3]
#[test]
fn sends_no_more_than_the_receive_maximum() {
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.receive_maximum = NonZeroU16::new(2);
        client.answers = false;
    });
    for payload in ["1", "2", "3", "4"] {
        let _ = pair.publish(qos2(payload));
    }
    let _ = pair.publish(qos0("passes"));
    pair.run();
    assert_eq!(
        pair.client.take_seen(),
        [(Publish, 1), (Publish, 2), (Publish, 0)]
    );
    // PUBREC alone frees no place.
    pair.client.ack(AckType::Pubrec, 1, ReasonCode::Success);
    pair.run();
    pair.client.take_seen();
    pair.client.ack(AckType::Pubcomp, 1, ReasonCode::Success);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 3)]);
    pair.client
        .ack(AckType::Pubrec, 2, ReasonCode::QuotaExceeded);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 4)]);
}

/// [MQTT5-4.9.0-2]: what is sent again counts too, and PUBCOMP for a PUBREL of an earlier
/// connection frees no place.
#[test]
fn a_smaller_receive_maximum_holds_for_what_is_sent_again() {
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.answers = false;
    });
    for payload in ["1", "2", "3", "4"] {
        let _ = pair.publish(qos2(payload));
    }
    pair.run();
    pair.client.ack(AckType::Pubrec, 1, ReasonCode::Success);
    pair.run();
    pair.cut();
    pair.client.receive_maximum = NonZeroU16::new(1);
    pair.reconnect();
    pair.run();
    let ids = |pair: &mut Pair| -> Vec<_> {
        pair.client
            .take_seen()
            .into_iter()
            .map(|(_, id)| id)
            .collect()
    };
    assert_eq!(ids(&mut pair), [0, 1, 2]);
    pair.client.ack(AckType::Pubcomp, 1, ReasonCode::Success);
    pair.run();
    assert!(ids(&mut pair).is_empty());
    pair.client.answers = true;
    pair.client.ack(AckType::Pubrec, 2, ReasonCode::Success);
    pair.run();
    assert_eq!(ids(&mut pair), [2, 3, 3, 4, 4]);
    assert!(pair.session().is_empty());
}

#[test]
fn a_3x_client_gets_the_configured_window() {
    let limits = Limits {
        inflight: 3,
        ..Limits::default()
    };
    let config = ServerConfig {
        limits,
        ..ServerConfig::default()
    };
    let mut pair = Pair::connected_with(Version::V3_1_1, config, |client| client.answers = false);
    for payload in ["1", "2", "3", "4"] {
        let _ = pair.publish(qos1(payload));
    }
    pair.run();
    assert_eq!(
        pair.client.take_seen(),
        [(Publish, 1), (Publish, 2), (Publish, 3)]
    );
    pair.client.ack(AckType::Puback, 2, ReasonCode::Success);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 4)]);
}

fn small_receive_maximum() -> ServerConfig {
    let receive_maximum = NonZeroU16::new(2).unwrap();
    ServerConfig {
        receive_maximum,
        ..ServerConfig::default()
    }
}

/// [MQTT5-3.3.4-7]
#[test]
fn a_client_that_exceeds_the_receive_maximum_is_disconnected() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut pair = Pair::connected_with(Version::V5, small_receive_maximum(), |_| {});
        pair.acknowledges = qos == QoS::ExactlyOnce;
        pair.client.answers = false;
        for payload in ["1", "2"] {
            pair.client.publish(qos, payload);
            pair.run();
        }
        assert!(pair.server.is_connected());
        pair.client.publish(qos, "3");
        pair.run();
        let error = ConnectionError::Violation(Violation::ReceiveMaximumExceeded);
        assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
        assert_eq!(pair.client.seen.last().unwrap().reason, 0x93);
    }
}

/// [MQTT5-3.3.4-7]: what is sent again takes a place too.
#[test]
fn the_receive_maximum_holds_for_what_a_client_sends_again() {
    let mut pair = Pair::connected_with(Version::V5, small_receive_maximum(), |_| {});
    for payload in ["1", "2"] {
        pair.client.publish(QoS::ExactlyOnce, payload);
    }
    pair.step_to_server(usize::MAX);
    pair.cut();
    pair.client.answers = false;
    pair.reconnect();
    pair.run();
    assert!(pair.server.is_connected());
    pair.client.publish(QoS::ExactlyOnce, "3");
    pair.run();
    let error = ConnectionError::Violation(Violation::ReceiveMaximumExceeded);
    assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
}

/// A message sent again after a reconnect takes a place once.
#[test]
fn a_client_that_keeps_to_the_receive_maximum_is_not_disconnected() {
    let mut pair = Pair::connected_with(Version::V5, small_receive_maximum(), |_| {});
    pair.client.answers = false;
    pair.client.publish(QoS::ExactlyOnce, "1");
    pair.client.publish(QoS::ExactlyOnce, "2");
    pair.run();
    for _ in 0..3 {
        pair.cut();
        pair.client.answers = true;
        pair.reconnect();
        pair.run();
        assert!(pair.server.is_connected());
    }
    for payload in ["3", "4", "5", "6"] {
        pair.client.publish(QoS::ExactlyOnce, payload);
        pair.run();
    }
    assert_eq!(pair.received, ["1", "2", "3", "4", "5", "6"]);
}

/// 3.x has no Receive Maximum: reading stops while too many acknowledgements wait.
#[test]
fn reading_of_a_3x_client_stops_while_its_acknowledgements_wait() {
    let mut pair = Pair::connected_with(Version::V3_1_1, small_receive_maximum(), |client| {
        client.keep_alive = 10;
    });
    pair.acknowledges = false;
    for payload in ["1", "2", "3"] {
        pair.client.publish(QoS::AtLeastOnce, payload);
    }
    pair.run();
    assert_eq!(pair.received, ["1", "2"]);
    assert!(pair.server.is_paused());
    // The silence is not the client's.
    assert_eq!(pair.server.poll_timeout(), None);
    pair.advance(100.0);
    for token in pair.tokens.clone() {
        pair.server
            .acknowledge(token, ReasonCode::Success, None)
            .unwrap();
    }
    pair.run();
    assert_eq!(pair.received, ["1", "2", "3"]);
    let expected = pair.now.instant + std::time::Duration::from_secs(15);
    assert_eq!(pair.server.poll_timeout().unwrap().at, expected);
    assert_eq!(pair.client.take_seen(), [(Puback, 1), (Puback, 2)]);
}

/// A peer that asks and does not read costs a bounded number of answers.
#[test]
fn reading_stops_while_answers_are_not_read() {
    for (packet, first) in [
        (vec![0xC0, 0], 64),
        (vec![0x62, 2, 0, 9], 66),
        (vec![0x50, 2, 0, 9], 66),
    ] {
        let mut pair = Pair::connected_with(Version::V5, small_receive_maximum(), |_| {});
        for _ in 0..1000 {
            pair.client.output.extend(&packet);
        }
        pair.step_to_server(usize::MAX);
        assert!(pair.server.is_paused());
        let mut out = TransmitBuf::new(usize::MAX);
        assert!(!pair.server.poll_transmit(pair.now, &mut out));
        let answer = if packet.len() == 2 { 2 } else { 5 };
        assert_eq!(out.len(), first * answer);
        assert!(!pair.server.is_paused());
        pair.run();
        assert_eq!(pair.client.seen.len(), 1000 - first);
    }
}

#[test]
fn a_full_queue_drops_the_newest_or_the_oldest() {
    let limits = Limits {
        queued_messages_max: 3,
        queue_qos0: true,
        ..Limits::default()
    };
    let mut session = avocet_session::Session::new();
    let now = avocet_session::Now::default();
    for outgoing in [qos0("0"), qos1("1"), qos0("2")] {
        assert!(matches!(
            session.enqueue(outgoing, &limits, now),
            Enqueued::Queued { .. }
        ));
    }
    let full = Enqueued::Refused(DropReason::QueueFull);
    assert_eq!(session.enqueue(qos1("3"), &limits, now), full);
    let limits = Limits {
        overflow: Overflow::DropOldest,
        ..limits
    };
    let dropped = |sequence, qos| Dropped {
        sequence,
        qos,
        tag: 0,
        stored: false,
        reason: DropReason::QueueFull,
    };
    let expected = [dropped(0, QoS::AtMostOnce), dropped(0, QoS::AtLeastOnce)];
    for (sequence, oldest) in (1..).zip(expected) {
        let outcome = session.enqueue(qos1("later"), &limits, now);
        assert_eq!(
            outcome,
            Enqueued::Displaced {
                sequence,
                oldest: vec![oldest]
            }
        );
    }
    assert_eq!(session.queued(), 3);
}

#[test]
fn a_full_queue_counts_bytes() {
    let bytes = outgoing(QoS::AtLeastOnce, "1234567").message.len() as u64;
    let limits = Limits {
        queued_bytes_max: 2 * bytes,
        overflow: Overflow::DropOldest,
        ..Limits::default()
    };
    let mut session = avocet_session::Session::new();
    let now = avocet_session::Now::default();
    for _ in 0..2 {
        let _ = session.enqueue(qos1("1234567"), &limits, now);
    }
    let outcome = session.enqueue(qos1("12345678"), &limits, now);
    assert!(
        matches!(outcome, Enqueued::Displaced { sequence: 2, ref oldest } if oldest.len() == 2)
    );
    // One that never fits displaces nothing.
    let outcome = session.enqueue(qos1(&"x".repeat(100)), &limits, now);
    assert_eq!(outcome, Enqueued::Refused(DropReason::QueueFull));
    assert_eq!((session.queued(), session.queued_bytes()), (1, bytes + 1));
}

/// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
#[test]
fn outgoing_aliases_stand_for_topics_that_repeat() {
    let publish = |pair: &mut Pair, name: &str| {
        let message = message(QoS::AtMostOnce, name, "x");
        let _ = pair.publish(Outgoing::new(message));
        let mut out = TransmitBuf::new(1);
        pair.server.poll_transmit(pair.now, &mut out);
        let bytes: Vec<u8> = out.slices().flatten().copied().collect();
        pair.client.handle_input(&bytes);
        bytes.len()
    };
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.topic_alias_maximum = 2;
    });
    let name = "some/long/topic/name";
    let lengths: Vec<_> = (0..4).map(|_| publish(&mut pair, name)).collect();
    let plain = lengths[0];
    assert_eq!(
        lengths,
        [
            plain,
            plain + 3,
            plain + 3 - name.len(),
            plain + 3 - name.len()
        ]
    );
    // More names than aliases, in turns that use each alias and set it anew: the client resolves all.
    let mut expected = vec![name.to_owned(); 4];
    let mut known = 0;
    for round in "ababab cacaca bcbcbc abcabc abcabc aabbcc".split_whitespace() {
        for letter in round.chars() {
            let name = format!("some/long/topic/{letter}");
            known += usize::from(publish(&mut pair, &name) < plain - 10);
            expected.push(name);
        }
    }
    assert_eq!(pair.client.topics, expected);
    assert!(known > 5, "{known} messages without a Topic Name");

    let mut pair = Pair::connected(Version::V5);
    assert!((0..4).all(|_| publish(&mut pair, name) == plain));
}

#[test]
fn a_name_gets_an_alias_if_it_comes_again_within_sixteen_others() {
    let is_set_after = |others: u32| {
        let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
            client.topic_alias_maximum = 1;
        });
        let mut publish = |name: &str| {
            let message = message(QoS::AtMostOnce, name, "x");
            let _ = pair.publish(Outgoing::new(message));
            let mut out = TransmitBuf::new(1);
            pair.server.poll_transmit(pair.now, &mut out);
            out.len()
        };
        let plain = publish("again");
        for other in 0..others {
            publish(&format!("other/{other}"));
        }
        publish("again") == plain + 3
    };
    assert!(is_set_after(0));
    assert!(is_set_after(15));
    assert!(!is_set_after(16));
}

/// [MQTT5-3.3.2-7] [MQTT5-3.3.2-12]
#[test]
fn incoming_aliases_are_set_anew_and_end_with_the_connection() {
    let mut pair = Pair::connected(Version::V5);
    let publish = |pair: &mut Pair, name: Option<&str>, alias| {
        let mut publish = avocet_codec::Publish::new(topic("x"), Delivery::AtMostOnce, b"x");
        publish.topic_name = name.map(topic);
        publish.topic_alias = NonZeroU16::new(alias);
        pair.client.send(&Packet::Publish(publish));
        pair.run();
    };
    publish(&mut pair, Some("first"), 1);
    publish(&mut pair, None, 1);
    publish(&mut pair, Some("second"), 1);
    publish(&mut pair, Some("third"), 16);
    publish(&mut pair, None, 1);
    publish(&mut pair, None, 16);
    assert_eq!(
        pair.topics,
        ["first", "first", "second", "third", "second", "third"]
    );
    pair.cut();
    pair.reconnect();
    pair.run();
    publish(&mut pair, None, 1);
    let error = ConnectionError::Violation(Violation::TopicAliasUnknown);
    assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
    assert_eq!(pair.client.seen.last().unwrap().reason, 0x82);
}

#[test]
fn natural_order_is_kept_between_qos() {
    let mut pair = Pair::connected(Version::V5);
    let order = [
        qos1("1"),
        qos0("2"),
        qos2("3"),
        qos0("4"),
        qos0("5"),
        qos1("6"),
    ];
    for outgoing in order {
        let _ = pair.publish(outgoing);
    }
    pair.run();
    assert_eq!(pair.client.received, ["1", "2", "3", "4", "5", "6"]);
}

/// What a client does wrong behind acknowledgements does not take these back.
#[test]
fn acknowledgements_in_a_row_are_read_at_once_up_to_a_violation() {
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.answers = false;
    });
    for outgoing in [qos1("1"), qos2("2"), qos1("3"), qos2("4")] {
        let _ = pair.publish(outgoing);
    }
    pair.run();
    // PUBACK, PUBREC, PUBACK, and a PUBACK where PUBREC is due.
    let input = [
        [0x40, 2, 0, 1],
        [0x50, 2, 0, 2],
        [0x40, 2, 0, 3],
        [0x40, 2, 0, 4],
    ];
    let input = input.concat();
    let read = pair.server.handle_input(&input, pair.now);
    assert_eq!((read.consumed, read.packets), (12, 3));
    assert_eq!(pair.session().in_flight(), 2);
    assert!(pair.server.is_connected());
    let read = pair.server.handle_input(&input[12..], pair.now);
    assert_eq!(read.consumed, 4);
    assert!(!pair.server.is_connected());
}

/// The owner of a stored message hears of its PUBREC, and answers, before anything else is read.
#[test]
fn acknowledgements_in_a_row_end_where_the_owner_has_to_answer() {
    let mut pair = Pair::connected_with(Version::V5, ServerConfig::default(), |client| {
        client.answers = false;
    });
    for payload in ["1", "2"] {
        let gate = Some(CommitId::ZERO);
        let _ = pair.publish(Outgoing {
            gate,
            ..qos2(payload)
        });
    }
    pair.run();
    let input = [[0x50, 2, 0, 1], [0x50, 2, 0, 2]].concat();
    for packet in [1, 2] {
        let read = pair
            .server
            .handle_input(&input[4 * (packet - 1)..], pair.now);
        assert_eq!((read.consumed, read.packets), (4, 1));
        let event = pair.server.poll_event();
        assert!(matches!(event, Some(ConnectionEvent::Pubrec { .. })));
    }
}

#[test]
fn acknowledgements_in_a_row_end_where_too_many_answers_wait() {
    let config = ServerConfig {
        receive_maximum: NonZeroU16::new(3).unwrap(),
        ..ServerConfig::default()
    };
    let mut pair = Pair::connected_with(Version::V3_1_1, config, |_| {});
    let input = [0x62, 2, 0, 1].repeat(10);
    let read = pair.server.handle_input(&input, pair.now);
    assert_eq!((read.packets, read.demand), (3, Demand::Paused));
    let mut out = TransmitBuf::new(usize::MAX);
    pair.server.poll_transmit(pair.now, &mut out);
    assert_eq!(out.len(), 12);
    let read = pair.server.handle_input(&input[12..], pair.now);
    assert_eq!((read.packets, read.demand), (3, Demand::Paused));
}

#[test]
fn payloads_of_4096_bytes_and_more_are_not_copied() {
    for (len, slices) in [(4_095, 1), (4_096, 2)] {
        let mut pair = Pair::connected(Version::V3_1_1);
        let _ = pair.publish(qos1(&"x".repeat(len)));
        let mut out = TransmitBuf::new(usize::MAX);
        pair.server.poll_transmit(pair.now, &mut out);
        assert_eq!(out.slices().count(), slices, "{len}");
    }
}

#[test]
fn large_payloads_leave_as_shared_segments_in_order() {
    let mut pair = Pair::connected(Version::V3_1_1);
    let large = "x".repeat(10_000);
    let payloads = ["small", &large, "small again", &large, "small at last"];
    for payload in payloads {
        let _ = pair.publish(qos1(payload));
    }
    let mut out = TransmitBuf::new(usize::MAX);
    assert!(!pair.server.poll_transmit(pair.now, &mut out));
    assert_eq!(out.slices().count(), 5);
    // As a socket does it: whatever number of bytes at a time.
    let mut written = Vec::new();
    for n in (1..).map(|n| n * 7 % 60) {
        if out.is_empty() {
            break;
        }
        let n = n.min(out.len());
        written.extend(out.slices().flatten().take(n));
        out.advance(n);
        if n % 5 == 0 {
            let mut rest = out.take_rest();
            assert!(out.is_empty());
            std::mem::swap(&mut rest, &mut out);
        }
    }
    pair.client.handle_input(&written);
    assert_eq!(pair.client.received, payloads);
}
