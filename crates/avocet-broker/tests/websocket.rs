//! WebSocket listeners, and what proxies say.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use avocet_codec::{Connect, Delivery, Packet, QoS, Version};

use common::{Client, DataDir, Server};

/// A broker with one listener of these settings.
fn start(listener: &str) -> (Server, DataDir) {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let config = dir.0.join("avocet.toml");
    let text =
        format!("access.anonymous = true\n[[listen]]\naddress = '127.0.0.1:0'\n{listener}\n");
    fs::write(&config, text).unwrap();
    let mut command = common::command();
    command.arg("--config").arg(&config);
    (Server::spawn(command), dir)
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n";

/// The answer to a request with these further lines, up to the empty line.
fn upgrade(socket: &mut TcpStream, fields: &str) -> String {
    ask(socket, &format!("{REQUEST}{fields}"))
}

fn ask(socket: &mut TcpStream, request: &str) -> String {
    write!(socket, "{request}\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() > 0 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A client's end, made by hand: sends frames of at most `piece` bytes, the last one of a write with
/// FIN.
struct Frames {
    socket: TcpStream,
    piece: usize,
    input: Vec<u8>,
    pings: usize,
}

impl Frames {
    fn open(server: &Server, piece: usize) -> Self {
        let mut socket = common::open(server.address);
        let answer = upgrade(&mut socket, "");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
        Self {
            socket,
            piece,
            input: Vec::new(),
            pings: 0,
        }
    }

    fn frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        assert!(payload.len() < 126, "a short frame");
        let mut frame = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        frame.extend(
            payload
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        self.socket.write_all(&frame)
    }

    /// The next frame of the server: its first byte, and what it holds.
    fn next(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.socket.read_exact(&mut head)?;
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.socket.read_exact(&mut len)?;
                u16::from_be_bytes(len).into()
            }
            127 => {
                let mut len = [0; 8];
                self.socket.read_exact(&mut len)?;
                u64::from_be_bytes(len) as usize
            }
            short => {
                assert!(short < 126, "a server masks nothing");
                short.into()
            }
        };
        let mut payload = vec![0; len];
        self.socket.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }
}

impl Read for Frames {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while self.input.is_empty() {
            match self.next()? {
                (0x82, payload) => self.input = payload,
                (0x88, _) => return Ok(0),
                (0x89, _) => self.pings += 1,
                other => panic!("{other:x?}"),
            }
        }
        let n = room.len().min(self.input.len());
        room[..n].copy_from_slice(&self.input[..n]);
        self.input.drain(..n);
        Ok(n)
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().div_ceil(self.piece);
        for (index, part) in bytes.chunks(self.piece).enumerate() {
            let last = if index + 1 == count { 0x80 } else { 0 };
            let kind = if index == 0 { 2 } else { 0 };
            self.frame(last | kind, part)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect(server: &Server, client_id: &str, piece: usize) -> Client<Frames> {
    let frames = Frames::open(server, piece);
    Client::connect_over(frames, &Connect::new(Version::V5, client_id))
}

/// [MQTT5-6.0.0-2] [MQTT311-6.0.0-2] [MQTT5-6.0.0-4] [MQTT311-6.0.0-4]
#[test]
fn packets_cross_in_frames_of_any_size() {
    let (server, _dir) = start("websocket = true");
    let mut subscriber = connect(&server, "subscriber", 100);
    subscriber.subscribe("#", QoS::AtMostOnce);
    for piece in [1, 3, 125] {
        let mut publisher = connect(&server, "publisher", piece);
        let payload = vec![piece as u8; 10_000];
        publisher.publish("a", Delivery::AtMostOnce, &payload);
        assert!(
            subscriber.receive_publish().0 == payload,
            "in pieces of {piece}"
        );
        // Two packets in one frame.
        publisher.socket.frame(0x82, &[0xc0, 0, 0xc0, 0]).unwrap();
        for _ in 0..2 {
            assert_eq!(publisher.receive().packet(), Packet::Pingresp);
        }
    }
}

/// [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
#[test]
fn a_text_frame_ends_the_connection() {
    let (server, _dir) = start("websocket = true");
    let mut client = connect(&server, "c", 100);
    client.socket.frame(0x81, &[0xc0, 0]).unwrap();
    assert_eq!(client.socket.next().unwrap(), (0x88, vec![0x03, 0xeb]));
    assert_eq!(client.socket.socket.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn pings_are_sent_and_answered_and_a_close_is_returned() {
    let (server, _dir) = start("websocket = { ping = '10ms' }");
    let mut client = connect(&server, "c", 100);
    client.socket.frame(0x89, b"there?").unwrap();
    let answer = loop {
        match client.socket.next().unwrap() {
            (0x89, _) => client.socket.pings += 1,
            other => break other,
        }
    };
    assert_eq!(answer, (0x8a, b"there?".to_vec()));
    while client.socket.pings < 3 {
        let (first, _) = client.socket.next().unwrap();
        assert_eq!(first, 0x89);
        client.socket.pings += 1;
    }
    client.socket.frame(0x88, &[0x03, 0xe8]).unwrap();
    assert!(client.try_receive().is_none());
}

#[test]
fn a_request_that_is_refused_gets_an_answer() {
    let (mut server, _dir) = start("websocket = { path = '/mqtt', origins = 'https://a.example' }");
    for (fields, expected) in [
        ("Origin: https://a.example\r\n", "HTTP/1.1 101 "),
        ("Origin: https://b.example\r\n", "HTTP/1.1 403 "),
    ] {
        let answer = upgrade(&mut common::open(server.address), fields);
        assert!(answer.starts_with(expected), "{answer}");
    }
    let line = server.wait_for_log("refused within its handshake");
    assert!(
        line.contains("a web page whose origin is not allowed"),
        "{line}"
    );
    let mut socket = common::open(server.address);
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_proxy_says_where_a_client_is() {
    let proxy = "proxy_protocol = true\ntrusted_proxies = '127.0.0.1'";
    for (listener, header, fields, expected) in [
        (
            proxy,
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 1883\r\n",
            None,
            "192.0.2.7:4711",
        ),
        (proxy, "PROXY UNKNOWN\r\n", None, "127.0.0.1:"),
        (
            "websocket = true\ntrusted_proxies = '127.0.0.0/8'",
            "",
            Some("X-Forwarded-For: 6.6.6.6, 192.0.2.8\r\n"),
            "192.0.2.8",
        ),
        (
            "websocket = true\ntrusted_proxies = '10.0.0.0/8'",
            "",
            Some("X-Forwarded-For: 192.0.2.8\r\n"),
            "127.0.0.1:",
        ),
    ] {
        let (mut server, _dir) = start(listener);
        let mut socket = common::open(server.address);
        // CONNECT comes with the header, in one piece.
        let mut bytes = header.as_bytes().to_vec();
        let connect = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01c";
        if let Some(fields) = fields {
            upgrade(&mut socket, fields);
            bytes.extend([0x82, 0x80 | connect.len() as u8, 0, 0, 0, 0]);
        }
        bytes.extend(connect);
        socket.write_all(&bytes).unwrap();
        let line = server.wait_for_log(" connected ");
        assert!(line.contains(&format!("address=\"{expected}")), "{line}");
    }
    let (mut server, _dir) = start("proxy_protocol = true\ntrusted_proxies = '10.0.0.0/8'");
    let mut socket = common::open(server.address);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    let line = server.wait_for_log("refused within its handshake");
    assert!(line.contains("not from a trusted proxy"), "{line}");
}

#[test]
fn a_request_for_another_path_than_the_one_that_is_set_is_refused() {
    let (server, _dir) = start("websocket = { path = '/broker/web' }");
    for (path, code) in [
        ("/broker/web", "101"),
        ("/broker/web?token=x", "101"),
        ("/mqtt", "404"),
        ("/broker", "404"),
        ("/broker/web/", "404"),
        ("/", "404"),
    ] {
        let request = REQUEST.replacen("/mqtt", path, 1);
        let answer = ask(&mut common::open(server.address), &request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{path}: {answer}"
        );
    }
}
