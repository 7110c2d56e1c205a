//! TLS listeners.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use avocet_codec::{
    Connect, Delivery, Disconnect, Packet, QoS, ReasonCode, Subscribe, SubscribeFilter,
    TopicFilter, Version,
};
use avocet_transport::{ClientTls, Roots, TlsConnector, TlsVersion};
use rustls::{ClientConnection, HandshakeKind, StreamOwned};

use certificates::{Authority, Issued};
use common::{Client, DataDir, Server, id};

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn folder() -> DataDir {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    dir
}

/// A broker with one listener of these settings.
fn start(dir: &DataDir, listener: &str, more: &str) -> Server {
    let config = dir.0.join("avocet.toml");
    let text = format!("{more}\n[[listen]]\naddress = '127.0.0.1:0'\n{listener}\n");
    fs::write(&config, text).unwrap();
    let mut command = common::command();
    command.arg("--config").arg(&config);
    Server::spawn(command)
}

fn tls(issued: &Issued, more: &str) -> String {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    format!("[listen.tls]\ncertificate = '{certificate}'\nkey = '{key}'\n{more}\n")
}

fn connector(authority: &Authority, own: Option<&Issued>) -> TlsConnector {
    let settings = ClientTls {
        roots: Roots::File(authority.file()),
        certificate: own.map(|it| (it.certificate.clone(), it.key.clone())),
        ..ClientTls::default()
    };
    TlsConnector::new(&settings).unwrap()
}

fn open(server: &Server, connector: &TlsConnector) -> Stream {
    let connection = connector.connect("localhost").unwrap();
    StreamOwned::new(connection, common::open(server.address))
}

/// What CONNACK says; none when the connection ends before.
fn try_connect(stream: Stream, connect: &Connect<'_>) -> Option<(Client<Stream>, ReasonCode)> {
    let mut stream = stream;
    stream.flush().ok()?;
    let mut client = Client::over(stream, connect.version);
    if !client.try_send(&Packet::Connect(*connect)) {
        return None;
    }
    let frame = client.receive_or_fail()?;
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    let reason_code = connack.reason_code;
    Some((client, reason_code))
}

fn reason(server: &Server, connector: &TlsConnector) -> Option<ReasonCode> {
    let connect = Connect::new(Version::V5, "c");
    try_connect(open(server, connector), &connect).map(|(_, reason)| reason)
}

#[test]
fn messages_of_all_sizes_cross_both_versions() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let server = start(
        &dir,
        &tls(&authority.issue("localhost"), ""),
        "shards = 2\nmqtt.maximum_packet_size = '16 MiB'",
    );
    for min_version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let connector = TlsConnector::new(&ClientTls {
            roots: Roots::File(authority.file()),
            min_version,
            ..ClientTls::default()
        });
        let connector = connector.unwrap();
        let connect = |name| {
            let stream = open(&server, &connector);
            Client::connect_over(stream, &Connect::new(Version::V5, name))
        };
        let mut subscriber = connect("subscriber");
        subscriber.subscribe("#", QoS::AtLeastOnce);
        let mut publisher = connect("publisher");
        assert_eq!(publisher.socket.conn.alpn_protocol(), Some(&b"mqtt"[..]));
        for size in [0, 1, 16_000, 70_000, 5_000_000] {
            let payload: Vec<u8> = (0..size).map(|n: u32| (n >> 5) as u8).collect();
            publisher.publish("a", Delivery::AtLeastOnce(id(1)), &payload);
            assert!(matches!(publisher.receive().packet(), Packet::Puback(_)));
            let (received, delivery) = subscriber.receive_publish();
            assert!(received == payload, "{size} bytes");
            let Delivery::AtLeastOnce(packet_id) = delivery else {
                panic!("{delivery:?}")
            };
            subscriber.send(&Packet::Puback(avocet_codec::Ack::new(packet_id)));
        }
        publisher.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        // The end is told, so that nobody can cut the connection unseen.
        assert!(publisher.try_receive().is_none());
    }
}

