//! What a client must not do, and how a connection ends for it.

use avocet_codec::{
    Connack, DecodeError, Delivery, Disconnect, List, Packet, PacketId, Publish, QoS, ReasonCode,
    Suback, Subscribe, SubscribeFilter, SubscriptionId, SubscriptionOptions, Version,
};
use avocet_session::{CloseReason, ConnectionError, ConnectionEvent, ServerConfig, Violation};
use avocet_topic::TopicFilter;
use std::num::{NonZeroU16, NonZeroU32};

use crate::support::{Pair, qos1, topic};

fn publish() -> Publish<'static> {
    Publish::new(topic("a"), Delivery::AtMostOnce, b"x")
}

/// Sends a packet to a server of this configuration, and expects its error.
fn refused(config: ServerConfig, packet: &Packet<'_>, error: ConnectionError) {
    for version in [Version::V3_1_1, Version::V5] {
        let mut bytes = Vec::new();
        if packet.encode(version, &mut bytes).is_err() {
            continue;
        }
        // What a packet of 3.x cannot say is not refused.
        if version != Version::V5 && Packet::decode(&bytes, version).as_ref() != Ok(packet) {
            continue;
        }
        let mut pair = Pair::connected_with(version, config.clone(), |_| {});
        pair.client.send(packet);
        // What comes behind is not read.
        pair.client.send(&Packet::Publish(publish()));
        pair.run();
        assert_eq!(
            pair.closed(),
            Some(CloseReason::PeerError(error)),
            "{version}"
        );
        assert!(pair.received.is_empty());
        let told: Vec<_> = pair.client.seen.iter().map(|seen| seen.reason).collect();
        let expected = [error.reason_code() as u8];
        assert_eq!(
            told,
            if version == Version::V5 {
                &expected[..]
            } else {
                &[]
            }
        );
    }
}

/// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
#[test]
fn packets_of_a_server_are_refused() {
    let id = PacketId::new(1).unwrap();
    let packets = [
        Packet::Connack(Connack::new(ReasonCode::Success)),
        Packet::Suback(Suback::new(id, &[ReasonCode::Success])),
        Packet::Pingresp,
    ];
    for packet in packets {
        refused(
            ServerConfig::default(),
            &packet,
            Violation::WrongDirection.into(),
        );
    }
}

/// [MQTT5-3.2.2-11]
#[test]
fn a_qos_beyond_the_maximum_is_refused() {
    let config = ServerConfig {
        maximum_qos: QoS::AtMostOnce,
        ..ServerConfig::default()
    };
    let delivery = Delivery::AtLeastOnce(PacketId::new(1).unwrap());
    let packet = Packet::Publish(Publish {
        delivery,
        ..publish()
    });
    refused(config, &packet, Violation::QosNotSupported.into());
}

/// [MQTT5-3.2.2-14]
#[test]
fn retain_is_refused_where_it_is_not_available() {
    let config = ServerConfig {
        retain_available: false,
        ..ServerConfig::default()
    };
    let packet = Packet::Publish(Publish {
        retain: true,
        ..publish()
    });
    refused(config, &packet, Violation::RetainNotSupported.into());
}

/// [MQTT5-3.3.4-6]
#[test]
fn a_client_may_not_send_subscription_identifiers() {
    let ids = [SubscriptionId::new(1).unwrap()];
    let subscription_ids = List::from_slice(&ids);
    let packet = Packet::Publish(Publish {
        subscription_ids,
        ..publish()
    });
    refused(
        ServerConfig::default(),
        &packet,
        Violation::SubscriptionIdFromClient.into(),
    );
}

/// [MQTT5-3.3.2-9]
#[test]
fn a_topic_alias_beyond_the_maximum_is_refused() {
    for topic_alias_maximum in [0, 3] {
        let config = ServerConfig {
            topic_alias_maximum,
            ..ServerConfig::default()
        };
        let topic_alias = NonZeroU16::new(topic_alias_maximum + 1);
        for topic_name in [None, Some(topic("a"))] {
            let packet = Packet::Publish(Publish {
                topic_alias,
                topic_name,
                ..publish()
            });
            refused(config.clone(), &packet, Violation::TopicAliasInvalid.into());
        }
    }
}

/// [MQTT5-3.2.2.3.12]
#[test]
fn a_subscription_identifier_is_refused_where_they_are_not_available() {
    let config = ServerConfig {
        subscription_ids_available: false,
        ..ServerConfig::default()
    };
    let filters = [SubscribeFilter {
        topic_filter: TopicFilter::new("a/b").unwrap(),
        options: SubscriptionOptions::default(),
    }];
    let mut subscribe = Subscribe::new(PacketId::new(1).unwrap(), &filters);
    subscribe.subscription_id = SubscriptionId::new(1);
    refused(
        config,
        &Packet::Subscribe(subscribe),
        Violation::SubscriptionIdsNotSupported.into(),
    );
}

/// [MQTT5-3.2.2-15] [MQTT5-3.1.2-24]: refused before the body is there.
#[test]
fn a_packet_larger_than_the_maximum_is_refused() {
    for (version, told) in [(Version::V3_1_1, &[][..]), (Version::V5, &[0x95])] {
        let maximum_packet_size = NonZeroU32::new(100).unwrap();
        let config = ServerConfig {
            maximum_packet_size,
            ..ServerConfig::default()
        };
        let mut pair = Pair::connected_with(version, config, |_| {});
        pair.client.output.extend([0x30, 98]);
        pair.run();
        assert!(pair.server.is_connected());
        pair.cut();
        pair.reconnect();
        pair.run();
        pair.client.take_seen();
        pair.client.output.extend([0x30, 99]);
        pair.run();
        let error = ConnectionError::Decode(DecodeError::PacketTooLarge);
        assert_eq!(pair.closed(), Some(CloseReason::PeerError(error)));
        let reasons: Vec<_> = pair.client.seen.iter().map(|seen| seen.reason).collect();
        assert_eq!(reasons, told);
    }
}

