//! rumqttc.

use std::net::SocketAddr;

use rumqttc::{AsyncClient, MqttOptions};

use crate::{PAYLOAD, TOPIC, block_on, cpu_ns};

fn client(to: SocketAddr, window: u16) -> (AsyncClient, rumqttc::EventLoop) {
    let mut options = MqttOptions::new("bench", to.ip().to_string(), to.port());
    options.set_inflight(window);
    AsyncClient::new(options, 1000)
}

pub(crate) fn qos0(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (client, mut eventloop) = client(to, 100);
        eventloop.poll().await.unwrap();
        let before = cpu_ns();
        let publishing = tokio::spawn(async move {
            for _ in 0..count {
                let payload = PAYLOAD.to_vec();
                let qos = rumqttc::QoS::AtMostOnce;
                client.publish(TOPIC, qos, false, payload).await.unwrap();
            }
            client.disconnect().await.unwrap();
        });
        while let Ok(event) = eventloop.poll().await {
            if let rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) = event {
                break;
            }
        }
        publishing.await.unwrap();
        cpu_ns() - before
    })
}

pub(crate) fn qos1(to: SocketAddr, count: usize, window: u16) -> f64 {
    block_on(async {
        let (client, mut eventloop) = client(to, window);
        eventloop.poll().await.unwrap();
        let before = cpu_ns();
        let publishing = tokio::spawn(async move {
            for _ in 0..count {
                let payload = PAYLOAD.to_vec();
                let qos = rumqttc::QoS::AtLeastOnce;
                client.publish(TOPIC, qos, false, payload).await.unwrap();
            }
            client
        });
        let mut acknowledged = 0;
        while acknowledged < count {
            let event = eventloop.poll().await.unwrap();
            if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event {
                acknowledged += 1;
            }
        }
        publishing.await.unwrap();
        cpu_ns() - before
    })
}

pub(crate) fn receive(to: SocketAddr, count: usize) -> f64 {
    block_on(async {
        let (_client, mut eventloop) = client(to, 100);
        eventloop.poll().await.unwrap();
        let before = cpu_ns();
        let mut received = 0;
        while received < count / 1000 * 1000 {
            let event = eventloop.poll().await.unwrap();
            if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = event {
                assert_eq!(publish.payload.len(), PAYLOAD.len());
                received += 1;
            }
        }
        cpu_ns() - before
    })
}

/// As many clients, each of which has published a little; how much memory this process has then.
pub(crate) fn memory(to: SocketAddr, clients: usize, published: usize) -> u64 {
    block_on(async {
        let mut standing = Vec::with_capacity(clients);
        for index in 0..clients {
            let mut options =
                MqttOptions::new(format!("bench-{index}"), to.ip().to_string(), to.port());
            options.set_inflight(100);
            let (client, mut eventloop) = AsyncClient::new(options, 10);
            eventloop.poll().await.unwrap();
            let (acknowledged, mut until) = tokio::sync::mpsc::channel(1);
            let _task = tokio::spawn(async move {
                while let Ok(event) = eventloop.poll().await {
                    if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event {
                        let _ = acknowledged.send(()).await;
                    }
                }
            });
            for _ in 0..published {
                let qos = rumqttc::QoS::AtLeastOnce;
                client.publish(TOPIC, qos, false, PAYLOAD).await.unwrap();
                until.recv().await.unwrap();
            }
            standing.push((client, until));
        }
        crate::rss_bytes()
    })
}
