//! The one table of all settings: keys, what they allow, what they mean, where they go.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::QoS;
use avocet_engine::{ClientIds, SharedStrategy};
use avocet_session::{Limits, Overflow, ServerConfig};

use super::value::{Kind, Value};
use super::{Config, Durability, LogFormat, LostSubscriptions};
use crate::hooks::Missed;
use crate::http;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its place in the file, with dots between the table and the key.
    pub(crate) key: &'static str,
    /// What it allows.
    pub(crate) kind: Kind,
    /// What it does, for the reference.
    pub(crate) about: &'static str,
    /// What a configuration holds; an empty text when nothing is set. It does not change it.
    pub(crate) get: fn(&mut Config) -> Value,
    /// Stores a value that `kind` allows.
    pub(crate) set: fn(&mut Config, Value),
}

impl Setting {
    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        match self.key {
            "log.filter" => "AVOCET_LOG".to_owned(),
            key => format!("AVOCET_{}", key.to_ascii_uppercase().replace('.', "_")),
        }
    }
}

/// An integer as a setting's value: the bounds of the setting keep it within the type.
trait Number {
    fn to_u64(&self) -> u64;
    fn set(&mut self, integer: u64);
}

macro_rules! impl_number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn to_u64(&self) -> u64 {
                u64::try_from(*self).unwrap_or(u64::MAX)
            }

            fn set(&mut self, integer: u64) {
                *self = Self::try_from(integer).unwrap_or(Self::MAX);
            }
        }
    )*};
}

impl_number!(u8, u16, u32, u64, usize);

macro_rules! impl_non_zero_number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn to_u64(&self) -> u64 {
                u64::from(self.get())
            }

            fn set(&mut self, integer: u64) {
                *self = integer.try_into().ok().and_then(Self::new).unwrap_or(Self::MIN);
            }
        }

        /// 0 stands for none.
        impl Number for Option<$type> {
            fn to_u64(&self) -> u64 {
                self.map_or(0, |number| u64::from(number.get()))
            }

            fn set(&mut self, integer: u64) {
                *self = integer.try_into().ok().and_then(<$type>::new);
            }
        }
    )*};
}

impl_non_zero_number!(NonZeroU16, NonZeroU32);

impl Number for QoS {
    fn to_u64(&self) -> u64 {
        u64::from(*self as u8)
    }

    fn set(&mut self, integer: u64) {
        *self = u8::try_from(integer)
            .ok()
            .and_then(Self::from_u8)
            .unwrap_or(Self::ExactlyOnce);
    }
}

macro_rules! flag {
    ($key:literal, $place:expr, $about:literal) => {
        Setting {
            key: $key,
            kind: Kind::Flag,
            about: $about,
            get: |config| {
                let place: fn(&mut Config) -> &mut bool = $place;
                Value::Flag(*place(config))
            },
            set: |config, value| {
                let place: fn(&mut Config) -> &mut bool = $place;
                *place(config) = value.flag();
            },
        }
    };
}

macro_rules! number {
    ($key:literal, $kind:ident, $variant:ident, $min:expr, $max:expr, $place:expr, $about:literal) => {
        Setting {
            key: $key,
            kind: Kind::$kind {
                min: $min,
                max: $max,
            },
            about: $about,
            get: |config| {
                let place: fn(&mut Config) -> &mut _ = $place;
                Value::$variant(place(config).to_u64())
            },
            set: |config, value| {
                let place: fn(&mut Config) -> &mut _ = $place;
                place(config).set(value.integer());
            },
        }
    };
}

macro_rules! integer {
    ($key:literal, $min:literal..=$max:expr, $place:expr, $about:literal) => {
        number!($key, Integer, Integer, $min, $max, $place, $about)
    };
}

macro_rules! bytes {
    ($key:literal, $min:literal..=$max:expr, $place:expr, $about:literal) => {
        number!($key, Bytes, Bytes, $min, $max, $place, $about)
    };
}

