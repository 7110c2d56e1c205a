//! Files of rules, ACL files of mosquitto and password files: each is a value or an error that names
//! a line; what is written is read as the same; permissions answer as the rules do.
//!
//! The input is text; parts are separated by NUL characters: the file, a Client Identifier, a User
//! Name, a Topic Filter.

#![no_main]

use std::sync::Arc;

use avocet_access::{
    Identity, PasswordFile, Permissions, QoS, Request, Rules, covers, import_acl, overlaps,
};
use avocet_topic::{TopicFilter, TopicName, matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let client_id = parts.next().unwrap_or_default();
    let identity = Identity::new(client_id, parts.next());
    let filter = parts.next().unwrap_or("a/b");

    let has_line = |line: usize| assert!((1..=file.split('\n').count()).contains(&line));
    match Rules::from_toml(file) {
        Ok(rules) => check(rules, &identity, filter),
        Err(error) => has_line(error.line),
    }
    match import_acl(file) {
        Ok(rules) => check(rules, &identity, filter),
        Err(error) => has_line(error.line),
    }
    match PasswordFile::parse(file) {
        Ok(users) => {
            let again = PasswordFile::parse(&users.to_string()).expect("it was written so");
            assert_eq!(again.to_string(), users.to_string());
        }
        Err(error) => has_line(error.line),
    }
});

fn check(rules: Rules, identity: &Identity, text: &str) {
    assert_eq!(Rules::from_toml(&rules.to_string()), Ok(rules.clone()));
    let rules = Arc::new(rules);
    let permissions = Permissions::new(&rules, identity);
    let Ok(topic_filter) = TopicFilter::new(text) else {
        return;
    };
    let qos = QoS::AtLeastOnce;
    let same = |request: &Request<'_>| {
        assert_eq!(permissions.decide(request), rules.decide(identity, request));
    };
    same(&Request::Subscribe { topic_filter, qos });
    if let Ok(topic_name) = TopicName::new(text) {
        let retain = false;
        same(&Request::Publish {
            topic_name,
            qos,
            retain,
        });
        same(&Request::Deliver {
            topic_name,
            qos,
            retain,
        });
        let rules = rules.as_slice().iter().flat_map(|rule| &rule.topics);
        for other in rules.filter_map(|topic| topic.as_filter()) {
            let matched = matches(other, topic_name);
            assert_eq!(covers(other, topic_filter), matched);
            assert_eq!(overlaps(other, topic_filter), matched);
        }
    }
}
