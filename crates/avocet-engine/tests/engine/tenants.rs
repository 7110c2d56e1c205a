//! Tenants: the same names in worlds apart.

use std::time::Duration;

use avocet_codec::{Connect, Packet, QoS, ReasonCode, Version};
use avocet_engine::{
    Accepted, Authentication, DropReason, Durability, EngineConfig, Event, Tenant, Verdict,
};

use crate::cluster::{Client, Cluster, Rng, each, each_with, persistent};
use crate::publish::will;
use crate::store::Store;

/// Those without a tenant are apart from tenants too.
const TENANTS: [&str; 3] = ["", "one", "two"];

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap_or_default()
}

fn stored(config: &mut EngineConfig) {
    config.durability = Durability::Stored;
}

fn connect_to(cluster: &mut Cluster, listener_of: &str, connect: &Connect<'_>) -> Client {
    let client = cluster.open_of(connect.version, tenant(listener_of));
    cluster.send(client, &Packet::Connect(*connect));
    cluster.run();
    client
}

/// A client of each tenant, all with the same Client Identifier.
fn clients(cluster: &mut Cluster, connect: &Connect<'_>) -> [Client; 3] {
    TENANTS.map(|tenant| {
        let client = connect_to(cluster, tenant, connect);
        let connack = cluster.packet(client);
        assert!(connack.starts_with("connack 0x00"), "{connack}");
        client
    })
}

/// What each of these clients received, without what it came with.
fn got(cluster: &mut Cluster, clients: [Client; 3]) -> [Vec<String>; 3] {
    clients.map(|client| {
        let messages = cluster.messages(client);
        let payload = |it: &String| {
            let payload = it.split('=').nth(1).unwrap();
            payload.split(' ').next().unwrap().to_owned()
        };
        messages.iter().map(payload).collect()
    })
}

fn own(payload: &str) -> [Vec<String>; 3] {
    TENANTS.map(|tenant| vec![format!("{payload}-of-{tenant}")])
}

fn publish_each(cluster: &mut Cluster, clients: [Client; 3], topic: &str, payload: &str, qos: u8) {
    for (client, tenant) in clients.into_iter().zip(TENANTS) {
        cluster.publish(client, topic, &format!("{payload}-of-{tenant}"), qos);
    }
    cluster.run();
}

#[test]
fn a_message_stays_with_its_tenant() {
    each(|mut cluster| {
        for filter in ["a/b", "#", "+/b", "a/#", "$share/g/a/b", "$share/g/#"] {
            let subscribers = clients(&mut cluster, &Connect::new(Version::V5, "subscriber"));
            for client in subscribers {
                assert_eq!(cluster.subscribe(client, filter, 2), "suback 0x02");
            }
            let publishers = clients(&mut cluster, &Connect::new(Version::V3_1_1, "publisher"));
            // More than once, as topics that come again go a shorter way.
            for qos in [0, 0, 0, 1, 2, 0] {
                publish_each(&mut cluster, publishers, "a/b", "x", qos);
                assert_eq!(got(&mut cluster, subscribers), own("x"), "{filter} {qos}");
            }
            for client in subscribers {
                cluster.disconnect(client);
            }
            cluster.run();
        }
    });
}

#[test]
fn a_retained_message_stays_with_its_tenant() {
    each(|mut cluster| {
        let publishers = clients(&mut cluster, &Connect::new(Version::V5, "publisher"));
        for (client, tenant) in publishers.into_iter().zip(TENANTS) {
            cluster.publish_retained(client, "a/b", &format!("x-of-{tenant}"), 1);
        }
        cluster.run();
        assert_eq!(cluster.counters().retained_messages, 3);
        for filter in ["a/b", "#", "a/+"] {
            let subscribers = clients(&mut cluster, &Connect::new(Version::V5, "subscriber"));
            for client in subscribers {
                cluster.subscribe(client, filter, 1);
            }
            assert_eq!(got(&mut cluster, subscribers), own("x"), "{filter}");
        }
        // One of them clears its own.
        cluster.publish_retained(publishers[1], "a/b", "", 1);
        cluster.run();
        assert_eq!(cluster.counters().retained_messages, 2);
        let subscribers = clients(&mut cluster, &Connect::new(Version::V5, "subscriber"));
        for client in subscribers {
            cluster.subscribe(client, "#", 1);
        }
        let [none, _, two] = own("x");
        assert_eq!(got(&mut cluster, subscribers), [none, Vec::new(), two]);
    });
}

