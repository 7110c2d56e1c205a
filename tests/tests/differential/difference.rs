//! Where two decoders disagree, and the questions that classes ask of it.

use avocet_codec::{DecodeError, PacketType, Version};

use crate::outcome::{Input, Ours, Outcome, Seen, Theirs};

/// The codecs that ours is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    ProtocolCore,
    MqttPacket,
}

impl Codec {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ProtocolCore => "mqtt-protocol-core",
            Self::MqttPacket => "mqtt-packet",
        }
    }

    /// mqtt-packet gathers User Properties by their names.
    fn keeps_order_of_user_properties(self) -> bool {
        self == Self::ProtocolCore
    }
}

/// What they do, where ours does something else.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// They see a packet, ours refuses.
    Accept,
    /// They want more bytes, ours refuses.
    Wait,
    /// They refuse, ours sees a packet.
    Refuse(String),
    /// They refuse, ours wants more bytes.
    RefuseEarly(String),
    /// Both see a packet, with other values in these fields.
    Differ(Vec<String>),
    /// The two disagree on where the packet ends.
    Length,
}

#[derive(Clone, Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) codec: Codec,
    pub(crate) version: Version,
    pub(crate) bytes: &'a [u8],
    pub(crate) what: What,
    error: Option<DecodeError>,
    seen: Option<&'a Seen>,
}

impl<'a> Difference<'a> {
    /// None when both see the same packet, both refuse, or both want more bytes.
    pub(crate) fn of(
        codec: Codec,
        input: &'a Input,
        ours: &'a Ours,
        theirs: &Theirs,
    ) -> Option<Self> {
        let what = match (ours, theirs) {
            (Outcome::Packet(ours), Outcome::Packet(theirs)) => {
                let fields = differing(codec, ours.clone(), theirs.clone());
                if fields.is_empty() {
                    return None;
                }
                What::Differ(fields)
            }
            (Outcome::Refused(_), Outcome::Refused(_))
            | (Outcome::Incomplete, Outcome::Incomplete) => return None,
            (Outcome::Refused(_), Outcome::Packet(_)) => What::Accept,
            (Outcome::Refused(_), Outcome::Incomplete) => What::Wait,
            (Outcome::Packet(_), Outcome::Refused(why)) => What::Refuse(why.clone()),
            (Outcome::Incomplete, Outcome::Refused(why)) => What::RefuseEarly(why.clone()),
            (Outcome::Packet(_), Outcome::Incomplete)
            | (Outcome::Incomplete, Outcome::Packet(_)) => What::Length,
        };
        let (error, seen) = match ours {
            Outcome::Packet(seen) => (None, Some(seen)),
            Outcome::Refused(error) => (Some(*error), None),
            Outcome::Incomplete => (None, None),
        };
        Some(Self {
            codec,
            version: input.version,
            bytes: &input.bytes,
            what,
            error,
            seen,
        })
    }

    /// Ours refuses with such an error.
    pub(crate) fn refused(&self, is: impl Fn(DecodeError) -> bool) -> bool {
        self.error.is_some_and(is)
    }

    /// They refuse what ours sees a packet in.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.what, What::Refuse(_))
    }

    /// They refuse what ours sees a packet in, with a message that begins so.
    pub(crate) fn is_refused_with(&self, message: &str) -> bool {
        matches!(&self.what, What::Refuse(why) if why.starts_with(message))
    }

    /// Both see a packet, and differ in some of these fields and no others.
    pub(crate) fn differs_in(&self, names: &[&str]) -> bool {
        match &self.what {
            What::Differ(fields) => fields.iter().all(|field| names.contains(&field.as_str())),
            _ => false,
        }
    }

    /// The first byte is that of such a packet.
    pub(crate) fn is(&self, packet_type: PacketType) -> bool {
        self.bytes
            .first()
            .is_some_and(|byte| byte >> 4 == packet_type as u8)
    }

    /// Ours sees such a packet, with such a field.
    pub(crate) fn has(&self, packet: &str, field: &str) -> bool {
        self.seen
            .is_some_and(|seen| seen.name == packet && seen.fields.contains_key(field))
    }

    /// Ours sees such a packet, with this value in such a field.
    pub(crate) fn has_value(&self, packet: &str, field: &str, value: &str) -> bool {
        self.has(packet, field) && self.seen.is_some_and(|seen| seen.fields[field] == [value])
    }

    /// Ours sees a CONNECT of 3.1.
    pub(crate) fn is_connect_of_3_1(&self) -> bool {
        self.has_value("connect", "version", "3")
    }

    /// The packet is one of 5.0: a CONNECT says so itself.
    pub(crate) fn is_of_5(&self) -> bool {
        self.version == Version::V5 || self.has_value("connect", "version", "5")
    }
}

fn differing(codec: Codec, mut ours: Seen, mut theirs: Seen) -> Vec<String> {
    if !codec.keeps_order_of_user_properties() {
        ours.sort_user_properties();
        theirs.sort_user_properties();
    }
    let mut names: Vec<_> = ours
        .fields
        .keys()
        .chain(theirs.fields.keys())
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names.retain(|name| ours.fields.get(name) != theirs.fields.get(name));
    if ours.name != theirs.name {
        names.push("packet type".to_owned());
    }
    names
}
