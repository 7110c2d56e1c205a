//! The configurations that come with the documentation, and strangers at every door.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use avocet_codec::{Delivery, QoS, Version};
use avocet_transport::{ClientTls, Roots, TlsConnector, proxy_header};

use certificates::Authority;
use common::{DataDir, Server};

const USERS: &str = "ann:$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==\n";

/// All files that configurations name below /etc/avocet.
fn files() -> DataDir {
    let dir = DataDir::new();
    fs::create_dir_all(dir.0.join("tls")).unwrap();
    fs::write(dir.0.join("passwd"), USERS).unwrap();
    let rule = "[[rule]]\nallow = 'all'\ntopic = 'devices/{user}/#'\n";
    fs::write(dir.0.join("rules.toml"), rule).unwrap();
    let tls = dir.0.join("tls");
    let authority = Authority::new(&tls, "ca");
    authority.revoke(&[]);
    let broker = authority.issue("localhost");
    fs::rename(broker.certificate, tls.join("broker.pem")).unwrap();
    fs::rename(broker.key, tls.join("broker.key")).unwrap();
    dir
}

#[cfg(unix)]
#[test]
fn configurations_of_the_documentation_are_fine_and_start() {
    let dir = files();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let here = dir.0.to_str().unwrap();
        let text = ["/etc/avocet", "/var/lib/avocet", "/run/avocet"]
            .iter()
            .fold(text, |text, place| text.replace(place, here));
        let config = dir.0.join("avocet.toml");
        fs::write(&config, &text).unwrap();
        let mut check = common::command();
        let output = check
            .arg("check")
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", path.display());

        // The same at ports that are free.
        let free = |line: &str| match line.split_once("address = \"") {
            Some((_, address)) if !address.starts_with("unix:") => {
                "address = \"127.0.0.1:0\"\n".to_owned()
            }
            _ => format!("{line}\n"),
        };
        let text: String = text.lines().map(free).collect();
        fs::write(&config, text).unwrap();
        let mut command = common::command();
        command.arg("--config").arg(&config);
        let server = Server::spawn(command);
        server.terminate();
        count += 1;
    }
    assert_eq!(count, 3);
}

/// Numbers that differ and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % sides
    }
}

/// A beginning that a listener may expect, with some bytes changed, and cut.
fn hostile(dice: &mut Dice, hello: &[u8]) -> Vec<u8> {
    let request: &[u8] =
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n\x82\x8e\0\0\0\0\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0\0";
    let header = proxy_header(([192, 0, 2, 7], 7).into(), ([10, 0, 0, 2], 8883).into());
    let mut bytes = match dice.roll(4) {
        0 => hello.to_vec(),
        1 => request.to_vec(),
        2 => [&header[..], b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0\0"].concat(),
        _ => (0..dice.roll(2_000))
            .map(|_| dice.roll(256) as u8)
            .collect(),
    };
    for _ in 0..dice.roll(4) {
        if !bytes.is_empty() {
            let at = dice.roll(bytes.len());
            bytes[at] = dice.roll(256) as u8;
        }
    }
    bytes.truncate(dice.roll(bytes.len() + 1));
    bytes
}

#[test]
fn strangers_at_every_door_take_nothing_from_those_inside() {
    let dir = files();
    let (tls, listen) = (dir.0.join("tls"), "[[listen]]\naddress = '127.0.0.1:0'\n");
    let secure = format!(
        "[listen.tls]\ncertificate = '{0}/broker.pem'\nkey = '{0}/broker.key'\n",
        tls.display()
    );
    let text = format!(
        "access.anonymous = true\nlimits.handshakes_max = 20\n{listen}{listen}{secure}{listen}websocket = true\n\
         {listen}websocket = true\n{secure}{listen}proxy_protocol = true\ntrusted_proxies = '127.0.0.1'\n"
    );
    let config = dir.0.join("avocet.toml");
    fs::write(&config, text).unwrap();
    let mut command = common::command();
    command.arg("--config").arg(&config);
    let mut server = Server::spawn(command);
    let doors: Vec<SocketAddr> = (0..4)
        .map(|_| {
            let line = server.wait_for_log("listening on ");
            let address = line.split_once("listening on ").unwrap().1;
            address.split(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    let connector = TlsConnector::new(&ClientTls {
        roots: Roots::DangerousAnybody,
        ..ClientTls::default()
    });
    let mut hello = Vec::new();
    let mut connection = connector.unwrap().connect("localhost").unwrap();
    connection.write_tls(&mut hello).unwrap();

    let mut subscriber = server.connect(Version::V5, "subscriber");
    subscriber.subscribe("a", QoS::AtMostOnce);
    let mut publisher = server.connect(Version::V5, "publisher");
    let files_open = open_files(server.id());
    let mut dice = Dice(7);
    let mut waiting = Vec::new();
    for number in 0..400_u32 {
        let mut socket = common::open(doors[dice.roll(doors.len())]);
        // The broker may have closed already.
        let _ = socket.write_all(&hostile(&mut dice, &hello));
        match dice.roll(3) {
            0 => waiting.push(socket),
            1 => drop(socket.shutdown(Shutdown::Write)),
            _ => drop(socket),
        }
        publisher.publish("a", Delivery::AtMostOnce, &number.to_be_bytes());
        assert_eq!(subscriber.receive_publish().0, number.to_be_bytes());
    }
    drop(waiting);
    // What is left closes when the broker has read its end.
    while open_files(server.id()) > files_open {
        publisher.publish("a", Delivery::AtMostOnce, b"still there");
        subscriber.receive_publish();
    }
}

/// None where the system does not tell.
fn open_files(process: u32) -> Option<usize> {
    let files = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd")).ok()?;
    Some(files.count())
}
