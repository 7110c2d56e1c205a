//! Random operations: the trees behave as plain maps asked with the oracle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use avocet_topic::{
    Cursor, FilterTree, FilterTreeLimits, Next, TopicFilter, TopicName, TopicTree, matches, shape,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => select(vec!["a", "b", "c", "", "$x", "ab", "a!", "a\u{1}", "é", "日本"])
            .prop_map(str::to_owned),
        1 => "[^/+#\0]{0,20}",
    ]
}

fn name_text() -> impl Strategy<Value = String> {
    vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |s| !s.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    let levels = vec(prop_oneof![2 => level(), 1 => Just("+".to_owned())], 0..6);
    (levels, any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("empty", |s| !s.is_empty())
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

#[derive(Clone, Debug)]
enum FilterOp {
    Insert(String),
    GetOrInsert(String),
    Remove(prop::sample::Index),
    Match(String),
}

fn filter_op() -> impl Strategy<Value = FilterOp> {
    prop_oneof![
        4 => filter_text().prop_map(FilterOp::Insert),
        1 => filter_text().prop_map(FilterOp::GetOrInsert),
        2 => any::<prop::sample::Index>().prop_map(FilterOp::Remove),
        4 => name_text().prop_map(FilterOp::Match),
    ]
}

#[derive(Clone, Debug)]
enum NameOp {
    Insert(String),
    Remove(prop::sample::Index),
    Next(usize),
}

fn name_op() -> impl Strategy<Value = NameOp> {
    prop_oneof![
        3 => name_text().prop_map(NameOp::Insert),
        2 => any::<prop::sample::Index>().prop_map(NameOp::Remove),
        3 => (0..5_usize).prop_map(NameOp::Next),
    ]
}

proptest! {
    #[test]
    fn filter_tree_agrees_with_the_oracle_after_any_operations(
        ops in vec(filter_op(), 1..120),
        shapes_max in select(vec![0, 1, 3, 1_024]),
        seed: u64,
    ) {
        let limits = FilterTreeLimits { shapes_max, overflow_max: 1_000 };
        let mut tree = FilterTree::with_limits(limits, seed);
        let mut model: BTreeMap<String, usize> = BTreeMap::new();
        for (value, op) in ops.into_iter().enumerate() {
            let before = tree.generation();
            match op {
                FilterOp::Insert(text) => {
                    prop_assert_eq!(tree.insert(filter(&text), value), Ok(model.insert(text, value)));
                    prop_assert_ne!(tree.generation(), before);
                }
                FilterOp::GetOrInsert(text) => {
                    let found = *tree.get_or_insert_with(filter(&text), || value).unwrap();
                    prop_assert_eq!(found, *model.entry(text).or_insert(value));
                }
                FilterOp::Remove(index) => {
                    let Some(text) = pick(&model, index) else { continue };
                    prop_assert_eq!(tree.remove(filter(&text)), model.remove(&text));
                    prop_assert_ne!(tree.generation(), before);
                    prop_assert_eq!(tree.remove(filter(&text)), None);
                }
                FilterOp::Match(text) => {
                    let mut found = Vec::new();
                    tree.for_each_match(name(&text), |&value| found.push(value));
                    found.sort_unstable();
                    let matching = model.iter().filter(|(f, _)| matches(filter(f), name(&text)));
                    let mut expected: Vec<usize> = matching.map(|(_, &value)| value).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                    prop_assert_eq!(tree.generation(), before);
                    prop_assert!(tree.match_cost(name(&text)) <= limits.match_cost_max());
                }
            }
            prop_assert_eq!(tree.len(), model.len());
            prop_assert!(tree.shapes_len() <= usize::from(shapes_max));
            // Nothing overflows while a shape is free.
            prop_assert!(
                tree.overflow_len() == 0 || tree.shapes_len() == usize::from(shapes_max)
            );
        }
        let all: Vec<(String, usize)> =
            tree.iter().map(|(filter, &value)| (filter.as_str().to_owned(), value)).collect();
        prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
        for (text, value) in &model {
            prop_assert_eq!(tree.get(filter(text)), Some(value));
            prop_assert_eq!(tree.get_mut(filter(text)).copied(), Some(*value));
        }
    }

    /// Whatever the order in which filters came, a match yields them in the same order.
    #[test]
    fn filter_tree_yields_matches_in_an_order_of_its_own(
        mut texts in vec(filter_text(), 1..60),
        names in vec(name_text(), 1..20),
    ) {
        texts.sort();
        texts.dedup();
        let build = |texts: &[String], seed| {
            let mut tree = FilterTree::new(seed);
            for text in texts {
                tree.insert(filter(text), text.clone()).unwrap();
            }
            tree
        };
        let forwards = build(&texts, 1);
        texts.reverse();
        let backwards = build(&texts, 2);
        for text in &names {
            let found = |tree: &FilterTree<String>| {
                let mut found = Vec::new();
                tree.for_each_match(name(text), |value| found.push(value.clone()));
                found
            };
            prop_assert_eq!(found(&forwards), found(&backwards));
        }
    }

    #[test]
    fn filters_of_one_shape_differ_in_no_wildcard(a in filter_text(), b in filter_text()) {
        let wildcards = |text: &str| -> Vec<bool> {
            filter(text).levels().map(|level| level == "+" || level == "#").collect()
        };
        let (a_shape, b_shape) = (shape(filter(&a)), shape(filter(&b)));
        prop_assert_eq!(a_shape.is_exact(), !filter(&a).has_wildcard());
        if filter(&a).has_wildcard() && filter(&b).has_wildcard() {
            let multi = |text: &str| text.ends_with('#');
            let same = wildcards(&a) == wildcards(&b) && multi(&a) == multi(&b);
            prop_assert_eq!(a_shape == b_shape, same);
        }
    }

    #[test]
    fn topic_tree_agrees_with_the_oracle(
        names in vec(name_text(), 0..80),
        filters in vec(filter_text(), 1..20),
        slice_steps in 1..9_usize,
        slice_matches in 1..9_usize,
    ) {
        let mut tree = TopicTree::new();
        for text in &names {
            tree.insert(name(text), ());
        }
        let ordered: Vec<&str> = tree.iter().map(|(name, ())| name.as_str()).collect();
        let levels = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        prop_assert!(ordered.windows(2).all(|pair| levels(pair[0]) < levels(pair[1])));
        for text in &filters {
            let mut found = Vec::new();
            let mut cursor = Cursor::new();
            let mut steps = 2 * names.len() + 1;
            while let Next::Match(name, ()) = tree.next_match(filter(text), &mut cursor, &mut steps)
            {
                found.push(name.as_str());
            }
            let mut expected = ordered.clone();
            expected.retain(|candidate| matches(filter(text), name(candidate)));
            prop_assert_eq!(&found, &expected);

            // The same in slices, whatever ends them.
            let mut found = Vec::new();
            let mut cursor = Cursor::new();
            let mut calls = 0;
            while !cursor.is_ended() {
                let mut in_this_call = 0;
                let mut steps = slice_steps;
                tree.for_each_match(filter(text), &mut cursor, &mut steps, |name, ()| {
                    found.push(name.as_str());
                    in_this_call += 1;
                    if in_this_call == slice_matches { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                calls += 1;
                prop_assert!(calls <= names.len() + 1);
            }
            prop_assert_eq!(&found, &expected);
        }
    }

    /// A search finds what is there all the time, once and in order, and nothing that is not there.
    #[test]
    fn a_search_goes_on_while_names_come_and_go(
        names in vec(name_text(), 0..60),
        ops in vec(name_op(), 0..120),
        text in filter_text(),
    ) {
        let mut tree = TopicTree::new();
        let mut model: BTreeMap<String, usize> = BTreeMap::new();
        for text in names {
            tree.insert(name(&text), 0);
            model.insert(text, 0);
        }
        let mut steady = model.clone();
        let mut found = Vec::new();
        let mut cursor = Cursor::new();
        for (value, op) in ops.into_iter().enumerate() {
            match op {
                NameOp::Insert(text) => {
                    prop_assert_eq!(tree.insert(name(&text), value), model.insert(text, value));
                }
                NameOp::Remove(index) => {
                    let Some(text) = pick(&model, index) else { continue };
                    prop_assert_eq!(tree.remove(name(&text)), model.remove(&text));
                    prop_assert_eq!(tree.get(name(&text)), None);
                    steady.remove(&text);
                }
                NameOp::Next(mut steps) => {
                    let next = tree.next_match(filter(&text), &mut cursor, &mut steps);
                    if let Next::Match(name, value) = next {
                        prop_assert_eq!(model.get(name.as_str()), Some(value));
                        found.push(name.as_str().to_owned());
                    }
                }
            }
            prop_assert_eq!(tree.len(), model.len());
        }
        let mut steps = usize::MAX;
        while let Next::Match(name, _) = tree.next_match(filter(&text), &mut cursor, &mut steps) {
            found.push(name.as_str().to_owned());
        }
        let levels = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        prop_assert!(found.windows(2).all(|pair| levels(&pair[0]) < levels(&pair[1])));
        prop_assert!(found.iter().all(|text_found| matches(filter(&text), name(text_found))));
        steady.retain(|text_steady, _| matches(filter(&text), name(text_steady)));
        prop_assert!(steady.keys().all(|text_steady| found.contains(text_steady)));

        tree.retain(|_, value| *value % 2 == 0);
        model.retain(|_, value| *value % 2 == 0);
        for (text, value) in &mut model {
            prop_assert_eq!(tree.get_mut(name(text)), Some(value));
        }
        prop_assert_eq!(tree.len(), model.len());
    }
}

fn pick(model: &BTreeMap<String, usize>, index: prop::sample::Index) -> Option<String> {
    if model.is_empty() {
        None
    } else {
        model.keys().nth(index.index(model.len())).cloned()
    }
}
