#![doc = include_str!("../README.md")]

mod client;
mod clock;
mod config;
mod driver;
mod error;
mod received;

pub use client::{
    Acknowledged, Answered, Client, Connected, Disconnection, Messages, Pending, Subscription,
    Unsubscription,
};
pub use config::{Authenticator, Config};
pub use error::{Closed, ConnectError, PublishError, SubscribeError};
pub use received::Received;

pub use avocet_codec::{
    MessageProperties, MessagePropertiesParts, PayloadFormat, QoS, ReasonCode, RetainHandling,
    SubscriptionId, SubscriptionOptions, UserProperty, Version,
};
pub use avocet_session::client::{
    Authentication, Backoff, ClientConfig, Reconnect, Server, WillMessage,
};
pub use avocet_session::{CloseReason, Message, Session};
pub use avocet_topic::{TopicFilter, TopicFilterBuf, TopicName, TopicNameBuf};
