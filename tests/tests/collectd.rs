//! Debian's collectd publishes the measurements of this machine through the broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use avocet_tests::broker::Broker;
use avocet_tests::mosquitto::Subscriber;
use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use tokio::process::Command;

/// A collectd that measures every second; it lives as long as both values.
fn collectd(broker: SocketAddr, qos: u8) -> (Process, Scratch) {
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let scratch = Scratch::new();
    let directory = scratch.path().display();
    let (host, port) = (broker.ip(), broker.port());
    let configuration = format!(
        r#"
        Hostname "machine"
        FQDNLookup false
        Interval 1
        BaseDir "{directory}"
        PIDFile "{directory}/pid"
        LoadPlugin logfile
        <Plugin logfile>
            LogLevel info
            File STDERR
        </Plugin>
        LoadPlugin cpu
        LoadPlugin load
        LoadPlugin memory
        LoadPlugin uptime
        LoadPlugin mqtt
        <Plugin mqtt>
            <Publish "broker">
                Host "{host}"
                Port "{port}"
                ClientId "collectd"
                QoS {qos}
                Prefix "collectd"
            </Publish>
        </Plugin>
        "#
    );
    let file = scratch.write("collectd.conf", configuration);
    let mut command = Command::new(tools.collectd);
    command.arg("-f").arg("-C").arg(file);
    (Process::spawn("collectd", command), scratch)
}

/// The values of `1700000000.123:0.5:0.4:0.3`, behind their time. collectd sends the zero that
/// ends a string in C along.
fn values(payload: &str) -> (String, Vec<f64>) {
    let mut parts = payload.trim_end_matches('\0').split(':');
    let time = parts.next().unwrap_or_default().to_owned();
    let values = parts.map(|value| value.parse()).collect::<Result<_, _>>();
    (
        time,
        values.unwrap_or_else(|error| panic!("{payload:?}: {error}")),
    )
}

/// Reads a number of kilobytes from `/proc/meminfo`, in bytes.
fn memory_total() -> f64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("Linux has /proc/meminfo");
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemTotal:"))
        .expect("a total");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<f64>().expect("a number") * 1024.0
}

#[tokio::test]
async fn measurements_of_this_machine_arrive_in_mosquitto_sub() {
    let broker = Broker::start().await;
    let mut subscriber = Subscriber::start(broker.address(), ["-t", "collectd/#", "-q", "1"]).await;
    let _collectd = collectd(broker.address(), 1);

    let mut topics = BTreeMap::new();
    let mut memory: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    // The kinds of memory that collectd tells apart add up to what the machine has.
    let total = memory_total();
    let whole = |parts: &BTreeMap<String, f64>| (parts.values().sum::<f64>() - total).abs() < 1.0;
    while !(memory.values().any(whole)
        && topics.contains_key("collectd/machine/load/load")
        && topics.contains_key("collectd/machine/uptime/uptime"))
    {
        let message = subscriber.next().await;
        assert_eq!((message.qos, message.retain), (1, false), "{message:?}");
        let (time, values) = values(&message.payload);
        if let Some(kind) = message
            .topic
            .strip_prefix("collectd/machine/memory/memory-")
        {
            let parts = memory.entry(time).or_default();
            parts.insert(kind.to_owned(), values[0]);
        }
        topics.insert(message.topic, values);
    }
    assert_eq!(
        topics["collectd/machine/load/load"].len(),
        3,
        "of 1, 5 and 15 minutes"
    );
    assert!(topics["collectd/machine/uptime/uptime"][0] > 0.0);
}

#[tokio::test]
async fn measurements_of_this_machine_arrive_in_avocet_sub() {
    let broker = Broker::start().await;
    let _collectd = collectd(broker.address(), 0);
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(avocet);
    command.arg("sub").args(broker.arguments());
    command.args(["-t", "collectd/+/load/#", "-t", "collectd/+/memory/+"]);
    command.args(["-C", "20", "-W", "15", "-v"]);
    let text = String::from_utf8(output(command).await).expect("it prints text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 20, "{text}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("collectd/machine/load/load ")),
        "{text}"
    );
    for line in lines {
        let (topic, payload) = line.split_once(' ').expect("a topic and a payload");
        let (_, values) = values(payload);
        assert_eq!(
            values.len(),
            if topic.ends_with("/load") { 3 } else { 1 },
            "{line}"
        );
    }
}
