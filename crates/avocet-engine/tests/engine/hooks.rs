use std::sync::Arc;

use avocet_access::{Action, Effect, Rule, Rules};
use avocet_codec::{AckType, Connect, PacketId, QoS, ReasonCode, Version, Will};
use avocet_engine::{
    Authorization, DropReason, EngineConfig, Event, PublishIn, PublishOut, PublishOutHook,
    Recipient, Record,
};
use avocet_session::Message;
use avocet_topic::TopicName;

use crate::cluster::{Client, Cluster, ack, each_with, persistent};
use crate::durability::stored;
use crate::publish::will;

fn asks(config: &mut EngineConfig) {
    config.publish_in = true;
}

fn upper(message: &Message) -> Message {
    message.with_payload(&message.payload().to_ascii_uppercase())
}

fn change(message: &Message) -> PublishIn {
    PublishIn::Change(upper(message))
}

/// A subscriber to everything, and a publisher.
fn pair(cluster: &mut Cluster) -> (Client, Client) {
    let subscriber = cluster.client("subscriber");
    cluster.subscribe(subscriber, "#", 2);
    (subscriber, cluster.client("publisher"))
}

#[test]
fn messages_wait_in_order_for_what_becomes_of_them() {
    each_with(asks, |mut cluster| {
        let (subscriber, publisher) = pair(&mut cluster);
        for (payload, qos) in [("pass", 0), ("change", 1), ("refuse", 1), ("change", 2)] {
            cluster.publish(publisher, "t", payload, qos);
        }
        cluster.run();
        assert!(cluster.is_paused(publisher));
        assert_eq!(cluster.publish_in.len(), 1, "one after the other");
        assert!(cluster.messages(subscriber).is_empty());
        cluster.answer(|_| PublishIn::Pass);
        cluster.answer(change);
        cluster.answer(|_| PublishIn::Refuse(ReasonCode::QuotaExceeded));
        cluster.answer(change);
        assert_eq!(
            cluster.messages(subscriber),
            ["t=pass q0", "t=CHANGE q1", "t=CHANGE q2"]
        );
        assert_eq!(
            cluster.packets(publisher),
            [
                "puback 1 0x00",
                "puback 2 0x97",
                "pubrec 3 0x00",
                "pubcomp 3 0x00"
            ]
        );
        assert_eq!(cluster.dropped(DropReason::RefusedByHook), 1);
    });
}

/// [MQTT311-3.3.5-2] Who cannot be told is not, and what was refused goes nowhere.
#[test]
fn old_clients_are_not_told_that_a_message_is_refused() {
    each_with(asks, |mut cluster| {
        let (subscriber, _) = pair(&mut cluster);
        let publisher = cluster.client_with(&Connect::new(Version::V3_1_1, "old"));
        cluster.publish(publisher, "t", "x", 1);
        cluster.run();
        cluster.answer(|_| PublishIn::Refuse(ReasonCode::NotAuthorized));
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
        assert!(cluster.messages(subscriber).is_empty());
    });
}

#[test]
fn a_changed_message_goes_where_it_says_with_the_qos_of_its_publish() {
    each_with(asks, |mut cluster| {
        let (subscriber, publisher) = pair(&mut cluster);
        cluster.publish_retained(publisher, "t", "x", 1);
        cluster.run();
        cluster.answer(|message| {
            let name = TopicName::new("elsewhere").unwrap();
            let message = message.with_topic_name(name).with_qos(QoS::ExactlyOnce);
            PublishIn::Change(message.with_retain(false))
        });
        assert_eq!(cluster.messages(subscriber), ["elsewhere=x q1"]);
        assert_eq!(cluster.counters().retained_messages, 0);
        // Not where no client may publish.
        cluster.publish(publisher, "t", "x", 1);
        cluster.run();
        cluster.answer(|message| {
            let name = TopicName::new("$SYS/broker/version").unwrap();
            PublishIn::Change(message.with_topic_name(name))
        });
        let codes = ["puback 1 0x00", "puback 2 0x87"];
        assert_eq!(cluster.packets(publisher), codes);
    });
}

#[test]
fn what_is_retained_is_the_changed_message() {
    each_with(asks, |mut cluster| {
        let publisher = cluster.client("publisher");
        cluster.publish_retained(publisher, "t", "x", 1);
        cluster.run();
        cluster.answer(change);
        let subscriber = cluster.client("subscriber");
        cluster.subscribe(subscriber, "#", 0);
        assert_eq!(cluster.messages(subscriber), ["t=X q0 retain"]);
    });
}

