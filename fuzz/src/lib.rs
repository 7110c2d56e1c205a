//! What the targets share: an input read as choices, time that it decides, packets one by one, and
//! what may be sent in a Session.

mod oracle;

use std::net::SocketAddr;
use std::time::Duration;

use avocet_codec::{PACKET_SIZE_MAX, Packet, PacketId, QoS, ReasonCode, Version};
use avocet_session::{Instant, Now, TransmitBuf, UnixTime};

pub use crate::oracle::{Aliases, Receiving, Sending, check_expiry, expires_at, number_of};

pub const VERSIONS: [Version; 3] = [Version::V5, Version::V3_1_1, Version::V3_1];

pub const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Reason Codes of all kinds.
pub const REASON_CODES: [ReasonCode; 8] = [
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::UnspecifiedError,
    ReasonCode::NotAuthorized,
    ReasonCode::QuotaExceeded,
    ReasonCode::PacketIdentifierNotFound,
    ReasonCode::ContinueAuthentication,
    ReasonCode::ReAuthenticate,
];

/// An input as a list of choices; when it is over, all that follow are 0.
#[derive(Clone, Copy)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Small ones, so that they meet.
    pub fn packet_id(&mut self) -> PacketId {
        let id = 1 + u16::from(self.byte()) % 12;
        PacketId::new(id).expect("not 0")
    }

    /// As many bytes as the first one says.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// Milliseconds: few or many.
    pub fn millis(&mut self) -> u64 {
        1 << self.below(24)
    }
}

/// The time `time_ms` milliseconds after the beginning.
pub fn now(time_ms: u64) -> Now {
    let instant = Instant::ORIGIN + Duration::from_millis(time_ms);
    Now::new(instant, UnixTime::from_millis(1_700_000_000_000 + time_ms))
}

/// Empties `out`, which holds whole packets that decode, and shows them and their lengths.
pub fn take_packets(
    out: &mut TransmitBuf,
    version: Version,
    mut look: impl FnMut(Packet<'_>, usize),
) {
    let bytes: Vec<u8> = out.slices().flatten().copied().collect();
    out.clear();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let before = rest;
        match Packet::decode_next(&mut rest, version, PACKET_SIZE_MAX) {
            Ok(packet) => look(packet.expect("a whole one"), before.len() - rest.len()),
            Err(error) => panic!("{before:02x?} is sent in {version}: {error}"),
        }
    }
}

/// Whether one of these addresses, separated by commas, has a host name, for which a program would
/// ask the network.
pub fn asks_dns(addresses: &str) -> bool {
    addresses.split(',').map(str::trim).any(|address| {
        let port = address
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        matches!(port, Some(Ok(_))) && address.parse::<SocketAddr>().is_err()
    })
}

/// Plants the bug that `AVOCET_PLANTED` names, in a build that can: see docs/fuzzing.md.
pub fn plant() {
    #[cfg(feature = "planted")]
    if let Ok(name) = std::env::var("AVOCET_PLANTED") {
        use avocet_session::planted::{Bug, plant};
        let mut bugs = Bug::ALL.iter();
        let bug = bugs.find(|bug| format!("{bug:?}") == name);
        plant(*bug.unwrap_or_else(|| panic!("{name} is none of {:?}", Bug::ALL)));
    }
}
