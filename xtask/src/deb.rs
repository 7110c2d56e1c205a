//! The Debian package: what is in it, how it is made, and whether it can be installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::tools;
use crate::workspace::{Workspace, output, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the programs without optimizations, as a check of the packaging.
    #[arg(long)]
    dev: bool,
}

/// Where the package's files come from, relative to the workspace.
const PACKAGING: &str = "crates/avocet-broker/packaging";

/// Files as they are: from the workspace, to the package.
const FILES: &[(&str, &str)] = &[
    ("avocet.toml", "etc/avocet/avocet.toml"),
    (
        "avocet-broker.service",
        "usr/lib/systemd/system/avocet-broker.service",
    ),
    (
        "avocet-broker.sysusers",
        "usr/lib/sysusers.d/avocet-broker.conf",
    ),
    (
        "avocet-broker.tmpfiles",
        "usr/lib/tmpfiles.d/avocet-broker.conf",
    ),
    ("debian/copyright", "usr/share/doc/avocet-broker/copyright"),
    (
        "../../../CHANGELOG.md",
        "usr/share/doc/avocet-broker/CHANGELOG.md",
    ),
    (
        "../../../docs/access.md",
        "usr/share/doc/avocet-broker/access.md",
    ),
    (
        "../../../docs/configuration.md",
        "usr/share/doc/avocet-broker/configuration.md",
    ),
    (
        "../../../docs/from-mosquitto.md",
        "usr/share/doc/avocet-broker/from-mosquitto.md",
    ),
    (
        "../../../docs/limits.md",
        "usr/share/doc/avocet-broker/limits.md",
    ),
    (
        "../../../docs/listeners.md",
        "usr/share/doc/avocet-broker/listeners.md",
    ),
    (
        "../../../docs/running.md",
        "usr/share/doc/avocet-broker/running.md",
    ),
    (
        "../../../docs/tenants.md",
        "usr/share/doc/avocet-broker/tenants.md",
    ),
    (
        "../../../docs/config/factory.toml",
        "usr/share/doc/avocet-broker/examples/factory.toml",
    ),
    (
        "../../../docs/config/home.toml",
        "usr/share/doc/avocet-broker/examples/home.toml",
    ),
    (
        "../../../docs/config/public.toml",
        "usr/share/doc/avocet-broker/examples/public.toml",
    ),
    (
        "../../../docs/config/tenants.toml",
        "usr/share/doc/avocet-broker/examples/tenants.toml",
    ),
];

const PROGRAMS: [&str; 2] = ["avocet", "avocet-broker"];

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub(crate) fn run_with(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    for (program, package) in [("dpkg-deb", "dpkg"), ("strip", "binutils")] {
        tools::install_debian(&workspace, program, package)?;
    }
    let profile = if args.dev { "dev" } else { "release" };
    let package = build(&workspace, profile)?;
    println!("{}", package.display());
    Ok(())
}

/// Makes the package of programs without optimizations, installs it into a folder, and removes it.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let find = |program| tools::find(workspace, program);
    let missing: Vec<_> = ["dpkg", "dpkg-deb", "strip"]
        .into_iter()
        .filter(|program| find(program).is_none())
        .collect();
    if !missing.is_empty() {
        println!(
            "NOT RUN: there is no {} here, so no package is made",
            missing.join(" and ")
        );
        return check_container(workspace);
    }
    let package = build(workspace, "dev")?;
    check_contents(workspace, &package)?;
    check_files(workspace)?;
    check_installation(workspace, &package)?;
    check_container(workspace)
}

fn build(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    run(&mut workspace.cargo(&format!(
        "build --locked --profile {profile} -p avocet-broker -p avocet-cli"
    )))?;
    let built = workspace.target().join(match profile {
        "dev" => "debug",
        other => other,
    });
    let tree = staging(workspace);
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let packaging = workspace.root().join(PACKAGING);
    for (from, to) in FILES {
        copy(&packaging.join(from), &tree.join(to), 0o644)?;
    }
    for program in PROGRAMS {
        let to = tree.join("usr/bin").join(program);
        copy(&built.join(program), &to, 0o755)?;
        run(workspace.program("strip").arg(&to))?;
    }
    for script in SCRIPTS {
        let from = packaging.join("debian").join(script);
        copy(&from, &tree.join("DEBIAN").join(script), 0o755)?;
    }
    let conffiles = packaging.join("debian/conffiles");
    copy(&conffiles, &tree.join("DEBIAN/conffiles"), 0o644)?;

    let architecture = output(&mut workspace.line("dpkg --print-architecture"))?;
    // That of the machine that it is built on is new enough for sure.
    let libc = output(&mut workspace.line("dpkg-query --show --showformat ${Version} libc6"))?;
    let version = &workspace
        .metadata
        .workspace_packages()
        .into_iter()
        .find(|package| *package.name == "avocet-broker")
        .context("avocet-broker")?
        .version;
    let architecture = architecture.trim();
    let control = fs::read_to_string(packaging.join("debian/control"))?
        .replace("@VERSION@", &version.to_string())
        .replace("@ARCHITECTURE@", architecture)
        .replace("@LIBC@", libc.trim().split('-').next().unwrap_or_default())
        .replace("@SIZE@", &(size(&tree)? / 1024).to_string());
    write(&tree.join("DEBIAN/control"), &control)?;

    let name = format!("avocet-broker_{version}_{architecture}.deb");
    let package = workspace.target().join("deb").join(name);
    let mut build = workspace.line("dpkg-deb --root-owner-group --build");
    run(build.arg(&tree).arg(&package))?;
    Ok(package)
}

