//! What the standards demand of a client, checked on the bytes that it sends: the server is the
//! test, on a socket of its own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

mod connect;
mod end;
mod publish;
mod receive;
mod session;
mod subscribe;
mod wire;

use std::time::Duration;

use avocet_client::{Message, QoS, TopicName, Version};

/// 3.1 says little that 3.1.1 does not say better.
const BOTH: [Version; 2] = [Version::V3_1_1, Version::V5];

/// How long anything that is awaited may take.
const DEADLINE: Duration = Duration::from_secs(20);

fn message(payload: &[u8], qos: QoS) -> Message {
    Message::new(TopicName::new("t").unwrap(), payload).with_qos(qos)
}
