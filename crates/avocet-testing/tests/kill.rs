//! A client's process that is killed at any moment, and begins again from its files.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is to fail the test"
)]

use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use avocet_client::{
    Backoff, Client, ClientConfig, Config, FileStorage, Message, QoS, Reconnection, TopicFilter,
    TopicName, Version,
};
use avocet_testing::Broker;
use tokio::io::{AsyncBufReadExt as _, BufReader, copy_bidirectional};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
/// How many processes are killed.
const KILLS: usize = 12;

/// Not a test by itself: what the killed process does. It publishes numbers, and prints each one
/// when it is stored. With `AVOCET_KILL_END` it only finishes what others left.
#[tokio::test]
async fn publishes_numbers_in_a_process_of_its_own() {
    let Ok(directory) = env::var("AVOCET_KILL_DIRECTORY") else {
        return;
    };
    let port = env::var("AVOCET_KILL_PORT").unwrap().parse().unwrap();
    let mut config = Config::with_connection(ClientConfig::new(Version::V5, "killed"));
    config.host = "127.0.0.1".into();
    config.port = port;
    config.connection.session_expiry_interval = 3600;
    config.reconnect = Some(Reconnection {
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(10)),
        ..Reconnection::default()
    });
    config.storage = Some(Box::new(FileStorage::open(directory).unwrap()));
    let (client, _messages) = Client::start(config).unwrap();
    if env::var("AVOCET_KILL_END").is_ok() {
        client.disconnect(DEADLINE).await;
        return;
    }
    let first: u64 = env::var("AVOCET_KILL_FIRST").unwrap().parse().unwrap();
    for number in first.. {
        let topic_name = TopicName::new("numbers").unwrap();
        let message = Message::new(topic_name, number.to_string().as_bytes());
        let message = message.with_qos(QoS::ExactlyOnce);
        let pending = client.start_publish(message).await.unwrap();
        pending.stored().await.unwrap();
        println!("stored {number}");
        std::io::stdout().flush().unwrap();
    }
}

fn start(directory: &Path, port: u16, first: Option<u64>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "publishes_numbers_in_a_process_of_its_own",
            "--nocapture",
        ])
        .env("AVOCET_KILL_DIRECTORY", directory)
        .env("AVOCET_KILL_PORT", port.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    match first {
        Some(first) => command.env("AVOCET_KILL_FIRST", first.to_string()),
        None => command.env("AVOCET_KILL_END", "1"),
    };
    command.spawn().unwrap()
}

/// The broker, over a socket: one connection after the other.
async fn serve(broker: Broker, listener: TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut stream = broker.stream().unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut socket, &mut stream).await });
    }
}

#[tokio::test]
async fn what_was_stored_is_published_once_however_often_the_process_is_killed() {
    let directory = env::temp_dir().join(format!("avocet-kill-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let broker = Broker::start();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve(broker.clone(), listener));
    let (subscriber, mut messages) = Client::connect(broker.config("s")).await.unwrap();
    let filter = TopicFilter::new("numbers").unwrap();
    subscriber
        .subscribe(filter, QoS::ExactlyOnce)
        .await
        .unwrap();

    let mut stored = Vec::new();
    for round in 0..KILLS {
        // Each process has numbers of its own.
        let first = round as u64 * 1_000_000;
        let mut child = start(&directory, port, Some(first));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed sooner or later, while it publishes.
        let mut left = 1 + 7 * round;
        while let Some(line) = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
            if let Some(number) = line.strip_prefix("stored ") {
                stored.push(number.parse::<u64>().unwrap());
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        assert_eq!(left, 0, "the process ended by itself");
        child.kill().await.unwrap();
        while let Some(line) = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
            if let Some(number) = line.strip_prefix("stored ").and_then(|it| it.parse().ok()) {
                stored.push(number);
            }
        }
    }
    let mut last = start(&directory, port, None);
    let ended = timeout(2 * DEADLINE, last.wait()).await.unwrap().unwrap();
    assert!(ended.success());
    // Behind everything that was published before.
    let end = Message::new(TopicName::new("numbers").unwrap(), b"end");
    subscriber
        .publish(end.with_qos(QoS::ExactlyOnce))
        .await
        .unwrap();
    let mut published = Vec::new();
    loop {
        let message = timeout(DEADLINE, messages.receive())
            .await
            .unwrap()
            .unwrap();
        if message.payload() == b"end" {
            break;
        }
        let text = String::from_utf8_lossy(message.payload());
        published.push(text.parse::<u64>().unwrap());
    }
    let mut once = published.clone();
    once.dedup();
    assert_eq!(once, published, "nothing twice");
    assert!(published.is_sorted(), "in order");
    let missing: Vec<_> = stored.iter().filter(|it| !published.contains(it)).collect();
    assert_eq!(missing, [] as [&u64; 0]);
    std::fs::remove_dir_all(&directory).unwrap();
}
