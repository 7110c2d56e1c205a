//! The steps of `cargo xtask ci`, in order.

use anyhow::{Context as _, Result, bail};

use crate::tools::{self, DENY, NEXTEST};
use crate::workspace::{Workspace, output, run};
use crate::{layers, tidy};

pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Workspace) -> Result<()>,
}

const fn step(name: &'static str, about: &'static str, run: fn(&Workspace) -> Result<()>) -> Step {
    Step { name, about, run }
}

/// The cheap ones first; all that build in the `dev` profile share its artifacts.
#[rustfmt::skip]
pub(crate) const STEPS: &[Step] = &[
    step("fmt",      "the code is formatted", fmt),
    step("layers",   "crates depend on what the table of layers allows", layers::check),
    step("tidy",     "no leftovers, no oversized files, known statement tags", tidy::check),
    step("msrv",     "the installed compiler is as new as `rust-version` asks", msrv),
    step("clippy",   "no warnings, in any target, with and without each feature", clippy),
    step("tests",    "unit and integration tests, with and without features", tests),
    step("doctests", "the examples in the documentation", doctests),
    step("docs",     "the documentation builds without warnings", docs),
    step("deny",     "dependencies have allowed licenses, sources and users", deny),
];

fn fmt(workspace: &Workspace) -> Result<()> {
    run(&mut workspace.cargo("fmt --all --check"))
}

fn msrv(workspace: &Workspace) -> Result<()> {
    let installed = output(&mut workspace.line("rustc --version"))?;
    for package in workspace.metadata.workspace_packages() {
        let wanted = package
            .rust_version
            .as_ref()
            .with_context(|| format!("{} states no `rust-version`", package.name))?;
        let minor = minor_version(&installed).context("the version of rustc")?;
        if minor < (wanted.major, wanted.minor) {
            bail!("{} needs Rust {wanted}, this is {installed}", package.name);
        }
    }
    println!("{}", installed.trim());
    Ok(())
}

/// (1, 95) of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn minor_version(rustc: &str) -> Option<(u64, u64)> {
    let mut numbers = rustc.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let clippy = |what: &str| {
        run(&mut workspace.cargo(&format!("clippy {what} --all-targets -- -D warnings")))
    };
    clippy("--workspace")?;
    // In the workspace as a whole, one crate's choice of features hides what another lacks.
    for (package, features) in workspace.with_features() {
        clippy(&format!("-p {} --no-default-features", package.name))?;
        for feature in features {
            clippy(&format!("-p {} --features {feature}", package.name))?;
        }
    }
    Ok(())
}

fn tests(workspace: &Workspace) -> Result<()> {
    tools::install(workspace, &NEXTEST)?;
    run(&mut workspace.cargo("nextest run --workspace --exclude avocet-tests"))?;
    for (package, _) in workspace.with_features() {
        run(&mut workspace.cargo(&format!("nextest run -p {} --all-features", package.name)))?;
    }
    Ok(())
}

fn doctests(workspace: &Workspace) -> Result<()> {
    run(&mut workspace.cargo("test --doc --workspace"))?;
    for (package, _) in workspace.with_features() {
        run(&mut workspace.cargo(&format!("test --doc -p {} --all-features", package.name)))?;
    }
    Ok(())
}

fn docs(workspace: &Workspace) -> Result<()> {
    let mut doc = workspace.cargo("doc --no-deps --workspace --all-features");
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(workspace: &Workspace) -> Result<()> {
    tools::install(workspace, &DENY)?;
    run(&mut workspace.cargo("deny --locked check bans licenses sources"))
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn reads_the_version_of_rustc() {
        assert_eq!(
            minor_version("rustc 1.95.0 (59807616e 2026-04-14)"),
            Some((1, 95))
        );
        assert_eq!(minor_version("rustc"), None);
    }

    #[test]
    fn step_names_are_unique() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(
                STEPS[..index]
                    .iter()
                    .all(|earlier| earlier.name != step.name),
                "{}",
                step.name
            );
        }
    }
}
