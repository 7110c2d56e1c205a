//! `avocet bench` against the broker: every workload, small, with exact counts.
#![allow(
    clippy::indexing_slicing,
    reason = "what fails here is to fail the test"
)]

use avocet_tests::broker::Broker;
use avocet_tests::process::output;
use avocet_tests::provision;
use serde_json::Value;
use tokio::process::Command;

/// The result of a run, which must find nothing wrong.
async fn bench(broker: &Broker, arguments: &str) -> Value {
    let program = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(program);
    command
        .arg("bench")
        .args(arguments.split(' '))
        .args(broker.arguments())
        .args(["--json", "-", "--quiet"]);
    let text = output(command).await;
    let result: Value = serde_json::from_slice(&text).expect("JSON");
    for fault in ["lost", "duplicates", "out_of_order", "corrupt", "refused"] {
        assert_eq!(result["faults"][fault], 0, "{arguments}: {result:#}");
    }
    result
}

const VERSIONS: [&str; 3] = ["31", "311", "5"];

#[tokio::test]
async fn every_message_of_every_workload_arrives_once_and_in_order() {
    let broker = Broker::start().await;
    for (workload, deliveries) in [
        ("pairs --pairs 5", 1),
        ("fan-in --publishers 7 --subscribers 2", 1),
        ("fan-out --publishers 2 --subscribers 6", 6),
        ("shared --publishers 3 --subscribers 4", 1),
    ] {
        for version in VERSIONS {
            for options in [
                "-q 0",
                "-q 1",
                "-q 2 --topics 3",
                "-q 2 --sub-qos 1 --threads 2",
                "-q 1 -c",
            ] {
                let arguments = format!("{workload} -V {version} {options} --count 1001");
                let result = bench(&broker, &arguments).await;
                assert_eq!(result["sent"], 1001, "{arguments}");
                assert_eq!(result["received"], 1001 * deliveries, "{arguments}");
                let latencies = &result["latency_us"];
                assert_eq!(latencies["count"], 1001 * deliveries, "{arguments}");
            }
        }
    }
}

#[tokio::test]
async fn messages_at_a_fixed_rate_arrive() {
    let broker = Broker::start().await;
    for qos in 0..3 {
        let arguments = format!("pairs --pairs 3 -q {qos} --rate 500 --count 200");
        let result = bench(&broker, &arguments).await;
        assert_eq!(
            (&result["sent"], &result["received"]),
            (&200.into(), &200.into())
        );
        assert_eq!(result["unsent"], 0);
    }
}

#[tokio::test]
async fn every_phase_counts_what_it_did() {
    let broker = Broker::start().await;
    for version in VERSIONS {
        for (arguments, expected) in [
            (
                "connect --clients 40 --hold 0.1",
                vec![("connected", 40), ("held", 40), ("left", 40)],
            ),
            (
                "subscriptions --subscriptions 1000 --clients 20 --messages 2000 -q 1",
                vec![("subscribed", 1000), ("matched", 2000)],
            ),
            (
                "retained --messages 300 --subscribers 2 -q 0",
                vec![("stored", 300), ("fetched", 600), ("deleted", 300)],
            ),
            (
                "retained --messages 300 -q 2",
                vec![("stored", 300), ("fetched", 300), ("deleted", 300)],
            ),
            (
                "offline --messages 300 --pairs 7 -q 1",
                vec![("left", 7), ("queued", 300), ("drained", 300)],
            ),
            (
                "offline --messages 300 --pairs 7 -q 2",
                vec![("left", 7), ("queued", 300), ("drained", 300)],
            ),
        ] {
            let arguments = format!("{arguments} -V {version}");
            let result = bench(&broker, &arguments).await;
            let phases: Vec<_> = result["phases"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|phase| {
                    let name = phase["name"].as_str().unwrap_or_default();
                    (name, phase["count"].as_u64().unwrap_or_default())
                })
                .collect();
            assert_eq!(phases, expected, "{arguments}");
        }
    }
}
