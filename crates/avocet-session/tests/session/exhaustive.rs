//! Every position at which the network can break in an exchange, both directions, byte by byte.

use avocet_codec::{QoS, Version};
use avocet_session::ServerConfig;

use crate::support::{Pair, outgoing};

const PAYLOADS: [&str; 2] = ["one", "two"];

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    version: Version,
    qos: QoS,
    direction: Direction,
    /// Whether the server's bytes travel before the client's.
    server_first: bool,
    /// Whether the server hands out one packet at a time, or all it has.
    one_by_one: bool,
}

fn cases(qos: QoS) -> impl Iterator<Item = Case> {
    let versions = [Version::V3_1_1, Version::V5];
    versions.into_iter().flat_map(move |version| {
        [Direction::ToServer, Direction::ToClient]
            .into_iter()
            .flat_map(move |direction| {
                (0..4).map(move |bits| Case {
                    version,
                    qos,
                    direction,
                    server_first: bits & 1 != 0,
                    one_by_one: bits & 2 != 0,
                })
            })
    })
}

impl Case {
    fn start(self) -> Pair {
        let mut pair = Pair::connected_with(self.version, ServerConfig::default(), |client| {
            client.clean_start = false;
        });
        if self.one_by_one {
            pair.transmit_limit = 1;
        }
        for payload in PAYLOADS {
            match self.direction {
                Direction::ToServer => pair.client.publish(self.qos, payload),
                Direction::ToClient => {
                    let _ = pair.publish(outgoing(self.qos, payload));
                }
            }
        }
        pair
    }

    /// One byte moves; false when none is left to move.
    fn step(self, pair: &mut Pair) -> bool {
        let moved = if self.server_first {
            pair.step_to_client(1)
        } else {
            pair.step_to_server(1)
        };
        moved || pair.step_to_client(1) || pair.step_to_server(1)
    }

    /// Runs up to `steps` steps; whether there were as many.
    fn run(self, pair: &mut Pair, steps: usize) -> bool {
        (0..steps).all(|_| self.step(pair))
    }

    fn finish(self, mut pair: Pair, cuts: &[usize]) {
        let context = format!("{self:?}, cuts {cuts:?}");
        let mut steps = 0;
        while self.step(&mut pair) {
            steps += 1;
            assert!(steps < 10_000, "no end: {context}");
        }
        let received = match self.direction {
            Direction::ToServer => &pair.received,
            Direction::ToClient => &pair.client.received,
        };
        if self.qos == QoS::ExactlyOnce {
            assert_eq!(*received, PAYLOADS, "{context}");
        } else {
            // [MQTT5-4.6.0-1]: no message comes for the first time after a later one.
            let firsts: Vec<_> = PAYLOADS
                .iter()
                .map(|payload| received.iter().position(|it| it == payload))
                .collect();
            assert!(
                firsts.iter().all(Option::is_some),
                "{context}: {received:?}"
            );
            assert!(firsts.is_sorted(), "{context}: {received:?}");
            assert!(
                received.len() <= PAYLOADS.len() * (cuts.len() + 1),
                "{context}"
            );
        }
        assert!(pair.client.is_idle(), "{context}: {:?}", pair.client);
        assert!(pair.session().is_empty(), "{context}: {:?}", pair.session());
        assert!(pair.closed().is_none_or(|_| !cuts.is_empty()), "{context}");
        assert!(!pair.server.is_closed(), "{context}");
    }

    /// Breaks the connection after every number of bytes, and the one after it too.
    fn enumerate(self) -> usize {
        let mut runs = 0;
        for first in 0.. {
            for second in 0.. {
                let mut pair = self.start();
                if !self.run(&mut pair, first) {
                    self.finish(pair, &[]);
                    return runs;
                }
                pair.cut();
                pair.reconnect();
                let cut_again = self.run(&mut pair, second);
                if cut_again {
                    pair.cut();
                    pair.reconnect();
                }
                let cuts = if cut_again {
                    &[first, second][..]
                } else {
                    &[first][..]
                };
                self.finish(pair, cuts);
                runs += 1;
                if !cut_again {
                    break;
                }
            }
        }
        runs
    }
}

/// [MQTT5-4.3.2-1] [MQTT5-4.3.2-2] [MQTT5-4.3.2-4] [MQTT5-4.4.0-1]
/// [MQTT311-4.3.2-1] [MQTT311-4.3.2-2] [MQTT311-4.4.0-1]
#[test]
fn qos1_arrives_at_least_once_wherever_the_network_breaks() {
    for case in cases(QoS::AtLeastOnce) {
        assert!(case.enumerate() > 100, "{case:?}");
    }
}

/// [MQTT5-4.3.3-1] [MQTT5-4.3.3-2] [MQTT5-4.3.3-8] [MQTT5-4.3.3-10] [MQTT5-4.4.0-1]
/// [MQTT311-4.3.3-1] [MQTT311-4.3.3-2] [MQTT311-4.4.0-1]
#[test]
fn qos2_arrives_exactly_once_wherever_the_network_breaks() {
    for case in cases(QoS::ExactlyOnce) {
        assert!(case.enumerate() > 100, "{case:?}");
    }
}