/// [MQTT5-4.3.3-10] What a takeover left without an answer was not taken, and comes as a new message.
#[test]
fn a_takeover_forgets_what_was_not_answered() {
    each_with(asks, |mut cluster| {
        let (subscriber, _) = pair(&mut cluster);
        let (old, _) = cluster.persistent("client");
        cluster.publish(old, "t", "once", 2);
        cluster.run();
        let (late, message) = cluster.publish_in.pop_front().unwrap();
        let (new, present) = cluster.persistent("client");
        assert!(present);
        cluster.publish_in.push_back((late, message));
        cluster.answer(|_| PublishIn::Pass);
        cluster.publish_with(new, "t", "once", 2, |publish| publish.dup = true);
        cluster.run();
        assert!(cluster.packets(new).is_empty(), "it waits for its answer");
        cluster.answer(change);
        assert_eq!(cluster.packets(new), ["pubrec 1 0x00", "pubcomp 1 0x00"]);
        assert_eq!(cluster.messages(subscriber), ["t=ONCE q2"]);
    });
}

#[test]
fn an_answer_that_nobody_waits_for_does_nothing() {
    each_with(asks, |mut cluster| {
        let (subscriber, publisher) = pair(&mut cluster);
        cluster.publish(publisher, "t", "x", 1);
        cluster.run();
        let asked = cluster.publish_in[0].clone();
        cluster.answer(|_| PublishIn::Pass);
        cluster.publish_in.push_back(asked);
        cluster.answer(|_| PublishIn::Pass);
        assert_eq!(cluster.messages(subscriber), ["t=x q1"]);
        assert_eq!(cluster.packets(publisher), ["puback 1 0x00"]);
    });
}

fn mortal<'a>(will: Will<'a>) -> Connect<'a> {
    let mut connect = persistent("mortal");
    connect.will = Some(will);
    connect
}

#[test]
fn a_will_waits_too_and_its_client_with_it() {
    each_with(asks, |mut cluster| {
        let (subscriber, _) = pair(&mut cluster);
        let client = cluster.connect(&mortal(will("wills", "gone")));
        cluster.publish(client, "t", "later", 0);
        cluster.run();
        assert_eq!(cluster.packet(client), "nothing");
        cluster.answer(change);
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        cluster.answer(|_| PublishIn::Pass);
        cluster.cut(client);
        assert_eq!(
            cluster.messages(subscriber),
            ["t=later q0", "wills=GONE q0"]
        );
        // One that is refused is told in CONNACK.
        let client = cluster.connect(&mortal(will("wills", "gone")));
        cluster.answer(|_| PublishIn::Refuse(ReasonCode::QuotaExceeded));
        assert_eq!(cluster.packets(client), ["connack 0x97"]);
        assert!(cluster.is_closed(client));
        // One whose client has gone meanwhile is forgotten.
        let client = cluster.connect(&mortal(will("wills", "gone")));
        cluster.cut(client);
        cluster.answer(|_| PublishIn::Pass);
        assert!(cluster.messages(subscriber).is_empty());
    });
}

/// Nothing is allowed but these actions below these topics.
fn set_rules(cluster: &mut Cluster, allowed: &[(Action, &str)]) {
    let rules = allowed.iter().map(|(action, topic)| {
        let mut rule = Rule::new(Effect::Allow, [*action].into_iter().collect());
        rule.topics = vec![topic.parse().unwrap()];
        rule
    });
    let rules = Arc::new(Rules::new(rules.collect::<Vec<_>>(), Effect::Deny).unwrap());
    for engine in &mut cluster.engines {
        engine.set_rules(Arc::clone(&rules));
    }
}

/// What the driver made of a Will is its own business.
#[test]
fn rules_are_about_the_will_of_the_client_and_not_what_became_of_it() {
    let configure = |config: &mut EngineConfig| {
        asks(config);
        config.authorization = Authorization::Rules;
    };
    each_with(configure, |mut cluster| {
        let all = [
            (Action::Publish, "wills"),
            (Action::Subscribe, "#"),
            (Action::Deliver, "#"),
        ];
        set_rules(&mut cluster, &all);
        let (subscriber, _) = pair(&mut cluster);
        let client = cluster.connect(&mortal(will("wills", "gone")));
        cluster.answer(|message| {
            let name = TopicName::new("audit").unwrap();
            PublishIn::Change(message.with_topic_name(name))
        });
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        cluster.cut(client);
        assert_eq!(cluster.messages(subscriber), ["audit=gone q0"]);
        // One that stays what it was is judged when it is due.
        let client = cluster.connect(&mortal(will("wills", "gone")));
        cluster.answer(|_| PublishIn::Pass);
        assert_eq!(cluster.packets(client), ["connack 0x00 present"]);
        set_rules(&mut cluster, &all[1..]);
        cluster.cut(client);
        assert!(cluster.messages(subscriber).is_empty());
    });
}

