//! The Session, over several connections.

use avocet_client::{Client, Config, Messages, QoS, Session, Version};

use crate::wire::{Wire, accepted, config, connecting, packet, resumed, string};
use crate::{BOTH, message};

/// The connection of a client that keeps its Session.
fn keeping(version: Version) -> Config {
    let mut config = config(version);
    config.connection.clean_start = false;
    config.connection.session_known = true;
    if version == Version::V5 {
        config.connection.session_expiry_interval = u32::MAX;
    }
    config
}

fn publish(version: Version, first_byte: u8, id: u8) -> Vec<u8> {
    let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    packet(first_byte, &[&string(b"t"), &[0, id], none, &[id]])
}

/// Three messages of this QoS that were sent.
async fn three_sent(version: Version, qos: QoS) -> (Client, Messages, Wire) {
    let (client, messages, mut wire) = accepted(keeping(version), &[]).await;
    for id in 1..=3 {
        drop(client.start_publish(message(&[id], qos)).await.unwrap());
        wire.next().await;
    }
    (client, messages, wire)
}

async fn lost(messages: Messages, wire: Wire) -> Session {
    drop(wire);
    messages.into_session().await
}

/// [MQTT5-3.1.3-2] [MQTT5-3.3.1-1] [MQTT5-4.1.0-1] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1]
/// [MQTT311-3.1.2-4] [MQTT311-3.1.3-2] [MQTT311-3.3.1-1] [MQTT311-4.1.0-1] [MQTT311-4.1.0-2]
/// [MQTT311-4.4.0-1] [MQTT311-4.6.0-1]
#[tokio::test]
async fn messages_are_sent_again_in_their_order_with_dup() {
    for version in BOTH {
        for (qos, first_byte) in [(QoS::AtLeastOnce, 0x3a), (QoS::ExactlyOnce, 0x3c)] {
            let (_client, messages, wire) = three_sent(version, qos).await;
            let session = lost(messages, wire).await;
            let (client, connect, mut wire) = connecting(keeping(version), session).await;
            assert_eq!(connect[9] & 0x02, 0, "Clean Start");
            assert!(connect.ends_with(&string(b"c")));
            wire.accept(1, &[]).await;
            wire.expect([
                &publish(version, first_byte, 1),
                &publish(version, first_byte, 2),
                &publish(version, first_byte, 3),
            ])
            .await;
            client.await.unwrap().unwrap();
        }
    }
}

/// [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT5-4.6.0-4] [MQTT311-4.4.0-1] [MQTT311-4.6.0-4]: in the order
/// of PUBREC, also when they are sent again, and without their PUBLISH.
#[tokio::test]
async fn pubrel_comes_in_the_order_of_pubrec() {
    for version in BOTH {
        let (_client, messages, mut wire) = three_sent(version, QoS::ExactlyOnce).await;
        for id in [1, 2, 3] {
            wire.send(&[0x50, 2, 0, id]).await;
        }
        let pubrels: [&[u8]; 3] = [&[0x62, 2, 0, 1], &[0x62, 2, 0, 2], &[0x62, 2, 0, 3]];
        wire.expect(pubrels).await;
        let session = lost(messages, wire).await;
        let (_client, _messages, mut wire) = resumed(keeping(version), session, &[]).await;
        wire.expect(pubrels).await;
    }
}

/// [MQTT5-3.1.2-4] [MQTT311-3.1.2-6]
#[tokio::test]
async fn a_clean_start_leaves_nothing_of_the_session() {
    for version in BOTH {
        let (_client, messages, wire) = three_sent(version, QoS::AtLeastOnce).await;
        let session = lost(messages, wire).await;
        assert_eq!(session.in_flight(), 3);
        let (client, connect, mut wire) = connecting(config(version), session).await;
        assert_eq!(connect[9] & 0x02, 0x02, "Clean Start");
        wire.accept(0, &[]).await;
        let (client, _messages) = client.await.unwrap().unwrap();
        drop(
            client
                .start_publish(message(b"new", QoS::AtMostOnce))
                .await
                .unwrap(),
        );
        let new = wire.next().await;
        assert!(new[0] == 0x30 && new.ends_with(b"new"), "{new:?}");
    }
}
