//! Lines of text as Topic Filters and Topic Names: parsing is total, and matching keeps its laws.

#![no_main]

use avocet_topic::{TopicFilter, TopicName, matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (mut filters, mut names) = (Vec::new(), Vec::new());
    for line in text.lines() {
        filters.extend(TopicFilter::new(line));
        names.extend(TopicName::new(line));
    }
    let all = TopicFilter::new("#").expect("a valid filter");
    for name in names {
        assert!(matches(name.into(), name), "{name:?} does not match itself");
        assert_eq!(matches(all, name), !name.starts_with_dollar(), "{name:?}");
        for filter in &filters {
            let matched = matches(*filter, name);
            if !filter.has_wildcard() {
                assert_eq!(
                    matched,
                    filter.as_str() == name.as_str(),
                    "{filter:?} {name:?}"
                );
            }
        }
    }
});
