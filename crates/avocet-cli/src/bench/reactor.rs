//! The clients of one thread, and one turn of the loop that serves them.

use std::time::Duration;

use avocet_codec::Packet;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token};

use crate::bench::client::{Client, Reading};
use crate::bench::histogram::Histogram;
use crate::bench::open::{Pace, Server, Wanted, close, open, wait_for_events};
use crate::bench::phases::Phases;
use crate::bench::plan::nanoseconds;
use crate::clock::Stopwatch;
use crate::exit::Failure;

/// Room for packets that were read and not looked at, beside the payload of one.
const BUFFER: usize = 256 * 1024;

/// How often is looked after clients that are silent, in nanoseconds.
const LOOK: u64 = 100_000_000;

/// How long the server may take to close connections, in nanoseconds.
const LEAVE_MAX: u64 = 5_000_000_000;

/// How often it is looked which ones it has closed.
const LEAVE_LOOK: Duration = Duration::from_millis(5);

/// What the clients of a workload do with what they get.
pub(crate) trait Handler {
    /// A packet came for a client; what it is to send is put into `out`.
    ///
    /// # Errors
    ///
    /// Why the run cannot go on.
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Failure>;

    /// For the moment that was all for this client.
    fn on_read(&mut self, _now: u64) {}
}

/// Clients that are connected.
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    pub(crate) clients: Vec<Client>,
    pub(crate) server: Server,
    pub(crate) clock: Stopwatch,
    buffer: Vec<u8>,
    /// Clients that may have more to read.
    unfinished: Vec<usize>,
    /// Clients with something to write.
    dirty: Vec<usize>,
    looked_at: u64,
}

