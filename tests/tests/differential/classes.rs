//! The differences that are known, each judged by the standard. `docs/differential.md` shows them.

use avocet_codec::{DecodeError, Field, PacketType, PropertyId, Version};

use crate::difference::{Codec, Codec::MqttPacket, Codec::ProtocolCore, Difference, What};

/// A kind of difference.
pub(crate) struct Class {
    /// What differs.
    pub(crate) name: &'static str,
    /// Who differs from ours; all of them must have an example.
    pub(crate) codecs: &'static [Codec],
    pub(crate) right: Right,
    /// The statements that decide, by their names in `conformance/`.
    pub(crate) statements: &'static [&'static str],
    pub(crate) why: &'static str,
    pub(crate) covers: fn(&Difference) -> bool,
}

/// Whom the standard agrees with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Ours,
    /// The standard allows both, or contradicts itself.
    Both,
}

const BOTH: &[Codec] = &[ProtocolCore, MqttPacket];

/// A difference belongs to the first class that covers it.
pub(crate) const CLASSES: &[Class] = &[
    Class {
        name: "accepts reserved flags of the fixed header",
        codecs: &[ProtocolCore],
        right: Right::Ours,
        statements: &["MQTT5-2.1.3-1", "MQTT311-2.2.2-2"],
        why: "other flags than those of the table are malformed",
        covers: |d| d.refused(|error| error == DecodeError::FixedHeaderFlags),
    },
    Class {
        name: "waits for the rest of a packet of type 0, or of a PUBLISH of QoS 3",
        codecs: BOTH,
        right: Right::Both,
        statements: &["MQTT5-3.3.1-4", "MQTT311-3.3.1-4"],
        why: "the first byte is enough to refuse them; the others do so once they are whole",
        covers: |d| {
            matches!(d.what, What::Wait)
                && d.refused(|e| matches!(e, DecodeError::PacketType(0) | DecodeError::QoS3))
        },
    },
    Class {
        name: "refuses the flags at the first byte",
        codecs: &[MqttPacket],
        right: Right::Both,
        statements: &["MQTT5-2.1.3-1", "MQTT311-2.2.2-2"],
        why: "ours waits for the whole packet where the flags depend on the version, which for a \
              CONNECT is further on",
        covers: |d| {
            let What::RefuseEarly(message) = &d.what else {
                return false;
            };
            message.starts_with("Invalid header flag bits")
        },
    },
    Class {
        name: "accepts a length or identifier that takes more bytes than its value needs",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-1.5.5-1"],
        why: "the encoded value must use the minimum number of bytes; 3.1.1 does not ask for it",
        covers: |d| d.refused(|e| matches!(e, DecodeError::VariableByteIntegerNotMinimal(_))),
    },
    Class {
        name: "accepts ill-formed UTF-8, and replaces it",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-1.5.4-1", "MQTT311-1.5.3-1"],
        why: "such strings are malformed",
        covers: |d| d.refused(|e| matches!(e, DecodeError::IllFormedUtf8(_))),
    },
    Class {
        name: "accepts U+0000 in strings",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-1.5.4-2", "MQTT311-1.5.3-2"],
        why: "such strings are malformed",
        covers: |d| d.refused(|e| matches!(e, DecodeError::NullCharacter(_))),
    },
    Class {
        name: "accepts a will of QoS 3",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-3.1.2-12", "MQTT311-3.1.2-14"],
        why: "3 is no QoS; mqtt-protocol-core reads it as 0",
        covers: |d| d.is(PacketType::Connect) && d.refused(|e| e == DecodeError::QoS3),
    },
    Class {
        name: "accepts DUP with QoS 0",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-3.3.1-2", "MQTT311-3.3.1-2"],
        why: "DUP must be 0 for all messages of QoS 0",
        covers: |d| d.refused(|e| e == DecodeError::DupWithQoS0),
    },
    Class {
        name: "keeps DUP with QoS 0 in 3.1",
        codecs: &[MqttPacket],
        right: Right::Both,
        statements: &[],
        why: "3.1 gives the flag a meaning only above QoS 0; ours reads it as 0",
        covers: |d| d.version == Version::V3_1 && d.differs_in(&["dup"]),
    },
    Class {
        name: "accepts Packet Identifier 0",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-2.2.1-3", "MQTT311-2.3.1-1"],
        why: "an identifier is not 0; mqtt-protocol-core knows it of acknowledgements only",
        covers: |d| d.refused(|e| e == DecodeError::PacketIdZero),
    },
    Class {
        name: "accepts Topic Names that are empty or have wildcards",
        codecs: BOTH,
        right: Right::Ours,
        statements: &[
            "MQTT5-3.3.2-2",
            "MQTT5-3.3.2-14",
            "MQTT5-4.7.3-1",
            "MQTT311-3.3.2-2",
        ],
        why: "of PUBLISH, of wills and as Response Topic",
        covers: |d| d.refused(|e| matches!(e, DecodeError::TopicName(_))),
    },
    Class {
        name: "accepts a PUBLISH without Topic Name and Topic Alias",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-4.7.3-1"],
        why: "section 3.3.2.1 calls it a Protocol Error",
        covers: |d| d.refused(|e| e == DecodeError::MissingTopicName),
    },
    Class {
        name: "accepts Topic Filters that are empty or have a wildcard out of place",
        codecs: BOTH,
        right: Right::Ours,
        statements: &[
            "MQTT5-4.7.1-1",
            "MQTT5-4.7.1-2",
            "MQTT5-4.8.2-2",
            "MQTT311-4.7.1-2",
        ],
        why: "no such filter can be subscribed to, or unsubscribed from",
        covers: |d| d.refused(|e| e == DecodeError::TopicFilter),
    },
    Class {
        name: "accepts a Protocol Name with the level of another",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-3.1.2-1", "MQTT5-3.1.2-2", "MQTT311-3.1.2-2"],
        why: "level 3 goes with MQIsdp, 4 and 5 with MQTT, and 5 without the bit of bridges",
        covers: |d| {
            d.refused(|e| {
                matches!(
                    e,
                    DecodeError::UnsupportedProtocolVersion(3..=5 | 0x83..=0x85)
                )
            })
        },
    },
    Class {
        name: "accepts Connect Flags that contradict each other, or the reserved one",
        codecs: &[ProtocolCore],
        right: Right::Ours,
        statements: &[
            "MQTT5-3.1.2-3",
            "MQTT5-3.1.2-11",
            "MQTT5-3.1.2-13",
            "MQTT311-3.1.2-3",
        ],
        why: "the server must check the reserved flag; without a will its flags are 0",
        covers: |d| d.refused(|e| e == DecodeError::ConnectFlags),
    },
    Class {
        name: "accepts a password without a user name in 3.x",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT311-3.1.2-22"],
        why: "without the User Name Flag the Password Flag is 0",
        covers: |d| d.refused(|e| e == DecodeError::PasswordWithoutUserName),
    },
    Class {
        name: "refuses a password without a user name in 5.0",
        codecs: &[ProtocolCore],
        right: Right::Ours,
        statements: &[],
        why: "5.0 allows it, and says in section 3.1.2.9 that it did not use to be so",
        covers: |d| {
            d.is_refused_with("ProtocolError")
                && d.has("connect", "password")
                && !d.has("connect", "user name")
        },
    },
    Class {
        name: "refuses the bit of bridges in the protocol level",
        codecs: &[ProtocolCore],
        right: Right::Both,
        statements: &["MQTT311-3.1.2-2"],
        why: "no standard has it; mosquitto and others send it, and mqtt-packet reads it too",
        covers: |d| d.is_refused_with("UnsupportedProtocolVersion") && d.has("connect", "bridge"),
    },
    Class {
        name: "refuses CONNECT of 3.1",
        codecs: &[ProtocolCore],
        right: Right::Both,
        statements: &["MQTT311-3.1.2-2"],
        why: "it has no 3.1; a server may refuse versions",
        covers: |d| d.is_refused_with("ProtocolError") && d.is_connect_of_3_1(),
    },
    Class {
        name: "refuses a CONNECT of 3.1 that ends before the user name or password of its flags",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &[],
        why: "3.1 lets the end of the packet decide",
        covers: |d| {
            let is_it = d.is_refused_with("Cannot parse username")
                || d.is_refused_with("Cannot parse password");
            is_it && d.is_connect_of_3_1()
        },
    },
    Class {
        name: "refuses what 3.1 does not reserve",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &[],
        why: "3.1 gives flags of the fixed header, of CONNECT and CONNACK and of a requested QoS no \
              meaning, and asks nobody to check them",
        covers: |d| {
            const MESSAGES: [&str; 6] = [
                "Invalid header flag bits, must be",
                "Connect flag bit 0 must be 0, but got 1",
                "Will QoS must be set to zero when Will Flag is set to 0",
                "Will Retain Flag must be set to zero when Will Flag is set to 0",
                "Invalid connack flags, bits 7-1 must be set to 0",
                "Invalid subscribe topic flag bits, bits 7-2 must be 0",
            ];
            (d.version == Version::V3_1 || d.is_connect_of_3_1())
                && MESSAGES.iter().any(|message| d.is_refused_with(message))
        },
    },
    Class {
        name: "reads Session Present in 3.1",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &[],
        why: "that byte of CONNACK has no meaning in 3.1",
        covers: |d| d.version == Version::V3_1 && d.differs_in(&["session present"]),
    },
    Class {
        name: "accepts reserved Connect Acknowledge Flags",
        codecs: &[ProtocolCore],
        right: Right::Ours,
        statements: &["MQTT5-3.2.2-1"],
        why: "the bits 7 to 1 are reserved and 0",
        covers: |d| d.refused(|e| e == DecodeError::ConnectAcknowledgeFlags),
    },
    Class {
        name: "accepts Session Present in a CONNACK that refuses",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-3.2.2-6", "MQTT311-3.2.2-4"],
        why: "Session Present is 0 there",
        covers: |d| d.refused(|e| e == DecodeError::SessionPresentWithError),
    },
    Class {
        name: "accepts a CONNACK with a code that is not of its table",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-3.2.2-8"],
        why: "it checks the codes of the other packets",
        covers: |d| {
            d.is(PacketType::Connack) && d.refused(|e| matches!(e, DecodeError::ReasonCode(_)))
        },
    },
    Class {
        name: "refuses DISCONNECT with 0x8c, Bad authentication method",
        codecs: BOTH,
        right: Right::Both,
        statements: &["MQTT5-3.14.2-1"],
        why: "the standard's table of all Reason Codes gives it to DISCONNECT, that of DISCONNECT \
              leaves it out; ours accepts what either allows",
        covers: |d| d.has_value("disconnect", "code", "140") && d.is_refused(),
    },
    Class {
        name: "refuses an empty AUTH",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-3.15.2-1"],
        why: "by section 3.15.2.1 an AUTH of Remaining Length 0 is one with Reason Code 0x00",
        covers: |d| d.is_refused_with("Invalid auth reason code") && d.is(PacketType::Auth),
    },
    Class {
        name: "reads past the end of a DISCONNECT",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-3.14.2-1"],
        why: "where bytes follow a DISCONNECT of Remaining Length 0, it takes them for its code",
        covers: |d| d.bytes.starts_with(&[0xe0, 0]) && d.bytes.len() > 2,
    },
    Class {
        name: "accepts properties of other packets",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1"],
        why: "by section 2.2.2.2 a packet with a property that is not for it is malformed",
        covers: |d| d.refused(|e| matches!(e, DecodeError::MisplacedProperty(_))),
    },
    Class {
        name: "accepts several Subscription Identifiers in a SUBSCRIBE",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1"],
        why: "by section 3.8.2.1.2 it is a Protocol Error to have it more than once",
        covers: |d| {
            let repeated = DecodeError::RepeatedProperty(PropertyId::SubscriptionIdentifier);
            d.refused(|e| e == repeated)
        },
    },
    Class {
        name: "accepts other repeated properties",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1"],
        why: "only User Properties, and the Subscription Identifiers of a PUBLISH, may repeat",
        covers: |d| d.refused(|e| matches!(e, DecodeError::RepeatedProperty(_))),
    },
    Class {
        name: "accepts property values that are out of range",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1"],
        why: "0 for a Receive Maximum, 2 for a flag: the sections of the properties call each a \
              Protocol Error",
        covers: |d| d.refused(|e| matches!(e, DecodeError::PropertyValue(_))),
    },
    Class {
        name: "loses User Properties of the same name and an empty value",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &[],
        why: "a name may appear more than once, and its values keep their order",
        covers: |d| d.differs_in(&["user property", "will user property"]) && d.is_of_5(),
    },
    Class {
        name: "accepts Authentication Data, or an AUTH, without an Authentication Method",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1"],
        why: "sections 3.1.2.11.10 and 3.15.2.2.2 call it a Protocol Error",
        covers: |d| d.refused(|e| e == DecodeError::MissingAuthenticationMethod),
    },
    Class {
        name: "accepts SUBSCRIBE and UNSUBSCRIBE without a Topic Filter",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &[
            "MQTT5-3.8.3-2",
            "MQTT5-3.10.3-2",
            "MQTT311-3.8.3-3",
            "MQTT311-3.10.3-2",
        ],
        why: "each has at least one",
        covers: |d| d.refused(|e| e == DecodeError::NoTopicFilters),
    },
    Class {
        name: "accepts SUBACK and UNSUBACK without a code",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-3.9.3-1", "MQTT5-3.11.3-1", "MQTT311-3.9.3-1"],
        why: "each has one for every filter of the request, which has at least one",
        covers: |d| d.refused(|e| e == DecodeError::NoReasonCodes),
    },
    Class {
        name: "accepts the options of 5.0 in a SUBSCRIBE of 3.1.1",
        codecs: &[ProtocolCore],
        right: Right::Ours,
        statements: &["MQTT311-3.8.3-4"],
        why: "those bits are reserved in 3.1.1",
        covers: |d| {
            d.version == Version::V3_1_1 && d.refused(|e| e == DecodeError::SubscriptionOptions)
        },
    },
    Class {
        name: "accepts No Local on a Shared Subscription",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-3.8.3-4"],
        why: "it is a Protocol Error",
        covers: |d| d.refused(|e| e == DecodeError::NoLocalOnSharedSubscription),
    },
    Class {
        name: "accepts a PUBLISH or AUTH that ends before its Property Length",
        codecs: BOTH,
        right: Right::Ours,
        statements: &["MQTT5-2.2.2-1"],
        why: "a packet without properties says so with a Property Length of 0; only acknowledgements \
              and DISCONNECT may end before it, and an AUTH that is empty",
        covers: |d| {
            (d.is(PacketType::Publish) || d.is(PacketType::Auth))
                && d.refused(|e| e == DecodeError::Truncated(Field::PropertyLength))
        },
    },
    Class {
        name: "accepts other packets that end within a field",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1", "MQTT311-4.8.0-1"],
        why: "what is missing becomes -1, null or undefined",
        covers: |d| d.refused(|e| matches!(e, DecodeError::Truncated(_))),
    },
    Class {
        name: "accepts a Reason Code in the acknowledgements of 3.1.1",
        codecs: &[ProtocolCore],
        right: Right::Ours,
        statements: &["MQTT311-4.8.0-1"],
        why: "PUBACK, PUBREC, PUBREL and PUBCOMP have a Remaining Length of 2",
        covers: |d| {
            d.version == Version::V3_1_1
                && d.codec == ProtocolCore
                && d.refused(|e| e == DecodeError::TrailingBytes)
        },
    },
    Class {
        name: "accepts packets that go on behind their last field",
        codecs: &[MqttPacket],
        right: Right::Ours,
        statements: &["MQTT5-4.13.1-1", "MQTT311-4.8.0-1"],
        why: "the bytes are not what the standard says the packet has",
        covers: |d| d.refused(|e| e == DecodeError::TrailingBytes),
    },
];
