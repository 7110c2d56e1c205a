//! What shards, sessions and connections are called, and which shard owns what.

use avocet_engine::{ConnectionId, GroupName, SessionKey, ShardId, Tenant, TenantError};
use avocet_topic::{TopicFilterBuf, TopicName};

/// A store is read again by later versions, in which all shards still look for the same things.
#[test]
fn every_version_finds_the_same_owners() {
    let counts = [1, 2, 3, 65_535];
    let session = |tenant, client_id| {
        let key = SessionKey::new(tenant, client_id);
        counts.map(|shards| ShardId::of_session(&key, shards).get())
    };
    assert_eq!(session("", "sensor-1"), [0, 1, 1, 27_349]);
    assert_eq!(session("tenant", "sensor-1"), [0, 1, 0, 27_807]);
    let topic = |name| {
        let topic_name = TopicName::new(name).unwrap();
        counts.map(|shards| ShardId::of_topic("", topic_name, shards).get())
    };
    assert_eq!(topic("a/b"), [0, 1, 0, 16_524]);
    assert_eq!(topic("ä/b"), [0, 1, 0, 59_922]);
    assert_eq!(topic("$SYS/broker/uptime"), [0; 4]);
    let filter = TopicFilterBuf::new("$share/g/a/#").unwrap();
    let group = GroupName::new(Tenant::NONE, filter.clone());
    let group = counts.map(|shards| ShardId::of_group(&group, shards).get());
    assert_eq!(group, [0, 1, 2, 2_213]);
    let topic_name = TopicName::new("a/b").unwrap();
    let topic = counts.map(|shards| ShardId::of_topic("tenant", topic_name, shards).get());
    assert_eq!(topic, [0, 1, 2, 48_548]);
    let group = GroupName::new(Tenant::new("tenant").unwrap(), filter);
    let group = counts.map(|shards| ShardId::of_group(&group, shards).get());
    assert_eq!(group, [0, 1, 1, 63_811]);
}

#[test]
fn names_of_tenants_can_stand_in_a_topic_and_in_a_log() {
    for name in [
        "a",
        "Acme GmbH & Co",
        "ä",
        "$x",
        &"x".repeat(Tenant::BYTES_MAX),
    ] {
        assert_eq!(Tenant::new(name).unwrap().as_str(), name);
    }
    assert_eq!(Tenant::new(""), Err(TenantError::Empty));
    for name in ["a/b", "+", "a#", "a\nb", "\u{7f}", "\0"] {
        assert_eq!(Tenant::new(name), Err(TenantError::Character), "{name:?}");
    }
    let long = "x".repeat(Tenant::BYTES_MAX + 1);
    assert_eq!(Tenant::new(&long), Err(TenantError::TooLong));
}

#[test]
fn names_are_written_for_people() {
    let connection = ConnectionId::new(ShardId::new(3), 7);
    assert_eq!(connection.to_string(), "3-7");
    assert_eq!(ShardId::new(3).to_string(), "3");
    assert_eq!(SessionKey::new("", "c").to_string(), "c");
    assert_eq!(SessionKey::new("t", "c").to_string(), "t/c");
}
