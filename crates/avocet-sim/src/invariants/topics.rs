//! What is delivered is what was published: to its topic, whatever Topic Alias stood for it
//! [MQTT5-3.3.2-7] [MQTT5-3.3.2-8], and within the receiver's Topic Alias Maximum
//! [MQTT5-3.3.2-9] [MQTT5-3.3.2-10].

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct Topics;

impl Invariant for Topics {
    fn name(&self) -> &'static str {
        "Topic Names and Topic Aliases"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let (conn, publish, maximum) = match &event.what {
            What::ServerSent {
                conn,
                pkt: Pkt::Publish(publish),
                ..
            } => {
                let connect = model.conns[conn].connect.as_ref();
                (
                    conn,
                    publish,
                    connect.map_or(0, |it| it.topic_alias_maximum),
                )
            }
            What::ClientSent {
                conn,
                pkt: Pkt::Publish(publish),
                ..
            } => {
                let connack = model.conns[conn].connack.as_ref();
                (
                    conn,
                    publish,
                    connack.map_or(0, |it| it.topic_alias_maximum),
                )
            }
            What::Delivered { conn, publish } => (conn, publish, u16::MAX),
            _ => return Ok(()),
        };
        if publish.alias.is_some_and(|alias| alias > maximum) {
            return Err(format!(
                "[{conn}] {publish:?} has an alias beyond {maximum}"
            ));
        }
        match model.message(publish) {
            Some(message) if message.topic != publish.topic => Err(format!(
                "[{conn}] {publish:?} was published to {}",
                message.topic
            )),
            _ => Ok(()),
        }
    }
}
