//! What durable costs a broker, beside what the disk and the log alone do, in turn in one run.
//!
//! - `durable fill DIR SESSIONS SUBSCRIPTIONS RETAINED`: a data directory as a broker would leave it
//! - `durable restore BROKER DIR TIMES`: from the start of a broker until it listens
//! - `durable rate BROKER DIR ROUNDS OUTSTANDING`: QoS 1 at `fsync`, so many outstanding for each of 100 publishers;
//!   and what the machine allows: the same load on a broker that has all in memory
//! - `durable latency BROKER DIR ROUNDS RATE BURST SYNC_BYTES`: PUBACKs at so many messages a second, of which a
//!   publisher sends so many at a time, beside syncs of so many bytes; and what the machine does to both: the same
//!   load on a broker that has all in memory, with such syncs on another thread
//! - `durable compare DIR ROUNDS OUTSTANDING RATE BROKER...`: several brokers in turn, both ways of loading them
#![allow(clippy::unwrap_used, reason = "what fails ends the run")]
#![allow(clippy::indexing_slicing, reason = "what fails ends the run")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod broker;
mod clients;
mod disk;
mod fill;

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{mem, thread};

use anyhow::{Context as _, Result, bail};
use avocet_journal::Journal;
use avocet_store::{LogOptions, LogStore};

use crate::broker::{Broker, Used};
use crate::clients::{Clients, Load};
use crate::disk::{BareFile, Shape, log_alone};

const PAIRS: usize = 100;
const PAYLOAD: usize = 256;
/// Of a message with its topic in the log, about.
const MESSAGE_BYTES: usize = 300;
const TURN: Duration = Duration::from_secs(3);

fn number<T: std::str::FromStr>(args: &mut impl Iterator<Item = String>) -> Result<T> {
    let arg = args.next().context("an argument is missing")?;
    arg.parse()
        .map_err(|_| anyhow::anyhow!("{arg} is not a number"))
}

fn path(args: &mut impl Iterator<Item = String>) -> Result<PathBuf> {
    Ok(args.next().context("a path is missing")?.into())
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("fill") => {
            let dir = path(&mut args)?;
            fill::fill(
                &dir,
                number(&mut args)?,
                number(&mut args)?,
                number(&mut args)?,
            )
        }
        Some("restore") => {
            let (program, dir) = (path(&mut args)?, path(&mut args)?);
            restore(&program, &dir, number(&mut args)?)
        }
        Some("rate") => {
            let (program, dir) = (path(&mut args)?, path(&mut args)?);
            rate(&program, &dir, number(&mut args)?, number(&mut args)?)
        }
        Some("latency") => {
            let (program, dir) = (path(&mut args)?, path(&mut args)?);
            let rounds = number(&mut args)?;
            let load = Load::Open {
                rate: number(&mut args)?,
                burst: number(&mut args)?,
            };
            latency(&program, &dir, rounds, load, number(&mut args)?)
        }
        Some("compare") => {
            let (dir, rounds) = (path(&mut args)?, number(&mut args)?);
            let (window, rate) = (number(&mut args)?, number(&mut args)?);
            compare(&dir, rounds, window, rate, args)
        }
        _ => bail!("durable fill|restore|rate|latency|compare ..."),
    }
}

fn restore(program: &Path, dir: &Path, times: u32) -> Result<()> {
    for _ in 0..times {
        let start = Used::of("self")?.cpu;
        let store = LogStore::open_dir(dir, LogOptions::default())?;
        let log = Used::of("self")?.cpu;
        let journal = Journal::open(store)?;
        let index = Used::of("self")?.cpu;
        let mut values = 0_u64;
        journal.recover(|_| values += 1)?;
        let recovered = Used::of("self")?.cpu;
        drop(journal);
        println!(
            "{values} values; CPU s for the log {:.2}, the journal {:.2}, what it gives back {:.2}",
            log - start,
            index - log,
            recovered - index
        );
        let (broker, took) = Broker::start(program, Some(dir))?;
        let used = broker.used()?;
        println!(
            "{:.2} s until it listens, {:.2} CPU s, RSS {:.0} MiB",
            took.as_secs_f64(),
            used.cpu,
            used.rss_mib
        );
        broker.stop()?;
    }
    Ok(())
}

