use std::sync::Arc;
use std::time::Duration;

use avocet_access::{Action, Bans, Effect, Rule, Rules, TopicPattern};
use avocet_codec::{Auth, Connect, Packet, QoS, ReasonCode, Version};
use avocet_engine::{
    Accepted, Authentication, AuthenticationRequest, Authorization, AuthorizationRequest,
    ClientIds, DropReason, EngineConfig, Permission, Record, Tenant, Verdict,
};

use crate::cluster::{Cluster, each, each_with, persistent};
use crate::durability::resident;

fn asked(config: &mut EngineConfig) {
    config.authentication = Authentication::Asked;
}

#[test]
fn a_connect_waits_for_its_verdict() {
    each_with(asked, |mut cluster| {
        let mut connect = Connect::new(Version::V5, "client");
        connect.user_name = Some("user");
        connect.password = Some(b"secret");
        let client = cluster.connect(&connect);
        assert_eq!(cluster.packet(client), "nothing");
        // What comes behind CONNECT waits, and goes with the connection.
        cluster.publish(client, "t", "x", 1);
        cluster.run();
        let (id, request) = cluster.authenticate.pop().unwrap();
        let AuthenticationRequest::Connect { connect, opened } = request else {
            panic!("{request:?}");
        };
        assert!(opened.peer.to_string().starts_with("peer"));
        let Packet::Connect(connect) = connect.packet() else {
            panic!("{connect:?}");
        };
        assert_eq!(connect.password, Some(&b"secret"[..]));
        cluster.verdict(id, Verdict::Accept(Accepted::default()));
        assert_eq!(cluster.packets(client), ["connack 0x00", "puback 1 0x10"]);
    });
}

#[test]
fn a_verdict_may_refuse() {
    each_with(asked, |mut cluster| {
        let refuse = || Verdict::Refuse {
            reason: ReasonCode::BadUserNameOrPassword,
            reason_string: Some("wrong".into()),
            server_reference: None,
        };
        for (version, expected) in [
            (Version::V5, "connack 0x86"),
            (Version::V3_1_1, "connack 0x86"),
        ] {
            let client = cluster.connect(&Connect::new(version, "client"));
            cluster.verdict(client, refuse());
            assert_eq!(cluster.packets(client), [expected]);
            assert!(cluster.is_closed(client));
        }
        assert_eq!(cluster.counters().connects_refused, 2);
    });
}

/// A takeover needs a verdict first, so that nobody is pushed out by a stranger.
#[test]
fn takeover_comes_after_authentication() {
    each_with(asked, |mut cluster| {
        let owner = cluster.connect(&Connect::new(Version::V5, "name"));
        cluster.let_in();
        assert_eq!(cluster.packets(owner), ["connack 0x00"]);
        let thief = cluster.connect(&Connect::new(Version::V5, "name"));
        assert!(cluster.packets(owner).is_empty());
        cluster.verdict(
            thief,
            Verdict::Refuse {
                reason: ReasonCode::NotAuthorized,
                reason_string: None,
                server_reference: None,
            },
        );
        assert_eq!(cluster.packets(thief), ["connack 0x87"]);
        assert!(!cluster.is_closed(owner));
    });
}

