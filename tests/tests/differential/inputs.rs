//! The stream of inputs: the golden vectors, packets of the codec's generators, and both with
//! bits, lengths and properties changed. The same on every run.

use std::path::Path;

use avocet_codec::{PropertyId, Version};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::outcome::Input;
use crate::{generators, language};

/// How many inputs each version has, the unchanged ones included.
const INPUTS_PER_VERSION: usize = 20_000;

/// How many packets come from the generators, for all versions together.
const GENERATED: usize = 1_500;

/// Longer inputs cost more than they show.
const LEN_MAX: usize = 2_000;

pub(crate) fn inputs() -> Vec<Input> {
    let (vectors, generated) = (vectors(), generated());
    let mut random = Random(0x6176_6f63_6574);
    let mut inputs = Vec::new();
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let of_version = |inputs: &[Input]| -> Vec<Input> {
            let inputs = inputs.iter().filter(|input| input.version == version);
            inputs.cloned().collect()
        };
        let (vectors, generated) = (of_version(&vectors), of_version(&generated));
        let wanted = inputs.len() + INPUTS_PER_VERSION;
        inputs.extend(vectors.iter().chain(&generated).cloned());
        while inputs.len() < wanted {
            let seeds = [&vectors, &generated][usize::from(random.below(4) != 0)];
            let mut bytes = random.of(seeds).bytes.clone();
            for _ in 0..=random.below(2) {
                bytes = changed(&mut random, bytes, version, seeds);
            }
            inputs.push(Input { version, bytes });
        }
    }
    inputs
}

fn vectors() -> Vec<Input> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/avocet-codec/tests/vectors");
    let mut inputs = Vec::new();
    for vector in language::vectors(&folder) {
        for version in vector.versions {
            if vector.bytes.len() <= LEN_MAX {
                let bytes = vector.bytes.clone();
                inputs.push(Input { version, bytes });
            }
        }
    }
    inputs
}

fn generated() -> Vec<Input> {
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let frames = generators::frame();
    let mut inputs = Vec::new();
    while inputs.len() < GENERATED {
        let frame = frames.new_tree(&mut runner).unwrap().current();
        let (version, mut bytes) = (frame.version, Vec::new());
        frame.with_packet(|packet| packet.encode(version, &mut bytes).unwrap());
        if bytes.len() <= LEN_MAX {
            inputs.push(Input { version, bytes });
        }
    }
    inputs
}

/// One change. Most keep the Remaining Length true, since only then does a decoder look further.
fn changed(random: &mut Random, bytes: Vec<u8>, version: Version, seeds: &[Input]) -> Vec<u8> {
    let Some((first_byte, body)) = split(&bytes) else {
        return bytes;
    };
    let (mut first_byte, mut body) = (first_byte, body.to_vec());
    match random.below(12) {
        0 => first_byte ^= 1 << random.below(8),
        1 | 2 => {
            if !body.is_empty() {
                let at = random.below(body.len());
                body[at] ^= 1 << random.below(8);
            }
        }
        3 => {
            if !body.is_empty() {
                let at = random.below(body.len());
                body[at] = *random.of(&[0, 1, 2, 3, 5, 0x10, 0x7f, 0x80, 0xc0, 0xed, 0xff]);
            }
        }
        4 => body.truncate(random.below(body.len() + 1)),
        5 => {
            let at = random.below(body.len() + 1);
            body.insert(at, random.byte());
        }
        6 => {
            if !body.is_empty() {
                body.remove(random.below(body.len()));
            }
        }
        7 => {
            // The rest of another packet.
            let at = random.below(body.len() + 1);
            body.truncate(at);
            if let Some((_, other)) = split(&random.of(seeds).bytes) {
                body.extend(other.iter().skip(at));
            }
        }
        8 | 9 => {
            if version == Version::V5 {
                add_property(random, first_byte >> 4, &mut body);
            }
        }
        10 => {
            // A Remaining Length that is not true, or not in its shortest form.
            let mut bytes = bytes;
            if random.below(2) == 0 {
                bytes[1] = bytes[1].wrapping_add_signed(*random.of(&[-2, -1, 1, 2]));
            } else if bytes[1] < 0x80 {
                bytes[1] |= 0x80;
                bytes.insert(2, 0);
            }
            return bytes;
        }
        _ => {
            let mut bytes = bytes;
            bytes.truncate(random.below(bytes.len() + 1));
            return bytes;
        }
    }
    let mut bytes = vec![first_byte];
    write_length(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

/// First byte and body of what looks like a packet.
fn split(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&first_byte, rest) = bytes.split_first()?;
    let (_, length_len) = read_length(rest)?;
    Some((first_byte, &rest[length_len..]))
}

fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let length = (0..=end)
        .map(|at| usize::from(bytes[at] & 0x7f) << (7 * at))
        .sum();
    Some((length, end + 1))
}

fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 127 {
        out.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Puts one more property in front of the others, which may have it already, or in a packet that
/// may not have it.
fn add_property(random: &mut Random, packet_type: u8, body: &mut Vec<u8>) {
    let two = |body: &[u8], at: usize| {
        Some(usize::from(*body.get(at)?) << 8 | usize::from(*body.get(at + 1)?))
    };
    let section = match packet_type {
        1 => Some(10),
        3 => two(body, 0).map(|length| 2 + length + 2 * random.below(2)),
        2 | 8 | 9 | 10 | 11 => Some(2),
        4..=7 => Some(3),
        14 | 15 => Some(1),
        _ => None,
    };
    let Some((section, rest)) = section.and_then(|at| Some((at, body.get(at..)?))) else {
        return;
    };
    let Some((length, length_len)) = read_length(rest) else {
        return;
    };
    let property = property(random);
    let mut out = body[..section].to_vec();
    write_length(&mut out, length + property.len());
    out.extend(property);
    out.extend(&rest[length_len..]);
    *body = out;
}

/// A property of any kind, mostly with a value that it may have.
fn property(random: &mut Random) -> Vec<u8> {
    let ids: Vec<_> = (0..=u8::MAX).filter_map(PropertyId::from_u8).collect();
    let id = *random.of(&ids);
    let small = *random.of(&[0, 1, 1, 1, 2]);
    let mut bytes = vec![id as u8];
    match id {
        PropertyId::PayloadFormatIndicator
        | PropertyId::RequestProblemInformation
        | PropertyId::RequestResponseInformation
        | PropertyId::MaximumQoS
        | PropertyId::RetainAvailable
        | PropertyId::WildcardSubscriptionAvailable
        | PropertyId::SubscriptionIdentifierAvailable
        | PropertyId::SharedSubscriptionAvailable
        | PropertyId::SubscriptionIdentifier => bytes.push(small),
        PropertyId::ServerKeepAlive
        | PropertyId::ReceiveMaximum
        | PropertyId::TopicAliasMaximum
        | PropertyId::TopicAlias => bytes.extend([0, small]),
        PropertyId::MessageExpiryInterval
        | PropertyId::SessionExpiryInterval
        | PropertyId::WillDelayInterval
        | PropertyId::MaximumPacketSize => bytes.extend([0, 0, 0, small]),
        PropertyId::UserProperty => bytes.extend([0, 1, b'k', 0, 1, b'v']),
        _ => bytes.extend([0, 1, *random.of(b"ab/+#\0\x80")]),
    }
    bytes
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        let at = self.below(values.len());
        &values[at]
    }
}
