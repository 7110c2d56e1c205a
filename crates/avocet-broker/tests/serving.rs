//! Clients served by the binary, with one shard and with three.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use avocet_codec::{
    Ack, Connect, Delivery, Disconnect, Packet, Publish, QoS, ReasonCode, TopicFilter, TopicName,
    Unsubscribe, Version, Will,
};
use common::{Client, Server, id};

/// One broker for each number of shards worth a test.
fn servers() -> impl Iterator<Item = Server> {
    ["1", "3"]
        .into_iter()
        .map(|shards| Server::start(&["--shards", shards]))
}

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

#[test]
fn qos0_reaches_subscribers_of_all_versions() {
    for server in servers() {
        let mut subscribers =
            VERSIONS.map(|version| server.connect(version, &format!("sub-{version}")));
        for subscriber in &mut subscribers {
            subscriber.subscribe("plant/+/temperature", QoS::AtMostOnce);
        }
        for version in VERSIONS {
            let mut publisher = server.connect(version, &format!("pub-{version}"));
            publisher.publish("plant/boiler/temperature", Delivery::AtMostOnce, b"71.3");
            for subscriber in &mut subscribers {
                let expected = (b"71.3".to_vec(), Delivery::AtMostOnce);
                assert_eq!(subscriber.receive_publish(), expected);
            }
        }
    }
}

#[test]
fn qos1_is_acknowledged_both_ways() {
    for server in servers() {
        let mut subscriber = server.connect(Version::V5, "sub");
        subscriber.subscribe("a/b", QoS::AtLeastOnce);
        let mut publisher = server.connect(Version::V3_1_1, "pub");
        for number in 1..=100 {
            publisher.publish(
                "a/b",
                Delivery::AtLeastOnce(id(number)),
                &number.to_be_bytes(),
            );
        }
        for number in 1..=100 {
            let frame = publisher.receive();
            let Packet::Puback(puback) = frame.packet() else {
                panic!("{frame:?}")
            };
            assert_eq!(puback.packet_id, id(number));
            let (payload, delivery) = subscriber.receive_publish();
            assert_eq!(payload, number.to_be_bytes());
            let Delivery::AtLeastOnce(packet_id) = delivery else {
                panic!("{delivery:?}")
            };
            subscriber.send(&Packet::Puback(Ack::new(packet_id)));
        }
    }
}

#[test]
fn qos2_goes_through_its_four_packets_both_ways() {
    for server in servers() {
        let mut subscriber = server.connect(Version::V3_1_1, "sub");
        subscriber.subscribe("a/#", QoS::ExactlyOnce);
        let mut publisher = server.connect(Version::V5, "pub");
        publisher.publish("a/b", Delivery::ExactlyOnce(id(7)), b"once");
        let frame = publisher.receive();
        assert!(matches!(frame.packet(), Packet::Pubrec(ack) if ack.packet_id == id(7)));
        publisher.send(&Packet::Pubrel(Ack::new(id(7))));
        let frame = publisher.receive();
        assert!(matches!(frame.packet(), Packet::Pubcomp(ack) if ack.packet_id == id(7)));

        let (payload, delivery) = subscriber.receive_publish();
        assert_eq!(payload, b"once");
        let Delivery::ExactlyOnce(packet_id) = delivery else {
            panic!("{delivery:?}")
        };
        subscriber.send(&Packet::Pubrec(Ack::new(packet_id)));
        let frame = subscriber.receive();
        assert!(matches!(frame.packet(), Packet::Pubrel(ack) if ack.packet_id == packet_id));
        subscriber.send(&Packet::Pubcomp(Ack::new(packet_id)));
        subscriber.send(&Packet::Pingreq);
        assert_eq!(subscriber.receive().packet(), Packet::Pingresp);
    }
}

