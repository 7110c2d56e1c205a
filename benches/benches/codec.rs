//! Nanoseconds per packet to decode and to encode, beside other crates: for each row the best of
//! eleven, as far as they can be had as dependencies, and a few others.
//!
//! All see the same stream, and take the packet at its front by the one call that they have for this,
//! which finds out whether it is there as a whole. All are built as they are meant to be used, so those
//! that own what they decode own it, and copy payloads or share them as they do. The crates take turns, [`ROUNDS`] times, and the median counts, so that what else the machine
//! does falls on all of them. What a crate needs besides (a new `BytesMut`, say) is made before the
//! clock starts. A crate is left out of a row that it refuses or encodes differently. A PUBLISH of 64 KiB is encoded with its payload, by
//! those that copy it, and without ("header"), beside ntex-mqtt, which shares it.
//!
//! So that no crate pays for the one before it, which may have copied payloads through all caches, each
//! has a turn that does not count before the one that does, and the front of each packet is read before
//! the clock starts, as a packet's is that was just received.
//!
//! `cargo bench -p avocet-benches --bench codec -- [FILTER]`; `--test` runs everything once. Where a function of 3 ns happens to lie moves it
//! by a third: `RUSTFLAGS="-C llvm-args=--align-all-functions=6"` puts all of them, of all crates, where a line of the cache begins.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and reads the clock"
)]

use std::env;
use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use avocet_codec::{
    Ack, Connect, Delivery, MessageProperties, MessagePropertiesParts, PACKET_SIZE_MAX, Packet,
    PacketId, PayloadFormat, Publish, QoS, Subscribe, SubscribeFilter, TopicFilter, TopicName,
    UserProperty, Version, Will,
};
use bytes::BytesMut;
use mqtt_codec_kit::common::{Decodable, Encodable};
use ntex_bytes::BytePages;
use ntex_codec::{Decoder as _, Encoder as _};
use tokio_util::codec::Decoder as _;

/// How often each crate has its turn.
const ROUNDS: usize = 151;

/// Packets of a turn, or as many as there are in so few bytes if that is more, but not more than in so many.
///
/// The clock counts in steps of some 50 ns: with 16 KiB of them a PUBACK has sixteen times as many as it would have
/// otherwise, so that no step can be seen.
const PACKETS: usize = 256;
const BYTES: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 20;

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

    /// How many packets a turn has.
    fn packets(&self) -> usize {
        let [few, many] = [BYTES.start(), BYTES.end()].map(|bytes| bytes / self.frame.len());
        PACKETS.max(few).min(many).max(1)
    }

    /// How often all of them are taken from a slice, where they lie as they lay before, or encoded without a copy: where
    /// packets are few, the clock would be a part of what is measured. It is for others, where it is 1 to 3 % of 64 KiB.
    fn passes(&self) -> usize {
        PACKETS.div_ceil(self.packets())
    }

    /// Whether who shares payloads spares most of the work.
    fn is_large(&self) -> bool {
        self.frame.len() > 4_096
    }

    fn stream(&self) -> Vec<u8> {
        self.frame.repeat(self.packets())
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

/// A crate that takes part in a row.
struct Contender<'r> {
    name: &'static str,
    turn: Box<dyn FnMut() -> Duration + 'r>,
}

impl<'r> Contender<'r> {
    fn new(name: &'static str, turn: impl FnMut() -> Duration + 'r) -> Self {
        let turn = Box::new(turn);
        Self { name, turn }
    }

    /// Decodes all packets of a `BytesMut`, which is made anew for each turn.
    fn of_bytes_mut<T>(
        name: &'static str,
        row: &'r Row,
        mut decode: impl FnMut(&mut BytesMut) -> Option<T> + 'r,
    ) -> Option<Self> {
        decode(&mut BytesMut::from(row.frame.as_slice()))?;
        let stream = row.stream();
        let packets = row.packets();
        Some(Self::new(name, move || {
            let mut source = BytesMut::from(stream.as_slice());
            read_fronts(&source, row.frame.len());
            let start = Instant::now();
            for _ in 0..packets {
                black_box(&decode(&mut source));
            }
            start.elapsed()
        }))
    }

