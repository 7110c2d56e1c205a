//! Measures the release broker and others side by side with `avocet bench`, and writes a record.

mod broker;
mod clock;
mod definitions;
mod load;
mod record;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use crate::bench::broker::{OURS, Peer, Running};
use crate::bench::definitions::{Definitions, Length, Row};
use crate::bench::load::Load;
use crate::bench::record::{Contestant, Record, Run};
use crate::tools;
use crate::workspace::{Workspace, run};

/// How many times a bound an unoptimized broker may take: more of its code is read into memory with the
/// first clients.
const SLACK: f64 = 1.5;

/// The rows that are measured unless others are asked for.
const BROKERS: &str = "brokers";

/// Builds the broker and `avocet`, starts a fresh broker for each run, and lets brokers take turns:
/// A B C, then B C A. All loads end by themselves.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each row is measured; the record has medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each timed row is measured, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// These rows only; `*` at the end stands for any rest.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// More brokers: a file like benches/peers.toml.
    #[arg(long, value_name = "FILE")]
    peers: Vec<PathBuf>,
    /// Leave this broker out; `avocet` is ours.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    without: Vec<String>,
    /// Leave out all that benches/peers.toml lists.
    #[arg(long)]
    alone: bool,
    /// One round, one second, fewer clients; says whether it works, not how well.
    #[arg(long)]
    quick: bool,
    /// The rows that are measured: a file of benches/definitions.
    #[arg(long, value_name = "NAME", default_value = BROKERS)]
    definitions: String,
    /// What the record is called, behind the date; an older one of this name is replaced. Without it, after
    /// the definitions and the files of --peers, with `-alone`, `-without-NAME` or `-part` if brokers or rows
    /// are left out.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The folder of the record; with --quick it is the one for build output.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The profile that is measured.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Measure what was built before, whatever has changed since.
    #[arg(long)]
    built: bool,
    /// Print the rows and what each of them is about.
    #[arg(long)]
    list: bool,
}

/// Rows about growth that take no longer with an unoptimized broker than others.
const GROWTH: [&str; 9] = [
    "batch-4",
    "payload-1024",
    "fan-out-10",
    "pairs-10",
    "beside-*",
    "connections-1k",
    "subscriptions-1k",
    "retained-1k",
    "queue-100",
];

/// Every row once with our broker alone, in the profile of the tests: so that neither the rows nor
/// this program rot.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut args = Args {
        rounds: 1,
        seconds: 0.2,
        only: Vec::new(),
        peers: Vec::new(),
        without: Vec::new(),
        alone: true,
        quick: true,
        definitions: BROKERS.into(),
        name: Some("check".into()),
        out: None,
        profile: "dev".into(),
        built: false,
        list: false,
    };
    ensure!(
        measure(workspace, &args)?.has_no_failure_of_ours(),
        "a run with our broker failed"
    );
    // Of how the cost grows, a small row of each kind, and all that have something beside them.
    args.definitions = "growth".into();
    args.only = GROWTH.map(str::to_owned).into();
    args.built = true;
    ensure!(
        measure(workspace, &args)?.has_no_failure_of_ours(),
        "a run with our broker, of those about growth, failed"
    );
    // And through every door.
    let file = workspace.root().join("benches/doors.toml");
    let others = Peer::read(&file)?.into_iter().filter(|it| !it.is_ours());
    args.without = others.map(|it| it.name).collect();
    args.without.push(OURS.into());
    args.peers = vec![file];
    args.definitions = "doors".into();
    args.only = ["connections-1k", "pairs-q1"].map(str::to_owned).into();
    ensure!(
        measure(workspace, &args)?.has_no_failure_of_ours(),
        "a run through a door of our broker failed"
    );
    Ok(())
}

