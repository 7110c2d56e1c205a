//! Limits on names and filters, and on the work of a search in a topic tree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_topic::{Cursor, Next, TopicFilter, TopicLimitError, TopicLimits, TopicName, TopicTree};

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

#[test]
fn names_and_filters_are_held_to_narrower_limits() {
    let limits = TopicLimits {
        levels_max: 3,
        bytes_max: 8,
        plus_levels_max: 1,
    };
    assert_eq!(limits.check_name(name("a/b/c")), Ok(()));
    assert_eq!(
        limits.check_name(name("a/b/c/d")),
        Err(TopicLimitError::Levels)
    );
    assert_eq!(limits.check_name(name("12345678")), Ok(()));
    assert_eq!(
        limits.check_name(name("123456789")),
        Err(TopicLimitError::Bytes)
    );
    assert_eq!(limits.check_filter(filter("a/+/#")), Ok(()));
    assert_eq!(
        limits.check_filter(filter("+/b/+")),
        Err(TopicLimitError::PlusLevels)
    );
    assert_eq!(
        limits.check_filter(filter("a/b/c/#")),
        Err(TopicLimitError::Levels)
    );
    assert_eq!(
        limits.check_filter(filter("aaaaaaa/#")),
        Err(TopicLimitError::Bytes)
    );
}

#[test]
fn a_search_looks_at_no_more_names_than_it_has_steps() {
    let mut tree = TopicTree::new();
    for i in 0..1_000 {
        tree.insert(name(&format!("a/{i}/x")), i);
    }
    let mut cursor = Cursor::new();
    assert_eq!(
        tree.next_match(filter("a/+/y"), &mut cursor, &mut 0),
        Next::OutOfSteps
    );
    let mut slices = 0;
    loop {
        let mut steps = 10;
        match tree.next_match(filter("a/+/y"), &mut cursor, &mut steps) {
            Next::Match(..) => panic!("nothing matches"),
            Next::OutOfSteps => assert_eq!(steps, 0),
            Next::End => break,
        }
        slices += 1;
    }
    assert!((1..=200).contains(&slices), "{slices}");
    assert_eq!(
        tree.next_match(filter("a/+/y"), &mut cursor, &mut 0),
        Next::End
    );
}

#[test]
fn a_search_skips_names_that_cannot_match() {
    let mut tree = TopicTree::new();
    for device in 0..20 {
        for metric in 0..500 {
            tree.insert(name(&format!("dev/{device}/metric/{metric}")), ());
            tree.insert(name(&format!("$SYS/{device}/{metric}")), ());
        }
    }
    let steps_for = |text: &str| {
        let (mut cursor, mut steps, mut found) = (Cursor::new(), usize::MAX, 0_usize);
        while let Next::Match(..) = tree.next_match(filter(text), &mut cursor, &mut steps) {
            found += 1;
        }
        (found, usize::MAX - steps)
    };
    for (text, expected, steps_max) in [
        ("dev/7/metric/42", 1, 3),
        ("dev/+/metric/42", 20, 62),
        ("dev/7/metric/+", 500, 503),
        ("dev/7/#", 500, 503),
        ("+/7/metric/42", 1, 5),
        ("#", 10_000, 10_002),
        ("none/#", 0, 2),
        ("dev/+", 0, 22),
        ("+", 0, 3),
    ] {
        let (found, steps) = steps_for(text);
        assert_eq!(found, expected, "{text}");
        assert!(steps <= steps_max, "{text} took {steps} steps");
    }
}
