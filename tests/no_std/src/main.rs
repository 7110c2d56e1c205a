//! A program without the standard library that uses each of the pure crates.
//!
//! It brings its own allocator and its own panic handler, so it does not link as soon as one of the
//! crates, or one of their dependencies, pulls in `std`.

#![no_std]
#![no_main]

extern crate alloc;

mod allocator;

use core::ffi::c_int;
use core::panic::PanicInfo;

// The C library starts the program, and has the memory functions that the compiler calls.
#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    abort()
}

// The precompiled `core` and `alloc` refer to the next two, which nothing calls when a panic aborts.

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    abort()
}

/// 0 when every crate did what it should, or else the number of the first that did not.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let crates: [fn() -> Option<()>; _] = [topic, codec, session, engine, access, device];
    for (number, check) in (1..).zip(crates) {
        if check().is_none() {
            return number;
        }
    }
    0
}

fn topic() -> Option<()> {
    use avocet_topic::{TopicFilterBuf, TopicName, matches};
    let filter = TopicFilterBuf::new("sensor/+/temperature").ok()?;
    let name = TopicName::new("sensor/7/temperature").ok()?;
    matches(filter.as_filter(), name).then_some(())
}

fn access() -> Option<()> {
    use avocet_access::{PasswordHash, import_acl};
    let hash = "$6$c29tZXNhbHQ=$".parse::<PasswordHash>();
    let rules = import_acl("topic read a/#").ok()?;
    (hash.is_err() && rules.as_slice().len() == 2).then_some(())
}

/// CONNECT of 3.1.1 with Clean Session and the Client Identifier "c".
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";

/// CONNACK of 3.1.1: accepted, no session present.
const CONNACK: &[u8] = b"\x20\x02\x00\x00";

fn codec() -> Option<()> {
    use avocet_codec::{Frame, Packet, Version};
    let packet = Packet::decode(CONNECT, Version::V5).ok()?;
    let frame = Frame::encode(&packet, Version::V5).ok()?;
    (frame.bytes() == CONNECT).then_some(())
}

fn session() -> Option<()> {
    use alloc::boxed::Box;
    use alloc::sync::Arc;
    use avocet_session::{
        Accept, Instant, Now, ServerConfig, ServerConnection, ServerEvent, Session, TransmitBuf,
        UnixTime,
    };
    let now = Now::new(Instant::ORIGIN, UnixTime::from_millis(0));
    let mut connection = ServerConnection::new(Arc::new(ServerConfig::default()), now);
    let input = connection.handle_input(CONNECT, now);
    let Some(ServerEvent::Connect(_)) = input.event else {
        return None;
    };
    connection.accept(Box::new(Session::new()), Accept::default(), now);
    let mut out = TransmitBuf::new(1024);
    connection.poll_transmit(now, &mut out);
    (out.slices().next()? == CONNACK).then_some(())
}

fn engine() -> Option<()> {
    use alloc::sync::Arc;
    use avocet_engine::{Command, ConnectionId, Engine, EngineConfig, Opened, ShardId};
    use avocet_session::{Now, TransmitBuf};
    let (now, shard) = (Now::default(), ShardId::new(0));
    let mut engine = Engine::new(Arc::new(EngineConfig::default()), shard, 1, 0, now);
    let id = ConnectionId::new(shard, 1);
    engine.handle_opened(id, Opened::new("no network", 0), now);
    engine.handle_input(id, CONNECT, now);
    let mut out = TransmitBuf::new(1024);
    while let Some(command) = engine.poll_command() {
        if let Command::Flush(id) = command {
            engine.poll_transmit(id, now, &mut out);
        }
    }
    (out.slices().next()? == CONNACK).then_some(())
}

/// A server that accepts, and acknowledges the first message.
struct Server {
    answers: [&'static [u8]; 2],
    asked: usize,
}

impl publish_only::Device for Server {
    type Error = ();

    fn now(&mut self) -> avocet_session::Now {
        avocet_session::Now::default()
    }

    fn write(&mut self, _bytes: &[u8]) -> Result<(), ()> {
        Ok(())
    }

    fn read(&mut self, into: &mut [u8], _wait: core::time::Duration) -> Result<Option<usize>, ()> {
        let answer = self.answers.get(self.asked).ok_or(())?;
        self.asked += 1;
        into.get_mut(..answer.len())
            .ok_or(())?
            .copy_from_slice(answer);
        Ok(Some(answer.len()))
    }
}

fn device() -> Option<()> {
    use avocet_codec::{QoS, TopicName, Version};
    use avocet_session::client::ClientConfig;
    use avocet_session::{Message, Now};
    let mut publisher = publish_only::Publisher::new(ClientConfig::new(Version::V3_1_1, "d"));
    let message = Message::new(TopicName::new("a").ok()?, b"x").with_qos(QoS::AtLeastOnce);
    publisher.publish(message, Now::default()).ok()?;
    let mut server = Server {
        answers: [CONNACK, b"\x40\x02\x00\x01"],
        asked: 0,
    };
    publisher.deliver(&mut server).ok()?;
    (publisher.waiting() == 0).then_some(())
}
