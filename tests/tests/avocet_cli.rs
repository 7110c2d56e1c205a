//! Avocet's own client, the command line tool, against a broker that is not Avocet: mosquitto.

use std::ffi::OsString;
use std::net::SocketAddr;

use avocet_tests::mosquitto::{Mosquitto, Received, Subscriber, mosquitto_pub};
use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use tokio::process::Command;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

fn avocet(subcommand: &str, address: SocketAddr, arguments: &[&str]) -> Command {
    let program = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(program);
    let port = address.port().to_string();
    command
        .args([subcommand, "-h", &address.ip().to_string(), "-p", &port])
        .args(arguments);
    command
}

async fn publish(address: SocketAddr, arguments: &[&str]) {
    output(avocet("pub", address, arguments)).await;
}

/// An `avocet sub` whose subscription mosquitto has confirmed.
async fn subscribe(mosquitto: &mut Mosquitto, id: &str, arguments: &[&str]) -> Process {
    let arguments = [&["-i", id], arguments].concat();
    let process = Process::spawn("avocet sub", avocet("sub", mosquitto.address(), &arguments));
    mosquitto.logs(&format!("Sending SUBACK to {id}")).await;
    process
}

/// Checks that `process` prints exactly `lines` and ends without an error.
async fn expect_lines(process: &mut Process, lines: &[&str]) {
    assert!(
        process.exit().await.success(),
        "avocet sub ended with an error"
    );
    assert_eq!(process.lines(), lines);
}

/// [MQTT311-7.0.0-2]
#[tokio::test]
async fn avocet_pub_reaches_mosquitto_sub_in_every_qos() {
    let mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    let mut subscriber = Subscriber::start(address, ["-t", "a/#", "-q", "2"]).await;
    for version in VERSIONS {
        for qos in 0..=2_u8 {
            let payload = format!("{version} at QoS {qos}");
            let arguments = [
                "-V",
                version,
                "-t",
                "a/b",
                "-m",
                &payload,
                "-q",
                &qos.to_string(),
            ];
            publish(address, &arguments).await;
            assert_eq!(
                subscriber.next().await,
                Received::live("a/b", &payload, qos)
            );
        }
    }
}

#[tokio::test]
async fn avocet_sub_prints_what_mosquitto_pub_sends_in_every_qos() {
    let mut mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    for version in VERSIONS {
        let id = format!("sub-{version}");
        let arguments = [
            "-V", version, "-t", "a/+", "-q", "2", "-C", "3", "-W", "15", "-v",
        ];
        let mut subscriber = subscribe(&mut mosquitto, &id, &arguments).await;
        for qos in ["0", "1", "2"] {
            let mut command = mosquitto_pub(address);
            command.args(["-t", "a/b", "-m", &format!("QoS {qos}"), "-q", qos]);
            output(command).await;
            subscriber.line_with(&format!("a/b QoS {qos}")).await;
        }
        expect_lines(&mut subscriber, &["a/b QoS 0", "a/b QoS 1", "a/b QoS 2"]).await;
    }
}

#[tokio::test]
async fn avocet_pub_and_sub_meet_at_mosquitto() {
    let mut mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    for (from, to) in [("mqttv311", "mqttv5"), ("mqttv5", "mqttv311")] {
        let id = format!("sub-{to}");
        let arguments = ["-V", to, "-t", "m", "-q", "1", "-C", "2", "-W", "15"];
        let mut subscriber = subscribe(&mut mosquitto, &id, &arguments).await;
        for payload in ["first", "23 °C"] {
            publish(address, &["-V", from, "-t", "m", "-m", payload, "-q", "1"]).await;
        }
        expect_lines(&mut subscriber, &["first", "23 °C"]).await;
    }
}

#[tokio::test]
async fn avocet_pub_retains_and_clears_at_mosquitto() {
    let mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    for version in VERSIONS {
        publish(
            address,
            &["-V", version, "-t", "r", "-m", "kept", "-r", "-q", "1"],
        )
        .await;
        let mut early = Subscriber::start(address, ["-t", "r", "-q", "1"]).await;
        assert_eq!(early.next().await, Received::retained("r", "kept", 1));
        let arguments = ["-V", version, "-t", "r", "-C", "1", "-W", "15", "-v"];
        let printed = output(avocet("sub", address, &arguments)).await;
        assert_eq!(String::from_utf8_lossy(&printed), "r kept\n");
        publish(address, &["-V", version, "-t", "r", "-n", "-r", "-q", "1"]).await;
        let mut late = Subscriber::start(address, ["-t", "r", "-q", "1"]).await;
        publish(
            address,
            &["-V", version, "-t", "r", "-m", "last", "-q", "1"],
        )
        .await;
        assert_eq!(late.next().await, Received::live("r", "last", 1));
    }
}