#[test]
fn tenants_have_client_identifiers_of_their_own() {
    each_with(asked, |mut cluster| {
        let mut clients = Vec::new();
        for tenant in ["one", "two"] {
            let client = cluster.connect(&Connect::new(Version::V5, "same"));
            let tenant = Tenant::new(tenant).unwrap();
            cluster.verdict(client, Verdict::Accept(Accepted::new(tenant, None)));
            assert_eq!(cluster.packets(client), ["connack 0x00"]);
            clients.push(client);
        }
        assert!(!cluster.is_closed(clients[0]));
        assert_eq!(cluster.counters().takeovers, 0);
    });
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.1]
#[test]
fn enhanced_authentication_takes_as_many_steps_as_it_needs() {
    each_with(asked, |mut cluster| {
        let mut connect = Connect::new(Version::V5, "client");
        connect.properties.authentication_method = Some("TEST");
        connect.properties.authentication_data = Some(b"hello");
        let client = cluster.connect(&connect);
        cluster.authenticate.clear();
        cluster.verdict(
            client,
            Verdict::Continue {
                data: Some(b"who?".into()),
            },
        );
        assert_eq!(cluster.packets(client), ["auth 0x18 who?"]);
        let mut auth = Auth::new(ReasonCode::ContinueAuthentication, "TEST");
        auth.authentication_data = Some(b"me");
        cluster.send(client, &Packet::Auth(auth));
        cluster.run();
        let (_, request) = cluster.authenticate.pop().unwrap();
        assert!(matches!(request, AuthenticationRequest::Continue { .. }));
        let accepted = Accepted::new(Tenant::NONE, Some(b"welcome".into()));
        cluster.verdict(client, Verdict::Accept(accepted));
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        // And again, while it is connected.
        auth.reason_code = ReasonCode::ReAuthenticate;
        cluster.send(client, &Packet::Auth(auth));
        cluster.run();
        let (_, request) = cluster.authenticate.pop().unwrap();
        assert!(matches!(
            request,
            AuthenticationRequest::ReAuthenticate { .. }
        ));
        cluster.verdict(
            client,
            Verdict::Accept(Accepted::new(Tenant::NONE, Some(b"still".into()))),
        );
        assert_eq!(cluster.packets(client), ["auth 0x00 still"]);
    });
}

/// Its Session State stays.
#[test]
fn a_client_is_disconnected_when_what_let_it_in_is_over() {
    each_with(asked, |mut cluster| {
        let accepted = |until| {
            let mut accepted = Accepted::default();
            accepted.until = until;
            Verdict::Accept(accepted)
        };
        let mut connect = persistent("client");
        connect.properties.authentication_method = Some("TEST");
        let client = cluster.connect(&connect);
        let until = |cluster: &Cluster| Some(cluster.now.unix + Duration::from_secs(5));
        let at = until(&cluster);
        cluster.verdict(client, accepted(at));
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        cluster.advance(Duration::from_millis(4_999));
        assert!(!cluster.is_closed(client));
        // What it shows next counts from then on.
        let auth = Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, "TEST"));
        cluster.send(client, &auth);
        cluster.run();
        let at = until(&cluster);
        cluster.verdict(client, accepted(at));
        assert_eq!(cluster.packets(client), ["auth 0x00 "]);
        cluster.advance(Duration::from_millis(4_999));
        assert!(!cluster.is_closed(client));
        cluster.advance(Duration::from_millis(1));
        assert_eq!(cluster.packets(client), ["disconnect 0x87"]);
        let late = cluster.connect(&connect);
        let at = Some(cluster.now.unix);
        cluster.verdict(late, accepted(at));
        assert_eq!(cluster.packets(late), ["connack 0x87"]);
        let again = cluster.connect(&connect);
        cluster.verdict(again, accepted(None));
        assert_eq!(cluster.packets(again), ["connack 0x00 present"]);
    });
}

/// [MQTT5-4.12.1]
#[test]
fn a_client_that_authenticates_again_stays_who_it_is() {
    let ruled_and_asked = |config: &mut EngineConfig| {
        asked(config);
        ruled(config);
    };
    each_with(ruled_and_asked, |mut cluster| {
        let accepted = |user: &str| {
            let mut accepted = Accepted::default();
            accepted.identity.user = Some(user.into());
            Verdict::Accept(accepted)
        };
        let mut connect = Connect::new(Version::V5, "client");
        connect.properties.authentication_method = Some("TEST");
        let client = cluster.connect(&connect);
        cluster.verdict(client, accepted("ann"));
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        let auth = Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, "TEST"));
        cluster.send(client, &auth);
        cluster.run();
        cluster.verdict(client, accepted("ann"));
        assert_eq!(cluster.packets(client), ["auth 0x00 "]);
        cluster.send(client, &auth);
        cluster.run();
        cluster.verdict(client, accepted("bob"));
        assert_eq!(cluster.packets(client), ["disconnect 0x87"]);
    });
}

