//! A packet that waits to leave.

use alloc::boxed::Box;
use alloc::vec::Vec;
use avocet_codec::{EncodeError, Packet, Version};

/// Most answers are no longer, CONNACK of 5.0 with some properties included.
const SHORT_MAX: usize = 22;

/// The bytes of a packet.
#[derive(Debug)]
pub(super) enum Encoded {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

impl Encoded {
    /// Encodes a packet that takes `len` bytes.
    pub(super) fn new(
        packet: &Packet<'_>,
        version: Version,
        len: usize,
    ) -> Result<Self, EncodeError> {
        let mut bytes = [0; SHORT_MAX];
        if let Some(mut room) = bytes.get_mut(..len) {
            packet.encode(version, &mut room)?;
            // No more than SHORT_MAX.
            let len = len as u8;
            return Ok(Self::Short { len, bytes });
        }
        let mut bytes = Vec::with_capacity(len);
        packet.encode(version, &mut bytes)?;
        Ok(Self::Long(bytes.into_boxed_slice()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use avocet_codec::{PacketId, ReasonCode, Suback};

    use super::*;

    #[test]
    fn short_and_long_packets_are_the_bytes_of_the_codec() {
        for codes in 1..=2 * SHORT_MAX {
            let codes = [ReasonCode::GrantedQoS1; 2 * SHORT_MAX]
                .get(..codes)
                .unwrap();
            let packet = Packet::Suback(Suback::new(PacketId::new(7).unwrap(), codes));
            let mut expected = Vec::new();
            packet.encode(Version::V5, &mut expected).unwrap();
            let encoded = Encoded::new(&packet, Version::V5, expected.len()).unwrap();
            assert_eq!(encoded.bytes(), expected);
            let is_short = matches!(encoded, Encoded::Short { .. });
            assert_eq!(is_short, expected.len() <= SHORT_MAX);
        }
    }
}
