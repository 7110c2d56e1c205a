//! Acknowledgements that do not wake a shard, and what may not wait behind or in front of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "how long something takes is what is tested"
)]

mod common;

use std::io::Write as _;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use avocet_codec::{
    Ack, Connect, Delivery, Frame, Packet, PacketId, QoS, Subscribe, SubscribeFilter, TopicFilter,
    Version,
};
use common::{Client, DataDir, Server, connect_with, id, resume};

/// Rounds of a test of which none may take as long as a connection is quiet at least, 150 ms, and how long all of
/// them may take together on a machine that is busy.
const ROUNDS: u16 = 40;
const ALL_ROUNDS: Duration = Duration::from_secs(4);

/// One shard, and nothing that happens by itself.
fn server(settings: &[&str]) -> Server {
    let mut arguments = vec!["--shards", "1", "--set", "mqtt.sys_interval=0s"];
    arguments.extend(settings);
    Server::start(&arguments)
}

/// A publisher, and who subscribes at QoS 2.
fn pair(server: &Server) -> (Client, Client) {
    let mut subscriber = server.connect(Version::V5, "subscriber");
    subscriber.subscribe("t", QoS::ExactlyOnce);
    (server.connect(Version::V3_1_1, "publisher"), subscriber)
}

/// Publishes at QoS 1, and is acknowledged.
fn publish(publisher: &mut Client, number: u16) {
    let delivery = Delivery::AtLeastOnce(id(number));
    publisher.publish("t", delivery, &number.to_be_bytes());
    let answer = publisher.receive();
    assert_eq!(answer.packet(), Packet::Puback(Ack::new(id(number))));
}

/// The message with this number comes; by which Packet Identifier.
fn receive(subscriber: &mut Client, number: u16) -> PacketId {
    let (payload, delivery) = subscriber.receive_publish();
    assert_eq!(payload, number.to_be_bytes());
    delivery.packet_id().unwrap()
}

/// For so long that a shard with nothing else to do sleeps again.
fn pause() {
    let (_nobody, never) = channel::<()>();
    assert!(never.recv_timeout(Duration::from_millis(3)).is_err());
}

fn ping(client: &mut Client) {
    client.send(&Packet::Pingreq);
    assert_eq!(client.receive().packet(), Packet::Pingresp);
}

#[test]
#[cfg(target_os = "linux")]
fn a_message_wakes_its_shard_once() {
    // Of what wakes it once more, a machine with much else to do has more, and less of what wakes it twice.
    type Best = fn(f64, f64) -> f64;
    for (settings, publishes, best, is_once) in [
        (&[][..], false, f64::min as Best, true),
        (&["--set", "gather_max=0s"], false, f64::max, false),
        (&[], true, f64::max, false),
    ] {
        let server = server(settings);
        let (mut publisher, mut subscriber) = pair(&server);
        if publishes {
            subscriber.publish("other", Delivery::AtMostOnce, b"");
        }
        let rounds = (0..10).map(|_| {
            let before = waits(&server);
            for number in 1..=ROUNDS {
                publish(&mut publisher, number);
                let packet_id = receive(&mut subscriber, number);
                // The shard sleeps again before the acknowledgement comes.
                pause();
                subscriber.send(&Packet::Puback(Ack::new(packet_id)));
                pause();
            }
            (waits(&server) - before) as f64 / f64::from(ROUNDS)
        });
        let waits = rounds.reduce(best).unwrap();
        assert_eq!(
            waits < 1.5,
            is_once,
            "{settings:?}, {publishes}: {waits} for a message"
        );
    }
}

/// How often the thread of the shard has waited for something.
#[cfg(target_os = "linux")]
fn waits(server: &Server) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let mut shards = tasks.map(|task| task.unwrap().path());
    let shard = shards.find(|task| read(task.join("comm")).starts_with("shard-"));
    let status = read(shard.unwrap().join("status"));
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// [MQTT5-3.12.4-1] [MQTT311-3.12.4-1]
#[test]
fn a_ping_in_front_of_an_acknowledgement_is_answered() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    publish(&mut publisher, 1);
    let packet_id = receive(&mut subscriber, 1);
    let begun = Instant::now();
    ping(&mut subscriber);
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
    subscriber.send(&Packet::Puback(Ack::new(packet_id)));
    ping(&mut subscriber);
}

