//! Matching at 10,000, 100,000 and 1,000,000 filters or retained names.
//!
//! Filters are of the kind `site/A/line/B/dev/C/metric/D`; names are what they match, drawn evenly
//! or by Zipf's law. *exact*: no wildcards; *plus50*: half the filters hold one `+` (a quarter of
//! these) or two; *plus50-one*: half hold one; *plus50-evenly*: half hold one or two, as many the
//! one as the other; *hash20*: a fifth end in `#`; *patho*: all are made of `a`, `b` and `+` at
//! twelve levels, and what the limits of the tree refuse is left out.
//!
//! There are 1,000 A, 20 B, 500 C and 20 D, drawn evenly and independently; filters are distinct.
//! A name is a filter with each `+` replaced by a number below 20. So few filters have two `+` at A
//! and C, say, that all of them are there and every name matches one: that is why a name matches six
//! filters of a million in *plus50*.

#![allow(missing_docs, reason = "criterion's macros generate public functions")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::collections::HashSet;
use std::env;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use avocet_topic::{Cursor, FilterTree, TopicFilter, TopicName, TopicTree};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Names drawn before the measurement and asked in turn.
const NAMES: usize = 1 << 18;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];

fn sizes() -> Vec<usize> {
    let quick = env::var_os("AVOCET_BENCH_QUICK").is_some()
        || env::args().any(|argument| argument == "--test" || argument == "--list");
    if quick { vec![1_000] } else { SIZES.to_vec() }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Exact,
    Plus50,
    PlusOne,
    PlusEvenly,
    Hash20,
    Patho,
}

