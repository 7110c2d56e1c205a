//! From an address to clients that are connected and subscribed.

use std::net::{SocketAddr, TcpStream as BlockingStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use avocet_codec::{
    Connack, Connect, ConnectProperties, List, Packet, PacketId, QoS, ReasonCode, Suback,
    Subscribe, SubscribeFilter, SubscriptionOptions, TopicFilter, Version,
};
use avocet_transport::Endpoint;
use mio::{Events, Poll};

use crate::bench::client::{Client, Reading, reason};
use crate::bench::histogram::Histogram;
#[cfg(unix)]
use crate::bench::quic::Quic;
use crate::bench::reactor::register;
use crate::bench::report::{Progress, number};
use crate::bench::socket::{Socket, Target};
use crate::bench_args::ServerArgs;
use crate::clock::Stopwatch;
use crate::exit::Failure;
use crate::signal;
use crate::transport::{Place, Transport};

/// Clients that connect at the same time, if no rate is asked for.
const OPENING_MAX: usize = 64;

/// The same if a rate is asked for: those that fall behind do not keep the next from their time.
const OPENING_AT_RATE_MAX: usize = 4_096;

/// How often it is looked at what takes too long.
const LOOK: Duration = Duration::from_millis(100);

/// Files that are open beside the sockets.
const FILES: u64 = 64;

/// The server under load, and what all clients say to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: Arc<str>,
    target: Target,
    /// None: MQTT lies on the socket.
    endpoint: Option<Endpoint>,
    pub(crate) version: Version,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    keep_alive: u16,
    connect_timeout: Duration,
    progress: Progress,
}

impl Server {
    /// Looks the server up. Of several addresses the first that takes a connection is used for all
    /// clients.
    ///
    /// # Errors
    ///
    /// What cannot be resolved, or is not supported, with the option it came from.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, Failure> {
        if let Some((option, what)) = args.unsupported.given() {
            return Err(Failure::new(format!(
                "{option}: {what} is not supported yet"
            )));
        }
        let url = args.url.as_ref();
        let transport = Transport::new(&args.transport, &args.host, args.port, url);
        if url.is_some_and(|url| url.topic.is_some()) {
            return Err(Failure::new(
                "-L: the topics of a load are drawn at random, the URL must have none",
            ));
        }
        let endpoint = transport.endpoint()?;
        let target = match &transport.place {
            Place::Tcp { host, port } => Target::Tcp(address(host, *port, args.connect_timeout)?),
            #[cfg(unix)]
            Place::Unix(path) => Target::Unix(path.clone()),
            #[cfg(unix)]
            Place::Udp { .. } => {
                let quic = Quic::start(endpoint.clone(), args.connect_timeout);
                let quic = quic.map_err(|error| Failure::new(error.to_string()))?;
                Target::Quic(Box::new(quic))
            }
            #[cfg(not(unix))]
            Place::Unix(_) | Place::Udp { .. } => {
                return Err(Failure::new("-L: a load needs Unix sockets for that"));
            }
        };
        let is_plain = transport.is_plain() || matches!(transport.place, Place::Udp { .. });
        let progress = Progress::new(args.quiet);
        if let Some(warning) = transport.warning() {
            progress.say(warning);
        }
        let server = Self {
            endpoint: (!is_plain).then_some(endpoint),
            address: target.to_string().into(),
            target,
            version: args.protocol_version,
            user_name: args
                .username
                .clone()
                .or_else(|| url.and_then(|url| url.user_name.clone())),
            password: args.password.read(url)?,
            keep_alive: args.keepalive,
            connect_timeout: args.connect_timeout,
            progress,
        };
        // What cannot be sent is told before anything connects.
        server.connect_packet(&Wanted::new(String::new(), "a".into()))?;
        Ok(server)
    }

    fn connect_packet(&self, wanted: &Wanted) -> Result<Vec<u8>, Failure> {
        let packet = Packet::Connect(Connect {
            clean_start: wanted.clean_start,
            keep_alive: self.keep_alive,
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref(),
            properties: ConnectProperties {
                session_expiry_interval: wanted.session_expiry_interval,
                ..ConnectProperties::DEFAULT
            },
            ..Connect::new(self.version, &wanted.client_id)
        });
        encoded(&packet, self.version)
    }
}

