//! Workloads that go through phases: what each did, and what it cost.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::check::Faults;
use crate::bench::histogram::Histogram;
use crate::bench::open::Server;
use crate::bench::plan::Names;
use crate::bench::report::{Progress, SHARES, number, time};
use crate::bench::usage::{self, Moment, Used};
use crate::bench_args::RunArgs;
use crate::clock::{Stopwatch, doze};
use crate::exit::Failure;
use crate::signal;

/// For how long memory must not change until it has come to rest, and how often that is waited for.
const REST: Duration = Duration::from_millis(200);
const RESTS_MAX: usize = 10;

/// What a run found, phase by phase.
#[derive(Debug)]
pub(crate) struct Phases {
    workload: &'static str,
    address: String,
    version: String,
    seed: u64,
    /// The numbers that describe it, with their names.
    settings: Vec<(&'static str, u64)>,
    phases: Vec<Phase>,
    pub(crate) faults: Faults,
    /// The QoS at which messages arrive.
    pub(crate) qos: u8,
    clock: Stopwatch,
    pids: Vec<u32>,
    progress: Progress,
    /// When the current phase began, and what had been used.
    began: (u64, Moment),
    /// When progress was shown, and the count then.
    shown: (u64, u64),
    /// The count of the current phase, as far as is known.
    count: u64,
    /// Whether a phase goes on.
    is_open: bool,
    is_interrupted: bool,
}

/// A part of a run.
#[derive(Debug)]
struct Phase {
    name: &'static str,
    /// What is counted: "connections", "messages".
    what: &'static str,
    count: u64,
    /// In nanoseconds.
    time: u64,
    latency: Histogram,
    used: Used,
    /// Resident memory of the server in bytes, at the end.
    resident: Option<u64>,
    /// What it was before the phase.
    resident_before: Option<u64>,
}

impl Phases {
    /// # Errors
    ///
    /// A process that cannot be read.
    pub(crate) fn new(
        workload: &'static str,
        server: &Server,
        names: Names,
        settings: Vec<(&'static str, u64)>,
        run: &RunArgs,
        clock: Stopwatch,
    ) -> Result<Self, Failure> {
        let progress = Progress::new(run.server.quiet);
        progress.say(&format!(
            "{workload}: {} at MQTT {}, seed {}",
            server.address, server.version, names.seed
        ));
        // A process that cannot be read is told before anything connects.
        usage::resident(&run.broker_pid)?;
        Ok(Self {
            workload,
            address: server.address.to_string(),
            version: server.version.to_string(),
            seed: names.seed,
            settings,
            phases: Vec::new(),
            faults: Faults::default(),
            qos: 0,
            clock,
            pids: run.broker_pid.clone(),
            progress,
            began: (0, Moment::default()),
            shown: (0, 0),
            count: 0,
            is_open: false,
            is_interrupted: false,
        })
    }

    /// A phase begins.
    ///
    /// # Errors
    ///
    /// A process that cannot be read.
    pub(crate) fn begin(&mut self, name: &'static str, what: &'static str) -> Result<(), Failure> {
        let resident = self.resident()?;
        self.phases.push(Phase {
            name,
            what,
            count: 0,
            time: 0,
            latency: Histogram::default(),
            used: Used::default(),
            resident: None,
            resident_before: resident,
        });
        self.progress.say(&format!("{name}:"));
        (self.count, self.is_open) = (0, true);
        let now = self.clock.nanoseconds();
        self.shown = (now, 0);
        self.began = (now, Moment::now(&self.pids)?);
        Ok(())
    }

    /// The phase goes on; each second it is told how far it is.
    ///
    /// # Errors
    ///
    /// That the process was asked to end.
    pub(crate) fn show(&mut self, count: u64) -> Result<(), Failure> {
        if signal::is_interrupted() {
            return Err(Failure::Interrupted);
        }
        self.count = count;
        let now = self.clock.nanoseconds();
        let (at, before) = self.shown;
        if now - at < 1_000_000_000 {
            return Ok(());
        }
        self.shown = (now, count);
        let Some(phase) = self.phases.last() else {
            return Ok(());
        };
        let rate = (count - before.min(count)) as f64 * 1e9 / (now - at) as f64;
        self.progress.say(&format!(
            "{:>6.1} s  {} {} {}, {}/s",
            now.saturating_sub(self.began.0) as f64 / 1e9,
            phase.name,
            number(count),
            phase.what,
            number(rate.round() as u64)
        ));
        Ok(())
    }

    /// The phase ended, at a time that may have been earlier, with so many of what is counted.
    ///
    /// # Errors
    ///
    /// A process that cannot be read.
    pub(crate) fn end(&mut self, at: u64, count: u64, latency: Histogram) -> Result<(), Failure> {
        let (began, before) = &self.began;
        let used = Moment::now(&self.pids)?.since(before);
        let time = at.saturating_sub(*began);
        let resident = self.resident()?;
        self.is_open = false;
        if let Some(phase) = self.phases.last_mut() {
            phase.count = count;
            phase.time = time;
            phase.latency = latency;
            phase.used = used;
            phase.resident = resident;
        }
        Ok(())
    }

    /// Adds a number to those that describe the run.
    pub(crate) fn note(&mut self, name: &'static str, value: u64) {
        self.settings.push((name, value));
    }

    /// The run, as far as it came.
    ///
    /// # Errors
    ///
    /// What ended it, other than being asked to.
    pub(crate) fn finish(mut self, done: Result<(), Failure>) -> Result<Self, Failure> {
        match done {
            Ok(()) => {}
            Err(Failure::Interrupted) => {
                self.is_interrupted = true;
                if self.is_open {
                    self.end(self.clock.nanoseconds(), self.count, Histogram::default())?;
                }
            }
            Err(failure) => return Err(failure),
        }
        Ok(self)
    }

    /// The server's resident memory once it has come to rest: some give back what a phase needed a
    /// moment after it.
    fn resident(&self) -> Result<Option<u64>, Failure> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        let mut last = usage::resident(&self.pids)?;
        for _ in 0..RESTS_MAX {
            doze(REST);
            let resident = usage::resident(&self.pids)?;
            if resident == last {
                break;
            }
            last = resident;
        }
        Ok(Some(last))
    }

