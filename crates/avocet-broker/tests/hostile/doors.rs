//! A broker with a listener of each kind, and ways through them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use avocet_transport::{
    ALPN_HTTP, ALPN_MQTT, ClientStream, ClientTls, Endpoint, Roots, TlsConnector, proxy_header,
};
use rustls::{ClientConnection, StreamOwned};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::common::{self, DataDir, Server};

/// Longer than the broker's own deadlines, so that it is the one who ends things.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
    Proxy,
    Quic,
    Unix,
}

pub(crate) const DOORS: [Door; 7] = [
    Door::Tcp,
    Door::Tls,
    Door::WebSocket,
    Door::SecureWebSocket,
    Door::Proxy,
    Door::Quic,
    Door::Unix,
];

pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// Where the listeners of a broker are.
pub(crate) struct Doors {
    addresses: Vec<SocketAddr>,
    unix: PathBuf,
    /// With the protocol `mqtt`, and with that of WebSocket.
    connectors: [TlsConnector; 2],
    /// The first datagram of QUIC.
    initial: Vec<u8>,
    /// The files go with it.
    _dir: DataDir,
}

const REQUEST: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// A broker whose limits are below those of honest configurations, so that all of them are met.
pub(crate) fn start() -> (Server, Doors) {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let issued = Authority::new(&dir.0, "ca").issue("localhost");
    let unix = dir.0.join("mqtt");
    let listen = "[[listen]]\naddress = '127.0.0.1:0'\nhandshake_timeout = '500ms'\n";
    let secure = format!(
        "[listen.tls]\ncertificate = '{}'\nkey = '{}'\n",
        issued.certificate.display(),
        issued.key.display()
    );
    let text = format!(
        "shards = 1\n\
         access.anonymous = true\n\
         [mqtt]\nmaximum_packet_size = '64 KiB'\nconnect_timeout = '500ms'\ndrain_timeout = '500ms'\n\
         [queue]\nmessages_max = 1000\nbytes_max = '1 MiB'\n\
         [limits]\nhandshakes_max = 40\nconnections_max = 500\nsubscriptions_per_session_max = 200\n\
         shapes_per_session_max = 20\nfilter_shapes_max = 100\nfilter_overflow_max = 100\n\
         retained_messages_max = 200\nqueued_messages_max = 20000\nqueued_bytes_max = '16 MiB'\n\
         {listen}{listen}{secure}{listen}websocket = true\n{listen}websocket = true\n{secure}\
         {listen}proxy_protocol = true\ntrusted_proxies = '127.0.0.1'\n\
         {listen}quic = true\nidle_timeout = '1s'\n{secure}\
         [[listen]]\naddress = 'unix:{}'\n",
        unix.display()
    );
    let config = dir.0.join("avocet.toml");
    fs::write(&config, text).unwrap();
    let mut command = common::command();
    command.arg("--config").arg(&config);
    let mut server = Server::spawn(command);
    let mut addresses = vec![server.address];
    while addresses.len() < DOORS.len() - 1 {
        let line = server.wait_for_log("listening on ");
        let address = line.split_once("listening on ").unwrap().1;
        addresses.push(address.split(' ').next().unwrap().parse().unwrap());
    }
    server.wait_for_log("listening on unix:");
    server.ignore_log();
    let connectors = [ALPN_MQTT, ALPN_HTTP].map(|protocol| {
        let settings = ClientTls {
            roots: Roots::DangerousAnybody,
            alpn: vec![protocol.to_vec()],
            ..ClientTls::default()
        };
        TlsConnector::new(&settings).unwrap()
    });
    let initial = initial(&connectors[0]);
    let doors = Doors {
        initial,
        addresses,
        unix,
        connectors,
        _dir: dir,
    };
    (server, doors)
}

impl Doors {
    fn address(&self, door: Door) -> SocketAddr {
        let at = DOORS.iter().position(|it| *it == door).unwrap();
        self.addresses[at]
    }

