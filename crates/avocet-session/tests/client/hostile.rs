//! Whatever a server sends, the client neither panics nor goes on for ever.

use avocet_codec::{QoS, ReasonCode, SubscribeFilter, TopicFilter, Version};
use avocet_session::client::{ClientConfig, ClientConnection, ClientEvent, ClientNotice};
use avocet_session::{Demand, Session, TransmitBuf};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::pair::{message, start};

/// Bytes that are often packets, or nearly.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let body = vec(prop_oneof![0_u8..4, any::<u8>()], 0..12);
    (any::<u8>(), body, any::<bool>()).prop_map(|(first, body, honest)| {
        let length = if honest {
            body.len() as u8
        } else {
            first & 0x1F
        };
        [vec![first, length], body].concat()
    })
}

fn converse(version: Version, accepted: bool, packets: &[Vec<u8>]) {
    let mut now = start();
    let config = ClientConfig {
        topic_alias_maximum: 2,
        ..ClientConfig::new(version, "c")
    };
    let mut client = ClientConnection::new(config, Session::new(), now);
    for (index, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .iter()
        .enumerate()
    {
        let _ = client.publish(message("a", &index.to_string(), *qos), now);
    }
    let connack: &[u8] = if version == Version::V5 {
        &[0x20, 3, 0, 0, 0]
    } else {
        &[0x20, 2, 0, 0]
    };
    let mut input = Vec::new();
    let mut closed = 0;
    let mut tokens = Vec::new();
    let first = accepted.then(|| connack.to_vec());
    for bytes in first.iter().chain(packets) {
        input.extend_from_slice(bytes);
        for _ in 0..100 {
            let read = client.handle_input(&input, now);
            assert!(read.consumed <= input.len());
            if let Some(ClientEvent::Publish {
                token: Some(token), ..
            }) = &read.event
            {
                tokens.push(*token);
            }
            let (consumed, demand) = (read.consumed, read.demand);
            input.drain(..consumed);
            if demand != Demand::Again {
                break;
            }
        }
        if let Some(token) = tokens.pop() {
            let _ = client.acknowledge(token, ReasonCode::Success);
        }
        let filter = SubscribeFilter::new(TopicFilter::new("a/#").unwrap(), QoS::AtLeastOnce);
        let _ = client.subscribe(&[filter], None, &[]);
        let mut out = TransmitBuf::new(1000);
        client.poll_transmit(now, &mut out);
        while let Some(notice) = client.poll_event() {
            assert_eq!(closed, 0, "{notice:?} after the end");
            closed += usize::from(matches!(notice, ClientNotice::Closed(_)));
        }
        if let Some(timeout) = client.poll_timeout() {
            now = now + timeout.at.duration_since(now.instant) / 2;
            client.handle_timeout(now);
        }
    }
    client.handle_closed();
    while let Some(notice) = client.poll_event() {
        closed += usize::from(matches!(notice, ClientNotice::Closed(_)));
    }
    assert_eq!(closed, 1);
    let refused = client.publish(message("a", "x", QoS::AtLeastOnce), now);
    assert!(refused.is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_survived_and_the_end_is_told_once(
        accepted in any::<bool>(),
        packets in vec(packet(), 0..20),
    ) {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            converse(version, accepted, &packets);
        }
    }
}

/// [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]: a server that answers before it was asked, and then breaks
/// the rules, is told nothing.
#[test]
fn nothing_leaves_before_connect_even_if_the_server_was_faster() {
    for (version, connack) in [
        (Version::V3_1_1, &[0x20, 2, 0, 0][..]),
        (Version::V5, &[0x20, 3, 0, 0, 0]),
    ] {
        let config = ClientConfig::new(version, "c");
        let mut client = ClientConnection::new(config, Session::new(), start());
        for packet in [connack, connack] {
            assert_eq!(client.handle_input(packet, start()).consumed, packet.len());
        }
        let mut out = TransmitBuf::new(1000);
        assert!(!client.poll_transmit(start(), &mut out));
        assert_eq!(out.len(), 0);
        assert!(matches!(client.poll_event(), Some(ClientNotice::Closed(_))));
    }
}
