//! What a client published does not come back by a subscription with No Local [MQTT5-3.8.3-3].

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct NoLocal;

impl Invariant for NoLocal {
    fn name(&self) -> &'static str {
        "No Local"
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
        let mut subs = model.matching(session, message.topic);
        if message.publisher == model.sessions[session].client
            && subs.all(|sub| sub.options.no_local)
        {
            return Err(format!("[{conn}] {pkt} comes back to its publisher"));
        }
        Ok(())
    }
}
