//! ntex-mqtt, on its own runtime as it comes.

use std::cell::Cell;
use std::net::SocketAddr;

use ntex_bytes::{ByteString, Bytes};
use ntex_mqtt::MqttServiceConfig;
use ntex_mqtt::v3::MqttSink;
use ntex_mqtt::v3::client::{Client, Connect, MqttConnector, ProtocolMessage};
use ntex_net::DefaultRuntime;
use ntex_rt::System;
use ntex_service::cfg::SharedCfg;
use ntex_service::{Pipeline, fn_service};

use crate::{PAYLOAD, TOPIC, cpu_ns};

/// How many messages of QoS 0, which it buffers without a bound, go to its buffer before the
/// stream has its turn: as many as the other clients are allowed.
const QOS0_BURST: usize = 1000;

fn block_on<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    System::build()
        .testing()
        .build(DefaultRuntime)
        .block_on(future)
}

async fn connect(to: SocketAddr, window: u16) -> Client {
    let config = MqttServiceConfig::new().set_max_send(window);
    let config: SharedCfg = SharedCfg::new("bench").add(config).into();
    let connect = Connect::new(to).client_id("bench");
    let connector = Pipeline::new(config, MqttConnector::new());
    connector.call(connect).await.unwrap()
}

fn start(client: Client) -> MqttSink {
    let sink = client.sink();
    drop(ntex_rt::spawn(client.start_default()));
    sink
}

pub(crate) fn qos0(to: SocketAddr, count: usize) -> f64 {
    block_on(async move {
        let sink = start(connect(to, 100).await);
        let before = cpu_ns();
        for index in 0..count {
            let payload = Bytes::copy_from_slice(&PAYLOAD);
            let publish = sink.publish(ByteString::from_static(TOPIC));
            publish.send_at_most_once(payload).unwrap();
            if index % QOS0_BURST == QOS0_BURST - 1 {
                crate::yield_now().await;
            }
        }
        // What it answers says that everything before has left.
        let publish = sink.publish(ByteString::from_static(TOPIC));
        publish.send_at_least_once(Bytes::new()).await.unwrap();
        cpu_ns() - before
    })
}

/// It sends when its future is polled, so there are as many tasks as messages in flight.
pub(crate) fn qos1(to: SocketAddr, count: usize, window: u16) -> f64 {
    block_on(async move {
        let sink = start(connect(to, window).await);
        let before = cpu_ns();
        let mut tasks = Vec::new();
        for _ in 0..window {
            let sink = sink.clone();
            tasks.push(ntex_rt::spawn(async move {
                for _ in 0..count / usize::from(window) {
                    let payload = Bytes::copy_from_slice(&PAYLOAD);
                    let publish = sink.publish(ByteString::from_static(TOPIC));
                    publish.send_at_least_once(payload).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        cpu_ns() - before
    })
}

pub(crate) fn receive(to: SocketAddr, count: usize) -> f64 {
    let count = count / 1000 * 1000;
    block_on(async move {
        let client = connect(to, 100).await;
        let before = cpu_ns();
        let (done, all) = tokio::sync::oneshot::channel();
        let (received, done) = (Cell::new(0), Cell::new(Some(done)));
        let on_message = fn_service(async move |message: ProtocolMessage| {
            if let ProtocolMessage::Publish(publish) = &message {
                assert_eq!(publish.payload_size(), PAYLOAD.len());
                received.set(received.get() + 1);
                if received.get() == count {
                    let _ = done.take().unwrap().send(());
                }
            }
            Ok::<_, ()>(message.ack())
        });
        drop(ntex_rt::spawn(client.start(on_message)));
        all.await.unwrap();
        cpu_ns() - before
    })
}

/// As many clients, each of which has published a little; how much memory this process has then.
pub(crate) fn memory(to: SocketAddr, clients: usize, published: usize) -> u64 {
    block_on(async move {
        let mut standing = Vec::with_capacity(clients);
        for _ in 0..clients {
            let sink = start(connect(to, 100).await);
            for _ in 0..published {
                let payload = Bytes::copy_from_slice(&PAYLOAD);
                let publish = sink.publish(ByteString::from_static(TOPIC));
                publish.send_at_least_once(payload).await.unwrap();
            }
            standing.push(sink);
        }
        crate::rss_bytes()
    })
}
