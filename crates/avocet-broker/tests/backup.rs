//! Backups of a running broker, with its own binary.
#![cfg(unix)]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use avocet_codec::{Ack, Connect, Delivery, Packet, Publish, QoS, TopicName, Version};
use common::{Client, DataDir, Server, command, id, resume};

const PUBLISHERS: usize = 3;

/// So long that a backup of some hundreds does not fit into the buffers on its way.
const PAYLOAD: usize = 10_000;

/// Publishes numbered messages one by one, until told to stop; counts those acknowledged.
fn publish(address: SocketAddr, at: usize, acknowledged: &AtomicU64, stop: &AtomicBool) {
    let client_id = format!("publisher{at}");
    let connect = Connect::new(Version::V3_1_1, &client_id);
    let mut client = Client::connect(address, &connect);
    let topic = format!("load/{at}");
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut payload = format!("{number} ").into_bytes();
        payload.resize(PAYLOAD, b'.');
        let topic_name = TopicName::new(&topic).unwrap();
        let mut publish = Publish::new(topic_name, Delivery::AtLeastOnce(id(1)), &payload);
        publish.retain = true;
        client.send(&Packet::Publish(publish));
        assert!(matches!(client.receive().packet(), Packet::Puback(_)));
        acknowledged.store(number, Ordering::Relaxed);
    }
}

fn number(payload: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(payload);
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Begins a backup, which waits for its bytes to be taken; these are the first of them.
fn begin(dir: &Path) -> (Child, [u8; 8]) {
    let mut export = command();
    export.args(["store", "export"]).arg(dir);
    let mut export = export.spawn().unwrap();
    let mut first = [0; 8];
    let out = export.stdout.as_mut().unwrap();
    out.read_exact(&mut first).unwrap();
    (export, first)
}

fn import(dir: &Path, bytes: &[u8]) -> Output {
    let mut import = command();
    import.args(["store", "import"]).arg(dir);
    let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
    // An import that refuses does not read to the end.
    let _ = import.stdin.take().unwrap().write_all(bytes);
    import.wait_with_output().unwrap()
}

/// Waits until something has happened in other threads.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn fill(server: &Server) {
    let (mut sleeper, _) = resume(server, "sleeper");
    sleeper.subscribe("load/#", QoS::AtLeastOnce);
    drop(sleeper);
    let mut client = server.connect(Version::V3_1_1, "filler");
    for _ in 0..200 {
        client.publish("load/0", Delivery::AtLeastOnce(id(1)), &[b'.'; PAYLOAD]);
        assert!(matches!(client.receive().packet(), Packet::Puback(_)));
    }
}

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_before() {
    let (dir, copy) = (DataDir::new(), DataDir::new());
    let mut server = dir.start("2");
    let (mut sleeper, _) = resume(&server, "sleeper");
    sleeper.subscribe("load/#", QoS::AtLeastOnce);
    drop(sleeper);
    let acknowledged: [AtomicU64; PUBLISHERS] = Default::default();
    let stop = AtomicBool::new(false);
    let counts = || -> Vec<u64> {
        let counts = acknowledged.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    };
    let all_above = |least: &[u64]| {
        counts()
            .iter()
            .zip(least)
            .all(|(count, least)| count > least)
    };
    let address = server.address;
    let (before, bytes) = thread::scope(|scope| {
        for (at, acknowledged) in acknowledged.iter().enumerate() {
            let stop = &stop;
            scope.spawn(move || publish(address, at, acknowledged, stop));
        }
        until(|| all_above(&[100; PUBLISHERS]));
        let before = counts();
        let (mut export, first) = begin(&dir.0);
        // The broker goes on while its backup waits.
        let during = counts();
        until(|| all_above(&during.iter().map(|count| count + 20).collect::<Vec<_>>()));
        let mut bytes = first.to_vec();
        let mut out = export.stdout.take().unwrap();
        out.read_to_end(&mut bytes).unwrap();
        assert!(export.wait().unwrap().success());
        stop.store(true, Ordering::Relaxed);
        (before, bytes)
    });
    server.wait_for_log("a backup was written");
    server.kill();

    let imported = import(&copy.0, &bytes);
    assert!(imported.status.success(), "{imported:?}");
    let server = copy.start("1");
    let mut reader = server.connect(Version::V3_1_1, "reader");
    reader.subscribe("load/#", QoS::AtMostOnce);
    let mut retained = [0; PUBLISHERS];
    for _ in 0..PUBLISHERS {
        let frame = reader.receive();
        let Packet::Publish(publish) = frame.packet() else {
            panic!("{frame:?}")
        };
        let name = publish.topic_name.unwrap().as_str();
        let at: usize = name.split_once('/').unwrap().1.parse().unwrap();
        retained[at] = number(publish.payload);
    }
    let (mut sleeper, present) = resume(&server, "sleeper");
    assert!(present);
    let mut came = [0; PUBLISHERS];
    sleeper.send(&Packet::Pingreq);
    // Of each publisher everything up to some message, which is the retained one.
    while came != retained {
        let frame = sleeper.receive();
        let Packet::Publish(publish) = frame.packet() else {
            continue;
        };
        let name = publish.topic_name.unwrap().as_str();
        let at: usize = name.split_once('/').unwrap().1.parse().unwrap();
        came[at] += 1;
        assert_eq!(number(publish.payload), came[at], "{name}");
        let Delivery::AtLeastOnce(packet_id) = publish.delivery else {
            panic!("{frame:?}")
        };
        sleeper.send(&Packet::Puback(Ack::new(packet_id)));
    }
    for (came, before) in came.iter().zip(before) {
        assert!(*came >= before, "{came} came, {before} were acknowledged");
    }
}

