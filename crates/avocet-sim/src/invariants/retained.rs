//! The last message delivered with RETAIN is the one retained; a new subscription gets it if its
//! Retain Handling says so, and never after a newer one [MQTT5-3.3.1-5] [MQTT5-3.3.1-6]
//! [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT311-3.3.1-6].

use std::collections::BTreeMap;
use std::sync::Arc;

use avocet_codec::QoS;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::{Model, Sent, Seq, SessionId, Sub};
use crate::plan::{CHECKER, Micros, WITNESS};
use crate::survivors::Survivors;
use crate::wire::Uid;

/// When it was sent, with which Subscription Identifiers.
type Flagged = (Seq, Vec<u32>);

#[derive(Default)]
pub(crate) struct Retained {
    /// What the witness saw, by topic: when, and which.
    seen: BTreeMap<&'static str, Vec<(Seq, Uid)>>,
    /// What each session was sent for the first time, by topic and whether at QoS 0, which
    /// waits for no window.
    came: BTreeMap<(SessionId, &'static str, bool), Vec<Uid>>,
    /// How often each session was sent a message because it was retained, and nothing else.
    snapshots: BTreeMap<(SessionId, Uid), usize>,
    /// What each session was sent with RETAIN.
    flagged: BTreeMap<(SessionId, Uid), Vec<Flagged>>,
    /// What the last client got.
    kept: BTreeMap<&'static str, Uid>,
    /// What the last restart found, and when.
    found: Option<(Seq, Micros, Arc<Survivors>)>,
}

/// Whether what is retained of a topic may have expired: even one that did before anybody was sent
/// it has replaced the last one.
fn may_expire(model: &Model, topic: &str) -> bool {
    let mut messages = model.messages.values();
    messages.any(|it| it.topic == topic && it.retain && it.read_expiry.is_some())
}

impl Retained {
    /// Whether a value may be there that the witness saw nothing of, or an earlier one of: what was not
    /// acknowledged when the broker crashed may be retained, delivered, both or neither. What comes
    /// again after that, and is refused by a full store, changes nothing.
    fn is_left(
        &self,
        model: &Model,
        topic: &str,
        last: Option<(Seq, Uid)>,
        kept: Option<&Uid>,
    ) -> bool {
        let Some((seq, at, found)) = &self.found else {
            return false;
        };
        let before = last.is_none_or(|(seen, uid)| {
            let message = &model.messages[&uid];
            message.last_read_at < *at || seen < *seq && model.may_be_dropped(message)
        });
        before && found.of_topic("", topic).flatten().as_ref() == kept
    }

    fn settle_end(&self, model: &Model) -> Result<(), String> {
        for (topic, seen) in &self.seen {
            let Some((seq, last)) = seen.last() else {
                continue;
            };
            let message = &model.messages[last];
            let kept = self.kept.get(topic);
            let gone = message.empty || may_expire(model, topic);
            match kept {
                None if gone => {}
                Some(kept) if kept == last && !message.empty => {}
                kept if self.is_left(model, topic, Some((*seq, *last)), kept) => {}
                _ => {
                    return Err(format!(
                        "{topic} has {kept:?}, and the last one delivered is m{last}"
                    ));
                }
            }
        }
        match self.kept.iter().find(|(topic, kept)| {
            let seen = self.seen.contains_key(*topic);
            !seen && !self.is_left(model, topic, None, Some(*kept))
        }) {
            Some((topic, uid)) => Err(format!("{topic} has m{uid}, which nobody was sent")),
            None => Ok(()),
        }
    }

    /// Each subscription brings what is retained once, if its Retain Handling says so.
    fn check_count(&mut self, model: &Model, sent: &Sent<'_>) -> Result<(), String> {
        let (session, message) = (sent.session, sent.message);
        let grounds = model.grounds(sent).visible(model);
        let as_published = |sub: &&Sub| sub.options.retain_as_published;
        // A crash may take back that it was sent.
        if model.crashes > 0 || grounds.live.iter().chain(&grounds.shared).any(as_published) {
            return Ok(());
        }
        let found = self.snapshots.entry((session, sent.uid)).or_default();
        *found += 1;
        let subs = model.matching(session, message);
        let most = subs.filter(|sub| sub.may_find(model, message)).count();
        if *found > most {
            return Err(format!(
                "{sent} comes {found} times, and {most} subscriptions asked for it"
            ));
        }
        Ok(())
    }

