//! What `cargo xtask instructions` counts: one piece of work of one layer, without sockets, clocks
//! and randomness, so that the number of instructions is the same each time.
//!
//! `instructions --list` prints the names; `instructions NAME` does the work once to warm up and
//! once within [`counted`], and prints how many operations that were.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking"
)]

mod codec;
mod engine;
mod session;
mod store;
mod topic;

use std::env;

use avocet_codec::{Delivery, Packet, PacketId, Publish, QoS, TopicName, Version};

/// Some operations that can be repeated.
type Run = Box<dyn FnMut()>;

struct Work {
    name: String,
    /// How many operations a run has.
    operations: u32,
    prepare: Box<dyn FnOnce() -> Run>,
}

impl Work {
    fn new<R: FnMut() + 'static>(
        name: impl Into<String>,
        operations: u32,
        prepare: impl FnOnce() -> R + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            operations,
            prepare: Box::new(move || Box::new(prepare())),
        }
    }
}

fn works() -> Vec<Work> {
    let mut works = codec::works();
    works.extend(topic::works());
    works.extend(session::works());
    works.extend(engine::works());
    works.extend(store::works());
    works
}

/// Callgrind collects while this runs; it finds it by its name.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    run();
}

fn main() {
    let name = env::args().nth(1).expect("a name, or --list");
    if name == "--list" {
        for work in works() {
            println!("{}", work.name);
        }
        return;
    }
    let work = works().into_iter().find(|work| work.name == name);
    let work = work.expect("a name of the list");
    let mut run = (work.prepare)();
    run();
    counted(&mut *run);
    println!("{}", work.operations);
}

/// Messages of one read or turn, as a busy socket brings them.
const MESSAGES: u16 = 64;

const PAYLOAD: [u8; 64] = [b'x'; 64];

const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn encoded(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

/// PUBLISH packets with Packet Identifiers from 1.
fn publishes(version: Version, topic: &str, qos: QoS) -> Vec<u8> {
    let topic = TopicName::new(topic).unwrap();
    let publish = |id| {
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id(id)),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id(id)),
        };
        encoded(
            version,
            &Packet::Publish(Publish::new(topic, delivery, &PAYLOAD)),
        )
    };
    (1..=MESSAGES).flat_map(publish).collect()
}
