//! A message is sent to a session as often as it was published, and once more for each new
//! subscription if it is retained: one delivery for overlapping subscriptions [MQTT5-3.3.4-2], no
//! second one at QoS 0.

use avocet_codec::{QoS, RetainHandling};

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct AtMostOnce;

impl Invariant for AtMostOnce {
    fn name(&self) -> &'static str {
        "no more copies than publications"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let What::ServerSent {
            conn,
            pkt: Pkt::Publish(publish),
            ..
        } = &event.what
        else {
            return Ok(());
        };
        let (Some(session), Some(uid)) = (model.session_of(*conn), publish.uid) else {
            return Ok(());
        };
        let (Some(copies), Some(message)) =
            (model.copies.get(&(session, uid)), model.messages.get(&uid))
        else {
            return Ok(());
        };
        if copies.latest != Some(event.seq) {
            return Ok(());
        }
        let subs = || model.matching(session, message.topic);
        let snapshots = subs().filter(|sub| {
            let asked = match sub.options.retain_handling {
                RetainHandling::SendAtSubscribe => true,
                RetainHandling::SendIfNew => sub.new,
                RetainHandling::DoNotSend => false,
            };
            message.retain && !sub.shared && asked
        });
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
        // A crash may take back that it was sent, and what was sent is not waited for below QoS 2.
        let (fresh, again) = if publish.qos == QoS::ExactlyOnce && model.crashes > 0 {
            (copies.fresh - copies.loose, 0)
        } else {
            (copies.fresh, model.crashes)
        };
        let most = reads + snapshots.count() as u32 + shared + again;
        if fresh > most {
            return Err(format!(
                "[{conn}] {publish:?} is copy {} of a message published {reads} times",
                copies.fresh
            ));
        }
        Ok(())
    }
}
