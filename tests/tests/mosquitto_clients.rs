//! Debian's `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr` as clients of the broker.

use std::net::SocketAddr;

use avocet_tests::broker::Broker;
use avocet_tests::mosquitto::{Received, Subscriber, mosquitto_pub, mosquitto_rr, mosquitto_sub};
use avocet_tests::process::{Process, output};
use avocet_tests::scratch::Scratch;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

async fn publish(address: SocketAddr, arguments: &[&str]) {
    let mut command = mosquitto_pub(address);
    command.args(arguments);
    output(command).await;
}

/// What `mosquitto_sub` prints with `format` until it has `count` messages.
async fn receive(address: SocketAddr, count: usize, format: &str, arguments: &[&str]) -> String {
    let mut command = mosquitto_sub(address);
    command
        .args(["-C", &count.to_string(), "-F", format])
        .args(arguments);
    String::from_utf8(output(command).await).expect("it prints text")
}

#[tokio::test]
async fn every_version_reaches_every_version_at_the_lower_qos() {
    let broker = Broker::start().await;
    for to in VERSIONS {
        for granted in 0..=2_u8 {
            let mut subscriber = Subscriber::start(
                broker.address(),
                ["-V", to, "-t", "a/+/c", "-q", &granted.to_string()],
            )
            .await;
            for from in VERSIONS {
                for qos in 0..=2_u8 {
                    let payload = format!("{from} QoS {qos}");
                    let arguments = ["-V", from, "-t", "a/b/c", "-m", &payload];
                    let qos_argument = qos.to_string();
                    publish(
                        broker.address(),
                        &[&arguments[..], &["-q", &qos_argument]].concat(),
                    )
                    .await;
                    let expected = Received::live("a/b/c", &payload, qos.min(granted));
                    assert_eq!(subscriber.next().await, expected, "{from} to {to}");
                }
            }
        }
    }
}

#[tokio::test]
async fn lines_of_one_publisher_stay_in_order() {
    let broker = Broker::start().await;
    let lines: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    let scratch = Scratch::new();
    let file = scratch.write("lines", lines.join("\n") + "\n");
    for qos in ["0", "1", "2"] {
        let mut subscriber = Subscriber::start(broker.address(), ["-t", "l", "-q", qos]).await;
        let mut command = mosquitto_pub(broker.address());
        command.args(["-t", "l", "-l", "-q", qos]);
        command.stdin(std::fs::File::open(&file).expect("the file was written"));
        let status = command.status().await.expect("mosquitto_pub starts");
        assert!(status.success(), "mosquitto_pub -l ended with {status}");
        for line in &lines {
            assert_eq!(subscriber.next().await.payload, *line, "at QoS {qos}");
        }
    }
}

#[tokio::test]
async fn retained_messages_are_stored_replaced_and_cleared() {
    let broker = Broker::start().await;
    let address = broker.address();
    for version in VERSIONS {
        publish(
            address,
            &["-V", version, "-t", "r/1", "-m", "old", "-r", "-q", "1"],
        )
        .await;
        publish(
            address,
            &["-V", version, "-t", "r/1", "-m", "new", "-r", "-q", "1"],
        )
        .await;
        let mut first = Subscriber::start(address, ["-V", version, "-t", "r/#", "-q", "1"]).await;
        assert_eq!(first.next().await, Received::retained("r/1", "new", 1));

        publish(
            address,
            &["-V", version, "-t", "r/1", "-m", "live", "-r", "-q", "1"],
        )
        .await;
        assert_eq!(first.next().await, Received::live("r/1", "live", 1));
        publish(
            address,
            &["-V", version, "-t", "r/1", "-n", "-r", "-q", "1"],
        )
        .await;
        assert_eq!(first.next().await, Received::live("r/1", "", 1));

        let mut second = Subscriber::start(address, ["-V", version, "-t", "r/#", "-q", "1"]).await;
        publish(
            address,
            &["-V", version, "-t", "r/2", "-m", "last", "-q", "1"],
        )
        .await;
        assert_eq!(
            second.next().await,
            Received::live("r/2", "last", 1),
            "nothing is retained"
        );
    }
}

