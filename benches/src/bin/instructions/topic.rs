//! Checking, inserting and matching, at 10,000 filters or names.

use std::hint::black_box;
use std::ops::ControlFlow;

use avocet_topic::{Cursor, FilterTree, TopicFilter, TopicName, TopicTree};

use crate::Work;

const FILTERS: u32 = 10_000;
const NAMES: u32 = 256;

#[derive(Clone, Copy)]
enum Kind {
    Exact,
    /// Half of them hold a `+`.
    Plus50,
    /// A fifth end in `#`.
    Hash20,
}

fn name(n: u32) -> String {
    // A prime apart, so that neighbours share no levels.
    let n = n * 7_919 % FILTERS;
    format!(
        "site/{}/line/{}/dev/{}/metric/{}",
        n / 400,
        n % 20,
        n / 20 % 500,
        n % 7
    )
}

fn filter(kind: Kind, n: u32) -> String {
    let name = name(n);
    match kind {
        Kind::Plus50 if n.is_multiple_of(2) => {
            let replaced = 1 + 2 * (n / 2 % 4);
            let levels = name.split('/').enumerate().map(|(index, level)| {
                if index == replaced as usize {
                    "+"
                } else {
                    level
                }
            });
            levels.collect::<Vec<_>>().join("/")
        }
        Kind::Hash20 if n.is_multiple_of(5) => {
            let kept = 2 * (1 + n / 5 % 3);
            let levels = name.split('/').take(kept as usize).chain(["#"]);
            levels.collect::<Vec<_>>().join("/")
        }
        Kind::Exact | Kind::Plus50 | Kind::Hash20 => name,
    }
}

fn tree(kind: Kind) -> FilterTree<u32> {
    let mut tree = FilterTree::new(0);
    for n in 0..FILTERS {
        insert(&mut tree, &filter(kind, n), n);
    }
    tree
}

fn insert(tree: &mut FilterTree<u32>, filter: &str, value: u32) {
    let inserted = tree.insert(TopicFilter::new(filter).unwrap(), value);
    assert!(inserted.is_ok(), "within the limits");
}

pub(crate) fn works() -> Vec<Work> {
    let mut works = vec![
        Work::new("topic check names", NAMES, || {
            let names: Vec<_> = (0..NAMES).map(name).collect();
            move || {
                for name in &names {
                    assert!(TopicName::new(black_box(name)).is_ok());
                }
            }
        }),
        Work::new("topic check filters", NAMES, || {
            let filters: Vec<_> = (0..NAMES).map(|n| filter(Kind::Plus50, n)).collect();
            move || {
                for filter in &filters {
                    assert!(TopicFilter::new(black_box(filter)).is_ok());
                }
            }
        }),
        Work::new("topic insert and remove plus50", NAMES, || {
            let mut tree = tree(Kind::Plus50);
            let filters: Vec<_> = (0..NAMES)
                .map(|n| format!("{}/more", filter(Kind::Plus50, n)))
                .collect();
            move || {
                for filter in &filters {
                    insert(&mut tree, filter, 1);
                }
                for filter in &filters {
                    tree.remove(TopicFilter::new(filter).unwrap());
                }
            }
        }),
        Work::new("topic retained by plus", 20, || {
            let mut tree = TopicTree::new();
            for n in 0..FILTERS {
                tree.insert(TopicName::new(&name(n)).unwrap(), n);
            }
            move || {
                for line in 0..20 {
                    let filter = format!("site/7/line/{line}/+/+/metric/+");
                    let filter = TopicFilter::new(&filter).unwrap();
                    let (mut cursor, mut steps) = (Cursor::new(), 10_000);
                    tree.for_each_match(filter, &mut cursor, &mut steps, |_, value| {
                        black_box(value);
                        ControlFlow::Continue(())
                    });
                }
            }
        }),
    ];
    for (label, kind) in [
        ("exact", Kind::Exact),
        ("plus50", Kind::Plus50),
        ("hash20", Kind::Hash20),
    ] {
        works.push(Work::new(
            format!("topic match {label}"),
            NAMES,
            move || {
                let tree = tree(kind);
                let names: Vec<_> = (0..NAMES).map(|n| name(31 * n)).collect();
                move || {
                    for name in &names {
                        let name = TopicName::new(name).unwrap();
                        tree.for_each_match(name, |value| {
                            black_box(value);
                        });
                    }
                }
            },
        ));
    }
    works
}
