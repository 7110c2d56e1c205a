//! Builds and runs the fuzz targets with the installed stable compiler.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::tools;
use crate::workspace::{Workspace, output, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The target to run; all of them without it.
    target: Option<String>,
    /// How long each target runs, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Processes per target; with several, a crash does not end the run.
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Append a row for each target to this file.
    #[arg(long, conflicts_with = "jobs")]
    record: Option<PathBuf>,
    /// Do not look for new inputs: make the committed ones the fewest that reach as much as they
    /// and those that were found.
    #[arg(long, requires = "target")]
    minimize: bool,
    /// Put one bug after the other into the session, and see whether the targets of the two
    /// connections find it, each within the given seconds.
    #[arg(long, conflicts_with_all = ["target", "jobs", "record"])]
    planted: bool,
}

/// The targets that look at sessions, and the planted bugs of `avocet-session` that each can meet: a
/// client has no store, no groups and does not watch over Keep Alive.
const PLANTED: &[(&str, &[&str])] = &[
    ("client_connection", &BOTH),
    ("server_connection", &BOTH),
    (
        "server_connection",
        &["PubrelBeforeStored", "SharedQos2Moves", "KeepAliveTooShort"],
    ),
];

const BOTH: [&str; 8] = [
    "ResentWithAnotherPacketId",
    "FreedAtPubrec",
    "AliasSurvives",
    "ReceiveMaximumOffByOne",
    "DupMissing",
    "DupAtFirst",
    "ExpiryFromDelivery",
    "AckOfDeadConnection",
];

/// What `cargo fuzz` passes too, without the sanitizers, for which it needs a nightly compiler.
const RUSTFLAGS: &str = "-Dwarnings --cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

pub(crate) fn run_with(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    if args.planted {
        return find_planted(&workspace, args.seconds);
    }
    let (built, targets) = match &args.target {
        Some(target) => (build(&workspace, &["--bin", target])?, vec![target.clone()]),
        None => (build(&workspace, &[])?, targets(&workspace)?),
    };
    for target in targets {
        if args.minimize {
            return minimize(&workspace, &built, &target);
        }
        let mut fuzzer = fuzzer(&workspace, &built, &target, args.seconds)?;
        if args.jobs > 1 {
            fuzzer.arg(format!("-fork={}", args.jobs)).args([
                "-ignore_crashes=1",
                "-ignore_ooms=1",
                "-ignore_timeouts=1",
            ]);
        }
        match &args.record {
            Some(path) => record(&workspace, &mut fuzzer, &target, path)?,
            None => run(&mut fuzzer)?,
        }
    }
    Ok(())
}

/// Every committed input, and some more, for five seconds at most.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let built = build(workspace, &[])?;
    for target in targets(workspace)? {
        let mut fuzzer = fuzzer(workspace, &built, &target, 5)?;
        // With a fixed seed and number of inputs, a run does not fail on a change that did not
        // cause it, nor on a faster machine alone.
        let output = fuzzer
            .args(["-seed=1", "-runs=10000", "-reload=0", "-verbosity=0"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{said}\n{target} ended with {}",
            output.status
        );
        let inputs = statistic(&said, "number_of_executed_units");
        println!(
            "{target}: {} inputs",
            inputs.context("libFuzzer prints statistics")?
        );
    }
    Ok(())
}

/// Runs, and appends what came of it as a row of a table.
fn record(workspace: &Workspace, fuzzer: &mut Command, target: &str, path: &Path) -> Result<()> {
    let commit = output(&mut workspace.line("git rev-parse --short HEAD"))?;
    let before = cpu_seconds_of_children();
    let mut child = fuzzer.stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().context("it is piped")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        eprintln!("{line}");
        said.push_str(&line);
        said.push('\n');
    }
    let status = child.wait()?;
    let seconds = cpu_seconds_of_children() - before;
    let coverage = said.lines().rev().find(|line| line.contains(" cov: "));
    let after = |name: &str| {
        let mut words = coverage.unwrap_or_default().split_whitespace();
        words.find(|word| *word == name);
        words.next().unwrap_or("-").to_owned()
    };
    let inputs = after("corp:");
    let (inputs, _) = inputs.split_once('/').unwrap_or((&inputs, ""));
    let row = format!(
        "| {target} | {} | {seconds} | {} | {} | {} | {inputs} | {} |",
        commit.trim(),
        statistic(&said, "number_of_executed_units").unwrap_or("-"),
        after("cov:"),
        after("ft:"),
        if status.success() {
            "nothing"
        } else {
            "a finding"
        },
    );
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    writeln!(file, "{row}")?;
    ensure!(status.success(), "{target} ended with {status}");
    Ok(())
}

/// What libFuzzer counted.
fn statistic<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| {
        line.strip_prefix("stat::")?
            .strip_prefix(name)?
            .strip_prefix(':')
    };
    said.lines().find_map(value).map(str::trim)
}

/// User time of all children that have ended, in seconds; 0 where the system does not say it.
fn cpu_seconds_of_children() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the program, which may hold blanks; a hundred ticks are a second.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().nth(13);
    ticks
        .and_then(|ticks| ticks.parse::<u64>().ok())
        .unwrap_or(0)
        / 100
}

