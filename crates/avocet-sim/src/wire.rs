//! Control Packets as the invariants look at them, read from the bytes on a link.

use std::collections::BTreeMap;
use std::fmt;

use avocet_codec::{
    AckType, Delivery, Packet, Publish, QoS, ReasonCode, RetainHandling, SubscriptionOptions,
    Version, frame_len,
};

/// Which message of the run it is.
pub(crate) type Uid = u32;

#[derive(Clone, Debug)]
pub(crate) enum Pkt {
    Connect(ConnectPkt),
    Connack(ConnackPkt),
    Publish(PublishPkt),
    Ack {
        kind: AckType,
        id: u16,
        code: ReasonCode,
    },
    Subscribe {
        id: u16,
        filters: Vec<(String, SubscriptionOptions)>,
        subscription_id: Option<u32>,
    },
    Suback {
        id: u16,
        codes: Vec<ReasonCode>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Unsuback {
        id: u16,
    },
    Pingreq,
    Pingresp,
    Disconnect(ReasonCode),
    Auth,
}

#[derive(Clone, Debug)]
pub(crate) struct ConnectPkt {
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) expiry: u32,
    pub(crate) keep_alive: u16,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) will: Option<Uid>,
}

#[derive(Clone, Debug)]
pub(crate) struct ConnackPkt {
    pub(crate) present: bool,
    pub(crate) code: ReasonCode,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishPkt {
    /// None if it has neither payload nor property to tell.
    pub(crate) uid: Option<Uid>,
    pub(crate) topic: String,
    pub(crate) alias: Option<u16>,
    /// Whether the alias stands for the Topic Name.
    pub(crate) by_alias: bool,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) id: Option<u16>,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) expiry: Option<u32>,
    pub(crate) empty: bool,
}

impl PublishPkt {
    pub(crate) fn new(publish: &Publish<'_>, topic: &str) -> Self {
        let id = match publish.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce(id) | Delivery::ExactlyOnce(id) => Some(id.get()),
        };
        Self {
            uid: uid_of(publish.payload)
                .or_else(|| uid_of(publish.properties.content_type()?.as_bytes())),
            topic: topic.into(),
            alias: publish.topic_alias.map(|alias| alias.get()),
            by_alias: publish.topic_name.is_none(),
            qos: publish.qos(),
            dup: publish.dup,
            retain: publish.retain,
            id,
            subscription_ids: publish.subscription_ids.iter().map(|id| id.get()).collect(),
            expiry: publish.message_expiry_interval,
            empty: publish.payload.is_empty(),
        }
    }
}

/// A payload is `m17` with padding behind a space.
pub(crate) fn uid_of(payload: &[u8]) -> Option<Uid> {
    let text = payload.strip_prefix(b"m")?;
    let end = text.iter().position(|byte| *byte == b' ');
    let digits = &text[..end.unwrap_or(text.len())];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads the packets of one direction of one connection, with its Topic Aliases.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    bytes: Vec<u8>,
    aliases: BTreeMap<u16, String>,
    broken: bool,
}

impl Tap {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if !self.broken {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The next packet and its length; an error if that is none.
    pub(crate) fn next(&mut self, version: Version) -> Option<Result<(Pkt, usize), String>> {
        if self.broken {
            return None;
        }
        let len = match frame_len(&self.bytes, u32::MAX) {
            Ok(len) => len.filter(|len| *len <= self.bytes.len())?,
            Err(error) => {
                self.broken = true;
                return Some(Err(error.to_string()));
            }
        };
        let frame: Vec<u8> = self.bytes.drain(..len).collect();
        Some(match Packet::decode(&frame, version) {
            Ok(packet) => Ok((self.describe(&packet), len)),
            Err(error) => {
                self.broken = true;
                Err(error.to_string())
            }
        })
    }