#[test]
fn what_is_stored_is_for_one_user() {
    let dir = DataDir::new();
    let _server = dir.start("1");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.0), 0o700);
    let mut names = Vec::new();
    for entry in dir.0.read_dir().unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_owned());
    }
    assert!(names.iter().any(|name| name == "backup.sock"), "{names:?}");
    assert!(names.len() > 2, "{names:?}");
}

/// On Linux also in a folder whose path has no room in the address of a socket.
#[test]
fn a_broker_that_ends_cuts_its_backup_short() {
    for stopped in [false, true] {
        let (dir, copy) = (DataDir::new(), DataDir::new());
        let long = if cfg!(target_os = "linux") { 30 } else { 1 };
        let folder = dir.0.join("long".repeat(long));
        let path = folder.to_str().unwrap();
        let mut server = Server::start(&["--data-dir", path]);
        fill(&server);
        let (export, first) = begin(&folder);
        if stopped {
            server.terminate();
            assert_eq!(server.wait().code(), Some(0));
            assert!(!folder.join("backup.sock").exists());
        } else {
            server.kill();
        }
        let cut = export.wait_with_output().unwrap();
        let err = String::from_utf8(cut.stderr).unwrap();
        assert_eq!(cut.status.code(), Some(1));
        assert!(err.contains("the broker ended the backup early"), "{err}");
        let bytes = [&first[..], &cut.stdout].concat();
        let imported = import(&copy.0, &bytes);
        let err = String::from_utf8(imported.stderr).unwrap();
        assert!(err.contains("the export is cut short"), "{err}");

        // Nobody uses the folder; the next broker does not mind what is left in it.
        let (mut export, first) = begin(&folder);
        let mut bytes = first.to_vec();
        let mut out = export.stdout.take().unwrap();
        out.read_to_end(&mut bytes).unwrap();
        assert!(export.wait().unwrap().success());
        let server = Server::start(&["--data-dir", path]);
        let imported = import(&copy.0, &bytes);
        assert!(imported.status.success(), "{imported:?}");
        drop(server);
    }
}
