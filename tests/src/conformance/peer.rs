//! A client that does what it is told, also what no client may do.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "every packet but the awaited one is a failure"
)]

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Display};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use avocet_codec::{
    Ack, AckType, Connack, Connect, Delivery, Disconnect, Frame, PACKET_SIZE_MAX, Packet, PacketId,
    PacketType, Publish, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscriptionId,
    SubscriptionOptions, TopicFilter, TopicName, Unsubscribe, Version, frame_len,
};

/// How long a server may take for anything.
const DEADLINE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    /// Packets that came while another was awaited.
    waiting: VecDeque<Frame>,
    packet_id: u16,
    connack: Option<Frame>,
    /// The Topic Aliases the server has set.
    aliases: HashMap<u16, String>,
    /// No packet from the server may be larger.
    maximum: usize,
}

/// A PUBLISH that came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet_id: Option<PacketId>,
    pub(super) subscription_ids: Vec<u32>,
    pub(super) frame: Frame,
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |set, name| if set { name } else { "" };
        write!(
            f,
            "{}={} q{}{}{}",
            self.topic,
            self.payload,
            self.qos as u8,
            flag(self.retain, " retain"),
            flag(self.dup, " dup"),
        )
    }
}

impl Message {
    fn new(frame: Frame) -> Result<Self> {
        let Packet::Publish(publish) = frame.packet() else {
            bail!("{} instead of a message", name(&frame));
        };
        let topic = publish.topic_name.context("an empty Topic Name")?;
        Ok(Self {
            topic: topic.as_str().to_owned(),
            payload: String::from_utf8_lossy(publish.payload).into_owned(),
            qos: publish.qos(),
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id(),
            subscription_ids: publish
                .subscription_ids
                .iter()
                .map(SubscriptionId::get)
                .collect(),
            frame: frame.clone(),
        })
    }

    /// The packet.
    pub(super) fn publish(&self) -> Publish<'_> {
        match self.frame.packet() {
            Packet::Publish(publish) => publish,
            other => unreachable!("checked in `new`: {other:?}"),
        }
    }
}

/// A packet of any bytes: the first byte, then what the parts hold, with their length before it.
pub(super) fn packet(first_byte: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut packet = vec![first_byte];
    let mut length = body.len();
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        packet.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// Bytes with their length before them.
pub(super) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u16).to_be_bytes(), text].concat()
}

