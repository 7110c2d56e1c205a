//! The broker within a program: started, spoken to over streams, stopped.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

use std::num::NonZeroU16;

use avocet_broker::{Broker, Config, ConfigError, StartError};
use avocet_codec::{
    Connect, Delivery, Disconnect, Frame, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilter, TopicFilter, TopicName, Version, frame_len,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: Version = Version::V5;

fn broker(shards: u16) -> Broker {
    let mut config = Config::default();
    config.listen = Vec::new();
    config.shards = NonZeroU16::new(shards);
    Broker::start(config).unwrap()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), packet: Packet<'_>) {
    stream
        .write_all(Frame::encode(&packet, VERSION).unwrap().bytes())
        .await
        .unwrap();
    stream.flush().await.unwrap();
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut bytes = Vec::new();
    while frame_len(&bytes, u32::MAX)
        .unwrap()
        .is_none_or(|len| bytes.len() < len)
    {
        let missing = frame_len(&bytes, u32::MAX)
            .unwrap()
            .map_or(1, |len| len - bytes.len());
        let start = bytes.len();
        bytes.resize(start + missing, 0);
        stream.read_exact(&mut bytes[start..]).await.ok()?;
    }
    Some(Frame::new(bytes.into(), VERSION).unwrap())
}

async fn connect(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), client_id: &str) {
    send(stream, Packet::Connect(Connect::new(VERSION, client_id))).await;
    let frame = receive(stream).await.unwrap();
    assert!(matches!(frame.packet(), Packet::Connack(_)), "{frame:?}");
}

async fn subscribe(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), filter: &str) {
    let filters = [SubscribeFilter::new(
        TopicFilter::new(filter).unwrap(),
        QoS::AtLeastOnce,
    )];
    let subscribe = Subscribe::new(PacketId::new(1).unwrap(), &filters);
    send(stream, Packet::Subscribe(subscribe)).await;
    let frame = receive(stream).await.unwrap();
    assert!(matches!(frame.packet(), Packet::Suback(_)), "{frame:?}");
}

fn publish<'a>(name: &'a str, payload: &'a [u8]) -> Packet<'a> {
    let name = TopicName::new(name).unwrap();
    Packet::Publish(Publish::new(name, Delivery::AtMostOnce, payload))
}

async fn receive_payload(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let frame = receive(stream).await.unwrap();
    let Packet::Publish(publish) = frame.packet() else {
        panic!("{frame:?}")
    };
    publish.payload.to_vec()
}

#[tokio::test]
async fn clients_in_process_and_over_tcp_meet() {
    for shards in [1, 3] {
        let mut config = Config::default();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.shards = NonZeroU16::new(shards);
        let broker = Broker::start(config).unwrap();
        let mut inside = broker.connect_in_process();
        connect(&mut inside, "inside").await;
        subscribe(&mut inside, "a/b").await;
        let outside = std::net::TcpStream::connect(broker.local_addrs()[0]).unwrap();
        outside.set_nonblocking(true).unwrap();
        let mut outside = tokio::net::TcpStream::from_std(outside).unwrap();
        connect(&mut outside, "outside").await;
        send(&mut outside, publish("a/b", b"hello")).await;
        assert_eq!(receive_payload(&mut inside).await, b"hello");
        broker.stop().unwrap();
    }
}

#[tokio::test]
async fn any_byte_stream_is_served() {
    let broker = broker(2);
    // A small pipe, so that writing must wait for reading.
    let (mut client, server) = tokio::io::duplex(100);
    let serving = tokio::spawn(broker.serve(server));
    connect(&mut client, "duplex").await;
    subscribe(&mut client, "#").await;
    let payload = vec![7; 10_000];
    for _ in 0..20 {
        send(&mut client, publish("t", &payload)).await;
        assert_eq!(receive_payload(&mut client).await, payload);
    }
    send(
        &mut client,
        Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
    )
    .await;
    // The broker closes, and with it the future ends, though this end is still open.
    serving.await.unwrap().unwrap();
    assert!(receive(&mut client).await.is_none());
}

#[tokio::test]
async fn a_client_that_goes_ends_the_future() {
    let broker = broker(1);
    let (mut client, server) = tokio::io::duplex(1_000);
    let serving = tokio::spawn(broker.serve(server));
    connect(&mut client, "brief").await;
    drop(client);
    // The other end cannot be written to any more, which may be noticed or not.
    let _ = serving.await.unwrap();
}

#[tokio::test]
async fn a_reader_that_waits_loses_nothing() {
    let broker = broker(2);
    let mut lazy = broker.connect_in_process();
    connect(&mut lazy, "lazy").await;
    subscribe(&mut lazy, "flood").await;
    let mut keen = broker.connect_in_process();
    connect(&mut keen, "keen").await;
    let payload = vec![1; 10_000];
    for _ in 0..100 {
        send(&mut keen, publish("flood", &payload)).await;
    }
    send(&mut keen, Packet::Pingreq).await;
    assert_eq!(receive(&mut keen).await.unwrap().packet(), Packet::Pingresp);
    for _ in 0..100 {
        assert_eq!(receive_payload(&mut lazy).await, payload);
    }
}

#[tokio::test]
async fn a_stop_tells_clients_and_closes_their_streams() {
    for shards in [1, 3] {
        let broker = broker(shards);
        let mut client = broker.connect_in_process();
        connect(&mut client, "client").await;
        let stopper = broker.stopper();
        stopper.stop();
        let frame = receive(&mut client).await.unwrap();
        let Packet::Disconnect(disconnect) = frame.packet() else {
            panic!("{frame:?}")
        };
        assert_eq!(disconnect.reason_code, ReasonCode::ServerShuttingDown);
        assert!(receive(&mut client).await.is_none());
        drop(client);
        broker.wait().unwrap();
    }
}

#[tokio::test]
async fn dropping_the_broker_closes_streams() {
    let broker = broker(2);
    let mut client = broker.connect_in_process();
    connect(&mut client, "client").await;
    drop(broker);
    while receive(&mut client).await.is_some() {}
}

#[tokio::test]
async fn a_stream_of_a_stopped_broker_is_closed() {
    let first = broker(1);
    let stopper = first.stopper();
    stopper.stop();
    let mut client = first.connect_in_process();
    let mut byte = [0];
    assert_eq!(client.read(&mut byte).await.unwrap(), 0);
}

#[test]
fn brokers_in_one_program_do_not_meet() {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let first = Broker::start(config.clone()).unwrap();
    let second = Broker::start(config).unwrap();
    assert_ne!(first.local_addrs(), second.local_addrs());
    first.stop().unwrap();
    second.stop().unwrap();
}

#[test]
fn a_configuration_is_checked_before_anything_starts() {
    let mut config = Config::default();
    config.listen = vec!["0.0.0.0:0".parse().unwrap()];
    let Err(StartError::Config(ConfigError::Refused { key, .. })) = Broker::start(config) else {
        panic!("a public listener without permission");
    };
    assert_eq!(key, "listen");
}

#[test]
fn a_port_in_use_is_refused() {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    let first = Broker::start(config.clone()).unwrap();
    config.listen = vec![first.local_addrs()[0].into()];
    assert!(matches!(Broker::start(config), Err(StartError::Listen(_))));
}
