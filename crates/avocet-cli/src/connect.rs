//! From the command line to a connected client.

use avocet_client::{
    Authentication, Client, ClientConfig, Config, ConnectError, Disconnection, Message,
    MessageProperties, MessagePropertiesParts, Messages, PayloadFormat, TopicName, UserProperty,
    Version, WhenSlow, WillMessage,
};
use avocet_session::UnixTime;

use crate::args::ConnectionArgs;
use crate::exit::Failure;
use crate::property::{self, Properties};
use crate::transport::{Opener, Transport};

/// What the command line says about the connection, read and checked.
pub(crate) struct Settings {
    pub(crate) properties: Properties,
    /// The topic of `-L`.
    pub(crate) url_topic: Option<String>,
    pub(crate) version: Version,
    pub(crate) quiet: bool,
    transport: Transport,
}

impl Settings {
    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// What cannot be sent, or is not supported, with the option it came from.
    pub(crate) fn new(args: ConnectionArgs) -> Result<(Config, Self), Failure> {
        if let Some((option, what)) = args.unsupported.given() {
            return Err(Failure::new(format!(
                "{option}: {what} is not supported yet"
            )));
        }
        let version = args.protocol_version;
        let properties = Properties::parse(&args.properties)?;
        if version != Version::V5 && !args.properties.is_empty() {
            return Err(Failure::new("-D: properties need MQTT 5.0 (-V 5)"));
        }
        if version != Version::V5 && args.session_expiry_interval.is_some() {
            return Err(Failure::new(
                "-x: the session expiry interval needs MQTT 5.0 (-V 5)",
            ));
        }
        let mut connection = ClientConfig::new(version, client_id(&args));
        if args.keep_session && connection.client_id.is_empty() {
            return Err(Failure::new(
                "-c: keeping the session needs a client identifier (-i ID)",
            ));
        }
        connection.clean_start = !args.keep_session;
        // The state of an earlier process is taken to have been empty when it ended.
        connection.session_known = args.keep_session;
        connection.keep_alive = args.keepalive;
        connection.connect_timeout = args.connect_timeout;
        let url = args.url.as_ref();
        connection.user_name = args
            .username
            .clone()
            .or_else(|| url.and_then(|url| url.user_name.clone()));
        connection.password = args.password.read(url)?.map(Into::into);
        let of_connect = &properties.connect;
        let kept_for = if args.keep_session && version == Version::V5 {
            u32::MAX
        } else {
            0
        };
        connection.session_expiry_interval = match (
            args.session_expiry_interval,
            of_connect.session_expiry_interval,
        ) {
            (Some(_), Some(_)) => {
                return Err(Failure::new(
                    "-x and -D connect session-expiry-interval say the same: give one of them",
                ));
            }
            (Some(seconds), None) | (None, Some(seconds)) => seconds,
            (None, None) => kept_for,
        };
        if let Some(maximum) = of_connect.receive_maximum {
            connection.receive_maximum = maximum.get();
        }
        if let Some(maximum) = of_connect.maximum_packet_size {
            connection.maximum_packet_size = maximum.get();
        }
        connection.topic_alias_maximum = of_connect.topic_alias_maximum.unwrap_or(0);
        connection.request_response_information =
            of_connect.request_response_information.unwrap_or(false);
        connection.request_problem_information =
            of_connect.request_problem_information.unwrap_or(true);
        connection.user_properties = of_connect.user_properties.clone();
        connection.authentication = authentication(&properties)?;
        connection.will = will(&args, &properties)?;
        connection
            .check()
            .map_err(|error| Failure::new(error.to_string()))?;
        let transport = Transport::new(&args.transport, &args.host, args.port, url);
        let mut config = Config::with_connection(connection);
        // A command ends with its connection, and shows every message.
        config.reconnect = None;
        config.when_slow = WhenSlow::StopReading;
        config.connect_timeout = args.connect_timeout;
        let answer = properties.auth.authentication_data.clone();
        config.authenticator = Some(Box::new(move |_| answer.clone()));
        let settings = Self {
            properties,
            url_topic: args.url.and_then(|url| url.topic),
            version,
            quiet: args.quiet,
            transport,
        };
        Ok((config, settings))
    }

    /// Says something on standard error, unless `--quiet`.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("avocet: {text}");
        }
    }

    /// DISCONNECT as `-D disconnect` says.
    pub(crate) fn disconnection(&self) -> Disconnection {
        let disconnect = &self.properties.disconnect;
        Disconnection {
            session_expiry_interval: disconnect.session_expiry_interval,
            reason_string: disconnect.reason_string.clone(),
            user_properties: disconnect.user_properties.clone(),
            ..Disconnection::default()
        }
    }
}

