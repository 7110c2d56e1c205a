//! An expired message is not sent for the first time, and a subscriber learns how much of its
//! Message Expiry Interval is left [MQTT5-3.3.2-5] [MQTT5-3.3.2-6].

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::plan::{MILLI, SECOND};
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct Expiry;

impl Invariant for Expiry {
    fn name(&self) -> &'static str {
        "Message Expiry Interval"
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
        let (age, expiry) = (event.at - message.last_read_at, u64::from(expiry) * SECOND);
        if !publish.dup && age > expiry + 2 * MILLI {
            return Err(format!("[{conn}] {pkt} has expired"));
        }
        let left = expiry.saturating_sub(age);
        if let Some(said) = publish.expiry
            && (u64::from(said) * SECOND).abs_diff(left) > SECOND + 2 * MILLI
        {
            return Err(format!("[{conn}] {pkt} has {} s left", left as f64 / 1e6));
        }
        Ok(())
    }
}