macro_rules! duration {
    ($key:literal, $max:literal s, $place:expr, $about:literal) => {
        duration!($key, 0 ms, $max s, $place, $about)
    };
    ($key:literal, $min:literal ms, $max:literal s, $place:expr, $about:literal) => {
        Setting {
            key: $key,
            kind: Kind::Duration {
                min: Duration::from_millis($min),
                max: Duration::from_secs($max),
            },
            about: $about,
            get: |config| {
                let place: fn(&mut Config) -> &mut Duration = $place;
                Value::Duration(*place(config))
            },
            set: |config, value| {
                let place: fn(&mut Config) -> &mut Duration = $place;
                *place(config) = value.duration();
            },
        }
    };
}

macro_rules! choice {
    ($key:literal, $names:expr, $place:expr, $about:literal) => {
        Setting {
            key: $key,
            kind: Kind::Choice(&names($names)),
            about: $about,
            get: |config| {
                let place: fn(&mut Config) -> &mut _ = $place;
                let value = *place(config);
                let name = $names
                    .iter()
                    .find(|(_, named)| *named == value)
                    .map(|(name, _)| *name);
                Value::Text(name.unwrap_or_default().to_owned())
            },
            set: |config, value| {
                let place: fn(&mut Config) -> &mut _ = $place;
                let text = value.text();
                if let Some((_, named)) = $names.iter().find(|(name, _)| *name == text) {
                    *place(config) = *named;
                }
            },
        }
    };
}

macro_rules! text {
    ($key:literal, $allowed:literal, $place:expr, $about:literal) => {
        text!($key, $allowed, is_mqtt_string, $place, $about)
    };
    ($key:literal, $allowed:literal, $is_allowed:expr, $place:expr, $about:literal) => {
        Setting {
            key: $key,
            kind: Kind::Text {
                allowed: $allowed,
                is_allowed: $is_allowed,
            },
            about: $about,
            get: |config| {
                let place: fn(&mut Config) -> &mut Option<Box<str>> = $place;
                Value::Text(place(config).as_deref().unwrap_or_default().to_owned())
            },
            set: |config, value| {
                let place: fn(&mut Config) -> &mut Option<Box<str>> = $place;
                *place(config) =
                    Some(value.text().into()).filter(|text: &Box<str>| !text.is_empty());
            },
        }
    };
}

macro_rules! url {
    ($key:literal, $place:expr, $about:literal) => {
        text!(
            $key,
            "a URL that begins with https://, or with http:// and this machine, without a password",
            |text| text.is_empty() || http::parse(text).is_some(),
            $place,
            $about
        )
    };
}

macro_rules! path {
    ($key:literal, $place:expr, $about:literal) => {
        Setting {
            key: $key,
            kind: Kind::Text {
                allowed: "the path of a file",
                is_allowed: |_| true,
            },
            about: $about,
            get: |config| {
                let place: fn(&mut Config) -> &mut Option<PathBuf> = $place;
                let path = place(config).as_ref();
                Value::Text(path.map_or_else(String::new, |path| path.display().to_string()))
            },
            set: |config, value| {
                let place: fn(&mut Config) -> &mut Option<PathBuf> = $place;
                let path = value.text();
                *place(config) = (!path.is_empty()).then(|| PathBuf::from(path));
            },
        }
    };
}

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(crate) const DURABILITIES: [(&str, Durability); 3] = [
    ("fsync", Durability::Fsync),
    ("os", Durability::Os),
    ("memory", Durability::Memory),
];

const SHARED_STRATEGIES: [(&str, SharedStrategy); 5] = [
    ("round robin", SharedStrategy::RoundRobin),
    ("least in flight", SharedStrategy::LeastInFlight),
    ("sticky", SharedStrategy::Sticky),
    ("by publisher", SharedStrategy::ByPublisher),
    ("by topic", SharedStrategy::ByTopic),
];

