//! What was measured: medians, ratios, and what was wrong, as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bench::broker::{OURS, Shape};
use crate::bench::definitions::{Better, Figure, Length, Row};
use crate::workspace::{Workspace, output};

/// Cores in use by others beyond which figures are not to be trusted.
const NOISE: f64 = 0.25;

/// A broker that was measured.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) command: String,
    /// It is the broker of this checkout.
    pub(crate) is_ours: bool,
    /// How it ran, if it is one of ours and has run.
    pub(crate) shape: Option<Shape>,
}

impl Contestant {
    /// For a list of brokers.
    fn line(&self) -> String {
        let Self {
            name,
            version,
            command,
            ..
        } = self;
        let mut line = format!("- {name}: {version}, `{command}`");
        if let Some(Shape { shards, durability }) = &self.shape {
            let s = if *shards == 1 { "" } else { "s" };
            // Writing to a string does not fail.
            let _ = write!(
                line,
                ". It ran with {shards} shard{s} at durability `{durability}`."
            );
        }
        line
    }
}

/// What one run found.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) lost: Option<u64>,
    /// Cores that others used meanwhile.
    pub(crate) other_cores: Option<f64>,
    /// What the broker did not keep, or why there is no result.
    pub(crate) failure: Option<String>,
}

impl Run {
    pub(crate) fn failed(why: String) -> Self {
        Self {
            failure: Some(why),
            ..Self::default()
        }
    }

    /// For people who wait.
    pub(crate) fn line(&self) -> String {
        let figures = self.figures.iter();
        let mut words: Vec<_> = figures
            .map(|(name, value)| format!("{name} {}", number(*value)))
            .collect();
        if let Some(lost) = self.lost.filter(|lost| *lost > 0) {
            words.push(format!("lost {lost}"));
        }
        words.extend(self.failure.as_ref().map(|why| format!("FAILED: {why}")));
        words.join(", ")
    }

    /// Whether its figures may be compared.
    fn is_fair(&self) -> bool {
        self.failure.is_none() && self.lost.unwrap_or(0) == 0
    }
}

/// The runs of one row, by broker.
#[derive(Debug)]
struct Runs {
    row: String,
    about: String,
    bench: String,
    figures: Vec<String>,
    by_broker: BTreeMap<String, Vec<Run>>,
}

/// Everything that was measured, and on what.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) date: String,
    machine: String,
    brokers: Vec<Contestant>,
    figures: Vec<Figure>,
    rounds: usize,
    seconds: f64,
    rows: Vec<Runs>,
}

