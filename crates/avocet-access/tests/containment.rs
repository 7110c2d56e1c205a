//! Filters compared with filters, against all small names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_access::{covers, overlaps};
use avocet_topic::{TopicFilter, TopicName, matches};

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

/// One level more than any filter, and a level (`x`) that no filter names.
fn names(levels: usize) -> Vec<String> {
    let mut all = texts(&["a", "", "$b", "x"], levels);
    all.retain(|text| !text.is_empty());
    all
}

fn filters(levels: usize) -> Vec<String> {
    let mut all = texts(&["a", "", "$b", "+"], levels);
    let under: Vec<String> = all.iter().map(|head| format!("{head}/#")).collect();
    all.extend(under);
    all.push("#".to_owned());
    all.retain(|text| !text.is_empty());
    all
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

/// For each name, whether a filter takes it.
fn taken(filter_text: &str, names: &[String]) -> Vec<bool> {
    let names = names.iter().map(|name| TopicName::new(name).unwrap());
    names
        .map(|name| matches(filter(filter_text), name))
        .collect()
}

#[test]
fn all_small_filters_compare_as_the_names_they_take() {
    let names = names(5);
    let filters = filters(3);
    let filters: Vec<_> = filters
        .iter()
        .map(|text| (text, taken(text, &names)))
        .collect();
    for (outer, all) in &filters {
        for (inner, some) in &filters {
            let mut pairs = all.iter().zip(some);
            let covered = pairs.clone().all(|(all, some)| *all || !*some);
            let common = pairs.any(|(all, some)| *all && *some);
            let (outer, inner) = (filter(outer), filter(inner));
            assert_eq!(covers(outer, inner), covered, "{outer} covers {inner}");
            assert_eq!(overlaps(outer, inner), common, "{outer} overlaps {inner}");
        }
    }
}

#[test]
fn examples_compare_as_people_expect() {
    for (outer, inner, covered, common) in [
        ("#", "a/+/#", true, true),
        ("#", "$SYS/#", false, false),
        ("$SYS/#", "#", false, false),
        ("+/#", "#", true, true),
        ("+", "#", false, true),
        ("a/#", "a", true, true),
        ("a/+", "a/#", false, true),
        ("a/+/c", "a/b/c", true, true),
        ("a/b/c", "a/+/c", false, true),
        ("a/b", "a/c", false, false),
        ("/+/#", "/#", true, true),
        ("//+/#", "//#", false, true),
        ("+", "/#", false, false),
        ("a/+/c", "a/b/+", false, true),
    ] {
        assert_eq!(
            covers(filter(outer), filter(inner)),
            covered,
            "{outer} {inner}"
        );
        assert_eq!(
            overlaps(filter(outer), filter(inner)),
            common,
            "{outer} {inner}"
        );
    }
}
