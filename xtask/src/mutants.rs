//! Judges tests by changes to the code that they should notice, drawn by a seed.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools::{self, NEXTEST};
use crate::workspace::{Workspace, output, run};

/// Needs `cargo-mutants` and git. A run that was interrupted goes on where it was; to begin anew,
/// remove its folder, which it prints.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What decides which mutants are drawn, and in which order.
    #[arg(long)]
    seed: u64,
    /// How many mutants that compile are judged.
    #[arg(long, default_value_t = 200)]
    count: usize,
}

/// The crates whose mutants are drawn. The tests of the next packages see only what those of the
/// ones before have missed.
const JUDGED: &[(&str, &[&[&str]])] = &[
    (
        "avocet-session",
        &[
            &["avocet-session"],
            &["avocet-engine", "avocet-sim"],
            &["avocet-client"],
        ],
    ),
    (
        "avocet-engine",
        &[&["avocet-engine"], &["avocet-sim"], &["avocet-broker"]],
    ),
];

/// How many mutants one run of cargo-mutants gets: what an interruption may lose.
const PIECE: usize = 8;

pub(crate) fn run_with(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    if output(&mut workspace.cargo("mutants --version")).is_err() {
        bail!("cargo-mutants is missing; install it with: cargo install --locked cargo-mutants");
    }
    tools::install(&workspace, &NEXTEST)?;
    let folder = workspace
        .target()
        .join("mutants")
        .join(args.seed.to_string());
    let bench = Bench::open(&workspace, folder)?;
    let order = shuffled(bench.all.clone(), args.seed);
    let mut verdicts = bench.read()?;
    bench.judge_drawn(&order, args.count, &mut verdicts)?;
    bench.judge_missed(&mut verdicts)?;
    let summary = summary(&verdicts);
    fs::write(bench.folder.join("summary.md"), &summary)?;
    print!("\n{summary}");
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Caught,
    Timeout,
    Unviable,
    Missed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Caught, Self::Timeout, Self::Unviable, Self::Missed];

    /// As cargo-mutants names its files.
    const fn name(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Timeout => "timeout",
            Self::Unviable => "unviable",
            Self::Missed => "missed",
        }
    }
}

/// What became of one mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    outcome: Outcome,
    /// Index into the packages whose tests judge mutants of this crate: the last that did.
    stage: usize,
    /// File, line, column and change.
    mutant: String,
}

impl Verdict {
    fn line(&self) -> String {
        let Self {
            outcome,
            stage,
            mutant,
        } = self;
        format!("{}\t{stage}\t{mutant}\n", outcome.name())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, '\t');
        let outcome = fields.next()?;
        Some(Self {
            outcome: Outcome::ALL.into_iter().find(|it| it.name() == outcome)?,
            stage: fields.next()?.parse().ok()?,
            mutant: fields.next()?.to_owned(),
        })
    }
}

/// A clone of the checkout in which one mutant at a time is made and tested.
struct Bench<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    tree: PathBuf,
    /// Every mutant of the crates, in the order of their names.
    all: Vec<String>,
}

impl<'a> Bench<'a> {
    /// A new bench has the last commit; one that is there keeps its own.
    fn open(workspace: &'a Workspace, folder: PathBuf) -> Result<Self> {
        let tree = folder.join("tree");
        fs::create_dir_all(&folder)?;
        if !tree.is_dir() {
            let mut clone = workspace.line("git clone --quiet --shared .");
            run(clone.arg(&tree))?;
        }
        let mut bench = Self {
            workspace,
            folder,
            tree,
            all: Vec::new(),
        };
        bench.all = bench.list()?;
        let commit = output(&mut bench.in_tree("git rev-parse HEAD"))?;
        println!("commit {}, in {}", commit.trim(), bench.folder.display());
        Ok(bench)
    }

    fn in_tree(&self, line: &str) -> Command {
        let mut command = self.workspace.line(line);
        command.current_dir(&self.tree);
        command
    }

