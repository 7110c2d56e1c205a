//! Sections 3.1.2, 3.2.2 and 4.1: what outlives a connection, and 3.14: DISCONNECT.

use std::time::Duration;

use anyhow::{Result, ensure};
use avocet_codec::{Disconnect, Packet, QoS, ReasonCode};

use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "sessions",
    cases: cases![
        /// [MQTT5-3.1.2-6] [MQTT5-3.2.2-3] [MQTT311-3.2.2-3]
        the_first_session_of_a_client_is_new,
        /// [MQTT5-3.1.2-5] [MQTT5-3.1.2-23] [MQTT5-3.1.4-4] [MQTT5-3.2.2-3] [MQTT5-4.1.0-1]
        /// [MQTT5-4.5.0-1]
        /// [MQTT311-3.1.2-4] [MQTT311-3.1.2-5] [MQTT311-3.1.4-3] [MQTT311-3.2.2-2]
        /// [MQTT311-4.1.0-1] [MQTT311-4.1.0-2] [MQTT311-4.5.0-1]
        a_session_is_resumed_with_what_came_meanwhile,
        /// [MQTT5-3.1.2-4] [MQTT5-3.2.2-2] [MQTT311-3.1.2-6] [MQTT311-3.2.2-1]
        a_clean_start_discards_the_session,
        /// [MQTT311-3.1.2-6]
        a_clean_session_ends_with_its_connection,
        /// [MQTT5-4.1.0-2]
        a_session_without_expiry_interval_ends_with_its_connection,
        /// [MQTT5-4.1.0-2]
        a_session_ends_when_its_expiry_interval_has_passed,
        /// [MQTT5-4.1.0-2]
        disconnect_may_end_the_session,
        /// [MQTT5-4.13.1-1]
        disconnect_may_not_keep_a_session_that_was_to_end,
        /// [MQTT5-3.1.2-23] [MQTT311-3.1.2-4]
        a_session_outlives_a_connection_that_breaks,
        /// [MQTT5-3.14.4-1] [MQTT311-3.14.4-2]
        nothing_is_processed_after_disconnect,
        /// [MQTT5-4.1.0-1] [MQTT311-4.1.0-2]
        a_taken_over_session_goes_on,
        /// [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT311-4.4.0-1] [MQTT311-3.3.1-1]
        a_taken_over_session_sends_again_what_was_not_acknowledged,
        /// [MQTT5-3.10.4-3] [MQTT5-4.4.0-1] [MQTT311-3.10.4-3] [MQTT311-4.4.0-1]
        unsubscribe_does_not_stop_what_is_to_be_sent_again,
    ],
};

fn the_first_session_of_a_client_is_new(server: &Server) -> Result<()> {
    let id = server.id("a");
    let mut peer = server.connect(&server.persistent(&id))?;
    ensure!(!peer.session_present()?, "Session Present for a new client");
    peer.is_quiet()
}

fn a_session_is_resumed_with_what_came_meanwhile(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.subscribe(&topic, QoS::ExactlyOnce)?;
    peer.disconnect()?;
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "one", QoS::AtLeastOnce)?;
    publisher.publish(&topic, "two", QoS::AtLeastOnce)?;
    publisher.publish(&topic, "three", QoS::ExactlyOnce)?;
    let mut peer = server.connect(&server.persistent(&id))?;
    ensure!(peer.session_present()?, "no Session Present");
    let mut came = Vec::new();
    for _ in 0..3 {
        came.push(peer.take()?.payload);
    }
    came.sort();
    ensure!(came == ["one", "three", "two"], "{came:?}");
    // The subscription is there too.
    publisher.publish(&topic, "four", QoS::AtMostOnce)?;
    peer.takes(&format!("{topic}=four q0"))?;
    Ok(())
}

