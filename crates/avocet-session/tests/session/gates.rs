//! What leaves only once a store has committed it.

use avocet_codec::PacketType::{Connack, Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback};
use avocet_codec::{
    AckType, Delivery, Packet, PacketId, QoS, ReasonCode, Subscribe, SubscribeFilter,
    SubscriptionOptions, Version,
};
use avocet_session::{
    Accept, AckError, CommitId, ConnectionEvent, Enqueued, FetchFrom, FetchedMessage, Limits,
    Outgoing, ServerConfig,
};
use avocet_topic::TopicFilter;

use crate::support::{Pair, Seen, qos0, qos1, qos2, topic};

fn gated(position: u64, outgoing: Outgoing) -> Outgoing {
    Outgoing {
        gate: Some(CommitId::new(position)),
        ..outgoing
    }
}

fn silent(version: Version) -> Pair {
    let mut pair = Pair::connected(version);
    pair.client.answers = false;
    pair
}

#[test]
fn acknowledgements_wait_for_their_commit_and_for_those_before() {
    for (qos, kind) in [(QoS::AtLeastOnce, Puback), (QoS::ExactlyOnce, Pubrec)] {
        let mut pair = silent(Version::V5);
        pair.acknowledges = false;
        for payload in ["1", "2", "3"] {
            pair.client.publish(qos, payload);
        }
        pair.run();
        let gates = [Some(5), Some(3), None];
        for (token, gate) in pair.tokens.clone().into_iter().zip(gates) {
            let gate = gate.map(CommitId::new);
            pair.server
                .acknowledge(token, ReasonCode::Success, gate)
                .unwrap();
        }
        pair.run();
        assert_eq!(pair.session().waits_for(), Some(CommitId::new(5)));
        pair.committed(4);
        pair.run();
        assert_eq!(pair.client.take_seen(), []);
        pair.committed(5);
        pair.run();
        assert_eq!(pair.client.take_seen(), [(kind, 1), (kind, 2), (kind, 3)]);
        assert_eq!(pair.session().waits_for(), None);
    }
}

/// A stored QoS 2 message: PUBCOMP leaves only when the store has forgotten it.
#[test]
fn pubcomp_waits_for_the_release_to_be_stored() {
    let mut pair = Pair::connected(Version::V5);
    pair.gate = Some(CommitId::new(1));
    pair.client.publish(QoS::ExactlyOnce, "x");
    pair.run();
    assert_eq!(pair.client.take_seen(), []);
    pair.committed(1);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubrec, 1)]);
    let packet_id = PacketId::new(1).unwrap();
    assert_eq!(pair.events, [ConnectionEvent::Pubrel { packet_id }]);
    assert_eq!(pair.session().received().count(), 0);
    pair.session_mut()
        .complete(packet_id, Some(CommitId::new(2)))
        .unwrap();
    assert_eq!(
        pair.session_mut().complete(packet_id, None),
        Err(AckError::Unknown)
    );
    pair.run();
    assert_eq!(pair.client.take_seen(), []);
    pair.committed(2);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubcomp, 1)]);
}

/// PUBREL comes again on the next connection, before the store has forgotten the message: a PUBCOMP
/// would let the client use the Packet Identifier for another one, which a restart would take for
/// the old one.
#[test]
fn pubcomp_waits_for_a_release_of_an_earlier_connection_to_be_stored() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut pair = Pair::connected_with(version, ServerConfig::default(), |client| {
            client.clean_start = false;
        });
        pair.gate = Some(CommitId::new(1));
        pair.client.publish(QoS::ExactlyOnce, "x");
        pair.run();
        pair.committed(1);
        pair.run();
        let packet_id = PacketId::new(1).unwrap();
        let gate = Some(CommitId::new(2));
        pair.session_mut().complete(packet_id, gate).unwrap();
        pair.cut();
        pair.reconnect();
        pair.run();
        assert!(!pair.client.is_idle(), "PUBCOMP is not there");
        assert_eq!(pair.session().waits_for(), gate);
        pair.committed(2);
        pair.run();
        assert!(pair.client.is_idle());
    }
}

