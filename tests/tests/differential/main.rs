//! The codec and two that others wrote are given the same bytes. They see the same packet, or all
//! refuse, or the difference is of a class that has been judged by the standard.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod classes;
mod difference;
#[path = "../../../crates/avocet-codec/tests/generators/mod.rs"]
mod generators;
mod inputs;
#[path = "../../../crates/avocet-codec/tests/language/mod.rs"]
#[allow(
    dead_code,
    reason = "what a vector expects is checked where the codec is"
)]
mod language;
mod mqtt_packet;
mod ours;
mod outcome;
mod page;
mod protocol_core;

use avocet_codec::Version;

use crate::classes::CLASSES;
use crate::difference::{Codec, Difference};
use crate::outcome::{Outcome, hex};
use crate::page::{Example, Page};

#[test]
fn all_codecs_agree_or_the_difference_is_judged() {
    let inputs = inputs::inputs();
    let of_mqtt_packet = mqtt_packet::decode(&inputs);
    let mut page = Page::new(inputs.len());
    let mut unjudged = Vec::new();
    for (input, of_mqtt_packet) in inputs.iter().zip(of_mqtt_packet) {
        let ours = ours::decode(input);
        match ours {
            Outcome::Packet(_) => page.packets += 1,
            Outcome::Refused(_) => page.refused += 1,
            Outcome::Incomplete => page.incomplete += 1,
        }
        let mut outcomes = vec![(Codec::MqttPacket, of_mqtt_packet)];
        if input.version != Version::V3_1 {
            outcomes.push((Codec::ProtocolCore, protocol_core::decode(input)));
        }
        for (codec, theirs) in outcomes {
            let Some(difference) = Difference::of(codec, input, &ours, &theirs) else {
                continue;
            };
            let class = CLASSES
                .iter()
                .position(|class| class.codecs.contains(&codec) && (class.covers)(&difference));
            match class {
                Some(class) => page.add(class, codec, Example::of(input)),
                None => unjudged.push(format!(
                    "{} in {}: {}\n  ours {ours:?}\n  theirs {theirs:?}",
                    codec.name(),
                    input.version,
                    hex(&input.bytes),
                )),
            }
        }
    }
    unjudged.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    unjudged.dedup();
    assert!(
        unjudged.is_empty(),
        "{} differences are of no class; the first of them:\n{}",
        unjudged.len(),
        unjudged[..unjudged.len().min(10)].join("\n")
    );
    let missing = page.without_example();
    assert!(missing.is_empty(), "no examples of: {missing:?}");
    page.check();
}

#[test]
fn judgements_name_statements_of_the_standards() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let statements = read("mqtt5.toml") + &read("mqtt311.toml");
    for class in CLASSES {
        for statement in class.statements {
            assert!(
                statements.contains(&format!("\n\"{statement}\" =")),
                "{statement}"
            );
        }
    }
}
