//! The command line: what can be asked for, in the words of `mosquitto_pub` and `mosquitto_sub`.

use std::path::PathBuf;
use std::time::Duration;

use avocet_codec::{QoS, Version};
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::access_args::{AclArgs, CertificatesArgs, PasswdArgs};
use crate::bench_args::BenchArgs;
use crate::exit::Failure;
use crate::format::Format;
use crate::transport::TransportArgs;
use crate::url::Url;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   error: in the arguments, in the network, or refused by the server
  2   denied (acl explain), or a wrong password (passwd --check)
  27  timed out (-W)
  A refused connection ends with the code of the CONNACK: 1 to 5 in MQTT 3.1 and 3.1.1,
  128 and above in 5.0.";

/// Publish, subscribe, request, decode and measure MQTT 3.1, 3.1.1 and 5.0.
#[derive(Debug, Parser)]
#[command(name = "avocet", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish messages
    #[command(disable_help_flag = true)]
    Pub(Box<PublishArgs>),
    /// Subscribe and print the messages that come
    #[command(disable_help_flag = true)]
    Sub(Box<SubscribeArgs>),
    /// Publish a request and print the response
    #[command(disable_help_flag = true)]
    Request(Box<RequestArgs>),
    /// Put load on a server, and measure and check what it does with it
    Bench(BenchArgs),
    /// Print the Control Packets in a captured byte stream or in hexadecimal text
    Decode(DecodeArgs),
    /// Add, change and remove the users of a broker's password file
    Passwd(PasswdArgs),
    /// Say what a broker's rules allow, and import them from mosquitto
    Acl(AclArgs),
    /// Make certificates for a broker and its clients, with an authority of your own
    Certificates(CertificatesArgs),
}

/// What every command that connects takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The server's name or address
    #[arg(short = 'h', long, value_name = "HOST", default_value = "localhost")]
    pub(crate) host: String,
    /// The server's port; without it 1883, or what the transport is known for
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Server, credentials and topic in one: mqtt://USER:PASSWORD@HOST:PORT/TOPIC, of which only
    /// HOST is needed, or mqtts://; ws://HOST:PORT/PATH or wss://; unix:PATH
    #[arg(short = 'L', long, value_name = "URL", conflicts_with_all = ["host", "port"])]
    pub(crate) url: Option<Url>,
    /// The Client Identifier; without it the server assigns one
    #[arg(short, long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) id: Option<String>,
    /// Makes the Client Identifier of this prefix and the process id
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id")]
    pub(crate) id_prefix: Option<String>,
    /// The User Name
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) username: Option<String>,
    #[command(flatten)]
    pub(crate) password: PasswordArgs,
    /// The protocol version: 5 (mqttv5), 311 (mqttv311) or 31 (mqttv31)
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5", value_parser = version)]
    pub(crate) protocol_version: Version,
    /// Keep Alive in seconds; 0 turns it off
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) keepalive: u16,
    /// Keep the Session: Clean Start 0, and unless -x says otherwise a Session that never expires;
    /// needs -i
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(crate) keep_session: bool,
    /// Session Expiry Interval in seconds, or "never" (5.0)
    #[arg(short = 'x', long, value_name = "SECONDS", value_parser = expiry)]
    pub(crate) session_expiry_interval: Option<u32>,
    /// How long connecting may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) connect_timeout: Duration,
    /// The topic of the Will Message
    #[arg(long, value_name = "TOPIC")]
    pub(crate) will_topic: Option<String>,
    /// The payload of the Will Message
    #[arg(
        long,
        value_name = "TEXT",
        requires = "will_topic",
        allow_hyphen_values = true
    )]
    pub(crate) will_payload: Option<String>,
    /// The QoS of the Will Message
    #[arg(long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(crate) will_qos: QoS,
    /// The Will Message becomes the retained message of its topic
    #[arg(long, requires = "will_topic")]
    pub(crate) will_retain: bool,
    /// A property of 5.0 for one kind of packet (connect, publish, will, subscribe, unsubscribe,
    /// disconnect, auth), such as: -D publish content-type text/plain,
    /// -D publish user-property NAME VALUE; may be given several times
    #[arg(short = 'D', long = "property", value_names = ["PACKET", "PROPERTY", "VALUE"],
          num_args = 3..=4, action = ArgAction::Append)]
    pub(crate) properties: Vec<String>,
    /// Print what is sent and received, to standard error
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Print no errors or warnings
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) transport: TransportArgs,
    #[command(flatten)]
    pub(crate) unsupported: UnsupportedArgs,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What shows who the client is.
