//! Acknowledged means stored: PUBACK and PUBREC leave after the commits that hold the message if a session that is stored has it, and
//! towards a session that is stored PUBREL after the commit that holds the PUBREC.

use std::collections::{BTreeMap, BTreeSet};

use avocet_codec::{AckType, QoS};

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::wire::{Pkt, Uid};

/// Messages, and PUBRECs by client and Packet Identifier.
type Held = (Vec<Uid>, Vec<(String, u16)>);

#[derive(Default)]
pub(crate) struct Durable {
    /// What waits for commits that are not done.
    pending: BTreeMap<(usize, u64), Held>,
    stored: BTreeSet<Uid>,
    /// Messages that a session or group which is stored has.
    enqueued: BTreeSet<Uid>,
    /// By client.
    queued: BTreeSet<(String, Uid)>,
    /// PUBRECs that were recorded, by client and Packet Identifier.
    recorded: BTreeSet<(String, u16)>,
    /// Those whose end a crash may take back.
    finished: BTreeSet<(String, u16)>,
}

impl Durable {
    /// A message that is acknowledged is recorded for each session that outlives its connection
    /// and had subscribed before.
    fn check_queued(&self, model: &Model, uid: Uid) -> Result<(), String> {
        let message = &model.messages[&uid];
        if message.empty {
            // Its name is where records are not looked at.
            return Ok(());
        }
        for (session, state) in model.sessions.iter().enumerate() {
            let name = model.clients[state.client].session_name();
            // Others may have expired.
            let there = state.expiry == u32::MAX || model.conns[&state.conn].is_live();
            if there
                && state.expiry > 0
                && model.must(session, message) > Some(QoS::AtMostOnce)
                && !model.system.is_tight()
                && !self.queued.contains(&(name, uid))
            {
                return Err(format!(
                    "m{uid} is not recorded for client {}",
                    state.client
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for Durable {
    fn name(&self) -> &'static str {
        "acknowledged means stored"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        match &event.what {
            What::Commit {
                shard,
                commit,
                stored,
                enqueued,
                queued,
                pubrecs,
            } => {
                self.queued.extend(queued.iter().cloned());
                self.enqueued.extend(enqueued);
                for pubrec in pubrecs {
                    self.finished.remove(pubrec);
                    self.recorded.insert(pubrec.clone());
                }
                // What is retained is stored once more for a new subscription.
                let stored = stored.iter().filter(|uid| self.stored.insert(**uid));
                let held = (stored.chain(enqueued).copied().collect(), pubrecs.clone());
                self.pending.insert((*shard, *commit), held);
            }
            What::Accepted {
                conn,
                present: false,
            } => {
                let name = model.clients[model.conns[conn].client].session_name();
                self.recorded.retain(|(of, _)| *of != name);
                self.finished.retain(|(of, _)| *of != name);
            }
            What::Committed { shard, commit } => {
                self.pending
                    .retain(|it, _| it.0 != *shard || it.1 > *commit);
            }
            What::Crashed { .. } => {
                self.recorded.append(&mut self.finished);
                // Whoever is given what comes again, or is stored again, is recorded again.
                self.enqueued.clear();
                // What comes again is stored again.
                for (stored, _) in std::mem::take(&mut self.pending).into_values() {
                    for uid in stored {
                        self.stored.remove(&uid);
                    }
                }
            }
            What::Restarted { .. } => {
                // Its Packet Identifier is there, and so is the message: it is not stored again when
                // it comes again.
                let received = model.sessions.iter().flat_map(|it| it.received.values());
                self.stored.extend(received.map(|it| it.uid));
            }
            What::ServerSent { conn, pkt, .. } => {
                let Pkt::Ack { kind, id, code } = pkt else {
                    return Ok(());
                };
                if !model.system.stored || code.is_error() {
                    return Ok(());
                }
                let info = &model.conns[conn];
                let name = model.clients[info.client].session_name();
                let acked = model.last_acked.filter(|(seq, _)| *seq == event.seq);
                for ((shard, commit), (stored, pubrecs)) in &self.pending {
                    let waits = match kind {
                        AckType::Puback | AckType::Pubrec => acked.is_some_and(|(_, uid)| {
                            self.enqueued.contains(&uid) && stored.contains(&uid)
                        }),
                        AckType::Pubrel => pubrecs.iter().any(|it| it.0 == name && it.1 == *id),
                        AckType::Pubcomp => false,
                    };
                    if waits {
                        return Err(format!(
                            "[{conn}] {pkt} leaves before commit {commit} of shard {shard}"
                        ));
                    }
                }
                let key = (name, *id);
                let kept = info.session.is_some_and(|it| model.sessions[it].expiry > 0);
                if *kind == AckType::Pubrel && kept && !self.recorded.contains(&key) {
                    return Err(format!("[{conn}] {pkt} leaves, and PUBREC is not recorded"));
                }
                if let Some((_, uid)) = acked {
                    self.check_queued(model, uid)?;
                }
            }
            What::ServerRead {
                conn,
                pkt:
                    Pkt::Ack {
                        kind: AckType::Pubcomp,
                        id,
                        ..
                    },
            } if model.conns[conn].is_live() => {
                let name = model.clients[model.conns[conn].client].session_name();
                let key = (name, *id);
                self.recorded.remove(&key);
                self.finished.insert(key);
            }
            _ => {}
        }
        Ok(())
    }
}
