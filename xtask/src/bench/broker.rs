//! Brokers: what they are, and one that runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::bench::definitions::Row;
use crate::bench::{Programs, clock, first_line};
use crate::tools;
use crate::workspace::{Workspace, output};

/// What our own broker is called.
pub(crate) const OURS: &str = "avocet";

/// How long a broker may take until it answers a CONNECT.
const START: Duration = Duration::from_secs(30);

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How often a broker is started anew when another program has taken its port.
const ATTEMPTS: usize = 3;

/// A file of peers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    peers: Vec<Peer>,
}

/// A broker that can be measured.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// How it is started.
    pub(crate) command: String,
    /// What it finds in its folder.
    files: BTreeMap<String, String>,
    /// A Debian package with a program of the same name.
    debian: Option<String>,
    /// A crate of crates.io, with `@` and its version.
    #[serde(rename = "crate")]
    package: Option<String>,
    /// A command that says which version it is.
    version: Option<String>,
    skip: Vec<String>,
    /// The options of `avocet bench` that lead to it; the port of loopback without.
    connect: Option<String>,
    /// Figures of ours beyond which a run has failed.
    bounds: BTreeMap<String, f64>,
    /// Where it listens, if it runs already.
    address: Option<SocketAddr>,
    pid: Option<u32>,
}

impl Peer {
    /// The broker of this checkout.
    pub(crate) fn ours(workspace: &Workspace, is_built: bool) -> Result<Self> {
        let commit = output(&mut workspace.line("git describe --always --dirty"))?;
        let before = if is_built { "built before " } else { "" };
        Ok(Self {
            name: OURS.into(),
            command: "{broker} --listen 127.0.0.1:{port} --log warn".into(),
            version: Some(format!("echo {before}{}", commit.trim())),
            ..Self::default()
        })
    }

    pub(crate) fn read(file: &Path) -> Result<Vec<Self>> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let Peers { peers } = toml::from_str(&text).with_context(|| file.display().to_string())?;
        for peer in &peers {
            let runs = peer.address.is_some() && peer.pid.is_some();
            ensure!(
                runs == peer.command.is_empty() && !peer.name.is_empty(),
                "{}: {:?} needs a name, and either a command or an address and a pid",
                file.display(),
                peer.name
            );
        }
        Ok(peers)
    }

    /// Whether it is the broker of this checkout.
    pub(crate) fn is_ours(&self) -> bool {
        self.command.starts_with("{broker}")
    }

    /// Which of these figures are beyond so many times their bounds, and what they are.
    pub(crate) fn exceeded(&self, figures: &BTreeMap<String, f64>, times: f64) -> Option<String> {
        let beyond = self.bounds.iter().filter_map(|(name, bound)| {
            let (value, bound) = (figures.get(name)?, bound * times);
            (*value > bound).then(|| format!("{name} is {value:.0}, and may be {bound:.0}"))
        });
        let beyond: Vec<_> = beyond.collect();
        (!beyond.is_empty()).then(|| beyond.join("; "))
    }

    /// Sees to it that it can be started.
    pub(crate) fn install(&self, workspace: &Workspace, programs: &Programs) -> Result<()> {
        if let Some(package) = &self.debian {
            tools::install_debian(workspace, package, package)?;
        }
        if let Some(package) = &self.package {
            tools::install_peer(workspace, package)?;
        }
        let program = self.command.split_whitespace().next().unwrap_or_default();
        let program = program.replace("{broker}", &programs.broker.to_string_lossy());
        ensure!(
            program.is_empty() || tools::find(workspace, &program).is_some(),
            "there is no program {program}"
        );
        Ok(())
    }

    pub(crate) fn version(&self, workspace: &Workspace) -> Result<String> {
        match (&self.version, &self.package) {
            (Some(command), _) => first_line(workspace, command),
            (None, Some(package)) => Ok(package.replace('@', " ")),
            (None, None) => Ok(String::new()),
        }
    }

    /// The durability that it is told, if it is a broker of ours: by its command, or else by a file.
    fn durability(&self) -> Option<String> {
        let words = self
            .command
            .split(|it: char| !it.is_alphanumeric() && it != '_');
        let mut words = words.filter(|word| !word.is_empty());
        if words.any(|word| word == "durability") {
            return words.next().map(str::to_owned);
        }
        let mut files = self.files.values();
        // Those of a listener or of topics lie in tables of their own.
        files.find_map(|text| {
            let settings: toml::Table = toml::from_str(text).ok()?;
            Some(settings.get("durability")?.as_str()?.to_owned())
        })
    }

    /// Whether it is measured in this row.
    pub(crate) fn does(&self, row: &Row) -> bool {
        !self.skip.contains(&row.name)
    }
}

