//! How a received message is printed: payload alone, with its topic, by a format, or as JSON.

use std::io::{self, Write};
use std::str::FromStr;

use avocet_codec::{MessageProperties, QoS};
use serde::Serialize;
use serde_json::Value;

use crate::date::{CONVERSIONS, Date};

/// A message as it is printed.
#[derive(Clone, Debug)]
pub(crate) struct Printed<'a> {
    pub(crate) topic_name: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) packet_id: Option<u16>,
    pub(crate) message_expiry_interval: Option<u32>,
    pub(crate) properties: MessageProperties<'a>,
    pub(crate) subscription_ids: &'a [u32],
    pub(crate) received: Date,
}

/// A format of `-F`, read once and rendered for each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Date(char),
    Field { field: Field, padding: Padding },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ContentType,
    CorrelationData,
    MessageExpiryInterval,
    PayloadFormat,
    Iso8601,
    JsonString,
    JsonValue,
    Length,
    PacketId,
    Payload,
    UserProperties,
    Qos,
    ResponseTopic,
    Retain,
    SubscriptionIds,
    TopicName,
    Unix,
    HexLower,
    HexUpper,
}

/// `%-010.5t`: to the left, filled with zeros, at least 10 bytes wide, at most 5 bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Padding {
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// A wider field than this is a slip of the finger.
const WIDTH_MAX: usize = 10_000;

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let part = match char {
                '\\' => {
                    let escaped = chars.next().ok_or("a single \\ stands at the end")?;
                    literal.push(escape(escaped)?);
                    continue;
                }
                '%' if chars.next_if_eq(&'%').is_some() => {
                    literal.push(b'%');
                    continue;
                }
                '@' if chars.next_if_eq(&'@').is_some() => {
                    literal.push(b'@');
                    continue;
                }
                '@' => {
                    let conversion = chars.next().ok_or("a single @ stands at the end")?;
                    if !CONVERSIONS.contains(conversion) {
                        return Err(format!(
                            "@{conversion} is unknown; allowed after @ are {CONVERSIONS}"
                        ));
                    }
                    Part::Date(conversion)
                }
                '%' => {
                    let mut padding = Padding::default();
                    while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0')) {
                        padding.left |= flag == '-';
                        padding.zero |= flag == '0';
                    }
                    padding.width = number(&mut chars)?.unwrap_or(0);
                    if chars.next_if_eq(&'.').is_some() {
                        padding.precision = Some(number(&mut chars)?.unwrap_or(0));
                    }
                    let letter = chars.next().ok_or("a single % stands at the end")?;
                    Part::Field {
                        field: field(letter)?,
                        padding,
                    }
                }
                _ => {
                    literal.extend(char.encode_utf8(&mut [0; 4]).bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

fn escape(escaped: char) -> Result<u8, String> {
    Ok(match escaped {
        '\\' => b'\\',
        '0' => 0,
        'a' => 0x07,
        'e' => 0x1b,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        _ => {
            return Err(format!(
                "\\{escaped} is unknown; allowed after \\ are 0aenrtv\\"
            ));
        }
    })
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let value = number.unwrap_or(0) * 10 + digit as usize;
        if value > WIDTH_MAX {
            return Err(format!("a width is at most {WIDTH_MAX}"));
        }
        number = Some(value);
    }
    Ok(number)
}

fn field(letter: char) -> Result<Field, String> {
    Ok(match letter {
        'C' => Field::ContentType,
        'D' => Field::CorrelationData,
        'E' => Field::MessageExpiryInterval,
        'F' => Field::PayloadFormat,
        'I' => Field::Iso8601,
        'j' => Field::JsonString,
        'J' => Field::JsonValue,
        'l' => Field::Length,
        'm' => Field::PacketId,
        'p' => Field::Payload,
        'P' => Field::UserProperties,
        'q' => Field::Qos,
        'R' => Field::ResponseTopic,
        'r' => Field::Retain,
        'S' => Field::SubscriptionIds,
        't' => Field::TopicName,
        'U' => Field::Unix,
        'x' => Field::HexLower,
        'X' => Field::HexUpper,
        _ => {
            return Err(format!(
                "%{letter} is unknown; allowed after % are C D E F I j J l m p P q R r S t U x X %"
            ));
        }
    })
}

impl Format {
    /// The payload and a line end.
    pub(crate) fn payload(line_end: bool) -> Self {
        Self::fields(&[Field::Payload], line_end)
    }

    /// Topic Name, a blank, the payload and a line end.
    pub(crate) fn verbose(line_end: bool) -> Self {
        Self::fields(&[Field::TopicName, Field::Payload], line_end)
    }

    /// One line of JSON, the payload as a string.
    pub(crate) fn json() -> Self {
        Self::fields(&[Field::JsonString], true)
    }

    fn fields(fields: &[Field], line_end: bool) -> Self {
        let mut parts = Vec::new();
        for &field in fields {
            if !parts.is_empty() {
                parts.push(Part::Text(b" ".to_vec()));
            }
            parts.push(Part::Field {
                field,
                padding: Padding::default(),
            });
        }
        if line_end {
            parts.push(Part::Text(b"\n".to_vec()));
        }
        Self { parts }
    }

    /// Ends each message with a line end.
    pub(crate) fn with_line_end(mut self) -> Self {
        self.parts.push(Part::Text(b"\n".to_vec()));
        self
    }

    /// Appends the message to `out`.
    pub(crate) fn render(&self, message: &Printed<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Date(conversion) => {
                    let mut text = String::new();
                    message.received.convert(*conversion, &mut text);
                    out.extend_from_slice(text.as_bytes());
                }
                Part::Field { field, padding } if *padding == Padding::default() => {
                    field.render(message, out);
                }
                Part::Field { field, padding } => {
                    let mut content = Vec::new();
                    field.render(message, &mut content);
                    padding.apply(&content, out);
                }
            }
        }
    }
}

