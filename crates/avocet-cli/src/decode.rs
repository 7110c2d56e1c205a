//! `avocet decode`: the Control Packets in a captured byte stream.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::Path;

use avocet_codec::{DecodeError, PACKET_SIZE_MAX, Packet, ReasonCode, Version, frame_len};
use serde_json::{Map, Value};

use crate::args::DecodeArgs;
use crate::exit::Failure;
use crate::format::hex;

pub(crate) fn run(args: &DecodeArgs) -> Result<(), Failure> {
    print(args, &read(args)?, &mut io::stdout().lock())
}

/// Writes a line for each packet in `bytes`.
///
/// # Errors
///
/// Where and why decoding stopped before the end.
pub(crate) fn print(args: &DecodeArgs, bytes: &[u8], out: &mut impl Write) -> Result<(), Failure> {
    let version = match (args.protocol_version, guess(bytes)) {
        (Some(version), _) | (None, Guess::Connect(version)) => version,
        (None, Guess::Decodes(version)) => {
            eprintln!("avocet: there is no CONNECT; taken as {version}, -V says otherwise");
            version
        }
    };
    let result = decode(bytes, version, |packet| {
        let mut line = if args.json {
            packet.json()
        } else {
            packet.text()
        };
        line.push('\n');
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::output)
    });
    match result {
        Ok(()) => Ok(()),
        Err(Stop::Output(failure)) => Err(failure),
        Err(Stop::Packet { offset, error }) => {
            Err(Failure::new(format!("at byte {offset}: {error}")))
        }
        Err(Stop::Incomplete {
            offset,
            there,
            whole,
        }) => Err(Failure::new(match whole {
            Some(whole) => {
                format!("at byte {offset}: the packet takes {whole} bytes, {there} are there")
            }
            None => format!("at byte {offset}: the input ends within the header of a packet"),
        })),
    }
}

pub(crate) fn read(args: &DecodeArgs) -> Result<Vec<u8>, Failure> {
    if !args.hex.is_empty() {
        let text = args.hex.concat();
        return from_hex(text.as_bytes())
            .ok_or_else(|| Failure::new(format!("--hex {text}: not pairs of hexadecimal digits")));
    }
    let bytes = match args.file.as_deref().filter(|file| *file != Path::new("-")) {
        Some(file) => std::fs::read(file)
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?,
        None => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
            bytes
        }
    };
    match from_hex(&bytes).filter(|_| !args.binary) {
        Some(decoded) => Ok(decoded),
        None => Ok(bytes),
    }
}

/// Pairs of hexadecimal digits, with blanks, line ends, colons and commas between bytes, and with
/// or without `0x` before them; none if it is anything else.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?;
    let mut bytes = Vec::new();
    for word in text.split(|c: char| c.is_ascii_whitespace() || c == ':' || c == ',') {
        let digits = word.strip_prefix("0x").unwrap_or(word).as_bytes();
        for pair in digits.chunks(2) {
            let [high, low] = pair else { return None };
            let digit = |digit: u8| char::from(digit).to_digit(16);
            bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        }
    }
    Some(bytes)
}

/// Which version the bytes are in.
enum Guess {
    /// The first packet is a CONNECT, which says it.
    Connect(Version),
    /// The newest in which all packets are valid; 5.0 if there is none.
    Decodes(Version),
}

fn guess(bytes: &[u8]) -> Guess {
    if let Ok(Some(Packet::Connect(connect))) =
        Packet::decode_next(&mut { bytes }, Version::V5, PACKET_SIZE_MAX)
    {
        return Guess::Connect(connect.version);
    }
    let valid = |version: &Version| decode(bytes, *version, |_| Ok(())).is_ok();
    let newest = [Version::V5, Version::V3_1_1, Version::V3_1]
        .into_iter()
        .find(valid);
    Guess::Decodes(newest.unwrap_or(Version::V5))
}

/// Why decoding stopped before the end.
enum Stop {
    Output(Failure),
    Packet {
        offset: usize,
        error: DecodeError,
    },
    Incomplete {
        offset: usize,
        there: usize,
        whole: Option<usize>,
    },
}

/// Hands over one packet after the other; a CONNECT sets the version of those behind it.
fn decode(
    bytes: &[u8],
    mut version: Version,
    mut each: impl FnMut(&Decoded<'_>) -> Result<(), Failure>,
) -> Result<(), Stop> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let there = rest.len();
        let offset = bytes.len() - there;
        let at = |error| Stop::Packet { offset, error };
        let packet = Packet::decode_next(&mut rest, version, PACKET_SIZE_MAX).map_err(at)?;
        let Some(packet) = packet else {
            return Err(Stop::Incomplete {
                offset,
                there,
                whole: frame_len(rest, PACKET_SIZE_MAX).map_err(at)?,
            });
        };
        if let Packet::Connect(connect) = &packet {
            version = connect.version;
        }
        let length = there - rest.len();
        each(&Decoded {
            offset,
            length,
            version,
            packet,
        })
        .map_err(Stop::Output)?;
    }
    Ok(())
}