/// [MQTT5-3.1.2-8]
#[test]
fn a_will_stays_with_its_tenant() {
    each(|mut cluster| {
        let subscribers = clients(&mut cluster, &Connect::new(Version::V5, "subscriber"));
        for client in subscribers {
            cluster.subscribe(client, "#", 1);
        }
        let mut connect = persistent("dying");
        let mut delayed = will("wills/a", "gone");
        delayed.will_delay_interval = 5;
        delayed.qos = QoS::AtLeastOnce;
        connect.will = Some(delayed);
        let dying = clients(&mut cluster, &connect);
        cluster.cut(dying[1]);
        cluster.run();
        assert_eq!(got(&mut cluster, subscribers).concat(), [""; 0]);
        cluster.advance(Duration::from_secs(6));
        let expected = [Vec::new(), vec!["gone".to_owned()], Vec::new()];
        assert_eq!(got(&mut cluster, subscribers), expected);
    });
}

/// Everything that is stored, and a restart with another number of shards in between.
#[test]
fn nothing_crosses_in_a_restart() {
    for (before, after) in [(1, 1), (1, 3), (3, 2)] {
        let mut cluster = Cluster::new(before, None, stored);
        cluster.store = Some(Store::default());
        let subscribers = clients(&mut cluster, &persistent("subscriber"));
        let members = clients(&mut cluster, &persistent("member"));
        for (client, member) in subscribers.into_iter().zip(members) {
            cluster.subscribe(client, "#", 2);
            cluster.subscribe(member, "$share/g/jobs/+", 2);
        }
        let mut connect = persistent("dying");
        let mut delayed = will("wills/a", "gone");
        delayed.will_delay_interval = 5;
        delayed.qos = QoS::AtLeastOnce;
        connect.will = Some(delayed);
        let dying = clients(&mut cluster, &connect);
        for client in subscribers.into_iter().chain(members) {
            cluster.cut(client);
        }
        cluster.cut(dying[2]);
        cluster.disconnect(dying[0]);
        cluster.disconnect(dying[1]);
        cluster.run();
        let publishers = clients(&mut cluster, &persistent("publisher"));
        publish_each(&mut cluster, publishers, "jobs/1", "job", 2);
        for (client, tenant) in publishers.into_iter().zip(TENANTS) {
            cluster.publish_retained(client, "state", &format!("state-of-{tenant}"), 1);
        }
        cluster.run();

        let log = std::mem::take(&mut cluster.log);
        let mut cluster = Cluster::restored(after, stored, log, usize::MAX, cluster.now);
        assert_eq!(cluster.counters().retained_messages, 3);
        cluster.advance(Duration::from_secs(6));
        let subscribers = clients(&mut cluster, &persistent("subscriber"));
        let members = clients(&mut cluster, &persistent("member"));
        let mut expected = TENANTS.map(|tenant| {
            let of = |payload| format!("{payload}-of-{tenant}");
            vec![of("job"), of("state")]
        });
        expected[2].push("gone".into());
        for (it, tenant) in got(&mut cluster, subscribers).into_iter().zip(expected) {
            assert_eq!(it, tenant);
        }
        assert_eq!(got(&mut cluster, members), own("job"));
        // What is retained is each one's own too.
        let late = clients(&mut cluster, &Connect::new(Version::V5, "late"));
        for client in late {
            cluster.subscribe(client, "+", 1);
        }
        assert_eq!(got(&mut cluster, late), own("state"));
    }
}

