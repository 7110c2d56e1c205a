//! The broker under test: the built `avocet-broker`, on a port the system chose.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;

use tokio::process::Command;

use crate::mosquitto::Mosquitto;
use crate::process::Process;
use crate::provision;

/// The environment variable that names another broker to run the suite against: `mosquitto` is
/// Debian's, with which the suite itself is checked.
pub const BROKER_VARIABLE: &str = "AVOCET_INTEROP_BROKER";

/// A running broker, stopped when dropped.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    address: SocketAddr,
}

impl Broker {
    /// Starts the broker and waits until it listens.
    pub async fn start() -> Self {
        match std::env::var(BROKER_VARIABLE).as_deref() {
            Ok("mosquitto") => Mosquitto::start("").await.into_broker(),
            Err(std::env::VarError::NotPresent) => Self::start_with(&[]).await,
            other => panic!("{BROKER_VARIABLE} is {other:?}; only \"mosquitto\" is known"),
        }
    }

    /// Starts `avocet-broker`, of two shards, with these settings, each the variable and its value.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let program = provision::avocet_broker().unwrap_or_else(|error| panic!("{error:#}"));
        let mut command = Command::new(program);
        command
            .env("AVOCET_LISTEN", "127.0.0.1:0")
            .env("AVOCET_SHARDS", "2")
            .env("RUST_BACKTRACE", "1")
            .envs(settings.iter().copied());
        let mut process = Process::spawn("avocet-broker", command);
        let address = process
            .line("\"listening on HOST:PORT\"", listening_on)
            .await;
        Self { process, address }
    }

    /// Starts `avocet-broker` with a configuration file that has so many listeners with IP addresses,
    /// and says where these are.
    pub async fn start_config(config: &Path, listeners: usize) -> (Self, Vec<SocketAddr>) {
        let program = provision::avocet_broker().unwrap_or_else(|error| panic!("{error:#}"));
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(config)
            .env("RUST_BACKTRACE", "1");
        let mut process = Process::spawn("avocet-broker", command);
        let mut addresses = Vec::new();
        while addresses.len() < listeners {
            let fresh = |line: &str| listening_on(line).filter(|it| !addresses.contains(it));
            let address = process.line("\"listening on HOST:PORT\"", fresh).await;
            addresses.push(address);
        }
        let address = *addresses.first().expect("a listener with an IP address");
        (Self { process, address }, addresses)
    }

    pub(crate) fn new(process: Process, address: SocketAddr) -> Self {
        Self { process, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `-h HOST -p PORT`, as mosquitto's and Avocet's own tools take it.
    pub fn arguments(&self) -> [OsString; 4] {
        let (host, port) = (
            self.address.ip().to_string(),
            self.address.port().to_string(),
        );
        ["-h".into(), host.into(), "-p".into(), port.into()]
    }

    /// Ends it without warning, and waits until it is gone.
    pub async fn kill(mut self) {
        self.process.kill().await;
    }

    /// Stops it as an operator does, with SIGTERM.
    pub async fn stop(mut self) -> ExitStatus {
        self.process.terminate().await
    }
}

/// The address in a line that says `listening on HOST:PORT`.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || "[]:.".contains(c)));
    rest.get(..end.unwrap_or(rest.len()))?
        .trim_end_matches('.')
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::listening_on;

    #[test]
    fn finds_the_address_a_broker_listens_on() {
        for line in [
            "listening on 127.0.0.1:4242",
            "2026-01-01T00:00:00Z  INFO avocet_broker: listening on 127.0.0.1:4242 protocol=tcp",
            "listening on 127.0.0.1:4242, plain TCP.",
        ] {
            assert_eq!(
                listening_on(line),
                Some("127.0.0.1:4242".parse().unwrap()),
                "{line}"
            );
        }
        assert_eq!(
            listening_on("listening on [::1]:1883"),
            Some("[::1]:1883".parse().unwrap())
        );
        assert_eq!(listening_on("not listening"), None);
    }
}
