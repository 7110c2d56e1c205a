//! Debian's mosquitto as a broker of its own: the other end of a bridge, the peer of Avocet's
//! client, the reference with which this suite is checked.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use tokio::process::Command;

use crate::broker::Broker;
use crate::process::Process;
use crate::provision;
use crate::scratch::Scratch;

/// A running mosquitto, stopped when dropped.
#[derive(Debug)]
pub struct Mosquitto {
    process: Process,
    address: SocketAddr,
    scratch: Scratch,
}

impl Mosquitto {
    /// Starts mosquitto with `configuration` added to its listener, and waits until it listens.
    pub async fn start(configuration: &str) -> Self {
        let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
        let scratch = Scratch::new();
        let [address] = unused_addresses();
        let file = scratch.write(
            "mosquitto.conf",
            format!(
                "user root\nlistener {} {}\nallow_anonymous true\npersistence false\n\
                 log_dest stderr\nlog_type all\n{configuration}\n",
                address.port(),
                address.ip(),
            ),
        );
        let mut command = Command::new(&tools.mosquitto);
        command.arg("-c").arg(file);
        let mut process = Process::spawn("mosquitto", command);
        process.line_with(" running").await;
        Self {
            process,
            address,
            scratch,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a line of its log; every packet it receives or sends is one.
    pub async fn logs(&mut self, text: &str) {
        self.process.line_with(text).await;
    }

    /// The next line of its log for which `choose` returns something.
    pub async fn log<T>(&mut self, awaited: &str, choose: impl Fn(&str) -> Option<T>) -> T {
        self.process.line(awaited, choose).await
    }

    /// Ends it without a chance to say good-bye.
    pub async fn kill(mut self) {
        self.process.kill().await;
    }

    /// This mosquitto as the broker of a scenario.
    pub fn into_broker(self) -> Broker {
        // The configuration has been read.
        drop(self.scratch);
        Broker::new(self.process, self.address)
    }
}

/// Addresses nobody else uses. mosquitto cannot be given port 0, so the port is chosen here, on
/// a loopback address that belongs to this process alone: nobody can take it in between.
pub(crate) fn unused_addresses<const N: usize>() -> [SocketAddr; N] {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ip = IpAddr::V4(Ipv4Addr::new(127, high.wrapping_add(1), middle, low));
    let fail = |error: std::io::Error| -> ! { panic!("no port on {ip}: {error}") };
    // All are held until each is known, so that they differ.
    let listeners =
        [(); N].map(|()| TcpListener::bind((ip, 0)).unwrap_or_else(|error| fail(error)));
    listeners.map(|listener| listener.local_addr().unwrap_or_else(|error| fail(error)))
}

/// `mosquitto_pub` with the arguments that lead it to `address`.
pub fn mosquitto_pub(address: SocketAddr) -> Command {
    tool("mosquitto_pub", address)
}

/// `mosquitto_sub` with the arguments that lead it to `address`.
pub fn mosquitto_sub(address: SocketAddr) -> Command {
    tool("mosquitto_sub", address)
}

/// `mosquitto_rr` with the arguments that lead it to `address`.
pub fn mosquitto_rr(address: SocketAddr) -> Command {
    tool("mosquitto_rr", address)
}

fn tool(name: &str, address: SocketAddr) -> Command {
    provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    // Without a terminal the tools keep what they print until their buffer is full.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", name, "-h", &address.ip().to_string()]);
    command.args(["-p", &address.port().to_string()]);
    command
}

/// One message as `mosquitto_sub` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The Topic Name.
    pub topic: String,
    /// The payload, as text.
    pub payload: String,
    /// The QoS it came with.
    pub qos: u8,
    /// The RETAIN flag it came with.
    pub retain: bool,
}

impl Received {
    /// A message with RETAIN 0.
    pub fn live(topic: &str, payload: &str, qos: u8) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            qos,
            retain: false,
        }
    }

    /// A message with RETAIN 1.
    pub fn retained(topic: &str, payload: &str, qos: u8) -> Self {
        Self {
            retain: true,
            ..Self::live(topic, payload, qos)
        }
    }
}

/// A `mosquitto_sub` that is subscribed.
#[derive(Debug)]
pub struct Subscriber(Process);

impl Subscriber {
    /// Subscribes with `arguments` and waits for the SUBACK.
    pub async fn start<A: AsRef<OsStr>>(
        address: SocketAddr,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = mosquitto_sub(address);
        command
            .args(["-d", "-F", "message %q %r %t %p"])
            .args(arguments);
        let mut process = Process::spawn("mosquitto_sub", command);
        process.line_with("received SUBACK").await;
        Self(process)
    }

    /// The next message.
    pub async fn next(&mut self) -> Received {
        self.0.line("a message", parse_received).await
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}

fn parse_received(line: &str) -> Option<Received> {
    let mut parts = line.strip_prefix("message ")?.splitn(4, ' ');
    let qos = parts.next()?.parse().ok()?;
    let retain = parts.next()? == "1";
    let topic = parts.next()?.to_owned();
    let payload = parts.next().unwrap_or_default().to_owned();
    Some(Received {
        topic,
        payload,
        qos,
        retain,
    })
}
