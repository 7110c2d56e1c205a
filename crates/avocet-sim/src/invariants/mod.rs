//! What must hold in every run, each in a file of its own.

mod ack_order;
mod at_least_once;
mod at_most_once;
mod exactly_once;
mod liveness;
mod maximum_packet_size;
mod order;
mod packet_ids;
mod receive_maximum;
mod subscriptions;
mod topics;

use crate::history::Event;
use crate::model::Model;
use crate::plan::Plan;

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

pub(crate) fn all(_plan: &Plan) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<ack_order::AckOrder>::default(),
        Box::<at_least_once::AtLeastOnce>::default(),
        Box::<at_most_once::AtMostOnce>::default(),
        Box::<exactly_once::ExactlyOnce>::default(),
        Box::<maximum_packet_size::MaximumPacketSize>::default(),
        Box::<order::Order>::default(),
        Box::<packet_ids::PacketIds>::default(),
        Box::<receive_maximum::ReceiveMaximum>::default(),
        Box::<subscriptions::Subscriptions>::default(),
        Box::<topics::Topics>::default(),
        Box::<liveness::Liveness>::default(),
    ]
}