/// How a broker of ours runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Threads that share its clients.
    pub(crate) shards: usize,
    /// What its acknowledgements say.
    pub(crate) durability: String,
}

impl Shape {
    /// From the names of its threads, and the durability that it is told; none if no thread is a shard, for
    /// then it is another broker.
    fn new<'a>(threads: impl Iterator<Item = &'a str>, durability: Option<&str>) -> Option<Self> {
        let (mut shards, mut has_store) = (0, false);
        for name in threads {
            shards += usize::from(name.starts_with("shard-"));
            has_store |= name == "store";
        }
        // Without a store everything is in memory, whatever level is asked for.
        let durability = match durability {
            _ if !has_store => "memory",
            Some(durability) => durability,
            None => "fsync",
        };
        (shards > 0).then(|| Self {
            shards,
            durability: durability.into(),
        })
    }
}

/// A broker that runs, and is ended when this is dropped if it was started here.
pub(crate) struct Running {
    /// For MQTT 3.1.1, and for MQTT 5.0.
    pub(crate) ports: (u16, u16),
    pub(crate) pid: u32,
    /// The options that lead to it, if they are others than the port.
    pub(crate) connect: Option<String>,
    /// What it is told.
    durability: Option<String>,
    child: Option<Child>,
}

impl Running {
    /// Starts it in an empty folder and waits until it answers.
    pub(crate) fn start(
        workspace: &Workspace,
        peer: &Peer,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Self> {
        if let (Some(address), Some(pid)) = (peer.address, peer.pid) {
            let ports = (address.port(), address.port());
            return Ok(Self {
                ports,
                pid,
                connect: peer.connect.clone(),
                durability: None,
                child: None,
            });
        }
        let mut attempt = 1;
        loop {
            match Self::start_once(workspace, peer, programs, folder) {
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
                started => return started,
            }
        }
    }

    fn start_once(
        workspace: &Workspace,
        peer: &Peer,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Self> {
        let data = folder.join("data");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(&data)?;
        let (port, port5, door) = (unused_port()?, unused_port()?, unused_port()?);
        let certificates = folder.join("certificates");
        let names_certificates = peer.files.values().any(|it| it.contains("{certificates}"));
        if names_certificates && !certificates.exists() {
            let mut make = workspace.program(&programs.bench);
            let arguments = ["--server", "127.0.0.1"];
            output(make.arg("certificates").arg(&certificates).args(arguments))?;
        }
        let fill = |text: &str| {
            text.replace("{port}", &port.to_string())
                .replace("{port5}", &port5.to_string())
                .replace("{door}", &door.to_string())
                .replace("{certificates}", &certificates.to_string_lossy())
                .replace("{data}", &data.to_string_lossy())
                .replace("{broker}", &programs.broker.to_string_lossy())
        };
        for (name, text) in &peer.files {
            fs::write(data.join(name), fill(text))?;
        }
        let mut words = peer.command.split_whitespace().map(fill);
        let program = words.next().unwrap_or_default();
        let program = tools::find(workspace, &program)
            .with_context(|| format!("there is no program {program}"))?;
        let log = folder.join("log");
        let mut command = workspace.program(program);
        let child = command
            .args(words)
            .current_dir(&data)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", peer.command))?;
        let has_port5 = peer.command.contains("{port5}")
            || peer.files.values().any(|text| text.contains("{port5}"));
        let mut running = Self {
            ports: (port, if has_port5 { port5 } else { port }),
            pid: child.id(),
            connect: peer.connect.as_deref().map(fill),
            durability: peer.durability(),
            child: Some(child),
        };
        running
            .wait_until_ready()
            .with_context(|| format!("see {}", log.display()))?;
        Ok(running)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let until = clock::now() + START;
        while !answers(self.ports.0) {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended at once, with {status}");
            }
            if clock::now() >= until {
                bail!("it does not answer a CONNECT within {START:?}");
            }
            clock::doze(LOOK);
        }
        Ok(())
    }

    /// How it runs, if it is a broker of ours and the system (Linux) tells the names of its threads.
    pub(crate) fn shape(&self) -> Option<Shape> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
        let names = threads.filter_map(|it| fs::read_to_string(it.ok()?.path().join("comm")).ok());
        let names: Vec<_> = names.collect();
        let names = names.iter().map(|name| name.trim_end());
        Shape::new(names, self.durability.as_deref())
    }

