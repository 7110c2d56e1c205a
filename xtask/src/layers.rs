//! Which crate may depend on which: the one table, and its comparison with the workspace.

use std::fs;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Dependency, DependencyKind, Package};

use crate::workspace::Workspace;

/// What a crate may touch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colour {
    /// `no_std` and `alloc`: no clock, socket, thread, file or randomness.
    Pure,
    /// Threads, sockets, files.
    Shell,
    /// Never published, and nothing depends on it.
    Tool,
}

use Colour::{Pure, Shell, Tool};

struct Layer {
    name: &'static str,
    colour: Colour,
    /// The crates of this workspace it may depend on; a tool may depend on all but tools.
    below: &'static [&'static str],
}

const fn layer(name: &'static str, colour: Colour, below: &'static [&'static str]) -> Layer {
    Layer {
        name,
        colour,
        below,
    }
}

/// A new edge needs a decision record. What no edge may change: the engine and the store meet in
/// the journal and above it, the client and the broker meet in no crate but tools, and below the store and the
/// transport there is no MQTT.
#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    layer("avocet-bytes",     Pure,  &[]),
    layer("avocet-topic",     Pure,  &["avocet-bytes"]),
    layer("avocet-codec",     Pure,  &["avocet-bytes", "avocet-topic"]),
    layer("avocet-access",    Pure,  &["avocet-topic"]),
    layer("avocet-session",   Pure,  &["avocet-bytes", "avocet-topic", "avocet-codec"]),
    layer("avocet-engine",    Pure,  &["avocet-topic", "avocet-codec", "avocet-access", "avocet-session"]),
    layer("avocet-store",     Shell, &[]),
    layer("avocet-journal",   Shell, &["avocet-topic", "avocet-codec", "avocet-session", "avocet-engine",
                                       "avocet-store"]),
    layer("avocet-transport", Shell, &[]),
    layer("avocet-linux",     Shell, &[]),
    layer("avocet-uring",     Shell, &[]),
    layer("avocet-client",    Shell, &["avocet-topic", "avocet-codec", "avocet-access", "avocet-session",
                                       "avocet-store", "avocet-transport"]),
    layer("avocet-broker",    Shell, &["avocet-topic", "avocet-codec", "avocet-access", "avocet-session",
                                       "avocet-engine", "avocet-store", "avocet-journal", "avocet-transport",
                                       "avocet-linux", "avocet-uring"]),
    layer("avocet-cli",       Shell, &["avocet-topic", "avocet-codec", "avocet-access", "avocet-session",
                                       "avocet-client", "avocet-transport"]),
    layer("avocet-testing",   Shell, &["avocet-client", "avocet-engine", "avocet-session"]),
    layer("avocet-sim",       Tool,  &[]),
    layer("avocet-tests",     Tool,  &[]),
    layer("avocet-benches",   Tool,  &[]),
    layer("xtask",            Tool,  &[]),
];

/// Crates that do I/O or keep time: for shells and tools, or behind a feature that is off.
const IO_CRATES: &[&str] = &[
    "hyper",
    "hyper-util",
    "io-uring",
    "mio",
    "quinn",
    "rustls",
    "rustls-native-certs",
    "signal-hook",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tokio-util",
];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let packages = workspace.metadata.workspace_packages();
    let mut problems = Vec::new();
    for layer in LAYERS {
        if packages.iter().all(|package| *package.name != layer.name) {
            problems.push(format!(
                "{} stands in the table of layers and is no member",
                layer.name
            ));
        }
    }
    let mut edges = 0;
    for package in packages {
        let found: Vec<_> = package.dependencies.iter().map(Edge::from).collect();
        problems.extend(check_package(&package.name, &found));
        edges += found.len();
        if is_pure(&package.name) {
            problems.extend(check_no_std(package)?);
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    println!("{} crates, {edges} dependencies, all allowed", LAYERS.len());
    Ok(())
}

/// One entry of a `[dependencies]` table, of any kind.
struct Edge<'a> {
    to: &'a str,
    in_workspace: bool,
    /// Tests, examples and benches only.
    for_tests: bool,
    optional: bool,
}

