//! What the hot path of a server allocates: nothing. And what a connection keeps when it is idle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unsafe_code,
    reason = "an allocator that counts is unsafe to implement"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use avocet_codec::{
    Connect, Delivery, MessageProperties, MessagePropertiesParts, Packet, PacketId, Publish, QoS,
    ReasonCode, Version,
};
use avocet_session::{
    Accept, Message, Now, Outgoing, ServerConfig, ServerConnection, ServerEvent, Session,
    TransmitBuf,
};
use avocet_topic::TopicName;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has allocated, less those that it has freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        HELD.with(|held| held.set(held.get() + layout.size().cast_signed()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get() - layout.size().cast_signed()));
        // SAFETY: the pointer came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn connected(version: Version) -> ServerConnection {
    let now = Now::default();
    let mut server = ServerConnection::new(Arc::new(ServerConfig::default()), now);
    let mut connect = Vec::new();
    Packet::Connect(Connect::new(version, "client"))
        .encode(version, &mut connect)
        .unwrap();
    server.handle_input(&connect, now);
    server.accept(Box::new(Session::new()), Accept::default(), now);
    server.poll_transmit(now, &mut TransmitBuf::new(1_000));
    server
}

fn read(server: &mut ServerConnection, mut input: &[u8]) -> usize {
    let mut messages = 0;
    while !input.is_empty() {
        let read = server.handle_input(input, Now::default());
        input = input.get(read.consumed..).unwrap();
        if let Some(ServerEvent::Publish { token, publish }) = read.event {
            assert_eq!(publish.topic_name().as_str(), "plant/boiler");
            messages += 1;
            if let Some(token) = token {
                server
                    .acknowledge(token, ReasonCode::Success, None)
                    .unwrap();
            }
        }
    }
    messages
}

fn publishes(version: Version, qos: QoS) -> Vec<u8> {
    let mut input = Vec::new();
    for id in 1..=50 {
        let id = PacketId::new(id).unwrap();
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        let name = TopicName::new("plant/boiler").unwrap();
        Publish::new(name, delivery, b"20.5")
            .encode(version, &mut input)
            .unwrap();
    }
    input
}

#[test]
fn incoming_messages_allocate_nothing() {
    for version in [Version::V3_1_1, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut server = connected(version);
            let input = publishes(version, qos);
            let mut out = TransmitBuf::new(usize::MAX);
            let turn = |server: &mut ServerConnection, out: &mut TransmitBuf| {
                assert_eq!(read(server, &input), 50);
                server.poll_transmit(Now::default(), out);
                out.clear();
            };
            // The first turn makes the queue of acknowledgements.
            turn(&mut server, &mut out);
            assert_eq!(
                allocations(|| turn(&mut server, &mut out)),
                0,
                "{version} {qos}"
            );
        }
    }
}

#[test]
fn outgoing_messages_allocate_nothing() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut server = connected(Version::V5);
        let now = Now::default();
        let limits = ServerConfig::default().limits;
        let mut out = TransmitBuf::new(usize::MAX);
        let name = TopicName::new("plant/boiler").unwrap();
        let message = Message::new(name, b"20.5").with_qos(qos);
        let mut turn = |server: &mut ServerConnection, first_id: u16| {
            for _ in 0..50 {
                let session = server.session_mut().unwrap();
                let _ = session.enqueue(Outgoing::new(message.clone()), &limits, now);
            }
            server.poll_transmit(now, &mut out);
            out.clear();
            for id in first_id..first_id + 50 {
                let [high, low] = id.to_be_bytes();
                server.handle_input(&[0x40, 2, high, low], now);
            }
        };
        turn(&mut server, 1);
        assert_eq!(allocations(|| turn(&mut server, 51)), 0, "{qos}");
    }
}

