//! Workloads that go through phases: what each did, and what it cost.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::bench::check::Faults;
use crate::bench::histogram::Histogram;
use crate::bench::open::Server;
use crate::bench::plan::Names;
use crate::bench::report::{Progress, SHARES, number, time};
use crate::bench::usage::{self, Usage};
use crate::bench_args::RunArgs;
use crate::clock::Stopwatch;
use crate::exit::Failure;

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
    began: (u64, Usage, u64),
    /// When progress was shown, and the count then.
    shown: (u64, u64),
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
    broker_cpu: Option<u64>,
    own_cpu: u64,
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
            began: (0, Usage::default(), 0),
            shown: (0, 0),
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
            broker_cpu: None,
            own_cpu: 0,
            resident: None,
            resident_before: resident,
        });
        let now = self.clock.nanoseconds();
        self.shown = (now, 0);
        self.began = (now, usage::of_processes(&self.pids)?, usage::own_cpu());
        Ok(())
    }

    /// The phase goes on; each second it is told how far it is.
    pub(crate) fn show(&mut self, count: u64) {
        let now = self.clock.nanoseconds();
        let (at, before) = self.shown;
        if now - at < 1_000_000_000 {
            return;
        }
        self.shown = (now, count);
        let Some(phase) = self.phases.last() else {
            return;
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
    }

    /// The phase ended, at a time that may have been earlier, with so many of what is counted.
    ///
    /// # Errors
    ///
    /// A process that cannot be read.
    pub(crate) fn end(&mut self, at: u64, count: u64, latency: Histogram) -> Result<(), Failure> {
        let (began, usage, own) = &self.began;
        let used = usage::of_processes(&self.pids)?;
        let broker_cpu = (!self.pids.is_empty()).then(|| used.cpu_since(usage));
        let (time, own_cpu) = (at.saturating_sub(*began), usage::own_cpu() - own);
        let resident = self.resident()?;
        if let Some(phase) = self.phases.last_mut() {
            phase.count = count;
            phase.time = time;
            phase.latency = latency;
            phase.broker_cpu = broker_cpu;
            phase.own_cpu = own_cpu;
            phase.resident = resident;
        }
        Ok(())
    }

    /// Adds a number to those that describe the run.
    pub(crate) fn note(&mut self, name: &'static str, value: u64) {
        self.settings.push((name, value));
    }

    fn resident(&self) -> Result<Option<u64>, Failure> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        Ok(Some(usage::resident(&self.pids)?))
    }

    /// Whether the server kept what it promised.
    ///
    /// # Errors
    ///
    /// What it did not keep.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
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
                optional(phase.broker_cpu.map(each)),
                optional(phase.bytes_each().map(|bytes| format!("{bytes:.0} bytes"))),
                each(phase.own_cpu),
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
                    "server_cpu_us_each": phase.broker_cpu.map(|cpu| phase.each(cpu as f64 / 1e3)),
                    "server_cpu_s": phase.broker_cpu.map(|cpu| cpu as f64 / 1e9),
                    "resident_bytes_before": phase.resident_before,
                    "resident_bytes_end": phase.resident,
                    "resident_bytes_each": phase.bytes_each(),
                    "own_cpu_us_each": phase.each(phase.own_cpu as f64 / 1e3),
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