/// Connects.
///
/// # Errors
///
/// A sentence that names the server, and the exit code of a refusal.
pub(crate) async fn connect(
    mut config: Config,
    settings: &Settings,
) -> Result<(Client, Messages), Failure> {
    let (transport, version) = (&settings.transport, settings.version);
    let server = transport.place.to_string();
    if let Some(warning) = transport.warning() {
        settings.warn(warning);
    }
    config.connector = Some(Box::new(Opener {
        endpoint: transport.endpoint()?,
        deadline: config.connect_timeout,
    }));
    Client::connect(config).await.map_err(|error| {
        if let ConnectError::Closed(closed) = error {
            return Failure::Error(format!("no connection to {server}: {closed}"));
        }
        let message = error.to_string();
        let ConnectError::Refused { reason_code, .. } = error else {
            return Failure::Error(message);
        };
        let code = match version {
            Version::V5 => reason_code as u8,
            Version::V3_1 | Version::V3_1_1 => reason_code.connect_return_code(),
        };
        Failure::Refused { message, code }
    })
}

fn client_id(args: &ConnectionArgs) -> String {
    match (&args.id, &args.id_prefix) {
        (Some(id), _) => id.clone(),
        (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
        // 3.1 has no empty Client Identifier.
        (None, None) if args.protocol_version == Version::V3_1 => {
            format!("avocet-{}", std::process::id())
        }
        (None, None) => String::new(),
    }
}

fn authentication(properties: &Properties) -> Result<Option<Authentication>, Failure> {
    let connect = &properties.connect;
    let auth = &properties.auth;
    let Some(method) = connect.authentication_method.clone() else {
        let given = [
            (
                connect.authentication_data.is_some(),
                "-D connect authentication-data",
            ),
            (
                auth.authentication_data.is_some(),
                "-D auth authentication-data",
            ),
        ];
        return match given.iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(Failure::new(format!(
                "{what} needs -D connect authentication-method"
            ))),
            None => Ok(None),
        };
    };
    if auth
        .authentication_method
        .as_ref()
        .is_some_and(|other| *other != method)
    {
        return Err(Failure::new(
            "-D auth authentication-method must be that of -D connect [MQTT5-4.12.0-5]",
        ));
    }
    let data = connect.authentication_data.clone().map(Into::into);
    Ok(Some(Authentication { method, data }))
}

fn will(args: &ConnectionArgs, properties: &Properties) -> Result<Option<WillMessage>, Failure> {
    let Some(topic) = &args.will_topic else {
        let of_will = &properties.will;
        if *of_will != property::MessageProperties::default()
            || properties.will_delay_interval.is_some()
        {
            return Err(Failure::new("-D will needs --will-topic"));
        }
        return Ok(None);
    };
    let topic = topic_name("--will-topic", topic)?;
    let payload = args.will_payload.as_deref().unwrap_or_default();
    let message = message(topic, &properties.will, payload.as_bytes(), None)?
        .with_qos(args.will_qos)
        .with_retain(args.will_retain);
    Ok(Some(WillMessage {
        will_delay_interval: properties.will_delay_interval.unwrap_or(0),
        message_expiry_interval: properties.will.message_expiry_interval,
        ..WillMessage::new(message)
    }))
}

/// The Topic Name that an option gave.
///
/// # Errors
///
/// What is wrong with it, with the name of the option.
pub(crate) fn topic_name<'a>(option: &str, text: &'a str) -> Result<TopicName<'a>, Failure> {
    TopicName::new(text).map_err(|error| Failure::new(format!("{option} {text:?}: {error}")))
}

/// A message with the properties of `-D publish` or `-D will`.
///
/// # Errors
///
/// A property that cannot be sent.
pub(crate) fn message(
    topic_name: TopicName<'_>,
    properties: &property::MessageProperties,
    payload: &[u8],
    now: Option<UnixTime>,
) -> Result<Message, Failure> {
    let response_topic = properties
        .response_topic
        .as_deref()
        .map(|text| self::topic_name("-D response-topic", text))
        .transpose()?;
    let user_properties: Vec<_> = properties
        .user_properties
        .iter()
        .map(|(name, value)| UserProperty { name, value })
        .collect();
    let parts = MessagePropertiesParts {
        payload_format: properties.payload_is_utf8.map(|is_utf8| {
            if is_utf8 {
                PayloadFormat::Utf8
            } else {
                PayloadFormat::UnspecifiedBytes
            }
        }),
        content_type: properties.content_type.as_deref(),
        response_topic,
        correlation_data: properties.correlation_data.as_deref(),
        user_properties: &user_properties,
    };
    let message = Message::with_properties(topic_name, &MessageProperties::new(parts), payload)
        .map_err(|error| Failure::new(format!("-D: {error}")))?;
    Ok(match now {
        Some(now) => message.with_expiry(properties.message_expiry_interval, now),
        None => message,
    })
}
