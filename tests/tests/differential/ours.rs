//! The codec under test.

use avocet_codec::{
    Ack, Connack, Connect, List, MessageProperties, Packet, Publish, QoS, RetainHandling,
    Subscribe, UserProperty, Version,
};

use crate::outcome::{Input, Ours, Outcome, Seen};

pub(crate) fn decode(input: &Input) -> Ours {
    match Packet::decode_next(&mut input.bytes.as_slice(), input.version, u32::MAX) {
        Ok(Some(packet)) => Outcome::Packet(see(&packet, input.version)),
        Ok(None) => Outcome::Incomplete,
        Err(error) => Outcome::Refused(error),
    }
}

fn see(packet: &Packet<'_>, version: Version) -> Seen {
    let mut seen = Seen::new(packet.packet_type().name());
    match packet {
        Packet::Connect(connect) => see_connect(&mut seen, connect),
        Packet::Connack(connack) => see_connack(&mut seen, connack, version),
        Packet::Publish(publish) => see_publish(&mut seen, publish),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            see_ack(&mut seen, ack);
        }
        Packet::Subscribe(subscribe) => see_subscribe(&mut seen, subscribe),
        Packet::Suback(suback) => {
            seen.put("id", suback.packet_id.get());
            for code in suback.reason_codes.iter() {
                seen.put("code", code as u8);
            }
            see_reason(&mut seen, suback.reason_string, suback.user_properties);
        }
        Packet::Unsubscribe(unsubscribe) => {
            seen.put("id", unsubscribe.packet_id.get());
            for filter in unsubscribe.filters.iter() {
                seen.put("filter", filter.as_str());
            }
            see_reason(&mut seen, None, unsubscribe.user_properties);
        }
        Packet::Unsuback(unsuback) => {
            seen.put("id", unsuback.packet_id.get());
            for code in unsuback.reason_codes.iter() {
                seen.put("code", code as u8);
            }
            see_reason(&mut seen, unsuback.reason_string, unsuback.user_properties);
        }
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(disconnect) => {
            seen.put("code", disconnect.reason_code as u8);
            seen.option(
                "session expiry interval",
                disconnect.session_expiry_interval,
            );
            seen.option("server reference", disconnect.server_reference);
            see_reason(
                &mut seen,
                disconnect.reason_string,
                disconnect.user_properties,
            );
        }
        Packet::Auth(auth) => {
            seen.put("code", auth.reason_code as u8);
            see_authentication(
                &mut seen,
                auth.authentication_method,
                auth.authentication_data,
            );
            see_reason(&mut seen, auth.reason_string, auth.user_properties);
        }
    }
    seen
}

fn see_connect(seen: &mut Seen, connect: &Connect<'_>) {
    seen.put("version", connect.version.protocol_level());
    seen.flag("bridge", connect.bridge);
    seen.flag("clean", connect.clean_start);
    seen.put("keep alive", connect.keep_alive);
    seen.put("client id", connect.client_id);
    if let Some(will) = &connect.will {
        seen.put("will topic", will.topic_name);
        seen.binary("will payload", will.payload);
        seen.put("will qos", will.qos as u8);
        seen.flag("will retain", will.retain);
        seen.put("will will delay interval", will.will_delay_interval);
        seen.option("will message expiry interval", will.message_expiry_interval);
        see_message(seen, "will ", &will.properties);
    }
    seen.option("user name", connect.user_name);
    if let Some(password) = connect.password {
        seen.binary("password", password);
    }
    let properties = &connect.properties;
    seen.put(
        "session expiry interval",
        properties.session_expiry_interval,
    );
    seen.option("receive maximum", properties.receive_maximum);
    seen.option("maximum packet size", properties.maximum_packet_size);
    seen.put("topic alias maximum", properties.topic_alias_maximum);
    seen.flag(
        "request response information",
        properties.request_response_information,
    );
    seen.flag(
        "request problem information",
        properties.request_problem_information,
    );
    see_authentication(
        seen,
        properties.authentication_method,
        properties.authentication_data,
    );
    see_reason(seen, None, properties.user_properties);
}

