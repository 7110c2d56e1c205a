//! Nothing comes without a matching subscription, and nothing new after UNSUBSCRIBE
//! [MQTT5-3.3.4-1] [MQTT5-3.10.4-2]; each copy has the QoS, the RETAIN flag and the Subscription
//! Identifiers of what brought it [MQTT5-3.8.4-8] [MQTT5-3.3.1-12] [MQTT5-3.3.4-3].

use crate::history::Event;
use crate::invariants::Invariant;
use crate::model::Model;

#[derive(Default)]
pub(crate) struct Subscriptions;

impl Invariant for Subscriptions {
    fn name(&self) -> &'static str {
        "nothing without a matching subscription"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let Some(sent) = model.sent(event) else {
            return Ok(());
        };
        if sent.message.read.is_none() || sent.message.forbidden {
            return Err(format!("{sent} was never published"));
        }
        // What was in force when it was sent first may have ended since.
        if sent.publish.dup {
            return Ok(());
        }
        let grounds = model.grounds(&sent).visible(model);
        if grounds.is_empty() {
            return Err(format!("{sent} matches no subscription in force"));
        }
        // A crash may take a subscription back that was not acknowledged, with what it replaced.
        if model.crashes > 0 {
            return Ok(());
        }
        let judged = grounds.judge(sent.publish);
        judged.map_err(|problem| format!("{sent} {problem}"))
    }
}