/// Everything is allowed.
fn without_rules() -> Arc<Rules> {
    Arc::new(Rules::new([], Effect::Allow).unwrap())
}

/// Nobody may be sent what is below `secret`.
fn without_secrets() -> Arc<Rules> {
    let secret: TopicPattern = "secret/#".parse().unwrap();
    let mut rule = Rule::new(Effect::Deny, [Action::Deliver].into_iter().collect());
    rule.topics = vec![secret];
    Arc::new(Rules::new([rule], Effect::Allow).unwrap())
}

fn set_rules(cluster: &mut Cluster, rules: &Arc<Rules>) {
    for engine in &mut cluster.engines {
        engine.set_rules(Arc::clone(rules));
    }
}

fn ruled(config: &mut EngineConfig) {
    config.authorization = Authorization::Rules;
}

#[test]
fn what_was_queued_for_a_client_that_is_away_is_judged_when_it_is_back() {
    each_with(ruled, |mut cluster| {
        set_rules(&mut cluster, &without_rules());
        let (away, _) = cluster.persistent("away");
        assert_eq!(cluster.subscribe(away, "#", 2), "suback 0x02");
        cluster.disconnect(away);
        let publisher = cluster.client("publisher");
        for (qos, topic) in [
            (1, "secret/1"),
            (1, "open/1"),
            (2, "secret/2"),
            (2, "open/2"),
        ] {
            cluster.publish(publisher, topic, "x", qos);
        }
        cluster.run();
        set_rules(&mut cluster, &without_secrets());
        let (back, present) = cluster.persistent("away");
        assert!(present);
        assert_eq!(cluster.messages(back), ["open/1=x q1", "open/2=x q2"]);
        assert_eq!(cluster.dropped(DropReason::NotAuthorized), 2);
    });
}

#[test]
fn what_only_the_store_has_is_judged_when_it_comes_back() {
    let configure = |config: &mut EngineConfig| {
        resident::<2>(config);
        ruled(config);
    };
    each_with(configure, |mut cluster| {
        set_rules(&mut cluster, &without_rules());
        let (away, _) = cluster.persistent("away");
        assert_eq!(cluster.subscribe(away, "#", 1), "suback 0x01");
        cluster.disconnect(away);
        let publisher = cluster.client("publisher");
        for n in 0..20 {
            let topic = ["secret", "open"][n % 2];
            cluster.publish(publisher, topic, &n.to_string(), 1);
        }
        cluster.run();
        set_rules(&mut cluster, &without_secrets());
        let (back, _) = cluster.persistent("away");
        cluster.serve_fetches();
        let open: Vec<_> = (0..10).map(|n| format!("open={} q1", 2 * n + 1)).collect();
        assert_eq!(cluster.messages(back), open);
        let finished = |record: &&Record| matches!(record, Record::Finished { .. });
        assert_eq!(cluster.records.iter().filter(finished).count(), 20);
        assert_eq!(cluster.counters().queued_messages, 0);
    });
}

#[test]
fn what_waits_for_a_client_is_judged_by_new_rules() {
    each_with(ruled, |mut cluster| {
        set_rules(&mut cluster, &without_rules());
        let slow = cluster.client("slow");
        assert_eq!(cluster.subscribe(slow, "#", 1), "suback 0x01");
        cluster.set_reads(slow, false);
        let publisher = cluster.client("publisher");
        for topic in ["open/1", "secret/1"] {
            for qos in [0, 1] {
                cluster.publish(publisher, topic, "x", qos);
            }
        }
        cluster.run();
        set_rules(&mut cluster, &without_secrets());
        cluster.publish(publisher, "open/2", "x", 1);
        cluster.run();
        cluster.set_reads(slow, true);
        cluster.run();
        let mut messages = cluster.messages(slow);
        messages.sort();
        assert_eq!(messages, ["open/1=x q0", "open/1=x q1", "open/2=x q1"]);
        assert_eq!(cluster.dropped(DropReason::NotAuthorized), 2);
    });
}

