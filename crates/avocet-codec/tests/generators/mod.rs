//! Packets that own their parts, so that a strategy can make them, lent as what the crate takes.

use std::num::{NonZeroU16, NonZeroU32};

use avocet_codec::{
    Ack, Auth, Connack, ConnackProperties, Connect, ConnectProperties, Delivery, Disconnect, List,
    MessageProperties, MessagePropertiesParts, Packet, PacketId, PacketType, PayloadFormat,
    Publish, QoS, ReasonCode, RetainHandling, Suback, Subscribe, SubscribeFilter, SubscriptionId,
    SubscriptionOptions, TopicFilter, TopicName, Unsuback, Unsubscribe, UserProperty, Version,
    Will,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V3_1, Version::V3_1_1, Version::V5])
}

/// A packet in a version that has it, without anything that this version leaves out.
#[derive(Clone, Debug)]
pub(crate) struct TestFrame {
    pub(crate) version: Version,
    packet_type: PacketType,
    parts: Parts,
}

/// More than any one packet needs.
#[derive(Clone, Debug)]
struct Parts {
    packet_id: PacketId,
    flags: [bool; 8],
    qos: QoS,
    texts: [String; 4],
    optional_texts: [Option<String>; 6],
    optional_blobs: [Option<Vec<u8>>; 3],
    topic_name: String,
    response_topic: Option<String>,
    filters: Vec<(String, QoS, bool, bool, RetainHandling)>,
    user_properties: Vec<(String, String)>,
    will_user_properties: Vec<(String, String)>,
    subscription_ids: Vec<SubscriptionId>,
    numbers: [u32; 2],
    optional_numbers: [Option<u32>; 2],
    short: u16,
    optional_short: Option<u16>,
    optional_non_zero_short: Option<NonZeroU16>,
    optional_non_zero: Option<NonZeroU32>,
    payload: Vec<u8>,
    code: prop::sample::Index,
    codes: Vec<prop::sample::Index>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z/é\u{1}🦆]{1,9}", "[^\0]{0,200}"]
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn topic_name() -> impl Strategy<Value = String> {
    "[a-c/$é ]{1,20}"
}

fn topic_filter() -> impl Strategy<Value = String> {
    prop_oneof![
        topic_name(),
        Just(String::from("#")),
        Just(String::from("+/+/#")),
        Just(String::from("$share/group/a/#")),
    ]
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn retain_handling() -> impl Strategy<Value = RetainHandling> {
    select(vec![
        RetainHandling::SendAtSubscribe,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ])
}

fn user_properties() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    prop_oneof![1..300_u32, 1..=SubscriptionId::MAX].prop_map(|id| SubscriptionId::new(id).unwrap())
}

fn parts() -> impl Strategy<Value = Parts> {
    let texts = (
        std::array::from_fn(|_| text()),
        std::array::from_fn(|_| of(text())),
        std::array::from_fn(|_| of(blob())),
        topic_name(),
        of(topic_name()),
        vec(
            (
                topic_filter(),
                qos(),
                any::<bool>(),
                any::<bool>(),
                retain_handling(),
            ),
            1..4,
        ),
        user_properties(),
        user_properties(),
    );
    let numbers = (
        vec(subscription_id(), 0..3),
        any::<[u32; 2]>(),
        any::<[Option<u32>; 2]>(),
        any::<u16>(),
        any::<Option<u16>>(),
        any::<Option<NonZeroU16>>(),
        any::<Option<NonZeroU32>>(),
        any::<NonZeroU16>(),
    );
    let rest = (
        any::<[bool; 8]>(),
        qos(),
        prop_oneof![blob(), vec(any::<u8>(), 0..300)],
        any::<prop::sample::Index>(),
        vec(any::<prop::sample::Index>(), 1..4),
    );
    (texts, numbers, rest).prop_map(|(texts, numbers, rest)| Parts {
        packet_id: numbers.7.into(),
        flags: rest.0,
        qos: rest.1,
        texts: texts.0,
        optional_texts: texts.1,
        optional_blobs: texts.2,
        topic_name: texts.3,
        response_topic: texts.4,
        filters: texts.5,
        user_properties: texts.6,
        will_user_properties: texts.7,
        subscription_ids: numbers.0,
        numbers: numbers.1,
        optional_numbers: numbers.2,
        short: numbers.3,
        optional_short: numbers.4,
        optional_non_zero_short: numbers.5,
        optional_non_zero: numbers.6,
        payload: rest.2,
        code: rest.3,
        codes: rest.4,
    })
}

