//! `docs/differential.md`: the classes with the shortest example of each.

use std::fmt::Write as _;
use std::path::Path;

use avocet_codec::Version;

use crate::classes::{CLASSES, Right};
use crate::difference::Codec;
use crate::outcome::{Input, hex};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Example {
    /// First, so that the shortest is the least.
    len: usize,
    version: Version,
    hex: String,
}

impl Example {
    pub(crate) fn of(input: &Input) -> Self {
        Self {
            len: input.bytes.len(),
            version: input.version,
            hex: hex(&input.bytes),
        }
    }
}

pub(crate) struct Page {
    inputs: usize,
    pub(crate) packets: usize,
    pub(crate) refused: usize,
    pub(crate) incomplete: usize,
    /// For each class, who differs and the shortest example.
    examples: Vec<Vec<(Codec, Example)>>,
}

/// What a person writes is above it.
const MARKER: &str = "<!-- The rest is written by the test. -->\n";

impl Page {
    pub(crate) fn new(inputs: usize) -> Self {
        Self {
            inputs,
            packets: 0,
            refused: 0,
            incomplete: 0,
            examples: vec![Vec::new(); CLASSES.len()],
        }
    }

    pub(crate) fn add(&mut self, class: usize, codec: Codec, example: Example) {
        let examples = &mut self.examples[class];
        match examples.iter_mut().find(|(other, _)| *other == codec) {
            Some((_, shortest)) => *shortest = example.min(shortest.clone()),
            None => examples.push((codec, example)),
        }
    }

    /// The codecs that are said to differ in a class, and do not.
    pub(crate) fn without_example(&self) -> Vec<(Codec, &'static str)> {
        let mut missing = Vec::new();
        for (class, examples) in CLASSES.iter().zip(&self.examples) {
            for codec in class.codecs {
                if !examples.iter().any(|(other, _)| other == codec) {
                    missing.push((*codec, class.name));
                }
            }
        }
        missing
    }

    /// Compares the page with what is found, or writes it where `AVOCET_UPDATE_DOCS` is set.
    pub(crate) fn check(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differential.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (above, written) = page.split_once(MARKER).expect("the marker");
        let text = self.text();
        if std::env::var_os("AVOCET_UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{above}{MARKER}{text}")).unwrap();
        } else {
            assert_eq!(written, text, "set AVOCET_UPDATE_DOCS=1 to write it anew");
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "\nOf {} inputs, ours sees a packet in {}, refuses {} and waits for the rest of {}.\n\n\
             | difference | codec | right | statements | judgement | shortest example |\n\
             |---|---|---|---|---|---|\n",
            self.inputs, self.packets, self.refused, self.incomplete,
        );
        for (class, examples) in CLASSES.iter().zip(&self.examples) {
            let codecs: Vec<_> = class.codecs.iter().map(|codec| codec.name()).collect();
            let right = match class.right {
                Right::Ours => "ours",
                Right::Both => "both",
            };
            let example = examples.iter().map(|(_, example)| example).min().unwrap();
            let _ = writeln!(
                text,
                "| {} | {} | {right} | {} | {} | {}: `{}` |",
                class.name,
                codecs.join(", "),
                class.statements.join(", "),
                class.why,
                example.version,
                shortened(&example.hex),
            );
        }
        text
    }
}

fn shortened(hex: &str) -> String {
    match hex.get(..80) {
        Some(start) if hex.len() > 88 => format!("{start}…"),
        _ => hex.to_owned(),
    }
}
