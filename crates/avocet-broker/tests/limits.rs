//! Limits on connections and bans, through the binary and over sockets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::fs;
use std::path::PathBuf;

use avocet_codec::{Connect, Packet, ReasonCode, Version};
use common::{Client, Server, command};

/// The password `password`.
const ARGON2ID: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

/// A file of a test, which goes with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("limits-{name}-{}", std::process::id());
        let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn setting(&self, key: &str) -> String {
        format!("{key}={}", self.0.to_str().unwrap())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn start(settings: &[&str]) -> Server {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<_> = ["--shards", "3"].into_iter().chain(set).collect();
    Server::start(&arguments)
}

/// What CONNACK says, and the client if it was accepted.
fn connect(server: &Server, connect: &Connect<'_>) -> (ReasonCode, Client) {
    let mut client = Client::open(server.address, connect.version);
    client.send(&Packet::Connect(*connect));
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    if connack.reason_code.is_error() {
        assert_eq!(client.try_receive(), None);
    }
    (connack.reason_code, client)
}

fn plain(server: &Server, client_id: &str) -> (ReasonCode, Client) {
    connect(server, &Connect::new(Version::V5, client_id))
}

fn ann<'a>(client_id: &'a str) -> Connect<'a> {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.user_name = Some("ann");
    connect.password = Some(b"password");
    connect
}

/// Connects again and again until there is room for one more.
fn connect_when_there_is_room(server: &Server, connect_with: &Connect<'_>) -> Client {
    loop {
        let (reason_code, client) = connect(server, connect_with);
        if reason_code == ReasonCode::Success {
            return client;
        }
        assert_eq!(reason_code, ReasonCode::QuotaExceeded);
    }
}

#[test]
fn there_are_as_many_connections_of_all_shards_as_may_be() {
    let server = start(&["limits.connections_max=4"]);
    let mut clients: Vec<_> = (0..4)
        .map(|number| server.connect(Version::V5, &format!("client-{number}")))
        .collect();
    let (reason_code, _) = plain(&server, "more");
    assert_eq!(reason_code, ReasonCode::QuotaExceeded);
    // [MQTT311-3.2.2-4]: not authorized is the return code that tells clients to stay away.
    let (reason_code, _) = connect(&server, &Connect::new(Version::V3_1_1, "more"));
    assert_eq!(reason_code, ReasonCode::NotAuthorized);
    drop(clients.pop());
    connect_when_there_is_room(&server, &Connect::new(Version::V5, "more"));
}

#[test]
fn there_are_as_many_connections_of_an_address_as_may_be() {
    let server = start(&["limits.connections_per_address_max=2"]);
    let first = server.connect(Version::V5, "first");
    let _second = server.connect(Version::V5, "second");
    let (reason_code, _) = plain(&server, "third");
    assert_eq!(reason_code, ReasonCode::QuotaExceeded);
    drop(first);
    connect_when_there_is_room(&server, &Connect::new(Version::V5, "third"));
}

#[test]
fn connections_come_as_fast_as_they_may() {
    let mut server = start(&["limits.connects_per_address=3"]);
    let answers: Vec<_> = (0..100).map(|_| plain(&server, "c").0).collect();
    let fast = ReasonCode::ConnectionRateExceeded;
    assert!(answers[..3].iter().all(|it| *it == ReasonCode::Success));
    assert!(answers.contains(&fast), "{answers:?}");
    server.wait_for_log("too many connections at once from the address");
    let (reason_code, _) = connect(&server, &Connect::new(Version::V3_1_1, "c"));
    assert!([ReasonCode::ServerUnavailable, ReasonCode::Success].contains(&reason_code));
}

#[test]
fn a_listener_has_limits_of_its_own() {
    let text = "[[listen]]\naddress = \"127.0.0.1:0\"\nconnections_max = 1\n";
    let file = File::new("listener", text);
    let mut command = command();
    command.args(["--config", file.0.to_str().unwrap()]);
    let server = Server::spawn(command);
    let first = server.connect(Version::V5, "first");
    let (reason_code, _) = plain(&server, "second");
    assert_eq!(reason_code, ReasonCode::QuotaExceeded);
    drop(first);
    connect_when_there_is_room(&server, &Connect::new(Version::V5, "second"));
}