const LOST_SUBSCRIPTIONS: [(&str, LostSubscriptions); 2] = [
    ("keep", LostSubscriptions::Keep),
    ("disconnect", LostSubscriptions::Disconnect),
];

const MISSED: [(&str, Missed); 2] = [("refuse", Missed::Refuse), ("pass", Missed::Pass)];

const CLIENT_IDS: [(&str, ClientIds); 2] = [
    ("of each user", ClientIds::OfEachUser),
    ("shared", ClientIds::Shared),
];

const OVERFLOWS: [(&str, Overflow); 2] = [
    ("drop oldest", Overflow::DropOldest),
    ("drop newest", Overflow::DropNewest),
];

/// The levels of durability as a choice.
pub(crate) const LEVEL: Kind = Kind::Choice(&names(DURABILITIES));

pub(crate) fn level_name(level: Durability) -> &'static str {
    let named = DURABILITIES.iter().find(|(_, named)| *named == level);
    named.map_or("", |(name, _)| name)
}

pub(crate) const fn names<T: Copy, const N: usize>(
    named: [(&'static str, T); N],
) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        #[expect(
            clippy::indexing_slicing,
            reason = "below N; a const fn has no iterators"
        )]
        {
            names[index] = named[index].0;
        }
        index += 1;
    }
    names
}

fn is_mqtt_string(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX) && !text.contains('\0')
}

fn connection(config: &mut Config) -> &mut ServerConfig {
    Arc::make_mut(&mut config.engine.connection)
}

fn session(config: &mut Config) -> &mut Limits {
    &mut connection(config).limits
}

const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
/// As many as anybody asks for.
const MANY: u64 = 1_000_000_000_000;
const TIB: u64 = 1 << 40;

mod limits;

/// All settings, in the order of the reference.
pub(crate) fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().chain(limits::LIMITS)
}

static SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        kind: Kind::Listeners,
        about: "Where clients are served. A host name stands for its first IPv4 address. In the \
                environment, several are separated by commas. A table has an `address`, and may have \
                more: docs/listeners.md describes it.",
        get: |config| Value::Listeners(config.listen.clone()),
        set: |config, value| config.listen = value.listeners(),
    },
    Setting {
        key: "data_dir",
        kind: Kind::Text {
            allowed: "the path of a folder",
            is_allowed: |_| true,
        },
        about: "Where sessions, queued and retained messages are kept, so that they survive the \
                process. It is made when it is missing. Empty: all state is in memory.",
        get: |config| {
            let path = config.data_dir.as_ref();
            Value::Text(
                path.map(|path| path.display().to_string())
                    .unwrap_or_default(),
            )
        },
        set: |config, value| {
            let path = value.text();
            config.data_dir = (!path.is_empty()).then(|| PathBuf::from(path));
        },
    },
    path!(
        "control_socket",
        |config| &mut config.control_socket,
        "Where `avocet-broker reload` reaches the broker: a Unix socket, which is for the user that the broker runs \
         as. Empty: `control.sock` in `data_dir`; without one, SIGHUP is the only way."
    ),
    choice!(
        "durability",
        DURABILITIES,
        |config| &mut config.durability,
        "What an acknowledgement says, where there is a `data_dir`. `fsync`: what it stands for is on \
         disk and survives a loss of power. `os`: the operating system has it, it survives the \
         process. `memory`: nothing waits for the disk; `data_dir` is not used if nothing else asks \
         for more. A listener and `topic_durability` may say otherwise for their messages."
    ),
    Setting {
        key: "topic_durability",
        kind: Kind::Levels,
        about: "The same for messages whose Topic Names begin so. Of several that fit, and of what the \
                listener says, the strictest counts. In the environment: `telemetry/=os,alarm/=fsync`.",
        get: |config| Value::Levels(config.topic_durability.clone()),
        set: |config, value| config.topic_durability = value.levels(),
    },
    integer!(
        "shards",
        0..=256,
        |config| &mut config.shards,
        "How many threads share the clients. 0: one for two cores of the machine, at least one. What \
         clients send each other costs least within one thread; a machine that only serves the \
         broker may want one thread per core."
    ),
    Setting {
        key: "gather_max",
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: Duration::from_millis(10),
        },
        about: "How long a thread with much to do may let input gather before it reads. What comes \
                together costs less: fewer reads, and fewer and larger writes. A thread for which \
                fewer than 16 clients are read in a millisecond, by itself or by others, does not \
                wait, nor one for which waiting brings nothing, nor one of whose clients half or \
                more wait for it: they are sent something before they are read again, such as \
                acknowledgements. `\"0s\"`: never, and each acknowledgement of a message is read at once, which on Linux is else left for \
                up to 0.4 s where nobody waits for it. Windows is as with 0, since its pauses take longer.",
        get: |config| Value::Duration(config.gather_max),
        set: |config, value| config.gather_max = value.duration(),
    },
    duration!(
        "stop_timeout",
        3_600 s,
        |config| &mut config.stop_timeout,
        "How long clients may take, when the broker stops, to read what they were still to get."
    ),
    text!(
        "user",
        "the name or the number of a user",
        |config| &mut config.user,
        "The user that the program becomes when it was started as root, once it has its ports and has \
         read its files. Linux only. Empty, or started by another user: it stays who it is."
    ),
    text!(
        "group",
        "the name or the number of a group",
        |config| &mut config.group,
        "The group that goes with `user`. Empty: that user's own, and those that it is a member of."
    ),
    flag!(
        "access.anonymous",
        |config| &mut config.access.anonymous,
        "Whether anyone who reaches a listener may connect. Without a `password_file` it must be true \
         for a listener that other machines can reach; with one, it lets those in who present no User \
         Name."
    ),
    path!(
        "access.password_file",
        |config| &mut config.access.password_file,
        "The users and the hashes of their passwords, as `avocet passwd` and `mosquitto_passwd` write \
         them. Read again on SIGHUP. Empty: nobody is asked for a password."
    ),
    path!(
        "access.token_keys",
        |config| &mut config.access.token_keys,
        "The keys that tokens (JSON Web Tokens, presented as the Password) are signed with: a JSON Web \
         Key Set. Read again on SIGHUP. Empty: a token is a password as any other."
    ),
    url!(
        "access.token_keys_url",
        |config| &mut config.access.token_keys_url,
        "The same keys from a URL, in place of a file. When a token names a key that is not among them, \
         they are asked for again, at most every 30 s. While that fails, those that were there stay. Empty:\
         no keys from elsewhere."
    ),
    duration!(
        "access.token_keys_refresh",
        604_800 s,
        |config| &mut config.access.token_keys_refresh,
        "How often the keys are asked for, at most every second."
    ),
    url!(
        "access.introspection_url",
        |config| &mut config.access.introspection_url,
        "Where passwords that are no tokens with known keys are introspected as tokens (OAuth 2, RFC \
         7662). Empty: nowhere."
    ),
    text!(
        "access.introspection_client",
        "a text",
        |config| &mut config.access.introspection_client,
        "As which client the broker introspects (Basic authentication). Empty: its secret is a Bearer token."
    ),
    path!(
        "access.introspection_secret_file",
        |config| &mut config.access.introspection_secret_file,
        "The secret for introspection. Read again on SIGHUP. Empty: none."
    ),
    url!(
        "access.authenticate_url",
        |config| &mut config.access.authenticate_url,
        "Who is asked, with a POST of JSON, whether clients may connect that are not in the password file; \
         docs/access.md says what is asked and answered. Empty: nobody."
    ),
    path!(
        "access.authenticate_secret_file",
        |config| &mut config.access.authenticate_secret_file,
        "The Bearer token that shows to that server who asks. Read again on SIGHUP. Empty: none."
    ),
    url!(
        "access.authorize_url",
        |config| &mut config.access.authorize_url,
        "Who is asked, with a POST of JSON, whether clients may publish and subscribe to what no rule of \
         `access.rules` is about; docs/access.md says what is asked and answered. Empty: nobody."
    ),
    path!(
        "access.authorize_secret_file",
        |config| &mut config.access.authorize_secret_file,
        "The Bearer token that shows to that server who asks. Read again on SIGHUP. Empty: none."
    ),
    integer!(
        "access.authorize_topics",
        0..=1_024,
        |config| &mut config.engine.limits.answers_per_session_max,
        "Topics of a connected client for which the answers of that server are kept, those of more than \
         256 bytes excepted; it is asked about all others each time."
    ),
    path!(
        "access.http_ca",
        |config| &mut config.access.http_ca,
        "The authorities that may have signed the certificates of these servers. Empty: those that the \
         system trusts."
    ),
    duration!(
        "access.http_timeout",
        60 s,
        |config| &mut config.access.http_timeout,
        "How long a client waits for the answers of these servers. Then it is refused (0x88), or what it \
         wants to do (0x83)."
    ),
    duration!(
        "access.http_cache",
        86_400 s,
        |config| &mut config.access.http_cache,
        "How long an answer holds for the same client with the same password, or for the same topic, yes \
         or no. \"0s\": each time they are asked."
    ),
    text!(
        "access.token_issuer",
        "a text",
        |config| &mut config.access.token_issuer,
        "Who must have issued a token: its claim `iss`. Empty: whoever has a key."
    ),
    text!(
        "access.token_audience",
        "a text",
        |config| &mut config.access.token_audience,
        "Whom a token must be for: its claim `aud`, or one of its values. Empty: anybody."
    ),
    Setting {
        key: "access.token_user",
        kind: Kind::Text {
            allowed: "the name of a claim",
            is_allowed: |text| !text.is_empty(),
        },
        about: "The claim of a token that is the User Name.",
        get: |config| Value::Text(config.access.token_user.clone()),
        set: |config, value| config.access.token_user = value.text(),
    },
    path!(
        "access.rules",
        |config| &mut config.access.rules,
        "The rules for what clients may publish, subscribe to and be sent; docs/access.md says how to \
         write them. Read again on SIGHUP. Empty: everything is allowed."
    ),
    choice!(
        "access.lost_subscriptions",
        LOST_SUBSCRIPTIONS,
        |config| &mut config.access.lost_subscriptions,
        "What happens, when rules are read again, to a connected client with a subscription that they \
         do not allow. `keep`: it keeps it, as it believes, and is sent only what the rules let it \
         have. `disconnect`: it is disconnected with 0x98 (administrative action; 3.x: closed)."
    ),
    choice!(
        "access.client_ids",
        CLIENT_IDS,
        |config| &mut config.engine.client_ids,
        "Whom a session belongs to. `of each user`: to its user and its Client Identifier, so that \
         another user with the same Client Identifier gets a session of his own. `shared`: to its \
         Client Identifier, and whoever has it takes the session over. Clients without a User Name \
         share theirs in either case."
    ),
    path!(
        "access.bans",
        |config| &mut config.access.bans,
        "Addresses, Client Identifiers and users that are banned; docs/limits.md says how to write \
         them. Read again on SIGHUP. Empty: nobody is."
    ),
    path!(
        "access.tenants",
        |config| &mut config.access.tenants,
        "Who belongs to which tenant, and what each tenant may have; docs/tenants.md says how to write \
         it. Read again on SIGHUP. Empty: listeners and claims alone name tenants."
    ),
    text!(
        "access.tenant_claim",
        "the name of a claim",
        |config| &mut config.access.tenant_claim,
        "The claim of a token, or of the answer of another server, that is the name of the client's \
         tenant. Empty: none is."
    ),
    integer!(
        "hooks.threads",
        1..=256,
        |config| &mut config.hooks.threads,
        "Where the broker is a part of a program that decides some things itself (docs/hooks.md): how many \
         threads ask it. All of this section is for such programs."
    ),
    duration!(
        "hooks.authenticate_timeout",
        1 ms,
        3_600 s,
        |config| &mut config.hooks.authenticate_timeout,
        "How long a client that connects waits for the program's answer."
    ),
    choice!(
        "hooks.authenticate_missed",
        MISSED,
        |config| &mut config.hooks.authenticate_missed,
        "What happens then. `refuse`: it is refused (0x88). `pass`: what section `[access]` says decides."
    ),
    duration!(
        "hooks.authorize_timeout",
        1 ms,
        3_600 s,
        |config| &mut config.hooks.authorize_timeout,
        "How long a client that publishes or subscribes, where no rule is about it, waits for the \
         program's answer."
    ),
    choice!(
        "hooks.authorize_missed",
        MISSED,
        |config| &mut config.hooks.authorize_missed,
        "What happens then. `refuse`: it is refused (0x87). `pass`: what section `[access]` says decides."
    ),
    duration!(
        "hooks.authorize_cache",
        0 ms,
        86_400 s,
        |config| &mut config.hooks.authorize_cache,
        "How long such an answer holds for the same client and topic. \"0s\": each time it is asked."
    ),
    duration!(
        "hooks.publish_in_timeout",
        1 ms,
        3_600 s,
        |config| &mut config.hooks.publish_in_timeout,
        "How long a message that a client publishes waits for the program's answer."
    ),
    choice!(
        "hooks.publish_in_missed",
        MISSED,
        |config| &mut config.hooks.publish_in_missed,
        "What happens then. `refuse`: it is refused (0x80; 3.x: it counts as acknowledged). `pass`: it is \
         published as it came."
    ),
    duration!(
        "hooks.publish_out_budget",
        0 ms,
        60 s,
        |config| &mut config.hooks.publish_out_budget,
        "How long the program may take to decide what one session gets of a message, while a shard \
         waits. What takes longer is counted and logged."
    ),
    integer!(
        "hooks.events_max",
        1..=1_000_000,
        |config| &mut config.hooks.events_max,
        "How many events (connected, disconnected, subscribed, unsubscribed) wait to be told to the \
         program. Further ones are dropped and counted."
    ),
    Setting {
        key: "log.filter",
        kind: Kind::Text {
            allowed: "a level (error, warn, info, debug, trace) or directives such as \
                      \"info,avocet_broker=debug\"",
            is_allowed: |text| text.parse::<tracing_subscriber::filter::Targets>().is_ok(),
        },
        about: "What is logged to standard error.",
        get: |config| Value::Text(config.log.filter.clone()),
        set: |config, value| config.log.filter = value.text(),
    },
    choice!(
        "log.format",
        LOG_FORMATS,
        |config| &mut config.log.format,
        "How log lines look: `text` for people, `json` for programs (one object per line)."
    ),
    // What every connection is offered and held to.
    integer!(
        "mqtt.maximum_qos",
        0..=2,
        |config| &mut connection(config).maximum_qos,
        "The greatest QoS of messages clients publish. Beyond: 5.0 clients are disconnected with \
         0x9B (QoS not supported), 3.x clients without a code."
    ),
    bytes!(
        "mqtt.maximum_packet_size",
        1024..=268_435_460,
        |config| &mut connection(config).maximum_packet_size,
        "The largest packet a client may send, with its header. Beyond: 5.0 clients are \
         disconnected with 0x95 (packet too large), 3.x clients without a code."
    ),
    integer!(
        "mqtt.receive_maximum",
        1..=U16,
        |config| &mut connection(config).receive_maximum,
        "QoS 1 and 2 messages a client may send before the first one is acknowledged. Beyond: 5.0 \
         clients are disconnected with 0x93 (receive maximum exceeded); 3.x clients are not read \
         until acknowledgements have left."
    ),
    integer!(
        "mqtt.topic_alias_maximum",
        0..=U16,
        |config| &mut connection(config).topic_alias_maximum,
        "Topic Aliases a 5.0 client may set."
    ),
    integer!(
        "mqtt.topic_aliases",
        0..=U16,
        |config| &mut session(config).topic_aliases,
        "Topic Aliases used towards a 5.0 client that allows them."
    ),
    integer!(
        "mqtt.keep_alive_max",
        0..=U16,
        |config| &mut connection(config).keep_alive_max,
        "The longest Keep Alive in seconds. 5.0 clients that ask for more, or for none, are told \
         this one. 0: as the client asks."
    ),
    integer!(
        "mqtt.keep_alive_min",
        0..=U16,
        |config| &mut connection(config).keep_alive_min,
        "The shortest Keep Alive in seconds. 5.0 clients that ask for less, but not for none, are \
         told this one. 0: as the client asks."
    ),
    flag!(
        "mqtt.keep_alive_refused",
        |config| &mut config.engine.limits.keep_alive_refused,
        "Whether clients of 3.x, which cannot be told another one, are refused (return code 2) if \
         their Keep Alive is longer than `mqtt.keep_alive_max`, or none."
    ),
    integer!(
        "mqtt.session_expiry_interval_max",
        0..=U32,
        |config| &mut config.engine.limits.session_expiry_interval_max,
        "How many seconds a session lives on without a connection. 5.0 clients that ask for more \
         are told this one. 4294967295: without end."
    ),
    flag!(
        "mqtt.retain_available",
        |config| &mut connection(config).retain_available,
        "Whether messages may be retained. If not, 5.0 clients that try are disconnected with 0x9A \
         (retain not supported)."
    ),
    flag!(
        "mqtt.wildcard_subscription_available",
        |config| &mut connection(config).wildcard_subscription_available,
        "Whether Topic Filters may hold wildcards. If not, the SUBACK says 0xA2."
    ),
    flag!(
        "mqtt.subscription_ids_available",
        |config| &mut connection(config).subscription_ids_available,
        "Whether SUBSCRIBE may hold a Subscription Identifier. If not, clients that use one are \
         disconnected with 0xA1."
    ),
    flag!(
        "mqtt.shared_subscription_available",
        |config| &mut connection(config).shared_subscription_available,
        "Whether `$share/NAME/FILTER` may be subscribed to. If not, the SUBACK says 0x9E."
    ),
    choice!(
        "mqtt.shared_strategy",
        SHARED_STRATEGIES,
        |config| &mut config.engine.shared_strategy,
        "How a shared subscription chooses the connected member that gets a message. `by topic` \
         keeps the messages of a topic in order, `by publisher` those of a client."
    ),
    flag!(
        "mqtt.check_payload_format",
        |config| &mut config.engine.check_payload_format,
        "Whether a payload that is declared to be UTF-8 is checked; 0x99 (payload format invalid) \
         if it is not."
    ),
    flag!(
        "mqtt.long_client_ids",
        |config| &mut connection(config).long_client_ids,
        "Whether clients of 3.1 may have a Client Identifier of more than 23 characters."
    ),
    text!(
        "mqtt.response_information",
        "a text of at most 65535 bytes",
        |config| &mut config.engine.response_information,
        "Response Information for 5.0 clients that ask for it. `%c` stands for the Client \
         Identifier."
    ),
    text!(
        "mqtt.server_reference",
        "a text of at most 65535 bytes",
        |config| &mut config.engine.server_reference,
        "The Server Reference that 5.0 clients are given when the broker stops: where to go."
    ),
    Setting {
        key: "mqtt.sys_interval",
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: Duration::from_secs(86_400),
        },
        about: "How often the topics below `$SYS/` are brought up to date. `\"0s\"`: there are none.",
        get: |config| Value::Duration(config.engine.sys_interval.unwrap_or_default()),
        set: |config, value| {
            config.engine.sys_interval = Some(value.duration()).filter(|every| !every.is_zero());
        },
    },
    duration!(
        "mqtt.connect_timeout",
        3_600 s,
        |config| &mut connection(config).connect_timeout,
        "How long a client may take from opening a connection until it is accepted. Then it is \
         closed."
    ),
    duration!(
        "mqtt.drain_timeout",
        3_600 s,
        |config| &mut connection(config).drain_timeout,
        "How long the last packet for a client may take to leave. Then the connection is closed."
    ),
    // What a session may hold.
    integer!(
        "queue.inflight",
        1..=U16,
        |config| &mut session(config).inflight,
        "QoS 1 and 2 messages sent to a 3.x client before the first one is acknowledged. 5.0 \
         clients say this themselves (Receive Maximum)."
    ),
    integer!(
        "queue.messages_max",
        0..=MANY,
        |config| &mut session(config).queued_messages_max,
        "Messages that wait for one client. Beyond, `queue.overflow` says which one is dropped."
    ),
    bytes!(
        "queue.bytes_max",
        0..=TIB,
        |config| &mut session(config).queued_bytes_max,
        "Bytes of the messages that wait for one client: topics, properties and payloads."
    ),
    choice!(
        "queue.overflow",
        OVERFLOWS,
        |config| &mut session(config).overflow,
        "Which message is dropped when a queue is full."
    ),
    duration!(
        "queue.slow_publishers",
        3_600 s,
        |config| &mut config.engine.limits.slow_publishers,
        "For how long the queue of a connected client that is more than half full slows those who \
         publish to it: after each such message they are not read for up to a hundredth of this. \
         After that messages are dropped at full speed, until the queue has been half empty. 0: \
         they are never slowed."
    ),
    integer!(
        "queue.resident_messages",
        1..=MANY,
        |config| &mut session(config).resident_messages,
        "How many of the QoS 1 and 2 messages that wait for one client are kept in memory; the \
         others are on disk only. Without a `data_dir` all are in memory."
    ),
    flag!(
        "queue.qos0",
        |config| &mut session(config).queue_qos0,
        "Whether QoS 0 messages wait for clients that are not connected."
    ),
];

