//! Shards whose turns the threads of others take, as they do where little is to be done.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "deadlines of real time are what is tested"
)]

mod common;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use avocet_codec::{Ack, Connect, Delivery, Packet, QoS, Version};
use common::{Client, Server, id};

/// Four shards, and nothing that happens by itself.
fn server() -> Server {
    Server::start(&["--shards", "4", "--set", "mqtt.sys_interval=0s"])
}

/// Pairs of clients, most of which are of two shards.
fn pairs(server: &Server, qos: QoS) -> Vec<(Client, Client)> {
    (0..16)
        .map(|pair| {
            let mut subscriber = server.connect(Version::V5, &format!("sub-{pair}"));
            subscriber.subscribe(&format!("t/{pair}"), qos);
            let publisher = server.connect(Version::V3_1_1, &format!("pub-{pair}"));
            (publisher, subscriber)
        })
        .collect()
}

/// A file of the system about each thread of a shard.
#[cfg(target_os = "linux")]
fn of_shards(server: &Server, name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    tasks
        .map(|task| task.unwrap().path())
        .filter(|task| read(task.join("comm")).starts_with("shard-"))
        .map(|task| read(task.join(name)))
        .collect()
}

/// How often the threads of shards have waited for something.
#[cfg(target_os = "linux")]
fn waits(server: &Server) -> u64 {
    of_shards(server, "status")
        .iter()
        .map(|status| {
            let line = status.lines().find_map(|line| {
                let count = line.strip_prefix("voluntary_ctxt_switches:")?;
                count.trim().parse::<u64>().ok()
            });
            line.unwrap()
        })
        .sum()
}

#[test]
#[cfg(target_os = "linux")]
fn messages_that_come_seldom_wake_one_thread_each() {
    let server = server();
    let mut pairs = pairs(&server, QoS::AtMostOnce);
    let messages = 3 * pairs.len() as u64;
    let (_nobody, never) = channel::<()>();
    let rounds = (0..10_u64).map(|round| {
        let before = waits(&server);
        for number in 0..messages {
            let pair = usize::try_from(number).unwrap() % pairs.len();
            let (publisher, subscriber) = &mut pairs[pair];
            let payload = (round * messages + number).to_be_bytes();
            publisher.publish(&format!("t/{pair}"), Delivery::AtMostOnce, &payload);
            let expected = (payload.to_vec(), Delivery::AtMostOnce);
            assert_eq!(subscriber.receive_publish(), expected);
            // Little to do, also for a program that is not optimized.
            assert!(never.recv_timeout(Duration::from_millis(3)).is_err());
        }
        waits(&server) - before
    });
    // On a machine with much else to do a shard may take itself for a busy one for a while: the best round counts. With
    // a thread woken for each message that crosses, three of four, it would be 1.75.
    let waits = rounds.min().unwrap();
    assert!(
        4 * waits < 5 * messages,
        "{waits} waits for {messages} messages"
    );
}

/// How a thread is scheduled: the 41st field, of which the name of the thread is the second.
#[cfg(target_os = "linux")]
fn policy(stat: &str) -> &str {
    let behind_name = stat.rsplit_once(')').unwrap().1;
    behind_name.split_whitespace().nth(41 - 3).unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn threads_of_shards_take_no_processor_from_each_other() {
    // As it is for our own threads, which say also what this system permits.
    let own = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        policy(&stat).to_owned()
    };
    let waiting = move || avocet_linux::wait_when_woken().map_or_else(|_| own(), |_| own());
    let waiting = std::thread::spawn(waiting).join().unwrap();
    for (shards, expected) in [("1", own()), ("2", waiting)] {
        let server = Server::start(&["--shards", shards]);
        // A shard answers when its thread is set up.
        for client in 0..8 {
            server.connect(Version::V5, &format!("client-{client}"));
        }
        let stats = of_shards(&server, "stat");
        assert_eq!(stats.len().to_string(), shards);
        for stat in stats {
            assert_eq!(policy(&stat), expected, "{stat}");
        }
    }
}

/// [MQTT5-4.3.2-4] [MQTT5-4.3.3-8]
#[test]
fn each_message_arrives_once_and_is_acknowledged() {
    let server = server();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut pairs = pairs(&server, qos);
        for number in 1..=30_u16 {
            for (pair, (publisher, subscriber)) in pairs.iter_mut().enumerate() {
                let (topic, payload) = (format!("t/{pair}"), number.to_be_bytes());
                let exactly_once = qos == QoS::ExactlyOnce;
                let delivery = if exactly_once {
                    Delivery::ExactlyOnce(id(number))
                } else {
                    Delivery::AtLeastOnce(id(number))
                };
                publisher.publish(&topic, delivery, &payload);
                if exactly_once {
                    let answer = publisher.receive();
                    assert_eq!(answer.packet(), Packet::Pubrec(Ack::new(id(number))));
                    publisher.send(&Packet::Pubrel(Ack::new(id(number))));
                    let answer = publisher.receive();
                    assert_eq!(answer.packet(), Packet::Pubcomp(Ack::new(id(number))));
                } else {
                    let answer = publisher.receive();
                    assert_eq!(answer.packet(), Packet::Puback(Ack::new(id(number))));
                }
                let (received, delivery) = subscriber.receive_publish();
                assert_eq!(received, payload);
                match delivery {
                    Delivery::AtMostOnce => panic!("at QoS 0"),
                    Delivery::AtLeastOnce(id) => subscriber.send(&Packet::Puback(Ack::new(id))),
                    Delivery::ExactlyOnce(id) => {
                        subscriber.send(&Packet::Pubrec(Ack::new(id)));
                        let answer = subscriber.receive();
                        assert_eq!(answer.packet(), Packet::Pubrel(Ack::new(id)));
                        subscriber.send(&Packet::Pubcomp(Ack::new(id)));
                    }
                }
            }
        }
        for (publisher, subscriber) in &mut pairs {
            for client in [publisher, subscriber] {
                client.send(&Packet::Pingreq);
                assert_eq!(client.receive().packet(), Packet::Pingresp);
            }
        }
    }
}

/// A connection that was handed over is opened in a turn that the other thread takes, and ends by the time of a
/// thread that waits [MQTT5-3.1.2-22] [MQTT311-3.1.2-24].
#[test]
fn deadlines_that_begin_in_such_a_turn_are_kept() {
    let begun = Instant::now();
    // One client each, so that its shard's thread is not woken by others. Three of four are not of the first shard.
    let silent: Vec<_> = (0..4)
        .map(|client| {
            let (server, client_id) = (server(), format!("silent-{client}"));
            let mut connect = Connect::new(Version::V3_1_1, &client_id);
            connect.keep_alive = 1;
            let client = Client::connect(server.address, &connect);
            (server, client)
        })
        .collect();
    for (_server, mut client) in silent {
        assert!(client.receive_or_fail().is_none());
        assert!(begun.elapsed() >= Duration::from_millis(1_500));
    }
}

#[test]
fn a_broker_whose_shards_all_wait_stops() {
    let mut server = server();
    drop(pairs(&server, QoS::AtMostOnce));
    let _connected = server.connect(Version::V5, "stays");
    server.terminate();
    assert!(server.wait().success());
}
