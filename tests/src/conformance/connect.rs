//! Sections 3.1 and 3.2: CONNECT, CONNACK; 4.12: authentication.

use anyhow::{Context as _, Result, ensure};
use avocet_codec::{Auth, Connect, Packet, PacketType, Publish, QoS, ReasonCode, TopicName};

use super::peer::{clock, packet, string};
use super::{Group, Server, cases};
use ReasonCode::{
    BadAuthenticationMethod, ClientIdentifierNotValid, KeepAliveTimeout, MalformedPacket,
    NotAuthorized, ProtocolError, SessionTakenOver,
};

pub(super) const GROUP: Group = Group {
    name: "connect",
    cases: cases![
        /// [MQTT5-3.1.4-5] [MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT5-3.2.2-1]
        /// [MQTT311-3.1.4-4] [MQTT311-3.2.0-1]
        an_accepted_client_gets_one_connack,
        /// [MQTT5-3.1.0-1] [MQTT5-3.14.0-1] [MQTT311-3.1.0-1]
        another_packet_than_connect_first_ends_the_connection,
        /// [MQTT5-3.1.0-2] [MQTT311-3.1.0-2]
        a_second_connect_ends_the_connection,
        /// [MQTT5-3.1.2-1] [MQTT311-3.1.2-1]
        another_protocol_name_is_refused,
        /// [MQTT5-3.1.2-2] [MQTT311-3.1.2-2]
        another_protocol_version_is_refused,
        /// [MQTT5-3.1.2-3] [MQTT311-3.1.2-3] [MQTT311-3.2.2-6]
        the_reserved_connect_flag_is_refused,
        /// [MQTT5-3.1.2-11] [MQTT5-3.1.2-12] [MQTT5-3.1.2-13]
        /// [MQTT311-3.1.2-11] [MQTT311-3.1.2-13] [MQTT311-3.1.2-14] [MQTT311-3.1.2-15]
        impossible_will_flags_are_refused,
        /// [MQTT311-3.1.2-22]
        a_password_without_a_user_name_is_refused,
        /// [MQTT5-3.1.2-9] [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19]
        /// [MQTT5-3.1.3-3] [MQTT5-3.1.4-1]
        /// [MQTT311-3.1.2-9] [MQTT311-3.1.2-18] [MQTT311-3.1.2-19] [MQTT311-3.1.2-20]
        /// [MQTT311-3.1.2-21] [MQTT311-3.1.3-3] [MQTT311-3.1.4-1]
        a_payload_that_does_not_fit_the_flags_is_refused,
        /// [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12]
        /// [MQTT311-3.1.3-4] [MQTT311-3.1.3-10] [MQTT311-3.1.3-11]
        strings_that_are_not_utf_8_are_refused,
        /// [MQTT5-3.1.3-5] [MQTT311-3.1.3-5]
        plain_client_identifiers_are_allowed,
        /// [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]
        an_empty_client_identifier_is_replaced,
        /// [MQTT311-3.1.3-6]
        clients_without_identifiers_are_told_apart,
        /// [MQTT311-3.1.3-8] [MQTT311-3.1.3-9] [MQTT311-3.2.2-4] [MQTT311-3.2.2-5]
        an_empty_client_identifier_needs_clean_session,
        /// [MQTT5-3.1.4-6] [MQTT311-3.1.4-5]
        nothing_is_processed_after_a_refused_connect,
        /// [MQTT5-3.1.3-2] [MQTT5-3.1.4-3] [MQTT5-3.14.2-2] [MQTT5-3.14.4-1] [MQTT5-3.14.4-2]
        /// [MQTT311-3.1.3-2] [MQTT311-3.1.4-2]
        the_same_client_identifier_ends_the_older_connection,
        /// [MQTT5-3.1.2-22] [MQTT5-3.2.2-22] [MQTT311-3.1.2-24]
        silence_ends_the_connection_after_one_and_a_half_keep_alive,
        /// [MQTT5-3.1.2-28] [MQTT5-4.12.0-6]
        connack_has_only_what_was_asked_for,
        /// [MQTT5-4.12.0-1] [MQTT5-3.1.4-2] [MQTT5-3.2.2-6] [MQTT5-3.2.2-7] [MQTT5-3.2.2-8]
        /// [MQTT5-4.12.0-4]
        an_unknown_authentication_method_is_refused,
        /// [MQTT5-4.12.0-7]
        auth_without_an_authentication_method_ends_the_connection,
        /// [MQTT5-3.12.4-1] [MQTT311-3.12.4-1]
        pings_are_answered,
        /// [MQTT5-4.2.0-1] [MQTT311-7.1.1-1]
        bytes_may_come_one_by_one_or_all_at_once,
        /// [MQTT5-3.3.4-1] [MQTT5-4.5.0-1] [MQTT311-4.5.0-1]
        messages_right_before_disconnect_are_delivered,
        /// [MQTT5-3.1.3-6] [MQTT5-3.2.2-16]
        an_empty_client_identifier_needs_no_clean_start,
    ],
};

