//! The messages that come, and their acknowledgements.

use avocet_client::{Config, QoS, ReasonCode, Version};

use crate::BOTH;
use crate::wire::{accepted, config, connected, packet, string};

fn publish(version: Version, first_byte: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    packet(first_byte, &[&string(b"t"), &[0, id], none, payload])
}

/// [MQTT5-2.2.1-5] [MQTT5-3.3.4-1] [MQTT5-3.4.2-2] [MQTT5-3.4.2-3] [MQTT5-3.5.2-2] [MQTT5-3.5.2-3]
/// [MQTT5-3.7.2-2] [MQTT5-3.7.2-3] [MQTT5-4.3.2-4] [MQTT5-4.3.2-5] [MQTT5-4.3.3-8] [MQTT5-4.3.3-10]
/// [MQTT5-4.3.3-11] [MQTT5-4.3.3-12]
/// [MQTT311-2.3.1-6] [MQTT311-3.3.4-1] [MQTT311-4.3.2-2] [MQTT311-4.3.3-2]:
/// with nothing but the Packet Identifier, which no Maximum Packet Size is too small for.
#[tokio::test]
async fn a_message_is_answered_as_its_qos_says_and_delivered_as_often() {
    for version in BOTH {
        let properties: &[u8] = &[0x27, 0, 0, 0, 4];
        let (_client, mut messages, mut wire) = accepted(config(version), properties).await;
        // After PUBACK the same identifier is another message, even with DUP.
        for first_byte in [0x32, 0x3a] {
            wire.send(&publish(version, first_byte, 7, b"1")).await;
            assert_eq!(messages.receive().await.unwrap().payload(), b"1");
            wire.expect([&[0x40, 2, 0, 7]]).await;
        }
        // Before PUBREL it is the same, after PUBCOMP another.
        for payload in [b"2", b"3"] {
            wire.send(&publish(version, 0x34, 8, payload)).await;
            assert_eq!(messages.receive().await.unwrap().payload(), payload);
            wire.expect([&[0x50, 2, 0, 8]]).await;
            wire.send(&publish(version, 0x3c, 8, payload)).await;
            wire.expect([&[0x50, 2, 0, 8]]).await;
            wire.send(&[0x62, 2, 0, 8]).await;
            wire.expect([&[0x70, 2, 0, 8]]).await;
        }
    }
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-4.3.3-9]: a refused QoS 2 message is over.
#[tokio::test]
async fn refusals_have_a_reason_code_and_end_the_exchange() {
    let config = Config {
        manual_acknowledge: true,
        ..config(Version::V5)
    };
    let (_client, mut messages, mut wire) = accepted(config, &[]).await;
    for payload in [b"1", b"2"] {
        wire.send(&publish(Version::V5, 0x34, 8, payload)).await;
        let mut received = messages.receive().await.unwrap();
        assert_eq!(
            (received.payload(), received.qos()),
            (payload.as_slice(), QoS::ExactlyOnce)
        );
        received.refuse(ReasonCode::QuotaExceeded).unwrap();
        let pubrec = wire.next().await;
        assert_eq!((pubrec[0], &pubrec[2..5]), (0x50, &[0, 8, 0x97][..]));
    }
    wire.send(&publish(Version::V5, 0x32, 9, b"3")).await;
    let mut received = messages.receive().await.unwrap();
    received.refuse(ReasonCode::NotAuthorized).unwrap();
    let puback = wire.next().await;
    assert_eq!((puback[0], &puback[2..5]), (0x40, &[0, 9, 0x87][..]));
}

/// [MQTT5-3.6.2-1] [MQTT5-3.6.2-2] [MQTT5-3.6.2-3] [MQTT5-3.7.2-1]
#[tokio::test]
async fn identifiers_that_nobody_knows_are_answered_so() {
    let (_client, _messages, mut wire) = connected(Version::V5).await;
    wire.send(&[0x50, 2, 0, 9]).await;
    let pubrel = wire.next().await;
    assert_eq!((pubrel[0], &pubrel[2..5]), (0x62, &[0, 9, 0x92][..]));
    wire.send(&[0x62, 2, 0, 9]).await;
    let pubcomp = wire.next().await;
    assert_eq!((pubcomp[0], &pubcomp[2..5]), (0x70, &[0, 9, 0x92][..]));
}

/// [MQTT5-1.5.4-3] [MQTT311-1.5.3-3]
#[tokio::test]
async fn a_byte_order_mark_is_kept() {
    for version in BOTH {
        let (_client, mut messages, mut wire) = connected(version).await;
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        wire.send(&packet(0x30, &[&string(&[0xef, 0xbb, 0xbf, b'a']), none]))
            .await;
        let received = messages.receive().await.unwrap();
        assert_eq!(received.topic_name().as_str(), "\u{feff}a");
    }
}
