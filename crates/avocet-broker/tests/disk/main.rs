//! A disk that is slow, fails or is full: a library loaded into the broker stands between them.
//!
//! A kill does not show whether anything was synced, since the system keeps what was written; this does.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use avocet_codec::{
    Ack, Connect, Delivery, Frame, Packet, Publish, QoS, ReasonCode, Subscribe, SubscribeFilter,
    TopicFilter, TopicName, Unsubscribe, Version,
};
use common::{Client, DataDir, Server, command, id, resume};

const DELAY: Duration = Duration::from_millis(200);

/// A broker whose disk does what it is told.
struct Faulty {
    server: Server,
    control: PathBuf,
}

impl Faulty {
    fn start(dir: &DataDir, shards: &str) -> Self {
        Self::start_with(dir, &["--listen", "127.0.0.1:0", "--shards", shards])
    }

    fn start_with(dir: &DataDir, arguments: &[&str]) -> Self {
        let library = dir.0.with_extension("so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/disk/faults.c");
        let compiled = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-ldl", "-o",
            ])
            .arg(&library)
            .status();
        assert!(compiled.unwrap().success(), "a C compiler is needed");
        let control = dir.0.with_extension("faults");
        fs::write(&control, "").unwrap();
        let mut broker = command();
        broker
            .args(arguments)
            .arg("--data-dir")
            .arg(&dir.0)
            .env("LD_PRELOAD", &library)
            .env("AVOCET_FAULTS", &control);
        let server = Server::spawn(broker);
        fs::remove_file(library).unwrap();
        Self { server, control }
    }

    /// From here on the disk is like this.
    fn disk(&self, fault: &str) {
        // Nobody reads a half of it.
        let new = self.control.with_extension("new");
        fs::write(&new, fault).unwrap();
        fs::rename(new, &self.control).unwrap();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.control);
    }
}

/// The next packet, and that it took as long as a sync.
#[expect(clippy::disallowed_methods, reason = "how long it takes is the matter")]
fn delayed(client: &mut Client, act: impl FnOnce(&mut Client)) -> Frame {
    let start = std::time::Instant::now();
    act(client);
    let frame = client.receive();
    assert!(
        start.elapsed() >= DELAY,
        "{:?} after {:?}",
        frame.packet(),
        start.elapsed()
    );
    frame
}

/// Publishes with QoS 1 until a PUBACK comes sooner than a sync takes: one may have to wait for a
/// sync that nobody asked for.
#[expect(clippy::disallowed_methods, reason = "how long it takes is the matter")]
fn at_once(client: &mut Client, name: &str) {
    let is_quick = |_: &u32| {
        let start = std::time::Instant::now();
        client.publish(name, Delivery::AtLeastOnce(id(1)), name.as_bytes());
        assert!(matches!(client.receive().packet(), Packet::Puback(_)));
        start.elapsed() < DELAY
    };
    assert!((0..50).find(is_quick).is_some(), "{name} waits for a sync");
}

fn subscribe(client: &mut Client, filter: &str) {
    let filters = [SubscribeFilter::new(
        TopicFilter::new(filter).unwrap(),
        QoS::ExactlyOnce,
    )];
    client.send(&Packet::Subscribe(Subscribe::new(id(9), &filters)));
}

