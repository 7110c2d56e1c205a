//! What a client costs, beside rumqttc and ntex-mqtt in the same run: CPU time of its process for
//! each message, against a server in another process that does as little as a server can; and the
//! memory of a process with many clients.
//!
//! ```text
//! cargo bench -p avocet-benches --bench client [-- MESSAGES] [NAME]
//! ```
//!
//! All speak 3.1.1 over loopback, on one thread, with payloads of 16 bytes: avocet-client and
//! rumqttc on a current-thread runtime of tokio, ntex-mqtt on its own. `window` is how many messages
//! of QoS 1 are published ahead of their acknowledgement. With NAME, only the cases run in whose
//! name it occurs. As a test of itself (`--test`) each case runs with few messages.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is to fail the run"
)]

mod avocet;
mod ntex;
mod rumqttc;
mod server;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::Command;
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::server::{SERVE, Server};

const TOPIC: &str = "bench/client";
const PAYLOAD: [u8; 16] = [b'x'; 16];
const REPEATS: usize = 5;
const CLIENTS: usize = 1000;
/// What each of many clients has published, at QoS 1, when its memory is measured.
const PUBLISHED: usize = 10;
const FOREVER: Duration = Duration::from_secs(600);
/// The argument with which this program has many clients, and prints its memory.
const MEMORY: &str = "--memory";

/// Its name, what it does with so many messages, and a divisor of that number.
type Case = (&'static str, fn(SocketAddr, usize) -> f64, usize);

/// The name of a client, and what many of them take.
type Crowd = (&'static str, fn(SocketAddr, usize, usize) -> u64);

const CASES: [Case; 15] = [
    ("avocet-client  qos 0", avocet::qos0, 1),
    ("ntex-mqtt      qos 0", ntex::qos0, 1),
    ("rumqttc        qos 0", rumqttc::qos0, 1),
    (
        "avocet-client  qos 1, window 20",
        |to, count| avocet::qos1(to, count, 20),
        2,
    ),
    (
        "ntex-mqtt      qos 1, window 20",
        |to, count| ntex::qos1(to, count, 20),
        2,
    ),
    (
        "rumqttc        qos 1, window 20",
        |to, count| rumqttc::qos1(to, count, 20),
        2,
    ),
    (
        "avocet-client  qos 1, window 100",
        |to, count| avocet::qos1(to, count, 100),
        2,
    ),
    (
        "ntex-mqtt      qos 1, window 100",
        |to, count| ntex::qos1(to, count, 100),
        2,
    ),
    (
        "rumqttc        qos 1, window 100",
        |to, count| rumqttc::qos1(to, count, 100),
        2,
    ),
    (
        "avocet-client  qos 1, window 1000",
        |to, count| avocet::qos1(to, count, 1000),
        2,
    ),
    (
        "ntex-mqtt      qos 1, window 1000",
        |to, count| ntex::qos1(to, count, 1000),
        2,
    ),
    (
        "rumqttc        qos 1, window 1000",
        |to, count| rumqttc::qos1(to, count, 1000),
        2,
    ),
    ("avocet-client  receive qos 0", avocet::receive, 1),
    ("ntex-mqtt      receive qos 0", ntex::receive, 1),
    ("rumqttc        receive qos 0", rumqttc::receive, 1),
];

const CROWDS: [Crowd; 3] = [
    ("avocet-client", avocet::memory),
    ("ntex-mqtt", ntex::memory),
    ("rumqttc", rumqttc::memory),
];

/// CPU time of this process, in nanoseconds.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Memory of this process that is resident.
fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [SERVE, sends] => return server::serve(sends.parse().unwrap()),
        [MEMORY, name, address, clients] => {
            let crowd = CROWDS.iter().find(|it| it.0 == name).unwrap();
            let before = rss_bytes();
            let after = crowd.1(
                address.parse().unwrap(),
                clients.parse().unwrap(),
                PUBLISHED,
            );
            println!("{before} {after}");
            return;
        }
        _ => {}
    }
    let is_test = arguments.iter().any(|it| it == "--test");
    let given = arguments.iter().find_map(|it| it.parse().ok());
    let name = arguments
        .iter()
        .find(|it| !it.starts_with("--") && it.parse::<usize>().is_err());
    let is_asked = |case: &str| name.is_none_or(|name| case.contains(name.as_str()));
    let messages = given.unwrap_or(if is_test { 1000 } else { 300_000 });
    let repeats = if is_test { 1 } else { REPEATS };
    let cases: Vec<&Case> = CASES.iter().filter(|it| is_asked(it.0)).collect();
    let mut results = vec![Vec::new(); cases.len()];
    // Interleaved, so that what else the machine does meets all alike.
    for _ in 0..repeats {
        for ((name, run, less), results) in cases.iter().zip(&mut results) {
            let count = messages / less;
            let server = Server::start(if name.contains("receive") { count } else { 0 });
            results.push(run(server.address, count) / count as f64);
        }
    }
    println!("CPU ns per message of the client's process: median, lowest, highest of {repeats}");
    for ((name, _, _), mut results) in cases.iter().zip(results) {
        results.sort_by(f64::total_cmp);
        let median = results.get(results.len() / 2).copied().unwrap_or_default();
        let lowest = results.first().copied().unwrap_or_default();
        let highest = results.last().copied().unwrap_or_default();
        println!("{name:36} {median:7.0} {lowest:7.0} {highest:7.0}");
    }
    if is_asked("memory") {
        memory(if is_test { 10 } else { CLIENTS });
    }
}

/// Each kind of client in a process of its own.
fn memory(clients: usize) {
    println!(
        "\nKiB resident, before and with {clients} clients that published {PUBLISHED} messages each;\nbytes per client"
    );
    for (name, _) in CROWDS {
        let server = Server::start(0);
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                MEMORY,
                name,
                &server.address.to_string(),
                &clients.to_string(),
            ])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let (before, after) = printed.trim().split_once(' ').unwrap();
        let (before, after): (u64, u64) = (before.parse().unwrap(), after.parse().unwrap());
        let each = (after - before) / clients as u64;
        println!("{name:36} {:7} {:7} {each:7}", before / 1024, after / 1024);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// Lets other tasks have their turn, on any runtime.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
