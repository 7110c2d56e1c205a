//! What a client asks for in CONNECT, and how it behaves.

use alloc::string::String;
use alloc::vec::Vec;
use avocet_codec::{
    Connect, ConnectProperties, List, PACKET_SIZE_MAX, UserProperty, Version, Will,
};
use bytes::Bytes;
use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use crate::{Limits, Message};

/// The longest string or binary field of a packet, in bytes [MQTT5-1.5.4].
const FIELD_MAX: usize = 65_535;

/// What a client asks for in CONNECT, and how it behaves.
///
/// Settings that MQTT 3.1 and 3.1.1 do not have are left at their defaults there, or
/// [`ClientConfig::check`] refuses them.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The version spoken.
    pub version: Version,
    /// The Client Identifier; empty asks the server to assign one (not in 3.1).
    pub client_id: String,
    /// Whether server and client begin with an empty Session. In 3.x also Clean Session: the
    /// server keeps nothing afterwards.
    pub clean_start: bool,
    /// Whether the Session given to the connection is what this client last had with this server,
    /// even if it is empty. Without it, a server that still has a Session is left at once
    /// [MQTT5-3.2.2-4].
    pub session_known: bool,
    /// Keep Alive in seconds; 0 turns it off. The server of 5.0 may set another.
    pub keep_alive: u16,
    /// The User Name.
    pub user_name: Option<String>,
    /// The Password; in 3.x only with a User Name.
    pub password: Option<Bytes>,
    /// What the server publishes when this client is lost.
    pub will: Option<WillMessage>,
    /// Session Expiry Interval in seconds, `u32::MAX` for never (5.0).
    pub session_expiry_interval: u32,
    /// QoS 1 and 2 messages the server may have in flight towards this client, at least 1; the
    /// server learns it in 5.0 only, and only there more of them are a violation.
    pub receive_maximum: u16,
    /// The largest packet that is taken, in bytes; the server learns it in 5.0 only.
    pub maximum_packet_size: u32,
    /// Topic Aliases the server may use, each keeps one Topic Name (5.0). Those used towards the
    /// server are limited by [`Limits::topic_aliases`].
    pub topic_alias_maximum: u16,
    /// Whether the server may send Response Information (5.0).
    pub request_response_information: bool,
    /// Whether the server may send reason strings and user properties with any packet (5.0).
    pub request_problem_information: bool,
    /// User Properties of CONNECT, in order (5.0).
    pub user_properties: Vec<(String, String)>,
    /// Enhanced authentication (5.0).
    pub authentication: Option<Authentication>,
    /// Whether the Protocol Level says that this is a bridge, as some servers of 3.x understand.
    pub bridge: bool,
    /// Whether messages of QoS 1 that were in flight in a Session that the server has lost are
    /// published again, as new ones in their order. Those of QoS 2 may have arrived, and are not.
    pub publish_again: bool,
    /// Whether the application answers every message of QoS 2, though its connection may have ended:
    /// then PUBREC waits for that on later connections too, as it must where a store keeps the
    /// Session.
    pub answers_late: bool,
    /// How long after CONNECT the CONNACK may take; each AUTH of the server begins it anew.
    pub connect_timeout: Duration,
    /// How long after PINGREQ the PINGRESP may take.
    pub pingresp_timeout: Duration,
    /// How long the last packet may take to leave.
    pub drain_timeout: Duration,
    /// Queues and windows towards the server.
    pub limits: Limits,
}

