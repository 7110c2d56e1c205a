//! Runs `avocet bench` against a broker, and reads what it found.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::bench::broker::Running;
use crate::bench::clock;
use crate::bench::definitions::{Figure, Length, Row};
use crate::bench::record::Run;

/// How long a load may take, beside the seconds that are measured.
const LIMIT: Duration = Duration::from_secs(300);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What `avocet bench` says when it holds what it has made.
const HELD: &str = "held";

/// How loads are run.
pub(crate) struct Load<'a> {
    /// The program.
    pub(crate) bench: &'a Path,
    /// Where results go.
    pub(crate) folder: &'a Path,
    pub(crate) length: Length,
    /// How many times the bounds of a broker its figures may be.
    pub(crate) slack: f64,
}

impl Load<'_> {
    /// Puts the load of a row on a broker.
    pub(crate) fn run(&self, row: &Row, broker: &Running, figures: &[Figure]) -> Result<Run> {
        let beside = row
            .beside(self.length)
            .map(|line| self.begin_beside(line, broker))
            .transpose()?;
        let (json, log) = (self.folder.join("result.json"), self.folder.join("said"));
        if json.exists() {
            fs::remove_file(&json)?;
        }
        let mut command = self.command(&row.bench(self.length), broker);
        command
            .arg("--broker-pid")
            .arg(broker.pid.to_string())
            .arg("--json")
            .arg(&json)
            .arg("--quiet")
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let status = Bounded::start(&mut command)?.wait(self.limit())?;
        drop(beside);
        let said = fs::read_to_string(&log).unwrap_or_default();
        // What the broker broke is told, and the result is written all the same.
        let text = fs::read_to_string(&json)
            .with_context(|| format!("avocet bench ended with {status}: {}", said.trim()))?;
        let result: Value = serde_json::from_str(&text)?;
        let failure = (!status.success()).then(|| said.trim().to_owned());
        let wanted = figures.iter().filter(|it| row.figures.contains(&it.name));
        Ok(Run {
            figures: wanted
                .filter_map(|figure| Some((figure.name.clone(), figure.of(&result)?)))
                .collect(),
            lost: result.pointer("/faults/lost").and_then(Value::as_u64),
            other_cores: result.get("other_cores").and_then(Value::as_f64),
            failure,
        })
    }

    fn command(&self, line: &str, broker: &Running) -> Command {
        let port = if line.contains("-V 5") {
            broker.ports.1
        } else {
            broker.ports.0
        };
        let mut command = Command::new(self.bench);
        command
            .arg("bench")
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        match &broker.connect {
            Some(connect) => command.args(connect.split_whitespace()),
            None => command
                .args(["-h", "127.0.0.1", "-p"])
                .arg(port.to_string()),
        };
        command
    }

    fn limit(&self) -> Duration {
        LIMIT + Duration::from_secs_f64(2.0 * self.length.seconds)
    }

    /// Begins a load that goes on until what this returns is dropped, and waits until it is there.
    fn begin_beside(&self, line: &str, broker: &Running) -> Result<Bounded> {
        let mut command = self.command(line, broker);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut load = Bounded::start(&mut command)?;
        let said = load.0.stderr.take().context("standard error")?;
        let mut lines = BufReader::new(said).lines();
        let mut last = String::from("nothing");
        // It ends by itself, and its output with it.
        while let Some(line) = lines.next().transpose()? {
            if line.starts_with(HELD) {
                // It goes on telling, and must not find that nobody listens.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(load);
            }
            last = line;
        }
        bail!("the load beside it ended before it was {HELD}; the last that it said: {last}")
    }
}

/// A process that is ended when this is dropped.
struct Bounded(Child);

impl Bounded {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().context("cannot start avocet bench")?;
        Ok(Self(child))
    }

    fn wait(mut self, limit: Duration) -> Result<ExitStatus> {
        let until = clock::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if clock::now() >= until {
                bail!("the load did not end within {limit:?}");
            }
            clock::doze(LOOK);
        }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