#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    /// The Password, or a token; other users of this machine can read the arguments of a process
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        allow_hyphen_values = true
    )]
    pub(crate) password: Option<String>,
    /// The file that holds the Password, or a token, such as /dev/stdin
    #[arg(long = "pw-file", value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
}

impl PasswordArgs {
    /// The Password, also that of a URL where there is no other one.
    ///
    /// # Errors
    ///
    /// When its file cannot be read, or is empty.
    pub(crate) fn read(&self, url: Option<&Url>) -> Result<Option<Vec<u8>>, Failure> {
        let Some(path) = &self.password_file else {
            let password = self.password.as_ref();
            let password = password.or_else(|| url.and_then(|url| url.password.as_ref()));
            return Ok(password.map(|text| text.as_bytes().to_vec()));
        };
        let file = path.display();
        let mut password = std::fs::read(path)
            .map_err(|error| Failure::new(format!("--pw-file: cannot read {file}: {error}")))?;
        // The end of the line is not part of it.
        for end in [b'\n', b'\r'] {
            password.pop_if(|last| *last == end);
        }
        if password.is_empty() {
            return Err(Failure::new(format!("--pw-file: {file} is empty")));
        }
        Ok(Some(password))
    }
}

/// Options of the mosquitto tools that are known, so that refusing them can say why.
#[derive(Debug, Args)]
pub(crate) struct UnsupportedArgs {
    #[arg(long, hide = true)]
    capath: Option<String>,
    #[arg(long, hide = true)]
    ciphers: Option<String>,
    #[arg(long, hide = true)]
    tls_alpn: Option<String>,
    #[arg(long, hide = true)]
    psk: Option<String>,
    #[arg(long, hide = true)]
    psk_identity: Option<String>,
    #[arg(long, hide = true)]
    proxy: Option<String>,
    #[arg(short = 'A', hide = true)]
    bind_address: Option<String>,
    #[arg(short = 'S', hide = true)]
    srv: bool,
}

