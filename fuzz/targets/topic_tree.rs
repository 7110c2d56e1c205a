//! Retained messages come and go, and subscriptions ask: the tree finds what the oracle finds, each
//! once and in order, also when a search stops after every step.
//!
//! One operation a line: `+name` adds, `-name` removes, `?filter` asks.

#![no_main]

use std::collections::BTreeSet;

use avocet_topic::{Cursor, Next, TopicFilter, TopicName, TopicTree, matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut tree = TopicTree::new();
    let mut model = BTreeSet::new();
    for line in text.lines().take(256) {
        let mut characters = line.chars();
        let sign = characters.next();
        let text = characters.as_str();
        match (sign, TopicName::new(text), TopicFilter::new(text)) {
            (Some('+'), Ok(name), _) => {
                assert_eq!(tree.insert(name, ()).is_none(), model.insert(text));
            }
            (Some('-'), Ok(name), _) => {
                assert_eq!(tree.remove(name).is_some(), model.remove(text));
            }
            (Some('?'), _, Ok(filter)) => {
                let found = search(&tree, filter);
                let wanted = tree.iter().map(|(name, ())| name);
                let wanted: Vec<_> = wanted.filter(|name| matches(filter, *name)).collect();
                assert_eq!(found, wanted, "{filter:?} in {tree:?}");
            }
            _ => {}
        }
        assert_eq!(tree.len(), model.len());
    }
    let names: BTreeSet<_> = tree.iter().map(|(name, ())| name.as_str()).collect();
    assert_eq!(names, model);
});

fn search<'s>(tree: &'s TopicTree<()>, filter: TopicFilter<'_>) -> Vec<TopicName<'s>> {
    let mut cursor = Cursor::new();
    let mut found = Vec::new();
    // A step either finds a name, or passes one that is no match, or ends the search.
    for _ in 0..=tree.len() {
        match tree.next_match(filter, &mut cursor, &mut 1) {
            Next::Match(name, ()) => found.push(name),
            Next::OutOfSteps => {}
            Next::End => return found,
        }
    }
    panic!("{filter:?} took more steps than there are names in {tree:?}");
}
