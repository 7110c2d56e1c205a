//! Counts the instructions of hot paths with callgrind, and compares them with a committed baseline.
//!
//! A count says the same on a busy machine and a quiet one, which no time does. It is that of the
//! baseline's compiler, and of x86-64 processors with AVX2.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools;
use crate::workspace::{Workspace, output, run};

const BASELINE: &str = "benches/baseline/instructions.txt";

/// The function of `instructions` in whose calls callgrind counts.
const COUNTED: &str = "*instructions*counted*";

/// How far a count may be from the baseline.
const TOLERANCE: f64 = 0.05;

/// Builds benches/src/bin/instructions and counts each piece of its work, per operation.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the counts down as the new baseline.
    #[arg(long)]
    bless: bool,
    /// Only what has this in its name.
    filter: Option<String>,
}

/// Instructions per operation, by name of the work.
type Counts = BTreeMap<String, f64>;

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        println!("the baseline is of x86-64: nothing to compare");
        return Ok(());
    }
    let report = Report::new(&read_baseline(workspace)?, &count(workspace, None)?);
    print!("{}", report.table);
    ensure!(
        report.passed,
        "instructions differ from {BASELINE}; if that is meant, `cargo xtask instructions --bless`"
    );
    Ok(())
}

pub(crate) fn run_with(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let counts = count(&workspace, args.filter.as_deref())?;
    let mut baseline = read_baseline(&workspace).unwrap_or_default();
    if let Some(filter) = &args.filter {
        baseline.retain(|name, _| name.contains(filter));
    }
    let report = Report::new(&baseline, &counts);
    print!("{}", report.table);
    if args.bless {
        ensure!(
            args.filter.is_none(),
            "a baseline is of all work: leave the filter out"
        );
        bless(&workspace, &counts)?;
    } else if !report.passed {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn count(workspace: &Workspace, filter: Option<&str>) -> Result<Counts> {
    tools::install_debian(workspace, "valgrind", "valgrind")?;
    run(&mut workspace.cargo("build --release --package avocet-benches --bin instructions"))?;
    let program = workspace.target().join("release/instructions");
    let folder = workspace.target().join("instructions");
    fs::create_dir_all(&folder)?;
    let listed = output(workspace.program(&program).arg("--list"))?;
    let names: Vec<&str> = listed
        .lines()
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    ensure!(!names.is_empty(), "no work has this in its name");

    // Each processor takes the next name, so that long work does not wait behind other long work.
    let next = Mutex::new(names.iter().enumerate());
    let counts = Mutex::new(Ok(Counts::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().ok().and_then(|mut next| next.next());
                    let Some((index, name)) = taken else { break };
                    let out = folder.join(format!("{index}.callgrind"));
                    let counted = count_one(workspace, &program, name, &out);
                    let Ok(mut counts) = counts.lock() else { break };
                    match (&mut *counts, counted) {
                        (Ok(counts), Ok(count)) => {
                            counts.insert((*name).to_owned(), count);
                        }
                        (Ok(_), Err(error)) => *counts = Err(error),
                        (Err(_), _) => break,
                    }
                }
            });
        }
    });
    counts
        .into_inner()
        .unwrap_or_else(|_| bail!("a thread that counted has panicked"))
}

/// Instructions per operation of one piece of work, in a process of its own.
fn count_one(workspace: &Workspace, program: &Path, name: &str, out: &PathBuf) -> Result<f64> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        // The environment lies on the stack, and moves what lies behind it.
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(workspace.root())
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(name);
    let operations: f64 = output(&mut valgrind)?
        .trim()
        .parse()
        .context("the number of operations")?;
    let profile = fs::read_to_string(out).with_context(|| format!("{}", out.display()))?;
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .context("callgrind has left no total")?;
    let total: f64 = total.trim().parse().context("callgrind's total")?;
    ensure!(total > 0.0, "callgrind has not found {COUNTED}");
    Ok(total / operations)
}

struct Report {
    table: String,
    passed: bool,
}