/// Milliseconds below which this part is.
fn percentile(took: &mut [Duration], part: f64) -> f64 {
    took.sort_unstable();
    let at = ((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1));
    took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

fn mean(took: &[Duration]) -> f64 {
    took.iter().sum::<Duration>().as_secs_f64() / took.len().max(1) as f64
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rate(program: &Path, dir: &Path, rounds: u32, window: usize) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let outstanding = PAIRS * window;
    let mut bare = BareFile::create(&dir.join("bare"))?;
    let (broker, _) = Broker::start(program, Some(&dir.join("data")))?;
    let (in_memory, _) = Broker::start(program, None)?;
    let load = Load::Closed { window };
    let mut clients = Clients::connect(broker.port, PAIRS, PAYLOAD)?;
    let mut control = Clients::connect(in_memory.port, PAIRS, PAYLOAD)?;
    for clients in [&mut clients, &mut control] {
        clients.run(TURN, load)?;
    }
    println!(
        "naive/s  outstanding/sync  log, as many/s  log, 512/s  broker/s  of naive  of the smaller (as many, 512)  \
         CPU us: broker, clients  cores  bytes written  at memory/s"
    );
    let as_many = Shape {
        queues: PAIRS as u64,
        group: outstanding as u64,
        batch: 1,
    };
    let mut ratios = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let naive = 1.0 / mean(&bare.run(TURN, MESSAGE_BYTES)?);
        let syncs = outstanding as f64 / mean(&bare.run(TURN, outstanding * MESSAGE_BYTES)?);
        let log = log_alone(&dir.join("log"), TURN, as_many, PAYLOAD)?;
        let log_512 = log_alone(&dir.join("log"), TURN, Shape::REFERENCE, PAYLOAD)?;
        let before = (broker.used()?, Used::of("self")?, clients.acked);
        let start = Instant::now();
        let rate = clients.run(TURN, load)?;
        let took = start.elapsed().as_secs_f64();
        let acked = (clients.acked - before.2) as f64;
        let used = broker.used()?;
        let cpu = (
            used.cpu - before.0.cpu,
            Used::of("self")?.cpu - before.1.cpu,
        );
        let memory = control.run(TURN, load)?;
        let to = [
            rate / naive,
            rate / syncs.min(log),
            rate / syncs.min(log_512),
            rate / memory,
        ];
        println!(
            "{naive:7.0}  {syncs:16.0}  {log:14.0}  {log_512:10.0}  {rate:8.0}  {:8.1}  {:22.2}, {:4.2}  {:15.2}, {:6.2}  {:5.2}  {:13.0}  {memory:11.0}",
            to[0],
            to[1],
            to[2],
            cpu.0 * 1e6 / acked,
            cpu.1 * 1e6 / acked,
            (cpu.0 + cpu.1) / took,
            (used.written - before.0.written) as f64 / acked
        );
        for (ratios, to) in ratios.iter_mut().zip(to) {
            ratios.push(to);
        }
    }
    let [naive, as_many, reference, memory] = ratios.map(median);
    println!(
        "medians: {naive:.1} of naive, of the smaller {as_many:.2} (as many), {reference:.2} (512), of memory {memory:.2}"
    );
    drop((clients, control));
    in_memory.stop()?;
    broker.stop()
}

