//! The server's end of one connection: bytes, and nothing that knows the protocol.

use avocet_client::{Client, ClientConfig, Config, ConnectError, Messages, Session, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::DEADLINE;

pub(crate) struct Wire {
    stream: TcpStream,
    version: Version,
}

/// A packet of these parts.
pub(crate) fn packet(first_byte: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 128, "one byte of Remaining Length");
    [&[first_byte, body.len() as u8], body.as_slice()].concat()
}

/// A string, or binary data, with its length.
pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text].concat()
}

pub(crate) fn config(version: Version) -> Config {
    Config {
        reconnect: None,
        ..Config::with_connection(ClientConfig::new(version, "c"))
    }
}

/// A client that connects, the bytes of its CONNECT, and the server's end.
pub(crate) async fn connecting(
    mut config: Config,
    mut session: Session,
) -> (
    JoinHandle<Result<(Client, Messages), ConnectError>>,
    Vec<u8>,
    Wire,
) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    config.host = address.ip().to_string();
    config.port = address.port();
    let version = config.connection.version;
    let client = tokio::spawn(async move { Client::resume(config, &mut session).await });
    let (stream, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    let mut wire = Wire { stream, version };
    let connect = wire.next().await;
    (client, connect, wire)
}

/// A client that was accepted with these properties, in 5.0.
pub(crate) async fn accepted(config: Config, properties: &[u8]) -> (Client, Messages, Wire) {
    resumed(config, Session::new(), properties).await
}

/// The same, with a Session that both have kept if it is not empty.
pub(crate) async fn resumed(
    config: Config,
    session: Session,
    properties: &[u8],
) -> (Client, Messages, Wire) {
    let session_present = u8::from(!config.connection.clean_start && !session.is_empty());
    let (client, _, mut wire) = connecting(config, session).await;
    wire.accept(session_present, properties).await;
    let (client, messages) = timeout(DEADLINE, client).await.unwrap().unwrap().unwrap();
    (client, messages, wire)
}

/// A client of this version that was accepted.
pub(crate) async fn connected(version: Version) -> (Client, Messages, Wire) {
    accepted(config(version), &[]).await
}

impl Wire {
    pub(crate) async fn accept(&mut self, session_present: u8, properties: &[u8]) {
        let connack = match self.version {
            Version::V5 => {
                let length = [properties.len() as u8];
                packet(0x20, &[&[session_present, 0], &length, properties])
            }
            _ => packet(0x20, &[&[session_present, 0]]),
        };
        self.send(&connack).await;
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        let mut bytes = vec![self.byte().await, self.byte().await];
        while bytes[bytes.len() - 1] & 0x80 != 0 {
            bytes.push(self.byte().await);
        }
        let digits = bytes[1..].iter().enumerate();
        let length: usize = digits
            .map(|(at, digit)| usize::from(digit & 0x7f) << (7 * at))
            .sum();
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body);
        timeout(DEADLINE, read).await.unwrap().unwrap();
        bytes.extend(body);
        bytes
    }

    async fn byte(&mut self) -> u8 {
        let read = self.stream.read_u8();
        timeout(DEADLINE, read).await.unwrap().unwrap()
    }

    /// The next packets are these.
    #[track_caller]
    pub(crate) fn expect<const N: usize>(
        &mut self,
        expected: [&[u8]; N],
    ) -> impl Future<Output = ()> {
        let expected = expected.map(<[u8]>::to_vec);
        async move {
            for expected in expected {
                assert_eq!(hex(&self.next().await), hex(&expected));
            }
        }
    }

    /// The client closes without another word.
    pub(crate) async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        timeout(DEADLINE, read).await.unwrap().unwrap();
        assert_eq!(hex(&rest), "");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}
