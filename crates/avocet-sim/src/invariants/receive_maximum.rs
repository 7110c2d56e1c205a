//! No more QoS 1 and 2 messages are in flight than the receiver allows [MQTT5-3.3.4-7]
//! [MQTT5-3.3.4-9]; towards a 3.x client no more than the broker's own window.

use std::collections::{BTreeMap, BTreeSet};

use avocet_codec::{AckType, Version};

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct ReceiveMaximum {
    /// In flight, by connection and sender.
    outstanding: BTreeMap<(ConnId, bool), BTreeSet<u16>>,
}

impl ReceiveMaximum {
    fn sent(&mut self, conn: ConnId, server: bool, pkt: &Pkt, maximum: u16) -> Result<(), String> {
        let Pkt::Publish(publish) = pkt else {
            return Ok(());
        };
        let Some(id) = publish.id else {
            return Ok(());
        };
        let outstanding = self.outstanding.entry((conn, server)).or_default();
        outstanding.insert(id);
        if outstanding.len() > usize::from(maximum) {
            return Err(format!(
                "[{conn}] {pkt} is number {} of {maximum} in flight",
                outstanding.len()
            ));
        }
        Ok(())
    }

    fn read(&mut self, conn: ConnId, server: bool, pkt: &Pkt) {
        let Pkt::Ack { kind, id, code } = pkt else {
            return;
        };
        let ends = match kind {
            AckType::Puback | AckType::Pubcomp => true,
            AckType::Pubrec => code.is_error(),
            AckType::Pubrel => false,
        };
        if ends {
            self.outstanding
                .entry((conn, server))
                .or_default()
                .remove(id);
        }
    }
}

impl Invariant for ReceiveMaximum {
    fn name(&self) -> &'static str {
        "Receive Maximum"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        match &event.what {
            What::ServerSent { conn, pkt, .. } => {
                let info = &model.conns[conn];
                let maximum = match info.version() {
                    Version::V5 => info.connect.as_ref().map_or(0, |it| it.receive_maximum),
                    _ => model.system.inflight,
                };
                self.sent(*conn, true, pkt, maximum)
            }
            What::ClientSent { conn, pkt, .. } => {
                let info = &model.conns[conn];
                let maximum = match info.version() {
                    Version::V5 => info.connack.as_ref().map_or(0, |it| it.receive_maximum),
                    _ => model.clients[info.client].inflight,
                };
                self.sent(*conn, false, pkt, maximum)
            }
            What::ServerRead { conn, pkt } => {
                self.read(*conn, true, pkt);
                Ok(())
            }
            What::ClientRead { conn, pkt } => {
                self.read(*conn, false, pkt);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
