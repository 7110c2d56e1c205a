//! Random sequences of operations keep the invariants: nothing is lost or comes twice beyond what
//! its QoS allows, order is kept, no limit is exceeded, whatever breaks when.

use avocet_codec::{QoS, Version};
use avocet_session::{Limits, ServerConfig};
use proptest::prelude::*;
use std::num::{NonZeroU16, NonZeroU32};

use crate::support::{Pair, outgoing};

#[derive(Clone, Debug)]
enum Op {
    ToClient(QoS),
    ToServer(QoS),
    /// This many bytes arrive at the server, at the client.
    Steps(usize, usize),
    Settle,
    Cut,
    /// The next connection has this Receive Maximum.
    Reconnect(u16),
    Hold(bool),
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => qos().prop_map(Op::ToClient),
        4 => qos().prop_map(Op::ToServer),
        6 => (0..40usize, 0..40usize).prop_map(|(up, down)| Op::Steps(up, down)),
        1 => Just(Op::Settle),
        1 => Just(Op::Cut),
        1 => (1..5u16).prop_map(Op::Reconnect),
        1 => any::<bool>().prop_map(Op::Hold),
    ]
}

struct World {
    pair: Pair,
    window: usize,
    to_client: Vec<(QoS, String)>,
    to_server: Vec<(QoS, String)>,
    broken: bool,
}

impl World {
    fn new(version: Version) -> Self {
        let limits = Limits {
            inflight: 4,
            queue_qos0: true,
            ..Limits::default()
        };
        let receive_maximum = NonZeroU16::new(1_000).unwrap();
        let config = ServerConfig {
            limits,
            receive_maximum,
            ..ServerConfig::default()
        };
        let pair = Pair::connected_with(version, config, |client| {
            client.topic_alias_maximum = 2;
            client.maximum_packet_size = NonZeroU32::new(200);
        });
        Self {
            pair,
            window: 65_535,
            to_client: vec![],
            to_server: vec![],
            broken: false,
        }
    }

    fn apply(&mut self, op: &Op) {
        let number = self.to_client.len() + self.to_server.len();
        let payload = number.to_string();
        match op {
            Op::ToClient(qos) => {
                let _ = self.pair.publish(outgoing(*qos, &payload));
                self.to_client.push((*qos, payload));
            }
            Op::ToServer(qos) => {
                if *qos != QoS::AtMostOnce || self.pair.client.connected {
                    self.pair.client.publish(*qos, &payload);
                    self.to_server.push((*qos, payload));
                }
            }
            Op::Steps(up, down) => {
                self.pair.step_to_server(*up);
                self.pair.step_to_client(*down);
            }
            Op::Settle => self.pair.run(),
            Op::Cut => self.cut(),
            Op::Reconnect(receive_maximum) => {
                self.cut();
                self.pair.client.receive_maximum = NonZeroU16::new(*receive_maximum);
                self.pair.reconnect();
                self.window = usize::from(*receive_maximum);
            }
            Op::Hold(hold) => {
                self.pair.acknowledges = !hold;
                if !hold {
                    self.answer();
                }
            }
        }
        self.check();
    }

    fn answer(&mut self) {
        for token in std::mem::take(&mut self.pair.tokens) {
            // For those of earlier connections nothing leaves, but their Sessions learn of it.
            let success = avocet_codec::ReasonCode::Success;
            if self.pair.server.acknowledge(token, success, None).is_err() {
                self.pair.session_mut().answer(token, success, None);
            }
        }
    }

    fn cut(&mut self) {
        self.broken = true;
        self.pair.cut();
        // The next connection has a window of its own.
        self.pair.client.outstanding_max = 0;
    }

    fn check(&self) {
        let window = if self.pair.client.version == Version::V5 {
            self.window
        } else {
            4
        };
        assert!(self.pair.client.outstanding_max <= window);
        if let Some(reason) = self.pair.closed() {
            assert_eq!(reason, avocet_session::CloseReason::ConnectionLost);
        }
    }

    fn settle(mut self) {
        self.apply(&Op::Hold(false));
        self.apply(&Op::Cut);
        self.pair.reconnect();
        self.pair.run();
        assert!(self.pair.session().is_empty(), "{:?}", self.pair.session());
        assert!(self.pair.client.is_idle(), "{:?}", self.pair.client);
        check_received(&self.to_client, &self.pair.client.received);
        check_received(&self.to_server, &self.pair.received);
    }
}

fn check_received(sent: &[(QoS, String)], received: &[String]) {
    let mut firsts = Vec::new();
    for (qos, payload) in sent {
        let count = received.iter().filter(|it| *it == payload).count();
        match qos {
            QoS::AtMostOnce => assert!(count <= 1, "{payload} came {count} times"),
            QoS::AtLeastOnce => assert!(count >= 1, "{payload} did not come"),
            QoS::ExactlyOnce => assert_eq!(count, 1, "{payload} came {count} times"),
        }
        // [MQTT5-4.6.0-1] [MQTT5-4.6.0-5]: in order for each QoS of a topic.
        if let Some(first) = received.iter().position(|it| it == payload) {
            firsts.push((*qos, first));
        }
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let order = firsts.iter().filter(|it| it.0 == qos).map(|it| it.1);
        assert!(order.is_sorted(), "{qos}: {sent:?} came as {received:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// [MQTT5-4.3.1-1] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT5-4.6.0-1]
    #[test]
    fn whatever_happens_every_message_keeps_its_promise(
        v5 in any::<bool>(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(if v5 { Version::V5 } else { Version::V3_1_1 });
        for op in &ops {
            world.apply(op);
        }
        world.settle();
    }
}
