//! Publishers and subscribers of QoS 1 on one thread, as little work for the machine as possible.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Publishers that have so many messages outstanding, each with a subscriber of its own whose session
/// is persistent.
pub(crate) struct Clients {
    publishers: Vec<Publisher>,
    subscribers: Vec<Connection>,
    pub(crate) delivered: u64,
    pub(crate) acked: u64,
    /// From when a message was due to its PUBACK.
    pub(crate) latencies: Vec<Duration>,
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// How publishers publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// As much as lets so many messages of each be outstanding.
    Closed { window: usize },
    /// So many messages a second in all, whatever is outstanding, each publisher some at a time.
    Open { rate: f64, burst: u64 },
}

struct Publisher {
    connection: Connection,
    /// Fixed header, topic, two bytes for the Packet Identifier, payload.
    packet: Vec<u8>,
    packet_id_at: usize,
    next_packet_id: u16,
    /// When each of the messages that are outstanding was due.
    outstanding: VecDeque<Instant>,
    /// When those that wait for a place among them were.
    due: VecDeque<Instant>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// What a connection read.
#[derive(Default)]
struct Seen {
    pubacks: usize,
    publishes: usize,
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let low = (left & 127) as u8;
        left >>= 7;
        out.push(low | if left > 0 { 128 } else { 0 });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// The length of the packet at the beginning, once its fixed header is there.
fn packet_len(bytes: &[u8]) -> Option<usize> {
    let (mut len, mut shift) = (0, 0);
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        len |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            return Some(at + 1 + len);
        }
    }
    None
}