impl Report {
    fn new(baseline: &Counts, counts: &Counts) -> Self {
        let mut table = format!(
            "{:<44} {:>10} {:>10} {:>8}\n",
            "instructions per operation", "baseline", "counted", "change"
        );
        let (mut worse, mut better, mut unknown) = (0, 0, 0);
        for (name, count) in counts {
            let _ = write!(table, "{name:<44} ");
            let Some(before) = baseline.get(name) else {
                unknown += 1;
                let _ = writeln!(
                    table,
                    "{:>10} {count:>10.1}           not in the baseline",
                    ""
                );
                continue;
            };
            let change = count / before - 1.0;
            let verdict = if change > TOLERANCE {
                worse += 1;
                "  MORE"
            } else if change < -TOLERANCE {
                better += 1;
                "  less"
            } else {
                ""
            };
            let percent = change * 100.0;
            let _ = writeln!(
                table,
                "{before:>10.1} {count:>10.1} {percent:>+7.1}%{verdict}"
            );
        }
        for name in baseline.keys().filter(|name| !counts.contains_key(*name)) {
            unknown += 1;
            let _ = writeln!(table, "{name:<44} is no work, but in the baseline");
        }
        let percent = TOLERANCE * 100.0;
        let _ = writeln!(
            table,
            "{worse} of {} take more than {percent} % more, {better} more than {percent} % less",
            counts.len()
        );
        if better > 0 {
            let _ = writeln!(
                table,
                "renew {BASELINE}, so that what was won is kept: `cargo xtask instructions --bless`"
            );
        }
        Self {
            table,
            passed: worse == 0 && unknown == 0,
        }
    }
}

fn read_baseline(workspace: &Workspace) -> Result<Counts> {
    let text = fs::read_to_string(workspace.root().join(BASELINE)).context(BASELINE)?;
    let rustc = output(&mut workspace.line("rustc --version"))?;
    if !text.contains(rustc.trim()) {
        println!("note: this is {}, the baseline is not", rustc.trim());
    }
    parse(&text)
}

/// Lines of a count and a name; those with `#` are comments.
fn parse(text: &str) -> Result<Counts> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (count, name) = line
                .trim_start()
                .split_once(' ')
                .with_context(|| format!("not a count and a name: {line:?}"))?;
            Ok((name.to_owned(), count.parse().context("a count")?))
        })
        .collect()
}

fn bless(workspace: &Workspace, counts: &Counts) -> Result<()> {
    let rustc = output(&mut workspace.line("rustc --version"))?;
    let mut text = format!(
        "# Instructions per operation, written by `cargo xtask instructions --bless`.\n# {}\n",
        rustc.trim()
    );
    for (name, count) in counts {
        let _ = writeln!(text, "{count:>10.1} {name}");
    }
    let path = workspace.root().join(BASELINE);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text).context(BASELINE)?;
    println!("wrote {BASELINE}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, f64)]) -> Counts {
        let owned = |&(name, count): &(&str, f64)| (name.to_owned(), count);
        counts.iter().map(owned).collect()
    }

    #[test]
    fn a_count_within_the_tolerance_passes() {
        let report = Report::new(&counts(&[("a", 100.0)]), &counts(&[("a", 104.9)]));
        assert!(report.passed, "{}", report.table);
        assert!(!report.table.contains("--bless"), "{}", report.table);
    }

    #[test]
    fn more_instructions_fail_and_say_which() {
        let baseline = counts(&[("a", 100.0), ("b", 100.0)]);
        let report = Report::new(&baseline, &counts(&[("a", 100.0), ("b", 106.0)]));
        assert!(!report.passed);
        let b = report.table.lines().find(|line| line.starts_with("b "));
        assert!(b.unwrap().ends_with("+6.0%  MORE"), "{}", report.table);
    }

    #[test]
    fn fewer_instructions_pass_and_ask_for_a_new_baseline() {
        let report = Report::new(&counts(&[("a", 100.0)]), &counts(&[("a", 90.0)]));
        assert!(report.passed);
        assert!(report.table.contains("--bless"), "{}", report.table);
    }

    #[test]
    fn work_and_baseline_have_the_same_names() {
        assert!(!Report::new(&counts(&[]), &counts(&[("a", 1.0)])).passed);
        assert!(!Report::new(&counts(&[("a", 1.0)]), &counts(&[])).passed);
    }

    #[test]
    fn a_baseline_is_read_as_it_is_written() {
        let text = "# a comment\n     110.5 codec decode puback 5.0\n";
        assert_eq!(
            parse(text).unwrap(),
            counts(&[("codec decode puback 5.0", 110.5)])
        );
    }
}
