//! The golden vectors of `tests/vectors/*.txt`; its README has the language.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod language;

use std::fmt::{Display, Write as _};
use std::path::Path;

use avocet_codec::{
    Ack, Auth, Connack, Connect, DecodeError, Disconnect, List, MessageProperties, Packet, Publish,
    QoS, ReasonCode, RetainHandling, Suback, Subscribe, Unsuback, Unsubscribe, UserProperty,
    Version, frame_len,
};

use crate::language::{Expected, Vector};

fn vectors() -> Vec<Vector> {
    language::vectors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"))
}

fn observe(bytes: &[u8], version: Version) -> Expected {
    let mut rest = bytes;
    match Packet::decode_next(&mut rest, version, u32::MAX) {
        Ok(None) => Expected::Incomplete,
        Ok(Some(_)) if !rest.is_empty() => refused(DecodeError::RemainingLength),
        Ok(Some(packet)) => Expected::Packet(describe(&packet)),
        Err(error) => refused(error),
    }
}

fn refused(error: DecodeError) -> Expected {
    Expected::Refused(Some(error.reason_code() as u8))
}

/// [MQTT5-2.1.3-1] [MQTT311-2.2.2-2] and every statement named beside a vector.
#[test]
fn every_vector_means_what_its_line_says() {
    let mut wrong = Vec::new();
    for vector in vectors() {
        for &version in &vector.versions {
            let observed = observe(&vector.bytes, version);
            let agrees = match (&vector.expected, &observed) {
                (Expected::Refused(None), Expected::Refused(_)) => true,
                (expected, observed) => expected == observed,
            };
            if !agrees {
                wrong.push(format!(
                    "{} in {version}:\n  expected {:?}\n  observed {observed:?}",
                    vector.place, vector.expected
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// An accepted packet, encoded anew, means the same.
#[test]
fn accepted_vectors_survive_being_encoded_again() {
    for vector in vectors() {
        let Expected::Packet(text) = &vector.expected else {
            continue;
        };
        for &version in &vector.versions {
            let packet = Packet::decode(&vector.bytes, version).unwrap();
            let mut bytes = Vec::new();
            packet.encode(version, &mut bytes).unwrap();
            assert_eq!(bytes.len(), packet.encoded_len(version), "{}", vector.place);
            let again = Packet::decode(&bytes, version).unwrap();
            assert_eq!(&describe(&again), text, "{} in {version}", vector.place);
        }
    }
}

/// Every beginning of an accepted packet asks for more, none is an error.
#[test]
fn beginnings_of_accepted_vectors_are_incomplete() {
    for vector in vectors() {
        if !matches!(vector.expected, Expected::Packet(_)) {
            continue;
        }
        let cuts = (0..vector.bytes.len().min(600)).chain([vector.bytes.len() - 1]);
        for cut in cuts {
            let len = frame_len(&vector.bytes[..cut], u32::MAX).unwrap();
            assert!(
                len.is_none_or(|len| len == vector.bytes.len()),
                "{} cut at {cut}",
                vector.place
            );
            for &version in &vector.versions {
                let mut beginning = &vector.bytes[..cut];
                let packet = Packet::decode_next(&mut beginning, version, u32::MAX);
                assert_eq!(packet, Ok(None), "{} cut at {cut}", vector.place);
                assert_eq!(beginning.len(), cut);
            }
        }
    }
}

#[test]
fn there_are_enough_vectors_and_half_are_refusals() {
    let vectors = vectors();
    let refusals = vectors
        .iter()
        .filter(|vector| matches!(vector.expected, Expected::Refused(_)))
        .count();
    assert!(vectors.len() >= 400, "{} vectors", vectors.len());
    assert!(
        refusals * 2 >= vectors.len(),
        "{refusals} refusals of {}",
        vectors.len()
    );
}

/// Writes a packet in the words of the vectors: the fields of the standard in its order, without
/// those that have their default.
struct Description(String);

fn describe(packet: &Packet<'_>) -> String {
    let mut out = Description(packet.packet_type().name().to_ascii_uppercase());
    match packet {
        Packet::Connect(connect) => out.connect(connect),
        Packet::Connack(connack) => out.connack(connack),
        Packet::Publish(publish) => out.publish(publish),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            out.ack(ack);
        }
        Packet::Subscribe(subscribe) => out.subscribe(subscribe),
        Packet::Suback(suback) => out.suback(suback),
        Packet::Unsubscribe(unsubscribe) => out.unsubscribe(unsubscribe),
        Packet::Unsuback(unsuback) => out.unsuback(unsuback),
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(disconnect) => out.disconnect(disconnect),
        Packet::Auth(auth) => out.auth(auth),
    }
    out.0
}

impl Description {
    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            write!(self.0, " {name}").unwrap();
        }
    }

    fn value(&mut self, name: &str, value: impl Display) {
        write!(self.0, " {name}={value}").unwrap();
    }

    fn option(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    fn not_zero(&mut self, name: &str, value: u32) {
        self.option(name, (value != 0).then_some(value));
    }

    fn bytes(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.value(name, quote(value.as_ref()));
    }

    fn optional_bytes(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.bytes(name, value);
        }
    }

    fn code(&mut self, code: ReasonCode) {
        self.value("code", format_args!("0x{:02x}", code as u8));
    }

    fn codes(&mut self, codes: impl Iterator<Item = ReasonCode>) {
        let codes: Vec<_> = codes.map(|code| format!("0x{:02x}", code as u8)).collect();
        self.option("codes", (!codes.is_empty()).then(|| codes.join(",")));
    }

    fn user_properties<'a>(&mut self, properties: List<'a, UserProperty<'a>>) {
        for property in properties.iter() {
            let (name, value) = (
                quote(property.name.as_bytes()),
                quote(property.value.as_bytes()),
            );
            write!(self.0, " user {name}={value}").unwrap();
        }
    }

    fn reason<'a>(&mut self, string: Option<&str>, properties: List<'a, UserProperty<'a>>) {
        self.optional_bytes("reason", string);
        self.user_properties(properties);
    }

    fn message_properties(&mut self, properties: &MessageProperties<'_>) {
        self.option(
            "payload_format",
            properties.payload_format().map(|format| format as u8),
        );
        self.optional_bytes("content_type", properties.content_type());
        self.optional_bytes(
            "response_topic",
            properties.response_topic().map(|t| t.as_str()),
        );
        self.optional_bytes("correlation_data", properties.correlation_data());
        self.user_properties(properties.user_properties());
    }

    fn connect(&mut self, connect: &Connect<'_>) {
        self.value("version", connect.version);
        self.flag("bridge", connect.bridge);
        self.flag("clean_start", connect.clean_start);
        self.value("keep_alive", connect.keep_alive);
        let properties = &connect.properties;
        self.not_zero("session_expiry", properties.session_expiry_interval);
        self.option("receive_maximum", properties.receive_maximum);
        self.option("maximum_packet_size", properties.maximum_packet_size);
        self.not_zero("topic_alias_maximum", properties.topic_alias_maximum.into());
        self.flag(
            "request_response_information",
            properties.request_response_information,
        );
        self.flag(
            "no_problem_information",
            !properties.request_problem_information,
        );
        self.user_properties(properties.user_properties);
        self.optional_bytes("authentication_method", properties.authentication_method);
        self.optional_bytes("authentication_data", properties.authentication_data);
        self.bytes("client_id", connect.client_id);
        if let Some(will) = &connect.will {
            self.bytes("will_topic", will.topic_name.as_str());
            self.bytes("will_payload", will.payload);
            self.value("will_qos", will.qos as u8);
            self.flag("will_retain", will.retain);
            self.not_zero("will_delay", will.will_delay_interval);
            self.option("will_expiry", will.message_expiry_interval);
            self.message_properties(&will.properties);
        }
        self.optional_bytes("user_name", connect.user_name);
        self.optional_bytes("password", connect.password);
    }

    fn connack(&mut self, connack: &Connack<'_>) {
        self.flag("session_present", connack.session_present);
        self.code(connack.reason_code);
        let properties = &connack.properties;
        self.option("session_expiry", properties.session_expiry_interval);
        self.option("receive_maximum", properties.receive_maximum);
        let maximum_qos = properties.maximum_qos;
        self.option(
            "maximum_qos",
            (maximum_qos != QoS::ExactlyOnce).then_some(maximum_qos as u8),
        );
        self.flag("no_retain", !properties.retain_available);
        self.option("maximum_packet_size", properties.maximum_packet_size);
        self.optional_bytes("assigned_client_id", properties.assigned_client_id);
        self.not_zero("topic_alias_maximum", properties.topic_alias_maximum.into());
        self.reason(properties.reason_string, properties.user_properties);
        self.flag(
            "no_wildcard_subscription",
            !properties.wildcard_subscription_available,
        );
        self.flag(
            "no_subscription_ids",
            !properties.subscription_ids_available,
        );
        self.flag(
            "no_shared_subscription",
            !properties.shared_subscription_available,
        );
        self.option("server_keep_alive", properties.server_keep_alive);
        self.optional_bytes("response_information", properties.response_information);
        self.optional_bytes("server_reference", properties.server_reference);
        self.optional_bytes("authentication_method", properties.authentication_method);
        self.optional_bytes("authentication_data", properties.authentication_data);
    }

    fn publish(&mut self, publish: &Publish<'_>) {
        self.value("qos", publish.qos() as u8);
        self.flag("dup", publish.dup);
        self.flag("retain", publish.retain);
        self.option("id", publish.packet_id().map(|id| id.get()));
        self.optional_bytes("topic", publish.topic_name.map(|topic| topic.as_str()));
        self.option("alias", publish.topic_alias);
        self.option("expiry", publish.message_expiry_interval);
        for id in publish.subscription_ids.iter() {
            self.value("subscription_id", id.get());
        }
        self.message_properties(&publish.properties);
        self.bytes("payload", publish.payload);
    }

    fn ack(&mut self, ack: &Ack<'_>) {
        self.value("id", ack.packet_id.get());
        self.code(ack.reason_code);
        self.reason(ack.reason_string, ack.user_properties);
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) {
        self.flag("dup", subscribe.dup);
        self.value("id", subscribe.packet_id.get());
        self.option(
            "subscription_id",
            subscribe.subscription_id.map(|id| id.get()),
        );
        self.user_properties(subscribe.user_properties);
        for filter in subscribe.filters.iter() {
            self.bytes("filter", filter.topic_filter.as_str());
            let options = filter.options;
            self.value("qos", options.maximum_qos as u8);
            self.flag("no_local", options.no_local);
            self.flag("retain_as_published", options.retain_as_published);
            let handling = match options.retain_handling {
                RetainHandling::SendAtSubscribe => 0,
                RetainHandling::SendIfNew => 1,
                RetainHandling::DoNotSend => 2,
            };
            self.not_zero("retain_handling", handling);
        }
    }

    fn suback(&mut self, suback: &Suback<'_>) {
        self.value("id", suback.packet_id.get());
        self.reason(suback.reason_string, suback.user_properties);
        self.codes(suback.reason_codes.iter());
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) {
        self.flag("dup", unsubscribe.dup);
        self.value("id", unsubscribe.packet_id.get());
        self.user_properties(unsubscribe.user_properties);
        for filter in unsubscribe.filters.iter() {
            self.bytes("filter", filter.as_str());
        }
    }

    fn unsuback(&mut self, unsuback: &Unsuback<'_>) {
        self.value("id", unsuback.packet_id.get());
        self.reason(unsuback.reason_string, unsuback.user_properties);
        self.codes(unsuback.reason_codes.iter());
    }

    fn disconnect(&mut self, disconnect: &Disconnect<'_>) {
        self.code(disconnect.reason_code);
        self.option("session_expiry", disconnect.session_expiry_interval);
        self.reason(disconnect.reason_string, disconnect.user_properties);
        self.optional_bytes("server_reference", disconnect.server_reference);
    }

    fn auth(&mut self, auth: &Auth<'_>) {
        self.code(auth.reason_code);
        self.optional_bytes("authentication_method", auth.authentication_method);
        self.optional_bytes("authentication_data", auth.authentication_data);
        self.reason(auth.reason_string, auth.user_properties);
    }
}

fn quote(bytes: &[u8]) -> String {
    match bytes {
        [first, ..] if bytes.len() > 64 && bytes.iter().all(|byte| byte == first) => {
            format!("\"{}\"*{}", [*first].escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
