//! Section 4.7 by the letter: the oracle that the fast structures are tested against.

use crate::{TopicFilter, TopicName};

/// Whether a Topic Filter matches a Topic Name, by section 4.7 of both standards.
///
/// For a Shared Subscription pass the filter behind the Share Name ([`TopicFilter::share`]).
#[must_use]
pub fn matches(filter: TopicFilter<'_>, name: TopicName<'_>) -> bool {
    // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
    if filter.starts_with_wildcard() && name.starts_with_dollar() {
        return false;
    }
    let mut filter_levels = filter.levels();
    let mut name_levels = name.levels();
    loop {
        match (filter_levels.next(), name_levels.next()) {
            // `#` matches its parent level too, so the name may have ended.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            // [MQTT5-4.7.3-4] [MQTT311-4.7.3-4]: compared byte by byte, nothing is normalised.
            (Some(filter_level), Some(name_level)) if filter_level == name_level => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}