impl Connection {
    fn connect(port: u16, client_id: &str, clean_session: bool) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
        };
        let mut body = Vec::new();
        string(&mut body, "MQTT");
        body.extend_from_slice(&[4, if clean_session { 2 } else { 0 }, 0, 0]);
        string(&mut body, client_id);
        connection.ask(&packet(0x10, &body), 0x20)?;
        Ok(connection)
    }

    /// Sends a packet and waits for the answer.
    fn ask(&mut self, packet: &[u8], answer: u8) -> Result<()> {
        self.stream.write_all(packet)?;
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let mut rest = vec![0; head[1].into()];
        self.stream.read_exact(&mut rest)?;
        ensure!(head[0] == answer, "the broker answered {head:?} {rest:?}");
        Ok(())
    }

    fn read(&mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the broker closed a connection"),
            Ok(read) => self.input.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
            Err(error) => return Err(error.into()),
        }
        let mut at = 0;
        while let Some(len) = packet_len(&self.input[at..]) {
            let Some(bytes) = self.input.get(at..at + len) else {
                break;
            };
            match bytes[0] >> 4 {
                4 => seen.pubacks += 1,
                3 => {
                    seen.publishes += 1;
                    let body = bytes.iter().skip(1).position(|byte| byte & 128 == 0);
                    let body = body.context("a fixed header")? + 2;
                    let topic = usize::from(u16::from_be_bytes([bytes[body], bytes[body + 1]]));
                    let id = body + 2 + topic;
                    self.output
                        .extend_from_slice(&[0x40, 2, bytes[id], bytes[id + 1]]);
                }
                _ => {}
            }
            at += len;
        }
        self.input.drain(..at);
        Ok(seen)
    }

    fn write(&mut self) -> Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.output) {
            Ok(written) => drop(self.output.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Publisher {
    fn send(&mut self, window: usize) -> Result<()> {
        while self.outstanding.len() < window
            && let Some(due) = self.due.pop_front()
        {
            self.outstanding.push_back(due);
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            let at = self.connection.output.len() + self.packet_id_at;
            self.connection.output.extend_from_slice(&self.packet);
            let id = self.next_packet_id.to_be_bytes();
            self.connection.output[at..at + 2].copy_from_slice(&id);
        }
        self.connection.write()
    }
}

impl Clients {
    pub(crate) fn connect(port: u16, pairs: usize, payload: usize) -> Result<Self> {
        let mut clients = Self {
            publishers: Vec::new(),
            subscribers: Vec::new(),
            delivered: 0,
            acked: 0,
            latencies: Vec::new(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(2 * pairs),
        };
        for number in 0..pairs {
            let topic_name = format!("durable/{number:03}");
            let name = format!("subscriber-{number}");
            let mut subscriber = Connection::connect(port, &name, false)?;
            let mut body = vec![0, 1];
            string(&mut body, &topic_name);
            body.push(1);
            subscriber.ask(&packet(0x82, &body), 0x90)?;
            clients.subscribers.push(subscriber);
            let connection = Connection::connect(port, &format!("publisher-{number}"), true)?;
            let mut body = Vec::new();
            string(&mut body, &topic_name);
            let id_at = body.len();
            body.resize(id_at + 2 + payload, b'p');
            let packet = packet(0x32, &body);
            clients.publishers.push(Publisher {
                connection,
                packet_id_at: packet.len() - payload - 2,
                packet,
                next_packet_id: 0,
                outstanding: VecDeque::new(),
                due: VecDeque::new(),
            });
        }
        let publishers = clients.publishers.iter().map(|p| &p.connection);
        for (at, connection) in (0..).zip(publishers.chain(&clients.subscribers)) {
            connection.stream.set_nonblocking(true)?;
            let data = EventData::new_u64(at);
            epoll::add(&clients.epoll, &connection.stream, data, EventFlags::IN)?;
        }
        Ok(clients)
    }

    /// Publishes for so long, then waits for what is outstanding. Returns how many were acknowledged a
    /// second while it published.
    pub(crate) fn run(&mut self, length: Duration, load: Load) -> Result<f64> {
        let window = match load {
            Load::Closed { window } => window,
            Load::Open { .. } => 10_000,
        };
        let timed = matches!(load, Load::Open { .. });
        let start = Instant::now();
        let before = self.acked;
        let mut sent = 0_u64;
        let mut result = None;
        let mut moved = Instant::now();
        loop {
            let now = Instant::now();
            let elapsed = now - start;
            if elapsed < length {
                if let Load::Open { rate, burst } = load {
                    while (sent as f64) < elapsed.as_secs_f64() * rate {
                        let due = start + Duration::from_secs_f64(sent as f64 / rate);
                        let at = (sent / burst) as usize % self.publishers.len();
                        let due = std::iter::repeat_n(due, burst as usize);
                        self.publishers[at].due.extend(due);
                        sent += burst;
                    }
                } else {
                    for publisher in &mut self.publishers {
                        let free = window - publisher.outstanding.len();
                        publisher.due.resize(free, now);
                    }
                }
            } else if result.is_none() {
                result = Some((self.acked - before) as f64 / elapsed.as_secs_f64());
                if !timed {
                    self.publishers.iter_mut().for_each(|p| p.due.clear());
                }
            }
            let idle = |p: &Publisher| p.outstanding.is_empty() && p.due.is_empty();
            if let Some(result) = result
                && self.publishers.iter().all(idle)
                && self.delivered >= self.acked
            {
                return Ok(result);
            }
            ensure!(moved.elapsed() < Duration::from_secs(20), "nothing moves");
            let seen = self.acked + self.delivered;
            self.turn(window, timed)?;
            if self.acked + self.delivered > seen {
                moved = Instant::now();
            }
        }
    }

    fn turn(&mut self, window: usize, timed: bool) -> Result<()> {
        for publisher in &mut self.publishers {
            publisher.send(window)?;
        }
        // What could not be written whole is tried again.
        for subscriber in &mut self.subscribers {
            subscriber.write()?;
        }
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: if timed { 200_000 } else { 5_000_000 },
        };
        self.events.clear();
        epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&timeout),
        )?;
        let now = Instant::now();
        for event in &self.events {
            let at = event.data.u64() as usize;
            if let Some(publisher) = self.publishers.get_mut(at) {
                for _ in 0..publisher.connection.read()?.pubacks {
                    let due = publisher.outstanding.pop_front();
                    self.acked += 1;
                    if timed {
                        self.latencies
                            .push(now - due.context("one PUBACK too many")?);
                    }
                }
            } else if let Some(subscriber) = self.subscribers.get_mut(at - self.publishers.len()) {
                self.delivered += subscriber.read()?.publishes as u64;
                subscriber.write()?;
            }
        }
        Ok(())
    }
}
