//! What an application is subscribed to, over several connections.

use avocet_codec::{
    Connack, List, Packet, PacketId, QoS, ReasonCode, SubscriptionId, SubscriptionOptions,
    TopicFilter, TopicName, Version,
};
use avocet_session::client::{
    ClientConfig, ClientConnection, ClientEvent, SubscribeError, SubscriptionRequest, Subscriptions,
};
use avocet_session::{Now, Session, TransmitBuf};

/// A connection that a server accepted, with identifiers or without them.
fn connected(ids: bool) -> ClientConnection {
    let config = ClientConfig::new(Version::V5, "c");
    let mut connection = ClientConnection::new(config, Session::new(), Now::default());
    let mut connack = Connack::new(ReasonCode::Success);
    connack.properties.subscription_ids_available = ids;
    let mut bytes = Vec::new();
    Packet::Connack(connack)
        .encode(Version::V5, &mut bytes)
        .unwrap();
    drop(sent(&mut connection));
    let read = connection.handle_input(&bytes, Now::default());
    assert!(matches!(read.event, Some(ClientEvent::Connected(_))));
    connection
}

fn sent(connection: &mut ClientConnection) -> Vec<u8> {
    let mut out = TransmitBuf::new(1 << 16);
    connection.poll_transmit(Now::default(), &mut out);
    out.slices().flatten().copied().collect()
}

/// The identifiers and filters of the SUBSCRIBE packets that leave, and their Packet Identifiers.
fn subscribes(connection: &mut ClientConnection) -> Vec<(Option<u32>, Vec<String>, PacketId)> {
    let bytes = sent(connection);
    let mut rest = bytes.as_slice();
    let mut all = Vec::new();
    while let Some(packet) = Packet::decode_next(&mut rest, Version::V5, u32::MAX).unwrap() {
        if let Packet::Subscribe(subscribe) = packet {
            let filters = subscribe.filters.iter();
            let filters = filters.map(|it| it.topic_filter.to_string()).collect();
            let id = subscribe.subscription_id.map(SubscriptionId::get);
            all.push((id, filters, subscribe.packet_id));
        }
    }
    all
}

fn request(filter: &str, routed: bool) -> SubscriptionRequest {
    let filter = TopicFilter::new(filter).unwrap().to_buf();
    SubscriptionRequest {
        filters: vec![(filter, SubscriptionOptions::new(QoS::AtLeastOnce))],
        routed,
        ..SubscriptionRequest::default()
    }
}

fn answer(
    connection: &mut ClientConnection,
    subscriptions: &mut Subscriptions,
    packet_id: PacketId,
    reason_code: ReasonCode,
) -> Option<bool> {
    let reason_codes = [reason_code];
    let suback = avocet_codec::Suback {
        packet_id,
        reason_string: None,
        user_properties: List::EMPTY,
        reason_codes: List::from_slice(&reason_codes),
    };
    let mut bytes = Vec::new();
    Packet::Suback(suback)
        .encode(Version::V5, &mut bytes)
        .unwrap();
    let read = connection.handle_input(&bytes, Now::default());
    let Some(ClientEvent::Subscribed { id, suback }) = read.event else {
        panic!("a SUBACK that was due");
    };
    let codes: Vec<_> = suback.reason_codes.iter().collect();
    subscriptions.handle_answered(id, &codes).map(|it| it.first)
}

#[test]
fn what_was_granted_is_asked_for_again_in_a_new_session_only() {
    let mut subscriptions = Subscriptions::default();
    let mut connection = connected(true);
    subscriptions.handle_connected(false, &connection);
    let a = subscriptions.subscribe(request("a/#", true));
    subscriptions.subscribe(request("refused", false));
    subscriptions.subscribe(request("unanswered", false));
    assert_eq!(subscriptions.poll(&mut connection), None);
    let asked = subscribes(&mut connection);
    let filters: Vec<_> = asked
        .iter()
        .map(|(_, filters, _)| filters[0].as_str())
        .collect();
    assert_eq!(filters, ["a/#", "refused", "unanswered"]);
    assert!(asked[0].0.is_some() && asked[1].0.is_none());
    let mut reply = |at: usize, code| {
        let packet_id = asked[at].2;
        answer(&mut connection, &mut subscriptions, packet_id, code)
    };
    assert_eq!(reply(0, ReasonCode::GrantedQoS1), Some(true));
    assert_eq!(reply(1, ReasonCode::NotAuthorized), Some(true));

    // The server has kept the Session: only what it has not answered.
    let mut connection = connected(true);
    subscriptions.handle_connected(true, &connection);
    assert_eq!(subscriptions.poll(&mut connection), None);
    let again = subscribes(&mut connection);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1, ["unanswered"]);

    // It has not: everything but what it had refused, with the identifiers as they were.
    let mut connection = connected(true);
    subscriptions.handle_connected(false, &connection);
    assert_eq!(subscriptions.poll(&mut connection), None);
    let anew = subscribes(&mut connection);
    assert_eq!(anew.len(), 2);
    assert_eq!((&anew[0].0, &anew[0].1), (&asked[0].0, &asked[0].1));
    let first = answer(
        &mut connection,
        &mut subscriptions,
        anew[0].2,
        ReasonCode::GrantedQoS1,
    );
    assert_eq!(first, Some(false), "the application has its answer");
    assert_eq!(subscriptions.forget(a).len(), 1);
}

#[test]
fn messages_go_by_identifier_where_there_are_any_and_by_name_otherwise() {
    let name = TopicName::new("a/b").unwrap();
    for ids in [true, false] {
        let mut subscriptions = Subscriptions::default();
        let mut connection = connected(ids);
        subscriptions.handle_connected(false, &connection);
        let a = subscriptions.subscribe(request("a/#", true));
        let b = subscriptions.subscribe(request("$share/group/+/b", true));
        subscriptions.subscribe(request("#", false));
        assert_eq!(subscriptions.poll(&mut connection), None);
        let asked = subscribes(&mut connection);
        let id = |at: usize| asked[at].0.and_then(SubscriptionId::new);
        let route = |given: &[SubscriptionId]| subscriptions.route(name, given).collect::<Vec<_>>();
        if ids {
            let (first, second) = (id(0).unwrap(), id(1).unwrap());
            assert_eq!(route(&[second, first]), [b, a]);
            assert_eq!(route(&[]), []);
            // Of an earlier process, which had given it to something else.
            let other = TopicName::new("c").unwrap();
            assert_eq!(subscriptions.route(other, &[first]).count(), 0);
        } else {
            assert_eq!((id(0), id(1)), (None, None));
            assert_eq!(route(&[]), [a, b]);
        }
    }
}

#[test]
fn what_cannot_be_asked_for_fails_alone() {
    let mut subscriptions = Subscriptions::default();
    let mut connection = connected(true);
    subscriptions.handle_connected(false, &connection);
    let nothing = subscriptions.subscribe(SubscriptionRequest::default());
    subscriptions.subscribe(request("a", false));
    let failed = subscriptions.poll(&mut connection);
    assert_eq!(failed, Some((nothing, SubscribeError::NoTopicFilters)));
    assert_eq!(subscriptions.poll(&mut connection), None);
    assert_eq!(subscribes(&mut connection).len(), 1);
    assert_eq!(subscriptions.pending(), 1);
}
