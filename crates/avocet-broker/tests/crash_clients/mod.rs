//! Clients that know what they were promised, and outlive the broker.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "what should not come fails the test"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_codec::{
    Ack, Connect, Delivery, Disconnect, Frame, Packet, PacketId, Publish, QoS, ReasonCode,
    Subscribe, SubscribeFilter, TopicFilter, TopicName, Unsubscribe, Version, frame_len,
};
use bytes::Bytes;

use crate::common::{DEADLINE, id};

/// A connection that may break at any time.
struct Wire {
    socket: TcpStream,
    version: Version,
    input: Vec<u8>,
}

impl Wire {
    /// Connects; says whether the session was there.
    fn connect(address: SocketAddr, connect: &Connect<'_>) -> io::Result<(Self, bool)> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let mut wire = Self {
            socket,
            version: connect.version,
            input: Vec::new(),
        };
        wire.send(&Packet::Connect(*connect))?;
        let frame = wire.receive()?;
        let Packet::Connack(connack) = frame.packet() else {
            panic!("no CONNACK: {frame:?}")
        };
        assert_eq!(connack.reason_code, ReasonCode::Success);
        let present = connack.session_present;
        Ok((wire, present))
    }

    fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let frame = Frame::encode(packet, self.version).unwrap();
        self.socket.write_all(frame.bytes())
    }

    fn receive(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(len) = frame_len(&self.input, u32::MAX).unwrap()
                && self.input.len() >= len
            {
                let bytes: Bytes = self.input.drain(..len).collect::<Vec<u8>>().into();
                return Ok(Frame::new(bytes, self.version).unwrap());
            }
            let mut buffer = [0; 16 << 10];
            match self.socket.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.input.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// Says goodbye, and waits until the broker has heard it.
    fn close(mut self) -> io::Result<()> {
        let disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        self.send(&Packet::Disconnect(disconnect))?;
        match self.receive() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
            Ok(frame) => panic!("{frame:?} after DISCONNECT"),
        }
    }

    fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let filter = TopicFilter::new(filter).unwrap();
        let filters = [SubscribeFilter::new(filter, QoS::ExactlyOnce)];
        self.send(&Packet::Subscribe(Subscribe::new(id(60_000), &filters)))
    }
}

/// CONNECT for a session that lasts.
fn persistent(version: Version, client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(version, client_id);
    connect.clean_start = false;
    if version == Version::V5 {
        connect.properties.session_expiry_interval = u32::MAX;
    }
    connect
}

fn version(at: usize) -> Version {
    [Version::V5, Version::V3_1_1][at % 2]
}

/// A break is expected while the broker is killed; a deadline is not.
fn broken(result: io::Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) => {
            let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
            assert!(
                !late.contains(&error.kind()),
                "nothing came in {DEADLINE:?}"
            );
            true
        }
    }
}

/// Which messages: of this publisher with this QoS.
type Series = (usize, u8);

struct InFlight {
    packet_id: u16,
    qos: QoS,
    topic: String,
    payload: Vec<u8>,
    retain: bool,
    /// PUBREC came.
    released: bool,
}

/// Publishes numbered messages of QoS 1 and 2, and retained ones.
pub(crate) struct Publisher {
    at: usize,
    /// The session exists and a crash cannot take it back.
    certain: bool,
    numbers: [u64; 2],
    count: u64,
    retained: BTreeMap<String, Vec<u8>>,
    in_flight: VecDeque<InFlight>,
    next_id: u16,
    acknowledged: u64,
}

const WINDOW: usize = 16;

impl Publisher {
    pub(crate) fn new(at: usize) -> Self {
        Self {
            at,
            certain: false,
            numbers: [0; 2],
            count: 0,
            retained: BTreeMap::new(),
            in_flight: VecDeque::new(),
            next_id: 1,
            acknowledged: 0,
        }
    }

