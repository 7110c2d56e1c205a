//! Session Present is 1 if and only if the broker has kept the session: not after Clean Start, not
//! after its Session Expiry Interval, and until then always [MQTT5-3.2.2-2] [MQTT5-3.2.2-3]
//! [MQTT5-3.1.2-4] [MQTT5-3.1.2-23].

use std::collections::BTreeMap;

use avocet_codec::Version;

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::plan::{MILLI, Micros, SECOND};
use crate::wire::Pkt;

struct Kept {
    conn: ConnId,
    /// Seconds.
    expiry: u32,
    ended_at: Option<Micros>,
    /// The same, as far as the broker may remember: it came back from a crash.
    ended_until: Option<Micros>,
    /// Whether it may be lost, or one before it be there.
    uncertain: bool,
}

#[derive(Default)]
pub(crate) struct SessionPresent {
    /// By client.
    kept: BTreeMap<usize, Kept>,
}

/// What Session Present has to be; none if the clock does not allow to say.
fn expected(kept: Option<&Kept>, clean_start: bool, at: Micros, jumped: bool) -> Option<bool> {
    let kept = kept.filter(|_| !clean_start);
    if kept.is_some_and(|kept| kept.uncertain) {
        return None;
    }
    let kept = kept.filter(|kept| kept.expiry > 0);
    let Some(kept) = kept else {
        return Some(false);
    };
    let Some(ended_at) = kept.ended_at.filter(|_| kept.expiry < u32::MAX) else {
        return Some(true);
    };
    let (offline, expiry) = (at - ended_at, u64::from(kept.expiry) * SECOND);
    let least = kept.ended_until.map_or(offline, |until| at - until);
    if jumped || offline + 10 * MILLI > expiry && least < expiry + SECOND {
        return None;
    }
    Some(offline < expiry)
}

impl Invariant for SessionPresent {
    fn name(&self) -> &'static str {
        "Session Present if and only if the session was kept"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        match &event.what {
            What::Accepted { conn, present } => {
                let info = &model.conns[conn];
                let connect = info.connect.as_ref();
                let clean_start = connect.is_some_and(|connect| connect.clean_start);
                let kept = self.kept.get(&info.client);
                let expected = expected(kept, clean_start, event.at, model.jumped);
                let kept = Kept {
                    conn: *conn,
                    expiry: connect.map_or(0, |connect| connect.expiry),
                    ended_at: None,
                    ended_until: None,
                    uncertain: false,
                };
                self.kept.insert(info.client, kept);
                if expected.is_some_and(|expected| expected != *present) {
                    return Err(format!("[{conn}] present {present}"));
                }
            }
            What::Ended { conn, .. } => {
                let client = model.conns[conn].client;
                if let Some(kept) = self.kept.get_mut(&client)
                    && kept.conn == *conn
                {
                    kept.ended_at = Some(event.at);
                }
            }
            What::Crashed { .. } => {
                for kept in self.kept.values_mut() {
                    kept.ended_at.get_or_insert(event.at);
                    let info = &model.conns[&kept.conn];
                    let session = info.session.map(|it| &model.sessions[it]);
                    let certain = session.is_some_and(|it| it.certain || it.expiry == 0);
                    kept.uncertain |= info.connack_seq.is_none() || !certain;
                }
            }
            What::Restarted { .. } => {
                for kept in self.kept.values_mut() {
                    if kept.ended_at >= Some(model.unsafe_since) {
                        kept.ended_until = Some(event.at);
                    }
                }
            }
            What::ServerSent {
                conn,
                pkt: pkt @ Pkt::Connack(connack),
                ..
            } => {
                let info = &model.conns[conn];
                // CONNACK of 3.1 does not say.
                let present = info.present.filter(|_| info.version() != Version::V3_1);
                if present.is_some_and(|present| present != connack.present) {
                    return Err(format!("[{conn}] {pkt} is not what the broker did"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