fn address(host: &str, port: u16, deadline: Duration) -> Result<SocketAddr, Failure> {
    let addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| Failure::new(format!("cannot resolve the host name {host:?}: {error}")))?
        .collect();
    if let &[only] = addresses.as_slice() {
        return Ok(only);
    }
    let mut last = Failure::new(format!("the host name {host:?} has no address"));
    for address in addresses {
        match BlockingStream::connect_timeout(&address, deadline) {
            Ok(_) => return Ok(address),
            Err(error) => last = Failure::new(format!("cannot connect to {address}: {error}")),
        }
    }
    Err(last)
}

/// Lets this process have a socket for each of so many clients.
///
/// # Errors
///
/// How many the system allows.
#[cfg(unix)]
pub(crate) fn allow_files(clients: u64) -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let needed = clients + FILES;
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed))),
        maximum: limit.maximum,
    };
    if limit.maximum.is_some_and(|maximum| maximum < needed)
        || setrlimit(Resource::Nofile, raised).is_err()
    {
        return Err(Failure::new(format!(
            "{clients} clients need {needed} open files, and the system allows {} (ulimit -n)",
            limit.maximum.unwrap_or(u64::MAX)
        )));
    }
    Ok(())
}

/// Lets this process have as many sockets as the system allows.
#[cfg(unix)]
pub(crate) fn allow_all_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // What fails for want of it says so.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Lets this process have a socket for each of so many clients: nothing is known to stand against it.
#[cfg(not(unix))]
pub(crate) fn allow_files(_clients: u64) -> Result<(), Failure> {
    Ok(())
}

/// A packet as bytes.
///
/// # Errors
///
/// What the packet cannot carry.
pub(crate) fn encoded(packet: &Packet<'_>, version: Version) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).map_err(|error| {
        Failure::new(format!(
            "{} cannot be sent: {error}",
            packet.packet_type().name()
        ))
    })?;
    Ok(bytes)
}

/// A client that is to be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// What people call it: "subscriber 3".
    pub(crate) name: String,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry_interval: u32,
    /// What it subscribes to when it is connected.
    pub(crate) filters: Vec<String>,
    pub(crate) maximum_qos: QoS,
}

impl Wanted {
    /// A client that subscribes to nothing, and leaves no Session behind.
    pub(crate) const fn new(name: String, client_id: String) -> Self {
        Self {
            name,
            client_id,
            clean_start: true,
            session_expiry_interval: 0,
            filters: Vec::new(),
            maximum_qos: QoS::AtMostOnce,
        }
    }

    /// SUBSCRIBE with all filters.
    ///
    /// # Errors
    ///
    /// What it cannot carry.
    pub(crate) fn subscribe_packet(&self, version: Version) -> Result<Vec<u8>, Failure> {
        let filters: Vec<_> = self
            .filters
            .iter()
            .filter_map(|filter| TopicFilter::new(filter).ok())
            .map(|topic_filter| SubscribeFilter {
                topic_filter,
                options: SubscriptionOptions::new(self.maximum_qos),
            })
            .collect();
        let Some(packet_id) = PacketId::new(1) else {
            return Ok(Vec::new());
        };
        let packet = Packet::Subscribe(Subscribe {
            dup: false,
            packet_id,
            subscription_id: None,
            user_properties: List::EMPTY,
            filters: List::from_slice(&filters),
        });
        encoded(&packet, version)
    }
}

/// How clients come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Nanoseconds from one to the next; as fast as the server takes them if 0.
    pub(crate) interval: u64,
    /// How many have other threads opened, for the choice of the source address.
    pub(crate) index: usize,
}

struct Opening {
    wanted: Wanted,
    client: Client,
    due: u64,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    Connack,
    Suback,
}

enum Slot {
    Waiting(Wanted),
    Opening(Box<Opening>),
    Open(Client),
}

/// What a client does with packets that come before all clients are open: the client's number, the
/// packet, what is to be written, and the time.
pub(crate) type OnPacket<'a> =
    dyn FnMut(usize, &Packet<'_>, &mut Vec<u8>, u64) -> Result<(), Failure> + 'a;

/// The same of one client.
type OnOwnPacket<'a> = dyn FnMut(&Packet<'_>, &mut Vec<u8>, u64) -> Result<(), Failure> + 'a;

