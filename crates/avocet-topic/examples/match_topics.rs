//! Prints which Topic Filters match which Topic Names, asked from both sides.
//!
//! `match_topics [FILTER_OR_NAME]...` takes arguments with wildcards as filters, others as names;
//! without arguments it shows some of its own.

use std::env;
use std::error::Error;

use avocet_topic::{Cursor, FilterTree, Next, TopicFilter, TopicName, TopicTree};

const EXAMPLES: [&str; 8] = [
    "sport/tennis/+",
    "sport/#",
    "+/+",
    "#",
    "$SYS/#",
    "sport/tennis/player1",
    "/finance",
    "$SYS/broker/uptime",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut texts: Vec<String> = env::args().skip(1).collect();
    if texts.is_empty() {
        texts = EXAMPLES.map(str::to_owned).to_vec();
    }
    let mut filters = FilterTree::new(0);
    let mut names = TopicTree::new();
    for text in &texts {
        let filter = TopicFilter::new(text).map_err(|error| format!("{text}: {error}"))?;
        if filter.has_wildcard() {
            filters.insert(filter, filter)?;
        } else {
            names.insert(TopicName::new(text)?, ());
        }
    }

    // What a PUBLISH asks: which subscriptions want this name?
    for (name, ()) in names.iter() {
        println!("{name}");
        filters.for_each_match(name, |filter| println!("    is matched by {filter}"));
    }

    // What a SUBSCRIBE asks: which retained messages does this filter want? Ten steps at a time.
    for (filter, _) in filters.iter() {
        println!("{filter}");
        let mut cursor = Cursor::new();
        let mut steps = 10;
        loop {
            match names.next_match(filter, &mut cursor, &mut steps) {
                Next::Match(name, ()) => println!("    matches {name}"),
                Next::OutOfSteps => steps = 10,
                Next::End => break,
            }
        }
    }
    Ok(())
}
