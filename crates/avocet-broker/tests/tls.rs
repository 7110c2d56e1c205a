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
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{
    Connect, Delivery, Disconnect, Packet, QoS, ReasonCode, Subscribe, SubscribeFilter,
    TopicFilter, Version,
};
use avocet_transport::{ALPN_MQTT, ClientTls, Roots, TlsConnector};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

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

/// Opens a connection that speaks one version of TLS and no other.
fn open_with(
    server: &Server,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> Stream {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority.file()).unwrap();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_MQTT.to_vec()];
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
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
    for (version, number) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let connect = |name| {
            let stream = open_with(&server, &authority, version);
            Client::connect_over(stream, &Connect::new(Version::V5, name))
        };
        let mut subscriber = connect("subscriber");
        subscriber.subscribe("#", QoS::AtLeastOnce);
        let mut publisher = connect("publisher");
        assert_eq!(publisher.socket.conn.protocol_version(), Some(number));
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
fn a_version_that_is_too_old_is_refused() {
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let issued = authority.issue("localhost");
    for (setting, old_may) in [("", true), ("min_version = '1.3'", false)] {
        let mut server = start(&dir, &tls(&issued, setting), "");
        let connect = Connect::new(Version::V5, "c");
        for (version, may) in [(&TLS12, old_may), (&TLS13, true)] {
            let stream = open_with(&server, &authority, version);
            let answer = try_connect(stream, &connect).map(|(_, reason)| reason);
            let expected = may.then_some(ReasonCode::Success);
            assert_eq!(answer, expected, "{setting:?}, {:?}", version.version);
        }
        if !old_may {
            let line = server.wait_for_log("refused within its handshake");
            assert!(line.contains("TLS: peer is incompatible"), "{line}");
        }
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
    let pump = authority.issue_also_named("pump-7", &["pump-7.plant.example", "p7.example"]);
    for (user, name) in [
        ("cn", "pump-7"),
        ("san", "pump-7.plant.example"),
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
    let stays = Connect::new(Version::V5, "stays");
    let (mut stays, _) = try_connect(open(&server, &pump), &stays).unwrap();

    authority.revoke(&[&Issued::of(&dir.0, "pump-7", "ca")]);
    server.wait_for_log("certificates were read again");
    assert_eq!(resumed(&server), None);
    assert_eq!(reason(&server, &pump), None);
    assert_eq!(reason(&server, &fan), Some(ReasonCode::Success));
    // Who is connected stays: it is connecting that a certificate is for.
    stays.send(&Packet::Pingreq);
    assert_eq!(stays.receive().packet(), Packet::Pingresp);

    // Nobody is let in because a file cannot be read, and nobody who may come in is refused.
    for (file, missing) in [
        (&crl, "holds no certificate revocation list"),
        (&trusted, "holds no certificate of an authority"),
    ] {
        let good = fs::read(file).unwrap();
        fs::write(file, "nonsense").unwrap();
        let line = server.wait_for_log("certificates stay as they were");
        assert!(line.contains(missing), "{line}");
        assert_eq!(reason(&server, &pump), None);
        assert_eq!(reason(&server, &fan), Some(ReasonCode::Success));
        fs::write(file, good).unwrap();
        server.wait_for_log("certificates were read again");
    }

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
fn what_expires_soon_is_told_of_in_time() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let dir = folder();
    let authority = Authority::new(&dir.0, "ca");
    let (soon, later) = (
        authority.issue_for("localhost", 10 * DAY + DAY / 2),
        authority.issue_for("plant.example", 60 * DAY),
    );
    let list = |of: fn(&Issued) -> &Path| {
        let quoted = [&soon, &later].map(|it| format!("'{}'", of(it).display()));
        format!("[{}]", quoted.join(", "))
    };
    let clients = Authority::expired(&dir.0, "clients");
    let crl = clients.revoke_until(&[], 2021);
    let text = format!(
        "[listen.tls]\ncertificate = {}\nkey = {}\nclient_ca = '{}'\nclient_crl = '{}'\n",
        list(|it| &it.certificate),
        list(|it| &it.key),
        clients.file().display(),
        crl.display()
    );
    let mut server = start(&dir, &text, "");
    server.hang_up();
    let lines = server.wait_for_all_up_to("were read again");
    for (told, day) in [
        (
            &*format!("{} expires on ", soon.certificate.display()),
            "in 10 days",
        ),
        ("the authority CN=clients in ", "has expired on 2021-01-01"),
        ("a revocation list in ", "has expired on 2021-01-01"),
    ] {
        let line = lines.lines().find(|line| line.contains(told));
        assert!(line.is_some_and(|line| line.contains(day)), "{lines}");
    }
    assert!(!lines.contains("plant.example"), "{lines}");
    // An authority and a list are told of so that they are replaced; they count until then.
    let pump = connector(&authority, Some(&clients.issue("pump-7")));
    assert_eq!(reason(&server, &pump), Some(ReasonCode::Success));
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
