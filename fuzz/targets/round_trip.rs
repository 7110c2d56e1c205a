//! What decodes can be encoded, in as many bytes as it says, and decodes to the same packet; in the
//! other versions it is refused or decodes too. The owned form says the same as the bytes it was
//! made of, also after serde had it.
//!
//! The first byte chooses the version, the others are one packet.

#![no_main]

use avocet_codec::{Frame, Packet, Version};
use libfuzzer_sys::fuzz_target;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let version = VERSIONS[usize::from(choice) % VERSIONS.len()];
    let packet = Packet::decode(bytes, version);
    let owned = Frame::new(bytes.to_vec().into(), version);
    let (packet, owned) = match (packet, owned) {
        (Ok(packet), Ok(owned)) => (packet, owned),
        (packet, owned) => {
            assert_eq!(packet.err(), owned.err());
            return;
        }
    };
    assert_eq!(owned.packet(), packet);
    assert_eq!(owned.bytes(), bytes);
    check_serde(&owned);

    let mut encoded = Vec::new();
    packet
        .encode(version, &mut encoded)
        .expect("what decodes can be encoded");
    assert_eq!(encoded.len(), packet.encoded_len(version), "{packet:?}");
    assert_eq!(Packet::decode(&encoded, version), Ok(packet));
    for other in VERSIONS {
        if let Ok(frame) = Frame::encode(&packet, other) {
            let again = Frame::encode(&frame.packet(), other).expect("what decodes can be encoded");
            assert_eq!(again, frame, "{packet:?}");
        }
    }
});

fn check_serde(frame: &Frame) {
    let text = serde_json::to_string(frame).expect("bytes and a version");
    let read: Frame = serde_json::from_str(&text).expect("what was written");
    assert_eq!(read, *frame);
}
