//! The Rust crate mqtt-protocol-core: its framing, and its parser of each packet type, called as
//! its connection calls them. It has no MQTT 3.1.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use avocet_codec::Version;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{
    PacketBuildResult, PacketBuilder, PacketData, RawPacket,
};
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use crate::outcome::{Input, Outcome, Seen, Theirs, hex};

pub(crate) fn decode(input: &Input) -> Theirs {
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = Cursor::new(input.bytes.as_slice());
        match PacketBuilder::new().feed(&mut bytes) {
            PacketBuildResult::Complete(packet) => Some(parse(&packet, input.version)),
            PacketBuildResult::Incomplete => None,
            PacketBuildResult::Error(error) => Some(Err(error)),
        }
    }));
    match decoded {
        Ok(Some(Ok(seen))) => Outcome::Packet(seen),
        Ok(Some(Err(error))) => Outcome::Refused(format!("{error:?}")),
        Ok(None) => Outcome::Incomplete,
        Err(_) => Outcome::Refused("panicked".to_owned()),
    }
}

fn parse(packet: &RawPacket, version: Version) -> Result<Seen, MqttError> {
    let is_v5 = match packet.data_as_slice().get(6) {
        // A CONNECT says its version.
        Some(level) if packet.packet_type() == 1 => *level == 5,
        _ => version == Version::V5,
    };
    if is_v5 {
        parse_v5(packet)
    } else {
        parse_v3(packet)
    }
}

macro_rules! ack {
    ($packet:expr, $name:literal, $parse:expr) => {{
        let ack = $packet.parse_exact($parse)?;
        let mut seen = Seen::new($name);
        seen.put("id", ack.packet_id());
        seen.option("code", ack.reason_code().map(|code| code as u8));
        (ack, seen)
    }};
}

macro_rules! v5_ack {
    ($packet:expr, $name:literal, $parse:expr) => {{
        let (ack, mut seen) = ack!($packet, $name, $parse);
        see_properties(&mut seen, "", ack.props().iter().flatten());
        seen
    }};
}

macro_rules! connect {
    ($connect:expr) => {{
        let connect = $connect;
        let mut seen = Seen::new("connect");
        seen.put("version", connect.protocol_version());
        seen.flag("clean", connect.clean_start());
        seen.put("keep alive", connect.keep_alive());
        seen.put("client id", connect.client_id());
        if connect.will_flag() {
            seen.option("will topic", connect.will_topic());
            seen.option("will payload", connect.will_payload().map(hex));
            seen.put("will qos", connect.will_qos() as u8);
            seen.flag("will retain", connect.will_retain());
        }
        seen.option("user name", connect.user_name());
        seen.option("password", connect.password().map(hex));
        seen
    }};
}

macro_rules! publish {
    ($publish:expr) => {{
        let publish = $publish;
        let mut seen = Seen::new("publish");
        seen.put("qos", publish.qos() as u8);
        seen.flag("dup", publish.dup());
        seen.flag("retain", publish.retain());
        seen.option("id", publish.packet_id());
        seen.put("topic", publish.topic_name());
        seen.binary("payload", publish.payload().as_slice());
        seen
    }};
}

fn shared(packet: &RawPacket) -> Arc<[u8]> {
    match &packet.data {
        PacketData::Publish(data) => Arc::clone(data),
        PacketData::Normal(data) => Arc::from(data.as_slice()),
    }
}