impl<'a> From<&'a Dependency> for Edge<'a> {
    fn from(dependency: &'a Dependency) -> Self {
        Self {
            to: &dependency.name,
            in_workspace: dependency.path.is_some(),
            for_tests: dependency.kind == DependencyKind::Development,
            optional: dependency.optional,
        }
    }
}

fn check_package(name: &str, edges: &[Edge<'_>]) -> Vec<String> {
    let Some(from) = LAYERS.iter().find(|layer| layer.name == name) else {
        return vec![format!("{name} is missing in the table of layers")];
    };
    let mut problems = Vec::new();
    for edge in edges {
        let to = edge.to;
        let allowed = if edge.in_workspace {
            match from.colour {
                Pure | Shell => from.below.contains(&to),
                Tool => !LAYERS
                    .iter()
                    .any(|layer| layer.name == to && layer.colour == Tool),
            }
        } else {
            from.colour != Pure || edge.for_tests || edge.optional || !IO_CRATES.contains(&to)
        };
        if !allowed {
            problems.push(format!("{name} may not depend on {to}"));
        }
    }
    problems
}

fn is_pure(name: &str) -> bool {
    LAYERS
        .iter()
        .any(|layer| layer.name == name && layer.colour == Pure)
}

/// Pure crates are `no_std` in every build, tests included.
fn check_no_std(package: &Package) -> Result<Option<String>> {
    let root = package
        .targets
        .iter()
        .find(|target| target.is_lib())
        .context("a library")?;
    let text = fs::read_to_string(&root.src_path)?;
    let stated = text.lines().any(|line| line.trim() == "#![no_std]");
    Ok((!stated).then(|| format!("{} is pure and lacks `#![no_std]`", package.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(to: &str) -> Edge<'_> {
        Edge {
            to,
            in_workspace: true,
            for_tests: false,
            optional: false,
        }
    }

    fn outer(to: &str) -> Edge<'_> {
        Edge {
            to,
            in_workspace: false,
            for_tests: false,
            optional: false,
        }
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        check(&Workspace::load().unwrap()).unwrap();
    }

    #[test]
    fn refuses_an_edge_that_the_table_lacks() {
        let problems = check_package(
            "avocet-engine",
            &[inner("avocet-codec"), inner("avocet-store")],
        );
        assert_eq!(problems, ["avocet-engine may not depend on avocet-store"]);
        assert_eq!(
            check_package("avocet-client", &[inner("avocet-broker")]).len(),
            1
        );
        assert_eq!(
            check_package("avocet-store", &[inner("avocet-topic")]).len(),
            1
        );
    }

    #[test]
    fn refuses_input_and_output_in_pure_crates() {
        let problems = check_package("avocet-session", &[outer("bytes"), outer("tokio")]);
        assert_eq!(problems, ["avocet-session may not depend on tokio"]);
        assert_eq!(
            check_package("avocet-client", &[outer("tokio")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn allows_input_and_output_in_pure_crates_for_tests_and_behind_a_feature() {
        let for_tests = Edge {
            for_tests: true,
            ..outer("tokio")
        };
        let optional = Edge {
            optional: true,
            ..outer("tokio-util")
        };
        assert_eq!(
            check_package("avocet-codec", &[for_tests, optional]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn refuses_a_crate_that_the_table_lacks() {
        assert_eq!(
            check_package("avocet-misc", &[]),
            ["avocet-misc is missing in the table of layers"]
        );
    }

    #[test]
    fn lets_tools_use_everything_but_tools() {
        assert_eq!(
            check_package(
                "avocet-tests",
                &[inner("avocet-client"), inner("avocet-broker")]
            )
            .len(),
            0
        );
        assert_eq!(check_package("avocet-tests", &[inner("xtask")]).len(), 1);
    }

    #[test]
    fn no_chain_of_edges_joins_what_must_stay_apart() {
        for layer in LAYERS.iter().filter(|layer| layer.colour != Tool) {
            let below = |name| layer.below.contains(&name);
            assert!(
                !(below("avocet-client") && below("avocet-broker")),
                "{}",
                layer.name
            );
            assert!(layer.colour != Pure || layer.below.iter().all(|name| is_pure(name)));
        }
    }
}
