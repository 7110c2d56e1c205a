//! Installs the foreign software: Debian packages, PyPI into a virtual environment, npm into a
//! private folder under `target/interop`, a broker of crates.io beside it, and builds the binaries
//! under test.
//!
//! It says what it installs, fails when it cannot, and does nothing when everything is there.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// Where the foreign programs are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Debian's `mosquitto`; its clients are in the search path.
    pub mosquitto: PathBuf,
    /// Debian's `collectd`.
    pub collectd: PathBuf,
    /// The Python of the virtual environment that has paho-mqtt.
    pub python: PathBuf,
    /// The `node_modules` folder that has MQTT.js.
    pub node_modules: PathBuf,
}

/// Something a test needs, and the Debian packages that bring it.
struct Need {
    name: &'static str,
    packages: &'static [&'static str],
    is_there: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        name: "mosquitto",
        packages: &["mosquitto"],
        is_there: || find("mosquitto").is_some(),
    },
    Need {
        name: "mosquitto_pub, mosquitto_sub and mosquitto_rr",
        packages: &["mosquitto-clients"],
        is_there: || {
            ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"]
                .iter()
                .all(|n| find(n).is_some())
        },
    },
    Need {
        name: "collectd with its mqtt plugin",
        // The plugin's library is only suggested by collectd-core.
        packages: &["collectd-core", "libmosquitto1"],
        is_there: || {
            find("collectd").is_some()
                && Command::new("ldd")
                    .arg("/usr/lib/collectd/mqtt.so")
                    .output()
                    .is_ok_and(|o| {
                        o.status.success() && !o.stdout.windows(9).any(|w| w == b"not found")
                    })
        },
    },
    Need {
        name: "python3 with venv and pip",
        packages: &["python3", "python3-venv"],
        is_there: || runs("python3", &["-c", "import venv, ensurepip"]),
    },
    Need {
        name: "node",
        packages: &["nodejs"],
        is_there: || runs("node", &["--version"]),
    },
    Need {
        name: "npm",
        packages: &["npm"],
        is_there: || runs("npm", &["--version"]),
    },
    Need {
        name: "curl",
        packages: &["curl"],
        is_there: || find("curl").is_some(),
    },
    Need {
        name: "chromium",
        packages: &["chromium"],
        is_there: || find("chromium").is_some(),
    },
];

/// Makes sure that everything is installed, once per process and one process at a time.
pub fn provision() -> Result<Tools> {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    if let Some(tools) = TOOLS.get() {
        return Ok(tools.clone());
    }
    let lock = lock()?;
    let tools = once_per_run("provisioned", || {
        install_debian_packages()?;
        install_paho()?;
        install_mqttjs()
    })
    .and_then(|()| tools())?;
    drop(lock);
    Ok(TOOLS.get_or_init(|| tools).clone())
}

/// The `avocet-broker` under test: `AVOCET_BROKER_BIN`, or else built.
pub fn avocet_broker() -> Result<PathBuf> {
    static BROKER: OnceLock<PathBuf> = OnceLock::new();
    binary(
        &BROKER,
        "AVOCET_BROKER_BIN",
        "avocet-broker",
        "avocet-broker",
    )
}

/// The `avocet` command line tool under test: `AVOCET_CLI_BIN`, or else built.
pub fn avocet() -> Result<PathBuf> {
    static CLI: OnceLock<PathBuf> = OnceLock::new();
    binary(&CLI, "AVOCET_CLI_BIN", "avocet-cli", "avocet")
}

/// The folder of `avocet-client`'s examples, built.
pub fn examples() -> Result<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Ok(folder.clone());
    }
    let arguments = ["--package", "avocet-client", "--examples"];
    let folder = cargo_build("examples", &arguments)?.join("examples");
    Ok(FOLDER.get_or_init(|| folder).clone())
}

/// rumqttd: what the search path has, or else the one of crates.io in a folder of its own.
pub fn rumqttd() -> Result<PathBuf> {
    const VERSION: &str = "0.20.0";
    let root = interop_dir().join("rumqttd");
    let installed = root.join("bin/rumqttd");
    if let Some(found) = find("rumqttd") {
        return Ok(found);
    }
    let lock = lock()?;
    if !installed.is_file() {
        eprintln!("interop: installing rumqttd {VERSION} from crates.io");
        // Neither TLS nor WebSocket is needed, and unoptimized it is built in half the time. Its own
        // lock file names a crate that current compilers refuse.
        run(cargo()
            .args(["install", "--quiet", "--debug", "--no-default-features"])
            .arg("--root")
            .arg(&root)
            .args(["--version", VERSION, "rumqttd"]))?;
    }
    drop(lock);
    Ok(installed)
}

/// The Python of a virtual environment that has aioquic.
pub fn aioquic() -> Result<PathBuf> {
    provision()?;
    let lock = lock()?;
    let directory = interop_dir().join("aioquic");
    install_python(&directory, "aioquic")?;
    drop(lock);
    Ok(directory.join("bin/python"))
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// `target/interop`, made if need be.
pub fn interop_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir));
    target.join("interop")
}

fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// A file of this package's `clients` folder.
pub fn client_file(name: &str) -> PathBuf {
    workspace().join("tests/clients").join(name)
}

