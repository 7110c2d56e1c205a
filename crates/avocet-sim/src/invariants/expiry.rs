//! An expired message is not sent for the first time, and a subscriber learns how much of its
//! Message Expiry Interval is left [MQTT5-3.3.2-5] [MQTT5-3.3.2-6].

use std::collections::BTreeMap;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::plan::{MILLI, Micros, SECOND};
use crate::wire::{Pkt, PublishPkt, Uid};

#[derive(Default)]
pub(crate) struct Expiry {
    /// When a message came again that the broker may have refused unheard while its disk failed, and with
    /// which Message Expiry Interval: it may have taken this one.
    again: BTreeMap<Uid, Vec<(Micros, u32)>>,
}

/// What is wrong with a copy that leaves now, of a message that came then with so many seconds.
fn judge(publish: &PublishPkt, now: Micros, (came, expiry): (Micros, u32)) -> Result<(), String> {
    let (age, expiry) = (now - came, u64::from(expiry) * SECOND);
    if !publish.dup && age > expiry + 2 * MILLI {
        return Err("has expired".into());
    }
    let left = expiry.saturating_sub(age);
    if let Some(said) = publish.expiry
        && (u64::from(said) * SECOND).abs_diff(left) > SECOND + 2 * MILLI
    {
        return Err(format!("has {} s left", left as f64 / 1e6));
    }
    Ok(())
}

impl Expiry {
    fn came(&mut self, publish: &PublishPkt, at: Micros, model: &Model) {
        let message = model.message(publish);
        if publish.dup
            && message.is_some_and(|message| model.may_be_dropped(message))
            && let (Some(uid), Some(expiry)) = (publish.uid, publish.expiry)
        {
            self.again.entry(uid).or_default().push((at, expiry));
        }
    }
}

impl Invariant for Expiry {
    fn name(&self) -> &'static str {
        "Message Expiry Interval"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let (conn, pkt, publish) = match &event.what {
            What::ServerSent {
                conn,
                pkt: pkt @ Pkt::Publish(publish),
                ..
            } => (conn, pkt, publish),
            What::ServerRead {
                pkt: Pkt::Publish(publish),
                ..
            } => {
                self.came(publish, event.at, model);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(message) = model.message(publish) else {
            return Ok(());
        };
        let Some(expiry) = message.read_expiry else {
            return if publish.expiry.is_some() {
                Err(format!("[{conn}] {pkt} had no expiry"))
            } else {
                Ok(())
            };
        };
        // Nothing can be said of a clock that has jumped, or of which publication it is.
        if model.jumped || message.reads > 1 {
            return Ok(());
        }
        let again = publish.uid.and_then(|uid| self.again.get(&uid));
        let fits = |came: &(Micros, u32)| judge(publish, event.at, *came).is_ok();
        if again.is_some_and(|again| again.iter().any(fits)) {
            return Ok(());
        }
        judge(publish, event.at, (message.last_read_at, expiry))
            .map_err(|problem| format!("[{conn}] {pkt} {problem}"))
    }
}
