//! ACL files of mosquitto, as rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_access::{AclProblem, Identity, QoS, Request, Rules, import_acl};
use avocet_topic::{TopicFilter, TopicName};
use proptest::prelude::*;

const EXAMPLE: &str = "\
# guests
topic read $SYS/#
topic status

user ann
topic read sensors/#
topic write commands/+
topic deny sensors/secret

user bob smith
topic readwrite with space/#

pattern write devices/%c/up
pattern read devices/%u/{down}
";

fn may(rules: &Rules, identity: &Identity, action: &str, topic: &str) -> bool {
    let (qos, retain) = (QoS::AtMostOnce, false);
    let topic_name = TopicName::new(topic).unwrap();
    let request = match action {
        "write" => Request::Publish {
            topic_name,
            qos,
            retain,
        },
        _ => Request::Deliver {
            topic_name,
            qos,
            retain,
        },
    };
    rules.decide(identity, &request).is_allowed()
}

#[test]
fn the_same_is_allowed_as_in_mosquitto() {
    let rules = import_acl(EXAMPLE).unwrap();
    let guest = Identity::new("c1", None);
    let ann = Identity::new("c1", Some("ann"));
    let bob = Identity::new("c2", Some("bob smith"));
    for (identity, action, topic, expected) in [
        (&guest, "read", "$SYS/uptime", true),
        (&guest, "write", "status", true),
        (&guest, "read", "status", true),
        (&guest, "read", "sensors/a", false),
        (&ann, "read", "status", false),
        (&ann, "read", "sensors/a", true),
        (&ann, "write", "sensors/a", false),
        (&ann, "write", "commands/a", true),
        // `deny` counts first, though it stands last.
        (&ann, "read", "sensors/secret", false),
        (&bob, "write", "with space/a", true),
        (&guest, "write", "devices/c1/up", true),
        (&guest, "write", "devices/c2/up", false),
        (&ann, "read", "devices/ann/{down}", true),
        (&guest, "read", "devices/ann/{down}", false),
    ] {
        assert_eq!(
            may(&rules, identity, action, topic),
            expected,
            "{action} {topic}"
        );
    }
    let request = Request::Subscribe {
        topic_filter: TopicFilter::new("#").unwrap(),
        qos: QoS::ExactlyOnce,
    };
    assert!(rules.decide(&guest, &request).is_allowed());
}

#[test]
fn a_verdict_names_the_line_it_comes_from() {
    let rules = import_acl(EXAMPLE).unwrap();
    let request = Request::Deliver {
        topic_name: TopicName::new("sensors/secret").unwrap(),
        qos: QoS::AtMostOnce,
        retain: false,
    };
    let verdict = rules.decide(&Identity::new("c", Some("ann")), &request);
    let decided = rules.describe(verdict.decided_by).to_string();
    assert_eq!(decided, "rule 1 \"mosquitto line 8\"");
}

#[test]
fn what_cannot_be_said_is_refused_with_its_line() {
    for (text, line, problem) in [
        ("\nallow a", 2, AclProblem::Word("allow".into())),
        ("user", 1, AclProblem::UserMissing),
        ("topic", 1, AclProblem::TopicMissing("topic")),
        ("pattern  ", 1, AclProblem::TopicMissing("pattern")),
        ("topic reed a", 1, AclProblem::Access("reed".into())),
    ] {
        let error = import_acl(text).unwrap_err();
        assert_eq!((error.line, error.problem), (line, problem), "{text}");
    }
    let said = import_acl("topic read a#").unwrap_err().to_string();
    assert_eq!(
        said,
        "line 1: \"a#\": wildcard '#' must occupy an entire level"
    );
}

#[test]
fn one_word_behind_topic_is_the_topic() {
    let rules = import_acl("topic read\n").unwrap();
    assert!(may(&rules, &Identity::new("c", None), "write", "read"));
}

#[cfg(feature = "toml")]
#[test]
fn what_is_imported_is_a_rules_file() {
    let rules = import_acl(EXAMPLE).unwrap();
    assert_eq!(Rules::from_toml(&rules.to_string()), Ok(rules));
}

proptest! {
    #[test]
    fn no_text_is_more_than_refused(text in "((user|topic|pattern|#) ?(read |deny )?[%cu+#/a{} ]{0,8}\n){0,4}") {
        match import_acl(&text) {
            Ok(rules) => prop_assert!(!rules.as_slice().is_empty()),
            Err(error) => prop_assert!((1..=text.lines().count()).contains(&error.line)),
        }
    }
}