pub(crate) fn frame() -> impl Strategy<Value = TestFrame> {
    (version(), 1..=15_u8, parts()).prop_map(|(version, packet_type, parts)| {
        let packet_type = PacketType::from_u8(packet_type).unwrap();
        let version = if packet_type == PacketType::Auth {
            Version::V5
        } else {
            version
        };
        TestFrame {
            version,
            packet_type,
            parts,
        }
    })
}

fn borrow(pairs: &[(String, String)]) -> Vec<UserProperty<'_>> {
    pairs
        .iter()
        .map(|(name, value)| UserProperty { name, value })
        .collect()
}

impl TestFrame {
    /// Lends the packet, since what it borrows from does not outlive the call.
    pub(crate) fn with_packet<T>(&self, f: impl FnOnce(Packet<'_>) -> T) -> T {
        let parts = &self.parts;
        let v5 = self.version == Version::V5;
        let user_properties = borrow(&parts.user_properties);
        let user_properties = if v5 { &user_properties[..] } else { &[] };
        let will_user_properties = borrow(&parts.will_user_properties);
        let codes = self.codes();
        let filters: Vec<_> = self.filters();
        let topic_filters: Vec<_> = filters.iter().map(|filter| filter.topic_filter).collect();
        let lists = Lists {
            user_properties,
            will_user_properties: &will_user_properties,
            codes: &codes,
            filters: &filters,
            topic_filters: &topic_filters,
        };
        f(self.packet(lists))
    }

    fn packet<'a>(&'a self, lists: Lists<'a>) -> Packet<'a> {
        let packet_id = self.parts.packet_id;
        let user_properties = List::from_slice(lists.user_properties);
        match self.packet_type {
            PacketType::Connect => Packet::Connect(self.connect(lists)),
            PacketType::Connack => Packet::Connack(self.connack(lists)),
            PacketType::Publish => Packet::Publish(self.publish(lists)),
            PacketType::Puback => Packet::Puback(self.ack(lists)),
            PacketType::Pubrec => Packet::Pubrec(self.ack(lists)),
            PacketType::Pubrel => Packet::Pubrel(self.ack(lists)),
            PacketType::Pubcomp => Packet::Pubcomp(self.ack(lists)),
            PacketType::Subscribe => Packet::Subscribe(Subscribe {
                dup: self.version == Version::V3_1 && self.parts.flags[0],
                subscription_id: self
                    .of_v5(self.parts.subscription_ids.first().copied())
                    .flatten(),
                user_properties,
                ..Subscribe::new(packet_id, lists.filters)
            }),
            PacketType::Suback => Packet::Suback(Suback {
                reason_string: self.text(0),
                user_properties,
                ..Suback::new(packet_id, lists.codes)
            }),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe {
                dup: self.version == Version::V3_1 && self.parts.flags[0],
                user_properties,
                ..Unsubscribe::new(packet_id, lists.topic_filters)
            }),
            PacketType::Unsuback => Packet::Unsuback(Unsuback {
                reason_string: self.text(0),
                user_properties,
                ..Unsuback::new(packet_id, self.of_v5(lists.codes).unwrap_or_default())
            }),
            PacketType::Pingreq => Packet::Pingreq,
            PacketType::Pingresp => Packet::Pingresp,
            PacketType::Disconnect => Packet::Disconnect(Disconnect {
                session_expiry_interval: self.of_v5(self.parts.optional_numbers[0]).flatten(),
                reason_string: self.text(0),
                user_properties,
                server_reference: self.text(1),
                ..Disconnect::new(self.reason_code())
            }),
            PacketType::Auth => Packet::Auth(Auth {
                authentication_data: self.blob(0),
                reason_string: self.text(0),
                user_properties,
                ..Auth::new(self.reason_code(), &self.parts.texts[0])
            }),
        }
    }

