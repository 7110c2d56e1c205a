//! Strangers and clients that mean harm, at every listener at once, and those that mean none.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]
#![allow(clippy::disallowed_methods, reason = "it measures delays")]

mod attacks;
#[path = "../common/certificates.rs"]
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod doors;

use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use avocet_codec::{Ack, Connect, Delivery, Packet, QoS, TopicName, Version, Will};

use attacks::{ATTACKS, Dice, login};
use common::{Client, DEADLINE, Server, id};
use doors::{DOORS, Door};

/// What a message between two that behave may take at most, on a machine that does other things too.
const DELAY_MAX: Duration = Duration::from_secs(20);

/// In one wave at least, all but one in a hundred of the messages between those that behave may take so many times what they
/// take in calm.
const TIMES_MAX: f64 = 3.0;

/// As what calm counts at least: a thread that has to wait for its turn on two cores that are busy with
/// something else, in a phase where the calm before and after had luck.
const CALM_MIN: Duration = Duration::from_millis(50);

/// How long a phase of calm is, at least.
const CALM_TIME: Duration = Duration::from_secs(1);

/// Threads of attackers.
const ATTACKERS: usize = 6;

/// In a wave, each attack is made once at each door.
const WAVES: usize = 3;

/// A publisher and a subscriber. Each message waits for the one before.
struct Pair {
    qos: QoS,
    topic: String,
    publisher: Client,
    subscriber: Client,
    sent: u64,
}

impl Pair {
    fn new(server: &Server, qos: QoS) -> Self {
        let name = format!("pair/{}", qos as u8);
        let publisher = server.connect(Version::V5, &format!("{name} publisher"));
        let mut subscriber = server.connect(Version::V5, &format!("{name} subscriber"));
        subscriber.subscribe(&name, qos);
        Self {
            qos,
            topic: name,
            publisher,
            subscriber,
            sent: 0,
        }
    }

    /// Sends one message all the way, each acknowledgement included. It must come, once, in its order.
    fn exchange(&mut self) -> Duration {
        self.sent += 1;
        let payload = self.sent.to_be_bytes();
        let delivery = match self.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id(1)),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id(1)),
        };
        let start = Instant::now();
        self.publisher.publish(&self.topic, delivery, &payload);
        let (received, delivery) = self.subscriber.receive_publish();
        assert_eq!(received, payload, "{}", self.topic);
        match delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => {
                self.subscriber.send(&Packet::Puback(Ack::new(id)));
                let frame = self.publisher.receive();
                assert!(matches!(frame.packet(), Packet::Puback(_)), "{frame:?}");
            }
            Delivery::ExactlyOnce(packet_id) => {
                self.subscriber.send(&Packet::Pubrec(Ack::new(packet_id)));
                let frame = self.publisher.receive();
                assert!(matches!(frame.packet(), Packet::Pubrec(_)), "{frame:?}");
                self.publisher.send(&Packet::Pubrel(Ack::new(id(1))));
                let frame = self.subscriber.receive();
                assert!(matches!(frame.packet(), Packet::Pubrel(_)), "{frame:?}");
                self.subscriber.send(&Packet::Pubcomp(Ack::new(packet_id)));
                let frame = self.publisher.receive();
                assert!(matches!(frame.packet(), Packet::Pubcomp(_)), "{frame:?}");
            }
        }
        start.elapsed()
    }
}

/// Half of them took no longer, and all but one in a hundred.
fn percentiles(mut delays: Vec<Duration>) -> [Duration; 2] {
    delays.sort_unstable();
    [50, 99].map(|percent| delays[(delays.len() - 1) * percent / 100])
}

