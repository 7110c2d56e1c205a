//! `avocet`: publish, subscribe, request, decode and measure MQTT from the command line; users and
//! rules of a broker.

mod access_args;
mod acl;
mod args;
mod bench;
mod bench_args;
mod certificates;
mod clock;
mod connect;
mod date;
mod decode;
mod exit;
mod format;
mod output;
mod passwd;
mod property;
mod publish;
mod request;
mod signal;
mod subscribe;
mod transport;
mod url;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::args::{Cli, Command, ConnectionArgs};
use crate::exit::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, and end well; nobody is left to tell otherwise.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let quiet = cli.command.quiet();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message().filter(|_| !quiet) {
                eprintln!("avocet: {message}");
            }
            failure.exit_code()
        }
    }
}

impl Command {
    /// Whether nobody is to be told what went wrong.
    fn quiet(&self) -> bool {
        if let Self::Bench(args) = self {
            return args.workload.run().server.quiet;
        }
        self.connection().is_some_and(|connection| connection.quiet)
    }

    fn connection(&self) -> Option<&ConnectionArgs> {
        match self {
            Self::Pub(args) => Some(&args.connection),
            Self::Sub(args) => Some(&args.connection),
            Self::Request(args) => Some(&args.connection),
            Self::Bench(_)
            | Self::Decode(_)
            | Self::Passwd(_)
            | Self::Acl(_)
            | Self::Certificates(_) => None,
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    if command
        .connection()
        .is_some_and(|connection| connection.debug)
    {
        let filter = Targets::new()
            .with_target("avocet", LevelFilter::DEBUG)
            .with_target("avocet_client", LevelFilter::TRACE);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Pub(args) => publish::run(*args).await,
            Command::Sub(args) => subscribe::run(*args).await,
            Command::Request(args) => request::run(*args).await,
            Command::Bench(args) => bench::run(&args),
            Command::Decode(args) => decode::run(&args),
            Command::Passwd(args) => passwd::run(&args),
            Command::Certificates(args) => certificates::run(&args),
            Command::Acl(args) => acl::run(&args),
        }
    });
    // A blocking read of standard input may never end, and nothing waits for it.
    runtime.shutdown_background();
    outcome
}