#[test]
fn publish_and_pubrel_of_a_stored_message_wait_for_their_commits() {
    let mut pair = silent(Version::V5);
    let _ = pair.publish(gated(1, qos2("x")));
    let _ = pair.publish(qos1("behind"));
    let _ = pair.publish(qos0("passes"));
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 0)]);
    assert_eq!(pair.session().waits_for(), Some(CommitId::new(1)));
    pair.committed(1);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 1), (Publish, 2)]);

    pair.client.ack(AckType::Pubrec, 1, ReasonCode::Success);
    pair.run();
    assert_eq!(
        pair.events,
        [ConnectionEvent::Pubrec {
            sequence: 0,
            tag: 0
        }]
    );
    assert_eq!(pair.client.take_seen(), []);
    pair.session_mut()
        .release(0, Some(CommitId::new(2)))
        .unwrap();
    assert_eq!(pair.session_mut().release(0, None), Err(AckError::Repeated));
    assert_eq!(pair.session_mut().release(1, None), Err(AckError::Unknown));
    pair.run();
    assert_eq!(pair.client.take_seen(), []);
    assert_eq!(pair.session().waits_for(), Some(CommitId::new(2)));
    pair.committed(2);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Pubrel, 1)]);
    pair.events.clear();
    pair.client.ack(AckType::Pubcomp, 1, ReasonCode::Success);
    pair.run();
    let reason_code = ReasonCode::Success;
    assert_eq!(
        pair.events,
        [ConnectionEvent::Finished {
            sequence: 0,
            tag: 0,
            reason_code
        }]
    );
}

/// The answer to PUBREC may come after the connection on which it came.
#[test]
fn a_release_survives_the_connection() {
    let mut pair = silent(Version::V5);
    let _ = pair.publish(gated(1, qos2("x")));
    let _ = pair.publish(qos1("y"));
    pair.committed(1);
    pair.run();
    pair.client.ack(AckType::Pubrec, 1, ReasonCode::Success);
    pair.run();
    pair.cut();
    pair.reconnect();
    // What is sent again keeps its order, and what is new comes behind.
    let _ = pair.publish(qos1("z"));
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Connack, 0)]);
    pair.session_mut()
        .release(0, Some(CommitId::new(2)))
        .unwrap();
    pair.committed(2);
    pair.run();
    assert_eq!(
        pair.client.take_seen(),
        [(Pubrel, 1), (Publish, 2), (Publish, 3)]
    );
}

/// [MQTT5-3.2.0-1] [MQTT311-3.2.0-1]
#[test]
fn nothing_passes_a_connack_that_waits() {
    let mut pair = Pair::new(Version::V5, ServerConfig::default());
    pair.accepts = false;
    pair.client.connect();
    pair.run();
    pair.server.accept(
        Default::default(),
        Accept {
            gate: Some(CommitId::new(1)),
            ..Accept::default()
        },
        pair.now,
    );
    pair.accepts = true;
    let delivery = Delivery::AtLeastOnce(PacketId::new(1).unwrap());
    pair.client
        .send(&Packet::Publish(avocet_codec::Publish::new(
            topic("a"),
            delivery,
            b"x",
        )));
    pair.client.send(&Packet::Pingreq);
    let filters = [SubscribeFilter {
        topic_filter: TopicFilter::new("a/b").unwrap(),
        options: SubscriptionOptions::default(),
    }];
    let id = PacketId::new(9).unwrap();
    pair.client
        .send(&Packet::Subscribe(Subscribe::new(id, &filters)));
    pair.run();
    let _ = pair.publish(qos0("y"));
    pair.run();
    assert_eq!(pair.received, ["x"]);
    assert_eq!(pair.client.take_seen(), []);
    pair.committed(1);
    pair.run();
    let seen = pair.client.take_seen();
    assert_eq!(seen[..2], [(Connack, 0), (Suback, 9)]);
    assert_eq!(seen.len(), 5);
}