#[test]
fn unsubscribe_ends_delivery() {
    for server in servers() {
        let mut client = server.connect(Version::V5, "both");
        client.subscribe("t", QoS::AtMostOnce);
        let filters = [TopicFilter::new("t").unwrap()];
        client.send(&Packet::Unsubscribe(Unsubscribe::new(id(2), &filters)));
        assert!(matches!(client.receive().packet(), Packet::Unsuback(_)));
        client.publish("t", Delivery::AtMostOnce, b"x");
        client.send(&Packet::Pingreq);
        assert_eq!(client.receive().packet(), Packet::Pingresp);
    }
}

#[test]
fn a_session_waits_for_its_client_wherever_it_comes_back() {
    for server in servers() {
        let mut connect = Connect::new(Version::V3_1_1, "sleeper");
        connect.clean_start = false;
        let mut sleeper = Client::connect(server.address, &connect);
        sleeper.subscribe("q", QoS::AtLeastOnce);
        sleeper.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        assert_eq!(sleeper.try_receive(), None);

        let mut publisher = server.connect(Version::V5, "pub");
        publisher.publish("q", Delivery::AtLeastOnce(id(1)), b"kept");
        assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));

        let mut sleeper = Client::open(server.address, Version::V3_1_1);
        sleeper.send(&Packet::Connect(connect));
        let frame = sleeper.receive();
        let Packet::Connack(connack) = frame.packet() else {
            panic!("{frame:?}")
        };
        assert!(connack.session_present);
        assert_eq!(sleeper.receive_publish().0, b"kept");
    }
}

/// [MQTT5-3.1.4-3] [MQTT311-3.1.4-2]
#[test]
fn a_second_connection_with_the_same_client_id_takes_over() {
    for server in servers() {
        let mut first = server.connect(Version::V5, "same");
        let _second = server.connect(Version::V5, "same");
        let frame = first.receive();
        let Packet::Disconnect(disconnect) = frame.packet() else {
            panic!("{frame:?}")
        };
        assert_eq!(disconnect.reason_code, ReasonCode::SessionTakenOver);
        assert_eq!(first.try_receive(), None);
    }
}

#[test]
fn a_lost_connection_publishes_the_will() {
    for server in servers() {
        let mut watcher = server.connect(Version::V5, "watcher");
        watcher.subscribe("will", QoS::AtMostOnce);
        let mut connect = Connect::new(Version::V5, "mortal");
        let topic_name = TopicName::new("will").unwrap();
        connect.will = Some(Will::new(topic_name, b"gone"));
        drop(Client::connect(server.address, &connect));
        assert_eq!(watcher.receive_publish().0, b"gone");
    }
}

#[test]
fn packets_may_come_in_any_pieces() {
    for server in servers() {
        let mut bytes = Vec::new();
        Packet::Connect(Connect::new(Version::V5, "slow"))
            .encode(Version::V5, &mut bytes)
            .unwrap();
        Packet::Pingreq.encode(Version::V5, &mut bytes).unwrap();
        let mut client = Client::open(server.address, Version::V5);
        for byte in bytes {
            client.socket.write_all(&[byte]).unwrap();
        }
        assert!(matches!(client.receive().packet(), Packet::Connack(_)));
        assert_eq!(client.receive().packet(), Packet::Pingresp);
    }
}

#[test]
fn packets_behind_the_connect_move_with_the_connection() {
    for server in servers() {
        for number in 0..12 {
            let mut bytes = Vec::new();
            let client_id = format!("eager-{number}");
            let connect = Connect::new(Version::V3_1_1, &client_id);
            Packet::Connect(connect)
                .encode(Version::V3_1_1, &mut bytes)
                .unwrap();
            for _ in 0..200 {
                Packet::Pingreq.encode(Version::V3_1_1, &mut bytes).unwrap();
            }
            let mut client = Client::open(server.address, Version::V3_1_1);
            client.socket.write_all(&bytes).unwrap();
            assert!(matches!(client.receive().packet(), Packet::Connack(_)));
            for _ in 0..200 {
                assert_eq!(client.receive().packet(), Packet::Pingresp);
            }
        }
    }
}