/// Opens clients; each has its place in `wanted` as its token. `times` takes in how long each took
/// from its due time to CONNACK.
///
/// # Errors
///
/// The first client that cannot be opened, and why.
pub(crate) fn open(
    poll: &mut Poll,
    server: &Server,
    wanted: Vec<Wanted>,
    pace: Pace,
    clock: Stopwatch,
    times: &mut Histogram,
    on_packet: &mut OnPacket<'_>,
) -> Result<Vec<Client>, Failure> {
    let began = clock.nanoseconds();
    let timeout = u64::try_from(server.connect_timeout.as_nanos()).unwrap_or(u64::MAX);
    let opening_max = if pace.interval == 0 {
        OPENING_MAX
    } else {
        OPENING_AT_RATE_MAX
    };
    let mut slots: Vec<_> = wanted.into_iter().map(Slot::Waiting).collect();
    let (mut next, mut opening, mut open) = (0, 0_usize, 0_u64);
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    let mut unfinished: Vec<usize> = Vec::new();
    let mut looked_at = began;
    let mut told_at = began;
    // What is opened later is to end what earlier clients left.
    let was_interrupted = signal::is_interrupted();
    while open < slots.len() as u64 {
        if signal::is_interrupted() && !was_interrupted {
            return Err(Failure::Interrupted);
        }
        let now = clock.nanoseconds();
        let mut wait = LOOK;
        while next < slots.len() && opening < opening_max {
            let due = match pace.interval {
                0 => now,
                interval => began + next as u64 * interval,
            };
            if due > now {
                wait = wait.min(Duration::from_nanos(due - now));
                break;
            }
            if let Some(slot) = slots.get_mut(next) {
                start(poll, server, slot, next, pace.index + next, due)?;
            }
            next += 1;
            opening += 1;
        }
        if !unfinished.is_empty() {
            wait = Duration::ZERO;
        }
        wait_for_events(poll, &mut events, Some(wait))?;
        let now = clock.nanoseconds();
        let ready = events.iter().map(|event| event.token().0);
        for index in std::mem::take(&mut unfinished).into_iter().chain(ready) {
            let Some(slot) = slots.get_mut(index) else {
                continue;
            };
            let reading = step(
                slot,
                server,
                &mut buffer,
                clock,
                times,
                &mut |p, out, now| on_packet(index, p, out, now),
            )?;
            if reading == Reading::Unfinished {
                unfinished.push(index);
            }
            match std::mem::replace(
                slot,
                Slot::Waiting(Wanted::new(String::new(), String::new())),
            ) {
                Slot::Opening(done) if done.is_open() => {
                    *slot = Slot::Open(done.client);
                    opening -= 1;
                    open += 1;
                }
                other @ (Slot::Waiting(_) | Slot::Opening(_) | Slot::Open(_)) => *slot = other,
            }
        }
        if now - told_at > 1_000_000_000 {
            told_at = now;
            server.progress.say(&format!(
                "{:>6.1} s  connected {} of {}",
                (now - began) as f64 / 1e9,
                number(open),
                number(slots.len() as u64)
            ));
        }
        if now - looked_at > 100_000_000 {
            looked_at = now;
            for slot in &slots {
                if let Slot::Opening(opening) = slot
                    && now.saturating_sub(opening.due) > timeout
                {
                    return Err(Failure::new(format!(
                        "{}: no answer from {} within {} s (--connect-timeout)",
                        opening.client.name,
                        server.address,
                        server.connect_timeout.as_secs_f32()
                    )));
                }
            }
        }
    }
    Ok(slots
        .into_iter()
        .filter_map(|slot| match slot {
            Slot::Open(client) => Some(client),
            Slot::Waiting(_) | Slot::Opening(_) => None,
        })
        .collect())
}

/// Waits, and takes an interruption for no event.
///
/// # Errors
///
/// What the system says.
pub(crate) fn wait_for_events(
    poll: &mut Poll,
    events: &mut Events,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    match poll.poll(events, timeout) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        Err(error) => Err(Failure::new(format!(
            "cannot wait for the network: {error}"
        ))),
    }
}

fn start(
    poll: &Poll,
    server: &Server,
    slot: &mut Slot,
    index: usize,
    source: usize,
    due: u64,
) -> Result<(), Failure> {
    let Slot::Waiting(wanted) = slot else {
        return Ok(());
    };
    let failed = |error| {
        Failure::new(format!(
            "{}: cannot connect to {}: {error}",
            wanted.name, server.address
        ))
    };
    let mut socket = server.target.connect(source).map_err(failed)?;
    register(poll, &mut socket, index).map_err(failed)?;
    let socket = match &server.endpoint {
        None => Socket::Plain(socket),
        Some(endpoint) => Socket::Layered(Box::new(endpoint.over(socket).map_err(failed)?)),
    };
    let mut client = Client::new(wanted.name.clone(), Arc::clone(&server.address), socket);
    client.out = server.connect_packet(wanted)?;
    *slot = Slot::Opening(Box::new(Opening {
        wanted: wanted.clone(),
        client,
        due,
        step: Step::Connecting,
    }));
    Ok(())
}

