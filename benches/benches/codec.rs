//! Nanoseconds per packet to decode and to encode, beside two other crates.
//!
//! rumqttc has all versions and owns what it decodes; mqttrs has 3.1.1 alone, borrows as ours does,
//! and was the fastest of ten crates at most rows of 3.1.1. All see the same bytes, and read each
//! packet's length from them. An iteration is [`BATCH`] packets, so that what rumqttc needs to
//! get at a new `BytesMut` does not count; criterion's `thrpt` is packets. What is decoded is looked
//! at as it is returned, since to unwrap it is to copy it; that all decode it is asserted before.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench fails by panicking, and has no users"
)]

use std::hint::black_box;
use std::num::NonZeroU16;

use avocet_codec::{
    Ack, Connect, Delivery, MessageProperties, MessagePropertiesParts, PACKET_SIZE_MAX, Packet,
    PacketId, PayloadFormat, Publish, QoS, Subscribe, SubscribeFilter, TopicFilter, TopicName,
    UserProperty, Version, Will, frame_len,
};
use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

/// Packets in one iteration.
const BATCH: usize = 64;

const TOPIC_NAME: &str = "plant/hall-3/boiler-07/temperatu";

struct Row {
    name: &'static str,
    version: Version,
    packet: Packet<'static>,
    frame: Vec<u8>,
}

impl Row {
    fn new(name: &'static str, version: Version, packet: Packet<'static>) -> Self {
        let mut frame = Vec::new();
        packet.encode(version, &mut frame).unwrap();
        Self {
            name,
            version,
            packet,
            frame,
        }
    }

    fn stream(&self) -> Vec<u8> {
        self.frame.repeat(BATCH)
    }

    /// mqttrs has no other version.
    fn has_mqttrs(&self) -> bool {
        self.version == Version::V3_1_1 && mqttrs::decode_slice(&self.frame).is_ok()
    }
}

/// What the packets borrow is leaked, so that they can be kept beside their bytes.
fn rows() -> Vec<Row> {
    let id = PacketId::new(10).unwrap();
    let topic_name = TopicName::new(TOPIC_NAME).unwrap();
    let payload: &'static [u8] = &[0x55; 56];
    let large_payload: &'static [u8] = vec![0x55; 65_536].leak();
    let filters: Vec<_> = (0..8)
        .map(|n| format!("plant/hall-{n}/+/temperature").leak())
        .map(|filter| SubscribeFilter::new(TopicFilter::new(filter).unwrap(), QoS::AtLeastOnce))
        .collect();
    let filters: &'static [_] = filters.leak();
    let user_properties: &'static [_] = &[UserProperty {
        name: "sensor",
        value: "pt100-4711",
    }];

    let publish = Publish::new(topic_name, Delivery::AtMostOnce, payload);
    let with_properties = Publish {
        topic_alias: NonZeroU16::new(3),
        message_expiry_interval: Some(3600),
        properties: MessageProperties::new(MessagePropertiesParts {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some("application/json"),
            user_properties,
            ..MessagePropertiesParts::default()
        }),
        ..Publish::new(topic_name, Delivery::AtLeastOnce(id), payload)
    };
    let connect = |version| Connect {
        keep_alive: 60,
        will: Some(Will::new(topic_name, b"offline")),
        user_name: Some("boiler-07"),
        password: Some(b"correct horse"),
        ..Connect::new(version, "plant-hall-3-boiler-07")
    };

    let mut rows = vec![Row::new(
        "publish q1 5.0, five properties",
        Version::V5,
        Packet::Publish(with_properties),
    )];
    for (
        version,
        [
            publish_name,
            connect_name,
            subscribe_name,
            puback_name,
            large_name,
        ],
    ) in [
        (
            Version::V3_1_1,
            [
                "publish q0 3.1.1",
                "connect 3.1.1",
                "subscribe x8 3.1.1",
                "puback 3.1.1",
                "publish 64 KiB 3.1.1",
            ],
        ),
        (
            Version::V5,
            [
                "publish q0 5.0",
                "connect 5.0",
                "subscribe x8 5.0",
                "puback 5.0",
                "publish 64 KiB 5.0",
            ],
        ),
    ] {
        let large = Publish {
            payload: large_payload,
            ..publish
        };
        let subscribe = Packet::Subscribe(Subscribe::new(id, filters));
        rows.extend([
            Row::new(publish_name, version, Packet::Publish(publish)),
            Row::new(connect_name, version, Packet::Connect(connect(version))),
            Row::new(subscribe_name, version, subscribe),
            Row::new(puback_name, version, Packet::Puback(Ack::new(id))),
            Row::new(large_name, version, Packet::Publish(large)),
        ]);
    }
    rows
}