#[test]
fn a_large_message_arrives_whole() {
    for server in servers() {
        let payload: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let mut subscriber = server.connect(Version::V5, "sub");
        subscriber.subscribe("large", QoS::AtLeastOnce);
        let mut publisher = server.connect(Version::V3_1_1, "pub");
        publisher.publish("large", Delivery::AtLeastOnce(id(1)), &payload);
        assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
        assert!(subscriber.receive_publish().0 == payload);
    }
}

#[test]
fn a_subscriber_that_does_not_read_holds_up_nobody_else() {
    for server in servers() {
        let payload = vec![b'x'; 100_000];
        let mut lazy = server.connect(Version::V5, "lazy");
        lazy.subscribe("flood", QoS::AtLeastOnce);
        let mut keen = server.connect(Version::V5, "keen");
        keen.subscribe("flood", QoS::AtLeastOnce);
        let mut publisher = server.connect(Version::V5, "pub");
        // Far more than the socket of the lazy one holds.
        for number in 1..=200 {
            publisher.publish("flood", Delivery::AtLeastOnce(id(number)), &payload);
            assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
            let (received, delivery) = keen.receive_publish();
            assert_eq!(received.len(), payload.len());
            keen.send(&Packet::Puback(Ack::new(delivery.packet_id().unwrap())));
        }
        // Then the lazy one gets all of it.
        for _ in 1..=200 {
            let (received, delivery) = lazy.receive_publish();
            assert_eq!(received.len(), payload.len());
            lazy.send(&Packet::Puback(Ack::new(delivery.packet_id().unwrap())));
        }
    }
}

#[test]
fn a_flood_of_one_connection_leaves_time_for_the_others() {
    for server in servers() {
        let mut flooder = server.connect(Version::V3_1_1, "flooder");
        let flood = thread::spawn(move || {
            let mut bytes = Vec::new();
            for _ in 0..10_000 {
                let name = TopicName::new("nobody/listens").unwrap();
                let publish = Publish::new(name, Delivery::AtMostOnce, b"flood");
                publish.encode(Version::V3_1_1, &mut bytes).unwrap();
            }
            for _ in 0..10 {
                flooder.socket.write_all(&bytes).unwrap();
            }
            flooder
        });
        let mut other = server.connect(Version::V5, "other");
        for _ in 0..50 {
            other.send(&Packet::Pingreq);
            assert_eq!(other.receive().packet(), Packet::Pingresp);
        }
        let mut flooder = flood.join().unwrap();
        flooder.send(&Packet::Pingreq);
        assert_eq!(flooder.receive().packet(), Packet::Pingresp);
    }
}

/// [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]
#[test]
fn many_busy_clients_lose_nothing_while_input_gathers() {
    // Mostly of QoS 0, whose publishers wait for nothing.
    const CLIENTS: u16 = 40;
    const MESSAGES: u16 = 50;
    const QOS1_ONE_IN: u16 = 8;
    for shards in ["1", "3"] {
        let server = Server::start(&["--shards", shards, "--set", "gather_max=10ms"]);
        let mut subscriber = server.connect(Version::V3_1_1, "sub");
        subscriber.subscribe("from/+", QoS::AtMostOnce);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let mut publisher = server.connect(Version::V3_1_1, &format!("pub-{client}"));
                scope.spawn(move || {
                    for number in 1..=MESSAGES {
                        let payload = [client.to_be_bytes(), number.to_be_bytes()].concat();
                        let topic = format!("from/{client}");
                        if client % QOS1_ONE_IN > 0 {
                            publisher.publish(&topic, Delivery::AtMostOnce, &payload);
                            continue;
                        }
                        publisher.publish(&topic, Delivery::AtLeastOnce(id(number)), &payload);
                        let frame = publisher.receive();
                        assert!(matches!(frame.packet(), Packet::Puback(_)), "{frame:?}");
                    }
                    publisher.send(&Packet::Pingreq);
                    assert_eq!(publisher.receive().packet(), Packet::Pingresp);
                });
            }
            let mut last = [0; CLIENTS as usize];
            for _ in 0..CLIENTS * MESSAGES {
                let (payload, _) = subscriber.receive_publish();
                let [client, number] = [&payload[..2], &payload[2..]]
                    .map(|it| u16::from_be_bytes(it.try_into().unwrap()));
                let last = &mut last[usize::from(client)];
                *last += 1;
                assert_eq!(number, *last, "of client {client}");
            }
        });
    }
}

