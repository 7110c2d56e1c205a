//! Decoding and encoding a borrowed packet allocates nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unsafe_code,
    reason = "an allocator that counts is unsafe to implement"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use avocet_codec::{
    Ack, Auth, Connack, Connect, Delivery, Disconnect, List, MessageProperties,
    MessagePropertiesParts, Packet, PacketId, Publish, QoS, ReasonCode, Suback, Subscribe,
    SubscribeFilter, TopicFilter, TopicName, Unsubscribe, UserProperty, Version, Will,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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

#[test]
fn borrowed_packets_allocate_nothing() {
    let packet_id = PacketId::new(1).unwrap();
    let name = TopicName::new("plant/boiler").unwrap();
    let filters = [TopicFilter::new("plant/+").unwrap(); 8];
    let user_properties = [UserProperty {
        name: "k",
        value: "v",
    }; 3];
    let subscribe_filters = filters.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
    let publish = Publish {
        properties: MessageProperties::new(MessagePropertiesParts {
            content_type: Some("text/plain"),
            response_topic: Some(name),
            user_properties: &user_properties,
            ..MessagePropertiesParts::default()
        }),
        ..Publish::new(name, Delivery::AtLeastOnce(packet_id), b"71.3")
    };
    let connect = Connect {
        will: Some(Will::new(name, b"gone")),
        user_name: Some("me"),
        ..Connect::new(Version::V5, "boiler-7")
    };
    let ack = Ack {
        reason_string: Some("no"),
        user_properties: List::from_slice(&user_properties),
        ..Ack::new(packet_id)
    };
    for packet in [
        Packet::Connect(connect),
        Packet::Connack(Connack::new(ReasonCode::Success)),
        Packet::Publish(publish),
        Packet::Puback(ack),
        Packet::Subscribe(Subscribe::new(packet_id, &subscribe_filters)),
        Packet::Suback(Suback::new(packet_id, &[ReasonCode::GrantedQoS1; 8])),
        Packet::Unsubscribe(Unsubscribe::new(packet_id, &filters)),
        Packet::Disconnect(Disconnect::new(ReasonCode::ServerBusy)),
        Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, "SCRAM-SHA-256")),
    ] {
        let mut wire = Vec::new();
        packet.encode(Version::V5, &mut wire).unwrap();
        let mut again = vec![0; wire.len()];
        let count = allocations(|| {
            let decoded = Packet::decode(&wire, Version::V5).unwrap();
            assert_eq!(decoded, packet);
            decoded
                .encode(Version::V5, &mut again.as_mut_slice())
                .unwrap();
        });
        assert_eq!(count, 0, "{packet:?}");
        assert_eq!(again, wire);
    }
}
