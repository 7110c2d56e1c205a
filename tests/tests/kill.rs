//! A publisher, a receiver and the broker between them, each a process that is killed at any moment and begins again
//! from its files.
#![allow(clippy::unwrap_used, reason = "what fails here is to fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use avocet_client::{
    Backoff, Client, ClientConfig, Config, FileStorage, Message, Messages, QoS, Reconnection,
    TopicFilter, TopicName, Version,
};
use avocet_tests::broker::Broker;
use avocet_tests::scratch::Scratch;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
/// How often each of the three is killed.
const KILLS: u64 = 5;
/// What a publisher publishes before it waits to be killed.
const NUMBERS: u64 = 200;

fn start_client(client_id: &str) -> (Client, Messages) {
    let mut config = Config::with_connection(ClientConfig::new(Version::V5, client_id));
    let address: SocketAddr = env::var("AVOCET_KILL_ADDRESS").unwrap().parse().unwrap();
    config.host = address.ip().to_string();
    config.port = address.port();
    config.connection.session_expiry_interval = 3600;
    config.manual_acknowledge = true;
    config.reconnect = Some(Reconnection {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(20)),
        ..Reconnection::default()
    });
    let directory = env::var("AVOCET_KILL_DIRECTORY").unwrap();
    config.storage = Some(Box::new(FileStorage::open(directory).unwrap()));
    Client::start(config).unwrap()
}

fn say(what: &str, number: u64) {
    println!("{what} {number}");
    std::io::stdout().flush().unwrap();
}

/// Not a test by itself: publishes numbers, and says which are stored.
#[tokio::test]
async fn publishes_in_a_process_of_its_own() {
    let Ok(first) = env::var("AVOCET_KILL_FIRST") else {
        return;
    };
    let (client, _messages) = start_client("publisher");
    if first == "none" {
        client.disconnect(DEADLINE).await;
        return;
    }
    let first: u64 = first.parse().unwrap();
    for number in first..first + NUMBERS {
        let topic_name = TopicName::new("numbers").unwrap();
        let message = Message::new(topic_name, number.to_string().as_bytes());
        let message = message.with_qos(QoS::ExactlyOnce);
        let pending = client.start_publish(message).await.unwrap();
        pending.stored().await.unwrap();
        say("stored", number);
    }
    std::future::pending().await
}

/// Not a test by itself: takes numbers, says which, and acknowledges each.
#[tokio::test]
async fn receives_in_a_process_of_its_own() {
    let Ok(role) = env::var("AVOCET_KILL_RECEIVER") else {
        return;
    };
    let (client, mut messages) = start_client("receiver");
    if role == "begins" {
        let filter = TopicFilter::new("numbers").unwrap();
        client.subscribe(filter, QoS::ExactlyOnce).await.unwrap();
        say("subscribed", 0);
    }
    while let Ok(mut message) = messages.receive().await {
        if message.payload() == b"end" {
            message.acknowledge().unwrap();
            client.disconnect(DEADLINE).await;
            return;
        }
        let text = String::from_utf8_lossy(message.payload());
        say("got", text.parse().unwrap());
        // One whose connection has ended is remembered as acknowledged.
        let _ = message.acknowledge();
    }
}

/// A process, and what reads its lines until its end.
struct Role {
    child: Child,
    reader: JoinHandle<()>,
}

/// Who said what: the number of the process, and the line.
type Lines = mpsc::UnboundedSender<(u64, String)>;

impl Role {
    fn start(
        test: &str,
        variables: &[(&str, String)],
        directory: &Path,
        number: u64,
        lines: Lines,
    ) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
        command.env("AVOCET_KILL_DIRECTORY", directory);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let _ = lines.send((number, line));
            }
        });
        Self { child, reader }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
        self.reader.await.unwrap();
    }

    async fn end(mut self) {
        let ended = timeout(2 * DEADLINE, self.child.wait()).await;
        assert!(ended.expect("ends").unwrap().success());
        self.reader.await.unwrap();
    }
}

#[derive(Default)]
struct Heard {
    stored: BTreeSet<u64>,
    /// What each process of the receiver was given, in its order.
    got: BTreeMap<u64, Vec<u64>>,
}

impl Heard {
    /// True for a number that was given to a receiver.
    fn take(&mut self, process: u64, line: &str) -> bool {
        let number = |line: &str, what| line.strip_prefix(what)?.parse::<u64>().ok();
        if let Some(stored) = number(line, "stored ") {
            self.stored.insert(stored);
        }
        let got = number(line, "got ");
        self.got.entry(process).or_default().extend(got);
        got.is_some()
    }
}

