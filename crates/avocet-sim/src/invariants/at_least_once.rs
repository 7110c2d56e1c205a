//! After SUBACK nothing is missed: a QoS 1 or 2 message reaches every session that has subscribed,
//! a QoS 0 message every one whose connection lasts [MQTT5-4.3.2-1] [MQTT5-3.3.4-1].

use avocet_codec::QoS;

use crate::history::Event;
use crate::invariants::Invariant;
use crate::model::Model;

#[derive(Default)]
pub(crate) struct AtLeastOnce;

impl Invariant for AtLeastOnce {
    fn name(&self) -> &'static str {
        "after SUBACK nothing is missed"
    }

    fn check(&mut self, _event: &Event, _model: &Model) -> Result<(), String> {
        Ok(())
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        // Where queues are short, as many may be missing as were dropped, and counted.
        let mut dropped = model.dropped_full;
        for (session, state) in model.sessions.iter().enumerate() {
            for (uid, message) in &model.messages {
                let Some(qos) = model.must(session, message) else {
                    continue;
                };
                let read = message.read.unwrap_or_default();
                if qos == QoS::AtMostOnce && !model.stayed(session, read) {
                    continue;
                }
                let copies = model.copies.get(&(session, *uid));
                if copies.is_none_or(|copies| copies.delivered == 0) {
                    if dropped > 0 {
                        dropped -= 1;
                        continue;
                    }
                    return Err(format!(
                        "client {} never received m{uid} of {} at QoS {}",
                        state.client, message.topic, qos as u8
                    ));
                }
            }
        }
        // What was sent once is not dropped any more, whatever its expiry.
        for ((session, uid), copies) in &model.copies {
            let kept = model.sessions[*session].ended.is_none();
            if kept && copies.qos > Some(QoS::AtMostOnce) && copies.delivered == 0 {
                let client = model.sessions[*session].client;
                let shared = model
                    .subs
                    .iter()
                    .any(|sub| sub.session == *session && sub.shared);
                let large = model.clients[client].maximum_packet_size < u32::MAX;
                if !shared && !large {
                    return Err(format!(
                        "client {client} was sent m{uid} and never received it"
                    ));
                }
            }
        }
        Ok(())
    }
}
