//! What durable costs a broker, beside what the disk and the log alone do, in turn in one run.
//!
//! - `durable fill DIR SESSIONS SUBSCRIPTIONS RETAINED`: a data directory as a broker would leave it
//! - `durable restore BROKER DIR TIMES`: from the start of a broker until it listens
//! - `durable rate BROKER DIR ROUNDS OUTSTANDING`: QoS 1 at `fsync`, so many outstanding for each of 100 publishers
//! - `durable latency BROKER DIR ROUNDS RATE BURST SYNC_BYTES`: PUBACKs at so many messages a second, of which a
//!   publisher sends so many at a time, beside syncs of so many bytes
#![allow(clippy::unwrap_used, reason = "what fails ends the run")]
#![allow(clippy::indexing_slicing, reason = "what fails ends the run")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod broker;
mod clients;
mod disk;
mod fill;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use avocet_journal::Journal;
use avocet_store::{LogOptions, LogStore};

use crate::broker::{Broker, Used};
use crate::clients::{Clients, Load};
use crate::disk::BareFile;

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
        _ => bail!("durable fill|restore|rate|latency ..."),
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
        let (broker, took) = Broker::start(program, dir)?;
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

fn rate(program: &Path, dir: &Path, rounds: u32, window: usize) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let outstanding = PAIRS * window;
    let mut bare = BareFile::create(&dir.join("bare"))?;
    let (broker, _) = Broker::start(program, &dir.join("data"))?;
    let mut clients = Clients::connect(broker.port, PAIRS, PAYLOAD)?;
    clients.run(TURN, Load::Closed { window })?;
    println!(
        "naive/s  outstanding/sync  log alone/s  broker/s  of naive  of the smaller  CPU us  bytes written"
    );
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let naive = 1.0 / mean(&bare.run(TURN, MESSAGE_BYTES)?);
        let sync = mean(&bare.run(TURN, outstanding * MESSAGE_BYTES)?);
        let log_dir = dir.join("log");
        let log = disk::log_alone(&log_dir, TURN, outstanding as u64, PAYLOAD)?;
        std::fs::remove_dir_all(&log_dir)?;
        let (before, acked) = (broker.used()?, clients.acked);
        let rate = clients.run(TURN, Load::Closed { window })?;
        let (after, acked) = (broker.used()?, (clients.acked - acked) as f64);
        let syncs = outstanding as f64 / sync;
        let ratio = (rate / naive, rate / syncs.min(log));
        println!(
            "{naive:7.0}  {syncs:16.0}  {log:11.0}  {rate:8.0}  {:8.1}  {:14.2}  {:6.2}  {:13.0}",
            ratio.0,
            ratio.1,
            (after.cpu - before.cpu) * 1e6 / acked,
            (after.written - before.written) as f64 / acked
        );
        ratios.push(ratio);
    }
    ratios.sort_by(|a, b| a.1.total_cmp(&b.1));
    println!(
        "median of the last ratio: {:.2}",
        ratios[ratios.len() / 2].1
    );
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("median to naive: {:.1}", ratios[ratios.len() / 2].0);
    drop(clients);
    broker.stop()
}

fn latency(program: &Path, dir: &Path, rounds: u32, load: Load, bytes: usize) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut bare = BareFile::create(&dir.join("bare"))?;
    let (broker, _) = Broker::start(program, &dir.join("data"))?;
    let mut clients = Clients::connect(broker.port, PAIRS, PAYLOAD)?;
    clients.run(TURN, load)?;
    clients.latencies.clear();
    let mut syncs = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let mut one = bare.run(TURN, bytes)?;
        let seen = clients.latencies.len();
        clients.run(TURN, load)?;
        let mut pubacks = clients.latencies[seen..].to_vec();
        let (sync, puback) = (percentile(&mut one, 0.99), percentile(&mut pubacks, 0.99));
        println!(
            "bare sync p99 {sync:.2} ms, PUBACK p99 {puback:.2} ms: {:.2}",
            puback / sync
        );
        ratios.push(puback / sync);
        syncs.append(&mut one);
    }
    ratios.sort_by(f64::total_cmp);
    let pubacks = &mut clients.latencies;
    for part in [0.5, 0.9, 0.99, 0.999] {
        let (sync, puback) = (percentile(&mut syncs, part), percentile(pubacks, part));
        println!(
            "p{}: bare sync {sync:.2} ms, PUBACK {puback:.2} ms: {:.2}",
            part * 100.0,
            puback / sync
        );
    }
    println!(
        "median of the ratios of p99: {:.2}",
        ratios[ratios.len() / 2]
    );
    drop(clients);
    broker.stop()
}