/// [MQTT5-4.3.2-4] [MQTT5-4.3.3-8] [MQTT5-4.3.3-11]
#[test]
fn what_stands_for_stored_state_waits_for_the_sync() {
    for shards in ["1", "2"] {
        let dir = DataDir::new();
        let faulty = Faulty::start(&dir, shards);
        let (mut sleeper, _) = resume(&faulty.server, "sleeper");
        sleeper.subscribe("a/#", QoS::ExactlyOnce);
        let (mut publisher, _) = resume(&faulty.server, "publisher");
        faulty.disk("delay");

        let frame = delayed(&mut publisher, |it| {
            it.publish("a/1", Delivery::AtLeastOnce(id(1)), b"1")
        });
        assert!(matches!(frame.packet(), Packet::Puback(_)), "{frame:?}");
        let (_, delivery) = sleeper.receive_publish();
        let Delivery::AtLeastOnce(packet_id) = delivery else {
            panic!("{delivery:?}")
        };
        sleeper.send(&Packet::Puback(Ack::new(packet_id)));

        let frame = delayed(&mut publisher, |it| {
            it.publish("a/2", Delivery::ExactlyOnce(id(2)), b"2")
        });
        assert!(matches!(frame.packet(), Packet::Pubrec(_)), "{frame:?}");
        let frame = delayed(&mut publisher, |it| {
            it.send(&Packet::Pubrel(Ack::new(id(2))))
        });
        assert!(matches!(frame.packet(), Packet::Pubcomp(_)), "{frame:?}");
        let (_, delivery) = sleeper.receive_publish();
        let Delivery::ExactlyOnce(packet_id) = delivery else {
            panic!("{delivery:?}")
        };
        let frame = delayed(&mut sleeper, |it| {
            it.send(&Packet::Pubrec(Ack::new(packet_id)))
        });
        assert!(matches!(frame.packet(), Packet::Pubrel(_)), "{frame:?}");
        sleeper.send(&Packet::Pubcomp(Ack::new(packet_id)));
        // A PUBLISH of QoS 2 too, which the publisher's wait does not cover.
        let frame = delayed(&mut sleeper, |_| {
            publisher.publish("a/3", Delivery::ExactlyOnce(id(3)), b"3");
        });
        assert!(matches!(frame.packet(), Packet::Publish(_)), "{frame:?}");

        let frame = delayed(&mut publisher, |it| {
            let topic_name = TopicName::new("kept").unwrap();
            let mut publish = Publish::new(topic_name, Delivery::AtLeastOnce(id(4)), b"4");
            publish.retain = true;
            it.send(&Packet::Publish(publish));
            // The answer to the message before.
            assert!(matches!(it.receive().packet(), Packet::Pubrec(_)));
        });
        assert!(matches!(frame.packet(), Packet::Puback(_)), "{frame:?}");
        let frame = delayed(&mut publisher, |it| subscribe(it, "b"));
        assert!(matches!(frame.packet(), Packet::Suback(_)), "{frame:?}");
        let frame = delayed(&mut publisher, |it| {
            let filters = [TopicFilter::new("b").unwrap()];
            it.send(&Packet::Unsubscribe(Unsubscribe::new(id(5), &filters)));
        });
        assert!(matches!(frame.packet(), Packet::Unsuback(_)), "{frame:?}");
        // The session of the sleeper is discarded.
        drop(sleeper);
        let mut clean = Client::open(faulty.server.address, Version::V5);
        let frame = delayed(&mut clean, |it| {
            it.send(&Packet::Connect(Connect::new(Version::V5, "sleeper")));
        });
        assert!(matches!(frame.packet(), Packet::Connack(_)), "{frame:?}");
    }
}

/// The disk does not work for a while: nothing is acknowledged, QoS 0 flows on, 5.0 clients are told,
/// and nothing that was taken is lost once it works again. `before`: what the disk is like until then.
fn nothing_is_lost(before: &str, fault: &str, told: &str, reason_code: ReasonCode) {
    let dir = DataDir::new();
    let mut faulty = Faulty::start(&dir, "2");
    let (mut sleeper, _) = resume(&faulty.server, "sleeper");
    sleeper.subscribe("a", QoS::AtLeastOnce);
    drop(sleeper);
    let mut watcher = faulty.server.connect(Version::V5, "watcher");
    watcher.subscribe("live", QoS::AtMostOnce);
    let mut publisher = faulty.server.connect(Version::V3_1_1, "publisher");
    faulty.disk(before);
    publisher.publish("a", Delivery::AtLeastOnce(id(1)), b"before");
    assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));

    faulty.disk(fault);
    publisher.publish("a", Delivery::AtLeastOnce(id(2)), b"while");
    faulty.server.wait_for_log(told);
    // What is not stored is not acknowledged: these are other answers.
    for number in 0..20 {
        publisher.publish("live", Delivery::AtMostOnce, &[number]);
        assert_eq!(watcher.receive_publish().0, [number]);
        publisher.send(&Packet::Pingreq);
        assert_eq!(publisher.receive().packet(), Packet::Pingresp);
    }
    // A client of 5.0 is told, once its shard knows. One that published before waits, and so do
    // later answers on its connection.
    loop {
        let mut v5 = faulty.server.connect(Version::V5, "told");
        v5.publish("a", Delivery::AtLeastOnce(id(1)), b"refused");
        v5.send(&Packet::Pingreq);
        let frame = v5.receive();
        if let Packet::Puback(ack) = frame.packet() {
            assert_eq!(ack.reason_code, reason_code);
            break;
        }
        assert_eq!(frame.packet(), Packet::Pingresp);
    }

    faulty.disk("");
    let frame = publisher.receive();
    let Packet::Puback(ack) = frame.packet() else {
        panic!("{frame:?}")
    };
    assert_eq!(ack.packet_id, id(2));
    faulty.server.wait_for_log("the disk works again");
    faulty.server.kill();
    let server = dir.start("1");
    let (mut sleeper, present) = resume(&server, "sleeper");
    assert!(present);
    assert_eq!(sleeper.receive_publish().0, b"before");
    assert_eq!(sleeper.receive_publish().0, b"while");
}

