use avocet_codec::QoS;
use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use crate::Limits;

/// What a server offers on its connections, and what it tells clients in CONNACK.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// QoS 1 and 2 messages a client may send before they are acknowledged. In 3.x, which has no
    /// Receive Maximum, reading stops while as many acknowledgements have not left.
    pub receive_maximum: NonZeroU16,
    /// Bytes of the largest packet a client may send.
    pub maximum_packet_size: NonZeroU32,
    /// Topic Aliases a client may set; each keeps one Topic Name.
    pub topic_alias_maximum: u16,
    /// The greatest QoS of PUBLISH and Will Message.
    pub maximum_qos: QoS,
    /// Whether RETAIN is allowed.
    pub retain_available: bool,
    /// Whether Topic Filters may hold wildcards. The owner refuses others in SUBACK.
    pub wildcard_subscription_available: bool,
    /// Whether SUBSCRIBE may hold a Subscription Identifier.
    pub subscription_ids_available: bool,
    /// Whether shared subscriptions are allowed. The owner refuses others in SUBACK.
    pub shared_subscription_available: bool,
    /// The greatest Keep Alive in seconds; a 5.0 client that asks for more, or for none, is told
    /// this one. 3.x has no way to tell, and keeps the client's.
    pub keep_alive_max: Option<NonZeroU16>,
    /// The least Keep Alive in seconds; a 5.0 client that asks for less, but not for none, is told this
    /// one. 3.x keeps the client's.
    pub keep_alive_min: Option<NonZeroU16>,
    /// Whether a 3.1 client may have a Client Identifier of more than 23 characters.
    pub long_client_ids: bool,
    /// How long a client may take until it is accepted.
    pub connect_timeout: Duration,
    /// How long the last packet may take to leave.
    pub drain_timeout: Duration,
    /// The limits of its Sessions.
    pub limits: Limits,
}

impl Default for ServerConfig {
    /// Everything the standard offers, packets of up to 1 MiB, 16 Topic Aliases.
    fn default() -> Self {
        Self {
            receive_maximum: NonZeroU16::MAX,
            maximum_packet_size: const { NonZeroU32::new(1 << 20).unwrap() },
            topic_alias_maximum: 16,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_ids_available: true,
            shared_subscription_available: true,
            keep_alive_max: None,
            keep_alive_min: None,
            long_client_ids: true,
            connect_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}
