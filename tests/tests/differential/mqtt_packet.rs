//! mqtt-packet (npm), in one `node` that decodes a line at a time.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Command, Stdio};
use std::thread;

use avocet_tests::provision;
use serde::Deserialize;

use crate::outcome::{Input, Outcome, Seen, Theirs, hex};

/// What `clients/mqttjs/decode.js` answers.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Packet {
        name: String,
        fields: Vec<(String, String)>,
    },
    Refused(String),
    Incomplete,
}

/// Decodes all inputs, in their order.
pub(crate) fn decode(inputs: &[Input]) -> Vec<Theirs> {
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let mut node = Command::new("node")
        .env("NODE_PATH", tools.node_modules)
        .arg(provision::client_file("mqttjs/decode.js"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = node.stdin.take().unwrap();
    let stdout = node.stdout.take().unwrap();
    let answers: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            let mut stdin = BufWriter::new(stdin);
            for Input { version, bytes } in inputs {
                writeln!(stdin, "{} {}", version.protocol_level(), hex(bytes)).unwrap();
            }
        });
        BufReader::new(stdout)
            .lines()
            .map(|line| outcome(&line.unwrap()))
            .collect()
    });
    assert!(node.wait().unwrap().success());
    assert_eq!(answers.len(), inputs.len(), "an answer for every input");
    answers
}

fn outcome(line: &str) -> Theirs {
    match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
        Answer::Packet { name, fields } => {
            let mut seen = Seen::new(&name);
            for (name, value) in fields {
                seen.put(&name, value);
            }
            Outcome::Packet(seen)
        }
        Answer::Refused(message) => Outcome::Refused(message),
        Answer::Incomplete => Outcome::Incomplete,
    }
}