/// [MQTT5-4.12.0-1]
#[test]
fn enhanced_authentication_without_an_authority_is_refused() {
    each(|mut cluster| {
        let mut connect = Connect::new(Version::V5, "client");
        connect.properties.authentication_method = Some("TEST");
        let client = cluster.connect(&connect);
        assert_eq!(cluster.packets(client), ["connack 0x8c"]);
    });
}

#[test]
fn publish_and_subscribe_wait_for_permission_in_order() {
    let configure = |config: &mut EngineConfig| config.authorization = Authorization::Asked;
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        cluster.send_subscribe(client, "t/#", 2, None, |_| {});
        cluster.publish(client, "t/1", "allowed", 1);
        cluster.publish(client, "t/2", "denied", 1);
        cluster.publish(client, "t/3", "denied", 2);
        cluster.publish(client, "t/4", "allowed", 2);
        cluster.run();
        assert!(cluster.is_paused(client));
        let (_, request) = cluster.authorize.pop().unwrap();
        assert!(matches!(request, AuthorizationRequest::Subscribe { .. }));
        cluster.permit(client, Permission::Subscribe(vec![Ok(QoS::AtLeastOnce)]));
        while let Some((id, request)) = cluster.authorize.pop() {
            let AuthorizationRequest::Publish { topic_name, .. } = request else {
                panic!("{request:?}");
            };
            let allowed = ["t/1", "t/4"].contains(&topic_name.as_str());
            let code = if allowed {
                ReasonCode::Success
            } else {
                ReasonCode::NotAuthorized
            };
            cluster.permit(id, Permission::Publish(code));
        }
        let mut packets = cluster.packets(client);
        assert_eq!(packets.remove(0), "suback 0x01");
        packets.sort();
        assert_eq!(
            packets,
            [
                "puback 2 0x00",
                "puback 3 0x87",
                "pubcomp 5 0x00",
                "pubrec 4 0x87",
                "pubrec 5 0x00",
                "t/1=allowed q1",
                "t/4=allowed q1",
            ]
        );
        cluster.send_subscribe(client, "secret", 2, None, |_| {});
        cluster.run();
        cluster.permit(
            client,
            Permission::Subscribe(vec![Err(ReasonCode::NotAuthorized)]),
        );
        assert_eq!(cluster.packets(client), ["suback 0x87"]);
    });
}

#[test]
fn a_verdict_that_an_answer_cannot_carry_is_not_authorized() {
    let configure = |config: &mut EngineConfig| config.authorization = Authorization::Asked;
    each_with(configure, |mut cluster| {
        let client = cluster.client("client");
        let reason = ReasonCode::BadUserNameOrPassword;
        cluster.send_subscribe(client, "t", 2, None, |_| {});
        cluster.publish(client, "t", "x", 1);
        cluster.run();
        cluster.permit(client, Permission::Subscribe(vec![Err(reason)]));
        cluster.permit(client, Permission::Publish(reason));
        assert_eq!(cluster.packets(client), ["suback 0x87", "puback 2 0x87"]);
    });
}