/// Whether each planted bug is found, from the committed inputs alone, and by which check.
fn find_planted(workspace: &Workspace, seconds: u32) -> Result<()> {
    let bins = ["client_connection", "server_connection"];
    let bins = bins.iter().flat_map(|bin| ["--bin", bin]);
    let arguments: Vec<&str> = ["--features", "planted"].into_iter().chain(bins).collect();
    let built = build(workspace, &arguments)?;
    let scratch = folder(workspace).join("planted");
    let mut missed = Vec::new();
    for (target, bugs) in PLANTED {
        for bug in *bugs {
            if scratch.exists() {
                fs::remove_dir_all(&scratch)?;
            }
            fs::create_dir_all(&scratch)?;
            let output = workspace
                .program(built.join(target))
                .env("AVOCET_PLANTED", bug)
                .env("RUST_BACKTRACE", "0")
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-artifact_prefix={}/", scratch.display()))
                .args(["-seed=1", "-timeout=10", "-print_final_stats=1"])
                .args([&scratch, &seeds(workspace, target)])
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            let inputs = statistic(&said, "number_of_executed_units").unwrap_or("-");
            let problem = if output.status.success() {
                missed.push(format!("{bug} by {target}"));
                "not found"
            } else {
                let mut lines = said.lines();
                lines.find(|line| line.contains("panicked at"));
                lines.next().unwrap_or("no panic")
            };
            println!("{target} {bug}: {inputs} inputs, {problem}");
        }
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

/// Edges alone count here, or there would be thousands of inputs.
fn minimize(workspace: &Workspace, built: &Path, target: &str) -> Result<()> {
    let fewest = folder(workspace).join("fewest").join(target);
    if fewest.exists() {
        fs::remove_dir_all(&fewest)?;
    }
    fs::create_dir_all(&fewest)?;
    let seeds = seeds(workspace, target);
    let mut merge = workspace.program(built.join(target));
    merge
        .args(["-set_cover_merge=1", "-use_counters=0", "-max_len=1000"])
        .args([&fewest, &seeds, &found(workspace, target)]);
    run(&mut merge)?;
    fs::remove_dir_all(&seeds)?;
    fs::create_dir_all(&seeds)?;
    for entry in fs::read_dir(&fewest)? {
        let entry = entry?;
        fs::copy(entry.path(), seeds.join(entry.file_name()))?;
    }
    Ok(())
}

/// The names of the targets: the files in `fuzz/targets`.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace.root().join("fuzz/targets"))? {
        let path = entry?.path();
        let stem = path.file_stem().context("a target has a name")?;
        names.push(stem.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Builds all targets, or what the arguments say, and returns the folder they are in.
fn build(workspace: &Workspace, arguments: &[&str]) -> Result<PathBuf> {
    // libFuzzer is C++, compiled from the source that libfuzzer-sys brings.
    tools::install_debian(workspace, "c++", "g++")?;
    let host = output(&mut workspace.line("rustc --print host-tuple"))?;
    let host = host.trim();
    // With `--target`, the flags are for the targets and not for build scripts.
    let mut build = workspace.cargo("build --release --manifest-path fuzz/Cargo.toml --target");
    build
        .arg(host)
        .arg("--target-dir")
        .arg(folder(workspace))
        .args(arguments)
        .env("RUSTFLAGS", RUSTFLAGS);
    run(&mut build)?;
    Ok(folder(workspace).join(host).join("release"))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("fuzz")
}

fn seeds(workspace: &Workspace, target: &str) -> PathBuf {
    workspace.root().join("fuzz/corpus").join(target)
}

fn found(workspace: &Workspace, target: &str) -> PathBuf {
    folder(workspace).join("corpus").join(target)
}

fn fuzzer(workspace: &Workspace, built: &Path, target: &str, seconds: u32) -> Result<Command> {
    let seeds = seeds(workspace, target);
    let is_seeded = fs::read_dir(&seeds).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(is_seeded, "{} has no inputs", seeds.display());
    let found = found(workspace, target);
    let artifacts = folder(workspace).join("artifacts");
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let own = format!("fuzz/{target}.dict");
    let is_own = workspace.root().join(&own).exists();
    let mut fuzzer = workspace.program(built.join(target));
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!(
            "-artifact_prefix={}/{target}-",
            artifacts.display()
        ))
        .arg(format!(
            "-dict={}",
            if is_own { &own } else { "fuzz/mqtt.dict" }
        ))
        .args(["-timeout=10", "-print_final_stats=1"])
        // New inputs go to the first folder, so that a run leaves the committed ones alone.
        .args([found, seeds]);
    Ok(fuzzer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_found_by_name() {
        let said = "Done\nstat::number_of_executed_units: 12\nstat::peak_rss_mb: 3\n";
        assert_eq!(statistic(said, "number_of_executed_units"), Some("12"));
        assert_eq!(statistic(said, "peak_rss"), None);
    }
}
