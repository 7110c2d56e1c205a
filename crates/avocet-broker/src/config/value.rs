//! What a setting may hold, and how it is read and shown.

use std::fmt::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(bool),
    Integer(u64),
    Text(String),
    Duration(Duration),
    Bytes(u64),
    Addresses(Vec<SocketAddr>),
}

/// The inner value of the variant that the setting's [`Kind`] reads; another variant is a mistake in
/// the table of settings, which its tests would find.
impl Value {
    pub(crate) fn flag(self) -> bool {
        self == Self::Flag(true)
    }

    pub(crate) fn integer(self) -> u64 {
        match self {
            Self::Integer(integer) | Self::Bytes(integer) => integer,
            Self::Flag(_) | Self::Text(_) | Self::Duration(_) | Self::Addresses(_) => 0,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Flag(_)
            | Self::Integer(_)
            | Self::Duration(_)
            | Self::Bytes(_)
            | Self::Addresses(_) => String::new(),
        }
    }

    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Duration(duration) => duration,
            Self::Flag(_)
            | Self::Integer(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Addresses(_) => Duration::ZERO,
        }
    }

    pub(crate) fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Addresses(addresses) => addresses,
            Self::Flag(_)
            | Self::Integer(_)
            | Self::Text(_)
            | Self::Duration(_)
            | Self::Bytes(_) => Vec::new(),
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
    Addresses,
}

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    Flag(bool),
    Integer(i64),
    Text(String),
    Array(Vec<Self>),
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
                Raw::Integer(_) | Raw::Text(_) | Raw::Array(_) | Raw::Other => None,
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
            Self::Addresses => {
                let texts: Vec<&str> = match raw {
                    Raw::Array(items) => items.iter().map(Raw::text).collect::<Option<_>>()?,
                    Raw::Text(text) => vec![text],
                    Raw::Untyped(text) => text.split(',').map(str::trim).collect(),
                    Raw::Flag(_) | Raw::Integer(_) | Raw::Other => return None,
                };
                if texts.is_empty() {
                    return None;
                }
                let addresses = texts
                    .into_iter()
                    .map(parse_address)
                    .collect::<Option<_>>()?;
                Some(Value::Addresses(addresses))
            }
        }
    }
}

impl Raw {
    fn integer(&self) -> Option<u64> {
        match self {
            Self::Integer(integer) => u64::try_from(*integer).ok(),
            Self::Untyped(text) => text.parse().ok(),
            Self::Flag(_) | Self::Text(_) | Self::Array(_) | Self::Other => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            Self::Flag(_) | Self::Integer(_) | Self::Array(_) | Self::Other => None,
        }
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
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
    parse_unit(text, &DURATION_UNITS).map(Duration::from_millis)
}

fn parse_bytes(text: &str) -> Option<u64> {
    parse_unit(text, &BYTE_UNITS)
}

/// A host name stands for its first IPv4 address, or its first address when it has none.
fn parse_address(text: &str) -> Option<SocketAddr> {
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

fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (number, unit) = in_units(millis, &DURATION_UNITS);
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
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
                write!(f, "{texts:?}")
            }
        }
    }
}

/// A basic string of TOML, on one line.
fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            Self::Text { allowed, .. } => f.write_str(allowed),
            Self::Duration { min, max } => write!(
                f,
                "a time with its unit (ms, s, m, h, d) from {:?} to {:?}",
                show_duration(*min),
                show_duration(*max)
            ),
            Self::Bytes { min, max } => write!(
                f,
                "a number of bytes, or a text with a unit (KiB, MiB, GiB, TiB), from {:?} to {:?}",
                show_bytes(*min),
                show_bytes(*max)
            ),
            Self::Addresses => f.write_str(
                "HOST:PORT or a list of them, as in \"127.0.0.1:1883\" (port 0: any free one)",
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
    fn addresses_come_one_or_many() {
        let read = |raw: Raw| Kind::Addresses.read(&raw).map(|value| value.to_string());
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