/// A listener's tenant is that of its clients, and so is that of who they are; two are none.
#[test]
fn listener_and_identity_name_the_same_tenant_or_nobody_gets_in() {
    let asked = |config: &mut EngineConfig| config.authentication = Authentication::Asked;
    each_with(asked, |mut cluster| {
        for (listener, identity, expected) in [
            ("", "", Some("")),
            ("one", "", Some("one")),
            ("", "two", Some("two")),
            ("one", "one", Some("one")),
            ("one", "two", None),
        ] {
            let connect = Connect::new(Version::V5, "same");
            let client = connect_to(&mut cluster, listener, &connect);
            let accepted = Accepted::new(tenant(identity), None);
            cluster.verdict(client, Verdict::Accept(accepted));
            let Some(expected) = expected else {
                assert_eq!(cluster.packet(client), "connack 0x87");
                continue;
            };
            assert_eq!(cluster.packet(client), "connack 0x00");
            let session = cluster.events.iter().rev().find_map(|event| match event {
                Event::Connected { session, .. } => Some(session.tenant()),
                _ => None,
            });
            assert_eq!(session, Some(expected));
        }
        let old = connect_to(&mut cluster, "one", &Connect::new(Version::V3_1_1, "same"));
        let accepted = Accepted::new(tenant("two"), None);
        cluster.verdict(old, Verdict::Accept(accepted));
        assert_eq!(cluster.packet(old), "connack 0x87");
    });
}

#[test]
fn there_are_as_many_tenants_as_there_may_be() {
    let two = |config: &mut EngineConfig| config.limits.tenants_max = 2;
    let mut cluster = Cluster::new(1, None, two);
    for name in ["one", "two", "", "one"] {
        let client = connect_to(&mut cluster, name, &Connect::new(Version::V5, "c"));
        assert_eq!(cluster.packet(client), "connack 0x00");
    }
    let refused = connect_to(&mut cluster, "three", &Connect::new(Version::V5, "c"));
    assert_eq!(cluster.packet(refused), "connack 0x97");
    let refused = connect_to(&mut cluster, "three", &Connect::new(Version::V3_1_1, "c"));
    assert_eq!(cluster.packet(refused), "connack 0x87");
    assert_eq!(cluster.counters().connects_over_quota, 2);
}

/// Who is refused leaves nothing behind.
#[test]
fn a_refused_client_takes_no_place_of_a_tenant() {
    let one = |config: &mut EngineConfig| config.limits.tenants_max = 1;
    let mut cluster = Cluster::new(1, None, one);
    cluster.engines[0].set_overloaded(true);
    for name in ["one", "two"] {
        let client = connect_to(&mut cluster, name, &Connect::new(Version::V5, "c"));
        assert_eq!(cluster.packet(client), "connack 0x89");
    }
    cluster.engines[0].set_overloaded(false);
    let client = connect_to(&mut cluster, "two", &Connect::new(Version::V5, "c"));
    assert_eq!(cluster.packet(client), "connack 0x00");
}

/// What the server says of itself is for those without a tenant.
#[test]
fn sys_is_not_for_tenants() {
    let sys = |config: &mut EngineConfig| config.sys_interval = Some(Duration::from_secs(1));
    each_with(sys, |mut cluster| {
        let subscribers = clients(&mut cluster, &Connect::new(Version::V5, "subscriber"));
        for client in subscribers {
            cluster.subscribe(client, "$SYS/#", 0);
        }
        cluster.advance(Duration::from_secs(2));
        let [none, one, two] = got(&mut cluster, subscribers);
        assert!(!none.is_empty() && one.is_empty() && two.is_empty());
    });
}