/// [MQTT5-4.3.3-8] [MQTT5-4.3.3-11] [MQTT5-4.4.0-1]
#[tokio::test]
async fn what_was_stored_is_given_to_the_application_whoever_is_killed() {
    let scratch = Scratch::new();
    let dir = |name: &str| scratch.path().join(name);
    let data = dir("broker").to_string_lossy().into_owned();
    let mut broker = Broker::start_with(&[("AVOCET_DATA_DIR", &data)]).await;
    let address = broker.address().to_string();
    let (sender, mut lines) = mpsc::unbounded_channel();
    let publisher = |number: u64, first: String| {
        let variables = [
            ("AVOCET_KILL_FIRST", first),
            ("AVOCET_KILL_ADDRESS", address.clone()),
        ];
        let test = "publishes_in_a_process_of_its_own";
        Role::start(test, &variables, &dir("outbox"), number, sender.clone())
    };
    let receiver = |number: u64, role: &str| {
        let variables = [
            ("AVOCET_KILL_RECEIVER", role.to_owned()),
            ("AVOCET_KILL_ADDRESS", address.clone()),
        ];
        let test = "receives_in_a_process_of_its_own";
        Role::start(test, &variables, &dir("inbox"), number, sender.clone())
    };
    let mut heard = Heard::default();
    let mut receives = receiver(0, "begins");
    loop {
        let (process, line) = timeout(DEADLINE, lines.recv()).await.unwrap().unwrap();
        heard.take(process, &line);
        if line == "subscribed 0" {
            break;
        }
    }
    let mut publishes = publisher(0, "0".to_owned());
    for kill in 1..=3 * KILLS {
        // Killed sooner or later, while messages come.
        let mut left = 1 + 11 * kill % 60;
        while left > 0 {
            let (process, line) = timeout(DEADLINE, lines.recv()).await.unwrap().unwrap();
            left -= u64::from(heard.take(process, &line));
        }
        match kill % 3 {
            0 => {
                broker.kill().await;
                let settings = [
                    ("AVOCET_DATA_DIR", data.as_str()),
                    ("AVOCET_LISTEN", address.as_str()),
                ];
                broker = Broker::start_with(&settings).await;
            }
            1 => {
                receives.kill().await;
                receives = receiver(kill, "goes on");
            }
            _ => {}
        }
        // One that has nothing more to publish makes room for the next.
        publishes.kill().await;
        publishes = publisher(kill, (kill * 1_000_000).to_string());
    }
    publishes.kill().await;
    publisher(u64::MAX, "none".to_owned()).end().await;
    let mut config = Config::with_connection(ClientConfig::new(Version::V5, "ends"));
    config.host = broker.address().ip().to_string();
    config.port = broker.address().port();
    let (ends, _messages) = Client::connect(config).await.unwrap();
    let end = Message::new(TopicName::new("numbers").unwrap(), b"end");
    ends.publish(end.with_qos(QoS::ExactlyOnce)).await.unwrap();
    receives.end().await;
    let _ = (publisher, receiver);
    drop(sender);
    while let Some((process, line)) = lines.recv().await {
        heard.take(process, &line);
    }

    for (process, got) in &heard.got {
        let once: BTreeSet<_> = got.iter().collect();
        assert_eq!(
            once.len(),
            got.len(),
            "process {process} got one twice: {got:?}"
        );
    }
    let got: BTreeSet<u64> = heard.got.values().flatten().copied().collect();
    let missing: Vec<_> = heard.stored.difference(&got).collect();
    assert_eq!(missing, [] as [&u64; 0]);
    assert!(heard.stored.len() as u64 > 3 * KILLS);
    // Everything was acknowledged, so nothing is given out again.
    let (sender, mut lines) = mpsc::unbounded_channel();
    let variables = [
        ("AVOCET_KILL_RECEIVER", "goes on".to_owned()),
        ("AVOCET_KILL_ADDRESS", address.clone()),
    ];
    let test = "receives_in_a_process_of_its_own";
    let last = Role::start(test, &variables, &dir("inbox"), 0, sender);
    let end = Message::new(TopicName::new("numbers").unwrap(), b"end");
    ends.publish(end.with_qos(QoS::ExactlyOnce)).await.unwrap();
    last.end().await;
    while let Some((_, line)) = lines.recv().await {
        assert!(!line.starts_with("got "), "given out again: {line}");
    }
}
