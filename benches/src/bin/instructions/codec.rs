//! Decoding and encoding of single packets.

use std::hint::black_box;
use std::num::NonZeroU16;

use avocet_codec::{
    Ack, Connect, Delivery, MessageProperties, MessagePropertiesParts, PACKET_SIZE_MAX, Packet,
    PayloadFormat, Publish, QoS, Subscribe, SubscribeFilter, TopicFilter, TopicName, UserProperty,
    Version, Will,
};

use crate::{VERSIONS, Work, encoded, packet_id};

const PACKETS: u32 = 16;

pub(crate) fn works() -> Vec<Work> {
    let mut works = Vec::new();
    for version in VERSIONS {
        for (name, packet) in packets(version) {
            let frame = encoded(version, &packet);
            works.push(Work::new(
                format!("codec decode {name} {version}"),
                PACKETS,
                move || {
                    let stream = frame.repeat(PACKETS as usize);
                    move || {
                        let mut rest = black_box(stream.as_slice());
                        while let Ok(Some(_)) =
                            black_box(&Packet::decode_next(&mut rest, version, PACKET_SIZE_MAX))
                        {
                        }
                        assert!(rest.is_empty());
                    }
                },
            ));
            works.push(Work::new(
                format!("codec encode {name} {version}"),
                PACKETS,
                move || {
                    let mut out = Vec::with_capacity(1 << 16);
                    move || {
                        out.clear();
                        for _ in 0..PACKETS {
                            black_box(&packet).encode(version, &mut out).unwrap();
                        }
                        black_box(&out);
                    }
                },
            ));
        }
    }
    works
}

/// What they borrow is leaked.
fn packets(version: Version) -> Vec<(&'static str, Packet<'static>)> {
    let id = packet_id(10);
    let topic_name = TopicName::new("plant/hall-3/boiler-07/temperatu").unwrap();
    let payload: &'static [u8] = &[0x55; 56];
    let filters: Vec<_> = (0..8)
        .map(|n| format!("plant/hall-{n}/+/temperature").leak())
        .map(|filter| SubscribeFilter::new(TopicFilter::new(filter).unwrap(), QoS::AtLeastOnce))
        .collect();
    let connect = Connect {
        keep_alive: 60,
        will: Some(Will::new(topic_name, b"offline")),
        user_name: Some("boiler-07"),
        password: Some(b"correct horse"),
        ..Connect::new(version, "plant-hall-3-boiler-07")
    };
    let publish = Publish::new(topic_name, Delivery::AtMostOnce, payload);
    let mut packets = vec![
        ("publish q0", Packet::Publish(publish)),
        ("connect", Packet::Connect(connect)),
        (
            "subscribe x8",
            Packet::Subscribe(Subscribe::new(id, filters.leak())),
        ),
        ("puback", Packet::Puback(Ack::new(id))),
    ];
    if version == Version::V5 {
        let with_properties = Publish {
            topic_alias: NonZeroU16::new(3),
            message_expiry_interval: Some(3600),
            properties: MessageProperties::new(MessagePropertiesParts {
                payload_format: Some(PayloadFormat::Utf8),
                content_type: Some("application/json"),
                user_properties: &[UserProperty {
                    name: "sensor",
                    value: "pt100-4711",
                }],
                ..MessagePropertiesParts::default()
            }),
            ..Publish::new(topic_name, Delivery::AtLeastOnce(id), payload)
        };
        packets.push(("publish properties", Packet::Publish(with_properties)));
    }
    packets
}