fn an_accepted_client_gets_one_connack(server: &Server) -> Result<()> {
    let id = server.id("a");
    for keep_alive in [60, 65_535, 0] {
        let connect = Connect {
            keep_alive,
            ..server.hello(&id)
        };
        let mut peer = server
            .connect(&connect)
            .with_context(|| format!("a Keep Alive of {keep_alive}"))?;
        ensure!(!peer.session_present()?, "Session Present for a new client");
        peer.is_quiet()?;
        peer.is_quiet()?;
        peer.disconnect()?;
    }
    Ok(())
}

fn another_packet_than_connect_first_ends_the_connection(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let publish = Publish::new(TopicName::new(&topic)?, Default::default(), b"x");
    let mut watcher = server.client("w")?;
    watcher.subscribe(&topic, QoS::AtMostOnce)?;
    for first in [Packet::Pingreq, Packet::Publish(publish)] {
        let mut peer = server.dial()?;
        peer.send(&first)?;
        let answer = peer.raw()?;
        ensure!(answer.is_empty(), "the answer is {answer:02x?}");
    }
    watcher.is_quiet()
}

fn a_second_connect_ends_the_connection(server: &Server) -> Result<()> {
    let id = server.id("a");
    let connect = server.hello(&id);
    let mut peer = server.connect(&connect)?;
    peer.send(&Packet::Connect(connect))?;
    peer.is_ended(&[ProtocolError])
}

/// A CONNECT of any content behind the Protocol Version.
fn connect(server: &Server, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    let level = [server.version.protocol_level(), flags, 0, 60];
    let header = [&string("MQTT"), &level[..], server.no_properties()].concat();
    packet(0x10, &[&header, &payload.concat()])
}

fn another_protocol_name_is_refused(server: &Server) -> Result<()> {
    for name in ["MQTX", "mqtt", "MQTTT"] {
        let mut peer = server.dial()?;
        let level = [server.version.protocol_level(), 2, 0, 60];
        let id = string(server.id("a"));
        let parts: [&[u8]; 4] = [&string(name), &level, server.no_properties(), &id];
        peer.send_bytes(&packet(0x10, &parts))?;
        let answer = peer.raw()?;
        ensure!(
            matches!(answer.as_slice(), [] | [0x20, _, 0, 0x01 | 0x81 | 0x84, ..]),
            "the answer to {name:?} is {answer:02x?}"
        );
    }
    Ok(())
}

fn another_protocol_version_is_refused(server: &Server) -> Result<()> {
    for version in [2, 6, 127] {
        let mut peer = server.dial()?;
        let level = [version, 2, 0, 60];
        let properties: &[u8] = if version > 4 { &[0] } else { &[] };
        let id = string(server.id("a"));
        peer.send_bytes(&packet(0x10, &[&string("MQTT"), &level, properties, &id]))?;
        let answer = peer.raw()?;
        let is_refusal = matches!(answer.as_slice(), [0x20, _, 0, 0x01 | 0x84, ..]);
        ensure!(
            is_refusal || (server.is_v5() && answer.is_empty()),
            "the answer to version {version} is {answer:02x?}"
        );
    }
    Ok(())
}

/// A CONNECT that is malformed: refused without CONNACK, in 5.0 also with one that says so.
fn is_malformed(server: &Server, bytes: &[u8]) -> Result<()> {
    let mut peer = server.dial()?;
    peer.send_bytes(bytes)?;
    let codes: &[_] = if server.is_v5() {
        &[MalformedPacket, ProtocolError]
    } else {
        &[]
    };
    peer.is_refused(codes)
}

fn the_reserved_connect_flag_is_refused(server: &Server) -> Result<()> {
    let id = string(server.id("a"));
    is_malformed(server, &connect(server, 0b0000_0011, &[&id]))
}

fn impossible_will_flags_are_refused(server: &Server) -> Result<()> {
    let id = string(server.id("a"));
    // Will QoS 1 and 2, and Will Retain, without the Will Flag.
    for flags in [0b0000_1010, 0b0001_0010, 0b0010_0010] {
        is_malformed(server, &connect(server, flags, &[&id]))?;
    }
    let will = [server.no_properties(), &string("t"), &string("x")].concat();
    is_malformed(server, &connect(server, 0b0001_1110, &[&id, &will]))
}

