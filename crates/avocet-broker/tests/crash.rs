//! The broker is killed at random moments under load: what it had acknowledged is there after each
//! restart, QoS 2 comes once, and Session Present is right.
//!
//! `AVOCET_CRASH_KILLS` is how often (20), `AVOCET_CRASH_SEED` chooses the moments.
//! `AVOCET_CRASH_RECORD` names a file to which each kill is added; a run goes on where it ends.
//!
//! With `AVOCET_POWER_CUTS` power fails as often too: the data directory is on a file system in a
//! file (`AVOCET_POWER_FS`: ext4 or xfs), which is shut down without writing anything more, and mounted
//! again. That needs Linux, the rights to mount, and `xfs_io` (xfsprogs).
#![cfg(unix)]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failing helper fails its test"
)]

mod common;
mod crash_clients;
mod power;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::Server;
use crash_clients::{Churner, Cleaner, Publisher, Subscriber, Tally, verify_retained};

const PUBLISHERS: usize = 4;

/// A sequence of numbers that a seed decides.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Lets time go by: these tests are about moments.
fn pause(length: Duration) {
    let (_never, clock) = channel::<()>();
    let _ = clock.recv_timeout(length);
}

/// All clients, which outlive the broker.
struct World {
    publishers: Vec<Publisher>,
    /// Each with what came to it.
    subscribers: Vec<Subscriber>,
    /// Of one group.
    members: Vec<Subscriber>,
    churner: Churner,
    cleaner: Cleaner,
}

impl World {
    fn new() -> Self {
        let of_group = Arc::default();
        Self {
            publishers: (0..PUBLISHERS).map(Publisher::new).collect(),
            subscribers: (0..2)
                .map(|at| Subscriber::new("subscriber", at, "load/#", &Arc::default()))
                .collect(),
            members: (0..2)
                .map(|at| Subscriber::new("member", at, "$share/group/load/#", &of_group))
                .collect(),
            churner: Churner::default(),
            cleaner: Cleaner::default(),
        }
    }

    /// Everybody works until the broker is gone.
    fn work(&mut self, server: &mut Server, wait: Duration, end: impl FnOnce(&Server)) {
        let address = server.address;
        thread::scope(|scope| {
            for publisher in &mut self.publishers {
                scope.spawn(move || publisher.run(address, true));
            }
            for subscriber in self.subscribers.iter_mut().chain(&mut self.members) {
                scope.spawn(move || subscriber.run(address));
            }
            let churner = &mut self.churner;
            scope.spawn(move || churner.run(address));
            let cleaner = &mut self.cleaner;
            scope.spawn(move || cleaner.run(address));
            pause(wait);
            end(server);
            server.kill();
        });
    }

    /// What was promised is there, and nothing twice.
    fn verify(&mut self, server: &Server) -> Tally {
        let address = server.address;
        thread::scope(|scope| {
            for publisher in &mut self.publishers {
                scope.spawn(move || publisher.run(address, false));
            }
        });
        let sent: BTreeMap<_, _> = self.publishers.iter().flat_map(Publisher::sent).collect();
        let mut tally = Tally {
            acknowledged: self.publishers.iter().map(Publisher::acknowledged).sum(),
            ..Tally::default()
        };
        thread::scope(|scope| {
            let sent = &sent;
            for subscriber in self.subscribers.iter_mut().chain(&mut self.members) {
                scope.spawn(move || subscriber.drain(address, sent));
            }
        });
        for subscriber in self.subscribers.iter().chain(self.members.first()) {
            tally += Subscriber::verify(&subscriber.seen);
        }
        verify_retained(address, &self.publishers);
        self.churner.verify(address);
        tally
    }
}

/// Where kills are written down.
struct Record(Option<PathBuf>);

impl Record {
    fn kills(&self) -> u64 {
        let text = self
            .0
            .as_ref()
            .and_then(|path| fs::read_to_string(path).ok());
        let lines = text.iter().flat_map(|text| text.lines());
        lines.filter(|line| line.starts_with("kill ")).count() as u64
    }