#[tokio::test]
async fn will_is_published_when_the_client_is_killed_only() {
    let broker = Broker::start().await;
    let address = broker.address();
    for version in VERSIONS {
        let will = [
            "-V",
            version,
            "-t",
            "x",
            "--will-topic",
            "will",
            "--will-payload",
            "gone",
            "--will-qos",
            "2",
            "--will-retain",
        ];
        let mut watcher =
            Subscriber::start(address, ["-V", version, "-t", "will", "-q", "2"]).await;

        // After one message it leaves with DISCONNECT.
        let mut polite = Subscriber::start(address, [&will[..], &["-C", "1"]].concat()).await;
        publish(address, &["-t", "x", "-m", "leave"]).await;
        assert!(polite.process().exit().await.success());
        publish(address, &["-t", "will", "-m", "between", "-q", "2"]).await;
        assert_eq!(watcher.next().await, Received::live("will", "between", 2));

        let mut killed = Subscriber::start(address, will).await;
        killed.process().kill().await;
        assert_eq!(watcher.next().await, Received::live("will", "gone", 2));
        let mut late = Subscriber::start(address, ["-V", version, "-t", "will", "-q", "2"]).await;
        assert_eq!(late.next().await, Received::retained("will", "gone", 2));
        publish(address, &["-t", "will", "-n", "-r", "-q", "2"]).await;
    }
}

#[tokio::test]
async fn persistent_session_receives_what_was_published_while_away() {
    let broker = Broker::start().await;
    let address = broker.address();
    for version in VERSIONS {
        let id = format!("sleeper-{version}");
        let mut session = vec!["-V", version, "-i", &id, "-c", "-t", "s/#", "-q", "2"];
        if version == "mqttv5" {
            session.extend(["-x", "600"]);
        }
        // A client hands a QoS 2 message on when its exchange ends: the order holds per QoS.
        for qos in ["1", "2"] {
            let mut command = mosquitto_sub(address);
            command.args(&session).arg("-E");
            output(command).await;
            for payload in ["one", "two", "three"] {
                publish(
                    address,
                    &["-V", version, "-t", "s/1", "-m", payload, "-q", qos],
                )
                .await;
            }
            let received = receive(address, 3, "%q %r %t %p", &session).await;
            let expected = format!("{qos} 0 s/1 one\n{qos} 0 s/1 two\n{qos} 0 s/1 three\n");
            assert_eq!(received, expected, "{version}");
        }
    }
}

#[tokio::test]
async fn shared_subscription_gives_each_message_to_one_member() {
    let broker = Broker::start().await;
    let address = broker.address();
    for version in VERSIONS {
        let member = [
            "-V",
            version,
            "-t",
            "$share/group/s/#",
            "-t",
            "end",
            "-q",
            "1",
        ];
        let mut one = Subscriber::start(address, member).await;
        let mut two = Subscriber::start(address, member).await;
        let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        for payload in &expected {
            publish(
                address,
                &["-V", version, "-t", "s/1", "-m", payload, "-q", "1"],
            )
            .await;
        }
        let (mut to_one, mut to_two) = (Vec::new(), Vec::new());
        while to_one.len() + to_two.len() < expected.len() {
            tokio::select! {
                message = one.next() => to_one.push(message.payload),
                message = two.next() => to_two.push(message.payload),
            }
        }
        publish(address, &["-V", version, "-t", "end", "-m", "", "-q", "1"]).await;
        assert_eq!(one.next().await.topic, "end");
        assert_eq!(two.next().await.topic, "end");
        assert!(
            to_one.is_sorted() && to_two.is_sorted(),
            "in order: {to_one:?} {to_two:?}"
        );
        assert!(
            !to_one.is_empty() && !to_two.is_empty(),
            "both: {to_one:?} {to_two:?}"
        );
        let mut received = [to_one, to_two].concat();
        received.sort();
        assert_eq!(received, expected, "each message once");
    }
}

