//! What rules decide, and what they say of it.

#![cfg(feature = "toml")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use avocet_access::{
    Action, DecidedBy, Effect, Identity, Mismatch, Permissions, QoS, Request, Rules, TopicPattern,
};
use avocet_topic::{TopicFilter, TopicName};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn rules(text: &str) -> Rules {
    Rules::from_toml(text).unwrap()
}

fn publish(topic: &str) -> Request<'_> {
    message(Action::Publish, topic, QoS::AtMostOnce, false)
}

fn deliver(topic: &str) -> Request<'_> {
    message(Action::Deliver, topic, QoS::AtMostOnce, false)
}

fn message(action: Action, topic: &str, qos: QoS, retain: bool) -> Request<'_> {
    let topic_name = TopicName::new(topic).unwrap();
    match action {
        Action::Publish => Request::Publish {
            topic_name,
            qos,
            retain,
        },
        Action::Subscribe | Action::Deliver => Request::Deliver {
            topic_name,
            qos,
            retain,
        },
    }
}

fn subscribe(filter: &str, qos: QoS) -> Request<'_> {
    Request::Subscribe {
        topic_filter: TopicFilter::new(filter).unwrap(),
        qos,
    }
}

fn allowed(rules: &Rules, identity: &Identity, request: &Request<'_>) -> bool {
    rules.decide(identity, request).is_allowed()
}

#[test]
fn the_first_rule_about_a_request_decides() {
    let rules = rules(
        r#"
        [[rule]]
        deny = "publish"
        topic = "a/secret"
        [[rule]]
        name = "all below a"
        allow = "publish"
        topic = "a/#"
        [[rule]]
        deny = "publish"
        "#,
    );
    let anyone = Identity::new("c", None);
    let verdict = rules.decide(&anyone, &publish("a/secret"));
    assert_eq!(
        (verdict.effect, verdict.decided_by),
        (Effect::Deny, DecidedBy::Rule(0))
    );
    let verdict = rules.decide(&anyone, &publish("a/b"));
    assert_eq!(
        (verdict.effect, verdict.decided_by),
        (Effect::Allow, DecidedBy::Rule(1))
    );
    assert_eq!(
        rules.describe(verdict.decided_by).to_string(),
        "rule 2 \"all below a\" (line 5)"
    );
    let verdict = rules.decide(&anyone, &publish("b"));
    let told = rules.describe(verdict.decided_by).to_string();
    assert_eq!(told, "rule 3 (line 9)");
}

/// Whoever issues tokens says in them what their holders may do.
#[test]
fn the_topics_of_a_rule_may_be_those_of_a_claim() {
    let rules = rules(
        r#"
        [[rule]]
        allow = "publish"
        topic = "{filters:claim.acl.pub}"
        "#,
    );
    let mut holder = Identity::new("c", None);
    assert!(!allowed(&rules, &holder, &publish("a/b")));
    let filters = ["a/+", "$share/g/x", "a/#/b", "", "$SYS/x", "{user}"];
    let filters = filters.map(Box::from).to_vec();
    holder.claims.insert("acl.pub".into(), filters);
    for (topic, expected) in [
        ("a/b", true),
        ("$SYS/x", true),
        ("{user}", true),
        ("a/b/c", false),
        ("x", false),
        ("", false),
    ] {
        let Ok(topic_name) = TopicName::new(topic) else {
            continue;
        };
        let request = Request::Publish {
            topic_name,
            qos: QoS::AtMostOnce,
            retain: false,
        };
        assert_eq!(allowed(&rules, &holder, &request), expected, "{topic}");
        let permissions = Permissions::new(&Arc::new(rules.clone()), &holder);
        assert_eq!(
            permissions.decide(&request),
            rules.decide(&holder, &request)
        );
    }
    for text in [
        "{filters:user}",
        "{filters:claim.a}/b",
        "a/{filters:claim.a}",
        "{filters:claim.}",
        "{filters:claim.a",
    ] {
        assert!(text.parse::<TopicPattern>().is_err(), "{text}");
    }
}

#[test]
fn what_no_rule_is_about_has_the_default() {
    let anyone = Identity::new("c", None);
    let verdict = rules("").decide(&anyone, &publish("a"));
    assert_eq!(
        (verdict.effect, verdict.decided_by),
        (Effect::Deny, DecidedBy::Default)
    );
    assert!(allowed(
        &rules("default = \"allow\""),
        &anyone,
        &publish("a")
    ));
    assert!(allowed(
        &Rules::allow_all(),
        &anyone,
        &subscribe("#", QoS::ExactlyOnce)
    ));
}

