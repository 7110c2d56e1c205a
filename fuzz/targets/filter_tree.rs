//! Subscriptions come and go, and messages ask: the tree answers as the oracle does, and within
//! its bound.
//!
//! One operation a line: `+filter` adds, `-filter` removes, `?name` asks.

#![no_main]

use std::collections::BTreeMap;

use avocet_topic::{FilterTree, FilterTreeLimits, TopicFilter, TopicName, matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Small, so that a short input gets to the end of them.
    let limits = FilterTreeLimits {
        shapes_max: 3,
        overflow_max: 2,
    };
    let mut tree = FilterTree::with_limits(limits, 0);
    let mut model = BTreeMap::new();
    for (number, line) in text.lines().take(256).enumerate() {
        if let Some(filter) = parse(line, '+', TopicFilter::new) {
            match tree.insert(filter, number) {
                Ok(old) => assert_eq!(old, model.insert(filter.as_str(), number)),
                Err(_) => assert!(filter.has_wildcard() && !model.contains_key(filter.as_str())),
            }
        } else if let Some(filter) = parse(line, '-', TopicFilter::new) {
            assert_eq!(tree.remove(filter), model.remove(filter.as_str()));
        } else if let Some(name) = parse(line, '?', TopicName::new) {
            let mut found = Vec::new();
            tree.for_each_match(name, |value| found.push(*value));
            found.sort_unstable();
            let does_match =
                |filter| matches(TopicFilter::new(filter).expect("it was added"), name);
            let wanted = model.iter().filter(|(filter, _)| does_match(filter));
            let mut wanted: Vec<usize> = wanted.map(|(_, number)| *number).collect();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{name:?} in {model:?}");
            assert!(tree.match_cost(name) <= limits.match_cost_max());
        }
        assert_eq!(tree.len(), model.len());
    }
    for (filter, number) in &model {
        let filter = TopicFilter::new(filter).expect("it was added");
        assert_eq!(tree.get(filter), Some(number));
    }
});

/// What follows the sign, if the line starts with it.
fn parse<'a, T, E>(
    line: &'a str,
    sign: char,
    new: impl FnOnce(&'a str) -> Result<T, E>,
) -> Option<T> {
    line.strip_prefix(sign).and_then(|text| new(text).ok())
}
