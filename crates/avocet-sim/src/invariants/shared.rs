//! Each message of a shared subscription goes to one member; one that a lost member had not
//! acknowledged goes to another at QoS 1, and never at QoS 2 [MQTT5-4.8.2-1] [MQTT5-4.8.2-4]
//! [MQTT5-4.8.2-5].

use std::collections::BTreeMap;

use avocet_codec::QoS;

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::{ConnInfo, MessageInfo, Model, Seq, SessionId, Sub};
use crate::plan::SHARES;
use crate::wire::{Pkt, PublishPkt, Uid};

#[derive(Default)]
pub(crate) struct Shared {
    /// Who was given what, by group and message.
    given: BTreeMap<(&'static str, Uid), Vec<Given>>,
    delivered: BTreeMap<(&'static str, Uid), u32>,
}

struct Given {
    session: SessionId,
    conn: ConnId,
    qos: QoS,
    /// How often the broker had crashed.
    crashes: u32,
    /// Whether the group waits until what it has is stored, as one of its members survives.
    stored: bool,
}

/// The group that a copy comes from.
pub(crate) fn group_of(model: &Model, conn: ConnId, publish: &PublishPkt) -> Option<&'static str> {
    let client = model.conns[&conn].client;
    if let Some(share) = model.clients[client].share {
        return Some(share);
    }
    let [id] = publish.subscription_ids[..] else {
        return None;
    };
    SHARES.get(id.checked_sub(100)? as usize).copied()
}

/// Whether a member that a crash does not take was in a group before a will was published, and is.
fn survives(model: &Model, group: &str, will: Uid) -> bool {
    let ended = model.will_of(will).and_then(ConnInfo::lost);
    let publisher = model.messages[&will].publisher;
    model.subs.iter().any(|sub| {
        sub.filter == group
            && model.is_of_tenant(sub, publisher)
            && sub.ended.is_none()
            && sub.certain.is_some_and(|certain| Some(certain) < ended)
            && model.sessions[sub.session].expiry > 0
    })
}

/// Whether a crash may have taken back that a will was published.
fn is_loose(model: &Model, uid: Uid) -> bool {
    // It may have been published long after the end of its connection.
    let delayed = model.messages[&uid].will > Some(0);
    let of = model.will_of(uid);
    of.is_some_and(|info| info.will_uncertain || delayed)
}

impl Shared {
    fn give(
        &mut self,
        model: &Model,
        seq: Seq,
        conn: ConnId,
        publish: &PublishPkt,
    ) -> Result<(), String> {
        let (Some(group), Some(session), Some(uid)) = (
            group_of(model, conn, publish),
            model.session_of(conn),
            publish.uid,
        ) else {
            return Ok(());
        };
        // After a crash also what was never sent may have DUP.
        let copies = model.copies.get(&(session, uid));
        if publish.dup && copies.is_none_or(|copies| copies.first != Some(seq)) {
            return Ok(());
        }
        let given = self.given.entry((group, uid)).or_default();
        let reads = model.message(publish).map_or(0, |message| message.reads);
        if let (Some(last), 1) = (given.last(), reads) {
            let problem = match last.qos {
                // Nothing waits until it is stored that a message was given away where nothing
                // survives.
                QoS::AtMostOnce if last.crashes < model.crashes => None,
                QoS::AtMostOnce => Some("was given away at QoS 0"),
                // A will whose publication a crash took back is published again, like a PUBLISH
                // that comes again.
                QoS::ExactlyOnce
                    if last.crashes < model.crashes && !last.stored && is_loose(model, uid) =>
                {
                    None
                }
                QoS::ExactlyOnce => Some("belongs to another session at QoS 2"),
                QoS::AtLeastOnce if model.conns[&last.conn].is_live() => Some("is still in flight"),
                QoS::AtLeastOnce => None,
            };
            if let Some(problem) = problem {
                let other = model.sessions[last.session].client;
                return Err(format!(
                    "[{conn}] {publish:?} of {group} {problem}: client {other} on [{}]",
                    last.conn
                ));
            }
        }
        given.push(Given {
            session,
            conn,
            qos: publish.qos,
            crashes: model.crashes,
            stored: survives(model, group, uid),
        });
        Ok(())
    }

    /// Whether some member must have received a message.
    fn must(&self, model: &Model, group: &str, uid: Uid, message: &MessageInfo) -> bool {
        let Some(read) = message.certain else {
            return false;
        };
        let mut stays = false;
        let of_group =
            |sub: &&Sub| sub.filter == group && model.is_of_tenant(sub, message.publisher);
        for sub in model.subs.iter().filter(of_group) {
            if !sub.matches(message.topic) {
                return false;
            }
            let session = &model.sessions[sub.session];
            let left = sub.ended.is_some_and(|ended| ended > read)
                && session.ended != sub.ended
                && sub.replaced_by.is_none();
            // What a crash took from a member may have been sent to it, and so may all that waited for
            // one that was connected: it ends with the session.
            let crashed = model.crashes > 0
                && message.qos == QoS::ExactlyOnce
                && session.ended.is_some_and(|ended| ended > read);
            let small = model.clients[session.client].maximum_packet_size < u32::MAX;
            // What such a member does with a message is its own affair.
            if left
                || crashed
                || small && message.len > 1_000
                || sub.options.maximum_qos == QoS::AtMostOnce
            {
                return false;
            }
            stays |= sub.ended.is_none() && sub.certain.is_some_and(|certain| certain < read);
        }
        let given = self
            .given
            .iter()
            .find(|((name, it), _)| *name == group && *it == uid);
        let died = given.is_some_and(|(_, given)| {
            let dead = |it: &Given| model.sessions[it.session].ended.is_some();
            given
                .iter()
                .any(|it| it.qos == QoS::ExactlyOnce && dead(it))
        });
        stays && !died
    }
}

impl Invariant for Shared {
    fn name(&self) -> &'static str {
        "one member for each message"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        match &event.what {
            What::ServerSent {
                conn,
                pkt: Pkt::Publish(publish),
                ..
            } => self.give(model, event.seq, *conn, publish),
            What::Delivered { conn, publish } => {
                if let (Some(group), Some(uid)) = (group_of(model, *conn, publish), publish.uid) {
                    *self.delivered.entry((group, uid)).or_default() += 1;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        if model.system.is_tight() {
            return Ok(());
        }
        for group in SHARES {
            for (uid, message) in &model.messages {
                let kept = message.qos > QoS::AtMostOnce
                    && message.read_expiry.is_none()
                    && message.will.is_none()
                    && !message.empty
                    && !message.refused
                    && !message.forbidden
                    && !model.may_be_dropped(message);
                if kept
                    && !self.delivered.contains_key(&(*group, *uid))
                    && self.must(model, group, *uid, message)
                {
                    return Err(format!("no member of {group} ever received m{uid}"));
                }
            }
        }
        Ok(())
    }
}
