//! The command line of `avocet bench`.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use avocet_codec::{QoS, Version};
use clap::{ArgAction, Args, Subcommand};

use crate::args::{PasswordArgs, UnsupportedArgs, expiry, positive_seconds, qos, seconds, version};
use crate::transport::TransportArgs;
use crate::url::Url;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) workload: Workload,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What the clients do.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Many publishers send to one subscriber, or to a few that share the publishers
    #[command(disable_help_flag = true)]
    FanIn {
        /// Clients that publish, each to topics of its own
        #[arg(long, value_name = "COUNT", default_value = "100")]
        publishers: NonZeroU32,
        /// Clients that subscribe; each hears its share of the publishers, by a filter with #
        #[arg(long, value_name = "COUNT", default_value = "1")]
        subscribers: NonZeroU32,
        #[command(flatten)]
        traffic: Box<TrafficArgs>,
    },
    /// One publisher, or a few, send to many subscribers, each of which hears everything
    #[command(disable_help_flag = true)]
    FanOut {
        /// Clients that publish, all to the same topics
        #[arg(long, value_name = "COUNT", default_value = "1")]
        publishers: NonZeroU32,
        /// Clients that subscribe to these topics
        #[arg(long, value_name = "COUNT", default_value = "100")]
        subscribers: NonZeroU32,
        #[command(flatten)]
        traffic: Box<TrafficArgs>,
    },
    /// As many publishers as subscribers, each pair with topics of its own
    #[command(disable_help_flag = true)]
    Pairs {
        /// Pairs of a publisher and a subscriber
        #[arg(long, value_name = "COUNT", default_value = "50")]
        pairs: NonZeroU32,
        #[command(flatten)]
        traffic: Box<TrafficArgs>,
    },
    /// Publishers send to a group of subscribers with one shared subscription; each message goes to
    /// one of them
    #[command(disable_help_flag = true)]
    Shared {
        /// Clients that publish, each to topics of its own
        #[arg(long, value_name = "COUNT", default_value = "10")]
        publishers: NonZeroU32,
        /// Clients that share the subscription
        #[arg(long, value_name = "COUNT", default_value = "10")]
        subscribers: NonZeroU32,
        #[command(flatten)]
        traffic: Box<TrafficArgs>,
    },
    /// Clients connect, stay for a while, and leave
    #[command(disable_help_flag = true)]
    Connect(Box<ConnectArgs>),
    /// Clients make many subscriptions, and messages match one or two of them
    #[command(disable_help_flag = true)]
    Subscriptions(Box<SubscriptionsArgs>),
    /// Publishers store retained messages, which subscribers then fetch
    #[command(disable_help_flag = true)]
    Retained(Box<RetainedArgs>),
    /// Messages are queued for clients that are away, which then come back for them
    #[command(disable_help_flag = true)]
    Offline(Box<OfflineArgs>),
}

impl Workload {
    /// Where a picture is to go.
    pub(crate) fn chart(&self) -> Option<&Path> {
        match self {
            Self::FanIn { traffic, .. }
            | Self::FanOut { traffic, .. }
            | Self::Pairs { traffic, .. }
            | Self::Shared { traffic, .. } => traffic.chart.as_deref(),
            Self::Connect(_) | Self::Subscriptions(_) | Self::Retained(_) | Self::Offline(_) => {
                None
            }
        }
    }

    pub(crate) fn run(&self) -> &RunArgs {
        match self {
            Self::FanIn { traffic, .. }
            | Self::FanOut { traffic, .. }
            | Self::Pairs { traffic, .. }
            | Self::Shared { traffic, .. } => &traffic.run,
            Self::Connect(args) => &args.run,
            Self::Subscriptions(args) => &args.run,
            Self::Retained(args) => &args.run,
            Self::Offline(args) => &args.run,
        }
    }
}

