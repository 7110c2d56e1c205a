//! Tenants: the same names in worlds apart.

use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{Connect, Packet, QoS, ReasonCode, Version};
use avocet_engine::{
    Accepted, Authentication, DropReason, Durability, EngineConfig, Event, Tenant, TenantQuotas,
    TenantUsage, Tenants, Verdict,
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

fn set_tenants(cluster: &mut Cluster, change: impl FnOnce(&mut Tenants)) {
    let mut tenants = Tenants::default();
    change(&mut tenants);
    let tenants = Arc::new(tenants);
    for engine in &mut cluster.engines {
        engine.set_tenants(Arc::clone(&tenants));
    }
}

/// Quotas of tenant "one", and none of others.
fn with_quotas(cluster: &mut Cluster, change: impl FnOnce(&mut TenantQuotas)) {
    let mut quotas = TenantQuotas::default();
    change(&mut quotas);
    set_tenants(cluster, |tenants| {
        tenants.quotas.insert(tenant("one"), quotas);
    });
}

fn usage(cluster: &Cluster, name: &str) -> TenantUsage {
    let mut sum = TenantUsage::default();
    for engine in &cluster.engines {
        for (_, usage) in engine.tenants().filter(|(it, _)| it.as_str() == name) {
            sum.connections += usage.connections;
            sum.sessions += usage.sessions;
            sum.subscriptions += usage.subscriptions;
            sum.retained_messages += usage.retained_messages;
            sum.retained_bytes += usage.retained_bytes;
        }
    }
    sum
}

fn client_of(cluster: &mut Cluster, tenant: &str, connect: &Connect<'_>) -> (Client, String) {
    let client = connect_to(cluster, tenant, connect);
    let answer = cluster.packet(client);
    (client, answer)
}

#[test]
fn a_tenant_has_as_many_connections_and_sessions_as_it_may() {
    each(|mut cluster| {
        with_quotas(&mut cluster, |quotas| {
            quotas.connections_max = Some(3);
            quotas.sessions_max = Some(4);
        });
        let names = ["a", "b", "c", "d", "e"];
        let mut clients = Vec::new();
        for name in &names[..3] {
            let (client, answer) = client_of(&mut cluster, "one", &persistent(name));
            assert_eq!(answer, "connack 0x00");
            clients.push(client);
        }
        let (_, refused) = client_of(&mut cluster, "one", &persistent("d"));
        assert_eq!(refused, "connack 0x97");
        // Others have none of these quotas.
        for name in ["two", ""] {
            for client_id in names {
                let (_, answer) = client_of(&mut cluster, name, &persistent(client_id));
                assert_eq!(answer, "connack 0x00");
            }
        }
        // Who takes over his session is none more, and who leaves makes room.
        let (again, answer) = client_of(&mut cluster, "one", &persistent("a"));
        assert_eq!(answer, "connack 0x00 present");
        cluster.disconnect(again);
        cluster.run();
        let (_, answer) = client_of(&mut cluster, "one", &persistent("d"));
        assert_eq!(answer, "connack 0x00");
        // Four sessions there are, one of them without its client.
        cluster.disconnect(clients[1]);
        cluster.run();
        let (_, refused) = client_of(&mut cluster, "one", &persistent("e"));
        assert_eq!(refused, "connack 0x97");
        let (_, answer) = client_of(&mut cluster, "one", &persistent("b"));
        assert_eq!(answer, "connack 0x00 present");
        let used = usage(&cluster, "one");
        assert_eq!((used.connections, used.sessions), (3, 4));
        assert_eq!(cluster.counters().connects_over_quota, 2);
    });
}

#[test]
fn a_tenant_has_as_many_subscriptions_as_it_may() {
    each(|mut cluster| {
        with_quotas(&mut cluster, |quotas| quotas.subscriptions_max = Some(3));
        let connect = Connect::new(Version::V5, "a");
        let (one, _) = client_of(&mut cluster, "one", &connect);
        let (other, _) = client_of(&mut cluster, "one", &Connect::new(Version::V3_1_1, "b"));
        let (free, _) = client_of(&mut cluster, "two", &connect);
        for (client, filter, expected) in [
            (one, "a", "suback 0x00"),
            (one, "$share/g/a", "suback 0x00"),
            (other, "a", "suback 0x00"),
            (other, "b", "suback 0x80"),
            (one, "b", "suback 0x97"),
            // One that is there is none more.
            (one, "a", "suback 0x00"),
            (free, "a", "suback 0x00"),
            (free, "b", "suback 0x00"),
            (free, "c", "suback 0x00"),
            (free, "d", "suback 0x00"),
        ] {
            assert_eq!(cluster.subscribe(client, filter, 0), expected, "{filter}");
        }
        cluster.unsubscribe(one, "$share/g/a");
        assert_eq!(cluster.subscribe(other, "b", 0), "suback 0x00");
        assert_eq!(usage(&cluster, "one").subscriptions, 3);
    });
}

#[test]
fn a_tenant_retains_as_much_as_it_may() {
    each(|mut cluster| {
        with_quotas(&mut cluster, |quotas| {
            quotas.retained_messages_max = Some(3);
            quotas.retained_bytes_max = Some(1_000);
        });
        let connect = Connect::new(Version::V5, "a");
        let (one, _) = client_of(&mut cluster, "one", &connect);
        let (two, _) = client_of(&mut cluster, "two", &connect);
        let long = "x".repeat(2_000);
        for client in [one, two] {
            for topic in ["a", "b", "c", "d"] {
                cluster.publish_retained(client, topic, "x", 1);
                cluster.run();
            }
            cluster.publish_retained(client, "a", &long, 1);
            cluster.run();
        }
        // What was retained before is not the last message any more.
        assert_eq!(usage(&cluster, "one").retained_messages, 2);
        assert_eq!(usage(&cluster, "two").retained_messages, 4);
        assert_eq!(cluster.dropped(DropReason::RetainedFull), 2);
        cluster.publish_retained(one, "b", "", 1);
        cluster.publish_retained(one, "d", "x", 1);
        cluster.run();
        let used = usage(&cluster, "one");
        assert_eq!(used.retained_messages, 2);
        assert!(used.retained_bytes < 1_000 && used.retained_bytes > 0);
    });
}

#[test]
fn all_clients_of_a_tenant_together_publish_as_fast_as_they_may() {
    let mut cluster = Cluster::new(1, None, |_| {});
    with_quotas(&mut cluster, |quotas| {
        quotas.publish_rate.messages_per_second = 10;
    });
    let mut clients = Vec::new();
    for name in ["a", "b"] {
        let connect = Connect::new(Version::V5, name);
        clients.push(client_of(&mut cluster, "one", &connect).0);
    }
    let (free, _) = client_of(&mut cluster, "two", &Connect::new(Version::V5, "a"));
    for _ in 0..9 {
        for client in [clients[0], clients[1], free] {
            cluster.publish(client, "t", "x", 0);
            cluster.run();
        }
    }
    assert!(cluster.is_paused(clients[0]) || cluster.is_paused(clients[1]));
    assert!(!cluster.is_paused(free));
    assert!(cluster.counters().publishers_paused > 0);
    let received = |cluster: &Cluster| cluster.counters().publishes_received;
    let before = received(&cluster);
    assert!(before < 27);
    cluster.advance(Duration::from_secs(2));
    assert_eq!(received(&cluster), 27);
    assert!(!cluster.is_paused(clients[0]) && !cluster.is_paused(clients[1]));
}

/// A quota is that of all shards, and what has ended is not counted.
#[test]
fn what_tenants_have_is_counted_until_it_ends() {
    for seed in 1..=20 {
        let mut rng = Rng::new(seed);
        let mut cluster = Cluster::new(1 + rng.below(3) as u16, Some(seed), stored);
        cluster.store = Some(Store::default());
        for _ in 0..80 {
            let name = ["x", "y", "z"][rng.below(3)];
            let mut connect = persistent(name);
            connect.clean_start = rng.one_in(3);
            let (client, _) = client_of(&mut cluster, "one", &connect);
            for _ in 0..rng.below(4) {
                let filter = ["a", "+", "#", "$share/g/a"][rng.below(4)];
                match rng.below(4) {
                    0 => drop(cluster.unsubscribe(client, filter)),
                    1 => cluster.publish_retained(client, ["a", "b"][rng.below(2)], "x", 1),
                    _ => drop(cluster.subscribe(client, filter, 1)),
                }
            }
            cluster.run();
            let used = usage(&cluster, "one");
            let counters = cluster.counters();
            let sessions = counters.sessions_connected + counters.sessions_disconnected;
            assert_eq!(used.sessions, sessions);
            assert_eq!(used.connections, counters.sessions_connected);
            assert_eq!(used.subscriptions, counters.subscriptions);
            assert_eq!(used.retained_messages, counters.retained_messages);
            assert_eq!(used.retained_bytes, counters.retained_bytes);
            match rng.below(4) {
                0 => cluster.cut(client),
                1 => cluster.disconnect(client),
                2 if rng.one_in(6) => {
                    let log = std::mem::take(&mut cluster.log);
                    let shards = 1 + rng.below(3) as u16;
                    cluster = Cluster::restored(shards, stored, log, usize::MAX, cluster.now);
                }
                _ => {}
            }
            cluster.run();
        }
    }
}

#[test]
fn users_and_claims_name_tenants() {
    let asked = |config: &mut EngineConfig| config.authentication = Authentication::Asked;
    each_with(asked, |mut cluster| {
        set_tenants(&mut cluster, |tenants| {
            tenants.users.insert("ann".into(), tenant("one"));
            tenants.claim = Some("org".into());
        });
        for (listener, user, claims, expected) in [
            ("", "ann", &[][..], Some("one")),
            ("", "bob", &[], Some("")),
            ("", "bob", &["two"], Some("two")),
            ("two", "bob", &["two"], Some("two")),
            ("", "ann", &["one"], Some("one")),
            ("", "ann", &["two"], None),
            ("two", "ann", &[], None),
            ("", "bob", &["one", "two"], None),
            ("", "bob", &["a/b"], None),
        ] {
            let connect = Connect::new(Version::V5, "same");
            let client = connect_to(&mut cluster, listener, &connect);
            let mut accepted = Accepted::default();
            accepted.identity.user = Some(user.into());
            if !claims.is_empty() {
                let claims = claims.iter().map(|it| Box::from(*it)).collect();
                accepted.identity.claims.insert("org".into(), claims);
            }
            cluster.events.clear();
            cluster.verdict(client, Verdict::Accept(accepted));
            let answer = cluster.packet(client);
            let session = cluster.events.iter().find_map(|event| match event {
                Event::Connected { session, .. } => Some(session.tenant()),
                _ => None,
            });
            assert_eq!(session, expected, "{listener} {user} {claims:?}");
            let refused = cluster.events.iter();
            let mut refused = refused.filter(|event| matches!(event, Event::TenantRefused { .. }));
            assert_eq!(refused.next().is_some(), expected.is_none());
            assert_eq!(answer == "connack 0x87", expected.is_none(), "{answer}");
        }
    });
}

#[test]
fn sys_says_what_each_tenant_has() {
    let sys = |config: &mut EngineConfig| config.sys_interval = Some(Duration::from_secs(1));
    each_with(sys, |mut cluster| {
        let (watcher, _) = client_of(&mut cluster, "", &Connect::new(Version::V5, "watcher"));
        cluster.subscribe(watcher, "$SYS/broker/tenants/#", 0);
        let (client, _) = client_of(&mut cluster, "one", &Connect::new(Version::V5, "c"));
        cluster.subscribe(client, "#", 0);
        cluster.publish_retained(client, "a", "x", 0);
        cluster.advance(Duration::from_secs(2));
        let told = cluster.messages(watcher);
        for expected in [
            "clients/connected=1",
            "clients/total=1",
            "subscriptions/count=1",
            "retained messages/count=1",
        ] {
            let expected = format!("$SYS/broker/tenants/one/{expected}");
            assert!(told.iter().any(|it| it.contains(&expected)), "{told:?}");
        }
        // Nothing is said again that has not changed.
        cluster.advance(Duration::from_secs(3));
        assert_eq!(cluster.messages(watcher), [""; 0]);
    });
}
