//! What the driver is asked about what clients want, and what its answers come to.

use std::sync::Arc;
use std::time::Duration;

use avocet_access::{Action, Actions, Effect, Identity, QosSet, Rule, Rules};
use avocet_codec::{
    Connect, Packet, QoS, ReasonCode, Subscribe, SubscribeFilter, TopicFilter, TopicName, Version,
    Will,
};
use avocet_engine::{
    Accepted, Authentication, Authorization, AuthorizationRequest, EngineConfig, Event, Permission,
    RefusedBy, SessionKey, Tenant, Verdict,
};

use crate::cluster::{Client, Cluster, each_with, persistent};

const YES: Permission = Permission::Publish(ReasonCode::Success);
const NO: Permission = Permission::Publish(ReasonCode::NotAuthorized);
const A_MINUTE: Duration = Duration::from_secs(60);

fn asked(config: &mut EngineConfig) {
    config.authorization = Authorization::Asked;
    config.authorization_timeout = Duration::from_secs(5);
    config.sys_interval = None;
}

fn rule(effect: Effect, actions: &[Action], topic: &str) -> Rule {
    let mut rule = Rule::new(effect, actions.iter().copied().collect::<Actions>());
    rule.topics = vec![topic.parse().unwrap()];
    rule
}

fn set_rules(cluster: &mut Cluster, rules: Vec<Rule>, default: Effect) {
    let rules = Arc::new(Rules::new(rules, default).unwrap());
    for engine in &mut cluster.engines {
        engine.set_rules(Arc::clone(&rules));
    }
}

/// The topics of the questions so far, which are forgotten.
fn questions(cluster: &mut Cluster) -> Vec<String> {
    let asked = std::mem::take(&mut cluster.authorize);
    let topics = asked.into_iter().flat_map(|(_, request)| match request {
        AuthorizationRequest::Publish { topic_name, .. } => vec![topic_name.to_string()],
        AuthorizationRequest::Subscribe { filters } => filters
            .iter()
            .map(|(filter, _)| filter.to_string())
            .collect(),
        other => panic!("{other:?}"),
    });
    topics.collect()
}

fn publish(cluster: &mut Cluster, client: Client, topic: &str) {
    cluster.publish(client, topic, "x", 1);
    cluster.run();
}

/// The codes of its PUBACKs.
fn pubacks(cluster: &mut Cluster, client: Client) -> Vec<String> {
    let packets = cluster.packets(client);
    let codes = packets.iter().filter_map(|it| it.strip_prefix("puback "));
    codes
        .map(|it| it.split(' ').next_back().unwrap().to_owned())
        .collect()
}

#[test]
fn a_question_says_whom_it_is_about() {
    let configure = |config: &mut EngineConfig| {
        asked(config);
        config.authentication = Authentication::Asked;
    };
    each_with(configure, |mut cluster| {
        let client = cluster.connect(&Connect::new(Version::V5, "pump"));
        let mut accepted = Accepted::new(Tenant::new("plant").unwrap(), None);
        accepted.identity = Identity::new("", Some("ann"));
        accepted
            .identity
            .claims
            .insert("site".into(), vec!["north".into()]);
        cluster.verdict(client, Verdict::Accept(accepted.clone()));
        publish(&mut cluster, client, "t");
        let (_, asked) = cluster.questions[&client].clone();
        assert_eq!(*asked.session, SessionKey::new("plant", "pump"));
        assert_eq!(asked.id, client);
        assert!(asked.opened.peer.to_string().starts_with("peer"));
        accepted.identity.client_id = "pump".into();
        accepted.identity.tenant = "plant".into();
        assert_eq!(asked.identity, accepted.identity);
        cluster.permit(client, YES);
        assert_eq!(pubacks(&mut cluster, client), ["0x10"]);
    });
}

#[test]
fn an_answer_is_for_its_question_only() {
    each_with(asked, |mut cluster| {
        let client = cluster.client("client");
        cluster.publish(client, "a", "x", 1);
        cluster.publish(client, "b", "x", 1);
        cluster.run();
        let first = cluster.questions[&client].0;
        cluster.permit(client, NO);
        let (shard, now) = (cluster.shard(client), cluster.now);
        // Twice, and the first one was a no.
        cluster.engines[shard].handle_authorized(client, first, YES, A_MINUTE, now);
        cluster.run();
        assert_eq!(pubacks(&mut cluster, client), ["0x87"]);
        let second = cluster.questions[&client].0;
        assert_ne!(first, second);
        // Of another kind.
        cluster.permit(client, Permission::Subscribe(vec![Ok(QoS::AtMostOnce)]));
        assert_eq!(pubacks(&mut cluster, client), [""; 0]);
        cluster.permit(client, YES);
        assert_eq!(pubacks(&mut cluster, client), ["0x10"]);
        publish(&mut cluster, client, "c");
        cluster.cut(client);
        cluster.permit(client, YES);
        assert!(cluster.is_closed(client));
    });
}