/// The same while messages of QoS 0 go on, which the client does not answer.
#[test]
fn a_ping_in_front_of_a_pubcomp_is_answered_while_messages_come() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    publisher.publish("t", Delivery::ExactlyOnce(id(1)), b"");
    assert_eq!(
        publisher.receive().packet(),
        Packet::Pubrec(Ack::new(id(1)))
    );
    let (_, delivery) = subscriber.receive_publish();
    let packet_id = delivery.packet_id().unwrap();
    subscriber.send(&Packet::Pubrec(Ack::new(packet_id)));
    let released = subscriber.receive();
    assert_eq!(released.packet(), Packet::Pubrel(Ack::new(packet_id)));
    subscriber.send(&Packet::Pingreq);
    let begun = Instant::now();
    loop {
        publisher.publish("t", Delivery::AtMostOnce, b"");
        pause();
        let frame = subscriber.receive();
        if !matches!(frame.packet(), Packet::Publish(_)) {
            assert_eq!(frame.packet(), Packet::Pingresp);
            return;
        }
        assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_message_that_waits_in_a_group_follows_an_acknowledgement_at_once() {
    let server = server(&["--set", "limits.group_window=1"]);
    let mut member = server.connect(Version::V5, "member");
    member.subscribe("$share/group/t", QoS::AtLeastOnce);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    let begun = Instant::now();
    publish(&mut publisher, 1);
    for number in 1..=ROUNDS {
        let packet_id = receive(&mut member, number);
        publish(&mut publisher, number + 1);
        member.send(&Packet::Puback(Ack::new(packet_id)));
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

#[test]
fn what_comes_behind_an_acknowledgement_does_not_wait() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    let begun = Instant::now();
    for number in 1..=ROUNDS {
        publish(&mut publisher, number);
        let packet_id = receive(&mut subscriber, number);
        subscriber.send(&Packet::Puback(Ack::new(packet_id)));
        ping(&mut subscriber);
        // Nothing is owed now.
        ping(&mut subscriber);
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

/// The second acknowledgement wakes the shard, and leaves nothing owed.
#[test]
fn a_ping_after_two_acknowledgements_does_not_wait() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let numbers = [2 * round + 1, 2 * round + 2];
        let packet_ids = numbers.map(|number| {
            publish(&mut publisher, number);
            receive(&mut subscriber, number)
        });
        for packet_id in packet_ids {
            subscriber.send(&Packet::Puback(Ack::new(packet_id)));
        }
        // The shard reads them first.
        pause();
        ping(&mut subscriber);
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

#[test]
fn a_message_that_waits_for_an_acknowledgement_follows_it_at_once() {
    let server = server(&[]);
    let mut connect = Connect::new(Version::V5, "one-at-a-time");
    connect.properties.receive_maximum = NonZeroU16::new(1);
    let (mut subscriber, _) = connect_with(&server, &connect);
    subscriber.subscribe("t", QoS::ExactlyOnce);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    let begun = Instant::now();
    publish(&mut publisher, 1);
    for number in 1..=ROUNDS {
        let packet_id = receive(&mut subscriber, number);
        publish(&mut publisher, number + 1);
        subscriber.send(&Packet::Puback(Ack::new(packet_id)));
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

/// What ends one exchange is left, and what the next one goes on with is not.
#[test]
fn the_exchanges_of_messages_at_qos_2_go_on_at_once() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    let begun = Instant::now();
    for number in 1..=ROUNDS {
        publisher.publish(
            "t",
            Delivery::ExactlyOnce(id(number)),
            &number.to_be_bytes(),
        );
        for answer in [
            Packet::Pubrec(Ack::new(id(number))),
            Packet::Pubcomp(Ack::new(id(number))),
        ] {
            assert_eq!(publisher.receive().packet(), answer);
            if matches!(answer, Packet::Pubrec(_)) {
                publisher.send(&Packet::Pubrel(Ack::new(id(number))));
            }
        }
        let packet_id = receive(&mut subscriber, number);
        subscriber.send(&Packet::Pubrec(Ack::new(packet_id)));
        let released = subscriber.receive();
        assert_eq!(released.packet(), Packet::Pubrel(Ack::new(packet_id)));
        subscriber.send(&Packet::Pubcomp(Ack::new(packet_id)));
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

/// A client that sends at QoS 2 itself waits for the answer to a PUBREL, which is as short as the PUBACK that it owes.
#[test]
fn a_release_is_no_acknowledgement() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    let begun = Instant::now();
    for number in 1..=ROUNDS {
        subscriber.publish("other", Delivery::ExactlyOnce(id(number)), b"");
        let answer = subscriber.receive();
        assert!(matches!(answer.packet(), Packet::Pubrec(_)), "{answer:?}");
        publish(&mut publisher, number);
        let packet_id = receive(&mut subscriber, number);
        subscriber.send(&Packet::Pubrel(Ack::new(id(number))));
        let answer = subscriber.receive();
        assert_eq!(answer.packet(), Packet::Pubcomp(Ack::new(id(number))));
        subscriber.send(&Packet::Puback(Ack::new(packet_id)));
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

/// What is left of a packet may be shorter than the acknowledgement that is owed.
#[test]
fn the_rest_of_a_packet_does_not_wait() {
    let server = server(&[]);
    let (mut publisher, mut subscriber) = pair(&server);
    let filters = [SubscribeFilter::new(
        TopicFilter::new("other").unwrap(),
        QoS::AtMostOnce,
    )];
    let begun = Instant::now();
    for number in 1..=ROUNDS {
        publish(&mut publisher, number);
        let packet_id = receive(&mut subscriber, number);
        let packet = Packet::Subscribe(Subscribe::new(id(number), &filters));
        let frame = Frame::encode(&packet, Version::V5).unwrap();
        let (most, rest) = frame.bytes().split_at(frame.bytes().len() - 2);
        for part in [most, rest] {
            subscriber.socket.write_all(part).unwrap();
            // The shard reads the first part alone.
            pause();
        }
        let answer = subscriber.receive();
        assert!(matches!(answer.packet(), Packet::Suback(_)), "{answer:?}");
        subscriber.send(&Packet::Puback(Ack::new(packet_id)));
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

/// It is announced as output and dropped when it is to be written: nothing is owed then.
#[test]
fn a_ping_after_a_message_that_is_too_large_does_not_wait() {
    let server = server(&[]);
    let mut connect = Connect::new(Version::V5, "small");
    connect.properties.maximum_packet_size = NonZeroU32::new(100);
    let (mut subscriber, _) = connect_with(&server, &connect);
    subscriber.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    let begun = Instant::now();
    for number in 1..=ROUNDS {
        publish(&mut publisher, number);
        let packet_id = receive(&mut subscriber, number);
        subscriber.send(&Packet::Puback(Ack::new(packet_id)));
        publisher.publish("t", Delivery::AtMostOnce, &[0; 200]);
        ping(&mut publisher);
        pause();
        ping(&mut subscriber);
    }
    assert!(begun.elapsed() < ALL_ROUNDS, "{:?}", begun.elapsed());
}

/// Who resumes a Session after it, and gets nothing again.
fn gets_nothing(server: &Server) {
    let (mut subscriber, present) = resume(server, "lasting");
    assert!(present);
    ping(&mut subscriber);
}

#[test]
fn what_was_acknowledged_before_the_client_closed_is_not_sent_again() {
    let server = server(&[]);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    let (mut subscriber, _) = resume(&server, "lasting");
    subscriber.subscribe("t", QoS::ExactlyOnce);
    publish(&mut publisher, 1);
    let packet_id = receive(&mut subscriber, 1);
    subscriber.send(&Packet::Puback(Ack::new(packet_id)));
    drop(subscriber);
    gets_nothing(&server);
}

#[test]
fn what_was_acknowledged_before_the_broker_stopped_is_not_sent_again() {
    let data = DataDir::new();
    let mut server = data.start("1");
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    let (mut subscriber, _) = resume(&server, "lasting");
    subscriber.subscribe("t", QoS::ExactlyOnce);
    publish(&mut publisher, 1);
    let packet_id = receive(&mut subscriber, 1);
    subscriber.send(&Packet::Puback(Ack::new(packet_id)));
    server.terminate();
    assert!(server.wait().success());
    gets_nothing(&data.start("1"));
}
