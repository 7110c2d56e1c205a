//! The configuration of a broker.

mod error;
pub(crate) mod listener;
mod reference;
mod settings;
mod sources;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avocet_engine::{ClientIds, EngineConfig, Flapping, Level, Levels};

pub use error::{ConfigError, Origin};
pub use listener::{
    AddressError, CertificateUser, ListenAddress, Listener, ListenerTls, ListenerWebSocket,
};
pub use reference::reference;
pub use sources::ConfigBuilder;

use crate::hooks::{HookSettings, Interests};

const MAXIMUM_PACKET_SIZE: NonZeroU32 = const { NonZeroU32::new(4 << 20).unwrap() };

/// A few pages of what a client takes at once.
const RESIDENT_MESSAGES: usize = 1_000;

/// Everything that can be set. `docs/configuration.md` describes each setting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where clients are served.
    pub listen: Vec<Listener>,
    /// Where durable state is kept; made when it is missing. `None`: all state is in memory.
    pub data_dir: Option<PathBuf>,
    /// Where the binary is told to read its files again. `None`: in the data directory, if there is one.
    pub control_socket: Option<PathBuf>,
    /// What an acknowledgement says, where there is a data directory.
    pub durability: Durability,
    /// The same for messages by the beginning of their Topic Names. Of several that fit, and of what
    /// the listener says, the strictest counts.
    pub topic_durability: Vec<(String, Durability)>,
    /// How many threads share the clients; `None` is half of the cores, at least one.
    pub shards: Option<NonZeroU16>,
    /// How long a shard with much to do may let input gather before it reads; zero is never.
    pub gather_max: Duration,
    /// How long clients may take to read what they were still to get when the broker stops.
    pub stop_timeout: Duration,
    /// The user that the binary becomes when it was started as root. `None`: it stays root.
    pub user: Option<Box<str>>,
    /// The group that goes with `user`. `None`: those of the user.
    pub group: Option<Box<str>>,
    /// Sockets of one shard whose handshake (PROXY protocol, TLS, WebSocket) goes on. Beyond, the one
    /// whose time ends first is closed.
    pub handshakes_max: usize,
    /// How long a packet that has begun may take to come; zero: as long as it takes.
    pub packet_timeout: Duration,
    /// How many connections there may be, and how fast they may come.
    pub connections: ConnectionLimits,
    /// When a client is banned for connecting again and again; with 0 connections nobody is.
    pub flapping: Flapping,
    /// Bytes of memory beyond which no new load is taken; 0 for four fifths of what there is.
    pub memory_max: u64,
    /// Who may connect.
    pub access: Access,
    /// What the program that the broker is a part of decides itself.
    pub hooks: HookSettings,
    /// What is logged, by the binary.
    pub log: Log,
    /// How the protocol is served, and the limits. What it says of durability comes from the settings
    /// above.
    pub engine: EngineConfig,
}

/// How many connections a broker has, and how fast they come. A CONNECT beyond is refused with 0x97
/// (quota exceeded) or 0x9F (connection rate exceeded).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Connections of all shards.
    pub connections_max: usize,
    /// Connections from one address; one network of 64 bits in IPv6.
    pub per_address_max: Option<NonZeroU32>,
    /// Clients of one user that are connected at a time.
    pub per_user_max: Option<NonZeroU32>,
    /// Connections that come from one address in a second.
    pub connects_per_address: Option<NonZeroU32>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            per_address_max: None,
            per_user_max: None,
            connects_per_address: None,
        }
    }
}

/// What an acknowledgement says of the message, or of the change, that it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// That it is in memory: it may end with the process.
    Memory,
    /// That the operating system has it: it survives the process, but not the loss of power.
    Os,
    /// That it is on disk, where it survives the loss of power.
    #[default]
    Fsync,
}

impl From<Durability> for Level {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Memory => Self::Memory,
            Durability::Os => Self::Os,
            Durability::Fsync => Self::Fsync,
        }
    }
}