#[test]
fn a_rule_asks_for_qos_and_retain() {
    let rules = rules(
        r#"
        [[rule]]
        allow = "publish"
        qos = [0, 1]
        retain = false
        "#,
    );
    let anyone = Identity::new("c", None);
    for (qos, retain, expected) in [
        (QoS::AtMostOnce, false, true),
        (QoS::AtLeastOnce, false, true),
        (QoS::ExactlyOnce, false, false),
        (QoS::AtMostOnce, true, false),
    ] {
        let request = message(Action::Publish, "a", qos, retain);
        assert_eq!(allowed(&rules, &anyone, &request), expected, "{request:?}");
    }
}

#[test]
fn conditions_tell_clients_apart() {
    let rules = rules(
        r#"
        [[rule]]
        user = ["ann", "bob"]
        allow = "publish"
        topic = "users"
        [[rule]]
        anonymous = true
        allow = "publish"
        topic = "guests"
        [[rule]]
        claim.role = "admin"
        cert_san = "plant.example"
        allow = "publish"
        topic = "admins"
        "#,
    );
    let ann = Identity::new("c", Some("ann"));
    let guest = Identity::new("ann", None);
    let mut admin = Identity::new("c", Some("eve"));
    admin
        .claims
        .insert("role".into(), vec!["user".into(), "admin".into()]);
    for (identity, topics) in [
        (&ann, ["users"].as_slice()),
        (&guest, &["guests"]),
        (&admin, &[]),
    ] {
        for topic in ["users", "guests", "admins"] {
            let expected = topics.contains(&topic);
            assert_eq!(
                allowed(&rules, identity, &publish(topic)),
                expected,
                "{topic}"
            );
        }
    }
    admin.cert_san.push("plant.example".into());
    assert!(allowed(&rules, &admin, &publish("admins")));
}

#[test]
fn placeholders_stand_for_what_is_known_of_a_client() {
    let rules = rules(
        r#"
        [[rule]]
        allow = "all"
        topic = ["c/{client_id}/#", "u-{user}", "{cert_cn}/x", "san/{cert_san}", "g/{claim.group}/#", "{{x}}"]
        "#,
    );
    let mut identity = Identity::new("pump", Some("ann"));
    identity.cert_cn = Some("host.example".into());
    identity.cert_san = vec!["one".into(), "two".into()];
    identity
        .claims
        .insert("group".into(), vec!["red".into(), "blue".into()]);
    for topic in [
        "c/pump",
        "c/pump/1",
        "u-ann",
        "host.example/x",
        "san/one",
        "san/two",
        "g/blue/1",
        "{x}",
    ] {
        assert!(allowed(&rules, &identity, &publish(topic)), "{topic}");
    }
    for topic in ["c/other", "u-{user}", "u-", "g/green", "c/{client_id}"] {
        assert!(!allowed(&rules, &identity, &publish(topic)), "{topic}");
    }
    assert!(allowed(
        &rules,
        &identity,
        &subscribe("g/red/+", QoS::AtMostOnce)
    ));
    assert!(!allowed(
        &rules,
        &identity,
        &subscribe("g/+/x", QoS::AtMostOnce)
    ));
}

/// Such a value could make a rule about more, or other, topics than its author meant.
#[test]
fn a_value_never_widens_a_rule() {
    let rules = rules(
        r#"
        [[rule]]
        allow = "all"
        topic = ["devices/{client_id}/#", "{user}/#", "x/{user}"]
        "#,
    );
    for value in ["", "+", "#", "a/b", "/", "a+", "a#", "a/", "\0"] {
        let mut identity = Identity::new(value, Some(value));
        for request in [
            publish("devices/a/b"),
            publish("devices"),
            publish("devices//a"),
            publish("x/a/b"),
            publish("x/"),
            publish("a/b/c"),
            subscribe("devices/#", QoS::AtMostOnce),
            subscribe("devices/+/#", QoS::AtMostOnce),
            subscribe("+/#", QoS::AtMostOnce),
            subscribe("#", QoS::AtMostOnce),
        ] {
            assert!(
                !allowed(&rules, &identity, &request),
                "{value:?} {request:?}"
            );
            let permissions = Permissions::new(&Arc::new(rules.clone()), &identity);
            assert!(
                !permissions.decide(&request).is_allowed(),
                "{value:?} {request:?}"
            );
        }
        identity.user = None;
        assert!(!allowed(&rules, &identity, &publish("x/a")));
    }
    let server = Identity::new("c", Some("$SYS"));
    assert!(!allowed(
        &rules,
        &server,
        &subscribe("$SYS/#", QoS::AtMostOnce)
    ));
    assert!(allowed(&rules, &server, &publish("x/$SYS")));
}

