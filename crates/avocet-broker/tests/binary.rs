//! The binary, from outside: its exit codes, its messages, its signals.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use avocet_codec::{Delivery, Packet, QoS, ReasonCode, Version};
use common::{Server, command, id};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = command();
    command.args(arguments).envs(variables.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn check_accepts_a_configuration_that_is_fine() {
    let path = file("fine.toml", "shards = 1\nlisten = '127.0.0.1:0'\n");
    let (code, out, err) = run(&["check", "--config", path.to_str().unwrap()], &[]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "the configuration is fine\n", "")
    );
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let path = file("wrong.toml", "shards = 1\n\n[log]\nformt = 'json'\n");
    let path = path.to_str().unwrap();
    let (code, out, err) = run(&["check", "--config", path], &[]);
    let expected = format!(
        "avocet-broker: {path}, line 4: unknown setting `log.formt`; did you mean `log.format`?\n"
    );
    assert_eq!((code, out.as_str(), err), (2, "", expected));
}

#[test]
fn a_wrong_configuration_keeps_the_broker_from_starting() {
    for (arguments, variables, expected) in [
        (
            &["--shards", "many"][..],
            &[][..],
            "flag --shards: `shards = many` is not allowed",
        ),
        (
            &["--listen", "0.0.0.0:0"],
            &[],
            "set `anonymous = true` in section `[access]`",
        ),
        (
            &[],
            &[("AVOCET_LISTEN", "0.0.0.0:0")],
            "environment variable AVOCET_LISTEN",
        ),
        (
            &[],
            &[("AVOCET_DURABILITY", "some")],
            "environment variable AVOCET_DURABILITY: `durability = some` is not allowed",
        ),
        (
            &["--config", "/no/such/file"],
            &[],
            "cannot read the configuration file /no/such/file",
        ),
        (&["--no-such-flag"], &[], "unexpected argument"),
    ] {
        let (code, _, err) = run(arguments, variables);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let (code, _, err) = run(&["--listen", &address], &[]);
    assert_eq!(code, 1);
    let expected = format!("cannot listen on {address}: another program uses port");
    assert!(err.contains(&expected), "{err}");
    assert!(err.contains("--listen"), "{err}");
}

#[test]
fn settings_prints_the_reference() {
    let (code, out, _) = run(&["settings"], &[]);
    assert_eq!((code, out), (0, avocet_broker::reference()));
}

#[test]
fn the_start_tells_where_and_what() {
    let mut command = command();
    command
        .env("AVOCET_LISTEN", "127.0.0.1:0,127.0.0.1:0")
        .env("AVOCET_LOG_FORMAT", "json");
    let mut server = Server::spawn(command);
    let second = server.wait_for_log("listening on 127.0.0.1:");
    assert!(second.starts_with('{') && second.ends_with('}'), "{second}");
    server.wait_for_log("durable storage");
    server.wait_for_log("all state is in memory");
    server.wait_for_log("avocet sub");
}

/// [MQTT5-4.13.2-1]
#[test]
fn sigterm_disconnects_clients_and_ends_with_success() {
    for shards in ["1", "3"] {
        let mut server = Server::start(&["--shards", shards]);
        let mut v5 = server.connect(Version::V5, "five");
        let mut v3 = server.connect(Version::V3_1_1, "three");
        server.terminate();
        let frame = v5.receive();
        let Packet::Disconnect(disconnect) = frame.packet() else {
            panic!("{frame:?}")
        };
        assert_eq!(disconnect.reason_code, ReasonCode::ServerShuttingDown);
        assert_eq!(v5.try_receive(), None);
        assert_eq!(v3.try_receive(), None);
        drop((v3, v5));
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_client_that_does_not_read_cannot_hold_up_the_stop() {
    let mut server = Server::start(&["--set", "stop_timeout=100ms"]);
    let mut lazy = server.connect(Version::V3_1_1, "lazy");
    lazy.subscribe("flood", QoS::AtMostOnce);
    let mut publisher = server.connect(Version::V5, "pub");
    let payload = vec![0; 1_000_000];
    for number in 1..=20 {
        publisher.publish("flood", Delivery::AtLeastOnce(id(number)), &payload);
        assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn connects_and_disconnects_are_logged_with_who_closed() {
    let mut server = Server::start(&["--shards", "1", "--log-format", "json"]);
    let mut client = server.connect(Version::V5, "porch");
    let line = server.wait_for_log("\"connected\"");
    for part in [
        "\"client_id\":\"porch\"",
        "\"version\":\"5.0\"",
        "\"address\":\"127.0.0.1:",
    ] {
        assert!(line.contains(part), "{line}");
    }
    let disconnect = avocet_codec::Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    client.send(&Packet::Disconnect(disconnect));
    let line = server.wait_for_log("\"disconnected\"");
    for part in [
        "\"client_id\":\"porch\"",
        "\"version\":\"5.0\"",
        "\"closed_by\":\"client\"",
        "\"address\":\"127.0.0.1:",
    ] {
        assert!(line.contains(part), "{line}");
    }
    drop(server.connect(Version::V3_1_1, "attic"));
    let line = server.wait_for_log("\"disconnected\"");
    for part in ["\"client_id\":\"attic\"", "\"closed_by\":\"network\""] {
        assert!(line.contains(part), "{line}");
    }
}
