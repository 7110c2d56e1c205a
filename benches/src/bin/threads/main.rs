//! What a second thread is worth to the engine without sockets: `threads [SECONDS]`.
//!
//! A hundred publishers, each with one subscriber, first all in one shard on one thread, then in two
//! shards on a thread each, where the clients of each other pair are in different shards. A publisher
//! sends 64 messages of 64 bytes at once, as a busy socket brings them, and may have four times as
//! many under way. Printed for each QoS: messages each second, and CPU time of the threads for each
//! message; the second is worth something too where others use the machine.

#![allow(clippy::unwrap_used, reason = "what fails ends the run")]
#![allow(clippy::indexing_slicing, reason = "what fails ends the run")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod shard;

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use avocet_codec::QoS;

use crate::shard::{Shard, Shared};

const PAIRS: usize = 100;

/// What one run came to.
struct Outcome {
    messages_per_second: f64,
    cpu_ns_per_message: f64,
}

fn main() {
    let seconds = env::args().nth(1).map_or(2.0, |it| it.parse().unwrap());
    let duration = Duration::from_secs_f64(seconds);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let one = run(1, qos, duration);
        let two = run(2, qos, duration);
        for (shards, outcome) in [(1, &one), (2, &two)] {
            println!(
                "QoS {qos}, {shards} shard(s): {:.0} messages/s, {:.0} ns of CPU each",
                outcome.messages_per_second, outcome.cpu_ns_per_message
            );
        }
        println!(
            "QoS {qos}: {:.2} times the messages, {:.2} times the CPU for each",
            two.messages_per_second / one.messages_per_second,
            two.cpu_ns_per_message / one.cpu_ns_per_message
        );
    }
}

fn run(shards: u16, qos: QoS, duration: Duration) -> Outcome {
    let shared = Arc::new(Shared::new(shards, PAIRS));
    let shards = Shard::connected(&shared, qos);
    let threads: Vec<_> = shards
        .into_iter()
        .map(|shard| thread::spawn(move || shard.run()))
        .collect();
    thread::sleep(duration / 4);
    let (start, before) = (Instant::now(), shared.delivered());
    let cpu_before = process_cpu();
    thread::sleep(duration);
    let messages = (shared.delivered() - before) as f64;
    let (elapsed, cpu) = (start.elapsed(), process_cpu() - cpu_before);
    shared.stop();
    for thread in threads {
        thread.join().unwrap();
    }
    Outcome {
        messages_per_second: messages / elapsed.as_secs_f64(),
        cpu_ns_per_message: cpu.as_nanos() as f64 / messages,
    }
}

/// CPU time of this process so far.
fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
