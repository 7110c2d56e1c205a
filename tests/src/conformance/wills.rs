//! Sections 3.1.2.5, 3.1.3.2 and 3.14.4: Will Messages.

use std::time::Duration;

use anyhow::{Result, ensure};
use avocet_codec::{
    Connect, Disconnect, MessageProperties, MessagePropertiesParts, Packet, QoS, ReasonCode,
    TopicName, UserProperty, Will,
};

use super::peer::{Peer, clock};
use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "wills",
    cases: cases![
        /// [MQTT5-3.1.2-7] [MQTT5-3.1.2-8] [MQTT5-3.1.2-14]
        /// [MQTT311-3.1.2-8] [MQTT311-3.1.2-16]
        the_will_is_published_when_the_connection_breaks,
        /// [MQTT5-3.1.2-8] [MQTT5-4.13.1-1] [MQTT311-3.1.2-8]
        the_will_is_published_when_the_client_breaks_the_rules,
        /// [MQTT5-3.1.2-8] [MQTT5-3.1.2-22] [MQTT311-3.1.2-8] [MQTT311-3.1.2-24]
        the_will_is_published_when_the_client_falls_silent,
        /// [MQTT5-3.14.4-3] [MQTT5-3.1.2-10] [MQTT311-3.14.4-3] [MQTT311-3.1.2-10]
        disconnect_discards_the_will,
        /// [MQTT5-3.1.2-8]
        disconnect_can_ask_for_the_will,
        /// [MQTT311-3.1.2-12] [MQTT5-3.1.2-8]
        a_client_without_a_will_leaves_none,
        /// [MQTT5-3.1.2-10] [MQTT311-3.1.2-10]
        a_will_is_published_once,
        /// [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT311-3.1.2-16] [MQTT311-3.1.2-17]
        a_will_is_retained_if_it_says_so,
        /// [MQTT5-3.1.3-10] [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-20]
        a_will_keeps_its_properties,
        /// [MQTT5-3.1.2-8]
        a_delayed_will_waits,
        /// [MQTT5-3.1.3-9] [MQTT5-3.1.2-8]
        a_client_that_returns_in_time_cancels_its_will,
        /// [MQTT5-3.1.2-8]
        a_delayed_will_does_not_wait_longer_than_the_session,
        /// [MQTT5-3.1.2-8]
        a_clean_start_publishes_the_will_of_the_session_it_ends,
        /// [MQTT5-3.1.2-8] [MQTT311-3.1.2-8]
        a_takeover_publishes_a_will_without_delay,
    ],
};

