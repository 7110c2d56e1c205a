//! What a setting may hold, and how it is read and shown.

use std::fmt::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::listener::{self, Listener};
use super::{Durability, settings};

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(bool),
    Integer(u64),
    Text(String),
    Duration(Duration),
    Bytes(u64),
    Listeners(Vec<Listener>),
    Levels(Vec<(String, Durability)>),
    Texts(Vec<String>),
    /// A part of a listener, which is read with the whole.
    Part,
}

/// The inner value of the variant that the setting's [`Kind`] reads; another variant is a mistake in
/// the table of settings, which its tests would find.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other variant is the same mistake"
)]
impl Value {
    pub(crate) fn flag(self) -> bool {
        self == Self::Flag(true)
    }

    pub(crate) fn integer(self) -> u64 {
        match self {
            Self::Integer(integer) | Self::Bytes(integer) => integer,
            _ => 0,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            _ => String::new(),
        }
    }

    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Duration(duration) => duration,
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn listeners(self) -> Vec<Listener> {
        match self {
            Self::Listeners(listeners) => listeners,
            _ => Vec::new(),
        }
    }

    pub(crate) fn texts(self) -> Vec<String> {
        match self {
            Self::Texts(texts) => texts,
            _ => Vec::new(),
        }
    }

    pub(crate) fn levels(self) -> Vec<(String, Durability)> {
        match self {
            Self::Levels(levels) => levels,
            _ => Vec::new(),
        }
    }
}

/// What a setting allows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Flag,
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    Text {
        allowed: &'static str,
        is_allowed: fn(&str) -> bool,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    Bytes {
        min: u64,
        max: u64,
    },
    Listeners,
    /// The `address` of a listener.
    Address,
    /// Its `tls`.
    Tls,
    /// Its `websocket`.
    WebSocket,
    /// One text, or a list.
    Texts {
        allowed: &'static str,
        is_allowed: fn(&str) -> bool,
    },
    /// A level by the beginning of the Topic Name.
    Levels,
}

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    Flag(bool),
    Integer(i64),
    Text(String),
    Array(Vec<Self>),
    Table(Vec<(String, Self)>),
    /// Of a type no setting has.
    Other,
    /// From the environment or a flag, where everything is text.
    Untyped(String),
}

impl Kind {
    /// Reads a value; `None` when it is not allowed.
    pub(crate) fn read(self, raw: &Raw) -> Option<Value> {
        match self {
            Self::Flag => match raw {
                Raw::Flag(flag) => Some(Value::Flag(*flag)),
                Raw::Untyped(text) => text.parse().ok().map(Value::Flag),
                Raw::Integer(_) | Raw::Text(_) | Raw::Array(_) | Raw::Table(_) | Raw::Other => None,
            },
            Self::Integer { min, max } => {
                let integer = raw.integer()?;
                (min..=max)
                    .contains(&integer)
                    .then_some(Value::Integer(integer))
            }
            Self::Choice(allowed) => {
                let text = raw.text()?;
                allowed
                    .contains(&text)
                    .then(|| Value::Text(text.to_owned()))
            }
            Self::Text { is_allowed, .. } => {
                let text = raw.text()?;
                is_allowed(text).then(|| Value::Text(text.to_owned()))
            }
            Self::Duration { min, max } => {
                let duration = parse_duration(raw.text()?)?;
                (min..=max)
                    .contains(&duration)
                    .then_some(Value::Duration(duration))
            }
            Self::Bytes { min, max } => {
                let bytes = raw.integer().or_else(|| parse_bytes(raw.text()?))?;
                (min..=max).contains(&bytes).then_some(Value::Bytes(bytes))
            }
            Self::Address => {
                let listener = raw.text()?.parse().ok()?;
                Some(Value::Listeners(vec![listener]))
            }
            Self::Tls => listener::read_tls(raw).map(|_| Value::Part),
            Self::WebSocket => listener::read_websocket(raw).map(|_| Value::Part),
            Self::Texts { is_allowed, .. } => {
                let text = |raw: &Raw| {
                    let text = raw.text().filter(|text| is_allowed(text))?;
                    Some(text.to_owned())
                };
                let texts: Option<Vec<_>> = match raw {
                    Raw::Array(items) => items.iter().map(text).collect(),
                    Raw::Text(_)
                    | Raw::Untyped(_)
                    | Raw::Flag(_)
                    | Raw::Integer(_)
                    | Raw::Table(_)
                    | Raw::Other => text(raw).map(|text| vec![text]),
                };
                texts.map(Value::Texts)
            }
            Self::Listeners => {
                let listeners: Option<Vec<_>> = match raw {
                    Raw::Array(items) => items.iter().map(listener::read).collect(),
                    Raw::Untyped(text) => text
                        .split(',')
                        .map(|text| text.trim().parse().ok())
                        .collect(),
                    Raw::Text(_) | Raw::Table(_) => listener::read(raw).map(|read| vec![read]),
                    Raw::Flag(_) | Raw::Integer(_) | Raw::Other => None,
                };
                let listeners = listeners.filter(|listeners| !listeners.is_empty());
                listeners.map(Value::Listeners)
            }
            Self::Levels => {
                let levels: Option<Vec<_>> = match raw {
                    Raw::Table(items) => items
                        .iter()
                        .map(|(prefix, level)| topic_level(prefix, level.text()?))
                        .collect(),
                    Raw::Untyped(text) if text.is_empty() => Some(Vec::new()),
                    Raw::Untyped(text) => text
                        .split(',')
                        .map(|item| item.rsplit_once('='))
                        .map(|item| item.and_then(|(prefix, level)| topic_level(prefix, level)))
                        .collect(),
                    Raw::Flag(_) | Raw::Integer(_) | Raw::Text(_) | Raw::Array(_) | Raw::Other => {
                        None
                    }
                };
                levels.map(Value::Levels)
            }
        }
    }