fn a_password_without_a_user_name_is_refused(server: &Server) -> Result<()> {
    let id = string(server.id("a"));
    is_malformed(
        server,
        &connect(server, 0b0100_0010, &[&id, &string("secret")]),
    )
}

fn a_payload_that_does_not_fit_the_flags_is_refused(server: &Server) -> Result<()> {
    let id = string(server.id("a"));
    let will = [server.no_properties(), &string("t"), &string("x")].concat();
    let (user, password) = (string("user"), string("password"));
    for (flags, payload) in [
        (0b0000_0010, &[][..]),
        (0b0000_0010, &[&id, &user]),
        (0b0000_0110, &[&id]),
        (0b1000_0010, &[&id]),
        (0b1100_0010, &[&id, &user]),
        (0b1000_0010, &[&id, &user, &password]),
        (0b1000_0110, &[&id, &will]),
    ] {
        let payload: Vec<&[u8]> = payload
            .iter()
            .map(|part: &&Vec<u8>| part.as_slice())
            .collect();
        is_malformed(server, &connect(server, flags, &payload))?;
    }
    Ok(())
}

fn strings_that_are_not_utf_8_are_refused(server: &Server) -> Result<()> {
    let id = string(server.id("a"));
    let bad: [&[u8]; 3] = [b"a\0b", b"a\xff", b"\xed\xa0\x80"];
    for bad in bad.map(string) {
        is_malformed(server, &connect(server, 0b0000_0010, &[&bad]))?;
        let will = [server.no_properties(), &bad, &string("x")].concat();
        is_malformed(server, &connect(server, 0b0000_0110, &[&id, &will]))?;
        is_malformed(server, &connect(server, 0b1000_0010, &[&id, &bad]))?;
    }
    Ok(())
}

fn plain_client_identifiers_are_allowed(server: &Server) -> Result<()> {
    let tails = [
        "0123456789a",
        "bcdefghijkl",
        "mnopqrstuvw",
        "xyzABCDEFGH",
        "IJKLMNOPQRS",
        "TUVWXYZ",
        "",
    ];
    let ids = tails.map(|tail| server.id(tail));
    let shortest = if server.is_v5() { "V" } else { "4" };
    for id in ids.iter().map(String::as_str).chain([shortest]) {
        server.connect(&server.hello(id))?.disconnect()?;
    }
    Ok(())
}

/// A server may refuse an empty Client Identifier.
fn refuses(server: &Server, nameless: &Connect<'_>) -> Result<bool> {
    let mut peer = server.dial()?;
    peer.send(&Packet::Connect(*nameless))?;
    Ok(peer.is_refused(&[ClientIdentifierNotValid]).is_ok())
}

fn an_empty_client_identifier_is_replaced(server: &Server) -> Result<()> {
    let nameless = server.hello("");
    if refuses(server, &nameless)? {
        return Ok(());
    }
    let mut first = server.connect(&nameless)?;
    let second = server.connect(&nameless)?;
    let assigned = |peer: &super::Peer| -> Result<String> {
        let id = peer.connack()?.properties.assigned_client_id;
        Ok(id.unwrap_or_default().to_owned())
    };
    let id = assigned(&first)?;
    ensure!(!id.is_empty(), "no Assigned Client Identifier");
    ensure!(id != assigned(&second)?, "{id:?} is assigned twice");
    // It is the client's: who comes with it takes the connection over.
    let _third = server.connect(&server.hello(&id))?;
    first.is_ended(&[SessionTakenOver])
}

fn clients_without_identifiers_are_told_apart(server: &Server) -> Result<()> {
    let nameless = server.hello("");
    let mut first = server.connect(&nameless)?;
    let mut second = server.connect(&nameless)?;
    first.is_quiet()?;
    second.is_quiet()
}

fn an_empty_client_identifier_needs_clean_session(server: &Server) -> Result<()> {
    let mut nameless = server.hello("");
    nameless.clean_start = false;
    let mut peer = server.dial()?;
    peer.send(&Packet::Connect(nameless))?;
    let answer = peer.raw()?;
    ensure!(answer == [0x20, 2, 0, 2], "the answer is {answer:02x?}");
    Ok(())
}

fn nothing_is_processed_after_a_refused_connect(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut watcher = server.client("w")?;
    watcher.subscribe(&topic, QoS::AtMostOnce)?;
    let id = string(server.id("a"));
    let refused = connect(server, 0b0000_0011, &[&id]);
    let publish = packet(0x30, &[&string(&topic), server.no_properties(), b"x"]);
    let mut peer = server.dial()?;
    peer.send_bytes(&[refused, publish].concat())?;
    peer.raw()?;
    let mut publisher = server.client("p")?;
    watcher.is_passed_over(&mut publisher, &server.topic("marker"))
}