#[test]
fn a_disk_that_fails_to_sync_loses_nothing() {
    nothing_is_lost(
        "",
        "sync",
        "cannot sync",
        ReasonCode::ImplementationSpecificError,
    );
}

/// Syncs that take long are done several at once.
#[test]
fn a_slow_disk_that_fails_to_sync_loses_nothing() {
    nothing_is_lost(
        "delay",
        "late",
        "cannot sync",
        ReasonCode::ImplementationSpecificError,
    );
}

#[test]
fn a_full_disk_loses_nothing() {
    nothing_is_lost("", "full", "the disk is full", ReasonCode::QuotaExceeded);
}

/// The listener, the topic or nothing says how safe a message is.
#[test]
fn only_what_asks_for_it_waits_for_the_sync() {
    let dir = DataDir::new();
    let file = dir.0.with_extension("toml");
    let text = "durability = 'fsync'
        listen = ['127.0.0.1:0', { address = '127.0.0.1:0', durability = 'os' }]
        topic_durability = { 'all/os/' = 'os', 'all/memory/' = 'memory', 'all/fsync/' = 'fsync' }";
    fs::write(&file, text).unwrap();
    for shards in ["1", "2"] {
        let config = file.to_str().unwrap();
        let mut faulty = Faulty::start_with(&dir, &["--config", config, "--shards", shards]);
        let line = faulty.server.wait_for_log("listening on ");
        let quick = line.split_once("listening on ").unwrap().1.parse().unwrap();
        let line = faulty.server.wait_for_log("what is acknowledged");
        assert!(
            line.contains("is on disk; some listeners or topics"),
            "{line}"
        );
        let (mut sleeper, _) = resume(&faulty.server, "sleeper");
        sleeper.subscribe("all/#", QoS::AtLeastOnce);
        drop(sleeper);
        let mut careful = faulty.server.connect(Version::V3_1_1, "careful");
        let mut hasty = Client::connect(quick, &Connect::new(Version::V5, "hasty"));
        faulty.disk("delay");
        for (client, name) in [(&mut careful, "all/1"), (&mut hasty, "all/fsync/1")] {
            let frame = delayed(client, |it| {
                it.publish(name, Delivery::AtLeastOnce(id(1)), b"slow");
            });
            assert!(matches!(frame.packet(), Packet::Puback(_)), "{frame:?}");
        }
        at_once(&mut careful, "all/os/1");
        at_once(&mut careful, "all/memory/1");
        at_once(&mut hasty, "all/memory/1");
        at_once(&mut hasty, "all/1");
        // What is not left to memory survives the process.
        faulty.server.kill();
        let server = dir.start("1");
        let (mut sleeper, present) = resume(&server, "sleeper");
        assert!(present);
        let mut missing = vec!["slow", "slow", "all/os/1", "all/1"];
        while !missing.is_empty() {
            let (payload, delivery) = sleeper.receive_publish();
            if let Some(at) = missing.iter().position(|it| it.as_bytes() == payload) {
                missing.remove(at);
            }
            let Delivery::AtLeastOnce(packet_id) = delivery else {
                panic!("{delivery:?}")
            };
            sleeper.send(&Packet::Puback(Ack::new(packet_id)));
        }
        // The next round begins without it.
        drop(server.connect(Version::V5, "sleeper"));
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn what_nobody_waits_for_is_synced_soon() {
    let dir = DataDir::new();
    let arguments = ["--listen", "127.0.0.1:0", "--durability", "os"];
    let mut faulty = Faulty::start_with(&dir, &arguments);
    let (mut sleeper, _) = resume(&faulty.server, "sleeper");
    faulty.disk("sync");
    subscribe(&mut sleeper, "a");
    faulty.server.wait_for_log("cannot sync");
    faulty.disk("");
    faulty.server.wait_for_log("the disk works again");
    assert!(matches!(sleeper.receive().packet(), Packet::Suback(_)));
}