fn staging(workspace: &Workspace) -> PathBuf {
    workspace.target().join("deb/avocet-broker")
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let folder = to.parent().context("a folder")?;
    fs::create_dir_all(folder)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    set_mode(to, mode)
}

fn write(to: &Path, text: &str) -> Result<()> {
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    set_mode(to, 0o644)
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> Result<()> {
    bail!("Debian packages are made on Debian")
}

/// The bytes of all files below a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}

/// Each file is there, with the right mode, and belongs to root.
fn check_contents(workspace: &Workspace, package: &Path) -> Result<()> {
    let listed = output(workspace.line("dpkg-deb --contents").arg(package))?;
    let programs = PROGRAMS.map(|program| (format!("./usr/bin/{program}"), "-rwxr-xr-x root/root"));
    let files = FILES.iter();
    let files = files.map(|(_, to)| (format!("./{to}"), "-rw-r--r-- root/root"));
    for (name, rights) in programs.into_iter().chain(files) {
        let line = listed
            .lines()
            .find(|line| line.ends_with(&format!(" {name}")))
            .with_context(|| format!("{name} is not in the package"))?;
        if !line.starts_with(rights) {
            bail!("{name} should be {rights}: {line}");
        }
    }
    let count = listed.lines().filter(|line| line.starts_with('-')).count();
    let expected = FILES.len() + PROGRAMS.len();
    if count != expected {
        bail!("{count} files are in the package, and not {expected}:\n{listed}");
    }
    println!("{count} files are in the package, as they should be");
    Ok(())
}

/// The unit and the configuration, as far as this machine has what looks at them.
fn check_files(workspace: &Workspace) -> Result<()> {
    let tree = staging(workspace);
    let mut check = workspace.program(tree.join("usr/bin/avocet-broker"));
    run(check
        .args(["check", "--config"])
        .arg(tree.join("etc/avocet/avocet.toml")))?;
    if tools::find(workspace, "systemd-analyze").is_none() {
        println!("NOT RUN: there is no systemd-analyze here, so nobody looks at the unit");
        return Ok(());
    }
    let unit = tree.join("usr/lib/systemd/system/avocet-broker.service");
    let mut security = workspace.line("systemd-analyze security --no-pager --offline=true");
    // In tenths: what is exposed may not grow unseen.
    let security = security.arg("--threshold=18").arg(unit);
    println!("$ systemd-analyze security --offline=true --threshold=18");
    let said = output(security)?;
    println!("{}", said.lines().last().unwrap_or_default());
    Ok(())
}

/// Installs the package into a folder, as `dpkg` does, and removes it again.
fn check_installation(workspace: &Workspace, package: &Path) -> Result<()> {
    let needed = ["systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper"];
    if let Some(program) = needed
        .iter()
        .find(|it| tools::find(workspace, it).is_none())
    {
        println!("NOT RUN: there is no {program} here, so the package is not installed");
        return Ok(());
    }
    if !is_root() {
        println!("NOT RUN: only root can install packages");
        return Ok(());
    }
    let root = workspace.target().join("deb/root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "")?;
    }
    let dpkg = |arguments: &str| {
        let mut dpkg = workspace.program("dpkg");
        dpkg.arg(format!("--root={}", root.display()))
            .arg("--force-script-chrootless")
            .args(arguments.split_whitespace());
        dpkg
    };
    run(dpkg("--force-depends --install").arg(package))?;
    let users = fs::read_to_string(root.join("etc/passwd"))?;
    if !users.contains("avocet:") {
        bail!("the package made no user");
    }
    for (place, mode) in [
        ("etc/avocet", 0o750),
        ("etc/avocet/passwd", 0o640),
        ("etc/avocet/tls", 0o750),
        ("var/lib/avocet", 0o700),
    ] {
        check_mode(&root.join(place), mode)?;
    }
    run(&mut dpkg("--force-depends --purge avocet-broker"))?;
    for place in ["etc/avocet", "var/lib/avocet", "usr/bin/avocet"] {
        if root.join(place).exists() {
            bail!("{place} is left when the package is purged");
        }
    }
    println!("the package was installed, and purged");
    Ok(())
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

#[cfg(unix)]
fn check_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(path).with_context(|| format!("{} is missing", path.display()))?;
    let found = found.permissions().mode() & 0o7777;
    if found != mode {
        bail!("{} has mode {found:o}, not {mode:o}", path.display());
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: u32) -> Result<()> {
    Ok(())
}

/// Builds the container, where something here can.
fn check_container(workspace: &Workspace) -> Result<()> {
    for program in ["buildah", "podman", "docker"] {
        if tools::find(workspace, program).is_none() {
            continue;
        }
        if let Err(error) = output(workspace.program(program).arg("info")) {
            println!("{program} does not work here: {error}");
            continue;
        }
        let mut build = workspace.program(program);
        build
            .args(["build", "--file"])
            .arg(format!("{PACKAGING}/Containerfile"));
        return run(build.args(["--tag", "avocet", "."]));
    }
    println!("NOT RUN: no buildah, podman or docker works here, so no container is built");
    Ok(())
}