    fn next(&mut self) {
        self.count += 1;
        let qos = if self.count.is_multiple_of(2) {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        let (topic, payload, retain) = if self.count.is_multiple_of(8) {
            let topic = format!("retained/{}/{}", self.at, self.count / 8 % 5);
            let value = if self.count.is_multiple_of(5) {
                String::new()
            } else {
                self.count.to_string()
            };
            self.retained
                .insert(topic.clone(), value.clone().into_bytes());
            (topic, value.into_bytes(), true)
        } else {
            let number = &mut self.numbers[qos as usize - 1];
            *number += 1;
            let mut payload = format!("{} {} {number} ", self.at, qos as u8).into_bytes();
            payload.resize(payload.len() + (self.count * 37 % 700) as usize, b'.');
            (format!("load/{}/{}", self.at, qos as u8), payload, false)
        };
        self.in_flight.push_back(InFlight {
            packet_id: self.next_id,
            qos,
            topic,
            payload,
            retain,
            released: false,
        });
        self.next_id = self.next_id % 50_000 + 1;
    }

    fn transmit(wire: &mut Wire, message: &InFlight, dup: bool) -> io::Result<()> {
        let packet_id = id(message.packet_id);
        if message.released {
            return wire.send(&Packet::Pubrel(Ack::new(packet_id)));
        }
        let delivery = match message.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
        };
        let topic_name = TopicName::new(&message.topic).unwrap();
        let mut publish = Publish::new(topic_name, delivery, &message.payload);
        publish.dup = dup;
        publish.retain = message.retain;
        wire.send(&Packet::Publish(publish))
    }

    /// Publishes until the connection breaks; or, if nothing new is to come, until everything is
    /// acknowledged.
    pub(crate) fn run(&mut self, address: SocketAddr, publish: bool) {
        let result = self.serve(address, publish);
        assert!(broken(result) || !publish);
    }

    fn serve(&mut self, address: SocketAddr, publish: bool) -> io::Result<()> {
        let client_id = format!("publisher{}", self.at);
        let connect = persistent(version(self.at), &client_id);
        let (mut wire, present) = Wire::connect(address, &connect)?;
        assert!(present || !self.certain, "{client_id} lost its session");
        if !present {
            // QoS 2 begins anew.
            for message in &mut self.in_flight {
                message.released = false;
            }
        }
        for message in &self.in_flight {
            Self::transmit(&mut wire, message, present)?;
        }
        loop {
            while publish && self.in_flight.len() < WINDOW {
                self.next();
                if let Some(message) = self.in_flight.back() {
                    Self::transmit(&mut wire, message, false)?;
                }
            }
            if self.in_flight.is_empty() {
                return Ok(());
            }
            let frame = wire.receive()?;
            let (ack, qos) = match frame.packet() {
                Packet::Puback(ack) => (ack, QoS::AtLeastOnce),
                Packet::Pubrec(ack) | Packet::Pubcomp(ack) => (ack, QoS::ExactlyOnce),
                other => panic!("{client_id} got {other:?}"),
            };
            // PUBREL comes again when PUBCOMP was lost; then this is no error in a recovery.
            let known = ack.reason_code != ReasonCode::PacketIdentifierNotFound;
            assert!(!ack.reason_code.is_error() || !known, "{frame:?}");
            let number = ack.packet_id.get();
            let at = self.in_flight.iter().position(|m| m.packet_id == number);
            let at = at.unwrap_or_else(|| panic!("{client_id}: nothing to acknowledge: {frame:?}"));
            assert_eq!(self.in_flight[at].qos, qos);
            if matches!(frame.packet(), Packet::Pubrec(_)) {
                self.certain = true;
                self.in_flight[at].released = true;
                Self::transmit(&mut wire, &self.in_flight[at], false)?;
            } else {
                self.in_flight.remove(at);
                self.acknowledged += 1;
            }
        }
    }