struct Decoded<'a> {
    offset: usize,
    length: usize,
    version: Version,
    packet: Packet<'a>,
}

impl Decoded<'_> {
    fn json(&self) -> String {
        let mut line = Map::new();
        line.insert("offset".into(), self.offset.into());
        line.insert("length".into(), self.length.into());
        line.insert("version".into(), self.version.to_string().into());
        line.insert("type".into(), self.packet.packet_type().name().into());
        line.insert("packet".into(), Value::Object(self.fields()));
        Value::Object(line).to_string()
    }

    /// Where it is, how long, what, and each field that says something.
    fn text(&self) -> String {
        let name = self.packet.packet_type().name();
        let mut line = format!("{:6} {:6}  {name:<11}", self.offset, self.length);
        append(&mut line, &self.fields());
        line.truncate(line.trim_end().len());
        line
    }

    /// The fields as people read them: bytes as text or hexadecimal, and no passwords.
    fn fields(&self) -> Map<String, Value> {
        // Packets of values that JSON has are always serialised.
        let value = serde_json::to_value(self.packet).unwrap_or_default();
        let Value::Object(packet) = value else {
            return Map::new();
        };
        match packet.into_iter().next() {
            Some((_, Value::Object(fields))) => readable(fields),
            _ => Map::new(),
        }
    }
}

fn readable(fields: Map<String, Value>) -> Map<String, Value> {
    let mut readable_fields = Map::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("version", _) => {}
            ("password", Value::Array(bytes)) => {
                readable_fields.insert(name, format!("({} bytes)", bytes.len()).into());
            }
            ("payload" | "correlation_data" | "authentication_data", Value::Array(bytes)) => {
                let bytes: Vec<u8> = bytes
                    .iter()
                    .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
                    .collect();
                match String::from_utf8(bytes) {
                    Ok(text) => readable_fields.insert(name, text.into()),
                    Err(error) => {
                        readable_fields.insert(format!("{name}_hex"), hex(error.as_bytes()).into())
                    }
                };
            }
            ("delivery", value) => {
                // The name alone for QoS 0, else the name with the Packet Identifier.
                let (qos, packet_id) = match value.as_object().and_then(|it| it.iter().next()) {
                    Some((name, id)) => (name.as_str(), id.clone()),
                    None => (value.as_str().unwrap_or_default(), Value::Null),
                };
                readable_fields.insert("qos".into(), qos_number(qos));
                readable_fields.insert("packet_id".into(), packet_id);
            }
            ("qos" | "maximum_qos", Value::String(qos)) => {
                readable_fields.insert(name, qos_number(&qos));
            }
            (_, Value::Object(inner)) => {
                readable_fields.insert(name, Value::Object(readable(inner)));
            }
            (_, Value::Array(items)) => {
                let items = items.into_iter().map(|item| {
                    if let Value::Object(inner) = item {
                        Value::Object(readable(inner))
                    } else {
                        item
                    }
                });
                readable_fields.insert(name, items.collect());
            }
            (_, value) => {
                readable_fields.insert(name, value);
            }
        }
    }
    readable_fields
}

fn qos_number(name: &str) -> Value {
    match name {
        "AtLeastOnce" => 1.into(),
        "ExactlyOnce" => 2.into(),
        _ => 0.into(),
    }
}

/// Flags that a server has on unless it says otherwise, and one of the client.
const ON_BY_DEFAULT: [&str; 5] = [
    "request_problem_information",
    "retain_available",
    "wildcard_subscription_available",
    "subscription_ids_available",
    "shared_subscription_available",
];

fn append(line: &mut String, fields: &Map<String, Value>) {
    for (name, value) in fields {
        let named = name.starts_with("reason_code").then(|| with_names(value));
        // Writing to a String cannot fail.
        let _ = match named.as_ref().unwrap_or(value) {
            Value::Null => Ok(()),
            Value::Bool(on) if *on == ON_BY_DEFAULT.contains(&name.as_str()) => Ok(()),
            Value::Bool(true) => write!(line, "{name} "),
            Value::Array(items) if items.is_empty() => Ok(()),
            Value::Object(inner) => {
                append(line, inner);
                Ok(())
            }
            Value::Bool(false) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                write!(line, "{name}={} ", named.as_ref().unwrap_or(value))
            }
        };
    }
}

/// Reason Codes with the standard's names.
fn with_names(value: &Value) -> Value {
    if let Value::Array(codes) = value {
        return codes.iter().map(with_names).collect();
    }
    let code = value
        .as_u64()
        .and_then(|code| ReasonCode::from_u8(u8::try_from(code).ok()?));
    code.map_or_else(
        || value.clone(),
        |code| format!("{:#04x} {code}", code as u8).into(),
    )
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