impl Config {
    /// Whether state is kept in a data directory.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.data_dir.is_some() && self.strictest() != Durability::Memory
    }

    /// Where the binary is told to read its files again, if anywhere.
    #[must_use]
    pub fn control_socket(&self) -> Option<PathBuf> {
        let dir = self.data_dir.as_ref().filter(|_| self.is_durable());
        let default = || dir.map(|dir| dir.join("control.sock"));
        self.control_socket.clone().or_else(default)
    }

    /// The strictest level that anything has.
    fn strictest(&self) -> Durability {
        let listeners = self.listen.iter().filter_map(|it| it.durability);
        let topics = self.topic_durability.iter().map(|it| it.1);
        listeners.chain(topics).fold(self.durability, Ord::max)
    }

    /// Which level is for whom.
    pub(crate) fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        levels.default = self.durability.into();
        for (number, listener) in (0..).zip(&self.listen) {
            let level = listener.durability.map(|level| (number, level.into()));
            levels.listeners.extend(level);
        }
        for (prefix, level) in &self.topic_durability {
            let prefix = prefix.as_str().into();
            levels.topics.push((prefix, (*level).into()));
        }
        levels
    }
}

/// What happens to a client with a subscription that new rules do not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostSubscriptions {
    /// It keeps it, as it believes, and is sent only what the rules let it have.
    #[default]
    Keep,
    /// It is disconnected, in 5.0 with 0x98 (administrative action).
    Disconnect,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// Whether anyone who reaches a listener may connect, also from other machines; with a password
    /// file, those who present no User Name.
    pub anonymous: bool,
    /// The users and the hashes of their passwords.
    pub password_file: Option<PathBuf>,
    /// The keys that tokens are signed with, a JSON Web Key Set. `None`: tokens let nobody in.
    pub token_keys: Option<PathBuf>,
    /// The same from a URL: `https`, or `http` on this machine.
    pub token_keys_url: Option<Box<str>>,
    /// How often they are asked for.
    pub token_keys_refresh: Duration,
    /// Where tokens are introspected (RFC 7662), as those that keys say nothing of.
    pub introspection_url: Option<Box<str>>,
    /// As whom. `None`: whoever has the secret.
    pub introspection_client: Option<Box<str>>,
    /// The secret for it.
    pub introspection_secret_file: Option<PathBuf>,
    /// Who is asked about users that are not in the password file.
    pub authenticate_url: Option<Box<str>>,
    /// What shows that it is this broker who asks.
    pub authenticate_secret_file: Option<PathBuf>,
    /// Who is asked what clients may do that no rule is about.
    pub authorize_url: Option<Box<str>>,
    /// What shows that it is this broker who asks.
    pub authorize_secret_file: Option<PathBuf>,
    /// The authorities that may have signed the certificates of these servers. `None`: those of the
    /// system.
    pub http_ca: Option<PathBuf>,
    /// How long a client waits for their answers.
    pub http_timeout: Duration,
    /// How long an answer holds for the same client. Zero: for this once.
    pub http_cache: Duration,
    /// Who must have issued a token (`iss`). `None`: anybody who has a key.
    pub token_issuer: Option<Box<str>>,
    /// Whom a token must be for (`aud`). `None`: anybody.
    pub token_audience: Option<Box<str>>,
    /// The claim of a token that is the User Name.
    pub token_user: String,
    /// The rules for what clients may publish, subscribe to and be sent. `None`: everything.
    pub rules: Option<PathBuf>,
    /// What happens to clients with a subscription that new rules do not allow.
    pub lost_subscriptions: LostSubscriptions,
    /// Who is banned. `None`: nobody.
    pub bans: Option<PathBuf>,
    /// Who belongs to which tenant, and what tenants may have. `None`: only listeners and claims name
    /// tenants, which may have what there is.
    pub tenants: Option<PathBuf>,
    /// The claim of a token, or of another server's answer, that is the name of a tenant. `None`: no
    /// claim is.
    pub tenant_claim: Option<Box<str>>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            anonymous: false,
            password_file: None,
            token_keys: None,
            token_keys_url: None,
            token_keys_refresh: Duration::from_secs(3_600),
            introspection_url: None,
            introspection_client: None,
            introspection_secret_file: None,
            authenticate_url: None,
            authenticate_secret_file: None,
            authorize_url: None,
            authorize_secret_file: None,
            http_ca: None,
            http_timeout: Duration::from_secs(2),
            http_cache: Duration::from_secs(30),
            token_issuer: None,
            token_audience: None,
            token_user: "sub".to_owned(),
            rules: None,
            lost_subscriptions: LostSubscriptions::default(),
            bans: None,
            tenants: None,
            tenant_claim: None,
        }
    }
}