fn a_clean_start_discards_the_session(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.subscribe(&topic, QoS::AtLeastOnce)?;
    peer.disconnect()?;
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "missed", QoS::AtLeastOnce)?;
    let mut peer = server.connect(&server.hello(&id))?;
    ensure!(
        !peer.session_present()?,
        "Session Present after a clean start"
    );
    publisher.publish(&topic, "unsubscribed", QoS::AtLeastOnce)?;
    peer.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn a_clean_session_ends_with_its_connection(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut peer = server.connect(&server.hello(&id))?;
    peer.subscribe(&topic, QoS::AtLeastOnce)?;
    peer.disconnect()?;
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "missed", QoS::AtLeastOnce)?;
    let mut peer = server.connect(&server.persistent(&id))?;
    ensure!(
        !peer.session_present()?,
        "Session Present after a clean session"
    );
    peer.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn a_session_without_expiry_interval_ends_with_its_connection(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut connect = server.persistent(&id);
    connect.properties.session_expiry_interval = 0;
    let mut peer = server.connect(&connect)?;
    peer.subscribe(&topic, QoS::AtLeastOnce)?;
    peer.disconnect()?;
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "missed", QoS::AtLeastOnce)?;
    let mut peer = server.connect(&connect)?;
    ensure!(!peer.session_present()?, "Session Present after its end");
    peer.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn a_session_ends_when_its_expiry_interval_has_passed(server: &Server) -> Result<()> {
    let id = server.id("a");
    let mut connect = server.persistent(&id);
    connect.properties.session_expiry_interval = 1;
    server.connect(&connect)?.disconnect()?;
    let mut other = server.client("b")?;
    other.is_quiet_for(Duration::from_secs(3))?;
    let peer = server.connect(&connect)?;
    ensure!(
        !peer.session_present()?,
        "Session Present two seconds after its end"
    );
    Ok(())
}

fn disconnect(seconds: u32) -> Packet<'static> {
    let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    disconnect.session_expiry_interval = Some(seconds);
    Packet::Disconnect(disconnect)
}

fn disconnect_may_end_the_session(server: &Server) -> Result<()> {
    let id = server.id("a");
    let connect = server.persistent(&id);
    let mut peer = server.connect(&connect)?;
    peer.send(&disconnect(0))?;
    peer.cut()?;
    let peer = server.connect(&connect)?;
    ensure!(!peer.session_present()?, "Session Present after its end");
    Ok(())
}

fn disconnect_may_not_keep_a_session_that_was_to_end(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    peer.send(&disconnect(60))?;
    peer.is_ended(&[ReasonCode::ProtocolError])
}

fn a_session_outlives_a_connection_that_breaks(server: &Server) -> Result<()> {
    let id = server.id("a");
    server.connect(&server.persistent(&id))?.cut()?;
    let peer = server.connect(&server.persistent(&id))?;
    ensure!(peer.session_present()?, "no Session Present");
    Ok(())
}

fn nothing_is_processed_after_disconnect(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut watcher = server.client("w")?;
    watcher.subscribe(&topic, QoS::AtMostOnce)?;
    let mut peer = server.client("a")?;
    let publish = super::peer::packet(
        0x30,
        &[&super::peer::string(&topic), server.no_properties(), b"x"],
    );
    peer.send_bytes(&[&[0xe0, 0], publish.as_slice()].concat())?;
    peer.cut()?;
    let mut publisher = server.client("p")?;
    watcher.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn a_taken_over_session_goes_on(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut first = server.connect(&server.persistent(&id))?;
    first.subscribe(&topic, QoS::AtLeastOnce)?;
    let mut second = server.connect(&server.persistent(&id))?;
    ensure!(second.session_present()?, "no Session Present");
    first.is_ended(&[ReasonCode::SessionTakenOver])?;
    server.client("p")?.publish(&topic, "x", QoS::AtLeastOnce)?;
    second.takes(&format!("{topic}=x q1"))?;
    Ok(())
}

fn a_taken_over_session_sends_again_what_was_not_acknowledged(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut first = server.connect(&server.persistent(&id))?;
    first.subscribe(&topic, QoS::ExactlyOnce)?;
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "one", QoS::AtLeastOnce)?;
    publisher.publish(&topic, "two", QoS::ExactlyOnce)?;
    first.message()?;
    first.message()?;
    let mut second = server.connect(&server.persistent(&id))?;
    second.takes(&format!("{topic}=one q1 dup"))?;
    second.takes(&format!("{topic}=two q2 dup"))?;
    second.is_quiet()
}

fn unsubscribe_does_not_stop_what_is_to_be_sent_again(server: &Server) -> Result<()> {
    let (id, topic) = (server.id("a"), server.topic("t"));
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.subscribe(&topic, QoS::AtLeastOnce)?;
    server.client("p")?.publish(&topic, "x", QoS::AtLeastOnce)?;
    peer.message()?;
    peer.unsubscribe(&[&topic])?;
    peer.cut()?;
    let mut peer = server.connect(&server.persistent(&id))?;
    peer.takes(&format!("{topic}=x q1 dup"))?;
    peer.is_quiet()
}
