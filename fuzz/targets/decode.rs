//! Bytes from a peer: decoding is total, reads nothing beyond a packet, and splits a stream in the
//! same places however the bytes arrive, and whether packets are cut off first or in one call.
//!
//! The first byte chooses the version, the others are the stream.

#![no_main]

use avocet_codec::{DecodeError, PACKET_SIZE_MAX, Packet, Version, frame_len};
use libfuzzer_sys::fuzz_target;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, mut stream)) = input.split_first() else {
        return;
    };
    let version = VERSIONS[usize::from(choice) % VERSIONS.len()];
    // What is no whole packet is refused, not misread.
    check(stream, version);
    while let Ok(Some(len)) = frame_len(stream, PACKET_SIZE_MAX) {
        for known in 0..5.min(stream.len()) {
            let part = frame_len(&stream[..known], PACKET_SIZE_MAX);
            assert!(
                matches!(part, Ok(None)) || part == Ok(Some(len)),
                "{part:?}"
            );
        }
        let limit = u32::try_from(len - 1).expect("a length within the limit");
        assert_eq!(frame_len(stream, limit), Err(DecodeError::PacketTooLarge));
        let mut next = stream;
        let packet = Packet::decode_next(&mut next, version, PACKET_SIZE_MAX);
        let Some((frame, rest)) = stream.split_at_checked(len) else {
            assert_eq!((packet, next), (Ok(None), stream));
            return;
        };
        assert_eq!(packet, Packet::decode(frame, version).map(Some));
        assert!(packet.is_err() || next == rest);
        check(frame, version);
        stream = rest;
    }
});

/// Decodes and looks at every field, lazily read lists included.
fn check(frame: &[u8], version: Version) {
    match Packet::decode(frame, version) {
        Ok(packet) => drop(format!("{packet:?}")),
        Err(error) => {
            assert!(error.reason_code().is_error());
            drop(error.to_string());
        }
    }
}
