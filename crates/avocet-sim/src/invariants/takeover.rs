//! A session has one connection: where another one took it over, nothing more is sent but the
//! DISCONNECT [MQTT5-3.1.4-3] [MQTT311-3.1.4-2].

use avocet_codec::Version;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct Takeover;

impl Invariant for Takeover {
    fn name(&self) -> &'static str {
        "one connection per session"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let What::ServerSent { conn, pkt, .. } = &event.what else {
            return Ok(());
        };
        let info = &model.conns[conn];
        // It may have begun to end for another reason.
        let says_so = info.version() == Version::V5 && matches!(pkt, Pkt::Disconnect(_));
        if info.superseded.is_some() && !says_so {
            return Err(format!(
                "[{conn}] {pkt} is sent though its session is elsewhere"
            ));
        }
        if info.ended.is_some() {
            return Err(format!("[{conn}] {pkt} is sent after the end"));
        }
        Ok(())
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        for (conn, info) in &model.conns {
            if info.superseded.is_some() && info.ended.is_none() {
                return Err(format!("[{conn}] was taken over and never closed"));
            }
        }
        Ok(())
    }
}