    /// Encodes into a buffer that has room for all.
    fn encoding<B: Buffer + 'r>(
        name: &'static str,
        row: &'r Row,
        mut encode: impl FnMut(&mut B) + 'r,
    ) -> Option<Self> {
        let packets = row.packets();
        let mut out = B::with_capacity(row.frame.len() * packets);
        encode(&mut out);
        // Properties may stand in any order.
        let same = out.as_slice().len() == row.frame.len();
        if !same || Packet::decode(out.as_slice(), row.version).is_err() {
            return None;
        }
        Some(Self::new(name, move || {
            let start = Instant::now();
            out.clear();
            for _ in 0..packets {
                encode(&mut out);
            }
            black_box(&out);
            start.elapsed()
        }))
    }
}

/// Reads what decoding a packet reads of it, payload aside.
fn read_fronts(stream: &[u8], len: usize) {
    for packet in stream.chunks_exact(len) {
        let front = packet.iter().take(128);
        black_box(front.fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    }
}

trait Buffer {
    fn with_capacity(capacity: usize) -> Self;
    fn as_slice(&self) -> &[u8];
    fn clear(&mut self);
}

impl Buffer for BytesMut {
    fn with_capacity(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }

    fn as_slice(&self) -> &[u8] {
        self
    }

    fn clear(&mut self) {
        self.clear();
    }
}

impl Buffer for Vec<u8> {
    fn with_capacity(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }

    fn as_slice(&self) -> &[u8] {
        self
    }

    fn clear(&mut self) {
        self.clear();
    }
}

/// Decodes all packets of a slice, each from the front of what is left: where that begins is known, as
/// not all say it. What is decoded is looked at as it is returned, since to unwrap it is to copy it.
macro_rules! of_slice {
    ($name:literal, $row:ident, |$input:ident| $decode:expr) => {{
        let stream = $row.stream();
        let len = $row.frame.len();
        let passes = $row.passes();
        Contender::new($name, move || {
            // In the caches, as a `BytesMut` that was just made.
            let source = stream.clone();
            read_fronts(&source, len);
            let start = Instant::now();
            for _ in 0..passes {
                let source = black_box(source.as_slice());
                for at in (0..source.len()).step_by(len) {
                    let $input = &mut &source[at..];
                    black_box(&$decode);
                }
            }
            start.elapsed() / passes as u32
        })
    }};
}

/// ntex-mqtt has types of its own for bytes.
macro_rules! ntex_decoding {
    ($version:ident, $row:ident) => {{
        let codec = ntex_mqtt::$version::codec::Codec::default();
        let stream = $row.stream();
        let (packets, len) = ($row.packets(), $row.frame.len());
        codec
            .decode(&mut ntex_bytes::BytesMut::from($row.frame.as_slice()))
            .is_ok_and(|packet| packet.is_some())
            .then(|| {
                Contender::new("ntex-mqtt", move || {
                    let mut source = ntex_bytes::BytesMut::from(stream.as_slice());
                    read_fronts(&source, len);
                    let start = Instant::now();
                    for _ in 0..packets {
                        black_box(&codec.decode(&mut source));
                    }
                    start.elapsed()
                })
            })
    }};
}

fn decoding(row: &Row) -> Vec<Contender<'_>> {
    let version = row.version;
    let v5 = version == Version::V5;
    let frame = row.frame.as_slice();
    Packet::decode(frame, version).unwrap();
    let mut contenders = vec![of_slice!("avocet", row, |input| {
        Packet::decode_next(input, version, PACKET_SIZE_MAX)
    })];
    let limit = frame.len();
    if v5 {
        contenders.extend(Contender::of_bytes_mut("rumqttc", row, move |source| {
            rumqttc::v5::mqttbytes::v5::Packet::read(source, Some(limit as u32)).ok()
        }));
        contenders.extend(Contender::of_bytes_mut("mqttbytes", row, move |source| {
            mqttbytes::v5::read(source, limit).ok()
        }));
        contenders.extend(ntex_decoding!(v5, row));
        let mut codec = rmqtt_codec::v5::Codec::default();
        contenders.extend(Contender::of_bytes_mut("rmqtt-codec", row, move |source| {
            codec.decode(source).ok().flatten()
        }));
        if mqtt_codec_kit::v5::packet::VariablePacket::decode(&mut { frame }).is_ok() {
            contenders.push(of_slice!("mqtt-codec-kit", row, |input| {
                mqtt_codec_kit::v5::packet::VariablePacket::decode(input)
            }));
        }
    } else {
        if mqttrs::decode_slice(frame).is_ok() {
            contenders.push(of_slice!("mqttrs", row, |input| mqttrs::decode_slice(
                input
            )));
        }
        contenders.extend(Contender::of_bytes_mut("rumqttc", row, move |source| {
            rumqttc::mqttbytes::v4::Packet::read(source, limit).ok()
        }));
        contenders.extend(Contender::of_bytes_mut("mqttbytes", row, move |source| {
            mqttbytes::v4::read(source, limit).ok()
        }));
        contenders.extend(ntex_decoding!(v3, row));
        let mut codec = rmqtt_codec::v3::Codec::default();
        contenders.extend(Contender::of_bytes_mut("rmqtt-codec", row, move |source| {
            codec.decode(source).ok().flatten()
        }));
        if mqtt_codec_kit::v4::packet::VariablePacket::decode(&mut { frame }).is_ok() {
            contenders.push(of_slice!("mqtt-codec-kit", row, |input| {
                mqtt_codec_kit::v4::packet::VariablePacket::decode(input)
            }));
        }
    }
    contenders
}

