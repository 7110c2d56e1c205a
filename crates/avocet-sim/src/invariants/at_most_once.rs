//! A message is sent to a session as often as it was published, and once more for each new
//! subscription if it is retained: one delivery for overlapping subscriptions [MQTT5-3.3.4-2], no
//! second one at QoS 0.

use avocet_codec::QoS;

use crate::history::Event;
use crate::invariants::Invariant;
use crate::model::Model;

#[derive(Default)]
pub(crate) struct AtMostOnce;

impl Invariant for AtMostOnce {
    fn name(&self) -> &'static str {
        "no more copies than publications"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let Some(sent) = model.sent(event) else {
            return Ok(());
        };
        let (session, message) = (sent.session, sent.message);
        let Some(copies) = model.copies.get(&(session, sent.uid)) else {
            return Ok(());
        };
        if copies.latest != Some(event.seq) {
            return Ok(());
        }
        let subs = || model.matching(session, message);
        let snapshots = subs().filter(|sub| sub.may_find(model, message));
        let mut groups: Vec<&str> = subs()
            .filter(|sub| sub.shared)
            .map(|sub| sub.filter.as_str())
            .collect();
        groups.sort_unstable();
        groups.dedup();
        let reads = if message.qos == QoS::ExactlyOnce {
            message.reads.min(1)
        } else {
            message.reads
        };
        // A member may be given a message again that it had and lost.
        let shared = if groups.is_empty() { 0 } else { u32::MAX / 2 };
        // Each crash may take back that they were sent, and what was sent is not waited for below
        // QoS 2.
        let (fresh, crashes) = if sent.publish.qos == QoS::ExactlyOnce && model.crashes > 0 {
            (copies.fresh - copies.loose, 0)
        } else {
            (copies.fresh, model.crashes)
        };
        let once = reads + snapshots.count() as u32 + shared;
        let most = once.saturating_mul(1 + crashes);
        if fresh > most {
            return Err(format!(
                "{sent} is copy {} of a message published {reads} times",
                copies.fresh
            ));
        }
        Ok(())
    }
}