#[test]
fn suback_waits_for_its_commit() {
    let mut pair = Pair::connected(Version::V3_1_1);
    pair.gate = Some(CommitId::new(1));
    let filters = [SubscribeFilter {
        topic_filter: TopicFilter::new("a/b").unwrap(),
        options: SubscriptionOptions::default(),
    }];
    let id = PacketId::new(9).unwrap();
    pair.client
        .send(&Packet::Subscribe(Subscribe::new(id, &filters)));
    pair.run();
    assert_eq!(pair.client.take_seen(), []);
    pair.committed(1);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Suback, 9)]);
    let unknown = pair
        .server
        .suback(id, &[ReasonCode::Success], None, pair.now);
    assert_eq!(unknown, Err(AckError::Unknown));
}

#[test]
fn the_tail_of_a_long_queue_comes_back_from_the_store() {
    let limits = Limits {
        resident_messages: 4,
        ..Limits::default()
    };
    let config = ServerConfig {
        limits: limits.clone(),
        ..ServerConfig::default()
    };
    let mut pair = Pair::connected_with(Version::V5, config, |_| {});
    pair.cut();
    let all: Vec<_> = (0..20).map(|n| gated(0, qos1(&n.to_string()))).collect();
    for (sequence, outgoing) in (0..).zip(all.clone()) {
        let expected = if sequence < 4 {
            Enqueued::Queued { sequence }
        } else {
            Enqueued::Stored { sequence }
        };
        assert_eq!(pair.publish(outgoing), expected);
    }
    assert_eq!(pair.session().queued(), 20);
    assert_eq!(pair.session_mut().poll_fetch(&limits), None);
    pair.reconnect();
    loop {
        pair.run();
        let Some(fetch) = pair.session_mut().poll_fetch(&limits) else {
            break;
        };
        assert_eq!(pair.session_mut().poll_fetch(&limits), None);
        let FetchFrom {
            sequence,
            max_messages,
            ..
        } = fetch;
        assert_eq!((sequence % 4, max_messages), (0, 4));
        let page = all
            .iter()
            .cloned()
            .zip(0..)
            .map(|(outgoing, sequence)| FetchedMessage {
                sequence,
                outgoing,
                pubrec_received: false,
            });
        // The store has dropped one whose time had passed.
        let page = page
            .skip(sequence as usize)
            .take(4)
            .filter(|fetched| fetched.sequence != 9);
        pair.session_mut().handle_fetched(sequence + 4, page);
    }
    let expected: Vec<_> = (0..20).filter(|n| *n != 9).map(|n| n.to_string()).collect();
    assert_eq!(pair.client.received, expected);
    assert!(pair.session().is_empty());
    assert_eq!(pair.session().queued_bytes(), 0);
    let ids: Vec<_> = pair
        .client
        .seen
        .iter()
        .map(|seen: &Seen| seen.packet_id)
        .collect();
    assert!(
        !ids.contains(&10),
        "the identifier of the message that expired is not given away"
    );
}

/// What comes behind a queue that a store gave back was not sent before, whatever its owner says of
/// that queue: it waits for its commit.
#[test]
fn a_message_behind_a_restored_queue_waits_for_its_commit() {
    let mut pair = silent(Version::V5);
    let limits = Limits::default();
    pair.session_mut().restore_queue(0..3, 3, u64::MAX);
    let queued = pair.publish(gated(5, qos2("new")));
    assert_eq!(queued, Enqueued::Stored { sequence: 3 });
    let fetch = pair.session_mut().poll_fetch(&limits).unwrap();
    assert_eq!(fetch.sequence, 0);
    let page = (0..4).map(|sequence| FetchedMessage {
        sequence,
        outgoing: gated(5, qos2("x")),
        pubrec_received: false,
    });
    pair.session_mut().handle_fetched(4, page);
    pair.run();
    let restored = [(Publish, 1), (Publish, 2), (Publish, 3)];
    assert_eq!(pair.client.take_seen(), restored);
    pair.committed(5);
    pair.run();
    assert_eq!(pair.client.take_seen(), [(Publish, 4)]);
}
