//! Limits on connections and bans, through the binary and over sockets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use avocet_codec::{Ack, Connect, Delivery, Packet, QoS, ReasonCode, Version};
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

/// A listener whose connections have something before MQTT, and a plain one.
fn start_with_websocket(settings: &str) -> (Server, SocketAddr) {
    let text = format!(
        "shards = 2\nmqtt.sys_interval = '100ms'\n{settings}\n[[listen]]\naddress = '127.0.0.1:0'\n\
         [[listen]]\naddress = '127.0.0.1:0'\nwebsocket = true\n"
    );
    let file = File::new("websocket", &text);
    let mut command = command();
    command.args(["--config", file.0.to_str().unwrap()]);
    let mut server = Server::spawn(command);
    let line = server.wait_for_log("listening on ");
    let address = line.split_once("listening on ").unwrap().1;
    let address = address.split(' ').next().unwrap().parse().unwrap();
    (server, address)
}

/// Waits until a counter that `$SYS` shows has a value.
fn wait_for_sys(client: &mut Client, topic: &str, value: &str) {
    let topic = format!("$SYS/broker/connects/refused{topic}");
    client.subscribe(&topic, QoS::AtMostOnce);
    loop {
        let frame = client.receive();
        let Packet::Publish(publish) = frame.packet() else {
            panic!("{frame:?}");
        };
        if publish.topic_name.unwrap().as_str() != topic {
            continue;
        }
        let shown = std::str::from_utf8(publish.payload).unwrap();
        if shown == value {
            return;
        }
        assert!(
            shown.parse::<u64>().unwrap() < value.parse().unwrap(),
            "{topic}: {shown}"
        );
    }
}

#[test]
fn connections_count_from_when_they_are_accepted() {
    let (server, websocket) = start_with_websocket("limits.connections_max = 3");
    // Both are silent: they are no clients of MQTT yet.
    let mut silent = [(); 2].map(|()| common::open(websocket));
    let request = b"GET /mqtt HTTP/1.1\r\n";
    for socket in &mut silent {
        socket.write_all(request).unwrap();
    }
    let (reason_code, _third) = plain(&server, "third");
    assert_eq!(reason_code, ReasonCode::Success);
    // As soon as both are accepted, there is no room for another one.
    while plain(&server, "fourth").0 != ReasonCode::QuotaExceeded {}
    drop(silent);
    connect_when_there_is_room(&server, &Connect::new(Version::V5, "fourth"));
}

#[test]
fn who_is_banned_during_his_handshake_is_refused() {
    let bans = File::new("ban-handshake", "");
    let (mut server, websocket) =
        start_with_websocket(&format!("access.bans = '{}'", bans.0.display()));
    let mut socket = common::open(websocket);
    socket.write_all(b"GET /mqtt HTTP/1.1\r\n").unwrap();
    // It was accepted before another one that is let in.
    drop(server.connect(Version::V5, "other"));
    bans.write("address = '127.0.0.1'");
    server.hang_up();
    server.wait_for_log("were read again");
    let rest = b"Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    socket.write_all(rest).unwrap();
    socket
        .write_all(b"\x82\x8f\0\0\0\0\x10\x0d\0\x04MQTT\x05\x02\0\0\0\0\0")
        .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let connack = answer
        .windows(4)
        .find(|it| it[..2] == [0x20, 0x03])
        .unwrap();
    assert_eq!(connack[3], ReasonCode::Banned as u8, "{answer:x?}");
}

