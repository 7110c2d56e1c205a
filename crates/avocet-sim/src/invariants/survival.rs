//! What was acknowledged survives a crash, and what had ended does not come back: sessions, subscriptions, Packet
//! Identifiers of QoS 2 messages, retained messages and their deletion.

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::{MessageInfo, Model};
use crate::survivors::Survivors;
use crate::wire::Uid;

#[derive(Default)]
pub(crate) struct Survival;

/// Each topic has the last value that was acknowledged, or one that may be later.
fn check_retained(model: &Model, survivors: &Survivors) -> Result<(), String> {
    let stored = |it: &MessageInfo| it.retain && it.kept && !it.refused && !it.forbidden;
    for (uid, last) in model.messages.iter().filter(|(_, it)| stored(it)) {
        let Some(read) = last.read else {
            continue;
        };
        let tenant = |it: &MessageInfo| model.clients[it.publisher].tenant;
        let same = |it: &MessageInfo| it.topic == last.topic && tenant(it) == tenant(last);
        let of_topic = |it: &MessageInfo| it.retain && same(it) && it.read.is_some();
        let is_older = |it: &MessageInfo| it.kept && it.acked.is_some_and(|acked| acked < read);
        match survivors.of_topic(tenant(last), last.topic) {
            Some(found) => {
                let older = found.and_then(|found: Uid| {
                    let message = model.messages.get(&found)?;
                    (is_older(message) && found != *uid).then_some(found)
                });
                if let Some(older) = older {
                    return Err(format!(
                        "{} has m{older}, and m{uid} was acknowledged later",
                        last.topic
                    ));
                }
            }
            None => {
                let mut messages = model.messages.values();
                let removed = messages
                    .any(|it| of_topic(it) && (it.empty || it.expiry.is_some()) && !is_older(it));
                if !removed {
                    return Err(format!(
                        "{} has nothing retained, and m{uid} was acknowledged",
                        last.topic
                    ));
                }
            }
        }
    }
    Ok(())
}

impl Invariant for Survival {
    fn name(&self) -> &'static str {
        "what was acknowledged survives a crash"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let What::Restarted { survivors, .. } = &event.what else {
            return Ok(());
        };
        if let Some(problem) = model.lost.first() {
            return Err(problem.clone());
        }
        check_retained(model, survivors)
    }
}
