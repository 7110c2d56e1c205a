//! Runs seeds, and says which ones fail.

use std::process::ExitCode;

use clap::Parser;

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
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let outcome = avocet_sim::run(seed, true);
        for line in &outcome.history {
            println!("{line}");
        }
        println!(
            "seed {seed}: {} events, digest {:016x}",
            outcome.events, outcome.digest
        );
        return match outcome.failure {
            None => ExitCode::SUCCESS,
            Some(failure) => {
                println!("FAILED {failure}");
                ExitCode::FAILURE
            }
        };
    }
    let mut failed = 0;
    let mut events = 0;
    for seed in args.from..args.from + args.seeds {
        let outcome = avocet_sim::run(seed, false);
        events += outcome.events;
        if let Some(failure) = outcome.failure {
            failed += 1;
            println!("seed {seed}: {failure}");
            println!("  replay: cargo run -p avocet-sim -- --seed {seed}");
        }
    }
    println!("{} seeds, {events} events, {failed} failed", args.seeds);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
