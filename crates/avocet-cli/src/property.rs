//! `-D PACKET PROPERTY VALUE`: the properties of MQTT 5.0.

use std::fmt::Display;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

/// The properties asked for, by the packet that carries them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) connect: ConnectProperties,
    pub(crate) publish: MessageProperties,
    pub(crate) will: MessageProperties,
    pub(crate) will_delay_interval: Option<u32>,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) subscribe_user_properties: Vec<UserProperty>,
    pub(crate) unsubscribe_user_properties: Vec<UserProperty>,
    pub(crate) disconnect: DisconnectProperties,
    pub(crate) auth: AuthProperties,
}

pub(crate) type UserProperty = (String, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectProperties {
    pub(crate) session_expiry_interval: Option<u32>,
    pub(crate) receive_maximum: Option<NonZeroU16>,
    pub(crate) maximum_packet_size: Option<NonZeroU32>,
    pub(crate) topic_alias_maximum: Option<u16>,
    pub(crate) request_response_information: Option<bool>,
    pub(crate) request_problem_information: Option<bool>,
    pub(crate) authentication_method: Option<String>,
    pub(crate) authentication_data: Option<Vec<u8>>,
    pub(crate) user_properties: Vec<UserProperty>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageProperties {
    pub(crate) payload_is_utf8: Option<bool>,
    pub(crate) message_expiry_interval: Option<u32>,
    pub(crate) topic_alias: Option<NonZeroU16>,
    pub(crate) content_type: Option<String>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation_data: Option<Vec<u8>>,
    pub(crate) user_properties: Vec<UserProperty>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DisconnectProperties {
    pub(crate) session_expiry_interval: Option<u32>,
    pub(crate) reason_string: Option<String>,
    pub(crate) user_properties: Vec<UserProperty>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthProperties {
    pub(crate) authentication_method: Option<String>,
    pub(crate) authentication_data: Option<Vec<u8>>,
    pub(crate) reason_string: Option<String>,
    pub(crate) user_properties: Vec<UserProperty>,
}

const PACKETS: &str = "connect, publish, will, subscribe, unsubscribe, disconnect, auth";

/// The packets of `-D`, each with the properties it can carry.
const ALLOWED: [(&str, &[&str]); 7] = [
    (
        "connect",
        &[
            "session-expiry-interval",
            "receive-maximum",
            "maximum-packet-size",
            "topic-alias-maximum",
            "request-response-information",
            "request-problem-information",
            "authentication-method",
            "authentication-data",
            "user-property",
        ],
    ),
    (
        "publish",
        &[
            "payload-format-indicator",
            "message-expiry-interval",
            "topic-alias",
            "content-type",
            "response-topic",
            "correlation-data",
            "user-property",
        ],
    ),
    (
        "will",
        &[
            "will-delay-interval",
            "payload-format-indicator",
            "message-expiry-interval",
            "content-type",
            "response-topic",
            "correlation-data",
            "user-property",
        ],
    ),
    ("subscribe", &["subscription-identifier", "user-property"]),
    ("unsubscribe", &["user-property"]),
    (
        "disconnect",
        &["session-expiry-interval", "reason-string", "user-property"],
    ),
    (
        "auth",
        &[
            "authentication-method",
            "authentication-data",
            "reason-string",
            "user-property",
        ],
    ),
];

impl Properties {
    /// Reads what clap gathered: the arguments of all `-D` one after the other, each three long, or
    /// four for a user property.
    ///
    /// # Errors
    ///
    /// A sentence that names the packet, the property, the value and what is allowed.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut properties = Self::default();
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(packet) = rest.next() {
            let name = rest.next().unwrap_or_default();
            let packet = packet.to_ascii_lowercase();
            let (_, allowed) = ALLOWED
                .iter()
                .find(|(known, _)| *known == packet)
                .ok_or_else(|| {
                    format!("-D: {packet:?} is no packet with properties; allowed are {PACKETS}")
                })?;
            if !allowed.contains(&name) {
                return Err(format!(
                    "-D {packet}: {name:?} is no property of it; allowed are {}",
                    allowed.join(", ")
                ));
            }
            let value = rest
                .next()
                .ok_or_else(|| format!("-D {packet} {name}: the value is missing"))?;
            if name == "user-property" {
                let text = rest.next().ok_or_else(|| {
                    format!("-D {packet} user-property {value}: needs a name and a value")
                })?;
                properties
                    .user_properties(&packet)
                    .push((value.to_owned(), text.to_owned()));
            } else {
                properties
                    .set(&packet, name, value)
                    .map_err(|what| format!("-D {packet} {name} {value}: {what}"))?;
            }
        }
        Ok(properties)
    }

    fn user_properties(&mut self, packet: &str) -> &mut Vec<UserProperty> {
        match packet {
            "connect" => &mut self.connect.user_properties,
            "will" => &mut self.will.user_properties,
            "subscribe" => &mut self.subscribe_user_properties,
            "unsubscribe" => &mut self.unsubscribe_user_properties,
            "disconnect" => &mut self.disconnect.user_properties,
            "auth" => &mut self.auth.user_properties,
            _ => &mut self.publish.user_properties,
        }
    }

    fn set(&mut self, packet: &str, name: &str, value: &str) -> Result<(), String> {
        let message = if packet == "will" {
            &mut self.will
        } else {
            &mut self.publish
        };
        let text = || value.to_owned();
        let bytes = || value.as_bytes().to_vec();
        match (packet, name) {
            ("connect", "session-expiry-interval") => once(
                &mut self.connect.session_expiry_interval,
                number(value, 0, u32::MAX)?,
            ),
            ("connect", "receive-maximum") => {
                once(&mut self.connect.receive_maximum, non_zero_u16(value)?)
            }
            ("connect", "maximum-packet-size") => {
                let size = NonZeroU32::new(number(value, 1, u32::MAX)?);
                once(
                    &mut self.connect.maximum_packet_size,
                    size.ok_or("0 is not allowed")?,
                )
            }
            ("connect", "topic-alias-maximum") => once(
                &mut self.connect.topic_alias_maximum,
                number(value, 0, u16::MAX)?,
            ),
            ("connect", "request-response-information") => once(
                &mut self.connect.request_response_information,
                boolean(value)?,
            ),
            ("connect", "request-problem-information") => once(
                &mut self.connect.request_problem_information,
                boolean(value)?,
            ),
            ("connect", "authentication-method") => {
                once(&mut self.connect.authentication_method, text())
            }
            ("connect", "authentication-data") => {
                once(&mut self.connect.authentication_data, bytes())
            }
            ("will", "will-delay-interval") => {
                once(&mut self.will_delay_interval, number(value, 0, u32::MAX)?)
            }
            ("publish" | "will", "payload-format-indicator") => {
                once(&mut message.payload_is_utf8, boolean(value)?)
            }
            ("publish" | "will", "message-expiry-interval") => once(
                &mut message.message_expiry_interval,
                number(value, 0, u32::MAX)?,
            ),
            ("publish", "topic-alias") => once(&mut message.topic_alias, non_zero_u16(value)?),
            ("publish" | "will", "content-type") => once(&mut message.content_type, text()),
            ("publish" | "will", "response-topic") => once(&mut message.response_topic, text()),
            ("publish" | "will", "correlation-data") => {
                once(&mut message.correlation_data, bytes())
            }
            ("subscribe", "subscription-identifier") => {
                once(&mut self.subscription_id, number(value, 1, 268_435_455)?)
            }
            ("disconnect", "session-expiry-interval") => once(
                &mut self.disconnect.session_expiry_interval,
                number(value, 0, u32::MAX)?,
            ),
            ("disconnect", "reason-string") => once(&mut self.disconnect.reason_string, text()),
            ("auth", "authentication-method") => once(&mut self.auth.authentication_method, text()),
            ("auth", "authentication-data") => once(&mut self.auth.authentication_data, bytes()),
            ("auth", "reason-string") => once(&mut self.auth.reason_string, text()),
            _ => Err("is no property of this packet".into()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("is given twice".into()),
    }
}

fn number<T: FromStr + PartialOrd + Display>(text: &str, min: T, max: T) -> Result<T, String> {
    match text.parse() {
        Ok(number) if number >= min && number <= max => Ok(number),
        Ok(_) | Err(_) => Err(format!("allowed are {min} to {max}")),
    }
}

fn non_zero_u16(text: &str) -> Result<NonZeroU16, String> {
    text.parse()
        .map_err(|_| format!("allowed are 1 to {}", u16::MAX))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("allowed are 0 and 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Properties, String> {
        Properties::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_property_named_as_allowed_is_taken() {
        for (packet, names) in ALLOWED {
            for name in names {
                let rest = if *name == "user-property" { "1 2" } else { "1" };
                assert!(
                    parse(&format!("{packet} {name} {rest}")).is_ok(),
                    "{packet} {name}"
                );
            }
        }
    }

    #[test]
    fn several_follow_one_another_and_user_properties_keep_their_order() {
        let properties = parse(
            "publish user-property b 1 CONNECT receive-maximum 9 publish user-property a 2 \
             will will-delay-interval 5 will content-type x publish content-type y",
        )
        .unwrap();
        let pairs = [("b".into(), "1".into()), ("a".into(), "2".into())];
        assert_eq!(properties.publish.user_properties, pairs);
        assert_eq!(properties.connect.receive_maximum, NonZeroU16::new(9));
        assert_eq!(properties.will_delay_interval, Some(5));
        assert_eq!(properties.will.content_type.as_deref(), Some("x"));
        assert_eq!(properties.publish.content_type.as_deref(), Some("y"));
    }

    #[test]
    fn errors_name_what_and_what_is_allowed() {
        for (text, expected) in [
            (
                "suback reason-string x",
                "\"suback\" is no packet with properties; allowed are",
            ),
            (
                "publish will-delay-interval 1",
                "is no property of it; allowed are payload-format",
            ),
            (
                "connect receive-maximum 0",
                "receive-maximum 0: allowed are 1 to 65535",
            ),
            ("connect receive-maximum 65536", "allowed are 1 to 65535"),
            (
                "subscribe subscription-identifier 268435456",
                "allowed are 1 to 268435455",
            ),
            (
                "publish payload-format-indicator yes",
                "allowed are 0 and 1",
            ),
            ("publish user-property a", "needs a name and a value"),
            (
                "publish content-type a publish content-type b",
                "is given twice",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