    /// `planted.rs` is left out: no build that is used has it.
    fn list(&self) -> Result<Vec<String>> {
        run(&mut self.in_tree("git checkout --quiet ."))?;
        let mut list =
            self.in_tree("cargo mutants --list --no-config --colors never --exclude planted.rs");
        for (package, _) in JUDGED {
            list.args(["--package", package]);
        }
        let mut all: Vec<_> = output(&mut list)?.lines().map(str::to_owned).collect();
        all.sort_unstable();
        Ok(all)
    }

    fn record(&self) -> PathBuf {
        self.folder.join("verdicts.tsv")
    }

    fn read(&self) -> Result<Vec<Verdict>> {
        let text = fs::read_to_string(self.record()).unwrap_or_default();
        let mut verdicts = Vec::new();
        for line in text.lines() {
            let verdict = Verdict::parse(line).with_context(|| format!("no verdict: {line}"))?;
            settle(&mut verdicts, verdict);
        }
        Ok(verdicts)
    }

    /// Lets each crate's own tests judge mutants in the order drawn, until enough have compiled.
    fn judge_drawn(
        &self,
        order: &[String],
        count: usize,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<()> {
        loop {
            let unviable = verdicts
                .iter()
                .filter(|verdict| verdict.outcome == Outcome::Unviable)
                .count();
            let wanted = order.iter().take(count + unviable);
            let open: Vec<&str> = wanted
                .map(String::as_str)
                .filter(|mutant| verdicts.iter().all(|verdict| verdict.mutant != *mutant))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            self.judge(&open, 0, verdicts)?;
        }
    }

    /// Lets the tests of other packages judge what is missed.
    fn judge_missed(&self, verdicts: &mut Vec<Verdict>) -> Result<()> {
        let stages = JUDGED.iter().map(|(_, stages)| stages.len()).max();
        for stage in 1..stages.unwrap_or(0) {
            let missed = verdicts.clone();
            let missed: Vec<&str> = missed
                .iter()
                .filter(|it| it.outcome == Outcome::Missed && it.stage + 1 == stage)
                .map(|it| it.mutant.as_str())
                .collect();
            self.judge(&missed, stage, verdicts)?;
        }
        Ok(())
    }

    fn judge(&self, mutants: &[&str], stage: usize, verdicts: &mut Vec<Verdict>) -> Result<()> {
        for (package, stages) in JUDGED {
            let Some(tests) = stages.get(stage) else {
                continue;
            };
            let folder = format!("crates/{package}/");
            let mut own: Vec<&str> = mutants
                .iter()
                .copied()
                .filter(|mutant| mutant.starts_with(&folder))
                .collect();
            // Neighbours share what is compiled.
            own.sort_unstable();
            for piece in own.chunks(PIECE) {
                for (outcome, mutant) in self.run_piece(package, tests, piece)? {
                    let verdict = Verdict {
                        outcome,
                        stage,
                        mutant,
                    };
                    let mut record = OpenOptions::new()
                        .create(true)
                        .append(true)
                        .open(self.record())?;
                    record.write_all(verdict.line().as_bytes())?;
                    settle(verdicts, verdict);
                }
            }
        }
        Ok(())
    }

    fn run_piece(
        &self,
        package: &str,
        tests: &[&str],
        piece: &[&str],
    ) -> Result<Vec<(Outcome, String)>> {
        // An interrupted run may have left a mutant.
        run(&mut self.in_tree("git checkout --quiet ."))?;
        let results = self.folder.join("mutants.out");
        if results.is_dir() {
            fs::remove_dir_all(&results)?;
        }
        // To be given exactly these mutants, cargo-mutants has to believe that all others are caught;
        // `--re` does not hold for mutants that delete a field.
        fs::create_dir(&results)?;
        let others = self.all.iter().filter(|it| !piece.contains(&it.as_str()));
        let others: String = others.flat_map(|mutant| [mutant, "\n"]).collect();
        fs::write(results.join("caught.txt"), others)?;
        let mut mutants = self.in_tree(
            "cargo mutants --in-place --iterate --no-config --baseline skip --test-tool nextest \
             --build-timeout 900 --timeout 300 --no-times --colors never --annotations none
             --exclude planted.rs",
        );
        mutants
            .arg("--output")
            .arg(&self.folder)
            .args(["--package", package])
            .args(["--test-package", &tests.join(",")])
            // A little optimization is repaid by the tests of the session, which try everything, but
            // not by those of the engine; and nobody reads a backtrace.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .arg("--cargo-arg=--config=profile.dev.package.avocet-engine.opt-level=0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_TARGET_DIR", self.folder.join("target"));
        // The first test that fails is enough, whatever else still runs.
        mutants.args(["--", "--max-fail", "1:immediate"]);
        println!("{} mutants, tests of {}", piece.len(), tests.join(", "));
        // The exit status tells of missed mutants; the files tell more.
        mutants.status().context("cannot start cargo mutants")?;
        let found = outcomes(&results)?;
        ensure!(
            found.len() == piece.len(),
            "{} of {} mutants were judged; see {}",
            found.len(),
            piece.len(),
            results.display()
        );
        Ok(found)
    }
}

fn outcomes(results: &Path) -> Result<Vec<(Outcome, String)>> {
    let mut found = Vec::new();
    for outcome in Outcome::ALL {
        let file = results.join(format!("{}.txt", outcome.name()));
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        found.extend(text.lines().map(|line| (outcome, line.to_owned())));
    }
    Ok(found)
}

/// A later verdict on a mutant takes the place of an earlier one.
fn settle(verdicts: &mut Vec<Verdict>, verdict: Verdict) {
    let earlier = verdicts
        .iter_mut()
        .find(|earlier| earlier.mutant == verdict.mutant);
    match earlier {
        Some(earlier) => *earlier = verdict,
        None => verdicts.push(verdict),
    }
}

/// The mutants in an order that the seed decides.
fn shuffled(mut mutants: Vec<String>, seed: u64) -> Vec<String> {
    let mut state = seed;
    for last in (1..mutants.len()).rev() {
        // The high half of a product maps a random number to a range; its bias is negligible here.
        let drawn = (u128::from(splitmix64(&mut state)) * (last as u128 + 1)) >> 64;
        mutants.swap(last, drawn as usize);
    }
    mutants
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

fn summary(verdicts: &[Verdict]) -> String {
    let mut text =
        String::from("| crate | outcome | by the tests of | mutants |\n|---|---|---|---|\n");
    let mut missed = String::new();
    for (package, stages) in JUDGED {
        let folder = format!("crates/{package}/");
        let own = || verdicts.iter().filter(|it| it.mutant.starts_with(&folder));
        for outcome in Outcome::ALL {
            for (stage, tests) in stages.iter().enumerate() {
                let count = own()
                    .filter(|it| it.outcome == outcome && it.stage == stage)
                    .count();
                if count > 0 {
                    let (outcome, tests) = (outcome.name(), tests.join(", "));
                    let _ = writeln!(text, "| {package} | {outcome} | {tests} | {count} |");
                }
            }
        }
        for verdict in own().filter(|it| it.outcome == Outcome::Missed) {
            let _ = writeln!(missed, "- {}", verdict.mutant);
        }
    }
    text + "\nMissed:\n\n" + &missed
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn one_seed_is_one_order() {
        let mutants = || (0..100).map(|it| format!("{it}")).collect::<Vec<_>>();
        assert_eq!(shuffled(mutants(), 1), shuffled(mutants(), 1));
        assert_ne!(shuffled(mutants(), 1), shuffled(mutants(), 2));
        let mut sorted = shuffled(mutants(), 1);
        sorted.sort_unstable_by_key(|it| it.parse::<u32>().unwrap());
        assert_eq!(sorted, mutants());
    }

    #[test]
    fn a_verdict_survives_its_line_and_the_last_one_counts() {
        let verdict = |outcome, stage| Verdict {
            outcome,
            stage,
            mutant: "a.rs:1:2: replace + with -".to_owned(),
        };
        let missed = verdict(Outcome::Missed, 0);
        assert_eq!(
            Verdict::parse(missed.line().trim_end()),
            Some(missed.clone())
        );
        assert_eq!(Verdict::parse("caught\tnobody\tx"), None);
        let mut verdicts = vec![missed];
        settle(&mut verdicts, verdict(Outcome::Caught, 1));
        assert_eq!(verdicts, [verdict(Outcome::Caught, 1)]);
    }
}
