//! Names and filters as strings that are checked when they come in.

#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_topic::{
    FilterTreeLimits, ShareNameBuf, TopicFilter, TopicFilterBuf, TopicLimits, TopicName,
    TopicNameBuf,
};

#[test]
fn names_and_filters_are_strings() {
    let filter: TopicFilterBuf = serde_json::from_str(r#""a/+/#""#).unwrap();
    assert_eq!(serde_json::to_string(&filter).unwrap(), r#""a/+/#""#);
    let name: TopicNameBuf = serde_json::from_str(r#""caf\u00e9""#).unwrap();
    assert_eq!(name.as_str(), "café");
    let name: TopicName<'_> = serde_json::from_str(r#""a/b""#).unwrap();
    assert_eq!(serde_json::to_string(&name).unwrap(), r#""a/b""#);
    assert!(serde_json::from_str::<TopicFilter<'_>>(r##""#""##).is_ok());
}

#[test]
fn broken_names_and_filters_are_refused() {
    let error = serde_json::from_str::<TopicNameBuf>(r#""a/+""#).unwrap_err();
    assert!(error.to_string().contains("wildcard character"), "{error}");
    assert!(serde_json::from_str::<TopicName<'_>>(r#""""#).is_err());
    assert!(serde_json::from_str::<TopicFilterBuf>(r##""a#""##).is_err());
    assert!(serde_json::from_str::<ShareNameBuf>(r#""a/b""#).is_err());
}

#[test]
fn limits_left_out_have_their_defaults() {
    let limits: TopicLimits = serde_json::from_str(r#"{"levels_max": 7}"#).unwrap();
    assert_eq!(
        limits,
        TopicLimits {
            levels_max: 7,
            ..TopicLimits::default()
        }
    );
    let limits: FilterTreeLimits = serde_json::from_str("{}").unwrap();
    assert_eq!(limits, FilterTreeLimits::default());
    assert!(serde_json::from_str::<TopicLimits>(r#"{"level_max": 7}"#).is_err());
}