fn the_same_client_identifier_ends_the_older_connection(server: &Server) -> Result<()> {
    let mut first = server.client("a")?;
    let mut second = server.client("a")?;
    first.is_ended(&[SessionTakenOver])?;
    second.is_quiet()
}

fn silence_ends_the_connection_after_one_and_a_half_keep_alive(server: &Server) -> Result<()> {
    let id = server.id("a");
    let mut connect = server.hello(&id);
    connect.keep_alive = 1;
    let mut peer = server.connect(&connect)?;
    let used = peer.connack()?.properties.server_keep_alive.unwrap_or(1);
    let start = clock();
    peer.is_ended(&[KeepAliveTimeout])?;
    let took = (clock() - start).as_secs_f32() / f32::from(used);
    // When the server notices is its own affair, but not before that.
    ensure!(took > 1.4, "closed after {took} Keep Alives");
    Ok(())
}

fn connack_has_only_what_was_asked_for(server: &Server) -> Result<()> {
    let peer = server.client("a")?;
    let properties = peer.connack()?.properties;
    ensure!(
        properties.response_information.is_none(),
        "Response Information"
    );
    ensure!(
        properties.authentication_method.is_none(),
        "Authentication Method"
    );
    Ok(())
}

fn an_unknown_authentication_method_is_refused(server: &Server) -> Result<()> {
    let id = server.id("a");
    let mut connect = server.hello(&id);
    connect.properties.authentication_method = Some("a method that nobody has");
    let mut peer = server.dial()?;
    peer.send(&Packet::Connect(connect))?;
    peer.is_refused(&[BadAuthenticationMethod, NotAuthorized])
}

fn auth_without_an_authentication_method_ends_the_connection(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    peer.send(&Packet::Auth(Auth::new(
        ReasonCode::ReAuthenticate,
        "a method",
    )))?;
    peer.is_ended(&[ProtocolError, BadAuthenticationMethod, NotAuthorized])
}

fn pings_are_answered(server: &Server) -> Result<()> {
    let mut peer = server.client("a")?;
    (0..3).try_for_each(|_| peer.is_quiet())
}

fn bytes_may_come_one_by_one_or_all_at_once(server: &Server) -> Result<()> {
    let topic = string(server.topic("t"));
    let none = server.no_properties();
    let bytes = [
        connect(server, 0b0000_0010, &[&string(server.id("a"))]),
        packet(0x82, &[&[0, 7], none, &topic, &[0]]),
        packet(0x32, &[&topic, &[0, 8], none, b"x"]),
        vec![0xc0, 0],
    ]
    .concat();
    for at_once in [1, 2, 3, bytes.len()] {
        let mut peer = server.dial()?;
        for piece in bytes.chunks(at_once) {
            peer.send_bytes(piece)?;
        }
        // In which order the requests are answered is up to the server.
        let mut missing = vec![PacketType::Suback, PacketType::Puback, PacketType::Pingresp];
        let first = peer.packet("CONNACK")?.packet().packet_type();
        ensure!(first == PacketType::Connack, "{} comes first", first.name());
        while !missing.is_empty() {
            let answer = peer.packet("an answer")?.packet().packet_type();
            missing.retain(|packet_type| *packet_type != answer);
        }
    }
    Ok(())
}

fn messages_right_before_disconnect_are_delivered(server: &Server) -> Result<()> {
    let topic = server.topic("t");
    let mut watcher = server.client("w")?;
    watcher.subscribe(&topic, QoS::AtLeastOnce)?;
    let (name, none) = (string(&topic), server.no_properties());
    let bytes = [
        connect(server, 0b0000_0010, &[&string(server.id("a"))]),
        packet(0x30, &[&name, none, b"zero"]),
        packet(0x32, &[&name, &[0, 8], none, b"one"]),
        vec![0xe0, 0],
    ];
    let mut peer = server.dial()?;
    peer.send_bytes(&bytes.concat())?;
    peer.cut()?;
    watcher.takes(&format!("{topic}=zero q0"))?;
    watcher.takes(&format!("{topic}=one q1"))?;
    Ok(())
}

fn an_empty_client_identifier_needs_no_clean_start(server: &Server) -> Result<()> {
    let nameless = server.persistent("");
    if refuses(server, &nameless)? {
        return Ok(());
    }
    let peer = server.connect(&nameless)?;
    ensure!(!peer.session_present()?, "Session Present for a new client");
    let assigned = peer.connack()?.properties.assigned_client_id;
    ensure!(assigned.is_some_and(|id| !id.is_empty()), "{assigned:?}");
    Ok(())
}