    /// The last number of each series; all of them are acknowledged.
    pub(crate) fn sent(&self) -> [(Series, u64); 2] {
        assert!(self.in_flight.is_empty());
        [1, 2].map(|qos| ((self.at, qos), self.numbers[usize::from(qos) - 1]))
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What is retained for each topic; nothing where it was deleted.
    pub(crate) fn retained(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.retained.iter()
    }
}

/// What came of one series.
#[derive(Default)]
struct Came {
    /// Everything up to here.
    through: u64,
    beyond: BTreeSet<u64>,
    again: u64,
}

/// What came to one subscriber, or to all members of a group.
#[derive(Default)]
pub(crate) struct Seen {
    series: BTreeMap<Series, Came>,
    problems: Vec<String>,
}

impl Seen {
    fn add(&mut self, payload: &[u8], in_order: bool, who: &str) {
        let text = String::from_utf8_lossy(payload);
        let words: Vec<u64> = text
            .split(' ')
            .take(3)
            .map(|word| word.parse().unwrap())
            .collect();
        let (series, number) = ((words[0] as usize, words[1] as u8), words[2]);
        let came = self.series.entry(series).or_default();
        if number <= came.through || came.beyond.contains(&number) {
            came.again += 1;
            if series.1 == 2 {
                self.problems
                    .push(format!("{who}: {series:?} {number} came twice"));
            }
            return;
        }
        if in_order && number != came.through + 1 {
            let expected = came.through + 1;
            self.problems.push(format!(
                "{who}: {series:?} {number} came, {expected} should"
            ));
        }
        came.beyond.insert(number);
        while came.beyond.remove(&(came.through + 1)) {
            came.through += 1;
        }
    }

    fn missing(&self, sent: &BTreeMap<Series, u64>) -> Option<String> {
        sent.iter().find_map(|(series, last)| {
            let came = self.series.get(series);
            let first = came.map_or(0, |came| came.through) + 1;
            (first <= *last).then(|| {
                let beyond = came.map_or(0, |came| came.beyond.len());
                format!(
                    "{series:?}: {first} did not come; of those behind it, to {last}, {beyond} did"
                )
            })
        })
    }
}

/// Takes everything, with a session that lasts.
pub(crate) struct Subscriber {
    client_id: String,
    version: Version,
    filter: &'static str,
    certain: bool,
    /// Packet Identifiers of QoS 2 whose PUBREL has not come.
    received: BTreeSet<PacketId>,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl Subscriber {
    pub(crate) fn new(
        name: &str,
        at: usize,
        filter: &'static str,
        seen: &Arc<Mutex<Seen>>,
    ) -> Self {
        Self {
            client_id: format!("{name}{at}"),
            version: version(at),
            filter,
            certain: false,
            received: BTreeSet::new(),
            seen: Arc::clone(seen),
        }
    }

    pub(crate) fn run(&mut self, address: SocketAddr) {
        assert!(broken(self.serve(address, |_| false)));
    }

    /// Takes messages until there are all.
    pub(crate) fn drain(&mut self, address: SocketAddr, sent: &BTreeMap<Series, u64>) {
        let complete = |seen: &Seen| seen.missing(sent).is_none();
        let result = self.serve(address, complete);
        let seen = self.seen.lock().unwrap();
        let missing = seen.missing(sent);
        let (who, problems, received) = (&self.client_id, &seen.problems, &self.received);
        assert!(
            result.is_ok(),
            "{who}: {result:?}; {missing:?}; {problems:?}; not released: {received:?}"
        );
    }

    fn serve(&mut self, address: SocketAddr, complete: impl Fn(&Seen) -> bool) -> io::Result<()> {
        let connect = persistent(self.version, &self.client_id);
        let (mut wire, present) = Wire::connect(address, &connect)?;
        assert!(
            present || !self.certain,
            "{} lost its session",
            self.client_id
        );
        if !self.certain {
            self.received.clear();
            wire.subscribe(self.filter)?;
        }
        // A member waits for what another one takes, so it looks now and then.
        let look = Duration::from_millis(20);
        let mut waits = DEADLINE.as_millis() / look.as_millis();
        loop {
            if self.certain && complete(&self.seen.lock().unwrap()) {
                break;
            }
            wire.socket.set_read_timeout(Some(look))?;
            let frame = match wire.receive() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && waits > 0 => {
                    waits -= 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.handle(&mut wire, &frame)?;
        }
        // Whatever was sent before is looked at too.
        wire.socket.set_read_timeout(Some(DEADLINE))?;
        wire.send(&Packet::Pingreq)?;
        loop {
            let frame = wire.receive()?;
            if matches!(frame.packet(), Packet::Pingresp) {
                return Ok(());
            }
            self.handle(&mut wire, &frame)?;
        }
    }

    fn handle(&mut self, wire: &mut Wire, frame: &Frame) -> io::Result<()> {
        match frame.packet() {
            Packet::Publish(publish) => {
                let mut seen = self.seen.lock().unwrap();
                let in_order = !self.filter.starts_with('$');
                match publish.delivery {
                    Delivery::AtMostOnce => panic!("QoS 0: {frame:?}"),
                    Delivery::AtLeastOnce(packet_id) => {
                        seen.add(publish.payload, in_order, &self.client_id);
                        drop(seen);
                        wire.send(&Packet::Puback(Ack::new(packet_id)))
                    }
                    Delivery::ExactlyOnce(packet_id) => {
                        if self.received.insert(packet_id) {
                            seen.add(publish.payload, in_order, &self.client_id);
                        }
                        drop(seen);
                        wire.send(&Packet::Pubrec(Ack::new(packet_id)))
                    }
                }
            }
            Packet::Pubrel(ack) => {
                self.received.remove(&ack.packet_id);
                wire.send(&Packet::Pubcomp(Ack::new(ack.packet_id)))
            }
            Packet::Suback(suback) => {
                assert!(suback.reason_codes.iter().all(|code| !code.is_error()));
                self.certain = true;
                Ok(())
            }
            other => panic!("{} got {other:?}", self.client_id),
        }
    }

    /// Panics if something was wrong.
    pub(crate) fn verify(seen: &Mutex<Seen>) -> Tally {
        let seen = seen.lock().unwrap();
        assert!(seen.problems.is_empty(), "{:#?}", seen.problems);
        let all = seen.series.values();
        Tally {
            came: all.clone().map(|came| came.through).sum(),
            again: all.map(|came| came.again).sum(),
            acknowledged: 0,
        }
    }
}

/// What is there of a thing that may be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    Yes,
    #[default]
    No,
    Unknown,
}

impl Known {
    fn check(self, found: bool, what: &str) {
        let wrong = matches!((self, found), (Self::Yes, false) | (Self::No, true));
        assert!(!wrong, "{what}: expected {self:?}, found {found}");
    }
}

const CHURNED: usize = 8;

/// Answers a message of QoS 1.
fn acknowledge(wire: &mut Wire, publish: &Publish<'_>) -> io::Result<()> {
    let Delivery::AtLeastOnce(packet_id) = publish.delivery else {
        panic!("not of QoS 1: {publish:?}")
    };
    wire.send(&Packet::Puback(Ack::new(packet_id)))
}

/// Subscribes and unsubscribes without end.
#[derive(Default)]
pub(crate) struct Churner {
    certain: bool,
    filters: [Known; CHURNED],
    count: usize,
    looks: usize,
}

impl Churner {
    fn connect(&self, address: SocketAddr) -> io::Result<Wire> {
        let (wire, present) = Wire::connect(address, &persistent(Version::V5, "churner"))?;
        assert!(present || !self.certain, "the churner lost its session");
        Ok(wire)
    }