impl Reactor {
    /// No client yet, and room for packets with payloads of so many bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn new(server: Server, clock: Stopwatch, payload: usize) -> Result<Self, Failure> {
        let poll = Poll::new()
            .map_err(|error| Failure::new(format!("cannot wait for the network: {error}")))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            server,
            clock,
            buffer: vec![0; BUFFER + 2 * payload],
            unfinished: Vec::new(),
            dirty: Vec::new(),
            looked_at: 0,
        })
    }

    /// What else may wake it.
    pub(crate) const fn poll(&self) -> &Poll {
        &self.poll
    }

    /// Connects these clients in place of those there were. `times` takes in how long each took.
    ///
    /// # Errors
    ///
    /// The first client that cannot be connected, and why.
    pub(crate) fn open(
        &mut self,
        wanted: Vec<Wanted>,
        pace: Pace,
        times: &mut Histogram,
        handler: &mut impl Handler,
    ) -> Result<(), Failure> {
        let on_packet = &mut |index: usize, packet: &Packet<'_>, out: &mut Vec<u8>, now: u64| {
            handler.on_packet(index, packet, out, now)?;
            handler.on_read(now);
            Ok(())
        };
        let (server, clock) = (&self.server, self.clock);
        self.clients = open(
            &mut self.poll,
            server,
            wanted,
            pace,
            clock,
            times,
            on_packet,
        )?;
        // What came meanwhile has had its event.
        self.unfinished = (0..self.clients.len()).collect();
        self.dirty.clear();
        Ok(())
    }

    /// Says goodbye and closes, without waiting for anything.
    pub(crate) fn close(&mut self) {
        for client in &mut self.clients {
            let _ = client.socket.raw().deregister(self.poll.registry());
        }
        let clients = std::mem::take(&mut self.clients);
        close(clients, &self.server, self.clock.nanoseconds());
        self.unfinished.clear();
        self.dirty.clear();
    }

    /// Says goodbye and waits until the server has closed all connections, for a while.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn leave(&mut self) -> Result<(), Failure> {
        let now = self.clock.nanoseconds();
        let until = now + LEAVE_MAX;
        for client in &mut self.clients {
            client.say_goodbye(self.server.version, now);
        }
        let mut open: Vec<usize> = (0..self.clients.len()).collect();
        loop {
            open.retain(|index| {
                let client = self.clients.get_mut(*index);
                client.is_some_and(|client| !client.is_closed(&mut self.buffer))
            });
            if open.is_empty() || self.clock.nanoseconds() >= until {
                break;
            }
            wait_for_events(&mut self.poll, &mut self.events, Some(LEAVE_LOOK))?;
        }
        self.close();
        Ok(())
    }

    /// Serves clients for a while, which ends early if the process is asked to end.
    ///
    /// # Errors
    ///
    /// The client that was lost, or what the handler says.
    pub(crate) fn stay(
        &mut self,
        time: Duration,
        count: u64,
        handler: &mut impl Handler,
        phases: &mut Phases,
    ) -> Result<(), Failure> {
        if time.is_zero() {
            return Ok(());
        }
        phases.begin("held", "clients")?;
        let until = self.clock.nanoseconds() + nanoseconds(time);
        loop {
            let now = self.clock.nanoseconds();
            if now >= until {
                break;
            }
            phases.show(count)?;
            self.turn(Duration::from_nanos((until - now).min(LOOK)), handler)?;
        }
        phases.end(until, count, Histogram::default())
    }

    /// A client, and a note that it will have something to write.
    pub(crate) fn client(&mut self, index: usize) -> Option<&mut Client> {
        self.dirty.push(index);
        self.clients.get_mut(index)
    }

    /// Notes that a client has something to write.
    pub(crate) fn mark(&mut self, index: usize) {
        self.dirty.push(index);
    }

    /// Writes what waits, once for each client.
    ///
    /// # Errors
    ///
    /// The client that was lost.
    pub(crate) fn write(&mut self) -> Result<(), Failure> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let now = self.clock.nanoseconds();
        for index in self.dirty.drain(..) {
            if let Some(client) = self.clients.get_mut(index) {
                client.flush(now).map_err(|error| client.lost(error))?;
            }
        }
        Ok(())
    }

    /// Waits for something to happen, reads what came, and writes what came of it.
    ///
    /// # Errors
    ///
    /// The client that was lost, or what the handler says.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        handler: &mut impl Handler,
    ) -> Result<(), Failure> {
        let wait = if self.unfinished.is_empty() {
            wait
        } else {
            Duration::ZERO
        };
        wait_for_events(&mut self.poll, &mut self.events, Some(wait))?;
        for index in std::mem::take(&mut self.unfinished) {
            self.read(index, handler)?;
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let index = event.token().0;
            if index >= self.clients.len() {
                continue;
            }
            if event.is_writable() {
                self.dirty.push(index);
            }
            if event.is_readable() || event.is_error() || event.is_read_closed() {
                self.read(index, handler)?;
            }
        }
        self.events = events;
        self.keep_alive();
        self.write()
    }

    fn read(&mut self, index: usize, handler: &mut impl Handler) -> Result<(), Failure> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        let (version, clock) = (self.server.version, self.clock);
        let mut last = 0;
        let reading = client.read(&mut self.buffer, version, clock, |packet, out, now| {
            last = now;
            handler.on_packet(index, packet, out, now)
        })?;
        handler.on_read(last);
        if reading == Reading::Unfinished {
            self.unfinished.push(index);
        }
        if client.unwritten() > 0 {
            self.dirty.push(index);
        }
        Ok(())
    }

    /// Lets silent clients say that they are there, in half the time they have.
    fn keep_alive(&mut self) {
        let now = self.clock.nanoseconds();
        if now - self.looked_at < LOOK {
            return;
        }
        self.looked_at = now;
        for (index, client) in self.clients.iter_mut().enumerate() {
            if client.keep_alive > 0 && now.saturating_sub(client.wrote_at) > client.keep_alive / 2
            {
                client.wrote_at = now;
                // PINGREQ
                client.out.extend_from_slice(&[0xc0, 0]);
                self.dirty.push(index);
            }
        }
    }
}

/// The interest of all sockets.
pub(crate) fn register(poll: &Poll, socket: &mut impl Source, index: usize) -> std::io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(socket, Token(index), interest)
}