    fn add(&self, line: &str) {
        if let Some(path) = &self.0 {
            let file = OpenOptions::new().create(true).append(true).open(path);
            writeln!(file.unwrap(), "{line}").unwrap();
        }
    }
}

/// [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT5-4.4.0-1]
#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let kills = setting("AVOCET_CRASH_KILLS", 20);
    let seed = setting("AVOCET_CRASH_SEED", 1);
    let record = Record(std::env::var_os("AVOCET_CRASH_RECORD").map(PathBuf::from));
    let dir =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{}", std::process::id()));
    let mut world = World::new();
    let first = record.kills();
    for kill in first..kills {
        let mut rng = Rng(seed.wrapping_mul(1_000_003).wrapping_add(kill));
        let shards = if rng.below(2) == 0 { "1" } else { "2" };
        // Some kills come while the broker starts or clients come back, others under load.
        // Not the first one: what is published before there are subscriptions comes to nobody.
        let early = rng.below(4) == 0 && kill > first;
        let wait = Duration::from_millis(if early {
            rng.below(150)
        } else {
            50 + rng.below(800)
        });
        // All of these keep what the system has.
        let level = ["fsync", "os", "mixed"][rng.below(3) as usize];
        eprintln!(
            "kill {kill} of seed {seed}: {shards} shards, {level}, early {early}, after {wait:?}"
        );
        let mut server = start(&dir, shards, level);
        let tally = if early {
            Tally::default()
        } else {
            world.verify(&server)
        };
        world.work(&mut server, wait, |_| ());
        record.add(&format!(
            "kill {kill} seed {seed} shards {shards} level {level} early {early} after {wait:?} {tally}"
        ));
    }
    let server = start(&dir, "2", "fsync");
    let tally = world.verify(&server);
    eprintln!("after the last kill: {tally}");
    drop(server);
    // What a failure leaves behind stays for a look at it.
    fs::remove_dir_all(&dir).unwrap();
}

/// What was not synced is gone, and nothing that was acknowledged.
#[test]
fn power_that_fails_at_any_moment_takes_nothing_that_was_acknowledged() {
    let cuts = setting("AVOCET_POWER_CUTS", 0);
    if cuts == 0 {
        eprintln!("power does not fail: AVOCET_POWER_CUTS says how often it should");
        return;
    }
    let kind = std::env::var("AVOCET_POWER_FS").unwrap_or_else(|_| "ext4".to_owned());
    let seed = setting("AVOCET_CRASH_SEED", 1);
    let dir =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("power-{}", std::process::id()));
    let disk = power::Disk::create(&dir, &kind).unwrap();
    let data = disk.path().join("data");
    let mut world = World::new();
    for cut in 0..cuts {
        let mut rng = Rng(seed.wrapping_mul(1_000_003).wrapping_add(cut));
        let shards = if rng.below(2) == 0 { "1" } else { "2" };
        let early = rng.below(4) == 0;
        let wait = Duration::from_millis(if early {
            rng.below(150)
        } else {
            50 + rng.below(1_500)
        });
        let mut server = start(&data, shards, "fsync");
        let tally = if early {
            Tally::default()
        } else {
            world.verify(&server)
        };
        world.work(&mut server, wait, |server| {
            disk.cut_power(server.id()).unwrap()
        });
        disk.mount_again().unwrap();
        eprintln!(
            "cut {cut} of seed {seed} on {kind}: {shards} shards, early {early}, after {wait:?}, {tally}"
        );
    }
    let server = start(&data, "2", "fsync");
    let tally = world.verify(&server);
    eprintln!("after the last cut: {tally}");
    drop(server);
    disk.remove().unwrap();
    fs::remove_dir_all(&dir).unwrap();
}

fn start(dir: &Path, shards: &str, level: &str) -> Server {
    let dir = dir.to_str().unwrap();
    let mut arguments = vec!["--shards", shards, "--data-dir", dir];
    if level == "mixed" {
        arguments.extend([
            "--set",
            "topic_durability=load/0/=os,load/1/2=os,retained/=os",
        ]);
    } else {
        arguments.extend(["--durability", level]);
    }
    Server::start(&arguments)
}
