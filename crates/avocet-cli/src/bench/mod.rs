//! `avocet bench`: load for a server, and what came of it.
//!
//! Threads serve many clients each, by the codec alone: a connection that only publishes or
//! subscribes needs no session. The main thread starts them, samples, prints and judges.

mod alarm;
mod check;
mod client;
mod histogram;
mod open;
mod plan;
mod publisher;
mod report;
mod subscriber;
mod traffic;
mod usage;
mod worker;

use crate::bench_args::BenchArgs;
use crate::exit::Failure;

/// Runs a workload and prints its result.
///
/// # Errors
///
/// What kept it from running, or what the server promised and did not keep.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let run = args.workload.run();
    let outcome = traffic::run(&args.workload)?;
    report::write(&outcome, run)?;
    outcome.verdict()
}