/// A message is one piece of memory with 16 bytes of its own, and a clone none; what changes a
/// clone makes another one.
#[test]
fn a_message_is_one_allocation() {
    let name = TopicName::new("plant/boiler").unwrap();
    let mut publish = Publish::new(name, Delivery::AtMostOnce, b"20.5");
    let mut taken = Vec::with_capacity(3);
    let (before, held) = (ALLOCATIONS.get(), HELD.get());
    let mut take = |publish: &Publish<'_>, bytes: isize| {
        let (before, held) = (ALLOCATIONS.get(), HELD.get());
        let message = Message::from_publish(publish, name, Now::default().unix);
        taken.push(message.clone());
        let counts = (ALLOCATIONS.get() - before, HELD.get() - held);
        assert_eq!(counts, (1, bytes), "{message:?}");
    };
    take(&publish, 16 + 12 + 4);
    publish.message_expiry_interval = Some(10);
    take(&publish, 16 + 12 + 4 + 8);
    publish.properties = MessageProperties::new(MessagePropertiesParts {
        content_type: Some("text"),
        ..MessagePropertiesParts::default()
    });
    take(&publish, 16 + 12 + 7 + 4 + 8);

    let (first, changed) = (&taken[0], taken[0].clone().with_qos(QoS::AtLeastOnce));
    assert_eq!(
        (first.qos(), changed.qos()),
        (QoS::AtMostOnce, QoS::AtLeastOnce)
    );
    assert_eq!(ALLOCATIONS.get() - before, 4);
    let changed = changed.with_retain(true);
    assert_eq!(ALLOCATIONS.get() - before, 4, "nobody else had it");
    drop((taken.drain(..), changed));
    assert_eq!(HELD.get(), held);
}

/// A client that sends PINGREQ has sent nothing else for a while.
#[test]
fn a_connection_holds_no_buffers_once_its_client_pings() {
    for version in [Version::V3_1_1, Version::V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut server = connected(version);
            let mut out = TransmitBuf::new(usize::MAX);
            let before = HELD.get();
            let input = publishes(version, qos);
            assert_eq!(read(&mut server, &input), 50);
            if qos == QoS::AtMostOnce {
                forward(&mut server, &input);
                server.poll_transmit(Now::default(), &mut out);
            }
            deliver(&mut server, qos, &mut out);
            if qos == QoS::ExactlyOnce {
                for id in 1..=50 {
                    server.handle_input(&[0x62, 2, 0, id], Now::default());
                }
                server.poll_transmit(Now::default(), &mut out);
            }
            drop((input, out));
            assert!(
                HELD.get() > before,
                "nothing was kept for the next messages"
            );
            server.handle_input(&[0xC0, 0], Now::default());
            assert_eq!(HELD.get(), before, "{version} {qos}");
        }
    }
}

/// Packets come, and leave on the same connection as they came.
fn forward(server: &mut ServerConnection, mut input: &[u8]) {
    let limits = ServerConfig::default().limits;
    while !input.is_empty() {
        let read = server.handle_input(input, Now::default());
        input = input.get(read.consumed..).unwrap();
        if let Some(ServerEvent::Publish { publish, .. }) = read.event {
            assert!(server.enqueue_frame(publish.frame().unwrap(), &limits));
        }
    }
}

/// 50 messages for the client, of which it acknowledges all.
fn deliver(server: &mut ServerConnection, qos: QoS, out: &mut TransmitBuf) {
    let now = Now::default();
    let limits = ServerConfig::default().limits;
    let name = TopicName::new("plant/boiler").unwrap();
    let message = Message::new(name, b"20.5").with_qos(qos);
    for _ in 0..50 {
        let session = server.session_mut().unwrap();
        let _ = session.enqueue(Outgoing::new(message.clone()), &limits, now);
    }
    server.poll_transmit(now, out);
    for id in 1..=50 {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => drop(server.handle_input(&[0x40, 2, 0, id], now)),
            QoS::ExactlyOnce => {
                server.handle_input(&[0x50, 2, 0, id], now);
                server.poll_transmit(now, out);
                server.handle_input(&[0x70, 2, 0, id], now);
            }
        }
    }
    while server.poll_event().is_some() {}
    server.poll_transmit(now, out);
}
