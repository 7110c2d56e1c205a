//! The checkout the checks run on, and how they run programs in it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};

pub(crate) struct Workspace {
    pub(crate) metadata: Metadata,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .no_deps()
            .exec()
            .context("cargo metadata")?;
        Ok(Self { metadata })
    }

    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    pub(crate) fn target(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// Where this repository installs the cargo tools that the machine lacks.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// Where this repository installs the programs that it measures beside its own.
    pub(crate) fn peers(&self) -> PathBuf {
        self.target().join("peers")
    }

    /// The members that have cargo features, each with their names.
    pub(crate) fn with_features(&self) -> Vec<(&Package, Vec<&str>)> {
        let mut found = Vec::new();
        for package in self.metadata.workspace_packages() {
            let features: Vec<_> = package
                .features
                .keys()
                .map(String::as_str)
                .filter(|name| *name != "default")
                .collect();
            if !features.is_empty() {
                found.push((package, features));
            }
        }
        found
    }

    /// `cargo` with arguments separated by spaces, in the root of the workspace.
    pub(crate) fn cargo(&self, arguments: &str) -> Command {
        self.line(&format!("cargo {arguments}"))
    }

    /// A program and its arguments, separated by spaces, in the root of the workspace.
    pub(crate) fn line(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = self.program(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    /// A program in the root of the workspace, with the tools of this repository in its `PATH`.
    pub(crate) fn program(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(self.root());
        // `cargo xtask` hands its own settings down; a nested cargo has to find out for itself.
        for name in [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        // Checks build once: what cargo keeps for the next change would double the build's space.
        command.env("CARGO_INCREMENTAL", "0");
        let mut path = vec![self.tools().join("bin")];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        if let Ok(path) = env::join_paths(path) {
            command.env("PATH", path);
        }
        command
    }
}

/// Prints a command, runs it, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    println!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs all commands, and fails with the first failure: one run tells of every problem.
pub(crate) fn run_all(commands: impl IntoIterator<Item = Command>) -> Result<()> {
    let mut outcome = Ok(());
    for mut command in commands {
        let result = run(&mut command);
        outcome = outcome.and(result);
    }
    outcome
}

/// Runs a command quietly and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {}: {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

fn command_line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy()),
    );
    words.join(" ")
}
