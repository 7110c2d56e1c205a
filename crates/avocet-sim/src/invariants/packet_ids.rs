//! No Packet Identifier is in use twice; a message that is sent again has DUP and the identifier
//! it had, one that is sent for the first time has neither [MQTT5-2.2.1-3] [MQTT5-2.2.1-4]
//! [MQTT5-4.4.0-1] [MQTT5-3.3.1-1].

use std::collections::BTreeMap;

use avocet_codec::AckType;

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::{Pkt, Uid};

/// A session as one side sees it: that of a client, in one direction.
#[derive(Default)]
struct Side {
    /// Messages without PUBACK or PUBCOMP, by Packet Identifier; whether PUBREC came.
    in_use: BTreeMap<u16, (Option<Uid>, bool)>,
}

#[derive(Default)]
pub(crate) struct PacketIds {
    /// By session of the broker.
    server: BTreeMap<usize, Side>,
    /// By client.
    client: BTreeMap<usize, Side>,
}

impl Side {
    fn sent(&mut self, conn: ConnId, pkt: &Pkt) -> Result<(), String> {
        let Pkt::Publish(publish) = pkt else {
            return Ok(());
        };
        let Some(id) = publish.id else {
            return if publish.dup {
                Err(format!("[{conn}] {pkt} has DUP at QoS 0"))
            } else {
                Ok(())
            };
        };
        match self.in_use.get(&id) {
            None if publish.dup => Err(format!("[{conn}] {pkt} was never sent before")),
            None => {
                self.in_use.insert(id, (publish.uid, false));
                Ok(())
            }
            Some((uid, _)) if *uid != publish.uid => {
                Err(format!("[{conn}] {pkt} has the identifier of {uid:?}"))
            }
            Some((_, true)) => Err(format!("[{conn}] {pkt} is sent again after PUBREC")),
            Some(_) if !publish.dup => Err(format!("[{conn}] {pkt} is sent again without DUP")),
            Some(_) => Ok(()),
        }
    }

    fn read(&mut self, pkt: &Pkt) {
        let Pkt::Ack { kind, id, code } = pkt else {
            return;
        };
        match kind {
            AckType::Puback | AckType::Pubcomp => {
                self.in_use.remove(id);
            }
            AckType::Pubrec if code.is_error() => {
                self.in_use.remove(id);
            }
            AckType::Pubrec => {
                if let Some((_, received)) = self.in_use.get_mut(id) {
                    *received = true;
                }
            }
            AckType::Pubrel => {}
        }
    }
}

impl Invariant for PacketIds {
    fn name(&self) -> &'static str {
        "Packet Identifiers"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        match &event.what {
            What::ServerSent { conn, pkt, .. } => {
                if let Some(session) = model.session_of(*conn) {
                    return self.server.entry(session).or_default().sent(*conn, pkt);
                }
            }
            What::ServerRead { conn, pkt } => {
                if let Some(info) = model.conns.get(conn)
                    && let (Some(session), true) = (info.session, info.is_live())
                {
                    self.server.entry(session).or_default().read(pkt);
                }
            }
            What::ClientSent { conn, pkt, .. } => {
                if let Some(info) = model.conns.get(conn) {
                    return self.client.entry(info.client).or_default().sent(*conn, pkt);
                }
            }
            What::ClientRead { conn, pkt } => {
                if let Some(info) = model.conns.get(conn) {
                    let side = self.client.entry(info.client).or_default();
                    match pkt {
                        // The server has forgotten, and so does the client.
                        Pkt::Connack(_) if info.present == Some(false) => side.in_use.clear(),
                        _ => side.read(pkt),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