#[test]
fn a_subscription_is_allowed_by_what_covers_it_and_denied_by_what_it_touches() {
    let rules = rules(
        r#"
        [[rule]]
        deny = "subscribe"
        topic = "plant/secret/#"
        [[rule]]
        allow = "subscribe"
        topic = "plant/#"
        "#,
    );
    let anyone = Identity::new("c", None);
    for (filter, expected) in [
        ("plant/a", true),
        ("plant/a/+", true),
        ("plant/+", false),
        ("plant/#", false),
        ("plant/secret", false),
        ("#", false),
        ("$share/g/plant/a", true),
        ("$share/g/#", false),
    ] {
        assert_eq!(
            allowed(&rules, &anyone, &subscribe(filter, QoS::AtMostOnce)),
            expected,
            "{filter}"
        );
    }
}

#[test]
fn a_subscription_gets_the_highest_qos_that_is_allowed() {
    let rules = Arc::new(rules(
        "[[rule]]\nallow = \"subscribe\"\nqos = [0, 1]\ntopic = \"a/#\"",
    ));
    let permissions = Permissions::new(&rules, &Identity::new("c", None));
    let granted = |text, qos| permissions.subscribe(TopicFilter::new(text).unwrap(), qos);
    assert_eq!(granted("a/b", QoS::ExactlyOnce), Some(QoS::AtLeastOnce));
    assert_eq!(granted("a/b", QoS::AtMostOnce), Some(QoS::AtMostOnce));
    assert_eq!(granted("b", QoS::ExactlyOnce), None);
}

#[test]
fn a_delivery_is_judged_by_its_topic() {
    let rules = Arc::new(rules(
        "[[rule]]\ndeny = \"deliver\"\ntopic = \"a/secret\"\n[[rule]]\nallow = \"all\"",
    ));
    let permissions = Permissions::new(&rules, &Identity::new("c", None));
    assert!(!permissions.delivers_all());
    assert!(
        permissions
            .decide(&subscribe("#", QoS::AtMostOnce))
            .is_allowed()
    );
    assert!(permissions.decide(&deliver("a/b")).is_allowed());
    assert!(!permissions.decide(&deliver("a/secret")).is_allowed());
    let all = Permissions::new(&Arc::new(Rules::allow_all()), &Identity::new("c", None));
    assert!(all.delivers_all());
}

#[test]
fn an_explanation_says_why_the_rules_before_did_not_decide() {
    let rules = rules(
        r#"
        [[rule]]
        user = "ann"
        allow = "publish"
        [[rule]]
        allow = "subscribe"
        [[rule]]
        allow = "publish"
        qos = 2
        [[rule]]
        allow = "publish"
        retain = true
        [[rule]]
        allow = "publish"
        topic = "a"
        [[rule]]
        allow = "publish"
        topic = "{user}/b"
        [[rule]]
        anonymous = false
        allow = "publish"
        "#,
    );
    let explanation = rules.explain(&Identity::new("c", None), &publish("b"));
    assert_eq!(explanation.verdict.decided_by, DecidedBy::Default);
    assert_eq!(
        explanation.passed_over,
        [
            Mismatch::Field("user".parse().unwrap()),
            Mismatch::Action,
            Mismatch::Qos,
            Mismatch::Retain,
            Mismatch::Topic,
            Mismatch::Placeholder("user".parse().unwrap()),
            Mismatch::Anonymous,
        ]
    );
}

#[test]
fn an_error_names_the_line_and_what_is_allowed() {
    for (text, line, words) in [
        ("default = \"maybe\"", 1, ["maybe", "\"allow\" or \"deny\""]),
        (
            "[[rule]]\nallow = \"publihs\"",
            2,
            ["publihs", "\"deliver\""],
        ),
        (
            "[[rule]]\nallow = [\"publish\",\n\"red\"]",
            3,
            ["red", "\"subscribe\""],
        ),
        (
            "\n[[rule]]\nallow = \"all\"\ntopics = \"a\"",
            4,
            ["topics", "`topic`"],
        ),
        (
            "[[rule]]\nallow = \"all\"\ntopic = \"a#\"",
            3,
            ["a#", "entire level"],
        ),
        (
            "[[rule]]\nallow = \"all\"\ntopic = \"a/{userid}\"",
            3,
            ["a/{userid}", "client_id"],
        ),
        (
            "[[rule]]\nallow = \"all\"\ntopic = \"a/{user\"",
            3,
            ["a/{user", "{{"],
        ),
        (
            "[[rule]]\nallow = \"all\"\ntopic = \"$share/g/a\"",
            3,
            ["$share", "behind"],
        ),
        (
            "[[rule]]\nallow = \"all\"\ntopic = []",
            3,
            ["empty list", "leave the key out"],
        ),
        ("[[rule]]\nallow = \"all\"\nqos = 3", 3, ["3", "0, 1, 2"]),
        (
            "[[rule]]\nallow = \"all\"\nqos = \"1\"",
            3,
            ["1", "0, 1, 2"],
        ),
        (
            "[[rule]]\nallow = \"all\"\nretain = true",
            1,
            ["retain", "subscribe"],
        ),
        ("[[rule]]\ntopic = \"a\"", 1, ["`allow`", "`deny`"]),
        (
            "[[rule]]\nallow = \"all\"\ndeny = \"all\"",
            1,
            ["either", "`deny`"],
        ),
        ("[[rule]]\nallow = \"all\"\nuser = 7", 3, ["7", "a text"]),
        ("\n[[rule\n", 2, ["", ""]),
    ] {
        let error = Rules::from_toml(text).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.line, line, "{text:?}: {said}");
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{text:?}: {said}"
        );
        assert!(!said.contains('\n'), "{said}");
    }
}

