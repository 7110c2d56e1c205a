//! Keep Alive and the other timers.

use avocet_codec::{Packet, ReasonCode, Version};
use avocet_session::{CloseReason, ServerConfig, Timeout, Timer};
use std::num::NonZeroU16;
use std::time::Duration;

use crate::support::{Pair, qos0};

fn with_keep_alive(version: Version, keep_alive: u16) -> Pair {
    Pair::connected_with(version, ServerConfig::default(), |client| {
        client.keep_alive = keep_alive
    })
}

/// [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]
#[test]
fn keep_alive_closes_after_one_and_a_half() {
    for (version, told) in [(Version::V3_1_1, &[][..]), (Version::V5, &[0x8D])] {
        let mut pair = with_keep_alive(version, 10);
        pair.advance(14.9);
        assert!(pair.server.is_connected());
        pair.client.send(&Packet::Pingreq);
        pair.run();
        // What the server sends does not count.
        let _ = pair.publish(qos0("x"));
        pair.advance(14.9);
        pair.run();
        assert!(pair.server.is_connected());
        pair.client.seen.clear();
        pair.advance(0.1);
        pair.run();
        assert_eq!(pair.closed(), Some(CloseReason::KeepAliveTimeout));
        let reasons: Vec<_> = pair.client.seen.iter().map(|seen| seen.reason).collect();
        assert_eq!(reasons, told);
    }
}

/// [MQTT5-3.1.2-21] [MQTT5-3.2.2-21]
#[test]
fn zero_turns_keep_alive_off_unless_the_server_has_its_own() {
    let mut pair = with_keep_alive(Version::V5, 0);
    assert_eq!(pair.server.poll_timeout(), None);
    pair.advance(1e6);
    assert!(pair.server.is_connected());

    let config = ServerConfig {
        keep_alive_max: NonZeroU16::new(60),
        ..ServerConfig::default()
    };
    let pair = Pair::connected_with(Version::V5, config, |client| client.keep_alive = 0);
    let at = pair.now.instant + Duration::from_secs(90);
    assert_eq!(
        pair.server.poll_timeout(),
        Some(Timeout {
            at,
            timer: Timer::KeepAlive
        })
    );
}

#[test]
fn a_pause_suspends_keep_alive() {
    let mut pair = with_keep_alive(Version::V5, 10);
    pair.server.pause();
    pair.client.send(&Packet::Pingreq);
    pair.run();
    assert_eq!(pair.client.seen, []);
    assert_eq!(pair.server.poll_timeout(), None);
    pair.advance(100.0);
    pair.server.resume(pair.now);
    assert!(pair.server.is_connected());
    let at = pair.now.instant + Duration::from_secs(15);
    assert_eq!(
        pair.server.poll_timeout(),
        Some(Timeout {
            at,
            timer: Timer::KeepAlive
        })
    );
    pair.run();
    assert_eq!(pair.client.seen.len(), 1);
}

#[test]
fn a_last_packet_that_does_not_leave_has_a_deadline() {
    let mut pair = Pair::connected(Version::V5);
    pair.server
        .disconnect(ReasonCode::ServerBusy, Default::default(), pair.now);
    assert!(!pair.server.is_closed());
    let at = pair.now.instant + Duration::from_secs(5);
    assert_eq!(
        pair.server.poll_timeout(),
        Some(Timeout {
            at,
            timer: Timer::Drain
        })
    );
    pair.advance(5.0);
    assert_eq!(
        pair.closed(),
        Some(CloseReason::Disconnected(ReasonCode::ServerBusy))
    );
}

/// [MQTT5-3.12.4-1] [MQTT311-3.12.4-1]
#[test]
fn every_pingreq_is_answered() {
    let mut pair = Pair::connected(Version::V3_1_1);
    for _ in 0..3 {
        pair.client.send(&Packet::Pingreq);
    }
    pair.run();
    assert_eq!(pair.client.seen.len(), 3);
}
