//! Every example of sections 4.7 and 4.8.2 of MQTT 5.0, and of section 4.7 of MQTT 3.1.1.

use avocet_topic::{
    Cursor, FilterTree, Next, Share, ShareError, ShareName, ShareNameError, TopicFilter,
    TopicFilterError, TopicName, TopicNameError, TopicTree, matches,
};

/// Filter, name, and whether they match: asks the oracle and both trees.
#[track_caller]
fn check(table: &[(&str, &str, bool)]) {
    for &(filter_text, name_text, expected) in table {
        let filter = TopicFilter::new(filter_text).expect(filter_text);
        let name = TopicName::new(name_text).expect(name_text);
        assert_eq!(matches(filter, name), expected, "{filter_text} {name_text}");

        let mut filters = FilterTree::new(0);
        filters.insert(filter, ()).expect("room for one");
        let mut found = false;
        filters.for_each_match(name, |()| found = true);
        assert_eq!(found, expected, "filter tree: {filter_text} {name_text}");

        let mut names = TopicTree::new();
        names.insert(name, ());
        let next = names.next_match(filter, &mut Cursor::new(), &mut 100);
        let wanted = if expected {
            Next::Match(name, &())
        } else {
            Next::End
        };
        assert_eq!(next, wanted, "topic tree: {filter_text} {name_text}");
    }
}

/// [MQTT5-4.7.1-1] [MQTT311-4.7.1-2]
#[test]
fn multi_level_wildcard_matches_the_parent_and_all_below() {
    check(&[
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/ranking",
            true,
        ),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/tennis/player1/#", "sport/tennis/player2", false),
        ("sport/tennis/player1/#", "sport/tennis/player10", false),
        ("sport/tennis/player1/#", "sport/tennis", false),
        ("sport/#", "sport", true),
        ("sport/#", "sport/", true),
        ("sport/#", "sports", false),
        ("sport/tennis/#", "sport/tennis", true),
        ("#", "sport/tennis/player1/score/wimbledon", true),
        ("#", "/", true),
        ("#", "sport", true),
        ("+/#", "sport", true),
        ("+/#", "sport/tennis", true),
        ("/#", "/", true),
        ("/#", "/finance", true),
        ("/#", "finance", false),
    ]);
}

/// [MQTT5-4.7.1-1] [MQTT311-4.7.1-2]
#[test]
fn multi_level_wildcard_stands_alone_and_last() {
    for valid in ["#", "sport/tennis/#", "/#", "+/#"] {
        assert_eq!(TopicFilter::new(valid).map(TopicFilter::as_str), Ok(valid));
    }
    for (invalid, error) in [
        ("sport/tennis#", TopicFilterError::MultiLevelWildcard),
        (
            "sport/tennis/#/ranking",
            TopicFilterError::MultiLevelWildcardNotLast,
        ),
        ("#/", TopicFilterError::MultiLevelWildcardNotLast),
        ("#/#", TopicFilterError::MultiLevelWildcardNotLast),
        ("##", TopicFilterError::MultiLevelWildcard),
        ("+#", TopicFilterError::SingleLevelWildcard),
        ("#+", TopicFilterError::MultiLevelWildcard),
    ] {
        assert_eq!(TopicFilter::new(invalid), Err(error), "{invalid}");
    }
}

/// [MQTT5-4.7.1-2] [MQTT311-4.7.1-3]
#[test]
fn single_level_wildcard_matches_exactly_one_level() {
    check(&[
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player2", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+", "sport", true),
        ("+", "sport/tennis", false),
        ("+/tennis/#", "sport/tennis", true),
        ("+/tennis/#", "sport/tennis/player1", true),
        ("+/tennis/#", "sport/golf", false),
        ("sport/+/player1", "sport/tennis/player1", true),
        ("sport/+/player1", "sport/tennis/player2", false),
        ("sport/+/player1", "sport//player1", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/+/+", "/finance", false),
    ]);
}