    /// No value comes after a newer one.
    fn settle_order(&self) -> Result<(), String> {
        for ((_, topic, _), uids) in &self.came {
            let Some(seen) = self.seen.get(topic) else {
                continue;
            };
            let place = |uid: &Uid| seen.iter().position(|(_, seen)| seen == uid);
            let mut last = None;
            for uid in uids {
                let place = place(uid);
                if place.is_some() && place < last {
                    return Err(format!(
                        "{topic}: m{uid} comes after a newer one, of {uids:?}"
                    ));
                }
                last = last.max(place);
            }
        }
        Ok(())
    }

    /// What stood when a client subscribed, and stayed, has come.
    fn settle_new(&self, model: &Model, sub: &Sub) -> Result<(), String> {
        let session = &model.sessions[sub.session];
        let profile = &model.clients[session.client];
        // Pages that were not queued yet are lost in a crash, and the witness may be late after one.
        if model.crashes > 0 || !sub.asks() || sub.answered.is_none() || sub.ended.is_some() {
            return Ok(());
        }
        for (topic, seen) in &self.seen {
            let Some((seq, uid)) = seen.last().filter(|(seq, _)| *seq < sub.began) else {
                continue;
            };
            let message = &model.messages[uid];
            let qos = message.qos.min(sub.options.maximum_qos);
            let large = profile.maximum_packet_size < u32::MAX && message.len > 1_000;
            if !model.takes(sub, message)
                || message.empty
                || may_expire(model, topic)
                || large
                || sub.hides(model, message)
                || qos == QoS::AtMostOnce && !model.stayed(sub.session, sub.began)
            {
                continue;
            }
            let copies = self.flagged.get(&(sub.session, *uid));
            let brought = |(at, ids): &Flagged| *at > sub.began && ids == sub.id.as_slice();
            if !copies.is_some_and(|copies| copies.iter().any(brought)) {
                return Err(format!(
                    "client {} subscribed to {} and never got m{uid} of {topic}, retained at {seq}",
                    session.client, sub.filter
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for Retained {
    fn name(&self) -> &'static str {
        "the last message delivered is the one retained"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        if let What::Restarted { survivors, .. } = &event.what {
            self.found = Some((event.seq, event.at, Arc::clone(survivors)));
        }
        let Some(sent) = model.sent(event) else {
            return Ok(());
        };
        let (publish, message, session, uid) = (sent.publish, sent.message, sent.session, sent.uid);
        let first = model
            .copies
            .get(&(session, uid))
            .and_then(|copies| copies.first);
        // After a crash also what was never sent may have DUP.
        if publish.dup && first != Some(event.seq) {
            return Ok(());
        }
        if publish.retain && !message.retain {
            return Err(format!("{sent} was not published with RETAIN"));
        }
        if !message.retain {
            return Ok(());
        }
        if publish.retain {
            self.check_count(model, &sent)?;
            let flagged = self.flagged.entry((session, uid)).or_default();
            flagged.push((event.seq, publish.subscription_ids.clone()));
        }
        match model.sessions[session].client {
            WITNESS => {
                self.seen
                    .entry(message.topic)
                    .or_default()
                    .push((event.seq, uid));
            }
            CHECKER if publish.retain => {
                self.kept.insert(message.topic, uid);
            }
            _ => {}
        }
        let shared = model
            .subs
            .iter()
            .any(|sub| sub.session == session && sub.shared);
        if first == Some(event.seq) && message.reads == 1 && !shared {
            let came = self
                .came
                .entry((session, message.topic, publish.qos == QoS::AtMostOnce));
            came.or_default().push(uid);
        }
        Ok(())
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        // The witness may have missed some.
        if model.system.is_tight() {
            return Ok(());
        }
        self.settle_end(model)?;
        // What is on its way to several shards may come to them in another order after a crash.
        if model.crashes == 0 {
            self.settle_order()?;
        }
        model
            .subs
            .iter()
            .try_for_each(|sub| self.settle_new(model, sub))
    }
}
