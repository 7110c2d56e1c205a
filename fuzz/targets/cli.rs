//! Command lines of `avocet` and `avocet-broker`, and what their arguments hold: formats, URLs,
//! properties, hexadecimal text, captured packets. Each is a value or an error with a text, and
//! what was accepted can be used.
//!
//! The first byte chooses; the rest are arguments, one a line, or the bytes of a message or a
//! capture.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use avocet_codec::{MessageProperties, QoS};
use avocet_fuzz::asks_dns;
use clap::Parser;
use libfuzzer_sys::fuzz_target;

use crate::args::{Cli, Command, ConnectionArgs, DecodeArgs, OutputArgs};
use crate::date::Date;
use crate::format::{Format, Printed};

// The program has no library: nobody else needs its parts.
macro_rules! program {
    ($($name:ident $path:literal)*) => {$(
        #[path = $path]
        #[allow(dead_code, reason = "the rest of the program uses the rest")]
        mod $name;
    )*};
}

program! {
    access_args "../../crates/avocet-cli/src/access_args.rs"
    args "../../crates/avocet-cli/src/args.rs"
    arguments "../../crates/avocet-broker/src/arguments.rs"
    bench_args "../../crates/avocet-cli/src/bench_args.rs"
    connect "../../crates/avocet-cli/src/connect.rs"
    date "../../crates/avocet-cli/src/date.rs"
    decode "../../crates/avocet-cli/src/decode.rs"
    exit "../../crates/avocet-cli/src/exit.rs"
    format "../../crates/avocet-cli/src/format.rs"
    property "../../crates/avocet-cli/src/property.rs"
    transport "../../crates/avocet-cli/src/transport.rs"
    url "../../crates/avocet-cli/src/url.rs"
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    match choice % 4 {
        0 => client(input),
        1 => broker(input),
        2 => message(input),
        _ => capture(input),
    }
});

fn arguments_of(input: &[u8]) -> impl Iterator<Item = &OsStr> {
    input.split(|byte| *byte == b'\n').map(OsStr::from_bytes)
}

fn client(input: &[u8]) {
    let program = [OsStr::new("avocet")].into_iter();
    match Cli::try_parse_from(program.chain(arguments_of(input))) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(Cli { command }) => match command {
            Command::Pub(args) => connection(args.connection),
            Command::Sub(args) => {
                output(&args.output, input);
                connection(args.connection);
            }
            Command::Request(args) => {
                output(&args.output, input);
                connection(args.connection);
            }
            Command::Bench(_) => {}
            // Without it a file is read.
            Command::Decode(args) if !args.hex.is_empty() => {
                if let Ok(bytes) = decode::read(&args) {
                    print(&args, &bytes);
                }
            }
            Command::Decode(_)
            | Command::Passwd(_)
            | Command::Acl(_)
            | Command::Certificates(_) => {}
        },
    }
}

fn connection(args: ConnectionArgs) {
    match connect::Settings::new(args) {
        Ok((config, _)) => assert_eq!(config.connection.check(), Ok(())),
        Err(failure) => assert!(failure.message().is_some_and(|text| !text.is_empty())),
    }
}

fn output(args: &OutputArgs, payload: &[u8]) {
    if let Some(format) = &args.format {
        render(format, payload);
    }
}

/// As wide as its fields may be, with a message of these bytes.
fn render(format: &Format, payload: &[u8]) {
    let nanoseconds = payload
        .iter()
        .fold(0, |all, byte| all << 8 | u128::from(*byte));
    let message = Printed {
        topic_name: "a/b",
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        packet_id: Some(7),
        message_expiry_interval: None,
        properties: MessageProperties::default(),
        subscription_ids: &[1, 2],
        received: Date::from_unix_nanoseconds(nanoseconds),
    };
    format.render(&message, &mut Vec::new());
}

fn broker(input: &[u8]) {
    let program = [OsStr::new("avocet-broker")].into_iter();
    match arguments::Arguments::try_parse_from(program.chain(arguments_of(input))) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(arguments) => {
            let settings = arguments.settings;
            let addresses = settings.set.iter().filter_map(|set| set.split_once('='));
            let addresses = addresses.map(|(_, value)| value);
            if settings.config.is_some()
                || settings.listen.iter().any(|listen| asks_dns(listen))
                || addresses.into_iter().any(asks_dns)
            {
                return;
            }
            if let Err(error) = settings.load([]) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// A format in the first line, a payload behind it.
fn message(input: &[u8]) {
    let line = input.iter().position(|byte| *byte == b'\n');
    let (format, payload) = input.split_at(line.unwrap_or(input.len()));
    if let Ok(format) = str::from_utf8(format).unwrap_or_default().parse() {
        render(&format, payload);
    }
}

fn capture(input: &[u8]) {
    for json in [true, false] {
        let args = DecodeArgs {
            file: None,
            hex: Vec::new(),
            binary: true,
            protocol_version: None,
            json,
        };
        print(&args, input);
    }
}

/// Each line of JSON is JSON.
fn print(args: &DecodeArgs, bytes: &[u8]) {
    let mut out = Vec::new();
    if let Err(failure) = decode::print(args, bytes, &mut out) {
        assert!(failure.message().is_some_and(|text| !text.is_empty()));
    }
    let text = String::from_utf8(out).expect("text");
    if args.json {
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        }
    }
}