#[test]
fn what_is_not_answered_in_time_is_refused_and_its_client_goes_on() {
    each_with(asked, |mut cluster| {
        let [client, other] = ["client", "other"].map(|id| cluster.client(id));
        cluster.publish(client, "t", "x", 1);
        cluster.publish(client, "t", "y", 2);
        cluster.send_subscribe(client, "t/#", 2, None, |_| {});
        cluster.run();
        publish(&mut cluster, other, "t");
        cluster.permit(other, YES);
        assert_eq!(pubacks(&mut cluster, other), ["0x10"], "nobody else waits");
        cluster.advance(Duration::from_millis(4_999));
        assert_eq!(cluster.packets(client), [""; 0]);
        for expected in ["puback 1 0x83", "pubrec 2 0x83", "suback 0x83"] {
            cluster.advance(Duration::from_millis(1));
            assert_eq!(cluster.packets(client), [expected]);
            cluster.advance(Duration::from_millis(4_999));
        }
        let first = cluster.questions[&client].0;
        publish(&mut cluster, client, "t");
        let (shard, now) = (cluster.shard(client), cluster.now);
        cluster.engines[shard].handle_authorized(client, first, YES, A_MINUTE, now);
        cluster.run();
        assert_eq!(cluster.packets(client), [""; 0], "it was too late");
        cluster.permit(client, YES);
        assert_eq!(pubacks(&mut cluster, client), ["0x10"]);
        let counters = cluster.counters();
        assert_eq!(counters.authorizations_unanswered, 3);
        assert_eq!(counters.authorizations_asked, 5);
        let by = |event: &Event| matches!(event, Event::NotAuthorized { by, .. } if *by == RefusedBy::Nobody);
        assert_eq!(cluster.events.iter().filter(|event| by(event)).count(), 3);
    });
}

fn with_will(client_id: &str) -> Connect<'_> {
    let mut connect = persistent(client_id);
    let mut will = Will::new(TopicName::new("will").unwrap(), b"gone");
    will.qos = QoS::AtLeastOnce;
    connect.will = Some(will);
    connect
}

/// As with rules: who may not publish his Will is not let in, and pushes nobody out.
#[test]
fn a_client_waits_until_its_will_is_allowed() {
    each_with(asked, |mut cluster| {
        let subscriber = cluster.client("subscriber");
        cluster.send_subscribe(subscriber, "will", 0, None, |_| {});
        cluster.run();
        cluster.permit(subscriber, Permission::Subscribe(vec![Ok(QoS::AtMostOnce)]));
        let (old, _) = cluster.persistent("client");
        cluster.authorize.clear();
        for (answer, expected) in [(Some(NO), "connack 0x87"), (None, "connack 0x83")] {
            let client = cluster.connect(&with_will("client"));
            assert_eq!(cluster.packets(client), [""; 0]);
            let Some((_, AuthorizationRequest::Publish { will, qos, .. })) =
                cluster.authorize.pop()
            else {
                panic!("no question");
            };
            assert!(will && qos == QoS::AtLeastOnce);
            match answer {
                Some(answer) => cluster.permit(client, answer),
                None => cluster.advance(Duration::from_secs(5)),
            }
            assert_eq!(cluster.packets(client), [expected]);
            assert!(cluster.is_closed(client));
        }
        assert!(!cluster.is_closed(old));
        let client = cluster.connect(&with_will("client"));
        // What comes behind CONNECT waits.
        cluster.publish(client, "t", "x", 1);
        cluster.run();
        cluster.permit(client, YES);
        assert_eq!(cluster.packets(client), ["connack 0x00 present"]);
        assert!(cluster.is_closed(old));
        cluster.permit(client, YES);
        assert_eq!(pubacks(&mut cluster, client), ["0x10"]);
        cluster.cut(client);
        cluster.run();
        assert_eq!(cluster.messages(subscriber), ["will=gone q0"]);
        // One that is gone before the answer leaves nothing.
        let client = cluster.connect(&with_will("client"));
        cluster.cut(client);
        cluster.permit(client, YES);
        assert_eq!(cluster.messages(subscriber), [""; 0]);
        assert_eq!(cluster.counters().publishes_not_authorized, 2);
    });
}