/// [MQTT5-4.7.1-2] [MQTT311-4.7.1-3]
#[test]
fn single_level_wildcard_occupies_its_level() {
    for valid in ["+", "+/tennis/#", "sport/+/player1", "/+", "+/"] {
        assert_eq!(TopicFilter::new(valid).map(TopicFilter::as_str), Ok(valid));
    }
    for invalid in ["sport+", "+sport", "sport/+tennis/x", "++", "sport/++"] {
        let error = TopicFilterError::SingleLevelWildcard;
        assert_eq!(TopicFilter::new(invalid), Err(error), "{invalid}");
    }
    assert_eq!(
        TopicFilterError::SingleLevelWildcard.to_string(),
        "wildcard '+' must occupy an entire level"
    );
}

/// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
#[test]
fn names_with_a_dollar_are_hidden_from_leading_wildcards() {
    check(&[
        ("#", "$SYS/broker/uptime", false),
        ("#", "$SYS", false),
        ("+", "$SYS", false),
        ("+/#", "$SYS/monitor", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("+/monitor", "$SYS/monitor", false),
        ("$SYS/#", "$SYS/monitor/Clients", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("$SYS/+", "$SYS/monitor", true),
        // Only the first character of the name counts.
        ("+/$SYS", "a/$SYS", true),
        ("#", "a/$SYS", true),
        ("#", "/$SYS", true),
        ("+/+", "a/$", true),
    ]);
}

/// [MQTT5-4.7.3-4] [MQTT311-4.7.3-4]
#[test]
fn names_are_compared_byte_by_byte() {
    check(&[
        ("ACCOUNTS", "Accounts", false),
        ("Accounts payable", "Accounts payable", true),
        ("/finance", "finance", false),
        ("finance", "finance/", false),
        ("a//b", "a/b", false),
        ("a//b", "a//b", true),
        ("/", "/", true),
        ("+/+", "/", true),
        // U+00E9, and the same letter out of two code points.
        ("caf\u{e9}", "caf\u{e9}", true),
        ("caf\u{e9}", "cafe\u{301}", false),
        ("é/+", "é/x", true),
        ("+/日本", "é/日本", true),
        // Two bytes of one character are no separator.
        ("a/+", "a/\u{12f}\u{2f2f}", true),
        ("\u{feff}", "\u{feff}", true),
    ]);
}

/// [MQTT5-4.7.0-1] [MQTT5-3.3.2-2] [MQTT311-4.7.1-1] [MQTT311-3.3.2-2]
#[test]
fn wildcards_have_no_place_in_a_topic_name() {
    for text in ["+", "#", "a/+", "a/#", "a+", "a#b"] {
        assert_eq!(
            TopicName::new(text),
            Err(TopicNameError::Wildcard),
            "{text}"
        );
    }
}

/// [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
#[test]
fn names_and_filters_have_at_least_one_character() {
    assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
    assert_eq!(TopicFilter::new(""), Err(TopicFilterError::Empty));
    // A lone separator, and blanks, are allowed.
    assert!(TopicName::new("/").is_ok());
    assert!(TopicName::new(" ").is_ok());
    assert!(TopicFilter::new("/").is_ok());
}

/// [MQTT5-4.7.3-2] [MQTT5-1.5.4-2] [MQTT311-4.7.3-2] [MQTT311-1.5.3-2]
#[test]
fn names_and_filters_hold_no_null_character() {
    assert_eq!(TopicName::new("a/\0"), Err(TopicNameError::Nul));
    assert_eq!(TopicFilter::new("\0/#"), Err(TopicFilterError::Nul));
    assert_eq!(ShareName::new("a\0"), Err(ShareNameError::Nul));
}

/// [MQTT5-4.7.3-3] [MQTT311-4.7.3-3]
#[test]
fn names_and_filters_have_at_most_65_535_bytes() {
    let longest = "é".repeat(32_767) + "x";
    assert_eq!(longest.len(), 65_535);
    assert!(TopicName::new(&longest).is_ok());
    assert!(TopicFilter::new(&longest).is_ok());
    let longer = "é".repeat(32_768);
    assert_eq!(TopicName::new(&longer), Err(TopicNameError::TooLong));
    assert_eq!(TopicFilter::new(&longer), Err(TopicFilterError::TooLong));
    for (longest, longer) in [(longest, longer), ("x".repeat(65_535), "x".repeat(65_536))] {
        assert!(TopicName::from_utf8(longest.as_bytes()).is_some());
        assert!(TopicFilter::from_utf8(longest.as_bytes()).is_some());
        assert_eq!(TopicName::from_utf8(longer.as_bytes()), None);
        assert_eq!(TopicFilter::from_utf8(longer.as_bytes()), None);
    }
}

fn share(text: &str) -> Result<Option<(&str, &str)>, ShareError> {
    let filter = TopicFilter::new(text).expect(text);
    let share = filter.share()?;
    Ok(share.map(
        |Share {
             share_name,
             topic_filter,
         }| (share_name.as_str(), topic_filter.as_str()),
    ))
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
#[test]
fn shared_subscriptions_split_into_share_name_and_filter() {
    assert_eq!(
        share("$share/consumer1/sport/tennis/+"),
        Ok(Some(("consumer1", "sport/tennis/+")))
    );
    assert_eq!(
        share("$share/consumer2/sport/tennis/+"),
        Ok(Some(("consumer2", "sport/tennis/+")))
    );
    assert_eq!(
        share("$share/consumer1//finance"),
        Ok(Some(("consumer1", "/finance")))
    );
    assert_eq!(share("$share/consumer1/#"), Ok(Some(("consumer1", "#"))));
    assert_eq!(
        share("$share/consumer1/$SYS/#"),
        Ok(Some(("consumer1", "$SYS/#")))
    );
    assert_eq!(share("$share/g//"), Ok(Some(("g", "/"))));
    assert_eq!(share("sport/tennis/+"), Ok(None));
    assert_eq!(share("$share"), Ok(None));
    assert_eq!(share("$shared/consumer1/x"), Ok(None));
    assert_eq!(share("/$share/consumer1/x"), Ok(None));
    assert_eq!(share("$SHARE/consumer1/x"), Ok(None));
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
#[test]
fn shared_subscriptions_need_a_plain_share_name_and_a_filter() {
    use ShareError::{ShareName, TopicFilterMissing};
    for (text, error) in [
        ("$share/", ShareName(ShareNameError::Empty)),
        ("$share//x", ShareName(ShareNameError::Empty)),
        ("$share/+/x", ShareName(ShareNameError::Reserved)),
        ("$share/#", ShareName(ShareNameError::Reserved)),
        ("$share/+", ShareName(ShareNameError::Reserved)),
        ("$share/consumer1", TopicFilterMissing),
        ("$share/consumer1/", TopicFilterMissing),
    ] {
        assert_eq!(share(text), Err(error), "{text}");
    }
}

/// [MQTT5-4.7.2-1] [MQTT5-4.8.2-2]
#[test]
fn the_dollar_rule_holds_for_the_filter_behind_the_share_name() {
    let name = TopicName::new("$SYS/monitor").expect("valid");
    for (text, expected) in [
        ("$share/g/#", false),
        ("$share/g/+/monitor", false),
        ("$share/g/$SYS/#", true),
    ] {
        let share = TopicFilter::new(text)
            .expect(text)
            .share()
            .expect(text)
            .expect(text);
        assert_eq!(matches(share.topic_filter, name), expected, "{text}");
    }
}

#[test]
fn levels_are_what_stands_between_the_separators() {
    let levels = |text| {
        TopicName::new(text)
            .expect(text)
            .levels()
            .collect::<Vec<_>>()
    };
    assert_eq!(levels("sport"), ["sport"]);
    assert_eq!(levels("/finance"), ["", "finance"]);
    assert_eq!(levels("/"), ["", ""]);
    assert_eq!(levels("a//b/"), ["a", "", "b", ""]);
    let filter = TopicFilter::new("a/+/#").expect("valid");
    assert_eq!(filter.levels().collect::<Vec<_>>(), ["a", "+", "#"]);
    assert!(filter.has_wildcard() && !filter.starts_with_wildcard());
}
