//! What the server allows.

use alloc::string::String;
use avocet_codec::{Connack, QoS, Version};
use core::num::NonZeroU16;

use crate::client::ClientConfig;

/// What the server allows, as its CONNACK says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// The Client Identifier the server assigned, if the client left that to it.
    pub assigned_client_id: Option<String>,
    /// Keep Alive in seconds, the client's or the server's own choice; 0 is none.
    pub keep_alive: u16,
    /// Seconds for which the Session outlives the connection; `u32::MAX` is for ever.
    pub session_expiry_interval: u32,
    /// QoS 1 and 2 messages it takes at a time.
    pub receive_maximum: u16,
    /// The largest packet it takes, in bytes.
    pub maximum_packet_size: u32,
    /// The highest QoS it takes.
    pub maximum_qos: QoS,
    /// Whether it keeps retained messages.
    pub retain_available: bool,
    /// Topic Aliases it takes.
    pub topic_alias_maximum: u16,
    /// Whether it takes Topic Filters with wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether it takes Subscription Identifiers.
    pub subscription_ids_available: bool,
    /// Whether it takes Shared Subscriptions.
    pub shared_subscription_available: bool,
}

impl Server {
    /// What holds where CONNACK says nothing, as in 3.x.
    pub(super) fn new(config: &ClientConfig) -> Self {
        let is_5_0 = config.version == Version::V5;
        Self {
            assigned_client_id: None,
            keep_alive: config.keep_alive,
            session_expiry_interval: match (is_5_0, config.clean_start) {
                (true, _) => config.session_expiry_interval,
                (false, true) => 0,
                (false, false) => u32::MAX,
            },
            receive_maximum: if is_5_0 {
                u16::MAX
            } else {
                config.limits.inflight.max(1)
            },
            maximum_packet_size: avocet_codec::PACKET_SIZE_MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            topic_alias_maximum: 0,
            wildcard_subscription_available: true,
            subscription_ids_available: is_5_0,
            shared_subscription_available: true,
        }
    }

    pub(super) fn negotiate(&mut self, connack: &Connack<'_>) {
        let properties = &connack.properties;
        self.assigned_client_id = properties.assigned_client_id.map(String::from);
        // [MQTT5-3.1.2-21]
        self.keep_alive = properties.server_keep_alive.unwrap_or(self.keep_alive);
        self.session_expiry_interval = properties
            .session_expiry_interval
            .unwrap_or(self.session_expiry_interval);
        self.receive_maximum = properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        if let Some(maximum) = properties.maximum_packet_size {
            self.maximum_packet_size = maximum.get().min(self.maximum_packet_size);
        }
        self.maximum_qos = properties.maximum_qos;
        self.retain_available = properties.retain_available;
        self.topic_alias_maximum = properties.topic_alias_maximum;
        self.wildcard_subscription_available = properties.wildcard_subscription_available;
        self.subscription_ids_available = properties.subscription_ids_available;
        self.shared_subscription_available = properties.shared_subscription_available;
    }
}