impl Access {
    /// Whether there is something that clients can show in CONNECT.
    pub(crate) const fn knows_clients(&self) -> bool {
        let asks = self.introspection_url.is_some() || self.authenticate_url.is_some();
        let tokens = self.token_keys.is_some() || self.token_keys_url.is_some();
        self.password_file.is_some() || tokens || asks
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// The level, or directives of `tracing-subscriber`'s `Targets`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)).into()],
            data_dir: None,
            control_socket: None,
            durability: Durability::default(),
            topic_durability: Vec::new(),
            shards: None,
            gather_max: Duration::from_micros(60),
            stop_timeout: Duration::from_secs(5),
            user: None,
            group: None,
            handshakes_max: 1_000,
            packet_timeout: Duration::from_secs(300),
            connections: ConnectionLimits::default(),
            flapping: Flapping {
                connects_max: 0,
                window: Duration::from_secs(60),
                ban: Duration::from_secs(300),
            },
            memory_max: 0,
            access: Access::default(),
            hooks: HookSettings::default(),
            log: Log {
                filter: "info".to_owned(),
                format: LogFormat::Text,
            },
            engine: engine_defaults(),
        }
    }
}

/// The engine's own defaults, but for sessions, which no user takes from another one, for packets that may hold a few megabytes (devices send images),
/// and for queues, whose messages stay on disk where there is one.
fn engine_defaults() -> EngineConfig {
    let mut engine = EngineConfig::default();
    engine.client_ids = ClientIds::OfEachUser;
    let connection = Arc::make_mut(&mut engine.connection);
    connection.maximum_packet_size = MAXIMUM_PACKET_SIZE;
    connection.limits.resident_messages = RESIDENT_MESSAGES;
    engine
}