/// [MQTT5-4.3.3-10] What a takeover left without a verdict was not taken, and comes as a new message.
#[test]
fn a_takeover_forgets_what_was_not_judged() {
    let configure = |config: &mut EngineConfig| config.authorization = Authorization::Asked;
    each_with(configure, |mut cluster| {
        let subscriber = cluster.client("subscriber");
        cluster.send_subscribe(subscriber, "t", 0, None, |_| {});
        cluster.run();
        cluster.permit(subscriber, Permission::Subscribe(vec![Ok(QoS::AtMostOnce)]));
        let (old, _) = cluster.persistent("client");
        cluster.publish(old, "t", "once", 2);
        cluster.run();
        let (new, present) = cluster.persistent("client");
        assert!(present);
        cluster.permit(old, Permission::Publish(ReasonCode::Success));
        cluster.publish_with(new, "t", "once", 2, |publish| publish.dup = true);
        cluster.run();
        assert_eq!(cluster.packets(new), [""; 0], "it waits for its verdict");
        cluster.permit(new, Permission::Publish(ReasonCode::Success));
        assert_eq!(cluster.packets(new), ["pubrec 1 0x00", "pubcomp 1 0x00"]);
        assert_eq!(cluster.messages(subscriber), ["t=once q0"]);
    });
}

/// [MQTT5-4.12.1] The client goes on with other packets while it is asked who it is.
#[test]
fn messages_are_judged_during_reauthentication() {
    let configure = |config: &mut EngineConfig| {
        asked(config);
        config.authorization = Authorization::Asked;
    };
    each_with(configure, |mut cluster| {
        let mut connect = Connect::new(Version::V5, "client");
        connect.properties.authentication_method = Some("TEST");
        let client = cluster.connect(&connect);
        cluster.let_in();
        assert_eq!(cluster.packets(client), ["connack 0x00"]);
        let auth = Auth::new(ReasonCode::ReAuthenticate, "TEST");
        cluster.send(client, &Packet::Auth(auth));
        cluster.publish(client, "t", "x", 1);
        cluster.run();
        cluster.verdict(client, Verdict::Accept(Accepted::default()));
        assert_eq!(cluster.packets(client), ["auth 0x00 "]);
        cluster.permit(client, Permission::Publish(ReasonCode::Success));
        assert_eq!(cluster.packets(client), ["puback 1 0x10"]);
    });
}

/// [MQTT311-3.3.5-2]
#[test]
fn before_5_0_a_message_that_is_not_allowed_is_acknowledged_and_dropped() {
    let configure = |config: &mut EngineConfig| config.authorization = Authorization::Asked;
    each_with(configure, |mut cluster| {
        let client = cluster.client_with(&Connect::new(Version::V3_1_1, "old"));
        cluster.publish(client, "t", "denied", 1);
        cluster.publish(client, "t", "denied", 2);
        cluster.run();
        while let Some((id, _)) = cluster.authorize.pop() {
            cluster.permit(id, Permission::Publish(ReasonCode::NotAuthorized));
        }
        let packets = cluster.packets(client);
        assert_eq!(
            packets,
            ["puback 1 0x00", "pubrec 2 0x00", "pubcomp 2 0x00"]
        );
    });
}

/// [MQTT5-3.1.2-28]
#[test]
fn response_information_is_given_to_those_who_ask() {
    let configure = |config: &mut EngineConfig| {
        config.response_information = Some("answers/%c".into());
    };
    each_with(configure, |mut cluster| {
        for asks in [false, true] {
            let mut connect = Connect::new(Version::V5, "asker");
            connect.properties.request_response_information = asks;
            let client = cluster.connect(&connect);
            let frames = cluster.frames(client);
            let Packet::Connack(connack) = frames[0].packet() else {
                panic!("{frames:?}");
            };
            let expected = asks.then_some("answers/asker");
            assert_eq!(connack.properties.response_information, expected);
        }
    });
}

/// [MQTT5-3.1.4-3] is about the same client: a user with a name of another one's is not.
#[test]
fn users_have_client_identifiers_of_their_own_by_setting() {
    let own = |config: &mut EngineConfig| {
        asked(config);
        config.client_ids = ClientIds::OfEachUser;
    };
    each_with(own, |mut cluster| {
        let connect = |cluster: &mut Cluster, user: Option<&str>| {
            let client = cluster.connect(&persistent("same"));
            let mut accepted = Accepted::default();
            accepted.identity.user = user.map(Box::from);
            cluster.verdict(client, Verdict::Accept(accepted));
            (client, cluster.packet(client))
        };
        let (ann, _) = connect(&mut cluster, Some("ann"));
        for user in [Some("eve"), None] {
            let (_, connack) = connect(&mut cluster, user);
            assert_eq!(connack, "connack 0x00");
        }
        assert!(!cluster.is_closed(ann));
        let (_, connack) = connect(&mut cluster, Some("ann"));
        assert_eq!(connack, "connack 0x00 present");
        assert!(cluster.is_closed(ann));
        assert_eq!(cluster.counters().takeovers, 1);
    });
}

