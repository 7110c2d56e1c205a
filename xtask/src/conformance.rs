//! `cargo xtask conformance`: which statements of the standards the tests check.
//!
//! `conformance/mqtt5.toml` and `mqtt311.toml` hold the statements, `exceptions.toml` those that no
//! test can check, or not where it should, and why. A test checks the statements that its comments
//! name, as `[MQTT5-3.1.0-1]`. `docs/conformance.md` is written from them.

mod places;
mod scan;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::workspace::{Workspace, output, run as run_command};
use scan::{Test, named, tests};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when docs/conformance.md is not what would be written.
    #[arg(long)]
    check: bool,
    /// Fail when a statement has neither a test nor an exception.
    #[arg(long)]
    strict: bool,
    /// Play the cases for servers against this one, and write nothing.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["check", "strict"])]
    against: Option<String>,
}

/// Whom a statement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Client,
    Server,
    Both,
}

impl Role {
    const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
        }
    }
}

/// Statements and the reasons for what they lack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exceptions {
    /// Any test.
    tests: BTreeMap<String, String>,
    /// A test with our client.
    client_tests: BTreeMap<String, String>,
    /// A test over a socket with our broker.
    server_tests: BTreeMap<String, String>,
}

impl Exceptions {
    /// Why a statement that has tests lacks those that it should have.
    fn elsewhere(&self, tag: &str) -> impl Iterator<Item = &String> {
        let client = self.client_tests.get(tag);
        client.into_iter().chain(self.server_tests.get(tag))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    role: Role,
    /// What it demands, in our own words.
    demand: String,
}

/// The two standards: the file with their statements, the name, the prefix of their tags.
const STANDARDS: &[(&str, &str, &str)] = &[
    ("mqtt5", "MQTT 5.0", "MQTT5-"),
    ("mqtt311", "MQTT 3.1.1", "MQTT311-"),
];
const EXCEPTIONS: &str = "conformance/exceptions.toml";
const TABLE: &str = "docs/conformance.md";

/// The files whose tags are read; the table and the lists it is made from are not among them.
const TEXTS: &[&str] = &["rs", "md", "toml", "txt", "py", "js"];

type Statements = BTreeMap<Key, (String, Statement)>;
type Tests = BTreeMap<String, Vec<Test>>;

/// The numbers of a tag, in whose order the standard has its statements.
type Key = Vec<u32>;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    if let Some(server) = &args.against {
        let mut cases =
            workspace.cargo("run --quiet --package avocet-tests --bin avocet-conformance");
        run_command(cases.arg("--").arg(server))?;
    } else {
        report(&workspace, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The step of `cargo xtask ci`.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    report(
        workspace,
        &Args {
            check: true,
            strict: true,
            against: None,
        },
    )
}

fn report(workspace: &Workspace, args: &Args) -> Result<()> {
    let root = workspace.root();
    let mut statements = Statements::new();
    for (file, _, prefix) in STANDARDS {
        let listed: BTreeMap<String, Statement> =
            read(&root.join(format!("conformance/{file}.toml")))?;
        for (tag, statement) in listed {
            if !tag.starts_with(prefix) || named(&format!("[{tag}]")).next().is_none() {
                bail!("conformance/{file}.toml: {tag:?} is no tag of its statements");
            }
            statements.insert(key(&tag), (tag, statement));
        }
    }
    let all_exceptions: Exceptions = read(&root.join(EXCEPTIONS))?;
    let exceptions = &all_exceptions.tests;

    let (found, mut problems) = scan(workspace, &statements)?;
    for (tag, reason) in exceptions {
        if !statements.contains_key(&key(tag)) {
            problems.push(format!("{EXCEPTIONS}: {tag} is no statement"));
        } else if found.contains_key(tag) {
            problems.push(format!("{EXCEPTIONS}: {tag} has tests"));
        } else if reason.trim().is_empty() {
            problems.push(format!("{EXCEPTIONS}: {tag} lacks a reason"));
        }
    }
    let open = statements
        .values()
        .filter(|(tag, _)| is_open(tag, &found, exceptions));
    if args.strict {
        problems.extend(
            open.clone()
                .map(|(tag, statement)| format!("{tag} has no test: {}", statement.demand)),
        );
    }
    let (open, all) = (open.count(), statements.len());
    problems.extend(places::check(&statements, &found, &all_exceptions));

    let table = table(&statements, &found, &all_exceptions);
    let path = root.join(TABLE);
    if !args.check {
        fs::write(&path, &table).with_context(|| TABLE)?;
    } else if fs::read_to_string(&path).ok().as_deref() != Some(table.as_str()) {
        problems.push(format!("{TABLE} is old; run `cargo xtask conformance`"));
    }
    if !problems.is_empty() {
        bail!("\n{}", problems.join("\n"));
    }
    println!("{all} statements, {open} without a test or an exception");
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(name)?;
    toml::from_str(&text).with_context(name)
}

fn key(tag: &str) -> Key {
    tag.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn is_open(tag: &str, tests: &Tests, exceptions: &BTreeMap<String, String>) -> bool {
    !tests.contains_key(tag) && !exceptions.contains_key(tag)
}

/// The tests of each statement, and every tag that names none.
fn scan(workspace: &Workspace, statements: &Statements) -> Result<(Tests, Vec<String>)> {
    let listed = output(
        &mut workspace.line("git ls-files --cached --others --exclude-standard --deduplicate"),
    )?;
    let (mut found, mut problems) = (Tests::new(), Vec::new());
    for name in listed.lines() {
        let path = workspace.root().join(name);
        let is_text = Path::new(name)
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| TEXTS.contains(&extension));
        if !is_text || name == TABLE || !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| name.to_owned())?;
        for (number, line) in (1..).zip(text.lines()) {
            for tag in named(line).filter(|tag| !statements.contains_key(&key(tag))) {
                problems.push(format!("{name}:{number}: {tag} is no statement"));
            }
        }
        for (tag, test) in tests(name, &text) {
            let tests = found.entry(tag).or_default();
            if !tests.contains(&test) {
                tests.push(test);
            }
        }
    }
    Ok((found, problems))
}

/// The text of [`TABLE`].
fn table(statements: &Statements, tests: &Tests, exceptions: &Exceptions) -> String {
    let mut text = String::from(
        "# Conformance\n\n\
         Every normative statement of MQTT 5.0 and 3.1.1, whom it binds, what it demands in our own\n\
         words, and the tests that check it. `cargo xtask conformance` writes this file from\n\
         `conformance/` and from the tags in the comments of the tests.\n\n\
         What binds a client is tested with our client, what binds a server over a socket with the built\n\
         broker, and what both encode or match alike with `avocet-codec` and `avocet-topic`. *Elsewhere*\n\
         counts those of the tested statements that lack this and have other tests; *excepted* are those\n\
         that have no test. Either has its reason in its row.\n\n\
         | standard | role | statements | tested | elsewhere | excepted | open |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for (_, standard, prefix) in STANDARDS {
        for role in Role::ALL {
            let tags: Vec<&str> = statements
                .values()
                .filter(|(tag, statement)| tag.starts_with(prefix) && statement.role == role)
                .map(|(tag, _)| tag.as_str())
                .collect();
            let count = |is: &dyn Fn(&str) -> bool| tags.iter().filter(|tag| is(tag)).count();
            let _ = writeln!(
                text,
                "| {standard} | {} | {} | {} | {} | {} | {} |",
                role.name(),
                tags.len(),
                count(&|tag| tests.contains_key(tag)),
                count(&|tag| exceptions.elsewhere(tag).next().is_some()),
                count(&|tag| exceptions.tests.contains_key(tag)),
                count(&|tag| is_open(tag, tests, &exceptions.tests)),
            );
        }
    }
    for (_, standard, prefix) in STANDARDS {
        let _ = writeln!(
            text,
            "\n## {standard}\n\n| statement | role | demand | checked by |\n|---|---|---|---|"
        );
        for (tag, statement) in statements
            .values()
            .filter(|(tag, _)| tag.starts_with(prefix))
        {
            let checked = match (tests.get(tag), exceptions.tests.get(tag)) {
                (Some(tests), _) => {
                    let links = tests.iter().map(link);
                    let reasons = exceptions.elsewhere(tag);
                    let reasons = reasons.map(|reason| format!("*elsewhere*: {reason}"));
                    links.chain(reasons).collect::<Vec<_>>().join(", ")
                }
                (None, Some(reason)) => format!("*excepted*: {reason}"),
                (None, None) => "**open**".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {tag} | {} | {} | {checked} |",
                statement.role.name(),
                statement.demand,
            );
        }
    }
    text
}

fn link(Test { name, file }: &Test) -> String {
    format!("[{name}](../{file})")
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn sorts_statements_as_the_standard_does() {
        let mut tags = ["MQTT5-3.10.1-1", "MQTT5-3.2.0-10", "MQTT5-3.2.0-2"];
        tags.sort_by_key(|tag| key(tag));
        assert_eq!(tags, ["MQTT5-3.2.0-2", "MQTT5-3.2.0-10", "MQTT5-3.10.1-1"]);
    }

    #[test]
    fn tells_tested_excepted_and_open_statements() {
        let mut statements = Statements::new();
        for number in 1..=3 {
            let tag = format!("MQTT5-3.1.0-{number}");
            let statement = Statement {
                role: Role::Server,
                demand: format!("demand {number}"),
            };
            statements.insert(key(&tag), (tag, statement));
        }
        let test = Test {
            name: "refuses".to_owned(),
            file: "tests/a.rs".to_owned(),
        };
        let tests = Tests::from([("MQTT5-3.1.0-1".to_owned(), vec![test])]);
        let exceptions = Exceptions {
            tests: BTreeMap::from([("MQTT5-3.1.0-2".to_owned(), "invisible".to_owned())]),
            client_tests: BTreeMap::new(),
            server_tests: BTreeMap::from([("MQTT5-3.1.0-1".to_owned(), "closed".to_owned())]),
        };
        let table = table(&statements, &tests, &exceptions);
        for line in [
            "| MQTT 5.0 | server | 3 | 1 | 1 | 1 | 1 |",
            "| MQTT5-3.1.0-1 | server | demand 1 | [refuses](../tests/a.rs), *elsewhere*: closed |",
            "| MQTT5-3.1.0-2 | server | demand 2 | *excepted*: invisible |",
            "| MQTT5-3.1.0-3 | server | demand 3 | **open** |",
        ] {
            assert!(table.lines().any(|found| found == line), "{line}\n{table}");
        }
    }
}
