//! DISCONNECT, and what ends the connection without it.

use std::time::Duration;

use avocet_client::{Disconnection, Version};

use crate::BOTH;
use crate::wire::{accepted, config, connected, packet};

const SECOND: Duration = Duration::from_secs(1);

/// [MQTT5-2.1.3-1] [MQTT5-3.14.1-1] [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT311-2.2.2-1]
/// [MQTT311-3.14.4-1] [MQTT311-3.14.4-2]
#[tokio::test]
async fn disconnect_is_the_last_packet() {
    for version in BOTH {
        let (client, _messages, mut wire) = connected(version).await;
        client.disconnect(SECOND).await;
        wire.expect([&[0xe0, 0]]).await;
        wire.expect_end().await;
    }
}

/// [MQTT5-3.14.2-1] [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]: what does not fit is left out.
#[tokio::test]
async fn words_do_not_push_disconnect_over_the_maximum_packet_size() {
    let disconnection = Disconnection {
        reason_code: avocet_client::ReasonCode::DisconnectWithWillMessage,
        reason_string: Some("a reason of some length".into()),
        user_properties: vec![("name".into(), "a value of some length".into())],
        ..Disconnection::default()
    };
    let maximum_packet_size: u8 = 20;
    let properties = [0x27, 0, 0, 0, maximum_packet_size];
    let (client, _messages, mut wire) = accepted(config(Version::V5), &properties).await;
    client.disconnect_with(disconnection, SECOND).await;
    let disconnect = wire.next().await;
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x04));
    assert!(
        disconnect.len() <= usize::from(maximum_packet_size),
        "{disconnect:?}"
    );
    wire.expect_end().await;
}

/// [MQTT5-2.1.3-1] [MQTT5-3.3.1-4] [MQTT5-3.15.1-1] [MQTT5-4.13.1-1] [MQTT5-4.13.2-1]
/// [MQTT311-1.5.3-1] [MQTT311-1.5.3-2] [MQTT311-2.2.2-2] [MQTT311-3.3.1-4] [MQTT311-4.8.0-1]
#[tokio::test]
async fn malformed_packets_end_the_connection() {
    for version in BOTH {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        for malformed in [
            // PUBLISH of QoS 3, PINGRESP with flags, Topic Names of ill-formed UTF-8 and U+0000.
            packet(0x36, &[&[0, 1, b't', 0, 1], none]),
            vec![0xd1, 0],
            packet(0x30, &[&[0, 1, 0xff], none]),
            packet(0x30, &[&[0, 1, 0], none]),
        ] {
            let (client, _messages, mut wire) = connected(version).await;
            wire.send(&malformed).await;
            if version == Version::V5 {
                let disconnect = wire.next().await;
                assert_eq!(
                    (disconnect[0], disconnect[2]),
                    (0xe0, 0x81),
                    "{malformed:?}"
                );
            }
            wire.expect_end().await;
            client.closed().await;
        }
    }
}