    pub(crate) fn run(&mut self, address: SocketAddr) {
        let result = self.serve(address);
        assert!(broken(result));
    }

    fn serve(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut wire = self.connect(address)?;
        loop {
            self.count += 1;
            let at = self.count * 5 % CHURNED;
            let subscribe = !(self.count / CHURNED).is_multiple_of(3);
            let name = format!("churn/{at}");
            self.filters[at] = Known::Unknown;
            if subscribe {
                wire.subscribe(&name)?;
            } else {
                let filters = [TopicFilter::new(&name).unwrap()];
                wire.send(&Packet::Unsubscribe(Unsubscribe::new(id(60_001), &filters)))?;
            }
            // A message of the last look may come again: its acknowledgement need not have arrived.
            let mut frame = wire.receive()?;
            while let Packet::Publish(publish) = frame.packet() {
                acknowledge(&mut wire, &publish)?;
                frame = wire.receive()?;
            }
            match (frame.packet(), subscribe) {
                (Packet::Suback(_), true) => self.filters[at] = Known::Yes,
                (Packet::Unsuback(_), false) => self.filters[at] = Known::No,
                (other, _) => panic!("the churner got {other:?}"),
            }
            self.certain |= subscribe;
        }
    }

    /// Sends itself a message for each filter.
    pub(crate) fn verify(&mut self, address: SocketAddr) {
        let mut wire = self.connect(address).unwrap();
        wire.subscribe("churn/end").unwrap();
        self.looks += 1;
        let names = (0..CHURNED).map(|at| at.to_string());
        let mut found = [false; CHURNED];
        for (number, name) in (1..).zip(names.chain(["end".to_owned()])) {
            let topic = format!("churn/{name}");
            let topic_name = TopicName::new(&topic).unwrap();
            let delivery = Delivery::AtLeastOnce(id(number));
            let payload = format!("{} {name}", self.looks);
            let publish = Publish::new(topic_name, delivery, payload.as_bytes());
            wire.send(&Packet::Publish(publish)).unwrap();
        }
        loop {
            let frame = wire.receive().unwrap();
            let Packet::Publish(publish) = frame.packet() else {
                continue;
            };
            acknowledge(&mut wire, &publish).unwrap();
            let text = String::from_utf8_lossy(publish.payload);
            let (look, name) = text.split_once(' ').unwrap();
            if look != self.looks.to_string() {
                continue;
            }
            if name == "end" {
                break;
            }
            found[name.parse::<usize>().unwrap()] = true;
        }
        self.certain = true;
        for (at, (known, found)) in self.filters.iter_mut().zip(found).enumerate() {
            known.check(found, &format!("the subscription to churn/{at}"));
            *known = if found { Known::Yes } else { Known::No };
        }
    }
}

/// Begins sessions that last, and discards them.
#[derive(Default)]
pub(crate) struct Cleaner {
    session: Known,
}

impl Cleaner {
    pub(crate) fn run(&mut self, address: SocketAddr) {
        loop {
            let result = self.serve(address);
            if broken(result) {
                return;
            }
        }
    }