/// A client with a will, and another that waits for it.
fn dying(server: &Server, change: impl FnOnce(&mut Connect<'_>)) -> Result<(Peer, Peer, String)> {
    let (id, topic) = (server.id("a"), server.topic("will"));
    let mut watcher = server.client("w")?;
    watcher.subscribe(&topic, QoS::AtLeastOnce)?;
    let mut connect = server.hello(&id);
    let mut will = Will::new(TopicName::new(&topic)?, b"gone");
    will.qos = QoS::AtLeastOnce;
    connect.will = Some(will);
    change(&mut connect);
    let client = server.connect(&connect)?;
    Ok((client, watcher, topic))
}

fn delay(connect: &mut Connect<'_>, seconds: u32) {
    if let Some(will) = &mut connect.will {
        will.will_delay_interval = seconds;
    }
}

fn the_will_is_published_when_the_connection_breaks(server: &Server) -> Result<()> {
    let (client, mut watcher, topic) = dying(server, |_| {})?;
    watcher.is_quiet()?;
    client.cut()?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}

fn the_will_is_published_when_the_client_breaks_the_rules(server: &Server) -> Result<()> {
    let (mut client, mut watcher, topic) = dying(server, |_| {})?;
    // SUBSCRIBE with wrong flags.
    client.send_bytes(&[0x80, 0])?;
    client.is_ended(&[ReasonCode::MalformedPacket, ReasonCode::ProtocolError])?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}

fn the_will_is_published_when_the_client_falls_silent(server: &Server) -> Result<()> {
    let (_client, mut watcher, topic) = dying(server, |connect| connect.keep_alive = 1)?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}

fn disconnect_discards_the_will(server: &Server) -> Result<()> {
    let (client, mut watcher, _) = dying(server, |_| {})?;
    client.disconnect()?;
    watcher.is_passed_over(&mut server.client("p")?, &server.topic("marker"))
}

fn disconnect_can_ask_for_the_will(server: &Server) -> Result<()> {
    let (mut client, mut watcher, topic) = dying(server, |_| {})?;
    client.send(&Packet::Disconnect(Disconnect::new(
        ReasonCode::DisconnectWithWillMessage,
    )))?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}

fn a_client_without_a_will_leaves_none(server: &Server) -> Result<()> {
    let (client, mut watcher, _) = dying(server, |connect| connect.will = None)?;
    client.cut()?;
    watcher.is_passed_over(&mut server.client("p")?, &server.topic("marker"))
}

fn a_will_is_published_once(server: &Server) -> Result<()> {
    let (client, mut watcher, topic) = dying(server, |connect| {
        *connect = Connect {
            clean_start: false,
            ..*connect
        };
        connect.properties.session_expiry_interval = 300;
    })?;
    client.cut()?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    // The session is there again, without a will, and ends.
    let id = server.id("a");
    server.connect(&server.persistent(&id))?.cut()?;
    server.client("a")?.cut()?;
    watcher.is_passed_over(&mut server.client("p")?, &server.topic("marker"))
}

fn a_will_is_retained_if_it_says_so(server: &Server) -> Result<()> {
    for retain in [false, true] {
        let (client, mut watcher, topic) = dying(server, |connect| {
            if let Some(will) = &mut connect.will {
                will.retain = retain;
            }
        })?;
        client.cut()?;
        watcher.takes(&format!("{topic}=gone q1"))?;
        let mut late = server.client("late")?;
        late.subscribe(&topic, QoS::AtMostOnce)?;
        if retain {
            late.takes(&format!("{topic}=gone q0 retain"))?;
            late.retain(&topic, "", QoS::AtLeastOnce)?;
        } else {
            late.is_quiet()?;
        }
    }
    Ok(())
}

fn a_will_keeps_its_properties(server: &Server) -> Result<()> {
    let pairs = [("b", "1"), ("a", "2"), ("b", "1")];
    let user_properties = pairs.map(|(name, value)| UserProperty { name, value });
    let reply = server.topic("reply");
    let (id, topic) = (server.id("a"), server.topic("will"));
    let parts = MessagePropertiesParts {
        payload_format: Some(avocet_codec::PayloadFormat::Utf8),
        content_type: Some("text/plain"),
        response_topic: Some(TopicName::new(&reply)?),
        correlation_data: Some(b"\0\xff"),
        user_properties: &user_properties,
    };
    let mut connect = server.hello(&id);
    let mut will = Will::new(TopicName::new(&topic)?, b"gone");
    will.properties = MessageProperties::new(parts);
    connect.will = Some(will);
    let mut watcher = server.client("w")?;
    watcher.subscribe(&topic, QoS::AtLeastOnce)?;
    server.connect(&connect)?.cut()?;
    let message = watcher.takes(&format!("{topic}=gone q0"))?;
    let properties = message.publish().properties;
    ensure!(
        properties == MessageProperties::new(parts),
        "{properties:?}"
    );
    Ok(())
}

fn a_delayed_will_waits(server: &Server) -> Result<()> {
    let (client, mut watcher, topic) = dying(server, |connect| {
        connect.properties.session_expiry_interval = 60;
        delay(connect, 2);
    })?;
    client.cut()?;
    let start = clock();
    watcher.takes(&format!("{topic}=gone q1"))?;
    let took = clock() - start;
    ensure!(
        took > Duration::from_millis(1_500),
        "published after {took:?}"
    );
    Ok(())
}

fn a_client_that_returns_in_time_cancels_its_will(server: &Server) -> Result<()> {
    let (client, mut watcher, _) = dying(server, |connect| {
        connect.properties.session_expiry_interval = 60;
        delay(connect, 4);
    })?;
    client.cut()?;
    let id = server.id("a");
    let _client = server.connect(&server.persistent(&id))?;
    watcher.is_quiet_for(Duration::from_secs(5))
}

fn a_delayed_will_does_not_wait_longer_than_the_session(server: &Server) -> Result<()> {
    let (client, mut watcher, topic) = dying(server, |connect| delay(connect, 3_600))?;
    client.cut()?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}

fn a_clean_start_publishes_the_will_of_the_session_it_ends(server: &Server) -> Result<()> {
    let (client, mut watcher, topic) = dying(server, |connect| {
        connect.properties.session_expiry_interval = 60;
        delay(connect, 3_600);
    })?;
    client.cut()?;
    let _client = server.client("a")?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}

fn a_takeover_publishes_a_will_without_delay(server: &Server) -> Result<()> {
    let (_client, mut watcher, topic) = dying(server, |_| {})?;
    let _other = server.client("a")?;
    watcher.takes(&format!("{topic}=gone q1"))?;
    Ok(())
}
