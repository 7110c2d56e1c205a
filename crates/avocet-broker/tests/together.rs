//! Messages that go to many clients in one turn, some of which do not read: with the feature
//! `io-uring` they are written with one system call.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use avocet_codec::{Ack, Delivery, Packet, QoS, Version};
use common::{Client, Server, id};

/// Messages of 1,000 bytes: more than the system keeps for a client that does not read.
const MESSAGES: u32 = 12_000;

/// Few enough that what one turn brings each client is written together with the others'.
const WINDOW: u32 = 3;

/// A client tells that it has got so many.
const TOLD: u32 = 300;

fn payload(number: u32) -> Vec<u8> {
    let mut payload = vec![number.to_le_bytes()[0]; 1_000];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

/// Its number, if it has come whole.
fn number(received: &[u8]) -> u32 {
    let number = u32::from_be_bytes(received[..4].try_into().unwrap());
    assert_eq!(received, payload(number), "message {number} was changed");
    number
}

/// Takes all messages, in order and each once.
fn take_all(mut client: Client, told: &SyncSender<()>) {
    let mut next = 0;
    while next < MESSAGES {
        let frame = client.receive();
        if let Packet::Publish(publish) = frame.packet() {
            assert_eq!(number(publish.payload), next);
            next += 1;
            match publish.delivery {
                Delivery::AtMostOnce => {}
                Delivery::AtLeastOnce(id) => client.send(&Packet::Puback(Ack::new(id))),
                Delivery::ExactlyOnce(id) => client.send(&Packet::Pubrec(Ack::new(id))),
            }
            if next.is_multiple_of(TOLD) {
                told.send(()).unwrap();
            }
        } else {
            let Packet::Pubrel(ack) = frame.packet() else {
                panic!("{frame:?}")
            };
            client.send(&Packet::Pubcomp(Ack::new(ack.packet_id)));
        }
    }
}

fn start_taking(server: &Server, index: usize, qos: QoS) -> Receiver<()> {
    let mut client = server.connect(Version::V5, &format!("taker-{index}"));
    client.subscribe("t", qos);
    let (told, tells) = sync_channel(1);
    thread::spawn(move || take_all(client, &told));
    tells
}

#[test]
fn clients_that_do_not_read_take_nothing_from_those_that_do() {
    let server = Server::start(&["--shards", "1"]);
    let takers: Vec<_> = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .cycle()
        .take(9)
        .enumerate()
        .map(|(index, qos)| start_taking(&server, index, qos))
        .collect();
    let mut idle: Vec<_> = (0..3)
        .map(|index| {
            let mut client = server.connect(Version::V3_1_1, &format!("idle-{index}"));
            client.subscribe("t", QoS::AtMostOnce);
            client
        })
        .collect();

    let mut publisher = server.connect(Version::V5, "publisher");
    for first in (0..MESSAGES).step_by(WINDOW as usize) {
        for number in first..first + WINDOW {
            publisher.publish("t", Delivery::AtLeastOnce(id(1)), &payload(number));
            assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
        }
        if (first + WINDOW).is_multiple_of(TOLD) {
            for taker in &takers {
                taker.recv().expect("each taker gets all messages");
            }
        }
    }

    for client in &mut idle {
        client.send(&Packet::Pingreq);
        let mut last = None;
        loop {
            let frame = client.receive();
            if frame.packet() == Packet::Pingresp {
                break;
            }
            let Packet::Publish(publish) = frame.packet() else {
                panic!("{frame:?}")
            };
            // What there was no room for is lost, nothing else, and nothing comes twice.
            let number = number(publish.payload);
            assert!(last < Some(number), "{number} after {last:?}");
            last = Some(number);
        }
        assert!(last > Some(100), "the last one was {last:?}");
    }
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn a_ring_is_used_where_the_system_permits_one() {
    let server = Server::start(&["--shards", "1"]);
    let rings = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap();
        files
            .map(|file| std::fs::read_link(file.unwrap().path()))
            .filter(|target| matches!(target, Ok(path) if path.ends_with("anon_inode:[io_uring]")))
            .count()
    };
    let permitted = usize::from(avocet_uring::Ring::new(64).is_ok());
    // Whoever is answered is served by a shard that has begun.
    let mut publisher = server.connect(Version::V5, "publisher");
    assert_eq!(rings(), permitted);
    let mut takers: Vec<_> = (0..9)
        .map(|index| {
            let mut taker = server.connect(Version::V5, &format!("taker-{index}"));
            taker.subscribe("t", QoS::AtMostOnce);
            taker
        })
        .collect();
    publisher.publish("t", Delivery::AtMostOnce, b"to all in one turn");
    for taker in &mut takers {
        assert_eq!(taker.receive_publish().0, b"to all in one turn");
    }
    assert_eq!(rings(), permitted, "a ring that fails is closed");
}
