//! The publisher against a server that is a list of bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

use std::time::Duration;

use avocet_codec::{QoS, TopicName, Version};
use avocet_session::client::ClientConfig;
use avocet_session::{Message, Now};
use publish_only::{Device, Failure, Publisher};

/// What the server says, one answer for each time it is waited for.
struct Scripted {
    answers: Vec<&'static [u8]>,
    written: Vec<u8>,
}

impl Device for Scripted {
    type Error = ();

    fn now(&mut self) -> Now {
        Now::default()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.written.extend_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, into: &mut [u8], _wait: Duration) -> Result<Option<usize>, ()> {
        if self.answers.is_empty() {
            return Err(());
        }
        let answer = self.answers.remove(0);
        into[..answer.len()].copy_from_slice(answer);
        Ok(Some(answer.len()))
    }
}

const CONNACK: &[u8] = b"\x20\x02\x00\x00";
const DISCONNECT: &[u8] = b"\xe0\x00";

fn publisher() -> Publisher {
    let mut publisher = Publisher::new(ClientConfig::new(Version::V3_1_1, "d"));
    let message = Message::new(TopicName::new("a").unwrap(), b"x").with_qos(QoS::AtLeastOnce);
    publisher.publish(message, Now::default()).unwrap();
    publisher
}

#[test]
fn disconnects_once_everything_is_acknowledged() {
    let mut publisher = publisher();
    let mut server = Scripted {
        // CONNACK and half of the PUBACK, then the rest.
        answers: vec![b"\x20\x02\x00\x00\x40", b"\x02\x00\x01"],
        written: Vec::new(),
    };
    assert_eq!(publisher.deliver(&mut server), Ok(()));
    assert_eq!(publisher.waiting(), 0);
    assert!(server.written.ends_with(DISCONNECT), "{:?}", server.written);
}

#[test]
fn what_is_not_acknowledged_goes_with_the_next_connection() {
    let mut publisher = publisher();
    let mut server = Scripted {
        answers: vec![CONNACK],
        written: Vec::new(),
    };
    let lost = publisher.deliver(&mut server);
    assert_eq!(lost, Err(Failure::Network(())));
    assert_eq!(publisher.waiting(), 1);

    server.answers = vec![CONNACK, b"\x40\x02\x00\x01"];
    assert_eq!(publisher.deliver(&mut server), Ok(()));
    assert_eq!(publisher.waiting(), 0);
}

#[test]
fn a_server_that_closes_leaves_the_message_waiting() {
    let mut publisher = publisher();
    let mut server = Scripted {
        answers: vec![b""],
        written: Vec::new(),
    };
    assert!(matches!(
        publisher.deliver(&mut server),
        Err(Failure::Closed(_))
    ));
    assert_eq!(publisher.waiting(), 1);
}
