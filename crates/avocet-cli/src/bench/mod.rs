//! `avocet bench`: load for a server, and what came of it.
//!
//! Threads serve many clients each, by the codec alone: a connection that only publishes or
//! subscribes needs no session. The main thread starts them, samples, prints and judges.

mod alarm;
mod chart;
mod check;
mod client;
mod connect;
mod gathering;
mod histogram;
mod offline;
mod open;
mod phases;
mod plan;
mod publisher;
#[cfg(unix)]
mod quic;
mod reactor;
mod report;
mod retained;
mod socket;
mod subscriber;
mod subscriptions;
mod traffic;
mod usage;
mod worker;

use crate::bench_args::{BenchArgs, Workload};
use crate::exit::Failure;
use crate::signal;

/// Runs a workload and prints its result.
///
/// # Errors
///
/// What kept it from running, or what the server promised and did not keep.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let workload = &args.workload;
    signal::watch().map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
    let run = workload.run();
    let phases = match workload {
        Workload::FanIn { .. }
        | Workload::FanOut { .. }
        | Workload::Pairs { .. }
        | Workload::Shared { .. } => {
            let outcome = traffic::run(workload)?;
            if let Some(path) = workload.chart() {
                outcome.draw(path)?;
            }
            report::write(&outcome.table(), &outcome.json(), run)?;
            return outcome.verdict();
        }
        Workload::Connect(args) => connect::run(args)?,
        Workload::Subscriptions(args) => subscriptions::run(args)?,
        Workload::Retained(args) => retained::run(args)?,
        Workload::Offline(args) => offline::run(workload, args)?,
    };
    report::write(&phases.table(), &phases.json(), run)?;
    phases.verdict()
}