#[test]
fn a_changed_message_is_retained_only_where_messages_are() {
    let configure = |config: &mut EngineConfig| {
        asks(config);
        let mut connection = (*config.connection).clone();
        connection.retain_available = false;
        config.connection = Arc::new(connection);
    };
    each_with(configure, |mut cluster| {
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "t", "x", 1);
        cluster.run();
        cluster.answer(|message| PublishIn::Change(message.clone().with_retain(true)));
        assert_eq!(cluster.packets(publisher), ["puback 1 0x87"]);
        assert_eq!(cluster.counters().retained_messages, 0);
    });
}

/// Sends everything elsewhere.
#[derive(Debug)]
struct Elsewhere;

impl PublishOutHook for Elsewhere {
    fn publish_out(&self, message: &Message, _: &Recipient<'_>) -> PublishOut {
        let name = TopicName::new("elsewhere").unwrap();
        PublishOut::Change(message.with_topic_name(name))
    }
}

/// Whether its client is there or not.
#[test]
fn rules_are_about_what_a_session_is_sent() {
    let configure = |config: &mut EngineConfig| {
        config.publish_out = Some(Arc::new(Elsewhere));
        config.authorization = Authorization::Rules;
    };
    for (delivered, expected) in [("t", 0), ("elsewhere", 2)] {
        each_with(configure, |mut cluster| {
            let all = [
                (Action::Publish, "t"),
                (Action::Subscribe, "#"),
                (Action::Deliver, delivered),
            ];
            set_rules(&mut cluster, &all);
            let (client, _) = cluster.persistent("client");
            cluster.subscribe(client, "#", 1);
            let publisher = cluster.client("publisher");
            cluster.publish(publisher, "t", "here", 1);
            cluster.run();
            let mut messages = cluster.messages(client);
            cluster.disconnect(client);
            cluster.publish(publisher, "t", "away", 1);
            cluster.run();
            let (client, _) = cluster.persistent("client");
            messages.extend(cluster.messages(client));
            assert_eq!(messages.len(), expected, "{messages:?}");
        });
    }
}

/// Gives each its own: capital letters to "loud", and nothing to "deaf".
#[derive(Debug)]
struct ByName;

impl PublishOutHook for ByName {
    fn publish_out(&self, message: &Message, to: &Recipient<'_>) -> PublishOut {
        match to.session.client_id() {
            "loud" => PublishOut::Change(upper(message)),
            "deaf" => PublishOut::Refuse,
            _ => PublishOut::Pass,
        }
    }
}

fn by_name(config: &mut EngineConfig) {
    config.publish_out = Some(Arc::new(ByName));
}

fn stored_by_name(config: &mut EngineConfig) {
    stored(config);
    by_name(config);
}

#[test]
fn each_session_gets_what_is_for_it() {
    each_with(by_name, |mut cluster| {
        let names = ["loud", "deaf", "other"];
        let clients = names.map(|name| cluster.client(name));
        for client in clients {
            cluster.subscribe(client, "t", 1);
        }
        let publisher = cluster.client("publisher");
        for qos in [0, 1] {
            cluster.publish_retained(publisher, "t", "x", qos);
        }
        cluster.run();
        let [loud, deaf, other] = clients.map(|client| cluster.messages(client));
        assert_eq!(loud, ["t=X q0", "t=X q1"]);
        assert!(deaf.is_empty());
        assert_eq!(other, ["t=x q0", "t=x q1"]);
        assert_eq!(cluster.dropped(DropReason::RefusedByHook), 2);
        // What is retained is what was published, and it is changed on its way.
        cluster.subscribe(clients[0], "t", 0);
        assert_eq!(cluster.messages(clients[0]), ["t=X q0 retain"]);
    });
}

