//! What a client published does not come back by a subscription with No Local [MQTT5-3.8.3-3].

use crate::history::Event;
use crate::invariants::Invariant;
use crate::model::Model;

#[derive(Default)]
pub(crate) struct NoLocal;

impl Invariant for NoLocal {
    fn name(&self) -> &'static str {
        "No Local"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let Some(sent) = model.sent(event).filter(|sent| !sent.publish.dup) else {
            return Ok(());
        };
        let hidden = !model.grounds(&sent).is_empty();
        if hidden && model.grounds(&sent).visible(model).is_empty() {
            return Err(format!("{sent} comes back to its publisher"));
        }
        Ok(())
    }
}
