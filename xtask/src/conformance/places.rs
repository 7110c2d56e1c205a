//! Where the tests of a statement have to be: a server that refuses what a client must not send proves
//! nothing about our client.

use std::collections::BTreeMap;

use super::{EXCEPTIONS, Exceptions, Role, Statements, Tests, key};

/// What a statement binds, and the tests that can show it.
struct Side {
    /// Tests here show it.
    places: &'static [&'static str],
    /// Though they are in one of the places.
    not: &'static [&'static str],
    /// As the exceptions name it.
    name: &'static str,
}

const CLIENT: Side = Side {
    places: &[
        "crates/avocet-cli/tests/",
        "crates/avocet-client/tests/",
        "crates/avocet-session/tests/client/",
        "crates/avocet-session/tests/worlds/",
        "crates/avocet-testing/tests/",
        "tests/tests/avocet_cli.rs",
    ],
    not: &[],
    name: "client-tests",
};

/// Over a socket, with the built broker.
const SERVER: Side = Side {
    places: &["crates/avocet-broker/tests/", "tests/src/", "tests/tests/"],
    not: &["tests/tests/avocet_cli.rs"],
    name: "server-tests",
};

/// What is encoded or matched is so for both roles.
const SHARED: &[&str] = &["crates/avocet-codec/", "crates/avocet-topic/"];

impl Side {
    fn has(&self, file: &str) -> bool {
        let is_in = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
        is_in(self.places) && !is_in(self.not)
    }
}

/// What is not where it should be.
pub(super) fn check(
    statements: &Statements,
    tests: &Tests,
    exceptions: &Exceptions,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (side, role, exceptions) in [
        (CLIENT, Role::Client, &exceptions.client_tests),
        (SERVER, Role::Server, &exceptions.server_tests),
    ] {
        for (tag, statement) in statements.values() {
            // Without any test it is open, or excepted.
            let Some(tests) = tests.get(tag) else {
                continue;
            };
            let binds = statement.role == role || statement.role == Role::Both;
            let shared = statement.role == Role::Both
                && tests
                    .iter()
                    .any(|test| SHARED.iter().any(|place| test.file.starts_with(place)));
            let is_shown = shared || tests.iter().any(|test| side.has(&test.file));
            match exceptions.get(tag) {
                None if binds && !is_shown => problems.push(format!(
                    "{tag} has no test in {}: {}",
                    side.places.join(", "),
                    statement.demand
                )),
                Some(_) if !binds || is_shown => {
                    problems.push(format!(
                        "{EXCEPTIONS}: {tag} needs no exception from {}",
                        side.name
                    ));
                }
                _ => {}
            }
        }
        problems.extend(unknown(statements, exceptions, side.name));
    }
    problems
}

fn unknown(
    statements: &Statements,
    exceptions: &BTreeMap<String, String>,
    table: &str,
) -> Vec<String> {
    let wrong = exceptions
        .iter()
        .filter(|(tag, reason)| !statements.contains_key(&key(tag)) || reason.trim().is_empty());
    wrong
        .map(|(tag, _)| {
            format!("{EXCEPTIONS}: {tag} of {table} is no statement, or lacks a reason")
        })
        .collect()
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn the_command_line_tool_is_a_client_though_its_server_is_another() {
        let file = "tests/tests/avocet_cli.rs";
        assert!(CLIENT.has(file) && !SERVER.has(file));
        assert!(SERVER.has("tests/src/conformance/qos.rs"));
        assert!(!SERVER.has("crates/avocet-session/tests/session/qos.rs"));
    }
}
