//! The statements that bind a server, checked over a socket against any broker.
//!
//! A [`Case`] is one story that every conforming server must play. The tags above its name in the
//! list of its [`Group`] say which statements it checks, and in which versions it is played.
//! Nothing is assumed of the server but that it lets anyone publish and subscribe.

mod connect;
mod flow;
mod limits;
mod malformed;
mod peer;
mod publish;
mod qos;
mod retained;
mod sessions;
mod shared;
mod subscribe;
mod topics;
mod wills;

use std::fmt::{self, Display};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use avocet_codec::{Connect, Version};

use peer::Peer;

/// Some statements, and the story that checks them.
#[derive(Debug)]
pub struct Case {
    /// What the server does, as a sentence.
    pub name: &'static str,
    /// The tags of the statements.
    pub tags: &'static str,
    run: fn(&Server) -> Result<()>,
}

impl Case {
    /// The versions that have any of the statements.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        let has = |prefix| self.tags.contains(prefix);
        let versions = [
            (has("MQTT311-"), Version::V3_1_1),
            (has("MQTT5-"), Version::V5),
        ];
        versions
            .into_iter()
            .filter_map(|(has, version)| has.then_some(version))
    }
}

/// The cases of one part of the standards.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Its cases.
    pub cases: &'static [Case],
}

/// Cases that need a server which limits what it offers; their names begin with what it limits.
pub const LIMITS: &Group = &limits::GROUP;

/// All cases that any server can play.
pub const GROUPS: &[Group] = &[
    connect::GROUP,
    sessions::GROUP,
    wills::GROUP,
    publish::GROUP,
    retained::GROUP,
    subscribe::GROUP,
    qos::GROUP,
    topics::GROUP,
    shared::GROUP,
    flow::GROUP,
    malformed::GROUP,
];

/// A list of cases: functions, each with the tags of its statements above it.
macro_rules! cases {
    ($($(#[doc = $tags:literal])+ $name:ident,)+) => {
        &[$($crate::conformance::Case {
            name: stringify!($name),
            tags: concat!($($tags),+),
            run: $name,
        }),+]
    };
}
use cases;

/// The server under test, as one case sees it.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    version: Version,
    /// Begins every name of this case, so that cases do not disturb one another. It is a valid
    /// Client Identifier of 12 characters.
    prefix: String,
}

impl Server {
    fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// A Client Identifier of this case.
    fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A topic of this case, or a filter if the name is one.
    fn topic(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// A CONNECT that begins a clean session; not all servers allow a Keep Alive of 0.
    fn hello<'a>(&self, id: &'a str) -> Connect<'a> {
        Connect {
            keep_alive: 60,
            ..Connect::new(self.version, id)
        }
    }

    /// A connection without CONNECT.
    fn dial(&self) -> Result<Peer> {
        Peer::dial(self.address, self.version)
    }

    /// A client that was accepted; its CONNACK is kept.
    fn connect(&self, connect: &Connect<'_>) -> Result<Peer> {
        let mut peer = self.dial()?;
        peer.connect(connect)?;
        Ok(peer)
    }

    /// A client that was accepted and leaves nothing behind.
    fn client(&self, name: &str) -> Result<Peer> {
        self.connect(&self.hello(&self.id(name)))
    }

    /// A CONNECT that resumes a session, and leaves it behind for five minutes.
    fn persistent<'a>(&self, id: &'a str) -> Connect<'a> {
        let mut connect = self.hello(id);
        connect.clean_start = false;
        if self.is_v5() {
            connect.properties.session_expiry_interval = 300;
        }
        connect
    }

    /// The Property Length of a packet without properties: nothing in 3.1.1.
    fn no_properties(&self) -> &'static [u8] {
        if self.is_v5() { &[0] } else { &[] }
    }
}

/// What became of a case in one version.
#[derive(Debug)]
pub struct Report {
    /// The case.
    pub case: &'static Case,
    /// The version it was played in.
    pub version: Version,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { name, tags, .. } = self.case;
        match &self.failure {
            None => write!(f, "passed {} {name}", self.version),
            Some(failure) => {
                let version = if self.version == Version::V5 {
                    "MQTT5-"
                } else {
                    "MQTT311-"
                };
                let tags = tags.split_whitespace().filter(|tag| tag.contains(version));
                let tags: Vec<_> = tags.collect();
                write!(
                    f,
                    "FAILED {} {name}: {failure} {}",
                    self.version,
                    tags.join(" ")
                )
            }
        }
    }
}

/// Plays the cases whose name contains `filter`, several at once, and calls `done` after each.
pub fn run<'a>(
    address: SocketAddr,
    groups: impl IntoIterator<Item = &'a Group>,
    filter: &str,
    done: impl FnMut(&Report) + Send,
) -> Vec<Report> {
    /// Most cases wait for the server nearly all of the time.
    const AT_ONCE: usize = 8;
    let jobs: Vec<(&'static Case, Version)> = groups
        .into_iter()
        .flat_map(|group| group.cases)
        .filter(|case| case.name.contains(filter))
        .flat_map(|case| case.versions().map(move |version| (case, version)))
        .collect();
    let run = RandomState::new().build_hasher().finish() as u32;
    let next = AtomicUsize::new(0);
    let reports = Mutex::new((Vec::new(), done));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(case, version)) = jobs.get(number) else {
                return;
            };
            let server = Server {
                address,
                version,
                prefix: format!("c{run:08x}{number:03}"),
            };
            let failure = (case.run)(&server).err().map(|error| format!("{error:#}"));
            let report = Report {
                case,
                version,
                failure,
            };
            if let Ok(mut reports) = reports.lock() {
                let (list, done) = &mut *reports;
                done(&report);
                list.push((number, report));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let (mut list, _) = reports
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    list.sort_by_key(|(number, _)| *number);
    list.into_iter().map(|(_, report)| report).collect()
}