fn rule_text() -> impl Strategy<Value = String> {
    let topics = vec![
        "a",
        "a/#",
        "#",
        "+",
        "+/b",
        "{client_id}",
        "{user}/#",
        "x/{claim.g}/+",
        "{{",
        "$SYS/#",
    ];
    let lines = (
        select(vec!["allow", "deny"]),
        subsequence(vec!["publish", "subscribe", "deliver"], 1..=3),
        proptest::option::of(subsequence(topics, 1..=2)),
        proptest::option::of(subsequence(vec![0, 1, 2], 1..=3)),
        proptest::option::of(any::<bool>()),
        select(vec![
            "",
            "user = \"a\"",
            "anonymous = true",
            "claim.g = [\"x\", \"y\"]",
            "name = \"q\\\"\"",
        ]),
    );
    lines.prop_map(|(effect, actions, topics, qos, retain, who)| {
        let retain = retain.filter(|_| !actions.contains(&"subscribe"));
        let mut text = format!("[[rule]]\n{effect} = {actions:?}\n{who}\n");
        text.extend(topics.map(|topics| format!("topic = {topics:?}\n")));
        text.extend(qos.map(|qos| format!("qos = {qos:?}\n")));
        text.extend(retain.map(|retain| format!("retain = {retain}\n")));
        text
    })
}

fn rules_text() -> impl Strategy<Value = String> {
    (
        select(vec!["", "default = \"allow\"\n"]),
        vec(rule_text(), 0..6),
    )
        .prop_map(|(default, rules)| format!("{default}{}", rules.concat()))
}

fn identity() -> impl Strategy<Value = Identity> {
    let value = || select(vec!["a", "b", "x", "", "+", "a/b", "$SYS"]);
    (value(), proptest::option::of(value()), vec(value(), 0..3)).prop_map(|(id, user, claims)| {
        let mut identity = Identity::new(id, user);
        let claims = claims.into_iter().map(Box::from).collect();
        identity.claims.insert("g".into(), claims);
        identity
    })
}

proptest! {
    #[test]
    fn permissions_answer_as_the_rules_do(
        text in rules_text(),
        identity in identity(),
        action in select(Action::ALL.to_vec()),
        topic in select(vec!["a", "a/b", "b", "x/x/a", "{", "$SYS/a", "x/b/b", "/"]),
        wildcard in select(vec!["", "+", "#"]),
        qos in select(QoS::ALL.to_vec()),
        retain in any::<bool>(),
    ) {
        let rules = Arc::new(rules(&text));
        let filter = if wildcard.is_empty() { topic.to_owned() } else { format!("{topic}/{wildcard}") };
        let request = match action {
            Action::Subscribe => subscribe(&filter, qos),
            Action::Publish | Action::Deliver => message(action, topic, qos, retain),
        };
        let permissions = Permissions::new(&rules, &identity);
        let verdict = rules.decide(&identity, &request);
        prop_assert_eq!(permissions.decide(&request), verdict);
        if permissions.delivers_all() && action == Action::Deliver {
            prop_assert!(verdict.is_allowed());
        }
    }

    #[test]
    fn rules_are_read_as_they_are_written(text in rules_text()) {
        let rules = rules(&text);
        prop_assert_eq!(Rules::from_toml(&rules.to_string()), Ok(rules));
    }

    #[test]
    fn no_text_is_more_than_refused(text in "(\\[\\[rule\\]\\]\n)?[a-z_.]{0,9} ?= ?[\\[\"{}a-z0-9+#/\n]{0,30}") {
        if let Err(error) = Rules::from_toml(&text) {
            prop_assert!(error.line >= 1 && error.line <= text.split('\n').count());
        }
    }
}