#[tokio::test]
async fn will_of_avocet_sub_is_published_when_it_is_killed() {
    let mut mosquitto = Mosquitto::start("").await;
    let mut watcher = Subscriber::start(mosquitto.address(), ["-t", "will", "-q", "1"]).await;
    for version in VERSIONS {
        let arguments = [
            "-V",
            version,
            "-t",
            "x",
            "--will-topic",
            "will",
            "--will-payload",
            version,
            "--will-qos",
            "1",
        ];
        let mut client = subscribe(&mut mosquitto, &format!("sub-{version}"), &arguments).await;
        client.kill().await;
        assert_eq!(watcher.next().await, Received::live("will", version, 1));
    }
}

/// [MQTT5-4.2.0-1] [MQTT311-7.1.2-1]
#[tokio::test]
async fn file_of_one_mebibyte_passes_whole() {
    let mut mosquitto = Mosquitto::start("").await;
    let payload: Vec<u8> = (0..1_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let scratch = Scratch::new();
    let file = scratch.write("payload", &payload);
    for version in ["mqttv311", "mqttv5"] {
        let id = format!("sub-{version}");
        let arguments = [
            "-V", version, "-i", &id, "-t", "big", "-q", "2", "-C", "1", "-W", "15", "-N",
        ];
        let received = tokio::spawn(output(avocet("sub", mosquitto.address(), &arguments)));
        mosquitto.logs(&format!("Sending SUBACK to {id}")).await;
        let mut command = avocet(
            "pub",
            mosquitto.address(),
            &["-V", version, "-t", "big", "-q", "2"],
        );
        command.args([OsString::from("-f"), file.clone().into()]);
        output(command).await;
        let received = received.await.expect("avocet sub succeeds");
        assert!(
            received == payload,
            "{version}: {} bytes differ",
            received.len()
        );
    }
}

#[tokio::test]
async fn user_properties_of_avocet_pub_arrive_in_order() {
    let mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    let mut command = avocet_tests::mosquitto::mosquitto_sub(address);
    command.args(["-V", "mqttv5", "-d", "-t", "p", "-F", "received %P|%C|%p"]);
    let mut subscriber = Process::spawn("mosquitto_sub", command);
    subscriber.line_with("received SUBACK").await;
    publish(
        address,
        &[
            "-V",
            "mqttv5",
            "-t",
            "p",
            "-m",
            "payload",
            "-D",
            "publish",
            "user-property",
            "b",
            "1",
            "-D",
            "publish",
            "user-property",
            "a",
            "2",
            "-D",
            "publish",
            "user-property",
            "b",
            "3",
            "-D",
            "publish",
            "content-type",
            "text/plain",
        ],
    )
    .await;
    let received = subscriber
        .line("a message", |line| {
            line.strip_prefix("received ")
                .filter(|rest| rest.contains('|'))
                .map(str::to_owned)
        })
        .await;
    assert_eq!(received, "b:1 a:2 b:3|text/plain|payload");
}

#[tokio::test]
async fn persistent_session_of_avocet_sub_is_resumed() {
    let mut mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    for version in ["mqttv311", "mqttv5"] {
        let id = format!("sleeper-{version}");
        let mut session = vec![
            "-V", version, "-c", "-t", "s", "-q", "1", "-C", "2", "-W", "15",
        ];
        if version == "mqttv5" {
            session.extend(["-x", "600"]);
        }
        let mut client = subscribe(&mut mosquitto, &id, &session).await;
        client.kill().await;
        for payload in ["one", "two"] {
            publish(
                address,
                &["-V", version, "-t", "s", "-m", payload, "-q", "1"],
            )
            .await;
        }
        let mut arguments = vec!["-i", &id];
        arguments.extend(session);
        let printed = output(avocet("sub", address, &arguments)).await;
        assert_eq!(String::from_utf8_lossy(&printed), "one\ntwo\n", "{version}");
    }
}

#[tokio::test]
async fn avocet_request_prints_the_response_of_mosquitto_pub() {
    let mosquitto = Mosquitto::start("").await;
    let address = mosquitto.address();
    let mut command = avocet_tests::mosquitto::mosquitto_sub(address);
    command.args(["-V", "mqttv5", "-d", "-t", "ask", "-F", "request %R|%D|%p"]);
    let mut responder = Process::spawn("responder", command);
    responder.line_with("received SUBACK").await;

    let arguments = [
        "-t",
        "ask",
        "-e",
        "answer/me",
        "-m",
        "how warm?",
        "-q",
        "1",
        "-W",
        "15",
    ];
    let arguments = [
        &arguments[..],
        &["-D", "publish", "correlation-data", "4711"],
    ]
    .concat();
    let mut requester = Process::spawn("avocet request", avocet("request", address, &arguments));
    let request = responder
        .line("a request", |line| {
            line.strip_prefix("request ").map(str::to_owned)
        })
        .await;
    assert_eq!(request, "answer/me|4711|how warm?");
    let mut command = mosquitto_pub(address);
    command.args(["-V", "mqttv5", "-t", "answer/me", "-m", "23 °C", "-q", "1"]);
    command.args(["-D", "publish", "correlation-data", "4711"]);
    output(command).await;
    expect_lines(&mut requester, &["23 °C"]).await;
}
