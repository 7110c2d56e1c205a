//! Against packets made by hand: what a server says wrongly, and each field of CONNACK.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use avocet_codec::{
    Ack, Auth, Connack, ConnackProperties, Connect, Delivery, Disconnect, MessageProperties,
    MessagePropertiesParts, Packet, PacketId, Publish, QoS, ReasonCode, Suback, SubscribeFilter,
    SubscriptionId, TopicFilter, TopicName, Unsuback, UserProperty, Version, frame_len,
};
use avocet_session::client::{
    Authentication, ClientConfig, ClientConnection, ClientEvent, ClientNotice, ControlError,
    NotPublished, PublishError, SubscribeError, WillMessage,
};
use avocet_session::{
    AckError, CloseReason, CommitId, ConnectionError, Demand, DropReason, Message, Now, Session,
    Timer, TransmitBuf, Violation,
};

use crate::pair::{message, start};

const SECOND: Duration = Duration::from_secs(1);

/// A client, and this test as its server.
struct Script {
    client: ClientConnection,
    version: Version,
    now: Now,
}

impl Script {
    fn new(config: ClientConfig) -> Self {
        Self::with_session(config, Session::new())
    }

    fn with_session(config: ClientConfig, session: Session) -> Self {
        let version = config.version;
        let now = start();
        Self {
            client: ClientConnection::new(config, session, now),
            version,
            now,
        }
    }

    fn connected(version: Version) -> Self {
        Self::connected_with(ClientConfig::new(version, "c"), ConnackProperties::DEFAULT)
    }

    fn connected_with(config: ClientConfig, properties: ConnackProperties<'_>) -> Self {
        let mut script = Self::new(config);
        script.sent();
        script.give(Packet::Connack(Connack {
            properties,
            ..Connack::new(ReasonCode::Success)
        }));
        assert!(script.client.is_connected());
        script
    }

    /// Whole packets that the client sends now.
    fn sent_frames(&mut self) -> Vec<Vec<u8>> {
        let mut out = TransmitBuf::new(usize::MAX);
        self.client.poll_transmit(self.now, &mut out);
        let bytes: Vec<u8> = out.slices().flatten().copied().collect();
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        while let Some(length) = frame_len(rest, u32::MAX).unwrap() {
            let (frame, behind) = rest.split_at(length);
            frames.push(frame.to_vec());
            rest = behind;
        }
        assert!(rest.is_empty());
        frames
    }

    /// The same as text.
    fn sent(&mut self) -> Vec<String> {
        let version = self.version;
        let frames = self.sent_frames();
        frames
            .iter()
            .map(|frame| name(&Packet::decode(frame, version).unwrap()))
            .collect()
    }

    /// Hands a packet over; what the client makes of it, as text.
    fn give(&mut self, packet: Packet<'_>) -> Option<String> {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.give_bytes(&bytes)
    }

    fn give_bytes(&mut self, bytes: &[u8]) -> Option<String> {
        let read = self.client.handle_input(bytes, self.now);
        assert_eq!(read.consumed, bytes.len());
        read.event.map(|event| match event {
            ClientEvent::Connected(_) => "connected".into(),
            ClientEvent::Refused(connack) => format!("refused: {}", connack.reason_code),
            ClientEvent::Auth(auth) => format!("auth: {}", auth.reason_code),
            ClientEvent::Publish { publish, token } => {
                let payload = String::from_utf8_lossy(publish.packet().payload).into_owned();
                if let Some(token) = token {
                    self.client.acknowledge(token, ReasonCode::Success).unwrap();
                }
                format!("{}={payload}", publish.topic_name())
            }
            ClientEvent::Published { ack, .. } => format!("published: {}", ack.reason_code),
            ClientEvent::Subscribed { suback, .. } => format!("{:?}", suback.reason_codes),
            ClientEvent::Unsubscribed { unsuback, .. } => format!("{:?}", unsuback.reason_codes),
            ClientEvent::Disconnected(it) => format!("disconnected: {}", it.reason_code),
            other => panic!("{other:?}"),
        })
    }

    fn publish(&mut self, qos: QoS) -> Result<(), PublishError> {
        self.client
            .publish(message("a", "x", qos), self.now)
            .map(|_| ())
    }

    /// The client closed for a reason, and, in 5.0, with a DISCONNECT that says it.
    fn expect_violation(&mut self, violation: Violation) {
        let expected = match self.version {
            Version::V5 => vec![format!("DISCONNECT {}", violation.reason_code())],
            Version::V3_1 | Version::V3_1_1 => Vec::new(),
        };
        assert_eq!(self.sent(), expected, "{violation}");
        self.expect_closed(CloseReason::PeerError(ConnectionError::Violation(
            violation,
        )));
    }

    fn expect_closed(&mut self, reason: CloseReason) {
        assert_eq!(self.client.poll_event(), Some(ClientNotice::Closed(reason)));
        assert_eq!(self.client.poll_event(), None);
        assert_eq!(self.client.poll_timeout(), None);
        assert_eq!(self.sent(), [""; 0]);
    }

    fn expect_timer(&mut self, timer: Timer, after: Duration) {
        let timeout = self.client.poll_timeout().unwrap();
        let actual = (timeout.timer, timeout.at.duration_since(self.now.instant));
        assert_eq!(actual, (timer, after));
        self.now = self.now + after;
        self.client.handle_timeout(self.now);
    }
}

fn name(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(_) => "CONNECT".into(),
        Packet::Publish(publish) => format!(
            "PUBLISH {}{}{}",
            publish.packet_id().map_or(0, |id| id.get()),
            if publish.dup { " dup" } else { "" },
            publish
                .topic_alias
                .map(|alias| format!(" alias {alias}"))
                .unwrap_or_default(),
        ),
        Packet::Puback(ack) => format!("PUBACK {} {}", ack.packet_id, ack.reason_code),
        Packet::Pubrec(ack) => format!("PUBREC {} {}", ack.packet_id, ack.reason_code),
        Packet::Pubrel(ack) => format!("PUBREL {} {}", ack.packet_id, ack.reason_code),
        Packet::Pubcomp(ack) => format!("PUBCOMP {} {}", ack.packet_id, ack.reason_code),
        Packet::Subscribe(packet) => format!("SUBSCRIBE {}", packet.packet_id),
        Packet::Unsubscribe(packet) => format!("UNSUBSCRIBE {}", packet.packet_id),
        Packet::Pingreq => "PINGREQ".into(),
        Packet::Disconnect(packet) => format!("DISCONNECT {}", packet.reason_code),
        Packet::Auth(packet) => format!("AUTH {}", packet.reason_code),
        other => panic!("a client does not send {other:?}"),
    }
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn name_of(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> SubscribeFilter<'_> {
    SubscribeFilter::new(TopicFilter::new(text).unwrap(), QoS::AtLeastOnce)
}

fn publish_packet(qos: QoS, packet_id: u16) -> Packet<'static> {
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(id(packet_id)),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(id(packet_id)),
    };
    Packet::Publish(Publish::new(name_of("t"), delivery, b"m"))
}

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];
/// Those with QoS 1, 2 and properties told apart.
const BOTH: [Version; 2] = [Version::V3_1_1, Version::V5];

mod connack;
mod exchange;
mod rules;
mod statements;