#[test]
fn a_user_has_as_many_clients_as_may_be() {
    let users = File::new("users", &format!("ann:{ARGON2ID}\n"));
    let users = users.setting("access.password_file");
    let server = start(&[&users, "limits.connections_per_user_max=2"]);
    let (_, first) = connect(&server, &ann("first"));
    let (_, _second) = connect(&server, &ann("second"));
    // Who comes back takes over, and is no client more.
    let (reason_code, _second) = connect(&server, &ann("second"));
    assert_eq!(reason_code, ReasonCode::Success);
    let (reason_code, _) = connect(&server, &ann("third"));
    assert_eq!(reason_code, ReasonCode::QuotaExceeded);
    drop(first);
    connect_when_there_is_room(&server, &ann("third"));
}

#[test]
fn who_is_banned_is_refused_and_disconnected() {
    let users = File::new("ban-users", &format!("ann:{ARGON2ID}\n"));
    let bans = File::new("bans", "client_id = \"bad\"\n");
    let (users, setting) = (
        users.setting("access.password_file"),
        bans.setting("access.bans"),
    );
    let mut server = start(&[&users, &setting]);
    assert_eq!(connect(&server, &ann("bad")).0, ReasonCode::Banned);
    let (reason_code, mut client) = connect(&server, &ann("good"));
    assert_eq!(reason_code, ReasonCode::Success);
    for text in ["user = \"ann\"\n", "address = \"127.0.0.0/8\"\n"] {
        bans.write(text);
        server.hang_up();
        let frame = client.receive();
        let Packet::Disconnect(disconnect) = frame.packet() else {
            panic!("no DISCONNECT: {frame:?}")
        };
        assert_eq!(disconnect.reason_code, ReasonCode::AdministrativeAction);
        assert_eq!(connect(&server, &ann("good")).0, ReasonCode::Banned);
        bans.write("");
        server.hang_up();
        server.wait_for_log("bans=0");
        client = loop {
            let (reason_code, client) = connect(&server, &ann("good"));
            if reason_code == ReasonCode::Success {
                break client;
            }
        };
    }
    // What is wrong changes nothing.
    bans.write("user = 1");
    server.hang_up();
    server.wait_for_log("stay as they were");
    client.send(&Packet::Pingreq);
    assert_eq!(client.receive().packet(), Packet::Pingresp);
}

#[test]
fn who_connects_too_often_is_banned_for_a_while() {
    let mut server = start(&["limits.flapping_connects=3"]);
    let answers: Vec<_> = (0..5).map(|_| plain(&server, "flapping").0).collect();
    let (fine, banned) = (ReasonCode::Success, ReasonCode::Banned);
    assert_eq!(answers, [fine, fine, fine, banned, banned]);
    assert_eq!(plain(&server, "other").0, fine);
    server.wait_for_log("connects too often");
}

#[cfg(target_os = "linux")]
#[test]
fn without_memory_no_new_client_is_taken() {
    let mut server = start(&["limits.memory_max=1 MiB"]);
    server.wait_for_log("new load is refused");
    loop {
        let (reason_code, _) = plain(&server, "new");
        if reason_code == ReasonCode::ServerBusy {
            break;
        }
        assert_eq!(reason_code, ReasonCode::Success);
    }
}

/// The accept loop waits, and those who are there are served.
#[cfg(target_os = "linux")]
#[test]
fn at_the_limit_of_descriptors_those_who_are_there_are_served() {
    let mut command = std::process::Command::new("sh");
    let script = "ulimit -n 64; exec \"$0\" \"$@\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_avocet-broker")])
        .args(["--listen", "127.0.0.1:0", "--shards", "2"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let mut server = Server::spawn(command);
    let mut client = server.connect(Version::V5, "first");
    let sockets: Vec<_> = (0..100).map(|_| common::open(server.address)).collect();
    server.wait_for_log("cannot accept connections");
    client.send(&Packet::Pingreq);
    assert_eq!(client.receive().packet(), Packet::Pingresp);
    drop(sockets);
    server.wait_for_log("accepting connections again");
    server.connect(Version::V5, "second");
    client.send(&Packet::Pingreq);
    assert_eq!(client.receive().packet(), Packet::Pingresp);
}