/// The changed message is the one in the queue, before and after a restart.
#[test]
fn what_was_changed_for_a_session_is_stored_for_it() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, None, stored_by_name);
        for name in ["loud", "deaf", "other"] {
            let (client, _) = cluster.persistent(name);
            cluster.subscribe(client, "t", 2);
            cluster.cut(client);
        }
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "t", "one", 1);
        cluster.publish(publisher, "t", "two", 2);
        cluster.run();
        let log = std::mem::take(&mut cluster.log);
        let now = cluster.now;
        // Nobody is asked again about what was queued.
        let mut cluster = Cluster::restored(shards, stored, log, usize::MAX, now);
        for (name, messages) in [
            ("loud", &["t=ONE q1", "t=TWO q2"][..]),
            ("deaf", &[]),
            ("other", &["t=one q1", "t=two q2"]),
        ] {
            let (client, present) = cluster.persistent(name);
            assert!(present);
            assert_eq!(cluster.messages(client), messages, "{name}");
        }
        assert_eq!(cluster.store.unwrap().holds().0, 0, "nothing is left");
    }
}

/// What was made of a message for one member is not for another one.
#[test]
fn a_group_gets_back_what_was_published() {
    for configure in [by_name as fn(&mut EngineConfig), stored_by_name] {
        each_with(configure, |mut cluster| {
            let filter = "$share/g/t";
            let (loud, _) = cluster.persistent("loud");
            cluster.set_acks(loud, false);
            cluster.subscribe(loud, filter, 2);
            let publisher = cluster.client("publisher");
            cluster.set_reads(loud, false);
            for (payload, qos) in [("zero", 0), ("one", 1), ("two", 2)] {
                cluster.publish(publisher, "t", payload, qos);
            }
            cluster.run();
            let (other, _) = cluster.persistent("other");
            cluster.subscribe(other, filter, 2);
            cluster.cut(loud);
            let messages = cluster.messages(other);
            assert_eq!(messages, ["t=one q1", "t=two q2"]);
        });
    }
}

#[test]
fn a_change_keeps_what_was_on_its_way_in_order() {
    each_with(stored_by_name, |mut cluster| {
        let (loud, _) = cluster.persistent("loud");
        cluster.subscribe(loud, "t", 2);
        cluster.set_acks(loud, false);
        let publisher = cluster.client("publisher");
        cluster.publish(publisher, "t", "first", 2);
        cluster.publish(publisher, "t", "second", 2);
        assert_eq!(cluster.messages(loud), ["t=FIRST q2", "t=SECOND q2"]);
        let (loud, present) = cluster.persistent("loud");
        assert!(present);
        let again = ["t=FIRST q2 dup", "t=SECOND q2 dup"];
        assert_eq!(cluster.messages(loud), again);
        cluster.send(loud, &avocet_codec::Packet::Pingreq);
        cluster.send(loud, &ack(AckType::Pubrec, PacketId::new(1).unwrap()));
        cluster.run();
        let finished = |record: &Record| matches!(record, Record::PubrecReceived { .. });
        assert!(cluster.records.iter().any(finished));
    });
}

#[test]
fn who_subscribed_to_what_is_told_where_it_is_asked_for() {
    let tells = |config: &mut EngineConfig| config.subscription_events = true;
    let told = |cluster: &Cluster| -> Vec<String> {
        let events = cluster.events.iter();
        let told = events.filter_map(|event| {
            let (verb, filters) = match event {
                Event::Subscribed { filters, .. } => ("subscribed", filters),
                Event::Unsubscribed { filters, .. } => ("unsubscribed", filters),
                _ => return None,
            };
            let filters = filters.iter();
            let filters =
                filters.map(|(it, code)| format!(" {} {:#04x}", it.as_str(), *code as u8));
            Some(verb.to_owned() + &filters.collect::<String>())
        });
        told.collect()
    };
    each_with(tells, |mut cluster| {
        let client = cluster.client("client");
        cluster.subscribe(client, "a/#", 1);
        cluster.subscribe(client, "$share/g/b", 2);
        cluster.subscribe(client, "$share/g/", 2);
        cluster.unsubscribe(client, "a/#");
        cluster.unsubscribe(client, "a/#");
        assert_eq!(
            told(&cluster),
            [
                "subscribed a/# 0x01",
                "subscribed $share/g/b 0x02",
                "subscribed $share/g/ 0x8f",
                "unsubscribed a/# 0x00",
                "unsubscribed a/# 0x11"
            ]
        );
    });
    each_with(
        |_| {},
        |mut cluster| {
            let client = cluster.client("client");
            cluster.subscribe(client, "a/#", 1);
            assert!(told(&cluster).is_empty());
        },
    );
}