fn decode(criterion: &mut Criterion) {
    for row in rows() {
        let mut group = criterion.benchmark_group(format!("decode/{}", row.name));
        group.throughput(Throughput::Elements(BATCH as u64));
        let stream = row.stream();
        Packet::decode(&row.frame, row.version).unwrap();
        group.bench_function("avocet", |bencher| {
            bencher.iter(|| {
                for input in black_box(stream.as_slice()).chunks_exact(row.frame.len()) {
                    let len = frame_len(input, PACKET_SIZE_MAX).unwrap().unwrap();
                    black_box(&Packet::decode(&input[..len], row.version));
                }
            });
        });
        if row.has_mqttrs() {
            let len = row.frame.len();
            group.bench_function("mqttrs", |bencher| {
                bencher.iter(|| {
                    for frame in black_box(stream.as_slice()).chunks_exact(len) {
                        black_box(&mqttrs::decode_slice(frame));
                    }
                });
            });
        }
        let limit = row.frame.len();
        let mut source = BytesMut::from(row.frame.as_slice());
        if row.version == Version::V5 {
            v5::Packet::read(&mut source, None).unwrap();
        } else {
            v4::Packet::read(&mut source, limit).unwrap();
        }
        group.bench_function("rumqttc", |bencher| {
            bencher.iter_batched_ref(
                || BytesMut::from(stream.as_slice()),
                |stream| {
                    for _ in 0..BATCH {
                        if row.version == Version::V5 {
                            let limit = Some(limit as u32);
                            black_box(&v5::Packet::read(stream, limit));
                        } else {
                            black_box(&v4::Packet::read(stream, limit));
                        }
                    }
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn encode(criterion: &mut Criterion) {
    for row in rows() {
        let mut group = criterion.benchmark_group(format!("encode/{}", row.name));
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut out = BytesMut::with_capacity(row.frame.len() * BATCH);
        let packet = row.packet;
        group.bench_function("avocet", |bencher| {
            bencher.iter(|| {
                out.clear();
                for _ in 0..BATCH {
                    black_box(&packet).encode(row.version, &mut out).unwrap();
                }
                black_box(&out);
            });
        });
        if row.has_mqttrs() {
            let packet = mqttrs::decode_slice(&row.frame).unwrap().unwrap();
            let mut out = vec![0; row.frame.len() * BATCH];
            let len = row.frame.len();
            group.bench_function("mqttrs", |bencher| {
                bencher.iter(|| {
                    for frame in out.chunks_exact_mut(len) {
                        mqttrs::encode_slice(black_box(&packet), frame).unwrap();
                    }
                    black_box(&out);
                });
            });
        }
        let limit = usize::MAX >> 1;
        let mut source = BytesMut::from(row.frame.as_slice());
        if row.version == Version::V5 {
            let packet = v5::Packet::read(&mut source, None).unwrap();
            group.bench_function("rumqttc", |bencher| {
                bencher.iter(|| {
                    out.clear();
                    for _ in 0..BATCH {
                        black_box(&packet).write(&mut out, None).unwrap();
                    }
                    black_box(&out);
                });
            });
        } else {
            let packet = v4::Packet::read(&mut source, limit).unwrap();
            group.bench_function("rumqttc", |bencher| {
                bencher.iter(|| {
                    out.clear();
                    for _ in 0..BATCH {
                        black_box(&packet).write(&mut out, limit).unwrap();
                    }
                    black_box(&out);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