impl Record {
    pub(crate) fn new(
        workspace: &Workspace,
        brokers: Vec<Contestant>,
        figures: Vec<Figure>,
        rounds: usize,
        seconds: f64,
    ) -> Result<Self> {
        let said = |line: &str| -> Result<String> {
            Ok(output(&mut workspace.line(line))?.trim().to_owned())
        };
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown CPU", |(_, model)| model);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            date: said("date -u +%F")?,
            machine: format!(
                "{cores} cores of {model}, {}, {}",
                said("uname -sr")?,
                said("rustc --version")?
            ),
            brokers,
            figures,
            rounds,
            seconds,
            rows: Vec::new(),
        })
    }

    pub(crate) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// How a broker ran, which is the same in all rows.
    pub(crate) fn set_shape(&mut self, broker: &str, shape: Shape) {
        let contestant = self.brokers.iter_mut().find(|it| it.name == broker);
        if let Some(contestant) = contestant {
            contestant.shape = Some(shape);
        }
    }

    pub(crate) fn add_row(&mut self, row: &Row, length: Length) {
        self.rows.push(Runs {
            row: row.name.clone(),
            about: row.about.clone(),
            bench: row.bench(length),
            figures: row.figures.clone(),
            by_broker: BTreeMap::new(),
        });
    }

    /// Adds a run to the row that was added last.
    pub(crate) fn add(&mut self, broker: &str, run: Run) {
        if let Some(runs) = self.rows.last_mut() {
            runs.by_broker.entry(broker.into()).or_default().push(run);
        }
    }

    /// Whether our broker kept what it promised in all runs.
    pub(crate) fn has_no_failure_of_ours(&self) -> bool {
        let ours = self.brokers.iter().filter(|broker| broker.is_ours);
        let mut names = ours.map(|broker| &broker.name);
        names.all(|name| {
            let runs = self.rows.iter().filter_map(|row| row.by_broker.get(name));
            runs.flatten().all(|run| run.failure.is_none())
        })
    }

    /// Writes the Markdown and the JSON; `file` has no ending.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let write = |ending: &str, text: String| {
            // The name may have dots.
            let mut name = file.as_os_str().to_owned();
            name.push(ending);
            fs::write(&name, text).with_context(|| format!("cannot write {}", name.display()))
        };
        write(".md", self.markdown())?;
        write(".json", format!("{:#}\n", self.json()))
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "# Brokers measured by `cargo xtask bench`, {}\n\n",
            self.date
        );
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{}. {} round{}, {} s for each timed row, loopback. Medians; ±: half of the range of the \
             rounds; the best is bold.{}\n",
            self.machine,
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
            self.seconds,
            self.noise()
        );
        for broker in &self.brokers {
            let _ = writeln!(text, "{}", broker.line());
        }
        text.push_str(&self.summary());
        for figure in &self.figures {
            text.push_str(&self.table(figure));
        }
        let faults = self.faults();
        if !faults.is_empty() {
            let _ = write!(
                text,
                "\n## What was wrong\n\nA run with a fault counts as none.\n\n{faults}"
            );
        }
        text.push_str("\n## Rows\n\n");
        for row in &self.rows {
            let _ = writeln!(text, "- {}: {} `{}`", row.row, row.about, row.bench);
        }
        text
    }

    fn noise(&self) -> String {
        let runs = self.rows.iter().flat_map(|row| row.by_broker.values());
        let all = runs.flatten().filter_map(|run| run.other_cores).collect();
        let Some((middle, _)) = median(all) else {
            return String::new();
        };
        let warning = if middle > NOISE {
            ": **not a quiet machine; only ratios say something, and rates little**"
        } else {
            ""
        };
        format!(" Others used {middle:.2} cores meanwhile (median){warning}.")
    }

    /// Each row with what it is about, its first figure, beside the best of the others; and the 99th percentiles
    /// of the same two.
    fn summary(&self) -> String {
        let names: Vec<_> = self.brokers.iter().map(|it| it.name.as_str()).collect();
        if !names.contains(&OURS) || names.len() < 2 {
            return String::new();
        }
        let mut text = format!(
            "\n## In short\n\n| row | {OURS} | / best other | the best other | p99 of {OURS}, µs | p99 of the best other, µs \
             |\n|---|---|---|---|---|---|\n"
        );
        for row in &self.rows {
            let named = |name: &String| self.figures.iter().find(|figure| figure.name == *name);
            let Some(figure) = row.figures.first().and_then(named) else {
                continue;
            };
            let p99 = row.figures.iter().find(|name| name.starts_with("p99"));
            let median = |broker, figure| Some(row.median(broker, figure)?.0);
            let cell = |value: Option<f64>| value.map_or_else(|| "-".into(), number);
            let p99 = |broker| cell(p99.and_then(|figure| median(broker, figure)));
            let best = row.best_other(figure, &names);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                row.row,
                cell(median(OURS, &figure.name)),
                row.ratio(figure, &names)
                    .map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
                best.map_or("-", |(name, _)| name),
                p99(OURS),
                best.map_or_else(|| "-".into(), |(name, _)| p99(name)),
            );
        }
        text
    }

    /// One line for each row that has the figure.
    fn table(&self, figure: &Figure) -> String {
        let rows = self.rows.iter();
        let rows: Vec<_> = rows
            .filter(|it| it.figures.contains(&figure.name))
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let names: Vec<_> = self.brokers.iter().map(|it| it.name.as_str()).collect();
        let is_compared = names.contains(&OURS) && names.len() > 1;
        let mut text = format!("\n## {}\n\n| | {} |", figure.title, names.join(" | "));
        if is_compared {
            let _ = write!(text, " {OURS} / best other |");
        }
        let columns = names.len() + 1 + usize::from(is_compared);
        let _ = writeln!(text, "\n|{}", "---|".repeat(columns));
        for row in rows {
            let values: Vec<_> = names
                .iter()
                .map(|name| row.median(name, &figure.name))
                .collect();
            let best = best(
                figure.better,
                values.iter().flatten().map(|(value, _)| *value),
            );
            let _ = write!(text, "| {} |", row.row);
            for value in &values {
                let _ = match value {
                    None => write!(text, " - |"),
                    Some((value, spread)) => {
                        let is_best = is_compared && best == Some(*value);
                        let mark = if is_best { "**" } else { "" };
                        let spread = if *spread < 0.005 {
                            String::new()
                        } else {
                            format!(" ±{:.0}%", spread * 100.0)
                        };
                        write!(text, " {mark}{}{mark}{spread} |", number(*value))
                    }
                };
            }
            if is_compared {
                let ratio = row.ratio(figure, &names);
                let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
                let _ = write!(text, " {ratio} |");
            }
            text.push('\n');
        }
        text
    }

    /// A line for each row and broker with faults.
    fn faults(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for (broker, runs) in &row.by_broker {
                let lost: u64 = runs.iter().filter_map(|run| run.lost).sum();
                let failures: Vec<_> = runs.iter().filter_map(|run| run.failure.as_ref()).collect();
                if let Some(first) = failures.first() {
                    let _ = writeln!(
                        text,
                        "- {} {broker}: {} of {} runs failed, the first with: {first}",
                        row.row,
                        failures.len(),
                        runs.len()
                    );
                } else if lost > 0 {
                    let _ = writeln!(text, "- {} {broker}: lost {lost}", row.row);
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let brokers: Vec<_> = self
            .brokers
            .iter()
            .map(|it| {
                let shape = it.shape.as_ref();
                json!({
                    "name": it.name,
                    "version": it.version,
                    "command": it.command,
                    "shards": shape.map(|shape| shape.shards),
                    "durability": shape.map(|shape| &shape.durability),
                })
            })
            .collect();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let run = |run: &Run| {
                    json!({
                        "figures": run.figures,
                        "lost": run.lost,
                        "other_cores": run.other_cores,
                        "failure": run.failure,
                    })
                };
                let runs: BTreeMap<_, Vec<_>> = row
                    .by_broker
                    .iter()
                    .map(|(broker, runs)| (broker, runs.iter().map(run).collect()))
                    .collect();
                let median = |broker: &String| -> BTreeMap<_, _> {
                    let values = row.figures.iter();
                    values
                        .filter_map(|figure| Some((figure.clone(), row.median(broker, figure)?.0)))
                        .collect()
                };
                let medians: BTreeMap<_, _> = row
                    .by_broker
                    .keys()
                    .map(|broker| (broker, median(broker)))
                    .collect();
                json!({ "name": row.row, "bench": row.bench, "medians": medians, "runs": runs })
            })
            .collect();
        json!({
            "date": self.date,
            "machine": self.machine,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "brokers": brokers,
            "rows": rows,
        })
    }
}