#[test]
fn who_is_banned_is_refused() {
    each_with(asked, |mut cluster| {
        let mut bans = Bans::default();
        bans.ban_client_id("bad");
        bans.ban_user("eve");
        let bans = Arc::new(bans);
        for engine in &mut cluster.engines {
            engine.set_bans(Arc::clone(&bans));
        }
        for (client_id, user, expected) in [
            ("bad", "ann", "connack 0x8a"),
            ("good", "eve", "connack 0x8a"),
            ("good", "ann", "connack 0x00"),
        ] {
            let client = cluster.connect(&Connect::new(Version::V5, client_id));
            let mut accepted = Accepted::default();
            accepted.identity.user = Some(user.into());
            cluster.verdict(client, Verdict::Accept(accepted));
            assert_eq!(cluster.packets(client), [expected]);
        }
        let counters = cluster.counters();
        assert_eq!(
            (counters.connects_banned, counters.connects_refused),
            (2, 2)
        );
    });
}

/// The ban reaches the shard that owns the session while the connection is on its way there.
#[test]
fn who_is_banned_on_the_way_to_another_shard_is_refused() {
    let mut moved = 0;
    for seed in 0..8 {
        let mut cluster = Cluster::new(3, None, asked);
        let client_id = format!("bad {seed}");
        let client = cluster.connect(&Connect::new(Version::V5, &client_id));
        let from = cluster.shard(client);
        let mut bans = Bans::default();
        bans.ban_client_id(&client_id);
        let bans = Arc::new(bans);
        for (shard, engine) in cluster.engines.iter_mut().enumerate() {
            if shard != from {
                engine.set_bans(Arc::clone(&bans));
            }
        }
        cluster.verdict(client, Verdict::Accept(Accepted::default()));
        if cluster.shard(client) != from {
            moved += 1;
            assert_eq!(cluster.packets(client), ["connack 0x8a"]);
        }
    }
    assert!(moved > 0);
}

#[test]
fn the_driver_disconnects_whom_it_wants() {
    each(|mut cluster| {
        let clients = ["a", "b", "c"].map(|id| cluster.client(id));
        let now = cluster.now;
        for engine in &mut cluster.engines {
            engine.disconnect_where(ReasonCode::AdministrativeAction, now, |client| {
                client.key.is_some_and(|key| key.client_id() != "b")
            });
        }
        cluster.run();
        assert_eq!(cluster.packets(clients[0]), ["disconnect 0x98"]);
        assert_eq!(cluster.packets(clients[2]), ["disconnect 0x98"]);
        assert!(!cluster.is_closed(clients[1]));
        assert_eq!(cluster.counters().disconnected_by_driver, 2);
    });
}

/// A connection that the driver takes no further is told so by the answer to its CONNECT.
#[test]
fn a_refused_connection_is_told_why() {
    each(|mut cluster| {
        for (version, expected) in [
            (Version::V5, "connack 0x9f"),
            (Version::V3_1_1, "connack 0x88"),
        ] {
            let client = cluster.open_refused(version, ReasonCode::ConnectionRateExceeded);
            cluster.send(client, &Packet::Connect(Connect::new(version, "c")));
            cluster.run();
            assert_eq!(cluster.packets(client), [expected]);
            assert!(cluster.is_closed(client));
        }
        // The driver has counted them.
        assert_eq!(cluster.counters().connects_refused, 0);
    });
}