/// The delays of all pairs at once, with nobody else about.
fn in_calm(pairs: &mut [Pair]) -> Vec<[Duration; 2]> {
    let exchange = |pair: &mut Pair| {
        let (mut delays, start) = (Vec::new(), Instant::now());
        while delays.len() < 2_000 || start.elapsed() < CALM_TIME {
            delays.push(pair.exchange());
        }
        percentiles(delays)
    };
    thread::scope(|scope| {
        let pairs = pairs.iter_mut();
        let pairs: Vec<_> = pairs
            .map(|pair| scope.spawn(move || exchange(pair)))
            .collect();
        pairs.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// What a process has: open files, and kilobytes of memory.
fn holdings(process: u32) -> (usize, usize) {
    let folder = Path::new("/proc").join(process.to_string());
    let files = fs::read_dir(folder.join("fd")).unwrap().count();
    let status = fs::read_to_string(folder.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB").parse();
    (files, kilobytes.unwrap())
}

#[test]
fn those_who_behave_lose_nothing_while_every_listener_is_attacked() {
    let (server, doors) = doors::start();
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let mut pairs = qos.map(|qos| Pair::new(&server, qos));
    for door in DOORS {
        login(&doors, door, "before").unwrap();
    }
    let (files, memory) = holdings(server.id());
    println!("before: {files} files, {memory} KiB");

    let mut before = in_calm(&mut pairs);
    let mut least = qos.map(|_| f64::INFINITY);
    for wave in 0..WAVES {
        let jobs = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let attacked = thread::scope(|scope| {
            let watchers: Vec<_> = pairs
                .iter_mut()
                .map(|pair| {
                    scope.spawn(|| {
                        let mut delays = Vec::new();
                        while !over.load(Ordering::Relaxed) {
                            delays.push(pair.exchange());
                        }
                        delays
                    })
                })
                .collect();
            let attackers: Vec<_> = (0..ATTACKERS)
                .map(|_| {
                    scope.spawn(|| {
                        // What they take is to be the broker's time, not the processor's.
                        let _ = rustix::process::nice(19);
                        loop {
                            let job = jobs.fetch_add(1, Ordering::Relaxed);
                            if job >= DOORS.len() * ATTACKS.len() {
                                return;
                            }
                            let door = DOORS[job % DOORS.len()];
                            let (_, attack) = ATTACKS[job / DOORS.len() % ATTACKS.len()];
                            let mut dice = Dice((wave * 10_000 + job) as u64);
                            // The broker ends what it does not want.
                            let _ = attack(&doors, door, &mut dice);
                        }
                    })
                })
                .collect();
            for attacker in attackers {
                attacker.join().unwrap();
            }
            over.store(true, Ordering::Relaxed);
            let delays = watchers.into_iter().map(|it| it.join().unwrap());
            delays.collect::<Vec<_>>()
        });
        let after = in_calm(&mut pairs);
        let phases = qos
            .iter()
            .zip(&mut least)
            .zip(before.iter().zip(&after))
            .zip(attacked);
        for (((qos, least), (before, after)), delays) in phases {
            let (count, worst) = (delays.len(), *delays.iter().max().unwrap());
            let attacked = percentiles(delays);
            let calm = before[1].max(after[1]);
            let times = attacked[1].as_secs_f64() / calm.as_secs_f64();
            println!(
                "wave {wave}, {qos:?}: p50 and p99 {before:?} before and {after:?} after, {attacked:?} of {count} \
                 under attack ({times:.1} times), worst {worst:?}"
            );
            *least = least.min(attacked[1].as_secs_f64() / calm.max(CALM_MIN).as_secs_f64());
            assert!(worst < DELAY_MAX, "{qos:?}: {worst:?}");
        }
        before = after;
        for door in DOORS {
            login(&doors, door, "after").unwrap();
        }
        // What the attackers left goes, as soon as the broker has read its end or lost patience.
        let start = Instant::now();
        while holdings(server.id()).0 > files {
            for pair in &mut pairs {
                pair.exchange();
            }
            assert!(start.elapsed() < DEADLINE, "{:?}", holdings(server.id()));
        }
        let after = holdings(server.id());
        println!("after wave {wave}: {} files, {} KiB", after.0, after.1);
        assert!(
            after.1 < memory + (32 << 10),
            "{memory} and then {} KiB",
            after.1
        );
    }
    // A broker that gives way to attackers does so in each wave; other work of the machine does not.
    assert!(least.iter().all(|it| *it < TIMES_MAX), "{least:?} times");
}

/// Neither has a Keep Alive: only QUIC can tell who of them is there.
#[test]
fn a_quic_client_that_vanishes_is_noticed_and_one_that_is_silent_stays() {
    let (_server, doors) = doors::start();
    let quic = |client_id, will| {
        let mut connect = Connect::new(Version::V5, client_id);
        connect.will = will;
        Client::connect_over(doors.enter(Door::Quic).unwrap(), &connect)
    };
    let topic = TopicName::new("gone").unwrap();
    let vanishes = quic("vanishes", Some(Will::new(topic, b"lost")));
    let mut silent = quic("silent", None);
    silent.subscribe("gone", QoS::AtMostOnce);
    drop(vanishes);
    let start = Instant::now();
    let frame = loop {
        // Its reading ends now and then without anything.
        match silent.receive_or_fail() {
            Some(frame) => break frame,
            None => assert!(start.elapsed() < DEADLINE),
        }
    };
    assert!(matches!(frame.packet(), Packet::Publish(will) if will.payload == b"lost"));
}

/// Ticks of processor time that a process has used.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let number = |at: usize| fields[at].parse::<u64>().unwrap();
    // The 14th and the 15th, of which the first two are before.
    number(11) + number(12)
}

#[test]
fn at_the_limit_on_open_files_those_inside_are_served_and_others_wait() {
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(common::command().get_program())
        .args(["--listen", "127.0.0.1:0", "--shards", "1"])
        .stderr(Stdio::piped());
    let mut server = Server::spawn(limited);
    let mut pair = Pair::new(&server, QoS::AtLeastOnce);
    let mut idle: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    server.wait_for_log("cannot accept connections");
    for _ in 0..100 {
        pair.exchange();
    }
    // A second in which nothing comes: a broker that turns in circles would use all of it.
    let before = ticks(server.id());
    idle[0]
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let nothing = idle[0].read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    let used = ticks(server.id()) - before;
    assert!(used <= 20, "{used} ticks of 10 ms in a second of nothing");
    pair.exchange();
    drop(idle);
    server.wait_for_log("accepting connections again");
    Pair::new(&server, QoS::ExactlyOnce).exchange();
    pair.exchange();
}
