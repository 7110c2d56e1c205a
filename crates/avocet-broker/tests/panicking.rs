//! A thread that panics in a turn, its own or that of another shard: the broker stops whole, and leaves nobody waiting.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use avocet_broker::{Broker, Config};
use avocet_codec::{Connect, Frame, Packet, Version};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the log said that a thread found its shard in the middle of a turn.
static NOT_ENDED: AtomicUsize = AtomicUsize::new(0);

/// A log that panics when a client connects.
struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        assert_ne!(message.0, "connected", "a panic that is wanted");
        if message.0.ends_with("a turn was not ended") {
            NOT_ENDED.fetch_add(1, SeqCst);
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[test]
fn the_broker_stops() {
    tracing::subscriber::set_global_default(Panicking).unwrap();
    // A client is taken by one shard, and belongs to the one of its Client Identifier: where these are two, the turn in which it
    // is connected is taken by the thread of the first.
    for client in 0..16 {
        let mut config = Config::default();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.shards = NonZeroU16::new(4);
        let broker = Broker::start(config).unwrap();
        let mut stream = TcpStream::connect(broker.local_addrs().first().unwrap()).unwrap();
        let client_id = format!("client-{client}");
        let connect = Packet::Connect(Connect::new(Version::V5, &client_id));
        let frame = Frame::encode(&connect, Version::V5).unwrap();
        stream.write_all(frame.bytes()).unwrap();
        // Nothing was promised, and nothing is.
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
        let (ended, end) = channel();
        thread::spawn(move || ended.send(broker.wait()));
        assert!(end.recv_timeout(TIMEOUT).unwrap().is_err());
    }
    let not_ended = NOT_ENDED.load(SeqCst);
    assert!(
        (1..16).contains(&not_ended),
        "{not_ended} of 16 in the turn of another shard"
    );
}