    /// What this name may hold in a table that is the value, or one of the values; `None` when the
    /// name is not known.
    pub(crate) fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::Listeners => listener::field(name),
            Self::Tls => listener::tls_field(name),
            Self::WebSocket => listener::websocket_field(name),
            Self::Levels => Some(settings::LEVEL),
            Self::Flag
            | Self::Integer { .. }
            | Self::Choice(_)
            | Self::Text { .. }
            | Self::Duration { .. }
            | Self::Bytes { .. }
            | Self::Texts { .. }
            | Self::Address => None,
        }
    }
}

pub(crate) fn level(name: &str) -> Option<Durability> {
    let mut levels = settings::DURABILITIES.iter();
    levels
        .find(|(known, _)| *known == name)
        .map(|(_, level)| *level)
}

fn topic_level(prefix: &str, name: &str) -> Option<(String, Durability)> {
    let is_prefix = !prefix.is_empty() && !prefix.contains(['+', '#', '\0']);
    Some((prefix.to_owned(), level(name)?)).filter(|_| is_prefix)
}

impl Raw {
    /// What a table has under a name.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        let Self::Table(fields) = self else {
            return None;
        };
        let found = fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    }

    fn integer(&self) -> Option<u64> {
        match self {
            Self::Integer(integer) => u64::try_from(*integer).ok(),
            Self::Untyped(text) => text.parse().ok(),
            Self::Flag(_) | Self::Text(_) | Self::Array(_) | Self::Table(_) | Self::Other => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            Self::Flag(_) | Self::Integer(_) | Self::Array(_) | Self::Table(_) | Self::Other => {
                None
            }
        }
    }
}

const DURATION_UNITS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

const BYTE_UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

fn parse_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn parse_duration(text: &str) -> Option<Duration> {
    parse_unit(text, &DURATION_UNITS).map(Duration::from_micros)
}

fn parse_bytes(text: &str) -> Option<u64> {
    parse_unit(text, &BYTE_UNITS)
}

/// A host name stands for its first IPv4 address, or its first address when it has none.
pub(crate) fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    if host.is_empty() {
        return None;
    }
    let found: Vec<SocketAddr> = text.to_socket_addrs().ok()?.collect();
    found
        .iter()
        .find(|address| address.is_ipv4())
        .or_else(|| found.first())
        .copied()
}

/// The number in the largest unit that divides it.
fn in_units(number: u64, units: &[(&'static str, u64)]) -> (u64, &'static str) {
    let divides = |(_, factor): &&(&str, u64)| number != 0 && number.is_multiple_of(*factor);
    let (name, factor) = units
        .iter()
        .rev()
        .find(divides)
        .or_else(|| units.first())
        .copied()
        .unwrap_or(("", 1));
    (number / factor, name)
}

pub(crate) fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let (number, unit) = in_units(micros, &DURATION_UNITS);
    format!("{number}{unit}")
}

fn show_bytes(bytes: u64) -> String {
    let (number, unit) = in_units(bytes, &BYTE_UNITS);
    format!("{number} {unit}")
}

/// As it is written in a TOML file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Text(text) => write_text(text, f),
            Self::Duration(duration) => write!(f, "{:?}", show_duration(*duration)),
            Self::Bytes(bytes) => write!(f, "{:?}", show_bytes(*bytes)),
            Self::Listeners(listeners) => {
                f.write_char('[')?;
                for (index, listener) in listeners.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    listener::show(listener, f)?;
                }
                f.write_char(']')
            }
            // Shown within its listener.
            Self::Texts(_) | Self::Part => Ok(()),
            Self::Levels(levels) if levels.is_empty() => f.write_str("{}"),
            Self::Levels(levels) => {
                f.write_str("{ ")?;
                for (index, (prefix, level)) in levels.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    write_text(prefix, f)?;
                    write!(f, " = {:?}", settings::level_name(*level))?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// A basic string of TOML, on one line.
pub(crate) fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            _ if character.is_control() => write!(f, "\\u{:04x}", u32::from(character))?,
            _ => f.write_char(character)?,
        }
    }
    f.write_char('"')
}