    fn tcp(&self, door: Door) -> io::Result<TcpStream> {
        let socket = TcpStream::connect(self.address(door))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// A socket in front of a door.
    pub(crate) fn knock(&self, door: Door) -> io::Result<Box<dyn Duplex>> {
        if door == Door::Unix {
            let socket = UnixStream::connect(&self.unix)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            return Ok(Box::new(socket));
        }
        if door == Door::Quic {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(self.address(door))?;
            // Nobody says that nothing more will come.
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            return Ok(Box::new(Datagrams(socket)));
        }
        Ok(Box::new(self.tcp(door)?))
    }

    /// What a client that is allowed in sends first.
    pub(crate) fn hello(&self, door: Door) -> Vec<u8> {
        let connect = b"\x10\x0d\0\x04MQTT\x05\x02\0\0\0\0\0";
        match door {
            Door::Tcp | Door::Unix => connect.to_vec(),
            Door::Tls | Door::SecureWebSocket => {
                let mut hello = Vec::new();
                let mut connection = self.connection(door);
                connection.write_tls(&mut hello).unwrap();
                hello
            }
            Door::WebSocket => [REQUEST, b"\x82\x8f\0\0\0\0", connect].concat(),
            Door::Proxy => [&header()[..], connect].concat(),
            Door::Quic => self.initial.clone(),
        }
    }

    /// A stream behind a door, as far as MQTT.
    pub(crate) fn enter(&self, door: Door) -> io::Result<Box<dyn Duplex>> {
        Ok(match door {
            Door::Tcp | Door::Unix => self.knock(door)?,
            Door::Quic => {
                let port = self.address(door).port();
                let endpoint = Endpoint::quic("127.0.0.1", port, self.connectors[0].clone());
                Box::new(Quic::open(&endpoint)?)
            }
            Door::Tls => Box::new(self.secure(door)?),
            Door::WebSocket => Box::new(Frames::open(self.tcp(door)?)?),
            Door::SecureWebSocket => Box::new(Frames::open(self.secure(door)?)?),
            Door::Proxy => {
                let mut socket = self.tcp(door)?;
                socket.write_all(&header())?;
                Box::new(socket)
            }
        })
    }

    fn secure(&self, door: Door) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut stream = StreamOwned::new(self.connection(door), self.tcp(door)?);
        stream.flush()?;
        Ok(stream)
    }

    fn connection(&self, door: Door) -> ClientConnection {
        let [mqtt, http] = &self.connectors;
        let connector = if door == Door::Tls { mqtt } else { http };
        connector.connect("localhost").unwrap()
    }
}

fn header() -> Vec<u8> {
    proxy_header(([192, 0, 2, 7], 7).into(), ([10, 0, 0, 2], 8883).into()).to_vec()
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_io().enable_time().build().unwrap()
}

/// What a client of QUIC sends first: to a socket that never answers.
fn initial(connector: &TlsConnector) -> Vec<u8> {
    runtime().block_on(async {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let endpoint = Endpoint::quic("127.0.0.1", port, connector.clone());
        let mut datagram = vec![0; 2_000];
        let len = tokio::select! {
            len = socket.recv(&mut datagram) => len.unwrap(),
            connected = endpoint.connect(common::DEADLINE) => panic!("{:?}", connected.err()),
        };
        datagram.truncate(len);
        datagram
    })
}

/// One datagram for each write.
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.recv(room)
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that only goes on while somebody reads or writes, and is dropped without a word.
struct Quic {
    runtime: Runtime,
    stream: ClientStream,
}

impl Quic {
    fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let runtime = runtime();
        let stream = runtime.block_on(endpoint.connect(PATIENCE));
        let stream = stream.map_err(io::Error::other)?;
        Ok(Self { runtime, stream })
    }
}

impl Read for Quic {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = async { timeout(PATIENCE, self.stream.read(room)).await? };
        self.runtime.block_on(read)
    }
}

impl Write for Quic {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = async { timeout(PATIENCE, self.stream.write(bytes)).await? };
        self.runtime.block_on(write)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flush = async { timeout(PATIENCE, self.stream.flush()).await? };
        self.runtime.block_on(flush)
    }
}

/// One binary frame for each write, with a mask that changes nothing.
struct Frames<S> {
    socket: S,
    input: Vec<u8>,
}

impl<S: Read + Write> Frames<S> {
    fn open(mut socket: S) -> io::Result<Self> {
        socket.write_all(REQUEST)?;
        socket.flush()?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(Self {
            socket,
            input: Vec::new(),
        })
    }
}

impl<S: Read + Write> Write for Frames<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(65_535)];
        let mut frame = vec![0x82];
        match bytes.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0xFE);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(bytes);
        self.socket.write_all(&frame)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl<S: Read + Write> Read for Frames<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while self.input.is_empty() {
            let mut head = [0; 2];
            self.socket.read_exact(&mut head)?;
            let mut len = [0; 8];
            match head[1] {
                126 => self.socket.read_exact(&mut len[6..])?,
                127 => self.socket.read_exact(&mut len)?,
                short => len[7] = short,
            }
            let mut payload = vec![0; u64::from_be_bytes(len) as usize];
            self.socket.read_exact(&mut payload)?;
            match head[0] & 0x0F {
                2 => self.input = payload,
                8 => return Ok(0),
                _ => {}
            }
        }
        let len = room.len().min(self.input.len());
        room[..len].copy_from_slice(&self.input[..len]);
        self.input.drain(..len);
        Ok(len)
    }
}
