//! Publishers and subscribers of QoS 1 on one thread, as little work for the machine as possible.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::TcpStream;
use std::num::NonZeroU64;
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
    /// From when a message was due to its PUBACK, in an open load.
    pub(crate) latencies: Vec<Duration>,
    epoll: OwnedFd,
    events: Vec<Event>,
    /// What is read goes here first.
    buffer: Vec<u8>,
    /// Connections that could not write all they had, by their number.
    stuck: Vec<usize>,
    timed: bool,
}

/// How publishers publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// As much as lets so many messages of each be outstanding.
    Closed { window: usize },
    /// So many messages a second in all, whatever is outstanding, each publisher some at a time.
    Open { rate: f64, burst: u64 },
}

/// Messages that a publisher may have outstanding in an open load.
const WINDOW: usize = 10_000;

/// The longest wait for something to happen.
const IDLE: Duration = Duration::from_millis(5);

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
    /// The beginning of a packet whose end has not come.
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

    fn read(&mut self, buffer: &mut [u8]) -> Result<Seen> {
        let mut seen = Seen::default();
        let read = match self.stream.read(buffer) {
            Ok(0) => anyhow::bail!("the broker closed a connection"),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
            Err(error) => return Err(error.into()),
        };
        if self.input.is_empty() {
            let used = parse(read, &mut self.output, &mut seen)?;
            self.input.extend_from_slice(&read[used..]);
        } else {
            self.input.extend_from_slice(read);
            let used = parse(&self.input, &mut self.output, &mut seen)?;
            self.input.drain(..used);
        }
        Ok(seen)
    }

    /// Writes what there is; false if the system did not take all of it.
    fn write(&mut self) -> Result<bool> {
        if self.output.is_empty() {
            return Ok(true);
        }
        match self.stream.write(&self.output) {
            Ok(written) => drop(self.output.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.output.is_empty())
    }
}

/// Counts whole packets and answers each PUBLISH. Returns how many bytes they take.
fn parse(bytes: &[u8], answers: &mut Vec<u8>, seen: &mut Seen) -> Result<usize> {
    let mut at = 0;
    while let Some(len) = packet_len(&bytes[at..]) {
        let Some(packet) = bytes.get(at..at + len) else {
            break;
        };
        match packet[0] >> 4 {
            4 => seen.pubacks += 1,
            3 => {
                seen.publishes += 1;
                let body = packet.iter().skip(1).position(|byte| byte & 128 == 0);
                let body = body.context("a fixed header")? + 2;
                let topic = usize::from(u16::from_be_bytes([packet[body], packet[body + 1]]));
                let id = body + 2 + topic;
                answers.extend_from_slice(&[0x40, 2, packet[id], packet[id + 1]]);
            }
            _ => {}
        }
        at += len;
    }
    Ok(at)
}

impl Publisher {
    fn send(&mut self, window: usize) -> Result<bool> {
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
        // What is due is sent then, and not 50 us later. A broker is started before: it would inherit this.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let mut clients = Self {
            publishers: Vec::new(),
            subscribers: Vec::new(),
            delivered: 0,
            acked: 0,
            latencies: Vec::new(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(2 * pairs),
            buffer: vec![0; 64 << 10],
            stuck: Vec::new(),
            timed: false,
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
        self.timed = matches!(load, Load::Open { .. });
        let start = Instant::now();
        let before = (self.acked, self.delivered);
        let mut sent = 0_u64;
        if let Load::Closed { window } = load {
            for at in 0..self.publishers.len() {
                self.publish(at, window, start, window)?;
                sent += window as u64;
            }
        }
        let mut result = None;
        let mut moved = (start, self.acked + self.delivered);
        loop {
            let now = Instant::now();
            let elapsed = now - start;
            let mut wait = IDLE;
            if elapsed >= length {
                result = result.or(Some((self.acked - before.0) as f64 / elapsed.as_secs_f64()));
            } else if let Load::Open { rate, burst } = load {
                let due = |sent: u64| start + Duration::from_secs_f64(sent as f64 / rate);
                while due(sent) <= now {
                    let at = (sent / burst) as usize % self.publishers.len();
                    self.publish(at, burst as usize, due(sent), WINDOW)?;
                    sent += burst;
                }
                wait = IDLE.min(due(sent).saturating_duration_since(Instant::now()));
            }
            if let Some(result) = result
                && self.acked - before.0 == sent
                && self.delivered - before.1 >= sent
            {
                return Ok(result);
            }
            let seen = self.acked + self.delivered;
            if seen > moved.1 {
                moved = (now, seen);
            }
            ensure!(now - moved.0 < Duration::from_secs(20), "nothing moves");
            let more = if result.is_none() { Some(load) } else { None };
            sent += self.turn(wait, more)?;
        }
    }

    /// Gives a publisher so many messages, and sends those that may be outstanding.
    fn publish(&mut self, at: usize, count: usize, due: Instant, window: usize) -> Result<()> {
        let publisher = &mut self.publishers[at];
        publisher.due.extend(std::iter::repeat_n(due, count));
        if !publisher.send(window)? {
            self.stuck.push(at);
        }
        Ok(())
    }

    /// Waits for what comes, and answers it: if `load` is closed, with a message for each that was acknowledged.
    /// Returns how many these were.
    fn turn(&mut self, wait: Duration, load: Option<Load>) -> Result<u64> {
        for at in mem::take(&mut self.stuck) {
            let written = match self.publishers.get_mut(at) {
                Some(publisher) => publisher.connection.write()?,
                None => self.subscribers[at - self.publishers.len()].write()?,
            };
            if !written {
                self.stuck.push(at);
            }
        }
        let wait = Timespec::try_from(wait)?;
        let mut events = mem::take(&mut self.events);
        events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait))?;
        let now = Instant::now();
        let mut sent = 0;
        for event in &events {
            let at = event.data.u64() as usize;
            let Some(publisher) = self.publishers.get_mut(at) else {
                let subscriber = &mut self.subscribers[at - self.publishers.len()];
                self.delivered += subscriber.read(&mut self.buffer)?.publishes as u64;
                if !subscriber.write()? {
                    self.stuck.push(at);
                }
                continue;
            };
            let pubacks = publisher.connection.read(&mut self.buffer)?.pubacks;
            self.acked += pubacks as u64;
            for _ in 0..pubacks {
                let due = publisher.outstanding.pop_front();
                let due = due.context("one PUBACK too many")?;
                if self.timed {
                    self.latencies.push(now - due);
                }
            }
            match load {
                Some(Load::Closed { window }) => {
                    sent += pubacks as u64;
                    self.publish(at, pubacks, now, window)?;
                }
                Some(Load::Open { .. }) | None => self.publish(at, 0, now, WINDOW)?,
            }
        }
        self.events = events;
        Ok(sent)
    }
}