    /// The cores that neither the server nor this program used, in the mean of all phases.
    fn other_cores(&self) -> Option<f64> {
        let others: Option<u64> = self.phases.iter().map(|phase| phase.used.other).sum();
        let time: u64 = self.phases.iter().map(|phase| phase.time).sum();
        Some(others? as f64 / time.max(1) as f64)
    }

    /// Whether the server kept what it promised.
    ///
    /// # Errors
    ///
    /// What it did not keep.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        if self.is_interrupted {
            return Err(Failure::Interrupted);
        }
        let broken = self.faults.broken(self.qos);
        if broken.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "messages at QoS {}: {}",
            self.qos,
            broken.join(", ")
        )))
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}  ", self.workload);
        for (name, value) in &self.settings {
            // Writing to a string does not fail.
            let _ = write!(text, "{} {}, ", number(*value), name.replace('_', " "));
        }
        let _ = writeln!(
            text,
            "MQTT {} at {}, seed {}\n",
            self.version, self.address, self.seed
        );
        let _ = writeln!(
            text,
            "{:<14}{:>12}{:>12}{:>14}{:>16}{:>16}{:>14}",
            "", "count", "time", "per second", "server CPU each", "memory each", "own CPU each"
        );
        for phase in &self.phases {
            let optional = |value: Option<String>| value.unwrap_or_else(|| "-".into());
            let each = |cpu: u64| format!("{:.2} us", phase.each(cpu as f64 / 1e3));
            let _ = writeln!(
                text,
                "{:<14}{:>12}{:>12}{:>14}{:>16}{:>16}{:>14}",
                phase.name,
                number(phase.count),
                time(phase.time),
                number(phase.per_second().round() as u64),
                optional(phase.used.server.map(each)),
                optional(phase.bytes_each().map(|bytes| format!("{bytes:.0} bytes"))),
                each(phase.used.own),
            );
        }
        let mut has_heading = false;
        for phase in self.phases.iter().filter(|p| p.latency.total() > 0) {
            if !has_heading {
                has_heading = true;
                let _ = write!(text, "\n{:<14}", "latency");
                for (name, _) in SHARES {
                    let _ = write!(text, "{name:>12}");
                }
                let _ = writeln!(text, "{:>12}", "max");
            }
            let _ = write!(text, "{:<14}", phase.name);
            for (_, share) in SHARES {
                let _ = write!(text, "{:>12}", time(phase.latency.quantile(share)));
            }
            let _ = writeln!(text, "{:>12}", time(phase.latency.max()));
        }
        if self.is_interrupted {
            text.push_str(
                "\ninterrupted: the last phase is not complete, and nothing was checked\n",
            );
            return text;
        }
        let faults = &self.faults;
        let _ = writeln!(
            text,
            "\nlost {}, duplicate {}, out of order {}, corrupt {}",
            number(faults.lost),
            number(faults.duplicates),
            number(faults.out_of_order),
            number(faults.corrupt)
        );
        text
    }

    pub(crate) fn json(&self) -> Value {
        let phases: Vec<_> = self
            .phases
            .iter()
            .map(|phase| {
                json!({
                    "name": phase.name,
                    "what": phase.what,
                    "count": phase.count,
                    "time_s": phase.time as f64 / 1e9,
                    "per_s": phase.per_second(),
                    "latency_us": phase.latency.microseconds(),
                    "server_cpu_us_each": phase.used.server.map(|cpu| phase.each(cpu as f64 / 1e3)),
                    "server_cpu_s": phase.used.server.map(|cpu| cpu as f64 / 1e9),
                    "resident_bytes_before": phase.resident_before,
                    "resident_bytes_end": phase.resident,
                    "resident_bytes_each": phase.bytes_each(),
                    "own_cpu_us_each": phase.each(phase.used.own as f64 / 1e3),
                })
            })
            .collect();
        let mut value = json!({
            "workload": self.workload,
            "address": self.address,
            "version": self.version,
            "seed": self.seed,
            "qos": self.qos,
        });
        if let Value::Object(object) = &mut value {
            for (name, number) in &self.settings {
                object.insert((*name).into(), (*number).into());
            }
            object.insert("phases".into(), phases.into());
            object.insert("other_cores".into(), self.other_cores().into());
            object.insert("interrupted".into(), self.is_interrupted.into());
            object.insert("faults".into(), self.faults.json());
        }
        value
    }
}

impl Phase {
    fn per_second(&self) -> f64 {
        self.count as f64 * 1e9 / self.time.max(1) as f64
    }

    fn each(&self, all: f64) -> f64 {
        all / self.count.max(1) as f64
    }

    fn bytes_each(&self) -> Option<f64> {
        let growth = self.resident? as f64 - self.resident_before? as f64;
        Some(self.each(growth))
    }
}