/// A Will Message: what the server publishes when the client is lost.
///
/// ```
/// use avocet_codec::{MessageProperties, MessagePropertiesParts, QoS};
/// use avocet_session::{Message, client::WillMessage};
/// use avocet_topic::TopicName;
///
/// let properties = MessageProperties::new(MessagePropertiesParts {
///     content_type: Some("text/plain"),
///     ..MessagePropertiesParts::default()
/// });
/// let topic_name = TopicName::new("pumps/7/state")?;
/// let gone = Message::with_properties(topic_name, &properties, b"gone")?;
/// let will = WillMessage::new(gone.with_qos(QoS::AtLeastOnce).with_retain(true))
///     .with_will_delay_interval(30)
///     .with_message_expiry_interval(Some(3600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What 3.x cannot carry, [`ClientConfig::check`] refuses.
#[derive(Clone, Debug)]
pub struct WillMessage {
    /// Topic, payload, properties, QoS and RETAIN; its deadline is not used.
    pub message: Message,
    /// Seconds the server waits for the client to come back (5.0).
    pub will_delay_interval: u32,
    /// Message Expiry Interval in seconds, which begins when it is published (5.0).
    pub message_expiry_interval: Option<u32>,
}

/// How enhanced authentication begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The Authentication Method, by which both sides know how to go on.
    pub method: String,
    /// What the method sends first.
    pub data: Option<Bytes>,
}

/// A setting that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// 3.1 has no empty Client Identifier, 3.1.1 none without Clean Session.
    #[error("[MQTT311-3.1.3-7] an empty client identifier needs clean start, and 3.1.1 or 5.0")]
    ClientIdEmpty,
    /// The flags of 3.x allow no Password alone.
    #[error("[MQTT311-3.1.2-22] a password needs a user name before 5.0")]
    PasswordWithoutUserName,
    /// A setting that only 5.0 can carry; says which.
    #[error("{0} needs 5.0")]
    NotInVersion(&'static str),
    /// Zero where the standard forbids it; says which.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// Longer than 65,535 bytes; says which.
    #[error("{0} is longer than 65,535 bytes")]
    TooLong(&'static str),
    /// U+0000 in a string; says which.
    #[error("[MQTT5-1.5.4-2] {0} contains the null character")]
    NullCharacter(&'static str),
}

impl ClientConfig {
    /// A client of this version that begins with an empty Session, with Keep Alive of 60 seconds.
    #[must_use]
    pub fn new(version: Version, client_id: impl Into<String>) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            clean_start: true,
            session_known: false,
            keep_alive: 60,
            user_name: None,
            password: None,
            will: None,
            session_expiry_interval: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: PACKET_SIZE_MAX,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: Vec::new(),
            authentication: None,
            bridge: false,
            publish_again: false,
            answers_late: false,
            connect_timeout: Duration::from_secs(30),
            pingresp_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }

    /// Whether CONNECT can carry these settings.
    ///
    /// # Errors
    ///
    /// The first setting that it cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let must_have_id = match self.version {
            Version::V3_1 => true,
            Version::V3_1_1 => !self.clean_start,
            Version::V5 => false,
        };
        if must_have_id && self.client_id.is_empty() {
            return Err(ConfigError::ClientIdEmpty);
        }
        if self.receive_maximum == 0 {
            return Err(ConfigError::Zero("receive maximum"));
        }
        if self.maximum_packet_size == 0 {
            return Err(ConfigError::Zero("maximum packet size"));
        }
        if self.version != Version::V5 {
            if self.password.is_some() && self.user_name.is_none() {
                return Err(ConfigError::PasswordWithoutUserName);
            }
            if let Some(setting) = self.of_5_0_only() {
                return Err(ConfigError::NotInVersion(setting));
            }
        }
        let method = self
            .authentication
            .as_ref()
            .map(|authentication| &authentication.method);
        let data = self.authentication.as_ref().and_then(|a| a.data.as_ref());
        string("client identifier", &self.client_id)?;
        self.user_name
            .as_ref()
            .map_or(Ok(()), |text| string("user name", text))?;
        method.map_or(Ok(()), |text| string("authentication method", text))?;
        for (name, value) in &self.user_properties {
            string("user property", name)?;
            string("user property", value)?;
        }
        self.password
            .as_ref()
            .map_or(Ok(()), |bytes| length("password", bytes))?;
        data.map_or(Ok(()), |bytes| length("authentication data", bytes))?;
        self.will.as_ref().map_or(Ok(()), |will| {
            length("will payload", will.message.payload())
        })
    }

    /// A setting other than its default that 3.x cannot carry.
    fn of_5_0_only(&self) -> Option<&'static str> {
        let will = self.will.as_ref();
        let of_will = |is: fn(&WillMessage) -> bool| will.is_some_and(is);
        [
            ("session expiry interval", self.session_expiry_interval != 0),
            ("a user property", !self.user_properties.is_empty()),
            (
                "request response information",
                self.request_response_information,
            ),
            ("enhanced authentication", self.authentication.is_some()),
            (
                "will delay interval",
                of_will(|will| will.will_delay_interval != 0),
            ),
            (
                "a will's expiry",
                of_will(|will| will.message_expiry_interval.is_some()),
            ),
            (
                "a will's property",
                of_will(|will| !will.message.properties().is_empty()),
            ),
        ]
        .into_iter()
        .find_map(|(setting, given)| given.then_some(setting))
    }

    /// Gives the CONNECT to `then`; it borrows from here.
    pub(crate) fn with_connect<T>(&self, then: impl FnOnce(&Connect<'_>) -> T) -> T {
        let user_properties: Vec<_> = borrowed(&self.user_properties);
        let is_5_0 = self.version == Version::V5;
        let largest = self.maximum_packet_size;
        let authentication = self.authentication.as_ref();
        then(&Connect {
            version: self.version,
            bridge: self.bridge,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            client_id: &self.client_id,
            will: self.will.as_ref().map(|will| Will {
                topic_name: will.message.topic_name(),
                payload: will.message.payload(),
                qos: will.message.qos(),
                retain: will.message.retain(),
                will_delay_interval: will.will_delay_interval,
                message_expiry_interval: will.message_expiry_interval,
                properties: will.message.properties(),
            }),
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref(),
            properties: ConnectProperties {
                session_expiry_interval: self.session_expiry_interval,
                // 65,535 and the largest packet there can be are what absence means.
                receive_maximum: NonZeroU16::new(self.receive_maximum)
                    .filter(|maximum| is_5_0 && maximum.get() != u16::MAX),
                maximum_packet_size: NonZeroU32::new(largest)
                    .filter(|_| is_5_0 && largest < PACKET_SIZE_MAX),
                topic_alias_maximum: if is_5_0 { self.topic_alias_maximum } else { 0 },
                request_response_information: self.request_response_information,
                request_problem_information: self.request_problem_information || !is_5_0,
                user_properties: List::from_slice(&user_properties),
                authentication_method: authentication.map(|a| a.method.as_str()),
                authentication_data: authentication.and_then(|a| a.data.as_deref()),
            },
        })
    }
}

