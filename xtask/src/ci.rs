//! Runs the steps one after the other, and counts.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::steps::{STEPS, Step};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run these steps only, in the order of `--list`.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// Print the steps and what each of them checks.
    #[arg(long)]
    list: bool,
}

/// What became of one step.
struct Outcome {
    name: &'static str,
    passed: bool,
    took: Duration,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        for step in STEPS {
            println!("{:<11} {}", step.name, step.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&args.only)?;
    let workspace = Workspace::load()?;
    let mut outcomes = Vec::new();
    for step in chosen {
        println!("\n==> {}: {}", step.name, step.about);
        let start = clock();
        let result = (step.run)(&workspace);
        let took = clock() - start;
        match &result {
            Ok(()) => println!("<== {} passed, {}", step.name, minutes(took)),
            Err(error) => println!("<== {} FAILED, {}: {error:#}", step.name, minutes(took)),
        }
        outcomes.push(Outcome {
            name: step.name,
            passed: result.is_ok(),
            took,
        });
    }
    print!("\n{}", summary(&outcomes));
    Ok(if outcomes.iter().all(|outcome| outcome.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The steps called `only`, or all of them; a name that no step has is an error.
fn choose(only: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!(
            "no step is called {unknown:?}; the steps are {}",
            names.join(", ")
        );
    }
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(chosen).collect())
}

/// Minutes per step, and the line that counts them.
fn summary(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for Outcome { name, passed, took } in outcomes {
        let verdict = if *passed { "passed" } else { "FAILED" };
        let _ = writeln!(text, "{name:<11} {verdict}  {:>8}", minutes(*took));
    }
    let total = outcomes.iter().map(|outcome| outcome.took).sum();
    let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
    let failed = outcomes.len() - passed;
    let _ = writeln!(text, "{:<11} {:>16}", "total", minutes(total));
    let _ = writeln!(text, "ci: {passed} passed, {failed} failed");
    text
}

fn minutes(took: Duration) -> String {
    format!("{:.1} min", took.as_secs_f64() / 60.0)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the minutes of each step are part of the report"
)]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[&Step]) -> Vec<&'static str> {
        steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn chooses_every_step_when_none_is_named() {
        assert_eq!(choose(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn keeps_the_order_of_the_list() {
        let only = ["docs".to_owned(), "fmt".to_owned()];
        assert_eq!(names(&choose(&only).unwrap()), ["fmt", "docs"]);
    }

    #[test]
    fn refuses_a_step_that_does_not_exist() {
        let error = choose(&["fmt".to_owned(), "lint".to_owned()])
            .err()
            .unwrap();
        assert!(error.to_string().contains("\"lint\""), "{error}");
    }

    #[test]
    fn ends_with_one_line_that_counts() {
        let outcome = |name, passed| Outcome {
            name,
            passed,
            took: Duration::from_secs(90),
        };
        let text = summary(&[outcome("fmt", true), outcome("docs", false)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "fmt         passed   1.5 min");
        assert_eq!(lines[2], "total                3.0 min");
        assert_eq!(lines[3], "ci: 1 passed, 1 failed");
    }
}