impl Runs {
    /// The median of a figure, and half of its range as a part of it.
    fn median(&self, broker: &str, figure: &str) -> Option<(f64, f64)> {
        let runs = self.by_broker.get(broker)?.iter();
        median(
            runs.filter(|run| run.is_fair())
                .filter_map(|run| run.figures.get(figure).copied())
                .collect(),
        )
    }

    /// Ours divided by the best of the others.
    fn ratio(&self, figure: &Figure, brokers: &[&str]) -> Option<f64> {
        let (_, best) = self.best_other(figure, brokers)?;
        (best > 0.0).then_some(self.median(OURS, &figure.name)?.0 / best)
    }

    /// The best of the others, and what it has.
    fn best_other<'a>(&self, figure: &Figure, brokers: &[&'a str]) -> Option<(&'a str, f64)> {
        let others = brokers.iter().filter(|name| **name != OURS);
        let others = others.filter_map(|name| Some((*name, self.median(name, &figure.name)?.0)));
        let by_value = |a: &(_, f64), b: &(_, f64)| a.1.total_cmp(&b.1);
        match figure.better {
            Better::Less => others.min_by(by_value),
            Better::More => others.max_by(by_value),
        }
    }
}

fn best(better: Better, values: impl Iterator<Item = f64>) -> Option<f64> {
    match better {
        Better::Less => values.reduce(f64::min),
        Better::More => values.reduce(f64::max),
    }
}

/// The median, and half of the range as a part of it.
fn median(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(*values.get(middle.checked_sub(1)?)?, upper)
    } else {
        upper
    };
    let spread = if median == 0.0 {
        0.0
    } else {
        (most - least) / 2.0 / median.abs()
    };
    Some((median, spread))
}