    fn serve(&mut self, address: SocketAddr) -> io::Result<()> {
        // A CONNECT may begin a session though no CONNACK came.
        let known = std::mem::replace(&mut self.session, Known::Unknown);
        let (mut wire, present) = Wire::connect(address, &persistent(Version::V5, "cleaner"))?;
        known.check(present, "the session of the cleaner");
        wire.subscribe("cleaner")?;
        wire.receive()?;
        self.session = Known::Yes;
        wire.close()?;
        self.session = Known::Unknown;
        let (wire, _) = Wire::connect(address, &Connect::new(Version::V5, "cleaner"))?;
        self.session = Known::No;
        wire.close()
    }
}

/// Compares what is retained with what was promised.
pub(crate) fn verify_retained(address: SocketAddr, publishers: &[Publisher]) {
    let expected: BTreeMap<_, _> = publishers.iter().flat_map(Publisher::retained).collect();
    let mut missing: BTreeSet<&str> = expected
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(topic, _)| topic.as_str())
        .collect();
    let connect = Connect::new(Version::V5, "reader");
    let (mut wire, _) = Wire::connect(address, &connect).unwrap();
    wire.subscribe("retained/#").unwrap();
    let mut pinged = false;
    loop {
        if missing.is_empty() && !pinged {
            pinged = true;
            wire.send(&Packet::Pingreq).unwrap();
        }
        let frame = wire
            .receive()
            .unwrap_or_else(|error| panic!("{error}; not retained: {missing:?}"));
        let publish = match frame.packet() {
            Packet::Publish(publish) => publish,
            Packet::Pingresp => return,
            _ => continue,
        };
        let topic = publish.topic_name.unwrap().as_str().to_owned();
        let value = expected.get(&topic).map(|value| value.as_slice());
        assert_eq!(Some(publish.payload), value, "retained for {topic}");
        missing.remove(topic.as_str());
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(packet_id) => {
                wire.send(&Packet::Puback(Ack::new(packet_id))).unwrap();
            }
            Delivery::ExactlyOnce(packet_id) => {
                wire.send(&Packet::Pubrec(Ack::new(packet_id))).unwrap();
            }
        }
    }
}

/// How much there was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// To each subscriber, and to the group.
    pub(crate) came: u64,
    /// Of QoS 1.
    pub(crate) again: u64,
    pub(crate) acknowledged: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.came += other.came;
        self.again += other.again;
        self.acknowledged += other.acknowledged;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            came,
            again,
            acknowledged,
        } = self;
        write!(
            f,
            "acknowledged {acknowledged} delivered {came} again {again}"
        )
    }
}