impl Kind {
    const ALL: [(&'static str, Self); 6] = [
        ("exact", Self::Exact),
        ("plus50", Self::Plus50),
        ("plus50-one", Self::PlusOne),
        ("plus50-evenly", Self::PlusEvenly),
        ("hash20", Self::Hash20),
        ("patho", Self::Patho),
    ];

    fn filter(self, random: &mut Random) -> String {
        let wild = random.next();
        let tail = random.below(4);
        let [a, b, c, d] = [1_000, 20, 500, 20].map(|end| random.below(end));
        let one = (wild >> 8) % 4;
        let other = (one + 1 + (wild >> 16) % 3) % 4;
        let plus = match self {
            _ if wild & 1 == 0 => [None, None],
            Self::Plus50 => [Some(one), Some((wild >> 16) % 4)],
            Self::PlusEvenly if (wild >> 24) & 1 == 1 => [Some(one), Some(other)],
            Self::PlusOne | Self::PlusEvenly => [Some(one), None],
            Self::Exact | Self::Hash20 | Self::Patho => [None, None],
        };
        match self {
            Self::Exact | Self::Plus50 | Self::PlusOne | Self::PlusEvenly => {
                let level = |index: u64, value: u64| {
                    if plus.contains(&Some(index)) {
                        "+".to_owned()
                    } else {
                        value.to_string()
                    }
                };
                let [a, b, c, d] = [level(0, a), level(1, b), level(2, c), level(3, d)];
                format!("site/{a}/line/{b}/dev/{c}/metric/{d}")
            }
            Self::Hash20 if !wild.is_multiple_of(5) => {
                format!("site/{a}/line/{b}/dev/{c}/metric/{d}")
            }
            Self::Hash20 if tail == 0 => format!("site/{a}/#"),
            Self::Hash20 if tail == 1 => format!("site/{a}/line/{b}/#"),
            Self::Hash20 => format!("site/{a}/line/{b}/dev/{c}/#"),
            Self::Patho => {
                let levels = (0..12).map(|_| ["a", "b", "+"][random.below(3) as usize]);
                levels.collect::<Vec<_>>().join("/")
            }
        }
    }

    /// A name that a filter matches.
    fn name(self, filter: &str, random: &mut Random) -> String {
        let level = |level: &str, random: &mut Random| match (level, self) {
            ("+", Self::Patho) => ["a", "b"][random.below(2) as usize].to_owned(),
            ("+", _) => random.below(20).to_string(),
            ("#", _) => format!("line/{}/dev/{}", random.below(20), random.below(500)),
            _ => level.to_owned(),
        };
        filter
            .split('/')
            .map(|text| level(text, random))
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// Distinct filters.
fn filters(kind: Kind, count: usize) -> Vec<String> {
    let mut random = Random(1);
    let mut seen = HashSet::new();
    let attempts = std::iter::repeat_with(|| kind.filter(&mut random)).take(4 * count);
    attempts
        .filter(|text| seen.insert(text.clone()))
        .take(count)
        .collect()
}

fn build(filters: &[String]) -> FilterTree<u32> {
    let mut tree = FilterTree::new(0);
    for (value, text) in filters.iter().enumerate() {
        // Refused by the limits: only pathological filters are.
        let _ = tree.insert(TopicFilter::new(text).unwrap(), value as u32);
    }
    tree
}

/// What a server stands still for; the best of three, for the machine may have stood still too.
fn longest_insertion(filters: &[String]) -> Duration {
    let longest = || {
        let mut tree = FilterTree::new(0);
        let insert = |text: &String| {
            let filter = TopicFilter::new(text).unwrap();
            let begun = Instant::now();
            let _ = tree.insert(filter, 0_u32);
            begun.elapsed()
        };
        filters.iter().map(insert).max().unwrap_or_default()
    };
    (0..3).map(|_| longest()).min().unwrap_or_default()
}

/// Ranks by Zipf's law with exponent 1: the density of a rank falls with its inverse.
fn zipf(random: &mut Random, count: usize) -> usize {
    let even = random.below(1 << 53) as f64 / (1_u64 << 53) as f64;
    ((count as f64).powf(even) as usize).min(count) - 1
}

fn names(kind: Kind, filters: &[String], skewed: bool) -> Vec<String> {
    let mut random = Random(2);
    let count = filters.len();
    let mut pick = || {
        let rank = if skewed {
            zipf(&mut random, count)
        } else {
            random.below(count as u64) as usize
        };
        // One rank always asks with the same name.
        kind.name(&filters[rank], &mut Random(rank as u64))
    };
    (0..NAMES.min(4 * count)).map(|_| pick()).collect()
}

fn matching(c: &mut Criterion) {
    for size in sizes() {
        for (label, kind) in Kind::ALL {
            let filters = filters(kind, size);
            let tree = build(&filters);
            let mut group = c.benchmark_group(format!("match/{label}"));
            for (drawn, skewed) in [("zipf", true), ("even", false)] {
                let names = names(kind, &filters, skewed);
                let names: Vec<TopicName<'_>> = names
                    .iter()
                    .map(|text| TopicName::new(text).unwrap())
                    .collect();
                let mut next = (0..names.len()).cycle();
                group.bench_function(BenchmarkId::new(drawn, size), |b| {
                    b.iter(|| {
                        let mut sum = 0_u64;
                        tree.for_each_match(names[next.next().unwrap()], |&value| {
                            sum += u64::from(value);
                        });
                        black_box(sum)
                    });
                });
                let mut matches = 0_usize;
                let mut cost = 0_usize;
                for &name in &names {
                    tree.for_each_match(name, |_| matches += 1);
                    cost = cost.max(tree.match_cost(name));
                }
                let text_bytes: usize = tree.iter().map(|(filter, _)| filter.as_str().len()).sum();
                println!(
                    "{label} {drawn} {size}: {} filters, {} shapes, {:.1} matches per name, at \
                     most {cost} probes, {:.1} bytes per filter beyond {:.1} of text",
                    tree.len(),
                    tree.shapes_len(),
                    matches as f64 / names.len() as f64,
                    (tree.allocated_bytes() - text_bytes) as f64 / tree.len() as f64,
                    text_bytes as f64 / tree.len() as f64,
                );
            }
            group.finish();
        }
    }
}

fn inserting(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert");
    for size in sizes() {
        group.throughput(Throughput::Elements(size as u64));
        for (label, kind) in [("exact", Kind::Exact), ("plus50", Kind::Plus50)] {
            let filters = filters(kind, size);
            println!(
                "{label} {size}: the longest insertion takes {:?}",
                longest_insertion(&filters)
            );
            group.sample_size(10);
            group.bench_function(BenchmarkId::new(label, size), |b| {
                b.iter(|| build(&filters))
            });
        }
    }
    group.finish();
}

fn retained(c: &mut Criterion) {
    for size in sizes() {
        let mut tree = TopicTree::new();
        let texts = filters(Kind::Exact, size);
        for (value, text) in texts.iter().enumerate() {
            tree.insert(TopicName::new(text).unwrap(), value);
        }
        let mut group = c.benchmark_group("retained");
        // One name, one level among many names, and everything, a thousand matches at a time.
        let one = texts[size / 2].clone();
        let site = one
            .split('/')
            .take(2)
            .chain(["#"])
            .collect::<Vec<_>>()
            .join("/");
        let plus = one
            .rsplit_once('/')
            .map(|(head, _)| format!("{head}/+"))
            .unwrap();
        let metric = "site/+/line/+/dev/7/metric/+".to_owned();
        for (label, text) in [
            ("name", one),
            ("site", site),
            ("plus", plus),
            ("middle", metric),
            ("all", "#".into()),
        ] {
            let filter = TopicFilter::new(&text).unwrap();
            let run = || {
                let (mut cursor, mut steps, mut found) = (Cursor::new(), 1_000, 0_u64);
                tree.for_each_match(filter, &mut cursor, &mut steps, |_, &value| {
                    black_box(value);
                    found += 1;
                    ControlFlow::Continue(())
                });
                found
            };
            group.throughput(Throughput::Elements(run().max(1)));
            group.bench_function(BenchmarkId::new(label, size), |b| b.iter(run));
        }
        group.finish();
    }
}

criterion_group!(benches, matching, inserting, retained);
criterion_main!(benches);
