//! No Packet Identifier is in use twice; a message that is sent again has DUP and the identifier
//! it had, one that is sent for the first time has neither [MQTT5-2.2.1-3] [MQTT5-2.2.1-4]
//! [MQTT5-4.4.0-1] [MQTT5-3.3.1-1].

use std::collections::{BTreeMap, BTreeSet};

use avocet_codec::{AckType, QoS, Version};

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::plan::{Micros, Role};
use crate::wire::{Pkt, Uid};

/// A session as one side sees it: that of a client, in one direction.
#[derive(Default)]
struct Side {
    /// Messages without PUBACK or PUBCOMP, by Packet Identifier.
    in_use: BTreeMap<u16, InUse>,
    /// Messages of QoS 1 that a crash left in flight, with their Packet Identifiers.
    left: BTreeMap<Uid, BTreeSet<u16>>,
    /// Those whose PUBACK was read since the last crash, and when; after it, those of which it may
    /// not be stored.
    finished: Vec<(Uid, u16, Micros)>,
    /// Whether it may have DUP where nothing was sent.
    crashed: bool,
}

struct InUse {
    uid: Option<Uid>,
    qos: QoS,
    /// PUBREC came.
    received: bool,
    /// PUBREL was sent.
    released: bool,
}

#[derive(Default)]
pub(crate) struct PacketIds {
    /// By session of the broker.
    server: BTreeMap<usize, Side>,
    /// By client.
    client: BTreeMap<usize, Side>,
}

impl Side {
    /// The broker has crashed: what it sent of QoS 1 may not be stored, and a PUBREC only if it was answered.
    fn crash(&mut self, model: &Model) {
        let kept = |uid: Uid| {
            let message = model.messages.get(&uid);
            message
                .is_some_and(|it| it.acked.is_some() && it.kept && !it.retain && it.will.is_none())
        };
        self.left.clear();
        let of_qos_1 = |_: &u16, it: &mut InUse| it.qos == QoS::AtLeastOnce;
        for (id, in_use) in self.in_use.extract_if(.., of_qos_1) {
            if let Some(uid) = in_use.uid.filter(|uid| kept(*uid)) {
                self.left.entry(uid).or_default().insert(id);
            }
        }
        for in_use in self.in_use.values_mut() {
            in_use.received &= in_use.released;
        }
        self.finished.retain(|it| it.2 >= model.unsafe_since);
    }

    /// Takes a message away of which it may not be stored that it had PUBACK.
    fn reopen(&mut self, uid: Uid, id: u16) -> bool {
        let before = self.finished.len();
        self.finished.retain(|it| (it.0, it.1) != (uid, id));
        self.finished.len() < before
    }

    fn sent(&mut self, conn: ConnId, pkt: &Pkt) -> Result<(), String> {
        if let Pkt::Ack {
            kind: AckType::Pubrel,
            id,
            ..
        } = pkt
            && let Some(in_use) = self.in_use.get_mut(id)
        {
            in_use.released = true;
        }
        let Pkt::Publish(publish) = pkt else {
            return Ok(());
        };
        let in_flight = publish.id.and_then(|id| self.in_use.get(&id));
        if publish.dup && in_flight.is_some_and(|it| it.uid == publish.uid) {
            // Sent since the crash, and again.
        } else if let (Some(uid), Some(id)) = (publish.uid, publish.id)
            && publish.dup
            && self.left.contains_key(&uid)
            && self.reopen(uid, id)
        {
            // It is in flight again.
        } else if let Some(uid) = publish.uid
            // A copy at QoS 0, of a message that was published again, waits for no window.
            && publish.qos > QoS::AtMostOnce
            && let Some(ids) = self.left.get_mut(&uid)
        {
            let known = publish.id.is_some_and(|id| ids.remove(&id));
            if !known || !publish.dup {
                return Err(format!(
                    "[{conn}] {pkt} was sent before the crash as {ids:?}"
                ));
            }
            if ids.is_empty() {
                self.left.remove(&uid);
            }
        }
        let Some(id) = publish.id else {
            return if publish.dup {
                Err(format!("[{conn}] {pkt} has DUP at QoS 0"))
            } else {
                Ok(())
            };
        };
        match self.in_use.get(&id) {
            None if publish.dup && !self.crashed => {
                Err(format!("[{conn}] {pkt} was never sent before"))
            }
            None => {
                let in_use = InUse {
                    uid: publish.uid,
                    qos: publish.qos,
                    received: false,
                    released: false,
                };
                self.in_use.insert(id, in_use);
                Ok(())
            }
            Some(it) if it.uid != publish.uid => {
                Err(format!("[{conn}] {pkt} has the identifier of {:?}", it.uid))
            }
            Some(it) if it.received => Err(format!("[{conn}] {pkt} is sent again after PUBREC")),
            Some(_) if !publish.dup => Err(format!("[{conn}] {pkt} is sent again without DUP")),
            Some(_) => Ok(()),
        }
    }

    fn read(&mut self, at: Micros, pkt: &Pkt) {
        let Pkt::Ack { kind, id, code } = pkt else {
            return;
        };
        match kind {
            AckType::Puback | AckType::Pubcomp => {
                let in_use = self.in_use.remove(id);
                if let (AckType::Puback, Some(uid)) = (kind, in_use.and_then(|it| it.uid)) {
                    self.finished.push((uid, *id, at));
                }
            }
            AckType::Pubrec if code.is_error() => {
                self.in_use.remove(id);
            }
            AckType::Pubrec => {
                if let Some(in_use) = self.in_use.get_mut(id) {
                    in_use.received = true;
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
            What::Crashed { .. } => {
                for (session, side) in &mut self.server {
                    side.crash(model);
                    let client = model.sessions[*session].client;
                    if model.clients[client].role == Role::Member {
                        // A group that does not know that it gave a message away gives it again.
                        side.left.clear();
                    }
                }
            }
            What::ServerSent { conn, pkt, .. } => {
                if let Some(session) = model.session_of(*conn) {
                    let side = self.server.entry(session).or_default();
                    side.crashed = model.crashes > 0;
                    return side.sent(*conn, pkt);
                }
            }
            What::ServerRead { conn, pkt } => {
                if let Some(info) = model.conns.get(conn)
                    && let (Some(session), true) = (info.session, info.is_live())
                {
                    let side = self.server.entry(session).or_default();
                    side.read(event.at, pkt);
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
                        // The server has forgotten, and so does the client, if it is told.
                        Pkt::Connack(_) if info.present == Some(false) => {
                            if model.crashes == 0 || info.version() != Version::V3_1 {
                                side.in_use.clear();
                            }
                        }
                        _ => side.read(event.at, pkt),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