impl Config {
    /// Checks that the settings go together and that this version supports them.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_with(|_| Origin::Program)
    }

    fn check_with(&self, origin: impl Fn(&str) -> Origin) -> Result<(), ConfigError> {
        let refused = |key: &str, reason: String| ConfigError::Refused {
            origin: origin(key),
            key: key.to_owned(),
            value: sources::shown(self, key),
            reason,
        };
        if let Some(problem) = self.listen.iter().find_map(Listener::problem) {
            return Err(refused("listen", problem));
        }
        if let Some(address) = self.twice() {
            let reason = format!("{address} is listened on twice");
            return Err(refused("listen", reason));
        }
        if self.group.is_some() && self.user.is_none() {
            let reason = "a `group` goes with a `user`, which is not set".to_owned();
            return Err(refused("group", reason));
        }
        if self.user.is_some() && !cfg!(target_os = "linux") {
            let reason = "on this system the program cannot become another user".to_owned();
            return Err(refused("user", reason));
        }
        let guarded = self.access.anonymous || self.knows_clients();
        let mut listeners = self.listen.iter();
        let public = listeners.find(|it| it.is_public() && !it.requires_certificate());
        if let Some(listener) = public.filter(|_| !guarded) {
            let reason = format!(
                "other machines could reach {}, and anyone could connect, since there is \
                 no authentication; set `password_file` in section `[access]` to a file that \
                 `avocet passwd` makes (or AVOCET_ACCESS_PASSWORD_FILE), or `token_keys` to the keys of tokens, or let the listener's \
                 `tls` require certificates with `client_ca`, or to allow that set \
                 `anonymous = true` in section `[access]` (or AVOCET_ACCESS_ANONYMOUS=true, or the \
                 flag --anonymous), else listen on 127.0.0.1 or [::1]",
                listener.address
            );
            return Err(refused("listen", reason));
        }
        let access = &self.access;
        if access.token_keys.is_some() && access.token_keys_url.is_some() {
            let reason = "`access.token_keys` has keys too, and there is one place for them";
            return Err(refused("access.token_keys_url", reason.to_owned()));
        }
        if access.introspection_url.is_some() && access.authenticate_url.is_some() {
            let reason = "`access.introspection_url` knows clients too, and one of them decides";
            return Err(refused("access.authenticate_url", reason.to_owned()));
        }
        // An address has room for 108 bytes on Linux, a few of which are for a name that it has at first.
        let path = self.control_socket.as_ref();
        if path.is_some_and(|path| path.as_os_str().len() > 95) {
            let reason = "the path of a socket has at most 95 bytes";
            return Err(refused("control_socket", reason.to_owned()));
        }
        for (key, timeout) in [
            (
                "hooks.authenticate_timeout",
                self.hooks.authenticate_timeout,
            ),
            ("hooks.authorize_timeout", self.hooks.authorize_timeout),
            ("hooks.publish_in_timeout", self.hooks.publish_in_timeout),
        ] {
            if timeout.is_zero() {
                let reason = "no answer comes that soon: at least 1 ms".to_owned();
                return Err(refused(key, reason));
            }
        }
        self.check_durability(refused)
    }

    /// Whether there is something that clients can show in CONNECT, or the program itself decides.
    pub(crate) fn knows_clients(&self) -> bool {
        let asked = self.hooks.interests().contains(Interests::AUTHENTICATE);
        self.access.knows_clients() || asked
    }

    /// An address that two listeners have.
    fn twice(&self) -> Option<&ListenAddress> {
        let mut listeners = self.listen.iter().enumerate();
        let twice = listeners.find(|(index, listener)| {
            let mut before = self.listen.iter().take(*index);
            let any_port = matches!(listener.address, ListenAddress::Tcp(it) if it.port() == 0);
            let same =
                |other: &Listener| other.address == listener.address && other.quic == listener.quic;
            !any_port && before.any(same)
        });
        twice.map(|(_, listener)| &listener.address)
    }

    fn check_durability(
        &self,
        refused: impl Fn(&str, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let asks = |level: Durability| level != Durability::Memory;
        let listener = self.listen.iter().any(|it| it.durability.is_some_and(asks));
        let topic = self.topic_durability.iter().any(|it| asks(it.1));
        if self.data_dir.is_none() && (listener || topic) {
            let key = if topic { "topic_durability" } else { "listen" };
            let reason = "nothing is stored without a folder for it; set `data_dir` (or \
                          AVOCET_DATA_DIR, or the flag --data-dir), or ask for no more than \
                          durability \"memory\"";
            return Err(refused(key, reason.to_owned()));
        }
        for (longer, weaker) in &self.topic_durability {
            let mut others = self.topic_durability.iter();
            let covers = |(shorter, level): &&(String, Durability)| {
                longer.starts_with(shorter.as_str()) && level > weaker
            };
            if let Some((shorter, level)) = others.find(covers) {
                let [weaker, level] = [*weaker, *level].map(settings::level_name);
                let reason = format!(
                    "{longer:?} cannot be {weaker:?}: {shorter:?} is {level:?}, and the strictest \
                     that fits counts; give that one to longer beginnings only"
                );
                return Err(refused("topic_durability", reason));
            }
        }
        Ok(())
    }
}
