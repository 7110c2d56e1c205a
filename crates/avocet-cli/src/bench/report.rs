//! What a run found, as a table and as JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use avocet_codec::QoS;
use serde_json::{Value, json};

use crate::bench::chart::Picture;
use crate::bench::check::Faults;
use crate::bench::histogram::Histogram;
use crate::bench::plan::{Load, Plan};
use crate::bench::usage::Used;
use crate::bench::worker::{Interval, Shared};
use crate::bench_args::RunArgs;
use crate::exit::Failure;

/// Pairs of a publisher and a subscriber with faults that are told one by one.
const STREAMS_TOLD: usize = 100;

/// The percentiles that are told.
pub(crate) const SHARES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// What a run found.
#[derive(Debug)]
pub(crate) struct Outcome {
    plan: Plan,
    address: String,
    version: String,
    /// Nanoseconds that were measured.
    pub(crate) measured: u64,
    /// Messages that were sent, and deliveries that were received, while it was measured.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The same of the whole run, warm-up and drain included.
    pub(crate) sent_in_all: u64,
    pub(crate) received_in_all: u64,
    pub(crate) latency: Histogram,
    pub(crate) acknowledged: Histogram,
    pub(crate) lag: Histogram,
    /// Messages that were due and could not be sent in time.
    pub(crate) unsent: u64,
    /// How often messages were given up because nothing arrived.
    pub(crate) stalls: u64,
    pub(crate) faults: Faults,
    pub(crate) refused_with: Option<String>,
    streams: Vec<(u32, Option<u32>, Faults)>,
    streams_with_faults: u64,
    /// While it was measured.
    pub(crate) used: Used,
    /// Resident memory of the server in bytes: before anything connects, when all clients are
    /// there, and at the end.
    pub(crate) resident: (u64, u64, u64),
    pub(crate) points: Vec<Point>,
}

/// One second, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// In seconds from when measuring begins; negative while warming up.
    pub(crate) begin: f64,
    pub(crate) end: f64,
    phase: &'static str,
    pub(crate) sent_per_second: f64,
    pub(crate) received_per_second: f64,
    /// Latency in nanoseconds: the median, the 99th percentile and the longest.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Point {
    /// `warm_up` is in nanoseconds.
    pub(crate) fn new(interval: &Interval, warm_up: u64, is_drain: bool) -> Self {
        let seconds = interval.end.saturating_sub(interval.begin) as f64 / 1e9;
        let measured = |at: u64| (at as f64 - warm_up as f64) / 1e9;
        Self {
            begin: measured(interval.begin),
            end: measured(interval.end),
            phase: match (is_drain, interval.is_measured) {
                (true, _) => "drain",
                (false, true) => "",
                (false, false) => "warm-up",
            },
            sent_per_second: interval.sent as f64 / seconds,
            received_per_second: interval.received as f64 / seconds,
            p50: interval.latency.quantile(0.5),
            p99: interval.latency.quantile(0.99),
            max: interval.latency.max(),
        }
    }

    /// A latency of this second; none if nothing arrived.
    fn microseconds(&self, latency: u64) -> Option<f64> {
        (self.received_per_second > 0.0).then_some(latency as f64 / 1e3)
    }
}

/// What is told on standard error while a run goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    is_quiet: bool,
}

impl Progress {
    pub(crate) const fn new(is_quiet: bool) -> Self {
        Self { is_quiet }
    }

    pub(crate) fn say(self, text: &str) {
        if !self.is_quiet {
            eprintln!("{text}");
        }
    }

    pub(crate) fn show(self, point: &Point) {
        if point.phase == "drain" && point.received_per_second == 0.0 {
            return;
        }
        self.say(&format!(
            "{:>6.1} s  sent {:>10}/s  received {:>10}/s  p50 {:>8}  p99 {:>8}  max {:>8}  {}",
            point.end,
            number(point.sent_per_second.round() as u64),
            number(point.received_per_second.round() as u64),
            time(point.p50),
            time(point.p99),
            time(point.max),
            point.phase,
        ));
    }
}