    fn of_v5<T>(&self, value: T) -> Option<T> {
        (self.version == Version::V5).then_some(value)
    }

    fn text(&self, index: usize) -> Option<&str> {
        self.of_v5(self.parts.optional_texts[index].as_deref())
            .flatten()
    }

    fn blob(&self, index: usize) -> Option<&[u8]> {
        self.of_v5(self.parts.optional_blobs[index].as_deref())
            .flatten()
    }

    fn codes(&self) -> Vec<ReasonCode> {
        self.parts
            .codes
            .iter()
            .map(|index| self.code(*index))
            .collect()
    }

    /// A code of the packet type that comes back from the version's wire form.
    fn code(&self, index: prop::sample::Index) -> ReasonCode {
        let v5 = self.version == Version::V5;
        let allowed: Vec<_> = ReasonCode::ALL
            .iter()
            .copied()
            .filter(|code| {
                if v5 {
                    code.is_allowed_in(self.packet_type)
                } else if self.packet_type == PacketType::Connack {
                    let return_code = code.connect_return_code();
                    ReasonCode::from_connect_return_code(return_code) == Some(*code)
                } else if self.packet_type == PacketType::Suback {
                    code.is_allowed_in(PacketType::Suback)
                        && code.suback_return_code() == *code as u8
                } else {
                    *code == ReasonCode::Success
                }
            })
            .collect();
        allowed
            .get(index.index(allowed.len().max(1)))
            .copied()
            .unwrap_or(ReasonCode::Success)
    }

    fn reason_code(&self) -> ReasonCode {
        self.code(self.parts.code)
    }

