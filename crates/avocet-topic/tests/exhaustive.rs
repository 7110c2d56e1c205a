//! All small names against all small filters: the trees agree with the oracle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use avocet_topic::{
    Cursor, FilterTree, FilterTreeLimits, Next, TopicFilter, TopicName, TopicTree, matches,
};

/// All texts of up to `levels` levels out of an alphabet.
fn texts(alphabet: &[&str], levels: usize) -> Vec<String> {
    let mut all: Vec<String> = alphabet.iter().map(|level| (*level).to_owned()).collect();
    let mut longest = all.clone();
    for _ in 1..levels {
        longest = longest
            .iter()
            .flat_map(|head| alphabet.iter().map(move |level| format!("{head}/{level}")))
            .collect();
        all.extend_from_slice(&longest);
    }
    all
}

fn names() -> Vec<String> {
    let mut all = texts(&["a", "b", "", "$x", "ab", "é"], 3);
    all.extend(texts(&["a", "", "$x"], 4));
    all.retain(|text| !text.is_empty());
    all.sort();
    all.dedup();
    all
}

fn filters() -> Vec<String> {
    let mut all = texts(&["a", "b", "", "$x", "+"], 3);
    all.extend(texts(&["a", "", "+"], 4));
    let under: Vec<String> = all.iter().map(|head| format!("{head}/#")).collect();
    all.extend(under);
    all.push("#".to_owned());
    all.retain(|text| !text.is_empty());
    all.sort();
    all.dedup();
    all
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

fn matches_in<V: Copy>(tree: &FilterTree<V>, text: &str) -> Vec<V> {
    let mut found = Vec::new();
    tree.for_each_match(name(text), |&value| found.push(value));
    found
}

/// [MQTT5-4.7.0-1] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2]
/// [MQTT311-4.7.1-1] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3] [MQTT311-4.7.3-1] [MQTT311-4.7.3-2]
#[test]
fn small_strings_are_names_and_filters_exactly_if_their_levels_say_so() {
    let mut strings = vec![String::new()];
    for start in 0.. {
        let Some(head) = strings.get(start).filter(|head| head.len() < 6).cloned() else {
            break;
        };
        strings.extend(['a', '/', '+', '#', '\0'].map(|character| format!("{head}{character}")));
    }
    for text in &strings {
        let plain = |level: &str| !level.contains(['+', '#', '\0']);
        let (head, last) = text
            .rsplit_once('/')
            .map_or((None, text.as_str()), |(head, last)| (Some(head), last));
        let name = !text.is_empty() && text.split('/').all(plain);
        let filter = !text.is_empty()
            && (plain(last) || last == "+" || last == "#")
            && head.is_none_or(|head| head.split('/').all(|level| plain(level) || level == "+"));
        assert_eq!(TopicName::new(text).is_ok(), name, "{text:?}");
        assert_eq!(TopicFilter::new(text).is_ok(), filter, "{text:?}");
    }
}

#[test]
fn filter_tree_with_all_small_filters_agrees_with_the_oracle() {
    let filters = filters();
    let no_tables = FilterTreeLimits {
        shapes_max: 0,
        overflow_max: u16::MAX,
    };
    let few_tables = FilterTreeLimits {
        shapes_max: 5,
        overflow_max: u16::MAX,
    };
    for limits in [FilterTreeLimits::default(), few_tables, no_tables] {
        let mut tree = FilterTree::with_limits(limits, 7);
        for (index, text) in filters.iter().enumerate() {
            assert_eq!(tree.insert(filter(text), index), Ok(None));
        }
        assert_eq!(tree.len(), filters.len());
        for text in names() {
            let mut found = matches_in(&tree, &text);
            found.sort_unstable();
            let expected: Vec<usize> = (0..filters.len())
                .filter(|&index| matches(filter(&filters[index]), name(&text)))
                .collect();
            assert_eq!(found, expected, "{text:?} with {limits:?}");
        }
    }
}

#[test]
fn filter_tree_with_each_small_filter_alone_agrees_with_the_oracle() {
    let names = names();
    for text in filters() {
        let mut tree = FilterTree::new(0);
        tree.insert(filter(&text), ()).unwrap();
        for name_text in &names {
            let found = matches_in(&tree, name_text).len() == 1;
            assert_eq!(
                found,
                matches(filter(&text), name(name_text)),
                "{text:?} {name_text:?}"
            );
        }
        assert_eq!(tree.remove(filter(&text)), Some(()));
        assert!(tree.is_empty());
        assert_eq!(tree.shapes_len(), 0);
    }
}

#[test]
fn topic_tree_with_all_small_names_agrees_with_the_oracle() {
    let names = names();
    let mut tree = TopicTree::new();
    for (index, text) in names.iter().enumerate() {
        assert_eq!(tree.insert(name(text), index), None);
    }
    let ordered: Vec<&str> = tree.iter().map(|(name, _)| name.as_str()).collect();
    for text in filters() {
        let expected: Vec<&str> = ordered
            .iter()
            .copied()
            .filter(|n| matches(filter(&text), name(n)))
            .collect();
        let mut cursor = Cursor::new();
        let mut found = Vec::new();
        let mut calls = 0;
        loop {
            let mut steps = 1;
            match tree.next_match(filter(&text), &mut cursor, &mut steps) {
                Next::Match(name, _) => found.push(name.as_str()),
                Next::OutOfSteps => {}
                Next::End => break,
            }
            calls += 1;
        }
        assert_eq!(found, expected, "{text:?}");
        // Each step looks at another name.
        assert!(calls <= names.len(), "{text:?} took {calls} steps");
    }
}

/// A search visits a subset in the same order, whatever subset of names there is.
#[test]
fn topic_tree_with_each_pair_of_small_names_agrees_with_the_oracle() {
    let names: Vec<String> = texts(&["a", "", "$x", "a\u{1}"], 3)
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let filters = texts(&["a", "", "+", "#"], 3);
    let filters: Vec<TopicFilter<'_>> = filters
        .iter()
        .filter_map(|text| TopicFilter::new(text).ok())
        .collect();
    for first in &names {
        for second in &names {
            let mut tree = TopicTree::new();
            tree.insert(name(first), ());
            tree.insert(name(second), ());
            for &filter in &filters {
                let mut found = BTreeSet::new();
                let mut cursor = Cursor::new();
                while let Next::Match(name, ()) = tree.next_match(filter, &mut cursor, &mut 10) {
                    assert!(found.insert(name.as_str()), "{filter} {name} twice");
                }
                let expected: BTreeSet<&str> = [first, second]
                    .into_iter()
                    .map(String::as_str)
                    .filter(|text| matches(filter, name(text)))
                    .collect();
                assert_eq!(found, expected, "{filter}");
            }
        }
    }
}

/// Strings are looked at in words of eight bytes, so that what stands where matters.
/// [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-2]
#[test]
fn special_characters_are_found_at_every_place() {
    // Those in the second half differ in one bit from one in the first, or have the highest.
    let inserts = [
        "+", "#", "\0", "/+/", "/#", "+/", "/+", "\"", "*", "\u{1}", "\u{3}", "\u{80}", "é",
        "\u{23f}",
    ];
    for len in 0..=25 {
        for place in 0..=len {
            for first in inserts {
                for second in ["", "+", "/+", "\0", "*", "/"] {
                    let head = "x".repeat(place);
                    let tail = "x".repeat(len - place);
                    let text = format!("{head}{first}{tail}{second}");
                    let levels: Vec<&str> = text.split('/').collect();
                    let whole = levels
                        .iter()
                        .enumerate()
                        .all(|(index, level)| match *level {
                            "+" => true,
                            "#" => index + 1 == levels.len(),
                            _ => !level.contains(['+', '#']),
                        });
                    let plain = !text.contains('\0');
                    assert_eq!(TopicFilter::new(&text).is_ok(), plain && whole, "{text:?}");
                    let name = plain && !text.contains(['+', '#']);
                    assert_eq!(TopicName::new(&text).is_ok(), name, "{text:?}");
                    check_bytes(&text);
                }
            }
        }
    }
}

/// Bytes are judged as their text is, and refused when they are none.
fn check_bytes(text: &str) {
    let filter = TopicFilter::new(text).ok();
    assert_eq!(TopicFilter::from_utf8(text.as_bytes()), filter, "{text:?}");
    let name = TopicName::new(text).ok();
    assert_eq!(TopicName::from_utf8(text.as_bytes()), name, "{text:?}");
    for byte in [0x80, 0xc3, 0xff] {
        let bytes = [text.as_bytes(), &[byte]].concat();
        assert_eq!(TopicFilter::from_utf8(&bytes), None, "{bytes:?}");
        assert_eq!(TopicName::from_utf8(&bytes), None, "{bytes:?}");
    }
}
