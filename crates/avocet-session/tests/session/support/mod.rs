//! A server and a client that share nothing but bytes and a clock.

mod pair;
mod peer;

use avocet_codec::{PacketType, QoS};
use avocet_session::{Message, Outgoing};
use avocet_topic::TopicName;

pub(crate) use pair::Pair;
pub(crate) use peer::Peer;

pub(crate) fn topic(name: &str) -> TopicName<'_> {
    TopicName::new(name).unwrap()
}

pub(crate) fn message(qos: QoS, name: &str, payload: &str) -> Message {
    Message::new(topic(name), payload.as_bytes()).with_qos(qos)
}

pub(crate) fn outgoing(qos: QoS, payload: &str) -> Outgoing {
    Outgoing::new(message(qos, "a/b", payload))
}

pub(crate) fn qos0(payload: &str) -> Outgoing {
    outgoing(QoS::AtMostOnce, payload)
}

pub(crate) fn qos1(payload: &str) -> Outgoing {
    outgoing(QoS::AtLeastOnce, payload)
}

pub(crate) fn qos2(payload: &str) -> Outgoing {
    outgoing(QoS::ExactlyOnce, payload)
}

/// What went over the wire, in short: a packet type, its identifier, and for PUBLISH its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) packet_type: PacketType,
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) reason: u8,
    pub(crate) payload: String,
}