impl Padding {
    fn apply(self, content: &[u8], out: &mut Vec<u8>) {
        let shown = self.precision.unwrap_or(usize::MAX).min(content.len());
        let content = content.get(..shown).unwrap_or(content);
        let missing = self.width.saturating_sub(content.len());
        let fill = if self.zero && !self.left { b'0' } else { b' ' };
        let (before, after) = if self.left {
            (0, missing)
        } else {
            (missing, 0)
        };
        out.extend(std::iter::repeat_n(fill, before));
        out.extend_from_slice(content);
        out.extend(std::iter::repeat_n(fill, after));
    }
}

impl Field {
    fn render(self, message: &Printed<'_>, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = self.write(message, out);
    }

    fn write(self, message: &Printed<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let properties = &message.properties;
        match self {
            Self::ContentType => write!(out, "{}", properties.content_type().unwrap_or_default()),
            Self::CorrelationData => {
                out.write_all(properties.correlation_data().unwrap_or_default())
            }
            Self::MessageExpiryInterval => match message.message_expiry_interval {
                Some(seconds) => write!(out, "{seconds}"),
                None => Ok(()),
            },
            Self::PayloadFormat => match properties.payload_format() {
                Some(format) => write!(out, "{}", format as u8),
                None => Ok(()),
            },
            Self::Iso8601 => write!(out, "{}", message.received.iso_8601()),
            Self::JsonString => Ok(serde_json::to_writer(
                out,
                &Json::of(message, JsonPayload::text),
            )?),
            Self::JsonValue => Ok(serde_json::to_writer(
                out,
                &Json::of(message, JsonPayload::value),
            )?),
            Self::Length => write!(out, "{}", message.payload.len()),
            Self::PacketId => match message.packet_id {
                Some(id) => write!(out, "{id}"),
                None => Ok(()),
            },
            Self::Payload => out.write_all(message.payload),
            Self::UserProperties => {
                for (position, property) in properties.user_properties().iter().enumerate() {
                    let blank = if position == 0 { "" } else { " " };
                    write!(out, "{blank}{}:{}", property.name, property.value)?;
                }
                Ok(())
            }
            Self::Qos => write!(out, "{}", message.qos as u8),
            Self::ResponseTopic => match properties.response_topic() {
                Some(topic_name) => write!(out, "{topic_name}"),
                None => Ok(()),
            },
            Self::Retain => write!(out, "{}", u8::from(message.retain)),
            Self::SubscriptionIds => {
                for (position, id) in message.subscription_ids.iter().enumerate() {
                    write!(out, "{}{id}", if position == 0 { "" } else { " " })?;
                }
                Ok(())
            }
            Self::TopicName => write!(out, "{}", message.topic_name),
            Self::Unix => write!(out, "{}", message.received.unix()),
            Self::HexLower => message
                .payload
                .iter()
                .try_for_each(|b| write!(out, "{b:02x}")),
            Self::HexUpper => message
                .payload
                .iter()
                .try_for_each(|b| write!(out, "{b:02X}")),
        }
    }
}

