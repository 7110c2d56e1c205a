//! Installs what a step needs and the machine lacks, and says so.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace::{Workspace, run};

/// A cargo subcommand from crates.io.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
};
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
};

/// Where daemons are, which the `PATH` of users often lacks.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Uses the tool in `PATH`, or the one in `target/tools`, or installs it there.
pub(crate) fn install(workspace: &Workspace, tool: &Tool) -> Result<()> {
    let Tool { name, version } = tool;
    if let Some(found) = find(workspace, name) {
        println!("uses {}", found.display());
        return Ok(());
    }
    let root = workspace.tools();
    println!(
        "installs {name} {version} from crates.io into {}",
        root.display()
    );
    // Unoptimized, these tools are fast enough and built in half the time.
    let mut install = workspace.cargo("install --locked --debug --quiet");
    install
        .arg("--root")
        .arg(&root)
        .args(["--version", version, name]);
    run(&mut install).with_context(|| format!("cannot install {name}"))
}

/// Uses the program in `PATH`, or installs the Debian package that has it.
pub(crate) fn install_debian(workspace: &Workspace, program: &str, package: &str) -> Result<()> {
    if find(workspace, program).is_some() {
        return Ok(());
    }
    println!("installs Debian package {package}");
    run(&mut workspace.line("apt-get --option DPkg::Lock::Timeout=300 update --quiet"))?;
    let mut install = workspace.line(
        "apt-get --option DPkg::Lock::Timeout=300 install --yes --quiet --no-install-recommends",
    );
    install
        .arg(package)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install)
        .with_context(|| format!("cannot install {package}; is this Debian, and root?"))
}

/// Installs a program of crates.io, `NAME@VERSION`, that is measured beside ours.
pub(crate) fn install_peer(workspace: &Workspace, package: &str) -> Result<()> {
    let root = workspace.peers();
    let name = package.split('@').next().unwrap_or(package);
    if root.join("bin").join(name).is_file() {
        return Ok(());
    }
    println!("installs {package} from crates.io into {}", root.display());
    // Without its own lock file, which names crates that current compilers refuse.
    let mut install = workspace.cargo("install --quiet --no-default-features");
    install.arg("--root").arg(&root).arg(package);
    run(&mut install).with_context(|| format!("cannot install {package}"))
}

/// The program at this path, or of this name where programs are.
pub(crate) fn find(workspace: &Workspace, program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let ours = [workspace.tools(), workspace.peers()].map(|root| root.join("bin"));
    let folders = env::split_paths(&path)
        .chain(ours)
        .chain(SYSTEM.map(PathBuf::from));
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
