//! Nothing waits for ever: without faults everything settles. Nobody breaks the protocol.

use avocet_session::CloseReason;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;

#[derive(Default)]
pub(crate) struct Liveness;

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "nothing waits for ever"
    }

    fn check(&mut self, event: &Event, _model: &Model) -> Result<(), String> {
        match &event.what {
            What::Ended {
                conn,
                reason: CloseReason::PeerError(error),
            } => Err(format!("[{conn}] the broker says: {error}")),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        if let Some(first) = model.unfinished.first() {
            return Err(first.clone());
        }
        if model.queued_at_end > 0 {
            return Err(format!(
                "{} messages wait in the broker, though all clients are connected",
                model.queued_at_end
            ));
        }
        for sub in &model.subs {
            let live = model.conns[&sub.conn].is_live() && sub.ended.is_none();
            if live && sub.certain.is_none() {
                return Err(format!("[{}] no SUBACK for {}", sub.conn, sub.filter));
            }
        }
        Ok(())
    }
}