/// A message as mosquitto_sub's JSON shows it.
#[derive(Serialize)]
struct Json<'a> {
    tst: String,
    topic: &'a str,
    qos: u8,
    retain: u8,
    payloadlen: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    mid: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<JsonProperties<'a>>,
    #[serde(flatten)]
    payload: JsonPayload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonProperties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_format_indicator: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expiry_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    subscription_identifier: &'a [u32],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<Value>,
}

/// A payload that is not UTF-8 is given in hexadecimal, since JSON has no bytes.
#[derive(Serialize)]
enum JsonPayload<'a> {
    #[serde(rename = "payload")]
    Text(&'a str),
    #[serde(rename = "payload")]
    Value(Value),
    #[serde(rename = "payloadhex")]
    Hex(String),
}

impl<'a> JsonPayload<'a> {
    fn text(payload: &'a [u8]) -> Self {
        str::from_utf8(payload).map_or_else(|_| Self::Hex(hex(payload)), Self::Text)
    }

    /// The payload itself if it is JSON, else what [`Self::text`] makes of it.
    fn value(payload: &'a [u8]) -> Self {
        // Read and written anew, so that a payload over several lines still gives one line.
        serde_json::from_slice::<Value>(payload).map_or_else(|_| Self::text(payload), Self::Value)
    }
}

impl<'a> Json<'a> {
    fn of(message: &'a Printed<'a>, payload: fn(&'a [u8]) -> JsonPayload<'a>) -> Self {
        let properties = &message.properties;
        let json = JsonProperties {
            payload_format_indicator: properties.payload_format().map(|format| format as u8),
            message_expiry_interval: message.message_expiry_interval,
            content_type: properties.content_type(),
            response_topic: properties.response_topic().map(|name| name.to_string()),
            correlation_data: properties.correlation_data().map(text_or_hex),
            subscription_identifier: message.subscription_ids,
            user_properties: properties
                .user_properties()
                .iter()
                .map(|property| Value::from_iter([(property.name, property.value)]))
                .collect(),
        };
        let empty = properties.is_empty()
            && message.subscription_ids.is_empty()
            && message.message_expiry_interval.is_none();
        Self {
            tst: message.received.iso_8601_with_microseconds(),
            topic: message.topic_name,
            qos: message.qos as u8,
            retain: message.retain.into(),
            payloadlen: message.payload.len(),
            mid: message.packet_id,
            properties: (!empty).then_some(json),
            payload: payload(message.payload),
        }
    }
}

/// The bytes as text, or in hexadecimal if they are not UTF-8.
fn text_or_hex(bytes: &[u8]) -> String {
    str::from_utf8(bytes).map_or_else(|_| hex(bytes), str::to_owned)
}

/// The bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