fn latency(program: &Path, dir: &Path, rounds: u32, load: Load, bytes: usize) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut bare = BareFile::create(&dir.join("bare"))?;
    let (broker, _) = Broker::start(program, Some(&dir.join("data")))?;
    let (in_memory, _) = Broker::start(program, None)?;
    let mut clients = Clients::connect(broker.port, PAIRS, PAYLOAD)?;
    let mut control = Clients::connect(in_memory.port, PAIRS, PAYLOAD)?;
    for clients in [&mut clients, &mut control] {
        clients.run(TURN, load)?;
        clients.latencies.clear();
    }
    let Load::Open { rate, .. } = load else {
        bail!("latency is measured at a rate");
    };
    // Bare syncs, what waits for them, PUBACKs; syncs beside the load on memory, its PUBACKs.
    let mut all = [const { Vec::new() }; 5];
    let mut ratios = [const { Vec::new() }; 3];
    println!("p99 in ms: bare sync, waits for it, PUBACK: of each; at memory: sync beside, PUBACK");
    for _ in 0..rounds {
        let [alone, waits] = bare.run_for(TURN, bytes, rate)?;
        clients.run(TURN, load)?;
        let beside = thread::scope(|scope| {
            let beside = scope.spawn(|| bare.run(TURN, bytes));
            control.run(TURN, load)?;
            beside.join().unwrap()
        })?;
        let mut round = [
            alone,
            waits,
            mem::take(&mut clients.latencies),
            beside,
            mem::take(&mut control.latencies),
        ];
        let p99 = round.each_mut().map(|took| percentile(took, 0.99));
        let to = [p99[2] / p99[0], p99[2] / p99[1], p99[2] / p99[3]];
        println!(
            "{:.2}  {:.2}  {:.2}: {:.2}, {:.2}; {:.2}  {:.2}",
            p99[0], p99[1], p99[2], to[0], to[1], p99[3], p99[4]
        );
        for (ratios, to) in ratios.iter_mut().zip(to) {
            ratios.push(to);
        }
        for (all, took) in all.iter_mut().zip(&mut round) {
            all.append(took);
        }
    }
    for part in [0.5, 0.9, 0.99, 0.999] {
        let [alone, waits, puback, beside, memory] =
            all.each_mut().map(|took| percentile(took, part));
        println!(
            "p{}: bare sync {alone:.2} ms, waits {waits:.2} ms, PUBACK {puback:.2} ms: {:.2}, {:.2}; at memory: \
             sync beside {beside:.2} ms, PUBACK {memory:.2} ms",
            part * 100.0,
            puback / alone,
            puback / waits
        );
    }
    let [alone, waits, beside] = ratios.map(median);
    println!(
        "medians of the ratios of p99: {alone:.2}, to the waits {waits:.2}, to syncs beside the load {beside:.2}"
    );
    drop((clients, control));
    in_memory.stop()?;
    broker.stop()
}

/// What one of several brokers did.
struct Compared {
    name: String,
    broker: Broker,
    clients: Clients,
    /// Messages a second, and CPU us for each.
    closed: [Vec<f64>; 2],
    open: Vec<f64>,
    latencies: Vec<Duration>,
}

fn compare(
    dir: &Path,
    rounds: u32,
    window: usize,
    rate: f64,
    names: impl Iterator<Item = String>,
) -> Result<()> {
    const TURN: Duration = Duration::from_secs(1);
    let (closed, open) = (Load::Closed { window }, Load::Open { rate, burst: 1 });
    let mut brokers = Vec::new();
    for (at, name) in names.enumerate() {
        let data = dir.join(format!("data-{at}"));
        let (broker, _) = Broker::start(Path::new(&name), Some(&data))?;
        brokers.push((name, broker));
    }
    let mut all = Vec::new();
    for (name, broker) in brokers {
        let mut clients = Clients::connect(broker.port, PAIRS, PAYLOAD)?;
        clients.run(TURN, closed)?;
        let latencies = Vec::new();
        all.push(Compared {
            name,
            broker,
            clients,
            closed: Default::default(),
            open: Vec::new(),
            latencies,
        });
    }
    for _ in 0..rounds {
        for one in &mut all {
            let mut measure = |load| {
                let (before, acked) = (one.broker.used()?.cpu, one.clients.acked);
                let rate = one.clients.run(TURN, load)?;
                let cpu = (one.broker.used()?.cpu - before) * 1e6;
                anyhow::Ok([rate, cpu / (one.clients.acked - acked) as f64])
            };
            let [rate, cpu] = measure(closed)?;
            one.open.push(measure(open)?[1]);
            one.closed[0].push(rate);
            one.closed[1].push(cpu);
            one.latencies.append(&mut one.clients.latencies);
        }
    }
    println!("medians: messages/s, CPU us; at {rate}/s CPU us, PUBACK ms p50, p90, p99, p99.9");
    for mut one in all {
        let [rate, cpu] = one.closed.map(median);
        let parts = [0.5, 0.9, 0.99, 0.999].map(|part| percentile(&mut one.latencies, part));
        println!(
            "{rate:7.0}  {cpu:6.2};  {:6.2}  {:5.2}  {:5.2}  {:6.2}  {:6.2}  {}",
            median(one.open),
            parts[0],
            parts[1],
            parts[2],
            parts[3],
            one.name
        );
        drop(one.clients);
        one.broker.stop()?;
    }
    Ok(())
}
