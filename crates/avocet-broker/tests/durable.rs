//! What a data directory keeps, from outside.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::path::Path;
use std::process::Output;

use avocet_codec::{Ack, Connect, Delivery, Packet, Publish, QoS, TopicName, Version, Will};
use common::{DataDir, Server, command, connect_with, id, resume};

fn stop(mut server: Server) {
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

fn check(dir: &Path) -> (i32, String, String) {
    let mut command = command();
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(["store", "check"]).arg(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// [MQTT5-4.1.0-1] [MQTT5-4.4.0-1]
#[test]
fn sessions_queues_and_retained_messages_outlive_the_broker() {
    for (before, after) in [("1", "1"), ("1", "3"), ("3", "2")] {
        let dir = DataDir::new();
        let server = dir.start(before);
        let (mut sleeper, present) = resume(&server, "sleeper");
        assert!(!present);
        sleeper.subscribe("news/#", QoS::ExactlyOnce);
        drop(sleeper);
        let mut publisher = server.connect(Version::V3_1_1, "publisher");
        for number in 1..=50 {
            publisher.publish("news/1", Delivery::AtLeastOnce(id(number)), &[number as u8]);
            assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
        }
        for (name, payload) in [("kept", &b"kept"[..]), ("gone", b"gone"), ("gone", b"")] {
            let topic_name = TopicName::new(name).unwrap();
            let mut publish = Publish::new(topic_name, Delivery::AtLeastOnce(id(7)), payload);
            publish.retain = true;
            publisher.send(&Packet::Publish(publish));
            assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
        }
        drop(publisher);
        stop(server);

        let mut server = dir.start(after);
        let (mut sleeper, present) = resume(&server, "sleeper");
        assert!(present, "from {before} to {after} shards");
        for number in 1..=50 {
            let (payload, delivery) = sleeper.receive_publish();
            assert_eq!(payload, [number]);
            let Delivery::AtLeastOnce(packet_id) = delivery else {
                panic!("{delivery:?}")
            };
            sleeper.send(&Packet::Puback(Ack::new(packet_id)));
        }
        // The subscription is there too.
        let mut publisher = server.connect(Version::V3_1_1, "publisher");
        publisher.publish("news/2", Delivery::AtLeastOnce(id(1)), b"live");
        assert_eq!(sleeper.receive_publish().0, b"live");
        let mut reader = server.connect(Version::V3_1_1, "reader");
        reader.subscribe("+", QoS::AtMostOnce);
        assert_eq!(reader.receive_publish().0, b"kept");
        server.terminate();
        assert_eq!(server.wait().code(), Some(0));
        let (code, out, err) = check(&dir.0);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
    }
}

/// [MQTT5-3.1.2-8]
#[test]
fn a_will_that_waits_outlives_the_broker() {
    let dir = DataDir::new();
    let server = dir.start("2");
    let (mut watcher, _) = resume(&server, "watcher");
    watcher.subscribe("wills", QoS::AtLeastOnce);
    let topic_name = TopicName::new("wills").unwrap();
    let mut will = Will::new(topic_name, b"left");
    will.qos = QoS::AtLeastOnce;
    will.will_delay_interval = 1;
    let mut connect = Connect::new(Version::V5, "dying");
    connect.properties.session_expiry_interval = 3_600;
    connect.will = Some(will);
    let (dying, _) = connect_with(&server, &connect);
    drop((dying, watcher));
    stop(server);
    let server = dir.start("1");
    let (mut watcher, present) = resume(&server, "watcher");
    assert!(present);
    assert_eq!(watcher.receive_publish().0, b"left");
}

#[test]
fn a_clean_start_that_discarded_never_comes_back() {
    let dir = DataDir::new();
    let server = dir.start("1");
    let (mut sleeper, _) = resume(&server, "sleeper");
    sleeper.subscribe("a", QoS::AtLeastOnce);
    drop(sleeper);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    publisher.publish("a", Delivery::AtLeastOnce(id(1)), b"x");
    assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
    drop(server.connect(Version::V5, "sleeper"));
    stop(server);
    let server = dir.start("1");
    let (_, present) = resume(&server, "sleeper");
    assert!(!present);
}

#[test]
fn an_export_is_a_data_directory_elsewhere() {
    let (dir, copy) = (DataDir::new(), DataDir::new());
    let server = dir.start("1");
    let (mut sleeper, _) = resume(&server, "sleeper");
    sleeper.subscribe("a", QoS::AtLeastOnce);
    drop(sleeper);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    publisher.publish("a", Delivery::AtLeastOnce(id(1)), b"x");
    assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
    drop(publisher);
    stop(server);
    let mut export = command();
    export.args(["store", "export"]).arg(&dir.0);
    let mut export = export.spawn().unwrap();
    let mut import = command();
    import.args(["store", "import"]).arg(&copy.0);
    import.stdin(export.stdout.take().unwrap());
    assert!(import.status().unwrap().success());
    assert!(export.wait().unwrap().success());
    assert_eq!(check(&copy.0).0, 0);
    let server = copy.start("2");
    let (mut sleeper, present) = resume(&server, "sleeper");
    assert!(present);
    assert_eq!(sleeper.receive_publish().0, b"x");
}

#[test]
fn a_data_directory_serves_one_broker() {
    let dir = DataDir::new();
    let mut server = dir.start("1");
    let mut second = command();
    let path = dir.0.to_str().unwrap();
    second.args(["--listen", "127.0.0.1:0", "--data-dir", path]);
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    let expected = format!("cannot use the data directory {path}: ");
    assert!(err.contains(&expected) && err.contains("in use"), "{err}");
    assert!(err.contains("stop it, or choose another"), "{err}");
    let (code, _, err) = check(&dir.0);
    assert_eq!(code, 1);
    assert!(
        err.ends_with("in use by another process: stop it first\n"),
        "{err}"
    );
    // The first one is not disturbed, and once it is killed another one may follow.
    let mut client = server.connect(Version::V5, "client");
    client.send(&Packet::Pingreq);
    assert_eq!(client.receive().packet(), Packet::Pingresp);
    server.kill();
    drop(dir.start("1"));
}

#[test]
fn a_data_directory_that_cannot_be_used_is_refused() {
    let dir = DataDir::new();
    std::fs::write(&dir.0, "a file").unwrap();
    let path = dir.0.to_str().unwrap();
    let mut broker = command();
    broker.args(["--listen", "127.0.0.1:0", "--data-dir", path]);
    let output = broker.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains(&format!("cannot use the data directory {path}: ")),
        "{err}"
    );
    let (code, _, err) = check(&dir.0);
    assert_eq!(
        (code, err),
        (1, format!("avocet-broker: {path}: not a folder\n"))
    );
    std::fs::remove_file(&dir.0).unwrap();
}

#[test]
fn what_the_system_has_survives_a_kill() {
    let dir = DataDir::new();
    let start = || {
        let path = dir.0.to_str().unwrap();
        Server::start(&["--shards", "1", "--data-dir", path, "--durability", "os"])
    };
    let server = start();
    let (mut sleeper, _) = resume(&server, "sleeper");
    sleeper.subscribe("a", QoS::AtLeastOnce);
    let mut publisher = server.connect(Version::V3_1_1, "publisher");
    publisher.publish("a", Delivery::AtLeastOnce(id(1)), b"x");
    assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
    // Dropping it kills it.
    drop(server);
    let server = start();
    let (mut sleeper, present) = resume(&server, "sleeper");
    assert!(present);
    assert_eq!(sleeper.receive_publish().0, b"x");
}