impl Opening {
    fn is_open(&self) -> bool {
        match self.step {
            Step::Connecting | Step::Connack => false,
            Step::Suback => self.wanted.filters.is_empty(),
        }
    }
}

/// Goes on with a client as far as it gets.
fn step(
    slot: &mut Slot,
    server: &Server,
    buffer: &mut [u8],
    clock: Stopwatch,
    times: &mut Histogram,
    on_packet: &mut OnOwnPacket<'_>,
) -> Result<Reading, Failure> {
    let opening = match slot {
        Slot::Waiting(_) => return Ok(Reading::Drained),
        Slot::Open(client) => {
            let reading = client.read(buffer, server.version, clock, on_packet)?;
            return match client.flush(clock.nanoseconds()) {
                Ok(()) => Ok(reading),
                Err(error) => Err(client.lost(error)),
            };
        }
        Slot::Opening(opening) => opening,
    };
    let Opening {
        wanted,
        client,
        due,
        step,
    } = &mut **opening;
    let name = wanted.name.clone();
    let failed = |error: std::io::Error| {
        Failure::new(format!(
            "{name}: cannot connect to {}: {error}",
            server.address
        ))
    };
    if *step == Step::Connecting {
        if !client.socket.raw().is_connected().map_err(failed)? {
            return Ok(Reading::Drained);
        }
        *step = Step::Connack;
    }
    client.flush(clock.nanoseconds()).map_err(failed)?;
    let mut negotiated = None;
    let reading = client.read(buffer, server.version, clock, |packet, out, now| {
        match (packet, *step) {
            (Packet::Connack(connack), Step::Connack) => {
                check_connack(connack, wanted, server)?;
                times.record(now.saturating_sub(*due), 1);
                let properties = &connack.properties;
                negotiated = Some((
                    properties.receive_maximum.map_or(u16::MAX, |m| m.get()),
                    properties.server_keep_alive.unwrap_or(server.keep_alive),
                ));
                *step = Step::Suback;
                if !wanted.filters.is_empty() {
                    out.extend(wanted.subscribe_packet(server.version)?);
                }
                Ok(())
            }
            (Packet::Suback(suback), Step::Suback) => {
                check_suback(suback, wanted)?;
                wanted.filters.clear();
                Ok(())
            }
            (_, Step::Connecting | Step::Connack) => Err(Failure::new(format!(
                "{}: the server sent {} before CONNACK",
                wanted.name,
                packet.packet_type()
            ))),
            (_, Step::Suback) => on_packet(packet, out, now),
        }
    })?;
    if let Some((receive_maximum, keep_alive)) = negotiated {
        client.receive_maximum = receive_maximum;
        client.keep_alive = u64::from(keep_alive) * 1_000_000_000;
    }
    client.flush(clock.nanoseconds()).map_err(failed)?;
    Ok(reading)
}

fn check_connack(connack: &Connack<'_>, wanted: &Wanted, server: &Server) -> Result<(), Failure> {
    let code = connack.reason_code;
    if code != ReasonCode::Success {
        let said = connack.properties.reason_string.unwrap_or_default();
        let message = format!(
            "{}: {} refused the connection: {} {said}",
            wanted.name,
            server.address,
            reason(code)
        );
        let code = match server.version {
            Version::V5 => code as u8,
            Version::V3_1 | Version::V3_1_1 => code.connect_return_code(),
        };
        return Err(Failure::Refused {
            message: message.trim_end().into(),
            code,
        });
    }
    if connack.properties.maximum_qos < wanted.maximum_qos {
        return Err(Failure::new(format!(
            "{} takes no more than QoS {} (-q)",
            server.address, connack.properties.maximum_qos
        )));
    }
    Ok(())
}

fn check_suback(suback: &Suback<'_>, wanted: &Wanted) -> Result<(), Failure> {
    for (code, filter) in suback.reason_codes.iter().zip(&wanted.filters) {
        if code as u8 != wanted.maximum_qos as u8 {
            return Err(Failure::new(format!(
                "{}: the server answered the subscription of {filter} at QoS {} with {}",
                wanted.name,
                wanted.maximum_qos,
                reason(code)
            )));
        }
    }
    Ok(())
}

/// Says goodbye and closes; what the socket does not take at once stays unsaid.
pub(crate) fn close(clients: Vec<Client>, server: &Server, now: u64) {
    for mut client in clients {
        client.say_goodbye(server.version, now);
    }
}