    fn describe(&mut self, packet: &Packet<'_>) -> Pkt {
        let ack = |kind, ack: &avocet_codec::Ack<'_>| Pkt::Ack {
            kind,
            id: ack.packet_id.get(),
            code: ack.reason_code,
        };
        match packet {
            Packet::Connect(connect) => {
                let properties = &connect.properties;
                Pkt::Connect(ConnectPkt {
                    version: connect.version,
                    clean_start: connect.clean_start,
                    expiry: match connect.version {
                        Version::V5 => properties.session_expiry_interval,
                        _ if connect.clean_start => 0,
                        _ => u32::MAX,
                    },
                    keep_alive: connect.keep_alive,
                    receive_maximum: properties.receive_maximum.map_or(u16::MAX, |it| it.get()),
                    maximum_packet_size: properties
                        .maximum_packet_size
                        .map_or(u32::MAX, |it| it.get()),
                    topic_alias_maximum: properties.topic_alias_maximum,
                    will: connect.will.and_then(|will| uid_of(will.payload)),
                })
            }
            Packet::Connack(connack) => {
                let properties = &connack.properties;
                Pkt::Connack(ConnackPkt {
                    present: connack.session_present,
                    code: connack.reason_code,
                    receive_maximum: properties.receive_maximum.map_or(u16::MAX, |it| it.get()),
                    maximum_packet_size: properties
                        .maximum_packet_size
                        .map_or(u32::MAX, |it| it.get()),
                    topic_alias_maximum: properties.topic_alias_maximum,
                })
            }
            Packet::Publish(publish) => {
                let alias = publish.topic_alias.map(|alias| alias.get());
                let topic = match (publish.topic_name, alias) {
                    (Some(name), Some(alias)) => {
                        self.aliases.insert(alias, name.as_str().into());
                        name.as_str().to_owned()
                    }
                    (Some(name), None) => name.as_str().to_owned(),
                    (None, Some(alias)) => self.aliases.get(&alias).cloned().unwrap_or_default(),
                    (None, None) => String::new(),
                };
                Pkt::Publish(PublishPkt::new(publish, &topic))
            }
            Packet::Puback(it) => ack(AckType::Puback, it),
            Packet::Pubrec(it) => ack(AckType::Pubrec, it),
            Packet::Pubrel(it) => ack(AckType::Pubrel, it),
            Packet::Pubcomp(it) => ack(AckType::Pubcomp, it),
            Packet::Subscribe(subscribe) => Pkt::Subscribe {
                id: subscribe.packet_id.get(),
                filters: subscribe
                    .filters
                    .iter()
                    .map(|filter| (filter.topic_filter.as_str().into(), filter.options))
                    .collect(),
                subscription_id: subscribe.subscription_id.map(|id| id.get()),
            },
            Packet::Suback(suback) => Pkt::Suback {
                id: suback.packet_id.get(),
                codes: suback.reason_codes.iter().collect(),
            },
            Packet::Unsubscribe(unsubscribe) => Pkt::Unsubscribe {
                id: unsubscribe.packet_id.get(),
                filters: unsubscribe
                    .filters
                    .iter()
                    .map(|filter| filter.as_str().into())
                    .collect(),
            },
            Packet::Unsuback(unsuback) => Pkt::Unsuback {
                id: unsuback.packet_id.get(),
            },
            Packet::Pingreq => Pkt::Pingreq,
            Packet::Pingresp => Pkt::Pingresp,
            Packet::Disconnect(disconnect) => Pkt::Disconnect(disconnect.reason_code),
            Packet::Auth(_) => Pkt::Auth,
        }
    }
}

impl fmt::Display for Pkt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(connect) => {
                write!(
                    f,
                    "CONNECT {:?} clean {} expiry {} keep alive {} receive maximum {}",
                    connect.version,
                    connect.clean_start,
                    connect.expiry,
                    connect.keep_alive,
                    connect.receive_maximum
                )?;
                if let Some(uid) = connect.will {
                    write!(f, " will m{uid}")?;
                }
                Ok(())
            }
            Self::Connack(connack) => {
                write!(f, "CONNACK {} present {}", connack.code, connack.present)
            }
            Self::Publish(publish) => {
                write!(f, "PUBLISH {}", publish.topic)?;
                match publish.uid {
                    Some(uid) => write!(f, " m{uid}")?,
                    None => write!(f, " (clears)")?,
                }
                write!(f, " q{}", publish.qos as u8)?;
                if let Some(id) = publish.id {
                    write!(f, " id {id}")?;
                }
                if publish.dup {
                    write!(f, " dup")?;
                }
                if publish.retain {
                    write!(f, " retain")?;
                }
                if publish.empty {
                    write!(f, " empty")?;
                }
                if let Some(alias) = publish.alias {
                    write!(f, " alias {alias}")?;
                }
                if let Some(expiry) = publish.expiry {
                    write!(f, " expiry {expiry}")?;
                }
                if !publish.subscription_ids.is_empty() {
                    write!(f, " subscriptions {:?}", publish.subscription_ids)?;
                }
                Ok(())
            }
            Self::Ack { kind, id, code } => {
                write!(f, "{} {id}", format!("{kind:?}").to_uppercase())?;
                if *code != ReasonCode::Success {
                    write!(f, " {code}")?;
                }
                Ok(())
            }
            Self::Subscribe {
                id,
                filters,
                subscription_id,
            } => {
                write!(f, "SUBSCRIBE {id}")?;
                for (filter, options) in filters {
                    write!(f, " {filter} q{}", options.maximum_qos as u8)?;
                    if options.no_local {
                        write!(f, " no local")?;
                    }
                    if options.retain_as_published {
                        write!(f, " as published")?;
                    }
                    if options.retain_handling != RetainHandling::SendAtSubscribe {
                        write!(f, " handling {}", options.retain_handling as u8)?;
                    }
                }
                if let Some(id) = subscription_id {
                    write!(f, " subscription {id}")?;
                }
                Ok(())
            }
            Self::Suback { id, codes } => {
                let codes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
                write!(f, "SUBACK {id} {codes:?}")
            }
            Self::Unsubscribe { id, filters } => write!(f, "UNSUBSCRIBE {id} {filters:?}"),
            Self::Unsuback { id } => write!(f, "UNSUBACK {id}"),
            Self::Pingreq => write!(f, "PINGREQ"),
            Self::Pingresp => write!(f, "PINGRESP"),
            Self::Disconnect(code) => write!(f, "DISCONNECT {code}"),
            Self::Auth => write!(f, "AUTH"),
        }
    }
}
