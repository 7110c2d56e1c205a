//! Which loads are measured, and what of their results is told.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A file of `benches/definitions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definitions {
    pub(crate) figures: Vec<Figure>,
    pub(crate) rows: Vec<Row>,
}

/// A number out of a result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) title: String,
    /// Names with dots between them.
    path: String,
    pub(crate) better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Less,
    More,
}

/// A load.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) about: String,
    /// A command line of `avocet bench`.
    bench: String,
    /// The same with fewer clients.
    quick: Option<String>,
    /// Another load that goes on meanwhile; it is there once it holds what it has made.
    beside: Option<String>,
    /// The same with fewer clients.
    beside_quick: Option<String>,
    pub(crate) figures: Vec<String>,
}

/// How long rows are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) seconds: f64,
    is_quick: bool,
}

impl Length {
    pub(crate) const fn full(seconds: f64) -> Self {
        Self {
            seconds,
            is_quick: false,
        }
    }

    pub(crate) const fn quick(seconds: f64) -> Self {
        Self {
            seconds,
            is_quick: true,
        }
    }
}

impl Definitions {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let definitions: Self = toml::from_str(text)?;
        for (index, row) in definitions.rows.iter().enumerate() {
            ensure!(
                row.beside.is_some() || row.beside_quick.is_none(),
                "{}: beside_quick is a short form of beside, which is missing",
                row.name
            );
            let earlier = definitions.rows.iter().take(index);
            ensure!(
                !earlier.clone().any(|earlier| earlier.name == row.name),
                "two rows are called {}",
                row.name
            );
            for name in &row.figures {
                ensure!(
                    definitions.figures.iter().any(|it| it.name == *name),
                    "{}: no figure is called {name}",
                    row.name
                );
            }
        }
        Ok(definitions)
    }

    /// The rows of these names, or all of them; a name that no row has is an error.
    pub(crate) fn only(mut self, names: &[String]) -> Result<Self> {
        let is = |row: &Row, name: &String| match name.strip_suffix('*') {
            Some(start) => row.name.starts_with(start),
            None => row.name == *name,
        };
        for name in names {
            if !self.rows.iter().any(|row| is(row, name)) {
                bail!("no row is called {name}; --list prints them");
            }
        }
        self.rows
            .retain(|row| names.is_empty() || names.iter().any(|name| is(row, name)));
        Ok(self)
    }
}

impl Row {
    /// The command line of `avocet bench` for runs of this length.
    pub(crate) fn bench(&self, length: Length) -> String {
        let line = match &self.quick {
            Some(quick) if length.is_quick => quick,
            Some(_) | None => &self.bench,
        };
        let Length { seconds, .. } = length;
        let warm_up = (seconds / 4.0).min(2.0);
        line.replace(
            "{time}",
            &format!("--duration {seconds} --warm-up {warm_up}"),
        )
        .replace("{seconds}", &seconds.to_string())
    }

    /// The command line of `avocet bench` for what goes on beside it.
    pub(crate) fn beside(&self, length: Length) -> Option<&str> {
        let quick = self.beside_quick.as_deref().filter(|_| length.is_quick);
        quick.or(self.beside.as_deref())
    }
}

impl Figure {
    /// What the result says, if it says anything.
    pub(crate) fn of(&self, result: &Value) -> Option<f64> {
        let mut value = result;
        for name in self.path.split('.') {
            value = match value.as_array() {
                Some(entries) => entries
                    .iter()
                    .find(|entry| entry.get("name").is_some_and(|it| it == name))?,
                None => value.get(name)?,
            };
        }
        value.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = r#"
        [[figures]]
        name = "cpu"
        title = "CPU"
        path = "server.cpu"
        better = "less"
        [[rows]]
        name = "pairs-q0"
        about = "it"
        bench = "pairs {time}"
        figures = ["cpu"]
        [[rows]]
        name = "connections"
        about = "it"
        bench = "connect --clients 100"
        quick = "connect --clients 1"
        figures = ["cpu"]
    "#;

    fn only(names: &[&str]) -> Result<Vec<String>> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let definitions = Definitions::parse(TEXT)?.only(&names)?;
        Ok(definitions.rows.into_iter().map(|row| row.name).collect())
    }

    #[test]
    fn rows_are_chosen_by_their_names() {
        assert_eq!(only(&[]).unwrap().len(), 2);
        assert_eq!(only(&["pairs*"]).unwrap(), ["pairs-q0"]);
        assert_eq!(only(&["connections"]).unwrap(), ["connections"]);
        assert!(only(&["pairs"]).is_err());
    }

    #[test]
    fn command_lines_say_how_long_and_how_many() {
        let rows = Definitions::parse(TEXT).unwrap().rows;
        let lines = |length| -> Vec<_> { rows.iter().map(|row| row.bench(length)).collect() };
        assert_eq!(
            lines(Length::full(4.0)),
            ["pairs --duration 4 --warm-up 1", "connect --clients 100"]
        );
        assert_eq!(
            lines(Length::quick(1.0)),
            ["pairs --duration 1 --warm-up 0.25", "connect --clients 1"]
        );
    }

    #[test]
    fn what_goes_on_beside_has_a_short_form() {
        let line = "bench = \"pairs {time}\"";
        let parse =
            |more: &str| Definitions::parse(&TEXT.replace(line, &format!("{line}\n{more}")));
        let (long, quick) = ("beside = \"long\"", "beside_quick = \"quick\"");
        let beside = |more: &str, length| {
            let rows = parse(more).unwrap().rows;
            rows[0].beside(length).map(str::to_owned)
        };
        let both = format!("{long}\n{quick}");
        assert_eq!(beside(&both, Length::full(4.0)).unwrap(), "long");
        assert_eq!(beside(&both, Length::quick(1.0)).unwrap(), "quick");
        assert_eq!(beside(long, Length::quick(1.0)).unwrap(), "long");
        assert_eq!(beside("", Length::quick(1.0)), None);
        assert!(parse(quick).is_err());
    }

    #[test]
    fn a_figure_is_found_by_names() {
        let figure = |path: &str| Figure {
            name: "x".into(),
            title: "x".into(),
            path: path.into(),
            better: Better::Less,
        };
        let result = json!({
            "server": { "cpu": 1.5 },
            "phases": [{ "name": "stored", "each": 2 }, { "name": "fetched", "each": 3 }],
        });
        assert_eq!(figure("server.cpu").of(&result), Some(1.5));
        assert_eq!(figure("phases.fetched.each").of(&result), Some(3.0));
        assert_eq!(figure("phases.deleted.each").of(&result), None);
        // Percentiles of nothing.
        let nothing = json!({ "latency_us": { "count": 0, "p99": null } });
        assert_eq!(figure("latency_us.p99").of(&nothing), None);
    }

    #[test]
    fn a_row_has_figures_that_exist() {
        let text = TEXT.replace("figures = [\"cpu\"]", "figures = [\"memory\"]");
        let error = Definitions::parse(&text).unwrap_err();
        assert_eq!(error.to_string(), "pairs-q0: no figure is called memory");
    }

    #[test]
    fn the_definitions_of_this_repository_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/definitions");
        for entry in fs::read_dir(folder).unwrap() {
            Definitions::read(&entry.unwrap().path()).unwrap();
        }
    }
}