/// How messages flow.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct TrafficArgs {
    /// The QoS of the messages: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(crate) qos: QoS,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    /// The maximum QoS of the subscriptions; without it that of the messages
    #[arg(long, value_name = "QOS", value_parser = qos)]
    pub(crate) sub_qos: Option<QoS>,
    /// Topics of each publisher, used in turn
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub(crate) topics: NonZeroU32,
    /// Messages of one publisher that may be on their way to subscribers: a publisher sends when
    /// earlier ones have arrived (closed loop); without it 1000 for each subscriber, shared by its
    /// publishers, and at most 100000 deliveries in all
    #[arg(long, value_name = "MESSAGES", conflicts_with = "rate")]
    pub(crate) window: Option<NonZeroU32>,
    /// Messages of one publisher that leave in one write, once so many may leave; without it half
    /// of what may be on its way, and at most 64
    #[arg(long, value_name = "MESSAGES", conflicts_with = "rate")]
    pub(crate) batch: Option<NonZeroU32>,
    /// Messages per second of all publishers, each due at a fixed time whatever the server does
    /// (open loop)
    #[arg(long, value_name = "MESSAGES", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How long to measure, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    pub(crate) duration: Duration,
    /// How long messages flow before it is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// Publish so many messages in all, and measure from the first to the last
    #[arg(long, value_name = "MESSAGES", conflicts_with_all = ["duration", "warm_up"])]
    pub(crate) count: Option<NonZeroU64>,
    /// Keep Sessions: Clean Start 0, and unless -x says otherwise a Session that never expires; they
    /// are ended after the run
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(crate) keep_session: bool,
    /// Session Expiry Interval in seconds, or "never" (5.0)
    #[arg(short = 'x', long, value_name = "SECONDS", value_parser = expiry)]
    pub(crate) session_expiry_interval: Option<u32>,
    /// Draw rates and latencies into this file, an .svg or .html that needs nothing else
    #[arg(long, value_name = "FILE", value_parser = chart)]
    pub(crate) chart: Option<PathBuf>,
    /// Threads of the load generator
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Clients")]
pub(crate) struct ConnectArgs {
    /// Clients that connect
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub(crate) clients: NonZeroU32,
    /// Connections per second, each due at a fixed time; without it 64 connect at a time
    #[arg(long, value_name = "CONNECTIONS", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How long they stay once all are connected, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) hold: Duration,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct SubscriptionsArgs {
    /// Subscriptions in all, each of its own filter: of each five, one has a wildcard
    #[arg(long, value_name = "COUNT", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) subscriptions: u32,
    /// Clients that subscribe, at least 2
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) clients: u32,
    /// Messages that are published then
    #[arg(long, value_name = "COUNT", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) messages: u32,
    /// Clients that publish them
    #[arg(long, value_name = "COUNT", default_value = "10")]
    pub(crate) publishers: NonZeroU32,
    /// Deliveries that may be on their way to all clients
    #[arg(long, value_name = "MESSAGES", default_value = "100000")]
    pub(crate) window: NonZeroU32,
    /// How long they stay then, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) hold: Duration,
    /// The QoS of messages and subscriptions: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub(crate) qos: QoS,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct RetainedArgs {
    /// Retained messages, each of its own topic
    #[arg(long, value_name = "COUNT", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) messages: u32,
    /// Clients that publish them
    #[arg(long, value_name = "COUNT", default_value = "10")]
    pub(crate) publishers: NonZeroU32,
    /// Clients that fetch all of them, at the same time
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub(crate) subscribers: NonZeroU32,
    /// The QoS of the messages: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "1", value_parser = qos)]
    pub(crate) qos: QoS,
    /// The maximum QoS of the subscriptions; without it that of the messages
    #[arg(long, value_name = "QOS", value_parser = qos)]
    pub(crate) sub_qos: Option<QoS>,
    /// How long the messages stay then, in seconds, before they are deleted
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) hold: Duration,
    /// Leave the messages on the server
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct OfflineArgs {
    /// Messages in all; the server must be allowed to queue their share for each client
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    pub(crate) messages: NonZeroU64,
    /// Clients that are away, each with a publisher of its own
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub(crate) pairs: NonZeroU32,
    /// The QoS of messages and subscriptions: 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "1", value_parser = qos_above_0)]
    pub(crate) qos: QoS,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The messages.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct MessageArgs {
    /// Bytes of payload, at least 16: who sent it, the number of the message, and when it was due
    #[arg(long, value_name = "BYTES", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    pub(crate) payload: u32,
    /// QoS 1 and 2 messages of one publisher that wait for PUBACK or PUBCOMP; the Receive Maximum
    /// of the server is kept too
    #[arg(long, value_name = "MESSAGES", default_value = "20")]
    pub(crate) inflight: NonZeroU16,
}

/// How a run goes, whatever its workload.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// How long to wait for messages once nothing comes any more, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = positive_seconds)]
    pub(crate) drain: Duration,
    /// What topics and Client Identifiers are drawn from; without it each run has its own
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// The process id of the server: its CPU time and memory are read from /proc (Linux); may be
    /// given several times
    #[arg(long, value_name = "PID", action = ArgAction::Append)]
    pub(crate) broker_pid: Vec<u32>,
    /// Write the result as JSON to this file; "-" is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// The server, and how to connect to it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ServerArgs {
    /// The server's name or address
    #[arg(short = 'h', long, value_name = "HOST", default_value = "localhost")]
    pub(crate) host: String,
    /// The server's port; without it 1883, or what the transport is known for
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Server and credentials in one: mqtt://USER:PASSWORD@HOST:PORT, of which only HOST is needed,
    /// or mqtts://; quic://; ws://HOST:PORT/PATH or wss://; unix:PATH
    #[arg(short = 'L', long, value_name = "URL", conflicts_with_all = ["host", "port"])]
    pub(crate) url: Option<Url>,
    /// The User Name of all clients
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
    /// How long connecting one client may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive_seconds)]
    pub(crate) connect_timeout: Duration,
    /// Print no progress, errors or warnings
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

fn chart(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending {
        Some("svg" | "html") => Ok(path),
        Some(_) | None => Err("allowed are names that end in .svg or .html".into()),
    }
}

fn qos_above_0(text: &str) -> Result<QoS, String> {
    qos(text)
        .ok()
        .filter(|qos| *qos != QoS::AtMostOnce)
        .ok_or_else(|| "allowed are 1 and 2: nothing is queued at 0".into())
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|rate| (0.001..=5e7).contains(rate))
        .ok_or_else(|| "allowed are so many per second, from 0.001 to 50 million".into())
}