/// Each has a counter, and a line with what is known of it.
#[test]
fn every_refusal_is_counted_and_told() {
    let settings = "limits.handshakes_max = 1\nlimits.connections_per_address_max = 8\n\
        limits.client_id_bytes_max = 20\nmqtt.connect_timeout = '3s'";
    let (mut server, websocket) = start_with_websocket(settings);
    let mut observer = server.connect(Version::V5, "observer");
    let open = |bytes: &[u8], address| {
        let mut socket = common::open(address);
        socket.write_all(bytes).unwrap();
        socket
    };
    let plain_address = server.address;

    // A request that is none.
    let socket = open(b"PUT / HTTP/1.1\r\n\r\n", websocket);
    let line = server.wait_for_log("refused within its handshake");
    let address = format!("address={}", socket.local_addr().unwrap());
    for part in [
        &*address,
        "listener=1",
        "closed_by=\"broker\"",
        "reason=WebSocket",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    wait_for_sys(&mut observer, "/handshake", "1");

    // Another one than there may be, of the same shard: every second connection is.
    let _sockets: Vec<_> = (0..4).map(|_| open(b"GET", websocket)).collect();
    let line = server.wait_for_log("too many at once");
    assert!(line.contains("listener=1"), "{line}");

    // What is no CONNECT, and nothing at all.
    let _socket = open(b"\xc0\0", plain_address);
    let line = server.wait_for_log("closed before it was connected");
    assert!(
        line.contains("listener=0") && line.contains("not CONNECT"),
        "{line}"
    );
    wait_for_sys(&mut observer, "/malformed", "1");
    let _socket = open(b"", plain_address);
    server.wait_for_log("no connect in time");
    wait_for_sys(&mut observer, "/timeout", "1");

    // A CONNECT.
    let (reason_code, _) = plain(&server, "a client identifier that is long");
    assert_eq!(reason_code, ReasonCode::ClientIdentifierNotValid);
    server.wait_for_log("client_id=\"a client identifier that is long\"");
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

/// They have no Keep Alive: silence is allowed, half a packet is not.
#[test]
fn a_packet_that_never_ends_ends_its_connection() {
    let server = start(&["limits.packet_timeout=1s"]);
    let mut silent = server.connect(Version::V5, "silent");
    for version in [Version::V5, Version::V3_1_1] {
        let mut slow = server.connect(version, "slow");
        // One that comes in pieces, and then another one, of which each byte is a sign of life.
        slow.socket.write_all(b"\xc0").unwrap();
        slow.socket.write_all(b"\0").unwrap();
        assert_eq!(slow.receive().packet(), Packet::Pingresp);
        slow.socket.write_all(b"\x30\x7f\0\x01a").unwrap();
        let patience = Some(Duration::from_millis(100));
        slow.socket.set_read_timeout(patience).unwrap();
        let mut answer = [0; 16];
        let len = loop {
            match slow.socket.read(&mut answer) {
                Ok(len) => break len,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            // The broker may have closed already.
            let _ = slow.socket.write_all(b"x");
        };
        if version == Version::V5 {
            assert_eq!((answer[0], answer[2]), (0xE0, 0x8D));
        } else {
            assert_eq!(len, 0);
        }
    }
    silent.send(&Packet::Pingreq);
    assert_eq!(silent.receive().packet(), Packet::Pingresp);
}

/// The allocator keeps what the queue had: the process is as large as before.
#[cfg(target_os = "linux")]
#[test]
fn once_the_queues_are_drained_new_load_is_taken_again() {
    // Of several shards one may know a little sooner, and drop what others have acknowledged.
    let mut server = Server::start(&["--shards", "1", "--set", "limits.memory_max=40 MiB"]);
    let (mut sleeper, _) = common::resume(&server, "sleeper");
    sleeper.subscribe("t", QoS::AtLeastOnce);
    drop(sleeper);
    let mut publisher = server.connect(Version::V5, "publisher");
    let mut queued = 0;
    let mut refused = false;
    while !refused {
        for number in 1..=100 {
            let delivery = Delivery::AtLeastOnce(common::id(number));
            publisher.publish("t", delivery, &[b'x'; 500]);
        }
        for _ in 0..100 {
            let frame = publisher.receive();
            let Packet::Puback(puback) = frame.packet() else {
                panic!("no PUBACK: {frame:?}")
            };
            if puback.reason_code == ReasonCode::QuotaExceeded {
                refused = true;
            } else {
                assert_eq!(puback.reason_code, ReasonCode::Success);
                queued += 1;
            }
        }
        assert!(queued < 100_000, "a queue has no room for more");
    }
    server.wait_for_log("new load is refused");
    let (mut sleeper, _) = common::resume(&server, "sleeper");
    for _ in 0..queued {
        let (_, delivery) = sleeper.receive_publish();
        let Delivery::AtLeastOnce(id) = delivery else {
            panic!("{delivery:?}")
        };
        sleeper.send(&Packet::Puback(Ack::new(id)));
    }
    server.wait_for_log("new load is taken again");
    server.connect(Version::V5, "new");
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
