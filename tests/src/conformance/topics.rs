//! Section 4.7: Topic Names and Topic Filters; 1.5.4: strings.

use anyhow::{Context as _, Result, ensure};
use avocet_codec::{Packet, PacketType, QoS, ReasonCode};

use super::peer::{packet, string};
use super::{Group, Server, cases};

pub(super) const GROUP: Group = Group {
    name: "topics",
    cases: cases![
        /// [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3]
        wildcards_match_whole_levels,
        /// [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3]
        filters_with_misplaced_wildcards_are_refused,
        /// [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
        leading_wildcards_do_not_match_dollar_topics,
        /// [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
        empty_filters_are_refused,
        /// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT5-4.7.3-2]
        /// [MQTT311-1.5.3-1] [MQTT311-1.5.3-2] [MQTT311-3.8.3-1] [MQTT311-3.10.3-1]
        /// [MQTT311-4.7.3-2]
        strings_that_are_not_utf_8_end_the_connection,
        /// [MQTT5-1.5.4-3] [MQTT5-4.7.3-4] [MQTT311-1.5.3-3] [MQTT311-4.7.3-4]
        nothing_is_normalized,
        /// [MQTT5-4.7.3-3] [MQTT311-4.7.3-3]
        long_topics_work,
    ],
};

fn wildcards_match_whole_levels(server: &Server) -> Result<()> {
    let names = [
        "a", "a/", "/a", "a/b", "a//b", "a/b/c", "b", "ab", "A/b", "a/b/c/d",
    ];
    let mut publisher = server.client("p")?;
    for (filter, matching) in [
        ("a", &["a"][..]),
        ("a/b", &["a/b"]),
        ("#", &names),
        ("a/#", &["a", "a/", "a/b", "a//b", "a/b/c", "a/b/c/d"]),
        ("+", &["a", "b", "ab"]),
        ("+/b", &["a/b", "A/b"]),
        ("a/+", &["a/", "a/b"]),
        ("+/+", &["a/", "/a", "a/b", "A/b"]),
        ("a/+/c", &["a/b/c"]),
        ("a/+/#", &["a/", "a/b", "a//b", "a/b/c", "a/b/c/d"]),
        ("+/b/#", &["a/b", "a/b/c", "A/b", "a/b/c/d"]),
        ("a/+/b", &["a//b"]),
        ("/+", &["/a"]),
    ] {
        let mut subscriber = server.client("s")?;
        subscriber.subscribe(&server.topic(filter), QoS::AtMostOnce)?;
        let end = server.topic("end");
        subscriber.subscribe(&end, QoS::AtMostOnce)?;
        for name in names {
            publisher.publish(&server.topic(name), "x", QoS::AtMostOnce)?;
        }
        publisher.publish(&end, "x", QoS::AtMostOnce)?;
        let mut found = Vec::new();
        loop {
            let topic = subscriber.take()?.topic;
            if topic == end {
                break;
            }
            found.push(topic);
        }
        let wanted: Vec<_> = matching.iter().map(|name| server.topic(name)).collect();
        ensure!(
            found == wanted,
            "{filter:?} matches {found:?} instead of {wanted:?}"
        );
    }
    Ok(())
}

/// The server refuses the filter: in SUBACK, or by the end of the connection.
fn is_refused(server: &Server, filter: &str) -> Result<()> {
    let mut peer = server.client("bad")?;
    let body: [&[u8]; 4] = [&[0, 1], server.no_properties(), &string(filter), &[0]];
    peer.send_bytes(&packet(0x82, &body))?;
    peer.refuses_a_filter()
        .with_context(|| format!("the answer to {filter:?}"))
}

fn filters_with_misplaced_wildcards_are_refused(server: &Server) -> Result<()> {
    for name in [
        "a#", "a/b#", "a/#/b", "#/a", "##", "a+", "+a", "a/+b/c", "a/++", "a/#+",
    ] {
        is_refused(server, &server.topic(name))?;
        is_refused(server, name)?;
    }
    Ok(())
}

fn leading_wildcards_do_not_match_dollar_topics(server: &Server) -> Result<()> {
    let mut exact = server.client("e")?;
    let mut wild = server.client("w")?;
    let topic = format!("${}", server.topic("t"));
    exact.subscribe(&topic, QoS::AtMostOnce)?;
    for filter in ["#", "+/t", "+/#"] {
        wild.subscribe(filter, QoS::AtMostOnce)?;
    }
    let mut publisher = server.client("p")?;
    publisher.publish(&topic, "x", QoS::AtMostOnce)?;
    exact.takes(&format!("{topic}=x q0"))?;
    let end = server.topic("end");
    publisher.publish(&end, "x", QoS::AtLeastOnce)?;
    // The messages of other clients come too.
    loop {
        let message = wild.take()?;
        if message.topic == end {
            return Ok(());
        }
        ensure!(!message.topic.starts_with('$'), "\"{message}\"");
    }
}

fn empty_filters_are_refused(server: &Server) -> Result<()> {
    is_refused(server, "")
}

fn strings_that_are_not_utf_8_end_the_connection(server: &Server) -> Result<()> {
    let prefix = server.topic("");
    let codes = [
        ReasonCode::MalformedPacket,
        ReasonCode::ProtocolError,
        ReasonCode::TopicNameInvalid,
        ReasonCode::TopicFilterInvalid,
    ];
    let bad: [&[u8]; 6] = [
        b"\xff",
        b"\0",
        b"\xc3",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ];
    for bad in bad {
        let topic = string([prefix.as_bytes(), bad].concat());
        let id = [0, 1];
        for bytes in [
            packet(0x30, &[&topic, server.no_properties(), b"x"]),
            packet(0x82, &[&id, server.no_properties(), &topic, &[0]]),
            packet(0xa2, &[&id, server.no_properties(), &topic]),
        ] {
            let mut peer = server.client("bad")?;
            peer.send_bytes(&bytes)?;
            peer.is_ended(&codes)
                .with_context(|| format!("after {bytes:02x?}"))?;
        }
    }
    Ok(())
}

fn nothing_is_normalized(server: &Server) -> Result<()> {
    // In pairs: composed and decomposed, with and without U+FEFF, a space, upper case, a ligature.
    let names = [
        "\u{e9}",
        "e\u{301}",
        "\u{feff}a",
        "a",
        " a",
        "A",
        "\u{fb01}",
        "fi",
        "a\u{200b}",
        "a/",
        "/a",
    ];
    let mut publisher = server.client("p")?;
    for filter in names {
        let mut subscriber = server.client("s")?;
        subscriber.subscribe(&server.topic(filter), QoS::AtMostOnce)?;
        for name in names {
            publisher.publish(&server.topic(name), name, QoS::AtMostOnce)?;
        }
        let topic = server.topic(filter);
        subscriber.takes(&format!("{topic}={filter} q0"))?;
        subscriber.is_passed_over(&mut publisher, &server.topic("marker"))?;
    }
    Ok(())
}

fn long_topics_work(server: &Server) -> Result<()> {
    // Many servers limit the levels, fewer the bytes.
    let topic = server.topic(&"x".repeat(10_000));
    let mut publisher = server.client("p")?;
    let mut subscriber = server.client("s")?;
    subscriber.subscribe(&topic, QoS::AtMostOnce)?;
    publisher.publish(&topic, "x", QoS::AtMostOnce)?;
    subscriber.takes(&format!("{topic}=x q0"))?;
    publisher.send(&Packet::Pingreq)?;
    publisher.packet_of(PacketType::Pingresp)?;
    Ok(())
}
