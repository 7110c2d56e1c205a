//! Runs seeds, and says which ones fail.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

use avocet_sim::Coverage;
use clap::Parser;

mod record;

#[derive(Parser)]
#[command(about = "Whole MQTT systems in virtual time, by seed")]
struct Args {
    /// Run this many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Begin with this seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone, and print its history.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: leave operations out while it still fails, and print what is left.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Say how often what has happened, and fail if something never has.
    #[arg(long, conflicts_with_all = ["seed", "minutes"])]
    stats: bool,
    /// Run for this long, beginning behind the last seed of `--record`.
    #[arg(long, requires = "record")]
    minutes: Option<u64>,
    /// Plant each bug in turn, and print a row for each: by which invariant and seed it is found.
    #[cfg(feature = "planted")]
    #[arg(long)]
    planted: bool,
    /// Append what was run to this file.
    #[arg(long)]
    record: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "planted")]
    if args.planted {
        return find_planted(args.from, args.seeds);
    }
    let passed = match (args.seed, args.minutes, &args.record) {
        (Some(seed), ..) if args.shrink => shrink(seed),
        (Some(seed), ..) => replay(seed),
        (None, Some(minutes), Some(path)) => match run_for(minutes, path) {
            Ok(passed) => passed,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                false
            }
        },
        (None, ..) => {
            let ran = run_all(args.from, args.seeds);
            ran.failed.is_empty() && (!args.stats || report_coverage(&ran.coverage))
        }
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(feature = "planted")]
fn find_planted(from: u64, seeds: u64) -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    for found in avocet_sim::find_planted(from, seeds) {
        let avocet_sim::Found {
            bug,
            first,
            named,
            by_name,
        } = found;
        let (Some((first, by)), Some(by_name)) = (first, by_name) else {
            println!("| `{bug:?}` | not found in {seeds} seeds: {found:?} | | |");
            exit = ExitCode::FAILURE;
            continue;
        };
        println!("| `{bug:?}` | {named} | {by_name} | {by}, {first} |");
    }
    exit
}

fn replay(seed: u64) -> bool {
    report(&avocet_sim::run(seed, true))
}

fn report(outcome: &avocet_sim::Outcome) -> bool {
    for line in &outcome.history {
        println!("{line}");
    }
    let avocet_sim::Outcome {
        seed,
        events,
        digest,
        failure,
        ..
    } = outcome;
    println!("seed {seed}: {events} events, digest {digest:016x}");
    if let Some(failure) = failure {
        println!("FAILED {failure}");
    }
    failure.is_none()
}

fn shrink(seed: u64) -> bool {
    let Some(shrunk) = avocet_sim::shrink(seed) else {
        println!("seed {seed} does not fail");
        return true;
    };
    let passed = report(&shrunk.outcome);
    println!("{} of {} operations:", shrunk.ops.len(), shrunk.of);
    for op in &shrunk.ops {
        println!("{op}");
    }
    passed
}

/// How often what happened; whether everything has.
fn report_coverage(coverage: &Coverage) -> bool {
    for (kind, count) in coverage.iter() {
        println!("{count:>9}  {kind}");
    }
    coverage.iter().all(|(_, count)| count > 0)
}

/// What came of some seeds.
struct Ran {
    events: u64,
    failed: Vec<u64>,
    coverage: Coverage,
}

fn run_all(from: u64, seeds: u64) -> Ran {
    let mut failed = Vec::new();
    let mut events = 0;
    let mut coverage = Coverage::default();
    for seed in from..from + seeds {
        let outcome = avocet_sim::run(seed, false);
        events += outcome.events;
        coverage.add(&outcome.coverage);
        if let Some(failure) = outcome.failure {
            failed.push(seed);
            println!("seed {seed}: {failure}");
            println!("  replay: cargo run -p avocet-sim -- --seed {seed}");
            println!("  shrink: cargo run -p avocet-sim -- --seed {seed} --shrink");
        }
    }
    println!(
        "seeds {from}..={}: {events} events, {} failed",
        from + seeds - 1,
        failed.len()
    );
    Ran {
        events,
        failed,
        coverage,
    }
}

/// Runs seeds that the record does not have until the time is over.
fn run_for(minutes: u64, path: &Path) -> io::Result<bool> {
    let end = clock() + Duration::from_secs(60 * minutes);
    let mut passed = true;
    while clock() < end {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let from = record::next_seed(&text);
        let ran = run_all(from, record::PAGE);
        record::append(path, from, ran.events, &ran.failed)?;
        passed &= ran.failed.is_empty();
    }
    Ok(passed)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is the operator's time, not that of a run"
)]
fn clock() -> Instant {
    Instant::now()
}
