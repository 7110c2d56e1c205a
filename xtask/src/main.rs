//! `cargo xtask ci` runs every check of this repository; CI runs the same command.

mod bench;
mod ci;
mod conformance;
mod deb;
mod fuzz;
mod instructions;
mod layers;
mod mutants;
mod package;
mod steps;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The checks of this repository as one command"
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure our broker and others side by side, and write a record.
    Bench(bench::Args),
    /// Run every check, or some of them, and count what passed.
    Ci(ci::Args),
    /// Write docs/conformance.md: the statements of the standards and the tests that check them.
    Conformance(conformance::Args),
    /// Make the Debian package of the broker and its tools.
    Deb(deb::Args),
    /// Run fuzz targets; what they find is left in the folder for build output.
    Fuzz(fuzz::Args),
    /// Count the instructions of hot paths, and compare them with the committed baseline.
    Instructions(instructions::Args),
    /// Judge the tests of session and engine by mutants of their code, drawn by a seed.
    Mutants(mutants::Args),
}

fn main() -> ExitCode {
    let Args { task } = Args::parse();
    let outcome = match task {
        Task::Bench(args) => bench::run_with(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Conformance(args) => conformance::run(&args),
        Task::Deb(args) => deb::run_with(&args).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(args) => fuzz::run_with(&args).map(|()| ExitCode::SUCCESS),
        Task::Instructions(args) => instructions::run_with(&args),
        Task::Mutants(args) => mutants::run_with(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