#[test]
fn rules_come_first_and_the_driver_is_asked_about_the_rest() {
    each_with(asked, |mut cluster| {
        let all = [Action::Publish, Action::Subscribe, Action::Deliver];
        let mut rules = vec![
            rule(Effect::Allow, &all, "free/#"),
            rule(Effect::Deny, &all[..2], "secret/#"),
            rule(Effect::Deny, &all[2..], "open/hidden"),
        ];
        rules[1].name = "no secrets".into();
        set_rules(&mut cluster, rules, Effect::Deny);
        let client = cluster.client("client");
        publish(&mut cluster, client, "free/a");
        publish(&mut cluster, client, "secret/a");
        assert_eq!(pubacks(&mut cluster, client), ["0x10", "0x87"]);
        assert_eq!(questions(&mut cluster), [""; 0]);
        let subscribe = |cluster: &mut Cluster, filter| {
            cluster.send_subscribe(client, filter, 1, None, |_| {});
            cluster.run();
        };
        subscribe(&mut cluster, "free/+");
        subscribe(&mut cluster, "secret/+");
        assert_eq!(cluster.packets(client), ["suback 0x01", "suback 0x87"]);
        assert_eq!(questions(&mut cluster), [""; 0]);
        subscribe(&mut cluster, "open/#");
        assert_eq!(questions(&mut cluster), ["open/#"]);
        cluster.permit(client, Permission::Subscribe(vec![Ok(QoS::AtMostOnce)]));
        assert_eq!(cluster.packets(client), ["suback 0x00"]);
        // No rule is about most of these: who subscribed to them is sent them.
        for topic in ["open/a", "open/hidden", "other"] {
            publish(&mut cluster, client, topic);
            cluster.permit(client, YES);
        }
        assert_eq!(questions(&mut cluster), ["open/a", "open/hidden", "other"]);
        assert_eq!(cluster.messages(client), ["open/a=x q0"]);
        let counters = cluster.counters();
        assert_eq!(counters.deliveries_not_authorized, 1);
        assert_eq!(counters.subscriptions_not_authorized, 1);
        assert_eq!(counters.publishes_not_authorized, 1);
        // Rules that come later count for what it has.
        let deny = rule(Effect::Deny, &[Action::Subscribe], "open/#");
        set_rules(&mut cluster, vec![deny], Effect::Deny);
        let now = cluster.now;
        for engine in &mut cluster.engines {
            engine.disconnect_unauthorized(now);
        }
        cluster.run();
        assert_eq!(cluster.packets(client), ["disconnect 0x98"]);
    });
}

#[test]
fn an_answer_that_is_kept_is_not_asked_for_again() {
    each_with(asked, |mut cluster| {
        let client = cluster.client("client");
        let again = |cluster: &mut Cluster, topic: &str| {
            publish(cluster, client, topic);
            let asked = questions(cluster).len();
            if asked > 0 {
                cluster.permit_for(client, YES, A_MINUTE);
            }
            assert_eq!(pubacks(cluster, client), ["0x10"]);
            asked == 1
        };
        assert!(again(&mut cluster, "a"));
        assert!(!again(&mut cluster, "a"));
        cluster.advance(A_MINUTE - Duration::from_millis(1));
        assert!(!again(&mut cluster, "a"));
        assert_eq!(cluster.counters().authorizations_known, 2);
        // With another QoS or flag it is another question.
        cluster.publish_retained(client, "a", "x", 1);
        cluster.publish(client, "a", "x", 0);
        cluster.run();
        assert_eq!(questions(&mut cluster), ["a"]);
        cluster.permit(client, NO);
        assert_eq!(questions(&mut cluster), ["a"]);
        cluster.permit(client, NO);
        assert_eq!(pubacks(&mut cluster, client), ["0x87"]);
        cluster.advance(Duration::from_millis(1));
        assert!(again(&mut cluster, "a"), "it was too old");
        for engine in &mut cluster.engines {
            engine.forget_answers();
        }
        publish(&mut cluster, client, "a");
        assert_eq!(questions(&mut cluster), ["a"]);
        for engine in &mut cluster.engines {
            engine.forget_answers();
        }
        // It was asked before.
        cluster.permit_for(client, YES, A_MINUTE);
        assert_eq!(pubacks(&mut cluster, client), ["0x10"]);
        assert!(again(&mut cluster, "a"));
        // A no is kept too, and so are those to subscriptions.
        publish(&mut cluster, client, "b");
        cluster.permit_for(client, NO, A_MINUTE);
        publish(&mut cluster, client, "b");
        cluster.send_subscribe(client, "b", 1, None, |_| {});
        cluster.run();
        cluster.permit_for(
            client,
            Permission::Subscribe(vec![Ok(QoS::AtMostOnce)]),
            A_MINUTE,
        );
        cluster.send_subscribe(client, "b", 1, None, |_| {});
        cluster.run();
        assert_eq!(questions(&mut cluster), ["b", "b"]);
        let packets = cluster.packets(client);
        assert_eq!(packets[2..], ["suback 0x00", "suback 0x00"]);
        // Another connection is another client.
        cluster.cut(client);
        let client = cluster.client("client");
        publish(&mut cluster, client, "a");
        assert_eq!(questions(&mut cluster), ["a"]);
    });
}

