//! Builds and runs the fuzz targets with the installed stable compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
}

/// What `cargo fuzz` passes too, without the sanitizers, for which it needs a nightly compiler.
const RUSTFLAGS: &str = "-Dwarnings --cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

pub(crate) fn run_with(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let folder = build(&workspace)?;
    let targets = match &args.target {
        Some(target) => vec![target.clone()],
        None => targets(&workspace)?,
    };
    targets
        .iter()
        .try_for_each(|target| run(&mut fuzzer(&workspace, &folder, target, args.seconds)?))
}

/// Ten seconds per target over the committed inputs.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = build(workspace)?;
    for target in targets(workspace)? {
        let mut fuzzer = fuzzer(workspace, &folder, &target, 10)?;
        // Without a fixed seed, a run could fail on a change that did not cause it.
        let output = fuzzer.arg("-seed=1").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{said}\n{target} ended with {}",
            output.status
        );
        let inputs = said
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        println!(
            "{target}: {} inputs",
            inputs.context("libFuzzer prints statistics")?.trim()
        );
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

/// Builds all targets and returns the folder they are in.
fn build(workspace: &Workspace) -> Result<PathBuf> {
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
        .env("RUSTFLAGS", RUSTFLAGS);
    run(&mut build)?;
    Ok(folder(workspace).join(host).join("release"))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("fuzz")
}

fn fuzzer(workspace: &Workspace, built: &Path, target: &str, seconds: u32) -> Result<Command> {
    let seeds = workspace.root().join("fuzz/corpus").join(target);
    let is_seeded = fs::read_dir(&seeds).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(is_seeded, "{} has no inputs", seeds.display());
    let found = folder(workspace).join("corpus").join(target);
    let artifacts = folder(workspace).join("artifacts");
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let mut fuzzer = workspace.program(built.join(target));
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!(
            "-artifact_prefix={}/{target}-",
            artifacts.display()
        ))
        .args([
            "-dict=fuzz/mqtt.dict",
            "-timeout=5",
            "-verbosity=0",
            "-print_final_stats=1",
        ])
        // New inputs go to the first folder, so that a run leaves the committed ones alone.
        .args([found, seeds]);
    Ok(fuzzer)
}
