//! The examples of `avocet-client`, as their users run them.

use std::net::SocketAddr;

use avocet_tests::broker::Broker;
use avocet_tests::mosquitto::{Received, Subscriber, mosquitto_pub};
use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use tokio::process::Command;

fn example(name: &str) -> Command {
    let folder = provision::examples().unwrap_or_else(|error| panic!("{error:#}"));
    Command::new(folder.join(name))
}

fn url(broker: &Broker) -> String {
    format!("mqtt://{}", broker.address())
}

async fn publish(address: SocketAddr, arguments: &[&str]) {
    let mut command = mosquitto_pub(address);
    command.args(arguments);
    output(command).await;
}

#[tokio::test]
async fn publish_says_what_the_server_says() {
    let broker = Broker::start_with(&[]).await;
    let address = broker.address();
    let mut garden = Subscriber::start(address, ["-t", "garden/#", "-q", "2"]).await;
    let mut command = example("publish");
    command.args([address.ip().to_string(), address.port().to_string()]);
    command.args(["garden/temperature", "21.5"]);
    let said = output(command).await;
    assert_eq!(said, b"the server says: success\n");
    let expected = Received::live("garden/temperature", "21.5", 1);
    assert_eq!(garden.next().await, expected);
}

#[tokio::test]
async fn subscribe_prints_messages() {
    let broker = Broker::start_with(&[]).await;
    let address = broker.address();
    publish(address, &["-t", "garden/gate", "-m", "open", "-r"]).await;
    let mut command = example("subscribe");
    command.args([address.ip().to_string(), address.port().to_string()]);
    command.arg("garden/#");
    let mut process = Process::spawn("subscribe", command);
    process.line_with("garden/gate open").await;
}

/// The first process has no server, and is killed; the next one publishes what it left.
#[tokio::test]
async fn telemetry_loses_no_reading_with_its_process() {
    let broker = Broker::start_with(&[]).await;
    let mut meters = Subscriber::start(broker.address(), ["-t", "meters/+", "-q", "2"]).await;
    let scratch = Scratch::new();
    let meter = |url: &str| {
        let mut command = example("telemetry");
        command.args([url, "meter-17"]).current_dir(scratch.path());
        Process::spawn("telemetry", command)
    };
    let mut offline = meter("mqtt://127.0.0.1:1");
    offline.line_with("0 is safe").await;
    offline.kill().await;
    let online = meter(&url(&broker));
    for _ in 0..2 {
        let expected = Received::live("meters/meter-17", "0", 2);
        assert_eq!(meters.next().await, expected);
    }
    drop(online);
}

#[tokio::test]
async fn command_asks_and_answers() {
    let broker = Broker::start_with(&[]).await;
    let command = |arguments: &[&str]| {
        let mut command = example("command");
        command.arg(url(&broker)).args(arguments);
        command
    };
    let mut serving = Process::spawn("command serve", command(&["serve"]));
    serving.line_with("waiting for commands").await;
    let reply = output(command(&["ask", "what time is it"])).await;
    assert_eq!(reply, b"done: what time is it\n");
    serving.line_with("what time is it").await;
}

#[tokio::test]
async fn worker_does_all_work() {
    let broker = Broker::start_with(&[]).await;
    let mut command = example("worker");
    command.arg(url(&broker));
    let mut worker = Process::spawn("worker", command);
    worker.line_with("waiting for work").await;
    for count in 0..6 {
        let work = format!("hole {count}");
        publish(broker.address(), &["-t", "work", "-q", "1", "-m", &work]).await;
    }
    for count in 0..6 {
        worker.line_with(&format!("hole {count}: done")).await;
    }
}

#[tokio::test]
async fn bridge_carries_states_out_and_commands_in() {
    let (home, outside) = tokio::join!(Broker::start_with(&[]), Broker::start_with(&[]));
    let mut command = example("bridge");
    command.args([url(&home), url(&outside)]);
    let mut bridge = Process::spawn("bridge", command);
    bridge.line_with("both servers are there").await;
    let mut states = Subscriber::start(outside.address(), ["-t", "#", "-q", "2"]).await;
    let mut commands = Subscriber::start(home.address(), ["-t", "+/+/set", "-q", "2"]).await;
    let state = ["-t", "lights/porch/state", "-q", "1", "-m", "on"];
    publish(home.address(), &state).await;
    let expected = Received::live("lights/porch/state", "on", 1);
    assert_eq!(states.next().await, expected);
    let set = ["-t", "lights/porch/set", "-q", "1", "-m", "off"];
    publish(outside.address(), &set).await;
    let expected = Received::live("lights/porch/set", "off", 1);
    assert_eq!(commands.next().await, expected);
}
