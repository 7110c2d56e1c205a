use super::*;
use crate::testing::{Authority, scratch};
use crate::websocket::upgrade::Asked;
use crate::{ClientCertificates, ClientTls, Roots, ServerTls, TlsConnector, proxy_header};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

/// One direction of a pipe that gives its bytes in pieces.
#[derive(Default)]
struct Direction {
    bytes: VecDeque<u8>,
    closed: bool,
}

/// One end of a pipe: reads at most `piece` bytes at once, and then nothing once.
#[derive(Clone)]
struct End {
    incoming: Rc<RefCell<Direction>>,
    outgoing: Rc<RefCell<Direction>>,
    piece: usize,
    turn: bool,
}

fn pipe(piece: usize) -> (End, End) {
    let (a, b) = (Rc::default(), Rc::default());
    let end = |incoming: &Rc<_>, outgoing: &Rc<_>| End {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        piece,
        turn: false,
    };
    (end(&a, &b), end(&b, &a))
}

impl Read for End {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.turn = !self.turn;
        let mut incoming = self.incoming.borrow_mut();
        let n = room.len().min(self.piece).min(incoming.bytes.len());
        if n == 0 && incoming.closed {
            return Ok(0);
        }
        if n == 0 || self.turn {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in room.iter_mut().zip(incoming.bytes.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.piece);
        self.outgoing.borrow_mut().bytes.extend(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn peer() -> Option<SocketAddr> {
    Some("10.0.0.1:5000".parse().unwrap())
}

fn trusted() -> Vec<Network> {
    vec!["10.0.0.0/8".parse().unwrap()]
}

/// Runs the server's side on bytes that have come, until it waits for more.
fn advance(handshake: &mut Handshake<End>, layers: &Layers) -> Result<bool, HandshakeError> {
    for _ in 0..100_000 {
        if handshake.advance(layers)? {
            return Ok(true);
        }
        if handshake.socket_mut().incoming.borrow().bytes.is_empty() {
            return Ok(false);
        }
    }
    panic!("it makes no progress");
}

/// A client of these layers, and the connection that came of its handshake.
fn connect(
    layers: &Layers,
    connector: Option<&TlsConnector>,
    websocket: bool,
    first: &[u8],
    piece: usize,
) -> Result<(Layered<End>, Established<End>), HandshakeError> {
    let (mut client, server) = pipe(piece);
    let mut server = Handshake::new(server, peer());
    if layers.proxy_protocol {
        let header = proxy_header(([192, 0, 2, 7], 7).into(), ([10, 0, 0, 2], 8883).into());
        client.outgoing.borrow_mut().bytes.extend(header);
    }
    client.turn = false;
    let mut endpoint = crate::Endpoint::tcp("localhost", 8883);
    endpoint.tls = connector.cloned();
    endpoint.websocket = websocket.then(crate::WebSocketClient::default);
    let mut client = endpoint.over(client).unwrap();
    let sent = client.write_vectored(&[IoSlice::new(first)]).unwrap();
    assert_eq!(sent, first.len());
    let mut done = false;
    for _ in 0..1_000_000 {
        done = done || server.advance(layers)?;
        match client.read(&mut [0; 4_096]) {
            Ok(n) => panic!("{n} bytes came"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
        let secured = client.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        if done && secured && client.websocket.is_some() == websocket {
            return Ok((client, server.finish()));
        }
    }
    panic!("the handshake does not end");
}

/// Reads so many bytes.
fn read(stream: &mut EstablishedStream<End>, input: Vec<u8>, len: usize) -> Vec<u8> {
    let mut bytes = input;
    let mut room = [0; 1_000];
    for _ in 0..1_000_000 {
        if bytes.len() >= len {
            return bytes;
        }
        let taken = match stream {
            EstablishedStream::Plain(socket) => socket.read(&mut room),
            EstablishedStream::Layered(stream) => stream.read(&mut room),
        };
        match taken {
            Ok(0) => panic!("the end came too early"),
            Ok(n) => bytes.extend_from_slice(&room[..n]),
            Err(error) => assert!(
                [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()),
                "{error}"
            ),
        }
    }
    panic!("{} of {len} bytes came", bytes.len());
}

#[test]
fn every_combination_carries_the_same_bytes_whatever_the_pieces() {
    let dir = scratch();
    let authority = Authority::new(&dir, "ca");
    let acceptor = TlsAcceptor::new(ServerTls {
        certificates: vec![authority.issue("localhost")],
        client_certificates: ClientCertificates::Required,
        client_ca: Some(authority.file()),
        ..ServerTls::default()
    });
    let acceptor = Arc::new(acceptor.unwrap());
    let connector = TlsConnector::new(&ClientTls {
        roots: Roots::File(authority.file()),
        certificate: Some(authority.issue("pump-7")),
        ..ClientTls::default()
    });
    let connector = connector.unwrap();
    let large: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 3) as u8)
        .collect();
    for (proxy_protocol, tls, websocket) in (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0)) {
        for piece in [1, 100, 100_000] {
            let layers = Layers {
                tls: tls.then(|| Arc::clone(&acceptor)),
                websocket: websocket.then(WebSocketServer::default),
                proxy_protocol,
                trusted_proxies: trusted(),
            };
            let connector = tls.then_some(&connector);
            let (mut client, server) =
                connect(&layers, connector, websocket, b"first", piece).unwrap();
            let expected = if proxy_protocol {
                "192.0.2.7:7"
            } else {
                "10.0.0.1:5000"
            };
            assert_eq!(server.peer.unwrap().to_string(), expected);
            let name = server.certificate.and_then(|it| it.common_name);
            assert_eq!(name.as_deref(), tls.then_some("pump-7"));
            let mut stream = server.stream;
            assert_eq!(read(&mut stream, server.input, 5), b"first");
            if piece == 1 {
                continue;
            }
            // Both ways, with more than anybody takes at once.
            let slices = [
                IoSlice::new(&[]),
                IoSlice::new(&large),
                IoSlice::new(b"end"),
            ];
            let mut sent = 0;
            let whole = [&large[..], b"end"].concat();
            while sent < whole.len() {
                let rest = [IoSlice::new(&whole[sent..])];
                let slices = if sent == 0 { &slices[..] } else { &rest[..] };
                sent += client.write_vectored(slices).unwrap();
            }
            assert!(read(&mut stream, Vec::new(), whole.len()) == whole);
            if let EstablishedStream::Layered(server) = stream {
                let mut server = server;
                server.ping();
                server.write_vectored(&[IoSlice::new(b"back")]).unwrap();
                server.say_goodbye();
                server.socket.outgoing.borrow_mut().closed = true;
                let mut client = EstablishedStream::Layered(client);
                assert_eq!(read(&mut client, Vec::new(), 4), b"back");
                let EstablishedStream::Layered(client) = &mut client else {
                    unreachable!("it was just made")
                };
                let end = loop {
                    match client.read(&mut [0; 10]) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        end => break end,
                    }
                };
                assert_eq!(end.unwrap(), 0);
            }
        }
    }
}

#[test]
fn what_is_no_handshake_is_refused_and_told_so() {
    let dir = scratch();
    let authority = Authority::new(&dir, "ca");
    let acceptor = TlsAcceptor::new(ServerTls {
        certificates: vec![authority.issue("localhost")],
        ..ServerTls::default()
    });
    let secure = Layers {
        tls: Some(Arc::new(acceptor.unwrap())),
        ..Layers::default()
    };
    let web = Layers {
        websocket: Some(WebSocketServer::default()),
        ..Layers::default()
    };
    let behind = Layers {
        proxy_protocol: true,
        trusted_proxies: trusted(),
        ..Layers::default()
    };
    let elsewhere = Layers {
        trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
        ..behind.clone()
    };
    let connect = b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0\0";
    for (layers, bytes, expected, answer) in [
        (
            &secure,
            &connect[..],
            "TLS: received corrupt message",
            &b"\x15\x03\x03"[..],
        ),
        (
            &web,
            &connect[..],
            "WebSocket: not an HTTP/1.1 request",
            b"HTTP/1.1 400 ",
        ),
        (
            &web,
            b"GET / HTTP/1.1\r\n\r\n",
            "WebSocket: no request for",
            b"HTTP/1.1 400 ",
        ),
        (&behind, &connect[..], "no PROXY protocol header", b""),
        (
            &elsewhere,
            b"PROXY UNKNOWN\r\n",
            "not from a trusted proxy",
            b"",
        ),
    ] {
        let (client, server) = pipe(usize::MAX);
        let mut server = Handshake::new(server, peer());
        client.outgoing.borrow_mut().bytes.extend(bytes);
        let error = advance(&mut server, layers).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        let sent: Vec<u8> = client.incoming.borrow_mut().bytes.drain(..).collect();
        assert!(sent.starts_with(answer), "{sent:x?}");
        assert_eq!(sent.is_empty(), answer.is_empty());
    }
}

#[test]
fn an_end_before_the_handshake_is_done_is_one() {
    for layers in [
        Layers {
            websocket: Some(WebSocketServer::default()),
            ..Layers::default()
        },
        Layers {
            proxy_protocol: true,
            trusted_proxies: trusted(),
            ..Layers::default()
        },
    ] {
        let (client, server) = pipe(usize::MAX);
        let mut server = Handshake::new(server, peer());
        assert!(!advance(&mut server, &layers).unwrap());
        client.outgoing.borrow_mut().closed = true;
        let ended = server.advance(&layers);
        assert!(matches!(ended, Err(HandshakeError::Closed)), "{ended:?}");
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "certificates say what time it is"
)]
fn a_session_is_resumed_only_while_the_certificate_of_its_client_is_valid() {
    let dir = scratch();
    let authority = Authority::new(&dir, "ca");
    let acceptor = TlsAcceptor::new(ServerTls {
        certificates: vec![authority.issue("localhost")],
        client_certificates: ClientCertificates::Required,
        client_ca: Some(authority.file()),
        ..ServerTls::default()
    });
    let layers = Layers {
        tls: Some(Arc::new(acceptor.unwrap())),
        ..Layers::default()
    };
    // On a busy machine the shortest time may be over before anything happens.
    for seconds in [2, 10, 60] {
        let end = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
        let settings = ClientTls {
            roots: Roots::File(authority.file()),
            certificate: Some(authority.issue_until("pump-7", end)),
            ..ClientTls::default()
        };
        let connector = TlsConnector::new(&settings).unwrap();
        let meet = || {
            let (mut client, server) = connect(&layers, Some(&connector), false, b"-", 100_000)?;
            // The ticket comes behind the handshake.
            let _ = client.read(&mut [0; 10]);
            let EstablishedStream::Layered(stream) = server.stream else {
                panic!("no TLS")
            };
            let kind = stream.tls.as_ref().and_then(|tls| tls.handshake_kind());
            Ok::<_, HandshakeError>(kind == Some(HandshakeKind::Resumed))
        };
        if meet().is_err() || !matches!(meet(), Ok(true)) {
            continue;
        }
        let error = loop {
            match meet() {
                Ok(resumed) => assert!(resumed),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("xpired"), "{error}");
        return;
    }
    panic!("no session was resumed within a minute");
}

fn web() -> Layers {
    Layers {
        websocket: Some(WebSocketServer::default()),
        ..Layers::default()
    }
}

/// What a server takes and answers, when these frames of a client come behind its request.
fn behind_the_request(frames: &[u8]) -> (Handshake<End>, bool, Vec<u8>) {
    let (client, server) = pipe(usize::MAX);
    let mut server = Handshake::new(server, peer());
    let asked = Asked::new("localhost", "/mqtt", &[]).unwrap();
    let bytes = [asked.request.as_bytes(), frames].concat();
    client.outgoing.borrow_mut().bytes.extend(bytes);
    let done = advance(&mut server, &web()).unwrap_or(false);
    let sent: Vec<u8> = client.incoming.borrow_mut().bytes.drain(..).collect();
    let len = asked.answer(&sent).unwrap().unwrap();
    (server, done, sent[len..].to_vec())
}

#[test]
fn control_frames_behind_the_request_are_answered() {
    let (_, done, sent) = behind_the_request(b"\x89\x81\0\0\0\0x");
    assert!(done);
    assert_eq!(sent, b"\x8a\x01x");
    let (server, done, sent) = behind_the_request(b"\x82\x81\0\0\0\0x\x88\x80\0\0\0\0");
    assert!(done);
    assert_eq!(sent, b"\x88\x02\x03\xe8");
    let mut server = server.finish();
    assert_eq!(server.input, b"x");
    let EstablishedStream::Layered(stream) = &mut server.stream else {
        panic!("it speaks WebSocket");
    };
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    // A text frame behind a binary one: what came before it is read.
    let (server, done, sent) = behind_the_request(b"\x82\x81\0\0\0\0x\x81\x80\0\0\0\0");
    assert!(done);
    assert_eq!(sent, b"\x88\x02\x03\xeb");
    let mut server = server.finish();
    assert_eq!(server.input, b"x");
    let EstablishedStream::Layered(stream) = &mut server.stream else {
        panic!("it speaks WebSocket");
    };
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    // A text frame: 1003.
    let (_, done, sent) = behind_the_request(b"\x81\x80\0\0\0\0");
    assert!(!done);
    assert_eq!(sent, b"\x88\x02\x03\xeb");
}

/// Gives what has come, and takes as little as it is told.
struct Sink {
    incoming: VecDeque<u8>,
    piece: usize,
    room: io::Result<usize>,
    taken: Vec<u8>,
}

impl Read for Sink {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = room.len().min(self.piece).min(self.incoming.len());
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in room.iter_mut().zip(self.incoming.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.room {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(room) => {
                let n = bytes.len().min(*room);
                *room -= n;
                self.taken.extend_from_slice(&bytes[..n]);
                Ok(n)
            }
            Err(error) => Err(error.kind().into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn pings_of_a_peer_that_does_not_read_gather_nothing() {
    let ping = |byte| [b"\x89\xfd\0\0\0\0".to_vec(), vec![byte; 125]].concat();
    let pings: Vec<u8> = (0..=255).cycle().take(10_000).flat_map(ping).collect();
    let mut stream = Layered::new(Sink {
        incoming: pings.into(),
        piece: 131,
        room: Ok(100),
        taken: Vec::new(),
    });
    stream.websocket = Some(WebSocket::server());
    while let Err(error) = stream.read(&mut [0; 1_000]) {
        if error.kind() == io::ErrorKind::WouldBlock {
            break;
        }
        stream.ping();
    }
    stream.socket.room = Ok(usize::MAX);
    assert!(stream.flush().unwrap());
    let pong = |byte| [b"\x8a\x7d".to_vec(), vec![byte; 125]].concat();
    let (_, last) = stream.socket.taken.split_at(127);
    assert_eq!(last.len(), 127);
    assert_eq!(last, pong((9_999 % 256) as u8));
}

#[test]
fn what_came_is_read_where_nothing_can_be_answered() {
    let frames = b"\x89\x80\0\0\0\0\x82\x81\0\0\0\0x\x88\x80\0\0\0\0";
    let mut stream = Layered::new(Sink {
        incoming: frames.to_vec().into(),
        piece: usize::MAX,
        room: Err(io::ErrorKind::BrokenPipe.into()),
        taken: Vec::new(),
    });
    stream.websocket = Some(WebSocket::server());
    let mut room = [0; 100];
    assert_eq!(stream.read(&mut room).unwrap(), 1);
    assert_eq!(room[0], b'x');
    assert!(stream.has_more());
    assert_eq!(stream.read(&mut room).unwrap(), 0);
}

#[test]
fn without_trusted_proxies_nobody_is_believed_at_a_unix_socket() {
    for (trusted_proxies, expected) in [(Vec::new(), None), (trusted(), Some("1.2.3.4:0"))] {
        let layers = Layers {
            trusted_proxies,
            ..web()
        };
        let (client, server) = pipe(usize::MAX);
        let mut server = Handshake::new(server, None);
        let fields = [("X-Forwarded-For".to_owned(), "1.2.3.4".to_owned())];
        let asked = Asked::new("localhost", "/mqtt", &fields).unwrap();
        let mut incoming = client.outgoing.borrow_mut();
        incoming.bytes.extend(asked.request.as_bytes());
        drop(incoming);
        assert!(advance(&mut server, &layers).unwrap());
        assert_eq!(server.peer(), expected.map(|it| it.parse().unwrap()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A handshake that is recorded and changed is refused, waits, or goes through; it never panics,
    /// and keeps no more than its limits.
    #[test]
    fn changed_handshakes_end_or_wait(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
        piece in 1_usize..2_000,
        which in 0_usize..3,
    ) {
        thread_local! {
            static LAYERS: (crate::testing::Scratch, Layers, Vec<u8>) = {
                let dir = scratch();
                let authority = Authority::new(&dir, "ca");
                let acceptor = TlsAcceptor::new(ServerTls {
                    certificates: vec![authority.issue("localhost")],
                    ..ServerTls::default()
                });
                let layers = Layers {
                    tls: Some(Arc::new(acceptor.unwrap())),
                    websocket: Some(WebSocketServer::default()),
                    proxy_protocol: true,
                    trusted_proxies: trusted(),
                };
                let connector = TlsConnector::new(&ClientTls {
                    roots: Roots::DangerousAnybody,
                    ..ClientTls::default()
                });
                let mut hello = Vec::new();
                connector.unwrap().connect("localhost").unwrap().write_tls(&mut hello).unwrap();
                (dir, layers, hello)
            };
        }
        LAYERS.with(|(_, layers, hello)| {
            let header = proxy_header(([192, 0, 2, 7], 7).into(), ([10, 0, 0, 2], 8883).into());
            let mut layers = layers.clone();
            let asked = Asked::new("localhost", "/mqtt", &[]).unwrap();
            let mut bytes = match which {
                0 => [&header[..], hello].concat(),
                1 => {
                    layers.proxy_protocol = false;
                    hello.clone()
                }
                _ => {
                    layers.tls = None;
                    [&header[..], asked.request.as_bytes(), b"\x82\x81\0\0\0\0\0"].concat()
                }
            };
            for (index, byte) in &changes {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            let (client, server) = pipe(piece);
            let mut server = Handshake::new(server, peer());
            client.outgoing.borrow_mut().bytes.extend(bytes);
            let _ = advance(&mut server, &layers);
            assert!(server.head.len() <= HEAD_MAX + 1_024);
            assert!(server.stream.raw.len() <= proxy::HEADER_MAX + 1_024);
        });
    }
}
