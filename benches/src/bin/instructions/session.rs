//! A server's connection, which receives or sends a turn of messages.

use std::hint::black_box;
use std::sync::Arc;

use avocet_codec::{Ack, Connect, Packet, QoS, ReasonCode, TopicName, Version};
use avocet_session::{
    Accept, Message, Now, Outgoing, ServerConfig, ServerConnection, ServerEvent, Session,
    TransmitBuf,
};

use crate::{MESSAGES, PAYLOAD, VERSIONS, Work, encoded, packet_id, publishes};

const TOPIC: &str = "site/17/line/4/device/1234/metric";

pub(crate) fn works() -> Vec<Work> {
    let mut works = Vec::new();
    for version in VERSIONS {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            works.push(Work::new(
                format!("session receive q{qos} {version}"),
                MESSAGES.into(),
                move || receive(version, qos),
            ));
        }
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            works.push(Work::new(
                format!("session send q{qos} {version}"),
                MESSAGES.into(),
                move || send(version, qos),
            ));
        }
    }
    works
}

fn connected(version: Version) -> ServerConnection {
    let now = Now::default();
    let mut server = ServerConnection::new(Arc::new(ServerConfig::default()), now);
    let connect = encoded(version, &Packet::Connect(Connect::new(version, "client")));
    server.handle_input(&connect, now);
    server.accept(Box::new(Session::new()), Accept::default(), now);
    server.poll_transmit(now, &mut TransmitBuf::new(1_000));
    server
}

fn read(server: &mut ServerConnection, mut input: &[u8]) {
    let now = Now::default();
    while !input.is_empty() {
        let read = server.handle_input(input, now);
        input = &input[read.consumed..];
        if let Some(ServerEvent::Publish { publish, token }) = read.event {
            black_box(publish.topic_name());
            if let Some(token) = token {
                server
                    .acknowledge(token, ReasonCode::Success, None)
                    .unwrap();
            }
        }
    }
}

fn receive(version: Version, qos: QoS) -> impl FnMut() {
    let mut server = connected(version);
    let mut out = TransmitBuf::new(usize::MAX);
    let publishes = publishes(version, TOPIC, qos);
    let mut pubrels = Vec::new();
    if qos == QoS::ExactlyOnce {
        for id in 1..=MESSAGES {
            pubrels.extend(encoded(version, &Packet::Pubrel(Ack::new(packet_id(id)))));
        }
    }
    move || {
        read(&mut server, &publishes);
        read(&mut server, &pubrels);
        server.poll_transmit(Now::default(), &mut out);
        black_box(out.len());
        out.clear();
    }
}

fn send(version: Version, qos: QoS) -> impl FnMut() {
    let now = Now::default();
    let limits = ServerConfig::default().limits;
    let mut server = connected(version);
    let mut out = TransmitBuf::new(usize::MAX);
    let message = Message::new(TopicName::new(TOPIC).unwrap(), &PAYLOAD).with_qos(qos);
    let mut id = 0_u16;
    move || {
        for _ in 0..MESSAGES {
            let session = server.session_mut().unwrap();
            let _ = session.enqueue(Outgoing::new(message.clone()), &limits, now);
        }
        // Should the window be smaller than a turn, it takes several rounds.
        loop {
            server.poll_transmit(now, &mut out);
            if server.session().unwrap().in_flight() == 0 {
                break;
            }
            while server.session().unwrap().in_flight() > 0 {
                id = id % u16::MAX + 1;
                let [high, low] = id.to_be_bytes();
                server.handle_input(&[0x40, 2, high, low], now);
            }
        }
        black_box(out.len());
        out.clear();
    }
}