#[test]
fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let (first, second) = (
        authority.issue("localhost"),
        authority.issue("plant.example"),
    );
    let list = |of: fn(&Issued) -> &Path| {
        let quoted = [&first, &second].map(|it| format!("'{}'", of(it).display()));
        format!("[{}]", quoted.join(", "))
    };
    let text = format!(
        "[listen.tls]\ncertificate = {}\nkey = {}\n",
        list(|it| &it.certificate),
        list(|it| &it.key)
    );
    let server = start(&dir, &text, "");
    for (name, is_there) in [
        ("localhost", true),
        ("plant.example", true),
        ("other.example", false),
    ] {
        let connector = TlsConnector::new(&ClientTls {
            roots: Roots::File(authority.file()),
            server_name: Some(name.to_owned()),
            ..ClientTls::default()
        });
        let answer = reason(&server, &connector.unwrap());
        assert_eq!(answer, is_there.then_some(ReasonCode::Success), "{name}");
    }
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let other = Authority::new(&dir.0, "other");
    let rules = dir.0.join("rules.toml");
    let text = "[[rule]]\nallow = 'all'\ntopic = 'devices/{user}/#'\n[[rule]]\nallow = 'all'\n\
                topic = 'by-cn/{cert_cn}'\n";
    fs::write(&rules, text).unwrap();
    let more = format!("access.rules = '{}'", rules.display());
    let pump = authority.issue("pump-7");
    for (user, name) in [
        ("cn", "pump-7"),
        ("san", "pump-7"),
        ("dn", "CN=pump-7,O=Plant"),
    ] {
        let settings = format!(
            "client_ca = '{}'\nuser = '{user}'",
            authority.file().display()
        );
        let mut server = start(&dir, &tls(&authority.issue("localhost"), &settings), &more);
        assert_eq!(reason(&server, &connector(&authority, None)), None);
        server.wait_for_log("refused within its handshake");
        let stranger = other.issue("pump-7");
        assert_eq!(
            reason(&server, &connector(&authority, Some(&stranger))),
            None
        );

        let stream = open(&server, &connector(&authority, Some(&pump)));
        // What the client says itself does not count.
        let mut connect = Connect::new(Version::V5, "c");
        connect.user_name = Some("admin");
        let (mut client, reason) = try_connect(stream, &connect).unwrap();
        assert_eq!(reason, ReasonCode::Success);
        let filters = [
            format!("devices/{name}/#"),
            "by-cn/pump-7".to_owned(),
            "devices/admin/#".to_owned(),
        ];
        let filters = filters
            .each_ref()
            .map(|it| SubscribeFilter::new(TopicFilter::new(it).unwrap(), QoS::AtMostOnce));
        client.send(&Packet::Subscribe(Subscribe::new(id(1), &filters)));
        let frame = client.receive();
        let Packet::Suback(suback) = frame.packet() else {
            panic!("no SUBACK: {frame:?}")
        };
        let codes: Vec<_> = suback.reason_codes.iter().collect();
        let granted = ReasonCode::Success;
        assert_eq!(
            codes,
            [granted, granted, ReasonCode::NotAuthorized],
            "{user}"
        );
    }
}

#[test]
fn without_a_certificate_a_password_counts_where_one_is_optional() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let users = dir.0.join("users");
    let hash = "$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==";
    fs::write(&users, format!("ann:{hash}\n")).unwrap();
    let more = format!("access.password_file = '{}'", users.display());
    let settings = format!(
        "client_ca = '{}'\nclient_certificate = 'optional'\nuser = 'cn'",
        authority.file().display()
    );
    let server = start(&dir, &tls(&authority.issue("localhost"), &settings), &more);
    let pump = authority.issue("pump-7");
    let connect = |own: Option<&Issued>, user: Option<&str>| {
        let mut connect = Connect::new(Version::V5, "c");
        connect.user_name = user;
        connect.password = user.map(|_| "pencil ☃".as_bytes());
        let answer = try_connect(open(&server, &connector(&authority, own)), &connect);
        answer.unwrap().1
    };
    assert_eq!(connect(Some(&pump), None), ReasonCode::Success);
    assert_eq!(connect(None, Some("ann")), ReasonCode::Success);
    assert_eq!(
        connect(None, Some("eve")),
        ReasonCode::BadUserNameOrPassword
    );
    assert_eq!(connect(None, None), ReasonCode::NotAuthorized);
}