/// ntex-mqtt takes packets by value, which are made before the clock starts, and shares payloads.
macro_rules! ntex_encoding {
    ($version:ident, $row:ident) => {{
        use ntex_mqtt::$version::codec::{Codec, Decoded, Encoded};
        let codec = Codec::default();
        let decoded = codec.decode(&mut ntex_bytes::BytesMut::from($row.frame.as_slice()));
        let packet = decoded.ok().flatten().and_then(|decoded| match decoded {
            Decoded::Packet(packet, _) => Some(Encoded::Packet(packet)),
            Decoded::Publish(packet, payload, _) => Some(Encoded::Publish(packet, Some(payload))),
            Decoded::PayloadChunk(..) => None,
        });
        let passes = $row.passes();
        let packets = passes * $row.packets();
        packet
            .filter(|packet| {
                let mut pages = BytePages::default();
                codec.encodev(packet.clone(), &mut pages).unwrap();
                pages.len() == $row.frame.len()
            })
            .map(|packet| {
                Contender::new("ntex-mqtt", move || {
                    let all = vec![packet.clone(); packets];
                    let mut pages = BytePages::default();
                    let start = Instant::now();
                    for packet in all {
                        codec.encodev(black_box(packet), &mut pages).unwrap();
                    }
                    black_box(&pages);
                    start.elapsed() / passes as u32
                })
            })
    }};
}

/// What is written of a PUBLISH whose payload goes out from where it lies.
fn encoding_header(row: &Row) -> Vec<Contender<'_>> {
    let version = row.version;
    let Packet::Publish(publish) = row.packet else {
        return Vec::new();
    };
    let passes = row.passes();
    let packets = passes * row.packets();
    let mut out = Vec::with_capacity(packets * publish.encoded_header_len(version));
    let mut contenders = vec![Contender::new("avocet", move || {
        let start = Instant::now();
        out.clear();
        for _ in 0..packets {
            let publish = black_box(&publish);
            publish.encode_header(version, &mut out).unwrap();
            black_box(publish.payload);
        }
        black_box(&out);
        start.elapsed() / passes as u32
    })];
    contenders.extend(match version {
        Version::V5 => ntex_encoding!(v5, row),
        Version::V3_1 | Version::V3_1_1 => ntex_encoding!(v3, row),
    });
    contenders
}

/// mqttbytes has a type for each packet of each version.
macro_rules! mqttbytes_encoding {
    ($version:ident, $row:ident) => {{
        use mqttbytes::$version::{Packet, read};
        let packet = read(&mut BytesMut::from($row.frame.as_slice()), usize::MAX >> 1);
        packet.ok().and_then(|packet| {
            Contender::encoding("mqttbytes", $row, move |out: &mut BytesMut| {
                let written = match black_box(&packet) {
                    Packet::Connect(packet) => packet.write(out),
                    Packet::Publish(packet) => packet.write(out),
                    Packet::PubAck(packet) => packet.write(out),
                    Packet::Subscribe(packet) => packet.write(out),
                    other => panic!("no row has {other:?}"),
                };
                written.unwrap();
            })
        })
    }};
}