fn lock() -> Result<File> {
    let directory = interop_dir();
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let file = File::create(directory.join("lock")).context("cannot make the lock file")?;
    file.lock().context("cannot take the provisioning lock")?;
    Ok(file)
}

/// Skips `work` where another process of the same nextest run has done it.
fn once_per_run(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let Ok(run) = env::var("NEXTEST_RUN_ID") else {
        return work();
    };
    let stamp = interop_dir().join(format!("{name}.run"));
    if fs::read_to_string(&stamp).is_ok_and(|last| last == run) {
        return Ok(());
    }
    work()?;
    fs::write(&stamp, run).with_context(|| format!("cannot write {}", stamp.display()))
}

fn tools() -> Result<Tools> {
    Ok(Tools {
        mosquitto: find("mosquitto").context("mosquitto is gone")?,
        collectd: find("collectd").context("collectd is gone")?,
        python: paho_dir().join("bin/python"),
        node_modules: mqttjs_dir().join("node_modules"),
    })
}

fn paho_dir() -> PathBuf {
    interop_dir().join("paho")
}

fn mqttjs_dir() -> PathBuf {
    interop_dir().join("npm")
}

/// Looks in the search path, and where Debian keeps its daemons.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn install_debian_packages() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.name).collect();
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    let (names, list) = (names.join("; "), packages.join(" "));
    ensure!(
        find("apt-get").is_some(),
        "missing for the interop tests: {names}; install what Debian calls {list}"
    );
    let user = Command::new("id")
        .arg("-u")
        .output()
        .context("cannot run id")?;
    ensure!(
        user.stdout.trim_ascii() == b"0",
        "missing for the interop tests: {names}; as root: apt-get install --no-install-recommends {list}"
    );
    eprintln!("interop: missing: {names}; installing the Debian packages {list}");
    let _guard = ServiceGuard::new()?;
    run(apt_get().arg("update"))?;
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages))?;
    for need in missing {
        ensure!(
            (need.is_there)(),
            "{} is not there after installing {list}",
            need.name
        );
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Keeps Debian from starting the services it installs, as long as it lives.
struct ServiceGuard {
    made: bool,
}

impl ServiceGuard {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        // A policy that is there already is the administrator's word.
        if Path::new(Self::POLICY).exists() {
            return Ok(Self { made: false });
        }
        fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(Self::POLICY, PermissionsExt::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", Self::POLICY))?;
        Ok(Self { made: true })
    }
}

impl Drop for ServiceGuard {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(Self::POLICY);
        }
    }
}

fn install_paho() -> Result<()> {
    install_python(&paho_dir(), "paho")
}

/// Makes a virtual environment with what a folder of clients requires.
fn install_python(directory: &Path, clients: &str) -> Result<()> {
    let requirements = client_file(clients).join("requirements.txt");
    installed(directory, &requirements, || {
        eprintln!(
            "interop: installing {} from PyPI",
            fs::read_to_string(&requirements)?.trim()
        );
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(directory))?;
        run(Command::new(directory.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&requirements))
    })
}

fn install_mqttjs() -> Result<()> {
    let lock_file = client_file("mqttjs/package-lock.json");
    let directory = mqttjs_dir();
    installed(&directory, &lock_file, || {
        eprintln!(
            "interop: installing the npm packages of {}",
            lock_file.display()
        );
        fs::create_dir_all(&directory)?;
        for name in ["package.json", "package-lock.json"] {
            fs::copy(client_file("mqttjs").join(name), directory.join(name))?;
        }
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&directory))
    })
}

/// Skips `install` where it succeeded before with the same `pins`.
fn installed(directory: &Path, pins: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = directory.join("installed");
    let wanted = fs::read(pins).with_context(|| format!("cannot read {}", pins.display()))?;
    if fs::read(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    install().with_context(|| format!("cannot install {}", pins.display()))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

fn run(command: &mut Command) -> Result<()> {
    eprintln!("interop: {command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}

fn binary(cell: &OnceLock<PathBuf>, variable: &str, package: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = cell.get() {
        return Ok(path.clone());
    }
    let path = match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => build(package, name)?,
    };
    ensure!(path.is_file(), "{} is not there", path.display());
    Ok(cell.get_or_init(|| path).clone())
}

/// Builds a binary of this workspace.
fn build(package: &str, name: &str) -> Result<PathBuf> {
    let arguments = ["--package", package, "--bin", name];
    Ok(cargo_build(name, &arguments)?.join(name))
}

/// Builds something of this workspace in the profile these tests were built in; the folder of what
/// was built.
fn cargo_build(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let program = env::current_exe().context("where is this program?")?;
    let folder = program.parent().context("this program is in no folder")?;
    // Tests are one folder deeper than programs.
    let folder = match folder.parent() {
        Some(parent) if folder.ends_with("deps") => parent,
        _ => folder,
    };
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => bail!("{} names no profile", folder.display()),
    };
    let lock = lock()?;
    once_per_run(name, || {
        run(cargo()
            .args(["build", "--quiet", "--locked", "--profile", profile])
            .args(arguments)
            .current_dir(workspace()))
    })?;
    drop(lock);
    Ok(folder.to_owned())
}