#[cfg(test)]
mod tests {
    use super::super::value::Raw;
    use super::*;

    #[test]
    fn every_setting_holds_what_it_is_set_to() {
        for setting in settings() {
            let values: Vec<Value> = match setting.kind {
                Kind::Flag => vec![Value::Flag(true), Value::Flag(false)],
                Kind::Integer { min, max } => vec![Value::Integer(min), Value::Integer(max)],
                Kind::Bytes { min, max } => vec![Value::Bytes(min), Value::Bytes(max)],
                Kind::Choice(names) => names
                    .iter()
                    .map(|name| Value::Text((*name).to_owned()))
                    .collect(),
                Kind::Duration { min, max } => vec![Value::Duration(min), Value::Duration(max)],
                Kind::Text { .. } => vec![Value::Text("debug".to_owned())],
                Kind::Listeners | Kind::Address => {
                    vec![setting.kind.read(&Raw::Text("[::1]:7".to_owned())).unwrap()]
                }
                Kind::Levels => vec![
                    Value::Levels(vec![("a/".to_owned(), Durability::Os)]),
                    Value::Levels(Vec::new()),
                ],
                Kind::Tls | Kind::WebSocket | Kind::Texts { .. } => {
                    panic!("{} is a part of a setting", setting.key)
                }
            };
            let mut config = Config::default();
            for value in values {
                (setting.set)(&mut config, value.clone());
                assert_eq!((setting.get)(&mut config), value, "{}", setting.key);
            }
        }
    }

    #[test]
    fn keys_and_variables_are_unique() {
        for (index, setting) in settings().enumerate() {
            for other in settings().take(index) {
                assert_ne!(setting.key, other.key);
                assert_ne!(setting.variable(), other.variable());
            }
        }
    }
}