fn name(frame: &Frame) -> String {
    match frame.packet() {
        Packet::Connack(connack) => format!("CONNACK 0x{:02x}", connack.reason_code as u8),
        Packet::Disconnect(it) => format!("DISCONNECT 0x{:02x}", it.reason_code as u8),
        Packet::Publish(publish) => format!(
            "PUBLISH of {:?}",
            publish.topic_name.map_or("", |name| name.as_str())
        ),
        other => other.packet_type().name().to_owned(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a deadline of the tests, and the time a server takes"
)]
pub(super) fn clock() -> Instant {
    Instant::now()
}

impl Peer {
    pub(super) fn dial(address: SocketAddr, version: Version) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self {
            stream,
            version,
            input: Vec::new(),
            waiting: VecDeque::new(),
            packet_id: 0,
            connack: None,
            aliases: HashMap::new(),
            maximum: usize::MAX,
        })
    }

    /// Sends CONNECT and waits for a CONNACK that accepts.
    pub(super) fn connect(&mut self, connect: &Connect<'_>) -> Result<()> {
        self.send(&Packet::Connect(*connect))?;
        let frame = self.packet("CONNACK")?;
        ensure!(
            name(&frame) == "CONNACK 0x00",
            "{} instead of CONNACK 0x00",
            name(&frame)
        );
        self.connack = Some(frame);
        Ok(())
    }

    /// Packets of more bytes are failures.
    pub(super) fn limit(&mut self, maximum: usize) {
        self.maximum = maximum;
    }

    /// The CONNACK that accepted this client.
    pub(super) fn connack(&self) -> Result<Connack<'_>> {
        match self.connack.as_ref().map(Frame::packet) {
            Some(Packet::Connack(connack)) => Ok(connack),
            _ => bail!("no CONNACK"),
        }
    }

    pub(super) fn session_present(&self) -> Result<bool> {
        Ok(self.connack()?.session_present)
    }

    // Sending.

    pub(super) fn send(&mut self, packet: &Packet<'_>) -> Result<()> {
        let frame = Frame::encode(packet, self.version).context("cannot encode")?;
        self.send_bytes(frame.bytes())
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")
    }

    pub(super) fn ack(&mut self, ack_type: AckType, packet_id: PacketId) -> Result<()> {
        self.ack_with(ack_type, packet_id, ReasonCode::Success)
    }

    pub(super) fn ack_with(
        &mut self,
        ack_type: AckType,
        packet_id: PacketId,
        reason_code: ReasonCode,
    ) -> Result<()> {
        let ack = Ack::with_reason(packet_id, reason_code);
        self.send(&match ack_type {
            AckType::Puback => Packet::Puback(ack),
            AckType::Pubrec => Packet::Pubrec(ack),
            AckType::Pubrel => Packet::Pubrel(ack),
            AckType::Pubcomp => Packet::Pubcomp(ack),
        })
    }

    /// A Packet Identifier that this connection has not used.
    pub(super) fn new_id(&mut self) -> Result<PacketId> {
        self.packet_id += 1;
        PacketId::new(self.packet_id).context("out of Packet Identifiers")
    }

    // Receiving.

    /// Waits for more input; false when the server has closed the connection.
    fn fill(&mut self, start: Instant, deadline: Duration) -> Result<bool> {
        loop {
            let left = deadline.saturating_sub(clock() - start);
            ensure!(!left.is_zero(), "nothing came in {deadline:?}");
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.input.extend(chunk.iter().take(read));
                    return Ok(true);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Ok(false),
                    _ => return Err(error).context("cannot receive"),
                },
            }
        }
    }

    /// The next packet; none when the server has closed the connection.
    fn read(&mut self, deadline: Duration) -> Result<Option<Frame>> {
        let start = clock();
        loop {
            let length = frame_len(&self.input, PACKET_SIZE_MAX)
                .context("the server's packet has no length")?;
            if let Some(length) = length.filter(|length| *length <= self.input.len()) {
                ensure!(length <= self.maximum, "a packet of {length} bytes");
                let bytes: Vec<u8> = self.input.drain(..length).collect();
                let frame = Frame::new(bytes.into(), self.version)
                    .context("the server's packet is malformed")?;
                return Ok(Some(frame));
            }
            if !self.fill(start, deadline)? {
                return Ok(None);
            }
        }
    }

    /// All bytes until the server closes the connection.
    pub(super) fn raw(&mut self) -> Result<Vec<u8>> {
        let start = clock();
        while self
            .fill(start, DEADLINE)
            .context("the connection does not end")?
        {}
        Ok(std::mem::take(&mut self.input))
    }

    /// The next packet.
    pub(super) fn packet(&mut self, awaited: &str) -> Result<Frame> {
        if let Some(frame) = self.waiting.pop_front() {
            return Ok(frame);
        }
        self.read(DEADLINE)
            .with_context(|| format!("waiting for {awaited}"))?
            .with_context(|| format!("the connection ended before {awaited}"))
    }

    /// The next packet of a type; PUBLISH packets before it stay to be asked for.
    pub(super) fn packet_of(&mut self, packet_type: PacketType) -> Result<Frame> {
        let waiting = self
            .waiting
            .iter()
            .position(|frame| frame.packet().packet_type() == packet_type);
        if let Some(frame) = waiting.and_then(|index| self.waiting.remove(index)) {
            return Ok(frame);
        }
        loop {
            let awaited = packet_type.name();
            let frame = self
                .read(DEADLINE)
                .with_context(|| format!("waiting for {awaited}"))?
                .with_context(|| format!("the connection ended before {awaited}"))?;
            match frame.packet().packet_type() {
                found if found == packet_type => return Ok(frame),
                PacketType::Publish => self.waiting.push_back(frame),
                _ => bail!("{} instead of {awaited}", name(&frame)),
            }
        }
    }

    /// An acknowledgement with the identifier of what it acknowledges; its Reason Code.
    pub(super) fn acked(
        &mut self,
        packet_type: PacketType,
        packet_id: PacketId,
    ) -> Result<ReasonCode> {
        let frame = self.packet_of(packet_type)?;
        let (found, reason_code) = match frame.packet() {
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack) => (ack.packet_id, ack.reason_code),
            _ => bail!("{} instead of an acknowledgement", name(&frame)),
        };
        ensure!(
            found == packet_id,
            "{} has the identifier {found} instead of {packet_id}",
            packet_type.name()
        );
        Ok(reason_code)
    }

    /// The next message, not acknowledged.
    pub(super) fn message(&mut self) -> Result<Message> {
        Message::new(self.packet("a message")?)
    }

    /// The next message, acknowledged.
    pub(super) fn take(&mut self) -> Result<Message> {
        let message = self.message()?;
        self.acknowledge(&message)?;
        Ok(message)
    }

    /// The next message is of QoS 0 and of this topic, by name or by alias; its Topic Alias, or 0.
    pub(super) fn aliased(&mut self, topic: &str) -> Result<u16> {
        let frame = self.packet("a message")?;
        let Packet::Publish(publish) = frame.packet() else {
            bail!("{} instead of a message", name(&frame));
        };
        let alias = publish.topic_alias.map_or(0, NonZeroU16::get);
        let found = match publish.topic_name {
            Some(name) => {
                if alias > 0 {
                    self.aliases.insert(alias, name.as_str().to_owned());
                }
                Some(name.as_str())
            }
            None => self.aliases.get(&alias).map(String::as_str),
        };
        ensure!(found == Some(topic), "{found:?} instead of {topic:?}");
        Ok(alias)
    }

    /// The next message is this one: `TOPIC=PAYLOAD q1 retain dup`. It is acknowledged.
    pub(super) fn takes(&mut self, expected: &str) -> Result<Message> {
        let message = self
            .take()
            .with_context(|| format!("expecting {expected:?}"))?;
        ensure!(
            message.to_string() == expected,
            "\"{message}\" instead of \"{expected}\""
        );
        Ok(message)
    }

    /// Acknowledges a message to the end.
    pub(super) fn acknowledge(&mut self, message: &Message) -> Result<()> {
        match message.publish().delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => self.ack(AckType::Puback, id)?,
            Delivery::ExactlyOnce(id) => {
                self.ack(AckType::Pubrec, id)?;
                self.acked(PacketType::Pubrel, id)?;
                self.ack(AckType::Pubcomp, id)?;
            }
        }
        Ok(())
    }

    /// The server ends the connection: at once, or in 5.0 after a DISCONNECT with one of `codes`.
    pub(super) fn is_ended(&mut self, codes: &[ReasonCode]) -> Result<()> {
        let waiting = self.waiting.pop_front();
        let next = match waiting {
            Some(frame) => Some(frame),
            None => self.read(DEADLINE).context("the connection does not end")?,
        };
        let Some(frame) = next else {
            return Ok(());
        };
        let Packet::Disconnect(disconnect) = frame.packet() else {
            bail!("{} instead of the end of the connection", name(&frame));
        };
        ensure!(
            self.version == Version::V5,
            "DISCONNECT from the server before 5.0"
        );
        ensure!(
            codes.contains(&disconnect.reason_code),
            "{}, which does not say why",
            name(&frame)
        );
        ensure!(
            disconnect.session_expiry_interval.is_none(),
            "a Session Expiry Interval in the server's DISCONNECT"
        );
        match self
            .read(DEADLINE)
            .context("the connection does not end after DISCONNECT")?
        {
            None => Ok(()),
            Some(frame) => bail!("{} after DISCONNECT", name(&frame)),
        }
    }

    /// The server refuses the one filter of a SUBSCRIBE: in SUBACK, or by the end of the connection.
    pub(super) fn refuses_a_filter(&mut self) -> Result<()> {
        let answer = self.read(DEADLINE).context("no answer")?;
        let Some(frame) = answer else {
            return Ok(());
        };
        match frame.packet() {
            Packet::Suback(suback) => {
                let codes: Vec<_> = suback.reason_codes.iter().collect();
                ensure!(
                    codes.iter().all(|code| code.is_error()),
                    "SUBACK with {codes:?}"
                );
                Ok(())
            }
            _ => {
                self.waiting.push_front(frame);
                self.is_ended(&[
                    ReasonCode::MalformedPacket,
                    ReasonCode::ProtocolError,
                    ReasonCode::TopicFilterInvalid,
                ])
            }
        }
    }

    /// The server refuses the CONNECT: it ends the connection, at once or after a CONNACK with
    /// one of `codes`.
    pub(super) fn is_refused(&mut self, codes: &[ReasonCode]) -> Result<()> {
        match self.read(DEADLINE).context("the connection does not end")? {
            None => Ok(()),
            Some(frame) => {
                let Packet::Connack(connack) = frame.packet() else {
                    bail!("{} in answer to CONNECT", name(&frame));
                };
                ensure!(codes.contains(&connack.reason_code), "{}", name(&frame));
                ensure!(!connack.session_present, "Session Present in a refusal");
                match self
                    .read(DEADLINE)
                    .context("the connection does not end after CONNACK")?
                {
                    None => Ok(()),
                    Some(frame) => bail!("{} after a CONNACK that refuses", name(&frame)),
                }
            }
        }
    }

    /// The server answers PINGREQ, and nothing else came before.
    pub(super) fn is_quiet(&mut self) -> Result<()> {
        self.send(&Packet::Pingreq)?;
        let frame = self.packet("PINGRESP")?;
        ensure!(
            name(&frame) == "PINGRESP",
            "{} instead of PINGRESP",
            name(&frame)
        );
        Ok(())
    }

    /// Nothing comes for as long as that, and the connection stays open.
    pub(super) fn is_quiet_for(&mut self, time: Duration) -> Result<()> {
        if let Some(frame) = self.waiting.pop_front() {
            bail!("{}, where nothing was to come", name(&frame));
        }
        match self.read(time) {
            Err(_) => Ok(()),
            Ok(None) => bail!("the connection ended"),
            Ok(Some(frame)) => bail!("{}, where nothing was to come", name(&frame)),
        }
    }

    /// Nothing that `publisher` has published before comes: the next message is one that it
    /// publishes last.
    pub(super) fn is_passed_over(&mut self, publisher: &mut Self, marker: &str) -> Result<()> {
        self.subscribe(marker, QoS::AtLeastOnce)?;
        publisher.publish(marker, "marker", QoS::AtLeastOnce)?;
        self.takes(&format!("{marker}=marker q1"))?;
        Ok(())
    }

    // Exchanges.

    /// Subscribes, and waits until exactly that QoS is granted.
    pub(super) fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<()> {
        self.subscribe_with(filter, SubscriptionOptions::new(qos), None)
    }

    pub(super) fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        subscription_id: Option<u32>,
    ) -> Result<()> {
        let code = self.try_subscribe(filter, options, subscription_id)?;
        ensure!(
            code as u8 == options.maximum_qos as u8,
            "SUBACK 0x{:02x} for {filter:?}",
            code as u8
        );
        Ok(())
    }

    /// Subscribes, and returns the Reason Code.
    pub(super) fn try_subscribe(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        subscription_id: Option<u32>,
    ) -> Result<ReasonCode> {
        let packet_id = self.new_id()?;
        let filters = [SubscribeFilter {
            topic_filter: TopicFilter::new(filter)?,
            options,
        }];
        let mut subscribe = Subscribe::new(packet_id, &filters);
        subscribe.subscription_id = subscription_id.and_then(SubscriptionId::new);
        self.send(&Packet::Subscribe(subscribe))?;
        match self.suback(packet_id)?.as_slice() {
            [code] => Ok(*code),
            codes => bail!("{} Reason Codes in SUBACK", codes.len()),
        }
    }

    /// The Reason Codes of the SUBACK that answers `packet_id`.
    pub(super) fn suback(&mut self, packet_id: PacketId) -> Result<Vec<ReasonCode>> {
        let frame = self.packet_of(PacketType::Suback)?;
        let Packet::Suback(suback) = frame.packet() else {
            bail!("no SUBACK");
        };
        ensure!(
            suback.packet_id == packet_id,
            "SUBACK {} instead of {packet_id}",
            suback.packet_id
        );
        Ok(suback.reason_codes.iter().collect())
    }

    /// Unsubscribes, and returns the Reason Codes; none in 3.1.1.
    pub(super) fn unsubscribe(&mut self, filters: &[&str]) -> Result<Vec<ReasonCode>> {
        let packet_id = self.new_id()?;
        let filters = filters
            .iter()
            .map(|filter| TopicFilter::new(filter))
            .collect::<Result<Vec<_>, _>>()?;
        self.send(&Packet::Unsubscribe(Unsubscribe::new(packet_id, &filters)))?;
        let frame = self.packet_of(PacketType::Unsuback)?;
        let Packet::Unsuback(unsuback) = frame.packet() else {
            bail!("no UNSUBACK");
        };
        ensure!(
            unsuback.packet_id == packet_id,
            "UNSUBACK {} instead of {packet_id}",
            unsuback.packet_id
        );
        Ok(unsuback.reason_codes.iter().collect())
    }

    /// Publishes, to the end of the exchange.
    pub(super) fn publish(&mut self, topic: &str, payload: &str, qos: QoS) -> Result<()> {
        self.publish_with(topic, payload, qos, |_| {})
    }

    /// Publishes with RETAIN 1, to the end of the exchange.
    pub(super) fn retain(&mut self, topic: &str, payload: &str, qos: QoS) -> Result<()> {
        self.publish_with(topic, payload, qos, |publish| publish.retain = true)
    }

    pub(super) fn publish_with(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
        change: impl FnOnce(&mut Publish<'_>),
    ) -> Result<()> {
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(self.new_id()?),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(self.new_id()?),
        };
        let mut publish = Publish::new(TopicName::new(topic)?, delivery, payload.as_bytes());
        change(&mut publish);
        self.send(&Packet::Publish(publish))?;
        self.is_published(delivery)
    }

    /// The rest of the exchange behind PUBLISH; the server accepts the message.
    pub(super) fn is_published(&mut self, delivery: Delivery) -> Result<()> {
        let accepted = |code: ReasonCode| {
            ensure!(
                !code.is_error(),
                "the message is refused: 0x{:02x}",
                code as u8
            );
            Ok(())
        };
        match delivery {
            Delivery::AtMostOnce => Ok(()),
            Delivery::AtLeastOnce(id) => accepted(self.acked(PacketType::Puback, id)?),
            Delivery::ExactlyOnce(id) => {
                accepted(self.acked(PacketType::Pubrec, id)?)?;
                self.ack(AckType::Pubrel, id)?;
                accepted(self.acked(PacketType::Pubcomp, id)?)
            }
        }
    }

    /// Leaves with DISCONNECT, and waits until the server has closed the connection.
    pub(super) fn disconnect(mut self) -> Result<()> {
        self.send(&Packet::Disconnect(Disconnect::new(
            ReasonCode::NORMAL_DISCONNECTION,
        )))?;
        self.stream.shutdown(Shutdown::Write)?;
        self.raw().context("DISCONNECT")?;
        Ok(())
    }

    /// Leaves without DISCONNECT, and waits until the server has noticed.
    pub(super) fn cut(mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.raw().context("the end of the connection")?;
        Ok(())
    }
}