impl Outcome {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            plan: shared.plan.clone(),
            address: shared.server.address.to_string(),
            version: shared.server.version.to_string(),
            measured: 0,
            sent: 0,
            received: 0,
            sent_in_all: 0,
            received_in_all: 0,
            latency: Histogram::default(),
            acknowledged: Histogram::default(),
            lag: Histogram::default(),
            unsent: 0,
            stalls: 0,
            faults: Faults::default(),
            refused_with: None,
            streams: Vec::new(),
            streams_with_faults: 0,
            used: Used::default(),
            resident: (0, 0, 0),
            points: Vec::new(),
        }
    }

    /// Adds the faults of what one subscriber, or a group of them, got of one publisher.
    pub(crate) fn add_stream(&mut self, publisher: u32, subscriber: Option<u32>, faults: Faults) {
        self.faults += faults;
        if faults != Faults::default() {
            self.streams_with_faults += 1;
            if self.streams.len() < STREAMS_TOLD {
                self.streams.push((publisher, subscriber, faults));
            }
        }
    }

    /// Whether the server kept what it promised.
    ///
    /// # Errors
    ///
    /// What it did not keep.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let broken = self.faults.broken(self.plan.delivered_qos() as u8);
        if !broken.is_empty() {
            let with = self.refused_with.as_ref();
            let with = with.map_or_else(String::new, |code| format!(" ({code})"));
            return Err(Failure::new(format!(
                "messages at QoS {}: {}{with}",
                self.plan.delivered_qos(),
                broken.join(", ")
            )));
        }
        if self.received_in_all == 0 {
            return Err(Failure::new("no message arrived"));
        }
        Ok(())
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 * 1e9 / self.measured.max(1) as f64
    }

    /// Microseconds of CPU time for each message that was received while it was measured.
    fn per_message(&self, cpu: u64) -> f64 {
        cpu as f64 / 1e3 / self.received.max(1) as f64
    }

    fn load(&self) -> String {
        let inflight = match self.plan.qos {
            QoS::AtMostOnce => String::new(),
            QoS::AtLeastOnce | QoS::ExactlyOnce => format!(", inflight {}", self.plan.inflight),
        };
        match self.plan.load {
            Load::Closed { window, batch } => {
                format!("closed loop, window {window}, batch {batch}{inflight}")
            }
            Load::Open { interval } => {
                format!(
                    "open loop, {} messages per second{inflight}",
                    1e9 / interval
                )
            }
        }
    }

    /// Draws a picture into a file.
    ///
    /// # Errors
    ///
    /// The file that cannot be written.
    pub(crate) fn draw(&self, path: &Path) -> Result<(), Failure> {
        let picture = Picture {
            title: self.title(),
            subtitle: format!("{}, seed {}", self.load(), self.plan.names.seed),
            points: &self.points,
            latency: &self.latency,
            acknowledged: (self.answer(), &self.acknowledged),
        };
        let text = match path.extension().and_then(|ending| ending.to_str()) {
            Some("html") => picture.html(&self.table()),
            Some(_) | None => picture.svg(),
        };
        std::fs::write(path, text)
            .map_err(|error| Failure::new(format!("--chart {}: {error}", path.display())))
    }

    fn title(&self) -> String {
        let plan = &self.plan;
        format!(
            "{}  {} publishers, {} subscribers, QoS {}, {} bytes, MQTT {} at {}",
            plan.workload,
            number(plan.publishers.into()),
            number(plan.subscribers.into()),
            plan.qos,
            number(plan.payload as u64),
            self.version,
            self.address
        )
    }

    /// What ends the exchange of a message.
    const fn answer(&self) -> &'static str {
        match self.plan.qos {
            QoS::ExactlyOnce => "PUBCOMP",
            QoS::AtMostOnce | QoS::AtLeastOnce => "PUBACK",
        }
    }

    pub(crate) fn table(&self) -> String {
        let plan = &self.plan;
        let mut text = String::new();
        let mut line = |cells: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{cells}");
        };
        line(format_args!("{}", self.title()));
        line(format_args!("{}, seed {}\n", self.load(), plan.names.seed));
        line(format_args!(
            "measured        {:>12.3} s",
            self.measured as f64 / 1e9
        ));
        for (name, count) in [("sent", self.sent), ("received", self.received)] {
            line(format_args!(
                "{name:<16}{:>12}  {:>12}/s",
                number(count),
                number(self.per_second(count).round() as u64)
            ));
        }
        let mut heading = format!("\n{:<16}", "latency");
        for (name, _) in SHARES {
            let _ = write!(heading, "{name:>12}");
        }
        line(format_args!("{heading}{:>12}", "max"));
        for (name, histogram) in [
            ("end to end", &self.latency),
            (self.answer(), &self.acknowledged),
            ("sent late", &self.lag),
        ] {
            if histogram.total() == 0 {
                continue;
            }
            let mut row = format!("{name:<16}");
            for (_, share) in SHARES {
                let _ = write!(row, "{:>12}", time(histogram.quantile(share)));
            }
            line(format_args!("{row}{:>12}", time(histogram.max())));
        }
        let faults = &self.faults;
        line(format_args!(
            "\nlost {}, duplicate {}, out of order {}, corrupt {}",
            number(faults.lost),
            number(faults.duplicates),
            number(faults.out_of_order),
            number(faults.corrupt)
        ));
        for (count, what) in [
            (faults.refused, "refused by the server"),
            (faults.stray_acks, "acknowledgements of nothing sent"),
            (
                faults.duplicates_marked,
                "of the duplicates marked as such by DUP",
            ),
            (self.unsent, "due and not sent in time"),
            (
                self.stalls,
                "times given up waiting for messages that did not arrive",
            ),
        ] {
            if count > 0 {
                line(format_args!("{} {what}", number(count)));
            }
        }
        let seconds = self.measured.max(1) as f64;
        line(format_args!(""));
        if let Some(cpu) = self.used.server {
            line(format_args!(
                "server          {:>12.3} us of CPU per message received, {:.2} cores",
                self.per_message(cpu),
                cpu as f64 / seconds
            ));
            let (before, connected, end) = self.resident;
            line(format_args!(
                "                {:>12} KiB at first, {} when connected, {} at the end",
                number(before / 1024),
                number(connected / 1024),
                number(end / 1024)
            ));
        }
        line(format_args!(
            "this program    {:>12.3} us of CPU per message received, {:.2} cores",
            self.per_message(self.used.own),
            self.used.own as f64 / seconds
        ));
        if let Some(cpu) = self.used.other {
            line(format_args!(
                "others          {:>12.2} cores",
                cpu as f64 / seconds
            ));
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let plan = &self.plan;
        let load = match plan.load {
            Load::Closed { window, batch } => json!({ "window": window, "batch": batch }),
            Load::Open { interval } => json!({ "rate": 1e9 / interval }),
        };
        let streams: Vec<_> = self
            .streams
            .iter()
            .map(|(publisher, subscriber, faults)| {
                json!({
                    "publisher": publisher,
                    "subscriber": subscriber,
                    "lost": faults.lost,
                    "duplicates": faults.duplicates,
                    "out_of_order": faults.out_of_order,
                })
            })
            .collect();
        let series: Vec<_> = self
            .points
            .iter()
            .map(|point| {
                json!({
                    "begin_s": point.begin,
                    "end_s": point.end,
                    "phase": if point.phase.is_empty() { "measured" } else { point.phase },
                    "sent_per_s": point.sent_per_second,
                    "received_per_s": point.received_per_second,
                    "p50_us": point.microseconds(point.p50),
                    "p99_us": point.microseconds(point.p99),
                    "max_us": point.microseconds(point.max),
                })
            })
            .collect();
        let seconds = self.measured.max(1) as f64;
        let server = self.used.server.map(|cpu| {
            json!({
                "cpu_us_per_message": self.per_message(cpu),
                "cores": cpu as f64 / seconds,
                "resident_bytes_before": self.resident.0,
                "resident_bytes_connected": self.resident.1,
                "resident_bytes_end": self.resident.2,
            })
        });
        json!({
            "workload": plan.workload,
            "address": self.address,
            "version": self.version,
            "seed": plan.names.seed,
            "publishers": plan.publishers,
            "subscribers": plan.subscribers,
            "topics": plan.topics,
            "qos": plan.qos as u8,
            "maximum_qos": plan.maximum_qos as u8,
            "payload_bytes": plan.payload,
            "inflight": plan.inflight,
            "threads": plan.threads,
            "clean_start": plan.clean_start,
            "session_expiry_interval_s": plan.session_expiry_interval,
            "load": load,
            "measured_s": self.measured as f64 / 1e9,
            "sent": self.sent,
            "received": self.received,
            "sent_in_all": self.sent_in_all,
            "received_in_all": self.received_in_all,
            "sent_per_s": self.per_second(self.sent),
            "received_per_s": self.per_second(self.received),
            "latency_us": self.latency.microseconds(),
            "acknowledged_us": self.acknowledged.microseconds(),
            "sent_late_us": self.lag.microseconds(),
            "unsent": self.unsent,
            "stalls": self.stalls,
            "faults": self.faults.json(),
            "streams_with_faults": self.streams_with_faults,
            "streams": streams,
            "server": server,
            "own_cpu_us_per_message": self.per_message(self.used.own),
            "own_cores": self.used.own as f64 / seconds,
            "other_cores": self.used.other.map(|cpu| cpu as f64 / seconds),
            "series": series,
        })
    }
}