    fn filters(&self) -> Vec<SubscribeFilter<'_>> {
        self.parts
            .filters
            .iter()
            .map(
                |(filter, qos, no_local, retain_as_published, retain_handling)| {
                    let options = SubscriptionOptions {
                        no_local: *no_local && !filter.starts_with("$share/"),
                        retain_as_published: *retain_as_published,
                        retain_handling: *retain_handling,
                        ..SubscriptionOptions::new(*qos)
                    };
                    SubscribeFilter {
                        topic_filter: TopicFilter::new(filter).unwrap(),
                        options: self
                            .of_v5(options)
                            .unwrap_or_else(|| SubscriptionOptions::new(*qos)),
                    }
                },
            )
            .collect()
    }

    fn ack<'a>(&'a self, lists: Lists<'a>) -> Ack<'a> {
        Ack {
            reason_string: self.text(0),
            user_properties: List::from_slice(lists.user_properties),
            ..Ack::with_reason(self.parts.packet_id, self.reason_code())
        }
    }

    fn message_properties<'a>(
        &'a self,
        user_properties: &'a [UserProperty<'a>],
    ) -> MessageProperties<'a> {
        if self.version != Version::V5 {
            return MessageProperties::EMPTY;
        }
        MessageProperties::new(MessagePropertiesParts {
            payload_format: self.parts.flags[0].then_some(PayloadFormat::Utf8),
            content_type: self.text(0),
            response_topic: self
                .parts
                .response_topic
                .as_deref()
                .map(|name| TopicName::new(name).unwrap()),
            correlation_data: self.blob(0),
            user_properties,
        })
    }

    fn publish<'a>(&'a self, lists: Lists<'a>) -> Publish<'a> {
        let parts = &self.parts;
        let v5 = self.version == Version::V5;
        let topic_alias = parts.optional_non_zero_short.filter(|_| v5);
        let delivery = match parts.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(parts.packet_id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(parts.packet_id),
        };
        let has_topic = topic_alias.is_none() || parts.flags[1];
        Publish {
            dup: parts.flags[2] && parts.qos > QoS::AtMostOnce,
            delivery,
            retain: parts.flags[3],
            topic_name: has_topic.then(|| TopicName::new(&parts.topic_name).unwrap()),
            topic_alias,
            message_expiry_interval: parts.optional_numbers[0].filter(|_| v5),
            subscription_ids: List::from_slice(if v5 { &parts.subscription_ids } else { &[] }),
            properties: self.message_properties(lists.user_properties),
            payload: &parts.payload,
        }
    }

    fn connect<'a>(&'a self, lists: Lists<'a>) -> Connect<'a> {
        let parts = &self.parts;
        let v5 = self.version == Version::V5;
        let will = Will {
            qos: parts.qos,
            retain: parts.flags[1],
            will_delay_interval: if v5 { parts.numbers[0] } else { 0 },
            message_expiry_interval: parts.optional_numbers[0].filter(|_| v5),
            properties: self.message_properties(lists.will_user_properties),
            ..Will::new(TopicName::new(&parts.topic_name).unwrap(), &parts.payload)
        };
        let properties = ConnectProperties {
            session_expiry_interval: parts.numbers[1],
            receive_maximum: parts.optional_non_zero_short,
            maximum_packet_size: parts.optional_non_zero,
            topic_alias_maximum: parts.short,
            request_response_information: parts.flags[2],
            request_problem_information: parts.flags[3],
            user_properties: List::from_slice(lists.user_properties),
            authentication_method: self.text(1),
            authentication_data: self.text(1).and_then(|_| self.blob(1)),
        };
        let user_name = parts.optional_texts[2].as_deref();
        let password = parts.optional_blobs[2].as_deref();
        Connect {
            bridge: !v5 && parts.flags[4],
            clean_start: parts.flags[5],
            keep_alive: parts.short,
            will: parts.flags[6].then_some(will),
            user_name,
            password: password.filter(|_| v5 || user_name.is_some()),
            properties: self.of_v5(properties).unwrap_or_default(),
            ..Connect::new(self.version, &parts.texts[0])
        }
    }

    fn connack<'a>(&'a self, lists: Lists<'a>) -> Connack<'a> {
        let parts = &self.parts;
        let reason_code = self.reason_code();
        let properties = ConnackProperties {
            session_expiry_interval: parts.optional_numbers[0],
            receive_maximum: parts.optional_non_zero_short,
            maximum_qos: parts.qos,
            retain_available: parts.flags[0],
            maximum_packet_size: parts.optional_non_zero,
            assigned_client_id: self.text(0),
            topic_alias_maximum: parts.short,
            reason_string: self.text(1),
            user_properties: List::from_slice(lists.user_properties),
            wildcard_subscription_available: parts.flags[1],
            subscription_ids_available: parts.flags[2],
            shared_subscription_available: parts.flags[3],
            server_keep_alive: parts.optional_short,
            response_information: self.text(2),
            server_reference: self.text(3),
            authentication_method: self.text(4),
            authentication_data: self.text(4).and_then(|_| self.blob(0)),
        };
        Connack {
            session_present: self.version > Version::V3_1
                && reason_code == ReasonCode::Success
                && parts.flags[4],
            reason_code,
            properties: self.of_v5(properties).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy)]
struct Lists<'a> {
    user_properties: &'a [UserProperty<'a>],
    will_user_properties: &'a [UserProperty<'a>],
    codes: &'a [ReasonCode],
    filters: &'a [SubscribeFilter<'a>],
    topic_filters: &'a [TopicFilter<'a>],
}