fn parse_v3(packet: &RawPacket) -> Result<Seen, MqttError> {
    Ok(match packet.packet_type() {
        1 => connect!(packet.parse_exact(v3_1_1::Connect::parse)?),
        2 => {
            let connack = packet.parse_exact(v3_1_1::Connack::parse)?;
            let mut seen = Seen::new("connack");
            seen.flag("session present", connack.session_present());
            seen.put("code", connack.return_code() as u8);
            seen
        }
        3 => publish!(v3_1_1::Publish::parse(packet.flags(), shared(packet))?.0),
        4 => ack!(packet, "puback", v3_1_1::Puback::parse).1,
        5 => ack!(packet, "pubrec", v3_1_1::Pubrec::parse).1,
        6 => ack!(packet, "pubrel", v3_1_1::Pubrel::parse).1,
        7 => ack!(packet, "pubcomp", v3_1_1::Pubcomp::parse).1,
        8 => {
            let subscribe = packet.parse_exact(v3_1_1::Subscribe::parse)?;
            let mut seen = Seen::new("subscribe");
            seen.put("id", subscribe.packet_id());
            see_entries(&mut seen, subscribe.entries());
            seen
        }
        9 => {
            let suback = packet.parse_exact(v3_1_1::Suback::parse)?;
            let mut seen = Seen::new("suback");
            seen.put("id", suback.packet_id());
            for code in suback.return_codes() {
                seen.put("code", code as u8);
            }
            seen
        }
        10 => {
            let unsubscribe = packet.parse_exact(v3_1_1::Unsubscribe::parse)?;
            let mut seen = Seen::new("unsubscribe");
            seen.put("id", unsubscribe.packet_id());
            for filter in unsubscribe.entries() {
                seen.put("filter", filter.as_str());
            }
            seen
        }
        11 => {
            let unsuback = packet.parse_exact(v3_1_1::Unsuback::parse)?;
            let mut seen = Seen::new("unsuback");
            seen.put("id", unsuback.packet_id());
            seen
        }
        12 => packet
            .parse_exact(v3_1_1::Pingreq::parse)
            .map(|_| Seen::new("pingreq"))?,
        13 => packet
            .parse_exact(v3_1_1::Pingresp::parse)
            .map(|_| Seen::new("pingresp"))?,
        14 => packet
            .parse_exact(v3_1_1::Disconnect::parse)
            .map(|_| Seen::new("disconnect"))?,
        _ => return Err(MqttError::MalformedPacket),
    })
}

fn parse_v5(packet: &RawPacket) -> Result<Seen, MqttError> {
    Ok(match packet.packet_type() {
        1 => {
            let connect = packet.parse_exact(v5_0::Connect::parse)?;
            let mut seen = connect!(&connect);
            see_properties(&mut seen, "", connect.props());
            see_properties(&mut seen, "will ", connect.will_props());
            seen
        }
        2 => {
            let connack = packet.parse_exact(v5_0::Connack::parse)?;
            let mut seen = Seen::new("connack");
            seen.flag("session present", connack.session_present());
            seen.put("code", connack.reason_code() as u8);
            see_properties(&mut seen, "", connack.props());
            seen
        }
        3 => {
            let publish = v5_0::Publish::parse(packet.flags(), shared(packet))?.0;
            let mut seen = publish!(&publish);
            see_properties(&mut seen, "", publish.props());
            seen
        }
        4 => v5_ack!(packet, "puback", v5_0::Puback::parse),
        5 => v5_ack!(packet, "pubrec", v5_0::Pubrec::parse),
        6 => v5_ack!(packet, "pubrel", v5_0::Pubrel::parse),
        7 => v5_ack!(packet, "pubcomp", v5_0::Pubcomp::parse),
        8 => {
            let subscribe = packet.parse_exact(v5_0::Subscribe::parse)?;
            let mut seen = Seen::new("subscribe");
            seen.put("id", subscribe.packet_id());
            see_properties(&mut seen, "", subscribe.props());
            see_entries(&mut seen, subscribe.entries());
            seen
        }
        9 => {
            let suback = packet.parse_exact(v5_0::Suback::parse)?;
            let mut seen = Seen::new("suback");
            seen.put("id", suback.packet_id());
            see_properties(&mut seen, "", suback.props());
            for code in suback.reason_codes() {
                seen.put("code", code as u8);
            }
            seen
        }
        10 => {
            let unsubscribe = packet.parse_exact(v5_0::Unsubscribe::parse)?;
            let mut seen = Seen::new("unsubscribe");
            seen.put("id", unsubscribe.packet_id());
            see_properties(&mut seen, "", unsubscribe.props());
            for filter in unsubscribe.entries() {
                seen.put("filter", filter.as_str());
            }
            seen
        }
        11 => {
            let unsuback = packet.parse_exact(v5_0::Unsuback::parse)?;
            let mut seen = Seen::new("unsuback");
            seen.put("id", unsuback.packet_id());
            see_properties(&mut seen, "", unsuback.props());
            for code in unsuback.reason_codes() {
                seen.put("code", code as u8);
            }
            seen
        }
        12 => packet
            .parse_exact(v5_0::Pingreq::parse)
            .map(|_| Seen::new("pingreq"))?,
        13 => packet
            .parse_exact(v5_0::Pingresp::parse)
            .map(|_| Seen::new("pingresp"))?,
        14 => {
            let disconnect = packet.parse_exact(v5_0::Disconnect::parse)?;
            let mut seen = Seen::new("disconnect");
            seen.option("code", disconnect.reason_code().map(|code| code as u8));
            see_properties(&mut seen, "", disconnect.props().iter().flatten());
            seen
        }
        15 => {
            let auth = packet.parse_exact(v5_0::Auth::parse)?;
            let mut seen = Seen::new("auth");
            seen.option("code", auth.reason_code().map(|code| code as u8));
            see_properties(&mut seen, "", auth.props().iter().flatten());
            seen
        }
        _ => return Err(MqttError::MalformedPacket),
    })
}