/// Without rmqtt-codec, which takes packets by value and would have to clone them.
fn encoding(row: &Row) -> Vec<Contender<'_>> {
    let version = row.version;
    let frame = row.frame.as_slice();
    let mut source = BytesMut::from(frame);
    let limit = usize::MAX >> 1;
    let mut contenders = vec![
        Contender::encoding("avocet", row, move |out: &mut Vec<u8>| {
            black_box(&row.packet).encode(version, out).unwrap();
        })
        .unwrap(),
    ];
    if version == Version::V5 {
        let packet = rumqttc::v5::mqttbytes::v5::Packet::read(&mut source, None).unwrap();
        contenders.extend(Contender::encoding(
            "rumqttc",
            row,
            move |out: &mut BytesMut| {
                black_box(&packet).write(out, None).unwrap();
            },
        ));
        contenders.extend(mqttbytes_encoding!(v5, row));
        if !row.is_large() {
            contenders.extend(ntex_encoding!(v5, row));
        }
        if let Ok(packet) = mqtt_codec_kit::v5::packet::VariablePacket::decode(&mut { frame }) {
            contenders.extend(Contender::encoding(
                "mqtt-codec-kit",
                row,
                move |out: &mut Vec<u8>| {
                    black_box(&packet).encode(out).unwrap();
                },
            ));
        }
    } else {
        if let Ok(Some(packet)) = mqttrs::decode_slice(frame) {
            contenders.extend(Contender::encoding(
                "mqttrs",
                row,
                move |out: &mut MqttrsBuffer| {
                    let free = &mut out.bytes[out.len..];
                    out.len += mqttrs::encode_slice(black_box(&packet), free).unwrap();
                },
            ));
        }
        let packet = rumqttc::mqttbytes::v4::Packet::read(&mut source, limit).unwrap();
        contenders.extend(Contender::encoding(
            "rumqttc",
            row,
            move |out: &mut BytesMut| {
                black_box(&packet).write(out, limit).unwrap();
            },
        ));
        contenders.extend(mqttbytes_encoding!(v4, row));
        if !row.is_large() {
            contenders.extend(ntex_encoding!(v3, row));
        }
        if let Ok(packet) = mqtt_codec_kit::v4::packet::VariablePacket::decode(&mut { frame }) {
            contenders.extend(Contender::encoding(
                "mqtt-codec-kit",
                row,
                move |out: &mut Vec<u8>| {
                    black_box(&packet).encode(out).unwrap();
                },
            ));
        }
    }
    contenders
}

/// mqttrs writes into slices.
struct MqttrsBuffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer for MqttrsBuffer {
    fn with_capacity(capacity: usize) -> Self {
        let bytes = vec![0; capacity];
        Self { bytes, len: 0 }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

/// Lets the crates take turns, and prints the median nanoseconds per packet of each and its ratio to
/// ours.
fn measure(what: &str, row: &Row, rounds: usize, mut contenders: Vec<Contender<'_>>) {
    let mut turns = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (contender, turns) in contenders.iter_mut().zip(&mut turns) {
            (contender.turn)();
            turns.push((contender.turn)());
        }
    }
    let nanoseconds: Vec<f64> = turns
        .iter_mut()
        .map(|turns| {
            turns.sort_unstable();
            turns[turns.len() / 2].as_secs_f64() * 1e9 / row.packets() as f64
        })
        .collect();
    let ours = nanoseconds[0];
    let best = nanoseconds[1..].iter().copied().fold(f64::MAX, f64::min);
    let mut line = format!("{what} {:<32} {ours:>7.1}", row.name);
    line += &format!("  {:.2} of the best:", ours / best);
    for (contender, nanoseconds) in contenders.iter().zip(&nanoseconds).skip(1) {
        line += &format!(" {} {nanoseconds:.1}", contender.name);
    }
    println!("{line}");
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rounds = if arguments.iter().any(|argument| argument == "--test") {
        1
    } else {
        ROUNDS
    };
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = |what: &str, row: &Row| {
        filter.is_none_or(|filter| format!("{what} {}", row.name).contains(filter))
    };
    println!("ns per packet, median of {rounds} rounds in turns");
    for row in &rows() {
        if chosen("decode", row) {
            measure("decode", row, rounds, decoding(row));
        }
        if chosen("encode", row) {
            measure("encode", row, rounds, encoding(row));
        }
        if row.is_large() && chosen("header", row) {
            measure("header", row, rounds, encoding_header(row));
        }
    }
}