/// [MQTT5-4.13.1-1] [MQTT311-4.8.0-1]
#[test]
fn a_malformed_packet_ends_the_connection() {
    for (version, told) in [(Version::V3_1_1, &[][..]), (Version::V5, &[0x81])] {
        let mut pair = Pair::connected(version);
        pair.client.output.extend([0xC0, 1, 0]);
        pair.run();
        assert!(matches!(
            pair.closed(),
            Some(CloseReason::PeerError(ConnectionError::Decode(_)))
        ));
        let reasons: Vec<_> = pair.client.seen.iter().map(|seen| seen.reason).collect();
        assert_eq!(reasons, told);
    }
}

/// [MQTT5-3.14.4-3] [MQTT5-3.1.2-8] [MQTT311-3.14.4-3] [MQTT311-3.1.2-8]
#[test]
fn every_end_but_a_normal_disconnect_publishes_the_will() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut pair = Pair::connected(version);
        pair.client
            .send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        pair.run();
        assert!(!pair.closed().unwrap().publishes_will());
        assert!(pair.closed().unwrap().is_by_peer());

        let mut pair = Pair::connected(version);
        pair.cut();
        assert_eq!(pair.closed(), Some(CloseReason::ConnectionLost));
        assert!(pair.closed().unwrap().publishes_will());
    }
    let mut pair = Pair::connected(Version::V5);
    let disconnect = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
    pair.client.send(&Packet::Disconnect(disconnect));
    pair.run();
    assert!(pair.closed().unwrap().publishes_will());
}

/// [MQTT5-3.14.2.2.2]
#[test]
fn disconnect_may_change_the_session_expiry_interval_but_not_from_zero() {
    let disconnect = |pair: &mut Pair, seconds| {
        let disconnect = Disconnect {
            session_expiry_interval: Some(seconds),
            ..Disconnect::new(ReasonCode::Success)
        };
        pair.client.send(&Packet::Disconnect(disconnect));
        pair.run();
    };
    for seconds in [0, 5] {
        let mut pair = Pair::connected(Version::V5);
        disconnect(&mut pair, seconds);
        assert_eq!(
            pair.closed(),
            Some(CloseReason::PeerDisconnected(ReasonCode::Success))
        );
        assert_eq!(
            pair.server.take_session().unwrap().expiry_interval(),
            seconds
        );
    }
    for seconds in [0, 5] {
        let mut pair = Pair::new(Version::V5, ServerConfig::default());
        let connect = avocet_codec::Connect::new(Version::V5, "client");
        pair.client.send(&Packet::Connect(connect));
        pair.run();
        disconnect(&mut pair, seconds);
        let error = ConnectionError::Violation(Violation::SessionExpiryInterval);
        let expected = if seconds == 0 {
            CloseReason::PeerDisconnected(ReasonCode::Success)
        } else {
            CloseReason::PeerError(error)
        };
        assert_eq!(pair.closed(), Some(expected));
    }
}

/// In 3.x a Session without Clean Session has no end of its own.
#[test]
fn clean_session_decides_how_long_a_3x_session_lasts() {
    for (clean_start, expected) in [(true, 0), (false, u32::MAX)] {
        let pair = Pair::connected_with(Version::V3_1_1, ServerConfig::default(), |client| {
            client.clean_start = clean_start;
        });
        assert_eq!(pair.session().expiry_interval(), expected);
    }
}

/// [MQTT5-3.14.4-1]
#[test]
fn nothing_is_sent_or_read_after_the_end() {
    let mut pair = Pair::connected(Version::V5);
    pair.server
        .disconnect(ReasonCode::ServerShuttingDown, Default::default(), pair.now);
    let _ = pair.publish(qos1("x"));
    pair.client.publish(QoS::AtLeastOnce, "y");
    pair.run();
    assert_eq!(pair.client.seen.len(), 1);
    assert_eq!(pair.client.seen[0].reason, 0x8B);
    assert!(pair.received.is_empty());
    assert!(pair.server.is_closed());
    let closed = ConnectionEvent::Closed(CloseReason::Disconnected(ReasonCode::ServerShuttingDown));
    assert_eq!(pair.events, [closed]);
    pair.server
        .disconnect(ReasonCode::ServerBusy, Default::default(), pair.now);
    pair.server.handle_closed(pair.now);
    assert_eq!(pair.server.poll_event(), None);
}

/// [MQTT5-3.14.2.1]: 0x00 has a name of its own in DISCONNECT.
#[test]
fn an_end_is_told_in_words() {
    let normal = ReasonCode::NORMAL_DISCONNECTION;
    let by_peer = CloseReason::PeerDisconnected(normal).to_string();
    assert_eq!(by_peer, "disconnected by the peer: normal disconnection");
    let taken_over = CloseReason::Disconnected(ReasonCode::SessionTakenOver).to_string();
    assert_eq!(taken_over, "disconnected: session taken over");
}