fn see_connack(seen: &mut Seen, connack: &Connack<'_>, version: Version) {
    seen.flag("session present", connack.session_present);
    match version {
        Version::V5 => seen.put("code", connack.reason_code as u8),
        _ => seen.put("code", connack.reason_code.connect_return_code()),
    }
    let properties = &connack.properties;
    seen.option(
        "session expiry interval",
        properties.session_expiry_interval,
    );
    seen.option("receive maximum", properties.receive_maximum);
    if properties.maximum_qos != QoS::ExactlyOnce {
        seen.put("maximum QoS", properties.maximum_qos as u8);
    }
    seen.flag("retain available", properties.retain_available);
    seen.option("maximum packet size", properties.maximum_packet_size);
    seen.option("assigned client identifier", properties.assigned_client_id);
    seen.put("topic alias maximum", properties.topic_alias_maximum);
    seen.flag(
        "wildcard subscription available",
        properties.wildcard_subscription_available,
    );
    seen.flag(
        "subscription identifier available",
        properties.subscription_ids_available,
    );
    seen.flag(
        "shared subscription available",
        properties.shared_subscription_available,
    );
    seen.option("server keep alive", properties.server_keep_alive);
    seen.option("response information", properties.response_information);
    seen.option("server reference", properties.server_reference);
    see_authentication(
        seen,
        properties.authentication_method,
        properties.authentication_data,
    );
    see_reason(seen, properties.reason_string, properties.user_properties);
}

fn see_publish(seen: &mut Seen, publish: &Publish<'_>) {
    seen.put("qos", publish.qos() as u8);
    seen.flag("dup", publish.dup);
    seen.flag("retain", publish.retain);
    seen.option("id", publish.packet_id().map(|id| id.get()));
    seen.put("topic", publish.topic_name.map_or("", |name| name.as_str()));
    seen.option("topic alias", publish.topic_alias);
    seen.option("message expiry interval", publish.message_expiry_interval);
    for id in publish.subscription_ids.iter() {
        seen.put("subscription identifier", id.get());
    }
    see_message(seen, "", &publish.properties);
    seen.binary("payload", publish.payload);
}

fn see_ack(seen: &mut Seen, ack: &Ack<'_>) {
    seen.put("id", ack.packet_id.get());
    seen.put("code", ack.reason_code as u8);
    see_reason(seen, ack.reason_string, ack.user_properties);
}

fn see_subscribe(seen: &mut Seen, subscribe: &Subscribe<'_>) {
    seen.put("id", subscribe.packet_id.get());
    for filter in subscribe.filters.iter() {
        let options = filter.options;
        let retain_handling = match options.retain_handling {
            RetainHandling::SendAtSubscribe => 0,
            RetainHandling::SendIfNew => 1,
            RetainHandling::DoNotSend => 2,
        };
        seen.put(
            "filter",
            format_args!(
                "{} qos {} nl {} rap {} rh {retain_handling}",
                filter.topic_filter.as_str(),
                options.maximum_qos as u8,
                u8::from(options.no_local),
                u8::from(options.retain_as_published),
            ),
        );
    }
    seen.option(
        "subscription identifier",
        subscribe.subscription_id.map(|id| id.get()),
    );
    see_reason(seen, None, subscribe.user_properties);
}

fn see_message(seen: &mut Seen, prefix: &str, properties: &MessageProperties<'_>) {
    let mut option = |name: &str, value: Option<String>| {
        seen.option(&format!("{prefix}{name}"), value);
    };
    let format = properties.payload_format();
    option(
        "payload format indicator",
        format.map(|format| (format as u8).to_string()),
    );
    option("content type", properties.content_type().map(str::to_owned));
    option(
        "response topic",
        properties.response_topic().map(|topic| topic.to_string()),
    );
    option(
        "correlation data",
        properties.correlation_data().map(crate::outcome::hex),
    );
    for property in properties.user_properties().iter() {
        option(
            "user property",
            Some(format!("{}={}", property.name, property.value)),
        );
    }
}

fn see_authentication(seen: &mut Seen, method: Option<&str>, data: Option<&[u8]>) {
    seen.option("authentication method", method);
    seen.option("authentication data", data.map(crate::outcome::hex));
}

fn see_reason<'a>(
    seen: &mut Seen,
    reason_string: Option<&str>,
    user_properties: List<'a, UserProperty<'a>>,
) {
    seen.option("reason string", reason_string);
    for property in user_properties.iter() {
        seen.put(
            "user property",
            format_args!("{}={}", property.name, property.value),
        );
    }
}
