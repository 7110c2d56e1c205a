//! The broker's binary as a child process, and a client that speaks packets over a plain socket.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test helpers, not all of which every test uses"
)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use avocet_codec::{
    Connect, ConnectProperties, Delivery, Frame, Packet, PacketId, Publish, QoS, ReasonCode,
    Subscribe, SubscribeFilter, TopicFilter, TopicName, Version, frame_len,
};
use bytes::Bytes;

/// Longer than anything takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// A command that runs the binary, free of settings in the environment of the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avocet-broker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AVOCET_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running broker. It is killed when the test ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Receiver<String>,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Whoever does not listen does not fill the pipe either.
                let _ = lines.send(line);
            }
        });
        let mut server = Self {
            child,
            address: "127.0.0.1:0".parse().unwrap(),
            log,
        };
        let line = server.wait_for_log("listening on ");
        let address = line.split_once("listening on ").unwrap().1;
        let end = address.find(['"', '\u{1b}', ' ']).unwrap_or(address.len());
        server.address = address[..end].parse().unwrap();
        server
    }

    /// The next line of the log that holds `text`.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let lines = self.wait_for_all_up_to(text);
        lines.lines().next_back().unwrap().to_owned()
    }

    /// All lines of the log up to the next one that holds `text`.
    pub(crate) fn wait_for_all_up_to(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let Ok(line) = self.log.recv_timeout(DEADLINE) else {
                panic!("no line with {text:?} in the log:\n{seen}");
            };
            let found = line.contains(text);
            seen += &line;
            seen.push('\n');
            if found {
                return seen;
            }
        }
    }

    /// Lines of the log are read and forgotten from here on.
    pub(crate) fn ignore_log(&mut self) {
        let (_, log) = channel();
        self.log = log;
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        // The shell has `kill` built in; the program of that name is not everywhere.
        let kill = Command::new("sh")
            .args(["-c", "kill \"$@\"", "kill", signal])
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(kill.success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn connect(&self, version: Version, client_id: &str) -> Client {
        Client::connect(self.address, &Connect::new(version, client_id))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A data directory that goes with the test.
pub(crate) struct DataDir(pub(crate) PathBuf);

impl DataDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("data-{}-{count}", std::process::id());
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    pub(crate) fn start(&self, shards: &str) -> Server {
        Server::start(&["--shards", shards, "--data-dir", self.0.to_str().unwrap()])
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Connects for an hour beyond the connection; says whether the session was there.
pub(crate) fn resume(server: &Server, client_id: &str) -> (Client, bool) {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.clean_start = false;
    let properties = ConnectProperties {
        session_expiry_interval: 3_600,
        ..ConnectProperties::default()
    };
    connect.properties = properties;
    connect_with(server, &connect)
}

/// Connects; says whether the session was there.
pub(crate) fn connect_with(server: &Server, connect: &Connect<'_>) -> (Client, bool) {
    let mut client = Client::open(server.address, connect.version);
    client.send(&Packet::Connect(*connect));
    let frame = client.receive();
    let Packet::Connack(connack) = frame.packet() else {
        panic!("no CONNACK: {frame:?}")
    };
    assert_eq!(connack.reason_code, ReasonCode::Success);
    (client, connack.session_present)
}

/// A client that does nothing by itself.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) socket: S,
    version: Version,
    input: Vec<u8>,
}

impl Client {
    /// Connects and expects to be accepted.
    pub(crate) fn connect(address: SocketAddr, connect: &Connect<'_>) -> Self {
        Self::connect_over(open(address), connect)
    }

    /// Opens a socket only.
    pub(crate) fn open(address: SocketAddr, version: Version) -> Self {
        Self::over(open(address), version)
    }
}

/// A socket to a broker.
pub(crate) fn open(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

impl<S: Read + Write> Client<S> {
    /// Has a stream, and sends nothing.
    pub(crate) fn over(socket: S, version: Version) -> Self {
        Self {
            socket,
            version,
            input: Vec::new(),
        }
    }

    /// Connects over a stream and expects to be accepted.
    pub(crate) fn connect_over(stream: S, connect: &Connect<'_>) -> Self {
        let mut client = Self::over(stream, connect.version);
        client.send(&Packet::Connect(*connect));
        let frame = client.receive();
        let Packet::Connack(connack) = frame.packet() else {
            panic!("no CONNACK: {frame:?}")
        };
        assert_eq!(connack.reason_code, ReasonCode::Success);
        client
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        assert!(self.try_send(packet), "the connection is closed");
    }

    /// False when the connection is closed.
    pub(crate) fn try_send(&mut self, packet: &Packet<'_>) -> bool {
        let frame = Frame::encode(packet, self.version).unwrap();
        self.socket.write_all(frame.bytes()).is_ok() && self.socket.flush().is_ok()
    }

    /// The next packet; None when the connection has ended in any way.
    pub(crate) fn receive_or_fail(&mut self) -> Option<Frame> {
        self.next_frame().ok()?
    }

    /// The next packet; None when the broker has closed the connection.
    pub(crate) fn try_receive(&mut self) -> Option<Frame> {
        self.next_frame().unwrap()
    }

    fn next_frame(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some(len) = frame_len(&self.input, u32::MAX).unwrap()
                && self.input.len() >= len
            {
                let bytes: Bytes = self.input.drain(..len).collect::<Vec<u8>>().into();
                return Ok(Some(Frame::new(bytes, self.version).unwrap()));
            }
            let mut buffer = [0; 16 << 10];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                // As of a ring that this thread closes.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn receive(&mut self) -> Frame {
        self.try_receive()
            .expect("the broker closed the connection")
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) {
        let filters = [SubscribeFilter::new(TopicFilter::new(filter).unwrap(), qos)];
        self.send(&Packet::Subscribe(Subscribe::new(id(1), &filters)));
        let frame = self.receive();
        let Packet::Suback(suback) = frame.packet() else {
            panic!("no SUBACK: {frame:?}")
        };
        assert!(suback.reason_codes.iter().all(|code| !code.is_error()));
    }

    pub(crate) fn publish(&mut self, name: &str, delivery: Delivery, payload: &[u8]) {
        let publish = Publish::new(TopicName::new(name).unwrap(), delivery, payload);
        self.send(&Packet::Publish(publish));
    }

    /// The payload of the next packet, which must be a PUBLISH, and how it is delivered.
    pub(crate) fn receive_publish(&mut self) -> (Vec<u8>, Delivery) {
        let frame = self.receive();
        let Packet::Publish(publish) = frame.packet() else {
            panic!("no PUBLISH: {frame:?}")
        };
        (publish.payload.to_vec(), publish.delivery)
    }
}

pub(crate) fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}
