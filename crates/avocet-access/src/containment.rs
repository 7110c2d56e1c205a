//! Topic Filters compared with Topic Filters: whether one takes all that another one takes, and
//! whether two have a Topic Name in common.

use avocet_topic::TopicFilter;

/// Whether every Topic Name that `inner` matches is matched by `outer` too.
///
/// For a Shared Subscription pass the filter behind the Share Name.
#[must_use]
pub fn covers(outer: TopicFilter<'_>, inner: TopicFilter<'_>) -> bool {
    // [MQTT5-4.7.2-1] A wildcard in front takes no name that begins with `$`.
    if outer.starts_with_wildcard() && inner.as_str().starts_with('$') {
        return false;
    }
    let mut outer_levels = outer.levels();
    let mut inner_levels = inner.levels();
    // Nothing is named by no level, nor by a single empty one: there `#` takes no parent level.
    let (mut parent_is_name, mut first) = (false, true);
    loop {
        match (outer_levels.next(), inner_levels.next()) {
            // `#` takes its parent level too, so the inner one may have ended.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some("#")) => return !parent_is_name && outer_levels.next() == Some("#"),
            (Some(outer_level), Some(inner_level))
                if outer_level == "+" || outer_level == inner_level =>
            {
                parent_is_name = !first || !inner_level.is_empty();
                first = false;
            }
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

/// Whether some Topic Name is matched by both.
///
/// For Shared Subscriptions pass the filters behind the Share Names.
#[must_use]
pub fn overlaps(one: TopicFilter<'_>, other: TopicFilter<'_>) -> bool {
    if one.starts_with_wildcard() && other.as_str().starts_with('$')
        || other.starts_with_wildcard() && one.as_str().starts_with('$')
    {
        return false;
    }
    let mut levels = one.levels();
    let mut other_levels = other.levels();
    loop {
        match (levels.next(), other_levels.next()) {
            // `+` and `/#` meet where no name is.
            (None, Some("#")) => return one.as_str() != "+" || other.as_str() != "/#",
            (Some("#"), None) => return other.as_str() != "+" || one.as_str() != "/#",
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(level), Some(other_level)) if level == other_level => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}
