//! What must hold in every run, each in a file of its own.

mod ack_order;
mod at_least_once;
mod at_most_once;
mod durable;
mod exactly_once;
mod expiry;
mod keep_alive;
mod liveness;
mod maximum_packet_size;
mod no_local;
mod order;
mod packet_ids;
pub(crate) mod queues;
mod receive_maximum;
mod retained;
mod session_present;
pub(crate) mod shared;
mod subscriptions;
mod survival;
mod takeover;
mod topics;
mod wills;

use crate::history::Event;
use crate::model::Model;

/// Looks at every event, and at what came of them all.
pub(crate) trait Invariant {
    fn name(&self) -> &'static str;

    /// An event happened, which the model knows of.
    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String>;

    /// Everything has settled.
    fn settle(&mut self, _model: &Model) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<ack_order::AckOrder>::default(),
        Box::<at_least_once::AtLeastOnce>::default(),
        Box::<at_most_once::AtMostOnce>::default(),
        Box::<durable::Durable>::default(),
        Box::<exactly_once::ExactlyOnce>::default(),
        Box::<expiry::Expiry>::default(),
        Box::<keep_alive::KeepAlive>::default(),
        Box::<liveness::Liveness>::default(),
        Box::<maximum_packet_size::MaximumPacketSize>::default(),
        Box::<no_local::NoLocal>::default(),
        Box::<order::Order>::default(),
        Box::<packet_ids::PacketIds>::default(),
        Box::<receive_maximum::ReceiveMaximum>::default(),
        Box::<retained::Retained>::default(),
        Box::<session_present::SessionPresent>::default(),
        Box::<shared::Shared>::default(),
        Box::<subscriptions::Subscriptions>::default(),
        Box::<survival::Survival>::default(),
        Box::<takeover::Takeover>::default(),
        Box::<topics::Topics>::default(),
        Box::<wills::Wills>::default(),
    ]
}
