//! PUBACK, PUBREC and PUBCOMP each leave in the order of their packets, on both sides
//! [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT5-4.6.0-4].

use std::collections::{BTreeMap, VecDeque};

use avocet_codec::{AckType, QoS};

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::Pkt;

#[derive(Default)]
pub(crate) struct AckOrder {
    /// What each side has read and not answered, by connection and kind of answer.
    owed: BTreeMap<(ConnId, bool, u8), VecDeque<u16>>,
}

impl AckOrder {
    fn read(&mut self, conn: ConnId, server: bool, pkt: &Pkt) {
        let (kind, id) = match pkt {
            Pkt::Publish(publish) => match (publish.qos, publish.id) {
                (QoS::AtLeastOnce, Some(id)) => (AckType::Puback, id),
                (QoS::ExactlyOnce, Some(id)) => (AckType::Pubrec, id),
                _ => return,
            },
            Pkt::Ack {
                kind: AckType::Pubrel,
                id,
                ..
            } => (AckType::Pubcomp, *id),
            Pkt::Ack {
                kind: AckType::Pubrec,
                id,
                code,
            } if !code.is_error() => (AckType::Pubrel, *id),
            _ => return,
        };
        let key = (conn, server, kind as u8);
        self.owed.entry(key).or_default().push_back(id);
    }

    fn sent(&mut self, conn: ConnId, server: bool, pkt: &Pkt) -> Result<(), String> {
        let Pkt::Ack { kind, id, .. } = pkt else {
            return Ok(());
        };
        let owed = self.owed.entry((conn, server, *kind as u8)).or_default();
        let Some(at) = owed.iter().position(|owed| owed == id) else {
            // A PUBREL that goes on with an earlier connection answers no PUBREC of this one.
            return if *kind == AckType::Pubrel {
                Ok(())
            } else {
                Err(format!(
                    "[{conn}] {pkt} answers nothing that came on its connection"
                ))
            };
        };
        // One PUBREC may answer a PUBLISH and its repetition; nothing else is passed over.
        let skipped: Vec<u16> = owed.drain(..at).collect();
        owed.pop_front();
        if !skipped.is_empty() && *kind != AckType::Pubrel {
            return Err(format!(
                "[{conn}] {pkt} leaves before the answer to {skipped:?}"
            ));
        }
        Ok(())
    }
}

impl Invariant for AckOrder {
    fn name(&self) -> &'static str {
        "acknowledgements leave in order"
    }

    fn check(&mut self, event: &Event, _model: &Model) -> Result<(), String> {
        match &event.what {
            What::ServerRead { conn, pkt } => self.read(*conn, true, pkt),
            What::ClientRead { conn, pkt } => self.read(*conn, false, pkt),
            What::ServerSent { conn, pkt, .. } => return self.sent(*conn, true, pkt),
            What::ClientSent { conn, pkt, .. } => return self.sent(*conn, false, pkt),
            _ => {}
        }
        Ok(())
    }
}
