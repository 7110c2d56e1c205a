use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::{TopicName, matches};

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

/// All texts of this many levels out of an alphabet.
fn texts(alphabet: &[&str], levels: usize) -> Vec<String> {
    let mut all: Vec<String> = alphabet.iter().map(|&level| level.into()).collect();
    for _ in 1..levels {
        let longer = |head: &String| {
            let head = head.clone();
            alphabet
                .iter()
                .map(move |level| format!("{head}/{level}"))
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Inserts what it can, and checks that what is refused changes nothing.
fn fill(tree: &mut FilterTree<usize>, texts: &[String]) -> Vec<String> {
    let mut accepted = Vec::new();
    for (value, text) in texts.iter().enumerate() {
        let before = (tree.len(), tree.generation(), tree.shapes_len());
        match tree.insert(filter(text), value) {
            Ok(None) => accepted.push(text.clone()),
            Ok(Some(_)) => panic!("{text} came twice"),
            Err(TreeFull::Shapes) => {
                assert_eq!((tree.len(), tree.generation(), tree.shapes_len()), before);
                assert_eq!(tree.get(filter(text)), None);
            }
            Err(TreeFull::Filters) => panic!("there is room"),
        }
    }
    accepted
}

#[test]
fn match_cost_is_bounded_however_hostile_the_filters() {
    let limits = FilterTreeLimits {
        shapes_max: 100,
        overflow_max: 50,
    };
    let mut tree = FilterTree::with_limits(limits, 0);
    let hostile = texts(&["a", "b", "+"], 9);
    let accepted = fill(&mut tree, &hostile);
    assert!(accepted.len() > 150);
    assert_eq!(tree.shapes_len(), 100);
    assert_eq!(tree.overflow_len(), 50);
    let name = name("a/b/a/b/a/b/a/b/a");
    assert_eq!(tree.match_cost(name), limits.match_cost_max());
    let mut found = 0;
    tree.for_each_match(name, |_| found += 1);
    let expected = accepted
        .iter()
        .filter(|text| matches(filter(text), name))
        .count();
    assert_eq!(found, expected);
}

#[test]
fn shapes_that_cannot_apply_cost_nothing() {
    let mut tree = FilterTree::new(0);
    for text in ["a/+", "a/+/+", "a/b/c/#", "+/#", "#", "a/b"] {
        tree.insert(filter(text), 0).unwrap();
    }
    assert_eq!(tree.shapes_len(), 5);
    assert_eq!(tree.match_cost(name("a")), 1 + 2);
    assert_eq!(tree.match_cost(name("a/x")), 1 + 3);
    assert_eq!(tree.match_cost(name("a/b/c")), 1 + 4);
    assert_eq!(tree.match_cost(name("$a/b/c")), 1 + 2);
}

#[test]
fn a_full_tree_takes_filters_of_its_shapes_and_no_others() {
    let limits = FilterTreeLimits {
        shapes_max: 1,
        overflow_max: 1,
    };
    let mut tree = FilterTree::with_limits(limits, 0);
    assert_eq!(tree.insert(filter("a/+"), 1), Ok(None));
    assert_eq!(tree.insert(filter("+/a"), 2), Ok(None));
    assert_eq!(tree.insert(filter("+/b"), 3), Err(TreeFull::Shapes));
    assert_eq!(tree.insert(filter("b/#"), 3), Err(TreeFull::Shapes));
    assert_eq!(tree.insert(filter("+/a"), 4), Ok(Some(2)));
    assert_eq!(tree.insert(filter("b/+"), 5), Ok(None));
    assert_eq!(tree.insert(filter("b/c"), 6), Ok(None));
    assert_eq!(tree.len(), 4);
}

#[test]
fn a_freed_shape_goes_to_the_filters_that_overflow() {
    let limits = FilterTreeLimits {
        shapes_max: 1,
        overflow_max: 3,
    };
    let mut tree = FilterTree::with_limits(limits, 0);
    let deep = format!("{}#", "a/".repeat(200));
    for (value, text) in ["a/+", deep.as_str(), "+/a", "+/b"].into_iter().enumerate() {
        assert_eq!(tree.insert(filter(text), value), Ok(None));
    }
    assert_eq!((tree.shapes_len(), tree.overflow_len()), (1, 3));
    assert_eq!(tree.remove(filter("a/+")), Some(0));
    assert_eq!((tree.shapes_len(), tree.overflow_len()), (1, 1));
    assert_eq!(tree.get(filter("+/a")), Some(&2));
    assert_eq!(tree.get(filter("+/b")), Some(&3));
    assert_eq!(tree.get(filter(&deep)), Some(&1));
}

/// Names longer than what is looked at together, with a separator at every place.
#[test]
fn levels_are_found_wherever_they_end() {
    for len in (1..40).chain(60..70).chain(124..132).chain([200]) {
        let parts = |at: usize| ("h".repeat(at), "t".repeat(len - 1 - at));
        let mut tree = FilterTree::new(5);
        for at in 0..len {
            let (head, tail) = parts(at);
            let filters = [
                format!("{head}/+"),
                format!("+/{tail}"),
                format!("{head}/{tail}/#"),
            ];
            for (text, number) in filters.iter().zip(0..) {
                tree.insert(filter(text), (at, number)).unwrap();
            }
        }
        for at in 0..len {
            let (head, tail) = parts(at);
            let mut found = vec![];
            tree.for_each_match(name(&format!("{head}/{tail}")), |&value| found.push(value));
            found.sort_unstable();
            assert_eq!(found, [(at, 0), (at, 1), (at, 2)], "{len}");
        }
    }
}

/// There is one way for names of few levels, one for many, and one for filters that have more than any shape.
#[test]
fn names_of_few_levels_and_of_many_find_their_filters() {
    for depth in [7, 8, 15, 16, 17, 18, 40, 127, 128, 129, 300] {
        let deep = |last: &str| format!("{}{last}", "a/".repeat(depth - 1));
        let filters = [
            deep("+"),
            deep("#"),
            deep("+/#"),
            deep("+/b"),
            deep("a"),
            deep("b"),
        ];
        let mut tree = FilterTree::new(0);
        for (value, text) in filters.iter().enumerate() {
            tree.insert(filter(text), value).unwrap();
        }
        for text in [deep("a"), deep("b"), deep("b/b"), deep("b/c/d"), deep("")] {
            let mut found = vec![];
            tree.for_each_match(name(&text), |&value| found.push(value));
            found.sort_unstable();
            let expected: Vec<usize> = (0..filters.len())
                .filter(|&i| matches(filter(&filters[i]), name(&text)))
                .collect();
            assert_eq!(found, expected, "{depth}");
        }
        for (value, text) in filters.iter().enumerate() {
            assert_eq!(tree.remove(filter(text)), Some(value));
        }
        assert!(tree.is_empty() && tree.shapes_len() == 0 && tree.overflow_len() == 0);
    }
}

/// Where keys tell nothing apart, texts still do when a filter comes, is asked for and goes.
#[test]
fn filters_with_the_same_hash_are_told_apart_by_their_texts() {
    let mut all = texts(&["a", "b", "longer than a word", "+"], 4);
    all.extend(
        texts(&["a", "b", "+", "#"], 2)
            .into_iter()
            .filter(|it| !it.starts_with('#')),
    );
    for pieces in [0, 1, 2, 3] {
        let mut tree = FilterTree {
            hashes: Hashes::weak(pieces),
            ..FilterTree::new(0)
        };
        assert_eq!(fill(&mut tree, &all), all);
        let hash = |text: &str| tree.hash(filter(text), shape(filter(text)));
        let same = all.iter().filter(|text| hash(text) == hash("a/b/+/a"));
        assert!(same.count() >= 3);
        let mut ids: Vec<FilterId> = all.iter().filter_map(|it| tree.id(filter(it))).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all.len());
        for (value, text) in all.iter().enumerate() {
            assert_eq!(tree.get(filter(text)), Some(&value), "{text}");
            assert_eq!(tree.insert(filter(text), value + 1), Ok(Some(value)));
            *tree.get_mut(filter(text)).unwrap() -= 1;
            let id = tree.id(filter(text)).unwrap();
            assert_eq!(tree.filter(id), Some(filter(text)));
        }
        assert_eq!(tree.get(filter("c/c/c/c")), None);
        assert_eq!(tree.remove(filter("c/c/c/+")), None);
        for (value, text) in all.iter().enumerate().step_by(2) {
            assert_eq!(tree.remove(filter(text)), Some(value), "{text}");
            assert_eq!(tree.get(filter(text)), None, "{text}");
        }
        let mut left: Vec<&str> = all.iter().skip(1).step_by(2).map(String::as_str).collect();
        left.sort_unstable();
        let found: Vec<&str> = tree.iter().map(|(filter, _)| filter.as_str()).collect();
        assert_eq!(found, left);
        for (value, text) in all.iter().enumerate().skip(1).step_by(2) {
            assert_eq!(tree.remove(filter(text)), Some(value), "{text}");
        }
        assert!(tree.is_empty());
    }
}

/// A match believes the hash, of each table once.
#[test]
fn a_match_takes_one_filter_of_each_shape_at_most() {
    let mut tree = FilterTree {
        hashes: Hashes::weak(0),
        ..FilterTree::new(0)
    };
    fill(&mut tree, &texts(&["a", "b", "+"], 3));
    let asked = name("a/b/a");
    let mut found = 0;
    tree.for_each_match(asked, |_| found += 1);
    assert_eq!(found, tree.match_cost(asked));
    assert_eq!(found, 8);
}

#[test]
fn an_id_names_its_filter_until_that_is_removed() {
    let mut tree = FilterTree::new(0);
    let text = |n: usize| match n % 3 {
        0 => format!("{n}/a/b"),
        1 => format!("{n}/+/b"),
        _ => format!("{n}/a/#"),
    };
    let mut ids = vec![];
    for n in 0..1_000 {
        tree.insert(filter(&text(n)), n).unwrap();
        ids.push(tree.id(filter(&text(n))).unwrap());
    }
    // Enough of them go that tables and texts are made anew.
    for n in (0..1_000).filter(|n| n % 10 != 0) {
        assert_eq!(tree.remove(filter(&text(n))), Some(n));
        assert_eq!(tree.filter(ids[n]), None);
    }
    for n in (0..1_000).step_by(10) {
        assert_eq!(tree.id(filter(&text(n))), Some(ids[n]));
        assert_eq!(tree.filter(ids[n]), Some(filter(&text(n))));
    }
    tree.insert(filter("new"), 1).unwrap();
    assert!(ids.contains(&tree.id(filter("new")).unwrap()));
}

#[test]
fn memory_follows_the_filters_that_are_left() {
    let mut tree = FilterTree::new(0);
    let text = |i: usize| match i % 3 {
        0 => format!("site/{i}/line/{i}/dev/{i}"),
        1 => format!("site/{i}/+/{i}/dev/{i}"),
        _ => format!("site/{i}/line/{i}/#"),
    };
    for i in 0..10_000 {
        tree.insert(filter(&text(i)), i).unwrap();
    }
    let full = tree.allocated_bytes();
    for i in 100..10_000 {
        assert_eq!(tree.remove(filter(&text(i))), Some(i));
    }
    assert!(
        tree.allocated_bytes() < full / 10,
        "{} of {full}",
        tree.allocated_bytes()
    );
    for i in 0..100 {
        assert_eq!(tree.get(filter(&text(i))), Some(&i));
    }
    // Coming and going leaves nothing behind.
    for i in 100..100_000 {
        tree.insert(filter(&text(i)), i).unwrap();
        tree.remove(filter(&text(i)));
    }
    assert!(tree.allocated_bytes() < full / 10);
}

#[test]
fn a_filter_takes_few_bytes_beyond_its_text() {
    let mut tree = FilterTree::new(0);
    let mut text_bytes = 0;
    for i in 0..20_000_u32 {
        let text = format!(
            "site/{i}/line/{}/metric",
            if i % 2 == 0 { "x" } else { "+" }
        );
        text_bytes += text.len();
        tree.insert(filter(&text), i).unwrap();
    }
    let bytes = tree.allocated_bytes() - text_bytes;
    assert!(bytes < 40 * tree.len(), "{}", bytes / tree.len());
}

#[test]
fn generation_changes_with_anything_a_match_can_show() {
    let mut tree = FilterTree::new(0);
    let mut last = tree.generation();
    let mut changed = |tree: &FilterTree<i32>| {
        let changed = tree.generation() != last;
        last = tree.generation();
        changed
    };
    tree.insert(filter("a"), 1).unwrap();
    assert!(changed(&tree));
    tree.insert(filter("a"), 2).unwrap();
    assert!(changed(&tree));
    *tree.get_mut(filter("a")).unwrap() = 3;
    assert!(changed(&tree));
    *tree.get_or_insert_with(filter("a"), || 4).unwrap() = 5;
    assert!(changed(&tree));
    tree.remove(filter("a"));
    assert!(changed(&tree));
    tree.remove(filter("a"));
    assert!(tree.get_mut(filter("a")).is_none());
    tree.for_each_match(name("a"), |_| {});
    assert!(!changed(&tree));
}

/// The room for others that will come is in proportion to what there is.
#[test]
fn one_long_filter_takes_little_more_than_its_text() {
    for bytes in [300, 5_000, 65_000] {
        let mut tree = FilterTree::new(0);
        let text = format!("+/{}", "a".repeat(bytes));
        tree.insert(filter(&text), 0).unwrap();
        let taken = tree.allocated_bytes() - FilterTree::<i32>::new(0).allocated_bytes();
        assert!(taken < bytes + bytes / 7 + 2_000, "{taken} for {bytes}");
    }
}

/// A line that is full does not have all filters that begin there; what lies behind it is found with its own
/// value, also that of the first filter, whose number is zero.
#[test]
fn a_filter_that_has_no_room_in_its_line_keeps_its_value() {
    for seed in 0..200 {
        let mut tree = FilterTree::new(0);
        // A name is asked for side by side only where there are wildcards.
        let mut wildcard = Some(filter("+/wildcard"));
        let names: Vec<String> = (0..40).map(|it| format!("{seed} {it}")).collect();
        for (number, first) in names.iter().enumerate() {
            tree.insert(filter(first), number).unwrap();
            if let Some(wildcard) = wildcard.take() {
                tree.insert(wildcard, usize::MAX).unwrap();
            }
            for (number, text) in names.iter().enumerate().take(number + 1) {
                let mut found = Vec::new();
                tree.for_each_match(name(text), |value| found.push(*value));
                assert_eq!(found, [number], "{text}");
            }
        }
    }
}
