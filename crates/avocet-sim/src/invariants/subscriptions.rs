//! Nothing comes without a matching subscription, and nothing new after UNSUBSCRIBE
//! [MQTT5-3.3.4-1] [MQTT5-3.10.4-2]; at no higher QoS than was granted [MQTT5-3.8.4-8]; with the
//! Subscription Identifiers of matching subscriptions only [MQTT5-3.3.4-3].

use avocet_codec::QoS;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::{MessageInfo, Model, Sub};
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct Subscriptions;

/// Whether a message may have met a subscription.
fn may_meet(model: &Model, sub: &Sub, message: &MessageInfo) -> bool {
    // A group learns of other options some time before SUBACK.
    let ended = match sub.replaced_by.filter(|_| sub.shared) {
        Some(next) => model.subs[next].answered,
        None => sub.ended,
    };
    let before_its_end = match (ended, message.read) {
        (Some(ended), Some(read)) => read < ended,
        (None, _) => true,
        (_, None) => false,
    };
    // A message that is acknowledged has met all that it will ever meet, unless it is retained.
    // What a group has and cannot give goes to members that come later.
    let kept = message.retain || sub.shared;
    let after_its_begin = kept || message.acked.is_none_or(|acked| sub.began < acked);
    before_its_end && after_its_begin
}

impl Invariant for Subscriptions {
    fn name(&self) -> &'static str {
        "nothing without a matching subscription"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let What::ServerSent {
            conn,
            pkt: pkt @ Pkt::Publish(publish),
            ..
        } = &event.what
        else {
            return Ok(());
        };
        let (Some(session), Some(message)) = (model.session_of(*conn), model.message(publish))
        else {
            return Ok(());
        };
        if message.read.is_none() || message.forbidden {
            return Err(format!("[{conn}] {pkt} was never published"));
        }
        let granted: Option<QoS> = model
            .matching(session, message.topic)
            .filter(|sub| publish.dup || may_meet(model, sub, message))
            .map(|sub| sub.options.maximum_qos.min(message.qos))
            .max();
        let known = |id: &u32| {
            let mut subs = model.matching(session, message.topic);
            subs.any(|sub| sub.id == Some(*id) && may_meet(model, sub, message))
        };
        if let Some(id) = publish.subscription_ids.iter().find(|id| !known(id)) {
            return Err(format!(
                "[{conn}] {pkt} has {id}, of no subscription in force"
            ));
        }
        match granted {
            None => Err(format!("[{conn}] {pkt} matches no subscription in force")),
            Some(granted) if publish.qos > granted => Err(format!(
                "[{conn}] {pkt} comes at more than QoS {}",
                granted as u8
            )),
            Some(_) => Ok(()),
        }
    }
}
