//! avocet-client.

use std::collections::VecDeque;
use std::net::SocketAddr;

use avocet_client::{Client, ClientConfig, Config, Message, QoS, TopicName, Version, WhenSlow};

use crate::{FOREVER, PAYLOAD, TOPIC, block_on, cpu_ns};

fn config(to: SocketAddr) -> Config {
    let mut connection = ClientConfig::new(Version::V3_1_1, "bench");
    connection.limits.inflight = 1000;
    let mut config = Config::with_connection(connection);
    config.host = to.ip().to_string();
    config.port = to.port();
    config.reconnect = None;
    config.when_slow = WhenSlow::StopReading;
    config.publish_max = 1000;
    config
}

fn message() -> Message {
    Message::new(TopicName::new(TOPIC).unwrap(), &PAYLOAD)
}

pub(crate) fn qos0(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (client, _messages) = Client::connect(config(to)).await.unwrap();
        let before = cpu_ns();
        for _ in 0..count {
            client.publish(message()).await.unwrap();
        }
        client.disconnect(FOREVER).await;
        cpu_ns() - before
    })
}

pub(crate) fn qos1(to: SocketAddr, count: usize, window: usize) -> f64 {
    block_on(async {
        let (client, _messages) = Client::connect(config(to)).await.unwrap();
        let before = cpu_ns();
        let mut pending = VecDeque::with_capacity(window);
        for _ in 0..count {
            if pending.len() == window {
                let oldest: avocet_client::Pending = pending.pop_front().unwrap();
                oldest.await.unwrap();
            }
            let message = message().with_qos(QoS::AtLeastOnce);
            pending.push_back(client.start_publish(message).await.unwrap());
        }
        for pending in pending {
            pending.await.unwrap();
        }
        cpu_ns() - before
    })
}

pub(crate) fn receive(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (_client, mut messages) = Client::connect(config(to)).await.unwrap();
        let before = cpu_ns();
        for _ in 0..count / 1000 * 1000 {
            assert_eq!(
                messages.receive().await.unwrap().payload().len(),
                PAYLOAD.len()
            );
        }
        cpu_ns() - before
    })
}

/// As many clients, each of which has published a little; how much memory this process has then.
pub(crate) fn memory(to: SocketAddr, clients: usize, published: usize) -> u64 {
    block_on(async {
        let mut standing = Vec::with_capacity(clients);
        for index in 0..clients {
            let mut config = config(to);
            config.connection.client_id = format!("bench-{index}");
            standing.push(Client::connect(config).await.unwrap());
        }
        for (client, _messages) in &standing {
            for _ in 0..published {
                let message = message().with_qos(QoS::AtLeastOnce);
                client.publish(message).await.unwrap();
            }
        }
        crate::rss_bytes()
    })
}