/// Pairs as the codec takes them.
pub(crate) fn borrowed(pairs: &[(String, String)]) -> Vec<UserProperty<'_>> {
    pairs
        .iter()
        .map(|(name, value)| UserProperty { name, value })
        .collect()
}

fn string(setting: &'static str, text: &str) -> Result<(), ConfigError> {
    if text.contains('\0') {
        return Err(ConfigError::NullCharacter(setting));
    }
    length(setting, text.as_bytes())
}

fn length(setting: &'static str, bytes: &[u8]) -> Result<(), ConfigError> {
    if bytes.len() > FIELD_MAX {
        Err(ConfigError::TooLong(setting))
    } else {
        Ok(())
    }
}

impl WillMessage {
    /// The message, published as soon as the client is lost.
    #[must_use]
    pub const fn new(message: Message) -> Self {
        Self {
            message,
            will_delay_interval: 0,
            message_expiry_interval: None,
        }
    }

    /// The same, published when the client has not come back for this many seconds (5.0).
    #[must_use]
    pub const fn with_will_delay_interval(mut self, seconds: u32) -> Self {
        self.will_delay_interval = seconds;
        self
    }

    /// The same with a Message Expiry Interval of this many seconds, or none (5.0).
    #[must_use]
    pub const fn with_message_expiry_interval(mut self, seconds: Option<u32>) -> Self {
        self.message_expiry_interval = seconds;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use avocet_codec::{MessageProperties, MessagePropertiesParts};
    use avocet_topic::TopicName;

    fn config(version: Version) -> ClientConfig {
        ClientConfig::new(version, "c")
    }

    #[test]
    fn defaults_are_valid_in_every_version() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            assert_eq!(config(version).check(), Ok(()));
        }
    }

    /// [MQTT311-3.1.3-7]
    #[test]
    fn an_empty_client_id_needs_clean_start() {
        let empty = |version, clean_start| {
            let config = ClientConfig {
                clean_start,
                ..ClientConfig::new(version, "")
            };
            config.check()
        };
        assert_eq!(empty(Version::V3_1_1, true), Ok(()));
        assert_eq!(
            empty(Version::V3_1_1, false),
            Err(ConfigError::ClientIdEmpty)
        );
        assert_eq!(empty(Version::V3_1, true), Err(ConfigError::ClientIdEmpty));
        assert_eq!(empty(Version::V5, false), Ok(()));
    }

    /// [MQTT311-3.1.2-22]
    #[test]
    fn a_password_alone_needs_5_0() {
        let password = Some(Bytes::from_static(b"x"));
        for (version, expected) in [
            (Version::V3_1, Err(ConfigError::PasswordWithoutUserName)),
            (Version::V3_1_1, Err(ConfigError::PasswordWithoutUserName)),
            (Version::V5, Ok(())),
        ] {
            let config = ClientConfig {
                password: password.clone(),
                ..config(version)
            };
            assert_eq!(config.check(), expected);
        }
    }

    #[test]
    fn settings_of_5_0_are_refused_by_name_before() {
        type Change = fn(&mut ClientConfig);
        let changes: [(&str, Change); 7] = [
            ("session expiry interval", |config| {
                config.session_expiry_interval = 1
            }),
            ("a user property", |config| {
                config.user_properties.push(("a".into(), "b".into()))
            }),
            ("request response information", |config| {
                config.request_response_information = true
            }),
            ("enhanced authentication", |config| {
                config.authentication = Some(Authentication {
                    method: "m".into(),
                    data: None,
                });
            }),
            ("will delay interval", |config| {
                let message = Message::new(TopicName::new("t").unwrap(), b"");
                let will = WillMessage::new(message);
                config.will = Some(will.with_will_delay_interval(1));
            }),
            ("a will's expiry", |config| {
                let message = Message::new(TopicName::new("t").unwrap(), b"");
                let will = WillMessage::new(message);
                config.will = Some(will.with_message_expiry_interval(Some(0)));
            }),
            ("a will's property", |config| {
                let properties = MessageProperties::new(MessagePropertiesParts {
                    response_topic: TopicName::new("r").ok(),
                    ..MessagePropertiesParts::default()
                });
                let topic_name = TopicName::new("t").unwrap();
                let message = Message::with_properties(topic_name, &properties, b"");
                config.will = Some(WillMessage::new(message.unwrap()));
            }),
        ];
        for (setting, change) in changes {
            let mut config = config(Version::V3_1_1);
            change(&mut config);
            assert_eq!(config.check(), Err(ConfigError::NotInVersion(setting)));
            config.version = Version::V5;
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn strings_that_cannot_be_sent_are_named() {
        let mut config = config(Version::V5);
        config.user_name = Some("a\0b".into());
        let error = config.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "[MQTT5-1.5.4-2] user name contains the null character"
        );
        config.user_name = Some("x".repeat(65_536));
        assert_eq!(config.check(), Err(ConfigError::TooLong("user name")));
        config.user_name = None;
        config.receive_maximum = 0;
        assert_eq!(config.check(), Err(ConfigError::Zero("receive maximum")));
    }
}