/// With one message on its way at a time, a shard reads on only when another one says that it has come.
#[test]
fn a_flood_to_other_shards_goes_on_as_it_arrives() {
    const MESSAGES: u32 = 200;
    let server = Server::start(&["--shards", "3", "--set", "limits.forwards_max=1"]);
    let mut subscriber = server.connect(Version::V5, "sub");
    subscriber.subscribe("t/+", QoS::AtMostOnce);
    let names: Vec<_> = (0..6).map(|number| format!("t/{number}")).collect();
    let mut publishers = Vec::new();
    for name in &names {
        let mut publisher = server.connect(Version::V5, name);
        for number in 0..MESSAGES {
            publisher.publish(name, Delivery::AtMostOnce, &number.to_be_bytes());
        }
        publishers.push(publisher);
    }
    let mut came: Vec<Vec<u32>> = vec![Vec::new(); names.len()];
    for _ in 0..names.len() * MESSAGES as usize {
        let frame = subscriber.receive();
        let Packet::Publish(publish) = frame.packet() else {
            panic!("{frame:?}")
        };
        let topic = publish.topic_name.unwrap().as_str();
        let publisher = names.iter().position(|name| name == topic).unwrap();
        let number = u32::from_be_bytes(publish.payload.try_into().unwrap());
        came.get_mut(publisher).unwrap().push(number);
    }
    for numbers in came {
        assert!(numbers.into_iter().eq(0..MESSAGES));
    }
}

#[test]
fn rubbish_closes_only_its_own_connection() {
    for server in servers() {
        let mut good = server.connect(Version::V5, "good");
        for rubbish in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0; 64],
            &[0xff; 64],
            &[0x10, 0xff, 0xff],
        ] {
            let mut bad = Client::open(server.address, Version::V5);
            bad.socket.write_all(rubbish).unwrap();
            bad.socket.shutdown(Shutdown::Write).unwrap();
            // The broker may answer with a CONNACK; then it closes, or resets.
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut bad.socket, &mut rest);
        }
        good.send(&Packet::Pingreq);
        assert_eq!(good.receive().packet(), Packet::Pingresp);
    }
}

/// [MQTT5-3.14.4-3] What a client sent before it was gone counts, its DISCONNECT too, though it does
/// not read what the broker writes to it. All of it fits into the buffer of the broker's socket.
#[test]
fn a_disconnect_is_read_from_a_client_that_is_gone() {
    for mut server in servers() {
        let mut leaver = server.connect(Version::V5, "leaver");
        leaver.subscribe("echo", QoS::AtMostOnce);
        let name = TopicName::new("echo").unwrap();
        let publish = Publish::new(name, Delivery::AtMostOnce, &[b'x'; 100]);
        let mut bytes = Vec::new();
        for _ in 0..300 {
            Packet::Publish(publish)
                .encode(Version::V5, &mut bytes)
                .unwrap();
        }
        let disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        Packet::Disconnect(disconnect)
            .encode(Version::V5, &mut bytes)
            .unwrap();
        leaver.socket.write_all(&bytes).unwrap();
        drop(leaver);
        let line = server.wait_for_log("disconnected");
        assert!(line.contains("closed_by=\"client\""), "{line}");
    }
}