    /// Ends it; if it has ended by itself, that is an error.
    pub(crate) fn end(mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("the broker ended, with {status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // What it keeps is not needed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that was free a moment ago.
fn unused_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Whether a CONNECT of MQTT 3.1.1 gets a CONNACK that accepts it.
fn answers(port: u16) -> bool {
    const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe";
    const DISCONNECT: &[u8] = b"\xe0\x00";
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(CONNECT)?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack)?;
        stream.write_all(DISCONNECT)?;
        Ok(connack == [0x20, 2, 0, 0])
    };
    ask().unwrap_or(false)
}

/// Lets brokers that do not ask for it themselves have as many sockets as the system allows.
#[cfg(unix)]
pub(crate) fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    // Without it rows of many clients fail, and say so.
    let _ = setrlimit(Resource::Nofile, all);
}

/// Nothing is known to stand against many sockets here.
#[cfg(not(unix))]
pub(crate) fn allow_files() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_of_this_repository_are_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers.toml");
        let peers = Peer::read(&file).unwrap();
        assert!(peers.iter().any(|peer| peer.name == "mosquitto"));
        let file = file.with_file_name("doors.toml");
        let peers = Peer::read(&file).unwrap();
        assert_eq!(peers.iter().filter(|peer| peer.is_ours()).count(), 5);
    }

    #[test]
    fn how_a_broker_runs_is_told_by_its_threads() {
        let shape = |threads: &str, durability| {
            let shape = Shape::new(threads.split(' '), durability)?;
            Some((shape.shards, shape.durability))
        };
        let memory = Some((2, "memory".to_owned()));
        assert_eq!(shape("avocet-broker shard-0 signals shard-1", None), memory);
        assert_eq!(shape("shard-0 shard-1", Some("fsync")), memory);
        let with_store = |durability| shape("store-sync shard-0 store", durability).unwrap().1;
        assert_eq!(with_store(None), "fsync");
        assert_eq!(with_store(Some("os")), "os");
        assert_eq!(shape("mosquitto", None), None);
    }

    #[test]
    fn a_broker_is_told_its_durability_by_its_command_or_else_by_a_file() {
        let told = |command: &str, file: &str| {
            let peer = Peer {
                command: format!("{{broker}} --listen 127.0.0.1:{{port}} {command}"),
                files: [("avocet.toml".to_owned(), file.to_owned())].into(),
                ..Peer::default()
            };
            peer.durability()
        };
        let file = "data_dir = \"{data}\"\ndurability = \"os\"\n";
        assert_eq!(told("--data-dir {data}", "").as_deref(), None);
        assert_eq!(told("--durability=os", "").as_deref(), Some("os"));
        assert_eq!(told("", file).as_deref(), Some("os"));
        for command in ["--durability memory", "--set durability=memory"] {
            assert_eq!(told(command, file).as_deref(), Some("memory"));
        }
        let of_others = "[topic_durability]\n\"a/\" = \"memory\"\n\n\
                         [[listen]]\naddress = \"127.0.0.1:{port}\"\ndurability = \"os\"\n";
        assert_eq!(told("", of_others), None);
    }

    #[test]
    fn a_figure_beyond_its_bound_is_told() {
        let peer = Peer {
            bounds: [("bytes".to_owned(), 2_048.0)].into(),
            ..Peer::default()
        };
        let told = |bytes, times| peer.exceeded(&[("bytes".to_owned(), bytes)].into(), times);
        assert_eq!(told(2_048.0, 1.0), None);
        let said = told(2_100.0, 1.0).unwrap();
        assert_eq!(said, "bytes is 2100, and may be 2048");
        assert_eq!(told(2_100.0, 1.2), None);
        assert_eq!(peer.exceeded(&BTreeMap::new(), 1.0), None);
    }
}