#[tokio::test]
async fn payload_of_one_mebibyte_arrives_whole() {
    let broker = Broker::start().await;
    let payload: Vec<u8> = (0..1_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let scratch = Scratch::new();
    let file = scratch.write("payload", &payload);
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let mut command = mosquitto_pub(broker.address());
            command
                .args(["-V", version, "-t", "big", "-r", "-q", qos, "-f"])
                .arg(&file);
            output(command).await;
            let mut command = mosquitto_sub(broker.address());
            command.args(["-V", version, "-t", "big", "-q", qos, "-C", "1", "-N"]);
            assert!(output(command).await == payload, "{version} at QoS {qos}");
        }
    }
}

#[tokio::test]
async fn properties_pass_in_order() {
    let broker = Broker::start().await;
    publish(
        broker.address(),
        &[
            "-V",
            "mqttv5",
            "-t",
            "p",
            "-m",
            "23 °C",
            "-r",
            "-q",
            "1",
            "-D",
            "publish",
            "user-property",
            "unit",
            "celsius",
            "-D",
            "publish",
            "user-property",
            "room",
            "kitchen",
            "-D",
            "publish",
            "user-property",
            "unit",
            "°C",
            "-D",
            "publish",
            "content-type",
            "text/plain",
            "-D",
            "publish",
            "response-topic",
            "p/answer",
            "-D",
            "publish",
            "correlation-data",
            "0815",
            "-D",
            "publish",
            "payload-format-indicator",
            "1",
            "-D",
            "publish",
            "message-expiry-interval",
            "600",
        ],
    )
    .await;
    let subscribe = ["-V", "mqttv5", "-t", "p", "-q", "1"];
    let received = receive(broker.address(), 1, "%P|%C|%R|%D|%F|%E|%p", &subscribe).await;
    let parts: Vec<&str> = received.trim_end().split('|').collect();
    let [
        user,
        content_type,
        response,
        correlation,
        format,
        expiry,
        payload,
    ] = parts[..]
    else {
        panic!("seven parts: {received:?}");
    };
    assert_eq!(user, "unit:celsius room:kitchen unit:°C");
    assert_eq!(
        (content_type, response, correlation),
        ("text/plain", "p/answer", "0815")
    );
    assert_eq!((format, payload), ("1", "23 °C"));
    let expiry: u32 = expiry.parse().expect("a number of seconds");
    assert!((570..=600).contains(&expiry), "{expiry} s of 600 s remain");
}

#[tokio::test]
async fn request_is_answered_on_the_response_topic() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut command = mosquitto_sub(address);
    command.args(["-V", "mqttv5", "-d", "-t", "ask", "-F", "request %R %D %p"]);
    let mut responder = Process::spawn("responder", command);
    responder.line_with("received SUBACK").await;

    let mut command = mosquitto_rr(address);
    command.args([
        "-V",
        "mqttv5",
        "-t",
        "ask",
        "-e",
        "answer/me",
        "-m",
        "how warm?",
    ]);
    command.args([
        "-D",
        "publish",
        "correlation-data",
        "4711",
        "-F",
        "response %t %D %p",
    ]);
    let mut requester = Process::spawn("mosquitto_rr", command);

    let request = responder
        .line("a request", |line| {
            line.strip_prefix("request ").map(str::to_owned)
        })
        .await;
    assert_eq!(request, "answer/me 4711 how warm?");
    let answer = ["-V", "mqttv5", "-t", "answer/me", "-m", "23 °C"];
    publish(
        address,
        &[&answer[..], &["-D", "publish", "correlation-data", "4711"]].concat(),
    )
    .await;
    let response = requester
        .line("a response", |line| {
            line.strip_prefix("response ").map(str::to_owned)
        })
        .await;
    assert_eq!(response, "answer/me 4711 23 °C");
    assert!(requester.exit().await.success());
}