/// What is allowed, in words that follow "must be".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Choice(allowed) => {
                let quoted: Vec<String> = allowed.iter().map(|name| format!("{name:?}")).collect();
                match quoted.split_last() {
                    Some((last, [])) => f.write_str(last),
                    Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
                    None => Ok(()),
                }
            }
            Self::Text { allowed, .. } | Self::Texts { allowed, .. } => f.write_str(allowed),
            Self::Duration { min, max } => write!(
                f,
                "a time with its unit (us, ms, s, m, h, d) from {:?} to {:?}",
                show_duration(*min),
                show_duration(*max)
            ),
            Self::Bytes { min, max } => write!(
                f,
                "a number of bytes, or a text with a unit (KiB, MiB, GiB, TiB), from {:?} to {:?}",
                show_bytes(*min),
                show_bytes(*max)
            ),
            Self::Listeners => f.write_str(
                "HOST:PORT as in \"127.0.0.1:1883\" (port 0: any free one), unix:PATH, a table with \
                 it as `address`, or a list of these",
            ),
            Self::Address => f.write_str(
                "HOST:PORT as in \"127.0.0.1:1883\" (port 0: any free one), or unix:PATH",
            ),
            Self::Tls => f.write_str(
                "a table with a `certificate` and its `key`, or as many of the one as of the other",
            ),
            Self::WebSocket => f.write_str("true, false or a table"),
            Self::Levels => write!(
                f,
                "a table of beginnings of Topic Names, without + and #, each with {}",
                settings::LEVEL
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_they_are_read() {
        let durations = Kind::Duration {
            min: Duration::ZERO,
            max: Duration::MAX,
        };
        for text in ["0s", "1ms", "1500ms", "90s", "2m", "1h", "36h", "7d"] {
            let value = durations.read(&Raw::Text(text.to_owned())).unwrap();
            assert_eq!(value.to_string(), format!("{text:?}"));
        }
        let bytes = Kind::Bytes {
            min: 0,
            max: u64::MAX,
        };
        for text in ["0 B", "1 B", "1025 B", "64 KiB", "3 MiB", "2 GiB"] {
            let value = bytes.read(&Raw::Text(text.to_owned())).unwrap();
            assert_eq!(value.to_string(), format!("{text:?}"));
        }
        assert_eq!(bytes.read(&Raw::Integer(4096)), Some(Value::Bytes(4096)));
    }

    #[test]
    fn texts_are_shown_as_toml_reads_them() {
        for text in [
            "",
            "a b",
            "\"'\\",
            "\n\t\r",
            "\u{0}\u{1f}\u{7f}\u{85}\u{e9}",
        ] {
            let shown = format!("key = {}", Value::Text(text.to_owned()));
            let table: toml::Table = shown.parse().unwrap();
            assert_eq!(table["key"].as_str(), Some(text), "{shown}");
        }
    }

    #[test]
    fn units_are_demanded_and_checked() {
        for text in [
            "",
            "10",
            "s",
            "10 x",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn tables_are_shown_as_they_are_read() {
        let text = |text: &str| Raw::Text(text.to_owned());
        let table = Raw::Table(vec![
            ("address".to_owned(), text("[::1]:1")),
            ("durability".to_owned(), text("os")),
        ]);
        let value = Kind::Listeners.read(&Raw::Array(vec![text("[::1]:2"), table]));
        let shown = r#"["[::1]:2", { address = "[::1]:1", durability = "os" }]"#;
        assert_eq!(value.unwrap().to_string(), shown);
        let value = Kind::Levels.read(&Raw::Untyped("a/=fsync,b=c/=memory".to_owned()));
        let shown = r#"{ "a/" = "fsync", "b=c/" = "memory" }"#;
        assert_eq!(value.unwrap().to_string(), shown);
        for refused in ["a/", "a/=disk", "a/#=os", "=os", "a=os,"] {
            assert_eq!(Kind::Levels.read(&Raw::Untyped(refused.to_owned())), None);
        }
    }

    #[test]
    fn addresses_come_one_or_many() {
        let read = |raw: Raw| Kind::Listeners.read(&raw).map(|value| value.to_string());
        let text = |text: &str| Raw::Text(text.to_owned());
        let untyped = |text: &str| Raw::Untyped(text.to_owned());
        assert_eq!(read(text("127.0.0.1:0")).unwrap(), r#"["127.0.0.1:0"]"#);
        assert_eq!(
            read(untyped("127.0.0.1:1, [::1]:2")).unwrap(),
            r#"["127.0.0.1:1", "[::1]:2"]"#
        );
        assert_eq!(
            read(Raw::Array(vec![text("[::]:1")])).unwrap(),
            r#"["[::]:1"]"#
        );
        assert_eq!(read(untyped("localhost:9")).unwrap(), r#"["127.0.0.1:9"]"#);
        for refused in [
            "",
            "1883",
            ":1883",
            "localhost",
            "127.0.0.1:99999",
            "127.0.0.1:1,",
        ] {
            assert_eq!(read(untyped(refused)), None, "{refused}");
        }
        assert_eq!(read(Raw::Array(Vec::new())), None);
    }
}