#[test]
fn answers_are_kept_for_so_many_topics() {
    let configure = |config: &mut EngineConfig| {
        asked(config);
        config.limits.answers_per_session_max = 3;
    };
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        let mut is_asked = |topic: &str| {
            publish(&mut cluster, client, topic);
            let asked = !questions(&mut cluster).is_empty();
            if asked {
                cluster.permit_for(client, YES, A_MINUTE);
            }
            // So that they end one after the other.
            cluster.advance(Duration::from_millis(1));
            asked
        };
        let long = "x".repeat(257);
        for topic in ["a", "b", "c"] {
            assert!(is_asked(topic));
        }
        assert!(is_asked(&long) && is_asked(&long));
        assert!(!is_asked("a") && !is_asked("b") && !is_asked("c"));
        assert!(is_asked("d"));
        assert!(!is_asked("b") && !is_asked("c") && !is_asked("d"));
        assert!(is_asked("a"), "the oldest gave way");
    });
}

#[test]
fn the_operator_is_told_of_some_refusals_and_which_rule_it_was() {
    each_with(asked, |mut cluster| {
        let mut secrets = rule(Effect::Deny, &[Action::Publish], "secret/#");
        secrets.name = "no secrets".into();
        set_rules(&mut cluster, vec![secrets], Effect::Deny);
        let client = cluster.client("client");
        cluster.events.clear();
        for _ in 0..8 {
            publish(&mut cluster, client, "secret/a");
        }
        cluster.advance(Duration::from_secs(1));
        publish(&mut cluster, client, "b");
        cluster.permit(client, NO);
        let events = std::mem::take(&mut cluster.events);
        assert_eq!(events.len(), 6, "five in a second");
        let told = |event: &Event| match event {
            Event::NotAuthorized {
                client,
                action: Action::Publish,
                topic,
                by,
                rule,
                omitted,
                ..
            } => (
                client.session.client_id().to_owned(),
                topic.to_string(),
                *by,
                rule.clone(),
                *omitted,
            ),
            other => panic!("{other:?}"),
        };
        let name = Some("rule 1 \"no secrets\"".to_owned());
        assert_eq!(
            told(&events[0]),
            (
                "client".into(),
                "secret/a".into(),
                RefusedBy::Rule(0),
                name,
                0
            )
        );
        assert_eq!(
            told(&events[5]),
            ("client".into(), "b".into(), RefusedBy::Answer, None, 3)
        );
        assert_eq!(cluster.counters().publishes_not_authorized, 9);
    });
}

#[test]
fn topics_of_the_server_tell_how_much_was_refused() {
    let configure = |config: &mut EngineConfig| {
        asked(config);
        config.sys_interval = Some(Duration::from_secs(10));
    };
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        cluster.send_subscribe(client, "$SYS/broker/authorization/#", 0, None, |_| {});
        cluster.run();
        cluster.permit(client, Permission::Subscribe(vec![Ok(QoS::AtMostOnce)]));
        publish(&mut cluster, client, "a");
        cluster.permit(client, NO);
        publish(&mut cluster, client, "b");
        // Once for what was not answered, and for what all shards have counted.
        cluster.advance(Duration::from_secs(21));
        let told = cluster.messages(client);
        for (topic, count) in [("refused/publish", 2), ("asked", 3), ("unanswered", 1)] {
            let expected = format!("$SYS/broker/authorization/{topic}={count} q0");
            assert!(told.contains(&expected), "{told:?}");
        }
    });
}

