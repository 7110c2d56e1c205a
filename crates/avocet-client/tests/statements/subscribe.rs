//! SUBSCRIBE and UNSUBSCRIBE.

use avocet_client::{
    QoS, SubscribeError, Subscription, SubscriptionOptions, TopicFilter, Unsubscription, Version,
};

use crate::BOTH;
use crate::wire::{connected, packet, string};

/// [MQTT5-2.2.1-3] [MQTT5-2.2.2-1] [MQTT5-3.8.1-1] [MQTT5-3.8.3-1] [MQTT5-3.8.3-2] [MQTT5-3.10.1-1]
/// [MQTT5-3.10.3-1] [MQTT5-3.10.3-2]
/// [MQTT311-2.2.2-1] [MQTT311-2.3.1-1] [MQTT311-3.8.1-1] [MQTT311-3.8.3-1] [MQTT311-3.8.3-3]
/// [MQTT311-3.10.1-1] [MQTT311-3.10.3-1] [MQTT311-3.10.3-2]
#[tokio::test]
async fn requests_have_their_flags_an_identifier_and_filters() {
    for version in BOTH {
        let (client, _messages, mut wire) = connected(version).await;
        let no_properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let filter = |text| TopicFilter::new(text).unwrap().to_buf();
        let subscription = Subscription {
            filters: vec![
                (filter("é/#"), SubscriptionOptions::new(QoS::ExactlyOnce)),
                (filter("+"), SubscriptionOptions::new(QoS::AtMostOnce)),
            ],
            ..Subscription::default()
        };
        let requests = tokio::spawn(async move {
            client.subscribe_with(subscription).await.unwrap();
            let filters = vec![filter("é/#"), filter("+")];
            let unsubscription = Unsubscription {
                filters,
                ..Unsubscription::default()
            };
            client.unsubscribe_with(unsubscription).await.unwrap();
        });
        let (first, second) = (string("é/#".as_bytes()), string(b"+"));
        let request = wire.next().await;
        let id = [request[2], request[3]];
        assert_ne!(id, [0, 0]);
        let expected = packet(0x82, &[&id, no_properties, &first, &[2], &second, &[0]]);
        assert_eq!(request, expected);
        wire.send(&packet(0x90, &[&id, no_properties, &[2, 0]]))
            .await;
        let request = wire.next().await;
        let id = [request[2], request[3]];
        assert_ne!(id, [0, 0]);
        let expected = packet(0xa2, &[&id, no_properties, &first, &second]);
        assert_eq!(request, expected);
        let codes: &[u8] = if version == Version::V5 { &[0, 0] } else { &[] };
        wire.send(&packet(0xb0, &[&id, no_properties, codes])).await;
        requests.await.unwrap();
    }
}

/// [MQTT5-3.8.3-2] [MQTT5-3.8.3-4] [MQTT5-3.10.3-2] [MQTT311-3.8.3-3] [MQTT311-3.10.3-2]
#[tokio::test]
async fn requests_that_no_server_may_take_are_not_sent() {
    for version in BOTH {
        let (client, _messages, mut wire) = connected(version).await;
        let refused = client.subscribe_with(Subscription::default()).await;
        assert!(matches!(refused, Err(SubscribeError::Unsendable(_))));
        let refused = client.unsubscribe_with(Unsubscription::default()).await;
        assert!(matches!(refused, Err(SubscribeError::Unsendable(_))));
        let options = SubscriptionOptions {
            no_local: true,
            ..SubscriptionOptions::new(QoS::AtMostOnce)
        };
        let shared = TopicFilter::new("$share/g/a").unwrap().to_buf();
        let subscription = Subscription {
            filters: vec![(shared, options)],
            ..Subscription::default()
        };
        let refused = client.subscribe_with(subscription).await;
        assert!(matches!(refused, Err(SubscribeError::Unsendable(_))));
        // What comes is the end.
        let end = tokio::spawn(async move { client.disconnect(crate::DEADLINE).await });
        wire.expect([&[0xe0, 0]]).await;
        drop(wire);
        end.await.unwrap();
    }
}