pub(crate) fn run_with(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    if args.list {
        let definitions = definitions(&workspace, args)?;
        for row in &definitions.rows {
            println!("{:<20} {}", row.name, row.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let record = measure(&workspace, args)?;
    Ok(if record.has_no_failure_of_ours() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn definitions(workspace: &Workspace, args: &Args) -> Result<Definitions> {
    let file = workspace
        .root()
        .join("benches/definitions")
        .join(&args.definitions)
        .with_extension("toml");
    Definitions::read(&file)?.only(&args.only)
}

fn measure(workspace: &Workspace, args: &Args) -> Result<Record> {
    let Definitions { figures, rows } = definitions(workspace, args)?;
    broker::allow_files();
    let programs = build(workspace, args)?;
    let length = if args.quick {
        Length::quick(args.seconds.min(1.0))
    } else {
        Length::full(args.seconds)
    };
    let rounds = if args.quick { 1 } else { args.rounds };
    let peers = peers(workspace, args, &programs)?;
    ensure!(!peers.is_empty(), "no broker is left to be measured");
    let mut contestants = Vec::new();
    for peer in &peers {
        contestants.push(Contestant {
            name: peer.name.clone(),
            version: peer.version(workspace)?,
            command: peer.command.clone(),
            is_ours: peer.is_ours(),
            shape: None,
        });
    }
    let mut record = Record::new(workspace, contestants, figures, rounds, length.seconds)?;
    let file = record_file(workspace, args, &record.date)?;
    let folder = workspace.target().join("bench");
    let all: usize = rows
        .iter()
        .map(|row| peers.iter().filter(|peer| peer.does(row)).count())
        .sum();
    let (all, mut done) = (all * rounds, 0);
    for (index, row) in rows.into_iter().enumerate() {
        record.add_row(&row, length);
        for round in 0..rounds {
            // Whoever comes first in one round and row comes last in the next.
            let first = (index + round) % peers.len();
            let (last, order) = peers.split_at(first);
            for peer in order.iter().chain(last).filter(|peer| peer.does(&row)) {
                done += 1;
                let load = Load {
                    bench: &programs.bench,
                    folder: &folder,
                    length,
                    slack: if args.profile == "dev" { SLACK } else { 1.0 },
                };
                let run = one_run(workspace, peer, &programs, &row, &load, &mut record)
                    .unwrap_or_else(|error| Run::failed(format!("{error:#}")));
                println!("[{done}/{all}] {} {}: {}", row.name, peer.name, run.line());
                record.add(&peer.name, run);
            }
        }
        // What was measured stays if the rest is cut off.
        record.write(&file)?;
    }
    println!("\n{}", record.markdown());
    println!("written to {}.md and .json", file.display());
    Ok(record)
}

/// What is measured, and with what.
pub(crate) struct Programs {
    broker: PathBuf,
    bench: PathBuf,
}

fn build(workspace: &Workspace, args: &Args) -> Result<Programs> {
    let profile = args.profile.as_str();
    let mut build = workspace.cargo("build --package avocet-broker --package avocet-cli --bins");
    if !args.built {
        run(build.args(["--profile", profile]))?;
    }
    let folder = if profile == "dev" { "debug" } else { profile };
    let folder = workspace.target().join(folder);
    Ok(Programs {
        broker: folder.join("avocet-broker"),
        bench: folder.join("avocet"),
    })
}

/// Our broker, and those that can be had.
fn peers(workspace: &Workspace, args: &Args, programs: &Programs) -> Result<Vec<Peer>> {
    let mut files = args.peers.clone();
    if !args.alone {
        files.insert(0, workspace.root().join("benches/peers.toml"));
    }
    let mut peers = vec![Peer::ours(workspace, args.built)?];
    for file in files {
        peers.extend(Peer::read(&file)?);
    }
    peers.retain(|peer| !args.without.contains(&peer.name));
    let mut found = Vec::new();
    for peer in peers {
        match peer.install(workspace, programs) {
            Ok(()) => found.push(peer),
            Err(error) => println!("leaves {} out: {error:#}", peer.name),
        }
    }
    Ok(found)
}

/// The record's file, without its ending.
fn record_file(workspace: &Workspace, args: &Args, date: &str) -> Result<PathBuf> {
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None if args.quick => workspace.target().join("bench"),
        None => workspace.root().join("benches/record"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(format!("{date}-{}", args.record_name())))
}

impl Args {
    /// What the record is called: no record of other rows, or of other brokers, takes its place.
    fn record_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let mut words = vec![self.definitions.clone()];
        let stems = self.peers.iter().filter_map(|file| file.file_stem());
        let stems = stems.map(|stem| stem.to_string_lossy().into_owned());
        words.extend(stems.filter(|stem| *stem != self.definitions));
        // Other definitions are about our broker alone as a rule.
        if self.alone && words.len() == 1 && self.definitions == BROKERS {
            words.push("alone".into());
        }
        if !self.without.is_empty() {
            let mut without = self.without.clone();
            without.sort_unstable();
            words.push("without".into());
            words.extend(without);
        }
        if !self.only.is_empty() {
            words.push("part".into());
        }
        words.join("-")
    }
}

/// Starts a broker, puts a load on it, and ends it.
fn one_run(
    workspace: &Workspace,
    peer: &Peer,
    programs: &Programs,
    row: &Row,
    load: &Load<'_>,
    record: &mut Record,
) -> Result<Run> {
    let folder = load.folder.join(&peer.name);
    let running = Running::start(workspace, peer, programs, &folder)?;
    let run = load.run(row, &running, record.figures());
    if let Some(shape) = running.shape() {
        record.set_shape(&peer.name, shape);
    }
    running.end()?;
    let mut run = run?;
    if run.failure.is_none() {
        run.failure = peer.exceeded(&run.figures, load.slack);
    }
    Ok(run)
}

/// The first line that a command prints, however it ends: not all that say their version take that
/// for success.
fn first_line(workspace: &Workspace, line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let program = tools::find(workspace, program)
        .with_context(|| format!("there is no program {program}"))?;
    let output = workspace.program(program).args(words).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn name(line: &str) -> String {
        let line = Line::try_parse_from(line.split_whitespace()).unwrap();
        line.args.record_name()
    }

    #[test]
    fn a_record_replaces_none_of_other_rows_or_brokers() {
        for (line, expected) in [
            ("bench", "brokers"),
            ("bench --alone", "brokers-alone"),
            ("bench --only pairs*", "brokers-part"),
            ("bench --alone --definitions growth", "growth"),
            (
                "bench --peers benches/shards.toml --alone",
                "brokers-shards",
            ),
            (
                "bench --definitions doors --peers benches/doors.toml",
                "doors",
            ),
            (
                "bench --peers /a/one.toml --peers two.toml",
                "brokers-one-two",
            ),
            (
                "bench --without rumqttd,mosquitto",
                "brokers-without-mosquitto-rumqttd",
            ),
            (
                "bench --alone --without avocet --peers shards.toml --only idle",
                "brokers-shards-without-avocet-part",
            ),
            ("bench --alone --only idle --name mine", "mine"),
        ] {
            assert_eq!(name(line), expected, "{line}");
        }
    }
}