/// Rules that came while a question was open refuse what they are about.
#[test]
fn an_answer_allows_nothing_that_newer_rules_refuse() {
    each_with(asked, |mut cluster| {
        let client = cluster.client("client");
        cluster.send_subscribe(client, "secret", 1, None, |_| {});
        cluster.run();
        let both = [Action::Publish, Action::Subscribe];
        let deny = rule(Effect::Deny, &both, "secret");
        set_rules(&mut cluster, vec![deny], Effect::Deny);
        cluster.permit(client, Permission::Subscribe(vec![Ok(QoS::AtLeastOnce)]));
        assert_eq!(cluster.packets(client), ["suback 0x87"]);
        set_rules(&mut cluster, Vec::new(), Effect::Deny);
        publish(&mut cluster, client, "secret");
        let deny = rule(Effect::Deny, &both, "secret");
        set_rules(&mut cluster, vec![deny], Effect::Deny);
        cluster.permit(client, YES);
        assert_eq!(pubacks(&mut cluster, client), ["0x87"]);
    });
}

/// Rules that are about one QoS hold for what an answer comes to.
#[test]
fn an_answer_and_rules_agree_on_the_qos() {
    let of = |effect, qos| {
        let mut rule = rule(effect, &[Action::Subscribe], "t");
        rule.qos = [qos].into_iter().collect::<QosSet>();
        rule
    };
    let lowest = avocet_access::QoS::AtMostOnce;
    for (effect, answer, expected) in [
        (Effect::Deny, Ok(QoS::AtMostOnce), "suback 0x87"),
        (Effect::Deny, Ok(QoS::AtLeastOnce), "suback 0x01"),
        (Effect::Allow, Err(ReasonCode::NotAuthorized), "suback 0x00"),
    ] {
        each_with(asked, |mut cluster| {
            set_rules(&mut cluster, vec![of(effect, lowest)], Effect::Deny);
            let client = cluster.client("client");
            for _ in 0..2 {
                cluster.send_subscribe(client, "t", 2, None, |_| {});
                cluster.run();
                if cluster.questions.remove(&client).is_some_and(|it| {
                    let (shard, now) = (cluster.shard(client), cluster.now);
                    let permission = Permission::Subscribe(vec![answer]);
                    let engine = &mut cluster.engines[shard];
                    engine.handle_authorized(client, it.0, permission, A_MINUTE, now);
                    true
                }) {
                    cluster.run();
                }
                // The second time, the answer is known.
                assert_eq!(cluster.packets(client), [expected]);
            }
        });
    }
}

#[test]
fn nobody_is_asked_about_very_many_filters() {
    each_with(asked, |mut cluster| {
        let allow = rule(Effect::Allow, &[Action::Subscribe], "t");
        set_rules(&mut cluster, vec![allow], Effect::Deny);
        let client = cluster.client("client");
        let filter = |text| {
            let topic_filter = TopicFilter::new(text).unwrap();
            SubscribeFilter::new(topic_filter, QoS::AtLeastOnce)
        };
        let mut filters = vec![filter("x"); 256];
        filters.push(filter("t"));
        let subscribe = Subscribe::new(cluster.packet_id(client), &filters);
        cluster.send(client, &Packet::Subscribe(subscribe));
        cluster.run();
        assert!(questions(&mut cluster).is_empty());
        let expected = format!("suback{} 0x01", " 0x97".repeat(256));
        assert_eq!(cluster.packets(client), [expected]);
    });
}

/// What the server allowed one client is not for another one of the same name.
#[test]
fn another_client_does_not_get_the_session_of_one_who_was_asked_about() {
    let configure = |config: &mut EngineConfig| {
        asked(config);
        config.authentication = Authentication::Asked;
    };
    each_with(configure, |mut cluster| {
        let mut connect_as = |cert_cn: &str| {
            let client = cluster.connect(&persistent("name"));
            let mut accepted = Accepted::default();
            accepted.identity.cert_cn = Some(cert_cn.into());
            cluster.verdict(client, Verdict::Accept(accepted));
            cluster.packet(client)
        };
        assert_eq!(connect_as("one"), "connack 0x00");
        assert_eq!(connect_as("one"), "connack 0x00 present");
        assert_eq!(connect_as("two"), "connack 0x00");
        assert_eq!(connect_as("two"), "connack 0x00 present");
    });
}