/// Three digits that count.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if size >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINITIONS: &str = r#"
        [[figures]]
        name = "cpu"
        title = "CPU"
        path = "cpu"
        better = "less"
        [[rows]]
        name = "pairs"
        about = "One to one."
        bench = "pairs"
        figures = ["cpu"]
    "#;

    fn record(values: &[(&str, f64, u64)]) -> Record {
        let definitions: crate::bench::Definitions = toml::from_str(DEFINITIONS).unwrap();
        let broker = |name: &str| Contestant {
            name: name.into(),
            version: "1".into(),
            command: "start".into(),
            is_ours: name == OURS,
            shape: None,
        };
        let mut record = Record {
            date: "2000-01-01".into(),
            machine: "two cores".into(),
            brokers: vec![broker(OURS), broker("other"), broker("third")],
            figures: definitions.figures,
            rounds: 1,
            seconds: 1.0,
            rows: Vec::new(),
        };
        record.add_row(&definitions.rows[0], Length::full(1.0));
        for (name, value, lost) in values {
            let run = Run {
                figures: [("cpu".to_owned(), *value)].into(),
                lost: Some(*lost),
                ..Run::default()
            };
            record.add(name, run);
        }
        record
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some((3.0, 0.0)));
        assert_eq!(median(vec![4.0, 1.0, 2.0]), Some((2.0, 0.75)));
        assert_eq!(median(vec![1.0, 3.0]), Some((2.0, 0.5)));
    }

    #[test]
    fn a_row_says_who_is_best_and_by_how_much() {
        let record = record(&[
            ("avocet", 0.5, 0),
            ("avocet", 0.7, 0),
            ("other", 1.2, 0),
            ("third", 2.0, 0),
        ]);
        let text = record.markdown();
        let row = "| pairs | **0.600** ±17% | 1.20 | 2.00 | 0.50 |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn a_record_says_how_our_broker_ran() {
        let mut record = record(&[]);
        let shape = |shards, durability: &str| Shape {
            shards,
            durability: durability.into(),
        };
        record.set_shape("avocet", shape(1, "memory"));
        let line = "`start`. It ran with 1 shard at durability `memory`.\n- other: 1, `start`\n";
        assert!(record.markdown().contains(line), "{}", record.markdown());
        record.set_shape("avocet", shape(2, "os"));
        let text = record.markdown();
        assert!(text.contains("2 shards at durability `os`."), "{text}");
        let json = record.json();
        assert_eq!(json["brokers"][0]["shards"], 2);
        assert_eq!(json["brokers"][0]["durability"], "os");
        assert!(json["brokers"][1]["shards"].is_null());
    }

    #[test]
    fn the_summary_has_the_best_other_and_both_percentiles() {
        let mut record = record(&[]);
        let [runs] = record.rows.as_mut_slice() else {
            panic!("one row");
        };
        runs.figures = ["cpu", "p99-all"].map(str::to_owned).into();
        for (name, cpu, p99) in [
            ("avocet", 0.5, Some(70.0)),
            ("other", 1.0, None),
            ("third", 2.0, Some(9.0)),
        ] {
            let p99 = p99.map(|value| ("p99-all".to_owned(), value));
            let figures = p99.into_iter().chain([("cpu".to_owned(), cpu)]).collect();
            let run = Run {
                figures,
                ..Run::default()
            };
            record.add(name, run);
        }
        let text = record.markdown();
        let row = "| pairs | 0.500 | 0.50 | other | 70.0 | - |\n";
        assert!(text.contains(row), "{text}");
        record.brokers.truncate(1);
        assert!(!record.markdown().contains("In short"));
    }

    #[test]
    fn who_loses_messages_is_not_compared() {
        let record = record(&[("avocet", 0.5, 0), ("other", 0.1, 7), ("third", 2.0, 0)]);
        let text = record.markdown();
        assert!(
            text.contains("| pairs | **0.500** | - | 2.00 | 0.25 |"),
            "{text}"
        );
        assert!(text.contains("- pairs other: lost 7"), "{text}");
        assert!(record.has_no_failure_of_ours());
    }

    #[test]
    fn a_failure_of_ours_is_noticed() {
        let mut record = record(&[]);
        record.add("other", Run::failed("it fell over".into()));
        assert!(record.has_no_failure_of_ours());
        record.add("avocet", Run::failed("it fell over".into()));
        assert!(!record.has_no_failure_of_ours());
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let numbers = [0.0, 0.1234, 1.234, 12.34, 123.4, 12_340.0, 1_234_000.0].map(number);
        assert_eq!(
            numbers,
            ["0.00", "0.123", "1.23", "12.3", "123", "12.3 k", "1.23 M"]
        );
    }
}
