//! What decodes can be encoded, in as many bytes as it says, and decodes to the same packet; in the
//! other versions it is refused or decodes too.
//!
//! The first byte chooses the version, the others are one packet.

#![no_main]

use avocet_codec::{Frame, Packet, Version};
use libfuzzer_sys::fuzz_target;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, frame)) = input.split_first() else {
        return;
    };
    let version = VERSIONS[usize::from(choice) % VERSIONS.len()];
    let Ok(packet) = Packet::decode(frame, version) else {
        return;
    };
    let mut bytes = Vec::new();
    packet
        .encode(version, &mut bytes)
        .expect("what decodes can be encoded");
    assert_eq!(bytes.len(), packet.encoded_len(version), "{packet:?}");
    assert_eq!(Packet::decode(&bytes, version), Ok(packet));
    for other in VERSIONS {
        if let Ok(frame) = Frame::encode(&packet, other) {
            let again = Frame::encode(&frame.packet(), other).expect("what decodes can be encoded");
            assert_eq!(again, frame, "{packet:?}");
        }
    }
});