impl UnsupportedArgs {
    /// The first option given that is not supported, and what it stands for.
    pub(crate) fn given(&self) -> Option<(&'static str, &'static str)> {
        let key = "TLS with a key that both sides know";
        [
            (self.capath.is_some(), "--capath", "a folder of authorities"),
            (self.ciphers.is_some(), "--ciphers", "choosing ciphers"),
            (
                self.tls_alpn.is_some(),
                "--tls-alpn",
                "another ALPN than mqtt",
            ),
            (self.psk.is_some(), "--psk", key),
            (self.psk_identity.is_some(), "--psk-identity", key),
            (
                self.proxy.is_some(),
                "--proxy",
                "connecting through a proxy",
            ),
            (
                self.bind_address.is_some(),
                "-A",
                "choosing the local address",
            ),
            (self.srv, "-S", "looking the server up by SRV record"),
        ]
        .into_iter()
        .find_map(|(given, option, what)| given.then_some((option, what)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The Topic Name to publish to
    #[arg(short, long, value_name = "TOPIC", required_unless_present = "url")]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) payload: PayloadArgs,
    /// The QoS: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(crate) qos: QoS,
    /// The message becomes the retained message of its topic
    #[arg(short, long)]
    pub(crate) retain: bool,
    /// Publish the message this many times (with -m, -f, -n and -s)
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with = "stdin_line",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// Wait this long between repeats, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) repeat_delay: Duration,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// Where payloads come from: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PayloadArgs {
    /// The payload
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// The payload is what this file holds; "-" is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Each line of standard input is one message
    #[arg(short = 'l', long)]
    pub(crate) stdin_line: bool,
    /// An empty payload
    #[arg(short, long)]
    pub(crate) null_message: bool,
    /// The payload is all of standard input
    #[arg(short, long)]
    pub(crate) stdin_file: bool,
}

/// How messages are printed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print the topic before the payload
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print each message in this format: %t topic, %p payload, %x and %X payload in hexadecimal,
    /// %l its length, %q QoS, %r retain, %m packet id, %I and %U the time, %j and %J as JSON, %C
    /// content type, %D correlation data, %E message expiry, %F payload format, %P user
    /// properties, %R response topic, %S subscription ids, %% percent, @X the time as strftime
    /// does (UTC), \n \t \r \0 \a \e \v \\ as in C
    #[arg(short = 'F', long, value_name = "FORMAT", conflicts_with_all = ["verbose", "json"])]
    pub(crate) format: Option<Format>,
    /// Print each message as one line of JSON, the payload as a string (as -F %j)
    #[arg(long, conflicts_with = "verbose")]
    pub(crate) json: bool,
    /// Print no line end after the payload
    #[arg(short = 'N', long = "no-eol")]
    pub(crate) no_line_end: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// A Topic Filter to subscribe to; may be given several times
    #[arg(short, long = "topic", value_name = "FILTER", action = ArgAction::Append,
          required_unless_present_any = ["url", "unsubscribe"])]
    pub(crate) topics: Vec<String>,
    /// Print no messages whose topic matches this filter; may be given several times
    #[arg(short = 'T', long, value_name = "FILTER", action = ArgAction::Append)]
    pub(crate) filter_out: Vec<String>,
    /// Unsubscribe from this Topic Filter; may be given several times
    #[arg(short = 'U', long, value_name = "FILTER", action = ArgAction::Append)]
    pub(crate) unsubscribe: Vec<String>,
    /// The maximum QoS: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(crate) qos: QoS,
    /// End after this many messages
    #[arg(short = 'C', long, value_name = "COUNT",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after this many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = positive_seconds)]
    pub(crate) timeout: Option<Duration>,
    /// End once the subscriptions are acknowledged
    #[arg(short = 'E', long)]
    pub(crate) exit_after_subscribe: bool,
    /// Print no stale messages: none sent because they were retained
    #[arg(short = 'R', long)]
    pub(crate) no_retained: bool,
    /// Print only messages sent because they were retained; end at the first that was not
    #[arg(long, conflicts_with = "no_retained")]
    pub(crate) retained_only: bool,
    /// Clear each retained message received, on the server
    #[arg(long)]
    pub(crate) remove_retained: bool,
    /// Ask the server to keep the retain flag as the publisher set it (5.0)
    #[arg(long)]
    pub(crate) retain_as_published: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The Topic Name to publish the request to
    #[arg(short, long, value_name = "TOPIC", required_unless_present = "url")]
    pub(crate) topic: Option<String>,
    /// The Topic Name at which the response is expected
    #[arg(short = 'e', long, value_name = "TOPIC")]
    pub(crate) response_topic: String,
    #[command(flatten)]
    pub(crate) payload: PayloadArgs,
    /// The QoS of request and response: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(crate) qos: QoS,
    /// The request becomes the retained message of its topic
    #[arg(short, long)]
    pub(crate) retain: bool,
    /// Give up after this many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = positive_seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// The file to read, binary or hexadecimal text; "-" or nothing is standard input
    #[arg(value_name = "FILE", conflicts_with = "hex")]
    pub(crate) file: Option<PathBuf>,
    /// The bytes, in hexadecimal; blanks and colons between them are ignored
    #[arg(short = 'x', long, value_name = "HEX", num_args = 1..)]
    pub(crate) hex: Vec<String>,
    /// The input is binary, even if it looks like hexadecimal text
    #[arg(short, long, conflicts_with = "hex")]
    pub(crate) binary: bool,
    /// The protocol version before a CONNECT tells: 5 (mqttv5), 311 (mqttv311) or 31 (mqttv31)
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version)]
    pub(crate) protocol_version: Option<Version>,
    /// Print each packet as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn version(text: &str) -> Result<Version, String> {
    match text {
        "5" | "50" | "5.0" | "mqttv5" | "mqttv50" => Ok(Version::V5),
        "311" | "3.1.1" | "4" | "mqttv311" => Ok(Version::V3_1_1),
        "31" | "3.1" | "3" | "mqttv31" => Ok(Version::V3_1),
        _ => Err("allowed are 5 (mqttv5), 311 (mqttv311) and 31 (mqttv31)".into()),
    }
}

pub(crate) fn qos(text: &str) -> Result<QoS, String> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err("allowed are 0, 1 and 2".into()),
    }
}

pub(crate) fn expiry(text: &str) -> Result<u32, String> {
    match text {
        "never" | "∞" => Ok(u32::MAX),
        _ => text
            .parse()
            .map_err(|_| format!("allowed are seconds from 0 to {} and \"never\"", u32::MAX)),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "allowed are seconds from 0, such as 10 or 0.5".into())
}

pub(crate) fn positive_seconds(text: &str) -> Result<Duration, String> {
    seconds(text)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "allowed are seconds above 0, such as 10 or 0.5".into())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
