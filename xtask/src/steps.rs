//! The steps of `cargo xtask ci`, in order.

use anyhow::{Context as _, Result, bail};

use crate::tools::{self, DENY, NEXTEST};
use crate::workspace::{Workspace, output, run, run_all};
use crate::{bench, conformance, deb, fuzz, instructions, layers, package, tidy};

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
    step("conformance", "every statement has a test on each side it binds, and docs/conformance.md lists them", conformance::check),
    step("msrv",     "the installed compiler is as new as `rust-version` asks", msrv),
    step("clippy",   "no warnings, in any target, with and without each feature", clippy),
    step("tests",    "unit and integration tests, with and without features", tests),
    step("sim",      "200 seeds of the simulator, and 500 of clients that are killed, keep every invariant", sim),
    step("doctests", "the examples in the documentation", doctests),
    step("docs",     "the documentation builds without warnings", docs),
    step("deny",     "dependencies have allowed licenses, sources and users", deny),
    step("no-std",   "the pure crates, and a publisher for small devices, need no standard library", no_std),
    step("package",  "every published crate can be packaged, and builds from its package", package::check),
    step("deb",      "the Debian package and the container can be made and installed, where tools for it are here", deb::check),
    step("benches",  "every bench runs once, as a test", benches),
    step("callgrind", "hot paths take no more instructions than benches/baseline says", instructions::check),
    step("load",     "every definition of a broker's bench runs for a moment, and nothing is lost", bench::check),
    step("fuzz",     "every fuzz target takes its committed inputs, and some new ones", fuzz::check),
    step("interop",  "other people's clients and brokers understand the built programs", interop),
];

/// The program without the standard library, a workspace of its own.
const NO_STD: &str = "tests/no_std/Cargo.toml";

/// The program for small devices, another one.
const PUBLISH_ONLY: &str = "examples/publish-only/Cargo.toml";

fn fmt(workspace: &Workspace) -> Result<()> {
    let fmt = |manifest| workspace.cargo(&format!("fmt --check --manifest-path {manifest}"));
    run_all([
        workspace.cargo("fmt --all --check"),
        fmt("fuzz/Cargo.toml"),
        fmt(NO_STD),
        fmt(PUBLISH_ONLY),
    ])
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
    let clippy = |what: &str| workspace.cargo(&format!("clippy {what} -- -D warnings"));
    let mut commands = vec![clippy("--workspace --all-targets --keep-going")];
    // In the workspace as a whole, one crate's choice of features hides what another lacks.
    for (package, features) in workspace.with_features() {
        let package = &package.name;
        commands.push(clippy(&format!(
            "-p {package} --all-targets --no-default-features"
        )));
        for feature in features {
            commands.push(clippy(&format!(
                "-p {package} --all-targets --features {feature}"
            )));
        }
    }
    run_all(commands)
}

fn tests(workspace: &Workspace) -> Result<()> {
    tools::install(workspace, &NEXTEST)?;
    let mut commands =
        vec![workspace.cargo("nextest run --no-fail-fast --workspace --exclude avocet-tests")];
    for (package, _) in workspace.with_features() {
        let package = &package.name;
        commands.push(workspace.cargo(&format!(
            "nextest run --no-fail-fast -p {package} --all-features"
        )));
    }
    run_all(commands)
}

fn sim(workspace: &Workspace) -> Result<()> {
    let mut clients = workspace.cargo("test --package avocet-testing --test client seeds::");
    clients.env("AVOCET_CLIENT_SEEDS", "500");
    run_all([
        workspace.cargo("run --package avocet-sim -- --seeds 200 --stats"),
        clients,
    ])
}

fn doctests(workspace: &Workspace) -> Result<()> {
    let mut commands = vec![workspace.cargo("test --doc --workspace")];
    for (package, _) in workspace.with_features() {
        commands.push(workspace.cargo(&format!("test --doc -p {} --all-features", package.name)));
    }
    run_all(commands)
}

fn docs(workspace: &Workspace) -> Result<()> {
    let mut doc = workspace.cargo("doc --no-deps --workspace --all-features");
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(workspace: &Workspace) -> Result<()> {
    tools::install(workspace, &DENY)?;
    run(&mut workspace.cargo("deny --locked check bans licenses sources"))
}

fn no_std(workspace: &Workspace) -> Result<()> {
    let in_no_std = |command: &str, manifest: &str| {
        let mut cargo = workspace.cargo(&format!("{command} --manifest-path {manifest}"));
        cargo
            .arg("--target-dir")
            .arg(workspace.target().join("no-std"));
        cargo
    };
    run_all([
        in_no_std("run", NO_STD),
        in_no_std("test", PUBLISH_ONLY),
        in_no_std("build --release", PUBLISH_ONLY),
    ])
}

fn benches(workspace: &Workspace) -> Result<()> {
    // With `--test`, criterion runs each bench once; `cargo test` builds them as it does the tests.
    run(&mut workspace.cargo("test --workspace --bench * -- --test"))
}

fn interop(workspace: &Workspace) -> Result<()> {
    tools::install(workspace, &NEXTEST)?;
    run(&mut workspace.cargo("run --package avocet-tests"))?;
    run(&mut workspace.cargo("nextest run --no-fail-fast --package avocet-tests"))
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