/// Whatever clients of several tenants do with the same names, what they get says whose it is.
#[test]
fn nothing_crosses_whatever_clients_do() {
    const FILTERS: [&str; 8] = [
        "#",
        "+",
        "a",
        "a/+",
        "a/#",
        "+/b",
        "$share/g/#",
        "$share/g/a/+",
    ];
    const TOPICS: [&str; 4] = ["a", "a/b", "b", "c/b"];
    const NAMES: [&str; 2] = ["x", "y"];
    let mut received = 0;
    for seed in 1..=60 {
        let mut rng = Rng::new(seed);
        let shards = 1 + rng.below(3) as u16;
        let mut cluster = Cluster::new(shards, Some(seed), stored);
        cluster.store = Some(Store::default());
        let mut online: Vec<(Client, &str, &str)> = Vec::new();
        for _ in 0..150 {
            let at = rng.below(online.len());
            match rng.below(12) {
                0 | 1 => {
                    let (tenant, name) = (TENANTS[rng.below(3)], NAMES[rng.below(2)]);
                    let text = format!("will-of-{tenant}");
                    let mut connect = persistent(name);
                    connect.will = Some(will("a/b", &text));
                    connect.clean_start = rng.one_in(4);
                    let client = connect_to(&mut cluster, tenant, &connect);
                    online.retain(|it| (it.1, it.2) != (tenant, name));
                    online.push((client, tenant, name));
                }
                _ if online.is_empty() => {}
                2..=4 => {
                    let filter = FILTERS[rng.below(FILTERS.len())];
                    cluster.subscribe(online[at].0, filter, rng.below(3) as u8);
                }
                5 => {
                    cluster.unsubscribe(online[at].0, FILTERS[rng.below(FILTERS.len())]);
                }
                6 if rng.one_in(2) => cluster.cut(online.swap_remove(at).0),
                7 if rng.one_in(8) => {
                    cluster.run();
                    let log = std::mem::take(&mut cluster.log);
                    let shards = 1 + rng.below(3) as u16;
                    cluster = Cluster::restored(shards, stored, log, usize::MAX, cluster.now);
                    online.clear();
                }
                more => {
                    let (client, tenant, _) = online[at];
                    let payload = format!("n-of-{tenant}");
                    let (topic, qos) = (TOPICS[rng.below(4)], rng.below(3) as u8);
                    if more > 9 {
                        cluster.publish_retained(client, topic, &payload, qos);
                    } else {
                        cluster.publish(client, topic, &payload, qos);
                    }
                }
            }
            cluster.run();
            for (client, tenant, _) in &online {
                for message in cluster.messages(*client) {
                    let (_, of) = message.split_once("-of-").unwrap();
                    let of = of.split(' ').next().unwrap();
                    assert_eq!(of, *tenant, "seed {seed}: {message}");
                    received += 1;
                }
            }
        }
        assert_eq!(cluster.dropped(DropReason::NotAuthorized), 0);
    }
    assert!(received > 5_000, "{received}");
}

#[test]
fn who_authenticates_again_stays_with_its_tenant() {
    let asked = |config: &mut EngineConfig| config.authentication = Authentication::Asked;
    each_with(asked, |mut cluster| {
        let mut connect = Connect::new(Version::V5, "client");
        connect.properties.authentication_method = Some("TEST");
        for (again, expected) in [("one", "auth 0x00 "), ("two", "disconnect 0x87")] {
            let client = connect_to(&mut cluster, "", &connect);
            let accepted = Accepted::new(tenant("one"), None);
            cluster.verdict(client, Verdict::Accept(accepted));
            assert_eq!(cluster.packet(client), "connack 0x00");
            let auth = avocet_codec::Auth::new(ReasonCode::ReAuthenticate, "TEST");
            cluster.send(client, &Packet::Auth(auth));
            cluster.run();
            let accepted = Accepted::new(tenant(again), None);
            cluster.verdict(client, Verdict::Accept(accepted));
            assert_eq!(cluster.packet(client), expected);
        }
    });
}