fn see_entries(seen: &mut Seen, entries: &[SubEntry]) {
    for entry in entries {
        let options = entry.sub_opts();
        seen.put(
            "filter",
            format_args!(
                "{} qos {} nl {} rap {} rh {}",
                entry.topic_filter(),
                options.qos() as u8,
                u8::from(options.nl()),
                u8::from(options.rap()),
                options.rh() as u8,
            ),
        );
    }
}

fn see_properties<'a>(
    seen: &mut Seen,
    prefix: &str,
    properties: impl IntoIterator<Item = &'a Property>,
) {
    for property in properties {
        let value = match property {
            Property::PayloadFormatIndicator(value) => value.val().to_string(),
            Property::MessageExpiryInterval(value) => value.val().to_string(),
            Property::ContentType(value) => value.val().to_owned(),
            Property::ResponseTopic(value) => value.val().to_owned(),
            Property::CorrelationData(value) => hex(value.val()),
            Property::SubscriptionIdentifier(value) => value.val().to_string(),
            Property::SessionExpiryInterval(value) => value.val().to_string(),
            Property::AssignedClientIdentifier(value) => value.val().to_owned(),
            Property::ServerKeepAlive(value) => value.val().to_string(),
            Property::AuthenticationMethod(value) => value.val().to_owned(),
            Property::AuthenticationData(value) => hex(value.val()),
            Property::RequestProblemInformation(value) => value.val().to_string(),
            Property::WillDelayInterval(value) => value.val().to_string(),
            Property::RequestResponseInformation(value) => value.val().to_string(),
            Property::ResponseInformation(value) => value.val().to_owned(),
            Property::ServerReference(value) => value.val().to_owned(),
            Property::ReasonString(value) => value.val().to_owned(),
            Property::ReceiveMaximum(value) => value.val().to_string(),
            Property::TopicAliasMaximum(value) => value.val().to_string(),
            Property::TopicAlias(value) => value.val().to_string(),
            Property::MaximumQos(value) => value.val().to_string(),
            Property::RetainAvailable(value) => value.val().to_string(),
            Property::UserProperty(value) => format!("{}={}", value.key(), value.val()),
            Property::MaximumPacketSize(value) => value.val().to_string(),
            Property::WildcardSubscriptionAvailable(value) => value.val().to_string(),
            Property::SubscriptionIdentifierAvailable(value) => value.val().to_string(),
            Property::SharedSubscriptionAvailable(value) => value.val().to_string(),
        };
        let name = property.id().as_str().replace('_', " ");
        let name = name.replace("qos", "QoS");
        seen.put(&format!("{prefix}{name}"), value);
    }
}