#[test]
fn revoked_certificates_and_removed_authorities_end_with_their_files() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let next = Authority::new(&dir.0, "next");
    let (pump, fan) = (authority.issue("pump-7"), authority.issue("fan-1"));
    let trusted = dir.0.join("trusted.pem");
    fs::copy(authority.file(), &trusted).unwrap();
    let crl = authority.revoke(&[]);
    let settings = format!(
        "client_ca = '{}'\nclient_crl = '{}'",
        trusted.display(),
        crl.display()
    );
    let mut server = start(&dir, &tls(&authority.issue("localhost"), &settings), "");
    let [pump, fan] = [&pump, &fan].map(|it| connector(&authority, Some(it)));
    for client in [&pump, &fan] {
        assert_eq!(reason(&server, client), Some(ReasonCode::Success));
    }
    // A session is resumed as long as nothing has changed.
    let resumed = |server: &Server| {
        let connect = Connect::new(Version::V5, "c");
        let (mut client, _) = try_connect(open(server, &pump), &connect)?;
        client.send(&Packet::Pingreq);
        client.receive();
        client.socket.conn.handshake_kind()
    };
    assert_eq!(resumed(&server), Some(HandshakeKind::Resumed));

    authority.revoke(&[&Issued::of(&dir.0, "pump-7", "ca")]);
    server.wait_for_log("certificates were read again");
    assert_eq!(resumed(&server), None);
    assert_eq!(reason(&server, &pump), None);
    assert_eq!(reason(&server, &fan), Some(ReasonCode::Success));

    fs::copy(next.file(), &trusted).unwrap();
    server.wait_for_log("certificates were read again");
    assert_eq!(reason(&server, &fan), None);
    let valve = connector(&authority, Some(&next.issue("valve-3")));
    assert_eq!(reason(&server, &valve), Some(ReasonCode::Success));
}

#[test]
fn a_certificate_that_is_replaced_is_used_and_a_bad_one_is_not() {
    let dir = folder();
    let (old, new) = (Authority::new(&dir.0, "old"), Authority::new(&dir.0, "new"));
    let first = old.issue("localhost");
    let mut server = start(&dir, &tls(&first, ""), "");
    assert_eq!(
        reason(&server, &connector(&old, None)),
        Some(ReasonCode::Success)
    );
    assert_eq!(reason(&server, &connector(&new, None)), None);

    // A certificate without its key.
    let second = new.issue("localhost");
    fs::copy(&second.certificate, &first.certificate).unwrap();
    server.hang_up();
    let line = server.wait_for_log("certificates stay as they were");
    assert!(
        line.contains("is not the key of the certificate in"),
        "{line}"
    );
    assert_eq!(
        reason(&server, &connector(&old, None)),
        Some(ReasonCode::Success)
    );

    fs::copy(&second.key, &first.key).unwrap();
    server.hang_up();
    server.wait_for_log("were read again");
    assert_eq!(
        reason(&server, &connector(&new, None)),
        Some(ReasonCode::Success)
    );
    assert_eq!(reason(&server, &connector(&old, None)), None);

    fs::write(&first.certificate, "nonsense").unwrap();
    server.hang_up();
    let line = server.wait_for_log("holds no certificate");
    assert!(line.contains("certificates stay as they were"), "{line}");
    assert_eq!(
        reason(&server, &connector(&new, None)),
        Some(ReasonCode::Success)
    );
}

#[test]
fn an_expired_certificate_is_told_of() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let mut server = start(
        &dir,
        &tls(&authority.issue_until("localhost", 2021), ""),
        "",
    );
    let line = server.wait_for_log("has expired");
    assert!(line.contains("on 2021-01-01"), "{line}");
    // Not only once a day: whoever installs one that is over hears of it.
    authority.issue_until("localhost", 2022);
    server.hang_up();
    let line = server.wait_for_log("has expired");
    assert!(line.contains("on 2022-01-01"), "{line}");
}

#[test]
fn what_is_no_handshake_ends_at_once_or_at_the_deadline() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let listener = format!(
        "handshake_timeout = '200ms'\n{}",
        tls(&authority.issue("localhost"), "")
    );
    let mut server = start(&dir, &listener, "limits.handshakes_max = 2");
    let mut plain = common::open(server.address);
    plain
        .write_all(b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0\0")
        .unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&0x15), "an alert");
    let line = server.wait_for_log("refused within its handshake");
    assert!(line.contains("TLS: received corrupt message"), "{line}");

    let mut silent = common::open(server.address);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let line = server.wait_for_log("refused within its handshake");
    assert!(line.contains("it took too long"), "{line}");

    let silent: Vec<_> = (0..3).map(|_| common::open(server.address)).collect();
    let line = server.wait_for_log("refused within its handshake");
    assert!(line.contains("too many at once"), "{line}");
    server.wait_for_log("it took too long");
    let answer = reason(&server, &connector(&authority, None));
    assert_eq!(answer, Some(ReasonCode::Success));
    drop(silent);
}
