#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
#[cfg(feature = "tokio-util")]
mod frame_codec;
mod list;
mod message_properties;
mod packet;
mod packet_id;
mod property;
mod property_id;
mod publish;
mod qos;
mod reader;
mod reason_code;
mod sink;
mod suback;
mod subscribe;
mod subscription_id;
mod unsuback;
mod unsubscribe;
mod version;
mod will;

pub use ack::{Ack, AckType};
pub use auth::Auth;
pub use connack::{Connack, ConnackProperties};
pub use connect::{Connect, ConnectProperties};
pub use disconnect::Disconnect;
pub use error::{DecodeError, EncodeError, Field};
pub use frame::{Frame, frame_len};
#[cfg(feature = "tokio-util")]
pub use frame_codec::{FrameCodec, FrameCodecError};
pub use list::{Iter, List, ListItem};
pub use message_properties::{MessageProperties, MessagePropertiesParts, PayloadFormat};
pub use packet::{Packet, PacketType};
pub use packet_id::PacketId;
pub use property::UserProperty;
pub use property_id::PropertyId;
pub use publish::{Delivery, Publish};
pub use qos::QoS;
pub use reason_code::ReasonCode;
pub use suback::Suback;
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions};
pub use subscription_id::SubscriptionId;
pub use unsuback::Unsuback;
pub use unsubscribe::Unsubscribe;
pub use version::Version;
pub use will::Will;

pub use avocet_topic::{TopicFilter, TopicName};

/// The largest Remaining Length, in bytes [MQTT5-2.1.4].
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// The size of the largest packet, in bytes: five of fixed header and the largest Remaining Length.
pub const PACKET_SIZE_MAX: u32 = REMAINING_LENGTH_MAX + 5;