impl Histogram {
    /// The percentiles in microseconds; null if nothing was counted, for nothing is not fast.
    pub(crate) fn microseconds(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("count".into(), self.total().into());
        let counted = |value: u64| (self.total() > 0).then_some(value as f64 / 1e3);
        for (name, share) in SHARES {
            object.insert(name.into(), counted(self.quantile(share)).into());
        }
        object.insert("max".into(), counted(self.max()).into());
        Value::Object(object)
    }
}

impl Faults {
    /// Each by its name.
    pub(crate) fn json(&self) -> Value {
        json!({
            "lost": self.lost,
            "duplicates": self.duplicates,
            "duplicates_with_dup": self.duplicates_marked,
            "out_of_order": self.out_of_order,
            "corrupt": self.corrupt,
            "refused": self.refused,
            "stray_acknowledgements": self.stray_acks,
        })
    }
}

/// Writes the result where the arguments say.
///
/// # Errors
///
/// The file that cannot be written.
pub(crate) fn write(table: &str, json: &Value, args: &RunArgs) -> Result<(), Failure> {
    let json = || format!("{json:#}\n");
    match &args.json {
        Some(path) if path == Path::new("-") => return print(&json()),
        Some(path) => std::fs::write(path, json())
            .map_err(|error| Failure::new(format!("--json {}: {error}", path.display())))?,
        None => {}
    }
    print(table)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Failure::output)
}

/// A number with a comma before each three digits.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds in a unit that suits them.
pub(crate) fn time(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let numbers = [0, 999, 1_000, 1_234_567].map(number);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn percentiles_of_nothing_are_none() {
        let mut histogram = Histogram::default();
        let nothing = histogram.microseconds();
        assert_eq!(nothing["count"], 0);
        for name in ["p50", "p90", "p99", "p99.9", "max"] {
            assert_eq!(nothing[name], Value::Null, "{name}");
        }
        histogram.record(0, 1);
        assert_eq!(histogram.microseconds()["p99"], 0.0);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let times = [0, 1_500, 2_345_678, 61_000_000_000].map(time);
        assert_eq!(times, ["0.0 us", "1.5 us", "2.35 ms", "61.00 s"]);
    }
}
